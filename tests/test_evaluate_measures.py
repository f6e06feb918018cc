"""Measure strings: what they mean, that they come back as they were, what is refused."""

from __future__ import annotations

import subprocess
import sys

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import UnknownMeasureError
from retrievekit.evaluate.measures import OWN, Measure, parse_measure, parse_measures

SPELLINGS = {
    "nDCG@10": ["ndcg@10", "NDCG@10", "ndcg_cut_10", "ndcg_cut.10", " nDCG @ 10 "],
    "nDCG": ["ndcg"],
    "AP": ["map", "MAP", "AP(rel=1)", "ap"],
    "AP@100": ["map_cut_100", "MAP@100"],
    "AP(rel=2)@100": ["map(rel=2)@100", "AP( rel = 2 )@100"],
    "RR@10": ["mrr@10", "MRR@10", "rr@10"],
    "RR": ["recip_rank", "mrr"],
    "R@100": ["recall@100", "recall_100", "Recall@100", "recall.100"],
    "P@5": ["P_5", "precision@5", "p@5"],
    "Success@5": ["success_5", "hit@5", "hit_rate@5", "success@5"],
    "Judged@10": ["judged@10"],
    "Rprec": ["RPrec", "rprec"],
    "Bpref": ["bpref", "BPref"],
    "infAP": ["infap"],
    "IPrec@0.1": ["iprec_at_recall_0.10", "IPrec@.1"],
    "SetP": ["set_P"],
    "SetP(relative=True)": ["set_relative_P", "SetRelP"],
    "SetR": ["set_recall"],
    "SetF": ["set_F", "SetF(beta=1.0)", "SetF(beta=1)"],
    "SetAP": ["set_map"],
    "NumRet": ["num_ret"],
    "NumRet(rel=1)": ["num_rel_ret", "NumRelRet"],
    "NumRel": ["num_rel"],
    "NumQ": ["num_q"],
    "nDCG(dcg='exp-log2')@5": ['nDCG(dcg="exp-log2")@5'],
    "nDCG(gains={1:3,2:9})@5": ["nDCG(gains={2: 9, 1: 3})@5"],
    "nDCG(judged_only=True)@5": ["ndcg(judged_only=True)@5"],
    "RBP(p=0.9,rel=1)@20": ["RBP(rel=1, p=0.9)@20"],
    "ERR@20": ["ERR@20"],
}


@pytest.mark.parametrize("canonical", SPELLINGS)
def test_every_spelling_is_one_measure(canonical: str) -> None:
    measure = parse_measure(canonical)
    assert str(measure) == canonical
    for spelling in SPELLINGS[canonical]:
        assert parse_measure(spelling) == measure
    assert Measure(measure.name, measure.cutoff, measure.params) == measure
    assert repr(measure).startswith(f"Measure(name={measure.name!r}, cutoff=")


@pytest.mark.parametrize("canonical", SPELLINGS)
def test_our_strings_are_those_of_ir_measures(canonical: str) -> None:
    theirs = ir_measures.parse_measure(canonical)
    assert parse_measure(canonical).name == theirs.NAME
    params = {k: v for k, v in theirs.params.items() if k != theirs.AT_PARAM}
    ours = {k: dict(v) if isinstance(v, tuple) else v for k, v in parse_measure(canonical).params}
    assert ours == params
    assert theirs.params.get(theirs.AT_PARAM) == parse_measure(canonical).cutoff


@given(
    st.sampled_from(["nDCG", "AP", "P", "R", "RR", "Success"]),
    st.integers(1, 5000),
    st.integers(1, 5),
    st.booleans(),
)
def test_strings_round_trip(name: str, cutoff: int, rel: int, judged_only: bool) -> None:
    params = [f"judged_only={judged_only}"] + ([] if name == "nDCG" else [f"rel={rel}"])
    measure = parse_measure(f"{name}({','.join(params)})@{cutoff}")
    assert parse_measure(str(measure)) == measure
    assert measure.cutoff == cutoff
    assert measure.param("judged_only") is judged_only
    assert hash(parse_measure(str(measure))) == hash(measure)


