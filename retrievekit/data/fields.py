"""From the fields of one record to a document: id, text, title, and metadata as typed values.

`retrievekit.data.records` has the rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrievekit.corpus import Document
from retrievekit.data.characters import short
from retrievekit.data.reading import ReadOptions, Tally
from retrievekit.errors import LimitError, ParseError


@dataclass(frozen=True)
class FieldNames:
    """Names under which records keep what they must have; the first that is there counts.

    Args:
        ids: Names of the id.
        texts: Names of the text.
        titled: Whether a table of three columns without a header has a title between the two.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    titled: bool


DOCUMENT_FIELDS = FieldNames(
    ("_id", "id", "docid", "doc_id", "docno"), ("text", "contents"), titled=True
)
"""Names in a corpus."""

QUERY_FIELDS = FieldNames(
    ("_id", "id", "qid", "query_id", "query-id"), ("text", "query", "question"), titled=False
)
"""Names among queries."""


def document_of(
    source: Path,
    line: int,
    record: dict[str, Any],
    options: ReadOptions,
    tally: Tally,
    names: FieldNames,
) -> Document:
    """The document or query in the fields of a record.

    Args:
        source: The file, for messages.
        line: The line or row, for messages.
        record: The fields.
        options: How ids and metadata are taken.
        tally: Where ids that were numbers are counted.
        names: Which fields hold what.

    Returns:
        The document; a query has its words in `text`.

    Raises:
        ParseError: A field that is missing or of a wrong type.
    """
    id_key = next((key for key in names.ids if key in record), None)
    if id_key is None:
        raise ParseError(source, line, _lacks("id", names.ids, record))
    given = record[id_key]
    if isinstance(given, int) and not isinstance(given, bool) and options.number_ids:
        given = str(given)
        tally.number_ids += 1
    if not isinstance(given, str):
        raise ParseError(
            source,
            line,
            f"the id {id_key!r} is {short(given)} ({type(given).__name__}), but ids are strings; "
            "quote it, or let integers be taken as their digits with number_ids=True",
        )
    if not given:
        raise ParseError(source, line, f"the id {id_key!r} is empty")
    if "\0" in given:
        raise ParseError(source, line, f"the id {short(given)} holds a NUL character")
    text_key = next((key for key in names.texts if key in record), None)
    if text_key is None:
        raise ParseError(source, line, _lacks("text", names.texts, record))
    text = record[text_key]
    if not isinstance(text, str):
        raise ParseError(
            source,
            line,
            f"the {text_key!r} of {given!r} is {short(text)}, not a string; an empty document has "
            'the text ""',
        )
    title = record.get("title")
    if title is None:
        title = ""
    if not isinstance(title, str):
        raise ParseError(source, line, f"the title of {given!r} is {short(title)}, not a string")
    if options.metadata == "drop":
        return Document(given, text, title)
    extra = {key: value for key, value in record.items() if key not in (id_key, text_key, "title")}
    return Document(given, text, title, _metadata(source, line, extra, options))


def _lacks(what: str, keys: Iterable[str], record: Mapping[str, Any]) -> str:
    there = ", ".join(repr(key) for key in list(record)[:10]) or "nothing"
    return f"no {what}: none of {', '.join(keys)} is there, only {there}"


def _metadata(
    source: Path, line: int, extra: dict[str, Any], options: ReadOptions
) -> dict[str, Any]:
    nested = extra.get("metadata")
    found: dict[str, Any] = {}
    if isinstance(nested, dict):
        del extra["metadata"]
        for name, value in nested.items():
            inside = f"metadata.{name}" if name in ("_id", "text", "title") else name
            found[inside] = value
    for name, value in extra.items():
        if name in found and found[name] != value:
            raise ParseError(
                source,
                line,
                f"{name!r} stands both beside and inside 'metadata', with other values",
            )
        found[f"metadata.{name}" if name in ("_id", "text", "title") else name] = value
    plain = _as_json if options.metadata == "json" else _plain
    return {
        name: plain(source, line, name, value)
        for name, value in found.items()
        if value is not None and value != {}
    }


def _plain(source: Path, line: int, name: str, value: Any) -> Any:
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        if len(kinds) <= 1 and kinds <= {str, int, float, bool}:
            return value
        if kinds == {int, float} and all(float(item) == item for item in value):
            return [float(item) for item in value]
        return _as_json(source, line, name, value)
    if isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise LimitError(f"{source}:{line}: {name!r} does not fit 64 bits; write it as text")
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return _as_json(source, line, name, value)


def _as_json(source: Path, line: int, name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_iso)
    except TypeError as why:
        raise ParseError(
            source,
            line,
            f'the value of {name!r} cannot be kept ({why}); read it with metadata="drop"',
        ) from why


def _iso(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"it is of type {type(value).__name__}")
