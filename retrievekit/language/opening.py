"""A language model of plain values, as the command line and files have them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from retrievekit.encode.folders import find_folder
from retrievekit.errors import DataError, MissingDataError
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import LanguageModel
from retrievekit.language.endpoint import ChatEndpoint
from retrievekit.language.seq2seq import Seq2SeqModel

Kind: TypeAlias = Literal["causal", "seq2seq"]

_NAMED = frozenset({"name", "model", "device", "dtype"})
"""Arguments of models that are no settings: they are given by themselves."""


def model_settings(served: bool, kind: Kind = "causal") -> frozenset[str]:
    """The settings that a model takes.

    Args:
        served: Whether it is behind a service.
        kind: What it is otherwise.

    Returns:
        Their names.
    """
    made = ChatEndpoint if served else CausalModel if kind == "causal" else Seq2SeqModel
    return frozenset(inspect.signature(made).parameters) - _NAMED


def language_model(
    name: str | Path,
    settings: dict[str, Any],
    *,
    kind: Kind | None = "causal",
    device: str | None = None,
    dtype: str = "float32",
    taken: Collection[str] = (),
) -> LanguageModel:
    """A local model, or one behind a service where the settings name its ``url``.

    Args:
        name: A folder or hub id, or the name that the service knows.
        settings: Settings of the model and of whoever uses it; those of the model are taken out.
        kind: What a local model is; None looks into its ``config.json``, for which a model that is
            only on the hub is fetched.
        device: Where a local model computes; by default the best device there is.
        dtype: What a local model computes in.
        taken: Settings that are not the model's, though it has one of the same name.

    Returns:
        The model, not loaded yet.

    Raises:
        DataError: A service is told of a device or dtype, which are its own affair.
    """
    served = "url" in settings
    if served and (device is not None or dtype != "float32"):
        raise DataError(
            f"{name!r} is behind a service, which chooses device and dtype itself; leave out "
            f"{'device' if device is not None else 'dtype'}, or the url"
        )
    if kind is None:
        kind = "causal" if served else kind_of(name, settings.get("revision"))
    own = model_settings(served, kind) - set(taken)
    chosen = {key: settings.pop(key) for key in sorted(own & set(settings))}
    if served:
        return ChatEndpoint(str(name), **chosen)
    local: type[CausalModel | Seq2SeqModel]
    local = CausalModel if kind == "causal" else Seq2SeqModel
    return local(name, device=device, dtype=dtype, **chosen)


def kind_of(name: str | Path, revision: str | None = None) -> Kind:
    """Whether a model is a decoder or an encoder-decoder, as its ``config.json`` says.

    Args:
        name: A folder or hub id.
        revision: A branch, tag or commit of a hub model.

    Returns:
        The kind; of a model that is not there ``causal``, since loading it tells what is wrong.
    """
    try:
        settings = json.loads((find_folder(str(name), revision).path / "config.json").read_bytes())
    except (MissingDataError, OSError, ValueError):
        return "causal"
    seq2seq = isinstance(settings, dict) and settings.get("is_encoder_decoder") is True
    return "seq2seq" if seq2seq else "causal"
