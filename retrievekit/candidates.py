"""`Candidates`: for each query the documents that it may have as hits.

An index is asked with them as with a condition, ``search(queries, k, candidates=...)``, and answers
as if an exhaustive search had been cut down to each query's own set. What they serve: ranking the
premises that a theorem may use, access control, reranking the hits of another system. They fail
closed: a query without a set is an error, never a search of everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, UnknownNameError
from retrievekit.ids import Ids, Rows
from retrievekit.qrels import Qrels
from retrievekit.run import Run
from retrievekit.stage import fingerprint_of
from retrievekit.vectors import ragged_take, read_only

Missing = Literal["error", "ignore"]
"""What becomes of a document that the index does not hold."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """A set of allowed documents for each query.

    The constructor trusts its arrays; `of` makes them, always the same ones for the same sets:
    queries and documents in ascending order of their ids' bytes, and no document that no set holds.

    Args:
        queries: Ids of the queries that have a set, which may be empty.
        docs: Ids of the documents of all sets.
        offsets: int64 ``(nq + 1,)``; query i owns ``rows[offsets[i]:offsets[i + 1]]``.
        rows: int32 ``(pairs,)``, rows of `docs`, ascending within a query.
        missing: What an index does about documents that it does not hold, or no longer: ``error``,
            or ``ignore`` to leave them out.
    """

    queries: Ids
    docs: Ids
    offsets: NDArray[np.int64]
    rows: Rows
    missing: Missing = "error"

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for name in ("offsets", "rows"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @classmethod
    def of(cls, value: CandidatesLike, missing: Missing | None = None) -> Candidates:
        """Take candidates from whatever holds documents by query.

        Args:
            value: A mapping of query id to document ids, in any order, where one that comes twice
                counts once; a `Run` (its hits); a `Qrels` (all judged documents, of whatever
                grade); or candidates.
            missing: ``error`` or ``ignore``, for documents that an index does not hold; by default
                ``error``, or what given candidates say.

        Returns:
            The candidates.

        Raises:
            DataError: The value is nothing of these, an id is no string or empty, or `missing` is
                another word.

        >>> Candidates.of({"q1": ["d2", "d1"], "q2": []})
        Candidates(2 queries, 2 pairs)
        """
        if missing not in (None, *get_args(Missing)):
            raise DataError(f"missing is 'error' or 'ignore', not {missing!r}")
        if isinstance(value, Candidates):
            said = missing or value.missing
            return value if said == value.missing else replace(value, missing=said)
        if isinstance(value, Run):
            parts = (value.queries.ids, value.docs, value.offsets, value.rows)
        elif isinstance(value, Qrels):
            parts = (value.queries, value.docs, value.offsets, value.rows)
        elif isinstance(value, Mapping):
            parts = _columns(value)
        else:
            raise DataError(
                f"candidates are {type(value).__name__}; give a mapping of query id to document "
                "ids, a Run or a Qrels"
            )
        return cls(*_ordered(*parts), missing or "error")

    def __len__(self) -> int:
        """How many queries have a set."""
        return len(self.queries)

    @property
    def n_pairs(self) -> int:
        """How many documents there are in all sets together."""
        return int(self.offsets[-1])

    def __repr__(self) -> str:
        """Counts of queries and pairs, and what becomes of missing documents unless an error."""
        more = "" if self.missing == "error" else f", missing={self.missing!r}"
        return f"Candidates({len(self)} queries, {self.n_pairs} pairs{more})"

    def __eq__(self, other: object) -> bool:
        """Same sets for the same queries, and the same said of missing documents."""
        return isinstance(other, Candidates) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        """Hash of the content."""
        return hash(self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the sets and `missing`, whatever they were made from and in what order."""
        digest = hashlib.sha256(self.offsets.astype("<i8").tobytes())
        digest.update(self.rows.astype("<i4").tobytes())
        return fingerprint_of(
            {
                "class": "retrievekit.candidates.Candidates",
                "queries": self.queries.content_hash,
                "docs": self.docs.content_hash,
                "pairs": digest.hexdigest(),
                "missing": self.missing,
            }
        )

    def to_dict(self) -> dict[str, list[str]]:
        """The sets as ``{query_id: [doc_id, ...]}``, both in ascending order of their bytes."""
        ids, bounds = self.docs.strings(self.rows), self.offsets.tolist()
        return {
            query_id: ids[a:b]
            for query_id, a, b in zip(self.queries, bounds[:-1], bounds[1:], strict=True)
        }

    def places(self, queries: Ids) -> Rows:
        """Which set belongs to each query.

        Args:
            queries: Ids of the queries that are asked.

        Returns:
            Rows of `queries` of these candidates, int32 ``(n,)``.

        Raises:
            UnknownNameError: A query has no set.
        """
        places = queries.translate(self.queries)
        without = np.flatnonzero(places < 0)
        if len(without):
            shown = ", ".join(map(repr, queries.strings(without[:3])))
            more = f" and {len(without) - 3} more" if len(without) > 3 else ""
            raise UnknownNameError(
                f"no candidates are given for query {shown}{more} (they are for {len(self)} "
                "queries); give each query a set, an empty one where nothing may be found"
            )
        return places

    def rows_in(self, ids: Ids) -> Rows:
        """For each document its row among an index's; computed once for each `ids`.

        Args:
            ids: The index's ids.

        Returns:
            int32 ``(documents,)``; -1 for those to be left out.

        Raises:
            UnknownNameError: The index lacks a document, and `missing` is ``error``.
        """
        found = self.docs.translate(ids)
        strangers = np.flatnonzero(found < 0)
        if len(strangers) and self.missing == "error":
            shown = ", ".join(map(repr, self.docs.strings(strangers[:3])))
            more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
            raise UnknownNameError(
                f"{len(strangers)} of {len(self.docs)} candidates are not in the index: {shown}"
                f"{more}; Candidates.of(..., missing='ignore') leaves such documents out"
            )
        return found


