"""Measures equal trec_eval's own test values, pytrec_eval and published figures, and obey laws."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.data.trec import read_qrels, read_run, scan_run
from retrievekit.errors import DataError, UnknownMeasureError, UnknownNameError
from retrievekit.evaluate.compute import Evaluation, evaluate
from retrievekit.evaluate.measures import Measure, parse_measure
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run

# trec_eval's own tests ----------------------------------------------------------------------------

SAME_NAME = {
    "num_q": "NumQ",
    "num_ret": "NumRet",
    "num_rel": "NumRel",
    "num_rel_ret": "NumRet(rel=1)",
    "map": "AP",
    "Rprec": "Rprec",
    "bpref": "Bpref",
    "recip_rank": "RR",
    "infAP": "infAP",
    "ndcg": "nDCG",
    "ndcg_1=3,2=9,4=4.5": "nDCG(gains={1:3,2:9,4:4.5})",
    "rbp": "RBP(p=0.9,rel=1)",
    "set_P": "SetP",
    "set_relative_P": "SetP(relative=True)",
    "set_recall": "SetR",
    "set_map": "SetAP",
    "set_F": "SetF",
}
PREFIXES = {
    "P_": "P@",
    "recall_": "R@",
    "map_cut_": "AP@",
    "ndcg_cut_": "nDCG@",
    "success_": "Success@",
    "iprec_at_recall_": "IPrec@",
}
# What trec_eval prints besides, which ir-measures has no name for and nobody asks of us.
NOT_COMPUTED = [
    "runid",
    "relstring",
    "utility",
    "Rprec_mult",
    "relative_P",
    "G",
    "binG",
    "ndcg_rel",
    "Rndcg",
    "num_nonrel_judged_ret",
    "rbp_resid",
    "unj",
    "11pt_avg_",
]


def ours(name: str, rel: int) -> Measure | None:
    """Our measure for a line of trec_eval's output; None for those that are not computed."""
    text = SAME_NAME.get(name)
    for prefix, spelling in PREFIXES.items():
        if text is None and name.startswith(prefix):
            text = spelling + name.removeprefix(prefix)
    if text is None:
        return None
    measure = parse_measure(text)
    if rel > 1 and measure.name not in ("nDCG", "NumQ") and text != "NumRet":
        params = dict(measure.params) | {"rel": rel}
        return Measure(measure.name, measure.cutoff, tuple(sorted(params.items())))
    return measure


def geometric(values: Iterable[float]) -> float:
    logs = [math.log(max(value, 0.00001)) for value in values]
    return math.exp(sum(logs) / len(logs))


ELEVEN = [f"IPrec@{tenth / 10}" for tenth in range(11)]
DERIVED: dict[str, Callable[[Evaluation], float]] = {
    "gm_map": lambda found: geometric(found.row("AP")),
    "gm_bpref": lambda found: geometric(found.row("Bpref")),
    "11pt_avg": lambda found: sum(found.mean[m] for m in ELEVEN) / 11,
}


@pytest.mark.parametrize(
    ("output", "qrels", "results", "depth", "rel", "compared"),
    [
        ("out.test", "qrels.test", "results.test", None, 1, 30 - 1),
        ("out.test.a", "qrels.test", "results.test", None, 1, 67),
        ("out.test.aq", "qrels.test", "results.test", None, 1, 259),
        ("out.test.aqc", "qrels.test", "results.trunc", None, 1, 259),
        ("out.test.aqcM", "qrels.test", "results.trunc", 100, 1, 259),
        ("out.test.aql", "qrels.rel_level", "results.test", None, 2, 0),
        ("out.test.meas_params", "qrels.test", "results.test", None, 1, 0),
    ],
)
def test_equals_trec_evals_own_tests(
    data_dir: Path,
    output: str,
    qrels: str,
    results: str,
    depth: int | None,
    rel: int,
    compared: int,
) -> None:
    folder = data_dir / "trec_eval"
    run, report = scan_run(folder / results, errors="lenient")
    assert report.left_out == {}
    if depth is not None:
        run = run.top(depth)
    lines = [line.split() for line in (folder / output).read_text("utf-8").splitlines()]
    wanted = {name: ours(name, rel) for name, *_ in lines}
    if rel > 1:  # graded there, binary here
        wanted["rbp"] = None
    levels = [parse_measure(f"{m[:5]}(rel={rel}){m[5:]}") for m in ELEVEN]
    more = [parse_measure("AP"), parse_measure("Bpref"), *levels]
    found = evaluate(run, read_qrels(folder / qrels), [m for m in wanted.values() if m] + more)
    checked = 0
    for name, query, value in lines:
        measure = wanted[name]
        if measure is not None and query == "all":
            got = found.mean[measure]
        elif measure is not None:
            got = found.per_query(measure)[query]
        elif name in DERIVED and query == "all" and rel == 1:
            got = DERIVED[name](found)
        else:
            assert name in DERIVED or name.startswith(tuple(NOT_COMPUTED)) or name == "rbp", name
            continue
        assert got == pytest.approx(float(value), abs=0.00005000001), (name, query)
        checked += 1
    assert checked >= compared
    assert checked >= 0.6 * len(lines)
    assert found.n_judged_queries == 3
    assert found.n_missing == (1 if "c" in output.removeprefix("out.test.") else 0)


