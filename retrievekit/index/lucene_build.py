"""Writing an index in Lucene's own format, and the card that says how it was made.

Anserini's document generator makes the documents, so that the index is one of Anserini's: fields
``id`` (stored, and as doc values for ties), ``contents``, and ``raw`` where words are kept. The
card is kept in Lucene's commit, where other tools carry it along; it holds a digest of the commit's
segments, so that what somebody else adds later is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, DuplicateIdError, IndexExistsError
from retrievekit.index.documents import document_chunks
from retrievekit.index.lucene_jvm import Java, java_errors
from retrievekit.index.lucene_settings import english_analyzer, similarity
from retrievekit.index.quantised import Quantisation
from retrievekit.index.weights import GivenWeights, stored, tell_error
from retrievekit.protocols import Progress
from retrievekit.store.files import files_in_use

log = logging.getLogger(__name__)

CARD = "retrievekit"
"""The key of the card among a commit's user data."""

DELIMITER = "\ue000"
"""Stands between a term and its weight while an impact index is written."""

LONGEST_TERM = 255
"""Characters of the longest term of an impact index, the limit of Lucene's whitespace analyzer."""

_BUFFER_MB = 256.0
_BLANK = "".join(map(chr, range(0x21)))


@contextlib.contextmanager
def fresh_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to build in, which takes the place of `path` when all went well.

    Args:
        path: The index folder.
        overwrite: Whether a Lucene index that is there may be replaced.

    Yields:
        An empty folder beside it.

    Raises:
        IndexExistsError: Something is at `path` that must not be replaced.
    """
    _refuse(path, overwrite)
    files = files_in_use()
    files.make_folder(path.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    old = scratch.with_name(scratch.name + "-old")
    try:
        yield scratch
        _refuse(path, overwrite)
        scratch.chmod(0o755)
        if path.exists():
            files.rename(path, old)
        try:
            files.rename(scratch, path)
        except BaseException:
            if old.exists():
                files.rename(old, path)
            raise
        files.sync_folder(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _refuse(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise IndexExistsError(f"{path}: is a file; give a folder for the index")
    names = [entry.name for entry in path.iterdir()]
    if not names:
        return
    if not any(name.startswith("segments_") for name in names):
        raise IndexExistsError(f"{path}: holds files, but no Lucene index; give an empty folder")
    if not overwrite:
        raise IndexExistsError(f"{path}: an index is there; give overwrite=True to replace it")


class LuceneWriter:
    """Writes one index, from an empty folder to its only commit.

    Args:
        java: The machine.
        folder: An empty folder.
        analyzer: Lucene's analyzer.
        similarity: Lucene's similarity, which decides what is kept of lengths.
        feedback: Whether the terms of each document are kept, for RM3 and Rocchio.
        store_text: Whether the words are kept.
    """

    def __init__(
        self,
        java: Java,
        folder: Path,
        analyzer: Any,
        similarity: Any,
        *,
        feedback: bool,
        store_text: bool,
    ) -> None:
        self._java = java
        self._folder = folder
        self._analyzer = analyzer
        arguments = java("io.anserini.index.IndexCollection$Args")()
        arguments.storeRaw = store_text
        arguments.storeDocvectors = arguments.storePositions = feedback
        generator = java("io.anserini.index.generator.DefaultLuceneDocumentGenerator")
        self._generator = generator(arguments)
        self._document = java("io.anserini.collection.JsonCollection$Document")
        self._directory = directory_of(java, folder)
        # Not in a chain: what setters return is a class that the constructor does not take.
        config = self._config()
        config.setSimilarity(similarity)
        config.setRAMBufferSizeMB(_BUFFER_MB)
        config.setUseCompoundFile(False)
        self._writer = java("org.apache.lucene.index.IndexWriter")(self._directory, config)
        self._ids: set[str] = set()
        self._digest = hashlib.sha256()
        self.empty = 0

    def _config(self) -> Any:
        return self._java("org.apache.lucene.index.IndexWriterConfig")(self._analyzer)

    def write(self, documents: Iterable[tuple[str, str]]) -> None:
        """Add documents; when that fails, nothing is left open.

        Args:
            documents: Ids and words.
        """
        try:
            for doc_id, contents in documents:
                self.add(doc_id, contents)
        except BaseException:
            self._writer.rollback()
            self._directory.close()
            raise

    def add(self, doc_id: str, contents: str) -> None:
        """Add a document; one without words is counted, but not kept, as Anserini does.

        Args:
            doc_id: Its id.
            contents: Its words.

        Raises:
            DuplicateIdError: The id came before.
        """
        if doc_id in self._ids:
            raise DuplicateIdError(f"document id {doc_id!r} comes twice")
        self._ids.add(doc_id)
        for part in (doc_id, contents):
            raw = part.encode("utf-8")
            self._digest.update(len(raw).to_bytes(8, "little"))
            self._digest.update(raw)
        if not contents.strip(_BLANK):
            self.empty += 1
            return
        record = json.dumps({"id": doc_id, "contents": contents})
        self._writer.addDocument(self._generator.createDocument(self._document.fromString(record)))

    def finish(self, card: Mapping[str, Any]) -> None:
        """Commit, with a card that also says what was indexed.

        Args:
            card: The settings.
        """
        self._writer.commit()
        self._writer.close()
        # A second writer that merges nothing, so that the segments told are those that stay.
        java = self._java
        config = self._config()
        config.setMergePolicy(java("org.apache.lucene.index.NoMergePolicy").INSTANCE)
        writer = java("org.apache.lucene.index.IndexWriter")(self._directory, config)
        told = {
            **card,
            "anserini": java.version,
            "corpus": self._digest.hexdigest(),
            "documents": len(self._ids),
            "segments": segments_digest(java, self._directory),
        }
        data = java("java.util.HashMap")()
        data.put(CARD, json.dumps(told, sort_keys=True))
        writer.setLiveCommitData(data.entrySet())
        writer.commit()
        writer.close()
        self._directory.close()
        if self.empty:
            log.warning(
                "%d of %d documents have no words; Lucene does not keep them",
                self.empty, len(self._ids),
            )  # fmt: skip


def write_texts(
    java: Java,
    folder: Path,
    source: Corpus | Iterable[Document],
    card: Mapping[str, Any],
    *,
    store_text: bool,
    progress: Progress | None,
) -> None:
    """Write a BM25 index.

    Args:
        java: The machine.
        folder: An empty folder.
        source: The documents.
        card: The settings, ``feedback`` among them.
        store_text: Whether the words are kept.
        progress: Called with documents done and in all.
    """
    chunks, total = document_chunks(source)

    def contents() -> Iterator[tuple[str, str]]:
        for done, part in _counted(chunks):
            yield from zip(part.ids, part.contents(), strict=True)
            if progress is not None:
                progress(done, total)

    with java_errors(f"building {folder}"):
        analyzer, scoring = english_analyzer(java, card), similarity(java, card)
        keeping = {"feedback": bool(card["feedback"]), "store_text": store_text}
        writer = LuceneWriter(java, folder, analyzer, scoring, **keeping)
        writer.write(contents())
        writer.finish(card)


def write_impacts(
    java: Java,
    folder: Path,
    given: GivenWeights,
    card: Mapping[str, Any],
    *,
    progress: Progress | None,
) -> None:
    """Write an impact index; what was lost to whole numbers is told.

    Args:
        java: The machine.
        folder: An empty folder.
        given: The documents with their weights.
        card: The settings, ``levels`` among them.
        progress: Called with documents done and in all.
    """
    chunks, expected = document_chunks(given.documents())
    levels: float = card["levels"]
    total, weight = Quantisation(), 0.0

    def contents() -> Iterator[tuple[str, str]]:
        nonlocal total, weight
        for done, part in _counted(chunks):
            weights = given.next(part)
            rows, counts = stored(weights, levels, part)
            yield from impact_contents(part, rows)
            total += counts
            weight += float(weights.weights.sum(dtype=np.float64))
            if progress is not None:
                progress(done, expected)

    with java_errors(f"building {folder}"):
        analyzer, scoring = impact_analyzer(java), similarity(java, card)
        writer = LuceneWriter(java, folder, analyzer, scoring, feedback=False, store_text=False)
        writer.write(contents())
        writer.finish({**card, "quantisation": total.to_dict()})
    tell_error(total, weight, levels, "impact index")


def _counted(chunks: Iterable[Corpus]) -> Iterator[tuple[int, Corpus]]:
    """Parts, each with how many documents there are up to its end."""
    done = 0
    for part in chunks:
        done += len(part)
        yield done, part


def directory_of(java: Java, folder: Path) -> Any:
    """A folder as Lucene's directory."""
    path = java("java.io.File")(java.string(str(folder.absolute()))).toPath()
    return java("org.apache.lucene.store.FSDirectory").open(path)


