"""Average and Rocchio over vectors: worked values, an oracle, laws, refusals, explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.config import resolve
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, ExpressionError, FormError, UnknownNameError
from retrievekit.feedback.vectors import Average, Rocchio
from retrievekit.ids import Ids
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.sparse import SparseIndex
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.testing import ToyEncoder, check_stage, toy_corpus
from retrievekit.vectors import DenseVectors, WeightedTerms

TOY = toy_corpus()
WORKED = np.array([[0, 1, 0], [0, 1, 1], [1, 0, 1]], np.float32)


def vector_queries(*vectors: list[float]) -> Queries:
    ids = Ids.from_strings([f"q{i}" for i in range(len(vectors))])
    return Queries(ids, DenseVectors(np.array(vectors, np.float32).reshape(len(vectors), -1)))


def worked(similarity: str, **settings: Any) -> tuple[DenseIndex, Run]:
    """The index and the ranking d0, d1, d2 of the worked values."""
    corpus = Corpus.from_texts({f"d{i}": "" for i in range(3)})
    index = DenseIndex.from_vectors(corpus, WORKED, similarity=similarity, **settings)
    ranking = {"q0": {"d0": 3.0, "d1": 2.0, "d2": 1.0}}
    return index, Run.from_dict(ranking, vector_queries([1, 0, 0]))


def array(queries: Queries) -> np.ndarray:
    assert isinstance(queries.form, DenseVectors)
    return queries.form.array


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda i: Average(i, 3), [0.5, 0.5, 0.5]),
        (lambda i: Rocchio(i, 3, 0.4, 0.6), [0.6, 0.4, 0.4]),
        (lambda i: Rocchio(i, 2, 0.4, 0.6, 0.1, 1), [0.3, 0.6, 0.2]),
        # Deeper than the ranking: what there is is averaged.
        (lambda i: Average(i, 9), [0.5, 0.5, 0.5]),
        (lambda i: Rocchio(i, 9, 0.4, 0.6), [0.6, 0.4, 0.4]),
    ],
)
def test_worked_values(make: Any, expected: list[float]) -> None:
    index, run = worked("dot")
    np.testing.assert_allclose(array(make(index)(run)), [expected], atol=1e-6)


def test_cosine_asks_for_length_one_and_others_for_nothing() -> None:
    index, run = worked("cosine")
    units = WORKED / np.linalg.norm(WORKED, axis=1, keepdims=True)
    moved = 0.4 * np.array([1, 0, 0]) + 0.6 * units.mean(axis=0)
    expected = moved / np.linalg.norm(moved)
    np.testing.assert_allclose(array(Rocchio(index, 3)(run)), [expected], atol=1e-6)
    index, run = worked("euclidean")
    np.testing.assert_allclose(array(Rocchio(index, 3)(run)), [[0.6, 0.4, 0.4]], atol=1e-6)


def oracle(
    queries: np.ndarray, vectors: np.ndarray, rankings: list[list[int]], stage: Rocchio
) -> np.ndarray:
    """Rocchio as it is written, one query at a time."""
    out = []
    for query, rows in zip(queries, rankings, strict=True):
        moved = query.astype(np.float64)
        if rows:
            moved = stage.alpha * moved + stage.beta * vectors[rows[: stage.docs]].mean(axis=0)
            if stage.negatives:
                moved = moved - stage.gamma * vectors[rows[-stage.negatives :]].mean(axis=0)
        out.append(moved)
    return np.array(out)


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    docs=st.integers(1, 12),
    negatives=st.integers(0, 4),
    storage=st.sampled_from(["float32", "float16"]),
)
def test_rocchio_is_the_formula(
    lengths: list[int], docs: int, negatives: int, storage: str
) -> None:
    rng = np.random.default_rng(sum(lengths))
    vectors = rng.normal(size=(10, 7)).astype(np.float32)
    corpus = Corpus.from_texts({f"d{i}": "" for i in range(10)})
    index = DenseIndex.from_vectors(corpus, vectors, similarity="dot", storage=storage)
    rankings = [rng.permutation(10)[:n].tolist() for n in lengths]
    queries = rng.normal(size=(len(lengths), 7)).astype(np.float32)
    run = Run.from_dict(
        {
            f"q{q}": {f"d{row}": -float(rank) for rank, row in enumerate(rows)}
            for q, rows in enumerate(rankings)
        },
        vector_queries(*queries.tolist()),
    )
    stage = Rocchio(index, docs, 0.5, 0.7, 0.3, negatives)
    expected = oracle(queries, index.vectors, rankings, stage)
    np.testing.assert_allclose(array(stage(run)), expected, atol=1e-5)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
def test_laws(similarity: Any) -> None:
    index = DenseIndex.build(TOY.corpus, ToyEncoder(64, similarity=similarity))
    run = index.searcher(9)(TOY.queries)
    check_stage(Rocchio(index, 4, negatives=2), run)
    check_stage(Average(index), run)


def test_laws_of_learned_weights() -> None:
    index, queries = sparse()
    check_stage(Rocchio(index, 4, negatives=2, terms=20), index.searcher(9)(queries))
    check_stage(Average(index), index.searcher(9)(queries))


def updated(path: Path, index: Any) -> tuple[Any, Any]:
    """An index after additions and deletions, and the same compacted."""
    with index.writer() as writer:
        writer.add([Document("new-1", "A cat and a dog bake bread."), Document("new-2", "Salt.")])
        writer.delete(["cats-1", "bread-2"])
    several = index.reopen()
    assert len(several.segments) > 1
    with several.writer() as writer:
        writer.compact()
    one = several.reopen()
    assert len(one.segments) == 1
    return several, one


def test_updates_and_compaction_change_nothing(tmp_path: Path) -> None:
    built = DenseIndex.build(TOY.corpus, ToyEncoder(64), tmp_path / "index")
    several, one = updated(tmp_path, built)
    for make in (lambda i: Rocchio(i, 4, negatives=2), Average):
        forms = [array(make(i)(i.searcher(9)(TOY.queries))) for i in (several, one)]
        np.testing.assert_array_equal(*forms)


def test_a_hit_that_was_deleted_is_named(tmp_path: Path) -> None:
    built = DenseIndex.build(TOY.corpus, ToyEncoder(64), tmp_path / "index")
    run = built.searcher(5)(TOY.queries.take(np.arange(1)))
    first = run.hits(0)[0].doc_id
    with built.writer() as writer:
        writer.delete([first])
    with pytest.raises(UnknownNameError, match=f"'q1': its hit '{first}' is not in"):
        Rocchio(built.reopen())(run)
    # Below what is looked at it is nobody's business.
    with built.reopen().writer() as writer:
        writer.upsert([TOY.corpus.document(TOY.corpus.ids.row(first))])
        writer.delete([run.hits(0)[4].doc_id])
    assert len(Rocchio(built.reopen(), 4)(run)) == 1


def test_queries_without_hits_stay_and_are_counted() -> None:
    index = DenseIndex.build(TOY.corpus, ToyEncoder(64))
    run = index.searcher(5)(TOY.queries)
    run = run.keep(np.arange(run.n_hits) >= run.offsets[2])
    moved = Rocchio(index)(run)
    plain = index.query_vectors(TOY.queries)
    np.testing.assert_allclose(array(moved)[:2], plain[:2], atol=1e-7)
    assert (np.abs(array(moved) - plain).max(axis=1)[2:] > 1e-3).all()
    assert moved.trace[-1].counts == (("queries without hits, left as they are", 2),)
    assert moved.trace[-1].dropped == 0


def test_the_first_search_s_vectors_are_used_again() -> None:
    calls = []

    class Counting(ToyEncoder):
        def encode_query(self, texts: Any) -> Any:
            calls.append(len(texts))
            return super().encode_query(texts)

    index = DenseIndex.build(TOY.corpus, Counting(64))
    search = index.searcher(5)
    (search >> Rocchio(index, 3) >> search)(TOY.queries)
    assert calls == [len(TOY.queries)]
    search(TOY.queries)
    search(TOY.queries)
    assert calls == 3 * [len(TOY.queries)]  # a search never leaves its own work out
    other = Queries.from_texts({"q1": "something else"})
    assert not np.array_equal(index.query_vectors(other), index.query_vectors(TOY.queries)[:1])


def test_int8_is_refused_unless_told() -> None:
    rng = np.random.default_rng(0)
    corpus = Corpus.from_texts({f"d{i}": "" for i in range(300)})
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    index = DenseIndex.from_vectors(corpus, vectors, similarity="dot", storage="int8")
    with pytest.raises(DataError, match=r"int8, rounded by .*quantised=True"):
        Rocchio(index)
    run = index.searcher(5)(vector_queries(*rng.normal(size=(4, 8)).tolist()))
    allowed = Average(index, quantised=True)
    rows = run.rows.reshape(4, 5)[:, :3]
    expected = (array(run.queries) + index.vectors[rows].sum(axis=1)) / 4
    np.testing.assert_allclose(array(allowed(run)), expected, atol=1e-6)
    # Engines that search codes score by stored floats, which feedback reads.
    coarse = DenseIndex.from_vectors(corpus, vectors, similarity="dot", engine="binary")
    exact = DenseIndex.from_vectors(corpus, vectors, similarity="dot")
    np.testing.assert_array_equal(*(array(Average(i)(run)) for i in (coarse, exact)))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"docs": 0}, "docs"),
        ({"docs": True}, "docs"),
        ({"negatives": -1}, "negatives"),
        ({"alpha": -1}, "alpha"),
        ({"beta": float("nan")}, "beta"),
        ({"gamma": "x"}, "gamma"),
        ({"terms": 5}, "learned weights"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        Rocchio(worked("dot")[0], **settings)


class Known:
    """What `resolve` asks, for one index."""

    def __init__(self, index: Any) -> None:
        self.index = index

    def retriever_names(self) -> list[str]:
        return []

    def searched(self, before: Any) -> Any:
        return self.index


def test_expressions() -> None:
    index = worked("dot")[0]
    known: Any = Known(index)
    twin = Rocchio(index, 3, 0.4, 0.6, 0.1, 1)
    assert resolve("rocchio(3, negatives=1)", known) == twin
    assert resolve("average(2)", known) == Average(index, 2)
    assert resolve("rocchio(3, negatives=1)", known).fingerprint == twin.fingerprint
    with pytest.raises(ExpressionError, match=r"there is no setting 'fb_docs'.*docs=5"):
        resolve("rocchio(fb_docs=3)", known)


def test_an_empty_index_has_no_feedback() -> None:
    index = DenseIndex.build([], ToyEncoder(16))
    run = index.searcher(3)(TOY.queries)
    np.testing.assert_array_equal(array(Rocchio(index)(run)), index.query_vectors(TOY.queries))


def test_other_indexes_are_refused() -> None:
    with pytest.raises(FormError, match="LexicalRocchio"):
        Rocchio(BM25Index.build(TOY.corpus))


# Learned weights


def sparse(levels: float | None = None) -> tuple[SparseIndex, Queries]:
    """The toy's words as learned weights, and its queries as weighted terms."""

    def weights(text: str) -> dict[str, float]:
        words = [word.strip(".,?").lower() for word in text.split()]
        return {word: 1 + len(word) / 8 for word in words if word}

    source = [(document, weights(document.text)) for document in TOY.corpus]
    index = SparseIndex.from_weights(source, levels=levels)
    form = WeightedTerms.from_dicts([weights(text) for text in TOY.queries.texts])
    return index, TOY.queries.rewritten(form)


