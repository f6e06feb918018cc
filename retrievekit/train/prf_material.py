"""What the training of a feedback encoder reads: hits, passages' fixed vectors, what is relevant.

Everything comes from a dense index: its searcher gives the feedback and the hard negatives, and its
stored vectors are those that queries are trained towards; no passage is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.data.dataset import Dataset, drop_own, load_dataset
from retrievekit.data.registry import OwnDocument
from retrievekit.errors import DataError, FormError
from retrievekit.evaluate.compute import evaluate
from retrievekit.index.dense import DenseIndex
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.train.mining import Band, Mined, mine_negatives
from retrievekit.train.prf_recipes import FeedbackRecipe
from retrievekit.vectors import DenseVectors

MEASURE = "nDCG@10"
"""What the best weights are chosen by."""

_LOOKED_AT = 10


@dataclass(frozen=True)
class Learnt:
    """A query to learn from.

    Args:
        mined: The query with its relevant documents and its hard negatives.
        feedback: Rows of its first hits in the index, the best first.
        relevant: Rows of its relevant documents.
    """

    mined: Mined
    feedback: tuple[int, ...]
    relevant: tuple[int, ...]


@dataclass(frozen=True)
class DevTask:
    """Queries by which weights are chosen.

    Args:
        index: What is searched.
        queries: The queries.
        first: The retriever's own hits for them.
        qrels: Judgements.
        own: Which document is a query's own.
    """

    index: DenseIndex
    queries: Queries
    first: Run
    qrels: Qrels
    own: OwnDocument

    def figure(self, vectors: NDArray[np.float32] | None = None) -> float:
        """The mean nDCG@10 of a search.

        Args:
            vectors: What is searched with, float32 ``(nq, dim)``; by default the retriever's own.

        Returns:
            The figure, from 0 to 1.
        """
        run = self.first
        if vectors is not None:
            form = DenseVectors(vectors, self.index.card.fingerprint)
            run = self.index.search(self.queries.rewritten(form), _LOOKED_AT + 1)
            run = drop_own(run, self.own)
        found: float = evaluate(run.top(_LOOKED_AT), self.qrels, MEASURE).mean[MEASURE]
        return found


@dataclass(frozen=True)
class FeedbackMaterial:
    """All that the training of a feedback encoder reads.

    Args:
        index: The index.
        learnt: Queries to learn from.
        task: What to choose by.
        facts: What a model card tells of them, plain JSON.
    """

    index: DenseIndex
    learnt: list[Learnt]
    task: DevTask
    facts: Mapping[str, Any]


def gather_feedback(recipe: FeedbackRecipe, index: DenseIndex) -> FeedbackMaterial:
    """Load the data set, search the index, and mine.

    Args:
        recipe: The recipe.
        index: The index of the data set's documents, with their words.

    Returns:
        The material.

    Raises:
        FormError: The index is no dense one.
        DataError: It holds no words or other documents, compares by distance, or no query can be
            learnt from.
    """
    if not isinstance(index, DenseIndex):
        raise FormError(f"a feedback encoder is trained by the vectors of a DenseIndex: {index!r}")
    if index.corpus is None:
        raise DataError(f"{index.path} holds no words, which are read; build it with store_text")
    if index.similarity == "euclidean":
        raise DataError(f"{index.path} compares by distance; the losses are of inner products")
    dev, train = load_dataset(recipe.data, recipe.dev), load_dataset(recipe.data, recipe.train)
    task = _task(recipe, dev, index)
    learnt = _learnt(recipe, train, index)
    shared = {one.mined.query_id for one in learnt} & set(task.qrels.queries)
    if shared:
        raise DataError(
            f"{len(shared)} queries of {recipe.dev!r} are learnt from, such as {min(shared)!r}; "
            "weights chosen by them would be those that know them by heart"
        )
    facts = {
        "data": recipe.data,
        "documents": len(index),
        "corpus_hash": dev.corpus.content_hash,
        "passages": index.card.to_dict(),
        "passages_fingerprint": index.card.fingerprint,
        "train": {
            "split": recipe.train,
            "queries": len(learnt),
            "judgements": train.qrels.n_judgements,
            "qrels_hash": train.qrels.content_hash,
            "positives": sum(len(one.relevant) for one in learnt),
            "negatives": sum(len(one.mined.negatives) for one in learnt),
        },
        "dev": {
            "split": recipe.dev,
            "queries": len(task.queries),
            "judgements": task.qrels.n_judgements,
            "qrels_hash": task.qrels.content_hash,
            f"retriever_{MEASURE}": task.figure(),
        },
    }
    return FeedbackMaterial(index, learnt, task, facts)


def _learnt(recipe: FeedbackRecipe, train: Dataset, index: DenseIndex) -> list[Learnt]:
    own = train.properties.own_document
    # One hit more, for a query's own document.
    run = drop_own(index.search(train.queries, recipe.depth + 1), own).top(recipe.depth)
    # What is judged relevant is no negative; a passage that feedback reads may be either.
    mined = mine_negatives(run, train.qrels, bands=[Band(*recipe.band)], seed=recipe.seed)
    found = []
    for one in mined:
        there = tuple(p for p in one.positives if p.doc_id in index.ids)
        if not there:
            continue
        hits = run[one.query_id].doc_ids[: max(recipe.docs, recipe.pool)]
        found.append(
            Learnt(
                replace(one, positives=there),
                tuple(index.ids.row(doc) for doc in hits),
                tuple(index.ids.row(p.doc_id) for p in there),
            )
        )
    if not found:
        raise DataError(
            f"no query of {recipe.train!r} has both a relevant document and a negative among the "
            f"first {recipe.depth} hits; look deeper"
        )
    return found


def _task(recipe: FeedbackRecipe, dev: Dataset, index: DenseIndex) -> DevTask:
    grades = dev.qrels.to_dict()
    rows = [
        row
        for row, query in enumerate(dev.qrels.queries)
        if query in dev.queries.ids and any(grade > 0 for grade in grades[query].values())
    ]
    if not rows:
        raise DataError(f"no query of {recipe.dev!r} has a relevant document; nothing to choose by")
    if recipe.dev_queries is not None and recipe.dev_queries < len(rows):
        draw = np.random.default_rng([recipe.seed, 1])
        rows = sorted(draw.choice(rows, recipe.dev_queries, replace=False).tolist())
    qrels = dev.qrels.take(np.array(rows, np.int64))
    queries = dev.queries.select(list(qrels.queries))
    own = dev.properties.own_document
    k = max(recipe.docs, _LOOKED_AT)
    first = drop_own(index.search(queries, k + 1), own).top(k)
    return DevTask(index, queries, first, qrels, own)
