"""Texts to try backends on: some of one's own, else some of usual lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAMPLE = 32
"""Texts of a probe."""

_FEWEST = 8

_WORDS = """
the of and to in a is that for it as was with be by on not he this are or his from at which but
have an had they you were their one all we can her has there been if more when will would who so
no said what up its about into than them only other time new some could these two may first then
do any like my now over such our man even most made after also did many before must through
years where much your way well down should because long each just state those people too mr how
little good world make very year still see own work men day get here old between life both under
last never same another know while us off might great go come since against right came take used
himself few house use place during high without again home around small however found mrs part
school thought went say general once upon war every left got away water number cells protein
study results growth treatment patients data model system method analysis effects increased
levels activity expression response type control group clinical
"""


def sample_of(texts: Sequence[str]) -> list[str]:
    """Texts of all lengths among those given; made ones where there are too few.

    Args:
        texts: One's own texts, possibly none.

    Returns:
        At most `SAMPLE` texts, the longest first.
    """
    own = sorted((text for text in texts if text.strip()), key=len, reverse=True)
    if len(own) < _FEWEST:
        return made_texts()
    places = np.linspace(0, len(own) - 1, min(SAMPLE, len(own))).round().astype(int)
    return [own[place] for place in places]


def made_texts() -> list[str]:
    """`SAMPLE` texts of 5 to 300 frequent English words, the same ones each time.

    Returns:
        The texts, the longest first.
    """
    random = np.random.default_rng(5)
    words = _WORDS.split()
    sizes = np.geomspace(300, 5, SAMPLE).round().astype(int)
    return [" ".join(random.choice(words, size)) + "." for size in sizes]
