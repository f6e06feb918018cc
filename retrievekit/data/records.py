"""Documents and queries from files: BEIR and other JSONL, TSV, CSV, Parquet, folders of text.

Everything is streamed, and nothing is lost quietly: an error names file and line, and what is
tolerated on request is counted in a `ReadReport`. The rules:

- **Ids** are the first of ``_id id docid doc_id docno`` (queries: ``_id id qid query_id
  query-id``). They are strings and kept as written, blanks included. A JSON or Parquet number is an
  error unless ``number_ids=True``, which takes an integer's decimal digits; nothing else is ever
  cast.
- **Text** is ``text``, or Pyserini's ``contents`` (queries: ``text query question``). A record
  without one, or with null, is an error; an empty text is kept and counted.
- **Title** is ``title``; missing or null is the empty title.
- **Metadata** is all other fields, and those inside a ``metadata`` object. They become typed
  columns: bool, int, float, str and lists of one of them; nested values become JSON text, dates ISO
  text. A name that holds values of two types is an error; ``metadata="json"`` keeps each value as
  JSON text instead, ``"drop"`` leaves them out. Nulls and empty objects count as absent. ``text``,
  ``title`` and ``_id`` inside ``metadata`` become ``metadata.text`` and so on.
- **Duplicates**: one id twice with equal content counts once (and the rest is counted); with
  different content it is an error, unless ``on_duplicate`` is ``"first"`` or ``"last"``.
- **Encoding** is UTF-8. Invalid bytes, lone surrogates and NUL are errors; ``errors="replace"``
  puts U+FFFD in their place and counts the records. So is a byte-order mark at the start of a file;
  ``errors="replace"`` drops and counts it.
- **JSON** names a field once in an object; numbers fit 64 bits.
- **Lines** end with a line feed, with or without a carriage return before it, and with nothing
  else; blank lines are skipped (in TSV a tab makes a row). No line (CSV record, text file) may
  exceed ``max_line_bytes``.
- **TSV** is split at every tab and knows no quotes (as MS MARCO); **CSV** follows RFC 4180. Both
  have a header that names id and text, or none: then they are id, text or id, title, text
  (queries: id, text).
- **Folders**: every ``.txt``, ``.md`` and ``.markdown`` file below, in the order of their paths;
  the id is the path below the folder with ``/``. Hidden names are left out.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast

import pyarrow as pa

from retrievekit.corpus import Corpus, Document
from retrievekit.data.archive import CappedReader
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    LimitError,
    MissingDataError,
    ParseError,
)
from retrievekit.queries import Queries

log = logging.getLogger(__name__)

Format = Literal["jsonl", "tsv", "csv", "parquet", "folder"]
OnDuplicate = Literal["error", "first", "last"]
Errors = Literal["strict", "replace"]
MetadataMode = Literal["columns", "json", "drop"]

ID_KEYS = ("_id", "id", "docid", "doc_id", "docno")
QUERY_ID_KEYS = ("_id", "id", "qid", "query_id", "query-id")
TEXT_KEYS = ("text", "contents")
QUERY_TEXT_KEYS = ("text", "query", "question")

MAX_LINE_BYTES = 64 * 2**20
"""Bytes that one line, CSV record or text file may have."""

MAX_DEPTH = 64
"""Levels that JSON may be nested."""

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
}
_BOM = b"\xef\xbb\xbf"
_TEXT_SUFFIXES = (".txt", ".md", ".markdown")
_CHOICES: dict[str, tuple[object, ...]] = {
    "errors": ("strict", "replace"),
    "on_duplicate": ("error", "first", "last"),
    "metadata": ("columns", "json", "drop"),
    "format": (None, "jsonl", "tsv", "csv", "parquet", "folder"),
}


@dataclass(frozen=True)
class ReadReport:
    """What a reader met.

    Args:
        path: What was read.
        records: Documents or queries that came out.
        duplicates: Records left out since they repeat an earlier one word for word.
        conflicts: Records left out since another one has their id (``on_duplicate`` decided which).
        empty: Records that came out with neither title nor text but blanks.
        replaced: Records in which characters were replaced.
        number_ids: Ids that were numbers.
        left_out: Files of a folder that are not text or Markdown.
        marks: Files that began with a byte-order mark, which was dropped.
    """

    path: str
    records: int = 0
    duplicates: int = 0
    conflicts: int = 0
    empty: int = 0
    replaced: int = 0
    number_ids: int = 0
    left_out: int = 0
    marks: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What deserves mention, one sentence each; empty when all went as plainly as can be."""
        says = {
            "duplicates": "left out as word-for-word repetitions of an earlier one",
            "conflicts": "left out since another record has the same id",
            "empty": "empty, kept",
            "replaced": "with characters that were not valid and were replaced by U+FFFD",
            "number_ids": "with a number as id, taken as its digits",
            "left_out": "files left out that are neither .txt nor .md",
            "marks": "with a byte-order mark at the start, which was dropped",
        }
        return tuple(
            f"{self.path}: {getattr(self, name):,} {what}"
            for name, what in says.items()
            if getattr(self, name)
        )

    def log(self) -> None:
        """Log the notes: what was changed or left out as warnings, the rest as information."""
        quiet = ReadReport(self.path, empty=self.empty, number_ids=self.number_ids).notes
        for note in self.notes:
            log.log(logging.INFO if note in quiet else logging.WARNING, "%s", note)


