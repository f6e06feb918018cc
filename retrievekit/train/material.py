"""What a recipe needs of its data set: mined queries to learn from, and a task to choose by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from retrievekit.corpus import Corpus
from retrievekit.data.dataset import Dataset, drop_own, load_dataset
from retrievekit.errors import DataError
from retrievekit.evaluate.compute import evaluate
from retrievekit.index.bm25 import BM25Index
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage
from retrievekit.train.mining import Band, Mined, mine_negatives, read_mined
from retrievekit.train.recipes import RerankerRecipe

log = logging.getLogger(__name__)

First: TypeAlias = Callable[[Corpus], Stage[Queries, Run]]
"""Makes the first stage of documents."""

MEASURE = "nDCG@10"
"""What the best weights are chosen by."""


@dataclass(frozen=True)
class Task:
    """Queries whose hits are reranked to choose the best weights.

    Args:
        run: The first stage's hits.
        qrels: Judgements of these queries.
    """

    run: Run
    qrels: Qrels

    def figure(self, run: Run | None = None) -> float:
        """The mean nDCG@10.

        Args:
            run: Hits for these queries; by default the first stage's own.

        Returns:
            The figure, from 0 to 1.
        """
        found: float = evaluate(run or self.run, self.qrels, MEASURE).mean[MEASURE]
        return found


@dataclass(frozen=True)
class Material:
    """All that a training reads.

    Args:
        corpus: The documents.
        mined: Queries to learn from.
        task: What to choose by.
        facts: What a model card tells of them, plain JSON.
    """

    corpus: Corpus
    mined: list[Mined]
    task: Task
    facts: Mapping[str, Any]


def bm25_only(recipe: RerankerRecipe) -> First:
    """The first stage where nobody resolves expressions.

    Args:
        recipe: The recipe.

    Returns:
        What makes BM25.

    Raises:
        DataError: The recipe names another first stage.
    """
    if recipe.first != "bm25":
        raise DataError(
            f"the first stage {recipe.first!r} is an expression: train by the command line, or "
            "give what makes it (first=lambda corpus: ...)"
        )
    # One hit more, for a query's own document.
    return lambda corpus: BM25Index.build(corpus).searcher(k=recipe.depth + 1)


def gather(recipe: RerankerRecipe, first: First | None = None) -> Material:
    """Load the data set, ask the first stage, and mine.

    Args:
        recipe: The recipe.
        first: Makes the first stage of the corpus; by default BM25.

    Returns:
        The material.

    Raises:
        DataError: No query can be learnt from, `dev` judges nothing, or the first stage or examples
            name what is not in the corpus.
    """
    stage_of = first or bm25_only(recipe)
    dev = load_dataset(recipe.data, recipe.dev)
    stage = stage_of(dev.corpus)
    task = _task(recipe, dev, stage)
    train = load_dataset(recipe.data, recipe.train)
    if recipe.examples is None:
        mined = mined_by(recipe, train, stage)
    else:
        mined = read_mined(recipe.examples)
        _check_ids(mined, dev.corpus, recipe.examples)
    shared = {one.query_id for one in mined} & set(task.qrels.queries)
    if shared:
        raise DataError(
            f"{len(shared)} queries of {recipe.dev!r} are learnt from, such as {min(shared)!r}; "
            "weights chosen by them would be those that know them by heart"
        )
    facts = {
        "data": recipe.data,
        "documents": len(dev.corpus),
        "corpus_hash": dev.corpus.content_hash,
        "train": {
            "split": recipe.train,
            "queries": len(mined),
            "judgements": train.qrels.n_judgements,
            "qrels_hash": train.qrels.content_hash,
            "positives": sum(len(one.positives) for one in mined),
            "negatives": sum(len(one.negatives) for one in mined),
        },
        "dev": {
            "split": recipe.dev,
            "queries": len(task.qrels),
            "judgements": task.qrels.n_judgements,
            "qrels_hash": task.qrels.content_hash,
            f"first_stage_{MEASURE}": task.figure(),
        },
    }
    return Material(dev.corpus, mined, task, facts)


def mined_by(recipe: RerankerRecipe, train: Dataset, stage: Stage[Queries, Run]) -> list[Mined]:
    """What a recipe's first stage gives to learn from.

    Args:
        recipe: The recipe.
        train: The data set, its split the one that is learnt.
        stage: The first stage.

    Returns:
        The queries with all their negatives.

    Raises:
        DataError: No query has both a relevant document and a negative, or a hit is no document.
    """
    run = drop_own(stage(train.queries), train.properties.own_document).top(recipe.depth)
    _check_hits(run, train.corpus, recipe.first)
    mined = mine_negatives(run, train.qrels, bands=[Band(*recipe.ranks)], seed=recipe.seed)
    there = train.corpus.ids
    found = []
    for one in mined:
        positives = tuple(
            p
            for p in one.positives
            if p.doc_id in there and (recipe.positives_from == "judged" or p.rank is not None)
        )
        if positives:
            found.append(replace(one, positives=positives))
    if not found:
        raise DataError(
            f"no query of {recipe.train!r} has both a relevant document and a negative among the "
            f"first {recipe.depth} hits of {recipe.first!r}; look deeper"
        )
    return found


def _task(recipe: RerankerRecipe, dev: Dataset, stage: Stage[Queries, Run]) -> Task:
    qrels = dev.qrels
    grades = qrels.to_dict()
    rows = [
        row
        for row, query in enumerate(qrels.queries)
        if query in dev.queries.ids and any(grade > 0 for grade in grades[query].values())
    ]
    if not rows:
        raise DataError(f"no query of {recipe.dev!r} has a relevant document; nothing to choose by")
    if recipe.dev_queries is not None and recipe.dev_queries < len(rows):
        draw = np.random.default_rng([recipe.seed, 1])
        rows = sorted(draw.choice(rows, recipe.dev_queries, replace=False).tolist())
    qrels = qrels.take(np.array(rows, np.int64))
    queries = dev.queries.select(list(qrels.queries))
    run = drop_own(stage(queries), dev.properties.own_document).top(recipe.dev_depth)
    _check_hits(run, dev.corpus, recipe.first)
    return Task(run, qrels)


def _check_hits(run: Run, corpus: Corpus, first: str) -> None:
    """Refuse hits without words, which are those of passages."""
    unknown = np.flatnonzero(run.docs.translate(corpus.ids)[run.rows] < 0)
    if len(unknown):
        raise DataError(
            f"the first stage {first!r} finds {run.docs[int(run.rows[unknown[0]])]!r}, which is "
            "not a document of the corpus; let passages be joined: aggregate='max'"
        )


def _check_ids(mined: list[Mined], corpus: Corpus, path: str) -> None:
    for one in mined:
        named = [p.doc_id for p in one.positives] + [n.doc_id for n in one.negatives]
        for doc_id in named:
            if doc_id not in corpus.ids:
                raise DataError(
                    f"{path}: query {one.query_id!r} names the document {doc_id!r}, which is "
                    "not in the corpus"
                )
