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
    from retrievekit.candidates import Candidates
    from retrievekit.compress.build import compress
    from retrievekit.corpus import Corpus, Document
    from retrievekit.data.dataset import Dataset, load_dataset
    from retrievekit.encode.ance import AnceEncoder
    from retrievekit.encode.endpoint import EndpointEncoder
    from retrievekit.encode.framework import FrameworkEncoder
    from retrievekit.encode.functions import CallableEncoder
    from retrievekit.encode.idf import InferenceFreeEncoder
    from retrievekit.encode.precomputed import PrecomputedVectors
    from retrievekit.encode.sentence import SentenceEncoder
    from retrievekit.encode.sparse import SpladeEncoder
    from retrievekit.encode.tct import TctColbertEncoder
    from retrievekit.encode.truncated import TruncatedEncoder
    from retrievekit.evaluate.compute import evaluate
    from retrievekit.evaluate.significance import compare
    from retrievekit.feedback.divergence import KL, Bo1
    from retrievekit.feedback.terms import RM3, LexicalRocchio
    from retrievekit.feedback.vectors import Average, Rocchio
    from retrievekit.filter.metadata import where
    from retrievekit.fuse import rrf, top, weighted
    from retrievekit.ids import Ids
    from retrievekit.index.bm25 import BM25Index
    from retrievekit.index.dense import DenseIndex
    from retrievekit.index.lucene import LuceneIndex
    from retrievekit.index.sparse import SparseIndex
    from retrievekit.language.causal import CausalModel
    from retrievekit.language.endpoint import ChatEndpoint
    from retrievekit.language.seq2seq import Seq2SeqModel
    from retrievekit.passages import aggregate
    from retrievekit.qrels import Qrels
    from retrievekit.queries import Queries
    from retrievekit.rerank.attention import AttentionReranker
    from retrievekit.rerank.cross_encoder import CrossEncoderReranker
    from retrievekit.rerank.debate import DebateReranker
    from retrievekit.rerank.erank import ERankReranker
    from retrievekit.rerank.late_interaction import LateInteraction
    from retrievekit.rerank.listwise import ListwiseReranker
    from retrievekit.rerank.pairwise import PairwiseReranker
    from retrievekit.rerank.pointwise import MonoT5Reranker, ProRankReranker, Qwen3Reranker
    from retrievekit.rerank.setwise import SetwiseReranker
    from retrievekit.rewrite.doc2query import Doc2Query
    from retrievekit.rewrite.grf import GRF
    from retrievekit.rewrite.hyde import HyDE
    from retrievekit.rewrite.query2doc import KeywordQuery, Query2Doc
    from retrievekit.run import Hit, Hits, Run
    from retrievekit.splitting import split_documents
    from retrievekit.stage import Stage, stage
    from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms


