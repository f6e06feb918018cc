"""The framework's heads and methods against plain torch on small random models, and idf tables."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from retrievekit import registry
from retrievekit.cli.app import app
from retrievekit.corpus import Corpus, Document
from retrievekit.encode.framework import FrameworkEncoder
from retrievekit.encode.idf import IdfTable, InferenceFreeEncoder
from retrievekit.encode.methods import METHODS, Head, Method
from retrievekit.errors import (
    CorruptIndexError,
    DataError,
    EncoderMismatchError,
    NonFiniteError,
    ParseError,
    UnknownNameError,
)
from retrievekit.index.opening import open_index
from retrievekit.index.sparse import SparseIndex
from retrievekit.protocols import EncoderCard, SparseEncoder
from retrievekit.queries import Queries
from retrievekit.store.verify import verify
from retrievekit.vectors import SparseVectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties warn of while they are imported
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertTokenizer,
        DistilBertConfig,
        DistilBertForMaskedLM,
    )

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", ":", "##s", "a", "the", "cat"]
WORDS += ["dog", "purr", "bark", "at", "moon", "and", "word", "fish", "bird"]
SPECIAL = {0, 2, 3}
TEXTS = ["a cat purrs", "", "dogs bark at the moon", "the cat and the cat", "zebra", "fish " * 30]
LIMIT = 24


@pytest.fixture(scope="session", params=["bert", "distilbert"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model of two small layers with random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(2)
    if request.param == "bert":
        config = BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=LIMIT, initializer_range=0.5,
        )  # fmt: skip
        model: Any = BertForMaskedLM(config)
    else:
        config = DistilBertConfig(
            vocab_size=len(WORDS), dim=16, n_layers=2, n_heads=2, hidden_dim=32,
            max_position_embeddings=LIMIT, initializer_range=0.5,
        )  # fmt: skip
        model = DistilBertForMaskedLM(config)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def masked_lm(base: Path) -> Any:
    is_bert = json.loads((base / "config.json").read_text())["model_type"] == "bert"
    return (BertForMaskedLM if is_bert else DistilBertForMaskedLM).from_pretrained(base).eval()


def bare_model(base: Path) -> Any:
    model = masked_lm(base)
    return model.bert if isinstance(model, BertForMaskedLM) else model.distilbert


def ids_of(text: str) -> list[int]:
    """WordPiece by hand: our words are whole, but for a plural s."""
    out = [2]
    for word in text.split():
        if word in WORDS:
            out.append(WORDS.index(word))
        elif word.removesuffix("s") in WORDS:
            out += [WORDS.index(word.removesuffix("s")), WORDS.index("##s")]
        else:
            out.append(WORDS.index("[UNK]"))
    return [*out[: LIMIT - 1], 3]


Weigh = Callable[[list[int]], "torch.Tensor"]


def oracle(texts: list[str], weigh: Weigh) -> NDArray[np.float32]:
    """Each text alone, without padding."""
    with torch.no_grad():
        return np.stack([weigh(ids_of(text)).numpy() for text in texts])


def by_position(ids: list[int], weights: list[float]) -> torch.Tensor:
    """The largest weight of each token that is not special."""
    out = torch.zeros(len(WORDS))
    for token, weight in zip(ids, weights, strict=True):
        if token not in SPECIAL:
            out[token] = max(float(out[token]), weight)
    return out


def dense(vectors: SparseVectors) -> NDArray[np.float32]:
    out = np.zeros((len(vectors), vectors.size), np.float32)
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.offsets))
    out[rows, vectors.columns] = vectors.values
    return out


def test_ids_by_hand_are_the_tokenizer_s(base: Path) -> None:
    tokenizer = FrameworkEncoder(base, "splade-max", device="cpu").tokenizer("query")
    for text in TEXTS:
        assert tokenizer(text, truncation=True, max_length=LIMIT)["input_ids"] == ids_of(text)


# Heads --------------------------------------------------------------------------------------------


def checkpoint(folder: Path, base: Path, heads: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A checkpoint in the framework's layout; gives the weights by encoder."""
    shared = "shared_encoder" in heads
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "DualEncoder", "shared": shared}))
    BertTokenizer(str(base / "vocab.txt")).save_pretrained(folder / "tokenizer")
    stored: dict[str, Any] = {}
    for name, settings in heads.items():
        kind = settings["model_type"]
        generator = torch.Generator().manual_seed(len(stored) + 7)

        def random(*shape: int, generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        weights: dict[str, torch.Tensor] = {}
        if kind == "BINARY":
            weights["scale"] = torch.tensor(settings["scale"])
        elif kind == "MLP":
            model = bare_model(base)
            weights = {f"model.{k}": v for k, v in model.state_dict().items()}
            weights |= {"linear.weight": random(1, 16), "linear.bias": random(1)}
            weights["scale"] = torch.tensor(1.0)
        else:
            weights = {f"model.{k}": v for k, v in masked_lm(base).state_dict().items()}
            if settings.get("term_importance") == "epic":
                weights["term_importance.linear.weight"] = random(1, 16)
                weights["term_importance.linear.bias"] = random(1)
            if settings.get("doc_quality") == "epic":
                weights["doc_quality.linear.weight"] = random(1, 16)
                weights["doc_quality.linear.bias"] = random(1)
        (folder / name).mkdir(exist_ok=True)
        settings = {"tf_base_model_name_or_dir": str(base), "vocab_size": len(WORDS), **settings}
        (folder / name / "config.json").write_text(json.dumps(settings))
        plain = {k: v.clone() for k, v in weights.items()}
        save_file(plain, folder / name / "model.safetensors")
        stored[name] = plain
    return stored


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(x, 0.0),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "identity": lambda x: x,
}
NORMS: dict[str, Callable[[float], float]] = {"log1p": math.log1p, "identity": lambda x: x}


