"""What the names of retrievers mean: each makes an index of the shelf's corpus, and searches it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrievekit.bench.encoders import encoder_names
from retrievekit.bench.opening import open_any
from retrievekit.bench.settings import (
    Asked,
    condition,
    flag,
    number,
    options_of,
    text,
    whole,
    windowed,
)
from retrievekit.config import Literal
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import ExpressionError, UnknownNameError
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.splitting import NUMBER, PARENT
from retrievekit.stage import Stage

if TYPE_CHECKING:
    from retrievekit.bench.systems import IndexShelf

Maker = Callable[..., Stage[Queries, Run]]


def makers_of(shelf: IndexShelf) -> dict[str, Maker]:
    """What makes the searcher of each name, from the settings in its brackets.

    Args:
        shelf: Keeps the indexes.

    Returns:
        The functions by name: index kinds, ``index``, and encoders with a name of their own.
    """
    make = _Makers(shelf)
    named: dict[str, Maker] = {name: partial(make.dense, name) for name in encoder_names()}
    return {
        "bm25": make.bm25,
        "dense": make.dense,
        "index": make.index,
        "lucene": make.lucene,
        "sparse": make.sparse,
        **named,
    }


class _Makers:
    def __init__(self, shelf: IndexShelf) -> None:
        self._shelf = shelf

    def bm25(
        self,
        *,
        preset: Literal = "anserini",
        k1: Literal = None,
        b: Literal = None,
        k: Literal = None,
        where: Literal = None,
        passages: Literal = None,
        aggregate: Literal = "max",
    ) -> Stage[Queries, Run]:
        """BM25 over our inverted index."""
        from retrievekit.index.bm25 import BM25Index

        settings = _bm25_settings(preset, k1, b)
        asked = self._asked(k, where, passages, aggregate)

        def build(path: Path | None, progress: Any, overwrite: bool) -> Any:
            documents = self._documents(asked)
            return BM25Index.build(
                documents, path, progress=progress, overwrite=overwrite, **settings
            )

        index = self._shelf.shelved("bm25", settings, build, BM25Index.open, asked)
        return self._searcher(index, asked)

    def dense(
        self,
        encoder: Literal,
        *,
        engine: Literal = "flat",
        storage: Literal = "float32",
        dim: Literal = None,
        backend: Literal = "torch",
        url: Literal = None,
        key_variable: Literal = None,
        refine: Literal = None,
        nprobe: Literal = None,
        efSearch: Literal = None,
        k: Literal = None,
        where: Literal = None,
        passages: Literal = None,
        aggregate: Literal = "max",
    ) -> Stage[Queries, Run]:
        """Vectors of an encoder, by its registered name, folder or hub name."""
        from retrievekit.index.dense import DenseIndex

        asked = self._asked(k, where, passages, aggregate)
        kind, kept = text("engine", engine), text("storage", storage)
        given = {"refine": refine, "nprobe": nprobe, "efSearch": efSearch}
        options = options_of(kind, given)
        name = text("encoder", encoder)
        first = None if dim is None else whole("dim", dim)
        service = [
            None if value is None else text(setting, value)
            for setting, value in (("url", url), ("key_variable", key_variable))
        ]
        try:
            made = self._shelf.encoder(name, text("backend", backend), first, *service)
        except UnknownNameError as why:
            raise ExpressionError(str(why)) from why
        settings = {"encoder": made.card.fingerprint, "engine": kind}
        if kept != "float32":
            settings["storage"] = kept

        def build(path: Path | None, progress: Any, overwrite: bool) -> Any:
            return DenseIndex.build(
                self._documents(asked),
                made,
                path,
                engine=kind,
                storage=kept,
                progress=progress,
                overwrite=overwrite,
            )

        def reopen(path: Path) -> Any:
            return DenseIndex.open(path, encoder=made)

        return self._searcher(
            self._shelf.shelved(name, settings, build, reopen, asked), asked, options
        )

    def sparse(
        self,
        encoder: Literal,
        *,
        method: Literal = None,
        idf: Literal = False,
        levels: Literal = 4096,
        k: Literal = None,
        where: Literal = None,
        passages: Literal = None,
        aggregate: Literal = "max",
    ) -> Stage[Queries, Run]:
        """Term weights of a sparse encoder, by its folder or hub name."""
        from retrievekit.index.sparse import SparseIndex

        asked = self._asked(k, where, passages, aggregate)
        name, per_unit = text("encoder", encoder), number("levels", levels)
        made = self._shelf.sparse_encoder(
            name, None if method is None else text("method", method), flag("idf", idf)
        )
        settings = {"encoder": made.card.fingerprint, "levels": per_unit}

        def build(path: Path | None, progress: Any, overwrite: bool) -> Any:
            return SparseIndex.build(
                self._documents(asked),
                made,
                path,
                levels=per_unit,
                progress=progress,
                overwrite=overwrite,
            )

        def reopen(path: Path) -> Any:
            return SparseIndex.open(path, encoder=made)

        return self._searcher(self._shelf.shelved(name, settings, build, reopen, asked), asked)

    def lucene(
        self,
        path: Literal = None,
        *,
        preset: Literal = "anserini",
        k1: Literal = None,
        b: Literal = None,
        stemmer: Literal = None,
        keep_stopwords: Literal = None,
        k: Literal = None,
        passages: Literal = None,
        aggregate: Literal = "max",
    ) -> Stage[Queries, Run]:
        """Anserini's BM25 over the corpus, or an index of Anserini's that exists."""
        from retrievekit.index.lucene import LuceneIndex

        given: dict[str, Any] = {
            "stemmer": None if stemmer is None else text("stemmer", stemmer),
            "keep_stopwords": None if keep_stopwords is None else flag("it", keep_stopwords),
        }
        analysis = {name: value for name, value in given.items() if value is not None}
        if path is not None:
            if passages is not None or preset != "anserini":
                raise ExpressionError("an index that exists takes k1, b and k, no preset, passages")
            own = {"k1": number("k1", k1), "b": number("b", b), **analysis}
            opened = self._shelf.opened(
                text("path", path), lambda folder: LuceneIndex.open(folder, **own), own
            )
            return self._searcher(opened, Asked(self._hits(k)))
        asked = self._asked(k, None, passages, aggregate)
        settings = {**_bm25_settings(preset, k1, b), **analysis}

        def build(path: Path | None, progress: Any, overwrite: bool) -> Any:
            documents = self._documents(asked)
            return LuceneIndex.build(
                documents, path, progress=progress, overwrite=overwrite, **settings
            )

        index = self._shelf.shelved("lucene", settings, build, LuceneIndex.open, asked)
        return self._searcher(index, asked)

    def index(
        self,
        path: Literal,
        *,
        refine: Literal = None,
        nprobe: Literal = None,
        efSearch: Literal = None,
        k: Literal = None,
        where: Literal = None,
    ) -> Stage[Queries, Run]:
        """An index that exists."""
        hits = self._hits(k)
        index = self._shelf.opened(text("path", path), open_any, {})
        given = {"refine": refine, "nprobe": nprobe, "efSearch": efSearch}
        if any(value is not None for value in given.values()) and index.kind != "dense":
            raise ExpressionError(f"an index of kind {index.kind!r} has no engine with options")
        options = options_of(index.engine, given) if index.kind == "dense" else {}
        if where is None:
            return self._searcher(index, Asked(hits), options)
        if index.kind == "lucene":
            raise ExpressionError("an index of Lucene's is not searched under conditions")
        satisfied = condition(where, index.metadata.column_names)
        return self._searcher(index, Asked(hits, satisfied), options)

    def _asked(self, k: Literal, where: Literal, passages: Literal, aggregate: Literal) -> Asked:
        """What every retriever over the corpus is asked alike."""
        hits = self._hits(k)
        window, how = windowed(passages, aggregate)
        columns = [*self._shelf.source().metadata_names, *((PARENT, NUMBER) if window else ())]
        return Asked(hits, condition(where, columns), window, how)

    def _documents(self, asked: Asked) -> Corpus | Iterator[Document]:
        """What is indexed; passages one by one, since those of a large corpus need not fit."""
        if asked.window is None:
            return self._shelf.source()
        from retrievekit.splitting import split_documents

        words, stride = asked.window
        return split_documents(self._shelf.source(), words=words, stride=stride)

    def _searcher(
        self, index: Any, asked: Asked, options: Mapping[str, int] | None = None
    ) -> Stage[Queries, Run]:
        settings: dict[str, Any] = {}
        if asked.where is not None:
            settings["where"] = asked.where
        if options:
            settings["engine_options"] = options
        if asked.window is None or asked.aggregate is None:
            plain: Stage[Queries, Run] = index.searcher(k=asked.k, **settings)
            return plain
        from retrievekit.passages import aggregate

        # Twice the share of the passages that k documents are of all documents.
        share = 2 * asked.k * len(index) / max(1, len(self._shelf.source()))
        depth = max(asked.k, min(len(index), math.ceil(share)))
        how: Any = asked.aggregate
        searcher: Stage[Queries, Run] = index.searcher(k=depth, **settings)
        return searcher >> aggregate(how, k=asked.k)

    def _hits(self, k: Literal) -> int:
        if k is None:
            return self._shelf.depth + self._shelf.extra
        return whole("k", k) + self._shelf.extra


def _bm25_settings(preset: Literal, k1: Literal, b: Literal) -> dict[str, Any]:
    from retrievekit.index.bm25 import PRESETS

    if preset not in PRESETS:
        raise ExpressionError(str(UnknownNameError.among("BM25 preset", str(preset), PRESETS)))
    return {"preset": preset, "k1": number("k1", k1), "b": number("b", b)}
