"""Updates: any history answers exactly as one fresh index over the same documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    LockedError,
    StoreError,
    UnknownNameError,
)
from retrievekit.index.base import Index
from retrievekit.index.bm25 import BM25Index
from retrievekit.queries import Queries
from retrievekit.store.verify import verify
from retrievekit.testing import IndexCase, check_index

WORDS = ["cat", "dog", "bird", "fish", "horn", "glass", "snow", "wood", "cats", "the"]
QUERIES = Queries.from_texts(["cat", "dog bird", "snow wood glass", "cat cat fish", "", "the"])


def same(case: IndexCase, updated: Index, documents: dict[str, Document]) -> None:
    check_index(case, updated, documents.values(), QUERIES)
    assert updated.corpus is not None
    for doc_id, document in documents.items():
        assert updated.corpus[doc_id] == document
        assert updated.corpus.contents(updated.ids.rows([doc_id])) == [document.contents]


texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "upsert", "delete", "compact", "commit"]),
        st.lists(st.tuples(st.integers(0, 9), texts), min_size=1, max_size=4),
    ),
    max_size=8,
)


@settings(max_examples=25)
@given(st.lists(texts, max_size=6), steps)
def test_any_history_answers_as_a_fresh_index(
    index_case: IndexCase, start: list[str], history: list[tuple[str, list[tuple[int, str]]]]
) -> None:
    documents = {f"d{n}": Document(f"d{n}", text, "", {"n": n}) for n, text in enumerate(start)}
    index = index_case.build(list(documents.values()))
    writer = index.writer()
    for verb, given_documents in history:
        batch = {f"d{n}": Document(f"d{n}", text, "", {"n": n}) for n, text in given_documents}
        if verb == "add":
            batch = {doc_id: d for doc_id, d in batch.items() if doc_id not in documents}
            assert writer.add(batch.values()) == len(batch)
            documents.update(batch)
        elif verb == "upsert":
            assert writer.upsert(batch.values()) == len(batch)
            documents.update(batch)
        elif verb == "delete":
            known = [doc_id for doc_id in batch if doc_id in documents]
            assert writer.delete(batch, missing="ignore") == len(known)
            for doc_id in known:
                del documents[doc_id]
        elif verb == "compact":
            writer.compact()
        else:
            index = writer.commit()
            same(index_case, index, documents)
            writer = index.writer()
    index = writer.commit()
    same(index_case, index, documents)
    assert verify(index.path, deep=True).ok
    with index.writer() as last:
        last.compact()
    compacted = index.reopen()
    assert len(compacted.segments) == 1
    same(index_case, compacted, documents)


FOUR = [Document(f"d{n}", f"cat {word}") for n, word in enumerate(WORDS[1:5])]


def test_readers_keep_their_generation(index_case: IndexCase, tmp_path: Path) -> None:
    index = index_case.build(FOUR, tmp_path / "x")
    before = index.searcher(k=10)(QUERIES)
    with index.writer() as writer:
        writer.delete(["d0"])
        writer.add([Document("new", "cat cat")])
    assert index.searcher(k=10)(QUERIES) == before
    assert set(index.reopen().ids) == {"d1", "d2", "d3", "new"}
    assert index.reopen().manifest.generation == index.manifest.generation + 1
    index.reopen().writer().compact()  # given up without a commit
    assert set(index_case.open(tmp_path / "x").ids) == {"d1", "d2", "d3", "new"}


def found(folder: Path) -> list[str]:
    """All paths of a folder but vectors that are kept for the next try."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    return sorted(name for name in names if not name.startswith("x/encoding"))


def test_a_failure_rolls_back(index_case: IndexCase, tmp_path: Path) -> None:
    index = index_case.build(FOUR, tmp_path / "x")
    files = found(tmp_path)
    writer = index.writer()

    def update() -> None:
        with writer:
            writer.delete(["d0"])
            writer.upsert([Document("d1", "bird")])
            writer.prepare()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        update()
    assert found(tmp_path) == files
    same(index_case, index.reopen(), {d.doc_id: d for d in FOUR})
    with pytest.raises(StoreError, match="closed"):
        writer.delete(["d0"])


def test_a_bad_batch_leaves_the_rest_of_the_update(index_case: IndexCase, tmp_path: Path) -> None:
    index = index_case.build(FOUR, tmp_path / "x")
    with index.writer() as writer:
        writer.add([Document("d9", "snow")])
        with pytest.raises(DuplicateIdError, match="'d1' is in the index already"):
            writer.add([Document("fine", "x"), Document("d1", "x")])
        with pytest.raises(DuplicateIdError):
            writer.upsert([Document("twice", "x"), Document("twice", "y")])
        with pytest.raises(UnknownNameError, match="nothing was deleted"):
            writer.delete(["d0", "nobody"])
    expected = {d.doc_id: d for d in [*FOUR, Document("d9", "snow")]}
    same(index_case, index.reopen(), expected)


def test_metadata_types_must_fit() -> None:
    index = BM25Index.build([Document("a", "x", "", {"year": 2020})])
    with index.writer() as writer:
        with pytest.raises(DataError, match="types"):
            writer.add([Document("b", "x", "", {"year": "soon"})])
        writer.add([Document("c", "x", "", {"year": 2020.5}), Document("d", "x", "", {"more": 1})])
    corpus = index.reopen().corpus
    assert corpus is not None
    assert corpus.metadata_names == ["year", "more"]
    assert [d.metadata.get("year") for d in corpus] == [2020, 2020.5, None]


def test_text_left_out_stays_out() -> None:
    index = BM25Index.build(FOUR, store_text=False)
    with index.writer() as writer:
        writer.upsert([Document("d1", "snow")])
        writer.delete(["d0"])
    with index.reopen().writer() as writer:
        writer.compact()
    after = index.reopen()
    assert after.corpus is None
    assert (
        after.fingerprint == BM25Index.build([FOUR[2], FOUR[3], Document("d1", "snow")]).fingerprint
    )


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    index = BM25Index.build(FOUR, tmp_path / "x")
    with index.writer(), pytest.raises(LockedError):
        index.writer()
    with index.reopen().writer() as writer:
        writer.delete(["d0"])
    # An object of an older generation updates the live one, not its own.
    with index.writer() as writer:
        writer.delete(["d1"])
    assert set(index.reopen().ids) == {"d2", "d3"}


def test_everything_can_be_deleted(index_case: IndexCase) -> None:
    index = index_case.build(FOUR)
    with index.writer() as writer:
        writer.delete(d.doc_id for d in FOUR)
    empty = index.reopen()
    assert len(empty) == 0
    assert empty.searcher(k=5)(QUERIES).n_hits == 0
    assert empty.corpus is not None
    assert list(empty.corpus) == []
    with empty.writer() as writer:
        writer.compact()
        writer.add([Document("d0", "bird")])
    same(index_case, index.reopen(), {"d0": Document("d0", "bird")})


def test_updates_of_a_corpus_object() -> None:
    index = BM25Index.build(FOUR)
    with index.writer() as writer:
        assert writer.add(Corpus.from_documents([Document("x", "bird")])) == 1
    assert "x" in index.reopen().ids
