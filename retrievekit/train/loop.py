"""The steps of a reranker's training, on the trainer of sentence-transformers.

The trainer makes steps; what is learnt in each, where a training goes on after a kill, and which
weights are kept is decided here. It saves nothing itself, since its checkpoints are pickles.
"""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset as Table
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback, TrainerCallback

from retrievekit.errors import NonFiniteError
from retrievekit.rerank.pairs import inputs_of, tokenized
from retrievekit.train.checkpoints import State, optimiser_tensors, restore_optimiser, seed_step
from retrievekit.train.drawing import Drawing
from retrievekit.train.losses.adapter import CrossEncoderLoss
from retrievekit.train.recipes import RerankerRecipe
from retrievekit.train.starting import is_head


class Precision:
    """What a model computes in; its last layer computes in float32 in any case.

    In bfloat16 a score of 8 has no neighbours nearer than 0.06, and documents would tie.

    Args:
        network: The cross-encoder.
        narrow: Whether the rest computes in bfloat16.
    """

    def __init__(self, network: CrossEncoder, narrow: bool) -> None:
        self.device = network.device.type
        self.narrow = narrow
        linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
        last = next(part for part in reversed(linear) if part.out_features == network.num_labels)
        last.forward = functools.partial(_in_float32, last)  # type: ignore[method-assign]

    def __call__(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the model computes so."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.narrow)


def _in_float32(layer: nn.Linear, given: Tensor) -> Tensor:
    with torch.autocast(given.device.type, enabled=False):
        return functional.linear(given.float(), layer.weight, layer.bias)


class RowsLoss(CrossEncoderLoss):
    """A loss on lists whose pairs are rows of texts, read as the reranker will read them.

    Queries stay whole and documents are cut, where the trainer's own way cuts the longer of both.

    Args:
        model: The cross-encoder.
        loss: The loss on lists.
        queries: Words of queries, by row.
        documents: Words of documents, by row.
        max_length: Tokens of a pair.
        precision: What the model computes in.
    """

    def __init__(
        self,
        model: CrossEncoder,
        loss: nn.Module,
        queries: Sequence[str],
        documents: Sequence[str],
        max_length: int,
        precision: Precision,
    ) -> None:
        super().__init__(model, loss)
        self._queries = queries
        self._documents = documents
        self._max_length = max_length
        self._precision = precision

    def _scores(self, pairs: list[tuple[Any, Any]], prompt: str | None, task: str | None) -> Tensor:
        texts = [(self._queries[query], self._documents[doc]) for query, doc in pairs]
        tokens = tokenized(self.model.tokenizer, texts, limit=self._max_length)
        with self._precision():
            scores = self.model(inputs_of(self.model, tokens))["scores"]
        logits: Tensor = scores.view(-1).float()
        return logits


@dataclass
class Progress:
    """How far a training is.

    Args:
        step: Steps that are done.
        total: All steps.
        steps: Steps made by this process.
        pairs: Pairs of query and document seen by this process.
        seconds: Since it began or went on, evaluations left out.
        loss: The mean loss since the last evaluation.
        figure: The last evaluation's figure.
        best: The best one.
        evaluated: Whether this step was evaluated.
    """

    step: int
    total: int
    steps: int = 0
    pairs: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    figure: float | None = None
    best: float | None = None
    evaluated: bool = False


@dataclass
class Steps:
    """A training that goes on step by step, and what it has come to.

    Args:
        network: The model that is trained.
        loss: The loss on rows.
        drawing: What each step learns from.
        recipe: The recipe.
        total: All steps.
        query_rows: Rows of queries by id.
        doc_rows: Rows of documents by id.
        evaluate: The model's figure on the split that weights are chosen by.
        save: Keeps a state; told whether it is the best so far.
        told: Told how far it is, after each step.
        log: Evaluations so far: step, mean loss since the last, figure.
        seconds: What steps of earlier calls took, evaluations left out.
    """

    network: CrossEncoder
    loss: RowsLoss
    drawing: Drawing
    recipe: RerankerRecipe
    total: int
    query_rows: Mapping[str, int]
    doc_rows: Mapping[str, int]
    evaluate: Callable[[], float]
    save: Callable[[State, bool], None]
    told: Callable[[Progress], None] | None
    log: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, state: State | None) -> None:
        """Make all steps that are left.

        Args:
            state: What to go on from; None begins.

        Raises:
            NonFiniteError: The loss is NaN or infinite.
        """
        done = 0
        optimiser = self._optimiser()
        if state is not None:
            done = int(state.notes["step"])
            self.log = list(state.notes["log"])
            self.seconds = float(state.notes["seconds"])
            self.network.load_state_dict(dict(state.weights))
            restore_optimiser(optimiser, self.network, state.optimiser)
        if done >= self.total:
            return
        shape = functools.partial(_share, total=self.total, warmup=self.recipe.warmup, done=done)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, shape)
        with tempfile.TemporaryDirectory(prefix="retrievekit-") as nowhere:
            trainer = CrossEncoderTrainer(
                model=self.network,
                args=self._arguments(nowhere, self.total - done),
                train_dataset=self._table(done),
                loss=self.loss,
                optimizers=(optimiser, schedule),
            )
            # It writes figures to stdout, which is for data.
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(_Watch(self, optimiser, done))
            trainer.train()

    def _arguments(self, folder: str, steps: int) -> CrossEncoderTrainingArguments:
        arguments = CrossEncoderTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=self.recipe.queries,
            max_grad_norm=self.recipe.max_norm,
            seed=self.recipe.seed,
            use_cpu=self.network.device.type == "cpu",
            batch_sampler=_in_order,
            dataloader_pin_memory=self.network.device.type != "cpu",
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        # Several devices would make a step of several batches.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        return arguments

    def _table(self, done: int) -> Table:
        """What is left to learn, by rows, one list per row."""
        lists = [one for step in range(done, self.total) for one in self.drawing.step(step)]
        return Table.from_dict(
            {
                "query": [self.query_rows[mined.query_id] for mined, _ in lists],
                "documents": [[self.doc_rows[doc] for doc, _ in docs] for _, docs in lists],
                "label": [[float(grade) for _, grade in docs] for _, docs in lists],
            }
        )

    def _optimiser(self) -> torch.optim.AdamW:
        recipe = self.recipe
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                # Biases and norms, which have one axis, do not decay.
                groups.setdefault((parameter.ndim > 1, is_head(name)), []).append(parameter)
        head_rate = recipe.head_learning_rate
        rates = (recipe.learning_rate, recipe.learning_rate if head_rate is None else head_rate)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "weight_decay": recipe.weight_decay if decays else 0.0,
                    "lr": rates[head],
                }
                for (decays, head), parameters in groups.items()
            ]
        )


