"""doc2query and doc2query--: documents with the queries that they answer, before they are indexed.

Nogueira and Lin, "From doc2query to docTTTTTquery" (2019): a model writes queries for each
document, which are put behind its text. Gospodinov, MacAvaney and Macdonald, "Doc2Query--: When
Less is More" (ECIR 2023): of all written queries only the share that fits best stays, by one
threshold for the whole collection.

A collection is gone through part by part; what was written for a part is kept in a file as soon as
it is complete, so that memory is bounded and work that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.arrow import string_array
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.language.chat import LanguageModel
from retrievekit.protocols import Progress
from retrievekit.rewrite.base import check_whole
from retrievekit.rewrite.drawing import check_model, drawn
from retrievekit.rewrite.fitting import fitted
from retrievekit.rewrite.parts import PartFolder, Written
from retrievekit.rewrite.prompts import ASKED, DOCUMENT, check_prompt
from retrievekit.rewrite.threshold import share_threshold
from retrievekit.stage import canonical, fingerprint_of
from retrievekit.store.files import files_in_use

log = logging.getLogger(__name__)


@runtime_checkable
class PairScorer(Protocol):
    """Scores pairs of query and document, as a pointwise reranker does; higher fits better.

    It also has a string ``fingerprint`` over what its scores depend on.
    """

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
        """Score pairs.

        Args:
            pairs: Queries with documents.

        Returns:
            Floating ``(n,)``.
        """


@dataclass(frozen=True)
class Expansion:
    """What became of a collection.

    Args:
        documents: Its documents.
        queries: Queries that were written.
        kept: Those that were put behind their documents.
        threshold: The score from which on queries were kept; None where none was scored.
        without: Documents for which nothing was written.
        failed: Those of them that could not be asked about; the next run tries them again.
    """

    documents: int
    queries: int
    kept: int
    threshold: float | None
    without: int
    failed: int

    def __str__(self) -> str:
        """One line to read."""
        parts = [f"{self.documents} documents, {self.kept} of {self.queries} queries kept"]
        if self.threshold is not None:
            parts.append(f"those that score {self.threshold:g} or more")
        if self.without:
            parts.append(f"{self.without} documents without any ({self.failed} failed)")
        return ", ".join(parts)


@dataclass(frozen=True)
class Doc2Query:
    """Puts written queries behind the texts of documents: ``corpus >> Doc2Query(model)``.

    The model reads title and text; the queries stand behind the text, parted by blanks, each as
    often as it was drawn. Ids, titles and metadata stay. Documents that nothing was written for are
    left as they are, counted and told.

    Args:
        model: Writes; its temperature is above 0 where several queries are asked for.
        queries: Queries of each document, at least 1; published with 40 and 80 of a T5 that draws
            among the ten likeliest tokens.
        max_new_tokens: Tokens of a query at most.
        prompt: What the model is asked, with ``{document}`` in it; a T5 of doc2query reads the
            document alone.
        max_words: Words of a document that are read; None reads all. A model that knows its limit
            is shown less where a prompt would not fit. Both are counted and told.
        scorer: Scores queries for doc2query--, such as a `CrossEncoderReranker`.
        keep: The share of all queries that stays, those that score best.
        folder: Where written queries are kept, for work that may be interrupted, and for other
            values of `keep`; by default nowhere, once it is done.
        part: Documents of a file, which is what an interruption may cost.

    Raises:
        DataError: A setting is none of these; or there is `scorer` without `keep`, or the reverse.
    """

    model: LanguageModel
    queries: int = field(default=5, kw_only=True)
    max_new_tokens: int = field(default=64, kw_only=True)
    prompt: str = field(default=ASKED, kw_only=True)
    max_words: int | None = field(default=300, kw_only=True)
    scorer: PairScorer | None = field(default=None, kw_only=True)
    keep: float | None = field(default=None, kw_only=True)
    folder: str | Path | None = field(default=None, kw_only=True)
    part: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        for name in ("queries", "max_new_tokens", "part"):
            check_whole(name, getattr(self, name))
        if self.max_words is not None:
            check_whole("max_words", self.max_words)
        check_model(self.model, self.queries)
        check_prompt(self.prompt, DOCUMENT)
        if (self.scorer is None) != (self.keep is None):
            raise DataError(
                "doc2query-- needs both: scorer=..., and keep=0.3, the share that stays"
            )
        if self.scorer is not None and not isinstance(self.scorer, PairScorer):
            raise DataError(f"scorer is something with score_pairs; got {self.scorer!r}")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise DataError(f"keep is a share above 0 and at most 1; got {self.keep!r}")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that the expanded documents depend on besides the documents."""
        return fingerprint_of({"written": self._writing, "keep": self.keep})

    @cached_property
    def _writing(self) -> str:
        """What written queries and their scores depend on."""
        who = {
            "model": canonical(self.model, "Doc2Query.model"),
            "scorer": canonical(self.scorer, "Doc2Query.scorer"),
        }
        settings = [self.queries, self.max_new_tokens, self.prompt, self.max_words]
        return fingerprint_of({"class": "doc2query 1", **who, "settings": settings})

    def __rrshift__(self, corpus: Corpus) -> Corpus:
        """``corpus >> Doc2Query(...)``: the expanded corpus."""
        return self(corpus) if isinstance(corpus, Corpus) else NotImplemented

    def __call__(self, corpus: Corpus, *, progress: Progress | None = None) -> Corpus:
        """Expand a corpus.

        Args:
            corpus: The documents.
            progress: Told how many documents have been written about.

        Returns:
            A corpus of the same documents in memory; `write` is for those beyond it.

        Raises:
            EndpointError: A service seems dead; what was written is in `folder`.
            FingerprintError: There is a folder, but model or scorer have no fingerprint.
        """
        with self._opened(corpus, progress) as work:
            texts = [string_array(list(part)) for part in work.texts()]
        column = pa.chunked_array(texts, type=pa.large_string())
        place = corpus.table.column_names.index("text")
        made = Corpus(corpus.ids, corpus.table.set_column(place, "text", column))
        made.window = corpus.window
        return made

    def documents(self, corpus: Corpus, *, progress: Progress | None = None) -> Iterator[Document]:
        """The expanded documents one by one, for an index's ``build``.

        Everything is written before the first one comes.

        Args:
            corpus: The documents.
            progress: Told how many documents have been written about.

        Yields:
            The documents in their order.
        """
        with self._opened(corpus, progress) as work:
            yield from work.documents()

    def write(
        self, corpus: Corpus, path: str | Path, *, progress: Progress | None = None
    ) -> Expansion:
        """Write the expanded documents as BEIR JSONL, whole or not at all.

        Args:
            corpus: The documents.
            path: The file; gzipped when its name ends in ``.gz``.
            progress: Told how many documents have been written about.

        Returns:
            What was written.

        Raises:
            EndpointError: A service seems dead; what was written is in `folder`.
            FingerprintError: There is a folder, but model or scorer have no fingerprint.
        """
        from retrievekit.data.beir import write_corpus

        with self._opened(corpus, progress) as work:
            write_corpus(work.documents(), path)
            return work.told()

    @contextmanager
    def _opened(self, corpus: Corpus, progress: Progress | None) -> Iterator[_Work]:
        if self.folder is None:
            with tempfile.TemporaryDirectory(prefix="retrievekit-queries-") as folder:
                yield _Work(self, corpus, Path(folder), "", progress)
            return
        files = files_in_use()
        files.make_folder(Path(self.folder))
        with files.lock(Path(self.folder)):
            yield _Work(self, corpus, Path(self.folder), self._writing, progress)


