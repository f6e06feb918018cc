"""`Qrels`: judged documents per query with integer grades, in columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, DuplicateIdError
from retrievekit.ids import Ids, Rows
from retrievekit.vectors import check_kind, check_offsets, ragged_take, read_only


@dataclass(frozen=True, eq=False)
class Qrels:
    """Relevance judgements.

    Args:
        queries: Ids of the judged queries.
        docs: Ids of the judged documents.
        offsets: int64 ``(nq + 1,)``; query i owns judgements ``offsets[i]:offsets[i + 1]``.
        rows: int32 ``(judgements,)``, rows of `docs`, ascending within a query.
        grades: int32 ``(judgements,)``; above 0 is relevant, negative counts as not relevant.
    """

    queries: Ids
    docs: Ids
    offsets: NDArray[np.int64]
    rows: Rows
    grades: NDArray[np.int32]

    def __post_init__(self) -> None:
        """Check that the arrays fit each other, and freeze them."""
        if len(self.offsets) != len(self.queries) + 1:
            raise DataError(f"{len(self.queries)} queries, but {len(self.offsets)} offsets")
        if not len(self.rows) == len(self.grades) == int(self.offsets[-1]):
            raise DataError(
                f"offsets count {self.offsets[-1]} judgements, rows {len(self.rows)}, "
                f"grades {len(self.grades)}"
            )
        for name, dtype in (("offsets", np.int64), ("rows", np.int32), ("grades", np.int32)):
            object.__setattr__(self, name, read_only(np.asarray(getattr(self, name), dtype)))

    @classmethod
    def from_dict(cls, grades: Mapping[str, Mapping[str, int]]) -> Qrels:
        """Build from ``{query_id: {doc_id: grade}}``.

        Args:
            grades: Grades by query and document.

        Returns:
            The judgements.

        Raises:
            DataError: A grade is no integer.
        """
        queries = Ids.from_strings(grades, what="query id")
        docs = Ids.from_strings(
            dict.fromkeys(d for part in grades.values() for d in part), what="document id"
        )
        offsets = np.zeros(len(queries) + 1, np.int64)
        np.cumsum([len(part) for part in grades.values()], out=offsets[1:])
        rows = docs.rows(d for part in grades.values() for d in part)
        values = [g for part in grades.values() for g in part.values()]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise DataError(f"a grade is {value!r}, not an integer")
            if not -(2**31) <= value < 2**31:
                raise DataError(f"a grade is {value}, beyond 32 bits")
        return cls.from_arrays(queries, docs, offsets, rows, np.array(values, np.int64))

    @classmethod
    def from_arrays(
        cls,
        queries: Ids,
        docs: Ids,
        offsets: NDArray[np.int64],
        rows: NDArray[np.integer],
        grades: NDArray[np.integer],
    ) -> Qrels:
        """Sort each query's judgements by row and build.

        Args:
            queries: Ids of the judged queries.
            docs: Ids of the judged documents.
            offsets: int64 ``(nq + 1,)``.
            rows: Integers ``(judgements,)``, distinct within a query, in any order.
            grades: Integers ``(judgements,)``.

        Returns:
            The judgements.

        Raises:
            DuplicateIdError: A document is judged twice for one query.
            DataError: A grade does not fit 32 bits, a row lies outside `docs`, or the arrays are of
                the wrong kind or length.
        """
        offsets = check_offsets(offsets, len(queries), "query")
        rows, grades = check_kind(rows, "iu", "rows"), check_kind(grades, "iu", "grades")
        if not len(rows) == len(grades) == int(offsets[-1]):
            raise DataError(
                f"offsets count {offsets[-1]} judgements, rows {len(rows)}, grades {len(grades)}"
            )
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(docs):
            raise DataError(f"rows run from {rows.min()} to {rows.max()}, but docs has {len(docs)}")
        if len(grades) and not -(2**31) <= grades.min() <= grades.max() < 2**31:
            raise DataError(f"grades run from {grades.min()} to {grades.max()}, beyond 32 bits")
        query = np.repeat(np.arange(len(queries)), np.diff(offsets))
        order = np.lexsort((rows, query))
        sorted_rows: Rows = rows[order].astype(np.int32)
        twice = np.flatnonzero((np.diff(sorted_rows) == 0) & (np.diff(query) == 0))
        if len(twice):
            q, row = int(query[twice[0]]), int(sorted_rows[twice[0]])
            raise DuplicateIdError(f"query {queries[q]!r} judges document {docs[row]!r} twice")
        return cls(queries, docs, offsets, sorted_rows, grades[order].astype(np.int32))

    @classmethod
    def read(cls, path: str | Path) -> Qrels:
        """Read judgements from a TREC or BEIR (tab-separated) file, gzipped or not.

        Args:
            path: The file.

        Returns:
            The judgements.
        """
        from retrievekit import registry

        qrels: Qrels = registry.resolve("reader", "qrels")(path)
        return qrels

    def write(self, path: str | Path) -> None:
        """Write a TREC qrels file (gzipped when the name ends in ``.gz``).

        Args:
            path: The file.
        """
        from retrievekit import registry

        registry.resolve("writer", "trec-qrels")(self, path)

    def __len__(self) -> int:
        """How many queries are judged."""
        return len(self.queries)

    @property
    def n_judgements(self) -> int:
        """How many judgements there are in all."""
        return int(self.offsets[-1])

    def __repr__(self) -> str:
        """Counts of queries and judgements."""
        return f"Qrels({len(self)} queries, {self.n_judgements} judgements)"

    def __eq__(self, other: object) -> bool:
        """Same grades for the same pairs, whatever the order of queries and documents."""
        return isinstance(other, Qrels) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all (query, document, grade), independent of their order."""
        digest = hashlib.sha256()
        for query_id, part in sorted(self.to_dict().items()):
            for doc_id, grade in sorted(part.items()):
                digest.update(f"{query_id}\0{doc_id}\0{grade}\n".encode())
        return digest.hexdigest()

    def to_dict(self) -> dict[str, dict[str, int]]:
        """The judgements as ``{query_id: {doc_id: grade}}``."""
        ids = self.docs.strings(self.rows)
        values = self.grades.tolist()
        bounds = self.offsets.tolist()
        return {
            query_id: dict(zip(ids[a:b], values[a:b], strict=True))
            for query_id, a, b in zip(self.queries, bounds[:-1], bounds[1:], strict=True)
        }

    def take(self, rows: NDArray[np.integer]) -> Qrels:
        """Some queries by distinct rows, integers ``(m,)``, with their judgements."""
        picked, offsets = ragged_take(self.offsets, rows)
        return Qrels(
            self.queries.take(rows), self.docs, offsets, self.rows[picked], self.grades[picked]
        )
