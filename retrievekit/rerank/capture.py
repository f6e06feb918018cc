"""Running a stock transformers model while the attention of its query rows is taken down.

The model's modelling code is left alone: an attention function is registered with transformers,
gets each layer's queries, keys and values (positions and norms applied), and computes what the
model computes. Documents are read once, by the fused kernels that never hold a matrix of attention;
their keys and values are kept. Each query's rows are then run against them, and their attention,
which is computed explicitly, serves both the model and the reranker. Memory grows linearly with
the prompt. Nothing behind the last layer that is asked for is computed.

Masks are made here, from the layer's own sliding window, so that no square mask is made either.
Positions that a model scales by the length of the text (dynamic, or longrope at its threshold) are
scaled for the documents by themselves, as with any cache.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from retrievekit.errors import DataError

NAME = "retrievekit_query_rows"
"""What the attention function is called among those of transformers."""

AT_ONCE = 1 << 23
"""Attention weights that are held at a time."""

_SLIDING_ROWS = 1024

Sink = Callable[[int, int, Tensor], None]
"""Takes layer, number of the query, and its mean attention, float32 ``(heads, tokens)``."""


class _Enough(Exception):  # noqa: N818 - not an error: the way out of a model's forward
    """All layers that are needed have been seen."""


@dataclass(frozen=True)
class Rule:
    """How a layer turns queries and keys into attention.

    Args:
        scale: Factor of the inner products.
        window: How many tokens up to itself a token sees; None for all.
        softcap: Bound that tanh keeps the scaled products within; None for none.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass
class Prefix:
    """What a model remembers of the documents.

    Args:
        length: Tokens read.
        states: By layer its keys and values, floating ``(1, key heads, length, d)``.
    """

    length: int
    states: dict[int, tuple[Tensor, Tensor]]


