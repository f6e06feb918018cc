"""How a file is to be read, and what was met on the way: options, counts and report.

The terms that the readers of `retrievekit.data.records` and everything under them share.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from retrievekit.errors import DataError

log = logging.getLogger(__name__)

Format = Literal["jsonl", "tsv", "csv", "parquet", "folder"]
OnDuplicate = Literal["error", "first", "last"]
Errors = Literal["strict", "replace"]
MetadataMode = Literal["columns", "json", "drop"]

MAX_LINE_BYTES = 64 * 2**20
"""Bytes that one line, CSV record or text file may have."""

_CHOICES: dict[str, tuple[object, ...]] = {
    "errors": ("strict", "replace"),
    "on_duplicate": ("error", "first", "last"),
    "metadata": ("columns", "json", "drop"),
    "format": (None, "jsonl", "tsv", "csv", "parquet", "folder"),
}


@dataclass(frozen=True)
class ReadReport:
    """What a reader met.

    Args:
        path: What was read.
        records: Documents or queries that came out.
        duplicates: Records left out since they repeat an earlier one word for word.
        conflicts: Records left out since another one has their id (``on_duplicate`` decided which).
        empty: Records that came out with neither title nor text but blanks.
        replaced: Records in which characters were replaced.
        number_ids: Ids that were numbers.
        left_out: Files of a folder that are not text or Markdown.
        marks: Files that began with a byte-order mark, which was dropped.
    """

    path: str
    records: int = 0
    duplicates: int = 0
    conflicts: int = 0
    empty: int = 0
    replaced: int = 0
    number_ids: int = 0
    left_out: int = 0
    marks: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What deserves mention, one sentence each; empty when all went as plainly as can be."""
        says = {
            "duplicates": "left out as word-for-word repetitions of an earlier one",
            "conflicts": "left out since another record has the same id",
            "empty": "empty, kept",
            "replaced": "with characters that were not valid and were replaced by U+FFFD",
            "number_ids": "with a number as id, taken as its digits",
            "left_out": "files left out that are neither .txt nor .md",
            "marks": "with a byte-order mark at the start, which was dropped",
        }
        return tuple(
            f"{self.path}: {getattr(self, name):,} {what}"
            for name, what in says.items()
            if getattr(self, name)
        )

    def log(self) -> None:
        """Log the notes: what was changed or left out as warnings, the rest as information."""
        quiet = ReadReport(self.path, empty=self.empty, number_ids=self.number_ids).notes
        for note in self.notes:
            log.log(logging.INFO if note in quiet else logging.WARNING, "%s", note)


@dataclass
class Tally:
    """Counts of a reading under way; `ReadReport` is what it becomes.

    Args:
        empty: As in the report.
        replaced: As in the report.
        number_ids: As in the report.
        left_out: As in the report.
        marks: As in the report.
    """

    empty: int = 0
    replaced: int = 0
    number_ids: int = 0
    left_out: int = 0
    marks: int = 0


@dataclass(frozen=True)
class ReadOptions:
    """How records are read; `retrievekit.data.records` has the rules.

    Args:
        errors: ``"strict"`` or ``"replace"``, for characters that are not valid.
        on_duplicate: ``"error"``, ``"first"`` or ``"last"``, for one id with two contents.
        max_line_bytes: Bytes that one line may have.
        number_ids: Whether an integer is taken for the string of its digits.
        metadata: ``"columns"``, ``"json"`` or ``"drop"``.
        header: Whether a TSV or CSV file names its columns; None looks at the first line.
        format: The format; None goes by the name.

    Raises:
        DataError: A choice that does not exist.
    """

    errors: Errors = "strict"
    on_duplicate: OnDuplicate = "error"
    max_line_bytes: int = MAX_LINE_BYTES
    number_ids: bool = False
    metadata: MetadataMode = "columns"
    header: bool | None = None
    format: Format | None = None

    def __post_init__(self) -> None:
        """Check the choices."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(repr(c) for c in choices if c is not None)
                raise DataError(f"{name}={getattr(self, name)!r} is none of {known}")
        if self.max_line_bytes < 1:
            raise DataError(f"max_line_bytes={self.max_line_bytes} leaves no room for a line")


def report_of(
    source: Path, tally: Tally, records: int, duplicates: int, conflicts: int
) -> ReadReport:
    """Freeze a tally.

    Args:
        source: What was read.
        tally: The counts.
        records: Records that came out.
        duplicates: Records left out as repetitions.
        conflicts: Records left out for one of the same id.

    Returns:
        The report.
    """
    return ReadReport(str(source), records, duplicates, conflicts, **asdict(tally))
