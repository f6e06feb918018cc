"""Readers of documents and queries: every format, every kind of bad input, nothing lost quietly."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.corpus import Corpus, Document
from retrievekit.data import columns
from retrievekit.data.beir import write_corpus, write_queries
from retrievekit.data.records import (
    ReadOptions,
    iter_documents,
    read_corpus,
    read_corpus_report,
    read_queries,
    read_queries_report,
)
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    LimitError,
    MissingDataError,
    ParseError,
)
from retrievekit.queries import Queries


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["in memory", "mapped"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with the corpus in memory and with it converted and mapped."""
    if request.param == "mapped":
        monkeypatch.setattr(columns, "MAPPED_FROM", 0)
    monkeypatch.setattr(columns, "BATCH_ROWS", 3)


both_ways = pytest.mark.usefixtures("_both_ways")


def jsonl(path: Path, *records: Any) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def doc(doc_id: str, text: str = "words", **more: Any) -> dict[str, Any]:
    return {"_id": doc_id, "text": text, **more}


# --- formats: one small collection in each, all equal ------------------------------------------

CATS = [
    Document("d1", "cats purr", "Cats", {"year": 2001, "tags": ["pet", "fur"]}),
    Document("d2", 'dogs, "good" ones\nbark', "", {"year": 1999}),
    Document("d 3", "", "", {}),
]


def written(folder: Path, kind: str) -> Path:
    path = folder / f"corpus.{kind}"
    rows = [
        {"_id": d.doc_id, "title": d.title, "text": d.text, "year": d.metadata.get("year")}
        for d in CATS
    ]
    if kind == "jsonl":
        write_corpus(CATS, path)
    elif kind == "jsonl.gz":
        write_corpus(CATS, path)
        assert path.read_bytes()[:2] == b"\x1f\x8b"
    elif kind == "parquet":
        tags = [d.metadata.get("tags") for d in CATS]
        table = pa.table({key: [row[key] for row in rows] for key in rows[0]} | {"tags": tags})
        pq.write_table(table, path)
    elif kind == "csv":
        quoted = [d.text.replace('"', '""') for d in CATS]
        cells = [f'{d.doc_id},{d.title},"{q}"' for d, q in zip(CATS, quoted, strict=True)]
        path.write_text("\r\n".join(["_id,title,text", *cells]) + "\r\n", "utf-8", newline="")
    return path


@both_ways
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_typed_formats_agree(tmp_path: Path, kind: str) -> None:
    corpus = read_corpus(written(tmp_path, kind))
    expected = Corpus.from_documents(CATS)
    assert list(corpus) == CATS
    assert corpus.content_hash == expected.content_hash
    assert set(corpus.table.schema) == set(expected.table.schema)


@both_ways
def test_csv_follows_rfc_4180(tmp_path: Path) -> None:
    found = list(read_corpus(written(tmp_path, "csv")))
    assert [(d.doc_id, d.title, d.text) for d in found] == [
        (d.doc_id, d.title, d.text) for d in CATS
    ]


