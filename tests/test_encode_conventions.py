"""The table of known families, and `SentenceEncoder` under it, against plain torch."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from retrievekit.encode.conventions import convention_of, conventions, hub_id_of
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.errors import DataError
from retrievekit.protocols import EncoderCard
from retrievekit.testing import check_encoder
from tests.plain_bert import states

TEXTS = ["a Cat purrs", "the dog", "dogs bark at the moon", "", "The the dog"]
WORDS = ["a", "the", "The", "cat", "Cat", "dog", "purr", "##s", "bark", "at", "moon", "query",
         "passage", ":", "Rep", "for", "document"]  # fmt: skip
DIM = 16
INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"

# The table --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "loader", "pooling", "normalise", "similarity", "query", "document", "lengths"),
    [
        ("castorini/ance-msmarco-passage", "ance", None, False, "dot", "", "", (64, 512)),
        ("sebastian-hofstaetter/distilbert-dot-tas_b-b256-msmarco", "sentence", "cls", False,
         "dot", "", "", (None, None)),
        ("sentence-transformers/msmarco-distilbert-base-tas-b", "sentence", "cls", False,
         "dot", "", "", (None, None)),
        ("GPL/fiqa-distilbert-tas-b-gpl-self_miner", "sentence", "cls", False, "dot", "", "",
         (None, None)),
        ("sebastian-hofstaetter/distilbert-dot-margin_mse-T2-msmarco", "sentence", "cls", False,
         "dot", "", "", (None, None)),
        ("castorini/tct_colbert-v2-hnp-msmarco", "tct", None, False, "dot", "", "", (36, 512)),
        ("sentence-transformers/msmarco-distilbert-base-v3", "sentence", "mean", True, "cosine",
         "", "", (512, 512)),
        ("facebook/contriever", "sentence", "mean", False, "dot", "", "", (512, 512)),
        ("facebook/contriever-msmarco", "sentence", "mean", False, "dot", "", "", (512, 512)),
        ("intfloat/e5-base-v2", "sentence", "mean", True, "cosine", "query: ", "passage: ",
         (512, 512)),
        ("intfloat/multilingual-e5-small", "sentence", "mean", True, "cosine", "query: ",
         "passage: ", (512, 512)),
        ("intfloat/e5-mistral-7b-instruct", "sentence", "lasttoken", True, "cosine",
         INSTRUCT + "Query: ", "", (None, None)),
        ("BAAI/bge-base-en-v1.5", "sentence", "cls", True, "cosine",
         "Represent this sentence for searching relevant passages: ", "", (512, 512)),
        ("BAAI/bge-m3", "sentence", "cls", True, "cosine", "", "", (8192, 8192)),
        ("thenlper/gte-base", "sentence", "mean", True, "cosine", "", "", (512, 512)),
        ("Alibaba-NLP/gte-modernbert-base", "sentence", "cls", True, "cosine", "", "",
         (None, None)),
        ("nomic-ai/nomic-embed-text-v1.5", "sentence", "mean", True, "cosine", "search_query: ",
         "search_document: ", (8192, 8192)),
        ("Qwen/Qwen3-Embedding-0.6B", "sentence", "lasttoken", True, "cosine",
         INSTRUCT + "Query:", "", (None, None)),
        ("castorini/bpr-nq-ctx-encoder", "none", "cls", False, "dot", "", "", (256, 256)),
    ],
)  # fmt: skip
def test_facts(model, loader, pooling, normalise, similarity, query, document, lengths):
    known = convention_of(model)
    assert known is not None
    assert (known.loader, known.pooling, known.normalise) == (loader, pooling, normalise)
    assert known.similarity == similarity
    assert known.prompts == {"query": query, "document": document}
    assert (known.max_lengths["query"], known.max_lengths["document"]) == lengths
    assert known.lower_case is (model == "castorini/ance-msmarco-passage")


def test_table_is_sound():
    names = [model for known in conventions() for model in known.models]
    assert len(names) == len({name.lower() for name in names})
    # A local folder is known by the second part, which must lead to one family.
    parts = [name.partition("/")[2].lower() for name in names]
    assert len(parts) == len(set(parts))
    assert len({known.family for known in conventions()}) == len(conventions())
    for known in conventions():
        assert known.source, known.family
        assert known.loader in ("sentence", "ance", "tct", "none")
        assert known.pooling in ("cls", "mean", "lasttoken", None)
        assert (known.pooling is None) == (known.loader in ("ance", "tct"))
        assert all("/" in model for model in known.models)


def test_names():
    tasb = convention_of("sentence-transformers/msmarco-distilbert-base-tas-b")
    assert convention_of("MSMARCO-distilbert-base-TAS-B") is tasb
    assert convention_of("somebody/msmarco-distilbert-base-tas-b") is None
    assert convention_of("e5-base-v2-mine") is None
    assert convention_of("sentence-transformers/all-MiniLM-L6-v2") is None
    cached = Path("hub/models--intfloat--e5-base-v2/snapshots/0123")
    assert hub_id_of(cached) == "intfloat/e5-base-v2"
    assert hub_id_of(Path("models/e5-base-v2")) == "e5-base-v2"


# Models under it --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: BERT of two small layers, a cased vocabulary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bare") / "small"
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False, model_max_length=32)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def named(bare: Path, tmp_path: Path):
    """Copies of the model under a name, with the modules.json that is asked for."""

    def make(name: str, modules: list[str] | None = None, **config) -> Path:
        folder = Path(shutil.copytree(bare, tmp_path / name))
        if modules is None:
            return folder
        package = "sentence_transformers.models"
        entries = [{"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"}]
        for place, part in enumerate(modules, 1):
            kind = part.partition(" ")[0]
            path = f"{place}_{kind}"
            entries.append(
                {"idx": place, "name": str(place), "path": path, "type": f"{package}.{kind}"}
            )
            (folder / path).mkdir()
            if kind == "Pooling":
                mode = part.partition(" ")[2]
                written = {
                    "word_embedding_dimension": DIM,
                    "pooling_mode_cls_token": mode == "cls",
                    "pooling_mode_mean_tokens": mode == "mean",
                }
                (folder / path / "config.json").write_text(json.dumps(written))
        (folder / "modules.json").write_text(json.dumps(entries))
        (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
        return folder

    return make


def oracle(folder: Path, text: str, pooling: str, limit: int = 32) -> np.ndarray:
    """One vector, not normalised, in plain torch."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner = tokenizer.encode(text, add_special_tokens=False).ids[: limit - 2]
    ids = [tokenizer.token_to_id("[CLS]"), *inner, tokenizer.token_to_id("[SEP]")]
    weights = load_file(folder / "model.safetensors")
    out = states(weights, BertConfig.from_pretrained(folder), ids)
    return (out[0] if pooling == "cls" else out.mean(dim=0)).numpy()


