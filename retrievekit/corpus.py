"""`Corpus`: documents as an Arrow table, memory-mapped when it is large.

Each document has an id, a text, a title (possibly empty) and any typed metadata columns. `contents`
joins title and text by one blank, the BEIR convention, and is what indexes and encoders read by
default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.errors import DataError
from retrievekit.ids import Ids

if TYPE_CHECKING:
    from retrievekit.splitting import Window

CHUNK = 8192
"""Documents that are handled at a time where a corpus is streamed."""


@dataclass(frozen=True)
class Document:
    """One document.

    Args:
        doc_id: Its id.
        text: Its words.
        title: Its title, or an empty string.
        metadata: Further typed values, such as a year or a language.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def contents(self) -> str:
        """Title and text joined by one blank; the text alone when there is no title."""
        return f"{self.title} {self.text}" if self.title else self.text


class Corpus:
    """Documents in columns.

    Attributes:
        window: How documents were cut into these passages; None where they are whole.

    Args:
        ids: The document ids.
        table: An Arrow table with `text` and `title` (``large_string``, no nulls) and the metadata
            columns, one row per id.

    Raises:
        DataError: Rows and ids differ in number, or a column is missing or holds nulls.
    """

    window: Window | None = None

    def __init__(self, ids: Ids, table: pa.Table) -> None:
        if len(ids) != table.num_rows:
            raise DataError(f"{len(ids)} document ids, but {table.num_rows} rows")
        for name in ("text", "title"):
            if name not in table.column_names:
                raise DataError(
                    f"the corpus table has no column {name!r}; it has {table.column_names}"
                )
            if nulls := table.column(name).null_count:
                raise DataError(f"{nulls} of {len(ids)} documents have null as their {name}")
        self.ids = ids
        self.table = table

    @classmethod
    def from_texts(cls, texts: Mapping[str, str] | Sequence[str]) -> Corpus:
        """Build from texts without titles.

        Args:
            texts: A mapping of id to text, or texts alone, which get the ids "1", "2", ...

        Returns:
            The corpus.

        Raises:
            DataError: An id or text is no string, or cannot be written as UTF-8.
        """
        if isinstance(texts, str):
            raise DataError("texts is one string; give a list of strings or {id: text}")
        if not isinstance(texts, Mapping):
            texts = {str(number): text for number, text in enumerate(texts, 1)}
        return cls.from_documents(Document(doc_id, text) for doc_id, text in texts.items())

    @classmethod
    def from_documents(cls, documents: Iterable[Document]) -> Corpus:
        """Build from documents.

        Args:
            documents: The documents; ids are unique.

        Returns:
            The corpus.

        Raises:
            DataError: A field is no string, or metadata of one name has incompatible types.
            DuplicateIdError: An id comes twice.
        """
        listed = list(documents)
        ids = Ids.from_strings((d.doc_id for d in listed), what="document id")
        return cls(ids, table_of(listed))

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Count and metadata columns."""
        more = f", metadata {self.metadata_names}" if self.metadata_names else ""
        return f"Corpus({len(self)} documents{more})"

    @property
    def metadata_names(self) -> list[str]:
        """Names of the metadata columns."""
        return [name for name in self.table.column_names if name not in ("text", "title")]

    def __getitem__(self, doc_id: str) -> Document:
        """One document by id.

        Raises:
            UnknownNameError: No such document.
        """
        return self.document(self.ids.row(doc_id))

    def document(self, row: int) -> Document:
        """One document by row.

        Args:
            row: Its row.

        Returns:
            The document.
        """
        values = {name: self.table.column(name)[row].as_py() for name in self.table.column_names}
        text, title = values.pop("text"), values.pop("title")
        metadata = {name: value for name, value in values.items() if value is not None}
        return Document(self.ids[row], text, title, metadata)

    def __iter__(self) -> Iterator[Document]:
        """The documents in row order, a chunk in memory at a time."""
        for part in self.chunks():
            ids = list(part.ids)
            columns = part.table.to_pydict()
            texts, titles = columns.pop("text"), columns.pop("title")
            for place, doc_id in enumerate(ids):
                values = {name: column[place] for name, column in columns.items()}
                metadata = {name: value for name, value in values.items() if value is not None}
                yield Document(doc_id, texts[place], titles[place], metadata)

    def chunks(self, size: int = CHUNK) -> Iterator[Corpus]:
        """Consecutive parts.

        Args:
            size: Documents per part, at least 1.

        Yields:
            Parts that share memory with this corpus.
        """
        for start in range(0, len(self), size):
            part = Corpus(
                Ids.from_arrow(self.ids.arrow.slice(start, size)), self.table.slice(start, size)
            )
            part.window = self.window
            yield part

    def contents(self, rows: NDArray[np.integer] | None = None) -> list[str]:
        """Title and text of documents joined by one blank.

        Args:
            rows: Rows wanted, integers ``(m,)``; all by default.

        Returns:
            The m joined texts.
        """
        table = self.table.select(["title", "text"])
        if rows is not None:
            table = table.take(row_array(rows))
        return joined(table)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over ids, titles, texts and metadata in row order."""
        digest = hashlib.sha256(self.ids.content_hash.encode())
        for part in self.chunks():
            digest.update(table_digest(part.table))
        return digest.hexdigest()

    def passages(
        self, *, words: int = 150, stride: int | None = None, repeat_title: bool = True
    ) -> Corpus:
        """The documents cut into windows of words; `retrievekit.splitting` has the rules.

        Ids are ``<document id>#0000`` and so on; metadata is carried over, with `parent_id` and
        `passage` added. `aggregate` brings rankings of passages back to documents. For collections
        beyond memory, give `split_documents` to an index's ``build``.

        Args:
            words: Words of a passage, at least 1.
            stride: Words from one passage's beginning to the next one's, 1 to `words`; by default
                `words`, so that passages do not overlap.
            repeat_title: Whether each passage has its document's title, or the first alone.

        Returns:
            The passages, at least one of each document.
        """
        from retrievekit.splitting import split_corpus

        return split_corpus(self, words=words, stride=stride, repeat_title=repeat_title)

    def take(self, rows: NDArray[np.integer]) -> Corpus:
        """Some documents by distinct rows, integers ``(m,)``, in their order."""
        taken = Corpus(self.ids.take(rows), self.table.take(row_array(rows)))
        taken.window = self.window
        return taken


