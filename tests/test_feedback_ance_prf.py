"""`AncePRF` against its encoders in plain torch, on small random models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from retrievekit import registry
from retrievekit.corpus import Corpus
from retrievekit.encode.ance import AnceEncoder
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.encode.tct import TctColbertEncoder
from retrievekit.errors import DataError, EncoderMismatchError, FormError, ParseError
from retrievekit.feedback.ance_prf import AncePRF
from retrievekit.feedback.encoder import FeedbackEncoder, Made
from retrievekit.feedback.layouts import Layout
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.testing import check_stage
from tests.tiny_readers import (
    TEXTS,
    mark,
    pieces,
    plain_ance,
    plain_bert,
    save_ance,
    save_bert,
)

QUERIES = {"q1": "The moon", "q2": "a Cat and dogs", "q3": "fish"}
HITS = {
    "q1": {"d4": 3.0, "d2": 2.0, "d1": 1.0},
    "q2": {"d3": 3.0, "d1": 2.0, "d2": 1.0},
    "q3": {"d5": 3.0},
}


class Family:
    """A family's original encoder, another checkpoint of it, and what it reads, by hand."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        save = {"ance": save_ance, "tct": save_bert, "sentence": save_bert}[name]
        more = {"modules": True} if name == "sentence" else {}
        self.first = save(root / "first", 5, **more)
        # The other checkpoint of a sentence encoder is a plain transformer, as its authors save it.
        self.other = save(root / "other", 6)
        self.encoder = {
            "ance": lambda: AnceEncoder(str(self.first), device="cpu"),
            "tct": lambda: TctColbertEncoder(
                str(self.first), device="cpu", max_length={"document": 40}
            ),
            "sentence": lambda: SentenceEncoder(str(self.first), device="cpu"),
        }[name]()
        self.index = DenseIndex.build(Corpus.from_texts(TEXTS), self.encoder)

    def ids(self, query: str, passages: list[str], limit: int) -> list[int]:
        """The text by hand."""
        folder = self.first
        if self.name == "ance":
            begin, end = mark(folder, "<s>"), mark(folder, "</s>")
            texts = [pieces(folder, text.lower()) for text in (query, *passages)]
        else:
            begin, end = mark(folder, "[CLS]"), mark(folder, "[SEP]")
            texts = [pieces(folder, text) for text in (query, *passages)]
        if self.name == "tct":
            bracket = [mark(folder, "["), mark(folder, "q"), mark(folder, "]")]
            ids = [begin, *bracket, *texts[0]]
            for text in texts[1:]:
                ids += [end, *text]
            ids = ids[:limit]
            return ids + [mark(folder, "[MASK]")] * (limit - len(ids))
        ids = [begin]
        for text in texts:
            ids += [*text, end]
        return ids if len(ids) <= limit else [*ids[: limit - 1], end]

    def vector(self, folder: Path, ids: list[int]) -> np.ndarray:
        """The vector by hand."""
        if self.name == "ance":
            return plain_ance(folder, ids)
        states = plain_bert(folder, ids)
        if self.name == "tct":
            return states[4:].mean(0)
        mean = states.mean(0)
        return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module", params=["ance", "tct", "sentence"])
