"""Significance equals SciPy and arithmetic, and is defined where the formulas end."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError, NonFiniteError, UnknownNameError
from retrievekit.evaluate.compute import Evaluation, evaluate
from retrievekit.evaluate.measures import parse_measure
from retrievekit.evaluate.significance import (
    adjust,
    bootstrap_interval,
    compare,
    paired_t_test,
    randomisation_test,
)
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels
from retrievekit.run import Run

values = st.floats(0, 1, width=32)
pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(values, min_size=n, max_size=n), st.lists(values, min_size=n, max_size=n)
    )
)


def evaluation(row: list[float], ids: list[str] | None = None) -> Evaluation:
    names = Ids.from_strings(ids or [f"q{i}" for i in range(len(row))])
    return Evaluation((parse_measure("AP"),), names, np.array([row]), "trec", len(row), 0, 0, 0)


# The t-test ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 50, 300, 5000])
@pytest.mark.parametrize("shift", [0.0, 0.01, 0.2])
def test_t_test_equals_scipy(n: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    a = rng.beta(0.5, 0.7, n) + shift
    b = np.where(rng.random(n) < 0.3, a, rng.beta(0.5, 0.7, n))
    b[0], b[1] = a[0] - 0.3, a[1] + 0.1
    expected = scipy.stats.ttest_rel(a, b)
    t, p = paired_t_test(a, b)
    assert t == pytest.approx(expected.statistic, rel=1e-9)
    assert p == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)


def test_t_test_by_hand() -> None:
    # d = 1, 2, 3: mean 2, sd 1, t = 2 / (1 / sqrt 3)
    t, p = paired_t_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert t == pytest.approx(2 * math.sqrt(3))
    # Student's distribution with 2 degrees of freedom has a closed form
    assert p == pytest.approx(1 - t / math.sqrt(2 + t * t))


# The randomisation test ---------------------------------------------------------------------------


def all_signs(differences: list[float]) -> float:
    """The slow, obvious way."""
    seen = abs(sum(differences))
    every = list(itertools.product([1, -1], repeat=len(differences)))
    sums = [
        abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) for signs in every
    ]
    return sum(value >= seen - 1e-9 for value in sums) / len(every)


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=10))
def test_randomisation_is_exact_for_few_queries(differences: list[int]) -> None:
    scaled = [d / 10 for d in differences]
    p = randomisation_test(scaled, [0.0] * len(scaled))
    assert p == pytest.approx(all_signs(scaled), abs=1e-12)
    assert randomisation_test(scaled, [0.0] * len(scaled), seed=9) == p


@pytest.mark.parametrize("n", [5, 12])
def test_randomisation_equals_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.random(n), rng.random(n)

    def mean_difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(x - y, axis=axis)

    expected = scipy.stats.permutation_test(
        (a, b), mean_difference, permutation_type="samples", n_resamples=math.inf, vectorized=True
    )
    assert randomisation_test(a, b) == pytest.approx(expected.pvalue, abs=1e-9)


def test_sampled_randomisation_agrees_with_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    a = rng.random(20)
    b = a - rng.normal(0.08, 0.2, 20)
    exact = randomisation_test(a, b)
    # Twice the same differences on 40 queries is another test; compare with the t-test there.
    a, b = np.tile(a, 2), np.tile(b, 2)
    sampled = randomisation_test(a, b, permutations=100_000, seed=3)
    assert sampled == randomisation_test(a, b, permutations=100_000, seed=3)
    assert sampled < exact
    assert sampled == pytest.approx(paired_t_test(a, b)[1], abs=0.01)


def test_sampled_randomisation_has_the_right_rate() -> None:
    rng = np.random.default_rng(2)
    differences = rng.choice([-1.0, 1.0], 25) * 0.1
    # Sums of 25 signs are a binomial: the chance of at least this many of one kind, on both sides
    k = int((differences > 0).sum())
    expected = min(1.0, 2 * scipy.stats.binom.sf(max(k, 25 - k) - 1, 25, 0.5))
    p = randomisation_test(differences, np.zeros(25), permutations=200_000)
    assert p == pytest.approx(expected, abs=0.005)


def test_many_queries_stand_in_bounded_memory() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(30_000), rng.random(30_000)
    assert 0 < randomisation_test(a, b, permutations=1_000) <= 1
    low, high = bootstrap_interval(a - b, resamples=500)
    assert low < (a - b).mean() < high


# The bootstrap ------------------------------------------------------------------------------------


def test_bootstrap_agrees_with_scipy_and_the_normal_interval() -> None:
    rng = np.random.default_rng(6)
    d = rng.normal(0.05, 0.2, 400)
    low, high = bootstrap_interval(d, seed=1)
    expected = scipy.stats.bootstrap(
        (d,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(expected), abs=0.001)
    half = 1.96 * d.std(ddof=1) / math.sqrt(400)
    assert (low, high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.002)
    assert bootstrap_interval(d, seed=1) == (low, high)
    narrow = bootstrap_interval(d, confidence=0.5, seed=1)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("row", [[0.25], [0.25] * 7, [0.0, 0.0]])
def test_bootstrap_of_one_value_is_that_value(row: list[float]) -> None:
    assert bootstrap_interval(row) == (row[0], row[0])


# Corrections --------------------------------------------------------------------------------------


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03]
    assert adjust(p, "bonferroni").tolist() == pytest.approx([0.03, 0.12, 0.09])
    assert adjust(p, "holm").tolist() == pytest.approx([3 * 0.01, 2 * 0.03, 2 * 0.03])
    assert adjust(p, "bh").tolist() == pytest.approx([3 * 0.01, 3 * 0.04 / 3, 3 * 0.04 / 3])
    assert adjust(p, None).tolist() == p
    assert adjust([0.9, 0.8], "holm").tolist() == [1.0, 1.0]
    assert adjust([], "holm").tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_obey_their_laws(p: list[float]) -> None:
    before = np.array(p)
    assert adjust(p, "bh") == pytest.approx(scipy.stats.false_discovery_control(p), abs=1e-9)
    holm, bonferroni, bh = adjust(p, "holm"), adjust(p, "bonferroni"), adjust(p, "bh")
    assert (before <= bh + 1e-15).all()
    assert (bh <= holm + 1e-15).all()
    assert (holm <= bonferroni + 1e-15).all()
    assert (bonferroni <= 1).all()
    assert (np.diff(holm[np.argsort(before, kind="stable")]) >= 0).all()


# compare ------------------------------------------------------------------------------------------

QRELS = Qrels.from_dict({f"q{i}": {"a": 1, "b": 2} for i in range(6)})


def run(ranks: list[int]) -> Run:
    """A run that has the relevant "a" at these ranks, with nothing else that is judged."""
    return Run.from_dict(
        {
            f"q{i}": {("a" if place == rank else f"x{place}"): -place for place in range(1, 5)}
            for i, rank in enumerate(ranks)
        }
    )


SYSTEMS = {
    "base": run([1, 2, 2, 3, 4, 4]),
    "better": run([1, 1, 1, 2, 2, 3]),
    "worse": run([2, 2, 4, 4, 4, 4]),
}


def test_compare_by_hand() -> None:
    found = compare(SYSTEMS, QRELS, "mrr@10", baseline="base")
    assert list(found) == ["better", "worse"]
    better = found["better"]
    base_rr = np.array([1, 1 / 2, 1 / 2, 1 / 3, 1 / 4, 1 / 4])
    rr = np.array([1, 1, 1, 1 / 2, 1 / 2, 1 / 3])
    d = rr - base_rr
    assert better.measure == "RR@10"
    assert (better.n, better.wins, better.ties, better.losses) == (6, 5, 1, 0)
    assert better.mean == pytest.approx(rr.mean())
    assert better.baseline_mean == pytest.approx(base_rr.mean())
    assert better.difference == pytest.approx(d.mean())
    assert better.effect_size == pytest.approx(d.mean() / d.std(ddof=1))
    expected = scipy.stats.ttest_rel(rr, base_rr)
    assert better.t == pytest.approx(expected.statistic, rel=1e-9)
    assert better.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert better.p_randomisation == 2 / 2**5
    assert better.ci_low < better.difference < better.ci_high
    both = [found["better"], found["worse"]]
    holm = adjust([c.p for c in both], "holm")
    assert [c.p_adjusted for c in both] == pytest.approx(holm.tolist())
    assert found["worse"].difference < 0


def test_verdicts_and_their_disagreement() -> None:
    better = compare(SYSTEMS, QRELS, "RR", baseline="base", correction=None)["better"]
    # The t-test says p = 0.016, the randomisation test, exactly, 2 / 2^5 = 0.0625.
    assert better.significant(0.05)
    assert better.tests_disagree(0.05)
    assert not better.significant(0.001)
    assert not better.tests_disagree(0.5)
    text = repr(compare(SYSTEMS, QRELS, "RR", baseline="base", correction=None))
    assert text.startswith("RR against base, correction none\nbetter: +")
    assert "the tests disagree" in text


def test_runs_and_evaluations_give_the_same() -> None:
    evaluations = {name: evaluate(r, QRELS, "RR AP") for name, r in SYSTEMS.items()}
    assert compare(evaluations, None, "RR", baseline="base") == compare(
        SYSTEMS, QRELS, "RR", baseline="base"
    )


def test_companions_change_nothing_but_the_correction() -> None:
    whole = compare(SYSTEMS, QRELS, "RR", baseline="base", correction=None)
    alone = {name: SYSTEMS[name] for name in ("worse", "base")}
    assert compare(alone, QRELS, "RR", baseline="base")["worse"] == whole["worse"]


def test_swapping_the_baseline_turns_signs_round() -> None:
    two = {name: SYSTEMS[name] for name in ("base", "better")}
    there = compare(two, QRELS, "RR", baseline="base")["better"]
    back = compare(two, QRELS, "RR", baseline="better")["base"]
    assert (there.t, there.p, there.wins) == pytest.approx((-back.t, back.p, back.losses))
    assert there.difference == -back.difference
    assert there.p_randomisation == back.p_randomisation


def test_queries_are_paired_by_id_not_by_place() -> None:
    a = evaluation([0.1, 0.5, 0.9], ["x", "y", "z"])
    b = evaluation([0.9, 0.1, 0.5], ["z", "x", "y"])
    contrast = compare({"a": a, "b": b}, None, "AP", baseline="a")["b"]
    assert contrast.ties == 3


def test_plain_json() -> None:
    told = json.loads(json.dumps(compare(SYSTEMS, QRELS, "RR", baseline="base").to_dict()))
    assert (told["baseline"], told["correction"], told["measure"]) == ("base", "holm", "RR")
    assert [c["system"] for c in told["contrasts"]] == ["better", "worse"]


# Where the formulas end ---------------------------------------------------------------------------


@given(pairs)
def test_nothing_is_ever_nan(pair: tuple[list[float], list[float]]) -> None:
    a, b = pair
    found = compare(
        {"a": evaluation(a), "b": evaluation(b)},
        None,
        "AP",
        baseline="a",
        permutations=200,
        resamples=100,
    )["b"]
    numbers = [v for v in vars(found).values() if isinstance(v, float)]
    assert not any(math.isnan(v) for v in numbers)
    assert all(0 <= p <= 1 for p in (found.p, found.p_adjusted, found.p_randomisation_adjusted))
    assert found.p_randomisation > 0
    assert found.wins + found.ties + found.losses == found.n == len(a)
    assert found.ci_low - 1e-12 <= found.difference <= found.ci_high + 1e-12 or len(a) > 1


def test_one_query_proves_nothing() -> None:
    found = compare({"a": evaluation([0.1]), "b": evaluation([0.9])}, None, "AP", baseline="a")["b"]
    assert (found.t, found.p, found.p_randomisation, found.effect_size) == (0.0, 1.0, 1.0, 0.0)
    assert found.ci_low == found.ci_high == found.difference == pytest.approx(0.8)


def test_no_difference_is_no_difference() -> None:
    same = [0.1, 0.4, 1.0]
    found = compare({"a": evaluation(same), "b": evaluation(same)}, None, "AP", baseline="a")["b"]
    assert (found.t, found.p, found.p_randomisation, found.effect_size) == (0.0, 1.0, 1.0, 0.0)
    assert (found.wins, found.ties, found.losses) == (0, 3, 0)
    # What differs by rounding alone is the same.
    assert paired_t_test([0.1 + 0.2, 0.5], [0.3, 0.5]) == (0.0, 1.0)


def test_one_difference_everywhere_is_infinitely_sure() -> None:
    a = [0.1, 0.2, 0.3, 0.4]
    b = [value + 0.3 for value in a]  # not exactly 0.3 each, in binary
    found = compare({"a": evaluation(a), "b": evaluation(b)}, None, "AP", baseline="a")["b"]
    assert (found.t, found.p, found.effect_size) == (math.inf, 0.0, math.inf)
    assert found.p_randomisation == 2 / 2**4
    assert found.to_dict()["t"] is None
    assert paired_t_test(a, b) == (-math.inf, 0.0)


def test_what_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'base'"):
        compare(SYSTEMS, QRELS, "RR", baseline="bas")
    with pytest.raises(DataError, match="is a run; give the judgements"):
        compare(SYSTEMS, None, "RR", baseline="base")
    with pytest.raises(DataError, match="holm, bonferroni, bh"):
        compare(SYSTEMS, QRELS, "RR", baseline="base", correction="sidak")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not the same ones"):
        compare({"a": evaluation([1.0]), "b": evaluation([1.0, 0.5])}, None, "AP", baseline="a")
    with pytest.raises(DataError, match="not the same ones"):
        compare(
            {"a": evaluation([1.0], ["x"]), "b": evaluation([1.0], ["y"])}, None, "AP", baseline="a"
        )
    with pytest.raises(UnknownNameError, match="AP"):
        compare({"a": evaluation([1.0]), "b": evaluation([1.0])}, None, "RR", baseline="a")
    for function in (paired_t_test, randomisation_test):
        with pytest.raises(DataError, match="paired"):
            function([], [])
        with pytest.raises(DataError, match="paired"):
            function([1.0], [1.0, 2.0])
        with pytest.raises(NonFiniteError):
            function([math.nan], [1.0])
        for strange in (["1", "2"], [b"1", b"2"], [None, 1.0], [1j, 2.0], [[1.0], [1.0, 2.0]]):
            for one, other in ((strange, [0, 1]), ([0, 1], strange)):
                with pytest.raises(DataError, match="values are"):
                    function(one, other)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no query"):
        bootstrap_interval([])
    with pytest.raises(DataError, match="confidence"):
        bootstrap_interval([1.0, 2.0], confidence=1.0)
    with pytest.raises(DataError, match="real numbers"):
        bootstrap_interval(["1", "2"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="real numbers"):
        adjust(["0.1"], "holm")  # type: ignore[arg-type]
    assert paired_t_test([True, True, False], [0, 1, 0]) == paired_t_test([1.0, 1, 0], [0, 1, 0])
    with pytest.raises(DataError, match="permutations"):
        randomisation_test([1.0, 2.0], [0.0, 0.0], permutations=0)
    with pytest.raises(NonFiniteError):
        adjust([0.1, math.nan], "holm")


def test_the_baseline_alone_is_an_empty_comparison() -> None:
    found = compare({"base": SYSTEMS["base"]}, QRELS, "RR", baseline="base")
    assert len(found) == 0
    with pytest.raises(UnknownNameError, match="none is known"):
        found["base"]
