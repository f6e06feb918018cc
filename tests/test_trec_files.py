"""TREC and BEIR files: what is written comes back, what is broken is named by file and line."""

from __future__ import annotations

import gzip
import json
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.data.trec import (
    lines,
    read_qrels,
    read_run,
    scan_qrels,
    scan_run,
    write_qrels,
    write_run,
    writing,
)
from retrievekit.errors import (
    DataError,
    DuplicateIdError,
    LimitError,
    MissingDataError,
    NonFiniteError,
    ParseError,
)
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.trace import Step

ids = st.text(
    st.characters(codec="utf-8", exclude_characters="\t\n\v\f\r \0#", exclude_categories=["Cs"]),
    min_size=1,
    max_size=6,
)
scores = st.floats(width=32, allow_nan=False, allow_infinity=False)
runs = st.dictionaries(ids, st.dictionaries(ids, scores, min_size=1, max_size=6), max_size=5)
grades = st.integers(-(2**31), 2**31 - 1)
judgements = st.dictionaries(ids, st.dictionaries(ids, grades, min_size=1, max_size=6), max_size=5)


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Any:
    """Read and write a few lines at a time, so that every seam is crossed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", 40)
        patch.setattr(writing, "_LINES_AT_A_TIME", 3)
        yield


def put(tmp_path: Path, text: str | bytes, name: str = "x.run") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


# Round trips --------------------------------------------------------------------------------------


@given(runs, st.sampled_from(["x.run", "x.run.gz"]))
def test_runs_come_back(tmp_path_factory: Any, hits: dict[str, Any], name: str) -> None:
    path = tmp_path_factory.mktemp("run") / name
    run = Run.from_dict(hits)
    write_run(run, path, tag="it")
    again = read_run(path)
    assert again == run
    assert again.to_dict() == run.to_dict()
    assert again.scores.tobytes() == run.scores.tobytes()  # -0.0 too
    assert read_run(path, run.queries) == run


@given(judgements, st.sampled_from(["x.txt", "x.txt.gz"]))
def test_qrels_come_back(tmp_path_factory: Any, judged: dict[str, Any], name: str) -> None:
    path = tmp_path_factory.mktemp("qrels") / name
    qrels = Qrels.from_dict(judged)
    write_qrels(qrels, path)
    assert read_qrels(path).to_dict() == qrels.to_dict()


def test_every_kind_of_float32_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    edges = [0.0, 1e-45, 1.17549435e-38, 3.4028235e38, -3.4028235e38, 16777216.0, 0.1, 1 / 3]
    values = np.concatenate([bits[np.isfinite(bits)], np.array(edges, np.float32)])
    docs = Ids.from_strings(f"d{i}" for i in range(len(values)))
    queries = Queries(Ids.from_strings(["q"]), None)
    offsets = np.array([0, len(values)])
    run = Run.from_arrays(queries, docs, offsets, np.arange(len(values)), values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_LINES_AT_A_TIME", 5000)
        patch.setattr(lines, "CHUNK", 2**20)
        write_run(run, tmp_path / "x.run")
        again = read_run(tmp_path / "x.run")
    assert again.scores.tobytes() == run.scores.tobytes()
    for line in (tmp_path / "x.run").read_text("utf-8").splitlines()[:500]:
        text = line.split()[4]
        assert struct.pack("<f", float(text)) == np.float32(text).tobytes()


def test_the_lines_that_are_written(tmp_path: Path) -> None:
    run = Run.from_dict({"q2": {"b": 0.5, "a": 2.25}, "q1": {"a": 1e-7}, "none": {}})
    write_run(run, tmp_path / "x.run", tag="mine")
    assert (tmp_path / "x.run").read_text("utf-8") == (
        "q2 Q0 a 1 2.25 mine\nq2 Q0 b 2 0.5 mine\nq1 Q0 a 1 1e-7 mine\n"
    )
    write_qrels(Qrels.from_dict({"q1": {"b": 2, "a": -1}, "none": {}}), tmp_path / "q.txt")
    assert (tmp_path / "q.txt").read_text("utf-8") == "q1 0 b 2\nq1 0 a -1\n"


def test_equal_runs_are_equal_gzip_files(tmp_path: Path) -> None:
    run = Run.from_dict({"q": {"a": 1.0}})
    write_run(run, tmp_path / "a.run.gz")
    write_run(run, tmp_path / "b.run.gz")
    assert (tmp_path / "a.run.gz").read_bytes() == (tmp_path / "b.run.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.run.gz").read_bytes()) == b"q Q0 a 1 1 retrievekit\n"


def test_run_and_qrels_read_and_write_by_name(tmp_path: Path) -> None:
    run, qrels = Run.from_dict({"q": {"a": 1.0}}), Qrels.from_dict({"q": {"a": 1}})
    run.write(tmp_path / "x.run", tag="t")
    qrels.write(tmp_path / "x.qrels")
    assert Run.read(tmp_path / "x.run") == run
    assert Run.read(tmp_path / "x.run", run.queries) == run
    assert Qrels.read(tmp_path / "x.qrels") == qrels


# What is tolerated --------------------------------------------------------------------------------


def test_ranks_are_ignored_and_ties_are_put_in_order(tmp_path: Path) -> None:
    path = put(tmp_path, "q Q0 a 9 1.0 t\nq Q0 c 1 1.0 t\nq Q0 b 1 7 t\n")
    assert read_run(path)["q"].doc_ids == ["b", "c", "a"]


def test_blanks_tabs_line_ends_comments_and_empty_lines(tmp_path: Path) -> None:
    text = "# made by hand\r\n\r\n q\tQ0  a \t 1 +1.5 t\r\n   \nq Q0 b 2 .5e0 t\n\n#q Q0 c 3 1 t\n"
    text += "q Q0 é\u00a0x 3 2. t"  # neither ASCII nor ended
    run, report = scan_run(put(tmp_path, text))
    assert run.to_dict() == {"q": {"é\u00a0x": 2.0, "a": 1.5, "b": 0.5}}
    assert (report.n_lines, report.n_kept, report.left_out) == (8, 3, {})


def test_queries_may_come_apart(tmp_path: Path) -> None:
    path = put(tmp_path, "1 Q0 a 1 1 t\n2 Q0 a 1 1 t\n1 Q0 b 1 2 t\n")
    run = read_run(path)
    assert list(run.queries.ids) == ["1", "2"]
    assert run["1"].doc_ids == ["b", "a"]


def test_given_queries_bring_words_order_and_emptiness(tmp_path: Path) -> None:
    path = put(tmp_path, "1 Q0 a 1 1 t\n2 Q0 b 1 1 t\n")
    queries = Queries.from_texts({"3": "three", "2": "two", "1": "one"})
    run = read_run(path, queries)
    assert run.queries.texts == ["three", "two", "one"]
    assert run.to_dict() == {"3": {}, "2": {"b": 1.0}, "1": {"a": 1.0}}
    fewer = Queries.from_texts({"1": "one"})
    with pytest.raises(ParseError, match=r"x\.run:2: a query that is not among those given.*'2'"):
        read_run(path, fewer)
    run, report = scan_run(path, fewer, errors="lenient")
    assert run.to_dict() == {"1": {"a": 1.0}}
    assert report.left_out == {"a query that is not among those given": 1}


def test_fields_after_the_tag_are_for_lenient_readers(data_dir: Path) -> None:
    path = data_dir / "trec_eval" / "results.trunc"
    with pytest.raises(ParseError, match=r"results\.trunc:1: 9 fields where 6 belong"):
        read_run(path)
    run, report = scan_run(path, errors="lenient")
    assert (run.n_hits, report.n_left_out) == (584, 0)
    assert report.mended == {"fields after the tag ignored": 5}


# Qrels forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 a 1\nq1 0 b 0\nq2 0 a 2\n",
        "q1\t0\ta\t1\nq1\t0\tb\t0\nq2\t0\ta\t2",
        "q1 Q0 a 1\r\n\r\nq1 Q0 b 0\r\nq2 Q0 a 2\r\n",
        "query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\tb\t0\nq2\ta\t2\n",
        "query-id\tcorpus-id\tscore\r\nq1\ta\t1.0\r\nq1\tb\t0\r\nq2\ta\t2\r\n",
        "q1\ta\t1\nq1\tb\t0\nq2\ta\t2\n",
        "\nq1\ta\t1\n\nq2\ta\t2\nq1\tb\t0\n",
    ],
)
def test_every_form_of_qrels_is_the_same(tmp_path: Path, text: str) -> None:
    for name, content in (("x", text.encode()), ("x.gz", gzip.compress(text.encode()))):
        qrels = read_qrels(put(tmp_path, content, name))
        assert qrels.to_dict() == {"q1": {"a": 1, "b": 0}, "q2": {"a": 2}}


def test_ids_between_tabs_may_hold_blanks(tmp_path: Path) -> None:
    path = put(tmp_path, "query-id\tcorpus-id\tscore\n q 1\t#a b \t1\n#q\tc\t0\n")
    assert read_qrels(path).to_dict() == {" q 1": {"#a b ": 1}, "#q": {"c": 0}}


def test_real_qrels_have_their_published_counts(data_dir: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", 2**16)
        beir = data_dir / "beir"
        for name, queries, judged in (
            ("scifact/qrels/test.tsv", 300, 339),
            ("nfcorpus/qrels/test.tsv", 323, 12_334),
            ("csfcube/qrels/test.tsv", 50, 6_244),
        ):
            qrels = read_qrels(beir / name)
            assert (len(qrels), qrels.n_judgements) == (queries, judged)


def test_repeated_judgements_count_once_and_contradictions_are_errors(tmp_path: Path) -> None:
    same = put(tmp_path, "q 0 a 1\nq 0 b 2\nq 0 a 1\n")
    qrels, report = scan_qrels(same)
    assert qrels.to_dict() == {"q": {"a": 1, "b": 2}}
    assert (report.n_repeated, report.n_kept) == (1, 2)
    other = put(tmp_path, "q 0 a 1\nq 0 b 2\nq 0 a 0\nq 0 a 1\n")
    with pytest.raises(DuplicateIdError) as caught:
        read_qrels(other)
    assert "x.run:3: query 'q', document 'a' has grade 0, but grade 1 on line 1" in str(
        caught.value
    )
    qrels, report = scan_qrels(other, errors="lenient")
    assert qrels.to_dict() == {"q": {"a": 1, "b": 2}}
    assert (report.n_repeated, report.left_out) == (1, {"a second, different grade": 1})


# What is broken -----------------------------------------------------------------------------------

GOOD = "q Q0 good1 1 3 t\nq Q0 good2 2 2 t\n"
BROKEN_RUN = {
    "five fields": (
        "q Q0 a 1 2.5\n",
        r"5 fields where 6 belong \(query Q0 document rank score tag",
    ),
    "one field": ("q\n", "1 fields where 6 belong"),
    "blank in an id": ("q Q0 a b 1 2.5 t\n", "7 fields where 6 belong.*may not hold blanks"),
    "score of letters": ("q Q0 a 1 high t\n", "score is no finite number: 'high'"),
    "NaN": ("q Q0 a 1 nan t\n", "score is no finite number: 'nan'"),
    "infinity": ("q Q0 a 1 -inf t\n", "score is no finite number: '-inf'"),
    "too large": ("q Q0 a 1 1e39 t\n", "too large for float32: '1e39'"),
    "underscore": ("q Q0 a 1 1_0 t\n", "no finite number: '1_0'"),
    "other digits": ("q Q0 a 1 ١ t\n", "no finite number"),
    "hexadecimal": ("q Q0 a 1 0x1p3 t\n", "no finite number"),
    "NUL": ("q Q0 a\0b 1 1 t\n", "NUL byte"),
    "invalid UTF-8": (b"q Q0 a\xff 1 1 t\n", "not UTF-8; convert"),
    "lone surrogate": (b"q Q0 \xed\xa0\x80 1 1 t\n", "not UTF-8; convert"),
    "old Mac line ends": ("q Q0 a 1 1 t\rq Q0 b 2 1 t\n", "12 fields where 6 belong"),
}


@pytest.mark.parametrize("case", BROKEN_RUN)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_broken_line_is_named_and_left_out_on_request(
    tmp_path: Path, case: str, zipped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bad, says = BROKEN_RUN[case]
    middle = bad if isinstance(bad, bytes) else bad.encode("utf-8")
    content = GOOD.encode() + middle + b"q Q0 good3 4 1 t\n"
    path = put(
        tmp_path, gzip.compress(content) if zipped else content, "x.gz" if zipped else "x.run"
    )
    with pytest.raises(ParseError, match=says) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert caught.value.line == 3
    with caplog.at_level(logging.WARNING, "retrievekit"):
        run, report = scan_run(path, errors="lenient")
    assert run["q"].doc_ids == ["good1", "good2", "good3"]
    assert report.n_left_out == 1
    assert report.examples[0].startswith(f"{path}:3: ")
    assert "1 of 4 lines left out" in caplog.text


BROKEN_QRELS = {
    "three fields": ("q 0 a\n", "3 fields where 4 belong"),
    "five fields": ("q 0 a 1 1\n", "5 fields where 4 belong"),
    "grade of letters": ("q 0 a yes\n", "grade is no integer.*'yes'"),
    "half a grade": ("q 0 a 0.5\n", "grade is no integer"),
    "huge grade": ("q 0 a 2147483648\n", "grade is no integer below"),
    "endless grade": (f"q 0 a {'9' * 5000}\n", "grade is no integer below"),
    "NUL": ("q 0 a\0 1\n", "NUL byte"),
    "invalid UTF-8": (b"q 0 \xc3 1\n", "not UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN_QRELS)
def test_a_broken_judgement_is_named_and_left_out_on_request(tmp_path: Path, case: str) -> None:
    bad, says = BROKEN_QRELS[case]
    middle = bad if isinstance(bad, bytes) else bad.encode("utf-8")
    path = put(tmp_path, b"q 0 x 1\n\n" + middle + b"q 0 y 2\n", "q.txt")
    with pytest.raises(ParseError, match=says) as caught:
        read_qrels(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    qrels, report = scan_qrels(path, errors="lenient")
    assert qrels.to_dict() == {"q": {"x": 1, "y": 2}}
    assert report.n_left_out == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("q\t\t1", "document id is empty"),
        ("\ta\t1", "query id is empty"),
        ("q\ta\t", "grade is no integer"),
        ("\t\t", "query id is empty"),
        (" \t \t ", "grade is no integer"),
        ("\t", "2 fields where 3 belong"),
        ("\t\t\t\r", "4 fields where 3 belong"),
        ("q\ta", "2 fields where 3 belong"),
        ("q 0 a 1", "1 fields where 3 belong"),
    ],
)
def test_broken_lines_between_tabs(tmp_path: Path, line: str, says: str) -> None:
    path = put(tmp_path, f"query-id\tcorpus-id\tscore\nq\tx\t1\n{line}\nq\ty\t2\n", "test.tsv")
    with pytest.raises(ParseError, match=rf"test\.tsv:3: .*{says}"):
        read_qrels(path)
    qrels, report = scan_qrels(path, errors="lenient")
    assert qrels.to_dict() == {"q": {"x": 1, "y": 2}}
    assert report.n_left_out == 1


@pytest.mark.parametrize("rest", ["", "query-id\tcorpus-id\tscore\nq\tx\t1\n", "q\tx\t1\n"])
def test_tabs_before_all_else_are_a_row_too(tmp_path: Path, rest: str) -> None:
    path = put(tmp_path, "\n\t\t\n" + rest, "test.tsv")
    with pytest.raises(ParseError, match=r"test\.tsv:2: the query id is empty"):
        read_qrels(path)
    qrels, report = scan_qrels(path, errors="lenient")
    assert qrels.to_dict() == ({"q": {"x": 1}} if rest else {})
    assert report.left_out == {"the query id is empty": 1}


def test_tabs_between_fields_of_trec_are_blanks(tmp_path: Path) -> None:
    assert read_qrels(put(tmp_path, "\t\nq\t0\ta\t1\n\t\t\n")).to_dict() == {"q": {"a": 1}}


def test_an_unknown_header_is_a_broken_line(tmp_path: Path) -> None:
    path = put(tmp_path, "query\tdocument\tverdict\nq\ta\t1\n", "test.tsv")
    with pytest.raises(ParseError, match=r"test\.tsv:1: the grade is no integer.*'verdict'"):
        read_qrels(path)


def test_a_document_listed_twice_names_both_lines(tmp_path: Path) -> None:
    path = put(tmp_path, "q Q0 a 1 2 t\np Q0 a 1 1 t\nq Q0 b 2 1 t\nq Q0 a 3 0.5 t\n")
    with pytest.raises(DuplicateIdError) as caught:
        read_run(path)
    assert "x.run:4: query 'q' lists document 'a' again (first on line 1)" in str(caught.value)
    run, report = scan_run(path, errors="lenient")
    assert run.to_dict() == {"q": {"a": 2.0, "b": 1.0}, "p": {"a": 1.0}}
    assert report.left_out == {"a document that the query has already": 1}


def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path: Path) -> None:
    for name, text, read, scan in (
        ("x.run", "q Q0 a 1 1 t\n", read_run, scan_run),
        ("q.txt", "q 0 a 1\n", read_qrels, scan_qrels),
        ("q.tsv", "query-id\tcorpus-id\tscore\nq\ta\t1\n", read_qrels, scan_qrels),
    ):
        path = put(tmp_path, b"\xef\xbb\xbf" + text.encode(), name)
        with pytest.raises(ParseError, match=rf"{name}:1: the file begins with a byte-order mark"):
            read(path)
        found, report = scan(path, errors="lenient")
        assert found.to_dict() == {"q": {"a": 1}}
        assert report.mended == {"byte-order mark skipped": 1}


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("end", ["", "\n"])
def test_utf16_is_named_and_its_lines_are_counted(
    tmp_path: Path, codec: str, n: int, end: str
) -> None:
    mark = "\ufeff" if codec == "utf-16-be" else ""
    text = mark + "\n".join(["q Q0 a 1 1 t"] * n) + end
    path = put(tmp_path, text.encode(codec))
    for read in (read_run, read_qrels):
        with pytest.raises(ParseError, match=r"x\.run:1: the file is UTF-16; convert it to UTF-8"):
            read(path)
    for scan in (scan_run, scan_qrels):
        found, report = scan(path, errors="lenient")
        assert (len(found), report.n_lines) == (0, n)
        assert report.left_out == {"the file is UTF-16": n}


def test_utf16_without_its_mark_is_recognised_by_its_nul_bytes(tmp_path: Path) -> None:
    path = put(tmp_path, "q Q0 a 1 1 t\n".encode("utf-16-le"))
    with pytest.raises(ParseError, match="UTF-16"):
        read_run(path)
    _, report = scan_run(path, errors="lenient")
    assert (report.n_left_out, report.n_lines) == (2, 2)  # the second is half a character


def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CHUNK", 2**20)
    for line, read in ((b"q Q0 a 1 1 t\n", read_run), (b"q 0 a 1\n", read_qrels)):
        path = put(tmp_path, gzip.compress(line * 2_000_000), "x.gz")
        for errors in ("strict", "lenient"):
            with pytest.raises(LimitError, match=r"x\.gz: .* more than 200 to 1, as in a decomp"):
                read(path, errors=errors)


def test_damaged_and_cut_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"q Q0 a 1 1 t\n" * 1)
    for content in (whole[:-6], whole[:15] + b"\xff\xff" + whole[17:], b"plain text"):
        with pytest.raises(ParseError, match=r"x\.gz: the gzip data is damaged or cut off"):
            read_run(put(tmp_path, content, "x.gz"))


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    path = put(tmp_path, b"q" * 3000)
    for read in (read_run, read_qrels):
        with pytest.raises(LimitError, match="over 1000 bytes"):
            read(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for read in (read_run, read_qrels):
        with pytest.raises(MissingDataError, match="no file"):
            read(tmp_path / "nowhere.run")
        with pytest.raises(MissingDataError, match="folder"):
            read(tmp_path)
        with pytest.raises(DataError, match="'strict' or 'lenient'"):
            read(tmp_path / "x", errors="ignore")  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_parse_or_raise(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x"
    path.write_bytes(content)
    for scan in (scan_run, scan_qrels):
        try:
            scan(path)
        except (ParseError, DuplicateIdError):
            _, report = scan(path, errors="lenient")
            assert report.left_out or report.mended
            assert report.n_left_out + report.n_kept <= report.n_lines


@given(
    st.lists(st.sampled_from(["q", "Q0", "a", "1", " ", "\t", "\n", "\r", "#", "é"]), max_size=60)
)
def test_fields_are_those_of_a_slow_obvious_splitter(
    tmp_path_factory: Any, parts: list[str]
) -> None:
    text = "".join(parts)
    expected: dict[str, dict[str, float]] = {}
    n_bad = 0
    for line in text.split("\n"):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        good = len(fields) == 6 and fields[4] == "1"
        good = good or (len(fields) > 6 and fields[3] == "1" and fields[4] == "1")
        good = good or (len(fields) >= 6 and set(fields[4]) == {"1"})
        if good and (len(fields) == 6 or set(fields[3]) == {"1"}):
            part = expected.setdefault(fields[0], {})
            n_bad += fields[2] in part
            part.setdefault(fields[2], float(fields[4]))
        else:
            n_bad += 1
    path = tmp_path_factory.mktemp("split") / "x.run"
    path.write_bytes(text.encode("utf-8"))
    run, report = scan_run(path, errors="lenient")
    assert run.to_dict() == {q: pytest.approx(part) for q, part in expected.items()}
    assert report.n_left_out == n_bad


# Emptiness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "\n", "\n \n\r\n", "# nothing\n"])
def test_empty_files(tmp_path: Path, text: str) -> None:
    for name, content in (("x", text.encode()), ("x.gz", gzip.compress(text.encode()))):
        path = put(tmp_path, content, name)
        assert (len(read_run(path)), read_run(path).n_hits) == (0, 0)
        assert (len(read_qrels(path)), read_qrels(path).n_judgements) == (0, 0)
    queries = Queries.from_texts({"1": "one"})
    assert read_run(path, queries).to_dict() == {"1": {}}


def test_a_header_alone(tmp_path: Path) -> None:
    assert len(read_qrels(put(tmp_path, "query-id\tcorpus-id\tscore\n"))) == 0


def test_empty_runs_and_qrels_are_empty_files(tmp_path: Path) -> None:
    for run in (Run.from_dict({}), Run.from_dict({"q": {}})):
        write_run(run, tmp_path / "x.run")
        assert (tmp_path / "x.run").read_bytes() == b""
    write_qrels(Qrels.from_dict({"q": {}}), tmp_path / "x.qrels")
    assert (tmp_path / "x.qrels").read_bytes() == b""


# Writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["a b", "a\tb", "a\nb", "a\rb", "a\vb", "a\fb", "a\0b", " a", "a "])
def test_ids_with_blanks_are_refused_by_name(tmp_path: Path, bad: str) -> None:
    for run in (Run.from_dict({bad: {"d": 1.0}}), Run.from_dict({"q": {"d": 2.0, bad: 1.0}})):
        with pytest.raises(DataError) as caught:
            write_run(run, tmp_path / "x.run")
        assert repr(bad) in str(caught.value)
        with pytest.raises(DataError, match="cannot stand in a TREC file"):
            write_qrels(Qrels.from_dict({"q": {"d": 1, bad: 1}}), tmp_path / "x.qrels")
    assert list(tmp_path.iterdir()) == []


def test_ids_that_would_become_comments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="query id '#1'"):
        write_run(Run.from_dict({"#1": {"d": 1.0}}), tmp_path / "x.run")
    write_run(Run.from_dict({"q": {"#d": 1.0}}), tmp_path / "x.run")
    assert read_run(tmp_path / "x.run").to_dict() == {"q": {"#d": 1.0}}


def test_only_ids_that_are_written_matter(tmp_path: Path) -> None:
    docs = Ids.from_strings(["good", "not good"])
    queries = Queries(Ids.from_strings(["no hits", "q"]), None)
    run = Run(queries, docs, np.array([0, 0, 1]), np.array([0]), np.array([1.0]))
    write_run(run, tmp_path / "x.run")
    assert read_run(tmp_path / "x.run").to_dict() == {"q": {"good": 1.0}}


@pytest.mark.parametrize("tag", ["", "a b", "a\n", "a\u2003b"])
def test_tags_hold_no_blank(tmp_path: Path, tag: str) -> None:
    with pytest.raises(DataError, match="tag"):
        write_run(Run.from_dict({}), tmp_path / "x.run", tag=tag)


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    run = Run.from_dict({"p": {"a": 1.0}, "q": {"a": 1.0, "b": 0.5}})
    broken = Run(run.queries, run.docs, run.offsets, run.rows, np.array([1.0, np.inf, 0.0]))
    with pytest.raises(NonFiniteError, match="'q'"):
        write_run(broken, tmp_path / "x.run")


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "before")
    calls = []

    def failing(*parts: Any) -> None:
        calls.append(parts)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write_lines", failing)
    with pytest.raises(OSError, match="No space"):
        write_run(Run.from_dict({"q": {f"d{i}": float(i) for i in range(9)}}), path)
    assert path.read_text("utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_links_stay_links_and_other_things_are_not_replaced(tmp_path: Path) -> None:
    target = put(tmp_path, "before", "target.run")
    (tmp_path / "link.run").symlink_to(target)
    write_run(Run.from_dict({"q": {"a": 1.0}}), tmp_path / "link.run")
    assert (tmp_path / "link.run").is_symlink()
    assert read_run(target).to_dict() == {"q": {"a": 1.0}}
    (tmp_path / "folder.run").mkdir()
    with pytest.raises(DataError, match="no regular file"):
        write_run(Run.from_dict({}), tmp_path / "folder.run")


# Traces -------------------------------------------------------------------------------------------

TRACED = Run(
    *(
        getattr(Run.from_dict({"q": {"a": 1.0}}), name)
        for name in ["queries", "docs", "offsets", "rows"]
    ),
    scores=np.ones(1, np.float32),
    trace=(
        Step("bm25", "f" * 64, 0.25, 1, 1),
        Step("top(1)", "", 1e-6, 1, 1, 7, (("answers", 3),)),
    ),
)


@pytest.mark.parametrize("name", ["x.run", "x.run.gz"])
def test_the_trace_lies_beside_the_run(tmp_path: Path, name: str) -> None:
    write_run(TRACED, tmp_path / name)
    beside = tmp_path / f"{name}.trace.json"
    assert json.loads(beside.read_text("utf-8"))["steps"][0]["name"] == "bm25"
    assert read_run(tmp_path / name).trace == TRACED.trace


def test_a_trace_never_tells_of_another_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.run"
    write_run(TRACED, path)
    put(tmp_path, "q Q0 b 1 1 other\n")
    assert read_run(path).trace == ()
    assert "tells of another file" in caplog.text
    write_run(TRACED, path)
    write_run(Run.from_dict({"q": {"a": 1.0}}), path)  # untraced: the old trace goes
    assert not (tmp_path / "x.run.trace.json").exists()


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", '{"crc32": 1}', "null", "[" * 100_000, '{"crc32": CRC, "steps": [{}]}'],
)
def test_a_damaged_trace_is_ignored_aloud(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.run"
    write_run(TRACED, path)
    beside = tmp_path / "x.run.trace.json"
    crc = json.loads(beside.read_text("utf-8"))["crc32"]
    beside.write_text(damage.replace("CRC", str(crc)), "utf-8")
    assert read_run(path) == TRACED
    assert read_run(path).trace == ()
    assert "ignored" in caplog.text
