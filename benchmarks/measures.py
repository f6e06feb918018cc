"""How fast a large run is measured, next to pytrec_eval, and whether both say the same.

    python benchmarks/measures.py            # 10,000 queries of 1,000 hits: times and their ratio
    python benchmarks/measures.py --check    # 1,000 random runs with heavy ties: largest difference

Timed is CPU time of one process. Ours starts from `Run` and `Qrels` objects that were never used
before, so it includes the translation of document ids, the largest part of its work. pytrec_eval
starts from the dictionaries it needs, ready made; making them is not timed. Both compute the same
three measures of every query.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytrec_eval

from retrievekit.evaluate.compute import evaluate
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run

MEASURES = {"nDCG@10": "ndcg_cut_10", "AP": "map", "R@100": "recall_100"}
ASKED = {"ndcg_cut.10", "map", "recall.100"}
CHECKED = {
    "nDCG": "ndcg",
    "nDCG@10": "ndcg_cut_10",
    "AP": "map",
    "AP@10": "map_cut_10",
    "R@10": "recall_10",
    "P@10": "P_10",
    "RR": "recip_rank",
    "Rprec": "Rprec",
    "Bpref": "bpref",
    "infAP": "infAP",
    "Success@10": "success_10",
    "SetP": "set_P",
    "SetR": "set_recall",
    "SetF": "set_F",
    "SetAP": "set_map",
}


def copied(ids: Ids) -> Ids:
    """The same ids as an object that has computed nothing yet."""
    return Ids(ids.data.copy(), ids.offsets.copy())


def fresh(run: Run, qrels: Qrels) -> tuple[Run, Qrels]:
    """The same run and judgements, without any lookup cached from before."""
    queries = Queries(copied(run.queries.ids), None)
    return (
        Run(queries, copied(run.docs), run.offsets, run.rows, run.scores),
        Qrels(copied(qrels.queries), copied(qrels.docs), qrels.offsets, qrels.rows, qrels.grades),
    )


def made(n_queries: int, n_hits: int, n_docs: int, n_judged: int) -> tuple[Run, Qrels]:
    """A random run, and judgements of which about half are among its hits."""
    rng = np.random.default_rng(7)
    docs = Ids.from_strings(f"doc{number}" for number in range(n_docs))
    names = Ids.from_strings(f"q{number}" for number in range(n_queries))
    step = n_docs // n_hits
    places = rng.integers(0, n_docs, (n_queries, 1)) + np.arange(n_hits) * step
    rows = rng.permuted(places % n_docs, axis=1)
    scores = rng.gamma(2.0, 3.0, (n_queries, n_hits)).astype(np.float32)
    offsets = np.arange(n_queries + 1) * n_hits
    run = Run.from_arrays(Queries(names, None), docs, offsets, rows.ravel(), scores.ravel())
    found = run.rows.reshape(n_queries, n_hits)[:, : n_hits // 2]
    judged = rng.permuted(found, axis=1)[:, : n_judged // 2]
    others = (judged + 1 + rng.integers(0, step - 1, judged.shape)) % n_docs
    both = np.concatenate([judged, others], axis=1)
    grades = rng.choice([0, 0, 1, 1, 2, 3], both.size)
    bounds = np.arange(n_queries + 1) * both.shape[1]
    # As when read from a file: other ids, in an order of their own, of the judged documents alone.
    distinct, rows = np.unique(both.ravel(), return_inverse=True)
    order = rng.permutation(len(distinct))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    judged_docs = docs.take(distinct[order])
    return run, Qrels.from_arrays(names, judged_docs, bounds, place[rows], grades)


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.process_time()
    out = work()
    return time.process_time() - start, out


def speed(n_queries: int, n_hits: int, n_docs: int) -> int:
    run, qrels = made(n_queries, n_hits, n_docs=n_docs, n_judged=40)
    small = made(2, 10, n_docs=100, n_judged=4)
    evaluate(*small, list(MEASURES))  # compiles
    ours = []
    for _ in range(5):
        pair = fresh(run, qrels)
        seconds, found = cpu_seconds(lambda pair=pair: evaluate(*pair, list(MEASURES)))
        ours.append(seconds)
    hits, grades = run.to_dict(), qrels.to_dict()
    evaluator = pytrec_eval.RelevanceEvaluator(grades, ASKED)
    theirs, expected = cpu_seconds(lambda: evaluator.evaluate(hits))
    worst = max(
        abs(found.per_query(measure)[query] - part[name])
        for measure, name in MEASURES.items()
        for query, part in expected.items()
    )
    median = sorted(ours)[len(ours) // 2]
    print(f"{n_queries:,} queries x {n_hits:,} hits, {n_docs:,} documents, {', '.join(MEASURES)}")
    print(f"retrievekit  {median:8.3f} s CPU (median of 5; {min(ours):.3f} to {max(ours):.3f})")
    print(f"pytrec_eval  {theirs:8.3f} s CPU")
    print(f"ratio        {theirs / median:8.1f}")
    print(f"largest difference of {len(expected) * len(MEASURES):,} values: {worst:.1e}")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}")
    return 0 if worst < 1e-9 else 1


def check(n_runs: int) -> int:
    rng = np.random.default_rng(11)
    pool = [f"{prefix}{number}" for prefix in ("d", "D1", "é", "文") for number in range(50)]
    asked = {name.replace("_cut_", "_cut.") for name in CHECKED.values()}
    asked = {n.replace("P_10", "P.10") if n == "P_10" else n for n in asked}
    asked = {n.replace("recall_10", "recall.10").replace("success_", "success.") for n in asked}
    worst = 0.0
    for _ in range(n_runs):
        hits: dict[str, dict[str, float]] = {}
        grades: dict[str, dict[str, int]] = {}
        for query in range(int(rng.integers(1, 8))):
            docs = rng.permutation(pool)[: int(rng.integers(1, len(pool)))].tolist()
            scores = (rng.integers(-3, 4, len(docs)) / 8).tolist()
            hits[f"q{query}"] = dict(zip(docs, scores, strict=True))
            judged = rng.permutation(pool)[: int(rng.integers(1, 60))].tolist()
            given = rng.choice([-1, 0, 0, 0, 1, 2, 3], len(judged)).tolist()
            given[0] = max(0, given[0])  # pytrec_eval reads past its arrays without any
            grades[f"q{query}"] = dict(zip(judged, given, strict=True))
        expected = pytrec_eval.RelevanceEvaluator(grades, asked).evaluate(hits)
        found = evaluate(Run.from_dict(hits), Qrels.from_dict(grades), list(CHECKED))
        for measure, name in CHECKED.items():
            for query, value in found.per_query(measure).items():
                worst = max(worst, abs(value - expected[query][name]))
    print(f"{n_runs:,} random runs with heavy ties, {len(CHECKED)} measures")
    print(f"largest difference from pytrec_eval: {worst:.1e}")
    return 0 if worst < 1e-9 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare values instead of times")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--hits", type=int, default=1_000)
    parser.add_argument("--docs", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=1_000, help="random runs of --check")
    given = parser.parse_args()
    return check(given.runs) if given.check else speed(given.queries, given.hits, given.docs)


if __name__ == "__main__":
    sys.exit(main())
