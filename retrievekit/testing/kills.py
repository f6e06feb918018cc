"""Killing writers by SIGKILL at random times, and counting what was lost: nothing may be.

A worker carries out updates that follow from a seed and says ``done`` after each commit. It is
killed from outside at a random time within the measured duration of about two commits. What is then
on disk must verify whole and be the state after the last acknowledged commit or after the next one.
"""

from __future__ import annotations

import itertools
import mmap
import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrievekit.store.commit import vacuum
from retrievekit.store.faults import FaultFS
from retrievekit.testing.crew import MARK, Crew, Say
from retrievekit.testing.histories import (
    VERBS,
    Found,
    Update,
    disk_use,
    documents,
    found_in,
    strays,
    updates,
)
from retrievekit.testing.indexes import IndexCase, check_index, index_case

START = Update(1, build=tuple(f"d{n}" for n in range(40)))
"""The index that updates begin with."""

ROOM = (15, 120)
"""Fewest and most documents of an index under trial; beyond them it is built anew."""

COMPARED_EACH = 10
"""Every so many kills the index is compared with a fresh one."""

_WORK = "retrievekit.testing.kills:keep_updating"
_UNCOMMITTED = "retrievekit.testing.kills:prepare_and_wait"


@dataclass
class KillReport:
    """What a kill campaign found; it raises where it found a loss.

    Args:
        case: Name of the index case.
        seed: Of the random numbers.
        kills: By verb.
        phases: What workers were doing when they were killed, by verb.
        published: Kills after which a commit stood that was not yet acknowledged.
        growth: Disk use by verb after vacuum and compaction, as a multiple of a clean build's.
    """

    case: str
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    phases: dict[str, Counter[str]] = field(default_factory=dict)
    published: Counter[str] = field(default_factory=Counter)
    growth: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line per verb."""
        lines = [f"{self.case}: {self.kills.total()} kills, 0 losses (seed {self.seed})"]
        for verb, count in self.kills.items():
            phases = ", ".join(f"{name} {n}" for name, n in self.phases[verb].most_common())
            lines.append(
                f"  {verb}: {count} kills, {self.published[verb]} with a commit not yet "
                f"acknowledged, disk {self.growth.get(verb, 1):.3f} x a clean build; in: {phases}"
            )
        return "\n".join(lines)


def kill_campaign(name: str, folder: Path, *, kills: int, seed: int) -> KillReport:
    """Kill builds, adds, upserts, deletes and compactions, and look for losses after each kill.

    Args:
        name: Name of the index case.
        folder: An empty folder to work in.
        kills: How many kills, shared evenly by the verbs.
        seed: Of the random numbers.

    Returns:
        Where the kills fell.

    Raises:
        AssertionError: An index was damaged, an acknowledged commit was lost, a half of one was
            seen, or the disk did not shrink back; the message names seed, verb and kill.
    """
    report = KillReport(name, seed)
    with Crew(name) as crew:
        for number, verb in enumerate(VERBS):
            share = kills // len(VERBS) + (number < kills % len(VERBS))
            trial = _Trial(index_case(name), folder / verb, verb, crew, report)
            for kill in range(share):
                try:
                    trial.kill(f"{seed} {kill}", compare=kill % COMPARED_EACH == 0)
                except Exception as why:
                    raise AssertionError(
                        f"{name}, {verb}, kill {kill} of seed {seed}: {why}"
                    ) from why
            trial.clear_up()
    return report


class _Trial:
    """One verb of one index case, killed again and again."""

    def __init__(
        self, case: IndexCase, path: Path, verb: str, crew: Crew, report: KillReport
    ) -> None:
        self.case, self.path, self.verb, self.crew, self.report = case, path, verb, crew, report
        report.phases[verb] = Counter()
        self.found = Found(None, 0, None)
        (heard,) = self._run(self._begin("measured"), "measured", commits=2)
        self.found = found_in(case, path)
        # About two commits: the time until the second is acknowledged.
        self.span = [at for at, said in heard.lines if said == "done"][1]

    def _begin(self, seed: str) -> Found:
        if not ROOM[0] <= len(self.found.state or ()) <= ROOM[1]:
            shutil.rmtree(self.path, ignore_errors=True)
            START.carry_out(self.case, self.path)
            self.found = found_in(self.case, self.path)
        if self.verb == "build" and random.Random(f"fresh {seed}").random() < 0.5:
            shutil.rmtree(self.path)
            self.found = Found(None, 0, None)
        return self.found

    def _run(self, found: Found, seed: str, **knobs: Any) -> Any:
        given = {
            "path": str(self.path),
            "verb": self.verb,
            "state": found.state or {},
            "seed": seed,
            "commits": knobs.pop("commits", None),
        }
        return self.crew.run([(_WORK, given)], **knobs)

    def kill(self, seed: str, *, compare: bool) -> None:
        """Let a worker begin, kill it, and compare what it left with what it may leave."""
        before = self._begin(seed)
        moment = random.Random(f"kill {self.verb} {seed}").uniform(0, self.span)
        (heard,) = self._run(before, seed, kill_after=moment)
        if heard.signal != 9:
            raise AssertionError(f"the worker was not killed: {heard}")
        acknowledged = heard.count("done")
        self.found = found = found_in(self.case, self.path)
        states = [before.state]
        plan = updates(self.verb, before.state or {}, seed)
        states += [state for _, state in itertools.islice(plan, acknowledged + 1)]
        ahead = found.generation - before.generation - acknowledged
        if ahead not in (0, 1):
            raise AssertionError(
                f"acknowledged commits survive: {acknowledged} were acknowledged over generation "
                f"{before.generation}, found is {found.generation}; killed in {heard.mark!r}"
            )
        if found.state != states[acknowledged + ahead]:
            raise AssertionError(
                f"whole batches: after {acknowledged + ahead} commits there should be "
                f"{states[acknowledged + ahead]}, found is {found.state}"
            )
        if compare and found.index is not None:
            check_index(self.case, found.index, documents(found.state or {}))
        self.report.kills[self.verb] += 1
        self.report.published[self.verb] += ahead
        self.report.phases[self.verb][heard.mark] += 1

    def clear_up(self) -> None:
        """Vacuum and compact; nothing may stay of all that was killed."""
        if self.found.state is not None:
            self.report.growth[self.verb] = _growth(self.case, self.path, self.found.state)


def _growth(case: IndexCase, path: Path, state: Mapping[str, int]) -> float:
    vacuum(path)
    left = strays(path)
    if left:
        raise AssertionError(f"nothing left after a vacuum: {path}: {left}")
    Update(0, compact=True).carry_out(case, path)
    check_index(case, case.open(path), documents(state))
    clean = path.with_name(f"{path.name}-clean")
    case.build(documents(state), clean)
    growth = disk_use(path) / disk_use(clean)
    shutil.rmtree(clean)
    if growth > 1.1:
        raise AssertionError(f"disk use: {path}: {growth:.3f} x a clean build")
    return growth


def killed_update_campaign(name: str, folder: Path, *, kills: int, seed: int) -> tuple[int, float]:
    """Kill updates before they commit, then vacuum: the disk holds what a clean build would.

    Args:
        name: Name of the index case.
        folder: An empty folder to work in.
        kills: How many updates are killed.
        seed: Of the random numbers.

    Returns:
        Bytes that the killed updates had left at most, and disk use after the vacuum as a multiple
        of a clean build's.

    Raises:
        AssertionError: The disk use is above 1.1, or a killed update can be seen.
    """
    case, path, most, span = index_case(name), folder / "x", 0, 0.0
    START.carry_out(case, path)
    before = found_in(case, path)
    clean = disk_use(path)
    rng = random.Random(f"killed {name} {seed}")
    given = {"path": str(path), "state": before.state}
    with Crew(name) as crew:
        for kill in range(kills + 1):
            # The first one is measured, and dies by itself.
            moment = rng.uniform(0, 1.2 * span) if kill else None
            order = given | {"seed": f"{seed} {kill}", "wait": bool(kill)}
            (heard,) = crew.run([(_UNCOMMITTED, order)], kill_after=moment)
            span = span or next(at for at, said in heard.lines if said == "prepared")
            most = max(most, disk_use(path) - clean)
            found = found_in(case, path)
            if (found.state, found.generation) != (before.state, before.generation):
                raise AssertionError(f"unseen: kill {kill} of seed {seed}: {found}")
    vacuum(path)
    growth = disk_use(path) / clean
    if growth > 1.1 or strays(path):
        raise AssertionError(f"disk use: {growth:.3f} x a clean build, {strays(path)} are left")
    return most, growth


class _Marking(FaultFS):
    """The real operating system, which leaves word of each step where it can be read after."""

    def __init__(self, shared: mmap.mmap) -> None:
        super().__init__()
        self.shared = shared

    def step(self, what: str, path: Path) -> None:
        """Leave word of a step."""
        mark(self.shared, f"{what} {_sort_of(path)}")


def mark(shared: mmap.mmap, text: str) -> None:
    """Leave word of where a worker is.

    Args:
        shared: The shared memory.
        text: What it does.
    """
    shared[:MARK] = text.encode()[:MARK].ljust(MARK, b"\0")


def _sort_of(path: Path) -> str:
    if path.name.startswith(("CURRENT", "manifest")):
        return path.name.partition("-")[0].removesuffix(".new")
    if path.name.startswith("deleted-"):
        return "tombstones"
    return "segment" if "segments" in path.parts else "folder"


def keep_updating(
    say: Say,
    shared: mmap.mmap,
    case: IndexCase,
    *,
    path: str,
    verb: str,
    state: Mapping[str, int],
    seed: str,
    commits: int | None,
) -> None:
    """A worker: commit the updates of a seed, telling of each, and wait to be killed.

    Args:
        say: Tells the crew.
        shared: Where it leaves word of each step.
        case: The index's case.
        path: The index folder.
        verb: What to do.
        state: The state that the index is in.
        seed: Of the random updates.
        commits: Commits after which it ends; None to go on until it is killed.
    """
    mark(shared, "open")
    plan = updates(verb, state, seed)
    with _Marking(shared):
        say("ready")
        for update, _ in itertools.islice(plan, commits):
            update.carry_out(case, Path(path))
            say("done")
            mark(shared, "between two commits")
    if commits is None:
        time.sleep(600)


def prepare_and_wait(
    say: Say,
    shared: mmap.mmap,
    case: IndexCase,
    *,
    path: str,
    state: Mapping[str, int],
    seed: str,
    wait: bool,
) -> None:
    """A worker: prepare an update that replaces half of all documents, and never commit it.

    Args:
        say: Tells the crew.
        shared: Where it leaves word of where it is.
        case: The index's case.
        path: The index folder.
        state: The state that the index is in.
        seed: Of the random choice.
        wait: Whether to wait for a kill rather than to die when all is prepared.
    """
    rng = random.Random(seed)
    some = tuple(rng.sample(sorted(state), len(state) // 2))
    mark(shared, "prepare")
    say("ready")
    writer = case.open(Path(path)).writer()
    writer.upsert(documents(dict.fromkeys(some, 2)))
    if rng.random() < 0.5:
        writer.compact()
    writer.prepare()
    say("prepared")
    mark(shared, "prepared")
    if wait:
        time.sleep(600)