@pytest.mark.parametrize(
    ("run", "qrels", "compat", "expected", "queries"),
    [
        ("scifact.anserini-bm25-flat.run", "scifact/qrels/test.tsv", "anserini", 0.6789, 300),
        ("scifact.anserini-bm25-flat.run", "scifact/qrels/test.tsv", "trec", 0.6789, 300),
        ("nfcorpus.anserini-bm25-flat.run", "nfcorpus/qrels/test.tsv", "anserini", 0.3218, 323),
        ("nfcorpus.anserini-bm25-flat.run", "nfcorpus/qrels/test.tsv", "trec", 0.3218, 323),
        ("nfcorpus.anserini-bm25-flat.run", "nfcorpus/qrels/test.tsv", "beir", 0.3375, 308),
        ("nfcorpus.anserini-bm25-flat.run", "nfcorpus/qrels/test.tsv", "mteb", 0.3375, 308),
        ("dl19.bm25.run", "dl19-pool/qrels/full.tsv", "trec", 0.5058, 43),
        ("dl19.bm25-rm3.run", "dl19-pool/qrels/full.tsv", "trec", 0.5216, 43),
        ("dl19.tas-b.run", "dl19-pool/qrels/full.tsv", "trec", 0.7210, 43),
        ("dl19.splade-pp-ed.run", "dl19-pool/qrels/full.tsv", "trec", 0.7308, 43),
        ("dl19.repllama.run", "dl19-pool/qrels/full.tsv", "trec", 0.7384, 43),
    ],
)
def test_published_runs_have_their_published_figures(
    data_dir: Path, run: str, qrels: str, compat: str, expected: float, queries: int
) -> None:
    found = evaluate(
        read_run(data_dir / "runs" / run),
        read_qrels(data_dir / "beir" / qrels),
        "nDCG@10",
        compat=compat,  # type: ignore[arg-type]
    )
    assert round(found.mean["nDCG@10"], 4) == expected
    assert len(found.query_ids) == queries


# pytrec_eval --------------------------------------------------------------------------------------

PYTREC = {
    "map": "AP",
    "map_cut_7": "AP@7",
    "ndcg": "nDCG",
    "ndcg_cut_1": "nDCG@1",
    "ndcg_cut_10": "nDCG@10",
    "P_5": "P@5",
    "recall_10": "R@10",
    "recip_rank": "RR",
    "success_5": "Success@5",
    "Rprec": "Rprec",
    "bpref": "Bpref",
    "infAP": "infAP",
    "set_P": "SetP",
    "set_recall": "SetR",
    "set_map": "SetAP",
    "set_F": "SetF",
    "set_relative_P": "SetP(relative=True)",
    "num_ret": "NumRet",
    "num_rel_ret": "NumRet(rel=1)",
}
ASKED = {name.replace("_cut_", "_cut.") for name in PYTREC} - {"P_5", "recall_10", "success_5"}
ASKED |= {"P.5", "recall.10", "success.5"}


