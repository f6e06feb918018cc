"""`StoredModel`: a model folder of sentence-transformers that a reranker reads, looked at first.

What all rerankers on such folders share: where the model lies, that nothing in it is run, and what
of its content decides the scores.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from retrievekit.encode.folders import ModelFolder, check_folder, content_of, find_folder
from retrievekit.errors import DataError, ParseError
from retrievekit.stage import fingerprint_of

# What tells where a copy came from, or which library wrote it.
_PROVENANCE = ("_name_or_path", "_commit_hash", "transformers_version", "__version__")
_SETTINGS_LIMIT = 1 << 20
_TOKENIZER = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json")


class StoredModel:
    """A model by folder or hub id, loaded with care on first use.

    Args:
        name: A model folder or a hub id; the hub's cache is asked before the hub.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        dtype: One of `dtypes`, in which the model computes.
        revision: A branch, tag or commit of a hub model.

    Raises:
        DataError: No such dtype.
    """

    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    """The dtypes that may be asked for."""

    foreign_classes: tuple[str, ...] = ()
    """Module classes of other packages that the loader replaces by its own."""

    def __init__(
        self,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        if dtype not in self.dtypes:
            raise DataError(f"no dtype {dtype!r} for models; known: {', '.join(self.dtypes)}")
        self.name = str(name)
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.loading = threading.Lock()

    def __repr__(self) -> str:
        """The call that builds it."""
        dtype = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return f"{type(self).__name__}({self.name!r}{dtype})"

    @cached_property
    def folder(self) -> ModelFolder:
        """Where the model lies, found and looked through on first use.

        Raises:
            MissingDataError: There is no such model; the message says what to do.
            DataError: The folder holds what is not loaded.
        """
        found = find_folder(self.name, self.revision)
        check_folder(found.path, replaced=self.foreign_classes)
        return found

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, tokenizer, settings and dtype, whatever the model is called."""
        settings = {}
        for file in sorted(self.path.rglob("*")):
            if file.suffix not in (".json", ".metadata", ".jinja") or file.name in _TOKENIZER:
                continue
            if file.name.endswith(".index.json") or file.stat().st_size > _SETTINGS_LIMIT:
                continue
            where = file.relative_to(self.path).as_posix()
            settings[where] = _without_provenance(file)
        return fingerprint_of(
            {"content": content_of(self.path), "settings": settings, "dtype": self.dtype}
        )

    @property
    def config(self) -> dict[str, Any]:
        """The transformer's settings.

        Raises:
            DataError: The folder has none.
        """
        for place in (self.path, *(self.path / entry["path"] for entry in self.modules)):
            if (place / "config.json").is_file():
                return read_settings(place / "config.json")
        raise DataError(f"{self.path}: no config.json; this is no folder of a transformer")

    @property
    def modules(self) -> list[dict[str, Any]]:
        """What ``modules.json`` lists; nothing where there is none."""
        file = self.path / "modules.json"
        found: list[dict[str, Any]] = json.loads(file.read_bytes()) if file.is_file() else []
        return found

    @property
    def kind(self) -> str | None:
        """Which class of sentence-transformers, or of PyLate, wrote the folder, where it says."""
        file = self.path / "config_sentence_transformers.json"
        found = read_settings(file).get("model_type") if file.is_file() else None
        return None if found is None else str(found)

    @property
    def options(self) -> dict[str, Any]:
        """What every class of sentence-transformers is loaded with."""
        return {
            "device": self.device,
            "trust_remote_code": False,
            "local_files_only": True,
        }


def readable(network: Any) -> int | None:
    """Tokens that a model reads, special ones included.

    Args:
        network: A model of sentence-transformers.

    Returns:
        What its tokenizer says, or the positions it has where those are fewer; None for no limit.
    """
    import torch

    lengths = [network.max_seq_length or 10**10]
    for name, part in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, torch.nn.Embedding):
            # RoBERTa and its kin count positions from behind that of padding.
            unused = 0 if part.padding_idx is None else part.padding_idx + 1
            lengths.append(part.num_embeddings - unused)
    return None if min(lengths) > 10**9 else int(min(lengths))


def call_of(stage: Any, model: StoredModel) -> str:
    """How a reranker shows itself: the model, and what is not the default.

    Args:
        stage: The reranker, a dataclass that begins with ``model`` and ``documents``.
        model: Its model.

    Returns:
        The call that builds it.
    """
    shown = [repr(model.name if model.dtype == "float32" else model)]
    for field in dataclasses.fields(stage)[2:]:
        value = getattr(stage, field.name)
        if field.repr and value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(stage).__name__}({', '.join(shown)})"


def read_settings(file: Path) -> dict[str, Any]:
    """A file of settings.

    Args:
        file: The file, of JSON.

    Returns:
        The settings by name.

    Raises:
        ParseError: It is no JSON object.
    """
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as why:
        raise ParseError(file, None, f"not JSON: {why}") from why
    if not isinstance(found, dict):
        raise ParseError(file, None, "not a JSON object")
    return found


def _without_provenance(file: Path) -> Any:
    """Settings that decide scores; of a file that is no JSON object, all of it."""
    text = file.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(found, dict):
        return found
    return {key: value for key, value in found.items() if key not in _PROVENANCE}
