"""Term weights as integers, and how far that is from what they were.

With `levels` a weight w becomes ``round(levels * w)``, a step that depends on no data, so that no
history of updates shows in it; ``levels=100`` is what Anserini stores. Without, the 32 bits of the
float are the integer, and nothing is lost.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError

LEVELS = 4096
"""Levels per unit of weight unless told otherwise: an error of at most 1/8192."""

_MOST = 1 << 31


@dataclass(frozen=True)
class Quantisation:
    """What became of the weights of an index, of all that were ever written into it.

    Args:
        weights: Weights above 0 that came in.
        dropped: How many of them were below half a step and are not kept.
        largest: The largest that came in.
        max_error: The largest difference between a weight and what is kept of it.
        error_sum: The sum of all such differences.
    """

    weights: int = 0
    dropped: int = 0
    largest: float = 0.0
    max_error: float = 0.0
    error_sum: float = 0.0

    @property
    def mean_error(self) -> float:
        """The mean difference between a weight and what is kept of it; 0 without weights."""
        return self.error_sum / self.weights if self.weights else 0.0

    def __add__(self, other: Quantisation) -> Quantisation:
        """The weights of both."""
        return Quantisation(
            self.weights + other.weights,
            self.dropped + other.dropped,
            max(self.largest, other.largest),
            max(self.max_error, other.max_error),
            self.error_sum + other.error_sum,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Rebuild from plain JSON.

        Args:
            fields: What `to_dict` gave.

        Returns:
            The counts.
        """
        return cls(**fields)


def check_levels(levels: float | None) -> float | None:
    """Raise when weights cannot be cut into so many levels.

    Args:
        levels: Levels per unit of weight, or None for exact weights.

    Returns:
        The same as a float.

    Raises:
        DataError: It is no finite number above 0.
    """
    if levels is None:
        return None
    if isinstance(levels, bool) or not isinstance(levels, int | float) or not 0 < levels < _MOST:
        raise DataError(f"levels is {levels!r}; give levels per unit of weight, or None for exact")
    return float(levels)


def to_integers(
    weights: NDArray[np.float32], levels: float | None
) -> tuple[NDArray[np.int64], Quantisation]:
    """Weights as integers.

    Args:
        weights: float32 ``(nnz,)``, finite and none below 0.
        levels: Levels per unit of weight, or None for exact.

    Returns:
        int64 ``(nnz,)``, 0 for what is not kept, and what became of the weights.

    Raises:
        DataError: A weight is too large for the levels.
    """
    counted = int((weights > 0).sum())
    top = float(weights.max(initial=0.0))
    if levels is None:
        # Patterns of floats above 0 are integers above 0; -0.0, of which none is left, is not.
        bits = np.where(weights > 0, weights, np.float32(0)).astype(np.float32).view(np.uint32)
        return bits.astype(np.int64), Quantisation(counted, 0, top)
    if top * levels >= _MOST:
        raise DataError(
            f"a weight of {top:g} has more than {_MOST:,} levels of 1/{levels:g}; give fewer "
            "levels, or levels=None for exact weights"
        )
    integers = np.rint(weights.astype(np.float64) * levels).astype(np.int64)
    errors = np.abs(to_weights(integers, levels).astype(np.float64) - weights)
    dropped = int(((integers == 0) & (weights > 0)).sum())
    return integers, Quantisation(
        counted, dropped, top, float(errors.max(initial=0.0)), float(errors.sum())
    )


def to_weights(integers: NDArray[np.int64], levels: float | None) -> NDArray[np.float32]:
    """The weights that integers stand for.

    Args:
        integers: int64 ``(nnz,)``.
        levels: Levels per unit of weight, or None for exact.

    Returns:
        float32 ``(nnz,)``.
    """
    if levels is None:
        return integers.astype(np.uint32).view(np.float32)
    return (integers / levels).astype(np.float32)
