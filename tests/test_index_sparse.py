"""Sparse indexes against a dense product of floats, worked values, and laws."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrievekit import registry
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    EncoderContractError,
    EncoderMismatchError,
    FormError,
    MissingDataError,
    NonFiniteError,
    ParseError,
    UnknownNameError,
)
from retrievekit.index.opening import open_index
from retrievekit.index.quantised import to_integers, to_weights
from retrievekit.index.sparse import SparseIndex
from retrievekit.index.weights import named
from retrievekit.protocols import EncoderCard, SparseEncoder
from retrievekit.queries import Queries
from retrievekit.testing import check_stage
from retrievekit.testing.sparse import ToySparseEncoder
from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

TOY = ToySparseEncoder(1024)
TERMS = ["a", "b", "c", "δ", "##s", "[SEP]"]


def weighed(rows: Mapping[str, Mapping[str, float]]) -> list[tuple[Document, Mapping[str, float]]]:
    return [(Document(doc_id, ""), weights) for doc_id, weights in rows.items()]


def terms(*rows: Mapping[str, float]) -> Queries:
    ids = Queries.from_texts([""] * len(rows)).ids
    return Queries(ids, WeightedTerms.from_dicts(rows))


def kept(weight: float, levels: float | None) -> np.float32:
    """A weight as it is stored."""
    exact = np.float32(weight)
    return exact if levels is None else np.float32(np.rint(float(exact) * levels) / levels)


def oracle(
    rows: Mapping[str, Mapping[str, float]], query: Mapping[str, float], levels: float | None
) -> list[tuple[str, float]]:
    """The inner product in float32, term by term in the order of bytes, in the total order."""
    scores: dict[str, np.float32] = {}
    for term in sorted(query, key=lambda term: term.encode()):
        weight = np.float32(query[term])
        for doc_id, weights in rows.items():
            stored = kept(weights.get(term, 0.0), levels)
            if weight != 0 and stored != 0:
                part = weight * stored
                scores[doc_id] = scores[doc_id] + part if doc_id in scores else part
    return sorted(
        ((doc_id, float(score)) for doc_id, score in scores.items()),
        key=lambda item: (item[1], item[0].encode()),
        reverse=True,
    )


weights = st.dictionaries(
    st.sampled_from(TERMS), st.floats(0, 30, width=32, allow_subnormal=False), max_size=6
)
collections = st.dictionaries(st.sampled_from([f"d{n}" for n in range(12)]), weights, max_size=12)
asked = st.dictionaries(
    st.sampled_from([*TERMS, "unknown"]), st.floats(-5, 5, width=32, allow_subnormal=False)
)


@settings(max_examples=40)
@given(collections, asked, st.sampled_from([None, 1, 100, 4096]))
def test_hits_are_those_of_the_dense_product(
    rows: dict[str, dict[str, float]], query: dict[str, float], levels: float | None
) -> None:
    index = SparseIndex.from_weights(weighed(rows), levels=levels, block_postings=5)
    expected = oracle(rows, query, levels)
    for k in (1, 3, 20):
        run = index.search(terms(query), k)
        assert [(hit.doc_id, hit.score) for hit in run.hits(0)] == expected[:k]
    for doc_id, score in expected:
        parts = index.explain(terms(query), doc_id)
        assert math.fsum(parts.values()) == pytest.approx(score, rel=1e-5, abs=1e-5)


@settings(max_examples=30)
@given(collections, st.sampled_from([1, 100, 4096]))
def test_the_error_told_is_the_error_made(rows: dict[str, dict[str, float]], levels: float) -> None:
    index = SparseIndex.from_weights(weighed(rows), levels=levels)
    flat = [float(np.float32(w)) for row in rows.values() for w in row.values() if w > 0]
    errors = [abs(float(kept(w, levels)) - w) for w in flat]
    told = index.quantisation
    assert told.weights == len(flat)
    assert told.dropped == sum(kept(w, levels) == 0 for w in flat)
    assert told.max_error == pytest.approx(max(errors, default=0), abs=1e-9)
    assert told.mean_error == pytest.approx(sum(errors) / max(len(errors), 1), abs=1e-9)
    assert told.max_error <= 0.5 / levels + 1e-6
    exact = SparseIndex.from_weights(weighed(rows), levels=None).quantisation
    assert (exact.max_error, exact.dropped) == (0, 0)


def test_worked_impacts() -> None:
    """SPLADE's pooling, and its integers of documents (x 100) and queries (x 51.2)."""
    logits = np.array([[2, -1, 0, 0.5], [1, 3, -2, 0]])
    activated = np.log1p(np.maximum(logits, 0))
    pooled = activated.max(axis=0)
    np.testing.assert_allclose(pooled, [1.098612, 1.386294, 0, 0.405465], atol=1e-6)
    np.testing.assert_allclose(np.log1p(pooled), [0.741276, 0.869742, 0, 0.340368], atol=1e-6)
    np.testing.assert_allclose(activated.sum(0), [1.791759, 1.386294, 0, 0.405465], atol=1e-6)
    for levels, integers in [(100, [110, 139, 0, 41]), (256 / 5, [56, 71, 0, 21])]:
        found, told = to_integers(pooled.astype(np.float32), levels)
        assert found.tolist() == integers
        assert told.weights == 3
    index = SparseIndex.from_weights(
        [(Document("d", ""), dict(zip("wxyz", pooled, strict=True)))], levels=100
    )
    (hit,) = index.search(terms({"w": 56, "x": 71, "y": 0, "z": 21}), 5).hits(0)
    assert hit.score == pytest.approx((56 * 110 + 71 * 139 + 21 * 41) / 100, rel=1e-6)


