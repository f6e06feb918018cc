"""A corpus from a stream of documents: in memory, or when it is large converted once and mapped.

Documents are gathered in batches with their metadata as JSON text. When all have been seen,
duplicates and the types of the metadata columns are known, and the batches are written out as they
shall be. A large corpus takes this way through a temporary file, so memory holds ids, digests and
one batch, never all texts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.data.download import replacing
from retrievekit.data.formats import Placed, placed_documents
from retrievekit.data.reading import Format, ReadOptions, ReadReport, Tally, report_of
from retrievekit.errors import DataError, DuplicateIdError, ParseError
from retrievekit.ids import Ids
from retrievekit.locations import cache_dir

log = logging.getLogger(__name__)

MAPPED_FROM = 64 * 2**20
"""Bytes of source, as it is when unpacked, from which a corpus is converted and mapped."""

BATCH_ROWS = 8192
"""Documents of a batch, unless `BATCH_CHARS` is reached before."""

BATCH_CHARS = 16 * 2**20
"""Characters of a batch."""

_VERSION = 1  # of converted files; a new number makes the old ones unused
_GROWTH = {".gz": 4, ".parquet": 3}  # how much a source grows when it is unpacked, about
_ONE = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string()}
_TYPES = {**_ONE, **{f"list of {kind}": pa.list_(type_) for kind, type_ in _ONE.items()}}
_TYPES["list"] = pa.list_(pa.string())  # every list was empty
_FIELDS = ("_id", "text", "title")


def load(source: Path, form: Format, options: ReadOptions) -> tuple[Corpus, ReadReport]:
    """Read a corpus, through the cache when it is large.

    Args:
        source: The file or folder of text files.
        form: Its format.
        options: How to read.

    Returns:
        The corpus and what was met on the way (also when it was converted earlier).
    """
    stamp, size = _stamp(source, form)
    if size * _GROWTH.get(source.suffix, 1) >= MAPPED_FROM:
        return _mapped(source, form, options, stamp, size)
    gathered = _Gathered(source, form, options)
    batches = list(gathered.raw())
    report = gathered.settle()
    table = pa.Table.from_batches(gathered.final(batches), gathered.schema)
    return _corpus(table), report


class _Gathered:
    """One pass over the documents, and what it takes to write them out in a second one."""

    def __init__(self, source: Path, form: Format, options: ReadOptions) -> None:
        self.source = source
        self.form = form
        self.options = options
        self.tally = Tally()
        self.keep: NDArray[np.bool_] | None = None
        self._ids: list[pa.Array] = []
        self._lines = array("q")
        self._digests = bytearray()
        self._empty = bytearray()
        self._kinds: dict[str, tuple[str, int | None]] = {}

    def raw(self) -> Iterator[pa.RecordBatch]:
        """All documents as they come, metadata as JSON text."""
        rows: list[tuple[str, str, str, str | None]] = []
        size = 0
        for placed in placed_documents(self.source, self.form, self.options, self.tally):
            row = self._take(placed)
            rows.append(row)
            size += len(row[1]) + len(row[2]) + len(row[3] or "")
            if len(rows) >= BATCH_ROWS or size >= BATCH_CHARS:
                yield self._batch(rows)
                rows, size = [], 0
        if rows:
            yield self._batch(rows)

    def _take(self, placed: Placed) -> tuple[str, str, str, str | None]:
        document = placed.document
        extra = None
        if document.metadata:
            for name, value in document.metadata.items():
                self._note_kind(placed, name, value)
            extra = json.dumps(document.metadata, ensure_ascii=False, sort_keys=True)
        digest = hashlib.blake2b(digest_size=16)
        for part in (document.title, document.text, extra or ""):
            raw = part.encode("utf-8")
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
        self._digests += digest.digest()
        self._lines.append(placed.line or 0)
        self._empty.append(not document.text.strip() and not document.title.strip())
        return document.doc_id, document.text, document.title, extra

    def _note_kind(self, placed: Placed, name: str, value: Any) -> None:
        kind = _kind(value)
        known, line = self._kinds.get(name, (kind, placed.line))
        joined = _joined(known, kind)
        if joined is None:
            raise ParseError(
                placed.path,
                placed.line,
                f"metadata {name!r} is a {kind} here, but a {known} on line {line}; a column has "
                'one type. Read it with metadata="json" or "drop", or mend the file',
            )
        if joined != known or name not in self._kinds:
            self._kinds[name] = (joined, placed.line)

    def _batch(self, rows: list[tuple[str, str, str, str | None]]) -> pa.RecordBatch:
        columns = [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]
        self._ids.append(columns[0])
        return pa.record_batch(columns, names=[*_FIELDS, "metadata"])

    def settle(self) -> ReadReport:
        """Decide about duplicates; to be called when all documents have been seen."""
        duplicates = conflicts = 0
        n = len(self._lines)
        if n:
            codes, n_ids = _codes(self._ids)
            if n_ids < n:
                duplicates, conflicts = self._choose(codes, n_ids)
        self._ids.clear()
        empty = np.frombuffer(self._empty, np.bool_)
        if self.keep is not None:
            empty = empty[self.keep]
        self.tally.empty = int(empty.sum())
        records = n - duplicates - conflicts
        return report_of(self.source, self.tally, records, duplicates, conflicts)

    def _choose(self, codes: NDArray[np.int32], n_ids: int) -> tuple[int, int]:
        rows = np.arange(len(codes))
        kept = np.empty(n_ids, np.int64)
        # Of several assignments to one place the last one stays.
        if self.options.on_duplicate == "last":
            kept[codes] = rows
        else:
            kept[codes[::-1]] = rows[::-1]
        self.keep = kept[codes] == rows
        others = np.flatnonzero(~self.keep)
        content = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        same = (content[others] == content[kept[codes[others]]]).all(axis=1)
        differing = others[~same]
        if len(differing) and self.options.on_duplicate == "error":
            ids = pa.concat_arrays(self._ids)
            shown = ", ".join(
                f"{ids[int(row)].as_py()!r} (lines {self._lines[kept[codes[row]]]} and "
                f"{self._lines[row]})"
                for row in differing[:5]
            )
            more = f" and {len(differing) - 5:,} more" if len(differing) > 5 else ""
            raise DuplicateIdError(
                f"{self.source}: one document id, two contents: {shown}{more}; "
                'on_duplicate="first" or "last" would choose one'
            )
        return int(same.sum()), len(differing)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the final batches: id, text, title, metadata in order of appearance."""
        columns = [(name, pa.large_string()) for name in _FIELDS]
        columns += [(name, _TYPES[kind]) for name, (kind, _) in self._kinds.items()]
        return pa.schema(columns)

    def final(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches with typed columns and without duplicates."""
        schema = self.schema
        start = 0
        for batch in batches:
            stop = start + batch.num_rows
            if self.keep is not None:
                batch = batch.filter(pa.array(self.keep[start:stop]))
            start = stop
            columns = [batch.column(place) for place in range(len(_FIELDS))]
            if self._kinds:
                records = [json.loads(text) if text else {} for text in batch.column(3).to_pylist()]
                for name, (kind, _) in self._kinds.items():
                    values = [record.get(name) for record in records]
                    try:
                        columns.append(pa.array(values, _TYPES[kind]))
                    except (pa.ArrowInvalid, OverflowError) as why:
                        raise DataError(
                            f"{self.source}: a value of metadata {name!r} cannot be kept exactly "
                            f'as {kind} ({why}); read it with metadata="json" or "drop"'
                        ) from why
            yield pa.record_batch(columns, schema=schema)


def _codes(ids: list[pa.Array]) -> tuple[NDArray[np.int32], int]:
    encoded = pa.concat_arrays(ids).dictionary_encode()
    return encoded.indices.to_numpy(), len(encoded.dictionary)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"list of {type(value[0]).__name__}" if value else "list"
    return type(value).__name__


def _joined(one: str, other: str) -> str | None:
    """The kind that holds values of both, or None."""
    if one == other:
        return one
    pair = {one, other}
    if pair == {"int", "float"}:
        return "float"
    if pair == {"list of int", "list of float"}:
        return "list of float"
    if "list" in pair and all(kind.startswith("list") for kind in pair):
        return max(pair, key=len)
    return None


def _corpus(table: pa.Table) -> Corpus:
    column = table.column(0)
    ids = (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks or [pa.array([], pa.large_string())])
    )
    return Corpus(Ids.from_arrow(ids, what="document id"), table.remove_column(0))


def _stamp(source: Path, form: Format) -> tuple[str, int]:
    """What changes when the source changes, and its bytes."""
    digest = hashlib.sha256()
    size = 0
    paths = sorted(source.rglob("*")) if form == "folder" else [source]
    for path in paths:
        if path.is_file():
            status = path.stat()
            size += status.st_size
            digest.update(
                f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "replace")
            )
        elif path.is_symlink():  # to a folder or to nothing: reading tells
            digest.update(f"{path}\0link\n".encode("utf-8", "replace"))
    return digest.hexdigest()[:16], size


def _mapped(
    source: Path, form: Format, options: ReadOptions, stamp: str, size: int
) -> tuple[Corpus, ReadReport]:
    folder = cache_dir() / "corpora"
    settings = json.dumps([_VERSION, form, asdict(options)], sort_keys=True)
    parts = [str(source.resolve()).encode("utf-8", "surrogateescape"), settings.encode()]
    where, how = (hashlib.sha256(part).hexdigest()[:16] for part in parts)
    path = folder / f"{where}-{stamp}-{how}.arrow"
    if path.is_file():
        try:
            return _open(path, source)
        except (pa.ArrowInvalid, KeyError, ValueError, TypeError):
            log.warning("%s is damaged; converting %s again", path, source)
    log.info("%s: converting %s bytes once into %s", source, f"{size:,}", path)
    folder.mkdir(parents=True, exist_ok=True)
    gathered = _Gathered(source, form, options)
    with tempfile.TemporaryFile(dir=folder) as passing:
        writer = None
        for batch in gathered.raw():
            writer = writer or pa.ipc.new_stream(passing, batch.schema)
            writer.write_batch(batch)
        report = gathered.settle()
        if writer is not None:
            writer.close()
            passing.seek(0)
        batches = iter(()) if writer is None else iter(pa.ipc.open_stream(passing))
        noted = {b"report": json.dumps(asdict(replace(report, path=""))).encode()}
        schema = gathered.schema.with_metadata(noted)
        with replacing(path) as fresh, fresh.open("wb") as out:
            with pa.ipc.new_file(out, schema) as final:
                for batch in gathered.final(batches):
                    final.write_batch(batch.replace_schema_metadata(noted))
    for old in folder.glob(f"{where}-*.arrow"):
        if not old.name.startswith(f"{where}-{stamp}-"):
            old.unlink(missing_ok=True)
    return _open(path, source)


def _open(path: Path, source: Path) -> tuple[Corpus, ReadReport]:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    report = ReadReport(**json.loads(table.schema.metadata[b"report"]))
    return _corpus(table.replace_schema_metadata(None)), replace(report, path=str(source))
