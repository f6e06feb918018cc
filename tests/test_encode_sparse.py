"""`SpladeEncoder` against plain torch and plain sentence-transformers, on tiny random models."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from retrievekit import registry
from retrievekit.bench.encoders import make_any_encoder, make_sparse_encoder
from retrievekit.cli.app import app
from retrievekit.corpus import Corpus
from retrievekit.encode.conventions import Role
from retrievekit.encode.idf import IdfTable, InferenceFreeEncoder
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.encode.sparse import SpladeEncoder
from retrievekit.encode.weighing import joined, largest
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EncoderMismatchError,
    MissingDataError,
    NonFiniteError,
    ParseError,
)
from retrievekit.index.opening import open_index
from retrievekit.index.sparse import SparseIndex
from retrievekit.protocols import EncoderCard, SparseEncoder
from retrievekit.queries import Queries
from retrievekit.vectors import SparseVectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties warn of while they are imported
    import torch
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import SparseEncoder as Library
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
    from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", ":", "##s", "a", "the", "cat"]
WORDS += ["dog", "purr", "bark", "at", "moon", "and", "word"]
TEXTS = [
    "a cat purrs", "", "dogs bark at the moon", "the cat", "a cat purrs",
    "the dog and the cat and the moon and the dog and the cat", "unknown words only",
]  # fmt: skip
LIMIT = 24


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model of two small layers with random weights, and nothing else."""
    folder = tmp_path_factory.mktemp("model") / "plain"
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    (folder.parent / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = BertTokenizer(str(folder.parent / "vocab.txt"), model_max_length=LIMIT)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def splade(plain: Path) -> Path:
    """The same as a model of sentence-transformers, with prompts."""
    folder = plain.parent / "splade"
    parts = [Transformer(str(plain), transformer_task="fill-mask"), SpladePooling("max")]
    Library(modules=parts, device="cpu", prompts={"query": "query : ", "passage": "the "}).save(
        str(folder)
    )
    return folder


IDF = {word: 1.0 + place / 8 for place, word in enumerate(WORDS)}


@pytest.fixture(scope="session")
def free(plain: Path) -> Path:
    """An inference-free model: a table for queries, twice log1p for documents."""
    folder = plain.parent / "free"
    (plain.parent / "idf.json").write_text(json.dumps(IDF))
    transformer = Transformer(str(plain), transformer_task="fill-mask")
    table = SparseStaticEmbedding.from_json(
        str(plain.parent / "idf.json"), tokenizer=transformer.tokenizer, frozen=True
    )
    pooling = SpladePooling("max", activation_function="log1p_relu")
    router = Router.for_query_document(
        query_modules=[table], document_modules=[transformer, pooling]
    )
    Library(modules=[router], similarity_fn_name="dot", device="cpu").save(str(folder))
    return folder


@pytest.fixture
def copy(splade: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(splade, tmp_path / "copy"))


def dense(vectors: SparseVectors) -> NDArray[np.float32]:
    out = np.zeros((len(vectors), vectors.size), np.float32)
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.offsets))
    out[rows, vectors.columns] = vectors.values
    return out


def oracle(plain: Path, texts: list[str], times: int = 1) -> NDArray[np.float32]:
    """max over positions of log1p (once or twice) of ReLU of logits, each text alone."""
    model = BertForMaskedLM.from_pretrained(plain).eval()
    tokenizer = BertTokenizer.from_pretrained(plain)
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=LIMIT, return_tensors="pt")
        with torch.no_grad():
            weights = torch.relu(model(**ids).logits[0])
        for _ in range(times):
            weights = torch.log1p(weights)
        rows.append(weights.max(0).values.numpy())
    return np.stack(rows)


def test_splade_is_the_pooled_logits(plain: Path, splade: Path) -> None:
    encoder = SpladeEncoder(splade, device="cpu", batch_size=3)
    queries, documents = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
    expected = oracle(plain, [f"query : {text}" for text in TEXTS])
    np.testing.assert_allclose(dense(queries), expected, atol=1e-5)
    # The model names its prompt for documents "passage".
    expected = oracle(plain, [f"the {text}" for text in TEXTS])
    np.testing.assert_allclose(dense(documents), expected, atol=1e-5)
    assert (np.diff(queries.offsets) < len(WORDS)).any()
    assert queries.encoder == encoder.card.fingerprint


