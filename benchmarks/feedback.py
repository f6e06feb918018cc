"""What feedback without training gives, depth by depth, and what it costs.

    python benchmarks/feedback.py [--data scifact nfcorpus cranfield] [--depths 1 2 ... 10]
    python benchmarks/feedback.py --timing [--rounds 20]

The first searches each collection with BM25 and with the packaged MiniLM, gives the best k hits of
each query to every method, and searches again: nDCG@10, AP and R@1000, the two-sided p-values of
the paired randomisation test of nDCG@10 against the search alone (Holm's correction over all
methods and depths of a retriever), and milliseconds per query of the feedback and of the second
search (the search alone encodes its queries, the second has their vectors). Rows are added to
``benchmarks/results/feedback/<collection>.jsonl`` as they are found, with the hash of the
collection; what is there is not computed again. The tables beside them, ``<collection>.md``, are
written anew at the end of each collection.

The second times Rocchio over 1,000 dense queries, depth 10, 384 components, against a loop over
queries in NumPy, and RM3 and Rocchio over terms against Anserini's where the extra ``lucene`` is
installed (called from Python, on scifact), each on one core, alternating, the best of some rounds.
It writes ``timing.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import retrievekit as rk
from retrievekit.bench.systems import IndexShelf, shelf_folder
from retrievekit.config import resolve
from retrievekit.ids import Ids
from retrievekit.queries import Queries
from retrievekit.vectors import DenseVectors

RESULTS = Path(__file__).resolve().parent / "results" / "feedback"
MEASURES = ["nDCG@10", "AP", "R@1000"]
ALONE = "alone"
METHODS = {
    "bm25": {
        "RM3": "rm3(fb_docs={k})",
        "Rocchio": "lexical_rocchio(fb_docs={k})",
        "Bo1": "bo1(fb_docs={k})",
        "KL": "kl(fb_docs={k})",
    },
    "minilm": {
        "Average": "average({k})",
        "Rocchio .4/.6": "rocchio({k}, 0.4, 0.6)",
        "Rocchio .7/.3": "rocchio({k}, 0.7, 0.3)",
        "Rocchio .9/.1": "rocchio({k}, 0.9, 0.1)",
    },
}


def folder_of(name: str) -> Path:
    """Where a collection lies in the BEIR layout."""
    named = os.environ.get("RETRIEVEKIT_TEST_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return root / "beir" / name


def kept(path: Path, corpus_hash: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Rows that were found before, by retriever, method and depth."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    own = [row for row in rows if row["corpus"] == corpus_hash]
    return {(row["retriever"], row["method"], row["depth"]): row for row in own}


def measured(name: str, depths: list[int]) -> None:
    """Add the rows of a collection that are missing."""
    data = rk.load_dataset(folder_of(name), "test")
    path = RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = kept(path, data.corpus.content_hash)
    shelf = IndexShelf(data.corpus, shelf_folder(), depth=1000)
    print(f"{name}: {len(data.corpus):,} documents, {len(data.queries):,} queries")
    for retriever, methods in METHODS.items():
        wanted = [(ALONE, 0), *((method, k) for method in methods for k in depths)]
        if all((retriever, *each) in rows for each in wanted):
            continue
        searcher = resolve(retriever, shelf)
        searcher(data.queries)  # loads models and compiles
        first = searcher(data.queries)
        for method, k in wanted:
            if (retriever, method, k) in rows:
                continue
            run, steps = first, first.trace[-1:]
            if k:
                again = resolve(f"{retriever} >> {methods[method].format(k=k)}", shelf)
                feedback = again.children[-1]
                feedback(first)
                run = searcher(feedback(first))
                steps = run.trace[-2:]
            found = rk.evaluate(run, data.qrels, MEASURES)
            row = {
                "corpus": data.corpus.content_hash,
                "retriever": retriever,
                "method": method,
                "depth": k,
                **{measure: round(float(found.mean[measure]), 4) for measure in MEASURES},
                "ms": [round(1000 * step.seconds / len(run), 3) for step in steps],
                "nDCG@10 by query": np.round(found.values[0], 4).tolist(),
            }
            rows[retriever, method, k] = row
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        print(f"  {retriever}: done")
    table = "\n".join(lines(name, rows))
    path.with_suffix(".md").write_text(table + "\n", "utf-8")
    print(table)


def significance(rows: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Corrected p-values of nDCG@10 against the search alone, by method and depth."""
    qrels = rk.Qrels.from_dict({str(q): {"d": 1} for q in range(len(rows[0]["nDCG@10 by query"]))})
    base = rk.evaluate(rk.Run.from_dict({q: {"d": 1.0} for q in qrels.to_dict()}), qrels, "nDCG@10")
    systems = {}
    for row in rows:
        values = np.array([row["nDCG@10 by query"]])
        systems[f"{row['method']}|{row['depth']}"] = dataclasses.replace(base, values=values)
    found = rk.compare(systems, None, "nDCG@10", baseline=f"{ALONE}|0")
    out = {}
    for contrast in found.contrasts:
        method, depth = contrast.system.rsplit("|", 1)
        out[method, int(depth)] = contrast.p_randomisation_adjusted
    return out


