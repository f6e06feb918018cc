"""The training of a feedback encoder as a YAML file describes it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrievekit.errors import DataError, ParseError, UnknownNameError
from retrievekit.feedback.layouts import Layout
from retrievekit.train.recipes import read_settings

METHODS = ("ance-prf", "lol")
LOSSES = ("own", "in-batch", "pairwise")


@dataclass(frozen=True)
class FeedbackRecipe:
    """How a query encoder that reads passages is trained; every field is a setting of the file.

    The defaults are those of the released code of ANCE-PRF's reproducibility study (Li et al., ECIR
    2022), which had a learning rate of 1e-6; that of the original is 1e-5. Both move the query
    encoder only.

    Args:
        data: The data set, by name or folder.
        model: What training starts from, a folder or a hub id; by default the retriever's own query
            encoder.
        retriever: Whose hits are read, and whose passage vectors are fixed, as an expression.
        method: ``ance-prf``, or ``lol``, several revisions of a query with nested feedback.
        train: The split whose judgements are learnt.
        dev: The split by which the best weights are chosen.
        docs: Passages that are read; with ``lol`` the most, and any number from 0 up is trained.
        depth: The retriever's hits per query.
        loss: Of ``ance-prf``: ``own``, a softmax over the query's own passages; ``in-batch``, over
            those of all queries of a step; ``pairwise``, as in the original, one pair at a time.
        negatives: Negatives per query, drawn anew in each epoch; not of ``lol``.
        ranks: The first and the last rank that negatives come from; by default all of `depth`.
        compare: Of ``lol``: further revisions of a query in each step.
        weight: Of ``lol``: what the comparative regularisation counts.
        pool: Of ``lol``: first hits of each training query that make the pool, relevant ones aside.
        queries: Queries per step.
        max_length: Tokens of a query and its passages together.
        passage_length: Tokens of each passage; None for all.
        room: Positions that must be left for a passage to be begun.
        scale: What scores are multiplied by; by default 1, and 20 under the cosine similarity.
        learning_rate: The highest one; it rises over the warm-up and then falls to 0, linearly.
        warmup: Part of the steps in which it rises.
        weight_decay: AdamW's, but not of biases and norms.
        dropout: Part of the activations that is dropped while learning; None leaves it to the
            model.
        max_norm: What the norm of gradients is cut to.
        steps: How long to train; None leaves it to `epochs`.
        epochs: How many times to go through the training queries; give this or `steps`.
        evaluate_every: Steps between two evaluations on `dev`; the state is kept as often.
        dev_queries: Queries of `dev` that are asked, drawn by the seed; None asks all.
        budget: Texts that the encoder may read in all, evaluations included; more are refused
            before anything is done. None for no limit.
        seed: Decides everything that is random.
        dtype: ``float32``, ``bfloat16`` by autocast, or ``auto``: bfloat16 where the processor has
            it.
        device: ``cpu`` or ``cuda``; by default the best there is.

    Raises:
        DataError: A value is out of range.
    """

    data: str
    model: str | None = None
    retriever: str = "minilm"
    method: str = "ance-prf"
    train: str = "train"
    dev: str = "dev"
    docs: int = 3
    depth: int = 1000
    loss: str = "own"
    negatives: int = 20
    ranks: tuple[int, int] | None = None
    compare: int = 1
    weight: float = 1.0
    pool: int = 20
    queries: int = 32
    max_length: int = 512
    passage_length: int | None = None
    room: int = 0
    scale: float | None = None
    learning_rate: float = 1e-6
    warmup: float = 0.1
    weight_decay: float = 0.0
    dropout: float | None = None
    max_norm: float = 1.0
    steps: int | None = None
    epochs: float | None = None
    evaluate_every: int = 100
    dev_queries: int | None = None
    budget: int | None = None
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            problem = _problem(setting, value)
            if problem is not None:
                raise DataError(f"{setting.name} is {value!r}, but must be {problem}")
        first, last = self.band
        object.__setattr__(self, "ranks", (first, last))
        if not 1 <= first <= last <= self.depth:
            raise DataError(f"ranks are {first} to {last}, but the depth is {self.depth}")
        if (self.steps is None) == (self.epochs is None):
            raise DataError("give either steps or epochs")
        if self.method == "lol" and self.compare > self.docs:
            raise DataError(
                f"compare is {self.compare}, but there are only {self.docs + 1} numbers of "
                f"passages, 0 to {self.docs}, that revisions differ in"
            )
        if max(self.docs, self.pool) > self.depth:
            raise DataError(f"docs and pool are hits; depth is only {self.depth}")
        _ = self.layout

    @property
    def band(self) -> tuple[int, int]:
        """The ranks that negatives come from."""
        return (1, self.depth) if self.ranks is None else (self.ranks[0], self.ranks[1])

    @property
    def layout(self) -> Layout:
        """How a query and its passages are joined."""
        return Layout(self.max_length, self.passage_length, self.room)

    @property
    def revisions(self) -> int:
        """Texts that are read of each query in a step."""
        return 1 + self.compare if self.method == "lol" else 1

    @property
    def trained_docs(self) -> tuple[int, int]:
        """The fewest and the most passages that are read."""
        return (0 if self.method == "lol" else self.docs, self.docs)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON, in the order of the fields."""
        plain = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {**plain, "ranks": list(self.band)}

    def replaced(self, **changes: Any) -> FeedbackRecipe:
        """The recipe with other values.

        Args:
            changes: Values by setting. Of `steps` and `epochs` one puts the other out.

        Returns:
            The new recipe.

        Raises:
            UnknownNameError: No such setting.
            DataError: A value is out of range.
        """
        return feedback_recipe({**self.to_dict(), **_one_length(changes), **changes})


