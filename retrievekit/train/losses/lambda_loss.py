"""LambdaLoss: preferred pairs, weighted by what swapping or moving them means to nDCG.

``l = Σ_{y_i > y_j} w_ij · log(1 + e^{−σ (s_i − s_j)})``

Gains are ``G_i = (2^{y_i} − 1) / maxDCG``, discounts ``D(r) = log2(1 + r)``, ``r`` the model's own
ranks; the weights ``w_ij`` are one of


- LambdaRank: ``|1/D(r_i) − 1/D(r_j)| · |G_i − G_j|``
- NDCGLoss2: ``|1/D(|r_i − r_j|) − 1/D(|r_i − r_j| + 1)| · |G_i − G_j|``
- NDCGLoss2++: LambdaRank + μ · NDCGLoss2, the default
- NDCGLoss1: ``G_i / D(r_i)``, over all pairs ``i ≠ j``

Wang et al., "The LambdaLoss Framework for Ranking Metric Optimization", CIKM 2018. Grades below 0
have no gain.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from retrievekit.errors import DataError
from retrievekit.train.losses.base import in_pairs, varied
from retrievekit.train.losses.pairwise import PairwiseLoss, Reduction, model_ranks

Weighting: TypeAlias = Literal["NDCGLoss2++", "NDCGLoss2", "NDCGLoss1", "LambdaRank"]


class LambdaLoss(PairwiseLoss):
    """Pairs weighted by nDCG.

    Args:
        weighting: Which of the four.
        k: Only pairs count of which the model has one among its first `k`, and the best DCG is that
            of `k` documents; None means all.
        mu: How much NDCGLoss2 counts within NDCGLoss2++.
        sigma: How steep the logistic function is.
        reduction: The ``sum`` or the ``mean`` over each list's pairs.

    Raises:
        DataError: No such weighting, `k` is below 1 or `mu` below 0.
    """

    def __init__(
        self,
        weighting: Weighting = "NDCGLoss2++",
        *,
        k: int | None = None,
        mu: float = 10.0,
        sigma: float = 1.0,
        reduction: Reduction = "sum",
    ) -> None:
        super().__init__(sigma=sigma, reduction=reduction)
        if weighting not in get_args(Weighting):
            raise DataError(f"no weighting {weighting!r}; known: {', '.join(get_args(Weighting))}")
        if (k is not None and k < 1) or not mu >= 0:
            raise DataError(f"k is at least 1 and mu at least 0; got k={k}, mu={mu}")
        self.weighting = weighting
        self.k = k
        self.mu = mu

    def counted(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        if self.weighting == "NDCGLoss1":
            itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
            pairs = in_pairs(mask) & ~itself & varied(labels, mask)[:, None, None]
        else:
            pairs = super().counted(scores, labels, mask)
        if self.k is None:
            return pairs
        top = model_ranks(scores, labels, mask) <= self.k
        return pairs & (top[:, :, None] | top[:, None, :])

    def weights(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        gains = self._gains(labels, mask)
        ranks = model_ranks(scores, labels, mask)
        discounts = 1 / torch.log2(1 + ranks)
        if self.weighting == "NDCGLoss1":
            return (gains * discounts)[:, :, None]
        swapped = (discounts[:, :, None] - discounts[:, None, :]).abs()
        # Pairs that count never share a rank; the others would divide by log2(1).
        apart = (ranks[:, :, None] - ranks[:, None, :]).abs().clamp(min=0.5)
        moved = 1 / torch.log2(1 + apart) - 1 / torch.log2(2 + apart)
        gained = (gains[:, :, None] - gains[:, None, :]).abs()
        if self.weighting == "LambdaRank":
            return swapped * gained
        if self.weighting == "NDCGLoss2":
            return moved * gained
        return (swapped + self.mu * moved) * gained

    def _gains(self, labels: Tensor, mask: Tensor) -> Tensor:
        """Gains as shares of the best DCG, floating ``(queries, documents)``."""
        gains = torch.where(mask, torch.exp2(labels.clamp(min=0)) - 1, 0.0)
        best = gains.sort(dim=1, descending=True).values[:, : self.k]
        places = torch.arange(1, best.shape[1] + 1, dtype=gains.dtype, device=gains.device)
        highest = (best / torch.log2(1 + places)).sum(dim=1, keepdim=True)
        return gains / torch.where(highest > 0, highest, 1.0)
