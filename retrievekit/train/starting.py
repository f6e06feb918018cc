"""What a cross-encoder's training starts from: any transformer, with a seeded last layer."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrievekit.encode import minilm
from retrievekit.encode.folders import ModelFolder, check_folder, find_folder
from retrievekit.encode.quiet import without_bars
from retrievekit.errors import DataError
from retrievekit.rerank.classifiers import CrossEncoderModel
from retrievekit.rerank.stored import readable

HEADS = ("classifier", "score", "classification_head", "logits_proj", "pooler", "head", "dense")
"""What families call the layers behind the transformer's last state."""


def base_folder(name: str) -> ModelFolder:
    """The folder of a model to start from, looked through.

    Args:
        name: ``minilm``, a folder or a hub id.

    Returns:
        The folder.

    Raises:
        MissingDataError: There is no such model; the message says what to do.
        DataError: The folder holds what is not loaded.
    """
    found = minilm.minilm_folder() if name == minilm.NAME else find_folder(name)
    check_folder(found.path)
    return found


def start_model(folder: Path, *, seed: int, max_length: int, device: str) -> Any:
    """A cross-encoder of one output, in float32.

    A folder that holds a cross-encoder is loaded as it is. Another transformer, such as that of a
    bi-encoder, gets a last layer whose weights are drawn by the seed.

    Args:
        folder: A folder that was looked through.
        seed: Of the new weights.
        max_length: Tokens of a pair that it is to read.
        device: Where it goes.

    Returns:
        A ``CrossEncoder`` of sentence-transformers.

    Raises:
        DataError: It has several outputs, reads fewer tokens, or lacks weights of its body.
    """
    stored = CrossEncoderModel(folder, device=device)
    named = (stored.config.get("architectures") or ["nothing"])[0]
    if stored.kind == "CrossEncoder" or named.endswith("ForSequenceClassification"):
        network = stored.network
    else:
        network = _with_new_head(stored, seed, device)
    if network.num_labels != 1:
        raise DataError(
            f"{folder}: a classifier of {network.num_labels} labels; a reranker is trained from a "
            "model of one output, or from one without a last layer"
        )
    limit = readable(network)
    if limit is not None and limit < max_length:
        raise DataError(f"{folder}: reads {limit} tokens, but max_length is {max_length}")
    network.max_seq_length = max_length
    return network


def _with_new_head(stored: CrossEncoderModel, seed: int, device: str) -> Any:
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    places = [stored.path, *(stored.path / entry["path"] for entry in stored.modules)]
    place = next(place for place in places if (place / "config.json").is_file())
    with without_bars(), _no_reports(), tempfile.TemporaryDirectory(prefix="retrievekit-") as made:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            place,
            num_labels=1,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        missing = sorted(report["missing_keys"])
        body = [name for name in missing if not set(name.split(".")) & set(HEADS)]
        if body:
            raise DataError(f"{place}: weights are missing, such as {body[0]!r}")
        draw = torch.Generator().manual_seed(seed)
        tensors = dict(model.named_parameters())
        with torch.no_grad():
            for name in missing:
                if tensors[name].ndim > 1:
                    spread = float(getattr(model.config, "initializer_range", 0.02))
                    tensors[name].normal_(0.0, spread, generator=draw)
                elif name.endswith("bias"):
                    tensors[name].zero_()
                else:
                    tensors[name].fill_(1.0)
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        ).save_pretrained(made)
        return CrossEncoder(
            made, device=device, model_kwargs={"dtype": "float32"}, local_files_only=True
        )


@contextlib.contextmanager
def _no_reports() -> Iterator[None]:
    """No report of transformers on weights that are missing: the caller looks itself."""

    def kept(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    # No level: at any of its own it reports on tensors that no device shares.
    reporter = logging.getLogger("transformers.modeling_utils")
    reporter.addFilter(kept)
    try:
        yield
    finally:
        reporter.removeFilter(kept)


def set_dropout(network: Any, part: float) -> None:
    """Set how much every layer drops while it learns; what is saved says nothing of it.

    Args:
        network: The model.
        part: The part, from 0 to 1.
    """
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = part


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the layers behind the transformer.

    Args:
        name: Its name.

    Returns:
        Whether it does; a pooler counts as the transformer's.
    """
    return bool(set(name.split(".")) & {"classifier", "score", "classification_head"})
