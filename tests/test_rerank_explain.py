"""Which words a query looked at: parts that add up to the score, as text and as a page."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrievekit as rk
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.language.causal import CausalModel
from retrievekit.queries import Queries
from retrievekit.rerank.attention import AttentionReranker
from retrievekit.rerank.attributions import Attribution, attributed, to_html
from retrievekit.run import Run
from tests.tiny_decoders import (
    TEXTS,
    decoder_of,
    one_thread,  # noqa: F401
    tokenizer_of,
)


def made(kind: str = "bytes", **settings: object) -> AttentionReranker:
    tokenizer = tokenizer_of(kind)
    model = decoder_of("llama", len(tokenizer))
    return AttentionReranker(CausalModel.of(model, tokenizer, "tiny"), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["reversed", "given", "sorted"])
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_parts_add_up_to_the_score(kind: str, order: str) -> None:
    reranker = made(kind, order=order)
    scores = {hit.index: hit.score for hit in reranker.rank("who purrs?", TEXTS)}
    for place, one in enumerate(reranker.attributions("who purrs?", TEXTS)):
        assert one.score == pytest.approx(scores[place], abs=1e-12)
        assert one.text.endswith(f"] {TEXTS[place]}")
        assert "".join(piece for piece, _ in one.tokens()) == one.text
        assert [word for word, _ in one.words()] == one.text.split()
        assert sum(part for _, part in one.words()) == pytest.approx(scores[place], abs=1e-12)


@given(st.text(min_size=1, max_size=20), st.data())
def test_tokens_and_words_of_any_text(text: str, data: st.DataObject) -> None:
    text = f"[1] {text}"
    starts = sorted(data.draw(st.lists(st.integers(0, len(text) - 1), max_size=8)))
    offsets = np.array([[a, a + 1] for a in [0, *starts]])
    deltas = np.arange(len(offsets)) / 7 + 0.1
    one = attributed(deltas, offsets, text, None)
    assert "".join(piece for piece, _ in one.tokens()) == text
    assert [word for word, _ in one.words()] == text.split()
    assert sum(part for _, part in one.words()) == pytest.approx(deltas.sum())


def test_words_take_the_tokens_that_begin_in_them() -> None:
    one = Attribution(
        "[1] old cat",
        np.array([0, 1, 3, 8, 8]),  # "[", "1]", " old ", two tokens for "cat"
        np.array([1.0, 2.0, 4.0, 8.0, 16.0]),
        np.zeros(5, bool),
    )
    assert one.words() == [("[1]", 3.0), ("old", 4.0), ("cat", 24.0)]
    assert one.tokens() == [("[", 1.0), ("1]", 2.0), (" old ", 4.0), ("", 8.0), ("cat", 16.0)]
    lines = [line.split() for line in one.to_text(limit=2).splitlines()]
    assert lines == [["31.000000", "[1]", "old", "cat"], ["24.000000", "cat"], ["4.000000", "old"]]


def test_low_tokens_are_dropped_and_shown_so() -> None:
    deltas = np.array([0.02, 0.03, 0.03, 0.04, -0.28, 0.25, 0.04, 0.02])
    offsets = np.stack([np.arange(8), np.arange(8) + 1], axis=1)
    one = attributed(deltas, offsets, "abcdefgh", 2.0)
    assert one.score == pytest.approx(0.43)
    assert np.flatnonzero(one.dropped).tolist() == [4]
    page = to_html("q", [one])
    assert '<span class="d">e</span>' in page
    assert attributed(deltas, offsets, "abcdefgh", None).score == pytest.approx(0.15)


class Outline(HTMLParser):
    """Tags, attributes and text of a page, outside its style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)


HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "</article></body><img src=http://x>",
    "&lt;b&gt; {query} %s \x1b[31m\x00",
    "]]> <!-- -->",
]


def test_a_page_is_whole_escaped_and_alone() -> None:
    found = made().attributions(HOSTILE[0], HOSTILE)
    page = to_html(HOSTILE[0], found, names=HOSTILE)
    outline = Outline(page)
    assert set(outline.tags) == {
        "html", "head", "meta", "title", "style", "body", "h1", "p", "span", "article", "h2"
    }  # fmt: skip
    assert {name for name, _ in outline.attributes} <= {
        "lang", "charset", "name", "content", "class", "style", "title"
    }  # fmt: skip
    assert not re.search(r"src=|href=|url\(|@import|<script", page.replace("src=http://x", ""))
    assert "color-scheme: light dark" in page
    assert "prefers-color-scheme: dark" in page
    assert not [c for c in page if not c.isprintable() and c != "\n"]
    text = "".join(outline.words)
    for one in found:
        assert "".join(c if c.isprintable() else "\ufffd" for c in one.text) in text
    ranks = re.findall(r"<h2>(\d)\. (.*?) · (-?[0-9.]+)</h2>", page)
    scores = [float(score) for _, _, score in ranks]
    assert scores == sorted(scores, reverse=True)
    assert {html.unescape(name) for _, name, _ in ranks} == {
        "".join(c if c.isprintable() else "\ufffd" for c in name) for name in HOSTILE
    }
    assert to_html("q", []).count("<article>") == 0


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of a colour, as WCAG 2 defines it."""
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_are_readable_on_their_marks(scheme: int) -> None:
    page = to_html("q", [])
    strength = float(re.findall(r"var\(--a\) \* ([.0-9]+)", page)[0])

    def colour(name: str) -> tuple[float, ...]:
        found = re.findall(rf"--{name}: (#[0-9a-f]{{6}}|\d+ \d+ \d+)", page)[scheme]
        if found.startswith("#"):
            return tuple(int(found[i : i + 2], 16) for i in (1, 3, 5))
        return tuple(map(float, found.split()))

    ink, paper = colour("ink"), colour("paper")
    grounds = [paper]
    for name in ("more", "less"):
        mixed = zip(colour(name), paper, strict=True)
        grounds.append(tuple(strength * m + (1 - strength) * p for m, p in mixed))
    for text, ground in [*((ink, ground) for ground in grounds), (colour("quiet"), paper)]:
        light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_text_for_a_terminal_holds_no_control_characters() -> None:
    for one in made().attributions("x", HOSTILE):
        assert all(c.isprintable() or c == "\n" for c in one.to_text())


def test_pipelines_explain_themselves() -> None:
    corpus = rk.Corpus.from_texts({f"d{i}": text for i, text in enumerate(TEXTS)})
    bm25 = rk.BM25Index.build(corpus).searcher(k=5)
    pipe = bm25 >> made(documents=corpus, k=2)
    query = "the moon and cats"
    found = pipe(Queries.from_texts({"1": query}))["1"]
    for hit in found[:2]:
        step = pipe.explain(query, hit.doc_id)[-1]
        assert step["rank"] == hit.rank
        assert sum(step["parts"].values()) == pytest.approx(hit.score, abs=1e-6)
    assert pipe.explain(query, found[2].doc_id)[-1]["parts"] == {}


def test_what_cannot_be_explained_is_refused() -> None:
    corpus = rk.Corpus.from_texts({"d1": "cat"})
    run = Run.from_dict({"q1": {"d1": 1.0}, "q2": {}}, Queries.from_texts({"q1": "a", "q2": "b"}))
    reranker = made(documents=corpus)
    names, found = reranker.explained(run, "q1")
    assert (names, len(found)) == (["d1"], 1)
    with pytest.raises(DataError, match="no hits"):
        reranker.explained(run, "q2")
    with pytest.raises(UnknownNameError):
        reranker.explained(run, "q3")
    with pytest.raises(DataError, match="no document"):
        reranker.attributions("a", [])
