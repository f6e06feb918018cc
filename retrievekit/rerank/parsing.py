"""What a model's words say about documents, read so that no document is lost, doubled or invented.

Models are asked for identifiers and answer with words. A ranking is read as the identifiers in it,
in their order; then it is repaired: unknown identifiers are dropped, of repeated ones the first
stays, missing ones follow in the order that the documents had. So every answer, the empty one too,
gives each document once. Every repair is told, so that it can be counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Repetitions are bounded or cannot overlap what follows, so no text makes them slow. Digits are
# ASCII: what other scripts write as a number is no identifier that a prompt has shown.
_BRACKETED = re.compile(r"\[([^\[\]]*)\]")
_WORD = re.compile(r"[0-9]+|[A-Za-z]+")
_NAMED = re.compile(r"(?i:passage)[\s:*]{0,8}[\"'(\[<]?\s{0,8}([A-Z])(?![A-Za-z])")
_CAPITAL = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
_THOUGHT = "</think>"

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Labels that are one token each in the usual vocabularies."""


def numbers(n: int) -> list[str]:
    """The identifiers ``1`` to ``n``."""
    return [str(i) for i in range(1, n + 1)]


@dataclass(frozen=True)
class Reading:
    """A ranking that was read, and what had to be repaired.

    Args:
        order: Every document once, by its place in the prompt from 0, best first.
        unknown: Identifiers that name no document.
        repeated: Identifiers that came again.
        missing: Documents that the answer did not name.
    """

    order: tuple[int, ...]
    unknown: int = 0
    repeated: int = 0
    missing: int = 0

    @property
    def repaired(self) -> bool:
        """Whether the answer was anything but each identifier once."""
        return bool(self.unknown or self.repeated or self.missing)


def read_ranking(text: str, labels: Sequence[str]) -> Reading:
    """Read an answer such as ``[2] > [1] > [3]``.

    What stands in brackets counts; where there is nothing in brackets, so do bare identifiers. What
    a model thought before it answered (up to ``</think>``) does not count.

    Args:
        text: What the model said.
        labels: The documents' identifiers in prompt order: numbers, or letters.

    Returns:
        Each of the documents once.
    """
    text = _answer(text)
    found = [part for inside in _BRACKETED.findall(text) for part in _WORD.findall(inside)]
    if not found:
        found = _words(text, labels)
    places = {label: place for place, label in enumerate(labels)}
    order: dict[int, None] = {}
    unknown = repeated = 0
    for word in found:
        place = places.get(_plain(word))
        if place is None:
            unknown += 1
        elif place in order:
            repeated += 1
        else:
            order[place] = None
    missing = [place for place in range(len(labels)) if place not in order]
    return Reading((*order, *missing), unknown, repeated, len(missing))


def read_choice(text: str, labels: Sequence[str]) -> int | None:
    """Read an answer that names one of a few passages, such as ``Passage B`` or ``B``.

    Args:
        text: What the model said.
        labels: The passages' letters in prompt order.

    Returns:
        The place of the one that is named, or None: none is, an unknown one, or several and none of
        them as ``Passage X``.
    """
    text = _answer(text)
    bare = text.strip(" \t\r\n\"'`*.:()[]<>")
    named = [bare.upper()] if len(bare) == 1 else _NAMED.findall(text)[:1]
    if not named:
        named = list(dict.fromkeys(_CAPITAL.findall(text)))
    return labels.index(named[0]) if len(named) == 1 and named[0] in labels else None


def read_number(text: str) -> float | None:
    """Read the first decimal number of a text, such as ``85.5``.

    Args:
        text: The text.

    Returns:
        The number, or None where there is none of at most six digits before the point.
    """
    found = re.search(r"(?<![0-9.])-?[0-9]{1,6}(?:\.[0-9]+)?(?![0-9])", text)
    return float(found[0]) if found else None


def _answer(text: str) -> str:
    return text.rpartition(_THOUGHT)[2]


def _words(text: str, labels: Sequence[str]) -> list[str]:
    """Bare identifiers: numbers where labels are numbers, else capitals that stand alone."""
    if labels and labels[0].isalpha():
        return _CAPITAL.findall(text)
    return re.findall(r"[0-9]+", text)


def _plain(word: str) -> str:
    """A number without leading zeros, a letter as a capital; `int` has caps and takes more."""
    return (word.lstrip("0") or "0") if word[0] in "0123456789" else word.upper()
