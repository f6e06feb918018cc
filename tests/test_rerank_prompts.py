"""Prompts of the published form, and spans found by characters, whatever the texts hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.errors import DataError, LimitError, UnknownNameError
from retrievekit.language.specials import disarmed, special_texts
from retrievekit.rerank.prompts import (
    INSTRUCTIONS,
    TEMPLATES,
    build,
    first_words,
    template_for,
)
from retrievekit.rerank.spans import beginning, tokenized
from tests.tiny_decoders import SPECIALS, TEXTS, tokenizer_of

QA = "Please answer the following question based on the information in the paragraphs above."
IE = "Please find information that are relevant to the following query in the paragraphs above."
TURNS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
)


def test_prompts_are_the_published_ones() -> None:
    assert INSTRUCTIONS == {"qa": QA, "ie": IE}
    docs = ["T1\nfirst", "second"]
    llama = build(TEMPLATES["llama3"], QA, docs, "<|begin_of_text|>").text("who?")
    assert llama == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|> Here are some paragraphs:"
        f" \n\n[1] T1\nfirst \n\n[2] second \n\n{QA} \n\nQuery: who?"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
    )
    mistral = build(TEMPLATES["mistral"], IE, docs, "<s>").text("who?")
    assert mistral == (
        "<s>[INST] Here are some paragraphs:\n\n[1] T1\nfirst\n\n[2] second\n\n"
        f"{IE}\n\nQuery: who?[/INST]"
    )
    simple = build(TEMPLATES["simple"], IE, docs).text("who?")
    assert simple == f"[1] T1\nfirst \n\n[2] second \n\n{IE} \n\nQuery: who? \n\nAnswer:"


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.sampled_from([*TEMPLATES]))
def test_documents_stand_where_the_prompt_says(docs: list[str], name: str) -> None:
    prompt = build(TEMPLATES[name], IE, docs, "<s>")
    text = prompt.text("Query: [1] ")
    for number, (doc, (start, stop)) in enumerate(zip(docs, prompt.documents, strict=True), 1):
        assert text[start:stop] == f"[{number}] {doc}"
    assert text[prompt.asking :].startswith(IE)
    assert text.startswith("<s>")


def test_the_generic_template_comes_from_the_chat_template() -> None:
    tokenizer = tokenizer_of("bytes", TURNS)
    template = template_for("auto", tokenizer, "some/model", "qwen3")
    prompt = build(template, IE, ["one"], "<s>")
    assert prompt.text("who?") == (
        "<s><|start_header_id|>user<|end_header_id|>Here are some paragraphs: \n\n[1] one \n\n"
        f"{IE} \n\nQuery: who?<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
    )
    assert tokenizer("<s>" * 1)["input_ids"] == tokenizer.encode(prompt.text("x"))[:1]


@pytest.mark.parametrize(
    ("model", "family", "chats", "expected"),
    [
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama", True, "llama3"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama", False, "simple"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistral", True, "mistral"),
        ("mistralai/Mistral-7B-v0.1", "mistral", False, "simple"),
        ("EleutherAI/pythia-1b", "gpt_neox", False, "simple"),
    ],
)
def test_models_get_their_templates(model: str, family: str, chats: bool, expected: str) -> None:
    tokenizer = tokenizer_of("bytes", TURNS if chats else None)
    assert template_for("auto", tokenizer, model, family) == TEMPLATES[expected]


def test_templates_that_do_not_suit_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="mistral"):
        template_for("mistrall", tokenizer_of("bytes"), "m", "llama")
    with pytest.raises(DataError, match="no chat template"):
        template_for("chat", tokenizer_of("bytes"), "m", "llama")
    for broken in ("{{ messages[0].content }} and {{ messages[0].content }}", "fixed"):
        with pytest.raises(DataError, match="not once"):
            template_for("chat", tokenizer_of("bytes", broken), "m", "llama")


# Spans


def naive(offsets: list[tuple[int, int]], span: tuple[int, int]) -> list[int]:
    own = set(range(*span))
    return [t for t, (a, b) in enumerate(offsets) if own & set(range(a, b))]


def check_spans(tokenizer: Any, docs: list[str], queries: list[str], name: str) -> None:
    prompt = build(TEMPLATES[name], IE, docs, "<s>")
    tokens = tokenized(tokenizer, prompt, queries, None)
    for query, tail in zip(queries, tokens.tails, strict=True):
        whole = tokenizer(prompt.text(query), add_special_tokens=False, return_offsets_mapping=True)
        assert [*tokens.prefix, *tail] == whole["input_ids"]
    found = tokenizer(prompt.text(queries[0]), add_special_tokens=False, return_offsets_mapping=1)
    offsets = found["offset_mapping"]
    previous: set[int] = set()
    for (start, stop), place in zip(tokens.spans.tolist(), prompt.documents, strict=True):
        expected = [t for t in naive(offsets, place) if t not in previous]
        # Within a document, tokens without characters of their own count too.
        assert expected[0] == start
        assert expected[-1] == stop - 1
        assert set(expected) <= set(range(start, stop))
        previous = set(expected)
    assert len(tokens.prefix) == min(t for t, (_, b) in enumerate(offsets) if b > prompt.asking)
    assert (tokens.spans[:, 1] <= len(tokens.prefix)).all()


KINDS = {kind: tokenizer_of(kind) for kind in ("bytes", "pieces")}


@pytest.mark.parametrize("name", list(TEMPLATES))
@pytest.mark.parametrize("kind", list(KINDS))
def test_spans_are_those_of_every_character(kind: str, name: str) -> None:
    # The same text twice, and one that is part of others: looking texts up would go astray.
    check_spans(KINDS[kind], [*TEXTS, "cat", "cat"], ["N/A", "cat", "", "猫 [1]"], name)


@pytest.mark.parametrize("kind", list(KINDS))
@given(
    st.lists(st.text(max_size=12), min_size=1, max_size=5),
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
)
def test_spans_of_any_texts(kind: str, docs: list[str], queries: list[str]) -> None:
    specials = special_texts(KINDS[kind])
    check_spans(
        KINDS[kind],
        [disarmed(doc, specials) for doc in docs],
        [disarmed(query, specials) for query in queries],
        "simple",
    )


class _Coarse:
    """A tokenizer whose tokens are so many characters each, wherever documents end."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, texts: list[str], **_: Any) -> Any:
        offsets = [
            [(i, min(i + self.size, len(text))) for i in range(0, len(text), self.size)]
            for text in texts
        ]
        return {"input_ids": [[a for a, _ in row] for row in offsets], "offset_mapping": offsets}


