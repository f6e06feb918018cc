"""Lines of fields to columns, a chunk of whole lines at a time.

Compiled kernels find the fields (`retrievekit.kernels.fields`) and Arrow turns texts into numbers;
Python looks only at the lines that they cannot make sense of, to say what is wrong with them.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.data.lines import BOM, opened
from retrievekit.data.trec.report import Faults
from retrievekit.errors import LimitError, MissingDataError, ParseError
from retrievekit.ids import Ids

LONGEST_LINE = 64 * 2**20
"""Bytes that a line may have at most."""

CHUNK = 16 * 2**20
"""Bytes read at a time."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_RANK = re.compile(rb"[+-]?[0-9]+")


@dataclass(frozen=True)
class Form:
    """Where a kind of line has its parts.

    Args:
        fields: Its fields, for messages.
        width: How many there are.
        query: The place of the query's id.
        doc: The place of the document's id.
        value: The place of the score or grade.
        tabs: Whether single tabs end fields, rather than blanks.
    """

    fields: str
    width: int
    query: int
    doc: int
    value: int
    tabs: bool = False


RUN = Form("query Q0 document rank score tag", 6, 0, 2, 4)
TREC_QRELS = Form("query iteration document grade", 4, 0, 2, 3)
BEIR_QRELS = Form("query, document, grade with tabs between", 3, 0, 1, 2, tabs=True)


