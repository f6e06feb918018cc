"""`ERankReranker`: a model that thinks about a document and gives it an integer from 0 to 10.

ERank (Cai et al., arXiv 2509.00520) is taught to end its thoughts with an integer between
``<answer>`` tags. Three readings make a score of it: the integer itself; the integer times the
probability of its tokens, which parts documents of one integer; and the expectation over all
integers. The wording of the prompt is this project's, after the published form: one turn of the
user, instruction, query and document.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.language.chat import Chat, Measuring, Message
from retrievekit.language.contract import spoken, weighed
from retrievekit.rerank.pointwise import WEB_SEARCH, JudgingReranker
from retrievekit.trace import count

log = logging.getLogger(__name__)

Reading: TypeAlias = Literal["weighted", "integer", "expected"]

HIGHEST = 10
_ANSWER = re.compile(r"<answer>\s*([0-9]{1,2})\s*(?:</answer>|\Z)")
_THOUGHT = "</think>"
_MARGIN = 16
"""Tokens by which a text may grow when it is taken apart again."""

REQUEST = (
    "Judge how well the document meets the query under the instruction. Think first. Then give an "
    "integer from 0 (not at all) to 10 (perfectly) between <answer> and </answer>.\n\n"
    "Instruction: {instruction}\n\nQuery: {query}\n\nDocument: {doc}"
)


@dataclass(frozen=True)
class Integer:
    """An integer that was read from an answer.

    Args:
        value: The integer.
        before: What the model said before it.
        after: The character behind it, ``<`` or a white one; empty at the end.
    """

    value: int
    before: str
    after: str


def read_integer(text: str) -> Integer | None:
    """The integer that an answer ends with.

    Args:
        text: What the model said; thoughts up to ``</think>`` do not count.

    Returns:
        The last integer from 0 to 10 between tags, or None.
    """
    start = text.rfind(_THOUGHT) + 1
    found = list(_ANSWER.finditer(text, start))
    if not found or int(found[-1][1]) > HIGHEST:
        return None
    a, b = found[-1].span(1)
    return Integer(int(text[a:b]), text[:a], text[b : b + 1])


@dataclass(frozen=True, repr=False)
class ERankReranker(JudgingReranker):
    """ERank: thinks, then gives an integer.

    An answer without an integer from 0 to 10 scores 0, the least, and is counted as unreadable.
    Probabilities are taken among the integers; where ``10`` is two tokens, its probability is the
    product of both. The published fusion with the first stage, by z-scores, is ``weighted(first,
    first >> erank, weights=[a, 1 - a], normalise="zscore")`` over the same hits.

    Args:
        model: A folder or hub id, or a `LanguageModel`, which also says device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a document that are read; None reads all.
        max_tokens: Tokens of a prompt at most, as far as the model counts them; documents are cut
            to fit, and counted. Queries are never cut.
        pairs_at_once: Pairs that are handed to the model in one call; it makes batches of them.
        reading: ``weighted``: the integer times its probability; ``integer``: itself alone, which
            any service can give; or ``expected``: the mean over all integers.
        instruction: What the search is for.
        max_new_tokens: Tokens that the model may think.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    reading: Reading = "weighted"
    instruction: str = WEB_SEARCH
    max_new_tokens: int = 4096

    label: ClassVar[str] = "erank"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.reading not in get_args(Reading):
            raise DataError(f"no reading {self.reading!r}; known: {', '.join(get_args(Reading))}")
        if not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            raise DataError(f"max_new_tokens is at least 1; got {self.max_new_tokens!r}")

    @property
    def answer_tokens(self) -> int:
        """What the model may say, and a little more for taking it apart again."""
        return self.max_new_tokens + _MARGIN

    def chat(self, query: str, doc: str) -> Chat:
        """One turn of the user."""
        asked = REQUEST.format(instruction=self.instruction, query=query, doc=doc)
        return (Message("user", asked),)

    def judged(self, chats: Sequence[Chat]) -> NDArray[np.float64]:
        """The model's integers as `reading` has them, float64 ``(n,)``."""
        said = spoken(self.asked, chats, self.max_new_tokens)
        found = [read_integer(text) for text in said]
        out = np.array([0 if one is None else one.value for one in found], np.float64)
        places = [place for place, one in enumerate(found) if one is not None]
        unreadable = len(chats) - len(places)
        count("unreadable answers", unreadable)
        if unreadable:
            log.warning(
                "%s: %d of %d answers hold no integer from 0 to 10 and score 0",
                self.name, unreadable, len(chats),
            )  # fmt: skip
        if self.reading == "integer" or not places:
            return out
        integers = [one for one in found if one is not None]
        chances = self.chances([chats[place] for place in places], integers)
        if self.reading == "weighted":
            out[places] *= chances[np.arange(len(places)), out[places].astype(int)]
        else:
            out[places] = chances @ np.arange(HIGHEST + 1)
        return out

    def chances(self, chats: Sequence[Chat], integers: Sequence[Integer]) -> NDArray[np.float64]:
        """How likely the model was to say each integer where it said one.

        Args:
            chats: The prompts.
            integers: What was read from their answers.

        Returns:
            float64 ``(n, 11)``; rows sum to 1.
        """
        begun = [
            (*chat, Message("assistant", one.before))
            for chat, one in zip(chats, integers, strict=True)
        ]
        out = np.zeros((len(begun), HIGHEST + 1))
        model = self.asked
        whole = [
            isinstance(model, Measuring) and model.pieces(str(HIGHEST), one.before) == 1
            for one in integers
        ]
        if rows := [row for row, single in enumerate(whole) if single]:
            every = [str(n) for n in range(HIGHEST + 1)]
            out[rows] = _softmax(weighed(model, [begun[row] for row in rows], every))
        rest = [row for row, single in enumerate(whole) if not single]
        if not rest:
            return out
        out[rest, :HIGHEST] = _softmax(
            model.logits([begun[row] for row in rest], list("0123456789"))
        )
        # After a 1 there is a 0, or the end of the answer, which begins as the model's own did.
        ends = {row: integers[row].after for row in rest}
        for end in dict.fromkeys(ends.values()):
            rows = [row for row in rest if ends[row] == end]
            longer = [
                (*chats[row], Message("assistant", f"{integers[row].before}1")) for row in rows
            ]
            closing = end if end.isspace() else self._closing
            zero = _softmax(weighed(model, longer, ["0", closing]))[:, 0]
            out[rows, HIGHEST] = out[rows, 1] * zero
            out[rows, 1] *= 1 - zero
        return out

    @property
    def _closing(self) -> str:
        """How the end of an answer begins: ``</`` is one token of its own in most vocabularies."""
        model = self.asked
        return "<" if isinstance(model, Measuring) and model.pieces("</", "1") != 1 else "</"


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = np.asarray(logits, np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    out: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return out
