"""int8 storage against float64 arithmetic over what is stored, and how steps are calibrated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retrievekit.compress.build import compress
from retrievekit.compress.figures import compared
from retrievekit.corpus import Document
from retrievekit.errors import CorruptIndexError
from retrievekit.index import storage
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import approximate, flat, halves
from retrievekit.index.repair import repair
from retrievekit.protocols import EncoderCard, Similarity
from retrievekit.queries import Queries
from retrievekit.store.verify import verify
from retrievekit.vectors import DenseVectors

SIMILARITIES: list[Similarity] = ["dot", "cosine", "euclidean"]


def vectors_of(n: int, dim: int = 48, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


class Rows:
    """An encoder that gives a document the vector of its row."""

    def __init__(self, vectors: NDArray[np.float32], similarity: Similarity = "dot") -> None:
        self.vectors = vectors
        self.dim = vectors.shape[1]
        self.similarity: Similarity = similarity
        self.card = EncoderCard("rows", {"model": "rows", "similarity": similarity})

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.vectors[[int(text) for text in texts]].reshape(len(texts), self.dim)

    encode_query = encode_document


def documents(first: int, last: int) -> list[Document]:
    return [Document(f"d{n:04d}", str(n), metadata={"row": n}) for n in range(first, last)]


def ask(vectors: NDArray[np.float32]) -> Queries:
    return Queries.from_texts([str(n) for n in range(len(vectors))]).rewritten(
        DenseVectors(vectors)
    )


def hits_of(index: DenseIndex, queries: Queries, k: int, where: str | None = None) -> Any:
    run = index.searcher(k, where)(queries)
    return [[(hit.doc_id, hit.score) for hit in run.hits(q)] for q in range(len(run))]


def as_stored(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What int8 keeps of vectors that are calibrated on themselves, by plain arithmetic."""
    steps = (1.25 * np.abs(vectors).max(axis=0).astype(np.float64) / 127).astype(np.float32)
    counted = np.round(vectors / steps)
    assert np.abs(counted).max() <= 127
    out: NDArray[np.float32] = (counted * steps).astype(np.float32)
    return out


