"""TREC run and qrels files, and BEIR's tab-separated qrels, read and written in columns.

A run file has six fields separated by blanks: query, ``Q0``, document, rank, score, tag. The rank
column is ignored and hits are ordered by score, as trec_eval does it. A qrels file has four
fields separated by blanks (query, iteration, document, grade) or, as BEIR writes them, three
separated by single tabs (query, document, grade) with or without a header. Empty lines are
skipped, and so are lines that begin with ``#``, but for tab-separated files, where a line of tabs
alone is a row with empty ids. Names that end in ``.gz`` are gzipped; what comes out of them is
capped in its ratio to what went in.

Reading is strict: the first line that cannot be right ends it with an error that names file and
line. ``errors="lenient"`` leaves such lines out, logs how many, and `scan_run` and `scan_qrels`
return the counts. Scores are kept as float32 and written with as many digits as bring the same
float32 back.

Files are written whole or not at all. A run's trace lies beside it as ``<file>.trace.json``.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.data.download import replacing
from retrievekit.data.lines import BOM, opened
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    LimitError,
    MissingDataError,
    NonFiniteError,
    ParseError,
)
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.trace import Step

Errors = Literal["strict", "lenient"]

LONGEST_LINE = 64 * 2**20
"""Bytes that a line may have at most."""

log = logging.getLogger(__name__)

_CHUNK = 16 * 2**20  # bytes read at a time
_HITS_AT_A_TIME = 500_000  # hits written at a time
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_EXAMPLES = 5
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_RANK = re.compile(rb"[+-]?[0-9]+")
_GRADE_NAMES = {"score", "rel", "relevance", "grade", "label", "judgment", "judgement"}


@dataclass
class LineReport:
    """What reading a file met.

    Args:
        path: The file.
        n_lines: Its lines, empty ones and comments included.
        n_kept: Hits or judgements that were kept.
        n_repeated: Judgements given again with the same grade, which count once.
        left_out: Lines that were left out, by reason; empty after strict reading.
        mended: Lines that were read in spite of a fault, by fault.
        examples: The first faults, each with file and line.
    """

    path: str
    n_lines: int = 0
    n_kept: int = 0
    n_repeated: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    mended: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def n_left_out(self) -> int:
        """How many lines were left out."""
        return sum(self.left_out.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What deserves mention, as one sentence; empty when nothing was left out or mended."""
        counts = {**self.left_out, **self.mended}
        if not counts:
            return ()
        reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.items())
        return (f"{self.path}: {self.n_left_out} of {self.n_lines} lines left out; {reasons}",)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON."""
        return asdict(self)


def read_run(path: str | Path, queries: Queries | None = None, *, errors: Errors = "strict") -> Run:
    """Read a TREC run file, with the trace that lies beside it.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        queries: The queries with their words; by default ids only, in the order of the file.
            Queries that the file lacks have no hits.
        errors: ``"strict"``, or ``"lenient"`` to leave out what cannot be read and log how much.

    Returns:
        The run, in the total order by score; the rank column is ignored.

    Raises:
        ParseError: A line that is no hit; names file and line.
        DuplicateIdError: A document comes twice for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    return scan_run(path, queries, errors=errors)[0]


