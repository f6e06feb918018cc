"""The steps of a feedback encoder's training.

The trainer of sentence-transformers makes pairs of texts into pairs of vectors. Here one side are
vectors that an index holds and the other texts of several passages in a layout of their own, so the
steps are made by hand: AdamW, a learning rate that rises and falls linearly, clipped gradients.
What a step holds depends on the seed and its number alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrievekit.encode.batches import Lengths, in_batches
from retrievekit.errors import DataError, NonFiniteError
from retrievekit.feedback.encoder import FeedbackEncoder, runner
from retrievekit.train.checkpoints import State, optimiser_tensors, restore_optimiser, seed_step
from retrievekit.train.drawing import Drawing
from retrievekit.train.lol import lol_loss, nested_feedback, pool_of, reformulation_losses
from retrievekit.train.mining import Mined, generator_of
from retrievekit.train.prf_losses import in_batch_loss, own_loss, pairwise_loss
from retrievekit.train.prf_material import FeedbackMaterial, Learnt
from retrievekit.train.prf_recipes import FeedbackRecipe

COSINE_SCALE = 20.0
"""What scores of vectors of length 1 are multiplied by, where the recipe does not say."""


@dataclass
class FeedbackProgress:
    """How far a training is.

    Args:
        step: Steps that are done.
        total: All steps.
        steps: Steps made by this process.
        seconds: What those took, evaluations left out.
        loss: The mean loss since the last evaluation.
        figure: The last evaluation's figure.
        best: The best one.
        evaluated: Whether this step was evaluated.
    """

    step: int
    total: int
    steps: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    figure: float | None = None
    best: float | None = None
    evaluated: bool = False


class Batches:
    """What a step learns from, as texts' ids and fixed vectors.

    Args:
        material: What is read.
        encoder: What reads.
        recipe: The recipe.
        device: Where the model computes.

    Raises:
        DataError: No training query fits into what the model reads.
    """

    def __init__(
        self,
        material: FeedbackMaterial,
        encoder: FeedbackEncoder,
        recipe: FeedbackRecipe,
        device: str,
    ) -> None:
        self._encoder, self._recipe, self._device = encoder, recipe, device
        self._index = material.index
        corpus = material.index.corpus
        assert corpus is not None
        # With all its feedback a query is the longest; those that do not fit alone are left out.
        alone = encoder.joined([one.mined.query for one in material.learnt],
                               [[] for _ in material.learnt])  # fmt: skip
        learnt = [one for one, text in zip(material.learnt, alone, strict=True) if text is not None]
        if not learnt:
            raise DataError(f"all training queries are longer than {encoder.layout.max_length} ids")
        self.left_out = len(material.learnt) - len(learnt)
        self._learnt = {one.mined.query_id: one for one in learnt}
        read = sorted({row for one in learnt for row in one.feedback[: recipe.docs]})
        words = corpus.contents(np.array(read, np.int64)) if read else []
        self._words = dict(zip(read, words, strict=True))
        self.drawing = Drawing(
            [one.mined for one in learnt], recipe.seed, recipe.queries, 1, recipe.negatives
        )
        self.scale = recipe.scale or (
            COSINE_SCALE if material.index.similarity == "cosine" else 1.0
        )
        rows = []
        if recipe.method == "lol":
            rows = pool_of(
                [one.feedback[: recipe.pool] for one in learnt], [one.relevant for one in learnt]
            )
        self._places = {row: place for place, row in enumerate(rows)}
        self._pool = self._fixed(rows)

    def _fixed(self, rows: list[int]) -> Tensor:
        """Vectors of passages, as the index holds them."""
        vectors = self._index.vectors[np.array(rows, np.int64)]
        return torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(self._device)

    def texts(self, lists: list[tuple[Learnt, list[int]]]) -> list[list[int]]:
        """Ids of queries with some of their hits.

        Args:
            lists: Queries, each with places of hits, in the order in which they are read.

        Returns:
            Ids of each text.
        """
        words = [one.mined.query for one, _ in lists]
        passages = [[self._words[one.feedback[n]] for n in places] for one, places in lists]
        return [text.ids for text in self._encoder.joined(words, passages) if text is not None]

    def loss(self, step: int, *, narrow: bool) -> Tensor:
        """The loss of one step, with its gradient.

        Args:
            step: Its number.
            narrow: Whether the transformer computes in bfloat16.

        Returns:
            A float32 scalar, of vectors ``(queries, dim)``.
        """
        drawn = self.drawing.step(step)
        if self._recipe.method == "lol":
            return self._lol([self._learnt[one.query_id] for one, _ in drawn], step, narrow)
        lists = [
            (self._learnt[one.query_id], list(range(len(self._feedback(one))))) for one, _ in drawn
        ]
        vectors = self._vectors(self.texts(lists), narrow)
        ids = self._index.ids
        rows = [[ids.row(doc) for doc, _ in docs] for _, docs in drawn]
        if self._recipe.loss == "in-batch":
            flat = [row for own in rows for row in own]
            starts = np.cumsum([0, *map(len, rows)])[:-1]
            relevant = [{*self._learnt[one.query_id].relevant} for one, _ in drawn]
            banned = torch.tensor([[row in own for row in flat] for own in relevant])
            targets = torch.tensor(starts)
            return in_batch_loss(
                vectors, self._fixed(flat), targets.to(vectors.device),
                banned.to(vectors.device), self.scale,
            )  # fmt: skip
        width = max(map(len, rows))
        mask = torch.tensor([[place < len(own) for place in range(width)] for own in rows])
        padded = [row for own in rows for row in own + own[:1] * (width - len(own))]
        passages = self._fixed(padded).reshape(len(rows), width, -1)
        loss = own_loss if self._recipe.loss == "own" else pairwise_loss
        return loss(vectors, passages, mask.to(vectors.device), self.scale)

    def _lol(self, learnt: list[Learnt], step: int, narrow: bool) -> Tensor:
        recipe = self._recipe
        lists = []
        for one in learnt:
            generator = generator_of(recipe.seed, one.mined.query_id, f"revisions {step}")
            sets = nested_feedback(len(one.feedback), recipe.docs, recipe.compare, generator)
            lists += [(one, places) for places in sets]
        vectors = self._vectors(self.texts(lists), narrow)
        relevant = torch.zeros(len(learnt), len(self._places), dtype=torch.bool)
        for place, one in enumerate(learnt):
            relevant[place, [self._places[row] for row in one.relevant]] = True
        losses = reformulation_losses(
            vectors.reshape(len(learnt), recipe.revisions, -1),
            self._pool,
            relevant.to(vectors.device),
            self.scale,
        )
        return lol_loss(losses, recipe.weight)

    def _feedback(self, mined: Mined) -> tuple[int, ...]:
        return self._learnt[mined.query_id].feedback[: self._recipe.docs]

    def _vectors(self, texts: list[list[int]], narrow: bool) -> Tensor:
        ids, mask = self._encoder.reader.padded(texts)
        vectors = self._encoder.reader.vectors(ids, mask, narrow=narrow)
        if self._index.similarity == "cosine":
            vectors = nn.functional.normalize(vectors, dim=1)
        return vectors


class DevTexts:
    """The texts that weights are chosen by, joined once.

    Args:
        material: What is read.
        encoder: What reads.
        docs: Passages of each query.
        batch_size: Texts that pass through the model together.
    """

    def __init__(
        self, material: FeedbackMaterial, encoder: FeedbackEncoder, docs: int, batch_size: int = 32
    ) -> None:
        self._task, self._encoder, self._batch_size = material.task, encoder, batch_size
        run, corpus = material.task.first, material.index.corpus
        assert corpus is not None
        rows = run.docs.translate(material.index.ids)[run.rows]
        passages = [
            corpus.contents(rows[start : min(start + docs, stop)])
            for start, stop in zip(run.offsets[:-1].tolist(), run.offsets[1:].tolist(), strict=True)
        ]
        joined = encoder.joined(run.queries.texts, passages)
        self._rows = [row for row, text in enumerate(joined) if text is not None]
        self._texts = [text.ids for text in joined if text is not None]

    def __len__(self) -> int:
        """How many texts are read."""
        return len(self._texts)

    def vectors(self, *, narrow: bool) -> NDArray[np.float32]:
        """Vectors of the queries by the model's present weights.

        Args:
            narrow: Whether the transformer computes in bfloat16.

        Returns:
            float32 ``(nq, dim)``; queries too long to be read have the retriever's own.
        """
        found = self._task.index.query_vectors(self._task.queries).copy()
        found[self._rows] = in_batches(
            [f"dev query {row}" for row in self._rows],
            "query",
            Lengths(list(map(len, self._texts)), True, None),
            runner(self._encoder.reader, self._texts, narrow=narrow),
            name=self._encoder.name,
            dim=self._encoder.dim,
            batch_size=self._batch_size,
            dtype="bfloat16" if narrow else "float32",
        ).vectors
        return found


@dataclass
class FeedbackSteps:
    """A training that goes on step by step, and what it has come to.

    Args:
        network: What is trained.
        batches: What each step learns from.
        recipe: The recipe.
        total: All steps.
        narrow: Whether the transformer computes in bfloat16.
        evaluate: The model's figure on the split that weights are chosen by.
        save: Keeps a state; told whether it is the best so far.
        told: Told how far it is, after each step.
        log: Step, loss and figure of each evaluation.
        seconds: What the steps took, evaluations left out.
    """

    network: nn.Module
    batches: Batches
    recipe: FeedbackRecipe
    total: int
    narrow: bool
    evaluate: Callable[[], float]
    save: Callable[[State, bool], None]
    told: Callable[[FeedbackProgress], None] | None
    log: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, state: State | None) -> None:
        """Make all steps that are left.

        Args:
            state: What to go on from; None begins.

        Raises:
            NonFiniteError: The loss is NaN or infinite.
        """
        done, optimiser = 0, self._optimiser()
        if state is not None:
            done = int(state.notes["step"])
            self.log = list(state.notes["log"])
            self.seconds = float(state.notes["seconds"])
            self.network.load_state_dict(dict(state.weights))
            restore_optimiser(optimiser, self.network, state.optimiser)
        best = max((entry["figure"] for entry in self.log), default=None)
        progress = FeedbackProgress(done, self.total, best=best)
        losses: list[float] = []
        for step in range(done, self.total):
            began = time.perf_counter()
            losses.append(self._step(step, optimiser))
            progress.step, progress.steps = step + 1, step + 1 - done
            progress.seconds += time.perf_counter() - began
            progress.loss = math.fsum(losses) / len(losses)
            last = progress.step == self.total
            progress.evaluated = progress.step % self.recipe.evaluate_every == 0 or last
            if progress.evaluated:
                self._evaluated(progress, optimiser)
                losses = []
            if self.told is not None:
                self.told(progress)
        self.seconds += progress.seconds

    def _step(self, step: int, optimiser: torch.optim.Optimizer) -> float:
        seed_step(self.recipe.seed, step)
        for group in optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * rate_share(
                step, self.total, self.recipe.warmup
            )
        self.network.train()
        loss = self.batches.loss(step, narrow=self.narrow)
        found = float(loss.detach())
        if not math.isfinite(found):
            raise NonFiniteError(
                f"the loss of step {step + 1} is {found}; lower learning_rate, or compute in "
                "float32"
            )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.max_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.max_norm)
        optimiser.step()
        return found

    def _evaluated(self, progress: FeedbackProgress, optimiser: torch.optim.Optimizer) -> None:
        self.network.eval()
        progress.figure = self.evaluate()
        is_best = progress.best is None or progress.figure > progress.best
        progress.best = progress.figure if is_best else progress.best
        self.log.append({"step": progress.step, "loss": progress.loss, "figure": progress.figure})
        notes = {
            "step": progress.step,
            "log": self.log,
            "seconds": self.seconds + progress.seconds,
        }
        moments = optimiser_tensors(optimiser, self.network)
        self.save(State(self.network.state_dict(), moments, notes), is_best)

    def _optimiser(self) -> torch.optim.AdamW:
        own = [p for p in self.network.parameters() if p.requires_grad]
        # Biases and norms, which have one axis, do not decay.
        return torch.optim.AdamW(
            [
                {"params": [p for p in own if p.ndim > 1],
                 "weight_decay": self.recipe.weight_decay},
                {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self.recipe.learning_rate,
        )  # fmt: skip


def rate_share(step: int, total: int, warmup: float) -> float:
    """The learning rate's share of its highest: up over the warm-up, then down to 0, linearly.

    Args:
        step: The step, from 0.
        total: All steps.
        warmup: Part of the steps in which it rises.

    Returns:
        The share, above 0 and at most 1.
    """
    rising = max(1, round(total * warmup)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising)
