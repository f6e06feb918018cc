"""Consistency filtering: pairs are kept that a scorer agrees with.

Pairs gathered automatically, such as a comment and its function, are often wrong. CoRNStack (arXiv
2412.01007) keeps a pair where an encoder finds the document among the query's best `top` (2 there)
of all documents and gives it at least a similarity `threshold`. Any stage's run is such a scorer.

>>> from retrievekit import Qrels, Run
>>> from retrievekit.queries import Queries
>>> queries = Queries.from_texts({"q": "old cat", "r": "moon"})
>>> run = Run.from_dict({"q": {"a": 0.9, "b": 0.8, "c": 0.7}, "r": {"b": 0.4}}, queries)
>>> pairs = Qrels.from_dict({"q": {"a": 1, "c": 1}, "r": {"b": 1}})
>>> found = judge_pairs(run, pairs, top=2, threshold=0.5)
>>> [(one.query_id, one.doc_id, one.why) for one in found]
[('q', 'a', None), ('q', 'c', 'rank 3'), ('r', 'b', 'score 0.4')]
>>> kept_qrels(found).to_dict()
{'q': {'a': 1}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrievekit.data.download import replacing
from retrievekit.errors import DataError, MissingDataError, ParseError
from retrievekit.qrels import Qrels
from retrievekit.run import Run


@dataclass(frozen=True)
class JudgedPair:
    """A pair of query and document, and whether the scorer agrees with it.

    Args:
        query_id: The query's id.
        doc_id: The document's id.
        grade: The pair's grade, above 0.
        rank: The document's place in the scorer's ranking, from 1; None where it is not among them.
        score: Its score there; None likewise.
        why: Why it is to be dropped, such as ``rank 7``; None where it is kept.
    """

    query_id: str
    doc_id: str
    grade: int
    rank: int | None
    score: float | None
    why: str | None = None


def judge_pairs(
    run: Run, qrels: Qrels, *, top: int = 2, threshold: float | None = None
) -> list[JudgedPair]:
    """Say of each pair whether the scorer agrees with it.

    Args:
        run: The scorer's hits for the pairs' queries among all documents, at least `top` deep.
        qrels: The pairs; those with grade 0 or less are no pairs.
        top: Among how many best hits the document must be.
        threshold: What its score must reach.

    Returns:
        All pairs, in the judgements' order.

    Raises:
        DataError: `top` or `threshold` is out of range, or the run lacks a query.
    """
    if top < 1:
        raise DataError(f"top is at least 1; got {top}")
    if threshold is not None and not math.isfinite(threshold):
        raise DataError(f"threshold is a number; got {threshold!r}")
    found = []
    for query_id, judged in qrels.to_dict().items():
        pairs = {doc: grade for doc, grade in judged.items() if grade > 0}
        if pairs and query_id not in run.queries.ids:
            raise DataError(
                f"the scorer's run has no query {query_id!r}; without its hits none of its pairs "
                "can be judged"
            )
        hits = {hit.doc_id: hit for hit in run[query_id]} if pairs else {}
        for doc, grade in pairs.items():
            hit = hits.get(doc)
            rank, score = (None, None) if hit is None else (hit.rank, hit.score)
            why = None
            if rank is None or rank > top:
                why = "not found" if rank is None else f"rank {rank}"
            elif threshold is not None and score is not None and score < threshold:
                why = f"score {score:.4g}"
            found.append(JudgedPair(query_id, doc, grade, rank, score, why))
    return found


def kept_qrels(pairs: Iterable[JudgedPair]) -> Qrels:
    """The pairs that are kept, as judgements.

    Args:
        pairs: Judged pairs.

    Returns:
        Judgements of the queries that keep a pair.
    """
    kept: dict[str, dict[str, int]] = {}
    for pair in pairs:
        if pair.why is None:
            kept.setdefault(pair.query_id, {})[pair.doc_id] = pair.grade
    return Qrels.from_dict(kept)


def write_pairs(pairs: Iterable[JudgedPair], path: str | Path) -> None:
    """Write judged pairs as JSONL, one per line, atomically; ``why`` may be changed by hand.

    Args:
        pairs: The pairs.
        path: The file.
    """
    with replacing(Path(path)) as fresh, fresh.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(vars(pair), ensure_ascii=False, allow_nan=False) + "\n")


def read_pairs(path: str | Path) -> list[JudgedPair]:
    """Read a file that `write_pairs` wrote, perhaps changed by hand.

    Args:
        path: The file.

    Returns:
        The pairs.

    Raises:
        MissingDataError: No such file.
        ParseError: A line is no such pair; names it.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError as why:
        raise MissingDataError(f"no such file: {path}") from why
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_of_row(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as why:
            raise ParseError(path, number, f"no judged pair: {why}") from why
    return found


def _of_row(row: Any) -> JudgedPair:
    if not isinstance(row, dict):
        raise ValueError("not an object")
    pair = JudgedPair(**row)
    for name, kinds in (
        ("query_id", (str,)),
        ("doc_id", (str,)),
        ("grade", (int,)),
        ("rank", (int, type(None))),
        ("score", (int, float, type(None))),
        ("why", (str, type(None))),
    ):
        if not isinstance(getattr(pair, name), kinds) or isinstance(getattr(pair, name), bool):
            raise ValueError(f"{name} is {getattr(pair, name)!r}")
    return pair
