"""Columns against literals: which rows of an Arrow column pass a test, exactly.

Arrow compares a column with a value of the column's own type. So a literal is first turned into
one that says the same there: ``year > 2020.5`` of whole numbers is ``year >= 2021``, a date is a
count of days, and what no value of the type can equal or exceed is the same for every row.

Scalars and arrays are made from buffers, and results are read from theirs: `pa.scalar`, `pa.array`
and `to_numpy` import pandas where that is installed.
"""

from __future__ import annotations

import datetime
import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.arrow import string_array
from retrievekit.errors import ExpressionError
from retrievekit.where.values import Literal, written

OPERATORS = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
"""Comparisons, and what Arrow calls them."""

_FITTING = {
    "boolean": "a boolean",
    "integer": "a number",
    "float": "a number",
    "string": "a string",
    "date": "a string",
    "timestamp": "a string",
}
_HINTS = {
    "date": '; write a day as "2020-01-31"',
    "timestamp": '; write a time as "2020-01-31T10:00:00"',
    "list": "; use contains",
    "": "; only is null and is not null work with this type",
}
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    rf"({_DAY.pattern}[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?)(?:\.([0-9]{{1,9}}))?"
    r"(Z|[+-][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?"
)
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column itself, or the plain values of one in a packed form."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column


def compared(column: pa.ChunkedArray, operator: str, value: Literal) -> NDArray[np.bool_]:
    """Rows whose value compares with a literal.

    Args:
        column: The column, decoded, n rows.
        operator: One of `OPERATORS`.
        value: The literal.

    Returns:
        bool ``(n,)``; false for nulls.

    Raises:
        ExpressionError: The column's type does not fit.
    """
    if _kind(column.type) == "boolean" and operator not in ("==", "!="):
        raise _misfit(column.type, value, "; use == or !=")
    column, kind, (plain,) = _plain(column, (value,))
    if kind == "null":
        return _same(column, False)
    if kind == "integer":
        return _integers_compared(column, operator, plain)
    if kind == "float":
        return _floats_compared(column, operator, plain)
    return _arrow_compared(column, operator, plain)


def among(column: pa.ChunkedArray, values: tuple[Literal, ...]) -> NDArray[np.bool_]:
    """Rows whose value is one of some literals.

    Args:
        column: The column, decoded, n rows.
        values: The literals.

    Returns:
        bool ``(n,)``; false for nulls.

    Raises:
        ExpressionError: The column's type does not fit.
    """
    column, kind, plain = _plain(column, values)
    if kind == "null" or not values:
        return _same(column, False)
    if kind == "integer":
        limits = np.iinfo(str(column.type))
        plain = [int(v) for v in plain if v == math.floor(v) and limits.min <= v <= limits.max]
    elif kind == "float":
        plain = [near for value in plain if (near := _double(value)) == value]
        if 0.0 in plain:  # Arrow's hash tells the two zeros apart
            plain += [0.0, -0.0]
    return booleans(pc.is_in(column, value_set=_array(plain, column.type)))


def containing(column: pa.ChunkedArray, value: Literal) -> NDArray[np.bool_]:
    """Rows whose list has an element, or whose string has a substring.

    Args:
        column: The column, decoded, n rows.
        value: The element or substring.

    Returns:
        bool ``(n,)``; false for nulls.

    Raises:
        ExpressionError: The column's type does not fit.
    """
    kind = _kind(column.type)
    if kind == "null":
        return _same(column, False)
    if kind == "string" and isinstance(value, str):
        return booleans(pc.match_substring(column, value))
    if kind != "list":
        hint = "" if kind == "string" else "; contains is for columns of strings or lists"
        raise _misfit(column.type, value, hint)
    lists = column.drop_null()  # behind a null, values may lie that are not its
    # One element type for all chunks, also where there is no chunk.
    elements = decoded(
        pa.chunked_array([pc.list_flatten(c) for c in lists.chunks], column.type.value_type)
    )
    if _kind(elements.type) == "list":
        raise _misfit(column.type, value, "; lists of lists cannot be searched")
    lengths = _integers(pc.list_value_length(lists).cast(pa.int64()))
    owners = np.repeat(np.flatnonzero(present(column)), lengths)
    found = _same(column, False)
    found[owners[compared(elements, "==", value)]] = True
    return found


