"""RM3 and Rocchio over terms: the query's terms with the best terms of its first hits.

Both are equal to Anserini's ``Rm3Reranker`` and ``RocchioReranker``: the same terms are left out
(short or long ones, those of many documents), equally heavy terms are kept in the order of their
bytes, and sums are float32. The terms of documents come from the index's own forward index; their
frequencies are those of live documents, so that no history of updates changes an answer.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.feedback.base import Feedback, Moved, moved_terms, told
from retrievekit.feedback.documents import Documents, TermVectors
from retrievekit.feedback.hits import (
    Picked,
    check_weights,
    check_whole,
    first_hits,
    last_hits,
)
from retrievekit.index.postings import PostingsIndex
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.vectors import WeightedTerms

PART = 64
"""Queries whose documents are in memory at a time."""


@dataclass(frozen=True)
class TermFeedback(Feedback):
    """Feedback that gives queries weighted terms of their hits.

    Args:
        index: A `BM25Index` or `SparseIndex`.

    Raises:
        FormError: The index is of another kind.
    """

    def __post_init__(self) -> None:
        """Check the index."""
        _ = self._vectors

    @cached_property
    def _vectors(self) -> TermVectors:
        return TermVectors(self.index)

    @property
    def _searched(self) -> PostingsIndex:
        return self._vectors.index

    def apply(self, batch: Run) -> Queries:
        """Give each query its new terms.

        Raises:
            FormError: The queries have no words, or none that the index can use.
            UnknownNameError: A hit is not in the index.
            DataError: Scores are below 0 where they weigh documents.
        """
        before = self._searched.query_terms(batch.queries)
        rows: list[dict[str, float]] = []
        for start in range(0, len(batch), PART):
            stop = min(start + PART, len(batch))
            part = batch if len(batch) <= PART else batch.take(np.arange(start, stop))
            rows += self._rewritten(part, before[start:stop])
        told(batch)
        form = WeightedTerms.from_dicts([dict(sorted(row.items())) for row in rows])
        return batch.queries.rewritten(form)

    def _rewritten(
        self, batch: Run, before: Sequence[Mapping[str, float]]
    ) -> list[dict[str, float]]:
        mixed = self._mixed(batch, before)
        lengths = np.diff(batch.offsets).tolist()
        # A query without hits is neither mixed nor scaled: it finds again what it found.
        return [
            new if length else dict(old)
            for new, old, length in zip(mixed, before, lengths, strict=True)
        ]

    @abstractmethod
    def _mixed(self, batch: Run, before: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        """The new terms of each query, whatever becomes of those without hits."""

    @abstractmethod
    def _added(self, batch: Run, after: Mapping[str, float]) -> dict[str, float]:
        """What each hit of the only query added to its terms."""

    def explain_parts(self, batch: Run, doc_id: str) -> Mapping[str, float]:
        """By how much each term's share of the query's weight changed, most changed ones first."""
        found = self._moved(batch)
        return {term: new - old for term, old, new in found.terms if new != old}

    def _moved(self, batch: Run) -> Moved:
        (before,) = self._searched.query_terms(batch.queries)
        (after,) = self._rewritten(batch, [before])
        added = self._added(batch, after) if batch.n_hits else {}
        return moved_terms(batch.queries.ids[0], before, after, added)

    def _documents(self, picked: Picked) -> tuple[Documents, NDArray[np.int64]]:
        """The terms of all hits' documents, each once, and which document each hit is."""
        rows, which = np.unique(picked.rows, return_inverse=True)
        return self._vectors.of(rows), which


