"""What all index kinds share: a pinned generation, its ids and words, and the searcher it gives."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import string_array
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
        """The live documents' ids, in row order."""
        segment = self.segments[0]
        names = ("bytes", "offsets", "order", "rank")
        return Ids(*(segment[f"ids.{name}"].all() for name in names))

    @cached_property
    def corpus(self) -> Corpus | None:
        """The words of this generation, or None when they were not stored."""
        return StoredCorpus(self.ids, self.segments[0]) if self.manifest.text_stored else None

    def searcher(self, k: int = 1000, **knobs: Any) -> Searcher:
        """The stage that searches this index.

        Args:
            k: Hits per query, at least 1.
            knobs: ``threads`` and other settings that do not change answers.

        Returns:
            The stage.
        """
        return Searcher(self, k, **knobs)

    @abstractmethod
    def search(self, queries: Queries, k: int, *, threads: int | None = None) -> Run:
        """The k best documents of each query.

        Args:
            queries: Queries in a form that the kind can use.
            k: Hits per query, at least 1.
            threads: Threads to use; all cores by default. The answer does not depend on it.

        Returns:
            The run.

        Raises:
            FormError: The queries' form cannot be used.
        """

    def explain(self, queries: Queries, doc_id: str) -> dict[str, float]:
        """What the score of a document for the first query is made of.

        Args:
            queries: One query.
            doc_id: The document.

        Returns:
            Named parts that add up to the score; empty where the kind cannot tell.
        """
        return {}


class StoredCorpus(Corpus):
    """The words that a segment holds, verified as they are read.

    Args:
        ids: The documents' ids.
        segment: The segment.
    """

    def __init__(self, ids: Ids, segment: SegmentReader) -> None:
        self.ids = ids
        self._segment = segment

    @cached_property
    def table(self) -> pa.Table:
        """All columns; every block that they lie in is verified."""
        return self._rows(0, len(self.ids))

    @property
    def metadata_names(self) -> list[str]:
        """Names of the metadata columns."""
        return list(self._metadata.column_names) if self._metadata is not None else []

    @cached_property
    def _metadata(self) -> pa.Table | None:
        if "metadata.arrow" not in self._segment.record.native:
            return None
        data = self._segment.native("metadata.arrow")
        with pa.ipc.open_file(pa.py_buffer(data)) as reader:
            return reader.read_all()

    def _rows(self, start: int, stop: int) -> pa.Table:
        columns = {name: self._strings(name, start, stop) for name in ("text", "title")}
        if self._metadata is not None:
            for name in self._metadata.column_names:
                columns[name] = self._metadata.column(name).slice(start, stop - start)
        return pa.table(columns)

    def _strings(self, name: str, start: int, stop: int) -> pa.Array:
        offsets = self._segment[f"{name}.offsets"].slice(start, stop + 1)
        data = self._segment[f"{name}.bytes"]
        data.ensure(int(offsets[0]), int(offsets[-1]))
        return pa.LargeStringArray.from_buffers(
            stop - start,
            pa.py_buffer(np.ascontiguousarray(offsets)),
            pa.py_buffer(data.unchecked),
        )

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

    def _string(self, name: str, row: int) -> str:
        start, stop = self._segment[f"{name}.offsets"].slice(row, row + 2).tolist()
        return self._segment[f"{name}.bytes"].slice(start, stop).tobytes().decode("utf-8")

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
        details: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
    ) -> None:
        """Finish the segment and make it the live generation.

        Args:
            kind: The index kind.
            settings: What answers depend on.
            statistics: Totals over live documents.
            details: What the kind wants to know of the segment.
            encoder: The encoder's card.
        """
        corpus_hash = self.documents.finish()
        record: SegmentRecord = self.segment.finish(self.documents.documents, details or {})
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
            weakref.finalize(index, shutil.rmtree, self.folder, ignore_errors=True)