def test_tsv_with_ragged_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("docno\tcontents\tyear\nd1\tx\n", "utf-8")
    with pytest.raises(ParseError, match=r"c\.tsv:2: 2 columns, but 3 expected"):
        read_corpus(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('d1\ta "b" c\nd2\t\n', [("d1", "", 'a "b" c'), ("d2", "", "")]),
        ("d1\tT\tx\n", [("d1", "T", "x")]),
        ("text\tid\nx\td1\r\n", [("d1", "", "x")]),
        ("d1\tx\u2028y\x0bz\n", [("d1", "", "x\u2028y\x0bz")]),
        (" d1 \tx", [(" d1 ", "", "x")]),
        ("", []),
        ("id\ttext\n", []),
        ("\n\nd1\tx\n\n", [("d1", "", "x")]),
    ],
)
def test_tsv(tmp_path: Path, text: str, expected: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "c.tsv"
    path.write_bytes(text.encode())
    assert [(d.doc_id, d.title, d.text) for d in read_corpus(path)] == expected


def test_header_can_be_denied_and_demanded(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("id\ttext\n", "utf-8")
    assert list(read_corpus(path, header=False)) == [Document("id", "text")]
    path.write_text("id\tbody\nd1\tx\n", "utf-8")
    with pytest.raises(ParseError, match=r"c\.tsv:2: no text: none of text, contents is there"):
        read_corpus(path, header=True)


def test_columns_beyond_id_and_text_become_metadata(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("docno,contents,year\nd1,x,007\n", "utf-8")
    assert list(read_corpus(path)) == [Document("d1", "x", "", {"year": "007"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('d1,"open\nstill open\n', r"c\.csv:1: the quoted field that begins here never ends"),
        ('d1,x\nd2,"a"b\n', r"c\.csv:2: text after the closing quote of column 2"),
        ('d1,a"b"\n', r"c\.csv:1: a quote inside column 2"),
        ("d1,x,y,z\n", r"c\.csv:1: 4 columns and no header"),
        ("id,id,text\n", r"c\.csv:1: the header names \['id'\] more than once"),
        ('d1,"two\nlines"\nd2\n', r"c\.csv:3: 1 columns, but 2 expected"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(ParseError, match=message):
        read_corpus(path)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_csv_reads_what_the_csv_module_writes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "c.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["_id", "title", "text"])
        writer.writerows([f"d{n}", *row] for n, row in enumerate(rows))
    assert [(d.title, d.text) for d in read_corpus(path)] == rows


@both_ways
def test_folder_of_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "b.txt": "second",
        "a/z.md": "# head\r\ntext",
        "a/é.MARKDOWN": "",
        ".hidden/x.txt": "no",
        ".x.txt": "no",
        "p.pdf": "no",
    }
    for name, text in files.items():
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_bytes(text.encode())
    with caplog.at_level(logging.INFO):
        corpus = read_corpus(tmp_path / "docs")
    assert list(corpus) == [
        Document("a/z.md", "# head\r\ntext"),
        Document("a/é.MARKDOWN", ""),
        Document("b.txt", "second"),
    ]
    levels = {record.levelname: record.getMessage() for record in caplog.records[-2:]}
    assert "1 empty, kept" in levels["INFO"]
    assert "1 files left out that are neither .txt nor .md" in levels["WARNING"]


def test_folder_without_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither a corpus"):
        read_corpus(tmp_path)
    (tmp_path / "long.txt").write_text("x" * 11)
    with pytest.raises(LimitError, match=r"long\.txt: more than 10 bytes"):
        read_corpus(tmp_path, max_line_bytes=10)
    (tmp_path / "long.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ParseError, match=r"long\.txt: byte 0xe9 at position 4 is not UTF-8"):
        read_corpus(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_file_name_that_is_no_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    with pytest.raises(DataError, match="not valid UTF-8; rename it"):
        read_corpus(tmp_path)


# --- ids and fields ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["_id", "id", "docid", "doc_id", "docno"])
@pytest.mark.parametrize("text", ["text", "contents"])
def test_aliases(tmp_path: Path, key: str, text: str) -> None:
    path = jsonl(tmp_path / "c.jsonl", {key: "007", text: "x"})
    assert list(read_corpus(path)) == [Document("007", "x")]


def test_first_alias_wins_and_the_other_is_kept(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", {"id": 5, "_id": "a", "contents": "c", "text": "t"})
    assert list(read_corpus(path)) == [Document("a", "t", "", {"id": 5, "contents": "c"})]


@pytest.mark.parametrize("key", ["_id", "id", "qid", "query_id", "query-id"])
@pytest.mark.parametrize("text", ["text", "query", "question"])
def test_query_aliases(tmp_path: Path, key: str, text: str) -> None:
    queries = read_queries(jsonl(tmp_path / "q.jsonl", {key: "1", text: "what?"}))
    assert queries == Queries.from_texts({"1": "what?"})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"_id": 12, "text": "x"}, r":2: the id '_id' is 12 \(int\), but ids are strings"),
        ({"_id": 1.5, "text": "x"}, r":2: the id '_id' is 1.5 \(float\)"),
        ({"_id": True, "text": "x"}, r":2: the id '_id' is True \(bool\)"),
        ({"_id": None, "text": "x"}, r":2: the id '_id' is None"),
        ({"_id": "", "text": "x"}, r":2: the id '_id' is empty"),
        ({"_id": "a\0b", "text": "x"}, r":2: a NUL character in 'a\\x00b'"),
        ({"text": "x"}, r":2: no id: none of _id, id, docid, doc_id, docno is there, only 'text'"),
        ({}, r":2: no id: .* only nothing"),
        ({"_id": "d"}, r":2: no text: none of text, contents is there, only '_id'"),
        ({"_id": "d", "text": None}, r":2: the 'text' of 'd' is None, not a string"),
        ({"_id": "d", "text": ["x"]}, r":2: the 'text' of 'd' is \['x'\]"),
        ({"_id": "d", "text": "x", "title": 3}, r":2: the title of 'd' is 3"),
        ("[1]", r":2: a JSON list, but each line is one object"),
        ("{", r":2: not valid JSON \(.* at character 2\)"),
        ('{"_id": "d", "text": NaN}', r":2: not valid JSON \(NaN is no JSON\)"),
        ('{"_id": "d", "text": "\\ud800"}', r":2: a lone surrogate in '\\ud800'"),
        ('{"_id": "d", "text": "x", "metadata": {"\\udc00": 1}}', r":2: a lone surrogate"),
        ('{"_id": "d", "text": "x", "text": "y"}', r":2: not valid JSON \('text' comes twice"),
        ('{"_id": "d", "text": "x", "m": {"a": 1, "a": 1}}', r":2: not valid JSON \('a' comes"),
    ],
)
def test_bad_record(tmp_path: Path, record: Any, message: str) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("fine"), record)
    with pytest.raises(ParseError, match=rf"c\.jsonl{message}"):
        read_corpus(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"_id": 12, "text": "x"}, r":2: the id '_id' is 12 \(int\), but ids are strings"),
        ({"docno": "1", "text": "x"}, r":2: no id: none of _id, id, qid, query_id, query-id"),
        ({"_id": "1", "contents": "x"}, r":2: no text: none of text, query, question"),
        ({"_id": "1", "text": None}, r":2: the 'text' of '1' is None"),
        ("[]", r":2: a JSON list"),
    ],
)
def test_bad_query(tmp_path: Path, record: Any, message: str) -> None:
    path = jsonl(tmp_path / "q.jsonl", doc("fine"), record)
    with pytest.raises(ParseError, match=rf"q\.jsonl{message}"):
        read_queries(path)


def test_number_ids_on_request(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", {"id": 12, "text": "x"}, {"id": "13", "text": "y"})
    corpus, report = read_corpus_report(path, ReadOptions(number_ids=True))
    assert list(corpus.ids) == ["12", "13"]
    assert report.number_ids == 1
    table = pa.table({"id": [7, 8], "text": ["x", "y"]})
    pq.write_table(table, tmp_path / "c.parquet")
    assert list(read_corpus(tmp_path / "c.parquet", number_ids=True).ids) == ["7", "8"]
    with pytest.raises(ParseError, match=r"c\.parquet:1: the id 'id' is 7 \(int\)"):
        read_corpus(tmp_path / "c.parquet")
    bad = jsonl(tmp_path / "b.jsonl", {"id": 1.0, "text": "x"})
    with pytest.raises(ParseError, match="ids are strings"):
        read_corpus(bad, number_ids=True)


# --- metadata ----------------------------------------------------------------------------------


@both_ways
def test_metadata_columns(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "c.jsonl",
        doc("1", metadata={"n": 1, "flag": True, "none": None, "list": []}, url="u"),
        doc("2", metadata={}),
        doc("3", metadata={"n": 2.5, "list": ["a"], "deep": {"b": [1, {"c": None}]}}),
        doc("4", metadata={"text": "inner", "mixed": [1, "a"], "numbers": [1, 2.5]}),
    )
    corpus = read_corpus(path)
    assert [dict(d.metadata) for d in corpus] == [
        {"n": 1.0, "flag": True, "list": [], "url": "u"},
        {},
        {"n": 2.5, "list": ["a"], "deep": '{"b": [1, {"c": null}]}'},
        {"metadata.text": "inner", "mixed": '[1, "a"]', "numbers": [1.0, 2.5]},
    ]
    assert corpus.table.schema.field("n").type == pa.float64()
    assert corpus.table.schema.field("flag").type == pa.bool_()


@both_ways
def test_metadata_of_two_types(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("1", year=1999), doc("2"), doc("3", year="unknown"))
    message = r"c\.jsonl:3: metadata 'year' is a str here, but a int on line 1"
    with pytest.raises(ParseError, match=message):
        read_corpus(path)
    texts = [d.metadata.get("year") for d in read_corpus(path, metadata="json")]
    assert texts == ["1999", None, '"unknown"']
    assert read_corpus(path, metadata="drop").metadata_names == []


def test_field_beside_and_inside_metadata(tmp_path: Path) -> None:
    same = jsonl(tmp_path / "a.jsonl", doc("1", url="u", metadata={"url": "u"}))
    assert [d.metadata for d in read_corpus(same)] == [{"url": "u"}]
    other = jsonl(tmp_path / "b.jsonl", doc("1", url="u", metadata={"url": "v"}))
    with pytest.raises(ParseError, match=r"b\.jsonl:1: 'url' stands both beside and inside"):
        read_corpus(other)


# --- duplicates --------------------------------------------------------------------------------

TWICE = [
    doc("a", "one"),
    doc("b", "x"),
    doc("a", "one"),
    doc("c", "y"),
    doc("b", "x"),
    doc("b", "x"),
]


@both_ways
def test_equal_duplicates_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = jsonl(tmp_path / "c.jsonl", *TWICE)
    corpus, report = read_corpus_report(path)
    assert list(corpus.ids) == ["a", "b", "c"]
    assert (report.records, report.duplicates, report.conflicts) == (3, 3, 0)
    read_corpus(path)
    assert f"{path}: 3 left out as word-for-word repetitions" in caplog.text


@both_ways
@pytest.mark.parametrize(
    "change", [{"text": "two"}, {"title": "T"}, {"year": 3}, {"metadata": {"a": "b"}}]
)
def test_differing_duplicates(tmp_path: Path, change: dict[str, Any]) -> None:
    other = {**doc("a", "one"), **change}
    path = jsonl(tmp_path / "c.jsonl", *TWICE, other)
    with pytest.raises(DuplicateIdError, match=r"'a' \(lines 1 and 7\)"):
        read_corpus(path)
    corpus, report = read_corpus_report(path, ReadOptions(on_duplicate="first"))
    assert list(corpus.ids) == ["a", "b", "c"]
    assert corpus["a"] == Document("a", "one")
    assert (report.records, report.duplicates, report.conflicts) == (3, 3, 1)
    corpus, report = read_corpus_report(path, ReadOptions(on_duplicate="last"))
    assert sorted(corpus.ids) == ["a", "b", "c"]
    assert corpus["a"] != Document("a", "one")
    assert (report.records, report.duplicates, report.conflicts) == (3, 2, 2)


def test_text_and_title_do_not_run_together(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("a", "bc", title="a"), doc("a", "c", title="ab"))
    with pytest.raises(DuplicateIdError):
        read_corpus(path)


def test_many_differing_duplicates_are_counted(tmp_path: Path) -> None:
    records = [doc(str(n), text) for text in ("x", "y") for n in range(7)]
    with pytest.raises(DuplicateIdError, match=r"'0' \(lines 1 and 8\), .* and 2 more"):
        read_corpus(jsonl(tmp_path / "c.jsonl", *records))


def test_duplicate_queries(tmp_path: Path) -> None:
    same = jsonl(tmp_path / "s.jsonl", doc("1", "x"), doc("1", "x"))
    queries, report = read_queries_report(same)
    assert (len(queries), report.duplicates) == (1, 1)
    path = jsonl(tmp_path / "q.jsonl", doc("1", "x"), doc("2", " "), doc("1", "y"))
    with pytest.raises(DuplicateIdError, match="'1' has two different texts, on lines 1 and 3"):
        read_queries(path)
    assert read_queries(path, on_duplicate="first").texts == ["x", " "]
    queries, report = read_queries_report(path, ReadOptions(on_duplicate="last"))
    assert queries.texts == ["y", " "]
    assert (report.records, report.conflicts, report.empty) == (2, 1, 1)


# --- characters, lines, sizes ------------------------------------------------------------------


MARKED = "the file begins with a byte-order mark; save it as UTF-8 without one, or read it with "


@both_ways
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.jsonl", '{"_id": "a", "text": "\ufeffx"}\n'),
        ("c.jsonl", '\n{"_id": "a", "text": "\ufeffx"}\n'),
        ("c.jsonl.gz", '{"_id": "a", "text": "\ufeffx"}\n'),
        ("c.tsv", "id\ttext\na\t\ufeffx\n"),
        ("c.tsv", "a\t\ufeffx\n"),
        ("c.csv", 'id,text\na,"\ufeffx"\n'),
        ("c.csv", '"a",\ufeffx\n'),
    ],
)
def test_byte_order_mark(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    raw = b"\xef\xbb\xbf" + text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    for read in (read_corpus, read_queries):
        with pytest.raises(ParseError) as caught:
            read(path)
        assert str(caught.value) == f'{path}:1: {MARKED}errors="replace"'
    corpus, report = read_corpus_report(path, ReadOptions(errors="replace"))
    assert list(corpus) == [Document("a", "\ufeffx")]
    queries, asked = read_queries_report(path, ReadOptions(errors="replace"))
    assert (list(queries.ids), queries.texts) == (["a"], ["\ufeffx"])
    for met in (report, asked):
        assert met.notes == (f"{path}: 1 with a byte-order mark at the start, which was dropped",)


@both_ways
def test_byte_order_marks_of_text_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "c.txt"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / name).write_bytes(b"plain" if name[0] == "a" else b"\xef\xbb\xbfx")
    with pytest.raises(ParseError, match=rf"b\.md:1: {MARKED}"):
        read_corpus(tmp_path / "docs")
    corpus, report = read_corpus_report(tmp_path / "docs", ReadOptions(errors="replace"))
    assert [document.text for document in corpus] == ["plain", "x", "x"]
    assert (report.marks, report.replaced) == (2, 0)


