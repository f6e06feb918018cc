"""Random classifiers of pairs, a few thousand weights each, with tokenizers of their kind.

Weights are far larger than those that models begin with, so that scores differ.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties warn of while they are imported
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

WORDS = [
    "a",
    "the",
    "cat",
    "dog",
    "purr",
    "bark",
    "at",
    "moon",
    "and",
    "fish",
    ".",
    ",",
    "query",
    ":",
]
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 48,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
# Family: class of the model, what stands between the texts, its inputs besides ids and mask.
FAMILIES: dict[str, tuple[str, str, list[str], dict[str, Any]]] = {
    "bert": ("Bert", "[CLS] $A [SEP] $B:1 [SEP]:1", ["token_type_ids"], {}),
    "xlm-roberta": (
        "XLMRoberta",
        "[CLS] $A [SEP] [SEP] $B [SEP]",
        [],
        {"type_vocab_size": 1, "max_position_embeddings": 50},
    ),
    "modernbert": (
        "ModernBert",
        "[CLS] $A [SEP] $B [SEP]",
        [],
        {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 2,
         "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "initializer_cutoff_factor": 2.0},
    ),
}  # fmt: skip


def tokenizer_of(family: str, length: int = 48) -> Any:
    """A tokenizer of words that joins pairs as its family does."""
    _, template, extra, _ = FAMILIES[family]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: place for place, word in enumerate([*specials, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", template, marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=length,
        model_input_names=["input_ids", *extra, "attention_mask"],
    )


def save_classifier(
    folder: Path, family: str, *, seed: int = 0, length: int = 48, **more: Any
) -> Path:
    """A folder with a random classifier of one output, unless told otherwise."""
    name, _, _, own = FAMILIES[family]
    tokenizer = tokenizer_of(family, length)
    settings = {"num_labels": 1, **SMALL, **own, "vocab_size": len(tokenizer), **more}
    config = getattr(transformers, f"{name}Config")(**settings)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
