"""What vectors and weighted terms refuse: nothing is cast, cut or read beyond its end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrievekit.arrow import string_array
from retrievekit.errors import DataError, NonFiniteError
from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.array([["1.5"]]), "dense vectors are of dtype <U3, but should be real numbers"),
        (np.array([[1j]]), "dtype complex128"),
        (np.array([[True]]), "dtype bool"),
        (np.array([[None]]), "dtype object"),
        ([[1.0, 2.0], [3.0]], "no array of numbers"),
        (np.array([1.0, 2.0]), r"have shape \(n, d\); got \(2,\)"),
    ],
)
def test_dense_vectors_are_numbers(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        DenseVectors(given)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_dense_vectors_are_finite_as_float32(bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"vector 1 holds .* at component 2"):
        DenseVectors(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, bad]]))


def test_other_floats_and_integers_become_float32() -> None:
    for kind in (np.float16, np.float64, np.int8):
        assert DenseVectors(np.ones((2, 3), kind)).array.dtype == np.float32
    assert DenseVectors(np.ones((0, 3))).dim == 3


@pytest.mark.parametrize(
    ("offsets", "columns", "values"),
    [
        ([], [], []),
        ([1, 1], [], []),
        ([0, 5, 1], [0], [1.5]),
        ([0, 1], [0], [1.5, 2.0]),
        ([0, 1], [3], [1.5]),
        ([0, 1], [0.5], [1.5]),
        ([0, 1], [0], ["x"]),
    ],
)
def test_sparse_vectors_fit_together(offsets: Any, columns: Any, values: Any) -> None:
    with pytest.raises(DataError):
        SparseVectors(np.array(offsets, np.int64), np.array(columns), np.array(values), 3)


def test_weighted_terms_fit_together() -> None:
    terms = string_array(["a"])
    for offsets, weights in (([0, 3], [1.0]), ([0, 1], [1.0, 2.0]), ([1, 1], [1.0])):
        with pytest.raises(DataError, match="offsets"):
            WeightedTerms(np.array(offsets), terms, np.array(weights, np.float32))
    with pytest.raises(DataError, match="term weights are of dtype"):
        WeightedTerms.from_dicts([{"a": "1.5"}])  # type: ignore[dict-item]
    with pytest.raises(DataError, match="lone surrogate"):
        WeightedTerms.from_dicts([{"a": 1.5, "b\ud800": 1.0}])
    with pytest.raises(NonFiniteError, match="term weight 0"):
        WeightedTerms.from_dicts([{"a": 1e39}])
