"""`SetwiseReranker`: which of a few passages is the best, asked until the first places are settled.

Setwise prompting (Zhuang et al., SIGIR 2024, arXiv 2310.09497): one question compares c + 1
passages, so that a heap whose nodes have c children, or bubbles of c + 1, need far fewer questions
than pairs do. An answer is a word, or the logits of the labels: one forward pass, nothing to parse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from retrievekit.errors import DataError
from retrievekit.language.chat import Chat, Message
from retrievekit.rerank.delimiters import Passages
from retrievekit.rerank.parsing import LETTERS, read_choice
from retrievekit.rerank.prompted import PromptedReranker
from retrievekit.rerank.sorting import bubblesort, heapsort
from retrievekit.rerank.steps import Walk
from retrievekit.trace import count

Reads: TypeAlias = Literal["logits", "words"]
"""Where an answer is taken from."""


@dataclass(frozen=True, repr=False)
class SetwiseReranker(PromptedReranker):
    """Reranks by asking which of a few passages is the most relevant.

    The first `top` places are settled, all other documents follow in the order they had. An answer
    that names no passage is a tie, and is counted. With `permute` each question is asked in so many
    orders, all in one call: the passage with the most votes wins, or by logits the one with the
    highest mean log-probability; of equal ones the one that stood first before. Logits even out any
    favour for places that adds to them; votes only one that seldom decides, since where the place
    always wins each passage gets one vote.

    Args:
        model: Generates, or tells logits.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a passage that are read; None reads all.
        guard: ``marked``, ``cleaned`` or ``plain``; only the latter two give the published prompt.
        permute: In how many orders passages are shown.
        seed: Other seeds give other orders and marks.
        lift: How many places a document may rise at most; None sets no cap.
        sort: ``heap`` or ``bubble``.
        rivals: Passages that one is compared with at a time, the method's c.
        top: Places that are settled.
        reads: ``logits`` or ``words``.
        begun: What the model's answer is begun with, such as ``Passage`` for models of the T5
            family; the label follows it.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    sort: Literal["heap", "bubble"] = "heap"
    rivals: int = 3
    top: int = 10
    reads: Reads = "logits"
    begun: str = ""

    label: ClassVar[str] = "setwise"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.sort not in ("heap", "bubble"):
            raise DataError(f"sort is 'heap' or 'bubble', not {self.sort!r}")
        if self.reads not in get_args(Reads):
            raise DataError(f"reads is 'logits' or 'words', not {self.reads!r}")
        self.check_whole("rivals", least=1)
        self.check_whole("top", least=1)
        if self.rivals >= len(LETTERS):
            raise DataError(f"there are letters for {len(LETTERS) - 1} rivals at most")

    def walk(self, n: int) -> Walk[list[int]]:
        """A heap, or bubbles."""
        walk = heapsort if self.sort == "heap" else bubblesort
        return walk(n, self.rivals, self.top)

    def chat(self, query: str, passages: Passages) -> Chat:
        """The prompt, as published but for what `guard` adds."""
        question = (
            f'Given a query "{query}", which of the following passages is the most relevant one to '
            "the query?"
        )
        shown = "\n\n".join(
            f'Passage {label}: "{text}"'
            for label, text in zip(LETTERS, passages.texts, strict=False)
        )
        request = "Output only the passage label of the most relevant passage:"
        words = f"{passages.under(question)}\n\n{shown}\n\n{request}"
        return asked(words, self.begun)

    def put(self, chats: Sequence[Chat], sizes: Sequence[int]) -> list[Any]:
        """Log-probabilities of what each prompt shows, or the place that was named."""
        if self.reads == "logits":
            logits = self.inclined(chats, labels_behind(self.begun, LETTERS[: self.rivals + 1]))
            return [_log_softmax(row[:size]) for row, size in zip(logits, sizes, strict=True)]
        found = [
            read_choice(text, LETTERS[:size])
            for text, size in zip(self.generated(chats), sizes, strict=True)
        ]
        count("unreadable answers", found.count(None))
        return found

    def verdict(self, said: Sequence[Any], orders: Sequence[tuple[int, ...]]) -> list[int]:
        """The places of the best, more than one for a tie."""
        size = len(orders[0])
        sums = np.zeros(size)
        for one, order in zip(said, orders, strict=True):
            if self.reads == "logits":
                sums[list(order)] += one
            elif one is not None:
                sums[order[one]] += 1
        return np.flatnonzero(sums == sums.max()).tolist()


def asked(words: str, begun: str) -> Chat:
    """A chat of one message, and the beginning of its answer where there is one.

    Args:
        words: What the user says.
        begun: How the answer begins.

    Returns:
        The chat.
    """
    user = Message("user", words)
    return (user, Message("assistant", begun)) if begun else (user,)


def labels_behind(begun: str, labels: Sequence[str]) -> list[str]:
    """Labels as they follow the beginning of an answer: behind a word or a colon with a blank.

    Args:
        begun: The beginning, possibly empty.
        labels: The labels.

    Returns:
        What the model may say.
    """
    blank = " " if begun[-1:].isalnum() or begun[-1:] == ":" else ""
    return [f"{blank}{label}" for label in labels]


def _log_softmax(row: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    if not np.isfinite(row).any():  # an endpoint that lists none of the labels says nothing
        count("unreadable answers")
        return np.zeros(len(row))
    high = row.max()
    with np.errstate(divide="ignore"):
        return row - high - np.log(np.exp(row - high).sum())
