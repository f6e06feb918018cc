"""Lucene's English analysis: its own tokens on published texts, on traps, and its laws."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.analysis import STOP_WORDS, LuceneEnglishAnalyzer, analyzer
from retrievekit.analysis import lucene as lucene_module
from retrievekit.analysis.lucene import VERSION
from retrievekit.errors import DataError, UnknownNameError

LUCENE = LuceneEnglishAnalyzer()

VARIANTS = [
    LuceneEnglishAnalyzer(stopwords=stopwords, stemmer=stemmer)
    for stopwords in ("lucene", "none")
    for stemmer in ("porter", "none")
]

texts = st.text(
    st.sampled_from("aeSsy1_.,:'’＇\" é\u0301İΣßא日ひアกุ한😀👍🏽\u200d\ufe0f🇫#\u20e3ℹ𐐨𐐀")
)


def test_every_text_of_the_golden_file_gives_lucenes_tokens(data_dir: Path) -> None:
    path = data_dir / "analysis" / "lucene-english.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1030
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        assert LUCENE.tokens(row["text"]) == row["tokens"], f"line {number}"


# Expected lists: what Anserini's DefaultEnglishAnalyzer (Lucene 9, Porter) printed for each text.
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t", []),
        ("...", []),
        ("The U.S. patient's don't", ["u.", "patient", "don't"]),
        ("TNF-α/β O'Neill's JOHN＇S dog’s", ["tnf", "α", "β", "o'neil", "john", "dog"]),
        ("the's THE a's it’s Not", []),
        ("ſ ß ẞ İstanbul", ["ſ", "ß", "ß", "istanbul"]),
        ("ΣΊΣΥΦΟΣ \u212aelvin", ["σίσυφοσ", "kelvin"]),  # no final sigma; the Kelvin sign
        ("𐐀 Ꭰ Ᏸ Ა", ["𐐨", "ꭰ", "ᏸ", "ა"]),  # Deseret, Cherokee, Georgian capitals
        ("𐐨𐐨ing a𐐨es b𝒂s", ["𐐨𐐨ing", "a𐐨", "b𝒂"]),
        ("x\ud800y \udc00z", ["x", "y", "z"]),
        ("\ud83d\ude00", ["😀"]),  # a character in two halves
        ("a" * 300 + "'s the", ["a" * 255, "a" * 45]),
        ("𐐨" * 128, ["𐐨" * 127, "𐐨"]),  # two UTF-16 units each
        ("A" * 254 + "'s", ["a" * 254, "s"]),
    ],
)
def test_lucenes_tokens_on_traps(text: str, tokens: list[str]) -> None:
    assert LUCENE.tokens(text) == tokens


def test_a_text_cut_within_its_last_character_is_refused() -> None:
    with pytest.raises(DataError, match=r"U\+D83D .* position 3.*remove the last one"):
        LUCENE.tokens("abc\ud83d")


def test_the_stop_words_are_the_33_of_lucene() -> None:
    assert len(STOP_WORDS) == 33
    assert LUCENE.tokens(" ".join(STOP_WORDS).upper()) == []
    assert LUCENE.tokens("I he she from has were can") == [
        "i",
        "he",
        "she",
        "from",
        "ha",
        "were",
        "can",
    ]


def test_what_the_variants_leave_out() -> None:
    text = "The Patients' databases"
    assert [made.tokens(text) for made in VARIANTS] == [
        ["patient", "databas"],
        ["patients", "databases"],
        ["the", "patient", "databas"],
        ["the", "patients", "databases"],
    ]


@given(texts, texts)
def test_texts_on_two_lines_are_two_texts(first: str, second: str) -> None:
    joined = LUCENE.tokens(f"{first}\n{second}")
    assert joined == LUCENE.tokens(first) + LUCENE.tokens(second)


@given(texts)
def test_counts_are_the_tokens_counted_in_order(text: str) -> None:
    tokens = LUCENE.tokens(text)
    counts = LUCENE.counts(text)
    assert list(counts) == sorted(set(tokens), key=tokens.index)
    assert all(tokens.count(term) == times for term, times in counts.items())


@given(texts)
def test_what_was_read_before_changes_nothing(text: str) -> None:
    LUCENE.tokens(text)
    assert LUCENE.tokens(text) == LuceneEnglishAnalyzer().tokens(text)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lucene_module, "_REMEMBERED", 10)
    small = LuceneEnglishAnalyzer()
    words = [f"w{number}" for number in range(100)]
    assert small.tokens(" ".join(words)) == words
    assert small.tokens(" ".join(words)) == words
    assert len(small._terms) <= 10


def test_analyzers_are_values() -> None:
    assert LuceneEnglishAnalyzer() == LUCENE
    assert len({*VARIANTS, LuceneEnglishAnalyzer()}) == 4
    assert repr(LUCENE) == "LuceneEnglishAnalyzer(stopwords='lucene', stemmer='porter')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        LUCENE.stemmer = "none"  # type: ignore[misc]


@pytest.mark.parametrize("made", VARIANTS, ids=lambda made: made.name)
def test_every_copy_is_equal_and_works(made: LuceneEnglishAnalyzer) -> None:
    copies = [
        LuceneEnglishAnalyzer.from_dict(json.loads(json.dumps(made.to_dict()))),
        analyzer(made.name),
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
    ]
    for other in copies:
        assert other == made
        assert other.tokens("The cats") == made.tokens("The cats")


def test_names() -> None:
    assert [made.name for made in VARIANTS] == [
        "lucene-english",
        "lucene-english-nostem",
        "lucene-english-nostop",
        "lucene-english-nostop-nostem",
    ]
    with pytest.raises(UnknownNameError, match="lucene-english"):
        analyzer("lucene-englisch")


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"stopwords": "lucene"},
        {"stopwords": "lucene", "stemmer": "snowball"},
        {"stopwords": [], "stemmer": "porter"},
        {**LUCENE.to_dict(), "version": VERSION + 1},
        {**LUCENE.to_dict(), "name": "other"},
        {**LUCENE.to_dict(), "more": 1},
    ],
)
def test_an_identity_of_something_else_is_refused(identity: dict[str, object]) -> None:
    with pytest.raises(DataError):
        LuceneEnglishAnalyzer.from_dict(identity)


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(DataError, match="choose one of lucene, none"):
        LuceneEnglishAnalyzer(stopwords="english")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="choose one of porter, none"):
        LuceneEnglishAnalyzer(stemmer="porter2")  # type: ignore[arg-type]
