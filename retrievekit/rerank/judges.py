"""Rerankers that judge one document at a time, made of plain values by their registered names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrievekit.corpus import Corpus
from retrievekit.index.base import Index
from retrievekit.language.chat import LanguageModel
from retrievekit.rerank.asking import made
from retrievekit.rerank.erank import ERankReranker
from retrievekit.rerank.pointwise import (
    JudgingReranker,
    MonoT5Reranker,
    ProRankReranker,
    Qwen3Reranker,
)


def qwen3_reranker(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """A `Qwen3Reranker`.

    Args:
        model: Its folder or hub id, or the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `Qwen3Reranker`, and arguments of `CausalModel` or `ChatEndpoint`.

    Returns:
        The reranker.
    """
    return made(Qwen3Reranker, model, documents, device, dtype, settings, "causal")


def monot5(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """A `MonoT5Reranker`.

    Args:
        model: Its folder or hub id, or the model.
        documents: Where the words of hits are.
        device: See `Seq2SeqModel`.
        dtype: See `Seq2SeqModel`.
        settings: Fields of `MonoT5Reranker`, and arguments of `Seq2SeqModel`.

    Returns:
        The reranker.
    """
    return made(MonoT5Reranker, model, documents, device, dtype, settings, "seq2seq")


def prorank(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """A `ProRankReranker`.

    Args:
        model: Its folder or hub id, or the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `ProRankReranker`, and arguments of `CausalModel` or `ChatEndpoint`.

    Returns:
        The reranker.
    """
    return made(ProRankReranker, model, documents, device, dtype, settings, "causal")


def erank(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """An `ERankReranker`.

    Args:
        model: Its folder or hub id, or the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `ERankReranker`, and arguments of `CausalModel` or `ChatEndpoint`.

    Returns:
        The reranker.
    """
    return made(ERankReranker, model, documents, device, dtype, settings, "causal")
