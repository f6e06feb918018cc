"""Fusing rankings: reciprocal ranks, weighted scores; and cutting them.

Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) reads only ranks::

    score(d) = sum over the arms that hold d of 1 / (k + rank of d in the arm)

Weighted fusion adds up scores after putting each arm's list on a common scale. What an arm says of
a document that it did not return is the caller's choice (`missing`), never a silent 0: where scores
may be negative, 0 would reward absence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import CompositionError, DataError, NonFiniteError
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import A, Stage, fingerprint_of
from retrievekit.trace import Step

Floats = NDArray[np.float64]
Scale: TypeAlias = Literal["minmax", "zscore", "none"]

_SCALES = ("minmax", "zscore", "none")


@dataclass(frozen=True)
class Reciprocal:
    """Reciprocal rank fusion; ranks count from 1, arms that lack a document add nothing.

    Args:
        k: Added to each rank, at least 0; the larger, the less the first places count.

    Raises:
        DataError: k is negative or not finite.
    """

    k: float = 60

    def __post_init__(self) -> None:
        """Check k."""
        if not (_is_number(self.k) and self.k >= 0):
            raise DataError(f"rrf needs a finite k of at least 0; got {self.k!r}")

    def parts(self, runs: Sequence[Run]) -> list[tuple[Floats, Floats]]:
        """What each run adds to the sums.

        Args:
            runs: The arms.

        Returns:
            Per arm float64 ``(hits,)`` for its hits, and float64 ``(nq,)`` for documents it lacks.
        """
        from retrievekit.kernels.fuse import reciprocals

        return [(reciprocals(run.offsets, float(self.k)), np.zeros(len(run))) for run in runs]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name and parameters."""
        return fingerprint_of({"fusion": "rrf", "version": 1, "k": float(self.k)})

    def shown(self) -> dict[str, Any]:
        """The parameters that differ from the defaults."""
        return {} if self.k == 60 else {"k": self.k}


