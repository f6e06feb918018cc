"""Indexes over vectors computed elsewhere: from arrays, npy, safetensors and Parquet."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from retrievekit.corpus import Corpus, Document
from retrievekit.encode import precomputed
from retrievekit.encode.precomputed import PrecomputedVectors
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EncoderMismatchError,
    MissingDataError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.ids import Ids
from retrievekit.index.dense import DenseIndex
from retrievekit.queries import Queries
from retrievekit.testing import ToyEncoder
from retrievekit.vectors import DenseVectors

N, DIM = 50, 8
IDS = [f"d {n}" for n in range(N)]  # with blanks, which are part of an id
CORPUS = Corpus.from_texts({doc_id: f"text {doc_id}" for doc_id in IDS})
RANDOM = np.random.default_rng(11)
VECTORS = RANDOM.standard_normal((N, DIM)).astype(np.float32)
ASKED = RANDOM.standard_normal((3, DIM)).astype(np.float32)
QUERIES = Queries.from_texts({f"q{n}": "" for n in range(3)}).rewritten(DenseVectors(ASKED))


def expected(vectors: np.ndarray = VECTORS, k: int = 5) -> list[list[str]]:
    scores = ASKED.astype(np.float64) @ vectors.astype(np.float64).T
    return [[IDS[row] for row in np.argsort(-line)[:k]] for line in scores]


def found(index: DenseIndex, k: int = 5) -> list[list[str]]:
    run = index.search(QUERIES, k)
    return [run[query].doc_ids for query in ("q0", "q1", "q2")]


def as_file(kind: str, folder: Path, vectors: np.ndarray = VECTORS) -> Path:
    path = folder / f"vectors.{kind}"
    if kind == "npy":
        np.save(path, vectors)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file({"embeddings": np.ascontiguousarray(vectors)}, path)
    else:
        dtype = pa.float16() if vectors.dtype == np.float16 else pa.float32()
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(vectors).ravel(), dtype), vectors.shape[1]
        )
        table = pa.table({"id": IDS[: len(vectors)], "vector": column})
        parquet.write_table(table, path, row_group_size=20)
    return path


KINDS = ["npy", "safetensors", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_files_give_the_exact_ranking(kind, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(precomputed, "ROWS_AT_A_TIME", 7)
    vectors = VECTORS.astype(dtype)
    source = PrecomputedVectors.open(as_file(kind, tmp_path, vectors))
    assert (len(source), source.dim, source.ids) == (N, DIM, None)
    np.testing.assert_array_equal(np.concatenate(list(source.parts())), vectors)
    DenseIndex.from_vectors(CORPUS, source, tmp_path / "index", similarity="dot")
    index = DenseIndex.open(tmp_path / "index")
    assert found(index) == expected(vectors)
    np.testing.assert_array_equal(index.vectors, vectors.astype(np.float32))


def test_same_index_as_build(tmp_path):
    toy = ToyEncoder(32)
    vectors = toy.encode_document(CORPUS.contents())
    DenseIndex.from_vectors(CORPUS, vectors, tmp_path / "given", encoder=toy)
    DenseIndex.build(CORPUS, toy, tmp_path / "built")
    given, built = (DenseIndex.open(tmp_path / name, toy) for name in ("given", "built"))
    np.testing.assert_array_equal(given.vectors, built.vectors)
    assert given.card == built.card
    assert given.similarity == built.similarity == "cosine"
    queries = Queries.from_texts({"a": "text d 7", "b": "d 31"})
    ours, theirs = given.search(queries, 10), built.search(queries, 10)
    assert all(ours[q].doc_ids == theirs[q].doc_ids for q in ("a", "b"))


@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
def test_similarities(similarity):
    index = DenseIndex.from_vectors(CORPUS, VECTORS, similarity=similarity)
    a, b = ASKED.astype(np.float64), VECTORS.astype(np.float64)
    scores = {
        "dot": a @ b.T,
        "cosine": (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1),
        "euclidean": -np.linalg.norm(a[:, None] - b[None], axis=2),
    }[similarity]
    assert found(index) == [[IDS[row] for row in np.argsort(-line)[:5]] for line in scores]


@given(st.lists(st.integers(0, 9), max_size=8), st.booleans())
def test_parts_of_any_size_meet_their_documents(sizes, streamed):
    """However the source is cut into parts, empty ones among them, row n belongs to document n."""
    n = sum(sizes)
    vectors = np.arange(2 * n, dtype=np.float32).reshape(n, 2)

    def parts():
        start = 0
        for size in sizes:
            yield vectors[start : start + size]
            start += size

    ids = [f"x{row}" for row in range(n)]
    source = PrecomputedVectors(2, n, Ids.from_strings(ids), parts)
    documents = [Document(doc_id, "text") for doc_id in ids]
    given = iter(documents) if streamed else Corpus.from_documents(documents)
    index = DenseIndex.from_vectors(given, source, similarity="dot")
    np.testing.assert_array_equal(index.vectors.reshape(n, 2), vectors)
    assert list(index.ids) == ids


def test_no_documents():
    index = DenseIndex.from_vectors([], np.zeros((0, 4), np.float32), similarity="dot")
    assert (len(index), index.dim) == (0, 4)


# Ids and counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_compared(kind, tmp_path):
    path = as_file(kind, tmp_path)
    (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n")
    np.save(tmp_path / "ids.npy", np.array(IDS))
    sources = [IDS, tmp_path / "ids.txt", str(tmp_path / "ids.npy")]
    sources += ["id"] if kind == "parquet" else []
    swapped = IDS.copy()
    swapped[17], swapped[18] = swapped[18], swapped[17]
    for ids in sources:
        source = PrecomputedVectors.open(path, ids=ids)
        assert list(source.ids) == IDS
        assert found(DenseIndex.from_vectors(CORPUS, source, similarity="dot")) == expected()
    wrong = PrecomputedVectors.open(path, ids=swapped)
    documents = [Document(doc_id, "text") for doc_id in IDS]
    for corpus in (CORPUS, iter(documents)):
        with pytest.raises(DataError, match="row 17 of the vectors belongs to 'd 18', but that d"):
            DenseIndex.from_vectors(corpus, wrong, tmp_path / "none", similarity="dot")
        assert not committed(tmp_path / "none")
    # What the message says to do.
    ordered = CORPUS.take(CORPUS.ids.rows(list(wrong.ids)))
    assert len(DenseIndex.from_vectors(ordered, wrong, similarity="dot")) == N


def committed(path: Path) -> bool:
    """Whether an index was committed there."""
    return any(path.glob("manifest*"))


@pytest.mark.parametrize("rows", [N - 1, N + 1, 0])
def test_counts_are_compared(rows, tmp_path):
    vectors = np.ones((rows, DIM), np.float32)
    with pytest.raises(DataError, match=f"50 documents, but {rows} vectors"):
        DenseIndex.from_vectors(CORPUS, vectors, tmp_path / "none", similarity="dot")
    documents = (Document(doc_id, "text") for doc_id in IDS)
    message = "50 documents, but 51 vectors" if rows > N else f"there are only {rows} vectors"
    with pytest.raises(DataError, match=message):
        DenseIndex.from_vectors(documents, vectors, tmp_path / "none", similarity="dot")
    assert not committed(tmp_path / "none")


def test_source_that_ends_early():
    source = PrecomputedVectors(DIM, N, None, lambda: iter([VECTORS[:10]]))
    with pytest.raises(EncoderContractError, match="ended early; it said that it has 50"):
        DenseIndex.from_vectors(CORPUS, source, similarity="dot")


def test_number_of_ids(tmp_path):
    path = as_file("npy", tmp_path)
    with pytest.raises(DataError, match="49 ids for 50 vectors"):
        PrecomputedVectors.open(path, ids=IDS[1:])
    (tmp_path / "ids.txt").write_bytes("\r\n".join(IDS).encode())
    assert list(PrecomputedVectors.open(path, ids=tmp_path / "ids.txt").ids) == IDS
    with pytest.raises(MissingDataError, match="no file of ids"):
        PrecomputedVectors.open(path, ids="nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ids.txt", b"a\nb\xff\n", "not UTF-8 at byte 3"),
        ("ids.txt", b"\xef\xbb\xbfa\nb\n", "byte-order mark"),
        ("ids.npy", np.array([b"a", b"b"]), r"row 0 is b'a' \(bytes\)"),
        ("ids.npy", np.array([1.0, 2.0]), r"row 0 is 1.0 \(float\)"),
        ("ids.npy", np.array([["a"], ["b"]]), r"row 0 is \['a'\] \(list\)"),
        ("ids.npy", np.array("a"), "1 ids for 2 vectors"),
        ("ids.npy", np.array([True, False]), r"row 0 is True \(bool\)"),
    ],
)
def test_ids_whose_spelling_is_not_clear_are_refused(name, content, message, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    np.save(tmp_path / "vectors.npy", VECTORS[:2])
    with pytest.raises(DataError, match=message):
        PrecomputedVectors.open(tmp_path / "vectors.npy", ids=tmp_path / name)


@pytest.mark.parametrize("ids", [["a", None], [b"a", b"b"], [0.5, 1.0]])
def test_columns_of_ids_whose_spelling_is_not_clear_are_refused(ids, tmp_path):
    table = pa.table({"id": pa.array(ids), "v": pa.array(VECTORS[:2].tolist())})
    parquet.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(DataError, match=r"column 'id': the id of row [01] is"):
        PrecomputedVectors.open(tmp_path / "v.parquet", ids="id")


def test_whole_numbers_are_ids(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS[:2])
    np.save(tmp_path / "ids.npy", np.array([7, 12]))
    assert list(PrecomputedVectors.open(tmp_path / "v.npy", ids=tmp_path / "ids.npy").ids) == [
        "7",
        "12",
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_numbers_that_are_none_name_their_document(bad, tmp_path):
    vectors = VECTORS.astype(np.float64)
    vectors[33, 2] = bad
    np.save(tmp_path / "vectors.npy", vectors)
    source = PrecomputedVectors.open(tmp_path / "vectors.npy")
    with pytest.raises(NonFiniteError, match="vector of document 'd 33' holds NaN or infinity"):
        DenseIndex.from_vectors(CORPUS, source, tmp_path / "none", similarity="dot")
    assert not committed(tmp_path / "none")


# Encoders ---------------------------------------------------------------------------------------


def test_without_an_encoder_vectors_search(tmp_path):
    DenseIndex.from_vectors(CORPUS, VECTORS, tmp_path / "index", similarity="dot")
    index = DenseIndex.open(tmp_path / "index")
    assert found(index) == expected()
    with pytest.raises(UnknownNameError, match="vectors from elsewhere, which no index can load"):
        index.search(Queries.from_texts({"q": "text"}), 1)
    with pytest.raises(EncoderMismatchError):
        DenseIndex.open(tmp_path / "index", ToyEncoder(DIM))
    fresh = DenseIndex.from_vectors(CORPUS, VECTORS, similarity="dot")
    with pytest.raises(UnknownNameError, match="vectors from elsewhere"):
        _ = fresh.encoder


def test_encoder_must_fit():
    toy = ToyEncoder(DIM)
    with pytest.raises(DataError, match="say how the vectors are compared"):
        DenseIndex.from_vectors(CORPUS, VECTORS)
    with pytest.raises(DataError, match=r"similarity is dot, but .* by cosine"):
        DenseIndex.from_vectors(CORPUS, VECTORS, encoder=toy, similarity="dot")
    with pytest.raises(EncoderContractError, match="8 components, those of 'toy' 32"):
        DenseIndex.from_vectors(CORPUS, VECTORS, encoder=ToyEncoder(32))
    made = DenseVectors(VECTORS, toy.card.fingerprint)
    assert DenseIndex.from_vectors(CORPUS, made, encoder=toy).encoder is toy
    with pytest.raises(EncoderMismatchError, match="made by another encoder"):
        DenseIndex.from_vectors(CORPUS, DenseVectors(VECTORS, "0" * 64), encoder=toy)


# Files that are no vectors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 3, 4)), np.zeros((3, 0)), np.zeros((3, 2), np.int8)],
)
def test_npy_of_something_else(array, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match="one matrix of floats"):
        PrecomputedVectors.open(tmp_path / "x.npy")


def test_npy_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(DataError, match="not an npy file of numbers"):
        PrecomputedVectors.open(tmp_path / "x.npy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"nonsense" * 20])
def test_files_of_nonsense(kind, content, tmp_path):
    (tmp_path / f"x.{kind}").write_bytes(content)
    with pytest.raises(DataError, match=r"not an? "):
        PrecomputedVectors.open(tmp_path / f"x.{kind}")


def test_files_of_other_kinds(tmp_path):
    with pytest.raises(MissingDataError, match="no file"):
        PrecomputedVectors.open(tmp_path / "x.npy")
    (tmp_path / "x.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match=r"from \.npy, \.safetensors and \.parquet"):
        PrecomputedVectors.open(tmp_path / "x.pkl")


def test_several_tensors_need_a_name(tmp_path):
    from safetensors.numpy import save_file

    save_file(
        {"a": VECTORS, "b": VECTORS + 1, "n": np.zeros((2, 2), np.int64)},
        tmp_path / "x.safetensors",
    )
    with pytest.raises(DataError, match=r"3 tensors \(a, b, n\); say which"):
        PrecomputedVectors.open(tmp_path / "x.safetensors")
    chosen = PrecomputedVectors.open(tmp_path / "x.safetensors", column="b")
    np.testing.assert_array_equal(next(chosen.parts()), VECTORS + 1)
    with pytest.raises(DataError, match="none is 'c'"):
        PrecomputedVectors.open(tmp_path / "x.safetensors", column="c")
    with pytest.raises(DataError, match="one matrix of floats"):
        PrecomputedVectors.open(tmp_path / "x.safetensors", column="n")


def test_bfloat16(tmp_path):
    import torch
    from safetensors.torch import save_file

    given = torch.from_numpy(VECTORS).to(torch.bfloat16)
    save_file({"x": given}, tmp_path / "x.safetensors")
    (part,) = PrecomputedVectors.open(tmp_path / "x.safetensors").parts()
    np.testing.assert_array_equal(part, given.float().numpy())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0], [3.0]], "the vector of row 1 has 1 components, others 2"),
        ([[1.0, 2.0], None], "the vector of row 1 has -1 components"),
        ([[1.0, 2.0], [1.0, None]], "holds null"),
    ],
)
def test_ragged_parquet(rows, message, tmp_path):
    parquet.write_table(
        pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "x.parquet"
    )
    with pytest.raises(DataError, match=message):
        list(PrecomputedVectors.open(tmp_path / "x.parquet").parts())


def test_memory_is_bounded(tmp_path):
    """A mapped file of 40 MB goes through in parts."""
    rows, dim = 40_000, 256
    vectors = np.lib.format.open_memmap(
        tmp_path / "x.npy", "w+", dtype=np.float32, shape=(rows, dim)
    )
    vectors[:] = 1
    vectors.flush()
    del vectors
    source = PrecomputedVectors.open(tmp_path / "x.npy")
    documents = (Document(f"d{n}", "x") for n in range(rows))
    peaks = []

    def note(done, total):
        peaks.append(tracemalloc.get_traced_memory()[1])

    tracemalloc.start()
    try:
        DenseIndex.from_vectors(
            documents, source, tmp_path / "index", similarity="dot", progress=note
        )
    finally:
        tracemalloc.stop()
    assert len(peaks) >= rows // 4096
    assert peaks[-1] < 25e6, peaks


def test_other_vectors_are_another_index():
    documents = [Document(f"d{n}", "x") for n in range(3)]
    vectors = np.eye(3, 4, dtype=np.float32)
    made = [
        DenseIndex.from_vectors(documents, given, similarity="dot").fingerprint
        for given in (vectors, vectors.copy(), vectors[::-1])
    ]
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_repair_does_not_take_words_for_given_vectors(tmp_path):
    vectors = np.eye(3, 4, dtype=np.float32)
    documents = [Document(f"d{n}", "x") for n in range(3)]
    index = DenseIndex.from_vectors(documents, vectors, tmp_path / "x", similarity="dot")
    with index.writer() as writer:
        writer.delete(["d0"])
    with index.writer() as writer:
        writer.compact()
    (segment,) = index.reopen().segments
    made = [name for way in index.derived(segment) for name in way.makes]
    assert "ids.order" in made
    assert "hashes" not in made
