"""Lists to learn from: for each step its queries, and for each query some of its documents.

What a step holds depends on the seed and its number alone, so a training that goes on after a kill
sees what it would have seen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.train.mining import Mined, drawn, generator_of


@dataclass(frozen=True)
class Drawing:
    """Draws lists of documents from mined queries.

    Args:
        mined: The queries with their documents.
        seed: Decides what is drawn.
        queries: Lists per step.
        positives: Relevant documents per list, at most.
        negatives: Others, at most.

    Raises:
        DataError: There is no query.
    """

    mined: Sequence[Mined]
    seed: int
    queries: int
    positives: int
    negatives: int

    def __post_init__(self) -> None:
        """Check that there is something to draw."""
        if not self.mined:
            raise DataError(
                "no query to learn from: none has both a relevant document and a negative; look "
                "deeper into the first stage, or loosen the filters"
            )

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which each query comes once."""
        return len(self.mined) / self.queries

    def step(self, number: int) -> list[tuple[Mined, list[tuple[str, int]]]]:
        """The lists of one step.

        Args:
            number: The step, from 0.

        Returns:
            Queries, each with ids of documents and their labels: the grade, or 0. Relevant ones
            come first.
        """
        size = len(self.mined)
        places = range(number * self.queries, (number + 1) * self.queries)
        return [self._list(*divmod(place, size)) for place in places]

    def _list(self, epoch: int, place: int) -> tuple[Mined, list[tuple[str, int]]]:
        one = self.mined[_order(self.seed, epoch, len(self.mined))[place]]
        generator = generator_of(self.seed, one.query_id, str(epoch))
        equal = np.zeros(max(len(one.positives), len(one.negatives)))
        chosen = drawn(equal[: len(one.positives)], self.positives, generator)
        others = drawn(equal[: len(one.negatives)], self.negatives, generator)
        labelled = [(one.positives[i].doc_id, one.positives[i].grade) for i in chosen]
        return one, labelled + [(one.negatives[i].doc_id, 0) for i in others]


# A step may reach over the end of an epoch.
@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order of an epoch's queries, drawn once and not for each list: int64 ``(size,)``."""
    return np.random.default_rng([seed, epoch]).permutation(size)
