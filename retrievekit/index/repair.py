"""Repairing an index: what is damaged is computed again from what is not.

Nothing is guessed. A file is put in place, by one atomic rename, only when it has the size and
SHA-256 that the manifest gives; what cannot be computed again is reported with what to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.index.base import Index
from retrievekit.index.derived import Derivation
from retrievekit.store.files import Files, files_in_use, naming_space
from retrievekit.store.manifest import SegmentRecord, read_manifest
from retrievekit.store.segment import ArrayWriter, Generation, SegmentReader
from retrievekit.store.verify import verify


@dataclass(frozen=True)
class RepairedFile:
    """What became of one file.

    Args:
        name: Its path below the index folder.
        size: The bytes it should have.
        state: ``ok`` before already, ``repaired``, or still ``damaged``.
        problem: What was found wrong with it; for a damaged one also what to do.
    """

    name: str
    size: int
    state: Literal["ok", "repaired", "damaged"]
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it now."""
        return self.state != "damaged"


@dataclass(frozen=True)
class RepairReport:
    """What became of an index.

    Args:
        files: One entry per file of the live generation.
        leftovers: Paths below the index folder that the manifest does not name; no damage.
    """

    files: tuple[RepairedFile, ...]
    leftovers: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now."""
        return all(file.ok for file in self.files)


def repair(path: str | Path) -> RepairReport:
    """Verify an index deeply, and compute damaged files again where they follow from others.

    Args:
        path: The index folder.

    Returns:
        What was found and done.

    Raises:
        FormatVersionError: The folder is no index, or of a format that is not read.
        CorruptIndexError: ``CURRENT`` or the manifest itself is damaged; nothing can be repaired.
        LockedError: A writer is at work.
        UnknownNameError: The index's kind is not one of this version's.
        StoreError: The disk is full; the index is as it was, or better.
    """
    folder = Path(path)
    files = files_in_use()
    read_manifest(folder)
    with files.lock(folder), naming_space(folder):
        found = verify(folder, deep=True)
        problems = {file.name: file.problem for file in found.files if not file.ok}
        advice: dict[str, str] = {}
        if problems:
            # A name such as an interrupted update leaves: the next update or vacuum clears it away.
            scratch = folder / "segments" / f"{found.manifest.generation + 1:06d}-00"
            kind = registry.resolve("index", found.manifest.kind)
            index: Index = kind(Generation(folder, found.manifest, found.digest, ()))
            try:
                for segment in found.manifest.segments:
                    place = f"segments/{segment.name}/"
                    damaged = {n.removeprefix(place) for n in problems if n.startswith(place)}
                    if damaged:
                        work = _Segment(index, segment, damaged, scratch, files)
                        work.repair()
                        advice |= {place + n: work.advice(n) for n in work.damaged}
            finally:
                with contextlib.suppress(OSError):
                    files.remove(scratch)
    out = []
    for file in found.files:
        if file.ok:
            out.append(RepairedFile(file.name, file.size, "ok"))
        elif file.name in advice or not file.name.startswith("segments/"):
            told = f"{file.problem}; {advice.get(file.name, _NO_WAY)}"
            out.append(RepairedFile(file.name, file.size, "damaged", told))
        else:
            out.append(RepairedFile(file.name, file.size, "repaired", file.problem))
    return RepairReport(tuple(out), found.leftovers)


_RESTORE = "restore it from a copy of the index, or build the index again"
_NO_WAY = f"it does not follow from other files: {_RESTORE}"


class _Segment:
    """The repair of one segment."""

    def __init__(
        self, index: Index, record: SegmentRecord, damaged: set[str], scratch: Path, files: Files
    ) -> None:
        self.index = index
        self.record = record
        self.damaged = damaged
        self.folder = index.path / "segments" / record.name
        self._scratch = scratch
        self._files = files
        self._tried: set[tuple[str, ...]] = set()

    def repair(self) -> None:
        """Compute files again until nothing more follows from what is intact."""
        while (derivation := self._next()) is not None:
            self._tried.add(derivation.sources + derivation.makes)
            self._files.remove(self._scratch)
            self._files.make_folder(self._scratch)
            made = derivation.compute(self._scratch / "work")
            for name in sorted(self.damaged & set(derivation.makes)):
                if self._placed(name, made[name]):
                    self.damaged.remove(name)

    def _next(self) -> Derivation | None:
        for derivation in self._derivations():
            new = derivation.sources + derivation.makes not in self._tried
            wanted = self.damaged & set(derivation.makes)
            if new and wanted and not self.damaged & set(derivation.sources):
                return derivation
        return None

    def _derivations(self) -> Iterable[Derivation]:
        intact = {*self.record.arrays, *self.record.native} - self.damaged
        return self.index.derived(SegmentReader(self.folder, self.record, only=intact))

    def _placed(self, name: str, content: NDArray[Any] | bytes) -> bool:
        """Put a file in place if it is what was written."""
        fresh = self._scratch / name
        if isinstance(content, bytes):
            same = self._files.write(fresh, content) == self.record.native[name]
        else:
            record = self.record.arrays[name]
            writer = ArrayWriter(
                self._files.create(fresh), np.dtype(record.dtype), tuple(record.shape[1:])
            )
            try:
                writer.append(content)
                same = writer.close() == record
            except BaseException:
                writer.abort()
                raise
        if same:
            self._files.rename(fresh, self.folder / name)
            self._files.sync_folder(self.folder)
        return same

    def advice(self, name: str) -> str:
        """What to do about a file that is still damaged."""
        ways = [d for d in self._derivations() if name in d.makes]
        missing = {source for way in ways for source in way.sources if source in self.damaged}
        if not ways:
            return _NO_WAY
        if missing:
            return (
                f"it would follow from {' and '.join(sorted(missing))}, but that is damaged too: "
                "restore either from a copy of the index, or build the index again"
            )
        return f"what follows from other files is not what was written: {_RESTORE}"
