"""`ListwiseReranker`: a language model puts a window of passages in order, window after window.

RankGPT (Sun et al., EMNLP 2023, arXiv 2304.09542): windows of 20 walk from the tail to the head by
10, the model writes ``[2] > [1] > ...``. RankZephyr (arXiv 2312.02724) is a model taught to do so,
with its own layout. FIRST (Reddy et al., EMNLP 2024, arXiv 2406.15657) writes nothing: passages
have letters, and the logits of the first letter of an answer are the order, one forward pass each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from retrievekit.errors import DataError
from retrievekit.language.chat import Chat, Message
from retrievekit.rerank.delimiters import Passages
from retrievekit.rerank.parsing import LETTERS, numbers, read_ranking
from retrievekit.rerank.permute import merged_orders
from retrievekit.rerank.prompted import PromptedReranker
from retrievekit.rerank.sorting import windows
from retrievekit.rerank.steps import Walk
from retrievekit.trace import count

Layout: TypeAlias = Literal["rankgpt", "rankzephyr", "first"]
"""Prompts by the method that published them; ``first`` is read by logits, the others by words."""

_RANKGPT = (
    "You are RankGPT, an intelligent assistant that can rank passages based on their relevancy to "
    "the query.",
    "I will provide you with {n} passages, each indicated by number identifier []. \nRank the "
    "passages based on their relevance to query: {query}.",
    "Okay, please provide the passages.",
    "Received passage [{label}].",
    "Search Query: {query}. \nRank the {n} passages above based on their relevance to the search "
    "query. The passages should be listed in descending order using identifiers. The most relevant "
    "passages should be listed first. The output format should be [] > [], e.g., [1] > [2]. Only "
    "response the ranking results, do not say any word or explain.",
)
_RANKLLM = (
    "You are RankLLM, an intelligent assistant that can rank passages based on their relevancy to "
    "the query"
)
_INTRODUCTION = (
    "I will provide you with {n} passages, each indicated by a {kind} identifier []. Rank the "
    "passages based on their relevance to the search query: {query}.\n\n"
)
_REQUEST = (
    "Search Query: {query}.\nRank the {n} passages above based on their relevance to the search "
    "query. All the passages should be included and listed using identifiers, in descending order "
    "of relevance. The output format should be [] > [], e.g., {example}, {only} respond with the "
    "ranking results, do not say any word or explain."
)


@dataclass(frozen=True, repr=False)
class ListwiseReranker(PromptedReranker):
    """Reranks window by window, each put in order by one answer of the model.

    An answer is read and repaired by `parsing.read_ranking`; every repair is counted. With
    `permute` each window is shown in so many orders, all in one call, and the window's order is the
    one by mean rank over them (Borda's count), equal means in the order before.

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
        layout: ``rankgpt``, ``rankzephyr`` or ``first``.
        window: Passages in one prompt; ``first`` has letters for 26 at most.
        step: By how many passages the window moves, half of it by default.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    layout: Layout = "rankgpt"
    window: int = 20
    step: int | None = None

    label: ClassVar[str] = "listwise"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.layout not in get_args(Layout):
            raise DataError(f"no layout {self.layout!r}; known: {', '.join(get_args(Layout))}")
        self.check_whole("window", least=2)
        self.check_whole("step", least=1, optional=True)
        if self.step is not None and self.step > self.window:
            raise DataError(f"step={self.step} passes over documents; window is {self.window}")
        if self.layout == "first" and self.window > len(LETTERS):
            raise DataError(f"'first' has letters for {len(LETTERS)} passages, not {self.window}")

    @property
    def name(self) -> str:
        """What the trace calls it: the layout."""
        return self.layout

    @property
    def answer_tokens(self) -> int:
        """Enough for a whole window: a number of some digits, brackets and ``>`` for each."""
        return 1 if self.layout == "first" else 16 + 8 * self.window

    def walk(self, n: int) -> Walk[list[int]]:
        """Windows from the tail to the head."""
        return windows(n, self.window, self.step or self.window // 2)

    def _labels(self, n: int) -> Sequence[str]:
        return LETTERS[:n] if self.layout == "first" else numbers(n)

    def chat(self, query: str, passages: Passages) -> Chat:
        """The prompt, as published but for what `guard` adds."""
        texts = passages.texts
        n, labels = len(texts), self._labels(len(texts))
        shown = [f"[{label}] {text}" for label, text in zip(labels, texts, strict=True)]
        if self.layout == "rankgpt":
            system, begin, ready, received, end = _RANKGPT
            turns = [
                Message("system", passages.under(system)),
                Message("user", begin.format(n=n, query=query)),
                Message("assistant", ready),
            ]
            for label, text in zip(labels, shown, strict=True):
                turns += [
                    Message("user", text),
                    Message("assistant", received.format(label=label)),
                ]
            return (*turns, Message("user", end.format(n=n, query=query)))
        first = self.layout == "first"
        words = (
            _INTRODUCTION.format(n=n, query=query, kind="alphabetical" if first else "numerical")
            + "".join(f"{text}\n" for text in shown)
            + _REQUEST.format(
                n=n,
                query=query,
                example="[B] > [A]" if first else "[2] > [1]",
                only="Only" if first else "Answer concisely and directly and only",
            )
        )
        turns = [Message("system", passages.under(_RANKLLM)), Message("user", words)]
        return (*turns, Message("assistant", "[")) if first else tuple(turns)

    def put(self, chats: Sequence[Chat], sizes: Sequence[int]) -> list[Any]:
        """Orders of what each prompt shows."""
        if self.layout == "first":
            logits = self.inclined(chats, list(LETTERS[: self.window]))
            return [
                np.argsort(-row[:size], kind="stable").tolist()
                for row, size in zip(logits, sizes, strict=True)
            ]
        orders = []
        for text, size in zip(self.generated(chats), sizes, strict=True):
            reading = read_ranking(text, self._labels(size))
            count("repaired answers", reading.repaired)
            count("unknown identifiers", reading.unknown)
            count("repeated identifiers", reading.repeated)
            count("missing identifiers", reading.missing)
            orders.append(reading.order)
        return orders

    def verdict(self, said: Sequence[Any], orders: Sequence[tuple[int, ...]]) -> list[int]:
        """The order by mean rank."""
        return merged_orders(
            [[order[i] for i in places] for places, order in zip(said, orders, strict=True)]
        )
