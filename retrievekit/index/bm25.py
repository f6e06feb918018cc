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
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.analysis.lucene import LuceneEnglishAnalyzer
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, FormError, NonFiniteError, UnknownNameError
from retrievekit.index.base import Build, Index, document_chunks
from retrievekit.index.inverted import BLOCK_POSTINGS, Dictionary, PostingsBuilder
from retrievekit.index.results import MAX_SCORE, check_k, in_parts, run_of
from retrievekit.protocols import Progress
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.store.files import naming_space
from retrievekit.store.segment import Generation
from retrievekit.vectors import WeightedTerms

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


class BM25Index(Index):
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
        chunks, total = document_chunks(source)
        with (
            Build(path, overwrite=overwrite, store_text=store_text) as build,
            naming_space(build.folder),
        ):
            scratch = Path(tempfile.mkdtemp(prefix="spill-", dir=build.segment.folder))
            postings = PostingsBuilder(build.segment, scratch, block_postings=block_postings)
            documents = tokens = 0
            for chunk in chunks:
                build.documents.add(chunk)
                for text in chunk.contents():
                    counts = analyzer.counts(text)
                    length = sum(counts.values())
                    postings.add(counts, length_byte(length))
                    tokens += length
                    documents += length > 0
                if progress is not None:
                    progress(build.documents.documents, total)
            values = postings.finish()
            build.segment.put("values", values)
            shutil.rmtree(scratch)
            build.commit(
                cls.kind,
                {"analyzer": analyzer.to_dict(), "k1": k1, "b": b},
                statistics={"documents_with_terms": documents, "tokens": tokens},
            )
            index = cls.open(build.folder)
            build.keep_alive(index)
        return index

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
    def dictionary(self) -> Dictionary:
        """The terms."""
        return Dictionary(self.segments[0])

    @cached_property
    def _impacts(self) -> NDArray[np.float32]:
        """Tf / (tf + k1 * (1 - b + b * dl / avgdl)) by code, float32 ``(codes,)``."""
        values = self.segments[0]["values"].all()
        tf = (values >> 8).astype(np.float64)
        lengths = np.array([byte_length(byte) for byte in range(256)], np.float64)[values & 255]
        counted = self.manifest.statistics["documents_with_terms"]
        average = self.manifest.statistics["tokens"] / counted if counted else 1.0
        norm = self.k1 * ((1 - self.b) + self.b * lengths / average)
        impacts: NDArray[np.float32] = (tf / (tf + norm)).astype(np.float32)
        return impacts

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

    def _slices(
        self, terms: dict[str, float]
    ) -> tuple[list[str], list[int], list[int], list[float]]:
        """Known terms in canonical order, their postings' bounds, and their weights with idf."""
        segment = self.segments[0]
        offsets, rows, codes = (
            segment[f"postings.{name}"] for name in ("offsets", "rows", "codes")
        )
        names, starts, stops, weights = [], [], [], []
        numbered = sorted((self.dictionary.find(term), term) for term in terms)
        for number, term in numbered:
            if number < 0 or terms[term] == 0:
                continue
            start, stop = offsets.slice(number, number + 2).tolist()
            rows.ensure(start, stop)
            codes.ensure(start, stop)
            names.append(term)
            starts.append(start)
            stops.append(stop)
            weights.append(terms[term] * self.idf(stop - start))
        return names, starts, stops, weights

    def search(self, queries: Queries, k: int, *, threads: int | None = None) -> Run:
        """The k best documents of each query by BM25; documents without a query term are no hits.

        Args:
            queries: Queries of texts or of weighted terms.
            k: Hits per query, at least 1.
            threads: Threads to use; all cores by default. The answer does not depend on it.

        Returns:
            The run.

        Raises:
            DataError: k is no whole number of at least 1.
            FormError: The queries are vectors or have no form.
            NonFiniteError: A query's term weights are so large that scores may overflow.
        """
        from retrievekit.kernels.postings import search_postings

        check_k(k)
        found = [self._slices(terms) for terms in self.query_terms(queries)]
        for row, (*_, weighed) in enumerate(found):
            # No posting adds more than its term's weight, so this bounds every partial sum.
            if not sum(map(abs, weighed)) < MAX_SCORE:
                raise NonFiniteError(
                    f"query {queries.ids[row]!r}: its term weights are so large that scores may "
                    "not fit into float32; scale them down"
                )
        bounds = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(part[0]) for part in found], out=bounds[1:])
        starts = np.array([s for part in found for s in part[1]], np.int64)
        stops = np.array([s for part in found for s in part[2]], np.int64)
        weights = np.array([w for part in found for w in part[3]], np.float32)
        segment = self.segments[0]
        rows, codes = segment["postings.rows"].unchecked, segment["postings.codes"].unchecked
        rank, order = self.ids.rank, self.ids.order
        k = min(k, max(len(self), 1))
        out_rows = np.empty((len(queries), k), np.int32)
        out_scores = np.empty((len(queries), k), np.float32)
        counts = np.zeros(len(queries), np.int64)

        def part(first: int, last: int) -> None:
            search_postings(
                rows, codes, self._impacts, bounds[first : last + 1], starts, stops, weights,
                rank, order, k, out_rows[first:last], out_scores[first:last],
                counts[first:last],
            )  # fmt: skip

        in_parts(part, len(queries), threads)
        return run_of(queries, self.ids, out_rows, out_scores, counts)

    def explain(self, queries: Queries, doc_id: str) -> dict[str, float]:
        """What each term of the first query adds to a document's score.

        Args:
            queries: One query.
            doc_id: The document.

        Returns:
            float by term, adding up to the score; terms that the document lacks are left out.
        """
        row = self.ids.row(doc_id)
        names, starts, stops, weights = self._slices(self.query_terms(queries)[0])
        segment = self.segments[0]
        parts: dict[str, float] = {}
        for name, start, stop, weight in zip(names, starts, stops, weights, strict=True):
            rows = segment["postings.rows"].slice(start, stop)
            place = int(np.searchsorted(rows, row))
            if place < len(rows) and rows[place] == row:
                code = segment["postings.codes"].slice(start, stop)[place]
                parts[name] = float(np.float32(weight) * self._impacts[code])
        return parts
