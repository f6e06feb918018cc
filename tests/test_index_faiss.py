"""What FAISS does on its own account, and how it is kept from it: tables, centring, printing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retrievekit.corpus import Document
from retrievekit.errors import DataError
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import opq
from retrievekit.index.engines.faiss import FaissEngine, FaissSegment
from retrievekit.protocols import Similarity
from retrievekit.queries import Queries
from retrievekit.vectors import DenseVectors

faiss: Any = pytest.importorskip("faiss")

SIMILARITIES: list[Similarity] = ["dot", "cosine", "euclidean"]


def vectors_of(n: int, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def ask(vectors: NDArray[np.float32]) -> Queries:
    return Queries.from_texts([str(n) for n in range(len(vectors))]).rewritten(
        DenseVectors(vectors)
    )


def build(vectors: NDArray[np.float32], similarity: Similarity, engine: str) -> DenseIndex:
    corpus = [Document(f"d{row:04d}", "text") for row in range(len(vectors))]
    return DenseIndex.from_vectors(corpus, vectors, similarity=similarity, engine=engine)


@pytest.mark.parametrize("engine", ["IVF64,PQ4np", "IVF64,PQ4np,Refine(SQfp16)"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_tables_larger_than_the_file_are_made_after_it_was_parsed(
    engine: str, similarity: Similarity
) -> None:
    vectors, queries = vectors_of(600), vectors_of(5, seed=1)
    index = build(vectors, similarity, engine)
    options = {"nprobe": 64, "refine": 60}
    run = index.searcher(5, engine_options=options)(ask(queries))
    exact = build(vectors, similarity, "flat").searcher(5)(ask(queries))
    assert run.rows.tolist() == exact.rows.tolist()
    native = FaissSegment.opened(index.segments[0].native("engine.native")).native
    if "Refine" not in engine:
        assert native.use_precomputed_table == (similarity == "euclidean")
    before = faiss.get_deserialization_vector_byte_limit()
    assert before > 1 << 30


@pytest.mark.parametrize("engine", ["RCQ2x4", "RR8,RCQ2x4", "Residual16,PQ4"])
def test_what_is_only_a_part_of_engines_is_refused_before_encoding(engine: str) -> None:
    with pytest.raises(DataError, match="as a part of others only"):
        FaissEngine(engine, 16, "euclidean")


@pytest.mark.parametrize(
    "engine", ["PCA8,Flat", "RR16,PCA8,Flat", "OPQ4_16,PCA8,Flat", "ITQ8,Flat"]
)
def test_whatever_learns_a_mean_learns_none_under_inner_products(engine: str) -> None:
    vectors = vectors_of(1200) + np.float32(5)
    trained = FaissEngine(engine, 16, "dot").trained(vectors)
    assert trained
    centred = FaissEngine(engine, 16, "euclidean").trained(vectors)
    assert centred
    for data, least, most in ((trained, 0, 1e-3), (centred, 5, 1e3)):
        opened = FaissSegment.opened(memoryview(data)).native  # held, as its parts hold it not
        chain = opened.chain
        last = faiss.downcast_VectorTransform(chain.at(chain.size() - 1))
        mean = faiss.vector_to_array(last.mean)
        assert least <= np.linalg.norm(mean) <= most


def test_opq_prints_nothing_and_says_how_long_it_takes(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    vectors = vectors_of(400)
    told = []
    expected = opq._expected

    def fast(*of: Any) -> float:
        told.append(expected(*of))
        return 19.0

    monkeypatch.setattr(opq, "_expected", fast)
    with caplog.at_level(logging.WARNING):
        quick = FaissEngine("OPQ2,PQ2x4fs", 16, "dot").trained(vectors)
    assert caplog.text == ""
    assert len(told) == 1
    assert 0 < told[0] < 3600
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    monkeypatch.setattr(opq, "_expected", lambda *_: 25.0)
    with caplog.at_level(logging.WARNING):
        assert FaissEngine("OPQ2,PQ2x4fs", 16, "dot").trained(vectors) == quick
    assert "'OPQ2,PQ2x4fs' learns a rotation (OPQ) from 400 vectors" in caplog.text
    assert "about 25 seconds here" in caplog.text
    monkeypatch.setattr(opq, "_expected", lambda *_: 600.0)
    FaissEngine("OPQ2,PQ2x4fs", 16, "dot").trained(vectors)
    assert "about 10 minutes here" in caplog.text


@pytest.mark.parametrize(
    ("engine", "better"), [("PQ4", "PQ4np"), ("HNSW8_PQ4", "HNSW8_PQ4np"),
                           ("IVF4,PQ4x8,RFlat", "IVF4,PQ4x8np,RFlat")],
)  # fmt: skip
def test_the_engine_that_is_named_instead_exists_and_is_not_warned_of(
    engine: str, better: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        FaissEngine(engine, 16, "dot").trained(vectors_of(5))
    assert f"'{better}' is as good" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        FaissEngine(better, 16, "dot").trained(vectors_of(5))
    assert "polysemous" not in caplog.text


def test_zero_vectors_are_told_of_where_they_matter(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    vectors = vectors_of(20)
    vectors[3] = 0
    for similarity in SIMILARITIES:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            build(vectors, similarity, "flat")
        assert (f"under {similarity} they score 0" in caplog.text) == (similarity != "euclidean")
