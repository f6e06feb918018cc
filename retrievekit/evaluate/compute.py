"""`evaluate`: measures of a run against judgements, by the rules of trec_eval.

Every judged query counts, one without hits with 0 (trec_eval's ``-c``). A query whose judgements
hold no relevant document counts too, with 0, exactly as trec_eval does it; a query without any
judgement is not judged. Queries of the run that are not judged are counted and left out. Gains of
nDCG are the grades themselves, negative ones 0. Hits are ordered by score, then id, both
descending, which is the order a `Run` is in.

`compat` names what other tools do otherwise:

==============  ===========================  ==============  ===========================
compat          order of hits                own document    averaged over
==============  ===========================  ==============  ===========================
``"trec"``      score, id, both descending   stays           all judged queries
``"anserini"``  score to 4 digits            stays           all judged queries
                descending, id ascending
``"beir"``      as trec                      always dropped  judged queries of the run
``"mteb"``      as trec                      stays           judged queries of the run
==============  ===========================  ==============  ===========================

The own document of a query is the one whose id equals the query's. ``beir`` and ``mteb`` count
queries that the run names without hits, but not those that it does not name.

Interpolated precision (``IPrec``) rounds the number of relevant documents to reach as trec_eval
10 does; version 9 and pytrec_eval round it otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, UnknownMeasureError, UnknownNameError
from retrievekit.evaluate.measures import Measure, parse_measure, parse_measures
from retrievekit.ids import Ids, Rows
from retrievekit.qrels import Qrels
from retrievekit.run import Run
from retrievekit.vectors import read_only

Compat = Literal["trec", "anserini", "beir", "mteb"]

log = logging.getLogger(__name__)

_EVERY = 2**31 - 1


class Figures(Mapping[str, float]):
    """One figure per measure, to be asked for by any name that the measure has.

    Args:
        values: Figures by measure.
    """

    def __init__(self, values: Mapping[Measure, float]) -> None:
        self._values = dict(values)

    def __getitem__(self, measure: str | Measure) -> float:
        """The figure of a measure, given in any spelling.

        Raises:
            UnknownNameError: It was not evaluated.
        """
        wanted = parse_measure(measure)
        if wanted not in self._values:
            raise UnknownNameError.among("evaluated measure", str(wanted), iter(self))
        return self._values[wanted]

    def __iter__(self) -> Iterator[str]:
        """The measures' names, in the order asked for."""
        return map(str, self._values)

    def __len__(self) -> int:
        """How many measures there are."""
        return len(self._values)

    def __repr__(self) -> str:
        """The figures as a dictionary."""
        return repr(dict(self))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Args:
        measures: The measures, in the order asked for.
        query_ids: The queries that were averaged over.
        values: float64 ``(n_measures, nq)``, finite.
        compat: Whose rules were followed.
        n_judged_queries: Queries with at least one judgement.
        n_missing: Judged queries for which the run has no hits.
        n_unjudged_queries: Queries of the run that are not judged and were left out.
        n_without_relevant: Judged queries none of whose documents is relevant.
    """

    measures: tuple[Measure, ...]
    query_ids: Ids
    values: NDArray[np.float64]
    compat: Compat
    n_judged_queries: int
    n_missing: int
    n_unjudged_queries: int
    n_without_relevant: int

    def __post_init__(self) -> None:
        """Check the shape and that all values are finite, and freeze."""
        if self.values.shape != (len(self.measures), len(self.query_ids)):
            raise DataError(
                f"{len(self.measures)} measures over {len(self.query_ids)} queries, but values of "
                f"shape {self.values.shape}"
            )
        if not np.isfinite(self.values).all():
            place, query = np.argwhere(~np.isfinite(self.values))[0]
            raise DataError(
                f"{self.measures[place]} of query {self.query_ids[int(query)]!r} is "
                f"{self.values[place, query]}"
            )
        object.__setattr__(self, "values", read_only(self.values))

    @cached_property
    def mean(self) -> Figures:
        """One figure per measure over all queries: the mean, or the sum of counts (``NumRet``)."""
        return Figures(
            {
                measure: math.fsum(row) / (1 if measure.summed else len(row))
                for measure, row in zip(self.measures, self.values, strict=True)
            }
        )

    def row(self, measure: str | Measure) -> NDArray[np.float64]:
        """The values of one measure, float64 ``(nq,)`` in the order of `query_ids`.

        Args:
            measure: One of the measures, in any spelling.

        Returns:
            The values, float64 ``(nq,)``.

        Raises:
            UnknownNameError: It was not evaluated.
        """
        wanted = parse_measure(measure)
        if wanted not in self.measures:
            raise UnknownNameError.among("evaluated measure", str(wanted), map(str, self.measures))
        found: NDArray[np.float64] = self.values[self.measures.index(wanted)]
        return found

    def per_query(self, measure: str | Measure) -> dict[str, float]:
        """The values of one measure by query id.

        Args:
            measure: One of the measures, in any spelling.

        Returns:
            One value per query.

        Raises:
            UnknownNameError: It was not evaluated.
        """
        return dict(zip(self.query_ids, self.row(measure).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Figures, counts and the values of each query as plain JSON."""
        return {
            "compat": self.compat,
            "measures": dict(self.mean),
            "n_judged_queries": self.n_judged_queries,
            "n_missing": self.n_missing,
            "n_unjudged_queries": self.n_unjudged_queries,
            "n_without_relevant": self.n_without_relevant,
            "per_query": {str(measure): self.per_query(measure) for measure in self.measures},
        }

    def __repr__(self) -> str:
        """Figures and counts on one line."""
        shown = zip(self.measures, self.mean.values(), strict=True)
        figures = ", ".join(f"{m} {value:.{0 if m.summed else 4}f}" for m, value in shown)
        notes = [f"{len(self.query_ids)} queries"]
        if self.n_missing:
            notes.append(f"{self.n_missing} without hits")
        if self.n_unjudged_queries:
            notes.append(f"{self.n_unjudged_queries} not judged and left out")
        if self.compat != "trec":
            notes.append(f"compat {self.compat}")
        return f"Evaluation({figures}; {', '.join(notes)})"


