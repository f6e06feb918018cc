"""The terms of documents, from the forward index that an inverted index keeps beside its postings.

Terms of a batch of documents are numbered in ascending order of their bytes, whichever segments the
documents lie in, so that nothing depends on how the index came to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.arrow import row_array
from retrievekit.errors import FormError
from retrievekit.ids import places_among
from retrievekit.index.base import Index
from retrievekit.index.postings import PostingsIndex
from retrievekit.store.segment import SegmentReader

REMEMBERED = 1 << 16
"""Terms whose frequency in the collection is remembered."""


@dataclass(frozen=True)
class Documents:
    """The terms of some documents.

    Args:
        offsets: int64 ``(m + 1,)``, where those of each document begin and end.
        terms: int32 ``(nnz,)``, numbers of terms, ascending within a document.
        values: float32 ``(nnz,)``, times that a term comes, or its learned weight.
        vocabulary: The terms by number, ascending by their bytes.
        df: int64 ``(vocabulary,)``, live documents of the index that hold each.
    """

    offsets: NDArray[np.int64]
    terms: NDArray[np.int32]
    values: NDArray[np.float32]
    vocabulary: pa.LargeStringArray
    df: NDArray[np.int64]

    def names(self, numbers: NDArray[np.integer]) -> list[str]:
        """The terms of some numbers, integers ``(m,)``."""
        found: list[str] = self.vocabulary.take(row_array(numbers)).to_pylist()
        return found

    def row(self, document: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Numbers of a document's terms, int32 ``(m,)``, and their values, float32 ``(m,)``."""
        part = slice(int(self.offsets[document]), int(self.offsets[document + 1]))
        return self.terms[part], self.values[part]


class TermVectors:
    """Reads the terms of an index's documents.

    Args:
        index: An index of terms, ``bm25`` or ``sparse``.

    Raises:
        FormError: It is of another kind.
    """

    def __init__(self, index: Index) -> None:
        if not isinstance(index, PostingsIndex):
            hint = "; lucene_rm3 and lucene_rocchio read that of Lucene's"
            raise FormError(
                f"feedback by terms reads them from a BM25Index or a SparseIndex; this is {index!r}"
                + (hint if getattr(index, "kind", "") == "lucene" else "")
            )
        self.index = index
        self.counts = index.kind == "bm25"
        self._frequencies: dict[str, int] = {}
        if self.counts:
            self._tables = [_counts(segment) for segment in index.segments]
        else:
            self._tables = index.impacts

    def of(self, rows: NDArray[np.int64]) -> Documents:
        """The terms of documents.

        Args:
            rows: Their rows among the live documents, int64 ``(m,)``.

        Returns:
            Their terms, document by document.
        """
        index = self.index
        numbers, within = index.places
        lengths = np.zeros(len(rows), np.int64)
        parts = []
        for number, segment in enumerate(index.segments):
            mine = np.flatnonzero(numbers[rows] == number)
            own = within[rows[mine]].astype(np.int64)
            starts = segment["forward.offsets"].take(own)
            stops = segment["forward.offsets"].take(own + 1)
            lengths[mine] = stops - starts
            parts.append((mine, starts, stops))
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        own_terms = np.empty(offsets[-1], np.int32)
        values = np.empty(offsets[-1], np.float32)
        spread = []
        for number, (segment, (mine, starts, stops)) in enumerate(
            zip(index.segments, parts, strict=True)
        ):
            for name in ("forward.terms", "forward.codes"):
                for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                    segment[name].ensure(start, stop)
            source, target = _runs(starts, stops - starts), _runs(offsets[mine], stops - starts)
            own_terms[target] = segment["forward.terms"].unchecked[source]
            values[target] = self._tables[number][segment["forward.codes"].unchecked[source]]
            spread.append(target)
        terms, vocabulary, df = self._numbered(own_terms, spread)
        return Documents(offsets, terms, values, vocabulary, df)

    def _numbered(
        self, own: NDArray[np.int32], spread: list[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int32], pa.LargeStringArray, NDArray[np.int64]]:
        """Numbers of all segments' terms as those of one vocabulary, with that and the df."""
        index = self.index
        segments = index.segments
        if len(segments) == 1:
            distinct, terms = np.unique(own, return_inverse=True)
            vocabulary = _dictionary(segments[0]).take(row_array(distinct))
            if not len(segments[0].dead):
                ends = segments[0]["postings.offsets"]
                df = ends.take(distinct.astype(np.int64) + 1) - ends.take(distinct.astype(np.int64))
                return terms.astype(np.int32), vocabulary, df
        else:
            terms = np.empty(len(own), np.int32)
            found = [np.unique(own[target], return_inverse=True) for target in spread]
            strings = [
                _dictionary(segment).take(row_array(distinct))
                for segment, (distinct, _) in zip(segments, found, strict=True)
            ]
            empty = pa.array([], pa.large_string())
            merged = pc.unique(pa.concat_arrays([empty, *strings]))
            vocabulary = merged.take(pc.array_sort_indices(merged))
            for target, own_strings, (_, inverse) in zip(spread, strings, found, strict=True):
                terms[target] = places_among(own_strings, vocabulary)[inverse]
        df = np.array([index.df(term) for term in vocabulary.to_pylist()], np.int64)
        return terms.astype(np.int32), vocabulary, df

    def frequency(self, term: str) -> int:
        """How often a term comes in all live documents.

        Args:
            term: The term as the index keeps it.

        Returns:
            The number.
        """
        known = self._frequencies.get(term)
        if known is not None:
            return known
        total = 0
        for table, segment, dictionary in zip(
            self._tables, self.index.segments, self.index.dictionaries, strict=True
        ):
            number = dictionary.find(term)
            if number < 0:
                continue
            start, stop = segment["postings.offsets"].slice(number, number + 2).tolist()
            times = table[segment["postings.codes"].slice(start, stop)]
            if len(segment.dead):
                times = times[~segment.dead[segment["postings.rows"].slice(start, stop)]]
            total += int(times.sum(dtype=np.float64))
        if len(self._frequencies) < REMEMBERED:
            self._frequencies[term] = total
        return total


def _counts(segment: SegmentReader) -> NDArray[np.float32]:
    return (segment["values"].all() >> 8).astype(np.float32)


def _dictionary(segment: SegmentReader) -> pa.LargeStringArray:
    offsets = segment["terms.offsets"].all()
    return pa.LargeStringArray.from_buffers(
        len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(segment["terms.bytes"].all())
    )


def _runs(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions from each start on, so many each, one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    shifts: NDArray[np.int64] = np.repeat(starts - (ends - lengths), lengths)
    return np.arange(total, dtype=np.int64) + shifts
