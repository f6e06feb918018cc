"""Exact dense search against float64 brute force, its laws, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.corpus import Corpus
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EncoderMismatchError,
    FingerprintError,
    FormError,
    MissingExtraError,
    NonFiniteError,
    RetrieveKitError,
    UnknownNameError,
)
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import flat
from retrievekit.index.opening import open_index
from retrievekit.protocols import EncoderCard, Similarity, similarity_named
from retrievekit.queries import Queries
from retrievekit.vectors import DenseVectors, WeightedTerms


class Table:
    """An encoder that looks texts up; what it does not know is a zero vector."""

    def __init__(
        self,
        vectors: dict[str, Sequence[float]],
        dim: int,
        similarity: Similarity = "dot",
        **identity: Any,
    ) -> None:
        self.vectors, self.dim, self.similarity = vectors, dim, similarity
        self.card = EncoderCard("table", {"model": "table", "dim": dim, **identity})

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        zero = [0.0] * self.dim
        found = [self.vectors.get(text, zero) for text in texts]
        return np.array(found, np.float32).reshape(len(texts), self.dim)

    encode_query = encode_document


def build(vectors: NDArray[np.float32], similarity: Similarity, **more: Any) -> DenseIndex:
    texts = {f"d{n:05d}": f"t{n}" for n in range(len(vectors))}
    table = {f"t{n}": vector.tolist() for n, vector in enumerate(vectors)}
    encoder = Table(table, vectors.shape[1], similarity, **more)
    return DenseIndex.build(Corpus.from_texts(texts), encoder)


def oracle(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], similarity: Similarity, k: int
) -> list[list[str]]:
    """Rankings by float64 arithmetic, rounded once to float32, in the total order."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if similarity == "cosine":
        q = _unit(queries)
        v = _unit(vectors)
    if similarity == "euclidean":
        scores = -np.sqrt(((q[:, None] - v[None]) ** 2).sum(axis=2))
    else:
        scores = np.array([[sum(a * b for a, b in zip(x, y, strict=True)) for y in v] for x in q])
    scores = scores.astype(np.float32)
    names = [f"d{n:05d}" for n in range(len(v))]
    return [
        [name for _, name in sorted(zip(row, names, strict=True), reverse=True)[:k]]
        for row in scores
    ]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    lengths = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1))
    lengths[lengths == 0] = 1
    return (vectors / lengths[:, None]).astype(np.float32).astype(np.float64)


def ask(vectors: NDArray[np.float32]) -> Queries:
    texts = Queries.from_texts([f"q{n}" for n in range(len(vectors))])
    return texts.rewritten(DenseVectors(vectors))


