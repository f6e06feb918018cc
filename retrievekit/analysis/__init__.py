"""Text to terms: one analyzer so far, Lucene's English one."""

from __future__ import annotations

from retrievekit.analysis.lucene import STOP_WORDS, LuceneEnglishAnalyzer
from retrievekit.errors import UnknownNameError

__all__ = ["STOP_WORDS", "LuceneEnglishAnalyzer", "analyzer"]


def analyzer(name: str) -> LuceneEnglishAnalyzer:
    """The analyzer of a name: `lucene-english`, or with `-nostop`, `-nostem` or both in this order.

    Args:
        name: An analyzer's `name`.

    Returns:
        The analyzer.

    Raises:
        UnknownNameError: No analyzer is called so.
    """
    known = {
        made.name: made
        for made in (
            LuceneEnglishAnalyzer(),
            LuceneEnglishAnalyzer(stopwords="none"),
            LuceneEnglishAnalyzer(stemmer="none"),
            LuceneEnglishAnalyzer(stopwords="none", stemmer="none"),
        )
    }
    if name not in known:
        raise UnknownNameError.among("analyzer", name, known)
    return known[name]
