"""`ListLoss`: what all ranking losses share, so that padding and empty lists are settled once.

``loss = (1 / Q) Σ_q l(s_q, y_q)`` over the Q lists that hold a document: the loss of a batch is the
mean of its lists' losses. A list that says nothing of order (all labels equal, one document) counts
as 0 and moves nothing.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from retrievekit.errors import DataError, NonFiniteError


class ListLoss(nn.Module, ABC):
    """A loss on padded lists of scores and graded labels.

    Losses neither see nor move what the mask leaves out, whatever stands there. Scores of 16 bits
    are computed in float32.
    """

    @abstractmethod
    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """The loss of each list.

        Args:
            scores: floating ``(queries, documents)``; 0 where there is no document.
            labels: Of the same dtype and shape; 0 where there is no document.
            mask: bool ``(queries, documents)``: where there are documents.

        Returns:
            floating ``(queries,)``; 0 for a list without documents.
        """
        raise NotImplementedError

    def forward(self, scores: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean loss of the lists.

        Args:
            scores: floating ``(queries, documents)``, such as logits; higher is better.
            labels: Of the same shape and any dtype; higher is better.
            mask: bool, of the same shape: where there are documents; everywhere by default.

        Returns:
            A scalar of the dtype of scores, or float32 for scores of 16 bits.

        Raises:
            DataError: The shapes differ, or are not those of lists.
            NonFiniteError: A label is NaN or infinite.
        """
        scores, labels, mask = padded(scores, labels, mask)
        if scores.numel() == 0:
            return scores.sum()
        return mean_of_lists(self.per_list(scores, labels, mask), mask)

    def settings(self) -> dict[str, Any]:
        """What the loss was built with, by the names of its constructor's parameters."""
        if type(self).__init__ is nn.Module.__init__:
            return {}
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        """The settings, as `repr` shows them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())


def padded(scores: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Check lists, and put zeros where there are no documents.

    Args:
        scores: floating ``(queries, documents)``.
        labels: Of the same shape and any dtype.
        mask: bool, of the same shape; None means everywhere.

    Returns:
        Scores, in float32 at least; labels of the same dtype; and the mask.

    Raises:
        DataError: The shapes differ, or are not those of lists.
        NonFiniteError: A label is NaN or infinite.
    """
    if mask is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    shapes = [tuple(given.shape) for given in (scores, labels, mask)]
    if scores.ndim != 2 or len(set(shapes)) > 1 or mask.dtype != torch.bool:
        raise DataError(
            "a ranking loss takes scores, labels and a bool mask of one shape (queries, documents);"
            f" got {shapes[0]}, {shapes[1]} and {shapes[2]} of {mask.dtype}: pad shorter lists"
        )
    if not scores.is_floating_point():
        raise DataError(f"scores are floating, such as float32, not {scores.dtype}")
    scores = widened(scores)
    # `where`, for a product would keep the NaN of a padded place.
    scores = torch.where(mask, scores, 0.0)
    labels = torch.where(mask, labels.to(scores), 0.0)
    if not labels.isfinite().all():
        query, document = (~labels.isfinite()).nonzero()[0].tolist()
        raise NonFiniteError(
            f"the label of query {query}, document {document} of the batch is "
            f"{labels[query, document].item()}; mask what was not judged"
        )
    return scores, labels, mask


def widened(scores: Tensor) -> Tensor:
    """Scores in float32 where they are narrower.

    Args:
        scores: floating ``(queries, documents)``.

    Returns:
        Of the same shape; differences of 16 bits would tie.
    """
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def mean_of_lists(losses: Tensor, mask: Tensor) -> Tensor:
    """The mean over lists that hold a document.

    Args:
        losses: floating ``(queries,)``.
        mask: bool ``(queries, documents)``.

    Returns:
        A scalar of the same dtype; 0 where no list holds any.
    """
    lists = mask.any(dim=1)
    return torch.where(lists, losses, 0.0).sum() / lists.sum().clamp(min=1)


def chosen_among(scores: Tensor, others: Tensor) -> Tensor:
    """How unlikely a softmax is to choose each document from itself and some others.

    Args:
        scores: floating ``(queries, documents)``.
        others: bool ``(queries, documents, documents)``: for each of the first, whether the second
            is there to be chosen.

    Returns:
        Negated log-probabilities of the dtype and shape of scores.
    """
    itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    table = scores[:, None, :].masked_fill(~(others | itself), -torch.inf)
    # Not the difference to a logsumexp, which at scores of 10^4 is rounded to 10^-3.
    return -table.log_softmax(dim=2).diagonal(dim1=1, dim2=2)


def in_pairs(mask: Tensor) -> Tensor:
    """Where both of two places hold documents.

    Args:
        mask: bool ``(queries, documents)``.

    Returns:
        bool ``(queries, documents, documents)``.
    """
    return mask[:, :, None] & mask[:, None, :]


def varied(labels: Tensor, mask: Tensor) -> Tensor:
    """Which lists prefer any document to another.

    Args:
        labels: floating ``(queries, documents)``.
        mask: bool, of the same shape.

    Returns:
        bool ``(queries,)``.
    """
    high = labels.masked_fill(~mask, -torch.inf).amax(dim=1)
    low = labels.masked_fill(~mask, torch.inf).amin(dim=1)
    return high > low