def units(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def warned(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_tas_b_under_its_sentence_transformers_name(named, caplog):
    """As on the hub: CLS in modules.json, no word on similarity. Never mean, never length 1."""
    folder = named("msmarco-distilbert-base-tas-b", ["Pooling cls"])
    encoder = SentenceEncoder(folder, device="cpu")
    with caplog.at_level(logging.WARNING):
        vectors = encoder.encode_document(TEXTS)
    expected = np.stack([oracle(folder, text, "cls") for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert encoder.similarity == "dot"
    assert encoder.card.identity["modules"] == ["Transformer", "Pooling(cls)"]
    assert encoder.card.identity["normalised"] is False
    assert warned(caplog) == []


def test_tas_b_without_modules(named, caplog):
    folder = named("distilbert-dot-tas_b-b256-msmarco")
    encoder = SentenceEncoder(folder, device="cpu")
    with caplog.at_level(logging.WARNING):
        vectors = encoder.encode_query(TEXTS)
    expected = np.stack([oracle(folder, text, "cls") for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert encoder.similarity == "dot"
    assert warned(caplog) == []
    check_encoder(encoder, atol=1e-5)


def test_disagreement_is_told_and_the_model_s_own_word_counts(named, caplog):
    folder = named(
        "msmarco-distilbert-base-tas-b", ["Pooling mean", "Normalize"], similarity_fn_name="cosine"
    )
    encoder = SentenceEncoder(folder, device="cpu")
    with caplog.at_level(logging.WARNING):
        vectors = encoder.encode_query(TEXTS)
    expected = units(np.stack([oracle(folder, text, "mean") for text in TEXTS]))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    (line,) = warned(caplog)
    assert "says mean pooling, TAS-B has cls" in line
    assert "normalises vectors, TAS-B does not" in line
    assert "compares by cosine, TAS-B by dot" in line


def test_what_the_call_says_wins_and_is_remembered(named, caplog):
    folder = named(
        "msmarco-distilbert-base-tas-b", ["Pooling mean", "Normalize"], similarity_fn_name="cosine"
    )
    encoder = SentenceEncoder(
        folder, device="cpu", pooling="cls", normalise=False, similarity="dot"
    )
    with caplog.at_level(logging.WARNING):
        vectors = encoder.encode_query(TEXTS)
    expected = np.stack([oracle(folder, text, "cls") for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert warned(caplog) == []
    card = EncoderCard.from_dict(json.loads(json.dumps(encoder.card.to_dict())))
    again = SentenceEncoder.from_card(card)
    assert again.card.fingerprint == encoder.card.fingerprint
    np.testing.assert_allclose(again.encode_query(TEXTS), vectors, atol=1e-6)
    other = SentenceEncoder(folder, device="cpu")
    assert other.card.fingerprint != encoder.card.fingerprint


@pytest.mark.parametrize("plain", [True, False])
def test_e5_gets_its_prompts(named, caplog, plain):
    folder = named("e5-base-v2", None if plain else ["Pooling mean", "Normalize"])
    encoder = SentenceEncoder(folder, device="cpu")
    with caplog.at_level(logging.WARNING):
        queries, documents = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
    for vectors, prompt in ((queries, "query: "), (documents, "passage: ")):
        expected = np.stack([oracle(folder, prompt + text, "mean") for text in TEXTS])
        np.testing.assert_allclose(vectors, units(expected), atol=1e-5)
    assert warned(caplog) == []
    assert encoder.similarity == "cosine"
    identity = encoder.card.identity
    assert identity["prompts"] == {"query": "query: ", "document": "passage: "}
    assert identity["normalised"] is True
    # The table's 512 tokens are more than this model reads.
    assert identity["max_length"] == 32


def test_family_without_its_prompt_warns(named, caplog):
    folder = named("e5-base-v2")
    encoder = SentenceEncoder(folder, device="cpu", prompts={"query": ""})
    with caplog.at_level(logging.WARNING):
        (vector,) = encoder.encode_query(["the dog"])
        encoder.encode_query(["the dog"])
    (line,) = warned(caplog)
    assert "queries are encoded without the prompt 'query: ' that E5 was trained with" in line
    assert "documents" not in line
    expected = units(oracle(folder, "the dog", "mean")[None])[0]
    np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert encoder.card.identity["prompts"] == {"query": "", "document": "passage: "}


def test_own_prompt_that_differs_is_told(named, caplog):
    folder = named("e5-base-v2", ["Pooling mean", "Normalize"], prompts={"query": "a "})
    with caplog.at_level(logging.WARNING):
        (vector,) = SentenceEncoder(folder, device="cpu").encode_query(["the dog"])
    (line,) = warned(caplog)
    assert "its own prompt for queries is 'a ', E5 has 'query: '" in line
    expected = units(oracle(folder, "a the dog", "mean")[None])[0]
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_model_outside_the_table_says_what_was_assumed(named, caplog):
    folder = named("my-model")
    encoder = SentenceEncoder(folder, device="cpu")
    with caplog.at_level(logging.WARNING):
        vectors = encoder.encode_document(TEXTS)
    (line,) = warned(caplog)
    assert "mean pooling is assumed" in line
    assert "cosine similarity is assumed" in line
    assert encoder.wiring.told
    expected = np.stack([oracle(folder, text, "mean") for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_who_says_it_hears_no_warning(named, caplog):
    folder = named("my-model")
    encoder = SentenceEncoder(folder, device="cpu", pooling="cls", similarity="dot", normalise=True)
    with caplog.at_level(logging.WARNING):
        vectors = encoder.encode_document(TEXTS)
    assert warned(caplog) == []
    expected = np.stack([oracle(folder, text, "cls") for text in TEXTS])
    np.testing.assert_allclose(vectors, units(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("modules", "config"),
    [
        (["Pooling mean", "Normalize"], {}),
        (["Pooling mean"], {"similarity_fn_name": "dot"}),
    ],
)
def test_model_with_modules_outside_the_table_is_silent(named, caplog, modules, config):
    encoder = SentenceEncoder(named("my-model", modules, **config), device="cpu")
    with caplog.at_level(logging.WARNING):
        encoder.encode_query(["the dog"])
    assert warned(caplog) == []
    assert encoder.wiring.told == ()


def test_similarity_that_nobody_names_is_told_where_it_matters(named, caplog):
    folder = named("my-model", ["Pooling mean"])
    with caplog.at_level(logging.WARNING):
        assert SentenceEncoder(folder, device="cpu").similarity == "cosine"
    (line,) = warned(caplog)
    assert "cosine similarity is assumed (similarity='dot'" in line
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        SentenceEncoder(folder, device="cpu", similarity="dot").encode_query(["the dog"])
    assert warned(caplog) == []


def test_lengths_by_role(named, caplog):
    folder = named("msmarco-distilbert-base-tas-b", ["Pooling cls"])
    encoder = SentenceEncoder(folder, device="cpu", max_length={"query": 5, "document": 9})
    text = "the cat at the dog at the moon at the moon"
    with caplog.at_level(logging.WARNING):
        done = {role: encoder.encode([text], role) for role in ("query", "document")}
    for role, limit in (("query", 5), ("document", 9)):
        assert (done[role].stats.limit, done[role].stats.cut) == (limit, 1)
        expected = oracle(folder, text, "cls", limit)
        np.testing.assert_allclose(done[role].vectors[0], expected, atol=1e-5)
    assert encoder.card.identity["max_length"] == {"query": 5, "document": 9}
    again = SentenceEncoder.from_card(encoder.card)
    assert again.card.fingerprint == encoder.card.fingerprint
    only = SentenceEncoder(folder, device="cpu", max_length={"query": 5})
    assert only.card.identity["max_length"] == {"query": 5, "document": 32}
    np.testing.assert_allclose(
        only.encode_document([text])[0], oracle(folder, text, "cls"), atol=1e-5
    )


def test_lower_casing(named):
    folder = named("my-model", ["Pooling mean"])
    plain, lower = (SentenceEncoder(folder, device="cpu", lower_case=flag) for flag in (None, True))
    expected = np.stack([oracle(folder, text.lower(), "mean") for text in TEXTS])
    np.testing.assert_allclose(lower.encode_query(TEXTS), expected, atol=1e-5)
    assert not np.allclose(plain.encode_query(TEXTS), expected, atol=1e-3)
    assert lower.card.identity["lower_case"] is True
    assert lower.card.fingerprint != plain.card.fingerprint
    assert SentenceEncoder.from_card(lower.card).card.fingerprint == lower.card.fingerprint


def test_ance_of_sentence_transformers_is_lower_cased(named):
    folder = named("msmarco-roberta-base-ance-firstp", ["Pooling cls"])
    settings = {"max_seq_length": 32, "do_lower_case": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    encoder = SentenceEncoder(folder, device="cpu")
    expected = np.stack([oracle(folder, text.lower(), "cls") for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_query(TEXTS), expected, atol=1e-5)
    assert (encoder.similarity, encoder.card.identity["lower_case"]) == ("dot", True)
    with pytest.raises(DataError, match="own configuration lower-cases"):
        SentenceEncoder(folder, device="cpu", lower_case=False).encode_query(["a"])


def test_a_family_that_is_not_lower_cased_after_all_leads_back(named):
    folder = named("msmarco-roberta-base-ance-firstp", ["Pooling cls"])
    own, cased = (SentenceEncoder(folder, device="cpu", lower_case=flag) for flag in (None, False))
    assert own.card.identity["lower_case"] is True
    assert cased.card.fingerprint != own.card.fingerprint
    assert SentenceEncoder.from_card(cased.card).card == cased.card
    assert SentenceEncoder.from_card(own.card).card == own.card


def test_instructor_leaves_the_prompt_out_of_the_pooling(named):
    folder = named("instructor-base", ["Pooling mean"])
    encoder = SentenceEncoder(folder, device="cpu", prompts={"document": "the dog : "})
    assert encoder.card.identity["modules"] == ["Transformer", "Pooling(mean, without prompt)"]
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode("the dog : a cat").ids
    assert len(ids) == 7
    out = states(load_file(folder / "model.safetensors"), BertConfig.from_pretrained(folder), ids)
    # [CLS] the dog : are left out.
    expected = out[4:].mean(dim=0).numpy()
    np.testing.assert_allclose(encoder.encode_document(["a cat"])[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ance-msmarco-passage", r"load it with AnceEncoder\("),
        ("tct_colbert-v2-hn-msmarco", r"load it with TctColbertEncoder\("),
        ("bpr-nq-question-encoder", "BPR is no model of sentence-transformers"),
        ("msmarco-roberta-base-ance-firstp", r"has a head \(Dense, LayerNorm\)"),
        ("instructor-large", r"has a head \(Dense\)"),
    ],
)
def test_what_would_load_as_something_else_is_refused(named, name, message):
    encoder = SentenceEncoder(named(name), device="cpu")
    with pytest.raises(DataError, match=message):
        encoder.encode_query(["a"])
    assert "_model" not in vars(encoder)


def test_settings_are_checked_at_once():
    with pytest.raises(DataError, match="no pooling 'first'; known: cls, mean"):
        SentenceEncoder("anything", pooling="first")
    with pytest.raises(DataError, match="max_length is for 'query' and 'document'"):
        SentenceEncoder("anything", max_length={"passage": 3})
