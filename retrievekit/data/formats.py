"""From lines to records in each format: JSONL, TSV, CSV, Parquet and folders of text files.

`retrievekit.data.records` has the rules.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrievekit.corpus import Document
from retrievekit.data.characters import decoded, is_valid, short, valid_record
from retrievekit.data.fields import DOCUMENT_FIELDS, QUERY_FIELDS, FieldNames, document_of
from retrievekit.data.lines import read_lines, without_mark
from retrievekit.data.reading import Format, ReadOptions, Tally
from retrievekit.errors import DataError, LimitError, ParseError

log = logging.getLogger(__name__)

MAX_DEPTH = 64
"""Levels that JSON may be nested."""

_TEXT_SUFFIXES = (".txt", ".md", ".markdown")

_Rows = Iterator[tuple[int, dict[str, Any], bool]]
"""Line or row from 1, fields, and whether characters were replaced."""


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
        yield from _placed(source, form, options, tally, DOCUMENT_FIELDS)


def placed_queries(
    source: Path, form: Format, options: ReadOptions, tally: Tally
) -> Iterator[Placed]:
    """Queries with their places, duplicates included.

    Args:
        source: The file.
        form: Its format, any but a folder.
        options: How to read.
        tally: Where to count.

    Yields:
        The queries in order.
    """
    return _placed(source, form, options, tally, QUERY_FIELDS)


def _placed(
    source: Path, form: Format, options: ReadOptions, tally: Tally, fields: FieldNames
) -> Iterator[Placed]:
    if form == "parquet":
        rows = _parquet(source, options)
    elif form == "jsonl":
        rows = json_lines(source, options, tally)
    else:
        rows = _table(source, form, options, tally, fields)
    for line, record, repaired in rows:
        document = document_of(source, line, record, options, tally, fields)
        tally.replaced += repaired
        tally.empty += not document.text.strip() and not document.title.strip()
        yield Placed(document, source, line)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _bounded_int(digits: str) -> int:
    if len(digits) <= 18 or (len(digits) <= 20 and -(2**63) <= int(digits) < 2**63):
        return int(digits)
    raise LimitError(f"an integer of {len(digits)} digits does not fit 64 bits; write it as text")


def _bounded_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise LimitError(f"the number {short(digits)} does not fit 64 bits; write it as text")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{short(twice)} comes twice in one object; keep one")
    return found


_DECODER = json.JSONDecoder(
    parse_int=_bounded_int,
    parse_float=_bounded_float,
    parse_constant=_no_constant,
    object_pairs_hook=_object,
)


def json_lines(source: Path, options: ReadOptions, tally: Tally) -> _Rows:
    """The objects of a file of JSON lines.

    Args:
        source: The file, gzipped when its name ends in ``.gz``.
        options: How to read.
        tally: Where oddities are counted.

    Yields:
        Line from 1, fields, and whether characters were replaced.

    Raises:
        ParseError: A line is no JSON object.
        LimitError: A line is too long, or nested too deep.
    """
    for line, text, repaired in read_lines(source, options, tally):
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
            record, again = valid_record(source, line, record, options)
            repaired = repaired or again
        yield line, record, repaired


def _check_depth(value: Any, level: int = 0) -> None:
    if level > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)):
                _check_depth(item, level + 1)


def _table(
    source: Path,
    form: Format,
    options: ReadOptions,
    tally: Tally,
    fields: FieldNames,
) -> _Rows:
    rows = (_tsv if form == "tsv" else _csv)(source, options, tally)
    names: list[str] | None = None
    for line, cells, repaired in rows:
        if names is None:
            found = [cell.strip() for cell in cells]
            named = bool(set(found) & set(fields.ids)) and bool(set(found) & set(fields.texts))
            if options.header or (options.header is None and named):
                twice = sorted({name for name in found if found.count(name) > 1})
                if twice:
                    raise ParseError(source, line, f"the header names {twice} more than once")
                names = found
                continue
            plain = {2: [fields.ids[0], "text"], 3: [fields.ids[0], "title", "text"]}
            expected = "two (id, text) or three (id, title, text)"
            if not fields.titled:
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
    for line, text, repaired in read_lines(source, options, tally, keep_blank=True):
        if text.strip(" \r\v\f"):  # a line of tabs is a row of empty cells
            yield line, text.split("\t"), repaired


def _csv(source: Path, options: ReadOptions, tally: Tally) -> Iterator[tuple[int, list[str], bool]]:
    parts: list[str] = []
    size, first, mended = 0, 0, False
    # A record goes on while a quote is open, which is while the quotes so far are odd in number.
    odd = False
    for line, text, repaired in read_lines(source, options, tally, keep_blank=True):
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
                    yield row, *valid_record(source, row, record, options)
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
        if not is_valid(doc_id):
            raise DataError(f"{path!r}: the file's name is not valid UTF-8; rename it")
        with path.open("rb") as stream:
            raw = stream.read(options.max_line_bytes + 1)
        if len(raw) > options.max_line_bytes:
            raise LimitError(
                f"{path}: more than {options.max_line_bytes:,} bytes; split it, or raise "
                "max_line_bytes"
            )
        text, repaired = decoded(path, None, without_mark(path, raw, options, tally), options)
        tally.replaced += repaired
        tally.empty += not text.strip()
        yield Placed(Document(doc_id, text), path, None)
