"""How quickly things start: the import, and a search from a cold shell.

    python benchmarks/starting.py

Each figure is the median wall time of new processes. The search is ``retrievekit search`` on a
BM25 index of the embedded collection; the first one of an installed version also compiles kernels.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 9
HEAVY = ("torch", "numba", "transformers", "sentence_transformers", "pandas", "jnius", "faiss")


def seconds(*command: str) -> float:
    """Wall time of one process."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def median(*command: str) -> float:
    """Median wall time of several processes, after one that is not counted."""
    seconds(*command)
    return statistics.median(seconds(*command) for _ in range(RUNS))


def main() -> None:
    """Measure and print."""
    numpy = median(sys.executable, "-c", "import numpy")
    package = median(sys.executable, "-c", "import numpy, retrievekit")
    print(f"import numpy                  {1000 * numpy:7.0f} ms")
    print(f"import numpy, retrievekit     {1000 * package:7.0f} ms")
    print(f"difference                    {1000 * (package - numpy):7.0f} ms")
    probe = f"import retrievekit, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True)
    print(f"heavy modules it loads        {loaded.stdout.decode().strip():>7}")

    from retrievekit import BM25Index, load_dataset

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdlib.index"
        BM25Index.build(load_dataset("stdlib").corpus, path)
        search = (sys.executable, "-m", "retrievekit", "search", str(path), "sort a list")
        print(f"retrievekit search, cold      {1000 * median(*search):7.0f} ms")


if __name__ == "__main__":
    main()
