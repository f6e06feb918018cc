"""`CausalModel`: a decoder of transformers with its tokenizer, loaded with care on first use.

Folders are looked through before anything in them is loaded, as those of encoders are: safetensors
only, no code of their own.
"""

from __future__ import annotations

import hashlib
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from retrievekit.encode.folders import ModelFolder, check_folder, content_of, find_folder
from retrievekit.encode.quiet import without_bars
from retrievekit.errors import DataError
from retrievekit.stage import fingerprint_of

DTYPES = ("float32", "bfloat16", "float16", "float64")


class CausalModel:
    """A causal language model by folder or hub id, without its head.

    Args:
        name: A model folder or a hub id; the hub's cache is asked before the hub.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``, in which the model computes.
        revision: A branch, tag or commit of a hub model.

    Raises:
        DataError: No such dtype.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise DataError(f"no dtype {dtype!r} for models; known: {', '.join(DTYPES)}")
        self.name = str(name)
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self._loading = threading.Lock()
        self._given: tuple[Any, Any] | None = None

    @classmethod
    def of(cls, model: Any, tokenizer: Any, name: str) -> CausalModel:
        """A model that is in memory already.

        Args:
            model: A causal model of transformers; it is put into evaluation mode.
            tokenizer: Its tokenizer.
            name: What to call it.

        Returns:
            The model. Its fingerprint is made of its weights.
        """
        made = cls(name, device=str(model.device), dtype=str(model.dtype).removeprefix("torch."))
        made._given = (model.eval(), tokenizer)
        return made

    def __repr__(self) -> str:
        """The call that builds it."""
        dtype = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        return f"CausalModel({self.name!r}{dtype})"

    @cached_property
    def folder(self) -> ModelFolder:
        """Where the model lies, found and looked through on first use.

        Raises:
            MissingDataError: There is no such model; the message says what to do.
            DataError: The folder holds what is not loaded.
        """
        found = find_folder(self.name, self.revision)
        check_folder(found.path)
        return found

    @property
    def title(self) -> str:
        """What the model is called: the hub id, or the name of its folder."""
        return self.name if self._given else self.folder.model

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, tokenizer, settings and dtype, whatever the model is called."""
        if self._given is None:
            content = content_of(self.folder.path)
        else:
            model, tokenizer = self._given
            digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
            digest.update(str(tokenizer.chat_template).encode())
            for name, tensor in sorted(model.state_dict().items()):
                digest.update(f"{name}\0{tuple(tensor.shape)}\0".encode())
                digest.update(tensor.detach().cpu().double().numpy().tobytes())
            content = {"weights": digest.hexdigest(), "config": model.config.to_json_string()}
        return fingerprint_of({"content": content, "dtype": self.dtype})

    @property
    def decoder(self) -> Any:
        """The model without its head, loaded on first use."""
        with self._loading:
            return self._decoder

    @cached_property
    def _decoder(self) -> Any:
        model = self._given[0] if self._given else self._loaded()
        return model.get_decoder() or model

    def _loaded(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        with without_bars():
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(self.folder.path),
                dtype=getattr(torch, self.dtype),
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
            )
        return model.eval().to(device)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, loaded on first use."""
        if self._given:
            return self._given[1]
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(
            str(self.folder.path), trust_remote_code=False, local_files_only=True
        )

    @property
    def layers(self) -> int:
        """How many layers the model has; loads it."""
        return int(self.decoder.config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """How many heads each layer has; loads it."""
        return int(self.decoder.config.num_attention_heads)

    @property
    def limit(self) -> int | None:
        """Tokens that the model was made to read, or None when it does not tell; loads it."""
        limit = getattr(self.decoder.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)
