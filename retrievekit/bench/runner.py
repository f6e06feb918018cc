"""`benchmark`: systems by data sets, measured, timed, compared, and written down.

What the times mean: each system runs once over all judged queries of a data set, in batches, after
a warm-up (models loaded, kernels compiled, files mapped). ``ms_per_query`` is the wall
time of that over the number of queries. What systems share runs once and every one of them is
charged its full time, so a fused system's time is that of all its arms and of fusing. ``ms_alone``
is the median over some queries asked one at a time, nothing shared. Where a stage answers from a
disk cache no time is given at all.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit._version import __version__
from retrievekit.bench.sharing import Memo, share
from retrievekit.bench.systems import IndexShelf, Progress, indexes_of, parts_of, shelf_folder
from retrievekit.bench.table import Cell, DataInfo, Table
from retrievekit.cache import Cached
from retrievekit.config import parse, resolve
from retrievekit.data.dataset import Dataset, drop_own, load_dataset
from retrievekit.errors import DataError, RetrieveKitError, UnknownNameError
from retrievekit.evaluate.compute import Evaluation, evaluate
from retrievekit.evaluate.measures import parse_measures
from retrievekit.evaluate.significance import Contrast, compare
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run, concat
from retrievekit.stage import QUERIES_AT_A_TIME, Stage
from retrievekit.store.files import Files

log = logging.getLogger(__name__)

System = str | Stage[Queries, Run] | Callable[[Dataset], Stage[Queries, Run]]
"""An expression, a stage, or a function that makes the stage for a data set."""

ALONE_QUERIES = 30
"""Queries asked one at a time at most."""

WARM_UP_SECONDS = 0.5
"""Seconds after which no further query is asked for warming up."""

ALONE_SECONDS = 3.0
"""Seconds after which no further query is asked alone."""

_PACKAGES = (
    "numpy",
    "numba",
    "pyarrow",
    "scipy",
    "torch",
    "sentence-transformers",
    "transformers",
    "ir-measures",
    "faiss-cpu",
    "faiss-gpu",
)


def benchmark(
    systems: Mapping[str, System] | Sequence[str],
    data: Sequence[str | Dataset],
    measures: Sequence[str] = ("nDCG@10", "R@100", "RR@10"),
    baseline: str | None = None,
    output: str | Path | None = None,
    depth: int = 1000,
    progress: Progress | None = None,
    indexes: str | Path | None = None,
) -> Table:
    """Measure systems on data sets.

    A query's own document is dropped by the data set's rule before anything is measured. A system
    that fails leaves the others standing; its error is in the table.

    Args:
        systems: By name: an expression such as ``"rrf(bm25, minilm)"``, a stage that searches the
            data set's corpus, or a function from a `Dataset` to a stage. A list of expressions
            names each by itself.
        data: Data sets by name or folder, or loaded ones.
        measures: Measures by name.
        baseline: The system that all others are compared with; None compares nothing.
        output: A folder for TREC runs, per-query values and the table (Markdown, JSON); None writes
            nothing.
        depth: Hits per query that count.
        progress: Told what is being done and how far it is.
        indexes: Where indexes of expressions are kept; by default below the package's cache.

    Returns:
        The table.

    Raises:
        DataError: Nothing to measure, a data set given twice, or no judged query has words.
        UnknownNameError: The baseline is no system, or a data set is unknown.
        ExpressionError: An expression does not parse.
        UnknownMeasureError: A measure is unknown.
    """
    named = _named(systems)
    wanted = tuple(str(measure) for measure in parse_measures(measures))
    if baseline is not None and baseline not in named:
        raise UnknownNameError.among(
            "system", baseline, named, "The baseline is one of the systems."
        )
    if depth < 1:
        raise DataError(f"depth is {depth}; at least 1 hit per query has to count")
    for measure in parse_measures(measures):
        if isinstance(measure.cutoff, int) and measure.cutoff > depth:
            raise DataError(
                f"{measure} looks at more hits than count (depth is {depth}), so its figure would "
                f"be another measure's; give depth={measure.cutoff}"
            )
    for system in named.values():
        if isinstance(system, str):
            parse(system)
    folder = None if output is None else _output_folder(Path(output))
    sets = _loaded(data)
    shelf = shelf_folder() if indexes is None else Path(indexes)

    infos: list[DataInfo] = []
    cells: list[Cell] = []
    while sets:
        dataset = sets.pop(0)  # and with it its documents, once it is done
        bench = _OnData(dataset, wanted, depth, shelf, folder, progress)
        cells += bench.run(named, baseline)
        infos.append(bench.info)
    table = Table(
        systems=tuple(named),
        datasets=tuple(infos),
        measures=wanted,
        cells=tuple(cells),
        baseline=baseline,
        comparisons=max(
            sum(1 for cell in cells if cell.dataset == info.name and cell.contrasts)
            for info in infos
        ),
        metadata=surroundings(),
        output=None if folder is None else str(folder),
    )
    if folder is not None:
        _write(folder / "table.md", table.to_markdown())
        _write(folder / "table.json", table.to_json())
        log.info("table, runs and per-query values are in %s", folder)
    return table


def _named(systems: Mapping[str, System] | Sequence[str]) -> dict[str, System]:
    if isinstance(systems, str):
        systems = [systems]
    if not isinstance(systems, Mapping):
        named: dict[str, System] = {}
        for text in systems:
            if not isinstance(text, str):
                raise DataError(
                    f"a list of systems holds expressions, not {text!r}; name it: {{...}}"
                )
            if text in named:
                raise DataError(f"the system {text!r} is given twice")
            named[text] = text
    else:
        named = dict(systems)
    if not named:
        raise DataError('no system to measure; name one, such as "bm25"')
    return named


def _loaded(data: Sequence[str | Dataset]) -> list[Dataset]:
    listed = [data] if isinstance(data, (str, Dataset)) else list(data)
    sets = [load_dataset(item) if isinstance(item, str) else item for item in listed]
    if not sets:
        raise DataError('no data set to measure on; name one, such as "beir/scifact"')
    names = [dataset.name for dataset in sets]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the data set {name!r} is given twice")
    return sets


def _output_folder(folder: Path) -> Path:
    """The folder, made when missing, if nothing but an earlier table would be replaced in it."""
    found = folder / "table.json"
    if found.exists():
        try:
            Table.from_dict(json.loads(found.read_text("utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as why:
            raise DataError(
                f"{found} is there and is no table of retrievekit; name another output folder"
            ) from why
    Files().make_folder(folder)
    return folder


@dataclass(frozen=True)
class _Measured:
    """A system's figures before it is compared."""

    cell: Cell
    evaluation: Evaluation | None = None


