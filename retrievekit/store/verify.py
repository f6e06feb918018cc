"""Verifying an index on disk against its manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from retrievekit.store.files import BLOCK, FileRecord, crc32c
from retrievekit.store.manifest import CURRENT, Manifest, read_manifest


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
        leftovers: Paths below the index folder that the manifest does not name; no damage.
    """

    manifest: Manifest
    digest: str
    files: tuple[FileStatus, ...]
    deep: bool
    leftovers: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(file.ok for file in self.files)


def verify(path: str | Path, *, deep: bool = False, threads: int | None = None) -> VerifyReport:
    """Compare every file of the live generation with the manifest.

    Each thread reads one file at a time, a block of 1 MiB after the other.

    Args:
        path: The index folder.
        deep: Compute the SHA-256 of every file besides sizes and block checksums.
        threads: Files read at once; as many as there are cores by default.

    Returns:
        What was found; damage is listed in it, not raised.

    Raises:
        FormatVersionError: The folder is no index, or of a format that is not read.
        CorruptIndexError: ``CURRENT`` or the manifest itself is damaged.
    """
    folder = Path(path)
    manifest, digest = read_manifest(folder)
    records = files_of(manifest)

    def status(name: str) -> FileStatus:
        return FileStatus(name, records[name].size, _problem(folder / name, records[name], deep))

    # The largest first, so that no thread is left with one at the end.
    names = sorted(records, key=lambda name: -records[name].size)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        found = {file.name: file for file in pool.map(status, names)}
    files, leftovers = tuple(found[name] for name in records), tuple(_leftovers(folder, manifest))
    report = VerifyReport(manifest, digest, files, deep, leftovers)
    if not report.ok and read_manifest(folder)[1] != digest:
        return verify(folder, deep=deep, threads=threads)  # a writer has just replaced these files
    return report


def files_of(manifest: Manifest) -> dict[str, FileRecord]:
    """The files of a generation besides the manifest itself.

    Args:
        manifest: The manifest.

    Returns:
        What it says of each, by path below the index folder.
    """
    out = {}
    for segment in manifest.segments:
        records = {name: array.file for name, array in segment.arrays.items()}
        records.update(segment.native)
        for name, record in sorted(records.items()):
            out[f"segments/{segment.name}/{name}"] = record
    for _, dead in sorted(manifest.tombstones.items()):
        out[dead.name] = dead.array.file
    return out


def _leftovers(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is in the folder but not in the live manifest, a folder as one."""
    live = {folder / name for name in files_of(manifest)}
    live |= {parent for path in live for parent in path.parents}
    live |= {folder / name for name in (CURRENT, "lock", "segments", manifest.file_name)}
    todo = [folder]
    while todo:
        for path in sorted(todo.pop().iterdir()):
            if path not in live:
                yield path.relative_to(folder).as_posix() + ("/" if path.is_dir() else "")
            elif path.is_dir():
                todo.append(path)


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
