"""Exact dense search: a fast pass proposes, a fixed-order pass decides.

A matrix product is fast, but its rounding depends on the shapes it was called with. So it only
proposes candidates; each candidate's score is then computed pair by pair in float64, in one fixed
order, and rounded once to float32. The answer for a query cannot depend on its companions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled
from retrievekit.kernels.select import BUCKETS, CHUNK, collect, sort_key, unpack


@compiled
def propose(
    scores: NDArray[np.float32],
    first: int,
    ranks: NDArray[np.int32],
    k: int,
    found: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> None:
    """Merge a block of approximate scores into each query's k best keys.

    Args:
        scores: float32 ``(nq, m)``, documents ``first`` to ``first + m``.
        first: Row of the first document.
        ranks: int32 ``(documents,)``, id ranks by row.
        k: Keys to keep per query.
        found: uint64 ``(nq, >= k + m)``, the keys kept so far, falling; updated.
        counts: int64 ``(nq,)``, how many are kept; updated.
    """
    m = scores.shape[1]
    maxima = np.empty(m // CHUNK + 1, np.float32)
    histogram = np.empty(BUCKETS, np.int64)
    scratch = np.empty(1, np.float32)
    for q in range(scores.shape[0]):
        counts[q] = collect(
            scores[q], m, first, ranks, k, found[q], counts[q], maxima, histogram, scratch
        )


@compiled
def pair_score(
    query: NDArray[np.float32], vector: NDArray[np.float32], euclidean: bool
) -> np.float32:
    """Inner product, or minus the Euclidean distance, in float64 and in index order.

    Args:
        query: float32 ``(d,)``.
        vector: float32 ``(d,)``.
        euclidean: Which of the two.

    Returns:
        The score, rounded once to float32.
    """
    total = 0.0
    if euclidean:
        for i in range(len(query)):
            difference = np.float64(query[i]) - np.float64(vector[i])
            total += difference * difference
        return np.float32(-np.sqrt(total))
    for i in range(len(query)):
        total += np.float64(query[i]) * np.float64(vector[i])
    return np.float32(total)


@compiled
def decide(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    euclidean: bool,
    found: NDArray[np.uint64],
    counts: NDArray[np.int64],
    margins: NDArray[np.float32],
    ranks: NDArray[np.int32],
    order: NDArray[np.int32],
    k: int,
    out_rows: NDArray[np.int32],
    out_scores: NDArray[np.float32],
    out_counts: NDArray[np.int64],
) -> None:
    """Score the proposed candidates exactly and keep the k best of each query.

    Where the worst candidate's approximate score is not below the k-th by more than the margin,
    a document that was not proposed might belong to the best: then every document is scored.

    Args:
        queries: float32 ``(nq, d)``.
        vectors: float32 ``(documents, d)``.
        euclidean: Whether the score is minus the distance instead of the inner product.
        found: uint64 ``(nq, >= candidates)``, keys of approximate scores, falling.
        counts: int64 ``(nq,)``, candidates of each query.
        margins: float32 ``(nq,)``, twice the largest error of an approximate score.
        ranks: int32 ``(documents,)``.
        order: int32 ``(documents,)``.
        k: Hits per query.
        out_rows: int32 ``(nq, k)``, written.
        out_scores: float32 ``(nq, k)``, written.
        out_counts: int64 ``(nq,)``, written.
    """
    n = len(vectors)
    most = 0
    for q in range(len(queries)):
        most = max(most, counts[q])
    rows = np.empty(most, np.int32)
    approximate = np.empty(most, np.float32)
    exact = np.empty(max(most, 1), np.uint64)
    scratch = np.empty(1, np.float32)
    bits = np.empty(1, np.uint32)
    for q in range(len(queries)):
        m = counts[q]
        unpack(found[q], m, order, rows, approximate, bits)
        if m == n or approximate[k - 1] - approximate[m - 1] > margins[q]:
            keys = exact[:m]
            for i in range(m):
                score = pair_score(queries[q], vectors[rows[i]], euclidean)
                keys[i] = sort_key(score, ranks[rows[i]], scratch)
        else:
            keys = np.empty(n, np.uint64)
            for row in range(n):
                score = pair_score(queries[q], vectors[row], euclidean)
                keys[row] = sort_key(score, ranks[row], scratch)
        best = np.sort(keys)[::-1]
        kept = min(k, len(best))
        unpack(best, kept, order, out_rows[q], out_scores[q], bits)
        out_counts[q] = kept