class _Work:
    """A corpus whose queries are written, part by part."""

    def __init__(
        self, how: Doc2Query, corpus: Corpus, folder: Path, who: str, progress: Progress | None
    ) -> None:
        self._how = how
        self._corpus = corpus
        self._who = who
        self._kept = PartFolder(folder, files_in_use())
        self._written = self._without = self._failed = self._left = 0
        done = 0
        for part in self._parts():
            rows = self._ensured(part)
            done += len(rows)
            self._written += sum(len(row.queries) for row in rows)
            self._without += sum(not row.queries for row in rows)
            self._failed += sum(row.failed for row in rows)
            if progress is not None:
                progress(done, len(corpus))
        self._threshold = None if how.keep is None else share_threshold(self._scores, how.keep)
        if self._without:
            log.warning(
                "%d of %d documents stay as they are: nothing was written for them (%d could not "
                "be asked about)",
                self._without, len(corpus), self._failed,
            )  # fmt: skip

    def _parts(self) -> Iterator[Corpus]:
        return self._corpus.chunks(self._how.part)

    def texts(self) -> Iterator[list[str]]:
        """The expanded texts, part by part."""
        self._left = 0
        for part in self._parts():
            texts = []
            for text, row in zip(
                part.table.column("text").to_pylist(), self._of(part), strict=True
            ):
                kept = self._fit(row)
                self._left += len(kept)
                texts.append(" ".join([text, *kept] if text else kept))
            yield texts

    def documents(self) -> Iterator[Document]:
        """The expanded documents."""
        for part, texts in zip(self._parts(), self.texts(), strict=True):
            for document, text in zip(part, texts, strict=True):
                yield Document(document.doc_id, text, document.title, document.metadata)

    def told(self) -> Expansion:
        """What became of the corpus, once its texts were asked for."""
        n = len(self._corpus)
        return Expansion(n, self._written, self._left, self._threshold, self._without, self._failed)

    def _fit(self, row: Written) -> list[str]:
        least = self._threshold
        if least is None:
            return list(row.queries)
        pairs = zip(row.queries, row.scores, strict=True)
        return [query for query, score in pairs if score >= least]

    def _scores(self) -> Iterable[NDArray[np.float32]]:
        for part in self._parts():
            yield np.array([s for row in self._of(part) for s in row.scores], np.float32)

    def _of(self, part: Corpus) -> list[Written]:
        """What was written for a part; once more where its file is gone or damaged meanwhile."""
        return self._kept.get(self._key(part)) or self._ensured(part)

    def _key(self, part: Corpus) -> str:
        words = json.dumps([list(part.ids), part.contents()])
        return hashlib.sha256(f"{self._who}\0{words}".encode()).hexdigest()

    def _ensured(self, part: Corpus) -> list[Written]:
        """What was written for a part, asked for where it is missing."""
        key = self._key(part)
        ids, words = list(part.ids), part.contents()
        rows = self._kept.get(key)
        before = rows or [Written(doc_id, (), failed=True) for doc_id in ids]
        places = [place for place, row in enumerate(before) if row.failed]
        if rows is not None and not places:
            return rows
        fresh = self._asked([ids[p] for p in places], [words[p] for p in places])
        for place, row in zip(places, fresh, strict=True):
            before[place] = row
        self._kept.put(key, before)
        return before

    def _asked(self, ids: Sequence[str], words: Sequence[str]) -> list[Written]:
        how = self._how
        asked = [place for place, text in enumerate(words) if text.strip()]
        chats = fitted(
            how.model, how.prompt, [words[p] for p in asked], how.max_words, how.max_new_tokens
        )
        found = drawn(
            how.model, chats, draws=how.queries, max_new_tokens=how.max_new_tokens, lasting=True
        )
        written = dict(zip(asked, found, strict=True))
        texts = [
            tuple(" ".join(t.split()) for t in written[p].texts) if p in written else ()
            for p in range(len(ids))
        ]
        scores = self._scored([(q, words[p]) for p, own in enumerate(texts) for q in own])
        out = []
        for place, doc_id in enumerate(ids):
            own = texts[place]
            marks = tuple(scores[: len(own)]) if how.scorer is not None else ()
            scores = scores[len(own) :]
            failed = place in written and written[place].failed
            out.append(Written(doc_id, own, marks, failed))
        return out

    def _scored(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        scorer: Any = self._how.scorer
        if scorer is None or not pairs:
            return []
        found = np.asarray(scorer.score_pairs(pairs))
        if found.shape != (len(pairs),) or found.dtype.kind not in "iuf":
            raise EncoderContractError(
                f"{scorer!r} was to score {len(pairs)} pairs, but gave {found.dtype} {found.shape}"
            )
        values = found.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise NonFiniteError(f"{scorer!r}: {values[bad[0]]} for {pairs[bad[0]][0]!r:.80}")
        out: list[float] = values.tolist()
        return out
