"""`DenseIndex`: vectors of documents, searched exactly.

Vectors are kept in our own plain format, float32, and mapped. Under the ``cosine`` similarity they
are normalised once when they are stored, and queries when they are searched; under ``dot`` nothing
is touched; under ``euclidean`` the score is minus the distance, so that higher is better
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrievekit.candidates import CandidatesLike
from retrievekit.corpus import Corpus, Document
from retrievekit.index.asked import check_range, query_vectors
from retrievekit.index.base import Index
from retrievekit.index.creating import create
from retrievekit.index.derived import Derivation
from retrievekit.index.documents import DocumentWriter
from retrievekit.index.encoders import encoder_of_card, matching
from retrievekit.index.encoding import GIVEN, copy_vectors, write_segment
from retrievekit.index.engines import approximate
from retrievekit.index.engines.named import engine_named
from retrievekit.index.engines.options import settled
from retrievekit.index.engines.places import Places, check_device
from retrievekit.index.engines.searcher import EngineSearcher
from retrievekit.index.given import GivenVectors, VectorSource
from retrievekit.index.once import SHARD
from retrievekit.index.results import check_k, run_of
from retrievekit.index.searcher import Searcher
from retrievekit.index.storage import (
    LEAST,
    VECTORS,
    Stored,
    VectorWriter,
    calibrated,
    dtype_of,
    overall_error,
)
from retrievekit.protocols import (
    Encoder,
    EncoderCard,
    Engine,
    Progress,
    Similarity,
    similarity_named,
)
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import fingerprint_of
from retrievekit.store.manifest import Manifest
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter
from retrievekit.vectors import DenseVectors
from retrievekit.where import Condition

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Makes other vectors ``(n, dim)`` of vectors ``(n, d)``."""


