"""Hard negatives: unjudged hits of the first stage that will feed the reranker.

A reranker only ever sees what its first stage brings, so that is what it should learn to tell from
the relevant. Hits that are probably relevant, only not judged so, can be left out by their scores:
NV-Retriever (arXiv 2407.15831) keeps what scores below the relevant one's score less a margin, or
below a part of it; CoRNStack (arXiv 2412.01007) leaves out what scores at or above a threshold, and
draws the others with chances in proportion to ``exp(score / temperature)``.

>>> from retrievekit import Qrels, Run
>>> from retrievekit.queries import Queries
>>> queries = Queries.from_texts({"q": "old cat"})
>>> run = Run.from_dict({"q": {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}}, queries)
>>> (mined,) = mine_negatives(run, Qrels.from_dict({"q": {"b": 1}}), bands=[Band(1, 3)])
>>> [(n.doc_id, n.rank) for n in mined.negatives]
[('a', 1), ('c', 3)]
>>> (mined,) = mine_negatives(run, Qrels.from_dict({"q": {"b": 1}}), margin=0.5)
>>> [n.doc_id for n in mined.negatives]
['c', 'd']
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.data.download import replacing
from retrievekit.errors import DataError, MissingDataError, ParseError
from retrievekit.qrels import Qrels
from retrievekit.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Band:
    """A range of ranks that negatives are taken from.

    Args:
        first: Its first rank, from 1.
        last: Its last rank.
        n: How many are drawn from it at most; None takes all.

    Raises:
        DataError: They are no such ranks.
    """

    first: int = 1
    last: int = 100
    n: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.first <= self.last:
            raise DataError(f"ranks run from 1 up; got {self.first} to {self.last}")
        if self.n is not None and self.n < 1:
            raise DataError(f"at least one negative is drawn from a band; got {self.n}")


@dataclass(frozen=True)
class Positive:
    """A document that is judged relevant.

    Args:
        doc_id: Its id.
        grade: Its grade, above 0.
        rank: Its place in the first stage's ranking, from 1; None where it is not among the hits.
    """

    doc_id: str
    grade: int
    rank: int | None = None


@dataclass(frozen=True)
class Negative:
    """A hit that is not judged relevant.

    Args:
        doc_id: Its id.
        rank: Its place in the first stage's ranking, from 1.
        score: Its score there.
    """

    doc_id: str
    rank: int
    score: float


@dataclass(frozen=True)
class Mined:
    """A query with its relevant documents and its hard negatives.

    Args:
        query_id: The query's id.
        query: Its words.
        positives: Documents judged relevant, in the judgements' order.
        negatives: Hits that are not, in rank order.
    """

    query_id: str
    query: str
    positives: tuple[Positive, ...]
    negatives: tuple[Negative, ...]


def mine_negatives(
    run: Run,
    qrels: Qrels,
    *,
    bands: Sequence[Band] = (Band(),),
    seed: int = 0,
    margin: float | None = None,
    percent: float | None = None,
    ceiling: float | None = None,
    temperature: float | None = None,
) -> list[Mined]:
    """Hard negatives of each query that has both a relevant document and a negative.

    What is drawn for a query depends on the seed, its id and its own hits alone, never on the
    queries beside it. A hit judged with grade 0 or less is a negative as well.

    Args:
        run: The first stage's hits, its queries with words.
        qrels: Judgements; grades above 0 are relevant.
        bands: Ranks that negatives come from; they must not overlap.
        seed: Of the drawing.
        margin: Keep hits whose score is below that of the query's best relevant hit by more than
            this; a query without a relevant hit is left out.
        percent: Keep hits that score less than this part of the best relevant hit's score, such as
            0.95; scores must be positive.
        ceiling: Keep hits that score less than this.
        temperature: Draw with chances in proportion to ``exp(score / temperature)`` instead of
            equal ones.

    Returns:
        The queries in the run's order.

    Raises:
        DataError: A setting is out of range, bands overlap, or a score is not positive where
            `percent` needs it.
    """
    _check(bands, margin, percent, ceiling, temperature)
    grades = qrels.to_dict()
    texts = run.queries.texts if len(run) else []
    mined, without_relevant, without_negative = [], 0, 0
    for row, hits in enumerate(run):
        judged = grades.get(hits.query_id, {})
        relevant = {doc: grade for doc, grade in judged.items() if grade > 0}
        ranks = {hit.doc_id: hit.rank for hit in hits}
        best = max((hit.score for hit in hits if hit.doc_id in relevant), default=None)
        if not relevant or (best is None and not (margin is None and percent is None)):
            without_relevant += 1
            continue
        limit = _limit(best, margin, percent, ceiling, hits.query_id)
        generator = generator_of(seed, hits.query_id)
        negatives: list[Negative] = []
        for band in sorted(bands, key=lambda band: band.first):
            pool = [
                Negative(hit.doc_id, hit.rank, hit.score)
                for hit in hits[band.first - 1 : band.last]
                if hit.doc_id not in relevant and hit.score < limit
            ]
            scores = np.array([negative.score for negative in pool])
            negatives += [pool[i] for i in drawn(scores, band.n, generator, temperature)]
        if not negatives:
            without_negative += 1
            continue
        positives = tuple(Positive(doc, grade, ranks.get(doc)) for doc, grade in relevant.items())
        mined.append(Mined(hits.query_id, texts[row], positives, tuple(negatives)))
    if without_relevant or without_negative:
        log.info(
            "of %d queries %d were left out for want of a relevant document, %d of a negative",
            len(run), without_relevant, without_negative,
        )  # fmt: skip
    return mined


def generator_of(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend on a seed and names alone.

    Args:
        seed: The seed, at least 0.
        names: What they are for.

    Returns:
        The generator.
    """
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], np.uint32).tolist()])


