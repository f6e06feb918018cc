"""The stage algebra; the shared suite of laws passes sound stages and finds each broken one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrievekit.errors import CompositionError, FingerprintError, FormError
from retrievekit.fuse import rrf, top
from retrievekit.ids import Ids
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import FunctionStage, Stage, Then, knob, stage
from retrievekit.testing import ToyEncoder, asserting, check_run, check_stage, toy_corpus
from retrievekit.trace import Step, count, counting, merged
from retrievekit.vectors import DenseVectors, WeightedTerms

TOY = toy_corpus()
DOCUMENTS = ToyEncoder().encode_document(TOY.corpus.contents())


@dataclass(frozen=True)
class ToySearcher(Stage[Queries, Run]):
    """Exhaustive search with the toy encoder: slow and obvious."""

    k: int = 10
    loud: bool = knob(False)
    takes = Queries
    gives = Run

    def apply(self, batch: Queries) -> Run:
        if isinstance(batch.form, DenseVectors):
            vectors = batch.form.array
        else:
            vectors = ToyEncoder().encode_query(batch.rewritten_texts)
        n = len(DOCUMENTS)
        # One query at a time: a matrix product may round differently for other companions.
        scores = np.array([DOCUMENTS @ v for v in vectors]).reshape(len(batch), n)
        rows = np.tile(np.arange(n), len(batch))
        offsets = np.arange(len(batch) + 1) * n
        return Run.from_arrays(batch, TOY.corpus.ids, offsets, rows, scores.ravel()).top(self.k)

    @property
    def corpus(self) -> Any:
        return TOY.corpus


def shout(queries: Queries) -> Queries:
    texts = pa.array([text.upper() for text in queries.rewritten_texts], pa.large_string())
    return queries.rewritten(texts)


def mean_of_best(run: Run) -> Queries:
    """Feedback: the mean vector of the first two hits; zero without hits."""
    encoder = ToyEncoder()
    vectors = np.zeros((len(run), encoder.dim), np.float32)
    for row, hits in enumerate(run):
        if hits:
            words = [TOY.corpus[hit.doc_id].contents for hit in hits[:2]]
            vectors[row] = encoder.encode_document(words).mean(axis=0)
    return run.queries.rewritten(DenseVectors(vectors))


SEARCH = ToySearcher()
SHOUT = stage(shout, takes=Queries, gives=Queries, version="1")
FEEDBACK = stage(mean_of_best, takes=Run, gives=Queries, version="1")


# Composition -------------------------------------------------------------------------------------


def test_pipelines_compose_and_run():
    pipe = SHOUT >> SEARCH >> FEEDBACK >> SEARCH >> top(3)
    run = pipe(TOY.queries)
    assert pipe.takes is Queries
    assert pipe.gives is Run
    assert [step.name for step in run.trace] == [
        SHOUT.name, "ToySearcher", FEEDBACK.name, "ToySearcher", "top",
    ]  # fmt: skip
    assert run.queries.texts == TOY.queries.texts  # the words as typed survive both rewritings
    assert repr(SEARCH >> top(3)) == "ToySearcher(k=10) >> top(3)"


def test_composition_is_associative():
    left, right = (SHOUT >> SEARCH) >> top(2), SHOUT >> (SEARCH >> top(2))
    assert left.fingerprint == right.fingerprint
    assert left == right


@pytest.mark.parametrize(
    ("compose", "message"),
    [
        (lambda: SEARCH >> SEARCH, r"ToySearcher\(k=10\) >> ToySearcher\(k=10\): the left gives "
         "Run, the right takes Queries; put a feedback stage"),
        (lambda: SHOUT >> top(2), r"shout >> top\(2\): the left gives Queries, the right takes "
         "Run; put a searcher before it"),
        (lambda: SEARCH >> top(3) >> SHOUT, r"top\(3\) >> .*shout: the left gives Run"),
    ],
)  # fmt: skip
def test_wrong_composition_names_both_sides_before_anything_runs(compose, message):
    with pytest.raises(CompositionError, match=message):
        compose()


def test_only_stages_compose():
    with pytest.raises(TypeError):
        SEARCH >> len


def test_type_checker_finds_wrong_composition(tmp_path: Path):
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "from retrievekit.fuse import rrf, top\n"
        "from retrievekit.queries import Queries\n"
        "from retrievekit.run import Run\n"
        "from retrievekit.stage import Stage\n"
        "def f(search: Stage[Queries, Run], rewrite: Stage[Queries, Queries]) -> None:\n"
        "    good: Stage[Queries, Run] = rewrite >> rrf(search, search) >> top(3)\n"
        "    search >> search\n"
        "    rewrite >> top(3)\n"
        "    rrf(search, rewrite)\n"
    )
    root = Path(__file__).resolve().parent.parent
    out = subprocess.run(
        # The settings of `make check`, so that its cache serves here, too.
        [sys.executable, "-m", "mypy", "--strict", str(snippet)],
        capture_output=True, text=True, cwd=root, check=False,
    )  # fmt: skip
    found = [line for line in out.stdout.splitlines() if "snippet.py" in line and "error:" in line]
    lines = sorted({line.split("snippet.py:")[1].split(":")[0] for line in found})
    assert lines == ["7", "8", "9"], out.stdout + out.stderr


# Batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pipeline_in_parts_equals_pipeline_at_once(size):
    stages = (SHOUT, SEARCH, FEEDBACK, SEARCH, top(4))
    whole, parts = Then(stages)(TOY.queries), Then(stages, queries_at_a_time=size)(TOY.queries)
    assert parts == whole
    assert parts.queries == whole.queries
    assert [(s.name, s.n_queries, s.n_hits) for s in parts.trace] == [
        (s.name, s.n_queries, s.n_hits) for s in whole.trace
    ]


def test_what_happened_before_is_told_once():
    run = SEARCH(TOY.queries)
    cut = Then((top(5), top(3)), queries_at_a_time=3)(run)
    assert cut.trace[:1] == run.trace
    assert [(s.name, s.n_queries) for s in cut.trace] == [
        ("ToySearcher", len(run)), ("top", len(run)), ("top", len(run)),
    ]  # fmt: skip
    assert cut.trace[-1].dropped == len(run) * 2


def test_search_and_explain():
    hits = SEARCH.search("why does a cat purr")
    assert hits.doc_ids[0] == "cats-1"
    assert hits[0].text == TOY.corpus["cats-1"].contents
    first, second = (SEARCH >> top(1)).explain("why does a cat purr", "cats-1")
    assert (first["rank"], second["rank"]) == (1, 1)
    _, gone = (SEARCH >> top(1)).explain("why does a cat purr", hits.doc_ids[1])
    assert gone["rank"] is None
    with pytest.raises(FormError, match="cannot search"):
        top(3).search("x")


# Fingerprints ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holder(Stage[Queries, Queries]):
    value: Any = None
    takes = Queries
    gives = Queries

    def apply(self, batch: Queries) -> Queries:
        return batch


def test_fingerprint_is_over_class_version_and_parameters():
    class Newer(ToySearcher):
        version = "2"

    assert SEARCH.fingerprint == ToySearcher(10).fingerprint
    assert SEARCH.fingerprint != ToySearcher(11).fingerprint
    assert SEARCH.fingerprint != Newer().fingerprint
    values = [None, 0, 1, 1.5, "1", True, [1], ["1"], {"a": 1}, {"a": [1]}, [[1], 2], [1, [2]]]
    prints = {Holder(value).fingerprint for value in values}
    # True and 1 are told apart, 1.5 and 1 as well.
    assert len(prints) == len(values)
    assert Holder({"a": 1, "b": 2}).fingerprint == Holder({"b": 2, "a": 1}).fingerprint
    assert Holder((1, 2)).fingerprint == Holder([1, 2]).fingerprint
    assert Holder(np.int64(3)).fingerprint == Holder(3).fingerprint


def test_knobs_stay_outside():
    assert ToySearcher(loud=True).fingerprint == SEARCH.fingerprint
    assert Then((SEARCH, top(1)), queries_at_a_time=3).fingerprint == (SEARCH >> top(1)).fingerprint


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"bytes", float("nan"), float("inf"), len, {1: 2}, np.zeros(2)]
)
def test_what_has_no_content_has_no_fingerprint(value):
    with pytest.raises(FingerprintError, match=r"Holder\.value is .* cannot be written down"):
        _ = Holder(value).fingerprint
    # It still runs; only its trace does without.
    assert Holder(value)(TOY.queries).trace[-1].fingerprint == ""


def test_wrapped_functions():
    assert SHOUT.fingerprint == stage(shout, takes=Queries, gives=Queries, version="1").fingerprint
    assert SHOUT.fingerprint != stage(shout, takes=Queries, gives=Queries, version="2").fingerprint
    with pytest.raises(FingerprintError, match="needs a version"):
        stage(shout, takes=Queries, gives=Queries, version="")
    with pytest.raises(FingerprintError, match="def instead of lambda"):
        stage(lambda q: q, takes=Queries, gives=Queries, version="1")

    def liar(queries: Queries) -> Any:
        return list(queries.ids)

    with pytest.raises(FormError, match=r"liar promised Queries, but returned list"):
        stage(liar, takes=Queries, gives=Queries, version="1")(TOY.queries)


def test_wrong_noun_is_refused():
    with pytest.raises(FormError, match=r"top\(3\) takes Run, but was given Queries\(20, text\)"):
        top(3)(TOY.queries)
    with pytest.raises(FormError, match="takes Queries, but was given Run"):
        (SEARCH >> top(3))(SEARCH(TOY.queries))


# The laws pass what is sound ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "sound",
    [
        SEARCH,
        SHOUT,
        SHOUT >> SEARCH >> top(2),
        SEARCH >> FEEDBACK,
        Then((SEARCH, FEEDBACK, SEARCH, top(3)), queries_at_a_time=3),
        rrf(SEARCH, asserting(SHOUT >> SEARCH)) >> top(5),
        asserting(SEARCH),
    ],
    ids=repr,
)
def test_sound_stages_keep_the_laws(sound):
    check_stage(sound, TOY.queries)


def test_sound_stages_on_runs_keep_the_laws():
    run = SEARCH(TOY.queries)
    for sound in (top(3), FEEDBACK, FEEDBACK >> SEARCH):
        check_stage(sound, run)


def test_terms_and_vectors_are_compared_by_content():
    def weigh(queries: Queries) -> Queries:
        rows = [dict.fromkeys(text.split(), 1.0) for text in queries.rewritten_texts]
        return queries.rewritten(WeightedTerms.from_dicts(rows))

    check_stage(stage(weigh, takes=Queries, gives=Queries, version="1"), TOY.queries)


def test_asserting_is_the_stage_itself():
    twin = asserting(SEARCH)
    assert twin.fingerprint == SEARCH.fingerprint
    assert twin(TOY.queries) == SEARCH(TOY.queries)
    assert [s.name for s in twin(TOY.queries).trace] == ["ToySearcher"]
    assert twin.search("thunder").doc_ids == SEARCH.search("thunder").doc_ids


# The laws find each fault ------------------------------------------------------------------------


def raw(run: Run, rows: np.ndarray, scores: np.ndarray, offsets: np.ndarray | None = None) -> Run:
    """A run that nobody checked."""
    return Run(run.queries, run.docs, run.offsets if offsets is None else offsets, rows, scores)


def backwards(q: Queries) -> Run:
    run = SEARCH.apply(q)
    return raw(run, run.rows, -run.scores)


def ties_by_ascending_id(q: Queries) -> Run:
    run = SEARCH.apply(q)
    rows = run.rows.copy()
    for start, stop in zip(run.offsets[:-1], run.offsets[1:], strict=True):
        rows[start:stop] = sorted(rows[start:stop], key=lambda row: run.docs[int(row)])
    return raw(run, rows, np.ones_like(run.scores))


def twice(q: Queries) -> Run:
    run = SEARCH.apply(q)
    rows = run.rows.copy()
    rows[1::10] = rows[::10]
    return raw(run, rows, run.scores)


def not_a_number(q: Queries) -> Run:
    run = SEARCH.apply(q)
    scores = run.scores.copy()
    scores[-1:] = np.nan
    return raw(run, run.rows, scores)


def unknown_rows(q: Queries) -> Run:
    run = SEARCH.apply(q)
    rows = run.rows.copy()
    rows[:1] = len(run.docs)
    return raw(run, rows, run.scores)


def loses_queries(q: Queries) -> Run:
    run = SEARCH.apply(q)
    return run.take(np.arange(len(run))[run.queries.ids.rank != 0])


def shuffles_queries(q: Queries) -> Run:
    return SEARCH.apply(q).take(np.arange(len(q))[::-1])


def looks_at_companions(q: Queries) -> Run:
    run = SEARCH.apply(q)
    return raw(run, run.rows, run.scores * np.float32(2.0 ** (len(q) % 5)))


def looks_at_the_place(q: Queries) -> Run:
    run = SEARCH.apply(q)
    place = np.repeat(np.arange(len(q)), np.diff(run.offsets))
    return raw(run, run.rows, np.ldexp(run.scores, place % 3))


def fails_on_nothing(q: Queries) -> Run:
    if not len(q):
        raise IndexError("no first query")
    return SEARCH.apply(q)


def fails_without_words(q: Queries) -> Run:
    for text in q.texts:
        text.split()[0]
    return SEARCH.apply(q)


def gives_queries(q: Queries) -> Any:
    return q


CALLS = []


def counts_calls(q: Queries) -> Run:
    CALLS.append(1)
    run = SEARCH.apply(q)
    return raw(run, run.rows, run.scores * np.float32(2.0 ** (len(CALLS) % 9)))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (backwards, "total order"),
        (ties_by_ascending_id, "total order"),
        (twice, "no duplicates"),
        (not_a_number, "no NaN"),
        (unknown_rows, "no unknown rows"),
        (loses_queries, "one answer per query, in order.* are lost"),
        (shuffles_queries, "one answer per query, in order"),
        (looks_at_companions, r"independent of the batch \(batches of 1\)"),
        (looks_at_the_place, r"independent of the batch"),
        (fails_on_nothing, r"emptiness \(no queries\).*no first query"),
        (fails_without_words, r"emptiness \(a query without words\)"),
        (counts_calls, "same answer again"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_broken_law_is_named(fault, law):
    broken = stage(fault, takes=Queries, gives=Run, version="1")
    with pytest.raises(AssertionError, match=law):
        check_stage(broken, TOY.queries)


def test_wrapper_catches_at_the_call():
    with pytest.raises(AssertionError, match=r"total order.*backwards"):
        asserting(stage(backwards, takes=Queries, gives=Run, version="1"))(TOY.queries)
    run = backwards(TOY.queries)
    with pytest.raises(AssertionError, match="total order"):
        asserting(top(2))(run)


def test_tolerance_is_a_tolerance():
    def nearly(q: Queries) -> Run:
        run = SEARCH.apply(q)
        noise = np.float32(1e-6 * (len(q) % 3))
        return Run.from_arrays(q, run.docs, run.offsets, run.rows, run.scores + noise)

    near = stage(nearly, takes=Queries, gives=Run, version="1")
    check_stage(near, TOY.queries, atol=1e-5)
    with pytest.raises(AssertionError, match="independent of the batch"):
        check_stage(near, TOY.queries)
    with pytest.raises(AssertionError, match="independent of the batch"):
        check_stage(stage(looks_at_companions, takes=Queries, gives=Run, version="1"),
                    TOY.queries, atol=1e-5)  # fmt: skip


@dataclass(frozen=True)
class Odd(Stage[Run, Run]):
    """A stage on runs with one fault of choice."""

    fault: str
    takes = Run
    gives = Run
    pointwise = True
    state: list = field(default_factory=list, metadata={"knob": True}, compare=False)

    def apply(self, batch: Run) -> Run:
        if self.fault == "changes its input":
            batch.scores.setflags(write=True)
            batch.scores[:] *= 2
        if self.fault == "listwise":
            lengths = np.diff(batch.offsets)
            scores = np.ldexp(batch.scores, -np.repeat(lengths, lengths))
            return dataclasses.replace(batch, scores=scores)
        return batch

    def identity(self) -> dict[str, Any]:
        self.state.append(1)
        salt = len(self.state) if self.fault == "unstable" else 0
        return {**super().identity(), "salt": salt}

    def __call__(self, batch: Run, /) -> Run:
        if self.fault == "no step":
            return batch
        if self.fault == "forgets the trace":
            return dataclasses.replace(batch, trace=super().__call__(batch).trace[-1:])
        if self.fault == "takes anything" and not isinstance(batch, Run):
            return batch
        return super().__call__(batch)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("changes its input", "inputs unchanged|same answer again"),
        ("forgets the trace", "trace"),
        ("no step", "trace"),
        ("unstable", "fingerprint"),
        ("takes anything", "refuses the wrong noun"),
        ("listwise", "pointwise"),
    ],
)
def test_each_broken_law_on_runs_is_named(fault, law):
    found = SEARCH(TOY.queries)
    run = dataclasses.replace(found, scores=found.scores.copy())  # so that it can be written to
    check_stage(Odd("none"), run)
    with pytest.raises(AssertionError, match=law):
        check_stage(Odd(fault), run)


def test_check_run_on_small_things():
    check_run(Run.empty(TOY.queries, TOY.corpus.ids))
    check_run(Run.empty(Queries.from_texts({}), Ids.from_strings([])))
    check_run(Run.from_dict({"q": {"a": 0.0, "b": -0.0, "é": 0.0}}))


def test_what_a_stage_counts_is_in_its_step():
    def counted(queries: Queries) -> Queries:
        count("answers", 2 * len(queries))
        count("repairs", 0)
        return queries

    one = FunctionStage(counted, "counted", "1", Queries, Queries)
    queries = Queries.from_texts({"a": "x", "b": "y"})
    with counting() as counts:
        out = one(queries)
        count("answers")
    assert out.trace[-1].counts == (("answers", 4),)
    assert dict(counts) == {"answers": 5}  # who counts around it hears of it too
    assert "2 queries, 4 answers>" in repr(out.trace[-1])
    count("answers")  # nobody counts
    parts = merged([one(part).trace for part in queries.batches(1)])
    assert parts[0].counts == (("answers", 4),)


def test_a_printed_trace_can_be_read():
    steps = (
        Step("bm25(k=100)", "ab", 0.25, 2, 150),
        Step("top(10)", "cd", 0.0015, 2, 20, 130),
        Step("rewrite", "", 0.5, 2, 0),
    )
    assert repr(steps) == (
        "(<bm25(k=100): 250.0 ms, 2 queries, 150 hits>, "
        "<top(10): 1.5 ms, 2 queries, 20 hits (130 dropped)>, <rewrite: 500.0 ms, 2 queries>)"
    )
