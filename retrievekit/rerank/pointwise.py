"""Language models that judge one document at a time by the logits of two answers.

A prompt asks whether a document suits a query, and the model's inclination to say yes, against that
to say no, is the score: one forward pass, nothing is generated, and one document cannot speak about
another.

- Qwen3-Reranker (Zhang et al., arXiv 2506.05176): ``yes`` against ``no``.
- monoT5 (Nogueira et al., arXiv 2003.06713): ``true`` against ``false``, the decoder's first step.
- ProRank (Li et al., arXiv 2506.03487), mxbai-rerank-v2: ``1`` against ``0``.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError
from retrievekit.headway import report_headway
from retrievekit.index.base import Index
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import Chat, LanguageModel, Message
from retrievekit.language.contract import weighed
from retrievekit.language.layout import Layout
from retrievekit.language.seq2seq import Seq2SeqModel
from retrievekit.rerank.base import PointwiseReranker, Rest, in_length_order
from retrievekit.rerank.fitting import fitting
from retrievekit.stage import knob

Output: TypeAlias = Literal["probability", "log-odds"]

QWEN3_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
NO_THOUGHT = "<think>\n\n</think>\n\n"
"""What the assistant has said already: it has thought, and found nothing worth saying."""

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"

PRORANK_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
PRORANK_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For "
    "each query-document pair, carefully analyze the semantic relationship between them, then "
    "provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)


@dataclass(frozen=True, repr=False)
class JudgingReranker(PointwiseReranker):
    """Reranks by asking a language model about each document by itself.

    Subclasses name the model they load (`opened`), write the prompt (`chat`) and read what the
    model inclines to (`judged`).

    Args:
        model: A folder or hub id, or a `LanguageModel`, which also says device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a document that are read; None reads all.
        max_tokens: Tokens of a prompt at most, as far as the model counts them; documents are cut
            to fit, and counted. Queries are never cut.
        pairs_at_once: Pairs that are handed to the model in one call; it makes batches of them.

    Raises:
        DataError: A setting is none of these.
    """

    model: LanguageModel | str | Path
    documents: Corpus | Index | None = None
    _: KW_ONLY
    k: int | None = None
    rest: Rest = "keep"
    max_words: int | None = None
    max_tokens: int | None = None
    pairs_at_once: int = knob(1024)

    label: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        super().__post_init__()
        if isinstance(self.model, (str, Path)):
            object.__setattr__(self, "model", self.opened(self.model))
        elif isinstance(self.model, CausalModel) and self.model.layout == "auto":
            object.__setattr__(self, "model", self.model.laid_out(self.layout))
        elif not isinstance(self.model, LanguageModel):
            raise DataError(f"model is a name, or has generate and logits; got {self.model!r}")
        for name in ("max_words", "max_tokens", "pairs_at_once"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and not (value is None and name != "pairs_at_once"):
                raise DataError(f"{name} is a whole number of at least 1; got {value!r}")
        deterministic = getattr(self.model, "deterministic", True)
        object.__setattr__(self, "deterministic", bool(deterministic))

    layout: ClassVar[Layout] = "chatml"
    """How a `CausalModel` lays the prompt out unless it was told something else."""

    def opened(self, name: str | Path) -> LanguageModel:
        """The model of a name, not loaded yet.

        Args:
            name: A folder or hub id.

        Returns:
            The model.
        """
        return CausalModel(name, layout=self.layout)

    @abstractmethod
    def chat(self, query: str, doc: str) -> Chat:
        """The prompt.

        Args:
            query: The query.
            doc: The document.

        Returns:
            The chat.
        """

    @abstractmethod
    def judged(self, chats: Sequence[Chat]) -> NDArray[np.float64]:
        """The scores of prompts.

        Args:
            chats: At least one.

        Returns:
            float64 ``(n,)``.
        """

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return self.label

    @property
    def asked(self) -> LanguageModel:
        """The model."""
        assert not isinstance(self.model, (str, Path))
        return self.model

    @property
    def answer_tokens(self) -> int:
        """Tokens that may follow a prompt within the model's limit."""
        return 0

    def __repr__(self) -> str:
        """The call that builds it: the model, and what is not the default."""
        shown = [repr(getattr(self.model, "name", self.model))]
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if field.repr and value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
        """Score pairs, those of like length together; float64 ``(n,)``."""
        out = np.empty(len(pairs), np.float64)
        done = 0
        # By characters, which are counted faster than tokens; the model sorts again by those.
        for rows in in_length_order([len(q) + len(d) for q, d in pairs], self.pairs_at_once):
            out[rows] = self.judged(
                fitting(
                    self.chat,
                    [pairs[row] for row in rows],
                    self.asked,
                    max_words=self.max_words,
                    max_tokens=self.max_tokens,
                    more=self.answer_tokens,
                )
            )
            done += len(rows)
            report_headway(done)
        return out


