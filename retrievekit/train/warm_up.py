"""ProRank's two stages on a small causal model: answers by GRPO, then fine scores.

1. `warm_up`: several answers of one token to each prompt, rewarded for their form and for being
   right, move the policy by `grpo_loss`; the model as it came is the reference.
2. `fine_tune`: the log-odds of ``1`` against ``0`` as a score, trained by any loss on lists.

Li et al., "ProRank", 2025 (arXiv 2506.03487). Both train a copy: what was given stays as it is.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retrievekit.errors import DataError
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import Chat
from retrievekit.train.grpo import (
    ANSWERS,
    accuracy_reward,
    fine_scores,
    format_reward,
    group_advantages,
    grpo_loss,
)
from retrievekit.train.losses.base import ListLoss


@dataclass(frozen=True)
class Trained:
    """A trained model, and how it went.

    Args:
        model: The trained copy.
        course: For each step the mean reward of `warm_up`, or the loss of `fine_tune`.
    """

    model: CausalModel
    course: tuple[float, ...]


def answer_reward(answer: str, relevant: bool) -> float:
    """What an answer earns: 1 for being right, and 0.5 for its form.

    Args:
        answer: What the model said.
        relevant: Whether the document is relevant.

    Returns:
        0, 0.5 or 1.5.
    """
    return accuracy_reward(answer, relevant) + 0.5 * format_reward(answer)


def warm_up(
    model: CausalModel,
    chats: Sequence[Chat],
    relevant: Sequence[bool],
    *,
    reward: Callable[[str, bool], float] = answer_reward,
    steps: int = 100,
    prompts_at_once: int = 8,
    samples: int = 8,
    updates: int = 1,
    rate: float = 1e-5,
    clip: float = 0.2,
    beta: float = 0.04,
    seed: int = 0,
) -> Trained:
    """Teach a model by GRPO to answer ``0`` or ``1``.

    Args:
        model: Where to begin; it is left as it is.
        chats: The prompts, such as those of a ProRank reranker.
        relevant: For each, whether its document is relevant.
        reward: What an answer earns, from its text and whether the document is relevant.
        steps: How often answers are drawn.
        prompts_at_once: Prompts of one step.
        samples: Answers to each prompt; at least 2.
        updates: How often weights are moved by the same answers.
        rate: The learning rate of AdamW.
        clip: How far the ratio to the old policy may go and still be rewarded.
        beta: What the divergence from the given model counts.
        seed: Of the order of prompts and of the answers drawn.

    Returns:
        The trained copy, and each step's mean reward.

    Raises:
        DataError: Chats and labels do not match, or a number is out of range.
        LimitError: A prompt is longer than the model reads.
    """
    _check(len(chats), len(relevant), steps, prompts_at_once, rate)
    if samples < 2 or updates < 1:
        raise DataError(f"samples is at least 2 and updates at least 1; got {samples}, {updates}")
    prompts = model.prompt_ids(chats)
    model.check_lengths(chats, [len(prompt) for prompt in prompts], 1)
    policy = copy.deepcopy(model.whole)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate)
    noise = torch.Generator().manual_seed(seed)
    course = []
    for rows in _turns(len(prompts), prompts_at_once, steps, noise):
        asked = [prompts[row] for row in rows]
        with torch.no_grad():
            before = _next_logits(policy, asked).log_softmax(dim=1)
            told = _next_logits(model.whole, asked).log_softmax(dim=1) if beta else None
        drawn = torch.multinomial(before.exp().cpu(), samples, replacement=True, generator=noise)
        rewards = torch.tensor(
            [
                [reward(model.tokenizer.decode([token]), bool(relevant[row])) for token in tokens]
                for row, tokens in zip(rows, drawn.tolist(), strict=True)
            ],
            dtype=torch.float32,
        )
        course.append(rewards.mean().item())
        advantages = group_advantages(rewards).to(before.device).reshape(-1)
        drawn = drawn.to(before.device)
        for _ in range(updates):
            now = _next_logits(policy, asked).log_softmax(dim=1)
            loss = grpo_loss(
                now.gather(1, drawn).reshape(-1, 1),
                before.gather(1, drawn).reshape(-1, 1),
                advantages,
                reference=None if told is None else told.gather(1, drawn).reshape(-1, 1),
                clip=clip,
                beta=beta,
            )
            _move(optimizer, policy, loss)
    return Trained(_renewed(model, policy), tuple(course))


def fine_tune(
    model: CausalModel,
    lists: Sequence[Sequence[Chat]],
    labels: Sequence[Sequence[float]],
    loss: ListLoss,
    *,
    steps: int = 100,
    lists_at_once: int = 4,
    rate: float = 1e-5,
    seed: int = 0,
) -> Trained:
    """Train the fine scores of a model by a loss on lists.

    Args:
        model: Where to begin, such as what `warm_up` gives; it is left as it is.
        lists: For each query the prompts of its documents.
        labels: For each query the labels of its documents.
        loss: The loss, such as `BCELoss` or a listwise one.
        steps: How often weights are moved.
        lists_at_once: Lists of one step.
        rate: The learning rate of AdamW.
        seed: Of the order of lists.

    Returns:
        The trained copy, and each step's loss.

    Raises:
        DataError: Lists and labels do not match, a number is out of range, or ``0`` or ``1`` is no
            single token.
        LimitError: A prompt is longer than the model reads.
    """
    _check(len(lists), len(labels), steps, lists_at_once, rate)
    for number, (chats, judged) in enumerate(zip(lists, labels, strict=True)):
        if len(chats) != len(judged):
            raise DataError(f"list {number} has {len(chats)} prompts, but {len(judged)} labels")
    prompts = [model.prompt_ids(chats) for chats in lists]
    answers = [_answer_ids(model, chats) for chats in lists]
    for chats, some in zip(lists, prompts, strict=True):
        model.check_lengths(chats, [len(prompt) for prompt in some], 1)
    student = copy.deepcopy(model.whole)
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate)
    noise = torch.Generator().manual_seed(seed)
    course = []
    for rows in _turns(len(lists), lists_at_once, steps, noise):
        lengths = torch.tensor([len(prompts[row]) for row in rows])
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(student.device)
        flat = [prompt for row in rows for prompt in prompts[row]]
        if not flat:
            continue
        own = torch.tensor([ids for row in rows for ids in answers[row]], device=student.device)
        scored = fine_scores(_next_logits(student, flat).gather(1, own), one=1, zero=0)
        given = torch.tensor([label for row in rows for label in labels[row]]).to(scored)
        empty = scored.new_zeros(mask.shape)
        found = loss(empty.masked_scatter(mask, scored), empty.masked_scatter(mask, given), mask)
        course.append(found.item())
        _move(optimizer, student, found)
    return Trained(_renewed(model, student), tuple(course))


def _check(given: int, labels: int, steps: int, at_once: int, rate: float) -> None:
    if given != labels:
        raise DataError(f"{given} prompts or lists, but {labels} labels")
    if not given:
        raise DataError("nothing to train on; give prompts and their labels")
    if steps < 0 or at_once < 1 or not rate > 0:
        raise DataError(
            "steps is at least 0, the number at once at least 1 and rate above 0; "
            f"got {steps}, {at_once} and {rate}"
        )


def _answer_ids(model: CausalModel, chats: Sequence[Chat]) -> list[list[int]]:
    """The tokens of ``0`` and ``1`` behind each prompt: those that the model is asked for later."""
    return model._answers(chats, model._texts(chats), ANSWERS)


def _turns(count: int, at_once: int, steps: int, noise: torch.Generator) -> Iterator[list[int]]:
    """Rows of each step: all in a random order, then again in another."""
    waiting: list[int] = []
    for _ in range(steps):
        if not waiting:
            waiting = torch.randperm(count, generator=noise).tolist()
        yield waiting[:at_once]
        waiting = waiting[at_once:]


def _next_logits(network: torch.nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Logits behind each prompt, float32 or wider ``(prompts, vocabulary)``."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    mask = (torch.arange(longest) >= longest - lengths[:, None]).long()
    tokens = torch.zeros(mask.shape, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
    device = next(network.parameters()).device
    takes = inspect.signature(network.forward).parameters
    short = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    last: Tensor = network(
        input_ids=tokens.to(device),
        attention_mask=mask.to(device),
        position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(device),
        use_cache=False,
        **short,
    ).logits[:, -1]
    return last.float() if last.dtype in (torch.float16, torch.bfloat16) else last


def _move(optimizer: torch.optim.Optimizer, network: torch.nn.Module, loss: Tensor) -> None:
    """One step of the optimizer, its gradient held to length 1."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0, error_if_nonfinite=True)
    optimizer.step()


def _renewed(model: CausalModel, network: torch.nn.Module) -> CausalModel:
    """The model with other weights, which its fingerprint is then made of."""
    return CausalModel.of(
        network,
        model.tokenizer,
        model.name,
        layout=model.layout,
        thinking=model.thinking,
        temperature=model.temperature,
        top_k=model.top_k,
        seed=model.seed,
        tokens_at_once=model.tokens_at_once,
    )
