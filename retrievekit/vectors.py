"""Vectors and weighted terms: what encoders give, what indexes search with.

All carry the fingerprint of the encoder that made them, so that a searcher can refuse strangers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.errors import DataError, NonFiniteError


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of an array that cannot be written through.

    Args:
        array: Any array, such as ``(n, d)``, of any dtype.

    Returns:
        A read-only view of the same shape and dtype.
    """
    view = array.view()
    view.setflags(write=False)
    return view


def check_finite(values: NDArray[np.floating], what: str) -> None:
    """Raise when a row holds NaN or infinity.

    Args:
        values: float32 or float64, ``(n,)`` or ``(n, d)``.
        what: How the message calls a row, such as "query".

    Raises:
        NonFiniteError: Names the first bad row.
    """
    fine = np.isfinite(values)
    if not fine.all():
        row = int(np.argwhere(~fine)[0][0])
        raise NonFiniteError(f"{what} {row} holds {values[row]}: NaN and infinity are not allowed")


@dataclass(frozen=True, eq=False)
class DenseVectors:
    """One vector per row.

    Args:
        array: float32 ``(n, d)``.
        encoder: Fingerprint of the encoder, or None for vectors from elsewhere.
    """

    array: NDArray[np.float32]
    encoder: str | None = None

    def __post_init__(self) -> None:
        """Check shape and finiteness, and freeze."""
        array = np.ascontiguousarray(self.array, np.float32)
        if array.ndim != 2:
            raise DataError(f"dense vectors have shape (n, d); got {np.shape(self.array)}")
        check_finite(array, "vector")
        object.__setattr__(self, "array", read_only(array))

    def __len__(self) -> int:
        """How many vectors there are."""
        return len(self.array)

    @property
    def dim(self) -> int:
        """Components of each vector."""
        return int(self.array.shape[1])

    def take(self, rows: NDArray[np.integer]) -> DenseVectors:
        """Some rows, ``(m,)`` integers, in their order."""
        return DenseVectors(self.array[rows], self.encoder)

    def content(self, row: int) -> bytes:
        """The bytes that a cache key of one row is made of."""
        vector: NDArray[np.float32] = self.array[row]
        return b"dense\0" + vector.tobytes()


@dataclass(frozen=True, eq=False)
class SparseVectors:
    """Rows of weights over a fixed vocabulary, in CSR form.

    Args:
        offsets: int64 ``(n + 1,)``; row i owns ``offsets[i]:offsets[i + 1]``.
        columns: int32 ``(nnz,)``, ascending within a row.
        values: float32 ``(nnz,)``.
        size: How many columns the vocabulary has.
        encoder: Fingerprint of the encoder, or None.
    """

    offsets: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    size: int
    encoder: str | None = None

    def __post_init__(self) -> None:
        """Check finiteness and range, and freeze."""
        if len(self.columns) != len(self.values) or self.offsets[-1] != len(self.columns):
            raise DataError(
                f"CSR arrays disagree: {len(self.columns)} columns, {len(self.values)} values, "
                f"last offset {self.offsets[-1]}"
            )
        if len(self.columns) and not 0 <= self.columns.min() <= self.columns.max() < self.size:
            raise DataError(f"a column lies outside the vocabulary of {self.size}")
        check_finite(self.values, "weight")
        for name in ("offsets", "columns", "values"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        """How many vectors there are."""
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.integer]) -> SparseVectors:
        """Some rows, ``(m,)`` integers, in their order."""
        picked, offsets = ragged_take(self.offsets, rows)
        return SparseVectors(
            offsets, self.columns[picked], self.values[picked], self.size, self.encoder
        )

    def content(self, row: int) -> bytes:
        """The bytes that a cache key of one row is made of."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        return b"sparse\0" + self.columns[part].tobytes() + self.values[part].tobytes()


@dataclass(frozen=True, eq=False)
class WeightedTerms:
    """Rows of (term, weight), the form that lexical rewriting gives.

    Terms are already analysed: an index looks them up as they are.

    Args:
        offsets: int64 ``(n + 1,)``.
        terms: The terms of all rows, one after another.
        weights: float32 ``(nnz,)``.
    """

    offsets: NDArray[np.int64]
    terms: pa.LargeStringArray
    weights: NDArray[np.float32]

    @classmethod
    def from_dicts(cls, rows: Sequence[Mapping[str, float]]) -> WeightedTerms:
        """Build from one mapping of term to weight per row.

        Args:
            rows: The mappings.

        Returns:
            The weighted terms.
        """
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        terms = string_array([t for row in rows for t in row])
        weights = np.array([w for row in rows for w in row.values()], np.float32)
        return cls(offsets, terms, weights)

    def __post_init__(self) -> None:
        """Check finiteness, and freeze."""
        check_finite(self.weights, "term weight")
        for name in ("offsets", "weights"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.offsets) - 1

    def row(self, row: int) -> dict[str, float]:
        """The terms of one row with their weights."""
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        weights: list[float] = self.weights[part].tolist()
        return dict(zip(self.terms[part].to_pylist(), weights, strict=True))

    def take(self, rows: NDArray[np.integer]) -> WeightedTerms:
        """Some rows, ``(m,)`` integers, in their order."""
        picked, offsets = ragged_take(self.offsets, rows)
        return WeightedTerms(offsets, self.terms.take(row_array(picked)), self.weights[picked])

    def content(self, row: int) -> bytes:
        """The bytes that a cache key of one row is made of."""
        return b"terms\0" + repr(sorted(self.row(row).items())).encode("utf-8")


def ragged_take(
    offsets: NDArray[np.int64], rows: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions and offsets of some rows of a ragged array.

    Args:
        offsets: int64 ``(n + 1,)``.
        rows: Rows wanted, integers ``(m,)``.

    Returns:
        Positions int64 ``(total,)`` of their elements, and their new offsets int64 ``(m + 1,)``.
    """
    lengths = offsets[1:][rows] - offsets[:-1][rows]
    out = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    starts = np.repeat(offsets[:-1][rows] - out[:-1], lengths)
    return starts + np.arange(out[-1], dtype=np.int64), out
