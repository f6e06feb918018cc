"""Writing documents: what every index kind keeps of them."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.corpus import CHUNK, Corpus, Document
from retrievekit.errors import DataError
from retrievekit.ids import Ids
from retrievekit.index.words import Words, joined_metadata
from retrievekit.store.segment import SegmentReader, SegmentWriter, StringsWriter


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

    def add(self, part: Corpus, more: Sequence[bytes] | None = None) -> None:
        """Write some documents.

        Args:
            part: The documents.
            more: For each what answers depend on besides its words, such as weights that were
                given with it; it becomes part of the corpus hash.
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
        extras = [b""] * len(texts) if more is None else more
        documents = zip(part.ids, titles, texts, rows, extras, strict=True)
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
            self._segment.check_wanted()
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


def document_hash(
    doc_id: str, title: str, text: str, metadata: dict[str, Any], more: bytes = b""
) -> int:
    """A document's share of the corpus hash, which is the sum of all shares modulo 2**256.

    A sum does not depend on order, and one document's share can be taken out again.

    Args:
        doc_id: Its id.
        title: Its title.
        text: Its text.
        metadata: Its metadata; null values do not count.
        more: What else its answers depend on; nothing changes nothing.

    Returns:
        An integer below 2**256.
    """
    digest = hashlib.sha256()
    known = sorted((n, _value_name(value)) for n, value in metadata.items() if value is not None)
    for field in (doc_id, title, text, repr(known)):
        raw = field.encode("utf-8")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    digest.update(more)
    return int.from_bytes(digest.digest(), "little")


def _value_name(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value_name, value))}]"
    if isinstance(value, dict):  # Arrow fills in the fields that only other documents have
        known = sorted((n, _value_name(part)) for n, part in value.items() if part is not None)
        return repr(known)
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


CHUNK_CHARACTERS = 1 << 24
"""Characters at which a chunk ends early, so that long documents do not fill the memory."""


def document_chunks(
    source: Corpus | Iterable[Document], size: int = CHUNK
) -> tuple[Iterator[Corpus], int | None]:
    """A source of documents as parts of bounded size.

    Where a part ends depends on the documents alone, not on how they are given.

    Args:
        source: A corpus, or any iterable of documents, which is read once.
        size: Documents per part; fewer where they are long (`CHUNK_CHARACTERS`).

    Returns:
        The parts, and how many documents there are in all (None when unknown).
    """
    if isinstance(source, Corpus):
        return _cut(source.chunks(size)), len(source)
    total = len(source) if isinstance(source, Sequence) else None
    return _chunks_of(source, size), total


def _cut(chunks: Iterator[Corpus]) -> Iterator[Corpus]:
    for chunk in chunks:
        table = chunk.table
        lengths = sum(
            pc.utf8_length(table.column(name)).to_numpy().astype(np.int64)
            for name in ("title", "text")
        )
        ends, held = [], 0
        if int(np.sum(lengths)) >= CHUNK_CHARACTERS:
            for row, length in enumerate(lengths.tolist(), 1):
                held += length
                if held >= CHUNK_CHARACTERS:
                    ends.append(row)
                    held = 0
        for start, stop in itertools.pairwise([0, *ends, len(chunk)]):
            if start < stop:
                ids = Ids.from_arrow(chunk.ids.arrow.slice(start, stop - start))
                yield Corpus(ids, table.slice(start, stop - start))


def _chunks_of(documents: Iterable[Document], size: int) -> Iterator[Corpus]:
    part: list[Document] = []
    held = 0
    for place, document in enumerate(documents):
        if not isinstance(document, Document):
            raise DataError(
                f"an index is built from a Corpus or from Documents; number {place} is {document!r}"
            )
        if not document.doc_id:
            raise DataError(f"the id of document number {place} (from 0) is empty")
        part.append(document)
        # What is no string is refused with the part, by name.
        held += sum(len(v) for v in (document.title, document.text) if isinstance(v, str))
        if (place + 1) % size == 0 or held >= CHUNK_CHARACTERS:
            yield Corpus.from_documents(part)
            part, held = [], 0
    if part:
        yield Corpus.from_documents(part)


def in_parts_of(chunks: Iterator[Corpus], limit: int | None) -> Iterator[Iterator[Corpus]]:
    """A stream of chunks cut where a segment is full.

    Args:
        chunks: The documents.
        limit: Bytes of documents from which a segment is full; None for no limit.

    Yields:
        Chunks of one segment, to be read before the next part is asked for.
    """
    more = True

    def part() -> Iterator[Corpus]:
        nonlocal more
        held = 0
        for chunk in chunks:
            yield chunk
            held += chunk.table.nbytes + chunk.ids.arrow.nbytes
            if limit is not None and held >= limit:
                return
        more = False

    while more:
        yield part()


class TemporaryFolder:
    """A folder that goes when the last index object over it does.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        weakref.finalize(self, _removed, folder, os.getpid())


def _removed(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child drops its copy of the object, not the folder
        shutil.rmtree(folder, ignore_errors=True)