@dataclass(frozen=True)
class FilteredFeedback(TermFeedback):
    """Feedback by terms of which some are left out.

    Args:
        index: A `BM25Index` or `SparseIndex`.
        max_df: The largest part of all documents that a term may be in, 0 to 1.
        min_length: Characters that a term has at least.
        max_length: Characters that a term has at most.

    Raises:
        DataError: A number is out of range.
        FormError: The index is of another kind.
    """

    max_df: float = field(default=0.1, kw_only=True)
    min_length: int = field(default=2, kw_only=True)
    max_length: int = field(default=20, kw_only=True)

    def __post_init__(self) -> None:
        """Check index and numbers."""
        super().__post_init__()
        check_whole(min_length=self.min_length, max_length=self.max_length)
        if isinstance(self.max_df, bool) or not 0 <= self.max_df <= 1:
            raise DataError(f"max_df is {self.max_df!r}; it is a part of all, 0 to 1")

    def _allowed(self, documents: Documents) -> NDArray[np.bool_]:
        lengths = pc.utf8_length(documents.vocabulary).to_numpy(zero_copy_only=False)
        shares = documents.df.astype(np.float32) / np.float32(max(len(self.index), 1))
        allowed = (lengths >= self.min_length) & (lengths <= self.max_length)
        allowed &= shares <= np.float32(self.max_df)
        return np.ascontiguousarray(allowed)

    def _best(
        self, picked: Picked, scores: NDArray[np.float32], per_document: int, power: int, keep: int
    ) -> list[dict[str, float]]:
        """The best terms of each query's hits; see `term_models`."""
        from retrievekit.kernels.feedback import term_models

        documents, which = self._documents(picked)
        n = len(picked.cuts) - 1
        terms = np.empty((n, keep), np.int32)
        weights = np.empty((n, keep), np.float32)
        counts = np.zeros(n, np.int64)
        term_models(
            picked.cuts, which, scores, documents.offsets, documents.terms, documents.values,
            self._allowed(documents), per_document, power, power == 2, keep, terms, weights, counts,
        )  # fmt: skip
        kept = np.arange(keep) < counts[:, None]
        names, values = iter(documents.names(terms[kept])), iter(weights[kept].tolist())
        return [{next(names): next(values) for _ in range(length)} for length in counts.tolist()]

    def _contributions(
        self, picked: Picked, scores: Sequence[float], per_document: int, power: int
    ) -> list[dict[str, float]]:
        """What each hit adds to each term before anything is left out or scaled."""
        documents, which = self._documents(picked)
        allowed = self._allowed(documents)
        out = []
        for document, score in zip(which.tolist(), scores, strict=True):
            terms, values = documents.row(document)
            used = allowed[terms]
            pairs = sorted(
                zip(terms[used].tolist(), values[used].tolist(), strict=True),
                key=lambda pair: (-pair[1], pair[0]),
            )[: per_document or None]
            norm = sum(abs(value) ** power for _, value in pairs) ** (1 / power)
            names = documents.names(np.array([term for term, _ in pairs], np.int64))
            out.append(
                {
                    name: value / norm * score
                    for name, (_, value) in zip(names, pairs, strict=True)
                    if norm
                }
            )
        return out


