"""Exact dense search: a fast pass proposes, a fixed-order pass decides.

A matrix product is fast, but its rounding depends on the shapes it was called with. So it only
proposes candidates; each candidate's score is then computed pair by pair in float64, in one fixed
order, and rounded once to float32. The answer for a query cannot depend on its companions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled
from retrievekit.kernels.select import BUCKETS, CHUNK, collect, sort_key


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
def rescore(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    euclidean: bool,
    segment: int,
    segments: NDArray[np.int32],
    places: NDArray[np.int32],
    rows: NDArray[np.int32],
    counts: NDArray[np.int64],
    exact: NDArray[np.float32],
) -> None:
    """Score the candidates that lie in one segment, pair by pair.

    Args:
        queries: float32 ``(nq, d)``.
        vectors: float32 ``(documents of the segment, d)``.
        euclidean: Whether the score is minus the distance instead of the inner product.
        segment: The segment's number.
        segments: int32 ``(live documents,)``, the segment of each row.
        places: int32 ``(live documents,)``, the row within its segment.
        rows: int32 ``(nq, candidates)``.
        counts: int64 ``(nq,)``, candidates of each query.
        exact: float32 ``(nq, candidates)``, written where the candidate lies in the segment.
    """
    for q in range(len(queries)):
        for i in range(counts[q]):
            row = rows[q, i]
            if segments[row] == segment:
                exact[q, i] = pair_score(queries[q], vectors[places[row]], euclidean)


@compiled
def settle(
    rows: NDArray[np.int32],
    approximate: NDArray[np.float32],
    exact: NDArray[np.float32],
    candidates: NDArray[np.int64],
    margins: NDArray[np.float32],
    ranks: NDArray[np.int32],
    total: int,
    k: int,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    unsure: NDArray[np.bool_],
) -> None:
    """Keep the k best candidates of each query by their exact scores.

    Where the worst candidate's approximate score is not below the k-th by more than the margin,
    a document that was not proposed might belong to the best: the query is marked unsure.

    Args:
        rows: int32 ``(nq, m)``, candidates, best approximate score first.
        approximate: float32 ``(nq, m)``.
        exact: float32 ``(nq, m)``.
        candidates: int64 ``(nq,)``, how many each query has.
        margins: float32 ``(nq,)``, twice the largest error of an approximate score.
        ranks: int32 ``(live documents,)``, id ranks by row.
        total: Documents that may be hits.
        k: Hits per query.
        keys: uint64 ``(nq, k)``, written, falling.
        counts: int64 ``(nq,)``, written; 0 where unsure.
        unsure: bool ``(nq,)``, written.
    """
    scratch = np.empty(1, np.float32)
    for q in range(len(rows)):
        m = candidates[q]
        unsure[q] = m < total and not (approximate[q, k - 1] - approximate[q, m - 1] > margins[q])
        counts[q] = 0
        if unsure[q]:
            continue
        found = np.empty(m, np.uint64)
        for i in range(m):
            found[i] = sort_key(exact[q, i], ranks[rows[q, i]], scratch)
        best = np.sort(found)[::-1]
        counts[q] = min(k, m)
        keys[q, : counts[q]] = best[: counts[q]]


@compiled
def scan(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    euclidean: bool,
    dead: NDArray[np.bool_],
    scores: NDArray[np.float32],
) -> None:
    """Score every document of a segment for one query, pair by pair.

    Args:
        query: float32 ``(d,)``.
        vectors: float32 ``(documents, d)``.
        euclidean: Whether the score is minus the distance instead of the inner product.
        dead: bool ``(documents,)`` of rows that cannot be hits, or ``(0,)`` when none is hidden.
        scores: float32 ``(documents,)``, written; -inf for hidden rows.
    """
    for row in range(len(vectors)):
        if len(dead) and dead[row]:
            scores[row] = np.float32(-np.inf)
        else:
            scores[row] = pair_score(query, vectors[row], euclidean)