@dataclass(frozen=True)
class Lines:
    """What n lines say, in their order.

    Args:
        query_ids: Distinct queries, in the order in which they first come.
        doc_ids: Distinct documents, likewise.
        queries: Each line's query, int32 ``(n,)``.
        docs: Each line's document, int32 ``(n,)``.
        values: Each line's score, float32 ``(n,)``, or grade, int32 ``(n,)``.
        lines: Each line's number from 1, int64 ``(n,)``.
    """

    query_ids: Ids
    doc_ids: Ids
    queries: NDArray[np.int32]
    docs: NDArray[np.int32]
    values: NDArray[Any]
    lines: NDArray[np.int64]

    def only(self, which: NDArray[Any]) -> Lines:
        """Some of the lines, by booleans ``(n,)`` or by places, integers ``(m,)``."""
        return replace(
            self,
            queries=self.queries[which],
            docs=self.docs[which],
            values=self.values[which],
            lines=self.lines[which],
        )

    def by_query(self, n_queries: int) -> tuple[Lines, NDArray[np.int64]]:
        """The lines query by query, and where each query's begin, int64 ``(n_queries + 1,)``."""
        found = self
        if (np.diff(self.queries) < 0).any():
            found = self.only(np.argsort(self.queries, kind="stable"))
        offsets = np.zeros(n_queries + 1, np.int64)
        np.cumsum(np.bincount(self.queries, minlength=n_queries), out=offsets[1:])
        return found, offsets

    def repeats(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which query and document came before, bool ``(n,)``, and where first, int64 ``(n,)``."""
        pair = self.queries.astype(np.int64) * max(len(self.doc_ids), 1) + self.docs
        order = np.argsort(pair, kind="stable")
        new = np.ones(len(pair), bool)
        new[1:] = pair[order][1:] != pair[order][:-1]
        first = np.empty(len(pair), np.int64)
        first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
        again = np.zeros(len(pair), bool)
        again[order] = ~new
        return again, first


class LineReader:
    """Reads the lines of one file.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        form: Where its lines have their parts.
        faults: Told of the lines that cannot be read.
    """

    def __init__(self, path: Path, form: Form, faults: Faults) -> None:
        self.path = path
        self.form = form
        self.faults = faults
        self._utf16 = False

    def lines(self, header: int = 0) -> Lines:
        """Read all lines.

        Args:
            header: The line of the header, 0 without one.

        Returns:
            What the good ones say.
        """
        parts = []
        before = 0  # lines of earlier chunks
        for chunk in chunks(self.path):
            if self._utf16 and chunk == b"\0":
                continue  # the other half of the last line's end
            parts.append(self._columns(self._decodable(chunk, before), before, header))
            before += chunk.count(b"\n") + (not chunk.endswith(b"\n"))
        self.faults.report.n_lines = before
        queries, docs, values, lines = zip(*parts, strict=True) if parts else ((), (), (), ())
        query_ids, of_query = _encoded(queries, "query id")
        doc_ids, of_doc = _encoded(docs, "document id")
        nothing = np.zeros(0, np.float32 if self.form is RUN else np.int32)
        return Lines(
            query_ids,
            doc_ids,
            of_query,
            of_doc,
            np.concatenate([*values, nothing]),
            np.concatenate([*lines, np.zeros(0, np.int64)]),
        )

    def _columns(
        self, chunk: bytes, before: int, header: int
    ) -> tuple[pa.Array, pa.Array, NDArray[Any], NDArray[np.int64]]:
        """Queries and documents (dictionary-encoded), values and line numbers of one chunk."""
        from retrievekit.kernels.fields import COMMENT, gather_field, split_lines

        form = self.form
        data = np.frombuffer(chunk, np.uint8)
        counts, bounds = split_lines(data, form.width, form.tabs)
        if before < header <= before + len(counts):
            counts[header - before - 1] = COMMENT
        good = counts == form.width
        for line in np.flatnonzero(~good & (counts > 0)).tolist():
            good[line] = self._odd_line(chunk, bounds[line], int(counts[line]), before + line + 1)
        places = np.flatnonzero(good)
        lines = places + before + 1
        keep = np.ones(len(places), bool)
        query, doc, value = (
            _large_strings(*gather_field(data, bounds, places, place))
            for place in (form.query, form.doc, form.value)
        )
        if form.tabs:
            for text, what in ((query, "query"), (doc, "document")):
                empty = pc.equal(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
                for at in np.flatnonzero(empty & keep).tolist():
                    self.faults.add(int(lines[at]), f"the {what} id is empty; give one")
                    keep[at] = False
        values, bad = _scores(value) if form is RUN else _grades(value)
        for at in bad.tolist():
            if keep[at]:
                self._bad_value(int(lines[at]), value[at].as_py())
                keep[at] = False
        if not keep.all():
            query, doc = query.filter(pa.array(keep)), doc.filter(pa.array(keep))
        return query.dictionary_encode(), doc.dictionary_encode(), values[keep], lines[keep]

    def _decodable(self, chunk: bytes, before: int) -> bytes:
        """The chunk with faulty lines emptied; raises for the first of them when strict."""
        if not before and chunk.startswith(BOM):
            if self.faults.strict:
                raise ParseError(
                    self.path,
                    1,
                    "the file begins with a byte-order mark, which would become part of the first "
                    "id; save it as UTF-8 without one, or read with errors='lenient'",
                )
            self.faults.mended("byte-order mark skipped")
            chunk = chunk[len(BOM) :]
        if not before and chunk.startswith(_UTF16):
            self._utf16 = True
        if 0 not in chunk and (chunk.isascii() or _is_utf8(chunk)):
            return chunk
        lines = chunk.split(b"\n")
        for number, line in enumerate(lines, before + 1):
            if self._utf16 and (0 in line or not _is_utf8(line)):
                self.faults.add(number, "the file is UTF-16; convert it to UTF-8")
            elif 0 in line:
                problem = "a NUL byte; is the file text, and UTF-8 rather than UTF-16?"
                self.faults.add(number, problem)
            elif not _is_utf8(line):
                problem = "bytes that are not UTF-8; convert the file to UTF-8"
                self.faults.add(number, problem, repr(line[:80]))
            else:
                continue
            lines[number - before - 1] = b""
        return b"\n".join(lines)

    def _odd_line(self, chunk: bytes, bounds: NDArray[np.int32], count: int, line: int) -> bool:
        """Report a line with a wrong number of fields; True where it can be read all the same."""
        form = self.form
        start = int(bounds[0])
        end = chunk.find(b"\n", start)
        shown = chunk[start : end if end >= 0 else len(chunk)].rstrip(b"\r")
        too_many = count > form.width
        if form is RUN and too_many and not self.faults.strict and b"\r" not in shown:
            # trec_eval ignores what follows the tag; an id with a blank would shift rank and score.
            rank = chunk[bounds[6] : bounds[7]]
            if _RANK.fullmatch(rank):
                self.faults.mended("fields after the tag ignored")
                return True
        problem = f"{count} fields where {form.width} belong ({form.fields})"
        hint = "; ids and tags may not hold blanks" if too_many and not form.tabs else ""
        self.faults.add(line, problem + hint, repr(shown[:80].decode("utf-8", "replace")))
        return False

    def _bad_value(self, line: int, text: str) -> None:
        if self.form is not RUN:
            problem = "the grade is no integer below 2^31"
        elif _FLOAT.fullmatch(text):
            problem = "the score is too large for float32"
        else:
            problem = "the score is no finite number"
        self.faults.add(line, problem, repr(text[:40]))


def chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes in parts of whole lines.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.

    Yields:
        About `CHUNK` bytes each.

    Raises:
        MissingDataError: There is no such file.
        LimitError: A line is longer than `LONGEST_LINE`.
        ParseError: The gzip stream is damaged.
    """
    rest = b""
    try:
        with opened(path) as file:
            while block := file.read(CHUNK):
                cut = block.rfind(b"\n") + 1
                if not cut:
                    rest += block
                    if len(rest) > LONGEST_LINE:
                        raise LimitError(
                            f"{path}: a line has over {LONGEST_LINE} bytes; is this the right file?"
                        )
                    continue
                yield rest + block[:cut]
                rest = block[cut:]
    except FileNotFoundError as why:
        raise MissingDataError(f"there is no file {path}") from why
    except IsADirectoryError as why:
        raise MissingDataError(f"{path} is a folder; name the file in it") from why
    except (EOFError, gzip.BadGzipFile, zlib.error) as why:
        raise ParseError(path, None, f"the gzip data is damaged or cut off ({why})") from why
    if rest:
        yield rest


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _large_strings(content: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pa.Array:
    return pa.LargeStringArray.from_buffers(
        len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(content)
    )


def _scores(texts: pa.Array) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores as float32 ``(n,)``, and the places of those that are none."""
    try:
        values = pc.cast(texts, pa.float32()).to_numpy().copy()
    except pa.ArrowInvalid:
        values = np.empty(len(texts), np.float32)
        with np.errstate(over="ignore"):
            for place, text in enumerate(texts.to_pylist()):
                values[place] = np.float32(text) if _FLOAT.fullmatch(text) else np.nan
    return values, np.flatnonzero(~np.isfinite(values))


def _grades(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Grades as int32 ``(n,)``, and the places of those that are none."""
    try:
        return pc.cast(texts, pa.int32()).to_numpy(), np.zeros(0, np.int64)
    except pa.ArrowInvalid:
        values = np.zeros(len(texts), np.int32)
        bad = []
        for place, text in enumerate(map(str.strip, texts.to_pylist())):
            # Twenty digits are beyond int32, and thousands beyond what int() reads.
            fits = len(text) <= 20 and _INTEGER.fullmatch(text) is not None
            grade = int(text.partition(".")[0]) if fits else 2**31
            if not -(2**31) <= grade < 2**31:
                bad.append(place)
            else:
                values[place] = grade
        return values, np.array(bad, np.int64)


def _encoded(parts: Sequence[pa.Array], what: str) -> tuple[Ids, NDArray[np.int32]]:
    """Distinct ids in the order in which they first come, and the row of each value."""
    kind = pa.dictionary(pa.int32(), pa.large_string())
    whole = pa.chunked_array(list(parts), kind).unify_dictionaries()
    if not whole.num_chunks or not len(whole):
        return Ids.from_strings([], what=what), np.zeros(0, np.int32)
    ids = Ids.from_arrow(whole.chunk(whole.num_chunks - 1).dictionary, what=what)
    rows = np.concatenate([chunk.indices.to_numpy() for chunk in whole.chunks])
    return ids, rows.astype(np.int32, copy=False)
