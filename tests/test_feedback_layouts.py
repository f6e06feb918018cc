"""Layouts of a query and its passages: the worked value, and what is lost when room is short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError
from retrievekit.feedback.layouts import Layout, filled, marked

TEXTS = st.lists(st.lists(st.integers(10, 50), max_size=12), max_size=5)


def test_worked_value():
    joined = marked([0, 10, 11, 2], [[20, 21], [30, 31]], Layout(8), 2)
    assert joined.ids == [0, 10, 11, 2, 20, 21, 2, 2]
    assert joined.cut == 1


def test_all_that_fits_is_read():
    joined = marked([0, 10, 11, 2], [[20, 21], [30, 31]], Layout(10), 2)
    assert joined.ids == [0, 10, 11, 2, 20, 21, 2, 30, 31, 2]
    assert joined.cut == 0
    assert marked([0, 2], [], Layout(8), 2).ids == [0, 2]
    assert marked([0, 2], [[]], Layout(8), 2).ids == [0, 2, 2]


def test_query_is_never_cut():
    query = [0, *range(10, 16), 2]
    assert marked(query, [[20]], Layout(8), 2).ids == query
    assert marked(query, [[20]], Layout(8), 2).cut == 1
    assert marked([*query, 3], [[20]], Layout(8), 2) is None
    assert filled([*query, 3], [[20]], Layout(8), 2, 4) is None


def test_limits_of_passages_and_room():
    """LoL reads some tokens of each passage, and begins none where there is too little room."""
    passages = [[20, 21, 22, 23], [30, 31, 32], [40]]
    assert marked([0, 10, 2], passages, Layout(12, 2), 2).ids == [
        0, 10, 2, 20, 21, 2, 30, 31, 2, 40, 2
    ]  # fmt: skip
    assert marked([0, 10, 2], passages, Layout(12, 2), 2).cut == 2
    assert marked([0, 10, 2], passages, Layout(12, 2, 4), 2).ids == [
        0, 10, 2, 20, 21, 2, 30, 31, 2
    ]  # fmt: skip
    assert marked([0, 10, 2], passages, Layout(12, 2, 4), 2).cut == 3


def test_filled():
    """[CLS] [Q] q [SEP] p1 [SEP] p2, filled up with masks, without a last mark."""
    assert filled([1, 5, 6, 7, 10], [[20], [30]], Layout(12), 2, 4).ids == [
        1, 5, 6, 7, 10, 2, 20, 2, 30, 4, 4, 4
    ]  # fmt: skip
    assert filled([1, 5, 6, 7, 10], [], Layout(8), 2, 4).ids == [1, 5, 6, 7, 10, 4, 4, 4]
    cut = filled([1, 5, 6, 7, 10], [[20, 21, 22], [30]], Layout(8), 2, 4)
    assert cut.ids == [1, 5, 6, 7, 10, 2, 20, 21]
    assert cut.cut == 2


@given(query=st.lists(st.integers(10, 50), max_size=12), passages=TEXTS, limit=st.integers(8, 40))
def test_later_passages_are_lost_first(query, passages, limit):
    """What is read is the beginning of what would be read with all room, and the final mark."""
    whole = marked([0, *query, 2], passages, Layout(10_000), 2)
    short = marked([0, *query, 2], passages, Layout(limit), 2)
    assert whole.cut == 0
    if len(query) + 2 > limit:
        assert short is None
        return
    assert len(short.ids) == min(limit, len(whole.ids))
    assert short.ids[: len(query) + 2] == [0, *query, 2]
    assert short.ids[-1] == 2
    assert short.ids[:-1] == whole.ids[: len(short.ids) - 1]
    kept, there = 0, len(query) + 2
    for passage in passages:
        there += len(passage) + 1
        kept += there <= limit
    assert short.cut == len(passages) - kept


@pytest.mark.parametrize(
    "settings", [{"max_length": 7}, {"max_length": 9.0}, {"passage_length": 0}, {"room": -1}]
)
def test_numbers_are_checked(settings):
    with pytest.raises(DataError, match="give a whole number"):
        Layout(**settings)
