"""Porter's stemmer, as he wrote it down himself and as Lucene's PorterStemFilter runs it.

M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980. A word is read as
`[C](VC)^m[V]` with C a run of consonants, V a run of vowels (a, e, i, o, u, and y after a
consonant); m is the *measure* of what stands before a suffix. Each step strips or replaces at most
one suffix, the first condition that holds deciding:

====  ==========================================================================================
1a    sses → ss, ies → i, ss → ss, s →
1b    (m>0) eed → ee; (vowel before) ed →, ing →; after these: at → ate, bl → ble, iz → ize,
      double consonant but ll, ss, zz → single, (m=1 and ends consonant-vowel-consonant) → + e
1c    (vowel before) y → i
2     (m>0) ational → ate, tional → tion, enci → ence, anci → ance, izer → ize, alli → al, ...
3     (m>0) icate → ic, ative →, alize → al, iciti → ic, ical → ic, ful →, ness →
4     (m>1) al, ance, ence, er, ic, able, ible, ant, ement, ment, ent, (s|t)ion, ou, ism, ... →
5     (m>1, or m=1 and not consonant-vowel-consonant before) e →; (m>1) ll → l
====  ==========================================================================================

Two departures from the paper are Porter's own, in all programs he published: step 2 has
bli → ble (for abli → able) and logi → log; and words of one or two letters stay.
Letters are UTF-16 units: a character above U+FFFF counts as two different consonants.
"""

from __future__ import annotations

import re

_Rules = dict[str, list[tuple[str, str]]]


def _by_last_but_one(*rules: tuple[str, str]) -> _Rules:
    """The rules under the last letter but one of their suffixes, as all programs look them up."""
    table: _Rules = {}
    for suffix, replacement in rules:
        table.setdefault(suffix[-2], []).append((suffix, replacement))
    return table


_STEP_2 = _by_last_but_one(
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"),
    ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"),
    ("ization", "ize"), ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive"),
    ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"),
    ("logi", "log"),
)  # fmt: skip
_STEP_3 = _by_last_but_one(
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""),
    ("ness", ""),
)  # fmt: skip
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
)  # fmt: skip


def stem(word: str) -> str:
    """The stem of a lower case word.

    Args:
        word: One word; anything but the letters a to z counts as a consonant.

    Returns:
        The stem, never longer than the word.
    """
    if not word.isascii() and max(word) > "\uffff":
        return _joined(stem(_ABOVE.sub(_pair, word)))
    if len(word) <= 2:
        return word
    return _step_5(_step_4(_step_3(_step_2(_step_1c(_step_1b(_step_1a(word)))))))


def _step_1a(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _step_1b(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    suffix = "ed" if word.endswith("ed") else "ing"
    before = word.removesuffix(suffix)
    if before == word or "v" not in _shape(before):
        return word
    if before.endswith(("at", "bl", "iz")):
        return before + "e"
    if _ends_doubled(before):
        return before if before[-1] in "lsz" else before[:-1]
    if _measure(before) == 1 and _ends_short(before):
        return before + "e"
    return before


def _step_1c(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and "v" in _shape(word[:-1]) else word


def _step_2(word: str) -> str:
    return _replaced(word, _STEP_2)


def _step_3(word: str) -> str:
    return _replaced(word, _STEP_3)


def _step_4(word: str) -> str:
    if not word.endswith(_STEP_4):
        return word
    suffix = next(suffix for suffix in _STEP_4 if word.endswith(suffix))
    before = word.removesuffix(suffix)
    if suffix == "ion" and not before.endswith(("s", "t")):
        return word
    return before if _measure(before) > 1 else word


def _step_5(word: str) -> str:
    measure = _measure(word)
    if word.endswith("e") and (measure > 1 or (measure == 1 and not _ends_short(word[:-1]))):
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and measure > 1 else word


def _replaced(word: str, rules: _Rules) -> str:
    """The word after the first rule whose suffix it has, where m > 0 before it."""
    for suffix, replacement in rules.get(word[-2:-1], ()):
        if word.endswith(suffix):
            before = word.removesuffix(suffix)
            return before + replacement if _measure(before) > 0 else word
    return word


class _Kinds(dict[int, str]):
    """`v` for a code point that is always a vowel, `y` for y, `c` for all others."""

    def __missing__(self, code: int) -> str:
        return "c"


_KINDS = _Kinds({ord("y"): "y"} | {ord(vowel): "v" for vowel in "aeiou"})


def _shape(word: str) -> str:
    """`c` for each consonant and `v` for each vowel."""
    shape = word.translate(_KINDS)
    if "y" not in shape:
        return shape
    kinds = ["v"]  # as if before the word, so that y at its start is a consonant
    for kind in shape:
        kinds.append(("v" if kinds[-1] == "c" else "c") if kind == "y" else kind)
    return "".join(kinds[1:])


def _measure(word: str) -> int:
    """How often a consonant follows a vowel: the m of `[C](VC)^m[V]`."""
    return _shape(word).count("vc")


def _ends_doubled(word: str) -> bool:
    """Whether the word ends in the same consonant twice."""
    return word[-2:-1] == word[-1:] and _shape(word).endswith("c")


def _ends_short(word: str) -> bool:
    """Whether the word ends consonant, vowel, consonant, the last not w, x or y."""
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"


_ABOVE = re.compile("[\U00010000-\U0010ffff]")


def _pair(match: re.Match[str]) -> str:
    """The two UTF-16 units of a character above U+FFFF."""
    offset = ord(match[0]) - 0x10000
    return chr(0xD800 + (offset >> 10)) + chr(0xDC00 + (offset & 0x3FF))


def _joined(word: str) -> str:
    """Surrogate pairs turned back into characters; no step cuts one."""
    return word.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