def tied(rng: np.random.Generator, rel: int) -> tuple[Run, Qrels]:
    """A run with few distinct scores, and judgements with some of every grade."""
    pool = [f"{prefix}{number}" for prefix in ("d", "D1", "é", "文") for number in range(12)]
    scores: dict[str, dict[str, float]] = {}
    grades: dict[str, dict[str, int]] = {}
    for query in range(5):
        size = int(rng.integers(1, len(pool)))
        docs = rng.permutation(pool)[:size].tolist()
        values = rng.integers(-2, 3, size) / 4
        scores[f"q{query}"] = dict(zip(docs, values.tolist(), strict=True))
        judged = rng.permutation(pool)[: int(rng.integers(1, 25))].tolist()
        given = rng.choice([-1, 0, 0, 1, 2, 3], len(judged)).tolist()
        # trec_eval reads past its arrays without a grade of at least the level, or 0.
        given[0] = int(rng.integers(rel, 4)) if rel > 1 else max(0, given[0])
        grades[f"q{query}"] = dict(zip(judged, given, strict=True))
    return Run.from_dict(scores), Qrels.from_dict(grades)


@pytest.mark.parametrize(("rel", "judged_only"), [(1, False), (2, False), (1, True), (2, True)])
def test_equals_pytrec_eval_on_random_runs_with_heavy_ties(rel: int, judged_only: bool) -> None:
    rng = np.random.default_rng(100 * rel + judged_only)
    asked = {}
    for theirs, text in PYTREC.items():
        measure = parse_measure(text)
        params = dict(measure.params)
        if measure.name in ("Bpref", "infAP", "SetR", "NumRet") and judged_only:
            continue
        if judged_only:
            params["judged_only"] = True
        if rel > 1 and measure.name != "nDCG" and text != "NumRet":
            params["rel"] = rel
        asked[theirs] = Measure(measure.name, measure.cutoff, tuple(sorted(params.items())))
    for _ in range(250):
        run, qrels = tied(rng, rel)
        evaluator = pytrec_eval.RelevanceEvaluator(
            qrels.to_dict(), ASKED, relevance_level=rel, judged_docs_only_flag=judged_only
        )
        expected = evaluator.evaluate(run.to_dict())
        found = evaluate(run, qrels, asked.values())
        for theirs, measure in asked.items():
            values = [expected[query][theirs] for query in found.query_ids]
            np.testing.assert_allclose(found.row(measure), values, rtol=0, atol=1e-9)


def test_interpolated_precision_equals_pytrec_eval_where_both_round_alike() -> None:
    rng = np.random.default_rng(5)
    levels = [tenth / 10 for tenth in range(11)]
    compared = 0
    for _ in range(100):
        run, qrels = tied(rng, 1)
        grades = qrels.to_dict()
        theirs = pytrec_eval.RelevanceEvaluator(grades, {"iprec_at_recall"}).evaluate(run.to_dict())
        found = evaluate(run, qrels, [f"IPrec@{level}" for level in levels])
        for query, part in theirs.items():
            n_rel = sum(grade > 0 for grade in grades[query].values())
            for level in levels:
                if math.floor(level * n_rel + 0.5) == int(level * n_rel + 0.9):
                    value = found.per_query(f"IPrec@{level}")[query]
                    assert value == pytest.approx(part[f"iprec_at_recall_{level:.2f}"], abs=1e-9)
                    compared += 1
    assert compared > 2000


@pytest.mark.parametrize(
    "measure", ["Judged@10", "Judged", "RR@3", "RR(rel=2)@10", "nDCG(gains={1:5,2:1,3:2})@10"]
)
def test_equals_ir_measures(measure: str) -> None:
    rng = np.random.default_rng(9)
    for _ in range(20):
        run, qrels = tied(rng, 2)
        falling = {q: {h.doc_id: -h.rank for h in run[q]} for q in run.queries.ids}
        parsed = ir_measures.parse_measure(measure)
        graded = qrels.to_dict()
        if measure.startswith("nDCG"):  # it maps grades before it judges who is unjudged
            graded = {q: {d: max(g, 0) for d, g in part.items()} for q, part in graded.items()}
        expected = {m.query_id: m.value for m in ir_measures.iter_calc([parsed], graded, falling)}
        assert evaluate(run, qrels, measure).per_query(measure) == pytest.approx(expected, abs=1e-9)


# By hand ------------------------------------------------------------------------------------------

RUN = Run.from_dict(
    {
        "q1": {"a": 3.0, "x": 2.0, "b": 1.0},
        "q2": {"a": 1.0},
        "stranger": {"a": 1.0, "b": 0.5},
    }
)
QRELS = Qrels.from_dict(
    {"q1": {"a": 1, "b": 3, "c": 2, "n": -1}, "q2": {"a": 0}, "q3": {"a": 1}, "none": {}}
)


