"""Opening whatever index a folder holds, one of Lucene's too."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def is_lucene(folder: Path) -> bool:
    """Whether a folder is an index of Lucene's rather than one of the store's.

    Args:
        folder: The folder.

    Returns:
        Whether it has Lucene's list of segments and no live generation of the store.
    """
    return not (folder / "CURRENT").exists() and any(folder.glob("segments_*"))


def open_any(folder: Path) -> Any:
    """An index of any kind, those of Lucene's included, which are only searched.

    Args:
        folder: The index folder.

    Returns:
        The index.
    """
    if is_lucene(folder):
        from retrievekit.index.lucene import LuceneIndex

        return LuceneIndex.open(folder)
    from retrievekit.index.opening import open_index

    return open_index(folder)
