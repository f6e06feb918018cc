"""Names that lead to the leaf that implements them, imported only when asked for.

This is how lower layers reach upward without importing: an index finds its encoder by the name on
its card, the configuration finds stages, the data set registry its loaders. An entry is
``"module:attribute"``; others add theirs with `register`.
"""

from __future__ import annotations

import importlib
from typing import Any

from retrievekit.errors import UnknownNameError

_ENTRIES: dict[str, dict[str, str]] = {
    "reader": {
        "trec-run": "retrievekit.data.trec:read_run",
        "qrels": "retrievekit.data.trec:read_qrels",
        "term-weights": "retrievekit.data.weights:read_weights",
    },
    "writer": {
        "trec-run": "retrievekit.data.trec:write_run",
        "trec-qrels": "retrievekit.data.trec:write_qrels",
    },
    "encoder": {
        "ance": "retrievekit.encode.ance:AnceEncoder",
        "minilm": "retrievekit.encode.sentence:minilm",
        "sentence": "retrievekit.encode.sentence:SentenceEncoder.from_card",
        "tct": "retrievekit.encode.tct:TctColbertEncoder",
    },
    # What makes an encoder of a card, by the class that the card's identity names.
    "encoder-class": {
        "ance": "retrievekit.encode.ance:AnceEncoder.from_card",
        "endpoint": "retrievekit.encode.endpoint:reopened",
        "framework": "retrievekit.encode.framework:FrameworkEncoder.from_card",
        "function": "retrievekit.encode.functions:not_rebuilt",
        "idf": "retrievekit.encode.idf:InferenceFreeEncoder.from_card",
        "precomputed": "retrievekit.encode.functions:not_rebuilt",
        "sentence": "retrievekit.encode.sentence:SentenceEncoder.from_card",
        "splade": "retrievekit.encode.sparse:SpladeEncoder.from_card",
        "tct": "retrievekit.encode.tct:TctColbertEncoder.from_card",
        "truncated": "retrievekit.encode.truncated:TruncatedEncoder.from_card",
    },
    "index": {
        "bm25": "retrievekit.index.bm25:BM25Index",
        "dense": "retrievekit.index.dense:DenseIndex",
        "sparse": "retrievekit.index.sparse:SparseIndex",
    },
    # Ways through a dense index's vectors, made of (dim, similarity); FAISS has the other names.
    "engine": {
        "binary": "retrievekit.index.engines.binary:BinaryEngine",
        "int8": "retrievekit.index.engines.int8:Int8Engine",
    },
    # What makes a compression's plan, of (index, argument).
    "compress": {
        "binary": "retrievekit.compress.methods:binary",
        "fp16": "retrievekit.compress.methods:fp16",
        "int8": "retrievekit.compress.methods:int8",
        "int8-rescored": "retrievekit.compress.methods:int8_rescored",
        "matryoshka": "retrievekit.compress.methods:matryoshka",
    },
    # How suites try an index kind: whoever registers a kind registers its case beside it.
    "index-case": {
        "bm25": "retrievekit.testing.indexes:BM25",
        "dense": "retrievekit.testing.indexes:DENSE",
        "dense-binary": "retrievekit.testing.indexes:BINARY",
        "dense-hnsw": "retrievekit.testing.indexes:HNSW",
        "dense-int8": "retrievekit.testing.indexes:INT8",
        "dense-ivf-pq": "retrievekit.testing.indexes:IVF_PQ",
        "dense-stored-int8": "retrievekit.testing.indexes:STORED_INT8",
        "sparse": "retrievekit.testing.sparse:SPARSE",
    },
    "fuse": {
        "rrf": "retrievekit.fuse:rrf",
        "weighted": "retrievekit.fuse:weighted",
    },
    "cut": {
        "top": "retrievekit.fuse:top",
    },
    "filter": {
        "where": "retrievekit.filter.metadata:where",
    },
    "passages": {
        "aggregate": "retrievekit.passages:aggregate",
    },
    "cache": {
        "cached": "retrievekit.cache:cached",
    },
    # What makes a reranker of plain values: (model, documents, *, k, rest, device, dtype, ...). The
    # command line and expressions know it by the same names.
    "rerank": {
        "attention": "retrievekit.rerank.attention:attention_reranker",
        "cross_encoder": "retrievekit.rerank.cross_encoder:cross_encoder_reranker",
        "erank": "retrievekit.rerank.judges:erank",
        "icr": "retrievekit.rerank.attention:attention_reranker",
        "debate": "retrievekit.rerank.asking:debate",
        "first": "retrievekit.rerank.asking:first",
        "prp": "retrievekit.rerank.asking:prp",
        "rankgpt": "retrievekit.rerank.asking:rankgpt",
        "rankzephyr": "retrievekit.rerank.asking:rankzephyr",
        "setwise": "retrievekit.rerank.asking:setwise",
        "late_interaction": "retrievekit.rerank.late_interaction:late_interaction_reranker",
        "monot5": "retrievekit.rerank.judges:monot5",
        "prorank": "retrievekit.rerank.judges:prorank",
        "qwen3_reranker": "retrievekit.rerank.judges:qwen3_reranker",
    },
    # Losses on padded lists of scores, by the names that recipes of trainings use.
    "loss": {
        "bce": "retrievekit.train.losses.bce:BCELoss",
        "contrastive": "retrievekit.train.losses.info_nce:InfoNCELoss",
        "first": "retrievekit.train.losses.first:FirstLoss",
        "lambda": "retrievekit.train.losses.lambda_loss:LambdaLoss",
        "lipo": "retrievekit.train.losses.lipo:LiPOLambdaLoss",
        "listmle": "retrievekit.train.losses.list_mle:ListMLELoss",
        "listnet": "retrievekit.train.losses.list_net:ListNetLoss",
        "pg-rank": "retrievekit.train.policy:PGRankLoss",
        "pld": "retrievekit.train.losses.pld:PLDLoss",
        "plistmle": "retrievekit.train.losses.plist_mle:PListMLELoss",
        "ranknet": "retrievekit.train.losses.rank_net:RankNetLoss",
    },
    # What makes rewriters of queries: (model, ..., *, index), the index that is searched next.
    "rewrite": {
        "grf": "retrievekit.rewrite.named:grf",
        "hyde": "retrievekit.rewrite.named:hyde",
        "keywords": "retrievekit.rewrite.named:keywords",
        "query2doc": "retrievekit.rewrite.named:query2doc",
    },
    # What makes feedback, from a run to better queries: (..., *, index).
    "feedback": {
        "ance_prf": "retrievekit.feedback.ance_prf:ance_prf",
        "average": "retrievekit.feedback.named:average",
        "bo1": "retrievekit.feedback.named:bo1",
        "kl": "retrievekit.feedback.named:kl",
        "lexical_rocchio": "retrievekit.feedback.named:lexical_rocchio",
        "rm3": "retrievekit.feedback.named:rm3",
        "rocchio": "retrievekit.feedback.named:rocchio",
        "lucene_rm3": "retrievekit.index.lucene_stages:LuceneRM3",
        "lucene_rocchio": "retrievekit.index.lucene_stages:LuceneRocchio",
    },
}


def register(kind: str, name: str, target: str) -> None:
    """Add a name.

    Args:
        kind: What it names: "encoder", "index", "fuse", ...
        name: The name.
        target: ``"module:attribute"``, imported on first use.
    """
    _ENTRIES.setdefault(kind, {})[name] = target


def names(kind: str) -> list[str]:
    """All names of a kind, sorted."""
    return sorted(_ENTRIES.get(kind, {}))


def target(kind: str, name: str) -> str:
    """Where a name leads, without importing it.

    Args:
        kind: The kind of thing.
        name: Its name.

    Returns:
        ``"module:attribute"``.

    Raises:
        UnknownNameError: No such name; the message lists near ones.
    """
    entries = _ENTRIES.get(kind, {})
    if name not in entries:
        raise UnknownNameError.among(kind, name, entries)
    return entries[name]


def resolve(kind: str, name: str) -> Any:
    """What a name stands for, importing its module.

    Args:
        kind: The kind of thing.
        name: Its name.

    Returns:
        The function or class.

    Raises:
        UnknownNameError: No such name; the message lists near ones.
    """
    module, _, path = target(kind, name).partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
