"""BERT and RoBERTa written out in plain torch, one text at a time: the oracle of the encoder tests.

Post-norm transformer layers as in Devlin et al. (2019); RoBERTa counts positions from the padding
id plus one. No padding, no masks, no batches: what those do must come out the same.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def states(
    weights: dict[str, torch.Tensor], config: Any, ids: list[int], first_position: int = 0
) -> torch.Tensor:
    """The last layer's states ``(t, d)`` of token ids."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + config.layer_norm_eps)
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    heads = config.num_attention_heads
    size = config.hidden_size // heads
    positions = torch.arange(len(ids)) + first_position
    x = weights["embeddings.word_embeddings.weight"][torch.tensor(ids)]
    x = x + weights["embeddings.position_embeddings.weight"][positions]
    x = norm("embeddings.LayerNorm", x + weights["embeddings.token_type_embeddings.weight"][0])
    for n in range(config.num_hidden_layers):
        layer = f"encoder.layer.{n}"
        q, k, v = (
            linear(f"{layer}.attention.self.{part}", x).view(len(ids), heads, size).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        attended = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(size), dim=-1) @ v
        attended = attended.transpose(0, 1).reshape(len(ids), -1)
        attended = linear(f"{layer}.attention.output.dense", attended)
        x = norm(f"{layer}.attention.output.LayerNorm", x + attended)
        inner = linear(f"{layer}.intermediate.dense", x)
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", inner))
    return x
