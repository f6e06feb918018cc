"""Exhaustive scoring over an inverted index, term at a time, exactly.

A posting is a row and a code; `impacts` turns the code into the part of the score that does not
depend on the term, so one posting adds ``weight * impacts[code]`` to its row's accumulator. Rows
are taken in ranges that fit the cache. Terms are added in the order given, which callers keep
canonical, so that float32 sums do not depend on how the index came to be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.chosen import reach
from retrievekit.kernels.compiling import compiled
from retrievekit.kernels.select import BUCKETS, CHUNK, collect

RANGE = 1 << 17
"""Rows that are accumulated at a time: 512 KiB of float32."""

SCANNED = 32
"""Postings for each allowed row up to which reading all is quicker than looking for the rows."""


@compiled
def search_postings(
    rows: NDArray[np.int32],
    codes: NDArray[np.unsignedinteger],
    impacts: NDArray[np.float32],
    query_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    weights: NDArray[np.float32],
    ranks: NDArray[np.int32],
    dead: NDArray[np.bool_],
    k: int,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> None:
    """Merge the documents of one segment into the k best of each query, in the total order.

    Args:
        rows: int32 ``(postings,)``, ascending within a term.
        codes: uint16 or uint32 ``(postings,)``.
        impacts: float32 ``(codes,)``.
        query_offsets: int64 ``(nq + 1,)`` into the three arrays below.
        starts: int64 ``(terms,)``, first posting of each query term.
        stops: int64 ``(terms,)``, the posting after its last.
        weights: float32 ``(terms,)``.
        ranks: int32 ``(documents,)``, by row the rank of its id among all live documents.
        dead: bool ``(documents,)`` of rows that cannot be hits, or ``(0,)`` when none is hidden.
        k: Hits per query, at least 1.
        keys: uint64 ``(nq, k)``, the best keys of the segments before, falling; updated.
        counts: int64 ``(nq,)``, how many keys each query has; updated. Documents that hold no
            query term are no hits.
    """
    n = len(ranks)
    width = min(n, RANGE)
    scores = np.empty(width, np.float32)
    maxima = np.empty(width // CHUNK + 1, np.float32)
    histogram = np.empty(BUCKETS, np.int64)
    found = np.empty(k + width, np.uint64)
    float_scratch = np.empty(1, np.float32)
    most = 0
    for q in range(len(query_offsets) - 1):
        most = max(most, query_offsets[q + 1] - query_offsets[q])
    cursors = np.empty(most, np.int64)
    nothing = np.float32(-np.inf)
    for q in range(len(query_offsets) - 1):
        base = query_offsets[q]
        terms = query_offsets[q + 1] - base
        for t in range(terms):
            cursors[t] = starts[base + t]
        n_found = counts[q]
        found[:n_found] = keys[q, :n_found]
        for first in range(0, n, RANGE):
            size = min(RANGE, n - first)
            last = first + size
            scores[:size] = nothing
            touched = False
            for t in range(terms):
                weight = weights[base + t]
                p = cursors[t]
                stop = stops[base + t]
                while p < stop and rows[p] < last:
                    i = rows[p] - first
                    part = weight * impacts[codes[p]]
                    if scores[i] == nothing:
                        scores[i] = part
                    else:
                        scores[i] += part
                    p += 1
                touched = touched or p > cursors[t]
                cursors[t] = p
            if not touched:
                continue
            if len(dead):
                for i in range(size):
                    if dead[first + i]:
                        scores[i] = nothing
            n_found = collect(
                scores, size, first, ranks, k, found, n_found, maxima, histogram, float_scratch
            )
        keys[q, :n_found] = found[:n_found]
        counts[q] = n_found


@compiled
def search_among(
    rows: NDArray[np.int32],
    codes: NDArray[np.unsignedinteger],
    impacts: NDArray[np.float32],
    query_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    weights: NDArray[np.float32],
    ranks: NDArray[np.int32],
    allowed_starts: NDArray[np.int64],
    allowed_stops: NDArray[np.int64],
    allowed: NDArray[np.int32],
    k: int,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> None:
    """As `search_postings`, among the rows that each query may have.

    A term's postings are read one by one where they are not many more than the rows, else each row
    is looked for among them. Parts of a score are added in the same order as there, so that the
    scores are the same.

    Args:
        rows: int32 ``(postings,)``, ascending within a term.
        codes: uint16 or uint32 ``(postings,)``.
        impacts: float32 ``(codes,)``.
        query_offsets: int64 ``(nq + 1,)`` into the three arrays below.
        starts: int64 ``(terms,)``, first posting of each query term.
        stops: int64 ``(terms,)``, the posting after its last.
        weights: float32 ``(terms,)``.
        ranks: int32 ``(documents,)``, by row the rank of its id among all live documents.
        allowed_starts: int64 ``(nq,)``, where each query's rows begin in the array below.
        allowed_stops: int64 ``(nq,)``, where they end.
        allowed: int32 ``(pairs,)``, live rows, ascending within a query.
        k: Hits per query, at least 1.
        keys: uint64 ``(nq, k)``, the best keys of the segments before, falling; updated.
        counts: int64 ``(nq,)``, how many keys each query has; updated.
    """
    most = terms = 0
    for q in range(len(counts)):
        most = max(most, allowed_stops[q] - allowed_starts[q])
        terms = max(terms, query_offsets[q + 1] - query_offsets[q])
    scores = np.empty(most, np.float32)
    own_ranks = np.empty(most, np.int32)
    number = np.zeros(min(len(ranks), RANGE), np.int32)
    cursors = np.empty(terms, np.int64)
    maxima = np.empty(most // CHUNK + 1, np.float32)
    histogram = np.empty(BUCKETS, np.int64)
    found = np.empty(k + most, np.uint64)
    float_scratch = np.empty(1, np.float32)
    nothing = np.float32(-np.inf)
    for q in range(len(counts)):
        own = allowed[allowed_starts[q] : allowed_stops[q]]
        n = len(own)
        scores[:n] = nothing
        base = query_offsets[q]
        terms = query_offsets[q + 1] - base
        for t in range(terms):
            cursors[t] = starts[base + t]
        i_first = 0
        while i_first < n:
            first = own[i_first] // RANGE * RANGE
            i_last = reach(own, i_first, n, first + RANGE)
            for i in range(i_first, i_last):
                number[own[i] - first] = i + 1
            for t in range(terms):
                weight = weights[base + t]
                p = reach(rows, cursors[t], stops[base + t], own[i_first])
                stop = reach(rows, p, stops[base + t], own[i_last - 1] + 1)
                cursors[t] = stop
                if stop - p <= SCANNED * (i_last - i_first):
                    while p < stop:
                        i = number[rows[p] - first] - 1
                        if i >= 0:
                            part = weight * impacts[codes[p]]
                            scores[i] = part if scores[i] == nothing else scores[i] + part
                        p += 1
                else:
                    for i in range(i_first, i_last):
                        p = reach(rows, p, stop, own[i])
                        if p < stop and rows[p] == own[i]:
                            part = weight * impacts[codes[p]]
                            scores[i] = part if scores[i] == nothing else scores[i] + part
            for i in range(i_first, i_last):
                number[own[i] - first] = 0
            i_first = i_last
        for i in range(n):
            own_ranks[i] = ranks[own[i]]
        n_found = counts[q]
        found[:n_found] = keys[q, :n_found]
        n_found = collect(
            scores, n, 0, own_ranks, k, found, n_found, maxima, histogram, float_scratch
        )
        keys[q, :n_found] = found[:n_found]
        counts[q] = n_found


@compiled
def count_dead(
    rows: NDArray[np.int32],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    dead: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """How many postings of each term are of deleted documents.

    Args:
        rows: int32 ``(postings,)``.
        starts: int64 ``(terms,)``, first posting of each term.
        stops: int64 ``(terms,)``, the posting after its last.
        dead: bool ``(documents,)``.

    Returns:
        int64 ``(terms,)``.
    """
    out = np.zeros(len(starts), np.int64)
    for t in range(len(starts)):
        for p in range(starts[t], stops[t]):
            out[t] += dead[rows[p]]
    return out