@pytest.mark.parametrize(
    ("activation", "norm"),
    [("relu", "log1p"), ("relu", "identity"), ("softplus", "log1p"), ("identity", "identity")],
)
def test_mlp(base: Path, tmp_path: Path, activation: str, norm: str) -> None:
    settings = {"model_type": "MLP", "activation": activation, "norm": norm}
    stored = checkpoint(tmp_path / "m", base, {"shared_encoder": settings})["shared_encoder"]
    model = bare_model(base)

    def weigh(ids: list[int]) -> torch.Tensor:
        states = model(torch.tensor([ids])).last_hidden_state[0]
        linear = states @ stored["linear.weight"][0] + stored["linear.bias"]
        return by_position(ids, [NORMS[norm](ACTIVATIONS[activation](x)) for x in linear.tolist()])

    encoder = FrameworkEncoder(tmp_path / "m", device="cpu", batch_size=4)
    expected = oracle(TEXTS, weigh)
    assert (expected > 0).any()
    for encode in (encoder.encode_query, encoder.encode_document):
        np.testing.assert_allclose(dense(encode(TEXTS)), expected, atol=1e-5)


@pytest.mark.parametrize("pool", ["max", "sum"])
def test_mlm(base: Path, tmp_path: Path, pool: str) -> None:
    settings = {"model_type": "MLM", "pool": pool}
    checkpoint(tmp_path / "m", base, {"shared_encoder": settings})
    model = masked_lm(base)

    def weigh(ids: list[int]) -> torch.Tensor:
        logits = model(torch.tensor([ids])).logits[0]
        words = [row for token, row in zip(ids, logits, strict=True) if token not in SPECIAL]
        if not words:
            return torch.zeros(len(WORDS))
        weights = torch.log1p(torch.relu(torch.stack(words)))
        return weights.max(0).values if pool == "max" else weights.sum(0)

    encoder = FrameworkEncoder(tmp_path / "m", device="cpu", batch_size=4)
    expected = oracle(TEXTS, weigh)
    assert (expected > 0).any()
    np.testing.assert_allclose(dense(encoder.encode_document(TEXTS)), expected, atol=1e-5)
    assert not expected[1].any()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (Head("MLM"), [1.098612, 1.386294, 0, 0.405465]),
        (Head("MLM", pool="sum"), [1.791759, 1.386294, 0, 0.405465]),
        # Without an activation the larger of two logits below 0 stands: padding is no 0.
        (Head("MLM", activation="identity", norm="identity"), [2, 3, -1, 0.5]),
        (Head("MLM", activation="softplus", norm="identity", pool="sum"),
         [math.log1p(math.exp(a)) + math.log1p(math.exp(b))
          for a, b in [(2, 1), (-1, 3), (-1, -2), (0.5, 0)]]),
    ],
)  # fmt: skip
def test_worked_pooling_of_two_positions_and_padding(head: Head, expected: list[float]) -> None:
    from retrievekit.encode.heads import MlmHead

    class Stub(torch.nn.Module):
        config = BertConfig(hidden_size=4, num_attention_heads=2)

        def forward(self, **_: Any) -> Any:
            low = 0.0 if head.activation == "relu" else -1.0
            rows = [[2, -1, low, 0.5], [1, 3, -2, 0], [9, 9, 9, 9]]
            return SimpleNamespace(logits=torch.tensor([rows]))

    ids, attended = torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[1, 1, 0]])
    with torch.no_grad():
        found = MlmHead(Stub(), head)(ids, attended, torch.zeros_like(ids), "max")
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("importance", ["no", "epic"])
@pytest.mark.parametrize("quality", ["no", "epic"])
def test_epic_s_importance_and_quality(
    base: Path, tmp_path: Path, importance: str, quality: str
) -> None:
    document = {
        "model_type": "MLM", "activation": "softplus", "term_importance": importance,
        "doc_quality": quality,
    }  # fmt: skip
    query = {"model_type": "MLP", "activation": "softplus", "norm": "log1p"}
    heads = {"query_encoder": query, "doc_encoder": document}
    stored = checkpoint(tmp_path / "m", base, heads)["doc_encoder"]
    model = masked_lm(base)

    def linear(name: str, states: torch.Tensor) -> torch.Tensor:
        return states @ stored[f"{name}.linear.weight"][0] + stored[f"{name}.linear.bias"]

    def weigh(ids: list[int]) -> torch.Tensor:
        out = model(torch.tensor([ids]), output_hidden_states=True)
        states, logits = out.hidden_states[-1][0], out.logits[0].clone()
        # The logits of a special position count as 0, which softplus does not leave at 0.
        logits[[i for i, token in enumerate(ids) if token in SPECIAL]] = 0
        if importance == "epic":
            logits *= torch.log1p(torch.log1p(linear("term_importance", states).exp()))[:, None]
        weights = torch.log1p(torch.log1p(logits.exp())).max(0).values
        if quality == "epic":
            weights *= 1 / (1 + (-linear("doc_quality", states[0])).exp())
        return weights

    encoder = FrameworkEncoder(tmp_path / "m", device="cpu", batch_size=4)
    expected = oracle(TEXTS, weigh)
    np.testing.assert_allclose(dense(encoder.encode_document(TEXTS)), expected, atol=1e-5)
    if quality == "no":
        assert expected.min() >= math.log1p(math.log(2)) - 1e-6
        assert math.log1p(math.log(2)) == pytest.approx(0.526589)


