"""`LateInteraction` against explicit loops over the tokens of a plain transformer."""

from __future__ import annotations

import json
import logging
import math
import shutil
import string
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrievekit import registry
from retrievekit.errors import DataError, NonFiniteError
from retrievekit.index.bm25 import BM25Index
from retrievekit.rerank import late_interaction
from retrievekit.rerank.late_interaction import LateInteraction, MultiVectorModel, maxsim
from retrievekit.testing import check_stage, toy_corpus
from retrievekit.trace import counting
from tests.test_rerank_cross_encoder import DOCS, PAIRS, QUERIES
from tests.tiny_classifiers import SMALL, tokenizer_of
from tests.tiny_decoders import one_thread  # noqa: F401

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties warn of while they are imported
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from transformers import BertConfig, BertModel

DIM, ASKED, READ = 8, 10, 20
FIXED = {"strategy": "fixed", "attend": False, "length": ASKED}
# Name: query expansion, similarity, words of documents that do not count.
LAYOUTS: dict[str, tuple[dict[str, Any] | None, str, list[str]]] = {
    "colbert": (FIXED, "maxsim", list(string.punctuation)),
    "attending": ({**FIXED, "attend": True}, "maxsim", []),
    "mean": ({**FIXED, "strategy": "min", "length": 6}, "meanmaxsim", [".", ","]),
    "plain": (None, "maxsim", []),
    "hollow": (None, "maxsim", ["[CLS]", "[SEP]", "."]),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a projection, saved in each layout."""
    root = tmp_path_factory.mktemp("multi")
    tokenizer = tokenizer_of("bert")
    torch.manual_seed(3)
    BertModel(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(root / "body")
    tokenizer.save_pretrained(root / "body")
    for name, (expansion, similarity, skipped) in LAYOUTS.items():
        body = Transformer(
            str(root / "body"), query_length=ASKED, document_length=READ, query_expansion=expansion
        )
        torch.manual_seed(4)
        tokens = "token_embeddings"
        linear = Dense(SMALL["hidden_size"], DIM, False, torch.nn.Identity(),
                       module_input_name=tokens)  # fmt: skip
        parts = [body, linear, MultiVectorMask(skipped), Normalize(module_input_name=tokens)]
        prompts = {"query": "query : ", "document": ""}
        model = MultiVectorEncoder(modules=parts, prompts=prompts, device="cpu")
        model.similarity_fn_name = similarity
        model.save_pretrained(str(root / name), create_model_card=False)
    return root


def plain(
    root: Path, name: str, pairs: list[tuple[str, str]], before: tuple[str, str] = ("query : ", "")
) -> list[float]:
    """MaxSim by loops, token by token, each text by itself in float64."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    expansion, similarity, skipped = LAYOUTS[name]
    tokenizer = AutoTokenizer.from_pretrained(root / "body")
    body = BertModel.from_pretrained(root / "body", dtype=torch.float64).eval()
    file = next(path for path in (root / name).rglob("*.safetensors") if "Dense" in str(path))
    weight = load_file(file)["linear.weight"].double()

    def vectors(text: str, query: bool) -> list[list[float]]:
        ids = tokenizer(text, truncation=True, max_length=ASKED if query else READ)["input_ids"]
        seen = len(ids)
        counts = [query or tokenizer.convert_ids_to_tokens(i) not in skipped for i in ids]
        if query and expansion is not None:
            more = max(0, expansion["length"] - seen)
            ids, counts = ids + [tokenizer.mask_token_id] * more, counts + [True] * more
            seen = len(ids) if expansion["attend"] else seen
        mask = torch.tensor([[1] * seen + [0] * (len(ids) - seen)])
        with torch.no_grad():
            hidden = body(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0]
            found = (hidden @ weight.T).tolist()
        return [
            [x / math.sqrt(sum(y * y for y in one)) for x in one]
            for one, counted in zip(found, counts, strict=True)
            if counted
        ]

    out = []
    for query, doc in pairs:
        asked, read = vectors(before[0] + query, True), vectors(before[1] + doc, False)
        best = [
            max((sum(x * y for x, y in zip(q, d, strict=True)) for d in read), default=-1.0)
            for q in asked
        ]
        out.append(sum(best) / (len(asked) if similarity == "meanmaxsim" else 1))
    return out


@pytest.mark.parametrize("name", LAYOUTS)
def test_scores_are_those_of_loops_over_tokens(root: Path, name: str) -> None:
    expected = plain(root, name, PAIRS)
    found = LateInteraction(root / name, batch_tokens=60).score_pairs(PAIRS)
    assert found.dtype == np.float32
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_library_itself_agrees(root: Path, name: str) -> None:
    peer = MultiVectorEncoder(str(root / name), device="cpu")
    docs = [doc for doc in DOCS if name != "hollow" or doc]
    queries = peer.encode_query(QUERIES, show_progress_bar=False)
    expected = peer.similarity(queries, peer.encode_document(docs, show_progress_bar=False))
    found = LateInteraction(root / name).score_pairs([(q, d) for q in QUERIES for d in docs])
    np.testing.assert_allclose(found, expected.numpy().ravel(), rtol=1e-5, atol=1e-5)


def test_what_does_not_count_cannot_win() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 3)
    docs = torch.tensor([[[-0.6, -0.8], [0.0, 0.0]]] * 3)
    asking = torch.tensor([[True, True], [True, False], [True, True]])
    real = torch.tensor([[True, False], [True, False], [False, False]])
    # The zero vector beside it, which is padding, would give 0.
    assert maxsim(queries, asking, docs, real).tolist() == pytest.approx([-0.6 - 0.8, -0.6, -2.0])
    none = torch.empty(3, 0, 2)
    assert maxsim(queries, asking, none, torch.empty(3, 0, dtype=torch.bool)).tolist() == [
        -2.0, -1.0, -2.0,
    ]  # fmt: skip


