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

from retrievekit.errors import IndexExistsError, RetrieveKitError, StoreError
from retrievekit.store.files import Files, files_in_use, naming_space, read_bytes
from retrievekit.store.manifest import (
    CURRENT,
    Manifest,
    TombstoneRecord,
    current_bytes,
    read_manifest,
)
from retrievekit.store.segment import ArrayWriter, SegmentWriter
from retrievekit.store.shards import FOLDER as SHARDS
from retrievekit.store.shards import ShardFolder, strangers_in
from retrievekit.store.verify import files_of

log = logging.getLogger(__name__)

_OWN_NAME = re.compile(
    rf"CURRENT|CURRENT\.new|lock|segments|{SHARDS}|manifest-\d{{6,}}\.json|deleted-\d{{6,}}-\d{{2,}}-\d+"
)
_SEGMENT_NAME = re.compile(r"\d{6,}-\d{2,}")


class Transaction:
    """One writer's work on an index folder, from the lock to the commit.

    Used as a context manager: leaving it without `publish` leaves the index as it was.

    Args:
        folder: The index folder, made when missing.
        overwrite: Whether an index that is there may be replaced by a new one.
        resume: Whether shards that interrupted writers left are used; otherwise they are removed.
        files: The operating system.

    Raises:
        IndexExistsError: An index is there and `overwrite` is false, or the folder holds files
            that are not an index's.
        LockedError: Another writer is at work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        resume: bool = True,
        files: Files | None = None,
    ) -> None:
        self.folder = folder
        self.files = files or files_in_use()
        if folder.exists() and not folder.is_dir():
            raise IndexExistsError(f"{folder}: is a file; give a folder for the index")
        if folder.is_dir():
            strangers = [] if _is_index(folder) else _strangers(folder)
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
            self.shards: ShardFolder | None = ShardFolder(folder / SHARDS, self.files)
            if not resume:
                self.shards.clear()
        except BaseException:
            self._lock.release()
            raise
        self._segments: list[SegmentWriter] = []
        self.published = False
        self._prepared: tuple[Manifest, bytes] | None = None
        self.adds = False
        """Whether documents were written, so that no shard is needed after the commit."""

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
        writer = SegmentWriter(folder, self.files, self.shards)
        self._segments.append(writer)
        return writer

    def drop(self, segment: SegmentWriter) -> None:
        """Give a segment up and remove what was written of it.

        Args:
            segment: Its writer.
        """
        segment.abort()
        try:
            self.files.remove(segment.folder)
        except OSError as why:
            # Why it is given up is what the caller must hear of; a vacuum removes the rest.
            log.warning("%s: could not be removed: %s", segment.folder, why)

    def prepare(self, make: Callable[[int], Manifest]) -> None:
        """Write the manifest; nothing is visible yet.

        Args:
            make: Gives the manifest for a generation number.
        """
        manifest = make(self.generation)
        data = manifest.to_bytes()
        path = self.folder / manifest.file_name
        self._check_own()
        with naming_space(self.folder):
            if not (self.folder / CURRENT).exists():
                self.files.sync_folder(self.folder.parent)  # the folder's own name
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
            StoreError: The disk is full, or failed between the rename and its sync; the message
                says which generation is in place.
        """
        if self._prepared is None:
            raise RuntimeError("publish() needs prepare() first")
        self._check_own()
        manifest, data = self._prepared
        self._check_whole(manifest)
        current = current_bytes(manifest.file_name, data)
        try:
            with naming_space(self.folder):
                self.files.replace(self.folder / CURRENT, current)
        except OSError as why:
            if not _holds(self.folder / CURRENT, current):
                raise
            self.published = True
            raise StoreError(
                why.errno,
                f"{self.folder}: generation {manifest.generation} is in place, but the disk did "
                f"not confirm it ({why.__cause__ or why}); it holds unless the power goes before "
                "the next commit, and then the former one does",
            ) from why
        self.published = True
        try:
            remove_orphans(self.folder, manifest, self.files)
            if self.adds and self.shards is not None:
                self.shards.clear()
        except OSError as why:
            # The commit stands; what is left goes with the next one.
            log.warning("%s: committed, but old files could not be removed: %s", self.folder, why)
        return manifest

    def _check_own(self) -> None:
        """Raise where another writer may be at work in spite of the lock."""
        if not self._lock.held:
            raise StoreError(
                f"{self.folder}: this update has lost its lock: it was forked, or the lock file "
                "was removed; nothing was committed. Start another update"
            )

    def _check_whole(self, manifest: Manifest) -> None:
        """Raise when a file is missing that the new generation names."""
        for name, record in files_of(manifest).items():
            path = self.folder / name
            if not path.exists() or path.stat().st_size != record.size:
                raise StoreError(
                    f"{path}: missing or cut since it was written; nothing was committed. "
                    "Something else changes files of this index; start another update"
                )

    def discard(self) -> None:
        """Remove what was written for a generation that will not be published."""
        if not self._lock.held:  # what lies there may be another writer's
            return
        for segment in self._segments:
            self.drop(segment)
        if not (self.folder / CURRENT).exists():
            return
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
        """Give the lock back."""
        self.close()

    def close(self) -> None:
        """Close files that a failure left open, and give the lock back."""
        for segment in self._segments:
            segment.abort()
        self._lock.release()


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_bytes(path, len(data)) == data
    except OSError:
        return False


