"""Every verb: what it prints, where it prints it, how it fails."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from retrievekit import _version, registry
from retrievekit.bench import runner
from retrievekit.bench.table import Table
from retrievekit.cli import console
from retrievekit.cli.app import app
from retrievekit.cli.console import Progress, clean, counted
from retrievekit.data.dataset import Dataset
from retrievekit.evaluate.compute import evaluate
from retrievekit.index.bm25 import BM25Index
from retrievekit.run import Run
from retrievekit.testing import toy_corpus

TOY = toy_corpus()


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: str | Path) -> Done:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy collection as a BEIR folder, with its index beside it."""
    root = tmp_path_factory.mktemp("cli")
    Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(root / "toy")
    BM25Index.build(TOY.corpus, root / "toy.index")
    return root


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry.register("encoder", "toy", "retrievekit.testing:ToyEncoder")
    monkeypatch.setattr(runner, "shelf_folder", lambda: tmp_path / "shelf")
    monkeypatch.setattr("retrievekit.bench.systems.shelf_folder", lambda: tmp_path / "shelf")
    yield
    del registry._ENTRIES["encoder"]["toy"]
    log = logging.getLogger("retrievekit")
    log.handlers, log.propagate = [], True


# Help and version ---------------------------------------------------------------------------------

VERBS = ["index", "search", "run", "eval", "bench", "datasets", "verify"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_each_verb_helps_with_an_example(verb: str, flag: str) -> None:
    done = call(verb, flag)
    assert done.code == 0
    assert f"  retrievekit {verb}" in done.out.split("Examples:\n")[1]
    assert "--json" in done.out


def test_the_program_lists_its_verbs() -> None:
    done = call("--help")
    assert done.code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in done.out
    assert call("--version").out == f"retrievekit {_version.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serch", "x"], "No such command 'serch'"),
        (["search"], "Missing argument"),
        (["search", "i", "q", "-k", "0"], "Invalid value for '-k'"),
        (["search", "i", "q", "--nope"], "No such option"),
        (["index", "x"], "Missing option"),
        (["index", "x", "-o", "y", "--bm25", "--encoder", "toy"], "either --bm25 or --encoder"),
        (["index", "x", "-o", "y", "--encoder", "toy", "--k1", "1"], "are BM25's"),
        (["index", "x", "-o", "y", "--engine", "HNSW32"], "name an --encoder too"),
        (["run", "bm25", "-o", "x.run"], "give the queries"),
        (["bench", "x"], "name a --system"),
        (["bench", "-s", "bm25"], "name a data set"),
        (["bench", "x", "-s", "a=bm25", "-s", "a=bm25"], "given twice"),
        (["bench", "x", "-s", "=bm25"], "needs a name"),
        (["datasets", "shw"], "No such command 'shw'"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], says: str) -> None:
    done = call(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert says in " ".join(done.err.replace("│", " ").split())


# index, search, verify ----------------------------------------------------------------------------


def test_index_search_verify(collection: Path, tmp_path: Path) -> None:
    place = tmp_path / "my.index"
    done = call("index", collection / "toy", "-o", place, "--json")
    assert done.code == 0
    assert done.json["documents"] == len(TOY.corpus)
    assert done.json["kind"] == "bm25"
    assert done.json["bytes"] == BM25Index.open(place).n_bytes
    assert done.err == ""

    query = TOY.queries.texts[0]
    expected = BM25Index.build(TOY.corpus).searcher(k=3).search(query)
    found = call("search", place, query, "-k", "3", "--json").json
    assert found["query"] == query
    assert [hit["doc_id"] for hit in found["hits"]] == expected.doc_ids
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert found["hits"][0]["text"] == TOY.corpus[expected.doc_ids[0]].contents

    plain = call("search", place, query, "-k", "3").out
    assert expected.doc_ids[0] in plain.split("\n")[0]
    assert TOY.corpus[expected.doc_ids[0]].text.split()[0] in plain

    for deep in ([], ["--deep"]):
        done = call("verify", place, *deep)
        assert done.code == 0
        assert "as written" in done.out
        report = call("verify", place, *deep, "--json").json
        assert report["ok"] is True
        assert report["deep"] is bool(deep)


def test_index_of_vectors(collection: Path, tmp_path: Path) -> None:
    place = tmp_path / "dense.index"
    assert call("index", collection / "toy", "--encoder", "toy", "-o", place).code == 0
    found = call("search", place, "a cat purrs", "--json").json
    assert found["hits"][0]["doc_id"] == "cats-1"


def test_index_of_one_file_and_settings(collection: Path, tmp_path: Path) -> None:
    corpus = collection / "toy" / "corpus.jsonl"
    call("index", corpus, "-o", tmp_path / "a", "--k1", "1.2", "--b", "0.75")
    call("index", corpus, "-o", tmp_path / "b", "--preset", "lucene")
    call("index", corpus, "-o", tmp_path / "c")
    a, b, c = (BM25Index.open(tmp_path / name).fingerprint for name in "abc")
    assert a == b != c


def test_overwriting_is_asked_for(collection: Path, tmp_path: Path) -> None:
    place = tmp_path / "my.index"
    assert call("index", collection / "toy", "-o", place).code == 0
    before = BM25Index.open(place).manifest_hash
    done = call("index", collection / "toy", "-o", place)
    assert done.code == 1
    assert "--overwrite replaces it" in done.err
    assert BM25Index.open(place).manifest_hash == before
    assert call("index", collection / "toy", "-o", place, "--overwrite").code == 0


def test_nothing_found_is_no_failure(collection: Path) -> None:
    index = collection / "toy.index"
    assert call("search", index, "zzzz").out == "nothing found among 100 documents\n"
    done = call("search", index, "", "--json")
    assert (done.code, done.json) == (0, {"query": "", "hits": []})


def test_texts_cannot_steer_the_terminal(tmp_path: Path) -> None:
    text = "red \x1b[31m alert \x07 \u202e\nnew line\x9b"
    (tmp_path / "docs.jsonl").write_text(json.dumps({"_id": "d\x1b1", "text": text}) + "\n")
    call("index", tmp_path / "docs.jsonl", "-o", tmp_path / "i")
    out = call("search", tmp_path / "i", "alert").out
    assert "alert" in out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert call("search", tmp_path / "i", "alert", "--json").json["hits"][0]["text"] == text


def test_damage_is_found(collection: Path, tmp_path: Path) -> None:
    place = tmp_path / "my.index"
    call("index", collection / "toy", "-o", place)
    victim = max(
        (f for f in place.rglob("segments/*/*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    done = call("verify", place, "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    bad = [file["name"] for file in done.json["files"] if not file["ok"]]
    assert bad == [victim.relative_to(place).as_posix()]
    assert victim.name in done.err
    assert "build the index again" in done.err

    (place / "CURRENT").write_bytes(b"rubbish")
    for verb in (["verify", place], ["search", place, "cat"]):
        done = call(*verb)
        assert done.code == 1
        assert done.out == ""
        assert done.err.startswith("error: ")


def test_missing_index_names_near_ones(collection: Path, tmp_path: Path) -> None:
    for verb in (["search", collection / "toy.indx", "cat"], ["verify", collection / "toy.indx"]):
        done = call(*verb)
        assert done.code == 1
        assert "no index at" in done.err
        assert f"did you mean {collection / 'toy.index'}?" in done.err
    assert "retrievekit index SOURCE -o" in call("search", tmp_path / "no", "cat").err
    done = call("search", tmp_path, "cat")  # a folder, but no index
    assert done.code == 1
    assert done.err.startswith("error: ")


def test_unknown_source_names_near_ones(tmp_path: Path) -> None:
    done = call("index", "scifat", "-o", tmp_path / "i")
    assert done.code == 1
    assert "no data set named 'scifat'; did you mean 'scifact'" in done.err
    assert not (tmp_path / "i").exists()


def test_tolerance_is_asked_for(tmp_path: Path) -> None:
    docs = tmp_path / "docs.jsonl"
    docs.write_bytes(b'{"_id": 7, "text": "caf\xe9 au lait"}\n')
    done = call("index", docs, "-o", tmp_path / "i")
    assert (done.code, "docs.jsonl:1" in done.err) == (1, True)
    done = call("index", docs, "-o", tmp_path / "i", "--number-ids", "--errors", "replace")
    assert done.code == 0
    assert "replaced by U+FFFD" in done.err
    assert call("search", tmp_path / "i", "lait", "--json").json["hits"][0]["doc_id"] == "7"
    done = call("index", docs, "-o", tmp_path / "j", "--errors", "ignore")
    assert (done.code, "'ignore' is not one of" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (['{"_id": 7, "text": "x"}'], "docs.jsonl:1: the id '_id' is 7 (int)"),
        (['{"_id": 7, "text": "x"}'], " --number-ids"),
        (['{"_id": "a", "text": "caf\\ud800"}'], " --errors replace"),
        (['{"_id": "a", "text": "x"}', '{"_id": "a", "text": "y"}'], "'a' (lines 1 and 2)"),
        (
            ['{"_id": "a", "text": "x"}', '{"_id": "a", "text": "y"}'],
            "--on-duplicate first or last",
        ),
        (
            ['{"_id": "a", "text": "x", "n": 1}', '{"_id": "b", "text": "y", "n": "one"}'],
            " --metadata json or drop",
        ),
    ],
)
def test_refused_documents_name_the_option_that_takes_them(
    tmp_path: Path, rows: list[str], says: str
) -> None:
    (tmp_path / "docs.jsonl").write_text("\n".join(rows))
    done = call("index", tmp_path / "docs.jsonl", "-o", tmp_path / "i")
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.tsv", "docs.csv", "toy"])
def test_nothing_to_index_is_an_error(tmp_path: Path, name: str) -> None:
    Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(tmp_path / "toy")
    (tmp_path / "toy" / "corpus.jsonl").write_text("")
    (tmp_path / "docs.jsonl").write_text("\n")
    (tmp_path / "docs.tsv").write_text("id\ttext\n")
    (tmp_path / "docs.csv").write_text("")
    done = call("index", tmp_path / name, "-o", tmp_path / "i")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"error: {tmp_path / name}: no document is in it, so there is nothing to index\n"
    )
    assert not (tmp_path / "i").exists()


def test_byte_order_marks_name_the_option(tmp_path: Path) -> None:
    docs = tmp_path / "docs.jsonl"
    docs.write_bytes(b'\xef\xbb\xbf{"_id": "a", "text": "cats"}\n')
    done = call("index", docs, "-o", tmp_path / "i")
    assert (done.code, done.out) == (1, "")
    assert "docs.jsonl:1: the file begins with a byte-order mark" in done.err
    assert "--errors replace" in done.err
    done = call("index", docs, "-o", tmp_path / "i", "--errors", "replace")
    assert done.code == 0
    assert "1 with a byte-order mark at the start" in done.err


def test_equal_documents_count_once_and_others_by_choice(tmp_path: Path) -> None:
    docs, place = tmp_path / "docs.jsonl", tmp_path / "i"
    docs.write_text('{"_id": "a", "text": "cats"}\n' * 2)
    done = call("index", docs, "-o", place, "--json")
    assert (done.code, done.json["documents"]) == (0, 1)
    assert "1 left out as word-for-word repetitions" in done.err
    docs.write_text('{"_id": "a", "text": "cats"}\n{"_id": "a", "text": "dogs"}\n')
    for choice, text in (("first", "cats"), ("last", "dogs")):
        done = call("index", docs, "-o", place, "--overwrite", "--on-duplicate", choice)
        assert done.code == 0
        assert call("search", place, text, "--json").json["hits"][0]["text"] == text


def test_only_an_index_is_replaced(collection: Path, tmp_path: Path) -> None:
    corpus = collection / "toy" / "corpus.jsonl"
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        for arguments in ([], ["--overwrite"]):
            done = call("index", corpus, "-o", place, *arguments)
            assert done.code == 1
            assert "an index is there already" not in done.err
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["nowhere.jsonl", "./nowhere", "nowhere/", "/no/where"])
def test_a_path_that_is_not_there_is_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.run").write_text("1 Q0 a 1 1.0 t\n")
    for arguments in (
        ["index", name, "-o", "i"],
        ["eval", "x.run", name],
        ["bench", name, "-s", "bm25"],
        ["run", "bm25", "--data", name, "-o", "y.run"],
    ):
        done = call(*arguments)
        assert (done.code, done.err) == (1, f"error: no such file or folder: {name}\n")
    for verb in (["search", name, "x"], ["run", name, "--queries", "x.run", "-o", "y.run"]):
        assert call(*verb).code == 1


def test_a_file_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"_id": "a", "text": "x"}\n')
    for arguments in (
        ["search", tmp_path / "docs.jsonl", "x"],
        ["verify", tmp_path / "docs.jsonl"],
    ):
        done = call(*arguments)
        assert done.code == 1
        assert "docs.jsonl is a file; an index is a folder" in done.err