SIMILARITIES: list[Similarity] = ["dot", "cosine", "euclidean"]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 8), st.integers(1, 70))
def test_rankings_are_exact_ties_included(
    similarity: Similarity, seed: int, n: int, dim: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct values, so that many scores are equal.
    vectors = rng.integers(-2, 3, (n, dim)).astype(np.float32)
    queries = rng.integers(-2, 3, (5, dim)).astype(np.float32)
    run = build(vectors, similarity).searcher(k=k)(ask(queries))
    assert [run.hits(q).doc_ids for q in range(5)] == oracle(queries, vectors, similarity, k)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_rankings_are_exact_over_many_blocks(
    similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "DOCUMENTS_AT_A_TIME", 100)
    monkeypatch.setattr(flat, "QUERIES_AT_A_TIME", 3)
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((1500, 12)).astype(np.float32)
    queries = rng.standard_normal((8, 12)).astype(np.float32)
    run = build(vectors, similarity).searcher(k=50)(ask(queries))
    assert [run.hits(q).doc_ids for q in range(8)] == oracle(queries, vectors, similarity, 50)


def test_near_ties_that_the_fast_pass_cannot_tell_apart() -> None:
    # Scores differ in the last bits only, far more of them than spare candidates.
    rng = np.random.default_rng(4)
    base = rng.standard_normal(64).astype(np.float32)
    noise = rng.standard_normal((400, 64)) * 1e-7
    vectors = (base + noise).astype(np.float32)
    queries = rng.standard_normal((3, 64)).astype(np.float32)
    run = build(vectors, "dot").searcher(k=5)(ask(queries))
    assert [run.hits(q).doc_ids for q in range(3)] == oracle(queries, vectors, "dot", 5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_answers_do_not_depend_on_companions_or_threads(similarity: Similarity) -> None:
    rng = np.random.default_rng(5)
    index = build(rng.standard_normal((700, 33)).astype(np.float32), similarity)
    queries = ask(rng.standard_normal((9, 33)).astype(np.float32))
    whole = index.searcher(k=20, threads=1)(queries)
    for size in (1, 2, 4):
        for start, part in zip(range(0, 9, size), queries.batches(size), strict=True):
            assert index.searcher(k=20, threads=3)(part) == whole.take(
                np.arange(start, min(9, start + size))
            )


def test_higher_is_better_under_the_euclidean_similarity() -> None:
    vectors = np.array([[0, 0], [3, 4], [1, 0]], np.float32)
    run = build(vectors, "euclidean").searcher(k=3)(ask(np.zeros((1, 2), np.float32)))
    assert run.to_dict()["1"] == {"d00000": 0.0, "d00002": -1.0, "d00001": -5.0}


def test_texts_are_encoded_and_vectors_normalised_for_cosine() -> None:
    vectors = np.array([[3, 4], [0, 2], [0, 0]], np.float32)
    index = build(vectors, "cosine")
    np.testing.assert_allclose(index.vectors, [[0.6, 0.8], [0, 1], [0, 0]], rtol=1e-6)
    hits = index.searcher(k=3).search("t1")
    assert hits.doc_ids == ["d00001", "d00000", "d00002"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8, 0.0])
    assert hits[0].text == "t1"


def test_an_index_knows_its_encoder(tmp_path: Path) -> None:
    texts = Corpus.from_texts({"d1": "t0"})
    encoder = Table({"t0": [1.0, 2.0]}, 2, pooling="mean")
    DenseIndex.build(texts, encoder, tmp_path / "x")
    assert DenseIndex.open(tmp_path / "x", encoder).searcher().search("t0").doc_ids == ["d1"]
    other = Table({"t0": [1.0, 2.0]}, 2, pooling="cls")
    with pytest.raises(EncoderMismatchError, match="pooling: 'mean' against 'cls'"):
        DenseIndex.open(tmp_path / "x", other)
    opened = open_index(tmp_path / "x")
    assert isinstance(opened, DenseIndex)
    queries = Queries.from_texts(["t0"])
    mine = DenseVectors(np.ones((1, 2), np.float32), encoder.card.fingerprint)
    assert opened.searcher()(queries.rewritten(mine))["1"].doc_ids == ["d1"]
    strange = DenseVectors(np.ones((1, 2), np.float32), other.card.fingerprint)
    with pytest.raises(EncoderMismatchError, match="another encoder"):
        opened.searcher()(queries.rewritten(strange))


def test_the_encoder_is_loaded_by_the_name_on_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Table({"t0": [1.0, 2.0]}, 2)
    DenseIndex.build(Corpus.from_texts({"d1": "t0"}), encoder, tmp_path / "x")
    with pytest.raises(RetrieveKitError):  # "table" leads nowhere yet
        DenseIndex.open(tmp_path / "x").searcher().search("t0")
    made: list[Table] = []

    def load() -> Table:
        made.append(encoder)
        return encoder

    monkeypatch.setitem(registry._ENTRIES["encoder"], "table", "tests:table")
    monkeypatch.setattr(registry, "resolve", lambda kind, name: load)
    assert DenseIndex.open(tmp_path / "x").searcher().search("t0").doc_ids == ["d1"]
    assert made == [encoder]


def test_other_numerics_are_only_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Table({"t0": [1.0]}, 1)
    encoder.card = EncoderCard("table", {"model": "table"}, {"dtype": "bfloat16"})
    DenseIndex.build(Corpus.from_texts({"d1": "t0"}), encoder, tmp_path / "x")
    encoder.card = EncoderCard("table", {"model": "table"}, {"dtype": "float32"})
    DenseIndex.open(tmp_path / "x", encoder)
    assert "dtype='bfloat16'" in caplog.text


def test_bad_vectors_never_reach_the_index() -> None:
    corpus = Corpus.from_texts({"d1": "t0", "d2": "t1"})
    with pytest.raises(NonFiniteError, match="'d2'"):
        DenseIndex.build(corpus, Table({"t0": [1.0], "t1": [float("nan")]}, 1))
    with pytest.raises(NonFiniteError, match="'d1'"):
        DenseIndex.build(corpus, Table({"t0": [float("inf")]}, 1))
    wrong = Table({}, 3)
    wrong.encode_document = lambda texts: np.zeros((len(texts), 2), np.float32)  # type: ignore[method-assign]
    with pytest.raises(EncoderContractError, match=r"expected \(2, 3\)"):
        DenseIndex.build(corpus, wrong)
    with pytest.raises(DataError):
        DenseIndex.build(corpus, Table({}, 2, "manhattan"))  # type: ignore[arg-type]
    with pytest.raises((UnknownNameError, MissingExtraError), match="engine"):
        DenseIndex.build(corpus, Table({}, 2), engine="manhattan")


def test_bad_queries_are_refused() -> None:
    index = build(np.eye(3, dtype=np.float32), "dot")
    queries = Queries.from_texts(["x"])
    with pytest.raises(DataError, match="2 components, the index has 3"):
        index.searcher()(queries.rewritten(DenseVectors(np.ones((1, 2), np.float32))))
    with pytest.raises(FormError, match="weighted terms"):
        index.searcher()(queries.rewritten(WeightedTerms.from_dicts([{"a": 1.0}])))
    with pytest.raises(NonFiniteError):
        DenseVectors(np.array([[np.nan]], np.float32))


def test_every_emptiness() -> None:
    nothing = DenseIndex.build(Corpus.from_texts({}), Table({}, 4))
    assert nothing.searcher().search("x").doc_ids == []
    index = build(np.eye(3, dtype=np.float32), "cosine")
    run = index.searcher()(ask(np.zeros((0, 3), np.float32)))
    assert (len(run), run.n_hits) == (0, 0)
    # A zero query is similar to nothing: all scores are 0, so ids decide.
    zero = index.searcher(k=2)(ask(np.zeros((1, 3), np.float32)))
    assert zero["1"].doc_ids == ["d00002", "d00001"]
    assert len(index.searcher(k=1000)(ask(np.ones((1, 3), np.float32)))["1"]) == 3


def test_vectors_are_finite_as_float32_and_numbers() -> None:
    corpus = Corpus.from_texts({"d1": "t0", "d2": "t1"})
    encoder = Table({}, 1)
    for vectors, error, message in (
        ([[0.0], [1e39]], NonFiniteError, "'d2' holds NaN or infinity as float32"),
        ([["1"], ["0"]], EncoderContractError, "dtype <U1; expected float32"),
        ([[1j], [0]], EncoderContractError, "dtype complex128"),
        ([[None], [0]], EncoderContractError, "dtype object"),
    ):
        encoder.encode_document = lambda texts, vectors=vectors: np.array(vectors)  # type: ignore[method-assign,misc]
        with pytest.raises(error, match=message):
            DenseIndex.build(corpus, encoder)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_scores_beyond_float32_are_refused(similarity: Similarity) -> None:
    index = build(np.array([[1e30, 1e30], [0, 1], [-1e30, 1e30]], np.float32), similarity)
    with pytest.raises(NonFiniteError, match=r"query '1' has length .* do not fit into float32"):
        index.searcher()(ask(np.array([[1e30, 1e30]], np.float32)))
    # The cosine knows no lengths.
    index = build(np.array([[1e30, 1e30], [0, 1]], np.float32), "cosine")
    assert index.searcher()(ask(np.array([[1e30, 1e30]], np.float32)))["1"].doc_ids[0] == "d00000"


def test_documents_that_vectors_say_nothing_of_are_told(caplog: pytest.LogCaptureFixture) -> None:
    corpus = Corpus.from_texts({"d1": "t0", "d2": "", "d3": "unknown", "d4": " \n"})
    DenseIndex.build(corpus, Table({"t0": [-1.0], "": [1.0], " \n": [0.5]}, 1, "cosine"))
    words, zeros = (record.getMessage() for record in caplog.records)
    assert words.startswith("2 documents without words ('d2', 'd4'): ")
    assert zeros.startswith("1 documents whose vector is all zeros ('d3'): ")


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_k_is_a_number_of_hits(k: Any) -> None:
    index = build(np.eye(3, dtype=np.float32), "dot")
    with pytest.raises(DataError, match="whole number of hits, at least 1"):
        index.search(ask(np.ones((1, 3), np.float32)), k)
    with pytest.raises(DataError, match="whole number of hits, at least 1"):
        index.searcher(k=k)


@pytest.mark.parametrize("name", ["Dot", "dotproduct", "inner", "cos", "cosine_sim", "l1", ""])
def test_near_names_of_similarities_are_not_guessed(name: str) -> None:
    with pytest.raises(DataError, match=f"no similarity named '{name}'; known: cos_sim"):
        similarity_named(name)
    with pytest.raises(DataError, match="no similarity named"):
        DenseIndex.build(Corpus.from_texts({"d": "t"}), Table({}, 2, name))  # type: ignore[arg-type]


def test_dot_is_not_cosine() -> None:
    longer = np.array([[1.0, 0.0], [3.0, 4.0]], np.float32)
    query = ask(np.array([[2.0, 0.0]], np.float32))
    assert build(longer, "dot").searcher()(query)["1"].doc_ids == ["d00001", "d00000"]
    assert build(longer, "cosine").searcher()(query)["1"].doc_ids == ["d00000", "d00001"]


def test_nothing_fills_up_a_ranking_of_negative_scores() -> None:
    # One query has three hits below 0, its neighbour three above; k is more than there are.
    index = build(np.array([[1.0], [2.0], [3.0]], np.float32), "dot")
    run = index.searcher(k=10)(ask(np.array([[-1.0], [1.0]], np.float32)))
    assert run.to_dict() == {
        "1": {"d00000": -1.0, "d00001": -2.0, "d00002": -3.0},
        "2": {"d00002": 3.0, "d00001": 2.0, "d00000": 1.0},
    }
    # What is filtered out does not come back with a score of 0.
    kept = run.keep(run.scores != -1.0)
    assert kept["1"].doc_ids == ["d00001", "d00002"]


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_rankings_are_exact_where_float32_thins_out(similarity: Similarity) -> None:
    # Products of these lie among the denormals, where no relative error bound holds.
    rng = np.random.default_rng(6)
    vectors = (rng.standard_normal((1500, 64)) * 2e-23).astype(np.float32)
    queries = (rng.standard_normal((4, 64)) * 2e-23).astype(np.float32)
    run = build(vectors, similarity).searcher(k=10)(ask(queries))
    assert [run.hits(q).doc_ids for q in range(4)] == oracle(queries, vectors, similarity, 10)


def test_an_encoder_s_identity_may_hold_tuples_and_numpy_s_numbers(tmp_path: Path) -> None:
    corpus = Corpus.from_texts({"d1": "t0"})
    encoder = Table({"t0": [1.0]}, 1, prompts=("a", "b"), layers=np.int64(3))
    index = DenseIndex.build(corpus, encoder, tmp_path / "x")
    assert index.searcher().search("t0").doc_ids == ["d1"]
    assert index.card.fingerprint == encoder.card.fingerprint
    encoded: list[str] = []
    strange = Table({}, 1, what=object())
    strange.encode_document = encoded.append  # type: ignore[method-assign, assignment]
    with pytest.raises(FingerprintError, match="identity of 'table'"):
        DenseIndex.build(corpus, strange)
    assert encoded == []  # told before hours of encoding
