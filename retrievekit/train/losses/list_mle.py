"""ListMLE: the likelihood of the labels' order, when documents are drawn one by one by softmax.

``l = Σ_k [log Σ_{l ≥ k} e^{s_σ(l)} − s_σ(k)]``, σ: the documents by falling label (Plackett-Luce)

Xia et al., "Listwise Approach to Learning to Rank: Theory and Algorithm", ICML 2008. Where labels
tie, no order is right. Each document is then drawn from all that are not better than it (Breslow's
rule for ties), ``Σ_i [log Σ_{y_l ≤ y_i} e^{s_l} − s_i]``, and the lowest grade is not drawn at all,
for whatever order remains, it is as good as any: without ties this is the formula above.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrievekit.train.losses.base import ListLoss, chosen_among


class ListMLELoss(ListLoss):
    """ListMLE; the order in which documents of one label are given does not matter."""

    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        better = labels[:, None, :] > labels[:, :, None]
        return (self.weights(labels, mask) * drawn(scores, better, mask)).sum(dim=1)

    def weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        """What each draw counts.

        Args:
            labels: floating ``(queries, documents)``.
            mask: bool, of the same shape.

        Returns:
            Of the same dtype, and of a shape that widens to ``(queries, documents)``.
        """
        return labels.new_ones(1)


def drawn(scores: Tensor, better: Tensor, mask: Tensor) -> Tensor:
    """How unlikely it is to draw each document from those that are not better.

    Args:
        scores: floating ``(queries, documents)``.
        better: bool ``(queries, documents, documents)``: whether the second is to come before the
            first.
        mask: bool ``(queries, documents)``.

    Returns:
        floating ``(queries, documents)``, negated log-probabilities; 0 for documents that better
        nobody, and where there is no document.
    """
    betters = (better & mask[:, :, None]).any(dim=1) & mask
    return torch.where(betters, chosen_among(scores, mask[:, None, :] & ~better), 0.0)
