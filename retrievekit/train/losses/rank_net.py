"""RankNet: each preferred pair is a logistic regression on the difference of its scores.

``l = mean_{y_i > y_j} log(1 + e^{−σ (s_i − s_j)})``

Burges et al., "Learning to Rank using Gradient Descent", ICML 2005. The paper sums over pairs
(``reduction="sum"``); the mean keeps long lists from outweighing short ones.
"""

from __future__ import annotations

from torch import Tensor

from retrievekit.train.losses.pairwise import PairwiseLoss, Reduction


class RankNetLoss(PairwiseLoss):
    """RankNet: every pair counts the same.

    Args:
        sigma: How steep the logistic function is.
        reduction: The ``mean`` or the ``sum`` over each list's pairs.
    """

    def __init__(self, *, sigma: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(sigma=sigma, reduction=reduction)

    def weights(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        return scores.new_ones(1)
