"""Readers at work while a writer commits: each read must be of one whole generation.

Every document of generation g says ``g``: batches are replaced whole, now and then documents are
deleted or added and segments merged. A reader that finds two numbers in one answer, or a smaller
one than before, has seen half a commit or an older index.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from retrievekit.corpus import Document
from retrievekit.index.base import Index
from retrievekit.queries import Queries
from retrievekit.testing.crew import MARK, Crew, Say
from retrievekit.testing.indexes import IndexCase, index_case

DOCUMENTS = 12

_QUERIES = Queries.from_texts(["river", "cat dog", "stone"])


@dataclass(frozen=True)
class ReadingReport:
    """What readers saw.

    Args:
        case: Name of the index case.
        commits: What the writer committed.
        reads: Whole reads, by way of reading.
        generations: Different generations that were read.
    """

    case: str
    commits: int
    reads: Counter[str]
    generations: int

    def __str__(self) -> str:
        """Totals."""
        ways = ", ".join(f"{n} by {way}" for way, n in sorted(self.reads.items()))
        return (
            f"{self.case}: {self.reads.total()} reads ({ways}) of {self.generations} generations "
            f"during {self.commits} commits, each of one whole generation"
        )


def reading_campaign(
    name: str, folder: Path, *, commits: int, reads: int, readers: int = 2
) -> ReadingReport:
    """Let processes read an index while another one commits.

    Args:
        name: Name of the index case.
        folder: An empty folder to work in.
        commits: Commits at least.
        reads: Reads of all readers at least; the writer goes on until they are done.
        readers: Reading processes.

    Returns:
        What was read.

    Raises:
        AssertionError: A read was not of one whole generation, or the numbers fell.
    """
    path = str(folder / "x")
    index_case(name).build(_documents(1), Path(path))
    writer = ("commit_on", {"path": path, "commits": commits, "reads": reads, "readers": readers})
    reader = [("read_on", {"path": path, "place": place}) for place in range(readers)]
    workers = [(f"{__name__}:{work}", given) for work, given in (writer, *reader)]
    with Crew(name) as crew:
        written, *heard = crew.run(workers)
    ways: Counter[str] = Counter()
    seen: set[str] = set()
    for _, line in (line for each in heard for line in each.lines):
        if line.startswith("read "):
            _, way, generation = line.split()
            ways[way] += 1
            seen.add(generation)
    done = written.count("done")
    if done < commits or ways.total() < reads:
        raise AssertionError(f"{name}: {done} commits and {ways.total()} reads are too few")
    return ReadingReport(name, done, ways, len(seen))


class _Counts:
    """Numbers in shared memory, each written by one process: commits, reads by reader."""

    def __init__(self, shared: mmap.mmap) -> None:
        self._shared = shared

    def __getitem__(self, place: int) -> int:
        (value,) = struct.unpack_from("<q", self._shared, MARK + 8 * place)
        return int(value)

    def __setitem__(self, place: int, value: int) -> None:
        struct.pack_into("<q", self._shared, MARK + 8 * place, value)


_FINISHED = -1


def _documents(generation: int) -> list[Document]:
    # Their number follows from the generation as well.
    return [
        Document(f"d{n}", f"river cat g{generation}", f"stone {n}", {"generation": generation})
        for n in range(DOCUMENTS + generation % 3)
    ]


def commit_on(
    say: Say,
    shared: mmap.mmap,
    case: IndexCase,
    *,
    path: str,
    commits: int,
    reads: int,
    readers: int,
) -> None:
    """A worker: commit generation after generation until enough was committed and read.

    Args:
        say: Tells the crew.
        shared: Where the readers count.
        case: The index's case.
        path: The index folder.
        commits: Commits at least.
        reads: Reads at least.
        readers: How many readers count.
    """
    counts = _Counts(shared)
    done, generation = 0, 1
    try:
        while done < commits or sum(counts[1 + n] for n in range(readers)) < reads:
            generation += 1
            wanted = _documents(generation)
            index = case.open(Path(path))
            with index.writer() as writer:
                gone = sorted(set(index.ids) - {document.doc_id for document in wanted})
                writer.delete(gone)
                writer.upsert(wanted)
                if generation % 5 == 0:
                    writer.compact()
            say("done")
            done += 1
    finally:
        counts[0] = _FINISHED


def read_on(say: Say, shared: mmap.mmap, case: IndexCase, *, path: str, place: int) -> None:
    """A worker: read until the writer has finished.

    Args:
        say: Tells the crew.
        shared: Where it counts its reads.
        case: The index's case.
        path: The index folder.
        place: Which reader it is.
    """
    counts = _Counts(shared)
    index: Index | None = None
    newest, kept, turn = 0, 0, place
    while counts[0] != _FINISHED:
        turn += 1
        if index is not None and turn % 4 == 0:
            # The generation that is held must still be what it was.
            way, expected = "holding", kept
        elif index is not None and turn % 2:
            way, index, expected = "reopening", index.reopen(), None
        else:
            way, index, expected = "opening", case.open(Path(path)), None
        kept = _generation(index, searched_first=turn % 3 == 0)
        if expected not in (None, kept) or kept < newest:
            raise AssertionError(f"{way}: generation {kept} after {expected} and {newest}")
        newest = kept
        counts[1 + place] += 1
        say(f"read {way} {kept}")


def _generation(index: Index, *, searched_first: bool) -> int:
    """The one generation that all of an index speaks of."""
    found: dict[str, set[tuple[int, int]]] = {}

    def search() -> None:
        run = index.searcher(k=100, threads=1)(_QUERIES)
        ids = {hit.doc_id for hit in run.hits(0)}
        if ids != set(index.ids):
            raise AssertionError(f"one generation: hits {sorted(ids)} of {sorted(index.ids)}")

    def read() -> None:
        if index.corpus is None:
            raise AssertionError("words: the index has none")
        for document in index.corpus:
            version = document.metadata["generation"]
            if not document.text.endswith(f" g{version}"):
                raise AssertionError(f"one generation: {document}")
            found.setdefault("words", set()).add((version, len(index)))

    for act in (search, read) if searched_first else (read, search):
        act()
    (whole,) = found["words"] if len(found["words"]) == 1 else [(0, 0)]
    if len(_documents(whole[0])) != whole[1] or whole[0] != index.manifest.generation:
        raise AssertionError(
            f"one generation: {found['words']} in generation {index.manifest.generation}"
        )
    return whole[0]
