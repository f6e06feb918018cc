"""`LuceneIndex`: Anserini itself, for those who want its own index and its own ranking.

BM25 and impact indexes in Lucene's format are built, opened and searched by Anserini's and Lucene's
classes (Java; extra ``lucene``). Indexes that Anserini or pyserini built open as well.

Such an index is not part of this package's store. What the store promises is not promised here:
there are no updates, no conditions on metadata, no verification before an answer uses the bytes and
no repair; Lucene has checksums of its own, which `LuceneIndex.check` reads. `BM25Index` and
`SparseIndex` give the same rankings with all of that and without Java.

Rankings are in this package's order, score descending and then id descending, also at place k,
where Anserini breaks ties by ascending id. Scores are Lucene's own, not lowered to break ties.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from retrievekit import registry
from retrievekit.corpus import Corpus, Document
from retrievekit.errors import DataError, FormError, UnknownNameError
from retrievekit.ids import Ids
from retrievekit.index.bm25 import PRESETS
from retrievekit.index.documents import TemporaryFolder
from retrievekit.index.lucene_build import fresh_folder, write_impacts, write_texts
from retrievekit.index.lucene_jvm import start
from retrievekit.index.lucene_reader import LuceneReader
from retrievekit.index.lucene_settings import (
    DEFAULTS,
    IMPACT_LEVELS,
    Scoring,
    check_settings,
)
from retrievekit.index.lucene_stages import LuceneSearcher
from retrievekit.index.quantised import check_levels
from retrievekit.index.results import check_k
from retrievekit.index.weights import GivenWeights
from retrievekit.protocols import Progress
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import fingerprint_of
from retrievekit.vectors import WeightedTerms

log = logging.getLogger(__name__)


class LuceneIndex:
    """An index of Anserini's, opened for searching; `build`, `from_weights` and `open` make one.

    `LuceneRM3` and `LuceneRocchio` are Anserini's feedback over it::

        bm25 = LuceneIndex.open("my.lucene").searcher(k=1000)
        pipe = bm25 >> LuceneRM3(bm25.index, fb_terms=10, fb_docs=10) >> bm25

    Attributes:
        kind: ``lucene``.
        path: The folder.
        card: How it was built, where it was built here; empty for any other index.
        settings: ``scoring`` (bm25 or impact), ``k1``, ``b``, ``stemmer``, ``keep_stopwords``,
            ``levels``.

    Args:
        path: The folder.
        settings: What is known of it besides its card.

    Raises:
        FormatVersionError: The folder is no index of Anserini's that this Lucene reads.
        CorruptIndexError: It is damaged.
        DataError: A setting contradicts the index's card, or is out of range.
        MissingExtraError: pyserini or Java is not installed.
        JavaError: Java cannot be started.
    """

    kind: ClassVar[str] = "lucene"

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.reader = LuceneReader(start(), self.path)
        self.keeper: TemporaryFolder | None = None
        card: dict[str, Any] = self.reader.card
        self.card = card
        whole = card.get("segments") == self.reader.segments
        self._content = (
            {"corpus": card["corpus"], "anserini": card["anserini"]}
            if whole
            else {"segments": self.reader.segments}
        )
        if card and not whole:
            log.warning("%s: something was added after it was built", self.path)
        self.settings = self._merged({name: v for name, v in settings.items() if v is not None})
        self.reader.score_by(self.settings)

    def _merged(self, given: dict[str, Any]) -> dict[str, Any]:
        """Settings from the card, from the caller and by default; contradictions are errors."""
        out = {name: self.card.get(name, value) for name, value in DEFAULTS.items()}
        for name, value in given.items():
            if name in self.card and name not in ("k1", "b") and value != self.card[name]:
                raise DataError(
                    f"{self.path}: was built with {name}={self.card[name]!r}, not {value!r}"
                )
            out[name] = value
        check_settings(out)
        return out

    @classmethod
    def build(
        cls,
        source: Corpus | Iterable[Document],
        path: str | Path | None = None,
        *,
        preset: str = "anserini",
        k1: float | None = None,
        b: float | None = None,
        stemmer: str = "porter",
        keep_stopwords: bool = False,
        feedback: bool = True,
        store_text: bool = True,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> LuceneIndex:
        """Index documents for BM25 with Anserini's English analysis.

        Documents are read once; Java holds 256 MB of postings at a time, and ids are held to find
        those that come twice. The folder appears when all is written.

        Args:
            source: A corpus, or any iterable of documents; title and text are joined by one blank.
            path: The index folder; without it the index lives as long as the object.
            preset: k1 and b as in `BM25Index.build`.
            k1: Term frequency saturation, at least 0, instead of the preset's.
            b: Length normalisation, 0 to 1, instead of the preset's.
            stemmer: ``porter``, ``krovetz`` or ``none``.
            keep_stopwords: Whether stopwords are indexed.
            feedback: Whether each document's terms and positions are kept, which RM3, Rocchio and
                phrase queries need.
            store_text: Whether the words are kept, as Anserini's ``raw``.
            overwrite: Whether a Lucene index that is there may be replaced.
            progress: Called with documents done and in all.

        Returns:
            The index, opened.

        Raises:
            UnknownNameError: No such preset.
            DataError: A setting is out of range, or a document cannot be used.
            DuplicateIdError: An id comes twice.
            IndexExistsError: An index is at `path` and `overwrite` is false.
            MissingExtraError: pyserini or Java is not installed.
        """
        if preset not in PRESETS:
            raise UnknownNameError.among("BM25 preset", preset, PRESETS)
        card = {
            "scoring": "bm25",
            "k1": PRESETS[preset][0] if k1 is None else float(k1),
            "b": PRESETS[preset][1] if b is None else float(b),
            "stemmer": stemmer,
            "keep_stopwords": keep_stopwords,
            "feedback": feedback,
        }
        check_settings({**DEFAULTS, **card})

        def write(folder: Path) -> None:
            write_texts(start(), folder, source, card, store_text=store_text, progress=progress)

        return cls._created(path, overwrite, write)

    @classmethod
    def from_weights(
        cls,
        source: str | Path | Iterable[tuple[Document, Mapping[str, float]]],
        path: str | Path | None = None,
        *,
        levels: float = IMPACT_LEVELS,
        ids: str | Path | None = None,
        vocabulary: str | Path | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> LuceneIndex:
        """Index term weights that were computed elsewhere, as an impact index.

        Lucene keeps whole numbers: a weight w becomes ``round(levels * w)``, and how far that is
        from what it was is logged. Scores are divided by `levels` again. Words are not kept.

        Args:
            source: As in `SparseIndex.from_weights`: pairs, JSON lines or an ``.npz``.
            path: As in `build`.
            levels: Levels per unit of weight; 1 keeps whole numbers as they are.
            ids: For an ``.npz`` the file of ids.
            vocabulary: For an ``.npz`` the file of terms.
            overwrite: As in `build`.
            progress: Called with documents done and in all.

        Returns:
            The index, opened; it is searched with weighted terms.

        Raises:
            DataError: A weight is below 0, `levels` is no number of levels, or a term or document
                cannot be used.
            NonFiniteError: A weight is NaN or infinite.
            DuplicateIdError: An id comes twice.
            IndexExistsError: An index is at `path` and `overwrite` is false.
            MissingExtraError: pyserini or Java is not installed.
        """
        if levels is None:
            raise DataError("levels is None; Lucene keeps whole numbers, SparseIndex exact weights")
        if isinstance(source, str | Path):
            read = registry.resolve("reader", "term-weights")
            given = GivenWeights(read(Path(source), ids=ids, vocabulary=vocabulary))
        elif ids is not None or vocabulary is not None:
            raise DataError("ids and vocabulary go with an .npz file")
        else:
            given = GivenWeights(source)
        card = {"scoring": "impact", "levels": check_levels(levels)}

        def write(folder: Path) -> None:
            write_impacts(start(), folder, given, card, progress=progress)

        return cls._created(path, overwrite, write)

    @classmethod
    def _created(cls, path: str | Path | None, overwrite: bool, write: Any) -> LuceneIndex:
        if path is not None:
            with fresh_folder(Path(path), overwrite) as folder:
                write(folder)
            return cls.open(path)
        folder = Path(tempfile.mkdtemp(prefix="retrievekit-"))
        keeper = TemporaryFolder(folder)
        write(folder)
        index = cls.open(folder)
        index.keeper = keeper
        return index

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        scoring: Scoring | None = None,
        k1: float | None = None,
        b: float | None = None,
        stemmer: str | None = None,
        keep_stopwords: bool | None = None,
        levels: float | None = None,
    ) -> LuceneIndex:
        """Open an index that this package, Anserini or pyserini built.

        An index that was built here knows its settings. Of any other Lucene does not tell how it
        was made, so what is not given is Anserini's default: BM25, k1 = 0.9, b = 0.4, Porter's
        stemmer, no stopwords.

        Args:
            path: The index folder.
            scoring: ``bm25`` or ``impact``.
            k1: Term frequency saturation.
            b: Length normalisation.
            stemmer: As the index was built.
            keep_stopwords: As the index was built.
            levels: What integers of an impact index are divided by in scores; 1 by default.

        Returns:
            The index, as it is now; later changes to the folder are not seen.

        Raises:
            FormatVersionError: The folder is no index of Anserini's that this Lucene reads.
            CorruptIndexError: It is damaged.
            DataError: A setting contradicts what the index knows, or is out of range.
            MissingExtraError: pyserini or Java is not installed.
        """
        return cls(
            path,
            {
                "scoring": scoring,
                "k1": k1,
                "b": b,
                "stemmer": stemmer,
                "keep_stopwords": keep_stopwords,
                "levels": check_levels(levels),
            },
        )

    def __len__(self) -> int:
        """How many documents it has; documents without words are not kept."""
        return len(self.reader)

    def __repr__(self) -> str:
        """Scoring and size."""
        return f"LuceneIndex({self.settings['scoring']}, {len(self)} documents)"

    @property
    def scoring(self) -> str:
        """``bm25`` or ``impact``."""
        return str(self.settings["scoring"])

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over Anserini's version, the settings and the content.

        The content is the documents' hash where the index was built here and nothing was added
        since; otherwise the ids that Lucene gave its segments, so that a copy of the folder has the
        same fingerprint and a second build another one.
        """
        return fingerprint_of(
            {
                "kind": self.kind,
                "anserini": self.reader.java.version,
                "settings": self.settings,
                "content": self._content,
            }
        )

    def check(self) -> None:
        """Read the whole index and compare Lucene's checksums.

        Raises:
            CorruptIndexError: Some file is damaged.
        """
        self.reader.check()

    def searcher(self, k: int = 1000) -> LuceneSearcher:
        """The stage that searches this index, one query after another on one core.

        Args:
            k: Hits per query, at least 1.

        Returns:
            The stage.
        """
        return LuceneSearcher(self, k)

    def search(self, queries: Queries, k: int) -> Run:
        """The k best documents of each query.

        Args:
            queries: Texts (BM25 only), or weighted terms as the index keeps them. Weights are
                boosts in float32, never cut to whole numbers; a term of weight 0 takes no part.
            k: Hits per query, at least 1.

        Returns:
            The run; its documents are those that were hit.

        Raises:
            FormError: The queries' form cannot be used.
            DataError: A term weighs less than 0, which Lucene does not score.
        """
        check_k(k)
        terms = self.query_terms(queries)
        for row, part in enumerate(terms):
            for term, weight in part.items():
                if weight < 0:
                    raise DataError(
                        f"query {queries.ids[row]!r}: term {term!r} weighs {weight:g}; Lucene "
                        "takes no weights below 0"
                    )
        found = [self.reader.hits(self._boosts(part), k) for part in terms]
        offsets = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(hits) for hits in found], out=offsets[1:])
        names = [doc_id for hits in found for doc_id, _ in hits]
        docs = Ids.from_strings(sorted(set(names)), what="document id")
        scores = np.array([score for hits in found for _, score in hits], np.float32)
        return Run.from_arrays(
            queries, docs, offsets, docs.rows(names), scores, None, queries.trace
        )

    def query_terms(self, queries: Queries) -> list[dict[str, float]]:
        """The weighted terms of each query.

        Args:
            queries: Queries of texts (analysed here) or of weighted terms (taken as they are).

        Returns:
            One mapping of term to weight per query; a text's term weighs the times it comes.

        Raises:
            FormError: The queries have another form, or are texts and the index is one of impacts.
        """
        if isinstance(queries.form, WeightedTerms):
            return [queries.form.row(row) for row in range(len(queries))]
        if not isinstance(queries.form, pa.LargeStringArray) or self.scoring != "bm25":
            wanted = "text or weighted terms" if self.scoring == "bm25" else "weighted terms"
            raise FormError(
                f"a LuceneIndex of {self.scoring} searches with {wanted}; these queries are "
                f"{queries.form_name}"
            )
        return [
            {term: float(times) for term, times in Counter(self.reader.analyzed(text)).items()}
            for text in queries.rewritten_texts
        ]

    def explain(self, queries: Queries, doc_id: str) -> dict[str, float]:
        """What each term adds to the score of a document for the first query.

        Args:
            queries: One query.
            doc_id: The document.

        Returns:
            Parts by term that add up to the score; empty where the document is not in the index.
        """
        return self.reader.parts(self._boosts(self.query_terms(queries)[0]), doc_id)

    def _boosts(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Weights as Lucene is to multiply by: scores of an impact index are in units of weight."""
        levels = self.settings["levels"] if self.scoring == "impact" else 1.0
        return {term: weight / levels for term, weight in terms.items() if weight}
