"""What the small grammars share: pointing at a place, and reading quoted strings.

Pipelines (`retrievekit.config`) and metadata conditions (`retrievekit.where`) are texts that people
type; both point at what they cannot read, and both write strings alike.
"""

from __future__ import annotations

import re

from retrievekit.errors import ExpressionError

ESCAPES = {"\\": "\\", "'": "'", '"': '"', "`": "`", "n": "\n", "t": "\t", "r": "\r"}
"""What a letter behind a backslash stands for, besides ``\\x``, ``\\u`` and ``\\U`` with digits."""


def located(text: str, at: int, problem: str) -> ExpressionError:
    """The error that points at a place of a text.

    Args:
        text: The text.
        at: The place, from 0; may be one behind the end.
        problem: What is wrong there, and what to do.

    Returns:
        The error, to be raised by the caller.
    """
    return ExpressionError(f"{problem}\n{pointed(text, at)}")


def pointed(text: str, at: int, width: int = 76) -> str:
    """The line of a text around one place, and a caret under that place.

    Args:
        text: The text.
        at: The place, from 0; may be one behind the end.
        width: Characters of the line to show.

    Returns:
        Two lines, the first naming the column (from 1) when the text was cut.
    """
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    line = "".join(c if c.isprintable() else " " for c in text[start : end if end >= 0 else None])
    column = at - start
    left = max(0, column - width // 2) if len(line) > width else 0
    shown = line[left : left + width]
    front = "…" if left else ""
    back = "…" if left + width < len(line) else ""
    return f"  {front}{shown}{back}\n  {' ' * (column - left + len(front))}^ column {column + 1}"


def unescaped(text: str, at: int, quoted: str) -> str:
    """The string that a quoted part of a text stands for.

    Args:
        text: The whole text.
        at: Where the quoted part begins in it, from 0.
        quoted: The part, quotes included, with no backslash before its last quote.

    Returns:
        The string.

    Raises:
        ExpressionError: An escape is unknown, or a character is no Unicode; points at it.
    """
    inner, out, place = quoted[1:-1], [], 0
    while place < len(inner):
        if inner[place] != "\\":
            if "\ud800" <= inner[place] <= "\udfff":
                raise located(text, at + 1 + place, "a lone surrogate; it is no Unicode")
            out.append(inner[place])
            place += 1
            continue
        letter = inner[place + 1]
        digits = {"x": 2, "u": 4, "U": 8}.get(letter, 0)
        code = inner[place + 2 : place + 2 + digits]
        if letter in ESCAPES:
            out.append(ESCAPES[letter])
        elif digits and re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", code) and _scalar(code):
            out.append(chr(int(code, 16)))
        else:
            raise located(
                text,
                at + 1 + place,
                f"unknown escape \\{letter} in a string; write \\\\ for a backslash",
            )
        place += 2 + digits
    return "".join(out)


def _scalar(code: str) -> bool:
    """Whether hexadecimal digits name a Unicode scalar value (no surrogate)."""
    value = int(code, 16)
    return value < 0xD800 or 0xDFFF < value <= 0x10FFFF
