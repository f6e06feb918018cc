"""doc2query and doc2query--: what is written and kept, one threshold, work that is interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrievekit import BM25Index, Corpus, Document
from retrievekit.data.records import read_corpus
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EndpointError,
    FingerprintError,
    LockedError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.language.causal import CausalModel
from retrievekit.language.chat import Chat
from retrievekit.language.functions import FunctionModel
from retrievekit.language.seq2seq import Seq2SeqModel
from retrievekit.rerank.cross_encoder import CrossEncoderReranker
from retrievekit.rewrite.doc2query import Doc2Query, Expansion
from retrievekit.rewrite.drawing import PATIENCE
from retrievekit.rewrite.fitting import first_words, fitted
from retrievekit.rewrite.named import doc2query
from retrievekit.rewrite.prompts import ASKED, asked
from retrievekit.rewrite.threshold import share_threshold
from retrievekit.store.files import Files, Lock, use_files
from retrievekit.testing import toy_corpus
from tests.test_cli_verbs import call
from tests.tiny_chats import chatter_of, t5_of, t5_tokenizer, tokenizer_for_chats
from tests.tiny_classifiers import save_classifier
from tests.tiny_decoders import one_thread  # noqa: F401

TOY = toy_corpus()
SMALL = Corpus.from_documents(
    [
        Document("a", "cats purr", "Cats", {"year": 2001}),
        Document("b", "dogs bark"),
        Document("c", ""),
        Document("d", "", "Moon"),
        Document("e", "dogs bark", metadata={"year": 2003}),
    ]
)


class Writer:
    """Writes the document's first word and the number of the draw; counts the prompts."""

    def __init__(self, rule: Callable[[str, int], str] | None = None) -> None:
        self.rule = rule or (lambda text, draw: f"{text.split()[0]} {draw}")
        self.asked: list[str] = []

    def __call__(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        before: dict[Chat, int] = {}
        out = []
        for chat in chats:
            draw = before[chat] = before.get(chat, -1) + 1
            text = chat[-1].content.split("\n\n")[1].partition(": ")[2]
            self.asked += [text] if not draw else []
            out.append(self.rule(text, draw))
        return out


class Scores:
    """Scores a pair by a rule."""

    fingerprint = "scores"

    def __init__(self, rule: Callable[[str, str], float]) -> None:
        self.rule = rule

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
        return np.array([self.rule(query, text) for query, text in pairs], np.float32)


def expander(writer: Writer | None = None, version: str = "1", **settings: Any) -> Doc2Query:
    return Doc2Query(FunctionModel(writer or Writer(), version=version), **settings)


# What is written ----------------------------------------------------------------------------------


def test_queries_stand_behind_the_text() -> None:
    found = SMALL >> expander(queries=2)
    assert [(d.doc_id, d.title, d.text, dict(d.metadata)) for d in found] == [
        ("a", "Cats", "cats purr Cats 0 Cats 1", {"year": 2001}),
        ("b", "", "dogs bark dogs 0 dogs 1", {}),
        ("c", "", "", {}),
        ("d", "Moon", "Moon 0 Moon 1", {}),
        ("e", "", "dogs bark dogs 0 dogs 1", {"year": 2003}),
    ]
    assert SMALL["a"].text == "cats purr"


def test_an_index_finds_by_written_queries() -> None:
    writer = Writer(lambda text, draw: "feline" if "cat" in text.lower() else "canine")
    index = BM25Index.build(SMALL >> expander(writer, queries=1))
    assert index.searcher(k=9).search("feline").doc_ids == ["a"]
    streamed = BM25Index.build(expander(writer, queries=1).documents(SMALL))
    assert streamed.corpus.content_hash == index.corpus.content_hash


@given(st.integers(1, 7), st.integers(1, 3))
def test_parts_do_not_matter(part: int, queries: int) -> None:
    whole = expander(queries=queries)(SMALL)
    assert expander(queries=queries, part=part)(SMALL).content_hash == whole.content_hash


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_small_models_draw_by_seed_and_document_alone(kind: str) -> None:
    def made(seed: int) -> Any:
        settings = {"temperature": 1.0, "seed": seed}
        if kind == "causal":
            return CausalModel.of(chatter_of("llama"), tokenizer_for_chats(), "tiny", **settings)
        return Seq2SeqModel.of(t5_of(), t5_tokenizer(), "tiny", **settings)

    few = TOY.corpus.take(np.arange(4))
    whole = Doc2Query(made(0), queries=2, max_new_tokens=6)(few)
    alone = Doc2Query(made(0), queries=2, max_new_tokens=6, part=1)(few)
    assert [d.text for d in whole] == [d.text for d in alone]
    other = Doc2Query(made(1), queries=2, max_new_tokens=6)(few)
    assert [d.text for d in whole] != [d.text for d in other]
    assert all(a.text.startswith(b.text) for a, b in zip(whole, few, strict=True))


def test_passages_stay_passages() -> None:
    cut = TOY.corpus.passages(words=5)
    assert (cut >> expander()).window == cut.window is not None


def test_nothing_to_expand() -> None:
    nothing = Corpus.from_texts({})
    assert len(nothing >> expander()) == 0
    scored = expander(scorer=Scores(lambda q, d: 1), keep=0.5)
    assert len(nothing >> scored) == 0
    with pytest.raises(TypeError):
        _ = ["text"] >> expander()  # type: ignore[operator]


# Documents that do not fit ------------------------------------------------------------------------


def test_long_documents_are_read_in_part(caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer()
    long = Corpus.from_texts({"x": " ".join(map(str, range(50))), "y": "1 2  3"})
    found = long >> expander(writer, queries=1, max_words=3)
    assert writer.asked == ["0 1 2", "1 2  3"]
    assert found["x"].text == f"{long['x'].text} 0 0"
    assert "1 of 2 documents only in part" in caplog.text


def test_documents_are_cut_to_what_a_model_reads(caplog: pytest.LogCaptureFixture) -> None:
    model = CausalModel.of(chatter_of("llama"), tokenizer_for_chats(), "tiny")
    texts = ["moon cat " * 2000, "cat"]
    chats = fitted(model, ASKED, texts, None, 8)
    words = len(chats[0][0].content.split("\n\n")[1].split()) - 1
    whole, longer = (
        asked(ASKED, "{document}", first_words(texts[0], n)) for n in (words, words + 1)
    )
    assert chats == [whole, asked(ASKED, "{document}", "cat")]
    assert model.lengths([whole])[0] + 8 <= 2048 < model.lengths([longer])[0] + 8
    assert "1 of 2 documents only in part" in caplog.text


# doc2query-- --------------------------------------------------------------------------------------


def test_threshold_worked_value() -> None:
    scores = np.arange(10, dtype=np.float32) / 10
    least = share_threshold(lambda: [scores], 0.3)
    assert least == pytest.approx(0.63, abs=1e-7)
    assert scores[scores >= least].tolist() == pytest.approx([0.7, 0.8, 0.9])


@given(
    st.lists(
        st.lists(st.floats(-(2.0**60), 2.0**60, width=32) | st.sampled_from([0.0, -0.0, 1.0]))
    ),
    st.floats(0.01, 1),
)
def test_threshold_is_the_quantile(parts: list[list[float]], keep: float) -> None:
    chunks = [np.array(part, np.float32) for part in parts]
    whole = np.concatenate([np.empty(0, np.float32), *chunks]).astype(np.float64)
    found = share_threshold(lambda: chunks, keep)
    if not len(whole):
        assert found == -np.inf
        return
    spread = float(np.ptp(whole))
    assert found == pytest.approx(np.quantile(whole, 1 - keep), abs=spread * 1e-7, rel=1e-12)


def test_the_threshold_is_one_for_all_documents(tmp_path: Path) -> None:
    # All queries of e fit better than any of a, b and d: a share per document would differ.
    corpus = Corpus.from_texts({"a": "one", "b": "two", "d": "three", "e": "four"})
    scorer = Scores(lambda query, text: 10 * list(corpus.contents()).index(text) + int(query[-1]))
    found = corpus >> expander(queries=4, scorer=scorer, keep=0.25)
    assert [d.text for d in found] == ["one", "two", "three", "four four 0 four 1 four 2 four 3"]
    half = corpus >> expander(queries=4, scorer=scorer, keep=0.5, part=3)
    assert [len(d.text.split()) for d in half] == [1, 1, 9, 9]
    told = expander(queries=4, scorer=scorer, keep=0.25).write(corpus, tmp_path / "out.jsonl")
    # Ranks 11 and 12 of 0 to 15 score 23 and 30; (1 - 0.25) * 15 = 11.25 lies between.
    assert told == Expansion(4, 16, 4, 23 + 0.25 * 7, 0, 0)
    assert "4 of 16 queries kept" in str(told)
    whole = expander(queries=4, scorer=scorer, keep=1.0)(corpus)
    assert whole.content_hash == expander(queries=4)(corpus).content_hash


def test_scores_are_checked() -> None:
    with pytest.raises(NonFiniteError, match="nan for 'Cats 0'"):
        SMALL >> expander(scorer=Scores(lambda q, d: float("nan")), keep=0.5)

    class Short(Scores):
        def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
            return np.zeros(1)

    with pytest.raises(EncoderContractError, match="score 20 pairs"):
        SMALL >> expander(scorer=Short(lambda q, d: 0), keep=0.5)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"keep": 0.5}, "both"),
        ({"scorer": Scores(lambda q, d: 0)}, "both"),
        ({"scorer": Scores(lambda q, d: 0), "keep": 0.0}, "share"),
        ({"scorer": Scores(lambda q, d: 0), "keep": 30}, "share"),
        ({"scorer": print, "keep": 0.5}, "score_pairs"),
        ({"queries": 0}, "queries"),
        ({"part": 0}, "part"),
        ({"max_words": 0}, "max_words"),
        ({"prompt": "{query}"}, "{document}"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        expander(**settings)
    with pytest.raises(DataError, match="temperature"):
        Doc2Query(CausalModel("folder"), queries=2)


# Work that is interrupted -------------------------------------------------------------------------


class Killed(BaseException):
    """A stand-in for a kill."""


def test_a_kill_costs_one_part_at_most(tmp_path: Path) -> None:
    many = TOY.corpus.take(np.arange(20))
    expected = expander(queries=2)(many).content_hash
    for last in range(0, 20, 3):
        folder = tmp_path / str(last)
        first = Writer()

        def rule(text: str, draw: int, first: Writer = first, last: int = last) -> str:
            if len(first.asked) > last:
                raise Killed
            return f"{text.split()[0]} {draw}"

        first.rule = rule
        with pytest.raises(Killed):
            expander(first, queries=2, folder=folder, part=4)(many)
        again = Writer()
        found = expander(again, queries=2, folder=folder, part=4)(many)
        assert found.content_hash == expected
        assert len(again.asked) == 20 - last // 4 * 4
        idle = Writer()
        assert expander(idle, queries=2, folder=folder, part=4)(many).content_hash == expected
        assert idle.asked == []


class Dying(Files):
    """Ends when the n-th file is renamed, before or after."""

    def __init__(self, n: int, after: bool) -> None:
        self.n, self.after = n, after

    def rename(self, source: Path, target: Path) -> None:
        self.n -= 1
        if not self.n and not self.after:
            raise Killed
        super().rename(source, target)
        if not self.n:
            raise Killed


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_while_writing_leaves_whole_files(tmp_path: Path, after: bool) -> None:
    many = TOY.corpus.take(np.arange(12))
    token = use_files(Dying(2, after))
    try:
        with pytest.raises(Killed):
            expander(folder=tmp_path, part=4)(many)
    finally:
        token.var.reset(token)
    again = Writer()
    found = expander(again, folder=tmp_path, part=4)(many)
    assert found.content_hash == expander()(many).content_hash
    assert len(again.asked) == (4 if after else 8)
    assert not list(tmp_path.glob("*.new"))


def test_what_is_kept_is_known_by_all_it_depends_on(tmp_path: Path) -> None:
    def asked_by(corpus: Corpus = SMALL, version: str = "1", **settings: Any) -> int:
        writer = Writer()
        made = expander(writer, version, folder=tmp_path, part=2, **settings)
        assert made(corpus).content_hash == expander(None, version, **settings)(corpus).content_hash
        return len(writer.asked)

    assert asked_by() == 4
    assert asked_by() == 0
    for other in (
        {"version": "2"},
        {"queries": 3},
        {"max_new_tokens": 9},
        {"max_words": 1},
        {"prompt": "{document}\n\nx: {document}"},
        {"scorer": Scores(lambda q, d: len(q)), "keep": 0.5},
    ):
        assert asked_by(**other) == 4
    assert asked_by(scorer=Scores(lambda q, d: len(q)), keep=0.9) == 0
    changed = Corpus.from_documents([*list(SMALL)[:4], Document("e", "dogs howl")])
    assert asked_by(changed) == 1


@pytest.mark.parametrize("damage", ["cut", "swapped", "empty", "words"])
def test_a_damaged_part_is_told_and_written_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = expander(folder=tmp_path, part=2)(SMALL).content_hash
    parts = sorted(tmp_path.glob("*.jsonl"))
    data = parts[0].read_bytes()
    bad = {
        "cut": data[:-9],
        "swapped": parts[1].read_bytes(),
        "empty": b"",
        "words": data.replace(b" 0", b" 9"),
    }[damage]
    parts[0].write_bytes(bad)
    writer = Writer()
    assert expander(writer, folder=tmp_path, part=2)(SMALL).content_hash == expected
    assert 1 <= len(writer.asked) <= 2
    assert "written anew" in caplog.text


def test_a_folder_has_one_writer_and_needs_fingerprints(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock"), pytest.raises(LockedError):
        expander(folder=tmp_path)(SMALL)
    with pytest.raises(FingerprintError, match="version"):
        Doc2Query(FunctionModel(Writer()), folder=tmp_path)(SMALL)
    assert len(Doc2Query(FunctionModel(Writer()))(SMALL)) == 5


def test_documents_that_failed_are_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rule(text: str, draw: int) -> str:
        if "Cats" in text:
            raise EndpointError("refused")
        return "" if "Moon" in text else "query"

    first = expander(Writer(rule), queries=1, folder=tmp_path / "parts", part=2)
    told = first.write(SMALL, tmp_path / "out.jsonl")
    assert told == Expansion(5, 2, 2, None, 3, 1)
    assert "3 of 5 documents stay as they are" in caplog.text
    assert "refused" in caplog.text
    assert read_corpus(tmp_path / "out.jsonl")["a"].text == "cats purr"
    again = Writer(lambda text, draw: "found")
    retried = expander(again, queries=1, folder=tmp_path / "parts", part=2)(SMALL)
    assert again.asked == ["Cats cats purr"]
    assert [d.text for d in retried] == [
        "cats purr found", "dogs bark query", "", "", "dogs bark query",
    ]  # fmt: skip


def test_a_dead_service_ends_the_work_and_keeps_what_was_done(tmp_path: Path) -> None:
    alive = Writer()

    def rule(text: str, draw: int) -> str:
        if len(alive.asked) > 8:
            raise EndpointError("gone")
        return "query"

    alive.rule = rule
    many = TOY.corpus.take(np.arange(40))
    with pytest.raises(EndpointError, match="gone"):
        expander(alive, queries=1, folder=tmp_path, part=8)(many)
    assert len(alive.asked) == 8 + PATIENCE
    again = Writer(lambda text, draw: "query")
    expander(again, queries=1, folder=tmp_path, part=8)(many)
    assert len(again.asked) == 32


# By name, and from the shell ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("expand")
    for name, model, tokenizer in (
        ("t5", t5_of(), t5_tokenizer()),
        ("causal", chatter_of("llama"), tokenizer_for_chats()),
    ):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    save_classifier(root / "ce", "bert")
    lines = [{"_id": d.doc_id, "title": d.title, "text": d.text} for d in list(TOY.corpus)[:6]]
    (root / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_named(root: Path) -> None:
    t5, causal = doc2query(root / "t5", seed=3), doc2query(root / "causal", prompt="A {document}")
    model: Any = t5.model
    assert (t5.prompt, model.temperature, model.top_k, model.seed) == ("{document}", 1.0, 10, 3)
    assert causal.prompt == "A {document}"
    assert doc2query(root / "causal").prompt == ASKED
    assert doc2query("name", url="http://localhost:1/v1").prompt == ASKED
    with pytest.raises(UnknownNameError, match="queries"):
        doc2query(root / "t5", querys=3)


def test_expand(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    common = ["expand", root / "c.jsonl", "--model", root / "t5", "--queries", "3",
              "--option", "max_new_tokens=6", "--device", "cpu"]  # fmt: skip
    done = call(*common, "-o", out)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: 6 documents, ")
    assert not (tmp_path / "out.jsonl.parts").exists()
    corpus = read_corpus(root / "c.jsonl")
    settings: dict[str, Any] = {"queries": 3, "max_new_tokens": 6, "device": "cpu"}
    expected = corpus >> doc2query(root / "t5", **settings)
    assert list(read_corpus(out)) == list(expected)
    assert call(*common, "-o", out).code == 1
    parts = ["-o", out, "--overwrite", "--parts", tmp_path / "parts", "--json"]
    scored = call(*common, *parts, "--keep", "0.5", "--scorer", root / "ce")
    assert scored.code == 0, scored.err
    told = scored.json
    assert told["queries"] / 2 <= told["kept"] < told["queries"]
    assert len(list((tmp_path / "parts").glob("*.jsonl"))) == 1
    scorer = CrossEncoderReranker(root / "ce")
    stage = doc2query(root / "t5", scorer=scorer, keep=0.5, **settings)
    assert list(read_corpus(out)) == list(corpus >> stage)


def test_expand_refuses(root: Path, tmp_path: Path) -> None:
    common = ["expand", root / "c.jsonl", "-o", tmp_path / "o.jsonl", "--model", root / "t5"]
    for more, problem in (
        (["--keep", "0.5"], "belong together"),
        (["--option", "keep=0.5"], "option of its own"),
        (["--option", "topk=3"], "top_k"),
        (["--keep", "2", "--scorer", root / "ce"], "share"),
    ):
        done = call(*common, *more)
        assert done.code != 0
        assert problem in " ".join(done.err.split())
    stranger = tmp_path / "o.jsonl.parts"
    stranger.mkdir()
    (stranger / "mine.txt").write_text("keep me")
    assert call(*common, "--queries", "1", "--option", "max_new_tokens=2").code == 0
    assert [path.name for path in stranger.iterdir()] == ["mine.txt"]