def test_a_byte_order_mark_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\xef\xbb\xbf")
    corpus, report = read_corpus_report(path, ReadOptions(errors="replace"))
    assert (len(corpus), report.marks) == (0, 1)


@pytest.mark.parametrize(("row", "says"), [("\t", "the id"), (" \t\t ", "3 columns, but 2")])
@pytest.mark.parametrize("header", ["", "id\ttext\n"])
def test_tabs_alone_are_a_row(tmp_path: Path, row: str, says: str, header: str) -> None:
    path = tmp_path / "c.tsv"
    path.write_text(f"{header}a\tx\n\n \n{row}\n")
    line = 4 + bool(header)
    for read in (read_corpus, read_queries):
        with pytest.raises(ParseError, match=rf"c\.tsv:{line}: {says}"):
            read(path)


def test_utf16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(json.dumps(doc("a")).encode("utf-16"))
    with pytest.raises(ParseError, match="UTF-16; convert it to UTF-8"):
        read_corpus(path)


@both_ways
@pytest.mark.parametrize(
    ("line", "message", "text"),
    [
        (b'{"_id": "a", "text": "caf\xe9"}', "byte 0xe9 at position 26", "caf\ufffd"),
        (b'{"_id": "a", "text": "x\xed\xa0\x80"}', "byte 0xed", "x\ufffd\ufffd\ufffd"),
        (b'{"_id": "a", "text": "a\\ud83dz"}', "a lone surrogate", "a\ufffdz"),
        (b'{"_id": "a", "text": "a\\u0000z"}', "a NUL character", "a\ufffdz"),
        (b'{"_id": "a", "text": "a\0z"}', "a NUL character at position 24", "a\ufffdz"),
    ],
)
def test_invalid_characters(tmp_path: Path, line: bytes, message: str, text: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(json.dumps(doc("fine")).encode() + b"\n" + line + b"\n")
    with pytest.raises(ParseError, match=rf"c\.jsonl:2: {message}"):
        read_corpus(path)
    corpus, report = read_corpus_report(path, ReadOptions(errors="replace"))
    assert corpus["a"].text == text
    assert report.replaced == 1


def test_paired_surrogates_are_one_character(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", '{"_id": "a", "text": "\\ud83d\\ude00"}')
    assert read_corpus(path)["a"].text == "\U0001f600"


def test_nul_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "text": ["x\0y"]}), tmp_path / "c.parquet")
    with pytest.raises(ParseError, match=r"c\.parquet:1: a NUL character"):
        read_corpus(tmp_path / "c.parquet")


