"""Laws of `Run`: one total order, no loss between its forms, every emptiness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, DuplicateIdError, NonFiniteError, UnknownNameError
from retrievekit.ids import Ids
from retrievekit.index.bm25 import BM25Index
from retrievekit.queries import Queries
from retrievekit.run import Hit, Run, concat
from retrievekit.trace import Step

ids = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=3)
# Few values, so that ties are the rule; the two zeros are one.
scores = st.sampled_from([0.0, -0.0, 0.5, 0.25, -1.0, 1e30, -1e-30])
dicts = st.dictionaries(ids, st.dictionaries(ids, scores, max_size=6), max_size=6)


def ordered(part: dict[str, float]) -> list[str]:
    """trec_eval's order, the slow, obvious way."""
    by_id = sorted(part, key=lambda d: d.encode("utf-8"), reverse=True)
    return sorted(by_id, key=lambda d: -np.float32(part[d]))


def same(run: Run, expected: dict[str, dict[str, float]]) -> None:
    assert list(run.queries.ids) == list(expected)
    assert [hits.doc_ids for hits in run] == [ordered(part) for part in expected.values()]
    assert run.to_dict() == expected


# Order --------------------------------------------------------------------------------------------


@given(dicts)
def test_hits_are_ordered_by_score_then_id_downwards(hits: dict[str, Any]) -> None:
    run = Run.from_dict(hits)
    assert run.to_dict() == {q: {d: np.float32(s) for d, s in p.items()} for q, p in hits.items()}
    assert [list(p) for p in run.to_dict().values()] == [ordered(p) for p in hits.values()]


@given(dicts, st.randoms(use_true_random=False))
def test_the_order_given_does_not_matter(hits: dict[str, Any], random: Any) -> None:
    shuffled = {}
    for query, part in hits.items():
        docs = list(part)
        random.shuffle(docs)
        shuffled[query] = {doc: part[doc] for doc in docs}
    assert Run.from_dict(shuffled) == Run.from_dict(hits)


@given(dicts)
def test_ordering_what_is_in_order_changes_nothing(hits: dict[str, Any]) -> None:
    run = Run.from_dict(hits)
    again = Run.from_arrays(run.queries, run.docs, run.offsets, run.rows, run.scores)
    assert again == run
    assert np.array_equal(again.rows, run.rows)


def test_scores_that_differ_beyond_float32_are_ties() -> None:
    run = Run.from_dict({"q": {"a": 1.0 + 1e-12, "b": 1.0}})
    assert run["q"].doc_ids == ["b", "a"]


def test_columns_move_with_their_hits() -> None:
    docs, queries = Ids.from_strings("abc"), Queries(Ids.from_strings(["q", "p"]), None)
    run = Run.from_arrays(
        queries,
        docs,
        np.array([0, 2, 3]),
        np.array([0, 1, 2]),
        np.array([1.0, 2.0, 3.0]),
        {"part": np.array([10, 11, 12])},
    )
    assert run.columns["part"].tolist() == [11, 10, 12]
    assert run.take(np.array([1, 0])).columns["part"].tolist() == [12, 11, 10]
    assert run.top(1).columns["part"].tolist() == [11, 12]
    wide = Queries(Ids.from_strings(["none", "p", "q"]), None)
    assert run.with_queries(wide).columns["part"].tolist() == [12, 11, 10]
    assert concat([run.take(np.array([1])), run.take(np.array([0]))]).columns["part"].tolist() == [
        12,
        11,
        10,
    ]
    frame = run.to_frame()
    assert frame.columns.tolist() == ["query_id", "doc_id", "score", "rank", "part"]
    assert frame["rank"].tolist() == [1, 2, 1]
    assert frame["doc_id"].tolist() == ["b", "a", "c"]


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_scores_are_finite_as_float32(bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"query 'q2', document 'b'.*must be finite"):
        Run.from_dict({"q1": {"a": 1.0}, "empty": {}, "q2": {"a": 1.0, "b": bad}})


def test_a_document_comes_once_per_query() -> None:
    docs, queries = Ids.from_strings("ab"), Queries(Ids.from_strings(["q1", "q2"]), None)
    with pytest.raises(DuplicateIdError, match="query 'q2' lists document 'b' twice"):
        Run.from_arrays(queries, docs, np.array([0, 1, 4]), np.array([1, 1, 0, 1]), np.arange(4.0))


