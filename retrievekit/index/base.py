"""What all index kinds share: a pinned generation, its ids and words, and the searcher it gives."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.corpus import CHUNK, Corpus, Document
from retrievekit.errors import DataError, FormatVersionError
from retrievekit.ids import Ids
from retrievekit.index.searcher import Searcher
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import fingerprint_of
from retrievekit.store.commit import Transaction
from retrievekit.store.manifest import Manifest, SegmentRecord
from retrievekit.store.segment import Generation, SegmentReader, SegmentWriter, StringsWriter
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
            table = _Words(segment).metadata
            live = pa.table({}) if table is None else table.take(row_array(segment.live))
            parts.append((len(segment.live), live))
        return _joined_metadata(parts)

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


class _Words:
    """Text, title and metadata of one segment, verified as they are read."""

    def __init__(self, segment: SegmentReader) -> None:
        self.segment = segment

    @cached_property
    def metadata(self) -> pa.Table | None:
        if "metadata.arrow" not in self.segment.record.native:
            return None
        data = self.segment.native("metadata.arrow")
        with pa.ipc.open_file(pa.py_buffer(data)) as reader:
            return reader.read_all()

    def table(self, start: int, stop: int) -> pa.Table:
        """Live documents start to stop of the segment."""
        live = self.segment.live[start:stop]
        if not len(live):
            first = last = 0
        else:
            first, last = int(live[0]), int(live[-1]) + 1
        columns = {name: self._strings(name, first, last) for name in ("text", "title")}
        if self.metadata is not None:
            for name in self.metadata.column_names:
                columns[name] = self.metadata.column(name).slice(first, last - first)
        table = pa.table(columns)
        return table if last - first == len(live) else table.take(row_array(live - first))

    def _strings(self, name: str, start: int, stop: int) -> pa.Array:
        offsets = self.segment[f"{name}.offsets"].slice(start, stop + 1)
        data = self.segment[f"{name}.bytes"]
        data.ensure(int(offsets[0]), int(offsets[-1]))
        return pa.LargeStringArray.from_buffers(
            stop - start,
            pa.py_buffer(np.ascontiguousarray(offsets)),
            pa.py_buffer(data.unchecked),
        )

    def string(self, name: str, row: int) -> str:
        """One text or title, by live row of the segment."""
        row = int(self.segment.live[row])
        start, stop = self.segment[f"{name}.offsets"].slice(row, row + 2).tolist()
        return self.segment[f"{name}.bytes"].slice(start, stop).tobytes().decode("utf-8")


class StoredCorpus(Corpus):
    """The words that an index's segments hold, verified as they are read.

    Args:
        ids: The live documents' ids.
        segments: The segments.
    """

    def __init__(self, ids: Ids, segments: Sequence[SegmentReader]) -> None:
        self.ids = ids
        self._words = [_Words(segment) for segment in segments]
        self._starts = np.cumsum([0, *(len(segment.live) for segment in segments)])

    @cached_property
    def table(self) -> pa.Table:
        """All columns; every block that they lie in is verified."""
        return self._rows(0, len(self.ids))

    @cached_property
    def metadata_names(self) -> list[str]:
        """Names of the metadata columns."""
        tables = [words.metadata for words in self._words if words.metadata is not None]
        return list(dict.fromkeys(name for table in tables for name in table.column_names))

    def _rows(self, start: int, stop: int) -> pa.Table:
        parts = []
        for words, first, last in zip(
            self._words, self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True
        ):
            low, high = max(start, first), min(stop, last)
            if low < high or len(self._words) == 1:
                parts.append(words.table(low - first, max(low, high) - first))
        if not parts:
            parts = [words.table(0, 0) for words in self._words[:1]]
        return pa.concat_tables(parts, promote_options="permissive").combine_chunks()

    def _string(self, name: str, row: int) -> str:
        segment = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._words[segment].string(name, row - int(self._starts[segment]))

    def contents(self, rows: NDArray[np.integer] | None = None) -> list[str]:
        """Title and text of documents joined by one blank, reading only what is asked for.

        Args:
            rows: Rows wanted, int64 or int32 ``(m,)``; all by default.

        Returns:
            The m joined texts.
        """
        if rows is None:
            return super().contents()
        wanted = np.asarray(rows).tolist()
        pairs = [(self._string("title", row), self._string("text", row)) for row in wanted]
        return [f"{title} {text}" if title else text for title, text in pairs]

    def document(self, row: int) -> Document:
        """One document by row, reading only what it needs."""
        table = self._rows(row, row + 1)
        values = {name: table.column(name)[0].as_py() for name in table.column_names}
        text, title = values.pop("text"), values.pop("title")
        metadata = {name: value for name, value in values.items() if value is not None}
        return Document(self.ids[row], text, title, metadata)

    def chunks(self, size: int = CHUNK) -> Iterator[Corpus]:
        """Consecutive parts of at most `size` documents."""
        for start in range(0, len(self.ids), size):
            stop = min(start + size, len(self.ids))
            part = Ids.from_arrow(self.ids.arrow.slice(start, size))
            yield Corpus(part, self._rows(start, stop))


class DocumentWriter:
    """The part of a segment that every kind writes: ids, words, metadata, and hashes.

    Args:
        segment: The segment.
        store_text: Whether to keep the words.
    """

    def __init__(self, segment: SegmentWriter, *, store_text: bool) -> None:
        self._segment = segment
        self._ids: list[pa.Array] = []
        self._text: StringsWriter | None = segment.strings("text") if store_text else None
        self._title: StringsWriter | None = segment.strings("title") if store_text else None
        self._metadata: list[tuple[int, pa.Table]] = []
        # Kept per document, so that a deleted one can be taken out of the corpus hash.
        self._shares = segment.array("hashes", np.uint8, (_HASH_BYTES,))
        self._hash = 0
        self.documents = 0

    def add(self, part: Corpus) -> None:
        """Write some documents.

        Args:
            part: The documents.
        """
        table = part.table
        texts: list[str] = table.column("text").to_pylist()
        titles: list[str] = table.column("title").to_pylist()
        extra = table.drop_columns(["text", "title"])
        self._ids.append(part.ids.arrow)
        if self._text is not None and self._title is not None:
            self._text.extend(texts)
            self._title.extend(titles)
        self._metadata.append((len(titles), extra))
        rows = extra.to_pylist() if extra.num_columns else [{}] * len(texts)
        documents = zip(part.ids, titles, texts, rows, strict=True)
        shares = [document_hash(*document) for document in documents]
        self._hash = (self._hash + sum(shares)) % _MODULUS
        raw = b"".join(share.to_bytes(_HASH_BYTES, "little") for share in shares)
        self._shares.append(np.frombuffer(raw, np.uint8).reshape(-1, _HASH_BYTES))
        self.documents += len(texts)

    def copy(self, segment: SegmentReader) -> None:
        """Write the live documents of another segment.

        Args:
            segment: The segment; it keeps words if this one shall.
        """
        words = _Words(segment)
        ids = Ids(segment["ids.bytes"].all(), segment["ids.offsets"].all())
        for start in range(0, len(segment.live), CHUNK):
            live = segment.live[start : start + CHUNK]
            self._ids.append(ids.arrow.take(row_array(live)))
            if self._text is not None and self._title is not None:
                table = words.table(start, start + len(live))
                self._text.extend(table.column("text").to_pylist())
                self._title.extend(table.column("title").to_pylist())
            metadata = words.metadata
            part = pa.table({}) if metadata is None else metadata.take(row_array(live))
            self._metadata.append((len(live), part))
            shares = segment["hashes"].all()[live]
            self._shares.append(shares)
            self._hash = (self._hash + hash_sum(shares)) % _MODULUS
            self.documents += len(live)

    def finish(self) -> str:
        """Write ids and metadata.

        Returns:
            The corpus hash, hexadecimal.

        Raises:
            DuplicateIdError: An id came twice.
            DataError: Metadata of one name had incompatible types.
        """
        empty = string_array([])
        ids = Ids.from_arrow(pa.concat_arrays([empty, *self._ids]), what="document id")
        self._segment.put("ids.bytes", ids.data)
        self._segment.put("ids.offsets", ids.offsets)
        self._segment.put("ids.order", ids.order)
        self._segment.put("ids.rank", ids.rank)
        if any(part.num_columns for _, part in self._metadata):
            self._segment.native("metadata.arrow", _arrow_file(_joined_metadata(self._metadata)))
        return f"{self._hash:064x}"


_HASH_BYTES = 32
_MODULUS = 1 << 8 * _HASH_BYTES


def hash_sum(shares: NDArray[np.uint8]) -> int:
    """The sum of documents' shares of the corpus hash.

    Args:
        shares: uint8 ``(documents, 32)``, little-endian.

    Returns:
        The sum, not yet taken modulo 2**256.
    """
    return sum(int.from_bytes(share.tobytes(), "little") for share in shares)


def document_hash(doc_id: str, title: str, text: str, metadata: dict[str, Any]) -> int:
    """A document's share of the corpus hash, which is the sum of all shares modulo 2**256.

    A sum does not depend on order, and one document's share can be taken out again.

    Args:
        doc_id: Its id.
        title: Its title.
        text: Its text.
        metadata: Its metadata; null values do not count.

    Returns:
        An integer below 2**256.
    """
    digest = hashlib.sha256()
    known = sorted((n, _value_name(value)) for n, value in metadata.items() if value is not None)
    for field in (doc_id, title, text, repr(known)):
        raw = field.encode("utf-8")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return int.from_bytes(digest.digest(), "little")


def _value_name(value: Any) -> str:
    # A column of integers becomes one of floats when a fraction joins it: 2020 and 2020.0 are one.
    if isinstance(value, int) and not isinstance(value, bool) and int(float(value)) == value:
        return repr(float(value))
    return repr(value)


def _joined_metadata(parts: Sequence[tuple[int, pa.Table]]) -> pa.Table:
    columns = {}
    if not parts:
        return pa.table({})
    try:
        for field in pa.unify_schemas([p.schema for _, p in parts], promote_options="permissive"):
            chunks: list[pa.Array] = []
            for count, part in parts:
                if field.name in part.column_names:
                    chunks += part.column(field.name).cast(field.type).chunks
                else:
                    chunks.append(pa.nulls(count, field.type))
            columns[field.name] = pa.chunked_array(chunks, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as why:
        raise DataError(
            f"metadata of one name has types that do not fit each other ({why}); give all "
            "documents the same type"
        ) from why
    return pa.table(columns).combine_chunks()


def check_metadata(segments: Sequence[SegmentReader]) -> None:
    """Raise when metadata of one name has types that do not fit each other.

    Args:
        segments: Segments that are to stand in one index.

    Raises:
        DataError: Names the types.
    """
    tables = [_Words(segment).metadata for segment in segments]
    _joined_metadata([(0, table.slice(0, 0)) for table in tables if table is not None])


def _arrow_file(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def document_chunks(
    source: Corpus | Iterable[Document], size: int = CHUNK
) -> tuple[Iterator[Corpus], int | None]:
    """A source of documents as parts of bounded size.

    Args:
        source: A corpus, or any iterable of documents, which is read once.
        size: Documents per part.

    Returns:
        The parts, and how many documents there are in all (None when unknown).
    """
    if isinstance(source, Corpus):
        return source.chunks(size), len(source)
    total = len(source) if isinstance(source, Sequence) else None
    return _chunks_of(source, size), total


def _chunks_of(documents: Iterable[Document], size: int) -> Iterator[Corpus]:
    part: list[Document] = []
    for place, document in enumerate(documents):
        if not isinstance(document, Document):
            raise DataError(
                f"an index is built from a Corpus or from Documents; number {place} is {document!r}"
            )
        if not document.doc_id:
            raise DataError(f"the id of document number {place} (from 0) is empty")
        part.append(document)
        if len(part) == size:
            yield Corpus.from_documents(part)
            part = []
    if part:
        yield Corpus.from_documents(part)


class Build:
    """One build of a new index: the folder (or a temporary one), its transaction and segment.

    Args:
        path: The index folder, or None for one that lives as long as the index object.
        overwrite: Whether an index that is there may be replaced.
        store_text: Whether to keep the words.
    """

    def __init__(self, path: str | Path | None, *, overwrite: bool, store_text: bool) -> None:
        self.temporary = path is None
        self.folder = Path(tempfile.mkdtemp(prefix="retrievekit-") if path is None else path)
        self._overwrite = overwrite
        self._store_text = store_text

    def __enter__(self) -> Self:
        """Take the lock and start the segment."""
        self._transaction = Transaction(self.folder, overwrite=self._overwrite)
        try:
            self.segment = self._transaction.segment()
            self.documents = DocumentWriter(self.segment, store_text=self._store_text)
        except BaseException as why:
            self.__exit__(type(why), why, why.__traceback__)
            raise
        return self

    def __exit__(self, *failure: Any) -> None:
        """Give the lock back; a temporary folder goes with a failure."""
        self._transaction.__exit__(*failure)
        if failure[0] is not None and self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def commit(
        self,
        kind: str,
        settings: dict[str, Any],
        *,
        statistics: dict[str, Any],
        encoder: dict[str, Any] | None = None,
    ) -> None:
        """Finish the segment and make it the live generation.

        Args:
            kind: The index kind.
            settings: What answers depend on.
            statistics: The segment's statistics, which are the index's too.
            encoder: The encoder's card.
        """
        corpus_hash = self.documents.finish()
        record: SegmentRecord = self.segment.finish(self.documents.documents, statistics)
        self._transaction.prepare(
            lambda generation: Manifest(
                kind=kind,
                generation=generation,
                settings=settings,
                encoder=encoder,
                documents=self.documents.documents,
                corpus_hash=corpus_hash,
                segments=(record,),
                statistics=statistics,
                text_stored=self._store_text,
            )
        )
        self._transaction.publish()

    def keep_alive(self, index: Index) -> None:
        """Let a temporary folder go when the index object does.

        Args:
            index: The opened index.
        """
        if self.temporary:
            index.keeper = TemporaryFolder(self.folder)


class TemporaryFolder:
    """A folder that goes when the last index object over it does.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
