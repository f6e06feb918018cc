"""`SpladeEncoder`: any sparse model of sentence-transformers, SPLADE and inference-free ones.

SPLADE (Formal et al. 2021, arXiv 2109.10086) weighs term j of a text by its masked-language-model
logits z over the positions i: ``w_j = max_i log(1 + ReLU(z_ij))``; OpenSearch's newer models put
log1p around it once more. Inference-free models (arXiv 2411.04403) give each token of a query its
idf, out of a table. Which of these a model is, its folder says. The library masks padding but not
special tokens, so those of [CLS] and [SEP] are in the weights, as such models were trained.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.batches import Dtype, check_settings
from retrievekit.encode.conventions import ROLES, Role
from retrievekit.encode.devices import run_settings
from retrievekit.encode.folders import ModelFolder, check_folder, content_of, find_folder
from retrievekit.encode.kinds import check_kind_of, named_kind, other_kind
from retrievekit.encode.weighing import TermEncoder
from retrievekit.errors import DataError
from retrievekit.protocols import EncoderCard

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

_PROMPT_NAMES: Mapping[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
# Settings of modules that appear or change while a model runs, or that only say where it lies.
_PASSING = ("embedding_dimension", "word_embedding_dimension", "chunk_size", "path")


class SpladeEncoder(TermEncoder):
    """A sparse model of sentence-transformers by name.

    Names are model folders or hub ids; the hub's cache is asked before the hub. A folder is looked
    through before it is loaded: only safetensors, no code of its own. A plain masked language model
    is taken for SPLADE with max pooling, as the library does.

    Args:
        name: A model folder, or a hub id.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        batch_size: Texts that pass through the model together.
        revision: A branch, tag or commit of a hub model.
        max_length: Tokens of a text that are read; by default, and at most, what the model reads.
        prompts: What is put before texts: ``{"query": ..., "document": ...}``; by default the
            model's own.
        active: How many weights of a text are kept, the largest ones: ``{"document": 256}``; by
            default all, or as many as the model's own settings say.
        dtype: ``float32``, ``bfloat16`` or ``float16``, in which the model computes.

    Raises:
        DataError: A parameter is none of these.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        device: str | None = None,
        batch_size: int = 32,
        revision: str | None = None,
        max_length: int | None = None,
        prompts: Mapping[Role, str] | None = None,
        active: Mapping[Role, int] | None = None,
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__(str(name), batch_size, active)
        check_settings(dtype, batch_size)
        if max_length is not None and max_length < 1:
            raise DataError(f"max_length is at least 1; got {max_length}")
        strangers = set(prompts or ()) - set(_PROMPT_NAMES)
        if strangers:
            raise DataError(f"prompts are for 'query' and 'document'; got {sorted(strangers)}")
        self.device = device
        self.revision = revision
        self.max_length = max_length
        self.prompts = None if prompts is None else dict(prompts)
        self.dtype = dtype
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"SpladeEncoder({self.name!r})"

    @classmethod
    def from_card(cls, card: EncoderCard) -> SpladeEncoder:
        """The encoder that a card describes, with the settings that are part of its identity.

        Args:
            card: A card that a `SpladeEncoder` gave.

        Returns:
            The encoder, not yet loaded.
        """
        own = card.identity
        return cls(
            card.name,
            revision=card.numerics.get("revision"),
            max_length=own["max_length"],
            prompts=own["prompts"],
            active={role: most for role, most in own["active"].items() if most},
        )

    @cached_property
    def folder(self) -> ModelFolder:
        """Where the model lies, found and looked through on first use.

        Raises:
            MissingDataError: There is no such model; the message says what to do.
            DataError: The folder holds what is not loaded, or a dense model.
        """
        if "/" in self.name and named_kind(self.name) == "dense":
            raise other_kind(self.name, "sparse")  # before it is fetched
        found = find_folder(self.name, self.revision)
        check_folder(found.path)
        check_kind_of(found, "sparse")
        return found

    @property
    def model(self) -> SparseEncoder:
        """The model, loaded on first use.

        Raises:
            DataError: `max_length` is beyond what the model reads, or it is no sparse model.
        """
        # A cached_property without a lock would load twice in two threads.
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> SparseEncoder:
        folder = self.folder.path
        from sentence_transformers import SparseEncoder

        from retrievekit.encode.quiet import read_whole

        with read_whole(folder):
            model = SparseEncoder(
                str(folder),
                device=self.device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": self.dtype, "use_safetensors": True},
            )
        model.eval()
        own = (folder / "modules.json").is_file()
        if not own and not any(type(module).__name__ == "SpladePooling" for module in model):
            raise DataError(
                f"{self.name}: neither a sparse model of sentence-transformers nor a masked "
                "language model; the library would put untrained layers on top"
            )
        if self.max_length is not None:
            limits = [limit for role in ROLES if (limit := _limit(_first(model, role)))]
            if limits and self.max_length > max(limits):
                raise DataError(
                    f"{self.name}: max_length is {self.max_length}, but the model reads "
                    f"{max(limits)} tokens at most"
                )
            model.max_seq_length = self.max_length
        for role in ROLES:
            # The first text sets the tokenizer to cut: better now than when threads share it.
            _first(model, role).preprocess(["a"])
        return model

    @property
    def run_settings(self) -> Mapping[str, Any]:
        """What the last bits hang on besides model and texts; kept beside what is encoded."""
        return run_settings(self.batch_size, (self.device,))

    @cached_property
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""
        model, folder = self.model, self.folder
        limits = {role: self.limit(role) for role in ROLES}
        identity = {
            "class": "splade",
            "model": folder.model,
            **content_of(folder.path),
            "configs": _configs(folder.path),
            "modules": _names(model),
            "prompts": {role: self._prompt(role) for role in ROLES},
            "active": {role: self.active.get(role, model.max_active_dims) for role in ROLES},
            "limits": limits,
            "max_length": self.max_length,
            "size": self.size,
        }
        numerics = {"dtype": self.dtype, "backend": "torch", "revision": folder.revision}
        return EncoderCard(folder.name, identity, numerics)

    @cached_property
    def size(self) -> int:
        """Columns of the vocabulary; loads the model."""
        return int(self._run(["a"], "document").shape[1])

    def tokenizer(self, role: Role) -> Any:
        """The tokenizer of a role, or None where the model has none of transformers.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The tokenizer.
        """
        from transformers import PreTrainedTokenizerBase

        found = getattr(_first(self.model, role), "tokenizer", None)
        return found if isinstance(found, PreTrainedTokenizerBase) else None

    def limit(self, role: Role) -> int | None:
        """Tokens of a text that are read, special tokens included; None without a limit.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The number.
        """
        return _limit(_first(self.model, role))

    def _specials(self, role: Role) -> bool:
        # The table of an inference-free model looks at the words alone.
        return type(_first(self.model, role)).__name__ != "SparseStaticEmbedding"

    def _prompt(self, role: Role) -> str:
        if self.prompts is not None and role in self.prompts:
            return self.prompts[role]
        known = self.model.prompts
        names = (*_PROMPT_NAMES[role], self.model.default_prompt_name or "")
        return next((known[name] for name in names if known.get(name)), "") or ""

    def _run(self, texts: list[str], role: Role) -> NDArray[np.float32]:
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        out = encode(
            texts,
            prompt=self._prompt(role),
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_sparse_tensor=False,
            save_to_cpu=True,
        )
        found: NDArray[np.float32] = out.float().numpy()
        return found