@dataclass(frozen=True)
class _Judged:
    """A run joined to its judgements; `judged` and `queries` are rows of averaged queries."""

    qrels: Qrels
    judged: Rows
    queries: Rows
    judged_levels: NDArray[Any]
    scale: NDArray[np.int64]
    offsets: NDArray[np.int64]
    places: NDArray[np.int32]
    levels: NDArray[Any]
    n_ret: NDArray[np.int64]


def evaluate(
    run: Run,
    qrels: Qrels,
    measures: str | Measure | Iterable[str | Measure],
    *,
    compat: Compat = "trec",
) -> Evaluation:
    """Measure a run against judgements.

    Args:
        run: The run.
        qrels: The judgements.
        measures: Measures as ir-measures names them: ``"nDCG@10"``, ``"nDCG@10 AP(rel=2)
        R@100"``, a list.
        compat: Whose rules to follow; see the module's table.

    Returns:
        The values of each query and over all queries.

    Raises:
        UnknownMeasureError: A measure that neither this package nor ir-measures computes.
        DataError: No query is judged, or the run has hits but for no judged query.
    """
    wanted = parse_measures(measures)
    if compat not in get_args(Compat):
        raise DataError(f"no compat {compat!r}; known: {', '.join(get_args(Compat))}")
    judged = np.flatnonzero(np.diff(qrels.offsets)).astype(np.int32)
    if not len(judged):
        raise DataError("the judgements judge no query, so there is nothing to average")
    queries = qrels.queries.translate(run.queries.ids)[judged]
    n_judged, n_in_run = len(judged), int((queries >= 0).sum())
    _check_overlap(run, qrels, n_in_run)
    if compat in ("beir", "mteb"):
        judged, queries = judged[queries >= 0], queries[queries >= 0]
        if not len(judged):
            raise DataError(f"compat {compat!r} averages over queries of the run; it has none")
    if compat == "beir":
        run = _without_own(run)
    elif compat == "anserini":
        run = _in_anserini_order(run)
    own = [measure for measure in wanted if measure.own]
    joined = _join(run, qrels, judged, queries, own)
    values = np.zeros((len(wanted), len(judged)), np.float64)
    for place, measure in enumerate(wanted):
        if measure.own:
            values[place] = _computed(measure, joined)
    others = [place for place, measure in enumerate(wanted) if not measure.own]
    if others:
        values[others] = _through_ir_measures([wanted[p] for p in others], run, joined)
    answered = np.diff(run.offsets)[queries[queries >= 0]] > 0
    return Evaluation(
        wanted,
        qrels.queries if len(judged) == len(qrels) else qrels.queries.take(judged),
        values,
        compat,
        n_judged_queries=n_judged,
        n_missing=n_judged - int(answered.sum()),
        n_unjudged_queries=len(run) - n_in_run,
        n_without_relevant=int((_n_graded(joined, 1) == 0).sum()),
    )


