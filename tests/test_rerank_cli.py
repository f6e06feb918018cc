"""``retrievekit rerank`` on a model folder, and folders that are not loaded."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from retrievekit import registry
from retrievekit.data.dataset import Dataset
from retrievekit.errors import DataError, MissingDataError
from retrievekit.index.bm25 import BM25Index
from retrievekit.language.causal import CausalModel
from retrievekit.rerank.attention import AttentionReranker
from retrievekit.rerank.cross_encoder import CrossEncoderReranker
from retrievekit.rerank.heads import Heads, examples_of, find_heads
from retrievekit.run import Run
from retrievekit.testing import toy_corpus
from retrievekit.trace import counting
from tests.test_cli_verbs import call
from tests.tiny_classifiers import save_classifier
from tests.tiny_decoders import decoder_of, one_thread, tokenizer_of  # noqa: F401

TOY = toy_corpus()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with an index and a first run, and a model folder."""
    root = tmp_path_factory.mktemp("rerank")
    Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(root / "toy")
    index = BM25Index.build(TOY.corpus, root / "toy.index")
    index.searcher(k=6)(TOY.queries).write(root / "bm25.run")
    tokenizer = tokenizer_of("bytes")
    decoder_of("qwen3", len(tokenizer)).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    return root


def test_a_run_is_reranked(root: Path, tmp_path: Path) -> None:
    first, out = root / "bm25.run", tmp_path / "icr.run"
    queries = root / "toy" / "queries.jsonl"
    done = call("rerank", first, "--corpus", root / "toy.index", "--queries", queries,
                "--model", root / "model", "-k", "4", "-o", out)  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: ")
    run = Run.read(first, TOY.queries)
    expected = AttentionReranker(root / "model", TOY.corpus, k=4)(run)
    found = Run.read(out, TOY.queries)
    assert [hits.doc_ids for hits in found] == [hits.doc_ids for hits in expected]
    assert [step.name for step in found.trace][-1] == "attention"
    again = call("rerank", first, "--data", root / "toy", "--model", root / "model", "-o", out)
    assert again.code == 1
    assert "--overwrite" in again.err
    cut = call("rerank", first, "--data", root / "toy", "--model", root / "model", "-o", out,
               "-k", "2", "--rest", "cut", "--overwrite", "--json")  # fmt: skip
    assert cut.json["hits"] == sum(min(2, len(hits)) for hits in run)


def test_settings_and_heads_reach_the_method(root: Path, tmp_path: Path) -> None:
    heads, out = tmp_path / "heads.json", tmp_path / "icr.run"
    Heads("model", (4, 4), ((2, 1),), (0.5,), "qr", 3).write(heads)
    common = ["rerank", root / "bm25.run", "--data", root / "toy", "--model", root / "model"]
    done = call(*common, "--heads", heads, "--option", "task=qa", "--option", "window=3",
                "--dtype", "float64", "-o", out, "--json")  # fmt: skip
    assert done.code == 0, done.err
    shown = done.json["system"]
    assert "task='qa'" in shown
    assert "window=3" in shown
    assert "(2, 1)" in shown
    for option, problem in (
        (["--option", "tusk=qa"], "did you mean 'task'"),
        (["--option", "layers=[3,9]"], "layers 3 to 9"),
        (["--option", "layers=middle"], "layers are"),
        (["--option", "calibrate=no"], "calibrate"),
        (["--rest", "drop"], "rest"),
        (["--method", "attenton"], "attention"),
        (["--heads", tmp_path / "none.json"], "none.json"),
    ):
        failed = call(*common, *option, "-o", tmp_path / "other.run")
        assert failed.code == 1
        assert problem in failed.err
        assert not (tmp_path / "other.run").exists()


def test_usage_errors(root: Path, tmp_path: Path) -> None:
    first, model = root / "bm25.run", ["--model", root / "model"]
    for arguments in (
        ["--data", root / "toy"],
        ["-o", tmp_path / "x.run"],
        ["-o", tmp_path / "x.run", "--corpus", root / "toy.index"],
        ["-o", tmp_path / "x.run", "--data", root / "toy", "--page", tmp_path / "p.html"],
        ["-o", tmp_path / "x.run", "--data", root / "toy", "--option", "task"],
    ):
        assert call("rerank", first, *model, *arguments).code == 2


