"""Rerankers that ask language models, made of plain values as the command line has them.

Each function is a method by the name it was published under. `model` is a folder or hub id, of a
decoder or of an encoder-decoder such as T5; with ``url=`` the name that a service knows, opened as
a `ChatEndpoint`; or a language model itself.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.index.base import Index
from retrievekit.language.chat import LanguageModel
from retrievekit.language.opening import Kind, kind_of, language_model, model_settings
from retrievekit.rerank.debate import DebateReranker
from retrievekit.rerank.listwise import ListwiseReranker
from retrievekit.rerank.pairwise import PairwiseReranker
from retrievekit.rerank.pointwise import JudgingReranker
from retrievekit.rerank.setwise import SetwiseReranker

R = TypeVar(
    "R", DebateReranker, JudgingReranker, ListwiseReranker, PairwiseReranker, SetwiseReranker
)


def rankgpt(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> ListwiseReranker:
    """RankGPT: windows that the model orders in words.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `language_model`.
        dtype: See `language_model`.
        settings: Fields of `ListwiseReranker`, and arguments of the model.

    Returns:
        The reranker.
    """
    return made(ListwiseReranker, model, documents, device, dtype, settings)


def rankzephyr(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> ListwiseReranker:
    """RankZephyr: as RankGPT, in the layout that the model was taught; passages are only cleaned.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `language_model`.
        dtype: See `language_model`.
        settings: Fields of `ListwiseReranker`, and arguments of the model.

    Returns:
        The reranker.
    """
    settings = {"layout": "rankzephyr", "guard": "cleaned"} | settings
    return made(ListwiseReranker, model, documents, device, dtype, settings)


def first(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> ListwiseReranker:
    """FIRST: windows in the order of the logits of the first letter; passages are only cleaned.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `language_model`.
        dtype: See `language_model`.
        settings: Fields of `ListwiseReranker`, and arguments of the model.

    Returns:
        The reranker.
    """
    settings = {"layout": "first", "guard": "cleaned"} | settings
    return made(ListwiseReranker, model, documents, device, dtype, settings)


def setwise(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> SetwiseReranker:
    """Setwise prompting: the best of a few, until the first places are settled.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `language_model`.
        dtype: See `language_model`.
        settings: Fields of `SetwiseReranker`, and arguments of the model.

    Returns:
        The reranker.
    """
    return made(SetwiseReranker, model, documents, device, dtype, settings)


def prp(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> PairwiseReranker:
    """Pairwise ranking prompting: two passages at a time, in both orders.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `language_model`.
        dtype: See `language_model`.
        settings: Fields of `PairwiseReranker`, and arguments of the model.

    Returns:
        The reranker.
    """
    return made(PairwiseReranker, model, documents, device, dtype, settings)


def debate(
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> DebateReranker:
    """Debate ranking: arguments for and against each document, with quotes that are checked.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: See `language_model`.
        dtype: See `language_model`.
        settings: Fields of `DebateReranker`, and arguments of the model.

    Returns:
        The reranker.
    """
    return made(DebateReranker, model, documents, device, dtype, settings)


def made(
    kind: type[R],
    model: LanguageModel | str | Path,
    documents: Corpus | Index | None,
    device: str | None,
    dtype: str,
    settings: dict[str, Any],
    family: Kind | None = None,
) -> R:
    """A reranker and the model that it asks, of their settings together.

    Args:
        kind: The reranker's class.
        model: A folder or hub id, the name that a service knows (with ``url=``), or the model.
        documents: Where the words of hits are.
        device: Where a local model computes.
        dtype: What a local model computes in.
        settings: Fields of the class, and arguments of the model's.
        family: What a local model is; None looks.

    Returns:
        The reranker.

    Raises:
        DataError: A device for a model that is open already.
        UnknownNameError: A setting is neither's.
    """
    own = {field.name for field in dataclasses.fields(kind)} - {"model", "documents"}
    asked = dict(settings)
    known = set(own)
    if isinstance(model, (str, Path)):
        served = "url" in asked
        if family is None:
            family = "causal" if served else kind_of(model, asked.get("revision"))
        known |= model_settings(served, family)
        _check_known(kind, asked, known, served)
        model = language_model(model, asked, kind=family, device=device, dtype=dtype, taken=own)
    elif device is not None:
        raise DataError(f"{model!r} is open already; its device was chosen with it")
    _check_known(kind, asked, own, served=False)
    return kind(model, documents, **asked)


def _check_known(kind: type[Any], asked: dict[str, Any], known: set[str], served: bool) -> None:
    for stranger in sorted(set(asked) - known):
        if not served and stranger in model_settings(served=True):
            raise DataError(f"{stranger} is a setting of models behind a service; give their url=")
        raise UnknownNameError.among(f"setting of {kind.__name__}", stranger, known)
