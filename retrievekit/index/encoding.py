"""From documents to the vectors of a dense segment: encoded once, checked, rounded, written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.cuts import Cuts
from retrievekit.errors import EncoderContractError, NonFiniteError
from retrievekit.headway import following
from retrievekit.index.documents import DocumentWriter
from retrievekit.index.encoders import naming
from retrievekit.index.given import GivenVectors
from retrievekit.index.once import Once, inherit_runs
from retrievekit.index.storage import VectorWriter
from retrievekit.protocols import Encoder, Similarity
from retrievekit.store.segment import SegmentReader, SegmentWriter

if TYPE_CHECKING:
    from retrievekit.index.dense import DenseIndex

log = logging.getLogger(__name__)

COPIED_AT_A_TIME = 1 << 14
"""Vectors that a merge copies at once."""

GIVEN = "vectors_given"
"""Among a segment's details: vectors were given, so hashes cover them besides the words."""


def inherit_notes(segment: SegmentWriter, source: SegmentReader) -> None:
    """Note in a segment that documents of it came with their vectors, or from several runs.

    Args:
        segment: The segment.
        source: One that its documents are copied from.
    """
    if source.record.details.get(GIVEN):
        segment.details[GIVEN] = True
    inherit_runs(segment, source)


def copy_vectors(
    segment: SegmentWriter,
    stored: VectorWriter,
    index: DenseIndex,
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> None:
    """Copy the vectors of an index's live documents.

    Args:
        segment: The segment that is written.
        stored: Its vectors.
        index: The index.
        change: What is made of float32 ``(n, d)``; nothing by default.
    """
    before = 0
    for old, vectors in zip(index.segments, index.stored, strict=True):
        inherit_notes(segment, old)
        for start in range(0, len(old.live), COPIED_AT_A_TIME):
            part = vectors.take(old.live[start : start + COPIED_AT_A_TIME])
            stored.append(part if change is None else change(part), partial(_id_of, index, before))
            before += len(part)


def _id_of(index: DenseIndex, before: int, row: int) -> str:
    return index.ids[before + row]


def write_segment(
    segment: SegmentWriter,
    documents: DocumentWriter,
    chunks: Iterable[Corpus],
    stored: VectorWriter,
    encoder: Encoder,
    similarity: Similarity,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Encode documents and write their vectors; what was cut or says nothing is told once.

    Args:
        segment: Where arrays are written.
        documents: Where ids and words are written.
        chunks: The documents, each chunk encoded in one call and, unless the vectors are given,
            kept as one shard.
        stored: Where vectors are written; it is finished by the caller.
        encoder: Encodes title and text joined by one blank.
        similarity: Under ``cosine`` vectors are normalised.
        progress: Called with documents done.
    """
    cuts = Cuts()
    wordless, zero = _Noted("without words"), _Noted("whose vector is all zeros")
    given = isinstance(encoder, GivenVectors)
    if given:
        segment.details[GIVEN] = True
    # Vectors that were given do not follow from the texts by which shards are found.
    once = Once(encoder, None if given else segment.shards, details=segment.details)
    for chunk in chunks:
        texts = chunk.contents()

        def told(n: int, before: int = documents.documents) -> None:
            progress(before + n)

        with cuts.collected(), following(told):
            vectors = document_vectors(encoder, chunk, texts, once)
        wordless.add([not text.strip() for text in texts], chunk)
        zero.add(np.asarray(~vectors.any(axis=1)), chunk)
        if similarity == "cosine":
            vectors = normalised(vectors)
        stored.append(vectors, chunk.ids.__getitem__)
        # Vectors that were given are content of their own; others follow from encoder and text.
        documents.add(chunk, [row.tobytes() for row in vectors] if given else None)
        progress(documents.documents)
    cuts.tell()
    wordless.tell("their vectors say nothing of them, but are found like any other's")
    if similarity != "euclidean":
        zero.tell(f"under {similarity} they score 0, above whatever scores below 0")


class _Noted:
    """Documents that an encoder makes little of: counted, and told once."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.count = 0
        self.first: list[str] = []

    def add(self, flags: Sequence[bool] | NDArray[np.bool_], part: Corpus) -> None:
        rows = np.flatnonzero(flags)
        self.count += len(rows)
        self.first += part.ids.strings(rows[: max(0, 3 - len(self.first))])

    def tell(self, so: str) -> None:
        if self.count:
            shown = ", ".join(repr(doc_id) for doc_id in self.first)
            more = ", ..." if self.count > len(self.first) else ""
            log.warning("%d documents %s (%s%s): %s", self.count, self.what, shown, more, so)


def document_vectors(
    encoder: Encoder, part: Corpus, texts: list[str], once: Once
) -> NDArray[np.float32]:
    """Encode some documents, unless that was done before, and check what comes back.

    Args:
        encoder: The encoder.
        part: The documents.
        texts: What is encoded of them.
        once: What was encoded before.

    Returns:
        float32 ``(documents, dim)``.
    """

    def checked(vectors: NDArray[Any]) -> NDArray[np.float32]:
        return checked_vectors(vectors, len(part), encoder, "document", part.ids)

    def encoded() -> dict[str, NDArray[Any]]:
        with naming(part.ids):
            vectors = encoder.encode_document(texts)
        return {"vectors": checked(vectors)}

    return checked(once.arrays(texts, encoded)["vectors"])


def checked_vectors(
    vectors: NDArray[Any], n: int, encoder: Encoder, what: str, ids: Any
) -> NDArray[np.float32]:
    """What an encoder returned, or an error that names the text at fault.

    Args:
        vectors: The encoder's output, which should be ``(n, dim)`` float32.
        n: How many texts went in.
        encoder: The encoder.
        what: "query" or "document".
        ids: The texts' ids.

    Returns:
        float32 ``(n, dim)``.

    Raises:
        EncoderContractError: Wrong shape, or no real numbers.
        NonFiniteError: NaN or infinity, in float32.
    """
    vectors = np.asarray(vectors)
    if vectors.dtype.kind not in "iuf":
        raise EncoderContractError(
            f"the encoder {encoder.card.name!r} returned an array of dtype {vectors.dtype}; "
            "expected float32"
        )
    if vectors.shape != (n, encoder.dim):
        raise EncoderContractError(
            f"the encoder {encoder.card.name!r} returned an array of shape {vectors.shape} for {n} "
            f"texts; expected ({n}, {encoder.dim})"
        )
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused below
        vectors = np.ascontiguousarray(vectors, np.float32)
    fine = np.isfinite(vectors).all(axis=1)
    if not fine.all():
        bad = int(np.flatnonzero(~fine)[0])
        raise NonFiniteError(
            f"the vector of {what} {ids[bad]!r} holds NaN or infinity as float32 (encoder "
            f"{encoder.card.name!r}); no such vector is stored or searched with"
        )
    return vectors


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; a zero vector stays zero, which no query is similar to.

    Args:
        vectors: float32 ``(n, d)``.

    Returns:
        float32 ``(n, d)``.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    lengths[lengths == 0] = 1
    units: NDArray[np.float32] = (vectors / lengths[:, None]).astype(np.float32)
    return units
