"""Passages and back: slow Python says the same, ids sort and lead home, the laws of stages hold."""

from __future__ import annotations

import json
import unicodedata
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import retrievekit as rk
from retrievekit.bench.systems import IndexShelf
from retrievekit.cli.app import app
from retrievekit.cli.index import window_of
from retrievekit.config import resolve
from retrievekit.corpus import Corpus, Document
from retrievekit.data.dataset import Dataset
from retrievekit.errors import DataError, ExpressionError, NonFiniteError
from retrievekit.index.bm25 import BM25Index
from retrievekit.passages import Aggregate, aggregate
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.splitting import (
    parent_of,
    passage_ids,
    split_documents,
    windows,
    word_bounds,
)
from retrievekit.testing import check_run, check_stage, toy_corpus

# Words --------------------------------------------------------------------------------------------

UNSPACED = ("CJK ", "HIRAGANA LETTER", "KATAKANA LETTER", "THAI ", "LAO ", "KHMER ", "MYANMAR ")


def slow_words(text: str) -> list[str]:
    """Character by character, by the names that Unicode gives them."""
    found: list[str] = []
    kind = "blank"
    for character in text:
        before = kind
        unspaced = unicodedata.name(character, "").startswith(UNSPACED)
        if character.isspace():
            kind = "blank"
            continue
        if unspaced and unicodedata.category(character)[0] != "M":
            kind = "alone"
        elif unspaced:
            kind = "mark"
        else:
            kind = "letter"
        if kind == "mark":
            joins = before != "blank"
        else:
            joins = kind == before == "letter"
        if joins:
            found[-1] += character
        else:
            found.append(character)
    return found


alphabet = st.sampled_from(
    [*"ab,. \n\t", "\u00a0", "\u3000", "漢", "字", "か", "カ", "é", "😀", *"ที่นี่"]
)


@given(st.text(alphabet, max_size=40))
def test_words_are_those_of_slow_python(text: str) -> None:
    starts, ends = word_bounds(text)
    assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == slow_words(text)


@given(st.text(max_size=40))
def test_words_are_those_of_split_where_blanks_part_them(text: str) -> None:
    plain = "".join(c for c in text if not unicodedata.name(c, "CJK ").startswith(UNSPACED))
    starts, ends = word_bounds(plain)
    found = [plain[a:b] for a, b in zip(starts, ends, strict=True)]
    # Rarer characters of these scripts are cut finer, never joined and never lost.
    assert "".join(found) == "".join(plain.split())
    if plain.isascii():
        assert found == plain.split()


# Windows ------------------------------------------------------------------------------------------


def slow_windows(text: str, words: int, stride: int) -> list[list[str]]:
    listed = slow_words(text)
    found, start = [], 0
    while True:
        found.append(listed[start : start + words])
        if start + words >= len(listed):
            return found
        start += stride


@given(st.text(alphabet, max_size=60), st.integers(1, 7), st.integers(1, 7))
def test_windows_are_those_of_slow_python(text: str, words: int, stride: int) -> None:
    stride = min(words, stride)
    found = windows(text, words, stride)
    assert [slow_words(part) for part in found] == slow_windows(text, words, stride)
    assert all(part in text for part in found)
    if len(found) == 1:
        assert found == [text]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "one", "one two three"])
def test_short_texts_stay_as_they_are(text: str) -> None:
    assert windows(text, 3, 3) == [text]


def test_last_window_may_be_short_and_is_never_repeated() -> None:
    text = " ".join(map(str, range(10)))
    assert windows(text, 4, 2) == ["0 1 2 3", "2 3 4 5", "4 5 6 7", "6 7 8 9"]
    assert windows(text, 4, 4) == ["0 1 2 3", "4 5 6 7", "8 9"]
    assert windows(text, 4, 3) == ["0 1 2 3", "3 4 5 6", "6 7 8 9"]


# Ids ----------------------------------------------------------------------------------------------


@given(st.text(min_size=1), st.sampled_from([1, 2, 11, 9999, 10000, 10001]))
def test_ids_sort_and_lead_home(doc_id: str, count: int) -> None:
    found = passage_ids(doc_id, count)
    assert len(found) == count
    assert found == sorted(found)
    assert {parent_of(found[0]), parent_of(found[-1])} == {doc_id}


