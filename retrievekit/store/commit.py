"""Writing a generation: segment files, sync, manifest, sync, rename ``CURRENT``, sync the folder.

`prepare` does all the work that can fail; `publish` is one rename. Until it returns, readers see
the old generation, and a crash at any point leaves either the old or the new one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import IndexExistsError, RetrieveKitError
from retrievekit.store.files import Files, files_in_use, naming_space
from retrievekit.store.manifest import (
    CURRENT,
    Manifest,
    TombstoneRecord,
    current_bytes,
    read_manifest,
)
from retrievekit.store.segment import ArrayWriter, SegmentWriter

log = logging.getLogger(__name__)

_OWN_NAME = re.compile(
    r"CURRENT|CURRENT\.new|lock|segments|manifest-\d{6,}\.json|deleted-\d{6,}-\d{2,}-\d+"
)
_SEGMENT_NAME = re.compile(r"\d{6,}-\d{2,}")


class Transaction:
    """One writer's work on an index folder, from the lock to the commit.

    Used as a context manager: leaving it without `commit` leaves the index as it was.

    Args:
        folder: The index folder, made when missing.
        overwrite: Whether an index that is there may be replaced by a new one.
        files: The operating system.

    Raises:
        IndexExistsError: An index is there and `overwrite` is false, or the folder holds files
            that are not an index's.
        LockedError: Another writer is at work.
    """

    def __init__(
        self, folder: Path, *, overwrite: bool = False, files: Files | None = None
    ) -> None:
        self.folder = folder
        self.files = files or files_in_use()
        if folder.exists() and not folder.is_dir():
            raise IndexExistsError(f"{folder}: is a file; give a folder for the index")
        if folder.is_dir():
            strangers = _strangers(folder)
            if strangers:
                raise IndexExistsError(
                    f"{folder}: holds files that are not an index's ({strangers[0]!r}); "
                    "give an empty or new folder"
                )
            _refuse_existing(folder, overwrite)
        self.files.make_folder(folder / "segments")
        self._lock = self.files.lock(folder)
        try:
            # Once more under the lock: another writer may have committed just now.
            _refuse_existing(folder, overwrite)
            self.generation = _next_generation(folder)
        except BaseException:
            self._lock.release()
            raise
        self._segments: list[SegmentWriter] = []
        self._prepared: tuple[Manifest, bytes] | None = None

    def tombstones(self, segment: str, dead: NDArray[np.bool_]) -> TombstoneRecord:
        """Write which rows of a segment are deleted.

        Args:
            segment: The segment's name.
            dead: bool ``(documents,)``.

        Returns:
            The record for the manifest.
        """
        # Deletions only grow, so the count tells the live file from the next one.
        deleted = int(dead.sum())
        path = self.folder / f"deleted-{segment}-{deleted}"
        self.files.remove(path)
        writer = ArrayWriter(self.files.create(path), np.dtype(np.uint8), ())
        try:
            writer.append(np.packbits(dead))
            return TombstoneRecord(path.name, deleted, writer.close())
        except BaseException:
            writer.abort()
            raise

    def segment(self) -> SegmentWriter:
        """Start a new segment.

        Returns:
            Its writer.
        """
        place = len(self._segments)
        folder = self.folder / "segments" / f"{self.generation:06d}-{place:02d}"
        self.files.remove(folder)
        writer = SegmentWriter(folder, self.files)
        self._segments.append(writer)
        return writer

    def prepare(self, make: Callable[[int], Manifest]) -> None:
        """Write the manifest; nothing is visible yet.

        Args:
            make: Gives the manifest for a generation number.
        """
        manifest = make(self.generation)
        data = manifest.to_bytes()
        path = self.folder / manifest.file_name
        with naming_space(self.folder):
            self.files.sync_folder(self.folder / "segments")
            self.files.remove(path)
            self.files.write(path, data)
            self.files.sync_folder(self.folder)
        self._prepared = (manifest, data)

    def publish(self) -> Manifest:
        """Make the prepared generation the live one, durably, and remove the old one's files.

        Returns:
            The live manifest.

        Raises:
            RuntimeError: Nothing was prepared.
        """
        if self._prepared is None:
            raise RuntimeError("publish() needs prepare() first")
        manifest, data = self._prepared
        with naming_space(self.folder):
            self.files.replace(self.folder / CURRENT, current_bytes(manifest.file_name, data))
        try:
            remove_orphans(self.folder, manifest, self.files)
        except OSError as why:
            # The commit stands; what is left goes with the next one.
            log.warning("%s: committed, but old files could not be removed: %s", self.folder, why)
        return manifest

    def discard(self) -> None:
        """Remove what was written for a generation that will not be published."""
        for segment in self._segments:
            segment.abort()
        try:
            manifest, _ = read_manifest(self.folder)
            remove_orphans(self.folder, manifest, self.files)
        except OSError as why:
            log.warning("%s: what was given up could not be removed: %s", self.folder, why)

    def __enter__(self) -> Transaction:
        """The transaction itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Give the lock back; close files that a failure left open."""
        if kind is not None:
            for segment in self._segments:
                segment.abort()
        self._lock.release()


def remove_orphans(folder: Path, manifest: Manifest, files: Files) -> int:
    """Remove all manifests and segments that the live generation does not use, and nothing else.

    Args:
        folder: The index folder.
        manifest: The live manifest.
        files: The operating system.

    Returns:
        How many files and folders were removed.
    """
    live = {segment.name for segment in manifest.segments}
    live.add(manifest.file_name)
    live |= {dead.name for dead in manifest.tombstones.values()}
    segments = [p for p in (folder / "segments").iterdir() if _SEGMENT_NAME.fullmatch(p.name)]
    beside = [*folder.glob("manifest-*.json"), *folder.glob("deleted-*")]
    beside = [p for p in beside if _OWN_NAME.fullmatch(p.name)]
    orphans = [p for p in segments + beside if p.name not in live]
    for path in orphans:
        files.remove(path)
    return len(orphans)


def vacuum(folder: Path, files: Files | None = None) -> int:
    """Remove what interrupted writers left behind.

    Args:
        folder: The index folder.
        files: The operating system.

    Returns:
        How many files and folders were removed.

    Raises:
        FormatVersionError: The folder is no index, or a newer one.
        CorruptIndexError: It is damaged.
        LockedError: A writer is at work.
    """
    files = files or files_in_use()
    read_manifest(folder)
    with files.lock(folder):
        manifest, _ = read_manifest(folder)
        return remove_orphans(folder, manifest, files)


def _strangers(folder: Path) -> list[str]:
    names = [p.name for p in folder.iterdir() if not _OWN_NAME.fullmatch(p.name)]
    segments = folder / "segments"
    if segments.is_dir():
        inside = [p.name for p in segments.iterdir() if not _SEGMENT_NAME.fullmatch(p.name)]
        names += [f"segments/{name}" for name in inside]
    return sorted(names)


def _refuse_existing(folder: Path, overwrite: bool) -> None:
    if (folder / CURRENT).exists() and not overwrite:
        raise IndexExistsError(
            f"{folder}: an index is there already; say overwrite to replace it, or give "
            "another folder"
        )


def _next_generation(folder: Path) -> int:
    try:
        manifest, _ = read_manifest(folder)
    except RetrieveKitError:
        # A damaged or unfinished index is being replaced: stay above every number in use.
        used = [int(p.stem[9:]) for p in folder.glob("manifest-*.json") if p.stem[9:].isdigit()]
        return max(used, default=0) + 1
    return manifest.generation + 1
