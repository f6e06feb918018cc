"""Walks: orders against a perfect comparator, the number of questions against theory, and laws."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.rerank.permute import capped, merged_orders, presentations
from retrievekit.rerank.sorting import (
    all_pairs,
    best_of_pairs,
    bubblesort,
    heapsort,
    renumbered,
    sliding,
    windows,
)
from retrievekit.rerank.steps import Question, Walk, in_step, together

Judge = Callable[[Question], Any]


class Oracle:
    """Answers questions about documents of known worth, and counts them."""

    def __init__(self, worth: list[int], answer: Callable[[list[int]], Any]) -> None:
        self.worth, self.answer = worth, answer
        self.steps: list[int] = []

    def __call__(self, asked: list[tuple[int, Question]]) -> list[Any]:
        self.steps.append(len(asked))
        return [self.answer([self.worth[i] for i in question]) for _, question in asked]

    @property
    def questions(self) -> int:
        return sum(self.steps)


def in_order(worths: list[int]) -> list[int]:
    return sorted(range(len(worths)), key=lambda i: -worths[i])


def best(worths: list[int]) -> list[int]:
    return [place for place, worth in enumerate(worths) if worth == max(worths)]


def won(worths: list[int]) -> float:
    return float(worths[0] > worths[1])


def run(walk: Walk[list[int]], oracle: Oracle) -> list[int]:
    (order,) = in_step([walk], oracle)
    return order


def shuffled(n: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(n), n)


# Orders and numbers of questions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size", "step", "asked"),
    [(100, 20, 10, 9), (20, 20, 10, 1), (21, 20, 10, 2), (30, 20, 10, 2), (25, 20, 20, 2),
     (5, 20, 10, 1), (2, 2, 1, 1), (1, 20, 10, 0), (0, 20, 10, 0), (10, 10, 5, 1), (7, 3, 2, 3)],
)  # fmt: skip
def test_windows(n: int, size: int, step: int, asked: int) -> None:
    worth = shuffled(n, 1)
    oracle = Oracle(worth, in_order)
    order = run(windows(n, size, step), oracle)
    assert oracle.questions == asked
    assert sorted(order) == list(range(n))
    # What a window hands on is settled, wherever it stood.
    settled = n if n <= size else size - step
    assert order[:settled] == in_order(worth)[:settled]


def test_windows_walk_from_the_tail_to_the_head() -> None:
    seen: list[Question] = []

    def ask(asked: list[tuple[int, Question]]) -> list[list[int]]:
        seen.extend(question for _, question in asked)
        return [list(range(len(question))) for _, question in asked]

    in_step([windows(25, 10, 5)], ask)
    assert [(q[0], q[-1]) for q in seen] == [(15, 24), (10, 19), (5, 14), (0, 9)]


# Simulated with a perfect comparator over random orders: 100 documents, the first 10 settled.
@pytest.mark.parametrize(("rivals", "published"), [(2, 140), (3, 82), (9, 31), (19, 23)])
def test_heapsort_asks_as_often_as_theory_says(rivals: int, published: int) -> None:
    counts = []
    for seed in range(40):
        worth = shuffled(100, seed)
        oracle = Oracle(worth, best)
        order = run(heapsort(100, rivals, 10), oracle)
        assert order[:10] == in_order(worth)[:10]
        assert order[10:] == sorted(order[10:])
        counts.append(oracle.questions)
    assert abs(sum(counts) / len(counts) - published) <= 0.02 * published + 1
    # Building asks once per inner node at least, each later place once per level at most.
    levels = next(d for d in range(1, 99) if sum(rivals**i for i in range(d)) >= 100)
    inner = -(-99 // rivals)
    assert max(counts) <= inner * levels + 9 * (levels - 1)
    assert min(counts) >= inner


def test_a_heap_is_built_level_by_level() -> None:
    worth = list(range(100))
    oracle = Oracle(worth, best)
    run(heapsort(100, 3, 1), oracle)
    # 33 inner nodes in four levels; the deepest sinking of each level is what a step waits for.
    assert oracle.steps[0] == 20
    assert len(oracle.steps) <= 1 + 2 + 3 + 4


@pytest.mark.parametrize("sort", [heapsort, bubblesort])
@pytest.mark.parametrize("rivals", [1, 2, 3, 7])
def test_setwise_sorts_settle_the_first_places(sort: Any, rivals: int) -> None:
    for n, top in itertools.product([0, 1, 2, 3, 4, 5, 8, 13, 40], [1, 2, 5, 50]):
        worth = shuffled(n, n)
        oracle = Oracle(worth, best)
        order = run(sort(n, rivals, top), oracle)
        assert order[:top] == in_order(worth)[:top], (n, top)
        assert order[top:] == sorted(order[top:])


def test_bubbles_spare_what_nothing_has_changed() -> None:
    worth = list(range(100, 0, -1))  # in order already: one pass, then one new window for each
    oracle = Oracle(worth, best)
    run(bubblesort(100, 3, 10), oracle)
    assert oracle.questions <= 33 + 9
    worst = Oracle(list(range(100)), best)
    assert run(bubblesort(100, 3, 10), worst)[:10] == list(range(99, 89, -1))
    assert worst.questions <= sum(-(-(99 - i) // 3) for i in range(10))


def test_all_pairs_ask_each_pair_once_and_at_once() -> None:
    worth = shuffled(100, 3)
    oracle = Oracle(worth, won)
    assert run(all_pairs(100), oracle) == in_order(worth)
    assert oracle.steps == [100 * 99 // 2]


def test_all_pairs_half_a_point_for_a_tie() -> None:
    answers = {(0, 1): 0.5, (0, 2): 0.0, (1, 2): 0.5}  # points: .5, 1, 1.5
    assert in_step([all_pairs(3)], lambda asked: [answers[q] for _, q in asked]) == [[2, 1, 0]]
    assert in_step([all_pairs(3)], lambda asked: [0.5 for _ in asked]) == [[0, 1, 2]]


def test_sliding_passes_ask_as_often_as_theory_says() -> None:
    n, passes = 100, 10
    walk, asked = sliding(n, passes), 0
    worth = shuffled(n, 4)
    try:
        questions = next(walk)
        while True:
            asked += len(questions)
            questions = walk.send([won([worth[i] for i in q]) for q in questions])
    except StopIteration as end:
        order = end.value
    assert order[:passes] == in_order(worth)[:passes]
    assert asked == sum(n - 1 - i for i in range(passes)) == 945  # 1890 prompts in both orders
    oracle = Oracle(worth, won)
    run(sliding(n, passes), oracle)
    assert oracle.questions < asked  # the same pair is never asked twice


def test_a_heap_of_pairs() -> None:
    for n in (0, 1, 2, 3, 10, 33):
        worth = shuffled(n, n)
        oracle = Oracle(worth, won)
        assert run(heapsort(n, 2, n + 1, best_of_pairs), oracle) == in_order(worth)


@pytest.mark.parametrize("n", [2, 5, 12, 40])
def test_ties_keep_the_order_that_documents_had(n: int) -> None:
    alike = Oracle([7] * n, best)
    for walk in (heapsort(n, 3, 10), bubblesort(n, 3, 10)):
        assert run(walk, alike) == list(range(n))
    tie = Oracle([7] * n, lambda worths: 0.5)
    for walk in (heapsort(n, 2, 10, best_of_pairs), sliding(n, 10), all_pairs(n)):
        assert run(walk, tie) == list(range(n))
    # A few worths that many share: of equal ones those that stood first come first.
    worth = [i * 5 % 3 for i in range(n)]
    some = Oracle(worth, best)
    for walk in (heapsort(n, 3, n), bubblesort(n, 3, n)):
        assert run(walk, some) == sorted(range(n), key=lambda i: (-worth[i], i))


@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 14), st.randoms())
def test_no_answers_lose_a_document(n: int, rivals: int, top: int, rng: random.Random) -> None:
    """Answers that contradict each other still end in a ranking of all."""
    everything = {
        "windows": windows(n, rivals + 1, rng.randint(1, rivals + 1)),
        "heap": heapsort(n, rivals, top),
        "bubble": bubblesort(n, rivals, top),
        "pairs": all_pairs(n),
        "sliding": sliding(n, top),
        "heap of pairs": heapsort(n, 2, top, best_of_pairs),
    }
    for name, walk in everything.items():

        def ask(asked: list[tuple[int, Question]], name: str = name) -> list[Any]:
            if name == "windows":
                return [rng.sample(range(len(q)), len(q)) for _, q in asked]
            if name in ("heap", "bubble"):
                return [rng.sample(range(len(q)), rng.randint(1, len(q))) for _, q in asked]
            return [rng.choice([0.0, 0.5, 1.0]) for _ in asked]

        assert sorted(in_step([walk], ask)[0]) == list(range(n)), name


# Steps --------------------------------------------------------------------------------------------


def test_walks_share_steps_and_do_not_hear_of_each_other() -> None:
    worths = [shuffled(n, n) for n in (0, 1, 2, 9, 30)]
    alone = []
    for worth in worths:
        alone.append(run(heapsort(len(worth), 2, 5), Oracle(worth, best)))
    steps: list[list[int]] = []

    def ask(asked: list[tuple[int, Question]]) -> list[list[int]]:
        steps.append([number for number, _ in asked])
        return [best([worths[number][i] for i in question]) for number, question in asked]

    assert in_step([heapsort(len(worth), 2, 5) for worth in worths], ask) == alone
    longest = Oracle(worths[-1], best)
    run(heapsort(30, 2, 5), longest)
    assert len(steps) == len(longest.steps)
    assert Counter(steps[0])[3] == 1  # of nine only place 3 is a parent on its level
    assert Counter(steps[0])[4] == 8  # of thirty places 7 to 14
    assert in_step([], ask) == []


def test_together_returns_in_order() -> None:
    def walk(times: int) -> Walk[int]:
        total = 0
        for i in range(times):
            (answer,) = yield [(i,)]
            total += answer
        return total

    seen: list[int] = []

    def ask(asked: list[tuple[int, Question]]) -> list[int]:
        seen.append(len(asked))
        return [question[0] + 1 for _, question in asked]

    assert in_step([together([walk(3), walk(0), walk(1)])], ask) == [[6, 0, 1]]
    assert seen == [1, 1, 1]  # the two walks ask the same thing at first
    assert in_step([together([])], ask) == [[]]

    def late() -> Walk[int]:
        yield [(9,)]
        (answer,) = yield [(0,)]
        return answer

    seen.clear()
    assert in_step([together([walk(2), late()])], ask) == [[3, 1]]
    assert seen == [2, 1]  # what one of them was told the other need not ask


def test_renumbered_walks_find_the_documents_in_another_order() -> None:
    worth = [5, 9, 1, 7]
    oracle = Oracle(worth, won)
    assert run(renumbered(sliding(4, 4), (2, 0, 3, 1)), oracle) == [1, 3, 0, 2]


# Permutations -------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(0, 12), st.integers(0, 3))
def test_presentations_are_orders(n: int, size: int, seed: int) -> None:
    found = presentations(n, size, seed)
    assert found == presentations(n, size, seed)
    assert len(set(found)) == len(found) <= n
    assert all(sorted(order) == list(range(size)) for order in found)


@pytest.mark.parametrize("size", [2, 3, 5, 20])
def test_presentations_are_balanced(size: int) -> None:
    assert presentations(1, size, 0) == [tuple(range(size))]
    found = presentations(size, size, 7)
    assert len(found) == size
    for place in range(size):  # each document once at each place
        assert sorted(order[place] for order in found) == list(range(size))
    assert size < 5 or presentations(size, size, 8) != found
    for n in (size + 1, 2 * size, 3 * size - 1):  # whole circles only
        for place in range(size):
            places = [order[place] for order in presentations(n, size, 1)]
            assert len({places.count(i) for i in range(size)}) == 1
    half = presentations(2, size, 0)
    assert len(half) == 2


def test_mean_ranks() -> None:
    assert merged_orders([[2, 0, 1]]) == [2, 0, 1]
    # Ranks of 0, 1, 2: 0 1 2, 1 0 2, 2 0 1: sums 3, 1, 5.
    assert merged_orders([[0, 1, 2], [1, 0, 2], [1, 2, 0]]) == [1, 0, 2]
    assert merged_orders([[1, 0], [0, 1]]) == [0, 1]


@given(st.permutations(range(9)), st.integers(0, 9))
def test_no_document_rises_beyond_its_cap(order: list[int], lift: int) -> None:
    found = capped(order, lift)
    assert sorted(found) == list(range(9))
    assert all(i - place <= lift for place, i in enumerate(found))
    if all(i - place <= lift for place, i in enumerate(order)):
        assert found == order
    if lift == 0:
        assert found == list(range(9))


def test_capped() -> None:
    assert capped([4, 3, 2, 1, 0], 2) == [2, 3, 4, 1, 0]
    assert capped([], 1) == []