def _check_overlap(run: Run, qrels: Qrels, n_in_run: int) -> None:
    if run.n_hits and not n_in_run:
        raise DataError(
            f"not one of the run's {len(run)} queries is judged: the run has ids such as "
            f"{run.queries.ids[:3]}, the judgements {qrels.queries[:3]}; check that both belong to "
            "the same data set and split"
        )
    if run.n_hits and (run.docs.translate(qrels.docs) < 0).all():
        log.warning(
            "no document of the run is judged for any query: the run has ids such as %s, "
            "the judgements %s",
            run.docs[:3],
            qrels.docs[:3],
        )


def _without_own(run: Run) -> Run:
    own = run.queries.ids.translate(run.docs)
    return run.keep(np.repeat(own, np.diff(run.offsets)) != run.rows)


def _in_anserini_order(run: Run) -> Run:
    """Scores rounded half up to 4 digits in float32, ties by ascending id."""
    from retrievekit.kernels.order import order_hits

    rounded = np.floor((run.scores * np.float32(1e4)).astype(np.float64) + 0.5) / 1e4
    ascending = (len(run.docs) - 1 - run.docs.rank)[run.rows].astype(np.int32)
    order = order_hits(run.offsets, rounded.astype(np.float32), ascending)
    return Run(run.queries, run.docs, run.offsets, run.rows[order], run.scores[order])


def _join(
    run: Run, qrels: Qrels, judged: Rows, queries: Rows, measures: Iterable[Measure]
) -> _Judged:
    from retrievekit.kernels.measures import judge, to_levels

    depths = [
        measure.cutoff
        if isinstance(measure.cutoff, int) and dict(measure.params).get("judged_only") is not True
        else _EVERY
        for measure in measures
    ]
    judged_levels, scale = to_levels(qrels.grades)
    hits = judge(
        queries,
        run.offsets,
        run.rows,
        run.docs.translate(qrels.docs),
        judged,
        qrels.offsets,
        qrels.rows,
        judged_levels,
        len(qrels.docs),
        max(depths, default=0),
    )
    return _Judged(qrels, judged, queries, judged_levels, scale, *hits)


def _level(joined: _Judged, grade: int) -> int:
    """The lowest level whose grade is at least this one, which is 0 or above."""
    from retrievekit.kernels.measures import ZERO

    return ZERO + int(np.searchsorted(joined.scale, grade))


