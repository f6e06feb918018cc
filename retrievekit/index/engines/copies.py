"""Stored vectors once more on a device, in float16, with a bound on what that costs.

They are scaled by a power of two, so that none is out of float16's range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.index.engines.products import UNIT, summing
from retrievekit.index.storage import Stored

if TYPE_CHECKING:
    from torch import Tensor

STAGED = 1 << 26
"""Bytes of vectors that are copied to the device at once; two such buffers alternate."""

SHARE = 0.7
"""The part of the device's free memory that vectors may take; beyond it they are streamed."""

LENGTH = 14
"""The longest vector and every query are scaled to lengths up to two to this power: float16 reaches
65,504, and what it may flush to zero, below 2**-14, is 2**-28 of that length."""

FLUSHED = 2.0**-14
TINY = 2.0**-126


class Copy:
    """Vectors on a device in float16: whole where there is room, else block by block each time.

    Args:
        parts: The segments' vectors.
        dim: Components of each.
        longest: A bound on their lengths.
        euclidean: Whether half their squared lengths are needed too.
        device: The device.
        streamed: Whether they are not to be kept there, be there room or not.
    """

    def __init__(
        self,
        parts: Sequence[Stored],
        dim: int,
        longest: float,
        euclidean: bool,
        device: str,
        streamed: bool = False,
    ) -> None:
        import torch

        self.device = torch.device(device)
        self._parts, self._dim, self._euclidean = parts, dim, euclidean
        self._scale = float(2.0 ** np.clip(LENGTH - np.frexp(longest)[1], -120, 120))
        self._longest = longest * self._scale
        self._residual = torch.zeros((), dtype=torch.float64, device=self.device)
        self._kept: list[tuple[Tensor, Tensor | None]] | None = None
        needed = sum(len(part) for part in parts) * (2 * dim + 4 * euclidean)
        if not streamed and needed <= SHARE * free_bytes(self.device):
            try:
                self._kept = self._all()
            except torch.OutOfMemoryError:
                self._kept = None

    @property
    def whole(self) -> bool:
        """Whether all vectors are kept on the device."""
        return self._kept is not None

    def blocks(self, size: int) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
        """All vectors, some at a time.

        Args:
            size: How many at most.

        Yields:
            The segment's number, its first row, float16 ``(m, d)``, and under ``euclidean`` half
            the squared lengths, float32 ``(m,)``.
        """
        if self._kept is None:
            yield from self._streamed(size)
            return
        for number, (halves, squares) in enumerate(self._kept):
            for first in range(0, len(halves), size):
                part = slice(first, first + size)
                yield number, first, halves[part], None if squares is None else squares[part]

    def queries(self, queries: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries as they are multiplied.

        Args:
            queries: float32 ``(nq, d)``.

        Returns:
            float16 ``(nq, d)``; and float64 ``(nq,)`` the lengths before rounding, those of what
            rounding took, and by how much a score is scaled.
        """
        import torch

        norms = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
        scales = np.full(len(queries), self._scale)
        if not self._euclidean:  # there all have to be scaled alike
            scales = np.ldexp(1.0, LENGTH - np.frexp(norms)[1])
        there = torch.from_numpy(scales).to(self.device)
        scaled = torch.from_numpy(queries.astype(np.float64)).to(self.device) * there[:, None]
        halves = scaled.half()
        lost = (scaled - halves.double()).norm(dim=1)
        return halves, scaled.norm(dim=1), lost, there * self._scale

    def errors(self, norms: Tensor, lost: Tensor, scales: Tensor) -> Tensor:
        """A bound on the error of an approximate score, the exact score's rounding included.

        With q and v rounded to q' and v', ``|qv - q'v'| <= |q - q'| |v| + |q'| |v - v'|`` by
        Cauchy and Schwarz; the differences were measured. `summing` bounds the error of the sum,
        and covers the rounding of the score itself. Operands below 2**-14 may be flushed to zero.

        Args:
            norms: Lengths of the scaled queries, float64 ``(nq,)``.
            lost: Lengths of what rounding took from them, float64 ``(nq,)``.
            scales: By how much a score is scaled, float64 ``(nq,)``.

        Returns:
            float64 ``(nq,)``, in the scale of the scores.
        """
        dim, longest = self._dim, self._longest
        rounded, held = norms + lost, longest + self._residual
        flushed = FLUSHED * dim**0.5
        error = lost * longest + rounded * self._residual
        error = error + summing(dim) * rounded * held
        error = error + flushed * (rounded + held + flushed)
        if self._euclidean:
            error = error + 8 * UNIT * (rounded + held) ** 2
        # Below 2**-126 scores thin out in float32, or are flushed to zero.
        bound: Tensor = error + 4 * (dim + 1) * TINY * (1 + scales)
        return bound

    def _all(self) -> list[tuple[Tensor, Tensor | None]]:
        """By segment all vectors, and half their squared lengths."""
        import torch

        def empty(*shape: int, dtype: Any) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self.device)

        kept: list[tuple[Tensor, Tensor | None]] = [
            (
                empty(len(part), self._dim, dtype=torch.float16),
                empty(len(part), dtype=torch.float32) if self._euclidean else None,
            )
            for part in self._parts
        ]
        for number, first, halves, squares in self._streamed(1 << 62):
            kept[number][0][first : first + len(halves)] = halves
            own = kept[number][1]
            if own is not None and squares is not None:
                own[first : first + len(halves)] = squares
        return kept

    def _streamed(self, size: int) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
        """As `blocks`, from what is stored."""
        import torch

        size = max(1, min(size, STAGED // (4 * self._dim)))
        places = [
            (number, first)
            for number, part in enumerate(self._parts)
            for first in range(0, len(part), size)
        ]
        arrays = (
            self._parts[number].slice(first, min(first + size, len(self._parts[number])))
            for number, first in places
        )
        there = copied(arrays, (size, self._dim), self.device)
        for (number, first), vectors in zip(places, there, strict=True):
            scaled = vectors * self._scale
            halves = scaled.half()
            wide = scaled.double()
            lost = (wide - halves.double()).norm(dim=1).max()
            self._residual = torch.maximum(self._residual, lost)
            squares = (wide.square().sum(dim=1) / 2).float() if self._euclidean else None
            yield number, first, halves, squares


def copied(
    arrays: Iterator[NDArray[np.float32]], shape: tuple[int, int], device: Any
) -> Iterator[Tensor]:
    """Arrays on a device, each copied while the one before is worked on.

    Args:
        arrays: float32 ``(m, d)``, one after another.
        shape: The largest m, and d.
        device: The device, as torch knows it.

    Yields:
        float32 ``(m, d)``, good until the next one but one is asked for.
    """
    import torch

    if device.type != "cuda":
        for array in arrays:
            yield torch.from_numpy(array.copy()).to(device)
        return
    staged = [torch.empty(shape, pin_memory=True) for _ in range(2)]
    there = [torch.empty(shape, device=device) for _ in range(2)]
    # The classes are typed, their constructors are not.
    done: list[Any] = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    working = torch.cuda.current_stream(device)
    copying.wait_stream(working)
    for number, array in enumerate(arrays):
        slot, m = number % 2, len(array)
        done[slot].synchronize()  # at once where nothing was recorded yet
        np.copyto(staged[slot].numpy()[:m], array)
        with torch.cuda.stream(copying):
            there[slot][:m].copy_(staged[slot][:m], non_blocking=True)
        working.wait_stream(copying)
        yield there[slot][:m]
        done[slot].record(working)


def free_bytes(device: Any) -> float:
    """Bytes of memory that a device has left; without bound where torch cannot tell.

    Args:
        device: The device, as torch knows it.

    Returns:
        The bytes.
    """
    import torch

    if device.type != "cuda":
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
