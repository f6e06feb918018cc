"""What was found out or converted once and is kept under ``RETRIEVEKIT_CACHE``.

Both can be made again at any time. A converted model is a folder with the SHA-256 of each of its
files, which is compared before a runtime reads a byte of them; a choice is a small JSON file. What
does not fit is told, thrown away and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from retrievekit.encode.backends.choices import Choice, Runtime
from retrievekit.encode.batches import DTYPES
from retrievekit.locations import cache_dir

log = logging.getLogger(__name__)

FORMAT = 2
"""Raised when the ways of converting or choosing change."""

_SUMS = "sums.json"
_PACKAGES = ("torch", "transformers", "sentence-transformers", "openvino", "onnx", "onnxruntime")


def key_of(parts: Mapping[str, Any]) -> str:
    """A name for what depends on these parts and on the versions of what computes.

    Args:
        parts: Plain JSON.

    Returns:
        A hexadecimal digest.
    """
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        versions[package] = None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    whole = {"format": FORMAT, "versions": versions, **parts}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def choice_file(key: str) -> Path:
    """Where a choice is kept.

    Args:
        key: From `key_of`.

    Returns:
        The file, which need not exist.
    """
    return cache_dir() / "backends" / f"{key}.json"


def recall(key: str) -> Choice | None:
    """A choice that was kept.

    Args:
        key: From `key_of`.

    Returns:
        The choice, or None where there is none that can be read.
    """
    file = choice_file(key)
    try:
        found = json.loads(file.read_bytes())
        backend, dtype = found["backend"], found["dtype"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as why:
        log.warning("%s cannot be read (%s); backends are tried again", file, why)
        return None
    if backend not in get_args(Runtime) or dtype not in DTYPES:
        log.warning("%s names no backend; backends are tried again", file)
        return None
    return Choice(backend, dtype)


def remember(key: str, choice: Choice, found: list[dict[str, Any]]) -> None:
    """Keep a choice; where nothing can be written, it is made again next time.

    Args:
        key: From `key_of`.
        choice: What was chosen.
        found: What was measured, for those who look.
    """
    file = choice_file(key)
    content = {"backend": choice.backend, "dtype": choice.dtype, "measured": found}
    beside = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(file)
    except OSError as why:
        log.warning("%s: the choice of a backend is not kept (%s)", file, why)


def converted(key: str, make: Callable[[Path], None]) -> contextlib.AbstractContextManager[Path]:
    """The folder of a converted model: the one that was kept, else a new one.

    Where the cache cannot be written, the folder lasts as long as the context.

    Args:
        key: From `key_of`.
        make: Writes the files into an empty folder.

    Returns:
        A context whose value is the folder, its files compared with their sums.
    """
    return _converted(cache_dir() / "backends" / key, make)


@contextlib.contextmanager
def _converted(folder: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    if folder.is_dir():
        wrong = _wrong(folder)
        if wrong is None:
            yield folder
            return
        log.warning("%s: %s; the model is converted again", folder, wrong)
        shutil.rmtree(folder, ignore_errors=True)
    beside = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        beside.mkdir(parents=True)
    except OSError as why:
        log.warning("%s: the converted model is not kept (%s)", folder, why)
        beside = Path(tempfile.mkdtemp())
    try:
        make(beside)
        sums = {file.name: _sha256(file) for file in sorted(beside.iterdir())}
        (beside / _SUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
        try:
            beside.rename(folder)
        except OSError:
            # Another process finished the same folder in the meantime.
            yield beside
        else:
            yield folder
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _wrong(folder: Path) -> str | None:
    try:
        sums = json.loads((folder / _SUMS).read_bytes())
        files = {file.name for file in folder.iterdir()} - {_SUMS}
        if not isinstance(sums, dict) or set(sums) != files or not files:
            return "its files are not those that were written"
        for name, wanted in sums.items():
            if _sha256(folder / name) != wanted:
                return f"{name} is not what was written"
    except (OSError, ValueError) as why:
        return f"it cannot be read ({why})"
    return None


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
