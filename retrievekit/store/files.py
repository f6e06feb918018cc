"""The one place that knows the operating system: writing, syncing, renaming, locking, mapping.

Every byte that an index writes goes through a `Files`, so that a failing twin can stand in for it
in tests. A file is written once and never changed: `Writer` counts its bytes and takes a CRC32C of
each block of 1 MiB and a SHA-256 of the whole on the way, which the manifest records. Rename is
followed by a sync of the folder, without which the rename itself may be lost with the power.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import fcntl
import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import LockedError, StoreError

BLOCK = 1 << 20
"""Bytes that share one CRC32C."""

SMALLEST_FILE = 4096
"""Bytes that a new name or an empty file takes on most disks."""


def crc32c(data: bytes | memoryview) -> int:
    """The CRC32C (Castagnoli) of some bytes.

    Args:
        data: Read-only bytes.

    Returns:
        An unsigned 32-bit integer.
    """
    # A copy costs less than it seems: for `bytes` alone the interpreter lock is given back.
    value: int = google_crc32c.value(bytes(data))
    return value


@dataclass(frozen=True)
class FileRecord:
    """What the manifest knows of a file.

    Args:
        size: Bytes.
        sha256: Hexadecimal digest of the whole.
        blocks: CRC32C of each block of `BLOCK` bytes, the last one possibly shorter.
    """

    size: int
    sha256: str
    blocks: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return {"size": self.size, "sha256": self.sha256, "crc32c": list(self.blocks)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> FileRecord:
        """Rebuild a record from plain JSON.

        Args:
            record: What `to_dict` gave.

        Returns:
            The record.

        Raises:
            ValueError: There is not one checksum per block.
        """
        size, blocks = record["size"], tuple(record["crc32c"])
        if len(blocks) != -(-size // BLOCK):
            raise ValueError(f"{len(blocks)} block checksums for {size} bytes")
        return cls(size, record["sha256"], blocks)


class Writer:
    """A new file that checks itself while it is written; `close` syncs it and gives its record.

    Args:
        path: The file, which must not exist.
        files: The operating system that syncs it; the real one by default.
    """

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self._files = files or Files()
        self._file = open(path, "xb", buffering=BLOCK)  # noqa: SIM115 - closed by `close`
        self._sha = hashlib.sha256()
        self._blocks: list[int] = []
        self._rest = bytearray()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append some bytes.

        Args:
            data: The bytes.
        """
        data = memoryview(data).cast("B")
        with self._room_for(len(data)):
            self._file.write(data)
        self._sha.update(data)
        self.size += len(data)
        self._rest += data
        whole = len(self._rest) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self._blocks.append(crc32c(bytes(self._rest[start : start + BLOCK])))
        del self._rest[:whole]

    def write_array(self, array: NDArray[Any]) -> None:
        """Append an array of any shape and dtype in C order, little-endian.

        Args:
            array: The array, of any dtype and shape, such as ``(n, d)``.
        """
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        if plain.nbytes:
            self.write(plain.data.cast("B"))

    def close(self) -> FileRecord:
        """Write what is left, sync it to the disk, and close.

        Returns:
            Size and checksums.
        """
        if self._rest:
            self._blocks.append(crc32c(bytes(self._rest)))
            self._rest.clear()
        with self._room_for(0):
            self._file.flush()
            self._files.sync_file(self._file.fileno(), self.path)
        self._file.close()
        return FileRecord(self.size, self._sha.hexdigest(), tuple(self._blocks))

    @contextlib.contextmanager
    def _room_for(self, more: int) -> Iterator[None]:
        try:
            yield
        except OSError as why:
            if why.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            there = os.fstat(self._file.fileno()).st_size
            raise FullDiskError(self.path, max(self.size + more - there, 1)) from why

    def abort(self) -> None:
        """Close without syncing; the file is left for a vacuum."""
        with contextlib.suppress(OSError):
            self._file.close()


