"""GRF: a query's terms mixed with those of several kinds of text that a model writes for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from retrievekit.errors import DataError, UnknownNameError
from retrievekit.language.chat import Chat
from retrievekit.queries import Form, Queries
from retrievekit.rewrite.base import GenerativeRewriter, check_whole
from retrievekit.rewrite.prompts import KINDS, QUERY, asked
from retrievekit.vectors import WeightedTerms


@runtime_checkable
class HasTerms(Protocol):
    """An index that turns words into its weighted terms, as those of BM25 and learned weights."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over its content."""
        ...

    def query_terms(self, queries: Queries) -> list[dict[str, float]]:
        """The weighted terms of each query.

        Args:
            queries: The queries.

        Returns:
            One mapping of term to weight per query.
        """
        ...


@dataclass(frozen=True, repr=False)
class GRF(GenerativeRewriter):
    """Generative relevance feedback: RM3 over texts that a model writes, in place of hits.

    ``w(t) = query_weight * p(t|q) + (1 - query_weight) * p(t|g)``. p(t|q) is a term's share of the
    query; p(t|g) its share of all texts together, as if they were one, of whose terms the `terms`
    heaviest are kept (of equal ones the first by their characters) and brought to a sum of 1.
    Mackie, Chatterjee and Dalton, "Generative Relevance Feedback with Large Language Models"
    (SIGIR 2023).

    A kind of text that the model gave nothing for is left out.

    Args:
        model: Writes.
        max_new_tokens: Tokens of a text at most.
        switch: Which queries are rewritten; None rewrites all.
        cache: A file that keeps what was written, by model, prompt and settings.
        index: The index of terms that is searched, given second; it makes terms of words.
        kinds: What is written, by the names of `prompts.KINDS`; by default all ten.
        terms: Terms of the texts that are kept, at least 1.
        query_weight: Share of the query, 0 to 1.

    Raises:
        DataError: A setting is none of these.
        UnknownNameError: There is no such kind.
    """

    index: HasTerms = field(repr=False)
    kinds: tuple[str, ...] = field(default=tuple(KINDS), kw_only=True)
    terms: int = field(default=50, kw_only=True)
    query_weight: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        super().__post_init__()
        check_whole("terms", self.terms)
        if not isinstance(self.index, HasTerms):
            raise DataError(
                f"GRF weighs terms: give it an index of terms, not {self.index!r}; for a dense one "
                "there is HyDE"
            )
        weight = self.query_weight
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
            raise DataError(f"query_weight is {weight!r}; it lies between 0 and 1")
        kinds = (self.kinds,) if isinstance(self.kinds, str) else tuple(self.kinds)
        for kind in kinds:
            if kind not in KINDS:
                raise UnknownNameError.among("kind of text", str(kind), KINDS)
        if not kinds or len(set(kinds)) < len(kinds):
            raise DataError(f"kinds are one or more, none twice; got {kinds}")
        object.__setattr__(self, "kinds", kinds)

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "grf"

    def chats(self, text: str) -> list[Chat]:
        """A prompt for each kind of text."""
        return [asked(KINDS[kind], QUERY, text) for kind in self.kinds]

    def form(self, batch: Queries, written: Sequence[tuple[str, ...]]) -> Form:
        """The mixed terms of each query; those of one that is left are not scaled."""
        before = self.index.query_terms(batch)
        texts = [text for own in written for text in own]
        each = iter(self.index.query_terms(Queries.from_texts(texts)) if texts else [])
        rows = []
        for old, own in zip(before, written, strict=True):
            added = [next(each) for _ in own]
            rows.append(mixed(old, added, self.query_weight, self.terms) if added else old)
        return WeightedTerms.from_dicts([dict(sorted(row.items())) for row in rows])

    def explain_parts(self, batch: Queries, doc_id: str) -> Mapping[str, float]:
        """By how much each term's share of the query's weight changed, most changed ones first."""
        (before,) = self.index.query_terms(batch)
        (texts,) = self.written(batch.rewritten_texts)
        form = self.form(batch, [texts])
        assert isinstance(form, WeightedTerms)
        old, new = shares(before), shares(form.row(0))
        change = {term: new.get(term, 0.0) - old.get(term, 0.0) for term in sorted({*old, *new})}
        moved = sorted(change.items(), key=lambda item: -abs(item[1]))
        return {term: by for term, by in moved if by}


def mixed(
    query: Mapping[str, float],
    texts: Sequence[Mapping[str, float]],
    query_weight: float,
    terms: int,
) -> dict[str, float]:
    """The mixture of a query's terms and those of texts; see `GRF`.

    Args:
        query: The query's terms with their weights.
        texts: Those of each text.
        query_weight: Share of the query, 0 to 1.
        terms: Terms of the texts that are kept.

    Returns:
        Weights by term, of sum 1 where neither side is without terms.
    """
    sums: dict[str, float] = {}
    for text in texts:
        for term, weight in text.items():
            sums[term] = sums.get(term, 0.0) + weight
    best = sorted(sums.items(), key=lambda item: (-item[1], item[0].encode("utf-8")))[:terms]
    out: dict[str, float] = {}
    for share, part in ((query_weight, shares(query)), (1 - query_weight, shares(dict(best)))):
        for term, weight in part.items():
            out[term] = out.get(term, 0.0) + share * weight
    return out


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights brought to a sum of 1.

    Args:
        weights: Weights by term.

    Returns:
        The same terms; as they are where all weigh nothing.
    """
    total = math.fsum(abs(weight) for weight in weights.values())
    return {term: weight / total for term, weight in weights.items()} if total else dict(weights)
