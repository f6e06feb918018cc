"""The shared reranker: depth, rest, columns, texts, flat batches, and the laws of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrievekit as rk
from retrievekit.corpus import Document
from retrievekit.errors import DataError, EncoderContractError, FormError, NonFiniteError
from retrievekit.index.base import Index
from retrievekit.queries import Queries
from retrievekit.rerank.base import (
    Listed,
    PointwiseReranker,
    Ranked,
    Reranker,
    Rest,
    in_length_order,
)
from retrievekit.run import Run
from retrievekit.testing import check_stage


@dataclass(frozen=True)
class Overlap(PointwiseReranker):
    """Shared words of query and document, less a little for the document's length."""

    documents: Any = None
    k: int | None = None
    rest: Rest = "keep"

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        CALLS.append(list(pairs))
        return np.array([len({*q.split()} & {*d.split()}) - len(d) / 99 for q, d in pairs])


@dataclass(frozen=True)
class Given(Reranker):
    """Scores that were set beforehand, by text."""

    table: Any
    documents: Any = None
    k: int | None = None
    rest: Rest = "keep"

    def score(self, lists: Sequence[Listed]) -> list[Any]:
        return [np.array([self.table[doc] for doc in one.docs]) for one in lists]


CALLS: list[list[tuple[str, str]]] = []
WORDS = ["cat", "dog", "bird", "fish", "horn", "moon"]


@pytest.fixture(autouse=True)
def fresh() -> None:
    CALLS.clear()


def first_stage(seed: int = 0) -> tuple[rk.Corpus, Run]:
    rng = np.random.default_rng(seed)
    documents = [
        Document(f"d{i}", " ".join(rng.choice(WORDS, int(rng.integers(0, 7)))), "moon" * (i % 2))
        for i in range(12)
    ]
    queries = Queries.from_texts(["cat", "dog bird", "", "horn fish cat", "moon", "none"])
    hits = {
        query: {f"d{i}": float(rng.integers(0, 4)) for i in rng.permutation(12)[:n]}
        for query, n in zip(queries.ids, (12, 7, 5, 1, 3, 0), strict=True)
    }
    return rk.Corpus.from_documents(documents), Run.from_dict(hits, queries)


@pytest.mark.parametrize("k", [None, 1, 3, 100])
@pytest.mark.parametrize("rest", ["keep", "cut"])
def test_the_laws_hold(k: int | None, rest: Any) -> None:
    corpus, run = first_stage()
    stage = Overlap(corpus, k=k, rest=rest)
    check_stage(stage, run)
    assert stage.pointwise == (k is None)
    check_stage(Overlap(rk.BM25Index.build(corpus), k=k, rest=rest), run)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_what_lies_below_the_depth_stays_behind_in_its_order(k: int) -> None:
    corpus, run = first_stage()
    kept, cut = Overlap(corpus, k=k)(run), Overlap(corpus, k=k, rest="cut")(run)
    for hits in run:
        head, tail = hits.doc_ids[:k], hits.doc_ids[k:]
        best = Overlap().rank(hits.query, corpus.contents(corpus.ids.rows(head)))
        scores = {head[hit.index]: hit.score for hit in best}
        assert cut[hits.query_id].doc_ids == sorted(
            scores, key=lambda d: (np.float32(scores[d]), d.encode()), reverse=True
        )
        assert kept[hits.query_id].doc_ids == cut[hits.query_id].doc_ids + tail
        values = [hit.score for hit in kept[hits.query_id]]
        assert values[: len(head)] == [hit.score for hit in cut[hits.query_id]]
        assert all(
            a > b for a, b in zip(values[len(head) - 1 :], values[len(head) :], strict=False)
        )


@given(
    st.lists(st.sampled_from([-3e38, -1e8, -1.0, 0.0, 1e-30, 1.0, 2.0**24, 1e30]), min_size=1),
    st.integers(1, 9),
)
def test_the_rest_stays_apart_whatever_the_scores_are(values: list[float], k: int) -> None:
    ids = [f"d{i:02}" for i in range(len(values) + 40)]
    table = {f"text {d}": v for d, v in zip(ids, values * 41, strict=False)}
    corpus = rk.Corpus.from_texts({d: f"text {d}" for d in ids})
    queries = Queries.from_texts({"q": "x"})
    run = Run.from_dict({"q": {d: -float(i) for i, d in enumerate(ids)}}, queries)
    out = Given(table, corpus, k=k)(run)["q"]
    assert out.doc_ids[k:] == ids[k:]
    assert len({hit.score for hit in out[k - 1 :]}) == len(ids) - k + 1


def test_columns_go_with_their_hits() -> None:
    corpus, run = first_stage()
    marks = np.array([int(d[1:]) for d in run.docs.strings(run.rows)])
    marked = Run(
        run.queries, run.docs, run.offsets, run.rows, run.scores, {"mark": marks}, run.trace
    )
    for stage in (Overlap(corpus), Overlap(corpus, k=2), Overlap(corpus, k=2, rest="cut")):
        out = stage(marked)
        assert [f"d{mark}" for mark in out.columns["mark"]] == out.docs.strings(out.rows)


