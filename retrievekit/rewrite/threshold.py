"""The score above which a given share of very many scores lies, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError

Chunks = Callable[[], Iterable[NDArray[np.float32]]]
"""Gives all scores anew, float32 ``(n,)`` at a time."""

_HALF = 1 << 16


def share_threshold(chunks: Chunks, keep: float) -> float:
    """The (1 - keep) quantile, linear between two scores, as NumPy's default is.

    Scores are counted by the first and then by the second half of their bits, whose order is that
    of the numbers, so that two passes over them and two tables of 65,536 counts are all it takes.

    Args:
        chunks: Gives the scores, finite.
        keep: The share that is to lie at or above, above 0 and at most 1.

    Returns:
        The threshold; minus infinity where there are no scores.

    Raises:
        DataError: `keep` is out of range.
    """
    if not 0 < keep <= 1:
        raise DataError(f"keep is a share above 0 and at most 1; got {keep!r}")
    coarse = np.zeros(_HALF, np.int64)
    for scores in chunks():
        coarse += np.bincount(_ordered(scores) >> 16, minlength=_HALF)
    n = int(coarse.sum())
    if not n:
        return -math.inf
    # Rounded, so that 0.7 of 10 is 7 and not the next number above it.
    place = round((1 - keep) * (n - 1), 9)
    low = math.floor(place)
    first, second = _at_ranks(chunks, coarse, (low, min(low + 1, n - 1)))
    return first + (second - first) * (place - low)


def _at_ranks(chunks: Chunks, coarse: NDArray[np.int64], ranks: tuple[int, int]) -> list[float]:
    """The scores at two ranks, counted from 0 for the lowest."""
    ends = np.cumsum(coarse)
    buckets = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    fine = {bucket: np.zeros(_HALF, np.int64) for bucket in buckets}
    for scores in chunks():
        keys = _ordered(scores)
        for bucket, counts in fine.items():
            own = keys[keys >> 16 == bucket] & (_HALF - 1)
            counts += np.bincount(own, minlength=_HALF)
    out = []
    for rank, bucket in zip(ranks, buckets, strict=True):
        before = int(ends[bucket] - coarse[bucket])
        place = int(np.searchsorted(np.cumsum(fine[bucket]), rank - before, side="right"))
        out.append(_score(bucket << 16 | place))
    return out


def _ordered(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Bits of float32 ``(n,)`` turned so that their order as uint32 is that of the numbers."""
    bits = np.ascontiguousarray(scores, np.float32).view(np.uint32)
    sign = np.uint32(1 << 31)
    turned: NDArray[np.uint32] = np.where(bits & sign, ~bits, bits | sign)
    return turned


def _score(key: int) -> float:
    """The number of turned bits."""
    bits = key & ~(1 << 31) if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])
