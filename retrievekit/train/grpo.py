"""GRPO on log-probabilities, with the rewards and the fine scores of ProRank.

``A_i = (r_i − mean(r)) / (std(r) + ε)`` within a group of answers to one prompt, ``ρ = π / π_old``:

``l = −mean_i mean_t [min(ρ A, clip(ρ, 1 − c, 1 + c) A) − β KL]``

``KL = π_ref/π − log(π_ref/π) − 1``

Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300). ProRank (Li et al., arXiv 2506.03487) warms a
small model up so that it answers ``0`` or ``1``, rewarded for the form of its answer and for being
right. It then takes the difference of the two tokens' logits as a fine score, which any loss of
`losses` trains further.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from retrievekit.errors import DataError

ANSWERS = ("0", "1")
"""Not relevant, and relevant."""

_FARTHEST = 20.0
"""Log-ratios are held within it, so that none overflows; no policy should come near."""


def group_advantages(rewards: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    """How much better each answer is than the others to its prompt, in standard deviations.

    Args:
        rewards: floating ``(groups, samples)``.
        epsilon: Added to the standard deviation (the population's).

    Returns:
        Of the same dtype and shape; 0 where all of a group got the same.
    """
    away = rewards - rewards.mean(dim=1, keepdim=True)
    # Rounding of a mean must not be blown up to a preference.
    level = rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)
    spread = away.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(level, 0.0, away / (spread + epsilon))


def kl_estimate(log_probs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the divergence from a reference that is unbiased and never negative.

    Args:
        log_probs: The policy's log-probabilities of drawn tokens, floating ``(..., tokens)``.
        reference: The reference's, of the same dtype and shape.

    Returns:
        Of the same dtype and shape.
    """
    ratio = (reference.detach() - log_probs).clamp(-_FARTHEST, _FARTHEST)
    return ratio.exp() - ratio - 1


def grpo_loss(
    log_probs: Tensor,
    old: Tensor,
    advantages: Tensor,
    *,
    reference: Tensor | None = None,
    mask: Tensor | None = None,
    clip: float = 0.2,
    beta: float = 0.04,
) -> Tensor:
    """The clipped loss of some answers: the mean over answers of the mean over their tokens.

    Args:
        log_probs: The policy's log-probabilities, floating ``(answers, tokens)``.
        old: Those of the policy that drew the answers, of the same dtype and shape.
        advantages: Of each answer, floating ``(answers,)``.
        reference: Log-probabilities of the reference, of the shape of `log_probs`; None leaves the
            divergence out.
        mask: bool, of the same shape: which tokens there are; all by default.
        clip: How far the ratio to the old policy may go and still be rewarded.
        beta: What the divergence counts.

    Returns:
        A scalar of the dtype of `log_probs`; 0 where there is no answer.

    Raises:
        DataError: The shapes do not fit, or a number is below 0.
    """
    if mask is None:
        mask = torch.ones_like(log_probs, dtype=torch.bool)
    same = [given.shape for given in (old, mask, reference) if given is not None]
    fits = log_probs.ndim == 2 and advantages.shape == log_probs.shape[:1]
    if not fits or any(shape != log_probs.shape for shape in same):
        raise DataError(
            "log-probabilities, old and reference ones and the mask are of one shape (answers, "
            f"tokens), advantages of shape (answers,); got {tuple(log_probs.shape)}, "
            f"{[tuple(shape) for shape in same]} and {tuple(advantages.shape)}"
        )
    if not clip >= 0 or not beta >= 0:
        raise DataError(f"clip and beta are at least 0; got {clip} and {beta}")
    log_probs = torch.where(mask, log_probs, 0.0)
    ratio = (log_probs - torch.where(mask, old.detach(), 0.0)).clamp(-_FARTHEST, _FARTHEST).exp()
    weights = advantages.detach()[:, None]
    gained = torch.minimum(ratio * weights, ratio.clamp(1 - clip, 1 + clip) * weights)
    if reference is not None and beta:
        gained = gained - beta * kl_estimate(log_probs, torch.where(mask, reference, 0.0))
    per_answer = torch.where(mask, gained, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    spoken = mask.any(dim=1)
    return -(per_answer * spoken).sum() / spoken.sum().clamp(min=1)


# Rewards


def format_reward(answer: str) -> float:
    """1 for an answer of the form that was asked for, ``0`` or ``1``; else 0.

    Args:
        answer: What the model said; white space around it is passed over.

    Returns:
        The reward.
    """
    return float(answer.strip() in ANSWERS)


def accuracy_reward(answer: str, relevant: bool) -> float:
    """1 for the right answer, else 0.

    Args:
        answer: What the model said.
        relevant: Whether the document is relevant.

    Returns:
        The reward.
    """
    return float(answer.strip() == ANSWERS[bool(relevant)])


def ranking_reward(scores: Sequence[float], labels: Sequence[float], k: int | None = None) -> float:
    """The nDCG of a query's documents in the order of their scores; equal scores in every order.

    The mean over all orders of documents that score the same, so that answers of two values are
    judged fairly. Gains are labels, as trec_eval has it.

    Args:
        scores: Of each document, such as 1 and 0 for answers, and −1 for what cannot be read.
        labels: Of each document; labels below 0 have no gain.
        k: Places that count; None means all.

    Returns:
        From 0 to 1; 0 without relevant documents.

    Raises:
        DataError: There are not as many labels as scores.
    """
    if len(scores) != len(labels):
        raise DataError(f"{len(scores)} scores, but {len(labels)} labels")
    gains = [max(0.0, label) for label in labels]
    places = len(gains) if k is None else min(k, len(gains))
    discounts = [1 / math.log2(2 + place) if place < places else 0.0 for place in range(len(gains))]
    best = math.fsum(g * d for g, d in zip(sorted(gains, reverse=True), discounts, strict=True))
    reached, start = 0.0, 0
    for score in sorted(set(scores), reverse=True):
        level = [gain for gain, one in zip(gains, scores, strict=True) if one == score]
        end = start + len(level)
        reached += math.fsum(level) / len(level) * math.fsum(discounts[start:end])
        start = end
    return reached / best if best else 0.0


# Fine scores


def fine_scores(logits: Tensor, one: int, zero: int) -> Tensor:
    """The log-odds of ``1`` against ``0`` where the answer would begin.

    As a score of `losses` it is trained by any of them: `BCELoss` fits the two answers, a listwise
    loss the order of a query's documents.

    Args:
        logits: The next token's, floating ``(..., vocabulary)``.
        one: The token of ``1``.
        zero: The token of ``0``.

    Returns:
        Of the same dtype ``(...,)``.
    """
    return logits[..., one] - logits[..., zero]
