"""A reranker's training as a YAML file describes it.

Only the safe loader reads it; each fault names the file and the setting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrievekit import registry
from retrievekit.errors import DataError, MissingDataError, ParseError, UnknownNameError


@dataclass(frozen=True)
class RerankerRecipe:
    """How a cross-encoder is trained; every field is a setting of the file.

    Args:
        model: What training starts from: ``minilm``, a model folder or a hub id. A model that is no
            cross-encoder gets a last layer of random weights, drawn by the seed.
        data: The data set, by name or folder.
        train: The split whose judgements are learnt.
        dev: The split by which the best weights are chosen.
        first: The first stage, as an expression. Negatives are its hits, and on `dev` they are what
            is reranked.
        depth: Its hits per query, on both splits.
        loss: The registered name of one on lists: ``bce``, ``contrastive``, ``first``, ``lambda``,
            ``lipo``, ``listmle``, ``listnet``, ``pg-rank``, ``pld``, ``plistmle``, ``ranknet``.
        loss_settings: Settings of the loss.
        positives: Relevant documents per list, at most.
        positives_from: ``judged``, or only those that are ``retrieved`` by the first stage.
        negatives: Negatives per list, at most.
        ranks: The first and the last rank that negatives come from.
        examples: A file of queries with their documents, as `write_mined` writes it, to learn from
            instead of mining.
        queries: Lists per step.
        max_length: Tokens of query and document together.
        learning_rate: The highest one; it rises over the warm-up and then falls to 0, linearly.
        head_learning_rate: That of a new last layer; by default the same.
        warmup: Part of the steps in which it rises.
        weight_decay: AdamW's, but not of biases and norms.
        dropout: Part of the activations that is dropped while learning; None leaves it to the
            model. On a CPU the random numbers of 0.1 take as long as all else together.
        max_norm: What the norm of gradients is cut to.
        steps: How long to train; None leaves it to `epochs`.
        epochs: How many times to go through the training queries; give this or `steps`.
        evaluate_every: Steps between two evaluations on `dev`; the state is kept as often.
        dev_queries: Queries of `dev` that are asked, drawn by the seed; None asks all.
        dev_depth: Hits that are reranked there.
        seed: Decides everything that is random.
        dtype: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor has it. Weights
            and optimiser stay in float32.
        device: ``cpu`` or ``cuda``; by default the best there is.

    Raises:
        DataError: A value is out of range.
        UnknownNameError: No such loss.
    """

    model: str
    data: str
    train: str = "train"
    dev: str = "dev"
    first: str = "bm25"
    depth: int = 100
    loss: str = "listnet"
    loss_settings: Mapping[str, Any] = field(default_factory=dict)
    positives: int = 2
    positives_from: str = "judged"
    negatives: int = 4
    ranks: tuple[int, int] = (1, 100)
    examples: str | None = None
    queries: int = 4
    max_length: int = 192
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float | None = None
    max_norm: float = 1.0
    steps: int | None = None
    epochs: float | None = None
    evaluate_every: int = 100
    dev_queries: int | None = None
    dev_depth: int = 100
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "ranks", tuple(self.ranks))
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            problem = _problem(setting.name, value)
            if problem is not None:
                raise DataError(f"{setting.name} is {value!r}, but must be {problem}")
        registry.target("loss", self.loss)
        if (self.steps is None) == (self.epochs is None):
            raise DataError("give either steps or epochs")
        if self.ranks[1] > self.depth and self.examples is None:
            raise DataError(f"ranks go to {self.ranks[1]}, but depth is {self.depth}")

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON, in the order of the fields."""
        plain = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        plain["ranks"], plain["loss_settings"] = list(self.ranks), dict(self.loss_settings)
        return plain

    def replaced(self, **changes: Any) -> RerankerRecipe:
        """The recipe with other values.

        Args:
            changes: Values by setting. Of `steps` and `epochs` one puts the other out.

        Returns:
            The new recipe.

        Raises:
            UnknownNameError: No such setting, or no such loss.
            DataError: A value is out of range.
        """
        return recipe_of({**self.to_dict(), **_one_length(changes), **changes})