def log2(value: float) -> float:
    return math.log2(value)


HAND = {
    "nDCG@10": (1 / log2(2) + 3 / log2(4)) / (3 / log2(2) + 2 / log2(3) + 1 / log2(4)),
    "nDCG@2": (1 / log2(2)) / (3 / log2(2) + 2 / log2(3)),
    "nDCG(dcg='exp-log2')@10": (1 / log2(2) + 7 / log2(4))
    / (7 / log2(2) + 3 / log2(3) + 1 / log2(4)),
    "AP": (1 / 1 + 2 / 3) / 3,
    "AP@2": 1 / 3,
    "AP(rel=2)": (1 / 3) / 2,
    "AP(judged_only=True)": (1 / 1 + 2 / 2) / 3,
    "RR": 1.0,
    "RR(rel=2)": 1 / 3,
    "RR(rel=2)@2": 0.0,
    "P@5": 2 / 5,
    "P(rel=2)@3": 1 / 3,
    "R@2": 1 / 3,
    "R@100": 2 / 3,
    "Success@1": 1.0,
    "Success(rel=3)@2": 0.0,
    "Judged@2": 1 / 2,
    "Judged@10": 2 / 3,
    "Rprec": 2 / 3,
    "SetP": 2 / 3,
    "SetR": 2 / 3,
    "SetAP": 4 / 9,
    "SetP(relative=True)": 2 / 3,
    "SetF(beta=3.0)": 4 * (2 / 3) * (2 / 3) / (2 / 3 + 3 * (2 / 3)),
    "IPrec@0.0": 1.0,
    "IPrec@0.6": 2 / 3,
    "IPrec@1.0": 0.0,
    "RBP(p=0.5,rel=1)": 0.5 * (1 + 0.25),
    "RBP(p=0.5,rel=1)@1": 0.5,
    "Bpref": 2 / 3,
    "infAP": (1 + 1 / 3 + 2 / 3 * (1 / 2) * (1.00001 / 1.00002)) / 3,
    "NumQ": 1.0,
    "NumRel": 3.0,
    "NumRel(rel=2)": 2.0,
    "NumRet": 3.0,
    "NumRet(rel=1)": 2.0,
}


@pytest.mark.parametrize("measure", HAND)
def test_arithmetic_by_hand(measure: str) -> None:
    values = evaluate(RUN, QRELS, measure).per_query(measure)
    assert values["q1"] == pytest.approx(HAND[measure], abs=1e-12)


def test_every_judged_query_counts_and_strangers_are_counted() -> None:
    found = evaluate(RUN, QRELS, "nDCG@10 RR NumRet NumRel NumQ Judged@10")
    assert list(found.query_ids) == ["q1", "q2", "q3"]
    assert found.n_judged_queries == 3  # "none" has no judgement
    assert found.n_missing == 1  # q3
    assert found.n_unjudged_queries == 1
    assert found.n_without_relevant == 1  # q2: counts as 0, as trec_eval has it
    assert found.per_query("RR") == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert found.mean["RR"] == pytest.approx(1 / 3)
    assert found.mean["NumRet"] == 4.0
    assert found.mean["NumRel"] == 4.0
    assert found.mean["NumQ"] == 3.0
    assert found.per_query("Judged@10") == {"q1": 2 / 3, "q2": 1.0, "q3": 0.0}


def test_a_query_without_relevant_documents_counts_in_pytrec_eval_too() -> None:
    grades = {"q1": {"a": 1}, "q2": {"a": 0}}
    hits = {"q1": {"a": 1.0}, "q2": {"a": 1.0}}
    theirs = pytrec_eval.RelevanceEvaluator(grades, {"map"}).evaluate(hits)
    assert sorted(theirs) == ["q1", "q2"]
    assert evaluate(Run.from_dict(hits), Qrels.from_dict(grades), "AP").mean["AP"] == 1 / 2


# compat -------------------------------------------------------------------------------------------


