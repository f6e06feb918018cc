"""Dense engines: exact search against FAISS's, engines through the index and without it, recall.

    python benchmarks/engines.py [--documents 200000] [--queries 200] [--threads 1] [--fast]

Vectors are synthetic and seeded, and made to resemble those of MiniLM: 384 components of a falling
spectrum, one cluster per 100 documents, normalised; queries are drawn like documents and are not
among them. Times are of the process's CPU per query, the best of some repetitions, and of the
clock; both sides run with so many threads. FAISS's flat index is measured with its default setting
and with ``distance_compute_blas_threshold = 20``, without which it does not multiply matrices;
its binary flat index with the best scored again by NumPy from the same vectors.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import torch

from retrievekit import Corpus, DenseIndex, Queries
from retrievekit.index.engines import halves
from retrievekit.index.engines.approximate import NATIVE
from retrievekit.vectors import DenseVectors

DIM = 384
K = 10

# The options tried for each engine, the cheap ones first.
RECALL: dict[str, list[dict[str, int]]] = {
    "HNSW32": [{"efSearch": ef} for ef in (16, 32, 64, 128, 256, 512)],
    "IVF512,PQ96x4fs": [
        {"nprobe": n, "refine": r} for r in (10, 20) for n in (8, 16, 32, 64, 128, 256)
    ],
    "IVF512,RaBitQfs": [
        {"nprobe": n, "refine": r} for r in (10, 20) for n in (8, 16, 32, 64, 128, 256)
    ],
    "RaBitQfs": [{"refine": r} for r in (5, 10, 20, 40)],
}
QUICK = ("IVF512,PQ96x4fs", "IVF512,RaBitQfs", "RaBitQfs")


def vectors(documents: int, queries: int) -> tuple[Any, Any]:
    """Two float32 arrays ``(n, DIM)`` of unit vectors."""
    rng = np.random.default_rng(33)
    spectrum = (1.0 / (1 + np.arange(DIM)) ** 0.35).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].astype(np.float32)
    shape = (max(50, documents // 100), DIM)
    centres = rng.standard_normal(shape).astype(np.float32) * spectrum

    def draw(n: int) -> Any:
        noise = rng.standard_normal((n, DIM), dtype=np.float32) * spectrum
        x = (centres[rng.integers(len(centres), size=n)] + 0.9 * noise) @ turn
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    return draw(documents), draw(queries)


def timed(work: Callable[[], Any], queries: int, repetitions: int) -> tuple[float, float, Any]:
    """CPU and clock time per query in microseconds, the best of some, and the answer."""
    out = work()
    cpu = wall = float("inf")
    for _ in range(repetitions):
        start = time.process_time(), time.perf_counter()
        out = work()
        cpu = min(cpu, time.process_time() - start[0])
        wall = min(wall, time.perf_counter() - start[1])
    return 1e6 * cpu / queries, 1e6 * wall / queries, out


def row(name: str, cpu: float, wall: float, more: str = "") -> None:
    print(f"{name:<52}{cpu:>9.0f}{wall:>9.0f}  {more}", flush=True)


def rows_of(run: Any) -> Any:
    """The rows of hits, ``(queries, K)``; ids are rows here."""
    return np.array([[int(hit.doc_id) for hit in run.hits(q)] for q in range(len(run))])


def recall(found: Any, exact: Any) -> float:
    return float(
        np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, exact, strict=True)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--fast", action="store_true", help="leave out HNSW, whose build is long")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    stored, asked = vectors(args.documents, args.queries)
    corpus = Corpus.from_texts({str(row): "" for row in range(len(stored))})
    queries = Queries.from_texts([str(q) for q in range(len(asked))]).rewritten(DenseVectors(asked))
    print(
        f"{args.documents:,} x {DIM}, {args.queries} queries at once, {args.threads} thread(s), "
        f"faiss-cpu {importlib.metadata.version('faiss-cpu')}, torch {torch.__version__}, bfloat16 "
        f"{'' if halves.faster() else 'not '}faster here"
    )
    print(f"{'microseconds per query':<52}{'CPU':>9}{'clock':>9}")
    n, again = args.queries, args.repetitions

    def ask(index: DenseIndex, **options: int) -> Any:
        return index.search(queries, K, threads=args.threads, engine_options=options)

    with TemporaryDirectory() as folder:
        index = DenseIndex.from_vectors(corpus, stored, Path(folder) / "flat", similarity="cosine")
        cpu, wall, run = timed(lambda: ask(index), n, again)
        exact = rows_of(run)
        row("retrievekit flat", cpu, wall)
        direct = faiss.IndexFlatIP(DIM)
        direct.add(stored)
        for threshold, name in ((20, "tuned"), (None, "default")):
            if threshold is None and args.fast:
                continue
            before = faiss.cvar.distance_compute_blas_threshold
            faiss.cvar.distance_compute_blas_threshold = threshold or before
            repeated = again if threshold else 1
            c, w, (scores, found) = timed(lambda: direct.search(asked, K), n, repeated)
            faiss.cvar.distance_compute_blas_threshold = before
            differing = _differing(found, scores, exact, run)
            more = f"{c / cpu:.2f}x our CPU, {w / wall:.2f}x our clock; {differing}"
            row(f"FAISS flat, {name}", c, w, more)
        _storages(stored, corpus, exact, ask, n, again, Path(folder))
        _without_training(stored, asked, corpus, exact, ask, n, again, Path(folder))
        for engine, tried in RECALL.items():
            if not (args.fast and engine not in QUICK):
                _engine(engine, tried, stored, asked, corpus, exact, ask, n, again, Path(folder))


def _storages(
    stored: Any,
    corpus: Corpus,
    exact: Any,
    ask: Callable[..., Any],
    n: int,
    again: int,
    folder: Path,
) -> None:
    """The flat engine over vectors of fewer bytes."""
    for storage in ("float16", "int8"):
        index = DenseIndex.from_vectors(
            corpus, stored, folder / "stored", similarity="cosine", storage=storage, overwrite=True
        )
        size = index.segments[0]["vectors"].record.file.size
        cpu, wall, run = timed(partial(ask, index), n, again)
        share = recall(rows_of(run), exact)
        more = (
            f"{size / 1e6:.1f} MB, recall@10 {share:.4f}, lost {100 * index.rounding_error:.2f} %"
        )
        row(f"retrievekit flat, {storage}", cpu, wall, more)


def _without_training(
    stored: Any,
    asked: Any,
    corpus: Corpus,
    exact: Any,
    ask: Callable[..., Any],
    n: int,
    again: int,
    folder: Path,
) -> None:
    """Our engines without training; for ``binary`` FAISS's, as many candidates scored again."""
    path = folder / "engine"
    for engine, tried in (("int8", ({"refine": 1}, {})), ("binary", ({"refine": 10}, {}))):
        index = DenseIndex.from_vectors(
            corpus, stored, path, similarity="cosine", engine=engine, overwrite=True
        )
        native = index.segments[0].record.native[NATIVE].size
        print(f"{engine}: first pass {native / 1e6:.1f} MB, {stored.nbytes / native:.1f}x smaller; "
              f"noted recall {index.recall:.3f}")  # fmt: skip
        for options in tried:
            cpu, wall, run = timed(partial(ask, index, **options), n, again)
            depth = K * index.searcher(K, engine_options=options).engine_options["refine"]
            row(
                f"  {depth} scored again", cpu, wall, f"recall@10 {recall(rows_of(run), exact):.4f}"
            )
            if engine == "binary":
                _binary_direct(stored, asked, exact, depth, cpu, wall, n, again)