def test_line_cap(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("a"), doc("b", "x" * 100))
    size = len(json.dumps(doc("b", "x" * 100))) + 1
    assert len(read_corpus(path, max_line_bytes=size)) == 2
    with pytest.raises(LimitError, match=rf"c\.jsonl:2: a line of more than {size - 1} bytes"):
        read_corpus(path, max_line_bytes=size - 1)


def test_line_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "c.jsonl"
    with path.open("wb") as out:
        out.write(b'{"_id": "a", "text": "')
        out.truncate(2**30)
    tracemalloc.start()
    try:
        with pytest.raises(LimitError, match=r"c\.jsonl:1: a line of more than 1,048,576 bytes"):
            list(iter_documents(path, max_line_bytes=2**20))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_csv_record_cap(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('d1,x\nd2,"' + "y\n" * 50, "utf-8")
    with pytest.raises(LimitError, match=r"c\.csv:2: the record that begins here"):
        read_corpus(path, max_line_bytes=20)


def test_huge_field_needs_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f'd1,"{"x" * 200_000}"\n', "utf-8")
    assert len(read_corpus(path)["d1"].text) == 200_000


@pytest.mark.parametrize("read", [read_corpus, read_queries])
@pytest.mark.parametrize("depth", [70, 5_000, 200_000])
def test_deep_nesting(tmp_path: Path, read: Any, depth: int) -> None:
    bomb = '{"_id": "a", "text": "x", "m": ' + "[" * depth + "]" * depth + "}"
    path = jsonl(tmp_path / "c.jsonl", doc("fine"), bomb)
    with pytest.raises(LimitError, match=r"c\.jsonl:2: nested more than 64 levels"):
        read(path)


