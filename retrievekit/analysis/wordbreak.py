"""Words of a text as Lucene's StandardTokenizer cuts them (Unicode 12.1).

The word boundaries of Unicode's UAX #29, turned round: not where a text may be cut but which
stretches are words. From each position the longest of these is taken, else one code point skipped:

* letters and digits, joined inside by `.` `:` `'` between letters (`y.com`, `don't`) and by
  `.` `,` `;` `'` between digits (`1,000.5`); `_` joins all; Hebrew may end in `'` and hold a `"`;
* a run of Katakana; one Han or one Hiragana character; a run of a South-East Asian script that is
  written without blanks (Thai, Lao, Khmer, Myanmar: Line_Break = Complex_Context);
* an emoji sequence: joined by ZWJ, with skin tones, tags or a keycap, or a flag of two letters.

Combining marks, format characters and ZWJ stay with what they follow and change nothing (WB4).
A word ends after 255 UTF-16 units at the latest, and what follows begins anew.

Sources: Unicode Standard Annex #29 and Unicode Technical Standard #51 for Unicode 12, and the
comments in the grammar of Apache Lucene's StandardTokenizer.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import accumulate

from retrievekit.analysis.unicode_tables import CLASSES
from retrievekit.errors import DataError

MAX_UNITS = 255
"""The longest word in UTF-16 units: the size of Lucene's scanner buffer."""

# The letters, digits and joiners of ASCII alone, the grammar's rules otherwise.
_ASCII_WORD = re.compile(
    r"""
    [A-Za-z0-9_] (?: (?<!_) | _{0,254}+ [A-Za-z0-9] ) [A-Za-z0-9_]*+
    (?:
        [.:',;] (?: (?<=[A-Za-z][.:']) (?=[A-Za-z]) | (?<=[0-9][.,;']) (?=[0-9]) )
        [A-Za-z0-9_]++
    )*+
    """,
    re.VERBOSE,
)

# Classes without a character below U+10000 are written as lone surrogates, which are in no class,
# and all other characters above as one below, so that one pattern of small tables reads all text.
_STAND_INS = {"r": "\ud800", "t": "\ud801", "w": "\ud802", "j": "\ud803"}
_NOT_BASIC = re.compile("[\ud800-\udfff\U00010000-\U0010ffff]")


def words(text: str) -> list[str]:
    """The words of a text, exactly: at each position the longest within 255 UTF-16 units.

    Args:
        text: Any text. Lone surrogates separate words.

    Returns:
        The words in order, as they stand in the text.

    Raises:
        DataError: The text ends in the first half of a surrogate pair.
    """
    scanned, text = _scannable(text)
    pattern = _ASCII_WORD if text.isascii() else _word_pattern()
    units = list(accumulate((1 + (character > "\uffff") for character in text), initial=0))
    found = []
    at = 0
    while at < len(text):
        window = bisect_right(units, units[at] + MAX_UNITS) - 1
        match = pattern.match(scanned, at, window)
        if match:
            found.append(text[at : match.end()])
        at = match.end() if match else at + 1
    return found


