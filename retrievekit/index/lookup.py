"""Where ids lie in a segment: a few by binary search, many by one pass."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.ids import places_among
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


def _search(segment: SegmentReader, wanted: bytes) -> int:
    data, offsets, order = (segment[f"ids.{name}"] for name in ("bytes", "offsets", "order"))
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        row = int(order.slice(middle, middle + 1)[0])
        start, stop = offsets.slice(row, row + 2).tolist()
        found = data.slice(start, stop).tobytes()
        if found == wanted:
            return row
        if found < wanted:
            low = middle + 1
        else:
            high = middle
    return -1


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
