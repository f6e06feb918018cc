"""What all index kinds share: a pinned generation, its ids and words, and the searcher it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.corpus import Corpus
from retrievekit.errors import FormatVersionError
from retrievekit.ids import Ids
from retrievekit.index.documents import DocumentWriter, TemporaryFolder
from retrievekit.index.searcher import Searcher
from retrievekit.index.words import StoredCorpus, Words, joined_metadata
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import fingerprint_of
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter
from retrievekit.where import Condition, condition_of

if TYPE_CHECKING:
    from retrievekit.index.writer import IndexWriter


class Index(ABC):
    """A generation of an index, opened and pinned.

    Args:
        generation: The pinned generation.

    Raises:
        FormatVersionError: It is of another kind.
    """

    kind: ClassVar[str]

    def __init__(self, generation: Generation) -> None:
        self.path = generation.folder
        self.manifest = generation.manifest
        self.manifest_hash = generation.digest
        self.segments = generation.segments
        self.keeper: TemporaryFolder | None = None
        if self.manifest.kind != self.kind:
            raise FormatVersionError(
                f"{self.path}: an index of kind {self.manifest.kind!r}, not {self.kind!r}; "
                "retrievekit.index.opening.open_index opens any kind"
            )

    def __len__(self) -> int:
        """How many live documents there are."""
        return self.manifest.documents

    def __repr__(self) -> str:
        """Kind and size."""
        return f"{type(self).__name__}({len(self)} documents)"

    @property
    def n_bytes(self) -> int:
        """Bytes on disk of all its segments."""
        return self.manifest.n_bytes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over kind, settings, encoder identity and documents, not over files."""
        encoder = self.manifest.encoder
        return fingerprint_of(
            {
                "kind": self.kind,
                "settings": dict(self.manifest.settings),
                "encoder": None if encoder is None else encoder["identity"],
                "corpus": self.manifest.corpus_hash,
            }
        )

    @cached_property
    def ids(self) -> Ids:
        """The live documents' ids, in row order: segment by segment, deleted ones left out."""
        names = ("bytes", "offsets", "order", "rank")
        if len(self.segments) == 1 and not len(self.segments[0].dead):
            return Ids(*(self.segments[0][f"ids.{name}"].all() for name in names))
        parts = []
        for segment in self.segments:
            stored = Ids(segment["ids.bytes"].all(), segment["ids.offsets"].all())
            parts.append(stored.arrow.take(row_array(segment.live)))
        return Ids.from_arrow(pa.concat_arrays([string_array([]), *parts]), what="document id")

    @cached_property
    def ranks(self) -> list[NDArray[np.int32]]:
        """By segment, the rank of each row's id among all live ones, int32 ``(documents,)``."""
        out, base = [], 0
        for segment in self.segments:
            ranks = np.zeros(segment.record.documents, np.int32)
            ranks[segment.live] = self.ids.rank[base : base + len(segment.live)]
            base += len(segment.live)
            out.append(ranks)
        return out

    def place(self, row: int) -> tuple[SegmentReader, int]:
        """Where a live document lies.

        Args:
            row: Its row among the live documents.

        Returns:
            Its segment, and its row there.

        Raises:
            IndexError: There is no such row.
        """
        for segment in self.segments:
            if row < len(segment.live):
                return segment, int(segment.live[row])
            row -= len(segment.live)
        raise IndexError(f"row {row} beyond the last of {len(self)} documents")

    @cached_property
    def metadata(self) -> pa.Table:
        """The metadata columns of the live documents, in row order."""
        parts = []
        for segment in self.segments:
            table = Words(segment).metadata
            live = pa.table({}) if table is None else table.take(row_array(segment.live))
            parts.append((len(segment.live), live))
        return joined_metadata(parts)

    def satisfying(self, where: str | Condition) -> NDArray[np.bool_]:
        """Which live documents satisfy a condition on their metadata.

        Args:
            where: The condition.

        Returns:
            bool ``(n,)``, one per live document.

        Raises:
            UnknownNameError: There is no such metadata column.
            ExpressionError: The condition does not parse, or a type does not fit.
        """
        return condition_of(where).mask(self.metadata)

    def hidden(self, where: str | Condition | None) -> tuple[list[NDArray[np.bool_]], int]:
        """Which rows cannot be hits, because they are deleted or fail a condition.

        Args:
            where: The condition, or None.

        Returns:
            By segment bool ``(documents,)``, or ``(0,)`` when none is hidden; and how many live
            documents are left.
        """
        if where is None:
            return [segment.dead for segment in self.segments], len(self)
        allowed = self.satisfying(where)
        out, base = [], 0
        for segment in self.segments:
            rows = np.ones(segment.record.documents, bool)
            rows[segment.live] = ~allowed[base : base + len(segment.live)]
            base += len(segment.live)
            out.append(rows)
        return out, int(allowed.sum())

    @cached_property
    def corpus(self) -> Corpus | None:
        """The words of this generation, or None when they were not stored."""
        return StoredCorpus(self.ids, self.segments) if self.manifest.text_stored else None

    def searcher(
        self, k: int = 1000, where: str | Condition | None = None, **knobs: Any
    ) -> Searcher:
        """The stage that searches this index.

        Args:
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy, such as ``year >= 2020``; it is
                applied before the search, so that k hits come back where there are as many.
            knobs: ``threads`` and other settings that do not change answers.

        Returns:
            The stage.
        """
        return Searcher(self, k, None if where is None else condition_of(where), **knobs)

    @abstractmethod
    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | Condition | None = None,
        threads: int | None = None,
    ) -> Run:
        """The k best documents of each query.

        Args:
            queries: Queries in a form that the kind can use.
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy.
            threads: Threads to use; all cores by default. The answer does not depend on it.

        Returns:
            The run.

        Raises:
            FormError: The queries' form cannot be used.
        """

    @abstractmethod
    def write(
        self,
        segment: SegmentWriter,
        documents: DocumentWriter,
        chunks: Iterable[Corpus],
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """Write documents as a new segment, with this index's settings.

        Args:
            segment: Where arrays are written.
            documents: Where ids and words are written.
            chunks: The documents.
            progress: Called with documents done.

        Returns:
            The segment's statistics.
        """

    @abstractmethod
    def merge(self, segment: SegmentWriter) -> dict[str, Any]:
        """Write the arrays of all live documents as one new segment, without their words.

        Args:
            segment: Where arrays are written.

        Returns:
            The segment's statistics.
        """

    @abstractmethod
    def updated(
        self,
        added: Sequence[Mapping[str, Any]],
        removed: Iterable[tuple[SegmentReader, NDArray[np.int64]]],
    ) -> dict[str, Any]:
        """The index's statistics after an update.

        Args:
            added: Statistics of new segments.
            removed: Rows that are newly deleted, int64 ``(m,)``, with their segments.

        Returns:
            The new totals over live documents.
        """

    def writer(self, **knobs: Any) -> IndexWriter:
        """Start an update of the index on disk; this object stays at its generation.

        Args:
            knobs: Settings of `IndexWriter`.

        Returns:
            The writer, to be used as a context manager.
        """
        from retrievekit.index.writer import IndexWriter

        return IndexWriter(self, **knobs)

    def reopen(self) -> Self:
        """The index at its live generation; this object stays at its own."""
        fresh = self._reopened()
        fresh.keeper = self.keeper
        return fresh

    @abstractmethod
    def _reopened(self) -> Self: ...

    def explain(self, queries: Queries, doc_id: str) -> dict[str, float]:
        """What the score of a document for the first query is made of.

        Args:
            queries: One query.
            doc_id: The document.

        Returns:
            Named parts that add up to the score; empty where the kind cannot tell.
        """
        return {}