@dataclass(frozen=True)
class Weighted:
    """Weighted sum of scaled scores.

    Args:
        weights: One per arm, finite and at least 0, not all 0; used as they are. None weighs all
            alike, with one over their number.
        normalise: The scale of each arm's list for a query: ``minmax`` maps it onto 0 to 1 (a list
            of equal scores, so a single hit too, onto 1), ``zscore`` to mean 0 and deviation 1
            (equal scores onto 0), ``none`` keeps the scores.
        missing: What an arm says of a document that it lacks: ``min`` the lower end of its scale (0
            for minmax, otherwise its smallest value), ``zero`` 0, or a value of your own on the
            arm's scale. An arm without any hit for a query says 0 under ``min``.

    Raises:
        DataError: A parameter is none of these.
    """

    weights: tuple[float, ...] | None = None
    normalise: Scale = "minmax"
    missing: Literal["min", "zero"] | float = "min"

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.normalise not in _SCALES:
            raise DataError(f"no normalisation {self.normalise!r}; known: {', '.join(_SCALES)}")
        if self.missing not in ("min", "zero") and not _is_number(self.missing):
            raise DataError(f"missing is 'min', 'zero' or a finite number; got {self.missing!r}")
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))
            if not all(_is_number(w) and w >= 0 for w in self.weights) or not any(self.weights):
                raise DataError(
                    "weights are finite numbers of at least 0, and not all 0; "
                    f"got {list(self.weights)}"
                )

    def parts(self, runs: Sequence[Run]) -> list[tuple[Floats, Floats]]:
        """What each run adds to the sums.

        Args:
            runs: The arms.

        Returns:
            Per arm float64 ``(hits,)`` for its hits, and float64 ``(nq,)`` for documents it lacks.

        Raises:
            DataError: There are more or fewer weights than arms.
        """
        from retrievekit.kernels.fuse import MINMAX, NONE, ZSCORE, scaled

        how = {"minmax": MINMAX, "zscore": ZSCORE, "none": NONE}[self.normalise]
        weights = self.weights or (1.0 / len(runs),) * len(runs)
        if len(weights) != len(runs):
            raise DataError(f"{len(runs)} arms, but {len(weights)} weights; give one per arm")
        out = []
        for run, weight in zip(runs, weights, strict=True):
            values, ends = scaled(run.offsets, run.scores, how)
            if self.missing != "min":
                ends = np.full(len(run), 0.0 if self.missing == "zero" else float(self.missing))
            out.append((weight * values, weight * ends))
        return out

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name and parameters."""
        weights = None if self.weights is None else [float(w) for w in self.weights]
        missing = self.missing if isinstance(self.missing, str) else float(self.missing)
        return fingerprint_of(
            {
                "fusion": "weighted",
                "version": 1,
                "weights": weights,
                "normalise": self.normalise,
                "missing": missing,
            }
        )

    def shown(self) -> dict[str, Any]:
        """The parameters that differ from the defaults."""
        given = {"weights": self.weights, "normalise": self.normalise, "missing": self.missing}
        usual = {"weights": None, "normalise": "minmax", "missing": "min"}
        return {name: value for name, value in given.items() if value != usual[name]}


Method: TypeAlias = Reciprocal | Weighted


def fuse_runs(
    runs: Sequence[Run], method: Method | None = None, *, depth: int | None = None
) -> Run:
    """Fuse runs over the same queries into one that holds all their documents.

    The order of the runs does not change the answer (weights go with their runs). Document rows of
    different `Ids` are translated.

    Args:
        runs: At least one. The queries are those of the first; where another run lacks one of them,
            it has no hits for it.
        method: `Reciprocal` (the default) or `Weighted`.
        depth: Cut each run to its first hits; None keeps all.

    Returns:
        The fused run; its trace is that of the first run.

    Raises:
        DataError: No runs, a run has queries that the first lacks, or parameters do not fit.
        NonFiniteError: A sum does not fit into float32; names the query.
    """
    from retrievekit.kernels.fuse import summed
    from retrievekit.kernels.order import sort_hits

    if not runs:
        raise DataError("fusing needs at least one run")
    queries = runs[0].queries
    _check_depth(depth)
    aligned = [run if run.queries.ids == queries.ids else run.with_queries(queries) for run in runs]
    if depth is not None:
        aligned = [run.top(depth) for run in aligned]
    docs = aligned[0].docs
    for run in aligned[1:]:
        docs = docs.union(run.docs)
    aligned = [run.with_docs(docs) for run in aligned]

    parts = (method or Reciprocal()).parts(aligned)
    begins = np.cumsum([0, *(run.n_hits for run in aligned[:-1])])
    offsets, rows, scores = summed(
        np.stack([run.offsets + begin for run, begin in zip(aligned, begins, strict=True)]),
        np.concatenate([run.rows for run in aligned]),
        np.concatenate([values for values, _ in parts]),
        np.stack([absent for _, absent in parts]),
    )
    finite = np.isfinite(scores)
    if not finite.all():
        place = int(np.argmin(finite))
        query = int(np.searchsorted(offsets, place, side="right")) - 1
        raise NonFiniteError(
            f"query {queries.ids[query]!r}, document {docs[int(rows[place])]!r}: the fused score "
            f"is {scores[place]} as float32; put the arms on a scale first (normalise='minmax')"
        )
    rows, scores = sort_hits(offsets, scores, rows, docs.rank, docs.order)
    return Run(queries, docs, offsets, rows, scores, trace=runs[0].trace)


@dataclass(frozen=True)
class Fusion(Stage[A, Run]):
    """Several stages on the same batch, their runs fused; what `rrf` and `weighted` build.

    Args:
        stages: At least one stage, all of which take the same noun and give a `Run`.
        method: How the runs are fused.
        depth: Cut each arm to its first hits; None keeps all.

    Raises:
        CompositionError: No stages, a stage that gives no run, or stages that take different nouns.
        DataError: The depth is no positive integer, or weights do not fit the stages.
    """

    stages: tuple[Stage[A, Run], ...]
    method: Method
    depth: int | None = None

    def __post_init__(self) -> None:
        """Check that the arms fit each other."""
        name = self.name
        if not self.stages:
            raise CompositionError(
                f"{name}() needs at least one stage, such as {name}(bm25, dense)"
            )
        first: Any = self.stages[0]
        for stage in self.stages:
            if not isinstance(stage, Stage):
                hint = "; fuse runs with fuse_runs([...])" if isinstance(stage, Run) else ""
                raise CompositionError(f"{name}() fuses stages, but was given {stage!r}{hint}")
            if stage.gives is not Run:
                raise CompositionError(
                    f"{name}() fuses stages that give a Run, but {stage!r} gives "
                    f"{stage.gives.__name__}; put a searcher behind it"
                )
            if stage.takes is not first.takes:
                raise CompositionError(
                    f"{name}() cannot give one batch to {first!r}, which takes "
                    f"{first.takes.__name__}, and to {stage!r}, which takes {stage.takes.__name__}"
                )
        _check_depth(self.depth)
        weights = self.method.weights if isinstance(self.method, Weighted) else None
        if weights is not None and len(weights) != len(self.stages):
            raise DataError(f"{name}() has {len(self.stages)} stages, but {len(weights)} weights")
        object.__setattr__(self, "takes", first.takes)
        object.__setattr__(self, "gives", Run)
        object.__setattr__(self, "deterministic", all(s.deterministic for s in self.stages))

    def __call__(self, batch: A, /) -> Run:
        """Run all arms, each with its own steps in the trace, and fuse.

        Raises:
            FormError: The batch is not of the type that the arms take.
        """
        self.check_takes(batch)
        runs = self._arms(batch)
        start = time.perf_counter()
        out = self._fused(batch, runs)
        return self._noted(batch, out, time.perf_counter() - start)

    def apply(self, batch: A) -> Run:
        """Run all arms and fuse."""
        return self._fused(batch, self._arms(batch))

    def _arms(self, batch: A) -> list[Run]:
        return [stage(batch) for stage in self.stages]

    def _fused(self, batch: A, runs: Sequence[Run]) -> Run:
        fused = fuse_runs(runs, self.method, depth=self.depth)
        queries = batch if isinstance(batch, Queries) else batch.queries
        before: tuple[Step, ...] = batch.trace
        steps = tuple(step for run in runs for step in run.trace[len(before) :])
        return replace(fused, queries=queries, trace=before + steps)

    def explain_parts(self, batch: A, doc_id: str) -> Mapping[str, float]:
        """What each arm adds to the document's score, by the arm's number and name.

        Args:
            batch: A batch of one query.
            doc_id: The document.

        Returns:
            One value per arm.
        """
        runs = self._arms(batch)
        if self.depth is not None:
            runs = [run.top(self.depth) for run in runs]
        out = {}
        arms = zip(self.stages, runs, self.method.parts(runs), strict=True)
        for number, (stage, run, (values, absent)) in enumerate(arms, 1):
            hit = np.flatnonzero(run.rows == run.docs.find(doc_id))
            out[f"{number}: {stage!r}"] = float(values[hit[0]] if len(hit) else absent[0])
        return out

    @property
    def children(self) -> tuple[Stage[Any, Any], ...]:
        """The arms."""
        return self.stages

    @property
    def name(self) -> str:
        """The function that builds it."""
        return "rrf" if isinstance(self.method, Reciprocal) else "weighted"

    def __repr__(self) -> str:
        """The call that builds it."""
        shown = [repr(stage) for stage in self.stages]
        shown += [f"{name}={value!r}" for name, value in self.method.shown().items()]
        if self.depth is not None:
            shown.append(f"depth={self.depth}")
        return f"{self.name}({', '.join(shown)})"


def rrf(*stages: Stage[A, Run], k: float = 60, depth: int | None = None) -> Stage[A, Run]:
    """Fuse stages by reciprocal ranks: a document's score is the sum of ``1 / (k + rank)``.

    Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009. Scores are not looked at, so arms need no common scale.

    Args:
        stages: The arms, usually searchers.
        k: Added to each rank, at least 0.
        depth: Cut each arm to its first hits; None keeps all that it gives.

    Returns:
        A stage that gives all documents of the arms, best first.
    """
    return Fusion(stages, Reciprocal(k), depth)


def weighted(
    *stages: Stage[A, Run],
    weights: Sequence[float] | None = None,
    normalise: Scale = "minmax",
    missing: Literal["min", "zero"] | float = "min",
    depth: int | None = None,
) -> Stage[A, Run]:
    """Fuse stages by the weighted sum of their scores, each arm's list put on a common scale first.

    Args:
        stages: The arms, usually searchers.
        weights: One per arm, at least 0; all alike by default.
        normalise: ``minmax``, ``zscore`` or ``none``; see `Weighted`.
        missing: What an arm says of a document it lacks: ``min``, ``zero`` or a number; see
            `Weighted`.
        depth: Cut each arm to its first hits; None keeps all that it gives.

    Returns:
        A stage that gives all documents of the arms, best first.
    """
    given = None if weights is None else tuple(weights)
    return Fusion(stages, Weighted(given, normalise, missing), depth)


@dataclass(frozen=True)
class Top(Stage[Run, Run]):
    """The first hits of each query; what `top` builds.

    Args:
        k: How many, at least 1.

    Raises:
        DataError: k is no positive integer.
    """

    k: int
    takes = Run
    gives = Run

    def __post_init__(self) -> None:
        """Check k."""
        if not _is_count(self.k):
            raise DataError(f"top() keeps a whole number of hits, at least 1; got {self.k!r}")

    def apply(self, batch: Run) -> Run:
        """Cut."""
        return batch.top(self.k)

    @property
    def name(self) -> str:
        """The function that builds it."""
        return "top"

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"top({self.k})"


def top(k: int) -> Stage[Run, Run]:
    """Keep the first k hits of each query.

    Args:
        k: How many, at least 1.

    Returns:
        The stage.
    """
    return Top(k)


def _is_number(value: Any) -> bool:
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return plain and math.isfinite(float(value))


def _is_count(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and int(value) >= 1


def _check_depth(depth: int | None) -> None:
    if depth is not None and not _is_count(depth):
        raise DataError(f"depth is a whole number of hits, at least 1, or None; got {depth!r}")
