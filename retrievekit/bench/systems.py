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

from retrievekit.bench.encoders import encoder_names, make_encoder, make_sparse_encoder
from retrievekit.bench.retrievers import makers_of
from retrievekit.bench.settings import Asked
from retrievekit.config import Literal, misfit
from retrievekit.corpus import Corpus
from retrievekit.errors import (
    CorruptIndexError,
    ExpressionError,
    FormatVersionError,
    IndexExistsError,
    UnknownNameError,
)
from retrievekit.locations import cache_dir
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage, Then

__all__ = [
    "Built",
    "IndexShelf",
    "Progress",
    "encoder_names",
    "indexes_of",
    "make_encoder",
    "make_sparse_encoder",
    "parts_of",
    "searched",
    "shelf_folder",
]

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
        whole: Whether its documents are those of the shelf's corpus, and no passages of them.
    """

    index: Any
    seconds: float | None
    whole: bool = False


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
        self._encoders: dict[tuple[Any, ...], Any] = {}

    def retriever_names(self) -> Sequence[str]:
        """The names that `retriever` takes: those of index kinds, ``index`` and the encoders'."""
        return list(makers_of(self))

    def retriever(
        self, name: str, args: Sequence[Literal], keywords: Mapping[str, Literal]
    ) -> Stage[Queries, Run]:
        """The searcher of a name and its settings.

        Args:
            name: ``bm25``, ``dense``, ``sparse``, ``lucene``, ``index`` or an encoder's name.
            args: Positional settings.
            keywords: Named settings.

        Returns:
            The searcher; with ``passages`` it brings documents back from them.

        Raises:
            UnknownNameError: No such retriever.
            ExpressionError: The settings do not fit, or there is no corpus to index.
        """
        makers = makers_of(self)
        if name not in makers:
            raise UnknownNameError.among("retriever", name, self.retriever_names())
        make = makers[name]
        problem = misfit(make, args, keywords)
        if problem is not None:
            known = ", ".join(inspect.signature(make).parameters)
            raise ExpressionError(f"{problem}; it takes {known}")
        return make(*args, **keywords)

    def documents(self, before: Stage[Any, Any] | None) -> Any:
        """The words of the documents that a stage's hits are.

        Args:
            before: The stage; None for that of nobody in particular.

        Returns:
            The shelf's corpus, or the index that was searched where it holds others, or passages.

        Raises:
            ExpressionError: There is neither.
        """
        found = None if before is None else searched(before)
        if found is None or any(b.whole and b.index is found for b in self.built.values()):
            found = self.corpus
        if found is None:
            raise ExpressionError(
                "the words of its documents are not known here; name an index that keeps them "
                'among its arguments: index("folder")'
            )
        return found

    def searched(self, before: Stage[Any, Any] | None) -> Any:
        """The index that a stage's hits come from.

        Args:
            before: The stage.

        Returns:
            The index; the first one, where several are fused.

        Raises:
            ExpressionError: There is none.
        """
        found = None if before is None else searched(before)
        if found is None:
            raise ExpressionError("the index is not known here; name a searcher of it")
        return found

    def opened(self, path: str, open_it: Callable[[Path], Any], settings: Mapping[str, Any]) -> Any:
        """An index that exists, opened once.

        Args:
            path: Its folder.
            open_it: Opens it.
            settings: What it is opened with.

        Returns:
            The index.
        """
        folder = Path(path)
        key = f"index:{folder.resolve()}:{sorted(settings.items())}"
        if key not in self.built:
            self.built[key] = Built(open_it(folder), None)
        return self.built[key].index

    def source(self) -> Corpus:
        """The corpus.

        Raises:
            ExpressionError: There is none.
        """
        if self.corpus is None:
            raise ExpressionError(
                "no documents are given to build an index from; name a data set, "
                'or an index that exists: index("folder")'
            )
        return self.corpus

    def encoder(self, *described: Any) -> Any:
        """A dense encoder, made once.

        Args:
            described: What `make_encoder` takes.

        Returns:
            The encoder.
        """
        if described not in self._encoders:
            self._encoders[described] = make_encoder(*described)
        return self._encoders[described]

    def sparse_encoder(self, name: str, method: str | None, idf: bool) -> Any:
        """A sparse encoder, made once; see `make_sparse_encoder`.

        Args:
            name: Its name.
            method: Its method.
            idf: Whether queries are weighed by idf over the corpus instead.

        Returns:
            The encoder.
        """
        key = ("sparse", name, method, idf)
        if key not in self._encoders:
            made = make_sparse_encoder(name, method)
            if idf:
                from retrievekit.encode.idf import InferenceFreeEncoder

                made = InferenceFreeEncoder.from_corpus(made, self.source())
            self._encoders[key] = made
        return self._encoders[key]

    def shelved(
        self,
        label: str,
        settings: Mapping[str, Any],
        build: Callable[[Path | None, Any, bool], Any],
        reopen: Callable[[Path], Any],
        asked: Asked,
    ) -> Any:
        """An index of the corpus, or of its passages, made or opened once.

        Args:
            label: What it is called in messages and in its folder's name.
            settings: What its content depends on besides the corpus.
            build: Builds it at a path, telling progress, overwriting or not.
            reopen: Opens it at a path.
            asked: Says whether passages are indexed.

        Returns:
            The index.

        Raises:
            ExpressionError: There is no corpus, or the index has no such engine or storage.
        """
        described = {"label": label, "corpus": self.source().content_hash, **settings}
        if asked.window is not None:
            described["passages"] = asked.window
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
            try:
                found = self._build(path, label, build, reopen)
            except UnknownNameError as why:  # of an engine or a storage, a setting of the text
                raise ExpressionError(str(why)) from why
            seconds: float | None = time.perf_counter() - start
        else:
            seconds = None
        self.built[digest] = Built(found, seconds, asked.window is None)
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

        progress(0, len(self.source()))
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


def searched(stage: Stage[Any, Any]) -> Any:
    """The index whose documents a stage's hits are.

    Args:
        stage: The stage.

    Returns:
        The index, the first one where several are fused; None for hits of no index's own, as the
        documents of passages are.
    """
    from retrievekit.passages import Aggregate

    if isinstance(stage, Then):
        for step in reversed(stage.stages):
            if isinstance(step, Aggregate):
                return None
            if step.takes is Queries:
                return searched(step)
        return None
    index = getattr(stage, "index", None)
    if index is not None:
        return index
    return next((found for child in stage.children if (found := searched(child)) is not None), None)


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
