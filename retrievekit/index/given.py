"""Vectors computed elsewhere, in the place of an encoder while an index is built.

Whatever order the documents come in, each must meet its own vector: counts are compared before
anything is written where both are known, and ids one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, EncoderContractError, EncoderMismatchError
from retrievekit.ids import Ids
from retrievekit.index.arriving import WithWindow
from retrievekit.protocols import Encoder, EncoderCard, Similarity, similarity_named
from retrievekit.vectors import DenseVectors, check_kind

ROWS_AT_A_TIME = 8192


class VectorSource(Protocol):
    """Vectors that are read in parts, such as `retrievekit.encode.precomputed` opens."""

    @property
    def dim(self) -> int:
        """Components of each vector."""
        ...

    @property
    def ids(self) -> Ids | None:
        """The ids of the documents they belong to, or None."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def parts(self) -> Iterator[NDArray[Any]]:
        """All of them in order, arrays ``(m, dim)`` of one floating dtype."""
        ...


class _Rows:
    """An array as a source."""

    ids: Ids | None = None

    def __init__(self, array: NDArray[Any]) -> None:
        given = check_kind(array, "f", "document vectors")
        if given.ndim != 2:
            raise DataError(f"document vectors have shape (n, d); got {given.shape}")
        self.array = given
        self.dim = int(given.shape[1])

    def __len__(self) -> int:
        return len(self.array)

    def parts(self) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self.array), ROWS_AT_A_TIME):
            yield self.array[start : start + ROWS_AT_A_TIME]


def source_of(vectors: NDArray[Any] | VectorSource) -> VectorSource:
    """An array or a source as a source.

    Args:
        vectors: An array ``(n, d)`` of any floating dtype, or a source.

    Returns:
        The source.
    """
    if isinstance(vectors, np.ndarray) or not hasattr(vectors, "parts"):
        return _Rows(np.asarray(vectors))
    return vectors


class GivenVectors:
    """An encoder's place, held by vectors: each call takes the next ones, whatever the texts.

    Args:
        vectors: Floats ``(n, d)`` of any width, or a source of them.
        encoder: Who made them and encodes queries, or None when nobody knows.
        similarity: How they are compared; by default as the encoder says.

    Raises:
        DataError: No similarity from anybody, two that differ, or no vectors ``(n, d)``.
        EncoderContractError: Vectors of another size than the encoder's.
        EncoderMismatchError: Vectors that another encoder made.
    """

    def __init__(
        self,
        vectors: NDArray[Any] | DenseVectors | VectorSource,
        encoder: Encoder | None,
        similarity: str | None,
    ) -> None:
        named = None if similarity is None else similarity_named(similarity)
        if isinstance(vectors, DenseVectors):
            made_by = vectors.encoder
            if encoder is not None and made_by not in (None, encoder.card.fingerprint):
                raise EncoderMismatchError(
                    f"the vectors were made by another encoder (fingerprint {str(made_by)[:12]}) "
                    f"than {encoder.card.name!r} ({encoder.card.fingerprint[:12]})"
                )
            vectors = vectors.array
        self.source = source_of(vectors)
        self.dim = self.source.dim
        if encoder is None:
            if named is None:
                raise DataError("say how the vectors are compared: similarity='dot' or 'cosine'")
            self.similarity: Similarity = named
            identity = {"class": "precomputed", "dim": self.dim, "similarity": named}
            self.card = EncoderCard("precomputed", identity)
        else:
            self.similarity = similarity_named(encoder.similarity)
            if named not in (None, self.similarity):
                raise DataError(
                    f"similarity is {named}, but the vectors of {encoder.card.name!r} are compared "
                    f"by {self.similarity}"
                )
            if encoder.dim != self.dim:
                raise EncoderContractError(
                    f"vectors have {self.dim} components, those of {encoder.card.name!r} "
                    f"{encoder.dim}"
                )
            self.card = encoder.card
        self._parts = self.source.parts()
        self._rest: NDArray[Any] = np.empty((0, self.dim), np.float32)

    def matched(self, documents: Corpus | Iterable[Document]) -> Corpus | Iterable[Document]:
        """The documents, each checked to meet its vector.

        Args:
            documents: A corpus, or any iterable of documents.

        Returns:
            The same documents.

        Raises:
            DataError: Another number of them than of vectors, or other ids or another order.
        """
        if not isinstance(documents, Corpus):
            return WithWindow(self._followed(documents), getattr(documents, "window", None))
        if len(documents) != len(self.source):
            raise DataError(f"{len(documents)} documents, but {len(self.source)} vectors")
        ids = self.source.ids
        if ids is not None and ids != documents.ids:
            row = next(n for n in range(len(ids)) if ids[n] != documents.ids[n])
            self._refuse(row, ids[row], documents.ids[row])
        return documents

    def _followed(self, documents: Iterable[Document]) -> Iterator[Document]:
        ids, rows, seen = self.source.ids, len(self.source), 0
        for document in documents:
            if seen == rows:
                raise DataError(
                    f"document {document.doc_id!r} is number {seen + 1}, but there are only {rows} "
                    "vectors"
                )
            if ids is not None and ids[seen] != document.doc_id:
                self._refuse(seen, ids[seen], document.doc_id)
            yield document
            seen += 1
        if seen != rows:
            raise DataError(f"{seen} documents, but {rows} vectors")

    def _refuse(self, row: int, vector: str, document: str) -> None:
        raise DataError(
            f"row {row} of the vectors belongs to {vector!r}, but that document is {document!r}; "
            "bring the documents into the order of the vectors (corpus.take(corpus.ids.rows(ids)))"
        )

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Never called: queries are not encoded while an index is built; float32 ``(n, dim)``."""
        raise NotImplementedError

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The next vectors, one for each text.

        Args:
            texts: As many texts as vectors are wanted.

        Returns:
            float32 ``(n, dim)``.

        Raises:
            EncoderContractError: The source ended before it should.
        """
        while len(self._rest) < len(texts):
            part = next(self._parts, None)
            if part is None:
                raise EncoderContractError(
                    f"the source of vectors ended early; it said that it has {len(self.source)}"
                )
            self._rest = np.concatenate([self._rest, part]) if len(self._rest) else part
        taken, self._rest = self._rest[: len(texts)], self._rest[len(texts) :]
        with np.errstate(over="ignore"):  # infinity is refused, with the document's name
            return np.ascontiguousarray(taken, np.float32)
