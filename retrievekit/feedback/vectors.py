"""Average and Rocchio over vectors: a query moved towards the vectors of its first hits.

Li et al., "Pseudo Relevance Feedback with Deep Language Models and Dense Retrievers" (2022). The
vectors are read from the index, dense ones or learned weights of terms; nothing is encoded but the
query. Under the cosine similarity the moved query is brought to length 1 again, under the others it
is left as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, FormError
from retrievekit.feedback.base import Feedback, Moved, moved_terms, told
from retrievekit.feedback.documents import TermVectors
from retrievekit.feedback.hits import Picked, check_weights, check_whole, first_hits, last_hits
from retrievekit.index.asked import searched_vectors
from retrievekit.index.dense import DenseIndex
from retrievekit.index.sparse import SparseIndex
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.vectors import DenseVectors, WeightedTerms

PART = 256
"""Queries whose vectors are copied at a time, where they are not read in place."""


@dataclass(frozen=True)
class Pull:
    """What a batch of queries is made of.

    Args:
        picked: The hits that count.
        weights: float64 ``(hits,)``, what each weighs.
        shares: float64 ``(nq,)``, what each query weighs.
    """

    picked: Picked
    weights: NDArray[np.float64]
    shares: NDArray[np.float64]

    def part(self, start: int, stop: int) -> Pull:
        """That of some queries.

        Args:
            start: First query.
            stop: Query after the last.

        Returns:
            Their part.
        """
        first, last = int(self.picked.cuts[start]), int(self.picked.cuts[stop])
        part = self.picked.part(start, stop)
        return Pull(part, self.weights[first:last], self.shares[start:stop])


@dataclass(frozen=True)
class VectorFeedback(Feedback):
    """Feedback by the vectors of hits, as an index holds them.

    Args:
        index: A `DenseIndex` or `SparseIndex`.
        quantised: Whether vectors that the index holds as bytes may be used.

    Raises:
        FormError: The index is of another kind.
        DataError: It holds bytes, and that was not allowed.
    """

    # Outside the fingerprint: it says what may be asked, not what is answered.
    quantised: bool = field(default=False, kw_only=True, repr=False, metadata={"knob": True})

    def __post_init__(self) -> None:
        """Check the index."""
        if not isinstance(self.index, (DenseIndex, SparseIndex)):
            raise FormError(
                f"{type(self).__name__} moves queries by the vectors of a DenseIndex or a "
                f"SparseIndex; this is {self.index!r}, for which there is LexicalRocchio"
            )
        if isinstance(self.index, DenseIndex) and not self.quantised:
            _check_stored(self.index)

    @abstractmethod
    def _pull(self, batch: Run) -> Pull:
        """Which hits count, and how much."""

    @cached_property
    def _encoder(self) -> str:
        assert isinstance(self.index, DenseIndex)
        return self.index.card.fingerprint

    @property
    def _kept(self) -> int | None:
        """Terms that a query of terms keeps."""
        return None

    def apply(self, batch: Run) -> Queries:
        """Move each query.

        Raises:
            FormError: The queries have a form that the index cannot use.
            UnknownNameError: A hit is not in the index.
        """
        pull = self._pull(batch)
        told(batch)
        if isinstance(self.index, DenseIndex):
            vectors = self._dense(self.index, searched_vectors(self.index, batch.queries), pull)
            form: Any = DenseVectors(vectors, self._encoder)
        else:
            form = WeightedTerms.from_dicts(self._sparse(self._queries(batch), pull))
        return batch.queries.rewritten(form)

    def _dense(
        self, index: DenseIndex, queries: NDArray[np.float32], pull: Pull
    ) -> NDArray[np.float32]:
        from retrievekit.kernels.feedback import moved

        unit = index.similarity == "cosine"
        out = np.empty(queries.shape, np.float32)
        numbers, within = index.places
        if len(index.segments) == 1 and index.stored[0].array.dtype == np.float32:
            rows = within[pull.picked.rows].astype(np.int64)
            index.stored[0].ensure_rows(rows)
            vectors, _ = index.stored[0].for_kernels
            moved(vectors, pull.picked.cuts, rows, pull.weights, queries, pull.shares, unit, out)
            return out
        for start in range(0, len(queries), PART):
            some = slice(start, min(start + PART, len(queries)))
            part = pull.part(some.start, some.stop)
            rows = part.picked.rows
            copied = np.empty((len(rows), index.dim), np.float32)
            for number, stored in enumerate(index.stored):
                mine = numbers[rows] == number
                copied[mine] = stored.take(within[rows[mine]])
            own = np.arange(len(rows))
            cuts, weights, shares = part.picked.cuts, part.weights, part.shares
            moved(copied, cuts, own, weights, queries[some], shares, unit, out[some])
        return out

    @cached_property
    def _terms(self) -> TermVectors:
        return TermVectors(self.index)

    def _queries(self, batch: Run) -> list[dict[str, float]]:
        assert isinstance(self.index, SparseIndex)
        return self.index.query_terms(batch.queries)

    def _sparse(self, queries: list[dict[str, float]], pull: Pull) -> list[dict[str, float]]:
        """The queries' new terms; those that weigh nothing or less are left out."""
        out = []
        for start in range(0, len(queries), PART):
            part = pull.part(start, min(start + PART, len(queries)))
            rows, which = np.unique(part.picked.rows, return_inverse=True)
            documents = self._terms.of(rows)
            cuts = part.picked.cuts.tolist()
            for row in range(len(cuts) - 1):
                old = queries[start + row]
                if cuts[row] == cuts[row + 1]:
                    out.append(dict(sorted(old.items())))
                    continue
                pairs = [documents.row(d) for d in which[cuts[row] : cuts[row + 1]].tolist()]
                weights = part.weights[cuts[row] : cuts[row + 1]]
                terms = np.concatenate([own for own, _ in pairs])
                values = np.concatenate(
                    [w * own for w, (_, own) in zip(weights, pairs, strict=True)]
                )
                distinct, places = np.unique(terms, return_inverse=True)
                sums = np.bincount(places, weights=values, minlength=len(distinct))
                new = dict(zip(documents.names(distinct), sums.tolist(), strict=True))
                share = float(part.shares[row])
                for term, weight in old.items():
                    new[term] = new.get(term, 0.0) + share * weight
                best = sorted(new.items(), key=lambda pair: (-pair[1], pair[0]))[: self._kept]
                out.append({term: weight for term, weight in sorted(best) if weight > 0})
        return out

    def explain_parts(self, batch: Run, doc_id: str) -> Mapping[str, float]:
        """What the query and each of its hits add to a document's inner product with the query.

        The parts add up to its score under ``dot`` and ``cosine``; none under ``euclidean``. With
        learned weights: by how much each term's share of the query's weight changed.
        """
        if isinstance(self.index, SparseIndex):
            found = self._moved(batch)
            return {term: new - old for term, old, new in found.terms if new != old}
        assert isinstance(self.index, DenseIndex)
        row = self.index.ids.find(doc_id)
        if row < 0 or self.index.similarity == "euclidean":
            return {}
        queries, pull, vectors = self._looked_at(self.index, batch)
        segment, own = self.index.place(row)
        number = self.index.segments.index(segment)
        document = self.index.stored[number].take(np.array([own]))[0].astype(np.float64)
        total = pull.shares[0] * queries[0] + pull.weights @ vectors
        scale = 1.0
        if self.index.similarity == "cosine":
            scale = 1 / (float(np.linalg.norm(total)) or 1.0)
        parts = {"query": float(pull.shares[0] * (queries[0] @ document) * scale)}
        for hit, weight, vector in zip(_ids(batch, pull), pull.weights, vectors, strict=True):
            part = float(weight * (vector @ document) * scale)
            parts[hit] = parts.get(hit, 0.0) + part
        return parts

    def _looked_at(
        self, index: DenseIndex, batch: Run
    ) -> tuple[NDArray[np.float64], Pull, NDArray[np.float64]]:
        """The only query's vector, what moves it, and the vectors of that, float64."""
        pull = self._pull(batch)
        numbers, within = index.places
        vectors = np.empty((len(pull.picked.rows), index.dim), np.float64)
        for place, row in enumerate(pull.picked.rows.tolist()):
            vectors[place] = index.stored[numbers[row]].take(within[row : row + 1])[0]
        return searched_vectors(index, batch.queries).astype(np.float64), pull, vectors

    def _moved(self, batch: Run) -> Moved:
        query_id = batch.queries.ids[0]
        if isinstance(self.index, SparseIndex):
            (before,) = self._queries(batch)
            pull = self._pull(batch)
            (after,) = self._sparse([before], pull)
            documents = self._terms.of(pull.picked.rows)
            added: dict[str, float] = {}
            for place, doc_id in enumerate(_ids(batch, pull)):
                terms, values = documents.row(place)
                held = np.array([name in after for name in documents.names(terms)], bool)
                part = float(pull.weights[place] * values[held].sum(dtype=np.float64))
                added[doc_id] = added.get(doc_id, 0.0) + part
            return moved_terms(query_id, before, after, added)
        assert isinstance(self.index, DenseIndex)
        queries, pull, vectors = self._looked_at(self.index, batch)
        shift = pull.weights @ vectors
        squares = float(shift @ shift)
        shares: dict[str, float] = {}
        for doc_id, weight, vector in zip(_ids(batch, pull), pull.weights, vectors, strict=True):
            part = float(weight * (vector @ shift)) / squares if squares else 0.0
            shares[doc_id] = shares.get(doc_id, 0.0) + part
        after_vector = pull.shares[0] * queries[0] + shift
        lengths = float(np.linalg.norm(queries[0]) * np.linalg.norm(after_vector))
        cosine = float(queries[0] @ after_vector) / lengths if lengths else float(not squares)
        return Moved(query_id, tuple(shares.items()), (), cosine)


