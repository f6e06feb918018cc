"""Indexes of one corpus, built or opened once, and the systems that expressions make of them.

`IndexShelf` is what `retrievekit.config.resolve` asks for retrievers. An index is known by the
content of its corpus and by its settings, so equal sub-expressions share one, and a folder keeps
them between processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrievekit import registry
from retrievekit.config import Literal
from retrievekit.corpus import Corpus
from retrievekit.errors import (
    CorruptIndexError,
    DataError,
    ExpressionError,
    FormatVersionError,
    IndexExistsError,
    UnknownNameError,
)
from retrievekit.locations import cache_dir
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage
from retrievekit.where import Condition, parse

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how far it is, and how much there is (None: unknown)."""


def shelf_folder() -> Path:
    """The folder below the cache in which indexes are kept between processes."""
    return cache_dir() / "indexes"


@dataclass(frozen=True)
class Built:
    """An index on the shelf.

    Args:
        index: The index.
        seconds: What building it took; None when it was opened from the folder.
    """

    index: Any
    seconds: float | None


class IndexShelf:
    """Builds or opens the indexes of one corpus, each once.

    Args:
        corpus: The corpus; None when only indexes that exist are to be named (``index("folder")``).
        folder: Where indexes are kept between processes; None keeps them in memory.
        depth: Hits per query unless an expression says ``k=...``.
        extra: Hits added to each depth, for documents that are dropped later.
        progress: Told how far building is.
    """

    def __init__(
        self,
        corpus: Corpus | None,
        folder: Path | None = None,
        *,
        depth: int = 1000,
        extra: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.corpus = corpus
        self.folder = folder
        self.depth = depth
        self.extra = extra
        self.progress = progress
        self.built: dict[str, Built] = {}
        self._encoders: dict[str, Any] = {}

    def retriever_names(self) -> Sequence[str]:
        """The names that `retriever` takes: ``bm25``, ``dense``, ``index`` and the encoders'."""
        return ["bm25", "dense", "index", *encoder_names()]

    def retriever(
        self, name: str, args: Sequence[Literal], keywords: Mapping[str, Literal]
    ) -> Stage[Queries, Run]:
        """The searcher of a name and its settings.

        Args:
            name: ``bm25``, ``dense``, ``index`` or an encoder's name.
            args: Positional settings.
            keywords: Named settings.

        Returns:
            The searcher.

        Raises:
            UnknownNameError: No such retriever.
            ExpressionError: The settings do not fit, or there is no corpus to index.
        """
        makers: dict[str, Callable[..., Stage[Queries, Run]]] = {
            "bm25": self._bm25,
            "dense": self._dense,
            "index": self._index,
        }
        if name in encoder_names():
            makers[name] = self._named_encoder(name)
        if name not in makers:
            raise UnknownNameError.among("retriever", name, self.retriever_names())
        make = makers[name]
        try:
            inspect.signature(make).bind(*args, **keywords)
        except TypeError as why:
            known = ", ".join(inspect.signature(make).parameters)
            raise ExpressionError(f"{why}; it takes {known}") from why
        return make(*args, **keywords)

    def _bm25(
        self,
        *,
        preset: Literal = "anserini",
        k1: Literal = None,
        b: Literal = None,
        k: Literal = None,
        where: Literal = None,
    ) -> Stage[Queries, Run]:
        """BM25 over our inverted index."""
        from retrievekit.index.bm25 import PRESETS, BM25Index

        if preset not in PRESETS:
            problem = UnknownNameError.among("BM25 preset", str(preset), PRESETS)
            raise ExpressionError(str(problem))
        settings: dict[str, Any] = {
            "preset": _text("preset", preset),
            "k1": _number("k1", k1),
            "b": _number("b", b),
        }
        depth = self._hits(k)
        condition = _condition(where, self._source().metadata_names)

        def build(path: Path | None, progress: Any, overwrite: bool) -> Any:
            return BM25Index.build(
                self._source(), path, progress=progress, overwrite=overwrite, **settings
            )

        index = self._shelved("bm25", settings, build, BM25Index.open)
        return _searcher(index, depth, condition)

    def _dense(
        self,
        encoder: Literal,
        *,
        engine: Literal = "flat",
        k: Literal = None,
        where: Literal = None,
    ) -> Stage[Queries, Run]:
        """Vectors of an encoder, by its registered name, folder or hub name."""
        from retrievekit.index.dense import DenseIndex

        depth = self._hits(k)
        condition = _condition(where, self._source().metadata_names)
        made = self._encoder(_text("encoder", encoder))
        kind = _text("engine", engine)
        settings = {"encoder": made.card.fingerprint, "engine": kind}

        def build(path: Path | None, progress: Any, overwrite: bool) -> Any:
            return DenseIndex.build(
                self._source(), made, path, engine=kind, progress=progress, overwrite=overwrite
            )

        def reopen(path: Path) -> Any:
            return DenseIndex.open(path, encoder=made)

        return _searcher(self._shelved(str(encoder), settings, build, reopen), depth, condition)

    def _named_encoder(self, name: str) -> Callable[..., Stage[Queries, Run]]:
        def make(
            *, engine: Literal = "flat", k: Literal = None, where: Literal = None
        ) -> Stage[Queries, Run]:
            return self._dense(name, engine=engine, k=k, where=where)

        return make

    def _index(
        self, path: Literal, *, k: Literal = None, where: Literal = None
    ) -> Stage[Queries, Run]:
        """An index that exists."""
        from retrievekit.index.opening import open_index

        folder = Path(_text("path", path))
        depth = self._hits(k)
        key = f"index:{folder.resolve()}"
        if key not in self.built:
            self.built[key] = Built(open_index(folder), None)
        index = self.built[key].index
        return _searcher(index, depth, _condition(where, index.metadata.column_names))

    def _hits(self, k: Literal) -> int:
        if k is None:
            return self.depth + self.extra
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ExpressionError(f"k is {k!r}, but must be a whole number of at least 1")
        return k + self.extra

    def _source(self) -> Corpus:
        if self.corpus is None:
            raise ExpressionError(
                "no documents are given to build an index from; name a data set, "
                'or an index that exists: index("folder")'
            )
        return self.corpus

    def _encoder(self, name: str) -> Any:
        if name not in self._encoders:
            self._encoders[name] = make_encoder(name)
        return self._encoders[name]

    def _shelved(
        self,
        label: str,
        settings: Mapping[str, Any],
        build: Callable[[Path | None, Any, bool], Any],
        reopen: Callable[[Path], Any],
    ) -> Any:
        described = {"label": label, "corpus": self._source().content_hash, **settings}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        if digest in self.built:
            return self.built[digest].index
        path = None
        if self.folder is not None:
            plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in label)[-40:]
            path = self.folder / f"{plain}-{digest[:20]}.index"
        found = self._kept(path, reopen)
        if found is None:
            start = time.perf_counter()
            found = self._build(path, label, build, reopen)
            self.built[digest] = Built(found, time.perf_counter() - start)
        else:
            self.built[digest] = Built(found, None)
        return found

    def _kept(self, path: Path | None, reopen: Callable[[Path], Any]) -> Any:
        """The index of the folder, or None when it has to be built."""
        if path is None or not path.exists():
            return None
        try:
            return reopen(path)
        except (CorruptIndexError, FormatVersionError) as why:
            log.warning("building %s again, since what is there cannot be used: %s", path, why)
            return None

    def _build(
        self,
        path: Path | None,
        label: str,
        build: Callable[[Path | None, Any, bool], Any],
        reopen: Callable[[Path], Any],
    ) -> Any:
        told = self.progress

        def progress(done: int, total: int | None) -> None:
            if told is not None:
                told(f"indexing {label}", done, total)

        progress(0, len(self._source()))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        overwrite = path is not None and path.exists()
        try:
            return build(path, progress, overwrite)
        except IndexExistsError:
            # Another process finished the same index in the meantime.
            if path is None:
                raise
            return reopen(path)


