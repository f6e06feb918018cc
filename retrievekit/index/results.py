"""From padded arrays of hits to a `Run`, and from one thread to several."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.ids import Ids
from retrievekit.queries import Queries
from retrievekit.run import Run

MAX_SCORE = float(np.finfo(np.float32).max) / 2
"""A bound on scores below which no sum in float32 overflows, roundings included."""


def check_k(k: int) -> None:
    """Raise when k is no number of hits.

    Args:
        k: Hits per query.

    Raises:
        DataError: It is no whole number of at least 1.
    """
    whole = isinstance(k, (int, np.integer)) and not isinstance(k, bool)
    if not whole or k < 1:
        raise DataError(f"k is {k!r}; a search gives a whole number of hits, at least 1 per query")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parts(work: Callable[[int, int], None], n: int, threads: int | None) -> None:
    """Call ``work(first, last)`` over consecutive parts of n items, one part per thread.

    Args:
        work: Releases the interpreter lock.
        n: Items.
        threads: Threads at most; by default as many as cores this process may use.

    Raises:
        DataError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise DataError(f"threads is {threads}; give at least 1, or None for all cores")
    threads = min(threads or _cores(), max(n, 1))
    if threads == 1:
        work(0, n)
        return
    edges = np.linspace(0, n, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


def run_of(
    queries: Queries,
    ids: Ids,
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
    counts: NDArray[np.int64],
) -> Run:
    """A run from padded results that are in order already.

    Args:
        queries: The queries.
        ids: The documents' ids.
        rows: int32 ``(nq, k)``.
        scores: float32 ``(nq, k)``.
        counts: int64 ``(nq,)``, hits of each query.

    Returns:
        The run.
    """
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    inside = np.arange(rows.shape[1]) < counts[:, None]
    return Run(queries, ids, offsets, rows[inside], scores[inside], trace=queries.trace)
