"""Cached stages answer as the stage inside does, from disk, and never from a damaged entry."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrievekit.cache import CacheInfo, cached
from retrievekit.corpus import Corpus
from retrievekit.errors import DataError, FingerprintError, StoreError
from retrievekit.ids import Ids
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage, stage
from retrievekit.testing import asserting, check_stage
from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

DOCS = Ids.from_strings(["d1", "d2", "d3", "é", "東京"])
QUERIES = Queries.from_texts(
    {"q1": "cats", "q2": "", "q3": "dogs and cats", "q4": "cats", "q5": "z"}
)


@dataclass(frozen=True)
class Search(Stage[Queries, Run]):
    """Scores are lengths of things; remembers what it was asked."""

    weight: float = 1.0
    column: bool = False
    asked: list = field(default_factory=list, metadata={"knob": True}, compare=False, repr=False)
    takes = Queries
    gives = Run

    def apply(self, batch: Queries) -> Run:
        self.asked.extend(batch.texts)
        hits = [
            [(row, self.weight * (len(text) - 3 * row)) for row in range(len(text) % 6)]
            for text in batch.texts
        ]
        offsets = np.cumsum([0, *(len(part) for part in hits)])
        flat = [hit for part in hits for hit in part]
        rows = np.array([row for row, _ in flat], np.int32)
        columns = {"doubled": 2 * rows} if self.column else {}
        scores = np.array([score for _, score in flat], np.float32)
        return Run.from_arrays(batch, DOCS, offsets, rows, scores, columns)


@dataclass(frozen=True)
class Rerank(Stage[Run, Run]):
    """Pointwise: the score is a function of query text and document id; drops what is below 0."""

    floor: float = -1.0
    column: bool = False
    known: Corpus | None = dataclasses.field(default=None, metadata={"knob": True})
    asked: list = field(default_factory=list, metadata={"knob": True}, compare=False, repr=False)
    takes = Run
    gives = Run
    pointwise = True

    def apply(self, batch: Run) -> Run:
        scores = np.zeros(batch.n_hits, np.float32)
        place = 0
        for hits in batch:
            for hit in hits:
                words = hit.doc_id if self.known is None else self.known[hit.doc_id].contents
                self.asked.append((hits.query, hit.doc_id))
                scores[place] = len(words) / 8 + len(set(hits.query) & set(words)) - 0.5
                place += 1
        kept = scores > self.floor
        part = batch.keep(kept)
        columns = {"letters": (scores[kept] * 8).astype(np.int16)} if self.column else {}
        return Run.from_arrays(
            part.queries, part.docs, part.offsets, part.rows, scores[kept], columns
        )

    @property
    def corpus(self) -> Any:
        return self.known


@dataclass(frozen=True)
class Listwise(Stage[Run, Run]):
    """A hit's score depends on its neighbours."""

    asked: list = field(default_factory=list, metadata={"knob": True}, compare=False, repr=False)
    takes = Run
    gives = Run

    def apply(self, batch: Run) -> Run:
        self.asked.extend(batch.queries.ids)
        return Run.from_arrays(
            batch.queries, batch.docs, batch.offsets, batch.rows, -batch.scores * len("x")
        )


def to_terms(queries: Queries) -> Queries:
    rows = [dict.fromkeys(text.split(), 0.5) for text in queries.rewritten_texts]
    return queries.rewritten(WeightedTerms.from_dicts(rows))


def to_dense(queries: Queries) -> Queries:
    array = np.array([[len(t), 1] for t in queries.rewritten_texts], np.float32)
    return queries.rewritten(DenseVectors(array.reshape(-1, 2), "maker"))


def to_sparse(queries: Queries) -> Queries:
    lengths = [len(t) % 3 for t in queries.rewritten_texts]
    offsets = np.cumsum([0, *lengths])
    columns = np.concatenate([np.arange(n) for n in lengths] or [[]]).astype(np.int32)
    values = np.ones(len(columns), np.float32)
    return queries.rewritten(SparseVectors(offsets, columns, values, 7, None))


def to_text(queries: Queries) -> Queries:
    texts = [text.upper() for text in queries.rewritten_texts]
    return queries.rewritten(pa.array(texts, pa.large_string()))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.entry"))


def same(a: Any, b: Any) -> None:
    """Equal in all that counts, columns and query forms included."""
    assert a == b
    if isinstance(a, Run):
        assert a.queries == b.queries
        assert {n: v.tolist() for n, v in a.columns.items()} == {
            n: v.tolist() for n, v in b.columns.items()
        }
        assert {n: v.dtype for n, v in a.columns.items()} == {
            n: v.dtype for n, v in b.columns.items()
        }


