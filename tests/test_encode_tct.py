"""`TctColbertEncoder` against BERT written out in plain torch, on a small random model."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from retrievekit import registry
from retrievekit.corpus import Corpus
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.encode.tct import TctColbertEncoder, masked_mean
from retrievekit.errors import DataError
from retrievekit.index.dense import DenseIndex
from retrievekit.protocols import EncoderCard
from retrievekit.queries import Queries
from retrievekit.testing import check_encoder
from tests.plain_bert import states

WORDS = ["a", "the", "cat", "dog", "purr", "##s", "bark", "at", "moon", "and", "word"]
TEXTS = ["a Cat purrs", "the dog", "dogs bark at the moon", "x", "cat " * 50, "the cat [MASK] dog"]
DIM = 16


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uncased WordPiece vocabulary and a BERT of two small layers with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("tct") / "small"
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "q", "d", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=80, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=80).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def small(folder: Path, **settings) -> TctColbertEncoder:
    return TctColbertEncoder(str(folder), device="cpu", max_length={"document": 40}, **settings)


def oracle(folder: Path, text: str, role: str) -> np.ndarray:
    """The whole string tokenized at once, cut, and the plain mean from position 4 on."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig

    weights = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole = f"[CLS] [Q] {text}" + "[MASK]" * 36 if role == "query" else f"[CLS] [D] {text}"
    ids = tokenizer.encode(whole, add_special_tokens=False).ids
    ids = ids[: 36 if role == "query" else 40]
    out = states(weights, BertConfig.from_pretrained(folder), ids)
    return out[4:].mean(dim=0).numpy()


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_vectors_equal_the_oracle(folder, batch_size):
    encoder = small(folder, batch_size=batch_size)
    for role, encode in (("query", encoder.encode_query), ("document", encoder.encode_document)):
        expected = np.stack([oracle(folder, text, role) for text in TEXTS])
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(
        encoder.encode_query([""])[0], oracle(folder, "", "query"), atol=1e-5
    )


def test_mean_equals_the_worked_value():
    """[1, 2], [3, 6], [7, 8] under the mask 1, 1, 0 have the mean [2, 4]; unmasked another."""
    import torch

    rows = [[9.0, 9]] * 4 + [[1, 2], [3, 6], [7, 8]]
    given = torch.tensor([rows, rows, rows])
    mask = torch.tensor([[1] * 4 + [1, 1, 0], [1] * 7, [1] * 4 + [0] * 3])
    expected = [[2, 4], [11 / 3, 16 / 3], [0, 0]]
    np.testing.assert_allclose(masked_mean(given, mask).numpy(), expected, atol=1e-6)


def test_queries_have_36_tokens_and_documents_no_end_mark(folder):
    encoder = small(folder)
    tokenizer = encoder.tokenizer
    (ids,) = encoder._tokens(["the cat"], "query")
    query = tokenizer.convert_ids_to_tokens(encoder._cut(ids, "query"))
    assert query == ["[CLS]", "[", "q", "]", "the", "cat"] + ["[MASK]"] * 30
    (ids,) = encoder._tokens(["the cat"], "document")
    document = tokenizer.convert_ids_to_tokens(encoder._cut(ids, "document"))
    assert document == ["[CLS]", "[", "d", "]", "the", "cat"]
    (ids,) = encoder._tokens(["cat " * 60], "query")
    assert len(encoder._cut(ids, "query")) == 36


def test_masks_count_in_queries(folder):
    """Leaving the masks out of a query's mean gives another vector."""
    encoder = small(folder)
    (vector,) = encoder.encode_query(["the cat"])
    from safetensors.torch import load_file
    from transformers import BertConfig

    (ids,) = encoder._tokens(["the cat"], "query")
    config = BertConfig.from_pretrained(folder)
    out = states(load_file(folder / "model.safetensors"), config, encoder._cut(ids, "query"))
    assert np.abs(out[4:6].mean(dim=0).numpy() - vector).max() > 1e-2


def test_it_keeps_the_protocol(folder):
    check_encoder(small(folder), atol=1e-5)