@pytest.mark.parametrize("row", [-1, 2])
def test_rows_are_rows_of_the_documents(row: int) -> None:
    docs, queries = Ids.from_strings("ab"), Queries(Ids.from_strings(["q"]), None)
    with pytest.raises(DataError, match="docs has 2"):
        Run.from_arrays(queries, docs, np.array([0, 1]), np.array([row]), np.ones(1))


def test_arrays_fit_each_other() -> None:
    docs, queries = Ids.from_strings("ab"), Queries(Ids.from_strings(["q"]), None)
    with pytest.raises(DataError, match="need 2 offsets"):
        Run(queries, docs, np.array([0]), np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="need 2 offsets that start at 0"):
        Run(queries, docs, np.array([1, 1]), np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="scores has 2"):
        Run(queries, docs, np.array([0, 1]), np.zeros(1), np.zeros(2))
    with pytest.raises(DataError, match="part has 0"):
        Run(queries, docs, np.array([0, 1]), np.zeros(1), np.zeros(1), {"part": np.zeros(0)})


def test_scores_for_foreign_queries_are_refused() -> None:
    queries = Queries.from_texts({"1": "one"})
    with pytest.raises(DataError, match=r"not given: \['2'\]"):
        Run.from_dict({"2": {"a": 1.0}}, queries)


