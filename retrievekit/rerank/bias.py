"""How much a ranking depends on the order in which documents came, where it should not.

`position_bias` gives one number and a table by place; `rank_jumps` ranks again in shuffled order
and tells which documents do not stay where they were, as those do that talk to the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, NonFiniteError
from retrievekit.rerank.base import Listed, Reranker


@dataclass(frozen=True)
class PositionBias:
    """How the rank that documents get depends on the place at which they are given.

    Args:
        share: The share of the ranks' variance that the given place explains, from 0 (the place
            does not matter) to 1 (documents come out as they went in, or the other way round).
        mean_ranks: By given place, first to last, the mean rank that documents get there, from 1;
            without bias all are ``(n + 1) / 2``.
        firsts: By given place, how often the document there becomes the first.
    """

    share: float
    mean_ranks: tuple[float, ...]
    firsts: tuple[float, ...]

    def __str__(self) -> str:
        """The number, and the table by place."""
        lines = [f"position bias {self.share:.3f}", "place  mean rank  first"]
        for place, (rank, first) in enumerate(zip(self.mean_ranks, self.firsts, strict=True), 1):
            lines.append(f"{place:5d}  {rank:9.2f}  {first:5.3f}")
        return "\n".join(lines)


def position_bias(
    reranker: Reranker, lists: Sequence[Listed], *, shuffles: int | None = None, seed: int = 0
) -> PositionBias:
    """Rank the same documents in many orders, and see what their places do.

    By default every list is turned through all its rotations, so that each document is given at
    each place once: what documents deserve then cancels out exactly, and a ranking that does not
    heed places has a share of 0. With r the ranks, d̄ the mean rank of a document and p a place,
    the share is Σ_p n_p·mean_p(r − d̄)² / Σ(r − (n + 1)/2)². Ties that a method breaks by the order
    it was given count as well: they, too, let the place decide.

    Args:
        reranker: The reranker.
        lists: Queries with documents, all with the same number of them, at least 2.
        shuffles: Rank so many seeded shuffles instead of all rotations; the share of a fair ranking
            is then still 0.
        seed: Other seeds give other shuffles.

    Returns:
        The number and the table.

    Raises:
        DataError: There is no list, or they differ in length, or are too short.
    """
    sizes = {len(one.docs) for one in lists}
    if len(sizes) != 1 or min(sizes) < 2:
        raise DataError(f"position bias needs lists of one length, at least 2; got {sorted(sizes)}")
    (n,) = sizes
    turns = np.arange(n)
    orders = np.stack([np.roll(turns, -by) for by in range(n)])
    if shuffles is not None:
        if shuffles < 2:
            raise DataError(f"at least 2 shuffles can tell of a bias; got {shuffles}")
        rng = np.random.default_rng(seed)
        orders = np.stack([rng.permutation(n) for _ in range(shuffles)])
    ranks = np.stack(_ranks(reranker, [(one, orders) for one in lists]))
    # By document, as the lists number them, for its mean rank over all orders.
    by_document = np.take_along_axis(ranks, np.argsort(orders, axis=1)[None], axis=2)
    means = np.take_along_axis(
        np.broadcast_to(by_document.mean(axis=1, keepdims=True), ranks.shape),
        np.broadcast_to(orders[None], ranks.shape),
        axis=2,
    )
    by_place = (ranks - means).mean(axis=(0, 1))
    times = len(lists) * len(orders)
    share = times * float(by_place @ by_place) / float(((ranks - (n + 1) / 2) ** 2).sum())
    return PositionBias(
        min(share, 1.0),
        tuple(ranks.mean(axis=(0, 1)).tolist()),
        tuple((ranks == 1).mean(axis=(0, 1)).tolist()),
    )


@dataclass(frozen=True)
class Jump:
    """A document whose rank hangs on the order in which documents were given.

    Args:
        number: Its list, from 0.
        document: Its place in the list as given, from 0.
        rank: Its rank for the order given, from 1.
        again: The rank furthest from it that it got for another order.
    """

    number: int
    document: int
    rank: int
    again: int


def rank_jumps(
    reranker: Reranker,
    lists: Sequence[Listed],
    *,
    times: int = 2,
    least: int = 5,
    seed: int = 0,
) -> list[Jump]:
    """Rank again in shuffled orders, and tell which documents jump.

    Args:
        reranker: The reranker.
        lists: Queries with documents.
        times: In how many shuffled orders each list is ranked again.
        least: Ranks by which a document must move to be told.
        seed: Other seeds give other orders.

    Returns:
        The documents that jump, those that jump furthest first.

    Raises:
        DataError: `times` or `least` is below 1.
    """
    if times < 1 or least < 1:
        raise DataError(f"times and least are at least 1; got {times} and {least}")
    asked = []
    for number, one in enumerate(lists):
        n, rng = len(one.docs), np.random.default_rng([seed, number])
        asked.append((one, np.stack([np.arange(n), *(rng.permutation(n) for _ in range(times))])))
    found = []
    for number, ((_, orders), ranks) in enumerate(zip(asked, _ranks(reranker, asked), strict=True)):
        by_document = np.take_along_axis(ranks, np.argsort(orders, axis=1), axis=1)
        moved = np.abs(by_document - by_document[0])
        furthest = moved.argmax(axis=0)
        for document in np.flatnonzero(moved.max(axis=0) >= least):
            rank, again = by_document[0, document], by_document[furthest[document], document]
            found.append(Jump(number, int(document), int(rank), int(again)))
    return sorted(found, key=lambda jump: -abs(jump.rank - jump.again))


def _ranks(
    reranker: Reranker, asked: Sequence[tuple[Listed, NDArray[np.int64]]]
) -> list[NDArray[np.int64]]:
    """For each list the rank, from 1, of what stands at each place, int64 ``(orders, n)``."""
    shown = [
        dataclasses.replace(one, docs=tuple(one.docs[i] for i in order))
        for one, orders in asked
        for order in orders
    ]
    scores = iter(reranker.score(shown) if shown else ())
    out = []
    for one, orders in asked:
        own = np.stack([next(scores) for _ in orders])
        if not np.isfinite(own).all():
            raise NonFiniteError(
                f"query {one.query[:60]!r}: {reranker!r} gave a score that is NaN or infinite"
            )
        best_first = np.argsort(-own, axis=1, kind="stable")
        out.append(np.argsort(best_first, axis=1) + 1)
    return out
