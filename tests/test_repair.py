"""Repair: what follows from intact files comes back byte for byte, the rest is told."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from retrievekit.cli.app import app
from retrievekit.corpus import Document
from retrievekit.errors import CorruptIndexError, LockedError, StoreError
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.derived import Derivation
from retrievekit.index.opening import open_index
from retrievekit.index.repair import RepairReport, repair
from retrievekit.store.commit import vacuum
from retrievekit.store.files import Lock
from retrievekit.store.manifest import CURRENT
from retrievekit.store.segment import SegmentReader
from retrievekit.store.verify import verify
from retrievekit.testing import FaultFS, SimulatedCrash, ToyEncoder

DOCUMENTS = [
    Document("d1", "cats purr and sleep, cats dream", "Cats", {"year": 2020, "lang": "en"}),
    Document("d2", "dogs bark at cats", "", {"year": 2021}),
    Document("d3", "", "Nothing"),
    Document("a4", "Vögel singen 🐦", "Vögel", {"lang": "de"}),
]
MORE = [Document("b5", "fish swim with cats", "Fish", {"year": 2022}), Document("d2", "dogs sleep")]

WORDS = {"text.bytes", "text.offsets", "title.bytes", "title.offsets", "metadata.arrow"}
"""What nothing else tells."""
NEVER = WORDS | {"ids.bytes", "ids.offsets"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BM25 index of two segments with a deleted row in one."""
    path = tmp_path_factory.mktemp("repair") / "x.index"
    with BM25Index.build(DOCUMENTS, path).writer() as writer:
        writer.upsert(MORE)
    return path


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "x.index"))


def content(index: Path) -> dict[str, bytes]:
    files = (p for p in index.rglob("*") if p.is_file())
    return {p.relative_to(index).as_posix(): p.read_bytes() for p in files}


def of_first(index: Path, *names: str) -> list[Path]:
    return [next(iter(sorted((index / "segments").iterdir()))) / name for name in names]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


DAMAGES = [flip, cut, Path.unlink]


def states(report: RepairReport) -> dict[str, str]:
    return {file.name: file.state for file in report.files if file.state != "ok"}


def answers(index: Path) -> object:
    opened = open_index(index)
    assert opened.corpus is not None
    texts = ("cats", "dogs sleep", "vögel fish nothing")
    return [opened.searcher(k=5).search(text) for text in texts], list(opened.corpus)


def test_a_sound_index_is_left_alone(index: Path) -> None:
    before = content(index)
    report = repair(index)
    assert report.ok
    assert {file.state for file in report.files} == {"ok"}
    assert [file.name for file in report.files] == [file.name for file in verify(index).files]
    assert content(index) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_file_comes_back_or_is_told(built: Path, tmp_path: Path, damage: object) -> None:
    expected, sound = content(built), answers(built)
    names = [name for name in expected if name.startswith(("segments/", "deleted-"))]
    assert len({name.split("/")[-1] for name in names}) > 16
    for name in names:
        if not expected[name] and damage is not Path.unlink:
            continue
        index = Path(shutil.copytree(built, tmp_path / "copy"))
        damage(index / name)  # type: ignore[operator]
        report = repair(index)
        hopeless = name.split("/")[-1] in NEVER or name.startswith("deleted-")
        assert states(report) == {name: "damaged" if hopeless else "repaired"}
        assert report.ok is not hopeless
        if hopeless:
            problem = next(file.problem for file in report.files if file.name == name)
            assert "restore it from a copy" in problem
            assert "build the index again" in problem
        else:
            assert content(index) == expected
            assert answers(index) == sound
        assert verify(index, deep=True).ok is not hopeless
        shutil.rmtree(index)


def test_chains_are_followed(index: Path) -> None:
    # Both orders of ids, hashes, and of postings and forward index what the other side still tells.
    before = content(index)
    damaged = of_first(
        index, "ids.order", "ids.rank", "hashes", "postings.rows", "forward.codes", "values",
        "postings.offsets", "forward.offsets", "terms.bytes",
    )  # fmt: skip
    for path in damaged:
        flip(path)
    assert set(states(repair(index)).values()) == {"repaired"}
    assert content(index) == before


