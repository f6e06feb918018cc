"""Losses of ANCE-PRF and LoL against the worked values and plain loops."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

from retrievekit.train.lol import (
    comparative_loss,
    lol_loss,
    nested_feedback,
    pool_of,
    reformulation_losses,
    vocabulary_weights,
)
from retrievekit.train.prf_losses import in_batch_loss, own_loss, pairwise_loss


def near(a, b, atol=1e-6):
    assert float(a) == pytest.approx(b, abs=atol)


# Worked values ------------------------------------------------------------------------------------


def test_worked_values_of_ance_prf():
    """q.p = 2 against one negative of 1: 0.313262; against twenty: 2.123170."""
    query = torch.tensor([[1.0, 0.0]])
    one = torch.tensor([[[2.0, 5.0], [1.0, 7.0]]])
    many = torch.cat([one[:, :1], one[:, 1:].expand(1, 20, 2)], dim=1)
    for loss in (own_loss, pairwise_loss):
        near(loss(query, one, torch.ones(1, 2, dtype=torch.bool)), 0.313262)
    near(own_loss(query, many, torch.ones(1, 21, dtype=torch.bool)), 2.123170)
    near(pairwise_loss(query, many, torch.ones(1, 21, dtype=torch.bool)), 0.313262)
    flat, none = many[0], torch.zeros(1, 21, dtype=torch.bool)
    near(in_batch_loss(query, flat, torch.tensor([0]), none), 2.123170)


@pytest.mark.parametrize(
    ("losses", "mean", "cr", "total"),
    [
        ([0.9, 0.7], 0.8, 0.2, 1.0),
        ([0.5, 0.7], 0.6, 0.0, 0.6),
        ([0.9, 0.7, 1.0], 0.866667, 0.066667, 0.933333),
    ],
)
def test_worked_values_of_lol(losses, mean, cr, total):
    given = torch.tensor([losses])
    near(given.mean(), mean)
    near(comparative_loss(given), cr)
    near(lol_loss(given), total)
    near(lol_loss(given, 0.0), mean)
    near(lol_loss(given, 2.0), mean + 2 * cr, 3e-6)
    near(lol_loss(torch.cat([given, given])), total)


def test_one_revision_has_nothing_to_compare():
    near(comparative_loss(torch.tensor([[0.4], [0.9]])), 0.0)


# Plain loops --------------------------------------------------------------------------------------


def softmax_loss(scores, target, others):
    top = max(scores[i] for i in [target, *others])
    total = sum(math.exp(scores[i] - top) for i in [target, *others])
    return -(scores[target] - top - math.log(total))


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 20.0]))
def test_losses_over_the_pool_equal_loops(seed, scale):
    draw = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3, 2, 4, generator=draw, dtype=torch.float64)
    pool = torch.randn(6, 4, generator=draw, dtype=torch.float64)
    relevant = torch.rand(3, 6, generator=draw) < 0.3
    relevant[torch.arange(3), torch.randint(6, (3,), generator=draw)] = True
    found = reformulation_losses(vectors, pool, relevant, scale)
    for b in range(3):
        for r in range(2):
            scores = [scale * float(vectors[b, r] @ passage) for passage in pool]
            positives = [p for p in range(6) if relevant[b, p]]
            target = min(positives, key=scores.__getitem__)
            others = [p for p in range(6) if p not in positives]
            near(found[b, r], softmax_loss(scores, target, others), 1e-9)
    sparse = reformulation_losses(vectors, pool.to_sparse(), relevant, scale)
    np.testing.assert_allclose(sparse.numpy(), found.numpy(), atol=1e-9)


@given(seed=st.integers(0, 1000), revisions=st.integers(1, 4))
def test_comparison_equals_loops(seed, revisions):
    losses = torch.rand(5, revisions, generator=torch.Generator().manual_seed(seed))
    pairs = [(i, j) for i in range(revisions) for j in range(i + 1, revisions)]
    expected = [
        sum(max(0.0, float(row[i] - row[j])) for i, j in pairs) / max(1, len(pairs))
        for row in losses
    ]
    near(comparative_loss(losses), sum(expected) / 5)


@given(seed=st.integers(0, 1000))
def test_losses_of_batches_equal_loops(seed):
    draw = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3, 4, generator=draw, dtype=torch.float64)
    passages = torch.randn(3, 5, 4, generator=draw, dtype=torch.float64)
    mask = torch.rand(3, 5, generator=draw) < 0.6
    mask[:, :2] = True
    own, pairs = [], []
    for b in range(3):
        scores = [float(vectors[b] @ passage) for passage in passages[b]]
        others = [m for m in range(1, 5) if mask[b, m]]
        own.append(softmax_loss(scores, 0, others))
        pairs += [math.log1p(math.exp(scores[m] - scores[0])) for m in others]
    near(own_loss(vectors, passages, mask), sum(own) / 3, 1e-9)
    near(pairwise_loss(vectors, passages, mask), sum(pairs) / len(pairs), 1e-9)
    flat = passages.reshape(15, 4)
    banned = torch.rand(3, 15, generator=draw) < 0.3
    targets = torch.tensor([0, 5, 10])
    expected = []
    for b in range(3):
        scores = [float(vectors[b] @ passage) for passage in flat]
        others = [m for m in range(15) if m != 5 * b and not banned[b, m]]
        expected.append(softmax_loss(scores, 5 * b, others))
    near(in_batch_loss(vectors, flat, targets, banned), sum(expected) / 3, 1e-9)


def test_weights_over_the_vocabulary_equal_loops():
    logits = torch.randn(2, 3, 1003, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for log in (False, True):
        found = vocabulary_weights(logits, mask, log=log)
        for b in range(2):
            row = []
            for token in range(1003):
                best = max(float(logits[b, t, token]) for t in range(3) if mask[b, t])
                best = max(0.0, best) if token == 100 or token >= 999 else 0.0
                row.append(math.log1p(best) if log else best)
            length = math.sqrt(sum(value * value for value in row))
            np.testing.assert_allclose(found[b].numpy(), np.array(row) / length, atol=1e-6)


# Gradients ----------------------------------------------------------------------------------------


def test_gradient_goes_through_both_terms():
    losses = torch.tensor([[0.9, 0.7]], requires_grad=True)
    comparative_loss(losses).backward()
    assert losses.grad.tolist() == [[1.0, -1.0]]


def test_gradients_are_those_of_differences():
    draw = torch.Generator().manual_seed(4)
    vectors = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    pool = torch.randn(7, 4, generator=draw, dtype=torch.float64)
    relevant = torch.zeros(2, 7, dtype=torch.bool)
    relevant[0, :2] = relevant[1, 5] = True
    torch.autograd.gradcheck(
        lambda v: lol_loss(reformulation_losses(v, pool, relevant), 1.5), (vectors,)
    )
    flat = vectors.detach()[:, 0].clone().requires_grad_()
    passages, mask = pool[:6].reshape(2, 3, 4), torch.tensor([[True] * 3, [True, True, False]])
    for loss in (own_loss, pairwise_loss):
        torch.autograd.gradcheck(lambda v, loss=loss: loss(v, passages, mask), (flat,))


# Sampling -----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), hits=st.integers(0, 8), docs=st.integers(1, 5))
def test_feedback_sets_are_nested(seed, hits, docs):
    most = min(hits, docs)
    compare = min(1, most)
    found = nested_feedback(hits, docs, compare, np.random.default_rng(seed))
    assert len(found) == compare + 1
    assert all(len(a) > len(b) for a, b in itertools.pairwise(found))
    assert all(a[: len(b)] == b for a, b in itertools.pairwise(found))
    assert set(found[0]) <= set(range(most))
    assert len(set(found[0])) == len(found[0])


def test_all_numbers_of_passages_come_up():
    generator = np.random.default_rng(0)
    drawn = [nested_feedback(9, 5, 1, generator) for _ in range(500)]
    assert {len(revision) for sets in drawn for revision in sets} == set(range(6))
    # Not only the first hits: a part of the first five, in any order.
    assert {tuple(sets[0]) for sets in drawn if len(sets[0]) == 1} == {(n,) for n in range(5)}


def test_too_few_hits_for_the_revisions():
    with pytest.raises(DataError, match="3 revisions differ"):
        nested_feedback(1, 5, 2, np.random.default_rng(0))
    assert nested_feedback(0, 5, 0, np.random.default_rng(0)) == [[]]


def test_pool_must_hold_what_is_relevant():
    assert pool_of([[3, 1], [1, 2]], [[5], [3]]) == [1, 2, 3, 5]
    assert pool_of([], []) == []
    with pytest.raises(DataError, match="no relevant passage in the pool"):
        reformulation_losses(torch.ones(1, 1, 2), torch.ones(3, 2), torch.zeros(1, 3).bool())
