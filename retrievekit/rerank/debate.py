"""`DebateReranker`: arguments for and against a document, with quotes that must stand in it.

Debate ranking of LitLLMs (Agarwal et al., arXiv 2412.15249): for each document the model writes
arguments for and against, quotes sentences for them, and gives a probability. A quote that does not
stand in the document is an invention; it is dropped and counted, and what becomes of the
probability is a setting. Each document has a prompt of its own, so none can speak about another.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError
from retrievekit.index.base import Index
from retrievekit.language.chat import Chat, LanguageModel, Message
from retrievekit.language.contract import spoken
from retrievekit.rerank.base import PointwiseReranker, Rest
from retrievekit.rerank.delimiters import Guard, check_guard, guarded, visible
from retrievekit.rerank.parsing import read_number
from retrievekit.rerank.prompts import first_words
from retrievekit.trace import count

log = logging.getLogger(__name__)

Unproven: TypeAlias = Literal["ask", "keep", "reject"]
"""What becomes of a probability when a quote was dropped.

``ask``: the model is shown the arguments that hold, and asked for the probability again. ``keep``:
it stands. ``reject``: the document stands below all whose quotes hold, as LitLLMs do.
"""

UNREADABLE = -102.0
"""The score of a document about which the model gave no probability, below all others."""

_QUOTES = re.compile(r'"([^"]*)"|“([^“”]*)”')
# Brackets too: the model was shown round ones where the text has identifiers in square ones.
_ALIKE = str.maketrans("\u2018\u2019\u2013\u2014[]", "''--()")

_PAPER = re.compile(r"^\s*\[ ?1 ?\]")

_ASKED = """\
You are a helpful research assistant who is helping with literature review of a research idea. \
Your task is to rank some papers based on their relevance to the query abstract.{notice}


## Instruction:
Given the query abstract:
<query_abstract>{query}</query_abstract>

Given the candidate reference paper abstract:
<candidate_paper_abstracts>[1]: {text}</candidate_paper_abstracts>

* Given the abstract of the candidate reference papers, provide me with a number between 0 and 100 \
(upto two decimal places) that is proportional to the probability of a paper with the given query \
abstract including the candidate reference paper in its literature review.
* In addition to the probability, give me arguments for and against including this paper in the \
literature review.
* You must enclose your arguments for including the paper within <arguments_for> and \
</arguments_for> tags.
* You must enclose your arguments for including the paper within <arguments_against> and \
</arguments_against> tags.
* Extract relevant sentences from the candidate paper abstract to support your arguments.
* Put the extracted sentences in quotes.
* You can use the information in other candidate papers when generating the arguments for a \
candidate paper.
* You must enclose your score within <probability> and </probability> tags.
* Generate the arguments first then the probability score.
* Generate arguments and probabitlity for each paper separately.
* Do not generate anything else apart from the probability and the arguments.
* Follow this process even if a candidate paper happens to be identical or near-perfect match to \
the query abstract.

### Response Format for each paper:
<arguments_for>
[Paper ID]: [Reason for including the paper]
Extracted Sentences: "Sentence 1", "Sentence 2", ...
</arguments_for>
<arguments_against>
[Paper ID]: [Reason for not including the paper]
Extracted Sentences: "Sentence 1", "Sentence 2", ...
</arguments_against>
<probability>
[Paper ID]: [Final Probability Score Based on the Arguments]
</probability>

