"""`CrossEncoderReranker`: a classifier reads query and document as one text, and scores the pair.

Nogueira and Cho (arXiv 1901.04085). Models are those of sentence-transformers' ``CrossEncoder``. A
score is the classifier's raw output: the sigmoid that many models name as their default is left
out, since it presses all good documents to almost 1, where float32 cannot tell them apart.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.headway import report_headway
from retrievekit.index.base import Index
from retrievekit.language.batches import in_token_batches
from retrievekit.rerank.base import PointwiseReranker, Rest
from retrievekit.rerank.classifiers import CrossEncoderModel, log_odds
from retrievekit.rerank.pairs import run, tokenized
from retrievekit.rerank.stored import call_of
from retrievekit.stage import knob
from retrievekit.trace import count

log = logging.getLogger(__name__)

_AT_A_TIME = 16_384
"""Pairs that are tokenized, sorted and run before the next are looked at."""


@dataclass(frozen=True)
class CrossEncoderReranker(PointwiseReranker):
    """Reranks by a cross-encoder: raw scores, of all pairs of a batch of queries at once.

    In float32 a score depends on the other pairs by no more than 1e-5 of the scores' size. Queries
    are never cut. Documents that do not fit beside their query are, from the end; they are counted,
    and the count is logged as a warning once per call. A document without words is scored as such.

    Args:
        model: A cross-encoder: its folder, its hub id, or a `CrossEncoderModel`, which also says
            device and dtype.
        documents: Where the words of hits are: a corpus, or an index that keeps words.
        k: Hits of each query that are reranked; None means all.
        rest: What becomes of hits below: ``keep`` them behind, in their order, or ``cut`` them.
        label: Which output counts, by its name or place, of a model that has several; its score is
            then the log-odds against all others, ``z_l - log(sum of exp(z) of the others)``.
        max_length: Tokens of query and document together; by default, and at most, what the model
            reads.
        max_query: Tokens of a query from which on it is cut after all, counted and told; None cuts
            none, and a query that leaves no room for a document is an error.
        prompt: What stands before queries: the name of one of the model's prompts, or the words
            themselves; by default the model's default prompt, mostly none.
        batch_tokens: Tokens that pass through the model together, padding included; by default
            2,048 on the CPU and 131,072 elsewhere.

    Raises:
        DataError: A setting is none of these.
    """

    model: CrossEncoderModel | str | Path
    documents: Corpus | Index | None = None
    _: dataclasses.KW_ONLY
    k: int | None = None
    rest: Rest = "keep"
    label: str | int | None = None
    max_length: int | None = None
    max_query: int | None = None
    prompt: str | None = None
    batch_tokens: int | None = knob(None)

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        super().__post_init__()
        if not isinstance(self.model, CrossEncoderModel):
            object.__setattr__(self, "model", CrossEncoderModel(self.model))
        for name in ("max_length", "max_query", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and (not _is_whole(value) or value < 1):
                raise DataError(f"{name} is a whole number of at least 1; got {value!r}")
        if self.label is not None and not (isinstance(self.label, str) or _is_whole(self.label)):
            raise DataError(f"a label is a name or a place, from 0; got {self.label!r}")
        if self.prompt is not None and not isinstance(self.prompt, str):
            raise DataError(f"a prompt is a text; got {self.prompt!r}")

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "cross-encoder"

    def __repr__(self) -> str:
        """The call that builds it: the model, and what is not the default."""
        return call_of(self, self._model)

    @property
    def _model(self) -> CrossEncoderModel:
        assert isinstance(self.model, CrossEncoderModel)
        return self.model

    @cached_property
    def column(self) -> int | None:
        """Which output counts, or None where there is but one; loads the model.

        Raises:
            DataError: There are several, and `label` does not choose one.
            UnknownNameError: No label has that name.
        """
        labels = self._model.labels
        if len(labels) == 1:
            if self.label not in (None, 0, labels[0]):
                raise DataError(f"{self._model.name} has one output; label={self.label!r} is none")
            return None
        if self.label is None:
            raise DataError(
                f"{self._model.name} has {len(labels)} outputs ({', '.join(labels)}), so it scores "
                f"no relevance as such; say which one counts: label={labels[-1]!r}"
            )
        if isinstance(self.label, str):
            if self.label not in labels:
                raise UnknownNameError.among("label", self.label, labels)
            return labels.index(self.label)
        if not 0 <= self.label < len(labels):
            raise DataError(f"label={self.label}: there are labels 0 to {len(labels) - 1}")
        return self.label

    @cached_property
    def limit(self) -> int | None:
        """Tokens of a pair that are read; loads the model.

        Raises:
            DataError: `max_length` is beyond what the model reads.
        """
        own = self._model.limit
        if self.max_length is not None and own is not None and self.max_length > own:
            raise DataError(
                f"{self._model.name}: max_length is {self.max_length}, but the model reads {own} "
                "tokens at most"
            )
        return self.max_length or own

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
        """Raw scores of pairs, float32 ``(n,)``.

        Raises:
            DataError: A query leaves no room for a document.
        """
        network, prompt, column = self._model.network, self._model.prompt(self.prompt), self.column
        size = self.batch_tokens or (2_048 if network.device.type == "cpu" else 131_072)
        scores = np.empty(len(pairs), np.float32)
        cut = 0
        long: set[str] = set()
        for start in range(0, len(pairs), _AT_A_TIME):
            part = pairs[start : start + _AT_A_TIME]
            read = tokenized(
                network.tokenizer,
                [(prompt + query, doc) for query, doc in part],
                limit=self.limit,
                max_query=self.max_query,
            )
            cut += sum(tokens.cut for tokens in read)
            long.update(
                query for (query, _), tokens in zip(part, read, strict=True) if tokens.query_cut
            )
            done = start
            for rows in in_token_batches([len(tokens) for tokens in read], size):
                found = run(network, [read[row] for row in rows])
                scores[start + rows] = found[:, 0] if column is None else log_odds(found, column)
                done += len(rows)
                report_headway(done)
        count("cut documents", cut)
        count("cut queries", len(long))
        if cut:
            log.warning(
                "%s: %d of %d documents did not fit beside their query into %d tokens and were cut",
                self._model.name, cut, len(pairs), self.limit,
            )  # fmt: skip
        if long:
            log.warning(
                "%s: %d queries were longer than %d tokens and were cut there",
                self._model.name, len(long), self.max_query,
            )  # fmt: skip
        return scores


def cross_encoder_reranker(
    model: str,
    documents: Corpus | Index | None = None,
    *,
    k: int | None = None,
    rest: Rest = "keep",
    device: str | None = None,
    dtype: str = "float32",
    label: str | int | None = None,
    max_length: int | None = None,
    max_query: int | None = None,
    prompt: str | None = None,
    batch_tokens: int | None = None,
) -> CrossEncoderReranker:
    """A `CrossEncoderReranker` from plain values, as the command line and files have them.

    Args:
        model: Its folder or hub id.
        documents: Where the words of hits are.
        k: Hits of each query that are reranked.
        rest: What becomes of hits below.
        device: See `CrossEncoderModel`.
        dtype: See `CrossEncoderModel`.
        label: Which output counts.
        max_length: Tokens of a pair.
        max_query: Tokens of a query.
        prompt: What stands before queries.
        batch_tokens: Tokens that pass through the model together.

    Returns:
        The reranker.
    """
    return CrossEncoderReranker(
        CrossEncoderModel(model, device=device, dtype=dtype),
        documents,
        k=k,
        rest=rest,
        label=label,
        max_length=max_length,
        max_query=max_query,
        prompt=prompt,
        batch_tokens=batch_tokens,
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
