"""Whether a model is for one vector per text or for term weights, seen before it is loaded.

Each kind loads under the other's classes, and gives numbers that mean nothing; so whoever comes to
the wrong door is shown the right one.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from retrievekit.encode.conventions import convention_of, hub_id_of
from retrievekit.encode.folders import ModelFolder
from retrievekit.errors import DataError

Kind = Literal["dense", "sparse"]

SPARSE = (
    "castorini/unicoil*",
    "ibm-granite/granite-embedding-*-sparse",
    "ielab/unicoil*",
    "naver/efficient-splade*",
    "naver/splade*",
    "opensearch-project/opensearch-neural-sparse*",
    "prithivida/splade*",
    "sparse-encoder/*",
    "sparse-encoder-testing/*",
)
"""Hub ids of learned sparse models; a star stands for any characters."""

_SPARSE_PARTS = ("SpladePooling", "SparseStaticEmbedding", "SparseAutoEncoder", "MLMTransformer")


def named_kind(name: str) -> Kind | None:
    """What a model is by its name alone.

    Args:
        name: A hub id, or the name of a folder, which must be a hub id's second part.

    Returns:
        Its kind, or None for a model that nobody knows.
    """
    lower = name.lower()
    known = SPARSE if "/" in lower else tuple(
        pattern.partition("/")[2] for pattern in SPARSE if not pattern.endswith("/*")
    )  # fmt: skip
    if any(fnmatch.fnmatchcase(lower, pattern) for pattern in known):
        return "sparse"
    return None if convention_of(name) is None else "dense"


def kind_of(folder: ModelFolder) -> Kind | None:
    """What a model is by what its folder says, else by its name.

    Args:
        folder: The model's folder; its files are read, and nothing of it is loaded.

    Returns:
        Its kind; None for a plain transformer of no known name, which may be either.
    """
    path = folder.path
    if _object(path / "config.json").get("model_type") == "DualEncoder":
        return "sparse"
    parts = list(_parts(path))
    if not parts:
        return named_kind(folder.model if "/" in folder.model else hub_id_of(path))
    names = {part.rpartition(".")[2] for part in parts}
    if names & set(_SPARSE_PARTS) or any(".sparse_encoder." in part for part in parts):
        return "sparse"
    return "dense" if "Pooling" in names else None


def check_kind_of(folder: ModelFolder, wanted: Kind) -> None:
    """Refuse a model of the other kind.

    Args:
        folder: The model's folder.
        wanted: What it is to be loaded as.

    Raises:
        DataError: It is of the other kind; says which door is the right one.
    """
    found = kind_of(folder)
    if found not in (None, wanted):
        raise other_kind(folder.name, wanted)


def other_kind(name: str, wanted: Kind) -> DataError:
    """The error that shows a model of one kind the door of that kind.

    Args:
        name: What the model was asked for by.
        wanted: The other kind.

    Returns:
        The error.
    """
    if wanted == "dense":
        return DataError(
            f"{name}: a learned sparse model, which gives term weights and not one vector; index "
            f'it with --sparse {name}, in a pipeline by sparse("{name}"), in Python by '
            f"SpladeEncoder({name!r})"
        )
    return DataError(
        f"{name}: a dense model, which gives one vector and not term weights; index it with "
        f'--encoder {name}, in a pipeline by dense("{name}"), in Python by '
        f"SentenceEncoder({name!r})"
    )


def _parts(path: Path) -> Iterator[str]:
    """The classes of a model's modules, those behind a router too."""
    modules = _content(path / "modules.json")
    for entry in modules if isinstance(modules, list) else ():
        if isinstance(entry, dict):
            yield str(entry.get("type", ""))
    for router in sorted(path.glob("**/router_config.json")):
        types = _object(router).get("types", {})
        yield from map(str, types.values() if isinstance(types, dict) else ())


def _object(file: Path) -> dict[str, Any]:
    found = _content(file)
    return found if isinstance(found, dict) else {}


def _content(file: Path) -> Any:
    # What is no JSON is refused, with its place, where the folder is looked through.
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
