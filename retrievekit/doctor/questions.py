"""What is wrong with queries and judgements, by themselves and with the documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrievekit.analysis.lucene import LuceneEnglishAnalyzer
from retrievekit.data.dataset import MAX_ABSENT
from retrievekit.data.registry import OwnDocument, own_documents
from retrievekit.doctor.documents import CONTROL, REPLACED, Survey
from retrievekit.doctor.report import Finding, Severity, shown, some
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels


@dataclass
class Questions:
    """Queries as they stand in a file.

    Args:
        texts: Words by id; the first ones where an id comes twice.
        conflicts: Ids that came again with other words.
        repeated: Ids that came again with the same words.
    """

    texts: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def add(self, query_id: str, text: str) -> None:
        """Take note of a query.

        Args:
            query_id: Its id.
            text: Its words.
        """
        if query_id not in self.texts:
            self.texts[query_id] = text
        else:
            again = self.repeated if self.texts[query_id] == text else self.conflicts
            again.append(query_id)

    @property
    def by_words(self) -> dict[str, str]:
        """Ids by words, of queries that have any."""
        return {words: i for i, text in self.texts.items() if (words := text.strip())}

    def findings(self) -> Iterator[Finding]:
        """What there is to say of the queries by themselves."""
        if self.conflicts:
            yield _of(
                "duplicate-query-id", "error", self.conflicts,
                "with the id of another one, but other words",
                "give each its own id",
            )  # fmt: skip
        if self.repeated:
            yield _of(
                "repeated-query", "note", self.repeated, "repeated word for word",
                "each counts once",
            )  # fmt: skip
        blank = [i for i, text in self.texts.items() if not text.strip()]
        if blank:
            yield _of(
                "empty-query", "warning", blank, "without any text",
                "they find nothing and count 0; leave them and their judgements out",
            )  # fmt: skip
        analyzer = LuceneEnglishAnalyzer()
        wordless = [
            i for i, text in self.texts.items() if text.strip() and not analyzer.tokens(text)
        ]
        if wordless:
            yield _of(
                "query-without-terms", "warning",
                [f"{i} ({self.texts[i]})" for i in wordless],
                "of which English analysis keeps no term",
                "BM25 finds nothing for them; an encoder may",
            )  # fmt: skip
        spoilt = [i for i, t in self.texts.items() if CONTROL.search(t) or REPLACED.search(t)]
        if spoilt:
            yield _of(
                "query-characters", "warning", spoilt, "with control characters or U+FFFD",
                "clean the text",
            )  # fmt: skip


def judgement_findings(qrels: Qrels, questions: Questions | None, survey: Survey) -> list[Finding]:
    """What there is to say of judgements.

    Args:
        qrels: The judgements.
        questions: The queries, or None when they are not known.
        survey: The documents.

    Returns:
        The findings.
    """
    found: list[Finding] = []
    absent = survey.ids.rows(qrels.docs) < 0
    lost = int(absent[qrels.rows].sum())
    if lost:
        share = lost / qrels.n_judgements
        found.append(
            Finding(
                "judged-document-missing",
                _severe(share),
                f"{some(lost, 'judgement')} of {qrels.n_judgements:,} ({share:.1%}) about documents"
                " that are not in the corpus",
                lost,
                shown(qrels.docs.strings(np.flatnonzero(absent)[:10])),
                "is it the right corpus, whole? They stay in the ideal ranking and lower every "
                "figure",
            )
        )
    if questions is not None:
        found += _unmatched(qrels, questions)
    relevant = np.add.reduceat(np.append(qrels.grades > 0, False), qrels.offsets[:-1])
    relevant[np.diff(qrels.offsets) == 0] = 0
    none = np.flatnonzero(relevant == 0)
    if len(none):
        found.append(
            _of(
                "nothing-relevant",
                "note",
                qrels.queries.strings(none),
                "judged, but without any relevant document",
                "they count 0 for every system",
            )
        )
    return found


def _unmatched(qrels: Qrels, questions: Questions) -> Iterator[Finding]:
    strangers = [i for i in qrels.queries if i not in questions.texts]
    if strangers:
        share = len(strangers) / len(qrels.queries)
        yield Finding(
            "judged-query-missing",
            _severe(share),
            f"{some(len(strangers), 'judged query', 'judged queries')} of {len(qrels.queries):,} "
            f"({share:.1%}) not among the queries",
            len(strangers),
            shown(strangers),
            "are queries and judgements of the same collection? They count 0",
        )
    judged = set(qrels.queries)
    others = [i for i in questions.texts if i not in judged]
    if others:
        yield _of(
            "query-without-judgements", "note", others, "without judgements in this split",
            "they are left out of every figure",
        )  # fmt: skip


def own_findings(questions: Questions, survey: Survey, rule: OwnDocument) -> Iterator[Finding]:
    """Queries that are documents, which a system would find at the top without any merit.

    Args:
        questions: The queries.
        survey: The documents, which knows the queries' words.
        rule: The data set's rule for a query's own document.

    Yields:
        The findings.
    """
    query_ids = list(questions.texts)
    own = own_documents(query_ids, rule)
    known = _there(survey.ids, [doc_id or "" for doc_id in own])
    if known.any():
        yield Finding(
            "own-document",
            "note",
            f"{some(int(known.sum()), 'query', 'queries')} with a document of their own in the "
            f"corpus (rule {rule!r})",
            int(known.sum()),
            shown(query_ids[row] for row in np.flatnonzero(known)),
            "it is left out of their rankings; nothing to do",
        )
    left_out: Mapping[str, str | None] = dict(zip(query_ids, own, strict=True))
    echoes = [(q, d) for q, d in survey.echoes if left_out.get(q) != d]
    explained: set[str] = set()
    for other in _RULES:
        of = dict(zip(query_ids, own_documents(query_ids, other), strict=True))
        selves = [
            q for q in dict.fromkeys(q for q, d in echoes if of[q] == d) if q not in explained
        ]
        if rule == "none" and selves:
            explained.update(selves)
            yield _of(
                "self-retrieval", "warning", selves,
                "made from a document that is in the corpus: ids agree, and so do the words",
                "each finds its own document first: write "
                f"'own_document: {other}' into the folder's dataset.yaml, and it is left out",
            )  # fmt: skip
    copies = [(q, d) for q, d in echoes if q not in explained]
    if copies:
        count = len({q for q, _ in copies})
        yield Finding(
            "query-is-document",
            "warning",
            f"{some(count, 'query', 'queries')} with the very words of a document",
            count,
            shown(f"{q} = {d}" for q, d in copies),
            "if the document is what the query was made from, it must not be in the corpus",
        )
    if rule == "none":
        shared = _there(survey.ids, query_ids)
        pairs = zip(query_ids, shared, strict=True)
        names = [i for i, there in pairs if there and i not in explained]
        if names:
            yield Finding(
                "shared-id",
                "note",
                f"{some(len(names), 'query id')} that documents have too, with other words",
                len(names),
                shown(names),
                "by chance, it seems: such documents stay in rankings. If they are the queries' "
                "own, write 'own_document: equal' into dataset.yaml",
            )


_RULES: tuple[OwnDocument, ...] = ("equal", "before-underscore")


def _there(ids: Ids, wanted: list[str]) -> NDArray[np.bool_]:
    return np.asarray(ids.rows(wanted) >= 0)


def _severe(share: float) -> Severity:
    """An error where loading would refuse the data set."""
    return "error" if share > MAX_ABSENT else "warning"


def _of(code: str, severity: Severity, ids: Iterable[str], what: str, advice: str) -> Finding:
    """A finding about queries by their ids."""
    listed = list(ids)
    said = f"{some(len(listed), 'query', 'queries')} {what}"
    return Finding(code, severity, said, len(listed), shown(listed), advice)
