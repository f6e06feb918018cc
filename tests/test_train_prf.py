"""Training a feedback encoder on a small collection: recipes, kills, the folder that comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from retrievekit.cli.app import app
from retrievekit.corpus import Corpus
from retrievekit.data.dataset import load_dataset
from retrievekit.encode.ance import AnceEncoder
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.errors import DataError, FormError, ParseError, UnknownNameError
from retrievekit.feedback.ance_prf import AncePRF
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.train.prf import passes_of, train_prf
from retrievekit.train.prf_loop import Batches, rate_share
from retrievekit.train.prf_material import DevTask, gather_feedback
from retrievekit.train.prf_recipes import FeedbackRecipe, feedback_recipe, read_feedback_recipe
from tests.tiny_readers import TEXTS, save_ance, save_bert

WORDS = ["cat", "dog", "purr", "bark", "moon", "fish", "sat"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Documents of two words; a query of two words has those that begin with one of them."""
    folder = tmp_path_factory.mktemp("data") / "small"
    (folder / "qrels").mkdir(parents=True)
    documents = {
        f"{a}-{b}": f"the {a} and the {b} {('at the moon ' * n).strip()}"
        for a in WORDS
        for n, b in enumerate(WORDS)
        if a != b
    }
    rows = [json.dumps({"_id": i, "title": "", "text": text}) for i, text in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    queries = {f"q{n}": f"a {a} and {b}" for n, (a, b) in enumerate(
        (a, b) for a in WORDS for b in WORDS if a < b
    )}  # fmt: skip
    rows = [json.dumps({"_id": i, "text": text}) for i, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(rows) + "\n")
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for n, (query, text) in enumerate(queries.items()):
        words = text.split()[1::2]
        split = ("train", "train", "dev", "test")[n % 4]
        splits[split] += [
            f"{query}\t{doc}\t{1 + (doc.split('-')[1] in words)}"
            for doc in documents
            if doc.split("-")[0] in words
        ]
    for split, lines in splits.items():
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n"
        )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_bert(tmp_path_factory.mktemp("model") / "small", modules=True)


@pytest.fixture(scope="module")
def index(data, model) -> DenseIndex:
    encoder = SentenceEncoder(str(model), device="cpu")
    return DenseIndex.build(load_dataset(data, "train").corpus, encoder)


def recipe_for(folder: Path, **settings) -> FeedbackRecipe:
    usual = {
        "data": str(folder), "docs": 2, "depth": 30, "negatives": 4, "queries": 4, "steps": 6,
        "evaluate_every": 2, "max_length": 40, "learning_rate": 1e-3, "device": "cpu",
        "dtype": "float32", "seed": 3, "pool": 5,
    }  # fmt: skip
    return feedback_recipe({**usual, **settings})


METHODS = [
    {"loss": "own"},
    {"loss": "in-batch"},
    {"loss": "pairwise"},
    {"method": "lol", "docs": 3, "compare": 2},
]


class StoppedError(Exception):
    """A kill."""


@pytest.fixture
def far_is_good(monkeypatch):
    """Weights are chosen by how far they led the queries from where they were: never the first."""

    def figure(self: DevTask, vectors=None):
        own = self.index.query_vectors(self.queries)
        if vectors is None:
            return 0.0
        starts.setdefault(id(self.index), vectors.copy())
        assert own.shape == vectors.shape
        return float(np.linalg.norm(vectors - starts[id(self.index)]))

    starts: dict[int, np.ndarray] = {}
    monkeypatch.setattr(DevTask, "figure", figure)


@pytest.mark.usefixtures("far_is_good")
@pytest.mark.parametrize("settings", METHODS, ids=["own", "in-batch", "pairwise", "lol"])
def test_training_that_was_stopped_ends_with_the_same_weights(data, index, tmp_path, settings):
    recipe = recipe_for(data, dropout=0.1, **settings)
    whole = train_prf(recipe, tmp_path / "whole", index=index)

    def stop(progress):
        if progress.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_prf(recipe, tmp_path / "parts", index=index, told=stop)
    assert not (tmp_path / "parts").exists()
    parts = train_prf(recipe, tmp_path / "parts", index=index)
    assert not (tmp_path / "parts.training").exists()
    own, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert own == other
    assert whole.best_step == 6
    assert (whole.figure, whole.best_step, whole.before) == (
        parts.figure, parts.best_step, parts.before,
    )  # fmt: skip
    logs = [
        json.loads((tmp_path / name / "training.json").read_text())["log"]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]
    assert [entry["step"] for entry in logs[0]] == [0, 2, 4, 6]