def test_empty_document_is_a_zero_vector(folder):
    encoder = small(folder)
    vectors = encoder.encode_document(["", "cat", " "])
    assert not vectors[[0, 2]].any()
    assert vectors[1].any()
    assert encoder.encode_document([]).shape == (0, DIM)
    assert encoder.encode_query([]).shape == (0, DIM)


def test_cuts_are_counted(folder, caplog):
    encoder = small(folder)
    with caplog.at_level(logging.WARNING):
        queries = encoder.encode(["cat " * 32, "cat " * 33, ""], "query").stats
        documents = encoder.encode(["cat " * 36, "cat " * 37], "document").stats
    assert (queries.cut, queries.limit, queries.tokens) == (1, 36, 36 + 37 + 4)
    assert (documents.cut, documents.limit, documents.tokens) == (1, 40, 40 + 41)
    told = [record.getMessage() for record in caplog.records]
    assert any("1 of 3 query texts were longer than 36 tokens" in line for line in told)
    assert any("1 of 2 document texts were longer than 40 tokens" in line for line in told)


def test_names_may_begin_with_bert(folder, copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    named = {f"bert.{name}": value for name, value in weights.items()}
    named["cls.predictions.bias"] = weights["encoder.layer.0.output.dense.bias"].clone()
    save_file(named, copy / "model.safetensors")
    expected = small(folder).encode_query(TEXTS)
    np.testing.assert_allclose(small(copy).encode_query(TEXTS), expected, atol=1e-6)
    del named["bert.encoder.layer.0.output.dense.bias"]
    save_file(named, copy / "model.safetensors")
    with pytest.raises(DataError, match=r"1 weights are missing, such as bert\.encoder"):
        small(copy).encode_query(["a"])


def test_another_tokenizer_is_refused(copy):
    """Where [Q] is a token of its own, position 4 is a word."""
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    token = {**tokenizer["added_tokens"][0], "id": 7, "content": "[Q]"}
    tokenizer["added_tokens"].append(token)
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match=r"makes 2 tokens of '\[CLS\] \[Q\]', not 4"):
        small(copy).encode_query(["a"])


@pytest.mark.parametrize("lengths", [{"query": 32}, {"document": 4}, 4])
def test_lengths_are_checked_at_once(lengths):
    with pytest.raises(DataError, match="exactly 36 tokens and documents more than 4"):
        TctColbertEncoder("anything", max_length=lengths)


def test_length_beyond_the_model_is_refused(folder):
    with pytest.raises(DataError, match="the model reads 80 tokens at most"):
        TctColbertEncoder(str(folder), device="cpu").encode_query(["a"])
    assert TctColbertEncoder(str(folder), max_length=80).max_length == {
        "query": 36,
        "document": 80,
    }


def test_card_leads_back_and_the_index_finds_its_encoder(folder, tmp_path):
    encoder = small(folder)
    identity = encoder.card.identity
    assert (identity["class"], identity["similarity"]) == ("tct", "dot")
    assert identity["prompts"] == {"query": "[CLS] [Q] ", "document": "[CLS] [D] "}
    card = EncoderCard.from_dict(json.loads(json.dumps(encoder.card.to_dict())))
    assert TctColbertEncoder.from_card(card).card.fingerprint == encoder.card.fingerprint
    corpus = Corpus.from_texts({"a": "the cat", "b": "dogs bark", "c": "a moon"})
    DenseIndex.build(corpus, encoder, tmp_path / "index")
    index = DenseIndex.open(tmp_path / "index")
    assert isinstance(index.encoder, TctColbertEncoder)
    scores = encoder.encode_query(["dogs"]) @ encoder.encode_document(corpus.contents()).T
    run = index.search(Queries.from_texts({"q": "dogs"}), 3)
    assert run["q"].doc_ids == [corpus.ids[int(row)] for row in np.argsort(-scores[0])]


def test_names_lead_here(folder, copy):
    assert registry.resolve("encoder", "tct")().name == "castorini/tct_colbert-v2-hnp-msmarco"
    named = copy.rename(copy.parent / "tct_colbert-v2-msmarco")
    with pytest.raises(DataError, match=r"load it with TctColbertEncoder\("):
        SentenceEncoder(named, device="cpu").encode_query(["a"])
