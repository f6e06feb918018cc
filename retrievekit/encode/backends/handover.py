"""From a model loaded in torch to one whose layers another runtime computes."""

from __future__ import annotations

from typing import Any

from retrievekit.encode.backends.bodies import convert, inputs_of, replace_layers
from retrievekit.encode.backends.choices import Choice
from retrievekit.encode.backends.kept import converted, key_of
from retrievekit.encode.backends.runtimes import RUNTIMES


def hand_over(transformer: Any, choice: Choice, content: dict[str, Any]) -> None:
    """Let another runtime compute a transformer's layers, converted once and kept.

    Args:
        transformer: The first module of a model of sentence-transformers, on the CPU in float32.
        choice: The runtime and the dtype.
        content: What identifies the model, for the key under which it is kept.

    Raises:
        UnconvertibleError: The runtime does not take the layers.
        DataError: It does not compute in the dtype on this processor.
    """
    import torch

    runtime = RUNTIMES[choice.backend]()
    names = inputs_of(transformer)
    key = key_of({"model": content, "backend": choice.backend, "inputs": names})
    with converted(key, lambda folder: convert(runtime, transformer, folder)) as folder:
        run = runtime.load(folder, choice.dtype, torch.get_num_threads())
    replace_layers(transformer, run)
