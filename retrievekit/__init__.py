"""Dense and sparse retrieval and fusion, composed into pipelines and measured.

>>> import retrievekit as rk
>>> corpus = rk.Corpus.from_texts({"d1": "cats purr", "d2": "dogs bark"})
>>> bm25 = rk.BM25Index.build(corpus).searcher(k=10)
>>> bm25.search("which animal purrs?").doc_ids
['d1']

Names are imported on first use, so that ``import retrievekit`` stays quick.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from retrievekit._version import __version__

if TYPE_CHECKING:
    from retrievekit.bench.runner import benchmark
    from retrievekit.bench.table import Table
    from retrievekit.cache import cached
    from retrievekit.corpus import Corpus, Document
    from retrievekit.data.dataset import Dataset, load_dataset
    from retrievekit.encode.sentence import SentenceEncoder
    from retrievekit.evaluate.compute import evaluate
    from retrievekit.evaluate.significance import compare
    from retrievekit.filter.metadata import where
    from retrievekit.fuse import rrf, top, weighted
    from retrievekit.ids import Ids
    from retrievekit.index.bm25 import BM25Index
    from retrievekit.index.dense import DenseIndex
    from retrievekit.qrels import Qrels
    from retrievekit.queries import Queries
    from retrievekit.run import Hit, Hits, Run
    from retrievekit.stage import Stage, stage
    from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

_EXPORTS = {
    "BM25Index": "retrievekit.index.bm25",
    "Corpus": "retrievekit.corpus",
    "Dataset": "retrievekit.data.dataset",
    "DenseIndex": "retrievekit.index.dense",
    "DenseVectors": "retrievekit.vectors",
    "Document": "retrievekit.corpus",
    "Hit": "retrievekit.run",
    "Hits": "retrievekit.run",
    "Ids": "retrievekit.ids",
    "Qrels": "retrievekit.qrels",
    "Queries": "retrievekit.queries",
    "Run": "retrievekit.run",
    "SentenceEncoder": "retrievekit.encode.sentence",
    "SparseVectors": "retrievekit.vectors",
    "Stage": "retrievekit.stage",
    "Table": "retrievekit.bench.table",
    "WeightedTerms": "retrievekit.vectors",
    "benchmark": "retrievekit.bench.runner",
    "cached": "retrievekit.cache",
    "compare": "retrievekit.evaluate.significance",
    "evaluate": "retrievekit.evaluate.compute",
    "load_dataset": "retrievekit.data.dataset",
    "rrf": "retrievekit.fuse",
    "stage": "retrievekit.stage",
    "top": "retrievekit.fuse",
    "weighted": "retrievekit.fuse",
    "where": "retrievekit.filter.metadata",
}

__all__ = [
    "BM25Index",
    "Corpus",
    "Dataset",
    "DenseIndex",
    "DenseVectors",
    "Document",
    "Hit",
    "Hits",
    "Ids",
    "Qrels",
    "Queries",
    "Run",
    "SentenceEncoder",
    "SparseVectors",
    "Stage",
    "Table",
    "WeightedTerms",
    "__version__",
    "benchmark",
    "cached",
    "compare",
    "evaluate",
    "load_dataset",
    "rrf",
    "stage",
    "top",
    "weighted",
    "where",
]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'retrievekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """This package: a name it exports is never taken over by a module of the same name.

    Importing ``retrievekit.stage`` would otherwise bind the module where the function belongs.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Bind a name, unless an import binds a submodule over an exported name."""
        if not (name in _EXPORTS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    """All exported names."""
    return sorted(__all__)
