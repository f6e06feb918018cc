"""Documents on their way into an index: cut as those that are there, and looked up among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, DuplicateIdError
from retrievekit.index.base import Index
from retrievekit.index.lookup import passages_in, rows_in
from retrievekit.splitting import PARENT, Window, split_documents
from retrievekit.store.segment import SegmentReader

Rows: TypeAlias = NDArray[np.int64]


class WithWindow:
    """Documents one by one, and how they were cut, which a generator alone does not say.

    Args:
        documents: The documents, read once.
        window: The window that cut them; None where they are whole, or nobody knows.
    """

    def __init__(self, documents: Iterable[Document], window: Window | None) -> None:
        self.window = window
        self._documents = documents

    def __iter__(self) -> Iterator[Document]:
        """The documents."""
        return iter(self._documents)


def taken_window(index: Index, source: Corpus | Iterable[Document]) -> Window | None:
    """How an index is to hold what comes: as it does already, or as the first that comes was cut.

    Args:
        index: The index.
        source: What comes.

    Returns:
        The window of an index of passages; None where documents are whole, or nobody knows.

    Raises:
        DataError: Passages come to an index of whole documents, or such as another window cut.
    """
    mine, given = index.window, getattr(source, "window", None)
    if given in (None, mine):
        return mine
    if mine is not None:
        raise DataError(
            f"{index.path}: holds passages cut by {mine}, and these were cut by {given}; "
            "add the whole documents, which are cut as those in the index were"
        )
    if not len(index):
        found: Window = given
        return found
    if PARENT not in index.metadata.column_names:
        raise DataError(
            f"{index.path}: holds whole documents, and these are passages; add the "
            "documents, or build an index of passages beside it"
        )
    return None


def alike(
    source: Corpus | Iterable[Document], window: Window | None
) -> Corpus | Iterable[Document]:
    """Documents as an index keeps them: whole, or cut by its window.

    Args:
        source: The documents, or passages of that window.
        window: The index's window.

    Returns:
        What is to be added.
    """
    if window is None or getattr(source, "window", None) == window:
        return source
    return split_documents(source, **window.to_dict())


def looked_up(
    chunks: Iterator[Corpus],
    index: Index,
    segments: Sequence[SegmentReader],
    fresh: Sequence[SegmentReader],
    replaced: dict[str, Rows],
    *,
    upsert: bool,
) -> Iterator[Corpus]:
    """Chunks of documents, after looking their ids up.

    Args:
        chunks: The documents.
        index: The index as it is now.
        segments: Its segments.
        fresh: Segments that were written of the same batch, which grow meanwhile.
        replaced: By segment the live rows that the documents replace, int64 ``(m,)``; filled here.
        upsert: Whether documents may replace others.

    Yields:
        The same chunks.

    Raises:
        DuplicateIdError: A document comes twice, or is in the index and `upsert` is false.
    """
    for chunk in chunks:
        ids = list(chunk.ids)
        for made in fresh:
            twice = np.flatnonzero(rows_in(made, ids) >= 0)
            if len(twice):
                raise DuplicateIdError(
                    f"{index.path}: document {ids[twice[0]]!r} comes twice in this batch; "
                    "nothing of it was added"
                )
        if index.window is not None:
            ids = list(dict.fromkeys(chunk.table.column(PARENT).to_pylist()))
        found, absent = places(index, segments, ids)
        if found and not upsert:
            unknown = set(absent)
            there = next(doc_id for doc_id in ids if doc_id not in unknown)
            raise DuplicateIdError(
                f"{index.path}: document {there!r} is in the index already; nothing "
                "of this batch was added (upsert replaces it)"
            )
        for name, rows in found.items():
            # A document whose passages lie in two chunks is found twice.
            replaced[name] = np.union1d(replaced.get(name, rows[:0]), rows)
        yield chunk


def places(
    index: Index, segments: Sequence[SegmentReader], ids: list[str]
) -> tuple[dict[str, Rows], list[str]]:
    """Where documents lie, by their ids.

    Args:
        index: The index, of documents or of passages.
        segments: Its segments.
        ids: Distinct ids of documents.

    Returns:
        By segment the live rows, int64 ``(m,)``, and the ids that are not there.
    """
    found: dict[str, Rows] = {}
    if index.window is not None:
        known = np.zeros(len(ids), np.bool_)
        for segment in segments:
            rows, here = passages_in(segment, ids)
            if len(rows):
                found[segment.record.name] = rows
            known |= here
        return found, [doc_id for doc_id, there in zip(ids, known, strict=True) if not there]
    for segment in reversed(segments):
        if not ids:
            break
        rows = rows_in(segment, ids)
        there = rows >= 0
        if there.any():
            found[segment.record.name] = rows[there]
            ids = [doc_id for doc_id, here in zip(ids, there, strict=True) if not here]
    return found, ids
