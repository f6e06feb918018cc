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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.analysis.lucene import LuceneEnglishAnalyzer
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, FormError, NonFiniteError, UnknownNameError
from retrievekit.index.base import Index
from retrievekit.index.documents import Build, DocumentWriter, document_chunks
from retrievekit.index.inverted import BLOCK_POSTINGS, Dictionary, PostingsBuilder
from retrievekit.index.results import MAX_SCORE, check_k, in_parts, run_of
from retrievekit.protocols import Progress
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.store.files import naming_space
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter
from retrievekit.vectors import WeightedTerms, ragged_take
from retrievekit.where import Condition

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
            statistics = write_segment(
                build.segment,
                build.documents,
                chunks,
                analyzer,
                block_postings=block_postings,
                progress=lambda done: progress(done, total) if progress is not None else None,
            )
            build.commit(
                cls.kind,
                {"analyzer": analyzer.to_dict(), "k1": k1, "b": b},
                statistics=statistics,
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
        return write_segment(segment, documents, chunks, self.analyzer, progress=progress)

    def merge(self, segment: SegmentWriter) -> dict[str, Any]:
        """Write the postings of all live documents, from the forward index, as one segment."""
        scratch = Path(tempfile.mkdtemp(prefix="spill-", dir=segment.folder))
        postings = PostingsBuilder(segment, scratch)
        for old, dictionary in zip(self.segments, self.dictionaries, strict=True):
            names = [dictionary.term(number) for number in range(len(dictionary))]
            values = old["values"].all()
            offsets = old["forward.offsets"].all()
            terms, codes = old["forward.terms"].all(), old["forward.codes"].all()
            for row in old.live.tolist():
                part = slice(offsets[row], offsets[row + 1])
                packed = values[codes[part]]
                found = [names[number] for number in terms[part].tolist()]
                counts = dict(zip(found, (packed >> 8).tolist(), strict=True))
                postings.add(counts, int(packed[0]) & 255 if len(packed) else 0)
        segment.put("values", postings.finish())
        shutil.rmtree(scratch)
        return dict(self.manifest.statistics)

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
            offsets = segment["forward.offsets"].all()
            positions, _ = ragged_take(offsets, rows)
            frequencies = segment["values"].all()[segment["forward.codes"].all()[positions]] >> 8
            totals["tokens"] -= int(frequencies.sum())
            totals["documents_with_terms"] -= int((np.diff(offsets)[rows] > 0).sum())
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
    def dictionaries(self) -> list[Dictionary]:
        """The terms of each segment."""
        return [Dictionary(segment) for segment in self.segments]

    @cached_property
    def _impacts(self) -> list[NDArray[np.float32]]:
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

    def _slices(self, terms: dict[str, float]) -> _Slices:
        """Known terms in ascending order of their bytes, with their postings in each segment."""
        names, bounds, weights = [], [], []
        # This order, and not that of any one segment, is the order in which scores are added up.
        for term in sorted(terms, key=lambda term: term.encode("utf-8")):
            if terms[term] == 0:
                continue
            found, df = self._postings(term)
            if df:
                names.append(term)
                bounds.append(found)
                weights.append(terms[term] * self.idf(df))
        return _Slices(names, bounds, weights)

    def _postings(self, term: str) -> tuple[list[tuple[int, int]], int]:
        """A term's postings in each segment, and how many live documents hold it."""
        if term in self._known:
            return self._known[term]
        from retrievekit.kernels.postings import count_dead

        found, df = [], 0
        for segment, dictionary in zip(self.segments, self.dictionaries, strict=True):
            number = dictionary.find(term)
            start = stop = 0
            if number >= 0:
                start, stop = segment["postings.offsets"].slice(number, number + 2).tolist()
                segment["postings.rows"].ensure(start, stop)
                segment["postings.codes"].ensure(start, stop)
            df += stop - start
            if len(segment.dead) and stop > start:
                rows = segment["postings.rows"].unchecked
                df -= int(count_dead(rows, np.array([start]), np.array([stop]), segment.dead)[0])
            found.append((start, stop))
        if len(self._known) < 1 << 16:
            self._known[term] = (found, df)
        return found, df

    @cached_property
    def _known(self) -> dict[str, tuple[list[tuple[int, int]], int]]:
        return {}

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | Condition | None = None,
        threads: int | None = None,
    ) -> Run:
        """The k best documents of each query by BM25; documents without a query term are no hits.

        Args:
            queries: Queries of texts or of weighted terms.
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy; statistics stay those of all.
            threads: Threads to use; all cores by default. The answer does not depend on it.

        Returns:
            The run.

        Raises:
            DataError: k is no whole number of at least 1.
            FormError: The queries are vectors or have no form.
            NonFiniteError: A query's term weights are so large that scores may overflow.
        """
        from retrievekit.kernels.postings import search_postings
        from retrievekit.kernels.select import unpack_all

        check_k(k)
        found = [self._slices(terms) for terms in self.query_terms(queries)]
        for row, slices in enumerate(found):
            # No posting adds more than its term's weight, so this bounds every partial sum.
            if not sum(map(abs, slices.weights)) < MAX_SCORE:
                raise NonFiniteError(
                    f"query {queries.ids[row]!r}: its term weights are so large that scores may "
                    "not fit into float32; scale them down"
                )
        bounds = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(slices.weights) for slices in found], out=bounds[1:])
        weights = np.array([w for slices in found for w in slices.weights], np.float32)
        hidden, candidates = self.hidden(where)
        k = min(k, max(candidates, 1))
        keys = np.empty((len(queries), k), np.uint64)
        counts = np.zeros(len(queries), np.int64)
        for number, segment in enumerate(self.segments):
            pairs = [slices.bounds[i][number] for slices in found for i in range(len(slices.names))]
            starts, stops = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
            rows, codes = segment["postings.rows"].unchecked, segment["postings.codes"].unchecked
            impacts, ranks = self._impacts[number], self.ranks[number]

            def part(
                first: int,
                last: int,
                own: Any = (rows, codes, impacts, starts, stops, ranks),
                dead: NDArray[np.bool_] = hidden[number],
            ) -> None:
                rows, codes, impacts, starts, stops, ranks = own
                search_postings(
                    rows, codes, impacts, bounds[first : last + 1], starts, stops, weights,
                    ranks, dead, k, keys[first:last], counts[first:last],
                )  # fmt: skip

            in_parts(part, len(queries), threads)
        out_rows = np.empty((len(queries), k), np.int32)
        out_scores = np.empty((len(queries), k), np.float32)
        unpack_all(keys, counts, self.ids.order, out_rows, out_scores)
        return run_of(queries, self.ids, out_rows, out_scores, counts)

    def explain(self, queries: Queries, doc_id: str) -> dict[str, float]:
        """What each term of the first query adds to a document's score.

        Args:
            queries: One query.
            doc_id: The document.

        Returns:
            float by term, adding up to the score; terms that the document lacks are left out.
        """
        segment, row = self.place(self.ids.row(doc_id))
        number = self.segments.index(segment)
        slices = self._slices(self.query_terms(queries)[0])
        parts: dict[str, float] = {}
        for name, bounds, weight in zip(slices.names, slices.bounds, slices.weights, strict=True):
            start, stop = bounds[number]
            rows = segment["postings.rows"].slice(start, stop)
            place = int(np.searchsorted(rows, row))
            if place < len(rows) and rows[place] == row:
                code = segment["postings.codes"].slice(start, stop)[place]
                parts[name] = float(np.float32(weight) * self._impacts[number][code])
        return parts


@dataclass(frozen=True)
class _Slices:
    """The terms of one query: for each its postings' bounds in each segment, and its weight."""

    names: list[str]
    bounds: list[list[tuple[int, int]]]
    weights: list[float]


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