@given(st.lists(st.text("#01", min_size=1, max_size=8), unique=True, max_size=8))
def test_ids_of_two_documents_never_meet(doc_ids: list[str]) -> None:
    found = [passage_id for doc_id in doc_ids for passage_id in passage_ids(doc_id, 3)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("wrong", ["", "d", "d#", "#0001", "d#x", "d#1x", "d#" + "1" * 19, "d#²"])
def test_what_is_no_passage_is_refused(wrong: str) -> None:
    with pytest.raises(DataError, match="not the id of a passage"):
        parent_of(wrong)


# Corpora ------------------------------------------------------------------------------------------

LONG = "one two three four five"


def documents() -> list[Document]:
    return [
        Document("a#1", LONG, "Title", {"year": 2020, "tags": ["x", "y"]}),
        Document("empty", "", "Only a title", {"score": 0.5}),
        Document("blank", " \n"),
        Document("a", "six", "", {"year": 1999}),
    ]


def test_passages_of_a_corpus() -> None:
    corpus = Corpus.from_documents(documents())
    found = corpus.passages(words=3, stride=2)
    assert list(found) == [
        Document(
            "a#1#0000",
            "one two three",
            "Title",
            {"year": 2020, "tags": ["x", "y"], "parent_id": "a#1", "passage": 0},
        ),
        Document(
            "a#1#0001",
            "three four five",
            "Title",
            {"year": 2020, "tags": ["x", "y"], "parent_id": "a#1", "passage": 1},
        ),
        Document(
            "empty#0000", "", "Only a title", {"score": 0.5, "parent_id": "empty", "passage": 0}
        ),
        Document("blank#0000", " \n", "", {"parent_id": "blank", "passage": 0}),
        Document("a#0000", "six", "", {"year": 1999, "parent_id": "a", "passage": 0}),
    ]
    for name in corpus.metadata_names:
        assert found.table.schema.field(name).type == corpus.table.schema.field(name).type


def test_titles_may_stand_once() -> None:
    found = Corpus.from_documents(documents()).passages(words=3, stride=2, repeat_title=False)
    assert [d.title for d in found] == ["Title", "", "Only a title", "", ""]


def test_passages_do_not_overlap_unless_asked() -> None:
    found = Corpus.from_texts({"d": LONG}).passages(words=2)
    assert [d.text for d in found] == ["one two", "three four", "five"]


@pytest.mark.parametrize("repeat_title", [True, False])
def test_streams_give_what_corpora_give(repeat_title: bool) -> None:
    corpus = Corpus.from_documents(documents())
    streamed = split_documents(iter(documents()), words=3, stride=2, repeat_title=repeat_title)
    whole = corpus.passages(words=3, stride=2, repeat_title=repeat_title)
    assert list(streamed) == list(whole)


def test_streams_are_read_as_they_come() -> None:
    def endless() -> object:
        number = 0
        while True:
            yield Document(str(number), LONG)
            number += 1

    found = split_documents(endless(), words=4)  # type: ignore[arg-type]
    assert [next(found).doc_id for _ in range(3)] == ["0#0000", "0#0001", "1#0000"]


def test_chunks_do_not_show() -> None:
    corpus = Corpus.from_texts({f"d{n}": " ".join(["w"] * (n % 7)) for n in range(9000)})
    found = corpus.passages(words=2)
    assert len(found) == sum(max(1, -(-(n % 7) // 2)) for n in range(9000))
    assert found["d8999#0001"].text == "w w"


def test_no_documents() -> None:
    found = Corpus.from_texts({}).passages()
    assert len(found) == 0
    assert found.metadata_names == ["parent_id", "passage"]
    assert list(split_documents([])) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"words": 0}, "words is 0"),
        ({"words": 2.5}, "words is 2.5"),
        ({"words": True}, "words is True"),
        ({"stride": 0}, "stride is 0"),
        ({"words": 10, "stride": 11}, "would leave words out"),
    ],
)
def test_wrong_windows_are_refused(settings: dict[str, int], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Corpus.from_texts(["x"]).passages(**settings)
    with pytest.raises(DataError, match=says):
        list(split_documents([], **settings))


def test_passages_of_passages_are_refused() -> None:
    once = Corpus.from_documents(documents()).passages()
    with pytest.raises(DataError, match="'parent_id' and 'passage'"):
        once.passages()
    with pytest.raises(DataError, match="'passage'"):
        list(split_documents([Document("d", "x", "", {"passage": 1})]))


# Aggregating --------------------------------------------------------------------------------------

STAGES = [
    aggregate(),
    aggregate("max", k=2),
    aggregate("first"),
    aggregate("sum"),
    aggregate("sum", 2),
    aggregate("mean", n=2, k=3),
    aggregate("mean"),
]


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Runs of passages of documents whose ids hold separators, with ties and negative scores."""
    pool = [i for doc_id in ("a", "a#1", "a!", "é#", "b#0001") for i in passage_ids(doc_id, 4)]
    values = st.sampled_from([-2.5, -1.0, 0.0, 0.1, 0.7, 1.0, 3.0])
    lists = draw(
        st.lists(
            st.dictionaries(st.sampled_from(pool), values, max_size=20), min_size=3, max_size=6
        )
    )
    return Run.from_dict({f"q{n}": scores for n, scores in enumerate(lists)})


def slow_aggregate(stage: Aggregate, scores: dict[str, float]) -> list[tuple[str, float]]:
    """One query, by dictionaries and exact fractions."""
    of: dict[str, list[tuple[int, float]]] = {}
    for passage_id, score in scores.items():
        parent, _, number = passage_id.rpartition("#")
        of.setdefault(parent, []).append((int(number), float(np.float32(score))))
    found = {}
    for parent, passages in of.items():
        best = sorted((Fraction(score) for _, score in passages), reverse=True)[: stage.n]
        found[parent] = {
            "max": max(best),
            "first": Fraction(min(passages)[1]),
            "sum": sum(best, Fraction(0)),
            "mean": sum(best, Fraction(0)) / len(best),
        }[stage.how]
    ranked = [(parent, float(np.float32(float(score)))) for parent, score in found.items()]
    ranked.sort(key=lambda hit: (hit[1], hit[0].encode()), reverse=True)
    return ranked[: stage.k]


@pytest.mark.parametrize("stage", STAGES, ids=repr)
@given(run=runs())
def test_scores_are_those_of_slow_python(stage: Aggregate, run: Run) -> None:
    found = stage(run)
    check_run(found)
    for query_id, scores in run.to_dict().items():
        hits = [(hit.doc_id, hit.score) for hit in found[query_id]]
        expected = slow_aggregate(stage, scores)
        assert [d for d, _ in hits] == [d for d, _ in expected]
        assert np.allclose([s for _, s in hits], [s for _, s in expected], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stage", STAGES, ids=repr)
@given(run=runs())
def test_the_passage_that_stands_for_a_document_is_told(stage: Aggregate, run: Run) -> None:
    found = stage(run)
    ids = found.docs.strings(found.rows)
    queries = np.repeat(list(found.queries.ids), np.diff(found.offsets))
    for query_id, doc_id, number in zip(queries, ids, found.columns["passage"], strict=True):
        hits = [hit.doc_id for hit in run[query_id] if parent_of(hit.doc_id) == doc_id]
        expected = min(hits) if stage.how == "first" else hits[0]
        assert f"{doc_id}#{number:04d}" == expected


@pytest.fixture(scope="module")
def passages() -> BM25Index:
    return BM25Index.build(toy_corpus().corpus.passages(words=4, stride=2))


@pytest.mark.parametrize("stage", STAGES, ids=repr)
def test_laws(stage: Aggregate, passages: BM25Index) -> None:
    check_stage(stage, passages.searcher(k=30)(toy_corpus().queries))
    check_stage(passages.searcher(k=30) >> stage, toy_corpus().queries)


def test_documents_come_back_from_an_index_of_a_stream() -> None:
    toy = toy_corpus()
    index = BM25Index.build(split_documents(toy.corpus, words=4, stride=2))
    run = (index.searcher(k=100) >> rk.aggregate() >> rk.top(10))(toy.queries)
    assert set(run.docs) <= set(toy.corpus.ids)
    assert float(rk.evaluate(run, toy.qrels, ["R@10"]).mean["R@10"]) > 0.9


@pytest.mark.parametrize("stage", STAGES, ids=repr)
def test_explained_parts_add_up_to_the_score(stage: Aggregate) -> None:
    run = Run.from_dict({"q": {"d#0002": 5.0, "e#0000": 4.0, "d#0000": 3.0, "d#0001": -1.0}})
    for doc_id in ("d", "e"):
        parts = stage.explain_parts(run, doc_id)
        assert sum(parts.values()) == pytest.approx(stage(run).to_dict()["q"][doc_id])
        assert {parent_of(passage_id) for passage_id in parts} == {doc_id}
    first = next(iter(stage.explain_parts(run, "d")))
    assert first == ("d#0000" if stage.how == "first" else "d#0002")
    assert stage.explain_parts(run, "stranger") == {}
    assert stage.explain_parts(Run.empty(run.queries, run.docs), "d") == {}


def test_pipelines_explain_passages(passages: BM25Index) -> None:
    pipe = passages.searcher(k=30) >> aggregate("mean", 2)
    best = pipe.search("why does a cat purr")[0]
    last = pipe.explain("why does a cat purr", best.doc_id)[-1]
    assert last["score"] == pytest.approx(best.score)
    assert all(parent_of(passage_id) == best.doc_id for passage_id in last["parts"])


def test_hits_of_a_large_collection_are_looked_up_alike() -> None:
    ids = [i for n in range(200) for i in passage_ids(f"d{n}", 3)]
    wide = rk.Ids.from_strings(ids)
    run = Run.from_dict({"q": {"d7#0001": 2.0, "d199#0002": 3.0, "d7#0000": 1.0}})
    assert aggregate("sum")(run.with_docs(wide)) == aggregate("sum")(run)


def test_other_separators_and_widths() -> None:
    run = Run.from_dict({"q": {"msmarco_1_7": 2.0, "msmarco_1_10": 1.0, "msmarco_12_0": 0.5}})
    assert aggregate(separator="_")(run).to_dict() == {"q": {"msmarco_1": 2.0, "msmarco_12": 0.5}}
    long = Run.from_dict({"q": {"d/§7": 2.0, "d/§10": 1.0}})
    assert aggregate("first", separator="/§")(long).to_dict() == {"q": {"d": 2.0}}


@pytest.mark.parametrize("doc_id", ["d", "#1", "d#", "d#x", "d#1" + "0" * 18])
def test_runs_of_documents_are_refused(doc_id: str) -> None:
    with pytest.raises(DataError, match="not the id of a passage"):
        aggregate()(Run.from_dict({"q": {"d#0001": 2.0, doc_id: 1.0}}))


def test_sums_beyond_float32_are_refused() -> None:
    run = Run.from_dict({"q": {"d#0000": 3e38, "d#0001": 3e38}})
    with pytest.raises(NonFiniteError, match=r"query 'q', document 'd'"):
        aggregate("sum")(run)
    assert aggregate("mean")(run).to_dict()["q"]["d"] == pytest.approx(3e38)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"how": "best"}, "no aggregation 'best'; known: max, first, sum, mean"),
        ({"how": "max", "n": 2}, "n is for 'sum' and 'mean'"),
        ({"how": "sum", "n": 0}, "n is a whole number"),
        ({"k": 0}, "k is a whole number"),
        ({"k": True}, "k is a whole number"),
        ({"separator": ""}, "without digits"),
        ({"separator": "p1"}, "without digits"),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Aggregate(**arguments)  # type: ignore[arg-type]


def test_its_repr_is_the_call_that_builds_it() -> None:
    assert repr(aggregate()) == "aggregate('max')"
    given = aggregate("mean", 3, k=10, separator="_")
    assert repr(given) == "aggregate('mean', n=3, k=10, separator='_')"
    assert given == Aggregate("mean", 3, 10, "_")


def test_queries_without_hits_stay() -> None:
    queries = Queries.from_texts(["x", "y"])
    found = aggregate()(Run.empty(queries, rk.Ids.from_strings(["d#0001"])))
    assert (len(found), found.n_hits) == (2, 0)


# Expressions and the command line -----------------------------------------------------------------


def test_expressions_bring_passages_back(tmp_path: Path) -> None:
    Dataset("toy", *toy_corpus()).write(tmp_path / "toy")
    place = tmp_path / "p.index"
    arguments = ["index", str(tmp_path / "toy"), "-o", str(place), "--passages", "4/2", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["documents"], told["passages"]) == (100, len(BM25Index.open(place)))
    assert told["passages"] > 200

    expression = f'index("{place}") >> aggregate("mean", n=2, k=5)'
    stage = resolve(expression, IndexShelf(None))
    queries = toy_corpus().queries
    expected = BM25Index.open(place).searcher(k=1000) >> aggregate("mean", 2, k=5)
    assert stage(queries) == expected(queries)
    with pytest.raises(ExpressionError, match="known: max, first, sum, mean"):
        resolve(f'index("{place}") >> aggregate("best")', IndexShelf(None))


@pytest.mark.parametrize("wrong", ["x", "10/", "0", "10/11", "10/0", "-3", "1/2/3"])
def test_wrong_passages_on_the_command_line(wrong: str) -> None:
    done = CliRunner().invoke(app, ["index", "stdlib", "-o", "x", f"--passages={wrong}"])
    assert done.exit_code == 2
    assert "--passages" in done.stderr


def test_passages_without_stride_do_not_overlap() -> None:
    assert window_of("100") == (100, 100)
    assert window_of("150/75") == (150, 75)
