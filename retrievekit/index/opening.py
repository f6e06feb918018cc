"""Opening an index without knowing its kind."""

from __future__ import annotations

from pathlib import Path

from retrievekit import registry
from retrievekit.index.base import Index
from retrievekit.store.manifest import read_manifest


def open_index(path: str | Path) -> Index:
    """Open an index of any kind by memory map.

    Args:
        path: The index folder.

    Returns:
        The index.

    Raises:
        FormatVersionError: The folder is no index, or a newer one.
        CorruptIndexError: It is damaged.
        UnknownNameError: Its kind is not one of this version's.
    """
    manifest, _ = read_manifest(Path(path))
    index: Index = registry.resolve("index", manifest.kind).open(path)
    return index
