"""`Run`: for each query its hits, best first, in columns.

``offsets`` cuts ``rows`` and ``scores`` into one part per query; array order is rank order, and the
order is the one total order of the package: score descending, then document id descending (as
trec_eval). Dictionaries, frames, hit objects and TREC files are views at the edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, DuplicateIdError, NonFiniteError
from retrievekit.ids import Ids, Rows
from retrievekit.queries import Queries
from retrievekit.trace import Step, merged
from retrievekit.vectors import check_kind, check_offsets, ragged_take, read_only

if TYPE_CHECKING:
    import pandas as pd

    from retrievekit.corpus import Corpus

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Hit:
    """One document in a ranking.

    Args:
        doc_id: The document's id.
        score: Its score; higher is better.
        rank: Its place from 1.
        text: Its words, when the ranking knows its corpus.
    """

    doc_id: str
    score: float
    rank: int
    text: str | None = None


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """The ranking of one query.

    Args:
        query_id: The query's id.
        query: Its words, or None.
        hits: The hits, best first.
    """

    query_id: str
    query: str | None
    hits: tuple[Hit, ...]

    def __len__(self) -> int:
        """How many hits there are."""
        return len(self.hits)

    def __getitem__(self, index: Any) -> Any:
        """One hit, or a tuple of hits for a slice."""
        return self.hits[index]

    @property
    def doc_ids(self) -> list[str]:
        """The documents' ids, best first."""
        return [hit.doc_id for hit in self.hits]

    def show(self, limit: int = 10) -> None:
        """Write the first hits to the terminal as a table.

        Args:
            limit: How many hits to show at most.
        """
        from rich.console import Console
        from rich.table import Table

        # Query, ids and texts are data: markup is off, so that brackets in them stay brackets.
        table = Table(title=None if self.query is None else f"{self.query}", title_justify="left")
        table.add_column("rank", justify="right")
        table.add_column("score", justify="right")
        table.add_column("document")
        table.add_column("text", overflow="ellipsis", no_wrap=True)
        for hit in self.hits[:limit]:
            words = "" if hit.text is None else " ".join(hit.text[:400].split())
            table.add_row(str(hit.rank), f"{hit.score:.4f}", hit.doc_id, words)
        Console(markup=False, emoji=False, highlight=False).print(table)


