"""Stages over a `LuceneIndex`: search, and Anserini's own RM3 and Rocchio feedback.

The feedback stages call Anserini's classes, so that other implementations can be compared with
them. They give the expanded query as weighted terms; searching with it is the next stage's work.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, FormError, UnknownNameError
from retrievekit.index.lucene_jvm import java_errors
from retrievekit.index.results import check_k
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage
from retrievekit.vectors import WeightedTerms

if TYPE_CHECKING:
    from retrievekit.index.lucene import LuceneIndex


@dataclass(frozen=True)
class LuceneSearcher(Stage[Queries, Run]):
    """Searches a `LuceneIndex`.

    Args:
        index: The index.
        k: Hits per query, at least 1.

    Raises:
        DataError: k is no whole number of at least 1.
    """

    index: LuceneIndex
    k: int = 1000

    takes = Queries
    gives = Run

    def __post_init__(self) -> None:
        """Check k."""
        check_k(self.k)

    def apply(self, batch: Queries) -> Run:
        """Search for each query."""
        return self.index.search(batch, self.k)

    def explain_parts(self, batch: Queries, doc_id: str) -> Mapping[str, float]:
        """What each term adds to the document's score."""
        return self.index.explain(batch, doc_id)

    def __repr__(self) -> str:
        """Kind, scoring and k."""
        return f"lucene({self.index.scoring}, k={self.k})"

    @property
    def name(self) -> str:
        """Kind, scoring and k."""
        return repr(self)


@dataclass(frozen=True)
class _Feedback(Stage[Run, Queries]):
    """Expands each query by terms of its hits, by one of Anserini's rerankers."""

    index: LuceneIndex

    takes = Run
    gives = Queries

    def __post_init__(self) -> None:
        """Check that the index has what feedback needs."""
        if getattr(self.index, "kind", None) != "lucene":
            raise DataError(f"{type(self).__name__} asks a LuceneIndex; this is {self.index!r}")
        if self.index.scoring != "bm25":
            raise FormError(f"{type(self).__name__} is feedback on words; {self.index} has none")
        if not self.index.card.get("feedback", True):
            raise DataError(
                f"{self.index.path}: was built with feedback=False, so it does not know the terms "
                "of its documents; build it again with feedback=True"
            )

    @abstractmethod
    def _reranker(self) -> Any:
        """Anserini's reranker."""

    @abstractmethod
    def _wanted(self, hits: int) -> NDArray[np.int64]:
        """Places of the hits that are looked at, of so many, int64 ``(m,)``."""

    def apply(self, batch: Run) -> Queries:
        """Expand each query.

        Raises:
            FormError: The queries of the run have no words.
            UnknownNameError: A hit is not in the index.
        """
        texts = batch.queries.rewritten_texts
        with java_errors(f"feedback from {self.index.path}"):
            reranker = self._reranker()
            rows = [self._expanded(reranker, batch, row, text) for row, text in enumerate(texts)]
        return batch.queries.rewritten(WeightedTerms.from_dicts(rows))

    def _expanded(self, reranker: Any, run: Run, row: int, text: str) -> dict[str, float]:
        index, reader = self.index, self.index.reader
        java = reader.java
        first, last = int(run.offsets[row]), int(run.offsets[row + 1])
        places = first + self._wanted(last - first)
        hits = []
        for doc_id, score in zip(
            run.docs.strings(run.rows[places]), run.scores[places].tolist(), strict=True
        ):
            number = reader.row_of(doc_id)
            if number < 0:
                raise UnknownNameError(
                    f"query {run.queries.ids[row]!r}: its hit {doc_id!r} is not in {index.path}, "
                    "which feedback comes from"
                )
            hits.append(java("org.apache.lucene.search.ScoreDoc")(number, score))
        relation = java("org.apache.lucene.search.TotalHits$Relation").EQUAL_TO
        total = java("org.apache.lucene.search.TotalHits")(len(hits), relation)
        top = java("org.apache.lucene.search.TopDocs")(total, hits)
        arguments = java("io.anserini.search.SearchCollection$Args")()
        # The reranker searches with what it made; nobody looks at that.
        arguments.hits = 1
        words = java.string(text)
        tokens = java("io.anserini.analysis.AnalyzerUtils").analyze(reader.analyzer, words)
        context = java("io.anserini.rerank.RerankerContext")(
            reader.lucene, None, None, None, words, tokens, None, arguments
        )
        reranker.rerank(
            java("io.anserini.search.ScoredDocs").fromTopDocs(top, reader.lucene), context
        )
        return dict(sorted(java.to_python(context.feedbackTerms).items()))


