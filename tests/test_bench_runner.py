"""`benchmark` on a toy collection: figures as `evaluate` finds them, times, failures, files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrievekit import registry
from retrievekit.bench import runner
from retrievekit.bench.runner import benchmark, file_name, hardware
from retrievekit.bench.systems import IndexShelf, indexes_of, make_encoder
from retrievekit.bench.table import Table
from retrievekit.cache import cached
from retrievekit.config import resolve
from retrievekit.corpus import Corpus
from retrievekit.data.dataset import Dataset, DatasetProperties, drop_own
from retrievekit.errors import (
    DataError,
    ExpressionError,
    UnknownMeasureError,
    UnknownNameError,
)
from retrievekit.evaluate.compute import evaluate
from retrievekit.evaluate.significance import compare
from retrievekit.fuse import rrf
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage
from retrievekit.testing import ToyEncoder, toy_corpus

TOY = toy_corpus()


@pytest.fixture(autouse=True)
def toy_encoder() -> Iterator[None]:
    registry.register("encoder", "toy", "retrievekit.testing:ToyEncoder")
    yield
    del registry._ENTRIES["encoder"]["toy"]


@pytest.fixture(autouse=True)
def own_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "shelf_folder", lambda: tmp_path / "shelf")


@pytest.fixture
def toy() -> Dataset:
    return Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels, notes=["toy: made by hand"])


# Figures ------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_parts(toy: Dataset) -> None:
    table = benchmark(
        ["bm25", "toy", "rrf(bm25, toy)"], [toy], ["nDCG@10", "AP"], baseline="bm25", depth=50
    )
    bm25 = BM25Index.build(TOY.corpus).searcher(k=50)
    dense = DenseIndex.build(TOY.corpus, ToyEncoder()).searcher(k=50)
    plain = {"bm25": bm25, "toy": dense, "rrf(bm25, toy)": rrf(bm25, dense)}
    runs = {name: stage(TOY.queries).top(50) for name, stage in plain.items()}
    for name, run in runs.items():
        expected = evaluate(run, TOY.qrels, ["nDCG@10", "AP", "Judged@10"])
        cell = table.cell(name)
        assert cell.values == {m: expected.mean[m] for m in ("nDCG@10", "AP")}
        assert cell.judged == expected.mean["Judged@10"]
        assert cell.fingerprint == plain[name].fingerprint
    for measure in ("nDCG@10", "AP"):
        expected_contrasts = compare(runs, TOY.qrels, measure, baseline="bm25")
        for name in ("toy", "rrf(bm25, toy)"):
            assert table.cell(name).contrasts[measure] == expected_contrasts[name]
    assert table.cell("bm25").contrasts == {}
    assert table.comparisons == 2
    (info,) = table.datasets
    assert (info.n_documents, info.n_queries) == (len(TOY.corpus), len(TOY.qrels))
    assert (info.corpus_hash, info.qrels_hash) == (TOY.corpus.content_hash, TOY.qrels.content_hash)
    assert info.notes == ("made by hand",)


def test_times_and_sizes(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "ALONE_QUERIES", 4)
    table = benchmark(["bm25", "toy", "rrf(bm25, toy)"], [toy], baseline="bm25")
    bm25, dense, both = (table.cell(name) for name in table.systems)
    for cell in (bm25, dense, both):
        assert cell.ms_per_query is not None
        assert cell.ms_alone is not None
        assert cell.n_alone == 4
    # Fused systems are charged for their arms, although those ran for the others.
    assert both.ms_per_query >= 0.9 * (bm25.ms_per_query + dense.ms_per_query)
    assert both.index_bytes == bm25.index_bytes + dense.index_bytes
    assert bm25.index_seconds > 0
    again = benchmark(["bm25"], [toy]).cell("bm25")
    assert again.index_seconds is None  # it was on the shelf
    assert again.values == bm25.values


def test_nothing_is_said_of_the_time_of_a_disk_cache(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = BM25Index.build(TOY.corpus).searcher()
    systems = {"cached": cached(searcher, tmp_path / "answers"), "plain": searcher}
    monkeypatch.setattr(runner, "ALONE_QUERIES", 3)  # so that no warm-up asks all queries
    searched: list[int] = []
    search = BM25Index.search
    monkeypatch.setattr(
        BM25Index, "search", lambda *a, **k: (searched.append(len(a[1])), search(*a, **k))[1]
    )
    for _ in range(2):
        searched.clear()
        table = benchmark(systems, [toy])
        assert len(TOY.queries) in searched  # the plain one is really asked, also the second time
        assert table.cell("cached").ms_per_query is None
        assert table.cell("cached").ms_alone is None
        assert table.cell("plain").ms_per_query is not None
        assert table.cell("cached").values == table.cell("plain").values


def test_stages_functions_and_expressions(toy: Dataset) -> None:
    ready = BM25Index.build(TOY.corpus).searcher()
    table = benchmark(
        {
            "text": "bm25",
            "stage": ready,
            "function": lambda data: BM25Index.build(data.corpus).searcher(),
        },
        toy,  # one data set need not stand in a list
    )
    values = [table.cell(name).values for name in table.systems]
    assert values[0] == values[1] == values[2]
    assert benchmark("bm25", [toy]).cell("bm25").values == values[0]


# Own documents ------------------------------------------------------------------------------------


def test_own_documents_are_dropped_and_made_up_for(tmp_path: Path) -> None:
    texts = {f"d{i}": f"word{i} shared" for i in range(6)}
    queries = Queries.from_texts({f"d{i}_x": f"word{i} shared" for i in range(3)})
    qrels = Qrels.from_dict({f"d{i}_x": {f"d{i}": 1, "d5": 1} for i in range(3)})
    properties = DatasetProperties(own_document="before-underscore")
    data = Dataset("own", Corpus.from_texts(texts), queries, qrels, properties)
    table = benchmark(["bm25"], [data], ["R@3", "NumRet"], depth=3, output=tmp_path / "out")
    run = Run.read(tmp_path / "out" / "runs" / "own" / "bm25.run")
    expected = drop_own(BM25Index.build(data.corpus).searcher(k=4)(queries), "before-underscore")
    assert [hits.doc_ids for hits in run] == [hits.doc_ids for hits in expected]
    assert all(len(hits) == 3 for hits in run)
    assert not any(f"{hits.query_id[:2]}" in hits.doc_ids for hits in run)
    # Of two relevant documents one is the query's own and cannot be found any more.
    assert table.cell("bm25").values["R@3"] == 0.5
    assert "own document is dropped" in str(table)


def test_depth_cuts(toy: Dataset) -> None:
    ready = DenseIndex.build(TOY.corpus, ToyEncoder()).searcher(k=50)
    systems = {"toy": "toy", "toy(k=2)": "toy(k=2)", "ready": ready}
    found = benchmark(systems, [toy], ["NumRet"], depth=3)
    n = len(TOY.qrels)
    assert found.cell("ready").values["NumRet"] == 3 * n
    assert found.cell("toy").values["NumRet"] == 3 * n
    assert found.cell("toy(k=2)").values["NumRet"] == 2 * n


# Failures -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failing(Stage[Queries, Run]):
    """Fails with whatever it is told."""

    what: str
    takes = Queries
    gives = Run

    def apply(self, batch: Queries) -> Run:
        raise {"typed": DataError("typed trouble"), "other": RuntimeError("other trouble")}[
            self.what
        ]


def test_a_failure_leaves_the_others_standing(toy: Dataset) -> None:
    systems: dict[str, Any] = {
        "bm25": "bm25",
        "typed": Failing("typed"),
        "other": rrf(BM25Index.build(TOY.corpus).searcher(), Failing("other")),
        "unknown": "bm25 >> tip(3)",
        "runs": lambda data: 3,
    }
    table = benchmark(systems, [toy], baseline="bm25", measures=["nDCG@10"])
    assert table.cell("typed").error == "typed trouble"
    assert table.cell("other").error == "RuntimeError: other trouble"
    assert "no stage named 'tip'; did you mean 'top'?" in table.cell("unknown").error
    assert "a system leads from queries to a run, but 3 does not" in table.cell("runs").error
    assert table.cell("bm25").values == benchmark(["bm25"], [toy], ["nDCG@10"]).cell("bm25").values
    assert len(table.failures) == 4
    assert table.comparisons == 0
    assert "typed failed: typed trouble" in str(table)


def test_a_failing_baseline(toy: Dataset) -> None:
    table = benchmark({"a": Failing("typed"), "bm25": "bm25"}, [toy], baseline="a")
    assert table.cell("bm25").contrasts == {}
    assert table.cell("bm25").values
    assert "baseline a: nothing to compare with it" in str(table)


def test_a_stage_of_another_corpus_is_no_zero(toy: Dataset) -> None:
    other = BM25Index.build(Corpus.from_texts({"x1": "cat purrs", "x2": "bread"})).searcher()
    table = benchmark({"other": other}, [toy])
    assert "which is no document of toy" in table.cell("other").error


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"systems": []}, DataError, "no system to measure"),
        ({"systems": ["bm25", "bm25"]}, DataError, "given twice"),
        ({"systems": [3]}, DataError, "holds expressions"),
        ({"systems": ["rrf(bm25"]}, ExpressionError, "column 9"),
        ({"measures": ["nDCC@10"]}, UnknownMeasureError, "did you mean"),
        ({"baseline": "bm26"}, UnknownNameError, "did you mean 'bm25'"),
        ({"depth": 0}, DataError, "depth is 0"),
        ({"data": []}, DataError, "no data set"),
        ({"data": ["beir/scifat"]}, UnknownNameError, "did you mean"),
    ],
)
def test_wrong_arguments(toy: Dataset, changes: dict[str, Any], error: type, says: str) -> None:
    given: dict[str, Any] = {"systems": ["bm25"], "data": [toy]}
    with pytest.raises(error, match=says):
        benchmark(**{**given, **changes})


def test_data_sets_without_judged_queries(toy: Dataset) -> None:
    strange = Dataset("strange", TOY.corpus, TOY.queries, Qrels.from_dict({}))
    with pytest.raises(DataError, match=r"strange: not one of its .* queries is judged"):
        benchmark(["bm25"], [strange])
    with pytest.raises(DataError, match="'toy' is given twice"):
        benchmark(["bm25"], [toy, toy])


def test_empty_queries_count_as_nothing_found() -> None:
    queries = Queries.from_texts({"q1": "purr", "q2": "", "q3": "zzzz"})
    qrels = Qrels.from_dict({"q1": {"d1": 1}, "q2": {"d1": 1}, "q3": {"d2": 1}})
    corpus = Corpus.from_texts({"d1": "cats purr", "d2": "dogs bark"})
    cell = benchmark(["bm25"], [Dataset("few", corpus, queries, qrels)], ["RR"]).cell("bm25")
    assert cell.values["RR"] == pytest.approx((1 + 0 + 0) / 3)
    assert cell.n_without_hits == 2


# Files --------------------------------------------------------------------------------------------


def test_files(toy: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = benchmark(
        {"bm25": "bm25", "a b/c": "toy"}, [toy], ["nDCG@10"], baseline="bm25", output=out
    )
    assert table.output == str(out)
    assert (out / "table.md").read_text("utf-8") == table.to_markdown()
    assert Table.from_dict(json.loads((out / "table.json").read_text("utf-8"))) == table
    for name in table.systems:
        cell = table.cell(name)
        run = Run.read(out / cell.files["run"])
        assert evaluate(run, TOY.qrels, "nDCG@10").mean["nDCG@10"] == cell.values["nDCG@10"]
        lines = (out / cell.files["per_query"]).read_text("utf-8").splitlines()
        values = [json.loads(line) for line in lines]
        assert [v["query_id"] for v in values] == list(TOY.qrels.queries)
        assert np.mean([v["nDCG@10"] for v in values]) == pytest.approx(cell.values["nDCG@10"])
    assert len({cell.files["run"] for cell in table.cells}) == 2
    # The same again replaces its own files, but nobody else's.
    benchmark(["bm25"], [toy], ["nDCG@10"], output=out)
    (out / "table.json").write_text('{"mine": 1}')
    with pytest.raises(DataError, match="is no table of retrievekit"):
        benchmark(["bm25"], [toy], ["nDCG@10"], output=out)
    assert (out / "table.json").read_text() == '{"mine": 1}'


def test_file_names() -> None:
    assert file_name("bm25") == "bm25"
    names = ["a/b", "a_b", "a b", "../../etc", "..", "x" * 300, "é", ".hidden", ""]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names)
    for name in made:
        assert name.isascii()
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) < 100


def test_surroundings(toy: Dataset) -> None:
    found = benchmark(["bm25"], [toy]).metadata
    assert found["packages"]["numpy"] == np.__version__
    assert found["python"].startswith("3.")
    assert hardware() in str(benchmark(["bm25"], [toy]))


def test_progress_is_told(toy: Dataset) -> None:
    told: list[tuple[str, int, int | None]] = []
    benchmark(["toy"], [toy], progress=lambda *step: told.append(step))
    n = len(TOY.queries)
    assert told[0] == ("indexing toy", 0, len(TOY.corpus))
    assert told[-1] == ("toy: toy", n, n)


# The shelf ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_equal_expressions_share_an_index(tmp_path: Path, kept: bool) -> None:
    shelf = IndexShelf(TOY.corpus, tmp_path / "shelf" if kept else None)
    one = resolve("rrf(bm25, bm25(k=5), toy, dense('toy', k=3))", shelf)
    other = resolve("bm25(preset='anserini') >> top(3)", shelf)
    assert len(indexes_of(one)) == 2
    assert indexes_of(other)[0] in indexes_of(one)
    assert len(shelf.built) == 2
    different = resolve("bm25(k1=1.5)", shelf)
    assert different.fingerprint != resolve("bm25", shelf).fingerprint
    assert len(shelf.built) == 3


def test_a_shelf_is_kept_and_known_by_content(tmp_path: Path) -> None:
    def seconds(corpus: Corpus) -> float | None:
        shelf = IndexShelf(corpus, tmp_path)
        resolve("bm25", shelf)
        (built,) = shelf.built.values()
        return built.seconds

    assert seconds(TOY.corpus) is not None
    assert seconds(TOY.corpus) is None
    assert seconds(toy_corpus().corpus) is None  # another object of the same content
    assert seconds(TOY.corpus.take(np.arange(10))) is not None


def test_a_damaged_index_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = resolve("bm25", IndexShelf(TOY.corpus, tmp_path))(TOY.queries)
    (folder,) = tmp_path.glob("*.index")
    (folder / "CURRENT").write_bytes(b"not what was written")
    shelf = IndexShelf(TOY.corpus, tmp_path)
    assert resolve("bm25", shelf)(TOY.queries) == expected
    assert "building" in caplog.text
    assert IndexShelf(TOY.corpus, tmp_path) is not shelf
    assert resolve("bm25", IndexShelf(TOY.corpus, tmp_path))(TOY.queries) == expected


def test_depths() -> None:
    shelf = IndexShelf(TOY.corpus, depth=7, extra=1)
    for text, hits in (("toy", 8), ("toy(k=3)", 4), ("toy >> top(2)", 2)):
        assert np.diff(resolve(text, shelf)(TOY.queries).offsets).max() == hits


def test_an_index_that_exists(tmp_path: Path) -> None:
    built = BM25Index.build(TOY.corpus, tmp_path / "my.index")
    path = str(tmp_path / "my.index").replace("\\", "\\\\")
    found = resolve(f'index("{path}", k=4)', IndexShelf(None))
    assert found(TOY.queries) == built.searcher(k=4)(TOY.queries)
    with pytest.raises(ExpressionError, match="no documents are given"):
        resolve("bm25", IndexShelf(None))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "bm25(k2=1)",
            r"bm25: there is no setting 'k2' \(did you mean 'k' or 'k1'\?\); it takes",
        ),
        ("bm25(zzz=1)", "bm25: there is no setting 'zzz'; it takes preset, k1, b, k, where, pass"),
        ("toy(engin='binary')", "did you mean 'engine'"),
        ("toy(engine='HNSV32')", "HNSV32"),
        ("toy(storage='float8')", "no storage named 'float8'; did you mean 'float"),
        ("toy(nprobe=3)", "no option of the engine 'flat' named 'nprobe'"),
        ("toy(engine='binary', refine=0)", "refine is 0; the engine 'binary' takes a whole number"),
        ("dense('minlm')", "dense: no encoder named 'minlm'; did you mean 'minilm'"),
        ("toy(dim=0)", "dim is 0, but must be a whole number"),
        ("bm25(passages='many')", "WORDS or WORDS/STRIDE, such as 150/75; got many"),
        ("bm25(passages='10/20')", "a stride of 1 to as many words"),
        ("bm25(passages=true)", "passages is True, but must be such as"),
        ("bm25(passages=10, aggregate='maxx')", "no aggregation named 'maxx'; did you mean 'max'"),
        ("bm25(aggregate='sum')", "aggregate is for passages"),
        ("sparse('x', levels='many')", "levels is 'many', but must be a number"),
        ("lucene('x', passages=10)", "an index that exists takes k1, b and k"),
        ("bm25(k1='high')", "k1 is 'high', but must be a number"),
        ("bm25(k1=true)", "k1 is True, but must be a number"),
        ("bm25(preset='anserin')", "no BM25 preset named 'anserin'; did you mean 'anserini'"),
        ("bm25(k=0)", "k is 0, but must be a whole number"),
        ("bm25(k=2.5)", "k is 2.5, but must be a whole number"),
        ("bm25(7)", "too many positional arguments"),
        ("toy(engine=3)", "engine is 3, but must be a text"),
        ("dense()", "missing a required argument: 'encoder'"),
        ("dense(3)", "encoder is 3, but must be a text"),
        ("sentence", "no stage named 'sentence'"),
    ],
)
def test_wrong_settings(text: str, says: str) -> None:
    with pytest.raises(ExpressionError, match=says):
        resolve(text, IndexShelf(TOY.corpus))


def test_faults_of_the_index_are_not_the_expression_s() -> None:
    with pytest.raises(DataError, match=r"b is 1\.5; it must lie between 0 and 1"):
        resolve("bm25(b=1.5)", IndexShelf(TOY.corpus))


def test_encoders_by_name() -> None:
    assert make_encoder("toy").card == ToyEncoder().card


def test_no_measure_looks_deeper_than_hits_count(toy: Dataset) -> None:
    with pytest.raises(DataError, match=r"R@100 looks at more hits.*depth is 50.*depth=100"):
        benchmark(["bm25"], [toy], ["nDCG@10", "R@100"], depth=50)


def test_queries_without_relevant_documents_are_counted() -> None:
    qrels = Qrels.from_dict({**TOY.qrels.to_dict(), "none": {TOY.corpus.ids[0]: 0}})
    texts = dict(zip(TOY.queries.ids, TOY.queries.texts, strict=True))
    queries = Queries.from_texts({**texts, "none": "cats"})
    table = benchmark(["bm25"], [Dataset("toy", TOY.corpus, queries, qrels)])
    assert "1 judged queries have no relevant document and count 0" in table.datasets[0].notes


def test_queries_without_hits_do_not_look_unjudged() -> None:
    qrels = Qrels.from_dict({"1": {"a": 1}, "2": {"b": 1}})
    corpus = Corpus.from_texts({"a": "cats", "b": "dogs"})
    cats = Dataset("pets", corpus, Queries.from_texts({"1": "cats", "2": "unknown"}), qrels)
    cell = benchmark(["bm25"], [cats], ["R@1"]).cell("bm25")
    assert (cell.judged, cell.n_without_hits) == (1.0, 1)
    assert cell.values["R@1"] == 1 / 2
    none = Dataset("none", corpus, Queries.from_texts({"1": "x", "2": "y"}), qrels)
    assert benchmark(["bm25"], [none], ["R@1"]).cell("bm25").judged is None
