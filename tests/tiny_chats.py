"""Small random language models with tokenizers that know the answers, for tests of rerankers."""

from __future__ import annotations

from typing import Any

from tests.tiny_decoders import decoder_of, tokenizer_of

import torch  # isort: skip
import transformers  # isort: skip
from tokenizers import AddedToken  # isort: skip

ANSWERS = ["yes", "no", "true", "false", "</", "<answer>", "</answer>"]
TURNS = ["<|im_start|>", "<|im_end|>"]


def tokenizer_for_chats(kind: str = "bytes", chat_template: str | None = None) -> Any:
    """A tokenizer that has the answers and the marks of turns as tokens."""
    made = tokenizer_of(kind, chat_template)
    made.add_special_tokens({"additional_special_tokens": TURNS})
    made.add_tokens([AddedToken(answer, normalized=False) for answer in ANSWERS])
    return made


def chatter_of(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random decoder with its head."""
    return decoder_of(family, seed=seed).to(dtype)


def t5_of(seed: int = 0) -> Any:
    """A random T5 with its head."""
    config = transformers.T5Config(
        vocab_size=800,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
        initializer_factor=4.0,
    )
    torch.manual_seed(seed)
    return transformers.T5ForConditionalGeneration(config).eval()


def t5_tokenizer() -> Any:
    """A tokenizer that ends every text as T5's does."""
    from tokenizers.processors import TemplateProcessing

    made = tokenizer_for_chats("pieces")
    end = made.eos_token_id
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", end)]
    )
    return made