@dataclass
class Tally:
    """Counts of a reading under way; `ReadReport` is what it becomes.

    Args:
        empty: As in the report.
        replaced: As in the report.
        number_ids: As in the report.
        left_out: As in the report.
        marks: As in the report.
    """

    empty: int = 0
    replaced: int = 0
    number_ids: int = 0
    left_out: int = 0
    marks: int = 0


@dataclass(frozen=True)
class ReadOptions:
    """How records are read; see the table at the top of the module.

    Args:
        errors: ``"strict"`` or ``"replace"``, for characters that are not valid.
        on_duplicate: ``"error"``, ``"first"`` or ``"last"``, for one id with two contents.
        max_line_bytes: Bytes that one line may have.
        number_ids: Whether an integer is taken for the string of its digits.
        metadata: ``"columns"``, ``"json"`` or ``"drop"``.
        header: Whether a TSV or CSV file names its columns; None looks at the first line.
        format: The format; None goes by the name.

    Raises:
        DataError: A choice that does not exist.
    """

    errors: Errors = "strict"
    on_duplicate: OnDuplicate = "error"
    max_line_bytes: int = MAX_LINE_BYTES
    number_ids: bool = False
    metadata: MetadataMode = "columns"
    header: bool | None = None
    format: Format | None = None

    def __post_init__(self) -> None:
        """Check the choices."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(repr(c) for c in choices if c is not None)
                raise DataError(f"{name}={getattr(self, name)!r} is none of {known}")
        if self.max_line_bytes < 1:
            raise DataError(f"max_line_bytes={self.max_line_bytes} leaves no room for a line")


@dataclass(frozen=True)
class Placed:
    """A document or query with its place.

    Args:
        document: The document; a query has its words in `text`.
        path: The file it comes from.
        line: Its line or, in Parquet, its row, from 1; None where the file is the record.
    """

    document: Document
    path: Path
    line: int | None


def iter_documents(
    path: str | Path,
    *,
    errors: Errors = "strict",
    max_line_bytes: int = MAX_LINE_BYTES,
    number_ids: bool = False,
    metadata: MetadataMode = "columns",
    header: bool | None = None,
    format: Format | None = None,
) -> Iterator[Document]:
    """Documents one by one, for streams beyond memory.

    Duplicates are passed on: finding them takes all ids, and who collects the ids finds them.

    Args:
        path: A file, a folder of text files, or a BEIR folder.
        errors: ``"strict"`` or ``"replace"``, for characters that are not valid.
        max_line_bytes: Bytes that one line may have.
        number_ids: Whether an integer is taken for the string of its digits.
        metadata: ``"columns"``, ``"json"`` or ``"drop"``.
        header: Whether a TSV or CSV file names its columns; None looks at the first line.
        format: The format; None goes by the name.

    Yields:
        The documents in the order of the file.
    """
    options = ReadOptions(
        errors=errors,
        max_line_bytes=max_line_bytes,
        number_ids=number_ids,
        metadata=metadata,
        header=header,
        format=format,
    )
    source, form = source_of(Path(path), format, "corpus")
    tally = Tally()
    count = 0
    for placed in placed_documents(source, form, options, tally):
        count += 1
        yield placed.document
    report_of(source, tally, count, 0, 0).log()


def read_corpus(
    path: str | Path,
    *,
    on_duplicate: OnDuplicate = "error",
    errors: Errors = "strict",
    max_line_bytes: int = MAX_LINE_BYTES,
    number_ids: bool = False,
    metadata: MetadataMode = "columns",
    header: bool | None = None,
    format: Format | None = None,
) -> Corpus:
    """Read a corpus; what was tolerated is logged.

    A large source (see `retrievekit.data.columns.MAPPED_FROM`) is converted once into the cache
    and memory-mapped from there.

    Args:
        path: A file, a folder of text files, or a BEIR folder.
        on_duplicate: ``"error"``, ``"first"`` or ``"last"``, for one id with two contents.
        errors: ``"strict"`` or ``"replace"``, for characters that are not valid.
        max_line_bytes: Bytes that one line may have.
        number_ids: Whether an integer is taken for the string of its digits.
        metadata: ``"columns"``, ``"json"`` or ``"drop"``.
        header: Whether a TSV or CSV file names its columns; None looks at the first line.
        format: The format; None goes by the name.

    Returns:
        The corpus.
    """
    options = ReadOptions(
        errors=errors,
        on_duplicate=on_duplicate,
        max_line_bytes=max_line_bytes,
        number_ids=number_ids,
        metadata=metadata,
        header=header,
        format=format,
    )
    corpus, report = read_corpus_report(path, options)
    report.log()
    return corpus


def read_corpus_report(
    path: str | Path, options: ReadOptions | None = None
) -> tuple[Corpus, ReadReport]:
    """Read a corpus and say what was met on the way.

    Args:
        path: A file, a folder of text files, or a BEIR folder.
        options: How to read.

    Returns:
        The corpus and the report.
    """
    from retrievekit.data.columns import load

    options = options or ReadOptions()
    source, form = source_of(Path(path), options.format, "corpus")
    return load(source, form, options)


def read_queries(
    path: str | Path,
    *,
    on_duplicate: OnDuplicate = "error",
    errors: Errors = "strict",
    max_line_bytes: int = MAX_LINE_BYTES,
    number_ids: bool = False,
    header: bool | None = None,
    format: Format | None = None,
) -> Queries:
    """Read queries; what was tolerated is logged.

    Args:
        path: A JSONL, TSV, CSV or Parquet file, or a BEIR folder.
        on_duplicate: ``"error"``, ``"first"`` or ``"last"``, for one id with two texts.
        errors: ``"strict"`` or ``"replace"``, for characters that are not valid.
        max_line_bytes: Bytes that one line may have.
        number_ids: Whether an integer is taken for the string of its digits.
        header: Whether a TSV or CSV file names its columns; None looks at the first line.
        format: The format; None goes by the name.

    Returns:
        The queries in the order of the file; fields other than id and text are not kept.
    """
    options = ReadOptions(
        errors=errors,
        on_duplicate=on_duplicate,
        max_line_bytes=max_line_bytes,
        number_ids=number_ids,
        metadata="drop",
        header=header,
        format=format,
    )
    queries, report = read_queries_report(path, options)
    report.log()
    return queries


def read_queries_report(
    path: str | Path, options: ReadOptions | None = None
) -> tuple[Queries, ReadReport]:
    """Read queries and say what was met on the way.

    Args:
        path: A JSONL, TSV, CSV or Parquet file, or a BEIR folder.
        options: How to read; metadata is never kept.

    Returns:
        The queries and the report.

    Raises:
        DuplicateIdError: One id with two texts, unless the options choose one.
    """
    options = options or ReadOptions()
    source, form = source_of(Path(path), options.format, "queries")
    tally = Tally()
    found: dict[str, tuple[str, int | None]] = {}
    duplicates = conflicts = 0
    for placed in _records(source, form, options, tally, QUERY_ID_KEYS, QUERY_TEXT_KEYS):
        query = placed.document
        if query.doc_id not in found:
            found[query.doc_id] = (query.text, placed.line)
            continue
        text, line = found[query.doc_id]
        if text == query.text:
            duplicates += 1
        elif options.on_duplicate == "error":
            raise DuplicateIdError(
                f"{source}: query id {query.doc_id!r} has two different texts, on lines {line} and "
                f'{placed.line}; on_duplicate="first" or "last" would choose one'
            )
        else:
            conflicts += 1
            if options.on_duplicate == "last":
                found[query.doc_id] = (query.text, placed.line)
    # Counted among what came out, not among what went in.
    tally.empty = sum(not text.strip() for text, _ in found.values())
    report = report_of(source, tally, len(found), duplicates, conflicts)
    return Queries.from_texts({query_id: text for query_id, (text, _) in found.items()}), report


def report_of(
    source: Path, tally: Tally, records: int, duplicates: int, conflicts: int
) -> ReadReport:
    """Freeze a tally.

    Args:
        source: What was read.
        tally: The counts.
        records: Records that came out.
        duplicates: Records left out as repetitions.
        conflicts: Records left out for one of the same id.

    Returns:
        The report.
    """
    counts = {item.name: getattr(tally, item.name) for item in fields(tally)}
    return ReadReport(str(source), records, duplicates, conflicts, **counts)


def source_of(path: Path, format: Format | None, part: str) -> tuple[Path, Format]:
    """What to read under a path, and in which format.

    Args:
        path: A file or folder.
        format: The format, or None to go by the name.
        part: ``"corpus"`` or ``"queries"``: the file looked for in a BEIR folder.

    Returns:
        The file or folder of text files, and its format.

    Raises:
        MissingDataError: Nothing is there.
        DataError: The name says nothing about the format.
    """
    if path.is_dir():
        inside = part_file(path, part)
        if inside is not None:
            path = inside
        elif part == "corpus":
            if format not in (None, "folder"):
                raise DataError(f"{path} is a folder, not a {format} file")
            return path, "folder"
        else:
            raise MissingDataError(f"{path} holds no {part}.jsonl")
    if not path.is_file():
        raise MissingDataError(f"{path} is not there")
    if format == "folder":
        raise DataError(f"{path} is a file, not a folder")
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    found = format or _FORMATS.get(plain.suffix.lower())
    if found is None:
        raise DataError(
            f"{path}: the name does not tell the format; known endings are "
            f"{', '.join(_FORMATS)} (with .gz, but for .parquet), or say format=..."
        )
    if found == "parquet" and path.suffix == ".gz":
        raise DataError(f"{path}: Parquet compresses itself; unpack it with gunzip")
    return path, found


def part_file(folder: Path, part: str) -> Path | None:
    """The file of a BEIR folder that holds a part.

    Args:
        folder: The folder.
        part: ``"corpus"`` or ``"queries"``.

    Returns:
        ``<part>.jsonl``, ``.jsonl.gz``, ``.parquet``, ``.tsv`` or ``.csv``, the first there is;
        None without any.
    """
    for suffix in (".jsonl", ".jsonl.gz", ".parquet", ".tsv", ".tsv.gz", ".csv", ".csv.gz"):
        if (folder / f"{part}{suffix}").is_file():
            return folder / f"{part}{suffix}"
    return None


def placed_documents(
    source: Path, form: Format, options: ReadOptions, tally: Tally
) -> Iterator[Placed]:
    """Documents with their places, duplicates included.

    Args:
        source: The file or folder.
        form: Its format.
        options: How to read.
        tally: Where to count.

    Yields:
        The documents in order.
    """
    if form == "folder":
        yield from _folder(source, options, tally)
    else:
        yield from _records(source, form, options, tally, ID_KEYS, TEXT_KEYS)


# --- records of each format --------------------------------------------------------------------


def _records(
    source: Path,
    form: Format,
    options: ReadOptions,
    tally: Tally,
    id_keys: Sequence[str],
    text_keys: Sequence[str],
) -> Iterator[Placed]:
    if form == "parquet":
        rows = _parquet(source, options)
    elif form == "jsonl":
        rows = _jsonl(source, options, tally)
    else:
        rows = _table(source, form, options, tally, id_keys, text_keys)
    for line, record, repaired in rows:
        document = _document(source, line, record, options, tally, id_keys, text_keys)
        tally.replaced += repaired
        tally.empty += not document.text.strip() and not document.title.strip()
        yield Placed(document, source, line)


_Rows = Iterator[tuple[int, dict[str, Any], bool]]
"""Line or row from 1, fields, and whether characters were replaced."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _bounded_int(digits: str) -> int:
    if len(digits) <= 18 or (len(digits) <= 20 and -(2**63) <= int(digits) < 2**63):
        return int(digits)
    raise LimitError(f"an integer of {len(digits)} digits does not fit 64 bits; write it as text")


