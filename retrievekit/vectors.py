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


def check_kind(values: Any, kinds: str, what: str) -> NDArray[Any]:
    """An array of the kinds of numbers wanted; nothing is cast.

    Args:
        values: What was given: an array ``(n,)`` or ``(n, d)`` of any dtype, or nested lists.
        kinds: NumPy's letters of the dtypes allowed, such as "iuf"; no numbers at all always pass.
        what: How the message calls them, such as "scores".

    Returns:
        The array.

    Raises:
        DataError: Another dtype, or lists of unequal length.
    """
    try:
        array = np.asarray(values)
    except ValueError as why:
        raise DataError(f"{what} are no array of numbers: {why}") from why
    if array.size and array.dtype.kind not in kinds:
        wanted = "real numbers" if "f" in kinds else "integers"
        raise DataError(f"{what} are of dtype {array.dtype}, but should be {wanted}")
    return array


def check_offsets(offsets: Any, rows: int, what: str) -> NDArray[np.int64]:
    """Offsets that cut an array into one part per row.

    Args:
        offsets: Integers ``(rows + 1,)``.
        rows: How many parts there are.
        what: How the message calls a row, such as "query".

    Returns:
        int64 ``(rows + 1,)``.

    Raises:
        DataError: They are not `rows` + 1 integers that rise from 0.
    """
    cuts = check_kind(offsets, "iu", "offsets")
    if not cuts.size or cuts.shape != (rows + 1,) or cuts[0] != 0 or (cuts[1:] < cuts[:-1]).any():
        raise DataError(
            f"offsets are {rows + 1} integers that rise from 0, one {what} between two of them; "
            f"got {cuts}"
        )
    return cuts.astype(np.int64)


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
        place = tuple(np.argwhere(~fine)[0].tolist())
        where = f" at component {place[1]}" if len(place) > 1 else ""
        raise NonFiniteError(
            f"{what} {place[0]} holds {values[place]}{where}: NaN and infinity are not allowed"
        )


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
        given = check_kind(self.array, "iuf", "dense vectors")
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(given, np.float32)
        if given.ndim != 2:
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
        check_kind(self.columns, "iu", "columns")
        check_kind(self.values, "f", "values")
        check_offsets(self.offsets, len(self.offsets) - 1, "row")
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

        Raises:
            DataError: A weight is no number, or a term is no valid Unicode.
        """
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        try:
            terms = string_array([t for row in rows for t in row])
        except UnicodeEncodeError as why:
            raise DataError(
                f"a term holds a lone surrogate ({why.object[why.start]!r}); it is not valid "
                "Unicode"
            ) from why
        given = check_kind([w for row in rows for w in row.values()], "iuf", "term weights")
        with np.errstate(over="ignore"):
            weights = given.astype(np.float32)
        return cls(offsets, terms, weights)

    def __post_init__(self) -> None:
        """Check that the arrays fit each other and finiteness, and freeze."""
        check_offsets(self.offsets, len(self.offsets) - 1, "row")
        if not len(self.terms) == len(self.weights) == int(self.offsets[-1]):
            raise DataError(
                f"offsets count {self.offsets[-1]} terms, but there are {len(self.terms)} terms "
                f"and {len(self.weights)} weights"
            )
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
