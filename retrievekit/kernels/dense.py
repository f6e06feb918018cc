"""Exact dense search: a fast pass proposes, a fixed-order pass decides.

A matrix product is fast, but its rounding depends on the shapes it was called with, and the fastest
one works on halved precision. So it only proposes: `sift` keeps every document whose approximate
score, given the largest error that it can have, may belong to the k best. Each of those is then
scored pair by pair in float64, in one fixed order, and rounded once to float32. The answer for a
query cannot depend on its companions, nor on the precision of the fast pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled, reordered
from retrievekit.kernels.select import BUCKETS, CHUNK, collect, sort_key

LANES = 64
"""Queries whose scores of one document are looked at together."""

ROOM = 128
"""Proposals that a query takes, at least, before its floor is raised again."""

INSERTED = 64
"""So many best are kept in order by insertion; more of them are sorted."""


@compiled
def to_bfloat16(vectors: NDArray[np.float32], halves: NDArray[np.int16]) -> float:
    """Round float32 to bfloat16, to the nearest, ties to even.

    Args:
        vectors: Finite float32 ``(n, d)``.
        halves: int16 ``(n, d)``, the bits of the result, written.

    Returns:
        The largest Euclidean norm of a row of differences, exact to a few units of float64.
    """
    bits = vectors.view(np.uint32)
    back = np.empty(vectors.shape[1], np.uint32)
    floats = back.view(np.float32)
    largest = 0.0
    for row in range(len(vectors)):
        for i in range(vectors.shape[1]):
            b = bits[row, i]
            b = np.uint32(b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1)))
            b = np.uint32(b >> np.uint32(16))
            halves[row, i] = np.int16(b)
            back[i] = np.uint32(b << np.uint32(16))
        squares = 0.0
        for i in range(vectors.shape[1]):
            difference = np.float64(vectors[row, i]) - np.float64(floats[i])
            squares += difference * difference
        largest = max(largest, squares)
    return float(np.sqrt(largest))


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


@compiled
def widen(halves: NDArray[np.int16], bits: NDArray[np.uint32], floats: NDArray[np.float32]) -> None:
    """Write float16 as float32, exactly.

    Exponent and fraction are moved to their places, which leaves the number 2**112 too small, for
    the exponents' biases differ by 112; multiplying makes up for that, for subnormal numbers too.

    Args:
        halves: int16 ``(d,)``, the bits of finite float16.
        bits: uint32 ``(d,)``, written.
        floats: The same as float32 ``(d,)``.
    """
    for i in range(len(halves)):
        half = np.uint32(halves[i])
        magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
        bits[i] = magnitude | np.uint32((half & np.uint32(0x8000)) << np.uint32(16))
    for i in range(len(halves)):
        floats[i] *= np.float32(2.0**112)


@compiled
def pair_score(
    query: NDArray[np.float64],
    vector: NDArray[np.float32],
    euclidean: bool,
    terms: NDArray[np.float64],
) -> np.float32:
    """Inner product, or minus the Euclidean distance, in float64 and in one fixed order.

    The terms are folded, the upper half onto the lower, until 16 are left, which are added one
    after another. The order is the same whatever registers the processor has.

    Args:
        query: float64 ``(d,)``.
        vector: float32 ``(d,)``.
        euclidean: Which of the two.
        terms: float64 ``(d,)`` of working space.

    Returns:
        The score, rounded once to float32.
    """
    m = len(query)
    if euclidean:
        for i in range(m):
            difference = query[i] - np.float64(vector[i])
            terms[i] = difference * difference
    else:
        for i in range(m):
            terms[i] = query[i] * np.float64(vector[i])
    while m > 16:
        half = (m + 1) // 2
        for i in range(m - half):
            terms[i] += terms[i + half]
        m = half
    total = 0.0
    for i in range(m):
        total += terms[i]
    return np.float32(-np.sqrt(total)) if euclidean else np.float32(total)


@reordered
def near_score(
    query: NDArray[np.float32], vector: NDArray[np.float32], euclidean: bool
) -> np.float32:
    """Inner product, or minus the squared Euclidean distance, in float32 and in any order.

    Args:
        query: float32 ``(d,)``.
        vector: float32 ``(d,)``.
        euclidean: Which of the two.

    Returns:
        The approximate score.
    """
    total = np.float32(0)
    if euclidean:
        for i in range(len(query)):
            difference = query[i] - vector[i]
            total -= difference * difference
    else:
        for i in range(len(query)):
            total += query[i] * vector[i]
    return total


@reordered
def near_scores(
    query: NDArray[np.float32],
    vectors: NDArray[Any],
    rows: NDArray[np.int64],
    euclidean: bool,
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """`near_score` of four vectors at once, which are fetched from memory together.

    Args:
        query: float32 ``(d,)``.
        vectors: float32 ``(n, d)``; any dtype compiles.
        rows: int64 ``(4,)``, rows of `vectors`.
        euclidean: Which of the two.

    Returns:
        The four approximate scores.
    """
    a, b, c, d = vectors[rows[0]], vectors[rows[1]], vectors[rows[2]], vectors[rows[3]]
    s, t, u, v = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    if euclidean:
        for i in range(len(query)):
            x = query[i]
            s -= (x - a[i]) * (x - a[i])
            t -= (x - b[i]) * (x - b[i])
            u -= (x - c[i]) * (x - c[i])
            v -= (x - d[i]) * (x - d[i])
    else:
        for i in range(len(query)):
            x = query[i]
            s += x * a[i]
            t += x * b[i]
            u += x * c[i]
            v += x * d[i]
    return s, t, u, v


@compiled
def estimate(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32] | NDArray[np.int16],
    euclidean: bool,
    base: int,
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
) -> None:
    """Score the proposals that lie in one segment approximately.

    Args:
        queries: float32 ``(nq, d)``.
        vectors: float32 ``(documents of the segment, d)``, or int16, the bits of float16.
        euclidean: Whether the score is minus the squared distance instead of the inner product.
        base: Rows of the segments before.
        rows: int32 ``(nq, m)``, rows counted over all segments, -1 for none.
        scores: float32 ``(nq, m)``, written where the row lies in the segment.
    """
    here, places = np.empty(4, np.int64), np.empty(4, np.int64)
    bits = np.empty(vectors.shape[1], np.uint32)
    floats = bits.view(np.float32)
    for q in range(len(queries)):
        n = 0
        for i in range(rows.shape[1]):
            row = rows[q, i] - base
            if not 0 <= row < len(vectors):
                continue
            if vectors.itemsize == 2:
                widen(vectors[row], bits, floats)
                scores[q, i] = near_score(queries[q], floats, euclidean)
                continue
            here[n], places[n] = row, i
            n += 1
            if n == 4:
                s, t, u, v = near_scores(queries[q], vectors, here, euclidean)
                scores[q, places[0]], scores[q, places[1]] = s, t
                scores[q, places[2]], scores[q, places[3]] = u, v
                n = 0
        for i in range(n):
            scores[q, places[i]] = near_score(queries[q], vectors[here[i]], euclidean)


@compiled
def narrow(
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
    k: int,
    margins: NDArray[np.float32],
) -> None:
    """Drop proposals that cannot belong to the k best; see `sift`.

    Args:
        rows: int32 ``(nq, m)``, -1 for none; -1 is written for those dropped.
        scores: float32 ``(nq, m)``, approximate.
        k: Hits wanted, at least 1.
        margins: float32 ``(nq,)``, twice the largest error of an approximate score.
    """
    found = np.empty(rows.shape[1], np.float32)
    for q in range(len(rows)):
        n = 0
        for i in range(rows.shape[1]):
            if rows[q, i] >= 0:
                found[n] = scores[q, i]
                n += 1
        if n <= k:
            continue
        kth = np.partition(found[:n], n - k)[n - k]
        floor = np.float64(kth) - np.float64(margins[q])
        for i in range(rows.shape[1]):
            if np.float64(scores[q, i]) < floor:
                rows[q, i] = -1


@compiled
def rescore(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32] | NDArray[np.int16],
    euclidean: bool,
    base: int,
    ranks: NDArray[np.int32],
    rows: NDArray[np.int32],
    keys: NDArray[np.uint64],
) -> None:
    """Score the proposals that lie in one segment, pair by pair.

    Args:
        queries: float32 ``(nq, d)``.
        vectors: float32 ``(documents of the segment, d)``, or int16, the bits of float16.
        euclidean: Whether the score is minus the distance instead of the inner product.
        base: Rows of the segments before.
        ranks: int32 ``(documents of the segment,)``, by row the rank of its id among all live ones.
        rows: int32 ``(nq, m)``, rows counted over all segments, -1 for none.
        keys: uint64 ``(nq, m)``, written where the row lies in the segment.
    """
    query, terms = np.empty(queries.shape[1]), np.empty(queries.shape[1])
    bits = np.empty(vectors.shape[1], np.uint32)
    floats = bits.view(np.float32)
    scratch = np.empty(1, np.float32)
    for q in range(len(queries)):
        query[:] = queries[q]
        for i in range(rows.shape[1]):
            row = rows[q, i] - base
            if 0 <= row < len(vectors):
                if vectors.itemsize == 2:
                    widen(vectors[row], bits, floats)
                    score = pair_score(query, floats, euclidean, terms)
                else:
                    score = pair_score(query, vectors[row], euclidean, terms)
                keys[q, i] = sort_key(score, ranks[row], scratch)


@compiled
def keep_best(
    scored: NDArray[np.uint64], k: int, keys: NDArray[np.uint64], counts: NDArray[np.int64]
) -> None:
    """The k largest keys of each query, falling.

    Args:
        scored: uint64 ``(nq, m)``, 0 for none.
        k: How many to keep.
        keys: uint64 ``(nq, k)``, written.
        counts: int64 ``(nq,)``, how many each query has, written.
    """
    nothing = np.uint64(0)
    for q in range(len(scored)):
        n = 0
        if k <= INSERTED:
            for i in range(scored.shape[1]):
                key = scored[q, i]
                if key == nothing or (n == k and key < keys[q, k - 1]):
                    continue
                at = min(n, k - 1)
                while at > 0 and keys[q, at - 1] < key:
                    keys[q, at] = keys[q, at - 1]
                    at -= 1
                keys[q, at] = key
                n = min(n + 1, k)
        else:
            ordered = np.sort(scored[q])[::-1]
            while n < min(k, len(ordered)) and ordered[n] != nothing:
                keys[q, n] = ordered[n]
                n += 1
        counts[q] = n


@compiled
def search_among(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32] | NDArray[np.int16],
    euclidean: bool,
    ranks: NDArray[np.int32],
    allowed_starts: NDArray[np.int64],
    allowed_stops: NDArray[np.int64],
    allowed: NDArray[np.int32],
    k: int,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> None:
    """Merge the documents of one segment that each query may have into its k best, pair by pair.

    Args:
        queries: float32 ``(nq, d)``.
        vectors: float32 ``(documents, d)``, or int16, the bits of float16.
        euclidean: Whether the score is minus the distance instead of the inner product.
        ranks: int32 ``(documents,)``, by row the rank of its id among all live documents.
        allowed_starts: int64 ``(nq,)``, where each query's rows begin in the array below.
        allowed_stops: int64 ``(nq,)``, where they end.
        allowed: int32 ``(pairs,)``, live rows, distinct within a query.
        k: Hits per query, at least 1.
        keys: uint64 ``(nq, k)``, the best keys of the segments before, falling; updated.
        counts: int64 ``(nq,)``, how many keys each query has; updated.
    """
    most = 0
    for q in range(len(queries)):
        most = max(most, allowed_stops[q] - allowed_starts[q])
    scores = np.empty(most, np.float32)
    own_ranks = np.empty(most, np.int32)
    maxima = np.empty(most // CHUNK + 1, np.float32)
    histogram = np.empty(BUCKETS, np.int64)
    found = np.empty(k + most, np.uint64)
    scratch = np.empty(1, np.float32)
    query, terms = np.empty(queries.shape[1]), np.empty(queries.shape[1])
    bits = np.empty(vectors.shape[1], np.uint32)
    floats = bits.view(np.float32)
    for q in range(len(queries)):
        query[:] = queries[q]
        own = allowed[allowed_starts[q] : allowed_stops[q]]
        for i in range(len(own)):
            if vectors.itemsize == 2:
                widen(vectors[own[i]], bits, floats)
                scores[i] = pair_score(query, floats, euclidean, terms)
            else:
                scores[i] = pair_score(query, vectors[own[i]], euclidean, terms)
            own_ranks[i] = ranks[own[i]]
        n_found = counts[q]
        found[:n_found] = keys[q, :n_found]
        n_found = collect(
            scores, len(own), 0, own_ranks, k, found, n_found, maxima, histogram, scratch
        )
        keys[q, :n_found] = found[:n_found]
        counts[q] = n_found