def _bounded_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise LimitError(f"the number {_short(digits)} does not fit 64 bits; write it as text")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{_short(twice)} comes twice in one object; keep one")
    return found


_DECODER = json.JSONDecoder(
    parse_int=_bounded_int,
    parse_float=_bounded_float,
    parse_constant=_no_constant,
    object_pairs_hook=_object,
)


def _jsonl(source: Path, options: ReadOptions, tally: Tally) -> _Rows:
    for line, text, repaired in _lines(source, options, tally):
        try:
            record = _DECODER.decode(text)
            _check_depth(record)
        except RecursionError as why:
            raise LimitError(f"{source}:{line}: nested more than {MAX_DEPTH} levels deep") from why
        except LimitError as why:
            raise LimitError(f"{source}:{line}: {why}") from why
        except json.JSONDecodeError as why:
            place = f"{why.msg} at character {why.pos + 1}"
            raise ParseError(source, line, f"not valid JSON ({place}); one object a line") from why
        except ValueError as why:
            raise ParseError(source, line, f"not valid JSON ({why})") from why
        if not isinstance(record, dict):
            raise ParseError(
                source, line, f"a JSON {type(record).__name__}, but each line is one object"
            )
        if "\\u" in text:  # the one way for half a character, or NUL, to get this far
            record, again = _valid(source, line, record, options)
            repaired = repaired or again
        yield line, record, repaired


