"""Conditions: read, print, combine, and pick the rows that a slow evaluator picks."""

from __future__ import annotations

import datetime
import operator
import re
import sqlite3
import subprocess
import sys
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import ExpressionError, UnknownNameError
from retrievekit.stage import canonical
from retrievekit.where import (
    DEEPEST,
    KEYWORDS,
    And,
    Comparison,
    Condition,
    Contains,
    Membership,
    Not,
    NullTest,
    Or,
    condition_of,
    field,
    parse,
)
from retrievekit.where.evaluate import booleans

PYTHON = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

# The slow evaluator: a row at a time, in Python's own exact arithmetic ----------------------------


def meant(literal: Any, value: Any) -> Any:
    """The literal as what it means beside a value of the column."""
    if isinstance(value, datetime.datetime):
        moment = datetime.datetime.fromisoformat(literal)
        return moment if moment.tzinfo else moment.replace(tzinfo=value.tzinfo)
    return datetime.date.fromisoformat(literal) if isinstance(value, datetime.date) else literal


def holds(condition: Condition, row: dict[str, Any]) -> bool:
    if isinstance(condition, Not):
        return not holds(condition.inner, row)
    if isinstance(condition, And):
        return all(holds(part, row) for part in condition.parts)
    if isinstance(condition, Or):
        return any(holds(part, row) for part in condition.parts)
    value = row[condition.column]  # type: ignore[attr-defined]
    if isinstance(condition, NullTest):
        return (value is not None) is condition.negated
    if value is None:
        return False
    if isinstance(condition, Comparison):
        return bool(PYTHON[condition.operator](value, meant(condition.value, value)))
    if isinstance(condition, Membership):
        found = any(value == meant(literal, value) for literal in condition.values)
        return found is not condition.negated
    assert isinstance(condition, Contains)
    return condition.value in value


# Tables and conditions ----------------------------------------------------------------------------

UTC = datetime.UTC
EDGES = [0, 1, -1, 127, 128, -128, -129, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
WHOLE = st.integers(-3, 3) | st.sampled_from(EDGES) | st.integers(-(2**70), 2**70)
FRACTIONAL = (
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.5, 127.5, 1e300, -1e300, 2.0**53, 2.0**63, 2.0**64])
    | st.integers(-6, 6).map(lambda n: n / 2)
    | st.floats(allow_nan=False, allow_infinity=False)
)
NUMBERS = WHOLE | FRACTIONAL
WORDS = st.sampled_from(["", "a", "b", "ab", "Ä", "en", "𝔸", "\uffff", 'q"\\'])
TEXTS = WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
DAYS = st.dates(datetime.date(1969, 12, 30), datetime.date(1970, 1, 3))
MOMENTS = st.datetimes(datetime.datetime(1969, 12, 31), datetime.datetime(1970, 1, 2)) | DAYS.map(
    lambda day: datetime.datetime(day.year, day.month, day.day)
)


def whole_within(low: int, high: int) -> st.SearchStrategy[int]:
    return WHOLE.filter(lambda n: low <= n <= high) | st.sampled_from([low, high])


INT64 = whole_within(-(2**63), 2**63 - 1)
MILLISECONDS = MOMENTS.map(lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000))
ZONED = MOMENTS.map(lambda m: m.replace(tzinfo=UTC))

