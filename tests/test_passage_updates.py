"""Indexes of passages are kept by documents: any history answers as a fresh index would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from retrievekit.cli.app import app
from retrievekit.compress.build import compress
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, DuplicateIdError, UnknownNameError
from retrievekit.index import lookup
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.opening import open_index
from retrievekit.index.sparse import SparseIndex
from retrievekit.queries import Queries
from retrievekit.splitting import Window, split_documents
from retrievekit.testing.sparse import ToySparseEncoder

# Ids that look like those of each other's passages, and begin like them.
IDS = ["a", "a#0001", "a#", "a#0", "b", "a#0001#0000"]


def document(doc_id: str, words: int) -> Document:
    return Document(doc_id, " ".join(f"w{n}" for n in range(words)), f"title {doc_id}")


def fresh(documents: Mapping[str, Document], path: Path | None = None) -> BM25Index:
    source = split_documents(documents.values(), words=3, stride=2)
    return BM25Index.build(source, path)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "upsert", "delete"]),
        st.dictionaries(st.sampled_from(IDS), st.integers(0, 9), min_size=1, max_size=3),
    ),
    max_size=4,
)


@pytest.mark.parametrize("per_search", [0, 1000])
@given(begun=st.dictionaries(st.sampled_from(IDS), st.integers(0, 9)), acts=ACTS)
@settings(max_examples=25)
def test_any_history_is_a_fresh_index(
    per_search: int,
    begun: dict[str, int],
    acts: list[tuple[str, dict[str, int]]],
) -> None:
    live = {doc_id: document(doc_id, words) for doc_id, words in begun.items()}
    index = fresh(live)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lookup, "ROWS_PER_SEARCH", per_search)
        for act, what in acts:
            documents = [document(doc_id, words) for doc_id, words in what.items()]
            known = live.keys() & what.keys()
            with index.writer() as writer:
                if act == "delete":
                    writer.delete(what, missing="ignore")
                    live = {i: d for i, d in live.items() if i not in what}
                elif act == "add" and known:
                    with pytest.raises(DuplicateIdError, match="is in the index already"):
                        writer.add(documents)
                else:
                    (writer.add if act == "add" else writer.upsert)(documents)
                    live |= {document.doc_id: document for document in documents}
            index = index.reopen()
    expected = fresh(live)
    assert sorted(index.ids) == sorted(expected.ids)
    assert index.fingerprint == expected.fingerprint
    queries = Queries.from_texts(["w0 w3 title", "w8"])
    assert index.search(queries, 99) == expected.search(queries, 99)


def test_long_documents_lie_in_several_parts() -> None:
    # More passages than are handled at a time: their document is looked up twice, and goes once.
    index = BM25Index.build(split_documents([document("a", 9000), document("b", 2)], words=1))
    with index.writer() as writer:
        assert writer.upsert([document("a", 10_001)]) == 10_001  # a digit more in each id
    index = index.reopen()
    assert (len(index), "a#00000" in index.ids, "a#0000" in index.ids) == (10_003, True, False)
    with index.writer() as writer, pytest.raises(DuplicateIdError, match="'a' is in the index"):
        writer.add([document("a", 1)])
    with index.writer() as writer:
        assert writer.delete(["a"]) == 10_001
    assert list(index.reopen().ids) == ["b#0000", "b#0001"]


def test_the_window_is_kept(tmp_path: Path) -> None:
    corpus = Corpus.from_documents([document("a", 5), document("b", 5)])
    cut = corpus.passages(words=3, stride=2, repeat_title=False)
    window = Window(3, 2, False)
    index = BM25Index.build(cut, tmp_path / "x")
    assert open_index(tmp_path / "x").window == window
    assert BM25Index.build(corpus).window is None
    for source in (cut.take(np.arange(2)), next(cut.chunks(2)), index.corpus):
        assert source is not None
        assert source.window == window
    assert next(iter(index.corpus.chunks(1))).window == window if index.corpus else False
    with index.writer() as writer:
        writer.add([document("c", 5)])
        writer.compact()
    assert index.reopen().window == window
    assert [d.title for d in index.reopen().corpus or [] if d.doc_id[0] == "c"] == ["title c", ""]
    assert index.fingerprint != BM25Index.build(corpus.passages(words=3, stride=2)).fingerprint


def test_other_kinds_keep_it_too(tmp_path: Path) -> None:
    corpus = Corpus.from_documents([document("a", 5), document("b", 5)])
    cut = corpus.passages(words=3)
    sparse = SparseIndex.build(cut, ToySparseEncoder(64))
    with sparse.writer() as writer:
        assert writer.upsert([document("a", 9)]) == 3
    assert len(sparse.reopen()) == 5
    vectors = np.eye(len(cut), 4, dtype=np.float32)
    dense = DenseIndex.from_vectors(cut, vectors, tmp_path / "d", similarity="dot")
    with dense.writer() as writer:
        writer.delete(["a"])
    smaller = compress(dense.reopen(), "fp16", tmp_path / "s")
    assert (smaller.window, list(smaller.ids)) == (cut.window, ["b#0000", "b#0001"])


def test_passages_are_taken_as_they_are_or_refused() -> None:
    index = fresh({"a": document("a", 5)})
    more = Corpus.from_documents([document("b", 5)])
    with index.writer() as writer:
        assert writer.add(more.passages(words=3, stride=2)) == 2
    index = index.reopen()
    with index.writer() as writer, pytest.raises(DataError, match="were cut by Window"):
        writer.upsert(more.passages(words=3))
    with index.writer() as writer, pytest.raises(DataError, match="give the documents that"):
        writer.upsert(list(more.passages(words=3, stride=2)))
    whole = BM25Index.build(more)
    with whole.writer() as writer, pytest.raises(DataError, match="holds whole documents"):
        writer.add(more.passages(words=3))
    assert len(whole.reopen()) == 1
    # Where nobody knows how passages were cut, they may be added to each other.
    unknown = BM25Index.build(list(more.passages(words=3)))
    with unknown.writer() as writer:
        writer.add(Corpus.from_documents([document("c", 5)]).passages(words=3))
    assert len(unknown.reopen()) == 4


def test_an_empty_index_takes_the_window_of_its_first_passages(tmp_path: Path) -> None:
    a, b = (Corpus.from_documents([document(name, 5)]) for name in "ab")
    index = BM25Index.build([], tmp_path / "x")
    with index.writer() as writer:
        assert writer.add(a.passages(words=3, stride=2)) == 2
        assert writer.add(b) == 2
        assert writer.delete(["a"]) == 2
    index = open_index(tmp_path / "x")
    assert index.window == Window(3, 2, True)
    assert index.fingerprint == fresh({"b": document("b", 5)}).fingerprint
    with index.writer() as writer, pytest.raises(DataError, match="were cut by Window"):
        writer.add(a.passages(words=3))
    # An update that fails, and one whose documents were all deleted.
    other = BM25Index.build([])
    with other.writer() as writer:
        with pytest.raises(DuplicateIdError, match="twice"):
            writer.add(split_documents([document("a", 5), document("a", 5)], words=3))
        assert writer.add(a) == 1
    assert other.reopen().window is None
    with other.writer() as writer:
        writer.delete(["a"])
    with other.writer() as writer:
        writer.add(a.passages(words=3))
    assert other.reopen().window == Window(3, 3, True)
    assert list(other.reopen().ids) == ["a#0000", "a#0001"]


def test_given_vectors_and_weights_keep_the_window() -> None:
    passages = Corpus.from_documents([document("a", 5)]).passages(words=3, stride=2)
    stream = split_documents([document("a", 5)], words=3, stride=2)
    vectors = np.eye(2, 4, dtype=np.float32)
    dense = DenseIndex.from_vectors(stream, vectors, similarity="dot")
    assert (dense.window, len(dense)) == (passages.window, 2)
    pairs = [(passage, {"w": 1.0}) for passage in passages]
    assert SparseIndex.from_weights(pairs).window is None
    sparse = SparseIndex.from_weights(pairs, window=passages.window)
    assert sparse.window == passages.window
    with sparse.writer() as writer:
        assert writer.delete(["a"]) == 2


def test_a_passage_is_no_document() -> None:
    index = fresh({"a": document("a", 5)})
    with index.writer() as writer, pytest.raises(UnknownNameError, match="ids of their documents"):
        writer.delete(["a#0000"])
    with index.writer() as writer:
        assert writer.delete(where="passage > 0") == 1
    assert list(index.reopen().ids) == ["a#0000"]


def test_on_the_command_line(tmp_path: Path) -> None:
    def call(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output + done.stderr
        return done.stdout

    def lines(**texts: str) -> str:
        records = [json.dumps({"_id": i, "text": t}) + "\n" for i, t in texts.items()]
        (tmp_path / "docs.jsonl").write_text("".join(records))
        return str(tmp_path / "docs.jsonl")

    index = str(tmp_path / "p.index")
    call("index", lines(a="one two three four", b="five"), "-o", index, "--passages", "3/2")
    told = call("add", index, lines(c="six seven eight nine"))
    assert told == f"{index}: 2 passages written, 5 in the index now\n"
    call("add", index, lines(a="ten"), "--upsert")
    assert call("delete", index, "c") == f"{index}: 2 passages deleted, 2 in the index now\n"
    assert sorted(BM25Index.open(index).ids) == ["a#0000", "b#0000"]