@dataclass(frozen=True, eq=False)
class Run:
    """Rankings for a batch of queries.

    The constructor trusts that hits are in order (stages that made them in order use it);
    `from_arrays` orders and checks hits from anywhere else.

    Args:
        queries: The queries, one part of the run each.
        docs: The documents that rows refer to.
        offsets: int64 ``(nq + 1,)``; query i owns hits ``offsets[i]:offsets[i + 1]``.
        rows: int32 ``(hits,)``, rows of `docs`, distinct within a query.
        scores: float32 ``(hits,)``, finite, higher is better.
        columns: More values per hit, each ``(hits,)`` of any dtype.
        trace: The stages that made the run; outside equality.
    """

    queries: Queries
    docs: Ids
    offsets: NDArray[np.int64]
    rows: Rows
    scores: Scores
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    trace: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        """Check that the arrays fit each other, and freeze them."""
        if len(self.offsets) != len(self.queries) + 1 or self.offsets[0] != 0:
            raise DataError(
                f"{len(self.queries)} queries need {len(self.queries) + 1} offsets that start "
                f"at 0; got {len(self.offsets)}"
            )
        n = int(self.offsets[-1])
        sizes = {"rows": len(self.rows), "scores": len(self.scores)}
        sizes.update({name: len(values) for name, values in self.columns.items()})
        for name, size in sizes.items():
            if size != n:
                raise DataError(f"offsets count {n} hits, but {name} has {size}")
        for name, dtype in (("offsets", np.int64), ("rows", np.int32), ("scores", np.float32)):
            object.__setattr__(self, name, read_only(np.asarray(getattr(self, name), dtype)))
        columns = {name: read_only(np.asarray(values)) for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)

    @classmethod
    def from_arrays(
        cls,
        queries: Queries,
        docs: Ids,
        offsets: NDArray[np.int64],
        rows: NDArray[np.integer],
        scores: NDArray[np.floating],
        columns: Mapping[str, NDArray[Any]] | None = None,
        trace: tuple[Step, ...] = (),
    ) -> Run:
        """Check hits from anywhere and put them into the total order.

        Args:
            queries: The queries.
            docs: The documents.
            offsets: int64 ``(nq + 1,)``.
            rows: Integers ``(hits,)``, in any order within a query.
            scores: Floats ``(hits,)``; kept as float32.
            columns: More values per hit, ``(hits,)`` each.
            trace: The stages that made the hits.

        Returns:
            The run.

        Raises:
            NonFiniteError: A score is NaN or infinite; names query and document.
            DuplicateIdError: A document comes twice for one query.
            DataError: A row lies outside `docs`, or the arrays are of the wrong kind or length.
        """
        from retrievekit.kernels.order import order_hits

        # The kernels below trust what they are given.
        offsets = check_offsets(offsets, len(queries), "query")
        rows, scores = check_kind(rows, "iu", "rows"), check_kind(scores, "iuf", "scores")
        for name, values in {"rows": rows, "scores": scores, **(columns or {})}.items():
            if len(values) != int(offsets[-1]):
                raise DataError(f"offsets count {offsets[-1]} hits, but {name} has {len(values)}")
        with np.errstate(over="ignore"):
            scores = scores.astype(np.float32)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(docs):
            raise DataError(f"rows run from {rows.min()} to {rows.max()}, but docs has {len(docs)}")
        if not np.isfinite(scores).all():
            place = int(np.flatnonzero(~np.isfinite(scores))[0])
            query = int(np.searchsorted(offsets, place, side="right")) - 1
            raise NonFiniteError(
                f"query {queries.ids[query]!r}, document {docs[int(rows[place])]!r}: the score is "
                f"{scores[place]} as float32; scores must be finite"
            )
        placed = rows.astype(np.int32)
        order = order_hits(offsets, scores, docs.rank[placed])
        placed = placed[order]
        _check_distinct(queries, docs, offsets, placed)
        more = {name: np.asarray(values)[order] for name, values in (columns or {}).items()}
        return cls(queries, docs, offsets, placed, scores[order], more, trace)

    @classmethod
    def from_dict(
        cls, scores: Mapping[str, Mapping[str, float]], queries: Queries | None = None
    ) -> Run:
        """Build from ``{query_id: {doc_id: score}}``.

        Args:
            scores: Scores by query and document.
            queries: The queries, with their words; by default ids only, in the mapping's order.
                Queries that `scores` lacks have no hits.

        Returns:
            The run.

        Raises:
            NonFiniteError: A score is NaN or infinite; names query and document.
            DataError: `scores` names a query that `queries` lacks, or a score is no number.
        """
        for query_id, part in scores.items():
            if not isinstance(part, Mapping):
                raise DataError(
                    f"the scores of query {query_id!r} are {type(part).__name__}, not a mapping of "
                    "document ids to scores"
                )
        if queries is None:
            queries = Queries(Ids.from_strings(scores, what="query id"), None)
        known = set(queries.ids)
        strangers = [query_id for query_id in scores if query_id not in known]
        if strangers:
            raise DataError(f"scores for queries that are not given: {strangers[:5]}")
        parts = [scores.get(query_id, {}) for query_id in queries.ids]
        docs = Ids.from_strings(
            dict.fromkeys(d for part in parts for d in part), what="document id"
        )
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        rows = docs.rows(d for part in parts for d in part)
        values = _numbers(parts, queries)
        return cls.from_arrays(queries, docs, offsets, rows, values)

    @classmethod
    def empty(cls, queries: Queries, docs: Ids) -> Run:
        """A run without hits.

        Args:
            queries: The queries.
            docs: The documents.

        Returns:
            The run.
        """
        nothing = np.zeros(len(queries) + 1, np.int64)
        return cls(queries, docs, nothing, np.zeros(0, np.int32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        """How many queries there are."""
        return len(self.queries)

    @property
    def n_hits(self) -> int:
        """How many hits there are in all."""
        return int(self.offsets[-1])

    def __repr__(self) -> str:
        """Counts of queries and hits."""
        return f"Run({len(self)} queries, {self.n_hits} hits)"

    def __eq__(self, other: object) -> bool:
        """Same query ids, same documents in the same places, same scores, whatever the trace."""
        if not isinstance(other, Run):
            return NotImplemented
        return self is other or (
            self.queries.ids == other.queries.ids
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.scores, other.scores)
            and (
                np.array_equal(self.rows, other.rows)
                if self.docs == other.docs
                else np.array_equal(self.docs.translate(other.docs)[self.rows], other.rows)
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, query_id: str) -> Hits:
        """The ranking of one query.

        Raises:
            UnknownNameError: The run has no such query.
        """
        return self.hits(self.queries.ids.row(query_id))

    def __iter__(self) -> Iterator[Hits]:
        """The rankings in the order of the queries."""
        for row in range(len(self)):
            yield self.hits(row)

    def hits(self, row: int, corpus: Corpus | None = None) -> Hits:
        """The ranking of the query in one row.

        Args:
            row: Row of the query.
            corpus: Where the documents' words are, to be shown with the hits; documents that it
                lacks have none.

        Returns:
            The ranking.
        """
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        ids = self.docs.strings(self.rows[part])
        words: Sequence[str | None] = [None] * len(ids)
        if corpus is not None:
            places = self.rows[part] if corpus.ids is self.docs else corpus.ids.rows(ids)
            texts = iter(corpus.contents(places[places >= 0]))
            words = [next(texts) if place >= 0 else None for place in places]
        found = zip(ids, self.scores[part].tolist(), words, strict=True)
        hits = tuple(Hit(i, s, rank, text) for rank, (i, s, text) in enumerate(found, 1))
        return Hits(self.queries.ids[row], self.queries.text(row), hits)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The run as ``{query_id: {doc_id: score}}``, best first."""
        ids = self.docs.strings(self.rows)
        values = self.scores.tolist()
        bounds = self.offsets.tolist()
        return {
            query_id: dict(zip(ids[a:b], values[a:b], strict=True))
            for query_id, a, b in zip(self.queries.ids, bounds[:-1], bounds[1:], strict=True)
        }

    def to_frame(self) -> pd.DataFrame:
        """The run as a data frame with query_id, doc_id, score, rank and the extra columns.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as why:
            from retrievekit.errors import MissingExtraError

            raise MissingExtraError("pandas", "pandas", "a data frame of a run") from why
        lengths = np.diff(self.offsets)
        return pd.DataFrame(
            {
                "query_id": np.repeat(np.array(list(self.queries.ids), object), lengths),
                "doc_id": self.docs.strings(self.rows),
                "score": self.scores,
                "rank": self.ranks,
                **self.columns,
            }
        )

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Place of each hit from 1, int64 ``(hits,)``."""
        lengths = np.diff(self.offsets)
        return np.arange(self.n_hits) - np.repeat(self.offsets[:-1], lengths) + 1

    def write(self, path: str | Path, tag: str = "retrievekit") -> None:
        """Write a TREC run file (gzipped when the name ends in ``.gz``), with its trace beside it.

        Args:
            path: The file.
            tag: The run's name in the last column, without blanks.
        """
        from retrievekit import registry

        registry.resolve("writer", "trec-run")(self, path, tag=tag)

    @classmethod
    def read(cls, path: str | Path, queries: Queries | None = None) -> Run:
        """Read a TREC run file.

        Args:
            path: The file, gzipped or not.
            queries: The queries with their words; by default ids only.

        Returns:
            The run, put into the total order by score (the rank column is ignored, as trec_eval
            does).
        """
        from retrievekit import registry

        run: Run = registry.resolve("reader", "trec-run")(path, queries=queries)
        return run

    def with_queries(self, queries: Queries) -> Run:
        """The same rankings with other (say, worded) queries of the same ids.

        Args:
            queries: Queries that hold all ids of this run; more are given no hits.

        Returns:
            The run over `queries`, in their order.

        Raises:
            DataError: `queries` lacks an id of the run.
        """
        places = self.queries.ids.translate(queries.ids)
        if (places < 0).any():
            missing = self.queries.ids.strings(np.flatnonzero(places < 0)[:5])
            raise DataError(f"the run has queries that are not given: {missing}")
        back = queries.ids.translate(self.queries.ids)
        padded = np.append(self.offsets, self.offsets[-1])
        source = np.where(back < 0, len(self), back)
        picked, offsets = ragged_take(padded, source)
        return Run(
            queries,
            self.docs,
            offsets,
            self.rows[picked],
            self.scores[picked],
            {name: values[picked] for name, values in self.columns.items()},
            self.trace,
        )

    def keep(self, mask: NDArray[np.bool_]) -> Run:
        """Only the hits of a mask; their order stays.

        Args:
            mask: bool ``(hits,)``.

        Returns:
            The shorter run.
        """
        offsets = np.zeros_like(self.offsets)
        counts = np.add.reduceat(np.append(mask, False).astype(np.int64), self.offsets[:-1])
        counts[np.diff(self.offsets) == 0] = 0
        np.cumsum(counts, out=offsets[1:])
        return Run(
            self.queries,
            self.docs,
            offsets,
            self.rows[mask],
            self.scores[mask],
            {name: values[mask] for name, values in self.columns.items()},
            self.trace,
        )

    def top(self, k: int) -> Run:
        """The first k hits of each query.

        Args:
            k: How many, at least 0.

        Returns:
            The shorter run.
        """
        return self.keep(self.ranks <= k)

    def take(self, rows: NDArray[np.integer]) -> Run:
        """Some queries by distinct rows, integers ``(m,)``, with their hits."""
        picked, offsets = ragged_take(self.offsets, rows)
        return Run(
            self.queries.take(rows),
            self.docs,
            offsets,
            self.rows[picked],
            self.scores[picked],
            {name: values[picked] for name, values in self.columns.items()},
            self.trace,
        )

    def batches(self, size: int) -> Iterator[Run]:
        """Consecutive parts of at most `size` queries.

        Args:
            size: Queries per part, at least 1.

        Yields:
            The parts, in order.
        """
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    def with_docs(self, docs: Ids) -> Run:
        """The same rankings with rows of other ids that hold all documents hit.

        Args:
            docs: Ids that hold every document of the run.

        Returns:
            The run over `docs`.

        Raises:
            DataError: `docs` lacks a document of the run.
        """
        if docs == self.docs:
            return replace(self, docs=docs)
        rows = self.docs.translate(docs)[self.rows]
        if len(rows) and rows.min() < 0:
            missing = self.docs.strings(self.rows[rows < 0][:5])
            raise DataError(f"the run holds documents that are not among those given: {missing}")
        return replace(self, docs=docs, rows=rows)


def concat(runs: Sequence[Run]) -> Run:
    """Join runs over different queries into one.

    Args:
        runs: At least one run; their queries are distinct and of one form.

    Returns:
        The run over all queries, in order; traces are added up.
    """
    if len(runs) == 1:
        return runs[0]
    docs = runs[0].docs
    for run in runs[1:]:
        docs = docs.union(run.docs)
    runs = [run.with_docs(docs) for run in runs]
    lengths = np.concatenate([np.diff(run.offsets) for run in runs])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    shared = set.intersection(*(set(run.columns) for run in runs))
    return Run(
        concat_queries([run.queries for run in runs]),
        docs,
        offsets,
        np.concatenate([run.rows for run in runs]),
        np.concatenate([run.scores for run in runs]),
        {name: np.concatenate([run.columns[name] for run in runs]) for name in sorted(shared)},
        merged([run.trace for run in runs]),
    )


def concat_queries(parts: Sequence[Queries]) -> Queries:
    """Join batches of distinct queries of one form into one.

    Args:
        parts: At least one batch.

    Returns:
        All queries, in order.

    Raises:
        DataError: The batches have different forms, or vectors of different encoders.
    """
    import pyarrow as pa

    from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

    if len(parts) == 1:
        return parts[0]
    kinds = {type(part.form) for part in parts}
    if len(kinds) > 1:
        raise DataError(f"queries of different forms: {sorted(p.form_name for p in parts)}")
    forms: list[Any] = [part.form for part in parts]
    encoders = {form.encoder for form in forms if isinstance(form, (DenseVectors, SparseVectors))}
    if len(encoders) > 1:
        raise DataError("queries whose vectors were made by different encoders cannot be joined")
    form: Any = None
    if kinds == {pa.LargeStringArray}:
        form = pa.concat_arrays(forms)
    elif kinds == {DenseVectors}:
        form = DenseVectors(np.concatenate([f.array for f in forms]), forms[0].encoder)
    elif kinds == {SparseVectors}:
        offsets = _stack_offsets([f.offsets for f in forms])
        columns = np.concatenate([f.columns for f in forms])
        values = np.concatenate([f.values for f in forms])
        form = SparseVectors(offsets, columns, values, forms[0].size, forms[0].encoder)
    elif kinds == {WeightedTerms}:
        offsets = _stack_offsets([f.offsets for f in forms])
        terms = pa.concat_arrays([f.terms for f in forms])
        form = WeightedTerms(offsets, terms, np.concatenate([f.weights for f in forms]))
    ids = Ids.from_arrow(pa.concat_arrays([part.ids.arrow for part in parts]), what="query id")
    origins = [part.origin for part in parts if part.origin is not None]
    origin = concat_queries(origins) if len(origins) == len(parts) else None
    return Queries(ids, form, origin, merged([part.trace for part in parts]))


def _numbers(parts: Sequence[Mapping[str, float]], queries: Queries) -> NDArray[np.float64]:
    """The scores of all parts, float64 ``(hits,)``; nothing but real numbers passes."""
    values = [value for part in parts for value in part.values()]
    if not {type(value) for value in values} <= {float, int}:
        for query_id, part in zip(queries.ids, parts, strict=True):
            for doc_id, value in part.items():
                real = isinstance(value, (float, int, np.floating, np.integer))
                if not real or isinstance(value, bool):
                    raise DataError(
                        f"query {query_id!r}, document {doc_id!r}: the score is {value!r} "
                        f"({type(value).__name__}), not a number"
                    )
    try:
        return np.array(values, np.float64)
    except OverflowError as why:
        raise NonFiniteError(f"a score does not fit a float ({why}); scores are finite") from why


def _stack_offsets(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(part) for part in parts])
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def _check_distinct(queries: Queries, docs: Ids, offsets: NDArray[np.int64], rows: Rows) -> None:
    query = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    pair = query * np.int64(max(len(docs), 1)) + rows
    pair.sort()
    twice = np.flatnonzero(pair[1:] == pair[:-1])
    if len(twice):
        q, row = divmod(int(pair[twice[0]]), max(len(docs), 1))
        raise DuplicateIdError(
            f"query {queries.ids[q]!r} lists document {docs[row]!r} twice"
            + (f" ({len(twice)} such cases)" if len(twice) > 1 else "")
        )
