"""`examine`: one collection, looked at from its files to its vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from retrievekit.corpus import Document
from retrievekit.data import beir
from retrievekit.data.formats import placed_documents, placed_queries
from retrievekit.data.reading import ReadOptions, Tally
from retrievekit.data.records import part_file, source_of
from retrievekit.data.registry import (
    DatasetProperties,
    SplitCounts,
    find,
    is_registered,
    read_properties,
)
from retrievekit.doctor.documents import Survey
from retrievekit.doctor.questions import Questions, judgement_findings, own_findings
from retrievekit.doctor.report import Finding, Report, by_severity, some
from retrievekit.errors import DataError, MissingDataError
from retrievekit.qrels import Qrels

Progress: TypeAlias = Callable[[str, int, int | None], None]

SAMPLE = 256
"""Documents that an encoder is tried on."""

_QUERIES_PROBED = 64
_REPORTED = 4096

# Whatever can be read is read, and what had to be mended is counted.
_LENIENT = ReadOptions(errors="replace", number_ids=True)


@dataclass(frozen=True)
class Collection:
    """Where the parts of a collection are.

    Args:
        name: What it is called.
        documents: A file, a folder of texts, or documents.
        queries: A file, queries by id, or None.
        qrels: A file, judgements, or None.
        properties: What is known of the data set.
        split: The split that the judgements are of.
    """

    name: str
    documents: Path | Iterable[Document]
    queries: Path | dict[str, str] | None = None
    qrels: Path | Qrels | None = None
    properties: DatasetProperties = field(default_factory=DatasetProperties)
    split: str = "test"


def collection_of(
    source: str | Path,
    queries: str | Path | None = None,
    qrels: str | Path | None = None,
    progress: Progress | None = None,
) -> Collection:
    """Find the parts of a collection; nothing is read.

    Args:
        source: A file, a folder of text files, a BEIR folder or a data set's name.
        queries: A file of queries; by default those of the folder or data set.
        qrels: A file of judgements; by default those of the folder's or data set's split.
        progress: Told about a download.

    Returns:
        The collection.

    Raises:
        MissingDataError: A file is not there, or a data set has to be placed first.
    """
    for given in (queries, qrels):
        if given is not None and not Path(given).is_file():
            raise MissingDataError(f"no such file: {given}")
    asked = None if queries is None else Path(queries)
    judged = None if qrels is None else Path(qrels)
    path = Path(source)
    if path.exists():
        properties, name, split = DatasetProperties(), str(source), "test"
        if path.is_dir() and beir.is_beir_folder(path):
            if (path / "dataset.yaml").is_file():
                properties = read_properties(path / "dataset.yaml")
            asked = asked or part_file(path, "queries")
            there = beir.splits(path)
            split = properties.default_split
            if split not in there and len(there) == 1:
                (split,) = there
            if judged is None and split in there:
                judged, name = there[split], f"{source} ({split})"
        return Collection(name, path, asked, judged, properties, split)
    if isinstance(source, str) and is_registered(source):
        entry, split = find(source)
        if entry.name == "stdlib":
            from retrievekit.data.dataset import load_dataset

            dataset = load_dataset(source)
            words = dict(zip(dataset.all_queries.ids, dataset.all_queries.texts, strict=True))
            return Collection(
                entry.name, dataset.corpus, asked or words, judged or dataset.qrels,
                entry.properties, split,
            )  # fmt: skip
        from retrievekit.data.fetch import obtain

        told = None if progress is None else _bytes_of(progress, entry.name)
        folder = obtain(entry, told)
        return Collection(
            entry.full_name(split),
            folder,
            asked or part_file(folder, "queries"),
            judged or beir.qrels_file(folder, split),
            entry.properties,
            split,
        )
    find(str(source))  # raises with the nearest names
    raise MissingDataError(f"no such file or folder: {source}")


def _bytes_of(progress: Progress, name: str) -> Callable[[int, int | None], None]:
    return lambda done, total: progress(f"fetching {name} (bytes)", done, total)


def examine(
    collection: Collection,
    encoder: Any = None,
    *,
    sample: int = SAMPLE,
    progress: Progress | None = None,
) -> Report:
    """Look for what is wrong with a collection, and how an encoder fares with it.

    Nothing is repaired and nothing written. Files are read once, leniently; memory holds ids and
    hashes, not the texts.

    Args:
        collection: Where its parts are.
        encoder: A dense or sparse encoder to try on a sample, or None.
        sample: Documents that the encoder is tried on, at least 1.
        progress: Told what is being done and how far it is.

    Returns:
        The report.

    Raises:
        DataError: `sample` is below 1.
    """
    if sample < 1:
        raise DataError(f"a sample of {sample} documents; give at least 1")
    findings: list[Finding] = []
    questions = None
    if collection.queries is not None:
        questions = _questions(collection.queries, findings)
    survey = Survey(questions.by_words if questions else None, sample if encoder is not None else 0)
    _survey(collection.documents, survey, findings, progress)
    findings += survey.findings()
    if not len(survey):
        findings.append(Finding("no-documents", "error", "there is not a single document", 0))
    if questions is not None:
        findings += questions.findings()
        findings += own_findings(questions, survey, collection.properties.own_document)
    qrels = None
    if collection.qrels is not None:
        qrels = _judgements(collection.qrels, findings)
    if qrels is not None:
        findings += judgement_findings(qrels, questions, survey)
    findings += _counts_findings(collection, survey, qrels)
    facts: dict[str, Any] = {
        "documents": len(survey),
        "queries": None if questions is None else len(questions.texts),
        "judged_queries": None if qrels is None else len(qrels.queries),
        "judgements": None if qrels is None else qrels.n_judgements,
        "words_per_document": survey.lengths,
        "text_bytes": survey.text_bytes,
    }
    if encoder is not None and len(survey):
        from retrievekit.doctor.encoders import probe

        texts = list(questions.texts.values())[:_QUERIES_PROBED] if questions else []
        facts["probe"], found = probe(
            encoder, survey.sample, texts, len(survey), survey.text_bytes, progress
        )
        findings += found
    return Report(collection.name, facts, by_severity(findings))


def _survey(
    source: Path | Iterable[Document],
    survey: Survey,
    findings: list[Finding],
    progress: Progress | None,
) -> None:
    tally = Tally()
    try:
        for document in _documents(source, tally):
            survey.add(document)
            if progress is not None and len(survey) % _REPORTED == 0:
                progress("reading documents", len(survey), None)
    except DataError as why:
        findings.append(_unreadable("documents", why, f"after {some(len(survey), 'document')}"))
    findings += _mended("document", tally)


def _documents(source: Path | Iterable[Document], tally: Tally) -> Iterator[Document]:
    if not isinstance(source, Path):
        yield from source
        return
    path, form = source_of(source, None, "corpus")
    for placed in placed_documents(path, form, _LENIENT, tally):
        yield placed.document


def _questions(source: Path | dict[str, str], findings: list[Finding]) -> Questions:
    questions = Questions()
    if not isinstance(source, Path):
        for query_id, text in source.items():
            questions.add(query_id, text)
        return questions
    tally = Tally()
    try:
        path, form = source_of(source, None, "queries")
        for placed in placed_queries(path, form, _LENIENT, tally):
            questions.add(placed.document.doc_id, placed.document.text)
    except DataError as why:
        said = f"after {some(len(questions.texts), 'query', 'queries')}"
        findings.append(_unreadable("queries", why, said))
    findings += _mended("query", tally)
    return questions


def _judgements(source: Path | Qrels, findings: list[Finding]) -> Qrels | None:
    if not isinstance(source, Path):
        return source
    from retrievekit.data.trec import scan_qrels

    try:
        return scan_qrels(source)[0]
    except DataError as why:
        findings.append(_unreadable("judgements", why, ""))
    try:
        return scan_qrels(source, errors="lenient")[0]
    except DataError:
        return None


def _unreadable(what: str, why: DataError, how_far: str) -> Finding:
    said = f"the {what} cannot be read{' to the end' if how_far else ''}: {why}"
    advice = f"mend it and check again; reading stopped {how_far}" if how_far else "mend it"
    return Finding("unreadable", "error", said, 1, (), advice)


def _mended(what: str, tally: Tally) -> Iterator[Finding]:
    plural = "queries" if what == "query" else ""
    option = "" if what == "query" else ", or index with --errors replace"
    if tally.replaced:
        yield Finding(
            f"invalid-{what}-characters",
            "error",
            f"{some(tally.replaced, what, plural)} with NUL characters or bytes that are not UTF-8",
            tally.replaced,
            (),
            f"convert the file to UTF-8{option}",
        )
    if tally.marks:
        yield Finding(
            f"byte-order-mark-{what}",
            "error",
            f"{some(tally.marks, 'file')} beginning with a byte-order mark",
            tally.marks,
            (),
            f"save as UTF-8 without one{option}",
        )
    if tally.number_ids:
        option = "" if what == "query" else ", or index with --number-ids"
        yield Finding(
            f"number-{what}-ids",
            "error",
            f"{some(tally.number_ids, what, plural)} with a number as id, not a string",
            tally.number_ids,
            (),
            f"put ids in quotes{option}",
        )
    if tally.left_out:
        yield Finding(
            "files-left-out",
            "note",
            f"{some(tally.left_out, 'file')} neither .txt nor .md",
            tally.left_out,
            (),
            "they are not indexed; turn them into text first",
        )


def _counts_findings(
    collection: Collection, survey: Survey, qrels: Qrels | None
) -> Iterator[Finding]:
    """What the data set should hold and does not."""
    known = collection.properties
    counts = known.splits.get(collection.split, SplitCounts())
    pairs = [("documents", len(survey), known.documents)]
    if qrels is not None:
        pairs.append(("judged queries", len(qrels.queries), counts.queries))
        pairs.append(("judgements", qrels.n_judgements, counts.judgements))
    for what, found, expected in pairs:
        if expected is not None and found != expected:
            yield Finding(
                "unexpected-count",
                "error",
                f"{found:,} {what}, but {expected:,} are known of this data set",
                abs(found - expected),
                (),
                "the data is another version or incomplete: fetch it again",
            )