class Lock:
    """An exclusive lock on a folder's ``lock`` file, held until `release` or the process ends.

    The operating system drops the lock of a killed process, so a lock is never stale: a file that
    was left behind does not stand in the way. The file says who locked it last, for the message of
    whoever comes in vain; nothing else reads it.

    Args:
        path: The lock file, made when missing.

    Raises:
        LockedError: Another writer holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner = os.getpid()
        self._fd: int | None = None
        while not self.held:  # whoever removed the file meanwhile made room for another one
            self.release()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as why:
                holder = _holder(self._fd)
                os.close(self._fd)
                self._fd = None
                if why.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise LockedError(
                        f"{path.parent}: {holder}. The lock ends with its process; leave the file "
                        "where it is"
                    ) from why
                raise
        fd = cast(int, self._fd)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the name
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)

    @property
    def held(self) -> bool:
        """Whether this process still keeps others out: no fork of it, and the file still there."""
        if self._fd is None or os.getpid() != self._owner:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back; in a forked child only let go of it."""
        if self._fd is not None:
            if os.getpid() == self._owner:
                # Closing would not do: a forked child holds the same lock by its own descriptor.
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Lock:
        """The lock itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        self.release()


def _holder(fd: int) -> str:
    """Who a lock file says holds it, and what to do."""
    said = os.pread(fd, 200, 0).decode("ascii", "replace")
    found = _HOLDER.fullmatch(said)
    if found is None:
        return "another process is writing this index; wait for it to finish"
    if (int(found[1]), found[2]) == (os.getpid(), os.uname().nodename):
        return "this process has an update of it open already; commit it or roll it back"
    return (
        f"another process ({found[1]} on {found[2]}) is writing this index; wait for it to finish"
    )


class Files:
    """The real operating system."""

    def create(self, path: Path) -> Writer:
        """Start a new file.

        Args:
            path: Where; must not exist.

        Returns:
            Its writer.
        """
        return Writer(path, self)

    def sync_file(self, fd: int, path: Path) -> None:
        """Make the bytes of a file durable; each `Writer` calls it once, when it closes.

        Args:
            fd: The open file.
            path: The name that it was made under.
        """
        os.fsync(fd)

    def write(self, path: Path, data: bytes) -> FileRecord:
        """Write and sync a whole small file.

        Args:
            path: Where; must not exist.
            data: Its bytes.

        Returns:
            Size and checksums.
        """
        writer = self.create(path)
        try:
            writer.write(data)
            return writer.close()
        except BaseException:
            writer.abort()
            raise

    def replace(self, path: Path, data: bytes) -> None:
        """Replace a small file by one atomic rename, durably.

        Args:
            path: The file, which may exist.
            data: Its new bytes.
        """
        fresh = path.with_name(path.name + ".new")
        self.remove(fresh)
        self.write(fresh, data)
        self.rename(fresh, path)
        self.sync_folder(path.parent)

    def rename(self, source: Path, target: Path) -> None:
        """Rename within a folder, replacing the target.

        Args:
            source: The old name.
            target: The new name.
        """
        os.replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable.

        Args:
            folder: The folder.
        """
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents, where they are missing, durably.

        Args:
            folder: The folder.
        """
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        self.sync_folder(folder.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all it holds; nothing happens when it is not there.

        Args:
            path: The file or folder.
        """
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def lock(self, folder: Path) -> Lock:
        """Take a folder's writer lock.

        Args:
            folder: The index folder.

        Returns:
            The lock.
        """
        return Lock(folder / "lock")


_HOLDER = re.compile(r"process (\d{1,10}) on ([\w.-]{1,100})\n")

_in_use: contextvars.ContextVar[Files | None] = contextvars.ContextVar("files", default=None)


def files_in_use() -> Files:
    """The operating system that indexes are written through: the real one, unless in a test."""
    return _in_use.get() or Files()


def use_files(files: Files) -> contextvars.Token[Files | None]:
    """Write indexes of this thread through another system.

    Args:
        files: The system.

    Returns:
        A token that puts the former one back: ``token.var.reset(token)``.
    """
    return _in_use.set(files)


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole small file.

    Args:
        path: The file.
        limit: Bytes it may have at most, so that a damaged name cannot exhaust the memory.

    Returns:
        Its bytes.

    Raises:
        StoreError: It is larger.
    """
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StoreError(f"{path}: larger than the {limit} bytes that such a file may have")
    return data


READ_WHOLE = 1 << 16
"""Files up to this size are read instead of mapped: a mapping holds a descriptor."""


def map_file(path: Path) -> memoryview:
    """Map a file into memory, or read it if it is small; the bytes outlive the file's name.

    Args:
        path: The file.

    Returns:
        Its bytes, read-only.

    Raises:
        StoreError: This process has too many files open.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= READ_WHOLE:
                return memoryview(file.read())
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as why:
        if why.errno != errno.EMFILE:
            raise
        raise StoreError(
            why.errno,
            f"{path}: this process has too many files open; compact the index, which leaves one "
            "segment, or raise the limit (ulimit -n)",
        ) from why


def bytes_left(data: memoryview) -> int:
    """How many bytes of a file that was mapped can still be read.

    Touching a page behind the end of a file that was cut short ends the process.

    Args:
        data: What `map_file` gave.

    Returns:
        The file's size on disk now; of a file that was read, the bytes that were.
    """
    return data.obj.size() if isinstance(data.obj, mmap.mmap) else len(data)


class FullDiskError(OSError):
    """A write that found no room, and how much it needed.

    Args:
        path: The file.
        needed: Bytes that could not be written.
    """

    def __init__(self, path: Path, needed: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.needed = needed


@contextlib.contextmanager
def naming_space(folder: Path) -> Iterator[None]:
    """Turn a full disk into an error that names the folder, the bytes, and what to do.

    Args:
        folder: Where is being written.

    Raises:
        StoreError: The disk is full.
    """
    try:
        yield
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(why, StoreError):
            there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
            free = shutil.disk_usage(there).free
            needed = why.needed if isinstance(why, FullDiskError) else SMALLEST_FILE
            raise StoreError(
                errno.ENOSPC,
                f"{folder}: the disk is full: at least {needed:,} bytes more are needed, {free:,} "
                "are free; nothing was committed, the index is as it was. Free some space and try "
                "again",
            ) from why
        raise
