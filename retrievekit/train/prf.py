"""Training a feedback encoder: from a recipe and a dense index to a model folder.

ANCE-PRF (Yu et al., CIKM 2021; Li et al., ECIR 2022) and LoL (Zhu et al., SIGIR 2022). While a
training runs, its state stands beside the output, in ``OUTPUT.training``; called again with the
same recipe it goes on from there, and ends with the weights that it would have had anyway (on one
machine, where its threads add numbers in one order). The output is a folder of safetensors with a
card, which `retrievekit.feedback.ance_prf.AncePRF` reads.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrievekit.data.download import replacing
from retrievekit.encode.backends.hardware import found_device, has_bfloat16, machine
from retrievekit.encode.folders import content_of
from retrievekit.errors import DataError
from retrievekit.feedback.encoder import FeedbackEncoder, Made
from retrievekit.index.dense import DenseIndex
from retrievekit.train.cards import versions
from retrievekit.train.checkpoints import State, read_state, write_state
from retrievekit.train.prf_cards import write_feedback_card
from retrievekit.train.prf_material import gather_feedback
from retrievekit.train.prf_recipes import FeedbackRecipe

if TYPE_CHECKING:
    from retrievekit.train.prf_loop import FeedbackProgress

log = logging.getLogger(__name__)

WORK = ".training"
"""What the name of the folder ends in that holds the state of a training."""


@dataclass(frozen=True)
class TrainedFeedback:
    """A feedback encoder that was trained.

    Args:
        path: Its folder.
        figure: Its nDCG@10 on the split that weights were chosen by.
        before: That of the model that training started from, with passages.
        retriever: That of the retriever alone.
        best_step: The step whose weights were kept; 0 where none was better than before.
        steps: All steps.
        passes: Texts that the encoder read, evaluations included.
        seconds: What the steps took.
    """

    path: Path
    figure: float
    before: float
    retriever: float
    best_step: int
    steps: int
    passes: int
    seconds: float


def train_prf(
    recipe: FeedbackRecipe,
    output: str | Path,
    *,
    index: DenseIndex,
    told: Callable[[FeedbackProgress], None] | None = None,
    restart: bool = False,
) -> TrainedFeedback:
    """Train a feedback encoder by a recipe, or go on where an earlier call was stopped.

    Args:
        recipe: The recipe.
        output: The folder to make; it must not be there.
        index: The index of the data set's documents by the retriever's encoder; it stays as it is.
        told: Told how far it is, after each step.
        restart: Whether to begin anew where there is the state of a stopped training.

    Returns:
        What was trained.

    Raises:
        DataError: The output is there; a stopped training had another recipe; the recipe needs
            more than its budget; or the data, the index or the model do not fit the recipe.
        NonFiniteError: The loss became NaN or infinite.
    """
    output = Path(output)
    if output.exists():
        raise DataError(f"{output} is there; name another folder, or remove it")
    work = output.with_name(output.name + WORK)
    if restart and work.exists():
        shutil.rmtree(work)
    device = found_device(recipe.device)
    narrow = recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and has_bfloat16(device))
    material = gather_feedback(recipe, index)
    encoder = FeedbackEncoder(
        recipe.model or index.card.name,
        index.card,
        layout=recipe.layout,
        device=device,
        revision=None if recipe.model else index.card.numerics.get("revision"),
    )

    from retrievekit.train.prf_loop import Batches, DevTexts, FeedbackSteps
    from retrievekit.train.starting import set_dropout

    batches = Batches(material, encoder, recipe, device)
    texts = DevTexts(material, encoder, recipe.docs)
    total = recipe.steps or max(
        1, math.ceil((recipe.epochs or 0) * batches.drawing.steps_per_epoch)
    )
    passes = passes_of(recipe, total, len(texts))
    if recipe.budget is not None and passes > recipe.budget:
        raise DataError(
            f"{total:,} steps and their evaluations read {passes:,} texts, and the budget is "
            f"{recipe.budget:,}; take fewer steps, queries or dev_queries, or a larger "
            "evaluate_every"
        )
    _begin(recipe, index, work)
    network = encoder.reader.network
    if recipe.dropout is not None:
        set_dropout(network, recipe.dropout)
    if batches.left_out:
        log.warning(
            "%d training queries are longer than %d ids and are left out",
            batches.left_out, recipe.max_length,
        )  # fmt: skip
    state_file, best_file = work / "state.safetensors", work / "best.safetensors"

    def evaluated() -> float:
        return material.task.figure(texts.vectors(narrow=narrow))

    def save(state: State, is_best: bool) -> None:
        if is_best:
            write_state(State(state.weights, {}, {"step": state.notes["step"]}), best_file)
        write_state(state, state_file)

    steps = FeedbackSteps(
        network, batches, recipe, total, narrow, evaluated, save, told
    )  # fmt: skip
    if state_file.exists():
        state = read_state(state_file)
    else:
        # The model that is trained may be better before than after.
        network.eval()
        steps.log = [{"step": 0, "loss": 0.0, "figure": evaluated()}]
        notes: dict[str, Any] = {"step": 0, "log": steps.log, "seconds": 0.0}
        state = State(network.state_dict(), {}, notes)
        save(state, True)
    steps.run(state)
    best = max(steps.log, key=lambda entry: entry["figure"])
    network.load_state_dict(dict(read_state(best_file).weights))
    trained = TrainedFeedback(
        output,
        best["figure"],
        steps.log[0]["figure"],
        material.task.figure(),
        int(best["step"]),
        total,
        passes,
        steps.seconds,
    )
    facts = {
        "recipe": recipe.to_dict(),
        "base": {
            "model": recipe.model or index.card.identity["model"],
            "content": content_of(encoder.folder),
        },
        "material": dict(material.facts),
        "result": {
            "figure": trained.figure,
            "before": trained.before,
            "best_step": trained.best_step,
            "steps": total,
            "passes": passes,
            "left_out": batches.left_out,
            "scale": batches.scale,
            "seconds": trained.seconds,
            "dtype": "bfloat16" if narrow else "float32",
        },
        "log": steps.log,
        "versions": versions(),
        "machine": machine(device),
    }
    _finish(encoder, Made(index.card, recipe.layout, recipe.trained_docs), facts, work, output)
    return trained


def passes_of(recipe: FeedbackRecipe, steps: int, dev: int) -> int:
    """How many texts an encoder reads in a training, evaluations included.

    Args:
        recipe: The recipe.
        steps: All steps.
        dev: Queries that weights are chosen by.

    Returns:
        The number.
    """
    evaluations = 1 + math.ceil(steps / recipe.evaluate_every)
    return steps * recipe.queries * recipe.revisions + evaluations * dev


def _begin(recipe: FeedbackRecipe, index: DenseIndex, work: Path) -> None:
    """Make the folder of the state, or check that it is this training's."""
    file = work / "recipe.json"
    asked = {**recipe.to_dict(), "index": index.fingerprint}
    if file.exists():
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


def _finish(
    encoder: FeedbackEncoder, made: Made, facts: dict[str, Any], work: Path, output: Path
) -> None:
    """Write the model and its card, put them into their place at once, and forget the state."""
    folder = work / "model"
    if folder.exists():
        shutil.rmtree(folder)
    encoder.reader.save(folder)
    made.write(folder)
    write_feedback_card(folder, facts)
    # Weights are written by way of a temporary file, which nobody else may read.
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod((folder / "README.md").stat().st_mode)
    folder.rename(output)
    shutil.rmtree(work)