# Query by query ----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [False, True])
def test_second_time_nothing_is_computed(tmp_path, column):
    inner = Search(column=column)
    expected = Search(column=column)(QUERIES)
    first = cached(inner, tmp_path)
    same(first(QUERIES), expected)
    # "cats" twice in one batch is asked twice, and kept once.
    assert len(inner.asked) == len(QUERIES)
    assert len(entries(tmp_path)) == len(set(QUERIES.texts))
    same(first(QUERIES), expected)
    assert len(inner.asked) == len(QUERIES)
    assert first.info() == CacheInfo(hits=5, misses=5, damaged=0)

    another = Search(column=column)
    same(cached(another, str(tmp_path))(QUERIES), expected)
    assert another.asked == []


def test_only_new_queries_are_computed(tmp_path):
    inner = Search()
    warm = cached(inner, tmp_path)
    warm(Queries.from_texts(["cats", "other"]))
    inner.asked.clear()
    same(warm(QUERIES), Search()(QUERIES))
    assert inner.asked == ["", "dogs and cats", "z"]
    assert warm.info().hits == 2


def test_the_id_of_a_query_does_not_count_but_its_content_does(tmp_path):
    inner = Search()
    warm = cached(inner, tmp_path)
    warm(Queries.from_texts({"a": "cats"}))
    assert warm(Queries.from_texts({"b": "cats"})).queries.ids[0] == "b"
    assert inner.asked == ["cats"]
    # The same words, but rewritten from others: another query.
    rewritten = to_text(Queries.from_texts({"b": "Cats"}))
    assert rewritten.rewritten_texts == ["CATS"]
    warm(rewritten)
    warm(Queries.from_texts({"b": "CATS"}))
    assert len(inner.asked) == 3


def test_stages_share_a_folder_without_mixing(tmp_path):
    for weight in (1.0, 2.0):
        for _ in range(2):
            same(cached(Search(weight), tmp_path)(QUERIES), Search(weight)(QUERIES))
    assert len(entries(tmp_path)) == 2 * len(set(QUERIES.texts))


@pytest.mark.parametrize("rewrite", [to_terms, to_dense, to_sparse, to_text])
def test_rewriters_are_cached_in_every_form(tmp_path, rewrite):
    calls = []

    def counted(queries: Queries) -> Queries:
        calls.append(len(queries))
        return rewrite(queries)

    inner = stage(counted, takes=Queries, gives=Queries, version=rewrite.__name__)
    warm = cached(inner, tmp_path)
    expected = rewrite(QUERIES)
    part = QUERIES.take(np.array([2, 0]))
    warm(part)
    for _ in range(2):
        found = warm(QUERIES)
        same(found, expected)
        assert found.texts == QUERIES.texts
        if isinstance(expected.form, (DenseVectors, SparseVectors)):
            assert found.form.encoder == expected.form.encoder
    # "cats", asked for before, is q4, too.
    assert calls == [2, 2]


def test_pipelines_keep_the_queries_they_rewrote(tmp_path):
    """Feedback reads the rewritten queries of a run, so a cached run must carry them."""
    rewriter = stage(to_text, takes=Queries, gives=Queries, version="1")

    def search(queries: Queries) -> Run:
        return Run.from_dict(
            {
                i: {t[:1] or "x": 1.0}
                for i, t in zip(queries.ids, queries.rewritten_texts, strict=True)
            },
            queries,
        )

    pipe = rewriter >> stage(search, takes=Queries, gives=Run, version="1")
    warm = cached(pipe, tmp_path)
    for _ in range(2):
        found = warm(QUERIES)
        same(found, pipe(QUERIES))
        assert found.queries.rewritten_texts == [text.upper() for text in QUERIES.texts]
    assert warm.info().hits == 5


def test_forgetful_rewriters_are_told_and_not_kept(tmp_path, caplog):
    def forget(queries: Queries) -> Queries:
        return Queries.from_texts(dict.fromkeys(queries.ids, "same"))

    warm = cached(stage(forget, takes=Queries, gives=Queries, version="1"), tmp_path)
    for _ in range(2):
        same(warm(QUERIES), forget(QUERIES))
    assert "its answers are not kept" in caplog.text
    assert entries(tmp_path) == []


