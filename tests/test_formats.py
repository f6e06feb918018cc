"""Formats: older manifests are read through upgraders, newer and retired ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retrievekit._version import __version__
from retrievekit.corpus import Document
from retrievekit.errors import CorruptIndexError, FormatVersionError
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.opening import open_index
from retrievekit.index.repair import repair
from retrievekit.store import manifest
from retrievekit.store.manifest import CURRENT, Manifest, current_bytes, read_manifest
from retrievekit.store.verify import verify

DOCUMENTS = [Document("a", "cats purr", "Cats", {"year": 2020}), Document("b", "dogs bark")]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    BM25Index.build(DOCUMENTS, tmp_path / "x.index")
    return tmp_path / "x.index"


def written(index: Path) -> dict[str, Any]:
    """The live manifest as it is on disk."""
    name = (index / CURRENT).read_text().split()[2]
    content: dict[str, Any] = json.loads((index / name).read_bytes())
    return content


def rewrite(index: Path, content: dict[str, Any]) -> None:
    """Put another manifest in place, with a ``CURRENT`` that says its format."""
    name = (index / CURRENT).read_text().split()[2]
    data = json.dumps(content).encode()
    (index / name).write_bytes(data)
    lines = current_bytes(name, data).split(b"\n")
    body = f"retrievekit-index {content['format']}\n".encode() + lines[1] + b"\n"
    (index / CURRENT).write_bytes(body + f"crc32c {manifest.crc32c(body):08x}\n".encode())


def old_layout(content: dict[str, Any]) -> dict[str, Any]:
    """A layout as a version before the first might have had it."""
    old = {**content, "format": 0, "count": content["documents"]}
    for name in ("documents", "tombstones", "text_stored"):
        del old[name]
    old["segments"] = {segment.pop("name"): segment for segment in old["segments"]}
    return old


def to_first(old: dict[str, Any]) -> dict[str, Any]:
    """From that layout to the first."""
    new = {**old, "documents": old["count"], "tombstones": {}, "text_stored": True}
    del new["count"]
    new["segments"] = [{"name": n, **segment} for n, segment in old["segments"].items()]
    return new


def test_this_version_s_layout_is_the_first() -> None:
    # Whoever raises it adds an upgrader from every version before, or says who still reads it.
    assert set(range(1, manifest.FORMAT)) == {*manifest.UPGRADERS, *manifest.RETIRED}


def test_an_older_index_lives_on(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_manifest(index)[0]
    hits = BM25Index.open(index).searcher(k=5).search("cats bark")
    rewrite(index, old_layout(written(index)))
    monkeypatch.setitem(manifest.UPGRADERS, 0, to_first)
    before = (index / CURRENT).read_bytes()
    assert read_manifest(index)[0] == expected
    opened = open_index(index)
    assert opened.searcher(k=5).search("cats bark") == hits
    assert opened.corpus is not None
    assert list(opened.corpus) == DOCUMENTS
    assert verify(index, deep=True).ok
    victim = next((index / "segments").iterdir()) / "ids.rank"
    good = victim.read_bytes()
    victim.unlink()
    assert repair(index).ok
    assert victim.read_bytes() == good
    # Nothing of that changed the manifest on disk; a commit does.
    assert (index / CURRENT).read_bytes() == before
    assert written(index)["format"] == 0
    with open_index(index).writer() as writer:
        writer.add([Document("c", "cats bark")])
        writer.delete(["b"])
    assert written(index)["format"] == manifest.FORMAT
    assert (index / CURRENT).read_bytes().startswith(b"retrievekit-index %d\n" % manifest.FORMAT)
    monkeypatch.delitem(manifest.UPGRADERS, 0)
    assert sorted(open_index(index).ids) == ["a", "c"]
    with open_index(index).writer() as writer:
        writer.compact()
    assert sorted(open_index(index).searcher(k=5).search("cats bark").doc_ids) == ["a", "c"]
    assert verify(index, deep=True).ok


def test_upgraders_follow_each_other(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(index)
    monkeypatch.setattr(manifest, "FORMAT", 4)
    steps: list[int] = []

    def step(version: int) -> Any:
        def upgrade(old: dict[str, Any]) -> dict[str, Any]:
            steps.append(version)
            return {**old, "statistics": {**old["statistics"], f"from {version}": True}}

        return upgrade

    for version in (1, 2, 3):
        monkeypatch.setitem(manifest.UPGRADERS, version, step(version))
    found = Manifest.from_bytes(json.dumps(content).encode(), index)
    assert steps == [1, 2, 3]
    assert {name for name in found.statistics if name.startswith("from")} == {
        "from 1", "from 2", "from 3",
    }  # fmt: skip
    steps.clear()
    Manifest.from_bytes(json.dumps({**content, "format": 3}).encode(), index)
    assert steps == [3]
    assert json.loads(found.to_bytes())["format"] == 4


def test_a_format_without_an_upgrader_is_refused(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(index, old_layout(written(index)))
    refused = f"format 0, which retrievekit {__version__} does not read any more"
    for work in (open_index, verify, repair):
        with pytest.raises(FormatVersionError, match=refused):
            work(index)
    monkeypatch.setitem(manifest.RETIRED, 0, "0.0.9")
    with pytest.raises(FormatVersionError, match=r"use retrievekit 0\.0\.9, or build the index"):
        open_index(index)
    # A gap further on is one too.
    monkeypatch.setattr(manifest, "FORMAT", 2)
    monkeypatch.setitem(manifest.UPGRADERS, 0, to_first)
    with pytest.raises(FormatVersionError, match="does not read any more"):
        open_index(index)
    assert len(BM25Index.build(DOCUMENTS, index, overwrite=True)) == len(DOCUMENTS)


def test_a_newer_format_is_refused(index: Path) -> None:
    rewrite(index, {**written(index), "format": manifest.FORMAT + 1})
    for work in (open_index, verify, repair):
        with pytest.raises(FormatVersionError, match="upgrade retrievekit"):
            work(index)


@pytest.mark.parametrize("version", [True, None, "1", 1.0, [1]])
def test_a_format_is_a_whole_number(index: Path, version: object) -> None:
    data = json.dumps({**written(index), "format": version}).encode()
    with pytest.raises(CorruptIndexError, match="not a manifest"):
        Manifest.from_bytes(data, index)


def test_an_upgrader_that_meets_what_nobody_wrote(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(manifest.UPGRADERS, 0, to_first)
    rewrite(index, {"format": 0})
    with pytest.raises(CorruptIndexError, match="not a manifest"):
        open_index(index)