def test_nesting_that_is_not_deep(tmp_path: Path) -> None:
    nested = '{"_id": "a", "text": "x", "m": ' + "[" * 60 + "]" * 60 + "}"
    assert len(read_corpus(jsonl(tmp_path / "c.jsonl", nested))) == 1


@pytest.mark.parametrize(
    ("number", "fits"),
    [
        (2**63 - 1, True),
        (-(2**63), True),
        (2**63, False),
        (-(2**63) - 1, False),
        ("9" * 5000, False),
    ],
)
def test_huge_integers(tmp_path: Path, number: object, fits: bool) -> None:
    path = jsonl(tmp_path / "c.jsonl", f'{{"_id": "a", "text": "x", "n": {number}}}')
    if fits:
        assert read_corpus(path)["a"].metadata == {"n": number}
    else:
        with pytest.raises(LimitError, match=r"c\.jsonl:1: an integer of \d+ digits"):
            read_corpus(path)


def test_empty_documents_are_kept_and_counted(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "c.jsonl", doc("1", ""), doc("2", " \n\t"), doc("3", "", title="T"), doc("1", "")
    )
    corpus, report = read_corpus_report(path)
    assert len(corpus) == 3
    assert report.empty == 2
    assert report.notes == (
        f"{path}: 1 left out as word-for-word repetitions of an earlier one",
        f"{path}: 2 empty, kept",
    )


