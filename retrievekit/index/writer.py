"""`IndexWriter`: adding, replacing and deleting documents of an index on disk.

An update makes new segments and bitmaps of deleted rows; nothing that a reader has open is
touched. `prepare` does all the work, `commit` publishes it by one rename, and readers that opened
before keep their generation until they `reopen`. Statistics are kept over live documents, so that
any history of updates answers exactly as one fresh index over the same documents would. A build is
the first update of an index that is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

import numpy as np

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, StoreError, UnknownNameError
from retrievekit.index.arriving import Rows, alike, looked_up, places, taken_window
from retrievekit.index.base import PASSAGES, Index
from retrievekit.index.budget import segment_limit
from retrievekit.index.documents import (
    DocumentWriter,
    document_chunks,
    hash_sum,
    in_parts_of,
)
from retrievekit.index.merging import Merge, crowded
from retrievekit.index.words import check_metadata
from retrievekit.protocols import Progress
from retrievekit.splitting import Window
from retrievekit.store.commit import Transaction
from retrievekit.store.files import Files, naming_space
from retrievekit.store.manifest import Manifest, read_manifest
from retrievekit.store.segment import SegmentReader, SegmentWriter
from retrievekit.where import Condition

log = logging.getLogger(__name__)


class IndexWriter:
    """One update of an index, from the lock to the commit.

    Used as a context manager: leaving it commits, leaving it by an exception rolls back.

    An index of passages is kept by documents: whole ones are cut as those before them were, ids are
    those of documents, and what is replaced or deleted goes with all its passages. Passages that
    were cut by the same window are taken as they are.

    Args:
        index: The index, whose settings and encoder are used; the update starts from the
            generation that is live when the lock is taken.
        merge: ``auto`` merges small segments when there are ten of about one size, so that their
            number stays small; ``never`` leaves that to `compact`.
        memory_budget: Bytes of memory that this process may use to add documents, the interpreter
            and its libraries counted; what would need more becomes several segments, and no answer
            changes. Merging holds ids and metadata of all it merges.
        resume: Whether what an interrupted update had encoded is used, not encoded again.
        files: The operating system.

    Raises:
        DataError: The memory budget is too small to work with, or `merge` is neither word.
        LockedError: Another writer is at work.
    """

    def __init__(
        self,
        index: Index,
        *,
        merge: Literal["auto", "never"] = "auto",
        memory_budget: int | None = None,
        resume: bool = True,
        files: Files | None = None,
    ) -> None:
        if merge not in ("auto", "never"):
            raise DataError(f"merge is {merge!r}; known: 'auto', 'never'")
        limit = segment_limit(memory_budget)
        read_manifest(index.path)  # before anything is written where an index was removed
        transaction = Transaction(index.path, overwrite=True, resume=resume, files=files)
        try:
            live = index.reopen()
        except BaseException:
            transaction.close()
            raise
        self._start(transaction, live, merge, limit)

    def _start(self, transaction: Transaction, index: Index, merge: str, limit: int | None) -> None:
        # The index as the update leaves it: its manifest and segments change with each step.
        self.index = index
        self._transaction = transaction
        self._merge_policy = merge
        self._limit = limit
        self._segments = list(index.segments)
        self._merge: Merge | None = None
        self._open = True
        self._changed = False
        self._prepared = False

    @classmethod
    def creating(cls, transaction: Transaction, empty: Index, limit: int | None) -> IndexWriter:
        """The writer that fills an index that is not there yet.

        Args:
            transaction: What it writes through.
            empty: The index without a segment.
            limit: Bytes of documents per segment, or None.

        Returns:
            The writer.
        """
        writer = cls.__new__(cls)
        writer._start(transaction, empty, "never", limit)
        return writer

    def add(self, source: Corpus | Iterable[Document], *, progress: Progress | None = None) -> int:
        """Add documents whose ids are new.

        Args:
            source: The documents, read once.
            progress: Called with documents done and in all.

        Returns:
            How many were added; passages, in an index of passages.

        Raises:
            DuplicateIdError: An id is in the index already; nothing of `source` is added.
            DataError: A document cannot be used, or passages were cut by another window.
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
            How many were written; passages, in an index of passages.

        Raises:
            DataError: A document cannot be used, or passages were cut by another window.
        """
        return self._write(source, progress, upsert=True)

    def delete(
        self,
        ids: Iterable[str] = (),
        *,
        where: str | Condition | None = None,
        missing: Literal["error", "ignore"] = "error",
    ) -> int:
        """Delete documents, by id or by a condition on their metadata.

        Args:
            ids: Their ids; one that comes twice counts once. In an index of passages a document
                goes with all its passages.
            where: A condition; what satisfies it is deleted too, passages one by one.
            missing: What to do about ids that are not in the index.

        Returns:
            How many were deleted; passages, in an index of passages.

        Raises:
            DataError: `ids` is a single string or holds what is none, or `missing` is neither word.
            UnknownNameError: An id is not in the index; nothing is deleted.
        """
        self._check_open()
        if isinstance(ids, str):
            raise DataError(f"delete takes several ids; for one write delete([{ids!r}])")
        if missing not in ("error", "ignore"):
            raise DataError(f"missing is {missing!r}; known: 'error', 'ignore'")
        wanted = list(dict.fromkeys(ids))
        strange = [doc_id for doc_id in wanted if not isinstance(doc_id, str)]
        if strange:
            raise DataError(f"ids are strings; got {strange[0]!r} ({type(strange[0]).__name__})")
        found, absent = places(self.index, self._segments, wanted)
        if absent and missing == "error":
            raise UnknownNameError(
                f"{self.index.path}: {len(absent)} of {len(wanted)} ids to delete are not in the "
                f"index, such as {absent[:3]}; nothing was deleted (missing='ignore' passes over "
                f"them{self._hint})"
            )
        if where is not None:
            hidden, _ = self._view(self._segments).hidden(where)
            for segment, out in zip(self._segments, hidden, strict=True):
                rows = segment.live[~out[segment.live]] if len(out) else segment.live
                before = found.get(segment.record.name, np.zeros(0, np.int64))
                found[segment.record.name] = np.union1d(before, rows)
        self._bury(found)
        return sum(len(rows) for rows in found.values())

    @property
    def _hint(self) -> str:
        passages = "; the index holds passages, and is kept by the ids of their documents"
        return "" if self.index.window is None else passages

    def compact(self, *, wait: bool = True) -> None:
        """Merge all segments into one and leave deleted documents behind; no answer changes.

        Args:
            wait: Whether to return when it is done. Otherwise it goes on beside this writer, which
                may add and delete meanwhile, until `prepare`.

        Raises:
            StoreError: The disk has no room; nothing was changed.
        """
        self._check_open()
        self._settle()
        if len(self._segments) > 1 or len(self._segments[0].dead):
            self._start_merge(self._segments)
            if wait:
                self._settle()

    def prepare(self) -> None:
        """Do all the work of a commit; nothing is visible yet."""
        self._check_open()
        self._settle()
        while self._merge_policy == "auto" and (several := crowded(self._segments)):
            self._start_merge(several)
            self._settle()
        with naming_space(self.index.path):
            records = {}
            for segment in self._segments:
                name, deleted = segment.record.name, segment.record.documents - segment.n_live
                old = self.index.manifest.tombstones.get(name)
                if old is not None and old.deleted == deleted:
                    records[name] = old
                elif deleted:
                    records[name] = self._transaction.tombstones(name, segment.dead)
            manifest = replace(
                self.index.manifest,
                segments=tuple(segment.record for segment in self._segments),
                tombstones=records,
            )
            self._transaction.prepare(lambda generation: replace(manifest, generation=generation))
        self._prepared = True

    def commit(self) -> Index:
        """Publish the update, durably, and close the writer.

        When that fails the writer stays open, to try again or to roll back. An update that changed
        nothing makes no generation.

        Returns:
            The index at the new generation.

        Raises:
            StoreError: The disk is full or failed, or the lock was lost; the message says what
                was kept.
        """
        self._check_open()
        self._settle()
        if self._changed:
            if not self._prepared:
                self.prepare()
            try:
                self._transaction.publish()
            except BaseException:
                if self._transaction.published:
                    self._close()
                raise
        self._close()
        return self.index.reopen()

    def rollback(self) -> None:
        """Give the update up and close the writer; the index is as it was."""
        if not self._open:
            return
        try:
            if self._merge is not None:
                self._merge.give_up()
            self._transaction.discard()
        finally:
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

    def __del__(self) -> None:
        """Give an update up that nobody holds any more, so that the next one is not kept out."""
        if getattr(self, "_open", False):
            log.warning("%s: an update was dropped without a commit", self.index.path)
            self._close()

    def _close(self) -> None:
        self._open = False
        self._transaction.close()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.index.path}: this writer is closed; start another update")

    def _write(
        self, source: Corpus | Iterable[Document], progress: Progress | None, *, upsert: bool
    ) -> int:
        self._check_open()
        self._prepared = False
        before = self.index.manifest
        self._keep_window(taken_window(self.index, source))
        chunks, total = document_chunks(alike(source, self.index.window))
        fresh: list[_Fresh] = []
        readers: list[SegmentReader] = []
        replaced: dict[str, Rows] = {}
        known = looked_up(chunks, self.index, self._segments, readers, replaced, upsert=upsert)
        started: list[SegmentWriter] = []
        self._transaction.adds = True
        done = 0
        try:
            with naming_space(self.index.path):
                for part in in_parts_of(known, self._limit):
                    segment = self._transaction.segment()
                    started.append(segment)
                    made = self._segment_of(part, segment, progress, done, total)
                    done += made.documents
                    fresh.append(made)
                    readers.append(made.reader)
                check_metadata([*self._segments, *readers])
        except BaseException:
            self._restore(before)
            for segment in started:
                self._transaction.drop(segment)
            raise
        for made in fresh:
            self._append(made)
        self._bury(replaced)
        return done

    def _keep_window(self, window: Window | None) -> None:
        """Note how documents are cut, where the index was empty and did not say."""
        if window != self.index.window:
            manifest, kept = self.index.manifest, None if window is None else window.to_dict()
            self._restore(replace(manifest, settings={**manifest.settings, PASSAGES: kept}))

    def _restore(self, manifest: Manifest) -> None:
        self.index.manifest = manifest
        self.index.__dict__.pop("window", None)  # which is read from the settings once

    def _segment_of(
        self,
        part: Iterator[Corpus],
        segment: SegmentWriter,
        progress: Progress | None,
        before: int,
        total: int | None,
    ) -> _Fresh:
        documents = DocumentWriter(segment, store_text=self.index.manifest.text_stored)
        statistics = self.index.write(
            segment,
            documents,
            part,
            lambda done: progress(before + done, total) if progress is not None else None,
        )
        corpus_hash = int(documents.finish(), 16)
        reader = SegmentReader(segment.folder, segment.finish(documents.documents))
        return _Fresh(reader, statistics, corpus_hash)

    def _append(self, made: _Fresh) -> None:
        if not made.documents and self._segments:
            self._transaction.files.remove(made.reader.folder)
            return
        manifest = self.index.manifest
        self.index.manifest = _counted(
            manifest, made.documents, made.corpus_hash, self.index.updated([made.statistics], [])
        )
        self._segments.append(made.reader)
        self._changed = True

    def _bury(self, places: Mapping[str, Rows]) -> None:
        """Delete live rows of segments."""
        removed = [
            (segment, places[segment.record.name])
            for segment in self._segments
            if len(places.get(segment.record.name, ()))
        ]
        if not removed:
            return
        self._changed, self._prepared = True, False
        gone = sum(len(rows) for _, rows in removed)
        share = sum(hash_sum(segment["hashes"].take(rows)) for segment, rows in removed)
        self.index.manifest = _counted(
            self.index.manifest, -gone, -share, self.index.updated([], removed)
        )
        for segment, rows in removed:
            dead = np.zeros(segment.record.documents, bool)
            dead[: len(segment.dead)] = segment.dead
            dead[rows] = True
            self._segments[self._segments.index(segment)] = segment.with_dead(dead)

    def _view(self, segments: list[SegmentReader]) -> Index:
        """The index as it would be with these segments only, over files that may not be live."""
        return self.index.over(self.index.manifest, segments)

    def _start_merge(self, segments: list[SegmentReader]) -> None:
        self._changed, self._prepared = True, False
        with naming_space(self.index.path):
            self._merge = Merge(self._view(segments), self._transaction.segment())

    def _settle(self) -> None:
        """Put the result of a merge in place of its sources."""
        merge = self._merge
        if merge is None:
            return
        sources = {source.record.name for source in merge.sources}
        now = {segment.record.name: segment for segment in self._segments}
        try:
            with naming_space(self.index.path):
                merged = merge.settled(now)
        except BaseException:
            merge.give_up()
            self._merge = None
            self._transaction.drop(merge.segment)
            raise
        self._merge = None
        rest = [segment for segment in self._segments if segment.record.name not in sources]
        self._segments = [merged, *rest] if merged.n_live or not rest else rest


class _Fresh:
    """A segment that was just written, with what it adds to the index's totals."""

    def __init__(self, reader: SegmentReader, statistics: dict[str, Any], corpus_hash: int) -> None:
        self.reader = reader
        self.statistics = statistics
        self.corpus_hash = corpus_hash
        self.documents = reader.record.documents


def _counted(
    manifest: Manifest, documents: int, corpus_hash: int, statistics: Mapping[str, Any]
) -> Manifest:
    """A manifest with other totals."""
    total = (int(manifest.corpus_hash, 16) + corpus_hash) % (1 << 256)
    return replace(
        manifest,
        documents=manifest.documents + documents,
        corpus_hash=f"{total:064x}",
        statistics=dict(statistics),
    )
