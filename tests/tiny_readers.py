"""Random dense encoders of each family, a few thousand weights each, and their oracles.

The oracles read one text at a time, in plain torch, without padding.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from tests.plain_bert import states

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties warn of while they are imported
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import ByteLevelBPETokenizer, Tokenizer
    from transformers import (
        BertConfig,
        BertModel,
        BertTokenizer,
        RobertaConfig,
        RobertaModel,
        RobertaTokenizerFast,
    )

TEXTS = {
    "d1": "The Cat sat at the moon",
    "d2": "dogs bark at the moon",
    "d3": "a CAT purrs and the dog barks",
    "d4": "the moon",
    "d5": "fish and Fish and moon and dog",
    "d6": "purr",
}
WORDS = [
    "a", "the", "cat", "dog", "purr", "##s", "bark", "at", "moon", "and", "word", "fish", "sat",
]  # fmt: skip
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "initializer_range": 0.5,
}  # fmt: skip
DIM = 12


def save_ance(folder: Path, seed: int = 3) -> Path:
    """RoBERTa with ANCE's head, and a cased byte-level vocabulary."""
    folder.mkdir(parents=True)
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([*TEXTS.values(), "The The Cat Cat CAT"], 300, 1, False, special)
    trained.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    merges = [
        tuple(line.split(" "))
        for line in (folder / "merges.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#version")
    ]
    RobertaTokenizerFast(vocab, merges, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(seed)
    config = RobertaConfig(
        **SIZES, vocab_size=len(vocab), max_position_embeddings=520, pad_token_id=1,
        layer_norm_eps=1e-5,
    )  # fmt: skip
    weights = {f"roberta.{k}": v for k, v in RobertaModel(config).state_dict().items()}
    weights["embeddingHead.weight"] = torch.randn(DIM, 16)
    weights["embeddingHead.bias"] = torch.randn(DIM)
    weights["norm.weight"] = torch.rand(DIM) + 0.5
    weights["norm.bias"] = torch.randn(DIM)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    return folder


def save_bert(folder: Path, seed: int = 5, *, modules: bool = False) -> Path:
    """BERT with an uncased vocabulary; with modules a normalised mean of sentence-transformers."""
    folder.mkdir(parents=True)
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "q", "d"]
    vocabulary = [*marks, *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(seed)
    config = BertConfig(**SIZES, vocab_size=len(vocabulary), max_position_embeddings=80)
    body = BertModel(config)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=80)
    body.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if modules:
        parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        rows = [
            {"idx": n, "name": str(n), "path": path,
             "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(parts)
        ]  # fmt: skip
        (folder / "modules.json").write_text(json.dumps(rows))
        (folder / "sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": 20, "do_lower_case": False})
        )
        (folder / "1_Pooling").mkdir()
        pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        (folder / "2_Normalize").mkdir()
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"similarity_fn_name": "cosine"})
        )
    return folder


def pieces(folder: Path, text: str) -> list[int]:
    """Ids of a text without marks."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def mark(folder: Path, name: str) -> int:
    """The id of a mark."""
    found = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(name)
    assert found is not None
    return int(found)


def plain_ance(folder: Path, ids: list[int]) -> np.ndarray:
    """The first state, W h + b, layer norm with eps 1e-5."""
    weights = load_file(folder / "model.safetensors")
    config = RobertaConfig.from_pretrained(folder)
    body = {k.removeprefix("roberta."): v for k, v in weights.items() if k.startswith("roberta.")}
    first = states(body, config, ids, config.pad_token_id + 1)[0]
    e = weights["embeddingHead.weight"] @ first + weights["embeddingHead.bias"]
    spread = ((e - e.mean()) ** 2).mean()
    e = (e - e.mean()) / (spread + 1e-5) ** 0.5 * weights["norm.weight"] + weights["norm.bias"]
    return e.numpy()


def plain_bert(folder: Path, ids: list[int]) -> np.ndarray:
    """All states of BERT."""
    weights = load_file(folder / "model.safetensors")
    return states(weights, BertConfig.from_pretrained(folder), ids).numpy()
