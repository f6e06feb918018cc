"""Anserini's ranking and time beside ours: BM25 on real text, with the differences in full.

    python benchmarks/lucene.py [beir/scifact beir/nfcorpus ...] [-k 1000] [--rounds 3]

Both index the same documents (title and text) with k1 = 0.9 and b = 0.4 and answer the same
queries on one core; the best of some rounds counts, after one that is not timed. Rankings are
compared place by place and document by document: they are to be equal but for ties, with scores
within 1e-3. Lucene's time includes carrying the hits over from Java. Needs the extra ``lucene``;
without it the program says so and ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import retrievekit as rk

TOLERANCE = 1e-3


def best_of(rounds: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest of some calls, and what the last one gave; a first one warms up."""
    out = work()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        out = work()
        times.append(time.perf_counter() - begin)
    return min(times), out


def measured(
    build: Callable[[rk.Corpus], Any], data: rk.Dataset, k: int, rounds: int, **knobs: int
) -> tuple[tuple[float, ...], rk.Run]:
    """Seconds to index, milliseconds per query, megabytes and nDCG@10 of a system, and its run."""
    indexing, index = best_of(1, lambda: build(data.corpus))
    searcher = index.searcher(k, **knobs)
    searching, run = best_of(rounds, lambda: searcher(data.queries))
    ndcg = rk.evaluate(run, data.qrels, "nDCG@10").mean["nDCG@10"]
    return (indexing, 1000 * searching / len(data.queries), index.n_bytes / 1e6, ndcg), run


def differences(theirs: rk.Run, ours: rk.Run) -> dict[str, float]:
    """How far two runs of the same queries are apart."""
    swapped = alone = wrong = 0
    largest = 0.0
    for a, b in zip(theirs, ours, strict=True):
        x, y = ({hit.doc_id: hit.score for hit in hits} for hits in (a, b))
        shared = x.keys() & y.keys()
        largest = max([largest, *(abs(x[d] - y[d]) for d in shared)])
        alone += len(x.keys() ^ y.keys())
        last = min((hits[-1].score for hits in (a, b) if hits), default=0.0)
        wrong += sum(abs({**x, **y}[d] - last) >= TOLERANCE for d in x.keys() ^ y.keys())
        for p, q in zip(a, b, strict=False):
            if p.doc_id != q.doc_id:
                swapped += 1
                wrong += abs(p.score - q.score) >= TOLERANCE
    lengths = int((np.diff(theirs.offsets) != np.diff(ours.offsets)).sum())
    return {
        "hits": theirs.n_hits,
        "queries with another number of hits": lengths,
        "places with another document": swapped,
        "documents in one list alone": alone,
        f"of these, more than {TOLERANCE:g} apart in score": wrong,
        "largest difference of a score": largest,
    }


def main() -> None:
    """Compare on each data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=["beir/scifact", "beir/nfcorpus"])
    parser.add_argument("-k", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    try:
        begin = time.perf_counter()
        rk.LuceneIndex.build(rk.Corpus.from_texts({"d1": "a first document"}))
        print(f"Java and Anserini started in {time.perf_counter() - begin:.1f} s")
    except ImportError as why:
        print(f"left out: {why}", file=sys.stderr)
        return
    for name in options.data:
        try:
            data = rk.load_dataset(name)
            documents, queries = len(data.corpus), len(data.queries)
        except FileNotFoundError as why:
            print(f"{name} left out: {why}", file=sys.stderr)
            continue
        print(f"\n{name}: {documents:,} documents, {queries:,} queries, k = {options.k}")
        asked = (data, options.k, options.rounds)
        lucene, theirs = measured(rk.LuceneIndex.build, *asked)
        own, ours = measured(rk.BM25Index.build, *asked, threads=1)
        print(f"{'':24}{'Lucene':>12}{'ours':>12}{'ratio':>9}")
        names = ("index, s", "search, ms per query", "index, MB", "nDCG@10")
        for place, what in enumerate(names):
            a, b = lucene[place], own[place]
            print(f"{what:24}{a:12.4f}{b:12.4f}{a / b:9.2f}")
        for what, value in differences(theirs, ours).items():
            print(f"{what:45}{value:12.6g}")


if __name__ == "__main__":
    main()
