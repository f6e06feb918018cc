"""Writing documents: what every index kind keeps of them, and the build of a new index."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.corpus import CHUNK, Corpus, Document
from retrievekit.errors import DataError
from retrievekit.ids import Ids
from retrievekit.index.words import Words, joined_metadata
from retrievekit.store.commit import Transaction
from retrievekit.store.manifest import Manifest, SegmentRecord
from retrievekit.store.segment import SegmentReader, SegmentWriter, StringsWriter

if TYPE_CHECKING:
    from retrievekit.index.base import Index


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
        words = Words(segment)
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
            self._segment.native("metadata.arrow", _arrow_file(joined_metadata(self._metadata)))
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
