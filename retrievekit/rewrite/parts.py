"""Written queries on disk, a part of the documents to a file, found again by what they depend on.

A file is JSON lines: a header with the part's key and the checksum of all that follows, then one
line for each document. It is written beside its place, synced and renamed, so that a kill leaves
whole files only; one that is damaged all the same is told and written anew.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrievekit.store.files import Files, crc32c

log = logging.getLogger(__name__)

_KIND = "retrievekit queries 1"
_OWN_NAME = re.compile(r"[0-9a-f]{64}\.jsonl(\.new)?|lock")


@dataclass(frozen=True)
class Written:
    """What was written for one document.

    Args:
        doc_id: The document.
        queries: The queries.
        scores: How well each fits, float32 as Python's floats; none where nothing scores them.
        failed: Whether nothing could be asked.
    """

    doc_id: str
    queries: tuple[str, ...]
    scores: tuple[float, ...] = ()
    failed: bool = False


class PartFolder:
    """The files of a folder; whoever writes them holds its lock.

    Args:
        folder: The folder, made with the first part.
        files: The operating system.
    """

    def __init__(self, folder: Path, files: Files) -> None:
        self.folder = folder
        self._files = files

    def get(self, key: str) -> list[Written] | None:
        """A part that was kept.

        Args:
            key: Its key, 64 hexadecimal digits.

        Returns:
            What was written for each of its documents; None where there is no such part, or it is
            damaged, which is told.
        """
        path = self._path(key)
        try:
            return _parsed(path.read_bytes(), key)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as why:
            log.warning("%s: not used (%s); it is written anew", path, why)
            return None

    def put(self, key: str, rows: Sequence[Written]) -> None:
        """Keep a part, durably.

        Args:
            key: Its key, 64 hexadecimal digits.
            rows: What was written for each of its documents.
        """
        self._files.make_folder(self.folder)
        lines = [
            json.dumps([row.doc_id, row.queries, row.scores, row.failed], ensure_ascii=False)
            for row in rows
        ]
        body = "".join(f"{line}\n" for line in lines).encode()
        header = {"kind": _KIND, "key": key, "crc32c": crc32c(body)}
        self._files.replace(self._path(key), json.dumps(header).encode() + b"\n" + body)

    def clear(self) -> None:
        """Remove all parts, and the folder unless it holds other files too."""
        if not self.folder.is_dir():
            return
        for path in list(self.folder.iterdir()):
            if _OWN_NAME.fullmatch(path.name):
                self._files.remove(path)
        if not any(self.folder.iterdir()):
            self._files.remove(self.folder)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.jsonl"


def _parsed(data: bytes, key: str) -> list[Written]:
    head, _, body = data.partition(b"\n")
    header: Any = json.loads(head)
    if header != {"kind": _KIND, "key": key, "crc32c": crc32c(body)}:
        raise ValueError("its first line does not fit what follows")
    rows = []
    for line in body.decode("utf-8").split("\n")[:-1]:
        doc_id, queries, scores, failed = json.loads(line)
        rows.append(Written(doc_id, tuple(queries), tuple(scores), failed))
    return rows
