"""Compression: the second index against one built afresh, storage against NumPy's float16."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from retrievekit import registry
from retrievekit.cli.app import app
from retrievekit.cli.compress import beside
from retrievekit.compress.build import compress
from retrievekit.compress.figures import compared
from retrievekit.corpus import Corpus, Document
from retrievekit.encode.truncated import TruncatedEncoder, truncated
from retrievekit.errors import (
    DataError,
    EncoderMismatchError,
    IndexExistsError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.encoding import normalised
from retrievekit.index.engines import approximate, halves
from retrievekit.index.repair import repair
from retrievekit.kernels.widths import widen
from retrievekit.protocols import EncoderCard, Similarity
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.store.verify import verify
from retrievekit.testing import ToyEncoder, check_encoder, toy_corpus
from retrievekit.vectors import DenseVectors

SIMILARITIES: list[Similarity] = ["dot", "cosine", "euclidean"]


class Rows:
    """An encoder of texts that are row numbers."""

    def __init__(self, vectors: NDArray[np.float32], similarity: Similarity) -> None:
        self.vectors, self.similarity = vectors, similarity
        self.dim = vectors.shape[1]
        self.card = EncoderCard("rows", {"model": "rows", "dim": self.dim})

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.vectors[[int(text) for text in texts]].reshape(-1, self.dim)

    encode_query = encode_document


def vectors_of(n: int, dim: int = 48, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def documents(first: int, last: int) -> list[Document]:
    return [Document(f"d{n:04d}", str(n), metadata={"row": n}) for n in range(first, last)]


def ask(vectors: NDArray[np.float32]) -> Queries:
    texts = Queries.from_texts([f"q{n}" for n in range(len(vectors))])
    return texts.rewritten(DenseVectors(vectors))


def pairs(run: Run) -> list[list[tuple[str, float]]]:
    return [[(hit.doc_id, hit.score) for hit in run.hits(q)] for q in range(len(run))]


def lived(path: Path, vectors: NDArray[np.float32], similarity: Similarity) -> DenseIndex:
    """An index of two segments, in which every fifth document is deleted."""
    encoder = Rows(vectors, similarity)
    index = DenseIndex.build(documents(0, len(vectors) // 2), encoder, path)
    with index.writer(merge="never") as writer:
        writer.add(documents(len(vectors) // 2, len(vectors)))
        writer.delete([f"d{n:04d}" for n in range(0, len(vectors), 5)])
    return index.reopen()


def kept(n: int) -> list[Document]:
    return [d for d in documents(0, n) if int(d.text) % 5]


# float16.


def test_widening_is_numpy_s_for_every_finite_float16() -> None:
    halves_of = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves_of = halves_of[np.isfinite(halves_of)]
    bits = np.empty(len(halves_of), np.uint32)
    widen(halves_of.view(np.int16), bits, bits.view(np.float32))
    assert bits.tolist() == halves_of.astype(np.float32).view(np.uint32).tolist()


@pytest.mark.parametrize("in_halves", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_float16_answers_exactly_for_what_it_stores(
    similarity: Similarity, in_halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "ASKED", 0)
    monkeypatch.setattr(halves, "LEAST", 0)
    monkeypatch.setattr(halves, "faster", lambda: in_halves)
    vectors, queries = vectors_of(700), ask(vectors_of(20, seed=1))
    index = DenseIndex.build(documents(0, 700), Rows(vectors, similarity), storage="float16")
    as_stored = (normalised(vectors) if similarity == "cosine" else vectors).astype(np.float16)
    assert index.vectors.tolist() == as_stored.astype(np.float32).tolist()
    assert index.storage == "float16"
    assert index.segments[0]["vectors"].record.file.size == 2 * vectors.size
    asked = index.query_vectors(queries).astype(np.float64)
    stored = as_stored.astype(np.float64)
    scores = asked @ stored.T
    if similarity == "euclidean":
        scores = -np.sqrt(((asked[:, None] - stored[None]) ** 2).sum(axis=2))
    scores = scores.astype(np.float32)
    for k, where, first in ((10, None, 0), (10, "row >= 690", 690), (1, None, 0)):
        run = index.searcher(k, where)(queries)
        for place in range(20):
            order = sorted(range(first, 700), key=lambda n: (-scores[place, n], -n))[:k]
            assert run.hits(place).doc_ids == [f"d{n:04d}" for n in order]
    many = index.searcher(200)(queries)
    assert pairs(index.searcher(10)(queries)) == [hits[:10] for hits in pairs(many)]


def test_float16_through_updates_and_repair(tmp_path: Path) -> None:
    vectors = vectors_of(300)
    encoder = Rows(vectors, "dot")
    index = DenseIndex.build(
        documents(0, 200), encoder, tmp_path / "i", engine="binary", storage="float16"
    )
    with index.writer(merge="never") as writer:
        writer.add(documents(200, 300))
        writer.compact()
    index = index.reopen()
    assert index.storage == "float16"
    fresh = DenseIndex.build(documents(0, 300), encoder, engine="binary", storage="float16")
    queries = ask(vectors_of(5, seed=1))
    assert pairs(index.searcher(5)(queries)) == pairs(fresh.searcher(5)(queries))
    native = tmp_path / "i" / "segments" / index.segments[0].record.name / approximate.NATIVE
    native.write_bytes(bytes(native.stat().st_size))
    assert repair(tmp_path / "i").ok


def test_what_float16_cannot_hold_is_refused_by_name() -> None:
    vectors = vectors_of(20)
    vectors[7, 3] = 1e5
    with pytest.raises(NonFiniteError, match=r"'d0007'.*1e\+05"):
        DenseIndex.build(documents(0, 20), Rows(vectors, "dot"), storage="float16")
    with pytest.raises(UnknownNameError, match="float16"):
        DenseIndex.build(documents(0, 20), Rows(vectors, "dot"), storage="float61")


# Truncation.


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_truncated_vectors(similarity: Similarity) -> None:
    encoder = TruncatedEncoder(ToyEncoder(64, similarity=similarity), 24)
    texts = ["cats purr", "", "dogs bark at cats"]
    expected = ToyEncoder(64).encode_document(texts)[:, :24].astype(np.float64)
    if similarity == "cosine":
        lengths = np.linalg.norm(expected, axis=1, keepdims=True)
        expected = expected / np.where(lengths == 0, 1, lengths)
    for vectors in (encoder.encode_query(texts), encoder.encode_document(texts)):
        assert vectors.dtype == np.float32
        assert np.allclose(vectors, expected, atol=1e-7)
    check_encoder(encoder)


def test_the_card_knows_the_rest_and_leads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES["encoder-class"], "toy", "retrievekit.testing:ToyEncoder")
    monkeypatch.setitem(registry._ENTRIES["encoder"], "toy", "retrievekit.testing:ToyEncoder")
    encoder = TruncatedEncoder(ToyEncoder(), 32)
    again = TruncatedEncoder.from_card(EncoderCard.from_dict(encoder.card.to_dict()))
    assert again.card == encoder.card
    assert encoder.card.fingerprint != TruncatedEncoder(ToyEncoder(), 33).card.fingerprint
    twice = TruncatedEncoder(TruncatedEncoder(ToyEncoder(), 64), 32)
    index = DenseIndex.build(toy_corpus().corpus, encoder)
    with pytest.raises(EncoderMismatchError):
        DenseIndex.open(index.path, twice)
    assert DenseIndex.open(index.path).encoder.card == encoder.card


@pytest.mark.parametrize("dim", [0, -1, 257, 2.0, True])
def test_components_that_are_not_there(dim: int) -> None:
    with pytest.raises(DataError, match="of the 256 components"):
        TruncatedEncoder(ToyEncoder(), dim)


# The second index.

BUILT: dict[str, dict[str, str]] = {
    "binary": {"engine": "binary"},
    "int8-rescored": {"engine": "int8"},
    "fp16": {"storage": "float16"},
    "int8": {"storage": "int8"},
}
"""What the same is called where an index is built."""


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("method", [*BUILT, "matryoshka:16"])
def test_it_is_what_a_build_would_have_made(
    method: str, similarity: Similarity, tmp_path: Path
) -> None:
    vectors = vectors_of(400)
    original = lived(tmp_path / "a", vectors, similarity)
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    made = compress(original, method, tmp_path / "b")
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before
    encoder = Rows(vectors, similarity)
    if method == "matryoshka:16":
        fresh = DenseIndex.build(kept(400), TruncatedEncoder(encoder, 16))
        queries = ask(truncated(vectors_of(9, seed=1), 16, similarity))
    else:
        fresh = DenseIndex.build(kept(400), encoder, **BUILT[method])  # type: ignore[arg-type]
        queries = ask(vectors_of(9, seed=1))
    assert made.ids == fresh.ids
    assert np.allclose(made.vectors, fresh.vectors, atol=1e-6)
    assert made.manifest.corpus_hash == fresh.manifest.corpus_hash
    assert made.manifest.settings == fresh.manifest.settings
    assert made.card == fresh.card
    assert made.largest_norm == pytest.approx(fresh.largest_norm, rel=1e-6)
    mine, theirs = (i.searcher(7, "row >= 100")(queries) for i in (made, fresh))
    assert [mine.hits(q).doc_ids for q in range(9)] == [theirs.hits(q).doc_ids for q in range(9)]
    assert made.corpus is not None
    assert list(made.corpus) == kept(400)
    assert verify(tmp_path / "b", deep=True).ok
    with made.writer() as writer:  # and it lives on
        writer.delete(["d0001"])
        writer.add(documents(0, 1))
    made = made.reopen()
    assert len(made) == 320
    text = Queries.from_texts(["0"])
    first = made.searcher(1)(text).hits(0).doc_ids
    assert first == ["d0000"] or similarity == "dot"


def test_without_words_it_is_the_same_collection(tmp_path: Path) -> None:
    encoder = Rows(vectors_of(50), "dot")
    index = DenseIndex.build(documents(0, 50), encoder, tmp_path / "a", store_text=False)
    made = compress(index, "fp16", tmp_path / "b")
    assert made.corpus is None
    assert made.manifest.corpus_hash == index.manifest.corpus_hash
    assert made.metadata.column("row").to_pylist() == list(range(50))


def test_a_factory_string_is_a_method(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    index = DenseIndex.build(documents(0, 300), Rows(vectors_of(300), "dot"), tmp_path / "a")
    made = compress(index, "HNSW8", tmp_path / "b")
    assert made.engine == "HNSW8"
    again = compress(made, "matryoshka:16", tmp_path / "c")
    assert (again.engine, again.dim) == ("HNSW8", 16)
    assert approximate.NATIVE in again.segments[0].record.native


def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    vectors = vectors_of(20)
    vectors[3, 0] = 1e6
    index = DenseIndex.build(documents(0, 20), Rows(vectors, "dot"), tmp_path / "a")
    for method, error, told in (
        ("matryoshka:99", DataError, "1 to 48"),
        ("matryoshka", DataError, "matryoshka:128"),
        ("binary:3", DataError, "nothing behind a colon"),
        ("int9", UnknownNameError, "no compression named 'int9'; did you mean 'int8'"),
        ("matryoska:12", UnknownNameError, "no compression named 'matryoska'; did you mean 'matry"),
        ("nothing like it", UnknownNameError, "known: binary, fp16.*factory string"),
    ):
        with pytest.raises(error, match=told):
            compress(index, method, tmp_path / "b")
        assert not (tmp_path / "b").exists()
    with pytest.raises(NonFiniteError, match="'d0003'"):
        compress(index, "fp16", tmp_path / "b")
    assert not list((tmp_path / "b").rglob("vectors"))
    with pytest.raises(DataError, match="index itself"):
        compress(index, "binary", tmp_path / "a")
    compress(index, "binary", tmp_path / "b")
    with pytest.raises(IndexExistsError):
        compress(index, "binary", tmp_path / "b")
    assert compress(index, "int8-rescored", tmp_path / "b", overwrite=True).engine == "int8"


# Figures.


def test_figures_count_what_is_found(tmp_path: Path) -> None:
    vectors = vectors_of(400)
    index = DenseIndex.build(documents(0, 400), Rows(vectors, "cosine"), tmp_path / "a")
    made = compress(index, "matryoshka:8", tmp_path / "b")
    queries = vectors_of(6, seed=1)
    cut = truncated(queries, 8, "cosine")
    mine = [set(made.search(ask(cut), 10).hits(q).doc_ids) for q in range(6)]
    theirs = [set(index.search(ask(queries), 10).hits(q).doc_ids) for q in range(6)]
    figures = compared(index, made, ask(queries))
    assert figures.original.overlap == 1
    shares = [len(a & b) / 10 for a, b in zip(mine, theirs, strict=True)]
    assert figures.compressed.overlap == pytest.approx(sum(shares) / 6)
    assert figures.compressed.overlap < 1
    assert (figures.n_queries, figures.own) == (6, False)
    assert figures.compressed.vector_bytes == figures.compressed.scanned_bytes == 400 * 8 * 4
    assert figures.compressed.index_bytes == made.n_bytes
    best = {f"q{q}": {sorted(theirs[q])[0]: 1} for q in range(6)}
    asked = Queries.from_texts({f"q{q}": "" for q in range(6)}).rewritten(DenseVectors(queries))
    judged = compared(index, made, asked, Qrels.from_dict(best))
    assert judged.original.ndcg is not None
    assert judged.compressed.ndcg is not None
    assert judged.original.ndcg > judged.compressed.ndcg
    with pytest.raises(DataError, match="give the queries"):
        compared(index, made, None, Qrels.from_dict(best))


def test_own_documents_are_not_their_own_hits(tmp_path: Path) -> None:
    vectors = vectors_of(12)
    index = DenseIndex.build(documents(0, 12), Rows(vectors, "cosine"), tmp_path / "a")
    figures = compared(index, compress(index, "binary", tmp_path / "b"))
    assert (figures.n_queries, figures.own) == (12, True)
    assert figures.compressed.overlap == 1  # 12 documents are few enough to score them all
    assert figures.compressed.scanned_bytes == 12 * 8
    made = compress(index, "matryoshka:1", tmp_path / "one")
    units = normalised(vectors).astype(np.float64)
    shares = []
    for n, name in enumerate(f"d{n:04d}" for n in range(12)):
        cut = made.search(ask(truncated(vectors[n : n + 1], 1, "cosine")), 11).hits(0)
        nearest = [f"d{row:04d}" for row in np.argsort(-units @ units[n]) if row != n][:10]
        found = [hit.doc_id for hit in cut if hit.doc_id != name][:10]
        shares.append(len({*found} & {*nearest}) / 10)
    assert compared(index, made).compressed.overlap == pytest.approx(np.mean(shares))
    assert np.mean(shares) < 1
    alone = DenseIndex.build(documents(0, 1), Rows(vectors, "dot"), tmp_path / "c")
    assert compared(alone, compress(alone, "fp16", tmp_path / "d")).compressed.overlap == 1
    empty = DenseIndex.build([], Rows(vectors, "dot"), tmp_path / "e")
    with pytest.raises(DataError, match="nothing to ask"):
        compared(empty, compress(empty, "fp16", tmp_path / "f"))


# The verb.


def test_the_verb_prints_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES["encoder"], "toy", "retrievekit.testing:ToyEncoder")
    toy = toy_corpus()
    DenseIndex.build(toy.corpus, ToyEncoder(), tmp_path / "toy.index")
    toy.qrels.write(tmp_path / "qrels.tsv")
    lines = [json.dumps({"_id": i, "text": t}) for i, t in zip(toy.queries.ids, toy.queries.texts)]  # noqa: B905
    (tmp_path / "queries.jsonl").write_text("\n".join(lines) + "\n")
    call = ["compress", str(tmp_path / "toy.index"), "--method", "matryoshka:64"]
    asked = ["--queries", str(tmp_path / "queries.jsonl"), "--qrels", str(tmp_path / "qrels.tsv")]
    done = CliRunner().invoke(app, [*call, *asked])
    assert done.exit_code == 0, done.output
    rows = {line.split("│")[0].strip(): line for line in done.stdout.splitlines() if "│" in line}
    assert {"overlap@10", "nDCG@10", "vectors stored", "ms per query, alone"} <= set(rows)
    assert (tmp_path / "toy.matryoshka-64.index" / "CURRENT").exists()
    again = CliRunner().invoke(app, call)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    plain = CliRunner().invoke(app, [*call, "--overwrite", "--json"])
    told = json.loads(plain.stdout)
    assert told["figures"]["own"] is True
    n = len(toy.corpus)
    assert told["figures"]["compressed"]["vector_bytes"] == n * 64 * 4
    BM25Index.build(toy.corpus, tmp_path / "words.index")
    words = CliRunner().invoke(app, ["compress", str(tmp_path / "words.index"), "--method", "fp16"])
    assert "'bm25'" in words.stderr


def test_the_new_index_goes_beside_the_old_one() -> None:
    assert beside(Path("a/docs.index"), "binary") == Path("a/docs.binary.index")
    assert beside(Path("docs"), "IVF2,PQ8x4fs") == Path("docs.IVF2-PQ8x4fs.index")
    assert beside(Path("docs/"), "matryoshka:128") == Path("docs.matryoshka-128.index")


def test_an_empty_index_is_compressed_too(tmp_path: Path) -> None:
    index = DenseIndex.build(Corpus.from_texts({}), ToyEncoder(), tmp_path / "a.index")
    assert len(compress(index, "binary", tmp_path / "b.index")) == 0
    call = ["compress", str(tmp_path / "a.index"), "--method", "int8"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "0 documents" in done.stdout
