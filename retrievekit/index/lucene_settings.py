"""What an index of Anserini's is made and searched with, and Lucene's classes for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from retrievekit.errors import DataError, UnknownNameError
from retrievekit.index.bm25 import PRESETS
from retrievekit.index.lucene_jvm import Java

IMPACT_LEVELS = 100
"""Levels per unit of weight of an impact index unless told otherwise, as Anserini's models have."""

STEMMERS = ("porter", "krovetz", "none")

Scoring = Literal["bm25", "impact"]

DEFAULTS: dict[str, Any] = {
    "scoring": "bm25",
    "k1": PRESETS["anserini"][0],
    "b": PRESETS["anserini"][1],
    "stemmer": "porter",
    "keep_stopwords": False,
    "levels": 1.0,
}
"""The settings of an index that does not tell its own."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise unless all settings are in range.

    Args:
        settings: At least those of `DEFAULTS`.

    Raises:
        DataError: The scoring is unknown, or k1 or b out of range.
        UnknownNameError: No such stemmer.
    """
    if settings["scoring"] not in ("bm25", "impact"):
        raise DataError(f"scoring is {settings['scoring']!r}; give 'bm25' or 'impact'")
    if settings["stemmer"] not in STEMMERS:
        raise UnknownNameError.among("stemmer", str(settings["stemmer"]), STEMMERS)
    k1, b = settings["k1"], settings["b"]
    if not (math.isfinite(k1) and k1 >= 0):
        raise DataError(f"k1 is {k1}; it must be a finite number of at least 0")
    if not 0 <= b <= 1:
        raise DataError(f"b is {b}; it must lie between 0 and 1")


def english_analyzer(java: Java, settings: Mapping[str, Any]) -> Any:
    """Anserini's English analyzer."""
    make = java("io.anserini.analysis.DefaultEnglishAnalyzer").fromArguments
    return make(settings["stemmer"], bool(settings["keep_stopwords"]), None)


def similarity(java: Java, settings: Mapping[str, Any]) -> Any:
    """Lucene's similarity of a scoring."""
    if settings["scoring"] == "impact":
        return java("io.anserini.search.similarity.ImpactSimilarity")()
    make = java("org.apache.lucene.search.similarities.BM25Similarity")
    return make(float(settings["k1"]), float(settings["b"]))
