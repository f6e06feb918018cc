"""`Queries`: ids with one form each, and the words they began with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError, DuplicateIdError, FormError, UnknownNameError
from retrievekit.ids import Ids
from retrievekit.queries import Queries
from retrievekit.run import concat_queries
from retrievekit.vectors import DenseVectors, SparseVectors

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TEXTS = st.dictionaries(WORDS.filter(bool), WORDS, max_size=8)


def dense(n: int, start: float = 0.0) -> DenseVectors:
    return DenseVectors(np.arange(2 * n, dtype=np.float32).reshape(n, 2) + start, "enc")


@given(TEXTS, st.integers(1, 4))
def test_batches_are_the_queries(texts: dict[str, str], size: int) -> None:
    queries = Queries.from_texts(texts)
    parts = list(queries.batches(size))
    assert all(0 < len(part) <= size for part in parts)
    assert [i for part in parts for i in part.ids] == list(texts)
    assert [t for part in parts for t in part.texts] == list(texts.values())
    if parts:
        assert concat_queries(parts) == queries


@given(TEXTS, st.data())
def test_take_and_select(texts: dict[str, str], data: st.DataObject) -> None:
    queries = Queries.from_texts(texts)
    wanted = data.draw(st.permutations(list(texts)))
    picked = queries.select(wanted)
    assert list(picked.ids) == wanted
    assert picked.texts == [texts[i] for i in wanted]
    rewritten = queries.rewritten(dense(len(texts))).select(wanted)
    assert rewritten.texts == picked.texts
    assert isinstance(rewritten.form, DenseVectors)
    assert rewritten.form.array[:, 0].tolist() == [2.0 * list(texts).index(i) for i in wanted]


@given(TEXTS, TEXTS)
def test_equality_is_that_of_content(one: dict[str, str], other: dict[str, str]) -> None:
    a, b = Queries.from_texts(one), Queries.from_texts(other)
    same = list(one.items()) == list(other.items())
    assert (a == b) == same
    assert (a.content_hash == b.content_hash) == same
    assert a == Queries.from_texts(dict(one))
    assert hash(a) == hash(Queries.from_texts(dict(one)))
    assert a != one


def test_texts_without_ids_are_numbered() -> None:
    assert list(Queries.from_texts(["x", "y"]).ids) == ["1", "2"]


def test_no_queries() -> None:
    for nothing in (Queries.from_texts({}), Queries.from_texts([])):
        assert len(nothing) == 0
        assert nothing.texts == []
        assert list(nothing.batches(3)) == []
        assert nothing.select([]) == nothing
    assert repr(Queries.from_texts({})) == "Queries(0, text)"


def test_rewriting_keeps_the_first_words() -> None:
    queries = Queries.from_texts({"a": "typed"})
    once = queries.rewritten(pa.array(["expanded"], pa.large_string()))
    twice = once.rewritten(dense(1))
    assert once.texts == twice.texts == ["typed"]
    assert once.rewritten_texts == ["expanded"]
    assert once.origin is twice.origin is queries
    assert (queries.form_name, once.form_name, twice.form_name) == ("text", "text", "dense vectors")
    with pytest.raises(FormError, match="these queries are dense vectors, but text is needed"):
        _ = twice.rewritten_texts


def test_content_differs_with_form_and_origin() -> None:
    queries = Queries.from_texts({"a": "x"})
    forms = [
        queries,
        Queries(queries.ids, None),
        Queries(queries.ids, dense(1)),
        Queries(queries.ids, dense(1, 1.0)),
        queries.rewritten(dense(1)),
        queries.rewritten(pa.array(["x"], pa.large_string())),
        Queries.from_texts({"a": "y"}).rewritten(dense(1)),
        Queries(
            queries.ids,
            SparseVectors(
                np.array([0, 1]), np.array([0], np.int32), np.array([1.0], np.float32), 3, "enc"
            ),
        ),
    ]
    assert len({form.content(0) for form in forms}) == len(forms)
    assert len({form.content_hash for form in forms}) == len(forms)


def test_words_that_look_like_a_rewriting_are_none() -> None:
    rewritten = Queries.from_texts({"a": "y"}).rewritten(pa.array(["x"], pa.large_string()))
    for words in ("x\0from\0text\0y", "rewritten\0", rewritten.content(0).decode()):
        assert Queries.from_texts({"a": words}).content(0) != rewritten.content(0)


def test_forms_that_are_none() -> None:
    queries = Queries.from_texts({"a": "x"})
    assert queries.rewritten(pa.array(["y"])).rewritten_texts == ["y"]  # of 32-bit offsets
    for form in (["y"], np.ones((1, 2)), pa.chunked_array([["y"]])):
        with pytest.raises(FormError, match=f"not {type(form).__name__}"):
            queries.rewritten(form)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="1 of 1 query texts are null"):
        queries.rewritten(pa.array([None], pa.large_string()))


def test_words_of_one_query() -> None:
    queries = Queries.from_texts({"a": "x", "b": "y"})
    assert [queries.text(0), queries.rewritten(dense(2)).text(1)] == ["x", "y"]
    assert Queries(queries.ids, dense(2)).text(0) is None


def test_content_of_a_query_does_not_know_its_id_or_companions() -> None:
    one = Queries.from_texts({"a": "x", "b": "y"})
    other = Queries.from_texts({"c": "y"})
    assert one.content(1) == other.content(0)


def test_queries_without_words() -> None:
    queries = Queries(Ids.from_strings(["a"]), None)
    with pytest.raises(FormError, match="these queries are ids only, but text is needed"):
        _ = queries.texts
    assert len(queries.take(np.array([0]))) == 1


def test_bad_queries() -> None:
    with pytest.raises(DataError, match="texts is one string"):
        Queries.from_texts("what?")
    with pytest.raises(DataError, match=r"the text of query 'a' is 3, not a string"):
        Queries.from_texts({"a": 3})  # type: ignore[dict-item]
    with pytest.raises(DataError, match="lone surrogate"):
        Queries.from_texts({"a": "\ud800"})
    with pytest.raises(DataError, match="query id 0 is empty"):
        Queries.from_texts({"": "x"})
    with pytest.raises(DataError, match="1 query ids, but 2 dense vectors"):
        Queries(Ids.from_strings(["a"]), dense(2))
    with pytest.raises(UnknownNameError, match="no id 'b'"):
        Queries.from_texts({"a": "x"}).select(["b"])
    same = Queries.from_texts({"a": "x"})
    with pytest.raises(DuplicateIdError, match="query id given twice: 'a'"):
        concat_queries([same, same])
    with pytest.raises(DataError, match="queries of different forms"):
        concat_queries([same, Queries(Ids.from_strings(["b"]), dense(1))])
    mine = Queries(Ids.from_strings(["a"]), dense(1))
    other = Queries(Ids.from_strings(["b"]), DenseVectors(np.ones((1, 2), np.float32), "another"))
    with pytest.raises(DataError, match="different encoders"):
        concat_queries([mine, other])