def test_bad_documents_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": "b"}\n')
    done = call("index", tmp_path / "docs.jsonl", "-o", tmp_path / "i")
    assert done.code == 1
    assert "docs.jsonl:2" in done.err


# run, eval ----------------------------------------------------------------------------------------


def test_run_and_eval(collection: Path, tmp_path: Path) -> None:
    queries = collection / "toy" / "queries.jsonl"
    qrels = collection / "toy" / "qrels" / "test.tsv"
    one, two, three = (tmp_path / f"{n}.run" for n in "abc")
    done = call("run", collection / "toy.index", "--queries", queries, "-o", one, "--tag", "mine")
    assert done.code == 0
    assert done.out.startswith(f"{one}: {len(TOY.queries)} queries, ")
    assert one.read_text().split("\n")[0].endswith("mine")
    assert call("run", "bm25", "--data", collection / "toy", "-o", two).code == 0
    same = f"index('{collection / 'toy.index'}')"
    assert call("run", same, "--queries", queries, "-o", three, "--json").json["hits"] > 0
    assert Run.read(one) == Run.read(two) == Run.read(three)

    expected = evaluate(Run.read(one), TOY.qrels, ["nDCG@10", "AP(rel=2)"])
    found = call("eval", one, qrels, "-m", "nDCG@10", "-m", "AP(rel=2)", "--json").json
    assert found["measures"] == dict(expected.mean)
    assert "per_query" not in found
    full = call("eval", one, collection / "toy", "-m", "nDCG@10", "--per-query", "--json").json
    assert full["per_query"]["nDCG@10"] == expected.per_query("nDCG@10")

    lines = call("eval", one, qrels, "-m", "nDCG@10", "--per-query").out.splitlines()
    assert lines[-1] == f"nDCG@10\tall\t{expected.mean['nDCG@10']:.4f}"
    assert len(lines) == len(TOY.qrels) + 1
    assert call("eval", one, qrels).out.split()[0::3] == ["nDCG@10", "R@100", "RR@10"]


