"""Conditions written in Python: ``(field("year") >= 2020) & field("lang").isin(["en", "de"])``.

A `Field` is a column waiting to be compared; each comparison makes a condition, and conditions
combine by ``&``, ``|`` and ``~``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from retrievekit.errors import ExpressionError
from retrievekit.where.conditions import Comparison, Condition, Contains, Membership, NullTest
from retrievekit.where.values import check_column, literal_of, literals_of


class Field:
    """A metadata column in Python, to be compared: ``field("year") >= 2020``.

    Args:
        name: The column's name.

    Raises:
        ExpressionError: The name is no text, or empty.
    """

    __hash__ = None  # type: ignore[assignment]  # since == makes a condition

    def __init__(self, name: str) -> None:
        check_column(name)
        self.name = name

    def __repr__(self) -> str:
        """The call that makes it."""
        return f"field({self.name!r})"

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        """Documents whose value equals the literal."""
        return Comparison(self.name, "==", literal_of(value))

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        """Documents whose value there is and differs."""
        return Comparison(self.name, "!=", literal_of(value))

    def __lt__(self, value: object) -> Condition:
        """Documents whose value is less."""
        return Comparison(self.name, "<", literal_of(value))

    def __le__(self, value: object) -> Condition:
        """Documents whose value is less or equal."""
        return Comparison(self.name, "<=", literal_of(value))

    def __gt__(self, value: object) -> Condition:
        """Documents whose value is greater."""
        return Comparison(self.name, ">", literal_of(value))

    def __ge__(self, value: object) -> Condition:
        """Documents whose value is greater or equal."""
        return Comparison(self.name, ">=", literal_of(value))

    def isin(self, values: Iterable[object]) -> Condition:
        """Documents whose value is one of some literals.

        Args:
            values: The literals, possibly none; those of a set are sorted.

        Returns:
            The condition.

        Raises:
            ExpressionError: A value is no literal, or `values` is a single string.
        """
        return Membership(self.name, literals_of(values))

    def not_in(self, values: Iterable[object]) -> Condition:
        """Documents whose value there is and is none of some literals.

        Args:
            values: The literals, possibly none; those of a set are sorted.

        Returns:
            The condition.

        Raises:
            ExpressionError: A value is no literal, or `values` is a single string.
        """
        return Membership(self.name, literals_of(values), negated=True)

    def contains(self, value: object) -> Condition:
        """Documents whose list has an element, or whose string has a substring.

        Args:
            value: The element or substring.

        Returns:
            The condition.

        Raises:
            ExpressionError: The value is no literal.
        """
        return Contains(self.name, literal_of(value))

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