def segments_digest(java: Java, directory: Any) -> str:
    """SHA-256 over the names, ids and generations of the last commit's segments."""
    infos = java("org.apache.lucene.index.SegmentInfos").readLatestCommit(directory)
    spelt = java("org.apache.lucene.util.StringHelper").idToString
    parts = []
    for number in range(infos.size()):
        segment = infos.info(number)
        generations = (
            segment.getDelGen(),
            segment.getFieldInfosGen(),
            segment.getDocValuesGen(),
        )
        parts.append(f"{segment.info.name} {spelt(segment.info.getId())} {generations}\n")
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()


def impact_analyzer(java: Java) -> Any:
    """An analyzer of ``term<DELIMITER>weight`` at whitespace: the weight is the term's frequency.

    Anserini itself repeats each term as often as it weighs; what is stored is the same.
    """
    settings = java("java.util.HashMap")
    length, delimiter = settings(), settings()
    length.put("maxTokenLen", str(4 * LONGEST_TERM))
    delimiter.put("delimiter", java.string(DELIMITER))
    builder = java("org.apache.lucene.analysis.custom.CustomAnalyzer").builder()
    builder = builder.withTokenizer("whitespace", length)
    return builder.addTokenFilter("delimitedTermFrequency", delimiter).build()


def impact_contents(part: Corpus, rows: Iterable[Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    """Weights of documents as `impact_analyzer` reads them.

    Args:
        part: The documents.
        rows: Integers above 0 by term.

    Yields:
        Id and contents.

    Raises:
        DataError: A term holds whitespace or the delimiter, is empty or too long.
    """
    for doc_id, row in zip(part.ids, rows, strict=True):
        for term in row:
            if term.split() != [term] or DELIMITER in term or len(term) > LONGEST_TERM:
                raise DataError(
                    f"document {doc_id!r}: the term {term!r:.80} cannot be in an impact index of "
                    f"Lucene: a term is 1 to {LONGEST_TERM} characters without whitespace or U+E000"
                )
        yield doc_id, " ".join(f"{term}{DELIMITER}{value}" for term, value in row.items())
