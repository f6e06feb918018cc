"""LoL: several revisions of a query, and a loss over their losses (Zhu et al., SIGIR 2022).

More feedback should not make a query worse. A query is revised with nested sets of feedback, most
first; each revision has its loss over a pool of passages,

    L_i = -log softmax over p in P of (v_i . p), at the relevant one,

and whatever grows with more feedback is paid for:

    L = mean_i L_i + weight * mean_{i<j} max(0, L_i - L_j)

with the gradient through both terms of each difference. Of several relevant passages the target is
the one that scores lowest, and the others are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from retrievekit.errors import DataError

_KEPT_ID = 100
_SPECIAL_IDS = 999


def nested_feedback(
    hits: int, docs: int, compare: int, generator: np.random.Generator
) -> list[list[int]]:
    """Feedback of a query's revisions, each the beginning of the one before it.

    Distinct numbers of passages are drawn from 0 to `docs`; the largest set is a random part of the
    first `docs` hits in random order.

    Args:
        hits: Hits of the query.
        docs: The most that are read.
        compare: Revisions besides the first.
        generator: Random numbers.

    Returns:
        Places of hits by revision, most feedback first.

    Raises:
        DataError: There are too few hits for so many revisions.
    """
    most = min(hits, docs)
    if compare > most:
        raise DataError(
            f"{compare + 1} revisions differ in their number of passages, but the query has only "
            f"{hits} hits"
        )
    numbers = sorted(generator.choice(most + 1, compare + 1, replace=False).tolist(), reverse=True)
    order = generator.permutation(most)[: numbers[0]].tolist()
    return [order[:number] for number in numbers]


def reformulation_losses(
    vectors: Tensor, pool: Tensor, relevant: Tensor, scale: float = 1.0
) -> Tensor:
    """The loss of each revision over a pool of passages.

    Args:
        vectors: Revisions, floating ``(b, r, d)``; dense vectors, or weights over a vocabulary.
        pool: Passages, floating ``(p, d)``, strided or sparse.
        relevant: bool ``(b, p)``, at least one passage of each query.
        scale: What scores are multiplied by.

    Returns:
        Losses, floating ``(b, r)``.

    Raises:
        DataError: A query has no relevant passage in the pool.
    """
    if not bool(relevant.any(dim=1).all()):
        raise DataError("a query has no relevant passage in the pool; add them to it")
    b, r, d = vectors.shape
    flat = vectors.reshape(b * r, d)
    scores = (pool @ flat.T).T if pool.layout != torch.strided else flat @ pool.T
    scores = scale * scores.reshape(b, r, -1)
    marked = relevant[:, None, :]
    targets = scores.masked_fill(~marked, torch.inf).amin(dim=2)
    others = scores.masked_fill(marked, -torch.inf).logsumexp(dim=2)
    return torch.logaddexp(targets, others) - targets


def comparative_loss(losses: Tensor) -> Tensor:
    """What more feedback made worse: the mean of ``max(0, L_i - L_j)`` over i before j.

    Args:
        losses: Floating ``(b, r)``, most feedback first.

    Returns:
        The mean over queries, a floating scalar; 0 with a single revision.
    """
    first, second = torch.triu_indices(losses.shape[1], losses.shape[1], 1, device=losses.device)
    if not len(first):
        return losses.new_zeros(())
    return (losses[:, first] - losses[:, second]).relu().mean()


def lol_loss(losses: Tensor, weight: float = 1.0) -> Tensor:
    """The mean loss of all revisions and the comparative regularisation.

    Args:
        losses: Floating ``(b, r)``, most feedback first.
        weight: What the regularisation counts; 0 leaves it out.

    Returns:
        A floating scalar.
    """
    mean = losses.mean()
    return mean + weight * comparative_loss(losses) if weight else mean


def vocabulary_weights(logits: Tensor, mask: Tensor, *, log: bool = False) -> Tensor:
    """A revised query over BERT's vocabulary, from the logits of its masked-language head.

    The highest logit of each token over all positions, without the ids below 999 but for 100, what
    is below 0 cut off, brought to length 1: the sparse form of LoL, for an index of uniCOIL.

    Args:
        logits: Floating ``(b, t, vocabulary)``.
        mask: Integers ``(b, t)``, 0 where there is no token.
        log: Whether ``log(1 + x)`` is taken before the length.

    Returns:
        Floating ``(b, vocabulary)``.
    """
    highest = logits.masked_fill(mask[:, :, None] == 0, -100.0).amax(dim=1)
    kept = torch.ones(logits.shape[2], dtype=torch.bool, device=logits.device)
    kept[:_SPECIAL_IDS] = False
    kept[_KEPT_ID : _KEPT_ID + 1] = True
    weights = (highest * kept).relu()
    if log:
        weights = weights.log1p()
    return torch.nn.functional.normalize(weights, dim=1)


def pool_of(first: Sequence[Sequence[int]], relevant: Sequence[Sequence[int]]) -> list[int]:
    """The rows of a pool: first hits of all queries and what is relevant to them.

    Args:
        first: Rows of first hits by query.
        relevant: Rows of relevant passages by query.

    Returns:
        Distinct rows, ascending.
    """
    return sorted({row for rows in (*first, *relevant) for row in rows})
