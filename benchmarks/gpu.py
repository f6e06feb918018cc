"""A GPU against what it could do at most: encoding, exact search by torch, FAISS's flat index.

    python benchmarks/gpu.py [--documents 1000000] [--repetitions 5] [--only encode|search]
    python benchmarks/gpu.py --device cpu --small      # the same program without a GPU, to try it

First the device's own rates are measured: bytes copied per second (read and written counted both)
and operations per second of a large matrix product of random numbers. The floor of a work is the
larger of two times: the fewest bytes that it must read, and the operations that it must do, at
those rates; the share is floor over measured time, and which of the two it is stands beside it
(M: memory, A: arithmetic). For a search the bytes are the vectors as they lie on the device, read
once; for encoding only the matrix products of the layers are counted, and attention.

Times of search are of the clock, from queries on the processor to ids there, the best of some
repetitions. Ours scores its finalists again on the processor and must give the processor's own
answer, ids and scores; of FAISS's the places are counted that hold other ids, and the largest gap
of scores there. Vectors are synthetic and seeded: clusters of 100, normalised, queries drawn alike.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrievekit import Corpus, DenseIndex, Queries, SentenceEncoder
from retrievekit.encode.backends.samples import made_texts
from retrievekit.index.engines import places
from retrievekit.vectors import DenseVectors

K = 10
DIMS = (384, 768)
BATCHES = (1, 200, 1000)
WIDTH = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}


class Rates:
    """What a device does per second at most, measured.

    Args:
        device: The device.
        size: Rows and columns of the matrices; bytes copied are four times their square.
    """

    def __init__(self, device: str, size: int) -> None:
        self.device, self._size = device, size
        self._operations: dict[torch.dtype, float] = {}
        source = torch.rand(8 * size, size, device=device)
        target = torch.empty_like(source)
        seconds = best(lambda: target.copy_(source), device)
        self.bytes = 2 * 4 * source.numel() / seconds

    def operations(self, dtype: torch.dtype) -> float:
        """Operations per second of a matrix product.

        Args:
            dtype: Of its factors.

        Returns:
            Multiplications and additions.
        """
        if dtype not in self._operations:
            a, b = (torch.randn(self._size, self._size, device=self.device) for _ in range(2))
            a, b = a.to(dtype), b.to(dtype)
            self._operations[dtype] = 2 * self._size**3 / best(lambda: a @ b, self.device)
        return self._operations[dtype]

    def share(self, seconds: float, n_bytes: float, operations: float, dtype: torch.dtype) -> str:
        """The floor as a part of a time, and what the floor is made of."""
        memory, arithmetic = n_bytes / self.bytes, operations / self.operations(dtype)
        floor = f"{100 * max(memory, arithmetic) / seconds:5.1f} %"
        return f"{floor} {'M' if memory > arithmetic else 'A'}"


def finished(device: str) -> None:
    """Wait for what a device was given to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def best(work: Callable[[], Any], device: str, repetitions: int = 10) -> float:
    """Seconds of the clock, the best of some, after two that do not count."""
    shortest = float("inf")
    for number in range(repetitions + 2):
        finished(device)
        start = time.perf_counter()
        work()
        finished(device)
        if number > 1:
            shortest = min(shortest, time.perf_counter() - start)
    return shortest