def _first(model: SparseEncoder, role: Role) -> Any:
    """The module that reads texts of a role."""
    first: Any = model[0]
    if type(first).__name__ != "Router":
        return first
    return first.sub_modules[first._resolve_route_name(role, "text")][0]


def _limit(module: Any) -> int | None:
    limit = getattr(module, "max_seq_length", None)
    # Some tokenizers say "no limit" by a huge number, some modules by infinity.
    return None if limit is None or limit > 10**9 else int(limit)


def _configs(folder: Path) -> dict[str, str]:
    """Hashes of the settings that lie deeper in a folder, where the parts of a router are."""
    deeper = sorted(folder.glob("*/config.json"))
    return {f.parent.name: content_of(f.parent)["config"] for f in deeper}


def _names(model: SparseEncoder) -> list[str]:
    """The modules of a model with what weights depend on besides the weights of its layers."""
    return [_name(module) for module in model]


def _name(module: Any) -> str:
    kind = type(module).__name__
    if kind == "Router":
        routes = (
            f"{role}={'+'.join(map(_name, route))}" for role, route in module.sub_modules.items()
        )
        return f"Router({', '.join(routes)})"
    if kind in ("Transformer", "MLMTransformer"):
        return "Transformer"
    config = sorted(_settings(module))
    return kind + (f"({', '.join(config)})" if config else "")


def _settings(module: Any) -> Iterator[str]:
    config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    for key, value in config.items():
        if key not in _PASSING:
            yield f"{key}={value!r}"
