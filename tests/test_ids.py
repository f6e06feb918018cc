"""`Ids`: a dictionary and a sorted list say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError, DuplicateIdError, UnknownNameError
from retrievekit.ids import Ids

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
LISTS = st.lists(STRINGS, unique=True, max_size=20)


@given(LISTS, STRINGS)
def test_rows_and_strings_are_a_dictionary(values: list[str], other: str) -> None:
    ids = Ids.from_strings(values)
    rows = {value: row for row, value in enumerate(values)}
    assert len(ids) == len(values)
    assert list(ids) == values
    assert [ids[row] for row in range(len(ids))] == values
    assert ids[:] == values
    assert ids[1:4] == values[1:4]
    assert ids[::-1] == values[::-1]
    for value in [*values, other]:
        assert ids.find(value) == rows.get(value, -1)
        assert (value in ids) == (value in rows)
    assert ids.rows([*values, other]).tolist() == [rows.get(v, -1) for v in [*values, other]]
    assert ids.strings(np.arange(len(ids))[::-1]) == values[::-1]
    assert ids.arrow.to_pylist() == values


@given(LISTS)
def test_order_is_that_of_the_bytes(values: list[str]) -> None:
    # Not of the code units: "\uffff" comes before "\U00010000".
    ids = Ids.from_strings(values)
    ranked = sorted(values, key=lambda value: value.encode("utf-8"))
    assert ids.strings(ids.order) == ranked
    assert ids.rank.tolist() == [ranked.index(value) for value in values]


@given(LISTS, LISTS)
def test_translation_and_union(one: list[str], other: list[str]) -> None:
    a, b = Ids.from_strings(one), Ids.from_strings(other)
    assert a.translate(b).tolist() == [other.index(v) if v in other else -1 for v in one]
    assert a.translate(a).tolist() == list(range(len(one)))
    union = a.union(b)
    assert list(union) == one + [value for value in other if value not in one]
    if set(other) <= set(one):
        assert union is a


@given(LISTS, st.randoms())
def test_equality_is_that_of_content_and_order(values: list[str], random: object) -> None:
    ids = Ids.from_strings(values)
    again = Ids.from_arrow(pa.array(values, pa.string()))
    assert ids == again
    assert hash(ids) == hash(again)
    assert ids.content_hash == again.content_hash
    if len(values) > 1:
        assert ids != Ids.from_strings(values[::-1])
        assert ids != Ids.from_strings(values[1:])
    assert ids != values


def test_hash_knows_where_one_id_ends() -> None:
    assert Ids.from_strings(["ab", "c"]).content_hash != Ids.from_strings(["a", "bc"]).content_hash


@given(LISTS, st.data())
def test_take_and_slices_of_arrow(values: list[str], data: st.DataObject) -> None:
    ids = Ids.from_strings(values)
    rows = data.draw(st.permutations(range(len(values))))
    assert list(ids.take(np.array(rows, np.int64))) == [values[row] for row in rows]
    start = data.draw(st.integers(0, len(values)))
    part = Ids.from_arrow(ids.arrow.slice(start))
    assert list(part) == values[start:]
    assert part.offsets[0] == 0


def test_no_ids() -> None:
    ids = Ids.from_strings([])
    assert len(ids) == 0
    assert list(ids) == []
    assert ids.find("a") == -1
    assert ids.rows(["a"]).tolist() == [-1]
    assert ids.rows([]).tolist() == []
    assert ids.order.tolist() == ids.rank.tolist() == []
    assert ids.take(np.zeros(0, np.int64)) == ids
    assert ids.translate(Ids.from_strings(["a"])).tolist() == []
    assert Ids.from_strings(["a"]).translate(ids).tolist() == [-1]
    assert repr(ids) == "Ids(0: )"


def test_rows_out_of_range() -> None:
    ids = Ids.from_strings(["a", "b"])
    assert (ids[-1], ids[-2]) == ("b", "a")
    for row in (2, -3):
        with pytest.raises(IndexError, match=f"row {row} of 2 ids"):
            _ = ids[row]
    with pytest.raises(UnknownNameError, match="no id 'c' among 2 ids"):
        ids.row("c")
    assert ids.row("b") == 1


def test_what_is_no_id() -> None:
    with pytest.raises(DataError, match=r"doc 1 is 7 \(int\), but ids are strings; write '7'"):
        Ids.from_strings(["a", 7], what="doc")  # type: ignore[list-item]
    with pytest.raises(DataError, match="id 1 is empty"):
        Ids.from_strings(["a", ""])
    with pytest.raises(DataError, match="lone surrogate"):
        Ids.from_strings(["\ud800"])
    ids = Ids.from_strings(["a"])
    assert 7 not in ids
    assert ids.find("\ud800") == -1


@pytest.mark.parametrize("array", [["a", None], ["a", ""], [1, 2]])
def test_arrow_arrays_that_hold_no_ids(array: list[object]) -> None:
    with pytest.raises(DataError):
        Ids.from_arrow(pa.array(array))


def test_ids_given_twice() -> None:
    with pytest.raises(DuplicateIdError, match=r"id given twice: 'a' \(rows 0 and 2\)"):
        Ids.from_strings(["a", "b", "a"])
    values = [str(n) for n in range(7)] * 2
    with pytest.raises(DuplicateIdError, match=r"doc given twice: '0' .* and 2 more"):
        Ids.from_strings(values, what="doc")


def test_arrays_cannot_be_written() -> None:
    ids = Ids.from_strings(["b", "a"])
    for array in (ids.data, ids.offsets, ids.order, ids.rank, ids.translate(ids), ids.rows(["a"])):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("bad", [1, None, "\ud800"])
def test_looking_up_what_is_no_id(bad: Any) -> None:
    with pytest.raises(DataError, match="strings of valid Unicode"):
        Ids.from_strings(["a"]).rows(["a", bad])
