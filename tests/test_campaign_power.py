"""Lost power and full disks: the old commit or the new one, told clearly, and nothing left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrievekit.store.commit import vacuum
from retrievekit.store.files import Files
from retrievekit.testing import FaultFS, IndexCase, full_disk_campaign, power_campaign
from retrievekit.testing.histories import document, strays

Tell = Callable[[object], None]


def test_losses_of_power(case_name: str, tmp_path: Path, campaign_seed: int) -> None:
    power_campaign(case_name, tmp_path, schedules=15, seed=campaign_seed)


@pytest.mark.campaign
def test_many_losses_of_power(
    case_name: str, tmp_path: Path, campaign_seed: int, tell: Tell, request: pytest.FixtureRequest
) -> None:
    wanted = request.config.getoption("--schedules")
    tell(power_campaign(case_name, tmp_path, schedules=wanted, seed=campaign_seed))


def test_a_missing_sync_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultFS, "sync_folder", lambda self, folder: None)
    with pytest.raises(AssertionError, match=r"bm25, schedule \d+ of seed 5: "):
        power_campaign("bm25", tmp_path, schedules=50, seed=5)


def found_out(folder: Path) -> None:
    """The campaign meets a bug that was planted."""
    with pytest.raises(AssertionError, match=r"bm25, schedule \d+ of seed 5: "):
        power_campaign("bm25", folder, schedules=150, seed=5)


@pytest.mark.parametrize("name", ["CURRENT", "manifest-", "deleted-", "postings.rows", "ids.bytes"])
def test_a_file_closed_without_a_sync_is_found_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, missed = FaultFS.sync_file, []

    def sync_file(self: FaultFS, fd: int, path: Path) -> None:
        if path.name.startswith(name):
            missed.append(path)
        else:
            real(self, fd, path)

    monkeypatch.setattr(FaultFS, "sync_file", sync_file)
    found_out(tmp_path)
    assert missed


def test_a_rename_without_syncing_the_data_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(self: Files, path: Path, data: bytes) -> None:
        fresh = path.with_name(path.name + ".new")
        self.remove(fresh)
        writer = self.create(fresh)
        writer.write(data)
        writer.abort()
        self.rename(fresh, path)
        self.sync_folder(path.parent)

    monkeypatch.setattr(Files, "replace", replace)
    found_out(tmp_path)


def test_a_folder_never_synced_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, missed = FaultFS.sync_folder, []

    def sync_folder(self: FaultFS, folder: Path) -> None:
        if folder == tmp_path:  # where the folders of the indexes are made
            missed.append(folder)
        else:
            real(self, folder)

    monkeypatch.setattr(FaultFS, "sync_folder", sync_folder)
    found_out(tmp_path)
    assert missed


def test_a_vacuum_takes_a_current_that_was_never_renamed(
    index_case: IndexCase, tmp_path: Path
) -> None:
    index_case.build([document("d1", 1)], tmp_path / "x")
    (tmp_path / "x" / "CURRENT.new").write_bytes(b"retrievekit-index 1\n")
    assert strays(tmp_path / "x") == ["CURRENT.new"]
    vacuum(tmp_path / "x")
    assert strays(tmp_path / "x") == []


def test_a_full_disk(case_name: str, tmp_path: Path) -> None:
    full_disk_campaign(case_name, tmp_path, points=4)


@pytest.mark.campaign
def test_a_full_disk_at_twenty_points(case_name: str, tmp_path: Path, tell: Tell) -> None:
    failed = full_disk_campaign(case_name, tmp_path, points=20)
    tell(f"{case_name}: disk full by FaultFS, failures told: {failed}")


SMALL = 16 << 20


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system in memory with little room; skips visibly where none may be mounted."""
    with tempfile.TemporaryDirectory(prefix="retrievekit-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", folder]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
        except OSError as why:
            pytest.skip(f"cannot mount a small file system: {why}")
        if done.returncode:
            pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            # Readers may still map files of it.
            subprocess.run(["umount", "--lazy", folder], check=True)


def leaves(disk: Path) -> Callable[[int | None], None]:
    """A function that fills a disk but for so many bytes."""
    ballast = disk / "ballast"

    def leave(free: int | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            ballast.unlink()
        if free is not None:
            now = os.statvfs(disk)
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, now.f_bavail * now.f_frsize - free)

    return leave


def test_a_really_full_disk(case_name: str, small_disk: Path) -> None:
    full_disk_campaign(case_name, small_disk, points=4, limit=leaves(small_disk))


@pytest.mark.campaign
def test_a_really_full_disk_at_twenty_points(case_name: str, small_disk: Path, tell: Tell) -> None:
    failed = full_disk_campaign(case_name, small_disk, points=20, limit=leaves(small_disk))
    tell(f"{case_name}: a really full disk, failures told: {failed}")
