"""`Table`: what a benchmark found, systems by data sets, as text, Markdown, CSV and JSON.

The printed forms carry what a reader needs to trust a figure: how many queries, which comparisons
are significant by which test, how much of the ranking is judged, what the times mean. JSON and CSV
hold everything besides: differences, confidence intervals, p-values, content hashes, versions,
hardware.
"""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from retrievekit.errors import DataError, UnknownNameError
from retrievekit.evaluate.significance import Contrast

BETTER, WORSE = "▲", "▼"
"""Marks behind a figure that differs significantly from the baseline's."""

_NOTHING = "-"

_WIDE = 100
_HANGING: dict[str, Any] = {
    "subsequent_indent": "  ",
    "break_long_words": False,
    "break_on_hyphens": False,
}


@dataclass(frozen=True)
class Cell:
    """One system on one data set.

    Args:
        system: The system.
        dataset: The data set.
        values: The figure of each measure.
        contrasts: The comparison with the baseline by measure; empty for the baseline.
        judged: Mean share of the first ten hits that are judged, over queries with hits.
        n_without_hits: Judged queries for which the system found nothing; they count as 0.
        ms_per_query: Milliseconds per query, all queries in one batch.
        ms_alone: Median milliseconds of a query asked alone.
        n_alone: How many queries were asked alone.
        index_bytes: Bytes of the indexes that the system searches.
        index_seconds: Seconds that building them took; None when they were there already.
        fingerprint: The system's fingerprint; empty where it has none.
        files: Where run and per-query values were written, below the output folder.
        error: Why there are no figures; empty when there are.
    """

    system: str
    dataset: str
    values: Mapping[str, float] = field(default_factory=dict)
    contrasts: Mapping[str, Contrast] = field(default_factory=dict)
    judged: float | None = None
    n_without_hits: int = 0
    ms_per_query: float | None = None
    ms_alone: float | None = None
    n_alone: int = 0
    index_bytes: int | None = None
    index_seconds: float | None = None
    fingerprint: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class DataInfo:
    """One data set as it was evaluated.

    Args:
        name: Its name.
        n_documents: Documents.
        n_queries: Judged queries.
        n_judgements: Judgements.
        corpus_hash: Content hash of the corpus.
        qrels_hash: Content hash of the judgements.
        notes: What its reader should know.
    """

    name: str
    n_documents: int
    n_queries: int
    n_judgements: int
    corpus_hash: str
    qrels_hash: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Systems by data sets.

    Args:
        systems: The systems, in order.
        datasets: The data sets, in order.
        measures: The measures, in order.
        cells: One per system and data set.
        baseline: The system that the others are compared with, or None.
        alpha: The significance level of the marks.
        comparisons: Comparisons per measure and data set that Holm's correction covers.
        metadata: Versions, hardware, time.
        output: The folder that files were written to, or None; outside equality.
    """

    systems: tuple[str, ...]
    datasets: tuple[DataInfo, ...]
    measures: tuple[str, ...]
    cells: tuple[Cell, ...]
    baseline: str | None = None
    alpha: float = 0.05
    comparisons: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = field(default=None, compare=False)

    def cell(self, system: str, dataset: str | None = None) -> Cell:
        """The figures of one system on one data set.

        Args:
            system: The system.
            dataset: The data set; may be left out when there is only one.

        Returns:
            Its cell.

        Raises:
            UnknownNameError: No such system or data set.
            DataError: There are several data sets and none was named.
        """
        names = [info.name for info in self.datasets]
        if dataset is None:
            if len(names) != 1:
                raise DataError(f"the table has {len(names)} data sets; name one: {names}")
            dataset = names[0]
        if dataset not in names:
            raise UnknownNameError.among("data set", dataset, names)
        if system not in self.systems:
            raise UnknownNameError.among("system", system, self.systems)
        return next(c for c in self.cells if (c.system, c.dataset) == (system, dataset))

    @property
    def failures(self) -> list[Cell]:
        """The cells without figures."""
        return [cell for cell in self.cells if cell.error]

    def means(self, system: str) -> dict[str, float] | None:
        """The mean of each measure over all data sets, each data set weighing the same.

        Args:
            system: The system.

        Returns:
            The means, or None when the system failed on a data set.
        """
        cells = [self.cell(system, info.name) for info in self.datasets]
        if not cells or any(cell.error for cell in cells):
            return None
        return {m: math.fsum(cell.values[m] for cell in cells) / len(cells) for m in self.measures}

    # Printed forms --------------------------------------------------------------------------------

    def __str__(self) -> str:
        """The table as aligned text with its notes."""
        head, groups = self._layout()
        rows = [row for group in groups for row in group]
        widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
        left = len(head) - self._n_figures
        lines = [self._line(head, widths, left), "  ".join("-" * w for w in widths)]
        for place, group in enumerate(groups):
            lines += [""] if place else []
            lines += [self._line(row, widths, left) for row in group]
        notes = [line for note in self._notes() for line in textwrap.wrap(note, _WIDE, **_HANGING)]
        return "\n".join([*lines, "", *notes])

    @staticmethod
    def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
        padded = [
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown with its notes below."""
        head, groups = self._layout()
        left = len(head) - self._n_figures
        rule = ["---"] * left + ["---:"] * self._n_figures
        rows = [head, rule, *(row for group in groups for row in group)]
        lines = ["| " + " | ".join(_in_markdown(text) for text in row) + " |" for row in rows]
        notes = [f"- {_in_markdown(note)}" for note in self._notes()]
        return "\n".join([*lines, "", *notes]) + "\n"

    @property
    def _n_figures(self) -> int:
        return len(self.measures) + 3

    def _layout(self) -> tuple[list[str], list[list[list[str]]]]:
        """The head and the rows, one group per data set; with several, each is named."""
        several = len(self.datasets) != 1
        marked = [any(m in cell.contrasts for cell in self.cells) for m in self.measures]
        room = ["  " if mark else "" for mark in marked]
        head = ["data set"] if several else []
        head += ["system", *(m + blank for m, blank in zip(self.measures, room, strict=True))]
        head += ["ms/query", "ms alone", "index"]
        groups = []
        for info in self.datasets:
            group = []
            for place, system in enumerate(self.systems):
                cell = self.cell(system, info.name)
                figures = [
                    self._figure(cell, measure, blank)
                    for measure, blank in zip(self.measures, room, strict=True)
                ]
                label = [info.name if place == 0 else ""] if several else []
                group.append([*label, system, *figures, *_costs(cell)])
            groups.append(group)
        if len(self.datasets) > 1:
            group = []
            for place, system in enumerate(self.systems):
                means = self.means(system)
                figures = [
                    (_NOTHING if means is None else f"{means[measure]:.4f}") + blank
                    for measure, blank in zip(self.measures, room, strict=True)
                ]
                label = [f"mean of {len(self.datasets)}" if place == 0 else ""]
                group.append([*label, system, *figures, "", "", ""])
            groups.append(group)
        return head, groups

    def _figure(self, cell: Cell, measure: str, blank: str) -> str:
        if cell.error:
            return ("failed" if measure == self.measures[0] else _NOTHING) + blank
        contrast = cell.contrasts.get(measure)
        if contrast is not None and contrast.significant(self.alpha):
            blank = f" {BETTER if contrast.difference > 0 else WORSE}"
        return f"{cell.values[measure]:.4f}{blank}"

    def _notes(self) -> list[str]:
        notes = []
        if any(cell.contrasts for cell in self.cells):
            notes.append(
                f"{BETTER} {WORSE} better, worse than {self.baseline}: p < {self.alpha:g}, "
                "two-sided paired t-test, Holm over "
                + ("1 comparison" if self.comparisons == 1 else f"{self.comparisons} comparisons")
                + " per measure"
                + (" and data set" if len(self.datasets) > 1 else "")
            )
            notes += [
                f"{cell.dataset}: {cell.system}, {measure}: the randomisation test disagrees "
                f"(p {found.p_randomisation_adjusted:.3g}, t-test {found.p_adjusted:.3g})"
                for cell in self.cells
                for measure, found in cell.contrasts.items()
                if found.tests_disagree(self.alpha)
            ]
        elif self.baseline is not None:
            notes.append(f"baseline {self.baseline}: nothing to compare with it")
        for info in self.datasets:
            notes.append(
                f"{info.name}: {info.n_documents:,} documents, {info.n_queries:,} judged queries, "
                f"{info.n_judgements:,} judgements"
            )
            notes += [f"{info.name}: {note}" for note in info.notes]
            cells = [self.cell(system, info.name) for system in self.systems]
            judged = [f"{c.system} {_share(c.judged)}" for c in cells if c.judged is not None]
            if judged:
                notes.append(f"{info.name}: judged among the first 10: {', '.join(judged)}")
            notes += [
                f"{info.name}: {c.system} finds nothing for {c.n_without_hits} queries, "
                "which count 0"
                for c in cells
                if c.n_without_hits
            ]
        for cell in self.failures:
            # Without the expression and the caret under a place in it, which stand indented.
            problem = " ".join(cell.error.partition("\n  ")[0].split())
            notes.append(f"{cell.dataset}: {cell.system} failed: {problem}")
        if any(cell.ms_per_query is not None for cell in self.cells):
            notes.append(
                "ms/query: wall time of all queries in one batch, per query; ms alone: median of "
                "queries asked one at a time; both after a warm-up, nothing cached, a fused system "
                "with all its arms; index: bytes on disk"
            )
        return notes + list(self._provenance())

    def _provenance(self) -> Iterator[str]:
        versions = [
            f"{name} {self.metadata[key]}"
            for name, key in (("retrievekit", "retrievekit"), ("Python", "python"))
            if self.metadata.get(key)
        ]
        if self.metadata.get("hardware"):
            versions.append(str(self.metadata["hardware"]))
        if versions:
            yield ", ".join(versions)

    # Data forms -----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON; what is not finite is None."""
        plain: dict[str, Any] = _finite(asdict(self))
        del plain["output"]
        plain["format"] = "retrievekit table 1"
        if len(self.datasets) > 1:
            plain["means"] = {system: self.means(system) for system in self.systems}
        return plain

    def to_json(self) -> str:
        """Everything as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Table:
        """Rebuild a table from plain JSON.

        Args:
            plain: What `to_dict` gave.

        Returns:
            The table.

        Raises:
            DataError: It is no table of this format.
        """
        if plain.get("format") != "retrievekit table 1":
            raise DataError(
                f"this is no table of retrievekit: its format is {plain.get('format')!r}, "
                "not 'retrievekit table 1'"
            )
        cells = []
        for cell in plain["cells"]:
            contrasts = {m: _contrast(found) for m, found in cell["contrasts"].items()}
            cells.append(Cell(**{**cell, "contrasts": contrasts}))
        return cls(
            systems=tuple(plain["systems"]),
            datasets=tuple(
                DataInfo(**{**d, "notes": tuple(d["notes"])}) for d in plain["datasets"]
            ),
            measures=tuple(plain["measures"]),
            cells=tuple(cells),
            baseline=plain["baseline"],
            alpha=plain["alpha"],
            comparisons=plain["comparisons"],
            metadata=plain["metadata"],
        )

    def to_csv(self) -> str:
        """One line per data set, system and measure, with the comparison and the costs."""
        names = [item.name for item in fields(Contrast)]
        contrast_names = [n for n in names if n not in ("system", "measure", "mean")]
        costs = ["ms_per_query", "ms_alone", "index_bytes", "error"]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["dataset", "system", "measure", "value", *contrast_names, *costs])
        for cell in self.cells:
            for measure in self.measures:
                contrast = cell.contrasts.get(measure)
                compared = [getattr(contrast, name, "") for name in contrast_names]
                value = cell.values.get(measure, "")
                paid = ["" if getattr(cell, n) is None else getattr(cell, n) for n in costs]
                writer.writerow([cell.dataset, cell.system, measure, value, *compared, *paid])
        return out.getvalue()


def _contrast(plain: Mapping[str, Any]) -> Contrast:
    """A contrast from JSON, which cannot say infinity: only `t` and `effect_size` may be."""
    endless = math.copysign(math.inf, plain["difference"])
    values: dict[str, Any] = {name: endless if v is None else v for name, v in plain.items()}
    return Contrast(**values)


def _costs(cell: Cell) -> list[str]:
    return [
        milliseconds(cell.ms_per_query),
        milliseconds(cell.ms_alone),
        _NOTHING if cell.index_bytes is None else size(cell.index_bytes),
    ]


def milliseconds(value: float | None) -> str:
    """Milliseconds with three digits that count.

    Args:
        value: Milliseconds, or None.

    Returns:
        The text.
    """
    if value is None:
        return _NOTHING
    decimals = max(0, 2 - math.floor(math.log10(value))) if 0 < value < 100 else 0
    return f"{value:,.{min(decimals, 3)}f}"


def size(n_bytes: int) -> str:
    """A number of bytes as people read it.

    Args:
        n_bytes: Bytes.

    Returns:
        Such as ``812 B``, ``6.1 MiB``.
    """
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def _share(value: float) -> str:
    """Percent without decimals, but 100% and 0% only for all and nothing."""
    if 0 < value < 0.01:
        return "<1%"
    return ">99%" if 0.99 < value < 1 else f"{value:.0%}"


def _in_markdown(text: str) -> str:
    return text.strip().replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
