"""Signs instead of numbers: a first pass over one bit per component, 32 times smaller.

The Hamming distance of two sign patterns grows with the angle between the vectors (Charikar,
"Similarity estimation techniques from rounding algorithms", STOC 2002), so the nearest by signs
hold the nearest, if enough of them are scored again from the stored vectors. Signs say nothing of
lengths: where these decide, under ``dot`` and ``euclidean``, more must be scored again, and the
recall that was noted tells how it went.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retrievekit.index.results import in_parts
from retrievekit.protocols import Proposer, Similarity

WORD = 64

LEAST = 100
"""Candidates of a query, however few hits are wanted: the nearest one is seldom first by signs."""

PACKED_AT_A_TIME = 1 << 14
"""Vectors whose signs are packed at once."""

SPARE = 64
"""Candidates of a query, beyond twice those wanted, before what is too far is dropped."""

HELD = 1 << 24
"""Candidates of all queries together: 128 MiB."""


class BinaryEngine:
    """One bit per component, the whole scanned.

    Args:
        dim: Components of each vector.
        similarity: How vectors are compared.
    """

    name = "binary"

    def __init__(self, dim: int, similarity: Similarity) -> None:
        self.dim = dim
        self.similarity: Similarity = similarity

    def trained(self, vectors: NDArray[np.float32]) -> bytes:
        """Nothing is learnt of float32 ``(n, dim)``."""
        return b""

    def built(self, vectors: NDArray[np.float32], trained: bytes | memoryview) -> bytes:
        """The signs of a segment's vectors.

        Args:
            vectors: float32 ``(n, dim)``, possibly mapped.
            trained: Nothing.

        Returns:
            For each vector little-endian words of 64 bits, the first component in the lowest bit.
        """
        parts = (
            signs(np.asarray(vectors[first : first + PACKED_AT_A_TIME]))
            for first in range(0, len(vectors), PACKED_AT_A_TIME)
        )
        return b"".join(part.astype("<u8", copy=False).tobytes() for part in parts)

    def opened(self, data: memoryview) -> Proposer:
        """A native file, opened.

        Args:
            data: Its bytes, their checksums compared.

        Returns:
            What searches it.
        """
        codes = np.frombuffer(data, "<u8").reshape(-1, words_of(self.dim))
        return BinarySegment(codes.astype(np.uint64, copy=False), self.similarity)

    def emptied(self, data: memoryview) -> bytes:
        """What had been learnt: nothing."""
        return b""


def words_of(dim: int) -> int:
    """Words of 64 bits that hold so many signs.

    Args:
        dim: Components.

    Returns:
        At least 1.
    """
    return -(-dim // WORD)


def signs(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Which components are above 0.

    Args:
        vectors: float32 ``(n, dim)``.

    Returns:
        uint64 ``(n, words)``, the first component in the lowest bit.
    """
    from retrievekit.kernels.hamming import pack_signs

    codes = np.empty((len(vectors), words_of(vectors.shape[1])), np.uint64)
    pack_signs(np.ascontiguousarray(vectors), codes)
    return codes


class BinarySegment:
    """The signs of a segment, scanned by Hamming distance.

    Args:
        codes: uint64 ``(n, words)``.
        similarity: How vectors are compared.
    """

    def __init__(self, codes: NDArray[np.uint64], similarity: Similarity) -> None:
        self.codes = codes
        self.similarity = similarity

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        options: Mapping[str, int],
        threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows whose signs differ least from each query's, of equals the first, in row order.

        Args:
            queries: float32 ``(nq, dim)``.
            k: How many rows to look for, `LEAST` at least.
            allowed: bool ``(documents,)`` of rows that may be found, or None for all.
            options: None are this engine's own.
            threads: Threads to use; all cores by default.

        Returns:
            Rows, int64 ``(nq, m)``, -1 for none; and distances, float32 ``(nq, m)``, negative
            unless smaller is better, as under ``euclidean``.
        """
        from retrievekit.kernels.hamming import LANES, nearest

        nq, m = len(queries), min(max(k, LEAST), len(self.codes))
        rows = np.full((nq, m), -1, np.int64)
        distances = np.zeros((nq, m), np.float32)
        if not rows.size:
            return rows, distances
        room = 2 * m + SPARE
        visible = np.zeros(0, bool) if allowed is None else allowed
        step = max(1, HELD // (room * LANES)) * LANES
        for start in range(0, nq, step):
            part = slice(start, min(start + step, nq))
            lanes = _lanes(signs(queries[part]), LANES)
            found = np.empty((len(lanes) * LANES, room), np.uint64)
            counts = np.empty(len(found), np.int64)

            def work(
                a: int,
                b: int,
                lanes: NDArray[np.uint64] = lanes,
                found: NDArray[np.uint64] = found,
                counts: NDArray[np.int64] = counts,
            ) -> None:
                own = slice(a * LANES, b * LANES)
                nearest(lanes[a:b], self.codes, visible, found[own], counts[own], m)

            in_parts(work, len(lanes), threads)
            size = part.stop - part.start
            inside = np.arange(m) < counts[:size, None]
            best = found[:size, :m]
            rows[part] = np.where(inside, (best & np.uint64(0xFFFFFFFF)).astype(np.int64), -1)
            distances[part] = np.where(inside, (best >> np.uint64(32)).astype(np.float32), 0)
        return rows, distances if self.similarity == "euclidean" else -distances


def _lanes(codes: NDArray[np.uint64], lanes: int) -> NDArray[np.uint64]:
    """Codes ``(nq, words)`` in groups ``(groups, words, lanes)``, filled up with zeros."""
    groups = -(-len(codes) // lanes)
    padded = np.zeros((groups * lanes, codes.shape[1]), np.uint64)
    padded[: len(codes)] = codes
    return np.ascontiguousarray(padded.reshape(groups, lanes, -1).transpose(0, 2, 1))
