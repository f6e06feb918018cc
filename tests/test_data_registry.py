"""Data sets by name: names, properties, where they lie, and how they are fetched."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.corpus import Document
from retrievekit.data import fetch, registry
from retrievekit.data.beir import qrels_file, splits, write_corpus, write_qrels, write_queries
from retrievekit.data.dataset import load_dataset
from retrievekit.data.download import Fetched
from retrievekit.data.registry import (
    Archive,
    DatasetProperties,
    SplitCounts,
    entries,
    find,
    list_datasets,
    own_documents,
    read_properties,
)
from retrievekit.errors import DataError, MissingDataError, UnknownNameError
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries

FORUMS = [
    *("android", "english", "gaming", "gis", "mathematica", "physics"),
    *("programmers", "stats", "tex", "unix", "webmasters", "wordpress"),
]
# The eighteen sets of the BEIR paper; CQADupStack is twelve.
BEIR = [
    *("msmarco", "trec-covid", "nfcorpus", "bioasq", "nq", "hotpotqa", "fiqa", "signal1m"),
    *("trec-news", "robust04", "arguana", "webis-touche2020", "quora", "dbpedia-entity"),
    *("scidocs", "fever", "climate-fever", "scifact"),
    *(f"cqadupstack/{forum}" for forum in FORUMS),
]
LICENSED = ["bioasq", "signal1m", "trec-news", "robust04"]


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RETRIEVEKIT_DATA", raising=False)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)


def folder_of(path: Path, docs: int = 3, split: str = "test") -> Path:
    """A small data set in the BEIR layout."""
    write_corpus((Document(f"d{n}", f"words {n}") for n in range(docs)), path / "corpus.jsonl")
    write_queries(Queries.from_texts({"q1": "words"}), path / "queries.jsonl")
    write_qrels(Qrels.from_dict({"q1": {"d1": 1}}), path / "qrels" / f"{split}.tsv")
    return path


# --- what is registered ------------------------------------------------------------------------


def test_all_beir_sets_are_known() -> None:
    assert {name for name in entries() if name.startswith("beir/")} == {f"beir/{n}" for n in BEIR}
    assert len(BEIR) == 18 + 12
    assert set(entries()) - {f"beir/{n}" for n in BEIR} == {"csfcube", "stdlib"}


def test_every_set_can_be_had_somehow() -> None:
    for name, entry in entries().items():
        ways = [entry.archive is not None or entry.hub is not None, bool(entry.placing)]
        assert ways.count(True) == (0 if name == "stdlib" else 1), name
        assert entry.properties.title, name
        assert entry.properties.licence, name
        assert entry.properties.sources, name
        assert entry.properties.default_split in entry.properties.splits, name
    assert {n for n, e in entries().items() if e.placing} == {
        *(f"beir/{n}" for n in LICENSED),
        "csfcube",
    }


def test_checksums_are_whole() -> None:
    archives = {e.archive for e in entries().values() if e.archive}
    assert all(len(a.md5) == 32 and int(a.md5, 16) for a in archives)
    assert len({a.md5 for a in archives}) == len({a.name for a in archives}) == 15


def test_cqadupstack_adds_up_to_the_published_counts() -> None:
    forums = [entries()[f"beir/cqadupstack/{forum}"].properties for forum in FORUMS]
    assert sum(f.documents or 0 for f in forums) == 457_199  # the BEIR paper, table 1
    assert sum(f.splits["test"].queries or 0 for f in forums) == 13_145


@pytest.mark.parametrize(
    ("name", "canonical", "split"),
    [
        ("beir/scifact", "beir/scifact", "test"),
        ("beir/scifact/train", "beir/scifact", "train"),
        ("scifact", "beir/scifact", "test"),
        ("scifact/train", "beir/scifact", "train"),
        ("BeIR/scifact", "beir/scifact", "test"),
        ("SciFact", "beir/scifact", "test"),
        ("beir/msmarco", "beir/msmarco", "dev"),
        ("beir/msmarco/test", "beir/msmarco", "test"),
        ("beir/arguana", "beir/arguana", "test"),
        ("beir/arguana/test", "beir/arguana", "test"),
        ("cqadupstack/android", "beir/cqadupstack/android", "test"),
        ("cqadupstack-android", "beir/cqadupstack/android", "test"),
        ("beir/cqadupstack-wordpress/test", "beir/cqadupstack/wordpress", "test"),
        ("beir/webis-touche2020/v2", "beir/webis-touche2020", "test"),
        ("touche2020", "beir/webis-touche2020", "test"),
        ("csfcube", "csfcube", "test"),
        ("stdlib", "stdlib", "test"),
    ],
)
def test_names(name: str, canonical: str, split: str) -> None:
    entry, found = find(name)
    assert (entry.name, found) == (canonical, split)


def test_full_names_are_those_of_ir_datasets() -> None:
    assert find("scifact")[0].full_name("test") == "beir/scifact/test"
    assert find("arguana")[0].full_name("test") == "beir/arguana"
    assert find("cqadupstack-gis")[0].full_name("test") == "beir/cqadupstack/gis"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scifcat", "did you mean 'scifact'"),
        ("beir/scifact/dev", "did you mean"),
        ("cqadupstack", "cqadupstack is twelve data sets: beir/cqadupstack/android, "),
        ("", "data set named ''"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        find(name)


def test_list_of_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "cache" / "datasets" / "beir" / "nfcorpus")
    folder_of(tmp_path / "own" / "beir" / "scifact")
    monkeypatch.setenv("RETRIEVEKIT_DATA", f"{tmp_path / 'none'}:{tmp_path / 'own'}")
    found = {info.name: info for info in list_datasets()}
    assert set(found) == set(entries())
    wheres = {name: info.where for name, info in found.items()}
    assert wheres.pop("stdlib") == "built in"
    assert wheres.pop("beir/nfcorpus") == "cached"
    assert wheres.pop("beir/scifact") == "local"
    assert wheres.pop("csfcube") == "must be placed"
    assert {wheres.pop(f"beir/{name}") for name in LICENSED} == {"must be placed"}
    assert set(wheres.values()) == {"fetchable"}
    scifact = found["beir/scifact"]
    assert (scifact.documents, scifact.queries, scifact.splits) == (5183, 300, ("train", "test"))
    assert scifact.path == tmp_path / "own" / "beir" / "scifact"


# --- own documents -----------------------------------------------------------------------------


def test_rules_for_own_documents() -> None:
    rules = {name: entry.properties.own_document for name, entry in entries().items()}
    assert {name: rule for name, rule in rules.items() if rule != "none"} == {
        "beir/arguana": "equal",
        "beir/quora": "equal",
        "csfcube": "before-underscore",
    }


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("none", [None, None, None, None]),
        ("equal", ["11844559_background", "a_b_c", "plain", "_x"]),
        ("before-underscore", ["11844559", "a", None, None]),
    ],
)
def test_own_documents(rule: Any, expected: list[str | None]) -> None:
    ids = ["11844559_background", "a_b_c", "plain", "_x"]
    assert own_documents(ids, rule) == expected
    assert DatasetProperties(own_document=rule).own_documents(ids) == expected
    assert own_documents([], rule) == []


# --- dataset.yaml ------------------------------------------------------------------------------


def test_all_properties(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(
        f"""
