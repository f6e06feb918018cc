"""Reading what a model says: golden answers, and that no document is lost, doubled or invented."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.rerank.parsing import LETTERS, numbers, read_choice, read_number, read_ranking


@pytest.mark.parametrize(
    ("text", "order", "repairs"),
    [
        ("[2] > [1] > [3]", (1, 0, 2), (0, 0, 0)),
        ("[2]>[1]>[3]\n", (1, 0, 2), (0, 0, 0)),
        ("2 > 1 > 3", (1, 0, 2), (0, 0, 0)),
        ("", (0, 1, 2), (0, 0, 3)),
        ("none of them", (0, 1, 2), (0, 0, 3)),
        ("[3]", (2, 0, 1), (0, 0, 2)),
        ("[3] > [3] > [1]", (2, 0, 1), (0, 1, 1)),
        ("[4] > [2] > [0] > [1]", (1, 0, 2), (2, 0, 1)),
        ("Of the 3 passages, 1 is off: [2] > [3] > [1]", (1, 2, 0), (0, 0, 0)),
        ("[2, 3, 1]", (1, 2, 0), (0, 0, 0)),
        ("[[2]] > [ 3 ] > [01]", (1, 2, 0), (0, 0, 0)),
        ("<think>[1] > [3]? no</think>[2] > [3] > [1]", (1, 2, 0), (0, 0, 0)),
        ("[2] > [1] > [3", (1, 0, 2), (0, 0, 1)),  # cut off: [3 could have become [30]
        ("[1" + "0" * 9999 + "] > [2]", (1, 0, 2), (1, 0, 2)),
        ("[²] > [٣] > [３] > [Ⅱ] > [2]", (1, 0, 2), (0, 0, 2)),
        ("[B] > [A]", (0, 1, 2), (2, 0, 3)),
    ],
)
def test_rankings_by_number(
    text: str, order: tuple[int, ...], repairs: tuple[int, int, int]
) -> None:
    found = read_ranking(text, numbers(3))
    assert found.order == order
    assert (found.unknown, found.repeated, found.missing) == repairs
    assert found.repaired == any(repairs)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[C] > [A] > [B]", (2, 0, 1)),
        ("C > A > B", (2, 0, 1)),
        ("[c] > [a]", (2, 0, 1)),
        ("A fine list: [B] > [C]", (1, 2, 0)),
        ("[CA] > [B]", (1, 0, 2)),
        ("BAC", (0, 1, 2)),
    ],
)
def test_rankings_by_letter(text: str, order: tuple[int, ...]) -> None:
    assert read_ranking(text, "ABC").order == order


PIECES = [
    "[", "]", "[[", "]]", ">", " > ", "<", "[]", "[ ]", "[-1]", "[1.5]", "[0]", "[00]", "[1e9]",
    "\0", "\n", "²", "٣", "７", "½", "Ⅳ", "١٢", "𝟙", "[𝟙]", "[٣]", "[a]", "[A]", "[Z]", "passage ",
    "\ud800", "</think>", "<think>", "[NaN]", "9" * 30, "[" + "9" * 5000 + "]", "[" * 50,
    "]" * 50, "\u202e",
]  # fmt: skip


def said_by_nobody(rng: random.Random, labels: list[str]) -> str:
    """An answer made of identifiers, known or not, and of rubbish."""
    parts = []
    for _ in range(rng.choice([0, 1, 3, 10, 60])):
        roll = rng.random()
        if roll < 0.4:
            parts.append(f"[{rng.choice(labels) if labels else 1}]")
        elif roll < 0.6:
            parts.append(f"[{rng.randrange(-3, 200)}]")
        elif roll < 0.65:
            parts.append(chr(rng.randrange(0x110000)))
        else:
            parts.append(rng.choice(PIECES))
    return "".join(parts)


def check_reading(text: str, labels: list[str]) -> None:
    found = read_ranking(text, labels)
    n = len(labels)
    assert sorted(found.order) == list(range(n))  # none lost, none doubled, none invented
    assert 0 <= found.missing <= n
    # Missing ones stand behind, in the order they had.
    tail = list(found.order[n - found.missing :])
    assert tail == sorted(tail)
    clean = " > ".join(f"[{labels[i]}]" for i in found.order)
    again = read_ranking(clean, labels)
    assert again.order == found.order
    assert not again.repaired


def test_ten_thousand_fuzzed_answers_keep_every_document() -> None:
    rng = random.Random(20)
    repaired = 0
    for number in range(10_000):
        n = rng.choice([0, 1, 2, 5, 20, 26])
        labels = numbers(n) if number % 2 else list(LETTERS[:n])
        text = said_by_nobody(rng, labels)
        check_reading(text, labels)
        repaired += read_ranking(text, labels).repaired
    assert 5_000 < repaired < 10_000  # the fuzz is neither all rubbish nor all clean


@given(st.text() | st.text("[]0123456789> AB"), st.integers(0, 26), st.booleans())
def test_any_text_keeps_every_document(text: str, n: int, letters: bool) -> None:
    check_reading(text, list(LETTERS[:n]) if letters else numbers(n))
    choice = read_choice(text, LETTERS[:n])
    assert choice is None or 0 <= choice < n
    number = read_number(text)
    assert number is None or abs(number) < 10**6


@given(st.permutations(range(9)))
def test_a_clean_ranking_is_read_as_it_is(order: list[int]) -> None:
    found = read_ranking(" > ".join(f"[{i + 1}]" for i in order), numbers(9))
    assert found.order == tuple(order)
    assert not found.repaired


def test_long_rubbish_is_read_in_linear_time() -> None:
    start = time.process_time()
    slow = ["[" * 10**6, "[1] > " * 10**5 + "[" * 10**5, "1" * 10**6, 'Passage"' * 10**5]
    for text in (*slow, "Passage" + " " * 10**6, "[" + " " * 10**6, "A" * 10**6):
        check_reading(text, numbers(3))
        read_choice(text, "AB")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B", 1),
        (" b.\n", 1),
        ("Passage B", 1),
        ("passage: B", 1),
        ('"Passage B"', 1),
        ("[B]", 1),
        ("(C)", 2),
        ("The most relevant one is Passage C.", 2),
        ("Passage C, since Passage A is off topic", 2),
        ("<think>Passage A?</think>Passage B", 1),
        ("it is B", 1),
        ("B, no: C", None),
        ("Passage D", None),
        ("Passages are all off", None),
        ("Passage Because", None),
        ("", None),
        ("2", None),
        ("²", None),
    ],
)
def test_choices(text: str, place: int | None) -> None:
    assert read_choice(text, "ABC") == place


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("85.5", 85.5),
        ("0.9999999", 0.9999999),
        ("[1]: 7", 1.0),
        ("about 90%", 90.0),
        ("-3", -3.0),
        ("0", 0.0),
        ("", None),
        ("٣", None),
        ("²", None),
        ("9" * 5000, None),
        ("NaN", None),
    ],
)
def test_numbers(text: str, number: float | None) -> None:
    assert read_number(text) == number
