"""One byte per component: a first pass over a quarter of the bytes, close enough to trust.

Each component has a range of its own, symmetric about 0 and calibrated on the vectors that were
there first; what lies beyond is cut off. Queries stay as they are: their components are multiplied
by the ranges once, so that a code times a query's component is its share of the inner product.
Codes are whole numbers up to 127, which bfloat16 holds exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.index.engines import halves
from retrievekit.index.results import in_parts
from retrievekit.protocols import Proposer, Similarity

LEVELS = 127

CALIBRATED_ON = 1 << 16
"""Vectors that are sampled for the ranges."""

SEED = 20261121

ROWS_AT_A_TIME = 1 << 12
"""Vectors that are decoded at once."""

QUERIES_AT_A_TIME = 256

FEW = 4
"""Up to so many queries at once codes are multiplied as they are; decoding would cost more."""

SPARE = 4096
"""Candidates of a query, beyond twice those wanted, that may have equal scores."""


class Int8Engine:
    """One signed byte per component, the whole scanned.

    Args:
        dim: Components of each vector.
        similarity: How vectors are compared.
    """

    name = "int8"

    def __init__(self, dim: int, similarity: Similarity) -> None:
        self.dim = dim
        self.similarity: Similarity = similarity

    def trained(self, vectors: NDArray[np.float32]) -> bytes:
        """How much of each component one step of its code is worth.

        Args:
            vectors: float32 ``(n, dim)``, possibly mapped; a sample is looked at.

        Returns:
            float32 ``(dim,)``, little-endian.
        """
        sample = vectors
        if len(vectors) > CALIBRATED_ON:
            rows = np.random.default_rng(SEED).choice(len(vectors), CALIBRATED_ON, replace=False)
            sample = vectors[np.sort(rows)]
        steps = np.abs(sample).max(axis=0) / np.float32(LEVELS)
        steps[steps < np.finfo(np.float32).tiny] = 1  # never seen to be anything but 0
        data: bytes = steps.astype("<f4").tobytes()
        return data

    def built(self, vectors: NDArray[np.float32], trained: bytes | memoryview) -> bytes:
        """The steps, and the codes of a segment's vectors.

        Args:
            vectors: float32 ``(n, dim)``, possibly mapped.
            trained: What `trained` gave, of these vectors or others.

        Returns:
            The file.
        """
        steps = np.frombuffer(trained, "<f4")
        parts = [bytes(trained)]
        for first in range(0, len(vectors), ROWS_AT_A_TIME):
            with np.errstate(over="ignore"):  # what is far beyond the range is cut off as well
                codes = np.rint(vectors[first : first + ROWS_AT_A_TIME] / steps)
            parts.append(np.clip(codes, -LEVELS, LEVELS).astype(np.int8).tobytes())
        return b"".join(parts)

    def opened(self, data: memoryview) -> Proposer:
        """A native file, opened.

        Args:
            data: Its bytes, their checksums compared.

        Returns:
            What searches it.
        """
        steps = np.frombuffer(data[: 4 * self.dim], "<f4").astype(np.float32)
        codes = np.frombuffer(data[4 * self.dim :], np.int8).reshape(-1, self.dim)
        return Int8Segment(codes, steps, self.similarity)

    def emptied(self, data: memoryview) -> bytes:
        """What had been learnt, from a native file.

        Args:
            data: The native file, its checksums compared.

        Returns:
            What `trained` gave.
        """
        return bytes(data[: 4 * self.dim])


class Int8Segment:
    """The codes of a segment, multiplied by queries that were multiplied by the steps.

    Args:
        codes: int8 ``(n, dim)``.
        steps: float32 ``(dim,)``.
        similarity: How vectors are compared.
    """

    def __init__(
        self, codes: NDArray[np.int8], steps: NDArray[np.float32], similarity: Similarity
    ) -> None:
        self.codes = codes
        self.steps = steps
        self.similarity = similarity

    @cached_property
    def squares(self) -> NDArray[np.float32]:
        """Squared lengths of what the codes stand for, float32 ``(n,)``."""
        out = np.empty(len(self.codes), np.float32)
        for first in range(0, len(out), ROWS_AT_A_TIME):
            part = self.codes[first : first + ROWS_AT_A_TIME] * self.steps
            out[first : first + ROWS_AT_A_TIME] = np.einsum("ij,ij->i", part, part)
        return out

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        options: Mapping[str, int],
        threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows whose codes score best.

        Args:
            queries: float32 ``(nq, dim)``.
            k: How many rows to look for.
            allowed: bool ``(documents,)`` of rows that may be found, or None for all.
            options: None are this engine's own.
            threads: Threads to use; all cores by default.

        Returns:
            Rows, int64 ``(nq, m)``, -1 for none, all -1 where more have equal scores than there is
            room for; and scores, float32 ``(nq, m)``: inner products, or squared distances under
            ``euclidean``.
        """
        nq, m = len(queries), min(k, len(self.codes))
        if not nq or not m:
            return np.full((nq, m), -1, np.int64), np.zeros((nq, m), np.float32)
        hidden = np.zeros(0, bool) if allowed is None else ~allowed
        parts = [
            self._part(queries[first : first + QUERIES_AT_A_TIME], m, hidden, threads)
            for first in range(0, nq, QUERIES_AT_A_TIME)
        ]
        width = max(rows.shape[1] for rows, _ in parts)
        all_rows = np.full((nq, width), -1, np.int64)
        all_scores = np.zeros((nq, width), np.float32)
        for number, (rows, scores) in enumerate(parts):
            place = slice(number * QUERIES_AT_A_TIME, number * QUERIES_AT_A_TIME + len(rows))
            all_rows[place, : rows.shape[1]] = rows
            all_scores[place, : rows.shape[1]] = scores
        return all_rows, all_scores

    def _part(
        self,
        queries: NDArray[np.float32],
        m: int,
        hidden: NDArray[np.bool_],
        threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        from retrievekit.kernels.proposals import ROOM, settle, sift

        n = len(queries)
        found = np.empty((n, 2 * m + SPARE), np.uint64)
        counts = np.zeros(n, np.int64)
        limits = np.full(n, m + max(ROOM, m))
        margins = np.zeros(n, np.float32)
        none, no_rows = np.zeros(0, np.int64), np.zeros(0, np.int32)
        floors: NDArray[Any] = np.zeros(0, np.int32)
        for first, block in self._blocks(queries):
            if not len(floors):
                floors = np.full(n, np.iinfo(block.dtype).min, block.dtype)

            def work(
                a: int,
                b: int,
                block: NDArray[Any] = block,
                first: int = first,
                floors: NDArray[Any] = floors,
            ) -> None:
                sift(
                    block[:, a:b], first, hidden, none, none, no_rows, 0, m, margins[a:b], 0.0,
                    floors[a:b], found[a:b], counts[a:b], limits[a:b],
                )  # fmt: skip

            in_parts(work, n, threads)
        settle(found, counts, m, margins, 0.0)
        found = found[:, : max(int(counts.max(initial=0)), 1)]
        inside = np.arange(found.shape[1]) < counts[:, None]
        rows = np.where(inside, (found & np.uint64(0xFFFFFFFF)).astype(np.int64), -1)
        ordered = ((found >> np.uint64(32)).astype(np.int64) - (1 << 31)).astype(np.int32)
        scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).astype(np.int32).view(np.float32)
        if self.similarity == "euclidean":
            own = np.einsum("ij,ij->i", queries, queries)
            scores = own[:, None] - scores
        return rows, np.where(inside, scores, np.float32(0))

    def _blocks(self, queries: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[Any]]]:
        """The first row of a block, and the bits of its scores, ``(rows, queries)``."""
        scaled = queries * self.steps
        if self.similarity != "euclidean" and len(queries) > FEW and halves.faster():
            import torch

            turned = torch.from_numpy(np.ascontiguousarray(scaled)).bfloat16().T.contiguous()
            for first in range(0, len(self.codes), ROWS_AT_A_TIME):
                # A copy, because torch takes no array that cannot be written.
                some = torch.from_numpy(self.codes[first : first + ROWS_AT_A_TIME].copy())
                product = torch.mm(some.bfloat16(), turned)
                yield first, product.view(torch.int16).numpy()
            return
        from retrievekit.kernels.codes import code_scores

        for first in range(0, len(self.codes), ROWS_AT_A_TIME):
            codes = self.codes[first : first + ROWS_AT_A_TIME]
            if len(queries) > FEW:
                block = codes.astype(np.float32) @ scaled.T
            else:
                block = np.empty((len(codes), len(queries)), np.float32)
                code_scores(scaled, codes, block)
            if self.similarity == "euclidean":
                block = 2 * block - self.squares[first : first + ROWS_AT_A_TIME, None]
            yield first, np.ascontiguousarray(block).view(np.int32)