def present(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Rows that are not null, bool ``(n,)``."""
    return booleans(pc.is_valid(column))


# Literals as values of a column -------------------------------------------------------------------


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


def _sort(value: Literal) -> str:
    return {bool: "a boolean", str: "a string"}.get(type(value), "a number")


def _misfit(type_: pa.DataType, value: Literal, hint: str = "") -> ExpressionError:
    said = f"{written(value)}, {_sort(value)}"
    return ExpressionError(f"is of type {type_} and cannot be compared with {said}{hint}")


def _plain(
    column: pa.ChunkedArray, values: tuple[Literal, ...]
) -> tuple[pa.ChunkedArray, str, list[Any]]:
    """Column and literals in a form that can be compared, and what it is compared as.

    Dates and times become counts since 1970: integers in the column's unit, fractions as literals.
    """
    type_ = column.type
    kind = _kind(type_)
    for value in values:
        if kind != "null" and _FITTING.get(kind) != _sort(value):
            raise _misfit(type_, value, _HINTS.get(kind, ""))
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
        raise _misfit(type_, text, _HINTS["date"]) from None


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
        raise _misfit(type_, text, _HINTS["timestamp"]) from None
    if offset and type_.tz is None:
        raise _misfit(type_, text, "; the column has no time zone, so leave out the offset")
    return (since.days * 86_400 + since.seconds) * 10**9 + int(fraction.ljust(9, "0"))


def _integers_compared(
    column: pa.ChunkedArray, operator: str, value: int | float | Fraction
) -> NDArray[np.bool_]:
    """Against any finite number: first as the whole bound that says the same."""
    bound = math.floor(value)
    if bound != value:
        if operator in ("==", "!="):
            return _same(column, operator == "!=")
        if operator in ("<", "<="):
            operator = "<="
        else:
            operator, bound = ">=", bound + 1
    limits = np.iinfo(str(column.type))
    if bound > limits.max:
        return _same(column, operator in ("<", "<=", "!="))
    if bound < limits.min:
        return _same(column, operator in (">", ">=", "!="))
    return _arrow_compared(column, operator, bound)


def _floats_compared(
    column: pa.ChunkedArray, operator: str, value: int | float
) -> NDArray[np.bool_]:
    """Against any number: a whole one between two doubles compares as the nearer of them does."""
    near = _double(value)
    if near != value:
        if operator in ("==", "!="):
            return _same(column, operator == "!=")
        if near > value:
            operator = "<" if operator in ("<", "<=") else ">="
        else:
            operator = "<=" if operator in ("<", "<=") else ">"
    return _arrow_compared(column, operator, near)


def _double(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# Arrow's buffers ----------------------------------------------------------------------------------


def _arrow_compared(column: pa.ChunkedArray, operator: str, value: Any) -> NDArray[np.bool_]:
    scalar = _array([value], column.type)[0]
    return booleans(getattr(pc, OPERATORS[operator])(column, scalar))


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    """An Arrow array without nulls: strings, booleans, or numbers that fit the type."""
    kind = _kind(type_)
    if kind == "string":
        return string_array(values).cast(type_)
    if kind == "boolean":
        raw = np.packbits(np.array(values, bool), bitorder="little")
    else:
        raw = np.array(values, str(type_))
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(raw)])


def _same(column: pa.ChunkedArray, value: bool) -> NDArray[np.bool_]:
    """The same for every row but the nulls, which pass no test."""
    return present(column) if value else np.zeros(len(column), np.bool_)


def booleans(truth: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Arrow booleans as an array of bytes, bool ``(n,)``; null is false."""
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


def _integers(numbers: pa.ChunkedArray) -> NDArray[np.int64]:
    """Arrow integers without nulls as an array, int64 ``(n,)``."""
    parts = [np.empty(0, np.int64)]
    for chunk in numbers.chunks:
        if len(chunk):
            whole = np.frombuffer(chunk.buffers()[1], np.int64)
            parts.append(whole[chunk.offset : chunk.offset + len(chunk)])
    return np.concatenate(parts)
