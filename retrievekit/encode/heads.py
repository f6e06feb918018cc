"""The heads of the unified framework of learned sparse retrieval, on stock transformers.

Nguyen, MacAvaney and Yates, "A Unified Framework for Learned Sparse Retrieval" (ECIR 2023, arXiv
2303.13416). Each head turns token ids into one weight per term of the vocabulary:

- BINARY: a learnable scalar for each token that is there;
- MLP: a linear layer on each position's state, scattered to that position's token;
- MLM: masked-language-model logits over all positions, pooled, with the term importance and the
  document quality of EPIC (MacAvaney et al. 2020, arXiv 2004.14245) where they are asked for;
- CLS_MLM: the logits of [CLS] alone.

Names of parameters are those of the published checkpoints. All of it is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from retrievekit.encode.methods import Head, Repeats
from retrievekit.errors import DataError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "softplus": nn.functional.softplus,
    "identity": lambda values: values,
}
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "log1p": torch.log1p,
    "identity": lambda values: values,
}


def scattered(ids: Tensor, weights: Tensor, size: int, repeats: Repeats) -> Tensor:
    """Weights of positions as weights of terms.

    Args:
        ids: int64 ``(n, L)``.
        weights: float32 ``(n, L)``, 0 where a position does not count.
        size: Terms in the vocabulary.
        repeats: ``max`` or ``sum``, for a token that comes more than once.

    Returns:
        float32 ``(n, V)``; under ``max`` none is below 0.
    """
    out = torch.zeros(len(ids), size, dtype=weights.dtype, device=weights.device)
    if repeats == "sum":
        return out.scatter_add_(1, ids, weights)
    return out.scatter_reduce_(1, ids, weights, reduce="amax")


class BinaryHead(nn.Module):
    """One learnable weight for every token that is there.

    Args:
        size: Terms in the vocabulary.
        scale: The weight to start from.
    """

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.size = size
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, ids: Tensor, attended: Tensor, special: Tensor, repeats: Repeats) -> Tensor:
        """Weights of a batch.

        Args:
            ids: int64 ``(n, L)``.
            attended: int64 ``(n, L)``, 0 for padding.
            special: int64 ``(n, L)``, 1 for special tokens.
            repeats: How a repeated token counts.

        Returns:
            float32 ``(n, V)``.
        """
        weights = (attended * (1 - special)).float() * self.scale
        return scattered(ids, weights, self.size, repeats)


class MlpHead(nn.Module):
    """A linear layer from each position's state to the weight of its token.

    Args:
        model: A transformer without a head of its own.
        head: Activation and norm.
    """

    def __init__(self, model: Any, head: Head) -> None:
        super().__init__()
        self.model = model
        self.linear = nn.Linear(model.config.hidden_size, 1)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.head = head

    def forward(self, ids: Tensor, attended: Tensor, special: Tensor, repeats: Repeats) -> Tensor:
        """Weights of a batch.

        Args:
            ids: int64 ``(n, L)``.
            attended: int64 ``(n, L)``, 0 for padding.
            special: int64 ``(n, L)``, 1 for special tokens.
            repeats: How a repeated token counts.

        Returns:
            float32 ``(n, V)``.
        """
        states = self.model(input_ids=ids, attention_mask=attended).last_hidden_state
        weights = _activated(self.linear(states).squeeze(-1).float(), self.head)
        weights = weights * (attended * (1 - special))
        return scattered(ids, weights, self.model.config.vocab_size, repeats)


class MlmHead(nn.Module):
    """Masked-language-model logits of all positions, pooled.

    Logits of special tokens are set to 0 before the activation, as the published code does; under
    softplus such a position therefore still gives every term log1p(ln 2) = 0.5266, below which no
    weight of that text falls. Padding gives nothing.

    Args:
        model: A masked language model.
        head: Activation, norm, pooling, importance and quality.
    """

    def __init__(self, model: Any, head: Head) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.term_importance = _Linear(model.config.hidden_size) if head.importance else None
        self.doc_quality = _Linear(model.config.hidden_size) if head.quality else None

    def forward(self, ids: Tensor, attended: Tensor, special: Tensor, repeats: Repeats) -> Tensor:
        """Weights of a batch.

        Args:
            ids: int64 ``(n, L)``.
            attended: int64 ``(n, L)``, 0 for padding.
            special: int64 ``(n, L)``, 1 for special tokens.
            repeats: Of no effect: positions are pooled, not scattered.

        Returns:
            float32 ``(n, V)``.
        """
        asked = self.term_importance is not None or self.doc_quality is not None
        out = self.model(input_ids=ids, attention_mask=attended, output_hidden_states=asked)
        logits = out.logits.float() * (attended * (1 - special)).unsqueeze(-1)
        if self.term_importance is not None:
            scores = self.term_importance.linear(out.hidden_states[-1]).float()
            logits = logits * torch.log1p(nn.functional.softplus(scores))
        weights = _activated(logits, self.head)
        padding = attended.unsqueeze(-1) == 0
        if self.head.pool == "sum":
            pooled = weights.masked_fill(padding, 0.0).sum(dim=1)
        else:
            pooled = weights.masked_fill(padding, float("-inf")).amax(dim=1)
        if self.doc_quality is not None:
            first = out.hidden_states[-1][:, 0, :]
            pooled = pooled * torch.sigmoid(self.doc_quality.linear(first).float())
        return pooled


class ClsMlmHead(nn.Module):
    """Masked-language-model logits of the first position, [CLS], alone.

    Args:
        model: A masked language model.
        head: Activation and norm.
    """

    def __init__(self, model: Any, head: Head) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, ids: Tensor, attended: Tensor, special: Tensor, repeats: Repeats) -> Tensor:
        """Weights of a batch.

        Args:
            ids: int64 ``(n, L)``.
            attended: int64 ``(n, L)``, 0 for padding.
            special: Of no effect.
            repeats: Of no effect.

        Returns:
            float32 ``(n, V)``.
        """
        logits = self.model(input_ids=ids, attention_mask=attended).logits[:, 0, :]
        return _activated(logits.float(), self.head)


class _Linear(nn.Module):
    """One linear layer to one number, under the name that checkpoints give it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 1)


