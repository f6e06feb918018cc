"""Segments: folders of plain arrays, written once, mapped and verified block by block.

An array is one file of little-endian elements in C order; dtype, shape and checksums stand in the
manifest. Strings are two arrays, bytes and offsets. Reading maps the file; `CheckedArray` compares
the CRC32C of each 1 MiB block with the manifest the first time an answer needs a byte of it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import CorruptIndexError, StoreError
from retrievekit.store.files import (
    BLOCK,
    FileRecord,
    Files,
    Writer,
    bytes_left,
    crc32c,
    map_file,
)
from retrievekit.store.manifest import ArrayRecord, Manifest, SegmentRecord, read_manifest
from retrievekit.store.shards import ShardFolder

_REMEDY = (
    "restore it from a copy, try `retrievekit verify --repair`, which computes again what follows "
    "from other files, or build the index again"
)


class ArrayWriter:
    """Appends rows to a new array file.

    Args:
        writer: The file.
        dtype: Element type.
        row_shape: Shape of one row; ``()`` for a flat array.
    """

    def __init__(self, writer: Writer, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self._writer = writer
        self.dtype = dtype.newbyteorder("<")
        self.row_shape = row_shape
        self.rows = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows.

        Args:
            rows: ``(m,)`` or ``(m, d)``, cast to the array's dtype.
        """
        rows = np.asarray(rows)
        self._writer.write_array(rows.astype(self.dtype, copy=False))
        self.rows += len(rows)

    def close(self) -> ArrayRecord:
        """Sync and close the file.

        Returns:
            Its record.
        """
        shape = (self.rows, *self.row_shape)
        return ArrayRecord(self.dtype.str, shape, self._writer.close())

    def abort(self) -> None:
        """Close without syncing."""
        self._writer.abort()


