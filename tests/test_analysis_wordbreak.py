"""Word break: the fast pattern against the grammar itself, the cut at 255, the pinned tables."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrievekit.analysis import _make_tables, wordbreak
from retrievekit.analysis.lucene import _lower_case
from retrievekit.analysis.unicode_tables import CLASSES
from retrievekit.errors import DataError

# Two or three characters of each class, below and above U+FFFF where there are both, and of none.
MEMBERS = {
    name: sorted({chr(spans[0][0]), chr(spans[len(spans) // 2][0]), chr(spans[-1][1])})
    for name in CLASSES
    for spans in [list(wordbreak._code_ranges(name))]
} | {"o": [" ", "\n", "→", "\U00010190"]}
CLASS_OF = {member: name for name, members in MEMBERS.items() for member in members}


def one(names: str) -> str:
    """One character of any of the classes, then what stays with it (WB4)."""
    return f"[{names}][xyzefctwj]*"


# The rules as UAX #29 and UTS #51 give them, over class letters: ambiguous, slow and plain.
E = one("u")
LETTERS = f"{one('avh')}(?:(?:(?:{E})*|{one('lbq')}){one('avh')})*"
DIGITS = f"{one('n')}(?:(?:(?:{E})*|{one('mbq')}){one('n')})*"
KATAKANA = f"{one('k')}(?:(?:{E})*{one('k')})*"
HEBREW = f"{one('h')}(?:{one('q')}|{one('d')}{one('h')})"
PART = f"(?:{KATAKANA}|(?:{HEBREW}|{DIGITS}|{LETTERS})+)"
MARKS = "[xyzctwj]*"
ELEMENT = f"(?:z*[pv]{MARKS}f?|(?:z*p{MARKS})?j{MARKS})"
GRAMMAR = re.compile(
    "|".join(
        [
            f"(?:{E})*{PART}(?:(?:{E})+{PART})*(?:{E})*",
            f"(?:{one('sy')})+",
            one("ig"),
            f"{ELEMENT}(?:(?:z{ELEMENT})*|t+w)",
            f"[n#]{MARKS}f?c{MARKS}",
            one("r") * 2,
        ]
    )
)


def longest_words(text: str) -> list[str]:
    """At each position the longest stretch that the grammar accepts, found by trying them all."""
    kinds = "".join(CLASS_OF[character] for character in text)
    found = []
    at = 0
    while at < len(text):
        ends = [end for end in range(at + 1, len(text) + 1) if GRAMMAR.fullmatch(kinds[at:end])]
        if ends:
            found.append(text[at : max(ends)])
        at = max(ends, default=at + 1)
    return found


def mixed(names: str, size: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(names).flatmap(lambda n: st.sampled_from(MEMBERS[n])),
                    max_size=size).map("".join)  # fmt: skip


several = st.one_of(
    mixed("".join(MEMBERS), 9), mixed("avhnkulmbqdx", 9), mixed("pvzfjtwecro", 9), mixed("ahqd", 7)
)


@settings(max_examples=500)
@given(several)
def test_both_ways_find_the_longest_words_of_the_grammar(text) -> None:
    expected = longest_words(text)
    assert wordbreak.words(text) == expected
    assert wordbreak.fast_words(text) == expected


@settings(max_examples=300)
@given(st.text(st.sampled_from("aZ19__..,:;''\"#* -\n\x00\x7f"), max_size=40))
def test_ascii_text_reads_the_same_without_its_short_cut(text) -> None:
    assert wordbreak._ASCII_WORD.findall(text) == wordbreak._word_pattern().findall(text)


@given(st.text(max_size=60))
def test_any_text_reads_the_same_slow_and_fast(text) -> None:
    assert wordbreak.fast_words(text) == wordbreak.words(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("x@y.com a,1 a.1 1:2 a:b", ["x", "y.com", "a", "1", "a", "1", "1", "2", "a:b"]),
        ("3.14 1,000.5 3;4", ["3.14", "1,000.5", "3;4"]),
        ("foo_bar __ _a_ 1_.5", ["foo_bar", "_a_", "1_", "5"]),
        ("naïve cafe\u0301 a\u00adb", ["naïve", "cafe\u0301", "a\u00adb"]),
        ("第一 ひら カタカナ ｶﾀ", ["第", "一", "ひ", "ら", "カタカナ", "ｶﾀ"]),
        ("aアb _アa", ["a", "ア", "b", "_ア", "a"]),
        ("한국어 ไทย ភាសា _ุา", ["한국어", "ไทย", "ភាសា", "ุา"]),
        ("א\"ב ג' a.ב' ד.ה\"ו", ['א"ב', "ג'", "a.ב", "ד.ה", "ו"]),
        ("👍🏽 👨‍👩‍👧 🇫🇷🇩🇪🇮", ["👍🏽", "👨‍👩‍👧", "🇫🇷", "🇩🇪"]),
        ("1️⃣2 #️⃣ # ❤️‍🔥 🏽", ["1️⃣2", "#️⃣", "❤️‍🔥", "🏽"]),
        (
            "🏴\U000e0067\U000e007f 🏴\ufe0f\U000e0067\U000e007f 🏴\ufe0f\U000e0067",
            ["🏴\U000e0067\U000e007f", "🏴\ufe0f\U000e0067\U000e007f", "🏴\ufe0f"],
        ),
        ("ℹ\u200d😀 ℹabc ©", ["ℹ\u200d😀", "ℹabc", "©"]),
    ],
)
def test_worked_examples(text, words) -> None:
    assert wordbreak.words(text) == words
    assert wordbreak.fast_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a" * 255, ["a" * 255]),
        ("a" * 256, ["a" * 255, "a"]),
        ("a" * 510, ["a" * 255, "a" * 255]),
        ("é" * 256, ["é" * 255, "é"]),
        ("𐐨" * 128, ["𐐨" * 127, "𐐨"]),  # two units each: 254, then the rest
        ("a" + "𐐨" * 128, ["a" + "𐐨" * 127, "𐐨"]),
        ("a" * 254 + "𐐨", ["a" * 254, "𐐨"]),  # a pair is never cut
        ("1" * 254 + ".1", ["1" * 254, "1"]),  # what joins two sides must see both
        ("1" * 253 + ".1", ["1" * 253 + ".1"]),
        ("_" * 300 + "a", ["_" * 254 + "a"]),
        ("_" * 300 + "é", ["_" * 254 + "é"]),
        ("\u200d" * 300 + "😀", ["\u200d" * 253 + "😀"]),
        (" " * 7 + "a" * 256 + " b", ["a" * 255, "a", "b"]),
        ("_" * 300, []),
    ],
)
def test_words_end_after_255_units(text, words) -> None:
    assert wordbreak.words(text) == words


@pytest.mark.parametrize(
    "text", ["_", "a", "\u200d", "_\u0e38", "_\u0301", 'א"', "a.", "#\ufe0f", "ℹ\u200d", "'", "1_"]
)
def test_hostile_repetitions_take_linear_time(text) -> None:
    # Anything quadratic would take hours here.
    assert len("".join(wordbreak.fast_words(text * 200_000))) <= len(text) * 200_000


def test_halves_of_characters() -> None:
    assert wordbreak.words("é\ud800a \udc00b") == ["é", "a", "b"]
    assert wordbreak.fast_words("é\ud800a \udc00b") == ["é", "a", "b"]
    assert wordbreak.fast_words("\ud83d\ude00") == ["😀"]
    for read in (wordbreak.words, wordbreak.fast_words):
        with pytest.raises(DataError, match="position 1"):
            read("é\udbff")


def test_the_tables_hold_as_many_characters_as_unicode_12_1_has() -> None:
    count = {
        name: sum(last - first + 1 for first, last in wordbreak._code_ranges(name))
        for name in CLASSES
    }
    # The totals that the published files state for each property.
    assert count["a"] + count["v"] == 28693  # Word_Break=ALetter
    assert count["h"] == 75  # Hebrew_Letter
    assert count["n"] == 631  # Numeric
    assert count["k"] == 314  # Katakana
    assert count["u"] == 11  # ExtendNumLet
    assert (count["l"], count["m"], count["b"]) == (8, 15, 7)  # MidLetter, MidNum, MidNumLet
    assert sum(map(count.__getitem__, "xyzefctwj")) == 2372 + 62 + 1  # Extend, Format, ZWJ
    assert count["s"] + count["y"] == 750  # Line_Break=Complex_Context
    assert count["i"] + len("々〻") == 89233  # Script=Han; the two are letters
    assert count["g"] == 379  # Script=Hiragana
    assert count["p"] + count["v"] == 3793  # Extended_Pictographic
    assert len(_lower_case()) == 1390  # simple lower case mappings


def test_no_character_is_in_two_classes() -> None:
    spans = sorted(span for name in CLASSES for span in wordbreak._code_ranges(name))
    assert all(first <= last for first, last in spans)
    assert all(before[1] < after[0] for before, after in pairwise(spans))


def test_lower_case_is_pythons_but_for_the_dotted_capital_i() -> None:
    # Case pairs are stable from one Unicode version to the next, so any Python will agree.
    differing = {code for code, lower in _lower_case().items() if chr(code).lower() != chr(lower)}
    assert differing == {0x130}
    assert _lower_case()[0x130] == ord("i")


def test_tables_are_made_from_the_published_files(tmp_path) -> None:
    (tmp_path / "WordBreakProperty.txt").write_text(
        "# comment\n0041..005A ; ALetter # L& [26]\n2139 ; ALetter\n200D ; ZWJ\n"
        "0300..0302 ; Extend\n0E31 ; Extend\n20E3;Extend\nFE0E..FE0F;Extend\n"
        "1F3FB..1F3FF;Extend\nE0020..E007F;Extend\n0030..0039 ; Numeric\n3005 ; ALetter\n"
    )
    (tmp_path / "Scripts.txt").write_text("3005 ; Han\n4E00..4E02 ; Han\n3041 ; Hiragana\n")
    (tmp_path / "LineBreak.txt").write_text("0E01..0E02;SA # Thai\n0E31;SA\n")
    (tmp_path / "emoji-data.txt").write_text(
        "0030..0039 ; Emoji\n0023 ; Emoji\n2139 ; Emoji\n2139 ; Extended_Pictographic\n"
        "1F600 ; Extended_Pictographic\n1F3FB..1F3FF ; Emoji\n1F3FB..1F3FF ; Emoji_Modifier\n"
    )
    (tmp_path / "UnicodeData.txt").write_text(
        "".join(
            f"{code:04X};N;Lu;0;L;;;;;N;;;;{lower};\n"
            for code, lower in [
                (0x41, "0061"), (0x42, "0062"), (0x43, ""), (0x100, "0101"), (0x102, "0103"),
                (0x130, "0069"),
            ]
        )
    )  # fmt: skip
    table = _make_tables.classes(tmp_path)
    assert table["a"] == {*range(0x41, 0x5B), 0x3005}
    assert table["v"] == {0x2139}
    assert table["x"] == {0x300, 0x301, 0x302}
    assert table["y"] == {0xE31}
    assert table["s"] == {0xE01, 0xE02}
    assert table["i"] == {0x4E00, 0x4E01, 0x4E02}
    assert table["p"] == {0x1F600}
    assert table["#"] == {ord("#"), ord("*")}
    assert list(_make_tables.runs(table["i"] | {7})) == [(7, 7), (0x4E00, 0x4E02)]
    assert list(_make_tables.lower_runs(tmp_path / "UnicodeData.txt")) == [
        "41-42/1+20",
        "100-102/2+1",
        "130-130/1-C7",
    ]
