"""PLD: a teacher's order as a Plackett-Luce model, each draw weighted by the teacher's belief.

``l = Σ_k p_σ(k) [log Σ_{l ≥ k} e^{s_σ(l)} − s_σ(k)]``, ``p = softmax(t / T)``

σ puts the gold documents first and orders the rest by the teacher's scores t. Plackett-Luce
Distillation (arXiv 2506.12542). Gold are the documents of the list's highest label. Ties of the
teacher are drawn by Breslow's rule, as in `ListMLELoss`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrievekit.errors import DataError
from retrievekit.train.losses.base import ListLoss, mean_of_lists, padded
from retrievekit.train.losses.list_mle import drawn
from retrievekit.train.losses.list_net import shares


class PLDLoss(ListLoss):
    """Plackett-Luce distillation.

    Args:
        temperature: What the teacher's scores are divided by before the softmax.

    Raises:
        DataError: `temperature` is not above 0.
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise DataError(f"temperature is above 0, not {temperature}")
        self.temperature = temperature

    def forward(
        self,
        scores: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        teacher: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of the lists.

        Args:
            scores: floating ``(queries, documents)``: the student's.
            labels: Of the same shape and any dtype; the highest of a list are gold.
            mask: bool, of the same shape; everywhere by default.
            teacher: The teacher's scores, of the same shape and any dtype. None takes the labels,
                which are then the teacher's scores themselves.

        Returns:
            A scalar.

        Raises:
            DataError: The shapes differ, or are not those of lists.
            NonFiniteError: A label or a score of the teacher is NaN or infinite.
        """
        if teacher is None:
            return super().forward(scores, labels, mask)
        known = padded(scores, teacher, mask)[1].detach()
        scores, labels, mask = padded(scores, labels, mask)
        if scores.numel() == 0:
            return scores.sum()
        return mean_of_lists(self._distilled(scores, labels, known, mask), mask)

    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        return self._distilled(scores, labels, labels, mask)

    def _distilled(self, scores: Tensor, labels: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The loss of each list, floating ``(queries,)``."""
        highest = labels.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True)
        gold = labels == highest
        first = gold[:, None, :] & ~gold[:, :, None]
        level = gold[:, None, :] == gold[:, :, None]
        better = first | (level & (teacher[:, None, :] > teacher[:, :, None]))
        return (shares(teacher / self.temperature, mask) * drawn(scores, better, mask)).sum(dim=1)
