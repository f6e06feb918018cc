"""Loading a model of sentence-transformers, computed by torch or by another runtime."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrievekit.encode.backends.choices import Choice, check_installed
from retrievekit.encode.backends.hardware import best_device, has_bfloat16
from retrievekit.encode.devices import Copies
from retrievekit.encode.folders import ModelFolder, content_of
from retrievekit.encode.quiet import without_bars
from retrievekit.encode.wiring import Asked, Wiring, pool_in_float32, wire

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
    """

    model: SentenceTransformer
    copies: Copies[SentenceTransformer]
    wiring: Wiring
    choice: Choice


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
        DataError: Something is asked that the model, or this processor, cannot do.
    """
    check_installed(choice.backend)
    by_torch = choice.backend == "torch"
    devices = devices if by_torch else ("cpu",)
    if choice == Choice("torch", "bfloat16") and not has_bfloat16(best_device(devices[0])):
        log.warning("%s: bfloat16 is emulated here; float32 is faster, and exact", folder.name)
    from sentence_transformers import SentenceTransformer

    dtype = choice.dtype if by_torch else "float32"
    with without_bars():
        model = SentenceTransformer(
            str(folder.path),
            device=devices[0],
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": dtype, "use_safetensors": True},
        )
    wiring = wire(model, folder, asked, tell=tell)
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
    return Loaded(model, Copies(model, devices), wiring, choice)


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