class _OnData:
    """All systems on one data set."""

    def __init__(
        self,
        dataset: Dataset,
        measures: tuple[str, ...],
        depth: int,
        shelf: Path,
        folder: Path | None,
        progress: Progress | None,
    ) -> None:
        self.dataset = dataset
        self.measures = measures
        self.depth = depth
        self.folder = folder
        self.progress = progress
        self.rule = dataset.properties.own_document
        extra = 0 if self.rule == "none" else 1
        self.shelf = IndexShelf(dataset.corpus, shelf, depth=depth, extra=extra, progress=progress)
        self.queries = self._judged_queries()

    def _judged_queries(self) -> Queries:
        """The queries that have judgements; the others cannot change any figure."""
        qrels, queries = self.dataset.qrels, self.dataset.queries
        judged = np.diff(qrels.offsets) > 0
        places = queries.ids.translate(qrels.queries)
        rows = np.flatnonzero((places >= 0) & judged[places]) if len(qrels) else np.zeros(0, int)
        if not len(rows):
            raise DataError(
                f"{self.dataset.name}: not one of its {len(queries)} queries is judged "
                f"({len(qrels)} judged queries); check that both belong together"
            )
        return queries.take(rows)

    @property
    def info(self) -> DataInfo:
        """The data set as it is evaluated."""
        dataset = self.dataset
        judged = int((np.diff(dataset.qrels.offsets) > 0).sum())
        notes = [note.removeprefix(f"{dataset.name}: ") for note in dataset.notes]
        if self.rule != "none":
            notes.append(f"a query's own document is dropped (rule: {self.rule})")
        barren = judged - len(np.unique(_queries_of(dataset.qrels)[dataset.qrels.grades > 0]))
        if barren:
            notes.append(f"{barren} judged queries have no relevant document and count 0")
        if judged > len(self.queries):
            notes.append(f"{judged - len(self.queries)} judged queries have no words and count 0")
        return DataInfo(
            dataset.name,
            len(dataset.corpus),
            judged,
            dataset.qrels.n_judgements,
            dataset.corpus.content_hash,
            dataset.qrels.content_hash,
            tuple(notes),
        )

    def run(self, systems: Mapping[str, System], baseline: str | None) -> list[Cell]:
        """Measure and compare all systems.

        Args:
            systems: The systems by name.
            baseline: The one to compare with.

        Returns:
            One cell per system.
        """
        made: dict[str, Stage[Queries, Run]] = {}
        failed: dict[str, Cell] = {}
        for name, system in systems.items():
            try:
                made[name] = self._stage(system)
            except Exception as why:  # noqa: BLE001 - the others are to stand
                failed[name] = self._failure(name, why)
        # What answers from a disk cache is left alone: its time must not be taken for another's.
        alike = {name: stage for name, stage in made.items() if not _caches(stage)}
        memo = Memo()
        shared = {**made, **dict(zip(alike, share(alike.values(), memo), strict=True))}
        measured: dict[str, _Measured] = {}
        for name in systems:
            if name in failed:
                measured[name] = _Measured(failed[name])
                continue
            try:
                measured[name] = self._measure(name, made[name], shared[name], memo)
            except Exception as why:  # noqa: BLE001 - the others are to stand
                measured[name] = _Measured(self._failure(name, why))
        return self._compared(measured, baseline)

    def _stage(self, system: System) -> Stage[Queries, Run]:
        if isinstance(system, str):
            stage: Any = resolve(system, self.shelf)
        else:
            stage = system if isinstance(system, Stage) else system(self.dataset)
        if not isinstance(stage, Stage) or stage.takes is not Queries or stage.gives is not Run:
            raise DataError(f"a system leads from queries to a run, but {stage!r} does not")
        return stage

    def _failure(self, name: str, why: Exception) -> Cell:
        kind = "" if isinstance(why, RetrieveKitError) else f"{type(why).__name__}: "
        log.debug("%s failed on %s", name, self.dataset.name, exc_info=why)
        return Cell(name, self.dataset.name, error=f"{kind}{why}")

    def _measure(
        self, name: str, plain: Stage[Queries, Run], shared: Stage[Queries, Run], memo: Memo
    ) -> _Measured:
        cached = _caches(plain)
        self._told(name, 0)
        self._warm_up(plain)
        seconds, parts = 0.0, []
        for part in self.queries.batches(QUERIES_AT_A_TIME):
            _ = part.content_hash  # computed for sharing, which is no work of the system's
            before, start = memo.charged, time.perf_counter()
            parts.append(shared(part))
            seconds += time.perf_counter() - start + memo.charged - before
            self._told(name, sum(len(run) for run in parts))
        run = self._kept(name, concat(parts))
        evaluation = evaluate(run, self.dataset.qrels, [*self.measures, "Judged@10"])
        times = [] if cached else self._alone(plain)
        indexes = indexes_of(plain)
        built = [entry for entry in self.shelf.built.values() if entry.index in indexes]
        spent = [entry.seconds for entry in built if entry.seconds is not None]
        cell = Cell(
            name,
            self.dataset.name,
            {measure: evaluation.mean[measure] for measure in self.measures},
            judged=_judged_share(evaluation),
            n_without_hits=evaluation.n_missing,
            ms_per_query=None if cached else 1000 * seconds / len(self.queries),
            ms_alone=statistics.median(times) if times else None,
            n_alone=len(times),
            index_bytes=sum(index.n_bytes for index in indexes) if indexes else None,
            index_seconds=sum(spent) if spent else None,
            fingerprint=_fingerprint(plain),
            files=self._write(name, run, evaluation),
        )
        return _Measured(cell, evaluation)

    def _told(self, name: str, done: int) -> None:
        if self.progress is not None:
            self.progress(f"{self.dataset.name}: {name}", done, len(self.queries))

    def _kept(self, name: str, run: Run) -> Run:
        """The run without own documents, cut to its depth."""
        if run.n_hits and run.docs != self.dataset.corpus.ids:
            rows = run.docs.translate(self.dataset.corpus.ids)[run.rows]
            if rows.min() < 0:
                strange = run.docs[int(run.rows[np.argmin(rows)])]
                raise DataError(
                    f"{name} returns {strange!r}, which is no document of {self.dataset.name}; "
                    "give an expression, or a function that makes the stage for each data set"
                )
        return drop_own(run, self.rule).top(self.depth)

    def _warm_up(self, plain: Stage[Queries, Run]) -> None:
        """Load models, compile kernels, map files: one query, and some more unless it was slow."""
        start = time.perf_counter()
        for count in (1, ALONE_QUERIES):
            if time.perf_counter() - start < WARM_UP_SECONDS or count == 1:
                plain(self.queries.take(self._spread(count)))

    def _spread(self, count: int) -> NDArray[np.int64]:
        """Rows of some queries spread over all of them, int64 ``(count,)`` or fewer."""
        return np.unique(np.linspace(0, len(self.queries) - 1, count).astype(np.int64))

    def _alone(self, plain: Stage[Queries, Run]) -> list[float]:
        """Milliseconds of queries asked one at a time, spread over the data set."""
        times: list[float] = []
        for place in self._spread(ALONE_QUERIES):
            if sum(times) > 1000 * ALONE_SECONDS:
                break
            query = self.queries.take(np.array([place]))
            start = time.perf_counter()
            plain(query)
            times.append(1000 * (time.perf_counter() - start))
        return times

    def _write(self, name: str, run: Run, evaluation: Evaluation) -> dict[str, str]:
        if self.folder is None:
            return {}
        stem = f"{file_name(self.dataset.name)}/{file_name(name)}"
        files = {"run": f"runs/{stem}.run", "per_query": f"queries/{stem}.jsonl"}
        for place in files.values():
            Files().make_folder((self.folder / place).parent)
        run.write(self.folder / files["run"], tag=file_name(name))
        values = {measure: evaluation.per_query(measure) for measure in self.measures}
        lines = [
            json.dumps({"query_id": i, **{m: values[m][i] for m in self.measures}})
            for i in evaluation.query_ids
        ]
        _write(self.folder / files["per_query"], "\n".join(lines) + "\n")
        return files

    def _compared(self, measured: Mapping[str, _Measured], baseline: str | None) -> list[Cell]:
        cells = [item.cell for item in measured.values()]
        base = None if baseline is None else measured[baseline].evaluation
        others = {n: m.evaluation for n, m in measured.items() if m.evaluation and n != baseline}
        if baseline is None or base is None or not others:
            return cells
        contrasts = _contrasts(baseline, base, others, self.measures)
        return [replace(cell, contrasts=contrasts.get(cell.system, {})) for cell in cells]


