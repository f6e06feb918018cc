"""Policy gradients against the exact ones, by going through every ranking of four documents."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from retrievekit.errors import DataError
from tests.tiny_decoders import one_thread  # noqa: F401

torch = pytest.importorskip("torch")

from retrievekit.train.policy import (  # noqa: E402
    NOBODY,
    PGRankLoss,
    leave_one_out,
    log_probability,
    ndcg,
    reciprocal_rank,
    sample_rankings,
)

SCORES = [0.7, -0.4, 0.1, 1.3]
LABELS = [1.0, 3.0, 0.0, 0.0]
DRAWS = 20_000


def plain_log_probability(scores: list[float], ranking: tuple[int, ...]) -> float:
    left, total = set(range(len(scores))), 0.0
    for document in ranking:
        total += scores[document] - math.log(sum(math.exp(scores[d]) for d in left))
        left.remove(document)
    return total


def plain_ndcg(labels: list[float], ranking: tuple[int, ...], k: int | None) -> float:
    best = sum(g / math.log2(2 + i) for i, g in enumerate(sorted(labels, reverse=True)[:k]))
    return sum(labels[d] / math.log2(2 + i) for i, d in enumerate(ranking[:k])) / best


def plain_rr(labels: list[float], ranking: tuple[int, ...], k: int | None) -> float:
    return max((1 / (i + 1) for i, d in enumerate(ranking[:k]) if labels[d] > 0), default=0.0)


def exact(utility: Any, k: int | None) -> tuple[float, Any]:
    """Mean utility over all rankings, and its gradient."""
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for ranking in itertools.permutations(range(4)):
        left, chance = list(range(4)), torch.ones((), dtype=torch.float64)
        for document in ranking:
            chance = chance * scores[document].exp() / scores[left].exp().sum()
            left.remove(document)
        total = total + chance * utility(LABELS, ranking, k)
    (gradient,) = torch.autograd.grad(total, scores)
    return total.item(), gradient


def estimates(loss: Any, draws: int = DRAWS) -> Any:
    """Estimates of the gradient of the mean utility, each from one list's samples."""
    scores = torch.tensor(SCORES, dtype=torch.float64).expand(draws, 4).clone().requires_grad_()
    labels = torch.tensor(LABELS, dtype=torch.float64).expand(draws, 4)
    (found,) = torch.autograd.grad(loss(scores, labels), scores)
    return -found * draws  # the loss is a mean over lists


def assert_mean(found: Any, wanted: Any) -> None:
    """Within four standard errors, which are small."""
    error = found.std(dim=0) / math.sqrt(len(found))
    assert (error < 0.01).all()
    assert ((found.mean(dim=0) - wanted).abs() <= 4 * error + 1e-12).all()


# Exact gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "plain"), [("ndcg", plain_ndcg), ("mrr", plain_rr)])
@pytest.mark.parametrize("k", [None, 1, 2, 10])
@pytest.mark.parametrize("baseline", [True, False])
def test_the_mean_gradient_is_the_exact_one(name: Any, plain: Any, k: Any, baseline: bool) -> None:
    _, wanted = exact(plain, k)
    assert wanted.abs().max() > 0.05
    assert_mean(estimates(PGRankLoss(name, k=k, samples=4, baseline=baseline)), wanted)


def test_the_baseline_lowers_the_variance() -> None:
    with_it = estimates(PGRankLoss(samples=8, k=None, seed=1))
    without = estimates(PGRankLoss(samples=8, k=None, seed=1, baseline=False))
    assert (with_it.var(dim=0) < 0.5 * without.var(dim=0)).all()


def test_places_that_are_not_read_only_add_noise() -> None:
    def first_two(rankings: Any, labels: Any) -> Any:
        return ndcg(rankings, labels, 2)

    whole = estimates(PGRankLoss(first_two, k=None, samples=4))
    assert_mean(whole, exact(plain_ndcg, 2)[1])
    short = estimates(PGRankLoss(k=2, samples=4))
    assert short.var(dim=0).sum() < whole.var(dim=0).sum()


