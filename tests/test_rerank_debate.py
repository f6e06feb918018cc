"""Debates: quotes held against the text, probabilities read, and what becomes of inventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrievekit as rk
from retrievekit.errors import DataError, EncoderContractError
from retrievekit.language.chat import Chat
from retrievekit.language.functions import FunctionModel
from retrievekit.queries import Queries
from retrievekit.rerank.debate import UNREADABLE, DebateReranker, read_debate, verify_quotes
from retrievekit.run import Run
from retrievekit.testing import check_stage
from retrievekit.trace import counting

TEXT = "Cats purr at night.\nThey’re  quiet — mostly [3]. Dogs bark."

SAID = """<arguments_for>
[1]: It is about cats.
Extracted Sentences: "Cats purr at night.", "Cats are the best of all."
</arguments_for>
<arguments_against>
[1]: It also speaks of dogs: “Dogs bark.”
</arguments_against>
<probability>
[1]: 72.50
</probability>"""


@pytest.mark.parametrize(
    ("quote", "stands"),
    [
        ("Cats purr at night.", True),
        ("  Cats   purr\nat night. They're quiet", True),
        ("They\u200b’re quiet - mostly (3).", True),
        ("mostly [3]", True),
        ("cats purr at night", False),
        ("Cats purr at noon", False),
        ("Dogs bark. Cats purr", False),
        ("", False),
        (" \u200b ", False),
    ],
)
def test_quotes_must_stand_in_the_text(quote: str, stands: bool) -> None:
    assert verify_quotes(TEXT, [quote, "Dogs bark."]) == [stands, True]
    assert verify_quotes("", [quote]) == [False]


@given(st.text(max_size=60), st.data())
def test_whatever_is_taken_from_a_text_stands_in_it(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    part = text[start : data.draw(st.integers(start, len(text)))]
    (stands,) = verify_quotes(text, [part])
    assert stands or not verify_quotes(part, [part])[0]  # or nothing of it can be seen


def test_a_debate_is_read() -> None:
    found = read_debate(SAID, TEXT)
    assert found.probability == 72.5
    assert found.supporting.quotes == ("Cats purr at night.",)
    assert found.supporting.dropped == found.dropped == ("Cats are the best of all.",)
    assert found.opposing.quotes == ("Dogs bark.",)
    assert found.supporting.text.startswith("[1]: It is about cats.")


@pytest.mark.parametrize(
    ("inside", "probability"),
    [
        ("[1]: 0", 0.0),
        ("[1]: 100.00", 100.0),
        ("55%", 55.0),
        ("[1] 85", 85.0),  # not the id
        ("[1]: 85: its subject is that of section 3", 85.0),  # not what comes after
        ("Final score: [1]: 40.5", 40.5),
        ("[40]", 40.0),
        ("[1]", None),
        ("[1]: 101", None),
        ("[1]: -5", None),
        ("[1]: high", None),
        ("[1]:", None),
        ("", None),
    ],
)
def test_probabilities(inside: str, probability: float | None) -> None:
    assert read_debate(f"<probability>{inside}</probability>", "").probability == probability
    assert read_debate(f"<probability>{inside}", "").probability == probability  # cut off


@given(st.text() | st.text('<>/"[]probaility_argumentsfo: 0123'))
def test_any_answer_is_read(said: str) -> None:
    found = read_debate(said, "some text")
    assert found.probability is None or 0 <= found.probability <= 100


def model_of(*answers: Callable[[str], str]) -> tuple[FunctionModel, list[list[Chat]]]:
    """A model whose n-th call answers by the n-th function of the document's prompt."""
    heard: list[list[Chat]] = []

    def said(chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        heard.append(list(chats))
        return [answers[len(chat) // 2](chat[0].content) for chat in chats]

    return FunctionModel(said, version="1"), heard


def about(prompt: str) -> str:
    """An answer by the number in the document, with an invented quote about even ones."""
    number = int(prompt.partition("number ")[2].partition(" ")[0])
    quote = "so it is" if number % 2 else "not in it"
    return (
        f'<arguments_for>[1]: because "{quote}"</arguments_for><arguments_against>[1]: none'
        f"</arguments_against><probability>[1]: {10 * number}</probability>"
    )


DOCS = [f"number {i} so it is" for i in range(1, 5)]


def test_inventions_are_asked_about_again() -> None:
    model, heard = model_of(about, lambda prompt: "<probability>[1]: 1.5</probability>")
    with counting() as counts:
        found = DebateReranker(model).rank("cats", DOCS)
    assert [(one.index, one.score) for one in found] == [(2, 30), (0, 10), (1, 1.5), (3, 1.5)]
    assert dict(counts) == {"answers": 6, "dropped quotes": 2}
    assert [len(batch) for batch in heard] == [4, 2]  # all at once, twice
    again = heard[1][0]
    assert [message.role for message in again] == ["user", "assistant", "user"]
    assert '"not in it"' in again[2].content
    assert "cats</query_abstract>" in heard[0][0][0].content
    assert "[1]: <passage-" in heard[0][0][0].content


def test_inventions_are_kept_or_rejected() -> None:
    model, heard = model_of(about)
    found = DebateReranker(model, unproven="keep").rank("cats", DOCS)
    assert [one.score for one in found] == [40, 30, 20, 10]
    found = DebateReranker(model, unproven="reject").rank("cats", DOCS)
    assert [(one.index, one.score) for one in found] == [(2, 30), (0, 10), (3, -61), (1, -81)]
    assert [len(batch) for batch in heard] == [4, 4]


def test_answers_without_a_probability_stand_below_all() -> None:
    model, _ = model_of(lambda prompt: "" if "number 4" in prompt else about(prompt),
                        lambda prompt: "no")  # fmt: skip
    for unproven in ("ask", "reject"):
        with counting() as counts:
            found = DebateReranker(model, unproven=unproven).rank("cats", DOCS)  # type: ignore[arg-type]
        assert found[-1].score == UNREADABLE
        assert {one.index for one in found if one.score == UNREADABLE} >= {3}
        assert counts["unreadable answers"] == (2 if unproven == "ask" else 1)


def test_the_laws_of_stages_and_the_trace() -> None:
    corpus = rk.Corpus.from_texts({f"d{i}": text for i, text in enumerate(DOCS)})
    hits = {"q1": {f"d{i}": float(-i) for i in range(4)}, "q2": {"d1": 1.0}, "q3": {"d3": 2.0}}
    run = Run.from_dict(hits, Queries.from_texts({q: f"query {q}" for q in hits}))
    model, _ = model_of(about, lambda prompt: "<probability>2</probability>")
    stage = DebateReranker(model, corpus)
    check_stage(stage, run)
    assert stage.pointwise
    step = stage(run).trace[-1]
    assert step.name == "debate"
    assert dict(step.counts)["dropped quotes"] == 4


def test_long_documents_are_cut_and_their_quotes_too() -> None:
    model, heard = model_of(about, lambda prompt: "<probability>9</probability>")
    with counting() as counts:
        (one,) = DebateReranker(model, max_words=3).rank("q", ["number 3 so it is"])
    assert counts["cut documents"] == 1
    assert counts["dropped quotes"] == 1  # what the model was not shown it cannot quote
    assert one.score == 9
    assert "so it is" not in heard[0][0][0].content


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unproven": "drop"}, "unproven is one of"),
        ({"max_words": 0}, "max_words is a whole number"),
        ({"answer_tokens": 0}, "answer_tokens is a whole number"),
        ({"guard": "no"}, "no guard"),
        ({"model": "name"}, "something with generate and logits"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    model, _ = model_of(about)
    with pytest.raises(DataError, match=message):
        DebateReranker(**{"model": model, **settings})  # type: ignore[arg-type]


def test_a_model_that_loses_answers() -> None:
    short = FunctionModel(lambda chats, max_new_tokens: [])
    with pytest.raises(EncoderContractError):
        DebateReranker(short).rank("q", DOCS)


def test_no_pairs() -> None:
    model, heard = model_of(about)
    assert DebateReranker(model).rank("q", []) == []
    assert DebateReranker(model).debates([]) == []
    assert np.shape(DebateReranker(model).score_pairs([])) == (0,)
    assert not any(heard)
