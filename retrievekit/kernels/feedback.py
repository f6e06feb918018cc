"""Queries moved by the vectors and the terms of their hits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled

LEAST_NORM = np.float32(0.001)
"""Documents whose vector is not longer than this tell nothing."""


@compiled
def moved(
    vectors: NDArray[np.float32],
    cuts: NDArray[np.int64],
    rows: NDArray[np.int64],
    weights: NDArray[np.float64],
    queries: NDArray[np.float32],
    shares: NDArray[np.float64],
    unit: bool,
    out: NDArray[np.float32],
) -> None:
    """Each query's vector times its share, plus the weighted vectors of its hits.

    Sums are taken in float64 and in the order of the hits, so that a query's answer depends on
    nothing else.

    Args:
        vectors: float32 ``(n, d)``.
        cuts: int64 ``(nq + 1,)``, where the hits of each query begin and end.
        rows: int64 ``(hits,)``, rows of `vectors`.
        weights: float64 ``(hits,)``.
        queries: float32 ``(nq, d)``.
        shares: float64 ``(nq,)``.
        unit: Whether what comes out is of length 1 (or 0).
        out: float32 ``(nq, d)``, written.
    """
    d = queries.shape[1]
    total = np.empty(d, np.float64)
    for q in range(len(shares)):
        for j in range(d):
            total[j] = shares[q] * queries[q, j]
        p, stop = cuts[q], cuts[q + 1]
        # Five rows at a time: the processor fetches them side by side, and sums stay in registers.
        while p + 5 <= stop:
            a, b, c, e, f = rows[p], rows[p + 1], rows[p + 2], rows[p + 3], rows[p + 4]
            u, v, w = weights[p], weights[p + 1], weights[p + 2]
            x, y = weights[p + 3], weights[p + 4]
            for j in range(d):
                total[j] += (
                    u * vectors[a, j]
                    + v * vectors[b, j]
                    + w * vectors[c, j]
                    + x * vectors[e, j]
                    + y * vectors[f, j]
                )
            p += 5
        while p < stop:
            row, weight = rows[p], weights[p]
            for j in range(d):
                total[j] += weight * vectors[row, j]
            p += 1
        scale = 1.0
        if unit:
            # Four sums, since each addition waits for the one before it.
            s0 = s1 = s2 = s3 = 0.0
            for j in range(0, d - 3, 4):
                s0 += total[j] * total[j]
                s1 += total[j + 1] * total[j + 1]
                s2 += total[j + 2] * total[j + 2]
                s3 += total[j + 3] * total[j + 3]
            for j in range(d // 4 * 4, d):
                s0 += total[j] * total[j]
            squares = (s0 + s1) + (s2 + s3)
            if squares > 0:
                scale = 1 / np.sqrt(squares)
        for j in range(d):
            out[q, j] = np.float32(total[j] * scale)


@compiled
def heaviest(
    terms: NDArray[np.int32],
    weights: NDArray[np.float32],
    n: int,
    keep: int,
    out_terms: NDArray[np.int32],
    out_weights: NDArray[np.float32],
) -> int:
    """The terms that weigh most, of equal ones those with the smaller number.

    Args:
        terms: int32 ``(m,)``, distinct.
        weights: float32 ``(m,)``.
        n: How many of them there are, the first ones.
        keep: How many are wanted, at least 1.
        out_terms: int32 ``(keep,)`` or longer, written, heaviest first.
        out_weights: float32 ``(keep,)`` or longer, written.

    Returns:
        How many were written.
    """
    found = 0
    for i in range(n):
        term, weight = terms[i], weights[i]
        if found == keep:
            last = out_weights[keep - 1]
            if weight < last or (weight == last and term > out_terms[keep - 1]):
                continue
            found -= 1
        place = found
        while place > 0 and (
            out_weights[place - 1] < weight
            or (out_weights[place - 1] == weight and out_terms[place - 1] > term)
        ):
            out_terms[place] = out_terms[place - 1]
            out_weights[place] = out_weights[place - 1]
            place -= 1
        out_terms[place], out_weights[place] = term, weight
        found += 1
    return found


@compiled
def term_models(
    cuts: NDArray[np.int64],
    docs: NDArray[np.int64],
    scores: NDArray[np.float32],
    offsets: NDArray[np.int64],
    terms: NDArray[np.int32],
    values: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    per_document: int,
    power: int,
    mean: bool,
    keep: int,
    out_terms: NDArray[np.int32],
    out_weights: NDArray[np.float32],
    counts: NDArray[np.int64],
) -> None:
    """The heaviest terms of each query's documents, as RM3 and Rocchio weigh them.

    Each document's values are divided by its norm and multiplied by its score; sums are float32, in
    the order of the documents, and what is kept is scaled to norm 1.

    Args:
        cuts: int64 ``(nq + 1,)``, where the documents of each query begin and end.
        docs: int64 ``(pairs,)``, documents below ``len(offsets) - 1``.
        scores: float32 ``(pairs,)``, what each document weighs.
        offsets: int64 ``(documents + 1,)``, where the terms of each document begin and end.
        terms: int32 ``(nnz,)``, numbers of terms below ``len(allowed)``.
        values: float32 ``(nnz,)``.
        allowed: bool ``(vocabulary,)``, terms that may be used.
        per_document: Terms that are looked at in each document, its heaviest; 0 for all.
        power: 1 or 2, which norm.
        mean: Whether sums are divided by the number of documents.
        keep: Terms kept for each query, at least 1.
        out_terms: int32 ``(nq, keep)``, written, heaviest first.
        out_weights: float32 ``(nq, keep)``, written.
        counts: int64 ``(nq,)``, written: terms of each query.
    """
    totals = np.zeros(len(allowed), np.float32)
    seen = np.zeros(len(allowed), np.bool_)
    touched = np.empty(len(allowed), np.int32)
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    own_terms = np.empty(longest, np.int32)
    own_values = np.empty(longest, np.float32)
    best_terms = np.empty(max(per_document, 1), np.int32)
    best_values = np.empty(max(per_document, 1), np.float32)
    sums = np.empty(len(allowed), np.float32)
    for q in range(len(cuts) - 1):
        n_touched = 0
        for p in range(cuts[q], cuts[q + 1]):
            n = 0
            for i in range(offsets[docs[p]], offsets[docs[p] + 1]):
                if allowed[terms[i]]:
                    own_terms[n], own_values[n] = terms[i], values[i]
                    n += 1
            used_terms, used_values = own_terms, own_values
            if per_document > 0:
                n = heaviest(own_terms, own_values, n, per_document, best_terms, best_values)
                used_terms, used_values = best_terms, best_values
            length = 0.0
            for i in range(n):
                value = np.float64(used_values[i])
                length += value * value if power == 2 else abs(value)
            norm = np.float32(np.sqrt(length) if power == 2 else length)
            if norm <= LEAST_NORM:
                continue
            for i in range(n):
                term = used_terms[i]
                if not seen[term]:
                    seen[term] = True
                    touched[n_touched] = term
                    n_touched += 1
                totals[term] += np.float32(np.float32(used_values[i] / norm) * scores[p])
        divisor = np.float32(cuts[q + 1] - cuts[q] if mean else 1)
        for i in range(n_touched):
            term = touched[i]
            sums[i] = totals[term] / divisor
            totals[term] = 0
            seen[term] = False
        kept = heaviest(touched, sums, n_touched, keep, out_terms[q], out_weights[q])
        length = 0.0
        for i in range(kept):
            value = np.float64(out_weights[q, i])
            length += value * value if power == 2 else abs(value)
        norm_kept = np.sqrt(length) if power == 2 else length
        if norm_kept == 0:
            kept = 0
        for i in range(kept):
            out_weights[q, i] = np.float32(out_weights[q, i] / norm_kept)
        counts[q] = kept
