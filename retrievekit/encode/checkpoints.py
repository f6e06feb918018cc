"""Reading checkpoints of the unified framework, and of single transformers with its heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from retrievekit.encode.conventions import ROLES, Role
from retrievekit.encode.folders import check_folder, find_folder
from retrievekit.encode.heads import bare, fill
from retrievekit.encode.methods import Head, Method
from retrievekit.errors import DataError

# Where checkpoints of single transformers keep what the framework's keep under "model." and
# "linear.": uniCOIL and TILDEv2 have their linear layer as `tok_proj`.
_PROJECTION = "tok_proj."


def load_heads(folder: Path, method: Method, dual: bool, device: str) -> Mapping[Role, nn.Module]:
    """The encoders of a method, with trained weights only.

    Args:
        folder: A folder that was looked through.
        method: What to load.
        dual: Whether the folder has the framework's layout.
        device: Where the encoders go.

    Returns:
        By role the encoder; one and the same where the method shares it.

    Raises:
        DataError: Weights are missing, or do not fit.
    """
    loaded: dict[Role, nn.Module] = {}
    for role in ROLES:
        if role == "document" and method.shared:
            loaded[role] = loaded["query"]
            continue
        head = method.head(role)
        if dual:
            inner = "shared" if method.shared else {"query": "query", "document": "doc"}[role]
            module = _stored(folder / f"{inner}_encoder", head)
        else:
            module = _single(folder, head)
        loaded[role] = module.eval().float().to(device)
    return loaded


def _stored(folder: Path, head: Head) -> nn.Module:
    """An encoder of the framework's layout."""
    from transformers import AutoConfig

    settings = json.loads((folder / "config.json").read_bytes())
    config = None
    if head.kind != "BINARY":
        # The checkpoint has all weights; its transformer's own folder only says the shape.
        base = find_folder(settings["tf_base_model_name_or_dir"]).path
        check_folder(base)
        config = AutoConfig.from_pretrained(
            str(base), trust_remote_code=False, local_files_only=True
        )
    module = bare(head, config, settings.get("vocab_size", 30522))
    fill(module, _weights(folder), str(folder))
    return module


def _single(folder: Path, head: Head) -> nn.Module:
    """A head on the one transformer of a folder."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    module = bare(head, config, config.vocab_size)
    if head.kind == "BINARY":
        return module  # the scalar of a query changes no ranking
    weights = _weights(folder)
    own = module.state_dict()
    cut = _prefix(weights, own)
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith(_PROJECTION):
            name = "linear." + name.removeprefix(_PROJECTION)
        elif name not in own:
            name = "model." + _spelled(name.removeprefix(cut))
        renamed[name] = value
    # A checkpoint of one transformer may carry heads that this method does not use.
    used = {name: value for name, value in renamed.items() if name in own}
    fill(module, used, str(folder))
    return module


def _prefix(weights: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What to cut off a checkpoint's names, such as ``bert.``, so that most are the model's own."""

    def fits(cut: str) -> int:
        return sum("model." + _spelled(name.removeprefix(cut)) in own for name in weights)

    return max(["", *sorted({name.partition(".")[0] + "." for name in weights})], key=fits)


def _spelled(name: str) -> str:
    """A parameter's name of today; BERT's first checkpoints have gamma and beta."""
    if name.endswith("LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith("LayerNorm.beta") else name


def _weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(f"{folder}: no weights in the safetensors format")
    weights: dict[str, Tensor] = {}
    for file in files:
        weights.update(load_file(file))
    return weights
