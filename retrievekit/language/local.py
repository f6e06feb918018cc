"""`LocalModel`: a model of transformers with its tokenizer, loaded with care on first use.

Folders are looked through before anything in them is loaded, as those of encoders are: safetensors
only, no code of their own.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from retrievekit.encode.folders import ModelFolder, check_folder, content_of, find_folder
from retrievekit.encode.quiet import without_bars
from retrievekit.errors import DataError, LimitError
from retrievekit.language.chat import Chat
from retrievekit.language.specials import special_texts
from retrievekit.stage import fingerprint_of

if TYPE_CHECKING:
    from retrievekit.language.sampling import Sampler

DTYPES = ("float32", "bfloat16", "float16", "float64")
TOKENS_AT_ONCE = 16_384
"""Tokens of one batch, padding included; a longer prompt makes a batch of its own."""

_TAIL = 48
"""Characters at a text's end that decide how what follows is cut into tokens."""

Self = TypeVar("Self", bound="LocalModel")


class LocalModel(ABC):
    """What decoders and encoder-decoders share.

    Args:
        name: A model folder or a hub id; the hub's cache is asked before the hub.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``, in which the model computes.
        revision: A branch, tag or commit of a hub model.
        temperature: 0 always takes the likeliest token; above it, tokens are drawn.
        top_k: How many of the likeliest tokens are drawn from; None draws from all.
        seed: What draws depend on besides the prompt; a chat's companions do not matter, but one
            given several times gets several draws.
        tokens_at_once: Tokens of one batch, padding included.

    Raises:
        DataError: No such dtype, or a number out of range.
    """

    _auto: ClassVar[str]
    """The class of transformers that loads such models."""
    _what: ClassVar[str]
    """What such a model is called."""
    _instead: ClassVar[str]
    """What to do with a model that is none."""

    def __init__(
        self,
        name: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
        tokens_at_once: int = TOKENS_AT_ONCE,
    ) -> None:
        if dtype not in DTYPES:
            raise DataError(f"no dtype {dtype!r} for models; known: {', '.join(DTYPES)}")
        if not temperature >= 0 or tokens_at_once < 1 or (top_k is not None and top_k < 1):
            raise DataError(
                "temperature is at least 0, top_k and tokens_at_once are at least 1; got "
                f"{temperature}, {top_k} and {tokens_at_once}"
            )
        self.name = str(name)
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.temperature = temperature
        self.top_k = top_k
        self.seed = seed
        self.tokens_at_once = tokens_at_once
        self._loading = threading.Lock()
        self._given: tuple[Any, Any] | None = None

    @classmethod
    def of(cls: type[Self], model: Any, tokenizer: Any, name: str, **settings: Any) -> Self:
        """A model that is in memory already.

        Args:
            model: A model of transformers; it is put into evaluation mode.
            tokenizer: Its tokenizer.
            name: What to call it.
            settings: Other arguments of the class.

        Returns:
            The model. Its fingerprint is made of its weights.
        """
        dtype = str(model.dtype).removeprefix("torch.")
        made = cls(name, device=str(model.device), dtype=dtype, **settings)
        made._given = (model.eval(), tokenizer)
        return made

    def __repr__(self) -> str:
        """The call that builds it: the name, and what is not the default."""
        plain: dict[str, Any] = {"dtype": "float32"}
        shown = {"dtype": self.dtype, **self._asked()}
        told = [f", {key}={value!r}" for key, value in shown.items() if plain.get(key) != value]
        return f"{type(self).__name__}({self.name!r}{''.join(told)})"

    def _asked(self) -> dict[str, Any]:
        """Settings that change answers, where they are not the default."""
        if not self.temperature:
            return {}
        return {"temperature": self.temperature, "top_k": self.top_k, "seed": self.seed}

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
        return fingerprint_of({"content": content, "dtype": self.dtype, **self._asked()})

    @property
    def whole(self) -> Any:
        """The model with its head, loaded on first use."""
        with self._loading:
            return self._whole

    @cached_property
    def _whole(self) -> Any:
        return self._given[0] if self._given else self._loaded()

    def _loaded(self, head: bool = True) -> Any:
        """The model from its folder, all of its weights; without need of a head also one without.

        Raises:
            DataError: It is of another kind, or its folder lacks weights, which would be random.
        """
        import torch
        import transformers

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        config = self.config  # which tells models of another kind
        with without_bars():
            found: Any = getattr(transformers, self._auto).from_pretrained(
                str(self.folder.path),
                dtype=getattr(torch, self.dtype),
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        model, told = found
        missing = set(told["missing_keys"])
        if not head:
            last = model.get_output_embeddings()
            missing -= {
                name
                for name, weights in model.named_parameters()
                if last is not None and any(weights is own for own in last.parameters())
            }
        if missing:
            raise DataError(
                f"{self._no(config)}: {len(missing)} of its weights are missing, such as "
                f"{min(missing)}, and would be random; {self._instead}"
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
    @abstractmethod
    def limit(self) -> int | None:
        """Tokens of a prompt at most, or None when the model does not tell."""

    @abstractmethod
    def prompt_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids of each chat as a prompt.

        Args:
            chats: The chats.

        Returns:
            For each its ids.

        Raises:
            DataError: A chat has no message, or the model's template refuses it.
        """

    @cached_property
    def _specials(self) -> tuple[str, ...]:
        return tuple(special_texts(self.tokenizer))

    def lengths(self, chats: Sequence[Chat]) -> list[int]:
        """How many tokens each chat is as a prompt.

        Args:
            chats: The chats.

        Returns:
            The number for each.
        """
        return [len(ids) for ids in self.prompt_ids(chats)]

    def beginning(self, text: str, tokens: int) -> str:
        """The beginning of a text.

        Args:
            text: The text.
            tokens: How many of its tokens stay.

        Returns:
            The text itself where it has no more tokens.

        Raises:
            DataError: The tokenizer does not tell which characters its tokens come from.
        """
        if not getattr(self.tokenizer, "is_fast", False):
            raise DataError(
                f"{self.name}: its tokenizer has no character offsets, so texts cannot be cut; "
                "save the model again with a fast tokenizer (tokenizer.json)"
            )
        offsets = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        if len(offsets) <= tokens:
            return text
        # Of a character that is several tokens, the whole goes.
        return text[: offsets[tokens][0]] if tokens > 0 else ""

    def pieces(self, answer: str, begun: str = "") -> int:
        """How many tokens an answer is.

        Args:
            answer: What the model may say.
            begun: What it has said before.

        Returns:
            Their number.
        """
        return len(self._following(self._tail(begun), answer))

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _following(self, begun: str, answer: str) -> list[int]:
        """The tokens with which an answer follows a text whose tokens stand.

        Tokenizers of the SentencePiece kind give a text alone a blank at its front, which it has
        not behind other words.
        """
        head = self._plain_ids(begun)
        whole = self._plain_ids(begun + answer)
        if whole[: len(head)] == head:
            return whole[len(head) :]
        # Written in one go, the text's last token would take in the answer's beginning. It stands
        # as it is, though, so the answer is what it is behind a line's end, if that goes with it.
        line = self._plain_ids("\n")
        ids = self._plain_ids("\n" + answer)
        ids = ids[len(line) :] if ids[: len(line)] == line else []
        said, known = (
            self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
            for tokens in ([*head, *ids], head)
        )
        return ids if said == known + answer else []

    def answer_ids(self, answers: Sequence[str], begun: str = "") -> list[int]:
        """The token of each answer.

        Args:
            answers: What the model may say.
            begun: The text that they follow; its last characters decide about their tokens.

        Returns:
            Their ids.

        Raises:
            DataError: An answer is no single token, an unknown one, or another answer's.
        """
        tail = self._tail(begun)
        found: dict[int, str] = {}
        for answer in answers:
            ids = self._following(tail, answer)
            if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
                known = "unknown" if len(ids) == 1 else f"{len(ids)} tokens"
                behind = f" behind {tail[-16:]!r}" if tail else ""
                raise DataError(
                    f"{self.name}: the answer {answer!r} is {known} to its tokenizer{behind}, but "
                    "one token is needed; choose other answers, or a way that reads words"
                )
            if ids[0] in found:
                raise DataError(
                    f"{self.name}: the answers {found[ids[0]]!r} and {answer!r} are one token"
                )
            found[ids[0]] = answer
        return list(found)

    def _tail(self, text: str) -> str:
        """A text's last characters, no special token cut through."""
        cut = max(0, len(text) - _TAIL)
        for special in self._specials:
            at = text.find(special, max(0, cut - len(special) + 1), cut + len(special) - 1)
            if 0 <= at < cut:
                cut = at
        return text[cut:]

    def check_lengths(self, chats: Sequence[Chat], lengths: Sequence[int], more: int) -> None:
        """Refuse prompts that the model cannot read; nothing is cut in silence.

        Args:
            chats: The chats.
            lengths: Tokens of each.
            more: Tokens that are to follow.

        Raises:
            LimitError: One is too long; the message shows both its ends, where queries stand.
            DataError: One is empty.
        """
        limit = self.limit
        for number, (chat, length) in enumerate(zip(chats, lengths, strict=True)):
            if not length:
                raise DataError(f"prompt {number} is empty, so nothing can follow it")
            if limit is not None and length + more > limit:
                users = [one.content for one in chat if one.role == "user"] or [chat[-1].content]
                behind = f" and {more} are to follow" if more else ""
                raise LimitError(
                    f"prompt {number} ({users[-1][:60]!r} ... {users[-1][-60:]!r}) has {length} "
                    f"tokens{behind}, but {self.name} reads {limit}; shorten its documents, or "
                    "give it fewer"
                )

    @cached_property
    def config(self) -> Any:
        """The model's settings, read without loading it.

        Raises:
            DataError: They are those of a model of another kind.
        """
        if self._given:
            return self._given[0].config
        import transformers

        found = transformers.AutoConfig.from_pretrained(
            str(self.folder.path), trust_remote_code=False, local_files_only=True
        )
        if type(found) not in getattr(transformers, self._auto)._model_mapping:
            raise DataError(f"{self._no(found)}; {self._instead}")
        return found

    def _no(self, config: Any) -> str:
        named = (getattr(config, "architectures", None) or ["nothing"])[0]
        return f"{self.name}: no {self._what} (config.json names {named})"

    @cached_property
    def _ends(self) -> frozenset[int]:
        """The tokens that end a turn."""
        settings = getattr(self.whole, "generation_config", None)
        told = getattr(settings, "eos_token_id", None)
        ends = [*told] if isinstance(told, (list, tuple)) else [told]
        ends.append(self.tokenizer.eos_token_id)
        return frozenset(int(end) for end in ends if end is not None)

    def sampler(self, prompts: Sequence[Sequence[int]]) -> Sampler:
        """What chooses the tokens that follow some prompts.

        Args:
            prompts: Their token ids.

        Returns:
            The sampler.
        """
        from retrievekit.language.sampling import Sampler, seeds_of

        seeds = seeds_of(prompts, self.seed) if self.temperature else []
        return Sampler(seeds, self.temperature, self.top_k)
