"""Rerankers that judge one document at a time, made of plain values by their registered names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from retrievekit.corpus import Corpus
from retrievekit.errors import UnknownNameError
from retrievekit.index.base import Index
from retrievekit.language.opening import language_model
from retrievekit.rerank.erank import ERankReranker
from retrievekit.rerank.pointwise import (
    JudgingReranker,
    MonoT5Reranker,
    ProRankReranker,
    Qwen3Reranker,
)


def qwen3_reranker(
    model: str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """A `Qwen3Reranker`.

    Args:
        model: Its folder or hub id, or the name that a service knows (with ``url=``).
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `Qwen3Reranker`, and arguments of `CausalModel` or `ChatEndpoint`.

    Returns:
        The reranker.
    """
    return _made(Qwen3Reranker, "causal", model, documents, device, dtype, settings)


def monot5(
    model: str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """A `MonoT5Reranker`.

    Args:
        model: Its folder or hub id.
        documents: Where the words of hits are.
        device: See `Seq2SeqModel`.
        dtype: See `Seq2SeqModel`.
        settings: Fields of `MonoT5Reranker`, and arguments of `Seq2SeqModel`.

    Returns:
        The reranker.
    """
    return _made(MonoT5Reranker, "seq2seq", model, documents, device, dtype, settings)


def prorank(
    model: str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """A `ProRankReranker`.

    Args:
        model: Its folder or hub id, or the name that a service knows (with ``url=``).
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `ProRankReranker`, and arguments of `CausalModel` or `ChatEndpoint`.

    Returns:
        The reranker.
    """
    return _made(ProRankReranker, "causal", model, documents, device, dtype, settings)


def erank(
    model: str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> JudgingReranker:
    """An `ERankReranker`.

    Args:
        model: Its folder or hub id, or the name that a service knows (with ``url=``).
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `ERankReranker`, and arguments of `CausalModel` or `ChatEndpoint`.

    Returns:
        The reranker.
    """
    return _made(ERankReranker, "causal", model, documents, device, dtype, settings)


def _made(
    kind: type[JudgingReranker],
    family: Literal["causal", "seq2seq"],
    model: str | Path,
    documents: Corpus | Index | None,
    device: str | None,
    dtype: str,
    settings: dict[str, Any],
) -> JudgingReranker:
    own = {field.name for field in dataclasses.fields(kind)} - {"model", "documents"}
    asked = dict(settings)
    made = language_model(model, asked, kind=family, device=device, dtype=dtype, taken=own)
    strangers = sorted(set(asked) - own)
    if strangers:
        raise UnknownNameError.among(f"setting of {kind.label}", strangers[0], own)
    return kind(made, documents, **asked)