@dataclass(frozen=True)
class Average(VectorFeedback):
    """The mean of a query's vector and those of its first hits: ``(q + d1 + ... + dk) / (k + 1)``.

    Args:
        index: A `DenseIndex` or `SparseIndex` whose documents the hits are.
        quantised: Whether vectors that the index holds as bytes may be used.
        docs: Hits that are looked at, at least 1.

    Raises:
        DataError: A number is out of range, or the index holds bytes.
        FormError: The index is of another kind.
    """

    docs: int = 3

    def __post_init__(self) -> None:
        """Check index and number."""
        super().__post_init__()
        check_whole(docs=self.docs)

    def _pull(self, batch: Run) -> Pull:
        picked = first_hits(batch, self.index, self.docs)
        shares = 1 / (np.diff(picked.cuts) + 1.0)
        return Pull(picked, np.repeat(shares, np.diff(picked.cuts)), shares)


@dataclass(frozen=True)
class Rocchio(VectorFeedback):
    """``alpha * q + beta * mean of the first hits - gamma * mean of the last hits``, as vectors.

    Where there are few hits, one may be counted on both sides. With learned weights of terms, those
    that are not above 0 are left out.

    Args:
        index: A `DenseIndex` or `SparseIndex` whose documents the hits are.
        quantised: Whether vectors that the index holds as bytes may be used.
        docs: First hits that are looked at, at least 1.
        alpha: Weight of the query, at least 0.
        beta: Weight of the first hits, at least 0.
        gamma: Weight of the last hits, at least 0.
        negatives: Last hits that are looked at; with 0 there is no last term.
        terms: With learned weights, how many terms a query keeps, its heaviest; None for all.

    Raises:
        DataError: A number is out of range, or the index holds bytes.
        FormError: The index is of another kind.
    """

    docs: int = 5
    alpha: float = 0.4
    beta: float = 0.6
    gamma: float = 0.1
    negatives: int = 0
    terms: int | None = None

    def __post_init__(self) -> None:
        """Check index and numbers."""
        super().__post_init__()
        check_whole(docs=self.docs)
        if self.negatives != 0 or isinstance(self.negatives, bool):
            check_whole(negatives=self.negatives)
        if self.terms is not None:
            check_whole(terms=self.terms)
            if isinstance(self.index, DenseIndex):
                raise DataError("terms belongs to learned weights; dense vectors have none")
        check_weights(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    @property
    def _kept(self) -> int | None:
        return self.terms

    def _pull(self, batch: Run) -> Pull:
        first = first_hits(batch, self.index, self.docs)
        n_first = np.diff(first.cuts)
        shares = np.where(n_first > 0, self.alpha, 1.0)
        if not self.negatives:
            each = self.beta / np.maximum(n_first, 1)
            return Pull(first, np.repeat(each, n_first), shares)
        last = last_hits(batch, self.index, self.negatives)
        n_last = np.diff(last.cuts)
        cuts = first.cuts + last.cuts
        places = np.empty(int(cuts[-1]), np.int64)
        rows = np.empty(int(cuts[-1]), np.int64)
        weights = np.empty(int(cuts[-1]), np.float64)
        sides = (
            (first, n_first, cuts[:-1], self.beta),
            (last, n_last, cuts[:-1] + n_first, -self.gamma),
        )
        for picked, lengths, begins, weight in sides:
            own = np.arange(len(picked.rows)) + np.repeat(begins - picked.cuts[:-1], lengths)
            places[own], rows[own] = picked.places, picked.rows
            weights[own] = weight / np.repeat(lengths, lengths)
        return Pull(Picked(cuts, places, rows), weights, shares)


def _ids(batch: Run, pull: Pull) -> list[str]:
    return batch.docs.strings(batch.rows[pull.picked.places])


def _check_stored(index: DenseIndex) -> None:
    if index.storage == "int8":
        raise DataError(
            f"{index.path} holds its vectors as int8, rounded by {index.rounding_error:.2%} of "
            "their length, and feedback would add up what was lost; say quantised=True, or build "
            "it with storage='float16'"
        )