CandidatesLike = Mapping[str, Iterable[str]] | Run | Qrels | Candidates
"""What a caller of ``candidates=`` may give; see `Candidates.of`."""


_Columns = tuple[Ids, Ids, NDArray[np.int64], Rows]


def _columns(sets: Mapping[str, Iterable[str]]) -> _Columns:
    queries = Ids.from_strings(sets, what="query id")
    flat: list[str] = []
    ends = [0]
    for query_id, ids in sets.items():
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
            raise DataError(
                f"the candidates of query {query_id!r} are {ids!r} ({type(ids).__name__}), not a "
                "list or set of document ids"
            )
        for doc_id in ids:
            if not isinstance(doc_id, str):
                raise DataError(
                    f"a candidate of query {query_id!r} is {doc_id!r} ({type(doc_id).__name__}), "
                    f"but ids are strings; write {str(doc_id)!r}"
                )
            flat.append(doc_id)
        ends.append(len(flat))
    numbers = {doc_id: row for row, doc_id in enumerate(dict.fromkeys(flat))}
    docs = Ids.from_strings(numbers, what="candidate")
    rows = np.fromiter(map(numbers.__getitem__, flat), np.int32, len(flat))
    return queries, docs, np.array(ends, np.int64), rows


def _ordered(queries: Ids, docs: Ids, offsets: NDArray[np.int64], rows: Rows) -> _Columns:
    """The one form of the same sets: all in order, repeated and unused documents left out."""
    picked, offsets = ragged_take(offsets, queries.order)
    used = np.zeros(len(docs), bool)
    used[rows] = True
    kept = docs.order[used[docs.order]]
    number = np.zeros(len(docs), np.int64)
    number[kept] = np.arange(len(kept))
    of_query = np.repeat(np.arange(len(queries), dtype=np.int64), np.diff(offsets))
    pairs = of_query << 32 | number[rows[picked]]
    pairs.sort()
    pairs = pairs[np.append(True, np.diff(pairs) > 0)[: len(pairs)]]
    out = np.zeros(len(queries) + 1, np.int64)
    np.cumsum(np.bincount(pairs >> 32, minlength=len(queries)), out=out[1:])
    return queries.take(queries.order), docs.take(kept), out, (pairs & 0x7FFFFFFF).astype(np.int32)
