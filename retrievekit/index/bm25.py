"""BM25 as Lucene and Anserini compute it, on our own inverted index.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), in
Lucene's form, without the constant factor k1 + 1. For a query term t and a document d::

    score(t, d) = idf(t) * tf / (tf + k1 * (1 - b + b * dl / avgdl))
    idf(t)      = ln(1 + (N - df + 0.5) / (df + 0.5))

N counts documents with at least one term, avgdl is all tokens over N, and dl is the document's
length as Lucene stores it in one byte (`length_byte`), exact below 24 and with four significant
bits above 40. A query term that comes twice counts twice.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.analysis.lucene import LuceneEnglishAnalyzer
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, FormError, UnknownNameError
from retrievekit.index.creating import create
from retrievekit.index.derived import Derivation, of_words
from retrievekit.index.documents import DocumentWriter
from retrievekit.index.inverted import BLOCK_POSTINGS, PostingsBuilder
from retrievekit.index.postings import PostingsIndex
from retrievekit.protocols import Progress
from retrievekit.queries import Queries
from retrievekit.store.manifest import Manifest
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter
from retrievekit.vectors import WeightedTerms, ragged_take

PRESETS: dict[str, tuple[float, float]] = {
    "anserini": (0.9, 0.4),
    "lucene": (1.2, 0.75),
    "msmarco": (0.82, 0.68),
}
"""k1 and b by name: Anserini's defaults, Lucene's, and Anserini's tuned for MS MARCO passages."""

_FREE = 24
"""Lengths below this are stored exactly (Lucene's SmallFloat has that many values to spare)."""


def length_byte(length: int) -> int:
    """The byte that Lucene stores for a document length (``SmallFloat.intToByte4``).

    Args:
        length: Tokens of the document, at least 0.

    Returns:
        A byte, 0 to 255, that does not fall as the length grows.
    """
    if length < _FREE:
        return length
    x = length - _FREE
    bits = x.bit_length()
    if bits < 4:
        return _FREE + x
    shift = bits - 4
    return _FREE + ((x >> shift) & 0x07 | (shift + 1) << 3)


def byte_length(byte: int) -> int:
    """The length that a byte stands for (``SmallFloat.byte4ToInt``).

    Args:
        byte: 0 to 255.

    Returns:
        The largest length that is not above any length stored as this byte.
    """
    if byte < _FREE:
        return byte
    x = byte - _FREE
    mantissa, shift = x & 0x07, (x >> 3) - 1
    return _FREE + (mantissa if shift < 0 else (mantissa | 0x08) << shift)


