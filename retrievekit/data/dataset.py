"""`Dataset`: corpus, queries and judgements of one split, with what is known of them.

>>> from retrievekit import load_dataset
>>> dataset = load_dataset("stdlib")
>>> dataset.properties.own_document
'none'

Parts are read when they are first asked for and checked then: counts and checksums against the
properties, judged ids against corpus and queries. What was found stands in `Dataset.notes` and is
logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from retrievekit.corpus import Corpus, Document
from retrievekit.data import beir
from retrievekit.data.download import sha256_of
from retrievekit.data.records import (
    Errors,
    OnDuplicate,
    ReadOptions,
    part_file,
    read_corpus_report,
    read_queries_report,
)
from retrievekit.data.registry import (
    DatasetProperties,
    Entry,
    OwnDocument,
    SplitCounts,
    check_rule,
    find,
    is_registered,
    own_documents,
    read_properties,
)
from retrievekit.errors import DataError, MissingDataError, ParseError, UnknownNameError
from retrievekit.ids import Ids
from retrievekit.protocols import Progress
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.trace import Step

__all__ = ["Dataset", "DatasetProperties", "SplitCounts", "drop_own", "load_dataset"]

log = logging.getLogger(__name__)

MAX_ABSENT = 0.1
"""Part of the judgements that may name documents or queries which are not there."""

_PROPERTIES = "dataset.yaml"


class Dataset:
    """Corpus, queries and judgements.

    Args:
        name: Its name, as tables show it.
        corpus: The documents, or a function that reads them when they are first needed.
        queries: All queries, or a function that reads them.
        qrels: The judgements of one split, or a function that reads them.
        properties: What is known of it.
        split: The split that `qrels` judges.
        notes: What there is to say already.
        max_absent: Part of the judgements that may name documents (or of the judged queries that
            may name queries) which are not there; beyond it is an error.
        check: Whether counts are compared with those of the properties.
    """

    def __init__(
        self,
        name: str,
        corpus: Corpus | Callable[[], Corpus],
        queries: Queries | Callable[[], Queries],
        qrels: Qrels | Callable[[], Qrels],
        properties: DatasetProperties | None = None,
        *,
        split: str = "test",
        notes: Sequence[str] = (),
        max_absent: float = MAX_ABSENT,
        check: bool = True,
    ) -> None:
        self.name = name
        self.properties = properties or DatasetProperties()
        self.split = split
        self._corpus = corpus
        self._queries = queries
        self._qrels = qrels
        self._notes = list(notes)
        self._max_absent = max_absent
        self._check = check

    def __repr__(self) -> str:
        """The name; nothing is read."""
        return f"Dataset({self.name!r})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was met while reading, as far as parts have been read."""
        return tuple(self._notes)

    @cached_property
    def corpus(self) -> Corpus:
        """The documents.

        Raises:
            DataError: Their number is not the expected one, or too many judged ids are absent.
        """
        corpus = self._corpus() if callable(self._corpus) else self._corpus
        self._expect(len(corpus), self.properties.documents, "documents")
        if "qrels" in self.__dict__:
            self._check_documents(self.qrels, corpus.ids)
        return corpus

    @cached_property
    def all_queries(self) -> Queries:
        """All queries, judged in this split or not, in the order of their file."""
        return self._queries() if callable(self._queries) else self._queries

    @cached_property
    def queries(self) -> Queries:
        """The queries that this split judges, in the order of their file.

        Raises:
            DataError: Too many judged queries are absent.
        """
        absent = np.flatnonzero(self.qrels.queries.translate(self.all_queries.ids) < 0)
        if len(absent):
            self._complain(
                self.qrels.queries.strings(absent[:5]),
                len(absent),
                len(self.qrels),
                "judged queries",
                "they count 0",
            )
        judged = self.all_queries.ids.translate(self.qrels.queries) >= 0
        return self.all_queries.take(np.flatnonzero(judged))

    @cached_property
    def qrels(self) -> Qrels:
        """The judgements of the split.

        Raises:
            DataError: Their number is not the expected one, or too many judged ids are absent.
        """
        qrels = self._qrels() if callable(self._qrels) else self._qrels
        counts = self.properties.splits.get(self.split, SplitCounts())
        self._expect(len(qrels), counts.queries, f"judged queries in {self.split}")
        self._expect(qrels.n_judgements, counts.judgements, f"judgements in {self.split}")
        if "corpus" in self.__dict__:
            self._check_documents(qrels, self.corpus.ids)
        return qrels

    def write(self, folder: str | Path) -> None:
        """Write the data set as a BEIR folder.

        Args:
            folder: The folder, made when it is not there; files in it are replaced.
        """
        folder = Path(folder)
        beir.write_corpus(self.corpus, folder / "corpus.jsonl")
        beir.write_queries(self.all_queries, folder / "queries.jsonl")
        beir.write_qrels(self.qrels, folder / "qrels" / f"{self.split}.tsv")

    def _expect(self, found: int, expected: int | None, what: str) -> None:
        if self._check and expected is not None and found != expected:
            raise DataError(
                f"{self.name}: {found:,} {what}, but {expected:,} expected; the data is another "
                "version or incomplete. Fetch it again, correct its dataset.yaml, or load it with "
                "check=False"
            )

    def _check_documents(self, qrels: Qrels, ids: Ids) -> None:
        rows = qrels.docs.translate(ids)[qrels.rows]
        absent = np.unique(qrels.rows[rows < 0])
        if len(absent):
            self._complain(
                qrels.docs.strings(absent[:5]),
                int((rows < 0).sum()),
                qrels.n_judgements,
                "judgements",
                "they name documents that are not in the corpus and stay in the ideal ranking",
            )

    def _complain(self, shown: list[str], count: int, total: int, what: str, so: str) -> None:
        names = ", ".join(repr(value) for value in shown)
        more = ", ..." if count > len(shown) else ""
        note = (
            f"{self.name}: {count:,} of {total:,} {what} ({count / total:.1%}) name what is not "
            f"there: {names}{more}; {so}"
        )
        if count > self._max_absent * total:
            raise DataError(
                f"{note}. More than {self._max_absent:.0%} is an error: are these the right "
                "files? If so, load with max_absent=1.0"
            )
        self._note(note)

    def _note(self, note: str, level: int = logging.WARNING) -> None:
        log.log(level, "%s", note)
        self._notes.append(note)