def _activated(values: Tensor, head: Head) -> Tensor:
    return NORMS[head.norm](ACTIVATIONS[head.activation](values))


def bare(head: Head, config: Any, size: int) -> nn.Module:
    """A head with untrained weights, to be filled by `fill`.

    Args:
        head: What it is.
        config: The transformer's configuration; None for BINARY, which has none.
        size: Terms in the vocabulary, where there is no transformer to tell.

    Returns:
        The head.
    """
    if head.kind == "BINARY":
        return BinaryHead(size, head.scale)
    import transformers

    auto: Any = transformers.AutoModel if head.kind == "MLP" else transformers.AutoModelForMaskedLM
    model = auto.from_config(config, trust_remote_code=False)
    heads = {"MLP": MlpHead, "MLM": MlmHead, "CLS_MLM": ClsMlmHead}
    return heads[head.kind](model, head)


def fill(module: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Put trained weights into a head; none that counts stays as it was initialised.

    Args:
        module: The head.
        weights: float32, float16 or bfloat16 of any shape, such as ``(n, d)``, by parameter name.
        where: The file, for messages.

    Raises:
        DataError: A weight is missing, has another shape, or has no place in the head.
    """
    own = module.state_dict()
    for name, value in weights.items():
        if name in own and own[name].shape != value.shape:
            raise DataError(
                f"{where}: {name} has shape {tuple(value.shape)}, but this head needs "
                f"{tuple(own[name].shape)}"
            )
    outcome = module.load_state_dict(weights, strict=False)
    # Tied weights are stored once: what shares memory with a stored one has its value.
    stored = {own[name].data_ptr() for name in weights if name in own}
    missing = [
        name
        for name in outcome.missing_keys
        if own[name].data_ptr() not in stored and not _unused(name, module)
    ]
    # Older files keep these numbers although they follow from the configuration.
    strangers = [name for name in outcome.unexpected_keys if not name.endswith("position_ids")]
    if missing or strangers:
        parts = [
            f"{what} {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            for what, names in (("it lacks", missing), ("it has no place for", strangers))
            if names
        ]
        raise DataError(
            f"{where}: these are no weights of a {type(module).__name__}: {'; '.join(parts)}. A "
            "part that stays untrained gives weights that mean nothing"
        )


def _unused(name: str, module: nn.Module) -> bool:
    """Whether no weight depends on a parameter: BERT's pooler, and a scale used in training."""
    return name.startswith("model.pooler.") or (name == "scale" and isinstance(module, MlpHead))
