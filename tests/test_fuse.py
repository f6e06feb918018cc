"""Fusion against arithmetic written out, and against a dictionary of dictionaries."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import CompositionError, DataError, FormError, NonFiniteError
from retrievekit.fuse import Reciprocal, Weighted, fuse_runs, rrf, top, weighted
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage, fingerprint_of, stage
from retrievekit.testing import asserting, check_run, check_stage

Dicts = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Fixed(Stage[Queries, Run]):
    """Gives the hits that it was told, by query text; shorter or no lists where it knows less."""

    label: str
    hits: dict[str, dict[str, float]] = field(hash=False)
    takes = Queries
    gives = Run

    def apply(self, batch: Queries) -> Run:
        found = {i: self.hits.get(t, {}) for i, t in zip(batch.ids, batch.texts, strict=True)}
        return Run.from_dict(found, batch)

    def __repr__(self) -> str:
        return self.label


A = Fixed("a", {"x": {"d1": 9.0, "d2": 8.0, "d3": 7.0}, "y": {"d1": 1.0}})
B = Fixed("b", {"x": {"d3": 0.9, "d4": 0.5, "d1": 0.1}})
C = Fixed("c", {"x": {"d2": -3.0, "d5": -5.0}, "y": {"d2": -1.0, "d1": -1.0}})
QUERIES = Queries.from_texts({"q1": "x", "q2": "y", "q3": "z"})


def scores(run: Run, query_id: str) -> dict[str, float]:
    return {hit.doc_id: hit.score for hit in run[query_id]}


# Golden values, as arithmetic -------------------------------------------------------------------


def test_rrf_golden():
    run = rrf(A, B)(QUERIES)
    assert scores(run, "q1") == pytest.approx(
        {
            "d1": 1 / (60 + 1) + 1 / (60 + 3),
            "d3": 1 / (60 + 3) + 1 / (60 + 1),
            "d2": 1 / (60 + 2),
            "d4": 1 / (60 + 2),
        },
        rel=1e-7,
    )
    # d1 and d3 are equal, d2 and d4 too: the larger id comes first.
    assert run["q1"].doc_ids == ["d3", "d1", "d4", "d2"]
    assert scores(run, "q2") == pytest.approx({"d1": 1 / (60 + 1)}, rel=1e-7)
    assert scores(run, "q3") == {}


def test_rrf_with_another_k_and_depth():
    run = rrf(A, B, k=0, depth=2)(QUERIES)
    assert scores(run, "q1") == pytest.approx(
        {"d1": 1 / 1, "d2": 1 / 2, "d3": 1 / 1, "d4": 1 / 2}, rel=1e-7
    )


def test_weighted_minmax_golden():
    run = weighted(A, B, weights=[0.25, 0.75])(QUERIES)
    expected = {
        "d1": 0.25 * (9 - 7) / (9 - 7) + 0.75 * 0,
        "d2": 0.25 * (8 - 7) / (9 - 7) + 0.75 * 0,  # absent from b: its lower end
        "d3": 0.25 * 0 + 0.75 * 1,
        "d4": 0.25 * 0 + 0.75 * (0.5 - 0.1) / (0.9 - 0.1),
    }
    assert scores(run, "q1") == pytest.approx(expected, rel=1e-6)
    # A single hit is the top of its scale, and b, which found nothing, says nothing.
    assert scores(run, "q2") == pytest.approx({"d1": 0.25 * 1.0})


def test_weighted_zscore_golden():
    run = weighted(A, C, weights=[1, 1], normalise="zscore")(QUERIES)
    deviation = math.sqrt(((9 - 8) ** 2 + 0 + (7 - 8) ** 2) / 3)
    low_a, low_c = (7 - 8) / deviation, -1.0  # c: -3 and -5, mean -4, deviation 1
    assert scores(run, "q1") == pytest.approx(
        {
            "d1": (9 - 8) / deviation + low_c,
            "d2": 0 + 1.0,
            "d3": (7 - 8) / deviation + low_c,
            "d5": low_a - 1.0,
        },
        abs=1e-6,
    )
    # Equal scores say nothing: 0 throughout.
    assert scores(run, "q2") == {"d1": 0.0, "d2": 0.0}


@pytest.mark.parametrize(
    ("missing", "said"), [("min", -5.0), ("zero", 0.0), (-100.0, -100.0), (2, 2.0)]
)
def test_missing_is_what_was_asked_for(missing, said):
    """Under raw negative scores a silent 0 would lift documents that an arm did not return."""
    run = weighted(A, C, weights=[1, 1], normalise="none", missing=missing)(QUERIES)
    absent_from_a = 7.0 if missing == "min" else said
    assert scores(run, "q1") == pytest.approx(
        {"d1": 9 + said, "d2": 8 - 3, "d3": 7 + said, "d5": absent_from_a - 5}, rel=1e-6
    )


def test_arm_without_hits_says_zero_unless_told_otherwise():
    nothing = Fixed("nothing", {})
    one = Queries.from_texts({"q1": "x"})
    alone = weighted(A, nothing, weights=[1, 1], normalise="none")(one)
    assert scores(alone, "q1") == scores(A(one), "q1")
    told = weighted(A, nothing, weights=[1, 1], normalise="none", missing=-2.0)(one)
    assert scores(told, "q1") == {"d1": 9 - 2, "d2": 8 - 2, "d3": 7 - 2}


def test_weights_default_to_the_mean():
    given = weighted(A, B, weights=[0.5, 0.5])(QUERIES)
    assert weighted(A, B)(QUERIES) == given


# An oracle ---------------------------------------------------------------------------------------


def ranked(hits: dict[str, float]) -> list[str]:
    return sorted(hits, key=lambda d: (hits[d], d.encode()), reverse=True)


def rrf_by_dict(arms: list[Dicts], query: str, k: float, depth: int | None) -> dict[str, float]:
    out: dict[str, float] = {}
    for arm in arms:
        for rank, doc in enumerate(ranked(arm[query])[:depth], 1):
            out[doc] = out.get(doc, 0.0) + 1 / (k + rank)
    return out


def weighted_by_dict(arms, query, weights, normalise, missing) -> dict[str, float]:
    union = {doc for arm in arms for doc in arm[query]}
    out = dict.fromkeys(union, 0.0)
    for arm, weight in zip(arms, weights, strict=True):
        hits = arm[query]
        values = list(hits.values())
        low, high = min(values, default=0.0), max(values, default=0.0)
        mean = sum(values) / len(values) if values else 0.0
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values), 1))
        if normalise == "minmax":
            scaled = {d: (v - low) / (high - low) if high > low else 1.0 for d, v in hits.items()}
            end = 0.0
        elif normalise == "zscore":
            scaled = {d: (v - mean) / deviation if high > low else 0.0 for d, v in hits.items()}
            end = min(scaled.values(), default=0.0)
        else:
            scaled, end = dict(hits), low
        end = {"min": end, "zero": 0.0}.get(missing, missing)
        for doc in union:
            out[doc] += weight * scaled.get(doc, end)
    return out


DOCS = ["a", "b", "c", "d", "é", "ö1", "ö10"]
FLOATS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 2.5]),
    st.floats(-1000, 1000, width=32, allow_subnormal=False).map(lambda x: round(x, 2)),
).map(lambda x: float(np.float32(x)))
LISTS = st.dictionaries(st.sampled_from(DOCS), FLOATS, max_size=len(DOCS))
ARMS = st.integers(1, 3).flatmap(
    lambda queries: st.lists(
        st.fixed_dictionaries({f"q{i}": LISTS for i in range(queries)}), min_size=1, max_size=4
    )
)


@given(ARMS, st.sampled_from([0, 1, 60]), st.sampled_from([None, 1, 3]))
def test_rrf_equals_a_dict_of_dicts(arms, k, depth):
    run = fuse_runs([Run.from_dict(arm) for arm in arms], Reciprocal(k), depth=depth)
    check_run(run)
    for query in arms[0]:
        assert scores(run, query) == pytest.approx(rrf_by_dict(arms, query, k, depth), rel=1e-6)


@given(
    ARMS,
    st.sampled_from(["minmax", "zscore", "none"]),
    st.sampled_from(["min", "zero", -3.5]),
    st.randoms(use_true_random=False),
)
def test_weighted_equals_a_dict_of_dicts(arms, normalise, missing, random):
    weights = tuple(random.choice([0.5, 1.0, 2.0]) for _ in arms)
    method = Weighted(weights, normalise, missing)
    run = fuse_runs([Run.from_dict(arm) for arm in arms], method)
    check_run(run)
    for query in arms[0]:
        expected = weighted_by_dict(arms, query, weights, normalise, missing)
        assert scores(run, query) == pytest.approx(expected, rel=1e-5, abs=1e-4)


# Laws --------------------------------------------------------------------------------------------


@given(ARMS, st.sampled_from([None, 2]))
def test_order_of_arms_does_not_count_to_the_last_bit(arms, depth):
    runs = [Run.from_dict(arm) for arm in arms]
    methods = [(Reciprocal(), [Reciprocal()] * 24)]
    weights = tuple(0.1 * (i + 1) for i in range(len(arms)))
    for normalise, missing in itertools.product(("minmax", "zscore", "none"), ("min", -0.3)):
        methods.append(
            (
                Weighted(weights, normalise, missing),
                [Weighted(w, normalise, missing) for w in itertools.permutations(weights)],
            )
        )
    for method, permuted in methods:
        first = fuse_runs(runs, method, depth=depth)
        for other, way in zip(permuted, itertools.permutations(runs), strict=False):
            assert fuse_runs(list(way), other, depth=depth).to_dict() == first.to_dict()


@given(ARMS)
def test_one_arm_keeps_its_ranking(arms):
    run = Run.from_dict(arms[0])
    for query in arms[0]:
        assert fuse_runs([run])[query].doc_ids == run[query].doc_ids


@given(ARMS)
def test_rows_of_different_ids_mean_the_same(arms):
    """Each run with ids of its own, and all with the same ids in another order."""
    runs = [Run.from_dict(arm) for arm in arms]
    from retrievekit.ids import Ids

    docs = Ids.from_strings([*DOCS[::-1], "never hit"])
    assert fuse_runs([run.with_docs(docs) for run in runs]) == fuse_runs(runs)


@pytest.mark.parametrize(
    "fused",
    [
        rrf(A, B),
        rrf(A, B, C, k=10, depth=2),
        rrf(A),
        weighted(A, B, C, weights=(0.1, 0.2, 0.7)),
        weighted(A, C, normalise="zscore", missing="min"),
        weighted(A, C, normalise="none", missing=-7.5, depth=1),
        rrf(rrf(A, B), asserting(C)) >> top(2),
    ],
    ids=repr,
)
def test_laws_of_stages(fused):
    check_stage(fused, QUERIES)
    check_stage(fused, Queries.from_texts([f"{'xyz'[i % 3]}" for i in range(9)]))


def test_laws_of_top():
    check_stage(top(2), rrf(A, B, C)(QUERIES))
    run = rrf(A, B)(QUERIES)
    assert top(2)(run)["q1"].doc_ids == run["q1"].doc_ids[:2]
    assert top(99)(run) == run


def test_inputs_and_trace():
    run = rrf(A, B)(QUERIES)
    assert [step.name for step in run.trace] == ["Fixed", "Fixed", "rrf"]
    assert run.trace[-1].n_hits == run.n_hits
    assert run.queries == QUERIES


def test_fusing_rerankers():
    """Arms may take runs, too, as long as all do."""

    def halve(run: Run) -> Run:
        return Run.from_arrays(run.queries, run.docs, run.offsets, run.rows, run.scores / 2)

    half = stage(halve, takes=Run, gives=Run, version="1")
    both = weighted(half, top(1), normalise="none", missing="zero", weights=[1, 1])
    run = A(QUERIES)
    assert scores(both(run), "q1") == {"d1": 9 / 2 + 9, "d2": 8 / 2, "d3": 7 / 2}
    check_stage(both, run)


def test_explain_names_each_arm():
    (step,) = rrf(A, B).explain("x", "d1")
    assert step["parts"] == pytest.approx({"1: a": 1 / 61, "2: b": 1 / 63})
    assert step["score"] == pytest.approx(1 / 61 + 1 / 63)
    (step,) = weighted(A, C, normalise="none", weights=[1, 2]).explain("x", "d1")
    assert step["parts"] == {"1: a": 9.0, "2: c": 2 * -5.0}


# Values, representation, fingerprints ------------------------------------------------------------


def test_repr_and_fingerprint():
    assert repr(rrf(A, B)) == "rrf(a, b)"
    assert repr(rrf(A, B, k=10, depth=100)) == "rrf(a, b, k=10, depth=100)"
    assert repr(weighted(A, B, weights=[1, 2], missing="zero")) == (
        "weighted(a, b, weights=(1, 2), missing='zero')"
    )
    assert repr(top(5)) == "top(5)"
    assert rrf(A, B).fingerprint == rrf(A, B, k=60).fingerprint
    distinct = [
        rrf(A, B), rrf(A, C), rrf(A, B, k=61), rrf(A, B, depth=3), weighted(A, B),
        weighted(A, B, missing="zero"), weighted(A, B, missing=0.5), weighted(A, B, weights=[1, 2]),
        weighted(A, B, normalise="none"), top(1), top(2),
    ]  # fmt: skip
    assert len({s.fingerprint for s in distinct}) == len(distinct)
    assert rrf(A, B).fingerprint == fingerprint_of(rrf(A, B).identity())


# Emptiness ---------------------------------------------------------------------------------------


def test_every_emptiness():
    nobody = Queries.from_texts({})
    for fused in (rrf(A, B), weighted(A, B), weighted(A, B, normalise="zscore")):
        assert len(fused(nobody)) == 0
        unknown = fused(Queries.from_texts(["nobody knows", ""]))
        assert len(unknown) == 2
        assert unknown.n_hits == 0
    empty = Run.empty(QUERIES, A(QUERIES).docs)
    assert fuse_runs([empty, empty]).n_hits == 0
    assert fuse_runs([empty, A(QUERIES)]).to_dict() == fuse_runs([A(QUERIES)]).to_dict()


def test_runs_that_lack_queries():
    a, b = Run.from_dict({"q1": {"d": 1.0}, "q2": {"d": 1.0}}), Run.from_dict({"q2": {"e": 1.0}})
    fused = fuse_runs([a, b])
    assert fused["q1"].doc_ids == ["d"]
    assert fused["q2"].doc_ids == ["e", "d"]
    with pytest.raises(DataError, match=r"queries that are not given: \['q1'\]"):
        fuse_runs([b, a])


# Errors ------------------------------------------------------------------------------------------


def test_errors_say_what_and_where():
    with pytest.raises(CompositionError, match=r"rrf\(\) needs at least one stage"):
        rrf()
    with pytest.raises(CompositionError, match=r"fuse runs with fuse_runs"):
        rrf(A, B(QUERIES))
    with pytest.raises(CompositionError, match=r"a, which takes Queries, and to top\(3\)"):
        rrf(A, top(3))

    def same(queries: Queries) -> Queries:
        return queries

    rewriter = stage(same, takes=Queries, gives=Queries, version="1")
    with pytest.raises(CompositionError, match="gives Queries; put a searcher behind it"):
        weighted(A, rewriter)
    with pytest.raises(FormError, match=r"rrf\(a, b\) takes Queries, but was given Run"):
        rrf(A, B)(A(QUERIES))
    with pytest.raises(DataError, match="at least one run"):
        fuse_runs([])
    big = Run.from_dict({"q": {"d": 3e38}})
    with pytest.raises(NonFiniteError, match="query 'q', document 'd'"):
        fuse_runs([big, big], Weighted((1.0, 1.0), "none"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rrf(A, k=-1), "k of at least 0"),
        (lambda: rrf(A, k=float("nan")), "finite k"),
        (lambda: rrf(A, k="60"), "finite k"),
        (lambda: rrf(A, depth=0), "depth is a whole number"),
        (lambda: rrf(A, depth=1.5), "depth is a whole number"),
        (lambda: weighted(A, B, weights=[1]), "2 stages, but 1 weights"),
        (lambda: weighted(A, B, weights=[0, 0]), "not all 0"),
        (lambda: weighted(A, B, weights=[1, -1]), "at least 0"),
        (lambda: weighted(A, B, weights=[1, float("inf")]), "finite numbers"),
        (lambda: weighted(A, normalise="softmax"), "known: minmax, zscore, none"),
        (lambda: weighted(A, missing="max"), "missing is 'min', 'zero' or a finite number"),
        (lambda: weighted(A, missing=float("nan")), "missing is"),
        (lambda: fuse_runs([A(QUERIES)], Weighted((1, 2))), "1 arms, but 2 weights"),
        (lambda: top(0), "at least 1"),
        (lambda: top(True), "whole number"),
        (lambda: top(2.0), "whole number"),
    ],
)
def test_parameters_are_checked_before_anything_runs(make, message):
    with pytest.raises(DataError, match=message):
        make()