def test_compat_is_handed_on(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "x.run").write_text("1 Q0 a 1 1.0 t\n1 Q0 b 2 1.0 t\n")
    (tmp_path / "x.qrels").write_text("1 0 a 1\n")
    arguments = ["eval", tmp_path / "x.run", tmp_path / "x.qrels", "-m", "RR"]
    assert call(*arguments).out.split()[-1] == "0.5000"  # trec_eval: the larger id first
    assert call(*arguments, "--compat", "anserini").out.split()[-1] == "1.0000"
    done = call(*arguments, "--compat", "trek")
    assert done.code == 2
    assert "'trek' is not one of 'trec', 'anserini'" in done.err


@pytest.mark.parametrize("packed", [False, True])
def test_swapped_run_and_judgements_are_told(tmp_path: Path, packed: bool) -> None:
    run, qrels = tmp_path / ("x.run.gz" if packed else "x.run"), tmp_path / "x.qrels"
    text = b"1 Q0 a 1 1.0 t\n"
    run.write_bytes(gzip.compress(text) if packed else text)
    qrels.write_text("1 0 a 1\n")
    done = call("eval", qrels, run, "-m", "RR")
    assert done.code == 1
    assert f"looks like a run; first the run: eval {run} {qrels}" in done.err
    done = call("eval", run, run, "-m", "RR")
    assert (done.code, "first the run" in done.err) == (1, False)


