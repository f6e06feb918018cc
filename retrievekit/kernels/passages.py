"""From passages to documents: reading ids that end in a number, and adding up ragged lists."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

Rows = NDArray[np.int32]

MAX, FIRST, SUM, MEAN = 0, 1, 2, 3


@compiled
def numbered(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], separator: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the last separator of each id is, and the number behind it.

    Args:
        data: UTF-8 bytes of all ids, uint8 ``(bytes,)``.
        offsets: int64 ``(n + 1,)``, where each id starts and ends.
        separator: Its bytes, uint8 ``(m,)``, at least one and no digit.

    Returns:
        Lengths of what stands before it, int64 ``(n,)``, and numbers, int64 ``(n,)``. The length is
        0 where there is no separator, nothing before it, or behind it anything but 1 to 18 digits.
    """
    n, width = len(offsets) - 1, len(separator)
    lengths = np.zeros(n, np.int64)
    numbers = np.zeros(n, np.int64)
    for i in range(n):
        start, stop = offsets[i], offsets[i + 1]
        place = stop
        number, power = np.int64(0), np.int64(1)
        while place > start and stop - place < 18 and 48 <= data[place - 1] <= 57:
            place -= 1
            number += power * np.int64(data[place] - 48)
            power *= 10
        if place == stop or place - width <= start:
            continue
        found = True
        for j in range(width):
            if data[place - width + j] != separator[j]:
                found = False
        if found:
            lengths[i] = place - width - start
            numbers[i] = number
    return lengths, numbers


@compiled
def aggregated(
    offsets: NDArray[np.int64],
    parents: Rows,
    numbers: NDArray[np.int64],
    scores: NDArray[np.float32],
    n_parents: int,
    how: int,
    n: int,
) -> tuple[NDArray[np.int64], Rows, NDArray[np.float32], NDArray[np.int64]]:
    """For each query its documents, with scores made of those of their passages.

    Scores are added as float64 in the order of the hits, so that a sum does not depend on anything
    but its parts.

    Args:
        offsets: int64 ``(nq + 1,)``.
        parents: int32 ``(hits,)``, the document of each passage, below `n_parents`.
        numbers: int64 ``(hits,)``, the place of each passage in its document.
        scores: float32 ``(hits,)``, best first.
        n_parents: How many documents there are.
        how: `MAX` the best passage, `FIRST` the one of the smallest number, `SUM` or `MEAN` of the
            first n hits.
        n: How many hits of a document count under `SUM` and `MEAN`.

    Returns:
        Offsets int64 ``(nq + 1,)``, documents int32 ``(m,)`` in the order of their best passages,
        scores float32 ``(m,)``, and the place among the hits of the passage that stands for each,
        int64 ``(m,)``: the best one, or the first one under `FIRST`.
    """
    entry_of = np.full(n_parents, -1, np.int64)
    out_offsets = np.zeros(len(offsets), np.int64)
    rows = np.empty(len(parents), np.int32)
    totals = np.empty(len(parents), np.float64)
    counts = np.empty(len(parents), np.int64)
    stands = np.empty(len(parents), np.int64)
    filled = 0
    for q in range(len(offsets) - 1):
        first_entry = filled
        for i in range(offsets[q], offsets[q + 1]):
            parent = parents[i]
            entry = entry_of[parent]
            if entry < 0:
                entry_of[parent] = filled
                rows[filled] = parent
                totals[filled] = scores[i]
                counts[filled] = 1
                stands[filled] = i
                filled += 1
            elif how == FIRST:
                if numbers[i] < numbers[stands[entry]]:
                    totals[entry] = scores[i]
                    stands[entry] = i
            elif how != MAX and counts[entry] < n:
                totals[entry] += scores[i]
                counts[entry] += 1
        for entry in range(first_entry, filled):
            entry_of[rows[entry]] = -1
        out_offsets[q + 1] = filled
    values = np.empty(filled, np.float32)
    for entry in range(filled):
        values[entry] = totals[entry] / counts[entry] if how == MEAN else totals[entry]
    return out_offsets, rows[:filled].copy(), values, stands[:filled].copy()
