"""Crashes, failures and power loss at every single step of a build, an update and a merge."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from retrievekit.corpus import Document
from retrievekit.errors import FormatVersionError, StoreError
from retrievekit.index.base import Index
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.store.commit import vacuum
from retrievekit.store.verify import verify
from retrievekit.testing import FaultFS, SimulatedCrash, ToyEncoder

OLD = [Document("a", "cats purr"), Document("b", "dogs bark"), Document("c", "birds sing")]
ENCODER = ToyEncoder(dim=8)


def opened(path: Path) -> Index:
    try:
        return BM25Index.open(path)
    except FormatVersionError as why:
        if "of kind" not in str(why):
            raise
        return DenseIndex.open(path, ENCODER)


def build(kind: str, path: Path) -> None:
    if kind == "bm25":
        BM25Index.build(OLD, path)
    else:
        DenseIndex.build(OLD, ENCODER, path)


def update(kind: str, path: Path) -> None:
    with opened(path).writer() as writer:
        writer.add([Document("d", "fish swim")])
        writer.upsert([Document("a", "cats sleep")])
        writer.delete(["b"])


def merge(kind: str, path: Path) -> None:
    with opened(path).writer() as writer:
        writer.delete(["c"])
        writer.compact()


Work = Callable[[str, Path], None]
WORKS = pytest.mark.parametrize("work", [build, update, merge])
KINDS = pytest.mark.parametrize("kind", ["bm25", "dense"])


def state(path: Path) -> dict[str, str] | None:
    """All documents of an index, read and verified; None when there is no index."""
    try:
        index = opened(path)
    except FormatVersionError:
        return None
    assert verify(path, deep=True).ok
    assert index.corpus is not None
    found = {document.doc_id: document.text for document in index.corpus}
    assert {hit.doc_id for hit in index.searcher(k=9).search("cats dogs birds fish")} <= set(found)
    return found


def prepared(kind: str, work: Work, folder: Path) -> tuple[dict[str, str] | None, dict[str, str]]:
    """The folder before the work, and the states before and after it."""
    if work is not build:
        build(kind, folder / "before")
    before = state(folder / "before")
    copy = folder / "after"
    if work is not build:
        shutil.copytree(folder / "before", copy)
    with FaultFS() as system:
        work(kind, copy)
    after = state(copy)
    assert after is not None
    assert len(system.steps) > 20
    (folder / "steps").write_text(str(len(system.steps)))
    return before, after


@WORKS
@KINDS
@pytest.mark.parametrize("lost", [None, "drop", "truncate", "zero"])
def test_a_crash_at_any_step_leaves_the_old_or_the_new(
    kind: str, work: Work, lost: str | None, tmp_path: Path
) -> None:
    before, after = prepared(kind, work, tmp_path)
    seen = set()
    steps = int((tmp_path / "steps").read_text())
    for number in range(1, steps + 1):
        path = tmp_path / f"at-{number}"
        if work is not build:
            shutil.copytree(tmp_path / "before", path)
        system = FaultFS(crash_at=number, lost=lost or "drop")  # type: ignore[arg-type]
        with pytest.raises(SimulatedCrash), system:
            work(kind, path)
        if lost is not None:
            system.power_loss()
        found = state(path)
        assert found in (before, after), f"step {number}: {system.steps[-1]}"
        seen.add(found == after)
        if found is not None:
            vacuum(path)
            assert state(path) == found
        # Whatever was left, the work can be done again.
        if found != after:
            work(kind, path)
            assert state(path) == after
        shutil.rmtree(path, ignore_errors=True)
    # A build's last step makes it durable; later ones of an update only clear away.
    assert seen == ({False} if work is build and lost else {False, True})


@WORKS
@KINDS
@pytest.mark.parametrize("lasting", [False, True])
def test_a_failure_at_any_step_is_told_and_leaves_a_whole_index(
    kind: str, work: Work, lasting: bool, tmp_path: Path
) -> None:
    before, after = prepared(kind, work, tmp_path)
    steps = int((tmp_path / "steps").read_text())
    for number in range(1, steps + 1):
        path = tmp_path / f"at-{number}"
        if work is not build:
            shutil.copytree(tmp_path / "before", path)
        system = FaultFS(fail_at=number, error=errno.ENOSPC, lasting=lasting)
        failed: OSError | None = None
        try:
            with system:
                work(kind, path)
        except OSError as why:
            failed = why
        assert failed is None or failed.errno == errno.ENOSPC
        assert not isinstance(failed, StoreError) or "disk is full" in str(failed)
        found = state(path)
        assert found in (before, after), f"step {number}: {system.steps[-1]}"
        assert failed is not None or found == after
        if found != after:
            work(kind, path)
            assert state(path) == after
        shutil.rmtree(path, ignore_errors=True)


def test_acknowledged_commits_survive_a_power_loss(tmp_path: Path) -> None:
    build("bm25", tmp_path / "x")
    system = FaultFS()
    with system:
        update("bm25", tmp_path / "x")
    expected = state(tmp_path / "x")
    system.power_loss()
    assert state(tmp_path / "x") == expected


def test_the_twin_notices_a_missing_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Break the store once: without syncing the folder the rename of CURRENT is lost.
    build("bm25", tmp_path / "x")
    before = state(tmp_path / "x")
    system = FaultFS()
    real = FaultFS.sync_folder
    monkeypatch.setattr(
        FaultFS, "sync_folder", lambda self, f: None if f == tmp_path / "x" else real(self, f)
    )
    with system:
        update("bm25", tmp_path / "x")
    assert state(tmp_path / "x") != before
    system.power_loss()
    with pytest.raises(StoreError, match="missing"):  # the old name came back, its files did not
        state(tmp_path / "x")