def test_anserini_order_rounds_scores_and_breaks_ties_upwards() -> None:
    # 1.00004 and 0.99996 are both 1.0000; then "a" comes before "b".
    run = Run.from_dict({"q": {"b": 1.00004, "a": 0.99996, "c": 0.9999}})
    qrels = Qrels.from_dict({"q": {"a": 1}})
    assert evaluate(run, qrels, "RR").mean["RR"] == 1 / 2
    assert evaluate(run, qrels, "RR", compat="anserini").mean["RR"] == 1 / 1
    assert run["q"].doc_ids == ["b", "a", "c"]  # the run itself is as it was


def test_beir_drops_the_own_document_and_counts_the_run_s_queries() -> None:
    run = Run.from_dict({"1": {"1": 9.0, "2": 1.0}, "2": {}, "5": {"1": 1.0}})
    qrels = Qrels.from_dict({"1": {"2": 1}, "2": {"1": 1}, "3": {"1": 1}})
    by = {
        compat: evaluate(run, qrels, "RR", compat=compat)  # type: ignore[arg-type]
        for compat in ("trec", "anserini", "beir", "mteb")
    }
    assert by["trec"].mean["RR"] == by["anserini"].mean["RR"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert by["beir"].mean["RR"] == (1 / 1 + 0) / 2
    assert by["mteb"].mean["RR"] == (1 / 2 + 0) / 2
    assert all(found.n_judged_queries == 3 for found in by.values())
    assert all(found.n_missing == 2 for found in by.values())
    assert all(found.n_unjudged_queries == 1 for found in by.values())


def test_beir_equals_its_recipe_over_pytrec_eval() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        run, qrels = tied(rng, 1)
        names = dict(zip(run.queries.ids, ["d1", "d2", "é3", "d4", "d5"], strict=True))
        hits = {names[q]: part for q, part in run.to_dict().items() if q != "q4"}
        grades = {names[q]: part for q, part in qrels.to_dict().items()}
        dropped = {q: {d: s for d, s in p.items() if d != q} for q, p in hits.items()}
        scores = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.10"}).evaluate(dropped)
        expected = sum(part["ndcg_cut_10"] for part in scores.values()) / len(scores)
        found = evaluate(Run.from_dict(hits), Qrels.from_dict(grades), "nDCG@10", compat="beir")
        assert found.mean["nDCG@10"] == pytest.approx(expected, abs=1e-9)


def test_unknown_compat_is_refused() -> None:
    with pytest.raises(DataError, match="anserini"):
        evaluate(RUN, QRELS, "AP", compat="lucene")  # type: ignore[arg-type]


# Laws ---------------------------------------------------------------------------------------------

EVERY = [m for m in HAND if not m.startswith(("Num", "RBP"))]
cases = st.builds(
    lambda seed, rel: tied(np.random.default_rng(seed), rel), st.integers(0, 2**32), st.just(1)
)


@given(cases)
def test_values_lie_between_0_and_1(case: tuple[Run, Qrels]) -> None:
    found = evaluate(*case, EVERY)
    assert found.values.min() >= 0.0
    assert found.values.max() <= 1.0 + 1e-12
    assert not found.values.flags.writeable


@given(cases)
def test_a_perfect_ranking_is_worth_1(case: tuple[Run, Qrels]) -> None:
    grades = case[1].to_dict()
    run = Run.from_dict({q: {d: float(g) for d, g in part.items()} for q, part in grades.items()})
    found = evaluate(run, case[1], ["nDCG@10", "nDCG", "Rprec", "AP", "RR"])
    relevant = [any(grade > 0 for grade in part.values()) for part in grades.values()]
    assert found.values.tolist() == pytest.approx(np.array([relevant] * 5, float))


@given(cases, st.permutations(range(5)))
def test_queries_do_not_depend_on_their_companions(
    case: tuple[Run, Qrels], order: list[int]
) -> None:
    run, qrels = case
    whole = evaluate(run, qrels, EVERY)
    shuffled = evaluate(run.take(np.array(order)), qrels.take(np.array(order[::-1])), EVERY)
    assert dict(shuffled.mean) == dict(whole.mean)
    for row, query in enumerate(qrels.queries):
        alone = evaluate(run, qrels.take(np.array([row])), EVERY)
        assert alone.values[:, 0].tolist() == whole.values[:, row].tolist(), query


@given(cases)
def test_document_numbering_does_not_matter(case: tuple[Run, Qrels]) -> None:
    run, qrels = case
    wider = Ids.from_strings(["extra", *sorted(run.docs), "more"])
    assert np.array_equal(
        evaluate(run.with_docs(wider), qrels, EVERY).values, evaluate(run, qrels, EVERY).values
    )


@given(cases)
def test_a_relevant_document_moved_up_never_costs(case: tuple[Run, Qrels]) -> None:
    run, qrels = case
    hits, grades = run.to_dict(), qrels.to_dict()
    for query, part in hits.items():
        found = [d for d in part if grades[query].get(d, 0) > 0]
        if found:
            part[found[-1]] = 99.0
    better = evaluate(Run.from_dict(hits), qrels, "AP RR P@5 R@5 Success@3 Rprec")
    before = evaluate(run, qrels, "AP RR P@5 R@5 Success@3 Rprec")
    assert (better.values >= before.values - 1e-12).all()


def test_neither_input_nor_threads_are_changed() -> None:
    import numba

    before = RUN.to_dict(), QRELS.to_dict(), numba.get_num_threads()
    for compat in ("trec", "anserini", "beir", "mteb"):
        evaluate(RUN, QRELS, [*HAND, "ERR@10"], compat=compat)  # type: ignore[arg-type]
    assert (RUN.to_dict(), QRELS.to_dict(), numba.get_num_threads()) == before


# Through ir-measures ------------------------------------------------------------------------------


def test_other_measures_go_through_ir_measures_in_our_order() -> None:
    # Tied: trec_eval's order puts "b" first; some providers would put "a" first.
    run = Run.from_dict({"q 1": {"a": 1.0, "b": 1.0}, "q2": {}})
    qrels = Qrels.from_dict({"q 1": {"a": 1}, "q2": {"a": 1, "n": -1}})
    found = evaluate(run, qrels, "RR ERR@10 Compat(p=0.8)")
    assert found.per_query("RR") == {"q 1": 1 / 2, "q2": 0.0}
    # ERR of one relevant document at rank 2: (2^1 - 1) / 2^4 / 2
    assert found.per_query("ERR@10") == pytest.approx({"q 1": 1 / 32, "q2": 0.0}, abs=1e-5)
    assert 0 < found.per_query("Compat(p=0.8)")["q 1"] < 1


def test_a_measure_without_provider_says_so() -> None:
    with pytest.raises(UnknownMeasureError, match="none of its installed providers"):
        evaluate(RUN, QRELS, "RBP(p=0.9)@10")


# Evaluation ---------------------------------------------------------------------------------------


def test_evaluation_answers_to_every_spelling() -> None:
    found = evaluate(RUN, QRELS, "nDCG@10 AP(rel=2)")
    assert found.mean["ndcg_cut_10"] == found.mean["nDCG@10"] == found.mean[found.measures[0]]
    assert list(found.mean) == ["nDCG@10", "AP(rel=2)"]
    assert len(found.mean) == 2
    assert found.per_query("map(rel=2)")["q1"] == pytest.approx(1 / 6)
    for ask in (found.mean.__getitem__, found.row, found.per_query):
        with pytest.raises(UnknownNameError, match=r"nDCG@10"):
            ask("nDCG@1")
    text = repr(found)
    assert "3 queries, 1 without hits, 1 not judged and left out" in text
    assert f"nDCG@10 {found.mean['nDCG@10']:.4f}" in text


def test_evaluation_is_plain_json() -> None:
    found = evaluate(RUN, QRELS, "RR NumRet")
    told = json.loads(json.dumps(found.to_dict()))
    assert told["measures"] == {"RR": pytest.approx(1 / 3), "NumRet": 4.0}
    assert told["per_query"]["NumRet"] == {"q1": 3.0, "q2": 1.0, "q3": 0.0}
    assert (told["n_missing"], told["n_unjudged_queries"], told["compat"]) == (1, 1, "trec")


def test_evaluation_refuses_what_cannot_be() -> None:
    measures, ids = (parse_measure("AP"),), Ids.from_strings(["q"])
    with pytest.raises(DataError, match="shape"):
        Evaluation(measures, ids, np.zeros((1, 2)), "trec", 1, 0, 0, 0)
    with pytest.raises(DataError, match="AP of query 'q' is nan"):
        Evaluation(measures, ids, np.full((1, 1), np.nan), "trec", 1, 0, 0, 0)


# Emptiness ----------------------------------------------------------------------------------------

NO_QUERIES = Run.from_dict({})


@pytest.mark.parametrize("measure", HAND)
def test_empty_runs_are_worth_nothing(measure: str) -> None:
    for run in (NO_QUERIES, Run.from_dict({"q1": {}, "q3": {}}), Run.from_dict({"other": {}})):
        found = evaluate(run, QRELS, measure)
        expected = {"NumQ": [1.0] * 3, "NumRel": [3.0, 0.0, 1.0], "NumRel(rel=2)": [2.0, 0.0, 0.0]}
        assert found.row(measure).tolist() == expected.get(measure, [0.0] * 3)
        assert found.n_missing == 3


@pytest.mark.parametrize("judged", [{}, {"q1": {}}])
def test_nothing_judged_is_an_error(judged: dict[str, dict[str, int]]) -> None:
    with pytest.raises(DataError, match="judge no query"):
        evaluate(RUN, Qrels.from_dict(judged), "AP")


def test_foreign_queries_are_an_error_and_foreign_documents_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(DataError, match=r"'z1'.*'q1'.*same data set"):
        evaluate(Run.from_dict({"z1": {"a": 1.0}}), QRELS, "AP")
    for compat in ("beir", "mteb"):
        with pytest.raises(DataError, match="has none"):
            evaluate(NO_QUERIES, QRELS, "AP", compat=compat)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "retrievekit"):
        found = evaluate(Run.from_dict({"q1": {"MED-1": 1.0}}), QRELS, "AP Judged@1")
    assert dict(found.mean) == {"AP": 0.0, "Judged@1": 0.0}
    assert "no document of the run is judged" in caplog.text