def test_learned_weights_by_hand() -> None:
    documents = [{"a": 1.0, "b": 2.0}, {"b": 4.0, "c": 1.0}, {"a": 3.0}]
    source = [(Document(f"d{i}", ""), weights) for i, weights in enumerate(documents)]
    index = SparseIndex.from_weights(source, levels=None)
    form = WeightedTerms.from_dicts([{"a": 1.0, "z": 0.5}, {"a": 2.0}])
    queries = Queries(Ids.from_strings(["q", "none"]), form)
    run = Run.from_dict({"q": {"d0": 3.0, "d1": 2.0, "d2": 1.0}}, queries)

    def moved(stage: Any) -> dict[str, float]:
        out = stage(run)
        assert out.form.row(1) == {"a": 2.0}
        return dict(out.form.row(0))

    expected = {"a": 2 / 3, "b": 2.0, "c": 1 / 3, "z": 0.5 / 3}
    assert moved(Average(index, 2)) == pytest.approx(expected)
    plain = {"a": 0.4 + 0.3, "b": 1.8, "c": 0.3, "z": 0.2}
    assert moved(Rocchio(index, 2)) == pytest.approx(plain)
    # What the last hit holds is taken away, and nothing below 0 is kept.
    assert moved(Rocchio(index, 2, gamma=1.0, negatives=1)) == pytest.approx(
        {"b": 1.8, "c": 0.3, "z": 0.2}
    )
    assert moved(Rocchio(index, 2, terms=2)) == pytest.approx({"b": 1.8, "a": 0.7})
    told = Rocchio(index, 2).explained(run, "q")
    assert dict(told.passages) == pytest.approx({"d0": 3 / 8, "d1": 5 / 8})
    assert told.terms[0][0] == "b"
    assert Rocchio(index, 2).explained(run, "none").passages == ()