# Column: Arrow type, its values, literals it takes, whether they have an order.
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any], st.SearchStrategy[Any], bool]] = {
    "year": (pa.int64(), INT64, NUMBERS, True),
    "tiny": (pa.int8(), whole_within(-128, 127), NUMBERS, True),
    "huge": (pa.uint64(), whole_within(0, 2**64 - 1), NUMBERS, True),
    "score": (pa.float64(), FRACTIONAL | st.just(float("inf")), NUMBERS, True),
    "coarse": (pa.float32(), st.floats(width=32, allow_nan=False), NUMBERS, True),
    "lang": (pa.string(), TEXTS, TEXTS, True),
    "title": (pa.large_string(), TEXTS, TEXTS, True),
    "kind-of": (pa.dictionary(pa.int32(), pa.string()), TEXTS, TEXTS, True),
    "open": (pa.bool_(), st.booleans(), st.booleans(), False),
    "two words": (pa.date32(), DAYS, DAYS, True),
    "in": (pa.date64(), DAYS, DAYS, True),
    "at": (pa.timestamp("us"), MOMENTS, MOMENTS | DAYS, True),
    "at.ms": (pa.timestamp("ms", "UTC"), MILLISECONDS.map(lambda m: m.replace(tzinfo=UTC)), ZONED
              | MOMENTS | DAYS, True),
    "nothing": (pa.null(), st.none(), NUMBERS | TEXTS | st.booleans(), True),
}  # fmt: skip
LISTS = {
    "tags": (pa.list_(pa.string()), WORDS, WORDS),
    "sizes": (pa.large_list(pa.int16()), st.integers(-2, 2), st.integers(-2, 2) | FRACTIONAL),
    "flags": (pa.list_(pa.bool_()), st.booleans(), st.booleans()),
}
TYPES = {name: column[0] for name, column in COLUMNS.items()}
TYPES |= {name: column[0] for name, column in LISTS.items()}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Tables of up to 12 rows with nulls, in chunks that begin anywhere within their buffers."""
    n = draw(st.integers(0, 12))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=3)))
    before = draw(st.integers(0, 9))
    columns = {}
    for name, type_ in TYPES.items():
        if name in COLUMNS:
            values = COLUMNS[name][1] | st.none()
        else:
            values = st.lists(LISTS[name][1] | st.none(), max_size=3) | st.none()
        rows = draw(st.lists(values, min_size=n, max_size=n))
        chunks = []
        for start, end in zip([0, *cuts], [*cuts, n], strict=True):
            part = rows[start:end]
            padded = pa.array([*rows[:1] * before, *part, *rows[:1]], type_)
            chunks.append(padded.slice(before if rows else 0, len(part)))
        columns[name] = pa.chunked_array(chunks, type_)
    return pa.table(columns)


@st.composite
def leaves(draw: st.DrawFn) -> Condition:
    name = draw(st.sampled_from(list(TYPES)))
    form = draw(st.sampled_from(["compare", "compare", "member", "contains", "null"]))
    if form == "null":
        return NullTest(name, draw(st.booleans()))
    if name in LISTS:
        return Contains(name, draw(LISTS[name][2]))
    type_, _, literals, ordered = COLUMNS[name]
    if form == "member":
        values = draw(st.lists(literals, max_size=4))
        return Membership(name, tuple(values), draw(st.booleans()))
    if form == "contains" and type_ in (pa.string(), pa.large_string(), TYPES["kind-of"]):
        return Contains(name, draw(literals))
    signs = list(PYTHON) if ordered else ["==", "!="]
    return Comparison(name, draw(st.sampled_from(signs)), draw(literals))


def conditions(
    inner: st.SearchStrategy[Condition], max_leaves: int = 8
) -> st.SearchStrategy[Condition]:
    def wrap(within: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
        several = st.lists(within, min_size=2, max_size=3).map(tuple)
        return within.map(Not) | several.map(And) | several.map(Or)

    return st.recursive(inner, wrap, max_leaves=max_leaves)


# Laws ---------------------------------------------------------------------------------------------


@given(tables(), st.lists(conditions(leaves()), min_size=1, max_size=8))
def test_mask_is_what_the_slow_evaluator_says(table: pa.Table, given: list[Condition]) -> None:
    rows = table.to_pylist()
    for condition in given:
        mask = condition.mask(table)
        assert mask.dtype == np.bool_
        assert mask.tolist() == [holds(condition, row) for row in rows], str(condition)


@given(conditions(leaves()))
def test_text_reads_back_as_the_same_value(condition: Condition) -> None:
    again = parse(str(condition))
    assert again == condition
    assert repr(again) == repr(condition)  # with the types of all literals
    assert hash(again) == hash(condition)
    assert again.fingerprint == condition.fingerprint
    assert again.columns == condition.columns


@given(st.text(min_size=1), st.text(), st.text(max_size=3))
def test_any_name_and_string_read_back(name: str, value: str, other: str) -> None:
    condition = Comparison(name, "==", value) | ~field(name).isin([value, other])
    assert repr(parse(str(condition))) == repr(condition)


@given(NUMBERS, NUMBERS)
def test_conditions_are_equal_when_text_and_types_are(left: float, right: float) -> None:
    one, two = field("x") == left, field("x") == right
    assert (one == two) is (repr(left) == repr(right))
    assert (one.fingerprint == two.fingerprint) is (one == two)


PLAIN = st.integers(-2, 2) | st.sampled_from([0.5, -1.5, 2.0])


@st.composite
def plain_leaves(draw: st.DrawFn) -> Condition:
    name = draw(st.sampled_from(["a", "b"]))
    if draw(st.booleans()):
        return Comparison(name, draw(st.sampled_from(list(PYTHON))), draw(PLAIN))
    return Membership(name, tuple(draw(st.lists(PLAIN, max_size=3))), draw(st.booleans()))


@given(conditions(plain_leaves(), max_leaves=12))
def test_without_nulls_the_text_means_what_sqlite_reads(condition: Condition) -> None:
    values = [(a / 2, b) for a in range(-4, 5) for b in range(-2, 3)]
    with sqlite3.connect(":memory:") as base:
        base.execute("create table t (a real, b integer)")
        base.executemany("insert into t values (?, ?)", values)
        said = base.execute(f"select {condition} from t order by rowid").fetchall()
    base.close()
    table = pa.table({"a": [a for a, _ in values], "b": [b for _, b in values]})
    assert condition.mask(table).tolist() == [bool(truth) for (truth,) in said]


@given(tables(), conditions(leaves()), conditions(leaves()))
def test_laws_of_two_truth_values(table: pa.Table, a: Condition, b: Condition) -> None:
    assert ((~a).mask(table) == ~a.mask(table)).all()
    assert ((~(a & b)).mask(table) == (~a | ~b).mask(table)).all()
    assert (a | ~a).mask(table).all()
    assert not (a & ~a).mask(table).any()


@given(tables(), conditions(leaves()), st.integers(1, 5))
def test_mask_does_not_depend_on_batching(table: pa.Table, condition: Condition, n: int) -> None:
    parts = [condition.mask(table.slice(at, n)) for at in range(0, table.num_rows, n)]
    assert np.concatenate([[], *parts]).astype(bool).tolist() == condition.mask(table).tolist()
    assert condition.mask(table.combine_chunks()).tolist() == condition.mask(table).tolist()


def read_or_refused(text: str) -> None:
    try:
        condition = parse(text)
    except ExpressionError as why:
        problem = str(why)
    else:
        assert repr(parse(str(condition))) == repr(condition)
        return
    assert "^ column" in problem or (not text.strip() and "empty condition" in problem)


@given(st.text(alphabet="ab1.5-\"'\\`()[],<>=! \n", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    read_or_refused(text)


TOKENS = ["year", "and", "or", "not", "(", ")", "in", "is", "null", "==", "<", "2", '"x"', ","]


@given(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=12))
def test_any_tokens_are_read_or_refused_with_a_place(tokens: list[str]) -> None:
    read_or_refused(" ".join(tokens))


# Reading and printing -----------------------------------------------------------------------------


A, B, C = field("a") == 1, field("b") == 2, field("c") == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year >= 2020", field("year") >= 2020),
        ("year = 2020", field("year") == 2020),
        ("year != -1.5e3", field("year") != -1500.0),
        ("x < .5", field("x") < 0.5),
        ("x > 1.", field("x") > 1.0),
        ("x<=-5", field("x") <= -5),
        ('lang in ("en", "de")', field("lang").isin(["en", "de"])),
        ("lang IN ['en','de',]", field("lang").isin(["en", "de"])),
        ("lang in ()", field("lang").isin([])),
        ("lang not in (1, true)", field("lang").not_in([1, True])),
        ("year is null", field("year").is_null()),
        ("year Is Not NULL", field("year").is_not_null()),
        ('tags contains "x"', field("tags").contains("x")),
        ("open == TRUE", field("open") == True),  # noqa: E712
        ("`and` == 1", field("and") == 1),
        ("`two words` == 1", field("two words") == 1),
        ("`a\\`b` == 1", field("a`b") == 1),
        ("metadata.text == 1", field("metadata.text") == 1),
        ("pub-date == 1", field("pub-date") == 1),
        ("année == 1", field("année") == 1),
        (r'x == "\x41\u00c4\U0001d538\n\"\`"', field("x") == 'AÄ𝔸\n"`'),
        ("x == 'it is \"so\"'", field("x") == 'it is "so"'),
        ("a == 1 or b == 2 and c == 3", Or((A, And((B, C))))),
        ("a == 1 and b == 2 or c == 3", Or((And((A, B)), C))),
        ("(a == 1 or b == 2) and c == 3", And((Or((A, B)), C))),
        ("not a == 1 and b == 2", And((Not(A), B))),
        ("not (a == 1 and b == 2)", Not(And((A, B)))),
        ("not not a == 1", Not(Not(A))),
        ("a == 1 and (b == 2 and c == 3)", And((A, B, C))),
        ("(a == 1 or b == 2) or c == 3", Or((A, B, C))),
        ("a == 1\n  and\tb == 2 ", And((A, B))),
    ],
)  # fmt: skip
def test_reads(text: str, expected: Condition) -> None:
    assert repr(parse(text)) == repr(expected)


@pytest.mark.parametrize(
    ("text", "problem", "column"),
    [
        ("year", "expected a comparison, 'in', 'is' or 'contains' after the column year", 5),
        ("open and year > 1", "for a boolean column write open == true", 6),
        ("year >", "expected a number, a string, true or false, but found the end", 7),
        ("year => 1", "expected a number, a string, true or false, but found '>'", 7),
        ("year == 2020-01-01", 'a date stands in quotes: "2020-01-01"', 9),
        ("lang == en", 'put it in quotes: "en"', 9),
        ("lang == null", "write is null or is not null", 9),
        ("lang == None", "write is null or is not null", 9),
        ('lang == ("en")', "lists stand after in", 9),
        ('lang in "en"', "expected '(' and a list of values, but found '\"en\"'", 9),
        ('lang in ("en" "de")', "expected ',' or ')' in the list, but found '\"de\"'", 15),
        ('lang in ("en", (1))', "expected a number, a string", 16),
        ('lang in ("en"]', "expected ',' or ')' in the list, but found ']'", 14),
        ("lang in (,)", "expected a number, a string, true or false, but found ','", 10),
        ("2020 <= year", "the column comes first: year >= 2020", 1),
        ('"en" in lang', "the column comes first", 1),
        ("x >= 1 <= 2", "comparisons do not chain: write x >= 1 and x <= 2", 8),
        ("x between 1 and 2", "write x >= ... and x <= ...", 3),
        ("x like 'a'", "write x contains ...", 3),
        ("x not contains 1", "for other tests write not before the column", 7),
        ("x is 1", "expected 'null' or 'not null', but found '1'", 6),
        ("x is not 1", "expected 'null', but found '1'", 10),
        ("in == 1", "a column of that name stands in backticks: `in`", 1),
        ("x == 1 & y == 2", "cannot read '&' here; write 'and'", 8),
        ("x == 1 || y == 2", "cannot read '|' here; write 'or'", 8),
        ("!x == 1", "cannot read '!' here; write 'not' or '!='", 1),
        ("~x == 1", "write 'not'", 1),
        ("x == 'abc", "cannot read a string without its end", 6),
        ("x == 'a\nb'", "cannot read a string without its end", 6),
        ("`` == 1", "cannot read a string without its end", 1),
        ("x == 'a\\qb'", "unknown escape \\q", 8),
        ("x == '\\ud800'", "unknown escape \\u", 7),
        ("x == 'a\ud800'", "a lone surrogate", 8),
        ("x == 1e999", "1e999 is too large for a number", 6),
        ("x == " + "9" * 401, "a number of more than 400 characters", 6),
        ("x == 1 y == 2", "expected 'and', 'or' or the end, but found 'y'", 8),
        ("x == 1)", "expected 'and', 'or' or the end, but found ')'", 7),
        ("(x == 1", "expected 'and', 'or' or ')', but found the end", 8),
        ("()", "expected the name of a column, but found ')'", 2),
        ("x == 1 and", "expected the name of a column, but found the end", 11),
        ("x == 1 and\ny == ?", "cannot read '?' here", 6),
        ("not", "expected the name of a column, but found the end", 4),
        ("(" * 51 + "x == 1" + ")" * 51, f"nested more than {DEEPEST} deep", 51),
        ("not " * 51 + "x == 1", f"nested more than {DEEPEST} deep", 201),
        ("(" * 100_000, f"nested more than {DEEPEST} deep", 51),
    ],
)  # fmt: skip
def test_refuses_text_with_its_place(text: str, problem: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    message = str(caught.value)
    assert problem in message
    assert message.endswith(f"^ column {column}")
    if len(text) < 70:
        _, line, caret = message.split("\n")
        assert caret.index("^") == 2 + column - 1
        assert line[2:] in text.replace("\ud800", " ")


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_refuses_empty_text(text: str) -> None:
    with pytest.raises(ExpressionError, match="an empty condition; write one such as"):
        parse(text)


def test_takes_texts_and_conditions() -> None:
    assert condition_of("x==1") == condition_of(field("x") == 1) == parse("x == 1")
    with pytest.raises(ExpressionError, match=r"a condition is a text, not 5 \(int\)"):
        condition_of(5)  # type: ignore[arg-type]


def test_depth_is_bounded_in_python_too() -> None:
    condition: Condition = field("x") == 1
    for _ in range(DEEPEST):
        condition = ~condition
    assert parse(str(condition)) == condition
    with pytest.raises(ExpressionError, match=f"nested more than {DEEPEST} deep"):
        operator.invert(condition)
    flat: Condition = field("x") == 0
    for number in range(300):  # one after another is not deep
        flat = flat | (field("x") == number)
    assert parse(str(flat)) == flat


def test_deepest_condition_that_can_be_built_reads_back() -> None:
    a, b = field("a") == 1, field("b") == 2
    condition: Condition = a
    for _ in range(DEEPEST // 2):
        condition = (condition & b) | a
    assert repr(parse(str(condition))) == repr(condition)


@pytest.mark.parametrize("word", sorted(KEYWORDS))
def test_columns_may_be_named_like_keywords(word: str) -> None:
    for name in (word, word.upper()):
        condition = field(name) == 1
        assert str(condition) == f"`{name}` == 1"
        assert repr(parse(str(condition))) == repr(condition)


# Python -------------------------------------------------------------------------------------------


def test_values_are_frozen_and_can_be_keys() -> None:
    condition = parse('year >= 2020 and lang in ("en", "de")')
    assert {condition: 1}[(field("year") >= 2020) & field("lang").isin(["en", "de"])] == 1
    assert condition != parse("year >= 2020")
    assert condition != "year >= 2020"
    with pytest.raises(FrozenInstanceError):
        condition.parts = ()  # type: ignore[attr-defined]
    assert condition.columns == ("year", "lang")
    assert canonical(condition, "where") == {"fingerprint": condition.fingerprint}
    assert re.fullmatch("[0-9a-f]{64}", condition.fingerprint)
    assert parse("b == 1 or a == 1 and b == 2").columns == ("b", "a")


def test_literals_become_plain_values() -> None:
    class Name(str):
        pass

    values = [np.int8(3), np.float32(0.5), np.bool_(True), np.str_("x"), Name("y")]
    found = field("x").isin(values)
    assert repr(found) == "Membership(column='x', values=(3, 0.5, True, 'x', 'y'), negated=False)"
    assert {type(value) for value in found.values} == {int, float, bool, str}  # type: ignore[attr-defined]
    assert str(field("x") >= datetime.date(2020, 1, 31)) == 'x >= "2020-01-31"'
    moment = datetime.datetime(2020, 1, 31, 10, tzinfo=UTC)
    assert str(field("x") >= moment) == 'x >= "2020-01-31T10:00:00+00:00"'


def test_sets_have_one_text() -> None:
    assert str(field("x").isin({"c", "a", "b"})) == 'x in ("a", "b", "c")'
    assert str(field("x").not_in(frozenset({2, "a", 1, 0.5}))) == 'x not in (0.5, 1, 2, "a")'
    assert str(field("x").isin(v for v in ("b", "a"))) == 'x in ("b", "a")'
    assert str(field("x").isin(np.array([2, 1]))) == "x in (2, 1)"


@pytest.mark.parametrize(
    "value",
    [None, b"x", [1], (), {}, 1j, float("nan"), float("inf"), np.datetime64("2020"), 10**400,
     "\ud800", datetime.time(1), object()],
)  # fmt: skip
def test_refuses_what_is_no_literal(value: Any) -> None:
    for make in (field("x").__eq__, field("x").__lt__, field("x").contains):
        with pytest.raises(ExpressionError):
            make(value)
    for make in (field("x").isin, field("x").not_in):
        with pytest.raises(ExpressionError):
            make([1, value])
    with pytest.raises(ExpressionError):
        Comparison("x", "==", value)


def test_hints_at_null_tests() -> None:
    with pytest.raises(ExpressionError, match=r"a missing value is found by is_null\(\)"):
        field("x") == None  # noqa: B015, E711


@pytest.mark.parametrize("values", ["en", b"en", 5, None])
def test_refuses_a_single_value_for_a_list(values: Any) -> None:
    with pytest.raises(ExpressionError, match="give a list of values"):
        field("x").isin(values)
    with pytest.raises(ExpressionError, match="give a list of values"):
        Membership("x", values)


@pytest.mark.parametrize("name", ["", None, 5, "\ud800"])
def test_refuses_names_that_are_none(name: Any) -> None:
    for make in (field, NullTest, lambda n: Comparison(n, "==", 1), lambda n: Membership(n, ())):
        with pytest.raises(ExpressionError):
            make(name)


def test_python_traps_are_errors() -> None:
    year, lang = field("year"), field("lang")
    for trap in (
        lambda: (year > 1) and (lang == "en"),
        lambda: not (year > 1),
        lambda: 1 < year < 3,
        lambda: year > 1 & lang,  # type: ignore[operator]
        lambda: year & (lang == "en"),  # type: ignore[operator]
        lambda: (lang == "en") | year,  # type: ignore[operator]
        lambda: ~year,  # type: ignore[operator]
        lambda: bool(year),
    ):
        with pytest.raises(ExpressionError, match=r"brackets"):
            trap()
    with pytest.raises(TypeError):
        (year > 1) & "lang"  # type: ignore[operator]
    with pytest.raises(TypeError):
        hash(year)
    assert str(operator.lt(1, year)) == "year > 1"


def test_refuses_parts_that_are_none() -> None:
    a = field("a") == 1
    for make in (
        lambda: And((a,)),
        lambda: Or(()),
        lambda: And((a, "b")),  # type: ignore[arg-type]
        lambda: Not("a"),  # type: ignore[arg-type]
        lambda: Comparison("a", "=>", 1),
    ):
        with pytest.raises(ExpressionError):
            make()


# Tables -------------------------------------------------------------------------------------------

ROWS = pa.table(
    {
        "year": pa.array([2019, 2020, None, 2021], pa.int64()),
        "lang": pa.array(["en", None, "de", "fr"]),
        "open": pa.array([True, False, None, True]),
        "score": pa.array([float("nan"), 0.5, None, -0.0]),
        "tags": pa.array([["a", "b"], [], None, ["b", None]]),
        "day": pa.array([datetime.date(2020, 1, 31), None, datetime.date(1969, 7, 20), None]),
        "at": pa.array([0, 1, None, -1], pa.timestamp("ns", "UTC")),
        "naive": pa.array([0, 1, None, -1], pa.timestamp("s")),
        "blob": pa.array([b"x", None, b"", b"y"]),
        "deep": pa.array([[["a"]], None, [], [[]]]),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("year == 2020", [1]),
        ("year != 2020", [0, 3]),  # a document without a year satisfies neither
        ("not year == 2020", [0, 2, 3]),  # but it does satisfy the negation
        ("year not in (2020)", [0, 3]),
        ("not year in (2020)", [0, 2, 3]),
        ("year > 2019.5", [1, 3]),
        ("year < 1e300", [0, 1, 3]),
        ("year in (2019.0, 2020.5, 99999999999999999999)", [0]),
        ("year is null or year < 2020", [0, 2]),
        ("lang in ()", []),
        ("lang not in ()", [0, 2, 3]),
        ('lang > "de"', [0, 3]),
        ('lang contains "e"', [0, 2]),
        ('lang contains ""', [0, 2, 3]),
        ("open == true", [0, 3]),
        ("open != true", [1]),
        ("open in (true, false)", [0, 1, 3]),
        ("score != 0.5", [0, 3]),  # NaN differs from every number
        ("score is null", [2]),
        ("score in (0)", [3]),
        ("score <= 0", [3]),
        ('tags contains "b"', [0, 3]),
        ('not tags contains "b"', [1, 2]),
        ("tags is null", [2]),
        ('day == "2020-01-31"', [0]),
        ('day in ("1969-07-20", "2020-02-01")', [2]),
        ('at >= "1970-01-01"', [0, 1]),
        ('at > "1970-01-01T00:00:00Z"', [1]),
        ('at == "1970-01-01T01:00:00.000000001+01:00"', [1]),
        ('at == "1969-12-31 23:59:59.999999999"', [3]),
        ('at > "0001-01-01T00:00+05:00"', [0, 1, 3]),
        ('at < "9999-12-31"', [0, 1, 3]),  # beyond what nanoseconds can count
        ('at in ("1970-01-01", "9999-12-31")', [0]),
        ('naive < "1970-01-01T00:00:00.5"', [0, 3]),
        ('naive == "1970-01-01T00:00:00.5"', []),
        ('naive == "1970-01-01T00:00"', [0]),
        ("blob is not null", [0, 2, 3]),
        ("deep is null", [1]),
    ],
)
def test_picks_rows(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(parse(text).mask(ROWS)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "problem", "column"),
    [
        ("lang == 5", "column 'lang' is of type string and cannot be compared with 5, a number", 1),
        ('year > 1 and year < "2020"', 'int64 and cannot be compared with "2020", a string', 14),
        ("year == true", "column 'year' is of type int64 and cannot be compared with true, a", 1),
        ("score < false", "double and cannot be compared with false, a boolean", 1),
        ("open == 1", "column 'open' is of type bool and cannot be compared with 1, a number", 1),
        ("open < true", "use == or !=", 1),
        ("not (lang in ('en', 2.5))", "string and cannot be compared with 2.5, a number", 5),
        ("tags == 'a'", "use contains", 1),
        ("tags in ('a')", "use contains", 1),
        ("tags contains 1", "string and cannot be compared with 1, a number", 1),
        ("year contains 1", "contains is for columns of strings or lists", 1),
        ("lang contains 1", "string and cannot be compared with 1, a number", 1),
        ("deep contains 'a'", "lists of lists cannot be searched", 1),
        ("blob == 'x'", "only is null and is not null work with this type", 1),
        ("day == '31.1.2020'", 'write a day as "2020-01-31"', 1),
        ("day == '2020-02-30'", 'write a day as "2020-01-31"', 1),
        ("day == '2020-01-31T00:00'", 'write a day as "2020-01-31"', 1),
        ("day > 2020", 'write a day as "2020-01-31"', 1),
        ("at > 2020", 'write a time as "2020-01-31T10:00:00"', 1),
        ("at > '2020'", 'write a time as "2020-01-31T10:00:00"', 1),
        ("at > '2020-01-31T25:00'", 'write a time as "2020-01-31T10:00:00"', 1),
        ("naive > '2020-01-31T10:00Z'", "the column has no time zone, so leave out the offset", 1),
    ],
)
def test_types_that_do_not_fit(text: str, problem: str, column: int) -> None:
    condition = parse(text)
    for table in (ROWS, ROWS.slice(0, 0), ROWS.schema.empty_table()):
        with pytest.raises(ExpressionError) as caught:
            condition.mask(table)
        assert problem in str(caught.value)
        assert str(caught.value).endswith(f"^ column {column}")


def test_unknown_columns_name_near_ones() -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse("year > 1 and langs == 'en'").mask(ROWS)
    first, line, caret = str(caught.value).split("\n")
    assert first.startswith("no column named 'langs'; did you mean 'lang'")
    assert "known: at, blob, day, deep, lang, naive," in first
    assert line == '  year > 1 and langs == "en"'
    assert caret == " " * 15 + "^ column 14"
    with pytest.raises(UnknownNameError, match=r"no column named 'zzz'; known: at, blob"):
        (field("zzz") == 1).mask(ROWS)
    with pytest.raises(UnknownNameError, match="none is known"):
        (field("zzz") == 1).mask(pa.table({}))


def test_every_column_is_looked_at() -> None:
    with pytest.raises(UnknownNameError):
        parse("year == 1 or year != 1 or zzz == 1").mask(ROWS)
    with pytest.raises(UnknownNameError):
        parse("zzz in ()").mask(ROWS)


def test_two_columns_of_a_name() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    with pytest.raises(ExpressionError, match="2 columns are named 'x'"):
        parse("x == 1").mask(table)


@pytest.mark.parametrize("n_chunks", [0, 1, 2])
def test_no_rows(n_chunks: int) -> None:
    table = pa.table(
        {
            name: pa.chunked_array([pa.array([], type_)] * n_chunks, type_)
            for name, type_ in TYPES.items()
        }
    )
    tests = ["year == 1", "score in (1, 2)", "lang in ('a')", "`kind-of` == 'a'", "year in ()"]
    tests += ["title contains 'a'", "tags contains 'a'", "not open == true", "at > '2020-01-01'"]
    for text in tests:
        mask = parse(text).mask(table)
        assert mask.shape == (0,)
        assert mask.dtype == np.bool_


@pytest.mark.parametrize(
    "type_",
    [pa.string_view(), pa.dictionary(pa.int8(), pa.large_string()), pa.large_string(), pa.string()],
)
def test_strings_in_any_form(type_: pa.DataType) -> None:
    table = pa.table({"x": pa.array(["a", None, "ab"]).cast(type_)})
    assert parse("x >= 'a'").mask(table).tolist() == [True, False, True]
    assert parse("x in ('ab', 'c')").mask(table).tolist() == [False, False, True]
    assert parse("x contains 'b'").mask(table).tolist() == [False, False, True]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda t: pa.list_(t, 2)])
def test_lists_in_any_form(make: Any) -> None:
    rows = [["a", "b"], None, ["c", "a"], [None, "d"], ["d", "d"]]
    whole = pa.array(rows, make(pa.string()))
    column = pa.chunked_array([whole.slice(1, 2), whole.slice(3), whole.slice(0, 1)])
    table = pa.table({"x": column})
    assert parse("x contains 'a'").mask(table).tolist() == [False, True, False, False, True]
    assert parse("x contains 'd'").mask(table).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
def test_what_lies_behind_a_null_list_is_no_element(make: Any) -> None:
    # Arrow lets a null keep a stretch of values, as masking does; here 9, 9.
    type_ = make(pa.int64())
    offsets = np.array([0, 2, 4, 6], np.int32 if make is pa.list_ else np.int64)
    buffers = [pa.py_buffer(b"\x05"), pa.py_buffer(offsets)]
    lists = pa.Array.from_buffers(type_, 3, buffers, children=[pa.array([1, 2, 9, 9, 3, 4])])
    assert lists.to_pylist() == [[1, 2], None, [3, 4]]
    table = pa.table({"x": pa.chunked_array([lists, lists.slice(1)])})
    assert parse("x contains 3").mask(table).tolist() == [False, False, True, False, True]
    assert not parse("x contains 9").mask(table).any()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_in_any_unit(unit: str) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    table = pa.table({"x": pa.array([0, 3 * per_second, -1], pa.timestamp(unit))})
    assert parse('x == "1970-01-01T00:00:03"').mask(table).tolist() == [False, True, False]
    assert parse('x < "1970-01-01"').mask(table).tolist() == [False, False, True]


def test_the_mask_is_the_callers_own() -> None:
    condition = parse("year >= 2020")
    first = condition.mask(ROWS)
    first[:] = True
    assert condition.mask(ROWS).tolist() == [False, True, False, True]


def test_a_corpus_has_the_columns() -> None:
    corpus = Corpus.from_documents(
        [
            Document("1", "one", metadata={"year": 2020, "date": "2020-05-01"}),
            Document("2", "two", metadata={"date": "2019-05-01"}),
            Document("3", "three"),
        ]
    )
    assert parse("year >= 2020").mask(corpus.table).tolist() == [True, False, False]
    # ISO dates kept as strings have the order of their days.
    later = field("date") >= datetime.date(2019, 6, 1)
    assert later.mask(corpus.table).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("type_", "low", "high"),
    [
        (pa.int8(), -128, 127),
        (pa.int64(), -(2**63), 2**63 - 1),
        (pa.uint64(), 0, 2**64 - 1),
        (pa.float64(), None, None),
    ],
)
def test_numbers_at_every_edge(type_: pa.DataType, low: int | None, high: int | None) -> None:
    numbers = [
        sign * (edge + by)
        for edge in (0, 128, 2**53, 2**63, 2**64, 2**1030)
        for by in (-1, 0, 1)
        for sign in (1, -1)
    ] + [0.5, -0.5, 127.5, -128.5, -0.0, 1e300]
    if low is None or high is None:
        values = [float(n) for n in numbers if abs(n) < 2**1000] + [float("inf"), -float("inf")]
    else:
        values = [n for n in numbers if isinstance(n, int) and low <= n <= high]
    table = pa.table({"x": pa.array([None, *values], type_)})
    for literal in numbers:
        for sign, compare in PYTHON.items():
            expected = [False, *(compare(value, literal) for value in values)]
            assert Comparison("x", sign, literal).mask(table).tolist() == expected, (sign, literal)
        expected = [False, *(value == literal for value in values)]
        assert field("x").isin([literal]).mask(table).tolist() == expected, literal


def test_buffers_that_begin_within_a_byte() -> None:
    rows = [True, False, None, False, False, None, True, True, None, True, False] * 3
    for start in range(17):
        table = pa.table({"x": pa.array(rows).slice(start)})
        # Arrow may hand a result on as a view into a longer one.
        assert booleans(table.column("x")).tolist() == [x is True for x in rows[start:]]
        assert parse("x is null").mask(table).tolist() == [x is None for x in rows[start:]]
        assert parse("x is not null").mask(table).tolist() == [x is not None for x in rows[start:]]
        assert parse("x == true").mask(table).tolist() == [x is True for x in rows[start:]]
        assert parse("x != true").mask(table).tolist() == [x is False for x in rows[start:]]


def test_exact_beyond_doubles() -> None:
    big = 2**53
    table = pa.table(
        {"n": pa.array([big, big + 1, big + 2]), "f": [float(big), float(big + 2), 0.0]}
    )
    assert parse(f"n == {big + 1}").mask(table).tolist() == [False, True, False]
    assert parse(f"n > {float(big)}").mask(table).tolist() == [False, True, True]
    assert parse(f"f < {big + 1}").mask(table).tolist() == [True, False, True]
    assert parse(f"f == {big + 1}").mask(table).tolist() == [False, False, False]
    assert Fraction(0.1) != Fraction(np.float32(0.1).item())
    single = pa.table({"x": pa.array([0.1], pa.float32())})
    assert parse("x == 0.1").mask(single).tolist() == [False]


def test_neither_reading_nor_evaluating_loads_pandas() -> None:
    code = """
import sys
import numpy as np, pyarrow as pa
from retrievekit.arrow import row_array, string_array
from retrievekit.where import field, parse
table = pa.table({"n": row_array(np.arange(5)), "s": string_array(list("abcde"))})
text = 'n >= 1 and n < 3.5 and n in (1, 2) and s in ("b", "c") and s contains "c" or n is null'
assert parse(text).mask(table).sum() == 1
assert (field("s") > "d").mask(table).sum() == 1
loaded = {"pandas", "torch", "numba"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