def _table(
    source: Path,
    form: Format,
    options: ReadOptions,
    tally: Tally,
    id_keys: Sequence[str],
    text_keys: Sequence[str],
) -> _Rows:
    rows = (_tsv if form == "tsv" else _csv)(source, options, tally)
    names: list[str] | None = None
    for line, cells, repaired in rows:
        if names is None:
            found = [cell.strip() for cell in cells]
            named = bool(set(found) & set(id_keys)) and bool(set(found) & set(text_keys))
            if options.header or (options.header is None and named):
                twice = sorted({name for name in found if found.count(name) > 1})
                if twice:
                    raise ParseError(source, line, f"the header names {twice} more than once")
                names = found
                continue
            plain = {2: [id_keys[0], "text"], 3: [id_keys[0], "title", "text"]}
            expected = "two (id, text) or three (id, title, text)"
            if text_keys is QUERY_TEXT_KEYS:
                # A query has no title: a third column is words that would be lost.
                del plain[3]
                expected = "two (id, text); is a tab or comma part of a query?"
            if len(cells) not in plain:
                raise ParseError(
                    source,
                    line,
                    f"{len(cells)} columns and no header that names id and text; without one there "
                    f"are {expected}",
                )
            names = plain[len(cells)]
        if len(cells) != len(names):
            raise ParseError(
                source,
                line,
                f"{len(cells)} columns, but {len(names)} expected ({', '.join(names)})",
            )
        yield line, dict(zip(names, cells, strict=True)), repaired


