"""The one total order: score descending, then id descending.

A hit becomes one 64-bit key, ``sortable(score) << 32 | rank``, where `rank` is the place of its id
in ascending order of UTF-8 bytes and `sortable` maps float32 to uint32 so that integer order is
float order (flip all bits of negatives, the sign bit of the rest). Sorting keys downwards sorts
hits as trec_eval does.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

Rows = NDArray[np.int32]


def sortable(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map finite float32 to uint32 so that the order stays.

    Args:
        scores: float32 ``(n,)``, finite.

    Returns:
        uint32 ``(n,)``; equal scores (0.0 and -0.0 among them) give equal integers.
    """
    bits = (scores + np.float32(0.0)).view(np.uint32)
    negative = (bits >> np.uint32(31)).astype(bool)
    return np.where(negative, ~bits, bits | np.uint32(0x80000000))


def keys(scores: NDArray[np.float32], ranks: Rows) -> NDArray[np.uint64]:
    """The sort keys of hits.

    Args:
        scores: float32 ``(n,)``, finite.
        ranks: int32 ``(n,)``, the hits' id ranks.

    Returns:
        uint64 ``(n,)``; larger keys come first.
    """
    return (sortable(scores).astype(np.uint64) << np.uint64(32)) | ranks.astype(np.uint64)


@compiled
def _argsort_segments(
    offsets: NDArray[np.int64], sort_keys: NDArray[np.uint64]
) -> NDArray[np.int64]:
    order = np.empty(len(sort_keys), np.int64)
    for q in range(len(offsets) - 1):
        start, stop = offsets[q], offsets[q + 1]
        falling = True
        for i in range(start + 1, stop):
            if sort_keys[i] > sort_keys[i - 1]:
                falling = False
                break
        if falling:
            for i in range(start, stop):
                order[i] = i
        else:
            part = np.argsort(sort_keys[start:stop])
            for i in range(stop - start):
                order[start + i] = start + part[stop - start - 1 - i]
    return order


def order_hits(
    offsets: NDArray[np.int64],
    scores: NDArray[np.float32],
    ranks: Rows,
) -> NDArray[np.int64]:
    """The permutation that puts each query's hits into the total order.

    Args:
        offsets: int64 ``(nq + 1,)``.
        scores: float32 ``(n,)``, finite.
        ranks: int32 ``(n,)``, id ranks of the hits, distinct within a query.

    Returns:
        int64 ``(n,)``: positions, query by query, best hit first.
    """
    # uint64 keys are distinct within a query, so an unstable sort cannot shuffle equals.
    return _argsort_segments(offsets, keys(scores, ranks))


@compiled
def _flipped_keys(bits: NDArray[np.uint32], rows: Rows, rank: Rows) -> NDArray[np.uint64]:
    """The complement of each hit's key, which turns NumPy's ascending order round."""
    out = np.empty(len(bits), np.uint64)
    sign = np.uint32(0x80000000)
    for i in range(len(bits)):
        score = bits[i]
        if score == sign:  # -0.0 equals 0.0
            score = np.uint32(0)
        score = ~score if score & sign else score | sign
        out[i] = ~((np.uint64(score) << np.uint64(32)) | np.uint64(rank[rows[i]]))
    return out


@compiled
def _from_flipped(flipped: NDArray[np.uint64], order: Rows) -> tuple[Rows, NDArray[np.uint32]]:
    """Rows, and the bits of scores, of complemented keys."""
    rows = np.empty(len(flipped), np.int32)
    bits = np.empty(len(flipped), np.uint32)
    sign = np.uint32(0x80000000)
    for i in range(len(flipped)):
        key = ~flipped[i]
        rows[i] = order[key & np.uint64(0xFFFFFFFF)]
        score = np.uint32(key >> np.uint64(32))
        bits[i] = score & ~sign if score & sign else ~score
    return rows, bits


def sort_hits(
    offsets: NDArray[np.int64], scores: NDArray[np.float32], rows: Rows, rank: Rows, order: Rows
) -> tuple[Rows, NDArray[np.float32]]:
    """Each query's hits in the total order, where nothing but rows and scores has to move.

    A key says all of a hit, so NumPy's sort of plain integers does the work, many times faster than
    a sort of positions.

    Args:
        offsets: int64 ``(nq + 1,)``.
        scores: float32 ``(n,)``, finite.
        rows: int32 ``(n,)``, distinct within a query.
        rank: int32 ``(docs,)``, the id rank of each row.
        order: int32 ``(docs,)``, the row of each id rank.

    Returns:
        Rows int32 ``(n,)`` and scores float32 ``(n,)``, best hit first.
    """
    flipped = _flipped_keys(np.ascontiguousarray(scores).view(np.uint32), rows, rank)
    bounds = offsets.tolist()
    for start, stop in itertools.pairwise(bounds):
        flipped[start:stop].sort()
    sorted_rows, bits = _from_flipped(flipped, order)
    return sorted_rows, bits.view(np.float32)