def encoder_names() -> list[str]:
    """The names of encoders that an expression may use."""
    # "sentence" rebuilds an encoder from a card; it takes one and is no encoder by itself.
    return [name for name in registry.names("encoder") if name != "sentence"]


def make_encoder(name: str, backend: str = "torch") -> Any:
    """An encoder by registered name, folder or hub name.

    Args:
        name: The name.
        backend: What computes its layers, as `SentenceEncoder` has it.

    Returns:
        The encoder.

    Raises:
        DataError: An encoder that torch alone computes, and another backend.
    """
    from retrievekit.encode.minilm import NAME as MINILM
    from retrievekit.encode.sentence import SentenceEncoder

    registered = name in encoder_names()
    if registered and backend == "torch":
        return registry.resolve("encoder", name)()
    if registered and name != MINILM:
        raise DataError(f"the encoder {name!r} has no backend but torch; got {backend!r}")
    any_backend: Any = backend  # SentenceEncoder refuses what is none
    return SentenceEncoder(name, backend=any_backend)


def parts_of(stage: Stage[Any, Any]) -> Iterator[Stage[Any, Any]]:
    """A stage and all stages inside it, outermost first.

    Args:
        stage: The stage.

    Yields:
        The stages; one that stands in two places comes twice.
    """
    yield stage
    for child in stage.children:
        yield from parts_of(child)


def indexes_of(stage: Stage[Any, Any]) -> list[Any]:
    """The distinct indexes that a pipeline searches.

    Args:
        stage: The pipeline.

    Returns:
        Whatever its stages hold in a field and has a size in bytes (`n_bytes`), each once.
    """
    found: dict[Any, Any] = {}
    for part in parts_of(stage):
        if not dataclasses.is_dataclass(part):
            continue
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if isinstance(getattr(value, "n_bytes", None), int) and not isinstance(value, Stage):
                path = getattr(value, "path", None)
                found[id(value) if path is None else str(path)] = value
    return list(found.values())


def _searcher(index: Any, k: int, where: Condition | None) -> Stage[Queries, Run]:
    stage: Stage[Queries, Run] = index.searcher(k=k, where=where)
    return stage


def _condition(where: Literal, columns: Sequence[str]) -> Condition | None:
    """The condition; refused before an index is built when its documents lack a column."""
    if where is None:
        return None
    found = parse(_text("where", where))
    for column in found.columns:
        if column not in columns:
            raise ExpressionError(str(UnknownNameError.among("metadata column", column, columns)))
    return found


def _text(name: str, value: Literal) -> str:
    if not isinstance(value, str) or not value:
        raise ExpressionError(f"{name} is {value!r}, but must be a text in quotes")
    return value


def _number(name: str, value: Literal) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ExpressionError(f"{name} is {value!r}, but must be a number")
    return float(value)
