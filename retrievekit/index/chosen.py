"""`Chosen`: candidates of a batch of queries as rows of an index's segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrievekit.candidates import Candidates
from retrievekit.ids import Rows
from retrievekit.index.results import in_parts
from retrievekit.queries import Queries
from retrievekit.where import Condition

if TYPE_CHECKING:
    from retrievekit.index.base import Index

PAIRS_AT_A_TIME = 1 << 23
"""Candidates of a part of the queries together, so that memory is bounded: 32 MiB of rows."""


@dataclass(frozen=True)
class Allowed:
    """The rows of one segment that each query may have as hits.

    Args:
        starts: int64 ``(nq,)``, where each query's rows begin in `rows`.
        stops: int64 ``(nq,)``, where they end.
        rows: int32 ``(pairs,)``, rows of this segment within those bounds, live and ascending.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    rows: Rows

    def take(self, queries: NDArray[np.integer]) -> Allowed:
        """The same of some queries, integers ``(m,)``."""
        return Allowed(self.starts[queries], self.stops[queries], self.rows)

    def touched(self) -> Rows:
        """The rows of all queries, one after another, int32 ``(pairs,)``."""
        lengths = self.stops - self.starts
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        steps = np.repeat(self.starts - offsets[:-1], lengths)
        rows: Rows = self.rows[steps + np.arange(offsets[-1])]
        return rows


class Chosen:
    """What each query of a batch may find: its candidates that are live and satisfy a condition.

    Args:
        index: The index.
        queries: The queries that are asked.
        candidates: The sets.
        where: A condition on metadata that hits must satisfy too, or None.

    Raises:
        UnknownNameError: A query has no set, or the index lacks a candidate; see `Candidates`.
    """

    def __init__(
        self, index: Index, queries: Queries, candidates: Candidates, where: Condition | None
    ) -> None:
        self._index = index
        self._candidates = candidates
        self._places = candidates.places(queries.ids)
        # Deleted documents are not among the index's ids, so none of them has a row.
        self._rows = candidates.rows_in(index.ids)
        if where is not None:
            # A row of -1 takes the last place, that of no document.
            satisfying = np.append(index.satisfying(where), False)
            self._rows = np.where(satisfying[self._rows], self._rows, -1)
        self._sizes = np.diff(candidates.offsets)[self._places]

    @property
    def most(self) -> int:
        """The size of the largest set."""
        return int(self._sizes.max(initial=0))

    def parts(self, threads: int | None = None) -> Iterator[tuple[slice, list[Allowed]]]:
        """The batch in parts of about `PAIRS_AT_A_TIME` candidates, at least one query each.

        Args:
            threads: Threads to use; all cores by default.

        Yields:
            Which queries, and by segment the rows that they may have.
        """
        ends = np.cumsum(self._sizes)
        first = 0
        while first < len(ends):
            done = ends[first - 1] if first else 0
            last = int(np.searchsorted(ends, done + PAIRS_AT_A_TIME, side="right"))
            last = max(last, first + 1)
            yield slice(first, last), self._allowed(slice(first, last), threads)
            first = last

    def _allowed(self, part: slice, threads: int | None) -> list[Allowed]:
        from retrievekit.kernels.chosen import choose

        segments, (_, places) = self._index.segments, self._index.places
        ends = np.cumsum([len(segment.live) for segment in segments], dtype=np.int64)
        offsets, docs, sets = self._candidates.offsets, self._candidates.rows, self._places[part]
        begins = np.cumsum(self._sizes[part]) - self._sizes[part]
        cuts = np.empty((len(sets), len(segments) + 1), np.int64)
        rows = np.empty(int(self._sizes[part].sum()), np.int32)

        def work(a: int, b: int) -> None:
            choose(offsets, docs, sets[a:b], self._rows, ends, places, begins[a:b], cuts[a:b], rows)

        in_parts(work, len(sets), threads)
        starts, stops = cuts[:, :-1].T.copy(), cuts[:, 1:].T.copy()
        return [Allowed(a, b, rows) for a, b in zip(starts, stops, strict=True)]
