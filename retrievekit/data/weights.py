"""Reading term weights that were computed elsewhere: JSON lines as Anserini takes them, and CSR.

Anserini's JsonVectorCollection is a file or a folder of files of JSON lines, one document each:
``{"id": "d1", "contents": "...", "vector": {"term": 12, ...}}``. A CSR matrix is an ``.npz`` as
SciPy writes it, with a file of ids (one per line) and one of terms (one per line, or a JSON object
of column by term, as tokenizers have it).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrievekit.corpus import Document
from retrievekit.data.formats import json_lines
from retrievekit.data.lines import read_lines
from retrievekit.data.reading import ReadOptions, Tally
from retrievekit.errors import DataError, MissingDataError, NonFiniteError, ParseError
from retrievekit.vectors import SparseVectors, check_finite, check_kind

Weighed = Iterator[tuple[Document, Mapping[str, float]]]

_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_WORDS = ("contents", "content", "text")


def read_weights(
    path: str | Path, *, ids: str | Path | None = None, vocabulary: str | Path | None = None
) -> Weighed:
    """Read documents and their weights, one document in memory at a time.

    Args:
        path: A file or folder of JSON lines, or an ``.npz``.
        ids: For an ``.npz`` the file of ids.
        vocabulary: For an ``.npz`` the file of terms.

    Returns:
        The documents, each with its weights by term.

    Raises:
        MissingDataError: There is no such file.
        DataError: Only an ``.npz`` goes with ids and vocabulary, and it needs both.
    """
    path = Path(path)
    if not path.exists():
        raise MissingDataError(f"{path}: there is no such file or folder of term weights")
    if path.suffix == ".npz":
        if ids is None or vocabulary is None:
            raise DataError(
                f"{path}: a matrix says neither ids nor terms; give ids= and vocabulary="
            )
        return _rows(path, Path(ids), Path(vocabulary))
    if ids is not None or vocabulary is not None:
        raise DataError(f"{path}: ids and vocabulary go with an .npz file")
    return _lines(path)


def _lines(path: Path) -> Weighed:
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
        if not files:
            raise MissingDataError(f"{path}: no file of JSON lines ({', '.join(_SUFFIXES)})")
    for file in files:
        tally = Tally()
        for line, record, _ in json_lines(file, ReadOptions(), tally):
            doc_id = record.get("id", record.get("_id"))
            if type(doc_id) is int:  # Anserini's own collections number their documents
                doc_id = str(doc_id)
            if not isinstance(doc_id, str) or not doc_id:
                raise ParseError(
                    file, line, f"the id is {doc_id!r}, not a string that says something"
                )
            vector = record.get("vector")
            if not isinstance(vector, dict):
                raise ParseError(
                    file, line, f"the vector of {doc_id!r} is {vector!r:.60}, no object"
                )
            for term, weight in vector.items():
                if isinstance(weight, bool) or not isinstance(weight, int | float):
                    raise ParseError(file, line, f"{term!r} of {doc_id!r} weighs {weight!r:.60}")
            words = next((record[name] for name in _WORDS if record.get(name) is not None), "")
            if not isinstance(words, str):
                raise ParseError(
                    file, line, f"the contents of {doc_id!r} are {words!r:.60}, no text"
                )
            yield Document(doc_id, words), vector


def _rows(path: Path, ids_path: Path, vocabulary: Path) -> Weighed:
    ids = [text for _, text, _ in read_lines(ids_path, ReadOptions(), Tally())]
    terms = _terms(vocabulary)
    matrix = _matrix(path)
    if len(matrix) != len(ids) or matrix.size != len(terms):
        raise DataError(
            f"{path}: a matrix of {len(matrix)} x {matrix.size}, but {ids_path} has {len(ids)} ids "
            f"and {vocabulary} {len(terms)} terms"
        )
    for row, doc_id in enumerate(ids):
        part = slice(int(matrix.offsets[row]), int(matrix.offsets[row + 1]))
        columns = matrix.columns[part].tolist()
        weights = dict(zip([terms[c] for c in columns], matrix.values[part].tolist(), strict=True))
        if len(weights) < len(columns):
            raise DataError(f"{path}: the row of {doc_id!r} has one column twice")
        yield Document(doc_id, ""), weights


def _matrix(path: Path) -> SparseVectors:
    try:
        with np.load(path, allow_pickle=False) as file:
            parts: dict[str, Any] = {
                name: file[name] for name in ("format", "shape", "indptr", "indices", "data")
            }
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as why:
        raise ParseError(path, None, f"no sparse matrix as SciPy saves it: {why}") from why
    form = parts["format"].item()
    form = form.decode("ascii", "replace") if isinstance(form, bytes) else str(form)
    if form != "csr" or parts["shape"].shape != (2,):
        raise ParseError(path, None, f"a {form} matrix; save it as CSR, one row per document")
    try:
        size = int(parts["shape"][1])
        columns = check_kind(parts["indices"], "iu", "columns")
        if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < size:
            raise DataError(f"a column lies outside the vocabulary of {size}")
        with np.errstate(over="ignore"):
            values = check_kind(parts["data"], "iuf", "weights").astype(np.float32)
        check_finite(values, "weight")
        offsets = check_kind(parts["indptr"], "iu", "offsets").astype(np.int64)
        out = SparseVectors(offsets, columns.astype(np.int32), values, size)
    except NonFiniteError as why:
        raise NonFiniteError(f"{path}: {why}") from why
    except (DataError, ValueError) as why:
        raise ParseError(path, None, str(why)) from why
    if len(out) != int(parts["shape"][0]):
        raise ParseError(path, None, f"{len(out)} rows, but its shape says {parts['shape'][0]}")
    return out


def _terms(path: Path) -> list[str]:
    """Terms by column."""
    if path.suffix != ".json":
        terms = [text for _, text, _ in read_lines(path, ReadOptions(), Tally(), keep_blank=True)]
    else:
        try:
            content = json.loads(path.read_bytes())
        except ValueError as why:
            raise ParseError(path, None, f"not JSON: {why}") from why
        if isinstance(content, dict) and sorted(content.values(), key=str) == sorted(
            range(len(content)), key=str
        ):
            content = sorted(content, key=content.__getitem__)
        if not isinstance(content, list) or not all(isinstance(term, str) for term in content):
            raise ParseError(path, None, "neither a list of terms nor an object of column by term")
        terms = content
    if len(set(terms)) < len(terms):
        twice = next(term for i, term in enumerate(terms) if term in terms[:i])
        raise ParseError(path, None, f"the term {twice!r} comes twice")
    return terms
