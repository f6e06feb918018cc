"""Neural PG-RANK: the score matrix as a policy over rankings, trained on the utility itself.

``π(r | q) = Π_i e^{s(r_i)} / Σ_{j ≥ i} e^{s(r_j)}`` (Plackett-Luce), maximise ``E_{r∼π}[Δ(r)]``:

``∇ ≈ (1/N) Σ_n (Δ(r_n) − mean_{m≠n} Δ(r_m)) · ∇ log π(r_n)`` (REINFORCE, leave-one-out baseline)

Rankings are drawn by adding Gumbel noise to scores and sorting. Only as many places are drawn as
the utility reads: what lies below has a mean gradient of zero, and would only add noise.

Gao et al., "Policy-Gradient Training of Language Models for Ranking", 2023 (arXiv 2310.04407). It
asks nothing of where scores come from: cross-encoders and dual encoders alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from retrievekit.errors import DataError
from retrievekit.train.losses.base import ListLoss

Utility: TypeAlias = Literal["ndcg", "mrr"]

NOBODY = -1
"""What stands in a ranking behind a list's last document."""


class PGRankLoss(ListLoss):
    """A surrogate whose gradient is the policy gradient; its value means nothing.

    Noise depends on the seed and on how many batches there were before. With the baseline, lists of
    equal labels move nothing, for every ranking of them is worth the same.

    Args:
        utility: ``ndcg`` or ``mrr``, of the first `k` places; or a function of rankings and labels
            that gives the utility of each, as `ndcg` does.
        k: Places that are drawn and judged; None means all.
        samples: Rankings of each list; at least 2.
        baseline: Whether the mean utility of a list's other rankings is subtracted.
        temperature: What scores are divided by.
        seed: Of the noise.

    Raises:
        DataError: No such utility, or a number out of range.
    """

    def __init__(
        self,
        utility: Utility | Callable[[Tensor, Tensor], Tensor] = "ndcg",
        *,
        k: int | None = 10,
        samples: int = 16,
        baseline: bool = True,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not callable(utility) and utility not in get_args(Utility):
            raise DataError(f"no utility {utility!r}; known: ndcg, mrr, or a function")
        if (k is not None and k < 1) or samples < 2 or not temperature > 0:
            raise DataError(
                "k is at least 1, samples at least 2 and temperature above 0; "
                f"got k={k}, samples={samples}, temperature={temperature}"
            )
        self.utility = utility
        self.k = k
        self.samples = samples
        self.baseline = baseline
        self.temperature = temperature
        self.seed = seed
        self._noise = torch.Generator().manual_seed(seed)

    def per_list(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        scores = scores / self.temperature
        rankings = sample_rankings(scores, self.samples, self.k, mask, self._noise)
        if callable(self.utility):
            worth = self.utility(rankings, labels)
        elif self.utility == "ndcg":
            worth = ndcg(rankings, labels, self.k)
        else:
            worth = reciprocal_rank(rankings, labels)
        weights = leave_one_out(worth) if self.baseline else worth
        return -(weights.detach() * log_probability(scores, rankings, mask)).mean(dim=1)


def sample_rankings(
    scores: Tensor,
    samples: int,
    k: int | None = None,
    mask: Tensor | None = None,
    noise: torch.Generator | None = None,
) -> Tensor:
    """Draw rankings from the Plackett-Luce model: sort scores with Gumbel noise.

    Args:
        scores: floating ``(queries, documents)``; no gradient flows through the rankings.
        samples: How many of each list.
        k: How many places of each; None means all.
        mask: bool ``(queries, documents)``: where there are documents; everywhere by default.
        noise: Where noise comes from, on the CPU; torch's own by default.

    Returns:
        int64 ``(queries, samples, min(k, documents))``: documents by their place in the list, the
        first drawn first; `NOBODY` behind the last.
    """
    scores = scores.detach()
    queries, documents = scores.shape
    # Documents outermost: noise of those that are there is the same however many places are padded.
    drawn = torch.rand(documents, queries, samples, generator=noise, dtype=torch.float64)
    gumbel = -(-drawn.clamp(min=torch.finfo(torch.float64).tiny).log()).log()
    noisy = scores[:, None, :] + gumbel.permute(1, 2, 0).to(scores)
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    noisy = noisy.masked_fill(~there[:, None, :], -torch.inf)
    best = noisy.topk(documents if k is None else min(k, documents), dim=2).indices
    filled = torch.arange(best.shape[2], device=scores.device) < there.sum(dim=1)[:, None, None]
    return torch.where(filled, best, NOBODY)


def log_probability(scores: Tensor, rankings: Tensor, mask: Tensor | None = None) -> Tensor:
    """How likely rankings are, or what they begin with, under the Plackett-Luce model.

    Args:
        scores: floating ``(queries, documents)``.
        rankings: int64 ``(queries, samples, places)`` of different documents; `NOBODY` is passed
            over.
        mask: bool ``(queries, documents)``: where there are documents; everywhere by default.

    Returns:
        Logarithms of probabilities, floating ``(queries, samples)``; 0 for empty rankings.
    """
    places = rankings.shape[2]
    chosen, taken = rankings.clamp(min=0), rankings != NOBODY
    wide = scores[:, None, :].expand(-1, rankings.shape[1], -1)
    # The place at which each document is drawn; those that are not drawn remain to the end.
    order = torch.full(wide.shape, places, dtype=torch.int64, device=scores.device)
    steps = torch.arange(places, device=scores.device).expand_as(rankings)
    order = order.scatter_reduce(2, chosen, torch.where(taken, steps, places), "amin")
    left = order[:, :, None, :] >= steps[:, :, :, None]
    if mask is not None:
        left = left & mask[:, None, None, :]
    # Steps that pass over nobody have a finite sum, which does not count.
    left = left | ~taken[:, :, :, None]
    whole = wide[:, :, None, :].masked_fill(~left, -torch.inf).logsumexp(dim=3)
    return torch.where(taken, wide.gather(2, chosen) - whole, 0.0).sum(dim=2)


def leave_one_out(utilities: Tensor) -> Tensor:
    """What each sample is worth beyond the mean of its list's other samples.

    Args:
        utilities: floating ``(queries, samples)``, at least two samples.

    Returns:
        Advantages of the same dtype and shape; each row sums to 0.
    """
    samples = utilities.shape[1]
    return (utilities - utilities.mean(dim=1, keepdim=True)) * (samples / (samples - 1))


def ndcg(rankings: Tensor, labels: Tensor, k: int | None = None) -> Tensor:
    """The nDCG of rankings, with labels as gains, as trec_eval has it.

    Args:
        rankings: int64 ``(queries, samples, places)``, as `sample_rankings` gives them.
        labels: floating ``(queries, documents)``, 0 where there is no document; labels below 0
            have no gain.
        k: Places that count, also of the best ranking; None means all.

    Returns:
        floating ``(queries, samples)`` from 0 to 1; 0 for lists without relevant documents.
    """
    gains = labels.clamp(min=0)
    best = gains.sort(dim=1, descending=True).values[:, :k]
    found = _of_ranking(gains, rankings)[:, :, :k]
    places = torch.arange(1, labels.shape[1] + 1, dtype=labels.dtype, device=labels.device)
    discounts = 1 / torch.log2(1 + places)
    highest = (best * discounts[: best.shape[1]]).sum(dim=1, keepdim=True)
    reached = (found * discounts[: found.shape[2]]).sum(dim=2)
    return reached / torch.where(highest > 0, highest, 1.0)


def reciprocal_rank(rankings: Tensor, labels: Tensor) -> Tensor:
    """One over the place of the first relevant document.

    Args:
        rankings: int64 ``(queries, samples, places)``, as `sample_rankings` gives them.
        labels: floating ``(queries, documents)``; above 0 is relevant.

    Returns:
        floating ``(queries, samples)``; 0 where the ranking holds no relevant document.
    """
    relevant = (_of_ranking(labels, rankings) > 0).to(labels)
    places = torch.arange(1, rankings.shape[2] + 1, dtype=labels.dtype, device=labels.device)
    return (relevant / places).amax(dim=2)


def _of_ranking(values: Tensor, rankings: Tensor) -> Tensor:
    """The values of ranked documents, 0 for nobody; floating ``(queries, samples, places)``."""
    wide = values[:, None, :].expand(-1, rankings.shape[1], -1)
    return torch.where(rankings == NOBODY, 0.0, wide.gather(2, rankings.clamp(min=0)))
