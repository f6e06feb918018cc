"""Search on a device against search on the processor: same ids, same scores, same fingerprints.

Torch's processor stands in for a GPU; where there is one, the same tests run on it too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrievekit.corpus import Document
from retrievekit.errors import DataError, DeviceError
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import copies, device, gpu, places, products
from retrievekit.index.engines.copies import Copy
from retrievekit.protocols import EncoderCard, Similarity
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.vectors import DenseVectors

SIMILARITIES: list[Similarity] = ["dot", "cosine", "euclidean"]
DIM = 24


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device that searches even the smallest index, in blocks of 64 documents for 16 queries."""
    monkeypatch.setattr(places, "PROCESSOR", ())
    monkeypatch.setattr(device, "FEW", 0)
    monkeypatch.setattr(device, "LEAST", 16)
    monkeypatch.setattr(device, "SCORES", 4 * 16 * 64)
    monkeypatch.setattr(copies, "STAGED", 4 * DIM * 100)
    return str(request.param)


def vectors_of(n: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


class _Rows:
    """An encoder that gives a document the vector of its row."""

    def __init__(self, vectors: NDArray[np.float32], similarity: Similarity) -> None:
        self.vectors, self.dim, self.similarity = vectors, vectors.shape[1], similarity
        self.card = EncoderCard("rows", {"model": "rows"})

    def encode_document(self, texts: Any) -> NDArray[np.float32]:
        rows = self.vectors[[int(text) for text in texts]].reshape(len(texts), self.dim)
        if self.similarity != "cosine":
            return rows
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        return (rows / lengths).astype(np.float32)

    encode_query = encode_document


def documents(first: int, last: int) -> list[Document]:
    return [Document(f"d{n:05d}", str(n), metadata={"row": n}) for n in range(first, last)]


def build(vectors: NDArray[np.float32], similarity: Similarity = "dot", **more: Any) -> DenseIndex:
    encoder = _Rows(vectors, similarity)
    return DenseIndex.build(documents(0, len(vectors)), encoder, **more)


def ask(vectors: NDArray[np.float32]) -> Queries:
    texts = Queries.from_texts([f"q{n}" for n in range(len(vectors))])
    return texts.rewritten(DenseVectors(vectors))


def assert_same(index: DenseIndex, queries: Queries, place: str, **how: Any) -> Run:
    """The device's answer is the processor's, to the last bit."""
    here = index.searcher(**how)(queries)
    stage = index.searcher(**how, device=place)
    there = stage(queries)
    assert there.offsets.tolist() == here.offsets.tolist()
    assert there.rows.tolist() == here.rows.tolist()
    assert there.scores.tobytes() == here.scores.tobytes()
    assert stage.fingerprint == index.searcher(**how).fingerprint
    return there


def searches(index: DenseIndex) -> list[device.DeviceSearch]:
    """What has searched on devices."""
    found = index._places._flat.values()
    return [search for search in found if isinstance(search, device.DeviceSearch)]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("share", [0.7, 0.0])
def test_answers_are_those_of_the_processor(
    place: str, similarity: Similarity, storage: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "SHARE", share)
    monkeypatch.setattr(copies, "free_bytes", lambda _: 1e9)
    vectors = vectors_of(700)
    index = build(vectors, similarity, storage=storage)
    for k in (1, 10, 300, 900):
        assert_same(index, ask(vectors_of(16, seed=1)), place, k=k)
    (search,) = searches(index)
    assert search._copy is not None
    assert search._copy.whole == (share > 0)
    queries = vectors_of(16, seed=1)
    best = index.search(ask(queries), 1, device=place)
    expected = queries.astype(np.float64) @ index.vectors.astype(np.float64).T
    if similarity == "euclidean":
        expected = 2 * expected - (index.vectors.astype(np.float64) ** 2).sum(axis=1)
    assert best.rows.tolist() == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_conditions_deletions_candidates_and_segments(
    place: str, similarity: Similarity, tmp_path: Path
) -> None:
    vectors = vectors_of(600)
    encoder = _Rows(vectors, similarity)
    DenseIndex.build(documents(0, 300), encoder, tmp_path / "i")
    index = DenseIndex.open(tmp_path / "i", encoder, device=place)
    assert len(index.search(ask(vectors_of(2, seed=1)), 3)) == 2
    with index.writer(merge="never") as writer:
        writer.add(documents(300, 310))
        writer.add(documents(310, 600))
        writer.delete([f"d{n:05d}" for n in range(0, 600, 3)])
    index = index.reopen()
    assert index.device == place
    assert len(index.segments) > 1
    assert not searches(index)  # nothing of the old generation's
    queries = ask(vectors_of(9, seed=1))
    kept = [n for n in range(600) if n % 3]
    sets = {q: [f"d{row:05d}" for row in kept[n::2]] for n, q in enumerate(queries.ids)}
    for how in (
        {},
        {"where": "row >= 200"},
        {"where": "row < 7"},
        {"where": "row < 0"},
        {"candidates": sets},
        {"candidates": sets, "where": "row >= 100"},
    ):
        for k in (5, 450):
            here = index.search(queries, k, device="cpu", **how)
            there = index.search(queries, k, **how)
            assert there.rows.tolist() == here.rows.tolist()
            assert there.scores.tobytes() == here.scores.tobytes()
    assert searches(index)
    hit = index.search(queries, 5, where="row >= 200").hits(0).doc_ids[0]
    assert int(hit[1:]) >= 200
    assert int(hit[1:]) % 3


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_what_float16_cannot_tell_apart_is_told_apart(
    place: str, similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that differ in their last bits only, and many that do not differ at all."""
    passes = []
    own = device.DeviceSearch._proposals

    def noted(self: Any, queries: Any, hidden: Any, k: int, room: int) -> Any:
        rows, sure = own(self, queries, hidden, k, room)
        passes.append((room, int(sure.sum()), len(sure)))
        return rows, sure

    monkeypatch.setattr(device.DeviceSearch, "_proposals", noted)
    vectors = np.repeat(vectors_of(6), 100, axis=0)
    vectors[::2] *= 1 + np.linspace(0, 1e-5, 300, dtype=np.float32)[:, None]
    index = build(vectors, similarity)
    for spare, on_the_way in (((16, 200), "sure"), ((16, 20), "unsure")):
        passes.clear()
        monkeypatch.setattr(device, "SPARE", spare)
        assert_same(index, ask(vectors_of(5, seed=2)), place, k=7)
        assert passes[0][1] < 5  # too many for the first pass
        assert (passes[-1][1] == passes[-1][2]) == (on_the_way == "sure")


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize("exponent", [-40, -20, -8, 0, 8, 18])
def test_vectors_of_any_length(place: str, similarity: Similarity, exponent: int) -> None:
    """Also where scores thin out below float32, or fit into it just so."""
    vectors = vectors_of(300).astype(np.float64) * np.geomspace(1e-3, 1, 300)[:, None]
    index = build((vectors * 10.0**exponent).astype(np.float32), similarity)
    for other in (-40, -18, 0, 16, exponent):
        queries = (vectors_of(4, seed=1).astype(np.float64) * 10.0**other).astype(np.float32)
        queries[0] = 0
        assert_same(index, ask(queries), place, k=10)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 30),
    dim=st.sampled_from([1, 3, 16, 65]),
    spread=st.sampled_from([0, 2, 12]),
    sizes=st.tuples(st.integers(-38, 18), st.integers(-38, 18)),
    euclidean=st.booleans(),
)
def test_no_score_errs_more_than_the_bound(
    place: str, seed: int, dim: int, spread: int, sizes: tuple[int, int], euclidean: bool
) -> None:
    rng = np.random.default_rng(seed)

    def draw(n: int, size: int) -> NDArray[np.float32]:
        numbers = rng.standard_normal((n, dim)) * 10.0 ** rng.uniform(-spread, 0, (n, dim))
        return (numbers * 10.0**size).astype(np.float32)

    vectors = draw(40, sizes[0])
    queries = draw(6, sizes[0] if euclidean else sizes[1])
    longest = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    if euclidean:
        queries = queries[np.linalg.norm(queries.astype(np.float64), axis=1) <= 2 * longest]
    where = "cuda:0" if place == "cuda" else place
    copy = Copy([_Held(vectors)], dim, longest, euclidean, where)
    halves, norms, lost, scales = copy.queries(queries)
    ((_, _, there, squares),) = copy.blocks(1 << 20)
    scores = products.product(halves, there)
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if squares is not None:
        scores = scores - squares
        exact = exact - (vectors.astype(np.float64) ** 2).sum(axis=1) / 2
    exact = exact * scales.cpu().numpy()[:, None]
    wrong = np.abs(scores.cpu().double().numpy() - exact)
    assert np.isfinite(scores.cpu().numpy()).all()
    assert (wrong <= copy.errors(norms, lost, scales).cpu().numpy()[:, None]).all()


def unit_sum(terms: NDArray[np.float64], width: int) -> float:
    """A sum as a matrix unit makes it: so many terms at once, aligned to the largest, cut off."""
    total = 0.0
    for first in range(0, len(terms), width):
        together = np.append(terms[first : first + width], total)
        last_bit = 2.0 ** (np.frexp(np.abs(together).max())[1] - 24)
        total = float(np.trunc(together / last_bit).sum() * last_bit)
        last_bit = 2.0 ** (np.frexp(total)[1] - 24)
        total = float(np.trunc(total / last_bit) * last_bit)
    return total


@pytest.mark.parametrize("width", [4, 8, 16, 32])
@pytest.mark.parametrize("dim", [32, 768])
def test_the_bound_covers_sums_of_matrix_units(dim: int, width: int) -> None:
    # Every term but the first lies just below the last bit of the sum. Exact in float16.
    q = np.full(dim, float(np.float16(2**-11.51)))
    q[0] = 1
    wrong = abs(unit_sum(q * q, width) - float((q * q).sum())) / float((q * q).sum())
    assert products.summing(dim) / 5 < wrong <= products.summing(dim)
    copy = Copy([], dim, 1.0, False, "cpu")
    _, norms, lost, scales = copy.queries(np.ones((1, dim), np.float32))
    assert float(copy.errors(norms, lost, scales)) >= products.summing(dim) * float(norms) * 2**13


def test_the_bound_covers_every_block() -> None:
    vectors = vectors_of(50)
    longest = float(np.linalg.norm(vectors, axis=1).max()) * 1.01
    bounds = []
    for parts in ([vectors], [vectors, np.zeros_like(vectors)]):
        copy = Copy([_Held(part) for part in parts], DIM, longest, False, "cpu", streamed=True)
        _, norms, lost, scales = copy.queries(vectors_of(2, seed=1))
        list(copy.blocks(20))
        bounds.append(copy.errors(norms, lost, scales).tolist())
    assert bounds[0] == bounds[1]


class _Held:
    """Vectors as `Stored` gives them."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def slice(self, start: int, stop: int) -> NDArray[np.float32]:
        return self.vectors[start:stop]


@pytest.mark.parametrize("n", [1, 5, 60])
@pytest.mark.parametrize("m", [1, 64, 4096, 32 * 260, 32 * 260 + 1])
def test_the_largest(n: int, m: int) -> None:
    rng = np.random.default_rng(m)
    scores = torch.from_numpy(rng.integers(0, 1 + m // 3, (3, m)).astype(np.float32))
    scores[1] = -torch.inf
    values, found = products.largest(scores, n)
    assert values.shape == (3, min(n, m))
    assert torch.equal(scores.gather(1, found), values)
    assert all(len(set(row)) == min(n, m) for row in found.tolist())
    assert torch.equal(values.sort(1, True).values, scores.sort(1, True).values[:, :n])


def test_too_little_memory_takes_smaller_blocks_then_streams_then_says_so(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "SCORES", 1 << 20)
    vectors, queries = vectors_of(600), ask(vectors_of(4, seed=1))
    here = build(vectors).search(queries, 10)
    allowed = 200
    seen: list[int] = []

    def scarce(queries: Any, vectors: Any) -> Any:
        seen.append(len(vectors))
        if len(vectors) > allowed:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate a lot.")
        return own(queries, vectors)

    own = device.product
    monkeypatch.setattr(device, "product", scarce)
    index = build(vectors)
    there = index.search(queries, 10, device=place)
    assert there.rows.tolist() == here.rows.tolist()
    assert max(seen) > allowed >= seen[-1]
    assert not caplog.records
    seen.clear()
    index.search(queries, 10, device=place)
    assert max(seen) <= allowed  # it was learnt from
    allowed = 0
    with pytest.raises(DeviceError, match=r"too little memory .* out of memory\.\); .*'cpu'"):
        index.search(queries, 10, device=place)
    assert "streamed now" in caplog.text
    allowed = 600
    assert index.search(queries, 10, device=place).rows.tolist() == here.rows.tolist()


def test_a_copy_that_does_not_fit_is_streamed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(self: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Copy, "_all", scarce)
    index = build(vectors_of(300))
    assert_same(index, ask(vectors_of(3, seed=1)), place, k=10)
    assert searches(index)[0]._copy is not None
    assert not searches(index)[0]._copy.whole


def test_a_device_that_multiplies_badly_is_not_used(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    products.trusted.cache_clear()

    def bfloat16(queries: Any, vectors: Any) -> Any:
        return torch.mm(queries.bfloat16().float(), vectors.bfloat16().float().T)

    def float16(queries: Any, vectors: Any) -> Any:
        return (queries.double() @ vectors.double().T).half().float()

    index, queries = build(vectors_of(300)), ask(vectors_of(3, seed=1))
    for narrow in (bfloat16, float16):
        caplog.clear()
        monkeypatch.setattr(products, "product", narrow)
        assert_same(index, queries, place, k=10)
        assert "it is not used" in caplog.text
        assert searches(index)[0]._copy is None
        products.trusted.cache_clear()
    monkeypatch.undo()
    assert products.trusted("cpu")


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_search_or_to_search_for(place: str, n: int) -> None:
    index = build(vectors_of(n))
    assert_same(index, ask(vectors_of(3, seed=1)), place, k=10)
    assert_same(index, ask(vectors_of(0)), place, k=10)


def test_names_of_devices() -> None:
    index = build(vectors_of(5))
    for bad in ("gpu", "cuda:", "cuda:x", "mps", "", 1):
        with pytest.raises(DataError, match="'auto'"):
            index.searcher(k=3, device=bad)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="is searched on the processor"):
        BM25Index.build(documents(0, 3)).searcher(k=3, device="cuda")
    with pytest.raises(DeviceError, match="no device 'cuda:99'"):
        index.searcher(k=3, device="cuda:99")(ask(vectors_of(1)))
    assert places.settled_device("cpu") is None
    assert places.settled_device(None) is None
    expected = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else None
    assert places.settled_device("auto") == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "FEW", 0)
    index = build(vectors_of(50))
    assert_same(index, ask(vectors_of(3, seed=1)), "auto", k=10)
    assert not searches(index)
    with pytest.raises(DeviceError, match="finds 0 CUDA devices; device='auto'"):
        index.searcher(k=3, device="cuda")(ask(vectors_of(1)))


# FAISS's own indexes on a GPU. Its processor stands in here, as strict as a GPU.


class _There:
    """What FAISS's GPU indexes refuse, this refuses."""

    def __init__(self, faiss: Any, native: Any) -> None:
        self.native = faiss.clone_index(native)
        self.searched = 0

    def search(self, queries: Any, k: int, params: Any = None) -> Any:
        if k > gpu.MOST:
            raise RuntimeError("Error in GPU: k too large")
        if params is not None and getattr(params, "sel", None) is not None:
            raise RuntimeError("Error in GPU: no selectors")
        self.searched += 1
        return self.native.search(queries, k, params=params)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> list[_There]:
    faiss = pytest.importorskip("faiss")
    made: list[_There] = []

    def cloned(resources: Any, number: int, native: Any) -> _There:
        assert resources == "resources"
        assert number == 0
        made.append(_There(faiss, native))
        return made[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", cloned, raising=False)
    monkeypatch.setattr(places, "PROCESSOR", ())
    monkeypatch.setattr(device, "FEW", 0)
    return made


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("engine", ["Flat", "IVF4,Flat", "IVF4,SQ8", "IVF4,PQ8np", "PCA12,Flat"])
def test_faiss_on_a_gpu(
    fake_gpu: list[_There], engine: str, similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrievekit.index.engines.approximate.FEW", 0)
    index = build(vectors_of(600), similarity, engine=engine)
    with index.writer(merge="never") as writer:
        writer.delete([f"d{n:05d}" for n in range(0, 600, 3)])
    index = index.reopen()
    queries = ask(vectors_of(5, seed=1))
    options = {"refine": 30} | ({"nprobe": 4} if "IVF" in engine else {})
    for where in (None, "row >= 100"):
        assert_same(index, queries, "cpu", k=10, where=where, engine_options=options)
    assert [there.searched for there in fake_gpu] == [2]
    monkeypatch.setattr(gpu, "MOST", 100)  # beyond it the processor's index is asked
    assert_same(index, queries, "cpu", k=10, engine_options=options)
    assert [there.searched for there in fake_gpu] == [2]


@pytest.mark.parametrize("engine", ["HNSW8", "IVF4_HNSW4,Flat", "SQ8", "int8", "binary"])
def test_engines_without_a_form_for_gpus_say_so(
    fake_gpu: list[_There], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build(vectors_of(300), engine=engine)
    with pytest.raises(DeviceError, match=r"of '(HNSW8|IVF4_HNSW4,Flat|SQ8)' for GPUs|processor"):
        index.search(ask(vectors_of(2)), 3, device="cpu")
    monkeypatch.setattr(places, "settled_device", lambda _: "cpu")  # what 'auto' found
    assert len(index.search(ask(vectors_of(2)), 3, device="auto").hits(0)) == 3
    assert not fake_gpu


def test_a_faiss_without_gpus_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    monkeypatch.setattr(places, "PROCESSOR", ())
    with pytest.raises(DeviceError, match=r"finds 0 GPUs.*retrievekit\[gpu\]"):
        build(vectors_of(300), engine="IVF4,Flat").search(ask(vectors_of(2)), 3, device="cpu")


def test_a_refusal_of_faiss_is_handed_on(
    fake_gpu: list[_There], monkeypatch: pytest.MonkeyPatch
) -> None:
    faiss = pytest.importorskip("faiss")
    queries = ask(vectors_of(2))

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Error: cudaMalloc failed")

    index = build(vectors_of(300), engine="IVF4,Flat")
    with monkeypatch.context() as patch:
        patch.setattr(_There, "search", failing)
        with pytest.raises(DeviceError, match=r"FAISS failed .* cudaMalloc failed"):
            index.search(queries, 3, device="cpu")
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", failing)
    with pytest.raises(DeviceError, match="cannot hold the engine 'IVF4,Flat'"):
        build(vectors_of(300), engine="IVF4,Flat").search(queries, 3, device="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["Flat", "IVF4,Flat", "IVF4,SQ8"])
def test_faiss_on_a_real_gpu(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    if not hasattr(faiss, "get_num_gpus") or not faiss.get_num_gpus():
        pytest.skip("no FAISS for GPUs")
    monkeypatch.setattr("retrievekit.index.engines.approximate.FEW", 0)
    index = build(vectors_of(600), engine=engine)
    options = {"refine": 20} | ({"nprobe": 4} if "IVF" in engine else {})
    assert_same(index, ask(vectors_of(5, seed=1)), "cuda", k=10, engine_options=options)


def test_logging_is_quiet_where_all_is_well(place: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="retrievekit"):
        assert_same(build(vectors_of(300)), ask(vectors_of(3, seed=1)), place, k=5)
    assert not caplog.records
