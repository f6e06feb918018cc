"""Small updates whose outcome is known beforehand, and looking at what an index really holds.

A state says which version of which document an index has. An `Update` leads from one state to the
next, and `updates` draws such updates from a seed, so that a process that was killed and the one
that checks after it agree on every state there could have been.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from retrievekit.corpus import Document
from retrievekit.errors import FormatVersionError
from retrievekit.index.base import Index
from retrievekit.store.manifest import CURRENT, read_manifest
from retrievekit.store.verify import verify
from retrievekit.testing.indexes import PROBES, WORDS, IndexCase

State: TypeAlias = Mapping[str, int]
"""Version by document id."""

VERBS = ("build", "add", "upsert", "delete", "compact")

BATCH = 5
"""Documents that an update adds, replaces or deletes."""


def document(doc_id: str, version: int) -> Document:
    """A document whose words follow from its id and version.

    Args:
        doc_id: The id.
        version: The version.

    Returns:
        The document, with the metadata `version` and `lang`.
    """
    rng = random.Random(f"{doc_id} {version}")
    words = " ".join(rng.choices(WORDS, k=rng.randrange(1, 15)))
    title = rng.choice(["", "", rng.choice(WORDS)])
    metadata = {"version": version, "lang": rng.choice(["en", "de"])}
    return Document(doc_id, f"{words} v{version}", title, metadata)


def documents(state: State) -> list[Document]:
    """The documents of a state.

    Args:
        state: Version by id.

    Returns:
        One document per id.
    """
    return [document(doc_id, version) for doc_id, version in state.items()]


@dataclass(frozen=True)
class Update:
    """What one commit does, in this order.

    Args:
        version: Of the documents that it writes.
        build: Ids of the new index that replaces all; None to update the one that is there.
        add: Ids that are new.
        upsert: Ids that are new or not.
        delete: Ids that are there.
        compact: Whether segments are merged at the end.
    """

    version: int
    build: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    upsert: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    compact: bool = False

    def applied(self, state: State) -> dict[str, int]:
        """The state after it.

        Args:
            state: The state before.

        Returns:
            Version by id.
        """
        if self.build is not None:
            return dict.fromkeys(self.build, self.version)
        kept = {doc_id: version for doc_id, version in state.items() if doc_id not in self.delete}
        return kept | dict.fromkeys((*self.add, *self.upsert), self.version)

    def carry_out(self, case: IndexCase, path: Path, *, commit: bool = True) -> None:
        """Do it to an index on disk.

        Args:
            case: The index's case.
            path: Its folder.
            commit: Whether to commit; otherwise the update is prepared and given up.
        """
        if self.build is not None:
            case.build(self._written(self.build), path, overwrite=True)
            return
        writer = case.open(path).writer()
        try:
            if self.delete:
                writer.delete(self.delete)
            if self.add:
                writer.add(self._written(self.add))
            if self.upsert:
                writer.upsert(self._written(self.upsert))
            if self.compact:
                writer.compact()
            if commit:
                writer.commit()
            else:
                writer.prepare()
        finally:
            writer.rollback()

    def _written(self, ids: Iterable[str]) -> list[Document]:
        return [document(doc_id, self.version) for doc_id in ids]


def updates(verb: str, state: State, seed: int | str) -> Iterator[tuple[Update, dict[str, int]]]:
    """Random updates, the same for the same seed.

    Args:
        verb: One of `VERBS`, or ``mixed`` for updates that add, replace, delete and now and then
            compact at once.
        state: Where they start.
        seed: Of the random numbers.

    Yields:
        An update and the state after it, until there is nothing left to delete.
    """
    rng = random.Random(f"{verb} {seed}")
    while True:
        known = sorted(state)
        version = max(state.values(), default=0) + 1
        fresh = tuple(f"n{rng.randrange(1 << 40):x}" for _ in range(rng.randint(1, BATCH)))
        some = tuple(rng.sample(known, min(BATCH, len(known))))
        if verb == "build":
            update = Update(version, build=(*fresh, *(f"d{n}" for n in range(30))))
        elif verb == "add":
            update = Update(version, add=fresh)
        elif verb == "upsert":
            update = Update(version, upsert=(*some, fresh[0]))
        elif verb == "delete":
            if len(known) <= BATCH:
                return
            update = Update(version, delete=some)
        elif verb == "compact":
            # With a new segment and deleted rows, so that there is something to merge.
            update = Update(version, upsert=some, compact=True)
        else:
            cut = rng.randint(0, len(some))
            update = Update(
                version,
                add=fresh,
                upsert=some[:cut],
                delete=some[cut:],
                compact=rng.random() < 0.25,
            )
        state = update.applied(state)
        yield update, dict(state)


@dataclass(frozen=True)
class Found:
    """What an index on disk holds.

    Args:
        state: Version by id; None where there is no index yet.
        generation: How many commits it has seen; 0 where there is no index.
        index: The index, opened; None where there is none.
    """

    state: dict[str, int] | None
    generation: int
    index: Index | None


def found_in(case: IndexCase, path: Path) -> Found:
    """Open an index as another process would, verify it whole and read all its documents.

    Args:
        case: The index's case.
        path: Its folder.

    Returns:
        What is there.

    Raises:
        AssertionError: It is damaged, or a document is none that was ever written.
    """
    try:
        index = case.open(path)
    except FormatVersionError:
        if (path / CURRENT).exists():
            raise
        return Found(None, 0, None)
    report = verify(path, deep=True)
    if not report.ok:
        bad = [f"{file.name}: {file.problem}" for file in report.files if not file.ok]
        raise AssertionError(f"whole: {path}: {bad}")
    if index.corpus is None:
        raise AssertionError(f"words: {path}: the index has none")
    state = {}
    for found in index.corpus:
        version = found.metadata["version"]
        if found != document(found.doc_id, version):
            raise AssertionError(f"words: {path}: {found} was never written")
        state[found.doc_id] = version
    if set(index.ids) != set(state):
        raise AssertionError(f"ids: {path}: they are not those of the documents")
    hits = index.searcher(k=3, threads=1)(PROBES)
    if not {hit.doc_id for row in hits for hit in row} <= set(state):
        raise AssertionError(f"answers: {path}: a hit is no live document")
    return Found(state, index.manifest.generation, index)


def disk_use(folder: Path) -> int:
    """Bytes of all files of a folder.

    Args:
        folder: The folder.

    Returns:
        The sum of their sizes.
    """
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def strays(path: Path) -> list[str]:
    """Files of an index folder that its live generation does not need.

    Args:
        path: The index folder.

    Returns:
        Their names below the folder, sorted.
    """
    manifest, _ = read_manifest(path)
    needed = {CURRENT, "lock", manifest.file_name}
    needed |= {file.name for file in verify(path).files}
    names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    empty = {
        str(folder.relative_to(path))
        for folder in (path / "segments").iterdir()
        if folder.is_dir() and not any(folder.iterdir())
    }
    return sorted((names - needed) | empty)
