"""`Queries`: ids and one form each of text, weighted terms or vectors.

A rewriter replaces the form and keeps the queries as they were under `origin`, so that a reranker
further down still reads the words that the person typed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.errors import DataError, FormError
from retrievekit.ids import Ids
from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

if TYPE_CHECKING:
    from retrievekit.trace import Step

Form: TypeAlias = "pa.LargeStringArray | WeightedTerms | DenseVectors | SparseVectors | None"

_FORM_NAMES = {
    pa.LargeStringArray: "text",
    WeightedTerms: "weighted terms",
    DenseVectors: "dense vectors",
    SparseVectors: "sparse vectors",
    type(None): "ids only",
}


@dataclass(frozen=True, eq=False)
class Queries:
    """A batch of queries.

    Args:
        ids: The query ids.
        form: Texts, weighted terms, dense or sparse vectors, one per id; None when only the
            ids are known (a run file names queries without their words).
        origin: The queries before rewriting, or None when nothing was rewritten.
        trace: The stages that rewrote them.

    Raises:
        FormError: The form is none of those.
        DataError: Ids and form differ in number, or a text is null.
    """

    ids: Ids
    form: Form
    origin: Queries | None = None
    trace: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        """Check that each id has its form."""
        if isinstance(self.form, pa.StringArray):
            object.__setattr__(self, "form", self.form.cast(pa.large_string()))
        if type(self.form) not in _FORM_NAMES:
            raise FormError(
                f"queries are texts (an Arrow string array), weighted terms or vectors, not "
                f"{type(self.form).__name__}; Queries.from_texts takes plain strings"
            )
        if isinstance(self.form, pa.LargeStringArray) and self.form.null_count:
            raise DataError(f"{self.form.null_count} of {len(self.form)} query texts are null")
        if self.form is not None and len(self.form) != len(self.ids):
            raise DataError(f"{len(self.ids)} query ids, but {len(self.form)} {self.form_name}")

    @classmethod
    def from_texts(cls, texts: Mapping[str, str] | Sequence[str]) -> Queries:
        """Build from texts.

        Args:
            texts: A mapping of id to text, or texts alone, which get the ids "1", "2", ...

        Returns:
            The queries.

        Raises:
            DataError: An id or text is no string, or cannot be written as UTF-8.
        """
        if isinstance(texts, str):
            raise DataError("texts is one string; give a list of strings or {id: text}")
        if not isinstance(texts, Mapping):
            texts = {str(number): text for number, text in enumerate(texts, 1)}
        ids = Ids.from_strings(texts, what="query id")
        for query_id, text in texts.items():
            if not isinstance(text, str):
                raise DataError(f"the text of query {query_id!r} is {text!r}, not a string")
        try:
            form = string_array(list(texts.values()))
        except UnicodeEncodeError as why:
            raise DataError(
                f"the query text {why.object!r} holds a lone surrogate; it is not valid Unicode"
            ) from why
        return cls(ids, form)

    @property
    def form_name(self) -> str:
        """What the form is, in words."""
        return _FORM_NAMES[type(self.form)]

    @property
    def texts(self) -> list[str]:
        """The words of each query as typed (those of `origin` when the queries were rewritten).

        Raises:
            FormError: The queries never had words.
        """
        if isinstance(self.form, pa.LargeStringArray) and self.origin is None:
            words: list[str] = self.form.to_pylist()
            return words
        if self.origin is not None:
            return self.origin.texts
        raise FormError(
            f"these queries are {self.form_name}, but text is needed; "
            "give them their words with run.with_queries(queries)"
        )

    def text(self, row: int) -> str | None:
        """The words of one query as typed.

        Args:
            row: Row of the query.

        Returns:
            Its words, or None when the queries never had words.
        """
        if self.origin is not None:
            return self.origin.text(row)
        if not isinstance(self.form, pa.LargeStringArray):
            return None
        words: str = self.form[row].as_py()
        return words

    @property
    def rewritten_texts(self) -> list[str]:
        """The current words of each query, after rewriting.

        Raises:
            FormError: The current form is not text.
        """
        if isinstance(self.form, pa.LargeStringArray):
            words: list[str] = self.form.to_pylist()
            return words
        raise FormError(f"these queries are {self.form_name}, but text is needed")

    def rewritten(self, form: Form) -> Queries:
        """The same queries in a new form.

        Args:
            form: One entry per query.

        Returns:
            Queries whose `origin` is the batch as it was before the first rewriting.
        """
        return replace(self, form=form, origin=self.origin or self)

    def __len__(self) -> int:
        """How many queries there are."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Count and form."""
        return f"Queries({len(self)}, {self.form_name})"

    def __eq__(self, other: object) -> bool:
        """Same ids, same form, same content; the trace does not count."""
        if not isinstance(other, Queries):
            return NotImplemented
        return self is other or (
            self.ids == other.ids
            and self.origin == other.origin
            and all(self.content(i) == other.content(i) for i in range(len(self)))
        )

    def __hash__(self) -> int:
        """Hash of the content."""
        return hash(self.content_hash)

    def content(self, row: int) -> bytes:
        """The bytes that a cache key of one query is made of (its form, not its id).

        Args:
            row: Row of the query.

        Returns:
            Bytes that differ whenever the form, or the words it came from, differ.
        """
        own: bytes
        if self.form is None:
            own = b"id\0" + self.ids[row].encode("utf-8")
        elif isinstance(self.form, pa.LargeStringArray):
            own = b"text\0" + self.form[row].as_py().encode("utf-8")
        else:
            own = self.form.content(row)
        if self.origin is None:
            return own
        # The length keeps words that hold the mark from looking like a rewriting.
        return b"rewritten\0%d\0" % len(own) + own + self.origin.content(row)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over ids and contents."""
        digest = hashlib.sha256(self.ids.content_hash.encode())
        for row in range(len(self)):
            digest.update(hashlib.sha256(self.content(row)).digest())
        return digest.hexdigest()

    def take(self, rows: NDArray[np.integer]) -> Queries:
        """Some queries by distinct rows, integers ``(m,)``, in their order."""
        if self.form is None:
            form: Form = None
        elif isinstance(self.form, pa.LargeStringArray):
            form = self.form.take(row_array(rows))
        else:
            form = self.form.take(rows)
        origin = None if self.origin is None else self.origin.take(rows)
        return replace(self, ids=self.ids.take(rows), form=form, origin=origin)

    def select(self, ids: Sequence[str]) -> Queries:
        """Some queries by id, in the order given.

        Args:
            ids: Query ids.

        Returns:
            Those queries.

        Raises:
            UnknownNameError: An id is not there.
        """
        return self.take(np.array([self.ids.row(i) for i in ids], np.int64))

    def batches(self, size: int) -> Iterator[Queries]:
        """Consecutive parts of at most `size` queries.

        Args:
            size: Queries per part, at least 1.

        Yields:
            The parts, in order.
        """
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))
