"""Files of a segment that can be computed again from other files of it.

An index stores some things twice over, for speed: the order of ids beside the ids, postings by term
and by document. When one of two is damaged, the other still tells what it was. A `Derivation` says
from which files which others follow; `repair` uses those whose sources are intact, and accepts what
comes out only when it is, byte for byte, what the manifest says was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus
from retrievekit.ids import Ids
from retrievekit.index.documents import DocumentWriter, document_hash
from retrievekit.index.words import StoredCorpus
from retrievekit.store.files import files_in_use
from retrievekit.store.segment import SegmentReader, SegmentWriter

Write = Callable[
    [SegmentWriter, DocumentWriter, Iterable[Corpus], Callable[[int], None]], dict[str, Any]
]
"""How an index kind writes a segment: its method ``write``."""


@dataclass(frozen=True)
class Derivation:
    """A way to compute files of a segment from other files of it.

    Args:
        sources: Names of the files that must be intact.
        makes: Names of the files that follow from them.
        compute: Given a folder for what does not fit into memory, removed afterwards, the content
            of those files: arrays, or bytes for files in a foreign format.
    """

    sources: tuple[str, ...]
    makes: tuple[str, ...]
    compute: Callable[[Path], Mapping[str, NDArray[Any] | bytes]]


_IDS = ("ids.bytes", "ids.offsets")
_WORDS = ("text.bytes", "text.offsets", "title.bytes", "title.offsets")
_FOLLOWING = ("ids.order", "ids.rank", "hashes")


def _ids(segment: SegmentReader) -> Ids:
    return Ids(*(segment[name].all() for name in _IDS))


def _words(segment: SegmentReader) -> tuple[str, ...] | None:
    """The files that hold what the documents say, or None when the words were not stored."""
    if _WORDS[0] not in segment.record.arrays:
        return None
    return _IDS + _WORDS + tuple(name for name in segment.record.native if name == "metadata.arrow")


def _corpus(segment: SegmentReader) -> StoredCorpus:
    """All documents as they were given, deleted ones too."""
    return StoredCorpus(_ids(segment), (segment,))


def of_documents(segment: SegmentReader) -> Iterator[Derivation]:
    """What follows from the ids and words that every kind of index stores.

    Args:
        segment: The segment.

    Yields:
        Ways to the order of ids and to the documents' hashes.
    """

    def order(_: Path) -> dict[str, NDArray[Any]]:
        ids = _ids(segment)
        return {"ids.order": ids.order, "ids.rank": ids.rank}

    def hashes(_: Path) -> dict[str, NDArray[Any]]:
        out = np.empty((segment.record.documents, 32), np.uint8)
        row = 0
        for part in _corpus(segment).chunks():
            for d in part:
                share = document_hash(d.doc_id, d.title, d.text, dict(d.metadata))
                out[row] = np.frombuffer(share.to_bytes(32, "little"), np.uint8)
                row += 1
        return {"hashes": out}

    yield Derivation(_IDS, ("ids.order", "ids.rank"), order)
    words = _words(segment)
    if words is not None:
        yield Derivation(words, ("hashes",), hashes)


def of_words(segment: SegmentReader, write: Write) -> Iterator[Derivation]:
    """What an index kind writes of documents, from their words; for kinds that need no encoder.

    Args:
        segment: The segment.
        write: How the kind writes documents as a new segment.

    Yields:
        One way to all arrays that are the kind's own; none when the words were not stored.
    """
    words = _words(segment)
    if words is None:
        return

    def again(scratch: Path) -> dict[str, NDArray[Any]]:
        fresh = SegmentWriter(scratch, files_in_use())
        try:
            documents = DocumentWriter(fresh, store_text=False)
            write(fresh, documents, _corpus(segment).chunks(), lambda done: None)
            reader = SegmentReader(scratch, fresh.finish(documents.documents))
        except BaseException:
            fresh.abort()
            raise
        return {name: reader[name].all() for name in own}

    own = tuple(n for n in segment.record.arrays if n not in words and n not in _FOLLOWING)
    yield Derivation(words, own, again)


def of_postings(segment: SegmentReader) -> Iterator[Derivation]:
    """Postings by term from those by document, and the other way round.

    Args:
        segment: A segment with an inverted index.

    Yields:
        Ways to each file of the one from files of the other.
    """
    by_document = ("forward", "terms", segment.record.documents)
    by_term = ("postings", "rows", segment.record.arrays["postings.offsets"].shape[0] - 1)
    yield from _turned(segment, by_document, by_term)
    yield from _turned(segment, by_term, by_document)


def _turned(
    segment: SegmentReader, source: tuple[str, str, int], made: tuple[str, str, int]
) -> Iterator[Derivation]:
    """A ragged table of (group, column) pairs, sorted by both, with the two exchanged."""
    old, old_column, old_groups = source
    new, new_column, new_groups = made
    column = f"{old}.{old_column}"

    def offsets(_: Path) -> dict[str, NDArray[Any]]:
        out = np.zeros(new_groups + 1, np.int64)
        np.cumsum(np.bincount(segment[column].all(), minlength=new_groups), out=out[1:])
        return {f"{new}.offsets": out}

    def columns(_: Path) -> dict[str, NDArray[Any]]:
        groups = np.repeat(
            np.arange(old_groups, dtype=np.int32), np.diff(segment[f"{old}.offsets"].all())
        )
        return {f"{new}.{new_column}": groups[_stable_order(segment[column].all())]}

    def codes(_: Path) -> dict[str, NDArray[Any]]:
        order = _stable_order(segment[column].all())
        return {f"{new}.codes": segment[f"{old}.codes"].all()[order]}

    yield Derivation((column,), (f"{new}.offsets",), offsets)
    yield Derivation((column, f"{old}.offsets"), (f"{new}.{new_column}",), columns)
    yield Derivation((column, f"{old}.codes"), (f"{new}.codes",), codes)


def _stable_order(values: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.argsort(values, kind="stable")
