"""Updates of a large BM25 index: a delete and an add, each committed durably, and what follows.

    python benchmarks/updates.py [--documents 1000000] [--folder DIR] [--updates 50]

The index of `indexing.py` is built first, unless the folder holds it already. Each delete and each
add is a writer of its own, from the lock to the rename and its sync; merges of small segments are
part of it. A process is warmed up by one update, which is printed apart. Last come opening, the
first search after the updates, and a compaction.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from indexing import build, cold

from retrievekit import BM25Index, Document


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)


def line(name: str, times: list[float]) -> str:
    """Median, 95th percentile and maximum of some times."""
    p50, p95 = np.percentile(times, [50, 95])
    return f"{name:<22}{p50:>10.1f}{p95:>10.1f}{max(times):>10.1f}"


def update(index: BM25Index, number: int) -> tuple[float, float]:
    """Milliseconds of one delete and one add."""
    stamp = f"{index.reopen().manifest.generation}-{number}"
    gone = index.reopen().ids[number * 7919 % 900_000 % len(index)]

    def delete() -> None:
        with index.writer() as writer:
            writer.delete([gone])

    def add() -> None:
        with index.writer() as writer:
            writer.add([Document(f"new-{stamp}", "bacodi12 fugelhar7 and some more words")])

    return timed(delete), timed(add)


def main() -> None:
    """Build, update, open, search, compact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "index"
        if not (folder / "CURRENT").exists():
            build(options.documents, folder)
        index = BM25Index.open(folder)
        print(f"{len(index):,} documents, durable commits, milliseconds")
        print(f"{'':<22}{'median':>10}{'p95':>10}{'most':>10}")
        first = update(index, 0)
        print(line("first delete", [first[0]]))
        print(line("first add", [first[1]]))
        times = [update(index, number) for number in range(1, options.updates + 1)]
        print(line("delete", [delete for delete, _ in times]))
        print(line("add", [add for _, add in times]))
        print(line("open", [timed(lambda: BM25Index.open(folder)) for _ in range(20)]))
        fresh = index.reopen()
        print(f"segments {len(fresh.segments)}")
        searcher = fresh.searcher(k=10)
        search = timed(lambda: searcher.search("bacodi12 fugelhar7"))
        print(line("first search after", [search]))
        print(line("search", [timed(lambda: searcher.search("bacodi12")) for _ in range(20)]))
        cold(folder)

        def compact() -> None:
            with index.writer() as writer:
                writer.compact()

        print(f"compaction {timed(compact) / 1000:.1f} s")


if __name__ == "__main__":
    main()
