"""Conditions written as text: the grammar that `retrievekit.where` shows, by recursive descent.

Each method of the parser is one rule. What cannot be read is pointed at, with what to write
instead where that can be guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from retrievekit.errors import ExpressionError
from retrievekit.literals import NAME, NUMBER, STRING, Reader, Token, quoted
from retrievekit.where.conditions import (
    And,
    Comparison,
    Condition,
    Contains,
    Membership,
    Not,
    NullTest,
    Or,
)
from retrievekit.where.evaluate import OPERATORS
from retrievekit.where.values import KEYWORDS, Literal

_SIGNS = {"=": "=="} | {operator: operator for operator in OPERATORS}


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


def _word(token: Token) -> str:
    """The keyword, in small letters; empty for anything else."""
    low = token.text.lower()
    return low if token.kind == "name" and low in KEYWORDS else ""


class _Parser(Reader):
    pattern = re.compile(
        rf"""
          (?P<blank>\s+)
        | (?P<name>{NAME})
        | (?P<day>[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}})
        | (?P<number>{NUMBER})
        | (?P<string>{STRING})
        | (?P<quoted>`(?:[^`\\\n]|\\.)+`)
        | (?P<sign>==|!=|<=|>=|[=<>(),\[\]])
        """,
        re.VERBOSE,
    )
    instead: ClassVar = {
        "&": "write 'and'",
        "|": "write 'or'",
        "!": "write 'not' or '!='",
        "~": "write 'not'",
    }

    def _tokens(self) -> Iterator[Token]:
        for token in super()._tokens():
            if token.kind == "day":
                raise self.fault(token, f'a date stands in quotes: "{token.text}"')
            yield token

    def takes(self, word: str) -> bool:
        """Whether the keyword or sign comes next; then it is taken."""
        found = word in (_word(self.now), self.now.text if self.now.kind == "sign" else "")
        if found:
            self.take()
        return found

    def whole(self) -> Condition:
        found = self.either()
        if self.now.kind != "end":
            chained = self.now.kind == "sign" and self.now.text in _SIGNS
            hint = "; comparisons do not chain: write x >= 1 and x <= 2" if chained else ""
            raise self.unexpected(self.now, "'and', 'or' or the end", hint)
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
            self.deeper(token, "conditions")
            found: Condition = Not(self.negated())
        elif self.takes("("):
            self.deeper(token, "conditions")
            found = self.either()
            if not self.takes(")"):
                raise self.unexpected(self.now, "'and', 'or' or ')'")
        else:
            return self.test()
        self.depth -= 1
        return found

    def test(self) -> Condition:
        column = self.column()
        token = self.take()
        word = _word(token)
        if token.kind == "sign" and token.text in _SIGNS:
            return Comparison(column, _SIGNS[token.text], self.literal())
        if word == "is":
            negated = self.takes("not")
            if not self.takes("null"):
                raise self.unexpected(self.now, "'null'" if negated else "'null' or 'not null'")
            return NullTest(column, negated)
        if word == "contains":
            return Contains(column, self.literal())
        if word == "in":
            return Membership(column, self.listed())
        if word == "not":
            if not self.takes("in"):
                hint = "; for other tests write not before the column"
                raise self.unexpected(self.now, "'in'", hint)
            return Membership(column, self.listed(), negated=True)
        hint = {
            "between": f"; write {column} >= ... and {column} <= ...",
            "like": f"; write {column} contains ...",
        }.get(token.text.lower(), "")
        if token.kind == "end" or word in ("and", "or") or token.text == ")":
            hint = f"; for a boolean column write {column} == true"
        wanted = f"a comparison, 'in', 'is' or 'contains' after the column {column}"
        raise self.unexpected(token, wanted, hint)

    def column(self) -> str:
        token = self.take()
        if token.kind == "quoted":
            return self.string(token)
        if token.kind == "name" and not _word(token):
            return token.text
        hint = ""
        if token.kind == "name":
            hint = f"; a column of that name stands in backticks: `{token.text}`"
        elif token.kind in ("string", "number"):
            hint = "; the column comes first: year >= 2020"
        raise self.unexpected(token, "the name of a column", hint)

    def listed(self) -> tuple[Literal, ...]:
        opening = self.take()
        if opening.kind != "sign" or opening.text not in "([":
            raise self.unexpected(opening, "'(' and a list of values", '; write ("en", "de")')
        closing = ")" if opening.text == "(" else "]"
        values: list[Literal] = []
        while not self.takes(closing):
            values.append(self.literal())
            if self.takes(closing):
                break
            if not self.takes(","):
                raise self.unexpected(self.now, f"',' or {closing!r} in the list")
        return tuple(values)

    def literal(self) -> Literal:
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "string":
            return self.string(token)
        word = _word(token)
        if word in ("true", "false"):
            return word == "true"
        hint = ""
        if word == "null" or token.text in ("None", "none"):
            hint = "; write is null or is not null"
        elif token.kind == "name":
            hint = f"; put it in quotes: {quoted(token.text)}"
        elif token.text in ("(", "["):
            hint = "; lists stand after in"
        raise self.unexpected(token, "a number, a string, true or false", hint)