def test_missing_and_unjudged_queries_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.run").write_text("1 Q0 a 1 1.0 t\n3 Q0 a 1 1.0 t\n")
    (tmp_path / "x.qrels").write_text("1 0 a 1\n2 0 a 1\n")
    done = call("eval", tmp_path / "x.run", tmp_path / "x.qrels", "-m", "RR")
    assert done.out.split()[-1] == "0.5000"
    assert "1 of 2 judged queries have no hits: they count 0" in done.err
    assert "1 queries of the run are not judged" in done.err


def test_own_documents_of_a_data_set_are_dropped_and_told(tmp_path: Path) -> None:
    Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(tmp_path / "toy")
    (tmp_path / "toy" / "qrels" / "test.tsv").write_text("q1\ta\t1\n")
    (tmp_path / "x.run").write_text("q1 Q0 q1 1 2.0 t\nq1 Q0 a 2 1.0 t\n")
    arguments = ["eval", tmp_path / "x.run", tmp_path / "toy", "-m", "RR"]
    done = call(*arguments)
    assert (done.out.split()[-1], done.err) == ("0.5000", "")
    (tmp_path / "toy" / "dataset.yaml").write_text("own_document: equal\n")
    done = call(*arguments)
    assert done.out.split()[-1] == "1.0000"
    assert done.err == (
        f"{tmp_path / 'toy'} leaves out the query's own document (rule 'equal'): 1 hit dropped\n"
    )
    assert call(*arguments, "--json").json["measures"] == {"RR": 1.0}


