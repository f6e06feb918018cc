"""Characters that may stand in a text: UTF-8 without NUL, and what becomes of the others.

Invalid bytes, lone surrogates and NUL are errors that name their place, or become U+FFFD.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from retrievekit.data.reading import ReadOptions
from retrievekit.errors import ParseError

_T = TypeVar("_T")


def decoded(source: Path, line: int | None, raw: bytes, options: ReadOptions) -> tuple[str, bool]:
    """The text of some bytes.

    Args:
        source: The file, for messages.
        line: The line, for messages; None where the bytes are the file.
        raw: The bytes.
        options: Whether faults are errors or are replaced.

    Returns:
        The text, and whether characters were replaced.

    Raises:
        ParseError: Bytes that are not UTF-8, or a NUL character.
    """
    try:
        text, repaired = raw.decode("utf-8"), False
    except UnicodeDecodeError as why:
        if options.errors == "strict":
            raise ParseError(
                source,
                line,
                f"byte 0x{raw[why.start]:02x} at position {why.start + 1} is not UTF-8; convert "
                'the file, or read it with errors="replace"',
            ) from why
        text, repaired = raw.decode("utf-8", "replace"), True
    if "\0" in text:
        if options.errors == "strict":
            raise ParseError(
                source,
                line,
                f'a NUL character at position {text.index(chr(0)) + 1}; errors="replace" reads on',
            )
        text, repaired = text.replace("\0", "\ufffd"), True
    return text, repaired


def is_valid(text: str) -> bool:
    """Whether a text can be written as UTF-8 and has no NUL.

    Args:
        text: The text.

    Returns:
        False for a lone surrogate or a NUL in it.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def valid_record(
    source: Path, line: int, record: dict[str, Any], options: ReadOptions
) -> tuple[dict[str, Any], bool]:
    """The record without lone surrogates and NUL.

    Args:
        source: The file, for messages.
        line: The line or row, for messages.
        record: Fields of any JSON values.
        options: Whether faults are errors or are replaced.

    Returns:
        The record, and whether characters were replaced.

    Raises:
        ParseError: A lone surrogate or a NUL, or two names that become one when mended.
    """
    if options.errors == "replace":
        try:
            return _repaired(record)
        except ValueError as why:
            raise ParseError(source, line, f"{why}; rename one") from why
    for text in _strings(record):
        if not is_valid(text):
            what = "a NUL character" if "\0" in text else "a lone surrogate"
            raise ParseError(
                source, line, f'{what} in {short(text)}; errors="replace" puts U+FFFD there'
            )
    return record, False


def short(value: object) -> str:
    """How a message shows a value of the file.

    Args:
        value: Any value.

    Returns:
        ASCII, 60 characters at most.
    """
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _repaired(value: _T) -> tuple[_T, bool]:
    """The value with U+FFFD for what is no character, and whether anything changed."""
    result: Any = value
    if isinstance(value, str):
        if is_valid(value):
            return value, False
        bad = str.maketrans({"\0": "\ufffd"})
        fixed = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
        return cast(_T, fixed.translate(bad)), True
    if isinstance(value, dict):
        pairs = [(_repaired(key), _repaired(item)) for key, item in value.items()]
        result = {key: item for (key, _), (item, _) in pairs}
        if len(result) < len(pairs):
            raise ValueError("two names become one when their characters are replaced")
        return result, any(k or i for (_, k), (_, i) in pairs)
    if isinstance(value, list):
        items = [_repaired(item) for item in value]
        result = [item for item, _ in items]
        return result, any(changed for _, changed in items)
    return value, False
