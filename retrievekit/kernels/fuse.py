"""Fusing ragged lists: scaling each list, then adding up what the lists say of each document.

A document's parts are added in ascending order, whichever list they came from, so that the sum is
the same for any order of the lists, and documents with equal parts get equal sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

Floats = NDArray[np.float64]
Rows = NDArray[np.int32]

NONE, MINMAX, ZSCORE = 0, 1, 2


@compiled
def reciprocals(offsets: NDArray[np.int64], k: float) -> Floats:
    """``1 / (k + rank)`` of each place of ragged lists, ranks from 1.

    Args:
        offsets: int64 ``(nq + 1,)``.
        k: Added to each rank.

    Returns:
        float64 ``(hits,)``.
    """
    out = np.empty(offsets[-1], np.float64)
    for q in range(len(offsets) - 1):
        for i in range(offsets[q], offsets[q + 1]):
            out[i] = 1.0 / (k + (i - offsets[q] + 1))
    return out


@compiled
def scaled(
    offsets: NDArray[np.int64], scores: NDArray[np.float32], how: int
) -> tuple[Floats, Floats]:
    """Scores of each query's list on a common scale, and where the scale ends below.

    `MINMAX`: ``(s - min) / (max - min)``, 1 throughout a list of equal scores; it ends at 0.
    `ZSCORE`: ``(s - mean) / std`` with the population's deviation, 0 throughout a list of equal
    scores; it ends at the list's smallest value, as `NONE`, which leaves scores as they are, does.
    For an empty list the end is 0.

    Args:
        offsets: int64 ``(nq + 1,)``.
        scores: float32 ``(hits,)``, finite.
        how: `NONE`, `MINMAX` or `ZSCORE`.

    Returns:
        Values float64 ``(hits,)`` and ends float64 ``(nq,)``.
    """
    values = np.empty(len(scores), np.float64)
    ends = np.zeros(len(offsets) - 1, np.float64)
    for q in range(len(offsets) - 1):
        start, stop = offsets[q], offsets[q + 1]
        if start == stop:
            continue
        low, high, total = np.float64(scores[start]), np.float64(scores[start]), 0.0
        for i in range(start, stop):
            score = np.float64(scores[i])
            low, high, total = min(low, score), max(high, score), total + score
        if how == MINMAX:
            for i in range(start, stop):
                values[i] = (np.float64(scores[i]) - low) / (high - low) if high > low else 1.0
        elif how == ZSCORE:
            mean, squares = total / (stop - start), 0.0
            for i in range(start, stop):
                squares += (np.float64(scores[i]) - mean) ** 2
            deviation = np.sqrt(squares / (stop - start))
            for i in range(start, stop):
                values[i] = (np.float64(scores[i]) - mean) / deviation if high > low else 0.0
            ends[q] = (low - mean) / deviation if high > low else 0.0
        else:
            for i in range(start, stop):
                values[i] = np.float64(scores[i])
            ends[q] = low
    return values, ends


@compiled
def summed(
    offsets: NDArray[np.int64], rows: Rows, values: Floats, absent: Floats
) -> tuple[NDArray[np.int64], Rows, NDArray[np.float32]]:
    """For each query the union of its lists, each document with the sum of its parts.

    Args:
        offsets: int64 ``(lists, nq + 1)``: where each list's hits for each query lie in `rows`.
        rows: int32 ``(hits,)``, distinct within a query of a list.
        values: float64 ``(hits,)``, what the list adds to the document's sum.
        absent: float64 ``(lists, nq)``, what the list adds for documents that it lacks.

    Returns:
        Offsets int64 ``(nq + 1,)``, rows int32 ``(m,)`` and sums float32 ``(m,)`` of the unions,
        the documents of a query in no particular order.
    """
    lists, queries = absent.shape
    largest = 0
    for q in range(queries):
        size = 0
        for a in range(lists):
            size += offsets[a, q + 1] - offsets[a, q]
        largest = max(largest, size)
    slots = 2
    while slots < 2 * largest:
        slots *= 2
    table = np.empty(slots, np.int32)
    parts = np.empty((largest, lists), np.float64)

    out_offsets = np.zeros(queries + 1, np.int64)
    out_rows = np.empty(len(rows), np.int32)
    out_sums = np.empty(len(rows), np.float32)
    filled = 0
    for q in range(queries):
        size = 0
        for a in range(lists):
            size += offsets[a, q + 1] - offsets[a, q]
        slots = 2
        while slots < 2 * size:
            slots *= 2
        table[:slots] = -1
        mask = np.uint32(slots - 1)
        found = 0
        for a in range(lists):
            for i in range(offsets[a, q], offsets[a, q + 1]):
                row = rows[i]
                # The odd factor spreads runs of neighbouring rows; linear probing follows.
                place = (np.uint32(row) * np.uint32(2654435769) >> np.uint32(7)) & mask
                while table[place] >= 0 and out_rows[filled + table[place]] != row:
                    place = (place + np.uint32(1)) & mask
                entry = table[place]
                if entry < 0:
                    entry = found
                    table[place] = entry
                    out_rows[filled + entry] = row
                    for b in range(lists):
                        parts[entry, b] = absent[b, q]
                    found += 1
                parts[entry, a] = values[i]
        for entry in range(found):
            # Ascending order by insertion: there are a handful of lists.
            for a in range(1, lists):
                part = parts[entry, a]
                b = a
                while b > 0 and parts[entry, b - 1] > part:
                    parts[entry, b] = parts[entry, b - 1]
                    b -= 1
                parts[entry, b] = part
            total = 0.0
            for a in range(lists):
                total += parts[entry, a]
            out_sums[filled + entry] = total
        filled += found
        out_offsets[q + 1] = filled
    return out_offsets, out_rows[:filled], out_sums[:filled]
