"""String ids and the int32 rows that stand for them.

Everything columnar in the package (runs, judgements, postings) refers to documents by row. `Ids` is
the only place where rows and strings meet: UTF-8 bytes and offsets, never an array of Python
objects. Two `Ids` with the same content hash mean the same rows by the same numbers; otherwise
`translate` gives the one mapping between them. `rank` orders ids by their UTF-8 bytes, the order
that breaks ties everywhere (as trec_eval: among equal scores the larger id comes first).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.arrow import row_array, string_array
from retrievekit.errors import DataError, DuplicateIdError, UnknownNameError

Rows = NDArray[np.int32]


class Ids(Sequence[str]):
    """An immutable sequence of unique, non-empty strings with fast lookup in both directions.

    Args:
        data: UTF-8 bytes of all ids, one after another, uint8 ``(bytes,)``.
        offsets: Where each id starts and ends in `data`, int64 ``(n + 1,)``.
        order: Rows in ascending order of their bytes, int32 ``(n,)``; computed when not given.
        rank: Place of each row in `order`, int32 ``(n,)``; computed when not given.

    The constructor trusts its arrays (they come from a verified file or another `Ids`);
    `from_strings` is the checked way in.
    """

    def __init__(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        order: Rows | None = None,
        rank: Rows | None = None,
    ) -> None:
        self.data = data.view()
        self.offsets = offsets.view()
        self.data.setflags(write=False)
        self.offsets.setflags(write=False)
        self._given_order = order
        self._given_rank = rank
        self._translations: dict[str, Rows] = {}

    @classmethod
    def from_strings(cls, values: Iterable[str], *, what: str = "id") -> Ids:
        """Build from strings, checking each.

        Args:
            values: The ids in row order.
            what: How error messages call them, such as "document id".

        Returns:
            The ids.

        Raises:
            DataError: One is no string, empty, or cannot be written as UTF-8.
            DuplicateIdError: One comes twice.
        """
        strings = list(values)
        for row, value in enumerate(strings):
            if not isinstance(value, str):
                raise DataError(
                    f"{what} {row} is {value!r} ({type(value).__name__}), but ids are strings; "
                    f"write {str(value)!r}"
                )
            if not value:
                raise DataError(f"{what} {row} is empty; every id needs at least one character")
        try:
            array = string_array(strings)
        except UnicodeEncodeError as why:
            raise DataError(
                f"{what} {why.object!r} holds a lone surrogate and cannot be written as UTF-8"
            ) from why
        return cls.from_arrow(array, what=what)

    @classmethod
    def from_arrow(cls, array: pa.Array, *, what: str = "id") -> Ids:
        """Build from an Arrow string array without nulls.

        Args:
            array: A ``string`` or ``large_string`` array.
            what: How error messages call the ids.

        Returns:
            The ids.

        Raises:
            DataError: The array holds no strings, or a null or empty one.
            DuplicateIdError: One comes twice.
        """
        if not (pa.types.is_large_string(array.type) or pa.types.is_string(array.type)):
            raise DataError(f"the {what}s are of type {array.type}, but ids are strings")
        if array.null_count:
            raise DataError(f"{array.null_count} of {len(array)} {what}s are null")
        array = array.cast(pa.large_string())
        if array.offset or len(array) == 0:
            array = pa.concat_arrays([array, string_array([])])
        _, offsets, data = array.buffers()
        bounds = (
            np.frombuffer(offsets, np.int64)[: len(array) + 1]
            if offsets is not None and len(array)
            else np.zeros(1, np.int64)
        )
        text = np.frombuffer(data, np.uint8)[: bounds[-1]] if data else np.zeros(0, np.uint8)
        ids = cls(text, bounds)
        if len(ids) and not np.diff(bounds).all():
            row = int(np.argmin(np.diff(bounds)))
            raise DataError(f"{what} {row} is empty; every id needs at least one character")
        ids.check_unique(what)
        return ids

    def check_unique(self, what: str = "id") -> None:
        """Raise when an id comes twice.

        Args:
            what: How the message calls the ids.

        Raises:
            DuplicateIdError: Names the first ids that come twice, with their rows.
        """
        if len(pc.unique(self.arrow)) == len(self):
            return
        seen: dict[str, int] = {}
        twice: list[str] = []
        for row, value in enumerate(self):
            if value in seen:
                twice.append(f"{value!r} (rows {seen[value]} and {row})")
            seen.setdefault(value, row)
        shown = ", ".join(twice[:5]) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
        raise DuplicateIdError(f"{what} given twice: {shown}")

    @cached_property
    def arrow(self) -> pa.LargeStringArray:
        """The ids as an Arrow array over the same memory."""
        return pa.LargeStringArray.from_buffers(
            len(self), pa.py_buffer(self.offsets), pa.py_buffer(self.data)
        )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over count, offsets and bytes: equal hash, equal ids in equal order."""
        digest = hashlib.sha256()
        digest.update(len(self).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(self.offsets, "<i8").tobytes())
        digest.update(np.ascontiguousarray(self.data).tobytes())
        return digest.hexdigest()

    @cached_property
    def order(self) -> Rows:
        """Rows in ascending order of the ids' UTF-8 bytes, int32 ``(n,)``."""
        if self._given_order is not None:
            return self._given_order
        return _frozen(pc.array_sort_indices(self.arrow).to_numpy().astype(np.int32))

    @cached_property
    def rank(self) -> Rows:
        """Place of each row in `order`, int32 ``(n,)``: a larger id has a larger rank."""
        if self._given_rank is not None:
            return self._given_rank
        rank = np.empty(len(self), np.int32)
        rank[self.order] = np.arange(len(self), dtype=np.int32)
        return _frozen(rank)

    def __len__(self) -> int:
        """How many ids there are."""
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        """The id of one row, or a list of those of a slice."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        n = len(self)
        if not -n <= row < n:
            raise IndexError(f"row {row} of {n} ids")
        row = int(row) % n
        return bytes(self.data[self.offsets[row] : self.offsets[row + 1]]).decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        """The ids in row order."""
        yield from self.arrow.to_pylist()

    def __contains__(self, value: object) -> bool:
        """Whether the id is there."""
        return isinstance(value, str) and self.find(value) >= 0

    def __eq__(self, other: object) -> bool:
        """Same ids in the same order."""
        if not isinstance(other, Ids):
            return NotImplemented
        return self is other or (
            len(self) == len(other) and self.content_hash == other.content_hash
        )

    def __hash__(self) -> int:
        """Hash of the content."""
        return hash(self.content_hash)

    def __repr__(self) -> str:
        """The count and the first ids."""
        shown = ", ".join(repr(value) for value in self[:3])
        return f"Ids({len(self)}: {shown}{', ...' if len(self) > 3 else ''})"

    def find(self, value: str) -> int:
        """The row of an id by binary search over the sorted bytes, or -1.

        Args:
            value: The id.

        Returns:
            Its row, or -1 when it is not there.
        """
        try:
            wanted = value.encode("utf-8")
        except UnicodeEncodeError:
            return -1
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            row = self.order[middle]
            if bytes(self.data[self.offsets[row] : self.offsets[row + 1]]) < wanted:
                low = middle + 1
            else:
                high = middle
        if low < len(self):
            row = int(self.order[low])
            if bytes(self.data[self.offsets[row] : self.offsets[row + 1]]) == wanted:
                return row
        return -1

    def row(self, value: str) -> int:
        """The row of an id.

        Args:
            value: The id.

        Returns:
            Its row.

        Raises:
            UnknownNameError: It is not there.
        """
        row = self.find(value)
        if row < 0:
            raise UnknownNameError(f"no id {value!r} among {len(self)} ids")
        return row

    def rows(self, values: Iterable[str]) -> Rows:
        """The rows of many ids at once.

        Args:
            values: The ids.

        Returns:
            Their rows, int32 ``(m,)`` for m values; -1 where an id is not there.

        Raises:
            DataError: One is no string, or cannot be written as UTF-8.
        """
        strings = list(values)
        try:
            wanted = string_array(strings)
        except (UnicodeEncodeError, AttributeError, TypeError) as why:
            raise DataError(f"ids are strings of valid Unicode: {why}") from why
        return places_among(wanted, self.arrow)

    def strings(self, rows: NDArray[np.integer]) -> list[str]:
        """The ids of an array of rows, in its order.

        Args:
            rows: Rows, integers ``(m,)``.

        Returns:
            The m ids.
        """
        found: list[str] = self.arrow.take(row_array(rows)).to_pylist()
        return found

    def take(self, rows: NDArray[np.integer]) -> Ids:
        """The ids of some distinct rows as new `Ids`.

        Args:
            rows: Distinct rows, integers ``(m,)``.

        Returns:
            The m ids, row 0 being ``rows[0]``.
        """
        return Ids.from_arrow(self.arrow.take(row_array(rows)))

    def translate(self, other: Ids) -> Rows:
        """For each row here, the row of the same id in `other`; computed once per pair.

        Args:
            other: Ids to translate to.

        Returns:
            int32 ``(n,)``; -1 where `other` lacks the id.
        """
        known = self._translations.get(other.content_hash)
        if known is None:
            if self == other:
                known = np.arange(len(self), dtype=np.int32)
            else:
                known = places_among(self.arrow, other.arrow)
            self._translations[other.content_hash] = known = _frozen(known)
        return known

    def union(self, other: Ids) -> Ids:
        """These ids followed by those of `other` that are not among them.

        Args:
            other: Ids to add.

        Returns:
            `self` when nothing is new, else new `Ids` that keep the rows of `self`.
        """
        if self == other:
            return self
        new = np.flatnonzero(other.translate(self) < 0)
        if not len(new):
            return self
        return Ids.from_arrow(pa.concat_arrays([self.arrow, other.arrow.take(row_array(new))]))


def places_among(wanted: pa.Array, among: pa.Array) -> Rows:
    """Where values lie in another array.

    Args:
        wanted: Arrow strings or binary values.
        among: Distinct values of the same type.

    Returns:
        int32 ``(m,)`` for m wanted values; -1 where one is not there.
    """
    if not len(wanted):
        return _frozen(np.zeros(0, np.int32))
    found = pc.index_in(wanted, value_set=among)
    known, values = found.buffers()
    rows = np.frombuffer(values, np.int32)[: len(wanted)]
    if known is None:
        return _frozen(rows.copy())
    there = np.unpackbits(np.frombuffer(known, np.uint8), bitorder="little")[: len(wanted)]
    return _frozen(np.where(there, rows, np.int32(-1)))


def _frozen(array: Rows) -> Rows:
    array.setflags(write=False)
    return array
