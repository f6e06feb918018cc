"""How wide the numbers of stored vectors are: float32, float16 at half the bytes, int8 at a fourth.

An index answers for the vectors that it stores. They are rounded once, when they are written; after
that all arithmetic is that of float32 storage, and as exact: queries are never rounded.

An int8 number counts steps, up to 127 of them either way from 0. Each component has a step of its
own, calibrated on the vectors that were there first and the same for all that follow, so that no
merge rounds again. What lies beyond the range is cut off, and told. Segments that are written
before there are enough vectors to calibrate on keep float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import CorruptIndexError, NonFiniteError, UnknownNameError
from retrievekit.store.segment import ArrayWriter, CheckedArray, SegmentReader, SegmentWriter

log = logging.getLogger(__name__)

STORAGES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "int8": np.dtype(np.int8),
}
"""Element types by what they are called."""

VECTORS = "vectors"
"""The array of a segment's vectors."""

ROUNDING = "int8"
"""Among a segment's details: the steps of its components, and what rounding cost."""

LEVELS = 127
"""Steps from 0 to the end of a range."""

CALIBRATED_ON = 1 << 13
"""Vectors from which steps are calibrated, the first ones; they are held until then."""

LEAST = 256
"""Vectors below which nothing is calibrated."""

HEADROOM = 1.25
"""A range ends so many times beyond the largest number seen. Of normally distributed numbers,
8,192 of which were seen, one in 500,000 is cut off; a step grows to 0.037 standard deviations."""

CUT_OFF = 0.01
"""The part of documents beyond the ranges from which it is said aloud."""

_NO_STEPS: NDArray[np.float32] = np.zeros(0, np.float32)


def dtype_of(storage: str) -> np.dtype[Any]:
    """The element type of a storage.

    Args:
        storage: Its name.

    Returns:
        The type.

    Raises:
        UnknownNameError: No such storage.
    """
    if storage not in STORAGES:
        raise UnknownNameError.among("storage", storage, STORAGES)
    return STORAGES[storage]


class Stored:
    """The vectors of a segment, read as float32 whatever they are stored as.

    Args:
        array: The array, mapped and verified at first touch.
        steps: float32 ``(d,)`` for int8, else ``(0,)``.
    """

    def __init__(self, array: CheckedArray, steps: NDArray[np.float32]) -> None:
        self.array = array
        self.steps = steps

    @classmethod
    def of(cls, segment: SegmentReader) -> Stored:
        """The vectors of a segment.

        Args:
            segment: The segment.

        Returns:
            Its vectors.

        Raises:
            CorruptIndexError: They are int8, and nothing says what their steps are.
        """
        array = segment[VECTORS]
        steps = steps_of(segment)
        if (array.dtype == np.int8) != bool(len(steps)):
            raise CorruptIndexError(f"{array.path}: {array.dtype}, with {len(steps)} steps")
        return cls(array, steps)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.array)

    @property
    def for_kernels(self) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Numbers and steps as `retrievekit.kernels.dense` takes them, unchecked; same memory."""
        numbers = self.array.unchecked
        return (numbers.view(np.int16) if numbers.dtype == np.float16 else numbers), self.steps

    def ensure_rows(self, rows: NDArray[np.integer]) -> None:
        """Verify what some rows, integers ``(m,)``, lie in; see `CheckedArray.ensure_rows`."""
        self.array.ensure_rows(rows)

    def slice(self, start: int, stop: int) -> NDArray[np.float32]:
        """Some rows, verified.

        Args:
            start: First row.
            stop: Row after the last.

        Returns:
            float32 ``(stop - start, d)``; a read-only view where they are stored so.
        """
        return widened(self.array.slice(start, stop), self.steps)

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Some rows, of which only the blocks that hold them are verified.

        Args:
            rows: Rows, integers ``(m,)``.

        Returns:
            float32 ``(m, d)``.
        """
        return widened(self.array.take(rows), self.steps)

    def all(self) -> NDArray[np.float32]:
        """All rows, verified, float32 ``(n, d)``; a read-only view where they are stored so."""
        return self.slice(0, len(self))


