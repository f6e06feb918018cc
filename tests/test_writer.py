"""The writer: merges beside updates, memory budgets, deletes by condition, and what errors keep."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.corpus import Document
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    IndexExistsError,
    LockedError,
    StoreError,
)
from retrievekit.index import budget
from retrievekit.index.base import Index
from retrievekit.index.lookup import rows_in
from retrievekit.index.merging import FACTOR, crowded
from retrievekit.queries import Queries
from retrievekit.store.commit import vacuum
from retrievekit.store.verify import verify
from retrievekit.testing import FaultFS, IndexCase, index_cases

QUERIES = Queries.from_texts(["cat", "dog bird", "snow wood"])
WORDS = ["cat", "dog", "bird", "snow", "wood"]
ALL = index_cases()
BM25 = ALL["bm25"]
CASES = pytest.mark.parametrize("case", ALL.values(), ids=ALL)


def documents(count: int, first: int = 0) -> list[Document]:
    return [
        Document(f"d{n}", f"{WORDS[n % 5]} {WORDS[n * 7 % 3]}", "", {"n": n})
        for n in range(first, first + count)
    ]


def hits(index: Index) -> list[list[tuple[str, float]]]:
    return [[(hit.doc_id, hit.score) for hit in found] for found in index.searcher(k=1000)(QUERIES)]


def assert_same(case: IndexCase, index: Index, expected: list[Document]) -> None:
    fresh = case.build(expected)
    assert set(index.ids) == {d.doc_id for d in expected}
    if case.exact:
        assert index.fingerprint == fresh.fingerprint
        assert hits(index) == hits(fresh)
    assert verify(index.path, deep=True).ok


@CASES
def test_a_compaction_beside_its_writer(case: IndexCase) -> None:
    index = case.build(documents(20))
    with index.writer(merge="never") as writer:
        writer.add(documents(10, 20))
        writer.delete(["d3", "d25"])
        writer.compact(wait=False)
        writer.delete(["d4", "d29"])
        writer.add(documents(5, 40))
        writer.upsert([Document("d5", "wood wood"), Document("d41", "snow")])
        with pytest.raises(DuplicateIdError):
            writer.add([Document("d6", "x")])
        writer.delete(["d41"])
    after = index.reopen()
    gone = {"d3", "d25", "d4", "d29", "d5", "d41"}
    expected = [d for d in documents(30) + documents(5, 40) if d.doc_id not in gone]
    assert_same(case, after, [*expected, Document("d5", "wood wood")])
    # The sources became one segment; what was deleted since is a bitmap on it.
    assert after.segments[0].record.documents == 28
    assert next(iter(after.manifest.tombstones.values())).deleted == 3


@CASES
def test_a_compaction_given_up_leaves_nothing(case: IndexCase, tmp_path: Path) -> None:
    index = case.build(documents(300), tmp_path / "x")
    names = sorted(p.name for p in tmp_path.rglob("*"))
    writer = index.writer()
    writer.delete(["d1"])
    writer.compact(wait=False)
    writer.rollback()
    assert sorted(p.name for p in tmp_path.rglob("*")) == names
    assert_same(case, index.reopen(), documents(300))


@CASES
def test_many_small_updates_make_few_segments(case: IndexCase) -> None:
    index = case.build(documents(1))
    for n in range(1, 120):
        with index.writer() as writer:
            writer.add(documents(1, n))
            if n % 4 == 0:
                writer.delete([f"d{n - 2}"])
    after = index.reopen()
    assert len(after.segments) < 2 * FACTOR
    assert_same(case, after, [d for n, d in enumerate(documents(120)) if n % 4 != 2 or n == 118])


@CASES
def test_a_memory_budget_makes_segments_and_no_other_answer(
    case: IndexCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "HELD_BESIDES", 0)
    monkeypatch.setattr(budget, "HELD_PER_BYTE", (64 << 20) // 1000)

    def stream() -> Iterator[Document]:
        yield from documents(20_000)

    index = case.build(documents(3))
    told: list[tuple[int, int | None]] = []
    with index.writer(memory_budget=64 << 20, merge="never") as writer:
        assert writer.upsert(stream(), progress=lambda *p: told.append(p)) == 20_000
        assert told[-1] == (20_000, None)
        assert sorted(told) == told
        twice = [*documents(9_000, 30_000), Document("d30000", "again")]
        with pytest.raises(DuplicateIdError, match="'d30000' comes twice"):
            writer.add(iter(twice))
    after = index.reopen()
    assert len(after.segments) > 3
    assert len(after) == 20_000
    if case.exact:
        assert hits(after) == hits(case.build(documents(20_000)))
    names = {p.name for p in (index.path / "segments").iterdir()}
    assert names == {segment.name for segment in after.manifest.segments}


def test_a_memory_budget_below_the_interpreters_own_needs_is_refused() -> None:
    index = BM25.build(documents(3))
    with pytest.raises(DataError, match="memory budget of 1,000 bytes is too small"):
        index.writer(memory_budget=1000)
    with index.writer() as writer:  # no lock was left behind
        writer.delete(["d0"])


@CASES
def test_deleting_by_condition(case: IndexCase) -> None:
    index = case.build(documents(30))
    with index.writer() as writer:
        writer.add(documents(10, 30))
        assert writer.delete(["d5"]) == 1
        assert writer.delete(["d3", "d35"], where="n >= 33 or n < 4") == 11
        assert writer.delete(where="n < 4") == 0
    assert_same(case, index.reopen(), [d for n, d in enumerate(documents(33)) if n >= 4 and n != 5])


def test_a_single_string_is_no_list_of_ids() -> None:
    index = BM25.build(documents(3))
    with index.writer() as writer, pytest.raises(DataError, match=r"delete\(\['d1'\]\)"):
        writer.delete("d1")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=4)


@given(st.sets(texts, max_size=30), st.lists(texts, max_size=10, unique=True), st.data())
def test_ids_are_found_alike_by_search_and_by_scan(
    stored: set[str], wanted: list[str], data: Any
) -> None:
    case = BM25
    index = case.build([Document(doc_id, "x") for doc_id in sorted(stored, key=hash)])
    gone = data.draw(st.sets(st.sampled_from(sorted(stored))) if stored else st.just(set()))
    with index.writer() as writer:
        writer.delete(gone)
    segment = index.reopen().segments[0]
    ids = list(index.ids)
    expected = [ids.index(w) if w in stored and w not in gone else -1 for w in wanted]
    with pytest.MonkeyPatch.context() as patch:
        for rows_per_search in (0, 10**9):
            patch.setattr("retrievekit.index.lookup.ROWS_PER_SEARCH", rows_per_search)
            assert rows_in(segment, wanted).tolist() == expected
            assert rows_in(segment, ["\ud800"]).tolist() == [-1]


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    index = BM25.build(documents(3), tmp_path / "x")
    with index.writer(), pytest.raises(LockedError, match="this process has an update"):
        vacuum(tmp_path / "x")
    with index.writer():
        (tmp_path / "x" / "lock").write_bytes(b"process 1 on elsewhere\n")
        with pytest.raises(LockedError, match=r"another process \(1 on elsewhere\)"):
            vacuum(tmp_path / "x")
    # What a killed writer leaves in the file stands in nobody's way, nor does any damage to it.
    for left in (b"process 1 on elsewhere\n", b"\xff\xfe", b""):
        (tmp_path / "x" / "lock").write_bytes(left)
        with index.writer() as writer:
            writer.upsert(documents(1))


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    case = BM25

    def failing() -> Iterator[Document]:
        yield from documents(10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        case.build(failing(), tmp_path / "x")  # type: ignore[arg-type]
    assert sorted(p.name for p in (tmp_path / "x").rglob("*")) == ["lock", "segments"]
    assert len(case.build(documents(3), tmp_path / "x")) == 3
    with pytest.raises(IndexExistsError):
        case.build(documents(3), tmp_path / "x")


@CASES
def test_a_full_disk_is_told_with_the_bytes_needed(case: IndexCase, tmp_path: Path) -> None:
    index = case.build(documents(5), tmp_path / "x")
    big = [Document("big", "snow " * 100_000)]
    system = FaultFS()
    with system, index.writer() as writer:
        writer.add(big)
        writer.rollback()
    at = next(n for n, (what, name) in enumerate(system.steps, 1) if name == "text.bytes")
    steps = [n for n, step in enumerate(system.steps, 1) if step == ("sync", "text.bytes")]
    assert steps[0] > at

    def full() -> None:
        with (
            FaultFS(fail_at=steps[0], error=errno.ENOSPC, lasting=True),
            index.writer() as failing,
        ):
            failing.add(big)

    with pytest.raises(StoreError, match=r"at least [\d,]+ bytes more are needed, [\d,]+ are free"):
        full()
    assert_same(case, index.reopen(), documents(5))


def test_a_merge_asks_for_room_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = BM25
    index = case.build(documents(50), tmp_path / "x")
    with index.writer() as writer:
        writer.delete(["d0"])
    usage = namedtuple("usage", "total used free")
    real: Callable[[Path], Any] = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 10))
    with index.writer() as writer, pytest.raises(StoreError, match=r"merging needs about [0-9,]+"):
        writer.compact()
    monkeypatch.setattr(shutil, "disk_usage", real)
    assert_same(case, index.reopen(), documents(49, 1))


def test_only_what_is_asked_for_is_verified(tmp_path: Path) -> None:
    index = BM25.build(documents(5), tmp_path / "x")
    hashes = index.reopen().segments[0]["hashes"]
    rows = np.array([4, 0, 0])
    assert np.array_equal(hashes.take(rows), hashes.all()[rows])
    assert hashes.take(rows[:0]).shape == (0, 32)


def test_merging_rewrites_each_document_a_few_times() -> None:
    """A log-structured merge: so many sizes below the largest, so often is a document written."""
    sizes: list[int] = []
    written = 0
    for _ in range(3_000):
        sizes.append(1)
        while several := crowded([segment(n) for n in sizes]):
            merged = [s.n_live for s in several]
            for n in merged:
                sizes.remove(n)
            sizes.append(sum(merged))
            written += sum(merged)
    assert sum(sizes) == 3_000
    assert len(sizes) < 4 * FACTOR
    assert written < 5 * 3_000


def segment(n_live: int) -> Any:
    return SimpleNamespace(n_live=n_live)


@CASES
def test_a_rollback_stops_a_merge_wherever_it_is(case: IndexCase, tmp_path: Path) -> None:
    index = case.build(documents(400), tmp_path / "x")
    names = sorted(p.name for p in tmp_path.rglob("*"))
    for pause in (0.0, 0.001, 0.003, 0.01):
        writer = index.writer()
        writer.delete(["d1"])
        writer.compact(wait=False)
        time.sleep(pause)
        writer.rollback()
        assert sorted(p.name for p in tmp_path.rglob("*")) == names
        with index.writer():
            pass


def test_a_merge_that_fails_leaves_the_rest_of_the_update(tmp_path: Path) -> None:
    index = BM25.build(documents(40), tmp_path / "x")
    system = FaultFS()
    with system, index.writer() as writer:
        writer.delete(["d0"])
        begun = len(system.steps)
        writer.compact()
        writer.rollback()
    with FaultFS(fail_at=begun + 20, error=errno.EIO), index.writer() as writer:
        writer.delete(["d0"])
        with pytest.raises(OSError, match="Input/output"):
            writer.compact()
        writer.add(documents(1, 60))
    assert_same(BM25, index.reopen(), [*documents(39, 1), *documents(1, 60)])
    names = {p.name for p in (tmp_path / "x" / "segments").iterdir()}
    assert names == {record.name for record in index.reopen().manifest.segments}


def test_a_forked_child_cannot_touch_the_update(tmp_path: Path) -> None:
    index = BM25.build(documents(5), tmp_path / "x")
    temporary = BM25.build(documents(5))
    writer = index.writer()
    writer.add(documents(1, 10))
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        with contextlib.suppress(BaseException):
            try:
                writer.commit()
            except StoreError as why:
                code = 0 if "forked" in str(why) else 2
            writer.rollback()
            del temporary
            gc.collect()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(LockedError, match="this process has an update of it open already"):
        index.writer()
    writer.commit()
    assert_same(BM25, index.reopen(), [*documents(5), *documents(1, 10)])
    assert len(temporary.reopen()) == 5


def test_a_removed_lock_file_lets_nobody_overwrite(tmp_path: Path) -> None:
    index = BM25.build(documents(5), tmp_path / "x")
    first = index.writer()
    first.add(documents(1, 10))
    (tmp_path / "x" / "lock").unlink()
    with index.writer() as second:
        second.add(documents(1, 20))
    with pytest.raises(StoreError, match="lost its lock"):
        first.commit()
    first.rollback()
    assert_same(BM25, index.reopen(), [*documents(5), *documents(1, 20)])


def test_files_that_vanish_before_the_commit_are_noticed(tmp_path: Path) -> None:
    index = BM25.build(documents(5), tmp_path / "x")
    writer = index.writer()
    writer.add(documents(1, 10))
    writer.prepare()
    next((tmp_path / "x").rglob("000002-00/hashes")).unlink()
    with pytest.raises(StoreError, match="missing or cut since it was written"):
        writer.commit()
    writer.rollback()
    assert_same(BM25, index.reopen(), documents(5))


def test_an_index_whose_current_was_lost_is_not_overwritten(tmp_path: Path) -> None:
    index = BM25.build(documents(5), tmp_path / "x")
    with index.writer() as writer:
        writer.add(documents(1, 10))
    kept = (tmp_path / "x" / "CURRENT").read_bytes()
    (tmp_path / "x" / "CURRENT").unlink()
    with pytest.raises(IndexExistsError, match="CURRENT is missing"):
        BM25.build(documents(2), tmp_path / "x")
    (tmp_path / "x" / "CURRENT").write_bytes(kept)
    assert len(index.reopen()) == 6


def test_the_first_commit_syncs_the_folders_own_name(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    system = FaultFS()
    with system:
        BM25.build(documents(2), tmp_path / "x")
    assert ("sync folder", tmp_path.name) in system.steps


def test_foreign_files_do_not_stop_updates_but_builds(tmp_path: Path) -> None:
    index = BM25.build(documents(2), tmp_path / "x")
    (tmp_path / "x" / "README.md").write_text("mine")
    with index.writer() as writer:
        writer.delete(["d0"])
    vacuum(tmp_path / "x")
    assert (tmp_path / "x" / "README.md").read_text() == "mine"
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "README.md").write_text("mine")
    with pytest.raises(IndexExistsError, match=r"README\.md"):
        BM25.build(documents(2), tmp_path / "y", overwrite=True)


def test_a_removed_index_stays_removed(tmp_path: Path) -> None:
    index = BM25.build(documents(2), tmp_path / "x")
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(StoreError, match="no such folder"):
        index.writer()
    assert not (tmp_path / "x").exists()


def test_a_failed_commit_can_be_tried_again(tmp_path: Path) -> None:
    index = BM25.build(documents(2), tmp_path / "x")
    system = FaultFS()
    with system, index.writer() as writer:
        writer.add(documents(1, 5))
        writer.prepare()
        at = len(system.steps)
        writer.rollback()
    with FaultFS(fail_at=at + 3, error=errno.EIO):
        writer = index.writer()
        writer.add(documents(1, 5))
        writer.prepare()
        with pytest.raises(OSError, match="Input/output"):
            writer.commit()
        writer.commit()
    assert_same(BM25, index.reopen(), [*documents(2), *documents(1, 5)])


def test_updates_that_change_nothing_make_no_generation(tmp_path: Path) -> None:
    index = BM25.build(documents(3), tmp_path / "x")
    with index.writer() as writer:
        writer.compact()
        writer.delete(["nobody"], missing="ignore")
        writer.add([])
    assert index.reopen().manifest_hash == index.manifest_hash


def test_a_dropped_writer_keeps_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = BM25.build(documents(3), tmp_path / "x")
    writer = index.writer()
    writer.delete(["d0"])
    del writer
    gc.collect()
    assert "dropped without a commit" in caplog.text
    with index.writer() as another:
        another.delete(["d1"])
    assert_same(BM25, index.reopen(), [documents(3)[0], documents(3)[2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda writer: writer.delete([1, 2]), "ids are strings; got 1"),
        (lambda writer: writer.delete(["d0"], missing="ingore"), "missing is 'ingore'"),
        (lambda writer: writer.index.writer(merge="nevr"), "merge is 'nevr'"),
    ],
)
def test_misspelt_arguments(call: Callable[[Any], object], message: str) -> None:
    index = BM25.build(documents(3))
    with index.writer() as writer, pytest.raises(DataError, match=message):
        call(writer)
    assert len(index.reopen()) == 3


def test_lists_of_numbers_hash_alike_whatever_joined_them() -> None:
    first = [Document("a", "x", "", {"t": [1, 2]}), Document("b", "x", "", {"s": {"u": 1}})]
    more = [Document("c", "x", "", {"t": [1.5]}), Document("d", "x", "", {"s": {"v": 2}})]
    index = BM25.build(first)
    with index.writer() as writer:
        writer.add(more)
    assert index.reopen().fingerprint == BM25.build([*first, *more]).fingerprint
    with index.writer() as writer:
        writer.compact()
    assert index.reopen().fingerprint == BM25.build([*first, *more]).fingerprint