@both_ways
def test_empty_file_is_an_empty_corpus(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl")
    corpus, report = read_corpus_report(path)
    assert (len(corpus), report.records, report.notes) == (0, 0, ())
    assert list(corpus) == []
    assert len(read_queries(path)) == 0
    assert list(iter_documents(path)) == []


@pytest.mark.parametrize("cut", [1, 12, -9, -1])
def test_gzip_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "c.jsonl.gz"
    write_corpus([Document(f"d{n}", str(n**50)) for n in range(50)], path)
    whole = path.read_bytes()
    assert len(read_corpus(path)) == 50
    path.write_bytes(whole[:cut])
    with pytest.raises(ParseError, match=r"c\.jsonl\.gz:\d+: the gzip stream is damaged"):
        read_corpus(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(ParseError, match="the gzip stream is damaged"):
        read_corpus(path)


def test_gzip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 20_000_000))
    with pytest.raises(LimitError, match=r"more than 200 to 1, as in a decompression bomb"):
        read_corpus(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet"])
def test_damaged_parquet(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.parquet"
    path.write_bytes(content)
    with pytest.raises(ParseError, match=r"c\.parquet: not a Parquet file that can be read"):
        read_corpus(path)


# --- where to read from ------------------------------------------------------------------------


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="is not there"):
        read_corpus(tmp_path / "none.jsonl")
    with pytest.raises(MissingDataError, match=r"holds no queries\.jsonl"):
        read_queries(tmp_path)
    (tmp_path / "c.xml").write_text("<x/>")
    with pytest.raises(DataError, match="known endings are"):
        read_corpus(tmp_path / "c.xml")
    jsonl(tmp_path / "c.xml", doc("a"))
    assert len(read_corpus(tmp_path / "c.xml", format="jsonl")) == 1


@pytest.mark.parametrize(
    "wrong", [{"errors": "ignore"}, {"on_duplicate": "keep"}, {"metadata": 1}, {"format": "xml"}]
)
def test_unknown_choice(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(wrong))}=.* is none of"):
        read_corpus(tmp_path, **wrong)


