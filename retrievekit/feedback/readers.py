"""Readers: query encoders of each family that read a query together with passages.

A reader makes ids of texts, joins them in its family's layout, and gives vectors with a gradient,
so that the same code searches and trains. Heads and pooling compute in float32 in any case.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from retrievekit.encode.ance import AnceEncoder
from retrievekit.encode.batches import Dtype, for_counting
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.encode.tct import SKIPPED, TctColbertEncoder, masked_mean
from retrievekit.errors import DataError
from retrievekit.feedback.layouts import Joined, Layout, filled, marked
from retrievekit.protocols import EncoderCard

if TYPE_CHECKING:
    import torch

FAMILIES = ("ance", "sentence", "tct")
"""Families of encoders that there are readers of."""

# What LoL's checkpoints call the head that ANCE's have under other names.
_OTHER_NAMES = {"dense_proj.": "embeddingHead.", "layer_norm.": "norm."}


class Settings(TypedDict):
    """What readers of all families are made with.

    Args:
        device: Where the model computes; None for the best device there is.
        revision: A branch, tag or commit of a hub model.
        dtype: In which the model computes.
        allow_pickle: Whether pickled weights may be read.
    """

    device: str | None
    revision: str | None
    dtype: Dtype
    allow_pickle: bool


class FeedbackReader(ABC):
    """A query encoder that reads passages too."""

    @property
    @abstractmethod
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Components of each vector; loads the model."""

    @property
    @abstractmethod
    def network(self) -> torch.nn.Module:
        """What computes, with all weights."""

    @property
    @abstractmethod
    def limit(self) -> int:
        """Ids that the model reads at most; loads it."""

    @property
    @abstractmethod
    def pad(self) -> int:
        """The id that stands where there is no token."""

    @abstractmethod
    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts, whole, without marks, lower-cased where the family does so.

        Args:
            texts: The texts.

        Returns:
            Ids by text.
        """

    @abstractmethod
    def join(
        self, query: Sequence[int], passages: Sequence[Sequence[int]], layout: Layout
    ) -> Joined | None:
        """One text of a query and its passages, in the family's layout.

        Args:
            query: Ids of the query.
            passages: Ids of its passages, the best first.
            layout: How much is read.

        Returns:
            The text; None where the query alone is too long.
        """

    @abstractmethod
    def vectors(
        self, ids: torch.Tensor, mask: torch.Tensor, *, narrow: bool = False
    ) -> torch.Tensor:
        """Vectors of padded texts, with a gradient where torch records one.

        Args:
            ids: Integers ``(n, t)``.
            mask: Integers ``(n, t)``, 0 where there is no token.
            narrow: Whether the transformer computes in bfloat16 by autocast.

        Returns:
            float32 ``(n, dim)``.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model, so that the same class reads it.

        Args:
            folder: A folder that is not there yet.
        """

    def prefix(self) -> str:
        """What stands before a query's words."""
        return ""

    def padded(self, texts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask of texts of several lengths, where the model computes.

        Args:
            texts: Their ids.

        Returns:
            Both int64 ``(n, t)``.
        """
        import torch

        length = max(map(len, texts))
        ids = torch.full((len(texts), length), self.pad)
        mask = torch.zeros((len(texts), length), dtype=torch.int64)
        for row, own in enumerate(texts):
            ids[row, : len(own)] = torch.tensor(own, dtype=torch.int64)
            mask[row, : len(own)] = 1
        device = next(self.network.parameters()).device
        return ids.to(device), mask.to(device)


class _TowerReader(FeedbackReader):
    """What both families share whose encoders drive a transformer themselves."""

    tokenizer: Any
    folder: Any

    @property
    def pad(self) -> int:
        # Id 0 is RoBERTa's begin mark: padding with it would be told apart by the mask alone.
        return int(self.tokenizer.pad_token_id)

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        network: Any = self.network
        folder.mkdir(parents=True)
        weights = {
            name: value.detach().float().cpu().clone().contiguous()
            for name, value in network.state_dict().items()
        }
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        network.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return found


class AnceReader(AnceEncoder, _TowerReader):
    """ANCE with its head, from ANCE-PRF's checkpoints, or LoL's, whose head has other names.

    Parameters are those of `AnceEncoder`.
    """

    @property
    def limit(self) -> int:
        config: Any = self.network.config
        return int(config.max_position_embeddings - (config.pad_token_id or 0) - 1)

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        # The model knows lower-cased text only, and its tokenizer, a cased one, does not see to it.
        return self._ids([text.lower() for text in texts])

    def join(
        self, query: Sequence[int], passages: Sequence[Sequence[int]], layout: Layout
    ) -> Joined | None:
        mark = self.tokenizer.sep_token_id
        return marked([self.tokenizer.cls_token_id, *query, mark], passages, layout, mark)

    def vectors(
        self, ids: torch.Tensor, mask: torch.Tensor, *, narrow: bool = False
    ) -> torch.Tensor:
        import torch

        network: Any = self.network
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=narrow):
            states = network.roberta(input_ids=ids, attention_mask=mask).last_hidden_state
        first = states[:, 0].to(network.norm.weight.dtype)
        found: torch.Tensor = network.norm(network.embeddingHead(first))
        return found.float()

    def _built(self, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        if "embeddingHead.weight" not in weights:
            for other, own in _OTHER_NAMES.items():
                for name in [name for name in weights if name.startswith(other)]:
                    weights[own + name.removeprefix(other)] = weights.pop(name)
        return super()._built(weights)


class TctReader(TctColbertEncoder, _TowerReader):
    """TCT-ColBERT, the mean of all states from position 4 on, masks included.

    Parameters are those of `TctColbertEncoder`.
    """

    @property
    def limit(self) -> int:
        config: Any = self.network.config
        return int(config.max_position_embeddings)

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return self._ids(texts)

    def join(
        self, query: Sequence[int], passages: Sequence[Sequence[int]], layout: Layout
    ) -> Joined | None:
        begin, tokenizer = self._prefix["query"], self.tokenizer
        return filled(
            [*begin, *query], passages, layout, tokenizer.sep_token_id, tokenizer.mask_token_id
        )

    def vectors(
        self, ids: torch.Tensor, mask: torch.Tensor, *, narrow: bool = False
    ) -> torch.Tensor:
        import torch

        with torch.autocast(ids.device.type, torch.bfloat16, enabled=narrow):
            states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return masked_mean(states.float(), mask)


class SentenceReader(FeedbackReader):
    """Any dense model of sentence-transformers: its own marks, pooling, normalisation and prompt.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder

    @property
    def card(self) -> EncoderCard:
        return self.encoder.card

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def network(self) -> torch.nn.Module:
        return self.encoder.model

    @property
    def limit(self) -> int:
        config: Any = self._body.config
        # RoBERTa's kind counts positions from behind its padding id.
        offset = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
        return int(getattr(config, "max_position_embeddings", 1 << 20)) - offset

    @property
    def pad(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    @property
    def _body(self) -> Any:
        first: Any = self.encoder.model[0]
        return first.auto_model

    @cached_property
    def _tokenizer(self) -> Any:
        found: Any = self.encoder.model.tokenizer
        if found.cls_token_id is None or found.sep_token_id is None:
            raise DataError(
                f"{self.encoder.name}: its tokenizer has no begin and end marks, which part a query"
                " from its passages"
            )
        return for_counting(found)

    def prefix(self) -> str:
        return self.encoder.wiring.prompts["query"]

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        if self.encoder.wiring.lower_case:
            texts = [text.lower() for text in texts]
        found: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, truncation=False, padding=False, verbose=False
        )["input_ids"]
        return found

    def join(
        self, query: Sequence[int], passages: Sequence[Sequence[int]], layout: Layout
    ) -> Joined | None:
        mark = self._tokenizer.sep_token_id
        return marked([self._tokenizer.cls_token_id, *query, mark], passages, layout, mark)

    def vectors(
        self, ids: torch.Tensor, mask: torch.Tensor, *, narrow: bool = False
    ) -> torch.Tensor:
        import torch

        model: Any = self.encoder.model
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if prompt := self.prefix():
            # Those poolings that leave the prompt out need to know how long it is.
            features["prompt_length"] = 1 + len(self.pieces([prompt])[0])
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=narrow):
            features = model[0](features)
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in list(model)[1:]:
            features = module(features)
        found: torch.Tensor = features["sentence_embedding"]
        return found.float()

    def save(self, folder: Path) -> None:
        from retrievekit.encode.quiet import without_bars

        with without_bars():
            self.encoder.model.save_pretrained(str(folder), create_model_card=False)
        # Its settings would else name the similarity that was asked for when it was loaded.
        file = folder / "config_sentence_transformers.json"
        settings = json.loads(file.read_bytes()) if file.is_file() else {}
        settings["similarity_fn_name"] = self.encoder.similarity
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def family_of(card: EncoderCard) -> str:
    """The family of an encoder by its card.

    Args:
        card: The card.

    Returns:
        One of `FAMILIES`.

    Raises:
        DataError: There is no reader for such encoders.
    """
    found = str(card.identity.get("class", "sentence"))
    if found not in FAMILIES:
        raise DataError(
            f"{card.name}: an encoder of the class {found!r}; a query is read with its passages by "
            f"{', '.join(FAMILIES)}"
        )
    return found


def reader_of(name: str, passages: EncoderCard, settings: Settings) -> FeedbackReader:
    """The reader of a model folder, used as the encoder of the passages is.

    Args:
        name: A model folder, a hub id, or ``minilm``.
        passages: The card of the encoder of the passages, whose family, pooling, normalisation and
            prompts are the reader's.
        settings: How it is loaded.

    Returns:
        The reader, not yet loaded.

    Raises:
        DataError: There is no reader for such encoders.
    """
    family = family_of(passages)
    if family == "sentence":
        like = SentenceEncoder.from_card(passages)
        return SentenceReader(
            SentenceEncoder(
                name,
                device=settings["device"],
                revision=settings["revision"],
                dtype=settings["dtype"],
                prompts=like.prompts,
                similarity=passages.identity["similarity"],
                pooling=like.pooling,
                normalise=like.normalise,
                lower_case=like.lower_case,
            )
        )
    if family == "ance":
        return AnceReader(name, **settings)
    # Its own lengths do not count here, and need not fit the model.
    return TctReader(name, max_length=SKIPPED + 1, **settings)