@settings(max_examples=15)
@given(st.data())
def test_no_score_depends_on_its_companions(root: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["colbert", "mean", "plain"]))
    reranker = LateInteraction(root / name, batch_tokens=data.draw(st.integers(1, 80)))
    some = data.draw(st.lists(st.sampled_from(PAIRS), min_size=1, max_size=10, unique=True))
    if name not in ALL:
        ALL[name] = dict(
            zip(PAIRS, LateInteraction(root / name).score_pairs(PAIRS).tolist(), strict=True)
        )
    found = reranker.score_pairs(some)
    np.testing.assert_allclose(found, [ALL[name][pair] for pair in some], rtol=1e-5, atol=1e-5)


ALL: dict[str, dict[tuple[str, str], float]] = {}


def test_each_document_is_encoded_once_however_few_fit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = LateInteraction(root / "colbert").score_pairs(PAIRS)
    seen: list[tuple[str, str]] = []
    own = MultiVectorModel.encode

    def told(self: MultiVectorModel, texts: Any, role: Any) -> Any:
        seen.extend((role, text) for text in texts)
        return own(self, texts, role)

    monkeypatch.setattr(MultiVectorModel, "encode", told)
    monkeypatch.setattr(late_interaction, "_ELEMENTS", 1)  # one pair is scored at a time
    reranker = LateInteraction(root / "colbert", batch_tokens=1)
    np.testing.assert_allclose(reranker.score_pairs(PAIRS), expected, rtol=1e-5, atol=1e-5)
    assert sorted(seen) == sorted(
        [("query", text) for text in QUERIES] + [("document", text) for text in DOCS]
    )
    # Queries part by part: documents once for each part.
    seen.clear()
    monkeypatch.setattr(late_interaction, "_QUERY_TOKENS", 1)
    np.testing.assert_allclose(reranker.score_pairs(PAIRS), expected, rtol=1e-5, atol=1e-5)
    assert len(seen) == len(QUERIES) * (1 + len(DOCS))


