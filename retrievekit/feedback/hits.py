"""Which hits feedback looks at, and where they lie in the index that it reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, UnknownNameError
from retrievekit.index.base import Index
from retrievekit.run import Run


@dataclass(frozen=True)
class Picked:
    """Some hits of each query.

    Args:
        cuts: int64 ``(nq + 1,)``, where those of each query begin and end.
        places: int64 ``(hits,)``, their places in the run.
        rows: int64 ``(hits,)``, their rows among the index's live documents.
    """

    cuts: NDArray[np.int64]
    places: NDArray[np.int64]
    rows: NDArray[np.int64]

    def part(self, start: int, stop: int) -> Picked:
        """Those of some queries.

        Args:
            start: First query.
            stop: Query after the last.

        Returns:
            Their hits.
        """
        first, last = int(self.cuts[start]), int(self.cuts[stop])
        cuts = self.cuts[start : stop + 1] - first
        return Picked(cuts, self.places[first:last], self.rows[first:last])


def first_hits(run: Run, index: Index, n: int) -> Picked:
    """The first hits of each query, best first.

    Args:
        run: The hits.
        index: Where they lie.
        n: How many, at least 1; queries with fewer give all that they have.

    Returns:
        The hits.

    Raises:
        UnknownNameError: The index lacks one of them.
    """
    return _picked(run, index, n, False)


def last_hits(run: Run, index: Index, n: int) -> Picked:
    """The last hits of each query, from the end.

    Args:
        run: The hits.
        index: Where they lie.
        n: How many, at least 0; queries with fewer give all that they have.

    Returns:
        The hits.

    Raises:
        UnknownNameError: The index lacks one of them.
    """
    return _picked(run, index, n, True)


def _picked(run: Run, index: Index, n: int, backwards: bool) -> Picked:
    lengths = np.minimum(np.diff(run.offsets), n)
    cuts = np.zeros(len(run) + 1, np.int64)
    np.cumsum(lengths, out=cuts[1:])
    nth = np.arange(cuts[-1]) - np.repeat(cuts[:-1], lengths)
    if backwards:
        places = np.repeat(run.offsets[1:], lengths) - 1 - nth
    else:
        places = np.repeat(run.offsets[:-1], lengths) + nth
    rows = run.rows[places]
    if run.docs is not index.ids:
        rows = run.docs.translate(index.ids)[rows]
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        query = int(np.searchsorted(cuts, missing[0], side="right")) - 1
        doc_id = run.docs[int(run.rows[places[missing[0]]])]
        raise UnknownNameError(
            f"query {run.queries.ids[query]!r}: its hit {doc_id!r} is not in {index.path}, which "
            "feedback reads it from; it was deleted since, or the hits are those of another index"
        )
    return Picked(cuts, places, rows.astype(np.int64))


def check_whole(**counts: int) -> None:
    """Raise unless all numbers are whole and at least 1.

    Args:
        **counts: Numbers by the names of their settings.

    Raises:
        DataError: One is not.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"{name} is {value!r}; give a whole number of at least 1")


def check_weights(**weights: float) -> None:
    """Raise unless all numbers are finite and at least 0.

    Args:
        **weights: Numbers by the names of their settings.

    Raises:
        DataError: One is not.
    """
    for name, value in weights.items():
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not 0 <= value < float("inf"):
            raise DataError(f"{name} is {value!r}; it must be a finite number of at least 0")
