"""Where ids lie in a segment: a few by binary search, many by one pass.

In an index of passages documents are looked for by their own ids, and found as all their passages.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.ids import Ids, places_among
from retrievekit.splitting import SEPARATOR, parents_of
from retrievekit.store.segment import SegmentReader

ROWS_PER_SEARCH = 1000
"""A pass over so many stored ids takes as long as one binary search (measured: 0.15 ms)."""


def rows_in(segment: SegmentReader, ids: list[str]) -> NDArray[np.int64]:
    """The live rows of ids in a segment; only the blocks that are read are verified.

    Args:
        segment: The segment.
        ids: Distinct ids.

    Returns:
        int64 ``(m,)`` for m ids; -1 where an id is not there, or deleted.
    """
    # An id with a lone surrogate is never stored; passed on, it is just not found.
    wanted = [doc_id.encode("utf-8", "surrogatepass") for doc_id in ids]
    if len(wanted) * ROWS_PER_SEARCH < segment.record.documents:
        rows = np.array([_search(segment, raw) for raw in wanted], np.int64)
    else:
        rows = _scan(segment, wanted)
    if len(segment.dead) and len(rows):
        rows[(rows >= 0) & segment.dead[rows]] = -1
    return rows


def passages_in(
    segment: SegmentReader, ids: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The live rows of all passages of documents in a segment.

    Args:
        segment: A segment of passages.
        ids: Distinct ids of documents.

    Returns:
        Rows int64 ``(n,)``, ascending, and for each of m ids whether a passage is there, bool
        ``(m,)``.
    """
    wanted = [doc_id.encode("utf-8", "surrogatepass") for doc_id in ids]
    if len(wanted) * ROWS_PER_SEARCH < segment.record.documents:
        pairs = [(row, i) for i, raw in enumerate(wanted) for row in _passages(segment, raw)]
        rows, places = np.array(pairs, np.int64).reshape(-1, 2).T
    else:
        among = places_among(_parents(segment), pa.array(wanted, pa.large_binary()))
        rows = np.flatnonzero(among >= 0)
        places = among[rows].astype(np.int64)
    if len(segment.dead):
        live = ~segment.dead[rows]
        rows, places = rows[live], places[live]
    found = np.zeros(len(ids), np.bool_)
    found[places] = True
    return np.sort(rows), found


def _search(segment: SegmentReader, wanted: bytes) -> int:
    place = _place(segment, wanted)
    if place == segment.record.documents or _id(segment, place) != wanted:
        return -1
    return _row(segment, place)


def _passages(segment: SegmentReader, wanted: bytes) -> Iterator[int]:
    """Rows of a document's passages, dead ones too: in the order of ids they lie close together."""
    begin = wanted + SEPARATOR.encode()
    place = _place(segment, begin)
    while place < segment.record.documents and (found := _id(segment, place)).startswith(begin):
        # Between them may lie passages of documents whose own ids begin like theirs.
        if found[len(begin) :].isdigit():
            yield _row(segment, place)
        place += 1


def _place(segment: SegmentReader, wanted: bytes) -> int:
    """How many ids of a segment are smaller, by bytes."""
    low, high = 0, segment.record.documents
    while low < high:
        middle = (low + high) // 2
        if _id(segment, middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def _row(segment: SegmentReader, place: int) -> int:
    return int(segment["ids.order"].slice(place, place + 1)[0])


def _id(segment: SegmentReader, place: int) -> bytes:
    """The id at a place in the order of ids."""
    row = _row(segment, place)
    start, stop = segment["ids.offsets"].slice(row, row + 2).tolist()
    return segment["ids.bytes"].slice(start, stop).tobytes()


def _parents(segment: SegmentReader) -> pa.Array:
    """The ids of all rows' documents, as bytes."""
    stored = Ids(segment["ids.bytes"].all(), segment["ids.offsets"].all())
    return parents_of(stored)[0].cast(pa.large_binary())


def _scan(segment: SegmentReader, wanted: list[bytes]) -> NDArray[np.int64]:
    stored = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        segment.record.documents,
        [None, *(pa.py_buffer(segment[f"ids.{name}"].all()) for name in ("offsets", "bytes"))],
    )
    rows = np.full(len(wanted), -1, np.int64)
    places = places_among(stored, pa.array(wanted, pa.large_binary()))
    there = np.flatnonzero(places >= 0)
    rows[places[there]] = there
    return rows