@pytest.mark.parametrize(
    ("run", "qrels"),
    [
        (b"\xef\xbb\xbfq Q0 a 1 1 t\n", b"q 0 a 1\n"),
        (b"q Q0 a 1 1 t\n", b"\xef\xbb\xbfq 0 a 1\n"),
        (b"q Q0 a 1 1 t\nq Q0 a 2 1 t\n", b"q 0 a 1\n"),
    ],
)
def test_eval_advises_nothing_that_it_has_no_option_for(
    tmp_path: Path, run: bytes, qrels: bytes
) -> None:
    Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(tmp_path / "toy")
    (tmp_path / "x.run").write_bytes(run)
    (tmp_path / "toy" / "qrels" / "test.tsv").write_bytes(qrels)
    for judged in (tmp_path / "toy", tmp_path / "toy" / "qrels" / "test.tsv"):
        done = call("eval", tmp_path / "x.run", judged)
        assert (done.code, done.out) == (1, "")
        assert "byte-order mark" in done.err or "keep one" in done.err
        assert "errors=" not in done.err


@pytest.mark.parametrize(
    ("run", "qrels", "measure", "says"),
    [
        ("nowhere.run", "x.qrels", "RR", "nowhere.run"),
        ("x.run", "nowhere.qrels", "RR", "no such file or folder: nowhere.qrels"),
        ("x.run", "nowhere", "RR", "no data set named"),
        ("bad.run", "x.qrels", "RR", "bad.run:1"),
        ("x.run", "x.qrels", "nDCC@10", "no measure named 'nDCC@10'; did you mean 'nDCG'"),
        ("x.run", "x.qrels", "P", "P needs a cutoff"),
        ("x.run", "other.qrels", "RR", "not one of the run's 1 queries is judged"),
        ("x.run", "empty.qrels", "RR", "judge no query"),
        ("empty.run", "x.qrels", "RR", "empty.run: the run has no hits; is it the right file"),
        ("comment.run", "x.qrels", "RR", "comment.run: the run has no hits"),
    ],
)
def test_eval_fails_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, qrels: str, measure: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.run").write_text("1 Q0 a 1 1.0 t\n")
    Path("bad.run").write_text("1 Q0 a\n")
    Path("x.qrels").write_text("1 0 a 1\n")
    Path("other.qrels").write_text("9 0 a 1\n")
    Path("empty.qrels").write_text("")
    Path("empty.run").write_text("")
    Path("comment.run").write_text("# nothing\n\n")
    done = call("eval", run, qrels, "-m", measure)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert says in done.err
    assert "Traceback" not in done.err