CIRCLES = [
    {"postings.codes", "forward.codes"},
    {"postings.rows", "forward.terms"},
    {"postings.offsets", "forward.terms"},
    {"forward.offsets", "postings.rows"},
]
"""Pairs of posting files of which each follows only from the other."""


@pytest.mark.parametrize("pair", list(itertools.combinations(range(6), 2)))
def test_two_of_the_posting_files_without_words(tmp_path: Path, pair: tuple[int, int]) -> None:
    index = tmp_path / "x"
    BM25Index.build(DOCUMENTS, index, store_text=False)
    before = content(index)
    names = [f"{side}.{file}" for side in ("postings", "forward") for file in ("offsets", "codes")]
    names += ["postings.rows", "forward.terms"]
    both = {names[place] for place in pair}
    for path in of_first(index, *both):
        path.unlink()
    report = repair(index)
    lost = both in CIRCLES
    found = {name.split("/")[-1]: state for name, state in states(report).items()}
    assert found == dict.fromkeys(both, "damaged" if lost else "repaired")
    if lost:
        assert all("damaged too" in file.problem for file in report.files if not file.ok)
    else:
        assert content(index) == before


def test_without_words_hashes_are_told(tmp_path: Path) -> None:
    BM25Index.build(DOCUMENTS, tmp_path / "x", store_text=False)
    flip(of_first(tmp_path / "x", "hashes")[0])
    flip(of_first(tmp_path / "x", "ids.rank")[0])
    assert sorted(states(repair(tmp_path / "x")).values()) == ["damaged", "repaired"]


def test_an_index_without_documents(tmp_path: Path) -> None:
    BM25Index.build([], tmp_path / "x")
    before = content(tmp_path / "x")
    for name in before:
        if name.startswith("segments/"):
            (tmp_path / "x" / name).unlink()
            fine = name.split("/")[-1] not in NEVER
            assert repair(tmp_path / "x").ok is fine
            (tmp_path / "x" / name).write_bytes(before[name])
    assert repair(tmp_path / "x").ok


def test_vectors_are_not_encoded_again(tmp_path: Path) -> None:
    DenseIndex.build(DOCUMENTS, ToyEncoder(dim=8), tmp_path / "x")
    before = content(tmp_path / "x")
    for path in of_first(tmp_path / "x", "vectors", "ids.order"):
        flip(path)
    report = repair(tmp_path / "x")
    assert sorted(states(report).values()) == ["damaged", "repaired"]
    of_first(tmp_path / "x", "vectors")[0].write_bytes(
        next(data for name, data in before.items() if name.endswith("vectors"))
    )
    assert content(tmp_path / "x") == before


def test_nothing_is_accepted_that_was_not_written(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: BM25Index, segment: SegmentReader) -> Iterable[Derivation]:
        n = segment.record.documents
        yield Derivation((), ("ids.order",), lambda _: {"ids.order": np.zeros(n, np.int32)})

    monkeypatch.setattr(BM25Index, "derived", wrong)
    [path] = of_first(index, "ids.order")
    flip(path)
    damaged = path.read_bytes()
    report = repair(index)
    assert [f.problem.split("; ")[1].split(":")[0] for f in report.files if not f.ok] == [
        "what follows from other files is not what was written"
    ]
    assert path.read_bytes() == damaged


