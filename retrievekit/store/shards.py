"""Shards: arrays that took long to compute, kept on disk until the commit that they are for.

A shard is found by its key, a digest of all that its arrays depend on, so that work which was
interrupted finds what it had finished, and changed work finds nothing. One file holds one shard:

- ``retrievekit shard 1`` and a line end;
- the length of the header as uint32, and the header, JSON: key, notes, and for each array its
  name, dtype and shape;
- the arrays in that order, little-endian, in C order;
- the CRC32C of all bytes before, as uint32.

Files are written under another name, synced and renamed. One that is torn or damaged all the same
is found by its checksum, told, and taken for missing.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from retrievekit.store.files import Files, crc32c

log = logging.getLogger(__name__)

FOLDER = "encoding"
"""What the folder of shards is called in an index folder."""

MAGIC = b"retrievekit shard 1\n"

_LENGTH = 4
"""Bytes of the header's length, and of the checksum."""

_OWN_NAME = re.compile(r"[0-9a-f]{64}\.shard(\.new)?")


@dataclass(frozen=True)
class Shard:
    """Arrays, and what else is known of them.

    Args:
        arrays: Arrays of any shape and dtype, by name.
        notes: Plain JSON.
    """

    arrays: Mapping[str, NDArray[Any]]
    notes: Mapping[str, Any] = field(default_factory=dict)


class ShardFolder:
    """The shards of one index folder; whoever writes them holds its lock.

    Args:
        folder: Their folder, made with the first shard.
        files: The operating system.
    """

    def __init__(self, folder: Path, files: Files) -> None:
        self.folder = folder
        self._files = files

    def __len__(self) -> int:
        """How many finished shards there are."""
        return len(list(self.folder.glob("*.shard")))

    def get(self, key: str) -> Shard | None:
        """A shard that was kept.

        Args:
            key: Its key, 64 hexadecimal digits.

        Returns:
            The shard; None where there is none, or it is damaged, which is told and it is removed.
        """
        path = self.folder / f"{key}.shard"
        try:
            return _parsed(path.read_bytes(), key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as why:
            log.warning("%s: not used (%s); it is computed again", path, why)
            self._files.remove(path)
            return None

    def put(self, key: str, shard: Shard) -> None:
        """Keep a shard, durably.

        Args:
            key: Its key, 64 hexadecimal digits.
            shard: Its arrays and notes.
        """
        self._files.make_folder(self.folder)
        path = self.folder / f"{key}.shard"
        fresh = path.with_name(path.name + ".new")
        self._files.remove(fresh)
        arrays = [
            np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            for array in shard.arrays.values()
        ]
        described = [
            [name, array.dtype.str, list(array.shape)]
            for name, array in zip(shard.arrays, arrays, strict=True)
        ]
        header = json.dumps(
            {"key": key, "arrays": described, "notes": shard.notes}, allow_nan=False
        ).encode()
        writer = self._files.create(fresh)
        checksum = 0
        try:
            start = MAGIC + len(header).to_bytes(_LENGTH, "little") + header
            for data in (start, *(array.tobytes() for array in arrays)):
                writer.write(data)
                checksum = google_crc32c.extend(checksum, data)
            writer.write(checksum.to_bytes(_LENGTH, "little"))
            writer.close()
        except BaseException:
            writer.abort()
            raise
        self._files.rename(fresh, path)
        self._files.sync_folder(self.folder)

    def clear(self) -> bool:
        """Remove all shards.

        Returns:
            Whether there were any. A folder that holds other files too is left as it is.
        """
        if not self.folder.is_dir() or strangers_in(self.folder):
            return False
        self._files.remove(self.folder)
        return True


def strangers_in(folder: Path) -> list[str]:
    """Names in a folder of shards that are no shard's.

    Args:
        folder: The folder.

    Returns:
        The names, sorted; none where the folder is missing.
    """
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if not _OWN_NAME.fullmatch(p.name))


def _parsed(data: bytes, key: str) -> Shard:
    if not data.startswith(MAGIC):
        raise ValueError("it does not begin as a shard does")
    body, checksum = memoryview(data)[:-_LENGTH], data[-_LENGTH:]
    if crc32c(body) != int.from_bytes(checksum, "little"):
        raise ValueError("its checksum does not fit")
    at = len(MAGIC) + _LENGTH
    length = int.from_bytes(data[len(MAGIC) : at], "little")
    header = json.loads(data[at : at + length])
    if header["key"] != key:
        raise ValueError("it is another shard's")
    at += length
    arrays = {}
    for name, dtype, shape in header["arrays"]:
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(data, kind, count, at).reshape(shape)
        at += count * kind.itemsize
    return Shard(arrays, header["notes"])
