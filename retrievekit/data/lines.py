"""From a file's bytes to numbered lines: unpacking, the longest line, byte-order mark, characters.

What comes out of a gzip stream is capped in its ratio to what went in, and no line is gathered
beyond its limit, so a file of any content needs bounded memory.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from retrievekit.data.archive import CappedReader
from retrievekit.data.characters import decoded
from retrievekit.data.reading import ReadOptions, Tally
from retrievekit.errors import LimitError, ParseError

BOM = b"\xef\xbb\xbf"
"""UTF-8's byte-order mark."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked when its name ends in ``.gz``.

    Args:
        path: The file.

    Yields:
        Its bytes; a gzip stream that gives far more than it takes ends in a `LimitError`.
    """
    with path.open("rb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as packed:
            capped: Any = CappedReader(cast(IO[bytes], packed), raw.tell, str(path))
            yield io.BufferedReader(capped, 2**18)


def read_lines(
    source: Path, options: ReadOptions, tally: Tally, *, keep_blank: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """Numbered lines without their ends.

    Args:
        source: The file, gzipped when its name ends in ``.gz``.
        options: How long a line may be, and what becomes of characters that are not valid.
        tally: Where a dropped byte-order mark is counted.
        keep_blank: Whether blank lines come out too.

    Yields:
        Number from 1, text, and whether characters were replaced.

    Raises:
        LimitError: A line is too long.
        ParseError: The gzip stream is damaged, or the text is not UTF-8.
    """
    limit = options.max_line_bytes
    number = 0
    with opened(source) as stream:
        while True:
            try:
                line = stream.readline(limit + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile) as why:
                raise ParseError(
                    source, number + 1, f"the gzip stream is damaged or cut off here ({why})"
                ) from why
            if not line:
                return
            number += 1
            if len(line) > limit:
                raise LimitError(
                    f"{source}:{number}: a line of more than {limit:,} bytes; is this one record a "
                    "line? If so, raise max_line_bytes"
                )
            if number == 1:
                line = without_mark(source, line, options, tally)
            line = line.rstrip(b"\n").removesuffix(b"\r")
            if line.strip() or keep_blank:
                text, repaired = decoded(source, number, line, options)
                yield number, text, repaired


def without_mark(source: Path, start: bytes, options: ReadOptions, tally: Tally) -> bytes:
    """The start of a file without its byte-order mark.

    Args:
        source: The file, for messages.
        start: Its first bytes.
        options: Whether a mark is an error or is dropped.
        tally: Where a dropped mark is counted.

    Returns:
        The bytes after the mark.

    Raises:
        ParseError: The file is UTF-16, or has a mark that is not to be dropped.
    """
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ParseError(source, 1, "this is UTF-16; convert it to UTF-8")
    if not start.startswith(BOM):
        return start
    if options.errors == "strict":
        raise ParseError(
            source,
            1,
            "the file begins with a byte-order mark; save it as UTF-8 without one, or read it with "
            'errors="replace"',
        )
    tally.marks += 1
    return start[len(BOM) :]
