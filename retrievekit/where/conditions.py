"""The tree of a condition: tests of single columns, joined by and, or, not.

Nodes are frozen values that print as the text which parses to them. `Condition.mask` asks each test
for the rows of its column that pass (`retrievekit.where.evaluate` compares them) and joins the
answers. A test that cannot be asked is an error that points at its place in the whole text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, takewhile
from typing import ClassVar, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.errors import ExpressionError, UnknownNameError
from retrievekit.literals import DEEPEST, pointed
from retrievekit.stage import fingerprint_of
from retrievekit.where.evaluate import OPERATORS, among, compared, containing, decoded, present
from retrievekit.where.values import (
    Literal,
    check_column,
    literal_of,
    literals_of,
    written,
    written_column,
)


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
        return "".join(map(str, self._pieces()))

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
        return fingerprint_of({"class": "retrievekit.where.Condition", "text": self._text})

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

    def _shown(self, test: Leaf) -> str:
        """The text with a caret under a test."""
        before = takewhile(lambda piece: piece is not test, self._pieces())
        return pointed(self._text, sum(len(str(piece)) for piece in before))


# Tests of one column ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Leaf(Condition):
    """One column against literals: the leaf of a condition; its text begins with the column.

    Args:
        column: The column.

    Raises:
        ExpressionError: The column's name is no text, or empty.
    """

    column: str

    def __post_init__(self) -> None:
        check_column(self.column)

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
        if not places:
            problem = str(UnknownNameError.among("column", self.column, table.column_names))
            if "did you mean" in problem:
                problem += f" known: {', '.join(sorted(table.column_names)[:20])}."
            raise UnknownNameError(f"{problem}\n{root._shown(self)}")
        if len(places) > 1:
            problem = f"{len(places)} columns are named {self.column!r}"
            raise ExpressionError(f"{problem}\n{root._shown(self)}")
        try:
            return self._holds(decoded(table.column(places[0])))
        except ExpressionError as why:
            problem = f"column {self.column!r} {why}"
            raise ExpressionError(f"{problem}\n{root._shown(self)}") from None


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

    operator: str
    value: Literal

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.operator not in OPERATORS:
            known = ", ".join(OPERATORS)
            raise ExpressionError(f"{self.operator!r} is no comparison; use {known}")
        object.__setattr__(self, "value", literal_of(self.value))

    @cached_property
    def _text(self) -> str:
        return f"{written_column(self.column)} {self.operator} {written(self.value)}"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        return compared(column, self.operator, self.value)


@dataclass(frozen=True, eq=False)
class Membership(Leaf):
    """A column whose value is one of some literals, or is none of them.

    Args:
        column: The column.
        values: The literals, possibly none.
        negated: Whether the value, if there is one, must differ from all.

    Raises:
        ExpressionError: A value is no literal, or `values` is a single string.
    """

    values: tuple[Literal, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "values", literals_of(self.values))

    @cached_property
    def _text(self) -> str:
        inside = ", ".join(written(value) for value in self.values)
        return f"{written_column(self.column)} {'not ' if self.negated else ''}in ({inside})"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        found = among(column, self.values)
        return ~found & present(column) if self.negated else found


@dataclass(frozen=True, eq=False)
class Contains(Leaf):
    """A list column with a certain element, or a string column with a certain substring.

    Args:
        column: The column.
        value: The element, or the substring.

    Raises:
        ExpressionError: The value is no literal.
    """

    value: Literal

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", literal_of(self.value))

    @cached_property
    def _text(self) -> str:
        return f"{written_column(self.column)} contains {written(self.value)}"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        return containing(column, self.value)


@dataclass(frozen=True, eq=False)
class NullTest(Leaf):
    """Documents that lack a value, or that have one.

    Args:
        column: The column.
        negated: Whether there must be a value.
    """

    negated: bool = False

    @cached_property
    def _text(self) -> str:
        return f"{written_column(self.column)} is {'not ' if self.negated else ''}null"

    def _holds(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        found = present(column)
        return found if self.negated else ~found


# Conditions of conditions -------------------------------------------------------------------------


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
        return ~self.inner._rows(table, root)


@dataclass(frozen=True, eq=False)
class _Junction(Condition):
    """Conditions joined by one word; those within that are joined by the same are taken apart."""

    parts: tuple[Condition, ...]
    _word: ClassVar[str]
    _joined: ClassVar[np.ufunc]
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

    def _rows(self, table: pa.Table, root: Condition) -> NDArray[np.bool_]:
        found = self.parts[0]._rows(table, root)
        for part in self.parts[1:]:
            self._joined(found, part._rows(table, root), out=found)
        return found


@dataclass(frozen=True, eq=False)
class Or(_Junction):
    """At least one of some conditions; those within that are `Or` themselves are taken apart.

    Args:
        parts: At least two conditions.

    Raises:
        ExpressionError: Fewer than two, or conditions are nested too deep.
    """

    _word = "or"
    _joined = np.logical_or


@dataclass(frozen=True, eq=False)
class And(_Junction):
    """All of some conditions; those within that are `And` themselves are taken apart.

    Args:
        parts: At least two conditions.

    Raises:
        ExpressionError: Fewer than two, or conditions are nested too deep.
    """

    _word = "and"
    _joined = np.logical_and
    _weaker = (Or,)


def _check_parts(condition: Condition) -> None:
    for part in condition._parts():
        if not isinstance(part, Condition):
            raise ExpressionError(f"{part!r} ({type(part).__name__}) is no condition")
    if condition._height > DEEPEST:
        raise ExpressionError(f"conditions are nested more than {DEEPEST} deep")


def _bracketed(part: Condition, weaker: tuple[type[Condition], ...]) -> Iterator[str | Leaf]:
    pieces = part._pieces()
    return chain("(", pieces, ")") if isinstance(part, weaker) else pieces
