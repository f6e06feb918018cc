"""`CausalModel`: a decoder of transformers that continues chats and weighs answers.

Prompts are padded at their left within batches of like length, and positions are counted from each
prompt's first token, so that what a chat gets depends on its companions only by rounding. Only the
last position's logits are ever computed.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.language.batches import in_token_batches
from retrievekit.language.chat import Chat
from retrievekit.language.layout import Layout, blank_before, rendered
from retrievekit.language.local import TOKENS_AT_ONCE, LocalModel

if TYPE_CHECKING:
    from torch import Tensor

    from retrievekit.language.sampling import Sampler


class CausalModel(LocalModel):
    """A causal language model by folder or hub id.

    Answers are greedy unless there is a temperature; other ways of choosing that a model's
    generation settings may name (penalties, top-k) are not used. In float32 a logit depends on a
    prompt's companions by no more than 1e-4 of the logits' size.

    Args:
        name: A model folder or a hub id; the hub's cache is asked before the hub.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``, in which the model computes.
        revision: A branch, tag or commit of a hub model.
        layout: How chats become prompts: ``auto``, ``template``, ``chatml`` or ``plain``; see
            `layout`.
        thinking: What the chat template is told of thinking; None tells nothing.
        temperature: 0 always takes the likeliest token; above it, tokens are drawn.
        top_k: How many of the likeliest tokens are drawn from; None draws from all.
        seed: What draws depend on besides the prompt; a chat's companions do not matter, but one
            given several times gets several draws.
        tokens_at_once: Tokens of one batch, padding included.

    Raises:
        DataError: No such dtype or layout, or a number out of range.
    """

    _auto = "AutoModelForCausalLM"
    _what = "decoder with a head"
    _instead = "give a causal language model, such as Qwen/Qwen3-0.6B"

    def __init__(
        self,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        layout: Layout = "auto",
        thinking: bool | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
        tokens_at_once: int = TOKENS_AT_ONCE,
    ) -> None:
        super().__init__(
            name,
            device=device,
            dtype=dtype,
            revision=revision,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            tokens_at_once=tokens_at_once,
        )
        if layout not in get_args(Layout):
            raise DataError(f"no layout {layout!r}; known: {', '.join(get_args(Layout))}")
        self.layout = layout
        self.thinking = thinking

    def laid_out(self, layout: Layout) -> CausalModel:
        """The same model with another layout; what is loaded already is shared.

        Args:
            layout: How chats become prompts.

        Returns:
            The model.
        """
        made = copy.copy(self)
        made.layout = layout
        for name in ("fingerprint", "_blank"):
            made.__dict__.pop(name, None)
        return made

    def _asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        if self.layout != "auto":
            asked["layout"] = self.layout
        if self.thinking is not None:
            asked["thinking"] = self.thinking
        return asked | super()._asked()

    @property
    def whole(self) -> Any:
        """The model with its head, loaded on first use."""
        with self._loading:
            if "_whole" not in self.__dict__:
                # A decoder that was loaded alone gives way, or its weights would be there twice.
                self.__dict__.pop("_decoder", None)
            return self._whole

    @property
    def decoder(self) -> Any:
        """The model without its head, loaded on first use."""
        with self._loading:
            return self._decoder

    @cached_property
    def _decoder(self) -> Any:
        # Without the head where nothing has asked for it yet, which may be a good part of a model.
        held = self._given is not None or "_whole" in self.__dict__
        model = self._whole if held else self._loaded(head=False)
        return model.get_decoder() or model

    @property
    def layers(self) -> int:
        """How many layers the model has; loads it."""
        return int(self.decoder.config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """How many heads each layer has; loads it."""
        return int(self.decoder.config.num_attention_heads)

    @property
    def limit(self) -> int | None:
        """Tokens that the model was made to read, or None when it does not tell."""
        config = self.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def prompt_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids of each chat as a prompt, laid out as `layout` says."""
        return self._ids(self._texts(chats))

    def _texts(self, chats: Sequence[Chat]) -> list[str]:
        return [
            rendered(self.tokenizer, chat, self.layout, self._specials, self.thinking)
            for chat in chats
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        # Some templates write the token that begins a prompt, others leave it to the tokenizer.
        marks = [] if self.layout == "chatml" else self._marks
        return [ids if ids[: len(marks)] == marks else [*marks, *ids] for ids in found]

    @cached_property
    def _marks(self) -> list[int]:
        """The token that the tokenizer puts before every text."""
        first = self.tokenizer.bos_token_id
        added = self.tokenizer("a")["input_ids"][:1]
        return added if first is not None and added == [first] else []

    # What is asked

    def logits(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.float64]:
        """The next token's logits of each answer.

        Args:
            chats: The chats, possibly none.
            answers: What the model may say, each a single token.

        Returns:
            float64 ``(chats, answers)``.

        Raises:
            DataError: An answer is not one token of its own.
            LimitError: A prompt is longer than the model reads.
        """
        import torch

        texts = self._texts(chats)
        prompts = self._ids(texts)
        lengths = [len(prompt) for prompt in prompts]
        self.check_lengths(chats, lengths, 0)
        ids = self._answers(chats, texts, answers)
        out = np.empty((len(chats), len(answers)), np.float64)
        for rows in in_token_batches(lengths, self.tokens_at_once):
            with torch.inference_mode():
                last, _ = self._first([prompts[row] for row in rows], keep=False)
                own = torch.tensor([ids[row] for row in rows], dtype=torch.int64)
                out[rows] = last.gather(1, own.to(last.device)).double().cpu().numpy()
        return out

    def _answers(
        self, chats: Sequence[Chat], texts: Sequence[str], answers: Sequence[str]
    ) -> list[list[int]]:
        """The tokens of the answers behind each prompt."""
        known: dict[tuple[str, str], list[int]] = {}
        out = []
        for chat, text in zip(chats, texts, strict=True):
            begun = chat[-1].role == "assistant" or text[-1:].isspace()
            key = self._tail(text), "" if begun else self._blank
            if key not in known:
                known[key] = self._behind(*key, answers)
            out.append(known[key])
        return out

    def _behind(self, tail: str, blank: str, answers: Sequence[str]) -> list[int]:
        if blank:
            try:
                return self.answer_ids([blank + answer for answer in answers], tail)
            except DataError:
                pass  # no single tokens with a blank, so they are said without
        return self.answer_ids(answers, tail)

    @cached_property
    def _blank(self) -> str:
        """What parts the assistant's first word from the prompt."""
        return blank_before(self.tokenizer, self.layout, self.thinking)

    def generate(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """Continue chats until the model ends its turn.

        Args:
            chats: The chats, possibly none.
            max_new_tokens: Tokens of each answer at most.

        Returns:
            For each chat what the model says, without special tokens.

        Raises:
            DataError: `max_new_tokens` is below 1.
            LimitError: A prompt, with what is to follow, is longer than the model reads.
        """
        import torch

        if max_new_tokens < 1:
            raise DataError(f"max_new_tokens is at least 1, not {max_new_tokens}")
        prompts = self.prompt_ids(chats)
        lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        self.check_lengths(chats, [len(prompt) for prompt in prompts], max_new_tokens)
        out = [""] * len(prompts)
        sampler = self.sampler(prompts)
        for rows in in_token_batches(lengths, self.tokens_at_once):
            with torch.inference_mode():
                said = self._continued(prompts, rows.tolist(), max_new_tokens, sampler)
            for row, ids in zip(rows.tolist(), said, strict=True):
                out[row] = self.tokenizer.decode(ids, skip_special_tokens=True)
        return out

    @cached_property
    def _short(self) -> dict[str, Any]:
        """How the model is told to compute the last position's logits alone."""
        takes = inspect.signature(self.whole.forward).parameters
        return {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def _first(self, prompts: list[list[int]], keep: bool) -> tuple[Tensor, Any]:
        """Logits behind each prompt, floating ``(m, vocabulary)``, and what the model remembers."""
        import torch

        model = self.whole
        mask = _mask(prompts)
        tokens = torch.zeros(mask.shape, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, mask.shape[1] - len(prompt) :] = torch.tensor(prompt)
        out = model(
            input_ids=tokens.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(model.device),
            use_cache=keep,
            **self._short,
        )
        return out.logits[:, -1], out.past_key_values if keep else None

    def _continued(
        self, prompts: list[list[int]], rows: list[int], limit: int, sampler: Sampler
    ) -> list[list[int]]:
        """What follows some prompts, as token ids, without the token that ends it."""
        import torch

        model = self.whole
        some = [prompts[row] for row in rows]
        said: dict[int, list[int]] = {row: [] for row in rows}
        asked = rows
        logits, cache = self._first(some, keep=True)
        mask = _mask(some).to(model.device)
        places = mask.sum(1)
        for step in range(limit):
            chosen = sampler.choose(logits, rows)
            going = []
            for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
                if token not in self._ends:
                    said[row].append(token)
                    going.append(place)
            if not going or step == limit - 1:
                break
            if len(going) < len(rows):
                # Chats that have ended leave the batch.
                kept = torch.tensor(going, device=model.device)
                cache.batch_select_indices(kept)
                rows = [rows[place] for place in going]
                mask, places, chosen = mask[kept], places[kept], chosen[kept]
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
            out = model(
                input_ids=chosen[:, None],
                attention_mask=mask,
                position_ids=places[:, None],
                past_key_values=cache,
                use_cache=True,
                **self._short,
            )
            logits, cache, places = out.logits[:, -1], out.past_key_values, places + 1
        return [said[row] for row in asked]


def _mask(prompts: list[list[int]]) -> Tensor:
    """Which places hold tokens once prompts are padded at their left, int64 ``(m, longest)``."""
    import torch

    longest = max(map(len, prompts))
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return (torch.arange(longest) >= longest - lengths[:, None]).long()
