"""Laws of stages and runs: `check_stage`, `check_run`, and the twin that asserts at each call."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.errors import FormError
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import A, B, Stage, fingerprint_of
from retrievekit.testing.laws import broken
from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

Batch: TypeAlias = Queries | Run


def check_stage(stage: Stage[A, B], batch: A, *, atol: float = 0.0) -> None:
    """Hold a stage to the laws that every stage keeps.

    Valid output in the total order; one answer per query, in the batch's order; answers that do not
    depend on batch size or companions; empty batches, and queries without words or hits; the same
    answer again; a fingerprint that is stable and equal for equal construction; its step at the end
    of the trace; inputs unchanged; a batch of the wrong noun refused. A pointwise stage must also
    score a hit alike whichever hits stand beside it.

    Args:
        stage: The stage.
        batch: What it takes: the more queries (at least 3) of different kinds, the sharper the
            check.
        atol: By how much scores and vectors may differ between batch sizes. 0 for exact stages;
            model stages state theirs. Documents that swap places or fall off the end within this
            tolerance are forgiven.

    Raises:
        AssertionError: A law is broken; the message names it and the place.
    """
    _check_fingerprint(stage)
    before = _snapshot(batch)
    whole = stage(batch)
    _check_output(stage, batch, whole)
    if _snapshot(batch) != before:
        broken("inputs unchanged", stage, "the batch is not what it was before the call")

    if stage.deterministic:
        _check_same("same answer again", stage, batch, whole, stage(batch), atol)
        _check_companions(stage, batch, whole, atol)
    _check_emptiness(stage, batch)
    if stage.pointwise and stage.deterministic and isinstance(batch, Run):
        _check_pointwise(stage, batch, whole, atol)
    _check_refusal(stage)
    _check_fingerprint(stage)


def check_run(run: Run) -> None:
    """Hold a run to the laws of runs: rows known and distinct, scores finite, in the total order.

    Args:
        run: The run.

    Raises:
        AssertionError: A law is broken; the message names it, the query and the document.
    """
    offsets = run.offsets
    if int(offsets[0]) != 0 or (np.diff(offsets) < 0).any() or int(offsets[-1]) != len(run.rows):
        raise AssertionError(f"offsets: they do not cut {len(run.rows)} hits: {offsets}")
    for place in range(len(run)):
        query_id = run.queries.ids[place]
        part = slice(int(offsets[place]), int(offsets[place + 1]))
        rows, scores = run.rows[part], run.scores[part]
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(run.docs):
            raise AssertionError(f"no unknown rows: query {query_id!r} has rows {rows}")
        if not np.isfinite(scores).all():
            raise AssertionError(f"no NaN or infinity: query {query_id!r} has scores {scores}")
        if len(np.unique(rows)) != len(rows):
            raise AssertionError(f"no duplicates: query {query_id!r} lists a document twice")
        ids = run.docs.strings(rows)
        hits = [(-float(s), _descending(i)) for s, i in zip(scores, ids, strict=True)]
        for rank in range(1, len(hits)):
            if hits[rank - 1] > hits[rank]:
                raise AssertionError(
                    f"total order (score, then id, both descending): query {query_id!r} has "
                    f"{ids[rank - 1]!r} {scores[rank - 1]} before {ids[rank]!r} {scores[rank]}"
                )


def asserting(stage: Stage[A, B]) -> Stage[A, B]:
    """A twin of a stage that checks what goes in and what comes out at each call.

    Args:
        stage: The stage.

    Returns:
        A stage with the same answers, the same fingerprint and the same trace.
    """
    return Asserting(stage)


@dataclass(frozen=True)
class Asserting(Stage[A, B]):
    """Checks what goes into a stage and what comes out; what `asserting` builds.

    Args:
        stage: The stage inside.
    """

    stage: Stage[A, B]

    def __post_init__(self) -> None:
        """Take the ends of the stage inside."""
        object.__setattr__(self, "takes", self.stage.takes)
        object.__setattr__(self, "gives", self.stage.gives)
        object.__setattr__(self, "deterministic", self.stage.deterministic)
        object.__setattr__(self, "pointwise", self.stage.pointwise)

    def __call__(self, batch: A, /) -> B:
        """Check the batch, run the stage, check the answer.

        Raises:
            FormError: The batch is not of the type that the stage takes.
        """
        self.check_takes(batch)
        if isinstance(batch, Run):
            check_run(batch)
        before = _snapshot(batch)
        out = self.stage(batch)
        _check_output(self.stage, batch, out)
        if _snapshot(batch) != before:
            broken("inputs unchanged", self.stage, "the batch is not what it was before the call")
        return out

    def apply(self, batch: A) -> B:
        """Run the stage."""
        return self.stage.apply(batch)

    def identity(self) -> dict[str, Any]:
        """That of the stage inside."""
        return self.stage.identity()

    @property
    def children(self) -> tuple[Stage[Any, Any], ...]:
        """The stage inside."""
        return (self.stage,)

    @property
    def name(self) -> str:
        """What the trace calls the stage inside."""
        return self.stage.name

    def explain_parts(self, batch: A, doc_id: str) -> Mapping[str, float]:
        """What the stage inside tells."""
        return self.stage.explain_parts(batch, doc_id)

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"asserting({self.stage!r})"


def _descending(text: str) -> tuple[int, ...]:
    """A key that sorts UTF-8 bytes downwards, longer before shorter where one begins the other."""
    return (*(-byte for byte in text.encode("utf-8")), 1)


def _queries(batch: Batch) -> Queries:
    return batch if isinstance(batch, Queries) else batch.queries


def _check_output(stage: Stage[Any, Any], batch: Any, out: Any) -> None:
    if not isinstance(out, stage.gives):
        broken("gives what it says", stage, f"it says {stage.gives.__name__}, gave {out!r}")
    asked = list(_queries(batch).ids)
    answered = list(_queries(out).ids)
    if asked != answered:
        lost = [query_id for query_id in asked if query_id not in answered]
        what = f"queries {lost[:5]} are lost" if lost else f"asked {asked[:5]}, got {answered[:5]}"
        broken("one answer per query, in order", stage, what)
    if isinstance(out, Run):
        try:
            check_run(out)
        except AssertionError as why:
            law, _, what = str(why).partition(": ")
            broken(law, stage, what)
    before, after = batch.trace, out.trace
    if len(after) <= len(before) or after[: len(before)] != before:
        broken("trace", stage, "no step of its own was added at the end of the batch's trace")
    if after[-1].n_queries != len(out) or (isinstance(out, Run) and after[-1].n_hits != out.n_hits):
        broken("trace", stage, f"the last step {after[-1]} does not count what came out")


def _check_companions(stage: Stage[A, B], batch: A, whole: B, atol: float) -> None:
    n = len(batch)
    rng = np.random.default_rng(0)
    for size in (1, 2, 7):
        if size >= n:
            continue
        for start in range(0, n, size):
            rows = np.arange(start, min(start + size, n))
            _check_part(stage, batch, whole, rows, f"batches of {size}", atol)
    _check_part(stage, batch, whole, rng.permutation(n), "another order", atol)
    some = rng.permutation(n)[: (n + 1) // 2]
    _check_part(stage, batch, whole, some, "half of the companions", atol)


def _check_part(
    stage: Stage[A, B], batch: A, whole: B, rows: NDArray[np.int64], how: str, atol: float
) -> None:
    part: Any = batch.take(rows)
    out = stage(part)
    _check_output(stage, part, out)
    law = f"independent of the batch ({how})"
    _check_same(law, stage, part, cast(Any, whole).take(rows), out, atol)


def _check_same(
    law: str, stage: Stage[Any, Any], batch: Any, expected: Any, found: Any, atol: float
) -> None:
    queries = _queries(batch)
    if isinstance(expected, Run):
        for row, query_id in enumerate(queries.ids):
            difference = _run_difference(expected, found, row, atol)
            if difference:
                broken(law, stage, f"query {query_id!r}: {difference}")
    a, b = _queries(expected), _queries(found)
    for row, query_id in enumerate(queries.ids):
        difference = _form_difference(a, b, row, atol)
        if difference:
            broken(law, stage, f"query {query_id!r}: {difference}")


def _run_difference(expected: Run, found: Run, row: int, atol: float) -> str:
    """How two rankings of one query differ, or an empty string."""
    a, b = expected.hits(row), found.hits(row)
    if atol == 0:
        pairs = [[(hit.doc_id, hit.score) for hit in hits] for hits in (a, b)]
        if pairs[0] == pairs[1]:
            return ""
        for x, y in zip(*pairs, strict=False):
            if x != y:
                return f"{x} against {y}"
        return f"{len(a)} hits against {len(b)}"
    if len(a) != len(b):
        return f"{len(a)} hits against {len(b)}"
    scores = [{hit.doc_id: hit.score for hit in hits} for hits in (a, b)]
    for mine, other in (scores, scores[::-1]):
        for doc_id, score in mine.items():
            # What fell off the end must have stood at the end.
            rival = other[doc_id] if doc_id in other else min(other.values())
            if abs(score - rival) > atol:
                return f"{doc_id!r} has {score} against {other.get(doc_id, 'none')}"
    return ""


def _form_difference(expected: Queries, found: Queries, row: int, atol: float) -> str:
    """How the forms of one query differ, or an empty string."""
    a, b = expected.form, found.form
    if type(a) is not type(b):
        return f"{expected.form_name} against {found.form_name}"
    if expected.content(row) == found.content(row):
        return ""
    if isinstance(a, DenseVectors) and isinstance(b, DenseVectors):
        far = float(np.abs(a.array[row] - b.array[row]).max(initial=0.0))
        return "" if far <= atol else f"vectors {far} apart"
    if isinstance(a, WeightedTerms) and isinstance(b, WeightedTerms):
        return _weights_difference(a.row(row), b.row(row), atol)
    if isinstance(a, SparseVectors) and isinstance(b, SparseVectors):
        rows = [
            {
                str(column): float(value)
                for column, value in zip(
                    v.columns[v.offsets[row] : v.offsets[row + 1]].tolist(),
                    v.values[v.offsets[row] : v.offsets[row + 1]].tolist(),
                    strict=True,
                )
            }
            for v in (a, b)
        ]
        return _weights_difference(rows[0], rows[1], atol)
    return f"{expected.content(row)!r} against {found.content(row)!r}"


def _weights_difference(a: Mapping[str, float], b: Mapping[str, float], atol: float) -> str:
    for term in {*a, *b}:
        if abs(a.get(term, 0.0) - b.get(term, 0.0)) > atol:
            return f"{term!r} weighs {a.get(term)} against {b.get(term)}"
    return ""


def _check_emptiness(stage: Stage[Any, Any], batch: Any) -> None:
    nothing = batch.take(np.zeros(0, np.int64))
    cases = {"no queries": nothing}
    if isinstance(batch, Run):
        cases["no hits"] = Run.empty(batch.queries, batch.docs)
        if len(batch):
            cases["a query without hits"] = batch.keep(
                np.arange(batch.n_hits) >= int(batch.offsets[1])
            )
    elif isinstance(batch.form, pa.LargeStringArray) and len(batch):
        words = ["", *batch.form.to_pylist()[1:]]
        cases["a query without words"] = dataclasses.replace(
            batch, form=pa.array(words, type=pa.large_string())
        )
    elif isinstance(batch.form, WeightedTerms) and len(batch):
        cases["queries without terms"] = dataclasses.replace(
            batch, form=WeightedTerms.from_dicts([{}] * len(batch))
        )
    for name, case in cases.items():
        try:
            out = stage(case)
        except Exception as why:
            raise AssertionError(f"emptiness ({name}): {stage!r} raised {why!r}") from why
        _check_output(stage, case, out)


def _check_pointwise(stage: Stage[Any, Any], batch: Run, whole: Any, atol: float) -> None:
    if not isinstance(whole, Run):
        broken("pointwise", stage, "only a stage from Run to Run can be pointwise")
    part = stage(batch.keep(np.arange(batch.n_hits) % 2 == 0))
    for row, query_id in enumerate(batch.queries.ids):
        full = {hit.doc_id: hit.score for hit in whole.hits(row)}
        for hit in part.hits(row):
            if hit.doc_id not in full or abs(hit.score - full[hit.doc_id]) > atol:
                broken(
                    "pointwise",
                    stage,
                    f"query {query_id!r}, document {hit.doc_id!r}: {hit.score} among half of the "
                    f"hits against {full.get(hit.doc_id, 'none')} among all",
                )


def _check_refusal(stage: Stage[Any, Any]) -> None:
    nothing = Queries.from_texts({})
    wrong: Any = Run.empty(nothing, nothing.ids) if stage.takes is Queries else nothing
    try:
        stage(wrong)
    except FormError:
        return
    broken("refuses the wrong noun", stage, f"it took a {type(wrong).__name__}")


def _check_fingerprint(stage: Stage[Any, Any]) -> None:
    now = stage.fingerprint
    if not re.fullmatch("[0-9a-f]{64}", now):
        broken("fingerprint", stage, f"{now!r} is no SHA-256 in hexadecimal")
    if fingerprint_of(stage.identity()) != now:
        broken("fingerprint", stage, "it changed while the stage was used")
    twin = _rebuilt(stage)
    if twin is not None and twin.fingerprint != now:
        broken("fingerprint", stage, "the same construction gives another one")


def _rebuilt(stage: Stage[Any, Any]) -> Stage[Any, Any] | None:
    """The stage constructed anew from its own parameters, where it is a dataclass."""
    if not dataclasses.is_dataclass(stage):
        return None
    given = {f.name: getattr(stage, f.name) for f in dataclasses.fields(stage) if f.init}
    return cast("Stage[Any, Any]", type(stage)(**given))


def _snapshot(batch: Batch) -> bytes:
    """A digest of everything in a batch, computed anew."""
    digest = hashlib.sha256()
    queries = _queries(batch)
    for row, query_id in enumerate(queries.ids):
        digest.update(query_id.encode("utf-8"))
        digest.update(queries.content(row))
    digest.update(repr(batch.trace).encode("utf-8"))
    if isinstance(batch, Run):
        for array in (batch.offsets, batch.rows, batch.scores, *batch.columns.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(batch.docs.data.tobytes())
        digest.update(batch.docs.offsets.tobytes())
    return digest.digest()