def test_a_plain_masked_language_model_is_splade(plain: Path) -> None:
    encoder = SpladeEncoder(plain, device="cpu")
    np.testing.assert_allclose(
        dense(encoder.encode_document(TEXTS)), oracle(plain, TEXTS), atol=1e-5
    )
    assert encoder.card.identity["modules"] == [
        "Transformer", "SpladePooling(activation_function='relu', pooling_strategy='max')",
    ]  # fmt: skip


def test_inference_free(plain: Path, free: Path) -> None:
    encoder = SpladeEncoder(free, device="cpu", batch_size=3)
    documents = dense(encoder.encode_document(TEXTS))
    np.testing.assert_allclose(documents, oracle(plain, TEXTS, times=2), atol=1e-5)
    queries = dense(encoder.encode_query(["the cat and the cat", "", "a dog"]))
    expected = np.zeros((3, len(WORDS)), np.float32)
    for row, words in enumerate([["the", "cat", "and"], [], ["a", "dog"]]):
        for word in words:  # once each, and no special token
            expected[row, WORDS.index(word)] = IDF[word]
    np.testing.assert_array_equal(queries, expected)


def test_it_agrees_with_the_library(splade: Path, free: Path) -> None:
    for folder in (splade, free):
        library = Library(str(folder), device="cpu")
        encoder = SpladeEncoder(folder, device="cpu")
        prompts = {"query": "query : ", "document": "the "} if folder == splade else {}
        for role, encode, theirs in [
            ("query", encoder.encode_query, library.encode_query),
            ("document", encoder.encode_document, library.encode_document),
        ]:
            expected = theirs(TEXTS, prompt=prompts.get(role)).to_dense().numpy()
            np.testing.assert_allclose(dense(encode(TEXTS)), expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_change_no_weight(splade: Path, batch_size: int) -> None:
    whole = SpladeEncoder(splade, device="cpu").encode_document(TEXTS)
    parts = SpladeEncoder(splade, device="cpu", batch_size=batch_size).encode_document(TEXTS)
    np.testing.assert_allclose(dense(parts), dense(whole), atol=1e-5)


def test_the_protocol_and_no_texts(splade: Path) -> None:
    encoder = SpladeEncoder(splade, device="cpu")
    assert isinstance(encoder, SparseEncoder)
    assert encoder.tokens == tuple(WORDS)
    for encode in (encoder.encode_query, encoder.encode_document):
        assert (len(encode([])), encode([]).size) == (0, len(WORDS))
        assert len(encode([""])) == 1


def test_cut_texts_are_counted_and_told(
    splade: Path, free: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = SpladeEncoder(splade, device="cpu")
    exact = " ".join(["cat"] * (LIMIT - 3))  # [CLS] the cat ... cat [SEP]
    with caplog.at_level(logging.WARNING):
        assert encoder.encode([exact, "cat"], "document").stats.cut == 0
        assert not caplog.records
        done = encoder.encode([exact, f"{exact} cat", ""], "document")
    assert (done.stats.texts, done.stats.cut, done.stats.limit) == (3, 1, LIMIT)
    assert done.stats.tokens == LIMIT + (LIMIT + 1) + 3
    assert "1 of 3 document texts were longer than 24 tokens" in caplog.text
    # A table puts no special tokens around a query.
    words = " ".join(["cat"] * LIMIT)
    query = SpladeEncoder(free, device="cpu").encode([words, f"{words} dog"], "query")
    assert (query.stats.cut, query.stats.tokens) == (1, 2 * LIMIT + 1)


def test_only_the_largest_weights_are_kept(splade: Path) -> None:
    encoder = SpladeEncoder(splade, device="cpu", active={"document": 3})
    pruned = SpladeEncoder(splade, device="cpu").encode_document(TEXTS)
    for full, kept in zip(dense(pruned), dense(encoder.encode_document(TEXTS)), strict=True):
        best = np.sort(full)[::-1][:3]
        np.testing.assert_allclose(np.sort(kept[kept > 0])[::-1], best[best > 0], atol=1e-6)
    assert encoder.card.identity["active"] == {"query": None, "document": 3}
    # Of equal ones the first columns are kept.
    rows, columns, values = largest(np.array([[1, 2, 2, 2], [0, 0, 3, 0]], np.float32), 2)
    assert (rows.tolist(), columns.tolist(), values.tolist()) == (
        [0, 0, 1], [1, 2, 2], [2, 2, 3],
    )  # fmt: skip
    empty = joined([], 2, 5, None)
    assert (len(empty), empty.size, len(empty.values)) == (2, 5, 0)


def test_cards(splade: Path, free: Path) -> None:
    encoders = [
        SpladeEncoder(splade, device="cpu"),
        SpladeEncoder(splade, device="cpu", max_length=8),
        SpladeEncoder(splade, device="cpu", prompts={"query": ""}),
        SpladeEncoder(splade, device="cpu", active={"query": 4}),
        SpladeEncoder(free, device="cpu"),
    ]
    assert len({encoder.card.fingerprint for encoder in encoders}) == len(encoders)
    same = SpladeEncoder(splade, device="cpu", batch_size=1).card
    assert same == encoders[0].card
    for encoder in encoders:
        card = EncoderCard.from_dict(json.loads(json.dumps(encoder.card.to_dict())))
        again = registry.resolve("encoder-class", card.identity["class"])(card)
        assert again.card.fingerprint == card.fingerprint
        assert str(splade.parent) not in json.dumps(dict(card.identity))
    identity = encoders[-1].card.identity
    assert set(identity["weights"]) == {
        "document_0_Transformer/model.safetensors",
        "query_0_SparseStaticEmbedding/model.safetensors",
    }
    assert identity["modules"] == [
        "Router(query=SparseStaticEmbedding(frozen=True), document=Transformer+SpladePooling("
        "activation_function='log1p_relu', pooling_strategy='max'))"
    ]


def test_settings_deeper_in_a_folder_are_part_of_the_identity(free: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(free, tmp_path / "free"))
    before = SpladeEncoder(folder, device="cpu").card
    config = folder / "document_0_Transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layer_norm_eps": 1e-3}))
    (difference,) = before.differences(SpladeEncoder(folder, device="cpu").card)
    assert difference.startswith("configs:")