def _share(step: int, *, total: int, warmup: float, done: int) -> float:
    """The learning rate's share of its highest: up over the warm-up, then down to 0, linearly."""
    step += done
    rising = max(1, round(total * warmup)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (total - step) / max(1, total - rising))


def _in_order(dataset: Any, *, batch_size: int, **_: Any) -> Any:
    return BatchSampler(SequentialSampler(dataset), batch_size, drop_last=False)


class _Watch(TrainerCallback):
    """Seeds each step, evaluates at intervals, and keeps states."""

    def __init__(self, steps: Steps, optimiser: torch.optim.Optimizer, done: int) -> None:
        self._steps = steps
        self._optimiser = optimiser
        self._done = done
        self._losses: list[Tensor] = []
        self._began = time.perf_counter()
        best = max((entry["figure"] for entry in steps.log), default=None)
        self._progress = Progress(done, steps.total, best=best)
        loss = steps.loss.loss
        self._generators = [v for v in vars(loss).values() if isinstance(v, torch.Generator)]
        steps.loss.register_forward_hook(self._heard)

    def _heard(self, module: nn.Module, given: Any, loss: Tensor) -> None:
        self._losses.append(loss.detach())
        self._progress.pairs += sum(len(documents) for documents in given[0][1])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = self._done + state.global_step
        seed_step(self._steps.recipe.seed, step)
        for generator in self._generators:
            generator.manual_seed(torch.initial_seed())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        steps, progress = self._steps, self._progress
        progress.step, progress.steps = self._done + state.global_step, state.global_step
        last = float(self._losses[-1])
        if not math.isfinite(last):
            raise NonFiniteError(
                f"the loss of step {progress.step} is {last}; lower learning_rate, or compute in "
                "float32"
            )
        progress.seconds += time.perf_counter() - self._began
        progress.loss = float(torch.stack(self._losses).mean())
        every = steps.recipe.evaluate_every
        progress.evaluated = progress.step % every == 0 or progress.step == steps.total
        if progress.evaluated:
            self._evaluate()
        if steps.told is not None:
            steps.told(progress)
        self._began = time.perf_counter()

    def _evaluate(self) -> None:
        steps, progress = self._steps, self._progress
        steps.network.eval()
        progress.figure = steps.evaluate()
        is_best = progress.best is None or progress.figure > progress.best
        progress.best = progress.figure if is_best else progress.best
        steps.log.append({"step": progress.step, "loss": progress.loss, "figure": progress.figure})
        self._losses = []
        notes = {
            "step": progress.step,
            "log": steps.log,
            "seconds": steps.seconds + progress.seconds,
        }
        weights = steps.network.state_dict()
        moments = optimiser_tensors(self._optimiser, steps.network)
        steps.save(State(weights, moments, notes), is_best)
        if progress.step == steps.total:
            steps.seconds += progress.seconds
