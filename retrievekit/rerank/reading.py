"""Letting a model read documents once, and several queries behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.language.causal import CausalModel
from retrievekit.language.specials import disarmed, special_texts
from retrievekit.rerank.prompts import Prompt, Template, build, template_for
from retrievekit.rerank.spans import Tokens, beginning, check_fast, tokenized

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Wording:
    """What a prompt says besides documents and query.

    Args:
        template: What stands around them.
        instruction: What the model is asked to do.
        mark: The text of the token that begins every prompt, or an empty one.
        specials: The texts of the tokenizer's special tokens.
    """

    template: Template
    instruction: str
    mark: str
    specials: tuple[str, ...]


def wording_for(model: CausalModel, template: str, instruction: str) -> Wording:
    """The wording that suits a model, which is loaded.

    Args:
        model: The model.
        template: The template's name; see `template_for`.
        instruction: What the model is asked to do.

    Returns:
        The wording.
    """
    tokenizer: Any = model.tokenizer
    check_fast(tokenizer, model.name)
    family = str(getattr(model.decoder.config, "model_type", ""))
    made = template_for(template, tokenizer, model.title, family)
    return Wording(made, instruction, beginning(tokenizer), tuple(special_texts(tokenizer)))


@dataclass(frozen=True)
class Reading:
    """What the rows of some queries attend to among the same documents.

    Args:
        docs: The documents as the prompt has them, in prompt order.
        prompt: The prompt.
        tokens: Its tokens.
        seen: For each query the attention to every token of the prompt, its own included, summed
            over the chosen heads, float64 ``(tokens,)``; each adds up to the number of heads.
        void: The same for the void query, or None without calibration.
    """

    docs: tuple[str, ...]
    prompt: Prompt
    tokens: Tokens
    seen: list[NDArray[np.float64]]
    void: NDArray[np.float64] | None

    def deltas(self, number: int) -> NDArray[np.float64]:
        """One query's attention to the tokens before it, less that of the void query.

        Args:
            number: Which query.

        Returns:
            float64 ``(tokens,)``.
        """
        n = len(self.tokens.prefix)
        own = self.seen[number][:n]
        return own if self.void is None else own - self.void[:n]

    def calibrated(self) -> Reading:
        """The same with the first query taken for the void one."""
        return replace(self, seen=self.seen[1:], void=self.seen[0])


def read_together(
    model: CausalModel,
    wording: Wording,
    docs: Sequence[str],
    queries: Sequence[str],
    chosen: Mapping[int, Sequence[int]],
    *,
    last_row: bool = False,
    queries_at_once: int = 8,
    sink: Callable[[int, int, Tensor], None] | None = None,
) -> Reading:
    """Let a model read documents once, and each query behind them.

    Args:
        model: The model.
        wording: What the prompt says besides.
        docs: The documents in prompt order, at least one.
        queries: The queries, at least one.
        chosen: By layer the heads that count.
        last_row: Whether the prompt's last token counts alone.
        queries_at_once: Queries that are run together.
        sink: Called as well for every layer that counts and every query (by its number), with the
            mean attention of each head, floating ``(heads, tokens)``.

    Returns:
        What the queries attend to, none of them taken for the void one.

    Raises:
        LimitError: The prompt is longer than the model reads.
    """
    from retrievekit.rerank.capture import read_prefix, read_rows

    plain = tuple(disarmed(doc, wording.specials) for doc in docs)
    asked = [disarmed(query, wording.specials) for query in queries]
    prompt = build(wording.template, wording.instruction, plain, wording.mark)
    tokens = tokenized(model.tokenizer, prompt, asked, model.limit)
    last = max(chosen)
    prefix = read_prefix(model.decoder, tokens.prefix, last)
    seen: dict[int, Tensor] = {}
    for start in range(0, len(asked), queries_at_once):

        def take(layer: int, number: int, means: Tensor, start: int = start) -> None:
            heads = chosen.get(layer)
            if heads is None:
                return
            number += start
            if sink is not None:
                sink(layer, number, means)
            part = means.sum(0) if len(heads) == len(means) else means[list(heads)].sum(0)
            seen[number] = seen[number] + part if number in seen else part

        tails = tokens.tails[start : start + queries_at_once]
        read_rows(model.decoder, prefix, tails, last, take, last_row=last_row)
    found = [seen[number].cpu().double().numpy() for number in range(len(asked))]
    return Reading(plain, prompt, tokens, found, None)
