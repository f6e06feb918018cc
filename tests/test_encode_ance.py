"""`AnceEncoder` against RoBERTa and its head in plain torch, on a small random model."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retrievekit import registry
from retrievekit.corpus import Corpus
from retrievekit.encode import tower
from retrievekit.encode.ance import AnceEncoder
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.errors import DataError, EncoderMismatchError, MissingDataError
from retrievekit.index.dense import DenseIndex
from retrievekit.protocols import EncoderCard
from retrievekit.queries import Queries
from retrievekit.testing import check_encoder
from tests.plain_bert import states

TEXTS = [
    "The Cat sat", "", "dogs bark at the moon", "a CAT", "the cat sat", "x",
    "the dog and the cat and the moon and the dog and the cat and the moon " * 3,
]  # fmt: skip
DIM = 12


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cased byte-level vocabulary, a RoBERTa of two small layers and a head, all random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from safetensors.torch import save_file
        from tokenizers import ByteLevelBPETokenizer
        from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("ance") / "small"
    folder.mkdir()
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([*TEXTS, "The The Cat Cat CAT"], 300, 1, False, special)
    trained.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    merges = [
        tuple(line.split(" "))
        for line in (folder / "merges.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#version")
    ]
    RobertaTokenizerFast(vocab, merges, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(3)
    config = RobertaConfig(
        vocab_size=len(vocab), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=520, pad_token_id=1, layer_norm_eps=1e-5,
        initializer_range=0.5,
    )  # fmt: skip
    weights = {f"roberta.{k}": v for k, v in RobertaModel(config).state_dict().items()}
    weights["embeddingHead.weight"] = torch.randn(DIM, 16)
    weights["embeddingHead.bias"] = torch.randn(DIM)
    weights["norm.weight"] = torch.rand(DIM) + 0.5
    weights["norm.bias"] = torch.randn(DIM)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def oracle(folder: Path, text: str, limit: int) -> np.ndarray:
    """Lower-cased, ``<s> text </s>``, the first state, W h + b, layer norm with eps 1e-5."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import RobertaConfig

    weights = load_file(folder / "model.safetensors")
    config = RobertaConfig.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner = tokenizer.encode(text.lower(), add_special_tokens=False).ids[: limit - 2]
    ids = [tokenizer.token_to_id("<s>"), *inner, tokenizer.token_to_id("</s>")]
    body = {k.removeprefix("roberta."): v for k, v in weights.items() if k.startswith("roberta.")}
    first = states(body, config, ids, config.pad_token_id + 1)[0]
    e = weights["embeddingHead.weight"] @ first + weights["embeddingHead.bias"]
    spread = ((e - e.mean()) ** 2).mean()
    e = (e - e.mean()) / (spread + 1e-5) ** 0.5 * weights["norm.weight"] + weights["norm.bias"]
    return e.numpy()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_vectors_equal_the_oracle(folder, batch_size):
    encoder = AnceEncoder(str(folder), device="cpu", batch_size=batch_size)
    for encode, limit in ((encoder.encode_query, 64), (encoder.encode_document, 512)):
        expected = np.stack([oracle(folder, text, limit) for text in TEXTS])
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-5)
    long = ["moon " * 700]
    assert not np.allclose(encoder.encode_query(long), encoder.encode_document(long), atol=1e-3)


def test_head_equals_the_worked_value(folder):
    """h = [1, 0, 2, -1]: W h + b = [1, .5, 3, -2], and its layer norm."""
    import torch

    network = torch.nn.Module()
    states = torch.tensor([[[1.0, 0, 2, -1], [9, 9, 9, 9]]])
    network.roberta = lambda **_: SimpleNamespace(last_hidden_state=states)
    network.embeddingHead, network.norm = torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)
    rows = [[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 2]]
    with torch.no_grad():
        network.embeddingHead.weight.copy_(torch.tensor(rows))
        network.embeddingHead.bias.copy_(torch.tensor([0, 0.5, 0, 0]))
    encoder = AnceEncoder(str(folder), device="cpu")
    vars(encoder)["_network"] = network
    ids = torch.ones((1, 2), dtype=torch.long)
    with torch.no_grad():
        out = encoder._vectors(ids, ids, "query")
    expected = [0.210558, -0.070186, 1.333536, -1.473909]
    np.testing.assert_allclose(out[0].numpy(), expected, atol=1e-5)


