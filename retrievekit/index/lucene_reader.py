"""`LuceneReader`: an opened index in Lucene's format, asked in as few calls to Java as possible.

A call costs some ten microseconds, so a ranking comes over in one of them, as JSON: ids as the
bytes that Lucene sorted by, scores in the shortest spelling that is the same float32.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrievekit.errors import FormatVersionError
from retrievekit.index.lucene_build import CARD, directory_of, segments_digest
from retrievekit.index.lucene_jvm import Java, java_errors
from retrievekit.index.lucene_settings import english_analyzer, similarity

_READER = "org.apache.lucene.index.IndexReader"
_QUERY = "org.apache.lucene.search.Query"


class LuceneReader:
    """One commit of an index.

    Attributes:
        java: The machine.
        card: How the index was built, where this package built it; empty for any other.
        segments: A digest of the commit's segments.
        lucene: Lucene's ``IndexSearcher``.
        analyzer: Lucene's analyzer of texts.

    Args:
        java: The machine.
        path: The index folder.

    Raises:
        FormatVersionError: The folder is no index of Anserini's that this Lucene reads.
        CorruptIndexError: It is damaged.
    """

    def __init__(self, java: Java, path: Path) -> None:
        self.java = java
        self.path = path
        if not path.is_dir():
            # Lucene would make one.
            raise FormatVersionError(f"{path}: no such folder, so no index")
        with java_errors(f"opening {path}"):
            directory = directory_of(java, path)
            opened = java("org.apache.lucene.index.DirectoryReader").open(directory)
            self.segments = segments_digest(java, directory)
            told = opened.getIndexCommit().getUserData().get(CARD)
            self._leaves = opened.leaves()
            self._reader = java.cast(_READER, opened)
            infos = java("org.apache.lucene.index.FieldInfos").getMergedFieldInfos(self._reader)
            info = infos.fieldInfo("id")
            kept = None if info is None else info.getDocValuesType().toString()
            self._count = int(opened.numDocs())
            self.lucene = java("org.apache.lucene.search.IndexSearcher")(self._reader)
            field = java("org.apache.lucene.search.SortField")
            strings = java("org.apache.lucene.search.SortField$Type").STRING_VAL
            # Score descending, then id descending by UTF-8 bytes.
            by_id = field("id", strings, True)
            self._order = java("org.apache.lucene.search.Sort")(field.FIELD_SCORE, by_id)
        if self._count and kept != "BINARY":
            raise FormatVersionError(
                f"{path}: a Lucene index, but not one of Anserini's: its field 'id' has no binary "
                "doc values, by which ties are broken"
            )
        self.card: dict[str, Any] = json.loads(told) if told else {}
        self.analyzer: Any = None

    def score_by(self, settings: Mapping[str, Any]) -> None:
        """Take the settings by which texts are analysed and documents scored.

        Args:
            settings: Settings that were checked.
        """
        with java_errors(f"opening {self.path}"):
            self.analyzer = english_analyzer(self.java, settings)
            self.lucene.setSimilarity(similarity(self.java, settings))

    def __len__(self) -> int:
        """How many documents there are."""
        return self._count

    def check(self) -> None:
        """Read all files and compare Lucene's checksums.

        Raises:
            CorruptIndexError: Some file is damaged.
        """
        java = self.java
        with java_errors(f"checking {self.path}"):
            for number in range(self._leaves.size()):
                leaf = self._leaves.get(number).reader()
                java.cast("org.apache.lucene.index.LeafReader", leaf).checkIntegrity()

    def analyzed(self, text: str) -> list[str]:
        """The terms of a text."""
        java = self.java
        with java_errors("analysing a text"):
            utilities = java("io.anserini.analysis.AnalyzerUtils")
            terms: list[str] = java.to_python(utilities.analyze(self.analyzer, java.string(text)))
        return terms

    def row_of(self, doc_id: str) -> int:
        """Lucene's number of a document, or -1 where the index lacks it."""
        java = self.java
        with java_errors(f"looking up a document of {self.path}"):
            utilities = java("io.anserini.index.IndexReaderUtils")
            return int(utilities.convertDocidToLuceneDocid(self._reader, java.string(doc_id)))

    def hits(self, boosts: Mapping[str, float], k: int) -> list[tuple[str, float]]:
        """The k best documents for a sum of boosted terms.

        Args:
            boosts: Factors above 0 by term, taken as float32.
            k: Hits, at least 1.

        Returns:
            Ids and scores, best first.
        """
        if not boosts or not self._count:
            return []
        java = self.java
        with java_errors(f"searching {self.path}"):
            builder = java("org.apache.lucene.search.BooleanQuery$Builder")()
            should = java("org.apache.lucene.search.BooleanClause$Occur").SHOULD
            boosted = java("org.apache.lucene.search.BoostQuery")
            for term, boost in boosts.items():
                clause = java.cast(_QUERY, boosted(self._term(term), boost))
                builder.add(clause, should)
            query = builder.build()
            found = java.to_python(self.lucene.search(query, min(k, self._count), self._order))
        out = []
        for hit in found["scoreDocs"]:
            score, name = hit["fields"]
            first = name["offset"]
            raw = base64.b64decode(name["bytes"])[first : first + name["length"]]
            out.append((raw.decode("utf-8"), score))
        return out

    def _term(self, term: str) -> Any:
        name = self.java("org.apache.lucene.index.Term")("contents", self.java.string(term))
        return self.java.cast(_QUERY, self.java("org.apache.lucene.search.TermQuery")(name))

    def parts(self, boosts: Mapping[str, float], doc_id: str) -> dict[str, float]:
        """What each term adds to a document's score.

        Args:
            boosts: Factors above 0 by term.
            doc_id: The document.

        Returns:
            Parts by term, for terms that the document holds; empty where the index lacks it.
        """
        row = self.row_of(doc_id)
        out: dict[str, float] = {}
        with java_errors(f"explaining a score of {self.path}"):
            for term, boost in boosts.items() if row >= 0 else ():
                told = self.lucene.explain(self._term(term), row)
                if told.isMatch():
                    # Anserini's impacts leave boosts out of what they explain, so none is given.
                    out[term] = boost * float(told.getValue().floatValue())
        return out
