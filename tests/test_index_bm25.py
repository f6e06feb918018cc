"""BM25 against a slow and obvious implementation, Anserini's published runs, and laws."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.analysis.lucene import LuceneEnglishAnalyzer
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    FormError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.index.bm25 import PRESETS, BM25Index, byte_length, length_byte
from retrievekit.kernels.postings import RANGE
from retrievekit.queries import Queries
from retrievekit.vectors import DenseVectors, WeightedTerms

WORDS = ["cat", "dog", "bird", "fish", "horn", "glass", "snow", "wood"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), max_size=12)


def oracle(texts: dict[str, str], query: str, k1: float, b: float) -> list[tuple[str, float]]:
    """BM25 as its formula says, over dictionaries, in the total order."""
    analyze = LuceneEnglishAnalyzer().tokens
    counts = {doc_id: Counter(analyze(text)) for doc_id, text in texts.items()}
    filled = [c for c in counts.values() if c]
    average = sum(sum(c.values()) for c in filled) / len(filled) if filled else 1.0
    scores: dict[str, float] = {}
    for term, times in Counter(analyze(query)).items():
        df = sum(term in c for c in filled)
        idf = math.log(1 + (len(filled) - df + 0.5) / (df + 0.5))
        for doc_id, c in counts.items():
            if c[term]:
                dl = byte_length(length_byte(sum(c.values())))
                norm = k1 * (1 - b + b * dl / average)
                part = times * idf * c[term] / (c[term] + norm)
                scores[doc_id] = scores.get(doc_id, 0.0) + part
    return sorted(scores.items(), key=lambda item: (item[1], item[0].encode()), reverse=True)


@given(TEXTS, st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join))
def test_scores_are_those_of_the_formula(texts: list[str], query: str) -> None:
    named = {f"d{number}": text for number, text in enumerate(texts)}
    index = BM25Index.build(Corpus.from_texts(named), block_postings=7)
    found = index.searcher(k=20).search(query)
    expected = oracle(named, query, 0.9, 0.4)
    assert {hit.doc_id for hit in found} == {doc_id for doc_id, _ in expected}
    np.testing.assert_allclose([h.score for h in found], [s for _, s in expected], rtol=1e-6)
    keys = [(hit.score, hit.doc_id) for hit in found]
    assert keys == sorted(keys, reverse=True)


@given(TEXTS, st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join))
def test_the_parts_of_an_explanation_add_up(texts: list[str], query: str) -> None:
    named = {f"d{number}": text for number, text in enumerate(texts)}
    searcher = BM25Index.build(Corpus.from_texts(named)).searcher(k=20)
    for hit in searcher.search(query):
        (step,) = searcher.explain(query, hit.doc_id)
        assert step["rank"] == hit.rank
        assert sum(step["parts"].values()) == pytest.approx(hit.score, rel=1e-6)


def test_worked_value() -> None:
    # Two documents of two terms, each term in one of them: idf = ln(1 + 1.5 / 1.5), dl = avgdl.
    index = BM25Index.build(Corpus.from_texts({"d1": "cats purr", "d2": "dogs bark"}))
    (hit,) = index.searcher(k=10).search("purring dog sled")[:1]
    assert hit.score == pytest.approx(math.log(2) * 1 / (1 + 0.9), rel=1e-6)


def test_a_term_that_comes_twice_counts_twice() -> None:
    searcher = BM25Index.build(Corpus.from_texts({"d1": "cat dog", "d2": "bird"})).searcher()
    once, twice = searcher.search("cat")[0].score, searcher.search("cat cats")[0].score
    assert twice == pytest.approx(2 * once, rel=1e-6)


def test_lengths_are_stored_as_lucene_stores_them() -> None:
    # Four significant bits from 24 on: x = L - 24 is kept exactly below 16, then by its top bits.
    assert [byte_length(length_byte(n)) for n in range(41)] == list(range(41))
    for length in [41, 57, 100, 1000, 123_456, 2**31 - 1]:
        x = length - 24
        kept = x >> (x.bit_length() - 4) << (x.bit_length() - 4)
        assert byte_length(length_byte(length)) == 24 + kept
    assert length_byte(2**31 - 1) == 255
    stored = [length_byte(n) for n in range(5000)]
    assert stored == sorted(stored)
    assert [length_byte(byte_length(byte)) for byte in range(256)] == list(range(256))


def read_texts(path: Path) -> dict[str, str]:
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["_id"]: row["text"] for row in rows}


def read_documents(path: Path) -> list[Document]:
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Document(row["_id"], row["text"], row.get("title", "")) for row in rows]


@pytest.mark.parametrize(("name", "places"), [("scifact", 29_966), ("nfcorpus", 22_028)])
def test_rankings_equal_anserini_s(data_dir: Path, name: str, places: int) -> None:
    index = BM25Index.build(read_documents(data_dir / "beir" / name / "corpus.jsonl"))
    texts = read_texts(data_dir / "beir" / name / "queries.jsonl")
    published: dict[str, list[tuple[str, float]]] = {}
    with open(data_dir / "runs" / f"{name}.anserini-bm25-flat.run") as file:
        for line in file:
            query_id, _, doc_id, _, score, _ = line.split()
            published.setdefault(query_id, []).append((doc_id, float(score)))
    run = index.searcher(k=1000)(Queries.from_texts({q: texts[q] for q in published}))
    seen = 0
    for query_id, expected in published.items():
        # Anserini rounds to four digits, orders equals by id and lowers each by 1e-6 in turn.
        mine = {hit.doc_id: hit.score for hit in run[query_id]}
        ours = [hit.score for hit in run[query_id]][: len(expected)]
        assert len(ours) == len(expected)
        for score, (doc_id, published_score) in zip(ours, expected, strict=True):
            seen += 1
            assert abs(mine[doc_id] - published_score) < 1.5e-4, (query_id, doc_id)
            assert abs(score - published_score) < 1e-4 + 1e-6 * len(expected), (query_id, doc_id)
    assert seen == places


def test_ties_at_place_k_go_to_the_larger_id() -> None:
    texts = {f"d{number}": "same words here" for number in range(50)}
    searcher = BM25Index.build(Corpus.from_texts(texts)).searcher(k=3)
    assert searcher.search("words").doc_ids == ["d9", "d8", "d7"]


def test_fewer_hits_are_the_first_of_more() -> None:
    rng = np.random.default_rng(0)
    texts = {str(n): " ".join(rng.choice(WORDS, 6)) for n in range(500)}
    index = BM25Index.build(Corpus.from_texts(texts))
    full = index.searcher(k=1000).search("cat bird snow").doc_ids
    for k in (1, 2, 15, 16, 17, 100, 499):
        assert index.searcher(k=k).search("cat bird snow").doc_ids == full[:k]


def test_more_documents_than_one_range() -> None:
    # Document n holds "rare" when n is a multiple of 1000: hits lie in several ranges.
    n = RANGE + 5000
    source = (Document(f"{i:06d}", "rare common" if i % 1000 == 0 else "common") for i in range(n))
    index = BM25Index.build(source, block_postings=50_000)
    run = index.searcher(k=n)(Queries.from_texts(["rare"]))
    assert run["1"].doc_ids == [f"{i:06d}" for i in range(0, n, 1000)][::-1]
    top = index.searcher(k=5)(Queries.from_texts(["common rare"]))
    assert top["1"].doc_ids == [f"{i:06d}" for i in range(0, n, 1000)][::-1][:5]


def test_threads_do_not_change_the_answer() -> None:
    rng = np.random.default_rng(1)
    texts = {str(n): " ".join(rng.choice(WORDS, 9)) for n in range(300)}
    index = BM25Index.build(Corpus.from_texts(texts))
    queries = Queries.from_texts([" ".join(rng.choice(WORDS, 3)) for _ in range(20)])
    one = index.searcher(k=10, threads=1)
    with pytest.raises(DataError, match="threads"):
        index.searcher(k=10, threads=-2)(queries)
    assert one(queries) == index.searcher(k=10, threads=7)(queries)
    assert one.fingerprint == index.searcher(k=10, threads=7).fingerprint


def test_weighted_terms_search_too() -> None:
    index = BM25Index.build(Corpus.from_texts({"d1": "cats purr", "d2": "dogs bark"}))
    base = Queries.from_texts(["anything"])
    terms = WeightedTerms.from_dicts([{"cat": 2.0, "dog": 0.5, "unknown": 1.0, "purr": 0.0}])
    hits = index.searcher(k=5)(base.rewritten(terms))["1"]
    assert hits.doc_ids == ["d1", "d2"]
    assert hits[0].score == pytest.approx(4 * hits[1].score)


@pytest.mark.parametrize("weight", [3e38, -3e38])
def test_weights_that_would_overflow_are_refused(weight: float) -> None:
    texts = {str(n): "bird" for n in range(8)} | {"a": "cat dog", "b": "cat"}
    searcher = BM25Index.build(Corpus.from_texts(texts)).searcher()
    queries = Queries.from_texts({"fine": "x", "bad": "x"})
    terms = WeightedTerms.from_dicts([{"cat": 1e37}, {"cat": weight, "dog": weight}])
    with pytest.raises(NonFiniteError, match="'bad'"):
        searcher(queries.rewritten(terms))
    assert searcher(queries.rewritten(terms).select(["fine"])).n_hits == 2


def test_negative_weights_rank_by_the_same_order() -> None:
    texts = {"a": "cat dog", "b": "cat", "c": "dog", "d": "bird"}
    searcher = BM25Index.build(Corpus.from_texts(texts)).searcher()
    for weights in ({"cat": -1.0}, {"cat": -1.0, "dog": 2.0}, {"cat": -1e-44, "dog": 1e-45}):
        queries = Queries.from_texts(["x"]).rewritten(WeightedTerms.from_dicts([weights]))
        hits = searcher(queries)["1"]
        expected = {d for d, text in texts.items() if set(text.split()) & set(weights)}
        assert set(hits.doc_ids) == expected
        keys = [(hit.score, hit.doc_id) for hit in hits]
        assert keys == sorted(keys, reverse=True)


def test_vectors_are_refused() -> None:
    index = BM25Index.build(Corpus.from_texts({"d1": "cats"}))
    vectors = DenseVectors(np.ones((1, 3), np.float32))
    with pytest.raises(FormError, match="dense vectors"):
        index.searcher()(Queries.from_texts(["x"]).rewritten(vectors))


def test_parameters_are_checked_and_stored() -> None:
    corpus = Corpus.from_texts({"d1": "cats purr", "d2": "cats"})
    index = BM25Index.build(corpus, preset="lucene", b=0.5)
    assert (index.k1, index.b) == (1.2, 0.5)
    assert BM25Index.build(corpus).fingerprint != index.fingerprint
    with pytest.raises(UnknownNameError, match="anserini"):
        BM25Index.build(corpus, preset="anserni")
    for wrong in ({"k1": -1.0}, {"k1": math.nan}, {"b": 1.5}, {"b": math.nan}):
        with pytest.raises(DataError):
            BM25Index.build(corpus, **wrong)  # type: ignore[arg-type]
    for name in PRESETS:
        assert len(BM25Index.build(corpus, preset=name)) == 2


def test_every_emptiness() -> None:
    empty = BM25Index.build(Corpus.from_texts({}))
    assert empty.searcher().search("cats").doc_ids == []
    silent = BM25Index.build(Corpus.from_texts({"d1": "", "d2": " \n"}))
    assert silent.searcher().search("cats").doc_ids == []
    index = BM25Index.build(Corpus.from_texts({"d1": "cats", "d2": ""}))
    for nothing in ("", " ", "the of and", "unknownword"):
        assert index.searcher().search(nothing).doc_ids == []
    run = index.searcher()(Queries.from_texts([]))
    assert (len(run), run.n_hits) == (0, 0)
    mixed = index.searcher()(Queries.from_texts({"a": "", "b": "cat", "c": "the"}))
    assert mixed.to_dict().keys() == {"a", "b", "c"}
    assert mixed["b"].doc_ids == ["d1"]
    with pytest.raises(DataError, match="at least 1"):
        index.searcher(k=0)


def test_bad_documents_are_named() -> None:
    many = [Document(f"d{n}", "a") for n in range(9000)]
    with pytest.raises(DataError, match="number 9000"):
        BM25Index.build([*many, Document("", "a")])
    with pytest.raises(DuplicateIdError, match="'d1'"):
        BM25Index.build([Document("d1", "a"), Document("d1", "b")])
    with pytest.raises(DataError, match="from Documents"):
        BM25Index.build([{"id": "d1", "text": "a"}])  # type: ignore[list-item]
    with pytest.raises(DataError, match="'d2'"):
        BM25Index.build([Document("d1", "a"), Document("d2", "\ud800")])


def test_a_stream_has_the_fingerprint_of_the_whole() -> None:
    documents = [Document(f"d{n}", "a", "", {"year": 2020}) for n in range(9000)]
    documents.append(Document("last", "b", "", {"year": 2020.5}))
    stream = BM25Index.build(iter(documents))
    assert stream.fingerprint == BM25Index.build(Corpus.from_documents(documents)).fingerprint
    documents[-1] = Document("last", "b", "", {"year": 2020})
    assert BM25Index.build(iter(documents)).fingerprint != stream.fingerprint


def test_progress_is_told() -> None:
    calls: list[tuple[int, int | None]] = []
    corpus = Corpus.from_texts({str(n): "cat" for n in range(10)})
    BM25Index.build(corpus, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (10, 10)
    BM25Index.build(iter(corpus), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (10, None)


def test_ids_are_kept_as_they_are_written(tmp_path: Path) -> None:
    # Blanks, tabs, line ends, leading zeros and the like are part of an id.
    ids = ["a b", "a  b", " a", "a ", "a\tb", "a\nb", "007", "7", "7.0", "é", "e\u0301", "\u00a0"]
    BM25Index.build(Corpus.from_texts(dict.fromkeys(ids, "cats")), tmp_path / "x")
    index = BM25Index.open(tmp_path / "x")
    assert list(index.ids) == ids
    expected = sorted(ids, key=lambda i: i.encode(), reverse=True)
    run = index.searcher()(Queries.from_texts({" q 1 ": "cat"}))
    assert run[" q 1 "].doc_ids == expected