def scan_run(
    path: str | Path, queries: Queries | None = None, *, errors: Errors = "strict"
) -> tuple[Run, LineReport]:
    """Read a TREC run file and say what was met.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        queries: The queries with their words; by default ids only.
        errors: ``"strict"`` or ``"lenient"``; see `read_run`.

    Returns:
        The run, and the report.

    Raises:
        ParseError: A line that is no hit; names file and line.
        DuplicateIdError: A document comes twice for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    path = Path(path)
    reader = _Reader(path, errors)
    query, docs_at, scores, line = reader.columns(_RUN)
    query_ids, in_file = _encoded(query, "query id")
    docs, rows = _encoded(docs_at, "document id")
    of_query = in_file
    values = np.concatenate([*scores, np.zeros(0, np.float32)])
    lines = np.concatenate([*line, np.zeros(0, np.int64)])
    if queries is None:
        queries = Queries(query_ids, None)
    else:
        of_query = query_ids.translate(queries.ids)[in_file]
        for place in np.flatnonzero(of_query < 0).tolist():
            name = query_ids[int(in_file[place])]
            problem = "a query that is not among those given; give it, too"
            reader.fault(int(lines[place]), problem, repr(name))
        keep = of_query >= 0
        of_query, rows, values, lines = of_query[keep], rows[keep], values[keep], lines[keep]
    if errors == "lenient":
        keep = ~_repeats(of_query, rows, len(docs))[0]
        for place in np.flatnonzero(~keep).tolist():
            reader.fault(int(lines[place]), "a document that the query has already")
        of_query, rows, values, lines = of_query[keep], rows[keep], values[keep], lines[keep]
    if (np.diff(of_query) < 0).any():
        order = np.argsort(of_query, kind="stable")
        of_query, rows, values, lines = of_query[order], rows[order], values[order], lines[order]
    offsets = np.zeros(len(queries) + 1, np.int64)
    np.cumsum(np.bincount(of_query, minlength=len(queries)), out=offsets[1:])
    try:
        run = Run.from_arrays(queries, docs, offsets, rows, values, trace=_read_trace(path))
    except DuplicateIdError:
        again, first = _repeats(of_query, rows, len(docs))
        place = int(np.flatnonzero(again)[np.argmin(lines[again])])
        raise DuplicateIdError(
            f"{path}:{lines[place]}: query {queries.ids[int(of_query[place])]!r} lists document "
            f"{docs[int(rows[place])]!r} again (first on line {lines[first[place]]}); keep one, or "
            "read with errors='lenient', which keeps the first"
        ) from None
    return run, reader.finished(run.n_hits)


def read_qrels(path: str | Path, *, errors: Errors = "strict") -> Qrels:
    """Read judgements from a TREC or BEIR file; which one it is is seen from its first line.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        errors: ``"strict"``, or ``"lenient"`` to leave out what cannot be read and log how much.

    Returns:
        The judgements; a judgement given twice with one grade counts once.

    Raises:
        ParseError: A line that is no judgement; names file and line.
        DuplicateIdError: A document has two different grades for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    return scan_qrels(path, errors=errors)[0]