_EXPORTS = {
    "AnceEncoder": "retrievekit.encode.ance",
    "AttentionReranker": "retrievekit.rerank.attention",
    "Average": "retrievekit.feedback.vectors",
    "BM25Index": "retrievekit.index.bm25",
    "Bo1": "retrievekit.feedback.divergence",
    "CallableEncoder": "retrievekit.encode.functions",
    "Candidates": "retrievekit.candidates",
    "CausalModel": "retrievekit.language.causal",
    "ChatEndpoint": "retrievekit.language.endpoint",
    "Corpus": "retrievekit.corpus",
    "CrossEncoderReranker": "retrievekit.rerank.cross_encoder",
    "Dataset": "retrievekit.data.dataset",
    "DebateReranker": "retrievekit.rerank.debate",
    "DenseIndex": "retrievekit.index.dense",
    "DenseVectors": "retrievekit.vectors",
    "Doc2Query": "retrievekit.rewrite.doc2query",
    "Document": "retrievekit.corpus",
    "ERankReranker": "retrievekit.rerank.erank",
    "EndpointEncoder": "retrievekit.encode.endpoint",
    "FrameworkEncoder": "retrievekit.encode.framework",
    "GRF": "retrievekit.rewrite.grf",
    "Hit": "retrievekit.run",
    "Hits": "retrievekit.run",
    "HyDE": "retrievekit.rewrite.hyde",
    "Ids": "retrievekit.ids",
    "InferenceFreeEncoder": "retrievekit.encode.idf",
    "KL": "retrievekit.feedback.divergence",
    "KeywordQuery": "retrievekit.rewrite.query2doc",
    "LateInteraction": "retrievekit.rerank.late_interaction",
    "LexicalRocchio": "retrievekit.feedback.terms",
    "ListwiseReranker": "retrievekit.rerank.listwise",
    "LuceneIndex": "retrievekit.index.lucene",
    "MonoT5Reranker": "retrievekit.rerank.pointwise",
    "PairwiseReranker": "retrievekit.rerank.pairwise",
    "PrecomputedVectors": "retrievekit.encode.precomputed",
    "ProRankReranker": "retrievekit.rerank.pointwise",
    "Qrels": "retrievekit.qrels",
    "Queries": "retrievekit.queries",
    "Query2Doc": "retrievekit.rewrite.query2doc",
    "Qwen3Reranker": "retrievekit.rerank.pointwise",
    "RM3": "retrievekit.feedback.terms",
    "Rocchio": "retrievekit.feedback.vectors",
    "Run": "retrievekit.run",
    "SentenceEncoder": "retrievekit.encode.sentence",
    "Seq2SeqModel": "retrievekit.language.seq2seq",
    "SetwiseReranker": "retrievekit.rerank.setwise",
    "SparseIndex": "retrievekit.index.sparse",
    "SparseVectors": "retrievekit.vectors",
    "SpladeEncoder": "retrievekit.encode.sparse",
    "Stage": "retrievekit.stage",
    "Table": "retrievekit.bench.table",
    "TctColbertEncoder": "retrievekit.encode.tct",
    "TruncatedEncoder": "retrievekit.encode.truncated",
    "WeightedTerms": "retrievekit.vectors",
    "aggregate": "retrievekit.passages",
    "benchmark": "retrievekit.bench.runner",
    "cached": "retrievekit.cache",
    "compare": "retrievekit.evaluate.significance",
    "compress": "retrievekit.compress.build",
    "evaluate": "retrievekit.evaluate.compute",
    "load_dataset": "retrievekit.data.dataset",
    "rrf": "retrievekit.fuse",
    "split_documents": "retrievekit.splitting",
    "stage": "retrievekit.stage",
    "top": "retrievekit.fuse",
    "weighted": "retrievekit.fuse",
    "where": "retrievekit.filter.metadata",
}

__all__ = [  # noqa: RUF022 (in plain order, as the test wants them)
    "AnceEncoder",
    "AttentionReranker",
    "Average",
    "BM25Index",
    "Bo1",
    "CallableEncoder",
    "Candidates",
    "CausalModel",
    "ChatEndpoint",
    "Corpus",
    "CrossEncoderReranker",
    "Dataset",
    "DebateReranker",
    "DenseIndex",
    "DenseVectors",
    "Doc2Query",
    "Document",
    "ERankReranker",
    "EndpointEncoder",
    "FrameworkEncoder",
    "GRF",
    "Hit",
    "Hits",
    "HyDE",
    "Ids",
    "InferenceFreeEncoder",
    "KL",
    "KeywordQuery",
    "LateInteraction",
    "LexicalRocchio",
    "ListwiseReranker",
    "LuceneIndex",
    "MonoT5Reranker",
    "PairwiseReranker",
    "PrecomputedVectors",
    "ProRankReranker",
    "Qrels",
    "Queries",
    "Query2Doc",
    "Qwen3Reranker",
    "RM3",
    "Rocchio",
    "Run",
    "SentenceEncoder",
    "Seq2SeqModel",
    "SetwiseReranker",
    "SparseIndex",
    "SparseVectors",
    "SpladeEncoder",
    "Stage",
    "Table",
    "TctColbertEncoder",
    "TruncatedEncoder",
    "WeightedTerms",
    "__version__",
    "aggregate",
    "benchmark",
    "cached",
    "compare",
    "compress",
    "evaluate",
    "load_dataset",
    "rrf",
    "split_documents",
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
