"""Inner products of float16 on a device: their bound, and the largest of them."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

CHUNK = 32
"""Neighbouring scores that are compared by their largest first."""

UNIT = 2.0**-24


def summing(dim: int) -> float:
    """A bound on the error of an inner product, as a part of the product of the lengths.

    Products of float16 are exact in float32. Matrix units add blocks of w >= 4 of them to the sum
    at once, aligned to the largest and cut off: at most w + 2 errors of 2**-23 of what the
    magnitudes add up to, ``d / w + 1`` times (Fasi, Higham, Mikaitis and Pranesh, "Numerical
    behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330, 2021). This is more than that,
    and more than float32 sums in any order err.

    Args:
        dim: Terms of the sum.

    Returns:
        The bound.
    """
    return 4 * (dim + 32) * UNIT


def product(queries: Tensor, vectors: Tensor) -> Tensor:
    """Inner products, summed and given in float32.

    Where torch cannot give float32 of float16, or may sum in float16, the factors are widened
    before. TF32 does no harm to them then: it holds every float16 number exactly.

    Args:
        queries: float16 ``(nq, d)``.
        vectors: float16 ``(m, d)``.

    Returns:
        float32 ``(nq, m)``.
    """
    import torch

    known: Any = torch.ops.aten.mm
    narrow = getattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", False)
    if queries.device.type == "cuda" and "dtype" in known.overloads() and not narrow:
        return torch.mm(queries, vectors.T, out_dtype=torch.float32)
    return torch.mm(queries.float(), vectors.float().T)


def largest(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest scores of each query, in any order.

    The n largest lie in the n chunks of neighbours whose largest are largest; so all scores are
    read once only.

    Args:
        scores: float32 ``(nq, m)``.
        n: How many; all where there are no more.

    Returns:
        float32 and their places, int64 ``(nq, min(n, m))``.
    """
    nq, m = scores.shape
    n = min(n, m)
    if m % CHUNK or m < 4 * n * CHUNK:
        values, places = scores.topk(n, dim=1, sorted=False)
        return values, places
    chunks = scores.view(nq, m // CHUNK, CHUNK)
    chosen = chunks.amax(dim=2).topk(n, dim=1, sorted=False).indices
    inside = chunks.gather(1, chosen[:, :, None].expand(-1, -1, CHUNK)).view(nq, n * CHUNK)
    values, places = inside.topk(n, dim=1, sorted=False)
    return values, chosen.gather(1, places // CHUNK) * CHUNK + places % CHUNK


@functools.cache
def trusted(device: str) -> bool:
    """Whether products on a device err no more than `Copy.errors` says, by a trial.

    The factors use every bit of float16: narrower ones, or narrower sums, are found out.

    Args:
        device: The device.

    Returns:
        Whether they do; where not, it is said aloud.
    """
    import torch

    rng, dim = np.random.default_rng(20261121), 64
    factors = [
        (1 + rng.integers(0, 1024, (n, dim)) / 1024) * rng.choice([-1, 1], (n, dim))
        for n in (48, 512)
    ]
    there = [torch.from_numpy(part).half().to(device) for part in factors]
    wrong = np.abs(product(*there).cpu().numpy() - factors[0] @ factors[1].T)
    lengths = [np.linalg.norm(part, axis=1) for part in factors]
    bound = summing(dim) * lengths[0][:, None] * lengths[1]
    if bool((wrong <= bound).all()):
        return True
    log.warning(
        "%s multiplies less exactly than float32 sums of float16 products are: it is not used, the "
        "processor searches", device
    )  # fmt: skip
    return False