@pytest.mark.parametrize("size", range(2, 9))
def test_a_token_that_reaches_into_two_documents_is_the_first_one_s(size: int) -> None:
    prompt = build(TEMPLATES["simple"], IE, ["a" * 9, "b" * 8, "c" * 11])
    tokens = tokenized(_Coarse(size), prompt, ["who?"], None)
    whole = _Coarse(size)([prompt.text("who?")])["offset_mapping"][0]
    # One that reaches into the instruction is the query's.
    taken = set(range(len(tokens.prefix), len(whole)))
    for (start, stop), place in zip(tokens.spans.tolist(), prompt.documents, strict=True):
        expected = set(naive(whole, place)) - taken
        assert set(range(start, stop)) == expected
        taken |= expected
    with pytest.raises(DataError, match="document 2 of the prompt has no token"):
        tokenized(_Coarse(40), prompt, ["who?"], None)


def test_a_prompt_begins_as_the_tokenizer_begins_texts() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_of("bytes")
    assert beginning(tokenizer) == ""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert beginning(tokenizer) == "<s>"
    prompt = build(TEMPLATES["mistral"], IE, ["one"], "<s>")
    tokens = tokenized(tokenizer, prompt, ["who?"], None)
    assert tokens.prefix.count(1) == 1
    assert tokens.prefix[0] == 1
    assert tokens.tails[0][-1] != 2  # the prompt's last token, not an end that was put behind it


def test_too_many_tokens_are_refused() -> None:
    prompt = build(TEMPLATES["simple"], IE, ["one", "two"])
    tokens = tokenized(KINDS["bytes"], prompt, ["a", "a longer query"], None)
    longest = len(tokens.prefix) + max(map(len, tokens.tails))
    assert tokenized(KINDS["bytes"], prompt, ["a", "a longer query"], longest).tails == tokens.tails
    with pytest.raises(LimitError, match=rf"2 documents .* {longest} tokens.*window="):
        tokenized(KINDS["bytes"], prompt, ["a", "a longer query"], longest - 1)


class _Drifting:
    """A tokenizer whose first token depends on the last word."""

    def __call__(self, texts: list[str], **_: Any) -> Any:
        ids = [[len(text), *map(ord, text[1:])] for text in texts]
        offsets = [[(i, i + 1) for i in range(len(text))] for text in texts]
        return {"input_ids": ids, "offset_mapping": offsets}


def test_tokens_that_change_with_the_query_are_refused() -> None:
    prompt = build(TEMPLATES["simple"], IE, ["one"])
    tokenized(_Drifting(), prompt, ["cat", "dog"], None)
    with pytest.raises(DataError, match="'horse'"):
        tokenized(_Drifting(), prompt, ["cat", "horse"], None)


# Texts


@pytest.mark.parametrize("kind", list(KINDS))
@given(st.lists(st.sampled_from([*SPECIALS, "a", " ", "<", "|>", "s>"]), max_size=12))
def test_no_special_token_is_left_in_a_document(kind: str, parts: list[str]) -> None:
    text = "".join(parts)
    clean = disarmed(text, special_texts(KINDS[kind]))
    ids = KINDS[kind](clean, add_special_tokens=False)["input_ids"]
    marks = {KINDS[kind].convert_tokens_to_ids(t) for t in SPECIALS[1:]}
    assert not marks & set(ids)
    assert clean.replace(" ", "") == text.replace(" ", "")


@given(st.text(alphabet="ab \n\t\u00a0猫", max_size=40), st.integers(1, 8))
def test_first_words_are_the_first_words(text: str, limit: int) -> None:
    cut = first_words(text, limit)
    assert cut.split() == text.split()[:limit]
    assert text.startswith(cut)
    if len(text.split()) <= limit:
        assert cut == text
    assert first_words(text, None) == text


def test_first_words_keep_lines() -> None:
    assert first_words("Title\nfirst  second third", 3) == "Title\nfirst  second"
    assert np.all([first_words("", n) == "" for n in (1, 5)])
