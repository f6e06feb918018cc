"""The next token of each chat: the likeliest, or one drawn by the chat's own chance.

Tokens are drawn by the Gumbel trick from a generator that belongs to the chat alone, so that what
is drawn depends on seed and prompt, and not on which chats are answered beside it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def seeds_of(prompts: Sequence[Sequence[int]], seed: int) -> list[int]:
    """A seed for each prompt: of its tokens, and of how often the same came before it.

    Args:
        prompts: Their token ids.
        seed: What all depend on.

    Returns:
        The seeds, below 2**63.
    """
    before: Counter[tuple[int, ...]] = Counter()
    out = []
    for prompt in map(tuple, prompts):
        digest = hashlib.sha256(f"{seed}:{before[prompt]}:{prompt}".encode()).digest()
        out.append(int.from_bytes(digest[:8], "little") >> 1)
        before[prompt] += 1
    return out


class Sampler:
    """Chooses tokens.

    Args:
        seeds: For each chat what its draws depend on; none are needed at temperature 0.
        temperature: 0 takes the likeliest token.
        top_k: How many of the likeliest tokens are drawn from; None draws from all.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_k: int | None = None) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.sources = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """The next token of some chats.

        Args:
            logits: Floating ``(m, vocabulary)``.
            rows: Which chats these are.

        Returns:
            int64 ``(m,)``, on the device of `logits`.
        """
        if not self.temperature:
            return logits.argmax(-1)
        size = logits.shape[1]
        noise = torch.stack(
            [torch.empty(size).exponential_(generator=self.sources[row]) for row in rows]
        )
        drawn = logits.float() / self.temperature - noise.log().to(logits.device)
        if self.top_k is not None and self.top_k < size:
            least = logits.topk(self.top_k, dim=-1).values[:, -1:]
            drawn = drawn.masked_fill(logits < least, float("-inf"))
        return drawn.argmax(-1)
