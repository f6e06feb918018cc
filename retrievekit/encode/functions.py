"""`CallableEncoder`: plain functions from texts to vectors as an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.batches import check_texts
from retrievekit.encode.conventions import Role
from retrievekit.errors import DataError, EncoderContractError, UnknownNameError
from retrievekit.protocols import EncoderCard, Similarity, similarity_named

Function = Callable[[list[str]], Any]
"""Takes a list of texts and gives one row of numbers for each: ``(n, dim)``."""


class CallableEncoder:
    """An encoder of two functions, or of one for queries and documents alike.

    A function's code cannot be fingerprinted, so `name` and `version` stand for it: give another
    version whenever its vectors change. An index built with it is opened with it:
    ``DenseIndex.open(path, encoder)``, or by its name where that was registered.

    Args:
        query: Gives the vectors of queries, from a list of texts.
        document: Gives those of documents; by default as for queries.
        dim: Components of each vector.
        similarity: ``dot``, ``cosine`` or ``euclidean``.
        name: What the encoder is called.
        version: Which of its versions this is.

    Raises:
        DataError: No name or version, or no positive number of components.
    """

    def __init__(
        self,
        query: Function,
        document: Function | None = None,
        *,
        dim: int,
        similarity: str,
        name: str,
        version: str,
    ) -> None:
        if not name or not version:
            raise DataError("an encoder of functions has a name and a version; they stand for it")
        if not isinstance(dim, int | np.integer) or dim < 1:
            raise DataError(f"dim is a whole number of at least 1; got {dim!r}")
        self.query = query
        self.document = query if document is None else document
        self.name = name
        self.version = version
        self._dim = int(dim)
        self._similarity = similarity_named(similarity)

    def __repr__(self) -> str:
        """What it is called."""
        return f"CallableEncoder({self.name!r}, version={self.version!r})"

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is."""
        identity = {
            "class": "function",
            "model": self.name,
            "version": self.version,
            "dim": self.dim,
            "similarity": self.similarity,
        }
        return EncoderCard(self.name, identity, {"dtype": "float32", "backend": "function"})

    @property
    def dim(self) -> int:
        """Components of each vector."""
        return self._dim

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return self._similarity

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries.

        Args:
            texts: The texts, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self._called(self.query, texts, "query")

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents.

        Args:
            texts: The texts, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self._called(self.document, texts, "document")

    def _called(self, function: Function, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        check_texts(texts, role)
        if not len(texts):
            return np.zeros((0, self.dim), np.float32)
        given = function(list(texts))
        try:
            out = np.asarray(given)
        except (ValueError, TypeError, RuntimeError) as why:
            # Rows of several lengths; tensors with gradients, of a GPU, or in bfloat16.
            raise EncoderContractError(
                f"the function {self.name!r} gave what is no array of NumPy ({why}); of a tensor "
                "give tensor.detach().float().cpu().numpy()"
            ) from why
        if out.shape != (len(texts), self.dim) or out.dtype.kind not in "iuf":
            raise EncoderContractError(
                f"the function {self.name!r} gave an array of shape {out.shape} and dtype "
                f"{out.dtype} for {len(texts)} {role} texts; expected ({len(texts)}, {self.dim}) "
                "of real numbers"
            )
        with np.errstate(over="ignore"):  # what overflows is infinite; no index takes it
            # A copy: the function may hand out a buffer that its next call fills.
            return np.array(out, np.float32, order="C")


def not_rebuilt(card: EncoderCard) -> NoReturn:
    """Refuse to rebuild an encoder that is known by its name only.

    Args:
        card: Its card.

    Raises:
        UnknownNameError: Always; says how to bring the encoder.
    """
    what = "a function" if card.identity.get("class") == "function" else "vectors from elsewhere"
    raise UnknownNameError(
        f"the encoder {card.name!r} is {what}, which no index can load again: search with vectors "
        "(Queries of DenseVectors), or open the index with its encoder, DenseIndex.open(path, "
        "encoder)"
    )
