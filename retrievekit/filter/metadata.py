"""Keeping only hits whose metadata satisfy a condition.

On a run of finished hits this is a post-filter: fewer than k may be left. A searcher's own
``where=`` filters before the search, so that k hits come back where there are as many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retrievekit.errors import DataError
from retrievekit.index.base import Index
from retrievekit.index.searcher import Searcher
from retrievekit.run import Run
from retrievekit.stage import Stage
from retrievekit.where import Condition, condition_of


@dataclass(frozen=True)
class Where(Stage[Run, Run]):
    """Keeps hits whose documents satisfy a condition; what `where` builds.

    Args:
        condition: The condition.
        index: The index whose metadata are asked.
    """

    condition: Condition
    index: Index

    takes = Run
    gives = Run

    def apply(self, batch: Run) -> Run:
        """Drop the hits whose documents do not satisfy the condition.

        Raises:
            DataError: A hit is of a document that the index does not hold.
        """
        rows = batch.docs.translate(self.index.ids)[batch.rows]
        if len(rows) and rows.min() < 0:
            strangers = batch.docs.strings(batch.rows[rows < 0][:3])
            raise DataError(
                f"{self!r}: the run holds documents that are not in the index, such as {strangers}"
            )
        return batch.keep(self.index.satisfying(self.condition)[rows])

    def __repr__(self) -> str:
        """The call that builds it, without the index."""
        return f"where({str(self.condition)!r})"

    @property
    def name(self) -> str:
        """The call that builds it."""
        return repr(self)

    @property
    def corpus(self) -> Any:
        """The index's words."""
        return self.index.corpus


def where(condition: str | Condition, index: Index | Searcher) -> Where:
    """Keep hits whose documents satisfy a condition on their metadata.

    Args:
        condition: Such as ``year >= 2020 and lang in ("en", "de")``; see `retrievekit.where`.
        index: The index whose metadata are asked, or a searcher of that index.

    Returns:
        The stage, from a run to a shorter one.

    Raises:
        ExpressionError: The condition does not parse; the message points at the place.
        DataError: Something else stands in the index's place.
    """
    asked = index.index if isinstance(index, Searcher) else index
    if not isinstance(asked, Index):
        raise DataError(
            f"a condition asks the metadata of one index, but {index!r} is neither an index nor a "
            'searcher of one; name one, as in where("year >= 2020", bm25)'
        )
    return Where(condition_of(condition), asked)
