"""Pairs of query and document as tokens, cut so that the query stays whole, and run.

What a classifier of pairs needs besides its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError


@dataclass(frozen=True)
class Tokens:
    """A pair as the model reads it.

    Args:
        arrays: By input name, ``input_ids`` first, integers ``(tokens,)``.
        cut: Whether the document was cut.
        query_cut: Whether the query was.
    """

    arrays: dict[str, NDArray[np.int32]]
    cut: bool
    query_cut: bool

    def __len__(self) -> int:
        """How many tokens it is."""
        return len(self.arrays["input_ids"])


def tokenized(
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    limit: int | None,
    max_query: int | None = None,
) -> list[Tokens]:
    """Tokens of pairs, documents cut from the end where a pair is too long.

    Args:
        tokenizer: A tokenizer that knows which text each token is of.
        pairs: Query and document.
        limit: Tokens of a pair; None cuts nothing.
        max_query: Tokens of a query that are read; None reads all.

    Returns:
        The tokens of each pair.

    Raises:
        DataError: A query leaves no room for a document.
    """
    if not pairs:
        return []
    read = tokenizer(
        [query for query, _ in pairs],
        [doc for _, doc in pairs],
        truncation=False,
        padding=False,
        return_attention_mask=False,
        verbose=False,
    )
    out = []
    for place, ids in enumerate(read["input_ids"]):
        arrays = {"input_ids": np.asarray(ids, np.int32)}
        if "token_type_ids" in read:
            arrays["token_type_ids"] = np.asarray(read["token_type_ids"][place], np.int32)
        over_query = over = 0
        if max_query is not None or (limit is not None and len(ids) > limit):
            # None, the mark of special tokens, becomes NaN.
            owner = np.asarray(read.encodings[place].sequence_ids, np.float64)
            of_query, of_doc = np.flatnonzero(owner == 0), np.flatnonzero(owner == 1)
            over_query = max(0, len(of_query) - (max_query or len(of_query)))
            over = max(0, len(ids) - over_query - limit) if limit is not None else 0
            if over > len(of_doc) or (over and over == len(of_doc)):
                query = pairs[place][0]
                raise DataError(
                    f"the query {query[:60]!r} has {len(of_query)} tokens and leaves no room for a "
                    f"document within {limit}; shorten it, or let queries be cut: max_query=..."
                )
            gone = [of_query[len(of_query) - over_query :], of_doc[len(of_doc) - over :]]
            kept = np.delete(np.arange(len(ids)), np.concatenate(gone))
            arrays = {name: values[kept] for name, values in arrays.items()}
        out.append(Tokens(arrays, over > 0, over_query > 0))
    return out


def inputs_of(network: Any, batch: Sequence[Tokens]) -> dict[str, Any]:
    """Pairs as a cross-encoder takes them: padded, on its device.

    Args:
        network: A ``CrossEncoder`` of sentence-transformers.
        batch: The pairs, at least one.

    Returns:
        What its ``forward`` takes.
    """
    import torch

    tokenizer = network.tokenizer
    width = max(map(len, batch))
    fill = {"input_ids": tokenizer.pad_token_id or 0}
    fill["token_type_ids"] = getattr(tokenizer, "pad_token_type_id", 0)
    features: dict[str, Any] = {"modality": "text"}
    arrays = {name: np.full((len(batch), width), fill[name], np.int64) for name in batch[0].arrays}
    arrays["attention_mask"] = np.zeros((len(batch), width), np.int64)
    left = tokenizer.padding_side == "left"
    for row, tokens in enumerate(batch):
        place = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        for name, own in tokens.arrays.items():
            arrays[name][row, place] = own
        arrays["attention_mask"][row, place] = 1
    for name, values in arrays.items():
        features[name] = torch.from_numpy(values).to(network.device)
    return features


def run(network: Any, batch: Sequence[Tokens]) -> NDArray[np.float32]:
    """The raw outputs of a cross-encoder for pairs.

    Args:
        network: A ``CrossEncoder`` of sentence-transformers.
        batch: The pairs, at least one.

    Returns:
        float32 ``(pairs, outputs)``.
    """
    import torch

    with torch.inference_mode():
        scores = network(inputs_of(network, batch))["scores"].float()
    found: NDArray[np.float32] = scores.reshape(len(batch), -1).cpu().numpy()
    return found
