"""Pipelines as text: one small grammar for the command line, YAML and Python.

::

    pipeline := step (">>" step)*
    step     := NAME [ "(" [argument ("," argument)* [","]] ")" ] | "(" pipeline ")"
    argument := pipeline | literal | NAME "=" literal
    literal  := NUMBER | STRING | "true" | "false" | "null" | "[" [literal ("," literal)*] "]"
    NAME     := letter or "_", then letters, digits, "_"; "-" and "." between those

Examples: ``rrf(bm25, minilm)``, ``bm25(k1=1.2, b=0.75) >> top(100)``,
``weighted(bm25, minilm, weights=[0.3, 0.7], missing="min")``.

Retrievers are ``bm25``, ``dense("model", engine="HNSW32", efSearch=128, storage="float16")`` with a
model's folder or hub id, ``minilm`` and other encoders with a name of their own,
``sparse("model")``, ``lucene``, and ``index("folder")``, an index that exists. All but the last
index passages where they are told so, ``bm25(passages="150/75", aggregate="max")``, and bring
documents back from them; ``aggregate=null`` leaves passages. Rerankers follow a search and read the
words of its hits: ``bm25 >> icr("model folder", k=20)``. Lucene's feedback asks the index of the
hits before it: ``lucene >> lucene_rm3(fb_terms=20) >> lucene``.

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
from retrievekit.config.stages import RERANKED, Shelf, check_names, known_names, misfit, resolve
from retrievekit.literals import DEEPEST

__all__ = [
    "DEEPEST",
    "RERANKED",
    "Argument",
    "BenchConfig",
    "Call",
    "Expression",
    "Literal",
    "Pipe",
    "Shelf",
    "check_names",
    "known_names",
    "misfit",
    "parse",
    "read_config",
    "resolve",
    "written",
]
