"""FAISS behind the door of `DenseIndex`: any factory string, trained once, searched with a filter.

FAISS takes inner products for ``dot`` and ``cosine`` (over vectors that the index has normalised)
and squared distances for ``euclidean``; nothing is augmented to turn one into another. FAISS's PCA
subtracts a mean, which would change inner products: under these it, and ITQ, learn none.

Training, adding and serialising give the same bytes for the same vectors, whatever the number of
threads; graphs are built by one thread, because several race for the order of links. Hence a native
file can be made again from the stored vectors and what was learnt once.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, MissingExtraError, UnknownNameError
from retrievekit.index.engines import opq
from retrievekit.protocols import Proposer, Similarity

log = logging.getLogger(__name__)

TRAINED_ON = 1 << 16
"""Vectors that are sampled for training, or 256 for each inverted list if these are more."""

SEED = 20261121
"""Of the sample; FAISS has seeds of its own."""

FEW = 10_000
"""Up to so many vectors an engine that cannot be trained on them leaves the search to `flat`."""

_NO_FILTER = ("not supported", "invalid search params")
"""What FAISS says where an index type knows no selector."""

_reading = threading.Lock()


def faiss_module() -> Any:
    """The module FAISS.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import faiss
    except ImportError as why:
        raise MissingExtraError("faiss", "faiss", "an engine other than flat") from why
    return faiss


class FaissEngine:
    """What a FAISS factory string stands for, at one dimension and similarity.

    Args:
        factory: The factory string, such as ``HNSW32`` or ``IVF512,PQ96x4fs``.
        dim: Components of each vector.
        similarity: How vectors are compared.

    Raises:
        MissingExtraError: FAISS is not installed.
        UnknownNameError: FAISS knows no such string.
        DataError: FAISS cannot build it at this dimension or similarity.
    """

    def __init__(self, factory: str, dim: int, similarity: Similarity) -> None:
        self.name = factory
        self.dim = dim
        self.similarity: Similarity = similarity
        self.empty()
        if "IDMap" in factory:
            raise DataError(f"engine {factory!r}: rows are numbered already; leave IDMap out")

    def empty(self) -> Any:
        """FAISS's index, untrained.

        Returns:
            The index.

        Raises:
            UnknownNameError: FAISS knows no such string.
            DataError: FAISS cannot build it at this dimension or similarity.
        """
        faiss = faiss_module()
        metric = faiss.METRIC_L2 if self.similarity == "euclidean" else faiss.METRIC_INNER_PRODUCT
        try:
            index = faiss.index_factory(self.dim, self.name, metric)
        except RuntimeError as why:
            said = str(why).rpartition("Error: ")[2].rpartition(".cpp:")[2]
            if "could not parse" in said:
                raise UnknownNameError(
                    f"no engine named {self.name!r}: it is neither 'flat' nor 'binary' or 'int8', "
                    "nor a FAISS factory string such as 'HNSW32', 'IVF256,Flat', "
                    "'IVF512,PQ96x4fs', 'SQ8', 'RaBitQ'"
                ) from why
            raise DataError(
                f"FAISS cannot build the engine {self.name!r} for vectors of {self.dim} "
                f"components compared by {self.similarity!r}: {said}"
            ) from why
        for part in _parts(index):
            for owner in (part, getattr(part, "pq", None)):
                if owner is not None and hasattr(
                    owner, "cp"
                ):  # FAISS would print what is logged here
                    owner.cp.min_points_per_centroid = 1
        kind = type(_innermost(index)).__name__
        if kind == "Index2Layer" or kind.endswith("CoarseQuantizer"):
            raise DataError(
                f"engine {self.name!r}: FAISS has it as a part of others only ({kind}); such as "
                "'IVF256,PQ48x4fs' can be searched"
            )
        return index

    def trained(self, vectors: NDArray[np.float32]) -> bytes | None:
        """What the engine learns of vectors before it can hold any.

        Args:
            vectors: float32 ``(n, dim)``, possibly mapped; a sample is trained on.

        Returns:
            A trained engine that holds nothing, serialised; empty where there is nothing to learn,
            None where there are too few vectors to learn from.

        Raises:
            DataError: FAISS cannot be trained, though there are many vectors.
        """
        index = self.empty()
        if index.is_trained:
            return b""
        for part in _parts(index):
            if getattr(part, "do_polysemous_training", False):
                log.warning(
                    "engine %r trains polysemous codes, which takes minutes; %s is as good for "
                    "search without them",
                    self.name, _without_polysemous(self.name),
                )  # fmt: skip
        lists = [part.nlist for part in _parts(index) if hasattr(part, "nlist")]
        most = max([TRAINED_ON, *(256 * n for n in lists)])
        sample = vectors
        if len(vectors) > most:
            rows = np.random.default_rng(SEED).choice(len(vectors), most, replace=False)
            sample = np.asarray(vectors[np.sort(rows)])
        if lists and max(lists) <= len(sample) < 39 * max(lists):
            log.warning(
                "engine %r: %d vectors to train %d lists on; FAISS recommends at least %d",
                self.name, len(sample), max(lists), 39 * max(lists),
            )  # fmt: skip
        # What FAISS points to without holding it stays until it has been trained.
        held = [
            opq.prepare(faiss_module(), transform, self.name, len(sample))
            for transform in _transforms(index)
        ]
        try:
            if self.similarity != "euclidean":
                _train_uncentred(index, sample)
            index.train(sample)
            held.clear()
        except RuntimeError as why:
            said = str(why).rpartition("failed: ")[2] or str(why).rpartition("Error: ")[2]
            if len(vectors) > FEW:
                raise DataError(
                    f"FAISS cannot train the engine {self.name!r} on {len(vectors)} vectors: {said}"
                ) from why
            log.warning(
                "engine %r cannot be trained on %d vectors (%s): they are searched exactly, until "
                "compact() finds more of them",
                self.name, len(vectors), said,
            )  # fmt: skip
            return None
        return _serialized(index)

    def built(self, vectors: NDArray[np.float32], trained: bytes | memoryview) -> bytes:
        """A segment's native file: the same bytes for the same vectors and training.

        Args:
            vectors: float32 ``(n, dim)``, possibly mapped.
            trained: What `trained` gave, of these vectors or others.

        Returns:
            The file.
        """
        index = FaissSegment.opened(memoryview(trained)).native if trained else self.empty()
        with _threads(1 if _is_graph(index) else None):
            index.add(vectors)
        return _serialized(index)

    def opened(self, data: memoryview) -> Proposer:
        """A native file, opened.

        Args:
            data: Its bytes, their checksums compared.

        Returns:
            What searches it.
        """
        return FaissSegment.opened(data)

    def emptied(self, data: memoryview) -> bytes:
        """What had been learnt, from a native file.

        Args:
            data: The native file, its checksums compared.

        Returns:
            What `trained` gave.
        """
        index = FaissSegment.opened(data).native
        index.reset()
        return _serialized(index)