def scan_qrels(path: str | Path, *, errors: Errors = "strict") -> tuple[Qrels, LineReport]:
    """Read judgements and say what was met.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        errors: ``"strict"`` or ``"lenient"``; see `read_qrels`.

    Returns:
        The judgements, and the report.

    Raises:
        ParseError: A line that is no judgement; names file and line.
        DuplicateIdError: A document has two different grades for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    path = Path(path)
    reader = _Reader(path, errors)
    form, header = _sniffed(path)
    query, docs_at, found, line = reader.columns(form, header)
    query_ids, of_query = _encoded(query, "query id")
    docs, rows = _encoded(docs_at, "document id")
    grades = np.concatenate([*found, np.zeros(0, np.int32)])
    lines = np.concatenate([*line, np.zeros(0, np.int64)])
    again, first = _repeats(of_query, rows, len(docs))
    conflicts = again & (grades != grades[first]) if len(grades) else again
    for place in np.flatnonzero(conflicts).tolist():
        if errors == "strict":
            earlier = int(first[place])
            raise DuplicateIdError(
                f"{path}:{lines[place]}: query {query_ids[int(of_query[place])]!r}, document "
                f"{docs[int(rows[place])]!r} has grade {grades[place]}, but grade "
                f"{grades[earlier]} on line {lines[earlier]}; keep one of the lines"
            )
        reader.fault(int(lines[place]), "a second, different grade")
    reader.report.n_repeated = int((again & ~conflicts).sum())
    of_query, rows, grades = of_query[~again], rows[~again], grades[~again]
    order = np.argsort(of_query, kind="stable")
    offsets = np.zeros(len(query_ids) + 1, np.int64)
    np.cumsum(np.bincount(of_query, minlength=len(query_ids)), out=offsets[1:])
    qrels = Qrels.from_arrays(query_ids, docs, offsets, rows[order], grades[order])
    return qrels, reader.finished(qrels.n_judgements)


def write_run(run: Run, path: str | Path, *, tag: str = "retrievekit") -> None:
    """Write a TREC run file, and the run's trace beside it.

    Args:
        run: The run.
        path: The file, gzipped when its name ends in ``.gz``; folders are made, a file is replaced
            in one step.
        tag: The last column.

    Raises:
        DataError: The tag or an id cannot stand in the file: blanks, or a query id that begins
        with ``#``.
        NonFiniteError: A score is NaN or infinite.
    """
    path = Path(path)
    if not tag or re.search(r"[\s\0]", tag):
        raise DataError(f"the tag {tag!r} of a run file needs at least one character and no blank")
    hit = np.flatnonzero(np.diff(run.offsets))
    _check_writable(run.queries.ids.arrow.take(pa.array(hit)), "query", path)
    _check_writable(run.docs.arrow.take(pa.array(np.unique(run.rows))), "document", path)
    if not np.isfinite(run.scores).all():
        query = int(np.searchsorted(run.offsets, np.argmin(np.isfinite(run.scores)), "right")) - 1
        raise NonFiniteError(f"query {run.queries.ids[query]!r} has a score that is not finite")
    of_query = np.repeat(np.arange(len(run), dtype=np.int32), np.diff(run.offsets))
    ranks = run.ranks
    with _written(path) as file:
        for start in range(0, run.n_hits, _HITS_AT_A_TIME):
            part = slice(start, start + _HITS_AT_A_TIME)
            _write_lines(
                file,
                run.queries.ids.arrow.take(pa.array(of_query[part])),
                "Q0",
                run.docs.arrow.take(pa.array(run.rows[part])),
                pc.cast(pa.array(ranks[part]), pa.large_string()),
                pc.cast(pa.array(run.scores[part]), pa.large_string()),
                f"{tag}\n",
            )
    _write_trace(run, path)


def write_qrels(qrels: Qrels, path: str | Path) -> None:
    """Write a TREC qrels file.

    Args:
        qrels: The judgements; a query without any leaves no line.
        path: The file, gzipped when its name ends in ``.gz``; folders are made, a file is replaced
            in one step.

    Raises:
        DataError: An id cannot stand in the file: blanks, or a query id that begins with ``#``.
    """
    path = Path(path)
    judged = np.flatnonzero(np.diff(qrels.offsets))
    _check_writable(qrels.queries.arrow.take(pa.array(judged)), "query", path)
    _check_writable(qrels.docs.arrow.take(pa.array(np.unique(qrels.rows))), "document", path)
    of_query = np.repeat(np.arange(len(qrels), dtype=np.int32), np.diff(qrels.offsets))
    with _written(path) as file:
        for start in range(0, qrels.n_judgements, _HITS_AT_A_TIME):
            part = slice(start, start + _HITS_AT_A_TIME)
            _write_lines(
                file,
                qrels.queries.arrow.take(pa.array(of_query[part])),
                "0",
                qrels.docs.arrow.take(pa.array(qrels.rows[part])),
                _ended(pc.cast(pa.array(qrels.grades[part]), pa.large_string())),
            )


# Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """Where a kind of line has its parts."""

    what: str
    fields: str
    width: int
    query: int
    doc: int
    value: int
    tabs: bool = False

    @property
    def is_run(self) -> bool:
        return self.width == 6


_RUN = _Form("hit", "query Q0 document rank score tag", 6, 0, 2, 4)
_TREC_QRELS = _Form("judgement", "query iteration document grade", 4, 0, 2, 3)
_BEIR_QRELS = _Form("judgement", "query, document, grade with tabs between", 3, 0, 1, 2, tabs=True)

_Columns = tuple[list[pa.Array], list[pa.Array], list[NDArray[Any]], list[NDArray[np.int64]]]


class _Reader:
    """Reads one file in chunks of whole lines and keeps the report."""

    def __init__(self, path: Path, errors: Errors) -> None:
        if errors not in ("strict", "lenient"):
            raise DataError(f"errors is 'strict' or 'lenient', not {errors!r}")
        self.path = path
        self.strict = errors == "strict"
        self.report = LineReport(str(path))
        self._utf16 = False

    def fault(self, line: int, problem: str, shown: str = "") -> None:
        """End reading with the line's fault, or count it where reading is lenient.

        Raises:
            ParseError: Reading is strict.
        """
        if self.strict:
            raise ParseError(self.path, line, problem + (f": {shown}" if shown else ""))
        reason = problem.partition(";")[0]
        self.report.left_out[reason] = self.report.left_out.get(reason, 0) + 1
        if len(self.report.examples) < _EXAMPLES:
            self.report.examples.append(f"{self.path}:{line}: {reason}")

    def mended(self, fault: str, count: int = 1) -> None:
        self.report.mended[fault] = self.report.mended.get(fault, 0) + count

    def finished(self, n_kept: int) -> LineReport:
        """The report, which is logged when anything was left out or mended."""
        self.report.n_kept = n_kept
        for note in self.report.notes:
            log.warning("%s", note)
        return self.report

    def columns(self, form: _Form, header: int = 0) -> _Columns:
        """Queries and documents (dictionary-encoded), values and line numbers, chunk by chunk.

        `header` is the line of the header, 0 without one.
        """
        from retrievekit.kernels.fields import COMMENT, gather_field, split_lines

        out: _Columns = ([], [], [], [])
        before = 0  # lines of earlier chunks
        for chunk in _chunks(self.path):
            if self._utf16 and chunk == b"\0":
                continue  # the other half of the last line's end
            after = before + chunk.count(b"\n") + (not chunk.endswith(b"\n"))
            chunk = self._decodable(chunk, before)
            data = np.frombuffer(chunk, np.uint8)
            counts, bounds = split_lines(data, form.width, form.tabs)
            if before < header <= before + len(counts):
                counts[header - before - 1] = COMMENT
            good = counts == form.width
            for line in np.flatnonzero(~good & (counts > 0)):
                good[line] = self._odd_line(
                    form, chunk, bounds[line], int(counts[line]), before + int(line) + 1
                )
            lines = np.flatnonzero(good)
            texts = []
            for place in (form.query, form.doc, form.value):
                content, offsets = gather_field(data, bounds, lines, place)
                texts.append(_large_strings(content, offsets))
            if form.tabs:
                for text, what in ((texts[0], "query"), (texts[1], "document")):
                    empty = pc.equal(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
                    for at in np.flatnonzero(empty & good[lines]):
                        self.fault(before + int(lines[at]) + 1, f"the {what} id is empty; give one")
                        good[lines[at]] = False
            values, bad = _scores(texts[2]) if form.is_run else _grades(texts[2])
            for at in bad:
                if good[lines[at]]:
                    self._bad_value(form, before + int(lines[at]) + 1, texts[2][int(at)].as_py())
                    good[lines[at]] = False
            keep = good[lines]
            for text, column in zip(texts[:2], out[:2], strict=True):
                kept = text if keep.all() else text.filter(pa.array(keep))
                column.append(kept.dictionary_encode())
            out[2].append(values[keep])
            out[3].append(lines[keep] + before + 1)
            before = after
        self.report.n_lines = before
        return out

    def _decodable(self, chunk: bytes, before: int) -> bytes:
        """The chunk with faulty lines emptied; raises for the first of them when strict."""
        if not before and chunk.startswith(BOM):
            if self.strict:
                raise ParseError(
                    self.path,
                    1,
                    "the file begins with a byte-order mark, which would become part of the first "
                    "id; save it as UTF-8 without one, or read with errors='lenient'",
                )
            self.mended("byte-order mark skipped")
            chunk = chunk[len(BOM) :]
        if not before and chunk.startswith(_UTF16):
            self._utf16 = True
        if 0 not in chunk and (chunk.isascii() or _is_utf8(chunk)):
            return chunk
        lines = chunk.split(b"\n")
        for number, line in enumerate(lines, before + 1):
            if self._utf16 and (0 in line or not _is_utf8(line)):
                self.fault(number, "the file is UTF-16; convert it to UTF-8")
            elif 0 in line:
                self.fault(number, "a NUL byte; is the file text, and UTF-8 rather than UTF-16?")
            elif not _is_utf8(line):
                self.fault(
                    number, "bytes that are not UTF-8; convert the file to UTF-8", repr(line[:80])
                )
            else:
                continue
            lines[number - before - 1] = b""
        return b"\n".join(lines)

    def _odd_line(
        self,
        form: _Form,
        chunk: bytes,
        bounds: NDArray[np.int32],
        count: int,
        line: int,
    ) -> bool:
        """Report a line with a wrong number of fields; True where it can be read all the same."""
        start = int(bounds[0])
        end = chunk.find(b"\n", start)
        shown = chunk[start : end if end >= 0 else len(chunk)].rstrip(b"\r")
        if form.is_run and count > form.width and not self.strict and b"\r" not in shown:
            # trec_eval ignores what follows the tag; an id with a blank would shift rank and score.
            rank = chunk[bounds[6] : bounds[7]]
            if _RANK.fullmatch(rank):
                self.mended("fields after the tag ignored")
                return True
        problem = f"{count} fields where {form.width} belong ({form.fields})"
        hint = "; ids and tags may not hold blanks" if count > form.width and not form.tabs else ""
        self.fault(line, problem + hint, repr(shown[:80].decode("utf-8", "replace")))
        return False

    def _bad_value(self, form: _Form, line: int, text: str) -> None:
        if not form.is_run:
            self.fault(line, "the grade is no integer below 2^31", repr(text[:40]))
        elif _FLOAT.fullmatch(text):
            self.fault(line, "the score is too large for float32", repr(text[:40]))
        else:
            self.fault(line, "the score is no finite number", repr(text[:40]))


def _chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes in parts of whole lines."""
    rest = b""
    try:
        with opened(path) as file:
            while block := file.read(_CHUNK):
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


