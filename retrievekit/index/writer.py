"""`IndexWriter`: adding, replacing and deleting documents of an index on disk.

An update makes new segments and bitmaps of deleted rows; nothing that a reader has open is
touched. `prepare` does all the work, `commit` publishes it by one rename, and readers that opened
before keep their generation until they `reopen`. Statistics are kept over live documents, so that
any history of updates answers exactly as one fresh index over the same documents would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DuplicateIdError, StoreError, UnknownNameError
from retrievekit.ids import Ids
from retrievekit.index.documents import DocumentWriter, document_chunks, hash_sum
from retrievekit.index.words import check_metadata
from retrievekit.protocols import Progress
from retrievekit.store.commit import Transaction
from retrievekit.store.files import Files, naming_space
from retrievekit.store.manifest import Manifest
from retrievekit.store.segment import SegmentReader, SegmentWriter

if TYPE_CHECKING:
    from retrievekit.index.base import Index


class IndexWriter:
    """One update of an index, from the lock to the commit.

    Used as a context manager: leaving it commits, leaving it by an exception rolls back.

    Args:
        index: The index, whose settings and encoder are used; the update starts from the
            generation that is live when the lock is taken.
        files: The operating system.

    Raises:
        LockedError: Another writer is at work.
    """

    def __init__(self, index: Index, *, files: Files | None = None) -> None:
        self._transaction = Transaction(index.path, overwrite=True, files=files)
        try:
            self.index = index.reopen()
        except BaseException:
            self._transaction.__exit__(None, None, None)
            raise
        self._segments = list(self.index.segments)
        self._ids: dict[str, Ids] = {}
        self._gone: dict[str, NDArray[np.bool_]] = {}
        self._added: list[tuple[SegmentReader, dict[str, Any]]] = []
        self._open = True
        self._prepared = False

    def add(self, source: Corpus | Iterable[Document], *, progress: Progress | None = None) -> int:
        """Add documents whose ids are new.

        Args:
            source: The documents, read once.
            progress: Called with documents done and in all.

        Returns:
            How many were added.

        Raises:
            DuplicateIdError: An id is in the index already; nothing of `source` is added.
        """
        return self._write(source, progress, upsert=False)

    def upsert(
        self, source: Corpus | Iterable[Document], *, progress: Progress | None = None
    ) -> int:
        """Add documents, replacing those whose ids are in the index.

        Args:
            source: The documents, read once.
            progress: Called with documents done and in all.

        Returns:
            How many were written.
        """
        return self._write(source, progress, upsert=True)

    def delete(self, ids: Iterable[str], *, missing: Literal["error", "ignore"] = "error") -> int:
        """Delete documents.

        Args:
            ids: Their ids; one that comes twice counts once.
            missing: What to do about ids that are not in the index.

        Returns:
            How many were deleted.

        Raises:
            UnknownNameError: An id is not in the index; nothing is deleted.
        """
        self._check_open()
        wanted = list(dict.fromkeys(ids))
        found = {doc_id: self._find(doc_id) for doc_id in wanted}
        absent = [doc_id for doc_id, place in found.items() if place is None]
        if absent and missing == "error":
            raise UnknownNameError(
                f"{self.index.path}: {len(absent)} of {len(wanted)} ids to delete are not in the "
                f"index, such as {absent[:3]}; nothing was deleted (missing='ignore' passes over "
                "them)"
            )
        for place in found.values():
            if place is not None:
                self._bury(*place)
        return len(wanted) - len(absent)

    def compact(self) -> None:
        """Merge all segments into one and leave deleted documents behind; no answer changes."""
        self._check_open()
        with naming_space(self.index.path):
            view = self._view()
            segment = self._transaction.segment()
            documents = DocumentWriter(segment, store_text=self.index.manifest.text_stored)
            for old in view.segments:
                documents.copy(old)
            statistics = view.merge(segment)
            documents.finish()
            reader = self._finished(segment, documents, statistics)
        self.index = view
        self._segments, self._added, self._gone = [reader], [], {}

    def prepare(self) -> None:
        """Do all the work of a commit; nothing is visible yet."""
        self._check_open()
        with naming_space(self.index.path):
            manifest = self._manifest()
            records = dict(manifest.tombstones)
            for name, dead in self._gone.items():
                records[name] = self._transaction.tombstones(name, dead)
            self._transaction.prepare(
                lambda generation: replace(manifest, generation=generation, tombstones=records)
            )
        self._prepared = True

    def commit(self) -> Index:
        """Publish the update, durably, and close the writer.

        Returns:
            The index at the new generation.
        """
        if not self._prepared:
            self.prepare()
        self._check_open()
        try:
            self._transaction.publish()
        finally:
            self._close()
        return self.index.reopen()

    def rollback(self) -> None:
        """Give the update up and close the writer; the index is as it was."""
        if self._open:
            self._transaction.discard()
            self._close()

    def __enter__(self) -> IndexWriter:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Commit; after an exception roll back."""
        if kind is not None:
            self.rollback()
        elif self._open:
            try:
                self.commit()
            except BaseException:
                self.rollback()
                raise

    def _close(self) -> None:
        self._open = False
        self._transaction.__exit__(None, None, None)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.index.path}: this writer is closed; start another update")

    def _write(
        self, source: Corpus | Iterable[Document], progress: Progress | None, *, upsert: bool
    ) -> int:
        self._check_open()
        self._prepared = False
        chunks, total = document_chunks(source)
        replaced: list[tuple[SegmentReader, int]] = []
        segment = self._transaction.segment()
        try:
            with naming_space(self.index.path):
                documents = DocumentWriter(segment, store_text=self.index.manifest.text_stored)
                statistics = self.index.write(
                    segment,
                    documents,
                    self._placed(chunks, replaced, upsert=upsert),
                    lambda done: progress(done, total) if progress is not None else None,
                )
                documents.finish()
                reader = self._finished(segment, documents, statistics)
                check_metadata([*self._segments, reader])
        except BaseException:
            segment.abort()
            self._transaction.files.remove(segment.folder)
            raise
        if documents.documents:
            self._segments.append(reader)
            self._added.append((reader, statistics))
        for place in replaced:
            self._bury(*place)
        return documents.documents

    def _placed(
        self,
        chunks: Iterator[Corpus],
        replaced: list[tuple[SegmentReader, int]],
        *,
        upsert: bool,
    ) -> Iterator[Corpus]:
        """The chunks, after looking each id up in the index."""
        for chunk in chunks:
            for doc_id in chunk.ids:
                place = self._find(doc_id)
                if place is None:
                    continue
                if not upsert:
                    raise DuplicateIdError(
                        f"{self.index.path}: document {doc_id!r} is in the index already; nothing "
                        "of this batch was added (upsert replaces it)"
                    )
                replaced.append(place)
            yield chunk

    def _finished(
        self, segment: SegmentWriter, documents: DocumentWriter, statistics: dict[str, Any]
    ) -> SegmentReader:
        record = segment.finish(documents.documents, statistics)
        return SegmentReader(segment.folder, record)

    def _find(self, doc_id: str) -> tuple[SegmentReader, int] | None:
        """Where the live document of an id lies."""
        for segment in reversed(self._segments):
            name = segment.record.name
            if name not in self._ids:
                parts = ("bytes", "offsets", "order")
                self._ids[name] = Ids(*(segment[f"ids.{part}"].all() for part in parts))
            row = self._ids[name].find(doc_id)
            dead = self._gone.get(name, segment.dead)
            if row >= 0 and not (len(dead) and dead[row]):
                return segment, row
        return None

    def _bury(self, segment: SegmentReader, row: int) -> None:
        self._prepared = False
        name = segment.record.name
        if name not in self._gone:
            before = segment.dead if len(segment.dead) else np.zeros(segment.record.documents, bool)
            self._gone[name] = before.copy()
        self._gone[name][row] = True

    def _removed(self) -> list[tuple[SegmentReader, NDArray[np.int64]]]:
        """Rows that this update deletes, by segment."""
        out = []
        for segment in self._segments:
            dead = self._gone.get(segment.record.name)
            if dead is not None:
                before = segment.dead if len(segment.dead) else np.zeros(len(dead), bool)
                out.append((segment, np.flatnonzero(dead & ~before)))
        return out

    def _manifest(self) -> Manifest:
        """The manifest of the update, but for generation and new bitmaps."""
        old = self.index.manifest
        removed = self._removed()
        total = int(old.corpus_hash, 16)
        documents = old.documents
        for segment, _ in self._added:
            total += hash_sum(segment["hashes"].all())
            documents += segment.record.documents
        for segment, rows in removed:
            total -= hash_sum(segment["hashes"].all()[rows])
            documents -= len(rows)
        names = {segment.record.name for segment in self._segments}
        return replace(
            old,
            documents=documents,
            corpus_hash=f"{total % (1 << 256):064x}",
            segments=tuple(segment.record for segment in self._segments),
            statistics=self.index.updated([part for _, part in self._added], removed),
            tombstones={n: dead for n, dead in old.tombstones.items() if n in names},
        )

    def _view(self) -> Index:
        """The index as it would be if the update were committed now, over files not yet live."""
        view = self.index.reopen()
        view.manifest = self._manifest()
        segments = []
        for segment in self._segments:
            reader = SegmentReader(segment.folder, segment.record)
            reader.dead = self._gone.get(segment.record.name, segment.dead)
            segments.append(reader)
        view.segments = tuple(segments)
        return view