class SegmentWriter:
    """A new segment under construction.

    Args:
        folder: Its folder, made here.
        files: The operating system.
        shards: Where parts of its arrays are kept until the commit; None where nobody would find
            them again.
    """

    def __init__(self, folder: Path, files: Files, shards: ShardFolder | None = None) -> None:
        self.folder = folder
        self.shards = shards
        self._files = files
        self.details: dict[str, Any] = {}
        self._given_up = False
        self._open: dict[str, ArrayWriter] = {}
        self._closed: dict[str, ArrayRecord] = {}
        self._native: dict[str, FileRecord] = {}
        files.make_folder(folder)

    def array(
        self, name: str, dtype: type[np.generic] | np.dtype[Any], row_shape: tuple[int, ...] = ()
    ) -> ArrayWriter:
        """Start an array; it is closed with the segment.

        Args:
            name: Its name, unique in the segment.
            dtype: Element type.
            row_shape: Shape of one row.

        Returns:
            Its writer.
        """
        self.check_wanted()
        writer = ArrayWriter(self._files.create(self.folder / name), np.dtype(dtype), row_shape)
        self._open[name] = writer
        return writer

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Write a whole array.

        Args:
            name: Its name.
            array: The array, ``(n, ...)`` of any dtype.
        """
        self.array(name, array.dtype, array.shape[1:]).append(array)

    def strings(self, name: str) -> StringsWriter:
        """Start a column of strings, kept as the arrays ``<name>.bytes`` and ``<name>.offsets``.

        Args:
            name: Its name.

        Returns:
            Its writer.
        """
        return StringsWriter(
            self.array(f"{name}.bytes", np.uint8), self.array(f"{name}.offsets", np.int64)
        )

    def written(self, name: str) -> CheckedArray:
        """Close an array before the others, and read it.

        Args:
            name: Its name.

        Returns:
            The array, mapped.
        """
        if name not in self._closed:
            self._closed[name] = self._open[name].close()
            del self._open[name]  # only now: one that could not be closed is to be aborted
        return CheckedArray(self.folder / name, self._closed[name])

    def native(self, name: str, data: bytes) -> None:
        """Write a file in a foreign format.

        Args:
            name: Its name.
            data: Its bytes.
        """
        self.check_wanted()
        self._native[name] = self._files.write(self.folder / name, data)

    def finish(self, documents: int, details: Mapping[str, Any] | None = None) -> SegmentRecord:
        """Sync and close all files and the folder.

        Args:
            documents: Rows in the segment.
            details: Plain JSON for the index kind, beside what stands in `details` already.

        Returns:
            The segment's record.
        """
        self.check_wanted()
        closed = {name: writer.close() for name, writer in sorted(self._open.items())}
        arrays = dict(sorted((self._closed | closed).items()))
        self._files.sync_folder(self.folder)
        return SegmentRecord(
            self.folder.name,
            documents,
            arrays,
            dict(self._native),
            self.details | dict(details or {}),
        )

    def abort(self) -> None:
        """Close all files without syncing; whoever still writes here, in a thread, is stopped."""
        self._given_up = True
        for writer in list(self._open.values()):
            writer.abort()

    def check_wanted(self) -> None:
        """Raise when the segment was given up; long work asks from time to time.

        Raises:
            StoreError: It was.
        """
        if self._given_up:
            raise StoreError(f"{self.folder}: this segment was given up")


class StringsWriter:
    """Appends strings to a new column.

    Args:
        data: Writer of the bytes.
        offsets: Writer of the offsets.
    """

    def __init__(self, data: ArrayWriter, offsets: ArrayWriter) -> None:
        self._data = data
        self._offsets = offsets
        self._end = 0
        offsets.append(np.zeros(1, np.int64))

    def extend(self, values: Iterable[str]) -> None:
        """Append strings.

        Args:
            values: The strings.
        """
        raw = [value.encode("utf-8") for value in values]
        if not raw:
            return
        ends = np.cumsum([len(value) for value in raw]) + self._end
        self._data.append(np.frombuffer(b"".join(raw), np.uint8))
        self._offsets.append(ends.astype(np.int64))
        self._end = int(ends[-1])


class CheckedArray:
    """A mapped array whose blocks are verified at first touch.

    Args:
        path: The file.
        record: What the manifest says of it.

    Raises:
        CorruptIndexError: The file is missing or has another size.
    """

    def __init__(self, path: Path, record: ArrayRecord) -> None:
        self.path = path
        self.record = record
        self.raw = _mapped(path, record.file)
        self.dtype = np.dtype(record.dtype)
        expected = int(np.prod(record.shape, dtype=np.int64)) * self.dtype.itemsize
        if expected != record.file.size:
            raise CorruptIndexError(
                f"{path}: {record.shape} elements of {record.dtype} need {expected} bytes, "
                f"the manifest says {record.file.size}"
            )
        self.unchecked: NDArray[Any] = np.frombuffer(self.raw, self.dtype).reshape(record.shape)
        self._row_bytes = int(np.prod(record.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._seen = np.zeros(len(record.file.blocks), bool)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Rows of the array."""
        return self.record.shape[0]

    def ensure(self, start: int, stop: int) -> None:
        """Verify the blocks that some rows lie in, where that was not done before.

        Args:
            start: First row.
            stop: Row after the last.

        Raises:
            CorruptIndexError: A block is damaged.
        """
        if stop <= start:
            return
        first = start * self._row_bytes // BLOCK
        last = (stop * self._row_bytes - 1) // BLOCK
        if self._seen[first : last + 1].all():
            return
        with self._lock:
            for block in range(first, last + 1):
                if not self._seen[block]:
                    self._verify(block)
                    self._seen[block] = True

    def ensure_rows(self, rows: NDArray[np.integer]) -> None:
        """Verify the blocks that scattered rows lie in, where that was not done before.

        Args:
            rows: Rows in any order, integers ``(m,)``.
        """
        if self._seen.all():
            return
        width = max(1, BLOCK // max(self._row_bytes, 1))
        for part in np.flatnonzero(np.bincount(rows // width)).tolist():
            self.ensure(part * width, min((part + 1) * width, len(self)))

    def _verify(self, block: int) -> None:
        _check_size(self.path, bytes_left(self.raw), self.record.file.size)
        data = self.raw[block * BLOCK : (block + 1) * BLOCK]
        if crc32c(data) != self.record.file.blocks[block]:
            raise CorruptIndexError(
                f"{self.path}: damaged near byte {block * BLOCK} (CRC32C of block {block} does not "
                f"fit); nothing was answered from it; {_REMEDY}"
            )

    def slice(self, start: int, stop: int) -> NDArray[Any]:
        """Some rows, verified.

        Args:
            start: First row.
            stop: Row after the last.

        Returns:
            A read-only view ``(stop - start, ...)`` of the array's dtype.
        """
        self.ensure(start, stop)
        return self.unchecked[start:stop]

    def take(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """Some rows, of which only the blocks that hold them are verified.

        Args:
            rows: Rows, integers ``(m,)``.

        Returns:
            A copy ``(m, ...)`` of the array's dtype.
        """
        if len(rows) and self._row_bytes:
            first = rows.astype(np.int64) * self._row_bytes // BLOCK
            last = (rows.astype(np.int64) * self._row_bytes + self._row_bytes - 1) // BLOCK
            for row in rows[np.unique(first * len(self._seen) + last, return_index=True)[1]]:
                self.ensure(int(row), int(row) + 1)
        found: NDArray[Any] = self.unchecked[rows]
        return found

    def all(self) -> NDArray[Any]:
        """The whole array, verified: a read-only view, ``(n,)`` or ``(n, d)``, of its own dtype."""
        return self.slice(0, len(self))


class SegmentReader:
    """A segment of a pinned generation: all its files are mapped when it is opened.

    Args:
        folder: Its folder.
        record: What the manifest says of it.
        tombstones: The bitmap of its deleted rows, or None when none is deleted.
        only: The files to open, when others are known to be damaged; all by default.

    Raises:
        CorruptIndexError: A file is missing or has another size.
    """

    def __init__(
        self,
        folder: Path,
        record: SegmentRecord,
        tombstones: CheckedArray | None = None,
        *,
        only: Collection[str] | None = None,
    ) -> None:
        self.folder = folder
        self.record = record
        self._tombstones = tombstones
        self.arrays = {
            name: CheckedArray(folder / name, array)
            for name, array in record.arrays.items()
            if only is None or name in only
        }
        self._native = {
            name: _mapped(folder / name, file)
            for name, file in record.native.items()
            if only is None or name in only
        }

    def __getitem__(self, name: str) -> CheckedArray:
        """One of its arrays."""
        return self.arrays[name]

    @cached_property
    def dead(self) -> NDArray[np.bool_]:
        """Which rows are deleted, bool ``(documents,)``; ``(0,)`` when none is."""
        if self._tombstones is None:
            return np.zeros(0, bool)
        return np.unpackbits(self._tombstones.all(), count=self.record.documents).astype(bool)

    def with_dead(self, dead: NDArray[np.bool_]) -> SegmentReader:
        """This segment with other deleted rows.

        Args:
            dead: bool ``(documents,)``.

        Returns:
            A reader over the same mapped files.
        """
        other = copy.copy(self)
        for derived in ("live", "n_live"):
            other.__dict__.pop(derived, None)
        other.dead = dead
        return other

    @cached_property
    def n_live(self) -> int:
        """How many rows are not deleted."""
        return self.record.documents - int(self.dead.sum())

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """The rows that are not deleted, int64 ``(live documents,)``."""
        if not len(self.dead):
            return np.arange(self.record.documents)
        return np.flatnonzero(~self.dead)

    def native(self, name: str) -> memoryview:
        """A file in a foreign format, verified whole before any parser reads a byte.

        Args:
            name: Its name.

        Returns:
            Its bytes.

        Raises:
            CorruptIndexError: It is damaged.
        """
        record = self.record.native[name]
        data = self._native[name]
        _check_size(self.folder / name, bytes_left(data), record.size)
        for block, expected in enumerate(record.blocks):
            if crc32c(data[block * BLOCK : (block + 1) * BLOCK]) != expected:
                raise CorruptIndexError(
                    f"{self.folder / name}: damaged near byte {block * BLOCK}; it was not parsed; "
                    f"{_REMEDY}"
                )
        return data


@dataclass(frozen=True)
class Generation:
    """A live generation, pinned: every file of it is mapped, so its removal cannot hurt.

    Args:
        folder: The index folder.
        manifest: Its manifest.
        digest: The manifest's SHA-256.
        segments: Its segments.
    """

    folder: Path
    manifest: Manifest
    digest: str
    segments: tuple[SegmentReader, ...]

    @classmethod
    def pin(cls, folder: Path) -> Generation:
        """Open the generation that is live now.

        A writer may replace it (and remove its files) while they are opened; then the newer one
        is pinned.

        Args:
            folder: The index folder.

        Returns:
            The generation.

        Raises:
            FormatVersionError: The folder is no index, or a newer one.
            CorruptIndexError: It is damaged.
        """
        manifest, digest = read_manifest(folder)
        try:
            segments = [_opened(folder, manifest, record) for record in manifest.segments]
        except CorruptIndexError:
            if read_manifest(folder)[1] != digest:
                return cls.pin(folder)
            raise
        return cls(folder, manifest, digest, tuple(segments))


def _opened(folder: Path, manifest: Manifest, record: SegmentRecord) -> SegmentReader:
    dead = manifest.tombstones.get(record.name)
    bitmap = None if dead is None else CheckedArray(folder / dead.name, dead.array)
    return SegmentReader(folder / "segments" / record.name, record, bitmap)


def _mapped(path: Path, record: FileRecord) -> memoryview:
    try:
        data = map_file(path)
    except FileNotFoundError as why:
        raise CorruptIndexError(f"{path}: the file is missing; {_REMEDY}") from why
    _check_size(path, len(data), record.size)
    return data


def _check_size(path: Path, size: int, expected: int) -> None:
    if size != expected:
        raise CorruptIndexError(f"{path}: has {size} bytes instead of {expected}; {_REMEDY}")