def _sniffed(path: Path) -> tuple[_Form, int]:
    """The form of a qrels file, and the line of its header, 0 without one."""
    number, bare = 0, False
    for chunk in _chunks(path):
        for line in chunk.removeprefix(BOM).removesuffix(b"\n").split(b"\n"):
            number += 1
            if line.strip():
                cells = line.strip(b"\r").decode("utf-8", "replace").split("\t")
                if len(cells) != 3:
                    return _TREC_QRELS, 0
                named = cells[2].strip().lower() in _GRADE_NAMES
                return _BEIR_QRELS, number if named else 0
            bare = bare or line.count(b"\t") == 2
    # Without a single word, two tabs are what is left of a row.
    return _BEIR_QRELS if bare else _TREC_QRELS, 0


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


def _encoded(chunks: list[pa.Array], what: str) -> tuple[Ids, NDArray[np.int32]]:
    """Distinct ids in the order in which they first come, and the row of each value."""
    kind = pa.dictionary(pa.int32(), pa.large_string())
    whole = pa.chunked_array(chunks, kind).unify_dictionaries()
    if not whole.num_chunks or not len(whole):
        return Ids.from_strings([], what=what), np.zeros(0, np.int32)
    ids = Ids.from_arrow(whole.chunk(whole.num_chunks - 1).dictionary, what=what)
    rows = np.concatenate([chunk.indices.to_numpy() for chunk in whole.chunks])
    return ids, rows.astype(np.int32, copy=False)