def test_beir_folder(tmp_path: Path) -> None:
    write_corpus(CATS, tmp_path / "corpus.jsonl")
    write_queries(Queries.from_texts({"q1": "x"}), tmp_path / "queries.jsonl.gz")
    (tmp_path / "notes.txt").write_text("not a document")
    assert list(read_corpus(tmp_path)) == CATS
    assert read_queries(tmp_path) == Queries.from_texts({"q1": "x"})
    assert [d.doc_id for d in iter_documents(tmp_path)] == ["d1", "d2", "d 3"]


# --- laws --------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES = {
    "number": st.integers(-(2**63), 2**63 - 1),
    "part": st.floats(allow_nan=False, allow_infinity=False),
    "word": WORDS,
    "yes": st.booleans(),
    "words": st.lists(WORDS, max_size=3),
}


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    ids = draw(st.lists(WORDS.filter(bool), unique=True, max_size=8))
    kinds = st.fixed_dictionaries({}, optional=VALUES)
    return [Document(i, draw(WORDS), draw(WORDS), draw(kinds)) for i in ids]


@given(documents(), st.sampled_from(["jsonl", "jsonl.gz"]), st.booleans())
def test_written_and_read_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, docs: list[Document], kind: str, mapped: bool
) -> None:
    folder = tmp_path_factory.mktemp("law")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRIEVEKIT_CACHE", str(folder / "cache"))
        patch.setattr(columns, "BATCH_ROWS", 2)
        patch.setattr(columns, "MAPPED_FROM", 0 if mapped else 2**60)
        assert write_corpus(docs, folder / f"c.{kind}") == len(docs)
        corpus = read_corpus(folder / f"c.{kind}")
        assert list(corpus) == docs
        assert list(iter_documents(folder / f"c.{kind}")) == docs
        assert read_corpus(folder / f"c.{kind}").content_hash == corpus.content_hash
        write_corpus(corpus, folder / f"again.{kind}")
        assert (folder / f"c.{kind}").read_bytes() == (folder / f"again.{kind}").read_bytes()


@given(st.dictionaries(WORDS.filter(bool), WORDS, max_size=6))
def test_queries_written_and_read_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("law") / "queries.jsonl"
    queries = Queries.from_texts(texts)
    write_queries(queries, path)
    assert read_queries(path) == queries


@given(st.binary(max_size=60), st.sampled_from(["jsonl", "tsv", "csv", "jsonl.gz", "parquet"]))
def test_any_bytes_give_a_corpus_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, kind: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"c.{kind}"
    path.write_bytes(raw)
    for errors in ("strict", "replace"):
        with contextlib.suppress(DataError):
            read_corpus(path, errors=errors)


def test_metadata_that_json_does_not_know(tmp_path: Path) -> None:
    import datetime

    path = tmp_path / "c.jsonl"
    when = Document("a", "x", "", {"when": datetime.date(2020, 1, 2)})
    write_corpus([when], path)
    assert read_corpus(path)["a"].metadata == {"when": "2020-01-02"}
    with pytest.raises(DataError, match="metadata of 'a' cannot be written as JSON"):
        write_corpus([Document("a", "x", "", {"n": float("nan")})], path)
    assert len(read_corpus(path)) == 1, "a failed writing left the old file alone"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.jsonl"]


