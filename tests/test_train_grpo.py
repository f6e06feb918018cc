"""GRPO: oracles in plain loops, rewards by all orders, and tiny models that learn to answer."""

from __future__ import annotations

import itertools
import math
import statistics
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError, LimitError
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import Message
from tests import plain_losses as plain
from tests.tiny_chats import chatter_of, tokenizer_for_chats
from tests.tiny_decoders import one_thread  # noqa: F401

torch = pytest.importorskip("torch")

from retrievekit.train.grpo import (  # noqa: E402
    accuracy_reward,
    fine_scores,
    format_reward,
    group_advantages,
    grpo_loss,
    kl_estimate,
    ranking_reward,
)
from retrievekit.train.losses import BCELoss, RankNetLoss  # noqa: E402
from retrievekit.train.warm_up import answer_reward, fine_tune, warm_up  # noqa: E402


def plain_loss(
    new: Any, old: Any, ref: Any, adv: Any, mask: Any, clip: float, beta: float
) -> float:
    answers = []
    for i, advantage in enumerate(adv):
        tokens = []
        for t, there in enumerate(mask[i]):
            if not there:
                continue
            ratio = math.exp(new[i][t] - old[i][t])
            held = min(max(ratio, 1 - clip), 1 + clip)
            away = ref[i][t] - new[i][t]
            kl = math.exp(away) - away - 1
            tokens.append(min(ratio * advantage, held * advantage) - beta * kl)
        if tokens:
            answers.append(sum(tokens) / len(tokens))
    return -sum(answers) / max(len(answers), 1)


def drawn(seed: int = 0, shape: tuple[int, int] = (5, 4)) -> Any:
    generator = torch.Generator().manual_seed(seed)
    new, old, ref = (-torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    adv = torch.randn(shape[0], generator=generator, dtype=torch.float64)
    mask = torch.rand(shape, generator=generator) < 0.7
    return new, old, ref, adv, mask


# The loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("clip", "beta"), [(0.2, 0.04), (0.0, 0.0), (10.0, 1.0)])
def test_equals_plain_loops(seed: int, clip: float, beta: float) -> None:
    new, old, ref, adv, mask = drawn(seed)
    mask[seed % 5] = False  # an answer of no token
    found = grpo_loss(new, old, adv, reference=ref, mask=mask, clip=clip, beta=beta)
    wanted = plain_loss(*(x.tolist() for x in (new, old, ref, adv, mask)), clip, beta)
    assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_gradient_is_that_of_the_formula() -> None:
    new, old, ref, adv, mask = drawn()
    assert torch.autograd.gradcheck(
        lambda x: grpo_loss(x, old, adv, reference=ref, mask=mask), new.requires_grad_()
    )


def test_the_first_update_is_the_policy_gradient() -> None:
    new, _, _, adv, _ = drawn()
    (found,) = torch.autograd.grad(grpo_loss(new.requires_grad_(), new.detach(), adv), new)
    torch.testing.assert_close(found, -adv[:, None].expand_as(new) / new.numel())


@pytest.mark.parametrize(
    ("moved", "advantage", "gradient"), [(0.5, 1, 0), (-0.5, 1, -1), (0.5, -1, 1), (-0.5, -1, 0)]
)
def test_clipping_stops_what_goes_too_far(moved: float, advantage: int, gradient: int) -> None:
    new = torch.tensor([[moved]], requires_grad=True)
    (found,) = torch.autograd.grad(
        grpo_loss(new, torch.zeros(1, 1), torch.tensor([float(advantage)])), new
    )
    assert found.sign().item() == gradient


def test_padding_never_matters() -> None:
    new, old, ref, adv, mask = drawn()
    wanted = grpo_loss(new, old, adv, reference=ref, mask=mask)
    for fill in (math.nan, -math.inf, 1e30):
        given = new.masked_fill(~mask, fill).requires_grad_()
        found = grpo_loss(
            given, old.masked_fill(~mask, fill), adv,
            reference=ref.masked_fill(~mask, fill), mask=mask,
        )  # fmt: skip
        (moved,) = torch.autograd.grad(found, given)
        assert found == wanted
        assert (moved[~mask] == 0).all()
        assert moved.isfinite().all()


def test_extremes_and_nothing() -> None:
    new = torch.tensor([[-1e4, 0.0], [0.0, -1e4]], requires_grad=True)
    found = grpo_loss(new, new.detach().flip(0), torch.tensor([1.0, -1.0]), reference=-new.detach())
    (moved,) = torch.autograd.grad(found, new)
    assert found.isfinite()
    assert moved.isfinite().all()
    empty = torch.zeros(0, 3)
    assert grpo_loss(empty, empty, torch.zeros(0)) == 0
    with pytest.raises(DataError, match="shape"):
        grpo_loss(torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(DataError, match="shape"):
        grpo_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(DataError, match="clip"):
        grpo_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), clip=-1)


