"""`DenseIndex`: vectors of documents, searched exactly.

Vectors are kept in our own plain format, float32, and mapped. Under the ``cosine`` similarity they
are normalised once when they are stored, and queries when they are searched; under ``dot`` nothing
is touched; under ``euclidean`` the score is minus the distance, so that higher is better
everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.corpus import Corpus, Document
from retrievekit.cuts import Cuts
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EncoderMismatchError,
    FormError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.index.base import Index
from retrievekit.index.documents import Build, DocumentWriter, document_chunks
from retrievekit.index.results import check_k, in_parts, run_of
from retrievekit.protocols import Encoder, EncoderCard, Progress, Similarity, similarity_named
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.store.files import naming_space
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter
from retrievekit.vectors import DenseVectors
from retrievekit.where import Condition

log = logging.getLogger(__name__)

ENCODED_AT_A_TIME = 1024
"""Documents that are encoded between two reports of progress."""

QUERIES_AT_A_TIME = 256
DOCUMENTS_AT_A_TIME = 1 << 14
"""Shape of one block of approximate scores: 16 MiB of float32."""

SPARE_CANDIDATES = 64
"""Candidates beyond k, so that rounding in the fast pass rarely forces a full scan."""


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

    def __init__(self, generation: Generation, encoder: Encoder | None = None) -> None:
        super().__init__(generation)
        if encoder is not None:
            self.encoder = self._checked(encoder)

    @classmethod
    def build(
        cls,
        source: Corpus | Iterable[Document],
        encoder: Encoder,
        path: str | Path | None = None,
        *,
        engine: str = "flat",
        store_text: bool = True,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> DenseIndex:
        """Encode documents and index their vectors, holding a bounded part in memory.

        Args:
            source: A corpus, or any iterable of documents, read once.
            encoder: Encodes title and text joined by one blank.
            path: The index folder; without it the index lives as long as the object.
            engine: ``flat``, exact search.
            store_text: Whether to keep the words in the index.
            overwrite: Whether an index that is there may be replaced.
            progress: Called with documents done and in all.

        Returns:
            The index, opened.

        Raises:
            UnknownNameError: No such engine.
            EncoderContractError: The encoder gave vectors of another shape than it says.
            NonFiniteError: A vector holds NaN or infinity as float32.
            FingerprintError: The encoder's card holds what cannot be written down.
            IndexExistsError: An index is at `path` and `overwrite` is false.
            LockedError: Another process is writing there.
        """
        if engine != "flat":
            raise UnknownNameError.among("dense engine", engine, ["flat"])
        similarity = similarity_named(encoder.similarity)
        card = encoder.card.to_dict()
        chunks, total = document_chunks(source, ENCODED_AT_A_TIME)
        with (
            Build(path, overwrite=overwrite, store_text=store_text) as build,
            naming_space(build.folder),
        ):
            statistics = write_segment(
                build.segment,
                build.documents,
                chunks,
                encoder,
                similarity,
                progress=lambda done: progress(done, total) if progress is not None else None,
            )
            build.commit(
                cls.kind,
                {"engine": engine, "similarity": similarity, "dim": encoder.dim},
                statistics=statistics,
                encoder=card,
            )
            index = cls.open(build.folder, encoder)
            build.keep_alive(index)
        return index

    @classmethod
    def open(cls, path: str | Path, encoder: Encoder | None = None) -> DenseIndex:
        """Open an index by memory map.

        Args:
            path: The index folder.
            encoder: The query encoder; by default the one that the index names, loaded when needed.

        Returns:
            The index, pinned to its live generation.

        Raises:
            FormatVersionError: The folder is no index of this kind, or a newer one.
            CorruptIndexError: It is damaged.
            EncoderMismatchError: The encoder is another one than the index was built with.
        """
        return cls(Generation.pin(Path(path)), encoder)

    def _reopened(self) -> DenseIndex:
        # With the same encoder, where it was loaded.
        return self.open(self.path, self.__dict__.get("encoder"))

    def write(
        self,
        segment: SegmentWriter,
        documents: DocumentWriter,
        chunks: Iterable[Corpus],
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """Encode documents and write their vectors as a new segment."""
        small = (part for chunk in chunks for part in chunk.chunks(ENCODED_AT_A_TIME))
        return write_segment(
            segment, documents, small, self.encoder, self.similarity, progress=progress
        )

    def merge(self, segment: SegmentWriter) -> dict[str, Any]:
        """Copy the vectors of all live documents into one segment."""
        stored = segment.array("vectors", np.float32, (self.dim,))
        for old in self.segments:
            for start in range(0, len(old.live), DOCUMENTS_AT_A_TIME):
                stored.append(old["vectors"].all()[old.live[start : start + DOCUMENTS_AT_A_TIME]])
        return dict(self.manifest.statistics)

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
        name = self.card.name
        if name in registry.names("encoder"):
            return self._checked(registry.resolve("encoder", name)())
        return self._checked(registry.resolve("encoder", "sentence")(self.card))

    def _checked(self, encoder: Encoder) -> Encoder:
        differences = self.card.differences(encoder.card)
        if differences:
            raise EncoderMismatchError(
                f"{self.path}: built with the encoder {self.card.name!r}, asked with "
                f"{encoder.card.name!r}; they differ in {'; '.join(differences)} (index against "
                "given). Vectors of different encoders cannot be compared: use the index's own "
                "encoder, or build the index again"
            )
        for name, value in self.card.numerics.items():
            if encoder.card.numerics.get(name) != value:
                log.warning(
                    "%s: built with %s=%r, queries are encoded with %r; scores may differ slightly",
                    self.path, name, value, encoder.card.numerics.get(name),
                )  # fmt: skip
        return encoder

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """The live documents' vectors as stored, float32 ``(documents, dim)``, verified."""
        parts = [segment["vectors"].all() for segment in self.segments]
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
        if isinstance(queries.form, DenseVectors):
            made_by = queries.form.encoder
            if made_by is not None and made_by != self.card.fingerprint:
                raise EncoderMismatchError(
                    f"{self.path}: the query vectors were made by another encoder (fingerprint "
                    f"{made_by[:12]}) than the index's {self.card.name!r} "
                    f"({self.card.fingerprint[:12]})"
                )
            vectors = queries.form.array
        elif isinstance(queries.form, pa.LargeStringArray):
            texts = queries.rewritten_texts
            vectors = checked_vectors(
                self.encoder.encode_query(texts), len(texts), self.encoder, "query", queries.ids
            )
        else:
            raise FormError(
                f"a dense index searches with text or dense vectors; these queries are "
                f"{queries.form_name}"
            )
        if vectors.shape[1] != self.dim:
            raise DataError(
                f"query vectors have {vectors.shape[1]} components, the index has {self.dim}"
            )
        return normalised(vectors) if self.similarity == "cosine" else vectors

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | Condition | None = None,
        threads: int | None = None,
    ) -> Run:
        """The k nearest documents of each query, exactly.

        Args:
            queries: Queries of texts or of dense vectors.
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy; statistics stay those of all.
            threads: Threads to use; all cores by default. The answer does not depend on it.

        Returns:
            The run.

        Raises:
            DataError: k is no whole number of at least 1.
            NonFiniteError: Vectors so long that scores do not fit into float32; names the query.
        """
        check_k(k)
        vectors = self.query_vectors(queries)
        self._check_range(vectors, queries)
        hidden, candidates = self.hidden(where)
        k = min(k, max(candidates, 1))
        rows = np.empty((len(queries), k), np.int32)
        scores = np.empty((len(queries), k), np.float32)
        counts = np.zeros(len(queries), np.int64)
        for first in range(0, len(queries) if candidates else 0, QUERIES_AT_A_TIME):
            part = slice(first, first + QUERIES_AT_A_TIME)
            out = (rows[part], scores[part], counts[part])
            self._search_part(vectors[part], *out, hidden, candidates, threads)
        return run_of(queries, self.ids, rows, scores, counts)

    def _search_part(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.int32],
        scores: NDArray[np.float32],
        counts: NDArray[np.int64],
        hidden: list[NDArray[np.bool_]],
        candidates: int,
        threads: int | None,
    ) -> None:
        from retrievekit.kernels.dense import rescore, settle
        from retrievekit.kernels.select import unpack_all

        k = rows.shape[1]
        euclidean = self.similarity == "euclidean"
        order = self.ids.order
        wanted = min(k + max(SPARE_CANDIDATES, k // 8), candidates)
        found, proposed = self._proposed(queries, wanted, hidden, threads)
        likely = np.empty((len(queries), wanted), np.int32)
        approximate = np.empty((len(queries), wanted), np.float32)
        unpack_all(found, proposed, order, likely, approximate)
        exact = np.empty_like(approximate)
        margins = self._margins(queries)
        keys = np.empty((len(queries), k), np.uint64)
        unsure = np.zeros(len(queries), bool)
        segments, places = self._places

        def finish(a: int, b: int) -> None:
            for number, segment in enumerate(self.segments):
                rescore(
                    queries[a:b], segment["vectors"].unchecked, euclidean, number, segments,
                    places, likely[a:b], proposed[a:b], exact[a:b],
                )  # fmt: skip
            settle(
                likely[a:b], approximate[a:b], exact[a:b], proposed[a:b], margins[a:b],
                self.ids.rank, candidates, k, keys[a:b], counts[a:b], unsure[a:b],
            )  # fmt: skip

        in_parts(finish, len(queries), threads)
        for query in np.flatnonzero(unsure):
            one = slice(query, query + 1)
            self._scan(queries[query], keys[one], counts[one], hidden)
        unpack_all(keys, counts, order, rows, scores)

    def _proposed(
        self,
        queries: NDArray[np.float32],
        wanted: int,
        hidden: list[NDArray[np.bool_]],
        threads: int | None,
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Keys of the best approximate scores of each query, and how many there are."""
        from retrievekit.kernels.dense import propose

        found = np.empty((len(queries), wanted + DOCUMENTS_AT_A_TIME), np.uint64)
        proposed = np.zeros(len(queries), np.int64)
        for segment, ranks, out in zip(self.segments, self.ranks, hidden, strict=True):
            stored = segment["vectors"]
            for first in range(0, len(stored), DOCUMENTS_AT_A_TIME):
                block = stored.slice(first, min(first + DOCUMENTS_AT_A_TIME, len(stored)))
                approximate = queries @ block.T
                if self.similarity == "euclidean":
                    approximate = 2 * approximate - np.einsum("ij,ij->i", block, block)
                if len(out):
                    approximate[:, out[first : first + len(block)]] = -np.inf

                def merge(
                    a: int, b: int, first: int = first, ranks: Any = ranks, block: Any = approximate
                ) -> None:
                    propose(block[a:b], first, ranks, wanted, found[a:b], proposed[a:b])

                in_parts(merge, len(queries), threads)
        return found, proposed

    def _scan(
        self,
        query: NDArray[np.float32],
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        hidden: list[NDArray[np.bool_]],
    ) -> None:
        """The exact ranking of one query by scoring every document, into its row of keys."""
        from retrievekit.kernels.dense import propose, scan

        k = keys.shape[1]
        for segment, ranks, out in zip(self.segments, self.ranks, hidden, strict=True):
            vectors = segment["vectors"].all()
            scores = np.empty((1, len(vectors)), np.float32)
            scan(query, vectors, self.similarity == "euclidean", out, scores[0])
            found = np.empty((1, k + len(vectors)), np.uint64)
            found[:, :k] = keys
            propose(scores, 0, ranks, k, found, counts)
            keys[:] = found[:, :k]

    @cached_property
    def _places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """By live row its segment's number, and its row there, int32 ``(live documents,)``."""
        live = [segment.live.astype(np.int32) for segment in self.segments]
        numbers = np.repeat(np.arange(len(live), dtype=np.int32), [len(part) for part in live])
        return numbers, np.concatenate(live)

    def _check_range(self, vectors: NDArray[np.float32], queries: Queries) -> None:
        """Raise when a score, or a sum on the way to it, may not fit into float32."""
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        largest = float(self.manifest.statistics["largest_norm"])
        if self.similarity == "euclidean":
            reached = 2 * (norms + largest) ** 2
        else:
            reached = norms * largest
        bad = np.flatnonzero(reached >= np.finfo(np.float32).max)
        if len(bad):
            raise NonFiniteError(
                f"{self.path}: query {queries.ids[int(bad[0])]!r} has length {norms[bad[0]]:.3g}, "
                f"documents have up to {largest:.3g}: scores do not fit into float32; scale the "
                "vectors down, or use an encoder of cosine similarity"
            )

    def _margins(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Twice a bound on the error of an approximate score, the final rounding included.

        A float32 inner product of d terms errs by at most ``d * u * |q| * |v|`` with u = 2**-24 in
        any order of summation (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), up
        to terms of order u squared, which the factor covers. Below 2**-126 float32 thins out, or
        is flushed to zero: each operation may lose as much once more.
        """
        unit, least = 2.0**-24, 2.0**-126
        norms = np.linalg.norm(queries.astype(np.float64), axis=1)
        largest = float(self.manifest.statistics["largest_norm"])
        if self.similarity == "euclidean":
            error = (2 * self.dim + 8) * unit * (norms + largest) ** 2
            error += (4 * self.dim + 4) * least
        else:
            error = (self.dim + 4) * unit * norms * largest + 2 * self.dim * least
        margins: NDArray[np.float32] = (2.02 * error).astype(np.float32)
        return margins


def write_segment(
    segment: SegmentWriter,
    documents: DocumentWriter,
    chunks: Iterable[Corpus],
    encoder: Encoder,
    similarity: Similarity,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Encode documents and write their vectors; what was cut or says nothing is told once.

    Args:
        segment: Where arrays are written.
        documents: Where ids and words are written.
        chunks: The documents.
        encoder: Encodes title and text joined by one blank.
        similarity: Under ``cosine`` vectors are normalised.
        progress: Called with documents done.

    Returns:
        The length of the longest vector.
    """
    largest = 0.0
    cuts = Cuts()
    wordless, zero = _Noted("without words"), _Noted("whose vector is all zeros")
    stored = segment.array("vectors", np.float32, (encoder.dim,))
    for chunk in chunks:
        with cuts.collected():
            vectors = document_vectors(encoder, chunk)
        wordless.add([not text.strip() for text in chunk.contents()], chunk)
        zero.add(np.asarray(~vectors.any(axis=1)), chunk)
        if similarity == "cosine":
            vectors = normalised(vectors)
        if len(vectors):
            squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
            largest = max(largest, float(np.sqrt(squares.max())))
        stored.append(vectors)
        documents.add(chunk)
        progress(documents.documents)
    cuts.tell()
    wordless.tell("their vectors say nothing of them, but are found like any other's")
    zero.tell("under dot and cosine they score 0, above whatever scores below 0")
    return {"largest_norm": largest}


class _Noted:
    """Documents that an encoder makes little of: counted, and told once."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.count = 0
        self.first: list[str] = []

    def add(self, flags: Sequence[bool] | NDArray[np.bool_], part: Corpus) -> None:
        rows = np.flatnonzero(flags)
        self.count += len(rows)
        self.first += part.ids.strings(rows[: max(0, 3 - len(self.first))])

    def tell(self, so: str) -> None:
        if self.count:
            shown = ", ".join(repr(doc_id) for doc_id in self.first)
            more = ", ..." if self.count > len(self.first) else ""
            log.warning("%d documents %s (%s%s): %s", self.count, self.what, shown, more, so)


def document_vectors(encoder: Encoder, part: Corpus) -> NDArray[np.float32]:
    """Encode some documents and check what comes back.

    Args:
        encoder: The encoder.
        part: The documents.

    Returns:
        float32 ``(documents, dim)``.
    """
    vectors = encoder.encode_document(part.contents())
    return checked_vectors(vectors, len(part), encoder, "document", part.ids)


def checked_vectors(
    vectors: NDArray[Any], n: int, encoder: Encoder, what: str, ids: Any
) -> NDArray[np.float32]:
    """What an encoder returned, or an error that names the text at fault.

    Args:
        vectors: The encoder's output, which should be ``(n, dim)`` float32.
        n: How many texts went in.
        encoder: The encoder.
        what: "query" or "document".
        ids: The texts' ids.

    Returns:
        float32 ``(n, dim)``.

    Raises:
        EncoderContractError: Wrong shape, or no real numbers.
        NonFiniteError: NaN or infinity, in float32.
    """
    vectors = np.asarray(vectors)
    if vectors.dtype.kind not in "iuf":
        raise EncoderContractError(
            f"the encoder {encoder.card.name!r} returned an array of dtype {vectors.dtype}; "
            "expected float32"
        )
    if vectors.shape != (n, encoder.dim):
        raise EncoderContractError(
            f"the encoder {encoder.card.name!r} returned an array of shape {vectors.shape} for {n} "
            f"texts; expected ({n}, {encoder.dim})"
        )
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused below
        vectors = np.ascontiguousarray(vectors, np.float32)
    fine = np.isfinite(vectors).all(axis=1)
    if not fine.all():
        bad = int(np.flatnonzero(~fine)[0])
        raise NonFiniteError(
            f"the vector of {what} {ids[bad]!r} holds NaN or infinity as float32 (encoder "
            f"{encoder.card.name!r}); no such vector is stored or searched with"
        )
    return vectors


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; a zero vector stays zero, which no query is similar to.

    Args:
        vectors: float32 ``(n, d)``.

    Returns:
        float32 ``(n, d)``.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    lengths[lengths == 0] = 1
    units: NDArray[np.float32] = (vectors / lengths[:, None]).astype(np.float32)
    return units
