"""Conditions on metadata: which documents a search may return.

::

    condition := both ("or" both)*
    both      := negated ("and" negated)*
    negated   := "not" negated | "(" condition ")" | test
    test      := COLUMN ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") literal
               | COLUMN ["not"] "in" "(" [literal ("," literal)* [","]] ")"
               | COLUMN "contains" literal
               | COLUMN "is" ["not"] "null"
    literal   := NUMBER | STRING | "true" | "false"
    COLUMN    := letter or "_", then letters, digits, "_"; "-" and "." between those;
                 or any name in `backticks`

Example: ``year >= 2020 and lang in ("en", "de")``. In Python the same is
``(field("year") >= 2020) & field("lang").isin(["en", "de"])``. Both give frozen values that print
back as text; nothing is ever run as code.

What the tests mean:

- **Numbers** compare by value, whole with fractional ones, exactly (also beyond 2^53 and outside
  the range of the column's type). NaN equals nothing and is not null.
- **Strings** compare by code point; ``contains`` finds a substring, or an element of a list column.
- **Dates and times** are written as strings, ``"2020-01-31"`` or ``"2020-01-31T10:00:00+01:00"``.
  A day compared with a timestamp is its midnight. In a column with a time zone, a time without one
  is UTC.
- **Nulls** satisfy no test but ``is null``; so neither ``year == 2020`` nor ``year != 2020`` holds
  for a document without a year, nor ``year not in (2020)``. There are two truth values: ``not`` is
  plain negation, and ``not year == 2020`` does hold for that document.
- **Types** that do not fit are an error, never an empty answer: a column of strings is not compared
  with a number, nor one of booleans with 1.
"""

from __future__ import annotations

import datetime
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.arrow import string_array
from retrievekit.errors import ExpressionError, UnknownNameError
from retrievekit.literals import ESCAPES, located, pointed, unescaped
from retrievekit.stage import fingerprint_of

Literal = bool | int | float | str
"""A value that a column is compared with; dates and times are ISO strings."""

DEEPEST = 50
"""Conditions within conditions: brackets and ``not`` that the parser follows."""

LONGEST_NUMBER = 400
"""Characters of a number."""

KEYWORDS = frozenset({"and", "or", "not", "in", "is", "null", "contains", "true", "false"})
"""Words of the grammar, in any case; a column of that name stands in backticks."""


# Conditions ---------------------------------------------------------------------------------------


