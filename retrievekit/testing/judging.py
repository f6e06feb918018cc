"""`JudgingModel`: a language model without weights, to try rerankers that ask one.

It reads the prompts of this package's rerankers as a model would, and answers by a function that
says what a passage is worth. It may favour places, as models do, and be gullible, as models are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.language.chat import Chat
from retrievekit.stage import fingerprint_of

_MARK = re.compile(r"</?passage-[0-9a-f]{16}>")
_LISTED = re.compile(r"^\[([0-9]+|[A-Z])\] (.*)$", re.MULTILINE)
_LABELLED = re.compile(r'^Passage ([A-Z]): "(.*)"$', re.MULTILINE)
_QUERIES = (
    re.compile(r"relevance to query: (.*)\.$", re.MULTILINE),
    re.compile(r"relevance to the search query: (.*)\.$", re.MULTILINE),
    re.compile(r'^Given a query "(.*)", which of'),
)


class Asked(NamedTuple):
    """What a prompt asks.

    Args:
        query: The query.
        labels: The passages' labels.
        passages: The passages, without marks.
    """

    query: str
    labels: list[str]
    passages: list[str]


class JudgingModel:
    """Answers prompts of rerankers by what passages are worth.

    Args:
        worth: What a passage is worth for a query; the more the better.
        favour: What each place adds to a passage's worth, first to last; further places add 0.
        orders: Words that a gullible model obeys: a passage with one of them anywhere that a
            guard left it readable is worth more than all others, unless it stands between marks.
        name: Goes into the fingerprint.

    Attributes:
        batches: The prompts of every call so far.
    """

    def __init__(
        self,
        worth: Callable[[str, str], float],
        *,
        favour: Sequence[float] = (),
        orders: Sequence[str] = (),
        name: str = "judge",
    ) -> None:
        self._worth = worth
        self._favour = favour
        self._orders = orders
        self._name = name
        self.batches: list[list[Chat]] = []

    def __repr__(self) -> str:
        """Its name."""
        return f"JudgingModel({self._name!r})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its name."""
        return fingerprint_of({"judge": self._name})

    def generate(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """Answer in words.

        Args:
            chats: The prompts.
            max_new_tokens: Not heeded.

        Returns:
            Rankings, or the label of the best.
        """
        self.batches.append(list(chats))
        said = []
        for chat in chats:
            asked = read_prompt(chat)
            values = self._values(chat, asked)
            best_first = sorted(range(len(values)), key=lambda i: -values[i])
            if chat[-1].content.startswith("Given a query"):
                said.append(f"Passage {asked.labels[best_first[0]]}")
            else:
                said.append(" > ".join(f"[{asked.labels[i]}]" for i in best_first))
        return said

    def logits(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.float64]:
        """Answer by what the labels are worth.

        Args:
            chats: The prompts.
            answers: The labels.

        Returns:
            float64 ``(chats, answers)``.
        """
        self.batches.append(list(chats))
        out = np.full((len(chats), len(answers)), -1e3)
        places = [answer.strip() for answer in answers]
        for row, chat in enumerate(chats):
            asked = read_prompt(chat)
            for label, value in zip(asked.labels, self._values(chat, asked), strict=True):
                out[row, places.index(label)] = value
        return out

    def _values(self, chat: Chat, asked: Asked) -> list[float]:
        marked = any(_MARK.search(message.content) for message in chat)
        values = []
        for place, passage in enumerate(asked.passages):
            value = self._worth(asked.query, passage)
            value += self._favour[place] if place < len(self._favour) else 0.0
            if not marked and any(order in passage for order in self._orders):
                value += 1e6
            values.append(value)
        return values


def read_prompt(chat: Chat) -> Asked:
    """Read a prompt of a reranker.

    Args:
        chat: The prompt.

    Returns:
        What it asks.

    Raises:
        DataError: It is none that is known here.
    """
    users = [message.content for message in chat if message.role == "user"]
    text = "\n".join(users)
    query = next((told[1] for wording in _QUERIES if (told := wording.search(text))), None)
    found = (_LABELLED if text.startswith("Given a query") else _LISTED).findall(text)
    if query is None or not found:
        raise DataError(f"this is no prompt of a reranker: {text[:80]!r}")
    labels, passages = zip(*found, strict=True)
    return Asked(query, list(labels), [_MARK.sub("", passage) for passage in passages])
