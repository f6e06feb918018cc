"""Exact search whose fast pass runs on a GPU; what it answers is what the processor answers.

Vectors lie on the device in float16, scaled by a power of two so that none is out of its range. A
product with the queries gives approximate scores, the best are kept there, and those that may be
hits given the largest possible error are scored by `retrievekit.index.engines.flat`, pair by pair
and on the processor, as without a device.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DeviceError
from retrievekit.index.engines.copies import Copy
from retrievekit.index.engines.flat import FlatSearch
from retrievekit.index.engines.products import CHUNK, largest, product, trusted

if TYPE_CHECKING:
    from retrievekit.index.dense import DenseIndex

log = logging.getLogger(__name__)

QUERIES_AT_A_TIME = 1024

SCORES = 1 << 29
"""Bytes of one block of approximate scores, at first; a fourth of it whenever memory ran out."""

LEAST = 1 << 12
"""Documents of a block below which memory is too little."""

FEW = 4096
"""So many documents or fewer are scored pair by pair at once."""

SPARE = (128, 4096)
"""Proposals beyond k, at least, in a first pass and in a second; then it is the processor's."""

HELD = 1 << 24
"""Proposals of all queries together."""


class DeviceSearch(FlatSearch):
    """Exact search over the vectors that an index stores, proposals made on a device.

    Candidates of single queries are searched on the processor, as are queries with more proposals
    than there is room for.

    Args:
        index: The index.
        device: As torch names it, such as ``cuda:0``.
    """

    def __init__(self, index: DenseIndex, device: str) -> None:
        super().__init__(index)
        self.device = device
        self._copy: Copy | None = None
        self._making = threading.Lock()
        self._bytes = SCORES

    def search(
        self,
        queries: NDArray[np.float32],
        hidden: list[NDArray[np.bool_]],
        most: int,
        keys: NDArray[np.uint64],
        counts: NDArray[np.int64],
        threads: int | None,
    ) -> None:
        """Search what all queries alike may have; see `FlatSearch.search`.

        Args:
            queries: float32 ``(nq, d)``.
            hidden: By segment bool ``(documents,)`` of rows that are no hits, or ``(0,)``.
            most: How many rows are left.
            keys: uint64 ``(nq, k)``, the hits' sort keys, written, falling.
            counts: int64 ``(nq,)``, hits of each query, written.
            threads: Threads of the processor to use; all cores by default.

        Raises:
            DeviceError: The device has too little memory, even for small blocks.
        """
        if most <= FEW or not trusted(self.device) or not self._in_range(queries):
            super().search(queries, hidden, most, keys, counts, threads)
            return
        k = keys.shape[1]
        left = np.arange(len(queries))
        for spare in SPARE:
            room, unsure = k + max(k, spare), [left[:0]]
            step = max(1, min(QUERIES_AT_A_TIME, HELD // room))
            for first in range(0, len(left), step):
                some = left[first : first + step]
                rows, sure = self._proposals(queries[some], hidden, k, room)
                unsure.append(some[~sure])
                some, rows = some[sure], rows[sure]
                found, n_found = np.empty((len(some), k), np.uint64), np.zeros(len(some), np.int64)
                self.rescored(queries[some], rows, found, n_found, threads)
                keys[some], counts[some] = found, n_found
            left = np.concatenate(unsure)
        if len(left):
            found, n_found = np.empty((len(left), k), np.uint64), np.zeros(len(left), np.int64)
            super().search(queries[left], hidden, most, found, n_found, threads)
            keys[left], counts[left] = found, n_found

    def _in_range(self, queries: NDArray[np.float32]) -> bool:
        """Whether queries can be scaled as the vectors are, where they have to be."""
        if self.index.similarity != "euclidean":
            return True
        longest = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64).max(initial=0))
        return bool(longest <= 2 * self.index.largest_norm)

    def _proposals(
        self, queries: NDArray[np.float32], hidden: list[NDArray[np.bool_]], k: int, room: int
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Rows that hold the k best of each query, -1 for none, and where they surely do."""
        import torch

        while True:
            try:
                return self._pass(queries, hidden, k, room)
            except torch.OutOfMemoryError as why:
                said = str(why).partition("\n")[0]
            # Only now are the tensors of the failed pass let go of.
            self._with_less(said, len(queries))

    def _with_less(self, said: str, n_queries: int) -> None:
        """Take less memory from now on.

        Raises:
            DeviceError: Less would be too little.
        """
        import torch

        if self._bytes // (4 * n_queries) > LEAST:
            self._bytes //= 4
        elif self._copy is not None and self._copy.whole:
            log.warning("%s: too little memory is left; vectors are streamed now", self.device)
            self._copy = None
            self._new_copy(streamed=True)
            self._bytes = SCORES
        else:
            raise DeviceError(
                f"{self.device}: too little memory to search {len(self.index)} documents, even "
                f"{LEAST} at a time ({said}); free some, or search with device='cpu', which gives "
                "the same answer"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _pass(
        self, queries: NDArray[np.float32], hidden: list[NDArray[np.bool_]], k: int, room: int
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        import torch

        copy = self._copy or self._new_copy()
        halves, norms, lost, scales = copy.queries(queries)
        device = halves.device
        best = torch.empty((len(queries), 0), device=device)
        rows = torch.empty((len(queries), 0), dtype=torch.int64, device=device)
        size = max(self._bytes // (4 * len(queries)) // CHUNK, 1) * CHUNK
        for number, first, vectors, squares in copy.blocks(size):
            hides = hidden[number][first : first + len(vectors)]
            if len(hides) and hides.all():
                continue
            scores = product(halves, vectors)
            if squares is not None:
                scores.sub_(squares)
            if hides.any():
                scores.masked_fill_(torch.from_numpy(hides.copy()).to(device), -torch.inf)
            values, places = largest(scores, room)
            del scores
            best = torch.cat([best, values], dim=1)
            rows = torch.cat([rows, places + (self.bases[number] + first)], dim=1)
            if best.shape[1] > room:
                best, order = best.topk(room, dim=1)
                rows = rows.gather(1, order)
        if best.shape[1] < k:  # nothing was left out
            kept = best.isfinite()
            sure = torch.ones(len(best), dtype=torch.bool, device=device)
        else:
            best, order = best.sort(dim=1, descending=True)
            rows = rows.gather(1, order)
            floor = best[:, k - 1].double() - 2.02 * copy.errors(norms, lost, scales)
            kept = (best.double() >= floor[:, None]) & best.isfinite()
            # What was left out scored no more than the last, which is below the floor.
            sure = ~kept[:, -1] if best.shape[1] == room else torch.ones_like(kept[:, 0])
        width = max(int(kept.sum(dim=1).max()), 1)
        out = torch.where(kept, rows, -1)[:, :width].to(torch.int32)
        return out.cpu().numpy(), sure.cpu().numpy()

    def _new_copy(self, streamed: bool = False) -> Copy:
        with self._making:
            if self._copy is None:
                index = self.index
                euclidean = index.similarity == "euclidean"
                self._copy = Copy(
                    index.stored, index.dim, index.largest_norm, euclidean, self.device, streamed
                )
            return self._copy