def test_run_refuses(collection: Path, tmp_path: Path) -> None:
    queries = collection / "toy" / "queries.jsonl"
    out = tmp_path / "x.run"
    out.write_text("precious")
    for arguments, says in (
        (["run", collection / "toy.index", "--queries", queries, "-o", out], "--overwrite"),
        (["run", collection / "toy.index", "--queries", queries, "-o", tmp_path], "is a folder"),
        (["run", "bm25", "--queries", queries, "-o", tmp_path / "no" / "x"], "no such folder"),
        (["run", "bm25", "--queries", queries, "-o", tmp_path / "y"], "no documents are given"),
        (["run", "bm52", "--data", collection / "toy", "-o", tmp_path / "y"], "'bm25'"),
        (["run", "top(3)", "--data", collection / "toy", "-o", tmp_path / "y"], "from queries"),
    ):
        done = call(*arguments)
        assert done.code in (1, 2)
        assert says in " ".join(done.err.split())
    assert out.read_text() == "precious"
    assert list(tmp_path.glob("y*")) == []
    assert (
        call(
            *["run", collection / "toy.index", "--queries", queries, "-o", out, "--overwrite"]
        ).code
        == 0
    )


def test_run_over_no_queries(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    done = call(
        "run", collection / "toy.index", "--queries", tmp_path / "none.jsonl", "-o", tmp_path / "x"
    )
    assert (done.code, (tmp_path / "x").read_text()) == (0, "")
    assert "0 queries, 0 hits" in done.out


# bench --------------------------------------------------------------------------------------------


def test_bench(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["bench", collection / "toy", "-s", "bm25", "-s", "both=rrf(bm25, toy)"]
    arguments += ["-m", "nDCG@10", "--baseline", "bm25", "--output", out]
    done = call(*arguments, "--json")
    assert done.code == 0
    table = Table.from_dict(done.json)
    assert table.systems == ("bm25", "both")
    assert table.measures == ("nDCG@10",)
    assert table.cell("both").contrasts
    assert Table.from_dict(json.loads((out / "table.json").read_text())) == table
    assert f"written to {out}" in done.err

    done = call(*arguments)
    assert done.out.startswith("system  nDCG@10")
    assert "Holm over 1 comparison" in done.out
    assert call(*arguments, "--format", "csv").out.startswith("dataset,system,measure,value")
    assert call(*arguments, "--format", "markdown").out.startswith("| system | nDCG@10")


def test_bench_from_yaml_and_options_win(collection: Path, tmp_path: Path) -> None:
    config = tmp_path / "bench.yaml"
    config.write_text(
        f"systems: {{a: bm25, b: bm25(k1=2)}}\ndata: {collection / 'toy'}\nmeasures: [AP]\n"
    )
    assert Table.from_dict(call("bench", "--config", config, "--json").json).measures == ("AP",)
    table = Table.from_dict(
        call("bench", "--config", config, "-m", "RR", "-s", "toy", "--json").json
    )
    assert (table.measures, table.systems) == (("RR",), ("toy",))
    config.write_text("systems: {a: bm25}\ndata: x\nbaselin: a\n")
    done = call("bench", "--config", config)
    assert done.code == 1
    assert "bench.yaml:3: no setting named 'baselin'; did you mean 'baseline'?" in done.err


def test_bench_with_a_failure_is_1_and_prints_the_rest(collection: Path) -> None:
    done = call("bench", collection / "toy", "-s", "bm25", "-s", "bm25(k9=1)", "--json")
    assert done.code == 1
    table = Table.from_dict(done.json)
    assert table.cell("bm25").values
    assert "'k9' (did you mean" in table.cell("bm25(k9=1)").error
    assert "error: bm25(k9=1) failed on toy/test" in done.err


def test_bench_looks_names_up_before_it_reads_data(collection: Path) -> None:
    done = call("bench", "beir/scifact", "-s", "bm25", "-s", "x=rrf(bm25, bm25 >> tip(1))")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no stage named 'tip'; did you mean 'top'?")
    assert done.err.endswith("^ column 19\n")
    done = call("bench", "beir/scifact", "-s", "toy.index")
    assert "no stage named 'toy.index'; " in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-s", "rrf(bm25"], "^ column 9"),
        (["-s", "bm25", "--baseline", "bm26"], "no system named 'bm26'; did you mean 'bm25'?"),
        (["-s", "bm25", "-m", "nDCC"], "no measure named"),
    ],
)
def test_bench_refuses(collection: Path, arguments: list[str], says: str) -> None:
    done = call("bench", collection / "toy", *arguments)
    assert (done.code, done.out) == (1, "")
    assert says in done.err


# datasets -----------------------------------------------------------------------------------------


def test_datasets() -> None:
    listed = call("datasets", "--json").json
    assert listed == call("datasets", "list", "--json").json
    names = [entry["name"] for entry in listed]
    assert {"stdlib", "beir/scifact", "beir/robust04"} <= set(names)
    lines = call("datasets").out.splitlines()
    assert len(lines) == len(names) + 1
    scifact = call("datasets", "show", "scifact", "--json").json
    assert scifact["documents"] == 5183
    assert scifact["splits"]["test"] == {"queries": 300, "judgements": 339}
    assert "5183" in call("datasets", "show", "BeIR/scifact").out
    done = call("datasets", "show", "scifat")
    assert done.code == 1
    assert "did you mean 'scifact'" in done.err


def test_fetching_offline_says_what_to_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("RETRIEVEKIT_DATA", raising=False)
    done = call("datasets", "fetch", "beir/robust04")
    assert (done.code, done.out) == (1, "")
    assert "corpus.jsonl" in done.err
    assert call("datasets", "fetch", "stdlib").out == "stdlib: built in, nothing to fetch\n"


# Errors, signals, progress ------------------------------------------------------------------------


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RETRIEVEKIT_TRACEBACK", "1")
    done = call("search", tmp_path / "no", "cat")
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("error: no index at")
    monkeypatch.setenv("RETRIEVEKIT_TRACEBACK", "0")
    assert "Traceback" not in call("search", tmp_path / "no", "cat").err


@pytest.mark.parametrize(
    ("raised", "code", "err"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (
            PermissionError(13, "Permission denied", "x.index"),
            1,
            "error: x.index: Permission denied\n",
        ),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
    ],
)
def test_what_ends_a_verb(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, err: str
) -> None:
    def fail(path: str) -> None:
        raise raised

    monkeypatch.setattr("retrievekit.cli.sources.opened", fail)
    monkeypatch.setattr("retrievekit.cli.app.drop_stdout", lambda: None)
    done = call("search", "x.index", "cat")
    assert (done.code, done.out, done.err) == (code, "", err)


def test_defects_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("retrievekit.cli.sources.opened", fail)
    with pytest.raises(ZeroDivisionError):
        call("search", "x.index", "cat")


def test_warnings_of_the_library_reach_stderr(
    monkeypatch: pytest.MonkeyPatch, collection: Path
) -> None:
    real = BM25Index.search

    def warning(*args: Any, **kwargs: Any) -> Run:
        logging.getLogger("retrievekit.kernels").warning("compiling kernels")
        logging.getLogger("retrievekit.kernels").info("a detail")
        return real(*args, **kwargs)

    monkeypatch.setattr(BM25Index, "search", warning)
    for _ in range(2):  # the handler is put in place once
        done = call("search", collection / "toy.index", "cat", "--json")
        assert done.err == "warning: compiling kernels\n"
        assert done.json["hits"]


def test_progress_only_on_terminals_and_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io
    import time

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for stream, patience, shown in (
        (io.StringIO(), 0.0, False),
        (Terminal(), 60.0, False),
        (Terminal(), 0.0, True),
    ):
        monkeypatch.setattr(console, "_PATIENCE", patience)
        with Progress(stream) as progress:
            progress("indexing [docs]", 0, 10)
            deadline = time.monotonic() + (10 if shown else 0.2)
            while time.monotonic() < deadline and "indexing [docs]" not in stream.getvalue():
                progress("indexing [docs]", 3, 10)
                time.sleep(0.01)
        assert ("indexing [docs]" in stream.getvalue()) is shown


def test_small_words() -> None:
    assert [counted(n, "query") for n in (0, 1, 1200)] == ["0 queries", "1 query", "1,200 queries"]
    assert counted(2, "document") == "2 documents"
    assert clean("a\tb\n\n c\x1b[0m") == "a b c [0m"
