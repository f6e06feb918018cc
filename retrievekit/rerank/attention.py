"""`AttentionReranker`: documents in the order in which a language model looks at them.

All documents stand in one prompt, and what the query's tokens attend to is the ranking: in-context
reranking (ICR, arXiv 2410.02642; formulas in `scoring`). Nothing is generated and nothing is
trained. Two prompts are needed, with the query and with a void one, but they share the documents,
which the model reads once (`capture`); so do further queries over the same documents.

Variants are settings: all heads or chosen ones (QRHead, CoRe; see `heads`), a range of layers
(Selective-ICR, arXiv 2602.22591), with or without calibration and filter, the last row alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, NonFiniteError, UnknownNameError
from retrievekit.headway import report_headway
from retrievekit.index.base import Index
from retrievekit.language.causal import CausalModel
from retrievekit.rerank.attributions import Attribution, attributed
from retrievekit.rerank.base import Listed, Reranker, Rest, check_texts
from retrievekit.rerank.heads import Heads, Pairs, chosen_heads
from retrievekit.rerank.prompts import INSTRUCTIONS, first_words, titled
from retrievekit.rerank.reading import Reading, Wording, read_together, wording_for
from retrievekit.rerank.scoring import VOID_QUERY, document_scores
from retrievekit.run import Run
from retrievekit.stage import knob
from retrievekit.trace import count

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

Order: TypeAlias = Literal["reversed", "given", "sorted"]
Rows: TypeAlias = Literal["all", "last"]


@dataclass(frozen=True)
class AttentionReranker(Reranker):
    """Reranks by the attention that a query pays to documents; no training, no generation.

    A document's score is a sum of attention, best within one prompt: scores of different prompts
    are on no common scale. In float32 a score depends on a query's companions by no more than 1e-5.
    Documents of equal score keep the order of the run's total order (in `rank`, the given one). A
    document without words stands in the prompt as its number, and is scored by that.

    With a `window` the documents are ranked part by part, from the tail of the list to its head,
    the best of each part moving on to the next; attention of different parts cannot be compared, so
    scores then only tell places: as many as there are documents for the best, 1 for the last.

    Args:
        model: A causal language model: its folder, its hub id, or a `CausalModel`, which also says
            device and dtype. Instructed models do best.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        task: ``ie`` (whatever is looked for), ``qa`` (questions), or an instruction's own words.
        template: ``auto``, ``llama3``, ``mistral``, ``chat`` or ``simple``; see `prompts`.
        order: In which the prompt has the documents: ``reversed``, the first stage's best next to
            the query; ``given``; or ``sorted`` by their words, which does not depend on the first
            stage and lets all queries with the same documents share one reading of them.
        max_words: Words of a document that are read, the method's 300; None reads all.
        layers: First and last layer that count, both included, from 0; None counts all.
        heads: Layer and head of those that count, or what `find_heads` found; None counts all.
        calibrate: Whether the void query's attention is subtracted, and low tokens are dropped.
        filter_sigma: How far below its document's mean a token is dropped; None drops none.
        rows: Whether ``all`` rows of the query count (instruction, query, end of the turn), or the
            ``last`` alone.
        window: Documents in one prompt; None puts all into one.
        step: By how many documents the window moves, half of it by default.
        queries_at_once: Queries over the same documents that are run together.

    Raises:
        DataError: A setting is none of these.
    """

    model: CausalModel | str | Path
    documents: Corpus | Index | None = None
    _: dataclasses.KW_ONLY
    k: int | None = None
    rest: Rest = "keep"
    task: str = "ie"
    template: str = "auto"
    order: Order = "reversed"
    max_words: int | None = 300
    layers: tuple[int, int] | None = None
    heads: Heads | Pairs | None = None
    calibrate: bool = True
    filter_sigma: float | None = 2.0
    rows: Rows = "all"
    window: int | None = None
    step: int | None = None
    queries_at_once: int = knob(8)

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        super().__post_init__()
        if not isinstance(self.model, CausalModel):
            object.__setattr__(self, "model", CausalModel(self.model))
        if self.order not in get_args(Order):
            raise DataError(f"no order {self.order!r}; known: {', '.join(get_args(Order))}")
        if self.rows not in get_args(Rows):
            raise DataError(f"rows are 'all' or 'last', not {self.rows!r}")
        if self.layers is not None and not _is_pair(self.layers):
            raise DataError(f"layers are the first and the last, (10, 13) say; got {self.layers!r}")
        if self.heads is not None and not (
            isinstance(self.heads, Heads)
            or (isinstance(self.heads, tuple) and all(map(_is_pair, self.heads)))
        ):
            raise DataError(f"heads are pairs of layer and head, or Heads; got {self.heads!r}")
        if not isinstance(self.calibrate, bool):
            raise DataError(f"calibrate is true or false; got {self.calibrate!r}")
        if self.layers is not None and self.heads is not None:
            raise DataError("give layers or heads, not both: heads name their layers")
        for name in ("max_words", "window", "step", "queries_at_once"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise DataError(f"{name} is a whole number of at least 1; got {value!r}")
        if self.window is not None and self.window < 2:
            raise DataError("a window holds at least 2 documents")
        if self.step is not None and (self.window is None or self.step > self.window):
            raise DataError(f"step={self.step} needs a window of at least as many documents")
        sigma = self.filter_sigma
        if sigma is not None and not (isinstance(sigma, (int, float)) and sigma > 0):
            raise DataError(f"filter_sigma is above 0, or None; got {sigma!r}")
        if not isinstance(self.task, str) or not self.task.strip():
            raise DataError("the task is 'ie', 'qa' or an instruction; it cannot be empty")

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "attention"

    def __repr__(self) -> str:
        """The call that builds it: the model, and what is not the default."""
        shown = [repr(self._model.name)]
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if field.repr and value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"AttentionReranker({', '.join(shown)})"

    @property
    def _model(self) -> CausalModel:
        assert isinstance(self.model, CausalModel)
        return self.model

    @cached_property
    def chosen(self) -> dict[int, tuple[int, ...]]:
        """By layer the heads that count; loads the model.

        Raises:
            DataError: The model has no such layer or head, or the heads are another model's.
        """
        return chosen_heads(self._model, self.layers, self.heads)

    @cached_property
    def _wording(self) -> Wording:
        """What the prompt says besides documents and query; loads the model."""
        return wording_for(self._model, self.template, INSTRUCTIONS.get(self.task, self.task))

    def words(self, corpus: Corpus, rows: NDArray[np.integer]) -> list[str]:
        """Titles on lines of their own, then texts, of documents by integer rows ``(m,)``."""
        return titled(corpus, rows)

    # Scores

    def score(self, lists: Sequence[Listed]) -> list[NDArray[np.floating]]:
        """Score lists, each in one prompt, or in windows; float64 ``(n,)`` for each."""
        distinct = {doc for one in lists for doc in one.docs}
        long = sum(first_words(doc, self.max_words) != doc for doc in distinct)
        count("cut documents", long)
        if long:
            log.warning(
                "%d of %d documents are longer than %d words and were cut there; max_words=None "
                "reads all",
                long, len(distinct), self.max_words,
            )  # fmt: skip
        if self.window is not None:
            walked = []
            for done, one in enumerate(lists, 1):
                walked.append(self._by_windows(one))
                report_headway(done)
            return walked
        out: list[NDArray[np.floating]] = [np.empty(0)] * len(lists)
        groups: dict[tuple[str, ...], list[int]] = {}
        places = [self._places(one.docs) for one in lists]
        for number, (one, order) in enumerate(zip(lists, places, strict=True)):
            groups.setdefault(tuple(one.docs[i] for i in order), []).append(number)
        done = 0
        for docs, members in groups.items():
            found = self._one_prompt(docs, [lists[number].query for number in members])
            for number, scores in zip(members, found, strict=True):
                out[number] = np.empty(len(docs))
                out[number][places[number]] = scores
            done += len(members)
            report_headway(done)
        return out

    def _places(self, docs: Sequence[str]) -> NDArray[np.int64]:
        """Where each document of the prompt stands in the list as given."""
        if self.order == "sorted":
            return np.array(sorted(range(len(docs)), key=docs.__getitem__), np.int64)
        return np.arange(len(docs))[:: -1 if self.order == "reversed" else 1]

    def _one_prompt(
        self, docs: tuple[str, ...], queries: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        reading = self.read(docs, queries)
        sigma = self.filter_sigma if self.calibrate else None
        spans = reading.tokens.spans
        return [document_scores(reading.deltas(i), spans, sigma) for i in range(len(queries))]

    def _by_windows(self, one: Listed) -> NDArray[np.floating]:
        """Places as scores, from windows that walk from the tail to the head."""
        assert self.window is not None
        size, step = self.window, self.step or max(1, self.window // 2)
        ranking = list(range(len(one.docs)))
        stop = len(ranking)
        while True:
            start = max(0, stop - size)
            part = ranking[start:stop]
            order = self._places([one.docs[i] for i in part])
            (found,) = self._one_prompt(tuple(one.docs[part[i]] for i in order), [one.query])
            scores = np.empty(len(part))
            scores[order] = found
            if not np.isfinite(scores).all():
                return np.full(len(one.docs), np.nan)
            ranking[start:stop] = [part[i] for i in np.argsort(-scores, kind="stable")]
            if start == 0:
                break
            stop -= step
        out = np.empty(len(ranking))
        out[ranking] = np.arange(len(ranking), 0, -1)
        return out

    # Reading

    def read(
        self,
        docs: Sequence[str],
        queries: Sequence[str],
        sink: Callable[[int, int, Tensor], None] | None = None,
    ) -> Reading:
        """Let the model read documents once, and each query behind them.

        Args:
            docs: The documents in prompt order, at least one.
            queries: The queries, at least one.
            sink: Called as well for every layer that counts and every query (the void one is 0, or
                there is none), with the mean attention of each head, floating ``(heads, tokens)``.

        Returns:
            What the queries attend to.

        Raises:
            LimitError: The prompt is longer than the model reads.
        """
        asked = [VOID_QUERY] if self.calibrate else []
        found = read_together(
            self._model,
            self._wording,
            [first_words(doc, self.max_words) for doc in docs],
            [*asked, *queries],
            self.chosen,
            last_row=self.rows == "last",
            queries_at_once=self.queries_at_once,
            sink=sink,
        )
        return found.calibrated() if self.calibrate else found

    # Explanations

    def attributions(self, query: str, docs: Sequence[str]) -> list[Attribution]:
        """Which words of each document the query looked at.

        All documents stand in one prompt, also where `window` is set.

        Args:
            query: The query.
            docs: The documents, the first stage's best first, at least one.

        Returns:
            One attribution per document, in the order given; `Attribution.to_text` and
            `attributions.to_html` show them.

        Raises:
            DataError: There is no document, or something is no string.
            NonFiniteError: The attention holds NaN or infinity.
        """
        check_texts(query, docs)
        if not docs:
            raise DataError("there is no document to explain")
        order = self._places(docs)
        reading = self.read([docs[i] for i in order], [query])
        deltas = reading.deltas(0)
        if not np.isfinite(deltas).all():
            raise NonFiniteError(f"query {query[:60]!r}: the attention holds NaN or infinity")
        sigma = self.filter_sigma if self.calibrate else None
        shown = [
            attributed(
                deltas[start:stop],
                reading.tokens.offsets[start:stop] - first,
                reading.prompt.head[first:end],
                sigma,
            )
            for (start, stop), (first, end) in zip(
                reading.tokens.spans.tolist(), reading.prompt.documents, strict=True
            )
        ]
        out = [shown[0]] * len(shown)
        for place, one in zip(order.tolist(), shown, strict=True):
            out[place] = one
        return out

    def explained(self, run: Run, query_id: str) -> tuple[list[str], list[Attribution]]:
        """Which words of its first hits one query of a run looked at.

        Args:
            run: The run.
            query_id: The query.

        Returns:
            The ids of its first k hits, and their attributions.

        Raises:
            DataError: The query has no hits.
        """
        one = run.take(np.array([run.queries.ids.row(query_id)]))
        head = one if self.k is None else one.top(self.k)
        if not head.n_hits:
            raise DataError(f"query {query_id!r} has no hits to explain")
        found = self.attributions(head.queries.texts[0], self._texts(head))
        return head.docs.strings(head.rows), found

    def explain_parts(self, batch: Run, doc_id: str) -> Mapping[str, float]:
        """What each word of the document adds to its score, by its place and itself.

        Args:
            batch: A run of one query.
            doc_id: The document.

        Returns:
            The words in the text's order; with the document's number in the prompt they add up to
            the score that it has in one prompt. Empty where the document is not among the first k.
        """
        head = batch if self.k is None else batch.top(self.k)
        hit = np.flatnonzero(head.rows == head.docs.find(doc_id))
        if not len(hit):
            return {}
        found = self.attributions(head.queries.texts[0], self._texts(head))[int(hit[0])]
        return {f"{i}: {text}": value for i, (text, value) in enumerate(found.words(), 1)}


def attention_reranker(
    model: str,
    documents: Corpus | Index | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> AttentionReranker:
    """An `AttentionReranker` from plain values, as the command line and files have them.

    Args:
        model: Its folder or hub id.
        documents: Where the words of hits are.
        device: See `CausalModel`.
        dtype: See `CausalModel`.
        settings: Fields of `AttentionReranker`; lists stand for tuples, and ``heads`` may be the
            path of a file.

    Returns:
        The reranker.

    Raises:
        UnknownNameError: There is no such setting.
    """
    known = {field.name for field in dataclasses.fields(AttentionReranker)} - {"model", "documents"}
    strangers = sorted(set(settings) - known)
    if strangers:
        raise UnknownNameError.among("setting of attention reranking", strangers[0], known)
    if isinstance(settings.get("heads"), str):
        settings["heads"] = Heads.read(settings["heads"])
    for name in ("layers", "heads"):
        if isinstance(settings.get(name), list):
            settings[name] = _frozen(settings[name])
    return AttentionReranker(CausalModel(model, device=device, dtype=dtype), documents, **settings)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