def _n_graded(joined: _Judged, low: int, high: int = _EVERY + 1) -> NDArray[np.int64]:
    """How many judgements of each query have a grade from `low` up to, but without, `high`."""
    from retrievekit.kernels.measures import levels_within

    found: NDArray[np.int64] = levels_within(
        joined.judged,
        joined.qrels.offsets,
        joined.judged_levels,
        _level(joined, low),
        _level(joined, high),
    )
    return found


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Quotients of two arrays ``(nq,)``, 0 where there is nothing to divide by."""
    out = np.zeros(len(above), np.float64)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _computed(measure: Measure, joined: _Judged) -> NDArray[np.float64]:
    """One measure of all queries, float64 ``(nq,)``."""
    from retrievekit.kernels import measures as kernels

    name, options = measure.name, dict(measure.params)
    nq = len(joined.judged)
    if name == "NumQ":
        return np.ones(nq)
    rel = int(options.get("rel", 1))  # type: ignore[arg-type]
    n_rel = _n_graded(joined, rel)
    low = _level(joined, rel)
    if name == "NumRel":
        return n_rel.astype(np.float64)
    offsets, places, levels = joined.offsets, joined.places, joined.levels
    n_ret = joined.n_ret
    if options.get("judged_only") is True:
        offsets, places, levels, n_ret = kernels.only_judged(offsets, places, levels)
    top = measure.cutoff if isinstance(measure.cutoff, int) else _EVERY
    tops = np.full(nq, top, np.int64)
    n_ret = np.minimum(n_ret, tops)

    if name == "nDCG":
        gains = _gains(measure, joined.scale)
        best_first = np.argsort(-gains, kind="stable")[: int((gains > 0).sum())]
        ideal = kernels.ideal_gain(
            joined.judged,
            joined.qrels.offsets,
            joined.judged_levels,
            gains,
            best_first,
            tops,
        )
        return _ratio(kernels.discounted_gain(offsets, places, levels, gains, tops), ideal)
    if name == "AP":
        return kernels.average_precision(offsets, places, levels, low, n_rel, tops)
    if name == "RR":
        return kernels.reciprocal_rank(offsets, places, levels, low, tops)
    if name == "Bpref":
        n_nonrel = _n_graded(joined, 0, rel)
        return kernels.binary_preference(offsets, levels, low, n_rel, n_nonrel)
    if name == "infAP":
        return kernels.inferred_precision(offsets, places, levels, low, n_rel)
    if name == "IPrec":
        needed = np.floor(float(measure.cutoff or 0) * n_rel + 0.5).astype(np.int64)
        return kernels.interpolated_precision(offsets, places, levels, low, needed)
    if name == "RBP":
        p = float(measure.param("p"))  # type: ignore[arg-type]
        return kernels.rank_biased_precision(offsets, places, levels, low, p, tops)
    if name == "Judged":
        return _ratio(kernels.count_from(offsets, places, levels, kernels.NEGATIVE, tops), n_ret)
    if name == "NumRet" and "rel" not in options:
        return n_ret.astype(np.float64)

    if name == "Rprec":
        tops = n_rel
    found = kernels.count_from(offsets, places, levels, low, tops)
    if name == "P":
        return _ratio(found, tops)
    if name in ("R", "Rprec", "SetR"):
        return _ratio(found, n_rel)
    if name == "Success":
        return (found > 0).astype(np.float64)
    if name == "NumRet":
        return found.astype(np.float64)
    if name == "SetP":
        relative = options.get("relative") is True
        return _ratio(found, np.minimum(n_ret, n_rel) if relative else n_ret)
    if name == "SetAP":
        return _ratio(found * found, n_ret * n_rel)
    if name == "SetF":
        # trec_eval weighs recall by beta itself, not by its square: (b + 1) P R / (R + b P)
        beta = float(measure.param("beta"))  # type: ignore[arg-type]
        precision, recall = _ratio(found, n_ret), _ratio(found, n_rel)
        below = recall + beta * precision
        return _ratio((beta + 1) * precision * recall, below)
    raise AssertionError(name)


def _gains(measure: Measure, scale: NDArray[np.int64]) -> NDArray[np.float64]:
    """The gain of each grade of a scale, float64 ``(m,)``; by default the grade itself."""
    gains = scale.astype(np.float64)
    if measure.param("dcg") == "exp-log2":
        if len(scale) and scale[-1] > 1000:
            raise DataError(f"{measure}: 2^{scale[-1]} is too large; map grades by gains={{...}}")
        return np.exp2(gains) - 1.0
    given = measure.param("gains")
    for grade, gain in given if isinstance(given, tuple) else ():
        gains[scale == grade] = gain
    return gains


def _through_ir_measures(measures: list[Measure], run: Run, joined: _Judged) -> NDArray[np.float64]:
    """Measures that ir-measures' providers compute, float64 ``(len(measures), nq)``.

    What they are handed cannot be read in two ways: falling numbers instead of scores, since each
    provider breaks ties in its own way, numbered ids, since some read only those, and no negative
    grades.
    """
    import subprocess

    import ir_measures

    qrels = joined.qrels.take(joined.judged)
    wanted: dict[Any, int] = {}
    for place, measure in enumerate(measures):
        try:
            parsed = ir_measures.parse_measure(str(measure))
        except (NameError, ValueError) as why:
            raise UnknownMeasureError(f"no measure named '{measure}': {why}") from None
        if not ir_measures.DefaultPipeline.supports(parsed):  # type: ignore[no-untyped-call]
            raise UnknownMeasureError(
                f"ir-measures knows '{measure}', but none of its installed providers computes it; "
                "https://ir-measur.es names the package that does (such as cwl-eval or pyndeval)"
            )
        wanted[parsed] = place
    judgements: dict[str, dict[str, int]] = {}
    hits: dict[str, dict[str, float]] = {}
    to_judged = run.docs.translate(qrels.docs)
    for place, row in enumerate(joined.queries.tolist()):
        part = slice(int(qrels.offsets[place]), int(qrels.offsets[place + 1]))
        grades = np.maximum(qrels.grades[part], 0).tolist()
        docs = qrels.rows[part].tolist()
        judgements[str(place)] = {f"D{d}": g for d, g in zip(docs, grades, strict=True)}
        if row < 0 or run.offsets[row] == run.offsets[row + 1]:
            continue
        rows = run.rows[run.offsets[row] : run.offsets[row + 1]]
        judged = to_judged[rows].tolist()
        names = [f"D{d}" if d >= 0 else f"U{r}" for d, r in zip(judged, rows.tolist(), strict=True)]
        hits[str(place)] = {name: float(-rank) for rank, name in enumerate(names, 1)}
    values = np.zeros((len(measures), len(qrels)), np.float64)
    try:
        for metric in ir_measures.iter_calc(list(wanted), judgements, hits):
            values[wanted[metric.measure], int(metric.query_id)] = metric.value
    except (subprocess.SubprocessError, OSError, RuntimeError, ValueError) as why:
        names = [str(measure) for measure in measures]
        raise DataError(f"ir-measures could not compute {', '.join(names)}: {why}") from why
    return values
