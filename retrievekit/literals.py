"""What the small grammars share: names, numbers and strings, and pointing at a place.

Pipelines (`retrievekit.config`) and metadata conditions (`retrievekit.where`) are texts that people
type. Both are cut into tokens by one pattern and parsed by recursive descent over them (`Reader`),
both point at what they cannot read, and both write strings alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from retrievekit.errors import ExpressionError

DEEPEST = 50
"""Brackets within brackets that a parser follows."""

LONGEST_NUMBER = 400
"""Characters of a number."""

NAME = r"[^\W\d]\w*(?:[-.]+\w+)*"
"""Pattern of a name: letter or "_", then letters, digits, "_"; "-" and "." between those."""

NUMBER = r"-?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?"
"""Pattern of a number."""

STRING = r""" "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' """
"""Pattern of a string in its quotes, verbose."""

ESCAPES = {"\\": "\\", "'": "'", '"': '"', "`": "`", "n": "\n", "t": "\t", "r": "\r"}
"""What a letter behind a backslash stands for, besides ``\\x``, ``\\u`` and ``\\U`` with digits."""

_LETTERS = {meant: letter for letter, meant in ESCAPES.items()}


@dataclass(frozen=True)
class Token:
    """A piece of a text.

    Args:
        kind: The group of the grammar's pattern; ``"end"`` behind the last piece.
        text: The piece as it stands there.
        at: Where it begins, from 0.
    """

    kind: str
    text: str
    at: int

    @property
    def shown(self) -> str:
        """How messages call it."""
        return "the end" if self.kind == "end" else repr(self.text)


class Reader:
    """The tokens of one text, taken one by one by the parser that derives from this.

    Args:
        text: The text.

    Raises:
        ExpressionError: A character begins no token; points at it.
    """

    pattern: ClassVar[re.Pattern[str]]
    """A named group for each kind of token; "blank" is left out."""

    instead: ClassVar[Mapping[str, str]] = {}
    """What to do about a character that begins no token."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.place = 0
        self.depth = 0

    def _tokens(self) -> Iterator[Token]:
        at = 0
        while at < len(self.text):
            match = self.pattern.match(self.text, at)
            if match is None:
                found = self.text[at]
                what = "a string without its end" if found in "'\"`" else f"{found!r} here"
                hint = f"; {self.instead[found]}" if found in self.instead else ""
                raise located(self.text, at, f"cannot read {what}{hint}")
            kind = str(match.lastgroup)
            if kind != "blank":
                yield Token(kind, match[0], at)
            at = match.end()
        yield Token("end", "", len(self.text))

    @property
    def now(self) -> Token:
        """The token that comes next."""
        return self.tokens[self.place]

    def take(self) -> Token:
        """The token that comes next, which is then behind; the end stays."""
        token = self.now
        self.place += token.kind != "end"
        return token

    def deeper(self, token: Token, what: str) -> None:
        """Count a bracket that opens; whoever closes it takes one from `depth`.

        Args:
            token: The bracket.
            what: What is nested, for the message.

        Raises:
            ExpressionError: They are nested more than `DEEPEST` deep.
        """
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fault(token, f"{what} are nested more than {DEEPEST} deep")

    def fault(self, token: Token, problem: str) -> ExpressionError:
        """The error that points at a token, to be raised by the caller."""
        return located(self.text, token.at, problem)

    def unexpected(self, token: Token, wanted: str, hint: str = "") -> ExpressionError:
        """The error that points at a token which may not stand there.

        Args:
            token: The token.
            wanted: What may.
            hint: What to do, beginning with a semicolon.

        Returns:
            The error, to be raised by the caller.
        """
        return self.fault(token, f"expected {wanted}, but found {token.shown}{hint}")

    def number(self, token: Token) -> int | float:
        """The finite number of a token; whole unless it is written with a point or an exponent.

        Raises:
            ExpressionError: It is too long, or too large for a double.
        """
        if len(token.text) > LONGEST_NUMBER:
            raise self.fault(token, f"a number of more than {LONGEST_NUMBER} characters")
        if re.fullmatch(r"-?[0-9]+", token.text):
            return int(token.text)
        value = float(token.text)
        if math.isinf(value):
            raise self.fault(token, f"{token.text} is too large for a number")
        return value

    def string(self, token: Token) -> str:
        """The string of a quoted token.

        Raises:
            ExpressionError: An escape is unknown, or a character is no Unicode; points at it.
        """
        return unescaped(self.text, token.at, token.text)


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


def quoted(text: str, quote: str = '"') -> str:
    """A string as the quoted text that stands for it, on one line.

    Args:
        text: The string.
        quote: The quotation mark.

    Returns:
        The text, quotes included.
    """
    return quote + "".join(_escaped(character, quote) for character in text) + quote


def _escaped(character: str, quote: str) -> str:
    if character in _LETTERS and (character not in "'\"`" or character == quote):
        return "\\" + _LETTERS[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"
