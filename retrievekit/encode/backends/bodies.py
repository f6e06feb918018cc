"""A transformer's layers handed to another runtime, with everything around them left to torch.

sentence-transformers tokenizes, pools and normalises; only the module between, from token ids to
the last hidden states, is replaced. What was converted is compared with torch before it is used,
on texts of other shapes than the one it was traced with: tracing keeps a branch that was taken once
for good.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from retrievekit.errors import DataError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

TOLERANCE = 1e-4
"""By how much a state may differ from torch's, both in float32, as a share of the largest."""

_TRACED = ["one two three four five six", "one"]
_COMPARED = (
    ["one"],
    ["two three", "", "four five six seven one"],
    # Longer than the window of any local attention, with much padding beside it.
    ["one two three four " * 120, "five six"],
)
_LONGEST = 512

Arrays = Sequence[NDArray[np.int64]]
Run = Callable[[Arrays], NDArray[np.float32]]
"""Last hidden states, float32 ``(n, t, h)``, of the inputs, each int64 ``(n, t)``."""


class UnconvertibleError(DataError):
    """A model whose layers no other runtime can be given; torch computes it."""


class Traced(nn.Module):
    """A transformer as a function from its inputs by place to the last hidden states.

    Args:
        network: The transformer.
        names: Its inputs in order, the first two or all of `INPUTS`.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The last hidden states, float32 ``(n, t, h)``, of inputs, int64 ``(n, t)``."""
        others = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        out = self.network(
            input_ids=input_ids, attention_mask=attention_mask, **others, return_dict=True
        )
        states: Tensor = out.last_hidden_state
        return states


class Body(nn.Module):
    """What stands in a transformer's place: another runtime's layers.

    Args:
        config: The transformer's configuration, which others read.
        names: Its inputs in order.
        run: Computes the last hidden states.
    """

    def __init__(self, config: Any, names: Sequence[str], run: Run) -> None:
        super().__init__()
        self.config = config
        self.names = tuple(names)
        self.run = run
        # A module without any parameter has no device and no dtype.
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)

    def forward(self, input_ids: Tensor, **others: Any) -> BaseModelOutput:
        """The last hidden states, float32 ``(n, t, h)``, of token ids, int64 ``(n, t)``."""
        given = {"input_ids": input_ids, **others}
        arrays = []
        for name in self.names:
            tensor = given.get(name)
            if tensor is None:
                tensor = torch.zeros_like(input_ids)
            arrays.append(np.ascontiguousarray(tensor.numpy(), np.int64))
        return BaseModelOutput(last_hidden_state=torch.from_numpy(self.run(arrays)))


class Runtime(ABC):
    """A runtime that layers can be handed to, in two steps with a file between."""

    @abstractmethod
    def convert(self, traced: Traced, example: tuple[Tensor, ...], folder: Path) -> None:
        """Write the layers into a folder, for any number of texts and tokens.

        Args:
            traced: The layers, on the CPU in float32.
            example: Inputs, int64 ``(n, t)``, of two texts of different lengths.
            folder: An empty folder.
        """

    @abstractmethod
    def load(self, folder: Path, dtype: str, threads: int) -> Run:
        """Make written layers ready to run.

        Args:
            folder: What `convert` wrote.
            dtype: In which they compute.
            threads: How many work on one batch.

        Returns:
            What computes.
        """


def inputs_of(transformer: Any) -> tuple[str, ...]:
    """The inputs that a transformer takes from its tokenizer.

    Args:
        transformer: The first module of a model of sentence-transformers.

    Returns:
        Their names, in a fixed order.

    Raises:
        UnconvertibleError: It reads something else than tokens, or gives something else than their
            states.
    """
    network = getattr(transformer, "model", None)
    tokenizer = getattr(transformer, "tokenizer", None)
    text = getattr(transformer, "modality_config", {}).get("text", {})
    if network is None or tokenizer is None or text.get("method") != "forward":
        raise UnconvertibleError("its first module is no transformer that reads tokens")
    if text.get("method_output_name") not in ("last_hidden_state", ("last_hidden_state",)):
        raise UnconvertibleError("its first module gives something else than hidden states")
    if getattr(network.config, "is_encoder_decoder", False):
        raise UnconvertibleError("it is an encoder with a decoder")
    known = set(tokenizer.model_input_names)
    taken = inspect.signature(network.forward).parameters
    names = tuple(name for name in INPUTS if name in known and name in taken)
    if names[:2] != INPUTS[:2]:
        raise UnconvertibleError("it takes no token ids and attention mask")
    return names


def tokens_of(transformer: Any, texts: list[str], names: Sequence[str]) -> tuple[Tensor, ...]:
    """The inputs of some texts.

    Args:
        transformer: The first module of a model of sentence-transformers.
        texts: The texts.
        names: The inputs in order.

    Returns:
        int64 ``(n, t)`` each.
    """
    limit = transformer.max_seq_length
    tokens = transformer.tokenizer(
        texts, padding=True, truncation=True, max_length=min(int(limit or _LONGEST), _LONGEST),
        return_tensors="pt",
    )  # fmt: skip
    return tuple(tokens[name] for name in names)


def convert(runtime: Runtime, transformer: Any, folder: Path) -> None:
    """Write a transformer's layers for a runtime, and compare them with torch's.

    Args:
        runtime: The runtime.
        transformer: The first module of a model of sentence-transformers, on the CPU in float32.
        folder: An empty folder.

    Raises:
        UnconvertibleError: The runtime does not take them, or computes something else.
    """
    names = inputs_of(transformer)
    traced = Traced(transformer.model, names).eval()
    example = tokens_of(transformer, _TRACED, names)
    with warnings.catch_warnings(), torch.inference_mode():
        # Tracing warns of each branch; whether they matter is compared below.
        warnings.simplefilter("ignore")
        try:
            runtime.convert(traced, example, folder)
            run = runtime.load(folder, "float32", torch.get_num_threads())
        except Exception as why:
            raise UnconvertibleError(f"conversion failed ({_first_line(why)})") from why
    for texts in _COMPARED:
        inputs = tokens_of(transformer, texts, names)
        with torch.inference_mode():
            expected = traced(*inputs).numpy()
        try:
            found = run([tensor.numpy() for tensor in inputs])
        except Exception as why:
            raise UnconvertibleError(f"the converted layers fail ({_first_line(why)})") from why
        seen = inputs[1].numpy() > 0
        far = np.abs(found[seen] - expected[seen]).max(initial=0.0)
        if not far <= TOLERANCE * max(1.0, np.abs(expected[seen]).max(initial=0.0)):
            how = "give NaN" if np.isnan(far) else f"differ from torch's by {far:.2g}"
            raise UnconvertibleError(f"the converted layers {how}")


def _first_line(why: BaseException) -> str:
    lines = str(why).strip().splitlines()
    return f"{type(why).__name__}: {lines[0][:160]}" if lines else type(why).__name__


def replace_layers(transformer: Any, run: Run) -> None:
    """Let a runtime compute a transformer's layers; torch's own weights are let go.

    Args:
        transformer: The first module of a model of sentence-transformers.
        run: What computes.
    """
    names = inputs_of(transformer)
    transformer.model = Body(transformer.model.config, names, run)
