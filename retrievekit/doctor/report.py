"""What a check says: findings with their severity, and facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

SHOWN = 5
"""Examples that a finding keeps."""

_LONGEST = 60


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        code: Its name for machines, such as ``duplicate-id``.
        severity: ``error``: building or measuring would fail or be wrong; ``warning``: it will
            work, but probably not as meant; ``note``: worth knowing.
        what: A sentence that says what was found, and how often.
        count: How often.
        examples: A few ids or texts.
        advice: What to do; empty where there is nothing to do.
    """

    code: str
    severity: Severity
    what: str
    count: int
    examples: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """What a check found.

    Args:
        source: What was checked.
        facts: Counts, lengths and estimates, as plain JSON.
        findings: The findings, errors first.
    """

    source: str
    facts: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error among the findings."""
        return not self.count("error")

    def count(self, severity: Severity) -> int:
        """How many findings have a severity.

        Args:
            severity: The severity.

        Returns:
            The count.
        """
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "source": self.source,
            "ok": self.ok,
            **{f"{severity}s": self.count(severity) for severity in SEVERITIES},
            "facts": dict(self.facts),
            "findings": [{**asdict(f), "examples": list(f.examples)} for f in self.findings],
        }


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings with errors first, otherwise in their order.

    Args:
        findings: The findings.

    Returns:
        The sorted findings.
    """
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def shown(values: Iterable[str]) -> tuple[str, ...]:
    """The first few values, long ones cut.

    Args:
        values: Ids or texts.

    Returns:
        At most `SHOWN` of them, at most 60 characters each.
    """
    first = [value for value, _ in zip(values, range(SHOWN), strict=False)]
    return tuple(v if len(v) <= _LONGEST else f"{v[: _LONGEST - 3]}..." for v in first)


def some(count: int, singular: str, plural: str = "") -> str:
    """A count and what it counts, such as ``1 query``, ``1,200 queries``.

    Args:
        count: How many.
        singular: What one is called.
        plural: What several are called; by default the singular with an s.

    Returns:
        The text.
    """
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
