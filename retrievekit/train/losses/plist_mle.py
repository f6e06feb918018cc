"""p-ListMLE: ListMLE where errors near the top count more.

``l = Σ_k w_k [log Σ_{l ≥ k} e^{s_σ(l)} − s_σ(k)]``, ``w_k = (2^{n−k} − 1) / Σ_m (2^{n−m} − 1)``

σ: the n documents by falling label. Lan et al., "Position-Aware ListMLE: A Sequential Learning
Process for Ranking", UAI 2014. Documents of one label share the mean weight of their places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrievekit.train.losses.list_mle import ListMLELoss


class PListMLELoss(ListMLELoss):
    """Position-aware ListMLE."""

    def weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        filled = labels.masked_fill(~mask, -torch.inf)
        order = filled.argsort(dim=1, descending=True, stable=True)
        places = torch.arange(1, mask.shape[1] + 1, dtype=labels.dtype, device=labels.device)
        count = mask.sum(dim=1, keepdim=True).to(labels)
        # Divided by 2^n, which a long list would not let us write down.
        by_place = (torch.exp2(-places) - torch.exp2(-count)).clamp(min=0)
        weights = torch.zeros_like(labels).scatter(1, order, by_place)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(
            min=torch.finfo(labels.dtype).tiny
        )
        level = (labels[:, None, :] == labels[:, :, None]) & mask[:, None, :]
        return (level * weights[:, None, :]).sum(dim=2) / level.sum(dim=2).clamp(min=1)
