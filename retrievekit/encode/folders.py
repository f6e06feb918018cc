"""Folders of sentence-transformers models: finding them, and looking before loading.

A model folder may come from anywhere. Before anything in it is loaded, `check_folder` makes sure
that nothing in it would be run: module classes come from sentence-transformers itself, no
configuration names code, and weights are safetensors, which cannot hold code, rather than pickles,
which can.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from retrievekit.errors import DataError, MissingDataError, ParseError

ALLOWED_CLASSES = "sentence_transformers."
"""What the class of each module of a model begins with."""

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_OTHER_BACKENDS = ("onnx", "openvino")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
)
_CONFIG_LIMIT = 1 << 20
# What may differ between two copies of one model's config.json.
_PROVENANCE = ("_name_or_path", "_commit_hash", "transformers_version", "architectures")


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    Args:
        path: The folder.
        name: What it is loaded by again.
        model: What it is called: the hub id, or the name of a folder of one's own.
        revision: The hub's commit, where it is known.
    """

    path: Path
    name: str
    model: str
    revision: str | None = None


def find_folder(
    name: str, revision: str | None = None, *, allow_pickle: bool = False
) -> ModelFolder:
    """The folder of a model by path or hub id: a local folder, the hub's cache, or the hub.

    Args:
        name: A folder, or a hub id such as ``organisation/model``.
        revision: A branch, tag or commit of the hub model.
        allow_pickle: Whether pickled weights are fetched where the hub has no others.

    Returns:
        The folder.

    Raises:
        MissingDataError: It is no folder, not in the hub's cache, and the hub cannot be reached or
            does not know it; the message says what to do.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = path.resolve()
        return ModelFolder(path, str(path), path.name)
    return hub_folder(name, revision, allow_pickle=allow_pickle)


def hub_folder(
    name: str, revision: str | None = None, *, allow_pickle: bool = False
) -> ModelFolder:
    """The folder of a hub model: the cached snapshot where it is whole, otherwise fetched.

    Args:
        name: A hub id such as ``organisation/model``.
        revision: A branch, tag or commit.
        allow_pickle: Whether pickled weights are fetched as well.

    Returns:
        The folder.

    Raises:
        MissingDataError: Neither cached nor reachable, or the hub does not know it.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    # The base of all errors of the HTTP client, whichever client this version of the hub uses.
    transport: type[BaseException] = HfHubHTTPError.__bases__[0]

    patterns = ["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja"]
    patterns += ["artifact.metadata"]  # the settings of ColBERT checkpoints, as JSON
    patterns += ["pytorch_model*.bin"] if allow_pickle else []

    def snapshot(offline: bool) -> ModelFolder:
        path = Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                local_files_only=offline,
                allow_patterns=patterns,
                ignore_patterns=[f"{folder}/*" for folder in _OTHER_BACKENDS],
            )
        )
        return ModelFolder(path, name, name, path.name)

    try:
        found = snapshot(offline=True)
        if weight_files(found.path, allow_pickle=allow_pickle):
            return found
    except (OSError, ValueError):
        pass
    try:
        return snapshot(offline=False)
    except (OSError, ValueError, transport) as why:
        raise MissingDataError(
            f"no model {name!r}: there is no such folder, the hub's cache does not hold it, and "
            f"{_why_missing(why, revision)}\n{_ways_to_get(name, revision, why)}"
        ) from why


def _kinds(why: BaseException) -> list[str]:
    # By name: how their classes derive from each other is another thing in each version.
    return [kind.__name__ for kind in type(why).__mro__]


