"""Encoding a stream of texts in batches of similar length, in bounded memory.

A batch costs as much as its longest text, so texts are sorted by length before they are cut into
batches. A stream is sorted shard by shard, and each shard's vectors leave in the order in which its
texts came.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, EncoderContractError, NonFiniteError

log = logging.getLogger(__name__)

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


class Progress(Protocol):
    """Told how far a long piece of work has come."""

    def __call__(self, done: int, total: int | None, /) -> None:
        """Take note: so many are done, of so many in all (None where nobody knows)."""
        ...


def length_order(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Positions from the longest to the shortest; equals keep their order.

    Args:
        lengths: Lengths in any unit.

    Returns:
        int64 ``(n,)``. The longest first, so that too large a batch fails at once and not at the
        end.
    """
    return np.argsort(-np.asarray(lengths, np.int64), kind="stable")


def encode_stream(
    encode: Encode,
    texts: Iterable[str],
    *,
    batch_size: int = 32,
    shard: int = 4096,
    progress: Progress | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Encode a stream of texts, a shard in memory at a time.

    Args:
        encode: Gives float32 ``(n, dim)`` for n texts, such as ``encoder.encode_document``.
        texts: The texts, read as they are needed.
        batch_size: Texts per call of `encode`, at least 1.
        shard: Texts that are sorted by length together, at least 1.
        progress: Called with the number of texts done after each batch.

    Yields:
        Vectors of consecutive shards, float32 ``(m, dim)`` with m at most `shard`, in the order of
        the texts. An empty stream yields nothing.

    Raises:
        DataError: `batch_size` or `shard` is below 1.
        EncoderContractError: `encode` gave another shape, or vectors of another size than before.
        NonFiniteError: A vector holds NaN or infinity; names the text by its place in the stream.
    """
    if batch_size < 1 or shard < 1:
        raise DataError(f"batch_size and shard are at least 1; got {batch_size} and {shard}")
    total = len(texts) if isinstance(texts, Sequence) else None
    source = iter(texts)
    done, dim = 0, None
    cuts = Cuts()
    while part := list(itertools.islice(source, shard)):
        order = length_order([len(text) for text in part])
        vectors: NDArray[np.float32] | None = None
        for start in range(0, len(part), batch_size):
            rows = order[start : start + batch_size]
            with cuts.collected():
                batch = np.asarray(encode([part[row] for row in rows]), np.float32)
            if batch.ndim != 2 or len(batch) != len(rows) or (dim and batch.shape[1] != dim):
                wanted = f"({len(rows)}, {dim or 'dim'})"
                raise EncoderContractError(
                    f"{len(rows)} texts were encoded into an array of shape {batch.shape}, "
                    f"not {wanted}; retrievekit.testing.check_encoder says what an encoder owes"
                )
            dim = batch.shape[1]
            bad = np.flatnonzero(~np.isfinite(batch).all(axis=1))
            if len(bad):
                place = done + int(rows[bad[0]])
                raise NonFiniteError(
                    f"text {place} of the stream: its vector holds NaN or infinity"
                )
            if vectors is None:
                vectors = np.empty((len(part), dim), np.float32)
            vectors[rows] = batch
            if progress is not None:
                progress(done + min(start + batch_size, len(part)), total)
        done += len(part)
        if vectors is not None:
            yield vectors
    cuts.tell()


@dataclass
class Cuts:
    """Texts that did not fit into a model and were cut; told once, at level WARNING.

    Args:
        by_limit: Texts cut, of texts in all, by what they were and where they were cut.
    """

    by_limit: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)

    def add(self, model: str, what: str, limit: int, cut: int, texts: int) -> None:
        """Take note of one batch.

        Args:
            model: The model's name.
            what: What the texts are: "query" or "document".
            limit: Tokens that fit.
            cut: Texts that were longer.
            texts: Texts in the batch.
        """
        before = self.by_limit.get((model, what, limit), (0, 0))
        self.by_limit[model, what, limit] = (before[0] + cut, before[1] + texts)

    def collected(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts, cut texts are added here instead of being told batch by batch."""
        return _collecting(self)

    def tell(self) -> None:
        """Log what was cut, where anything was."""
        for (model, what, limit), (cut, texts) in self.by_limit.items():
            if cut:
                log.warning(
                    "%s: %d of %d %s texts were longer than %d tokens and were cut there; the rest "
                    "of their words is not in the vectors",
                    model,
                    cut,
                    texts,
                    what,
                    limit,
                )


_collector: contextvars.ContextVar[Cuts | None] = contextvars.ContextVar("cuts", default=None)


@contextlib.contextmanager
def _collecting(cuts: Cuts) -> Iterator[None]:
    token = _collector.set(cuts)
    try:
        yield
    finally:
        _collector.reset(token)


def report_cuts(model: str, what: str, limit: int, cut: int, texts: int) -> None:
    """Tell that texts were cut: to whoever collects, otherwise to the log at once.

    Args:
        model: The model's name.
        what: What the texts are: "query" or "document".
        limit: Tokens that fit.
        cut: Texts that were longer.
        texts: Texts in all.
    """
    collector = _collector.get()
    cuts = Cuts() if collector is None else collector
    cuts.add(model, what, limit, cut, texts)
    if collector is None:
        cuts.tell()
