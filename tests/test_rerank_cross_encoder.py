"""`CrossEncoderReranker` against plain transformers, one pair at a time."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrievekit import registry
from retrievekit.errors import DataError, MissingDataError, NonFiniteError, UnknownNameError
from retrievekit.headway import following
from retrievekit.language.batches import in_token_batches
from retrievekit.rerank.base import Listed
from retrievekit.rerank.classifiers import CrossEncoderModel, log_odds
from retrievekit.rerank.cross_encoder import CrossEncoderReranker, cross_encoder_reranker
from retrievekit.rerank.pairs import tokenized
from retrievekit.testing import check_stage, toy_corpus
from tests.tiny_classifiers import FAMILIES, save_classifier, tokenizer_of
from tests.tiny_decoders import one_thread  # noqa: F401

QUERIES = ["cat", "the dog and the moon", "", "fish , fish"]
DOCS = [
    "a cat purr .", "", "dog bark at the moon and the cat", "word unknown", "cat",
    "the fish and the cat and the dog and the moon " * 5,
]  # fmt: skip
PAIRS = [(query, doc) for query in QUERIES for doc in DOCS]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of each family, and one of three outputs."""
    root = tmp_path_factory.mktemp("classifiers")
    for family in FAMILIES:
        save_classifier(root / family, family)
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    save_classifier(root / "three", "bert", num_labels=3, id2label=labels)
    return root


