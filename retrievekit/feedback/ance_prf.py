"""`AncePRF`: the query encoder that reads a query and its first passages as one text.

Yu, Xiong and Callan, "Improving Query Representations for Dense Retrieval with Pseudo Relevance
Feedback" (CIKM 2021), and Li et al. (ECIR 2022) for other retrievers than ANCE. The first search
and the passages' vectors are the original encoder's, which the index names; only the query is
encoded anew, by a model that was trained for that:

    searcher >> AncePRF(index, "folder") >> searcher
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.encode.batches import Dtype
from retrievekit.errors import DataError, EncoderMismatchError, FormError
from retrievekit.feedback.base import Feedback, Moved, told
from retrievekit.feedback.encoder import FILE, FeedbackEncoder
from retrievekit.feedback.hits import Picked, check_whole, first_hits
from retrievekit.feedback.layouts import Layout
from retrievekit.index.dense import DenseIndex
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.trace import count
from retrievekit.vectors import DenseVectors

log = logging.getLogger(__name__)

DOCS = 3
"""Passages that the published checkpoint reads."""


@dataclass(frozen=True)
class AncePRF(Feedback):
    """Vectors of queries by an encoder that reads their first hits too.

    A query without hits, or one that alone is longer than the encoder reads, stays as it is. With
    `docs` 0 the encoder reads the query alone: with the index's own encoder in its place, that is
    the vector of the first search.

    Args:
        index: A `DenseIndex` that holds the words of its documents.
        encoder: The encoder, or the name of its folder or hub id.
        docs: Hits that are read, at least 0; by default the most that the encoder was trained with,
            else 3.

    Raises:
        FormError: The index is of another kind.
        DataError: `docs` is no whole number of at least 0, or the index holds no words.
        EncoderMismatchError: The encoder was trained for passages of another encoder than the
            index's.
    """

    encoder: FeedbackEncoder | str | Path
    docs: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without loading a model."""
        if not isinstance(self.index, DenseIndex):
            raise FormError(
                f"AncePRF gives dense vectors, for a DenseIndex; this is {self.index!r}"
            )
        if not isinstance(self.encoder, FeedbackEncoder):
            made = FeedbackEncoder(self.encoder, self.index.card)
            object.__setattr__(self, "encoder", made)
        if self.docs is not None and (self.docs != 0 or isinstance(self.docs, bool)):
            check_whole(docs=self.docs)
        if self.index.corpus is None:
            raise DataError(
                f"{self.index.path} holds no words of its documents, which AncePRF reads; build it "
                "with store_text=True"
            )
        if Path(self._own.name).is_dir():
            self._check()

    @property
    def _own(self) -> FeedbackEncoder:
        assert isinstance(self.encoder, FeedbackEncoder)
        return self.encoder

    @property
    def _dense(self) -> DenseIndex:
        assert isinstance(self.index, DenseIndex)
        return self.index

    def _check(self) -> int:
        """How many hits are read, once encoder and index are known to fit."""
        own, made = self._own, self._own.made
        card = self._dense.card
        if own.passages.fingerprint != card.fingerprint:
            raise EncoderMismatchError(
                f"{own.name}: reads passages of the encoder {own.passages.name!r}, but "
                f"{self.index.path} was built with {card.name!r}; they differ in "
                f"{'; '.join(own.passages.differences(card))} (encoder against index)"
            )
        if made is None:
            return DOCS if self.docs is None else self.docs
        low, high = made.docs
        docs = high if self.docs is None else self.docs
        if not low <= docs <= high:
            known = f"{low} to {high}" if low < high else str(high)
            raise DataError(
                f"docs is {docs}, but {own.name} was trained with {known} passages ({FILE}); "
                "another number needs another checkpoint"
            )
        return docs

    def identity(self) -> dict[str, Any]:
        """What the fingerprint is a hash of; loads the model."""
        found = super().identity()
        found["parameters"]["docs"] = self._check()
        return found

    def apply(self, batch: Run) -> Queries:
        """Encode each query with its first hits.

        Raises:
            FormError: The queries never had words.
            UnknownNameError: A hit is not in the index.
            EncoderMismatchError: As in the constructor, for models that were not at hand then.
            NonFiniteError: The model gave NaN or infinity.
        """
        docs = self._check()
        if docs:
            told(batch)
        words, passages, picked = self._read(batch, docs)
        found = self._own.encode(words, passages)
        count("passages read", found.passages)
        count("passages cut or left out for want of room", found.cut)
        count("queries too long to be read, left as they are", len(found.unread))
        kept = found.unread
        if docs:
            # The first search knows more of a query without hits than a model that expects some.
            kept = np.union1d(kept, np.flatnonzero(np.diff(picked.cuts) == 0))
        if found.cut:
            log.info(
                "%s: of %d passages %d were cut or left out, for want of room beside their queries",
                self._own.name, found.passages, found.cut,
            )  # fmt: skip
        vectors = found.vectors
        if len(kept):
            vectors[kept] = self._dense.query_vectors(batch.queries.take(kept))
        return batch.queries.rewritten(DenseVectors(vectors, self._dense.card.fingerprint))

    def _read(self, batch: Run, docs: int) -> tuple[list[str], list[list[str]], Picked]:
        """Words of the queries, and of the passages of each."""
        queries = batch.queries
        # What an earlier stage made of the words counts; of vectors, the words that were typed.
        textual = isinstance(queries.form, pa.LargeStringArray)
        words = (queries.rewritten_texts if textual else queries.texts) if len(batch) else []
        picked = first_hits(batch, self.index, docs)
        corpus = self.index.corpus
        assert corpus is not None
        rows, which = np.unique(picked.rows, return_inverse=True)
        texts = corpus.contents(rows) if len(rows) else []
        cuts = picked.cuts.tolist()
        passages = [
            [texts[place] for place in which[start:stop].tolist()]
            for start, stop in itertools.pairwise(cuts)
        ]
        return words, passages, picked

    def _course(self, batch: Run) -> tuple[list[str], NDArray[np.float64]]:
        """Ids of the only query's passages, and its vectors with the first 0, 1, ... of them."""
        words, (passages,), picked = self._read(batch, self._check())
        nested: Sequence[list[str]] = [passages[:n] for n in range(len(passages) + 1)]
        found = self._own.encode(words * len(nested), nested)
        vectors = found.vectors.astype(np.float64)
        if self._dense.similarity == "cosine":
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.where(lengths > 0, lengths, 1)
        return batch.docs.strings(batch.rows[picked.places]), vectors

    def _moved(self, batch: Run) -> Moved:
        query_id = batch.queries.ids[0]
        before = self._dense.query_vectors(batch.queries)[0].astype(np.float64)
        ids, course = self._course(batch)
        shift = course[-1] - course[0]
        squares = float(shift @ shift)
        steps = np.diff(course, axis=0) @ shift
        shares = {
            doc_id: float(step) / squares if squares else 0.0
            for doc_id, step in zip(ids, steps, strict=True)
        }
        if not ids:
            return Moved(query_id, (), (), 1.0)
        lengths = float(np.linalg.norm(before) * np.linalg.norm(course[-1]))
        cosine = float(before @ course[-1]) / lengths if lengths else 0.0
        return Moved(query_id, tuple(shares.items()), (), cosine)

    def explain_parts(self, batch: Run, doc_id: str) -> Mapping[str, float]:
        """What the query alone and each further passage add to a document's score.

        The parts add up to the score under ``dot`` and ``cosine``; none under ``euclidean``.
        """
        index = self._dense
        row = index.ids.find(doc_id)
        if row < 0 or index.similarity == "euclidean":
            return {}
        ids, course = self._course(batch)
        if not ids:
            return {}
        segment, own = index.place(row)
        number = index.segments.index(segment)
        document = index.stored[number].take(np.array([own]))[0].astype(np.float64)
        scores = course @ document
        return {"query": float(scores[0]), **dict(zip(ids, np.diff(scores).tolist(), strict=True))}