def test_divergence_is_estimated_without_bias() -> None:
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    reference = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64).log()
    estimate = kl_estimate(policy, reference)
    assert (estimate > 0).all()
    mean = (policy.exp() * estimate).sum().item()
    assert mean == pytest.approx((policy.exp() * (policy - reference)).sum().item())
    assert (kl_estimate(policy, policy) == 0).all()


def test_advantages() -> None:
    rewards = [[1.5, 0.5, 0.0, 0.5], [0.1, 0.1, 0.1, 0.1]]
    found = group_advantages(torch.tensor(rewards, dtype=torch.float64))
    mean, spread = statistics.mean(rewards[0]), statistics.pstdev(rewards[0])
    assert found[0].tolist() == pytest.approx([(r - mean) / (spread + 1e-4) for r in rewards[0]])
    assert found[1].tolist() == [0] * 4
    assert (group_advantages(torch.full((1, 7), 0.1)) == 0).all()  # whatever the mean rounds to


# Rewards ----------------------------------------------------------------------------------------


def test_answers_and_what_they_earn() -> None:
    said = ["1", " 0\n", "2", "", "10", "yes"]
    assert [format_reward(one) for one in said] == [1, 1, 0, 0, 0, 0]
    assert [accuracy_reward(one, True) for one in said] == [1, 0, 0, 0, 0, 0]
    assert [accuracy_reward(one, False) for one in said] == [0, 1, 0, 0, 0, 0]
    assert [answer_reward(one, True) for one in said[:3]] == [1.5, 0.5, 0]


@given(
    st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(-1, 3)), max_size=5),
    st.sampled_from([None, 1, 2, 9]),
)
def test_ranking_reward_is_the_mean_over_all_orders(
    pairs: list[tuple[int, int]], k: int | None
) -> None:
    best = sum(
        max(0, y) / math.log2(2 + i)
        for i, (_, y) in enumerate(sorted(pairs, key=lambda pair: -pair[1])[:k])
    )
    every = []
    for order in itertools.permutations(pairs):
        if all(a[0] >= b[0] for a, b in itertools.pairwise(order)):
            every.append(sum(max(0, y) / math.log2(2 + i) for i, (_, y) in enumerate(order[:k])))
    wanted = statistics.mean(every) / best if best else 0
    assert ranking_reward([s for s, _ in pairs], [y for _, y in pairs], k) == pytest.approx(wanted)


def test_ranking_reward_needs_labels() -> None:
    with pytest.raises(DataError, match="2 scores, but 1 labels"):
        ranking_reward([1, 0], [1])


def test_fine_scores_are_log_odds() -> None:
    logits = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
    chance = logits[..., [4, 7]].softmax(dim=-1)[..., 1]
    torch.testing.assert_close(fine_scores(logits, 7, 4).sigmoid(), chance)


# Tiny models ------------------------------------------------------------------------------------

CHATS = [(Message("user", f"Query: {q} Document: {d}"),) for q in ("cats", "dogs") for d in "abc"]
LETTERS = ["a", "b", "c"]
RELEVANT = [True, False, False, False, True, False]


@cache
def tiny(family: str = "llama") -> CausalModel:
    return CausalModel.of(chatter_of(family), tokenizer_for_chats(), family, layout="chatml")


def a_letter(said: str, relevant: bool) -> float:
    return float(said.strip() in ("a", "b", "c"))