class Condition(ABC):
    """What a document's metadata must satisfy; equal when the texts are equal.

    Combine with ``&``, ``|`` and ``~``. `parse` reads the text that ``str`` gives.
    """

    @abstractmethod
    def _pieces(self) -> Iterator[str | Leaf]:
        """The text in pieces, tests as themselves."""

    @abstractmethod
    def _rows(self, table: pa.Table, root: Condition) -> NDArray[np.bool_]:
        """Rows that satisfy this part of a whole condition."""

    @abstractmethod
    def _parts(self) -> tuple[Condition, ...]:
        """The conditions directly inside."""

    @cached_property
    def _height(self) -> int:
        return 1 + max((part._height for part in self._parts()), default=-1)

    @cached_property
    def _text(self) -> str:
        return "".join(p.text if isinstance(p, Leaf) else p for p in self._pieces())

    def __str__(self) -> str:
        """The text that parses to this value."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Whether both have the same text; 2020 and 2020.0 differ, as 1 and true do."""
        return self._text == other._text if isinstance(other, Condition) else NotImplemented

    def __hash__(self) -> int:
        """A hash of the text."""
        return hash(self._text)

    def __and__(self, other: Condition) -> Condition:
        """Both conditions."""
        return And((self, other)) if isinstance(other, Condition) else NotImplemented

    def __or__(self, other: Condition) -> Condition:
        """At least one of the conditions."""
        return Or((self, other)) if isinstance(other, Condition) else NotImplemented

    def __invert__(self) -> Condition:
        """The documents that this condition leaves out."""
        return Not(self)

    def __bool__(self) -> NoReturn:
        """Refused: ``a and b`` would silently forget ``a``, ``x < f < y`` its left side.

        Raises:
            ExpressionError: Always.
        """
        raise ExpressionError(
            f"the condition {self._text!r} has no truth value of its own; in Python, combine "
            "conditions in brackets with &, | and ~ instead of and, or, not and x < field < y"
        )

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns used, in the order of the text, each once."""
        return tuple(dict.fromkeys(p.column for p in self._pieces() if isinstance(p, Leaf)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the text, as hexadecimal; equal conditions have equal ones."""
        return fingerprint_of({"class": f"{__name__}.Condition", "text": self._text})

    def mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which rows of a table satisfy the condition.

        Every column's type is looked at, also where the table has no rows. Errors point at their
        place in ``str(self)``.

        Args:
            table: The metadata columns, n rows.

        Returns:
            bool ``(n,)``, the caller's own.

        Raises:
            UnknownNameError: The table has no such column; names near ones and points at the place.
            ExpressionError: A column's type does not fit what it is compared with, or two columns
                have the name; points at the place.
        """
        return self._rows(table, self)

    def _at(self, test: Leaf) -> int:
        """Where a test begins in the text."""
        at = 0
        for piece in self._pieces():
            if piece is test:
                break
            at += len(piece.text if isinstance(piece, Leaf) else piece)
        return at


class Leaf(Condition):
    """One column against literals: the leaf of a condition."""

    column: str

    @property
    @abstractmethod
    def text(self) -> str:
        """The text, beginning with the column's name."""

    @abstractmethod
    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Rows of a column that pass.

        Raises:
            ExpressionError: The column's type does not fit; says why, without the place.
        """

    def _pieces(self) -> Iterator[str | Leaf]:
        yield self

    def _parts(self) -> tuple[Condition, ...]:
        return ()

    def _rows(self, table: pa.Table, root: Condition) -> NDArray[np.bool_]:
        places = table.schema.get_all_field_indices(self.column)
        if len(places) != 1:
            shown = pointed(root._text, root._at(self))
            if places:
                raise ExpressionError(f"{len(places)} columns are named {self.column!r}\n{shown}")
            problem = str(UnknownNameError.among("column", self.column, table.column_names))
            if "did you mean" in problem:
                problem += f" known: {', '.join(sorted(table.column_names)[:20])}."
            raise UnknownNameError(f"{problem}\n{shown}")
        try:
            return self._holds(_decoded(table.column(places[0])))
        except ExpressionError as why:
            raise ExpressionError(
                f"column {self.column!r} {why}\n{pointed(root._text, root._at(self))}"
            ) from None


@dataclass(frozen=True, eq=False)
class Comparison(Leaf):
    """A column compared with one literal.

    Args:
        column: The column.
        operator: ``==``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        value: The literal; a date or time becomes its ISO string.

    Raises:
        ExpressionError: The operator is none of these, or the value no literal.
    """

    column: str
    operator: str
    value: Literal

    def __post_init__(self) -> None:
        _check_column(self.column)
        if self.operator not in _ARROW:
            raise ExpressionError(f"{self.operator!r} is no comparison; use {', '.join(_ARROW)}")
        object.__setattr__(self, "value", _literal(self.value))

    @property
    def text(self) -> str:
        return f"{_name(self.column)} {self.operator} {_written(self.value)}"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        kind = _kind(column.type)
        ordered = self.operator not in ("==", "!=")
        if kind == "list" or (kind == "boolean" and ordered):
            hint = "; use contains" if kind == "list" else "; use == or !="
            raise _misfit(column.type, self.value, hint)
        return _compared(column, self.operator, self.value)


@dataclass(frozen=True, eq=False)
class Membership(Leaf):
    """A column whose value is one of some literals, or is none of them.

    Args:
        column: The column.
        values: The literals, possibly none.
        negated: Whether the value, if there is one, must differ from all.

    Raises:
        ExpressionError: A value is no literal.
    """

    column: str
    values: tuple[Literal, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        _check_column(self.column)
        object.__setattr__(self, "values", tuple(_literal(value) for value in self.values))

    @property
    def text(self) -> str:
        inside = ", ".join(_written(value) for value in self.values)
        return f"{_name(self.column)} {'not ' if self.negated else ''}in ({inside})"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        if _kind(column.type) == "list" and self.values:
            raise _misfit(column.type, self.values[0], "; use contains")
        found = _among(column, self.values)
        return ~found & _valid(column) if self.negated else found


@dataclass(frozen=True, eq=False)
class Contains(Leaf):
    """A list column with a certain element, or a string column with a certain substring.

    Args:
        column: The column.
        value: The element, or the substring.

    Raises:
        ExpressionError: The value is no literal.
    """

    column: str
    value: Literal

    def __post_init__(self) -> None:
        _check_column(self.column)
        object.__setattr__(self, "value", _literal(self.value))

    @property
    def text(self) -> str:
        return f"{_name(self.column)} contains {_written(self.value)}"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        kind = _kind(column.type)
        if kind == "null":
            return np.zeros(len(column), np.bool_)
        if kind == "string" and isinstance(self.value, str):
            return _bools(pc.match_substring(column, self.value))
        if kind != "list":
            hint = "" if kind == "string" else "; contains is for columns of strings or lists"
            raise _misfit(column.type, self.value, hint)
        # One element type for all chunks, also where there is no chunk.
        elements = pa.chunked_array(
            [pc.list_flatten(chunk) for chunk in column.chunks], column.type.value_type
        )
        if _kind(_decoded(elements).type) == "list":
            raise _misfit(column.type, self.value, "; lists of lists cannot be searched")
        passing = _compared(_decoded(elements), "==", self.value)
        found = np.zeros(len(column), np.bool_)
        row = element = 0
        for chunk in column.chunks:
            parents = pc.list_parent_indices(chunk)
            inside = passing[element : element + len(parents)]
            found[row + _integers_of(parents)[inside]] = True
            row += len(chunk)
            element += len(parents)
        return found


@dataclass(frozen=True, eq=False)
class NullTest(Leaf):
    """Documents that lack a value, or that have one.

    Args:
        column: The column.
        negated: Whether there must be a value.
    """

    column: str
    negated: bool = False

    def __post_init__(self) -> None:
        _check_column(self.column)

    @property
    def text(self) -> str:
        return f"{_name(self.column)} is {'not ' if self.negated else ''}null"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        valid = _valid(column)
        return valid if self.negated else ~valid


@dataclass(frozen=True, eq=False)
class Not(Condition):
    """The documents that a condition leaves out, those that only lack the value among them.

    Args:
        inner: The condition.

    Raises:
        ExpressionError: Conditions are nested too deep.
    """

    inner: Condition

    def __post_init__(self) -> None:
        _check_parts(self)

    def _parts(self) -> tuple[Condition, ...]:
        return (self.inner,)

    def _pieces(self) -> Iterator[str | Leaf]:
        yield "not "
        yield from _bracketed(self.inner, (_Junction,))

    def _rows(self, table: pa.Table, root: Condition) -> NDArray[np.bool_]:
        found = self.inner._rows(table, root)
        return np.logical_not(found, out=found)


@dataclass(frozen=True, eq=False)
class _Junction(Condition):
    """Conditions joined by one word; those within that are joined by the same are taken apart."""

    parts: tuple[Condition, ...]
    _word: ClassVar[str]
    _weaker: ClassVar[tuple[type[Condition], ...]] = ()

    def __post_init__(self) -> None:
        flat = [p.parts if isinstance(p, type(self)) else (p,) for p in self.parts]
        object.__setattr__(self, "parts", tuple(inner for part in flat for inner in part))
        if len(self.parts) < 2:
            raise ExpressionError(
                f"{type(self).__name__} joins at least two conditions, not {len(self.parts)}"
            )
        _check_parts(self)

    def _parts(self) -> tuple[Condition, ...]:
        return self.parts

    def _pieces(self) -> Iterator[str | Leaf]:
        for place, part in enumerate(self.parts):
            if place:
                yield f" {self._word} "
            yield from _bracketed(part, self._weaker)


@dataclass(frozen=True, eq=False)
class Or(_Junction):
    """At least one of some conditions; those within that are `Or` themselves are taken apart.

    Args:
        parts: At least two conditions.

    Raises:
        ExpressionError: Fewer than two, or conditions are nested too deep.
    """

    _word = "or"

    def _rows(self, table: pa.Table, root: Condition) -> NDArray[np.bool_]:
        found = self.parts[0]._rows(table, root)
        for part in self.parts[1:]:
            found |= part._rows(table, root)
        return found


@dataclass(frozen=True, eq=False)
class And(_Junction):
    """All of some conditions; those within that are `And` themselves are taken apart.

    Args:
        parts: At least two conditions.

    Raises:
        ExpressionError: Fewer than two, or conditions are nested too deep.
    """

    _word = "and"
    _weaker = (Or,)

    def _rows(self, table: pa.Table, root: Condition) -> NDArray[np.bool_]:
        found = self.parts[0]._rows(table, root)
        for part in self.parts[1:]:
            found &= part._rows(table, root)
        return found


def _check_parts(condition: Condition) -> None:
    for part in condition._parts():
        if not isinstance(part, Condition):
            raise ExpressionError(f"{part!r} ({type(part).__name__}) is no condition")
    if condition._height > DEEPEST:
        raise ExpressionError(f"conditions are nested more than {DEEPEST} deep")


def _bracketed(part: Condition, weaker: tuple[type[Condition], ...]) -> Iterator[str | Leaf]:
    if isinstance(part, weaker):
        yield "("
        yield from part._pieces()
        yield ")"
    else:
        yield from part._pieces()


# Building in Python -------------------------------------------------------------------------------


class Field:
    """A metadata column in Python, to be compared: ``field("year") >= 2020``.

    Args:
        name: The column's name.

    Raises:
        ExpressionError: The name is no text, or empty.
    """

    __hash__ = None  # type: ignore[assignment]  # since == makes a condition

    def __init__(self, name: str) -> None:
        _check_column(name)
        self.name = name

    def __repr__(self) -> str:
        """The call that makes it."""
        return f"field({self.name!r})"

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        """Documents whose value equals the literal."""
        return Comparison(self.name, "==", _literal(value))

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        """Documents whose value there is and differs."""
        return Comparison(self.name, "!=", _literal(value))

    def __lt__(self, value: object) -> Condition:
        """Documents whose value is less."""
        return Comparison(self.name, "<", _literal(value))

    def __le__(self, value: object) -> Condition:
        """Documents whose value is less or equal."""
        return Comparison(self.name, "<=", _literal(value))

    def __gt__(self, value: object) -> Condition:
        """Documents whose value is greater."""
        return Comparison(self.name, ">", _literal(value))

    def __ge__(self, value: object) -> Condition:
        """Documents whose value is greater or equal."""
        return Comparison(self.name, ">=", _literal(value))

    def isin(self, values: Iterable[object]) -> Condition:
        """Documents whose value is one of some literals.

        Args:
            values: The literals, possibly none; those of a set are sorted.

        Returns:
            The condition.

        Raises:
            ExpressionError: A value is no literal, or `values` is a single string.
        """
        return Membership(self.name, _literals(values))

    def not_in(self, values: Iterable[object]) -> Condition:
        """Documents whose value there is and is none of some literals.

        Args:
            values: The literals, possibly none; those of a set are sorted.

        Returns:
            The condition.

        Raises:
            ExpressionError: A value is no literal, or `values` is a single string.
        """
        return Membership(self.name, _literals(values), negated=True)

    def contains(self, value: object) -> Condition:
        """Documents whose list has an element, or whose string has a substring.

        Args:
            value: The element or substring.

        Returns:
            The condition.

        Raises:
            ExpressionError: The value is no literal.
        """
        return Contains(self.name, _literal(value))

    def is_null(self) -> Condition:
        """Documents without a value."""
        return NullTest(self.name)

    def is_not_null(self) -> Condition:
        """Documents with a value."""
        return NullTest(self.name, negated=True)

    def _alone(self, *_: object) -> NoReturn:
        raise ExpressionError(
            f"{self!r} alone is no condition; compare it, as in {self!r} == true, and put each "
            "comparison in brackets, since & and | bind tighter than == or >="
        )

    __and__ = __rand__ = __or__ = __ror__ = __invert__ = __bool__ = _alone


def field(name: str) -> Field:
    """A metadata column, to be compared.

    Args:
        name: The column's name.

    Returns:
        The builder of conditions.

    Raises:
        ExpressionError: The name is no text, or empty.

    >>> print((field("year") >= 2020) & field("lang").isin(["en", "de"]))
    year >= 2020 and lang in ("en", "de")
    """
    return Field(name)


def _check_column(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ExpressionError(f"a column is named by a text that is not empty, not by {name!r}")
    _check_unicode(name)


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as why:
        raise ExpressionError(f"{text!r} holds a lone surrogate; it is not valid Unicode") from why


def _literals(values: Iterable[object]) -> tuple[Literal, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ExpressionError(f"give a list of values, such as [{values!r}], not {values!r}")
    found = [_literal(value) for value in values]
    if isinstance(values, Set):  # the order of a set differs from run to run
        found.sort(key=lambda value: (type(value).__name__, value))
    return tuple(found)


def _literal(value: object) -> Literal:
    """The value as one of the plain types, never a subclass."""
    if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64)):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value).bit_length() > 3.3 * LONGEST_NUMBER:  # 3.32 bits a digit
            raise ExpressionError(f"a number of more than {LONGEST_NUMBER} characters")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionError(f"a column cannot be compared with {value}")
        return float(value)
    if isinstance(value, str):
        _check_unicode(value)
        return str(value)
    if isinstance(value, datetime.date):  # a datetime is one, too
        return value.isoformat()
    hint = "; a missing value is found by is_null()" if value is None else ""
    raise ExpressionError(
        f"a column is compared with a number, string, boolean, date or datetime, not with "
        f"{value!r} ({type(value).__name__}){hint}"
    )


# Writing ------------------------------------------------------------------------------------------

_NAME = re.compile(r"[^\W\d]\w*(?:[-.]+\w+)*")
_LETTERS = {meant: letter for letter, meant in ESCAPES.items()}


def _name(column: str) -> str:
    if _NAME.fullmatch(column) and column.lower() not in KEYWORDS:
        return column
    return _quoted(column, "`")


def _quoted(text: str, quote: str) -> str:
    return quote + "".join(_escaped(character, quote) for character in text) + quote


def _escaped(character: str, quote: str) -> str:
    if character in _LETTERS and (character not in "'\"`" or character == quote):
        return "\\" + _LETTERS[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _written(value: Literal) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value, '"') if isinstance(value, str) else repr(value)


# Parsing ------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    rf"""
      (?P<blank>\s+)
    | (?P<name>{_NAME.pattern})
    | (?P<day>[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}})
    | (?P<number>-?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<quoted>`(?:[^`\\\n]|\\.)+`)
    | (?P<sign>==|!=|<=|>=|[=<>(),\[\]])
    """,
    re.VERBOSE,
)

_INSTEAD = {"&": "write 'and'", "|": "write 'or'", "!": "write 'not' or '!='", "~": "write 'not'"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)

    @property
    def word(self) -> str:
        """The keyword, in small letters; empty for anything else."""
        low = self.text.lower()
        return low if self.kind == "name" and low in KEYWORDS else ""


def _unexpected(text: str, token: _Token, wanted: str, hint: str = "") -> NoReturn:
    raise located(text, token.at, f"expected {wanted}, but found {token.shown}{hint}")


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            found = text[at]
            what = "a string without its end" if found in "'\"`" else f"{found!r} here"
            hint = f"; {_INSTEAD[found]}" if found in _INSTEAD else ""
            raise located(text, at, f"cannot read {what}{hint}")
        kind = str(match.lastgroup)
        if kind == "day":
            raise located(text, at, f'a date stands in quotes: "{match[0]}"')
        if kind != "blank":
            yield _Token(kind, match[0], at)
        at = match.end()
    yield _Token("end", "", len(text))


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.place = 0
        self.depth = 0

    @property
    def now(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        token = self.now
        self.place += token.kind != "end"
        return token

    def takes(self, word: str) -> bool:
        """Whether the keyword or sign comes next; then it is taken."""
        token = self.now
        found = token.word == word or (token.kind == "sign" and token.text == word)
        if found:
            self.take()
        return found

    def deeper(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise located(self.text, token.at, f"conditions are nested more than {DEEPEST} deep")

    def whole(self) -> Condition:
        found = self.either()
        token = self.now
        if token.kind != "end":
            chained = token.kind == "sign" and token.text in _SIGNS
            hint = "; comparisons do not chain: write x >= 1 and x <= 2" if chained else ""
            _unexpected(self.text, token, "'and', 'or' or the end", hint)
        return found

    def either(self) -> Condition:
        parts = [self.both()]
        while self.takes("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self) -> Condition:
        parts = [self.negated()]
        while self.takes("and"):
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def negated(self) -> Condition:
        token = self.now
        if self.takes("not"):
            self.deeper(token)
            found: Condition = Not(self.negated())
        elif self.takes("("):
            self.deeper(token)
            found = self.either()
            if not self.takes(")"):
                _unexpected(self.text, self.now, "'and', 'or' or ')'")
        else:
            return self.test()
        self.depth -= 1
        return found

    def test(self) -> Condition:
        column = self.column()
        token = self.take()
        if token.kind == "sign" and token.text in _SIGNS:
            return Comparison(column, _SIGNS[token.text], self.literal())
        if token.word == "is":
            negated = self.takes("not")
            if not self.takes("null"):
                _unexpected(self.text, self.now, "'null'" if negated else "'null' or 'not null'")
            return NullTest(column, negated)
        if token.word == "contains":
            return Contains(column, self.literal())
        if token.word == "in":
            return Membership(column, self.listed())
        if token.word == "not":
            if not self.takes("in"):
                _unexpected(
                    self.text, self.now, "'in'", "; for other tests write not before the column"
                )
            return Membership(column, self.listed(), negated=True)
        hint = {
            "between": f"; write {column} >= ... and {column} <= ...",
            "like": f"; write {column} contains ...",
        }.get(token.text.lower(), "")
        if token.kind == "end" or token.word in ("and", "or") or token.text == ")":
            hint = f"; for a boolean column write {column} == true"
        _unexpected(
            self.text,
            token,
            f"a comparison, 'in', 'is' or 'contains' after the column {column}",
            hint,
        )

    def column(self) -> str:
        token = self.take()
        if token.kind == "quoted":
            return unescaped(self.text, token.at, token.text)
        if token.kind == "name" and not token.word:
            return token.text
        hint = ""
        if token.word:
            hint = f"; a column of that name stands in backticks: `{token.text}`"
        elif token.kind in ("string", "number"):
            hint = "; the column comes first: year >= 2020"
        _unexpected(self.text, token, "the name of a column", hint)

    def listed(self) -> tuple[Literal, ...]:
        opening = self.take()
        if opening.kind != "sign" or opening.text not in "([":
            _unexpected(self.text, opening, "'(' and a list of values", '; write ("en", "de")')
        closing = ")" if opening.text == "(" else "]"
        values: list[Literal] = []
        while not self.takes(closing):
            values.append(self.literal())
            if self.takes(closing):
                break
            if not self.takes(","):
                _unexpected(self.text, self.now, f"',' or {closing!r} in the list")
        return tuple(values)

    def literal(self) -> Literal:
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "string":
            return unescaped(self.text, token.at, token.text)
        if token.word in ("true", "false"):
            return token.word == "true"
        hint = ""
        if token.word == "null" or token.text in ("None", "none"):
            hint = "; write is null or is not null"
        elif token.kind == "name":
            hint = f"; put it in quotes: {_quoted(token.text, chr(34))}"
        elif token.text in ("(", "["):
            hint = "; lists stand after in"
        _unexpected(self.text, token, "a number, a string, true or false", hint)

    def number(self, token: _Token) -> int | float:
        if len(token.text) > LONGEST_NUMBER:
            raise located(self.text, token.at, f"a number of more than {LONGEST_NUMBER} characters")
        if re.fullmatch(r"-?[0-9]+", token.text):
            return int(token.text)
        value = float(token.text)
        if math.isinf(value):
            raise located(self.text, token.at, f"{token.text} is too large for a number")
        return value


def parse(text: str) -> Condition:
    """Read a condition.

    Args:
        text: The condition.

    Returns:
        The value; ``parse(str(c)) == c``.

    Raises:
        ExpressionError: The text does not follow the grammar; the message points at the place.

    >>> print(parse("year>=2020 AND lang in ['en','de',]"))
    year >= 2020 and lang in ("en", "de")
    """
    if not isinstance(text, str):
        raise ExpressionError(f"a condition is a text, not {text!r} ({type(text).__name__})")
    if not text.strip():
        raise ExpressionError('an empty condition; write one such as "year >= 2020"')
    return _Parser(text).whole()


def condition_of(where: str | Condition) -> Condition:
    """A condition from what a caller of ``where=`` gives.

    Args:
        where: A text or a condition.

    Returns:
        The condition.

    Raises:
        ExpressionError: The text does not follow the grammar; the message points at the place.
    """
    return where if isinstance(where, Condition) else parse(where)


# Evaluating ---------------------------------------------------------------------------------------
#
# Scalars and arrays are made from buffers, and results are read from theirs: `pa.scalar`,
# `pa.array` and `to_numpy` import pandas where that is installed.

_ARROW = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
_SIGNS = {"=": "=="} | {operator: operator for operator in _ARROW}

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    rf"({_DAY.pattern}[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?)(?:\.([0-9]{{1,9}}))?"
    r"(Z|[+-][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?"
)
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _kind(type_: pa.DataType) -> str:
    """What the values of a column are compared as; empty when they cannot be."""
    types = pa.types
    if types.is_integer(type_):
        return "integer"
    if types.is_floating(type_):
        return "float"
    if types.is_boolean(type_):
        return "boolean"
    if types.is_large_string(type_) or types.is_string(type_):
        return "string"
    if types.is_date(type_):
        return "date"
    if types.is_timestamp(type_):
        return "timestamp"
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return "list"
    return "null" if types.is_null(type_) else ""


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column itself, or the plain values of one in a packed form."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column


def _misfit(type_: pa.DataType, value: Literal, hint: str = "") -> ExpressionError:
    names = {bool: "a boolean", str: "a string"}
    said = f"{_written(value)}, {names.get(type(value), 'a number')}"
    return ExpressionError(f"is of type {type_} and cannot be compared with {said}{hint}")


def _plain(
    column: pa.ChunkedArray, values: tuple[Literal, ...]
) -> tuple[pa.ChunkedArray, str, list[Any]]:
    """Column and literals in a form that can be compared, and what it is compared as.

    Dates and times become counts since 1970: integers in the column's unit, fractions as literals.
    """
    type_ = column.type
    kind = _kind(type_)
    if kind == "null":
        return column, kind, list(values)
    fits = {"boolean": (bool,), "integer": (int, float), "float": (int, float)}.get(kind, (str,))
    hints = {
        "date": '; write a day as "2020-01-31"',
        "timestamp": '; write a time as "2020-01-31T10:00:00"',
        "": "; only is null and is not null work with this type",
        "list": "; only is null, is not null and contains work with this type",
    }
    for value in values:
        is_misread = kind in ("integer", "float") and isinstance(value, bool)
        if not isinstance(value, fits) or is_misread or kind in ("", "list"):
            raise _misfit(type_, value, hints.get(kind, ""))
    if kind == "float":
        return column.cast(pa.float64()), kind, list(values)
    if kind == "date":
        days = [_days(str(value), type_) for value in values]
        if pa.types.is_date32(type_):
            return column.cast(pa.int32()), "integer", days
        return column.cast(pa.int64()), "integer", [day * 86_400_000 for day in days]
    if kind == "timestamp":
        unit = _NANOSECONDS[type_.unit]
        counts = [Fraction(_nanoseconds(str(value), type_), unit) for value in values]
        return column.cast(pa.int64()), "integer", counts
    return column, kind, list(values)


def _days(text: str, type_: pa.DataType) -> int:
    try:
        if not _DAY.fullmatch(text):
            raise ValueError(text)
        return datetime.date.fromisoformat(text).toordinal() - _EPOCH.toordinal()
    except ValueError:
        raise _misfit(type_, text, '; write a day as "2020-01-31"') from None


def _nanoseconds(text: str, type_: pa.DataType) -> int:
    if _DAY.fullmatch(text):
        return _days(text, type_) * 86_400 * 10**9
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        time, fraction, offset = match[1], match[2] or "", match[3]
        moment = datetime.datetime.fromisoformat(time + (offset or "+00:00"))
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        raise _misfit(type_, text, '; write a time as "2020-01-31T10:00:00"') from None
    if offset and type_.tz is None:
        raise _misfit(type_, text, "; the column has no time zone, so leave out the offset")
    return (since.days * 86_400 + since.seconds) * 10**9 + int(fraction.ljust(9, "0"))


def _compared(column: pa.ChunkedArray, operator: str, value: Literal) -> NDArray[np.bool_]:
    column, kind, (plain,) = _plain(column, (value,))
    if kind == "null":
        return np.zeros(len(column), np.bool_)
    if kind == "integer":
        return _integers_compared(column, operator, plain)
    if kind == "float":
        return _floats_compared(column, operator, plain)
    return _arrow_compared(column, operator, plain)


def _integers_compared(
    column: pa.ChunkedArray, operator: str, value: int | float | Fraction
) -> NDArray[np.bool_]:
    """Against any finite number: first as the whole bound that says the same."""
    bound = math.floor(value)
    if bound != value:
        if operator in ("==", "!="):
            return _constant(column, operator == "!=")
        if operator in ("<", "<="):
            operator = "<="
        else:
            operator, bound = ">=", bound + 1
    limits = np.iinfo(_dtype(column.type))
    if bound > limits.max:
        return _constant(column, operator in ("<", "<=", "!="))
    if bound < limits.min:
        return _constant(column, operator in (">", ">=", "!="))
    return _arrow_compared(column, operator, bound)


def _floats_compared(
    column: pa.ChunkedArray, operator: str, value: int | float
) -> NDArray[np.bool_]:
    """Against any number: a whole one between two doubles compares as the nearer of them does."""
    near = _double(value)
    if near != value:
        if operator in ("==", "!="):
            return _constant(column, operator == "!=")
        if near > value:
            operator = "<" if operator in ("<", "<=") else ">="
        else:
            operator = "<=" if operator in ("<", "<=") else ">"
    return _arrow_compared(column, operator, near)


def _among(column: pa.ChunkedArray, values: tuple[Literal, ...]) -> NDArray[np.bool_]:
    """Rows whose value is one of the literals."""
    if not values:
        return np.zeros(len(column), np.bool_)
    column, kind, plain = _plain(column, values)
    if kind == "null":
        return np.zeros(len(column), np.bool_)
    if kind == "integer":
        limits = np.iinfo(_dtype(column.type))
        plain = [int(v) for v in plain if v == math.floor(v) and limits.min <= v <= limits.max]
    elif kind == "float":
        plain = [near for value in plain if (near := _double(value)) == value]
        if 0.0 in plain:  # Arrow's hash tells the two zeros apart
            plain += [0.0, -0.0]
    elif kind == "boolean":
        found = np.zeros(len(column), np.bool_)
        for value in set(plain):
            found |= _arrow_compared(column, "==", value)
        return found
    return _bools(pc.is_in(column, value_set=_array(plain, column.type)))


def _double(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _dtype(type_: pa.DataType) -> np.dtype[Any]:
    return np.dtype(np.float64) if pa.types.is_float64(type_) else np.dtype(str(type_))


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    """An Arrow array without nulls: strings, or integers or doubles that fit the type."""
    if _kind(type_) == "string":
        return string_array(values).cast(type_)
    raw = np.array(values, _dtype(type_))
    return pa.Array.from_buffers(type_, len(raw), [None, pa.py_buffer(raw)])


def _arrow_compared(
    column: pa.ChunkedArray, operator: str, value: bool | int | float | str
) -> NDArray[np.bool_]:
    if isinstance(value, bool):
        bit = pa.py_buffer(b"\1" if value else b"\0")
        scalar = pa.Array.from_buffers(pa.bool_(), 1, [None, bit])[0]
    else:
        scalar = _array([value], column.type)[0]
    return _bools(getattr(pc, _ARROW[operator])(column, scalar))


def _constant(column: pa.ChunkedArray, value: bool) -> NDArray[np.bool_]:
    """The same for every row but the nulls, which pass no test."""
    return _valid(column) if value else np.zeros(len(column), np.bool_)


def _valid(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Rows that are not null."""
    return _bools(pc.is_valid(column))


def _bools(truth: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Arrow booleans as an array of bytes; null is false."""
    out = np.empty(len(truth), np.bool_)
    start = 0
    for chunk in truth.chunks:
        if not len(chunk):
            continue
        valid, values = chunk.buffers()
        part = out[start : start + len(chunk)]
        part[:] = _bits(values, chunk.offset, len(chunk))
        if valid is not None:
            part &= _bits(valid, chunk.offset, len(chunk))
        start += len(chunk)
    return out


def _bits(buffer: pa.Buffer, offset: int, length: int) -> NDArray[np.bool_]:
    packed = np.frombuffer(buffer, np.uint8)[offset // 8 :]
    first = offset % 8
    return np.unpackbits(packed, count=first + length, bitorder="little")[first:].view(np.bool_)


def _integers_of(numbers: pa.Array) -> NDArray[np.int64]:
    """Arrow's row numbers, int64 without nulls, as an array."""
    if not len(numbers):
        return np.empty(0, np.int64)
    whole = np.frombuffer(numbers.buffers()[1], np.int64)
    return whole[numbers.offset : numbers.offset + len(numbers)]