def test_text_is_lower_cased_whatever_the_tokenizer_does(folder):
    encoder = AnceEncoder(str(folder), device="cpu")
    tokenizer = encoder.tokenizer
    # The trap: the tokenizer is cased, and setting its flag changes nothing.
    tokenizer.do_lower_case = True
    assert tokenizer("The CAT")["input_ids"] != tokenizer("the cat")["input_ids"]
    upper, lower = encoder.encode_query(["The CAT", "the cat"])
    np.testing.assert_allclose(upper, lower, atol=1e-6)
    assert encoder.card.identity["lower_case"] is True


def test_it_keeps_the_protocol(folder):
    check_encoder(AnceEncoder(str(folder), device="cpu"), atol=1e-5)


def test_no_texts(folder):
    encoder = AnceEncoder(str(folder), device="cpu")
    assert encoder.encode_query([]).shape == (0, DIM)
    assert encoder.encode_document([]).shape == (0, DIM)


def test_lengths_and_cuts(folder, caplog):
    encoder = AnceEncoder(str(folder), device="cpu", max_length={"document": 7})
    assert encoder.max_length == {"query": 64, "document": 7}
    # "moon" in the middle of a text is one token or more; count them as the tokenizer does.
    per_word = len(encoder.tokenizer(" moon", add_special_tokens=False)["input_ids"])
    with caplog.at_level(logging.WARNING):
        done = encoder.encode(["x", " moon" * 50, ""], "document")
    assert (done.stats.texts, done.stats.cut, done.stats.limit) == (3, 1, 7)
    assert done.stats.tokens == 3 + (50 * per_word + 2) + 2
    (record,) = caplog.records
    assert "1 of 3 document texts were longer than 7 tokens" in record.getMessage()
    np.testing.assert_allclose(done.vectors[1], oracle(folder, " moon" * 50, 7), atol=1e-5)


@pytest.mark.parametrize("spoilt", ["norm.weight", "norm.bias"])
def test_head_that_was_not_loaded_is_refused(copy, spoilt):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights[spoilt] = weights[spoilt] * 0 + (1 if spoilt == "norm.weight" else 0)
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(DataError, match="layer norm of the head has the values that it starts"):
        AnceEncoder(str(copy), device="cpu").encode_query(["a"])


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("embeddingHead.weight", "no embeddingHead and norm"),
        ("norm.weight", "no embeddingHead and norm"),
        ("embeddingHead.bias", r"1 weights are missing, such as embeddingHead\.bias"),
        ("roberta.encoder.layer.1.output.dense.bias", "1 weights are missing, such as roberta"),
    ],
)
def test_missing_weights_are_refused(copy, lost, message):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights[lost]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(DataError, match=message):
        AnceEncoder(str(copy), device="cpu").encode_query(["a"])


def test_weights_of_another_shape_are_refused(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["norm.bias"] = weights["norm.bias"][:5].clone()
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(DataError, match=r"norm\.bias has the shape \(5,\)"):
        AnceEncoder(str(copy), device="cpu").encode_query(["a"])


def test_folder_without_a_tokenizer_is_refused(copy):
    for name in ("tokenizer.json", "merges.txt"):
        (copy / name).unlink()
    with pytest.raises(DataError, match=r"no tokenizer .* copy these files"):
        AnceEncoder(str(copy), device="cpu").encode_query(["a"])


def test_pickled_weights_need_to_be_allowed(copy, folder, monkeypatch):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataError, match="allow_pickle=True"):
        AnceEncoder(str(copy), device="cpu").encode_query(["a"])
    allowed = AnceEncoder(str(copy), device="cpu", allow_pickle=True)
    expected = AnceEncoder(str(folder), device="cpu").encode_query(TEXTS)
    np.testing.assert_allclose(allowed.encode_query(TEXTS), expected, atol=1e-6)
    assert set(allowed.card.identity["weights"]) == {"pytorch_model.bin"}
    # An index that was built so does not make its readers unpickle anything.
    with pytest.raises(DataError, match="allow_pickle=True"):
        _ = AnceEncoder.from_card(allowed.card).card
    monkeypatch.setattr(tower, "SAFE_TORCH", (99, 0))
    with pytest.raises(DataError, match=r"torch 99\.0 or newer only"):
        AnceEncoder(str(copy), device="cpu", allow_pickle=True).encode_query(["a"])