# --- the cache of large corpora ----------------------------------------------------------------


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths read from their source, with every corpus large."""
    read: list[str] = []
    original = columns.placed_documents

    def watched(source: Path, *rest: Any) -> Any:
        read.append(source.name)
        return original(source, *rest)

    monkeypatch.setattr(columns, "placed_documents", watched)
    monkeypatch.setattr(columns, "MAPPED_FROM", 0)
    return read


def test_large_corpus_is_converted_once(tmp_path: Path, conversions: list[str]) -> None:
    path = jsonl(tmp_path / "c.jsonl", *TWICE)
    first, report = read_corpus_report(path)
    second, again = read_corpus_report(path)
    assert conversions == ["c.jsonl"]
    assert report == again
    assert report.duplicates == 3
    assert first.content_hash == second.content_hash
    read_corpus_report(path, ReadOptions(metadata="drop"))
    assert len(conversions) == 2, "other settings, other file"
    jsonl(path, doc("new"))
    assert list(read_corpus(path).ids) == ["new"]
    assert len(conversions) == 3, "a changed source is read again"
    assert list(first.ids) == ["a", "b", "c"], "an open corpus stays as it was"
    assert len(list((tmp_path / "cache" / "corpora").iterdir())) == 1, "old files are removed"


def test_change_of_equal_size_is_seen(tmp_path: Path, conversions: list[str]) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("a"))
    read_corpus(path)
    jsonl(path, doc("b"))
    os.utime(path, ns=(0, 10**18))
    assert list(read_corpus(path).ids) == ["b"]


def test_failed_conversion_leaves_nothing(tmp_path: Path, conversions: list[str]) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("a", "x"), doc("a", "y"))
    with pytest.raises(DuplicateIdError):
        read_corpus(path)
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_damaged_conversion_is_repeated(tmp_path: Path, conversions: list[str]) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("a"))
    read_corpus(path)
    (converted,) = (tmp_path / "cache" / "corpora").iterdir()
    converted.write_bytes(converted.read_bytes()[:100])
    assert list(read_corpus(path).ids) == ["a"]
    assert len(conversions) == 2


def test_changed_folder_is_read_again(tmp_path: Path, conversions: list[str]) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    assert len(read_corpus(folder)) == 1
    (folder / "b.txt").write_text("y")
    assert len(read_corpus(folder)) == 2


def test_small_corpus_is_not_converted(tmp_path: Path) -> None:
    read_corpus(jsonl(tmp_path / "c.jsonl", doc("a")))
    assert not (tmp_path / "cache").exists()


@both_ways
@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400 + ".5"])
def test_huge_floats_are_not_infinite(tmp_path: Path, number: str) -> None:
    path = jsonl(tmp_path / "c.jsonl", f'{{"_id": "d", "text": "x", "v": {number}}}')
    with pytest.raises(LimitError, match=r"c\.jsonl:1: the number .* does not fit 64 bits"):
        read_corpus(path)


@both_ways
def test_integers_among_floats_are_exact_or_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", doc("1", v=2**53 + 1), doc("2", v=0.5))
    with pytest.raises(DataError, match=r"metadata 'v' cannot be kept exactly as float"):
        read_corpus(path)
    (kept, _) = read_corpus(path, metadata="json")
    assert kept.metadata == {"v": str(2**53 + 1)}
    path = jsonl(tmp_path / "list.jsonl", doc("1", v=[2**53 + 1, 0.5]))
    (kept,) = read_corpus(path)
    assert kept.metadata == {"v": f"[{2**53 + 1}, 0.5]"}


def test_names_that_become_one_when_replaced(tmp_path: Path) -> None:
    record = '{"_id": "d", "text": "x", "m\\ud800": 1, "m\\ud801": 2}'
    path = jsonl(tmp_path / "c.jsonl", record)
    with pytest.raises(ParseError, match=r"c\.jsonl:1: two names become one"):
        read_corpus(path, errors="replace")


@pytest.mark.parametrize(("suffix", "between"), [("tsv", "\t"), ("csv", ",")])
def test_no_words_of_a_query_are_taken_for_a_title(
    tmp_path: Path, suffix: str, between: str
) -> None:
    path = tmp_path / f"q.{suffix}"
    path.write_text(between.join(["1", "how", "are you"]) + "\n", "utf-8")
    with pytest.raises(
        ParseError, match=rf"q\.{suffix}:1: 3 columns and no header.*two \(id, text"
    ):
        read_queries(path)


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([["a"], ["x"], ["y"]], names=["_id", "text", "text"])
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(ParseError, match=r"c\.parquet: columns come more than once: \['text'\]"):
        read_corpus(tmp_path / "c.parquet")


@both_ways
@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_links_in_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    docs = tmp_path / "docs"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.txt").write_text("linked")
    docs.mkdir()
    (docs / "a.txt").symlink_to(tmp_path / "other" / "b.txt")
    (docs / "below").symlink_to(tmp_path / "other")
    assert list(read_corpus(docs)) == [Document("a.txt", "linked")]
    assert "below: a link to a folder, which is not followed" in caplog.text
    (docs / "lost.md").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"lost\.md: no file that can be read"):
        read_corpus(docs)
