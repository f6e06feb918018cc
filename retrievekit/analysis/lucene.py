"""Lucene's English analysis, token for token, in pure Python.

The chain of Anserini's `DefaultEnglishAnalyzer`, which BM25 baselines on BEIR and MS MARCO use:

1. words as StandardTokenizer cuts them (`wordbreak.py`; UAX #29, Unicode 12.1);
2. a possessive `'s` at the end removed, also with U+2019 and U+FF07;
3. lower case, code point by code point (Unicode's simple mappings: İ becomes i, Σ always σ);
4. the 33 stop words of Lucene's `EnglishAnalyzer` dropped;
5. Porter's stemmer (`porter.py`).

Most words of a text were seen before, so each analyzer remembers what became of a word.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Self, get_args

from retrievekit.analysis import porter, wordbreak
from retrievekit.analysis.unicode_tables import LOWER
from retrievekit.errors import DataError

VERSION = 1
"""Raised by hand whenever a text may give other tokens than before."""

STOP_WORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it"}
    | {"no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these"}
    | {"they", "this", "to", "was", "will", "with"}
)
"""The stop words of Lucene's `EnglishAnalyzer`."""

Stopwords = Literal["lucene", "none"]
Stemmer = Literal["porter", "none"]

_REMEMBERED = 1 << 18


@dataclass(frozen=True, kw_only=True)
class LuceneEnglishAnalyzer:
    """Text to terms exactly as Lucene's English analysis with Porter's stemmer.

    Immutable, equal by value, cheap to make; one may serve many threads.

    >>> LuceneEnglishAnalyzer().tokens("The U.S. patients' relational databases")
    ['u.', 'patient', 'relat', 'databas']

    Args:
        stopwords: `"lucene"` drops `STOP_WORDS`, `"none"` keeps every word.
        stemmer: `"porter"`, or `"none"` for whole words in lower case.

    Raises:
        DataError: Another value for one of the two.
    """

    stopwords: Stopwords = "lucene"
    stemmer: Stemmer = "porter"
    _terms: _Terms = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the choices, since they may come from a file."""
        for name, value, choices in (
            ("stopwords", self.stopwords, get_args(Stopwords)),
            ("stemmer", self.stemmer, get_args(Stemmer)),
        ):
            if value not in choices:
                raise DataError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}")
        terms = _Terms(stop=self.stopwords == "lucene", stem=self.stemmer == "porter")
        object.__setattr__(self, "_terms", terms)

    @property
    def name(self) -> str:
        """`lucene-english`, with `-nostop` and `-nostem` for what is left out."""
        return "-".join(
            ["lucene-english"]
            + ["nostop"] * (self.stopwords == "none")
            + ["nostem"] * (self.stemmer == "none")
        )

    def tokens(self, text: str) -> list[str]:
        """The terms of a text in order.

        Args:
            text: Any text. Lone surrogates separate words, as in Lucene.

        Returns:
            One term for each word that is no stop word.

        Raises:
            DataError: The text ends in the first half of a surrogate pair.
        """
        try:
            found = map(self._terms.__getitem__, wordbreak.fast_words(text))
            return list(filter(None, found))  # a term is never empty, so this drops None alone
        except _OverlongError:
            return list(filter(None, map(self._terms.term, wordbreak.words(text))))

    def counts(self, text: str) -> dict[str, int]:
        """How often each term occurs in a text.

        Args:
            text: Any text, as for `tokens`.

        Returns:
            Term to times, in the order of first occurrence.

        Raises:
            DataError: The text ends in the first half of a surrogate pair.
        """
        return dict(Counter(self.tokens(text)))

    def to_dict(self) -> dict[str, Any]:
        """What decides the tokens, for index manifests and fingerprints.

        Returns:
            Strings and one whole number, ready for JSON.
        """
        return {
            "name": self.name,
            "version": VERSION,
            "stopwords": self.stopwords,
            "stemmer": self.stemmer,
        }

    @classmethod
    def from_dict(cls, identity: dict[str, Any]) -> Self:
        """The analyzer that `to_dict` described.

        Args:
            identity: What `to_dict` returned.

        Returns:
            An equal analyzer.

        Raises:
            DataError: It describes another analyzer, or another version of this one.
        """
        try:
            made = cls(stopwords=identity["stopwords"], stemmer=identity["stemmer"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{identity!r} does not describe a {cls.__name__}") from error
        if made.to_dict() != identity:
            raise DataError(
                f"the analyzer {identity!r} is not the one of this release, {made.to_dict()!r}: "
                "their tokens may differ; build the index anew"
            )
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, also those for worker processes, begin with an empty memory."""
        return _remake, (self.stopwords, self.stemmer)


def _remake(stopwords: Stopwords, stemmer: Stemmer) -> LuceneEnglishAnalyzer:
    return LuceneEnglishAnalyzer(stopwords=stopwords, stemmer=stemmer)


class _OverlongError(Exception):
    """A word beyond the longest that there may be: the text has to be cut the slow way."""


class _Terms(dict[str, str | None]):
    """What becomes of a word: its term, or None; remembered for the next time.

    Args:
        stop: Whether stop words become None.
        stem: Whether terms are stemmed.
    """

    def __init__(self, *, stop: bool, stem: bool) -> None:
        super().__init__()
        self.stop = stop
        self.stem = stem

    def __missing__(self, word: str) -> str | None:
        """The term of a word not remembered.

        Raises:
            _OverlongError: The word is too long.
        """
        if len(word) + len(re.findall("[\U00010000-\U0010ffff]", word)) > wordbreak.MAX_UNITS:
            raise _OverlongError
        if len(self) >= _REMEMBERED:
            self.clear()
        self[word] = term = self.term(word)
        return term

    def term(self, word: str) -> str | None:
        """The term of a word, or None for a stop word."""
        if word[-2:-1] in ("'", "\u2019", "\uff07") and word[-1] in "sS":
            word = word[:-2]
        word = word.lower() if word.isascii() else word.translate(_lower_case())
        if self.stop and word in STOP_WORDS:
            return None
        return porter.stem(word) if self.stem else word


@cache
def _lower_case() -> dict[int, int]:
    """The simple lower case mappings of Unicode 12.1, code point to code point."""
    mapping = {}
    for run in LOWER.split():
        span, rule = run.split("/")
        first, last = (int(code, 16) for code in span.split("-"))
        for code in range(first, last + 1, int(rule[0])):
            mapping[code] = code + int(rule[1:], 16)
    return mapping
