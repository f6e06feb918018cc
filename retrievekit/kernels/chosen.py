"""From sets of documents to ascending rows by segment, and searching through ascending rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

SWEPT = 1024
"""A set of at least one in so many rows is put in order by sweeping a map of all, not sorted."""


@compiled
def reach(rows: NDArray[np.int32], first: int, stop: int, wanted: int) -> int:
    """The first place from which rows are not below a row, by doubling steps and then halving.

    Args:
        rows: int32 ``(n,)``, ascending from `first` to `stop`.
        first: Where to begin.
        stop: Where to end.
        wanted: The row.

    Returns:
        The place, `stop` when all are below; found in the logarithm of the way to it.
    """
    step = 1
    low = first
    high = first
    while high < stop and rows[high] < wanted:
        low = high + 1
        high += step
        step *= 2
    high = min(high, stop)
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def choose(
    offsets: NDArray[np.int64],
    docs: NDArray[np.int32],
    sets: NDArray[np.int32],
    live: NDArray[np.int32],
    segment_ends: NDArray[np.int64],
    places: NDArray[np.int32],
    begins: NDArray[np.int64],
    cuts: NDArray[np.int64],
    rows: NDArray[np.int32],
) -> None:
    """The rows of each query's set, ascending, segment by segment.

    Args:
        offsets: int64 ``(sets + 1,)`` into the array below.
        docs: int32 ``(pairs,)``, distinct within a set.
        sets: int32 ``(nq,)``, the set of each query.
        live: int32 ``(docs,)``, the row of each document among the live ones; -1 to leave it out.
        segment_ends: int64 ``(segments,)``, the live row after the last of each segment.
        places: int32 ``(live documents,)``, by live row the row within its segment.
        begins: int64 ``(nq,)``, where each query's part of `rows` begins.
        cuts: int64 ``(nq, segments + 1)``, written: where the rows of each segment begin and end.
        rows: int32 ``(>= total of the sets,)``, written.
    """
    n = len(places)
    mask = np.zeros((n + 7) // 8 * 8, np.uint8)
    words = mask.view(np.uint64)
    for q in range(len(sets)):
        begin = begins[q]
        end = begin
        first, last = offsets[sets[q]], offsets[sets[q] + 1]
        if (last - first) * SWEPT < n:
            for p in range(first, last):
                row = live[docs[p]]
                if row >= 0:
                    rows[end] = row
                    end += 1
            rows[begin:end].sort()
        else:
            for p in range(first, last):
                row = live[docs[p]]
                if row >= 0:
                    mask[row] = 1
            for w in range(len(words)):
                if words[w]:
                    for row in range(8 * w, 8 * w + 8):
                        if mask[row]:
                            rows[end] = row
                            end += 1
                    words[w] = 0
        cuts[q, 0] = begin
        for s in range(len(segment_ends)):
            cuts[q, s + 1] = reach(rows, cuts[q, s], end, segment_ends[s])
        for p in range(begin, end):
            rows[p] = places[rows[p]]
