"""`IndexCase`: what a suite must know of an index kind to try it, one registered beside each kind.

Whoever registers an index kind registers its case, and with it inherits every suite that runs over
`index_cases`: updates, faults, kills, mutations, power loss, readers::

    register("index", "mine", "package.mine:MyIndex")
    register("index-case", "mine", "package.cases:MY_CASE")

A kind with several engines registers a case for each; all name the one kind.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from retrievekit import registry
from retrievekit.corpus import Corpus, Document
from retrievekit.index.base import Index
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.queries import Queries
from retrievekit.testing.laws import broken
from retrievekit.testing.stages import check_run
from retrievekit.testing.toys import ToyEncoder


class BuildsIndex(Protocol):
    """Builds an index of one kind with all but its documents settled."""

    def __call__(
        self,
        source: Corpus | Iterable[Document],
        path: Path | None = None,
        *,
        overwrite: bool = False,
    ) -> Index:
        """Build an index.

        Args:
            source: The documents.
            path: The index folder; without it the index lives as long as the object.
            overwrite: Whether an index that is there may be replaced.

        Returns:
            The index, opened.
        """


@dataclass(frozen=True)
class IndexCase:
    """An index kind, ready to be tried on documents and queries of plain English text.

    Args:
        kind: The index kind, as registered under "index".
        build: Builds an index.
        open: Opens one, given its folder, without loading a model.
        exact: Whether any history of updates must answer as one fresh index does, bit for bit.
            Kinds that train on what they are given say False.
        needs: A module without which the case cannot run, such as ``faiss``; empty for none.
    """

    kind: str
    build: BuildsIndex
    open: Callable[[Path], Index]
    exact: bool = True
    needs: str = ""

    @property
    def missing(self) -> str:
        """The module that it needs and that is not installed; empty when it can run."""
        found = not self.needs or importlib.util.find_spec(self.needs) is not None
        return "" if found else self.needs


def index_cases() -> dict[str, IndexCase]:
    """All registered cases by name, sorted.

    Returns:
        At least one case for each index kind that the package registers.
    """
    return {name: index_case(name) for name in registry.names("index-case")}


def index_case(name: str) -> IndexCase:
    """A registered case.

    Args:
        name: Its name.

    Returns:
        The case.

    Raises:
        TypeError: What is registered there is no `IndexCase`.
    """
    case = registry.resolve("index-case", name)
    if not isinstance(case, IndexCase):
        raise TypeError(f"the index case {name!r} is {case!r}, no IndexCase")
    return case


WORDS = (
    "cat",
    "dog",
    "bird",
    "fish",
    "horn",
    "glass",
    "snow",
    "wood",
    "stone",
    "cats",
    "singing",
    "the",
    "river",
)
"""What the documents of `histories.document` are made of."""

PROBES = Queries.from_texts(["cat", "dog bird", "snow wood glass", "cat cat fish", "", "the river"])
"""Queries that fit them, one of them empty."""

_TOY = ToyEncoder(dim=16)


def _build_dense(
    source: Corpus | Iterable[Document], path: Path | None = None, *, overwrite: bool = False
) -> Index:
    return DenseIndex.build(source, _TOY, path, overwrite=overwrite)


def _build_through(engine: str) -> BuildsIndex:
    def build(
        source: Corpus | Iterable[Document], path: Path | None = None, *, overwrite: bool = False
    ) -> Index:
        return DenseIndex.build(source, _TOY, path, engine=engine, overwrite=overwrite)

    return build


class _Early(DenseIndex):
    """Calibrates on as few vectors as suites have."""

    calibrated_from = 4


def _build_int8(
    source: Corpus | Iterable[Document], path: Path | None = None, *, overwrite: bool = False
) -> Index:
    return _Early.build(source, _TOY, path, storage="int8", overwrite=overwrite)


BM25 = IndexCase("bm25", BM25Index.build, BM25Index.open)
DENSE = IndexCase("dense", _build_dense, lambda path: DenseIndex.open(path, _TOY))
BINARY, INT8 = (
    IndexCase("dense", _build_through(engine), DENSE.open, exact=False)
    for engine in ("binary", "int8")
)
# What comes first decides the steps of all that follows.
STORED_INT8 = IndexCase("dense", _build_int8, lambda path: _Early.open(path, _TOY), exact=False)
HNSW, IVF_PQ = (
    IndexCase("dense", _build_through(engine), DENSE.open, exact=False, needs="faiss")
    for engine in ("HNSW8", "IVF2,PQ8x4fs")
)


def check_index(
    case: IndexCase, index: Index, documents: Iterable[Document], queries: Queries | None = None
) -> None:
    """Hold an index to the documents that it should have: no history of updates may be seen in it.

    Its ids, words and metadata are those of the documents; an exact kind answers, explains and
    identifies itself as a fresh index over them does; hits of any kind are live and in order.

    Args:
        case: The index's case.
        index: The index.
        documents: What it should hold, in any order.
        queries: Queries of texts to ask; by default some that fit `histories.document`.

    Raises:
        AssertionError: A law is broken; the message names it.
    """
    expected = {document.doc_id: document for document in documents}
    if len(index) != len(expected) or set(index.ids) != set(expected):
        lost, more = set(expected) - set(index.ids), set(index.ids) - set(expected)
        broken("documents", index, f"{len(lost)} lost {_few(lost)}, {len(more)} more {_few(more)}")
    if index.corpus is None:
        broken("words", index, "it has none")
    for document in index.corpus:
        if document != expected[document.doc_id]:
            broken("words", index, f"{document} instead of {expected[document.doc_id]}")
    asked = PROBES if queries is None else queries
    fresh = case.build(expected.values()) if case.exact else index
    if index.fingerprint != fresh.fingerprint:
        broken("fingerprint", index, "it is not that of a fresh index over the same documents")
    for k in (1, 3, len(expected) + 1):
        mine, theirs = (i.searcher(k=k, threads=1)(asked) for i in (index, fresh))
        check_run(mine)
        for place, query_id in enumerate(asked.ids):
            one = [(hit.doc_id, hit.score) for hit in mine.hits(place)]
            other = [(hit.doc_id, hit.score) for hit in theirs.hits(place)]
            if one != other:
                differing = next((p for p in zip(one, other, strict=False) if p[0] != p[1]), None)
                broken(
                    "answers of a fresh index",
                    index,
                    f"query {query_id!r}, k={k}: {differing or (len(one), len(other))}",
                )
    best = fresh.searcher(k=2, threads=1)(asked)
    for place in range(min(3, len(asked))):
        for hit in best.hits(place):
            one_query = asked.take(np.array([place]))
            parts = [i.explain(one_query, hit.doc_id) for i in (index, fresh)]
            if parts[0] != parts[1]:
                broken("explanations of a fresh index", index, f"{parts[0]} against {parts[1]}")


def _few(ids: set[str]) -> list[str]:
    return sorted(ids)[:3]
