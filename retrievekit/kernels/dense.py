"""Exact scores of pairs: proposals are scored again in one fixed order, and the best are kept.

Whatever proposed them (`retrievekit.kernels.proposals`), each pair is scored in float64, in one
fixed order, and rounded once to float32. The answer for a query cannot depend on its companions,
nor on the precision of the fast pass.

Stored vectors come as pairs ``(vectors, steps)``: float32 ``(n, d)``, or int16, the bits of
float16, or int8, whole numbers of steps; and the steps, float32 ``(d,)``, empty but for int8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled, reordered
from retrievekit.kernels.select import BUCKETS, CHUNK, collect, sort_key
from retrievekit.kernels.widths import widen_row

Stored = tuple[NDArray[Any], NDArray[np.float32]]

INSERTED = 64
"""So many best are kept in order by insertion; more of them are sorted."""


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
    stored: Stored,
    euclidean: bool,
    base: int,
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
) -> None:
    """Score the proposals that lie in one segment approximately.

    Args:
        queries: float32 ``(nq, d)``.
        stored: Vectors ``(documents of the segment, d)`` and steps, see above.
        euclidean: Whether the score is minus the squared distance instead of the inner product.
        base: Rows of the segments before.
        rows: int32 ``(nq, m)``, rows counted over all segments, -1 for none.
        scores: float32 ``(nq, m)``, written where the row lies in the segment.
    """
    vectors, steps = stored
    here, places = np.empty(4, np.int64), np.empty(4, np.int64)
    bits = np.empty(vectors.shape[1], np.uint32)
    floats = bits.view(np.float32)
    for q in range(len(queries)):
        n = 0
        for i in range(rows.shape[1]):
            row = rows[q, i] - base
            if not 0 <= row < len(vectors):
                continue
            if vectors.itemsize < 4:
                widen_row(vectors[row], steps, bits, floats)
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
    """Drop proposals that cannot belong to the k best; see `retrievekit.kernels.proposals.sift`.

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
    stored: Stored,
    euclidean: bool,
    base: int,
    ranks: NDArray[np.int32],
    rows: NDArray[np.int32],
    keys: NDArray[np.uint64],
) -> None:
    """Score the proposals that lie in one segment, pair by pair.

    Args:
        queries: float32 ``(nq, d)``.
        stored: Vectors ``(documents of the segment, d)`` and steps, see above.
        euclidean: Whether the score is minus the distance instead of the inner product.
        base: Rows of the segments before.
        ranks: int32 ``(documents of the segment,)``, by row the rank of its id among all live ones.
        rows: int32 ``(nq, m)``, rows counted over all segments, -1 for none.
        keys: uint64 ``(nq, m)``, written where the row lies in the segment.
    """
    vectors, steps = stored
    query, terms = np.empty(queries.shape[1]), np.empty(queries.shape[1])
    bits = np.empty(vectors.shape[1], np.uint32)
    floats = bits.view(np.float32)
    scratch = np.empty(1, np.float32)
    for q in range(len(queries)):
        query[:] = queries[q]
        for i in range(rows.shape[1]):
            row = rows[q, i] - base
            if 0 <= row < len(vectors):
                if vectors.itemsize < 4:
                    widen_row(vectors[row], steps, bits, floats)
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
    stored: Stored,
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
        stored: Vectors ``(documents, d)`` and steps, see above.
        euclidean: Whether the score is minus the distance instead of the inner product.
        ranks: int32 ``(documents,)``, by row the rank of its id among all live documents.
        allowed_starts: int64 ``(nq,)``, where each query's rows begin in the array below.
        allowed_stops: int64 ``(nq,)``, where they end.
        allowed: int32 ``(pairs,)``, live rows, distinct within a query.
        k: Hits per query, at least 1.
        keys: uint64 ``(nq, k)``, the best keys of the segments before, falling; updated.
        counts: int64 ``(nq,)``, how many keys each query has; updated.
    """
    vectors, steps = stored
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
            if vectors.itemsize < 4:
                widen_row(vectors[own[i]], steps, bits, floats)
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
