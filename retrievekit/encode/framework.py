"""`FrameworkEncoder`: every method of the unified framework of learned sparse retrieval.

Nguyen, MacAvaney and Yates (ECIR 2023, arXiv 2303.13416): a method is a query encoder, a document
encoder, a regulariser and a supervision; `METHODS` has each of their table as data. Two texts are
compared by ``sum_j w_q(j) * w_d(j)`` over the vocabulary. Special tokens and padding count for
nothing, and a token that comes twice counts once, with its larger weight.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.conventions import ROLES, Role
from retrievekit.encode.devices import run_settings
from retrievekit.encode.folders import ModelFolder, check_folder, content_of, find_folder
from retrievekit.encode.methods import METHODS, Head, Method, Repeats
from retrievekit.encode.quiet import without_bars
from retrievekit.encode.weighing import TermEncoder
from retrievekit.errors import DataError, ParseError, UnknownNameError
from retrievekit.protocols import EncoderCard

if TYPE_CHECKING:
    import torch

MAX_LENGTH = 250
"""Tokens of a text that the framework's experiments read."""


class FrameworkEncoder(TermEncoder):
    """An encoder of the framework, from a checkpoint.

    Checkpoints of the framework are folders of a ``config.json`` with ``"model_type":
    "DualEncoder"``, the encoders in ``shared_encoder`` or in ``query_encoder`` and ``doc_encoder``,
    and a ``tokenizer``; their own settings say which method they are. Any other folder is taken for
    one transformer with the parts that `method` needs: a masked language model, say, or the linear
    layer of uniCOIL and TILDEv2 (``tok_proj``). A part that is missing is an error; none is ever
    left untrained.

    Args:
        name: A model folder, or a hub id.
        method: A name of `METHODS` or a method; None for a checkpoint of the framework.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        batch_size: Texts that pass through the model together.
        revision: A branch, tag or commit of a hub model.
        max_length: Tokens of a text that are read; by default 250, or fewer where the model reads
            fewer.
        active: How many weights of a text are kept, the largest ones: ``{"document": 256}``. EPIC
            wants it for documents, which weigh every term of the vocabulary otherwise.
        repeats: How a token that comes twice in a query counts where it is weighed by position:
            ``max`` as in the paper, or ``sum`` as the framework's public code does for queries,
            for checkpoints whose published figures come from there.

    Raises:
        DataError: A parameter is none of these.
        UnknownNameError: No such method.
    """

    def __init__(
        self,
        name: str | Path,
        method: str | Method | None = None,
        *,
        device: str | None = None,
        batch_size: int = 32,
        revision: str | None = None,
        max_length: int | None = None,
        active: Mapping[Role, int] | None = None,
        repeats: Repeats = "max",
    ) -> None:
        super().__init__(str(name), batch_size, active)
        if isinstance(method, str):
            if method not in METHODS:
                raise UnknownNameError.among("method of learned sparse retrieval", method, METHODS)
            method = METHODS[method]
        if max_length is not None and max_length < 1:
            raise DataError(f"max_length is at least 1; got {max_length}")
        if repeats not in ("max", "sum"):
            raise DataError(f"repeats is 'max' or 'sum', not {repeats!r}")
        self.device = device
        self.revision = revision
        self.max_length = max_length
        self.repeats = repeats
        self._method = method
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"FrameworkEncoder({self.name!r})"

    @classmethod
    def from_card(cls, card: EncoderCard) -> FrameworkEncoder:
        """The encoder that a card describes, with the settings that are part of its identity.

        Args:
            card: A card that a `FrameworkEncoder` gave.

        Returns:
            The encoder, not yet loaded.
        """
        own = card.identity
        return cls(
            card.name,
            None if own["dual"] else _method_of(own["heads"]),
            revision=card.numerics.get("revision"),
            max_length=own["max_length"],
            active={role: most for role, most in own["active"].items() if most},
            repeats=own["repeats"],
        )

    @cached_property
    def folder(self) -> ModelFolder:
        """Where the model lies, found and looked through on first use.

        Raises:
            MissingDataError: There is no such model; the message says what to do.
            DataError: The folder holds what is not loaded, or does not say its method.
        """
        found = find_folder(self.name, self.revision)
        check_folder(found.path)
        return found

    @cached_property
    def dual(self) -> bool:
        """Whether the folder is a checkpoint of the framework, which says its own method."""
        return bool(_config(self.folder.path).get("model_type") == "DualEncoder")

    @cached_property
    def method(self) -> Method:
        """What is computed: as given, or as the checkpoint says.

        Raises:
            DataError: Neither, or both.
        """
        if self.dual and self._method is not None:
            raise DataError(f"{self.name}: the checkpoint says which method it is; give none")
        if self.dual:
            return _stored_method(self.folder.path)
        if self._method is None:
            raise DataError(
                f"{self.name}: no checkpoint of the framework; say which method it is for, one of "
                f"{', '.join(METHODS)}"
            )
        return self._method

    @property
    def heads(self) -> Mapping[Role, torch.nn.Module]:
        """The two encoders, loaded on first use; one and the same where the method shares it."""
        with self._loading:
            return self._heads

    @cached_property
    def _heads(self) -> Mapping[Role, torch.nn.Module]:
        from retrievekit.encode.checkpoints import load_heads

        with without_bars():
            return load_heads(self.folder.path, self.method, self.dual, self._device)

    @cached_property
    def _device(self) -> str:
        import torch

        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = self.folder.path
        inner = folder / "tokenizer"
        return AutoTokenizer.from_pretrained(
            str(inner if inner.is_dir() else folder), trust_remote_code=False, local_files_only=True
        )

    def tokenizer(self, role: Role) -> Any:
        """The tokenizer, one for both roles; loads it.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The tokenizer.
        """
        return self._tokenizer

    @cached_property
    def _written(self) -> torch.Tensor:
        """Ids of the special tokens that a text may spell out; [UNK] stands for its words."""
        import torch

        tokenizer = self._tokenizer
        ids = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        return torch.tensor(sorted(ids), dtype=torch.int64, device=self._device)

    @cached_property
    def _transformers(self) -> list[Any]:
        """The configurations of the transformers under the heads."""
        models = [getattr(head, "model", None) for head in self.heads.values()]
        return [model.config for model in models if model is not None]

    @cached_property
    def _limit(self) -> int:
        sizes = [getattr(c, "max_position_embeddings", None) for c in self._transformers]
        most = min(size for size in (*sizes, self._tokenizer.model_max_length) if size)
        if self.max_length is not None and self.max_length > most:
            raise DataError(
                f"{self.name}: max_length is {self.max_length}, but the model reads {most} tokens "
                "at most"
            )
        return self.max_length or min(MAX_LENGTH, most)

    def limit(self, role: Role) -> int | None:
        """Tokens of a text that are read, special tokens included; loads the model.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The number.
        """
        return self._limit

    @cached_property
    def size(self) -> int:
        """Columns of the vocabulary; loads the model."""
        sizes = [int(config.vocab_size) for config in self._transformers]
        return max(sizes, default=len(self._tokenizer))

    @property
    def run_settings(self) -> Mapping[str, Any]:
        """What the last bits hang on besides model and texts; kept beside what is encoded."""
        return run_settings(self.batch_size, (self.device,))

    @cached_property
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""
        folder = self.folder
        content = content_of(folder.path)
        deeper = sorted(folder.path.glob("*/config.json"))
        identity = {
            "class": "framework",
            "model": folder.model,
            **content,
            "configs": {f.parent.name: content_of(f.parent)["config"] for f in deeper},
            "dual": self.dual,
            "heads": {
                "query": asdict(self.method.query),
                "document": None if self.method.shared else asdict(self.method.head("document")),
            },
            "active": {role: self.active.get(role) for role in ROLES},
            "repeats": self.repeats,
            "max_length": self._limit,
            "size": self.size,
        }
        numerics = {"dtype": "float32", "backend": "torch", "revision": folder.revision}
        return EncoderCard(folder.name, identity, numerics)

    def _run(self, texts: list[str], role: Role) -> NDArray[np.float32]:
        import torch

        limit = self._limit
        with self._loading:  # the first text sets the tokenizer to cut, for all threads
            read = self._tokenizer(
                texts,
                padding=True,
                truncation=True,
                max_length=limit,
                return_special_tokens_mask=True,
                return_tensors="pt",
            ).to(self._device)
        repeats = self.repeats if role == "query" else "max"
        ids = read["input_ids"]
        # The tokenizer's own mask has only those that it put around a text.
        special = read["special_tokens_mask"] | torch.isin(ids, self._written)
        with torch.inference_mode():
            weights = self.heads[role](ids, read["attention_mask"], special, repeats)
        found: NDArray[np.float32] = weights.cpu().numpy()
        return found


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise DataError(f"{folder}: no config.json; this is no folder of a transformer")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as why:
        raise ParseError(path, None, f"not JSON: {why}") from why
    if not isinstance(content, dict):
        raise ParseError(path, None, "not a JSON object")
    return content


def _stored_method(folder: Path) -> Method:
    """The method that a checkpoint's settings describe."""
    if _config(folder).get("shared"):
        return Method(_stored_head(folder / "shared_encoder"))
    return Method(_stored_head(folder / "query_encoder"), _stored_head(folder / "doc_encoder"))


def _stored_head(folder: Path) -> Head:
    config = _config(folder)
    given: dict[str, Any] = {
        name: config[name] for name in ("activation", "norm", "pool", "scale") if name in config
    }
    kind = config.get("model_type")
    if kind != "MLM":
        given.pop("pool", None)
    for ours, theirs in (("importance", "term_importance"), ("quality", "doc_quality")):
        value = config.get(theirs, "no")
        if value not in ("no", "epic"):
            raise ParseError(folder / "config.json", None, f"{theirs} is {value!r}, not no or epic")
        given[ours] = value == "epic"
    try:
        return Head(kind, **given)  # type: ignore[arg-type]
    except DataError as why:
        raise ParseError(folder / "config.json", None, str(why)) from why


def _method_of(heads: Mapping[str, Any]) -> Method:
    document = heads["document"]
    return Method(Head(**heads["query"]), None if document is None else Head(**document))
