"""From characters to tokens: which tokens of a prompt are which document's, and which ask.

A prompt is tokenized whole, once: pieces that are tokenized apart and joined drift. Spans follow
from the character offsets that a fast tokenizer tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, LimitError
from retrievekit.rerank.prompts import Prompt

_AT_ONCE = 8


@dataclass(frozen=True)
class Tokens:
    """A prompt's tokens for some queries.

    Args:
        prefix: Ids of the tokens before the query's span, the same for all queries.
        tails: For each query the ids from the instruction's first token to the prompt's last.
        spans: First token of each document and the one behind its last, int64 ``(docs, 2)``.
        offsets: First character of each prefix token and the one behind its last, int64
            ``(tokens, 2)``.
    """

    prefix: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]
    spans: NDArray[np.int64]
    offsets: NDArray[np.int64]


def check_fast(tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer that does not tell which characters its tokens come from.

    Args:
        tokenizer: The tokenizer.
        name: The model's name, for the message.

    Raises:
        DataError: It is none of the fast ones.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(
            f"{name}: its tokenizer has no character offsets, which tell the tokens of each "
            "document; save the model again with a fast tokenizer (tokenizer.json)"
        )


def beginning(tokenizer: Any) -> str:
    """The text of the token that the tokenizer puts before every prompt, or an empty one.

    Args:
        tokenizer: The tokenizer.

    Returns:
        The text.
    """
    added = tokenizer("a")["input_ids"]
    first = tokenizer.bos_token_id
    return str(tokenizer.bos_token) if first is not None and added[:1] == [first] else ""


def tokenized(tokenizer: Any, prompt: Prompt, queries: Sequence[str], limit: int | None) -> Tokens:
    """The tokens of a prompt with each of some queries.

    Args:
        tokenizer: A fast tokenizer.
        prompt: The prompt.
        queries: At least one query.
        limit: Tokens that the model reads, or None when nobody knows.

    Returns:
        The tokens and spans.

    Raises:
        LimitError: A prompt has more tokens than `limit`.
        DataError: The tokens before the query differ between queries, or a document has none.
    """
    whole = _read(tokenizer, [prompt.text(queries[0])], offsets=True)
    offsets = np.asarray(whole["offset_mapping"][0], np.int64).reshape(-1, 2)
    starts, ends = offsets[:, 0], offsets[:, 1]
    if (np.diff(starts) < 0).any() or (np.diff(ends) < 0).any():
        raise DataError("the tokenizer's character offsets go back; documents cannot be found")
    cut = int(np.searchsorted(ends, prompt.asking, side="right"))
    prefix = whole["input_ids"][0][:cut]
    tails = [tuple(whole["input_ids"][0][cut:])]
    # A few at a time: each is as long as all documents, and only its end is kept.
    for place in range(1, len(queries), _AT_ONCE):
        some = queries[place : place + _AT_ONCE]
        found = _read(tokenizer, [prompt.text(query) for query in some])["input_ids"]
        for query, ids in zip(some, found, strict=True):
            if ids[:cut] != prefix:
                raise DataError(
                    f"the tokens before the query change with the query ({query[:60]!r}), so its "
                    "attention cannot be compared with another's; this tokenizer does not suit"
                )
            tails.append(tuple(ids[cut:]))
    longest = cut + max(map(len, tails))
    if limit is not None and longest > limit:
        raise LimitError(
            f"{len(prompt.documents)} documents and the query are {longest} tokens, but the model "
            f"reads {limit}; rerank fewer (k=), shorten them (max_words=), or go through them in "
            "windows (window=20)"
        )
    spans = np.zeros((len(prompt.documents), 2), np.int64)
    before = 0
    for place, (start, stop) in enumerate(prompt.documents):
        # A token that also covers characters around the document is the document's, but one that
        # reaches into two documents is the first one's.
        first = max(before, int(np.searchsorted(ends, start, side="right")))
        before = min(cut, int(np.searchsorted(starts, stop, side="left")))
        if before <= first:
            raise DataError(f"document {place + 1} of the prompt has no token of its own")
        spans[place] = first, before
    return Tokens(tuple(prefix), tuple(tails), spans, offsets[:cut])


def _read(tokenizer: Any, texts: list[str], offsets: bool = False) -> Any:
    return tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=offsets,
        return_attention_mask=False,
        verbose=False,
    )