def _binary_direct(
    stored: Any, asked: Any, exact: Any, depth: int, cpu: float, wall: float, n: int, again: int
) -> None:
    """FAISS's binary flat index, and the best scored again from the same vectors with NumPy."""
    direct = faiss.IndexBinaryFlat(DIM)
    direct.add(np.packbits(stored > 0, axis=1))

    def search() -> Any:
        _, found = direct.search(np.packbits(asked > 0, axis=1), depth)
        scores = np.einsum("qmd,qd->qm", stored[found], asked)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        return np.take_along_axis(found, best, axis=1)

    c, w, found = timed(search, n, again)
    scan, _, _ = timed(lambda: direct.search(np.packbits(asked > 0, axis=1), depth), n, again)
    more = f"{c / cpu:.2f}x our CPU, {w / wall:.2f}x our clock; its scan alone {scan:.0f}; "
    row(f"  FAISS binary flat, {depth} again", c, w, more + f"recall@10 {recall(found, exact):.4f}")


def _differing(found: Any, scores: Any, exact: Any, run: Any) -> str:
    """How many places hold other documents, and the largest gap of scores at one of them."""
    own = run.scores.reshape(exact.shape)
    other = found != exact
    gap = float(np.abs(own - scores)[other].max(initial=0))
    return f"{int(other.sum())} places differ, scores there by at most {gap:.1e}"