### Your Response:
"""
_AGAIN = (
    "These sentences that you quoted do not stand in the paper: {wrong}\nGive the probability "
    "again, without what rests on them, between <probability> and </probability>, and nothing else."
)


@dataclass(frozen=True)
class Argument:
    """What the model says on one side of a document.

    Args:
        text: Its words.
        quotes: Sentences it quotes that stand in the document.
        dropped: Sentences it quotes that do not.
    """

    text: str
    quotes: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Debate:
    """What the model says about one document.

    Args:
        supporting: What speaks for it.
        opposing: What speaks against it.
        probability: 0 to 100, or None where none could be read.
    """

    supporting: Argument
    opposing: Argument
    probability: float | None

    @property
    def dropped(self) -> tuple[str, ...]:
        """Quotes that do not stand in the document."""
        return self.supporting.dropped + self.opposing.dropped


def verify_quotes(text: str, quotes: Sequence[str]) -> list[bool]:
    """Whether each quote stands in a text word by word.

    White space, invisible characters, and the kind of apostrophes, dashes and brackets make no
    difference; the case of letters does. A quote without words stands nowhere.

    Args:
        text: The text.
        quotes: The quotes.

    Returns:
        One answer for each.
    """
    whole = _plain(text)
    plain = [_plain(quote) for quote in quotes]
    return [bool(quote) and quote in whole for quote in plain]


def read_debate(said: str, text: str) -> Debate:
    """Read an answer, and hold its quotes against the document.

    Args:
        said: What the model said.
        text: The document as it was shown.

    Returns:
        The arguments and the probability.
    """
    said = said.rpartition("</think>")[2]
    sides = []
    for tag in ("arguments_for", "arguments_against"):
        inside = _inside(said, tag)
        found = [a or b for a, b in _QUOTES.findall(inside)]
        holds = verify_quotes(text, found)
        pairs = list(zip(found, holds, strict=True))
        sides.append(
            Argument(
                inside.strip(),
                tuple(quote for quote, good in pairs if good),
                tuple(quote for quote, good in pairs if not good),
            )
        )
    supporting, opposing = sides
    return Debate(supporting, opposing, _probability(said))


@dataclass(frozen=True)
class DebateReranker(PointwiseReranker):
    """Reranks by the probability that a debate about each document ends with.

    Scores are probabilities from 0 to 100. A document about which no probability could be read has
    the score -102, below all others; such answers are counted. So are quotes that were dropped.

    Args:
        model: Generates; one that is good at following instructions.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a document that are read; None reads all.
        guard: How documents enter the prompt: ``marked``, ``cleaned`` or ``plain``.
        seed: Other seeds give other marks.
        unproven: ``ask``, ``keep`` or ``reject``, when a quote was dropped; rejected documents
            stand below all others by their probability, from -101 to -1.
        answer_tokens: Tokens that a debate may have.

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
    seed: int = 0
    unproven: Unproven = "ask"
    answer_tokens: int = 512

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        super().__post_init__()
        if not isinstance(self.model, LanguageModel):
            raise DataError(f"model is something with generate and logits; got {self.model!r}")
        object.__setattr__(self, "deterministic", getattr(self.model, "deterministic", True))
        check_guard(self.guard)
        if self.unproven not in get_args(Unproven):
            raise DataError(
                f"unproven is one of {', '.join(get_args(Unproven))}, not {self.unproven!r}"
            )
        for name, least in (("max_words", 1), ("seed", 0), ("answer_tokens", 1)):
            value = getattr(self, name)
            if value is None and name == "max_words":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise DataError(f"{name} is a whole number of at least {least}; got {value!r}")

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "debate"

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Let the model debate every pair, all in one call; float64 ``(n,)``."""
        found = self.debates(pairs)
        scores = np.empty(len(pairs), np.float64)
        for place, debate in enumerate(found):
            if debate.probability is None:
                scores[place] = UNREADABLE
            elif debate.dropped and self.unproven == "reject":
                scores[place] = debate.probability - 101.0
            else:
                scores[place] = debate.probability
        return scores

    def debates(self, pairs: Sequence[tuple[str, str]]) -> list[Debate]:
        """The debates themselves, for those who want to read the arguments.

        Args:
            pairs: Query and document.

        Returns:
            For each pair what was said.
        """
        texts = [first_words(doc, self.max_words) for _, doc in pairs]
        cut = sum(a != b for (_, b), a in zip(pairs, texts, strict=True))
        count("cut documents", cut)
        if cut:
            log.warning(
                "%d of %d documents are longer than %s words and were cut there; max_words=None "
                "reads all",
                cut, len(pairs), self.max_words,
            )  # fmt: skip
        chats = [self._chat(query, text) for (query, _), text in zip(pairs, texts, strict=True)]
        said = self._generated(chats, self.answer_tokens)
        found = [read_debate(words, text) for words, text in zip(said, texts, strict=True)]
        count("dropped quotes", sum(len(debate.dropped) for debate in found))
        again = [i for i, debate in enumerate(found) if debate.dropped]
        if self.unproven == "ask" and again:
            told = []
            for i in again:
                wrong = " ".join(f'"{quote}"' for quote in found[i].dropped)
                turns = (
                    Message("assistant", said[i]),
                    Message("user", _AGAIN.format(wrong=wrong)),
                )
                told.append((*chats[i], *turns))
            for i, words in zip(again, self._generated(told, 64), strict=True):
                found[i] = dataclasses.replace(found[i], probability=_probability(words))
        unreadable = sum(debate.probability is None for debate in found)
        count("unreadable answers", unreadable)
        if unreadable:
            log.warning("debate: %d of %d answers hold no probability", unreadable, len(found))
        return found

    def _generated(self, chats: Sequence[Chat], tokens: int) -> list[str]:
        count("answers", len(chats))
        return spoken(self.model, chats, tokens)

    def _chat(self, query: str, text: str) -> Chat:
        passages = guarded(query, [text], self.guard, self.seed)
        notice = f" {passages.notice}" if passages.notice else ""
        words = _ASKED.format(notice=notice, query=query, text=passages.texts[0])
        return (Message("user", words),)


def _plain(text: str) -> str:
    return visible(text).translate(_ALIKE)


def _inside(text: str, tag: str) -> str:
    """What stands between the first opening tag and its closing one, or the end."""
    _, found, rest = text.partition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0] if found else ""


def _probability(said: str) -> float | None:
    """The number behind the paper's id, within 0 to 100."""
    inside = _inside(said, "probability").partition("%")[0]
    _, colon, rest = inside.partition(":")
    number = read_number(_PAPER.sub("", rest if colon else inside))
    return number if number is not None and 0 <= number <= 100 else None
