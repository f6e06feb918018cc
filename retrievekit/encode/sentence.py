"""`SentenceEncoder`: any dense model of sentence-transformers.

The constructor only keeps what it is told; the model, and torch with it, are loaded on first use.
Texts are encoded in batches of similar length, by torch in float32 unless told otherwise; what else
computes a model's layers is in `backends`. How the model is to be used is, in this order: what the
call says, what the model's own configuration says, what the table of known families says
(`conventions`), and else an assumption, which is told.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.backends.choices import (
    Backend,
    Choice,
    check_backend,
)
from retrievekit.encode.backends.chosen import chosen
from retrievekit.encode.backends.hardware import best_device
from retrievekit.encode.backends.samples import sample_of
from retrievekit.encode.batches import (
    BatchEncoder,
    Batching,
    Dtype,
    Encoded,
    EncodingStats,
    Lengths,
    by_parts,
    by_role,
    check_prompts,
    check_settings,
)
from retrievekit.encode.conventions import Role
from retrievekit.encode.devices import Device, devices_of, run_settings
from retrievekit.encode.folders import ModelFolder, check_folder, content_of, find_folder
from retrievekit.encode.kinds import check_kind_of, named_kind, other_kind
from retrievekit.encode.loading import Loaded, load, module_name
from retrievekit.encode.minilm import NAME as MINILM
from retrievekit.encode.minilm import minilm_folder
from retrievekit.encode.wiring import (
    POOLINGS,
    Asked,
    Wiring,
    check_loadable,
)
from retrievekit.errors import DataError
from retrievekit.protocols import EncoderCard, Similarity, similarity_named

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Encoded", "EncodingStats", "Role", "SentenceEncoder", "minilm"]


class SentenceEncoder(BatchEncoder):
    """A dense model of sentence-transformers by name.

    ``minilm`` is the packaged all-MiniLM-L6-v2 and needs no network. Other names are model folders
    or hub ids; the hub's cache is asked before the hub. A folder is looked through before it is
    loaded: only safetensors, no code of its own.

    In float32 the vector of a text depends on its companions in a batch by no more than 1e-5 in any
    component of a vector of length 1, whatever the backend; in bfloat16 and float16 by no more than
    0.01. Texts beyond the model's limit are cut, counted, and the count logged as a warning once
    per call. A text of which the tokenizer makes no token has a vector of zeros.

    Args:
        name: ``minilm``, a model folder, or a hub id.
        device: Such as ``cpu`` or ``cuda:1``, or a list of devices that share the work, with the
            vectors of one; by default the best there is.
        batch_size: Texts that pass through the model together.
        revision: A branch, tag or commit of a hub model.
        max_length: Tokens of a text that are read, for both roles or by role; by default, and at
            most, what the model reads.
        prompts: What is put before texts: ``{"query": ..., "document": ...}``; by default the
            model's own (for documents the first of its prompts ``document``, ``passage`` and
            ``corpus`` that is not empty), else its family's. Emptying a family's prompt warns.
        similarity: ``dot``, ``cosine`` or ``euclidean``; by default what the model names, else its
            family's, else cosine.
        dtype: ``float32``, ``bfloat16`` or ``float16``, in which the model computes; by default
            ``float32``, and with ``auto`` whichever is chosen.
        pooling: ``cls``, ``mean``, ``lasttoken``, ``max``, ``mean_sqrt_len_tokens`` or
            ``weightedmean``; by default the model's own, else its family's, else ``mean``, which
            warns.
        normalise: Whether vectors are brought to length 1; by default as the model, else its
            family, does.
        lower_case: Whether texts are lower-cased before the tokenizer; by default as the model or
            its family does.
        backend: What computes the model's layers: ``torch``; ``openvino`` or ``onnx``, on the CPU,
            with the extra of that name; or ``auto``, the fastest of those on this machine whose
            vectors are those of float32 (median cosine at least 0.9999, none below 0.9995). It is
            found on first use, on a few texts, and kept under ``RETRIEVEKIT_CACHE``. A model that
            cannot be converted is computed by torch, with a warning.

    Raises:
        DataError: A parameter is none of these.
    """

    def __init__(
        self,
        name: str | Path = MINILM,
        *,
        device: Device = None,
        batch_size: int = 32,
        revision: str | None = None,
        max_length: int | Mapping[Role, int | None] | None = None,
        prompts: Mapping[Role, str] | None = None,
        similarity: str | None = None,
        dtype: Dtype | None = None,
        pooling: str | None = None,
        normalise: bool | None = None,
        lower_case: bool | None = None,
        backend: Backend = "torch",
    ) -> None:
        check_settings(dtype or "float32", batch_size)
        check_backend(backend, dtype, devices_of(device))
        if pooling is not None and pooling not in POOLINGS:
            raise DataError(f"no pooling {pooling!r}; known: {', '.join(POOLINGS)}")
        check_prompts(prompts)
        self.name = str(name)
        self.device = device
        self.devices = devices_of(device)
        self.batch_size = batch_size
        self.revision = revision
        self.max_length = by_role(max_length, "max_length")
        self.prompts = None if prompts is None else dict(prompts)
        self.dtype = dtype
        self.pooling = pooling
        self.normalise = normalise
        self.lower_case = lower_case
        self._similarity = None if similarity is None else similarity_named(similarity)
        self.backend = backend
        self._loading = threading.Lock()
        self._loaded: Loaded | None = None

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"SentenceEncoder({self.name!r})"

    @classmethod
    def from_card(cls, card: EncoderCard) -> SentenceEncoder:
        """The encoder that a card describes, with the settings that are part of its identity.

        Args:
            card: A card that a `SentenceEncoder` gave.

        Returns:
            The encoder, not yet loaded.
        """
        own = card.identity
        given: dict[str, Any] = {
            name: own[name] for name in ("max_length", "prompts", "similarity") if own.get(name)
        }
        poolings = [re.match(r"Pooling\((\w+)[,)]", module) for module in own.get("modules", ())]
        given["pooling"] = next((found[1] for found in poolings if found), None)
        given["normalise"] = own.get("normalised")
        # Cards name it only where it is so; left open, the family would decide again.
        given["lower_case"] = own.get("lower_case", False)
        return cls(card.name, revision=card.numerics.get("revision"), **given)

    @cached_property
    def folder(self) -> ModelFolder:
        """Where the model lies, found and looked through on first use.

        Raises:
            MissingExtraError: ``minilm`` is not installed and cannot be fetched.
            MissingDataError: There is no such model; the message says what to do.
            CorruptIndexError: The weights of ``minilm`` are not the hub's.
            DataError: The folder holds what is not loaded, or a learned sparse model.
        """
        if self.name == MINILM:
            found = minilm_folder()
        else:
            if "/" in self.name and named_kind(self.name) == "sparse":
                raise other_kind(self.name, "dense")  # before it is fetched
            found = find_folder(self.name, self.revision)
        check_folder(found.path)
        check_kind_of(found, "dense")
        check_loadable(found)
        return found

    @property
    def model(self) -> SentenceTransformer:
        """The model, loaded on first use.

        Raises:
            DataError: `max_length` is beyond what the model reads.
        """
        return self._ready().model

    def _ready(self, texts: Sequence[str] = ()) -> Loaded:
        # Without a lock, two threads would load it twice.
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load(self._chosen(texts))
            return self._loaded

    def _chosen(self, texts: Sequence[str]) -> Choice:
        if self.backend != "auto":
            return Choice(self.backend, self.dtype or "float32")
        settings = {
            "model": content_of(self.folder.path),
            "pooling": self.pooling,
            "normalise": self.normalise,
            "prompts": self.prompts,
            "lower_case": self.lower_case,
            "max_length": self.max_length,
            "batch_size": self.batch_size,
            "devices": len(self.devices),
        }
        sample = sample_of(texts)
        return chosen(
            self.folder.name, settings, best_device(self.devices[0]), self.dtype,
            lambda choice: self._trial(choice, sample),
        )  # fmt: skip

    def _load(self, choice: Choice, *, tell: bool = True) -> Loaded:
        asked = Asked(
            pooling=self.pooling,
            normalise=self.normalise,
            lower_case=self.lower_case,
            similarity=self._similarity,
            prompts=self.prompts or {},
            max_length=self.max_length,
        )
        return load(self.folder, asked, choice, self.devices, tell=tell)

    def _trial(
        self, choice: Choice, texts: Sequence[str]
    ) -> Callable[[], NDArray[np.float32]] | None:
        if choice.backend != "torch" and len(self.devices) > 1:
            return None
        loaded = self._load(choice, tell=False)
        if loaded.choice != choice:
            return None
        if loaded.wiring.lower_case:
            texts = [text.lower() for text in texts]
        size = self.batch_size
        parts = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        return lambda: np.concatenate([self._run(loaded, part, "document") for part in parts])

    @property
    def wiring(self) -> Wiring:
        """How the model is used: prompts, lengths, similarity, and what was assumed; loads it."""
        return self._ready().wiring

    @property
    def run_settings(self) -> Mapping[str, Any]:
        """What the last bits hang on besides model and texts; kept beside what is encoded."""
        return run_settings(self.batch_size, self.devices)

    @cached_property
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""
        loaded, folder = self._ready(), self.folder
        model, choice = loaded.model, loaded.choice
        modules = [module_name(module, folder.path, i) for i, module in enumerate(model)]
        limits = set(self.wiring.limits.values())
        identity: dict[str, Any] = {
            "model": folder.model,
            **content_of(folder.path),
            "modules": modules,
            "normalised": modules[-1] == "Normalize",
            "prompts": dict(self.wiring.prompts),
            "similarity": self.similarity,
            "max_length": limits.pop() if len(limits) == 1 else dict(self.wiring.limits),
            "dim": self.dim,
        }
        if self.wiring.lower_case:
            identity["lower_case"] = True
        numerics = {
            "dtype": choice.dtype, "backend": choice.backend, "revision": folder.revision,
        }  # fmt: skip
        return EncoderCard(folder.name, identity, numerics)

    @cached_property
    def dim(self) -> int:
        """Components of each vector; loads the model."""
        dim = self.model.get_embedding_dimension()
        return self._run(self._ready(), [""], "document").shape[1] if dim is None else int(dim)

    @cached_property
    def similarity(self) -> Similarity:
        """How two vectors are compared; loads the model where it was not given."""
        return self._similarity or self.wiring.similarity

    def _batching(self, texts: Sequence[str], role: Role) -> Batching:
        loaded = self._ready(texts if role == "document" else ())
        if loaded.wiring.lower_case:
            texts = [text.lower() for text in texts]
        lengths = self._lengths(loaded, texts, role)
        sizes = np.asarray(lengths.sizes, np.int64)

        def run(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            some = rows[sizes[rows] > 0] if lengths.tokens else rows
            if len(some) == len(rows):
                return self._run(loaded, [texts[row] for row in rows], role)
            # Not one token, where a tokenizer adds none of its own: nothing to compute with.
            out = np.zeros((len(rows), self.dim), np.float32)
            if len(some):
                out[sizes[rows] > 0] = self._run(loaded, [texts[row] for row in some], role)
            return out

        return Batching(lengths, run, loaded.choice.dtype, len(self.devices))

    def _run(self, loaded: Loaded, texts: list[str], role: Role) -> NDArray[np.float32]:
        prompt = loaded.wiring.prompts[role]
        with loaded.copies.one() as model:
            encode = model.encode_query if role == "query" else model.encode_document
            out = encode(
                texts,
                prompt=prompt,
                batch_size=len(texts),
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return np.asarray(out, np.float32)

    def _lengths(self, loaded: Loaded, texts: Sequence[str], role: Role) -> Lengths:
        limit, prompt = loaded.wiring.limits[role], loaded.wiring.prompts[role]
        if loaded.counting is None:
            return Lengths([len(text) for text in texts], False, limit)
        lengths: list[int] = []
        for part in by_parts(texts):
            tokens = loaded.counting(
                [prompt + text for text in part],
                truncation=False,
                padding=False,
                return_attention_mask=False,
                verbose=False,
            )
            lengths += [len(ids) for ids in tokens["input_ids"]]
        return Lengths(lengths, True, limit)


def minilm() -> SentenceEncoder:
    """The packaged all-MiniLM-L6-v2, which needs no network.

    Returns:
        The encoder, not yet loaded.
    """
    return SentenceEncoder(MINILM)
