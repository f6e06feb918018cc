"""Losses of ANCE-PRF: a query's vector against passages whose vectors are fixed.

All are means of ``-log softmax(scale * q.p)`` at the relevant passage; they differ in what it is
set against. Yu et al. (CIKM 2021) take one negative at a time, the code of the reproducibility
study (Li et al., ECIR 2022) all negatives of the query, or, left out there, those of the others in
the batch as well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def own_loss(vectors: Tensor, passages: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
    """The softmax over each query's own passages, the relevant one first.

    Args:
        vectors: Floating ``(b, d)``.
        passages: Floating ``(b, m, d)``.
        mask: bool ``(b, m)``, False where there is no passage.
        scale: What scores are multiplied by.

    Returns:
        The mean loss, a floating scalar.
    """
    scores = scale * torch.einsum("bd,bmd->bm", vectors, passages)
    scores = scores.masked_fill(~mask, -torch.inf)
    return -scores.log_softmax(dim=1)[:, 0].mean()


def pairwise_loss(vectors: Tensor, passages: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
    """``-log(e^(q.p) / (e^(q.p) + e^(q.n)))`` of each pair of a relevant passage and a negative.

    Args:
        vectors: Floating ``(b, d)``.
        passages: Floating ``(b, m, d)``, the relevant one of each query first.
        mask: bool ``(b, m)``, False where there is no passage.
        scale: What scores are multiplied by.

    Returns:
        The mean loss over pairs, a floating scalar.
    """
    scores = scale * torch.einsum("bd,bmd->bm", vectors, passages)
    losses = functional.softplus(scores[:, 1:] - scores[:, :1])
    kept = mask[:, 1:]
    return losses.masked_fill(~kept, 0.0).sum() / kept.sum().clamp(min=1)


def in_batch_loss(
    vectors: Tensor, passages: Tensor, targets: Tensor, banned: Tensor, scale: float = 1.0
) -> Tensor:
    """The softmax over all passages of a batch.

    Args:
        vectors: Floating ``(b, d)``.
        passages: Floating ``(m, d)``.
        targets: int64 ``(b,)``, the row of each query's relevant passage.
        banned: bool ``(b, m)``, passages that are no negatives of a query: those judged relevant to
            it, and the target where another query brought it too.
        scale: What scores are multiplied by.

    Returns:
        The mean loss, a floating scalar.
    """
    scores = scale * vectors @ passages.T
    at_target = functional.one_hot(targets, passages.shape[0]).bool()
    scores = scores.masked_fill(banned & ~at_target, -torch.inf)
    return functional.cross_entropy(scores, targets)