def test_a_second_search_of_learned_weights_finds_more() -> None:
    index, queries = sparse()
    search = index.searcher(100)
    first = search(queries)
    second = (search >> Rocchio(index, 3) >> search)(queries)
    assert second.n_hits > first.n_hits


# What moved it


def test_parts_of_a_score_add_up() -> None:
    for similarity in ("dot", "cosine"):
        index = DenseIndex.build(TOY.corpus, ToyEncoder(64, similarity=similarity))
        search = index.searcher(20)
        stage = Rocchio(index, 3, negatives=2)
        pipe = search >> stage >> search
        found = pipe.search(TOY.queries.texts[0])[0]
        steps = pipe.explain(TOY.queries.texts[0], found.doc_id)
        assert [bool(step["parts"]) for step in steps] == [False, True, False]
        parts = steps[1]["parts"]
        assert sum(parts.values()) == pytest.approx(found.score, abs=1e-6)
        assert len(parts) == 6
    assert stage.explain_parts(search(TOY.queries.take(np.arange(1))), "no such") == {}


def test_explained_tells_shares_of_the_move() -> None:
    index, run = worked("dot")
    told = Rocchio(index, 2, 0.4, 0.6, 0.1, 1).explained(run)
    # The move is (-.1, .6, .2): d0 gave (0, .3, 0), d1 (0, .3, .3), d2 (-.1, 0, -.1).
    shares = {"d0": 0.18 / 0.41, "d1": 0.24 / 0.41, "d2": -0.01 / 0.41}
    assert dict(told.passages) == pytest.approx(shares, abs=1e-6)
    assert told.cosine == pytest.approx(0.3 / np.sqrt(0.49))
    assert "from d1" in str(told)
    assert "cosine of before and after 0.429" in str(told)
    two = Run.from_dict({}, vector_queries([1, 0, 0], [0, 1, 0]))
    with pytest.raises(DataError, match="2 queries; name the one"):
        Rocchio(index).explained(two)
    nothing = Run.from_dict({}, vector_queries([1, 0, 0]))
    assert Rocchio(index).explained(nothing) == type(told)("q0", (), (), 1.0)
    assert "left as it is" in str(Rocchio(index).explained(nothing))