def test_cls_mlm(base: Path, tmp_path: Path) -> None:
    heads = {
        "query_encoder": {"model_type": "BINARY", "scale": 0.25},
        "doc_encoder": {"model_type": "CLS_MLM"},
    }
    checkpoint(tmp_path / "m", base, heads)
    model = masked_lm(base)

    def weigh(ids: list[int]) -> torch.Tensor:
        return torch.log1p(torch.relu(model(torch.tensor([ids])).logits[0, 0]))

    def presence(ids: list[int]) -> torch.Tensor:
        return by_position(ids, [0.25] * len(ids))

    encoder = FrameworkEncoder(tmp_path / "m", device="cpu", batch_size=4)
    documents = dense(encoder.encode_document(TEXTS))
    np.testing.assert_allclose(documents, oracle(TEXTS, weigh), atol=1e-5)
    np.testing.assert_array_equal(dense(encoder.encode_query(TEXTS)), oracle(TEXTS, presence))


def test_repeated_tokens_count_once_with_the_larger_weight() -> None:
    from retrievekit.encode.heads import scattered

    ids = torch.tensor([[7, 3, 7]])
    found = scattered(ids, torch.tensor([[0.4, 0.2, 0.9]]), 10, "max")
    assert found[0, [3, 7]].tolist() == pytest.approx([0.2, 0.9])
    summed = scattered(ids, torch.tensor([[0.4, 0.2, 0.9]]), 10, "sum")
    assert summed[0, 7].item() == pytest.approx(0.4 + 0.9)
    # Weights below 0 (DeepCT's are not held above it) count for nothing.
    assert scattered(ids, torch.tensor([[-0.4, -1, -0.9]]), 10, "max").abs().sum() == 0


