"""What reading a file meets: the first fault ends it, or faults are counted and told at the end."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from retrievekit.errors import DataError, ParseError

Errors = Literal["strict", "lenient"]

log = logging.getLogger(__name__)

_EXAMPLES = 5


@dataclass
class LineReport:
    """What reading a file met.

    Args:
        path: The file.
        n_lines: Its lines, empty ones and comments included.
        n_kept: Hits or judgements that were kept.
        n_repeated: Judgements given again with the same grade, which count once.
        left_out: Lines that were left out, by reason; empty after strict reading.
        mended: Lines that were read in spite of a fault, by fault.
        examples: The first faults, each with file and line.
    """

    path: str
    n_lines: int = 0
    n_kept: int = 0
    n_repeated: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    mended: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def n_left_out(self) -> int:
        """How many lines were left out."""
        return sum(self.left_out.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What deserves mention, as one sentence; empty when nothing was left out or mended."""
        counts = {**self.left_out, **self.mended}
        if not counts:
            return ()
        reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.items())
        return (f"{self.path}: {self.n_left_out} of {self.n_lines} lines left out; {reasons}",)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON."""
        return asdict(self)


class Faults:
    """The faults of one file, each fatal or counted.

    Args:
        path: The file.
        errors: ``"strict"``, or ``"lenient"`` to count.

    Raises:
        DataError: `errors` is neither.
    """

    def __init__(self, path: Path, errors: Errors) -> None:
        if errors not in ("strict", "lenient"):
            raise DataError(f"errors is 'strict' or 'lenient', not {errors!r}")
        self.path = path
        self.strict = errors == "strict"
        self.report = LineReport(str(path))

    def add(self, line: int, problem: str, shown: str = "") -> None:
        """End reading with a line's fault, or count it where reading is lenient.

        Args:
            line: The line, from 1.
            problem: What is wrong there; what to do, after a semicolon.
            shown: The part of the line that is wrong.

        Raises:
            ParseError: Reading is strict.
        """
        if self.strict:
            raise ParseError(self.path, line, problem + (f": {shown}" if shown else ""))
        reason = problem.partition(";")[0]
        self.report.left_out[reason] = self.report.left_out.get(reason, 0) + 1
        if len(self.report.examples) < _EXAMPLES:
            self.report.examples.append(f"{self.path}:{line}: {reason}")

    def mended(self, fault: str) -> None:
        """Count a line that was read in spite of a fault."""
        self.report.mended[fault] = self.report.mended.get(fault, 0) + 1

    def finished(self, n_kept: int) -> LineReport:
        """The report, which is logged when anything was left out or mended."""
        self.report.n_kept = n_kept
        for note in self.report.notes:
            log.warning("%s", note)
        return self.report