def test_defaults_are_left_out_of_the_name() -> None:
    assert str(parse_measure("AP(rel=1,judged_only=False)@10")) == "AP@10"
    assert parse_measure("SetF").param("beta") == 1.0
    assert parse_measure("NumRet").param("rel") is None


def test_several_in_one_string_or_list() -> None:
    expected = tuple(map(parse_measure, ["nDCG@10", "AP(rel=2,judged_only=True)@5", "R@100"]))
    assert parse_measures("nDCG@10 AP(rel=2, judged_only=True)@5  R@100") == expected
    assert parse_measures(["nDCG@10 AP(rel=2,judged_only=True)@5", expected[2]]) == expected
    assert parse_measures(expected[0]) == expected[:1]
    assert parse_measures(["nDCG@10", "ndcg_cut_10"]) == expected[:1]


@pytest.mark.parametrize("nothing", ["", "  ", [], [""]])
def test_no_measure_is_an_error(nothing: object) -> None:
    with pytest.raises(UnknownMeasureError, match="nDCG@10"):
        parse_measures(nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ndgc@10", "did you mean 'nDCG'"),
        ("recal@10", "did you mean 'R'"),
        ("zzzzzz", "computed here: nDCG"),
        ("P", "needs a cutoff, such as P@10"),
        ("IPrec", "IPrec@0.1"),
        ("IPrec@1.5", "out of range"),
        ("Rprec@3", "takes no cutoff"),
        ("nDCG@0", "out of range"),
        ("nDCG@99999999999", "out of range"),
        ("nDCG@1.5", "no cutoff"),
        ("nDCG@", "Name@cutoff"),
        ("nDCG@@10", "Name@cutoff"),
        ("nDCG(rel=2)@10", "no parameter 'rel'"),
        ("AP(rel=0)", "rel cannot be 0"),
        ("AP(rel=1.5)", "rel cannot be 1.5"),
        ("AP(rel=True)", "rel cannot be True"),
        ("AP(rel=1,rel=2)", "twice"),
        ("AP(rel=)", "name=value"),
        ("AP(rel)", "name=value"),
        ("AP(rel=one)", "cannot read 'one'"),
        ("RBP(p=1)", "p cannot be 1"),
        ("RBP(p=nan)", "cannot read 'nan'"),
        ("nDCG(dcg='ln')", "dcg cannot be 'ln'"),
        ("nDCG(gains={1:2,1:3})", "gains cannot be"),
        ("nDCG(gains={})", "gains cannot be"),
        ("nDCG(gains={1:x})", "cannot read"),
        ("nDCG(gains={1:2},dcg='exp-log2')", "either"),
        ("BPM", "max_rel"),
        ("ERR(rel=1)", "it takes: cutoff"),
        ("__import__('os')", "name"),
        ("n" * 1000, "no measure"),
        ("nDCG@١٠", "Name@cutoff"),
    ],
)
def test_what_is_refused_says_why(text: str, says: str) -> None:
    with pytest.raises(UnknownMeasureError) as caught:
        parse_measure(text)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


@given(st.text(max_size=40))
def test_no_text_does_anything_but_parse_or_raise(text: str) -> None:
    try:
        measure = parse_measure(text)
    except UnknownMeasureError:
        return
    assert parse_measure(str(measure)) == measure


def test_who_computes_a_measure() -> None:
    assert parse_measure("nDCG@10").own
    assert parse_measure("RBP(rel=1)").own
    assert not parse_measure("RBP").own  # graded, by ir-measures' provider
    assert not parse_measure("ERR@20").own
    assert not parse_measure("ERR@20").summed
    assert parse_measure("NumRel").summed


def test_own_names_load_nothing() -> None:
    code = (
        "import sys; from retrievekit.evaluate.measures import parse_measures; "
        f"parse_measures({' '.join(m for m in SPELLINGS if m != 'ERR@20')!r}); "
        "assert 'ir_measures' not in sys.modules and 'numba' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_all_own_measures_are_tried_above() -> None:
    assert set(OWN) <= {parse_measure(text).name for text in SPELLINGS}