def test_an_index_of_it(splade: Path, tmp_path: Path) -> None:
    encoder = SpladeEncoder(splade, device="cpu")
    corpus = Corpus.from_texts(TEXTS)
    SparseIndex.build(corpus, encoder, tmp_path / "x", levels=None)
    queries = Queries.from_texts(["the cat", "dogs"])
    scores = (
        dense(encoder.encode_query(["the cat", "dogs"])) @ dense(encoder.encode_document(TEXTS)).T
    )
    # The index finds its encoder again by its card alone.
    run = open_index(tmp_path / "x").search(queries, 3)
    for place, own in enumerate(scores):
        found = [hit.score for hit in run.hits(place)]
        np.testing.assert_allclose(found, np.sort(own)[::-1][:3], rtol=1e-5)
    weaker = SpladeEncoder(splade, device="cpu", max_length=5)
    with pytest.raises(EncoderMismatchError, match="max_length"):
        SparseIndex.open(tmp_path / "x", weaker)


def test_bad_weights_are_found(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    name = next(n for n in weights if n.endswith("word_embeddings.weight"))
    weights[name] = weights[name].clone()
    weights[name][WORDS.index("purr"), 0] = float("nan")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    encoder = SpladeEncoder(copy, device="cpu", batch_size=2)
    with pytest.raises(NonFiniteError, match=r"of document \d .* hold NaN or infinity"):
        encoder.encode_document(["the", "the cat and the dog", "a purr", "a"])
    # The encoder knows the place, the index knows the id.
    pairs = [("p", "the"), ("q", "the cat and the dog"), ("r", "a purr"), ("s", "a")]
    with pytest.raises(NonFiniteError, match="document 'q': the weights of document 1 "):
        SparseIndex.build(Corpus.from_texts(dict(pairs)), encoder)


@pytest.mark.parametrize("model", ["splade", "free"])
def test_many_threads_get_the_weights_of_one(model: str, request: pytest.FixtureRequest) -> None:
    encoder = SpladeEncoder(request.getfixturevalue(model), device="cpu", batch_size=2)
    texts = ["cat " * n for n in (300, 50, 5, 3, 100)]
    roles: tuple[Role, Role] = ("query", "document")
    expected = {role: encoder.encode(texts, role) for role in roles}
    assert expected["document"].stats.cut == 3
    own = IdfTable.computed(texts, encoder.tokenizer("document"))
    idf = InferenceFreeEncoder(encoder, own)

    def work(role: Role) -> bool:
        # A text that was not cut would be too long for the model, or have other weights.
        for _ in range(15):
            done = encoder.encode(texts, role)
            idf.encode_query(texts)
            IdfTable.computed(texts, encoder.tokenizer(role))
            if done.stats != expected[role].stats:
                return False
            if not np.allclose(dense(done.vectors), dense(expected[role].vectors), atol=1e-5):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, roles * 3))


