"""Laws of `Qrels`: no loss, no order, every emptiness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels

ids = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=3)
dicts = st.dictionaries(ids, st.dictionaries(ids, st.integers(-2, 4), max_size=5), max_size=5)


@given(dicts)
def test_judgements_come_back(judged: dict[str, Any]) -> None:
    qrels = Qrels.from_dict(judged)
    assert qrels.to_dict() == judged
    assert len(qrels) == len(judged)
    assert qrels.n_judgements == sum(map(len, judged.values()))


@given(dicts)
def test_rows_ascend_within_each_query(judged: dict[str, Any]) -> None:
    qrels = Qrels.from_dict(judged)
    for start, stop in zip(qrels.offsets[:-1], qrels.offsets[1:], strict=True):
        assert (np.diff(qrels.rows[start:stop]) > 0).all()


@given(dicts, st.randoms(use_true_random=False))
def test_order_is_no_part_of_equality_or_hash(judged: dict[str, Any], random: Any) -> None:
    queries = list(judged)
    random.shuffle(queries)
    shuffled = {}
    for query in queries:
        docs = list(judged[query])
        random.shuffle(docs)
        shuffled[query] = {doc: judged[query][doc] for doc in docs}
    one, other = Qrels.from_dict(judged), Qrels.from_dict(shuffled)
    assert one == other
    assert one.content_hash == other.content_hash


def test_what_makes_judgements_differ() -> None:
    qrels = Qrels.from_dict({"q": {"a": 1}})
    for other in ({"q": {"a": 2}}, {"q": {"b": 1}}, {"p": {"a": 1}}, {"q": {"a": 1, "b": 0}}):
        assert qrels != Qrels.from_dict(other)
        assert qrels.content_hash != Qrels.from_dict(other).content_hash
    assert qrels != {"q": {"a": 1}}
    with pytest.raises(TypeError, match="unhashable"):
        hash(qrels)


@given(dicts, st.data())
def test_take_gives_queries_in_the_order_asked_for(judged: dict[str, Any], data: Any) -> None:
    qrels = Qrels.from_dict(judged)
    order = data.draw(
        st.lists(st.integers(0, max(0, len(judged) - 1)), unique=True, max_size=len(judged))
    )
    names = list(judged)
    picked = qrels.take(np.array(order, np.int64))
    assert list(picked.queries) == [names[i] for i in order]
    assert picked.to_dict() == {names[i]: judged[names[i]] for i in order}


@pytest.mark.parametrize("bad", ["1", 1.0, None, True])
def test_grades_are_integers(bad: Any) -> None:
    with pytest.raises(DataError, match="not an integer"):
        Qrels.from_dict({"q": {"a": bad}})


def test_numpy_integers_are_integers() -> None:
    assert Qrels.from_dict({"q": {"a": np.int64(2)}}).to_dict() == {"q": {"a": 2}}


def test_arrays_fit_each_other_and_are_frozen() -> None:
    queries, docs = Ids.from_strings(["q"]), Ids.from_strings(["a"])
    with pytest.raises(DataError, match="1 queries, but 1 offsets"):
        Qrels(queries, docs, np.array([0]), np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="count 1 judgements, rows 1, grades 2"):
        Qrels(queries, docs, np.array([0, 1]), np.zeros(1), np.zeros(2))
    qrels = Qrels.from_dict({"q": {"a": 1}})
    for array in (qrels.offsets, qrels.rows, qrels.grades):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


@pytest.mark.parametrize("judged", [{}, {"q": {}}, {"q": {}, "p": {}}])
def test_every_emptiness(judged: dict[str, Any]) -> None:
    qrels = Qrels.from_dict(judged)
    assert qrels.to_dict() == judged
    assert qrels.n_judgements == 0
    assert qrels.take(np.arange(len(judged))) == qrels
    assert qrels.take(np.zeros(0, np.int64)).to_dict() == {}
    assert repr(qrels) == f"Qrels({len(judged)} queries, 0 judgements)"
    assert len(qrels.content_hash) == 64


def test_a_query_without_judgements_between_others() -> None:
    judged = {"a": {}, "b": {"x": 1}, "c": {}, "d": {"x": 0, "y": 2}}
    qrels = Qrels.from_dict(judged)
    assert qrels.offsets.tolist() == [0, 0, 1, 1, 3]
    assert qrels.take(np.array([3, 0])).to_dict() == {"d": {"x": 0, "y": 2}, "a": {}}


@pytest.mark.parametrize(
    ("offsets", "rows", "grades", "message"),
    [
        ([0, 1], [0], [1.9], "grades are of dtype float64, but should be integers"),
        ([0, 1], [0], ["1"], "grades are of dtype"),
        ([0, 1], [0.7], [1], "rows are of dtype"),
        ([0, 1], [7], [1], "rows run from 7 to 7, but docs has 2"),
        ([0, 1], [-1], [1], "rows run from -1 to -1"),
        ([0, 2], [1, 1], [1, 2], "query 'q' judges document 'b' twice"),
        ([0, 3], [0, 1], [1, 1], "count 3 judgements, rows 2"),
        ([1, 2], [0], [1], "rise from 0"),
    ],
)
def test_nothing_is_cast_or_cut_on_the_way_in(
    offsets: Any, rows: Any, grades: Any, message: str
) -> None:
    queries, docs = Ids.from_strings(["q"]), Ids.from_strings(["a", "b"])
    with pytest.raises(DataError, match=message):
        Qrels.from_arrays(queries, docs, np.array(offsets), np.array(rows), np.array(grades))


def test_huge_grades_are_refused() -> None:
    for grade in (2**31, 2**70, -(2**70)):
        with pytest.raises(DataError, match="beyond 32 bits"):
            Qrels.from_dict({"q": {"a": grade}})