@pytest.mark.parametrize("in_halves", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_int8_answers_exactly_for_what_it_stores(
    similarity: Similarity, in_halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "ASKED", 0)
    monkeypatch.setattr(halves, "LEAST", 0)
    monkeypatch.setattr(halves, "faster", lambda: in_halves)
    vectors, queries = vectors_of(700), ask(vectors_of(20, seed=1))
    vectors[5] = 0
    index = DenseIndex.build(documents(0, 700), Rows(vectors, similarity), storage="int8")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    lengths[5] = 1
    units = (vectors / lengths).astype(np.float32)
    expected = as_stored(units if similarity == "cosine" else vectors)
    assert index.vectors.tolist() == expected.tolist()
    assert index.storage == "int8"
    assert index.segments[0]["vectors"].record.file.size == vectors.size
    asked, stored = index.query_vectors(queries).astype(np.float64), expected.astype(np.float64)
    scores = asked @ stored.T
    if similarity == "euclidean":
        scores = -np.sqrt(((asked[:, None] - stored[None]) ** 2).sum(axis=2))
    scores = scores.astype(np.float32)
    for k, where, first in ((10, None, 0), (10, "row >= 690", 690), (1, None, 0), (900, None, 0)):
        run = index.searcher(k, where)(queries)
        for place in range(20):
            order = sorted(range(first, 700), key=lambda n: (-scores[place, n], -n))[:k]
            assert run.hits(place).doc_ids == [f"d{n:04d}" for n in order]
    lost = np.linalg.norm(index.vectors - (units if similarity == "cosine" else vectors))
    assert index.rounding_error == pytest.approx(lost / np.sqrt((vectors**2).sum()) if
        similarity != "cosine" else lost / np.sqrt(699), rel=1e-3)  # fmt: skip
    assert 0.005 < index.rounding_error < 0.02


def test_updates_are_rounded_by_the_same_steps_and_never_twice(tmp_path: Path) -> None:
    vectors = vectors_of(900)
    encoder = Rows(vectors)
    index = DenseIndex.build(documents(0, 400), encoder, tmp_path / "i", storage="int8")
    before = {name: row.tolist() for name, row in zip(index.ids, index.vectors, strict=True)}
    with index.writer(merge="never") as writer:
        writer.add(documents(400, 900))
        writer.delete([f"d{n:04d}" for n in range(0, 900, 3)])
    index = index.reopen()
    assert [s["vectors"].dtype for s in index.segments] == [np.int8, np.int8]
    steps = [storage.steps_of(segment).tolist() for segment in index.segments]
    assert steps[0] == steps[1]
    lived = {name: row.tolist() for name, row in zip(index.ids, index.vectors, strict=True)}
    assert all(before[name] == row for name, row in lived.items() if name in before)
    queries = ask(vectors_of(9, seed=1))
    answers = hits_of(index, queries, 20)
    assert (
        index.fingerprint
        != DenseIndex.open(tmp_path / "i").over(index.manifest, index.segments[:1]).fingerprint
    )
    with index.writer() as writer:
        writer.compact()
    index = index.reopen()
    assert len(index.segments) == 1
    assert dict(zip(index.ids, index.vectors.tolist(), strict=True)) == lived
    assert hits_of(index, queries, 20) == answers
    assert verify(tmp_path / "i", deep=True).ok
    copied = compress(index, "binary", tmp_path / "b")
    assert (copied.storage, copied.engine) == ("int8", "binary")
    assert copied.vectors.tolist() == index.vectors.tolist()
    wide = DenseIndex.from_vectors(
        index.corpus or [], index.vectors, similarity="dot", storage="float32"
    )
    assert hits_of(wide, queries, 20) == answers


def test_too_few_to_calibrate_on_keep_float32_until_there_are_more(tmp_path: Path) -> None:
    vectors = vectors_of(600)
    encoder = Rows(vectors)
    index = DenseIndex.build(documents(0, 3), encoder, tmp_path / "i", storage="int8")
    assert index.vectors.tolist() == vectors[:3].tolist()
    assert index.rounding_error == 0
    with index.writer(merge="never") as writer:
        writer.add(documents(3, 6))
        writer.add(documents(6, 500))
        writer.add(documents(500, 503))
    index = index.reopen()
    kinds = [segment["vectors"].dtype for segment in index.segments]
    assert kinds == [np.float32, np.float32, np.int8, np.int8]
    queries = ask(vectors_of(5, seed=1))
    answers = hits_of(index, queries, 503)
    scores = (vectors_of(5, seed=1).astype(np.float64) @ index.vectors.astype(np.float64).T).astype(
        np.float32
    )
    for place, hits in enumerate(answers):
        order = sorted(range(503), key=lambda n: (-scores[place, n], -n))
        assert [doc_id for doc_id, _ in hits] == [f"d{n:04d}" for n in order]
    rounded = index.vectors[6:].tolist()
    with index.writer() as writer:
        writer.compact()
    index = index.reopen()
    assert index.segments[0]["vectors"].dtype == np.int8
    assert index.vectors[6:].tolist() == rounded  # not once more
    assert np.abs(index.vectors - vectors[:503]).max() < 0.05
    empty = DenseIndex.build([], encoder, storage="int8")
    assert len(empty.searcher(3)(queries)) == 5
    assert compared(index, compress(index, "int8", tmp_path / "c")).compressed.overlap == 1


def test_calibration_stops_at_the_first_vectors_and_tells_what_is_cut_off(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "CALIBRATED_ON", 300)
    vectors = vectors_of(600)
    vectors[300:] *= 10
    with caplog.at_level(logging.WARNING):
        index = DenseIndex.build(documents(0, 600), Rows(vectors), storage="int8")
    limits = 1.25 * np.abs(vectors[:300]).max(axis=0)
    assert np.allclose(np.abs(index.vectors).max(axis=0), limits, rtol=1e-5)
    assert np.allclose(index.vectors[:300], vectors[:300], atol=0.03)
    cut = int((np.abs(vectors) > limits * 127.5 / 127).any(axis=1).sum())
    assert index.segments[0].record.details["int8"]["cut off"] == cut
    assert f"{cut} of 600 vectors reach beyond the ranges" in caplog.text


def test_components_that_say_nothing_and_numbers_of_any_size() -> None:
    vectors = vectors_of(300, 6)
    vectors[:, 2] = 0
    vectors[:, 3] *= 1e30
    vectors[:, 4] *= 1e-42
    vectors[:, 5] = 7
    index = DenseIndex.build(documents(0, 300), Rows(vectors), storage="int8")
    assert not index.vectors[:, 2].any()
    for column in (0, 1, 3, 5):
        largest = np.abs(vectors[:, column]).max()
        assert np.abs(index.vectors[:, column] - vectors[:, column]).max() <= 0.006 * largest
    assert np.isfinite(index.vectors).all()


@pytest.mark.parametrize("engine", ["flat", "binary", "int8", "IVF4,PQ8x4fs", "HNSW8"])
def test_every_engine_scores_again_from_what_is_stored(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine not in ("flat", "binary", "int8"):
        pytest.importorskip("faiss")
    monkeypatch.setattr(flat, "PAIR_BY_PAIR", 0)
    vectors = vectors_of(600)
    encoder = Rows(vectors, "cosine")
    index = DenseIndex.build(
        documents(0, 600), encoder, tmp_path / "i", storage="int8", engine=engine
    )
    exact = DenseIndex.build(documents(0, 600), encoder, storage="int8")
    queries = ask(vectors_of(6, seed=1))
    options = {} if engine == "flat" else {"refine": 60}
    if engine.startswith("IVF"):
        options["nprobe"] = 4
    run = index.searcher(10, engine_options=options or None)(queries)
    again = exact.searcher(10)(queries)
    assert run.scores.tolist() == again.scores.tolist()
    assert run.rows.tolist() == again.rows.tolist()
    if engine != "flat":
        native = index.segments[0].folder / approximate.NATIVE
        whole = native.read_bytes()
        native.write_bytes(bytes(len(whole)))
        assert repair(tmp_path / "i").ok
        assert native.read_bytes() == whole


def test_damage_is_found_before_an_answer(tmp_path: Path) -> None:
    index = DenseIndex.build(
        documents(0, 400), Rows(vectors_of(400)), tmp_path / "i", storage="int8"
    )
    file = index.segments[0].folder / "vectors"
    broken = bytearray(file.read_bytes())
    broken[1000] ^= 64
    file.write_bytes(broken)
    with pytest.raises(CorruptIndexError, match="vectors: damaged near byte 0"):
        DenseIndex.open(tmp_path / "i").search(ask(vectors_of(1)), 3)
    report = repair(tmp_path / "i")
    assert [entry.name.rpartition("/")[2] for entry in report.files if not entry.ok] == ["vectors"]


def test_vectors_that_were_given_have_one_corpus_hash_however_they_are_stored(
    tmp_path: Path,
) -> None:
    """The hash is of what was given: so a compressed index is still of the same collection."""
    vectors = vectors_of(400)
    made = [
        DenseIndex.from_vectors(documents(0, 400), vectors, similarity="dot", storage=kind)
        for kind in storage.STORAGES
    ]
    hashes = {index.manifest.corpus_hash for index in made}
    assert len(hashes) == 1
    assert len({index.fingerprint for index in made}) == 3
    assert compress(made[0], "int8", tmp_path / "c").fingerprint == made[2].fingerprint
    other = DenseIndex.from_vectors(documents(0, 400), vectors + 1, similarity="dot")
    assert other.manifest.corpus_hash not in hashes


def test_no_memory_budget_changes_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps come from the first vectors, however many segments follow."""
    monkeypatch.setattr(storage, "CALIBRATED_ON", 256)
    vectors = vectors_of(1000)
    encoder = Rows(vectors)
    whole = DenseIndex.build(documents(0, 1000), encoder, storage="int8")
    index = DenseIndex.build(documents(0, 300), encoder, tmp_path / "i", storage="int8")
    for first in range(300, 1000, 100):
        with index.writer(merge="never") as writer:
            writer.add(documents(first, first + 100))
        index = index.reopen()
    assert len(index.segments) == 8
    queries = ask(vectors_of(5, seed=1))
    assert hits_of(index, queries, 30) == hits_of(whole, queries, 30)
