"""Rewriters of queries: the papers' formulas, laws of stages, failures, switches, caches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit import BM25Index, Dataset, DenseIndex, Queries, benchmark, cached
from retrievekit.bench.systems import IndexShelf
from retrievekit.config import resolve
from retrievekit.errors import (
    DataError,
    EndpointError,
    ExpressionError,
    FingerprintError,
    FormError,
    LimitError,
    UnknownNameError,
)
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import Chat
from retrievekit.language.functions import FunctionModel
from retrievekit.language.seq2seq import Seq2SeqModel
from retrievekit.rewrite.drawing import AT_A_TIME, PATIENCE, cleaned, drawn
from retrievekit.rewrite.grf import GRF, mixed
from retrievekit.rewrite.hyde import HyDE
from retrievekit.rewrite.prompts import KINDS, asked
from retrievekit.rewrite.query2doc import KeywordQuery, Query2Doc, keywords_of
from retrievekit.rewrite.switches import AllBut, ByRule, ByWords
from retrievekit.testing import ToyEncoder, check_stage, toy_corpus
from retrievekit.trace import counting
from retrievekit.vectors import DenseVectors, WeightedTerms
from tests import test_language_endpoint
from tests.test_language_endpoint import Service
from tests.test_language_endpoint import model as endpoint
from tests.tiny_chats import chatter_of, t5_of, t5_tokenizer, tokenizer_for_chats
from tests.tiny_decoders import one_thread  # noqa: F401

service = test_language_endpoint.service
TOY = toy_corpus()
BM25 = BM25Index.build(TOY.corpus)
DENSE = DenseIndex.build(TOY.corpus, ToyEncoder(64))
ASKED = Queries.from_texts(
    {"a": "which animal purrs", "b": "", "c": "brakes in the rain", "d": "  ", "e": "tides"}
)


class Writer:
    """Writes by a rule of the prompt and of how often it came before in the call; counts calls."""

    def __init__(self, rule: Callable[[str, int], str]) -> None:
        self.rule = rule
        self.calls: list[int] = []

    def __call__(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        self.calls.append(len(chats))
        before: dict[Chat, int] = {}
        out = []
        for chat in chats:
            draw = before[chat] = before.get(chat, -1) + 1
            out.append(self.rule(chat[-1].content, draw))
        return out


class Always(Writer):
    """Always writes the same."""

    def __init__(self, text: str) -> None:
        super().__init__(lambda prompt, draw: text)


def writing(rule: Callable[[str, int], str], **settings: Any) -> FunctionModel:
    return FunctionModel(Writer(rule), **{"version": "1", **settings})


def echo(prompt: str, draw: int) -> str:
    """A text about the query, another one in each draw."""
    words = prompt.split("\n\n")[1].partition(": ")[2]
    return f"{words} cat train {'moon ' * draw}"


def counts_of(stage: Any, queries: Queries) -> dict[str, int]:
    return dict(stage(queries).trace[-1].counts)


# Formulas -----------------------------------------------------------------------------------------


class Fixed:
    """An encoder whose vectors are written down."""

    dim = 2
    similarity = "dot"
    card = ToyEncoder(8).card

    def __init__(self, vectors: dict[str, list[float]], similarity: str = "dot") -> None:
        self.vectors = vectors
        self.similarity = similarity

    def encode_query(self, texts: Sequence[str]) -> Any:
        return np.array([self.vectors[f"q:{text}"] for text in texts], np.float32)

    def encode_document(self, texts: Sequence[str]) -> Any:
        return np.array([self.vectors[f"d:{text}"] for text in texts], np.float32)


def test_hyde_worked_value() -> None:
    encoder: Any = Fixed({"q:x": [1, 0], "d:one": [0, 1], "d:two": [0, 1]})
    model = writing(lambda prompt, draw: ["one", "two"][draw])
    form = HyDE(model, encoder, documents=2)(Queries.from_texts(["x"])).form
    assert isinstance(form, DenseVectors)
    np.testing.assert_allclose(form.array, [[1 / 3, 2 / 3]], atol=1e-7)


def test_hyde_takes_the_mean_of_directions_under_cosine() -> None:
    vectors = {"q:x": [3.0, 0], "d:one": [0, 5.0]}
    model = writing(lambda prompt, draw: "one")
    for similarity, expected in (("cosine", [1 / 2, 1 / 2]), ("dot", [3 / 2, 5 / 2])):
        encoder: Any = Fixed(vectors, similarity)
        form = HyDE(model, encoder, documents=1)(Queries.from_texts(["x"])).form
        assert isinstance(form, DenseVectors)
        np.testing.assert_allclose(form.array, [expected], atol=1e-7)


def test_hyde_is_the_plain_mean_of_each_query() -> None:
    encoder = ToyEncoder(64)
    stage = HyDE(writing(echo), encoder, documents=3)
    found = stage(TOY.queries)
    assert isinstance(found.form, DenseVectors)
    for row, text in enumerate(TOY.queries.texts):
        written = [echo(stage.chats(text)[0][0].content, draw).strip() for draw in range(3)]
        vectors = [encoder.encode_query([text])[0], *encoder.encode_document(written)]
        np.testing.assert_allclose(found.form.array[row], np.mean(vectors, axis=0), atol=1e-6)


def test_query2doc_worked_value() -> None:
    queries = Query2Doc(writing(lambda prompt, draw: "alpha beta"))(Queries.from_texts(["alpha"]))
    assert BM25.query_terms(queries) == [{"alpha": 6.0, "beta": 1.0}]
    assert queries.texts == ["alpha"]


def test_query2doc_joins_for_dense_indexes_by_a_separator() -> None:
    model = writing(lambda prompt, draw: " a passage\n")
    one = Queries.from_texts(["q"])
    assert Query2Doc(model, joined="dense")(one).rewritten_texts == ["q [SEP] a passage"]
    stage = Query2Doc(model, joined="dense", separator="</s>")
    assert stage(one).rewritten_texts == ["q </s> a passage"]
    assert Query2Doc(model, repeats=0)(one).rewritten_texts == ["a passage"]


def test_examples_stand_before_the_question() -> None:
    seen: list[str] = []

    def rule(prompt: str, draw: int) -> str:
        seen.append(prompt)
        return "x"

    Query2Doc(
        writing(rule), prompt="Q {query} P", examples=(("one {query}", "first"), ("two", "second"))
    )(Queries.from_texts(["{query} {three}"]))
    assert seen == ["Q one {query} P first\n\nQ two P second\n\nQ {query} {three} P"]


def test_grf_worked_value() -> None:
    found = mixed({"a": 1, "b": 1}, [{"a": 1}, {"c": 3}], 0.5, 10)
    assert found == pytest.approx({"a": 0.375, "b": 0.25, "c": 0.375})


def test_grf_keeps_the_heaviest_terms_of_all_texts_together() -> None:
    texts = [{"b": 2.0, "a": 2.0, "z": 1.0}, {"z": 3.0, "y": 1.0}]
    # z weighs 4, a and b 2 each, of which a comes first.
    found = mixed({"q": 2}, texts, 0.25, 2)
    assert found == pytest.approx({"q": 0.25, "z": 0.75 * 4 / 6, "a": 0.75 * 2 / 6})
    assert mixed({}, texts, 0.5, 1) == pytest.approx({"z": 0.5})
    assert mixed({"q": 2}, [], 0.5, 1) == pytest.approx({"q": 0.5})


def test_grf_asks_for_each_kind_and_counts_terms_of_the_joined_texts() -> None:
    texts = {kind: f"{kind} purring cats cats" for kind in KINDS}
    by_prompt = {asked(KINDS[kind], "{query}", "cats")[0].content: t for kind, t in texts.items()}
    model = writing(lambda prompt, draw: by_prompt[prompt])
    stage = GRF(model, BM25, terms=1000, query_weight=0.4)
    form = stage(Queries.from_texts(["cats"])).form
    assert isinstance(form, WeightedTerms)
    counts = BM25.analyzer.counts(" ".join(texts.values()))
    total = sum(counts.values())
    expected = {term: 0.6 * n / total for term, n in counts.items()}
    expected["cat"] += 0.4
    assert form.row(0) == pytest.approx(expected, abs=1e-6)
    fewer = GRF(model, BM25, kinds=("facts",))(Queries.from_texts(["cats"])).form
    assert isinstance(fewer, WeightedTerms)
    assert set(fewer.row(0)) == {"cat", "fact", "pur"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cats, dogs", ["cats", "dogs"]),
        ("1. cats\n2) dogs\n- \"birds\"\n• fish.", ["cats", "dogs", "birds", "fish"]),
        ("Cats; cats, CATS, 3 mice", ["Cats", "3 mice"]),
        (" ,;\n- ", []),
        ("", []),
    ],
)  # fmt: skip
def test_keywords_of_lists(text: str, expected: list[str]) -> None:
    assert keywords_of(text) == expected


def test_keyword_queries() -> None:
    one = Queries.from_texts(["q"])
    model = writing(lambda prompt, draw: "1. cats\n2. dogs\n3. cats")
    assert KeywordQuery(model, repeats=2)(one).rewritten_texts == ["q q cats dogs"]
    none = KeywordQuery(writing(lambda prompt, draw: "1. ,\n2. ."))
    assert none(one).rewritten_texts == ["q"]
    assert counts_of(none, one)["queries left as they are, nothing being written"] == 1


# Laws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage",
    [
        HyDE(writing(echo), ToyEncoder(64), documents=3),
        HyDE(writing(echo), DENSE, documents=1, switch=ByWords(most=2)),
        Query2Doc(writing(echo)),
        Query2Doc(writing(lambda prompt, draw: ""), joined="dense"),
        KeywordQuery(writing(echo), switch=AllBut(frozenset({"tides"}))),
        GRF(writing(echo), BM25, kinds=("facts", "news"), terms=3),
    ],
    ids=str,
)
def test_laws(stage: Any) -> None:
    twice = Queries.from_texts({**dict(zip(ASKED.ids, ASKED.texts, strict=True)), "f": "tides"})
    check_stage(stage, twice, atol=1e-6)


@pytest.mark.parametrize("model", ["causal", "seq2seq"])
def test_small_models_draw_by_seed_and_prompt_alone(model: str, tmp_path: Path) -> None:
    def made(seed: int) -> Any:
        settings = {"temperature": 1.0, "seed": seed}
        if model == "causal":
            return CausalModel.of(chatter_of("llama"), tokenizer_for_chats(), "tiny", **settings)
        return Seq2SeqModel.of(t5_of(), t5_tokenizer(), "tiny", **settings)

    stage = Query2Doc(made(0), max_new_tokens=8)
    check_stage(stage, ASKED)
    other = Query2Doc(made(1), max_new_tokens=8)
    assert stage.fingerprint != other.fingerprint
    assert stage(ASKED).rewritten_texts != other(ASKED).rewritten_texts
    hyde = HyDE(made(0), DENSE, documents=3, max_new_tokens=8)
    told = hyde.explained(ASKED, "a")
    assert len(set(told.texts)) > 1
    run = (hyde >> DENSE.searcher(5))(ASKED)
    assert run.trace[0].name == "hyde"


def test_left_queries_find_what_they_found() -> None:
    switch = AllBut.of(TOY.queries, list(TOY.queries.ids)[::2])
    bare = {"bm25": BM25.searcher(10)(TOY.queries), "dense": DENSE.searcher(10)(TOY.queries)}
    for name, stage, search in (
        ("bm25", Query2Doc(writing(echo), switch=switch), BM25.searcher(10)),
        ("bm25", GRF(writing(echo), BM25, switch=switch), BM25.searcher(10)),
        ("dense", HyDE(writing(echo), DENSE, switch=switch, documents=2), DENSE.searcher(10)),
    ):
        found = (stage >> search)(TOY.queries)
        same = [a.doc_ids == b.doc_ids for a, b in zip(found, bare[name], strict=True)]
        assert all(same[::2])
        assert not all(same[1::2])
        for row in range(0, len(same), 2):
            scores = [[hit.score for hit in list(run)[row]] for run in (found, bare[name])]
            assert scores[0] == scores[1]
        counted = dict(found.trace[0].counts)
        assert counted["queries switched off"] == len(same[::2])


# Switches -----------------------------------------------------------------------------------------


def test_switches_decide_by_words() -> None:
    assert [ByWords(2, 3)(text) for text in ("a", "a b", "a b c", "a b c d")] == [
        False, True, True, False,
    ]  # fmt: skip
    column = AllBut.of(TOY.queries, {"q1": False, "q2": True})
    assert column == AllBut.of(TOY.queries, ["q1"])
    assert [column(text) for text in TOY.queries.texts[:3]] == [False, True, True]
    rule = ByRule(lambda text: "cat" in text, "1")
    assert [rule("cats"), rule("dogs")] == [True, False]
    stages = [Query2Doc(writing(echo), switch=s) for s in (None, column, rule, ByWords(2))]
    assert len({stage.fingerprint for stage in stages}) == 4


def test_switches_refuse_what_they_cannot_keep() -> None:
    twins = Queries.from_texts({"a": "cats", "b": "cats"})
    with pytest.raises(DataError, match="equal queries fare alike"):
        AllBut.of(twins, {"a": False, "b": True})
    assert not AllBut.of(twins, ["a"])("cats")
    with pytest.raises(DataError, match="a list of query ids"):
        AllBut.of(twins, "a")
    with pytest.raises(UnknownNameError):
        AllBut.of(twins, ["c"])
    for least, most in ((3, 2), (-1, None), (0, True)):
        with pytest.raises(DataError, match="words"):
            ByWords(least, most)
    with pytest.raises(FingerprintError, match="version"):
        ByRule(len, "")
    with pytest.raises(DataError, match="switch is such as"):
        Query2Doc(writing(echo), switch=["q1"])  # type: ignore[arg-type]


# Failures -----------------------------------------------------------------------------------------


def failing_on(bad: str) -> FunctionModel:
    def rule(prompt: str, draw: int) -> str:
        if bad in prompt:
            raise EndpointError("refused")
        return echo(prompt, draw)

    return writing(rule)


def test_a_query_that_a_service_refuses_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    many = Queries.from_texts([f"cats {n} end" for n in range(150)])
    stage = Query2Doc(failing_on("cats 77 end"))
    with caplog.at_level(logging.WARNING):
        found = stage(many)
    expected = Query2Doc(writing(echo))(many).rewritten_texts
    expected[77] = "cats 77 end"
    assert found.rewritten_texts == expected
    counts = dict(found.trace[-1].counts)
    assert counts["prompts that failed"] == 1
    assert counts["queries left as they are, nothing being written"] == 1
    assert counts["generated texts"] == 149
    assert "refused" in caplog.text
    assert "1 of 150 queries stay as they are" in caplog.text


def test_many_single_failures_are_no_dead_service(caplog: pytest.LogCaptureFixture) -> None:
    many = Queries.from_texts([f"cats {'bad' if n % 3 else 'fine'} {n}" for n in range(99)])
    found = Query2Doc(failing_on("bad"))(many).rewritten_texts
    left = [text == words for text, words in zip(found, many.texts, strict=True)]
    assert left == [n % 3 > 0 for n in range(99)]


def test_a_dead_service_is_not_asked_forever(caplog: pytest.LogCaptureFixture) -> None:
    model = failing_on("")
    many = Queries.from_texts([f"cats {n}" for n in range(3 * AT_A_TIME)])
    found = Query2Doc(model)(many)
    assert found.rewritten_texts == many.texts
    assert len(model._generate.calls) == PATIENCE  # type: ignore[union-attr]
    counts = dict(found.trace[-1].counts)
    lost = counts["prompts that failed"] + counts["prompts not asked, the service being dead"]
    assert lost == len(many)
    assert counts["queries left as they are, nothing being written"] == len(many)
    chats = [asked("{query}", "{query}", text) for text in many.texts]
    with pytest.raises(EndpointError, match="refused"):
        drawn(failing_on(""), chats, draws=1, max_new_tokens=1, lasting=True)


def test_empty_answers_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    model = writing(lambda prompt, draw: "" if draw == 1 or "tides" in prompt else "cat")
    stage = HyDE(model, ToyEncoder(64), documents=3)
    counts = counts_of(stage, ASKED)
    assert counts["queries without words"] == 2
    assert counts["generated texts"] == 9
    assert counts["empty answers"] == 2 + 3
    assert counts["queries left as they are, nothing being written"] == 1
    assert len(stage.explained(ASKED, "a").texts) == 2
    assert stage.explained(ASKED, "e").texts == ()


def test_grf_does_without_a_kind_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    mark = KINDS["facts"][:10]
    one = Queries.from_texts(["tides"])
    assert (
        GRF(failing_on(mark), BM25, kinds=("facts", "news"))(one)
        == GRF(writing(echo), BM25, kinds=("news",))(one)
    )  # fmt: skip


def test_prompts_too_long_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    model = CausalModel.of(chatter_of("llama"), tokenizer_for_chats(), "tiny")
    long = Queries.from_texts(["moon " * 3000, "cat"])
    found = Query2Doc(model, max_new_tokens=4)(long)
    assert found.rewritten_texts[0] == "moon " * 3000
    assert found.rewritten_texts[1].startswith("cat cat cat cat cat ")
    assert dict(found.trace[-1].counts)["prompts too long"] == 1


def test_a_cap_ends_the_work() -> None:
    def capped(chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        raise LimitError("the cap of 3 requests is reached")

    with pytest.raises(LimitError, match="cap"):
        Query2Doc(FunctionModel(capped, version="1"))(ASKED)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (" a b \n", "a b"),
        ("<think>hm\n</think>\n\nfine", "fine"),
        ("<think>never ends", ""),
        ("</think>", ""),
        ("lone \ud800 half", "lone ? half"),
    ],
)
def test_answers_are_cleaned(said: str, text: str) -> None:
    assert cleaned(said) == text


def test_queries_that_are_no_words_are_refused() -> None:
    vectors = HyDE(writing(echo), DENSE, documents=1)(ASKED)
    with pytest.raises(FormError, match="text is needed"):
        Query2Doc(writing(echo))(vectors)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Query2Doc("folder"), "something with generate"),
        (lambda: Query2Doc(writing(echo), joined="both"), "'sparse' or 'dense'"),
        (lambda: Query2Doc(writing(echo), prompt="Write."), "{query}"),
        (lambda: Query2Doc(writing(echo), repeats=-1), "repeats"),
        (lambda: Query2Doc(writing(echo), examples=("q", "d")), "pairs"),
        (lambda: Query2Doc(writing(echo), max_new_tokens=0), "max_new_tokens"),
        (lambda: HyDE(writing(echo), BM25), "Query2Doc"),
        (lambda: HyDE(writing(echo), DENSE, documents=0), "documents"),
        (lambda: HyDE(CausalModel("folder"), DENSE), "temperature"),
        (lambda: GRF(writing(echo), DENSE), "HyDE"),
        (lambda: GRF(writing(echo), BM25, kinds=()), "kinds"),
        (lambda: GRF(writing(echo), BM25, query_weight=1.5), "query_weight"),
        (lambda: GRF(writing(echo), BM25, terms=0), "terms"),
        (lambda: GRF(writing(echo), BM25, kinds=("fact",)), "facts"),
    ],
)
def test_settings_are_checked(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises((DataError, UnknownNameError), match=problem):
        make()


class Refusing(list[int]):
    """The next failure of a service: one for each prompt that holds a word."""

    def __init__(self, service: Service, word: str) -> None:
        self.service, self.word = service, word

    def __bool__(self) -> bool:
        return self.word in self.service.requests[-1]["messages"][0]["content"]

    def pop(self, _: Any = -1) -> int:
        return 400


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_service_that_refuses_one_prompt(
    service: Service, concurrency: int, caplog: pytest.LogCaptureFixture
) -> None:
    service.failures = Refusing(service, "purrs")
    stage = Query2Doc(endpoint(service, concurrency=concurrency))
    assert not stage.deterministic
    found = stage(ASKED)
    assert found.rewritten_texts[0] == ASKED.texts[0]
    assert [text.split()[:1] for text in found.rewritten_texts[2::2]] == [["brakes"], ["tides"]]
    assert len(found.rewritten_texts[4].split()) == 5 + 1
    counts = dict(found.trace[-1].counts)
    assert counts["prompts that failed"] == 1


def test_draws_of_a_service_have_seeds_of_their_own(service: Service) -> None:
    model = endpoint(service, temperature=0.7, seed=5)
    HyDE(model, ToyEncoder(64), documents=3)(Queries.from_texts(["tides", "tides", "cats"]))
    sent = [(one["messages"][0]["content"][-13:], one["seed"]) for one in service.requests]
    assert len(sent) == 6
    assert {seed for _, seed in sent} == {5, 6, 7}
    with pytest.raises(DataError, match="temperature"):
        HyDE(endpoint(service), ToyEncoder(64), documents=3)


# Caches -------------------------------------------------------------------------------------------


def test_what_was_written_is_kept_by_content(tmp_path: Path) -> None:
    def made(version: str = "1", **settings: Any) -> tuple[Any, Writer]:
        model = writing(echo, version=version)
        return Query2Doc(model, cache=tmp_path / "kept", **settings), model._generate  # type: ignore[return-value]

    first, writer = made()
    expected = first(ASKED).rewritten_texts
    assert writer.calls == [3]
    again, writer = made()
    assert again(ASKED).rewritten_texts == expected
    assert writer.calls == []
    assert counts_of(again, ASKED)["texts from the cache"] == 3
    assert again.fingerprint == first.fingerprint == Query2Doc(writing(echo)).fingerprint
    for other in ({"version": "2"}, {"max_new_tokens": 9}, {"prompt": "a\n\nb: {query}"}):
        stage, writer = made(**other)
        stage(ASKED)
        assert writer.calls == [3], other
    more = Queries.from_texts({"n": "new", "a": ASKED.texts[0]})
    stage, writer = made()
    stage(more)
    assert writer.calls == [1]


def test_empty_answers_are_asked_again_where_that_may_help(tmp_path: Path) -> None:
    one = Queries.from_texts(["tides"])
    for deterministic, expected in ((False, ["tides", "moon"]), (True, ["tides", "tides"])):
        found = []
        for said in ("", "moon"):
            model = FunctionModel(Always(said), version="1", deterministic=deterministic)
            stage = Query2Doc(model, repeats=0, cache=tmp_path / str(deterministic))
            found += stage(one).rewritten_texts
        assert found == expected


def test_a_cache_needs_a_fingerprint(tmp_path: Path) -> None:
    stage = Query2Doc(FunctionModel(Writer(echo)), cache=tmp_path / "kept")
    with pytest.raises(FingerprintError, match="version"):
        stage(ASKED)


def test_stages_can_be_cached_whole(tmp_path: Path) -> None:
    for stage in (Query2Doc(writing(echo)), HyDE(writing(echo), DENSE, documents=2)):
        kept = cached(stage, tmp_path)
        first, again = kept(ASKED), kept(ASKED)
        assert first == again == stage(ASKED)
        assert kept.info().hits == len(ASKED)  # type: ignore[attr-defined]
    remote = Query2Doc(writing(echo, deterministic=False))
    assert not remote.deterministic
    with pytest.raises(FingerprintError, match="allow_nondeterministic"):
        cached(remote, tmp_path)


@given(st.lists(st.sampled_from(["a", "b", "c", "d e"]), max_size=6), st.integers(1, 3))
def test_equal_queries_are_asked_once_and_fare_alike(texts: list[str], draws: int) -> None:
    writer = Writer(lambda prompt, draw: f"{prompt} {draw}")
    chats = [asked("{query}", "{query}", text) for text in texts]
    with counting():
        found = drawn(FunctionModel(writer), chats, draws=draws, max_new_tokens=1)
    assert sum(writer.calls) == draws * len(set(texts))
    for text, own in zip(texts, found, strict=True):
        assert own.texts == tuple(f"{text} {draw}" for draw in range(draws))


# What is told -------------------------------------------------------------------------------------


def test_written_words_are_shown() -> None:
    model = writing(lambda prompt, draw: f"purring cats {draw}")
    one = Queries.from_texts({"x": "tides"})
    told = Query2Doc(model, repeats=1).explained(one)
    assert str(told).splitlines() == [
        "query x: tides", "  wrote: purring cats 0", "  asks:  tides purring cats 0",
    ]  # fmt: skip
    pipe = HyDE(model, DENSE, documents=2) >> DENSE.searcher(100)
    first, second = pipe.explain("tides", "cats-1")
    assert first["parts"] == pytest.approx({"purring cats 0": 1 / 3, "purring cats 1": 1 / 3})
    assert second["score"] > 0.1
    terms = GRF(model, BM25, kinds=("facts",)).explain_parts(one, "cats-1")
    assert terms == pytest.approx({"tide": -0.5, "0": 1 / 6, "cat": 1 / 6, "pur": 1 / 6}, abs=1e-6)
    with pytest.raises(DataError, match="name the one"):
        Query2Doc(model).explained(ASKED)
    assert repr(Query2Doc(model, repeats=1)) == "Query2Doc(FunctionModel('functions'), repeats=1)"


# Expressions --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("writer")
    tokenizer = tokenizer_for_chats()
    chatter_of("llama").save_pretrained(root)
    tokenizer.save_pretrained(root)
    return root


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexShelf:
    monkeypatch.setenv("RETRIEVEKIT_CACHE", str(tmp_path))
    made = IndexShelf(TOY.corpus, depth=5)
    made._encoders[("dense", "toy")] = ToyEncoder(64)
    return made


def test_expressions(folder: Path, shelf: IndexShelf, tmp_path: Path) -> None:
    settings = f"'{folder}', max_new_tokens=4"
    for name, joined in (("query2doc", "sparse"), ("keywords", "sparse")):
        pipe = resolve(f"{name}({settings}, temperature=1.0) >> bm25", shelf)
        assert pipe.stages[0].joined == joined  # type: ignore[attr-defined]
        run = pipe(TOY.queries.take(np.arange(3)))
        assert len(run) == 3
        words = run.queries.rewritten_texts[0]
        assert words.startswith(f"{TOY.queries.texts[0]} " * 5)
        assert len(words.split()) > 5 * len(TOY.queries.texts[0].split())
    run = resolve(f"grf({settings}, kinds=['facts', 'news']) >> bm25", shelf)(ASKED)
    assert isinstance(run.queries.form, WeightedTerms)
    assert (tmp_path / "written.sqlite").exists()
    inner = resolve(f"rrf(bm25, query2doc({settings}, most_words=3) >> bm25(k=3))", shelf)
    assert len(inner(ASKED)) == len(ASKED)
    passages = f"query2doc({settings}, cache=false) >> bm25(passages=5) >> top(2)"
    assert len(resolve(passages, shelf)(ASKED)) == len(ASKED)
    two = resolve(f"keywords({settings}) >> query2doc({settings}, off=['tides']) >> bm25", shelf)
    assert [stage.name for stage in two.stages[:2]] == ["keywords", "query2doc"]  # type: ignore[attr-defined]


def test_expressions_point_at_what_is_wrong(folder: Path, shelf: IndexShelf) -> None:
    for text, problem in (
        (f"hyde('{folder}') >> bm25", "Query2Doc"),
        (f"query2doc('{folder}')", "put a searcher behind it"),
        (f"query2doc('{folder}', repeat=2) >> bm25", "repeats"),
        (f"query2doc('{folder}', key_variable='K') >> bm25", "url="),
        (f"query2doc('{folder}', most_words=2, off=['a']) >> bm25", "not both"),
        (f"query2doc('{folder}', off='a') >> bm25", "a list of the words"),
        (f"hyde('{folder}', temperature=0, documents=2) >> bm25", "temperature"),
        ("query2doc() >> bm25", "model"),
    ):
        with pytest.raises(ExpressionError, match=problem):
            resolve(text, shelf)


def test_hyde_takes_the_index_behind_it(folder: Path, tmp_path: Path, shelf: IndexShelf) -> None:
    DenseIndex.build(TOY.corpus, ToyEncoder(64), tmp_path / "toy.index")
    text = f"hyde(model='{folder}', documents=2, max_new_tokens=4, seed=3)"
    pipe: Any = resolve(f"{text} >> index('{tmp_path / 'toy.index'}')", shelf)
    assert pipe.stages[0].model.temperature == 0.7
    assert pipe.stages[0].model.seed == 3
    index = pipe.stages[1].index
    assert pipe.stages[0].encoder is index
    object.__setattr__(index, "encoder", ToyEncoder(64))
    run = pipe(ASKED)
    assert isinstance(run.queries.form, DenseVectors)
    assert run.queries.form.encoder == index.card.fingerprint


def test_benchmarks_tell_no_time_of_what_is_kept(tmp_path: Path) -> None:
    data = Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels)
    search = BM25.searcher(10)
    systems = {
        "kept": Query2Doc(writing(echo), cache=tmp_path / "kept") >> search,
        "asked": Query2Doc(writing(echo)) >> search,
    }
    table = benchmark(systems, data=[data], measures=["nDCG@10"])
    kept, asked_anew = (table.cell(name, "toy") for name in systems)
    assert kept.ms_per_query is kept.ms_alone is None
    assert asked_anew.ms_per_query is not None
    assert kept.values == asked_anew.values
