"""What a compression costs and brings: agreement, nDCG, bytes and time beside the original's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.truncated import truncated
from retrievekit.errors import DataError
from retrievekit.evaluate.compute import evaluate
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import approximate
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.vectors import DenseVectors

DEPTH = 10
"""Hits that are compared."""

SAMPLED = 200
"""Own documents that are asked where no queries are given."""

ALONE = 20
"""Queries that are asked one at a time."""

REPEATED = 3

SEED = 20261121


@dataclass(frozen=True)
class Side:
    """One index.

    Args:
        engine: Its engine.
        storage: How its vectors are stored.
        dim: Components of each vector.
        overlap: The mean part of the original's ten hits that it finds too.
        ndcg: nDCG@10, or None without judgements.
        index_bytes: Bytes on disk of all its files.
        vector_bytes: Of these the stored vectors, from which the best are scored.
        scanned_bytes: Bytes that a search goes through first: the engine's file, or the vectors.
        ms_per_query: Milliseconds per query, all in one batch, vectors given.
        ms_alone: Median milliseconds of a query asked alone, its vector given.
    """

    engine: str
    storage: str
    dim: int
    overlap: float
    ndcg: float | None
    index_bytes: int
    vector_bytes: int
    scanned_bytes: int
    ms_per_query: float
    ms_alone: float


@dataclass(frozen=True)
class Comparison:
    """An index and what was made of it.

    Args:
        original: The original.
        compressed: The other.
        n_queries: Queries that were asked.
        own: Whether these were own documents, which are not counted as their own hits.
    """

    original: Side
    compressed: Side
    n_queries: int
    own: bool

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain JSON."""
        return asdict(self)


def compared(
    original: DenseIndex,
    compressed: DenseIndex,
    queries: Queries | None = None,
    qrels: Qrels | None = None,
    *,
    threads: int | None = None,
) -> Comparison:
    """Ask two indexes of the same documents the same queries.

    Args:
        original: The index that is taken for right.
        compressed: What was made of it.
        queries: Queries of texts, or of vectors of the original's encoder; by default some of the
            documents' own vectors.
        qrels: Judgements of the queries.
        threads: Threads to use; all cores by default.

    Returns:
        The figures of both.

    Raises:
        DataError: Judgements without queries, or nothing to ask.
    """
    own: list[str] = []
    if queries is None:
        if qrels is not None:
            raise DataError("judgements are of queries; give the queries too")
        own, vectors = _sampled(original)
        queries = Queries.from_texts(dict.fromkeys(own, ""))
    else:
        vectors = original.query_vectors(queries)
    if not len(queries):
        raise DataError("there is nothing to ask: no query, and no document")
    sides = []
    for index in (original, compressed):
        # Vectors that a truncation made are made of the original's in the same way.
        same = index.dim == vectors.shape[1]
        mine = vectors if same else truncated(vectors, index.dim, index.similarity)
        asked = queries.rewritten(DenseVectors(mine))
        sides.append((index, asked, index.search(asked, DEPTH + bool(own), threads=threads)))
    expected = _found(sides[0][2], own)
    shown = []
    for index, asked, run in sides:
        shares = [len(a & b) / len(b) for a, b in zip(_found(run, own), expected, strict=True) if b]
        ndcg = None if qrels is None else evaluate(run, qrels, "nDCG@10").mean["nDCG@10"]
        shown.append(
            Side(
                engine=index.engine,
                storage=index.storage,
                dim=index.dim,
                overlap=float(np.mean(shares)) if shares else 1.0,
                ndcg=ndcg,
                index_bytes=index.n_bytes,
                vector_bytes=_bytes(index, "vectors"),
                scanned_bytes=_bytes(index, approximate.NATIVE) or _bytes(index, "vectors"),
                ms_per_query=_milliseconds(index, asked, threads) / len(asked),
                ms_alone=statistics.median(
                    _milliseconds(index, asked.take(np.array([row])), threads)
                    for row in range(min(ALONE, len(asked)))
                ),
            )
        )
    return Comparison(shown[0], shown[1], len(queries), bool(own))


def _sampled(index: DenseIndex) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors of some documents."""
    n = min(SAMPLED, len(index))
    rows = np.sort(np.random.default_rng(SEED).choice(len(index), n, replace=False))
    vectors = np.empty((n, index.dim), np.float32)
    numbers, places = index.places
    for number, stored in enumerate(index.stored):
        here = numbers[rows] == number
        vectors[here] = stored.take(places[rows[here]])
    return index.ids.strings(rows), vectors


def _found(run: Run, own: list[str]) -> list[set[str]]:
    """The best ten of each query, without the document itself."""
    out = []
    for place in range(len(run)):
        ids = run.hits(place).doc_ids
        if own:
            ids = [doc_id for doc_id in ids if doc_id != own[place]]
        out.append(set(ids[:DEPTH]))
    return out


def _bytes(index: DenseIndex, name: str) -> int:
    """Bytes of one file over all segments."""
    total = 0
    for segment in index.manifest.segments:
        if name in segment.arrays:
            total += segment.arrays[name].file.size
        elif name in segment.native:
            total += segment.native[name].size
    return total


def _milliseconds(index: DenseIndex, asked: Queries, threads: int | None) -> float:
    """The best of some times, what is mapped or made at first left out."""
    search: Callable[[], Run] = lambda: index.search(asked, DEPTH, threads=threads)  # noqa: E731
    search()
    best = float("inf")
    for _ in range(REPEATED):
        start = time.perf_counter()
        search()
        best = min(best, time.perf_counter() - start)
    return 1000 * best
