"""Encoders by what people call them: a registered name, a model folder, a hub id."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from retrievekit import registry
from retrievekit.errors import DataError, MissingDataError, UnknownNameError


def encoder_names() -> list[str]:
    """The names of encoders that an expression may use."""
    # "sentence" rebuilds an encoder from a card; it takes one and is no encoder by itself.
    return [name for name in registry.names("encoder") if name != "sentence"]


def make_encoder(
    name: str,
    backend: str = "torch",
    dim: int | None = None,
    url: str | None = None,
    key_variable: str | None = None,
) -> Any:
    """A dense encoder by registered name, folder or hub id, of the class that its family needs.

    Args:
        name: The name; a folder that is called as a hub model is taken for that model.
        backend: What computes its layers, as `SentenceEncoder` has it.
        dim: How many components are kept, the first ones; None keeps all.
        url: Where a service with OpenAI's interface has the model of that name; None for a model
            that runs here.
        key_variable: The environment variable that holds the service's key, if it wants one.

    Returns:
        The encoder.

    Raises:
        UnknownNameError: Almost a registered name, and neither a folder nor ``organisation/model``.
        DataError: An encoder that torch alone computes, and another backend; or `dim` is out of
            range.
    """
    if url is None and key_variable is not None:
        raise DataError("key_variable is for a service; give its url too")
    if url is None:
        made = _whole(name, backend)
    elif backend != "torch":
        raise DataError(f"what a service computes has no backend here; got {backend!r}")
    else:
        from retrievekit.encode.endpoint import EndpointEncoder

        made = EndpointEncoder(name, url=url, key_variable=key_variable)
    if dim is None:
        return made
    from retrievekit.encode.truncated import TruncatedEncoder

    return TruncatedEncoder(made, dim)


def _whole(name: str, backend: str) -> Any:
    from retrievekit.encode.minilm import NAME as MINILM
    from retrievekit.encode.sentence import SentenceEncoder

    registered = name in encoder_names()
    if not registered:
        _refuse_misspelt(name)
    own = name if registered else _loader(name)
    if own == "sentence" or name == MINILM:
        any_backend: Any = backend  # SentenceEncoder refuses what is none
        return SentenceEncoder(name, backend=any_backend)
    if backend != "torch":
        raise DataError(f"the encoder {name!r} has no backend but torch; got {backend!r}")
    make = registry.resolve("encoder", own)
    return make() if registered else make(name)


def _refuse_misspelt(name: str) -> None:
    """Raise where a name is almost a registered one, and is not surely a model's."""
    if "/" in name or Path(name).expanduser().is_dir():
        return
    if difflib.get_close_matches(name, encoder_names(), cutoff=0.75):
        raise UnknownNameError.among("encoder", name, encoder_names())


def _loader(name: str) -> str:
    """The registered encoder that loads a model: its family's, else that of most models."""
    from retrievekit.encode.conventions import convention_of, hub_id_of

    folder = Path(name).expanduser()
    known = convention_of(hub_id_of(folder.resolve()) if folder.is_dir() else name)
    return known.loader if known is not None and known.loader in encoder_names() else "sentence"


def make_sparse_encoder(name: str, method: str | None = None) -> Any:
    """A sparse encoder by folder or hub id.

    Args:
        name: A model folder or a hub id.
        method: A method of the unified framework, such as ``unicoil``, for which the model has the
            parts; None for what the model is by itself: a sparse model of sentence-transformers, a
            masked language model (SPLADE), or a checkpoint of the framework.

    Returns:
        The encoder.

    Raises:
        DataError: It is a dense encoder; says how that is used.
        MissingDataError: There is no such model.
        UnknownNameError: No such method.
    """
    from retrievekit.encode.framework import FrameworkEncoder
    from retrievekit.encode.kinds import named_kind, other_kind

    dense = "/" in name and method is None and named_kind(name) == "dense"
    if not Path(name).expanduser().is_dir() and (dense or name in encoder_names()):
        raise other_kind(name, "sparse")

    if method is not None or _is_checkpoint(name):
        return FrameworkEncoder(name, method)
    from retrievekit.encode.sparse import SpladeEncoder

    return SpladeEncoder(name)


def make_any_encoder(name: str) -> Any:
    """A dense or a sparse encoder, whichever the model of that name is.

    Args:
        name: A registered name, a model folder or a hub id; a plain transformer of no known name
            is taken for a dense one.

    Returns:
        The encoder.

    Raises:
        UnknownNameError: Almost a registered name, and neither a folder nor ``organisation/model``.
    """
    from retrievekit.encode.folders import find_folder
    from retrievekit.encode.kinds import kind_of, named_kind
    from retrievekit.encode.sparse import SpladeEncoder

    made = make_encoder(name)
    if name in encoder_names():
        return made
    try:
        kind = kind_of(find_folder(name))
    except MissingDataError:
        # Said when the encoder is used.
        return SpladeEncoder(name) if named_kind(name) == "sparse" else made
    return make_sparse_encoder(name) if kind == "sparse" else made


def _is_checkpoint(name: str) -> bool:
    """Whether a model is a checkpoint of the framework, which says so in its configuration."""
    from retrievekit.encode.folders import find_folder

    file = find_folder(name).path / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "DualEncoder"
