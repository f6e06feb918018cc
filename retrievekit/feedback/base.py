"""What feedback stages share: they lead from a run to better queries, and tell what moved them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrievekit.errors import DataError
from retrievekit.index.base import Index
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage
from retrievekit.trace import count

SHOWN = 10
"""Terms and passages of an explanation that are printed."""


@dataclass(frozen=True)
class Moved:
    """What moved a query, and by how much.

    Args:
        query_id: The query.
        passages: Hits that were looked at, with their shares in the change, which add up to 1;
            those below 0 are of hits that the query was moved away from.
        terms: Terms with their shares of the query's weight before and after, the most changed
            ones first; none where queries are dense vectors.
        cosine: Of the query before and after; 1 where it stayed as it is.
    """

    query_id: str
    passages: tuple[tuple[str, float], ...]
    terms: tuple[tuple[str, float, float], ...]
    cosine: float

    def __str__(self) -> str:
        """A few lines to read."""
        lines = [f"query {self.query_id}: cosine of before and after {self.cosine:.3f}"]
        if not self.passages:
            lines.append("  no hits: left as it is")
        for term, before, after in self.terms[:SHOWN]:
            lines.append(f"  {term:20} {before:6.1%} -> {after:6.1%}")
        for doc_id, share in self.passages[:SHOWN]:
            lines.append(f"  from {doc_id:15} {share:+6.1%}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Feedback(Stage[Run, Queries]):
    """Makes better queries of queries and their first hits.

    A query without hits stays as it is; the trace counts such queries.

    Args:
        index: Holds the documents that the hits are.
    """

    index: Index

    takes = Run
    gives = Queries

    def explained(self, batch: Run, query_id: str | None = None) -> Moved:
        """What moved a query.

        Args:
            batch: Hits of some queries.
            query_id: Which of them; the only one by default.

        Returns:
            Its terms and passages, with how much each counted.

        Raises:
            DataError: There are several queries, and none is named.
            UnknownNameError: There is no such query, or the index lacks a hit.
        """
        if query_id is None and len(batch) != 1:
            raise DataError(f"{len(batch)} queries; name the one to explain: query_id=...")
        row = 0 if query_id is None else batch.queries.ids.row(query_id)
        return self._moved(batch.take(np.array([row])))

    @abstractmethod
    def _moved(self, batch: Run) -> Moved:
        """What moved the only query."""


def told(batch: Run) -> None:
    """Count the queries that have no hits.

    Args:
        batch: The hits.
    """
    count("queries without hits, left as they are", int((np.diff(batch.offsets) == 0).sum()))


def moved_terms(
    query_id: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    passages: Mapping[str, float],
) -> Moved:
    """What moved a query of weighted terms.

    Args:
        query_id: The query.
        before: Its terms.
        after: Its terms now.
        passages: What each of its hits added to the terms, in any unit.

    Returns:
        Shares of each.
    """
    old, new = _shares(before), _shares(after)
    rows = [(term, old.get(term, 0.0), new.get(term, 0.0)) for term in sorted({*old, *new})]
    rows.sort(key=lambda row: -abs(row[2] - row[1]))
    dot = sum(old.get(term, 0.0) * weight for term, weight in new.items())
    lengths = np.prod([np.sqrt(sum(w * w for w in part.values())) for part in (old, new)])
    cosine = float(dot / lengths) if lengths else float(old == new)
    # Signs matter here: what was subtracted pulls the other way.
    total = sum(passages.values())
    shares = {doc_id: part / total if total else 0.0 for doc_id, part in passages.items()}
    return Moved(query_id, tuple(shares.items()), tuple(rows), cosine)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(map(abs, weights.values()))
    return {term: weight / total if total else 0.0 for term, weight in weights.items()}
