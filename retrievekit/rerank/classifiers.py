"""`CrossEncoderModel`: a classifier of pairs, loaded with care and never with a random head."""

from __future__ import annotations

import copy
import logging
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.folders import weight_files
from retrievekit.encode.quiet import without_bars
from retrievekit.errors import DataError
from retrievekit.rerank.pairs import run, tokenized
from retrievekit.rerank.stored import StoredModel, readable

log = logging.getLogger(__name__)

_RMS, _WORST = 0.02, 0.1
"""How far scores of bfloat16 may be off, in standard deviations of those of float32."""

_HEADS = ("classifier", "score", "classification_head", "logits_proj")
"""What families call their last layer, somewhere in the names of its weights."""


class CrossEncoderModel(StoredModel):
    """A cross-encoder by folder or hub id, loaded with care on first use.

    Args:
        name: A model folder or a hub id; the hub's cache is asked before the hub.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        dtype: ``float32``, ``bfloat16`` or ``float16``, in which the model computes, or ``auto``:
            bfloat16 where the processor has it and, on a few texts, gives the scores of float32
            (off by at most 0.02 of their standard deviation on the whole, and 0.1 at worst), else
            float32. The last layer computes in float32 in any case.
        revision: A branch, tag or commit of a hub model.

    Raises:
        DataError: No such dtype.
    """

    dtypes = ("float32", "bfloat16", "float16", "auto")

    @property
    def network(self) -> Any:
        """The model of sentence-transformers, loaded on first use.

        Raises:
            DataError: It is no classifier of pairs.
        """
        with self.loading:
            return self._network

    @cached_property
    def _network(self) -> Any:
        import torch

        self._check_classifier()
        from sentence_transformers import CrossEncoder

        with without_bars():
            network = CrossEncoder(
                str(self.path),
                model_kwargs={"dtype": "float32", "use_safetensors": True},
                **self.options,
            ).eval()
        if "message" in network[0].modality_config or network[0].transformer_task not in (
            "sequence-classification",
            "feature-extraction",
        ):
            raise DataError(
                f"{self.name}: a language model that is asked by a prompt, no classifier; rerank "
                "with it by the pointwise method that it was made for, such as qwen3_reranker"
            )
        if not getattr(network.tokenizer, "is_fast", False):
            raise DataError(f"{self.name}: its tokenizer does not tell which text a token is of")
        if self.dtype == "auto":
            return self._chosen(network)
        return network if self.dtype == "float32" else narrowed(network, getattr(torch, self.dtype))

    def _check_classifier(self) -> None:
        """Refuse what would get a head of random weights."""
        if self.kind not in (None, "CrossEncoder") or (self.modules and self.kind is None):
            kind = self.kind or "model of single texts"
            raise DataError(f"{self.name}: a {kind} of sentence-transformers, no CrossEncoder")
        if self.modules:
            return
        named = (self.config.get("architectures") or ["nothing"])[0]
        if named.endswith("ForCausalLM"):
            return
        if not named.endswith("ForSequenceClassification"):
            raise DataError(
                f"{self.name}: no cross-encoder (config.json names {named}); its last layer would "
                "be random"
            )
        from safetensors import safe_open

        weights: list[str] = []
        for file in weight_files(self.path):
            with safe_open(file, framework="np") as opened:
                weights += opened.keys()
        if not any(part in _HEADS for name in weights for part in name.split(".")):
            raise DataError(
                f"{self.name}: its weights hold no last layer of a classifier, which would be "
                "random; take the whole model"
            )

    def _chosen(self, network: Any) -> Any:
        """The model in bfloat16 where that is as good, else as it is."""
        import torch

        from retrievekit.encode.backends.hardware import has_bfloat16
        from retrievekit.encode.backends.samples import made_texts

        if not has_bfloat16(str(network.device)):
            return network
        texts = made_texts()
        pairs = [
            (" ".join(one.split()[:6]), other)
            for one, other in zip(texts, reversed(texts), strict=True)
        ]
        tokens = tokenized(network.tokenizer, pairs, limit=min(readable(network) or 512, 512))
        narrow = narrowed(copy.deepcopy(network), torch.bfloat16)
        exact, found = (run(each, tokens).ravel().astype(float) for each in (network, narrow))
        off, spread = np.abs(found - exact), exact.std()
        # A NaN compares as False.
        if np.sqrt((off**2).mean()) <= _RMS * spread and off.max() <= _WORST * spread:
            return narrow
        log.warning(
            "%s: bfloat16 gives scores off by %.3g of their spread; float32 computes them",
            self.name, off.max() / spread if spread else np.inf,
        )  # fmt: skip
        return network

    @property
    def limit(self) -> int | None:
        """Tokens of a pair that the model reads, special ones included; loads it."""
        return readable(self.network)

    @property
    def labels(self) -> list[str]:
        """What the model's outputs are called; loads it."""
        network = self.network
        names = getattr(network.config, "id2label", None) or {}
        return [str(names.get(i, f"LABEL_{i}")) for i in range(network.num_labels)]

    def prompt(self, asked: str | None) -> str:
        """What stands before queries; loads the model.

        Args:
            asked: The name of one of the model's prompts, or the words themselves; None for the
                model's default.

        Returns:
            The words, possibly none.
        """
        prompts: dict[str, str] = self.network.prompts
        if asked is not None:
            return prompts.get(asked, asked)
        return prompts.get(self.network.default_prompt_name or "", "") or ""


def narrowed(network: Any, dtype: Any) -> Any:
    """A cross-encoder in a narrower dtype, but for its last layer, which stays in float32.

    In bfloat16 a score of 8 has no neighbours nearer than 0.06, and documents would tie.

    Args:
        network: The model, in float32.
        dtype: A floating dtype of torch.

    Returns:
        The same model, changed.
    """
    import torch

    linear = [part for part in network.modules() if isinstance(part, torch.nn.Linear)]
    last = next(part for part in reversed(linear) if part.out_features == network.num_labels)
    weights = copy.deepcopy(last.state_dict())
    network.to(dtype)
    last.float().load_state_dict(weights)
    last.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))
    return network


def log_odds(logits: NDArray[np.float32], label: int) -> NDArray[np.float32]:
    """How much a classifier inclines to a label, against all its others together.

    Unlike a raw logit it can be compared between pairs: a constant added to all logits of one pair
    changes nothing.

    Args:
        logits: float32 ``(pairs, labels)``, at least two labels.
        label: Which.

    Returns:
        float32 ``(pairs,)``.
    """
    others = np.delete(logits.astype(np.float64), label, axis=1)
    high = others.max(axis=1)
    rest = high + np.log(np.exp(others - high[:, None]).sum(axis=1))
    found: NDArray[np.float32] = (logits[:, label] - rest).astype(np.float32)
    return found