def test_files_in_a_foreign_format(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = of_first(index, "metadata.arrow")
    written, offers = path.read_bytes(), [b"rubbish", path.read_bytes()]

    def caches(self: BM25Index, segment: SegmentReader) -> Iterable[Derivation]:
        yield Derivation(("ids.bytes",), (path.name,), lambda _: {path.name: offers[0]})
        yield Derivation(("ids.rank",), (path.name,), lambda _: {path.name: offers[1]})

    monkeypatch.setattr(BM25Index, "derived", caches)
    flip(path)
    assert set(states(repair(index)).values()) == {"repaired"}
    assert path.read_bytes() == written


def damaged_copy(built: Path, path: Path) -> None:
    shutil.copytree(built, path)
    for place, damage in zip(
        of_first(path, "ids.rank", "forward.codes", "values"), DAMAGES, strict=True
    ):
        damage(place)


@pytest.mark.parametrize("lost", [None, "drop", "truncate", "zero"])
def test_a_crash_leaves_the_index_no_worse(built: Path, tmp_path: Path, lost: str | None) -> None:
    damaged_copy(built, tmp_path / "whole")
    before = {f.name for f in verify(tmp_path / "whole").files if not f.ok}
    with FaultFS() as system:
        assert repair(tmp_path / "whole").ok
    assert len(system.steps) > 20
    expected = content(built)
    seen = set()
    for number in range(1, len(system.steps) + 1):
        path = tmp_path / "crashed"
        damaged_copy(built, path)
        crashing = FaultFS(crash_at=number, lost=lost or "drop")  # type: ignore[arg-type]
        with pytest.raises(SimulatedCrash), crashing:
            repair(path)
        if lost is not None:
            crashing.power_loss()
        bad = {file.name for file in verify(path).files if not file.ok}
        assert bad <= before, f"step {number}: {crashing.steps[-1]}"
        seen.add(len(bad))
        assert repair(path).ok
        vacuum(path)
        assert content(path) == expected
        shutil.rmtree(path)
    assert seen >= {0, 1, 3} if lost is None else 3 in seen


def test_a_full_disk_is_told_and_leaves_nothing(built: Path, tmp_path: Path) -> None:
    damaged_copy(built, tmp_path / "x")
    with pytest.raises(StoreError, match="disk is full"), FaultFS(fail_at=4, error=28):
        repair(tmp_path / "x")
    assert verify(tmp_path / "x").leftovers == ()
    assert repair(tmp_path / "x").ok


def test_a_writer_at_work_keeps_repair_away(index: Path) -> None:
    with Lock(index / "lock"), pytest.raises(LockedError):
        repair(index)


def test_without_a_manifest_there_is_nothing_to_go_by(index: Path) -> None:
    (index / CURRENT).write_bytes(b"rubbish")
    with pytest.raises(CorruptIndexError, match="restore it from a copy"):
        repair(index)


def test_verify_names_what_is_not_part_of_the_index(index: Path) -> None:
    assert verify(index).leftovers == ()
    (index / "segments" / "000077-00").mkdir()
    (index / "segments" / "000077-00" / "values").write_bytes(b"")
    (index / "letter.txt").write_text("dear")
    of_first(index, "spill")[0].write_text("left")
    report = verify(index)
    assert report.ok
    spill = of_first(index, "spill")[0].relative_to(index).as_posix()
    assert sorted(report.leftovers) == sorted(["letter.txt", spill, "segments/000077-00/"])


def test_the_command_line(index: Path) -> None:
    def call(*more: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["verify", str(index), *more])
        return done.exit_code, done.stdout, done.stderr

    before = content(index)
    flip(of_first(index, "ids.rank")[0])
    (index / "segments" / "000077-00").mkdir()
    code, out, err = call()
    assert (code, out) == (1, "")
    assert "--repair" in err
    assert "not part of the index" in err
    assert "retrievekit vacuum" in err
    code, out, err = call("--repair")
    assert code == 0
    assert "as written" in out
    assert "repaired: " in err
    assert "ids.rank" in err
    vacuum(index)
    assert content(index) == before
    assert call()[2] == ""

    flip(of_first(index, "text.bytes")[0])
    code, out, err = call("--repair", "--json")
    assert code == 1
    [bad] = [file for file in json.loads(out)["files"] if not file["ok"]]
    assert bad["name"].endswith("text.bytes")
    assert bad["repaired"] is False
    assert "build the index again" in err
