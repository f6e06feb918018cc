"""The one total order: score descending, then id descending.

A hit becomes one 64-bit key, ``sortable(score) << 32 | rank``, where `rank` is the place of its id
in ascending order of UTF-8 bytes and `sortable` maps float32 to uint32 so that integer order is
float order (flip all bits of negatives, the sign bit of the rest). Sorting keys downwards sorts
hits as trec_eval does.
"""

from __future__ import annotations

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
