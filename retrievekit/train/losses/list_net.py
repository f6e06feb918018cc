"""ListNet: cross-entropy between two distributions over who comes first.

``l = −Σ_i softmax(y)_i · log softmax(s)_i``

Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrievekit.train.losses.base import ListLoss, varied


class ListNetLoss(ListLoss):
    """ListNet's top-one cross-entropy.

    A list of equal labels counts as 0: it would only drive scores together.
    """

    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        wanted = shares(labels, mask)
        wanted = torch.where(varied(labels, mask)[:, None], wanted, 0.0)
        return -(wanted * log_shares(scores, mask)).sum(dim=1)


def shares(values: Tensor, mask: Tensor) -> Tensor:
    """Softmax over each list's documents.

    Args:
        values: floating ``(queries, documents)``.
        mask: bool, of the same shape.

    Returns:
        Of the same dtype and shape; 0 where there is no document.
    """
    return torch.where(mask, log_shares(values, mask).exp(), 0.0)


def log_shares(values: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of the softmax over each list's documents.

    Args:
        values: floating ``(queries, documents)``.
        mask: bool, of the same shape.

    Returns:
        Of the same dtype and shape; 0 where there is no document.
    """
    # The lowest finite number, for a list without documents must not become NaN.
    filled = values.masked_fill(~mask, torch.finfo(values.dtype).min)
    return torch.where(mask, filled.log_softmax(dim=1), 0.0)
