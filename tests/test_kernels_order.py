"""The total order against Python's own sort, and the keys against float order."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.ids import Ids
from retrievekit.kernels.order import keys, order_hits, sort_hits, sortable

# Few values, so that ties are common; zeros of both signs, the smallest and the largest floats.
SCORES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 0.5, 0.25])
NAMES = st.text(alphabet=["a", "b", "~", "é", "東", "🙂"], min_size=1, max_size=3)


@st.composite
def lists(draw):
    """Ids and, for each of some queries, distinct rows with scores."""
    ids = Ids.from_strings(draw(st.lists(NAMES, unique=True, min_size=1, max_size=8)))
    rows, scores, offsets = [], [], [0]
    for _ in range(draw(st.integers(0, 4))):
        picked = draw(st.permutations(range(len(ids))))[: draw(st.integers(0, len(ids)))]
        rows += picked
        scores += draw(st.lists(SCORES, min_size=len(picked), max_size=len(picked)))
        offsets.append(len(rows))
    return ids, np.array(offsets), np.array(rows, np.int32), np.array(scores, np.float32)


def by_python(ids, offsets, rows, scores):
    """Score, then UTF-8 bytes of the id, both descending: the definition."""
    out = []
    for start, stop in itertools.pairwise(offsets):
        hits = [(float(scores[i]), ids[int(rows[i])].encode(), i) for i in range(start, stop)]
        out += [i for _, _, i in sorted(hits, key=lambda hit: hit[:2], reverse=True)]
    return out


@given(lists())
def test_order_is_that_of_the_definition(case):
    ids, offsets, rows, scores = case
    order = order_hits(offsets, scores, ids.rank[rows])
    assert order.tolist() == by_python(ids, offsets, rows, scores)


@given(lists())
def test_sorting_pairs_agrees_with_sorting_positions(case):
    ids, offsets, rows, scores = case
    order = by_python(ids, offsets, rows, scores)
    sorted_rows, sorted_scores = sort_hits(offsets, scores, rows, ids.rank, ids.order)
    assert sorted_rows.tolist() == rows[order].tolist()
    assert sorted_rows.dtype == np.int32
    assert sorted_scores.tolist() == scores[order].tolist()
    assert sorted_scores.dtype == np.float32


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_sortable_keeps_float_order(values):
    floats = np.array(values, np.float32)
    integers = sortable(floats)
    assert integers.dtype == np.uint32
    for a, x in zip(floats, integers, strict=True):
        for b, y in zip(floats, integers, strict=True):
            assert (a < b) == (x < y)
            assert (a == b) == (x == y)


def test_zeros_of_both_signs_are_one_score():
    assert sortable(np.array([0.0], np.float32)) == sortable(np.array([-0.0], np.float32))
    # So the id decides: "b" before "a".
    ids = Ids.from_strings(["a", "b"])
    scores = np.array([0.0, -0.0], np.float32)
    rows = np.array([0, 1], np.int32)
    sorted_rows, _ = sort_hits(np.array([0, 2]), scores, rows, ids.rank, ids.order)
    assert ids.strings(sorted_rows) == ["b", "a"]


def test_score_outweighs_id():
    high, low = keys(np.array([1.0, 0.5], np.float32), np.array([0, 2**31 - 1], np.int32))
    assert high > low


def test_longer_id_is_larger_than_its_beginning():
    ids = Ids.from_strings(["d", "d1", "c9"])
    order = order_hits(np.array([0, 3]), np.ones(3, np.float32), ids.rank[[0, 1, 2]])
    assert [ids[int(i)] for i in order] == ["d1", "d", "c9"]


def test_nothing_to_sort():
    ids = Ids.from_strings([])
    nothing = np.zeros(0, np.float32)
    rows = np.zeros(0, np.int32)
    for offsets in (np.zeros(1, np.int64), np.zeros(4, np.int64)):
        assert order_hits(offsets, nothing, rows).tolist() == []
        assert sort_hits(offsets, nothing, rows, ids.rank, ids.order)[0].tolist() == []