@dataclass(frozen=True)
class LuceneRM3(_Feedback):
    """Anserini's RM3: the query's terms mixed with the best terms of its first hits.

    Abdul-Jaleel et al., "UMass at TREC 2004: Novelty and HARD" (2004), as Anserini's
    ``Rm3Reranker`` computes it.

    Args:
        index: The index that the hits' terms come from.
        fb_terms: Terms of the feedback model, at least 1.
        fb_docs: Hits that are looked at, at least 1.
        original_query_weight: Share of the original query, 0 to 1.
        filter_terms: Whether only terms of a to z and 0 to 9 are taken from documents.

    Raises:
        DataError: A number is out of range, or the index has no terms of documents.
        FormError: The index is one of impacts.
    """

    fb_terms: int = 10
    fb_docs: int = 10
    original_query_weight: float = 0.5
    filter_terms: bool = True

    def __post_init__(self) -> None:
        """Check the index and the numbers."""
        super().__post_init__()
        _check_counts(fb_terms=self.fb_terms, fb_docs=self.fb_docs)
        if not 0 <= self.original_query_weight <= 1:
            raise DataError(
                f"original_query_weight is {self.original_query_weight}; it lies between 0 and 1"
            )

    def _reranker(self) -> Any:
        return self.index.reader.java("io.anserini.rerank.lib.Rm3Reranker")(
            self.index.reader.analyzer,
            None,
            "contents",
            self.fb_terms,
            self.fb_docs,
            float(self.original_query_weight),
            False,
            self.filter_terms,
        )

    def _wanted(self, hits: int) -> NDArray[np.int64]:
        return np.arange(min(hits, self.fb_docs))


@dataclass(frozen=True)
class LuceneRocchio(_Feedback):
    """Anserini's Rocchio: alpha * query + beta * mean of first hits - gamma * mean of last hits.

    All vectors are of length 1 and hold term frequencies; terms whose weight is not above 0 are
    left out. Rocchio, "Relevance Feedback in Information Retrieval" (1971), as Anserini's
    ``RocchioReranker`` computes it.

    Args:
        index: The index that the hits' terms come from.
        fb_terms: Terms of the first hits' mean that are kept, at least 1.
        fb_docs: First hits that are looked at, at least 1.
        alpha: Weight of the query, at least 0.
        beta: Weight of the first hits, at least 0.
        gamma: Weight of the last hits, at least 0; Anserini's is 0.15 where it is used at all.
        bottom_fb_terms: Terms of the last hits' mean that are kept, at least 1.
        bottom_fb_docs: Last hits that are looked at, at least 1.

    Raises:
        DataError: A number is out of range, or the index has no terms of documents.
        FormError: The index is one of impacts.
    """

    fb_terms: int = 10
    fb_docs: int = 10
    alpha: float = 1.0
    beta: float = 0.75
    gamma: float = 0.0
    bottom_fb_terms: int = 10
    bottom_fb_docs: int = 10

    def __post_init__(self) -> None:
        """Check the index and the numbers."""
        super().__post_init__()
        _check_counts(
            fb_terms=self.fb_terms,
            fb_docs=self.fb_docs,
            bottom_fb_terms=self.bottom_fb_terms,
            bottom_fb_docs=self.bottom_fb_docs,
        )
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise DataError(f"{name} is {value}; it must be a finite number of at least 0")

    def _reranker(self) -> Any:
        return self.index.reader.java("io.anserini.rerank.lib.RocchioReranker")(
            self.index.reader.analyzer,
            None,
            "contents",
            self.fb_terms,
            self.fb_docs,
            self.bottom_fb_terms,
            self.bottom_fb_docs,
            float(self.alpha),
            float(self.beta),
            float(self.gamma),
            False,
            self.gamma > 0,
        )

    def _wanted(self, hits: int) -> NDArray[np.int64]:
        below = max(self.fb_docs, hits - self.bottom_fb_docs) if self.gamma > 0 else hits
        places = np.arange(hits)
        return places[(places < self.fb_docs) | (places >= below)]


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"{name} is {value!r}; give a whole number of at least 1")
