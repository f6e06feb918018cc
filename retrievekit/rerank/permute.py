"""The same documents in several orders, so that no place in a prompt is anybody's advantage.

Language models favour places: the first passage, the last one, label A. Asked about the same
passages in orders that put each at each place alike, and averaged, a favour for places cancels out
(permutation self-consistency, arXiv 2310.07712; balanced positions, arXiv 2305.17926). Orders are
seeded: the same question is always asked in the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def presentations(n: int, size: int, seed: int) -> list[tuple[int, ...]]:
    """Orders in which documents are shown.

    A seeded shuffle is turned by equal parts of a full circle. Where there are orders enough for
    whole circles, only whole ones are used, each with a shuffle of its own, so that each document
    stands at each place equally often.

    Args:
        n: How many orders at most; 1 gives the documents as they are.
        size: Documents.
        seed: Other seeds give other shuffles.

    Returns:
        Distinct orders; each has the documents' numbers in the order shown.
    """
    if n == 1 or size < 2:
        return [tuple(range(size))]
    orders: dict[tuple[int, ...], None] = {}
    turns = min(size, n)
    for circle in range(max(1, n // size)):
        shuffle = np.random.default_rng([seed, size, circle]).permutation(size).tolist()
        for turn in range(turns):
            by = turn * size // turns
            orders[(*shuffle[by:], *shuffle[:by])] = None
    return list(orders)


def merged_orders(orders: Sequence[Sequence[int]]) -> list[int]:
    """One order by mean rank, which is Borda's count: equal means keep the documents' own order.

    Args:
        orders: Orders of the same documents 0 to n − 1, at least one.

    Returns:
        The order.
    """
    ranks = [0] * len(orders[0])
    for order in orders:
        for rank, i in enumerate(order):
            ranks[i] += rank
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def capped(order: Sequence[int], lift: int) -> list[int]:
    """An order in which no document stands more than so many places above where it stood.

    However well a passage talks to the model, it rises no further.

    Args:
        order: The order, of documents numbered by the places they had.
        lift: Places that a document may rise.

    Returns:
        At each place the first document of the order that may stand there.
    """
    out: list[int] = []
    waiting = list(order)
    while waiting:
        # Of the documents 0 to len(out) + lift at least one is not placed yet.
        chosen = next(i for i in waiting if i <= len(out) + lift)
        waiting.remove(chosen)
        out.append(chosen)
    return out
