"""Picking the k best of many scores, exactly, in the total order.

Sorting or partitioning all N scores costs far more than computing them. Instead: take the maximum
of each chunk of 16 scores, find from a histogram of those maxima a bound that at least k of them
reach (so at least k scores do), and collect only what reaches the bound. What is collected is
sorted by the 64-bit key of `retrievekit.kernels.order`, so ties at place k are broken by id as
everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

CHUNK = 16
BUCKETS = 4096


@compiled
def sort_key(score: np.float32, rank: np.int32, scratch: NDArray[np.float32]) -> np.uint64:
    """The 64-bit key of one hit, as `retrievekit.kernels.order.keys` gives it.

    Args:
        score: Finite, float32.
        rank: The id's rank, int32.
        scratch: float32 ``(1,)`` to read the bits through.

    Returns:
        The key, uint64; larger comes first.
    """
    scratch[0] = score + np.float32(0.0)
    bits = scratch.view(np.uint32)[0]
    if bits >> np.uint32(31):
        bits = ~bits
    else:
        bits = bits | np.uint32(0x80000000)
    return (np.uint64(bits) << np.uint64(32)) | np.uint64(rank)


@compiled
def reached_by(
    values: NDArray[np.float32],
    n: int,
    k: int,
    histogram: NDArray[np.int64],
) -> np.float32:
    """A value that at least k of the first n values reach, close to the k-th largest.

    Args:
        values: float32 ``(>= n,)``; -inf marks what does not count.
        n: How many values to look at.
        k: How many must reach the bound, at least 1.
        histogram: int64 ``(BUCKETS,)`` of working space.

    Returns:
        The bound; -inf when fewer than k values count.
    """
    low, high = np.float32(np.inf), np.float32(-np.inf)
    count = 0
    for i in range(n):
        v = values[i]
        if v != -np.inf:
            count += 1
            low = min(low, v)
            high = max(high, v)
    if count < k:
        return np.float32(-np.inf)
    if high == low:
        return low
    histogram[:] = 0
    scale = np.float64(BUCKETS - 1) / (np.float64(high) - np.float64(low))
    for i in range(n):
        if values[i] != -np.inf:
            histogram[int((np.float64(values[i]) - low) * scale)] += 1
    bucket = BUCKETS
    reached = 0
    while reached < k:
        bucket -= 1
        reached += histogram[bucket]
    # The smallest value of the bucket is a bound that is certainly reached k times.
    bound = high
    for i in range(n):
        v = values[i]
        if v != -np.inf and v < bound and int((np.float64(v) - low) * scale) >= bucket:
            bound = v
    return bound


@compiled
def collect(
    scores: NDArray[np.float32],
    n: int,
    first: int,
    ranks: NDArray[np.int32],
    k: int,
    found: NDArray[np.uint64],
    n_found: int,
    maxima: NDArray[np.float32],
    histogram: NDArray[np.int64],
    scratch: NDArray[np.float32],
) -> int:
    """Add to `found` the keys of all scores that may be among the k best, then keep the k best.

    Args:
        scores: float32 ``(>= n,)``; -inf marks documents that are no hits.
        n: How many scores.
        first: Row of the first score.
        ranks: int32 ``(documents,)``, id ranks by row.
        k: How many to keep.
        found: uint64 ``(>= k + n,)``; the first `n_found` are kept from earlier calls, falling.
        n_found: How many are kept.
        maxima: float32 ``(>= n / CHUNK + 1,)`` of working space.
        histogram: int64 ``(BUCKETS,)`` of working space.
        scratch: float32 ``(1,)`` of working space.

    Returns:
        How many keys are kept now: the largest, in falling order.
    """
    chunks = (n + CHUNK - 1) // CHUNK
    for c in range(chunks):
        best = np.float32(-np.inf)
        for i in range(c * CHUNK, min(n, (c + 1) * CHUNK)):
            best = max(best, scores[i])
        maxima[c] = best
    bound = reached_by(maxima, chunks, k, histogram)
    least = np.uint64(0)
    if n_found >= k:
        least = found[k - 1]
    m = n_found
    for c in range(chunks):
        if maxima[c] == -np.inf or maxima[c] < bound:
            continue
        for i in range(c * CHUNK, min(n, (c + 1) * CHUNK)):
            if scores[i] != -np.inf and scores[i] >= bound:
                key = sort_key(scores[i], ranks[first + i], scratch)
                if key > least:
                    found[m] = key
                    m += 1
    if m > n_found:
        found[:m] = np.sort(found[:m])[::-1]
    return min(m, k)


@compiled
def unpack(
    found: NDArray[np.uint64],
    n: int,
    order: NDArray[np.int32],
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
    scratch: NDArray[np.uint32],
) -> None:
    """Turn keys back into rows and scores.

    Args:
        found: uint64 ``(>= n,)`` keys.
        n: How many.
        order: int32 ``(documents,)``, rows by id rank.
        rows: int32 ``(>= n,)``, written.
        scores: float32 ``(>= n,)``, written.
        scratch: uint32 ``(1,)`` of working space.
    """
    for i in range(n):
        bits = np.uint32(found[i] >> np.uint64(32))
        if bits >> np.uint32(31):
            scratch[0] = bits & np.uint32(0x7FFFFFFF)
        else:
            scratch[0] = ~bits
        scores[i] = scratch.view(np.float32)[0]
        rows[i] = order[np.int64(found[i] & np.uint64(0xFFFFFFFF))]


@compiled
def unpack_all(
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    order: NDArray[np.int32],
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
) -> None:
    """Turn each query's keys back into rows and scores.

    Args:
        keys: uint64 ``(nq, >= k)``.
        counts: int64 ``(nq,)``, how many keys each query has.
        order: int32 ``(documents,)``, rows by id rank.
        rows: int32 ``(nq, k)``, written.
        scores: float32 ``(nq, k)``, written.
    """
    scratch = np.empty(1, np.uint32)
    for q in range(len(keys)):
        unpack(keys[q], counts[q], order, rows[q], scores[q], scratch)
