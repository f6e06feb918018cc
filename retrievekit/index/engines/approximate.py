"""Search through an engine that proposes: what it finds is filtered, scored again and put in order.

Segments without a native file (too small to train on), conditions that few documents satisfy, and
queries of which an engine finds fewer hits than there are, are searched exactly: k hits come back
whenever k documents are allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import CorruptIndexError
from retrievekit.index.derived import Derivation
from retrievekit.index.engines.flat import FlatSearch
from retrievekit.index.engines.options import defaults
from retrievekit.index.storage import VECTORS, Stored

if TYPE_CHECKING:
    from retrievekit.index.dense import DenseIndex
    from retrievekit.protocols import Engine, Proposer
    from retrievekit.store.segment import SegmentReader, SegmentWriter

NATIVE = "engine.native"
"""The file of a segment that an engine wrote; it follows from the vectors and `TRAINED`."""

TRAINED = "engine.trained"
"""What the engine had learnt before, by which later segments are written too."""

QUERIES_AT_A_TIME = 1024

FEW = 1024
"""Allowed documents up to which a search is exact anyway."""

ASKED = 64
"""Stored vectors whose neighbours tell the recall of a segment."""

SEED = 20261121

GROWN = 4
"""A compaction of so many times the vectors that were learnt from learns again, ..."""

ENOUGH = 1 << 16
"""... unless these were so many."""


def native_file(segment: SegmentReader, name: str = NATIVE) -> memoryview:
    """A segment's native file, its checksums compared.

    Args:
        segment: The segment.
        name: The file, which it has.

    Returns:
        Its bytes.

    Raises:
        CorruptIndexError: It is damaged; says how to have it made again.
    """
    try:
        return segment.native(name)
    except CorruptIndexError as why:
        raise CorruptIndexError(
            f"{why}. It follows from other files: `retrievekit verify --repair` makes it again"
        ) from why


class ApproximateSearch:
    """Search through an engine's native files.

    Args:
        index: The index.
        engine: The engine.
        flat: Exact search of it.
    """

    def __init__(self, index: DenseIndex, engine: Engine, flat: FlatSearch) -> None:
        self.index = index
        self.engine = engine
        self.flat = flat

    @cached_property
    def proposers(self) -> list[Proposer | None]:
        """By segment the engine's part, None where it has none; verified before it is parsed."""
        return [
            self.engine.opened(native_file(segment)) if NATIVE in segment.record.native else None
            for segment in self.index.segments
        ]

    def search(
        self,
        queries: NDArray[np.float32],
        hidden: list[NDArray[np.bool_]],
        most: int,
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        threads: int | None,
        options: Mapping[str, int],
    ) -> None:
        """Search what all queries alike may have.

        Args:
            queries: float32 ``(nq, d)``.
            hidden: By segment bool ``(documents,)`` of rows that are no hits, or ``(0,)``.
            most: How many rows are left.
            keys: uint64 ``(nq, k)``, the hits' sort keys, written, falling.
            counts: int64 ``(nq,)``, hits of each query, written.
            threads: Threads to use; all cores by default.
            options: What `retrievekit.index.engines.options.settled` gave.
        """
        fetched = keys.shape[1] * max(options["refine"], 1)
        if most <= max(FEW, fetched) and len(self.index) > most:
            self.flat.search(queries, hidden, most, keys, counts, threads)
            return
        for first in range(0, len(queries), QUERIES_AT_A_TIME):
            part = slice(first, first + QUERIES_AT_A_TIME)
            out = keys[part], counts[part]
            rows, scores = self._proposed(queries[part], hidden, fetched, threads, options)
            if options["refine"]:
                self.flat.rescored(queries[part], rows, *out, threads)
            else:
                self._ordered(rows, scores, *out)
            few = np.flatnonzero(counts[part] < keys.shape[1])
            if len(few):
                found, n_found = out[0][few], out[1][few]
                self.flat.search(queries[part][few], hidden, most, found, n_found, threads)
                out[0][few], out[1][few] = found, n_found

    def _proposed(
        self,
        queries: NDArray[np.float32],
        hidden: list[NDArray[np.bool_]],
        k: int,
        threads: int | None,
        options: Mapping[str, int],
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows counted over all segments, -1 for none, and the engine's scores, higher better."""
        all_rows: list[NDArray[np.int32]] = []
        all_scores: list[NDArray[np.float32]] = []
        parts = zip(self.index.segments, self.proposers, hidden, self.flat.bases, strict=True)
        for number, (segment, proposer, hides, base) in enumerate(parts):
            if not segment.record.documents:
                continue
            if proposer is None:
                rows, scores = self._exactly(queries, number, hidden, k, threads)
            else:
                allowed = ~hides if len(hides) else None
                found, scores = proposer.search(queries, k, allowed, options, threads)
                rows = found.astype(np.int32)
                if base:
                    rows[rows >= 0] += base
                if self.index.similarity == "euclidean":
                    scores = -np.sqrt(np.maximum(scores, 0))
            all_rows.append(rows)
            all_scores.append(scores)
        if len(all_rows) == 1:
            return all_rows[0], all_scores[0]
        return np.concatenate(all_rows, axis=1), np.concatenate(all_scores, axis=1)

    def _exactly(
        self,
        queries: NDArray[np.float32],
        number: int,
        hidden: list[NDArray[np.bool_]],
        k: int,
        threads: int | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The best rows of one segment by exact search."""
        from retrievekit.kernels.select import unpack_all

        others: list[NDArray[np.bool_]] = []
        for segment, hides in zip(self.index.segments, hidden, strict=True):
            others.append(
                hides if len(others) == number else np.ones(segment.record.documents, bool)
            )
        most = self.index.segments[number].record.documents
        k = min(k, most)
        keys = np.empty((len(queries), k), np.uint64)
        counts = np.zeros(len(queries), np.int64)
        self.flat.search(queries, others, most, keys, counts, threads)
        rows, scores = np.empty(keys.shape, np.int32), np.empty(keys.shape, np.float32)
        unpack_all(keys, counts, self._stored_rows, rows, scores)
        rows[np.arange(k) >= counts[:, None]] = -1
        return rows, scores

    @cached_property
    def _stored_rows(self) -> NDArray[np.int32]:
        """By id rank the row counted over all segments, deleted ones too, int32."""
        numbers, places = self.index.places
        bases = np.array([*self.flat.bases, 0], np.int32)
        rows: NDArray[np.int32] = (bases[numbers] + places)[self.index.ids.order]
        return rows

    def _ordered(
        self,
        rows: NDArray[np.int32],
        scores: NDArray[np.float32],
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
    ) -> None:
        """The best rows by the engine's own scores, in the total order."""
        from retrievekit.kernels.dense import keep_best
        from retrievekit.kernels.order import keys as keys_of

        ranks = np.concatenate([np.zeros(0, np.int32), *self.index.ranks])
        real = (rows >= 0) & np.isfinite(scores)
        scored = np.zeros(rows.shape, np.uint64)
        scored[real] = keys_of(scores[real], ranks[rows[real]])
        keep_best(scored, keys.shape[1], keys, counts)


@dataclass(frozen=True)
class Learnt:
    """What an engine has learnt.

    Args:
        data: What `Engine.trained` gave.
        vectors: From how many.
    """

    data: bytes
    vectors: int

    def outgrown(self, vectors: int) -> bool:
        """Whether it came from too few to stay with, now that there are so many vectors."""
        return self.vectors < ENOUGH and vectors >= GROWN * self.vectors

    @classmethod
    def of(cls, segments: Sequence[SegmentReader]) -> Learnt | None:
        """What the engine had learnt for the first of some segments that it wrote a file for.

        Args:
            segments: The segments.

        Returns:
            It, or None when there is no such segment.

        Raises:
            CorruptIndexError: The file is damaged.
        """
        for segment in segments:
            if NATIVE in segment.record.native:
                known = TRAINED in segment.record.native
                data = bytes(native_file(segment, TRAINED)) if known else b""
                return cls(data, segment.record.details["engine"]["learnt from"])
        return None


def write_native(
    engine: Engine, segment: SegmentWriter, vectors: NDArray[np.float32], learnt: Learnt | None
) -> Learnt | None:
    """Write an engine's files of a new segment, and note the recall.

    The recall noted is ``recall@10`` with the default options, of a few stored vectors among all
    of the segment, themselves included.

    Args:
        engine: The engine.
        segment: Where files are written.
        vectors: The segment's vectors, float32 ``(n, d)``.
        learnt: What the engine has learnt of earlier vectors, or None when it has not yet.

    Returns:
        What it has learnt now; None when these vectors were too few, and the segment is searched
        exactly.
    """
    if not len(vectors):
        return learnt
    if learnt is None:
        trained = engine.trained(vectors)
        if trained is None:
            return None
        learnt = Learnt(trained, len(vectors))
    data = engine.built(vectors, learnt.data)
    segment.native(NATIVE, data)
    if learnt.data:
        segment.native(TRAINED, learnt.data)
    options = defaults(engine.name)
    fetched = 10 * max(1, options["refine"])
    rows = np.random.default_rng(SEED).choice(len(vectors), min(ASKED, len(vectors)), replace=False)
    queries = np.ascontiguousarray(vectors[np.sort(rows)])
    found, _ = engine.opened(memoryview(data)).search(queries, fetched, None, options, None)
    noted = recall(vectors, queries, engine.similarity, found)
    segment.details["engine"] = {"recall@10": noted, "learnt from": learnt.vectors}
    return learnt


def derivations(engine: Engine, segment: SegmentReader) -> Iterator[Derivation]:
    """How an engine's files of a segment are made again.

    Args:
        engine: The engine.
        segment: The segment, in which only intact files are open.

    Yields:
        Ways from the vectors and what was learnt, and back.
    """
    if NATIVE not in segment.record.native:
        return
    learnt = TRAINED in segment.record.native

    def native(_: Path) -> dict[str, bytes]:
        trained = segment.native(TRAINED) if learnt else b""
        return {NATIVE: engine.built(Stored.of(segment).all(), trained)}

    def trained(_: Path) -> dict[str, bytes]:
        return {TRAINED: engine.emptied(segment.native(NATIVE))}

    yield Derivation((VECTORS, TRAINED) if learnt else (VECTORS,), (NATIVE,), native)
    if learnt:
        yield Derivation((NATIVE,), (TRAINED,), trained)


def recall(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    similarity: str,
    found: NDArray[np.int64],
) -> float:
    """The part of the 10 nearest that is among what was found, over some queries.

    Args:
        vectors: float32 ``(n, d)``.
        queries: float32 ``(nq, d)``.
        similarity: How vectors are compared.
        found: Rows, int64 ``(nq, m)``, -1 for none; scored again, the best of them are the hits.

    Returns:
        From 0 to 1, to four places.
    """
    k = min(10, len(vectors))
    best = np.full((len(queries), 0), 0.0, np.float32)
    nearest = np.zeros((len(queries), 0), np.int64)
    for first in range(0, len(vectors), 1 << 14):
        block = vectors[first : first + (1 << 14)]
        scores = queries @ block.T
        if similarity == "euclidean":
            scores = 2 * scores - np.einsum("ij,ij->i", block, block)
        best = np.concatenate([best, scores], axis=1)
        nearest = np.concatenate(
            [nearest, np.broadcast_to(np.arange(first, first + len(block)), scores.shape)], axis=1
        )
        keep = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, nearest = np.take_along_axis(best, keep, 1), np.take_along_axis(nearest, keep, 1)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(nearest, found, strict=True))
    return round(hits / max(nearest.size, 1), 4)


def overall_recall(segments: Sequence[SegmentReader]) -> float | None:
    """What segments noted of their recall, weighted by their live documents.

    Args:
        segments: The segments.

    Returns:
        From 0 to 1, where a segment that is searched exactly counts 1; None without documents.
    """
    total = sum(segment.n_live for segment in segments)
    if not total:
        return None
    noted = ((s.n_live, s.record.details.get("engine", {}).get("recall@10", 1.0)) for s in segments)
    return float(sum(n * value for n, value in noted) / total)
