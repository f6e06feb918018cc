"""The vectors that a dense index is asked with: made or taken, checked, of the right length."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.errors import DataError, EncoderMismatchError, FormError, NonFiniteError
from retrievekit.index.encoding import checked_vectors, normalised
from retrievekit.queries import Queries
from retrievekit.vectors import DenseVectors

if TYPE_CHECKING:
    from retrievekit.index.dense import DenseIndex

REMEMBERED = 1 << 12
"""Queries of a batch whose vectors are kept at most, as long as the batch itself lives."""

# By index: the last batch, the encoder that it was asked of, and its vectors. Feedback between two
# searches wants the vectors that the first one had, and encoding them takes longer than all else.
_last: weakref.WeakKeyDictionary[DenseIndex, tuple[weakref.ref[Queries], Any, NDArray[np.float32]]]
_last = weakref.WeakKeyDictionary()


def query_vectors(index: DenseIndex, queries: Queries) -> NDArray[np.float32]:
    """The vectors to search with.

    Args:
        index: The index.
        queries: Texts, encoded here, or dense vectors of the index's encoder.

    Returns:
        float32 ``(nq, dim)``, normalised under the cosine similarity.

    Raises:
        FormError: The queries are of another form.
        EncoderMismatchError: The vectors were made by another encoder.
        DataError: The vectors have another number of components.
    """
    vectors = _vectors(index, queries)
    if len(queries) <= REMEMBERED:
        _last[index] = weakref.ref(queries), index.__dict__.get("encoder"), vectors
    return vectors


def searched_vectors(index: DenseIndex, queries: Queries) -> NDArray[np.float32]:
    """The vectors that an index was searched with last, where it was with this very batch.

    Args:
        index: The index.
        queries: As in `query_vectors`.

    Returns:
        float32 ``(nq, dim)``: those of `query_vectors`, asked again where another batch came since.
    """
    last = _last.get(index)
    if last is not None and last[0]() is queries and last[1] is index.__dict__.get("encoder"):
        return last[2]
    return query_vectors(index, queries)


def _vectors(index: DenseIndex, queries: Queries) -> NDArray[np.float32]:
    if isinstance(queries.form, DenseVectors):
        made_by = queries.form.encoder
        if made_by is not None and made_by != index.card.fingerprint:
            raise EncoderMismatchError(
                f"{index.path}: the query vectors were made by another encoder (fingerprint "
                f"{made_by[:12]}) than the index's {index.card.name!r} "
                f"({index.card.fingerprint[:12]})"
            )
        vectors = queries.form.array
    elif isinstance(queries.form, pa.LargeStringArray):
        texts = queries.rewritten_texts
        vectors = checked_vectors(
            index.encoder.encode_query(texts), len(texts), index.encoder, "query", queries.ids
        )
    else:
        raise FormError(
            f"a dense index searches with text or dense vectors; these queries are "
            f"{queries.form_name}"
        )
    if vectors.shape[1] != index.dim:
        raise DataError(
            f"query vectors have {vectors.shape[1]} components, the index has {index.dim}"
        )
    return normalised(vectors) if index.similarity == "cosine" else vectors


def check_range(index: DenseIndex, vectors: NDArray[np.float32], queries: Queries) -> None:
    """Raise when a score, or a sum on the way to it, may not fit into float32.

    Args:
        index: The index.
        vectors: float32 ``(nq, dim)``.
        queries: Whose they are.

    Raises:
        NonFiniteError: It may not; names the query.
    """
    if index.similarity == "cosine":
        return  # nothing is longer than 1
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    largest = index.largest_norm
    if index.similarity == "euclidean":
        reached = 2 * (norms + largest) ** 2
    else:
        reached = norms * largest
    bad = np.flatnonzero(reached >= np.finfo(np.float32).max)
    if len(bad):
        raise NonFiniteError(
            f"{index.path}: query {queries.ids[int(bad[0])]!r} has length {norms[bad[0]]:.3g}, "
            f"documents have up to {largest:.3g}: scores do not fit into float32; scale the "
            "vectors down, or use an encoder of cosine similarity"
        )
