"""LiPO-λ: LambdaRank's weights for aligning a language model with lists of graded answers.

``l = Σ_{ψ_i > ψ_j} w_ij · log(1 + e^{−(s_i − s_j)})``,
``w_ij = |2^{ψ_i} − 2^{ψ_j}| · |1/ln(1 + τ_i) − 1/ln(1 + τ_j)|``

``s = β · (log π − log π_ref)``, ``ψ``: labels, ``τ``: the model's own ranks from 1 by ``s``.
Liu et al., "LiPO: Listwise Preference Optimization through Learning-to-Rank", NAACL 2025
(arXiv 2402.01878). The gains are not divided by the best DCG.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrievekit.errors import DataError
from retrievekit.train.losses.base import widened
from retrievekit.train.losses.pairwise import PairwiseLoss, Reduction, model_ranks


class LiPOLambdaLoss(PairwiseLoss):
    """LiPO-λ, on log-probabilities of a policy against a reference, or on plain scores.

    Args:
        beta: What scores are multiplied by.
        reduction: The ``sum`` or the ``mean`` over each list's pairs.

    Raises:
        DataError: `beta` is not above 0.
    """

    def __init__(self, *, beta: float = 1.0, reduction: Reduction = "sum") -> None:
        super().__init__(reduction=reduction)
        if not beta > 0:
            raise DataError(f"beta is above 0, not {beta}")
        self.beta = beta

    def forward(
        self,
        scores: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of the lists.

        Args:
            scores: floating ``(queries, documents)``: log-probabilities of the policy, or plain
                scores.
            labels: Of the same shape and any dtype; higher is better.
            mask: bool, of the same shape; everywhere by default.
            reference: Log-probabilities of the reference, of the same shape; no gradient flows
                through them. None for plain scores.

        Returns:
            A scalar.

        Raises:
            DataError: The shapes differ, or are not those of lists.
        """
        if reference is not None:
            if reference.shape != scores.shape:
                raise DataError(
                    f"reference is of the shape of scores, {tuple(scores.shape)}, "
                    f"not {tuple(reference.shape)}"
                )
            scores = widened(scores) - widened(reference).detach()
        return super().forward(self.beta * widened(scores), labels, mask)

    def weights(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        gains = torch.exp2(labels)
        discounts = 1 / torch.log1p(model_ranks(scores, labels, mask))
        gained = (gains[:, :, None] - gains[:, None, :]).abs()
        return gained * (discounts[:, :, None] - discounts[:, None, :]).abs()
