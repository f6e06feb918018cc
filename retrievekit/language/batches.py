"""Batches of like length, so that little of what passes through a model is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def in_token_batches(lengths: Sequence[int], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Batches of like length with about as many tokens each, padding included; the longest first.

    Args:
        lengths: Tokens of each item.
        tokens: Tokens of a batch at most; an item that is longer is one by itself.

    Yields:
        Places of the items of one batch, int64 ``(m,)``.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