def drawn(
    scores: NDArray[np.float64],
    n: int | None,
    generator: np.random.Generator,
    temperature: float | None = None,
) -> list[int]:
    """Places drawn without replacement, ascending.

    With a temperature it is the Gumbel-top-k trick, which draws one after another with chances in
    proportion to ``exp(score / temperature)`` among those left.

    Args:
        scores: Of what is drawn from, float64 ``(m,)``.
        n: How many at most; None takes all.
        generator: Random numbers.
        temperature: None for equal chances.

    Returns:
        The places.
    """
    if n is None or n >= len(scores):
        return list(range(len(scores)))
    keys = generator.gumbel(size=len(scores))
    if temperature is not None:
        keys = keys + scores / temperature
    return sorted(np.argsort(-keys, kind="stable")[:n].tolist())


def _check(
    bands: Sequence[Band],
    margin: float | None,
    percent: float | None,
    ceiling: float | None,
    temperature: float | None,
) -> None:
    if not bands:
        raise DataError("no band of ranks to take negatives from; give at least one")
    ordered = sorted(bands, key=lambda band: band.first)
    for one, other in itertools.pairwise(ordered):
        if other.first <= one.last:
            raise DataError(f"the bands {one} and {other} overlap; negatives would come twice")
    for name, value in (("margin", margin), ("ceiling", ceiling)):
        if value is not None and not math.isfinite(value):
            raise DataError(f"{name} is a number; got {value!r}")
    if margin is not None and margin < 0:
        raise DataError(f"margin is at least 0; got {margin}")
    if percent is not None and not 0 < percent <= 1:
        raise DataError(f"percent is a part above 0 and up to 1, such as 0.95; got {percent}")
    if temperature is not None and not 0 < temperature < math.inf:
        raise DataError(f"temperature is a number above 0; got {temperature}")


def _limit(
    best: float | None,
    margin: float | None,
    percent: float | None,
    ceiling: float | None,
    query: str,
) -> float:
    """What a negative's score must stay below."""
    limits = [math.inf if ceiling is None else ceiling]
    if best is not None and margin is not None:
        limits.append(best - margin)
    if best is not None and percent is not None:
        if best <= 0:
            raise DataError(
                f"query {query!r}: its best relevant hit scores {best}, of which no part can be "
                "taken; use margin= where scores may be negative"
            )
        limits.append(best * percent)
    return min(limits)


# Files --------------------------------------------------------------------------------------------


def write_mined(mined: Iterable[Mined], path: str | Path) -> None:
    """Write queries with their documents as JSONL, one query per line, atomically.

    A line may be changed or taken out by hand. It has ``query_id``, ``query``, ``positives`` (a
    list of ``{"doc_id", "grade", "rank"}``) and ``negatives`` (``{"doc_id", "rank", "score"}``).

    Args:
        mined: The queries.
        path: The file.
    """
    with replacing(Path(path)) as fresh, fresh.open("w", encoding="utf-8") as file:
        for one in mined:
            row = {
                "query_id": one.query_id,
                "query": one.query,
                "positives": [vars(positive) for positive in one.positives],
                "negatives": [vars(negative) for negative in one.negatives],
            }
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_mined(path: str | Path) -> list[Mined]:
    """Read a file that `write_mined` wrote, perhaps changed by hand.

    Args:
        path: The file.

    Returns:
        The queries.

    Raises:
        MissingDataError: No such file.
        ParseError: A line is no such query; names it.
    """
    found: list[Mined] = []
    seen: set[str] = set()
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError as why:
        raise MissingDataError(f"no such file: {path}") from why
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = _of_row(json.loads(line))
        except KeyError as why:
            raise ParseError(path, number, f"{why} is missing") from why
        except (ValueError, TypeError, RecursionError) as why:
            raise ParseError(path, number, f"no query with its documents: {why}") from why
        if one.query_id in seen:
            raise ParseError(path, number, f"the query {one.query_id!r} comes twice")
        seen.add(one.query_id)
        found.append(one)
    return found


def _of_row(row: Any) -> Mined:
    if not isinstance(row, dict):
        raise ValueError("not an object")
    positives = tuple(
        Positive(_text(p["doc_id"]), _whole(p["grade"], 1), _rank(p.get("rank")))
        for p in row["positives"]
    )
    negatives = tuple(
        Negative(_text(n["doc_id"]), _whole(n["rank"], 1), float(n["score"]))
        for n in row["negatives"]
    )
    if not positives or not negatives:
        raise ValueError("it needs at least one positive and one negative; take the line out")
    names = [p.doc_id for p in positives] + [n.doc_id for n in negatives]
    if len(set(names)) != len(names):
        raise ValueError("a document comes twice")
    return Mined(_text(row["query_id"]), _text(row["query"]), positives, negatives)


def _rank(value: Any) -> int | None:
    return None if value is None else _whole(value, 1)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _whole(value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is no whole number from {least} up")
    return value
