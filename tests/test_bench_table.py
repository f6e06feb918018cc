"""The table says what was measured: figures, marks, notes; and its data forms keep all of it."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.bench.table import Cell, DataInfo, Table, _share, milliseconds, size
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.evaluate.significance import Contrast


def contrast(
    difference: float, p: float, *, system: str = "dense", q: float | None = None
) -> Contrast:
    return Contrast(
        system=system,
        baseline="bm25",
        measure="nDCG@10",
        n=4,
        mean=0.5 + difference,
        baseline_mean=0.5,
        difference=difference,
        ci_low=difference - 0.1,
        ci_high=difference + 0.1,
        t=2.0,
        p=p / 2,
        p_adjusted=p,
        p_randomisation=p / 2,
        p_randomisation_adjusted=p if q is None else q,
        effect_size=1.0,
        wins=3,
        ties=0,
        losses=1,
    )


def cell(system: str, dataset: str, ndcg: float, found: Contrast | None = None) -> Cell:
    return Cell(
        system,
        dataset,
        {"nDCG@10": ndcg, "R@100": 2 * ndcg},
        {} if found is None else {"nDCG@10": found},
        judged=0.25,
        ms_per_query=0.5,
        ms_alone=12.0,
        n_alone=3,
        index_bytes=3 * 2**20,
        fingerprint="f",
        files={"run": "runs/x.run"},
    )


INFOS = (
    DataInfo("cats", 1000, 4, 9, "c1", "q1", ("two documents are empty",)),
    DataInfo("bread", 20, 3, 5, "c2", "q2"),
)
SINGLE = Table(
    ("bm25", "dense", "both"),
    INFOS[:1],
    ("nDCG@10", "R@100"),
    (
        cell("bm25", "cats", 0.25),
        cell("dense", "cats", 0.125, contrast(-0.125, 0.01)),
        cell("both", "cats", 0.5, contrast(0.25, 0.049, system="both")),
    ),
    baseline="bm25",
    comparisons=2,
    metadata={"retrievekit": "1.2.3", "python": "3.11.7", "hardware": "2 × Abacus"},
)


def test_text_of_one_data_set() -> None:
    lines = str(SINGLE).split("\n")
    assert lines[:5] == [
        "system  nDCG@10     R@100  ms/query  ms alone    index",
        "------  ---------  ------  --------  --------  -------",
        "bm25     0.2500    0.5000     0.500      12.0  3.0 MiB",
        "dense    0.1250 ▼  0.2500     0.500      12.0  3.0 MiB",
        "both     0.5000 ▲  1.0000     0.500      12.0  3.0 MiB",
    ]
    assert lines[6] == (
        "▲ ▼ better, worse than bm25: p < 0.05, two-sided paired t-test, Holm over 2 comparisons "
        "per measure"
    )
    assert "cats: 1,000 documents, 4 judged queries, 9 judgements" in lines
    assert "cats: two documents are empty" in lines
    assert "cats: judged among the first 10: bm25 25%, dense 25%, both 25%" in lines
    assert lines[-1] == "retrievekit 1.2.3, Python 3.11.7, 2 × Abacus"


def test_long_notes_are_wrapped() -> None:
    info = replace(INFOS[0], notes=("word " * 60,))
    lines = str(replace(SINGLE, datasets=(info,))).split("\n")
    assert max(len(line) for line in lines) <= 100
    assert sum(line.startswith("  word") for line in lines) >= 2
    assert "word " * 59 in replace(SINGLE, datasets=(info,)).to_markdown()


def test_mark_only_where_significant() -> None:
    for p, shown in ((0.0499, "0.5000 ▲"), (0.05, "0.5000  "), (1.0, "0.5000  ")):
        cells = (*SINGLE.cells[:2], cell("both", "cats", 0.5, contrast(0.25, p)))
        assert shown in str(replace(SINGLE, cells=cells)).split("\n")[4]


def test_disagreeing_tests_are_reported() -> None:
    cells = (*SINGLE.cells[:2], cell("both", "cats", 0.5, contrast(0.25, 0.04, q=0.06)))
    assert "both, nDCG@10: the randomisation test disagrees (p 0.06, t-test 0.04)" in str(
        replace(SINGLE, cells=cells)
    )
    assert "disagrees" not in str(SINGLE)


def several() -> Table:
    more = (cell("bm25", "bread", 0.5), cell("dense", "bread", 0.25), cell("both", "bread", 0.75))
    return replace(SINGLE, datasets=INFOS, cells=(*SINGLE.cells, *more))


def test_text_of_several_data_sets() -> None:
    lines = str(several()).split("\n")
    assert lines[0].startswith("data set   system")
    assert [line.split()[0] for line in lines[2:13] if line] == [
        "cats", "dense", "both", "bread", "dense", "both", "mean", "dense", "both",
    ]  # fmt: skip
    assert lines[10].split() == ["mean", "of", "2", "bm25", "0.3750", "0.7500"]
    assert several().means("bm25") == {"nDCG@10": (0.25 + 0.5) / 2, "R@100": (0.5 + 1.0) / 2}


def test_failure_is_shown_and_leaves_no_mean() -> None:
    failed = Cell("dense", "bread", error="CUDA\nout of memory")
    cells = tuple(
        failed if (c.system, c.dataset) == ("dense", "bread") else c for c in several().cells
    )
    table = replace(several(), cells=cells)
    text = str(table)
    assert "bread: dense failed: CUDA out of memory" in text
    row = next(line for line in text.split("\n")[7:] if line.strip().startswith("dense"))
    assert row.split() == ["dense", "failed", "-", "-", "-", "-"]
    assert table.means("dense") is None
    assert table.means("bm25") is not None
    assert table.failures == [failed]


def test_failure_is_shown_without_its_caret() -> None:
    failed = Cell("dense", "bread", error="no stage named 'x'\n  rrf(x)\n      ^ column 5")
    cells = tuple(
        failed if (c.system, c.dataset) == ("dense", "bread") else c for c in several().cells
    )
    table = replace(several(), cells=cells)
    assert "bread: dense failed: no stage named 'x'\n" in str(table)


def test_markdown() -> None:
    odd = replace(SINGLE, systems=("a|b",), cells=(replace(SINGLE.cells[0], system="a|b"),))
    lines = odd.to_markdown().split("\n")
    assert lines[0] == "| system | nDCG@10 | R@100 | ms/query | ms alone | index |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| a\\|b | 0.2500 | 0.5000 | 0.500 | 12.0 | 3.0 MiB |"
    assert "| 0.1250 ▼ |" in SINGLE.to_markdown()
    assert "- cats: two documents are empty" in SINGLE.to_markdown().split("\n")


FLOATS = st.floats(0, 1)


@given(
    st.lists(FLOATS, min_size=2, max_size=2),
    st.sampled_from([0.3, -0.3]),
    st.booleans(),
    st.none() | st.floats(0, 1e6),
)
def test_json_keeps_everything(
    values: list[float], difference: float, endless: bool, ms: float | None
) -> None:
    found = contrast(difference, values[0])
    if endless:  # the same difference on every query
        infinite = math.copysign(math.inf, difference)
        found = replace(found, t=infinite, effect_size=infinite)
    cells = (
        replace(cell("bm25", "cats", values[0]), ms_per_query=ms),
        cell("dense", "cats", values[1], found),
        Cell("both", "cats", error="no"),
    )
    table = replace(SINGLE, cells=cells)
    assert Table.from_dict(json.loads(table.to_json())) == table


def test_json_of_nothing_else() -> None:
    for plain in ({}, {"format": "other"}):
        with pytest.raises(DataError, match="no table of retrievekit"):
            Table.from_dict(plain)
    assert "means" not in SINGLE.to_dict()
    assert several().to_dict()["means"]["bm25"]["nDCG@10"] == 0.375
    assert "NaN" not in SINGLE.to_json()


def test_csv_has_one_line_per_figure() -> None:
    rows = list(csv.DictReader(io.StringIO(SINGLE.to_csv())))
    assert len(rows) == 3 * 2
    assert rows[0]["value"] == "0.25"
    assert rows[0]["p_adjusted"] == ""
    assert (rows[2]["system"], rows[2]["difference"], rows[2]["p_adjusted"]) == (
        "dense",
        "-0.125",
        "0.01",
    )
    assert rows[2]["baseline"] == "bm25"


def test_cells_are_found_by_name() -> None:
    assert SINGLE.cell("dense").values["nDCG@10"] == 0.125
    with pytest.raises(UnknownNameError, match="did you mean 'dense'"):
        SINGLE.cell("dens")
    with pytest.raises(UnknownNameError, match="no data set named 'dogs'"):
        SINGLE.cell("dense", "dogs")
    with pytest.raises(DataError, match="2 data sets; name one"):
        several().cell("dense")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.0004, "0.000"),
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (200 * 2**20, "200 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_size(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100%"), (0.9999, ">99%"), (0.5, "50%"), (0.004, "<1%"), (0.0, "0%")],
)
def test_a_share_is_all_or_nothing_only_where_it_is(value: float, text: str) -> None:
    assert _share(value) == text
