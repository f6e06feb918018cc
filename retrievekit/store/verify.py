"""Verifying an index on disk against its manifest."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from retrievekit.store.files import BLOCK, FileRecord, crc32c
from retrievekit.store.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class FileStatus:
    """What was found of one file.

    Args:
        name: Its path below the index folder.
        size: The bytes it should have.
        problem: What is wrong with it; empty when nothing is.
    """

    name: str
    size: int
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


@dataclass(frozen=True)
class VerifyReport:
    """What was found of an index.

    Args:
        manifest: The live manifest.
        digest: Its SHA-256.
        files: One entry per file that it names.
        deep: Whether SHA-256 digests were computed too.
    """

    manifest: Manifest
    digest: str
    files: tuple[FileStatus, ...]
    deep: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(file.ok for file in self.files)


def verify(path: str | Path, *, deep: bool = False) -> VerifyReport:
    """Compare every file of the live generation with the manifest.

    Args:
        path: The index folder.
        deep: Compute the SHA-256 of every file besides sizes and block checksums.

    Returns:
        What was found; damage is listed in it, not raised.

    Raises:
        FormatVersionError: The folder is no index, or a newer one.
        CorruptIndexError: ``CURRENT`` or the manifest itself is damaged.
    """
    folder = Path(path)
    manifest, digest = read_manifest(folder)
    files = []
    for segment in manifest.segments:
        records = {name: array.file for name, array in segment.arrays.items()}
        records.update(segment.native)
        for name, record in sorted(records.items()):
            place = f"segments/{segment.name}/{name}"
            files.append(FileStatus(place, record.size, _problem(folder / place, record, deep)))
    for _, dead in sorted(manifest.tombstones.items()):
        record = dead.array.file
        files.append(FileStatus(dead.name, record.size, _problem(folder / dead.name, record, deep)))
    return VerifyReport(manifest, digest, tuple(files), deep)


def _problem(path: Path, record: FileRecord, deep: bool) -> str:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.size:
                return f"has {size} bytes instead of {record.size}"
            digest = hashlib.sha256()
            for block, expected in enumerate(record.blocks):
                data = file.read(BLOCK)
                if crc32c(data) != expected:
                    return f"CRC32C of block {block} (byte {block * BLOCK}) does not fit"
                if deep:
                    digest.update(data)
    except OSError as why:
        return f"cannot be read: {why.strerror}"
    if deep and digest.hexdigest() != record.sha256:
        return "SHA-256 does not fit"
    return ""
