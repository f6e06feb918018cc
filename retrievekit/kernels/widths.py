"""Numbers of other widths: float32 to bfloat16, and stored numbers back to float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import compiled


@compiled
def to_bfloat16(vectors: NDArray[np.float32], halves: NDArray[np.int16]) -> float:
    """Round float32 to bfloat16, to the nearest, ties to even.

    Args:
        vectors: Finite float32 ``(n, d)``.
        halves: int16 ``(n, d)``, the bits of the result, written.

    Returns:
        The largest Euclidean norm of a row of differences, exact to a few units of float64.
    """
    bits = vectors.view(np.uint32)
    back = np.empty(vectors.shape[1], np.uint32)
    floats = back.view(np.float32)
    largest = 0.0
    for row in range(len(vectors)):
        for i in range(vectors.shape[1]):
            b = bits[row, i]
            b = np.uint32(b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1)))
            b = np.uint32(b >> np.uint32(16))
            halves[row, i] = np.int16(b)
            back[i] = np.uint32(b << np.uint32(16))
        squares = 0.0
        for i in range(vectors.shape[1]):
            difference = np.float64(vectors[row, i]) - np.float64(floats[i])
            squares += difference * difference
        largest = max(largest, squares)
    return float(np.sqrt(largest))


@compiled
def widen(halves: NDArray[np.int16], bits: NDArray[np.uint32], floats: NDArray[np.float32]) -> None:
    """Write float16 as float32, exactly.

    Exponent and fraction are moved to their places, which leaves the number 2**112 too small, for
    the exponents' biases differ by 112; multiplying makes up for that, for subnormal numbers too.

    Args:
        halves: int16 ``(d,)``, the bits of finite float16.
        bits: uint32 ``(d,)``, written.
        floats: The same as float32 ``(d,)``.
    """
    for i in range(len(halves)):
        half = np.uint32(halves[i])
        magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
        bits[i] = magnitude | np.uint32((half & np.uint32(0x8000)) << np.uint32(16))
    for i in range(len(halves)):
        floats[i] *= np.float32(2.0**112)


@compiled
def widen_codes(
    codes: NDArray[np.int8], steps: NDArray[np.float32], floats: NDArray[np.float32]
) -> None:
    """Write what codes stand for: each one's number of steps, rounded once.

    Args:
        codes: int8 ``(n, d)``.
        steps: float32 ``(d,)``.
        floats: float32 ``(n, d)``, written.
    """
    for row in range(len(codes)):
        for i in range(codes.shape[1]):
            floats[row, i] = np.float32(codes[row, i]) * steps[i]


@compiled
def widen_row(
    stored: NDArray[Any],
    steps: NDArray[np.float32],
    bits: NDArray[np.uint32],
    floats: NDArray[np.float32],
) -> None:
    """Write one stored vector as float32.

    Args:
        stored: ``(d,)``: int16, the bits of float16; or int8, numbers of steps.
        steps: float32 ``(d,)`` for int8.
        bits: uint32 ``(d,)``, written.
        floats: The same as float32 ``(d,)``.
    """
    if stored.itemsize == 2:
        widen(stored, bits, floats)
    else:
        for i in range(len(stored)):
            floats[i] = np.float32(stored[i]) * steps[i]