def _repeats(
    of_query: NDArray[np.integer], rows: NDArray[np.integer], n_docs: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which pairs came before, bool ``(n,)``, and where each pair first came, int64 ``(n,)``."""
    pair = of_query.astype(np.int64) * max(n_docs, 1) + rows
    order = np.argsort(pair, kind="stable")
    new = np.ones(len(pair), bool)
    new[1:] = pair[order][1:] != pair[order][:-1]
    first = np.empty(len(pair), np.int64)
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    again = np.zeros(len(pair), bool)
    again[order] = ~new
    return again, first


# Writing ------------------------------------------------------------------------------------------


def _check_writable(ids: pa.Array, what: str, path: Path) -> None:
    pattern = r"[\t\n\v\f\r\x00 ]" if what == "document" else r"[\t\n\v\f\r\x00 ]|^#"
    bad = ids.filter(pc.match_substring_regex(ids, pattern))
    if len(bad):
        raise DataError(
            f"{path}: {what} id {bad[0].as_py()!r} cannot stand in a TREC file, whose fields are "
            "separated by blanks (and whose comments begin with '#'); rename it"
        )


def _ended(values: pa.Array) -> pa.Array:
    nothing, end = (pa.scalar(text, pa.large_string()) for text in ("", "\n"))
    return pc.binary_join_element_wise(values, nothing, end)


def _write_lines(file: IO[bytes], *parts: Any) -> None:
    """Join the parts of each line by blanks; the last part brings the line's end."""
    columns = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in parts]
    blank = pa.scalar(" ", pa.large_string())
    lines = pc.binary_join_element_wise(*columns, blank)
    _, offsets, content = lines.buffers()
    bounds = np.frombuffer(offsets, np.int64)[lines.offset : lines.offset + len(lines) + 1]
    file.write(memoryview(content)[int(bounds[0]) : int(bounds[-1])])


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when all is written, and leaves nothing otherwise.

    Raises:
        DataError: Something else than a file stands there.
    """
    target = path.resolve()  # so that a link stays a link
    if target.exists() and not target.is_file():
        raise DataError(f"{path} is no regular file, so it cannot be replaced; name another")
    with replacing(target) as fresh, open(fresh, "wb") as file:
        if path.suffix == ".gz":
            # Neither name nor time goes into the file, so that equal runs are equal files.
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as zipped:
                yield zipped  # type: ignore[misc]
        else:
            yield file


# Traces -------------------------------------------------------------------------------------------


def _trace_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.trace.json")


def _checksum(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            crc = zlib.crc32(block, crc)
    return crc


def _write_trace(run: Run, path: Path) -> None:
    beside = _trace_path(path)
    if not run.trace:
        beside.unlink(missing_ok=True)  # it told of the run that stood here before
        return
    told = {
        "format": 1,
        "run": path.name,
        "crc32": _checksum(path),
        "steps": [asdict(step) for step in run.trace],
    }
    with _written(beside) as file:
        file.write(json.dumps(told, indent=1).encode("utf-8"))


def _read_trace(path: Path) -> tuple[Step, ...]:
    """The trace beside a run file; one that is damaged or of another file is left alone."""
    beside = _trace_path(path)
    try:
        told = json.loads(beside.read_bytes())
        if told["crc32"] != _checksum(path):
            log.warning("%s tells of another file than %s and is ignored", beside, path)
            return ()
        return tuple(
            Step(
                name=str(step["name"]),
                fingerprint=str(step["fingerprint"]),
                seconds=float(step["seconds"]),
                n_queries=int(step["n_queries"]),
                n_hits=int(step["n_hits"]),
                dropped=int(step["dropped"]),
            )
            for step in told["steps"]
        )
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as why:
        log.warning("%s cannot be read (%s) and is ignored", beside, why)
        return ()