def test_published_values() -> None:
    scores = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    found = log_probability(scores, torch.tensor([[[0, 1, 2]]]))
    assert found.item() == pytest.approx(-0.720868, abs=1e-6)
    labels = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    every = torch.tensor([list(itertools.permutations(range(3)))])
    chance = log_probability(scores, every).exp()
    assert chance.sum().item() == pytest.approx(1)
    assert (chance * ndcg(every, labels)).sum().item() == pytest.approx(0.689210, abs=1e-6)
    drawn = sample_rankings(scores, DRAWS, noise=torch.Generator().manual_seed(0))
    worth = ndcg(drawn, labels)
    error = worth.std().item() / math.sqrt(DRAWS)
    assert worth.mean().item() == pytest.approx(0.689210, abs=4 * error)


# Parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [0, 1, 3, 4])
def test_log_probability_of_beginnings(places: int) -> None:
    rankings = list(itertools.permutations(range(4), places))
    scores = torch.tensor([SCORES], dtype=torch.float64, requires_grad=True)
    found = log_probability(scores, torch.tensor([rankings], dtype=torch.int64))
    wanted = [plain_log_probability(SCORES, ranking) for ranking in rankings]
    assert found[0].tolist() == pytest.approx(wanted)
    assert found.exp().sum().item() == pytest.approx(1)
    assert torch.autograd.gradcheck(
        lambda s: log_probability(s, torch.tensor([rankings], dtype=torch.int64)), scores
    )


def test_rankings_come_as_often_as_they_are_likely() -> None:
    scores = torch.tensor([SCORES])
    drawn = sample_rankings(scores, DRAWS, 2, noise=torch.Generator().manual_seed(2))
    assert drawn.shape == (1, DRAWS, 2)
    for ranking in itertools.permutations(range(4), 2):
        chance = math.exp(plain_log_probability(SCORES, ranking))
        often = (drawn[0] == torch.tensor(ranking)).all(dim=1).double().mean().item()
        assert often == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / DRAWS))


def test_equal_scores_come_in_every_order() -> None:
    drawn = sample_rankings(torch.zeros(1, 3), 600, noise=torch.Generator().manual_seed(0))
    orders = [tuple(one) for one in drawn[0].tolist()]
    assert all(60 < orders.count(order) < 140 for order in itertools.permutations(range(3)))


@pytest.mark.parametrize("k", [None, 1, 2, 3])
def test_utilities_equal_plain_loops(k: Any) -> None:
    every = list(itertools.permutations(range(4)))
    rankings = torch.tensor([every])
    for labels in ([1.0, 3, 0, 0], [0, 0, 0, 1.0], [2.0, 2, 2, 2]):
        given = torch.tensor([labels])
        wanted = [plain_ndcg(labels, ranking, k) for ranking in every]
        assert ndcg(rankings, given, k)[0].tolist() == pytest.approx(wanted)
        found = reciprocal_rank(rankings[:, :, :k], given)[0].tolist()
        assert found == pytest.approx([plain_rr(labels, ranking, k) for ranking in every])
    assert (ndcg(rankings, torch.tensor([[0.0, -1, 0, -2]])) == 0).all()
    assert (reciprocal_rank(rankings, torch.tensor([[0.0, -1, 0, -2]])) == 0).all()


def test_leave_one_out() -> None:
    utilities = torch.tensor([[0.2, 0.9, 0.4], [0.5, 0.5, 0.5]])
    wanted = [0.2 - (0.9 + 0.4) / 2, 0.9 - (0.2 + 0.4) / 2, 0.4 - (0.2 + 0.9) / 2]
    assert leave_one_out(utilities)[0].tolist() == pytest.approx(wanted)
    assert leave_one_out(utilities)[1].tolist() == [0, 0, 0]


