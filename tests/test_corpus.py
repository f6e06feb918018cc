"""`Corpus`: a list of documents says the same, whatever the columns and chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.corpus import Corpus, Document, joined
from retrievekit.errors import DataError, DuplicateIdError, UnknownNameError
from retrievekit.ids import Ids

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = {"year": st.integers(-5, 5), "tags": st.lists(WORDS, max_size=2), "lang": WORDS}


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    ids = draw(st.lists(WORDS.filter(bool), unique=True, max_size=8))
    kinds = st.fixed_dictionaries({}, optional=VALUES)
    return [Document(i, draw(WORDS), draw(WORDS), draw(kinds)) for i in ids]


@given(documents(), st.data())
def test_corpus_is_a_list_of_documents(docs: list[Document], data: st.DataObject) -> None:
    corpus = Corpus.from_documents(docs)
    assert len(corpus) == len(docs)
    assert list(corpus) == docs
    assert [corpus.document(row) for row in range(len(corpus))] == docs
    assert [corpus[d.doc_id] for d in docs] == docs
    assert corpus.contents() == [d.contents for d in docs]
    rows = data.draw(st.permutations(range(len(docs))))
    picked = corpus.take(np.array(rows, np.int64))
    assert list(picked) == [docs[row] for row in rows]
    assert corpus.contents(np.array(rows, np.int64)) == picked.contents()
    size = data.draw(st.integers(1, 4))
    parts = list(corpus.chunks(size))
    assert [d for part in parts for d in part] == docs
    assert all(0 < len(part) <= size for part in parts)


@given(documents(), documents())
def test_hash_is_that_of_the_content(one: list[Document], other: list[Document]) -> None:
    a, b = Corpus.from_documents(one), Corpus.from_documents(other)
    if one != other:
        assert a.content_hash != b.content_hash
    assert a.content_hash == Corpus.from_documents(iter(one)).content_hash


@given(documents(), st.integers(1, 3))
def test_hash_does_not_know_how_the_table_is_chunked(docs: list[Document], size: int) -> None:
    corpus = Corpus.from_documents(docs)
    batches = corpus.table.to_batches(max_chunksize=size)
    chunked = Corpus(corpus.ids, pa.Table.from_batches(batches, corpus.table.schema))
    assert chunked.content_hash == corpus.content_hash
    assert list(chunked) == docs


def test_hash_knows_fields_apart() -> None:
    hashes = {
        Corpus.from_documents([document]).content_hash
        for document in (
            Document("a", "x", "y"),
            Document("a", "y", "x"),
            Document("a", "xy", ""),
            Document("b", "x", "y"),
            Document("a", "x", "y", {"k": 1}),
            Document("a", "x", "y", {"k": "1"}),
            Document("a", "x", "y", {"l": 1}),
        )
    }
    assert len(hashes) == 7


def test_contents_join_by_one_blank() -> None:
    assert Document("a", "text", "Title").contents == "Title" + " " + "text"
    assert Document("a", "text").contents == "text"
    assert Document("a", "", "Title").contents == "Title "
    assert joined(pa.table({"title": ["T", ""], "text": ["x", "y"]})) == ["T x", "y"]


def test_texts() -> None:
    assert list(Corpus.from_texts({"d1": "x"})) == [Document("d1", "x")]
    assert list(Corpus.from_texts(["x", "y"]).ids) == ["1", "2"]
    assert repr(Corpus.from_texts(["x"])) == "Corpus(1 documents)"


@pytest.mark.parametrize("nothing", [{}, []])
def test_no_documents(nothing: Any) -> None:
    corpus = Corpus.from_texts(nothing)
    assert len(corpus) == 0
    assert list(corpus) == list(corpus.chunks()) == corpus.contents() == []
    assert len(corpus.take(np.zeros(0, np.int64))) == 0
    assert corpus.content_hash == Corpus.from_documents([]).content_hash
    with pytest.raises(UnknownNameError):
        _ = corpus["a"]


def test_metadata_that_some_documents_lack() -> None:
    docs = [
        Document("a", "x", "", {"year": 1}),
        Document("b", "y"),
        Document("c", "z", "", {"q": ""}),
    ]
    corpus = Corpus.from_documents(docs)
    assert corpus.metadata_names == ["year", "q"]
    assert list(corpus) == docs
    assert repr(corpus) == "Corpus(3 documents, metadata ['year', 'q'])"


@pytest.mark.parametrize(
    ("docs", "error", "message"),
    [
        (
            [Document("a", "x"), Document("a", "y")],
            DuplicateIdError,
            "document id given twice: 'a'",
        ),
        ([Document("", "x")], DataError, "document id 0 is empty"),
        ([Document(1, "x")], DataError, r"document id 0 is 1 \(int\)"),  # type: ignore[arg-type]
        ([Document("a", None)], DataError, "the text of document 'a' is None"),  # type: ignore[arg-type]
        ([Document("a", "x", 3)], DataError, "the title of document 'a' is 3"),  # type: ignore[arg-type]
        ([Document("b", ""), Document("a", "\ud800")], DataError, "the text of document 'a' holds"),
        ([Document("a", "", "\udfff")], DataError, "the title of document 'a' holds a lone"),
        ([Document("a", "x", "", {"text": 1})], DataError, "metadata may not be named 'text'"),
        (
            [Document("a", "x", "", {"k": 1}), Document("b", "x", "", {"k": "1"})],
            DataError,
            "the values of metadata 'k' do not fit one type",
        ),
        ([Document("a", "x", "", {"k": 2**70})], DataError, "metadata 'k' do not fit one type"),
        ([Document("a", "x", "", {"k": "\ud800"})], DataError, "metadata 'k'"),
    ],
)
def test_bad_documents(docs: list[Document], error: type[DataError], message: str) -> None:
    with pytest.raises(error, match=message):
        Corpus.from_documents(docs)


def test_bad_tables() -> None:
    ids = Ids.from_strings(["a"])
    with pytest.raises(DataError, match="1 document ids, but 2 rows"):
        Corpus(ids, pa.table({"text": ["x", "y"], "title": ["", ""]}))
    with pytest.raises(DataError, match="has no column 'title'"):
        Corpus(ids, pa.table({"text": ["x"]}))
    with pytest.raises(DataError, match="1 of 1 documents have null as their title"):
        Corpus(ids, pa.table({"text": ["x"], "title": pa.nulls(1, pa.large_string())}))
    with pytest.raises(DataError, match="texts is one string"):
        Corpus.from_texts("x")
