"""The manifest: everything an index is, in one JSON file, and ``CURRENT``, which names it.

``CURRENT`` holds the live manifest's name and SHA-256 and a CRC32C of its own text, so that a
flipped bit cannot lead to an older generation. The manifest holds, for every file, its size, a
CRC32C per block and a SHA-256. It has no timestamps: the same corpus and settings give the same
manifest.

A manifest says in which format it was written. A newer one is refused. An older one is read through
`UPGRADERS`, which turn its JSON into the next version's, step by step and in memory: nothing on
disk changes until the next commit, which writes the newest format; `compact` rewrites segments too.
Hence the rule for whoever changes the layout: raise `FORMAT`, add the upgrader from the version
before, and keep an index of that version among the tests. The lines of ``CURRENT`` stay as they
are. An upgrader that is dropped leaves an entry in `RETIRED`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrievekit._version import __version__
from retrievekit.errors import CorruptIndexError, FormatVersionError
from retrievekit.store.files import FileRecord, crc32c, read_bytes

FORMAT = 1
"""Version of the layout on disk; a reader refuses newer ones."""

UPGRADERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By older version, what turns a manifest's JSON into that of the next version."""

RETIRED: dict[int, str] = {}
"""By version that has no upgrader any more, the last retrievekit that reads it."""

CURRENT = "CURRENT"
_MAGIC = "retrievekit-index"
_FIRST_LINE = re.compile(rf"{_MAGIC} (\d{{1,9}})\n".encode())
_SECOND_LINE = re.compile(rb"(manifest-\d{6,}\.json) ([0-9a-f]{64})\n")
_MANIFEST_LIMIT = 1 << 28