def lines(name: str, rows: dict[tuple[str, str, int], dict[str, Any]]) -> Iterator[str]:
    """The tables of a collection: a row per method and depth."""
    yield f"# {name}\n"
    yield "Times are per query in one batch; MiniLM's search alone encodes its queries.\n"
    yield "`*`: nDCG@10 differs from the search alone (p < 0.05, randomisation test, Holm).\n"
    for retriever, methods in METHODS.items():
        own = [row for (searched, _, _), row in rows.items() if searched == retriever]
        own.sort(key=lambda row: ([ALONE, *methods].index(row["method"]), row["depth"]))
        p = significance(own)
        yield f"\n| {retriever} | k | nDCG@10 | AP | R@1000 | feedback, ms | search, ms |"
        yield "|---|---|---|---|---|---|---|"
        for row in own:
            mark = "*" if p.get((row["method"], row["depth"]), 1.0) < 0.05 else ""
            figures = " | ".join(f"{row[measure]:.4f}" for measure in MEASURES[1:])
            ms = row["ms"] if row["depth"] else ["", *row["ms"]]
            yield (
                f"| {row['method']} | {row['depth'] or ''} | {row['nDCG@10']:.4f}{mark} | "
                f"{figures} | {ms[0]} | {ms[1]} |"
            )


def alternating(rounds: int, *works: Callable[[], Any]) -> list[float]:
    """Milliseconds of the fastest of some calls of each, taken in turns; a first one warms up."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):
        for own, work in zip(times, works, strict=True):
            begin = time.perf_counter()
            work()
            if turn:
                own.append(1000 * (time.perf_counter() - begin))
    return [min(own) for own in times]


def dense_times(documents: int, rounds: int) -> dict[str, float]:
    """Rocchio against a loop over queries, both from the same hits and vectors."""
    rng = np.random.default_rng(0)

    def units(n: int) -> Any:
        found = rng.normal(size=(n, 384)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    corpus = rk.Corpus.from_texts({f"d{i}": "" for i in range(documents)})
    index = rk.DenseIndex.from_vectors(corpus, units(documents), similarity="cosine")
    ids = Ids.from_strings([f"q{i}" for i in range(1000)])
    run = index.searcher(10)(Queries(ids, DenseVectors(units(1000))))
    stage = rk.Rocchio(index, 10)
    queries, vectors = index.query_vectors(run.queries), index.vectors
    out = np.empty_like(queries)

    def loop() -> Any:
        for i in range(len(queries)):
            rows = run.rows[run.offsets[i] : run.offsets[i + 1]]
            moved = 0.4 * queries[i] + 0.6 * vectors[rows].mean(axis=0)
            out[i] = moved / np.linalg.norm(moved)
        return out

    assert np.abs(stage(run).form.array - loop()).max() < 1e-6
    ours, theirs = alternating(rounds, lambda: stage(run), loop)
    return {"ms": ours, "loop, ms": theirs, "ratio": theirs / ours}


def lucene_times(name: str, rounds: int) -> dict[str, dict[str, float]]:
    """RM3 and Rocchio over terms against Anserini's, milliseconds per query."""
    from retrievekit.index.lucene_stages import LuceneRM3, LuceneRocchio

    data = rk.load_dataset(folder_of(name), "test")
    ours, theirs = rk.BM25Index.build(data.corpus), rk.LuceneIndex.build(data.corpus)
    first, second = (
        ours.searcher(1000, threads=1)(data.queries),
        theirs.searcher(1000)(data.queries),
    )
    out = {}
    pairs = {
        "rm3": (rk.RM3(ours), LuceneRM3(theirs)),
        "lexical_rocchio": (rk.LexicalRocchio(ours), LuceneRocchio(theirs)),
    }
    for method, (own, other) in pairs.items():
        a, b = alternating(rounds, partial(own, first), partial(other, second))
        n = len(first)
        out[method] = {"ms per query": a / n, "Anserini, ms per query": b / n, "ratio": b / a}
    return out


def timing(rounds: int) -> None:
    """Measure both kinds of feedback against others."""
    path = RESULTS / "timing.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for documents in (5_000, 100_000):
        found[f"rocchio, {documents:,} documents"] = dense_times(documents, rounds)
    try:
        for method, times in lucene_times("scifact", max(2, rounds // 7)).items():
            found[f"{method}, scifact"] = times
    except (ImportError, FileNotFoundError) as why:
        print(f"Anserini left out: {why}", file=sys.stderr)
    for times in found.values():
        times.update({what: round(value, 3) for what, value in times.items()})
    path.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(path.read_text("utf-8"))


def main() -> None:
    """Measure each collection that is there, or times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["scifact", "nfcorpus", "cranfield"])
    parser.add_argument("--depths", nargs="+", type=int, default=list(range(1, 11)))
    parser.add_argument("--timing", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    if options.timing:
        timing(options.rounds)
        return
    for name in options.data:
        if folder_of(name).is_dir():
            measured(name, options.depths)
        else:
            print(f"{name} is not in {folder_of(name).parent}", file=sys.stderr)


if __name__ == "__main__":
    main()