def _tsv(source: Path, options: ReadOptions, tally: Tally) -> Iterator[tuple[int, list[str], bool]]:
    for line, text, repaired in _lines(source, options, tally, keep_blank=True):
        if text.strip(" \r\v\f"):  # a line of tabs is a row of empty cells
            yield line, text.split("\t"), repaired


def _csv(source: Path, options: ReadOptions, tally: Tally) -> Iterator[tuple[int, list[str], bool]]:
    parts: list[str] = []
    size, first, mended = 0, 0, False
    # A record goes on while a quote is open, which is while the quotes so far are odd in number.
    odd = False
    for line, text, repaired in _lines(source, options, tally, keep_blank=True):
        if not parts:
            first, size, mended = line, 0, False
        parts.append(text)
        size += len(text)
        mended = mended or repaired
        odd ^= text.count('"') % 2 == 1
        if size > options.max_line_bytes:
            raise LimitError(
                f"{source}:{first}: the record that begins here has more than "
                f"{options.max_line_bytes:,} characters; is a quote left open?"
            )
        if not odd:
            record = "\n".join(parts)
            parts.clear()
            if record.strip():
                yield first, _cells(source, first, record), mended
    if parts:
        raise ParseError(source, first, "the quoted field that begins here never ends")


def _cells(source: Path, line: int, record: str) -> list[str]:
    """Split one CSV record as RFC 4180 says."""
    if '"' not in record:
        return record.split(",")
    cells: list[str] = []
    place = 0
    while True:
        if record.startswith('"', place):
            end = record.find('"', place + 1)
            while record.startswith('""', end):
                end = record.find('"', end + 2)
            cells.append(record[place + 1 : end].replace('""', '"'))
            place = end + 1
            if place < len(record) and record[place] != ",":
                raise ParseError(
                    source, line, f"text after the closing quote of column {len(cells)}"
                )
        else:
            end = record.find(",", place)
            end = len(record) if end < 0 else end
            if '"' in record[place:end]:
                raise ParseError(
                    source,
                    line,
                    f"a quote inside column {len(cells) + 1}, which is not quoted; quote the "
                    "column and double its quotes",
                )
            cells.append(record[place:end])
            place = end
        if place >= len(record):
            return cells
        place += 1


