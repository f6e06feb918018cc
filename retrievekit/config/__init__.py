"""Pipelines as text: one small grammar for the command line, YAML and Python.

::

    pipeline := step (">>" step)*
    step     := NAME [ "(" [argument ("," argument)* [","]] ")" ] | "(" pipeline ")"
    argument := pipeline | literal | NAME "=" literal
    literal  := NUMBER | STRING | "true" | "false" | "null" | "[" [literal ("," literal)*] "]"
    NAME     := letter or "_", then letters, digits, "_"; "-" and "." between those

Examples: ``rrf(bm25, minilm)``, ``bm25(k1=1.2, b=0.75) >> top(100)``,
``weighted(bm25, minilm, weights=[0.3, 0.7], missing="min")``.

Conditions on metadata (`retrievekit.where`) are strings, as in Python. One comes before a search in
``bm25(where="year >= 2020")``; hits are dropped afterwards, by the metadata of bm25's index, in
``rrf(bm25, minilm) >> where("year >= 2020", bm25)``.

A text is parsed into frozen `Call` and `Pipe` values that print back as text; nothing is ever run
as code. `resolve` turns them into stages, and a benchmark's YAML file names systems by such texts.
"""

from __future__ import annotations

from retrievekit.config.benchmarks import BenchConfig, read_config
from retrievekit.config.expressions import (
    Argument,
    Call,
    Expression,
    Literal,
    Pipe,
    parse,
    written,
)
from retrievekit.config.stages import Shelf, check_names, known_names, resolve
from retrievekit.literals import DEEPEST

__all__ = [
    "DEEPEST",
    "Argument",
    "BenchConfig",
    "Call",
    "Expression",
    "Literal",
    "Pipe",
    "Shelf",
    "check_names",
    "known_names",
    "parse",
    "read_config",
    "resolve",
    "written",
]