def test_a_query_is_explained(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "q.html"
    common = ["rerank", root / "bm25.run", "--data", root / "toy", "--model", root / "model"]
    run = Run.read(root / "bm25.run", TOY.queries)
    query = next(hits.query_id for hits in run if len(hits) > 1)
    shown = call(*common, "-k", "2", "--explain", query)
    assert shown.code == 0, shown.err
    assert all(doc_id in shown.out for doc_id in run[query].doc_ids[:2])
    assert call(*common, "--explain", query, "--page", page).code == 0
    assert page.read_text().startswith("<!doctype html>")
    assert call(*common, "--explain", "nobody").code == 1


def test_every_method_is_named_and_reached(root: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path / "classifier", "bert")
    out = tmp_path / "ce.run"
    common = ["rerank", root / "bm25.run", "--data", root / "toy"]
    common += ["--model", tmp_path / "classifier", "-o", out, "--method", "cross-encoder"]
    done = call(*common, "--option", "max_length=32", "-k", "4", "--json")
    assert done.code == 0, done.err
    run = Run.read(root / "bm25.run", TOY.queries)
    expected = CrossEncoderReranker(tmp_path / "classifier", TOY.corpus, k=4, max_length=32)(run)
    found = Run.read(out, TOY.queries)
    assert [hits.doc_ids for hits in found] == [hits.doc_ids for hits in expected]
    assert "max_length=32" in done.json["system"]
    for option, problem in (
        (["--option", "max_lenght=3"], "did you mean 'max_length'"),
        (["--heads", tmp_path / "heads.json"], "no setting 'heads'"),
        (["--option", "max_length=3", "--option", "max-length=4"], "given twice"),
    ):
        failed = call(*common, "--overwrite", *option)
        assert failed.code == 2
        assert problem in " ".join(failed.err.split())
    shown = " ".join(call("rerank", "--help").out.split())
    assert ", ".join(registry.names("rerank")) in shown


def test_heads_are_found_and_used(root: Path, tmp_path: Path) -> None:
    heads, out = tmp_path / "heads.json", tmp_path / "icr.run"
    common = ["heads", root / "model", "-o", heads, "-k", "6", "-n", "3"]
    done = call(*common, "--data", root / "toy", "--json")
    assert done.code == 0, done.err
    found = Heads.read(heads)
    examples = examples_of(Run.read(root / "bm25.run", TOY.queries), TOY.qrels, TOY.corpus, k=6)
    reranker = AttentionReranker(root / "model")
    assert found == find_heads(reranker, examples, method="qr", n=3)
    assert done.json["heads"] == [list(pair) for pair in found.pairs]
    parts = ["--corpus", root / "toy.index", "--queries", root / "toy" / "queries.jsonl"]
    parts += ["--qrels", root / "toy" / "qrels" / "test.tsv", "--run", root / "bm25.run"]
    again = call(*common, *parts, "--method", "core", "--overwrite", "--examples", "2")
    assert again.code == 0, again.err
    assert again.out.startswith(f"{heads}: 3 heads from 2 queries: ")
    assert Heads.read(heads) == find_heads(reranker, examples[:2], method="core", n=3)
    used = call("rerank", root / "bm25.run", "--data", root / "toy", "--model", root / "model",
                "--heads", heads, "-o", out)  # fmt: skip
    assert used.code == 0, used.err
    assert call(*common, "--data", root / "toy").code == 1  # the file is there
    for lacking in (parts[2:], parts[:2] + parts[4:], parts[:4]):
        assert call(*common, "--overwrite", *lacking).code == 2
    nothing = tmp_path / "none.tsv"
    nothing.write_text("query-id\tcorpus-id\tscore\n")
    failed = call(*common, "--overwrite", *parts[:4], "--qrels", nothing)
    assert failed.code == 1
    assert "no query has both" in failed.err


def test_long_documents_are_cut_and_it_is_told(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = AttentionReranker(root / "model", max_words=3)
    logging.getLogger("retrievekit").propagate = True  # the command line turns it off
    with caplog.at_level(logging.WARNING), counting() as counts:
        found = reranker.rank("cat", ["one two three four", "one two three five", "cat"])
    assert "2 of 3 documents are longer than 3 words" in caplog.text
    assert counts == {"cut documents": 2}
    short = ["one two three", "one two three", "cat"]
    expected = AttentionReranker(root / "model", max_words=None).rank("cat", short)
    assert [(h.index, h.score) for h in found] == [(h.index, h.score) for h in expected]


def test_a_folder_is_the_model_that_was_saved(root: Path) -> None:
    loaded = CausalModel(root / "model", device="cpu")
    assert (loaded.layers, loaded.heads, loaded.limit, loaded.title) == (4, 4, 2048, "model")
    tokenizer = tokenizer_of("bytes")
    given = CausalModel.of(decoder_of("qwen3", len(tokenizer)), tokenizer, "x")
    texts = ["cats purr", "dogs bark"]
    assert AttentionReranker(loaded).rank("cat", texts) == AttentionReranker(given).rank(
        "cat", texts
    )
    wide = CausalModel(root / "model", dtype="float64")
    assert wide.fingerprint != loaded.fingerprint
    assert str(wide.decoder.dtype) == "torch.float64"


def test_folders_that_would_run_something_are_refused(root: Path, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        shutil.copytree(root / "model", tmp_path / name)
        return tmp_path / name

    code = copied("code")
    (code / "modeling.py").write_text("")
    mapped = copied("mapped")
    config = json.loads((mapped / "config.json").read_text())
    (mapped / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    pickled = copied("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    for folder in (code, mapped, pickled):
        with pytest.raises(DataError, match=folder.name):
            AttentionReranker(folder).rank("cat", ["cats"])
    with pytest.raises(MissingDataError):
        AttentionReranker(tmp_path / "nothing").rank("cat", ["cats"])
    with pytest.raises(DataError, match="dtype"):
        CausalModel(code, dtype="int8")