def load_dataset(
    source: str | Path,
    split: str | None = None,
    *,
    like: str | None = None,
    errors: Errors = "strict",
    on_duplicate: OnDuplicate = "error",
    max_absent: float = MAX_ABSENT,
    check: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """A data set by name, or from a folder in the BEIR layout.

    A name (``beir/scifact/test``, ``scifact``, ``stdlib``) stands for a registered data set, which
    is fetched into the cache when it is not there. Anything else, and any `Path`, is a folder with
    ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``; a ``dataset.yaml`` in it may say
    more (the fields of `DatasetProperties`). Parts are read when first asked for.

    Args:
        source: The name or folder. A folder that has a registered name is written ``./name``.
        split: The split; by default that of the name, else the data set's own default ("test" for
            most), else the only one there is.
        like: For a folder without a ``dataset.yaml``: a registered name whose properties it shares.
        errors: ``"strict"`` or ``"replace"``, for characters that are not valid and byte-order
            marks; ``"replace"`` also leaves out lines of judgements that cannot be read. What it
            did stands in the notes.
        on_duplicate: ``"error"``, ``"first"`` or ``"last"``, for one id with two contents.
        max_absent: Part of the judgements that may name what is not there.
        check: Whether counts and checksums are compared with those of the properties.
        progress: Told about the bytes of a download.

    Returns:
        The data set.

    Raises:
        UnknownNameError: No data set has this name and no folder is there, or no such split.
        MissingDataError: It must be placed or fetched first; the message says how.
        DataError: ``like`` given where the data set has properties of its own.
    """
    options = ReadOptions(errors=errors, on_duplicate=on_duplicate)
    if isinstance(source, str) and is_registered(source):
        entry, named = find(source)
        if like is not None:
            raise DataError(f"{source} has properties of its own; like= is for folders")
        split = split or named
        known = entry.properties.splits
        if split not in known:
            raise UnknownNameError.among("split", split, known, f"({entry.name})")
        if entry.name == "stdlib":
            return _stdlib(entry, max_absent, check)
        from retrievekit.data.fetch import obtain

        folder = obtain(entry, progress)
        properties = entry.properties
        notes: list[str] = []
        name = entry.full_name(split)
    else:
        folder = Path(source)
        if not folder.is_dir():
            if isinstance(source, Path) or folder.exists():
                raise MissingDataError(
                    f"{source} is not a folder; a data set is a folder with corpus.jsonl, "
                    "queries.jsonl and qrels/<split>.tsv"
                )
            find(str(source))  # raises with the nearest names
        properties, notes = _folder_properties(folder, like)
        split = _folder_split(folder, split, properties)
        name = f"{folder.resolve().name}/{split}"
    return _of_folder(folder, name, split, properties, notes, options, max_absent, check)


def _folder_properties(folder: Path, like: str | None) -> tuple[DatasetProperties, list[str]]:
    described = folder / _PROPERTIES
    if described.is_file():
        if like is not None:
            raise DataError(f"{described} says what {folder} is; remove it or leave out like=")
        return read_properties(described), []
    if like is not None:
        return find(like)[0].properties, []
    namesake = folder.resolve().name
    if is_registered(namesake) and find(namesake)[0].properties.own_document != "none":
        entry = find(namesake)[0]
        note = (
            f"{folder} is named like {entry.name}, whose queries' own documents are dropped (rule "
            f"{entry.properties.own_document!r}); nothing is dropped here unless it is loaded with "
            f"like={namesake!r} or has a {_PROPERTIES}"
        )
        log.warning("%s", note)
        return DatasetProperties(), [note]
    return DatasetProperties(), []


def _folder_split(folder: Path, split: str | None, properties: DatasetProperties) -> str:
    there = beir.splits(folder)
    if split is None:
        split = properties.default_split
        if split not in there and len(there) == 1:
            (split,) = there
    if split not in there:
        if not there:
            raise MissingDataError(f"{folder} holds no judgements; place qrels/{split}.tsv there")
        raise UnknownNameError.among("split", split, there, f"({folder / 'qrels'})")
    return split


def _of_folder(
    folder: Path,
    name: str,
    split: str,
    properties: DatasetProperties,
    notes: list[str],
    options: ReadOptions,
    max_absent: float,
    check: bool,
) -> Dataset:
    for part in ("corpus", "queries"):
        if part_file(folder, part) is None:
            raise MissingDataError(f"{folder} holds no {part}.jsonl; place it there")
    judged = beir.qrels_file(folder, split)

    def verified(path: Path) -> Path:
        expected = properties.checksums.get(path.relative_to(folder).as_posix())
        if check and expected is not None:
            found = sha256_of(path)
            if found != expected.lower():
                raise DataError(
                    f"{path}: its SHA-256 is {found}, but should be {expected.lower()}; it is not "
                    "the file it was. Get it again, or load with check=False"
                )
        return path

    def corpus() -> Corpus:
        path = part_file(folder, "corpus") or folder / "corpus.jsonl"
        found, report = read_corpus_report(verified(path), options)
        report.log()
        dataset._notes.extend(report.notes)
        return found

    def queries() -> Queries:
        path = part_file(folder, "queries") or folder / "queries.jsonl"
        found, report = read_queries_report(verified(path), options)
        report.log()
        dataset._notes.extend(report.notes)
        return found

    def qrels() -> Qrels:
        from retrievekit.data.trec import scan_qrels

        lenient = options.errors == "replace"
        try:
            found, report = scan_qrels(verified(judged), errors="lenient" if lenient else "strict")
        except ParseError as why:
            problem = why.problem.replace("errors='lenient'", 'errors="replace"')
            raise ParseError(why.path, why.line, problem) from why
        dataset._notes.extend(report.notes)
        return found

    dataset = Dataset(
        name,
        corpus,
        queries,
        qrels,
        properties,
        split=split,
        notes=notes,
        max_absent=max_absent,
        check=check,
    )
    for path in properties.checksums:
        if not (folder / path).is_file():
            raise MissingDataError(f"{folder / path} is not there, but has a checksum")
    return dataset


def drop_own(run: Run, rule: OwnDocument) -> Run:
    """Remove from each ranking the document that is the query's own.

    Retrieve one more than you need: a ranking gets shorter by the document removed.

    Args:
        run: The rankings.
        rule: ``"none"``, ``"equal"`` or ``"before-underscore"``; see `DatasetProperties`.

    Returns:
        The run without those hits; the same run when the rule is ``"none"``.
    """
    check_rule(rule)
    if rule == "none":
        return run
    start = time.perf_counter()
    own = run.docs.rows([value or "" for value in own_documents(run.queries.ids, rule)])
    kept = run.rows != np.repeat(own, np.diff(run.offsets))
    shorter = run.keep(kept)
    step = Step(
        f"drop_own({rule!r})",
        "",
        time.perf_counter() - start,
        len(run),
        shorter.n_hits,
        dropped=run.n_hits - shorter.n_hits,
    )
    return Run(
        shorter.queries,
        shorter.docs,
        shorter.offsets,
        shorter.rows,
        shorter.scores,
        shorter.columns,
        (*run.trace, step),
    )


def _stdlib(entry: Entry, max_absent: float, check: bool) -> Dataset:
    """The docstrings of the running Python, with our questions and judgements."""
    from retrievekit.data import stdlib

    def corpus() -> Corpus:
        found = stdlib.harvest()
        dataset._note(f"{entry.name}: documents of Python {found.python_version}", logging.INFO)
        if found.failed:
            why = "; ".join(f"{module} ({reason})" for module, reason in found.failed.items())
            dataset._note(f"{entry.name}: modules that cannot be imported here: {why}")
        return Corpus.from_documents(
            Document(doc.id, doc.text, doc.title, {"kind": doc.kind, "module": doc.module})
            for doc in found
        )

    def qrels() -> Qrels:
        found = stdlib.judgements(dataset.corpus.ids)
        absent = found.absent_ids()
        if absent:
            count = sum(len(grades) for grades in found.absent.values())
            lost = sorted(found.absent.keys() - found.present.keys())
            dataset._note(
                f"{entry.name}: {len(absent)} relevant documents do not exist in Python "
                f"{found.python_version}; they and their judgements ({count:,} with those of "
                f"irrelevant ones) are left out: {', '.join(absent[:6])}"
                + (f" and {len(absent) - 6} more" if len(absent) > 6 else "")
                + (f"; so these queries are left out: {', '.join(lost)}" if lost else "")
            )
        return Qrels.from_dict(found.present)

    dataset = Dataset(
        entry.name,
        corpus,
        lambda: Queries.from_texts(stdlib.queries()),
        qrels,
        entry.properties,
        max_absent=max_absent,
        check=check,
    )
    return dataset
