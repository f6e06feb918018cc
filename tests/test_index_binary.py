"""Engines without training against NumPy: Hamming distances bit by bit, and float64 brute force."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrievekit.corpus import Document
from retrievekit.errors import CorruptIndexError, DataError
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import approximate, binary, flat, halves, int8
from retrievekit.index.repair import repair
from retrievekit.protocols import EncoderCard, Similarity
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.vectors import DenseVectors

SIMILARITIES: list[Similarity] = ["dot", "cosine", "euclidean"]
ENGINES = ["binary", "int8"]


class Rows:
    """An encoder of texts that are row numbers."""

    def __init__(self, vectors: NDArray[np.float32], similarity: Similarity = "dot") -> None:
        self.vectors, self.similarity = vectors, similarity
        self.dim = vectors.shape[1]
        self.card = EncoderCard("rows", {"model": "rows", "dim": self.dim})

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.vectors[[int(text) for text in texts]].reshape(-1, self.dim)

    encode_query = encode_document


def vectors_of(n: int, dim: int = 70, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def documents(first: int, last: int) -> list[Document]:
    return [Document(f"d{n:04d}", str(n), metadata={"row": n}) for n in range(first, last)]


def build(
    vectors: NDArray[np.float32],
    similarity: Similarity = "dot",
    engine: str = "binary",
    path: Path | None = None,
) -> DenseIndex:
    encoder = Rows(vectors, similarity)
    return DenseIndex.build(documents(0, len(vectors)), encoder, path, engine=engine)


def ask(vectors: NDArray[np.float32]) -> Queries:
    texts = Queries.from_texts([f"q{n}" for n in range(len(vectors))])
    return texts.rewritten(DenseVectors(vectors))


def pairs(run: Run) -> list[list[tuple[str, float]]]:
    return [[(hit.doc_id, hit.score) for hit in run.hits(q)] for q in range(len(run))]


# The scan.


def hamming(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Distances ``(nq, n)``, one bit at a time."""
    packed = [np.packbits(x > 0, axis=1) for x in (queries, vectors)]
    different = packed[0][:, None] ^ packed[1][None]
    return np.unpackbits(different, axis=2).sum(axis=2).astype(np.int64)


@given(
    n=st.integers(0, 400),
    nq=st.integers(0, 40),
    dim=st.sampled_from([1, 7, 63, 64, 65, 128, 200, 384, 500]),
    k=st.integers(1, 450),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 5),
)
def test_the_scan_finds_the_nearest_by_hamming_distance(
    n: int, nq: int, dim: int, k: int, threads: int, seed: int
) -> None:
    vectors, queries = vectors_of(n, dim, seed), vectors_of(nq, dim, seed + 100)
    vectors[vectors < -1.5] = 0  # 0 is not above 0
    engine = binary.BinaryEngine(dim, "dot")
    segment = engine.opened(memoryview(engine.built(vectors, b"")))
    allowed = None if seed % 2 else np.arange(n) % 3 > 0
    rows, scores = segment.search(queries, k, allowed, {}, threads)
    distances = hamming(queries, vectors)
    for q in range(nq):
        kept = np.arange(n) if allowed is None else np.flatnonzero(allowed)
        expected = kept[np.argsort(distances[q, kept], kind="stable")][: max(k, binary.LEAST)]
        found = rows[q][rows[q] >= 0]
        assert found.tolist() == sorted(expected.tolist())
        assert (-scores[q][: len(found)]).tolist() == distances[q, found].tolist()


def test_equal_codes_beyond_the_room_are_found_in_their_order() -> None:
    vectors = np.ones((5000, 64), np.float32)
    vectors[4000] = -1
    segment = binary.BinaryEngine(64, "dot")
    proposer = segment.opened(memoryview(segment.built(vectors, b"")))
    rows, scores = proposer.search(-vectors[:1], 300, None, {}, 1)
    assert rows.tolist() == [[*range(299), 4000]]
    assert scores.tolist() == [[*[-64] * 299, 0]]


