"""What checks cost: a first pass of queries with and without them, and how fast verify reads.

    python benchmarks/checks.py [--documents 200000] [--folder DIR]

A first pass opens an index anew, whose files are in the page cache, and asks its first queries;
nothing was verified before, and every page has to be mapped again. Without checks is the same with
all blocks marked as seen from the start. Each line is one process, with warm kernels, in which both
take turns; the figure is the ratio of the shortest times, which other work on the machine disturbs
least. The corpus is that of ``indexing.py``; the vectors are drawn at random, 384 components each.
Queries are three words drawn like those of documents.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from indexing import VOCABULARY, documents, words

DIM = 384
RUNS = 9
PASSES = (10, 100, 1000)
BLOCK = 1 << 20
GB = 1e9


class Drawn:
    """An encoder that draws a vector per text, so that building costs little."""

    dim = DIM
    similarity = "cosine"

    def __init__(self) -> None:
        from retrievekit.protocols import EncoderCard

        self.card = EncoderCard("drawn", {"dim": DIM}, {})
        self._rng = np.random.default_rng(3)

    def encode_document(self, texts: list[str]) -> np.ndarray:
        return self._rng.standard_normal((len(texts), DIM), dtype=np.float32)

    encode_query = encode_document


def queries(kind: str, count: int) -> object:
    """Vectors, or texts of three words by their frequency in documents."""
    from retrievekit import DenseVectors, Ids, Queries

    ids = [f"q{number}" for number in range(count)]
    rng = np.random.default_rng(5)
    if kind == "dense":
        vectors = rng.standard_normal((count, DIM), dtype=np.float32)
        return Queries(Ids.from_strings(ids), DenseVectors(vectors))
    share = 1 / (np.arange(VOCABULARY) + 10.0)
    vocabulary, edges = words(), np.cumsum(share / share.sum())
    drawn = np.minimum(np.searchsorted(edges, rng.random((count, 3))), VOCABULARY - 1)
    texts = [" ".join(vocabulary[place] for place in row) for row in drawn.tolist()]
    return Queries.from_texts(dict(zip(ids, texts, strict=True)))


def build(kind: str, count: int, folder: Path) -> None:
    """One index."""
    from retrievekit import BM25Index, DenseIndex

    if kind == "bm25":
        BM25Index.build(documents(count), folder)
    else:
        DenseIndex.build(documents(count), Drawn(), folder)


def opened(kind: str, folder: Path) -> object:
    """The index, opened."""
    from retrievekit import BM25Index, DenseIndex

    return BM25Index.open(folder) if kind == "bm25" else DenseIndex.open(folder, Drawn())


def first_pass(kind: str, folder: Path, asked: object, checks: bool) -> tuple[float, int]:
    """Seconds of opening and of the first queries, and the bytes that were verified for them."""
    begin = time.perf_counter()
    index = opened(kind, folder)
    arrays = [array for segment in index.segments for array in segment.arrays.values()]
    if not checks:
        for array in arrays:
            array._seen[:] = True
    index.search(asked, 10)
    seconds = time.perf_counter() - begin
    return seconds, sum(int(array._seen.sum()) * BLOCK for array in arrays)


def cost(kind: str, folder: Path, count: int) -> None:
    """The child: print one line of the table."""
    asked = queries(kind, count)
    first_pass(kind, folder, asked, checks=True)
    figures: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
    for turn in range(2 * RUNS):
        checks = bool(turn % 2)
        figures[checks].append(first_pass(kind, folder, asked, checks))
    with_, without = (min(seconds for seconds, _ in figures[checks]) for checks in (True, False))
    verified = figures[True][0][1] / GB
    print(
        f"{kind:<8}{count:>8}{1000 * without:>13.1f} ms{1000 * with_:>13.1f} ms"
        f"{100 * (with_ / without - 1):>+9.1f} %{verified:>11.2f} GB"
    )


def rate(folder: Path, deep: bool) -> str:
    """How fast an index in the page cache is verified; best of three."""
    from retrievekit.store.verify import verify

    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        report = verify(folder, deep=deep)
        best = min(best, time.perf_counter() - begin)
        if not report.ok:
            raise SystemExit(f"{folder} is damaged")
    total = sum(file.size for file in report.files)
    return f"{total / best / GB:.2f} GB/s ({total / GB:.2f} GB)"


def main() -> None:
    """Build both indexes, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--child", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, path, count = options.child
        cost(kind, Path(path), int(count))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        for kind in ("bm25", "dense"):
            if not (root / kind).exists():
                build(kind, options.documents, root / kind)
        print(f"{options.documents:,} documents, {os.cpu_count()} cores; best of {RUNS}\n")
        print(
            f"{'index':<8}{'queries':>8}{'unchecked':>16}{'checked':>16}{'cost':>11}{'verified':>14}"
        )
        for kind in ("bm25", "dense"):
            for count in PASSES:
                child = [sys.executable, __file__, "--child", kind, str(root / kind), str(count)]
                done = subprocess.run(child, check=True, capture_output=True, text=True)
                print(done.stdout, end="", flush=True)
        print()
        for kind in ("bm25", "dense"):
            print(f"verify {kind:<8}        {rate(root / kind, deep=False)}")
            print(f"verify {kind:<8} --deep {rate(root / kind, deep=True)}")


if __name__ == "__main__":
    main()
