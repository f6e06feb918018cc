"""Bo1 and KL: terms that come more often in the first hits than anywhere else.

Divergence from randomness, without parameters but for how much of it is taken. The weight of a
term in the `fb_docs` first hits, where it comes tf times in l tokens, against F times in all N
documents of T tokens::

    Bo1: tf * log2((1 + P) / P) + log2(1 + P),  P = F / N
    KL:  tf / l * log2((tf / l) / (F / T)),     0 where it is not more frequent than elsewhere

The `fb_terms` heaviest are divided by the largest weight and added, times beta, to the query's
terms, which are divided by their largest: Amati, "Probabilistic Models for Information Retrieval
based on Divergence from Randomness" (2003), and Carpineto et al., "An Information-Theoretic
Approach to Automatic Query Expansion" (2001).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import FormError
from retrievekit.feedback.documents import Documents
from retrievekit.feedback.hits import check_weights, check_whole, first_hits
from retrievekit.feedback.terms import TermFeedback, mixture
from retrievekit.run import Run


@dataclass(frozen=True)
class DivergenceFeedback(TermFeedback):
    """Feedback by terms whose frequency in the first hits is no chance.

    Args:
        index: A `BM25Index` whose documents the hits are.
        fb_terms: Terms that are added, at least 1.
        fb_docs: Hits that are looked at, at least 1.
        beta: Weight of the added terms, at least 0; the query's heaviest term weighs 1.

    Raises:
        DataError: A number is out of range.
        FormError: The index is of another kind.
    """

    fb_terms: int = 10
    fb_docs: int = 3
    beta: float = 0.4

    def __post_init__(self) -> None:
        """Check index and numbers."""
        super().__post_init__()
        if not self._vectors.counts:
            raise FormError(
                f"{type(self).__name__} counts words, which {self.index!r} does not; use "
                "LexicalRocchio or Rocchio with learned weights"
            )
        check_whole(fb_terms=self.fb_terms, fb_docs=self.fb_docs)
        check_weights(beta=self.beta)

    @abstractmethod
    def weigh(
        self, tf: NDArray[np.float64], length: float, everywhere: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What terms of the first hits weigh.

        Args:
            tf: How often each comes in them, float64 ``(m,)``.
            length: Tokens of all of them.
            everywhere: How often each comes in all documents, float64 ``(m,)``.

        Returns:
            float64 ``(m,)``, none below 0.
        """

    def _mixed(self, batch: Run, before: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        picked = first_hits(batch, self.index, self.fb_docs)
        documents, which = self._documents(picked)
        everywhere = np.array(
            [self._vectors.frequency(term) for term in documents.vocabulary.to_pylist()],
            np.float64,
        )
        out = []
        for row, old in enumerate(before):
            own = which[picked.cuts[row] : picked.cuts[row + 1]].tolist()
            model = self._model(documents, own, everywhere)
            largest = max(old.values(), default=0.0)
            scale = 1 / largest if largest > 0 else 1.0
            out.append(mixture([(scale, old), (self.beta, model)]))
        return out

    def _model(
        self, documents: Documents, own: list[int], everywhere: NDArray[np.float64]
    ) -> dict[str, float]:
        """The heaviest terms of one query's documents, the heaviest weighing 1."""
        rows = [documents.row(document) for document in own]
        terms = np.concatenate([np.zeros(0, np.int32), *(row[0] for row in rows)])
        values = np.concatenate([np.zeros(0, np.float32), *(row[1] for row in rows)])
        if not len(terms):
            return {}
        distinct, places = np.unique(terms, return_inverse=True)
        tf: NDArray[np.float64] = np.bincount(places, weights=values).astype(np.float64)
        weights = self.weigh(tf, float(tf.sum()), everywhere[distinct])
        best = np.lexsort((distinct, -weights))[: self.fb_terms]
        best = best[weights[best] > 0]
        names = documents.names(distinct[best])
        return dict(zip(names, (weights[best] / weights.max()).tolist(), strict=True))

    def _added(self, batch: Run, after: Mapping[str, float]) -> dict[str, float]:
        picked = first_hits(batch, self.index, self.fb_docs)
        documents, which = self._documents(picked)
        added = {}
        for place, document in zip(picked.places.tolist(), which.tolist(), strict=True):
            terms, values = documents.row(document)
            held = np.array([name in after for name in documents.names(terms)], bool)
            doc_id = batch.docs[int(batch.rows[place])]
            added[doc_id] = float(values[held].sum(dtype=np.float64))
        return added


@dataclass(frozen=True)
class Bo1(DivergenceFeedback):
    """Bose-Einstein statistics: terms that few would expect so often.

    Args:
        index: A `BM25Index` whose documents the hits are.
        fb_terms: Terms that are added, at least 1.
        fb_docs: Hits that are looked at, at least 1.
        beta: Weight of the added terms, at least 0; the query's heaviest term weighs 1.

    Raises:
        DataError: A number is out of range.
        FormError: The index is of another kind.
    """

    def weigh(
        self, tf: NDArray[np.float64], length: float, everywhere: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """``tf * log2((1 + P) / P) + log2(1 + P)``, float64 ``(m,)``."""
        expected = everywhere / max(len(self.index), 1)
        return tf * np.log2((1 + expected) / expected) + np.log2(1 + expected)


@dataclass(frozen=True)
class KL(DivergenceFeedback):
    """Kullback-Leibler divergence of the first hits from all documents, term by term.

    Args:
        index: A `BM25Index` whose documents the hits are.
        fb_terms: Terms that are added, at least 1.
        fb_docs: Hits that are looked at, at least 1.
        beta: Weight of the added terms, at least 0; the query's heaviest term weighs 1.

    Raises:
        DataError: A number is out of range.
        FormError: The index is of another kind.
    """

    def weigh(
        self, tf: NDArray[np.float64], length: float, everywhere: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """``tf / l * log2((tf / l) / (F / T))``, float64 ``(m,)``, and 0 instead of less."""
        tokens = float(self.index.manifest.statistics["tokens"])
        here = tf / length
        return np.maximum(here * np.log2(here / (everywhere / tokens)), 0.0)
