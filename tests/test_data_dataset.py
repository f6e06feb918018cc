"""`Dataset`: what belongs together is checked against each other, and own documents are dropped."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.corpus import Corpus
from retrievekit.data.beir import write_corpus, write_qrels, write_queries
from retrievekit.data.dataset import Dataset, drop_own, load_dataset
from retrievekit.data.records import read_corpus_report
from retrievekit.data.registry import DatasetProperties, SplitCounts, own_documents
from retrievekit.errors import DataError, MissingDataError, ParseError, UnknownNameError
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RETRIEVEKIT_DATA", raising=False)


CORPUS = Corpus.from_texts({f"d{n}": f"words {n}" for n in range(10)})
QUERIES = Queries.from_texts({"q2": "two", "q1": "one", "q3": "three"})
QRELS = Qrels.from_dict({"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}})


def toy(**changes: Any) -> Dataset:
    parts = {"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS} | changes
    return Dataset("toy", **parts)


def folder_of(path: Path, splits: Mapping[str, Qrels] | None = None, yaml: str = "") -> Path:
    write_corpus(CORPUS, path / "corpus.jsonl")
    write_queries(QUERIES, path / "queries.jsonl")
    for split, qrels in ({"test": QRELS} if splits is None else splits).items():
        write_qrels(qrels, path / "qrels" / f"{split}.tsv")
    if yaml:
        (path / "dataset.yaml").write_text(yaml)
    return path


# --- the real collections ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split", "documents", "queries", "judgements", "all_queries"),
    [
        ("scifact", "test", 5183, 300, 339, 1109),
        ("scifact", "train", 5183, 809, 919, 1109),
        ("nfcorpus", "test", 3633, 323, 12334, 3237),
        ("nfcorpus", "dev", 3633, 324, 11385, 3237),
        ("nfcorpus", "train", 3633, 2590, 110575, 3237),
        ("cranfield", "test", 1400, 225, 1837, 225),
        ("csfcube", "test", 4205, 50, 6244, 50),
        ("dl19-pool", "test", 16836, 43, 5694, 43),
    ],
)
def test_published_collections(
    data_dir: Path,
    name: str,
    split: str,
    documents: int,
    queries: int,
    judgements: int,
    all_queries: int,
) -> None:
    dataset = load_dataset(data_dir / "beir" / name, split)
    assert dataset.name == f"{name}/{split}"
    assert len(dataset.corpus) == documents
    assert len(dataset.queries) == len(dataset.qrels) == queries
    assert len(dataset.all_queries) == all_queries
    assert dataset.qrels.n_judgements == judgements
    assert set(dataset.queries.ids) == set(dataset.qrels.queries)


@pytest.mark.parametrize("name", ["beir/scifact/test", "scifact/train", "nfcorpus", "csfcube"])
def test_registered_names_find_local_folders(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RETRIEVEKIT_DATA", str(data_dir))
    dataset = load_dataset(name)
    # Reading compares with the published counts, so it is enough that nothing is raised.
    assert len(dataset.corpus) > len(dataset.qrels) == len(dataset.queries) > 0
    assert dataset.notes == ()


def test_empty_documents_of_cranfield(data_dir: Path) -> None:
    folder = data_dir / "beir" / "cranfield"
    corpus, report = read_corpus_report(folder)
    assert report.empty == 2
    empty = [d.doc_id for d in corpus if not d.contents.strip()]
    assert empty == ["471", "995"]
    dataset = load_dataset(folder)
    _ = dataset.corpus
    assert any("2 empty, kept" in note for note in dataset.notes)


def test_ids_that_coincide_are_not_dropped(data_dir: Path) -> None:
    dataset = load_dataset(data_dir / "beir" / "cranfield")
    assert {"1", "2"} <= set(dataset.queries.ids) & set(dataset.corpus.ids)
    run = Run.from_dict({"1": {"1": 2.0, "2": 1.0}}, Queries.from_texts({"1": "x"}))
    assert drop_own(run, dataset.properties.own_document) == run


def test_own_documents_of_csfcube(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVEKIT_DATA", str(data_dir))
    dataset = load_dataset("csfcube")
    own = dataset.properties.own_documents(dataset.queries.ids)
    assert dataset.properties.own_document == "before-underscore"
    assert None not in own
    papers = {query_id.split("_")[0] for query_id in dataset.queries.ids}
    assert set(own) == papers
    # Every paper that is in the corpus would come first for its own facets.
    rows = {
        i: {"11844559": 9.0, i.split("_")[0]: 5.0, "10010426": 1.0} for i in dataset.queries.ids
    }
    left = drop_own(Run.from_dict(rows, dataset.queries), "before-underscore").to_dict()
    assert all(query_id.split("_")[0] not in found for query_id, found in left.items())
    assert sum(len(found) for found in left.values()) == sum(len(r) - 1 for r in rows.values())


def test_folder_named_like_a_set_with_a_rule(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = data_dir / "beir" / "csfcube"
    dataset = load_dataset(folder)
    assert dataset.properties.own_document == "none"
    assert "load" in dataset.notes[0]
    assert "like='csfcube'" in dataset.notes[0]
    assert dataset.notes[0] in caplog.text
    assert load_dataset(folder, like="csfcube").properties.own_document == "before-underscore"


def test_judgements_of_documents_that_are_not_there(data_dir: Path) -> None:
    folder = data_dir / "beir" / "dl19-pool"
    dataset = load_dataset(folder, "full")
    assert len(dataset.corpus) == 16836
    with pytest.raises(DataError, match=r"3,566 of 9,260 judgements \(38\.5%\) .* max_absent=1\.0"):
        _ = dataset.qrels
    dataset = load_dataset(folder, "full", max_absent=0.4)
    assert dataset.qrels.n_judgements == 9260
    assert dataset.notes == (), "the corpus is not read yet"
    _ = dataset.corpus
    assert "3,566 of 9,260 judgements (38.5%)" in dataset.notes[0]


# --- parts against each other ------------------------------------------------------------------


def test_queries_are_the_judged_ones_in_file_order() -> None:
    dataset = toy()
    assert list(dataset.queries.ids) == ["q2", "q1"]
    assert dataset.queries.texts == ["two", "one"]
    assert dataset.all_queries is QUERIES
    assert dataset.notes == ()
    assert repr(dataset) == "Dataset('toy')"


def test_parts_are_read_when_needed_and_once() -> None:
    read: list[str] = []

    def lazily(name: str, value: Any) -> Any:
        return lambda: read.append(name) or value

    dataset = toy(
        corpus=lazily("corpus", CORPUS),
        queries=lazily("queries", QUERIES),
        qrels=lazily("qrels", QRELS),
    )
    assert read == []
    _ = dataset.queries, dataset.queries, dataset.all_queries
    assert read == ["qrels", "queries"]
    _ = dataset.corpus, dataset.corpus
    assert read == ["qrels", "queries", "corpus"]


@pytest.mark.parametrize("first", ["corpus", "qrels"])
def test_absent_documents_are_reported_whatever_is_read_first(
    first: str, caplog: pytest.LogCaptureFixture
) -> None:
    grades = {"q1": {f"d{n}": 1 for n in range(10)} | {"gone": 2}}
    dataset = toy(qrels=Qrels.from_dict(grades))
    getattr(dataset, first)
    assert dataset.notes == ()
    _ = dataset.corpus, dataset.qrels
    (note,) = dataset.notes
    assert "toy: 1 of 11 judgements (9.1%) name what is not there: 'gone'" in note
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [note]
    assert dataset.qrels.n_judgements == 11, "they stay in the ideal ranking"


def test_too_many_absent_documents() -> None:
    grades = {"q1": {f"d{n}": 1 for n in range(8)} | {"gone": 2}}
    dataset = toy(qrels=Qrels.from_dict(grades))
    _ = dataset.qrels
    with pytest.raises(DataError, match=r"1 of 9 judgements .*More than 10% is an error"):
        _ = dataset.corpus
    assert len(toy(qrels=Qrels.from_dict(grades), max_absent=0.2).corpus) == 10


def test_absent_queries() -> None:
    grades = {f"q{n}": {"d1": 1} for n in range(1, 5)}
    dataset = toy(qrels=Qrels.from_dict(grades))
    with pytest.raises(DataError, match=r"1 of 4 judged queries \(25\.0%\) .*'q4'"):
        _ = dataset.queries
    dataset = toy(qrels=Qrels.from_dict(grades), max_absent=0.25)
    assert list(dataset.queries.ids) == ["q2", "q1", "q3"]
    assert "they count 0" in dataset.notes[0]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"qrels": Qrels.from_dict({})}, (10, 0, 0)),
        ({"queries": Queries.from_texts({}), "qrels": Qrels.from_dict({})}, (10, 0, 0)),
        ({"corpus": Corpus.from_texts({}), "qrels": Qrels.from_dict({})}, (0, 0, 0)),
        ({"qrels": Qrels.from_dict({"q1": {}})}, (10, 1, 1)),
    ],
)
def test_emptiness(changes: dict[str, Any], found: tuple[int, int, int]) -> None:
    dataset = toy(**changes)
    assert (len(dataset.corpus), len(dataset.queries), len(dataset.qrels)) == found
    assert dataset.notes == ()


COUNTS = DatasetProperties(documents=10, splits={"test": SplitCounts(2, 3)})


@pytest.mark.parametrize(
    ("part", "expected", "message"),
    [
        ("corpus", DatasetProperties(documents=11), "toy: 10 documents, but 11 expected"),
        (
            "qrels",
            DatasetProperties(splits={"test": SplitCounts(3)}),
            "toy: 2 judged queries in test, but 3 expected",
        ),
        (
            "qrels",
            DatasetProperties(splits={"test": SplitCounts(2, 4)}),
            "toy: 3 judgements in test, but 4 expected",
        ),
    ],
)
def test_counts(part: str, expected: DatasetProperties, message: str) -> None:
    with pytest.raises(DataError, match=message):
        getattr(toy(properties=expected), part)
    getattr(toy(properties=expected, check=False), part)
    getattr(toy(properties=COUNTS), part)
    assert len(toy(properties=expected, split="dev").queries) == 2


# --- folders -----------------------------------------------------------------------------------


def test_written_and_loaded_is_the_same(tmp_path: Path) -> None:
    toy().write(tmp_path / "out")
    again = load_dataset(tmp_path / "out")
    assert again.corpus.content_hash == CORPUS.content_hash
    assert again.all_queries == QUERIES
    assert again.qrels == QRELS
    assert again.name == "out/test"


def test_folder_by_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("mine").name == "mine/test"
    folder_of(tmp_path / "scifact")
    assert load_dataset("./scifact").name == "scifact/test"
    with pytest.raises(MissingDataError, match="beir/scifact is not here"):
        load_dataset("scifact")


def test_splits_of_a_folder(tmp_path: Path) -> None:
    dev = Qrels.from_dict({"q3": {"d3": 1}})
    folder = folder_of(tmp_path / "a", {"dev": dev, "test": QRELS})
    assert load_dataset(folder).split == "test"
    assert list(load_dataset(folder, "dev").queries.ids) == ["q3"]
    with pytest.raises(UnknownNameError, match="no split named 'train'; known: dev, test"):
        load_dataset(folder, "train")
    assert load_dataset(folder_of(tmp_path / "b", {"dev": dev})).split == "dev"
    two = folder_of(tmp_path / "c", {"dev": dev, "train": dev})
    with pytest.raises(UnknownNameError, match="no split named 'test'; known: dev, train"):
        load_dataset(two)
    (two / "dataset.yaml").write_text("default_split: train")
    assert load_dataset(two).split == "train"


def test_described_folder(tmp_path: Path) -> None:
    yaml = "own_document: equal\ndocuments: 10\nsplits: {test: {queries: 2, judgements: 3}}\n"
    dataset = load_dataset(folder_of(tmp_path / "a", yaml=yaml))
    assert dataset.properties.own_document == "equal"
    assert (len(dataset.corpus), len(dataset.queries)) == (10, 2)
    wrong = load_dataset(folder_of(tmp_path / "b", yaml="documents: 9"))
    with pytest.raises(DataError, match="10 documents, but 9 expected"):
        _ = wrong.corpus
    with pytest.raises(DataError, match="remove it or leave out like="):
        load_dataset(tmp_path / "a", like="arguana")
    with pytest.raises(DataError, match="no property named 'licens'; did you mean 'licence'"):
        load_dataset(folder_of(tmp_path / "c", yaml="licens: x"))


def test_checksums(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a")
    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
    }
    lines = "".join(f"  {name}: {digest}\n" for name, digest in digests.items())
    (folder / "dataset.yaml").write_text(f"checksums:\n{lines}")
    dataset = load_dataset(folder)
    assert (len(dataset.corpus), len(dataset.queries)) == (10, 2)
    for part, name in (("corpus", "corpus.jsonl"), ("all_queries", "queries.jsonl")):
        with (folder / name).open("a") as out:
            out.write("\n")
        with pytest.raises(DataError, match=rf"{name}: its SHA-256 is \w+, but should be \w+"):
            getattr(load_dataset(folder), part)
        getattr(load_dataset(folder, check=False), part)
    (folder / "dataset.yaml").write_text(f"checksums: {{gone.jsonl: {'a' * 64}}}")
    with pytest.raises(MissingDataError, match=r"gone\.jsonl is not there, but has a checksum"):
        load_dataset(folder)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no data set named 'nowhere'"):
        load_dataset("nowhere")
    with pytest.raises(MissingDataError, match="is not a folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match=r"holds no judgements; place qrels/test\.tsv"):
        load_dataset(tmp_path)
    folder = folder_of(tmp_path / "a")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(MissingDataError, match=r"holds no queries\.jsonl"):
        load_dataset(folder)
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(MissingDataError, match=r"holds no corpus\.jsonl"):
        load_dataset(folder)
    with pytest.raises(DataError, match="like= is for folders"):
        load_dataset("scifact", like="arguana")
    with pytest.raises(UnknownNameError, match="no split named 'dev'"):
        load_dataset("beir/scifact", "dev")


def test_reader_options_reach_the_readers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a")
    with (folder / "corpus.jsonl").open("ab") as out:
        out.write(b'{"_id": "x", "text": "caf\xe9"}\n{"_id": "d1", "text": "other"}\n')
    with pytest.raises(ParseError, match=r"corpus\.jsonl:11: byte 0xe9"):
        _ = load_dataset(folder).corpus
    dataset = load_dataset(folder, errors="replace", on_duplicate="first")
    assert len(dataset.corpus) == 11
    assert [note.split(": ", 1)[1] for note in dataset.notes] == [
        "1 left out since another record has the same id",
        "1 with characters that were not valid and were replaced by U+FFFD",
    ]


def test_byte_order_marks_throughout(tmp_path: Path) -> None:
    plain, folder = folder_of(tmp_path / "plain"), folder_of(tmp_path / "a")
    files = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
    for name in files:
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    for name, part in zip(files, ("corpus", "all_queries", "qrels"), strict=True):
        with pytest.raises(ParseError) as caught:
            getattr(load_dataset(folder), part)
        assert str(caught.value).startswith(f"{folder / name}:1: the file begins with a byte-order")
        assert 'errors="replace"' in str(caught.value)
        assert "lenient" not in str(caught.value)
    dataset, expected = load_dataset(folder, errors="replace"), load_dataset(plain)
    assert list(dataset.corpus) == list(expected.corpus)
    assert dataset.queries == expected.queries
    assert dataset.qrels.to_dict() == expected.qrels.to_dict()
    assert len(dataset.notes) == 3
    for note, name in zip(
        dataset.notes, ("corpus.jsonl", "test.tsv", "queries.jsonl"), strict=True
    ):
        assert name in note
        assert "byte-order mark" in note


def test_judgements_that_cannot_be_read_are_left_out_on_request(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a")
    with (folder / "qrels" / "test.tsv").open("ab") as out:
        out.write(b"q3\tcaf\xe9\t1\n\t\t\n")
    with pytest.raises(ParseError, match=r"test\.tsv:5: bytes that are not UTF-8"):
        _ = load_dataset(folder).qrels
    dataset = load_dataset(folder, errors="replace")
    assert dataset.qrels.to_dict() == QRELS.to_dict()
    assert "2 of 6 lines left out" in dataset.notes[0]


# --- the embedded collection -------------------------------------------------------------------


def test_stdlib() -> None:
    import platform

    dataset = load_dataset("stdlib")
    assert dataset.name == "stdlib"
    assert len(dataset.corpus) > 5000
    assert f"stdlib: documents of Python {platform.python_version()}" in dataset.notes
    assert dataset.corpus["sorted"].metadata == {"kind": "function", "module": "builtins"}
    assert len(dataset.queries) == len(dataset.qrels) >= 150
    assert {1, 2, 3} <= set(dataset.qrels.grades.tolist()) <= {0, 1, 2, 3}
    assert (dataset.qrels.docs.translate(dataset.corpus.ids)[dataset.qrels.rows] >= 0).all()


def test_stdlib_of_a_python_that_lacks_something(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from retrievekit.data import stdlib

    found = stdlib.StdlibJudgements(
        {"q001": {"sorted": 3}}, {"q001": {"new.thing": 2}, "q002": {"new.other": 1}}, "3.99"
    )
    monkeypatch.setattr(stdlib, "judgements", lambda _: found)
    dataset = load_dataset("stdlib")
    assert dataset.qrels.to_dict() == {"q001": {"sorted": 3}}
    note = dataset.notes[-1]
    assert "2 relevant documents do not exist in Python 3.99" in note
    assert "new.other, new.thing; so these queries are left out: q002" in note
    assert note in caplog.text


# --- own documents -----------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "a_b", "b_a", "_a", "a_"])
RUNS = st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(0, 2).map(float)), max_size=5)


@given(RUNS, st.sampled_from(["none", "equal", "before-underscore"]))
def test_drop_own_is_what_a_loop_does(scores: dict[str, dict[str, float]], rule: Any) -> None:
    run = Run.from_dict(scores)
    own = dict(zip(run.queries.ids, own_documents(run.queries.ids, rule), strict=True))
    expected = {
        query: {doc: score for doc, score in found.items() if doc != own[query]}
        for query, found in run.to_dict().items()
    }
    shorter = drop_own(run, rule)
    assert shorter.to_dict() == expected
    assert [list(d) for d in shorter.to_dict().values()] == [list(d) for d in expected.values()]
    assert drop_own(shorter, rule) == shorter


def test_drop_own_says_what_it_dropped() -> None:
    run = Run.from_dict({"a": {"a": 2.0, "b": 1.0}, "b": {"a": 1.0}, "c": {}})
    shorter = drop_own(run, "equal")
    assert shorter.to_dict() == {"a": {"b": 1.0}, "b": {"a": 1.0}, "c": {}}
    (step,) = shorter.trace
    assert (step.name, step.dropped, step.n_hits) == ("drop_own('equal')", 1, 2)
    assert drop_own(run, "none") is run


def test_drop_own_keeps_columns_in_step() -> None:
    run = Run.from_arrays(
        Queries(Ids.from_strings(["a"]), None),
        Ids.from_strings(["x", "a", "y"]),
        np.array([0, 3]),
        np.array([0, 1, 2]),
        np.array([3.0, 2.0, 1.0]),
        {"mark": np.array([10, 20, 30])},
    )
    assert drop_own(run, "equal").columns["mark"].tolist() == [10, 30]


@pytest.mark.parametrize("rule", ["none", "equal", "before-underscore"])
def test_drop_own_of_nothing(rule: Any) -> None:
    assert drop_own(Run.from_dict({}), rule).to_dict() == {}
    assert drop_own(Run.from_dict({"a": {}}), rule).to_dict() == {"a": {}}


def test_unknown_rule() -> None:
    with pytest.raises(DataError, match="own_document is 'same'; known are"):
        drop_own(Run.from_dict({}), "same")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="own_document is 'same'"):
        DatasetProperties(own_document="same")  # type: ignore[arg-type]
