"""Rewriters of plain values, as expressions, configurations and the command line have them.

`model` is a folder or hub id, of a decoder or an encoder-decoder such as T5; with ``url=`` the name
that a service knows; or a language model itself. Settings are those of the rewriter and of the
model (``temperature``, ``seed``, ``layout``, ...), and for rewriters of queries:

- ``most_words``, ``least_words``: only queries of at most, at least so many words are rewritten;
- ``off``: words of queries that are left as they are;
- ``cache``: the file that keeps what was written; by default one in the package's cache folder,
  ``false`` for none, which is what a benchmark needs to tell the time of a system.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from retrievekit.errors import DataError, UnknownNameError
from retrievekit.language.chat import LanguageModel
from retrievekit.language.opening import kind_of, language_model, model_settings
from retrievekit.locations import cache_dir
from retrievekit.rewrite.doc2query import Doc2Query
from retrievekit.rewrite.grf import GRF
from retrievekit.rewrite.hyde import HyDE
from retrievekit.rewrite.prompts import DOCUMENT
from retrievekit.rewrite.query2doc import KeywordQuery, Query2Doc
from retrievekit.rewrite.switches import AllBut, ByWords, Switch

_SWITCHES = frozenset({"most_words", "least_words", "off"})


def hyde(
    model: LanguageModel | str | Path,
    *,
    device: str | None = None,
    dtype: str = "float32",
    index: Any,
    **settings: Any,
) -> HyDE:
    """`HyDE` for the search of a dense index; a model by its name draws at temperature 0.7.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        device: See `language_model`.
        dtype: See `language_model`.
        index: The index.
        settings: Fields of `HyDE`, and others (see `named`).

    Returns:
        The stage.
    """
    settings = _drawing(model, {"temperature": 0.7}) | settings
    made: HyDE = _made(HyDE, model, device, dtype, settings, encoder=index)
    return made


def query2doc(
    model: LanguageModel | str | Path,
    *,
    device: str | None = None,
    dtype: str = "float32",
    index: Any,
    **settings: Any,
) -> Query2Doc:
    """`Query2Doc`, joined as the index wants it that is searched: by terms, or as one text.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        device: See `language_model`.
        dtype: See `language_model`.
        index: The index.
        settings: Fields of `Query2Doc`, and others (see `named`).

    Returns:
        The stage.
    """
    made: Query2Doc = _made(Query2Doc, model, device, dtype, {"joined": _joined(index)} | settings)
    return made


def keywords(
    model: LanguageModel | str | Path,
    *,
    device: str | None = None,
    dtype: str = "float32",
    index: Any,
    **settings: Any,
) -> KeywordQuery:
    """`KeywordQuery`, joined as the index wants it that is searched: by terms, or as one text.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        device: See `language_model`.
        dtype: See `language_model`.
        index: The index.
        settings: Fields of `KeywordQuery`, and others (see `named`).

    Returns:
        The stage.
    """
    made: KeywordQuery = _made(
        KeywordQuery, model, device, dtype, {"joined": _joined(index)} | settings
    )
    return made


def grf(
    model: LanguageModel | str | Path,
    *,
    device: str | None = None,
    dtype: str = "float32",
    index: Any,
    **settings: Any,
) -> GRF:
    """`GRF` for the search of an index of terms.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        device: See `language_model`.
        dtype: See `language_model`.
        index: The index.
        settings: Fields of `GRF`, and others (see `named`).

    Returns:
        The stage.
    """
    made: GRF = _made(GRF, model, device, dtype, settings, index=index)
    return made


def doc2query(
    model: LanguageModel | str | Path,
    *,
    device: str | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> Doc2Query:
    """`Doc2Query`; a model by its name draws at temperature 1, a local one of ten tokens.

    An encoder-decoder that is given by its name reads the document alone, as those of doc2query do;
    ``prompt=`` says otherwise.

    Args:
        model: Its folder or hub id, the name that a service knows (with ``url=``), or the model.
        device: See `language_model`.
        dtype: See `language_model`.
        settings: Fields of `Doc2Query`, and arguments of the model.

    Returns:
        What expands a corpus.
    """
    own: dict[str, Any] = _drawing(model, {"temperature": 1.0})
    if isinstance(model, (str, Path)) and "url" not in settings:
        own["top_k"] = 10
        if kind_of(model, settings.get("revision")) == "seq2seq":
            own["prompt"] = DOCUMENT
    made: Doc2Query = _made(Doc2Query, model, device, dtype, own | settings)
    return made


def _drawing(model: LanguageModel | str | Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for a model that is made here."""
    return settings if isinstance(model, (str, Path)) else {}


def _joined(index: Any) -> str:
    return "sparse" if getattr(index, "kind", None) in ("bm25", "lucene") else "dense"


def _made(
    kind: type[Any],
    model: LanguageModel | str | Path,
    device: str | None,
    dtype: str,
    settings: dict[str, Any],
    **more: Any,
) -> Any:
    """A rewriter and the model that it asks, of their settings together."""
    own = {field.name for field in dataclasses.fields(kind)} - {"model", *more}
    asked = dict(settings)
    extra = _SWITCHES if "switch" in own else frozenset()
    if isinstance(model, (str, Path)):
        served = "url" in asked
        family = "causal" if served else kind_of(model, asked.get("revision"))
        _check_known(kind, asked, {*own, *extra, *model_settings(served, family)}, served)
        model = language_model(model, asked, kind=family, device=device, dtype=dtype, taken=own)
    elif device is not None:
        raise DataError(f"{model!r} is open already; its device was chosen with it")
    _check_known(kind, asked, {*own, *extra}, served=False)
    if extra:
        given = {name: asked.pop(name) for name in sorted(extra & set(asked))}
        asked.setdefault("switch", _switch(**given))
        asked["cache"] = _cache(asked.get("cache", True))
    return kind(model, **more, **asked)


def _check_known(kind: type[Any], asked: dict[str, Any], known: set[str], served: bool) -> None:
    for stranger in sorted(set(asked) - known):
        if not served and stranger in model_settings(served=True):
            raise DataError(f"{stranger} is a setting of models behind a service; give their url=")
        raise UnknownNameError.among(f"setting of {kind.__name__}", stranger, known)


def _switch(
    most_words: int | None = None, least_words: int = 0, off: list[str] | None = None
) -> Switch | None:
    if off is not None:
        if most_words is not None or least_words:
            raise DataError("give either off, or most_words and least_words, not both")
        if not isinstance(off, list) or not all(isinstance(text, str) for text in off):
            raise DataError(f"off is a list of the words of queries; got {off!r}")
        return AllBut(frozenset(off))
    if most_words is None and not least_words:
        return None
    return ByWords(least_words, most_words)


def _cache(given: Any) -> Any:
    if given is True:
        return cache_dir() / "written.sqlite"
    return None if given is False else given