@pytest.mark.parametrize("settings", METHODS, ids=["own", "in-batch", "pairwise", "lol"])
def test_loss_falls(data, index, tmp_path, settings):
    """On the lists of one step, learnt again and again."""
    seen = []
    recipe = recipe_for(
        data, steps=60, evaluate_every=10, queries=10, learning_rate=1e-2, **settings
    )
    train_prf(recipe, tmp_path / "out", index=index, told=lambda p: seen.append((p.step, p.loss)))
    at = dict(seen)
    assert at[60] < 0.9 * at[10]


def test_result_is_a_feedback_encoder(data, index, tmp_path):
    before = {p: p.read_bytes() for p in Path(index.path).rglob("*") if p.is_file()}
    made = train_prf(recipe_for(data), tmp_path / "out", index=index)
    assert before == {p: p.read_bytes() for p in Path(index.path).rglob("*") if p.is_file()}
    prf = AncePRF(index, tmp_path / "out")
    dev = load_dataset(data, "dev")
    searcher = index.searcher(k=10)
    from retrievekit.evaluate.compute import evaluate

    run = (searcher >> prf >> searcher)(dev.queries)
    assert evaluate(run, dev.qrels, "nDCG@10").mean["nDCG@10"] == pytest.approx(made.figure)
    first = evaluate(searcher(dev.queries), dev.qrels, "nDCG@10").mean["nDCG@10"]
    assert first == pytest.approx(made.retriever)
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert facts["recipe"]["seed"] == 3
    assert facts["material"]["data"] == str(data)
    assert facts["material"]["passages_fingerprint"] == index.card.fingerprint
    assert facts["result"]["figure"] == made.figure
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"**{made.figure:.4f}**" in card
    assert f"{made.passes:,} texts in all" in card
    assert not list((tmp_path / "out").rglob("*.bin"))
    with pytest.raises(DataError, match="is there; name another folder"):
        train_prf(recipe_for(data), tmp_path / "out", index=index)


@pytest.mark.usefixtures("far_is_good")
def test_ance_is_trained_with_its_head(data, tmp_path):
    encoder = AnceEncoder(str(save_ance(tmp_path / "ance")), device="cpu")
    index = DenseIndex.build(load_dataset(data, "train").corpus, encoder)
    train_prf(
        recipe_for(data, steps=3, learning_rate=1e-2, max_length=80), tmp_path / "o", index=index
    )
    from safetensors.torch import load_file

    old, new = (load_file(tmp_path / n / "model.safetensors") for n in ("ance", "o"))
    assert set(new) == {name for name in old if "pooler" not in name}
    for name in ("embeddingHead.weight", "norm.bias", "roberta.encoder.layer.0.output.dense.bias"):
        assert not np.array_equal(old[name].numpy(), new[name].numpy())
    run = index.search(load_dataset(data, "test").queries, 5)
    answer = AncePRF(index, tmp_path / "o")(run)
    assert np.isfinite(answer.form.array).all()


def test_negatives_are_none_that_are_judged_relevant(data, index):
    material = gather_feedback(recipe_for(data), index)
    judged = load_dataset(data, "train").qrels.to_dict()
    assert material.learnt
    for one in material.learnt:
        relevant = {doc for doc, grade in judged[one.mined.query_id].items() if grade > 0}
        assert not relevant & {negative.doc_id for negative in one.mined.negatives}
        assert {index.ids[row] for row in one.relevant} == relevant
        first = index.search(load_dataset(data, "train").queries.select([one.mined.query_id]), 5)
        assert [index.ids[row] for row in one.feedback] == first[one.mined.query_id].doc_ids


def test_in_batch_negatives_leave_out_what_is_relevant(data, index, monkeypatch):
    """The mask, looked at on its way into the loss."""
    from retrievekit.feedback.encoder import FeedbackEncoder
    from retrievekit.train import prf_loop

    recipe = recipe_for(data, loss="in-batch", queries=8)
    material = gather_feedback(recipe, index)
    encoder = FeedbackEncoder(index.card.name, index.card, layout=recipe.layout, device="cpu")
    batches = Batches(material, encoder, recipe, "cpu")
    seen = []

    def watch(vectors, passages, targets, banned, scale):
        seen.append((passages, targets, banned, scale))
        return vectors.sum()

    monkeypatch.setattr(prf_loop, "in_batch_loss", watch)
    batches.loss(0, narrow=False)
    ((passages, targets, banned, scale),) = seen
    assert scale == 20.0
    drawn = batches.drawing.step(0)
    flat = [doc for _, docs in drawn for doc, _ in docs]
    expected = np.stack([index.vectors[index.ids.row(doc)] for doc in flat])
    np.testing.assert_array_equal(passages.numpy(), expected)
    starts = np.cumsum([0, *(len(docs) for _, docs in drawn)])[:-1]
    assert targets.tolist() == starts.tolist()
    for row, (one, _) in enumerate(drawn):
        relevant = {p.doc_id for p in one.positives}
        assert banned[row].tolist() == [doc in relevant for doc in flat]
    assert banned.sum() > len(drawn)


