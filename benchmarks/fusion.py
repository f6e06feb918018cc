"""Fusing two runs of 1,000 queries x 1,000 hits: compiled columns against plain dictionaries.

The baseline is what toolkits without columns do, written as plainly as Python allows: runs are
``{query_id: {doc_id: score}}``, each arm is ranked, reciprocal ranks are added up in a dictionary,
and the fused hits are sorted by score, then id, downwards. A second baseline trusts the order of
its dictionaries. Both sides start from their own form of the runs in memory and end with ranked
hits; that they agree is checked. CPU time of one process, best of several.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from retrievekit import Ids, Queries, Run
from retrievekit._version import __version__
from retrievekit.fuse import fuse_runs

QUERIES, HITS, DOCS, K = 1000, 1000, 20_000, 60
Dicts = dict[str, dict[str, float]]


def made_up_run(rng: np.random.Generator, docs: Ids, queries: Queries) -> Run:
    rows = np.concatenate([rng.choice(DOCS, HITS, replace=False) for _ in range(QUERIES)])
    return Run.from_arrays(
        queries, docs, np.arange(QUERIES + 1) * HITS, rows, rng.random(len(rows))
    )


def dict_of_dicts(runs: list[Dicts], k: int) -> Dicts:
    fused: Dicts = {}
    for query_id in runs[0]:
        sums: dict[str, float] = {}
        for run in runs:
            ranked = sorted(run[query_id].items(), key=lambda hit: (hit[1], hit[0]), reverse=True)
            for rank, (doc_id, _) in enumerate(ranked, 1):
                sums[doc_id] = sums.get(doc_id, 0.0) + 1 / (k + rank)
        fused[query_id] = dict(sorted(sums.items(), key=lambda hit: (hit[1], hit[0]), reverse=True))
    return fused


def dict_of_dicts_presorted(runs: list[Dicts], k: int) -> Dicts:
    """As above, but trusts that each dictionary is in rank order already."""
    fused: Dicts = {}
    for query_id in runs[0]:
        sums: dict[str, float] = {}
        for run in runs:
            for rank, doc_id in enumerate(run[query_id], 1):
                sums[doc_id] = sums.get(doc_id, 0.0) + 1 / (k + rank)
        fused[query_id] = dict(sorted(sums.items(), key=lambda hit: (hit[1], hit[0]), reverse=True))
    return fused


def best_of(times: int, work: Callable[[], Any]) -> tuple[float, Any]:
    best, out = float("inf"), None
    for _ in range(times):
        start = time.process_time()
        out = work()
        best = min(best, time.process_time() - start)
    return best, out


def main() -> None:
    rng = np.random.default_rng(7)
    docs = Ids.from_strings(f"d{number}" for number in range(DOCS))
    queries = Queries.from_texts({f"q{number}": "" for number in range(QUERIES)})
    runs = [made_up_run(rng, docs, queries) for _ in range(2)]
    as_dicts = [run.to_dict() for run in runs]
    fuse_runs([run.take(np.arange(2)) for run in runs])  # compiles

    ours, fused = best_of(5, lambda: fuse_runs(runs))
    plain, expected = best_of(3, lambda: dict_of_dicts(as_dicts, K))
    presorted, _ = best_of(3, lambda: dict_of_dicts_presorted(as_dicts, K))

    # float32 makes ties of sums that differ in the last digits of a double: compare by score.
    for query_id, hits in fused.to_dict().items():
        wanted = expected[query_id]
        if hits.keys() != wanted.keys():
            raise SystemExit(f"query {query_id}: other documents than the baseline")
        for doc_id, score in hits.items():
            if abs(score - wanted[doc_id]) > 1e-7:
                raise SystemExit(f"query {query_id}, document {doc_id}: {score}")

    print(f"rrf of 2 runs, {QUERIES} queries x {HITS} hits each, {fused.n_hits} hits out")
    print(f"retrievekit {__version__}            {ours:8.3f} s CPU")
    print(f"dict of dicts              {plain:8.3f} s CPU   {plain / ours:6.1f} times as long")
    print(
        f"dict of dicts, presorted   {presorted:8.3f} s CPU   {presorted / ours:6.1f} times as long"
    )
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    if plain / ours < 10 or presorted / ours < 10:
        sys.exit("below the goal: 10 times")


if __name__ == "__main__":
    main()
