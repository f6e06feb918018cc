"""`Run` and `Qrels` to TREC files: lines joined in Arrow, files whole or not at all."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrievekit.data.download import replacing
from retrievekit.data.trec.traces import trace_of, trace_path
from retrievekit.errors import DataError, NonFiniteError
from retrievekit.ids import Ids
from retrievekit.qrels import Qrels
from retrievekit.run import Run

_LINES_AT_A_TIME = 500_000


def write_run(run: Run, path: str | Path, *, tag: str = "retrievekit") -> None:
    """Write a TREC run file, and the run's trace beside it.

    Args:
        run: The run.
        path: The file, gzipped when its name ends in ``.gz``; folders are made, a file is replaced
            in one step.
        tag: The last column.

    Raises:
        DataError: The tag or an id cannot stand in the file: blanks, or a query id that begins
        with ``#``.
        NonFiniteError: A score is NaN or infinite.
    """
    path = Path(path)
    if not tag or re.search(r"[\s\0]", tag):
        raise DataError(f"the tag {tag!r} of a run file needs at least one character and no blank")
    if not np.isfinite(run.scores).all():
        query = int(np.searchsorted(run.offsets, np.argmin(np.isfinite(run.scores)), "right")) - 1
        raise NonFiniteError(f"query {run.queries.ids[query]!r} has a score that is not finite")
    ranks = run.ranks

    def rest(part: slice) -> list[pa.Array | str]:
        return [_texts(ranks[part]), _texts(run.scores[part]), f"{tag}\n"]

    _write(path, run.queries.ids, run.docs, run, "Q0", rest)
    beside = trace_path(path)
    if run.trace:
        with _written(beside) as file:
            file.write(trace_of(run, path))
    else:
        beside.unlink(missing_ok=True)  # it told of the run that stood here before


def write_qrels(qrels: Qrels, path: str | Path) -> None:
    """Write a TREC qrels file.

    Args:
        qrels: The judgements; a query without any leaves no line.
        path: The file, gzipped when its name ends in ``.gz``; folders are made, a file is replaced
            in one step.

    Raises:
        DataError: An id cannot stand in the file: blanks, or a query id that begins with ``#``.
    """
    _write(
        Path(path),
        qrels.queries,
        qrels.docs,
        qrels,
        "0",
        lambda part: [_texts(qrels.grades[part], "\n")],
    )


def _write(
    path: Path,
    queries: Ids,
    docs: Ids,
    lists: Run | Qrels,
    second: str,
    rest: Callable[[slice], list[pa.Array | str]],
) -> None:
    """Write a line per hit or judgement: query, the second field, document, and the rest of a part.

    Raises:
        DataError: An id cannot stand in the file.
    """
    per_query = np.diff(lists.offsets)
    _check_writable(queries.arrow.take(pa.array(np.flatnonzero(per_query))), "query", path)
    _check_writable(docs.arrow.take(pa.array(np.unique(lists.rows))), "document", path)
    of_query = np.repeat(np.arange(len(per_query), dtype=np.int32), per_query)
    with _written(path) as file:
        for start in range(0, len(lists.rows), _LINES_AT_A_TIME):
            part = slice(start, start + _LINES_AT_A_TIME)
            query = queries.arrow.take(pa.array(of_query[part]))
            doc = docs.arrow.take(pa.array(lists.rows[part]))
            _write_lines(file, [query, second, doc, *rest(part)])


def _check_writable(ids: pa.Array, what: str, path: Path) -> None:
    pattern = r"[\t\n\v\f\r\x00 ]" if what == "document" else r"[\t\n\v\f\r\x00 ]|^#"
    bad = ids.filter(pc.match_substring_regex(ids, pattern))
    if len(bad):
        raise DataError(
            f"{path}: {what} id {bad[0].as_py()!r} cannot stand in a TREC file, whose fields are "
            "separated by blanks (and whose comments begin with '#'); rename it"
        )


def _texts(numbers: NDArray[Any], end: str = "") -> pa.Array:
    """Numbers with as many digits as bring the same ones back, and an end to each."""
    texts = pc.cast(pa.array(numbers), pa.large_string())
    return pc.binary_join_element_wise(texts, _text(""), _text(end)) if end else texts


def _text(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _write_lines(file: IO[bytes], fields: list[pa.Array | str]) -> None:
    """Join the fields of each line by blanks; the last one brings the line's end."""
    columns = [_text(field) if isinstance(field, str) else field for field in fields]
    lines = pc.binary_join_element_wise(*columns, _text(" "))
    _, offsets, content = lines.buffers()
    bounds = np.frombuffer(offsets, np.int64)[lines.offset : lines.offset + len(lines) + 1]
    file.write(memoryview(content)[int(bounds[0]) : int(bounds[-1])])


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when all is written, and leaves nothing otherwise.

    Raises:
        DataError: Something else than a file stands there.
    """
    target = path.resolve()  # so that a link stays a link
    if target.exists() and not target.is_file():
        raise DataError(f"{path} is no regular file, so it cannot be replaced; name another")
    with replacing(target) as fresh, open(fresh, "wb") as file:
        if path.suffix == ".gz":
            # Neither name nor time goes into the file, so that equal runs are equal files.
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as zipped:
                yield zipped  # type: ignore[misc]
        else:
            yield file