def _serialized(index: Any) -> bytes:
    data: bytes = faiss_module().serialize_index(index).tobytes()
    return data


class FaissSegment:
    """A native file, opened.

    Args:
        native: FAISS's index.
    """

    def __init__(self, native: Any) -> None:
        self.native = native
        self.filters = True

    @classmethod
    def opened(cls, data: memoryview) -> FaissSegment:
        """Parse a native file whose checksums were compared.

        Args:
            data: Its bytes.

        Returns:
            The segment.
        """
        faiss = faiss_module()
        raw = np.frombuffer(data, np.uint8)
        if not hasattr(faiss, "set_deserialization_vector_byte_limit"):
            return cls(faiss.deserialize_index(raw))
        # No vector inside may be larger than the file. FAISS compares with a quarter of the limit.
        with _reading:
            before = faiss.get_deserialization_vector_byte_limit()
            faiss.set_deserialization_vector_byte_limit(4 * len(raw) + 4096)
            try:
                index = faiss.deserialize_index(raw, faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)
            finally:
                faiss.set_deserialization_vector_byte_limit(before)
        # Tables that are no part of the file, and may be larger than it.
        for part in _parts(index):
            if isinstance(part, faiss.IndexIVFPQ):
                part.precompute_table()
        return cls(index)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        options: Mapping[str, int],
        threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows that may be near each query.

        Args:
            queries: float32 ``(nq, dim)``.
            k: How many to fetch; an index type that cannot filter fetches more.
            allowed: bool ``(documents,)`` of rows that may be hits, or None for all.
            options: What `options.settled` gave.
            threads: Threads to use; all cores by default.

        Returns:
            Rows, int64 ``(nq, m)``, -1 for none, and FAISS's own scores, float32 ``(nq, m)``.
        """
        n = int(self.native.ntotal)
        with _threads(threads):
            if allowed is not None and self.filters:
                selector = faiss_module().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
                try:
                    return self._fetch(queries, min(k, n), options, selector)
                except RuntimeError as why:
                    if not any(said in str(why) for said in _NO_FILTER):
                        raise
                    self.filters = False  # and never asked again
            if allowed is None:
                return self._fetch(queries, min(k, n), options, None)
            share = max(int(allowed.sum()), 1) / n
            rows, scores = self._fetch(queries, min(n, int(1.25 * k / share) + 16), options, None)
        rows[(rows >= 0) & ~allowed[rows]] = -1
        return rows, scores

    def _fetch(
        self, queries: NDArray[np.float32], k: int, options: Mapping[str, int], selector: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        wanted = parameters(self.native, options, selector)
        scores, rows = self.native.search(queries, k, params=wanted)
        return rows, scores


def parameters(index: Any, options: Mapping[str, int], selector: Any) -> Any:
    """FAISS's search parameters for an index type.

    Args:
        index: FAISS's index.
        options: What `options.settled` gave.
        selector: FAISS's selector of rows, or None.

    Returns:
        The parameters; None where it takes none and none is needed.
    """
    faiss = faiss_module()
    index = faiss.downcast_index(index)
    more = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexPreTransform):
        inner = parameters(index.index, options, selector)
        if inner is None:
            return None
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = parameters(index.base_index, options, selector)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        more["nprobe"] = min(options.get("nprobe", 1), index.nlist)
        quantizer = faiss.downcast_index(index.quantizer)
        if isinstance(quantizer, faiss.IndexHNSW):
            ef = options.get("efSearch", 64)
            more["quantizer_params"] = faiss.SearchParametersHNSW(efSearch=ef)
        if "RaBitQ" in type(index).__name__:
            return faiss.IVFRaBitQSearchParameters(**more)
        return faiss.SearchParametersIVF(**more)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=options.get("efSearch", 64), **more)
    if selector is None:
        return None
    if isinstance(index, faiss.IndexRaBitQ):
        return faiss.RaBitQSearchParameters(**more)
    return faiss.SearchParameters(**more)


def _parts(index: Any) -> Iterator[Any]:
    """An index and those inside it."""
    faiss = faiss_module()
    todo = [index]
    while todo:
        part = faiss.downcast_index(todo.pop())
        yield part
        for name in ("index", "base_index", "quantizer", "storage"):
            inner = getattr(part, name, None)
            if isinstance(inner, faiss.Index):
                todo.append(inner)


def _innermost(index: Any) -> Any:
    """An index without transforms before it and refining behind it."""
    faiss = faiss_module()
    index = faiss.downcast_index(index)
    while isinstance(index, (faiss.IndexPreTransform, faiss.IndexRefine)):
        refined = isinstance(index, faiss.IndexRefine)
        index = faiss.downcast_index(index.base_index if refined else index.index)
    return index


def _is_graph(index: Any) -> bool:
    return any("HNSW" in type(p).__name__ or "NSG" in type(p).__name__ for p in _parts(index))


def _without_polysemous(factory: str) -> str:
    return repr(re.sub(r"(?:^|(?<=[,_]))(PQ\d+(?:x\d+)?)(?=,|$)", r"\1np", factory))


def _transforms(index: Any) -> list[Any]:
    """What vectors go through before they reach an index, in this order."""
    faiss = faiss_module()
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain = index.chain
    return [faiss.downcast_VectorTransform(chain.at(number)) for number in range(chain.size())]


def _train_uncentred(index: Any, sample: NDArray[np.float32]) -> None:
    """Train what learns a mean on the vectors and their opposites, whose mean is 0."""
    faiss = faiss_module()
    for transform in _transforms(index):
        if not transform.is_trained:
            learns = isinstance(transform, (faiss.PCAMatrix, faiss.ITQTransform))
            transform.train(np.concatenate([sample, -sample]) if learns else sample)
        sample = transform.apply(sample)


@contextlib.contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """So many threads for FAISS, called from this thread."""
    faiss = faiss_module()
    if threads is None:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
