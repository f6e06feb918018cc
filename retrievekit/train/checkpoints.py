"""The state of a training, in one safetensors file that is replaced atomically.

Tensors stand under ``weights.*`` and ``optimiser.*``; everything else is JSON in the file's header,
so that no pickle is needed, and no kill can leave one half of a state beside another.

Randomness needs no place in it: each step draws from generators that are seeded by the recipe's
seed and the step's number (`seed_step`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrievekit.data.download import replacing
from retrievekit.errors import ParseError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FORMAT = "retrievekit training 1"


@dataclass(frozen=True)
class State:
    """What a training goes on from.

    Args:
        weights: The model's tensors by name.
        optimiser: AdamW's tensors, by parameter name and a dot and what they are.
        notes: Plain JSON: the step, the best figure, the log.
    """

    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    notes: dict[str, Any]


def write_state(state: State, path: Path) -> None:
    """Write a state, in one atomic rename.

    Args:
        state: The state.
        path: The file.
    """
    from safetensors.torch import save_file

    tensors = {f"weights.{name}": value for name, value in state.weights.items()}
    tensors |= {f"optimiser.{name}": value for name, value in state.optimiser.items()}
    # Tied weights share their memory, which the format refuses.
    own = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    header = {"format": _FORMAT, "notes": json.dumps(state.notes, allow_nan=False)}
    with replacing(path) as fresh:
        save_file(own, fresh, metadata=header)


def read_state(path: Path) -> State:
    """Read a state.

    Args:
        path: The file.

    Returns:
        The state, on the CPU.

    Raises:
        ParseError: It is no such file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise ParseError(path, None, f"no state of a training: no format {_FORMAT!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = json.loads(header["notes"])
    except (SafetensorError, ValueError, KeyError) as why:
        if isinstance(why, ParseError):
            raise
        raise ParseError(
            path, None, f"damaged ({why}); remove the file's folder to begin anew"
        ) from why

    def below(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    return State(below("weights."), below("optimiser."), notes)


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, model: torch.nn.Module
) -> dict[str, Tensor]:
    """The tensors of an optimiser, by the names of the parameters that they belong to.

    Args:
        optimiser: The optimiser.
        model: The model whose parameters it moves.

    Returns:
        Tensors by parameter name, dot, and what they are: ``exp_avg`` and ``exp_avg_sq``, float32
        of the parameter's shape such as ``(rows, columns)``, and ``step``, float32 ``()``.
    """
    found = {}
    for name, parameter in model.named_parameters():
        for what, value in optimiser.state.get(parameter, {}).items():
            found[f"{name}.{what}"] = value
    return found


def restore_optimiser(
    optimiser: torch.optim.Optimizer, model: torch.nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put an optimiser's tensors back.

    Args:
        optimiser: A fresh one, over the parameters of the model.
        model: The model.
        tensors: What `optimiser_tensors` gave, float32 ``(rows, columns)`` or so.
    """
    for name, parameter in model.named_parameters():
        own: dict[str, Any] = {}
        for key, value in tensors.items():
            if key.rpartition(".")[0] == name:
                what = key.rpartition(".")[2]
                # AdamW counts its steps on the CPU.
                own[what] = value.clone() if what == "step" else value.to(parameter.device)
        if own:
            optimiser.state[parameter] = own


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one step, so that what it draws depends on the seed and its number alone.

    Args:
        seed: The recipe's seed.
        step: The step's number.
    """
    import numpy as np
    import torch

    torch.manual_seed(
        int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
    )