def _why_missing(why: BaseException, revision: str | None) -> str:
    """What kept a model from being fetched, in a few words: the hub's own fill a page."""
    from huggingface_hub import constants

    kinds = _kinds(why)
    for kind, said in (
        ("GatedRepoError", "the hub gives it to those only who accepted its terms (hf auth login)"),
        ("RepositoryNotFoundError", "the hub has none of that name, unless it is a private one"),
        ("RevisionNotFoundError", f"the hub has no revision {revision!r} of it"),
        ("HFValidationError", "it is no hub id, organisation/model"),
    ):
        if kind in kinds:
            return said
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to ask the hub"
    if {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError"} & set(kinds):
        return "the hub cannot be reached"
    first = str(why).strip().partition("\n")[0]
    return f"it could not be fetched ({kinds[0]}: {first[:80]})"


def _ways_to_get(name: str, revision: str | None, why: BaseException) -> str:
    if "HFValidationError" in _kinds(why):
        return "give the path of a model folder, or a hub id"
    wanted = name if revision is None else f"{name} --revision {revision}"
    return (
        f"fetch it where the hub is reachable (hf download {wanted}, with HF_HUB_OFFLINE unset) "
        "and point HF_HOME at that cache, or give the path of a model folder"
    )


def check_folder(path: Path, *, allow_pickle: bool = False, replaced: tuple[str, ...] = ()) -> None:
    """Refuse a model folder in which something would be run or unpickled.

    Args:
        path: The folder.
        allow_pickle: Whether weights may be pickles, for a loader that unpickles nothing but
            tensors.
        replaced: Module classes of other packages for which the loader takes its own.

    Raises:
        DataError: It holds Python files, names module classes from outside sentence-transformers,
            has configurations that name code, or weights that are no safetensors.
        ParseError: A configuration is no JSON.
    """
    code = next(path.rglob("*.py"), None)
    if code is not None:
        raise DataError(
            f"{code}: a model folder with Python code is not loaded; models that need their own "
            "code are not supported"
        )
    for file in sorted(path.rglob("*.json")):
        if file.name in ("tokenizer.json", "vocab.json") or file.name.endswith(".index.json"):
            continue
        if file.stat().st_size > _CONFIG_LIMIT:
            continue  # a table of data; the libraries' own configurations are small
        content = _read_json(file)
        if file.name == "modules.json":
            _check_modules(file, content, replaced)
        elif file.name == "router_config.json":
            types = content.get("types", {}) if isinstance(content, dict) else {}
            _check_classes(file, list(types.values()), replaced)
        _check_names_no_code(file, content)
    if not weight_files(path, allow_pickle=allow_pickle):
        raise DataError(
            f"{path}: no weights in the safetensors format; pickled weights are not loaded. Save "
            "the model again with safe_serialization=True"
        )
    if allow_pickle:
        return
    for file in sorted(path.rglob("*")):
        if (
            file.suffix in _PICKLES
            and file.name != "training_args.bin"
            and file.parent.name not in _OTHER_BACKENDS
            and not any(file.parent.glob("*.safetensors"))
        ):
            raise DataError(
                f"{file}: pickled weights are not loaded, and there is no .safetensors beside "
                "them; save the model again with safe_serialization=True"
            )


def _check_modules(file: Path, content: Any, replaced: tuple[str, ...]) -> None:
    if not isinstance(content, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("path", ""), str) for entry in content
    ):
        raise ParseError(file, None, "not a list of modules with a type and a path")
    _check_classes(file, [entry.get("type") for entry in content], replaced)
    for entry in content:
        place = PurePosixPath(entry.get("path", ""))
        if place.is_absolute() or ".." in place.parts:
            raise DataError(f"{file}: the module path {str(place)!r} leads out of the folder")


def _check_classes(file: Path, classes: list[Any], replaced: tuple[str, ...]) -> None:
    for name in classes:
        if name in replaced:
            continue
        if not isinstance(name, str) or not name.startswith(ALLOWED_CLASSES):
            raise DataError(
                f"{file}: the module class {name!r} is not part of sentence-transformers; such "
                "classes are not loaded"
            )


def _check_names_no_code(file: Path, content: Any) -> None:
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for key in ("auto_map", "custom_pipelines", "trust_remote_code"):
                if value.get(key):
                    raise DataError(
                        f"{file}: the entry {key!r} asks for code from elsewhere; such models are "
                        "not loaded"
                    )
            for key, item in value.items():
                # "organisation/name" as an attention implementation is fetched and run.
                if "attn_implementation" in key and "/" in str(item):
                    raise DataError(f"{file}: {key!r} is {item!r}, code from elsewhere")


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as why:
        raise ParseError(file, None, f"not JSON: {why}") from why


def _weights(path: Path) -> Iterator[Path]:
    for file in path.rglob("*.safetensors"):
        if file.parent.name not in _OTHER_BACKENDS:
            yield file


def weight_files(path: Path, *, allow_pickle: bool = False) -> list[Path]:
    """The files of a folder that hold weights.

    Args:
        path: The folder.
        allow_pickle: Whether pickled weights count where there are no safetensors.

    Returns:
        All safetensors, else, where they are allowed, ``pytorch_model*.bin``; sorted.
    """
    files = sorted(_weights(path))
    return files or (sorted(path.glob("pytorch_model*.bin")) if allow_pickle else [])


def content_of(path: Path, *, allow_pickle: bool = False) -> dict[str, Any]:
    """What of a folder's content decides the vectors, as hashes.

    Args:
        path: The folder.
        allow_pickle: Whether pickled weights count where there are no safetensors.

    Returns:
        ``weights`` and ``tokenizer``, SHA-256 by file name, and ``config``, SHA-256 of the model's
        settings without what only tells where a copy came from.
    """
    found = weight_files(path, allow_pickle=allow_pickle)
    weights = {f.relative_to(path).as_posix(): sha256(f) for f in found}
    files = (f for f in sorted(path.rglob("*")) if f.name in _TOKENIZER_FILES)
    tokenizer = {f.relative_to(path).as_posix(): sha256(f) for f in files}
    config = path / "config.json"
    settings = _read_json(config) if config.is_file() else {}
    kept = {key: value for key, value in settings.items() if key not in _PROVENANCE}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return {
        "weights": weights,
        "tokenizer": tokenizer,
        "config": hashlib.sha256(text.encode()).hexdigest(),
    }


def sha256(file: Path) -> str:
    """SHA-256 of a file, hashed once per process as long as its size and time of change stay.

    Args:
        file: The file.

    Returns:
        The digest in hexadecimal.
    """
    real = file.resolve()
    state = real.stat()
    return _sha256(real, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _sha256(file: Path, size: int, changed: int) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