def test_only_negative_judgements_are_not_relevant() -> None:
    found = evaluate(Run.from_dict({"q": {"a": 1.0}}), Qrels.from_dict({"q": {"a": -2}}), [*HAND])
    assert found.mean["nDCG@10"] == found.mean["AP"] == found.mean["Bpref"] == 0.0
    assert found.mean["Judged@10"] == 1.0
    assert found.n_without_relevant == 1


def test_huge_grades_do_not_cost_memory() -> None:
    qrels = Qrels.from_dict({"q": {"a": 2**31 - 1, "b": 1}})
    run = Run.from_dict({"q": {"b": 2.0, "a": 1.0}})
    big = 2**31 - 1
    expected = (1 + big / log2(3)) / (big + 1 / log2(3))
    assert evaluate(run, qrels, "nDCG").mean["nDCG"] == pytest.approx(expected)
    with pytest.raises(DataError, match="too large"):
        evaluate(run, qrels, "nDCG(dcg='exp-log2')")


@pytest.mark.parametrize("grades", [range(300), range(0, 9000, 30), [0, 300], [2]])
def test_any_scale_of_grades(grades: Iterable[int]) -> None:
    judged = {f"d{grade}": grade for grade in grades}
    judged["n"] = -5
    rng = np.random.default_rng(1)
    order = rng.permutation([*judged, "x", "y"]).tolist()
    hits = {doc: float(-place) for place, doc in enumerate(order)}
    found = evaluate(
        Run.from_dict({"q": hits}), Qrels.from_dict({"q": judged}), "nDCG P(rel=150)@9 Bpref infAP"
    )
    parsed = ["ndcg", "bpref", "infAP"]
    theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, parsed).evaluate({"q": hits})["q"]
    assert found.mean["nDCG"] == pytest.approx(theirs["ndcg"], abs=1e-9)
    assert found.mean["Bpref"] == pytest.approx(theirs["bpref"], abs=1e-9)
    assert found.mean["infAP"] == pytest.approx(theirs["infAP"], abs=1e-9)
    relevant = sum(judged.get(doc, 0) >= 150 for doc in order[:9])
    assert found.mean["P(rel=150)@9"] == pytest.approx(relevant / 9)


def test_one_query_in_many_has_hits() -> None:
    queries = Queries(Ids.from_strings([f"q{i}" for i in range(5)]), None)
    run = Run.from_dict({"q3": {"a": 1.0}}, queries)
    qrels = Qrels.from_dict({f"q{i}": {"a": 1} for i in range(4)})
    assert evaluate(run, qrels, "RR").row("RR").tolist() == [0.0, 0.0, 0.0, 1.0]
