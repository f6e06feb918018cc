"""Conditions on metadata: which documents a search may return.

::

    condition := both ("or" both)*
    both      := negated ("and" negated)*
    negated   := "not" negated | "(" condition ")" | test
    test      := COLUMN ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") literal
               | COLUMN ["not"] "in" "(" [literal ("," literal)* [","]] ")"
               | COLUMN "contains" literal
               | COLUMN "is" ["not"] "null"
    literal   := NUMBER | STRING | "true" | "false"
    COLUMN    := letter or "_", then letters, digits, "_"; "-" and "." between those;
                 or any name in `backticks`

Example: ``year >= 2020 and lang in ("en", "de")``. In Python the same is
``(field("year") >= 2020) & field("lang").isin(["en", "de"])``. Both give frozen values that print
back as text; nothing is ever run as code.

What the tests mean:

- **Numbers** compare by value, whole with fractional ones, exactly (also beyond 2^53 and outside
  the range of the column's type). NaN equals nothing and is not null.
- **Strings** compare by code point; ``contains`` finds a substring, or an element of a list column.
- **Dates and times** are written as strings, ``"2020-01-31"`` or ``"2020-01-31T10:00:00+01:00"``.
  A day compared with a timestamp is its midnight. In a column with a time zone, a time without one
  is UTC.
- **Nulls** satisfy no test but ``is null``; so neither ``year == 2020`` nor ``year != 2020`` holds
  for a document without a year, nor ``year not in (2020)``. There are two truth values: ``not`` is
  plain negation, and ``not year == 2020`` does hold for that document.
- **Types** that do not fit are an error, never an empty answer: a column of strings is not compared
  with a number, nor one of booleans with 1.
"""

from __future__ import annotations

from retrievekit.literals import DEEPEST, LONGEST_NUMBER
from retrievekit.where.building import Field, field
from retrievekit.where.conditions import (
    And,
    Comparison,
    Condition,
    Contains,
    Leaf,
    Membership,
    Not,
    NullTest,
    Or,
)
from retrievekit.where.grammar import condition_of, parse
from retrievekit.where.values import KEYWORDS, Literal

__all__ = [
    "DEEPEST",
    "KEYWORDS",
    "LONGEST_NUMBER",
    "And",
    "Comparison",
    "Condition",
    "Contains",
    "Field",
    "Leaf",
    "Literal",
    "Membership",
    "Not",
    "NullTest",
    "Or",
    "condition_of",
    "field",
    "parse",
]
