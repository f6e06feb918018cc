"""From passages back to documents: the stage that turns a ranking of one into one of the other.

>>> import retrievekit as rk
>>> corpus = rk.Corpus.from_texts({"a": "one two three four", "b": "four five"})
>>> index = rk.BM25Index.build(corpus.passages(words=2))
>>> (index.searcher(k=10) >> rk.aggregate("max")).search("five four").doc_ids
['b', 'a']

A document's score is made of those of its passages among the hits; what was not retrieved counts
nothing, so search deeper than the documents wanted. Callan, "Passage-Level Evidence in Document
Retrieval", SIGIR 1994; FirstP, MaxP and SumP in Dai and Callan, SIGIR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrievekit.arrow import row_array
from retrievekit.errors import DataError, NonFiniteError
from retrievekit.ids import Ids, Rows
from retrievekit.run import Run
from retrievekit.splitting import SEPARATOR, parent_of, parents_of
from retrievekit.stage import Stage

How: TypeAlias = Literal["max", "first", "sum", "mean"]

_HOW: tuple[How, ...] = ("max", "first", "sum", "mean")


@dataclass(frozen=True)
class Aggregate(Stage[Run, Run]):
    """Rankings of documents from those of their passages; what `aggregate` builds.

    The run that it gives has a column `passage`: the number of the passage that stands for each
    document, which is its first hit, or under ``first`` the earliest in the text.

    Args:
        how: ``max``, ``first``, ``sum`` or ``mean``.
        n: How many of a document's hits count under ``sum`` and ``mean``, at least 1; None: all.
        k: Documents kept for each query, at least 1; None: all.
        separator: What stands before the number in a passage's id; no digits in it.

    Raises:
        DataError: A parameter is none of these.
    """

    how: How = "max"
    n: int | None = None
    k: int | None = None
    separator: str = SEPARATOR
    takes = Run
    gives = Run

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.how not in _HOW:
            raise DataError(f"no aggregation {self.how!r}; known: {', '.join(_HOW)}")
        for name, value in (("n", self.n), ("k", self.k)):
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1):
                raise DataError(f"{name} is a whole number of at least 1, or None; got {value!r}")
        if self.n is not None and self.how in ("max", "first"):
            raise DataError(f"n is for 'sum' and 'mean'; {self.how!r} reads one passage")
        given = self.separator
        if not isinstance(given, str) or not given or any(c in "0123456789" for c in given):
            raise DataError(f"the separator is a text without digits; got {given!r}")

    def apply(self, batch: Run) -> Run:
        """Aggregate, sort, cut.

        Raises:
            DataError: A hit's id is not that of a passage.
            NonFiniteError: A sum does not fit into float32; names query and document.
        """
        from retrievekit.kernels.order import order_hits
        from retrievekit.kernels.passages import FIRST, MAX, MEAN, SUM, aggregated

        docs, parents, numbers = self._parents(batch)
        code = {"max": MAX, "first": FIRST, "sum": SUM, "mean": MEAN}[self.how]
        # A list is never longer than the run, so this is "all".
        n = batch.n_hits if self.n is None else int(self.n)
        offsets, rows, scores, stands = aggregated(
            batch.offsets, parents, numbers, batch.scores, len(docs), code, n
        )
        finite = np.isfinite(scores)
        if not finite.all():
            place = int(np.argmin(finite))
            query = int(np.searchsorted(offsets, place, side="right")) - 1
            raise NonFiniteError(
                f"query {batch.queries.ids[query]!r}, document {docs[int(rows[place])]!r}: the "
                f"{self.how} of its passages' scores is {scores[place]} as float32"
            )
        order = order_hits(offsets, scores, docs.rank[rows])
        run = Run(
            batch.queries,
            docs,
            offsets,
            rows[order],
            scores[order],
            {"passage": numbers[stands[order]]},
            batch.trace,
        )
        return run if self.k is None else run.top(self.k)

    def _parents(self, batch: Run) -> tuple[Ids, Rows, NDArray[np.int64]]:
        """The documents of all hits, each hit's row among them, and its passage's number."""
        # Only the ids that were hit are looked at: there may be millions of passages.
        if batch.n_hits * 8 < len(batch.docs):
            used, places = np.unique(batch.rows, return_inverse=True)
        else:
            hit = np.zeros(len(batch.docs), np.bool_)
            hit[batch.rows] = True
            used = np.flatnonzero(hit).astype(np.int32)
            places = (np.cumsum(hit, dtype=np.int64) - 1)[batch.rows]
        ids = batch.docs.take(used)
        found, numbers, strange = parents_of(ids, self.separator)
        if strange.any():
            parent_of(ids[int(np.argmax(strange))], self.separator)  # raises, with what to do
        names = found.dictionary_encode()
        parents = names.indices.to_numpy().astype(np.int32)
        docs = Ids.from_arrow(names.dictionary, what="document id")
        return docs, parents[places], numbers[places]

    def explain_parts(self, batch: Run, doc_id: str) -> Mapping[str, float]:
        """The passages that count, by their ids, with what each adds to the document's score.

        Args:
            batch: A run of one query.
            doc_id: The document.

        Returns:
            The passages, best first; they add up to the score.
        """
        if not batch.n_hits:
            return {}
        docs, parents, numbers = self._parents(batch)
        places = np.flatnonzero(parents == docs.find(doc_id))
        if self.how == "first" and len(places):
            places = places[[np.argmin(numbers[places])]]
        else:
            places = places[: 1 if self.how == "max" else self.n]
        share = len(places) if self.how == "mean" else 1
        ids = batch.docs.arrow.take(row_array(batch.rows[places])).to_pylist()
        scores = batch.scores[places].astype(np.float64) / share
        return dict(zip(ids, scores.tolist(), strict=True))

    @property
    def name(self) -> str:
        """The function that builds it."""
        return "aggregate"

    def __repr__(self) -> str:
        """The call that builds it."""
        shown = [repr(self.how)]
        given: dict[str, Any] = {"n": self.n, "k": self.k}
        shown += [f"{name}={value}" for name, value in given.items() if value is not None]
        if self.separator != SEPARATOR:
            shown.append(f"separator={self.separator!r}")
        return f"aggregate({', '.join(shown)})"


def aggregate(
    how: How = "max", n: int | None = None, *, k: int | None = None, separator: str = SEPARATOR
) -> Stage[Run, Run]:
    """Bring a ranking of passages back to documents.

    Args:
        how: A document's score: ``max``, that of its best passage among the hits; ``first``, that
            of the earliest in the text among them; ``sum`` or ``mean`` of its `n` best (of fewer
            where there are fewer).
        n: How many passages count under ``sum`` and ``mean``; None counts all.
        k: Documents kept for each query, cut when all are aggregated; None keeps all.
        separator: What stands before the number in a passage's id.

    Returns:
        The stage.
    """
    return Aggregate(how, n, k, separator)
