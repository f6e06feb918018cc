"""The doctor: a sound collection passes, each planted fault is found once, with what to do."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from retrievekit import registry
from retrievekit.cli.app import app
from retrievekit.cli.check import _probe_lines, duration
from retrievekit.corpus import Corpus, Document
from retrievekit.cuts import report_cuts
from retrievekit.data.dataset import Dataset
from retrievekit.doctor.documents import Survey
from retrievekit.doctor.encoders import probe
from retrievekit.doctor.examine import Collection, collection_of, examine
from retrievekit.doctor.report import Finding, Report, shown
from retrievekit.errors import DataError, MissingDataError, NonFiniteError, UnknownNameError
from retrievekit.index.sparse import SparseIndex
from retrievekit.protocols import EncoderCard
from retrievekit.testing import ToyEncoder, toy_corpus
from retrievekit.testing.sparse import ToySparseEncoder

TOY = toy_corpus()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The toy collection as a BEIR folder."""
    Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture(autouse=True)
def surroundings() -> Iterator[None]:
    registry.register("encoder", "toy", "retrievekit.testing:ToyEncoder")
    yield
    del registry._ENTRIES["encoder"]["toy"]
    log = logging.getLogger("retrievekit")
    log.handlers, log.propagate = [], True


def checked(source: Path, *more: Any, **settings: Any) -> Report:
    return examine(collection_of(source, *more), **settings)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def write(folder: Path, name: str, *lines: str | dict[str, Any], add: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    plain = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    with path.open("a" if add else "w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in plain)
    return path


# A sound collection -------------------------------------------------------------------------------


def test_a_sound_collection_passes(folder: Path) -> None:
    report = checked(folder, encoder=ToyEncoder(), sample=40)
    assert report.findings == ()
    assert report.ok
    facts = report.facts
    assert (facts["documents"], facts["queries"]) == (len(TOY.corpus), len(TOY.queries))
    assert facts["judgements"] == TOY.qrels.n_judgements
    lengths = sorted(len(text.split()) for text in TOY.corpus.contents())
    assert facts["words_per_document"]["longest"] == lengths[-1]
    assert facts["words_per_document"]["median"] == lengths[(len(lengths) - 1) // 2]
    assert facts["text_bytes"] == sum(len(text.encode()) for text in TOY.corpus.contents())
    assert facts["probe"]["probed"] == 40
    assert facts["probe"]["vector_bytes"] == len(TOY.corpus) * 256 * 4
    rate = facts["probe"]["texts_per_second"]
    assert facts["probe"]["seconds"] == pytest.approx(len(TOY.corpus) / rate, abs=0.1)


def test_nothing_is_written(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    checked(folder, encoder=ToyEncoder())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# Faults in files ----------------------------------------------------------------------------------

DOCUMENT = {"_id": "new", "text": "a text of its own"}
QUERY = {"_id": "new", "text": "a question of its own"}

FAULTS: list[tuple[str, str, str, list[str | dict[str, Any]], int]] = [
    # file, code, severity, lines added, count
    ("corpus.jsonl", "duplicate-id", "error", [{**DOCUMENT, "_id": "cats-1"}], 1),
    ("corpus.jsonl", "duplicate-id", "error", [DOCUMENT, {**DOCUMENT, "year": 3}], 1),
    ("corpus.jsonl", "duplicate-id", "error", [DOCUMENT, {**DOCUMENT, "title": "T"}], 1),
    ("corpus.jsonl", "repeated-document", "note", [DOCUMENT, DOCUMENT, DOCUMENT], 2),
    ("corpus.jsonl", "duplicate-text", "note", [DOCUMENT, {**DOCUMENT, "_id": "x"}], 1),
    ("corpus.jsonl", "empty-text", "warning", [{**DOCUMENT, "text": " \n"}], 1),
    ("corpus.jsonl", "long-text", "note", [{**DOCUMENT, "text": "word " * 2001}], 1),
    ("corpus.jsonl", "control-character", "warning", [{**DOCUMENT, "text": "a\x02b"}], 1),
    ("corpus.jsonl", "control-character", "warning", [{**DOCUMENT, "text": "it\x92s"}], 1),
    ("corpus.jsonl", "replacement-character", "warning", [{**DOCUMENT, "text": "a\ufffdb"}], 1),
    ("corpus.jsonl", "id-with-blank", "warning", [{**DOCUMENT, "_id": "a b"}], 1),
    ("corpus.jsonl", "metadata-types", "error", [{**DOCUMENT, "year": "2020"}], 1),
    ("corpus.jsonl", "number-document-ids", "error", [{**DOCUMENT, "_id": 7}], 1),
    ("corpus.jsonl", "unreadable", "error", ['{"_id": "a", "te'], 1),
    ("corpus.jsonl", "unreadable", "error", [{"_id": "a"}], 1),
    ("corpus.jsonl", "shared-id", "note", [{**DOCUMENT, "_id": "q1"}], 1),
    ("queries.jsonl", "duplicate-query-id", "error", [{**QUERY, "_id": "q1"}], 1),
    ("queries.jsonl", "unreadable", "error", ["[]"], 1),
    ("queries.jsonl", "query-without-judgements", "note", [QUERY], 1),
    ("qrels/test.tsv", "unreadable", "error", ["q1\tcats-2\tx"], 1),
    ("qrels/test.tsv", "judged-document-missing", "warning", ["q1\tstranger\t1"], 1),
    ("qrels/test.tsv", "judged-query-missing", "warning", ["stranger\tcats-1\t1"], 1),
    (
        "qrels/test.tsv",
        "judged-document-missing",
        "error",
        [f"q1\tstranger{n}\t1" for n in range(9)],
        9,
    ),
]


@pytest.mark.parametrize(("file", "code", "severity", "lines", "count"), FAULTS)
def test_a_planted_fault_is_found(
    folder: Path, file: str, code: str, severity: str, lines: list[str | dict[str, Any]], count: int
) -> None:
    write(folder, file, *lines, add=True)
    report = checked(folder)
    (found,) = report.findings
    assert (found.code, found.severity, found.count) == (code, severity, count)
    assert f"{count:,} " in found.what or code == "unreadable"
    assert found.advice
    assert report.ok == (severity != "error")


def test_faults_of_queries_in_the_split(folder: Path) -> None:
    texts = dict(zip(TOY.queries.ids, TOY.queries.texts, strict=True))
    texts |= {"q2": " ", "q3": "the of", "q4": "bad \x07 bell"}
    write(folder, "queries.jsonl", *({"_id": i, "text": t} for i, t in texts.items()))
    write(folder, "queries.jsonl", {"_id": "q1", "text": texts["q1"]}, add=True)
    found = {finding.code: finding.examples for finding in checked(folder).findings}
    assert found == {
        "empty-query": ("q2",),
        "query-without-terms": ("q3 (the of)",),
        "query-characters": ("q4",),
        "repeated-query": ("q1",),
    }


def test_numbers_as_query_ids(folder: Path) -> None:
    write(folder, "queries.jsonl", {**QUERY, "_id": 7}, add=True)
    write(folder, "qrels/test.tsv", "7\tcats-1\t1", add=True)
    (found,) = checked(folder).findings
    assert (found.code, found.severity, found.count) == ("number-query-ids", "error", 1)


def test_many_duplicate_texts_are_a_warning(folder: Path) -> None:
    same = [{**DOCUMENT, "_id": f"same{n}"} for n in range(4)]
    write(folder, "corpus.jsonl", *same, add=True)
    (found,) = checked(folder).findings
    assert (found.code, found.severity, found.count) == ("duplicate-text", "warning", 3)
    assert found.examples == ("same0 = same1", "same0 = same2", "same0 = same3")


def test_judged_but_nothing_relevant(folder: Path) -> None:
    write(folder, "queries.jsonl", QUERY, add=True)
    write(folder, "qrels/test.tsv", "new\tcats-1\t0", add=True)
    (found,) = checked(folder).findings
    assert (found.code, found.examples) == ("nothing-relevant", ("new",))


@pytest.mark.parametrize(
    "raw",
    [b'{"_id": "x", "text": "caf\xe9"}\n', b'{"_id": "x", "text": "a\\u0000b"}\n'],
)
def test_characters_that_are_not_valid(folder: Path, raw: bytes) -> None:
    with (folder / "corpus.jsonl").open("ab") as out:
        out.write(raw)
    found = checked(folder).findings
    assert [f.code for f in found] == ["invalid-document-characters", "replacement-character"]
    assert found[0].severity == "error"
    assert "--errors replace" in found[0].advice


def test_byte_order_marks(folder: Path) -> None:
    path = folder / "queries.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert codes(checked(folder)) == ["byte-order-mark-query"]


def test_what_was_read_before_a_fault_is_still_looked_at(folder: Path) -> None:
    write(folder, "corpus.jsonl", {**DOCUMENT, "text": ""}, "{", add=True)
    report = checked(folder)
    assert codes(report) == ["unreadable", "empty-text"]
    assert f"after {len(TOY.corpus) + 1:,} documents" in report.findings[0].advice
    assert ":102:" in report.findings[0].what


def test_many_faults_keep_five_examples(folder: Path) -> None:
    write(folder, "corpus.jsonl", *({"_id": f"e{n}", "text": ""} for n in range(50)), add=True)
    (found,) = checked(folder).findings
    assert found.count == 50
    assert found.examples == ("e0", "e1", "e2", "e3", "e4")


# Queries that are documents -----------------------------------------------------------------------


def echo(folder: Path, query_id: str, doc_id: str) -> None:
    write(folder, "corpus.jsonl", {"_id": doc_id, "text": "the very words"}, add=True)
    write(folder, "queries.jsonl", {"_id": query_id, "text": " the very words"}, add=True)
    write(folder, "qrels/test.tsv", f"{query_id}\tcats-1\t1", add=True)


@pytest.mark.parametrize(
    ("query_id", "doc_id", "code", "advice"),
    [
        ("self", "self", "self-retrieval", "own_document: equal"),
        ("12_method", "12", "self-retrieval", "own_document: before-underscore"),
        ("some", "other", "query-is-document", "must not be in the corpus"),
    ],
)
def test_a_query_with_a_document_s_words(
    folder: Path, query_id: str, doc_id: str, code: str, advice: str
) -> None:
    echo(folder, query_id, doc_id)
    (found,) = checked(folder).findings
    assert (found.code, found.severity, found.count) == (code, "warning", 1)
    assert advice in found.advice


@pytest.mark.parametrize(("query_id", "rule"), [("self", "equal"), ("self_x", "before-underscore")])
def test_a_rule_settles_it(folder: Path, query_id: str, rule: str) -> None:
    echo(folder, query_id, "self")
    write(folder, "dataset.yaml", f"own_document: {rule}")
    (found,) = checked(folder).findings
    assert (found.code, found.severity, found.examples) == ("own-document", "note", (query_id,))


def test_titles_count_as_words_too(folder: Path) -> None:
    write(folder, "queries.jsonl", {"_id": "new", "text": "Purring"}, add=True)
    write(folder, "qrels/test.tsv", "new\tcats-1\t1", add=True)
    (found,) = checked(folder).findings
    assert found.examples == ("new = cats-1",)


def test_counts_that_are_known(folder: Path) -> None:
    write(folder, "dataset.yaml", "documents: 99", "splits: {test: {queries: 20, judgements: 1}}")
    report = checked(folder)
    assert codes(report) == ["unexpected-count"] * 2
    assert report.findings[0].what.startswith("100 documents, but 99 are known")


# Repeats against slow Python ----------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "x", "y", "z"]))))
def test_repeats_are_those_of_slow_python(pairs: list[tuple[str, str]]) -> None:
    survey = Survey()
    for doc_id, text in pairs:
        survey.add(Document(doc_id, text))
    found = {finding.code: finding.count for finding in survey.findings()}
    first: dict[str, str] = {}
    expected: Counter[str] = Counter()
    for doc_id, text in pairs:
        if doc_id not in first:
            first[doc_id] = text
        else:
            same = first[doc_id] == text
            expected["repeated-document" if same else "duplicate-id"] += 1
    texts = Counter(text for text in first.values() if text)
    expected["duplicate-text"] = sum(n - 1 for n in texts.values())
    expected["empty-text"] = sum(not text for _, text in pairs)
    assert found == {code: n for code, n in expected.items() if n}


def test_samples_are_fair_and_the_same_each_time() -> None:
    def drawn() -> list[str]:
        survey = Survey(sample=100)
        for number in range(1000):
            survey.add(Document(str(number), "x"))
        return [document.doc_id for document in survey.sample]

    sample = drawn()
    assert len(set(sample)) == 100
    assert sample == drawn()
    # Of a thousand drawn evenly, the mean place lies within four deviations of the middle.
    assert abs(np.mean([int(i) for i in sample]) - 499.5) < 4 * 288.7 / 10


# Encoders -----------------------------------------------------------------------------------------


class Changed(ToyEncoder):
    """A toy whose vectors a function changes."""

    def __init__(self, change: Callable[[Any], Any], similarity: Any = "cosine") -> None:
        super().__init__(similarity=similarity)
        self._change = change

    def encode_document(self, texts: Sequence[str]) -> Any:
        return self._change(super().encode_document(texts))


def fares(encoder: Any, texts: list[str] | None = None) -> list[Finding]:
    words = TOY.corpus.contents() if texts is None else texts
    sample = [Document(f"d{n}", text) for n, text in enumerate(words)]
    return probe(encoder, sample, ["a query"], len(sample), 1000)[1]


def nan_in_row_two(vectors: Any) -> Any:
    if len(vectors) == 24:
        vectors[2, 5] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("encoder", "code", "severity"),
    [
        (Changed(nan_in_row_two), "non-finite-vector", "error"),
        (Changed(lambda v: v * 2), "not-unit-length", "note"),
        (Changed(lambda v: v * 2, "dot"), "not-unit-length", "note"),
        (Changed(lambda v: 1 + 1e-3 * v), "vectors-alike", "warning"),
    ],
)
def test_odd_vectors_are_found(encoder: Any, code: str, severity: str) -> None:
    found = {finding.code: finding for finding in fares(encoder)}
    assert found[code].severity == severity
    if code == "non-finite-vector":
        assert found[code].examples == ("d2",)


def test_lengths_do_not_matter_under_euclidean() -> None:
    assert fares(Changed(lambda v: v * 2, "euclidean")) == []


def test_vectors_of_length_0() -> None:
    (found,) = fares(ToyEncoder(), ["words", "", "others here", "!", "more of them"])
    assert (found.code, found.examples) == ("zero-vector", ("d1", "d3"))


class Cutting(ToyEncoder):
    """A toy that reads three words."""

    def encode_document(self, texts: Sequence[str]) -> Any:
        cut = sum(len(text.split()) > 3 for text in texts)
        report_cuts("cutting", "document", 3, cut, len(texts))
        return super().encode_document(texts)

    def encode_query(self, texts: Sequence[str]) -> Any:
        report_cuts("cutting", "query", 3, len(texts), len(texts))
        return super().encode_query(texts)


class Spotty(ToySparseEncoder):
    """A sparse toy that makes nothing of some texts, reads three words, or meets infinity."""

    def encode_document(self, texts: Sequence[str]) -> Any:
        if len(texts) == 24 and "inf" in texts:
            raise NonFiniteError("infinity", texts.index("inf"))
        report_cuts("spotty", "document", 3, sum(len(t.split()) > 3 for t in texts), len(texts))
        return super().encode_document(texts)


def test_learned_sparse_encoders_are_tried_too() -> None:
    texts = ["a b c d"] * 10 + ["a b", ""] * 15
    sample = [Document(f"d{n}", text) for n, text in enumerate(texts)]
    facts, found = probe(Spotty(), sample, ["cat dog", "", "bird"], 1000, 5)
    by_code = {finding.code: finding for finding in found}
    assert set(by_code) == {"truncated-document", "no-weights", "query-without-weights"}
    assert by_code["truncated-document"].what.startswith("25% of a sample of 40 documents")
    assert (by_code["no-weights"].count, by_code["no-weights"].examples[0]) == (15, "d11")
    assert by_code["query-without-weights"].count == 1
    weights = (10 * 4 + 15 * 2) / 40
    assert facts["weights_per_text"] == round(weights, 1)
    assert facts["weights_per_query"] == 1.0
    assert facts["vector_bytes"] == round(12 * weights * 1000)
    assert facts["texts_per_second"] > 0
    assert "dim" not in facts
    lines = _probe_lines(facts)
    assert "2 weights a document, 1 a query, dot" in lines[0]
    assert "of postings" in lines[1]


def test_infinity_in_term_weights_names_its_document() -> None:
    sample = [Document(f"d{n}", "inf" if n == 9 else "cat") for n in range(30)]
    facts, (found,) = probe(Spotty(), sample, [], 30, 5)
    assert (facts, found.code) == ({}, "non-finite-vector")
    assert found.what == "document 'd9': infinity"


def test_the_bytes_expected_are_those_of_an_index() -> None:
    words = np.random.default_rng(0).choice([f"w{i}" for i in range(500)], (2000, 40))
    corpus = Corpus.from_texts([" ".join(row) for row in words])
    encoder = ToySparseEncoder(2048)
    sample = list(corpus)[:256]
    facts, _ = probe(encoder, sample, [], len(corpus), 0)
    index = SparseIndex.build(corpus, encoder, store_text=False)
    assert 0.8 < facts["vector_bytes"] / index.n_bytes < 1.1


def test_more_weights_than_any_sparse_model_gives_are_told() -> None:
    words = " ".join(f"w{n}" for n in range(3000))
    sample = [Document(f"d{n}", words) for n in range(3)]
    _, (found,) = probe(ToySparseEncoder(1 << 16), sample, [], 3, 5)
    assert (found.code, found.severity) == ("many-weights", "warning")


def test_what_is_cut_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    documents, queries = fares(Cutting(), ["a b c d"] * 10 + ["a b c", "e f"] * 15)
    assert (documents.code, documents.count, documents.severity) == (
        "truncated-document",
        10,
        "warning",
    )
    assert documents.what.startswith("25% of a sample of 40 documents longer than the 3 tokens")
    assert (queries.code, queries.count) == ("truncated-query", 1)
    assert not caplog.records


class Known(ToyEncoder):
    """A toy that says it is a model of the table."""

    def __init__(self, model: str, prompts: dict[str, str]) -> None:
        super().__init__()
        self._model, self._prompts = model, prompts

    @property
    def card(self) -> EncoderCard:
        return EncoderCard(self._model, {"model": self._model, "prompts": self._prompts})


@pytest.mark.parametrize(
    ("prompts", "missing"),
    [
        ({"query": "query: ", "document": "passage: "}, []),
        ({"query": "", "document": "passage: "}, ["'query: '"]),
        ({}, ["'query: '", "'passage: '"]),
    ],
)
def test_prompts_of_a_known_family(prompts: dict[str, str], missing: list[str]) -> None:
    found = fares(Known("intfloat/e5-base-v2", prompts))
    assert [f.examples for f in found] == [(prompt,) for prompt in missing]
    assert {f.code for f in found} <= {"missing-prompt"}
    assert all(prompt in f.advice for prompt, f in zip(missing, found, strict=True))


def test_unknown_models_need_no_prompt() -> None:
    assert fares(Known("nobody/knows-it", {})) == []


class Talking(ToyEncoder):
    def encode_document(self, texts: Sequence[str]) -> Any:
        logging.getLogger("retrievekit.encode").warning("no table knows me")
        return super().encode_document(texts)


def test_warnings_of_an_encoder_are_findings() -> None:
    (found,) = fares(Talking())
    assert (found.code, found.what) == ("encoder-warning", "no table knows me")


class Failing(ToyEncoder):
    def encode_document(self, texts: Sequence[str]) -> Any:
        raise MissingDataError("the model is not there")


def test_an_encoder_that_fails_does_not_hide_the_rest(folder: Path) -> None:
    write(folder, "corpus.jsonl", {**DOCUMENT, "text": ""}, add=True)
    report = checked(folder, encoder=Failing())
    assert codes(report) == ["encoder-fails", "empty-text"]
    assert "the model is not there" in report.findings[0].what
    assert report.facts["probe"] == {}


class Breaking(ToyEncoder):
    def encode_document(self, texts: Sequence[str]) -> Any:
        raise RuntimeError("out of memory")


def test_errors_of_others_are_findings_too() -> None:
    (found,) = fares(Breaking())
    assert (found.code, found.severity) == ("encoder-fails", "error")
    assert found.what.endswith("does not work: RuntimeError: out of memory")


# Sources and emptiness ----------------------------------------------------------------------------


def test_files_by_themselves(tmp_path: Path) -> None:
    corpus = write(tmp_path, "docs.tsv", "a\tone text", "b\tanother text")
    queries = write(tmp_path, "q.tsv", "1\tone", "2\tother")
    qrels = write(tmp_path, "j.qrels", "1 0 a 1", "2 0 b 1")
    assert checked(corpus).findings == ()
    report = checked(corpus, queries, qrels)
    assert report.findings == ()
    assert (report.facts["queries"], report.facts["judgements"]) == (2, 2)
    # Judgements without queries: nothing is said of what is not known.
    assert checked(corpus, None, qrels).findings == ()


def test_folders_of_texts(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "some words")
    write(tmp_path, "b.pdf", "no words")
    (found,) = checked(tmp_path).findings
    assert (found.code, found.severity, found.count) == ("files-left-out", "note", 1)


def test_data_sets_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVEKIT_DATA", str(folder.parent))
    folder.rename(folder.parent / "scifact")
    report = checked("beir/scifact")  # type: ignore[arg-type]
    assert report.source == "beir/scifact/test"
    assert codes(report) == ["unexpected-count"] * 3


def test_the_only_split_is_taken(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    report = checked(folder)
    assert report.facts["judgements"] == TOY.qrels.n_judgements
    assert report.source.endswith("(dev)")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(("nowhere",), UnknownNameError), (("stdlib", "no.tsv"), MissingDataError)],
)
def test_what_is_not_there(arguments: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        collection_of(*arguments)


def test_no_documents_no_queries_no_judgements(tmp_path: Path) -> None:
    nothing = write(tmp_path, "nothing.jsonl")
    report = checked(nothing, nothing, encoder=ToyEncoder())
    assert codes(report) == ["no-documents"]
    assert not report.ok
    assert examine(Collection("x", [])).facts["words_per_document"] == {}


def test_samples_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        examine(Collection("x", []), sample=0)


def test_long_examples_are_cut() -> None:
    assert shown(["x" * 61, "y" * 60]) == ("x" * 57 + "...", "y" * 60)


# The verb -----------------------------------------------------------------------------------------


def call(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "120"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_verb_on_a_sound_collection(folder: Path) -> None:
    code, out, err = call(folder, "--encoder", "toy")
    assert code == 0
    assert err == ""
    assert "100 documents, 20 queries" in out
    assert "toy: 256 components, cosine, float32, numpy" in out
    assert "documents a second (a probe of 100 here and now), 100 KiB of vectors" in out
    assert out.endswith("nothing to complain of\n")


def test_the_verb_tells_of_faults(folder: Path) -> None:
    write(folder, "corpus.jsonl", {"_id": "cats-1", "text": "[bold]new[/bold]"}, add=True)
    write(folder, "corpus.jsonl", {"_id": "\x1b[31m", "text": ""}, add=True)
    code, out, _ = call(folder)
    assert code == 1
    words = " ".join(out.replace("│", " ").split())
    assert "error 1 document with the id of another one" in words
    assert "\x1b" not in out
    assert out.endswith("1 error, 1 warning\n")


def test_the_verb_as_json(folder: Path) -> None:
    write(folder, "corpus.jsonl", {"_id": "e", "text": ""}, add=True)
    code, out, _ = call(folder, "--json")
    assert code == 0
    plain = json.loads(out)
    assert (plain["ok"], plain["errors"], plain["warnings"], plain["notes"]) == (True, 0, 1, 0)
    assert plain["facts"]["documents"] == 101
    assert plain["findings"][0] == {
        "code": "empty-text",
        "severity": "warning",
        "what": "1 document without any words",
        "count": 1,
        "examples": ["e"],
        "advice": plain["findings"][0]["advice"],
    }


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (None, "dot, float32"),
        (1024, "dot, reads 1,024 tokens, float32"),
        (
            {"query": 64, "document": 512},
            "dot, reads 64 tokens of a query and 512 tokens of a document, float32",
        ),
        ({"query": None, "document": 512}, "dot, reads 512 tokens of a document, float32"),
        ({"query": None, "document": None}, "dot, float32"),
    ],
)
def test_lengths_in_words(limit: Any, said: str) -> None:
    facts = {
        "encoder": "m", "dim": 8, "similarity": "dot", "max_length": limit, "seconds": 1.0,
        "texts_per_second": 2.0, "probed": 3, "vector_bytes": 4, "text_bytes": 5,
        "numerics": {"dtype": "float32", "revision": None},
    }  # fmt: skip
    assert _probe_lines(facts)[0] == f"m: 8 components, {said}"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["/no/such/place"], 1, "no such file or folder"),
        (["stdlib", "--qrels", "no.tsv"], 1, "no such file: no.tsv"),
        (["stdlib", "--sample", "0"], 2, "Invalid value for '--sample'"),
        ([], 2, "Missing argument"),
        (["stdlib", "--encoder", "a", "--sparse", "b"], 2, "either --encoder or --sparse"),
        (["stdlib", "--encoder", "minilmm"], 1, "did you mean 'minilm'"),
    ],
)
def test_wrong_calls(arguments: list[str], code: int, says: str) -> None:
    found, out, err = call(*arguments)
    assert (found, out) == (code, "")
    assert says in err


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "under 1 s"),
        (8.4, "8 s"),
        (89, "89 s"),
        (90, "2 min"),
        (720, "12 min"),
        (12000, "3 h 20 min"),
        (200 * 3600, "8 days 8 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_verb_helps_with_examples() -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert "  retrievekit check beir/scifact --encoder minilm" in out.split("Examples:\n")[1]
    assert "\n  check " in CliRunner().invoke(app, ["--help"]).stdout
