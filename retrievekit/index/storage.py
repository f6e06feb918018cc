"""How wide the numbers of stored vectors are: float32, or float16 at half the bytes.

An index answers for the vectors that it stores. With float16 they are rounded once, when they are
written; after that all arithmetic is that of float32 storage, and as exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import NonFiniteError, UnknownNameError

STORAGES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
}
"""Element types by what they are called."""


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


def rounded(
    vectors: NDArray[np.float32], dtype: np.dtype[Any], name: Callable[[int], str]
) -> NDArray[Any]:
    """Vectors as they are stored.

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


def widened(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Stored vectors as float32, which holds them exactly.

    Args:
        vectors: ``(n, d)`` of any storage's dtype.

    Returns:
        float32 ``(n, d)``; the same array where it is that already.
    """
    if vectors.dtype != np.float16:
        return vectors
    from retrievekit.kernels.dense import widen  # many times as fast as NumPy's conversion

    out = np.empty(vectors.shape, np.float32)
    numbers = out.reshape(-1)
    halves = np.ascontiguousarray(vectors).reshape(-1).view(np.int16)
    widen(halves, numbers.view(np.uint32), numbers)
    return out


def for_kernels(vectors: NDArray[Any]) -> NDArray[Any]:
    """Stored vectors as kernels take them, who know no float16.

    Args:
        vectors: ``(n, d)`` of any storage's dtype.

    Returns:
        float32 ``(n, d)``, or int16, the bits of float16; the same memory.
    """
    return vectors.view(np.int16) if vectors.dtype == np.float16 else vectors
