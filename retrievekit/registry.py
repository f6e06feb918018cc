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
    },
    "writer": {
        "trec-run": "retrievekit.data.trec:write_run",
        "trec-qrels": "retrievekit.data.trec:write_qrels",
    },
    "encoder": {
        "minilm": "retrievekit.encode.sentence:minilm",
        "sentence": "retrievekit.encode.sentence:SentenceEncoder.from_card",
    },
    "index": {
        "bm25": "retrievekit.index.bm25:BM25Index",
        "dense": "retrievekit.index.dense:DenseIndex",
    },
    "fuse": {
        "rrf": "retrievekit.fuse:rrf",
        "weighted": "retrievekit.fuse:weighted",
    },
    "cut": {
        "top": "retrievekit.fuse:top",
    },
    "cache": {
        "cached": "retrievekit.cache:cached",
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
    entries = _ENTRIES.get(kind, {})
    if name not in entries:
        raise UnknownNameError.among(kind, name, entries)
    module, _, path = entries[name].partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
