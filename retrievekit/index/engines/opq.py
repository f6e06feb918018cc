"""Rotations that FAISS learns for product quantisation (OPQ), which take long: it is said how long.

Ge, He, Ke and Sun, "Optimized Product Quantization" (TPAMI 2014): rotation and codebooks are
learnt in turns, 50 times over.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

PROBED = 2048
"""Vectors of the trial that tells the time."""

LONG = 20.0
"""Seconds from which it is told."""


def prepare(faiss: Any, transform: Any, engine: str, vectors: int) -> Any:
    """Have a rotation that is to be learnt say how long that takes, and nothing else.

    Args:
        faiss: The module FAISS.
        transform: FAISS's transform; only an untrained OPQ is looked at.
        engine: The engine, for the message.
        vectors: On how many it will be trained.

    Returns:
        What the transform points to and FAISS does not hold: to be held until it is trained.
    """
    if not isinstance(transform, faiss.OPQMatrix) or transform.is_trained:
        return None
    # FAISS would print on every round that there are few vectors, which is logged here once.
    transform.pq = codebooks = faiss.ProductQuantizer(transform.d_out, transform.M, 8)
    codebooks.cp.min_points_per_centroid = 1
    trained_on = min(vectors, transform.max_train_points)
    if trained_on < 256:
        return codebooks  # FAISS will refuse
    seconds = _expected(faiss, transform, trained_on)
    if seconds >= LONG:
        log.warning(
            "engine %r learns a rotation (OPQ) from %d vectors first, which takes about %s here; "
            "without OPQ training takes a small part of that",
            engine, trained_on, _told(seconds),
        )  # fmt: skip
    return codebooks


def _expected(faiss: Any, transform: Any, vectors: int) -> float:
    """Seconds that training takes: those of one round on a few vectors, times all of them."""
    probe = faiss.OPQMatrix(transform.d_in, transform.M, transform.d_out)
    probe.pq = codebooks = faiss.ProductQuantizer(transform.d_out, transform.M, 8)
    codebooks.cp.min_points_per_centroid = 1
    probe.niter = probe.niter_pq_0 = 1
    n = min(vectors, PROBED)
    some = np.random.default_rng(0).standard_normal((n, transform.d_in)).astype(np.float32)
    start = time.perf_counter()
    probe.train(some)
    rounds = transform.niter_pq_0 + (transform.niter - 1) * transform.niter_pq
    return (time.perf_counter() - start) * float(rounds) * vectors / n


def _told(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
