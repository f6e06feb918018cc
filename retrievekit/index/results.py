"""From padded arrays of hits to a `Run`, and from one thread to several."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from retrievekit.ids import Ids
from retrievekit.queries import Queries
from retrievekit.run import Run


def in_parts(work: Callable[[int, int], None], n: int, threads: int | None) -> None:
    """Call ``work(first, last)`` over consecutive parts of n items, one part per thread.

    Args:
        work: Releases the interpreter lock.
        n: Items.
        threads: Threads at most; all cores by default.
    """
    threads = min(threads or os.cpu_count() or 1, max(n, 1))
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
