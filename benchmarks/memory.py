"""Peak memory of building indexes of collections that are larger than the memory budget.

    python benchmarks/memory.py [--budget MIB] [--times 4] [--kind bm25 dense] [--folder DIR]

Documents are synthetic (seeded): 40 to 80 words drawn from a Zipf-like vocabulary of 200,000,
generated as they are read, until their words fill `times` budgets. The dense index is made with a
toy encoder that costs next to nothing, so that what is measured is the library. Each build runs in
a process of its own, whose peak resident memory is what the operating system says of it; pages of
mapped files count. The figure to hold: at most 1.2 budgets.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from indexing import documents
from numpy.typing import NDArray

from retrievekit import Document
from retrievekit.protocols import EncoderCard

MIB = 1 << 20

HELD = 1.2
"""Budgets that a build may reach at most."""


class Cheap:
    """Vectors out of a table, by a checksum of the text."""

    dim = 64
    similarity = "cosine"
    card = EncoderCard("cheap", {"model": "cheap", "dim": dim, "similarity": similarity})

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self._table = rng.standard_normal((4096, self.dim)).astype(np.float32)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._table[[zlib.crc32(text.encode()) % len(self._table) for text in texts]]

    encode_query = encode_document


def stream(size: int) -> Iterator[Document]:
    """Documents until their words are so many bytes."""
    held = 0
    source: Any = documents(1 << 40)
    for document in source:
        held += len(document.text)
        yield document
        if held >= size:
            return


def peak() -> int:
    """Most bytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build(kind: str, size: int, budget: int, folder: Path) -> None:
    """The child: build, and print figures as JSON."""
    from retrievekit import BM25Index, DenseIndex

    # What every build needs, whatever its size: interpreter, libraries, compiled kernels.
    few = stream(1)
    next(few)
    at_start = peak()
    begin = time.perf_counter()
    if kind == "bm25":
        index: Any = BM25Index.build(stream(size), folder, memory_budget=budget)
    else:
        index = DenseIndex.build(stream(size), Cheap(), folder, memory_budget=budget)
    figures = {
        "seconds": time.perf_counter() - begin,
        "start": at_start,
        "peak": peak(),
        "documents": len(index),
        "segments": len(index.segments),
        "bytes": index.n_bytes,
    }
    print(json.dumps(figures))


def main() -> None:
    """Run each build in a child and compare its peak with the budget."""
    from retrievekit.index.budget import HELD_BESIDES, LEFT_AT_LEAST

    least = HELD_BESIDES + LEFT_AT_LEAST
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=least // MIB, help="in MiB")
    parser.add_argument("--times", type=float, default=4.0)
    parser.add_argument("--kind", nargs="+", default=["bm25", "dense"])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    budget, size = options.budget * MIB, int(options.budget * MIB * options.times)
    if options.child:
        build(options.kind[0], size, budget, options.folder)
        return
    print(f"budget {options.budget:,} MiB, words {size / MIB:,.0f} MiB")
    print(
        f"{'':<8}{'documents':>12}{'segments':>10}{'docs/s':>10}{'start':>10}{'peak':>10}"
        f"{'of budget':>11}"
    )
    held = True
    for kind in options.kind:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            command = [sys.executable, __file__, "--child", "--kind", kind]
            command += ["--folder", str(Path(temporary) / "index")]
            command += ["--budget", str(options.budget), "--times", str(options.times)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
        share = found["peak"] / budget
        held &= share <= HELD
        print(
            f"{kind:<8}{found['documents']:>12,}{found['segments']:>10}"
            f"{found['documents'] / found['seconds']:>10,.0f}"
            f"{found['start'] / MIB:>6,.0f} MiB{found['peak'] / MIB:>6,.0f} MiB{share:>11.3f}"
        )
    sys.exit(0 if held else f"above {HELD} budgets")


if __name__ == "__main__":
    main()