def remove_orphans(folder: Path, manifest: Manifest, files: Files) -> int:
    """Remove all of an index's own files that the live generation does not use, and nothing else.

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
    beside = [*folder.glob("manifest-*.json"), *folder.glob("deleted-*"), *folder.glob("*.new")]
    beside = [p for p in beside if _OWN_NAME.fullmatch(p.name)]
    orphans = [p for p in segments + beside if p.name not in live]
    for path in orphans:
        files.remove(path)
    return len(orphans)


def vacuum(folder: Path, files: Files | None = None) -> int:
    """Remove what interrupted writers left behind, the shards they had finished included.

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
        shards = ShardFolder(folder / SHARDS, files).clear()
        return remove_orphans(folder, manifest, files) + shards


def _strangers(folder: Path) -> list[str]:
    names = [p.name for p in folder.iterdir() if not _OWN_NAME.fullmatch(p.name)]
    segments = folder / "segments"
    if segments.is_dir():
        inside = [p.name for p in segments.iterdir() if not _SEGMENT_NAME.fullmatch(p.name)]
        names += [f"segments/{name}" for name in inside]
    names += [f"{SHARDS}/{name}" for name in strangers_in(folder / SHARDS)]
    return sorted(names)


def _is_index(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except RetrieveKitError:
        return False
    return True


def _refuse_existing(folder: Path, overwrite: bool) -> None:
    if not overwrite and not (folder / CURRENT).exists() and _used_numbers(folder, 2):
        raise IndexExistsError(
            f"{folder}: an index was here and its file {CURRENT} is missing; restore it from a "
            "copy, or say overwrite to give the index up"
        )
    if (folder / CURRENT).exists() and not overwrite:
        raise IndexExistsError(
            f"{folder}: an index is there already; say overwrite to replace it, or give "
            "another folder"
        )


def _next_generation(folder: Path) -> int:
    try:
        manifest, _ = read_manifest(folder)
    except RetrieveKitError:
        if not (folder / CURRENT).exists():
            return 1  # nobody has seen anything of it, so a build begun again is the same build
        # A damaged index is being replaced: stay above every number in use.
        return max(_used_numbers(folder, 1), default=0) + 1
    return manifest.generation + 1


def _used_numbers(folder: Path, least: int) -> list[int]:
    """Generations from `least` of which a manifest is there; only a commit makes a second one."""
    stems = (p.stem[9:] for p in folder.glob("manifest-*.json"))
    return [number for number in map(int, filter(str.isdigit, stems)) if number >= least]
