"""What a verb's SOURCE, DATA or INDEX argument means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, MissingDataError


def documents_of(source: str, *, number_ids: bool, errors: str) -> Corpus | Iterable[Document]:
    """The documents of a file, a folder or a registered data set; files are streamed.

    Args:
        source: A path that exists, or a data set's name.
        number_ids: Whether an integer is taken for the string of its digits.
        errors: ``strict`` or ``replace``, for characters that are not valid.

    Returns:
        The documents.
    """
    if Path(source).exists():
        from retrievekit.data.records import iter_documents

        tolerance: Any = errors
        return iter_documents(source, number_ids=number_ids, errors=tolerance)
    from retrievekit.data.dataset import load_dataset

    return load_dataset(source).corpus


def is_index(path: str) -> bool:
    """Whether a folder looks like an index.

    Args:
        path: The folder.

    Returns:
        Whether it has the file that names the live generation.
    """
    return (Path(path) / "CURRENT").exists()


def missing_index(path: str) -> None:
    """Raise when there is no folder at the place of an index.

    Args:
        path: The folder.

    Raises:
        MissingDataError: No such folder; names those that are near.
    """
    folder = Path(path)
    if not folder.exists():
        raise MissingDataError(
            f"no index at {path}; {_near(folder)}build one: retrievekit index SOURCE -o {path}"
        )


def opened(path: str) -> Any:
    """The index of a folder.

    Args:
        path: The folder.

    Returns:
        The index.
    """
    from retrievekit.index.opening import open_index

    missing_index(path)
    return open_index(path)


def _near(folder: Path) -> str:
    """Index folders beside a missing one whose names are like its own."""
    beside = folder.parent
    if not beside.is_dir():
        return ""
    names = [item.name for item in beside.iterdir() if is_index(str(item))]
    near = difflib.get_close_matches(folder.name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(str(beside / name) for name in near)}? Or " if near else ""


def free_file(path: Path, overwrite: bool) -> None:
    """Refuse a file that is there, unless it may be replaced.

    Args:
        path: The file to be written.
        overwrite: Whether it may be replaced.

    Raises:
        DataError: It is there, or is a folder, or the folder it belongs in is missing.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise MissingDataError(f"no such folder: {path.parent}")
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; --overwrite replaces it")
