"""`AnswerCache`: answers that were paid for, kept in one SQLite file by what was asked."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

from retrievekit.errors import DataError


class AnswerCache:
    """Texts by key; threads may share it, and so may processes.

    Args:
        path: The file; made on first use.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"AnswerCache({str(self.path)!r})"

    def get(self, key: str) -> str | None:
        """The text of a key, or None.

        Args:
            key: The key.

        Returns:
            The text.

        Raises:
            DataError: The file is no cache of answers.
        """
        with self._lock:
            try:
                found = self._database.execute(
                    "SELECT text FROM answers WHERE key = ?", (key,)
                ).fetchone()
            except sqlite3.Error as why:
                raise self._unusable(why) from why
        return None if found is None else str(found[0])

    def put(self, key: str, text: str) -> None:
        """Keep a text; one that is there already stays.

        Args:
            key: The key.
            text: The text.

        Raises:
            DataError: The file is no cache of answers.
        """
        self.put_all({key: text})

    def put_all(self, texts: Mapping[str, str]) -> None:
        """Keep several texts, all or none; the disk is waited for once.

        Args:
            texts: Texts by key; of one that is there already the old one stays.

        Raises:
            DataError: The file is no cache of answers.
        """
        with self._lock:
            try:
                with self._database as database:
                    database.executemany(
                        "INSERT OR IGNORE INTO answers VALUES (?, ?)", list(texts.items())
                    )
            except sqlite3.Error as why:
                raise self._unusable(why) from why

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._open is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = sqlite3.connect(self.path, timeout=30.0, check_same_thread=False)
            try:
                with opened:
                    opened.execute(
                        "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT)"
                    )
            except sqlite3.Error:
                opened.close()
                raise
            self._open = opened
        return self._open

    def _unusable(self, why: sqlite3.Error) -> DataError:
        return DataError(f"{self.path}: not a cache of answers ({why}); remove it or name another")
