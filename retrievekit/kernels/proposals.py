"""What a fast pass proposes: every document whose approximate score may belong to the k best.

A matrix product is fast, but its rounding depends on the shapes it was called with, and the fastest
one works on halved precision. So it only proposes: `sift` keeps every document whose approximate
score, given the largest error that it can have, may belong to the k best.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

LANES = 64
"""Queries whose scores of one document are looked at together."""

ROOM = 128
"""Proposals that a query takes, at least, before its floor is raised again."""


@compiled
def proposal(bits: np.int64, row: np.int64) -> np.uint64:
    """One entry of what `sift` keeps: the approximate score above, the row below.

    Args:
        bits: The score's float32 bits in the order of the numbers, from ``-2**31``.
        row: The row, from 0.

    Returns:
        The entry; of two entries the larger has the larger score.
    """
    return (np.uint64(bits + 2147483648) << np.uint64(32)) | np.uint64(row)


@compiled
def raised(
    found: NDArray[np.uint64], n: int, k: int, margin: np.float32, slack: float
) -> tuple[int, int]:
    """Drop proposals that cannot belong to the k best.

    With T the k-th best approximate score, what scores less than ``T - margin - slack * |T|`` is
    dropped; see `sift`.

    Args:
        found: uint64 ``(room,)``, the first n are proposals; those kept come first afterwards.
        n: How many there are, at least k.
        k: Hits wanted, at least 1.
        margin: Twice the largest error of an approximate score, float32.
        slack: The part of ``|T|`` that rounding the scores themselves may cost.

    Returns:
        How many are kept, and the bits of the floor, in the order of the numbers.
    """
    bits = np.empty(1, np.int32)
    floats = bits.view(np.float32)
    kth = np.int64(np.partition(found[:n], n - k)[n - k] >> np.uint64(32)) - 2147483648
    bits[0] = kth ^ ((kth >> 31) & 0x7FFFFFFF)
    best = np.float64(floats[0])
    floats[0] = np.float32(best - np.float64(margin) - slack * abs(best))
    floor = np.int64(bits[0])
    floor = (floor ^ ((floor >> 31) & 0x7FFFFFFF)) - 1  # one less: rounding may have gone up
    least = proposal(max(floor, np.int64(-2147483648)), np.int64(0))
    kept = 0
    for i in range(n):
        if found[i] >= least:
            found[kept] = found[i]
            kept += 1
    return kept, int(floor)


@compiled
def sift(
    block: NDArray[np.signedinteger],
    first: int,
    hidden: NDArray[np.bool_],
    cursors: NDArray[np.int64],
    stops: NDArray[np.int64],
    allowed: NDArray[np.int32],
    base: int,
    k: int,
    margins: NDArray[np.float32],
    slack: float,
    floors: NDArray[np.signedinteger],
    found: NDArray[np.uint64],
    counts: NDArray[np.int64],
    limits: NDArray[np.int64],
) -> None:
    """Keep of a block every document that may belong to a query's k best.

    Let an approximate score err by e at most before it is rounded to the block's precision, and let
    that rounding be monotone. k documents reach T, so the exact k-th best score is at least
    ``T - e`` less T's rounding. A document whose score is below ``T - 2 e`` less both roundings is
    worse than that, and is dropped; every other is kept, so the k best are among those kept, ties
    included. When there are too many of them for the room, the query is given up: ``counts`` is -1.

    Args:
        block: Bits of approximate scores, ``(m, nq)``: int32 of float32, or int16 of bfloat16.
        first: Row of the first document within its segment.
        hidden: bool ``(documents of the segment,)`` of rows that are no hits, or ``(0,)``.
        cursors: int64 ``(nq,)``, where each query's allowed rows reach `first`, updated; ``(0,)``
            when no query has rows of its own.
        stops: int64 ``(nq,)``, where they end.
        allowed: int32 ``(pairs,)``, rows that each query may have, ascending within a query.
        base: Rows of the segments before.
        k: Hits wanted, at least 1.
        margins: float32 ``(nq,)``, twice e.
        slack: A bound on both roundings together, as a part of ``|T|``.
        floors: ``(nq,)`` of the block's type, bits from which scores are taken, in the order of the
            numbers; updated, and at first the type's least value.
        found: uint64 ``(nq, room)``, see `proposal`; updated.
        counts: int64 ``(nq,)``, how many are kept, -1 where given up; updated.
        limits: int64 ``(nq,)``, at how many the floor is raised; updated.
    """
    m, nq = block.shape
    half = block.itemsize == 2
    for i in range(m):
        row = first + i
        if len(hidden) and hidden[row]:
            continue
        for start in range(0, nq, LANES):
            scores = block[i, start : start + LANES]
            reach = floors[start : start + LANES]
            # The comparison stays in the block's own width, so that many go into one register.
            if half:
                any16 = np.int16(0)
                for j in range(len(scores)):
                    x = np.int16(scores[j])
                    sign = np.int16(np.int16(x >> np.int16(15)) & np.int16(0x7FFF))
                    any16 |= np.int16(np.int16(x ^ sign) >= np.int16(reach[j]))
                if any16 == 0:
                    continue
            else:
                any32 = np.int32(0)
                for j in range(len(scores)):
                    y = np.int32(scores[j])
                    mask = np.int32(np.int32(y >> np.int32(31)) & np.int32(0x7FFFFFFF))
                    any32 |= np.int32(np.int32(y ^ mask) >= np.int32(reach[j]))
                if any32 == 0:
                    continue
            for j in range(len(scores)):
                bits = np.int64(scores[j])
                if half:
                    bits <<= 16
                bits ^= (bits >> 31) & 0x7FFFFFFF
                q = start + j
                if (bits >> 16 if half else bits) < reach[j] or counts[q] < 0:
                    continue
                if len(cursors):
                    at = cursors[q]
                    while at < stops[q] and allowed[at] < row:
                        at += 1
                    cursors[q] = at
                    if at == stops[q] or allowed[at] != row:
                        continue
                n = counts[q]
                found[q, n] = proposal(bits, np.int64(base + row))
                counts[q] = n + 1
                if n + 1 < limits[q]:
                    continue
                kept, floor = raised(found[q], n + 1, k, margins[q], slack)
                floors[q] = floor >> 16 if half else floor
                more = max(ROOM, k)
                counts[q] = kept if kept + more <= found.shape[1] else -1
                limits[q] = kept + more


@compiled
def settle(
    found: NDArray[np.uint64],
    counts: NDArray[np.int64],
    k: int,
    margins: NDArray[np.float32],
    slack: float,
) -> None:
    """Drop proposals that fell below the last floor.

    Args:
        found: uint64 ``(nq, room)``, as `sift` left them; updated.
        counts: int64 ``(nq,)``, how many each query has; updated.
        k: Hits wanted, at least 1.
        margins: float32 ``(nq,)``, as for `sift`.
        slack: As for `sift`.
    """
    for q in range(len(counts)):
        if counts[q] >= k:
            counts[q] = raised(found[q], counts[q], k, margins[q], slack)[0]
