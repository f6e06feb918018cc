"""`where=`: filtering before the search equals filtering an exhaustive search after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retrievekit as rk
from retrievekit.corpus import Document
from retrievekit.errors import DataError, ExpressionError, UnknownNameError
from retrievekit.index.base import Index
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.queries import Queries
from retrievekit.testing import ToyEncoder, check_stage

WORDS = ["cat", "dog", "bird", "fish", "horn"]
QUERIES = Queries.from_texts(["cat", "dog bird", "horn fish cat", ""])
KINDS = pytest.mark.parametrize("kind", ["bm25", "dense"])


def build(kind: str, documents: list[Document]) -> Index:
    if kind == "bm25":
        return BM25Index.build(documents)
    return DenseIndex.build(documents, ToyEncoder(dim=12))


def corpus(seed: int, n: int) -> list[Document]:
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        metadata = {"year": int(rng.integers(2018, 2024))} if rng.random() < 0.8 else {}
        if rng.random() < 0.7:
            metadata["lang"] = str(rng.choice(["en", "de", "fr"]))
        out.append(Document(f"d{i}", " ".join(rng.choice(WORDS, 5)), "", metadata))
    return out


@KINDS
@settings(max_examples=25)
@given(
    st.integers(0, 999),
    st.integers(1, 40),
    st.integers(1, 12),
    st.sampled_from(
        ["year >= 2021", 'lang = "en"', 'year < 2021 and lang in ("en", "de")', "not (year > 0)",
         "year is null", "year = 1900"]
    ),
)  # fmt: skip
def test_before_equals_after(kind: str, seed: int, n: int, k: int, condition: str) -> None:
    documents = corpus(seed, n)
    documents[0] = Document("d0", "cat", "", {"year": 2022, "lang": "en"})
    index = build(kind, documents[: n // 2 + 1])
    with index.writer() as writer:
        writer.add(documents[n // 2 + 1 :])
        writer.delete([documents[-1].doc_id] if n > 1 else [])
    index = index.reopen()
    before = index.searcher(k=k, where=condition)(QUERIES)
    after = (index.searcher(k=1000) >> rk.where(condition, index) >> rk.top(k))(QUERIES)
    assert before == after


@KINDS
def test_the_laws_hold_under_a_condition(kind: str) -> None:
    index = build(kind, corpus(1, 60))
    check_stage(index.searcher(k=5, where="year >= 2020"), QUERIES)
    run = index.searcher(k=50)(QUERIES)
    check_stage(rk.where("year >= 2020", index), run)


def test_the_condition_is_part_of_the_stage() -> None:
    index = build("bm25", corpus(2, 20))
    one, other = index.searcher(where="year >= 2020"), index.searcher(where="year>=2020")
    assert one.fingerprint == other.fingerprint != index.searcher().fingerprint
    assert repr(one) == "bm25(k=1000, where='year >= 2020')"
    stage = rk.where("year >= 2020", index)
    assert repr(stage) == "where('year >= 2020')"
    assert rk.where("year >= 2020", index.searcher(k=3)).fingerprint == stage.fingerprint
    trace = (index.searcher(k=20) >> stage)(QUERIES).trace
    assert trace[-1].dropped > 0


def test_what_cannot_be_asked_is_refused() -> None:
    index = build("bm25", corpus(3, 20))
    with pytest.raises(UnknownNameError, match="year"):
        index.searcher(where="yaer > 2020")(QUERIES)
    with pytest.raises(ExpressionError):
        index.searcher(where="year >")
    with pytest.raises(ExpressionError, match="year"):
        index.searcher(where='year = "soon"')(QUERIES)
    bare = BM25Index.build([Document("a", "cat")])
    with pytest.raises(UnknownNameError):
        bare.searcher(where="year > 2020")(QUERIES)
    with pytest.raises(DataError, match="neither an index nor a searcher"):
        rk.where("year > 2020", rk.rrf(index.searcher()))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not in the index"):
        rk.where("year > 2020", index)(bare.searcher()(QUERIES))