def test_worked_scores_of_idf_queries() -> None:
    # Queries of tokens 0, 2 and 3, documents R / idf: [3, 4, 1].
    rows = np.array([[1, 0, 2, 0], [0, 0, 1, 3], [1, 0, 0, 0]])
    idf = np.array([0.5, 4, 2, 1])
    documents = {
        f"d{n}": {f"t{c}": w for c, w in enumerate(row / idf)} for n, row in enumerate(rows)
    }
    index = SparseIndex.from_weights(weighed(documents))
    run = index.search(terms({"t0": 0.5, "t2": 2, "t3": 1}), 5)
    assert {hit.doc_id: hit.score for hit in run.hits(0)} == {"d0": 3, "d1": 4, "d2": 1}


@given(st.lists(st.floats(0, 100, width=32), max_size=20))
def test_exact_weights_come_back_bit_by_bit(values: list[float]) -> None:
    array = np.array(values, np.float32)
    integers, _ = to_integers(array, None)
    assert (integers >= 0).all()
    np.testing.assert_array_equal(to_weights(integers, None), array)


def test_a_query_weight_of_0_takes_no_part_and_one_below_counts_against() -> None:
    rows = {"one": {"a": 1.0}, "both": {"a": 1.0, "b": 2.0}, "other": {"b": 2.0}, "none": {}}
    index = SparseIndex.from_weights(weighed(rows))
    found = index.search(terms({"a": 1, "b": 0}, {"a": 1, "b": -1}, {"b": -1}, {"a": -0.0}), 9)
    listed = [[(hit.doc_id, hit.score) for hit in hits] for hits in found]
    assert listed == [
        [("one", 1.0), ("both", 1.0)],
        [("one", 1.0), ("both", 1.0 - 2.0), ("other", -2.0)],
        [("other", -2.0), ("both", -2.0)],
        [],
    ]
    assert index.explain(terms({"a": 1, "b": -1}), "both") == {"a": 1.0, "b": -2.0}


def test_documents_without_weights_are_kept_and_told(caplog: pytest.LogCaptureFixture) -> None:
    rows = {"full": {"a": 1.0}, "empty": {}, "tiny": {"a": 0.0001}, "zero": {"a": 0.0}}
    index = SparseIndex.from_weights(weighed(rows), levels=100)
    assert len(index) == 4
    assert index.corpus is not None
    assert [d.doc_id for d in index.corpus] == list(rows)
    assert index.quantisation.dropped == 1
    assert "3 documents have no weights and are never found" in caplog.text
    assert [hit.doc_id for hit in index.search(terms({"a": 1}), 9).hits(0)] == ["full"]


def test_the_quantisation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        SparseIndex.from_weights(weighed({"d": {"a": 1.004, "b": 0.001}}), levels=100)
    (line,) = [r.getMessage() for r in caplog.records]
    assert "2 weights in steps of 1/100: error at most 0.004, 0.0025 on average; 1 below" in line