def test_queries_may_add_up_repeated_tokens(base: Path, tmp_path: Path) -> None:
    checkpoint(tmp_path / "m", base, {"shared_encoder": {"model_type": "BINARY", "scale": 0.5}})
    once = FrameworkEncoder(tmp_path / "m", device="cpu")
    twice = FrameworkEncoder(tmp_path / "m", device="cpu", repeats="sum")
    cat = WORDS.index("cat")
    assert dense(once.encode_query(["cat cat"]))[0, cat] == 0.5
    assert dense(twice.encode_query(["cat cat"]))[0, cat] == 0.5 + 0.5
    assert dense(twice.encode_document(["cat cat"]))[0, cat] == 0.5
    assert once.card.fingerprint != twice.card.fingerprint


def test_special_tokens_that_a_text_spells_out_count_for_nothing(
    base: Path, tmp_path: Path
) -> None:
    heads = {
        "query_encoder": {"model_type": "BINARY", "scale": 0.5},
        "doc_encoder": {"model_type": "MLM"},
    }
    checkpoint(tmp_path / "m", base, heads)
    encoder = FrameworkEncoder(tmp_path / "m", device="cpu")
    query = dense(encoder.encode_query(["a [SEP] cat [MASK] [PAD] zebra [CLS]"]))[0]
    assert [WORDS[i] for i in np.flatnonzero(query)] == ["[UNK]", "a", "cat"]
    model, ids = masked_lm(base), [2, WORDS.index("cat"), 3, WORDS.index("dog"), 3]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    expected = torch.log1p(torch.relu(logits[[1, 3]])).max(0).values
    found = dense(encoder.encode_document(["cat [SEP] dog"]))[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


# Methods ------------------------------------------------------------------------------------------


def test_the_table_of_methods() -> None:
    """The table of the paper's public configurations, column by column."""
    rows = {
        name: (
            method.query.kind,
            "shared" if method.shared else method.head("document").kind,
            method.expansion,
            method.regulariser,
        )
        for name, method in METHODS.items()
    }
    assert rows == {
        "deepct": ("MLP", "shared", "", ""),
        "unicoil": ("MLP", "shared", "", ""),
        "unicoil-doct5query": ("MLP", "shared", "docT5query", ""),
        "unicoil-tilde": ("MLP", "shared", "TILDE", ""),
        "deepimpact": ("BINARY", "MLP", "docT5query", ""),
        "tilde": ("BINARY", "CLS_MLM", "", ""),
        "tildev2": ("BINARY", "MLP", "TILDE", ""),
        "sparta": ("BINARY", "MLM", "", ""),
        "epic": ("MLP", "MLM", "", "top-k"),
        "splade-doc": ("BINARY", "MLM", "", "FLOPS"),
        "splade-max": ("MLM", "shared", "", "FLOPS 0.01/0.05"),
        "distil-splade-max": ("MLM", "shared", "", "FLOPS 0.1/0.08"),
        "distil-splade-sep": ("MLM", "MLM", "", "FLOPS 0.1/0.08"),
        "qmlp-dmlm": ("MLP", "MLM", "", "FLOPS 0/0.08"),
        "qmlm-dmlp": ("MLM", "MLP", "", "FLOPS"),
    }
    assert METHODS["deepct"].query == Head("MLP", activation="identity", norm="identity")
    # These weigh by ReLU alone, as published; what their checkpoints learnt has no log1p.
    plain = Head("MLP", norm="identity")
    for name in ("unicoil", "unicoil-doct5query", "unicoil-tilde", "deepimpact", "tildev2"):
        assert METHODS[name].head("document") == plain, name
    assert METHODS["qmlp-dmlm"].query == METHODS["qmlm-dmlp"].head("document") == Head("MLP")
    epic = METHODS["epic"].head("document")
    assert (epic.activation, epic.importance, epic.quality) == ("softplus", True, True)
    # The authors' finding: never BINARY documents.
    assert all(method.head("document").kind != "BINARY" for method in METHODS.values())


def with_linear(base: Path, folder: Path, name: str = "linear") -> Path:
    """The transformer and a linear layer in one file, as uniCOIL is published."""
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    weights[f"{name}.weight"] = torch.randn(1, 16, generator=generator)
    weights[f"{name}.bias"] = torch.randn(1, generator=generator)
    for part in ("term_importance", "doc_quality"):
        weights[f"{part}.linear.weight"] = torch.randn(1, 16, generator=generator)
        weights[f"{part}.linear.bias"] = torch.randn(1, generator=generator)
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_every_method_loads_and_weighs(base: Path, tmp_path: Path, name: str) -> None:
    folder = with_linear(base, tmp_path / "m", "tok_proj")
    encoder = FrameworkEncoder(folder, name, device="cpu", batch_size=2)
    assert isinstance(encoder, SparseEncoder)
    assert encoder.tokens == tuple(WORDS)
    for encode in (encoder.encode_query, encoder.encode_document):
        whole = encode(TEXTS)
        assert whole.size == len(WORDS)
        assert (whole.values >= 0).all()
        assert len(whole.values)
        alone = np.concatenate([dense(encode([text])) for text in TEXTS])
        np.testing.assert_allclose(alone, dense(whole), atol=1e-5)
        assert len(encode([])) == 0
        assert whole.encoder == encoder.card.fingerprint
    # What is special weighs nothing where a position weighs its own token.
    if METHODS[name].query.kind in ("BINARY", "MLP"):
        assert not dense(encoder.encode_query(TEXTS))[:, sorted(SPECIAL)].any()
    card = EncoderCard.from_dict(json.loads(json.dumps(encoder.card.to_dict())))
    again = registry.resolve("encoder-class", card.identity["class"])(card)
    assert again.card.fingerprint == card.fingerprint


def test_unicoil_as_published_is_the_mlp_head(base: Path, tmp_path: Path) -> None:
    folder = with_linear(base, tmp_path / "m", "tok_proj")
    stored = load_file(folder / "model.safetensors")
    model = bare_model(base)

    def weigh(ids: list[int]) -> torch.Tensor:
        states = model(torch.tensor([ids])).last_hidden_state[0]
        linear = states @ stored["tok_proj.weight"][0] + stored["tok_proj.bias"]
        return by_position(ids, torch.relu(linear).tolist())

    found = FrameworkEncoder(folder, "unicoil", device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(dense(found), oracle(TEXTS, weigh), atol=1e-5)


def test_the_names_of_bert_s_first_checkpoints(base: Path, tmp_path: Path) -> None:
    folder = with_linear(base, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in weights.items()
    }
    before = FrameworkEncoder(folder, "splade-max", device="cpu").encode_document(TEXTS)
    save_file(old, folder / "model.safetensors")
    after = FrameworkEncoder(folder, "splade-max", device="cpu").encode_document(TEXTS)
    np.testing.assert_array_equal(dense(after), dense(before))


def test_untrained_parts_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it lacks linear\.(weight|bias).*untrained"):
        FrameworkEncoder(base, "unicoil", device="cpu").encode_query(["cat"])
    epic = Method(Head("BINARY"), METHODS["epic"].document)
    with pytest.raises(DataError, match="it lacks term_importance"):
        FrameworkEncoder(base, epic, device="cpu").encode_document(["cat"])
    folder = with_linear(base, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["linear.weight"] = torch.zeros(1, 8)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"linear\.weight has shape \(1, 8\)"):
        FrameworkEncoder(folder, "unicoil", device="cpu").encode_query(["cat"])


def test_a_checkpoint_says_its_method(base: Path, tmp_path: Path) -> None:
    checkpoint(tmp_path / "m", base, {"shared_encoder": {"model_type": "MLM"}})
    encoder = FrameworkEncoder(tmp_path / "m", device="cpu")
    assert encoder.method == Method(Head("MLM"))
    with pytest.raises(DataError, match="says which method it is; give none"):
        FrameworkEncoder(tmp_path / "m", "splade-max", device="cpu").encode_query(["cat"])
    with pytest.raises(DataError, match="say which method it is for, one of deepct"):
        FrameworkEncoder(base, device="cpu").encode_query(["cat"])
    config = tmp_path / "m" / "shared_encoder" / "config.json"
    for changes, message in [
        ({"model_type": "LSTM"}, "kind is 'LSTM'"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"term_importance": "tf"}, "term_importance is 'tf'"),
    ]:
        kept = config.read_text()
        config.write_text(json.dumps({**json.loads(kept), **changes}))
        with pytest.raises(ParseError, match=message):
            _ = FrameworkEncoder(tmp_path / "m", device="cpu").method
        config.write_text(kept)


def test_settings_are_checked_at_once() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'splade-max'"):
        FrameworkEncoder("x", "splade-mx")
    for settings, message in [
        ({"batch_size": 0}, "at least 1"),
        ({"max_length": 0}, "at least 1"),
        ({"active": {"query": 0}}, "at least 1"),
        ({"active": {"passage": 3}}, "'passage'"),
        ({"repeats": "mean"}, "'mean'"),
    ]:
        with pytest.raises(DataError, match=message):
            FrameworkEncoder("x", "unicoil", **settings)
    with pytest.raises(DataError, match="only MLM heads"):
        Head("MLP", quality=True)
    with pytest.raises(DataError, match="norm is 'log'"):
        Head("MLP", norm="log")  # type: ignore[arg-type]


def test_lengths_and_cuts(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = FrameworkEncoder(base, "splade-max", device="cpu")
    done = encoder.encode(TEXTS, "document")
    assert done.stats.limit == LIMIT
    assert done.stats.cut == 1
    assert done.stats.tokens == sum(
        2 + sum(2 if w.endswith("s") and w not in WORDS else 1 for w in text.split())
        for text in TEXTS
    )
    assert "1 of 6 document texts were longer than 24 tokens" in caplog.text
    short = FrameworkEncoder(base, "splade-max", device="cpu", max_length=4)
    same = dense(short.encode_document(["a cat purrs at the moon", "a cat"]))
    np.testing.assert_allclose(same[0], same[1], atol=1e-6)
    with pytest.raises(DataError, match=r"2 tokens of a query are read.*at least 3$"):
        FrameworkEncoder(base, "splade-max", device="cpu", max_length=2).encode_query(["a"])
    with pytest.raises(DataError, match="max_length is 25, but the model reads 24"):
        FrameworkEncoder(base, "splade-max", device="cpu", max_length=25).encode_query(["a"])


def test_many_threads_get_the_weights_of_one(base: Path) -> None:
    encoder = FrameworkEncoder(base, "splade-max", device="cpu", batch_size=2)
    texts = ["cat " * n for n in (300, 50, 5, 3, 100)]
    expected = encoder.encode(texts, "query")

    def work(_: int) -> bool:
        for _ in range(15):
            done = encoder.encode(texts, "query")
            if done.stats != expected.stats:
                return False
            if not np.allclose(dense(done.vectors), dense(expected.vectors), atol=1e-5):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_only_the_largest_weights_are_kept(base: Path) -> None:
    encoder = FrameworkEncoder(base, "splade-max", device="cpu", active={"document": 2})
    whole, kept = dense(encoder.encode_query(TEXTS)), dense(encoder.encode_document(TEXTS))
    for full, part in zip(whole, kept, strict=True):
        best = np.sort(full)[::-1][:2]
        np.testing.assert_allclose(np.sort(part)[::-1][:2], best, atol=1e-6)
        assert (part > 0).sum() == (best > 0).sum()


# Inference-free queries ---------------------------------------------------------------------------


def test_idf_of_a_corpus(base: Path) -> None:
    encoder = FrameworkEncoder(base, "splade-max", device="cpu")
    tokenizer = encoder.tokenizer("document")
    texts = ["the cat", "the dog and the dog", "the fish", ""]
    table = IdfTable.computed(texts, tokenizer)
    by_token = dict(zip(table.tokens, table.weights.tolist(), strict=True))
    # N counts all four texts, a text counts once however often it holds the token.
    assert by_token["the"] == pytest.approx(math.log(1 + (4 - 3 + 0.5) / (3 + 0.5)))
    assert by_token["dog"] == pytest.approx(math.log(1 + (4 - 1 + 0.5) / (1 + 0.5)))
    assert by_token["bird"] == 1.0
    assert {by_token[name] for name in ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")} == {0.0}
    corpus = Corpus.from_documents(
        [Document("1", "cat", "the"), Document("2", "the dog and the dog"),
         Document("3", "the fish"), Document("4", "")]
    )  # fmt: skip
    assert IdfTable.computed(corpus, tokenizer).content_hash == table.content_hash


def test_what_is_no_list_of_texts_is_not_counted(base: Path) -> None:
    tokenizer = FrameworkEncoder(base, "splade-max", device="cpu").tokenizer("document")
    with pytest.raises(DataError, match="got one string"):
        IdfTable.computed("the cat", tokenizer)
    with pytest.raises(DataError, match="document 1 is None"):
        IdfTable.computed(["cat", None], tokenizer)  # type: ignore[list-item]
    with pytest.raises(DataError, match="lone surrogate"):
        IdfTable.computed(["\ud800"], tokenizer)
    told: list[int] = []
    IdfTable.computed(["cat"] * 1025, tokenizer, progress=lambda done, _: told.append(done))
    assert told == [1024, 1025]


def test_encoders_without_a_tokenizer_have_no_table(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FrameworkEncoder(base, "splade-max", device="cpu")
    monkeypatch.setattr(encoder, "tokenizer", lambda role: None)
    with pytest.raises(DataError, match="no tokenizer of transformers"):
        InferenceFreeEncoder.from_corpus(encoder, ["cat"])


def test_the_largest_published_idf() -> None:
    # A token in one of MS MARCO's passages: the largest entry of the published table.
    n, df = 8_841_823, 1
    assert math.log(1 + (n - df + 0.5) / (df + 0.5)) == pytest.approx(15.5895, abs=5e-5)


def test_worked_scores_of_inference_free_queries(base: Path) -> None:
    encoder = FrameworkEncoder(base, "splade-max", device="cpu")
    idf = np.zeros(len(WORDS), np.float32)
    names = ["cat", "dog", "fish", "bird"]
    idf[[WORDS.index(name) for name in names]] = [0.5, 4, 2, 1]
    free = InferenceFreeEncoder(encoder, IdfTable(tuple(WORDS), idf))
    query = dense(free.encode_query(["fish cat cat bird zebra"]))[0]
    # Queries of the tokens 0, 2 and 3 against the rows of R.
    rows = np.array([[1, 0, 2, 0], [0, 0, 1, 3], [1, 0, 0, 0]], np.float32)
    own = query[[WORDS.index(name) for name in names]]
    assert own.tolist() == [0.5, 0, 2, 1]
    # With R / idf documents, as the penalty's identity has them: [3, 4, 1] both ways.
    scaled = rows / np.array([0.5, 4, 2, 1], np.float32)
    np.testing.assert_allclose(scaled @ own, [3, 4, 1])
    np.testing.assert_allclose(rows @ (own > 0), [3, 4, 1])


def test_inference_free_encoder(base: Path, tmp_path: Path) -> None:
    encoder = FrameworkEncoder(base, "splade-max", device="cpu")
    table = IdfTable.computed(TEXTS, encoder.tokenizer("document"))
    free = InferenceFreeEncoder(encoder, table)
    assert isinstance(free, SparseEncoder)
    assert InferenceFreeEncoder.from_corpus(encoder, TEXTS).card == free.card
    found = dense(free.encode_query(["the [SEP] cat cat the", "", "zebra"]))
    expected = np.zeros((3, len(WORDS)), np.float32)
    for name in ("the", "cat"):
        expected[0, WORDS.index(name)] = table.weights[WORDS.index(name)]
    np.testing.assert_array_equal(found, expected)
    assert len(free.encode_query([])) == 0
    documents = free.encode_document(TEXTS)
    np.testing.assert_array_equal(dense(documents), dense(encoder.encode_document(TEXTS)))
    assert documents.encoder == free.card.fingerprint != encoder.card.fingerprint
    table.write(tmp_path / "idf.json")
    again = IdfTable.read(tmp_path / "idf.json", encoder.tokenizer("query"))
    assert again.content_hash == table.content_hash
    # The index keeps the table, through updates and merges.
    index = SparseIndex.build(Corpus.from_texts(TEXTS), free, tmp_path / "x")
    with index.writer() as writer:
        writer.add([Document("more", "the cat purrs")])
    with open_index(tmp_path / "x").writer() as writer:
        writer.compact()
    with open_index(tmp_path / "x").writer() as writer:
        writer.add([Document("last", "the dog")])
    queries = Queries.from_texts(["the cat", "dogs bark"])
    alone = open_index(tmp_path / "x")
    assert all("encoder.idf" in segment.record.arrays for segment in alone.segments)
    assert alone.search(queries, 5) == index.reopen().search(queries, 5)
    assert alone.search(queries, 5).n_hits > 5
    assert CliRunner().invoke(app, ["search", str(tmp_path / "x"), "the cat"]).exit_code == 0
    assert verify(tmp_path / "x").ok
    other = InferenceFreeEncoder.from_corpus(encoder, ["the"])
    with pytest.raises(EncoderMismatchError, match="queries"):
        SparseIndex.open(tmp_path / "x", other)
    name = next((tmp_path / "x").rglob("encoder.idf"))
    damaged = bytearray(name.read_bytes())
    damaged[4 * WORDS.index("cat")] ^= 1
    name.write_bytes(damaged)
    with pytest.raises(CorruptIndexError, match=r"encoder\.idf"):
        open_index(tmp_path / "x").search(queries, 5)
    stranger = IdfTable((*WORDS[:-1], "ghost"), np.ones(len(WORDS), np.float32))
    with pytest.raises(DataError, match="tokens are not those of"):
        InferenceFreeEncoder(encoder, stranger).encode_query(["cat"])
    with pytest.raises(DataError, match="query 1 is None"):
        free.encode_query(["cat", None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"cat": "x"}', "not an object of a number"),
        ('{"cat": true}', "not an object of a number"),
        ('{"cat": 1, "cat": 2}', "'cat' comes twice"),
        ('{"cat": 1e39}', "'cat' weighs 1e[+]39, no finite float32"),
        ('{"cat": NaN}', "'cat' weighs nan, no finite"),
        (f'{{"cat": 1{"0" * 400}}}', "'cat' weighs 1000.*, no finite float32"),
        ('{"ghost": 1.0}', r"1 tokens are not the tokenizer's, such as \['ghost'\]"),
    ],
)
def test_bad_tables(base: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "idf.json").write_text(content)
    tokenizer = FrameworkEncoder(base, "splade-max", device="cpu").tokenizer("query")
    with pytest.raises(ParseError, match=message):
        IdfTable.read(tmp_path / "idf.json", tokenizer)


def test_tables_are_checked() -> None:
    with pytest.raises(DataError, match="'b' weighs -1"):
        IdfTable(("a", "b"), np.array([1, -1], np.float32))
    with pytest.raises(NonFiniteError):
        IdfTable(("a",), np.array([np.nan], np.float32))
    with pytest.raises(DataError, match="2 tokens, but weights"):
        IdfTable(("a", "b"), np.ones(3, np.float32))


def test_constructors_are_light() -> None:
    code = (
        "import sys; from retrievekit.encode.framework import FrameworkEncoder as F; "
        "from retrievekit.encode.idf import IdfTable; F('no such model', 'unicoil'); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
