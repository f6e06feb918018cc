"""What a condition is made of, columns and literals: what they may be, and how they are written.

A literal is a boolean, a finite number or a string, of the plain type and never a subclass; dates
and times are ISO strings. A column's name stands as it is, or in `backticks` where the grammar
would read it otherwise.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Set

import numpy as np

from retrievekit.errors import ExpressionError
from retrievekit.literals import LONGEST_NUMBER, NAME, quoted

Literal = bool | int | float | str
"""A value that a column is compared with; dates and times are ISO strings."""

KEYWORDS = frozenset({"and", "or", "not", "in", "is", "null", "contains", "true", "false"})
"""Words of the grammar, in any case; a column of that name stands in backticks."""


def check_column(name: object) -> None:
    """Accept what can name a column.

    Raises:
        ExpressionError: The name is no text, or empty, or no Unicode.
    """
    if not isinstance(name, str) or not name:
        raise ExpressionError(f"a column is named by a text that is not empty, not by {name!r}")
    _check_unicode(name)


def literal_of(value: object) -> Literal:
    """A value as the literal that stands for it.

    Raises:
        ExpressionError: There is none.
    """
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


def literals_of(values: Iterable[object]) -> tuple[Literal, ...]:
    """Several values as literals; those of a set are sorted, since its order is by chance.

    Raises:
        ExpressionError: A value is no literal, or `values` is a single string.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ExpressionError(f"give a list of values, such as [{values!r}], not {values!r}")
    found = [literal_of(value) for value in values]
    if isinstance(values, Set):
        found.sort(key=lambda value: (type(value).__name__, value))
    return tuple(found)


def written(value: Literal) -> str:
    """A literal as the text that parses to it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else repr(value)


def written_column(name: str) -> str:
    """A column's name as the text that parses to it."""
    if re.fullmatch(NAME, name) and name.lower() not in KEYWORDS:
        return name
    return quoted(name, "`")


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as why:
        raise ExpressionError(f"{text!r} holds a lone surrogate; it is not valid Unicode") from why
