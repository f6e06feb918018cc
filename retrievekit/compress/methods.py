"""What a compression's name stands for: the settings of the new index, and what becomes of vectors.

Whoever has another method registers it: ``register("compress", "mine", "package.mine:plan")``, and
is then called with the index and what follows the colon in ``mine:argument``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.encode.truncated import TruncatedEncoder, truncated, truncated_card
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines.named import engine_named
from retrievekit.protocols import Encoder, EncoderCard

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Makes other vectors ``(n, dim)`` of vectors ``(n, d)``."""


def unchanged(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors as they are.

    Args:
        vectors: float32 ``(n, d)``.

    Returns:
        The same array, float32 ``(n, d)``.
    """
    return vectors


@dataclass(frozen=True)
class Plan:
    """What a new index has that its original has not.

    Args:
        engine: Its engine.
        storage: How its vectors are stored.
        dim: Components of each vector.
        card: Who encodes its documents and queries.
        change: Makes its vectors, and those of queries, of the original's.
        encoder: Makes its encoder of the original's.
    """

    engine: str
    storage: str
    dim: int
    card: EncoderCard
    change: Change = unchanged
    encoder: Callable[[Encoder], Encoder] = lambda encoder: encoder


def plan_of(method: str, index: DenseIndex) -> Plan:
    """What a method makes of an index; whatever cannot be done is refused here.

    Args:
        method: ``fp16``, ``int8``, ``int8-rescored``, ``binary``, ``matryoshka:128``, another
            registered name, or a FAISS factory string.
        index: The original.

    Returns:
        The plan.

    Raises:
        UnknownNameError: No such method.
        MissingExtraError: FAISS is not installed.
        DataError: The method cannot be had for these vectors.
    """
    name, _, argument = method.partition(":")
    if name in registry.names("compress"):
        plan: Plan = registry.resolve("compress", name)(index, argument)
    elif method == method.lower() and method not in registry.names("engine"):
        raise _unknown(method)  # factory strings of FAISS have capitals
    else:
        plan = _changed(index, engine=method)
    if plan.engine != "flat":
        try:
            engine_named(plan.engine, plan.dim, index.similarity)
        except UnknownNameError as why:
            raise _unknown(method) from why
    return plan


def _unknown(method: str) -> UnknownNameError:
    hint = "Or name an engine by a factory string of FAISS, such as 'IVF512,PQ96x4fs'."
    name = method.partition(":")[0]
    return UnknownNameError.among("compression", name, registry.names("compress"), hint)


def binary(index: DenseIndex, argument: str) -> Plan:
    """One bit per component in the first pass, the best scored again.

    Args:
        index: The original.
        argument: Nothing.

    Returns:
        The plan.
    """
    _no_argument("binary", argument)
    return _changed(index, engine="binary")


def int8(index: DenseIndex, argument: str) -> Plan:
    """Vectors of a fourth of the bytes, in calibrated ranges; the engine stays.

    Args:
        index: The original.
        argument: Nothing.

    Returns:
        The plan.
    """
    _no_argument("int8", argument)
    return _changed(index, storage="int8")


def int8_rescored(index: DenseIndex, argument: str) -> Plan:
    """One byte per component in the first pass, the best scored again from vectors as they were.

    Args:
        index: The original.
        argument: Nothing.

    Returns:
        The plan.
    """
    _no_argument("int8-rescored", argument)
    return _changed(index, engine="int8")


def fp16(index: DenseIndex, argument: str) -> Plan:
    """Vectors of half the bytes; the engine stays.

    Args:
        index: The original.
        argument: Nothing.

    Returns:
        The plan.
    """
    _no_argument("fp16", argument)
    return _changed(index, storage="float16")


def matryoshka(index: DenseIndex, argument: str) -> Plan:
    """The first components only, of length 1 again under the cosine similarity.

    Args:
        index: The original.
        argument: How many components.

    Returns:
        The plan.

    Raises:
        DataError: That is no number of components from 1 to those that there are.
    """
    if not argument.isdecimal():
        raise DataError(f"matryoshka:{argument}: say how many components to keep: matryoshka:128")
    dim, similarity = int(argument), index.similarity
    return _changed(
        index,
        dim=dim,
        card=truncated_card(index.card, index.dim, similarity, dim),
        change=lambda vectors: truncated(vectors, dim, similarity),
        encoder=lambda encoder: TruncatedEncoder(encoder, dim),
    )


def _no_argument(name: str, argument: str) -> None:
    if argument:
        raise DataError(f"{name}:{argument}: {name} takes nothing behind a colon")


def _changed(index: DenseIndex, **changes: Any) -> Plan:
    return replace(Plan(index.engine, index.storage, index.dim, index.card), **changes)
