"""`TctColbertEncoder`: TCT-ColBERT, the mean of BERT's states from position 4 on.

A query is ``[CLS] [Q] q``, filled up with ``[MASK]`` to exactly 36 tokens; a passage is
``[CLS] [D] text``, without an end mark. ``[Q]`` and ``[D]`` are no special tokens: each splits into
three pieces, so that four positions are skipped. The mean of a query includes its masks; that of a
passage leaves padding out. Vectors are compared by dot product and not normalised (Lin, Yang and
Lin, "In-Batch Negatives for Knowledge Distillation with Tightly-Coupled Teachers for Dense
Retrieval", RepL4NLP 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from retrievekit.encode.conventions import Role
from retrievekit.encode.tower import Tower, fill
from retrievekit.errors import DataError

if TYPE_CHECKING:
    import torch

SKIPPED = 4
QUERY_LENGTH = 36
_PREFIXES: Mapping[Role, str] = {"query": "[CLS] [Q] ", "document": "[CLS] [D] "}


class TctColbertEncoder(Tower):
    """TCT-ColBERT from a BERT checkpoint, its names with or without ``bert.`` before them.

    Documents are read up to 512 tokens; queries always have 36. An empty document has no state to
    average: its vector is zero. Parameters are those of `Tower`; a single `max_length` is that of
    documents.
    """

    kind: ClassVar[str] = "tct"
    default: ClassVar[str] = "castorini/tct_colbert-v2-hnp-msmarco"
    lengths: ClassVar[Mapping[Role, int]] = {"query": QUERY_LENGTH, "document": 512}

    @classmethod
    def _lengths_of(cls, asked: int | Mapping[Role, int] | None) -> dict[Role, int]:
        found = super()._lengths_of({"document": asked} if isinstance(asked, int) else asked)
        if found["query"] != QUERY_LENGTH or found["document"] <= SKIPPED:
            raise DataError(
                f"queries of TCT-ColBERT have exactly {QUERY_LENGTH} tokens and documents more "
                f"than {SKIPPED}; max_length is {found}"
            )
        return found

    @cached_property
    def dim(self) -> int:
        """Components of each vector; loads the model."""
        config: Any = self.network.config
        return int(config.hidden_size)

    def _built(self, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        from transformers import BertConfig, BertModel

        where = str(self.folder.path)
        config = BertConfig.from_pretrained(where, local_files_only=True)
        if self.max_length["document"] > config.max_position_embeddings:
            raise DataError(
                f"{where}: max_length is {self.max_length}, but the model reads "
                f"{config.max_position_embeddings} tokens at most"
            )
        network = BertModel(config, add_pooling_layer=False)
        prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""
        fill(network, weights, prefix, where)
        return network

    @cached_property
    def _prefix(self) -> Mapping[Role, list[int]]:
        found: dict[Role, list[int]] = {}
        for role, text in _PREFIXES.items():
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) != SKIPPED or ids[0] != self.tokenizer.cls_token_id:
                raise DataError(
                    f"{self.folder.path}: the tokenizer makes {len(ids)} tokens of {text.strip()!r}"
                    f", not {SKIPPED}; this is no tokenizer of TCT-ColBERT"
                )
            found[role] = ids
        return found

    def _conventions(self) -> dict[str, Any]:
        return {"modules": ["Bert", f"mean from {SKIPPED}"], "prompts": dict(_PREFIXES)}

    def _tokens(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        prefix = self._prefix[role]
        tokenized = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )
        return [prefix + ids for ids in tokenized["input_ids"]]

    def _cut(self, ids: list[int], role: Role) -> list[int]:
        ids = ids[: self.max_length[role]]
        if role == "query":
            ids = ids + [self.tokenizer.mask_token_id] * (QUERY_LENGTH - len(ids))
        return ids

    def _vectors(self, ids: torch.Tensor, mask: torch.Tensor, role: Role) -> torch.Tensor:
        states: torch.Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return masked_mean(states.float(), mask)


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of states from position 4 on where the mask is 1; zero where it nowhere is.

    Args:
        states: float32 ``(n, t, d)``.
        mask: Integers ``(n, t)``, 0 or 1.

    Returns:
        float32 ``(n, d)``.
    """
    kept = mask[:, SKIPPED:, None].to(states.dtype)
    return (states[:, SKIPPED:] * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
