"""`Seq2SeqModel`: an encoder-decoder of transformers, such as T5, behind the same two functions.

The encoder reads what users and systems say, message by message on lines of their own; a last
message of the assistant is what the decoder has said already. Answers are weighed at the decoder's
next step: its first, where nothing is said yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.language.batches import in_token_batches
from retrievekit.language.chat import Chat
from retrievekit.language.local import LocalModel
from retrievekit.language.specials import disarmed

if TYPE_CHECKING:
    from torch import Tensor

    from retrievekit.language.sampling import Sampler


class Seq2SeqModel(LocalModel):
    """An encoder-decoder by folder or hub id.

    Args:
        name: A model folder or a hub id; the hub's cache is asked before the hub.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``, in which the model computes.
        revision: A branch, tag or commit of a hub model.
        temperature: 0 always takes the likeliest token; above it, tokens are drawn.
        top_k: How many of the likeliest tokens are drawn from; None draws from all.
        seed: What draws depend on besides the prompt; a chat's companions do not matter, but one
            given several times gets several draws.
        tokens_at_once: Tokens of one batch, padding included.

    Raises:
        DataError: No such dtype, or a number out of range.
    """

    _auto = "AutoModelForSeq2SeqLM"
    _what = "encoder-decoder with a head"
    _instead = "give one such as castorini/monot5-base-msmarco"

    @property
    def limit(self) -> int | None:
        """Tokens that the encoder can read, or None where positions are relative, as T5's."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def prompt_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """What the encoder reads of each chat.

        Args:
            chats: The chats.

        Returns:
            For each its token ids.

        Raises:
            DataError: A chat has no message.
        """
        texts = []
        for chat in chats:
            if not chat:
                raise DataError("a chat of no message cannot be answered")
            read = chat[:-1] if chat[-1].role == "assistant" else chat
            texts.append("\n".join(disarmed(one.content, self._specials) for one in read))
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(texts, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return found

    def _begun(self, chat: Chat) -> tuple[int, ...]:
        """What the decoder has before its next step."""
        start = self.config.decoder_start_token_id
        return (0 if start is None else int(start), *self._plain_ids(_said(chat)))

    def _groups(
        self, chats: Sequence[Chat], lengths: Sequence[int], more: int
    ) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        """Batches of chats that the decoder has begun alike."""
        begun = [self._begun(chat) for chat in chats]
        for start in dict.fromkeys(begun):
            members = np.array([i for i, own in enumerate(begun) if own == start])
            sizes = [lengths[i] + len(start) + more for i in members]
            for rows in in_token_batches(sizes, self.tokens_at_once):
                yield start, members[rows].tolist()

    def logits(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.float64]:
        """The logits of each answer at the decoder's next step.

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

        begun = {_said(chat) for chat in chats}
        ids_behind = {said: self.answer_ids(answers, said) for said in begun}
        out = np.empty((len(chats), len(answers)), np.float64)
        prompts = self.prompt_ids(chats)
        lengths = [len(prompt) for prompt in prompts]
        self.check_lengths(chats, lengths, 0)
        for start, rows in self._groups(chats, lengths, 0):
            with torch.inference_mode():
                tokens, mask = self._padded([prompts[row] for row in rows])
                found = self.whole(
                    input_ids=tokens,
                    attention_mask=mask,
                    decoder_input_ids=torch.tensor([start] * len(rows), device=tokens.device),
                    use_cache=False,
                ).logits
                ids = torch.tensor([ids_behind[_said(chats[row])] for row in rows])
                last = found[:, -1].gather(1, ids.long().to(found.device))
                out[rows] = last.double().cpu().numpy()
        return out

    def generate(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """Let the decoder speak until it ends.

        Args:
            chats: The chats, possibly none.
            max_new_tokens: Tokens of each answer at most.

        Returns:
            For each chat what the model says, without special tokens.

        Raises:
            DataError: `max_new_tokens` is below 1.
            LimitError: A prompt is longer than the model reads.
        """
        import torch

        if max_new_tokens < 1:
            raise DataError(f"max_new_tokens is at least 1, not {max_new_tokens}")
        prompts = self.prompt_ids(chats)
        lengths = [len(prompt) for prompt in prompts]
        self.check_lengths(chats, lengths, 0)
        out = [""] * len(prompts)
        sampler = self.sampler(prompts)
        for start, rows in self._groups(chats, lengths, max_new_tokens):
            with torch.inference_mode():
                said = self._continued(prompts, rows, start, max_new_tokens, sampler)
            for row, ids in zip(rows, said, strict=True):
                out[row] = self.tokenizer.decode(ids, skip_special_tokens=True)
        return out

    def _padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Tokens padded at their right and which places hold them, int64 ``(m, longest)`` each."""
        import torch

        longest = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id or 0
        tokens = torch.full((len(prompts), longest), pad, dtype=torch.int64)
        mask = torch.zeros((len(prompts), longest), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        device = self.whole.device
        return tokens.to(device), mask.to(device)

    def _continued(
        self,
        prompts: list[list[int]],
        rows: list[int],
        start: tuple[int, ...],
        limit: int,
        sampler: Sampler,
    ) -> list[list[int]]:
        """What the decoder says, as token ids, without the token that ends it."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        model = self.whole
        tokens, mask = self._padded([prompts[row] for row in rows])
        states = model.get_encoder()(input_ids=tokens, attention_mask=mask).last_hidden_state
        said: dict[int, list[int]] = {row: [] for row in rows}
        asked, cache = rows, None
        begun = torch.tensor([start] * len(rows), device=tokens.device)
        for step in range(limit):
            out: Any = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                decoder_input_ids=begun,
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            chosen = sampler.choose(out.logits[:, -1], rows)
            going = []
            for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
                if token not in self._ends:
                    said[row].append(token)
                    going.append(place)
            if not going or step == limit - 1:
                break
            if len(going) < len(rows):
                # Chats that have ended leave the batch.
                kept = torch.tensor(going, device=tokens.device)
                cache.batch_select_indices(kept)
                rows = [rows[place] for place in going]
                states, mask, chosen = states[kept], mask[kept], chosen[kept]
            begun = chosen[:, None]
        return [said[row] for row in asked]


def _said(chat: Chat) -> str:
    """What the assistant has said already."""
    return chat[-1].content if chat[-1].role == "assistant" else ""