def test_models_that_are_not_sparse_are_refused(plain: Path, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(plain)
    BertModel(config).save_pretrained(tmp_path / "bare")
    BertTokenizer.from_pretrained(plain).save_pretrained(tmp_path / "bare")
    with pytest.raises(DataError, match="untrained layers on top"):
        SpladeEncoder(tmp_path / "bare", device="cpu").encode_query(["cat"])
    with pytest.raises(MissingDataError, match="no such folder"):
        SpladeEncoder("no/such-model").encode_query(["cat"])


def test_folders_with_code_are_refused_before_loading(copy: Path) -> None:
    (copy / "modeling.py").write_text("boom")
    encoder = SpladeEncoder(copy, device="cpu")
    with pytest.raises(DataError, match="Python code"):
        encoder.encode_query(["a"])
    assert "_model" not in vars(encoder)
    (copy / "modeling.py").unlink()
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises((DataError, ParseError), match="no weights in the"):
        SpladeEncoder(copy, device="cpu").encode_query(["a"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", "texts is one string"),
        (["a", None], r"query 1 is None \(NoneType\), not a string"),
        (["a", "b", "x\ud800"], "query 2 holds a lone surrogate at character 1"),
    ],
)
def test_texts_are_checked(splade: Path, texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SpladeEncoder(splade, device="cpu").encode_query(texts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"max_length": 0}, "at least 1"),
        ({"active": {"document": 2.5}}, "at least 1; got 'document': 2.5"),
        ({"active": {"document": True}}, "at least 1; got 'document': True"),
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"prompts": {"passage": "x"}}, r"got \['passage'\]"),
        ({"active": {"document": 0}}, "at least 1"),
    ],
)
def test_settings_are_checked_at_once(settings: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SpladeEncoder("anything", **settings)


def test_length_beyond_the_model_is_refused(splade: Path) -> None:
    with pytest.raises(DataError, match="max_length is 25, but the model reads 24 tokens at most"):
        SpladeEncoder(splade, device="cpu", max_length=25).encode_query(["a"])


@pytest.mark.parametrize(("role", "least"), [("query", 5), ("document", 4)])
def test_a_length_without_room_for_a_word_is_refused(splade: Path, role: Any, least: int) -> None:
    short = SpladeEncoder(splade, device="cpu", max_length=least - 1)
    with pytest.raises(DataError, match=f"of a {role} are read.*max_length of at least {least}$"):
        short.encode(["cat"], role)
    cat, dog = dense(
        SpladeEncoder(splade, device="cpu", max_length=least).encode(["cat", "dog"], role).vectors
    )
    assert np.abs(cat - dog).max() > 1e-3


def test_dense_and_sparse_models_show_each_other_s_door(
    splade: Path, free: Path, plain: Path, tmp_path: Path
) -> None:
    for model in (splade, free):
        with pytest.raises(DataError, match=r"learned sparse model.*--sparse .*SpladeEncoder\("):
            SentenceEncoder(model, device="cpu").encode_query(["cat"])
    # Before anything is fetched.
    for name in ("naver/splade-v3", "opensearch-project/opensearch-neural-sparse-encoding-v1"):
        with pytest.raises(DataError, match=f'sparse\\("{name}"\\)'):
            SentenceEncoder(name).encode_query(["cat"])
    for name in ("intfloat/e5-base-v2", "minilm"):
        with pytest.raises(DataError, match=f'dense model.*--encoder {name}.* dense\\("{name}"\\)'):
            make_sparse_encoder(name)
    with pytest.raises(DataError, match=r"SentenceEncoder\('intfloat/e5-base-v2'\)"):
        SpladeEncoder("intfloat/e5-base-v2").encode_query(["cat"])
    pooled = [Transformer(str(plain)), Pooling(16, "cls")]
    SentenceTransformer(modules=pooled, device="cpu").save(str(tmp_path / "pooled"))
    with pytest.raises(DataError, match=r"a dense model.*--encoder"):
        SpladeEncoder(tmp_path / "pooled", device="cpu").encode_query(["cat"])
    # A plain transformer may be either; a name that is a folder's as well is the folder.
    assert isinstance(make_any_encoder(str(plain)), SentenceEncoder)
    assert isinstance(make_any_encoder(str(tmp_path / "pooled")), SentenceEncoder)
    assert isinstance(make_any_encoder(str(splade)), SpladeEncoder)
    assert isinstance(make_any_encoder("naver/splade-v3"), SpladeEncoder)
    assert isinstance(make_any_encoder("minilm"), SentenceEncoder)
    named = Path(shutil.copytree(plain, tmp_path / "splade-v3"))
    assert isinstance(make_any_encoder(str(named)), SpladeEncoder)
    with pytest.raises(DataError, match="learned sparse model"):
        SentenceEncoder(named, device="cpu").encode_query(["cat"])


def test_the_verbs_on_a_sparse_model(splade: Path, plain: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"_id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS)]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines))
    source, runner = str(tmp_path / "docs.jsonl"), CliRunner(env={"COLUMNS": "200"})
    done = runner.invoke(app, ["check", source, "--encoder", str(splade), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)["facts"]["probe"]
    own = SpladeEncoder(splade, device="cpu").encode_document(TEXTS)
    assert facts["weights_per_text"] == round(len(own.columns) / len(TEXTS), 1)
    assert facts["max_length"] == {"query": LIMIT, "document": LIMIT}
    done = runner.invoke(app, ["check", source, "--sparse", str(plain), "--json"])
    assert "weights_per_text" in json.loads(done.stdout)["facts"]["probe"]
    path = str(tmp_path / "x")
    done = runner.invoke(app, ["index", source, "--encoder", str(splade), "-o", path])
    assert done.exit_code == 1
    assert f"--sparse {splade}" in " ".join(done.stderr.split())
    done = runner.invoke(app, ["index", source, "--sparse", "minilm", "-o", path])
    assert done.exit_code == 1
    assert "--encoder minilm" in " ".join(done.stderr.split())


def test_progress_and_roles(splade: Path) -> None:
    calls = []
    encoder = SpladeEncoder(splade, device="cpu", batch_size=3)
    encoder.encode(TEXTS, "query", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 7), (6, 7), (7, 7)]
    with pytest.raises(DataError, match="no role 'passage'; known: query, document"):
        encoder.encode(TEXTS, "passage")  # type: ignore[arg-type]


class Padded(SpladeEncoder):
    """An encoder whose model has more columns than its tokenizer has tokens."""

    size = len(WORDS) + 2  # type: ignore[assignment]


class Doubled(SpladeEncoder):
    """An encoder whose tokenizer names two columns alike."""

    def tokenizer(self, role: Any) -> Any:
        class Tokenizer:
            def __len__(self) -> int:
                return len(WORDS)

            def convert_ids_to_tokens(self, ids: range) -> list[str]:
                return [WORDS[max(0, i - 1)] for i in ids]

        return Tokenizer()


def test_names_of_columns(splade: Path) -> None:
    padded = Padded(splade, device="cpu")
    assert padded.tokens[-3:] == ("word", "[column-18]", "[column-19]")
    with pytest.raises(EncoderContractError, match=r"gave an array of shape \(1, 18\), not"):
        padded.encode_query(["cat"])
    with pytest.raises(EncoderContractError, match=r"two columns are named '\[PAD\]'"):
        _ = Doubled(splade, device="cpu").tokens


def test_constructor_is_light() -> None:
    code = (
        "import sys; from retrievekit.encode.sparse import SpladeEncoder; SpladeEncoder('none'); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
