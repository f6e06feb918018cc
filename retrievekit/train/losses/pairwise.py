"""`PairwiseLoss`: what losses over pairs of documents share.

``l(s, y) = Σ_{y_i > y_j} w_ij · log(1 + e^{−σ (s_i − s_j)})``, or its mean over those pairs; losses
differ by the weights ``w_ij``, which are constants to the gradient.

Weights may ask for ranks. Documents of equal score are ranked as if the model had erred: the less
relevant first, and those of equal label on the mean of their ranks, so that the order in which
documents are given never matters and a model that scores all alike still learns.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from retrievekit.errors import DataError
from retrievekit.train.losses.base import ListLoss, in_pairs

Reduction: TypeAlias = Literal["mean", "sum"]


class PairwiseLoss(ListLoss):
    """A loss on pairs of which one document is preferred to the other.

    Args:
        sigma: How steep the logistic function is.
        reduction: The ``mean`` or the ``sum`` over each list's pairs.

    Raises:
        DataError: `sigma` is not above 0, or there is no such reduction.
    """

    def __init__(self, *, sigma: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        if not sigma > 0 or reduction not in get_args(Reduction):
            raise DataError(
                "sigma is above 0 and reduction is 'mean' or 'sum'; "
                f"got sigma={sigma!r}, reduction={reduction!r}"
            )
        self.sigma = sigma
        self.reduction = reduction

    @abstractmethod
    def weights(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """What each pair counts; no gradient flows through it.

        Args:
            scores: floating ``(queries, documents)``.
            labels: Of the same dtype and shape.
            mask: bool, of the same shape.

        Returns:
            floating, of a shape that widens to ``(queries, documents, documents)``; finite.
        """
        raise NotImplementedError

    def counted(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Which pairs count: those whose first document is preferred.

        Args:
            scores: floating ``(queries, documents)``.
            labels: Of the same dtype and shape.
            mask: bool, of the same shape.

        Returns:
            bool ``(queries, documents, documents)``.
        """
        return in_pairs(mask) & (labels[:, :, None] > labels[:, None, :])

    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            counted = self.counted(scores, labels, mask)
            weights = torch.where(counted, self.weights(scores, labels, mask), 0.0)
        losses = -functional.logsigmoid(self.sigma * (scores[:, :, None] - scores[:, None, :]))
        total = (weights * losses).sum(dim=(1, 2))
        if self.reduction == "sum":
            return total
        return total / counted.sum(dim=(1, 2)).clamp(min=1)


def model_ranks(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Ranks from 1 by score; among equal scores the less relevant first.

    Args:
        scores: floating ``(queries, documents)``.
        labels: Of the same dtype and shape.
        mask: bool, of the same shape.

    Returns:
        Ranks of the same dtype and shape, fractional where score and label are equal.
    """
    higher = scores[:, None, :] > scores[:, :, None]
    level = scores[:, None, :] == scores[:, :, None]
    below = labels[:, None, :] < labels[:, :, None]
    same = labels[:, None, :] == labels[:, :, None]
    return _ranks(higher | (level & below), level & same, mask, scores)


def label_ranks(labels: Tensor, mask: Tensor) -> Tensor:
    """Ranks from 1 by label, the highest first; equal labels share the mean of their ranks.

    Args:
        labels: floating ``(queries, documents)``.
        mask: bool, of the same shape.

    Returns:
        Ranks of the same dtype and shape.
    """
    higher = labels[:, None, :] > labels[:, :, None]
    return _ranks(higher, labels[:, None, :] == labels[:, :, None], mask, labels)


def _ranks(before: Tensor, level: Tensor, mask: Tensor, like: Tensor) -> Tensor:
    """Ranks of the dtype of `like` from who stands before whom, with whom."""
    there = mask[:, None, :]
    ahead = (before & there).sum(dim=2).to(like)
    beside = (level & there).sum(dim=2).to(like)
    # A padded place stands with nobody.
    return torch.where(mask, ahead + (beside + 1) / 2, 1.0)
