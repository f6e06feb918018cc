"""What training brings to feedback on nfcorpus: ANCE-PRF and LoL, with the packaged MiniLM.

    python benchmarks/train_prf.py ance-prf [--seeds 0] [--only NAME]
    python benchmarks/train_prf.py lol [--seeds 0 1 2]
    python benchmarks/train_prf.py report

The first trains ANCE-PRF on the judgements of the split train, once per setting of `GRID` and seed;
the setting and its weights are chosen on dev, and the chosen one is measured on test, beside the
search alone and the untrained feedback that is best on dev. The second trains LoL with and without
its comparative regularisation (weight 1 and 0), all else equal, and measures each on test with 0 to
5 passages. Every run stays within a budget that two processor cores can carry: texts of at most 192
tokens, and at most 10,000 of them through the encoder, evaluations on dev included; what test reads
comes on top and is told.

Runs are resumed where they were stopped. Figures are added to ``benchmarks/results/prf/runs.jsonl``
as they are found, models stay under the cache; ``report`` writes ``results/prf/README.md``. The
collection is that of ``RETRIEVEKIT_TEST_DATA`` (or ``../shared/data``).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import retrievekit as rk
from retrievekit.bench.systems import IndexShelf, shelf_folder
from retrievekit.config import resolve
from retrievekit.encode.backends.hardware import machine
from retrievekit.evaluate.compute import Evaluation
from retrievekit.feedback.ance_prf import AncePRF
from retrievekit.feedback.vectors import Average, Rocchio
from retrievekit.train.prf import train_prf
from retrievekit.train.prf_recipes import FeedbackRecipe, feedback_recipe

RESULTS = Path(__file__).resolve().parent / "results" / "prf"
MEASURES = ["nDCG@10", "AP", "R@1000"]
BUDGET = 10_000
LENGTH = 192

COMMON: dict[str, Any] = {
    "max_length": LENGTH,
    "passage_length": 56,
    "room": 10,
    "depth": 200,
    "queries": 16,
    "steps": 400,
    "evaluate_every": 50,
    "dropout": 0.0,
    "weight_decay": 0.01,
    "budget": BUDGET,
}
GRID: dict[str, dict[str, Any]] = {
    "own 2e-5": {"loss": "own", "learning_rate": 2e-5},
    "in-batch 2e-5": {"loss": "in-batch", "learning_rate": 2e-5},
    "in-batch 5e-5": {"loss": "in-batch", "learning_rate": 5e-5},
    "own 1e-6": {"loss": "own", "learning_rate": 1e-6},
}
LOL: dict[str, Any] = {
    "method": "lol", "docs": 5, "passage_length": 32, "compare": 1, "queries": 12, "steps": 300,
    "evaluate_every": 50, "learning_rate": 2e-5,
}  # fmt: skip
WEIGHTS = (0.0, 1.0)
UNTRAINED = {
    f"Average {k}": (lambda index, k=k: Average(index, k)) for k in (1, 2, 3, 5, 10)
} | {
    f"Rocchio {k}, {a}/{b}": (lambda index, k=k, a=a, b=b: Rocchio(index, k, a, b))
    for k in (3, 5, 10)
    for a, b in ((0.4, 0.6), (0.7, 0.3), (0.9, 0.1))
}  # fmt: skip


def data_folder() -> Path:
    """Where the collection lies in the BEIR layout."""
    named = os.environ.get("RETRIEVEKIT_TEST_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return root / "beir" / "nfcorpus"


def opened() -> Any:
    """The searcher of the collection by MiniLM; its index is built once and kept."""
    shelf = IndexShelf(rk.load_dataset(data_folder(), "train").corpus, shelf_folder(), depth=1000)
    return resolve("minilm", shelf)


def rows() -> list[dict[str, Any]]:
    """What was found before."""
    file = RESULTS / "runs.jsonl"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def keep(row: Mapping[str, Any]) -> None:
    """Add a row."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    shown = {name: value for name, value in row.items() if not name.endswith("by query")}
    print(json.dumps(shown), flush=True)


