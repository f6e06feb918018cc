"""Expressions as values: the grammar that `retrievekit.config` shows, read and printed.

A text becomes frozen `Call` and `Pipe` values that print back as text; nothing is ever run as
code. Each method of the parser is one rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from retrievekit.errors import ExpressionError
from retrievekit.literals import NAME, NUMBER, STRING, Reader, quoted

Literal = None | bool | int | float | str | tuple["Literal", ...]
"""A plain value in an expression; lists are tuples, so that they stay frozen."""


@dataclass(frozen=True)
class Call:
    """A name with its arguments; a name alone has none.

    Args:
        name: The name.
        args: Positional arguments: pipelines and literals.
        keywords: Keyword arguments in their order.
        at: Where the name stands in the text it was parsed from, from 0; outside equality.
    """

    name: str
    args: tuple[Argument, ...] = ()
    keywords: tuple[tuple[str, Literal], ...] = ()
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        """The text that parses to this value."""
        inside = [written(value) for value in self.args]
        inside += [f"{name}={written(value)}" for name, value in self.keywords]
        return f"{self.name}({', '.join(inside)})" if inside else self.name


@dataclass(frozen=True)
class Pipe:
    """Calls one after another.

    Args:
        steps: At least two calls.
    """

    steps: tuple[Call, ...]

    def __str__(self) -> str:
        """The text that parses to this value."""
        return " >> ".join(str(step) for step in self.steps)

    @property
    def at(self) -> int:
        """Where the first step stands in the text it was parsed from, from 0."""
        return self.steps[0].at


Expression = Call | Pipe
Argument = Call | Pipe | Literal

_WORDS: dict[str, Literal] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
}


def written(value: Argument) -> str:
    """A literal or expression as the text that parses to it.

    Args:
        value: The value.

    Returns:
        Its text.

    Raises:
        ExpressionError: The value is no literal of the grammar.
    """
    if isinstance(value, (Call, Pipe)):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf")):
        return repr(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(written(item) for item in value) + "]"
    raise ExpressionError(f"{value!r} ({type(value).__name__}) cannot be written in an expression")


def parse(text: str) -> Expression:
    """Read an expression.

    Args:
        text: The expression.

    Returns:
        A `Call` or a `Pipe`; ``parse(str(e)) == e``.

    Raises:
        ExpressionError: The text does not follow the grammar; the message points at the place.

    >>> print(parse("rrf( bm25,minilm , k=60 )>>top( 100 )"))
    rrf(bm25, minilm, k=60) >> top(100)
    """
    if not text.strip():
        raise ExpressionError(
            'an empty expression; write one such as "bm25" or "rrf(bm25, minilm)"'
        )
    return _Parser(text).whole()


class _Parser(Reader):
    pattern = re.compile(
        rf"""
          (?P<blank>\s+)
        | (?P<name>{NAME})
        | (?P<number>{NUMBER})
        | (?P<string>{STRING})
        | (?P<sign>>>|[(),=\[\]])
        """,
        re.VERBOSE,
    )
    instead: ClassVar = dict.fromkeys("|>+", "pipelines are joined by '>>'")

    def sees(self, sign: str, ahead: int = 0) -> bool:
        token = self.tokens[min(self.place + ahead, len(self.tokens) - 1)]
        return token.kind == "sign" and token.text == sign

    def expect(self, sign: str, inside: str) -> None:
        if not self.sees(sign):
            raise self.unexpected(self.now, f"{sign!r} {inside}")
        self.take()

    def opening(self) -> None:
        """Take a bracket."""
        self.deeper(self.now, "brackets")
        self.take()

    def whole(self) -> Expression:
        found = self.pipeline()
        if self.now.kind != "end":
            raise self.unexpected(self.now, "'>>' or the end")
        return found

    def pipeline(self) -> Expression:
        steps: list[Call] = []
        while True:
            step = self.step()
            steps += step.steps if isinstance(step, Pipe) else [step]
            if not self.sees(">>"):
                return steps[0] if len(steps) == 1 else Pipe(tuple(steps))
            self.take()

    def step(self) -> Expression:
        if self.sees("("):
            self.opening()
            inner = self.pipeline()
            self.expect(")", "after the pipeline in brackets")
            self.depth -= 1
            return inner
        token = self.now
        if token.kind != "name":
            raise self.unexpected(token, "a name such as bm25")
        if token.text in _WORDS:
            raise self.fault(token, f"{token.text} is a value, but a stage is needed here")
        self.take()
        if not self.sees("("):
            return Call(token.text, at=token.at)
        self.opening()
        args: list[Argument] = []
        keywords: dict[str, Literal] = {}
        while not self.sees(")"):
            self.argument(args, keywords)
            if not self.sees(")"):
                self.expect(",", f"or ')' in the brackets of {token.text}")
        self.take()
        self.depth -= 1
        return Call(token.text, tuple(args), tuple(keywords.items()), token.at)

    def argument(self, args: list[Argument], keywords: dict[str, Literal]) -> None:
        token = self.now
        if token.kind == "name" and self.sees("=", ahead=1):
            if not token.text.isidentifier():
                raise self.fault(token, f"{token.text!r} cannot be the name of a setting")
            if token.text in keywords:
                raise self.fault(token, f"{token.text} is given twice")
            self.take()
            self.take()
            keywords[token.text] = self.literal(f"the value of {token.text}")
            return
        if keywords:
            last = list(keywords)[-1]
            problem = f"after {last}=... only settings of the form name=value may follow"
            raise self.fault(token, problem)
        if self.sees("(") or (token.kind == "name" and token.text not in _WORDS):
            args.append(self.pipeline())
        else:
            args.append(self.literal("a stage or a value"))

    def literal(self, wanted: str) -> Literal:
        if self.sees("["):
            self.opening()
            items: list[Literal] = []
            while not self.sees("]"):
                items.append(self.literal("a value"))
                if not self.sees("]"):
                    self.expect(",", "or ']' in the list")
            self.take()
            self.depth -= 1
            return tuple(items)
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "string":
            return self.string(token)
        if token.kind == "name" and token.text in _WORDS:
            return _WORDS[token.text]
        hint = f"; put it in quotes: {token.text!r}" if token.kind == "name" else ""
        raise self.unexpected(token, wanted, hint)