def test_budget_is_kept(data, index, tmp_path):
    recipe = recipe_for(data, method="lol", compare=2, docs=3)
    dev = len(gather_feedback(recipe, index).task.queries)
    passes = passes_of(recipe, 6, dev)
    assert passes == 6 * 4 * 3 + 4 * dev
    with pytest.raises(DataError, match=f"read {passes} texts, and the budget is {passes - 1}"):
        train_prf(recipe.replaced(budget=passes - 1), tmp_path / "o", index=index)
    assert not (tmp_path / "o.training").exists()
    made = train_prf(recipe.replaced(budget=passes), tmp_path / "o", index=index)
    assert made.passes == passes


def test_another_recipe_does_not_go_on(data, index, tmp_path):
    def stop(progress):
        raise StoppedError

    with pytest.raises(StoppedError):
        train_prf(recipe_for(data), tmp_path / "o", index=index, told=stop)
    with pytest.raises(DataError, match=r"of another recipe .*seed 3, now 4"):
        train_prf(recipe_for(data, seed=4), tmp_path / "o", index=index)
    train_prf(recipe_for(data, seed=4), tmp_path / "o", index=index, restart=True)


def test_what_cannot_be_learnt_from_is_refused(data, index):
    recipe = recipe_for(data)
    with pytest.raises(FormError, match="DenseIndex"):
        gather_feedback(recipe, BM25Index.build(Corpus.from_texts(TEXTS)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="of 'train' are learnt from"):
        gather_feedback(recipe.replaced(dev="train"), index)
    corpus = load_dataset(data, "train").corpus
    without = DenseIndex.from_vectors(corpus, index.vectors, similarity="dot", store_text=False)
    with pytest.raises(DataError, match="holds no words"):
        gather_feedback(recipe, without)
    distances = DenseIndex.from_vectors(corpus, index.vectors, similarity="euclidean")
    with pytest.raises(DataError, match="compares by distance"):
        gather_feedback(recipe, distances)


def test_rate_rises_and_falls():
    shares = [rate_share(step, 10, 0.2) for step in range(10)]
    assert shares == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert rate_share(0, 4, 0.0) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": None}, "either steps or epochs"),
        ({"epochs": 2}, "either steps or epochs"),
        ({"method": "rocchio"}, "must be one of ance-prf, lol"),
        ({"method": "lol", "compare": 3}, "only 3 numbers of passages"),
        ({"ranks": [1, 31]}, "ranks are 1 to 31"),
        ({"depth": 4}, "docs and pool are hits"),
        ({"learning_rate": "fast"}, "must be a number"),
        ({"docs": 0}, "must be at least 1"),
        ({"queries": True}, "must be a whole number"),
        ({"ranks": "all"}, r"must be \[first, last\]"),
        ({"data": ""}, "must be a text"),
        ({"seed": None}, "must be given"),
    ],
)
def test_recipes_are_checked(data, settings, message):
    with pytest.raises(DataError, match=message):
        recipe_for(data, **settings)


def test_recipe_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("data: beir/nfcorpus\nepochs: 10\nlearning_rate: 1e-6\n")
    recipe = read_feedback_recipe(file)
    assert recipe.learning_rate == 1e-6
    assert read_feedback_recipe(file, {"steps": 7}).epochs is None
    assert read_feedback_recipe(file, {"depth": 100}).band == (1, 100)
    assert feedback_recipe(recipe.to_dict()) == recipe
    file.write_text("data: x\nsteps: 1\nseeed: 1\n")
    with pytest.raises(ParseError, match="did you mean"):
        read_feedback_recipe(file)
    with pytest.raises(UnknownNameError):
        feedback_recipe({"data": "x", "steps": 1, "lr": 1})
    with pytest.raises(DataError, match="'data' is missing"):
        feedback_recipe({"steps": 1})


def test_command_line(data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "recipe.yaml"
    settings = recipe_for(data, steps=2).to_dict()
    settings["retriever"] = f"dense('{model}')"
    file.write_text(yaml.safe_dump(settings))
    out = tmp_path / "made"
    result = CliRunner().invoke(
        app, ["train", "prf", str(file), "-o", str(out), "--set", "steps=3", "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["steps"] == 3
    assert (out / "model.safetensors").is_file()
    result = CliRunner().invoke(app, ["train", "prf", str(file), "-o", str(out)])
    assert result.exit_code == 1
    assert "is there" in result.stderr
