"""`Tower`: what encoders share that drive a transformer themselves, without sentence-transformers.

Their checkpoints need a head or an input that sentence-transformers has no module for. Every weight
is taken from the file by its name, and one that is missing is an error: a part that starts at
random still gives vectors, only meaningless ones.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.backends.hardware import found_device
from retrievekit.encode.batches import (
    BatchEncoder,
    Batching,
    Dtype,
    Lengths,
    by_parts,
    by_role,
    check_room,
    check_settings,
)
from retrievekit.encode.conventions import ROLES, Role
from retrievekit.encode.devices import run_settings
from retrievekit.encode.folders import (
    ModelFolder,
    check_folder,
    content_of,
    find_folder,
    weight_files,
)
from retrievekit.errors import DataError
from retrievekit.protocols import EncoderCard, Similarity

if TYPE_CHECKING:
    import torch

SAFE_TORCH = (2, 10)
"""The torch from which unpickling nothing but tensors is safe (GHSA-63cw-57p8-fm3p)."""


class Tower(BatchEncoder):
    """One transformer and its way from texts to vectors, compared by dot product.

    In float32 the vector of a text depends on its companions in a batch by rounding only. Texts
    beyond the limit are cut, counted, and the count logged as a warning once per call.

    Args:
        name: A model folder or a hub id; by default `default`.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        batch_size: Texts that pass through the model together.
        revision: A branch, tag or commit of a hub model.
        max_length: Tokens of a text that are read, for both roles or by role; by default the
            family's.
        dtype: ``float32``, ``bfloat16`` or ``float16``, in which the model computes.
        allow_pickle: Whether weights may come from ``pytorch_model.bin`` where there are no
            safetensors; nothing but tensors is unpickled, with torch 2.10 or newer.

    Raises:
        DataError: A parameter is none of these.
    """

    kind: ClassVar[str]
    """What cards call the class."""

    default: ClassVar[str]
    """The hub id of the family's best known model."""

    lengths: ClassVar[Mapping[Role, int]]
    """Tokens that the family reads."""

    def __init__(
        self,
        name: str | Path | None = None,
        *,
        device: str | None = None,
        batch_size: int = 32,
        revision: str | None = None,
        max_length: int | Mapping[Role, int] | None = None,
        dtype: Dtype = "float32",
        allow_pickle: bool = False,
    ) -> None:
        check_settings(dtype, batch_size)
        self.name = self.default if name is None else str(name)
        self.device = device
        self.batch_size = batch_size
        self.revision = revision
        self.max_length = self._lengths_of(max_length)
        self.dtype = dtype
        self.allow_pickle = allow_pickle
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"{type(self).__name__}({self.name!r})"

    @classmethod
    def _lengths_of(cls, asked: int | Mapping[Role, int] | None) -> dict[Role, int]:
        given = by_role(asked, "max_length")
        return {role: given[role] or cls.lengths[role] for role in ROLES}

    @classmethod
    def from_card(cls, card: EncoderCard) -> Self:
        """The encoder that a card describes.

        Args:
            card: A card that an encoder of this class gave.

        Returns:
            The encoder, not yet loaded. It unpickles nothing: for pickled weights build it
            yourself.
        """
        return cls(
            card.name,
            revision=card.numerics.get("revision"),
            max_length=dict(card.identity["max_length"]),
        )

    @cached_property
    def folder(self) -> ModelFolder:
        """Where the model lies, found and looked through on first use.

        Raises:
            MissingDataError: There is no such model.
            DataError: The folder holds what is not loaded.
        """
        found = find_folder(self.name, self.revision, allow_pickle=self.allow_pickle)
        if not weight_files(found.path, allow_pickle=self.allow_pickle):
            raise DataError(
                f"{found.path}: no weights in the safetensors format. Convert them, or, where you "
                f"trust its pytorch_model.bin, say {type(self).__name__}({self.name!r}, "
                "allow_pickle=True)"
            )
        check_folder(found.path, allow_pickle=self.allow_pickle)
        return found

    @property
    def network(self) -> torch.nn.Module:
        """The transformer with its head, loaded on first use."""
        # A cached_property without a lock would load twice in two threads.
        with self._loading:
            return self._network

    @cached_property
    def _network(self) -> torch.nn.Module:
        import torch

        for role in ROLES:
            check_room(self.name, role, self.max_length[role], len(self._tokens([""], role)[0]))
        weights = read_weights(self.folder.path, allow_pickle=self.allow_pickle)
        network = self._built(weights)
        dtype: torch.dtype = getattr(torch, self.dtype)
        return network.to(device=found_device(self.device), dtype=dtype).eval()

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the folder.

        Raises:
            DataError: The folder has none.
        """
        from transformers import AutoTokenizer

        path = self.folder.path
        whole = [["tokenizer.json"], ["vocab.txt"], ["vocab.json", "merges.txt"]]
        if not any(all((path / file).is_file() for file in files) for files in whole):
            raise DataError(
                f"{path}: no tokenizer (tokenizer.json, vocab.txt, or vocab.json with merges.txt); "
                "copy these files from the model that this one was trained from"
            )
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)

    @property
    def run_settings(self) -> Mapping[str, Any]:
        """What the last bits hang on besides model and texts; kept beside what is encoded."""
        return run_settings(self.batch_size, (self.device,))

    @cached_property
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""
        folder = self.folder
        identity = {
            "class": self.kind,
            "model": folder.model,
            **content_of(folder.path, allow_pickle=self.allow_pickle),
            **self._conventions(),
            "normalised": False,
            "similarity": self.similarity,
            "max_length": dict(self.max_length),
            "dim": self.dim,
        }
        numerics = {"dtype": self.dtype, "backend": "torch", "revision": folder.revision}
        return EncoderCard(folder.name, identity, numerics)

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return "dot"

    def _batching(self, texts: Sequence[str], role: Role) -> Batching:
        tokens: list[NDArray[np.int32]] = []
        sizes: list[int] = []
        for part in by_parts(texts):
            for ids in self._tokens(part, role):
                sizes.append(len(ids))
                tokens.append(np.asarray(self._cut(ids, role), np.int32))
        return Batching(
            Lengths(sizes, True, self.max_length[role]),
            lambda rows: self._run([tokens[row] for row in rows], role),
            self.dtype,
        )

    @abstractmethod
    def _built(self, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        """The network with these weights."""

    @abstractmethod
    def _conventions(self) -> dict[str, Any]:
        """What else decides the vectors, for the card."""

    @abstractmethod
    def _tokens(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """The token ids of texts, whole, special tokens included."""

    @abstractmethod
    def _cut(self, ids: list[int], role: Role) -> list[int]:
        """What the model reads of these ids."""

    @abstractmethod
    def _vectors(self, ids: torch.Tensor, mask: torch.Tensor, role: Role) -> torch.Tensor:
        """Vectors ``(n, dim)`` of padded token ids ``(n, t)`` under a mask of the same shape."""

    def _run(self, batch: list[NDArray[np.int32]], role: Role) -> NDArray[np.float32]:
        import torch

        network = self.network
        length = max(map(len, batch))
        pad = getattr(network.config, "pad_token_id", None)
        ids = np.full((len(batch), length), 0 if pad is None else int(pad), np.int64)
        mask = np.zeros((len(batch), length), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        device = next(network.parameters()).device
        with torch.inference_mode():
            out = self._vectors(
                torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), role
            )
            return np.asarray(out.float().cpu().numpy(), np.float32)


def read_weights(path: Path, *, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """All weights of a model folder by name.

    Args:
        path: The folder, looked through already.
        allow_pickle: Whether pickled weights are read where there are no safetensors.

    Returns:
        Tensors of any shape ``(...,)`` and dtype by name.

    Raises:
        DataError: Pickled weights, and this torch does not read them safely; or a file that holds
            no weights.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(path, allow_pickle=allow_pickle):
        try:
            if file.suffix == ".safetensors":
                weights.update(load_file(file))
                continue
            version = tuple(int(part) for part in torch.__version__.split(".")[:2])
            if version < SAFE_TORCH:
                raise DataError(
                    f"{file}: pickled weights are read with torch "
                    f"{'.'.join(map(str, SAFE_TORCH))} or newer only; this is {torch.__version__}"
                )
            # Checkpoints older than safetensors may be pickles alone. They are read when the caller
            # said allow_pickle, and from SAFE_TORCH on, where nothing but tensors is made of them.
            found = torch.load(file, map_location="cpu", weights_only=True)
        except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as why:
            if isinstance(why, DataError):
                raise
            raise DataError(f"{file}: no weights that can be read ({why})") from why
        except Exception as why:
            # UnpicklingError where the file holds more than tensors; its module is not imported.
            if type(why).__name__ != "UnpicklingError":
                raise
            raise DataError(f"{file}: holds more than tensors, and is not loaded") from why
        if not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in found.items()
        ):
            raise DataError(f"{file}: not tensors by name, and not loaded")
        weights.update(found)
    return weights


def fill(
    module: torch.nn.Module,
    weights: Mapping[str, torch.Tensor],
    prefix: str,
    where: str,
) -> None:
    """Give a module its weights; nothing keeps the random values it was built with.

    Args:
        module: The module.
        weights: Weights by name, of any shape ``(...,)`` and dtype.
        prefix: What the names of this module's begin with.
        where: The folder, for messages.

    Raises:
        DataError: A weight is missing or has another shape.
    """
    own = module.state_dict()
    named = {key.removeprefix(prefix): value for key, value in weights.items()
             if key.startswith(prefix)}  # fmt: skip
    missing = sorted(key for key in own if key not in named)
    if missing:
        some = ", ".join(prefix + key for key in missing[:3])
        raise DataError(
            f"{where}: {len(missing)} weights are missing, such as {some}; they would start at "
            "random. Is this a checkpoint of another architecture?"
        )
    for key, value in own.items():
        if named[key].shape != value.shape:
            raise DataError(
                f"{where}: {prefix}{key} has the shape {tuple(named[key].shape)}, but "
                f"config.json asks for {tuple(value.shape)}"
            )
    module.load_state_dict({key: named[key] for key in own})
