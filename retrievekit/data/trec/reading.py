"""Run and qrels files to `Run` and `Qrels`: what lines say together, and repeated pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from retrievekit.data.lines import BOM
from retrievekit.data.trec.lines import BEIR_QRELS, RUN, TREC_QRELS, Form, LineReader, chunks
from retrievekit.data.trec.report import Errors, Faults, LineReport
from retrievekit.data.trec.traces import read_trace
from retrievekit.errors import DuplicateIdError
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries
from retrievekit.run import Run

_GRADE_NAMES = {"score", "rel", "relevance", "grade", "label", "judgment", "judgement"}


def read_run(path: str | Path, queries: Queries | None = None, *, errors: Errors = "strict") -> Run:
    """Read a TREC run file, with the trace that lies beside it.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        queries: The queries with their words; by default ids only, in the order of the file.
            Queries that the file lacks have no hits.
        errors: ``"strict"``, or ``"lenient"`` to leave out what cannot be read and log how much.

    Returns:
        The run, in the total order by score; the rank column is ignored.

    Raises:
        ParseError: A line that is no hit; names file and line.
        DuplicateIdError: A document comes twice for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    return scan_run(path, queries, errors=errors)[0]


def scan_run(
    path: str | Path, queries: Queries | None = None, *, errors: Errors = "strict"
) -> tuple[Run, LineReport]:
    """Read a TREC run file and say what was met.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        queries: The queries with their words; by default ids only.
        errors: ``"strict"`` or ``"lenient"``; see `read_run`.

    Returns:
        The run, and the report.

    Raises:
        ParseError: A line that is no hit; names file and line.
        DuplicateIdError: A document comes twice for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    path = Path(path)
    faults = Faults(path, errors)
    found = LineReader(path, RUN, faults).lines()
    if queries is None:
        queries = Queries(found.query_ids, None)
    else:
        known = found.query_ids.translate(queries.ids)[found.queries]
        for place in np.flatnonzero(known < 0).tolist():
            name = found.query_ids[int(found.queries[place])]
            problem = "a query that is not among those given; give it, too"
            faults.add(int(found.lines[place]), problem, repr(name))
        found = replace(found, queries=known).only(known >= 0)
    if errors == "lenient":
        again, _ = found.repeats()
        for line in found.lines[again].tolist():
            faults.add(line, "a document that the query has already")
        found = found.only(~again)
    found, offsets = found.by_query(len(queries))
    try:
        run = Run.from_arrays(
            queries, found.doc_ids, offsets, found.docs, found.values, trace=read_trace(path)
        )
    except DuplicateIdError:
        again, first = found.repeats()
        place = int(np.flatnonzero(again)[np.argmin(found.lines[again])])
        raise DuplicateIdError(
            f"{path}:{found.lines[place]}: query {queries.ids[int(found.queries[place])]!r} lists "
            f"document {found.doc_ids[int(found.docs[place])]!r} again (first on line "
            f"{found.lines[first[place]]}); keep one, or read with errors='lenient', which keeps "
            "the first"
        ) from None
    return run, faults.finished(run.n_hits)


def read_qrels(path: str | Path, *, errors: Errors = "strict") -> Qrels:
    """Read judgements from a TREC or BEIR file; which one it is is seen from its first line.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        errors: ``"strict"``, or ``"lenient"`` to leave out what cannot be read and log how much.

    Returns:
        The judgements; a judgement given twice with one grade counts once.

    Raises:
        ParseError: A line that is no judgement; names file and line.
        DuplicateIdError: A document has two different grades for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    return scan_qrels(path, errors=errors)[0]


def scan_qrels(path: str | Path, *, errors: Errors = "strict") -> tuple[Qrels, LineReport]:
    """Read judgements and say what was met.

    Args:
        path: The file, gzipped when its name ends in ``.gz``.
        errors: ``"strict"`` or ``"lenient"``; see `read_qrels`.

    Returns:
        The judgements, and the report.

    Raises:
        ParseError: A line that is no judgement; names file and line.
        DuplicateIdError: A document has two different grades for one query; names both lines.
        LimitError: A line is longer than `LONGEST_LINE`.
        MissingDataError: There is no such file.
    """
    path = Path(path)
    faults = Faults(path, errors)
    form, header = _sniffed(path)
    found = LineReader(path, form, faults).lines(header)
    again, first = found.repeats()
    conflicts = again & (found.values != found.values[first])
    for place in np.flatnonzero(conflicts).tolist():
        line, earlier = int(found.lines[place]), int(first[place])
        if errors == "strict":
            raise DuplicateIdError(
                f"{path}:{line}: query {found.query_ids[int(found.queries[place])]!r}, document "
                f"{found.doc_ids[int(found.docs[place])]!r} has grade {found.values[place]}, but "
                f"grade {found.values[earlier]} on line {found.lines[earlier]}; keep one of the "
                "lines"
            )
        faults.add(line, "a second, different grade")
    faults.report.n_repeated = int((again & ~conflicts).sum())
    found, offsets = found.only(~again).by_query(len(found.query_ids))
    qrels = Qrels.from_arrays(found.query_ids, found.doc_ids, offsets, found.docs, found.values)
    return qrels, faults.finished(qrels.n_judgements)


def _sniffed(path: Path) -> tuple[Form, int]:
    """The form of a qrels file, and the line of its header, 0 without one."""
    number, bare = 0, False
    for chunk in chunks(path):
        for line in chunk.removeprefix(BOM).removesuffix(b"\n").split(b"\n"):
            number += 1
            if line.strip():
                cells = line.strip(b"\r").decode("utf-8", "replace").split("\t")
                if len(cells) != 3:
                    return TREC_QRELS, 0
                named = cells[2].strip().lower() in _GRADE_NAMES
                return BEIR_QRELS, number if named else 0
            bare = bare or line.count(b"\t") == 2
    # Without a single word, two tabs are what is left of a row.
    return BEIR_QRELS if bare else TREC_QRELS, 0