def test_arrays_cannot_be_written() -> None:
    run = Run.from_dict({"q": {"a": 1.0}})
    for array in (run.scores, run.rows, run.offsets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5


# Parts and wholes ---------------------------------------------------------------------------------


@given(dicts, st.integers(1, 7))
def test_parts_make_the_whole(hits: dict[str, Any], size: int) -> None:
    run = Run.from_dict(hits)
    parts = list(run.batches(size))
    assert sum(len(part) for part in parts) == len(run)
    assert all(len(part) <= size for part in parts)
    if parts:
        assert concat(parts) == run


@given(dicts, st.data())
def test_take_gives_queries_in_the_order_asked_for(hits: dict[str, Any], data: Any) -> None:
    run = Run.from_dict(hits)
    order = data.draw(
        st.lists(st.integers(0, max(0, len(hits) - 1)), unique=True, max_size=len(hits))
    )
    picked = run.take(np.array(order, np.int64))
    names = list(hits)
    same(picked, {names[i]: run.to_dict()[names[i]] for i in order})


@given(dicts, st.integers(0, 4))
def test_top_keeps_the_first(hits: dict[str, Any], k: int) -> None:
    run = Run.from_dict(hits)
    shorter = run.top(k)
    assert [h.doc_ids for h in shorter] == [h.doc_ids[:k] for h in run]
    assert shorter.top(k) == shorter
    assert run.top(100) == run


@given(dicts, st.integers(0, 2**31))
def test_keep_keeps_what_the_mask_says(hits: dict[str, Any], seed: int) -> None:
    run = Run.from_dict(hits)
    mask = np.random.default_rng(seed).random(run.n_hits) < 0.5
    kept = run.keep(mask)
    flags = iter(mask.tolist())
    expected = {q: {d: s for d, s in p.items() if next(flags)} for q, p in run.to_dict().items()}
    same(kept, expected)


@given(dicts)
def test_ranks_count_from_1_within_each_query(hits: dict[str, Any]) -> None:
    run = Run.from_dict(hits)
    assert run.ranks.tolist() == [rank for p in hits.values() for rank in range(1, len(p) + 1)]
    assert [h.rank for part in run for h in part.hits] == run.ranks.tolist()


@given(dicts, dicts)
def test_joined_runs_hold_both(left: dict[str, Any], right: dict[str, Any]) -> None:
    right = {query: part for query, part in right.items() if query not in left}
    joined = concat([Run.from_dict(left), Run.from_dict(right)])
    assert joined == Run.from_dict({**left, **right})


def test_runs_that_share_a_query_cannot_be_joined() -> None:
    run = Run.from_dict({"q": {"a": 1.0}})
    with pytest.raises(DuplicateIdError, match="query id"):
        concat([run, run])


def test_joining_adds_up_traces() -> None:
    parts = [Run.from_dict({query: {"a": 1.0}}).take(np.array([0])) for query in ("q1", "q2")]
    traced = [
        Run(p.queries, p.docs, p.offsets, p.rows, p.scores, trace=(Step("s", "", 0.5, 1, 1, 2),))
        for p in parts
    ]
    assert concat(traced).trace == (Step("s", "", 1.0, 2, 2, 4),)
    assert concat(traced) == concat(parts)  # the trace does not count


def test_documents_that_a_corpus_lacks_have_no_words() -> None:
    run = Run.from_dict({"q": {"a": 3.0, "b": 2.0, "c": 1.0}})
    corpus = Corpus.from_texts({"c": "see", "x": "no", "a": "eh"})
    assert [hit.text for hit in run.hits(0, corpus)] == ["eh", None, "see"]
    stored = BM25Index.build(corpus).corpus
    assert [hit.text for hit in run.hits(0, stored)] == ["eh", None, "see"]
    none = Corpus.from_texts({})
    assert [hit.text for hit in run.hits(0, none)] == [None, None, None]


# Other documents, other queries -------------------------------------------------------------------


@given(dicts, st.randoms(use_true_random=False))
def test_document_numbering_is_no_part_of_a_run(hits: dict[str, Any], random: Any) -> None:
    run = Run.from_dict(hits)
    names = [*run.docs, "one more"]
    names = list(dict.fromkeys(names))
    random.shuffle(names)
    moved = run.with_docs(Ids.from_strings(names))
    assert moved == run
    assert run == moved
    assert moved.to_dict() == run.to_dict()


def test_documents_that_are_missing_are_named() -> None:
    run = Run.from_dict({"q": {"a": 1.0, "b": 2.0}})
    with pytest.raises(DataError, match=r"\['b'\]"):
        run.with_docs(Ids.from_strings(["a", "c"]))


@given(dicts)
def test_queries_bring_words_and_order(hits: dict[str, Any]) -> None:
    run = Run.from_dict(hits)
    names = ["new", *reversed(list(hits))]
    names = list(dict.fromkeys(names))
    worded = run.with_queries(Queries.from_texts({name: f"words of {name}" for name in names}))
    same(worded, {name: run.to_dict().get(name, {}) for name in names})
    assert worded.queries.texts == [f"words of {name}" for name in names]


def test_queries_that_are_missing_are_named() -> None:
    with pytest.raises(DataError, match=r"\['q'\]"):
        Run.from_dict({"q": {}}).with_queries(Queries.from_texts({"p": "words"}))


# Equality and views -------------------------------------------------------------------------------


def test_what_makes_runs_differ() -> None:
    run = Run.from_dict({"q": {"a": 1.0, "b": 0.5}})
    assert run != Run.from_dict({"q": {"a": 1.0, "b": 0.25}})
    assert run != Run.from_dict({"q": {"a": 1.0, "c": 0.5}})
    assert run != Run.from_dict({"p": {"a": 1.0, "b": 0.5}})
    assert run != Run.from_dict({"q": {"a": 1.0}})
    assert run != Run.from_dict({"q": {"a": 1.0, "b": 0.5}, "p": {}})
    assert run != "run"
    with pytest.raises(TypeError, match="unhashable"):
        hash(run)


def test_hits_show_what_they_know(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.from_dict({"q": {"a": 1.0, "b": 2.0}}, Queries.from_texts({"q": "which [bold]one?"}))
    corpus = Corpus.from_texts({"a": "text of a", "b": "text [red]of b"})
    hits = run.hits(0, corpus)
    assert hits[0] == Hit("b", 2.0, 1, "text [red]of b")
    assert hits[0:1] == (hits[0],)
    assert (hits.query, len(hits), hits.doc_ids) == ("which [bold]one?", 2, ["b", "a"])
    hits.show(limit=1)
    shown = capsys.readouterr().out
    assert "[bold]one?" in shown
    assert "[red]of b" in shown
    assert "text of a" not in shown
    assert Run.from_dict({"q": {}})["q"].query is None
    with pytest.raises(UnknownNameError, match="'p'"):
        run["p"]


# Emptiness ----------------------------------------------------------------------------------------

NO_IDS = Ids.from_strings([])
EMPTY = {
    "no queries": Run.from_dict({}),
    "queries without hits": Run.from_dict({"q1": {}, "q2": {}}),
    "no documents": Run.empty(Queries.from_texts({"q": "words"}), NO_IDS),
    "documents, no queries": Run.empty(Queries.from_texts({}), Ids.from_strings(["a"])),
    "nothing": Run.empty(Queries.from_texts({}), NO_IDS),
    "all filtered": Run.from_dict({"q": {"a": 1.0}, "p": {"b": 1.0}}).top(0),
}


@pytest.mark.parametrize("name", EMPTY)
def test_every_emptiness(name: str) -> None:
    run = EMPTY[name]
    n = len(run)
    assert run.n_hits == 0
    assert run == run.keep(np.zeros(0, bool)) == run.top(3) == run.take(np.arange(n))
    assert list(run.batches(2)) == ([run] if n else [])
    assert [hits.doc_ids for hits in run] == [[]] * n
    assert run.to_dict() == {query: {} for query in run.queries.ids}
    assert len(run.to_frame()) == 0
    assert run.with_queries(run.queries) == run
    assert run.with_docs(Ids.from_strings(["z"])) == run
    assert run.take(np.zeros(0, np.int64)).n_hits == 0
    assert repr(run) == f"Run({n} queries, 0 hits)"
    assert Run.from_arrays(run.queries, run.docs, run.offsets, run.rows, run.scores) == run
    assert concat([run, run.take(np.zeros(0, np.int64))]) == run


def test_empty_queries_between_full_ones_stay_in_place() -> None:
    run = Run.from_dict({"a": {}, "b": {"d": 1.0, "e": 2.0}, "c": {}, "d": {"d": 1.0}, "e": {}})
    assert run.keep(np.array([False, True, True])).to_dict() == {
        "a": {},
        "b": {"d": 1.0},
        "c": {},
        "d": {"d": 1.0},
        "e": {},
    }
    assert run.keep(np.zeros(3, bool)).offsets.tolist() == [0] * 6


@pytest.mark.parametrize(
    ("offsets", "rows", "scores", "message"),
    [
        ([0, 10], [0, 1], [1.0, 0.5], "count 10 hits, but rows has 2"),
        ([0, 1], [0, 1], [1.0, 0.5], "count 1 hits, but rows has 2"),
        ([0, -1], [0], [1.0], "rise from 0"),
        ([0, 2], [0, 1], [1.0], "scores has 1"),
        ([0, 1.7], [0], [1.0], "offsets are of dtype float64"),
        ([0, 2], [0.9, 1.2], [1.0, 2.0], "rows are of dtype float64, but should be integers"),
        ([0, 2], [True, False], [1.0, 2.0], "rows are of dtype bool"),
        ([0, 1], [0], ["1.5"], "scores are of dtype .*, but should be real numbers"),
        ([0, 1], [0], [1j], "scores are of dtype complex128"),
    ],
)
def test_nothing_is_cast_or_read_beyond_its_end(
    offsets: Any, rows: Any, scores: Any, message: str
) -> None:
    docs, queries = Ids.from_strings("ab"), Queries(Ids.from_strings(["q"]), None)
    with pytest.raises(DataError, match=message):
        Run.from_arrays(queries, docs, np.array(offsets), np.array(rows), np.array(scores))


@pytest.mark.parametrize("bad", ["1.5", None, True, 1j, [1.0], np.datetime64("2020-01-01")])
def test_scores_are_numbers(bad: Any) -> None:
    with pytest.raises(DataError, match=r"query 'q', document 'b': the score is .*not a number"):
        Run.from_dict({"q": {"a": 1, "b": bad}})


def test_scores_come_in_mappings_and_fit_a_float() -> None:
    with pytest.raises(DataError, match="the scores of query 'q' are list, not a mapping"):
        Run.from_dict({"q": ["a"]})  # type: ignore[dict-item]
    with pytest.raises(NonFiniteError, match="does not fit a float"):
        Run.from_dict({"q": {"a": 10**400}})
    assert Run.from_dict({"q": {"a": np.float32(2), "b": np.int8(1)}})["q"].doc_ids == ["a", "b"]
