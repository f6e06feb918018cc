"""Building an index: an empty one, and one update that fills it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from retrievekit.corpus import Corpus, Document
from retrievekit.index.base import PASSAGES, Index
from retrievekit.index.budget import segment_limit
from retrievekit.index.documents import TemporaryFolder
from retrievekit.index.writer import IndexWriter
from retrievekit.protocols import Progress
from retrievekit.store.commit import Transaction
from retrievekit.store.files import naming_space
from retrievekit.store.manifest import Manifest
from retrievekit.store.segment import Generation

I = TypeVar("I", bound=Index)


def create(
    make: Callable[[Generation], I],
    empty: Manifest,
    source: Corpus | Iterable[Document],
    path: str | Path | None,
    *,
    overwrite: bool = False,
    memory_budget: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> I:
    """Build an index: an empty one, and one update that fills it.

    Args:
        make: Gives the index object of a generation.
        empty: The manifest of an index without documents: kind, settings, encoder, statistics.
        source: The documents, read once.
        path: The index folder, or None for one that lives as long as the index object.
        overwrite: Whether an index that is there may be replaced.
        memory_budget: As in `IndexWriter`.
        resume: As in `IndexWriter`.
        progress: Called with documents done and in all.

    Returns:
        The index, opened.

    Raises:
        DataError: A document cannot be used, or the memory budget is too small.
        IndexExistsError: An index is at `path` and `overwrite` is false.
        LockedError: Another process is writing there.
    """
    limit = segment_limit(memory_budget)
    window = getattr(source, "window", None)
    if window is not None:
        empty = replace(empty, settings={**empty.settings, PASSAGES: window.to_dict()})
    folder = Path(tempfile.mkdtemp(prefix="retrievekit-") if path is None else path)
    try:
        with naming_space(folder):
            transaction = Transaction(folder, overwrite=overwrite, resume=resume)
            if path is None:
                transaction.shards = None
            index = make(Generation(folder, empty, "", ()))
            with IndexWriter.creating(transaction, index, limit) as writer:
                writer.add(source, progress=progress)
        index = make(Generation.pin(folder))
    except BaseException:
        if path is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if path is None:
        index.keeper = TemporaryFolder(folder)
    return index