def the_right_letter(said: str, relevant: bool) -> float:
    return float(said.strip() == ("a" if relevant else "b"))


@pytest.mark.parametrize("updates", [1, 2])
def test_warm_up_raises_the_reward(updates: int) -> None:
    model = tiny()
    before = model.fingerprint
    weights = {name: w.clone() for name, w in model.whole.state_dict().items()}
    trained = warm_up(
        model, CHATS, RELEVANT, steps=60, prompts_at_once=6, samples=32, rate=3e-3, beta=0.0,
        updates=updates, seed=1, reward=a_letter,
    )  # fmt: skip
    first, last = statistics.mean(trained.course[:5]), statistics.mean(trained.course[-5:])
    assert last > first + 0.3
    assert trained.model.fingerprint != before
    for name, weight in model.whole.state_dict().items():
        assert torch.equal(weight, weights[name]), "the given model was changed"


def test_warm_up_tells_documents_apart() -> None:
    trained = warm_up(
        tiny(), CHATS, RELEVANT, steps=120, prompts_at_once=6, samples=32, rate=1e-3, beta=0.0,
        reward=the_right_letter, seed=1,
    )  # fmt: skip
    # Whoever says the same of all is right in 4 of 6 at most.
    assert statistics.mean(trained.course[:5]) < 0.1
    assert statistics.mean(trained.course[-5:]) > 0.75


def test_the_divergence_holds_the_policy_back() -> None:
    model, away = tiny(), []
    told = model.logits(CHATS, LETTERS)
    for beta in (0.0, 5.0):
        trained = warm_up(
            model, CHATS, RELEVANT, steps=20, samples=16, rate=1e-3, beta=beta, reward=a_letter
        )
        away.append(abs(trained.model.logits(CHATS, LETTERS) - told).mean())
    assert away[1] < 0.5 * away[0]


def test_fine_tuning_orders_documents() -> None:
    model = tiny()
    lists, labels = [CHATS[:3], CHATS[3:]], [[1, 0, 0], [0, 1, 0]]
    for loss in (BCELoss(), RankNetLoss()):
        trained = fine_tune(model, lists, labels, loss, steps=40, rate=3e-3)
        assert trained.course[-1] < 0.5 * trained.course[0]
        found = trained.model.logits(CHATS, ["0", "1"])
        scores = (found[:, 1] - found[:, 0]).reshape(2, 3)
        assert scores.argmax(axis=1).tolist() == [0, 1]


def test_the_first_loss_is_that_of_the_models_own_logits() -> None:
    model = tiny()
    chats = [*CHATS[:2], (Message("user", "A far longer prompt. " * 9),)]
    found = model.logits(chats, ["0", "1"])
    wanted = plain.bce((found[:, 1] - found[:, 0]).tolist(), [1, 0, 1])
    trained = fine_tune(model, [chats], [[1, 0, 1]], BCELoss(), steps=1)
    assert trained.course[0] == pytest.approx(wanted, rel=1e-4)


def test_what_training_refuses() -> None:
    model = tiny()
    with pytest.raises(DataError, match="labels"):
        warm_up(model, CHATS, RELEVANT[:2])
    with pytest.raises(DataError, match="nothing"):
        warm_up(model, [], [])
    with pytest.raises(DataError, match="samples"):
        warm_up(model, CHATS, RELEVANT, samples=1)
    with pytest.raises(DataError, match="rate"):
        warm_up(model, CHATS, RELEVANT, rate=0)
    with pytest.raises(LimitError):
        warm_up(model, [(Message("user", "cat " * 3000),)], [True])
    with pytest.raises(DataError, match="list 1 has 3 prompts, but 2"):
        fine_tune(model, [CHATS[:3], CHATS[3:]], [[1, 0, 0], [1, 0]], BCELoss())
    assert warm_up(model, CHATS, RELEVANT, steps=0).course == ()


def test_the_same_seed_gives_the_same_course() -> None:
    one, other = (warm_up(tiny(), CHATS, RELEVANT, steps=3, rate=1e-3, seed=5) for _ in range(2))
    assert one.course == other.course
    assert one.model.fingerprint == other.model.fingerprint
