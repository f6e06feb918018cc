"""What a verb's SOURCE, DATA or INDEX argument means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, DuplicateIdError, MissingDataError

if TYPE_CHECKING:
    from retrievekit.candidates import Candidates

_OPTIONS = {
    "number_ids=True": "--number-ids",
    'errors="replace"': "--errors replace",
    'on_duplicate="first" or "last"': "--on-duplicate first or last",
    'metadata="json" or "drop"': "--metadata json or drop",
    'metadata="json"': "--metadata json",
}
"""What Python's settings are called on the command line."""


def documents_of(
    source: str, *, number_ids: bool, errors: str, on_duplicate: str, metadata: str
) -> Corpus:
    """The documents of a file, a folder or a registered data set.

    Args:
        source: A path that exists, or a data set's name.
        number_ids: Whether an integer is taken for the string of its digits.
        errors: ``strict`` or ``replace``, for characters that are not valid.
        on_duplicate: ``error``, ``first`` or ``last``, for one id with two contents.
        metadata: ``columns``, ``json`` or ``drop``.

    Returns:
        The documents.

    Raises:
        MissingDataError: Nothing is there.
        DuplicateIdError: One id with two contents; the message names the option that chooses.
        DataError: The source cannot be read as it is; the message names options, where they help.
    """
    if Path(source).exists():
        from retrievekit.data.records import read_corpus

        settings: Any = {"errors": errors, "on_duplicate": on_duplicate, "metadata": metadata}
        try:
            return read_corpus(source, number_ids=number_ids, **settings)
        except DataError as why:
            text = str(why)
            for setting, option in _OPTIONS.items():
                text = text.replace(setting, option)
            kind = DuplicateIdError if isinstance(why, DuplicateIdError) else DataError
            raise kind(text) from why
    looks_like_a_file(source)
    from retrievekit.data.dataset import load_dataset

    return load_dataset(source).corpus


def looks_like_a_file(text: str) -> None:
    """Raise when a text that names nothing on disk was surely meant as a path.

    Args:
        text: What was given where a data set's name could stand.

    Raises:
        MissingDataError: It looks like a path, and nothing is there.
    """
    if meant_as_path(text) and not Path(text).exists():
        raise MissingDataError(f"no such file or folder: {text}")


def meant_as_path(text: str) -> bool:
    """Whether a text looks like a path rather than a name or an expression.

    Args:
        text: The text.

    Returns:
        Whether it begins with ``/``, ``.`` or ``~``, or ends in ``/`` or like a file's name.
    """
    return re.search(r"^[/.~]|/$|^[^(]*[.][A-Za-z][A-Za-z0-9]*$", text) is not None


def candidates_of(path: Path, ignore_missing: bool) -> Candidates:
    """The candidates that a run or qrels file holds; which one it is is seen from its first line.

    Args:
        path: The file.
        ignore_missing: Whether documents that an index lacks are left out.

    Returns:
        The candidates.
    """
    from retrievekit.candidates import Candidates
    from retrievekit.qrels import Qrels
    from retrievekit.run import Run

    read = Run.read if n_fields(path) == 6 else Qrels.read
    return Candidates.of(read(path), missing="ignore" if ignore_missing else "error")


def n_fields(path: Path) -> int:
    """The fields of a file's first line.

    Args:
        path: The file, gzipped or not.

    Returns:
        How many blanks part; 0 when the file cannot be read.
    """
    import gzip

    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as lines:
            return len(lines.readline(4096).split())
    except (OSError, EOFError):
        return 0


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
        DataError: There is a file.
        MissingDataError: No such folder; names those that are near.
    """
    folder = Path(path)
    if folder.is_file():
        raise DataError(f"{path} is a file; an index is a folder: retrievekit index {path} -o NAME")
    if not folder.exists():
        raise MissingDataError(
            f"no index at {path}; {_near(folder)}build one: retrievekit index SOURCE -o {path}"
        )


def opened(path: str) -> Any:
    """The index of a folder, one of Lucene's too.

    Args:
        path: The folder.

    Returns:
        The index.
    """
    from retrievekit.bench.opening import open_any

    missing_index(path)
    return open_any(Path(path))


def updatable(path: str) -> Any:
    """The index of a folder, of which more than a search is wanted.

    Args:
        path: The folder.

    Returns:
        The index.

    Raises:
        DataError: It is an index of Lucene's.
    """
    from retrievekit.bench.opening import is_lucene

    if is_lucene(Path(path)):
        raise DataError(
            f"{path} is an index of Lucene's, which search, run and bench read; for anything else "
            "take Anserini's own tools"
        )
    return opened(path)


def searcher_of(
    index: Any,
    k: int,
    *,
    where: str | None = None,
    candidates: Candidates | None = None,
    options: Mapping[str, int] | None = None,
    device: str | None = None,
) -> Any:
    """The stage that searches an index as it was asked on the command line.

    Args:
        index: The index.
        k: Hits per query.
        where: A condition on metadata.
        candidates: For each query the documents that it may have.
        options: Options of its engine.
        device: Where it is searched.

    Returns:
        The searcher.

    Raises:
        DataError: The index has no such way of being searched.
    """
    if (options or device) and index.kind != "dense":
        raise DataError(
            f"{index.path}: --option and --device are for engines of vectors; its kind: "
            f"{index.kind}"
        )
    asked: dict[str, Any] = {"where": where, "candidates": candidates}
    asked = {name: value for name, value in asked.items() if value is not None}
    if asked and index.kind == "lucene":
        raise DataError(f"{index.path}: an index of Lucene's knows no --where and no --candidates")
    if options:
        asked["engine_options"] = options
    if device:
        asked["device"] = device
    return index.searcher(k=k, **asked)


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
