"""What the package asks of parts that others may write: encoders, dense and sparse, and engines.

An `Engine` writes a file for the vectors of a segment, and a `Proposer` made of that file says
which of them may be near a query; the index does the rest.

An encoder is any object with the members of `Encoder` or `SparseEncoder`; nothing needs to be
inherited, and `retrievekit.testing.check_encoder` tells whether a dense one fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.stage import canonical, fingerprint_of
from retrievekit.vectors import SparseVectors

Similarity = Literal["dot", "cosine", "euclidean"]

_SIMILARITY_NAMES: dict[str, Similarity] = {
    "dot": "dot",
    "dot_score": "dot",
    "ip": "dot",
    "cosine": "cosine",
    "cos_sim": "cosine",
    "euclidean": "euclidean",
    "l2": "euclidean",
}


def similarity_named(name: str) -> Similarity:
    """The similarity of a name or alias; unknown names are refused, never mapped to a near one.

    Args:
        name: ``dot`` (or ``ip``, ``dot_score``), ``cosine`` (``cos_sim``), ``euclidean`` (``l2``).

    Returns:
        The canonical name.

    Raises:
        DataError: No such similarity.
    """
    try:
        return _SIMILARITY_NAMES[name]
    except KeyError:
        raise DataError(
            f"no similarity named {name!r}; known: {', '.join(sorted(_SIMILARITY_NAMES))}"
        ) from None


class Progress(Protocol):
    """Told how far a long piece of work has come."""

    def __call__(self, done: int, total: int | None, /) -> None:
        """Take note: so many are done, of so many in all (None where nobody knows)."""
        ...


@dataclass(frozen=True)
class EncoderCard:
    """Who an encoder is, as an index writes it down.

    Args:
        name: What to load the encoder by again: a registered name, a folder or a hub id.
        identity: What must match between index and query encoder: model and revision, weights and
            tokenizer hashes, pooling, prompts, normalisation, similarity, maximum length.
        numerics: What may differ with a warning: dtype and backend.
    """

    name: str
    identity: Mapping[str, Any]
    numerics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over `identity`."""
        return fingerprint_of(canonical(self.identity, f"the identity of {self.name!r}"))

    def to_dict(self) -> dict[str, Any]:
        """The card as plain JSON.

        Raises:
            FingerprintError: A value cannot be written down.
        """
        return {
            "name": self.name,
            "identity": canonical(self.identity, f"the identity of {self.name!r}"),
            "numerics": canonical(self.numerics, f"the numerics of {self.name!r}"),
        }

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> EncoderCard:
        """Rebuild a card from plain JSON.

        Args:
            card: What `to_dict` gave.

        Returns:
            The card.
        """
        return cls(card["name"], card["identity"], card.get("numerics", {}))

    def differences(self, other: EncoderCard) -> list[str]:
        """The identity entries in which two cards differ, in words.

        Args:
            other: The card to compare with.

        Returns:
            One line per difference: the entry, this card's value, the other's.
        """
        # As plain JSON: a card that was read back has lists where the encoder has tuples.
        mine, others = self.to_dict()["identity"], other.to_dict()["identity"]
        return [
            f"{name}: {mine.get(name)!r} against {others.get(name)!r}"
            for name in sorted({*mine, *others})
            if mine.get(name) != others.get(name)
        ]


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors whose similarity means relevance."""

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is."""
        ...

    @property
    def dim(self) -> int:
        """Components of each vector."""
        ...

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        ...

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, float32 ``(n, dim)``."""
        ...

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, float32 ``(n, dim)``."""
        ...


@runtime_checkable
class SparseEncoder(Protocol):
    """Turns texts into term weights whose inner product means relevance."""

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is."""
        ...

    @property
    def tokens(self) -> Sequence[str]:
        """The vocabulary: one name per column, no name twice."""
        ...

    def encode_query(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of queries, float32, one row per text over ``len(tokens)`` columns."""
        ...

    def encode_document(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of documents, float32 and none below 0, one row per text."""
        ...


class Proposer(Protocol):
    """One segment's part of an engine: says which of its rows may be near a query.

    It may be wrong, and find too few: scores are computed again from the stored vectors where that
    is asked for, and queries with too few hits are searched exactly.
    """

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        options: Mapping[str, int],
        threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows for float32 ``(nq, dim)``, and the engine's own scores.

        Args:
            queries: float32 ``(nq, dim)``.
            k: How many rows to look for.
            allowed: bool ``(documents,)`` of rows that may be found, or None for all.
            options: The engine's options by name, all of them.
            threads: Threads to use; all cores by default.

        Returns:
            Rows, int64 ``(nq, m)``, none twice, -1 for none; and scores, float32 ``(nq, m)``.
        """
        ...


class Engine(Protocol):
    """A way to find near vectors without looking at all of them."""

    @property
    def name(self) -> str:
        """What `DenseIndex.build` was given, such as ``HNSW32``."""
        ...

    @property
    def similarity(self) -> Similarity:
        """How vectors are compared."""
        ...

    def trained(self, vectors: NDArray[np.float32]) -> bytes | None:
        """What it learns of float32 ``(n, dim)``; empty for nothing, None when they are too few."""
        ...

    def built(self, vectors: NDArray[np.float32], trained: bytes | memoryview) -> bytes:
        """The file for float32 ``(n, dim)``: the same bytes for the same vectors and training."""
        ...

    def opened(self, data: memoryview) -> Proposer:
        """What a file holds whose checksums were compared."""
        ...

    def emptied(self, data: memoryview) -> bytes:
        """What `trained` gave, from a file whose checksums were compared."""
        ...