# Padding, extremes, nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("k", [None, 2, 3])
def test_padding_changes_no_draw(k: int | None) -> None:
    scores = torch.tensor([SCORES, [0.5, -0.5, math.nan, math.nan]])
    mask = ~scores.isnan()
    wide = torch.full((2, 9), math.nan)
    wide[:, :4] = scores
    for fill in (math.nan, 1e9):
        given = wide.nan_to_num(fill).requires_grad_()
        drawn = sample_rankings(given, 5, k, ~wide.isnan(), torch.Generator().manual_seed(4))
        plain = sample_rankings(scores, 5, k, mask, torch.Generator().manual_seed(4))
        width = plain.shape[2]
        assert (drawn[:, :, :width] == plain).all()
        assert (drawn[:, :, width:] == NOBODY).all()
        assert (drawn[1, :, 2:] == NOBODY).all()
        assert sorted(drawn[1, 0, :2].tolist()) == [0, 1]
    labels = torch.tensor([LABELS, [0.0, 1.0, math.nan, math.nan]])
    wide_labels = torch.full((2, 9), math.nan)
    wide_labels[:, :4] = labels
    values = []
    for s, y, m in ((scores, labels, mask), (wide, wide_labels, ~wide.isnan())):
        s = s.clone().requires_grad_()
        value = PGRankLoss(k=k, seed=7)(s, y, m)
        (moved,) = torch.autograd.grad(value, s)
        assert (moved[~m] == 0).all()
        values.append((value.detach(), moved[:, :4]))
    torch.testing.assert_close(values[0], values[1])
    assert values[0][1].abs().max() > 1e-3


@pytest.mark.parametrize("utility", ["ndcg", "mrr"])
@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([1e4, -1e4, 0.0], [1.0, 1.0, 1.0]),
        ([1.0, 2.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.3], [1.0]),
        ([], []),
    ],
)
def test_lists_that_say_nothing(utility: Any, scores: list[float], labels: list[float]) -> None:
    given = torch.tensor([scores], requires_grad=True)
    value = PGRankLoss(utility)(given, torch.tensor([labels]))
    (moved,) = torch.autograd.grad(value, given)
    assert value.item() == pytest.approx(0, abs=1e-2)
    assert moved.tolist() == [pytest.approx([0.0] * len(scores), abs=1e-6)]


def test_scores_of_ten_thousand() -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0, 1e4]], requires_grad=True)
    value = PGRankLoss(samples=8)(scores, torch.tensor([[0, 1, 0, 2]]))
    (moved,) = torch.autograd.grad(value, scores)
    assert value.isfinite()
    assert moved.isfinite().all()
    assert moved[0, 3] < 0 < moved[0, 0]  # these two still change places


def test_seeds_repeat_and_batches_differ() -> None:
    scores = torch.tensor([SCORES])
    one, other, third = (PGRankLoss(seed=seed) for seed in (3, 3, 4))
    first = one(scores, torch.tensor([LABELS]))
    assert first == other(scores, torch.tensor([LABELS]))
    assert first != third(scores, torch.tensor([LABELS]))
    assert first != one(scores, torch.tensor([LABELS]))


def test_it_learns() -> None:
    scores = torch.zeros(1, 6, requires_grad=True)
    labels = torch.tensor([[0, 0, 1, 0, 2, 0]])
    loss, optimizer = PGRankLoss(), torch.optim.Adam([scores], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss(scores, labels).backward()
        optimizer.step()
    assert scores.argsort(descending=True)[0, :2].tolist() == [4, 2]


@pytest.mark.parametrize(
    "settings", [{"utility": "map"}, {"k": 0}, {"samples": 1}, {"temperature": 0}]
)
def test_settings_out_of_range(settings: Any) -> None:
    with pytest.raises(DataError):
        PGRankLoss(**settings)
    assert PGRankLoss().settings()["samples"] == 16
