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

from collections.abc import Iterator
from pathlib import Path

from retrievekit.corpus import Corpus, Document
from retrievekit.data.columns import load
from retrievekit.data.formats import placed_documents, placed_queries
from retrievekit.data.reading import (
    MAX_LINE_BYTES,
    Errors,
    Format,
    MetadataMode,
    OnDuplicate,
    ReadOptions,
    ReadReport,
    Tally,
    report_of,
)
from retrievekit.errors import DataError, DuplicateIdError, MissingDataError
from retrievekit.queries import Queries

__all__ = [
    "MAX_LINE_BYTES",
    "Errors",
    "Format",
    "MetadataMode",
    "OnDuplicate",
    "ReadOptions",
    "ReadReport",
    "iter_documents",
    "part_file",
    "read_corpus",
    "read_corpus_report",
    "read_queries",
    "read_queries_report",
    "source_of",
]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
}


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
    for placed in placed_queries(source, form, options, tally):
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