def steps_of(segment: SegmentReader) -> NDArray[np.float32]:
    """The steps of a segment's components.

    Args:
        segment: The segment.

    Returns:
        float32 ``(d,)``; ``(0,)`` where its vectors are no int8.
    """
    noted = segment.record.details.get(ROUNDING)
    return _NO_STEPS if noted is None else np.asarray(noted["steps"], np.float32)


def calibrated(segments: Sequence[SegmentReader]) -> NDArray[np.float32] | None:
    """The steps that were calibrated before.

    Args:
        segments: An index's segments.

    Returns:
        float32 ``(d,)``, or None when no segment has any.
    """
    for segment in segments:
        steps = steps_of(segment)
        if len(steps):
            return steps
    return None


def overall_error(segments: Sequence[SegmentReader]) -> float:
    """What segments noted of their rounding, over their documents.

    Args:
        segments: The segments.

    Returns:
        The part of the vectors' length that was lost, root mean square.
    """
    total = sum(segment.n_live for segment in segments)
    noted = ((s.n_live, s.record.details.get(ROUNDING, {}).get("error", 0.0)) for s in segments)
    return float(np.sqrt(sum(n * error**2 for n, error in noted) / max(total, 1)))


def calibration(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much one step of each component is worth.

    Args:
        vectors: Finite float32 ``(n, d)``.

    Returns:
        float32 ``(d,)``, above 0; of a component that is 0 throughout as large as the largest.
    """
    largest = np.abs(vectors).max(axis=0, initial=0).astype(np.float64)
    steps = np.minimum(HEADROOM * largest / LEVELS, np.finfo(np.float32).max / LEVELS)
    least = float(np.finfo(np.float32).tiny)
    dull = steps < least  # nothing was seen of it: later vectors may hold as much as anywhere
    steps[dull] = max(float(steps.max(initial=0)), least)
    out: NDArray[np.float32] = steps.astype(np.float32)
    return out


@dataclass
class _Rounding:
    """What writing whole numbers of steps cost.

    Args:
        steps: float32 ``(d,)``.
        documents: Vectors written.
        cut: Of these, with a component beyond its range.
        lost: Squared length of all that was rounded or cut off.
        squares: Squared length of all vectors.
    """

    steps: NDArray[np.float32]
    documents: int = 0
    cut: int = 0
    lost: float = 0.0
    squares: float = 0.0

    def codes(self, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
        """Numbers of steps, int8 ``(n, d)``, of float32 ``(n, d)``."""
        with np.errstate(over="ignore"):  # what is far beyond the range is cut off as well
            counted = np.rint(vectors / self.steps)
        codes: NDArray[np.int8] = np.clip(counted, -LEVELS, LEVELS).astype(np.int8)
        difference = vectors - widened(codes, self.steps)
        self.documents += len(vectors)
        self.cut += int((np.abs(counted) > LEVELS).any(axis=1).sum())
        self.lost += float(np.einsum("ij,ij->", difference, difference, dtype=np.float64))
        self.squares += float(np.einsum("ij,ij->", vectors, vectors, dtype=np.float64))
        return codes

    @property
    def error(self) -> float:
        """The length of what was lost, as a part of the vectors' own, root mean square."""
        return round(float(np.sqrt(self.lost / self.squares)), 6) if self.squares else 0.0


class VectorWriter:
    """Writes the vectors of a segment as an index stores them.

    Args:
        segment: Where they are written.
        storage: How they are stored.
        dim: Components of each.
        steps: What was calibrated before, float32 ``(d,)``, for int8; None when nothing was.
        least: Vectors below which nothing is calibrated.
    """

    def __init__(
        self,
        segment: SegmentWriter,
        storage: str,
        dim: int,
        steps: NDArray[np.float32] | None,
        *,
        least: int = LEAST,
    ) -> None:
        self._least = least
        self.longest = 0.0
        self._segment = segment
        self._dtype = dtype_of(storage)
        self._dim = dim
        self._held: list[NDArray[np.float32]] = []
        self._array: ArrayWriter | None = None
        self._rounding: _Rounding | None = None
        if self._dtype != np.int8 or steps is not None:
            self._array = segment.array(VECTORS, self._dtype, (dim,))
        if self._dtype == np.int8 and steps is not None:
            self._rounding = _Rounding(steps)

    def append(self, vectors: NDArray[np.float32], name: Callable[[int], str]) -> None:
        """Round and write vectors; int8 may be held back until there are enough.

        Args:
            vectors: Finite float32 ``(n, d)``.
            name: The document of a row.

        Raises:
            NonFiniteError: A number is too large for the storage; names the document.
        """
        if self._array is None:
            self._held.append(vectors.copy())
            if sum(map(len, self._held)) >= CALIBRATED_ON:
                self._calibrate()
            return
        if self._rounding is None:
            stored = rounded(vectors, self._dtype, name)
            kept = widened(stored)
        else:
            stored = self._rounding.codes(vectors)
            kept = widened(stored, self._rounding.steps)
        self.longest = max(self.longest, longest(kept))
        self._array.append(stored)

    def finish(self) -> Stored:
        """Write what was held back, and note in the segment's details what rounding cost.

        Returns:
            The vectors, readable.
        """
        if self._array is None:
            if sum(map(len, self._held)) >= self._least:
                self._calibrate()
            else:
                self._dtype = np.dtype(np.float32)
                self._write_held()
        steps = _NO_STEPS
        if self._rounding is not None:
            steps = self._rounding.steps
            self._note(self._rounding)
        return Stored(self._segment.written(VECTORS), steps)

    def _calibrate(self) -> None:
        self._rounding = _Rounding(calibration(np.concatenate(self._held)[:CALIBRATED_ON]))
        self._write_held()

    def _write_held(self) -> None:
        self._array = self._segment.array(VECTORS, self._dtype, (self._dim,))
        held, self._held = self._held, []
        for vectors in held:
            self.append(vectors, str)

    def _note(self, rounding: _Rounding) -> None:
        self._segment.details[ROUNDING] = {
            "steps": rounding.steps.tolist(),
            "cut off": rounding.cut,
            "error": rounding.error,
        }
        if rounding.cut > CUT_OFF * rounding.documents:
            log.warning(
                "%d of %d vectors reach beyond the ranges that int8 was calibrated for and are cut "
                "off (what is lost: %.2f %% of their length); build the index again if these "
                "documents are as the rest will be",
                rounding.cut, rounding.documents, 100 * rounding.error,
            )  # fmt: skip


def rounded(
    vectors: NDArray[np.float32], dtype: np.dtype[Any], name: Callable[[int], str]
) -> NDArray[Any]:
    """Vectors as they are stored in a floating type.

    Args:
        vectors: Finite float32 ``(n, d)``.
        dtype: Their element type in the file.
        name: The document of a row.

    Returns:
        ``(n, d)`` of that dtype.

    Raises:
        NonFiniteError: A number is too large for the type; names the document.
    """
    if vectors.dtype == dtype:
        return vectors
    with np.errstate(over="ignore"):  # what overflows is refused below
        stored = vectors.astype(dtype)
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"the vector of document {name(int(bad[0]))!r} has a component of "
            f"{np.abs(vectors[bad[0]]).max():.3g}; {dtype} ends at {np.finfo(dtype).max:.3g}: "
            "store float32, or use an encoder of cosine similarity"
        )
    return stored


def widened(vectors: NDArray[Any], steps: NDArray[np.float32] = _NO_STEPS) -> NDArray[np.float32]:
    """Stored vectors as float32; float16 exactly, int8 as the numbers that they stand for.

    Args:
        vectors: ``(n, d)`` of any storage's dtype.
        steps: float32 ``(d,)`` for int8.

    Returns:
        float32 ``(n, d)``; the same array where it is that already.
    """
    if vectors.dtype == np.float32:
        return vectors
    # Compiled, which is many times as fast as NumPy's conversions.
    from retrievekit.kernels.widths import widen, widen_codes

    out = np.empty(vectors.shape, np.float32)
    if vectors.dtype == np.int8:
        assert len(steps) == vectors.shape[1]
        widen_codes(vectors, steps, out)
        return out
    numbers = out.reshape(-1)
    halves = np.ascontiguousarray(vectors).reshape(-1).view(np.int16)
    widen(halves, numbers.view(np.uint32), numbers)
    return out


def longest(vectors: NDArray[np.float32]) -> float:
    """The length of the longest vector.

    Args:
        vectors: float32 ``(n, d)``.

    Returns:
        The length, 0 when there is none.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return float(np.sqrt(squares.max(initial=0)))
