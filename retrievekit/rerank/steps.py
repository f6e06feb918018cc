"""Many rankings at once: each walks by itself, all questions of a moment are asked as one.

Sorting by a language model asks one question after another, and one question leaves a device idle.
So a ranking is written as a generator (a walk) that yields questions and is sent their answers, and
`in_step` lets the walks of all queries go side by side: at each step the questions of all of them
are put together. No walk hears of another, so the answers are those it would get alone.

A question is a tuple of places of documents, from 0; what an answer is, the method says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias, TypeVar

from retrievekit.headway import report_headway

R = TypeVar("R")
Question: TypeAlias = tuple[int, ...]
Walk: TypeAlias = Generator[list[Question], list[Any], R]
"""Yields questions that may be asked at once, is sent their answers, and returns its result."""


def in_step(
    walks: Sequence[Walk[R]], ask: Callable[[list[tuple[int, Question]]], Sequence[Any]]
) -> list[R]:
    """Let walks go side by side until all have arrived.

    A walk that asks the same again is given the answer it had, and nothing is asked.

    Args:
        walks: The walks, not yet begun.
        ask: Answers the questions of one step; with each comes the number of the walk that asks.

    Returns:
        What each walk returned.
    """
    known: list[dict[Question, Any]] = [{} for _ in walks]
    results: dict[int, R] = {}
    waiting: dict[int, list[Question]] = {}

    def go(number: int, answers: list[Any] | None) -> None:
        """Let one walk go on until it has a question that is new."""
        walk = walks[number]
        try:
            asked = next(walk) if answers is None else walk.send(answers)
            while all(question in known[number] for question in asked):
                asked = walk.send([known[number][question] for question in asked])
            waiting[number] = asked
        except StopIteration as end:
            waiting.pop(number, None)
            results[number] = end.value
            report_headway(len(results))

    for number in range(len(walks)):
        go(number, None)
    while waiting:
        new = [
            (number, question)
            for number, questions in waiting.items()
            for question in dict.fromkeys(questions)
            if question not in known[number]
        ]
        for (number, question), answer in zip(new, ask(new), strict=True):
            known[number][question] = answer
        for number, questions in list(waiting.items()):
            go(number, [known[number][question] for question in questions])
    return [results[number] for number in range(len(walks))]


def together(walks: Sequence[Walk[R]]) -> Walk[list[R]]:
    """Several walks as one, which asks what all of them ask.

    Args:
        walks: Walks that do not depend on each other.

    Returns:
        The walk; it returns what each of them returned.
    """
    results: dict[int, R] = {}
    waiting: dict[int, list[Question]] = {}
    answers: dict[int, list[Any] | None] = dict.fromkeys(range(len(walks)))
    while answers:
        for number, given in answers.items():
            try:
                walk = walks[number]
                waiting[number] = next(walk) if given is None else walk.send(given)
            except StopIteration as end:
                waiting.pop(number, None)
                results[number] = end.value
        if not waiting:
            break
        got = yield [question for questions in waiting.values() for question in questions]
        rest = iter(got)
        answers = {n: [next(rest) for _ in questions] for n, questions in waiting.items()}
    return [results[number] for number in range(len(walks))]