def test_rank_returns_places_and_keeps_ties_as_given() -> None:
    found = Overlap().rank("cat dog", ["dog", "fish", "cat", "cat dog"], k=3)
    assert found == [
        Ranked(3, 2 - 7 / 99, "cat dog"), Ranked(0, 1 - 3 / 99, "dog"), Ranked(2, 1 - 3 / 99, "cat")
    ]  # fmt: skip
    assert Overlap().rank("cat", []) == []
    for query, docs in (("cat", "dog"), (None, ["dog"]), ("cat", ["dog", None]), ("c", [b"d"])):
        with pytest.raises(DataError):
            Overlap().rank(query, docs)  # type: ignore[arg-type]


def test_a_batch_is_one_flat_call_of_distinct_pairs() -> None:
    corpus, run = first_stage()
    Overlap(corpus)(run)
    (pairs,) = CALLS
    assert len(pairs) == len(set(pairs))
    assert len(pairs) <= run.n_hits
    CALLS.clear()
    Overlap(corpus)(Run.empty(run.queries, run.docs))
    assert CALLS == []
    queries = run.queries
    twice = Run.from_dict({q: {"d0": 1.0} for q in queries.ids}, queries)
    Overlap(rk.Corpus.from_texts({"d0": "cat"}))(twice)
    assert len(CALLS[0]) == len(set(queries.texts))


def test_only_documents_that_are_reranked_are_read() -> None:
    _, run = first_stage()
    known = rk.Corpus.from_texts({hits.doc_ids[0]: "cat" for hits in run if len(hits)})
    assert len(Overlap(known, k=1)(run)) == len(run)
    with pytest.raises(DataError, match="words are not there"):
        Overlap(known, k=2)(run)


def test_what_is_missing_is_named() -> None:
    corpus, run = first_stage()
    with pytest.raises(DataError, match="needs the words of documents"):
        Overlap()(run)
    bare = rk.BM25Index.build(corpus, store_text=False)
    assert isinstance(bare, Index)
    with pytest.raises(DataError, match="built without words"):
        Overlap(bare)(run)
    wordless = Run.from_dict(run.to_dict())
    with pytest.raises(FormError, match="with_queries"):
        Overlap(corpus)(wordless)
    rewritten = run.with_queries(run.queries.rewritten(Queries.from_texts(["x"] * 6).form))
    assert Overlap(corpus)(rewritten).to_dict() == Overlap(corpus)(run).to_dict()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    corpus = rk.Corpus.from_texts({"d1": "one", "d2": "two"})
    run = Run.from_dict({"q5": {"d1": 2.0, "d2": 1.0}}, Queries.from_texts({"q5": "x"}))
    stage = Given({"one": 1.0, "two": bad}, corpus)
    with pytest.raises(NonFiniteError, match="'q5', document 'd2'"):
        stage(run)
    with pytest.raises(NonFiniteError, match=r"document 1 \('two'\)"):
        stage.rank("x", ["one", "two"])


def test_wrong_numbers_of_scores_are_refused() -> None:
    class Short(Overlap):
        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            return np.zeros(len(pairs) - 1)

    class Shorter(Given):
        def score(self, lists: Sequence[Listed]) -> list[Any]:
            return [np.zeros(len(one.docs) + 1) for one in lists]

    for stage in (Short(), Shorter({})):
        with pytest.raises(EncoderContractError, match="was asked for"):
            stage.rank("x", ["one", "two"])


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_depth_is_a_positive_whole_number(k: Any) -> None:
    with pytest.raises(DataError, match="k is"):
        Overlap(k=k)


def test_fingerprints_tell_documents_and_settings_apart() -> None:
    corpus, _ = first_stage()
    other, _ = first_stage(seed=1)
    stages = [Overlap(corpus), Overlap(other), Overlap(corpus, k=3), Overlap(k=3), Overlap()]
    stages += [Overlap(corpus, k=3, rest="cut"), Overlap(rk.BM25Index.build(corpus))]
    assert len({stage.fingerprint for stage in stages}) == len(stages)
    assert Overlap(first_stage()[0]).fingerprint == Overlap(corpus).fingerprint


def test_a_cache_asks_a_pointwise_reranker_only_about_new_hits(tmp_path: Any) -> None:
    corpus, run = first_stage()
    stage = rk.cached(Overlap(corpus), tmp_path)
    assert stage(run.top(3)) == Overlap(corpus)(run.top(3))
    CALLS.clear()
    assert stage(run) == Overlap(corpus)(run)
    below = run.n_hits - run.top(3).n_hits
    assert len(CALLS[0]) <= below


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 7))
def test_batches_of_like_length(lengths: list[int], size: int) -> None:
    batches = list(in_length_order(lengths, size))
    rows = [int(row) for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)
