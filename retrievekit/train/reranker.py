"""Training a cross-encoder to rerank: from a recipe to a model folder, through any kill.

While a training runs, its state stands beside the output, in ``OUTPUT.training``; called again with
the same recipe it goes on from there, and ends with the weights that it would have had anyway (on
one machine, where its threads add numbers in one order). The output is a folder of safetensors with
a card, which `CrossEncoderReranker` and sentence-transformers' ``CrossEncoder`` load.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrievekit import registry
from retrievekit.data.download import replacing
from retrievekit.encode.backends.hardware import found_device, has_bfloat16, machine
from retrievekit.encode.folders import content_of
from retrievekit.encode.quiet import without_bars
from retrievekit.errors import DataError, MissingExtraError
from retrievekit.language.batches import in_token_batches
from retrievekit.rerank.pairs import Tokens, run, tokenized
from retrievekit.run import Run
from retrievekit.train.cards import versions, write_card
from retrievekit.train.checkpoints import State, read_state, write_state
from retrievekit.train.drawing import Drawing
from retrievekit.train.material import First, Task, gather
from retrievekit.train.mining import Mined
from retrievekit.train.recipes import RerankerRecipe
from retrievekit.train.starting import base_folder, set_dropout, start_model

if TYPE_CHECKING:
    from retrievekit.train.loop import Precision, Progress

log = logging.getLogger(__name__)

WORK = ".training"
"""What the name of the folder ends in that holds the state of a training."""

_TOKENS = 4_096


@dataclass(frozen=True)
class Trained:
    """A reranker that was trained.

    Args:
        path: Its folder.
        figure: Its nDCG@10 on the split that weights were chosen by.
        first: That of the first stage.
        best_step: The step whose weights were kept.
        steps: All steps.
        seconds: What the steps took.
    """

    path: Path
    figure: float
    first: float
    best_step: int
    steps: int
    seconds: float


def train_reranker(
    recipe: RerankerRecipe,
    output: str | Path,
    *,
    first: First | None = None,
    told: Callable[[Progress], None] | None = None,
    restart: bool = False,
) -> Trained:
    """Train a cross-encoder by a recipe, or go on where an earlier call was stopped.

    Args:
        recipe: The recipe.
        output: The folder to make; it must not be there.
        first: Makes the first stage of the corpus, where it is not BM25.
        told: Told how far it is, after each step.
        restart: Whether to begin anew where there is the state of a stopped training.

    Returns:
        What was trained.

    Raises:
        MissingExtraError: The trainer's own needs are not installed.
        DataError: The output is there; a stopped training had another recipe; or the data or the
            model do not fit the recipe.
        NonFiniteError: The loss became NaN or infinite.
    """
    output = Path(output)
    if output.exists():
        raise DataError(f"{output} is there; name another folder, or remove it")
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("train", "accelerate", "training")
    work = output.with_name(output.name + WORK)
    if restart and work.exists():
        shutil.rmtree(work)
    state_file, best_file = work / "state.safetensors", work / "best.safetensors"
    _begin(recipe, work, state_file.exists())
    device = found_device(recipe.device)
    narrow = recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and has_bfloat16(device))
    base = base_folder(recipe.model)
    material = gather(recipe, first)
    drawing = Drawing(
        material.mined, recipe.seed, recipe.queries, recipe.positives, recipe.negatives
    )
    total = recipe.steps or max(1, math.ceil((recipe.epochs or 0) * drawing.steps_per_epoch))
    network = start_model(base.path, seed=recipe.seed, max_length=recipe.max_length, device=device)
    if recipe.dropout is not None:
        set_dropout(network, recipe.dropout)

    from retrievekit.train.loop import Precision, RowsLoss, Steps

    _check_queries(network, material.mined, recipe.max_length)
    precision = Precision(network, narrow)
    corpus = material.corpus
    lists = DevLists(network, material.task, corpus.contents(), corpus.ids, recipe.max_length)
    loss = RowsLoss(
        network,
        made_loss(recipe),
        [one.query for one in material.mined],
        lists.documents,
        recipe.max_length,
        precision,
    )

    def save(state: State, is_best: bool) -> None:
        if is_best:
            write_state(State(state.weights, {}, {"step": state.notes["step"]}), best_file)
        write_state(state, state_file)

    steps = Steps(
        network,
        loss,
        drawing,
        recipe,
        total,
        {one.query_id: row for row, one in enumerate(material.mined)},
        {doc: row for row, doc in enumerate(corpus.ids)},
        lambda: material.task.figure(lists.reranked(precision)),
        save,
        told,
    )
    steps.run(read_state(state_file) if state_file.exists() else None)
    best = max(steps.log, key=lambda entry: entry["figure"])
    network.load_state_dict(dict(read_state(best_file).weights))
    trained = Trained(
        output,
        best["figure"],
        material.task.figure(),
        int(best["step"]),
        total,
        steps.seconds,
    )
    facts = {
        "recipe": recipe.to_dict(),
        "base": {"model": base.model, "content": content_of(base.path)},
        "material": dict(material.facts),
        "result": {
            "figure": trained.figure,
            "best_step": trained.best_step,
            "steps": total,
            "seconds": trained.seconds,
            "dtype": "bfloat16" if narrow else "float32",
        },
        "log": steps.log,
        "versions": versions(),
        "machine": machine(device),
    }
    _finish(network, facts, work, output)
    return trained


def made_loss(recipe: RerankerRecipe) -> Any:
    """The loss that a recipe names.

    Args:
        recipe: The recipe.

    Returns:
        The module.

    Raises:
        DataError: Its settings do not fit.
    """
    make = registry.resolve("loss", recipe.loss)
    # Grades may be above 1, which binary cross-entropy would take for no probability.
    usual: dict[str, Any] = {"threshold": 1} if recipe.loss == "bce" else {}
    try:
        return make(**{**usual, **recipe.loss_settings})
    except TypeError as why:
        raise DataError(f"loss_settings of {recipe.loss}: {why}") from why


class DevLists:
    """Tokens of the pairs that weights are chosen by, read once.

    Args:
        network: The cross-encoder.
        task: The queries and their hits.
        documents: Words of all documents, by row.
        ids: Ids of the documents.
        max_length: Tokens of a pair.
    """

    def __init__(
        self, network: Any, task: Task, documents: list[str], ids: Any, max_length: int
    ) -> None:
        self.documents = documents
        self._network = network
        self._run = task.run
        owner = np.repeat(np.arange(len(task.run)), np.diff(task.run.offsets))
        queries = task.run.queries.texts if len(task.run) else []
        rows = task.run.docs.translate(ids)[task.run.rows]
        pairs = [
            (queries[query], documents[row])
            for query, row in zip(owner.tolist(), rows.tolist(), strict=True)
        ]
        self._tokens: list[Tokens] = tokenized(network.tokenizer, pairs, limit=max_length)

    def reranked(self, precision: Precision) -> Run:
        """The hits by the model's present scores.

        Args:
            precision: What the model computes in.

        Returns:
            The run.
        """
        scores = np.empty(len(self._tokens), np.float64)
        lengths = [len(tokens) for tokens in self._tokens]
        with precision():
            for rows in in_token_batches(lengths, _TOKENS):
                scores[rows] = run(self._network, [self._tokens[row] for row in rows])[:, 0]
        old = self._run
        return Run.from_arrays(old.queries, old.docs, old.offsets, old.rows, scores)


def _check_queries(network: Any, mined: Sequence[Mined], max_length: int) -> None:
    """Refuse what would stop the training at some step: a query that leaves a document no room."""
    alone = tokenized(network.tokenizer, [(one.query, "") for one in mined], limit=None)
    for one, tokens in zip(mined, alone, strict=True):
        if len(tokens) >= max_length:
            raise DataError(
                f"the query {one.query_id!r} is read as {len(tokens)} tokens, which leaves no room "
                f"for a document within max_length {max_length}; raise it, or learn from examples "
                "without this query"
            )


def _begin(recipe: RerankerRecipe, work: Path, stopped: bool) -> None:
    """Make the folder of the state, or check that a state that is there is this recipe's."""
    file = work / "recipe.json"
    asked = recipe.to_dict()
    if stopped and file.exists():
        kept = json.loads(file.read_bytes())
        other = [name for name, value in asked.items() if kept.get(name) != value]
        if other:
            told = ", ".join(f"{name} {kept.get(name)!r}, now {asked[name]!r}" for name in other)
            raise DataError(
                f"{work} holds a training that was stopped, of another recipe ({told}); name "
                "another output, or begin anew (restart)"
            )
        log.info("going on with the training in %s", work)
        return
    work.mkdir(parents=True, exist_ok=True)
    with replacing(file) as fresh:
        fresh.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")


def _finish(network: Any, facts: dict[str, Any], work: Path, output: Path) -> None:
    """Write the model and its card, put them into their place at once, and forget the state."""
    made = work / "model"
    if made.exists():
        shutil.rmtree(made)
    with without_bars():
        network.save_pretrained(str(made), create_model_card=False)
    write_card(made, facts)
    # Weights are written by way of a temporary file, which nobody else may read.
    for file in made.iterdir():
        file.chmod((made / "README.md").stat().st_mode)
    made.rename(output)
    shutil.rmtree(work)
