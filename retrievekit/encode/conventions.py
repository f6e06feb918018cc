"""How known families of dense models turn text into a vector: the table `conventions.yaml`.

A model's weights do not say how its states are pooled, what stands before its texts or how its
vectors are compared; loaded with the conventions of another family it still gives vectors, only bad
ones. `SentenceEncoder` looks its model up here, and says what it assumes of a model that is not in
the table. Every entry names where its facts were read.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from retrievekit.errors import DataError
from retrievekit.protocols import Similarity, similarity_named

Role = Literal["query", "document"]
Loader = Literal["sentence", "ance", "tct", "none"]

ROLES: tuple[Role, ...] = ("query", "document")
_KEYS = {
    "family", "models", "loader", "pooling", "prompt_pooled", "head", "normalise", "similarity",
    "query", "document", "lower_case", "source",
}  # fmt: skip


@dataclass(frozen=True)
class Convention:
    """What is known of one family.

    Args:
        family: Its name.
        models: Hub ids; a star stands for any characters.
        loader: Which encoder loads it: ``sentence``, ``ance``, ``tct``, or ``none``.
        pooling: ``cls``, ``mean`` or ``lasttoken``; None where the loader has its own way.
        prompt_pooled: Whether the prompt's tokens take part in the pooling.
        head: What follows the pooling, in words, or None.
        normalise: Whether vectors are brought to length 1.
        similarity: How vectors are compared.
        prompts: What stands before texts, by role; possibly empty.
        max_lengths: Tokens of a text that are read, by role; None for what the model reads.
        lower_case: Whether texts are lower-cased first.
        source: Where this was read.
    """

    family: str
    models: tuple[str, ...]
    loader: Loader
    pooling: str | None
    prompt_pooled: bool
    head: str | None
    normalise: bool
    similarity: Similarity
    prompts: Mapping[Role, str]
    max_lengths: Mapping[Role, int | None]
    lower_case: bool
    source: str

    def names(self, model: str) -> bool:
        """Whether a hub id, or the name of a folder, is one of the family's models.

        Args:
            model: ``organisation/name``, or a folder's name, which must be a hub id's second part.

        Returns:
            Whether it is; upper and lower case do not matter.
        """
        name = model.lower()
        if "/" in name:
            return any(fnmatch.fnmatchcase(name, known.lower()) for known in self.models)
        return any(name == known.lower().partition("/")[2] for known in self.models)


@cache
def conventions() -> tuple[Convention, ...]:
    """All families of the table."""
    text = resources.files("retrievekit.encode").joinpath("conventions.yaml").read_text("utf-8")
    return tuple(_convention(record) for record in yaml.safe_load(text))


def convention_of(model: str) -> Convention | None:
    """The family of a model.

    Args:
        model: A hub id, or the name of a model folder. A folder inside the hub's cache, or one
            whose name is a hub id's second part, counts as that hub model.

    Returns:
        Its conventions, or None for a model outside the table.
    """
    return next((known for known in conventions() if known.names(model)), None)


def hub_id_of(path: Path) -> str:
    """What a model folder is called: the hub id for one in the hub's cache, else its own name.

    Args:
        path: The folder.

    Returns:
        ``organisation/name``, or the folder's name.
    """
    repository = path.parent.parent
    if path.parent.name == "snapshots" and repository.name.startswith("models--"):
        return repository.name.removeprefix("models--").replace("--", "/", 1)
    return path.name


def _convention(record: dict[str, Any]) -> Convention:
    strangers = set(record) - _KEYS
    if strangers:
        raise DataError(f"conventions.yaml: {record.get('family')}: unknown {sorted(strangers)}")
    return Convention(
        family=record["family"],
        models=tuple(record["models"]),
        loader=record["loader"],
        pooling=record.get("pooling"),
        prompt_pooled=record.get("prompt_pooled", True),
        head=record.get("head"),
        normalise=record["normalise"],
        similarity=similarity_named(record["similarity"]),
        prompts={role: record[role].get("prompt", "") for role in ROLES},
        max_lengths={role: record[role].get("max_length") for role in ROLES},
        lower_case=record.get("lower_case", False),
        source=record["source"],
    )
