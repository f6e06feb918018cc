"""What may be asked of an engine beyond k: knobs that change answers, read off its name.

They are part of a searcher's fingerprint. Nothing here imports FAISS, so that a searcher is made,
named and compared where FAISS is not installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from retrievekit.errors import DataError, UnknownNameError

_LISTS = re.compile(r"(?:^|,)(?:IVF|IMI)(\d*)")
_GRAPH = re.compile(r"HNSW")
_EXACT = re.compile(r"(IVF\d+(_HNSW\d+)?,)?Flat|(HNSW|NSG)\d+(,Flat)?|IVF\d+\(HNSW\d+\),Flat")

REFINE = 10
"""Candidates per hit that are scored exactly where the engine's own scores are not exact."""

OWN_REFINE = {"binary": 20, "int8": 3}
"""The same for engines without training: twice what recall@10 of 0.999 takes on 200,000 vectors."""


def defaults(engine: str) -> dict[str, int]:
    """The options of an engine and what they are unless said otherwise.

    Args:
        engine: ``flat``, ``binary``, ``int8`` or a FAISS factory string.

    Returns:
        ``refine``: candidates per hit that are scored again from the stored vectors; 1 where the
        engine keeps vectors whole, 0 leaves its own scores. ``nprobe``, with inverted lists: how
        many are read, by default one in 16 and at least 8, where FAISS reads one in all.
        ``efSearch``, with an HNSW graph: candidates of its search, by default 64, or as many as
        are fetched. Nothing for ``flat``, which is exact.
    """
    if engine == "flat":
        return {}
    if engine in OWN_REFINE:
        return {"refine": OWN_REFINE[engine]}
    options = {"refine": 1 if _EXACT.fullmatch(engine) else REFINE}
    lists = _LISTS.search(engine)
    if lists:
        options["nprobe"] = max(8, round(int(lists[1]) / 16)) if lists[1] else 64
    if _GRAPH.search(engine):
        options["efSearch"] = 64
    return options


def settled(engine: str, given: Mapping[str, int] | None) -> dict[str, int]:
    """All options of an engine, those not given by default.

    Args:
        engine: ``flat``, ``binary``, ``int8`` or a FAISS factory string.
        given: Options by name.

    Returns:
        Every option that the engine has.

    Raises:
        UnknownNameError: The engine has no such option.
        DataError: A value is no whole number, or below 1 (``refine``: below 0, but
            for ``binary``, whose own distances are no scores).
    """
    options = defaults(engine)
    for name, value in (given or {}).items():
        if name not in options:
            raise UnknownNameError.among(f"option of the engine {engine!r}", name, options)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        least = 0 if name == "refine" and engine != "binary" else 1
        if not whole or value < least:
            raise DataError(
                f"{name} is {value!r}; the engine {engine!r} takes a whole number of at least "
                f"{least}"
            )
        options[name] = int(value)
    return options
