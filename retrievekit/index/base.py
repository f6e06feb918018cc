"""What all index kinds share: a pinned generation, its ids and words, and the searcher it gives."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.candidates import Candidates, CandidatesLike
from retrievekit.corpus import Corpus
from retrievekit.errors import FormatVersionError
from retrievekit.ids import Ids
from retrievekit.index.chosen import Chosen
from retrievekit.index.derived import Derivation, of_documents
from retrievekit.index.documents import DocumentWriter, TemporaryFolder
from retrievekit.index.searcher import Searcher
from retrievekit.index.words import StoredCorpus, Words, joined_metadata
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.splitting import Window
from retrievekit.stage import fingerprint_of
from retrievekit.store.manifest import Manifest
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter
from retrievekit.where import Condition, condition_of

if TYPE_CHECKING:
    from retrievekit.index.writer import IndexWriter


PASSAGES = "passages"
"""The name of the setting that says how documents were cut into what an index holds."""


class Index(ABC):
    """A generation of an index, opened and pinned.

    Args:
        generation: The pinned generation.

    Raises:
        FormatVersionError: It is of another kind.
    """

    kind: ClassVar[str]
    on_devices: ClassVar[bool] = False
    """Whether `search` takes a `device`."""

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

    @cached_property
    def window(self) -> Window | None:
        """How documents were cut into the passages that it holds; None where they are whole."""
        found = self.manifest.settings.get(PASSAGES)
        return None if found is None else Window.from_dict(found)

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

    @cached_property
    def places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """By live row its segment's number, and its row there, int32 ``(live documents,)``."""
        live = [segment.live.astype(np.int32) for segment in self.segments]
        numbers = np.repeat(np.arange(len(live), dtype=np.int32), [len(part) for part in live])
        return numbers, np.concatenate([np.zeros(0, np.int32), *live])

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

    def chosen(
        self, queries: Queries, candidates: CandidatesLike, where: str | Condition | None
    ) -> Chosen:
        """Which rows each query may have as hits, by segment; for `search` of every kind.

        Args:
            queries: The queries that are asked.
            candidates: For each query the documents that it may have.
            where: A condition on metadata that hits must satisfy too, or None.

        Returns:
            The rows, in parts of the queries that are bounded in memory.
        """
        condition = None if where is None else condition_of(where)
        return Chosen(self, queries, Candidates.of(candidates), condition)

    @cached_property
    def corpus(self) -> Corpus | None:
        """The words of this generation, or None when they were not stored."""
        if not self.manifest.text_stored:
            return None
        stored = StoredCorpus(self.ids, self.segments)
        stored.window = self.window
        return stored

    def searcher(
        self,
        k: int = 1000,
        where: str | Condition | None = None,
        candidates: CandidatesLike | None = None,
        **knobs: Any,
    ) -> Searcher:
        """The stage that searches this index.

        Args:
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy, such as ``year >= 2020``; it is
                applied before the search, so that k hits come back where there are as many.
            candidates: For each query the only documents that it may have as hits: a mapping of
                query id to document ids, a `Run`, a `Qrels` or `Candidates`. Together with
                `where`, hits must pass both.
            knobs: ``threads`` and other settings that do not change answers.

        Returns:
            The stage.
        """
        return Searcher(
            self,
            k,
            None if where is None else condition_of(where),
            None if candidates is None else Candidates.of(candidates),
            **knobs,
        )

    @abstractmethod
    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | Condition | None = None,
        candidates: CandidatesLike | None = None,
        threads: int | None = None,
    ) -> Run:
        """The k best documents of each query.

        Under `where` or `candidates` an exact kind answers as if it had ranked all documents and
        then dropped those that are not allowed: same order, same scores, statistics those of the
        whole index. It asks `hidden` for the rows that no query may have, or, when there are
        candidates, `chosen` for those that each may, which knows of deletions and `where` too; and
        scores nothing else, so that the cost goes by the candidates. A kind that is not exact
        never gives a document that is not allowed.

        Args:
            queries: Queries in a form that the kind can use.
            k: Hits per query, at least 1.
            where: A condition on metadata that hits must satisfy.
            candidates: For each query the only documents that it may have; see `Candidates.of`.
            threads: Threads to use; all cores by default. The answer does not depend on it.

        Returns:
            The run.

        Raises:
            FormError: The queries' form cannot be used.
            UnknownNameError: A query has no candidates, or the index lacks one of them.
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

    def derived(self, segment: SegmentReader) -> Iterable[Derivation]:
        """Which files of a segment can be computed again from others, for `repair`.

        Args:
            segment: The segment, in which only intact files are open.

        Returns:
            Ways to compute them, cheap ones first; the same ones however many files are intact.
        """
        return of_documents(segment)

    def writer(self, **knobs: Any) -> IndexWriter:
        """Start an update of the index on disk; this object stays at its generation.

        Args:
            knobs: Settings of `IndexWriter`.

        Returns:
            The writer, to be used as a context manager.
        """
        from retrievekit.index.writer import IndexWriter

        return IndexWriter(self, **knobs)

    def over(self, manifest: Manifest, segments: Sequence[SegmentReader]) -> Self:
        """This index over other segments, such as some of its own; nothing is opened.

        Args:
            manifest: Their manifest.
            segments: The segments.

        Returns:
            An index with the same settings and the encoder, where it was loaded.
        """
        other = copy.copy(self)
        for name in list(other.__dict__):
            computed = isinstance(getattr(type(self), name, None), cached_property)
            if computed and name != "encoder":
                del other.__dict__[name]
        other.manifest, other.segments = manifest, tuple(segments)
        return other

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