@pytest.mark.parametrize(
    ("weights", "levels", "warned"),
    [
        # A step of 1/4096 is coarse for weights of a thousandth, and fine for those of SPLADE.
        ({"a": 0.001, "b": 0.0012, "c": 0.00001}, 4096, True),
        ({"a": 0.001, "b": 0.0012, "c": 0.00001}, None, False),
        ({"a": 1.004, "b": 0.37, "c": 2.5}, 100, False),
        ({"a": 0.4, "b": 0.3}, 1, True),
        ({"a": 200, "b": 1}, 1, False),
    ],
)
def test_steps_that_are_too_coarse_are_warned_of(
    weights: dict[str, float], levels: float | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    SparseIndex.from_weights(weighed({"d": weights, "e": {"z": 0.002}}), levels=levels)
    assert ("% of their sum: give more levels" in caplog.text) == warned


# With an encoder ----------------------------------------------------------------------------------

TEXTS = {"d1": "the cat sat", "d2": "cat cat dog", "d3": "", "d4": "birds of the sea"}


def test_the_toy_keeps_the_protocol() -> None:
    assert isinstance(TOY, SparseEncoder)


def test_texts_vectors_and_terms_find_the_same() -> None:
    index = SparseIndex.build(Corpus.from_texts(TEXTS), TOY)
    words = ["cat dog", "the sea", "", "nothing here"]
    texts = Queries.from_texts(words)
    vectors = TOY.encode_query(words)
    as_vectors = Queries(texts.ids, vectors)
    as_terms = Queries(texts.ids, named(vectors, TOY))
    runs = [index.search(queries, 10) for queries in (texts, as_vectors, as_terms)]
    assert runs[0].n_hits > 3
    for run in runs[1:]:
        assert [list(hits) for hits in run] == [list(hits) for hits in runs[0]]
    nobody = SparseVectors(vectors.offsets, vectors.columns, vectors.values, vectors.size)
    assert index.search(Queries(texts.ids, nobody), 10).n_hits == runs[0].n_hits


def test_stage_laws() -> None:
    index = SparseIndex.build(Corpus.from_texts(TEXTS), TOY)
    check_stage(index.searcher(k=2), Queries.from_texts(["cat dog", "the sea", "", "cat"]))


def test_threads_and_segments_do_not_change_the_answer() -> None:
    rng = np.random.default_rng(4)
    rows = {
        f"d{n}": {f"t{t}": float(w) for t, w in zip(rng.choice(50, 9, False), rng.gamma(2, 1, 9),
                                                    strict=True)}
        for n in range(400)
    }  # fmt: skip
    queries = terms(*({f"t{t}": float(rng.normal()) for t in range(50)} for _ in range(7)))
    index = SparseIndex.from_weights(weighed(rows))
    one = index.search(queries, 50, threads=1)
    assert one == index.search(queries, 50, threads=3)
    for place in range(7):
        assert isinstance(queries.form, WeightedTerms)
        expected = oracle(rows, queries.form.row(place), 4096)[:50]
        assert [(hit.doc_id, hit.score) for hit in one.hits(place)] == expected


def test_conditions_and_candidates() -> None:
    documents = [Document(f"d{n}", "cat " * (n + 1), "", {"n": n}) for n in range(6)]
    index = SparseIndex.build(documents, TOY)
    queries = Queries.from_texts(["cat"])
    whole = [(hit.doc_id, hit.score) for hit in index.search(queries, 9).hits(0)]
    assert [doc_id for doc_id, _ in whole] == [f"d{n}" for n in (5, 4, 3, 2, 1, 0)]
    some = index.search(queries, 2, where="n < 3").hits(0)
    assert [(hit.doc_id, hit.score) for hit in some] == whole[3:5]
    chosen = index.search(queries, 9, candidates={"1": ["d1", "d4"]}).hits(0)
    assert [(hit.doc_id, hit.score) for hit in chosen] == [whole[1], whole[4]]
    both = index.search(queries, 9, candidates={"1": ["d1", "d4"]}, where="n < 3").hits(0)
    assert [hit.doc_id for hit in both] == ["d1"]
    with pytest.raises(UnknownNameError, match="no candidates are given for query '1'"):
        index.search(queries, 9, candidates={"2": ["d1"]})


def test_updates_answer_as_a_fresh_index(tmp_path: Path) -> None:
    documents = {d: Document(d, text) for d, text in TEXTS.items()}
    index = SparseIndex.build(documents.values(), TOY, tmp_path / "x")
    with index.writer() as writer:
        writer.delete(["d1"])
        writer.upsert([Document("d2", "sea dog"), Document("d5", "the cat of the sea")])
    del documents["d1"]
    documents |= {"d2": Document("d2", "sea dog"), "d5": Document("d5", "the cat of the sea")}
    queries = Queries.from_texts(["cat dog", "the sea", "of birds"])
    fresh = SparseIndex.build(documents.values(), TOY)
    index = index.reopen()
    assert index.search(queries, 9) == fresh.search(queries, 9)
    assert index.fingerprint == fresh.fingerprint
    with index.writer() as writer:
        writer.compact()
    index = index.reopen()
    assert len(index.segments) == 1
    assert index.search(queries, 9) == fresh.search(queries, 9)
    # Counts of weights are of all ever written; an error is a bound.
    assert index.quantisation.weights > fresh.quantisation.weights
    assert index.quantisation.max_error >= fresh.quantisation.max_error


class Interrupted(ToySparseEncoder):
    """An encoder that is interrupted in its third call, once."""

    calls: ClassVar[list[int]] = []

    def encode_document(self, texts: Sequence[str]) -> SparseVectors:
        self.calls.append(len(texts))
        if len(self.calls) == 3:
            raise KeyboardInterrupt
        return super().encode_document(texts)


def test_an_interrupted_build_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrievekit.index.sparse.SHARD", 2)
    documents = [Document(f"d{n}", f"cat dog {n}") for n in range(7)]
    encoder = Interrupted(1024)
    with pytest.raises(KeyboardInterrupt):
        SparseIndex.build(documents, encoder, tmp_path / "x")
    told: list[int] = []
    index = SparseIndex.build(
        documents, encoder, tmp_path / "x", progress=lambda done, _: told.append(done)
    )
    assert encoder.calls == [2, 2, 2, 2, 1]
    assert told == [2, 4, 6, 7]
    fresh = SparseIndex.build(documents, TOY)
    queries = Queries.from_texts(["cat dog 3"])
    assert index.search(queries, 9) == fresh.search(queries, 9)
    assert index.fingerprint == fresh.fingerprint


def test_an_index_is_opened_by_its_kind_and_its_encoder_s_card(tmp_path: Path) -> None:
    SparseIndex.build(Corpus.from_texts(TEXTS), TOY, tmp_path / "x")
    index = open_index(tmp_path / "x")
    assert isinstance(index, SparseIndex)
    with pytest.raises(UnknownNameError, match="toy-sparse"):
        index.search(Queries.from_texts(["cat"]), 3)
    assert index.search(terms({TOY.tokens[3]: 1.0}), 3).n_hits >= 0
    with pytest.raises(EncoderMismatchError, match="size: 1024 against 64"):
        SparseIndex.open(tmp_path / "x", ToySparseEncoder(64))
    assert SparseIndex.open(tmp_path / "x", TOY).search(Queries.from_texts(["cat"]), 3).n_hits == 2


class Wrong(ToySparseEncoder):
    """An encoder that breaks the contract in one way."""

    def __init__(self, way: str) -> None:
        super().__init__(32)
        self.way = way

    @property
    def tokens(self) -> list[str]:
        names = super().tokens
        if self.way == "names":
            names[1] = names[0]
        return names[:-1] if self.way == "size" else names

    def encode_document(self, texts: Sequence[str]) -> Any:
        out = super().encode_document(texts)
        if self.way == "rows":
            return out.take(np.arange(len(texts) - 1))
        if self.way == "array":
            return np.zeros((len(texts), 32), np.float32)
        if self.way == "order":
            return SparseVectors(out.offsets, out.columns[::-1].copy(), out.values, 32)
        if self.way == "negative":
            return SparseVectors(out.offsets, out.columns, -out.values, 32)
        return out


@pytest.mark.parametrize(
    ("way", "error", "message"),
    [
        ("names", EncoderContractError, "names two columns alike"),
        ("size", EncoderContractError, "vectors have 32 columns, .* names 31"),
        ("rows", EncoderContractError, "for 4 texts; expected SparseVectors"),
        ("array", EncoderContractError, "for 4 texts; expected SparseVectors"),
        ("order", EncoderContractError, "columns of a row do not rise"),
        ("negative", DataError, r"document 'd1': term 't\d+' weighs -\d.*not below 0"),
    ],
)
def test_encoders_that_break_the_contract(way: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SparseIndex.build(Corpus.from_texts(TEXTS), Wrong(way))


def test_every_emptiness() -> None:
    empty = SparseIndex.build([], TOY)
    assert len(empty) == 0
    assert empty.search(Queries.from_texts(["cat", ""]), 5).n_hits == 0
    assert empty.quantisation.mean_error == 0
    with empty.writer() as writer:
        writer.add([Document("d", "cat")])
    assert empty.reopen().search(Queries.from_texts(["cat"]), 5).n_hits == 1
    wordless = SparseIndex.build([Document("d", "")], TOY)
    assert wordless.search(Queries.from_texts(["cat"]), 5).n_hits == 0
    index = SparseIndex.build(Corpus.from_texts(TEXTS), TOY)
    assert len(index.search(Queries.from_texts([]), 5)) == 0
    assert index.search(terms({}), 5).n_hits == 0
    assert index.search(Queries.from_texts(["cat"]), 5, where=None).n_hits == 2
    assert SparseIndex.from_weights([]).search(terms({"a": 1}), 1).n_hits == 0


def test_forms_that_cannot_search() -> None:
    index = SparseIndex.build(Corpus.from_texts(TEXTS), TOY)
    ids = Queries.from_texts(["x"]).ids
    with pytest.raises(FormError, match="dense vectors"):
        index.search(Queries(ids, DenseVectors(np.ones((1, 3), np.float32))), 3)
    with pytest.raises(FormError, match="ids only"):
        index.search(Queries(ids, None), 3)
    other = ToySparseEncoder(16).encode_query(["cat"])
    with pytest.raises(EncoderMismatchError, match="made by another encoder"):
        index.search(Queries(ids, other), 3)
    with pytest.raises(DataError, match="k is 0"):
        index.search(Queries.from_texts(["x"]), 0)


def test_weights_that_would_overflow_are_refused() -> None:
    index = SparseIndex.from_weights(weighed({"d": {"a": 1e30}}), levels=None)
    with pytest.raises(NonFiniteError, match="query '1': its term weights are so large"):
        index.search(terms({"a": 1e10}), 3)
    assert index.search(terms({"a": 1e3}), 3).hits(0)[0].score == pytest.approx(1e33)
    with pytest.raises(DataError, match=r"a weight of 1e\+30 has more than .* levels=None"):
        SparseIndex.from_weights(weighed({"d": {"a": 1e30}}))


# Weights computed elsewhere -----------------------------------------------------------------------


def test_an_index_without_an_encoder() -> None:
    index = SparseIndex.from_weights(weighed({"d": {"a": 1.0}, "e": {"a": 2.0}}))
    assert index.card is None
    with pytest.raises(FormError, match="given without an encoder; search with weighted terms"):
        index.search(Queries.from_texts(["a"]), 3)
    with pytest.raises(FormError, match="build it again"), index.writer() as writer:
        writer.add([Document("f", "a")])
    with index.writer() as writer:
        writer.delete(["d"])
    index = index.reopen()
    assert [hit.doc_id for hit in index.search(terms({"a": 1}), 3).hits(0)] == ["e"]
    # The weights are part of who the index is, deleted ones no more.
    fresh = SparseIndex.from_weights(weighed({"e": {"a": 2.0}}))
    other = SparseIndex.from_weights(weighed({"e": {"a": 3.0}}))
    assert index.fingerprint == fresh.fingerprint != other.fingerprint
    with pytest.raises(EncoderMismatchError, match="built without an encoder"):
        SparseIndex.open(index.path, TOY)


def test_given_weights_with_their_encoder(tmp_path: Path) -> None:
    vectors = named(TOY.encode_document(list(TEXTS.values())), TOY)
    pairs = [
        (Document(doc_id, text), vectors.row(row)) for row, (doc_id, text) in
        enumerate(TEXTS.items())
    ]  # fmt: skip
    index = SparseIndex.from_weights(pairs, tmp_path / "x", encoder=TOY)
    built = SparseIndex.build(Corpus.from_texts(TEXTS), TOY)
    queries = Queries.from_texts(["cat dog", "the sea"])
    assert index.search(queries, 9) == built.search(queries, 9)
    with index.writer() as writer:
        writer.add([Document("d9", "cat sea")])
    assert index.reopen().search(queries, 9).n_hits == built.search(queries, 9).n_hits + 2


def test_terms_that_no_query_can_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = TOY.tokens[3]
    strange = {"d": {"Ġcat": 1.0, "Ġdog": 0.5}}
    with pytest.raises(DataError, match="knows none of the terms"):
        SparseIndex.from_weights(weighed(strange), tmp_path / "x", encoder=TOY)
    assert not (tmp_path / "x" / "CURRENT").exists()
    SparseIndex.from_weights(weighed(strange))
    assert not caplog.records
    SparseIndex.from_weights(weighed({**strange, "e": {known: 1.0}}), encoder=TOY)
    assert "2 of 3 weights are of terms that the encoder does not know" in caplog.text
    assert len(SparseIndex.from_weights(weighed({"e": {}}), encoder=TOY)) == 1


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_anserini_s_json_lines(tmp_path: Path) -> None:
    folder = tmp_path / "collection"
    folder.mkdir()
    jsonl(folder / "b.jsonl", {"id": "2", "contents": "", "vector": {}})
    jsonl(
        folder / "a.jsonl",
        {"id": "1", "contents": "two words", "vector": {"two": 110, "##s": 41}},
        {"id": 7, "content": "seven", "vector": {"two": 2.5}},
    )
    (folder / "notes.md").write_text("no documents")
    index = SparseIndex.from_weights(folder, tmp_path / "x", levels=2)
    assert index.corpus is not None
    assert [(d.doc_id, d.text) for d in index.corpus] == [
        ("1", "two words"), ("7", "seven"), ("2", ""),
    ]  # fmt: skip
    hits = index.search(terms({"two": 1, "##s": 10}), 9).hits(0)
    assert [(hit.doc_id, hit.score) for hit in hits] == [("1", 110 + 410.0), ("7", 2.5)]
    assert index.quantisation.max_error == 0


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ([1], ParseError, r"x\.jsonl:1: a JSON list"),
        ({"vector": {}}, ParseError, "the id is None"),
        ({"id": "", "vector": {}}, ParseError, "the id is ''"),
        ({"id": "d"}, ParseError, "the vector of 'd' is None"),
        ({"id": "d", "vector": [1]}, ParseError, "the vector of 'd'"),
        ({"id": "d", "vector": {"a": "x"}}, ParseError, "'a' of 'd' weighs 'x'"),
        ({"id": "d", "vector": {"a": True}}, ParseError, "'a' of 'd' weighs True"),
        ({"id": "d", "vector": {"a": -1}}, DataError, "'d': term 'a' weighs -1"),
        ({"id": "d", "vector": {"a": 1e300}}, NonFiniteError, "'d': term 'a' weighs 1e[+]300"),
        ({"id": "d", "vector": {}, "contents": 5}, ParseError, "the contents of 'd' are 5"),
    ],
)
def test_bad_json_lines(tmp_path: Path, record: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SparseIndex.from_weights(jsonl(tmp_path / "x.jsonl", record))


def test_an_id_that_comes_twice(tmp_path: Path) -> None:
    record = {"id": "d", "vector": {"a": 1}}
    with pytest.raises(DuplicateIdError, match="'d'"):
        SparseIndex.from_weights(jsonl(tmp_path / "x.jsonl", record, record))


def csr(tmp_path: Path, matrix: Any = None) -> dict[str, Path]:
    from scipy.sparse import csr_matrix, save_npz

    dense = [[0, 1.5, 0], [2, 0, 0.25], [0, 0, 0]]
    save_npz(tmp_path / "m.npz", csr_matrix(np.array(dense, np.float32)) if matrix is None
             else matrix)  # fmt: skip
    (tmp_path / "ids.txt").write_text("d one\nd2\nd3\n")
    (tmp_path / "terms.txt").write_text("x\ny z\nw\n")
    return {
        "source": tmp_path / "m.npz", "ids": tmp_path / "ids.txt",
        "vocabulary": tmp_path / "terms.txt",
    }  # fmt: skip


def test_csr_matrices(tmp_path: Path) -> None:
    paths = csr(tmp_path)
    index = SparseIndex.from_weights(**paths)
    assert list(index.ids) == ["d one", "d2", "d3"]
    assert [(h.doc_id, h.score) for h in index.search(terms({"x": 1, "w": 4, "y z": 1}), 9).hits(0)
            ] == [("d2", 3.0), ("d one", 1.5)]  # fmt: skip
    (tmp_path / "vocab.json").write_text(json.dumps({"w": 2, "x": 0, "y z": 1}))
    same = SparseIndex.from_weights(**{**paths, "vocabulary": tmp_path / "vocab.json"})
    assert same.fingerprint == index.fingerprint


def test_bad_matrices(tmp_path: Path) -> None:
    from scipy.sparse import csc_matrix, csr_matrix

    paths = csr(tmp_path)
    with pytest.raises(DataError, match="neither ids nor terms"):
        SparseIndex.from_weights(paths["source"])
    with pytest.raises(DataError, match="ids and vocabulary go with"):
        SparseIndex.from_weights([], ids=paths["ids"])
    with pytest.raises(DataError, match="ids and vocabulary go with"):
        SparseIndex.from_weights(jsonl(tmp_path / "x.jsonl"), ids=paths["ids"])
    with pytest.raises(MissingDataError, match="no such file or folder"):
        SparseIndex.from_weights(tmp_path / "nothing.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="no file of JSON lines"):
        SparseIndex.from_weights(tmp_path / "empty")
    paths["ids"].write_text("d1\nd2\n")
    with pytest.raises(DataError, match=r"a matrix of 3 x 3, but .* has 2 ids"):
        SparseIndex.from_weights(**paths)
    for matrix, error, message in [
        (csc_matrix(np.eye(3)), ParseError, "a csc matrix; save it as CSR"),
        (csr_matrix(np.array([[np.nan, 1, 1]] * 3)), NonFiniteError, "weight 0 holds nan"),
        (csr_matrix(-np.eye(3)), DataError, "'d one': term 'x' weighs -1"),
        (csr_matrix((np.ones(2), [1, 1], [0, 2, 2, 2]), (3, 3)), DataError, "one column twice"),
    ]:
        with pytest.raises(error, match=message):
            SparseIndex.from_weights(**csr(tmp_path, matrix))
    paths = csr(tmp_path)
    paths["vocabulary"].write_text("x\nx\nw\n")
    with pytest.raises(ParseError, match="the term 'x' comes twice"):
        SparseIndex.from_weights(**paths)
    paths["source"].write_bytes(b"not a zip")
    paths = {**paths, "vocabulary": paths["ids"]}
    with pytest.raises(ParseError, match="no sparse matrix as SciPy saves it"):
        SparseIndex.from_weights(**paths)
    pickled = np.array([{"a": 1}], object)
    np.savez(tmp_path / "m.npz", format=pickled, shape=pickled, indptr=pickled, indices=pickled,
             data=pickled)  # fmt: skip
    with pytest.raises(ParseError, match="allow_pickle"):
        SparseIndex.from_weights(**paths)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([Document("d", "x")], "pairs of a Document and"),
        ([(Document("d", "x"), {3: 1.0})], "the term 3 is not a string"),
        ([(Document("d", "x"), {"a": 1.0, "b\ud800": 1.0})], "'d': a term holds a lone surrogate"),
        ([(Document("d", "x"), {"a": "b"})], "the weights of document 'd'"),
        ([(Document("", "x"), {"a": 1})], "the id of document number 0"),
    ],
)
def test_bad_pairs(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SparseIndex.from_weights(source)


@pytest.mark.parametrize("levels", [0, -1, True, math.nan, math.inf, "8"])
def test_levels_are_checked(levels: Any) -> None:
    with pytest.raises(DataError, match="levels is"):
        SparseIndex.from_weights([], levels=levels)


def test_the_registry_knows_the_kind() -> None:
    assert registry.resolve("index", "sparse") is SparseIndex
    card = EncoderCard("x", {"class": "idf"})
    with pytest.raises(UnknownNameError, match="open the index with its encoder"):
        registry.resolve("encoder-class", "idf")(card)
