"""The words and metadata that an index's segments hold, verified as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import row_array
from retrievekit.corpus import CHUNK, Corpus, Document
from retrievekit.errors import DataError
from retrievekit.ids import Ids
from retrievekit.store.segment import SegmentReader


class Words:
    """Text, title and metadata of one segment, verified as they are read.

    Args:
        segment: The segment.
    """

    def __init__(self, segment: SegmentReader) -> None:
        self.segment = segment

    @cached_property
    def metadata(self) -> pa.Table | None:
        """The metadata columns of all rows, deleted ones too; None when there are none."""
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
        self._words = [Words(segment) for segment in segments]
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
            ids = Ids.from_arrow(self.ids.arrow.slice(start, size))
            part = Corpus(ids, self._rows(start, stop))
            part.window = self.window
            yield part


def check_metadata(segments: Sequence[SegmentReader]) -> None:
    """Raise when metadata of one name has types that do not fit each other.

    Args:
        segments: Segments that are to stand in one index.

    Raises:
        DataError: Names the types.
    """
    tables = [Words(segment).metadata for segment in segments]
    joined_metadata([(0, table.slice(0, 0)) for table in tables if table is not None])


def joined_metadata(parts: Sequence[tuple[int, pa.Table]]) -> pa.Table:
    """Metadata columns of parts, one after another; what a part lacks is null.

    Args:
        parts: How many rows each part has, and its columns.

    Returns:
        The table.

    Raises:
        DataError: Columns of one name have types that do not fit each other.
    """
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