title: Mine
licence: CC0-1.0
sources: [https://example.org]
fields: [text]
documents: 3
splits: {{dev: {{queries: 1}}, test: {{queries: 2, judgements: 4}}}}
default_split: dev
own_document: equal
checksums: {{corpus.jsonl: {"a" * 64}}}
"""
    )
    assert read_properties(path) == DatasetProperties(
        title="Mine",
        licence="CC0-1.0",
        sources=("https://example.org",),
        fields=("text",),
        documents=3,
        splits={"dev": SplitCounts(1), "test": SplitCounts(2, 4)},
        default_split="dev",
        own_document="equal",
        checksums={"corpus.jsonl": "a" * 64},
    )


def test_no_properties(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("# nothing to say\n")
    assert read_properties(tmp_path / "dataset.yaml") == DatasetProperties()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own_documnet: equal", "no property named 'own_documnet'; did you mean 'own_document'"),
        ("own_document: same", "own_document is 'same'; known are 'none', 'equal'"),
        ("documents: many", "documents is 'many', but should be a int"),
        ("documents: true", "documents is True, but should be a int"),
        ("documents: -1", "documents is -1"),
        ("title: 3", "title is 3, but should be a str"),
        ("title: null", "title is None, but should be a str"),
        ("fields: [1]", r"fields is \[1\], but should be a list of strings"),
        ("splits: {test: 3}", "split 'test' should be a mapping"),
        ("splits: {test: {querys: 3}}", "split 'test': no count named 'querys'; did you mean"),
        ("splits: {test: {queries: x}}", "split 'test': queries is 'x', but should be a count"),
        ("checksums: {corpus.jsonl: abc}", "the checksum of corpus.jsonl is 'abc'"),
        ("[1, 2]", "a mapping of property names to values is expected"),
        ("a: &x [1]\nb: *x", r"YAML aliases \(\*name\) are not read"),
        ("{", "not YAML that can be read"),
        ("!!python/object/apply:os.getcwd []", "not YAML that can be read"),
        ("[" * 5000, "nested more deeply than any"),
        ("\0", "not YAML that can be read"),
        ("x" * 2**20 + "y", "larger than 1 MiB"),
    ],
)
def test_bad_properties(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"dataset\.yaml: .*{message}|{message}") as caught:
        read_properties(path)
    assert "dataset.yaml" in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_gives_properties_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "dataset.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found: object = read_properties(path)
    except DataError as why:
        found = why
    assert isinstance(found, (DatasetProperties, DataError))


# --- the BEIR layout ---------------------------------------------------------------------------


def test_splits(tmp_path: Path) -> None:
    folder_of(tmp_path, split="dev")
    (tmp_path / "qrels" / "test.qrels.gz").write_bytes(b"")
    (tmp_path / "qrels" / "README").write_text("not judgements")
    assert list(splits(tmp_path)) == ["dev", "test"]
    with pytest.raises(UnknownNameError, match="no split named 'tset'; did you mean 'test'"):
        qrels_file(tmp_path, "tset")
    (tmp_path / "qrels" / "dev.txt").write_text("")
    with pytest.raises(DataError, match="both judge 'dev'; keep one"):
        splits(tmp_path)
    assert splits(tmp_path / "nowhere") == {}


def test_judgements_are_written_as_beir_does(tmp_path: Path) -> None:
    write_qrels(Qrels.from_dict({"q 1": {"d1": 2, "d2": -1}}), tmp_path / "q.tsv")
    expected = "query-id\tcorpus-id\tscore\nq 1\td1\t2\nq 1\td2\t-1\n"
    assert (tmp_path / "q.tsv").read_text() == expected
    with pytest.raises(DataError, match="holds a tab or line end"):
        write_qrels(Qrels.from_dict({"q\t1": {"d": 1}}), tmp_path / "x.tsv")
    assert not (tmp_path / "x.tsv").exists()


# --- fetching ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LICENSED)
@pytest.mark.usefixtures("online")
def test_licensed_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingDataError) as caught:
        load_dataset(f"beir/{name}")
    message = str(caught.value)
    assert "http" in message
    assert (
        f"corpus.jsonl, queries.jsonl and qrels/test.tsv (the BEIR layout) in {tmp_path}" in message
    )
    folder_of(tmp_path / "cache" / "datasets" / "beir" / name)
    assert len(load_dataset(f"beir/{name}", check=False).corpus) == 3


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingDataError) as caught:
        load_dataset("scifact")
    message = str(caught.value)
    assert "HF_HUB_OFFLINE forbids" in message
    assert f"qrels/train.tsv, qrels/test.tsv (the BEIR layout) in {tmp_path}" in message
    assert "https://public.ukp.informatik.tu-darmstadt.de/" in message
    folder_of(tmp_path / "cache" / "datasets" / "beir" / "scifact")
    assert len(load_dataset("scifact", check=False).corpus) == 3


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: None) -> list[str]:
    """Serve scifact and CQADupStack as archives from a folder; the URLs that were asked for."""
    folder_of(tmp_path / "up" / "scifact")
    for forum in FORUMS:
        folder_of(tmp_path / "up" / "cqadupstack" / forum)
    asked: list[str] = []

    def give(url: str, path: Path, **known: Any) -> Fetched:
        asked.append(url)
        name = url.rsplit("/", 1)[1].removesuffix(".zip")
        source = tmp_path / "up" / name
        if not source.is_dir():
            raise MissingDataError(f"{url} cannot be fetched")
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as out:
            for file in sorted(source.rglob("*")):
                out.write(file, file.relative_to(tmp_path / "up"))
        assert known["size"] > 0
        assert len(known["md5"]) == 32
        raw = path.read_bytes()
        return Fetched(path, len(raw), hashlib.sha256(raw).hexdigest())

    monkeypatch.setattr(fetch, "download", give)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=no_hub))
    return asked


def no_hub(*_: object, **__: object) -> None:
    raise ConnectionError("no hub today")


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob(".*") if not p.name.endswith(".lock"))


def test_archive_is_fetched_once(tmp_path: Path, served: list[str]) -> None:
    dataset = load_dataset("scifact", check=False)
    assert dataset.name == "beir/scifact/test"
    assert len(dataset.corpus) == 3
    load_dataset("beir/scifact/test", check=False)
    assert served == [f"{registry.ARCHIVES}/scifact.zip"]
    folder = tmp_path / "cache" / "datasets"
    assert (folder / "beir" / "scifact" / "corpus.jsonl").is_file()
    noted = json.loads((folder / "beir" / "scifact.observed.json").read_text())
    assert list(noted) == served
    assert hidden(folder) == [], "no archive, no half-unpacked folder"


def test_counts_of_a_fetched_set_are_checked(served: list[str]) -> None:
    dataset = load_dataset("scifact")
    with pytest.raises(DataError, match="beir/scifact/test: 3 documents, but 5,183 expected"):
        _ = dataset.corpus
    with pytest.raises(DataError, match="1 judged queries in test, but 300 expected"):
        _ = dataset.qrels


def test_one_archive_serves_all_forums(served: list[str]) -> None:
    for forum in FORUMS:
        assert len(load_dataset(f"beir/cqadupstack/{forum}", check=False).corpus) == 3
    assert served == [f"{registry.ARCHIVES}/cqadupstack.zip"]


def test_other_bytes_at_a_later_fetch(tmp_path: Path, served: list[str]) -> None:
    import shutil

    load_dataset("scifact")
    folder = tmp_path / "cache" / "datasets" / "beir" / "scifact"
    shutil.rmtree(folder)
    load_dataset("scifact")
    shutil.rmtree(folder)
    folder_of(tmp_path / "up" / "scifact", docs=4)
    with pytest.raises(DataError, match=r"but was .* first fetched; .* remove .*observed\.json"):
        load_dataset("scifact")
    (folder.parent / "scifact.observed.json").unlink()
    assert len(load_dataset("scifact", check=False).corpus) == 4


def test_archive_without_its_folder(tmp_path: Path, served: list[str]) -> None:
    (tmp_path / "up" / "arguana").mkdir()
    with pytest.raises(DataError, match="there is no folder arguana in it"):
        load_dataset("arguana")


def test_folder_in_the_way(tmp_path: Path, served: list[str]) -> None:
    (tmp_path / "cache" / "datasets" / "beir" / "scifact").mkdir(parents=True)
    with pytest.raises(DataError, match="is there, but holds no corpus; move it away"):
        load_dataset("scifact")


def test_nobody_has_it(served: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MissingDataError) as caught:
        load_dataset("nfcorpus")
    message = str(caught.value)
    assert message.startswith("beir/nfcorpus cannot be fetched: ")
    assert "the hub's BeIR/nfcorpus: ConnectionError: no hub today" in message
    assert "Place corpus.jsonl" in message
    (said,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert said.endswith("; trying the hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: list[str]) -> dict[str, Any]:
    """A hub that has nfcorpus; what it serves may be changed."""
    content: dict[str, Any] = {
        "corpus": [{"_id": "007", "title": None, "text": "x"}, doc_row("d2")],
        "queries": [{"_id": "q1", "title": "", "text": "what"}],
        "qrels": "query-id\tcorpus-id\tscore\nq1\t007\t2\n",
    }

    def load(repository: str, part: str, *, split: str) -> Any:
        assert (repository, part) == ("BeIR/nfcorpus", split)
        return content[part]

    def file(repository: str, name: str, *, repo_type: str) -> str:
        assert (repository, repo_type) == ("BeIR/nfcorpus-qrels", "dataset")
        assert name in ("train.tsv", "validation.tsv", "test.tsv")
        (tmp_path / name).write_text(content["qrels"])
        return str(tmp_path / name)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    fake = types.SimpleNamespace(hf_hub_download=file)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return content


def doc_row(doc_id: str) -> dict[str, str]:
    return {"_id": doc_id, "title": "T", "text": "words"}


def test_hub_where_the_archive_cannot_be_reached(tmp_path: Path, hub: dict[str, Any]) -> None:
    dataset = load_dataset("nfcorpus/dev", check=False)
    assert list(dataset.corpus) == [Document("007", "x"), Document("d2", "words", "T")]
    assert dataset.queries.texts == ["what"]
    assert dataset.qrels.to_dict() == {"q1": {"007": 2}}, "ids stay strings"
    noted = json.loads(
        (tmp_path / "cache" / "datasets" / "beir" / "nfcorpus.observed.json").read_text()
    )
    assert "hub:BeIR/nfcorpus/qrels/dev.tsv" in noted


def test_hub_that_changed(tmp_path: Path, hub: dict[str, Any]) -> None:
    import shutil

    load_dataset("nfcorpus")
    shutil.rmtree(tmp_path / "cache" / "datasets" / "beir" / "nfcorpus")
    hub["corpus"].append(doc_row("d3"))
    with pytest.raises(DataError, match=r"hub:BeIR/nfcorpus/corpus\.jsonl: its SHA-256 is"):
        load_dataset("nfcorpus")
    assert hidden(tmp_path / "cache" / "datasets") == []


def test_two_processes_fetch_once(
    tmp_path: Path, served: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    from retrievekit.store.files import Lock

    lock = tmp_path / "cache" / "datasets" / ".scifact.lock"
    lock.parent.mkdir(parents=True)
    held = Lock(lock)
    found: list[Path] = []
    with caplog.at_level(logging.INFO):
        waiting = threading.Thread(target=lambda: found.append(fetch.obtain(find("scifact")[0])))
        waiting.start()
        while "waiting for another process" not in caplog.text:
            waiting.join(0.01)
        folder = folder_of(tmp_path / "cache" / "datasets" / "beir" / "scifact")
        held.release()
        waiting.join(10)
    assert found == [folder]
    assert served == []


def test_archive_url() -> None:
    assert Archive("scifact", 1, "x").url == (
        "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/scifact.zip"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("own_document: equal\nown_document: none\n", 2),
        ("splits:\n  test: {queries: 1}\n  test: {queries: 2}\n", 3),
    ],
)
def test_a_property_given_twice_is_no_last_word(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=rf"dataset\.yaml:{line}: '.*' is given twice"):
        read_properties(path)
