"""Porter's stemmer: the examples of his paper, rule by rule, then whole words."""

from __future__ import annotations

import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.analysis import porter

# The examples beside the rules in Porter (1980), each for its step alone.
PAPER = {
    porter._step_1a: "caresses caress, ponies poni, ties ti, caress caress, cats cat",
    porter._step_1b: (
        "feed feed, agreed agree, plastered plaster, bled bled, motoring motor, sing sing, "
        "conflated conflate, troubled trouble, sized size, hopping hop, tanned tan, falling fall, "
        "hissing hiss, fizzed fizz, failing fail, filing file"
    ),
    porter._step_1c: "happy happi, sky sky",
    porter._step_2: (
        "relational relate, conditional condition, rational rational, valenci valence, "
        "hesitanci hesitance, digitizer digitize, conformabli conformable, radicalli radical, "
        "differentli different, vileli vile, analogousli analogous, vietnamization vietnamize, "
        "predication predicate, operator operate, feudalism feudal, decisiveness decisive, "
        "hopefulness hopeful, callousness callous, formaliti formal, sensitiviti sensitive, "
        "sensibiliti sensible"
    ),
    porter._step_3: (
        "triplicate triplic, formative form, formalize formal, electriciti electric, "
        "electrical electric, hopeful hope, goodness good"
    ),
    porter._step_4: (
        "revival reviv, allowance allow, inference infer, airliner airlin, gyroscopic gyroscop, "
        "adjustable adjust, defensible defens, irritant irrit, replacement replac, "
        "adjustment adjust, dependent depend, adoption adopt, homologou homolog, "
        "communism commun, activate activ, angulariti angular, homologous homolog, "
        "effective effect, bowdlerize bowdler"
    ),
    porter._step_5: "probate probat, rate rate, cease ceas, controll control, roll roll",
}


@pytest.mark.parametrize(
    ("step", "word", "result"),
    [(step, *pair.split()) for step, pairs in PAPER.items() for pair in pairs.split(", ")],
)
def test_the_papers_examples(step, word, result) -> None:
    assert step(word) == result


@pytest.mark.parametrize(
    ("measure", "words"),
    [(0, "tr ee tree y by"), (1, "trouble oats trees ivy"), (2, "troubles private oaten orrery")],
)
def test_the_papers_measures(measure, words) -> None:
    assert [porter._measure(word) for word in words.split()] == [measure] * len(words.split())


# Whole words: the paper's two chains, the departures of Porter's own programs, the short and odd.
@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("generalizations", "gener"),
        ("oscillators", "oscil"),
        ("possibly", "possibl"),
        ("played", "plai"),  # short, but ending in y, x, w: no e is put back
        ("boxed", "box"),
        ("showing", "show"),
        ("apologies", "apolog"),
        ("apologi", "apolog"),
        ("as", "as"),
        ("ies", "i"),
        ("yes", "ye"),
        ("syzygy", "syzygi"),
        ("ions", "ion"),
        ("naïve", "naïv"),
        ("don't", "don't"),
        ("3.14", "3.14"),
        ("𐐨𐐨ing", "𐐨𐐨ing"),  # no vowel before ing
        ("a𐐨𐐨ing", "a𐐨𐐨"),  # four different units, so no double consonant to halve
        ("be𐐨ing", "be𐐨"),  # ends in two consonant units, so no e is put back
    ],
)
def test_whole_words(word, stem) -> None:
    assert porter.stem(word) == stem


@given(st.text(string.ascii_lowercase + "é𐐨", min_size=1))
def test_a_stem_begins_as_its_word_and_is_no_longer(word) -> None:
    stem = porter.stem(word)
    assert 0 < len(stem) <= len(word)
    assert stem[:1] == word[:1]


@given(st.text("aeyouibcdlsz", min_size=1, max_size=12))
def test_the_measure_counts_vowel_to_consonant_steps(word) -> None:
    def is_consonant(at: int) -> bool:  # the paper's definition, word by word
        if word[at] == "y":
            return at == 0 or not is_consonant(at - 1)
        return word[at] not in "aeiou"

    kinds = [is_consonant(at) for at in range(len(word))]
    steps = sum(not before and after for before, after in pairwise(kinds))
    assert porter._measure(word) == steps
