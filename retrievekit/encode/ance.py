"""`AnceEncoder`: ANCE, RoBERTa's first state through a linear layer and a layer norm.

    H = RoBERTa(ids, mask),  e = LayerNorm(W H[:, 0] + b)

with biased variance, eps 1e-5, learned gain and bias; vectors are compared by dot product and not
normalised (Xiong et al., "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text
Retrieval", ICLR 2021). Two traps lie here. The model was trained on lower-cased text, which its
tokenizer, a cased one, does not see to: strings are lower-cased before it. And a loader that does
not know the head leaves it at random: a head that was not loaded is refused.
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


class AnceEncoder(Tower):
    """ANCE from a checkpoint with ``roberta.*``, ``embeddingHead.*`` and ``norm.*``.

    Queries are read up to 64 tokens, documents up to 512. Parameters are those of `Tower`.
    """

    kind: ClassVar[str] = "ance"
    default: ClassVar[str] = "castorini/ance-msmarco-passage"
    lengths: ClassVar[Mapping[Role, int]] = {"query": 64, "document": 512}

    @cached_property
    def dim(self) -> int:
        """Components of each vector; loads the model."""
        head: Any = self.network.embeddingHead
        return int(head.out_features)

    def _built(self, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        import torch
        from transformers import RobertaConfig, RobertaModel

        where = str(self.folder.path)
        config = RobertaConfig.from_pretrained(where, local_files_only=True)
        limit = config.max_position_embeddings - (config.pad_token_id or 0) - 1
        if max(self.max_length.values()) > limit:
            raise DataError(
                f"{where}: max_length is {self.max_length}, but the model reads {limit} tokens at "
                "most"
            )
        kernel = weights.get("embeddingHead.weight")
        if kernel is None or "norm.weight" not in weights:
            raise DataError(
                f"{where}: no embeddingHead and norm among the weights; this is no checkpoint of "
                "ANCE"
            )
        network: Any = torch.nn.Module()
        network.config = config
        network.roberta = RobertaModel(config, add_pooling_layer=False)
        network.embeddingHead = torch.nn.Linear(config.hidden_size, kernel.shape[0])
        network.norm = torch.nn.LayerNorm(kernel.shape[0])
        fill(network.roberta, weights, "roberta.", where)
        fill(network.embeddingHead, weights, "embeddingHead.", where)
        fill(network.norm, weights, "norm.", where)
        gain, bias = network.norm.weight, network.norm.bias
        if bool((gain == 1).all()) or bool((bias == 0).all()):
            raise DataError(
                f"{where}: the layer norm of the head has the values that it starts with (ones and "
                "zeros): this checkpoint was saved by a loader that did not load the head. Take "
                "the original weights"
            )
        built: torch.nn.Module = network
        return built

    def _conventions(self) -> dict[str, Any]:
        return {"modules": ["Roberta", "first", "Linear", "LayerNorm"], "lower_case": True}

    def _tokens(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        tokenized = self.tokenizer(
            [text.lower() for text in texts],
            add_special_tokens=True,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )
        ids: list[list[int]] = tokenized["input_ids"]
        return ids

    def _cut(self, ids: list[int], role: Role) -> list[int]:
        limit = self.max_length[role]
        # The end mark stays.
        return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]

    def _vectors(self, ids: torch.Tensor, mask: torch.Tensor, role: Role) -> torch.Tensor:
        network: Any = self.network
        states = network.roberta(input_ids=ids, attention_mask=mask).last_hidden_state
        vectors: torch.Tensor = network.norm(network.embeddingHead(states[:, 0]))
        return vectors