class _Reading(ABC):
    """What is done at each layer of one forward."""

    @abstractmethod
    def layer(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """The layer's output, floating ``(batch, heads, rows, d)``."""


_reading: ContextVar[_Reading] = ContextVar("reading")
_switching = threading.RLock()


def read_prefix(decoder: Any, ids: Sequence[int], last: int) -> Prefix:
    """Let a model read the documents.

    Args:
        decoder: The model without its head.
        ids: Token ids from the prompt's beginning.
        last: The last layer whose keys and values are needed, from 0.

    Returns:
        Its keys and values up to that layer.
    """
    prefix = Prefix(len(ids), {})
    if len(ids):
        tokens = torch.tensor([ids], device=decoder.device)
        _run(decoder, tokens, 0, _Prefilling(prefix, last))
    return prefix


def read_rows(
    decoder: Any,
    prefix: Prefix,
    tails: Sequence[Sequence[int]],
    last: int,
    take: Sink,
    *,
    last_row: bool = False,
) -> None:
    """Let a model read the queries behind documents that it has read, each by itself.

    Args:
        decoder: The model without its head.
        prefix: What it remembers of the documents, up to layer `last` at least.
        tails: For each query its token ids, at least one.
        last: The last layer that is needed, from 0.
        take: Gets, layer by layer and query by query, the attention to all tokens up to the query's
            last, as a mean over the query's rows. A layer's queries come one after another.
        last_row: Whether the last row counts alone.
    """
    lengths = [len(tail) for tail in tails]
    tokens = torch.zeros((len(tails), max(lengths)), dtype=torch.int64)
    for row, tail in enumerate(tails):
        tokens[row, : len(tail)] = torch.tensor(tail)
    reading = _Asking(prefix, lengths, last, take, last_row)
    _run(decoder, tokens.to(decoder.device), prefix.length, reading)


def _run(decoder: Any, tokens: Tensor, start: int, reading: _Reading) -> None:
    places = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
    token = _reading.set(reading)
    try:
        with _attending(decoder), torch.inference_mode(), contextlib.suppress(_Enough):
            decoder(
                input_ids=tokens,
                position_ids=places.expand(len(tokens), -1),
                use_cache=False,
            )
            raise DataError(
                f"{type(decoder).__name__} did not pass its layers through the attention function; "
                "only decoders of transformers with their attention behind its interface will do"
            )
    finally:
        _reading.reset(token)


@contextlib.contextmanager
def _attending(decoder: Any) -> Iterator[None]:
    """While this lasts the model computes attention by the function of this module."""
    from transformers import AttentionInterface

    # One at a time: how a model attends is a setting of the model, not of the call.
    with _switching:
        AttentionInterface.register(NAME, attention)
        before = decoder.config._attn_implementation
        decoder.set_attn_implementation(NAME)
        if decoder.config._attn_implementation != NAME:
            raise DataError(
                f"{type(decoder).__name__} does not let its attention be set, so it cannot rerank"
            )
        try:
            yield
        finally:
            decoder.set_attn_implementation(before)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **settings: Any,
) -> tuple[Tensor, None]:
    """The attention function: hands a layer's states to whatever reading is under way.

    Args:
        module: The layer's attention module.
        query: Floating ``(batch, heads, rows, d)``.
        key: Floating ``(batch, key heads, rows, d)``.
        value: Floating ``(batch, key heads, rows, d)``.
        attention_mask: None, since this module makes the masks.
        scaling: Factor of the inner products.
        dropout: Not used: models here only read.
        settings: What else the model says of this layer.

    Returns:
        The layer's output, floating ``(batch, rows, heads, d)``, and no weights.

    Raises:
        DataError: The layer does something with its attention that is not known here.
    """
    strange = [name for name in ("position_bias", "s_aux") if settings.get(name) is not None]
    if attention_mask is not None:
        strange.append("a mask of its own")
    if not getattr(module, "is_causal", True):
        strange.append("attention in both directions")
    if strange:
        raise DataError(
            f"{type(module).__name__} uses {' and '.join(strange)}, which attention reranking does "
            "not know; use a model of the Llama, Mistral, Qwen, Gemma, Phi or GPT-NeoX families"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    rule = Rule(scale, settings.get("sliding_window"), settings.get("softcap"))
    out = _reading.get().layer(module.layer_idx, query, key, value, rule)
    return out.transpose(1, 2).contiguous(), None


@dataclass
class _Prefilling(_Reading):
    """Reads the documents and keeps their keys and values."""

    prefix: Prefix
    last: int

    def layer(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        # Copies where they are views of something larger, such as a joint projection.
        key, value = key.contiguous(), value.contiguous()
        self.prefix.states[layer] = key, value
        if layer == self.last:
            raise _Enough
        return causal(query, key, value, rule)


@dataclass
class _Asking(_Reading):
    """Reads queries behind the documents and tells the attention of their rows."""

    prefix: Prefix
    lengths: list[int]
    last: int
    take: Sink
    last_row: bool

    def layer(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        out = query.new_zeros((*query.shape[:3], value.shape[-1]))
        states = self.prefix.states.get(layer)
        if states is None and self.prefix.length:
            raise DataError(f"layer {layer} kept no keys of the documents; the model shares layers")
        for number, rows in enumerate(self.lengths):
            own_key, own_value = key[number, :, :rows], value[number, :, :rows]
            if states is not None:
                own_key = torch.cat([states[0][0], own_key], dim=1)
                own_value = torch.cat([states[1][0], own_value], dim=1)
            out[number, :, :rows] = self._rows(
                layer, number, query[number, :, :rows], own_key, own_value, rule
            )
        if layer == self.last:
            raise _Enough
        return out

    def _rows(
        self, layer: int, number: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule
    ) -> Tensor:
        """One query's output, floating ``(heads, rows, d)``."""
        heads, rows = query.shape[:2]
        n_keys, tokens = key.shape[:2]
        group = heads // n_keys
        visible = seen(rows, tokens, rule.window, query.device)
        means, outs = [], []
        step = max(1, AT_ONCE // (group * rows * tokens))
        for a in range(0, n_keys, step):
            b = min(n_keys, a + step)
            weights = attention_weights(query[a * group : b * group], key[a:b], rule, visible)
            mean = weights[:, -1] if self.last_row else weights.mean(1)
            means.append(mean)
            if layer != self.last:
                joint = weights.reshape(b - a, group * rows, tokens)
                found = joint @ value[a:b].to(weights.dtype)
                outs.append(found.reshape((b - a) * group, rows, -1))
        self.take(layer, number, torch.cat(means))
        return torch.cat(outs).to(query.dtype) if outs else query.new_zeros(())


def seen(rows: int, tokens: int, window: int | None, device: Any = None) -> Tensor:
    """Which tokens the last rows of a text see: themselves and what is before, within a window.

    Args:
        rows: How many rows.
        tokens: Tokens of the text, at least as many.
        window: How many tokens up to itself a token sees; None for all.
        device: Where the mask is made.

    Returns:
        bool ``(rows, m)`` for the last m tokens: with a window all of them, else the rows' own,
        since each row sees all before those.
    """
    first = tokens - rows if window is None else 0
    places = torch.arange(tokens - rows, tokens, device=device)[:, None]
    others = torch.arange(first, tokens, device=device)
    visible = others <= places
    return visible if window is None else visible & (others > places - window)


def attention_weights(query: Tensor, key: Tensor, rule: Rule, visible: Tensor) -> Tensor:
    """Softmaxed attention of some rows, in float32 (float64 for a model in float64).

    Args:
        query: Floating ``(heads, rows, d)``.
        key: Floating ``(key heads, tokens, d)``; consecutive heads share one.
        rule: How products become attention.
        visible: bool ``(rows, m)`` for the last m tokens; each row sees all tokens before those,
            and at least one in all.

    Returns:
        Floating ``(heads, rows, tokens)``; each row sums to 1.
    """
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    heads, rows, d = query.shape
    n_keys, tokens = key.shape[:2]
    joint = query.reshape(n_keys, heads // n_keys * rows, d).to(dtype) * rule.scale
    out = (joint @ key.to(dtype).transpose(1, 2)).reshape(heads, rows, tokens)
    if rule.softcap is not None:
        out.div_(rule.softcap).tanh_().mul_(rule.softcap)
    out[..., tokens - visible.shape[1] :].masked_fill_(~visible, float("-inf"))
    return torch.softmax(out, dim=-1)


def causal(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """Attention of a text to itself, each token to those before it, in memory linear in its length.

    Args:
        query: Floating ``(1, heads, tokens, d)``.
        key: Floating ``(1, key heads, tokens, d)``.
        value: Floating ``(1, key heads, tokens, d)``.
        rule: How products become attention.

    Returns:
        Floating ``(1, heads, tokens, d)``.
    """
    tokens, group = query.shape[2], query.shape[1] // key.shape[1]
    narrow = rule.window is not None and rule.window < tokens
    if rule.softcap is None and not narrow:
        return functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=rule.scale, enable_gqa=group > 1
        )
    out = query.new_empty((*query.shape[:3], value.shape[-1]))
    rows = _SLIDING_ROWS
    if rule.softcap is not None:
        rows = max(16, min(rows, AT_ONCE // (group * tokens)))
    for a in range(0, tokens, rows):
        b = min(tokens, a + rows)
        low = max(0, a - rule.window + 1) if rule.window is not None else 0
        visible = seen(b - a, b, rule.window, query.device)[:, low:]
        q, k, v = query[:, :, a:b], key[:, :, low:b], value[:, :, low:b]
        if rule.softcap is None:
            k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
            out[:, :, a:b] = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=visible, scale=rule.scale
            )
            continue
        for head in range(key.shape[1]):
            own = slice(head * group, (head + 1) * group)
            weights = attention_weights(q[0, own], k[0, head : head + 1], rule, visible)
            out[0, own, a:b] = (weights @ v[0, head].to(weights.dtype)).to(out.dtype)
    return out
