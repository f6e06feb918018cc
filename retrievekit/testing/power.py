"""Losing the power at random steps of random histories, and filling the disk at chosen points."""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from retrievekit.errors import StoreError
from retrievekit.store.commit import vacuum
from retrievekit.store.faults import FaultFS, SimulatedCrash
from retrievekit.store.files import Writer
from retrievekit.testing.histories import Found, Update, disk_use, found_in, strays, updates
from retrievekit.testing.indexes import IndexCase, index_case

Lost = Literal["drop", "truncate", "zero"]

STEPS = 100
"""Steps within which the power is lost: a few commits."""

START = Update(1, build=tuple(f"d{n}" for n in range(8)))


@dataclass
class PowerReport:
    """What a power campaign found; it raises where it found a loss.

    Args:
        case: Name of the index case.
        seed: Of the random numbers.
        outcomes: Schedules by what became of unsynced data and how many commits stood.
        steps: The steps at which the power was lost.
    """

    case: str
    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Totals."""
        outcomes = ", ".join(f"{name} {n}" for name, n in sorted(self.outcomes.items()))
        steps = ", ".join(f"{name} {n}" for name, n in self.steps.most_common())
        return (
            f"{self.case}: {self.outcomes.total()} losses of power, 0 losses of commits "
            f"(seed {self.seed}): {outcomes}; at: {steps}"
        )


def power_campaign(name: str, folder: Path, *, schedules: int, seed: int) -> PowerReport:
    """Lose the power, with all that was not synced, at random steps of random histories.

    Args:
        name: Name of the index case.
        folder: An empty folder to work in.
        schedules: How often the power is lost, at least.
        seed: Of the random numbers.

    Returns:
        Where the power was lost.

    Raises:
        AssertionError: An index was damaged, an acknowledged commit was lost or half of one was
            seen; the message names seed and schedule.
    """
    case, report = index_case(name), PowerReport(name, seed)
    START.carry_out(case, folder / "start")
    start = found_in(case, folder / "start")
    while (schedule := report.outcomes.total()) < schedules:
        path = folder / f"x-{schedule}"
        rng = random.Random(f"power {name} {seed} {schedule}")
        try:
            fresh = rng.random() < 0.2
            if not fresh:
                shutil.copytree(folder / "start", path)
            before = Found(None, 0, None) if fresh else start
            # What was left is gone on with, and interrupted once more.
            for _ in range(rng.randint(1, 2)):
                before = _interrupted(case, path, before, rng, report)
        except Exception as why:
            raise AssertionError(f"{name}, schedule {schedule} of seed {seed}: {why}") from why
        shutil.rmtree(path, ignore_errors=True)
    return report


class _Machine(FaultFS):
    """A `FaultFS` that closes all files when the power is lost, as a real one does."""

    def __init__(self, crash_at: int, lost: Lost) -> None:
        super().__init__(crash_at=crash_at, lost=lost)
        self._writers: list[Writer] = []

    def create(self, path: Path) -> Writer:
        self._writers.append(super().create(path))
        return self._writers[-1]

    def power_loss(self) -> None:
        for writer in self._writers:
            writer.abort()
        super().power_loss()


def _interrupted(
    case: IndexCase, path: Path, before: Found, rng: random.Random, report: PowerReport
) -> Found:
    lost: Lost = rng.choice(get_args(Lost))
    system = _Machine(rng.randint(1, STEPS), lost)
    states, acknowledged = [before.state], 0
    verb = "build" if before.state is None else rng.choice(["mixed", "mixed", "build", "compact"])
    try:
        with system:
            for update, state in updates(verb, before.state or {}, rng.random().hex()):
                states.append(state)
                update.carry_out(case, path)
                acknowledged += 1
    except SimulatedCrash:
        system.power_loss()
    found = found_in(case, path)
    ahead = found.generation - before.generation - acknowledged
    if ahead not in (0, 1) or found.state != states[acknowledged + ahead]:
        raise AssertionError(
            f"old or new commit: {verb}, unsynced data lost by {lost!r} at step {system.steps[-1]} "
            f"after {acknowledged} commits over generation {before.generation}: found generation "
            f"{found.generation} with {found.state}, not {states[acknowledged:]}"
        )
    if found.index is not None:
        vacuum(path)
        if strays(path):
            raise AssertionError(f"nothing left after a vacuum: {strays(path)}")
    report.outcomes[f"{lost} after {acknowledged}{' and a commit' * ahead}"] += 1
    report.steps[system.steps[-1][0]] += 1
    return found


def full_disk_campaign(
    name: str, folder: Path, *, points: int, limit: Callable[[int | None], None] | None = None
) -> dict[str, int]:
    """Let the disk be full at evenly drawn points of a build, an update and a compaction.

    Args:
        name: Name of the index case.
        folder: An empty folder to work in.
        points: How many points for each.
        limit: Leaves the disk that `folder` is on with so many free bytes (None: all); without
            it, steps of `FaultFS` fail.

    Returns:
        By work, at how many points it failed.

    Raises:
        AssertionError: A failure was not told as such, or the old index or the disk suffered.
    """
    case, failed = index_case(name), {}
    some = tuple(f"d{n}" for n in range(30))
    START.carry_out(case, folder / "start")
    Update(2, upsert=("d1", "e1"), delete=("d2",)).carry_out(case, folder / "start")
    works = {
        "build": Update(3, build=some),
        "update": Update(3, upsert=some[3:], delete=("d1",)),
        "compact": Update(3, compact=True),
    }
    for verb, update in works.items():
        path = folder / verb
        shutil.copytree(folder / "start", path)
        whole = (
            _room_needed(case, update, path) if limit is not None else _steps(case, update, path)
        )
        marks = sorted({round(whole * (point + 0.5) / points) for point in range(points)})
        failed[verb] = 0
        for mark in marks:
            shutil.rmtree(path)
            shutil.copytree(folder / "start", path)
            try:
                failed[verb] += _filled(case, update, path, mark, limit)
            except Exception as why:
                raise AssertionError(f"{name}, {verb}, full at {mark} of {whole}: {why}") from why
        if failed[verb] < len(marks) // 2:
            raise AssertionError(f"{name}, {verb}: only {failed[verb]} of {len(marks)} failed")
        shutil.rmtree(path)
    return failed


def _steps(case: IndexCase, update: Update, path: Path) -> int:
    with FaultFS() as system:
        update.carry_out(case, path)
    return len(system.steps)


def _room_needed(case: IndexCase, update: Update, path: Path) -> int:
    """Bytes that the files of an update take at most."""
    most = [0]

    class Watching(FaultFS):
        def step(self, what: str, path_: Path) -> None:
            used = sum(file.stat().st_blocks * 512 for file in path.rglob("*"))
            most[0] = max(most[0], used)

    before = sum(file.stat().st_blocks * 512 for file in path.rglob("*"))
    with Watching():
        update.carry_out(case, path)
    return most[0] - before


def _filled(
    case: IndexCase,
    update: Update,
    path: Path,
    mark: int,
    limit: Callable[[int | None], None] | None,
) -> bool:
    """Do an update on a disk that gets full; whether it failed."""
    before, size = found_in(case, path), disk_use(path)
    system = FaultFS(fail_at=max(mark, 1), error=errno.ENOSPC, lasting=True)
    told: OSError | None = None
    if limit is not None:
        limit(mark)
    try:
        if limit is not None:
            update.carry_out(case, path)
        else:
            with system:
                update.carry_out(case, path)
    except OSError as why:
        told = why
    try:
        if told is not None and (
            not isinstance(told, StoreError)
            or told.errno != errno.ENOSPC
            or not ("bytes" in str(told) or "is in place" in str(told))
        ):
            raise AssertionError(f"clear error with the bytes: {told!r}") from told
        found = found_in(case, path)
        after = Found(update.applied(before.state or {}), before.generation + 1, None)
        possible = [after] if told is None else [before]
        if told is not None and "nothing was committed" not in str(told):
            possible.append(after)
        if (found.state, found.generation) not in [(p.state, p.generation) for p in possible]:
            raise AssertionError(
                f"what is told is so: {told!r}, found generation {found.generation} after "
                f"{before.generation} with {found.state}"
            )
        # Clearing away must work while the disk is still full.
        vacuum(path)
        if strays(path) or (found.generation == before.generation and disk_use(path) != size):
            raise AssertionError(f"nothing left after a vacuum: {strays(path)}")
    finally:
        if limit is not None:
            limit(None)
    if found.generation == before.generation:  # else it is in place, only not confirmed
        update.carry_out(case, path)
        if found_in(case, path).state != after.state:
            raise AssertionError("done again: the update cannot be repeated")
    return told is not None
