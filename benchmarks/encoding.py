"""How fast texts become vectors, backend by backend, against sentence-transformers as it comes.

    python benchmarks/encoding.py                 # 2,000 passages of scifact: speed and fidelity
    python benchmarks/encoding.py --ndcg          # then all documents, and nDCG@10 per backend
    python benchmarks/encoding.py --only "torch bfloat16" --texts 500

The peer is ``SentenceTransformer.encode`` with its own defaults, in float32, measured in the same
process on the same texts. Both sort by length and take 32 texts at a time (ours another number by
``--batch``). Loading is not timed.
The ratio is that of CPU time of the whole process, all threads: it does not depend on what else the
machine does, as wall time, printed beside it, would. Texts are titles and abstracts of scifact from
``RETRIEVEKIT_TEST_DATA`` (or ``../shared/data``); without it made ones, which have no nDCG.
Backends that are not installed are left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from retrievekit import Dataset, Run, SentenceEncoder, evaluate, load_dataset
from retrievekit.encode.backends.choices import Choice, candidates, fidelity, installed
from retrievekit.encode.backends.hardware import has_bfloat16, processor
from retrievekit.encode.backends.samples import made_texts

PEER = "sentence-transformers"
Vectors = NDArray[np.float32]
Encode = Callable[[list[str]], Vectors]

ROOT = Path(__file__).resolve().parent.parent


def scifact() -> Dataset | None:
    """The data set, where it is."""
    named = os.environ.get("RETRIEVEKIT_TEST_DATA")
    folder = (Path(named) if named else ROOT.parent / "shared" / "data") / "beir" / "scifact"
    return load_dataset(folder, "test") if folder.is_dir() else None


def timed(work: Callable[[], Vectors]) -> tuple[Vectors, float, float]:
    """What it gives, its CPU seconds over all threads, and its wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = work()
    return out, time.process_time() - cpu, time.perf_counter() - wall


def ndcg(queries: Vectors, documents: Vectors, data: Dataset) -> float:
    """nDCG@10 of an exact search by inner product of vectors of length 1."""
    scores = queries.astype(np.float64) @ documents.astype(np.float64).T
    ids = list(data.corpus.ids)
    best = np.argsort(-scores, axis=1)[:, :100]
    found = {
        query: {ids[row]: float(scores[i, row]) for row in best[i]}
        for i, query in enumerate(data.queries.ids)
    }
    return float(evaluate(Run.from_dict(found), data.qrels, "nDCG@10").values.mean())


def peer(folder: str) -> Encode:
    """The peer's own way."""
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    return lambda texts: np.asarray(model.encode(texts, show_progress_bar=False), np.float32)


def ours(choice: Choice, batch: int) -> Encode:
    """One backend."""
    encoder = SentenceEncoder(
        "minilm", device="cpu", backend=choice.backend, dtype=choice.dtype, batch_size=batch
    )
    return encoder.encode_document


def main() -> None:
    """Measure all backends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32, help="texts at a time of ours")
    parser.add_argument("--ndcg", action="store_true")
    parser.add_argument("--only", action="append", default=[], help="a row; may be repeated")
    options = parser.parse_args()
    data = scifact()
    texts = (made_texts() * 63) if data is None else data.corpus.contents()
    # Evenly over the collection, whatever its order.
    picked = np.linspace(0, len(texts) - 1, min(options.texts, len(texts))).round().astype(int)
    timed_texts = [texts[row] for row in picked]
    rest = sorted(set(range(len(texts))) - set(picked.tolist()))
    rows: dict[str, Callable[[], Encode]] = {
        PEER: lambda: peer(str(SentenceEncoder("minilm").folder.path))
    }
    names = candidates("cpu", bfloat16=has_bfloat16("cpu"), runtimes=installed(), dtype=None)
    for choice in names:
        if not options.only or str(choice) in options.only:
            rows[str(choice)] = lambda choice=choice: ours(choice, options.batch)
    print(
        f"{len(timed_texts):,} texts of {'scifact' if data else 'made words'}, "
        f"{processor().name}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )
    print(
        f"{'':<24}{'CPU s':>8}{'wall s':>8}{'texts/CPU s':>12}{'ratio':>7}{'median':>10}"
        f"{'least':>10}{'nDCG@10' if options.ndcg else '':>9}"
    )
    expected: Vectors | None = None
    peer_cpu = 0.0
    for name, load in rows.items():
        encode = load()
        encode(timed_texts[:64])
        vectors, cpu, wall = timed(lambda: encode(timed_texts))  # noqa: B023  # called at once
        if expected is None:
            expected, peer_cpu = vectors, cpu
        near = fidelity(vectors, expected)
        line = (
            f"{name:<24}{cpu:>8.1f}{wall:>8.1f}{len(timed_texts) / cpu:>12.1f}"
            f"{peer_cpu / cpu:>7.2f}{near.median:>10.6f}{near.minimum:>10.6f}"
        )
        if options.ndcg and data is not None:
            whole = np.empty((len(texts), vectors.shape[1]), np.float32)
            whole[picked] = vectors
            if rest:
                whole[rest] = encode([texts[row] for row in rest])
            queries = encode(list(data.queries.texts))
            line += f"{ndcg(queries, whole, data):>9.4f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