def _parquet(source: Path, options: ReadOptions) -> _Rows:
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(source) as opened:
            names = opened.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ParseError(source, None, f"columns come more than once: {twice}; keep one")
            for batch in opened.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    row += 1
                    yield row, *_valid(source, row, record, options)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as why:
        raise ParseError(source, None, f"not a Parquet file that can be read ({why})") from why


def _folder(folder: Path, options: ReadOptions, tally: Tally) -> Iterator[Placed]:
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (Path(parent) / name).is_symlink():
                log.warning("%s: a link to a folder, which is not followed", Path(parent) / name)
        for name in names:
            path = Path(parent) / name
            if name.startswith("."):
                continue
            if path.suffix.lower() in _TEXT_SUFFIXES and not path.is_file():
                raise DataError(f"{path}: no file that can be read, but a broken link or a device")
            if path.suffix.lower() in _TEXT_SUFFIXES:
                paths.append((path.relative_to(folder).as_posix(), path))
            else:
                tally.left_out += 1
    if not paths:
        raise DataError(
            f"{folder} holds neither a corpus.jsonl nor any file that ends in "
            f"{', '.join(_TEXT_SUFFIXES)}"
        )
    for doc_id, path in sorted(paths):
        if not _is_valid(doc_id):
            raise DataError(f"{path!r}: the file's name is not valid UTF-8; rename it")
        with path.open("rb") as stream:
            raw = stream.read(options.max_line_bytes + 1)
        if len(raw) > options.max_line_bytes:
            raise LimitError(
                f"{path}: more than {options.max_line_bytes:,} bytes; split it, or raise "
                "max_line_bytes"
            )
        text, repaired = _decoded(path, None, _without_mark(path, raw, options, tally), options)
        tally.replaced += repaired
        tally.empty += not text.strip()
        yield Placed(Document(doc_id, text), path, None)