@dataclass(frozen=True)
class RM3(FilteredFeedback):
    """The query's terms mixed with the best terms of its first hits, weighed by their scores.

    ``w(t) = original_query_weight * q(t) / |q|₁ + (1 - original_query_weight) * p(t|R)``, where
    ``p(t|R)`` is proportional to the sum over hits of ``score * tf / |d|₁``. Abdul-Jaleel et al.,
    "UMass at TREC 2004: Novelty and HARD" (2004), as Anserini computes it: each document counts
    with its `fb_terms` most frequent terms.

    Args:
        index: A `BM25Index` or `SparseIndex` whose documents the hits are.
        max_df: The largest part of all documents that a term may be in, 0 to 1.
        min_length: Characters that a term has at least.
        max_length: Characters that a term has at most.
        fb_terms: Terms of each document, and of the model, at least 1.
        fb_docs: Hits that are looked at, at least 1.
        original_query_weight: Share of the original query, 0 to 1.
        filter_terms: Whether only terms of a to z and 0 to 9 are taken from documents.

    Raises:
        DataError: A number is out of range.
        FormError: The index is of another kind.
    """

    fb_terms: int = 10
    fb_docs: int = 10
    original_query_weight: float = 0.5
    filter_terms: bool = True

    def __post_init__(self) -> None:
        """Check index and numbers."""
        super().__post_init__()
        check_whole(fb_terms=self.fb_terms, fb_docs=self.fb_docs)
        check_weights(original_query_weight=self.original_query_weight)
        if self.original_query_weight > 1:
            raise DataError(
                f"original_query_weight is {self.original_query_weight}; it lies between 0 and 1"
            )

    def _allowed(self, documents: Documents) -> NDArray[np.bool_]:
        allowed = super()._allowed(documents)
        if self.filter_terms:
            plain = pc.match_substring_regex(documents.vocabulary, r"\A[a-z0-9]+\z")
            allowed &= plain.to_numpy(zero_copy_only=False)
        return allowed

    def _looked_at(self, batch: Run) -> tuple[Picked, NDArray[np.float32]]:
        picked = first_hits(batch, self.index, self.fb_docs)
        scores = batch.scores[picked.places]
        low = np.flatnonzero(scores < 0)
        if len(low):
            query = int(np.searchsorted(picked.cuts, low[0], side="right")) - 1
            raise DataError(
                f"query {batch.queries.ids[query]!r}: RM3 weighs documents by their scores, but "
                f"one is {scores[low[0]]:g}; LexicalRocchio weighs all hits alike"
            )
        return picked, scores

    def _mixed(self, batch: Run, before: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        picked, scores = self._looked_at(batch)
        models = self._best(picked, scores, self.fb_terms, 1, self.fb_terms)
        own = self.original_query_weight
        return [
            mixture([(own, scaled(old, 1)), (1 - own, model)])
            for old, model in zip(before, models, strict=True)
        ]

    def _added(self, batch: Run, after: Mapping[str, float]) -> dict[str, float]:
        picked, scores = self._looked_at(batch)
        parts = self._contributions(picked, scores.tolist(), self.fb_terms, 1)
        return dict(zip(_ids(batch, picked), _sums(parts, after), strict=True))


@dataclass(frozen=True)
class LexicalRocchio(FilteredFeedback):
    """alpha * query + beta * mean of first hits - gamma * mean of last hits, over terms.

    All vectors are of length 1; of each mean only the heaviest terms are kept, and it is brought to
    length 1 again. Terms whose weight is not above 0 are left out. Rocchio, "Relevance Feedback in
    Information Retrieval" (1971), as Anserini computes it: documents hold term frequencies, or in a
    `SparseIndex` their learned weights, and where there are few hits one may be counted on both
    sides.

    Args:
        index: A `BM25Index` or `SparseIndex` whose documents the hits are.
        max_df: The largest part of all documents that a term may be in, 0 to 1.
        min_length: Characters that a term has at least.
        max_length: Characters that a term has at most.
        fb_terms: Terms of the first hits' mean that are kept, at least 1.
        fb_docs: First hits that are looked at, at least 1.
        alpha: Weight of the query, at least 0.
        beta: Weight of the first hits, at least 0.
        gamma: Weight of the last hits, at least 0; Anserini's is 0.15 where it is used at all.
        bottom_fb_terms: Terms of the last hits' mean that are kept, at least 1.
        bottom_fb_docs: Last hits that are looked at, at least 1.

    Raises:
        DataError: A number is out of range.
        FormError: The index is of another kind.
    """

    fb_terms: int = 10
    fb_docs: int = 10
    alpha: float = 1.0
    beta: float = 0.75
    gamma: float = 0.0
    bottom_fb_terms: int = 10
    bottom_fb_docs: int = 10

    def __post_init__(self) -> None:
        """Check index and numbers."""
        super().__post_init__()
        check_whole(
            fb_terms=self.fb_terms,
            fb_docs=self.fb_docs,
            bottom_fb_terms=self.bottom_fb_terms,
            bottom_fb_docs=self.bottom_fb_docs,
        )
        check_weights(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    def _sides(self, batch: Run) -> list[tuple[float, Picked, int]]:
        sides = [(self.beta, first_hits(batch, self.index, self.fb_docs), self.fb_terms)]
        if self.gamma > 0:
            last = last_hits(batch, self.index, self.bottom_fb_docs)
            sides.append((-self.gamma, last, self.bottom_fb_terms))
        return sides

    def _mixed(self, batch: Run, before: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        weighed = [[(self.alpha, scaled(old, 2)) for old in before]]
        for weight, picked, keep in self._sides(batch):
            models = self._best(picked, np.ones(len(picked.rows), np.float32), 0, 2, keep)
            weighed.append([(weight, model) for model in models])
        mixed = [mixture(parts) for parts in zip(*weighed, strict=True)]
        return [{term: w for term, w in row.items() if w > 0} for row in mixed]

    def _added(self, batch: Run, after: Mapping[str, float]) -> dict[str, float]:
        added: dict[str, float] = {}
        for weight, picked, _ in self._sides(batch):
            each = [weight / max(len(picked.rows), 1)] * len(picked.rows)
            parts = self._contributions(picked, each, 0, 2)
            for doc_id, part in zip(_ids(batch, picked), _sums(parts, after), strict=True):
                added[doc_id] = added.get(doc_id, 0.0) + part
        return added


def scaled(terms: Mapping[str, float], power: int) -> dict[str, float]:
    """Weighted terms of norm 1.

    Args:
        terms: Weights by term.
        power: 1 or 2, which norm.

    Returns:
        The same terms; as they are where all weigh nothing.
    """
    norm = math.fsum(abs(weight) ** power for weight in terms.values()) ** (1 / power)
    return {term: weight / norm for term, weight in terms.items()} if norm else dict(terms)


def mixture(parts: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """A weighted sum of weighted terms.

    Args:
        parts: Each with its weight.

    Returns:
        Weights by term.
    """
    out: dict[str, float] = {}
    for share, terms in parts:
        for term, weight in terms.items():
            out[term] = out.get(term, 0.0) + share * weight
    return out


def _ids(batch: Run, picked: Picked) -> list[str]:
    return batch.docs.strings(batch.rows[picked.places])


def _sums(parts: Sequence[Mapping[str, float]], among: Mapping[str, float]) -> list[float]:
    return [sum(weight for term, weight in part.items() if term in among) for part in parts]
