"""InfoNCE: each relevant document against all irrelevant ones of its list.

``l = mean_{i: y_i ≥ θ} [log(e^{s_i/T} + Σ_{j: y_j < θ} e^{s_j/T}) − s_i/T]``

van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018
(arXiv 1807.03748). Relevant documents do not compete with each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrievekit.errors import DataError
from retrievekit.train.losses.base import ListLoss, chosen_among


class InfoNCELoss(ListLoss):
    """Contrastive loss over lists; one without relevant or without irrelevant documents is 0.

    Args:
        temperature: What scores are divided by.
        threshold: Labels from it on are relevant; None means those above 0.

    Raises:
        DataError: `temperature` is not above 0.
    """

    def __init__(self, *, temperature: float = 1.0, threshold: float | None = None) -> None:
        super().__init__()
        if not temperature > 0:
            raise DataError(f"temperature is above 0, not {temperature}")
        self.temperature = temperature
        self.threshold = threshold

    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        relevant = labels > 0 if self.threshold is None else labels >= self.threshold
        positive, negative = mask & relevant, mask & ~relevant
        # A document without rivals is sure to be chosen, and costs nothing.
        losses = chosen_among(scores / self.temperature, negative[:, None, :])
        total = torch.where(positive, losses, 0.0).sum(dim=1)
        return total / positive.sum(dim=1).clamp(min=1)