def fast_words(text: str) -> list[str]:
    """As `words` wherever no word is longer than `MAX_UNITS`; longer ones are left uncut.

    Args:
        text: Any text. Lone surrogates separate words.

    Returns:
        The words in order, as they stand in the text.

    Raises:
        DataError: The text ends in the first half of a surrogate pair.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text)
    scanned, text = _scannable(text)
    if scanned is text:
        return _word_pattern().findall(text)
    spans = map(re.Match.span, _word_pattern().finditer(scanned))
    return [text[start:end] for start, end in spans]


def _scannable(text: str) -> tuple[str, str]:
    """The text with stand-ins below U+10000, and the text itself with surrogate pairs joined.

    Both are the same object where the text needs neither.
    """
    try:
        if len(text.encode("utf-16-le")) == 2 * len(text):
            return text, text
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        if "\ud800" <= text[-1] <= "\udbff":
            raise DataError(
                f"the text ends in half a character, U+{ord(text[-1]):04X} (a high surrogate "
                f"without its low one) at position {len(text) - 1}, and Lucene loses words before "
                "such an end; it was cut in the middle of a character: remove the last one"
            ) from None
    return _NOT_BASIC.sub(lambda match: _stand_in(match[0]), text), text


@lru_cache(maxsize=1 << 16)
def _stand_in(character: str) -> str:
    """A character below U+10000 of the same class, or a lone surrogate; a blank for no class."""
    starts, ends, names = _upper_ranges()
    index = bisect_right(starts, ord(character)) - 1
    if index < 0 or ord(character) > ends[index]:
        return " "
    name = names[index]
    return _STAND_INS.get(name) or chr(next(_code_ranges(name))[0])


@cache
def _upper_ranges() -> tuple[list[int], list[int], list[str]]:
    """First code points, last ones and classes of all ranges above U+FFFF, in order."""
    ranges = sorted(
        (first, last, name)
        for name in CLASSES
        for first, last in _code_ranges(name)
        if first > 0xFFFF
    )
    starts, ends, names = zip(*ranges, strict=True)
    return list(starts), list(ends), list(names)


def _code_ranges(name: str) -> Iterator[tuple[int, int]]:
    """First and last code point of each range of a class."""
    for span in CLASSES[name].split():
        first, _, last = span.partition("-")
        yield int(first, 16), int(last or first, 16)


def _one_of(names: str) -> str:
    """A regular expression for one character of any of the classes."""
    members = []
    for name in names:
        members.append(_STAND_INS.get(name, ""))
        for first, last in _code_ranges(name):
            if first <= 0xFFFF:
                members.append(f"\\u{first:04x}-\\u{min(last, 0xFFFF):04x}")
    return f"[{''.join(members)}]"


@cache
def _word_pattern() -> re.Pattern[str]:
    """The whole grammar.

    Every repetition is possessive and every choice is decided by the next character, so what is
    found first is also the longest, in linear time.
    """
    # x y z e f c t w j are what stays with the character before it (WB4): z is ZWJ, e and f are
    # the presentation selectors, c the keycap, t and w the letters and the end of a tag, j the
    # skin tones, y South-East Asian marks, x all others.
    extend = _one_of("xyzefctwj") + "*+"
    extend_unselected = _one_of("xyzctwj") + "*+"

    # Words. a: letter; v: letter that is an emoji too; h: Hebrew letter; n: digit; k: Katakana;
    # u: `_` and its like; l joins letters, m digits, b and q (the apostrophe) both; d: `"`.
    hebrew = f"{_one_of('h')}{extend}"
    digit = _one_of("n")
    # A Hebrew letter may be followed by an apostrophe, or `"` and another, but not after a joiner.
    join = f"{_one_of('lbq')}{extend}"
    joined_letters = f"(?:{join}{hebrew})*+(?:{join}(?={_one_of('av')}))?+"
    alphanumeric = (
        f"(?:{_one_of('av')}{_one_of('avxyzefctwj')}*+{joined_letters}"
        f"|{digit}{_one_of('nxyzefctwj')}*+(?:{_one_of('mbq')}{extend}(?={digit}))?+"
        f"|{hebrew}(?:{_one_of('d')}{extend}{hebrew}|{_one_of('q')}{extend}|{joined_letters}))++"
    )
    body = f"(?:{alphanumeric}|{_one_of('k')}{_one_of('kxyzefctwj')}*+)"
    joiners = f"(?:{_one_of('u')}{extend})"
    # No word begins with more joiners than it may be long: looking no further keeps time linear.
    word = f"{joiners}{{0,254}}+{body}(?:{joiners}++{body})*+{joiners}*+"
    plain_word = f"{_one_of('a')}++(?!{_one_of('avhnulbqxyzefctwj')})"

    # Emoji. p: pictograph. What is joined to one follows a ZWJ, which may follow a selector; a
    # skin tone after both takes no selector itself.
    zwj, selector, tone = _one_of("z"), _one_of("f"), _one_of("j")
    tone_after_selector = f"{selector}{zwj}{tone}{extend_unselected}"

    def pictograph(names: str) -> str:
        return f"{_one_of(names)}{extend_unselected}"

    def joined(names: str) -> str:
        link = f"(?:(?<={zwj})|{selector}{zwj}++|{tone_after_selector}(?<={zwj}))"
        return f"{link}{pictograph(names)}"

    more = f"(?:{joined('pv')})*+(?:{tone_after_selector}|{selector})?+"
    tag = f"{selector}{_one_of('t')}++{_one_of('w')}"
    emoji = (
        f"{zwj}{{0,254}}+{pictograph('pv')}(?:{tag}|{more})"
        f"|{tone}{extend_unselected}(?:(?<={zwj}){pictograph('pv')}{more})?+"
    )
    # From an emoji that is a letter, the sequence is longer than the word if it holds a pictograph
    # that is no letter; until there word and sequence have read the same.
    letter_emoji = f"{pictograph('v')}(?:{joined('v')})*+{joined('p')}{more}"
    keycap = (
        f"{_one_of('#')}(?:{extend_unselected}{selector}{_one_of('c')}"
        f"|{_one_of('xyztwj')}*+{_one_of('c')}){extend_unselected}"
    )
    flag = f"{_one_of('r')}{extend}{_one_of('r')}{extend}"

    return re.compile(
        f"{plain_word}|{letter_emoji}|{word}|{_one_of('ig')}{extend}"
        f"|{_one_of('sy')}{_one_of('sxyzefctwj')}*+|{emoji}|{keycap}|{flag}"
    )
