"""The verbs that let an index live: add, delete, compact, vacuum, info."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retrievekit.cli.app import app
from retrievekit.corpus import Document
from retrievekit.index.bm25 import BM25Index


def call(*arguments: str, code: int = 0, stdin: str | None = None) -> str:
    done = CliRunner().invoke(app, list(arguments), input=stdin)
    assert done.exit_code == code, done.output + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def index(tmp_path: Path) -> str:
    BM25Index.build([Document("a", "cats"), Document("b", "dogs")], tmp_path / "x.index")
    return str(tmp_path / "x.index")


def lines(path: Path, *documents: tuple[str, str]) -> str:
    path.write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in documents))
    return str(path)


def test_a_life(index: str, tmp_path: Path) -> None:
    more = lines(tmp_path / "more.jsonl", ("c", "birds"), ("d", "fish"))
    assert call("add", index, more) == f"{index}: 2 documents written, 4 in the index now\n"
    assert "'c' is in the index already" in call("add", index, more, code=1)
    changed = lines(tmp_path / "changed.jsonl", ("c", "glass"), ("e", "snow"))
    found = json.loads(call("add", index, changed, "--upsert", "--json"))
    assert found == {"path": index, "written": 2, "documents": 5}
    assert "nothing was deleted" in call("delete", index, "a", "nobody", code=1)
    assert call("delete", index, "a") == f"{index}: 1 document deleted, 4 in the index now\n"
    out = call("delete", index, "-", "--ignore-missing", "--json", stdin="b\nnobody\n")
    assert json.loads(out) == {"path": index, "deleted": 1, "documents": 3}
    facts = json.loads(call("info", index, "--json"))
    assert (facts["documents"], facts["deleted"], facts["segments"]) == (3, 3, 3)
    assert "3 segments merged into one" in call("compact", index)
    assert "nothing to merge" in call("compact", index)
    facts = json.loads(call("info", index, "--json"))
    assert (facts["documents"], facts["deleted"], facts["segments"]) == (3, 0, 1)
    assert "kind         bm25" in call("info", index)
    hits = json.loads(call("search", index, "glass", "--json"))
    assert [hit["doc_id"] for hit in hits["hits"]] == ["c"]


def test_a_search_under_a_condition(tmp_path: Path) -> None:
    years = [Document(f"d{year}", "cats", "", {"year": year}) for year in range(2018, 2024)]
    BM25Index.build(years, tmp_path / "y.index")
    path = str(tmp_path / "y.index")
    hits = json.loads(call("search", path, "cats", "--where", "year >= 2022", "--json"))
    assert [hit["doc_id"] for hit in hits["hits"]] == ["d2023", "d2022"]
    assert "did you mean 'year'" in call("search", path, "cats", "--where", "yaer > 1", code=1)
    assert "^" in call("search", path, "cats", "--where", "year >", code=1)


def test_leftovers_are_removed(index: str) -> None:
    left = Path(index) / "segments" / "000009-00"
    left.mkdir()
    (left / "ids.bytes").write_bytes(b"x")
    (Path(index) / "deleted-000009-00-3").write_bytes(b"x")
    assert call("vacuum", index) == f"{index}: 2 leftovers removed\n"
    assert json.loads(call("vacuum", index, "--json")) == {"path": index, "removed": 0}
    assert not left.exists()


@pytest.mark.parametrize("verb", ["add", "delete", "compact", "vacuum", "info"])
def test_a_missing_index_is_named(verb: str, tmp_path: Path) -> None:
    more = ["x"] if verb in ("add", "delete") else []
    assert "nowhere.index" in call(verb, str(tmp_path / "nowhere.index"), *more, code=1)


def test_deleting_by_condition(tmp_path: Path) -> None:
    years = [Document(f"d{year}", "cats", "", {"year": year}) for year in range(2018, 2024)]
    path = str(tmp_path / "y.index")
    BM25Index.build(years, path)
    out = call("delete", path, "--where", "year < 2020")
    assert out == f"{path}: 2 documents deleted, 4 in the index now\n"
    out = call("delete", path, "d2020", "--where", "year = 2023", "--json")
    assert json.loads(out) == {"path": path, "deleted": 2, "documents": 2}
    assert "--where" in call("delete", path, code=2)
