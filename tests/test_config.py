"""Expressions: what is printed parses back, what is wrong is pointed at, names lead to stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrievekit as rk
from retrievekit import registry
from retrievekit.bench.systems import IndexShelf
from retrievekit.config import (
    DEEPEST,
    BenchConfig,
    Call,
    Pipe,
    check_names,
    known_names,
    parse,
    read_config,
    resolve,
    written,
)
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    CompositionError,
    CorruptIndexError,
    DataError,
    DuplicateIdError,
    ExpressionError,
    MissingDataError,
    ParseError,
)
from retrievekit.index.bm25 import BM25Index
from retrievekit.literals import pointed
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage, Then

# Parsing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bm25", Call("bm25")),
        ("bm25()", Call("bm25")),
        (" ( bm25 ) ", Call("bm25")),
        ("bge-small.v1_5", Call("bge-small.v1_5")),
        ("bm25(k1=1.2, b=0.75)", Call("bm25", (), (("k1", 1.2), ("b", 0.75)))),
        ("top(100)", Call("top", (100,))),
        ("rrf(bm25, minilm,)", Call("rrf", (Call("bm25"), Call("minilm")))),
        ("bm25 >> top(-1e3)", Pipe((Call("bm25"), Call("top", (-1000.0,))))),
        ("a >> (b >> c) >> d", Pipe((Call("a"), Call("b"), Call("c"), Call("d")))),
        ("f(a >> b, (c))", Call("f", (Pipe((Call("a"), Call("b"))), Call("c")))),
        ("f([0.3, [1], 'x'], [])", Call("f", ((0.3, (1,), "x"), ()))),
        ("f(true, False, null, None)", Call("f", (True, False, None, None))),
        (r"""f("a\"\\\n\x41\u00e9\U0001F600", 'it\'s')""", Call("f", ('a"\\\nAé😀', "it's"))),
        ("f(\n  a,\n  b\n)", Call("f", (Call("a"), Call("b")))),
    ],
)
def test_texts_mean(text: str, expected: Any) -> None:
    assert parse(text) == expected
    assert parse(str(expected)) == expected


def test_types_survive_printing() -> None:
    # True == 1 == 1.0 in Python, so equality alone would not see a change of type.
    found = parse(written(parse("f(1, 1.0, true, '1', 0, 0.0, false)")))
    assert isinstance(found, Call)
    assert [type(value) for value in found.args] == [int, float, bool, str, int, float, bool]


NAMES = st.from_regex(r"[A-Za-z_é][A-Za-z0-9_]{0,8}([-.][A-Za-z0-9_]{1,4}){0,2}", fullmatch=True)
NAMES = NAMES.filter(lambda name: name not in {"true", "false", "null", "True", "False", "None"})
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"true", "false", "null"}
)
SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",))),
)
LITERALS = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


def calls(arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    keywords = st.dictionaries(KEYS, LITERALS, max_size=2).map(lambda d: tuple(d.items()))
    return st.builds(Call, NAMES, st.lists(arguments, max_size=3).map(tuple), keywords)


def pipelines(arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pipes = st.lists(calls(arguments), min_size=2, max_size=3).map(lambda c: Pipe(tuple(c)))
    return calls(arguments) | pipes


EXPRESSIONS = pipelines(st.recursive(LITERALS, pipelines, max_leaves=6))


@given(EXPRESSIONS)
def test_what_is_printed_parses_back(expression: Call | Pipe) -> None:
    text = str(expression)
    again = parse(text)
    assert again == expression
    assert str(again) == text
    assert "\n" not in text


@given(st.text(st.sampled_from(list("ab1 .-()[],=>'\"\\\ntrue")), max_size=30))
def test_any_text_parses_or_is_an_expression_error(text: str) -> None:
    try:
        found = parse(text)
    except ExpressionError:
        return
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("rrf(bm25, minilm", 17, "expected ',' or ')' in the brackets of rrf, but found the end"),
        ("rrf(bm25 minilm)", 10, "but found 'minilm'"),
        ("bm25 >> ", 9, "expected a name such as bm25, but found the end"),
        ("bm25 | minilm", 6, "pipelines are joined by '>>'"),
        ("bm25 > top(1)", 6, "pipelines are joined by '>>'"),
        ("bm25)", 5, "expected '>>' or the end"),
        ("(bm25", 6, "expected ')' after the pipeline in brackets"),
        ("100", 1, "expected a name such as bm25, but found '100'"),
        ("true", 1, "true is a value"),
        ("f(k=1, 2)", 8, "after k=... only settings"),
        ("f(k=1, k=2)", 8, "k is given twice"),
        ("f(k=bm25)", 5, "expected the value of k, but found 'bm25'; put it in quotes: 'bm25'"),
        ("f(k=)", 5, "expected the value of k, but found ')'"),
        ("f(a-b=1)", 3, "cannot be the name of a setting"),
        ("f('abc)", 3, "a string without its end"),
        (r"f('a\qb')", 5, r"unknown escape \q"),
        (r"f('\ud800')", 4, r"unknown escape \u"),
        ("f(1e999)", 3, "too large"),
        ("f([1, bm25])", 7, "expected a value"),
        ("f(a,, b)", 5, "expected a stage or a value, but found ','"),
        ("__import__('os').system", 17, "cannot read '.' here"),
        ("f(" * (DEEPEST + 1), 2 * DEEPEST + 2, f"nested more than {DEEPEST} deep"),
        ("f(" + "[" * DEEPEST, DEEPEST + 2, "nested"),
        ("f(" + "1" * 401 + ")", 3, "more than 400 characters"),
    ],
)
def test_errors_point_at_the_place(text: str, column: int, problem: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    message, line, caret = str(caught.value).split("\n")
    assert problem in message
    assert caret.endswith(f"^ column {column}")
    # The caret stands under the character that the column names.
    under = caret.index("^")
    assert (line + " ")[under] == (text + " ")[column - 1]


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_expressions(text: str) -> None:
    with pytest.raises(ExpressionError, match="empty expression"):
        parse(text)


def test_caret_in_long_and_many_lines() -> None:
    assert pointed("ab\ncd\nef", 4) == "  cd\n   ^ column 2"
    text = "x" * 500 + "!" + "y" * 500
    line, caret = pointed(text, 500, width=20).split("\n")
    assert line[caret.index("^")] == "!"
    assert line.strip().startswith("…x")
    assert line.endswith("y…")
    assert pointed("a\tb", 2) == "  a b\n    ^ column 3"


# Resolving ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Retriever(Stage[Queries, Run]):
    name_: str
    settings: tuple[Any, ...] = ()
    takes = Queries
    gives = Run

    def apply(self, batch: Queries) -> Run:
        raise AssertionError("resolving must not run anything")


@dataclass(frozen=True)
class Fused(Stage[Queries, Run]):
    arms: tuple[Stage[Queries, Run], ...]
    k: int
    takes = Queries
    gives = Run

    def apply(self, batch: Queries) -> Run:
        raise AssertionError("resolving must not run anything")


@dataclass(frozen=True)
class Cut(Stage[Run, Run]):
    n: int
    takes = Run
    gives = Run

    def apply(self, batch: Run) -> Run:
        raise AssertionError("resolving must not run anything")


def fused(*arms: Stage[Queries, Run], k: int = 60) -> Fused:
    if k < 1:
        raise DataError(f"k is {k}, but must be at least 1")
    return Fused(arms, k)


class ToyShelf:
    def retriever_names(self) -> Sequence[str]:
        return ["bm25", "minilm", "broken", "twice"]

    def retriever(
        self, name: str, args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Stage[Queries, Run]:
        if name == "broken":
            raise CorruptIndexError("my.index: block 3 differs")
        if name == "twice":
            raise DuplicateIdError("document id 'd1' given twice")
        if "zzz" in keywords:
            raise ExpressionError("no setting zzz; it takes k1, b, k")
        return Retriever(name, (*args, *sorted(keywords.items())))

    def documents(self, before: Stage[Any, Any] | None) -> Any:
        if before is None:
            raise ExpressionError("no words are known here")
        return ("words", before)

    def searched(self, before: Stage[Any, Any] | None) -> Any:
        return ("index", before)


@pytest.fixture(autouse=True)
def toy_names(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"fuse": {"rrf": f"{__name__}:fused"}, "cut": {"top": f"{__name__}:Cut"}}
    monkeypatch.setattr(registry, "_ENTRIES", entries)
    targets = {"rrf": fused, "top": Cut}
    monkeypatch.setattr(registry, "resolve", lambda kind, name: targets[name])


def test_names_become_stages() -> None:
    found = resolve("rrf(bm25(k1=1.2), minilm >> top(5), k=10) >> top(3)", ToyShelf())
    arms = (Retriever("bm25", (("k1", 1.2),)), Retriever("minilm") >> Cut(5))
    assert found == Then((Fused(arms, 10), Cut(3)))
    assert resolve(parse("bm25"), ToyShelf()) == Retriever("bm25")


def test_lists_reach_functions_as_lists() -> None:
    assert resolve("top([1, [2]])", ToyShelf()) == Cut([1, [2]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("rrf(bm52, minilm)", 5, "no stage named 'bm52'; did you mean 'bm25'?"),
        ("rrf(bm52, minilm)", 5, "known: bm25, broken, minilm, rrf, top, twice"),
        ("bm25 >> qqq(1)", 9, "known: bm25"),
        ("minilm >> bm25(zzz=1)", 11, "bm25: no setting zzz; it takes k1, b, k"),
        ("bm25(minilm)", 6, "bm25 takes settings, not stages; for the text 'minilm' use quotes"),
        (
            "rrf(bm25, kk=1)",
            1,
            "there is no setting 'kk' (did you mean 'k'?); it takes (arms..., k=60)",
        ),
        ("rrf(bm25, k=0)", 1, "rrf: k is 0, but must be at least 1"),
        ("bm25 >> top()", 9, "missing a required argument: 'n'; it takes (n)"),
    ],
)
def test_resolving_points_at_the_place(text: str, column: int, problem: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        resolve(text, ToyShelf())
    assert problem in str(caught.value)
    assert str(caught.value).endswith(f"^ column {column}")


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(CompositionError, match="put a feedback stage"):
        resolve("top(5) >> bm25", ToyShelf())
    with pytest.raises(CorruptIndexError, match="block 3"):
        resolve("broken", ToyShelf())
    with pytest.raises(DuplicateIdError, match="d1"):  # the documents' fault, not the expression's
        resolve("twice", ToyShelf())


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("rrf(bm25, bm52 >> top(zzz))", 11, "no stage named 'bm52'; did you mean 'bm25'?"),
        ("bm25 >> rrf(top(top(5), qqq))", 25, "no stage named 'qqq'"),
        ("rrf(bm25", 9, "expected ',' or ')'"),
    ],
)
def test_names_are_looked_up_without_making_anything(text: str, column: int, problem: str) -> None:
    check_names("rrf(broken, bm25(zzz=1), top([1, 2]))", ToyShelf())
    check_names(parse("bm25 >> top(5)"), ToyShelf())
    with pytest.raises(ExpressionError) as caught:
        check_names(text, ToyShelf())
    assert problem in str(caught.value)
    assert str(caught.value).endswith(f"^ column {column}")


def test_a_folder_is_named_by_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.index").mkdir()
    with pytest.raises(ExpressionError, match=r"the index in that folder is index\('my.index'\)"):
        resolve("rrf(bm25, my.index)", ToyShelf())


def test_known_names() -> None:
    assert known_names(ToyShelf()) == ["bm25", "broken", "minilm", "rrf", "top", "twice"]


# Conditions ---------------------------------------------------------------------------------------

DOCUMENTS = [
    Document(f"d{n}", "cat" + " cat" * n + " dog" * (5 - n), "", {"year": 2017 + n})
    for n in range(6)
]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> IndexShelf:
    monkeypatch.undo()  # the names of the library, not the toys
    return IndexShelf(Corpus.from_documents(DOCUMENTS), depth=5)


def test_conditions_mean_what_they_mean_in_python(shelf: IndexShelf) -> None:
    index = BM25Index.build(DOCUMENTS)
    bm25 = index.searcher(k=5)
    recent = index.searcher(k=5, where="year >= 2020")
    for text, stage in {
        "bm25(where='year >= 2020')": recent,
        "bm25(k=2, where='year>=2020')": index.searcher(k=2, where="year >= 2020"),
        "bm25(where=null)": bm25,
        "bm25 >> where('year >= 2020', bm25)": bm25 >> rk.where("year >= 2020", index),
        "rrf(bm25, bm25(where='year >= 2020')) >> where('year != 2021', bm25(k=1))": rk.rrf(
            bm25, recent
        )
        >> rk.where("year != 2021", bm25),
    }.items():
        check_names(text, IndexShelf(None))
        assert resolve(text, shelf).fingerprint == stage.fingerprint
    queries = Queries.from_texts(["cat", "dog"])
    before = resolve("bm25(where='year >= 2020')", shelf)(queries)
    assert {hit.doc_id for hits in before for hit in hits} == {"d3", "d4", "d5"}
    assert before == resolve("bm25(k=9) >> where('year >= 2020', bm25) >> top(5)", shelf)(queries)
    assert len(shelf.built) == 1  # a condition asks for no index of its own


@pytest.mark.parametrize(
    ("text", "column", "problem", "seen_early"),
    [
        ("top(1) >> bm25(where='year >')", 11, "bm25: expected a number", True),
        ("bm25 >> where('year >', bm25)", 9, "where: expected a number", True),
        ("bm25 >> where('', bm25)", 9, "where: an empty condition", True),
        ("bm25 >> where('year > 1')", 9, "missing a required argument: 'index'", False),
        ("bm25(where=5)", 1, "where is 5, but must be a text in quotes", False),
        ("bm25(where='yaer > 1')", 1, "no metadata column named 'yaer'; did you mean", False),
        ("bm25 >> where(5, bm25)", 9, "a condition is a text, not 5", False),
        ("bm25 >> where('year > 1', rrf(bm25))", 9, "neither an index nor a searcher", False),
        ("bm25 >> where('year > 1', 'bm25')", 9, "neither an index nor a searcher", False),
    ],
)
def test_wrong_conditions_are_pointed_at(
    shelf: IndexShelf, text: str, column: int, problem: str, seen_early: bool
) -> None:
    for seen, look in ((seen_early, check_names), (True, resolve)):
        if not seen:
            look(text, shelf)
            continue
        with pytest.raises(ExpressionError) as caught:
            look(text, shelf)
        assert problem in str(caught.value)
        assert str(caught.value).endswith(f"^ column {column}")


def test_a_condition_is_looked_at_before_anything_is_built(shelf: IndexShelf) -> None:
    with pytest.raises(ExpressionError, match="no metadata column"):
        resolve("bm25(where='yaer > 1')", shelf)
    assert not shelf.built


def test_an_index_that_exists_is_asked_its_own_columns(shelf: IndexShelf, tmp_path: Path) -> None:
    path = tmp_path / "my.index"
    BM25Index.build([Document("a", "cat", "", {"lang": "en"})], path)
    run = resolve(f"index('{path}', where='lang = \"en\"')", shelf)(Queries.from_texts(["cat"]))
    assert run.n_hits == 1
    with pytest.raises(ExpressionError, match="no metadata column named 'year'"):
        resolve(f"index('{path}', where='year > 1')", shelf)


def test_conditions_in_yaml(shelf: IndexShelf, tmp_path: Path) -> None:
    text = FULL.replace("bm25: bm25", 'bm25: bm25(where="year in (2019, 2020)")')
    config = read_config(saved(tmp_path, text))
    found = resolve(config.systems["bm25"], shelf)(Queries.from_texts(["cat"]))
    assert {hit.doc_id for hits in found for hit in hits} == {"d2", "d3"}
    assert read_config(saved(tmp_path, config.to_yaml())) == config


# YAML ---------------------------------------------------------------------------------------------

FULL = """\
systems:
  bm25: bm25
  hybrid: "rrf(bm25, minilm)"
