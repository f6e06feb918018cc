"""Matryoshka truncation: the first components of an encoder's vectors, as an encoder.

Models trained for it put what matters most into the first components (Kusupati et al., "Matryoshka
Representation Learning", NeurIPS 2022). What is left of a vector of length 1 is shorter, and under
``cosine`` is brought back to length 1; under ``dot`` and ``euclidean`` it stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.errors import DataError
from retrievekit.protocols import Encoder, EncoderCard, Similarity, similarity_named

CLASS = "truncated"


class TruncatedEncoder:
    """The first components of another encoder's vectors.

    Args:
        encoder: The other encoder.
        dim: How many components are kept.

    Raises:
        DataError: It has not so many, or `dim` is below 1.
    """

    def __init__(self, encoder: Encoder, dim: int) -> None:
        self.encoder = encoder
        self._card = truncated_card(encoder.card, encoder.dim, encoder.similarity, dim)
        self._dim = int(dim)

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"TruncatedEncoder({self.encoder!r}, dim={self.dim})"

    @classmethod
    def from_card(cls, card: EncoderCard) -> TruncatedEncoder:
        """The encoder of a card.

        Args:
            card: A card that a `TruncatedEncoder` gave.

        Returns:
            The encoder, around the one that the rest of the card names.
        """
        inner = EncoderCard.from_dict(card.identity["of"] | {"numerics": card.numerics})
        if inner.name in registry.names("encoder"):
            return cls(registry.resolve("encoder", inner.name)(), card.identity["dim"])
        load = registry.resolve("encoder-class", inner.identity.get("class", "sentence"))
        return cls(load(inner), card.identity["dim"])

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is."""
        return self._card

    @property
    def dim(self) -> int:
        """Components of each vector."""
        return self._dim

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return similarity_named(self.encoder.similarity)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries.

        Args:
            texts: The texts, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return truncated(self.encoder.encode_query(texts), self.dim, self.similarity)

    @property
    def run_settings(self) -> Mapping[str, Any]:
        """Those of the whole encoder."""
        found: Mapping[str, Any] = getattr(self.encoder, "run_settings", {})
        return found

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents.

        Args:
            texts: The texts, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return truncated(self.encoder.encode_document(texts), self.dim, self.similarity)


def truncated(vectors: NDArray[Any], dim: int, similarity: Similarity) -> NDArray[np.float32]:
    """The first components of vectors, of length 1 again under ``cosine``.

    Args:
        vectors: Floats ``(n, d)`` with ``d >= dim``.
        dim: How many components are kept.
        similarity: How vectors are compared.

    Returns:
        float32 ``(n, dim)``; what was all zeros, or is now, stays so.
    """
    kept = np.ascontiguousarray(vectors[:, :dim], np.float32)
    if similarity != "cosine":
        return kept
    lengths = np.sqrt(np.einsum("ij,ij->i", kept, kept, dtype=np.float64))
    lengths[lengths == 0] = 1
    units: NDArray[np.float32] = (kept / lengths[:, None]).astype(np.float32)
    return units


def truncated_card(card: EncoderCard, full: int, similarity: str, dim: int) -> EncoderCard:
    """The card of an encoder after truncation.

    Args:
        card: The card of the whole encoder.
        full: Components of its vectors.
        similarity: How they are compared.
        dim: How many components are kept.

    Returns:
        The card, whose identity holds `dim` and the whole encoder's name and identity.

    Raises:
        DataError: There are not so many components, or `dim` is below 1.
    """
    whole = isinstance(dim, (int, np.integer)) and not isinstance(dim, bool)
    if not whole or not 1 <= dim <= full:
        raise DataError(
            f"dim is {dim!r}; of the {full} components of {card.name!r} 1 to {full} can be kept"
        )
    identity = {
        "class": CLASS,
        "dim": int(dim),
        "similarity": similarity_named(similarity),
        "of": {"name": card.name, "identity": dict(card.identity)},
    }
    return EncoderCard(f"{card.name}:{dim}", identity, card.numerics)
