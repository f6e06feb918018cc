"""FAISS's indexes on a GPU, where FAISS has a form of them for it (extra ``gpu``).

Only the search is moved: what is learnt, built and stored stays FAISS's work on the processor, so
that files are the same bytes wherever they were made. What a GPU proposes is scored again from the
stored vectors like any proposal, where `refine` says so.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DeviceError
from retrievekit.index.engines.faiss import FaissEngine, FaissSegment, faiss_module, parameters
from retrievekit.protocols import Proposer

MOST = 2048
"""Rows, and inverted lists, that FAISS fetches on a GPU at most."""

FORMS = ("IndexFlat", "IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ")
"""Types with a form for GPUs, also behind transforms such as PCA and OPQ; lists found by a flat
quantizer."""

_NAMES = "'Flat', 'IVF256,Flat', 'IVF256,SQ8', 'IVF256,PQ16', each also behind 'PCA' or 'OPQ'"


def unfit(engine: FaissEngine, device: str) -> str:
    """Why an engine cannot be searched on a GPU.

    Args:
        engine: The engine.
        device: Such as ``cuda:0``.

    Returns:
        The reason; empty when it can.
    """
    faiss = faiss_module()
    there = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    if _number(device) >= there:
        return (
            f"this FAISS finds {there} GPUs, so {engine.name!r} is not searched on {device}: "
            'pip install "retrievekit[gpu]" in place of the extra faiss'
        )
    whole = engine.empty()  # owns what is looked at below
    index = faiss.downcast_index(whole)
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    kinds = [type(index).__name__]
    if isinstance(index, faiss.IndexIVF):
        kinds.append(type(faiss.downcast_index(index.quantizer)).__name__)
    if kinds[0].removesuffix("IP").removesuffix("L2") in FORMS and all(
        kind.startswith("IndexFlat") for kind in kinds[1:]
    ):
        return ""
    return f"FAISS has no form of {engine.name!r} for GPUs, but of {_NAMES}"


class GpuEngine(FaissEngine):
    """An engine whose files are searched on a GPU.

    Args:
        engine: The engine.
        device: Such as ``cuda:0``.
    """

    def __init__(self, engine: FaissEngine, device: str) -> None:
        super().__init__(engine.name, engine.dim, engine.similarity)
        self._device = device
        self._resources: Any = None
        # Neither the resources nor what was made by them may be used by two threads at once.
        self._one = threading.Lock()

    def opened(self, data: memoryview) -> Proposer:
        """A native file, opened and copied to the GPU.

        Args:
            data: Its bytes, their checksums compared.

        Returns:
            What searches it.

        Raises:
            DeviceError: FAISS cannot copy it there.
        """
        faiss, segment = faiss_module(), FaissSegment.opened(data)
        with self._one:
            try:
                if self._resources is None:
                    self._resources = faiss.StandardGpuResources()
                number = _number(self._device)
                there = faiss.index_cpu_to_gpu(self._resources, number, segment.native)
            except RuntimeError as why:
                raise DeviceError(
                    f"FAISS cannot hold the engine {self.name!r} on {self._device}: {why}; leave "
                    f"device out, or take one of {_NAMES}"
                ) from why
        return GpuSegment(segment, there, self._one)


class GpuSegment:
    """A native file on a GPU, and on the processor for what a GPU does not do.

    Args:
        segment: The file on the processor.
        there: FAISS's index on the GPU.
        one: Held while it is used.
    """

    def __init__(self, segment: FaissSegment, there: Any, one: threading.Lock) -> None:
        self._segment = segment
        self._there = there
        self._one = one

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        options: Mapping[str, int],
        threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows that may be near each query; see `FaissSegment.search`.

        No GPU index knows a selector: more rows are fetched, and those not allowed dropped.

        Args:
            queries: float32 ``(nq, dim)``.
            k: How many to fetch.
            allowed: bool ``(documents,)`` of rows that may be hits, or None for all.
            options: What `options.settled` gave.
            threads: Threads of the processor to use, where it searches.

        Returns:
            Rows, int64 ``(nq, m)``, -1 for none, and FAISS's own scores, float32 ``(nq, m)``.

        Raises:
            DeviceError: FAISS failed, as it does without memory.
        """
        n, fetched = int(self._segment.native.ntotal), k
        if allowed is not None:
            fetched = int(1.25 * k * n / max(int(allowed.sum()), 1)) + 16
        fetched = min(fetched, n)
        if max(fetched, options.get("nprobe", 1)) > MOST:
            return self._segment.search(queries, k, allowed, options, threads)
        wanted = parameters(self._segment.native, options, None)
        with self._one:
            try:
                scores, rows = self._there.search(queries, fetched, params=wanted)
            except RuntimeError as why:
                raise DeviceError(f"FAISS failed on its device: {why}; leave device out") from why
        if allowed is not None:
            rows[(rows >= 0) & ~allowed[rows]] = -1
        return rows, scores


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0)