data: [beir/scifact, stdlib]
measures: nDCG@10
baseline: bm25
output: out
depth: 100
"""


def saved(folder: Path, text: str) -> Path:
    path = folder / "bench.yaml"
    path.write_text(text, "utf-8")
    return path


def test_yaml_is_read(tmp_path: Path) -> None:
    assert read_config(saved(tmp_path, FULL)) == BenchConfig(
        {"bm25": "bm25", "hybrid": "rrf(bm25, minilm)"},
        ("beir/scifact", "stdlib"),
        ("nDCG@10",),
        "bm25",
        "out",
        100,
    )
    short = read_config(saved(tmp_path, "systems: [bm25, minilm]\ndata: stdlib\n"))
    assert short == BenchConfig({"bm25": "bm25", "minilm": "minilm"}, ("stdlib",))


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    lambda text: text.strip() != ""
)


@given(
    st.dictionaries(TEXTS, EXPRESSIONS.map(str), min_size=1, max_size=3),
    st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    st.none() | TEXTS,
    st.integers(1, 2000),
    st.booleans(),
)
def test_configs_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    systems: dict[str, str],
    data: tuple[str, ...],
    measures: tuple[str, ...],
    output: str | None,
    depth: int,
    compared: bool,
) -> None:
    baseline = next(iter(systems)) if compared else None
    config = BenchConfig(systems, data, measures, baseline, output, depth)
    path = saved(tmp_path_factory.getbasetemp(), config.to_yaml())
    assert read_config(path) == config


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("depth:", "deepth:", 8, "no setting named 'deepth'; did you mean 'depth'?"),
        ("depth: 100", "depth: 0", 8, "whole number of at least 1"),
        ("depth: 100", "depth: true", 8, "whole number"),
        ("depth: 100", "data: x", 8, "'data' is given twice"),
        ("  hybrid:", "  bm25:", 3, "'bm25' is given twice"),
        ("baseline: bm25", "baseline: bm26", 6, "one of the systems: bm25, hybrid"),
        ("measures: nDCG@10", "measures: [1]", 5, "a list of texts"),
        ("measures: nDCG@10", "measures: []", 5, "a list of texts"),
        ("  bm25: bm25\n", "  bm25: 25\n", 1, "see 'bm25'"),
        ("data: [beir/scifact, stdlib]", "data: {a: b}", 4, "a list of texts"),
        ("data: [beir/scifact, stdlib]\n", "", None, "'data' is missing"),
        ("output: out", "output: [", 9, "not YAML"),
        ("output: out", "output: !!python/object:os.x {}", 7, "not YAML"),
    ],
)
def test_wrong_yaml(tmp_path: Path, old: str, new: str, line: int | None, problem: str) -> None:
    assert FULL.count(old) == 1
    path = saved(tmp_path, FULL.replace(old, new))
    with pytest.raises(ParseError) as caught:
        read_config(path)
    assert problem in str(caught.value)
    assert caught.value.line == line


@pytest.mark.parametrize("text", ["", "- a\n", "systems: {}\ndata: x\n", "just text"])
def test_yaml_without_a_benchmark(tmp_path: Path, text: str) -> None:
    with pytest.raises(ParseError):
        read_config(saved(tmp_path, text))


def test_wrong_expression_in_yaml(tmp_path: Path) -> None:
    path = saved(tmp_path, FULL.replace("rrf(bm25, minilm)", "rrf(bm25"))
    with pytest.raises(ExpressionError, match="system 'hybrid'") as caught:
        read_config(path)
    assert "column 9" in str(caught.value)


def test_hostile_yaml(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    with pytest.raises(ParseError):
        read_config(saved(tmp_path, f"systems: s\n{bomb}data: *i\n"))
    with pytest.raises(ParseError):
        read_config(saved(tmp_path, "data: " + "[" * 5000))
    path = saved(tmp_path, "")
    path.write_bytes(b"systems: \xff")
    with pytest.raises(ParseError, match="not UTF-8 at byte 9"):
        read_config(path)
    with pytest.raises(MissingDataError, match=r"nowhere\.yaml"):
        read_config(tmp_path / "nowhere.yaml")