@dataclass(frozen=True, repr=False)
class TwoAnswerReranker(JudgingReranker):
    """Reranks by how much a model inclines to one of two answers.

    Args:
        model: A folder or hub id, or a `LanguageModel`, which also says device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a document that are read; None reads all.
        max_tokens: Tokens of a prompt at most, as far as the model counts them; documents are cut
            to fit, and counted. Queries are never cut.
        pairs_at_once: Pairs that are handed to the model in one call; it makes batches of them.
        output: ``probability``: softmax over the two logits, from 0 to 1; or ``log-odds``: their
            difference. The order is the same, but probabilities near 1 may round to ties.
        answers: The one that speaks for a document, and the one that speaks against it.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    output: Output = "probability"
    answers: tuple[str, str] = ("yes", "no")

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.output not in get_args(Output):
            raise DataError(f"no output {self.output!r}; known: {', '.join(get_args(Output))}")
        object.__setattr__(self, "answers", tuple(self.answers))
        if len(self.answers) != 2 or not all(isinstance(one, str) for one in self.answers):
            raise DataError(f"answers are two texts, for and against; got {self.answers!r}")

    def judged(self, chats: Sequence[Chat]) -> NDArray[np.float64]:
        """Log-odds of the two answers, or the first one's probability, float64 ``(n,)``."""
        logits = weighed(self.asked, chats, self.answers)
        odds = logits[:, 0] - logits[:, 1]
        return odds if self.output == "log-odds" else logistic(odds)


@dataclass(frozen=True, repr=False)
class Qwen3Reranker(TwoAnswerReranker):
    """Qwen3-Reranker: asked whether the document meets the query under an instruction, yes or no.

    The layout is the published one of its code for transformers (fields on lines of their own, an
    empty thought before the answer), and does not depend on the tokenizer's chat template. In
    float32 a score depends on its companions by no more than 1e-5.

    Args:
        model: A folder or hub id, or a `LanguageModel`, which also says device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a document that are read; None reads all.
        max_tokens: Tokens of a prompt at most, as far as the model counts them; documents are cut
            to fit, and counted. Queries are never cut.
        pairs_at_once: Pairs that are handed to the model in one call; it makes batches of them.
        output: ``probability`` or ``log-odds``; see `TwoAnswerReranker`.
        answers: The one that speaks for a document, and the one that speaks against it.
        instruction: What the search is for.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    max_tokens: int | None = 8192
    instruction: str = WEB_SEARCH

    label: ClassVar[str] = "qwen3-reranker"

    def chat(self, query: str, doc: str) -> Chat:
        """The published prompt."""
        asked = f"<Instruct>: {self.instruction}\n<Query>: {query}\n<Document>: {doc}"
        return (
            Message("system", QWEN3_SYSTEM),
            Message("user", asked),
            Message("assistant", NO_THOUGHT),
        )


@dataclass(frozen=True, repr=False)
class MonoT5Reranker(TwoAnswerReranker):
    """monoT5: an encoder-decoder that goes on with true or false.

    Args:
        model: A folder or hub id, or a `LanguageModel`, which also says device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a document that are read; None reads all.
        max_tokens: Tokens of a prompt at most, as far as the model counts them; documents are cut
            to fit, and counted. Queries are never cut.
        pairs_at_once: Pairs that are handed to the model in one call; it makes batches of them.
        output: ``probability`` or ``log-odds``; see `TwoAnswerReranker`.
        answers: The two answers; multilingual checkpoints were taught ``yes`` and ``no``.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    max_tokens: int | None = 512
    answers: tuple[str, str] = ("true", "false")

    label: ClassVar[str] = "monot5"

    def opened(self, name: str | Path) -> LanguageModel:
        """An encoder-decoder by name."""
        return Seq2SeqModel(name)

    def chat(self, query: str, doc: str) -> Chat:
        """The published prompt."""
        return (Message("user", f"Query: {query} Document: {doc} Relevant:"),)


@dataclass(frozen=True, repr=False)
class ProRankReranker(TwoAnswerReranker):
    """ProRank, published as mxbai-rerank-v2: a small decoder that goes on with 1 or 0.

    Args:
        model: A folder or hub id, or a `LanguageModel`, which also says device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        max_words: Words of a document that are read; None reads all.
        max_tokens: Tokens of a prompt at most, as far as the model counts them; documents are cut
            to fit, and counted. Queries are never cut.
        pairs_at_once: Pairs that are handed to the model in one call; it makes batches of them.
        output: ``probability`` or ``log-odds``; see `TwoAnswerReranker`.
        answers: The one that speaks for a document, and the one that speaks against it.
        instruction: What the search is for, put before the query; None leaves it out.

    Raises:
        DataError: A setting is none of these.
    """

    _: KW_ONLY
    max_tokens: int | None = 8192
    answers: tuple[str, str] = ("1", "0")
    instruction: str | None = None

    label: ClassVar[str] = "prorank"

    def chat(self, query: str, doc: str) -> Chat:
        """The published prompt."""
        first = f"instruction: {self.instruction}\n" if self.instruction else ""
        asked = f"{first}query: {query}\ndocument: {doc}\n{PRORANK_TASK}"
        return Message("system", PRORANK_SYSTEM), Message("user", asked)


def logistic(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of log-odds, without overflow.

    Args:
        odds: float64 ``(n,)``.

    Returns:
        float64 ``(n,)``.
    """
    small = np.exp(-np.abs(odds))
    return np.where(odds >= 0, 1.0, small) / (1.0 + small)
