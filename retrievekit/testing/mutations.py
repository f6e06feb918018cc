"""Damaging an index's files, and looking for an answer that differs: there may be none.

Damage is drawn evenly over the kinds of file (``CURRENT``, manifest, lock, bitmaps of deleted rows,
each array by name, native files). A damaged index is opened and asked everything, in a random
order: whatever it does not refuse by a `StoreError` must be what the whole index answers. A deep
verification must name the damaged file every time.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrievekit.errors import StoreError
from retrievekit.index.base import Index
from retrievekit.store.manifest import read_manifest
from retrievekit.store.verify import verify
from retrievekit.testing.histories import Update
from retrievekit.testing.indexes import PROBES, IndexCase, index_case

DAMAGES = ("flip",) * 6 + ("truncate",) * 3 + ("extend", "replace", "remove")
"""What is done to a file, as often as it stands here."""


@dataclass
class MutationReport:
    """What a mutation campaign found; it raises where it found a wrong answer.

    Args:
        case: Name of the index case.
        seed: Of the random numbers.
        damaged: Mutations by kind of file.
        refused: Those that a reader or a writer refused, by kind of file.
        by_verify: Those that no answer depended on; a deep verification named them.
        harmless: Mutations of the lock, which holds no data.
    """

    case: str
    seed: int
    damaged: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    by_verify: Counter[str] = field(default_factory=Counter)
    harmless: int = 0

    def __str__(self) -> str:
        """Totals, and the kinds of file that only a deep verification reads."""
        unread = ", ".join(f"{name} {n}" for name, n in sorted(self.by_verify.items()))
        return (
            f"{self.case}: {self.damaged.total()} mutations of {len(self.damaged)} kinds of file, "
            f"0 wrong answers (seed {self.seed}): {self.refused.total()} refused by readers and "
            f"writers, {self.by_verify.total()} that no answer used named by verify ({unread}), "
            f"{self.harmless} of the lock"
        )


def mutation_campaign(name: str, folder: Path, *, mutations: int, seed: int) -> MutationReport:
    """Damage one file of an index at a time and ask the index everything.

    Args:
        name: Name of the index case.
        folder: An empty folder to work in.
        mutations: How many, shared evenly by the kinds of file.
        seed: Of the random numbers.

    Returns:
        Who noticed.

    Raises:
        AssertionError: An answer differed, an error was of another type, or a deep verification
            saw nothing; the message names seed, file and damage.
    """
    case, path = index_case(name), folder / "x"
    patient = _Patient(case, path)
    report = MutationReport(name, seed)
    rng = random.Random(f"mutations {name} {seed}")
    for number, sort in zip(range(mutations), itertools.cycle(sorted(patient.files)), strict=False):
        file = rng.choice(patient.files[sort])
        damage = rng.choice(DAMAGES)
        what = patient.damage(file, damage, rng)
        try:
            patient.examine(file, sort, rng, report)
        except AssertionError as why:
            raise AssertionError(
                f"{name}, mutation {number} of seed {seed}: {file.relative_to(path)}, {what}: {why}"
            ) from why
        finally:
            patient.heal(file)
    for one, other in itertools.combinations(sorted((path / "segments").iterdir()), 2):
        _swap(one, other)
        patient.examine(one, "segments swapped", rng, report)
        _swap(one, other)
    # All was put back: the whole index answers again.
    patient.examine(path / "lock", "lock", rng, MutationReport(name, seed))
    return report


class _Patient:
    """An index with several segments and deleted documents, and everything that it answers."""

    def __init__(self, case: IndexCase, path: Path) -> None:
        self.case, self.path = case, path
        Update(1, build=tuple(f"d{n}" for n in range(12))).carry_out(case, path)
        Update(2, add=tuple(f"e{n}" for n in range(12)), delete=("d1",)).carry_out(case, path)
        Update(3, upsert=("d2", "e3", "f1"), delete=("d4", "e5")).carry_out(case, path)
        if len(list((path / "segments").iterdir())) != 3:
            raise AssertionError("the updates left other than three segments")
        self.good = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
        self.files: dict[str, list[Path]] = defaultdict(list)
        for file, data in self.good.items():
            # An empty array has nothing to flip, but where it is the only one of its kind.
            sort = re.sub(r"-\d.*", "", file.name)
            if data or sort == "lock":
                self.files[sort].append(file)
        self.expected = {name: ask(case.open(path)) for name, ask in QUESTIONS.items()}
        self.digest = read_manifest(path)[1]

    def damage(self, file: Path, how: str, rng: random.Random) -> str:
        """Damage a file in one of the ways; says how."""
        data = self.good[file]
        alike = [d for f, d in self.good.items() if f != file and len(d) == len(data) and d != data]
        if not data:
            how = rng.choice(["extend", "remove"])
        elif how == "replace" and not alike:
            how = "flip"
        if how == "flip":
            bit = rng.randrange(8 * len(data))
            bad = bytearray(data)
            bad[bit // 8] ^= 1 << bit % 8
            return self._put(file, bytes(bad), f"bit {bit} flipped")
        if how == "truncate":
            length = rng.randrange(len(data))
            return self._put(file, data[:length], f"cut to {length} of {len(data)} bytes")
        if how == "extend":
            more = rng.randbytes(rng.choice([1, 8, 4096]))
            return self._put(file, data + more, f"{len(more)} bytes appended")
        if how == "replace":
            return self._put(file, rng.choice(alike), "another file's content of equal size")
        file.unlink()
        return "removed"

    def heal(self, file: Path) -> None:
        """Put the good bytes back."""
        self._put(file, self.good[file], "")

    def _put(self, file: Path, data: bytes, what: str) -> str:
        # A new inode: earlier readers may still map the old one.
        fresh = self.path.with_name("fresh")
        fresh.write_bytes(data)
        fresh.replace(file)
        return what

    def examine(self, file: Path, sort: str, rng: random.Random, report: MutationReport) -> None:
        """Ask everything; raise where an answer differs or damage stays unseen."""
        report.damaged[sort] += 1
        refused = self._asked(rng)
        named = self._verified(file)
        if sort == "lock":
            if refused or named is not None:
                raise AssertionError(f"the lock holds no data, but {refused} was refused")
            report.harmless += 1
            return
        if named is None:
            raise AssertionError("a deep verification found nothing")
        if refused or self._rewriting_refuses():
            report.refused[sort] += 1
        else:
            report.by_verify[sort] += 1

    def _asked(self, rng: random.Random) -> list[str]:
        """The questions that were refused, after asking them all in a random order."""
        try:
            index = self.case.open(self.path)
        except StoreError:
            return ["open"]
        refused = []
        for name in rng.sample(sorted(QUESTIONS), len(QUESTIONS)):
            # What was refused once must be refused again, not answered from half a cache.
            for _ in range(2):
                try:
                    answer = QUESTIONS[name](index)
                except StoreError:
                    refused.append(name)
                    continue
                except Exception as why:
                    raise AssertionError(f"{name} raised {why!r}, no StoreError") from why
                if answer != self.expected[name]:
                    raise AssertionError(f"{name} answered {answer}, not {self.expected[name]}")
                if name in refused:
                    raise AssertionError(f"{name} was refused, and answered when asked again")
                break
        return refused

    def _verified(self, file: Path) -> str | None:
        """What a deep verification says of a file; None when it finds nothing anywhere."""
        try:
            report = verify(self.path, deep=True)
        except StoreError as why:
            return str(why)
        bad = [status.name for status in report.files if not status.ok]
        name = str(file.relative_to(self.path))
        if bad and not any(found == name or found.startswith(f"{name}/") for found in bad):
            raise AssertionError(f"a deep verification named {bad}")
        return name if bad else None

    def _rewriting_refuses(self) -> bool:
        """Whether an update that touches everything is refused; it is never committed."""
        try:
            writer = self.case.open(self.path).writer()
            try:
                writer.delete(["d2"])
                writer.compact()
                writer.prepare()
            finally:
                writer.rollback()
        except StoreError:
            return True
        except Exception as why:
            raise AssertionError(f"a compaction raised {why!r}, no StoreError") from why
        return False


def _swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _hits(index: Index, k: int, **more: Any) -> list[list[tuple[str, float]]]:
    run = index.searcher(k=k, threads=1, **more)(PROBES)
    return [[(hit.doc_id, hit.score) for hit in row] for row in run]


def _corpus(index: Index) -> Any:
    return None if index.corpus is None else list(index.corpus)


def _document(index: Index) -> Any:
    return None if index.corpus is None else [index.corpus[d] for d in ("d2", "e1", "f1")]


def _words(index: Index) -> Any:
    return None if index.corpus is None else index.corpus.contents(np.array([0, 14]))


QUESTIONS: dict[str, Callable[[Index], Any]] = {
    "generation": lambda index: (index.manifest.generation, len(index), index.fingerprint),
    "ids": lambda index: list(index.ids),
    "three hits": lambda index: _hits(index, 3),
    "all hits": lambda index: _hits(index, 100),
    "hits under a condition": lambda index: _hits(index, 3, where="version >= 2"),
    "corpus": _corpus,
    "one document": _document,
    "words": _words,
    "explanation": lambda index: [
        index.explain(PROBES.take(np.array([row])), "e1") for row in range(3)
    ],
}
"""What a damaged index is asked."""