def _one_length(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a change of `steps` or `epochs` puts out."""
    if changes.get("steps") is not None and "epochs" not in changes:
        return {"epochs": None}
    if changes.get("epochs") is not None and "steps" not in changes:
        return {"steps": None}
    return {}


def recipe_of(values: Mapping[str, Any]) -> RerankerRecipe:
    """A recipe from plain values.

    Args:
        values: Values by setting.

    Returns:
        The recipe.

    Raises:
        UnknownNameError: No such setting, or no such loss.
        DataError: One is missing or out of range.
    """
    known = [one.name for one in dataclasses.fields(RerankerRecipe)]
    for name in values:
        if name not in known:
            raise UnknownNameError.among("setting", str(name), known)
    for name in ("model", "data"):
        if name not in values:
            raise DataError(f"{name!r} is missing")
    ranks = values.get("ranks", (1, 100))
    if not isinstance(ranks, (list, tuple)):
        raise DataError(f"ranks is {ranks!r}, but must be [first, last], such as [1, 100]")
    return RerankerRecipe(**{name: _number(name, value) for name, value in values.items()})


def _number(name: str, value: Any) -> Any:
    """A value as given, but for 5e-5, which YAML reads as a text: its numbers need a point."""
    if isinstance(value, str) and _NUMBERS.get(name, (str,))[0] is float:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def read_recipe(path: str | Path, changes: Mapping[str, Any] | None = None) -> RerankerRecipe:
    """Read a recipe from YAML.

    Args:
        path: The file, a mapping of settings.
        changes: Values that stand above those of the file. Of `steps` and `epochs` one puts the
            other out.

    Returns:
        The recipe.

    Raises:
        MissingDataError: No such file.
        ParseError: It is no YAML, or a setting is unknown, given twice, missing or out of range.
    """
    values, changes = read_settings(path), dict(changes or {})
    try:
        return recipe_of({**values, **_one_length(changes), **changes})
    except (DataError, UnknownNameError) as why:
        raise ParseError(path, None, str(why)) from why


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings of a recipe's file, not yet looked at.

    Args:
        path: The file, YAML, a mapping of settings.

    Returns:
        Values by setting.

    Raises:
        MissingDataError: No such file.
        ParseError: It is no YAML, no mapping, or a setting is given twice.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except FileNotFoundError as why:
        raise MissingDataError(f"no such file: {path}") from why
    except (yaml.YAMLError, ValueError, RecursionError) as why:
        mark = getattr(why, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        raise ParseError(path, line, f"not YAML: {getattr(why, 'problem', None) or why}") from why
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise ParseError(path, 1, "a recipe is a mapping of settings, such as 'data: scifact'")
    seen: set[str] = set()
    for key, _ in root.value:
        if key.value in seen:
            raise ParseError(path, key.start_mark.line + 1, f"{key.value!r} is given twice")
        seen.add(key.value)
    return values


_NUMBERS: dict[str, tuple[type, float, float]] = {
    "depth": (int, 1, math.inf),
    "positives": (int, 1, math.inf),
    "negatives": (int, 1, math.inf),
    "queries": (int, 1, math.inf),
    "max_length": (int, 8, math.inf),
    "learning_rate": (float, 0, 1),
    "head_learning_rate": (float, 0, 1),
    "warmup": (float, 0, 1),
    "weight_decay": (float, 0, 1),
    "dropout": (float, 0, 1),
    "max_norm": (float, 0, math.inf),
    "steps": (int, 1, math.inf),
    "epochs": (float, 0, math.inf),
    "evaluate_every": (int, 1, math.inf),
    "dev_queries": (int, 1, math.inf),
    "dev_depth": (int, 1, math.inf),
    "seed": (int, 0, 2**32 - 1),
}
_WORDS = {
    "positives_from": ("judged", "retrieved"),
    "dtype": ("auto", "float32", "bfloat16"),
    "device": ("cpu", "cuda"),
}
_OPTIONAL = (
    "examples",
    "head_learning_rate",
    "dropout",
    "steps",
    "epochs",
    "dev_queries",
    "device",
)


def _problem(name: str, value: Any) -> str | None:
    """What a setting must be, where it is not."""
    if value is None:
        return None if name in _OPTIONAL else "given"
    if name in _NUMBERS:
        kind, low, high = _NUMBERS[name]
        kinds = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return "a whole number" if kind is int else "a number"
        if not low <= value <= high or math.isinf(value):
            return f"at least {low:g}" + ("" if math.isinf(high) else f" and at most {high:g}")
        return None
    if name in _WORDS:
        return None if value in _WORDS[name] else f"one of {', '.join(_WORDS[name])}"
    if name == "ranks":
        whole = all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        fits = len(value) == 2 and whole and 1 <= value[0] <= value[1]
        return None if fits else "[first, last], such as [1, 100]"
    if name == "loss_settings":
        return None if isinstance(value, Mapping) else "a mapping of settings"
    return None if isinstance(value, str) and value else "a text"