def test_listwise_stages_are_kept_by_the_whole_list(tmp_path):
    inner = Listwise()
    warm = cached(inner, tmp_path)
    run = Search()(QUERIES)
    same(warm(run), Listwise()(run))
    same(warm(run), Listwise()(run))
    assert len(inner.asked) == len(QUERIES)
    # One hit less, or one score changed, is another list.
    same(warm(run.top(2)), Listwise()(run.top(2)))
    other = Search(2.0)(QUERIES)
    same(warm(other), Listwise()(other))
    # At first none; then all; then the three lists of less than two hits; then the empty one.
    assert warm.info().hits == 0 + 5 + 3 + 1


# Hit by hit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [False, True])
def test_pointwise_stages_are_asked_about_new_hits_only(tmp_path, column):
    run = Search()(QUERIES)
    inner = Rerank(0.0, column)
    warm = cached(inner, tmp_path)
    assert warm.pointwise
    first = run.top(2)
    same(warm(first), Rerank(0.0, column)(first))
    before = list(inner.asked)
    assert len(before) == first.n_hits
    same(warm(run), Rerank(0.0, column)(run))
    fresh = inner.asked[len(before) :]
    assert len(fresh) == run.n_hits - first.n_hits
    assert not set(fresh) & set(before)
    # Other scores and another order below change nothing of what is known.
    other = Search(-1.0)(QUERIES)
    same(warm(other), Rerank(0.0, column)(other))
    assert len(inner.asked) == run.n_hits
    assert warm.info() == CacheInfo(first.n_hits + other.n_hits, run.n_hits, 0)
    assert Rerank(0.0, column)(run).n_hits < run.n_hits  # some were dropped, and stay so


def test_pointwise_entries_follow_the_words_of_a_document(tmp_path):
    run = Search()(QUERIES)
    texts = dict.fromkeys(DOCS, "some words")
    old, new = Corpus.from_texts(texts), Corpus.from_texts({**texts, "d1": "other longer words"})
    cached(Rerank(known=old), tmp_path)(run)
    inner = Rerank(known=new)
    same(cached(inner, tmp_path)(run), Rerank(known=new)(run))
    assert {doc_id for _, doc_id in inner.asked} == {"d1"}


def test_pointwise_entries_without_a_corpus_follow_the_ids(tmp_path):
    run = Search()(QUERIES)
    cached(Rerank(), tmp_path)(run)
    inner = Rerank()
    other = run.with_docs(Ids.from_strings([*DOCS, "one more"]))
    same(cached(inner, tmp_path)(other), Rerank()(other))
    assert len(inner.asked) == run.n_hits


def test_pointwise_stage_over_columns_is_kept_by_the_whole_list(tmp_path):
    run = Search(column=True)(QUERIES)
    inner = Rerank()
    warm = cached(inner, tmp_path)
    for _ in range(2):
        same(warm(run), Rerank()(run))
    assert len(inner.asked) == run.n_hits
    assert warm.info().hits == len(QUERIES)


def test_stage_that_lies_about_being_pointwise_is_found(tmp_path):
    @dataclass(frozen=True)
    class Liar(Rerank):
        def apply(self, batch: Run) -> Run:
            return Run.from_dict({i: {"new": 1.0} for i in batch.queries.ids}, batch.queries)

    with pytest.raises(DataError, match=r"Liar.* for query 'q1' it gave 'new'"):
        cached(Liar(), tmp_path)(Search()(QUERIES))


# Laws --------------------------------------------------------------------------------------------


def test_cached_stages_keep_the_laws(tmp_path):
    run = Search()(QUERIES)
    for number, warm in enumerate((Search(), Search(column=True), Search() >> Rerank())):
        check_stage(cached(warm, tmp_path / str(number)), QUERIES)
        check_stage(cached(asserting(warm), tmp_path / str(number)), QUERIES)  # now from disk
    for number, warm in enumerate((Rerank(), Rerank(0.0, True), Listwise())):
        check_stage(cached(warm, tmp_path / f"r{number}"), run)
        check_stage(cached(warm, tmp_path / f"r{number}"), run)


def test_a_cache_changes_no_fingerprint_and_is_one_step(tmp_path):
    inner = Search() >> Rerank()
    warm = cached(inner, tmp_path)
    assert warm.fingerprint == inner.fingerprint
    assert (warm >> Listwise()).fingerprint != inner.fingerprint
    for _ in range(2):
        (step,) = warm(QUERIES).trace
        assert step.name == "cached Then"
        assert step.fingerprint == inner.fingerprint
    assert repr(warm) == f"cached({inner!r}, {str(tmp_path)!r})"


