"""Rerankers that ask language models, made of plain values as the command line has them.

Each function is a method by the name it was published under. `model` is a folder or hub id, which
is opened as a `CausalModel`, or a language model itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.index.base import Index
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import LanguageModel
from retrievekit.rerank.debate import DebateReranker
from retrievekit.rerank.listwise import ListwiseReranker
from retrievekit.rerank.pairwise import PairwiseReranker
from retrievekit.rerank.setwise import SetwiseReranker

R = TypeVar("R", DebateReranker, ListwiseReranker, PairwiseReranker, SetwiseReranker)


def rankgpt(
    model: LanguageModel | str,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> ListwiseReranker:
    """RankGPT: windows that the model orders in words.

    Args:
        model: Its folder or hub id, or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `ListwiseReranker`.

    Returns:
        The reranker.
    """
    return _made(ListwiseReranker, model, documents, device, dtype, settings)


def rankzephyr(
    model: LanguageModel | str,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> ListwiseReranker:
    """RankZephyr: as RankGPT, in the layout that the model was taught; passages are only cleaned.

    Args:
        model: Its folder or hub id, or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `ListwiseReranker`.

    Returns:
        The reranker.
    """
    settings = {"layout": "rankzephyr", "guard": "cleaned"} | settings
    return _made(ListwiseReranker, model, documents, device, dtype, settings)


def first(
    model: LanguageModel | str,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> ListwiseReranker:
    """FIRST: windows in the order of the logits of the first letter; passages are only cleaned.

    Args:
        model: Its folder or hub id, or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `ListwiseReranker`.

    Returns:
        The reranker.
    """
    settings = {"layout": "first", "guard": "cleaned"} | settings
    return _made(ListwiseReranker, model, documents, device, dtype, settings)


def setwise(
    model: LanguageModel | str,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> SetwiseReranker:
    """Setwise prompting: the best of a few, until the first places are settled.

    Args:
        model: Its folder or hub id, or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `SetwiseReranker`.

    Returns:
        The reranker.
    """
    return _made(SetwiseReranker, model, documents, device, dtype, settings)


def prp(
    model: LanguageModel | str,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> PairwiseReranker:
    """Pairwise ranking prompting: two passages at a time, in both orders.

    Args:
        model: Its folder or hub id, or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `PairwiseReranker`.

    Returns:
        The reranker.
    """
    return _made(PairwiseReranker, model, documents, device, dtype, settings)


def debate(
    model: LanguageModel | str,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> DebateReranker:
    """Debate ranking: arguments for and against each document, with quotes that are checked.

    Args:
        model: Its folder or hub id, or the model.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `DebateReranker`.

    Returns:
        The reranker.
    """
    return _made(DebateReranker, model, documents, device, dtype, settings)


def _made(
    kind: type[R],
    model: LanguageModel | str,
    documents: Corpus | Index | None,
    device: str | None,
    dtype: str,
    settings: dict[str, Any],
) -> R:
    known = {field.name for field in dataclasses.fields(kind)} - {"model", "documents"}
    strangers = sorted(set(settings) - known)
    if strangers:
        raise UnknownNameError.among(f"setting of {kind.__name__}", strangers[0], known)
    if isinstance(model, str):
        model = CausalModel(model, device=device, dtype=dtype)
    elif device is not None:
        raise DataError(f"{model!r} is open already; its device was chosen with it")
    return kind(model, documents, **settings)