def joined(table: pa.Table) -> list[str]:
    """Title and text of each row of a table joined by one blank (text alone without a title)."""
    titles: list[str] = table.column("title").to_pylist()
    texts: list[str] = table.column("text").to_pylist()
    return [f"{h} {t}" if h else t for h, t in zip(titles, texts, strict=True)]


def table_digest(table: pa.Table) -> bytes:
    """A digest of a table's content that does not depend on how its columns are chunked."""
    digest = hashlib.sha256()
    for name in sorted(table.column_names):
        column = table.column(name)
        digest.update(f"{name}\0{column.type}\0".encode())
        if pa.types.is_large_string(column.type) and column.null_count == 0:
            for value in column.to_pylist():
                raw = value.encode("utf-8")
                digest.update(len(raw).to_bytes(8, "little"))
                digest.update(raw)
        else:
            for value in column.to_pylist():
                digest.update(repr(value).encode("utf-8"))
                digest.update(b"\0")
    return digest.digest()


def table_of(documents: Sequence[Document]) -> pa.Table:
    """The Arrow table of some documents: text, title and their metadata columns.

    Args:
        documents: The documents.

    Returns:
        The table; a metadata value that a document lacks is null.

    Raises:
        DataError: A text is no string or not valid Unicode, or the values of one metadata name do
            not fit one type.
    """
    for document in documents:
        for name in ("text", "title"):
            value = getattr(document, name)
            if not isinstance(value, str):
                raise DataError(
                    f"the {name} of document {document.doc_id!r} is {value!r}, not a string"
                )
    columns: dict[str, pa.Array] = {}
    for name in ("text", "title"):
        try:
            columns[name] = string_array([getattr(d, name) for d in documents])
        except UnicodeEncodeError as why:
            bad = next(d.doc_id for d in documents if not _is_unicode(getattr(d, name)))
            raise DataError(
                f"the {name} of document {bad!r} holds a lone surrogate; it is not valid Unicode"
            ) from why
    names = dict.fromkeys(name for d in documents for name in d.metadata)
    for name in names:
        if name in columns:
            raise DataError(f"metadata may not be named {name!r}: that is the document's own field")
        try:
            columns[name] = pa.array([d.metadata.get(name) for d in documents])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as why:
            raise DataError(
                f"the values of metadata {name!r} do not fit one type ({why}); "
                "give all documents the same type"
            ) from why
    return pa.table(columns)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