def plain(folder: Path, pairs: list[tuple[str, str]], limit: int = 48, prompt: str = "") -> Any:
    """Raw outputs by transformers alone, each pair by itself."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    out = []
    for query, doc in pairs:
        # Lists of one: given as strings, an empty document would be taken for none at all.
        read = tokenizer(
            [prompt + query], [doc], truncation="only_second", max_length=limit, return_tensors="pt"
        )
        with torch.no_grad():
            out.append(model(**read).logits[0].numpy())
    return np.array(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_plain_model_one_pair_at_a_time(root: Path, family: str) -> None:
    expected = plain(root / family, PAIRS)[:, 0]
    found = CrossEncoderReranker(root / family, batch_tokens=100).score_pairs(PAIRS)
    assert found.dtype == np.float32
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_library_itself_agrees_where_nothing_is_cut(root: Path, family: str) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    short = [(query, doc) for query, doc in PAIRS if len(doc) < 40]
    peer = CrossEncoder(str(root / family), activation_fn=torch.nn.Identity(), device="cpu")
    expected = peer.predict(short, prompt="query : ", show_progress_bar=False)
    found = CrossEncoderReranker(root / family, prompt="query : ").score_pairs(short)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # What it would give by itself: pressed between 0 and 1.
    pressed = CrossEncoder(str(root / family), device="cpu").predict(short)
    assert 0 < pressed.min() < pressed.max() < 1
    assert found.min() < 0


def test_positions_that_a_model_lacks_are_never_asked_for(tmp_path: Path) -> None:
    """A tokenizer without a length; RoBERTa's first position is that behind padding's."""
    for family, limit in (("bert", 48), ("xlm-roberta", 50 - 1)):
        folder = save_classifier(tmp_path / family, family, length=10**30)
        assert CrossEncoderModel(folder).limit == limit
        found = CrossEncoderReranker(folder).score_pairs([("cat", "dog " * 99)])
        expected = plain(folder, [("cat", "dog " * 99)], limit)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_head_of_modules_is_read(root: Path, tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(5)
    parts = [
        Transformer(str(root / "bert")),
        Pooling(16, "cls"),
        Dense(16, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    peer = CrossEncoder(modules=parts, activation_fn=torch.nn.Identity(), device="cpu")
    peer.prompts, peer.default_prompt_name = {"ask": "query : "}, "ask"
    peer.save_pretrained(str(tmp_path / "modules"), create_model_card=False)
    short = [(query, doc) for query, doc in PAIRS if len(doc) < 40]
    expected = peer.predict(short, show_progress_bar=False)
    first = CrossEncoderReranker(tmp_path / "modules")
    np.testing.assert_allclose(first.score_pairs(short), expected, rtol=1e-5, atol=1e-5)
    other = CrossEncoderReranker(tmp_path / "modules", prompt="")
    assert np.abs(other.score_pairs(short) - expected).max() > 1e-3
    by_name = CrossEncoderReranker(tmp_path / "modules", prompt="ask")
    np.testing.assert_array_equal(by_name.score_pairs(short), first.score_pairs(short))
    # The same without its class's name is taken for what it may as well be.
    config = tmp_path / "modules" / "config_sentence_transformers.json"
    kept = json.loads(config.read_text())
    del kept["model_type"]
    config.write_text(json.dumps(kept))
    with pytest.raises(DataError, match="single texts"):
        CrossEncoderReranker(tmp_path / "modules").rank("cat", ["cat"])


def test_it_tells_its_headway_in_queries(root: Path) -> None:
    told: list[int] = []
    lists = [Listed(query, tuple(DOCS)) for query in QUERIES]
    with following(told.append):
        CrossEncoderReranker(root / "bert", batch_tokens=1).score(lists)
    assert told == sorted(told)
    assert set(told) == set(range(len(lists) + 1))
    assert told[-1] == len(lists)


@settings(max_examples=20)
@given(st.data())
def test_no_score_depends_on_its_companions(root: Path, data: st.DataObject) -> None:
    reranker = CrossEncoderReranker(root / "bert", batch_tokens=data.draw(st.integers(1, 300)))
    some = data.draw(st.lists(st.sampled_from(PAIRS), min_size=1, max_size=12, unique=True))
    expected = dict(zip(PAIRS, ALL.setdefault("bert", _all(root)), strict=True))
    found = reranker.score_pairs(some)
    np.testing.assert_allclose(found, [expected[pair] for pair in some], rtol=1e-5, atol=1e-5)


ALL: dict[str, Any] = {}


def _all(root: Path) -> Any:
    return CrossEncoderReranker(root / "bert").score_pairs(PAIRS)


def test_queries_stay_whole_and_cut_documents_are_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("retrievekit").propagate = True
    query = "the dog and the cat and the moon"
    docs = ["cat dog moon", "cat dog moon fish purr bark", "cat dog moon fish purr"]
    reranker = CrossEncoderReranker(root / "bert", max_length=8 + 3 + 4)
    with caplog.at_level(logging.WARNING):
        found = {hit.index: hit.score for hit in reranker.rank(query, docs)}
    assert "2 of 3 documents did not fit beside their query into 15 tokens" in caplog.text
    cut = CrossEncoderReranker(root / "bert").rank(query, ["cat dog moon fish"])
    assert found[1] == found[2] == pytest.approx(cut[0].score, abs=1e-5)
    with pytest.raises(DataError, match="8 tokens and leaves no room for a document within 11"):
        CrossEncoderReranker(root / "bert", max_length=11).rank(query, docs)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        short = CrossEncoderReranker(root / "bert", max_length=11, max_query=2).rank(query, ["cat"])
    assert "1 queries were longer than 2 tokens" in caplog.text
    assert short[0].score == pytest.approx(
        CrossEncoderReranker(root / "bert").rank("the dog", ["cat"])[0].score, abs=1e-5
    )
    with pytest.raises(DataError, match="reads 48 tokens at most"):
        CrossEncoderReranker(root / "bert", max_length=49).rank(query, docs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("limit", [10, 11, 20])
def test_what_is_cut_is_what_the_tokenizer_itself_would_cut(family: str, limit: int) -> None:
    tokenizer = tokenizer_of(family)
    for query, doc in PAIRS:
        (found,) = tokenized(tokenizer, [(query, doc)], limit=limit)
        own = tokenizer([query], [doc], truncation="only_second", max_length=limit)
        for name, values in found.arrays.items():
            assert values.tolist() == own[name][0]
        assert found.cut == (len(tokenizer([query], [doc])["input_ids"][0]) > limit)


def test_one_output_of_several_is_chosen(root: Path) -> None:
    logits = plain(root / "three", PAIRS)
    with pytest.raises(DataError, match="contradiction, neutral, entailment"):
        CrossEncoderReranker(root / "three").score_pairs(PAIRS)
    with pytest.raises(UnknownNameError, match="did you mean 'entailment'"):
        CrossEncoderReranker(root / "three", label="entailmen").score_pairs(PAIRS)
    with pytest.raises(DataError, match="labels 0 to 2"):
        CrossEncoderReranker(root / "three", label=3).score_pairs(PAIRS)
    with pytest.raises(DataError, match="one output"):
        CrossEncoderReranker(root / "bert", label="entailment").score_pairs(PAIRS)
    by_name = CrossEncoderReranker(root / "three", label="entailment").score_pairs(PAIRS)
    by_place = CrossEncoderReranker(root / "three", label=2).score_pairs(PAIRS)
    np.testing.assert_array_equal(by_name, by_place)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.log(shares[:, 2] / (1 - shares[:, 2]))
    np.testing.assert_allclose(by_name, expected, rtol=1e-4, atol=1e-4)
    # Of two labels it is the difference, also where exponentials would overflow.
    two = np.array([[900.0, 1000.0], [3.0, 1.0]], np.float32)
    assert log_odds(two, 1).tolist() == [100.0, -2.0]


def test_lists_are_flattened_and_pairs_scored_once(root: Path) -> None:
    reranker = CrossEncoderReranker(root / "bert")
    lists = [Listed("cat", ("a cat", "a dog", "a cat")), Listed("dog", ("a dog",))]
    one, two = reranker.score(lists)
    assert one[0] == one[2]
    assert two.tolist() == pytest.approx([reranker.rank("dog", ["a dog"])[0].score], abs=1e-5)
    assert reranker.rank("cat", []) == []
    assert reranker.score_pairs([]).shape == (0,)


def test_it_is_a_stage(root: Path) -> None:
    from retrievekit.index.bm25 import BM25Index

    toy = toy_corpus()
    first = BM25Index.build(toy.corpus).searcher(k=5)(toy.queries)
    reranker = CrossEncoderReranker(root / "bert", toy.corpus)
    check_stage(reranker, first, atol=1e-4)
    found = reranker(first)
    for hits in found:
        texts = toy.corpus.contents(toy.corpus.ids.rows(hit.doc_id for hit in hits))
        expected = plain(root / "bert", [(hits.query, text) for text in texts])[:, 0]
        np.testing.assert_allclose([hit.score for hit in hits], expected, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_the_last_layer_whole(root: Path) -> None:
    import torch

    exact = CrossEncoderReranker(root / "bert").score_pairs(PAIRS)
    model = CrossEncoderModel(root / "bert", device="cpu", dtype="bfloat16")
    found = CrossEncoderReranker(model).score_pairs(PAIRS)
    assert 0 < np.abs(found - exact).max() < 0.2 * np.ptp(exact)
    # Rounded to bfloat16 themselves, scores would tie.
    assert (torch.tensor(found).bfloat16().float().numpy() != found).any()
    dtypes = {str(weight.dtype) for weight in model.network.parameters()}
    assert dtypes == {"torch.bfloat16", "torch.float32"}


@pytest.mark.parametrize("factor", [1.0, float("nan")])
def test_auto_takes_bfloat16_only_where_it_is_as_good(
    root: Path, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrievekit.encode.backends import hardware
    from retrievekit.rerank import classifiers

    own = classifiers.run
    calls = []

    def spoiled(network: Any, batch: Any) -> Any:
        calls.append(network)
        return own(network, batch) * (factor if len(calls) == 2 else 1.0)

    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(classifiers, "run", spoiled)
    monkeypatch.setattr(classifiers, "_RMS", 0.5)  # random weights are far from calm ones
    monkeypatch.setattr(classifiers, "_WORST", 5.0)
    model = CrossEncoderModel(root / "bert", device="cpu", dtype="auto")
    narrow = any(weight.dtype.itemsize == 2 for weight in model.network.parameters())
    assert narrow == (factor == 1.0)
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: False)
    model = CrossEncoderModel(root / "bert", device="cpu", dtype="auto")
    assert all(weight.dtype.itemsize == 4 for weight in model.network.parameters())


def test_the_fingerprint_is_that_of_content(root: Path, tmp_path: Path) -> None:
    first = CrossEncoderReranker(root / "bert")
    moved = tmp_path / "elsewhere"
    shutil.copytree(root / "bert", moved)
    assert CrossEncoderReranker(moved).fingerprint == first.fingerprint
    assert CrossEncoderReranker(root / "bert", batch_tokens=7).fingerprint == first.fingerprint
    others = [
        CrossEncoderReranker(root / "xlm-roberta"),
        CrossEncoderReranker(root / "bert", max_length=20),
        CrossEncoderReranker(root / "bert", prompt="query :"),
        CrossEncoderReranker(CrossEncoderModel(root / "bert", dtype="bfloat16")),
    ]
    config = json.loads((moved / "tokenizer_config.json").read_text())
    (moved / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 9}))
    others.append(CrossEncoderReranker(moved))
    assert len({other.fingerprint for other in others} | {first.fingerprint}) == len(others) + 1


def test_models_that_are_no_classifiers_are_refused(root: Path, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        shutil.copytree(root / "bert", tmp_path / name)
        return tmp_path / name

    def changed(folder: Path, **settings: Any) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))

    from safetensors.numpy import load_file, save_file

    headless = copied("headless")
    weights = load_file(headless / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, headless / "model.safetensors", {"format": "pt"})
    bare = copied("bare")
    changed(bare, architectures=["BertModel"])
    code = copied("code")
    changed(code, auto_map={"AutoModel": "x.Y"})
    pickled = copied("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    embedder = copied("embedder")
    (embedder / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "SentenceTransformer"})
    )
    for folder, problem in (
        (headless, "random"), (bare, "BertModel"), (code, "auto_map"), (pickled, "safetensors"),
        (embedder, "SentenceTransformer"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=problem):
            CrossEncoderReranker(folder).rank("cat", ["cat"])
    with pytest.raises(MissingDataError):
        CrossEncoderReranker(tmp_path / "nothing").rank("cat", ["cat"])


def test_a_damaged_model_is_told(root: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(root / "bert", tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    weights["classifier.bias"][:] = np.nan
    save_file(weights, tmp_path / "nan" / "model.safetensors", {"format": "pt"})
    with pytest.raises(NonFiniteError, match="document 0"):
        CrossEncoderReranker(tmp_path / "nan").rank("cat", ["cat"])


def test_settings_are_checked(root: Path) -> None:
    for setting in ({"max_length": 0}, {"max_query": "x"}, {"label": 1.5}, {"prompt": 1}):
        with pytest.raises(DataError):
            CrossEncoderReranker(root / "bert", **setting)
    with pytest.raises(DataError, match="dtype"):
        CrossEncoderModel(root / "bert", dtype="int8")
    made = registry.resolve("rerank", "cross_encoder")(str(root / "bert"), max_length=20, k=3)
    assert made.fingerprint == CrossEncoderReranker(root / "bert", max_length=20, k=3).fingerprint
    assert "max_length=20" in repr(made)
    assert cross_encoder_reranker(str(root / "bert")).name == "cross-encoder"


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 120))
def test_batches_hold_each_item_once_and_no_more_than_they_may(
    lengths: list[int], tokens: int
) -> None:
    batches = list(in_token_batches(lengths, tokens))
    assert sorted(np.concatenate([[], *batches])) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * longest <= tokens
