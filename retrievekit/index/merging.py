"""Merging segments: which ones, and how deletions that come meanwhile find their way.

A merge reads a snapshot: segments and the rows that are live in them. It may run beside its
writer, because segments never change; what is deleted meanwhile is deleted in the sources as
always, and carried over to the merged segment when the merge is settled.
"""

from __future__ import annotations

import contextlib
import errno
import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from retrievekit.errors import StoreError
from retrievekit.index.base import Index
from retrievekit.index.documents import DocumentWriter
from retrievekit.store.segment import SegmentReader, SegmentWriter

FACTOR = 10
"""So many segments of one size are merged into one of the next (a log-structured merge): each
document is written again about once per size."""

LARGEST = 100_000
"""Live documents from which a segment is merged only when a compaction is asked for."""


def crowded(segments: Sequence[SegmentReader]) -> list[SegmentReader]:
    """The segments that should be merged now, so that there are few below `LARGEST`.

    Args:
        segments: All segments of an index.

    Returns:
        At least `FACTOR` segments of one size, and those that are smaller; empty when no size is
        crowded.
    """
    for level in range(round(math.log(LARGEST, FACTOR))):
        below = [segment for segment in segments if segment.n_live < FACTOR ** (level + 1)]
        of_size = [segment for segment in below if segment.n_live >= FACTOR**level or not level]
        if len(of_size) >= FACTOR:
            return below
    return []


class Merge:
    """Some segments on their way to becoming one.

    Args:
        view: The index as its writer sees it now, with just these segments.
        segment: Where the merged one is written.

    Raises:
        StoreError: The disk has no room for it.
    """

    def __init__(self, view: Index, segment: SegmentWriter) -> None:
        self.sources = view.segments
        self.segment = segment
        self._view = view
        _check_room(view)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="retrievekit-merge")
        self._merged: Future[SegmentReader] = self._pool.submit(self._work)

    def _work(self) -> SegmentReader:
        documents = DocumentWriter(self.segment, store_text=self._view.manifest.text_stored)
        for source in self.sources:
            documents.copy(source)
        self._view.merge(self.segment)
        documents.finish()
        return SegmentReader(self.segment.folder, self.segment.finish(documents.documents))

    def settled(self, now: Mapping[str, SegmentReader]) -> SegmentReader:
        """Wait for the merge, and delete in its segment what was deleted in the sources meanwhile.

        Args:
            now: The sources by name, as they are now.

        Returns:
            The merged segment.
        """
        with self._pool:
            merged = self._merged.result()
        dead = [np.zeros(0, bool)]
        for source in self.sources:
            current = now[source.record.name].dead
            part = current[source.live] if len(current) else np.zeros(len(source.live), bool)
            dead.append(part)
        gone = np.concatenate(dead)
        return merged.with_dead(gone) if gone.any() else merged

    def give_up(self) -> None:
        """Stop at the next part, and wait for that; what was written is left to be removed."""
        self.segment.abort()
        try:
            with self._pool, contextlib.suppress(Exception):
                self._merged.result()
        finally:
            self.segment.abort()  # whatever it opened in between


def _check_room(view: Index) -> None:
    needed = 0
    for source in view.segments:
        share = source.n_live / max(source.record.documents, 1)
        needed += math.ceil(source.record.n_bytes * share)
    free = shutil.disk_usage(view.path).free
    if free < needed:
        raise StoreError(
            errno.ENOSPC,
            f"{view.path}: merging needs about {needed:,} bytes, {free:,} are free; nothing was "
            "changed. Free some space and try again",
        )
