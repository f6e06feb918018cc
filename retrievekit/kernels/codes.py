"""Inner products of queries with vectors of one byte per component."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrievekit.kernels.compiling import reordered


@reordered
def code_scores(
    queries: NDArray[np.float32], codes: NDArray[np.int8], scores: NDArray[np.float32]
) -> None:
    """Score some rows for a few queries, without a copy of the rows in a wider type.

    Args:
        queries: float32 ``(nq, d)``.
        codes: int8 ``(n, d)``.
        scores: float32 ``(n, nq)``, written.
    """
    for row in range(len(codes)):
        for q in range(len(queries)):
            total = np.float32(0)
            for i in range(codes.shape[1]):
                total += queries[q, i] * np.float32(codes[row, i])
            scores[row, q] = total