def test_every_emptiness(tmp_path):
    nobody = Queries.from_texts({})
    warm = cached(Search(), tmp_path)
    same(warm(nobody), Search()(nobody))
    blank = Queries.from_texts([""])
    for _ in range(2):
        same(warm(blank), Search()(blank))
    for make in (Rerank, Listwise):
        for empty in (Run.empty(nobody, DOCS), Run.empty(QUERIES, DOCS)):
            for _ in range(2):
                same(cached(make(), tmp_path)(empty), make()(empty))


# What may not be kept ----------------------------------------------------------------------------


def test_nondeterministic_stages_are_refused_unless_allowed(tmp_path):
    def sample(queries: Queries) -> Run:
        return Run.empty(queries, DOCS)

    unsure = stage(sample, takes=Queries, gives=Run, version="1", deterministic=False)
    for inner in (unsure, unsure >> Rerank()):
        with pytest.raises(FingerprintError, match="allow_nondeterministic=True"):
            cached(inner, tmp_path)
        assert not cached(inner, tmp_path, allow_nondeterministic=True).deterministic


def test_stages_without_fingerprint_are_refused(tmp_path):
    with pytest.raises(FingerprintError, match="cannot be written down"):
        cached(Search(object()), tmp_path)


def test_columns_of_objects_are_refused(tmp_path):
    def objects(queries: Queries) -> Run:
        run = Search()(queries)
        return dataclasses.replace(run, columns={"o": np.array([{}] * run.n_hits, object)})

    warm = cached(stage(objects, takes=Queries, gives=Run, version="1"), tmp_path)
    with pytest.raises(DataError, match="column 'o' has dtype object"):
        warm(QUERIES)


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "file"))):
        cached(Search(), tmp_path / "file" / "cache")(QUERIES)


# Damage ------------------------------------------------------------------------------------------


def test_no_flipped_bit_and_no_cut_is_ever_used(tmp_path, caplog):
    """Every byte of an entry, one bit flipped; then the entry cut at every length."""
    one = QUERIES.take(np.array([2]))
    expected = Search()(one)
    cached(Search(), tmp_path)(one)
    (entry,) = entries(tmp_path)
    sound = entry.read_bytes()
    damaged = [
        sound[:place] + bytes([sound[place] ^ 1 << place % 8]) + sound[place + 1 :]
        for place in range(len(sound))
    ]
    damaged += [sound[:length] for length in range(len(sound))]
    damaged.append(sound + b"x")
    for data in damaged:
        entry.write_bytes(data)
        warm = cached(Search(), tmp_path)
        with caplog.at_level(logging.WARNING):
            same(warm(one), expected)
        assert warm.info() == CacheInfo(0, 1, 1)
        assert entry.read_bytes() == sound  # mended
    assert len(caplog.records) == len(damaged)
    assert "damaged; it is computed again" in caplog.text


def test_entry_under_another_name_is_not_used(tmp_path, caplog):
    warm = cached(Search(), tmp_path)
    warm(Queries.from_texts(["cats"]))
    (cats,) = entries(tmp_path)
    warm(Queries.from_texts(["doggies"]))
    (dogs,) = set(entries(tmp_path)) - {cats}
    dogs.write_bytes(cats.read_bytes())
    same(warm(Queries.from_texts(["doggies"])), Search()(Queries.from_texts(["doggies"])))
    assert warm.info().damaged == 1


def test_damaged_pointwise_entry_is_computed_again(tmp_path):
    run = Search()(QUERIES)
    cached(Rerank(), tmp_path)(run)
    for entry in entries(tmp_path):
        entry.write_bytes(entry.read_bytes()[:-1])
    warm = cached(Rerank(), tmp_path)
    same(warm(run), Rerank()(run))
    assert warm.info().hits == 0
    assert warm.info().damaged > 0


def fill(folder: str, seed: int) -> None:
    """Work of one process among others on one folder."""
    rng = np.random.default_rng(seed)
    searcher, reranker = cached(Search(), folder), cached(Rerank(), folder)
    for _ in range(15):
        texts = ["x" * int(n) for n in rng.integers(0, 12, 8)]
        run = searcher(Queries.from_texts(texts))
        assert run == Search()(Queries.from_texts(texts))
        part = run.top(int(rng.integers(1, 6)))
        assert reranker(part) == Rerank()(part)
    assert searcher.info().damaged == reranker.info().damaged == 0


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(str(tmp_path), seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not list(tmp_path.rglob("*.new"))
