"""Hard negatives and consistent pairs: what is kept, what is drawn, and the files in between."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit import Qrels, Run
from retrievekit.errors import DataError, MissingDataError, ParseError
from retrievekit.queries import Queries
from retrievekit.train.consistency import judge_pairs, kept_qrels, read_pairs, write_pairs
from retrievekit.train.drawing import Drawing
from retrievekit.train.mining import (
    Band,
    Mined,
    Negative,
    Positive,
    drawn,
    generator_of,
    mine_negatives,
    read_mined,
    write_mined,
)

QUERIES = Queries.from_texts({"q1": "cat", "q2": "dog", "q3": "moon", "q4": "fish"})
RUN = Run.from_dict(
    {
        "q1": {f"d{n}": 10.0 - n for n in range(10)},
        "q2": {f"d{n}": 1.0 + n for n in range(6)},
        "q3": {"d1": 1.0},
    },
    QUERIES,
)
QRELS = Qrels.from_dict(
    {"q1": {"d2": 2, "d5": 1, "d1": 0}, "q2": {"d0": 1}, "q3": {"d1": 1}, "q4": {"d1": 1}}
)


def by_hand(run: Run, qrels: Qrels, first: int, last: int) -> dict[str, list[str]]:
    """All negatives of each query that has some, and something relevant, the plain way."""
    grades = qrels.to_dict()
    found = {}
    for query, docs in run.to_dict().items():
        order = sorted(docs, key=lambda doc: (docs[doc], doc), reverse=True)
        relevant = {d for d, grade in grades.get(query, {}).items() if grade > 0}
        kept = [d for d in order[first - 1 : last] if d not in relevant]
        if relevant and kept:
            found[query] = kept
    return found


def names(mined: list[Mined]) -> dict[str, list[str]]:
    return {one.query_id: [n.doc_id for n in one.negatives] for one in mined}


@pytest.mark.parametrize(("first", "last"), [(1, 100), (1, 3), (4, 6), (7, 9)])
def test_all_negatives_of_a_band(first: int, last: int) -> None:
    found = mine_negatives(RUN, QRELS, bands=[Band(first, last)])
    assert names(found) == by_hand(RUN, QRELS, first, last)


def test_a_hit_judged_irrelevant_is_a_negative_and_ranks_are_told() -> None:
    one = mine_negatives(RUN, QRELS)[0]
    assert one.query == "cat"
    assert one.positives == (Positive("d2", 2, 3), Positive("d5", 1, 6))
    assert Negative("d1", 2, 9.0) in one.negatives


def test_bands_are_drawn_each_by_itself() -> None:
    one = mine_negatives(RUN, QRELS, bands=[Band(7, 10, 1), Band(1, 5, 2)], seed=3)[0]
    ranks = [negative.rank for negative in one.negatives]
    assert ranks == sorted(ranks)
    assert [rank <= 5 for rank in ranks] == [True, True, False]


def test_margin_percent_and_ceiling_against_their_definitions() -> None:
    # The best relevant hit of q1 is d2 with 8, of q2 d0 with 1, below which there is none.
    assert names(mine_negatives(RUN, QRELS, margin=1.0)) == {"q1": ["d4", "d6", "d7", "d8", "d9"]}
    assert names(mine_negatives(RUN, QRELS, percent=0.5)) == {"q1": ["d7", "d8", "d9"]}
    assert names(mine_negatives(RUN, QRELS, ceiling=2.5)) == {"q1": ["d8", "d9"], "q2": ["d1"]}


def test_without_a_relevant_hit_there_is_no_margin() -> None:
    qrels = Qrels.from_dict({"q1": {"other": 1}})
    assert names(mine_negatives(RUN, qrels)) == {"q1": [f"d{n}" for n in range(10)]}
    assert mine_negatives(RUN, qrels, margin=0.0) == []


def test_no_part_of_a_negative_score() -> None:
    run = Run.from_dict({"q1": {"a": -1.0, "b": -2.0}}, QUERIES.take(np.array([0])))
    with pytest.raises(DataError, match=r"q1.*margin="):
        mine_negatives(run, Qrels.from_dict({"q1": {"a": 1}}), percent=0.9)


@pytest.mark.parametrize(
    "settings",
    [
        {"bands": []},
        {"bands": [Band(1, 5), Band(5, 9)]},
        {"margin": -1.0},
        {"margin": math.nan},
        {"percent": 0.0},
        {"percent": 1.5},
        {"ceiling": math.inf},
        {"temperature": 0.0},
    ],
)
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(DataError):
        mine_negatives(RUN, QRELS, **settings)


@pytest.mark.parametrize("numbers", [(0, 5), (6, 5), (1, 5, 0)])
def test_bands_out_of_range(numbers: tuple[int, ...]) -> None:
    with pytest.raises(DataError):
        Band(*numbers)


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_what_is_drawn_depends_on_no_other_query(seed: int, n: int) -> None:
    whole = mine_negatives(RUN, QRELS, bands=[Band(1, 9, n)], seed=seed)
    parts = [
        one
        for part in RUN.batches(1)
        for one in mine_negatives(part, QRELS, bands=[Band(1, 9, n)], seed=seed)
    ]
    assert whole == parts
    assert all(len(one.negatives) == n for one in whole if one.query_id == "q1")


def test_nothing_to_mine() -> None:
    assert mine_negatives(Run.empty(QUERIES, RUN.docs), QRELS) == []
    assert mine_negatives(RUN, Qrels.from_dict({})) == []


def test_temperature_draws_by_softmax() -> None:
    """Chances of single draws are those of the softmax, within four standard errors."""
    scores, tries = np.array([1.0, 0.0, -1.0]), 4000
    counts = np.zeros(3)
    for number in range(tries):
        counts[drawn(scores, 1, generator_of(number, "q"), 0.5)] += 1
    wanted = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum()
    assert np.all(abs(counts / tries - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / tries))


def test_mined_files_return_what_was_written(tmp_path: Path) -> None:
    mined = mine_negatives(RUN, QRELS)
    write_mined(mined, tmp_path / "mined.jsonl")
    assert read_mined(tmp_path / "mined.jsonl") == mined
    write_mined([], tmp_path / "none.jsonl")
    assert read_mined(tmp_path / "none.jsonl") == []
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


ROW = {
    "query_id": "q",
    "query": "cat",
    "positives": [{"doc_id": "a", "grade": 1}],
    "negatives": [{"doc_id": "b", "rank": 1, "score": 2}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"query": 1},
        {"positives": []},
        {"negatives": [{"doc_id": "a", "rank": 1, "score": 2}]},
        {"negatives": [{"doc_id": "b", "rank": 0, "score": 2}]},
        {"positives": [{"doc_id": "a", "grade": True}]},
        {"positives": [{"grade": 1}]},
    ],
)
def test_lines_changed_wrongly_are_named(tmp_path: Path, change: dict) -> None:
    file = tmp_path / "mined.jsonl"
    file.write_text(json.dumps(ROW) + "\n\n" + json.dumps({**ROW, "query_id": "r", **change}))
    with pytest.raises(ParseError, match=r"mined\.jsonl:3"):
        read_mined(file)


def test_a_query_twice_and_no_file(tmp_path: Path) -> None:
    file = tmp_path / "mined.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW))
    with pytest.raises(ParseError, match="twice"):
        read_mined(file)
    with pytest.raises(MissingDataError):
        read_mined(tmp_path / "other")
    with pytest.raises(MissingDataError):
        read_pairs(tmp_path / "other")


# Lists --------------------------------------------------------------------------------------------


def test_each_query_comes_once_an_epoch() -> None:
    negatives = tuple(Negative(f"d{i}", i + 1, 0.0) for i in range(9))
    mined = [Mined(f"q{n}", "x", (Positive("a", 3),), negatives) for n in range(7)]
    drawing = Drawing(mined, seed=5, queries=2, positives=2, negatives=4)
    lists = [one for step in range(7) for one in drawing.step(step)]
    for epoch in (lists[:7], lists[7:]):
        assert sorted(one.query_id for one, _ in epoch) == [f"q{n}" for n in range(7)]
    assert [one.query_id for one, _ in lists[:7]] != [one.query_id for one, _ in lists[7:]]
    for _, docs in lists:
        assert docs[0] == ("a", 3)
        assert [label for _, label in docs[1:]] == [0] * 4
        assert len({doc for doc, _ in docs}) == 5
    # A list of the second epoch has other negatives for some query than in the first.
    first, second = ({one.query_id: docs for one, docs in e} for e in (lists[:7], lists[7:]))
    assert first != second
    assert drawing.step(4) == Drawing(mined, 5, 2, 2, 4).step(4)
    with pytest.raises(DataError, match="no query"):
        Drawing([], 0, 1, 1, 1)


# Consistency --------------------------------------------------------------------------------------


@given(st.integers(1, 11), st.floats(0, 11))
def test_kept_pairs_against_the_rule(top: int, threshold: float) -> None:
    pairs = judge_pairs(RUN, QRELS, top=top, threshold=threshold)
    scores = RUN.to_dict()
    wanted = {
        (query, doc)
        for query, judged in QRELS.to_dict().items()
        for doc, grade in judged.items()
        if grade > 0
        and doc in scores.get(query, {})
        and sum(s > scores[query][doc] for s in scores[query].values()) < top
        and scores[query][doc] >= threshold
    }
    assert {(pair.query_id, pair.doc_id) for pair in pairs if pair.why is None} == wanted
    kept = {(q, d) for q, docs in kept_qrels(pairs).to_dict().items() for d in docs}
    assert kept == wanted


def test_reasons_and_files(tmp_path: Path) -> None:
    pairs = judge_pairs(RUN, QRELS, top=3, threshold=1.5)
    told = {(pair.query_id, pair.doc_id): pair.why for pair in pairs}
    assert told == {
        ("q1", "d2"): None,
        ("q1", "d5"): "rank 6",
        ("q2", "d0"): "rank 6",
        ("q3", "d1"): "score 1",
        ("q4", "d1"): "not found",
    }
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    write_pairs([], tmp_path / "none.jsonl")
    assert read_pairs(tmp_path / "none.jsonl") == []
    assert kept_qrels([]).to_dict() == {}
    (tmp_path / "bad.jsonl").write_text('{"query_id": "q"}')
    with pytest.raises(ParseError, match=r"bad\.jsonl:1"):
        read_pairs(tmp_path / "bad.jsonl")


def test_pairs_need_their_query_and_sound_settings() -> None:
    with pytest.raises(DataError, match="no query 'q9'"):
        judge_pairs(RUN, Qrels.from_dict({"q9": {"d1": 1}}))
    with pytest.raises(DataError):
        judge_pairs(RUN, QRELS, top=0)
    with pytest.raises(DataError):
        judge_pairs(RUN, QRELS, threshold=math.nan)
