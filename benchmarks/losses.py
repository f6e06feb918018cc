"""What each engine and each storage costs in nDCG@10, with real vectors on real judgements.

    python benchmarks/losses.py [--data scifact nfcorpus cranfield]

Texts are encoded once, by the packaged MiniLM in float32; each row is an index of those vectors.
Exact rows must give the ranking of ``flat``, document by document and score by score (`same`);
the others tell how many of its ten hits they find, and the loss. Collections are those of
``RETRIEVEKIT_TEST_DATA`` (or ``../shared/data``); those that are not there are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from retrievekit import DenseIndex, Run, SentenceEncoder, evaluate, load_dataset
from retrievekit.encode.truncated import TruncatedEncoder

K = 100

EXACT: list[tuple[str, str, dict[str, int]]] = [
    ("Flat", "float32", {}),
    ("IVF16,Flat", "float32", {"nprobe": 16}),
]

COMPRESSED: list[tuple[str, str, dict[str, int]]] = [
    ("flat", "float16", {}),
    ("flat", "int8", {}),
    ("int8", "float32", {}),
    ("binary", "float32", {}),
    ("binary", "float16", {}),
    ("HNSW32", "float32", {}),
    ("SQ8", "float32", {"refine": 0}),
    ("IVF16,PQ48x4fs", "float32", {"nprobe": 8}),
    ("IVF16,PQ48x4fs", "float32", {"nprobe": 8, "refine": 0}),
    ("IVF16,RaBitQ", "float32", {"nprobe": 8}),
    ("PCA128,Flat", "float32", {}),
    ("PQ48np", "float32", {}),
]

SHORTER = (256, 128, 64)


def same(a: Run, b: Run) -> bool:
    """Whether two runs hold the same documents in the same order with the same scores."""
    return all(list(x) == list(y) for x, y in zip(a, b, strict=True))


def overlap(found: Run, exact: Run) -> float:
    """The mean part of the exact ten hits that are among those found."""
    shares = []
    for query in exact.queries.ids:
        best = set(exact[query].doc_ids[:10])
        shares.append(len(best & set(found[query].doc_ids[:10])) / max(len(best), 1))
    return float(np.mean(shares))


def measured(name: str, folder: Path) -> None:
    """Print one collection's table."""
    data = load_dataset(folder / name, "test")
    encoder = SentenceEncoder("minilm")
    stored = encoder.encode_document(data.corpus.contents())

    with TemporaryDirectory() as place:

        def run(engine: str, storage: str, options: dict[str, int], dim: int | None = None) -> Run:
            own = encoder if dim is None else TruncatedEncoder(encoder, dim)
            index = DenseIndex.from_vectors(
                data.corpus, stored[:, :dim], Path(place) / "index", encoder=own, engine=engine,
                storage=storage, store_text=False, overwrite=True,
            )  # fmt: skip
            return index.search(data.queries, K, engine_options=options)

        def score(found: Run) -> float:
            return float(evaluate(found, data.qrels, "nDCG@10").values.mean())

        exact = run("flat", "float32", {})
        base = score(exact)
        sizes = f"{len(data.corpus):,} documents, {len(data.queries):,} queries"
        print(f"{name}: {sizes}; flat {base:.4f}")
        for engine, storage, options in EXACT:
            found = run(engine, storage, options)
            says = "same" if same(found, exact) else "DIFFERENT"
            line(engine, storage, options, score(found), base, f"{says} ranking and scores")
        for engine, storage, options in COMPRESSED:
            found = run(engine, storage, options)
            share = f"{100 * overlap(found, exact):.1f} % of its ten hits"
            line(engine, storage, options, score(found), base, share)
        for dim in SHORTER:
            found = run("flat", "float32", {}, dim)
            share = f"{100 * overlap(found, exact):.1f} % of its ten hits"
            line(f"first {dim} of {encoder.dim}", "float32", {}, score(found), base, share)


def line(
    engine: str, storage: str, options: dict[str, int], ndcg: float, base: float, more: str
) -> None:
    """Print one row."""
    told = " ".join(f"{name}={value}" for name, value in options.items())
    print(f"  {engine:<18}{storage:<9}{told:<20}{ndcg:>8.4f}{ndcg - base:>+9.4f}  {more}")


def main() -> None:
    """Measure each collection that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["scifact", "nfcorpus", "cranfield"])
    args = parser.parse_args()
    named = os.environ.get("RETRIEVEKIT_TEST_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    for name in args.data:
        if (root / "beir" / name).is_dir():
            measured(name, root / "beir")
        else:
            print(f"{name} is not in {root / 'beir'}", file=sys.stderr)


if __name__ == "__main__":
    main()
