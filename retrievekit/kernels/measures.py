"""Evaluation measures over columns, one pass each, with trec_eval's arithmetic.

Most hits of a long ranking were never judged, and no measure needs more of them than their number.
So `judge` keeps the judged hits alone: their *places* in the ranking, from 0, and their *levels*,
which are grades made small: level `ZERO` + i is the i-th grade of an ascending scale that begins
at or above 0, and `NEGATIVE` is a grade below 0 (in the pool, but without a verdict). Each
measure takes, per query, how many hits count (``tops``), so that one kernel serves every cutoff.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

NEGATIVE = 1
ZERO = 2

_OUTSIDE = 0  # the level of documents without a judgement, within `judge`

# One byte each; four where a collection has more than 254 grades.
Levels = NDArray[np.uint8] | NDArray[np.int32]
Places = NDArray[np.int32]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]

# trec_eval's smoothing of the inferred precision
_INFAP_EPSILON = 0.00001


def to_levels(grades: NDArray[np.int32]) -> tuple[Levels, NDArray[np.int64]]:
    """The levels of grades, and their scale.

    Args:
        grades: int32 ``(n,)``.

    Returns:
        Levels uint8 ``(n,)``, int32 where there are more than 254 grades; and the scale, int64
        ``(m,)``: the grades of levels `ZERO`, `ZERO` + 1, ..., ascending.
    """
    highest = int(grades.max()) if len(grades) else 0
    if highest <= 255 - ZERO:
        levels = (np.maximum(grades, NEGATIVE - ZERO) + ZERO).astype(np.uint8)
        return levels, np.arange(highest + 1, dtype=np.int64)
    scale = np.unique(grades[grades >= 0]).astype(np.int64)
    found = np.where(grades < 0, NEGATIVE, ZERO + np.searchsorted(scale, grades))
    if len(scale) <= 256 - ZERO:
        return found.astype(np.uint8), scale
    return found.astype(np.int32), scale


@compiled
def _inverse(to_judged: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    out = np.full(n, -1, np.int32)
    for row in range(len(to_judged)):
        if to_judged[row] >= 0:
            out[to_judged[row]] = row
    return out


@compiled
def _judged_hits(
    queries: NDArray[np.int32],
    offsets: Counts,
    rows: NDArray[np.int32],
    judged: NDArray[np.int32],
    judged_offsets: Counts,
    judged_rows: NDArray[np.int32],
    judged_levels: Levels,
    to_run: NDArray[np.int32],
    level_of: Levels,
    depth: int,
) -> tuple[Counts, Places, Levels, Counts]:
    nq = len(queries)
    most = 0
    for q in range(nq):
        most += judged_offsets[judged[q] + 1] - judged_offsets[judged[q]]
    out = np.zeros(nq + 1, np.int64)
    places = np.empty(most, np.int32)
    levels = np.empty(most, level_of.dtype)
    n_ret = np.zeros(nq, np.int64)
    n = 0
    for q in range(nq):
        if queries[q] >= 0:
            first, last = judged_offsets[judged[q]], judged_offsets[judged[q] + 1]
            for j in range(first, last):
                row = to_run[judged_rows[j]]
                if row >= 0:
                    level_of[row] = judged_levels[j]
            start = offsets[queries[q]]
            n_ret[q] = offsets[queries[q] + 1] - start
            for place in range(min(depth, n_ret[q])):
                level = level_of[rows[start + place]]
                if level != _OUTSIDE:
                    places[n] = place
                    levels[n] = level
                    n += 1
            for j in range(first, last):
                row = to_run[judged_rows[j]]
                if row >= 0:
                    level_of[row] = _OUTSIDE
        out[q + 1] = n
    return out, places[:n].copy(), levels[:n].copy(), n_ret


def judge(
    queries: NDArray[np.int32],
    offsets: Counts,
    rows: NDArray[np.int32],
    to_judged: NDArray[np.int32],
    judged: NDArray[np.int32],
    judged_offsets: Counts,
    judged_rows: NDArray[np.int32],
    judged_levels: Levels,
    n_docs: int,
    depth: int,
) -> tuple[Counts, Places, Levels, Counts]:
    """The judged among the hits.

    Args:
        queries: int32 ``(nq,)``, for each query to evaluate its row in the run, or -1.
        offsets: int64 ``(run queries + 1,)``.
        rows: int32 ``(hits,)``, rows of the run's documents.
        to_judged: int32 ``(run documents,)``, the same documents' rows in the judgements, or -1.
        judged: int32 ``(nq,)``, for each query its row in the judgements.
        judged_offsets: int64 ``(judged queries + 1,)``.
        judged_rows: int32 ``(judgements,)``.
        judged_levels: uint8 or int32 ``(judgements,)``, from `to_levels`.
        n_docs: How many judged documents there are.
        depth: Hits to look at per query.

    Returns:
        Offsets int64 ``(nq + 1,)``; places int32 ``(judged hits,)``, ascending within a query;
        their levels, of the dtype of `judged_levels`; and how many hits each query has in all,
        int64 ``(nq,)``.
    """
    # One byte per document of the run stays in a processor's own cache, where grades would not.
    level_of = np.full(len(to_judged), _OUTSIDE, judged_levels.dtype)
    to_run = _inverse(to_judged, n_docs)
    found: tuple[Counts, Places, Levels, Counts] = _judged_hits(
        queries,
        offsets,
        rows,
        judged,
        judged_offsets,
        judged_rows,
        judged_levels,
        to_run,
        level_of,
        depth,
    )
    return found


@compiled
def only_judged(
    offsets: Counts, places: Places, levels: Levels
) -> tuple[Counts, Places, Levels, Counts]:
    """Rankings of the hits that have a verdict, as if there were no others.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.

    Returns:
        What `judge` returns, of these rankings: offsets int64 ``(nq + 1,)``, places int32
        ``(m,)``, levels ``(m,)`` and numbers of hits int64 ``(nq,)``.
    """
    out = np.zeros_like(offsets)
    moved = np.empty_like(places)
    kept = np.empty_like(levels)
    n = 0
    for q in range(len(offsets) - 1):
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= ZERO:
                moved[n] = n - out[q]
                kept[n] = levels[i]
                n += 1
        out[q + 1] = n
    return out, moved[:n].copy(), kept[:n].copy(), out[1:] - out[:-1]


@compiled
def levels_within(
    judged: NDArray[np.int32],
    judged_offsets: Counts,
    judged_levels: Levels,
    low: int,
    high: int,
) -> Counts:
    """How many judgements of each query have a level from `low` up to, but without, `high`.

    Args:
        judged: int32 ``(nq,)``, rows of the queries in the judgements.
        judged_offsets: int64 ``(judged queries + 1,)``.
        judged_levels: uint8 or int32 ``(judgements,)``, from `to_levels`.
        low: The lowest level that counts.
        high: The lowest level above `low` that does not.

    Returns:
        int64 ``(nq,)``.
    """
    out = np.zeros(len(judged), np.int64)
    for q in range(len(judged)):
        for j in range(judged_offsets[judged[q]], judged_offsets[judged[q] + 1]):
            if low <= judged_levels[j] < high:
                out[q] += 1
    return out


@compiled
def count_from(offsets: Counts, places: Places, levels: Levels, low: int, tops: Counts) -> Counts:
    """How many of the first hits of each query have at least a level.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        low: The lowest level that counts.
        tops: int64 ``(nq,)``, how many hits to look at.

    Returns:
        int64 ``(nq,)``.
    """
    out = np.zeros(len(tops), np.int64)
    for q in range(len(tops)):
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= low and places[i] < tops[q]:
                out[q] += 1
    return out


@compiled
def reciprocal_rank(
    offsets: Counts, places: Places, levels: Levels, low: int, tops: Counts
) -> Values:
    """One over the rank of the first relevant hit, 0 where none is.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        low: The lowest relevant level.
        tops: int64 ``(nq,)``, how many hits to look at.

    Returns:
        float64 ``(nq,)``.
    """
    out = np.zeros(len(tops), np.float64)
    for q in range(len(tops)):
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= low and places[i] < tops[q]:
                out[q] = 1.0 / (places[i] + 1)
                break
    return out


@compiled
def average_precision(
    offsets: Counts, places: Places, levels: Levels, low: int, n_rel: Counts, tops: Counts
) -> Values:
    """The precisions at the relevant hits, summed and divided by all relevant documents.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        low: The lowest relevant level.
        n_rel: int64 ``(nq,)``, relevant documents of each query.
        tops: int64 ``(nq,)``, how many hits to look at.

    Returns:
        float64 ``(nq,)``; 0 where nothing is relevant.
    """
    out = np.zeros(len(tops), np.float64)
    for q in range(len(tops)):
        found = 0
        total = 0.0
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= low and places[i] < tops[q]:
                found += 1
                total += found / (places[i] + 1)
        if n_rel[q] > 0:
            out[q] = total / n_rel[q]
    return out


@compiled
def discounted_gain(
    offsets: Counts,
    places: Places,
    levels: Levels,
    gains: Values,
    tops: Counts,
) -> Values:
    """Discounted cumulative gain: the sum of gain / log2(rank + 1).

    Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, with the
    discount of trec_eval.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        gains: float64 ``(m,)``, the gain of level `ZERO` and of those above it.
        tops: int64 ``(nq,)``, how many hits to look at.

    Returns:
        float64 ``(nq,)``.
    """
    out = np.zeros(len(tops), np.float64)
    for q in range(len(tops)):
        total = 0.0
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= ZERO and places[i] < tops[q]:
                gain = gains[levels[i] - ZERO]
                if gain != 0.0:
                    total += gain / math.log2(places[i] + 2.0)
        out[q] = total
    return out


@compiled
def ideal_gain(
    judged: NDArray[np.int32],
    judged_offsets: Counts,
    judged_levels: Levels,
    gains: Values,
    best_first: NDArray[np.int64],
    tops: Counts,
) -> Values:
    """Discounted cumulative gain of the best ranking there could be.

    Args:
        judged: int32 ``(nq,)``, rows of the queries in the judgements.
        judged_offsets: int64 ``(judged queries + 1,)``.
        judged_levels: uint8 or int32 ``(judgements,)``, from `to_levels`.
        gains: float64 ``(m,)``, the gain of level `ZERO` and of those above it.
        best_first: int64 ``(k,)``, where in `gains` the positive ones are, the largest first.
        tops: int64 ``(nq,)``, how many hits the ranking has.

    Returns:
        float64 ``(nq,)``.
    """
    counts = np.zeros(len(gains), np.int64)
    out = np.zeros(len(tops), np.float64)
    for q in range(len(tops)):
        first, last = judged_offsets[judged[q]], judged_offsets[judged[q] + 1]
        for j in range(first, last):
            if judged_levels[j] >= ZERO:
                counts[judged_levels[j] - ZERO] += 1
        total = 0.0
        place = 0
        most = min(last - first, tops[q])
        for level in best_first:
            for _ in range(min(counts[level], most - place)):
                total += gains[level] / math.log2(place + 2.0)
                place += 1
            if place == most:
                break
        out[q] = total
        for j in range(first, last):
            if judged_levels[j] >= ZERO:
                counts[judged_levels[j] - ZERO] = 0
    return out


@compiled
def binary_preference(
    offsets: Counts, levels: Levels, low: int, n_rel: Counts, n_nonrel: Counts
) -> Values:
    """How seldom judged non-relevant documents stand before relevant ones.

    Buckley and Voorhees, "Retrieval evaluation with incomplete information", SIGIR 2004, in
    trec_eval's form: each relevant hit gives 1 - min(non-relevant before it, R) / min(N, R),
    summed and divided by R.

    Args:
        offsets: int64 ``(nq + 1,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        low: The lowest relevant level.
        n_rel: int64 ``(nq,)``, relevant documents R of each query.
        n_nonrel: int64 ``(nq,)``, documents judged not relevant, N.

    Returns:
        float64 ``(nq,)``; 0 where nothing is relevant.
    """
    out = np.zeros(len(n_rel), np.float64)
    for q in range(len(n_rel)):
        before = 0
        total = 0.0
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= low:
                total += 1.0
                if before > 0:
                    total -= min(before, n_rel[q]) / min(n_nonrel[q], n_rel[q])
            elif levels[i] >= ZERO:
                before += 1
        if n_rel[q] > 0:
            out[q] = total / n_rel[q]
    return out


@compiled
def inferred_precision(
    offsets: Counts, places: Places, levels: Levels, low: int, n_rel: Counts
) -> Values:
    """Average precision inferred from a judged sample of the pool.

    Yilmaz and Aslam, "Estimating average precision with incomplete and imperfect judgments", CIKM
    2006. Documents of negative grade are in the pool but were not sampled.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        low: The lowest relevant level.
        n_rel: int64 ``(nq,)``, relevant documents of each query.

    Returns:
        float64 ``(nq,)``; 0 where nothing is relevant.
    """
    out = np.zeros(len(n_rel), np.float64)
    for q in range(len(n_rel)):
        found = 0
        other = 0
        unsampled = 0
        total = 0.0
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] < ZERO:
                unsampled += 1
            elif levels[i] < low:
                other += 1
            else:
                before = float(places[i])
                total += 1.0 / (before + 1.0)
                if before > 0:
                    pooled = (found + other + unsampled) / before
                    precision = (found + _INFAP_EPSILON) / (found + other + 2 * _INFAP_EPSILON)
                    total += before / (before + 1.0) * pooled * precision
                found += 1
        if n_rel[q] > 0:
            out[q] = total / n_rel[q]
    return out


@compiled
def interpolated_precision(
    offsets: Counts, places: Places, levels: Levels, low: int, needed: Counts
) -> Values:
    """The best precision at any rank by which a number of relevant documents is reached.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        low: The lowest relevant level.
        needed: int64 ``(nq,)``, how many relevant documents are to be reached.

    Returns:
        float64 ``(nq,)``; 0 where they are not reached.
    """
    out = np.zeros(len(needed), np.float64)
    for q in range(len(needed)):
        found = 0
        best = 0.0
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= low:
                found += 1
                # Between two relevant hits precision only falls, so looking at these is enough.
                if found >= needed[q]:
                    best = max(best, found / (places[i] + 1))
        out[q] = best
    return out


@compiled
def rank_biased_precision(
    offsets: Counts, places: Places, levels: Levels, low: int, p: float, tops: Counts
) -> Values:
    """What a reader who goes on to the next hit with probability p gains per hit looked at.

    Moffat and Zobel, "Rank-biased precision for measurement of retrieval effectiveness", TOIS 2008:
    (1 - p) times the sum of p^(rank - 1) over relevant hits.

    Args:
        offsets: int64 ``(nq + 1,)``.
        places: int32 ``(judged hits,)``.
        levels: uint8 or int32 ``(judged hits,)``.
        low: The lowest relevant level.
        p: Probability of going on, between 0 and 1.
        tops: int64 ``(nq,)``, how many hits to look at.

    Returns:
        float64 ``(nq,)``.
    """
    out = np.zeros(len(tops), np.float64)
    for q in range(len(tops)):
        total = 0.0
        for i in range(offsets[q], offsets[q + 1]):
            if levels[i] >= low and places[i] < tops[q]:
                total += p ** places[i]
        out[q] = (1.0 - p) * total
    return out
