"""A language model of plain values, as the command line and files have them."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import LanguageModel
from retrievekit.language.endpoint import ChatEndpoint
from retrievekit.language.seq2seq import Seq2SeqModel


def language_model(
    name: str | Path,
    settings: dict[str, Any],
    *,
    kind: Literal["causal", "seq2seq"] = "causal",
    device: str | None = None,
    dtype: str = "float32",
    taken: Collection[str] = (),
) -> LanguageModel:
    """A local model, or one behind a service where the settings name its ``url``.

    Args:
        name: A folder or hub id, or the name that the service knows.
        settings: Settings of the model and of whoever uses it; those of the model are taken out.
        kind: What a local model is.
        device: Where a local model computes; by default the best device there is.
        dtype: What a local model computes in.
        taken: Settings that are not the model's, though it has one of the same name.

    Returns:
        The model, not loaded yet.
    """
    local: type[CausalModel | Seq2SeqModel]
    local = CausalModel if kind == "causal" else Seq2SeqModel
    served = "url" in settings
    own = inspect.signature(ChatEndpoint if served else local).parameters
    names = [key for key in settings if key in own and key not in taken]
    chosen = {key: settings.pop(key) for key in names}
    if served:
        return ChatEndpoint(str(name), **chosen)
    return local(name, device=device, dtype=dtype, **chosen)
