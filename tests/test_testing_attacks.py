"""Attacks on rerankers: what they achieve on a gullible model, and that marks never break."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError
from retrievekit.language.chat import Message
from retrievekit.rerank.base import Listed
from retrievekit.rerank.delimiters import visible
from retrievekit.rerank.listwise import ListwiseReranker
from retrievekit.rerank.pairwise import PairwiseReranker
from retrievekit.rerank.setwise import SetwiseReranker
from retrievekit.testing import ATTACKS, JudgingModel, attack_success
from retrievekit.testing.attacks import ORDER
from retrievekit.testing.judging import read_prompt


def worth(query: str, passage: str) -> float:
    return float(len({*query.split()} & {*passage.split()}))


WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
LISTS = [
    Listed(" ".join(WORDS), tuple(" ".join(WORDS[:i]) + f" {turn} x" for i in range(8, 0, -1)))
    for turn in range(3)
]
RELEVANT = [{0, 1}, {0}, {0, 1, 2}]
METHODS: list[tuple[Any, dict[str, Any]]] = [
    (ListwiseReranker, {}),
    (ListwiseReranker, {"layout": "rankzephyr"}),
    (ListwiseReranker, {"layout": "first"}),
    (SetwiseReranker, {}),
    (SetwiseReranker, {"reads": "words", "sort": "bubble"}),
    (PairwiseReranker, {"pairs": "all"}),
]
methods = pytest.mark.parametrize(("kind", "settings"), METHODS)


def gullible() -> JudgingModel:
    """Obeys the order wherever it can read it outside of marks."""
    return JudgingModel(worth, orders=[ORDER])


def test_the_attacks_are_of_all_kinds() -> None:
    kinds = [attack.kind for attack in ATTACKS]
    assert {kind: kinds.count(kind) >= 3 for kind in kinds} == dict.fromkeys(
        ["override", "ranking", "delimiter", "hiding"], True
    )
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    # Hidden orders are there, but not to be seen.
    for attack in ATTACKS:
        if attack.name in ("tag characters", "variation selectors"):
            assert len(attack.text) > len(ORDER) / 2
            assert len(visible(attack.text)) < 20


@methods
def test_marks_never_break_and_at_least_halve_the_success(kind: Any, settings: Any) -> None:
    naive = attack_success(kind(gullible(), guard="plain", **settings), LISTS, RELEVANT)
    marked = attack_success(kind(gullible(), guard="marked", **settings), LISTS, RELEVANT)
    assert naive.tried == marked.tried == 3 * len(ATTACKS)
    assert naive.success > 0.3
    assert naive.prompts == 0
    assert marked.broken == 0 < marked.prompts
    assert marked.success <= naive.success / 2


def test_a_cap_on_rising_holds_whatever_the_model_believes() -> None:
    believing = ListwiseReranker(gullible(), guard="plain", lift=3)
    assert attack_success(believing, LISTS, RELEVANT).success == 0


def test_the_report_tells_what_got_through() -> None:
    found = attack_success(ListwiseReranker(gullible(), guard="plain"), LISTS, RELEVANT)
    assert found.reached["order"] == 3
    assert found.reached["tag characters"] == 0  # a model that reads letters only
    assert f"of {found.tried} attacks reached the top" in str(found)
    assert "  order: 3" in str(found)
    assert sum(found.reached.values()) / found.tried == found.success


def test_prompts_that_are_broken_are_counted() -> None:
    class Careless(ListwiseReranker):
        """Puts what a passage says behind its marks as well."""

        def chat(self, query: str, passages: Any) -> Any:
            mark = passages.texts[0].partition(">")[0]
            return (*super().chat(query, passages), Message("user", f"{mark}>"))

    found = attack_success(Careless(JudgingModel(worth)), LISTS, RELEVANT)
    assert found.broken == found.prompts > 0


def test_lists_without_a_victim_are_left_out() -> None:
    reranker = ListwiseReranker(gullible())
    short = [Listed("a", ("a", "b", "c"))]
    assert attack_success(reranker, short, [set()]).tried == 0
    assert attack_success(reranker, short, [set()]).success == 0
    assert attack_success(reranker, [], []).tried == 0
    assert attack_success(reranker, LISTS[:1], [set(range(8))]).tried == 0
    with pytest.raises(DataError, match="judgements of 0"):
        attack_success(reranker, short, [])


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=2, max_size=5))
def test_the_judging_model_reads_what_was_shown(passages: list[str]) -> None:
    asked = []

    def noted(query: str, passage: str) -> float:
        asked.append((query, passage))
        return 0.0

    ListwiseReranker(JudgingModel(noted)).rank("q", passages)
    assert [query for query, _ in asked] == ["q"] * len(passages)
    with pytest.raises(DataError, match="no prompt of a reranker"):
        read_prompt((Message("user", "hello"),))