def family(request, tmp_path_factory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def ance(tmp_path_factory) -> Family:
    return Family("ance", tmp_path_factory.mktemp("only"))


def hits(index: DenseIndex) -> Run:
    return Run.from_dict(HITS, Queries.from_texts(QUERIES)).with_docs(index.ids)


def stage(family: Family, docs: int | None = None, limit: int = 60, **settings) -> AncePRF:
    encoder = FeedbackEncoder(
        family.other, family.index.card, layout=Layout(limit), device="cpu", **settings
    )
    return AncePRF(family.index, encoder, docs)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize(("docs", "limit"), [(0, 60), (1, 60), (3, 60), (3, 16)])
def test_vectors_equal_the_oracle(family, docs, limit, batch_size):
    run = hits(family.index)
    found = stage(family, docs, limit, batch_size=batch_size)(run).form.array
    expected = [
        family.vector(
            family.other,
            family.ids(QUERIES[query], [TEXTS[doc] for doc in list(HITS[query])[:docs]], limit),
        )
        for query in QUERIES
    ]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_original_encoder_and_no_passages_give_the_first_search(family):
    """Without passages the text is the query's own; TCT-ColBERT's queries have 36 tokens."""
    limit = 36 if family.name == "tct" else 60
    encoder = FeedbackEncoder(family.first, family.index.card, layout=Layout(limit), device="cpu")
    run = hits(family.index)
    found = AncePRF(family.index, encoder, 0)(run).form.array
    own = family.encoder.encode_query(list(QUERIES.values()))
    np.testing.assert_allclose(found, own, atol=1e-5)


def test_answers_lead_back_into_the_index(family):
    queries = Queries.from_texts(QUERIES)
    searcher = family.index.searcher(k=4)
    prf = stage(family, 2)
    again = (searcher >> prf >> searcher)(queries)
    first = searcher(queries)
    by_hand = family.index.search(prf(first), 4)
    assert again == by_hand
    assert again != first
    assert again.queries.texts == list(QUERIES.values())
    step = next(step for step in again.trace if step.name.startswith("AncePRF"))
    assert dict(step.counts)["passages read"] == 6


def test_laws(family):
    check_stage(stage(family, 2), hits(family.index), atol=1e-5)


def test_queries_without_hits_or_too_long_stay(ance):
    long = "moon " * 100
    queries = Queries.from_texts({"none": "The moon", "long": long, "q": "fish"})
    run = Run.from_dict({"long": {"d1": 1.0}, "q": {"d5": 1.0}}, queries).with_docs(ance.index.ids)
    answer = stage(ance, 2, 30)(run)
    own = ance.index.query_vectors(queries)
    np.testing.assert_array_equal(answer.form.array[:2], own[:2])
    assert not np.allclose(answer.form.array[2], own[2], atol=1e-2)
    counts = dict(answer.trace[-1].counts)
    assert counts["queries without hits, left as they are"] == 1
    assert counts["queries too long to be read, left as they are"] == 1
    empty = Run.empty(Queries.from_texts({}), ance.index.ids)
    assert len(stage(ance)(empty)) == 0


def test_cuts_are_counted(ance):
    counts = dict(stage(ance, 3, 16)(hits(ance.index)).trace[-1].counts)
    expected = 0
    for query, docs in HITS.items():
        there = 2 + len(pieces(ance.first, QUERIES[query].lower()))
        for doc in docs:
            there += 1 + len(pieces(ance.first, TEXTS[doc].lower()))
            expected += there > 16
    assert expected
    assert counts["passages cut or left out for want of room"] == expected


def test_text_is_lower_cased(ance):
    encoder = stage(ance).encoder
    upper = encoder.encode(["THE MOON"], [["A CAT"]]).vectors
    lower = encoder.encode(["the moon"], [["a cat"]]).vectors
    np.testing.assert_allclose(upper, lower, atol=1e-6)
    # The tokenizer alone would not have done it.
    tokenizer = encoder.reader.tokenizer
    assert tokenizer("THE MOON")["input_ids"] != tokenizer("the moon")["input_ids"]


def test_padding_is_no_token_of_the_text(ance):
    """Its id is RoBERTa's own, and what stands there changes no vector."""
    reader = stage(ance).encoder.reader
    ids, mask = reader.padded([[0, 5, 2], [0, 5, 6, 7, 2]])
    assert ids[0].tolist() == [0, 5, 2, 1, 1]
    assert mask.sum(1).tolist() == [3, 5]


def test_index_of_another_encoder_is_refused(ance, tmp_path):
    other = DenseIndex.build(
        Corpus.from_texts(TEXTS), AnceEncoder(str(save_ance(tmp_path / "x", 9)), device="cpu")
    )
    made = Path(shutil.copytree(ance.other, tmp_path / "made"))
    Made(ance.index.card, Layout(60), (3, 3)).write(made)
    AncePRF(ance.index, made)
    with pytest.raises(EncoderMismatchError, match="trained for passages of the encoder"):
        AncePRF(other, made)
    with pytest.raises(EncoderMismatchError, match="encoder against index"):
        AncePRF(other, FeedbackEncoder(made, ance.index.card))
    with pytest.raises(DataError, match=r"no feedback\.json says"):
        AncePRF(ance.index, FeedbackEncoder(ance.other))


def test_number_of_passages_must_be_that_of_the_checkpoint(ance, tmp_path):
    made = Path(shutil.copytree(ance.other, tmp_path / "made"))
    Made(ance.index.card, Layout(60), (2, 2)).write(made)
    assert AncePRF(ance.index, made)(hits(ance.index)) == stage(ance, 2)(hits(ance.index))
    with pytest.raises(DataError, match="trained with 2 passages"):
        AncePRF(ance.index, made, 3)
    Made(ance.index.card, Layout(60), (0, 5)).write(made)
    for docs in (0, 5):
        AncePRF(ance.index, made, docs)
    with pytest.raises(DataError, match="trained with 0 to 5 passages"):
        AncePRF(ance.index, made, 6)
    (made / "feedback.json").write_text("{}")
    with pytest.raises(ParseError, match="says not what the model was made for"):
        AncePRF(ance.index, made)


def test_pickled_checkpoint_of_the_authors(ance, tmp_path):
    """Weights as pytorch_model.bin, only where that is allowed."""
    import torch
    from safetensors.torch import load_file

    made = Path(shutil.copytree(ance.other, tmp_path / "made"))
    torch.save(load_file(made / "model.safetensors"), made / "pytorch_model.bin")
    (made / "model.safetensors").unlink()
    encoder = FeedbackEncoder(made, ance.index.card, layout=Layout(60), device="cpu")
    with pytest.raises(DataError, match="allow_pickle=True"):
        AncePRF(ance.index, encoder)(hits(ance.index))
    made_so = registry.resolve("feedback", "ance_prf")(
        str(made), 3, max_length=60, device="cpu", allow_pickle=True, index=ance.index
    )
    found = made_so(hits(ance.index)).form.array
    np.testing.assert_array_equal(found, stage(ance, 3)(hits(ance.index)).form.array)


def test_head_under_the_names_of_lol(ance, tmp_path):
    from safetensors.torch import load_file, save_file

    made = Path(shutil.copytree(ance.other, tmp_path / "made"))
    weights = load_file(made / "model.safetensors")
    for own, other in (("embeddingHead.", "dense_proj."), ("norm.", "layer_norm.")):
        for name in [name for name in weights if name.startswith(own)]:
            weights[other + name.removeprefix(own)] = weights.pop(name)
    save_file(weights, made / "model.safetensors")
    encoder = FeedbackEncoder(made, ance.index.card, layout=Layout(60), device="cpu")
    found = AncePRF(ance.index, encoder, 2)(hits(ance.index)).form.array
    np.testing.assert_array_equal(found, stage(ance, 2)(hits(ance.index)).form.array)


def test_saved_model_is_the_same(family, tmp_path):
    prf = stage(family, 2)
    prf.encoder.reader.save(tmp_path / "saved")
    Made(family.index.card, Layout(60), (2, 2)).write(tmp_path / "saved")
    again = AncePRF(family.index, FeedbackEncoder(tmp_path / "saved", device="cpu"))
    run = hits(family.index)
    np.testing.assert_allclose(again(run).form.array, prf(run).form.array, atol=1e-6)


def test_explanation(family):
    run = hits(family.index).take(np.array([0]))
    prf = stage(family, 3)
    moved = prf.explained(run)
    assert [doc for doc, _ in moved.passages] == ["d4", "d2", "d1"]
    assert sum(share for _, share in moved.passages) == pytest.approx(1)
    vector = prf(run).form.array[0].astype(np.float64)
    own = family.index.query_vectors(run.queries)[0].astype(np.float64)
    cosine = own @ vector / np.linalg.norm(own) / np.linalg.norm(vector)
    assert moved.cosine == pytest.approx(cosine, abs=1e-5)
    parts = prf.explain_parts(run, "d5")
    score = family.index.search(prf(run), 6).to_dict()["q1"]["d5"]
    assert sum(parts.values()) == pytest.approx(score, rel=1e-4, abs=1e-5)
    assert prf.explain_parts(run, "nowhere") == {}


def test_misuse(ance):
    with pytest.raises(FormError, match="for a DenseIndex"):
        AncePRF(BM25Index.build(Corpus.from_texts(TEXTS)), ance.other)
    with pytest.raises(DataError, match="docs is -1"):
        stage(ance, -1)
    wordless = DenseIndex.build(Corpus.from_texts(TEXTS), ance.encoder, store_text=False)
    with pytest.raises(DataError, match="holds no words"):
        AncePRF(wordless, ance.other)
    with pytest.raises(DataError, match="the model reads 518 tokens"):
        stage(ance, 1, 519)(hits(ance.index))


def test_fingerprint_follows_what_answers_depend_on(ance):
    same = stage(ance, 2).fingerprint
    assert stage(ance, 2, batch_size=1).fingerprint == same
    others = [
        stage(ance, 3).fingerprint,
        stage(ance, 2, 40).fingerprint,
        AncePRF(ance.index, FeedbackEncoder(
            ance.first, ance.index.card, layout=Layout(60)), 2).fingerprint,
    ]  # fmt: skip
    assert len({same, *others}) == 4
    json.dumps(stage(ance, 2).identity())
