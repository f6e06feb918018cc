"""Unpacking of zip archives that trusts nothing they say about themselves.

Refused: members that would land outside the folder (absolute paths, drive letters, ``..``), links,
devices and other special files, two members of one name, encrypted members. What comes out is
counted while it is read, never taken from a header: total bytes, members and the ratio to the bytes
read are capped. Files are written into a fresh folder beside the destination, which takes its name
only when everything is there.
"""

from __future__ import annotations

import io
import lzma
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from retrievekit.errors import DataError, LimitError

MAX_BYTES = 64 * 2**30
"""Bytes that may come out of one archive."""

MAX_MEMBERS = 10_000
"""Members that an archive may have."""

MAX_RATIO = 200
"""Bytes that may come out of one byte that was read."""

FREE_BYTES = 2**20
"""The ratio counts from here on: a few repeated lines may shrink as much as they like."""

_STEP = 2**20


class CappedReader(io.RawIOBase):
    """A stream that stops with an error once it has given more than it may.

    Args:
        stream: The decompressed bytes.
        taken: Tells how many compressed bytes went in.
        what: How the message calls the source.
        max_bytes: Bytes that may come out, or None for any number.
        max_ratio: Bytes that may come out per byte that went in, beyond the first `FREE_BYTES`.
    """

    def __init__(
        self,
        stream: IO[bytes],
        taken: Callable[[], int],
        what: str,
        *,
        max_bytes: int | None = None,
        max_ratio: float = MAX_RATIO,
    ) -> None:
        self._stream = stream
        self._taken = taken
        self._what = what
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._given = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 bytes mean the end.

        Args:
            buffer: Where the bytes go.

        Returns:
            How many bytes there were.
        """
        block = self._stream.read(min(len(buffer), _STEP))
        buffer[: len(block)] = block
        self._given += len(block)
        check_size(self._what, self._given, self._taken(), self._max_bytes, self._max_ratio)
        return len(block)

    def close(self) -> None:
        """Close the stream underneath too."""
        try:
            self._stream.close()
        finally:
            super().close()


def check_size(what: str, given: int, taken: int, max_bytes: int | None, max_ratio: float) -> None:
    """Raise when a decompressor has given more than it may.

    Args:
        what: How the message calls the source.
        given: Bytes that came out so far.
        taken: Compressed bytes that went in so far.
        max_bytes: Bytes that may come out, or None for any number.
        max_ratio: Bytes that may come out per byte that went in, beyond the first `FREE_BYTES`.

    Raises:
        LimitError: A cap was passed.
    """
    advice = "if that is right, unpack it yourself and give what is inside"
    if max_bytes is not None and given > max_bytes:
        raise LimitError(f"{what}: more than {max_bytes:,} bytes come out of it; {advice}")
    if given > FREE_BYTES and given > max_ratio * taken:
        raise LimitError(
            f"{what}: {given:,} bytes came out of {taken:,}, more than {max_ratio:g} to 1, as in a "
            f"decompression bomb; {advice}"
        )


def extract(
    archive: Path,
    destination: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    max_ratio: float = MAX_RATIO,
) -> list[Path]:
    """Unpack a zip archive into a new folder.

    Args:
        archive: The archive.
        destination: The folder to make; it must not exist.
        max_bytes: Bytes that may come out in all.
        max_members: Members that it may have.
        max_ratio: Bytes that may come out per byte of the archive.

    Returns:
        The files, relative to `destination`, in the archive's order.

    Raises:
        DataError: It is no zip archive, is damaged, holds a member that is refused, or
            `destination` exists; a `LimitError` when a cap was passed. Nothing is left behind.
    """
    if destination.exists() or destination.is_symlink():
        raise DataError(f"{destination} is there already; remove it to unpack {archive} again")
    destination.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        writer = _Writer(archive, work / "out", max_bytes, max_members, max_ratio)
        with _damage_named(archive):
            _unzip(archive, writer)
        writer.root.replace(destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return writer.files


class _Writer:
    """Checks names and writes members below one fresh folder."""

    def __init__(
        self, archive: Path, root: Path, max_bytes: int, max_members: int, max_ratio: float
    ) -> None:
        self.archive = archive
        self.root = root
        self.max_bytes = max_bytes
        self.max_members = max_members
        self.max_ratio = max_ratio
        self.files: list[Path] = []
        self._written = 0
        self._members = 0
        self._size = archive.stat().st_size
        self._kinds: dict[str, str] = {}
        root.mkdir()

    def refused(self, name: str, why: str) -> DataError:
        return DataError(f"{self.archive}: refused, since its member {name!r} {why}")

    def folder(self, name: str) -> None:
        self._place(name.rstrip("/"), "folder").mkdir(parents=True, exist_ok=True)

    def file(self, name: str, stream: IO[bytes]) -> None:
        path = self._place(name, "file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            while block := stream.read(_STEP):
                self._written += len(block)
                # Members may overlap (one compressed body under many names), so what counts is all
                # that came out against the archive as it lies on disk.
                check_size(
                    str(self.archive), self._written, self._size, self.max_bytes, self.max_ratio
                )
                out.write(block)
        self.files.append(path.relative_to(self.root))

    def _place(self, name: str, kind: str) -> Path:
        """Where a member goes; raises when its name is refused."""
        self._members += 1
        if self._members > self.max_members:
            raise LimitError(f"{self.archive}: more than {self.max_members:,} members")
        parts = name.split("/")
        if name.startswith("/"):
            raise self.refused(name, "has an absolute path")
        if "\\" in name or ":" in name or "\0" in name:
            raise self.refused(name, "has a backslash, colon or NUL in its path")
        if ".." in parts:
            raise self.refused(name, "would land outside the folder ('..')")
        parts = [part for part in parts if part not in ("", ".")]
        if not parts:
            if kind == "folder":
                return self.root
            raise self.refused(name, "has no name")
        for depth in range(1, len(parts)):
            if self._kinds.setdefault(_key(parts[:depth]), "folder") == "file":
                raise self.refused(name, "lies below a member that is a file")
        if self._kinds.get(_key(parts), kind) != kind or (
            kind == "file" and _key(parts) in self._kinds
        ):
            raise self.refused(name, "comes twice")
        self._kinds[_key(parts)] = kind
        return self.root.joinpath(*parts)


def _key(parts: list[str]) -> str:
    # Names that differ only in case or in Unicode form are one file on some systems.
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()


def _unzip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = member.orig_filename
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refused(name, f"is {_KINDS.get(kind, 'a special file')}")
            if member.flag_bits & 1:
                raise writer.refused(name, "is encrypted")
            if name.endswith("/") or kind == stat.S_IFDIR:
                writer.folder(name)
            else:
                with opened.open(member) as stream:
                    writer.file(name, stream)


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
}


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    """Turn what decompressors raise over damaged bytes into one error that names the archive."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        UnicodeDecodeError,
    ) as why:
        raise DataError(
            f"{archive}: not a zip archive that can be read, or damaged ({why}); fetch it again"
        ) from why