def _contrasts(
    baseline: str,
    base: Evaluation,
    others: Mapping[str, Evaluation],
    measures: Sequence[str],
) -> dict[str, dict[str, Contrast]]:
    found: dict[str, dict[str, Contrast]] = {name: {} for name in others}
    family = {baseline: base, **others}
    for measure in measures:
        for name, contrast in compare(family, None, measure, baseline=baseline).items():
            found[name][measure] = contrast
    return found


def _judged_share(evaluation: Evaluation) -> float | None:
    """Mean of Judged@10 over queries with hits: one without has none that could be judged."""
    answered = evaluation.n_judged_queries - evaluation.n_missing
    return math.fsum(evaluation.row("Judged@10")) / answered if answered else None


def _queries_of(qrels: Qrels) -> NDArray[np.int64]:
    """The query of each judgement, int64 ``(judgements,)``."""
    return np.repeat(np.arange(len(qrels)), np.diff(qrels.offsets))


def _caches(stage: Stage[Any, Any]) -> bool:
    # Rewriters may keep what a model wrote by themselves.
    return any(
        isinstance(part, Cached) or getattr(part, "cache", None) is not None
        for part in parts_of(stage)
    )


def _fingerprint(stage: Stage[Any, Any]) -> str:
    try:
        return stage.fingerprint
    except RetrieveKitError:
        return ""


def file_name(name: str) -> str:
    """A name as part of a file name: letters, digits, ``.``, ``_``, ``-``; the rest becomes ``_``.

    Args:
        name: The name of a system or data set.

    Returns:
        The part; names that differ only in other characters get different ones.
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    plain = plain.strip("._") or "system"
    if plain == name and len(plain) <= 80:
        return plain
    import hashlib

    return f"{plain[:60].rstrip('._')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _write(path: Path, text: str) -> None:
    Files().replace(path, text.encode("utf-8"))


def surroundings() -> dict[str, Any]:
    """What a figure depends on besides code and data: versions, system, hardware, time."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "retrievekit": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "platform": platform.platform(),
        "hardware": hardware(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def hardware() -> str:
    """The machine in one line: cores, processor, memory, and a GPU that torch has in use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    parts = [f"{cores} × {name}"]
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        parts.append(f"{memory / 2**30:.0f} GiB")
    except (ValueError, OSError, AttributeError):
        pass
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
