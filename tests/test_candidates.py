"""Candidates: a search among them equals an exhaustive search that is cut down to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import retrievekit as rk
from retrievekit.candidates import Candidates
from retrievekit.cli.app import app
from retrievekit.corpus import Document
from retrievekit.errors import CorruptIndexError, DataError, UnknownNameError
from retrievekit.index import chosen
from retrievekit.index.base import Index
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.dense import DenseIndex
from retrievekit.index.engines import flat
from retrievekit.kernels.chosen import choose, reach
from retrievekit.kernels.postings import search_among, search_postings
from retrievekit.protocols import Similarity
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import canonical
from retrievekit.testing import ToyEncoder, check_stage

WORDS = ["cat", "dog", "bird", "fish", "horn"]
QUERIES = Queries.from_texts(["cat", "dog bird", "horn fish cat cat", ""])
KINDS = pytest.mark.parametrize("kind", ["bm25", "cosine", "dot", "euclidean"])


def build(kind: Any, documents: Iterable[Document], path: Path | None = None) -> Index:
    if kind == "bm25":
        return BM25Index.build(documents, path)
    similarity: Similarity = kind
    return DenseIndex.build(documents, ToyEncoder(dim=6, similarity=similarity), path)


def documents(seed: int, n: int) -> list[Document]:
    """Short texts over few words, so that many scores tie."""
    rng = np.random.default_rng(seed)
    return [
        Document(f"d{i}", " ".join(rng.choice(WORDS, 2)), "", {"year": int(rng.integers(0, 3))})
        for i in rng.permutation(n)
    ]


def grown(kind: str, given: list[Document], deleted: Iterable[str]) -> Index:
    """An index of three segments, some of whose documents were deleted."""
    third = len(given) // 3
    index = build(kind, given[:third])
    with index.writer() as writer:
        writer.add(given[third : 2 * third])
    with index.writer() as writer:
        writer.add(given[2 * third :])
        writer.delete(deleted)
    return index.reopen()


def cut_down(index: Index, sets: Mapping[str, Iterable[str]], k: int, where: str | None) -> Any:
    """The oracle: rank everything, keep what is allowed, cut at k."""
    out = []
    for hits in index.searcher(k=max(len(index), 1), where=where)(QUERIES):
        allowed = set(sets[hits.query_id])
        out.append([(h.doc_id, h.score) for h in hits if h.doc_id in allowed][:k])
    return out


def pairs(run: Run) -> Any:
    return [[(hit.doc_id, hit.score) for hit in hits] for hits in run]


@KINDS
@settings(max_examples=40)
@given(st.data())
def test_a_search_among_candidates_is_an_exhaustive_search_cut_down(
    kind: str, data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, 40), "documents")
    given_documents = documents(data.draw(st.integers(0, 99), "seed"), n)
    names = [d.doc_id for d in given_documents]
    some = st.lists(st.sampled_from(names), unique=True) if n else st.just([])
    deleted = data.draw(some, "deleted")
    index = grown(kind, given_documents, deleted)
    if data.draw(st.booleans(), "of all documents but a few"):
        few = st.lists(st.sampled_from(names), max_size=3) if n else st.just([])
        sets = {q: [d for d in names if d not in data.draw(few)] for q in QUERIES.ids}
    else:
        sets = {q: data.draw(some, q) for q in QUERIES.ids}
    where = data.draw(st.sampled_from([None, "year >= 1", "year = 9"])) if n else None
    k = data.draw(st.sampled_from([1, 2, 5, 100]), "k")
    with pytest.MonkeyPatch.context() as patch:
        # Each way through the search, and batches cut anywhere.
        patch.setattr(flat, "PAIR_BY_PAIR", data.draw(st.sampled_from([0, 0.3, 1]), "by pair"))
        patch.setattr(flat, "SPARE", data.draw(st.sampled_from([128, 4096]), "spare"))
        patch.setattr(flat, "DOCUMENTS_AT_A_TIME", data.draw(st.sampled_from([3, 99]), "block"))
        patch.setattr(chosen, "PAIRS_AT_A_TIME", data.draw(st.sampled_from([1, 30, 999]), "part"))
        candidates = Candidates.of(sets, missing="ignore")
        for threads in (1, 2):
            found = index.search(QUERIES, k, where=where, candidates=candidates, threads=threads)
            assert pairs(found) == cut_down(index, sets, k, where)


@given(st.lists(st.integers(-5, 60), min_size=1, unique=True), st.data())
def test_reach_is_a_binary_search(values: list[int], data: st.DataObject) -> None:
    rows = np.sort(np.array(values, np.int32))
    first = data.draw(st.integers(0, len(rows) - 1))
    wanted = data.draw(st.integers(-7, 70))
    expected = first + np.searchsorted(rows[first:], wanted)
    assert reach(rows, first, len(rows), wanted) == expected


@pytest.mark.parametrize("size", [1, 7, 300, 40_000, 290_000])
def test_rows_are_chosen_and_searched_as_under_a_mask(size: int) -> None:
    """Sets of which few or many rows are allowed, over more rows than are taken at a time."""
    rng = np.random.default_rng(size)
    n, k = 300_000, 20
    dfs = [3, 200, 9_000, 150_000]
    rows = [np.sort(rng.choice(n, df, replace=False)) for df in dfs]
    ends = np.cumsum(dfs)
    codes = rng.integers(0, 9, ends[-1]).astype(np.uint16)
    impacts = rng.random(9).astype(np.float32)
    ranks = rng.permutation(n).astype(np.int32)
    terms = np.array([0, 3, 2, 1], np.int64)  # of two queries, two each
    postings: Any = (
        *(np.concatenate(rows).astype(np.int32), codes, impacts, np.array([0, 2, 4])),
        *((ends - dfs)[terms], ends[terms], rng.random(4).astype(np.float32), ranks),
    )

    sets = [rng.choice(n, size, replace=False).astype(np.int32) for _ in range(2)]
    places = rng.permutation(n).astype(np.int32)  # rows of three segments, one after another
    segment_ends, offsets = np.array([n // 3, n // 2, n]), np.array([0, size, 2 * size])
    live = rng.permutation(n).astype(np.int32)
    live[rng.random(n) < 0.2] = -1
    cuts, out = np.empty((2, 4), np.int64), np.empty(2 * size, np.int32)
    which = np.array([1, 0], np.int32)
    choose(
        *(offsets, np.concatenate(sets), which, live, segment_ends, places),
        *(np.array([0, size]), cuts, out),
    )
    for q in range(2):
        for s, (a, b) in enumerate(pairwise([0, *segment_ends])):
            known = np.sort(live[sets[which[q]]])
            expected = places[known[(known >= a) & (known < b)]]
            assert np.array_equal(out[cuts[q, s] : cuts[q, s + 1]], expected)

    keys = np.zeros((2, 2, k), np.uint64)
    counts = np.zeros((2, 2), np.int64)
    allowed = [np.sort(part) for part in sets]
    among: Any = (np.array([0, size]), np.array([size, 2 * size]), np.concatenate(allowed))
    search_among(*(*postings, *among, k, keys[0], counts[0]))
    for q in range(2):
        dead = np.ones(n, bool)
        dead[allowed[q]] = False
        one_query: Any = (*postings[:3], postings[3][q : q + 2], *postings[4:])
        search_postings(*(*one_query, dead, k, keys[1, q : q + 1], counts[1, q : q + 1]))
    assert counts[0].tolist() == counts[1].tolist()
    assert counts.sum() > 0 or size < 300
    assert np.array_equal(keys[0], keys[1])


FOUR = [Document(f"d{n}", f"cat {word}", "", {"n": n}) for n, word in enumerate(WORDS[1:])]


@pytest.fixture(params=["bm25", "cosine"])
def index(request: pytest.FixtureRequest) -> Index:
    return build(request.param, FOUR)


def one(*texts: str) -> Queries:
    return Queries.from_texts({f"q{i}": text for i, text in enumerate(texts)})


def test_every_emptiness(index: Index) -> None:
    asked = one("cat", "cat dog")
    empties: list[Any] = [{"q0": [], "q1": []}, {"q0": set(), "q1": iter(())}]
    for sets in empties:
        assert index.search(asked, 5, candidates=sets).n_hits == 0
    found = index.search(asked, 5, candidates={"q0": [], "q1": ["d0"]})
    assert [hits.doc_ids for hits in found] == [[], ["d0"]]
    nobody = asked.take(np.zeros(0, np.int64))
    assert len(index.search(nobody, 5, candidates={})) == 0
    assert len(index.search(nobody, 5, candidates={"q0": ["d1"]})) == 0
    # Not even where everything is left out, by a condition or because it is not there.
    only = {"q0": ["d0"], "q1": ["d0"]}
    assert index.search(asked, 5, candidates=only, where="n > 0").n_hits == 0
    strangers = Candidates.of({"q0": ["x"], "q1": ["y"]}, missing="ignore")
    assert index.search(asked, 5, candidates=strangers).n_hits == 0


@pytest.mark.parametrize("kind", ["bm25", "cosine"])
def test_an_index_without_documents(kind: str) -> None:
    index = build(kind, FOUR)
    with index.writer() as writer:
        writer.delete(d.doc_id for d in FOUR)
    empty = index.reopen()
    assert empty.search(one("cat"), 5, candidates={"q0": []}).n_hits == 0
    gone = Candidates.of({"q0": ["d0"]}, missing="ignore")
    assert empty.search(one("cat"), 5, candidates=gone).n_hits == 0


def test_deleted_documents_never_come_back(index: Index) -> None:
    sets = {"q0": ["d0", "d1"]}
    stage = index.searcher(k=9, candidates=sets)
    with index.writer() as writer:
        writer.delete(["d0"])
    later = index.reopen()
    assert set(stage(one("cat"))["q0"].doc_ids) == {"d0", "d1"}  # a reader keeps its generation
    with pytest.raises(UnknownNameError, match="1 of 2 candidates are not in the index: 'd0';"):
        later.search(one("cat"), 9, candidates=sets)
    lenient = Candidates.of(sets, missing="ignore")
    assert later.search(one("cat"), 9, candidates=lenient)["q0"].doc_ids == ["d1"]


def test_searches_fail_closed(index: Index) -> None:
    stage = index.searcher(k=3, candidates={"q0": ["d0"], "more": []})
    assert stage(one("cat"))["q0"].doc_ids == ["d0"]
    with pytest.raises(UnknownNameError, match=r"for query 'q1', 'q2', 'q3' and 1 more .*empty"):
        stage(one("cat", "cat", "cat", "cat", "cat"))
    with pytest.raises(UnknownNameError, match="no candidates are given for query '1'"):
        stage.search("cat")
    many = {"q0": ["d0", *(f"x{i}" for i in range(5))]}
    with pytest.raises(UnknownNameError, match=r"5 of 6 .*'x0', 'x1', 'x2' and 2 more;.*ignore"):
        index.search(one("cat"), 3, candidates=many)


def test_only_what_is_asked_for_by_bm25_needs_a_term() -> None:
    found = build("bm25", FOUR).search(one("dog"), 9, candidates={"q0": ["d0", "d1"]})
    assert found["q0"].doc_ids == ["d0"]
    assert found["q0"][0].score == build("bm25", FOUR).search(one("dog"), 1)["q0"][0].score


def test_sources() -> None:
    sets = {"q2": ["d3", "d1", "d3"], "q1": [], "é": ["d2"]}
    given_sets = Candidates.of(sets)
    assert given_sets.to_dict() == {"q1": [], "q2": ["d1", "d3"], "é": ["d2"]}
    assert (len(given_sets), given_sets.n_pairs) == (3, 3)
    assert repr(given_sets) == "Candidates(3 queries, 3 pairs)"
    run = Run.from_dict({"é": {"d2": -1.0}, "q1": {}, "q2": {"d1": 2.0, "d3": 5.0}})
    qrels = Qrels.from_dict({"q1": {}, "q2": {"d3": 0, "d1": -1}, "é": {"d2": 3}})
    spread = {"q1": set(), "é": ("d2",), "q2": {"d1": 1, "d3": 2}}
    longer = Run.from_dict({"x": {"a": 1.0, "z": 2.0}, **run.to_dict()}).take(np.arange(1, 4))
    for value in (run, qrels, spread, longer, given_sets):
        assert Candidates.of(value) == given_sets
        assert Candidates.of(value).fingerprint == given_sets.fingerprint
        assert hash(Candidates.of(value)) == hash(given_sets)
        assert Candidates.of(value).to_dict() == given_sets.to_dict()
    assert len(Candidates.of({})) == 0


def test_what_the_fingerprint_tells_apart() -> None:
    values: list[Candidates] = [
        Candidates.of({}),
        Candidates.of({"a": []}),
        Candidates.of({"b": []}),
        Candidates.of({"a": ["x"]}),
        Candidates.of({"a": ["x"]}, missing="ignore"),
        Candidates.of({"a": ["x"], "b": []}),
        Candidates.of({"a": [], "b": ["x"]}),
        Candidates.of({"a": ["y"]}),
        Candidates.of({"a": ["x", "y"], "b": ["y"]}),
        Candidates.of({"a": ["x", "y"], "b": ["x"]}),
    ]
    assert len({value.fingerprint for value in values}) == len(set(values)) == len(values)
    for value in values:
        assert canonical(value, "candidates") == {"fingerprint": value.fingerprint}
    lenient = Candidates.of(values[3], missing="ignore")
    assert lenient == values[4]
    assert Candidates.of(lenient).missing == "ignore"
    assert Candidates.of(lenient, missing="error") == values[3]
    assert values[3] != {"a": ["x"]}


def test_candidates_cannot_be_changed() -> None:
    candidates = Candidates.of({"a": ["x"]})
    for array in (candidates.rows, candidates.offsets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (["d1"], "candidates are list; give a mapping"),
        ({"q1": "d1"}, "the candidates of query 'q1' are 'd1' .str., not a list"),
        ({"q1": None}, "the candidates of query 'q1' are None"),
        ({"q1": ["d1", 7]}, "a candidate of query 'q1' is 7 .int., .* write '7'"),
        ({"q1": [["d1"]]}, "a candidate of query 'q1' is"),
        ({"q1": [""]}, "candidate 0 is empty"),
        ({"": ["d1"]}, "query id 0 is empty"),
        ({3: ["d1"]}, "query id 0 is 3"),
    ],
)
def test_what_are_no_candidates(value: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Candidates.of(value)


def test_missing_is_one_of_two_words() -> None:
    wrong: Any = "drop"
    with pytest.raises(DataError, match="'error' or 'ignore', not 'drop'"):
        Candidates.of({}, missing=wrong)


@KINDS
def test_the_stage_keeps_the_laws(kind: str) -> None:
    index = grown(kind, documents(3, 30), ["d5", "d6"])
    names = list(index.ids)
    sets = {q: names[i : 20 - 3 * i] for i, q in enumerate(QUERIES.ids)}
    stage = index.searcher(k=4, where="year >= 1", candidates=sets)
    check_stage(stage, QUERIES)
    assert repr(stage).endswith(
        f"(k=4, where='year >= 1', candidates=Candidates(4 queries, {20 + 16 + 12 + 8} pairs))"
    )
    others = [
        index.searcher(k=4, where="year >= 1"),
        index.searcher(k=4, where="year >= 1", candidates={**sets, "4": names[:1]}),
    ]
    assert stage.fingerprint not in {other.fingerprint for other in others}
    again = index.searcher(k=4, where="year >= 1", candidates=Candidates.of(sets))
    assert (again.fingerprint, again) == (stage.fingerprint, stage)


def test_reranking_the_hits_of_another_index() -> None:
    given_documents = documents(1, 30)
    first = build("bm25", given_documents).searcher(k=10)(QUERIES)
    second = build("cosine", given_documents).searcher(k=10, candidates=first)(QUERIES)
    assert [set(h.doc_ids) for h in second] == [set(h.doc_ids) for h in first]
    assert rk.Candidates is Candidates


def test_only_candidates_are_read(tmp_path: Path) -> None:
    width = 2**20 // 1024  # bytes of a vector of which 1024 fill one checked block
    encoder = ToyEncoder(dim=width // 4)
    index = DenseIndex.build(
        [Document(f"d{i:04}", WORDS[i % 5]) for i in range(2500)], encoder, tmp_path / "x"
    )
    asked = one("cat dog")
    far = {"q0": [f"d{i:04}" for i in range(2100, 2110)]}
    near = {"q0": ["d0000", "d1023"]}
    expected = [index.search(asked, 5, candidates=sets) for sets in (near, far)]
    file = index.segments[0].folder / "vectors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    index = DenseIndex.open(tmp_path / "x", encoder)
    assert index.search(asked, 5, candidates=near) == expected[0]
    with pytest.raises(CorruptIndexError, match="damaged near byte"):
        index.search(asked, 5, candidates=far)


# the command line ---------------------------------------------------------------------------------


def call(*arguments: Any, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, done.output + done.stderr
    return " ".join((done.stdout if code == 0 else done.stderr).split())


def test_run_among_candidates(tmp_path: Path) -> None:
    folder, out = tmp_path / "x.index", tmp_path / "out.run"
    index = build("bm25", FOUR, folder)
    (tmp_path / "q.tsv").write_text("query_id\ttext\nq0\tcat\nq1\tcat fish\n")
    sets = {"q0": ["d0", "d2"], "q1": ["d2", "d1"]}
    run_file, qrels_file = tmp_path / "first.run", tmp_path / "first.qrels"
    Run.from_dict({q: dict.fromkeys(d, 1.0) for q, d in sets.items()}).write(run_file)
    Qrels.from_dict({q: dict.fromkeys(d, 0) for q, d in sets.items()}).write(qrels_file)
    base = ["run", folder, "--queries", tmp_path / "q.tsv", "--overwrite", "-o", out]
    for file in (run_file, qrels_file):
        found = json.loads(call(*base, "--candidates", file, "--json"))
        assert found["hits"] == 4
        assert "candidates=Candidates(2 queries, 4 pairs)" in found["system"]
        assert pairs(Run.read(out)) == pairs(
            index.search(one("cat", "cat fish"), 9, candidates=sets)
        )
    call(*base, "--candidates", run_file, "--where", "n >= 2")
    assert [hits.doc_ids for hits in Run.read(out)] == [["d2"], ["d2"]]
    call(*base, "--where", "n = 3")
    assert [hits.doc_ids for hits in Run.read(out)] == [["d3"], ["d3"]]

    (tmp_path / "part.qrels").write_text("q0 0 d0 1\n")
    says = call(*base, "--candidates", tmp_path / "part.qrels", code=1)
    assert "no candidates are given for query 'q1'" in says
    (tmp_path / "more.qrels").write_text("q0 0 d0 1\nq1 0 x 1\n")
    says = call(*base, "--candidates", tmp_path / "more.qrels", code=1)
    assert "1 of 2 candidates are not in the index: 'x'; --ignore-missing leaves" in says
    call(*base, "--candidates", tmp_path / "more.qrels", "--ignore-missing")
    assert [hits.doc_ids for hits in Run.read(out)] == [["d0"]]
    assert "there is no file" in call(*base, "--candidates", tmp_path / "no.run", code=1)
    expression = ["run", "bm25", "--queries", tmp_path / "q.tsv", "-o", tmp_path / "y"]
    for more in (["--candidates", run_file], ["--where", "n > 1"]):
        assert "need an index folder, and 'bm25' is none" in call(*expression, *more, code=2)