class Bomb:
    """What a pickle may do."""

    def __reduce__(self):
        return (Path.touch, (Path("boom"),))


def test_pickles_of_more_than_tensors_are_refused(copy, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    (copy / "model.safetensors").unlink()
    torch.save({"norm.weight": Bomb()}, copy / "pytorch_model.bin")
    with pytest.raises(DataError, match="more than tensors"):
        AnceEncoder(str(copy), device="cpu", allow_pickle=True).encode_query(["a"])
    assert not Path("boom").exists()
    torch.save([torch.zeros(2)], copy / "pytorch_model.bin")
    with pytest.raises(DataError, match="not tensors by name"):
        AnceEncoder(str(copy), device="cpu", allow_pickle=True).encode_query(["a"])


def test_damaged_weights_are_refused(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:1000])
    with pytest.raises(DataError, match="no weights that can be read"):
        AnceEncoder(str(copy), device="cpu").encode_query(["a"])


def test_card_leads_back_and_the_index_finds_its_encoder(folder, tmp_path):
    encoder = AnceEncoder(str(folder), device="cpu", max_length={"document": 100})
    identity = encoder.card.identity
    assert identity["class"] == "ance"
    assert set(identity["weights"]) == {"model.safetensors"}
    assert "tokenizer.json" in identity["tokenizer"]
    assert identity["max_length"] == {"query": 64, "document": 100}
    card = EncoderCard.from_dict(json.loads(json.dumps(encoder.card.to_dict())))
    assert AnceEncoder.from_card(card).card.fingerprint == encoder.card.fingerprint
    corpus = Corpus.from_texts({f"d{n}": text for n, text in enumerate(TEXTS) if text})
    DenseIndex.build(corpus, encoder, tmp_path / "index")
    index = DenseIndex.open(tmp_path / "index")
    assert isinstance(index.encoder, AnceEncoder)
    assert index.similarity == "dot"
    scores = encoder.encode_query(["the cat"]) @ encoder.encode_document(corpus.contents()).T
    run = index.search(Queries.from_texts({"q": "the cat"}), 1)
    assert run["q"].doc_ids == [corpus.ids[int(scores[0].argmax())]]
    with pytest.raises(EncoderMismatchError, match="max_length"):
        DenseIndex.open(tmp_path / "index", AnceEncoder(str(folder), device="cpu"))


def test_names_lead_here():
    assert registry.resolve("encoder", "ance")().name == "castorini/ance-msmarco-passage"


def test_sentence_encoder_refuses_it(copy):
    named = copy.rename(copy.parent / "ance-msmarco-passage")
    with pytest.raises(DataError, match=r"load it with AnceEncoder\("):
        SentenceEncoder(named, device="cpu").encode_query(["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "no dtype"),
        ({"batch_size": 0}, "batch_size is a whole number of at least 1"),
        ({"max_length": 0}, "max_length is a whole number of at least 1"),
        ({"max_length": {"passage": 3}}, "'query' and 'document'"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(DataError, match=message):
        AnceEncoder("anything", **settings)


def test_unreadable_lengths_and_names(folder):
    with pytest.raises(DataError, match="the model reads 518 tokens at most"):
        AnceEncoder(str(folder), device="cpu", max_length=519).encode_query(["a"])
    with pytest.raises(DataError, match=r"2 tokens of a query are read.*at least 3$"):
        AnceEncoder(str(folder), device="cpu", max_length=2).encode_query(["a"])
    with pytest.raises(DataError, match="no role 'passage'"):
        AnceEncoder(str(folder), device="cpu").encode(["a"], "passage")
    with pytest.raises(MissingDataError):
        AnceEncoder("no/such-model").encode_query(["a"])


def test_narrow_numbers(folder):
    wide = AnceEncoder(str(folder), device="cpu")
    narrow = AnceEncoder(str(folder), device="cpu", dtype="bfloat16")
    assert narrow.card.fingerprint == wide.card.fingerprint
    assert narrow.card.numerics["dtype"] == "bfloat16"
    a, b = wide.encode_document(TEXTS), narrow.encode_document(TEXTS)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.98
    assert b.dtype == np.float32
