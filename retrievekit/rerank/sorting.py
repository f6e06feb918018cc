"""Sorting by questions that cost: windows, heaps and bubbles, each as a walk (see `steps`).

Answers may be wrong or circular: every walk ends, and gives each document once. Where an answer is
a tie, documents keep the order they had, which the published heaps do not heed: a heap of equals
would else come out turned round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

from retrievekit.rerank.steps import Question, Walk, together

Best: TypeAlias = Callable[[Question], Walk[int]]


def windows(n: int, size: int, step: int) -> Walk[list[int]]:
    """Sort windows from the tail to the head, the best of each moving on to the next.

    The answer to a question is its places in order, the best first.

    Args:
        n: Documents.
        size: Documents in a window, at least 2.
        step: By how many places the window moves, 1 to `size`.

    Returns:
        The walk, which returns the order.
    """
    order = list(range(n))
    stop = n
    while n > 1:
        start = max(0, stop - size)
        (answer,) = yield [tuple(order[start:stop])]
        order[start:stop] = [order[start:stop][place] for place in answer]
        if start == 0:
            break
        stop -= step
    return order


def ask_best(question: Question) -> Walk[int]:
    """Ask one question whose answer is the places of the best, more than one for a tie.

    Args:
        question: Documents.

    Returns:
        The walk, which returns the place among them of the best.
    """
    (tied,) = yield [question]
    return int(min(tied, key=question.__getitem__))


def heapsort(n: int, children: int, top: int, best: Best = ask_best) -> Walk[list[int]]:
    """Settle the first places with a heap in which each document has several children.

    The heap is built level by level, since siftings of one level do not touch each other.

    Args:
        n: Documents.
        children: Children of each document in the heap, at least 1.
        top: Places that are settled; the other documents follow in the order they had.
        best: Asks which of a parent and its children is the best.

    Returns:
        The walk, which returns the order.
    """
    heap = list(range(n))
    for level in _levels(n, children):
        yield from together([_sift(heap, i, n, children, best) for i in level])
    settled: list[int] = []
    for end in range(n - 1, -1, -1):
        settled.append(heap[0])
        heap[0] = heap[end]
        # What is left when the last place is settled need not be a heap.
        if len(settled) == top or end == 0:
            break
        yield from _sift(heap, 0, end, children, best)
    return _followed(settled, n)


def _levels(n: int, children: int) -> list[range]:
    """Places of the heap that have children, level by level, the lowest first."""
    parents = range((n - 2) // children + 1) if n > 1 else range(0)
    levels = []
    first, width = 0, 1
    while first < len(parents):
        levels.append(range(first, min(first + width, len(parents))))
        first, width = first + width, width * children
    return levels[::-1]


def _sift(heap: list[int], i: int, n: int, children: int, best: Best) -> Walk[None]:
    """Let the document at a place sink until none of its children is better."""
    while (first := children * i + 1) < n:
        places = [i, *range(first, min(first + children, n))]
        chosen = places[(yield from best(tuple(heap[place] for place in places)))]
        if chosen == i:
            break
        heap[i], heap[chosen] = heap[chosen], heap[i]
        i = chosen


def bubblesort(n: int, children: int, top: int, best: Best = ask_best) -> Walk[list[int]]:
    """Settle the first places one by one: windows rise from the tail, the best goes to their head.

    The best moves up past the others of its window, which keep their order (published code swaps
    it with the first). A window shares its last document with the one below it. Windows that
    nothing has changed since are asked about in the same words, so `in_step` spares the question.

    Args:
        n: Documents.
        children: Documents of a window besides its first, at least 1.
        top: Places that are settled; the other documents follow in the order they had.
        best: Asks which document of a window is the best.

    Returns:
        The walk, which returns the order.
    """
    order = list(range(n))
    for settled in range(min(top, n - 1)):
        start = n - 1 - children
        while True:
            head, stop = max(start, settled), start + children + 1
            if stop - head > 1:
                chosen = head + (yield from best(tuple(order[head:stop])))
                order.insert(head, order.pop(chosen))
            if start <= settled:
                break
            start -= children
    return _followed(order[:top], n)


def all_pairs(n: int) -> Walk[list[int]]:
    """Count for every document how many others it beats.

    The answer to a pair is 1 where its first document wins, 0 where its second does, ½ for a tie.

    Args:
        n: Documents.

    Returns:
        The walk, which returns the order; equal counts keep the order that the documents had.
    """
    pairs = list(itertools.combinations(range(n), 2))
    points = [0.0] * n
    for (a, b), won in zip(pairs, (yield list(pairs)) if pairs else (), strict=True):
        points[a] += won
        points[b] += 1 - won
    return sorted(range(n), key=lambda i: -points[i])


def best_of_pairs(question: Question) -> Walk[int]:
    """Find the best of several by pairs.

    Args:
        question: Documents.

    Returns:
        The walk, which returns the place among them of the best.
    """
    chosen = 0
    for place in range(1, len(question)):
        (won,) = yield [(question[place], question[chosen])]
        if won > 0.5 or (won == 0.5 and question[place] < question[chosen]):
            chosen = place
    return chosen


def sliding(n: int, passes: int) -> Walk[list[int]]:
    """Passes from the tail to the head that swap neighbours where the lower one clearly wins.

    Args:
        n: Documents.
        passes: How many; after as many passes so many places are settled.

    Returns:
        The walk, which returns the order.
    """
    order = list(range(n))
    for settled in range(min(passes, n - 1)):
        for i in range(n - 1, settled, -1):
            (won,) = yield [(order[i], order[i - 1])]
            if won > 0.5:
                order[i - 1], order[i] = order[i], order[i - 1]
    return order


def _followed(settled: list[int], n: int) -> list[int]:
    """The settled ones, and behind them all others in their order."""
    seen = set(settled)
    return [*settled, *(i for i in range(n) if i not in seen)]


def renumbered(walk: Walk[list[int]], start: Question) -> Walk[list[int]]:
    """A walk over documents that are found in another order than that of their numbers.

    Args:
        walk: A walk whose document i is ``start[i]``.
        start: The order.

    Returns:
        The walk by the documents' own numbers.
    """
    answers: list[Any] | None = None
    while True:
        try:
            asked = next(walk) if answers is None else walk.send(answers)
        except StopIteration as end:
            return [start[i] for i in end.value]
        answers = yield [tuple(start[i] for i in question) for question in asked]
