"""The backends, and the reasoned choice among those that a machine has.

A candidate is measured against torch in float32 on texts of real length. It may be chosen only if
its vectors point where those of float32 do (cosine: median at least `MEDIAN`, minimum at least
`MINIMUM`) and are as long (within `LENGTH`), and only if it saves at least a tenth of the time of
what is chosen without it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.batches import Dtype
from retrievekit.errors import DataError, MissingExtraError

Backend = Literal["torch", "openvino", "onnx", "auto"]
Runtime = Literal["torch", "openvino", "onnx"]

BACKENDS = ("torch", "openvino", "onnx", "auto")

MEDIAN = 0.9999
MINIMUM = 0.9995
LENGTH = 0.01
FASTER = 0.9

_NEEDS: dict[str, tuple[str, ...]] = {"openvino": ("openvino",), "onnx": ("onnxruntime", "onnx")}


@dataclass(frozen=True)
class Choice:
    """What computes, and in which numbers.

    Args:
        backend: ``torch``, ``openvino`` or ``onnx``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
    """

    backend: Runtime
    dtype: Dtype

    def __str__(self) -> str:
        """Both in words."""
        return f"{self.backend} {self.dtype}"


REFERENCE = Choice("torch", "float32")


@dataclass(frozen=True)
class Fidelity:
    """How near vectors are to those of float32.

    Args:
        median: Median cosine over the texts.
        minimum: Smallest cosine.
        length: Largest relative difference of two lengths.
    """

    median: float
    minimum: float
    length: float

    @property
    def enough(self) -> bool:
        """Whether a ranking by these vectors is that of float32 for all practical purposes."""
        return self.median >= MEDIAN and self.minimum >= MINIMUM and self.length <= LENGTH


@dataclass(frozen=True)
class Measured:
    """One candidate and what was found.

    Args:
        choice: The candidate.
        seconds: For all texts of the probe.
        fidelity: To float32.
    """

    choice: Choice
    seconds: float
    fidelity: Fidelity

    def __str__(self) -> str:
        """All of it in words."""
        near = self.fidelity
        return (
            f"{self.choice} {self.seconds:.2f} s (cosine to float32: median {near.median:.5f}, "
            f"least {near.minimum:.5f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return dataclasses.asdict(self)


def check_backend(backend: str, dtype: Dtype | None, devices: Sequence[str | None]) -> None:
    """Refuse combinations that no machine has.

    Args:
        backend: One of `BACKENDS`.
        dtype: The dtype asked for, or None.
        devices: The devices asked for; None stands for the best there is.

    Raises:
        DataError: There is no such backend, or it does not compute so.
    """
    if backend not in BACKENDS:
        raise DataError(f"no backend {backend!r}; known: {', '.join(BACKENDS)}")
    if backend == "onnx" and dtype not in (None, "float32"):
        raise DataError(f"backend 'onnx' computes in float32 only; got dtype {dtype!r}")
    if backend in _NEEDS and tuple(devices) not in ((None,), ("cpu",)):
        where = ", ".join(map(repr, devices))
        raise DataError(f"backend {backend!r} computes on one CPU; on {where} use 'torch'")


def check_installed(backend: Runtime) -> None:
    """Refuse a backend whose package is missing.

    Args:
        backend: The backend.

    Raises:
        MissingExtraError: It is not installed.
    """
    for module in _NEEDS.get(backend, ()):
        if not _there(module):
            raise MissingExtraError(backend, module, f"backend={backend!r}")


def installed() -> tuple[Runtime, ...]:
    """The backends whose packages are there; torch always is."""
    others: tuple[Runtime, ...] = ("openvino", "onnx")
    return ("torch", *(name for name in others if all(map(_there, _NEEDS[name]))))


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def candidates(
    device: str, *, bfloat16: bool, runtimes: Sequence[Runtime], dtype: Dtype | None
) -> list[Choice]:
    """What may be tried on a machine, the plainest first.

    Args:
        device: The device that computes.
        bfloat16: Whether it computes in bfloat16 itself.
        runtimes: The backends that are there.
        dtype: The only dtype to try; None for all.

    Returns:
        The candidates, torch in float32 among them unless another dtype is asked for.
    """
    cpu, cuda = device == "cpu", device.startswith("cuda")
    found = [REFERENCE]
    if cuda:
        found.append(Choice("torch", "float16"))
    if bfloat16:
        found.append(Choice("torch", "bfloat16"))
    if cpu and "onnx" in runtimes:
        found.append(Choice("onnx", "float32"))
    if cpu and "openvino" in runtimes:
        found.append(Choice("openvino", "float32"))
        if bfloat16:
            found.append(Choice("openvino", "bfloat16"))
    if dtype is None:
        return found
    return [one for one in found if one.dtype == dtype] or [Choice("torch", dtype)]


def fidelity(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> Fidelity:
    """How near vectors are to a reference, row by row.

    Args:
        vectors: float32 ``(n, dim)``, at least one.
        reference: float32 ``(n, dim)``.

    Returns:
        The fidelity; a row that is not finite, or zero in one of the two only, has cosine 0.
    """
    with np.errstate(all="ignore"):
        a, b = vectors.astype(np.float64), reference.astype(np.float64)
        lengths, wanted = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        cosine = np.einsum("ij,ij->i", a, b) / (lengths * wanted)
        apart = np.abs(lengths - wanted) / wanted
    both = (lengths == 0) & (wanted == 0)
    cosine = np.where(both, 1.0, np.where(np.isfinite(cosine), cosine, 0.0))
    apart = np.where(both, 0.0, np.where(np.isfinite(apart), apart, 1.0))
    return Fidelity(float(np.median(cosine)), float(cosine.min()), float(apart.max()))


def choose(measured: Sequence[Measured]) -> Choice:
    """The fastest of those that are faithful; a later one must save a tenth of the time.

    Args:
        measured: What was found, the plainest first.

    Returns:
        The choice; torch in float32 where none is faithful.
    """
    best: Measured | None = None
    for one in measured:
        if one.fidelity.enough and (best is None or one.seconds < FASTER * best.seconds):
            best = one
    return REFERENCE if best is None else best.choice


def probe(
    names: Sequence[Choice],
    encode: Callable[[Choice], Callable[[], NDArray[np.float32]] | None],
    clock: Callable[[], float],
    rounds: int = 2,
) -> list[Measured]:
    """Measure candidates on the same texts: one round to warm up, then the best of some.

    Args:
        names: The candidates.
        encode: Loads a candidate and gives what encodes the texts, float32 ``(n, dim)``; None where
            it cannot be had.
        clock: Tells the time in seconds.
        rounds: Timed rounds.

    Returns:
        What was found, in the order given.

    Raises:
        DataError: Torch in float32 cannot be had.
    """
    warm = encode(REFERENCE)
    if warm is None:
        raise DataError("torch in float32 is the reference, and cannot be had")
    reference = warm()
    found = []
    for name in names:
        run = warm if name == REFERENCE else encode(name)
        if run is None:
            continue
        vectors, times = run(), []
        for _ in range(rounds):
            start = clock()
            run()
            times.append(clock() - start)
        found.append(Measured(name, min(times), fidelity(vectors, reference)))
    return found
