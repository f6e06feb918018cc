"""`SparseIndex`: learned term weights on our own inverted index.

The score of a document is the exact inner product of its stored weights with the query's::

    score(q, d) = sum over terms t of w_q(t) * w_d(t)

Weights of documents are stored as integers (`retrievekit.index.quantised`), and how far those are
from what they were is kept and told; weights of queries stay floats. A term whose query weight is 0
takes no part; one below 0 counts against a document. Documents without a term of the query are no
hits, so a document whose vector is empty is kept but never found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    DataError,
    EncoderMismatchError,
    FormError,
)
from retrievekit.index.arriving import WithWindow
from retrievekit.index.creating import create
from retrievekit.index.derived import Derivation
from retrievekit.index.documents import DocumentWriter
from retrievekit.index.encoders import encoder_of_card, matching
from retrievekit.index.inverted import BLOCK_POSTINGS
from retrievekit.index.once import SHARD, Once, inherit_runs
from retrievekit.index.postings import PostingsIndex
from retrievekit.index.quantised import LEVELS, Quantisation, check_levels, to_weights
from retrievekit.index.weights import GivenWeights, checked, encoded, named, write_weights
from retrievekit.protocols import EncoderCard, Progress, SparseEncoder
from retrievekit.queries import Queries
from retrievekit.splitting import Window
from retrievekit.store.manifest import Manifest
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter
from retrievekit.vectors import SparseVectors, WeightedTerms

_KEPT = "encoder."
"""What the names of arrays begin with that are kept of an encoder."""


class SparseIndex(PostingsIndex):
    """Term weights of documents with the encoder that made them, where one is known.

    Args:
        generation: The pinned generation.
        encoder: The query encoder; by default the one on the manifest's card, loaded when needed.

    Raises:
        FormatVersionError: The index is of another kind.
        EncoderMismatchError: The encoder is another one than the index was built with.
    """

    kind: ClassVar[str] = "sparse"

    def __init__(self, generation: Generation, encoder: SparseEncoder | None = None) -> None:
        super().__init__(generation)
        self._given: GivenWeights | None = None
        if encoder is not None:
            self.encoder = matching(encoder, self.card, self.path)

    @classmethod
    def build(
        cls,
        source: Corpus | Iterable[Document],
        encoder: SparseEncoder,
        path: str | Path | None = None,
        *,
        levels: float | None = LEVELS,
        store_text: bool = True,
        overwrite: bool = False,
        resume: bool = True,
        memory_budget: int | None = None,
        progress: Progress | None = None,
        block_postings: int = BLOCK_POSTINGS,
    ) -> SparseIndex:
        """Encode documents and index their weights, holding a bounded part in memory.

        Args:
            source: A corpus, or any iterable of documents, read once.
            encoder: Encodes title and text joined by one blank.
            path: The index folder; without it the index lives as long as the object.
            levels: Levels per unit of weight; a weight is kept to within half a level. None keeps
                weights exactly, at one entry in memory per distinct weight.
            store_text: Whether to keep the words in the index.
            overwrite: Whether an index that is there may be replaced.
            resume: Whether weights that an interrupted build or update left at `path` are used,
                where encoder and texts are the same; otherwise they are thrown away.
            memory_budget: Bytes of memory that this process may use; what would need more becomes
                several segments, and no answer changes.
            progress: Called with documents done and in all.
            block_postings: Postings held in memory at a time.

        Returns:
            The index, opened.

        Raises:
            DataError: A document cannot be used, or `levels` is no number of levels.
            EncoderContractError: The encoder gave weights of another shape than it says.
            FingerprintError: The encoder's card holds what cannot be written down.
            IndexExistsError: An index is at `path` and `overwrite` is false.
            LockedError: Another process is writing there.
        """
        return cls._created(
            source,
            path,
            encoder,
            None,
            _settings(levels, given=False),
            store_text=store_text,
            overwrite=overwrite,
            resume=resume,
            memory_budget=memory_budget,
            progress=progress,
            block_postings=block_postings,
        )

    @classmethod
    def from_weights(
        cls,
        source: str | Path | Iterable[tuple[Document, Mapping[str, float]]],
        path: str | Path | None = None,
        *,
        encoder: SparseEncoder | None = None,
        levels: float | None = LEVELS,
        window: Window | None = None,
        ids: str | Path | None = None,
        vocabulary: str | Path | None = None,
        store_text: bool = True,
        overwrite: bool = False,
        memory_budget: int | None = None,
        progress: Progress | None = None,
        block_postings: int = BLOCK_POSTINGS,
    ) -> SparseIndex:
        """Index weights that were computed elsewhere, holding a bounded part in memory.

        Args:
            source: Documents with their weights by term; or a file or folder of JSON lines, each
                ``{"id": ..., "contents": ..., "vector": {term: weight}}`` as Anserini takes them;
                or an ``.npz`` of a CSR matrix, one row per document.
            path: As in `build`.
            encoder: Who made the weights; encodes queries. Without one the index is searched with
                weighted terms, and no document can be added later.
            levels: As in `build`; 1 keeps whole numbers as they are.
            window: How the documents were cut where they are passages (`corpus.window`); by default
                as the source says.
            ids: For an ``.npz`` the file of ids, one per line.
            vocabulary: For an ``.npz`` the file of terms, one per line, or JSON of column by term.
            store_text: As in `build`.
            overwrite: As in `build`.
            memory_budget: As in `build`.
            progress: As in `build`.
            block_postings: As in `build`.

        Returns:
            The index, opened.

        Raises:
            DataError: A weight is below 0, or a document cannot be used; names the document. Or the
                encoder knows none of the terms.
            NonFiniteError: A weight is NaN or infinite; names the document.
            ParseError: A file is not of its form.
        """
        tokens = None if encoder is None else encoder.tokens
        if isinstance(source, str | Path):
            read = registry.resolve("reader", "term-weights")
            given = GivenWeights(read(Path(source), ids=ids, vocabulary=vocabulary), tokens)
        elif ids is not None or vocabulary is not None:
            raise DataError("ids and vocabulary go with an .npz file")
        else:
            given = GivenWeights(source, tokens)
        window = getattr(source, "window", None) if window is None else window
        return cls._created(
            WithWindow(given.documents(), window),
            path,
            encoder,
            given,
            _settings(levels, given=True),
            store_text=store_text,
            overwrite=overwrite,
            memory_budget=memory_budget,
            progress=progress,
            block_postings=block_postings,
        )

    @classmethod
    def _created(
        cls,
        source: Corpus | Iterable[Document],
        path: str | Path | None,
        encoder: SparseEncoder | None,
        given: GivenWeights | None,
        settings: dict[str, Any],
        *,
        store_text: bool,
        block_postings: int,
        **knobs: Any,
    ) -> SparseIndex:
        empty = Manifest.empty(
            cls.kind,
            settings,
            statistics=Quantisation().to_dict(),
            encoder=None if encoder is None else encoder.card.to_dict(),
            text_stored=store_text,
        )

        def make(generation: Generation) -> SparseIndex:
            index = cls(generation, encoder)
            index.block_postings = block_postings
            index._given = given
            return index

        index = create(make, empty, source, path, **knobs)
        index._given = None
        return index

    @classmethod
    def open(cls, path: str | Path, encoder: SparseEncoder | None = None) -> SparseIndex:
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

    def _reopened(self) -> SparseIndex:
        # With the same encoder, where it was loaded.
        return self.open(self.path, self.__dict__.get("encoder"))

    def write(
        self,
        segment: SegmentWriter,
        documents: DocumentWriter,
        chunks: Iterable[Corpus],
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """Weigh documents and write their postings as a new segment; what was lost is told once."""
        shards = (part for chunk in chunks for part in chunk.chunks(SHARD))
        counts = write_weights(
            segment,
            documents,
            shards,
            self._weigher(segment),
            self.levels,
            where=self.path,
            hashed=self.given,
            block_postings=self.block_postings,
            progress=progress,
        )
        if self._given is not None:
            self._given.check_known(self.path)
        self._keep(segment)
        return counts

    def merge(self, segment: SegmentWriter) -> dict[str, Any]:
        """Write all live documents as one segment, with what is kept of the encoder."""
        self._keep(segment)
        for old in self.segments:
            inherit_runs(segment, old)
        return super().merge(segment)

    def _keep(self, segment: SegmentWriter) -> None:
        """Write what the encoder needs to be found by its card again."""
        for name, array in self._kept.items():
            segment.put(_KEPT + name, array)

    @property
    def _kept(self) -> Mapping[str, NDArray[Any]]:
        encoder = self.__dict__.get("encoder")
        if encoder is not None:
            found: Mapping[str, NDArray[Any]] = getattr(encoder, "kept", {})
            return found
        for segment in self.segments:
            names = [name for name in segment.record.arrays if name.startswith(_KEPT)]
            if names:
                return {name.removeprefix(_KEPT): segment[name].all() for name in names}
        return {}

    def _weigher(self, segment: SegmentWriter) -> Callable[[Corpus], WeightedTerms]:
        """What gives the weights of some documents."""
        if self._given is not None:
            return self._given.next
        if self.manifest.encoder is None:
            raise FormError(
                f"{self.path}: this index holds weights that were given, and no encoder that could "
                "weigh another document; build it again with all documents"
            )
        return partial(
            encoded, self.encoder, Once(self.encoder, segment.shards, details=segment.details)
        )

    def derived(self, segment: SegmentReader) -> Iterable[Derivation]:
        """As every index of terms; hashes of given weights do not follow from words alone."""
        for way in super().derived(segment):
            if not (self.given and "hashes" in way.makes):
                yield way

    def updated(
        self,
        added: Sequence[Mapping[str, Any]],
        removed: Iterable[tuple[SegmentReader, NDArray[np.int64]]],
    ) -> dict[str, Any]:
        """What became of all weights ever written, which deletions leave as it is.

        Args:
            added: Statistics of new segments.
            removed: Rows that are newly deleted, int64 ``(m,)``, with their segments.

        Returns:
            The new totals.
        """
        total = self.quantisation
        for part in added:
            total += Quantisation.from_dict(dict(part))
        return total.to_dict()

    @property
    def levels(self) -> float | None:
        """Levels per unit of weight; None where weights are exact."""
        levels: float | None = self.manifest.settings["levels"]
        return levels

    @property
    def given(self) -> bool:
        """Whether the weights were computed elsewhere."""
        return bool(self.manifest.settings["weights"] == "given")

    @property
    def quantisation(self) -> Quantisation:
        """How far stored weights are from what they were."""
        return Quantisation.from_dict(dict(self.manifest.statistics))

    @property
    def card(self) -> EncoderCard | None:
        """Who weighed the documents; None where nobody is known."""
        card = self.manifest.encoder
        return None if card is None else EncoderCard.from_dict(card)

    @cached_property
    def encoder(self) -> SparseEncoder:
        """The query encoder, loaded by the name on its card when it was not given.

        Raises:
            FormError: The index knows no encoder.
            EncoderMismatchError: What the name leads to now is another encoder.
            UnknownNameError: The name leads nowhere; open the index with the encoder.
        """
        if self.card is None:
            raise FormError(
                f"{self.path}: the weights were given without an encoder; search with weighted "
                "terms (Queries of WeightedTerms), or build it with from_weights(..., encoder=...)"
            )
        found: SparseEncoder = encoder_of_card(self.card, "splade", self._kept)
        return matching(found, self.card, self.path)

    @cached_property
    def impacts(self) -> list[NDArray[np.float32]]:
        """By segment the weight of a posting, float32 ``(codes,)`` by code."""
        return [to_weights(s["values"].all() >> 8, self.levels) for s in self.segments]

    @property
    def largest_impact(self) -> float:
        """A bound on all stored weights."""
        half = 0.5 / self.levels if self.levels else 0.0
        return self.quantisation.largest + half

    def term_weight(self, term: str, weight: float) -> float:
        """The weight of a query's term as it is.

        Args:
            term: The term.
            weight: Its weight in the query.

        Returns:
            The same weight.
        """
        return weight

    def query_terms(self, queries: Queries) -> list[dict[str, float]]:
        """The weighted terms of each query.

        Args:
            queries: Queries of texts (encoded here), of weighted terms (taken as they are), or of
                sparse vectors of the index's encoder.

        Returns:
            One mapping of term to weight per query.

        Raises:
            FormError: The queries have another form, or are no terms and there is no encoder.
            EncoderMismatchError: The vectors were made by another encoder.
            EncoderContractError: The encoder gave weights of another shape than it says.
        """
        form = queries.form
        if isinstance(form, pa.LargeStringArray):
            texts = queries.rewritten_texts
            form = checked(self.encoder.encode_query(texts), len(texts), self.encoder)
        if isinstance(form, SparseVectors):
            mine = self.encoder.card.fingerprint
            if form.encoder not in (None, mine):
                raise EncoderMismatchError(
                    f"{self.path}: the query vectors were made by another encoder (fingerprint "
                    f"{str(form.encoder)[:12]}) than the index's {self.encoder.card.name!r} "
                    f"({mine[:12]})"
                )
            form = named(form, self.encoder)
        if not isinstance(form, WeightedTerms):
            raise FormError(
                "a sparse index searches with text, weighted terms or sparse vectors; these "
                f"queries are {queries.form_name}"
            )
        return [form.row(row) for row in range(len(form))]


def _settings(levels: float | None, *, given: bool) -> dict[str, Any]:
    return {"levels": check_levels(levels), "weights": "given" if given else "encoded"}
