"""Loading a model of sentence-transformers, computed by torch or by another runtime."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrievekit.encode.backends.choices import Choice, check_installed
from retrievekit.encode.backends.hardware import found_device, has_bfloat16
from retrievekit.encode.batches import check_room, for_counting
from retrievekit.encode.conventions import ROLES
from retrievekit.encode.devices import Copies
from retrievekit.encode.folders import ModelFolder, content_of
from retrievekit.encode.quiet import read_whole
from retrievekit.encode.wiring import Asked, Wiring, pool_in_float32, wire
from retrievekit.errors import DataError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model ready to encode.

    Args:
        model: The model; its layers may be another runtime's.
        copies: The same on each device.
        wiring: How it is used.
        choice: What computes it.
        counting: A tokenizer to count with; None where the model's is none of transformers.
    """

    model: SentenceTransformer
    copies: Copies[SentenceTransformer]
    wiring: Wiring
    choice: Choice
    counting: Any


def load(
    folder: ModelFolder,
    asked: Asked,
    choice: Choice,
    devices: Sequence[str | None],
    *,
    tell: bool = True,
) -> Loaded:
    """Load a model and settle how it is used.

    Args:
        folder: The model's folder, looked through already.
        asked: What the call says.
        choice: What is to compute it; torch does where the other runtime cannot.
        devices: Where torch computes; None stands for the best device there is.
        tell: Whether what was assumed, and what could not be had, is logged.

    Returns:
        The model and what computes it indeed.

    Raises:
        MissingExtraError: The runtime is not installed.
        DataError: Something is asked that the model, or this machine, cannot do; or the folder
            holds no whole model.
    """
    check_installed(choice.backend)
    by_torch = choice.backend == "torch"
    places = [found_device(device) for device in (devices if by_torch else ("cpu",))]
    if choice == Choice("torch", "bfloat16") and not has_bfloat16(places[0]):
        log.warning("%s: bfloat16 is emulated here; float32 is faster, and exact", folder.name)
    dtype = choice.dtype if by_torch else "float32"
    model = _read(folder, places[0], dtype)
    counting = _counting(model, folder)
    wiring = wire(model, folder, asked, tell=tell)
    for role in ROLES if counting is not None else ():
        alone = counting([wiring.prompts[role]], truncation=False, padding=False, verbose=False)
        check_room(folder.name, role, wiring.limits[role], len(alone["input_ids"][0]))
    model.eval()
    if dtype != "float32":
        pool_in_float32(model)
    if not by_torch:
        from retrievekit.encode.backends.bodies import UnconvertibleError
        from retrievekit.encode.backends.handover import hand_over

        try:
            hand_over(model[0], choice, content_of(folder.path))
        except UnconvertibleError as why:
            if tell:
                log.warning("%s: torch computes it, not %s: %s", folder.name, choice.backend, why)
            return load(folder, asked, Choice("torch", choice.dtype), devices, tell=False)
    # A tokenizer of two lengths is set to the one or the other, for all who use it.
    shared = len(set(wiring.limits.values())) == 1
    return Loaded(model, Copies(model, places, shared=shared), wiring, choice, counting)


def _read(folder: ModelFolder, device: str, dtype: str) -> SentenceTransformer:
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    try:
        with read_whole(folder.path):
            return SentenceTransformer(
                str(folder.path),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as why:
        if isinstance(why, DataError):
            raise
        said = str(why).strip().partition("\n")[0]
        raise DataError(
            f"{folder.path}: sentence-transformers cannot load this model "
            f"({type(why).__name__}: {said}). Is the folder whole?"
        ) from why


def _counting(model: SentenceTransformer, folder: ModelFolder) -> Any:
    """A tokenizer for counting: the model's own is set to cut texts, for all threads at a time."""
    from transformers import PreTrainedTokenizerBase

    tokenizer: Any = getattr(model, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return None
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise DataError(
            f"{folder.path}: the tokenizer knows no words, so that all texts would have one vector;"
            " copy its files (tokenizer.json, vocab.txt, ...) from where the model came from"
        )
    return for_counting(tokenizer)


def module_name(module: Any, folder: Path, place: int) -> str:
    """The class of a module with what its vectors depend on besides the weights.

    Args:
        module: The module.
        folder: The model's folder.
        place: Which of the model's modules it is.

    Returns:
        A name for cards.
    """
    kind = type(module).__name__
    if kind in ("Transformer", "Normalize"):
        return kind
    if kind == "Pooling":
        mode = module.pooling_mode
        modes = mode if isinstance(mode, str) else "+".join(mode)
        return f"Pooling({modes}{'' if module.include_prompt else ', without prompt'})"
    config = folder / f"{place}_{kind}" / "config.json"
    if not config.is_file():
        return kind
    return f"{kind}({hashlib.sha256(config.read_bytes()).hexdigest()[:12]})"