@dataclass(frozen=True)
class ArrayRecord:
    """A file that holds one array.

    Args:
        dtype: NumPy's name of the element type, little-endian, such as ``<i4``.
        shape: The array's shape.
        file: Size and checksums.
    """

    dtype: str
    shape: tuple[int, ...]
    file: FileRecord

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return {"dtype": self.dtype, "shape": list(self.shape), **self.file.to_dict()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ArrayRecord:
        """Rebuild a record from plain JSON.

        Args:
            record: What `to_dict` gave.

        Returns:
            The record.
        """
        return cls(record["dtype"], tuple(record["shape"]), FileRecord.from_dict(record))


@dataclass(frozen=True)
class SegmentRecord:
    """One immutable segment.

    Args:
        name: Its folder below ``segments``.
        documents: Rows in it.
        arrays: Its arrays by name.
        native: Files in a foreign format by name (Arrow metadata, engine caches).
        details: What its index kind wants to know, as plain JSON.
    """

    name: str
    documents: int
    arrays: Mapping[str, ArrayRecord]
    native: Mapping[str, FileRecord] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return {
            "name": self.name,
            "documents": self.documents,
            "arrays": {name: array.to_dict() for name, array in self.arrays.items()},
            "native": {name: file.to_dict() for name, file in self.native.items()},
            "details": dict(self.details),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SegmentRecord:
        """Rebuild a record from plain JSON.

        Args:
            record: What `to_dict` gave.

        Returns:
            The record.
        """
        return cls(
            record["name"],
            record["documents"],
            {name: ArrayRecord.from_dict(array) for name, array in record["arrays"].items()},
            {name: FileRecord.from_dict(file) for name, file in record["native"].items()},
            record["details"],
        )

    @property
    def n_bytes(self) -> int:
        """Bytes of all its files."""
        sizes = [array.file.size for array in self.arrays.values()]
        return sum(sizes) + sum(file.size for file in self.native.values())


@dataclass(frozen=True)
class TombstoneRecord:
    """The deleted rows of one segment, as a bitmap beside the manifest.

    Args:
        name: Its file.
        deleted: How many rows are deleted.
        array: uint8, eight rows a byte, the first in the highest bit.
    """

    name: str
    deleted: int
    array: ArrayRecord

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return {"name": self.name, "deleted": self.deleted, **self.array.to_dict()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> TombstoneRecord:
        """Rebuild a record from plain JSON.

        Args:
            record: What `to_dict` gave.

        Returns:
            The record.
        """
        return cls(record["name"], record["deleted"], ArrayRecord.from_dict(record))


@dataclass(frozen=True)
class Manifest:
    """One generation of an index.

    Args:
        kind: The index kind, such as "bm25".
        generation: Counts commits from 1.
        settings: What the answers depend on besides the documents: analyzer, parameters, engine,
            similarity.
        encoder: The encoder's card as plain JSON, or None.
        documents: Live documents.
        corpus_hash: Hash over the live documents, independent of their order.
        segments: The segments.
        statistics: Totals over live documents, as plain JSON.
        tombstones: By name of the segment, for segments with deleted rows.
        text_stored: Whether segments hold the words.
    """

    kind: str
    generation: int
    settings: Mapping[str, Any]
    encoder: Mapping[str, Any] | None
    documents: int
    corpus_hash: str
    segments: tuple[SegmentRecord, ...]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    tombstones: Mapping[str, TombstoneRecord] = field(default_factory=dict)
    text_stored: bool = True

    @classmethod
    def empty(
        cls,
        kind: str,
        settings: Mapping[str, Any],
        *,
        statistics: Mapping[str, Any],
        encoder: Mapping[str, Any] | None = None,
        text_stored: bool = True,
    ) -> Manifest:
        """The manifest of an index without documents, from which a build starts.

        Args:
            kind: The index kind.
            settings: What the answers depend on besides the documents.
            statistics: The totals over no documents.
            encoder: The encoder's card as plain JSON, or None.
            text_stored: Whether segments will hold the words.

        Returns:
            The manifest, of generation 0, which is never written.
        """
        return cls(
            kind=kind,
            generation=0,
            settings=settings,
            encoder=encoder,
            documents=0,
            corpus_hash="0" * 64,
            segments=(),
            statistics=statistics,
            text_stored=text_stored,
        )

    @property
    def file_name(self) -> str:
        """Name of the manifest's file."""
        return f"manifest-{self.generation:06d}.json"

    @property
    def n_bytes(self) -> int:
        """Bytes of all segments' files."""
        return sum(segment.n_bytes for segment in self.segments)

    def to_bytes(self) -> bytes:
        """The manifest as canonical JSON."""
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "generation": self.generation,
            "settings": dict(self.settings),
            "encoder": None if self.encoder is None else dict(self.encoder),
            "documents": self.documents,
            "corpus_hash": self.corpus_hash,
            "segments": [segment.to_dict() for segment in self.segments],
            "statistics": dict(self.statistics),
            "tombstones": {name: dead.to_dict() for name, dead in self.tombstones.items()},
            "text_stored": self.text_stored,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Manifest:
        """Read a manifest whose checksum was verified.

        Args:
            data: Its bytes.
            path: Where they come from, for messages.

        Returns:
            The manifest.

        Raises:
            FormatVersionError: It was written by a newer format, or one too old.
            CorruptIndexError: It is not what this package writes, whatever its checksum says.
        """
        try:
            return cls._from_content(_upgraded(json.loads(data), path))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as why:
            raise CorruptIndexError(
                f"{path}: not a manifest that retrievekit wrote ({why!r}); build the index again"
            ) from why

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> Manifest:
        return cls(
            kind=content["kind"],
            generation=content["generation"],
            settings=content["settings"],
            encoder=content["encoder"],
            documents=content["documents"],
            corpus_hash=content["corpus_hash"],
            segments=tuple(SegmentRecord.from_dict(item) for item in content["segments"]),
            statistics=content["statistics"],
            tombstones={
                name: TombstoneRecord.from_dict(record)
                for name, record in content["tombstones"].items()
            },
            text_stored=content["text_stored"],
        )


def _upgraded(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A manifest's JSON in the newest format."""
    version = content["format"]
    if type(version) is not int:
        raise TypeError(f"format {version!r}")
    _refuse_newer(version, path)
    for step in range(version, FORMAT):
        if step not in UPGRADERS:
            raise FormatVersionError(
                f"{path}: written in format {version}, which retrievekit {__version__} does not "
                f"read any more; use retrievekit {RETIRED.get(step, 'of that time')}, or build the "
                "index again"
            )
        content = UPGRADERS[step](content)
    return content


def _refuse_newer(version: int, path: Path) -> None:
    if version > FORMAT:
        raise FormatVersionError(
            f"{path}: written in format {version}, retrievekit {__version__} reads up to {FORMAT}; "
            "upgrade retrievekit, or build the index again"
        )


def current_bytes(manifest_name: str, manifest_bytes: bytes) -> bytes:
    """The content of ``CURRENT`` for a manifest.

    Args:
        manifest_name: The manifest's file name.
        manifest_bytes: The manifest's bytes.

    Returns:
        Three lines: format, name and SHA-256, CRC32C of the two lines before.
    """
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    body = f"{_MAGIC} {FORMAT}\n{manifest_name} {digest}\n".encode()
    return body + f"crc32c {crc32c(body):08x}\n".encode()


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Read and verify ``CURRENT`` and the manifest it names.

    Args:
        folder: The index folder.

    Returns:
        The manifest and its SHA-256.

    Raises:
        FormatVersionError: The folder is no index, or of a format that is not read.
        CorruptIndexError: ``CURRENT`` or the manifest is damaged.
    """
    path = folder / CURRENT
    if not folder.is_dir():
        raise FormatVersionError(f"{folder}: no such folder; build an index there first")
    try:
        data = read_bytes(path, 4096)
    except FileNotFoundError as why:
        raise FormatVersionError(
            f"{folder}: not an index (it has no file {CURRENT}); if a build was interrupted here, "
            "build it again; if the file was lost, restore it from a copy"
        ) from why
    name, digest = _parse_current(path, data)
    manifest_path = folder / name
    try:
        content = read_bytes(manifest_path, _MANIFEST_LIMIT)
    except FileNotFoundError as why:
        if read_bytes(path, 4096) != data:  # a writer has just put a newer generation in its place
            return read_manifest(folder)
        raise CorruptIndexError(
            f"{manifest_path}: the manifest is missing; restore the file from a copy of the index, "
            "or build the index again"
        ) from why
    if hashlib.sha256(content).hexdigest() != digest:
        raise CorruptIndexError(
            f"{manifest_path}: damaged (its SHA-256 is not the one in {CURRENT}); restore the file "
            "from a copy, or build the index again"
        )
    return Manifest.from_bytes(content, manifest_path), digest


def _parse_current(path: Path, data: bytes) -> tuple[str, str]:
    body, separator, tail = data.rpartition(b"crc32c ")
    if not separator or tail != f"{crc32c(body):08x}\n".encode():
        raise CorruptIndexError(
            f"{path}: damaged (its CRC32C does not fit); restore it from a copy, or build the "
            "index again"
        )
    first = _FIRST_LINE.match(body)
    if first is None:
        raise FormatVersionError(f"{path}: not an index of this package")
    _refuse_newer(int(first[1]), path)
    second = _SECOND_LINE.fullmatch(body, first.end())
    if second is None:
        raise CorruptIndexError(f"{path}: names no manifest; build the index again")
    return second[1].decode("ascii"), second[2].decode("ascii")