# --- lines and characters ----------------------------------------------------------------------


def _lines(
    source: Path, options: ReadOptions, tally: Tally, *, keep_blank: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """Numbered lines without their ends, and whether characters were replaced."""
    limit = options.max_line_bytes
    number = 0
    with ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(source.open("rb"))
        stream: Any = raw
        if source.suffix == ".gz":
            packed = stack.enter_context(gzip.GzipFile(fileobj=raw))
            capped = CappedReader(cast(IO[bytes], packed), raw.tell, str(source))
            stream = io.BufferedReader(capped, 2**18)
        while True:
            try:
                line = stream.readline(limit + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile) as why:
                raise ParseError(
                    source, number + 1, f"the gzip stream is damaged or cut off here ({why})"
                ) from why
            if not line:
                return
            number += 1
            if len(line) > limit:
                raise LimitError(
                    f"{source}:{number}: a line of more than {limit:,} bytes; is this one record a "
                    "line? If so, raise max_line_bytes"
                )
            if number == 1:
                line = _without_mark(source, line, options, tally)
            line = line.rstrip(b"\n").removesuffix(b"\r")
            if line.strip() or keep_blank:
                text, repaired = _decoded(source, number, line, options)
                yield number, text, repaired


def _without_mark(source: Path, start: bytes, options: ReadOptions, tally: Tally) -> bytes:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ParseError(source, 1, "this is UTF-16; convert it to UTF-8")
    if not start.startswith(_BOM):
        return start
    if options.errors == "strict":
        raise ParseError(
            source,
            1,
            "the file begins with a byte-order mark; save it as UTF-8 without one, or read it with "
            'errors="replace"',
        )
    tally.marks += 1
    return start[len(_BOM) :]


def _decoded(source: Path, line: int | None, raw: bytes, options: ReadOptions) -> tuple[str, bool]:
    try:
        text, repaired = raw.decode("utf-8"), False
    except UnicodeDecodeError as why:
        if options.errors == "strict":
            raise ParseError(
                source,
                line,
                f"byte 0x{raw[why.start]:02x} at position {why.start + 1} is not UTF-8; convert "
                'the file, or read it with errors="replace"',
            ) from why
        text, repaired = raw.decode("utf-8", "replace"), True
    if "\0" in text:
        if options.errors == "strict":
            raise ParseError(
                source,
                line,
                f'a NUL character at position {text.index(chr(0)) + 1}; errors="replace" reads on',
            )
        text, repaired = text.replace("\0", "\ufffd"), True
    return text, repaired


def _is_valid(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _valid(
    source: Path, line: int, record: dict[str, Any], options: ReadOptions
) -> tuple[dict[str, Any], bool]:
    """The record without lone surrogates and NUL, and whether there were any."""
    if options.errors == "replace":
        try:
            return _repaired(record)
        except ValueError as why:
            raise ParseError(source, line, f"{why}; rename one") from why
    for text in _strings(record):
        if not _is_valid(text):
            what = "a NUL character" if "\0" in text else "a lone surrogate"
            raise ParseError(
                source, line, f'{what} in {_short(text)}; errors="replace" puts U+FFFD there'
            )
    return record, False


_T = TypeVar("_T")


def _repaired(value: _T) -> tuple[_T, bool]:
    """The value with U+FFFD for what is no character, and whether anything changed."""
    result: Any = value
    if isinstance(value, str):
        if _is_valid(value):
            return value, False
        bad = str.maketrans({"\0": "\ufffd"})
        fixed = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
        return cast(_T, fixed.translate(bad)), True
    if isinstance(value, dict):
        pairs = [(_repaired(key), _repaired(item)) for key, item in value.items()]
        result = {key: item for (key, _), (item, _) in pairs}
        if len(result) < len(pairs):
            raise ValueError("two names become one when their characters are replaced")
        return result, any(k or i for (_, k), (_, i) in pairs)
    if isinstance(value, list):
        items = [_repaired(item) for item in value]
        result = [item for item, _ in items]
        return result, any(changed for _, changed in items)
    return value, False


def _short(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


# --- fields of one record ----------------------------------------------------------------------


def _document(
    source: Path,
    line: int,
    record: dict[str, Any],
    options: ReadOptions,
    tally: Tally,
    id_keys: Sequence[str],
    text_keys: Sequence[str],
) -> Document:
    id_key = next((key for key in id_keys if key in record), None)
    if id_key is None:
        raise ParseError(source, line, _lacks("id", id_keys, record))
    given = record[id_key]
    if isinstance(given, int) and not isinstance(given, bool) and options.number_ids:
        given = str(given)
        tally.number_ids += 1
    if not isinstance(given, str):
        raise ParseError(
            source,
            line,
            f"the id {id_key!r} is {_short(given)} ({type(given).__name__}), but ids are strings; "
            "quote it, or let integers be taken as their digits with number_ids=True",
        )
    if not given:
        raise ParseError(source, line, f"the id {id_key!r} is empty")
    if "\0" in given:
        raise ParseError(source, line, f"the id {_short(given)} holds a NUL character")
    text_key = next((key for key in text_keys if key in record), None)
    if text_key is None:
        raise ParseError(source, line, _lacks("text", text_keys, record))
    text = record[text_key]
    if not isinstance(text, str):
        raise ParseError(
            source,
            line,
            f"the {text_key!r} of {given!r} is {_short(text)}, not a string; an empty document has "
            'the text ""',
        )
    title = record.get("title")
    if title is None:
        title = ""
    if not isinstance(title, str):
        raise ParseError(source, line, f"the title of {given!r} is {_short(title)}, not a string")
    if options.metadata == "drop":
        return Document(given, text, title)
    extra = {key: value for key, value in record.items() if key not in (id_key, text_key, "title")}
    return Document(given, text, title, _metadata(source, line, extra, options))


def _lacks(what: str, keys: Iterable[str], record: Mapping[str, Any]) -> str:
    there = ", ".join(repr(key) for key in list(record)[:10]) or "nothing"
    return f"no {what}: none of {', '.join(keys)} is there, only {there}"


def _metadata(
    source: Path, line: int, extra: dict[str, Any], options: ReadOptions
) -> dict[str, Any]:
    nested = extra.get("metadata")
    found: dict[str, Any] = {}
    if isinstance(nested, dict):
        del extra["metadata"]
        for name, value in nested.items():
            inside = f"metadata.{name}" if name in ("_id", "text", "title") else name
            found[inside] = value
    for name, value in extra.items():
        if name in found and found[name] != value:
            raise ParseError(
                source,
                line,
                f"{name!r} stands both beside and inside 'metadata', with other values",
            )
        found[f"metadata.{name}" if name in ("_id", "text", "title") else name] = value
    plain = _as_json if options.metadata == "json" else _plain
    return {
        name: plain(source, line, name, value)
        for name, value in found.items()
        if value is not None and value != {}
    }


def _plain(source: Path, line: int, name: str, value: Any) -> Any:
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        if len(kinds) <= 1 and kinds <= {str, int, float, bool}:
            return value
        if kinds == {int, float} and all(float(item) == item for item in value):
            return [float(item) for item in value]
        return _as_json(source, line, name, value)
    if isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise LimitError(f"{source}:{line}: {name!r} does not fit 64 bits; write it as text")
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return _as_json(source, line, name, value)


def _as_json(source: Path, line: int, name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_iso)
    except TypeError as why:
        raise ParseError(
            source,
            line,
            f'the value of {name!r} cannot be kept ({why}); read it with metadata="drop"',
        ) from why


def _iso(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"it is of type {type(value).__name__}")


def _check_depth(value: Any, level: int = 0) -> None:
    if level > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)):
                _check_depth(item, level + 1)