def encoding(rates: Rates, n_texts: int, repetitions: int) -> None:
    """Tokens per second of the packaged MiniLM."""
    from transformers import AutoTokenizer

    texts = (made_texts() * (1 + n_texts // len(made_texts())))[:n_texts]
    print(f"\n{'encode, MiniLM, ' + format(n_texts, ',') + ' texts':<34}{'ms':>9}{'texts/s':>10}"
          f"{'tokens/s':>12}{'of the floor':>15}")  # fmt: skip
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        encoder = SentenceEncoder("minilm", device=rates.device, dtype=name, batch_size=256)
        tokenizer = AutoTokenizer.from_pretrained(str(encoder.folder.path), local_files_only=True)
        model = encoder.model
        limit = int(model.max_seq_length or 512)
        lengths = np.array([len(ids) for ids in tokenizer(texts)["input_ids"]]).clip(max=limit)
        config = model[0].auto_model.config
        wide, layers = config.hidden_size, config.num_hidden_layers
        weights = layers * (4 * wide**2 + 2 * wide * config.intermediate_size)
        operations = float(2 * weights * lengths.sum() + 4 * layers * wide * (lengths**2).sum())
        n_bytes = weights * WIDTH[dtype]
        seconds = best(lambda: encoder.encode_document(texts), rates.device, repetitions)  # noqa: B023  # called at once
        print(f"{'  ' + name:<34}{1e3 * seconds:>9.1f}{n_texts / seconds:>10,.0f}"
              f"{lengths.sum() / seconds:>12,.0f}"
              f"{rates.share(seconds, n_bytes, operations, dtype):>15}", flush=True)  # fmt: skip


def vectors(documents: int, queries: int, dim: int) -> tuple[NDArray[np.float32], ...]:
    """Two float32 arrays ``(n, dim)`` of unit vectors."""
    rng = np.random.default_rng(33)
    centres = rng.standard_normal((max(50, documents // 100), dim), dtype=np.float32)

    def draw(n: int) -> NDArray[np.float32]:
        out = rng.standard_normal((n, dim), dtype=np.float32)
        out *= 0.9
        for first in range(0, n, 1 << 16):
            part = out[first : first + (1 << 16)]
            part += centres[rng.integers(len(centres), size=len(part))]
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        return out

    return draw(documents), draw(queries)


def row(name: str, seconds: float, n: int, share: str, more: str = "") -> None:
    print(f"{name:<34}{1e3 * seconds:>9.2f}{n / seconds:>12,.0f}{share:>15}  {more}", flush=True)


def searching(rates: Rates, documents: int, dim: int, repetitions: int) -> None:
    """Exact search of one size, and FAISS's."""
    stored, asked = vectors(documents, max(BATCHES), dim)
    corpus = Corpus.from_texts({str(number): "" for number in range(documents)})
    title = f"search, {documents:,} x {dim}, k={K}"
    print(f"\n{title:<34}{'ms':>9}{'queries/s':>12}{'of the floor':>15}  against the processor")
    with TemporaryDirectory() as folder:
        index = DenseIndex.from_vectors(corpus, stored, Path(folder) / "i", similarity="cosine")
        faiss_there = faiss_flat(stored, rates.device)
        for n in BATCHES:
            queries = Queries.from_texts([str(q) for q in range(n)])
            queries = queries.rewritten(DenseVectors(asked[:n]))
            exact = index.search(queries, K)
            own: list[Any] = []
            work = 2.0 * n * documents * dim

            def ours(queries: Queries = queries, own: list[Any] = own) -> None:
                own[:] = [index.search(queries, K, device=rates.device)]

            seconds = best(ours, rates.device, repetitions)
            same = np.array_equal(own[0].rows, exact.rows)
            same = same and own[0].scores.tobytes() == exact.scores.tobytes()
            share = rates.share(seconds, 2 * stored.size, work, torch.float16)
            told = "same ids and scores" if same else "ANOTHER ANSWER"
            row(f"  retrievekit flat, {n} at once", seconds, n, share, told)
            for name, width, search in faiss_there:
                found: list[Any] = []

                def theirs(n: int = n, search: Any = search, found: list[Any] = found) -> None:
                    found[:] = search(asked[:n], K)

                seconds = best(theirs, rates.device, repetitions)
                dtype = torch.float32 if width == 4 else torch.float16
                share = rates.share(seconds, width * stored.size, work, dtype)
                row(f"  {name}, {n} at once", seconds, n, share, differing(found, exact))


def faiss_flat(stored: NDArray[np.float32], device: str) -> list[tuple[str, int, Any]]:
    """FAISS's flat indexes: their names, bytes of a number, and what searches them."""
    try:
        import faiss
    except ImportError:
        print("  no FAISS here (extra gpu, or faiss): ours alone")
        return []
    dim = stored.shape[1]
    if not device.startswith("cuda"):
        index = faiss.IndexFlatIP(dim)
        index.add(stored)
        return [("FAISS flat", 4, index.search)]
    if not (hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus()):
        print("  this FAISS knows no GPU (extra gpu): ours alone")
        return []
    out = []
    resources = faiss.StandardGpuResources()
    for name, width in (("FAISS-GPU flat", 4), ("FAISS-GPU flat float16", 2)):
        config = faiss.GpuIndexFlatConfig()
        config.device = int(device.partition(":")[2] or 0)
        config.useFloat16 = width == 2
        there = faiss.GpuIndexFlatIP(resources, dim, config)
        there.add(stored)
        out.append((name, width, there.search))
    return out


def differing(found: list[Any], exact: Any) -> str:
    """How many places hold other documents, and the largest gap of scores at one of them."""
    scores, ids = found
    own = exact.scores.reshape(ids.shape)
    here = [[int(name) for name in exact.hits(q).doc_ids] for q in range(len(exact))]
    other = ids != np.array(here)
    gap = float(np.abs(own - scores)[other].max(initial=0))
    return f"{int(other.sum())} places differ, scores there by at most {gap:.1e}"


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes that a laptop can do")
    parser.add_argument("--documents", type=int)
    parser.add_argument("--texts", type=int)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", choices=("encode", "search"))
    args = parser.parse_args()
    if args.device.startswith("cuda"):
        if not torch.cuda.is_available():
            print(f"no GPU here (torch {torch.__version__}): nothing is measured; "
                  "--device cpu --small runs the same program without one")  # fmt: skip
            return
        name = torch.cuda.get_device_name(args.device)
    else:
        places.PROCESSOR = ()  # torch's processor stands in for the device
        name = "the processor in place of a GPU: its figures say nothing"
    documents = args.documents or (20_000 if args.small else 1_000_000)
    rates = Rates(args.device, 512 if args.small else 8192)
    kinds = (torch.float16, torch.bfloat16, torch.float32)
    measured = ", ".join(
        f"{str(kind).removeprefix('torch.')} {rates.operations(kind) / 1e12:.3g}" for kind in kinds
    )
    versions = [f"torch {torch.__version__}"]
    for package in ("faiss-gpu", "faiss-cpu"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    print(f"{name}; {', '.join(versions)}")
    print(f"copied {rates.bytes / 1e9:,.0f} GB/s; matrix products in TFLOP/s: {measured}")
    if args.only != "search":
        encoding(rates, args.texts or (256 if args.small else 20_000), args.repetitions)
    if args.only != "encode":
        for dim in DIMS:
            searching(rates, documents, dim, args.repetitions)


if __name__ == "__main__":
    main()
