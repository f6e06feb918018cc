"""Crashes, failures and power loss at the steps of a build, an update and a merge.

The suite takes every eleventh step, from one that the seed chooses, and the last; the campaign
takes every single one.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from retrievekit.corpus import Document
from retrievekit.errors import FormatVersionError, StoreError
from retrievekit.index import inverted
from retrievekit.index.inverted import PostingsBuilder
from retrievekit.store.commit import vacuum
from retrievekit.store.files import Files, naming_space
from retrievekit.store.segment import SegmentWriter
from retrievekit.store.verify import verify
from retrievekit.testing import FaultFS, IndexCase, SimulatedCrash, index_cases

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OLD = [Document("a", "cats purr"), Document("b", "dogs bark"), Document("c", "birds sing")]
BM25 = index_cases()["bm25"]


def build(case: IndexCase, path: Path) -> None:
    case.build(OLD, path)


def update(case: IndexCase, path: Path) -> None:
    with case.open(path).writer() as writer:
        writer.add([Document("d", "fish swim")])
        writer.upsert([Document("a", "cats sleep")])
        writer.delete(["b"])


def merge(case: IndexCase, path: Path) -> None:
    with case.open(path).writer() as writer:
        writer.delete(["c"])
        writer.compact()


Work = Callable[[IndexCase, Path], None]
WORKS = pytest.mark.parametrize("work", [build, update, merge])
STRIDES = pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.campaign)])


def chosen(steps: int, stride: int, seed: int) -> list[int]:
    """The steps to try, from 1."""
    return sorted({*range(1 + seed % stride, steps + 1, stride), steps})


def state(case: IndexCase, path: Path) -> dict[str, str] | None:
    """All documents of an index, read and verified; None when there is no index."""
    try:
        index = case.open(path)
    except FormatVersionError:
        return None
    assert verify(path, deep=True).ok
    assert index.corpus is not None
    found = {document.doc_id: document.text for document in index.corpus}
    assert {hit.doc_id for hit in index.searcher(k=9).search("cats dogs birds fish")} <= set(found)
    return found


def prepared(
    case: IndexCase, work: Work, folder: Path
) -> tuple[dict[str, str] | None, dict[str, str]]:
    """The folder before the work, and the states before and after it."""
    if work is not build:
        build(case, folder / "before")
    before = state(case, folder / "before")
    copy = folder / "after"
    if work is not build:
        shutil.copytree(folder / "before", copy)
    with FaultFS() as system:
        work(case, copy)
    after = state(case, copy)
    assert after is not None
    assert len(system.steps) > 20
    (folder / "steps").write_text(str(len(system.steps)))
    return before, after


@STRIDES
@WORKS
@pytest.mark.parametrize("lost", [None, "drop", "truncate", "zero"])
def test_a_crash_at_any_step_leaves_the_old_or_the_new(
    index_case: IndexCase,
    work: Work,
    lost: str | None,
    stride: int,
    campaign_seed: int,
    tmp_path: Path,
) -> None:
    before, after = prepared(index_case, work, tmp_path)
    seen = set()
    steps = int((tmp_path / "steps").read_text())
    for number in chosen(steps, stride, campaign_seed):
        path = tmp_path / f"at-{number}"
        if work is not build:
            shutil.copytree(tmp_path / "before", path)
        system = FaultFS(crash_at=number, lost=lost or "drop")  # type: ignore[arg-type]
        with pytest.raises(SimulatedCrash), system:
            work(index_case, path)
        if lost is not None:
            system.power_loss()
        found = state(index_case, path)
        assert found in (before, after), f"step {number}: {system.steps[-1]}"
        seen.add(found == after)
        if found is not None:
            vacuum(path)
            assert state(index_case, path) == found
        # Whatever was left, the work can be done again.
        if found != after:
            work(index_case, path)
            assert state(index_case, path) == after
        shutil.rmtree(path, ignore_errors=True)
    # The last step of a build may be the one that makes it durable; else later ones clear away.
    assert seen == {False, True} or (work is build and lost and seen == {False})


@STRIDES
@WORKS
@pytest.mark.parametrize("lasting", [False, True])
def test_a_failure_at_any_step_is_told_and_leaves_a_whole_index(
    index_case: IndexCase,
    work: Work,
    lasting: bool,
    stride: int,
    campaign_seed: int,
    tmp_path: Path,
) -> None:
    before, after = prepared(index_case, work, tmp_path)
    steps = int((tmp_path / "steps").read_text())
    for number in chosen(steps, stride, campaign_seed):
        path = tmp_path / f"at-{number}"
        if work is not build:
            shutil.copytree(tmp_path / "before", path)
        system = FaultFS(fail_at=number, error=errno.ENOSPC, lasting=lasting)
        failed: OSError | None = None
        try:
            with system:
                work(index_case, path)
        except OSError as why:
            failed = why
        assert failed is None or failed.errno == errno.ENOSPC
        told = str(failed)
        full, in_place = "disk is full" in told, "is in place" in told
        assert not isinstance(failed, StoreError) or full != in_place
        found = state(index_case, path)
        assert found in (before, after), f"step {number}: {system.steps[-1]}"
        assert failed is not None or found == after
        # What is told is so.
        assert "nothing was committed" not in told or found == before
        assert not in_place or found == after
        if found != after:
            work(index_case, path)
            assert state(index_case, path) == after
        shutil.rmtree(path, ignore_errors=True)


def test_acknowledged_commits_survive_a_power_loss(tmp_path: Path) -> None:
    build(BM25, tmp_path / "x")
    system = FaultFS()
    with system:
        update(BM25, tmp_path / "x")
    expected = state(BM25, tmp_path / "x")
    system.power_loss()
    assert state(BM25, tmp_path / "x") == expected


def test_the_twin_notices_a_missing_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Break the store once: without syncing the folder the rename of CURRENT is lost.
    build(BM25, tmp_path / "x")
    before = state(BM25, tmp_path / "x")
    system = FaultFS()
    real = FaultFS.sync_folder
    monkeypatch.setattr(
        FaultFS, "sync_folder", lambda self, f: None if f == tmp_path / "x" else real(self, f)
    )
    with system:
        update(BM25, tmp_path / "x")
    assert state(BM25, tmp_path / "x") != before
    system.power_loss()
    with pytest.raises(StoreError, match="missing"):  # the old name came back, its files did not
        state(BM25, tmp_path / "x")


LOST = pytest.mark.parametrize(
    ("lost", "left"), [("drop", None), ("truncate", b"01234"), ("zero", bytes(10))]
)


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@LOST
@pytest.mark.parametrize("named", ["neither", "folder", "both"])
def test_an_unsynced_file_is_lost_in_three_ways(
    lost: Literal["drop", "truncate", "zero"],
    left: bytes | None,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if named == "neither":
        monkeypatch.setattr(Files, "make_folder", lambda self, folder: folder.mkdir())
    system = FaultFS(lost=lost)
    system.make_folder(tmp_path / "x")
    writer = system.create(tmp_path / "x" / "file")
    writer.write(b"0123456789")
    if named == "both":
        system.sync_folder(tmp_path / "x")
    system.power_loss()
    assert content(tmp_path / "x" / "file") == left
    del writer  # what it had in its buffer does not come after
    assert content(tmp_path / "x" / "file") == left


@pytest.mark.parametrize("lost", ["drop", "truncate", "zero"])
def test_only_both_syncs_keep_a_file(
    lost: Literal["drop", "truncate", "zero"], tmp_path: Path
) -> None:
    system = FaultFS(lost=lost)
    system.write(tmp_path / "kept", b"0123456789")
    system.sync_folder(tmp_path)
    system.write(tmp_path / "nameless", b"0123456789")
    system.power_loss()
    assert content(tmp_path / "kept") == b"0123456789"
    assert content(tmp_path / "nameless") is None


@LOST
@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("before", [None, b"before"])
def test_a_rename_does_not_make_content_durable(
    lost: Literal["drop", "truncate", "zero"],
    left: bytes | None,
    synced: bool,
    before: bytes | None,
    tmp_path: Path,
) -> None:
    system = FaultFS(lost=lost)
    target = tmp_path / "file"
    if before is not None:
        target.write_bytes(before)
    writer = system.create(tmp_path / "file.new")
    writer.write(b"0123456789")
    system.rename(tmp_path / "file.new", target)
    if synced:
        system.sync_folder(tmp_path)
    elif lost == "drop":
        left = before  # the rename is undone; else it came to the disk before the content
    system.power_loss()
    assert content(target) == left
    assert content(tmp_path / "file.new") is None


def test_a_sync_after_a_rename_counts(tmp_path: Path) -> None:
    system = FaultFS(lost="zero")
    writer = system.create(tmp_path / "file.new")
    writer.write(b"0123456789")
    system.rename(tmp_path / "file.new", tmp_path / "file")
    writer.close()
    system.sync_folder(tmp_path)
    system.power_loss()
    assert content(tmp_path / "file") == b"0123456789"


@LOST
def test_an_undone_rename_brings_an_unsynced_target_back(
    lost: Literal["drop", "truncate", "zero"], left: bytes | None, tmp_path: Path
) -> None:
    system = FaultFS(lost=lost)
    system.create(tmp_path / "file").write(b"0123456789")
    system.unsynced[tmp_path / "file"].abort()
    system.sync_folder(tmp_path)
    system.write(tmp_path / "file.new", b"another")
    system.rename(tmp_path / "file.new", tmp_path / "file")
    system.power_loss()
    assert content(tmp_path / "file") == left


def test_a_rename_out_of_a_folder_that_is_gone_is_undone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    system = FaultFS()
    system.make_folder(tmp_path / "x")
    system.write(tmp_path / "x" / "file", b"0123456789")
    system.rename(tmp_path / "x" / "file", tmp_path / "file")
    system.remove(tmp_path / "x")
    system.power_loss()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert content(tmp_path / "file") == b"before"


def test_a_replacement_lost_twice_leaves_the_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"first")
    system = FaultFS()
    for data in (b"second", b"third"):
        system.write(tmp_path / "file.new", data)
        system.rename(tmp_path / "file.new", tmp_path / "file")
    system.power_loss()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert content(tmp_path / "file") == b"first"


@pytest.mark.parametrize("lost", ["drop", "truncate", "zero"])
def test_a_folder_whose_parent_was_not_synced_is_lost(
    lost: Literal["drop", "truncate", "zero"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = FaultFS(lost=lost), FaultFS(lost=lost)
    kept.make_folder(tmp_path / "a" / "b")
    monkeypatch.setattr(Files, "make_folder", lambda self, f: f.mkdir(parents=True, exist_ok=True))
    gone.make_folder(tmp_path / "c" / "d")
    for system, folder in ((kept, tmp_path / "a" / "b"), (gone, tmp_path / "c" / "d")):
        system.write(folder / "file", b"0123456789")
        system.sync_folder(folder)
        system.power_loss()
    assert content(tmp_path / "a" / "b" / "file") == b"0123456789"
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("planted", [False, True])
def test_a_build_keeps_the_folders_above_it(
    planted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted:
        mkdir = partial(Path.mkdir, parents=True, exist_ok=True)
        monkeypatch.setattr(Files, "make_folder", lambda self, folder: mkdir(folder))
    system = FaultFS()
    with system:
        build(BM25, tmp_path / "a" / "b" / "c")
    system.power_loss()
    found = state(BM25, tmp_path / "a" / "b" / "c")
    assert found == (None if planted else {document.doc_id: document.text for document in OLD})


def test_what_was_removed_does_not_come_back(tmp_path: Path) -> None:
    system = FaultFS(lost="zero")
    system.make_folder(tmp_path / "x")
    system.create(tmp_path / "x" / "file").abort()
    system.rename(tmp_path / "x" / "file", tmp_path / "x" / "other")
    system.remove(tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "other").write_bytes(b"another")
    system.power_loss()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["other"]
    assert content(tmp_path / "x" / "other") == b"another"


def test_the_real_system_syncs_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []

    def fsync(fd: int) -> None:
        synced.append((os.fstat(fd).st_ino, os.fstat(fd).st_size))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    Files().make_folder(tmp_path / "x")
    assert [inode for inode, _ in synced] == [tmp_path.stat().st_ino]
    Files().replace(tmp_path / "x" / "file", b"0123456789")
    assert synced[1] == ((tmp_path / "x" / "file").stat().st_ino, 10)  # nothing left in a buffer
    assert [inode for inode, _ in synced[2:]] == [(tmp_path / "x").stat().st_ino]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("room", [0, 20, 150])
def test_a_full_disk_tells_what_the_rest_of_a_block_of_postings_needs(
    error: int, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(io.FileIO):
        def write(self, data: ReadableBuffer, /) -> int:
            fits = memoryview(data).cast("B")[: max(room - self.tell(), 0)]
            super().write(fits)
            if len(fits) < memoryview(data).nbytes:
                raise OSError(error, os.strerror(error))
            return len(fits)

    segment = SegmentWriter(tmp_path / "000001-00", Files())
    builder = PostingsBuilder(segment, tmp_path)
    for values in ({"cats": 1, "purr": 2}, {}, {"birds": 1, "cats": 3, "sing": 1, "Ä": 1}):
        builder.add(values)
    monkeypatch.setattr(inverted, "open", Small, raising=False)
    # 6 postings by term and by document, at 8 bytes; 3 lengths at 8.
    message = (
        "Input/output" if error == errno.EIO else f"at least {2 * 6 * 8 + 3 * 8 - room:,} bytes"
    )
    if room >= 120:
        builder.finish()
    else:
        with pytest.raises(OSError, match=message) as told, naming_space(tmp_path):
            builder.finish()
        assert isinstance(told.value, StoreError) == (error != errno.EIO)
    segment.abort()
