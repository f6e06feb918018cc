"""Exact search: every document is scored approximately, those that may be hits exactly.

The fast pass is a matrix product, of bfloat16 where that is faster; its error has a proven bound,
so what it proposes holds all hits (`retrievekit.kernels.proposals.sift`). Their scores are computed
pair by pair in one fixed order: no answer depends on the batch, the threads or the processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.index.chosen import Allowed
from retrievekit.index.engines import halves
from retrievekit.index.results import in_parts

if TYPE_CHECKING:
    from retrievekit.index.dense import DenseIndex

QUERIES_AT_A_TIME = 256
DOCUMENTS_AT_A_TIME = 1 << 12
"""Shape of one block of approximate scores: 4 MiB of float32."""

PAIR_BY_PAIR = 1 / 32
"""Queries that may have at most this part of the documents are scored pair by pair at once; for
more of them the fast pass over all is the cheaper way."""

SPARE = 4096
"""Proposals of a query, beyond twice k, that are kept; a query that needs more is done again."""

MANY = 4
"""From so many rows per hit on, rows are scored in float32 first, and only the best exactly."""

HELD = 1 << 24
"""Proposals of all queries together: 128 MiB."""


class FlatSearch:
    """Exact search over the vectors that an index stores.

    Args:
        index: The index.
    """

    def __init__(self, index: DenseIndex) -> None:
        self.index = index
        self._asked = 0

    @cached_property
    def bases(self) -> list[int]:
        """Rows of the segments before each one."""
        sizes = [segment.record.documents for segment in self.index.segments]
        return [sum(sizes[:number]) for number in range(len(sizes))]

    def search(
        self,
        queries: NDArray[np.float32],
        hidden: list[NDArray[np.bool_]],
        most: int,
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        threads: int | None,
    ) -> None:
        """Search what all queries alike may have.

        Args:
            queries: float32 ``(nq, d)``.
            hidden: By segment bool ``(documents,)`` of rows that are no hits, or ``(0,)``.
            most: How many rows are left.
            keys: uint64 ``(nq, k)``, the hits' sort keys, written, falling.
            counts: int64 ``(nq,)``, hits of each query, written.
            threads: Threads to use; all cores by default.
        """
        if most <= PAIR_BY_PAIR * len(self.index):
            counts[:] = 0
            self._pair_by_pair(queries, keys, counts, self._shared(hidden, len(queries)), threads)
            return
        self._asked += len(queries)
        step = self._step(keys.shape[1])
        for first in range(0, len(queries), step):
            part = slice(first, first + step)
            self._part(queries[part], hidden, None, keys[part], counts[part], threads)

    def search_among(
        self,
        queries: NDArray[np.float32],
        allowed: list[Allowed],
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        threads: int | None,
    ) -> None:
        """Search what each query may have: a few documents pair by pair, more by the fast pass.

        Args:
            queries: float32 ``(nq, d)``.
            allowed: By segment the rows of each query.
            keys: uint64 ``(nq, k)``, the hits' sort keys, written, falling.
            counts: int64 ``(nq,)``, hits of each query, written.
            threads: Threads to use; all cores by default.
        """
        totals = np.zeros(len(queries), np.int64)
        for own in allowed:
            totals += own.stops - own.starts
        many = totals > PAIR_BY_PAIR * len(self.index)
        few = np.flatnonzero(~many)
        found, n_found = (
            np.empty((len(few), keys.shape[1]), np.uint64),
            np.zeros(len(few), np.int64),
        )
        few_allowed = [own.take(few) for own in allowed]
        self._pair_by_pair(queries[few], found, n_found, few_allowed, threads)
        keys[few], counts[few] = found, n_found
        rest = np.flatnonzero(many)
        self._asked += len(rest)
        step = self._step(keys.shape[1])
        for first in range(0, len(rest), step):
            some = rest[first : first + step]
            found, n_found = keys[some], counts[some]
            own_rows = [own.take(some) for own in allowed]
            self._part(queries[some], [], own_rows, found, n_found, threads)
            keys[some], counts[some] = found, n_found

    def rescored(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.int32],
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        threads: int | None,
    ) -> None:
        """The best of some rows of each query, by their exact scores.

        Args:
            queries: float32 ``(nq, d)``.
            rows: int32 ``(nq, m)``, rows counted over all segments, distinct; -1 for none.
            keys: uint64 ``(nq, k)``, written, falling.
            counts: int64 ``(nq,)``, hits of each query, written.
            threads: Threads to use; all cores by default.
        """
        from retrievekit.kernels.dense import estimate, keep_best, narrow, rescore

        parts, ranks = self.index.stored, self.index.ranks
        for stored, base in zip(parts, self.bases, strict=True):
            inside = (rows >= base) & (rows < base + len(stored))
            stored.ensure_rows(rows[inside] - base)
        euclidean, k = self.index.similarity == "euclidean", keys.shape[1]
        scored = np.zeros(rows.shape, np.uint64)
        many = rows.shape[1] >= MANY * k
        margins = self._margins(queries, None) if many else np.zeros(len(rows), np.float32)
        estimates = np.empty(rows.shape if many else (len(rows), 0), np.float32)
        rows = rows.copy() if many else rows

        def work(a: int, b: int) -> None:
            if many:
                for stored, base in zip(parts, self.bases, strict=True):
                    estimate(
                        queries[a:b], stored.for_kernels, euclidean, base,
                        rows[a:b], estimates[a:b],
                    )  # fmt: skip
                narrow(rows[a:b], estimates[a:b], k, margins[a:b])
            for stored, own, base in zip(parts, ranks, self.bases, strict=True):
                rescore(
                    queries[a:b], stored.for_kernels, euclidean, base, own,
                    rows[a:b], scored[a:b],
                )  # fmt: skip
            keep_best(scored[a:b], k, keys[a:b], counts[a:b])

        in_parts(work, len(queries), threads)

    def _step(self, k: int) -> int:
        return max(1, min(QUERIES_AT_A_TIME, HELD // (2 * k + SPARE)))

    def _shared(self, hidden: list[NDArray[np.bool_]], n: int) -> list[Allowed]:
        """The rows that are not hidden, as those of each of n queries."""
        out = []
        for segment, hides in zip(self.index.segments, hidden, strict=True):
            rows = np.flatnonzero(~hides) if len(hides) else np.arange(segment.record.documents)
            stops = np.full(n, len(rows), np.int64)
            out.append(Allowed(np.zeros(n, np.int64), stops, rows.astype(np.int32)))
        return out

    def _pair_by_pair(
        self,
        queries: NDArray[np.float32],
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        allowed: list[Allowed],
        threads: int | None,
    ) -> None:
        """Merge what each query may have into its row of keys, every pair scored exactly."""
        from retrievekit.kernels.dense import search_among

        parts, ranks = self.index.stored, self.index.ranks
        for stored, own in zip(parts, allowed, strict=True):
            stored.ensure_rows(own.touched())
        euclidean, k = self.index.similarity == "euclidean", keys.shape[1]

        def part(a: int, b: int) -> None:
            for stored, order, own in zip(parts, ranks, allowed, strict=True):
                search_among(
                    queries[a:b], stored.for_kernels, euclidean, order,
                    own.starts[a:b], own.stops[a:b], own.rows, k, keys[a:b], counts[a:b],
                )  # fmt: skip

        in_parts(part, len(queries), threads)

    def _part(
        self,
        queries: NDArray[np.float32],
        hidden: list[NDArray[np.bool_]],
        allowed: list[Allowed] | None,
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        threads: int | None,
        *,
        in_halves: bool = True,
    ) -> None:
        """Propose, score, and do again, more precisely, the queries with too many proposals."""
        in_halves = in_halves and self._may_halve(queries)
        rows, unsure = self._proposed(queries, hidden, allowed, keys.shape[1], threads, in_halves)
        self.rescored(queries, rows, keys, counts, threads)
        again = np.flatnonzero(unsure)
        if not len(again):
            return
        found, n_found = np.empty((len(again), keys.shape[1]), np.uint64), np.zeros_like(again)
        own = None if allowed is None else [part.take(again) for part in allowed]
        if in_halves:
            self._part(queries[again], hidden, own, found, n_found, threads, in_halves=False)
        else:
            own = self._shared(hidden, len(again)) if own is None else own
            self._pair_by_pair(queries[again], found, n_found, own, threads)
        keys[again], counts[again] = found, n_found

    def _proposed(
        self,
        queries: NDArray[np.float32],
        hidden: list[NDArray[np.bool_]],
        allowed: list[Allowed] | None,
        k: int,
        threads: int | None,
        in_halves: bool,
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Rows that hold the k best of each query, -1 for none, and where they were too many."""
        from retrievekit.kernels.proposals import ROOM, settle, sift

        n = len(queries)
        found = np.empty((n, 2 * k + SPARE), np.uint64)
        counts = np.zeros(n, np.int64)
        limits = np.full(n, k + max(ROOM, k))
        none, visible = np.zeros(0, np.int64), np.zeros(0, bool)
        slack = halves.SLACK if in_halves else 0.0
        kind: type[np.signedinteger[Any]] = np.int16 if in_halves else np.int32
        floors: NDArray[np.signedinteger[Any]] = np.full(n, np.iinfo(kind).min, kind)
        halved, lost = self._halves.queries(queries) if in_halves else (None, None)
        margins = self._margins(queries, lost)
        left = [] if allowed is None else [own.starts.copy() for own in allowed]
        for number, first, block in self._blocks(queries, halved):
            cursors, stops, rows = none, none, none.astype(np.int32)
            out = visible
            if allowed is None:
                out = hidden[number]
            else:
                cursors, stops, rows = left[number], allowed[number].stops, allowed[number].rows

            def work(
                a: int,
                b: int,
                bits: Any = block,
                start: int = first,
                base: int = self.bases[number],
                own: Any = (cursors, stops, rows),
                out: Any = out,
            ) -> None:
                sift(
                    bits[:, a:b], start, out, own[0][a:b], own[1][a:b], own[2], base, k,
                    margins[a:b], slack, floors[a:b], found[a:b], counts[a:b], limits[a:b],
                )  # fmt: skip

            in_parts(work, n, threads)
        settle(found, counts, k, margins, slack)
        found = found[:, : max(int(counts.max(initial=0)), 1)]
        inside = np.arange(found.shape[1]) < counts[:, None]
        rows = np.where(inside, (found & np.uint64(0xFFFFFFFF)).astype(np.int32), np.int32(-1))
        return rows, counts < 0

    def _blocks(
        self, queries: NDArray[np.float32], halved: Any
    ) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Bits of approximate scores: the segment, its first row, ``(documents, queries)``."""
        for number, stored in enumerate(self.index.stored):
            for first in range(0, len(stored), DOCUMENTS_AT_A_TIME):
                last = min(first + DOCUMENTS_AT_A_TIME, len(stored))
                if halved is not None:
                    yield number, first, self._halves.block(number, first, last, halved)
                    continue
                vectors = stored.slice(first, last)
                block = vectors @ queries.T
                if self.index.similarity == "euclidean":
                    block *= 2
                    block -= np.einsum("ij,ij->i", vectors, vectors)[:, None]
                yield number, first, block.view(np.int32)

    def _may_halve(self, queries: NDArray[np.float32]) -> bool:
        """Whether the bfloat16 pass may be used, and pays."""
        rows = sum(segment.record.documents for segment in self.index.segments)
        if (
            self.index.similarity == "euclidean"
            or self._asked < halves.ASKED
            or rows < halves.LEAST
        ):
            return False
        longest = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64).max())
        largest = self.index.largest_norm
        if max(longest, largest, longest * largest) > halves.LARGEST:
            return False
        return "_halves" in self.__dict__ or (
            halves.room(2 * rows * self.index.dim) and halves.faster()
        )

    @cached_property
    def _halves(self) -> halves.Halves:
        return halves.Halves(self.index.stored, self.index.dim)

    def _margins(
        self, queries: NDArray[np.float32], lost: NDArray[np.float64] | None
    ) -> NDArray[np.float32]:
        """Twice a bound on the error of an approximate score, the final rounding included.

        A float32 inner product of d terms errs by at most ``d * u * |q| * |v|`` with u = 2**-24 in
        any order of summation (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), up
        to terms of order u squared, which the factor covers. Below 2**-126 float32 thins out, or
        is flushed to zero: each operation may lose as much once more.
        """
        unit, least = 2.0**-24, 2.0**-126
        dim, largest = self.index.dim, self.index.largest_norm
        norms = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
        if lost is not None:
            error = self._halves.errors(norms, lost, largest, dim)
        elif self.index.similarity == "euclidean":
            error = (2 * dim + 8) * unit * (norms + largest) ** 2 + (4 * dim + 4) * least
        else:
            error = (dim + 4) * unit * norms * largest + 2 * dim * least
        margins: NDArray[np.float32] = (2.02 * error).astype(np.float32)
        return margins
