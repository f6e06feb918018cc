"""FIRST: RankNet on single-token logits; pairs near the top of the teacher's order count more.

``l = mean_{r_i < r_j} log(1 + e^{−(s_i − s_j)}) / (r_i + r_j)``

``s``: the logits of the documents' identifiers at the first generated place; ``r``: ranks from 1 by
label, as the teacher has them. Training adds ten times this to the language model's own loss.
Gangi Reddy et al., "FIRST: Faster Improved Listwise Reranking with Single Token Decoding", EMNLP
2024 (arXiv 2406.15657).
"""

from __future__ import annotations

from torch import Tensor

from retrievekit.train.losses.pairwise import PairwiseLoss, Reduction, label_ranks


class FirstLoss(PairwiseLoss):
    """RankNet weighted by the inverse sum of the teacher's ranks.

    Args:
        reduction: The ``mean`` or the ``sum`` over each list's pairs.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)

    def weights(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        ranks = label_ranks(labels, mask)
        return 1 / (ranks[:, :, None] + ranks[:, None, :])
