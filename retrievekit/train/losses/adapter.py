"""`CrossEncoderLoss`: any loss on lists as a loss of sentence-transformers' `CrossEncoderTrainer`.

Data sets have a column of queries, one of lists of documents, and one of lists of labels, as for
the listwise losses of sentence-transformers. Theirs hold the model and score the documents
themselves; here that is this one module, and the losses stay usable without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from retrievekit.errors import DataError
from retrievekit.train.losses.base import ListLoss

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class CrossEncoderLoss(nn.Module):
    """Scores lists of documents by a cross-encoder and hands them to a loss.

    Args:
        model: The cross-encoder, of one output.
        loss: What is called with scores, labels and mask: a `ListLoss`, or any such function.
        activation_fn: Applied to the logits first; None leaves them as they are.
        pairs_at_once: Pairs of one forward pass; None makes one pass of a batch.

    Raises:
        DataError: The model has several outputs, or `pairs_at_once` is below 1.
    """

    def __init__(
        self,
        model: CrossEncoder,
        loss: nn.Module | Callable[[Tensor, Tensor, Tensor], Tensor],
        *,
        activation_fn: nn.Module | None = None,
        pairs_at_once: int | None = None,
    ) -> None:
        super().__init__()
        if model.num_labels != 1:
            raise DataError(
                f"ranking losses need a model with one output; this has {model.num_labels}: "
                "build it with num_labels=1"
            )
        if pairs_at_once is not None and pairs_at_once < 1:
            raise DataError(f"pairs_at_once is at least 1, not {pairs_at_once}")
        self.model = model
        self.loss = loss
        self.activation_fn = activation_fn
        self.pairs_at_once = pairs_at_once

    def forward(
        self,
        inputs: Sequence[Sequence[Any]],
        labels: Sequence[Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            inputs: The queries, and for each a list of documents.
            labels: For each query the labels of its documents, ``(documents,)`` of any dtype.
            prompt: What the model puts before queries.
            task: What the model is told that it is for.

        Returns:
            A scalar.

        Raises:
            DataError: There are not two columns, or labels do not match documents.
        """
        if len(inputs) != 2:
            raise DataError(
                f"the data set has {len(inputs)} columns besides labels; two are needed: a query, "
                "and a list of documents"
            )
        queries, lists = inputs
        lengths = [len(documents) for documents in lists]
        judged = [len(given) if given.ndim else -1 for given in labels]
        if lengths != judged:
            raise DataError(
                f"each document needs its label: lists of {lengths} documents, labels of {judged}"
            )
        device = self.model.device
        pairs = [(q, d) for q, documents in zip(queries, lists, strict=True) for d in documents]
        mask = torch.arange(max(lengths, default=0)) < torch.tensor(lengths).view(-1, 1)
        mask = mask.to(device)
        flat = self._scores(pairs, prompt, task)
        given = torch.cat([*labels]).to(flat) if pairs else flat
        scores = flat.new_zeros(mask.shape).masked_scatter(mask, flat)
        found: Tensor = self.loss(
            scores, torch.zeros_like(scores).masked_scatter(mask, given), mask
        )
        return found

    def _scores(self, pairs: list[tuple[Any, Any]], prompt: str | None, task: str | None) -> Tensor:
        """The logit of each pair, float32 ``(pairs,)``."""
        from sentence_transformers.util import batch_to_device

        found = []
        step = self.pairs_at_once or max(1, len(pairs))
        for start in range(0, len(pairs), step):
            tokens = self.model.preprocess(pairs[start : start + step], prompt=prompt, task=task)
            scored = self.model(batch_to_device(tokens, self.model.device))["scores"]
            found.append(scored.view(-1).float())
        logits = torch.cat(found) if found else torch.zeros(0, device=self.model.device)
        return logits if self.activation_fn is None else self.activation_fn(logits)

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card tells of the loss."""
        settings = self.loss.settings() if isinstance(self.loss, ListLoss) else {}
        name = getattr(self.loss, "__name__", type(self.loss).__name__)
        activation = None if self.activation_fn is None else type(self.activation_fn).__name__
        # A function among the settings has a name, too.
        told = {key: getattr(value, "__name__", value) for key, value in settings.items()}
        return {
            "loss": name,
            **told,
            "activation_fn": activation,
            "pairs_at_once": self.pairs_at_once,
        }
