"""Stored vectors once more in bfloat16, for a fast pass whose error is known.

Processors with AMX or AVX512-BF16 multiply bfloat16 matrices several times as fast as float32 ones
and sum in float32. The copy is made in memory when an index is asked so much that it pays, on
processors that were seen to gain by it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.index.storage import Stored

SLACK = 1.02 * 2.0**-7
"""What rounding scores to bfloat16 costs at most, as a part of the score: twice its unit 2**-8, the
second time for the floor, which is farther from 0 by no more than the spare part."""

ASKED = 128
"""Queries after which the copy is made: by then it costs less than it has already spared."""

LEAST = 4096
"""Documents below which the copy does not pay."""

SHARE = 1 / 8
"""The part of the machine's memory that the copy may take."""

ROUNDED_AT_A_TIME = 1 << 14
"""Vectors that are rounded at once."""

LARGEST = 1e37
"""Norms and products beyond this stay with float32: rounded, they might be infinite."""


@functools.cache
def faster() -> bool:
    """Whether this processor multiplies bfloat16 matrices clearly faster, by a short trial."""
    import torch

    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        documents = torch.ones(2048, 256, dtype=dtype)
        queries = torch.ones(256, 64, dtype=dtype)
        out = torch.empty(2048, 64, dtype=dtype)
        torch.mm(documents, queries, out=out)
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            torch.mm(documents, queries, out=out)
            best = min(best, time.perf_counter() - start)
        seconds[dtype] = best
    return 1.5 * seconds[torch.bfloat16] < seconds[torch.float32]


def room(n_bytes: int) -> bool:
    """Whether a copy of so many bytes may be held.

    Args:
        n_bytes: The bytes.

    Returns:
        Whether they are a small part of this machine's memory, as far as it can be known.
    """
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return False
    return n_bytes <= SHARE * memory


class Halves:
    """The bfloat16 copy of an index's segments.

    Args:
        parts: The segments' vectors.
        dim: Components of each.
    """

    def __init__(self, parts: Sequence[Stored], dim: int) -> None:
        import torch

        from retrievekit.kernels.widths import to_bfloat16

        self.residual = 0.0
        self._parts: list[Any] = []
        for stored in parts:
            bits = np.empty((len(stored), dim), np.int16)
            for first in range(0, len(bits), ROUNDED_AT_A_TIME):
                part = slice(first, min(first + ROUNDED_AT_A_TIME, len(bits)))
                lost = to_bfloat16(stored.slice(part.start, part.stop), bits[part])
                self.residual = max(self.residual, lost)
            self._parts.append(torch.from_numpy(bits).view(torch.bfloat16))

    def queries(self, queries: NDArray[np.float32]) -> tuple[Any, NDArray[np.float64]]:
        """Queries as they are multiplied, and what rounding took from them.

        Args:
            queries: float32 ``(nq, d)``.

        Returns:
            A bfloat16 tensor ``(d, nq)``, and the norm of each query's difference, float64
            ``(nq,)``.
        """
        import torch

        from retrievekit.kernels.widths import to_bfloat16

        bits = np.empty(queries.shape, np.int16)
        lost = np.array(
            [to_bfloat16(queries[q : q + 1], bits[q : q + 1]) for q in range(len(bits))]
        )
        return torch.from_numpy(bits).view(torch.bfloat16).T.contiguous(), lost

    def block(self, segment: int, first: int, last: int, queries: Any) -> NDArray[np.int16]:
        """Approximate inner products of some rows.

        Args:
            segment: The segment's number.
            first: First row.
            last: Row after the last.
            queries: What `queries` gave.

        Returns:
            int16 ``(last - first, nq)``, the bits of bfloat16.
        """
        import torch

        product = torch.mm(self._parts[segment][first:last], queries)
        bits: NDArray[np.int16] = product.view(torch.int16).numpy()
        return bits

    def errors(
        self, norms: NDArray[np.float64], lost: NDArray[np.float64], largest: float, dim: int
    ) -> NDArray[np.float64]:
        """A bound on the error of an approximate score, its rounding to bfloat16 left out.

        With q and v rounded to q' and v', ``|qv - q'v'| <= |q - q'| |v| + |q'| |v - v'|`` by
        Cauchy and Schwarz; the differences were measured, not estimated. Products of bfloat16 are
        exact in float32; their float32 sum errs by at most ``d * 2**-24 * |q'| * |v'|`` in any
        order (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1). What lies below
        2**-126 may be flushed to zero, in the operands and in each operation.

        Args:
            norms: Norms of the queries, float64 ``(nq,)``.
            lost: Norms of their differences, float64 ``(nq,)``.
            largest: Norm of the longest vector.
            dim: Components of each vector.

        Returns:
            float64 ``(nq,)``.
        """
        unit, least = 2.0**-24, 2.0**-126
        rounded, longest = norms + lost, largest + self.residual
        error = lost * largest + rounded * self.residual
        error += (dim + 4) * unit * rounded * longest
        error += (np.sqrt(dim) * (rounded + longest) + 2 * dim) * least
        return error
