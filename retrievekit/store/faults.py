"""`FaultFS`: an operating system that fails or crashes where a test tells it to.

Each write, sync, rename, removal and new name is one numbered step. At a chosen step the process
"crashes" (`SimulatedCrash`, and every later step crashes too) or an operation fails with an error
number. After a crash, `power_loss` takes away what was never synced: the content of files, and the
names of files and folders whose folder was not synced after they were made. What remains on disk
is what the next process would find. Removals are taken to be durable at once.
"""

from __future__ import annotations

import contextvars
import errno
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from retrievekit.store.files import Files, Lock, Writer, use_files


class SimulatedCrash(BaseException):
    """The process is gone; nothing may catch this and carry on."""


class _FaultWriter(Writer):
    def __init__(self, path: Path, system: FaultFS) -> None:
        system.step("create", path)
        super().__init__(path, system)
        self._system = system
        system.unsynced[path] = self
        system.fresh_names.append((path, partial(path.unlink, missing_ok=True)))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        with self._room_for(len(memoryview(data).cast("B"))):
            self._system.step("write", self.path)
        super().write(data)


class FaultFS(Files):
    """The failing twin of `Files`; inside its ``with`` block every index is written through it.

    Args:
        crash_at: Number of the step, from 1, at which the process crashes.
        fail_at: Number of the step at which an operation fails with `error`.
        error: The error number, such as ``errno.ENOSPC``.
        lasting: Whether steps after `fail_at` fail too.
        lost: What becomes of unsynced files at a power loss: ``drop`` removes them; the others
            keep their names, as a file system may that writes names before content: ``truncate``
            with the first half of the content, ``zero`` with zeros for all of it.
    """

    def __init__(
        self,
        *,
        crash_at: int | None = None,
        fail_at: int | None = None,
        error: int = errno.EIO,
        lasting: bool = False,
        lost: Literal["drop", "truncate", "zero"] = "drop",
    ) -> None:
        self.crash_at = crash_at
        self.fail_at = fail_at
        self.error = error
        self.lasting = lasting
        self.lost = lost
        self.steps: list[tuple[str, str]] = []
        self.crashed = False
        self.unsynced: dict[Path, Writer] = {}
        """Files whose content is not durable, by the name that they have now."""
        self.fresh_names: list[tuple[Path, Callable[[], object]]] = []
        """Names that are not durable, in the order they were made, with what undoes each."""
        self._locks: list[Lock] = []
        self._token: contextvars.Token[Any] | None = None

    def step(self, what: str, path: Path) -> None:
        """Count a step, and crash or fail when it is its turn.

        Args:
            what: The operation.
            path: What it is done to.

        Raises:
            SimulatedCrash: The process crashes here, or did before.
            OSError: The operation fails here.
        """
        if self.crashed:
            raise SimulatedCrash(f"{what} {path.name} after the crash")
        self.steps.append((what, path.name))
        number = len(self.steps)
        if number == self.crash_at:
            self.crashed = True
            for lock in self._locks:  # as the operating system does for a dead process
                lock.release()
            raise SimulatedCrash(f"step {number}: {what} {path.name}")
        if self.fail_at is not None and (
            number == self.fail_at or (self.lasting and number > self.fail_at)
        ):
            raise OSError(self.error, os.strerror(self.error), str(path))

    def power_loss(self) -> None:
        """Take away what was not synced, as a lost power supply may."""
        for writer in self.unsynced.values():
            writer.abort()  # or its buffer would reach the disk after the loss
        for path, undo in reversed(self.fresh_names):
            if not self._named_first(path):
                undo()
        for path in self.unsynced:
            if path.exists():
                size = path.stat().st_size
                if self.lost == "drop":
                    path.unlink()
                elif self.lost == "truncate":
                    os.truncate(path, size // 2)
                else:
                    path.write_bytes(bytes(size))
        self.fresh_names.clear()
        self.unsynced.clear()

    def _named_first(self, path: Path) -> bool:
        """Whether a fresh name outlives a power loss: an unsynced file's, or a folder's of one."""
        return self.lost != "drop" and any(
            file == path or path in file.parents for file in self.unsynced
        )

    def create(self, path: Path) -> Writer:
        """Start a new file."""
        return _FaultWriter(path, self)

    def sync_file(self, fd: int, path: Path) -> None:
        """Make the bytes of a file durable; without this call a power loss takes them."""
        self.step("sync", path)
        super().sync_file(fd, path)
        synced = os.fstat(fd)  # by what it is: it may have another name by now
        for name in list(self.unsynced):
            if name.exists() and os.path.samestat(name.stat(), synced):
                self.unsynced.pop(name, None)

    def rename(self, source: Path, target: Path) -> None:
        """Rename within a folder; undone by a power loss until the folder is synced."""
        self.step("rename", target)
        before = target.read_bytes() if target.exists() else None
        moved = source.read_bytes()
        super().rename(source, target)
        replaced = self.unsynced.pop(target, None)
        if source in self.unsynced:
            self.unsynced[target] = self.unsynced.pop(source)

        def undo() -> None:
            if source.parent.is_dir():
                source.write_bytes(moved)
            if before is None:
                target.unlink(missing_ok=True)
            else:
                target.write_bytes(before)
            if target in self.unsynced:
                self.unsynced[source] = self.unsynced.pop(target)
            if replaced is not None:
                self.unsynced[target] = replaced

        self.fresh_names.append((target, undo))

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        self.step("sync folder", folder)
        super().sync_folder(folder)
        self.fresh_names = [item for item in self.fresh_names if item[0].parent != folder]

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents; a power loss takes those whose parent was not synced."""
        if not folder.is_dir():
            self.step("make folder", folder)
            # Before they are made: the sync that makes them durable is part of making them.
            for path in (*reversed(folder.parents), folder):
                if not path.is_dir():
                    undo = partial(shutil.rmtree, path, ignore_errors=True)
                    self.fresh_names.append((path, undo))
        super().make_folder(folder)

    def remove(self, path: Path) -> None:
        """Remove a file or folder."""
        if path.exists():
            self.step("remove", path)
        super().remove(path)
        self.fresh_names = [item for item in self.fresh_names if path not in item[0].parents]
        for file in list(self.unsynced):  # a merge may go on in another thread
            if file == path or path in file.parents:
                self.unsynced.pop(file, None)

    def lock(self, folder: Path) -> Lock:
        """Take a folder's writer lock; a crash gives it back."""
        lock = super().lock(folder)
        self._locks.append(lock)
        return lock

    def __enter__(self) -> FaultFS:
        """Write every index of this thread through this system."""
        self._token = use_files(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Put the real system back."""
        if self._token is not None:
            self._token.var.reset(self._token)
            self._token = None