@pytest.mark.parametrize("nearer_later", [True, False])
def test_rows_that_come_ever_nearer_run_through_the_room_many_times(nearer_later: bool) -> None:
    vectors = np.where(np.arange(384) < np.arange(6000)[:, None] // 16, 1, -1).astype(np.float32)
    vectors = vectors if nearer_later else vectors[::-1]
    query = np.ones((1, 384), np.float32)
    engine = binary.BinaryEngine(384, "dot")
    rows, _ = engine.opened(memoryview(engine.built(vectors, b""))).search(query, 105, None, {}, 1)
    expected = np.argsort(hamming(query, vectors)[0], kind="stable")[:105]
    assert rows[0].tolist() == sorted(expected.tolist())


def test_signs_take_a_32nd_of_the_bytes() -> None:
    index = build(vectors_of(640, 384))
    stored, signs = index.segments[0]["vectors"].record.file, approximate.NATIVE
    assert 32 * index.segments[0].record.native[signs].size == stored.size


# Bytes.


@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("in_halves", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_codes_are_off_by_at_most_half_a_step(
    similarity: Similarity, in_halves: bool, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "faster", lambda: in_halves)
    monkeypatch.setattr(int8, "FEW", few)
    monkeypatch.setattr(int8, "ROWS_AT_A_TIME", 170)
    monkeypatch.setattr(int8, "QUERIES_AT_A_TIME", 3)
    spread = np.geomspace(1e-3, 1e3, 32).astype(np.float32)
    vectors, queries = vectors_of(600, 32) * spread, vectors_of(7, 32, 1) / spread
    vectors[:, 5] = 0
    engine = int8.Int8Engine(32, similarity)
    trained = engine.trained(vectors)
    file = memoryview(engine.built(vectors, trained))
    assert len(file) == 4 * 32 + 600 * 32
    assert engine.emptied(file) == trained
    steps = np.frombuffer(trained, np.float32)
    assert np.allclose(steps * 127, np.where(np.arange(32) == 5, 127, np.abs(vectors).max(axis=0)))
    segment = engine.opened(file)
    rows, scores = segment.search(queries, 600, None, {}, 1)
    order = np.argsort(rows, axis=1)[:, -600:]
    assert np.take_along_axis(rows, order, 1).tolist() == [list(range(600))] * 7
    scores = np.take_along_axis(scores, order, 1).astype(np.float64)
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    off = np.abs(q) @ steps.astype(np.float64) / 2
    exact = q @ v.T
    bound = off[:, None] + 2.0**-7 * (np.abs(q) @ np.abs(v.T)) * in_halves + 1e-4
    if similarity == "euclidean":
        exact = ((q[:, None] - v[None]) ** 2).sum(axis=2)
        bound = 2 * bound + np.abs(v) @ steps.astype(np.float64) + 1e-4 * np.abs(exact)
    assert (np.abs(scores - exact) <= bound).all()


def test_more_equal_scores_than_room_leave_the_query_to_exact_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "SPARE", 128)
    monkeypatch.setattr(approximate, "FEW", 0)
    vectors = np.ones((3000, 16), np.float32)
    index = build(vectors, engine="int8")
    exact = build(vectors, engine="flat")
    queries = ask(vectors_of(3, 16))
    assert pairs(index.searcher(k=5)(queries)) == pairs(exact.searcher(k=5)(queries))


# The index.


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_scores_all_again_is_exact(engine: str, similarity: Similarity) -> None:
    vectors, queries = vectors_of(600), ask(vectors_of(20, seed=1))
    index = build(vectors, similarity, engine)
    assert approximate.NATIVE in index.segments[0].record.native
    run = index.searcher(k=10, engine_options={"refine": 60})(queries)
    exact = build(vectors, similarity, "flat").searcher(k=10)(queries)
    assert pairs(run) == pairs(exact)


@pytest.mark.parametrize("engine", ENGINES)
def test_clusters_are_found_with_the_default_options(engine: str) -> None:
    centres = vectors_of(40, 384, 7)
    vectors = np.repeat(centres, 50, axis=0) + 0.5 * vectors_of(2000, 384, 8)
    queries = ask(centres[:20] + 0.5 * vectors_of(20, 384, 9))
    index = build(vectors, "cosine", engine)
    found = pairs(index.searcher(k=10)(queries))
    exact = pairs(build(vectors, "cosine", "flat").searcher(k=10)(queries))
    hits = [len({d for d, _ in a} & {d for d, _ in b}) for a, b in zip(found, exact, strict=True)]
    assert sum(hits) >= 0.99 * 200
    assert index.recall is not None
    assert index.recall >= 0.99


@pytest.mark.parametrize("engine", ENGINES)
def test_updates_conditions_candidates_and_compaction(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "FEW", 0)
    monkeypatch.setattr(flat, "PAIR_BY_PAIR", 0)
    vectors, queries = vectors_of(900), ask(vectors_of(5, seed=1))
    encoder = Rows(vectors)
    index = DenseIndex.build(documents(0, 300), encoder, engine=engine)
    with index.writer(merge="never") as writer:
        writer.add(documents(300, 900))
        writer.delete([f"d{n:04d}" for n in range(0, 900, 7)])
    kept = [d for d in documents(0, 900) if int(d.text) % 7]
    exact = DenseIndex.build(kept, encoder)
    sets = {str(n + 1): [f"d{row:04d}" for row in range(n + 1, 900, 7)] for n in range(5)}
    options = {"refine": 90}
    for compact in (False, True):
        if compact:
            with index.reopen().writer() as writer:
                writer.compact()
        index = index.reopen()
        assert len(index.segments) == (1 if compact else 2)
        for where, candidates in ((None, None), ("row >= 100", None), (None, sets)):
            mine = index.searcher(10, where, candidates, engine_options=options)(queries)
            assert pairs(mine) == pairs(exact.searcher(10, where, candidates)(queries))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_or_no_documents(engine: str, n: int) -> None:
    vectors, queries = vectors_of(n), ask(vectors_of(3, seed=1))
    run = build(vectors, "dot", engine).searcher(k=10)(queries)
    assert pairs(run) == pairs(build(vectors, "dot", "flat").searcher(k=10)(queries))
    assert len(build(vectors, "dot", engine).searcher(k=3)(ask(vectors_of(0)))) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_file_is_found_and_made_again(engine: str, tmp_path: Path) -> None:
    index = build(vectors_of(200), engine=engine, path=tmp_path / "i")
    expected = pairs(index.searcher(k=3)(ask(vectors_of(2))))
    folder = tmp_path / "i" / "segments" / index.segments[0].record.name
    for name in index.segments[0].record.native:
        if name == "metadata.arrow":
            continue
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        if name == approximate.NATIVE:
            with pytest.raises(CorruptIndexError, match="--repair"):
                DenseIndex.open(tmp_path / "i").search(ask(vectors_of(2)), 3)
        assert repair(tmp_path / "i").ok
    assert pairs(DenseIndex.open(tmp_path / "i").searcher(k=3)(ask(vectors_of(2)))) == expected


def test_signs_alone_are_no_scores() -> None:
    index: Any = build(vectors_of(30))
    with pytest.raises(DataError, match="at least 1"):
        index.searcher(10, engine_options={"refine": 0})