def _one_length(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a change of `steps` or `epochs` puts out, and ranks that another depth does not have."""
    out: dict[str, Any] = {}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if changes.get(one) is not None and other not in changes:
            out[other] = None
    if "depth" in changes and "ranks" not in changes:
        out["ranks"] = None
    return out


def feedback_recipe(values: Mapping[str, Any]) -> FeedbackRecipe:
    """A recipe from plain values.

    Args:
        values: Values by setting.

    Returns:
        The recipe.

    Raises:
        UnknownNameError: No such setting.
        DataError: One is missing or out of range.
    """
    known = {one.name: one for one in dataclasses.fields(FeedbackRecipe)}
    for name in values:
        if name not in known:
            raise UnknownNameError.among("setting", str(name), known)
    if "data" not in values:
        raise DataError("'data' is missing")
    given = dict(values)
    for name, value in values.items():
        # YAML reads 5e-5 as a text: its numbers need a point.
        if isinstance(value, str) and _NUMBERS.get(name, (str,))[0] is float:
            try:
                given[name] = float(value)
            except ValueError:
                given[name] = value
    return FeedbackRecipe(**given)


def read_feedback_recipe(
    path: str | Path, changes: Mapping[str, Any] | None = None
) -> FeedbackRecipe:
    """Read a recipe from YAML.

    Args:
        path: The file, a mapping of settings.
        changes: Values that stand above those of the file.

    Returns:
        The recipe.

    Raises:
        MissingDataError: No such file.
        ParseError: It is no YAML, or a setting is unknown, given twice, missing or out of range.
    """
    values, changes = read_settings(path), dict(changes or {})
    try:
        return feedback_recipe({**values, **_one_length(changes), **changes})
    except (DataError, UnknownNameError) as why:
        raise ParseError(path, None, str(why)) from why


_NUMBERS: dict[str, tuple[type, float, float]] = {
    "docs": (int, 1, math.inf),
    "depth": (int, 1, math.inf),
    "negatives": (int, 1, math.inf),
    "compare": (int, 0, math.inf),
    "weight": (float, 0, math.inf),
    "pool": (int, 1, math.inf),
    "queries": (int, 1, math.inf),
    "max_length": (int, Layout.least, math.inf),
    "passage_length": (int, 1, math.inf),
    "room": (int, 0, math.inf),
    "scale": (float, 1e-6, math.inf),
    "learning_rate": (float, 0, 1),
    "warmup": (float, 0, 1),
    "weight_decay": (float, 0, 1),
    "dropout": (float, 0, 1),
    "max_norm": (float, 0, math.inf),
    "steps": (int, 1, math.inf),
    "epochs": (float, 0, math.inf),
    "evaluate_every": (int, 1, math.inf),
    "dev_queries": (int, 1, math.inf),
    "budget": (int, 1, math.inf),
    "seed": (int, 0, 2**32 - 1),
}
_WORDS = {
    "method": METHODS,
    "loss": LOSSES,
    "dtype": ("auto", "float32", "bfloat16"),
    "device": ("cpu", "cuda"),
}


def _problem(setting: dataclasses.Field[Any], value: Any) -> str | None:
    """What a setting must be, where it is not."""
    name = setting.name
    if value is None:
        return None if setting.default is None else "given"
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
        pair = isinstance(value, (list, tuple)) and len(value) == 2
        whole = pair and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        return None if whole else "[first, last], such as [1, 100]"
    return None if isinstance(value, str) and value else "a text"
