"""Training a cross-encoder: recipes, what is learnt, kills, cards, and the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_classifiers import SMALL, save_classifier, tokenizer_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what third parties warn of while they are imported
    import torch
    import transformers
    from safetensors.torch import load_file
    from typer.testing import CliRunner

from retrievekit import Corpus, Run, evaluate, load_dataset, registry
from retrievekit.cli.app import app
from retrievekit.errors import DataError, NonFiniteError, ParseError, UnknownNameError
from retrievekit.index.bm25 import BM25Index
from retrievekit.rerank.cross_encoder import CrossEncoderReranker
from retrievekit.train.checkpoints import State, read_state, seed_step, write_state
from retrievekit.train.drawing import Drawing
from retrievekit.train.material import gather
from retrievekit.train.mining import Mined, Negative, Positive, read_mined
from retrievekit.train.recipes import RerankerRecipe, read_recipe, recipe_of
from retrievekit.train.reranker import train_reranker
from retrievekit.train.starting import start_model

ANIMALS = ["cat", "dog", "fish", "moon"]
DOINGS = ["purr", "bark"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of an animal and what it does; those that purr are relevant."""
    folder = tmp_path_factory.mktemp("data") / "beasts"
    (folder / "qrels").mkdir(parents=True)
    documents, queries = {}, {}
    judged: dict[str, list[str]] = {"train": [], "dev": []}
    for place, animal in enumerate(ANIMALS):
        for n in range(8):
            documents[f"{animal}{n}"] = f"{'the ' * n}{animal} {DOINGS[n % 2]} at"
        for n, split in enumerate(["train", "train", "train", "dev"]):
            query = f"{split[0]}{place}{n}"
            queries[query] = f"{'a ' * n}{animal}"
            judged[split] += [f"{query}\t{animal}{i}\t1" for i in range(0, 8, 2)]
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for split, lines in judged.items():
        head = "query-id\tcorpus-id\tscore"
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join([head, *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer without a classifier, as a bi-encoder has it."""
    folder = tmp_path_factory.mktemp("body")
    tokenizer = tokenizer_of("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**SMALL, "vocab_size": len(tokenizer)})
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(data: Path, body: Path) -> dict[str, Any]:
    return {
        "model": str(body),
        "data": str(data),
        "depth": 8,
        "ranks": [1, 8],
        "dev_depth": 8,
        "max_length": 24,
        "learning_rate": 0.005,
        "steps": 12,
        "evaluate_every": 4,
        "dtype": "float32",
        "device": "cpu",
    }


# Recipes ------------------------------------------------------------------------------------------


def test_a_recipe_is_read_and_changed(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "model: minilm\ndata: nfcorpus\nepochs: 2\nlearning_rate: 5e-5\nranks: [2, 9]\n"
    )
    recipe = read_recipe(file)
    assert (recipe.learning_rate, recipe.ranks, recipe.epochs) == (5e-5, (2, 9), 2)
    changed = read_recipe(file, {"steps": 7, "loss": "pg-rank"})
    assert (changed.steps, changed.epochs, changed.loss) == (7, None, "pg-rank")
    assert recipe.replaced(steps=7, loss="pg-rank") == changed
    assert recipe_of(json.loads(json.dumps(changed.to_dict()))) == changed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: m\ndata: d\nsteps: 1\nlos: bce", "'loss'"),
        ("model: m\ndata: d\nsteps: 1\nloss: listnat", "'listnet'"),
        ("model: m\nsteps: 1", "'data' is missing"),
        ("model: m\ndata: d", "steps or epochs"),
        ("model: m\ndata: d\nsteps: 1\nepochs: 1", "steps or epochs"),
        ("model: m\ndata: d\nsteps: 0", "at least 1"),
        ("model: m\ndata: d\nsteps: true", "whole number"),
        ("model: m\ndata: d\nepochs: .nan", "epochs is nan"),
        ("model: m\ndata: d\nsteps: 1\nlearning_rate: fast", "a number"),
        ("model: m\ndata: d\nsteps: 1\nranks: [5, 2]", "[first, last]"),
        ("model: m\ndata: d\nsteps: 1\nranks: 5", "[first, last]"),
        ("model: m\ndata: d\nsteps: 1\nranks: [1, 200]", "depth is 100"),
        ("model: m\ndata: d\nsteps: 1\ndtype: int4", "one of auto"),
        ("model: m\ndata: d\nsteps: 1\nmodel: n", "given twice"),
        ("- model", "a mapping"),
        ("", "a mapping of settings, "),
        ("model: [", "not YAML"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ParseError, match=r"recipe\.yaml") as caught:
        read_recipe(file)
    assert said in str(caught.value)


def test_the_recipe_of_the_readme_is_one(tmp_path: Path) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    text = "model:" + readme.split("```yaml\nmodel:")[1].split("```")[0]
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = read_recipe(tmp_path / "recipe.yaml", {"loss": "lambda", "seed": 1})
    assert (recipe.model, recipe.epochs, recipe.learning_rate) == ("minilm", 2, 5e-5)
    (told,) = (line for line in text.splitlines() if line.startswith("loss:"))
    assert set(registry.names("loss")) == set(re.findall(r"[a-z-]+", told)) - {"loss", "or"}


def test_every_loss_is_there_and_takes_lists() -> None:
    named = {"bce", "first", "lambda", "lipo", "listnet", "pg-rank", "pld", "plistmle"}
    assert named <= set(registry.names("loss"))
    assert all(f"``{name}``" in str(RerankerRecipe.__doc__) for name in registry.names("loss"))
    scores = torch.tensor([[0.3, -0.2, 0.1], [0.0, 1.0, 0.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    for name in registry.names("loss"):
        loss = registry.resolve("loss", name)()
        (slope,) = torch.autograd.grad(loss(scores, labels, mask), scores)
        assert slope.abs().sum() > 0, name
        assert slope[1, 2] == 0, name


# Learning -----------------------------------------------------------------------------------------


def test_a_new_last_layer_is_drawn_by_the_seed(body: Path, tmp_path: Path) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.manual_seed(time.time_ns() % 1000)  # whatever was drawn before
        network = start_model(body, seed=seed, max_length=24, device="cpu")
        return network.state_dict()["0.model.classifier.weight"]

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))
    stored_model = save_classifier(tmp_path / "c", "bert")
    whole = start_model(stored_model, seed=1, max_length=24, device="cpu")
    stored = load_file(tmp_path / "c" / "model.safetensors")["classifier.weight"]
    assert torch.equal(whole.state_dict()["0.model.classifier.weight"], stored)
    two = save_classifier(tmp_path / "two", "bert", num_labels=2)
    with pytest.raises(DataError, match="2 labels"):
        start_model(two, seed=1, max_length=24, device="cpu")
    with pytest.raises(DataError, match="reads 48 tokens"):
        start_model(body, seed=1, max_length=64, device="cpu")


@pytest.mark.parametrize("loss", ["bce", "listnet", "lambda", "pld", "pg-rank"])
def test_what_is_relevant_is_learnt(settings: dict, tmp_path: Path, loss: str) -> None:
    """BM25 cannot tell what purrs; a model that learnt can, and its figure is that of its run."""
    recipe = recipe_of({**settings, "loss": loss, "steps": 100, "evaluate_every": 25})
    seen = []
    made = train_reranker(recipe, tmp_path / "m", told=lambda p: seen.append((p.step, p.best)))
    assert [step for step, _ in seen] == list(range(1, 101))
    assert made.figure > made.first + 0.1
    dev = load_dataset(settings["data"], "dev")
    first = BM25Index.build(dev.corpus).searcher(k=8)(dev.queries)
    assert evaluate(first, dev.qrels, "nDCG@10").mean["nDCG@10"] == pytest.approx(made.first)
    reranked = CrossEncoderReranker(made.path, dev.corpus)(first)
    assert evaluate(reranked, dev.qrels, "nDCG@10").mean["nDCG@10"] == pytest.approx(made.figure)


def test_the_folder_has_weights_and_a_card(settings: dict, tmp_path: Path) -> None:
    made = train_reranker(recipe_of(settings), tmp_path / "m")
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert not [f for f in made.path.rglob("*") if f.suffix in (".bin", ".pt", ".pth", ".pkl")]
    card = json.loads((made.path / "training.json").read_text())
    assert recipe_of(card["recipe"]) == recipe_of(settings)
    train = load_dataset(settings["data"], "train")
    assert card["material"]["train"]["judgements"] == train.qrels.n_judgements == 48
    assert card["material"]["corpus_hash"] == train.corpus.content_hash
    assert [entry["step"] for entry in card["log"]] == [4, 8, 12]
    assert card["result"]["figure"] == max(entry["figure"] for entry in card["log"])
    assert f"{made.figure:.4f}" in (made.path / "README.md").read_text()
    assert len({file.stat().st_mode for file in made.path.iterdir()}) == 1
    with pytest.raises(DataError, match="is there"):
        train_reranker(recipe_of(settings), made.path)


KILLED = """
import os, signal, sys, json
from retrievekit.train.recipes import recipe_of
from retrievekit.train.reranker import train_reranker
def told(p):
    if p.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
train_reranker(recipe_of(json.loads(sys.argv[1])), sys.argv[2], told=told)
"""


@pytest.mark.parametrize(("loss", "kills"), [("listnet", (3, 10)), ("pg-rank", (10,))])
def test_killed_and_gone_on_with_it_ends_with_the_same_weights(
    settings: dict, tmp_path: Path, loss: str, kills: tuple[int, ...]
) -> None:
    settings = {**settings, "loss": loss, "dropout": 0.2}
    whole = train_reranker(recipe_of(settings), tmp_path / "whole")
    for step in kills:
        done = subprocess.run(
            [sys.executable, "-c", KILLED.format(step=step), json.dumps(settings),
             str(tmp_path / "cut")],
            env={**os.environ, "PYTHONWARNINGS": "ignore"}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not (tmp_path / "cut").exists()
    with pytest.raises(DataError, match=r"seed 0, now 1"):
        train_reranker(recipe_of({**settings, "seed": 1}), tmp_path / "cut")
    steps = []
    cut = train_reranker(recipe_of(settings), tmp_path / "cut", told=lambda p: steps.append(p.step))
    assert steps == [9, 10, 11, 12]
    one, other = (load_file(m.path / "model.safetensors") for m in (whole, cut))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (whole.figure, whole.best_step) == (cut.figure, cut.best_step)
    logs = [json.loads((m.path / "training.json").read_text())["log"] for m in (whole, cut)]
    assert logs[0] == logs[1]


def test_another_seed_gives_other_weights_and_restart_begins_anew(
    settings: dict, tmp_path: Path
) -> None:
    def stopped(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_reranker(recipe_of(settings), tmp_path / "b", told=stopped)
    a = train_reranker(recipe_of(settings), tmp_path / "a")
    b = train_reranker(recipe_of({**settings, "seed": 1}), tmp_path / "b", restart=True)
    one, other = (load_file(m.path / "model.safetensors") for m in (a, b))
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_states_return_what_was_written(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    state = State({"a.b": shared, "c": shared}, {"a.b.exp_avg": shared * 2}, {"step": 3})
    write_state(state, tmp_path / "s")
    found = read_state(tmp_path / "s")
    assert found.notes == {"step": 3}
    assert torch.equal(found.weights["c"], shared)
    assert torch.equal(found.optimiser["a.b.exp_avg"], shared * 2)
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:-4])
    with pytest.raises(ParseError, match="damaged"):
        read_state(tmp_path / "s")


def test_a_step_is_seeded_by_its_number() -> None:
    def of(seed: int, step: int) -> float:
        seed_step(seed, step)
        return float(torch.rand(1))

    assert of(1, 2) == of(1, 2)
    assert len({of(1, 2), of(2, 1), of(1, 3), of(2, 2)}) == 4


def test_a_loss_that_is_no_number_stops(settings: dict, tmp_path: Path) -> None:
    recipe = recipe_of({**settings, "loss_settings": {"temperature": 1e-45}, "loss": "contrastive"})
    with pytest.raises(NonFiniteError, match="loss of step 1"):
        train_reranker(recipe, tmp_path / "m")


def test_settings_of_the_loss_are_checked(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="loss_settings of listnet"):
        train_reranker(recipe_of({**settings, "loss_settings": {"x": 1}}), tmp_path / "m")


def test_a_last_layer_may_stand_still(settings: dict, tmp_path: Path) -> None:
    """A rate of 0 is one, and not the lack of one."""
    recipe = recipe_of({**settings, "head_learning_rate": 0, "steps": 2})
    made = train_reranker(recipe, tmp_path / "m")
    start = start_model(Path(settings["model"]), seed=0, max_length=24, device="cpu")
    learnt = load_file(made.path / "model.safetensors")["classifier.weight"]
    assert torch.equal(learnt, start.state_dict()["0.model.classifier.weight"])


def test_a_recipe_that_failed_before_any_state_may_be_mended(
    settings: dict, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="reads 48 tokens"):
        train_reranker(recipe_of({**settings, "max_length": 64}), tmp_path / "m")
    assert train_reranker(recipe_of({**settings, "steps": 1}), tmp_path / "m").steps == 1


def test_a_query_that_leaves_no_room_is_told_before_the_first_step(
    settings: dict, tmp_path: Path
) -> None:
    row = {"query_id": "long", "query": "cat " * 20, "positives": [{"doc_id": "cat0", "grade": 1}],
           "negatives": [{"doc_id": "cat1", "rank": 1, "score": 1.0}]}  # fmt: skip
    other = {**row, "query_id": "short", "query": "cat"}
    file, seen = tmp_path / "examples.jsonl", []
    file.write_text(f"{json.dumps(other)}\n{json.dumps(row)}")
    recipe = recipe_of({**settings, "examples": str(file), "queries": 1, "max_length": 20})
    with pytest.raises(DataError, match="'long' is read as"):
        train_reranker(recipe, tmp_path / "m", told=seen.append)
    assert not seen


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mined = [Mined(str(n), "cat", (Positive("a", 1),), (Negative("b", 1, 1.0),)) for n in range(50)]
    calls, make = [], np.random.default_rng

    def counted(seed: Any) -> np.random.Generator:
        calls.append(seed)
        return make(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    drawing = Drawing(mined, 987, 5, 1, 1)
    asked = [one.query_id for step in range(20) for one, _ in drawing.step(step)]
    for epoch in (0, 1):
        order = make([987, epoch]).permutation(50)
        assert asked[50 * epoch : 50 * (epoch + 1)] == [str(n) for n in order]
    assert [seed for seed in calls if len(seed) == 2] == [[987, 0], [987, 1]]


# Material -----------------------------------------------------------------------------------------


def test_what_is_learnt_is_of_the_first_stage(settings: dict) -> None:
    material = gather(recipe_of(settings))
    train = load_dataset(settings["data"], "train")
    run = BM25Index.build(train.corpus).searcher(k=8)(train.queries)
    judged = train.qrels.to_dict()
    assert len(material.mined) == 12
    for one in material.mined:
        hits = set(run[one.query_id].doc_ids)
        assert {n.doc_id for n in one.negatives} == hits - set(judged[one.query_id])
        assert {p.doc_id for p in one.positives} == set(judged[one.query_id])
    shallow = {"positives_from": "retrieved", "depth": 5, "ranks": [1, 5]}
    near = gather(recipe_of({**settings, **shallow}))
    for one in near.mined:
        assert all(p.rank is not None and p.rank <= 5 for p in one.positives)
    few = gather(recipe_of({**settings, "dev_queries": 2}))
    assert len(few.task.qrels) == len(few.task.run) == 2
    assert few.facts["dev"]["queries"] == 2


def test_splits_must_not_share_queries_and_other_first_stages_are_given(settings: dict) -> None:
    with pytest.raises(DataError, match="learnt from"):
        gather(recipe_of({**settings, "dev": "train"}))
    with pytest.raises(DataError, match="is an expression"):
        gather(recipe_of({**settings, "first": "rrf(bm25, minilm)"}))

    def backwards(corpus: Corpus) -> Any:
        return BM25Index.build(corpus, k1=0.1).searcher(k=3)

    material = gather(recipe_of({**settings, "first": "other"}), backwards)
    assert material.task.run.n_hits == 3 * 4


def test_hits_that_are_no_documents_are_told(settings: dict) -> None:
    def passages(corpus: Corpus) -> Any:
        renamed = Corpus.from_texts({f"{doc}#0": text for doc, text in
                                     zip(corpus.ids, corpus.contents(), strict=True)})  # fmt: skip
        return BM25Index.build(renamed).searcher(k=8)

    with pytest.raises(DataError, match=r"#0', which is not a document"):
        gather(recipe_of({**settings, "first": "passages"}), passages)


def test_examples_of_ones_own(settings: dict, tmp_path: Path) -> None:
    row = {"query_id": "new", "query": "cat", "positives": [{"doc_id": "cat0", "grade": 2}],
           "negatives": [{"doc_id": "cat1", "rank": 1, "score": 1.0}]}  # fmt: skip
    file = tmp_path / "examples.jsonl"
    file.write_text(json.dumps(row))
    assert gather(recipe_of({**settings, "examples": str(file)})).mined == read_mined(file)
    row["positives"] = [{"doc_id": "horse", "grade": 1}]
    file.write_text(json.dumps(row))
    with pytest.raises(DataError, match="'horse'"):
        gather(recipe_of({**settings, "examples": str(file)}))


# Command line -------------------------------------------------------------------------------------


def test_train_then_rerank(settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(json.dumps(settings))  # JSON is YAML
    found = CliRunner().invoke(app, ["train", "reranker", "tiny.yaml", "--set", "steps=4"])
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("tiny: dev nDCG@10 ")
    assert "step 4 of 4" in found.stderr
    dev = load_dataset(settings["data"], "dev")
    run = BM25Index.build(dev.corpus).searcher(k=8)(dev.queries)
    run.write("first.run")
    asked = ["rerank", "first.run", "--corpus", settings["data"], "--method", "cross-encoder"]
    rows = zip(dev.queries.ids, dev.queries.texts, strict=True)
    lines = [json.dumps({"_id": query, "text": text}) for query, text in rows]
    Path("q.jsonl").write_text("\n".join(lines))
    asked += ["--queries", "q.jsonl", "--model", "tiny", "-o", "second.run"]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    card = json.loads(Path("tiny/training.json").read_text())
    figure = evaluate(Run.read("second.run"), dev.qrels, "nDCG@10").mean["nDCG@10"]
    assert figure == pytest.approx(card["result"]["figure"], abs=1e-6)


def test_negatives_are_written(settings: dict, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings))
    asked = ["train", "negatives", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "e.jsonl")]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    assert "12 queries, 48 relevant documents, 48 negatives" in found.stdout
    assert read_mined(tmp_path / "e.jsonl") == gather(recipe_of(settings)).mined
    assert CliRunner().invoke(app, asked).exit_code == 1


@pytest.mark.parametrize("change", ["steps", "steps=1=2", "a b=1"])
def test_changes_that_are_none(settings: dict, tmp_path: Path, change: str) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings))
    asked = ["train", "reranker", str(tmp_path / "tiny.yaml"), "-o", str(tmp_path / "m")]
    found = CliRunner().invoke(app, [*asked, "--set", change])
    assert found.exit_code in (1, 2)
    assert not (tmp_path / "m").exists()


def test_losses_of_recipes_are_named_near() -> None:
    with pytest.raises(UnknownNameError, match="lambda"):
        RerankerRecipe("m", "d", steps=1, loss="lamda")