def test_it_is_a_stage_and_tells_what_it_cut(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy = toy_corpus()
    first = BM25Index.build(toy.corpus).searcher(k=5)(toy.queries)
    check_stage(LateInteraction(root / "colbert", toy.corpus), first, atol=1e-4)
    logging.getLogger("retrievekit").propagate = True
    reranker = LateInteraction(root / "colbert")
    with caplog.at_level(logging.WARNING), counting() as counts:
        reranker.rank("cat " * 7, DOCS)
    assert counts == {"cut documents": 1, "cut queries": 1}
    assert f"1 of 6 document texts were longer than {READ} tokens" in caplog.text
    assert f"1 of 1 query texts were longer than {ASKED} tokens" in caplog.text
    assert reranker.rank("cat", []) == []


def test_layouts_of_others_are_read(root: Path, tmp_path: Path) -> None:
    """PyLate's folder names its own class, and says in one place what is here in several."""
    shutil.copytree(root / "plain", tmp_path / "pylate")
    modules = json.loads((tmp_path / "pylate" / "modules.json").read_text())
    kept = [one for one in modules if one["type"].rsplit(".", 1)[-1] in ("Transformer", "Dense")]
    kept[1]["type"] = "pylate.models.Dense.Dense"
    (tmp_path / "pylate" / "modules.json").write_text(json.dumps(kept))
    body = tmp_path / "pylate" / "sentence_bert_config.json"
    own = json.loads(body.read_text())
    for name in ("query_length", "document_length", "query_expansion"):
        own.pop(name, None)
    body.write_text(json.dumps(own))
    (tmp_path / "pylate" / "config_sentence_transformers.json").write_text(
        json.dumps(
            {"model_type": "ColBERT", "query_prefix": "query : ", "document_prefix": "",
             "query_length": ASKED, "document_length": READ, "do_query_expansion": True,
             "attend_to_expansion_tokens": False, "skiplist_words": list(string.punctuation)}
        )
    )  # fmt: skip
    found = LateInteraction(tmp_path / "pylate").score_pairs(PAIRS)
    expected = LateInteraction(root / "colbert").score_pairs(PAIRS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_layout_of_colbert_itself_is_read(root: Path, tmp_path: Path) -> None:
    """All weights in one file, settings in ``artifact.metadata``."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "colbert"
    shutil.copytree(root / "body", folder)
    dense = next(path for path in (root / "colbert").rglob("*.safetensors") if "Dense" in str(path))
    weights = {f"bert.{name}": value for name, value in
               load_file(folder / "model.safetensors").items()}  # fmt: skip
    save_file(weights | load_file(dense), folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    metadata = {"query_token_id": "query", "doc_token_id": "moon", "query_maxlen": ASKED,
                "doc_maxlen": READ, "mask_punctuation": True}  # fmt: skip
    (folder / "artifact.metadata").write_text(json.dumps(metadata))
    expected = plain(root, "colbert", PAIRS, ("query ", "moon "))
    reranker = LateInteraction(folder)
    np.testing.assert_allclose(reranker.score_pairs(PAIRS), expected, rtol=1e-5, atol=1e-5)
    before = reranker.fingerprint
    (folder / "artifact.metadata").write_text(json.dumps(metadata | {"doc_maxlen": 9}))
    assert LateInteraction(folder).fingerprint != before


def test_models_without_a_projection_of_their_own_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="random"):
        LateInteraction(root / "body").rank("cat", ["cat"])
    foreign = tmp_path / "foreign"
    shutil.copytree(root / "plain", foreign)
    text = (foreign / "modules.json").read_text()
    (foreign / "modules.json").write_text(text.replace("sentence_transformers.", "elsewhere."))
    with pytest.raises(DataError, match="elsewhere"):
        LateInteraction(foreign).rank("cat", ["cat"])
    with pytest.raises(DataError, match="batch_tokens"):
        LateInteraction(root / "plain", batch_tokens=0)


def test_the_fingerprint_is_that_of_content(root: Path, tmp_path: Path) -> None:
    prints = {LateInteraction(root / name).fingerprint for name in LAYOUTS}
    prints.add(LateInteraction(MultiVectorModel(root / "plain", dtype="bfloat16")).fingerprint)
    assert len(prints) == len(LAYOUTS) + 1
    shutil.copytree(root / "plain", tmp_path / "moved")
    moved = registry.resolve("rerank", "late_interaction")(str(tmp_path / "moved"), batch_tokens=5)
    assert moved.fingerprint == LateInteraction(root / "plain").fingerprint
    assert moved.name == "late-interaction"
    assert repr(LateInteraction("some/model", k=3)) == "LateInteraction('some/model', k=3)"


def test_half_precision_is_near_and_damage_is_told(root: Path, tmp_path: Path) -> None:
    exact = LateInteraction(root / "colbert").score_pairs(PAIRS)
    model = MultiVectorModel(root / "colbert", device="cpu", dtype="bfloat16")
    found = LateInteraction(model).score_pairs(PAIRS)
    assert 0 < np.abs(found - exact).max() < 0.05 * ASKED
    from safetensors.numpy import load_file, save_file

    shutil.copytree(root / "colbert", tmp_path / "nan")
    file = next(path for path in (tmp_path / "nan").rglob("*.safetensors") if "Dense" in str(path))
    weights = load_file(file)
    weights["linear.weight"][0] = np.nan
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(NonFiniteError, match="document 0"):
        LateInteraction(tmp_path / "nan").rank("cat", ["cat"])