def measured(searcher: Any, feedback: Any, split: str) -> dict[str, Any]:
    """Figures of a pipeline on a split, and milliseconds per query of feedback and search."""
    data = rk.load_dataset(data_folder(), split)
    pipe = searcher if feedback is None else searcher >> feedback >> searcher
    run = pipe(data.queries)
    found = rk.evaluate(run, data.qrels, MEASURES)
    steps = run.trace if feedback is None else run.trace[-2:]
    return {
        **{name: round(float(found.mean[name]), 4) for name in MEASURES},
        "ms": [round(1000 * step.seconds / len(run), 2) for step in steps],
        "nDCG@10 by query": np.round(found.row("nDCG@10"), 4).tolist(),
        "R@1000 by query": np.round(found.row("R@1000"), 4).tolist(),
    }


def folder_of(name: str, seed: int) -> Path:
    """Where a run's model is kept."""
    return shelf_folder().parent / "benchmarks" / f"prf {name} {seed}".replace(" ", "-")


def trained(name: str, settings: Mapping[str, Any], seed: int, searcher: Any) -> dict[str, Any]:
    """Train by a recipe, or go on; what was trained is kept under the cache."""
    recipe: FeedbackRecipe = feedback_recipe(
        {**COMMON, **settings, "data": str(data_folder()), "seed": seed}
    )
    output = folder_of(name, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        began = time.perf_counter()

        def told(done: Any) -> None:
            if done.evaluated:
                print(
                    f"{name}, seed {seed}: step {done.step} of {done.total}, loss {done.loss:.4f}, "
                    f"dev {done.figure:.4f}, {time.perf_counter() - began:.0f} s",
                    flush=True,
                )

        train_prf(recipe, output, index=searcher.index, told=told)
    facts = json.loads((output / "training.json").read_text("utf-8"))
    return {
        "recipe": {k: v for k, v in facts["recipe"].items() if k != "data"},
        "dev": {k: v for k, v in facts["material"]["dev"].items() if k != "qrels_hash"},
        "result": facts["result"],
        "log": facts["log"],
        "machine": facts["machine"],
    }


def ance_prf(options: argparse.Namespace) -> None:
    """Train each setting, choose on dev, and measure the chosen one on test."""
    searcher, done = opened(), rows()
    known = {(row["kind"], row["name"], row.get("seed")) for row in done}
    for split in ("dev", "test"):
        for name in ("alone", *UNTRAINED) if split == "dev" else ("alone",):
            if ("untrained " + split, name, None) not in known:
                stage: Any = None if name == "alone" else UNTRAINED[name](searcher.index)
                keep({"kind": "untrained " + split, "name": name,
                      **measured(searcher, stage, split)})  # fmt: skip
    done = rows()
    best = max((r for r in done if r["kind"] == "untrained dev"), key=lambda r: r["nDCG@10"])
    if best["name"] != "alone" and ("untrained test", best["name"], None) not in known:
        stage = UNTRAINED[best["name"]](searcher.index)
        keep({"kind": "untrained test", "name": best["name"], **measured(searcher, stage, "test")})
    for name, settings in GRID.items():
        if options.only and name != options.only:
            continue
        for seed in options.seeds:
            if ("ance-prf dev", name, seed) not in known:
                made = trained(name, settings, seed, searcher)
                keep({"kind": "ance-prf dev", "name": name, "seed": seed, **made})
    runs = [row for row in rows() if row["kind"] == "ance-prf dev"]
    if not runs:
        return
    means = {
        name: np.mean([row["result"]["figure"] for row in runs if row["name"] == name])
        for name in {row["name"] for row in runs}
    }
    chosen = max(means, key=lambda name: means[name])
    for row in runs:
        if row["name"] == chosen and ("ance-prf test", chosen, row["seed"]) not in known:
            stage = AncePRF(searcher.index, folder_of(chosen, row["seed"]))
            keep({"kind": "ance-prf test", "name": chosen, "seed": row["seed"],
                  **measured(searcher, stage, "test")})  # fmt: skip


def lol(options: argparse.Namespace) -> None:
    """Train with and without the regularisation, and measure each with 0 to 5 passages."""
    searcher = opened()
    known = {(row["kind"], row["name"], row.get("seed"), row.get("docs")) for row in rows()}
    for seed in options.seeds:
        for weight in WEIGHTS:
            name = f"lol {weight:g}"
            made = trained(name, {**LOL, "weight": weight}, seed, searcher)
            if ("lol dev", name, seed, None) not in known:
                keep({"kind": "lol dev", "name": name, "seed": seed, **made})
            for docs in range(LOL["docs"] + 1):
                if ("lol test", name, seed, docs) not in known:
                    stage = AncePRF(searcher.index, folder_of(name, seed), docs)
                    keep({"kind": "lol test", "name": name, "seed": seed, "docs": docs,
                          **measured(searcher, stage, "test")})  # fmt: skip


def evaluation(row: Mapping[str, Any], measure: str) -> Evaluation:
    """A row as an evaluation, for `compare`."""
    values = row[f"{measure} by query"]
    qrels = rk.Qrels.from_dict({str(q): {"d": 1} for q in range(len(values))})
    shape = rk.evaluate(rk.Run.from_dict({q: {"d": 1.0} for q in qrels.to_dict()}), qrels, measure)
    return type(shape)(
        shape.measures, shape.query_ids, np.array([values]), shape.compat, len(values), 0, 0, 0
    )


def lines() -> Iterator[str]:
    """The report."""
    found = rows()
    cores = machine("cpu")
    yield "# Trained feedback on nfcorpus, MiniLM\n"
    yield (
        f"Budget of a run: texts of at most {LENGTH} tokens, at most {BUDGET:,} through the "
        f"encoder, evaluations on dev included. {cores['processor']}, two cores.\n"
    )
    dev = [row for row in found if row["kind"] == "ance-prf dev"]
    test = [row for row in found if row["kind"] in ("untrained test", "ance-prf test")]
    if dev:
        yield "## ANCE-PRF: settings and seeds, on dev\n"
        yield (
            f"MiniLM alone: {dev[0]['dev']['retriever_nDCG@10']:.4f}; the untrained encoder with "
            f"passages: {dev[0]['result']['before']:.4f}.\n"
        )
        yield "| setting | seed | nDCG@10 by step | best | texts | seconds of steps |"
        yield "| --- | ---: | --- | ---: | ---: | ---: |"
        for row in dev:
            curve = ", ".join(f"{e['step']}: {e['figure']:.4f}" for e in row["log"])
            result = row["result"]
            yield (
                f"| {row['name']} | {row['seed']} | {curve} | {result['figure']:.4f} | "
                f"{result['passes']:,} | {result['seconds']:.0f} |"
            )
        yield ""
    if test:
        yield "## On test, asked once\n"
        yield (
            "Differences from the search alone; p of the paired randomisation test, Holm's "
            "correction.\n"
        )
        yield "| system | nDCG@10 | p | AP | R@1000 | p | ms per query |"
        yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
        names = [f"{r['name']} {r['seed']}" if "seed" in r else r["name"] for r in test]
        contrasts = {}
        if len(test) > 1:
            for measure in ("nDCG@10", "R@1000"):
                systems = {n: evaluation(r, measure) for n, r in zip(names, test, strict=True)}
                for c in rk.compare(systems, None, measure, baseline="alone").contrasts:
                    contrasts[c.system, measure] = f"{c.p_randomisation_adjusted:.3f}"
        for name, row in zip(names, test, strict=True):
            ms = " + ".join(f"{part:.1f}" for part in row["ms"])
            yield (
                f"| {name} | {row['nDCG@10']:.4f} | {contrasts.get((name, 'nDCG@10'), '')} | "
                f"{row['AP']:.4f} | {row['R@1000']:.4f} | {contrasts.get((name, 'R@1000'), '')} | "
                f"{ms} |"
            )
        yield ""
    curves = [row for row in found if row["kind"] == "lol test"]
    if curves:
        yield "## LoL on test: nDCG@10 with 0 to 5 passages\n"
        yield "| weight | seed | " + " | ".join(f"k = {k}" for k in range(6)) + " |"
        yield "| --- | ---: |" + " ---: |" * 6
        for name, seed in sorted({(row["name"], row["seed"]) for row in curves}):
            own = {r["docs"]: r for r in curves if (r["name"], r["seed"]) == (name, seed)}
            figures = (f"{own[k]['nDCG@10']:.4f}" if k in own else "" for k in range(6))
            yield f"| {name.split()[1]} | {seed} | " + " | ".join(figures) + " |"


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=["ance-prf", "lol", "report"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", choices=list(GRID), help="train this setting alone")
    options = parser.parse_args()
    if options.what == "ance-prf":
        ance_prf(options)
    elif options.what == "lol":
        lol(options)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "README.md").write_text("\n".join(lines()) + "\n", "utf-8")


if __name__ == "__main__":
    main()