def ance_prf(
    model: str,
    docs: int | None = None,
    *,
    max_length: int | None = None,
    passage_length: int | None = None,
    room: int = 0,
    batch_size: int = 32,
    device: str | None = None,
    dtype: Dtype = "float32",
    allow_pickle: bool = False,
    index: Any,
) -> AncePRF:
    """`AncePRF` by name, for expressions and configurations.

    Args:
        model: A model folder or a hub id.
        docs: As in `AncePRF`.
        max_length: As in `Layout`; with any of the three unset, as the model's folder says.
        passage_length: As in `Layout`.
        room: As in `Layout`.
        batch_size: As in `FeedbackEncoder`.
        device: As in `FeedbackEncoder`.
        dtype: As in `FeedbackEncoder`.
        allow_pickle: As in `FeedbackEncoder`.
        index: As in `AncePRF`.

    Returns:
        The stage.

    Raises:
        FormError: The index is of another kind.
    """
    if not isinstance(index, DenseIndex):
        raise FormError(f"AncePRF gives dense vectors, for a DenseIndex; this is {index!r}")
    layout = None
    if max_length is not None or passage_length is not None or room:
        layout = Layout(max_length or Layout.max_length, passage_length, room)
    encoder = FeedbackEncoder(
        model,
        index.card,
        layout=layout,
        device=device,
        batch_size=batch_size,
        dtype=dtype,
        allow_pickle=allow_pickle,
    )
    return AncePRF(index, encoder, docs)
