"""What rerankers that ask a language model about several passages at once have in common.

A method says how a ranking walks (`sorting`), what a prompt reads, and what an answer means. This
base cuts and guards passages, shows them in several orders where asked to, puts the prompts of all
queries to the model in one call per step, and counts what it asked and what it had to repair.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, NonFiniteError
from retrievekit.index.base import Index
from retrievekit.language.chat import Chat, LanguageModel, Measuring
from retrievekit.language.contract import spoken, weighed
from retrievekit.rerank.base import Listed, Reranker, Rest
from retrievekit.rerank.delimiters import Guard, Passages, check_guard, guarded
from retrievekit.rerank.permute import capped, presentations
from retrievekit.rerank.prompts import first_words
from retrievekit.rerank.steps import Question, Walk, in_step
from retrievekit.trace import count, counting

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class PromptedReranker(Reranker):
    """Reranks by asking a language model which passages are better.

    Scores only tell places: as many as there are documents for the best, 1 for the last. Subclasses
    add their own settings and write `walk`, `chat`, `put` and `verdict`.

    Args:
        model: Generates, or tells logits.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a passage that are read; None reads all. A model that knows its limit is
            shown less where a prompt would not fit. Queries are never cut.
        guard: How passages enter the prompt: ``marked``, ``cleaned`` or ``plain`` (see
            `delimiters`). Only the latter two give the published prompt.
        permute: In how many orders passages are shown, see the method; 1 shows one.
        seed: Other seeds give other orders and marks.
        lift: How many places a document may rise at most above the place it had; None sets no cap.

    Raises:
        DataError: A setting is none of these.
    """

    model: LanguageModel
    documents: Corpus | Index | None = None
    _: KW_ONLY
    k: int | None = None
    rest: Rest = "keep"
    max_words: int | None = 300
    guard: Guard = "marked"
    permute: int = 1
    seed: int = 0
    lift: int | None = None

    label: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the shared settings; nothing is loaded."""
        super().__post_init__()
        if not isinstance(self.model, LanguageModel):
            raise DataError(f"model is something with generate and logits; got {self.model!r}")
        object.__setattr__(self, "deterministic", getattr(self.model, "deterministic", True))
        check_guard(self.guard)
        self.check_whole("max_words", least=1, optional=True)
        self.check_whole("permute", least=1)
        self.check_whole("seed", least=0)
        self.check_whole("lift", least=0, optional=True)

    def check_whole(self, name: str, *, least: int, optional: bool = False) -> None:
        """Refuse a setting that is no whole number.

        Args:
            name: The field.
            least: The smallest number that is allowed.
            optional: Whether None is allowed.

        Raises:
            DataError: It is something else.
        """
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not whole and not (optional and value is None):
            raise DataError(f"{name} is a whole number of at least {least}; got {value!r}")

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return self.label

    def __repr__(self) -> str:
        """The call that builds it: the model, and what is not the default."""
        shown = [repr(self.model)]
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if field.repr and value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    # What a method says

    @abstractmethod
    def walk(self, n: int) -> Walk[list[int]]:
        """How documents are ordered, by questions about some of them.

        Args:
            n: How many there are.

        Returns:
            A walk that returns their order.
        """

    @abstractmethod
    def chat(self, query: str, passages: Passages) -> Chat:
        """The prompt of one question.

        Args:
            query: The query.
            passages: Its passages, in the order they are shown in.

        Returns:
            The chat.
        """

    @abstractmethod
    def put(self, chats: Sequence[Chat], sizes: Sequence[int]) -> list[Any]:
        """Put prompts to the model, by `generated` or `inclined`, and read each answer by itself.

        Args:
            chats: The prompts, at least one, none twice.
            sizes: How many passages each shows.

        Returns:
            What each answer says.
        """

    @abstractmethod
    def verdict(self, said: Sequence[Any], orders: Sequence[tuple[int, ...]]) -> Any:
        """The answer to a question that was asked in several orders.

        Args:
            said: What `put` made of each prompt's answer.
            orders: For each prompt, the documents of the question in the order they were shown in.

        Returns:
            What the walk is sent.
        """

    def orders(self, size: int) -> list[tuple[int, ...]]:
        """The orders in which the passages of a question are shown.

        Args:
            size: How many there are.

        Returns:
            Orders of 0 to ``size - 1``.
        """
        return presentations(self.permute, size, self.seed)

    # What they share

    def score(self, lists: Sequence[Listed]) -> list[NDArray[np.floating]]:
        """Order the documents of many queries side by side; places as scores, float64 ``(n,)``."""
        with counting() as counts:
            texts = self._cut(lists)

            def ask(asked: list[tuple[int, Question]]) -> list[Any]:
                return self._answers(lists, texts, asked)

            found = in_step([self.walk(len(one.docs)) for one in lists], ask)
        for name in ("repaired answers", "unreadable answers"):
            if counts[name]:
                log.warning("%s: %d of %d %s", self.name, counts[name], counts["answers"], name)
        out: list[NDArray[np.floating]] = []
        for order in found:
            if self.lift is not None:
                order = capped(order, self.lift)
            scores = np.empty(len(order), np.float64)
            scores[order] = np.arange(len(order), 0, -1)
            out.append(scores)
        return out

    def _cut(self, lists: Sequence[Listed]) -> list[list[str]]:
        """The documents' words up to the cap, each document cut and counted once."""
        cut = {doc: first_words(doc, self.max_words) for one in lists for doc in one.docs}
        long = sum(text != doc for doc, text in cut.items())
        count("cut documents", long)
        if long:
            log.warning(
                "%d of %d documents are longer than %s words and were cut there; max_words=None "
                "reads all",
                long, len(cut), self.max_words,
            )  # fmt: skip
        return [[cut[doc] for doc in one.docs] for one in lists]

    def _answers(
        self,
        lists: Sequence[Listed],
        texts: Sequence[Sequence[str]],
        asked: Sequence[tuple[int, Question]],
    ) -> list[Any]:
        """Answers to the questions of one step, all put to the model at once."""
        orders = [self.orders(len(question)) for _, question in asked]
        wanted = [
            (lists[number].query, tuple(texts[number][question[i]] for i in order))
            for (number, question), shown in zip(asked, orders, strict=True)
            for order in shown
        ]
        chats = self._fitting(wanted)
        sizes = {chat: len(docs) for chat, (_, docs) in zip(chats, wanted, strict=True)}
        said = dict(zip(sizes, self.put(list(sizes), list(sizes.values())), strict=True))
        count("questions", len(asked))
        count("answers", len(sizes))
        count("calls")
        each = iter(chats)
        return [self.verdict([said[next(each)] for _ in shown], shown) for shown in orders]

    def _fitting(self, wanted: Sequence[tuple[str, tuple[str, ...]]]) -> list[Chat]:
        """The prompts, with shorter passages where one is longer than the model reads."""
        chats = [self._prompt(query, docs) for query, docs in wanted]
        model = self.model
        limit = model.limit if isinstance(model, Measuring) else None
        if limit is None or not isinstance(model, Measuring):
            return chats
        room = limit - self.answer_tokens
        # No token is less than a byte; what surely fits need not be taken apart for it.
        doubtful = [
            place
            for place, chat in enumerate(chats)
            if sum(len(m.content.encode("utf-8", "surrogatepass")) + 16 for m in chat) > room
        ]
        lengths = model.lengths([chats[place] for place in doubtful]) if doubtful else []
        for place, length in zip(doubtful, lengths, strict=True):
            if length <= room:
                continue
            query, docs = wanted[place]
            # The most words that fit; with a single one each, the model has the say.
            fits, over = 1, max(len(doc.split()) for doc in docs)
            while over - fits > 1:
                words = (fits + over) // 2
                (length,) = model.lengths([self._prompt(query, _shortened(docs, words))])
                fits, over = (words, over) if length <= room else (fits, words)
            shorter = _shortened(docs, fits)
            count("documents cut to fit", sum(a != b for a, b in zip(docs, shorter, strict=True)))
            chats[place] = self._prompt(query, shorter)
        return chats

    def _prompt(self, query: str, docs: Sequence[str]) -> Chat:
        return self.chat(query, guarded(query, docs, self.guard, self.seed))

    # How the model is asked

    @property
    def answer_tokens(self) -> int:
        """Tokens that an answer may have; never a matter of a query's companions."""
        return 16

    def generated(self, chats: Sequence[Chat]) -> list[str]:
        """Let the model speak.

        Args:
            chats: The prompts.

        Returns:
            What it says to each.

        Raises:
            EncoderContractError: It gave another number of answers, or something else than words.
        """
        return spoken(self.model, chats, self.answer_tokens)

    def inclined(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.float64]:
        """Ask the model for logits of answers.

        Args:
            chats: The prompts.
            answers: What it may say, each a single token.

        Returns:
            float64 ``(chats, answers)``.

        Raises:
            EncoderContractError: It gave another shape.
            NonFiniteError: It gave NaN or plus infinity.
        """
        found = weighed(self.model, chats, answers)
        bad = np.argwhere(np.isnan(found) | (found == np.inf))
        if len(bad):
            row, column = bad[0]
            raise NonFiniteError(
                f"{self.model!r}: the logit of {answers[column]!r} is {found[row, column]} for the "
                f"prompt that ends {chats[row][-1].content[-60:]!r}"
            )
        return found


def _shortened(docs: Sequence[str], words: int) -> tuple[str, ...]:
    return tuple(first_words(doc, words) for doc in docs)
