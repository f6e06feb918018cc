"""The embedded collection ``stdlib``: docstrings of the running Python, our questions, our grades.

Nothing is downloaded: ``harvest`` reads the documents from the interpreter, the questions and the
graded judgements lie beside this file. ``JUDGING.md`` says how they were made and what they mean.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files

from retrievekit.data.stdlib.harvest import DENIED, Harvest, StdlibDoc, harvest
from retrievekit.errors import DuplicateIdError, ParseError

__all__ = [
    "DENIED",
    "Harvest",
    "StdlibDoc",
    "StdlibJudgements",
    "harvest",
    "judgements",
    "queries",
]

_HEADER = "query-id\tcorpus-id\tscore"


@dataclass(frozen=True, slots=True)
class StdlibJudgements:
    """Graded judgements, divided by whether this Python has the judged document.

    Attributes:
        present: Query id to document id to grade (0 to 3; 0 is not relevant), for documents that
            exist here.
        absent: The same for judged documents that this Python lacks; evaluate without them, and
            say so.
        python_version: The version that ``present`` and ``absent`` hold for.
    """

    present: Mapping[str, Mapping[str, int]]
    absent: Mapping[str, Mapping[str, int]]
    python_version: str

    def absent_ids(self) -> list[str]:
        """List the relevant documents that this Python lacks.

        Returns:
            Document ids, sorted, each once.
        """
        relevant = (
            doc for docs in self.absent.values() for doc, grade in docs.items() if grade > 0
        )
        return sorted(set(relevant))


def queries() -> dict[str, str]:
    """Read the questions.

    Returns:
        Query id to text, in the order of the file.

    Raises:
        ParseError: A line is no JSON object with the strings ``_id`` and ``text``.
        DuplicateIdError: An id occurs twice.
    """
    return _parse_queries(_package_text("queries.jsonl"))


def judgements(document_ids: Collection[str]) -> StdlibJudgements:
    """Read the judgements and divide them by the documents there are.

    Args:
        document_ids: Ids of the documents of the running Python, as ``harvest`` gives them.

    Returns:
        The judgements; a query appears in ``present`` or ``absent`` only with a document in it.

    Raises:
        ParseError: The header or a line of ``qrels.tsv`` does not have its form.
        DuplicateIdError: A document is judged twice for one query.
    """
    known = frozenset(document_ids)
    present: dict[str, dict[str, int]] = {}
    absent: dict[str, dict[str, int]] = {}
    for query, grades in _parse_qrels(_package_text("qrels.tsv")).items():
        for doc, grade in grades.items():
            part = present if doc in known else absent
            part.setdefault(query, {})[doc] = grade
    return StdlibJudgements(present, absent, platform.python_version())


def _package_text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _parse_queries(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ParseError("queries.jsonl", number, f"not JSON ({error})") from error
        match record:
            case {"_id": str(name), "text": str(question)} if name and question.strip():
                if name in found:
                    raise DuplicateIdError(f"queries.jsonl:{number}: id {name!r} occurs twice")
                found[name] = question
            case _:
                raise ParseError("queries.jsonl", number, 'expected {"_id": ..., "text": ...}')
    return found


def _parse_qrels(text: str) -> dict[str, dict[str, int]]:
    lines = text.split("\n")
    if lines[0] != _HEADER:
        raise ParseError("qrels.tsv", 1, f"expected the header {_HEADER!r}, found {lines[0]!r}")
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        match line.split("\t"):
            case [str(query), str(doc), "0" | "1" | "2" | "3" as grade] if query and doc:
                grades = found.setdefault(query, {})
                if doc in grades:
                    raise DuplicateIdError(
                        f"qrels.tsv:{number}: {doc!r} is judged twice for query {query!r}"
                    )
                grades[doc] = int(grade)
            case _:
                raise ParseError(
                    "qrels.tsv", number, "expected query id, document id and a grade 0 to 3, by tab"
                )
    return found
