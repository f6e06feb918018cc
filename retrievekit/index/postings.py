"""What indexes of terms share: postings in segments, searched exactly and term at a time.

A posting stands for an integer; a kind says what that integer adds to a score (`impacts`) and what
a query's term weighs (`term_weight`). The score of a document is the sum over the query's terms of
``term_weight * impact`` in float32, added up in ascending order of the terms' bytes, so that it
does not depend on how the index came to be.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.candidates import CandidatesLike
from retrievekit.errors import NonFiniteError
from retrievekit.index.base import Index
from retrievekit.index.chosen import Allowed
from retrievekit.index.derived import Derivation, of_postings
from retrievekit.index.inverted import BLOCK_POSTINGS, Dictionary, PostingsBuilder
from retrievekit.index.results import MAX_SCORE, check_k, in_parts, run_of
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.store.segment import SegmentReader, SegmentWriter
from retrievekit.where import Condition


class PostingsIndex(Index):
    """A generation of an index of terms, opened and pinned."""

    block_postings = BLOCK_POSTINGS

    @property
    @abstractmethod
    def impacts(self) -> list[NDArray[np.float32]]:
        """By segment what a posting adds for a term of weight 1, float32 ``(codes,)`` by code."""

    @property
    @abstractmethod
    def largest_impact(self) -> float:
        """A bound on all impacts."""

    @abstractmethod
    def query_terms(self, queries: Queries) -> list[dict[str, float]]:
        """The weighted terms of each query.

        Args:
            queries: Queries in a form that the kind can use.

        Returns:
            One mapping of term to weight per query.

        Raises:
            FormError: The queries have another form.
        """

    @abstractmethod
    def term_weight(self, term: str, weight: float) -> float:
        """What a term of a query weighs in scores.

        Args:
            term: The term, which the index knows.
            weight: Its weight in the query; 0 must give 0.

        Returns:
            The factor of its impacts; 0 leaves the term out.
        """

    def derived(self, segment: SegmentReader) -> Iterable[Derivation]:
        """Postings by term and by document follow from each other."""
        yield from super().derived(segment)
        yield from of_postings(segment)

    def merge(self, segment: SegmentWriter) -> dict[str, Any]:
        """Write the postings of all live documents, from the forward index, as one segment."""
        scratch = Path(tempfile.mkdtemp(prefix="spill-", dir=segment.folder))
        postings = PostingsBuilder(segment, scratch, block_postings=self.block_postings)
        for old, dictionary in zip(self.segments, self.dictionaries, strict=True):
            postings.copy(old, dictionary)
        segment.put("values", postings.finish())
        shutil.rmtree(scratch)
        return dict(self.manifest.statistics)

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """The terms of each segment."""
        return [Dictionary(segment) for segment in self.segments]

    def df(self, term: str) -> int:
        """How many live documents hold a term.

        Args:
            term: The term as the index keeps it.

        Returns:
            Its document frequency.
        """
        from retrievekit.kernels.postings import count_dead

        known = self._frequencies.get(term)
        if known is not None:
            return known
        df = 0
        for segment, (start, stop) in zip(self.segments, self._bounds(term), strict=True):
            df += stop - start
            if len(segment.dead) and stop > start:
                rows = segment["postings.rows"].unchecked
                df -= int(count_dead(rows, np.array([start]), np.array([stop]), segment.dead)[0])
        if len(self._frequencies) < 1 << 16:
            self._frequencies[term] = df
        return df

    @cached_property
    def _frequencies(self) -> dict[str, int]:
        return {}

    def _bounds(self, term: str) -> list[tuple[int, int]]:
        """Where a term's postings lie in each segment, after verifying them."""
        known = self._places.get(term)
        if known is not None:
            return known
        found = []
        for segment, dictionary in zip(self.segments, self.dictionaries, strict=True):
            number = dictionary.find(term)
            start = stop = 0
            if number >= 0:
                start, stop = segment["postings.offsets"].slice(number, number + 2).tolist()
                segment["postings.rows"].ensure(start, stop)
                segment["postings.codes"].ensure(start, stop)
            found.append((start, stop))
        if len(self._places) < 1 << 16:
            self._places[term] = found
        return found

    @cached_property
    def _places(self) -> dict[str, list[tuple[int, int]]]:
        return {}

    def _slices(self, terms: dict[str, float]) -> _Slices:
        """Known terms in ascending order of their bytes, with their postings in each segment."""
        names, bounds, weights = [], [], []
        # This order, and not that of any one segment, is the order in which scores are added up.
        for term in sorted(terms, key=lambda term: term.encode("utf-8")):
            found = self._bounds(term)
            if all(start == stop for start, stop in found):
                continue
            weight = self.term_weight(term, terms[term])
            if weight != 0:
                names.append(term)
                bounds.append(found)
                weights.append(weight)
        return _Slices(names, bounds, weights)

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | Condition | None = None,
        candidates: CandidatesLike | None = None,
        threads: int | None = None,
    ) -> Run:
        """The k best documents of each query; documents without a query term are no hits.

        Args:
            queries: Queries in a form that `query_terms` takes.
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy; statistics stay those of all.
            candidates: For each query the only documents that it may have; statistics stay those
                of all.
            threads: Threads to use; all cores by default. The answer does not depend on it.

        Returns:
            The run.

        Raises:
            DataError: k is no whole number of at least 1.
            FormError: The queries have another form.
            NonFiniteError: A query's term weights are so large that scores may overflow.
        """
        from retrievekit.kernels.postings import search_among, search_postings
        from retrievekit.kernels.select import unpack_all

        check_k(k)
        found = [self._slices(terms) for terms in self.query_terms(queries)]
        for row, slices in enumerate(found):
            # This bounds every partial sum.
            if not sum(map(abs, slices.weights)) * self.largest_impact < MAX_SCORE:
                raise NonFiniteError(
                    f"query {queries.ids[row]!r}: its term weights are so large that scores may "
                    "not fit into float32; scale them down"
                )
        bounds = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(slices.weights) for slices in found], out=bounds[1:])
        weights = np.array([w for slices in found for w in slices.weights], np.float32)
        chosen = None if candidates is None else self.chosen(queries, candidates, where)
        hidden, most = self.hidden(where) if chosen is None else ([], chosen.most)
        k = min(k, max(most, 1))
        keys = np.empty((len(queries), k), np.uint64)
        counts = np.zeros(len(queries), np.int64)
        postings: list[Any] = []
        for number, segment in enumerate(self.segments):
            pairs = [slices.bounds[i][number] for slices in found for i in range(len(slices.names))]
            starts, stops = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
            rows, codes = segment["postings.rows"].unchecked, segment["postings.codes"].unchecked
            postings.append((rows, codes, self.impacts[number], starts, stops, self.ranks[number]))

        def part(first: int, last: int) -> None:
            for (rows, codes, impacts, starts, stops, ranks), dead in zip(
                postings, hidden, strict=True
            ):
                search_postings(
                    rows, codes, impacts, bounds[first : last + 1], starts, stops, weights,
                    ranks, dead, k, keys[first:last], counts[first:last],
                )  # fmt: skip

        def part_among(first: int, last: int, base: int, allowed: list[Allowed]) -> None:
            a, b = base + first, base + last
            for (rows, codes, impacts, starts, stops, ranks), own in zip(
                postings, allowed, strict=True
            ):
                search_among(
                    rows, codes, impacts, bounds[a : b + 1], starts, stops, weights, ranks,
                    own.starts[first:last], own.stops[first:last], own.rows,
                    k, keys[a:b], counts[a:b],
                )  # fmt: skip

        if chosen is None:
            in_parts(part, len(queries), threads)
        else:
            for some, allowed in chosen.parts(threads):
                work = partial(part_among, base=some.start, allowed=allowed)
                in_parts(work, some.stop - some.start, threads)
        out_rows = np.empty((len(queries), k), np.int32)
        out_scores = np.empty((len(queries), k), np.float32)
        unpack_all(keys, counts, self.ids.order, out_rows, out_scores)
        return run_of(queries, self.ids, out_rows, out_scores, counts)

    def explain(self, queries: Queries, doc_id: str) -> dict[str, float]:
        """What each term of the first query adds to a document's score.

        Args:
            queries: One query.
            doc_id: The document.

        Returns:
            float by term, adding up to the score; terms that the document lacks are left out.
        """
        segment, row = self.place(self.ids.row(doc_id))
        number = self.segments.index(segment)
        slices = self._slices(self.query_terms(queries)[0])
        parts: dict[str, float] = {}
        for name, bounds, weight in zip(slices.names, slices.bounds, slices.weights, strict=True):
            start, stop = bounds[number]
            rows = segment["postings.rows"].slice(start, stop)
            place = int(np.searchsorted(rows, row))
            if place < len(rows) and rows[place] == row:
                code = segment["postings.codes"].slice(start, stop)[place]
                parts[name] = float(np.float32(weight) * self.impacts[number][code])
        return parts


@dataclass(frozen=True)
class _Slices:
    """The terms of one query: for each its postings' bounds in each segment, and its weight."""

    names: list[str]
    bounds: list[list[tuple[int, int]]]
    weights: list[float]
