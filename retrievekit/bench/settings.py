"""Settings of retrievers as an expression has them, read and checked before anything is built."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrievekit.config import Literal
from retrievekit.errors import DataError, ExpressionError, UnknownNameError
from retrievekit.where import Condition, parse

HOW = ("max", "first", "sum", "mean")
"""Ways from the scores of passages to that of their document."""


@dataclass(frozen=True)
class Asked:
    """What an expression wants of a search, whatever is searched.

    Args:
        k: Hits per query.
        where: A condition on metadata, or None.
        window: Words and stride of the passages that are indexed; None indexes whole documents.
        aggregate: How passages become documents again (`HOW`); None leaves them passages.
    """

    k: int
    where: Condition | None = None
    window: tuple[int, int] | None = None
    aggregate: str | None = None


def window_of(value: str | int) -> tuple[int, int]:
    """Words and stride of passages.

    Args:
        value: Such as ``150`` or ``"150/75"``; a colon does as well.

    Returns:
        Words of a passage, and words from one's beginning to the next one's.

    Raises:
        DataError: It says something else.
    """
    parts = re.fullmatch(r"(\d+)(?:[/:](\d+))?", str(value), re.ASCII)
    if parts is None:
        raise DataError(f"passages are WORDS or WORDS/STRIDE, such as 150/75; got {value}")
    window = int(parts[1]), int(parts[2] or parts[1])
    if not 1 <= window[1] <= window[0]:
        raise DataError(
            f"passages of {value}: give at least one word, and a stride of 1 to as many words"
        )
    return window


def windowed(passages: Literal, aggregate: Literal) -> tuple[tuple[int, int] | None, str | None]:
    """The window of passages, and how they become documents again.

    Args:
        passages: See `window_of`; None for whole documents.
        aggregate: One of `HOW`, or None.

    Returns:
        Both; nothing of either for whole documents.

    Raises:
        ExpressionError: A value is none of these.
    """
    if passages is None:
        if aggregate != "max":
            raise ExpressionError('aggregate is for passages; give passages="150/75", say, too')
        return None, None
    if isinstance(passages, bool) or not isinstance(passages, (str, int)):
        raise ExpressionError(f'passages is {passages!r}, but must be such as 150 or "150/75"')
    try:
        window = window_of(passages)
    except DataError as why:
        raise ExpressionError(str(why)) from why
    if aggregate is not None and aggregate not in HOW:
        raise ExpressionError(str(UnknownNameError.among("aggregation", str(aggregate), HOW)))
    return window, None if aggregate is None else str(aggregate)


def options_of(engine: str, given: Mapping[str, Literal]) -> dict[str, int]:
    """The options of an engine that were given.

    Args:
        engine: Its name.
        given: Options by name; None for one that was not given.

    Returns:
        Those that were.

    Raises:
        ExpressionError: The engine has no such option, or it is no number of its kind.
    """
    from retrievekit.index.engines.options import settled

    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        settled(engine, options)
    except (DataError, UnknownNameError) as why:
        raise ExpressionError(str(why)) from why
    return options


def condition(where: Literal, columns: Sequence[str]) -> Condition | None:
    """A condition on metadata; refused before an index is built when its documents lack a column.

    Args:
        where: The condition's text, or None.
        columns: The columns that documents have.

    Returns:
        The condition.

    Raises:
        ExpressionError: It does not parse, or names another column.
    """
    if where is None:
        return None
    found = parse(text("where", where))
    for column in found.columns:
        if column not in columns:
            raise ExpressionError(str(UnknownNameError.among("metadata column", column, columns)))
    return found


def text(name: str, value: Literal) -> str:
    """A setting that is a text.

    Args:
        name: The setting, for messages.
        value: Its value.

    Returns:
        The text.

    Raises:
        ExpressionError: It is none, or empty.
    """
    if not isinstance(value, str) or not value:
        raise ExpressionError(f"{name} is {value!r}, but must be a text in quotes")
    return value


def number(name: str, value: Literal) -> float | None:
    """A setting that is a number, or is not given.

    Args:
        name: The setting, for messages.
        value: Its value.

    Returns:
        The number, or None.

    Raises:
        ExpressionError: It is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ExpressionError(f"{name} is {value!r}, but must be a number")
    return float(value)


def whole(name: str, value: Literal) -> int:
    """A setting that is a whole number of at least 1.

    Args:
        name: The setting, for messages.
        value: Its value.

    Returns:
        The number.

    Raises:
        ExpressionError: It is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ExpressionError(f"{name} is {value!r}, but must be a whole number of at least 1")
    return value


def flag(name: str, value: Literal) -> bool:
    """A setting that is true or false.

    Args:
        name: The setting, for messages.
        value: Its value.

    Returns:
        Which of them.

    Raises:
        ExpressionError: It is something else.
    """
    if not isinstance(value, bool):
        raise ExpressionError(f"{name} is {value!r}, but must be true or false")
    return value