class BM25Index(PostingsIndex):
    """An inverted index that ranks by BM25."""

    kind: ClassVar[str] = "bm25"

    @classmethod
    def build(
        cls,
        source: Corpus | Iterable[Document],
        path: str | Path | None = None,
        *,
        preset: str = "anserini",
        k1: float | None = None,
        b: float | None = None,
        analyzer: LuceneEnglishAnalyzer | None = None,
        store_text: bool = True,
        overwrite: bool = False,
        memory_budget: int | None = None,
        progress: Progress | None = None,
        block_postings: int = BLOCK_POSTINGS,
    ) -> BM25Index:
        """Index documents, reading them once and holding a bounded part in memory.

        Args:
            source: A corpus, or any iterable of documents.
            path: The index folder; without it the index lives as long as the object.
            preset: ``anserini`` (k1 = 0.9, b = 0.4), ``lucene`` (1.2, 0.75) or ``msmarco``
                (0.82, 0.68).
            k1: Term frequency saturation, at least 0, instead of the preset's.
            b: Length normalisation, 0 to 1, instead of the preset's.
            analyzer: Turns text into terms; Lucene's English analysis by default.
            store_text: Whether to keep the words in the index.
            overwrite: Whether an index that is there may be replaced.
            memory_budget: Bytes of memory that this process may use; what would need more becomes
                several segments, and no answer changes.
            progress: Called with documents done and in all.
            block_postings: Postings held in memory at a time.

        Returns:
            The index, opened.

        Raises:
            UnknownNameError: No such preset.
            DataError: k1 or b is out of range, or a document cannot be used.
            IndexExistsError: An index is at `path` and `overwrite` is false.
            LockedError: Another process is writing there.
        """
        if preset not in PRESETS:
            raise UnknownNameError.among("BM25 preset", preset, PRESETS)
        k1 = PRESETS[preset][0] if k1 is None else float(k1)
        b = PRESETS[preset][1] if b is None else float(b)
        if not (math.isfinite(k1) and k1 >= 0):
            raise DataError(f"k1 is {k1}; it must be a finite number of at least 0")
        if not 0 <= b <= 1:
            raise DataError(f"b is {b}; it must lie between 0 and 1")
        analyzer = analyzer or LuceneEnglishAnalyzer()
        empty = Manifest.empty(
            cls.kind,
            {"analyzer": analyzer.to_dict(), "k1": k1, "b": b},
            statistics={"documents_with_terms": 0, "tokens": 0},
            text_stored=store_text,
        )

        def make(generation: Generation) -> BM25Index:
            index = cls(generation)
            index.block_postings = block_postings
            return index

        return create(
            make,
            empty,
            source,
            path,
            overwrite=overwrite,
            memory_budget=memory_budget,
            progress=progress,
        )

    @classmethod
    def open(cls, path: str | Path) -> BM25Index:
        """Open an index by memory map.

        Args:
            path: The index folder.

        Returns:
            The index, pinned to its live generation.

        Raises:
            FormatVersionError: The folder is no index of this kind, or a newer one.
            CorruptIndexError: It is damaged.
        """
        return cls(Generation.pin(Path(path)))

    def _reopened(self) -> BM25Index:
        return self.open(self.path)

    def write(
        self,
        segment: SegmentWriter,
        documents: DocumentWriter,
        chunks: Iterable[Corpus],
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """Analyse documents and write their postings as a new segment."""
        return write_segment(
            segment,
            documents,
            chunks,
            self.analyzer,
            block_postings=self.block_postings,
            progress=progress,
        )

    def derived(self, segment: SegmentReader) -> Iterable[Derivation]:
        """Postings and forward index follow from each other, and both from the words."""
        yield from super().derived(segment)
        yield from of_words(segment, self.write)

    def updated(
        self,
        added: Sequence[Mapping[str, Any]],
        removed: Iterable[tuple[SegmentReader, NDArray[np.int64]]],
    ) -> dict[str, Any]:
        """Documents with terms, and tokens, after an update.

        Args:
            added: Statistics of new segments.
            removed: Rows that are newly deleted, int64 ``(m,)``, with their segments.

        Returns:
            The new totals over live documents.
        """
        names = ("documents_with_terms", "tokens")
        totals = {
            name: self.manifest.statistics[name] + sum(part[name] for part in added)
            for name in names
        }
        for segment, rows in removed:
            offsets = segment["forward.offsets"]
            starts, stops = offsets.take(rows), offsets.take(rows + 1)
            bounds = np.stack([starts, stops], axis=1).ravel()
            positions, _ = ragged_take(bounds, np.arange(0, len(bounds), 2))
            codes = segment["forward.codes"].take(positions)
            totals["tokens"] -= int((segment["values"].all()[codes] >> 8).sum())
            totals["documents_with_terms"] -= int((stops > starts).sum())
        return totals

    @cached_property
    def analyzer(self) -> LuceneEnglishAnalyzer:
        """What turns text into terms, as the manifest names it."""
        return LuceneEnglishAnalyzer.from_dict(self.manifest.settings["analyzer"])

    @property
    def k1(self) -> float:
        """Term frequency saturation."""
        return float(self.manifest.settings["k1"])

    @property
    def b(self) -> float:
        """Length normalisation."""
        return float(self.manifest.settings["b"])

    @cached_property
    def impacts(self) -> list[NDArray[np.float32]]:
        """By segment, tf / (tf + k1 * (1 - b + b * dl / avgdl)) by code, float32 ``(codes,)``."""
        counted = self.manifest.statistics["documents_with_terms"]
        average = self.manifest.statistics["tokens"] / counted if counted else 1.0
        decoded = np.array([byte_length(byte) for byte in range(256)], np.float64)
        out = []
        for segment in self.segments:
            values = segment["values"].all()
            tf = (values >> 8).astype(np.float64)
            norm = self.k1 * ((1 - self.b) + self.b * decoded[values & 255] / average)
            out.append((tf / (tf + norm)).astype(np.float32))
        return out

    @property
    def largest_impact(self) -> float:
        """No document adds more than a term weighs."""
        return 1.0

    def idf(self, df: int) -> float:
        """ln(1 + (N - df + 0.5) / (df + 0.5)) for a document frequency."""
        n = self.manifest.statistics["documents_with_terms"]
        return math.log(1 + (n - df + 0.5) / (df + 0.5))

    def query_terms(self, queries: Queries) -> list[dict[str, float]]:
        """The weighted terms of each query.

        Args:
            queries: Queries of texts (analysed here) or of weighted terms (taken as they are).

        Returns:
            One mapping of term to weight per query; a text's term weighs the times it comes.

        Raises:
            FormError: The queries are vectors or have no form.
        """
        if isinstance(queries.form, WeightedTerms):
            return [queries.form.row(row) for row in range(len(queries))]
        if isinstance(queries.form, pa.LargeStringArray):
            counts = [self.analyzer.counts(text) for text in queries.rewritten_texts]
            return [{term: float(times) for term, times in part.items()} for part in counts]
        raise FormError(
            f"a BM25 index searches with text or weighted terms; these queries are "
            f"{queries.form_name}"
        )

    def term_weight(self, term: str, weight: float) -> float:
        """The idf of a term times its weight in the query.

        Args:
            term: The term as the index keeps it.
            weight: Its weight in the query.

        Returns:
            The product; 0 when no live document holds the term.
        """
        df = self.df(term)
        return weight * self.idf(df) if df else 0.0


def write_segment(
    segment: SegmentWriter,
    documents: DocumentWriter,
    chunks: Iterable[Corpus],
    analyzer: LuceneEnglishAnalyzer,
    *,
    block_postings: int = BLOCK_POSTINGS,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """Analyse documents and write their postings.

    Args:
        segment: Where arrays are written.
        documents: Where ids and words are written.
        chunks: The documents.
        analyzer: Turns text into terms.
        block_postings: Postings held in memory at a time.
        progress: Called with documents done.

    Returns:
        Documents with at least one term, and all tokens.
    """
    scratch = Path(tempfile.mkdtemp(prefix="spill-", dir=segment.folder))
    postings = PostingsBuilder(segment, scratch, block_postings=block_postings)
    filled = tokens = 0
    for chunk in chunks:
        documents.add(chunk)
        for text in chunk.contents():
            counts = analyzer.counts(text)
            length = sum(counts.values())
            postings.add(counts, length_byte(length))
            tokens += length
            filled += length > 0
        progress(documents.documents)
    segment.put("values", postings.finish())
    shutil.rmtree(scratch)
    return {"documents_with_terms": filled, "tokens": tokens}