class DenseIndex(Index):
    """Document vectors with the encoder that made them.

    Args:
        generation: The pinned generation.
        encoder: The query encoder; by default the one on the manifest's card, loaded when needed.

    Raises:
        FormatVersionError: The index is of another kind.
        EncoderMismatchError: The encoder is another one than the index was built with.
    """

    kind: ClassVar[str] = "dense"
    on_devices: ClassVar[bool] = True
    calibrated_from: ClassVar[int] = LEAST
    """Vectors from which the steps of int8 are calibrated; with fewer a segment keeps float32."""

    def __init__(self, generation: Generation, encoder: Encoder | None = None) -> None:
        super().__init__(generation)
        self.device: str | None = None
        self._learnt: approximate.Learnt | None = None
        self._steps = calibrated(generation.segments)
        if encoder is not None:
            self.encoder = matching(encoder, self.card, self.path)

    @classmethod
    def build(
        cls,
        source: Corpus | Iterable[Document],
        encoder: Encoder,
        path: str | Path | None = None,
        *,
        engine: str = "flat",
        storage: str = "float32",
        store_text: bool = True,
        overwrite: bool = False,
        memory_budget: int | None = None,
        resume: bool = True,
        progress: Progress | None = None,
    ) -> DenseIndex:
        """Encode documents and index their vectors, holding a bounded part in memory.

        Args:
            source: A corpus, or any iterable of documents, read once.
            encoder: Encodes title and text joined by one blank.
            path: The index folder; without it the index lives as long as the object.
            engine: ``flat``, exact search; ``binary`` or ``int8``, a first pass over signs or
                bytes whose best are scored again from the stored vectors; or any FAISS factory
                string, such as ``HNSW32`` or ``IVF512,PQ96x4fs`` (extra ``faiss``), approximate
                and faster. It is trained once, on what is built; how close it comes is in `recall`.
            storage: ``float32``; ``float16``, half the bytes; or ``int8``, a fourth, in ranges
                calibrated on the first vectors. They are rounded once, queries never; the index
                answers, exactly or not, for what it stores. `rounding_error` tells what it cost.
            store_text: Whether to keep the words in the index.
            overwrite: Whether an index that is there may be replaced.
            memory_budget: Bytes of memory that this process may use; what would need more becomes
                several segments, and no answer changes.
            resume: Whether vectors that an interrupted build or update left at `path` are used,
                where documents and encoder are the same; the index is as if nothing had happened.
            progress: Called with documents done and in all.

        Returns:
            The index, opened.

        Raises:
            UnknownNameError: No such engine or storage.
            MissingExtraError: FAISS is not installed.
            DataError: FAISS cannot build the engine at this dimension or similarity.
            EncoderContractError: The encoder gave vectors of another shape than it says.
            NonFiniteError: A vector holds NaN, or more than the storage can.
            FingerprintError: The encoder's card holds what cannot be written down.
            IndexExistsError: An index is at `path` and `overwrite` is false.
            LockedError: Another process is writing there.
        """
        similarity = similarity_named(encoder.similarity)
        if engine != "flat":
            engine_named(engine, encoder.dim, similarity)  # fails before anything is encoded
        card = encoder.card.to_dict()
        empty = Manifest.empty(
            cls.kind,
            settings_of(engine, similarity, encoder.dim, storage),
            statistics={"largest_norm": 0.0},
            encoder=card,
            text_stored=store_text,
        )
        return create(
            lambda generation: cls(generation, encoder),
            empty,
            source,
            path,
            overwrite=overwrite,
            memory_budget=memory_budget,
            resume=resume,
            progress=progress,
        )

    @classmethod
    def from_vectors(
        cls,
        source: Corpus | Iterable[Document],
        vectors: NDArray[Any] | DenseVectors | VectorSource,
        path: str | Path | None = None,
        *,
        encoder: Encoder | None = None,
        similarity: str | None = None,
        engine: str = "flat",
        storage: str = "float32",
        store_text: bool = True,
        overwrite: bool = False,
        memory_budget: int | None = None,
        progress: Progress | None = None,
    ) -> DenseIndex:
        """Index vectors that were computed elsewhere, holding a bounded part in memory.

        Args:
            source: The documents in the order of the vectors: a corpus, or any iterable, read once.
            vectors: Floats ``(n, d)``, possibly mapped, of any float dtype, or a source of them
                (`retrievekit.encode.precomputed.PrecomputedVectors.open`), whose ids are compared
                with the documents'.
            path: As in `build`.
            encoder: Who made the vectors; encodes the queries. Without one the index is searched
                with vectors.
            similarity: How vectors are compared; by default as the encoder says.
            engine: As in `build`.
            storage: As in `build`.
            store_text: As in `build`.
            overwrite: As in `build`.
            memory_budget: As in `build`.
            progress: As in `build`.

        Returns:
            The index, opened.

        Raises:
            DataError: Counts or ids of documents and vectors differ, or no similarity is known.
            NonFiniteError: A vector holds NaN or infinity as float32; names the document.
        """
        given = GivenVectors(vectors, encoder, similarity)
        index = cls.build(
            given.matched(source),
            given,
            path,
            engine=engine,
            storage=storage,
            store_text=store_text,
            overwrite=overwrite,
            memory_budget=memory_budget,
            progress=progress,
        )
        del index.__dict__["encoder"]
        if encoder is not None:
            index.encoder = encoder
        return index

    @classmethod
    def open(
        cls, path: str | Path, encoder: Encoder | None = None, *, device: str | None = None
    ) -> DenseIndex:
        """Open an index by memory map.

        Args:
            path: The index folder.
            encoder: The query encoder; by default the one that the index names, loaded when needed.
            device: Where it is searched unless a search says otherwise; see `search`.

        Returns:
            The index, pinned to its live generation.

        Raises:
            DataError: `device` is no name of one.
            FormatVersionError: The folder is no index of this kind, or a newer one.
            CorruptIndexError: It is damaged.
            EncoderMismatchError: The encoder is another one than the index was built with.
        """
        check_device(device)
        index = cls(Generation.pin(Path(path)), encoder)
        index.device = device
        return index

    def _reopened(self) -> DenseIndex:
        # With the same encoder, where it was loaded.
        return self.open(self.path, self.__dict__.get("encoder"), device=self.device)

    def write(
        self,
        segment: SegmentWriter,
        documents: DocumentWriter,
        chunks: Iterable[Corpus],
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """Encode documents and write their vectors as a new segment."""
        shards = (part for chunk in chunks for part in chunk.chunks(SHARD))
        stored = self._vector_writer(segment)
        write_segment(
            segment, documents, shards, stored, self.encoder, self.similarity, progress=progress
        )
        self._write_native(segment, stored, self._learnt or approximate.Learnt.of(self.segments))
        return {"largest_norm": stored.longest}

    def merge(self, segment: SegmentWriter) -> dict[str, Any]:
        """Copy the vectors of all live documents into one segment."""
        stored = self._vector_writer(segment)
        copy_vectors(segment, stored, self)
        learnt = self._learnt or approximate.Learnt.of(self.segments)
        self._write_native(segment, stored, learnt, True)
        return dict(self.manifest.statistics)

    def taken_over(
        self, segment: SegmentWriter, index: DenseIndex, change: Change | None
    ) -> dict[str, Any]:
        """Write another index's vectors as one segment of this one.

        Args:
            segment: Where arrays are written.
            index: The other index, whose live documents are taken.
            change: Makes of float32 ``(n, d)`` what this index holds, float32 ``(n, dim)``; None
                leaves them as they are.

        Returns:
            The segment's statistics.
        """
        if change is None:
            self._steps = calibrated(index.segments)  # what was rounded once is not rounded again
        stored = self._vector_writer(segment)
        copy_vectors(segment, stored, index, change)
        self._write_native(segment, stored, None, True)
        return {"largest_norm": stored.longest}

    def _vector_writer(self, segment: SegmentWriter) -> VectorWriter:
        return VectorWriter(
            segment, self.storage, self.dim, self._steps, least=self.calibrated_from
        )

    def _write_native(
        self,
        segment: SegmentWriter,
        written: VectorWriter,
        learnt: approximate.Learnt | None,
        merged: bool = False,
    ) -> None:
        """Finish the vectors, and write the engine's files by what it has learnt before."""
        stored = written.finish()
        if len(stored.steps):
            self._steps = stored.steps
        if self._engine is None:
            return
        if merged and learnt is not None and learnt.outgrown(len(stored)):
            learnt = None
        self._learnt = approximate.write_native(self._engine, segment, stored.all(), learnt)

    def derived(self, segment: SegmentReader) -> Iterable[Derivation]:
        """As every index; hashes of vectors that were given do not follow from words alone."""
        for way in super().derived(segment):
            if not (segment.record.details.get(GIVEN) and "hashes" in way.makes):
                yield way
        if self._engine is not None:
            yield from approximate.derivations(self._engine, segment)

    def updated(
        self,
        added: Sequence[Mapping[str, Any]],
        removed: Iterable[tuple[SegmentReader, NDArray[np.int64]]],
    ) -> dict[str, Any]:
        """The length of the longest vector; a bound, which deletions leave as it is.

        Args:
            added: Statistics of new segments.
            removed: Rows that are newly deleted, int64 ``(m,)``, with their segments.

        Returns:
            The new totals over live documents.
        """
        lengths = [self.manifest.statistics["largest_norm"]]
        return {"largest_norm": max(lengths + [part["largest_norm"] for part in added])}

    @property
    def similarity(self) -> Similarity:
        """How vectors are compared."""
        return similarity_named(self.manifest.settings["similarity"])

    @property
    def dim(self) -> int:
        """Components of each vector."""
        return int(self.manifest.settings["dim"])

    @property
    def card(self) -> EncoderCard:
        """Who encoded the documents."""
        return EncoderCard.from_dict(self.manifest.encoder or {})

    @cached_property
    def encoder(self) -> Encoder:
        """The query encoder, loaded by the name on its card when it was not given.

        Raises:
            EncoderMismatchError: What the name leads to now is another encoder.
            UnknownNameError: The name leads nowhere; open the index with the encoder.
        """
        found: Encoder = encoder_of_card(self.card, "sentence")
        return matching(found, self.card, self.path)

    @cached_property
    def stored(self) -> list[Stored]:
        """By segment the vectors of all its documents, deleted ones too."""
        return [Stored.of(segment) for segment in self.segments]

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """The live documents' vectors as stored, float32 ``(documents, dim)``, verified."""
        parts = [stored.all() for stored in self.stored]
        if len(parts) == 1 and not len(self.segments[0].dead):
            whole: NDArray[np.float32] = parts[0]
            return whole
        live = [segment.live for segment in self.segments]
        return np.concatenate([part[rows] for part, rows in zip(parts, live, strict=True)])

    def query_vectors(self, queries: Queries) -> NDArray[np.float32]:
        """The vectors to search with.

        Args:
            queries: Texts, encoded here, or dense vectors of the same encoder.

        Returns:
            float32 ``(nq, dim)``, normalised under the cosine similarity.

        Raises:
            FormError: The queries are of another form.
            EncoderMismatchError: The vectors were made by another encoder.
            DataError: The vectors have another number of components.
        """
        return query_vectors(self, queries)

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | Condition | None = None,
        candidates: CandidatesLike | None = None,
        threads: int | None = None,
        engine_options: Mapping[str, int] | None = None,
        device: str | None = None,
    ) -> Run:
        """The k nearest documents of each query; exactly with the engine ``flat``.

        With another engine they are the nearest of those that it proposes, and all of them are
        looked at where conditions or candidates leave few. k hits come back wherever as many are
        allowed.

        Args:
            queries: Queries of texts or of dense vectors.
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy.
            candidates: For each query the only documents that it may have.
            threads: Threads to use; all cores by default. The answer does not depend on it.
            engine_options: See `retrievekit.index.engines.options.defaults`.
            device: ``cuda``, one of several such as ``cuda:1``, ``auto``, a GPU where there is one,
                or ``cpu``; by default that of the index. Exact answers do not depend on it; those
                of FAISS may, where its scores are equal but for rounding.

        Returns:
            The run.

        Raises:
            DataError: k is no whole number of at least 1, an option is no number of its kind, or
                `device` is no name of one.
            DeviceError: There is no such device, it has too little memory, or the engine has no
                form for it.
            UnknownNameError: The engine has no such option.
            CorruptIndexError: A file is damaged.
            NonFiniteError: Vectors so long that scores do not fit into float32; names the query.
        """
        from retrievekit.kernels.select import unpack_all

        check_k(k)
        options = settled(self.engine, engine_options)
        vectors = self.query_vectors(queries)
        check_range(self, vectors, queries)
        device = device or self.device
        chosen = None if candidates is None else self.chosen(queries, candidates, where)
        hidden, most = self.hidden(where) if chosen is None else ([], chosen.most)
        k = min(k, max(most, 1))
        keys = np.empty((len(queries), k), np.uint64)
        counts = np.zeros(len(queries), np.int64)
        if chosen is not None:
            for part, allowed in chosen.parts(threads):
                out = keys[part], counts[part]
                self._places.flat(None).search_among(vectors[part], allowed, *out, threads)
        elif most and self.engine == "flat":
            self._places.flat(device).search(vectors, hidden, most, keys, counts, threads)
        elif most:
            assert self._engine is not None
            search = self._places.approximate(self._engine, device)
            search.search(vectors, hidden, most, keys, counts, threads, options)
        rows, scores = np.empty(keys.shape, np.int32), np.empty(keys.shape, np.float32)
        unpack_all(keys, counts, self.ids.order, rows, scores)
        return run_of(queries, self.ids, rows, scores, counts)

    @cached_property
    def _places(self) -> Places:
        return Places(self)

    @cached_property
    def _engine(self) -> Engine | None:
        # Made when it is used first, so that an index can be inspected without FAISS.
        if self.engine == "flat":
            return None
        return engine_named(self.engine, self.dim, self.similarity)

    @property
    def engine(self) -> str:
        """``flat``, ``binary``, ``int8`` or a FAISS factory string."""
        return str(self.manifest.settings["engine"])

    @property
    def storage(self) -> str:
        """``float32``, ``float16`` or ``int8``: how the vectors are stored."""
        return str(self.manifest.settings.get("storage", "float32"))

    @property
    def recall(self) -> float | None:
        """The engine's recall@10 with its default options, on a sample of the stored vectors.

        It was measured when each segment was written, before later deletions; 1 where search is
        exact, None without documents.
        """
        return approximate.overall_recall(self.segments)

    @property
    def rounding_error(self) -> float:
        """The part of the vectors' length that int8 storage lost, root mean square; else 0."""
        return overall_error(self.segments)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over kind, settings, encoder identity and documents.

        Over the engine's files and the vectors' too where answers depend on how the index came
        about: with engines that are trained, and where int8 was calibrated.
        """
        of: dict[str, Any] = {"index": super().fingerprint}
        if self.engine != "flat":
            records = (segment.record.native.get(approximate.NATIVE) for segment in self.segments)
            of["engine files"] = [None if record is None else record.sha256 for record in records]
        if self.storage == "int8":
            arrays = (segment.record.arrays[VECTORS] for segment in self.segments)
            of["vectors"] = [array.file.sha256 for array in arrays]
        return fingerprint_of(of) if len(of) > 1 else str(of["index"])

    @property
    def largest_norm(self) -> float:
        """A bound on the length of the stored vectors."""
        return float(self.manifest.statistics["largest_norm"])

    def searcher(
        self,
        k: int = 1000,
        where: str | Condition | None = None,
        candidates: CandidatesLike | None = None,
        *,
        engine_options: Mapping[str, int] | None = None,
        device: str | None = None,
        **knobs: Any,
    ) -> Searcher:
        """The stage that searches this index.

        Args:
            k: As in `Index.searcher`.
            where: As in `Index.searcher`.
            candidates: As in `Index.searcher`.
            engine_options: What the engine has besides, such as ``nprobe``, ``efSearch`` and
                ``refine``; see `retrievekit.index.engines.options.defaults`. They change answers.
            device: Where to search; see `search`. The fingerprint does not depend on it.
            knobs: As in `Index.searcher`.

        Returns:
            The stage.

        Raises:
            UnknownNameError: The engine has no such option.
            DataError: An option is no number of its kind, or `device` is no name of one.
        """
        check_device(device)
        options = settled(self.engine, engine_options)
        plain = super().searcher(k, where, candidates, device=device, **knobs)
        if self.engine == "flat":
            return plain
        return EngineSearcher(
            index=self,
            k=k,
            where=plain.where,
            candidates=plain.candidates,
            engine_options=options,
            threads=plain.threads,
            device=device,
        )


def settings_of(engine: str, similarity: Similarity, dim: int, storage: str) -> dict[str, Any]:
    """What the answers of an index depend on besides its documents and its encoder.

    Args:
        engine: The engine.
        similarity: How vectors are compared.
        dim: Components of each vector.
        storage: How they are stored.

    Returns:
        The manifest's settings.
    """
    dtype_of(storage)
    settings = {"engine": engine, "similarity": similarity, "dim": dim}
    return settings if storage == "float32" else {**settings, "storage": storage}
