"""Building an inverted index from a stream of documents within bounded memory.

Documents arrive as {term: value}. Their postings gather in a block; a full block is sorted by term
and spilled to disk. At the end terms get their final numbers, in ascending order of UTF-8 bytes,
and the blocks are merged term range by term range. What is written:

- ``terms.bytes``, ``terms.offsets``: the dictionary, sorted, looked up by binary search;
- ``postings.offsets`` int64, ``postings.rows`` int32, ``postings.codes`` uint16 or uint32;
- ``forward.offsets`` int64, ``forward.terms`` int32, ``forward.codes``: the same by document.

A code stands for one distinct value of a posting (for BM25: term frequency and length byte), so
that a posting needs two bytes besides its row, and nothing is rounded or clamped.
"""

from __future__ import annotations

import errno
import itertools
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrievekit.store.files import FullDiskError
from retrievekit.store.segment import CheckedArray, SegmentReader, SegmentWriter
from retrievekit.vectors import ragged_take

BLOCK_POSTINGS = 1 << 23
"""Postings that are held in memory before a block is spilled (about 100 MB)."""

COPIED_AT_A_TIME = 4096
"""Documents whose postings are copied from another segment at a time."""


@dataclass
class _Block:
    """A part of the postings on disk, sorted by the bytes of its terms."""

    path: Path
    terms: NDArray[np.int32]
    offsets: NDArray[np.int64]
    postings: int
    documents: int

    def part(self, first: int, last: int) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Rows and codes of postings first to last, read from disk."""
        count = last - first
        rows = np.fromfile(self.path, np.int32, count, offset=4 * first)
        codes = np.fromfile(self.path, np.uint32, count, offset=4 * (self.postings + first))
        return rows, codes

    def forward(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]]:
        """Terms per document, and the terms and codes of all, in document order."""
        start = 8 * self.postings
        lengths = np.fromfile(self.path, np.int64, self.documents, offset=start)
        start += 8 * self.documents
        terms = np.fromfile(self.path, np.int32, self.postings, offset=start)
        codes = np.fromfile(self.path, np.uint32, self.postings, offset=start + 4 * self.postings)
        return lengths, terms, codes


class PostingsBuilder:
    """Turns documents' terms into the arrays of an inverted index.

    Args:
        segment: Where they are written.
        scratch: A folder for spilled blocks; they are removed as they are merged.
        block_postings: Postings held in memory at a time.
    """

    def __init__(
        self, segment: SegmentWriter, scratch: Path, *, block_postings: int = BLOCK_POSTINGS
    ) -> None:
        self._segment = segment
        self._scratch = scratch
        self._limit = block_postings
        self._terms: dict[str, int] = {}
        self._raw: list[bytes] = []
        self._codes: dict[int, int] = {}
        self._blocks: list[_Block] = []
        self._row = 0
        self._new_block()

    def _new_block(self) -> None:
        self._first_row = self._row
        self._block_terms = array("i")
        self._block_values = array("q")
        self._block_lengths = array("q")

    def add(self, values: Mapping[str, int], shared: int = 0) -> None:
        """Add the next document.

        Args:
            values: Its terms with one integer each, such as term frequencies, at least 1.
            shared: An integer below 256 that all its postings carry too, such as the length byte.
        """
        known = self._terms
        numbers = [known.setdefault(term, len(known)) for term in values]
        self._block_terms.extend(numbers)
        self._block_values.extend([value << 8 | shared for value in values.values()])
        self._block_lengths.append(len(numbers))
        self._row += 1
        if len(self._block_terms) >= self._limit:
            self._spill()

    def copy(self, segment: SegmentReader, dictionary: Dictionary) -> None:
        """Add the live documents of another segment, from its forward index.

        Args:
            segment: The segment.
            dictionary: Its terms.
        """
        values, offsets = segment["values"].all(), segment["forward.offsets"].all()
        terms, codes = segment["forward.terms"].all(), segment["forward.codes"].all()
        known = self._terms
        numbers = np.full(len(dictionary), -1, np.int32)
        for start in range(0, len(segment.live), COPIED_AT_A_TIME):
            self._segment.check_wanted()
            rows = segment.live[start : start + COPIED_AT_A_TIME]
            positions, bounds = ragged_take(offsets, rows)
            found = terms[positions]
            # Only terms that a live document holds: those of deleted ones are left behind.
            for number in np.unique(found[numbers[found] < 0]).tolist():
                numbers[number] = known.setdefault(dictionary.term(number), len(known))
            self._block_terms.frombytes(numbers[found].tobytes())
            self._block_values.frombytes(values[codes[positions]].tobytes())
            self._block_lengths.frombytes(np.diff(bounds).tobytes())
            self._row += len(rows)
            if len(self._block_terms) >= self._limit:
                self._spill()

    def _spill(self) -> None:
        if not self._block_lengths:
            return
        fresh = itertools.islice(self._terms, len(self._raw), None)
        self._raw += [term.encode("utf-8") for term in fresh]
        terms = np.frombuffer(self._block_terms, np.int32)
        packed = np.frombuffer(self._block_values, np.int64)
        lengths = np.frombuffer(self._block_lengths, np.int64)
        distinct, inverse = np.unique(packed, return_inverse=True)
        numbers = [self._codes.setdefault(int(v), len(self._codes)) for v in distinct]
        codes = np.array(numbers, np.uint32)[inverse]
        rows = np.repeat(np.arange(self._first_row, self._row, dtype=np.int32), lengths)
        # By the terms' bytes, the final order, so that a range of terms is one part of the block.
        seen, places, counts = np.unique(terms, return_inverse=True, return_counts=True)
        by_bytes = np.array(sorted(range(len(seen)), key=lambda i: self._raw[seen[i]]), np.int64)
        rank = np.empty(len(seen), np.int64)
        rank[by_bytes] = np.arange(len(seen))
        order = np.argsort(rank[places], kind="stable")
        present = seen[by_bytes]
        offsets = np.zeros(len(present) + 1, np.int64)
        np.cumsum(counts[by_bytes], out=offsets[1:])
        path = self._scratch / f"block-{len(self._blocks):05d}"
        parts = (rows[order], codes[order], lengths, terms, codes)
        try:
            with open(path, "wb") as file:
                for part in parts:
                    file.write(part.data)  # unlike `tofile`, says why when it fails
        except OSError as why:
            if why.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            there = path.stat().st_size if path.exists() else 0
            needed = sum(part.nbytes for part in parts) - there
            raise FullDiskError(path, max(needed, 1)) from why
        self._blocks.append(
            _Block(path, present.astype(np.int32), offsets, len(terms), len(lengths))
        )
        self._new_block()

    def finish(self) -> NDArray[np.int64]:
        """Merge all blocks and write the arrays.

        Returns:
            The distinct values by code, int64 ``(codes,)``, ascending: ``value << 8 | shared``.
        """
        self._spill()
        names, raw = list(self._terms), self._raw
        order = sorted(range(len(raw)), key=raw.__getitem__)
        final = np.empty(len(raw), np.int32)
        final[order] = np.arange(len(raw), dtype=np.int32)
        dictionary = self._segment.strings("terms")
        dictionary.extend([names[number] for number in order])
        self._terms.clear()
        # Codes were given as they came; ascending values make them independent of the blocks.
        seen = np.fromiter(self._codes, np.int64, len(self._codes))
        values = np.sort(seen)
        recode = np.searchsorted(values, seen)
        width = np.uint16 if len(values) <= 1 << 16 else np.uint32
        totals = np.zeros(len(raw), np.int64)
        for block in self._blocks:
            totals[final[block.terms]] += np.diff(block.offsets)
        offsets = np.zeros(len(raw) + 1, np.int64)
        np.cumsum(totals, out=offsets[1:])
        self._segment.put("postings.offsets", offsets)
        rows_out = self._segment.array("postings.rows", np.int32)
        codes_out = self._segment.array("postings.codes", width)
        for rows, codes in self._merged(offsets, final):
            rows_out.append(rows)
            codes_out.append(recode[codes])
        self._write_forward(final, recode, width)
        for block in self._blocks:
            block.path.unlink()
        return values

    def _merged(
        self, offsets: NDArray[np.int64], final: NDArray[np.int32]
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint32]]]:
        numbers = [final[block.terms] for block in self._blocks]
        first = 0
        while first < len(offsets) - 1:
            last = int(np.searchsorted(offsets, offsets[first] + self._limit, side="right")) - 1
            last = max(last, first + 1)
            terms, rows, codes = [], [], []
            for block, number in zip(self._blocks, numbers, strict=True):
                low, high = np.searchsorted(number, [first, last])
                part = block.part(int(block.offsets[low]), int(block.offsets[high]))
                terms.append(np.repeat(number[low:high], np.diff(block.offsets[low : high + 1])))
                rows.append(part[0])
                codes.append(part[1])
            placed = np.argsort(np.concatenate(terms), kind="stable")
            yield np.concatenate(rows)[placed], np.concatenate(codes)[placed]
            first = last

    def _write_forward(
        self,
        final: NDArray[np.int32],
        recode: NDArray[np.int64],
        width: type[np.unsignedinteger],
    ) -> None:
        offsets_out = self._segment.array("forward.offsets", np.int64)
        terms_out = self._segment.array("forward.terms", np.int32)
        codes_out = self._segment.array("forward.codes", width)
        offsets_out.append(np.zeros(1, np.int64))
        end = 0
        for block in self._blocks:
            lengths, terms, codes = block.forward()
            ends = np.cumsum(lengths) + end
            offsets_out.append(ends)
            numbers = final[terms]
            document = np.repeat(np.arange(len(lengths)), lengths)
            order = np.lexsort((numbers, document))
            terms_out.append(numbers[order])
            codes_out.append(recode[codes[order]])
            end = int(ends[-1])


class Dictionary:
    """The sorted terms of a segment.

    Args:
        segment: The segment.
    """

    def __init__(self, segment: SegmentReader) -> None:
        self._bytes: CheckedArray = segment["terms.bytes"]
        self._offsets: CheckedArray = segment["terms.offsets"]
        self._known: dict[str, int] = {}

    def __len__(self) -> int:
        """How many terms there are."""
        return len(self._offsets) - 1

    def term(self, number: int) -> str:
        """The term of a number."""
        return self._raw(number).decode("utf-8")

    def _raw(self, number: int) -> bytes:
        start, stop = self._offsets.slice(number, number + 2).tolist()
        return self._bytes.slice(start, stop).tobytes()

    def find(self, term: str) -> int:
        """The number of a term, or -1.

        Args:
            term: The term.

        Returns:
            Its place in ascending order of UTF-8 bytes, or -1 when it is not there.
        """
        known = self._known.get(term)
        if known is not None:
            return known
        wanted = term.encode("utf-8")
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._raw(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        found = low if low < len(self) and self._raw(low) == wanted else -1
        if len(self._known) < 1 << 16:
            self._known[term] = found
        return found
