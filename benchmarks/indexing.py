"""BM25 indexing of a corpus that is never in memory: peak memory, speed, size, and a cold search.

    python benchmarks/indexing.py [--documents 1000000] [--folder DIR]

Documents are synthetic (seeded): 40 to 80 words drawn from a Zipf-like vocabulary of 200,000,
generated as they are read. The build runs in a process of its own, whose peak resident memory is
what the operating system says of it; the cold search is a new process of the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

VOCABULARY = 200_000


def words() -> list[str]:
    """Pronounceable made-up words, so that analysis has its usual work."""
    rng = np.random.default_rng(7)
    parts = ["ba", "co", "di", "fu", "gel", "har", "in", "jo", "kel", "lum", "mor", "nat", "os"]
    found: dict[str, None] = {}
    while len(found) < VOCABULARY:
        for row in rng.integers(0, len(parts), (VOCABULARY, 5)).tolist():
            found["".join(parts[i] for i in row[: 2 + row[4] % 4]) + str(len(found) % 97)] = None
    return list(found)[:VOCABULARY]


def documents(count: int) -> Iterator[object]:
    """The corpus as a stream."""
    from retrievekit import Document

    rng = np.random.default_rng(11)
    vocabulary = np.array(words())
    share = 1 / (np.arange(VOCABULARY) + 10.0)
    edges = np.cumsum(share / share.sum())
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        lengths = rng.integers(40, 81, size)
        drawn = np.minimum(np.searchsorted(edges, rng.random(lengths.sum())), VOCABULARY - 1)
        chosen = vocabulary[drawn]
        end = 0
        for place, length in enumerate(lengths.tolist()):
            text = " ".join(chosen[end : end + length].tolist())
            end += length
            yield Document(f"doc{start + place}", text)


def build(count: int, folder: Path) -> None:
    """The child: build, and print figures as JSON."""
    from retrievekit import BM25Index

    begin = time.perf_counter()
    index = BM25Index.build(documents(count), folder)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    postings = index.manifest.segments[0].arrays["postings.rows"].shape[0]
    figures = {"seconds": seconds, "peak": peak, "bytes": index.n_bytes, "postings": postings}
    print(json.dumps(figures))


def main() -> None:
    """Run the build in a child, then cold searches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "index"
        if options.child:
            build(options.documents, folder)
            return
        command = [sys.executable, __file__, "--child", "--folder", str(folder)]
        command += ["--documents", str(options.documents)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout)
        print(f"documents          {options.documents:>14,}")
        print(f"build              {figures['seconds']:>14.1f} s")
        print(f"documents/s        {options.documents / figures['seconds']:>14,.0f}")
        print(f"peak memory        {figures['peak'] / 1e9:>14.2f} GB")
        print(f"index, with texts  {figures['bytes'] / 1e9:>14.2f} GB")
        print(f"postings           {figures['postings']:>14,}")
        cold(folder)


def cold(folder: Path) -> None:
    """Wall time of new processes that search once; the first also compiles where it must."""
    command = [sys.executable, "-m", "retrievekit", "search", str(folder)]
    command += ["bacodi12 fugelhar7", "-k", "10", "--json"]
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
        times.append(time.perf_counter() - begin)
    print(f"cold search, first {times[0]:>14.2f} s")
    print(f"cold search, later {statistics.median(times[1:]):>14.2f} s (median of 5)")


if __name__ == "__main__":
    main()
