"""Whether one system is better than another by more than chance, query by query.

`compare` sets every system against a baseline on one measure: a two-sided paired t-test with
Holm's correction over all comparisons of the call (the declared family), a paired randomisation
test as a check on its assumptions, a bootstrap confidence interval of the mean difference over
queries, the standardised paired effect size (Cohen's d_z) and wins, ties and losses. With
thousands of queries nearly every difference is significant: then the effect size and the interval
decide.

What happens where the formulas end:

- no queries: an error;
- one query, or no difference on any query: t = 0, p = 1, effect size 0;
- the same difference (not 0) on every query: t and effect size infinite with its sign, p = 0, as
  SciPy has it; the randomisation test says 2 / 2^n;
- no NaN comes out of anything here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrievekit.errors import DataError, NonFiniteError, UnknownNameError
from retrievekit.evaluate.compute import Compat, Evaluation, evaluate
from retrievekit.evaluate.measures import Measure, parse_measure
from retrievekit.qrels import Qrels
from retrievekit.run import Run
from retrievekit.vectors import check_kind

Correction = Literal["holm", "bonferroni", "bh"]

PERMUTATIONS = 100_000
"""Sign assignments that the randomisation test samples where it cannot try all."""

RESAMPLES = 10_000
"""Bootstrap samples of queries behind a confidence interval."""

_EXACT_BELOW = 20
_SAME = 1e-12  # two values this near, relative to the largest, are one value computed twice
_BLOCK = 4_000_000  # numbers that stand in memory at a time


@dataclass(frozen=True)
class Contrast:
    """One system against the baseline on one measure.

    Args:
        system: The system.
        baseline: What it is compared with.
        measure: The measure.
        n: Queries that both were averaged over.
        mean: Mean of the system.
        baseline_mean: Mean of the baseline.
        difference: Mean difference, system minus baseline.
        ci_low: Lower end of the 95 % bootstrap interval of the mean difference.
        ci_high: Its upper end.
        t: Statistic of the paired t-test; infinite where all differences are one value but 0.
        p: Two-sided p-value of the t-test.
        p_adjusted: The same after the correction over the family.
        p_randomisation: Two-sided p-value of the paired randomisation test.
        p_randomisation_adjusted: The same after the correction over the family.
        effect_size: Cohen's d_z: mean difference over the standard deviation of differences.
        wins: Queries on which the system is better.
        ties: Queries on which both are equal.
        losses: Queries on which the baseline is better.
    """

    system: str
    baseline: str
    measure: str
    n: int
    mean: float
    baseline_mean: float
    difference: float
    ci_low: float
    ci_high: float
    t: float
    p: float
    p_adjusted: float
    p_randomisation: float
    p_randomisation_adjusted: float
    effect_size: float
    wins: int
    ties: int
    losses: int

    def significant(self, alpha: float = 0.05) -> bool:
        """Whether the corrected t-test finds a difference.

        Args:
            alpha: The rate of false alarms over the family that is put up with.

        Returns:
            Whether ``p_adjusted`` is below `alpha`.
        """
        return self.p_adjusted < alpha

    def tests_disagree(self, alpha: float = 0.05) -> bool:
        """Whether the two corrected tests differ in their verdict.

        Args:
            alpha: The rate of false alarms over the family that is put up with.

        Returns:
            Whether one p-value is below `alpha` and the other is not; then report both.
        """
        return self.significant(alpha) != (self.p_randomisation_adjusted < alpha)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON; infinite values are None."""
        return {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Comparison(Mapping[str, Contrast]):
    """What `compare` found: one `Contrast` per system other than the baseline, by name.

    Args:
        baseline: What all were compared with.
        measure: The measure.
        correction: How p-values were corrected, or None.
        contrasts: One per system, in the order given.
    """

    baseline: str
    measure: Measure
    correction: Correction | None
    contrasts: tuple[Contrast, ...]

    def __getitem__(self, system: str) -> Contrast:
        """The contrast of one system.

        Raises:
            UnknownNameError: No such system was compared.
        """
        for contrast in self.contrasts:
            if contrast.system == system:
                return contrast
        raise UnknownNameError.among("compared system", system, iter(self))

    def __iter__(self) -> Any:
        """The systems' names."""
        return (contrast.system for contrast in self.contrasts)

    def __len__(self) -> int:
        """How many systems were set against the baseline."""
        return len(self.contrasts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            "baseline": self.baseline,
            "measure": str(self.measure),
            "correction": self.correction,
            "contrasts": [contrast.to_dict() for contrast in self.contrasts],
        }

    def __repr__(self) -> str:
        """One line per system."""
        head = f"{self.measure} against {self.baseline}, correction {self.correction or 'none'}"
        lines = [
            f"{c.system}: {c.difference:+.4f} [{c.ci_low:+.4f}, {c.ci_high:+.4f}], "
            f"p {c.p_adjusted:.4g} (randomisation {c.p_randomisation_adjusted:.4g}), "
            f"d_z {c.effect_size:+.2f}, {c.wins}/{c.ties}/{c.losses} of {c.n}"
            + (", the tests disagree" if c.tests_disagree() else "")
            for c in self.contrasts
        ]
        return "\n".join([head, *lines])


def compare(
    systems: Mapping[str, Run | Evaluation],
    qrels: Qrels | None,
    measure: str | Measure,
    *,
    baseline: str,
    correction: Correction | None = "holm",
    compat: Compat = "trec",
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Set systems against a baseline on one measure.

    Args:
        systems: Runs, or evaluations that hold the measure, by name. Together they are the family
            over which p-values are corrected.
        qrels: The judgements; not needed where all systems are evaluations.
        measure: The measure.
        baseline: The name of the system to compare with.
        correction: ``"holm"``, ``"bonferroni"``, ``"bh"`` (Benjamini and Hochberg's false discovery
            rate) or None.
        compat: Whose rules to evaluate runs by.
        permutations: Samples of the randomisation test, where it cannot try all assignments.
        resamples: Samples behind the confidence interval.
        seed: Seeds both; the same seed gives the same figures, whatever other systems there are.

    Returns:
        One contrast per system other than the baseline.

    Raises:
        UnknownNameError: No system is named `baseline`.
        DataError: Systems were averaged over different queries, or a run comes without judgements.
    """
    wanted = parse_measure(measure)
    if baseline not in systems:
        raise UnknownNameError.among("system", baseline, systems)
    _check_correction(correction)
    evaluations = {
        name: _evaluated(name, system, qrels, wanted, compat) for name, system in systems.items()
    }
    reference = evaluations[baseline]
    others = [name for name in evaluations if name != baseline]
    rows = {name: _aligned(name, evaluations[name], baseline, reference, wanted) for name in others}
    base = reference.row(wanted)
    tests = {name: paired_t_test(rows[name], base) for name in others}
    checks = {
        name: randomisation_test(rows[name], base, permutations=permutations, seed=seed)
        for name in others
    }
    adjusted = adjust([tests[name][1] for name in others], correction)
    checked = adjust([checks[name] for name in others], correction)
    contrasts = []
    for place, name in enumerate(others):
        differences = _differences(rows[name], base)
        low, high = bootstrap_interval(differences, resamples=resamples, seed=seed)
        t, p = tests[name]
        contrasts.append(
            Contrast(
                system=name,
                baseline=baseline,
                measure=str(wanted),
                n=len(base),
                mean=math.fsum(rows[name]) / len(base),
                baseline_mean=math.fsum(base) / len(base),
                difference=math.fsum(differences) / len(base),
                ci_low=low,
                ci_high=high,
                t=t,
                p=p,
                p_adjusted=float(adjusted[place]),
                p_randomisation=checks[name],
                p_randomisation_adjusted=float(checked[place]),
                effect_size=t / math.sqrt(len(base)),
                wins=int((differences > 0).sum()),
                ties=int((differences == 0).sum()),
                losses=int((differences < 0).sum()),
            )
        )
    return Comparison(baseline, wanted, correction, tuple(contrasts))


def paired_t_test(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """Student's two-sided t-test of paired values.

    Args:
        a: Floats ``(n,)``.
        b: Floats ``(n,)``, those of the same queries.

    Returns:
        The statistic t = mean(d) / (sd(d) / sqrt(n)) with d = a - b, and its p-value.

    Raises:
        DataError: There is no query, the lengths differ, or a value is no number.
    """
    from scipy.special import stdtr

    differences = _differences(a, b)
    n = len(differences)
    mean = math.fsum(differences) / n
    if n == 1 or not differences.any():
        return 0.0, 1.0
    largest = float(np.abs(differences).max())
    if float(np.abs(differences - mean).max()) <= _SAME * largest:
        return math.copysign(math.inf, mean), 0.0
    deviation = math.sqrt(math.fsum((differences - mean) ** 2) / (n - 1))
    t = mean / (deviation / math.sqrt(n))
    return t, min(1.0, 2 * float(stdtr(n - 1, -abs(t))))


def randomisation_test(
    a: ArrayLike, b: ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Fisher's two-sided paired randomisation test of the mean difference.

    If the systems were alike, each query's difference might as well have the other sign. The
    p-value is the share of sign assignments whose mean is at least as far from 0 as the one
    observed: of all 2^n where at most 20 queries differ, else of a sample, in which the observed
    one is counted too (Smucker, Allan and Carterette, CIKM 2007).

    Args:
        a: Floats ``(n,)``.
        b: Floats ``(n,)``, those of the same queries.
        permutations: Size of the sample.
        seed: Seeds the sample.

    Returns:
        The p-value, above 0.

    Raises:
        DataError: There is no query, the lengths differ, or a value is no number.
    """
    differences = _differences(a, b)
    differences = differences[differences != 0]  # a zero stays zero under either sign
    n = len(differences)
    if not n:
        return 1.0
    if permutations < 1:
        raise DataError(f"permutations is {permutations}; at least one is needed")
    # As far away but for rounding counts as at least as far away.
    bound = abs(float(differences.sum())) - _SAME * float(np.abs(differences).sum())
    if n <= _EXACT_BELOW:
        sums = np.zeros(1)
        # With the first sign held, each sum stands for its mirror image as well.
        sums = sums + differences[0]
        for value in differences[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= bound).mean())
    rng = np.random.default_rng(seed)
    total = float(differences.sum())
    reached, left = 0, permutations
    while left:
        size = min(left, max(1, _BLOCK // n))
        bits = np.unpackbits(np.frombuffer(rng.bytes(size * ((n + 7) // 8)), np.uint8))
        flips = bits.reshape(size, -1)[:, :n].astype(np.float64)
        reached += int((np.abs(total - 2 * (flips @ differences)) >= bound).sum())
        left -= size
    return (reached + 1) / (permutations + 1)


def bootstrap_interval(
    differences: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over queries (Efron 1979).

    Args:
        differences: Floats ``(n,)``.
        confidence: Share of resampled means inside the interval, between 0 and 1.
        resamples: How many times n queries are drawn with replacement.
        seed: Seeds the draws.

    Returns:
        The lower and the upper end.

    Raises:
        DataError: There is no query, a value is no number, or `confidence` or `resamples` is out
            of range.
        NonFiniteError: A value is NaN or infinite.
    """
    values = _finite(differences)
    n = len(values)
    if not n:
        raise DataError("there is no query to draw from")
    if not 0 < confidence < 1 or resamples < 1:
        raise DataError(
            f"confidence lies between 0 and 1 and resamples is at least 1; got {confidence} and "
            f"{resamples}"
        )
    if (values == values[0]).all():
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        means[start : start + size] = values[rng.integers(0, n, (size, n))].mean(axis=1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def adjust(p_values: ArrayLike, correction: Correction | None) -> NDArray[np.float64]:
    """Correct p-values for how many there are.

    Args:
        p_values: Floats ``(m,)``, the whole family.
        correction: ``"holm"`` (Holm 1979), ``"bonferroni"``, ``"bh"`` (Benjamini and Hochberg
            1995) or None.

    Returns:
        float64 ``(m,)``, each at least as large as before and at most 1.

    Raises:
        DataError: No such correction, or a p-value is no number.
        NonFiniteError: A p-value is NaN or infinite.
    """
    _check_correction(correction)
    values = _finite(p_values)
    m = len(values)
    if correction is None or not m:
        return values
    if correction == "bonferroni":
        return np.minimum(1.0, values * m)
    order = np.argsort(values, kind="stable")
    out = np.empty(m)
    if correction == "holm":
        steps = values[order] * np.arange(m, 0, -1)
        out[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    else:
        steps = values[order] * m / np.arange(1, m + 1)
        out[order] = np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1])
    return out


def _check_correction(correction: object) -> None:
    if correction is not None and correction not in get_args(Correction):
        raise DataError(
            f"no correction {correction!r}; known: {', '.join(get_args(Correction))} and None"
        )


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = check_kind(values, "biuf", "values").astype(np.float64).ravel()
    if not np.isfinite(array).all():
        raise NonFiniteError(
            "NaN and infinity cannot be compared; look for the query they come from"
        )
    return array


def _differences(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Differences of paired values; what is only rounding becomes 0."""
    left, right = _finite(a), _finite(b)
    if len(left) != len(right) or not len(left):
        raise DataError(
            f"{len(left)} and {len(right)} values cannot be paired; give as many of each"
        )
    differences = left - right
    rounding = _SAME * np.maximum(np.abs(left), np.abs(right))
    return np.where(np.abs(differences) <= rounding, 0.0, differences)


def _evaluated(
    name: str, system: Run | Evaluation, qrels: Qrels | None, measure: Measure, compat: Compat
) -> Evaluation:
    if isinstance(system, Evaluation):
        return system
    if qrels is None:
        raise DataError(f"system {name!r} is a run; give the judgements to evaluate it by")
    return evaluate(system, qrels, measure, compat=compat)


def _aligned(
    name: str, evaluation: Evaluation, baseline: str, reference: Evaluation, measure: Measure
) -> NDArray[np.float64]:
    """Values of a system in the order of the baseline's queries."""
    if evaluation.query_ids == reference.query_ids:
        return evaluation.row(measure)
    places = reference.query_ids.translate(evaluation.query_ids)
    if len(evaluation.query_ids) != len(reference.query_ids) or (places < 0).any():
        raise DataError(
            f"{name!r} was averaged over {len(evaluation.query_ids)} queries and {baseline!r} over "
            f"{len(reference.query_ids)}, not the same ones; evaluate both by compat='trec', which "
            "counts every judged query"
        )
    found: NDArray[np.float64] = evaluation.row(measure)[places]
    return found
