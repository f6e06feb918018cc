"""Engines against float64 brute force: any engine that looks at everything must find the same.

Besides: updates, deletions and conditions, damage found before FAISS parses a byte, and what is
refused.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    CorruptIndexError,
    DataError,
    MissingExtraError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import approximate, flat, halves
from retrievekit.index.engines.options import defaults, settled
from retrievekit.index.opening import open_index
from retrievekit.index.repair import repair
from retrievekit.kernels.widths import to_bfloat16
from retrievekit.protocols import Similarity
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.vectors import DenseVectors

pytest.importorskip("faiss")

SIMILARITIES: list[Similarity] = ["dot", "cosine", "euclidean"]

# Each with options under which it looks at every document, or scores enough of them again.
THOROUGH: dict[str, dict[str, int]] = {
    "Flat": {},
    "IVF4,Flat": {"nprobe": 4},
    "HNSW16": {"efSearch": 600},
    "IVF4_HNSW4,Flat": {"nprobe": 4, "efSearch": 16},
    "NSG16": {"refine": 40},
    "SQ8": {"refine": 10},
    "HNSW16,SQ8": {"refine": 10, "efSearch": 600},
    "PQ8x4fs": {"refine": 60},
    "PQ8x4np": {"refine": 60},
    "IVF4,PQ8x4fs": {"refine": 60, "nprobe": 4},
    "RaBitQ": {"refine": 60},
    "IVF4,RaBitQ": {"refine": 60, "nprobe": 4},
    "PCA12,Flat": {"refine": 60},
}


def vectors_of(n: int, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def names_of(n: int) -> list[str]:
    return [f"d{row:04d}" for row in range(n)]


def build(
    vectors: NDArray[np.float32],
    similarity: Similarity = "dot",
    engine: str = "flat",
    path: Path | None = None,
    **more: Any,
) -> DenseIndex:
    corpus = [
        Document(name, "text", metadata={"row": row})
        for row, name in enumerate(names_of(len(vectors)))
    ]
    return DenseIndex.from_vectors(
        corpus, vectors, path, similarity=similarity, engine=engine, **more
    )


def ask(vectors: NDArray[np.float32]) -> Queries:
    texts = Queries.from_texts([f"q{n}" for n in range(len(vectors))])
    return texts.rewritten(DenseVectors(vectors))


def oracle(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    similarity: Similarity,
    k: int,
    rows: NDArray[np.int64] | None = None,
) -> list[list[str]]:
    """Rankings by float64 arithmetic, rounded once, in the total order."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if similarity == "cosine":
        q, v = (
            (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
            for x in (q, v)
        )
    if similarity == "euclidean":
        scores = -np.sqrt(((q[:, None] - v[None]) ** 2).sum(axis=2))
    else:
        scores = q @ v.T
    kept = np.arange(len(v)) if rows is None else rows
    names = np.array(names_of(len(v)))[kept]
    return [
        [name for _, name in sorted(zip(row, names, strict=True), reverse=True)[:k]]
        for row in scores.astype(np.float32)[:, kept]
    ]


def ids_of(run: Run) -> list[list[str]]:
    return [run.hits(q).doc_ids for q in range(len(run))]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("engine", THOROUGH)
def test_an_engine_that_looks_at_everything_is_exact(engine: str, similarity: Similarity) -> None:
    vectors, queries = vectors_of(600), vectors_of(7, seed=1)
    index = build(vectors, similarity, engine)
    assert approximate.NATIVE in index.segments[0].record.native
    run = index.searcher(k=10, engine_options=THOROUGH[engine])(ask(queries))
    assert ids_of(run) == oracle(queries, vectors, similarity, 10)
    exact = build(vectors, similarity).searcher(k=10)(ask(queries))
    assert run.scores.tolist() == exact.scores.tolist()


@pytest.mark.parametrize("engine", THOROUGH)
def test_conditions_and_deletions(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with engines that cannot filter, and none of the rows ever comes back."""
    monkeypatch.setattr(approximate, "FEW", 0)
    monkeypatch.setattr(flat, "PAIR_BY_PAIR", 0)
    vectors, queries = vectors_of(600), vectors_of(5, seed=1)
    index = build(vectors, "dot", engine)
    with index.writer(merge="never") as writer:
        writer.delete(names_of(600)[::7])
    index = index.reopen()
    rows = np.array([row for row in range(600) if row % 7 and row >= 100])
    for k in (3, 10):
        options = {**THOROUGH[engine], "refine": 60}
        run = index.searcher(k, "row >= 100", engine_options=options)(ask(queries))
        assert ids_of(run) == oracle(queries, vectors, "dot", k, rows)


@pytest.mark.parametrize("engine", ["HNSW8", "IVF16,Flat", "IVF16,PQ8x4fs", "PQ8x4fs", "NSG8"])
@pytest.mark.parametrize("refine", [0, 1])
def test_k_hits_come_back_wherever_k_are_allowed(
    engine: str, refine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "FEW", 0)
    vectors, queries = vectors_of(400), vectors_of(5, seed=1)
    index = build(vectors, "dot", engine)
    options = {"refine": refine}
    for k, where, expected in [
        (10, "row < 20", 10),
        (30, "row < 20", 20),
        (500, None, 400),
        (5, "row < 0", 0),
    ]:
        run = index.searcher(k, where, engine_options=options)(ask(queries))
        assert np.diff(run.offsets).tolist() == [expected] * 5
        assert len(set(run.hits(0).doc_ids)) == expected


def test_candidates_are_searched_exactly() -> None:
    vectors, queries = vectors_of(300), vectors_of(2, seed=1)
    sets = {"1": names_of(300)[:50], "2": names_of(300)[50:]}
    answers = [
        build(vectors, "dot", engine).searcher(k=10, candidates=sets)(ask(queries)).to_dict()
        for engine in ("flat", "IVF16,PQ8x4fs")
    ]
    assert answers[0] == answers[1]


def test_own_scores_without_refining_are_in_the_total_order() -> None:
    vectors = np.repeat(vectors_of(20), 5, axis=0)  # five of each
    for similarity in SIMILARITIES:
        index = build(vectors, similarity, "Flat")
        run = index.searcher(k=100, engine_options={"refine": 0})(ask(vectors_of(3, seed=2)))
        for query in range(3):
            hits = list(run.hits(query))
            pairs = [(hit.score, hit.doc_id) for hit in hits]
            assert pairs == sorted(pairs, reverse=True)
        exact = build(vectors, similarity).searcher(k=100)(ask(vectors_of(3, seed=2)))
        assert np.allclose(run.scores, exact.scores, atol=1e-5)


def test_updates_are_found_and_keep_what_was_learnt(tmp_path: Path) -> None:
    vectors = vectors_of(500)
    made = build(vectors[:400], "dot", "IVF8,PQ8x4fs", tmp_path / "i")
    learnt = bytes(made.segments[0].native(approximate.TRAINED))
    encoder = _Rows(vectors)
    index = DenseIndex.from_vectors(
        _documents(0, 400),
        vectors[:400],
        tmp_path / "j",
        encoder=encoder,
        engine="IVF8,PQ8x4fs",
    )
    with index.writer(merge="never") as writer:
        writer.add(_documents(400, 500))
        writer.delete(["d0003"])
    index = index.reopen()
    assert [bytes(s.native(approximate.TRAINED)) for s in index.segments] == [learnt, learnt]
    options = {"nprobe": 8, "refine": 60}
    rows = np.delete(np.arange(500), 3)
    queries = vectors_of(5, seed=3)
    expected = oracle(queries, vectors, "dot", 10, rows)
    assert ids_of(index.searcher(10, engine_options=options)(ask(queries))) == expected
    with index.writer() as writer:
        writer.compact()
    index = index.reopen()
    assert len(index.segments) == 1
    assert bytes(index.segments[0].native(approximate.TRAINED)) == learnt
    assert ids_of(index.searcher(10, engine_options=options)(ask(queries))) == expected
    assert index.recall is not None
    assert 0.5 < index.recall <= 1


class _Rows:
    """An encoder that gives a document the vector of its row."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        from retrievekit.protocols import EncoderCard

        self.vectors = vectors
        self.dim = vectors.shape[1]
        self.similarity: Similarity = "dot"
        self.card = EncoderCard("rows", {"model": "rows"})

    def encode_document(self, texts: Any) -> NDArray[np.float32]:
        return self.vectors[[int(text) for text in texts]].reshape(len(texts), self.dim)

    encode_query = encode_document


def _documents(first: int, last: int) -> Corpus:
    return Corpus.from_texts({f"d{row:04d}": str(row) for row in range(first, last)})


@pytest.mark.parametrize("engine", ["HNSW8", "IVF8,PQ8x4fs", "RaBitQ", "SQ8"])
def test_the_same_build_gives_the_same_manifest(engine: str, tmp_path: Path) -> None:
    made = [build(vectors_of(500), "cosine", engine, tmp_path / name) for name in "ab"]
    assert made[0].manifest_hash == made[1].manifest_hash
    assert made[0].fingerprint == made[1].fingerprint


@pytest.mark.parametrize("engine", ["HNSW8", "IVF8,PQ8x4fs", "SQ8"])
@pytest.mark.parametrize("name", [approximate.NATIVE, approximate.TRAINED])
def test_damage_is_found_before_parsing_and_repaired(
    engine: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build(vectors_of(300), "dot", engine, tmp_path / "i")
    file = index.segments[0].folder / name
    if not file.exists():
        assert engine == "HNSW8"
        return
    whole = file.read_bytes()
    broken = bytearray(whole)
    broken[len(broken) // 2] ^= 1
    file.write_bytes(broken)
    again = DenseIndex.open(tmp_path / "i")
    with monkeypatch.context() as patch:
        faiss = importlib.import_module("faiss")
        patch.setattr(faiss, "deserialize_index", lambda data: pytest.fail("parsed"))
        if name == approximate.NATIVE:
            with pytest.raises(CorruptIndexError, match="verify --repair"):
                again.search(ask(vectors_of(1)), 3)
        with pytest.raises(CorruptIndexError, match="damaged"):
            again.segments[0].native(name)
    report = repair(tmp_path / "i")
    assert report.ok
    assert file.read_bytes() == whole


def test_options_are_part_of_the_fingerprint_and_checked() -> None:
    index = build(vectors_of(300), "dot", "IVF8,PQ8x4fs")
    assert defaults("IVF512,PQ96x4fs") == {"refine": 10, "nprobe": 32}
    assert defaults("HNSW32") == {"refine": 1, "efSearch": 64}
    assert defaults("IVF64_HNSW8,Flat") == {"refine": 1, "nprobe": 8, "efSearch": 64}
    assert defaults("flat") == {}
    prints = {
        index.searcher(10, engine_options=given).fingerprint
        for given in (None, {"nprobe": 8}, {"nprobe": 2}, {"refine": 0})
    }
    assert len(prints) == 3  # one of them is the default
    assert index.searcher(10).fingerprint == index.searcher(10, threads=1).fingerprint
    assert "nprobe=2" in repr(index.searcher(10, engine_options={"nprobe": 2}))
    with pytest.raises(UnknownNameError, match="efSearch"):
        index.searcher(10, engine_options={"efSearch": 10})
    with pytest.raises(UnknownNameError):
        settled("flat", {"refine": 1})
    for bad in (0, -1, 2.5, True, "8"):
        with pytest.raises(DataError, match="nprobe"):
            index.searcher(10, engine_options={"nprobe": bad})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("engine", "similarity", "error", "message"),
    [
        ("bogus", "dot", UnknownNameError, "neither 'flat' nor"),
        ("", "dot", UnknownNameError, "FAISS factory string"),
        ("LSH", "dot", DataError, "METRIC_L2"),
        ("PQ7", "dot", DataError, "multiple of the number of subquantizers"),
        ("IDMap,Flat", "dot", DataError, "leave IDMap out"),
    ],
)
def test_what_cannot_be_built_is_refused_before_encoding(
    engine: str, similarity: Similarity, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        build(vectors_of(10), similarity, engine, tmp_path / "i")
    assert not (tmp_path / "i").exists()


def test_without_faiss_an_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(vectors_of(100), "dot", "HNSW8", tmp_path / "i")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r'pip install "retrievekit\[faiss\]"'):
        build(vectors_of(10), "dot", "HNSW8")
    index = open_index(tmp_path / "i")
    assert len(index) == 100
    with pytest.raises(MissingExtraError, match="faiss"):
        index.search(ask(vectors_of(1)), 3)
    flat_index = build(vectors_of(10))
    assert len(flat_index.search(ask(vectors_of(1)), 3).hits(0)) == 3


@pytest.mark.parametrize("engine", ["HNSW8", "IVF8,PQ8x4fs", "SQ8", "PCA12,Flat"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_or_no_documents(engine: str, n: int, caplog: pytest.LogCaptureFixture) -> None:
    vectors, queries = vectors_of(n), vectors_of(3, seed=1)
    with caplog.at_level(logging.WARNING):
        index = build(vectors, "dot", engine)
    run = index.searcher(k=10)(ask(queries))
    assert np.diff(run.offsets).tolist() == [n] * 3
    untrained = engine in ("IVF8,PQ8x4fs", "PCA12,Flat")
    assert ("searched exactly" in caplog.text) == (untrained and n > 0)
    if n:
        assert ids_of(run) == oracle(queries, vectors, "dot", 10)
        assert index.recall == 1
    else:
        assert index.recall is None
    assert len(index.searcher(k=3)(ask(vectors_of(0)))) == 0


def test_too_few_to_train_on_until_a_compaction_finds_enough() -> None:
    vectors = vectors_of(100)
    index = DenseIndex.build(_documents(0, 3), _Rows(vectors), engine="IVF4,Flat")
    assert approximate.NATIVE not in index.segments[0].record.native
    with index.writer(merge="never") as writer:
        writer.add(_documents(3, 6))
    index = index.reopen()
    assert [approximate.NATIVE in s.record.native for s in index.segments] == [False, False]
    assert len(index.searcher(k=10)(ask(vectors[:1])).hits(0)) == 6
    with index.writer() as writer:
        writer.add(_documents(6, 100))
        writer.compact()
    index = index.reopen()
    assert approximate.NATIVE in index.segments[0].record.native
    run = index.searcher(k=5)(ask(vectors_of(3, seed=1)))
    assert ids_of(run) == oracle(vectors_of(3, seed=1), vectors, "dot", 5)


def test_a_compaction_learns_again_what_was_learnt_from_little() -> None:
    vectors = vectors_of(400)
    index = DenseIndex.build(_documents(0, 20), _Rows(vectors), engine="IVF4,Flat")
    learnt = [bytes(index.segments[0].native(approximate.TRAINED))]
    for first, last in [(20, 60), (60, 400)]:
        with index.writer(merge="never") as writer:
            writer.add(_documents(first, last))
            writer.compact()
        index = index.reopen()
        learnt.append(bytes(index.segments[0].native(approximate.TRAINED)))
    assert learnt[0] == learnt[1] != learnt[2]  # 60 are not yet four times 20


def test_a_query_with_nan_is_refused() -> None:
    index = build(vectors_of(100), "dot", "HNSW8")
    bad = vectors_of(2)
    bad[1, 3] = np.nan
    with pytest.raises(NonFiniteError):
        index.search(ask(bad), 3)


def test_polysemous_training_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    from retrievekit.index.engines.faiss import FaissEngine

    with caplog.at_level(logging.WARNING):
        assert FaissEngine("PQ8x4", 16, "dot").trained(vectors_of(5)) is None
    assert "'PQ8x4np'" in caplog.text


def test_pca_under_inner_products_does_not_centre() -> None:
    # A mean far from the origin: subtracting it would turn the ranking round.
    vectors = vectors_of(300) * np.linspace(1, 0.05, 16, dtype=np.float32)
    vectors[:, 0] += 50 * np.random.default_rng(3).random(300).astype(np.float32)
    queries = -vectors_of(5, seed=1)
    queries[:, 0] = 3
    index = build(vectors, "dot", "PCA16,Flat")
    run = index.searcher(k=5, engine_options={"refine": 0})(ask(queries))
    exact = build(vectors, "dot").searcher(k=5)(ask(queries))
    assert ids_of(run) == ids_of(exact)
    assert np.allclose(run.scores, exact.scores, rtol=1e-4)


# The bfloat16 pass of the flat engine.


def test_rounding_to_bfloat16_is_to_the_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    values = vectors_of(200, 33) * np.float32(10) ** np.arange(-16, 17, dtype=np.float32)
    values[0, :4] = [0, -0.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8]  # the last two lie in the middle
    bits = np.empty(values.shape, np.int16)
    lost = to_bfloat16(values, bits)
    rounded = torch.tensor(values).bfloat16()
    assert bits.tolist() == rounded.view(torch.int16).tolist()
    differences = values.astype(np.float64) - rounded.double().numpy()
    assert lost == pytest.approx(np.linalg.norm(differences, axis=1).max(), rel=1e-12)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("near", [0.0, 1e-2, 1e-4])
def test_the_bfloat16_pass_gives_the_exact_ranking(
    similarity: Similarity, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where scores are so near that bfloat16 cannot tell them apart, or all negative."""
    monkeypatch.setattr(halves, "ASKED", 0)
    monkeypatch.setattr(halves, "LEAST", 0)
    monkeypatch.setattr(halves, "faster", lambda: True)
    monkeypatch.setattr(flat, "DOCUMENTS_AT_A_TIME", 700)
    vectors = vectors_of(3000, 40)
    if near:
        vectors = (vectors_of(1, 40, seed=5) + near * vectors).astype(np.float32)
    queries = vectors_of(70, 40, seed=1)
    index = build(vectors, similarity)
    for sign in (1, -1):
        run = index.searcher(k=10)(ask(sign * queries))
        assert ids_of(run) == oracle(sign * queries, vectors, similarity, 10)
    assert "_halves" in index._places.flat(None).__dict__


def test_the_bound_on_bfloat16_errors_holds_and_is_near() -> None:
    vectors, queries = vectors_of(2000, 64), vectors_of(20, 64, seed=1)
    index = build(vectors)
    copy = halves.Halves(index.stored, 64)
    halved, lost = copy.queries(queries)
    product = copy.block(0, 0, 2000, halved).view(np.uint16).astype(np.uint32) << 16
    exact = vectors.astype(np.float64) @ queries.astype(np.float64).T
    errors = np.abs(product.view(np.float32) - exact)
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    bound = copy.errors(norms, lost, index.largest_norm, 64)
    allowed = bound + 2.0**-8 * np.abs(exact)
    assert (errors <= allowed).all()
    assert (errors.max(axis=0) > 0.05 * allowed.max(axis=0)).all()


def test_large_values_stay_with_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "ASKED", 0)
    monkeypatch.setattr(halves, "LEAST", 0)
    monkeypatch.setattr(halves, "faster", lambda: True)
    vectors = vectors_of(50) * np.float32(1e37)
    index = build(vectors)
    queries = vectors_of(3, seed=1) * np.float32(1e-3)
    assert ids_of(index.searcher(k=5)(ask(queries))) == oracle(queries, vectors, "dot", 5)
    assert "_halves" not in index._places.flat(None).__dict__
