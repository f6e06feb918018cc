"""Cross-encoders trained from MiniLM on nfcorpus: above their first stage? And by which loss?

    python benchmarks/train_reranker.py long     one training of a longer budget
    python benchmarks/train_reranker.py table    losses by seeds, each of one and the same budget
    python benchmarks/train_reranker.py show     what was found so far

Each training is chosen by a part of the dev split and asked the test split once, when it is done.
What it found stands in ``benchmarks/results/train_reranker/NAME.json``, with nDCG@10 of each query,
so that ``show`` needs no model; what is there is not done again, and a training that was stopped
goes on. Data are those of ``RETRIEVEKIT_TEST_DATA`` (or ``../shared/data``).
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from retrievekit import BM25Index, Corpus, DenseIndex, Run, SentenceEncoder, evaluate, load_dataset
from retrievekit.bench.systems import IndexShelf, shelf_folder
from retrievekit.config import resolve
from retrievekit.evaluate.significance import paired_t_test, randomisation_test
from retrievekit.locations import cache_dir
from retrievekit.rerank.classifiers import CrossEncoderModel
from retrievekit.rerank.cross_encoder import CrossEncoderReranker
from retrievekit.train.loop import Progress
from retrievekit.train.recipes import recipe_of
from retrievekit.train.reranker import train_reranker

RESULTS = Path(__file__).parent / "results" / "train_reranker"
MEASURE = "nDCG@10"
DEPTH = 100
LOSSES = ("bce", "listnet", "lambda", "pld", "pg-rank")
SEEDS = (0, 1, 2)
# As many irrelevant documents as there are for each relevant one.
LOSS_SETTINGS: dict[str, dict[str, Any]] = {"bce": {"threshold": 1, "pos_weight": 2.0}}

SHARED: dict[str, Any] = {
    "model": "minilm",
    "first": "bm25",
    "positives_from": "retrieved",
    "dropout": 0.0,
    "max_length": 64,
    "learning_rate": 1e-4,
    "dev_queries": 60,
    "dev_depth": 50,
    "device": "cpu",
}
LONG = {**SHARED, "loss": "contrastive", "queries": 4, "positives": 1, "negatives": 7}
TABLE = {**SHARED, "queries": 4, "positives": 2, "negatives": 4, "steps": 200}


def collection() -> str:
    """Where nfcorpus is."""
    root = Path(os.environ.get("RETRIEVEKIT_TEST_DATA", "../shared/data"))
    return str(root / "beir" / "nfcorpus")


def first_stages(data: str, names: tuple[str, ...]) -> dict[str, Run]:
    """The hits that are reranked, of all queries of the test split."""
    test = load_dataset(data, "test")
    runs = {}
    if "bm25" in names:
        runs["bm25"] = BM25Index.build(test.corpus).searcher(k=DEPTH)(test.queries)
    if "minilm" in names:
        index = DenseIndex.build(test.corpus, SentenceEncoder("minilm", device="cpu"))
        runs["minilm"] = index.searcher(k=DEPTH)(test.queries)
    return runs


def first_stage(expression: str, corpus: Corpus) -> Any:
    """What hits to learn from come from; its indexes are kept."""
    return resolve(expression, IndexShelf(corpus, shelf_folder(), depth=DEPTH + 1))


def told(progress: Progress) -> None:
    if progress.evaluated:
        speed = progress.pairs / progress.seconds
        print(
            f"  step {progress.step:>5} of {progress.total}: loss {progress.loss:.4f}, "
            f"dev {progress.figure:.4f}, best {progress.best:.4f}, {speed:.0f} pairs/s",
            flush=True,
        )


def done(name: str, settings: dict[str, Any], stages: tuple[str, ...], work: Path) -> None:
    """Train one model and ask it the test split, unless that was done."""
    file = RESULTS / f"{name}.json"
    if file.exists():
        print(f"{name}: done before")
        return
    print(name, flush=True)
    data = collection()
    recipe = recipe_of({**settings, "data": data})
    folder = work / name
    if not folder.exists():
        train_reranker(recipe, folder, first=lambda c: first_stage(recipe.first, c), told=told)
    card = json.loads((folder / "training.json").read_bytes())
    card["recipe"]["data"] = "beir/nfcorpus"
    card["material"]["data"] = "beir/nfcorpus"
    test = load_dataset(data, "test")
    found: dict[str, Any] = {}
    for stage, run in first_stages(data, stages).items():
        reranker = CrossEncoderReranker(CrossEncoderModel(folder, dtype="auto"), test.corpus)
        start = time.perf_counter()
        after = evaluate(reranker(run), test.qrels, MEASURE)
        seconds = time.perf_counter() - start
        before = evaluate(run, test.qrels, MEASURE)
        found[stage] = {
            "before": before.mean[MEASURE],
            "after": after.mean[MEASURE],
            "seconds_per_query": seconds / len(run),
            "before_per_query": before.per_query(MEASURE),
            "after_per_query": after.per_query(MEASURE),
        }
        print(f"  test, {stage}: {before.mean[MEASURE]:.4f} -> {after.mean[MEASURE]:.4f}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({**card, "depth": DEPTH, "test": found}, indent=1) + "\n")
    fresh.replace(file)


def p_values(a: dict[str, float], b: dict[str, float]) -> str:
    """Two tests of a difference over the same queries."""
    one, other = (np.array([values[query] for query in sorted(a)]) for values in (a, b))
    return f"{paired_t_test(one, other)[1]:.3g} / {randomisation_test(one, other):.3g}"


def read(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    found: dict[str, Any] | None = json.loads(file.read_bytes()) if file.exists() else None
    return found


def show() -> None:
    """Both experiments as tables, as far as they are done."""
    for file in sorted(RESULTS.glob("long*.json")):
        found = json.loads(file.read_bytes())
        result = found["result"]
        print(
            f"\n{file.stem}: {result['steps']} steps, {result['seconds'] / 60:.1f} min, weights of "
            f"step {result['best_step']}, dev {result['figure']:.4f}"
        )
        print("| first stage | nDCG@10 | reranked | p (t / randomisation) | ms per query |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for stage, part in found["test"].items():
            p = p_values(part["after_per_query"], part["before_per_query"])
            print(
                f"| {stage} | {part['before']:.4f} | {part['after']:.4f} | {p} | "
                f"{1000 * part['seconds_per_query']:.0f} |"
            )
    print(f"\nBM25's top {DEPTH}, test nDCG@10; p against BCE over the queries' means of seeds")
    seeds = "".join(f" seed {seed} |" for seed in SEEDS)
    print(f"| loss |{seeds} mean | sd | p (t / randomisation) | minutes |")
    print("| --- |" + " ---: |" * (len(SEEDS) + 4))
    reference: dict[str, float] | None = None
    for loss in LOSSES:
        runs = [found for seed in SEEDS if (found := read(f"{loss}-{seed}")) is not None]
        if not runs:
            continue
        figures = [found["test"]["bm25"]["after"] for found in runs]
        queries = [found["test"]["bm25"]["after_per_query"] for found in runs]
        means = {query: float(np.mean([one[query] for one in queries])) for query in queries[0]}
        whole = len(runs) == len(SEEDS)
        p = p_values(means, reference) if whole and reference is not None else "-"
        reference = means if loss == LOSSES[0] and whole else reference
        shown = "".join(f" {figure:.4f} |" for figure in figures)
        shown += " |" * (len(SEEDS) - len(runs))
        spread = f"{np.std(figures, ddof=1):.4f}" if len(figures) > 1 else "-"
        minutes = np.mean([found["result"]["seconds"] for found in runs]) / 60
        print(f"| {loss} |{shown} {np.mean(figures):.4f} | {spread} | {p} | {minutes:.1f} |")


def main() -> None:
    """Train what is missing, or show what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["long", "table", "show"])
    parser.add_argument(
        "--work", type=Path, default=cache_dir() / "train_reranker", help="for models"
    )
    parser.add_argument("--name", default="long", help="of the longer training")
    parser.add_argument("--steps", type=int, default=500, help="of the longer training")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    changes = {
        name: json.loads(value) for name, _, value in (s.partition("=") for s in options.set)
    }
    options.work.mkdir(parents=True, exist_ok=True)
    if options.what == "long":
        settings = {**LONG, "steps": options.steps, "evaluate_every": 100, **changes}
        done(options.name, settings, ("bm25", "minilm"), options.work)
    elif options.what == "table":
        for seed in SEEDS:
            for loss in LOSSES:
                own = {"loss": loss, "seed": seed, "loss_settings": LOSS_SETTINGS.get(loss, {})}
                settings = {**TABLE, "evaluate_every": 100, **changes, **own}
                done(f"{loss}-{seed}", settings, ("bm25",), options.work)
    show()


if __name__ == "__main__":
    main()
