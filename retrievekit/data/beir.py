"""The BEIR layout: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``; read and written.

A document is ``{"_id", "title", "text", "metadata"}``, a query ``{"_id", "text"}``, judgements are
lines of ``query-id corpus-id score`` under a header. Files are written beside their place and
renamed when complete.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from retrievekit.corpus import Document
from retrievekit.data.download import replacing
from retrievekit.data.records import part_file
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.qrels import Qrels
from retrievekit.queries import Queries

QRELS_SUFFIXES = (".tsv", ".tsv.gz", ".txt", ".txt.gz", ".qrels", ".qrels.gz", ".trec")
"""Names of judgement files end in one of these."""


def is_beir_folder(folder: Path) -> bool:
    """Whether a folder holds a corpus in the BEIR layout.

    Args:
        folder: The folder.

    Returns:
        True when there is a file ``corpus.jsonl`` or one of the other endings.
    """
    return folder.is_dir() and part_file(folder, "corpus") is not None


def splits(folder: Path) -> dict[str, Path]:
    """The judgement files of a folder.

    Args:
        folder: A BEIR folder.

    Returns:
        The files by the name of their split, sorted.

    Raises:
        DataError: One split has two files.
    """
    found: dict[str, Path] = {}
    for path in sorted((folder / "qrels").glob("*")):
        suffix = next((s for s in QRELS_SUFFIXES if path.name.endswith(s)), None)
        if suffix is None or path.name.startswith(".") or not path.is_file():
            continue
        split = path.name.removesuffix(suffix)
        if split in found:
            raise DataError(f"{found[split]} and {path} both judge {split!r}; keep one")
        found[split] = path
    return found


def qrels_file(folder: Path, split: str) -> Path:
    """The judgement file of one split.

    Args:
        folder: A BEIR folder.
        split: The split, such as "test".

    Returns:
        Its file.

    Raises:
        UnknownNameError: The folder has no such split.
    """
    there = splits(folder)
    if split not in there:
        raise UnknownNameError.among("split", split, there, f"({folder / 'qrels'})")
    return there[split]


def write_corpus(corpus: Iterable[Document], path: str | Path) -> int:
    """Write documents as BEIR JSONL (gzipped when the name ends in ``.gz``).

    Args:
        corpus: A `Corpus`, or documents one by one.
        path: The file.

    Returns:
        How many documents were written.

    Raises:
        DataError: A metadata value cannot be written as JSON.
    """
    count = 0
    with _jsonl(Path(path)) as out:
        for document in corpus:
            record = {
                "_id": document.doc_id,
                "title": document.title,
                "text": document.text,
                "metadata": dict(sorted(document.metadata.items())),
            }
            try:
                line = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_iso)
            except (TypeError, ValueError) as why:
                raise DataError(
                    f"{path}: the metadata of {document.doc_id!r} cannot be written as JSON ({why})"
                ) from why
            out.write(line.encode("utf-8") + b"\n")
            count += 1
    return count


def write_queries(queries: Queries, path: str | Path) -> None:
    """Write queries as BEIR JSONL (gzipped when the name ends in ``.gz``).

    Args:
        queries: Queries with words; rewritten ones are written as they were typed.
        path: The file.
    """
    with _jsonl(Path(path)) as out:
        for query_id, text in zip(queries.ids, queries.texts, strict=True):
            record = {"_id": query_id, "text": text}
            out.write(json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n")


def write_qrels(qrels: Qrels, path: str | Path) -> None:
    """Write judgements as a BEIR table (gzipped when the name ends in ``.gz``).

    Args:
        qrels: The judgements.
        path: The file.

    Raises:
        DataError: An id holds a tab or line end, which the format cannot hold.
    """
    for ids in (qrels.queries, qrels.docs):
        for value in ids:
            if any(c in value for c in "\t\r\n"):
                raise DataError(f"{path}: the id {value!r} holds a tab or line end")
    with _jsonl(Path(path)) as out:
        out.write(b"query-id\tcorpus-id\tscore\n")
        for query_id, grades in qrels.to_dict().items():
            for doc_id, grade in grades.items():
                out.write(f"{query_id}\t{doc_id}\t{grade}\n".encode())


@contextmanager
def _jsonl(path: Path) -> Iterator[IO[bytes]]:
    with replacing(path) as fresh, fresh.open("wb") as raw:
        if path.suffix == ".gz":
            # Neither name nor time: equal content gives equal bytes.
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                out: Any = packed
                yield out
        else:
            yield raw


def _iso(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")
