"""`SentenceEncoder`: any dense model of sentence-transformers.

The constructor only keeps what it is told; the model, and torch with it, are loaded on first use.
Texts are encoded in batches of similar length, in float32 unless told otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrievekit.cuts import report_cuts
from retrievekit.encode.folders import ModelFolder, check_folder, content_of, find_folder
from retrievekit.encode.minilm import NAME as MINILM
from retrievekit.encode.minilm import minilm_folder
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.protocols import EncoderCard, Progress, Similarity, similarity_named

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Role = Literal["query", "document"]

_DTYPES = ("float32", "bfloat16", "float16")
# Names under which models keep the prompt of each role; the first that is not empty counts.
_PROMPT_NAMES: Mapping[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
TOKENIZED_AT_A_TIME = 1024


@dataclass(frozen=True)
class EncodingStats:
    """What happened to the texts of one call.

    Args:
        texts: Texts given.
        tokens: Tokens of all texts before cutting, special tokens and prompt included; 0 where the
            model's tokenizer does not tell.
        cut: Texts longer than the limit, of which the rest was left out.
        limit: Tokens that fit, or None where the model has no limit.
    """

    texts: int
    tokens: int
    cut: int
    limit: int | None


@dataclass(frozen=True)
class Encoded:
    """Vectors and what happened to their texts.

    Args:
        vectors: float32 ``(n, dim)``.
        stats: Counts.
    """

    vectors: NDArray[np.float32]
    stats: EncodingStats


class SentenceEncoder:
    """A dense model of sentence-transformers by name.

    ``minilm`` is the packaged all-MiniLM-L6-v2 and needs no network. Other names are model folders
    or hub ids; the hub's cache is asked before the hub. A folder is looked through before it is
    loaded: only safetensors, no code of its own.

    In float32 the vector of a text depends on its companions in a batch by no more than 1e-5 in any
    component of a vector of length 1. Texts beyond the model's limit are cut, counted, and the
    count logged as a warning once per call.

    Args:
        name: ``minilm``, a model folder, or a hub id.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        batch_size: Texts that pass through the model together.
        revision: A branch, tag or commit of a hub model.
        max_length: Tokens of a text that are read; by default, and at most, what the model reads.
        prompts: What is put before texts: ``{"query": ..., "document": ...}``; by default the
            model's own (for documents the first of its prompts ``document``, ``passage`` and
            ``corpus`` that is not empty).
        similarity: ``dot``, ``cosine`` or ``euclidean``; by default what the model names, else
            cosine.
        dtype: ``float32``, ``bfloat16`` or ``float16``, in which the model computes.

    Raises:
        DataError: A parameter is none of these.
    """

    def __init__(
        self,
        name: str | Path = MINILM,
        *,
        device: str | None = None,
        batch_size: int = 32,
        revision: str | None = None,
        max_length: int | None = None,
        prompts: Mapping[Role, str] | None = None,
        similarity: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        if dtype not in _DTYPES:
            raise DataError(f"no dtype {dtype!r} for models; known: {', '.join(_DTYPES)}")
        if batch_size < 1 or (max_length is not None and max_length < 1):
            raise DataError(
                f"batch_size and max_length are at least 1; got {batch_size} and {max_length}"
            )
        strangers = set(prompts or ()) - set(_PROMPT_NAMES)
        if strangers:
            raise DataError(f"prompts are for 'query' and 'document'; got {sorted(strangers)}")
        self.name = str(name)
        self.device = device
        self.batch_size = batch_size
        self.revision = revision
        self.max_length = max_length
        self.prompts = None if prompts is None else dict(prompts)
        self.dtype = dtype
        self._similarity = None if similarity is None else similarity_named(similarity)
        self._loading = threading.Lock()

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
        return cls(card.name, revision=card.numerics.get("revision"), **given)

    @cached_property
    def folder(self) -> ModelFolder:
        """Where the model lies, found and looked through on first use.

        Raises:
            MissingExtraError: ``minilm`` is not installed and cannot be fetched.
            MissingDataError: There is no such model; the message says what to do.
            CorruptIndexError: The weights of ``minilm`` are not the hub's.
            DataError: The folder holds what is not loaded.
        """
        if self.name == MINILM:
            found = minilm_folder()
        else:
            found = find_folder(self.name, self.revision)
        check_folder(found.path)
        return found

    @property
    def model(self) -> SentenceTransformer:
        """The model, loaded on first use.

        Raises:
            DataError: `max_length` is beyond what the model reads.
        """
        # A cached_property without a lock would load twice in two threads.
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> SentenceTransformer:
        folder = self.folder.path
        from sentence_transformers import SentenceTransformer

        with _quietly():
            model = SentenceTransformer(
                str(folder),
                device=self.device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": self.dtype, "use_safetensors": True},
            )
        model.eval()
        if self.max_length is not None:
            limit = _limit(model)
            if limit is not None and self.max_length > limit:
                raise DataError(
                    f"{self.name}: max_length is {self.max_length}, but the model reads {limit} "
                    "tokens at most"
                )
            model.max_seq_length = self.max_length
        return model

    @cached_property
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""
        model, folder = self.model, self.folder
        modules = [_module_name(module, folder.path, i) for i, module in enumerate(model)]
        identity = {
            "model": folder.model,
            **content_of(folder.path),
            "modules": modules,
            "normalised": modules[-1] == "Normalize",
            "prompts": {role: self._prompt(role) for role in _PROMPT_NAMES},
            "similarity": self.similarity,
            "max_length": _limit(model),
            "dim": self.dim,
        }
        numerics = {"dtype": self.dtype, "backend": "torch", "revision": folder.revision}
        return EncoderCard(folder.name, identity, numerics)

    @cached_property
    def dim(self) -> int:
        """Components of each vector; loads the model."""
        dim = self.model.get_embedding_dimension()
        return self._run([""], "document").shape[1] if dim is None else int(dim)

    @cached_property
    def similarity(self) -> Similarity:
        """How two vectors are compared; loads the model where it was not given."""
        return self._similarity or similarity_named(self.model.similarity_fn_name)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self.encode(texts, "query").vectors

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self.encode(texts, "document").vectors

    def encode(
        self, texts: Sequence[str], role: Role, *, progress: Progress | None = None
    ) -> Encoded:
        """Vectors of texts in one of the two roles, and how many texts were cut.

        Args:
            texts: The texts, possibly empty ones, possibly none.
            role: ``query`` or ``document``.
            progress: Called with the number of texts done after each batch.

        Returns:
            Vectors float32 ``(n, dim)`` in the order of the texts, and counts.

        Raises:
            DataError: A text is no string or no valid Unicode, or the role is unknown.
            NonFiniteError: The model gave NaN or infinity; names the text.
            EncoderContractError: The model gave vectors of another size than it says.
        """
        if role not in _PROMPT_NAMES:
            raise DataError(f"no role {role!r}; known: {', '.join(_PROMPT_NAMES)}")
        _check_texts(texts, role)
        limit = _limit(self.model)
        vectors = np.empty((len(texts), self.dim), np.float32)
        lengths, counted = self._lengths(texts, role)
        cut = sum(length > limit for length in lengths) if counted and limit is not None else 0
        # The longest first, so that too large a batch fails at once and not at the end.
        order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
        for start in range(0, len(texts), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self._run([texts[row] for row in rows], role)
            if batch.shape != (len(rows), self.dim):
                raise EncoderContractError(
                    f"{self.name}: {len(rows)} texts gave an array of shape {batch.shape}, not "
                    f"({len(rows)}, {self.dim})"
                )
            bad = np.flatnonzero(~np.isfinite(batch).all(axis=1))
            if len(bad):
                row = int(rows[bad[0]])
                hint = "its weights may be damaged"
                if self.dtype != "float32":
                    hint = f"{self.dtype} may be too narrow, try dtype='float32'"
                raise NonFiniteError(
                    f"the vector of {role} {row} ({texts[row][:60]!r}) holds NaN or infinity; "
                    f"{self.name}: {hint}"
                )
            vectors[rows] = batch
            if progress is not None:
                progress(min(start + self.batch_size, len(texts)), len(texts))
        if cut and limit is not None:
            report_cuts(self.name, role, limit, cut, len(texts))
        return Encoded(
            vectors, EncodingStats(len(texts), sum(lengths) if counted else 0, cut, limit)
        )

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
            convert_to_numpy=True,
        )
        return np.asarray(out, np.float32)

    def _lengths(self, texts: Sequence[str], role: Role) -> tuple[list[int], bool]:
        """The length of each text, and whether it is in tokens (otherwise in characters)."""
        from transformers import PreTrainedTokenizerBase

        tokenizer: Any = getattr(self.model, "tokenizer", None)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            return [len(text) for text in texts], False
        prompt = self._prompt(role)
        lengths: list[int] = []
        for start in range(0, len(texts), TOKENIZED_AT_A_TIME):
            part = [prompt + text for text in texts[start : start + TOKENIZED_AT_A_TIME]]
            tokens = tokenizer(
                part,
                truncation=False,
                padding=False,
                return_attention_mask=False,
                verbose=False,
            )
            lengths += [len(ids) for ids in tokens["input_ids"]]
        return lengths, True


def minilm() -> SentenceEncoder:
    """The packaged all-MiniLM-L6-v2, which needs no network.

    Returns:
        The encoder, not yet loaded.
    """
    return SentenceEncoder(MINILM)


def _limit(model: SentenceTransformer) -> int | None:
    limit = model.max_seq_length
    # Some tokenizers say "no limit" by a huge number, some modules by infinity.
    return None if limit is None or limit > 10**9 else int(limit)


def _module_name(module: Any, folder: Path, place: int) -> str:
    """The class of a module with what its vectors depend on besides the weights."""
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


def _check_texts(texts: Sequence[str], role: Role) -> None:
    if isinstance(texts, str):
        raise DataError("texts is one string; give a list of strings")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{role} {row} is {text!r} ({type(text).__name__}), not a string")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as why:
            raise DataError(
                f"{role} {row} holds a lone surrogate at character {why.start}; it is not valid "
                "Unicode"
            ) from why


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No progress bar of transformers while weights are read: it takes less than a second."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