def _engine(
    engine: str,
    tried: list[dict[str, int]],
    stored: Any,
    asked: Any,
    corpus: Corpus,
    exact: Any,
    ask: Callable[..., Any],
    n: int,
    again: int,
    folder: Path,
) -> None:
    start = time.process_time()
    path = folder / "engine"
    index = DenseIndex.from_vectors(
        corpus, stored, path, similarity="cosine", engine=engine, overwrite=True
    )
    built = time.process_time() - start
    native = index.segments[0].record.native[NATIVE].size
    print(f"{engine}: built in {built:.0f} s of CPU, {native / 1e6:.0f} MB, noted recall "
          f"{index.recall:.3f}")  # fmt: skip
    reached = False
    for options in tried:
        cpu, wall, run = timed(lambda options=options: ask(index, **options), n, again)
        share = recall(rows_of(run), exact)
        told = " ".join(f"{name}={value}" for name, value in options.items())
        first = share >= 0.95 and not reached
        row(
            f"  {told}",
            cpu,
            wall,
            f"recall@10 {share:.3f}{'  <- the cost of 0.95' if first else ''}",
        )
        if first:
            reached = True
            _direct(index, options, stored, asked, cpu, n, again)
            break
    if not reached:
        print("  no setting that was tried reaches 0.95")


def _direct(
    index: DenseIndex, options: dict[str, int], stored: Any, asked: Any, ours: float, n: int,
    again: int,
) -> None:  # fmt: skip
    """The same file in FAISS's own hands, refined by FAISS from vectors that it holds itself."""
    base = faiss.deserialize_index(np.frombuffer(index.segments[0].native(NATIVE), np.uint8))
    refine = options.get("refine", 1)
    inner = None
    if "nprobe" in options and "RaBitQ" in index.engine:
        inner = faiss.IVFRaBitQSearchParameters(nprobe=options["nprobe"])
    elif "nprobe" in options:
        inner = faiss.SearchParametersIVF(nprobe=options["nprobe"])
    elif "efSearch" in options:
        inner = faiss.SearchParametersHNSW(efSearch=options["efSearch"])
    if refine == 1:
        cpu, wall, _ = timed(lambda: base.search(asked, K, params=inner), n, again)
    else:
        whole = faiss.IndexRefineFlat(base, faiss.swig_ptr(stored))
        params = faiss.IndexRefineSearchParameters(k_factor=refine, base_index_params=inner)
        cpu, wall, _ = timed(lambda: whole.search(asked, K, params=params), n, again)
    row("  the same by FAISS alone", cpu, wall, f"through us {100 * (ours / cpu - 1):+.0f} % CPU")


if __name__ == "__main__":
    main()
