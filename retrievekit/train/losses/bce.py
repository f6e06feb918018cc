"""Binary cross-entropy over lists: each document is judged by itself.

``l = (1/n) Σ_i [w · y_i · log(1 + e^{−s_i}) + (1 − y_i) · log(1 + e^{s_i})]``

On ``s = z_yes − z_no`` of a language model this is supervised fine-tuning on the two answers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from retrievekit.errors import DataError
from retrievekit.train.losses.base import ListLoss


class BCELoss(ListLoss):
    """Binary cross-entropy with logits. Unlike others, it learns from lists of equal labels.

    Args:
        threshold: Labels from it on are relevant, those below are not; None takes labels as
            probabilities.
        pos_weight: What relevant documents count; about the number of irrelevant ones for each
            relevant one evens them out.

    Raises:
        DataError: `pos_weight` is not above 0.
    """

    def __init__(self, *, threshold: float | None = None, pos_weight: float = 1.0) -> None:
        super().__init__()
        if not pos_weight > 0:
            raise DataError(f"pos_weight is above 0, not {pos_weight}")
        self.threshold = threshold
        self.pos_weight = pos_weight

    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """The loss of each list.

        Args:
            scores: floating ``(queries, documents)``.
            labels: Of the same dtype and shape.
            mask: bool, of the same shape.

        Returns:
            floating ``(queries,)``.

        Raises:
            DataError: A label is no probability, and there is no threshold.
        """
        if self.threshold is not None:
            labels = (labels >= self.threshold).to(scores)
        elif ((labels < 0) | (labels > 1)).any():
            raise DataError(
                f"labels from {labels.min().item():g} to {labels.max().item():g} are no "
                "probabilities; for grades say from which on a document is relevant: threshold=1"
            )
        # Not torch's pos_weight, whose sum of two terms loses the small one.
        losses = -self.pos_weight * labels * functional.logsigmoid(scores)
        losses = losses - (1 - labels) * functional.logsigmoid(-scores)
        return torch.where(mask, losses, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
