"""Fetching of files by HTTP: resumed where it was cut off, checked, placed whole or not at all.

The bytes gather in ``<name>.part`` beside the destination; what the server said of their version
lies in ``<name>.part.tag``, so that a changed file is fetched afresh instead of being glued to the
old one. Only when size and checksum are right does the part take the destination's name.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from retrievekit._version import __version__
from retrievekit.errors import DataError, LimitError, MissingDataError
from retrievekit.protocols import Progress
from retrievekit.store.files import Files

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**30
"""Bytes that a download of unknown size may have."""

_STEP = 2**18


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Args:
        path: Where it lies.
        size: Its bytes.
        sha256: Its SHA-256, in hexadecimal.
    """

    path: Path
    size: int
    sha256: str


def offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` (or ``HF_DATASETS_OFFLINE``) forbids the network."""
    on = {"1", "on", "yes", "true"}
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(switch, "").strip().lower() in on for switch in switches)


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
    pause: float = 1.0,
    progress: Progress | None = None,
) -> Fetched:
    """Fetch one file.

    Args:
        url: An ``http`` or ``https`` address.
        path: Where the file goes; an existing file is replaced.
        size: Its bytes, when they are known.
        md5: Its MD5 in hexadecimal, when one is published.
        sha256: Its SHA-256 in hexadecimal, when it is known.
        timeout: Seconds without a byte after which a connection counts as lost.
        attempts: How often to connect in a row without a single new byte before giving up.
        pause: Seconds before the second attempt; doubled for each further one.
        progress: Told about the bytes as they come.

    Returns:
        The file with its size and SHA-256.

    Raises:
        MissingDataError: The network is forbidden or the server cannot be reached or does not have
            the file. What came so far stays and is resumed by the next call.
        DataError: The file has another size or checksum than it should; it is removed.
    """
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url}: only http and https addresses are fetched")
    if offline():
        raise MissingDataError(f"{url} is not fetched, since HF_HUB_OFFLINE is set")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(path.with_name(path.name + ".part"), path.with_name(path.name + ".part.tag"))
    failures = 0
    resumed = part.size > 0
    furthest = part.size
    while True:
        try:
            total = _transfer(url, part, size, timeout, progress)
            if total is None or part.size >= total:
                try:
                    return _placed(url, path, part, size, md5, sha256)
                except DataError:
                    # Bytes left over from an earlier call may be those of another version.
                    if not resumed:
                        raise
                    log.warning("%s: the resumed download is not right; fetching it afresh", url)
                    resumed = False
                    continue
            why: object = f"the connection ended after {part.size:,} of {total:,} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and part.size:
                part.drop()
                resumed = False
                why = error
            elif error.code in (408, 425, 429) or error.code >= 500:
                why = error
            else:
                raise MissingDataError(
                    f"{url} is not there: the server answers {error.code} {error.reason}"
                ) from error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES):
                raise
            why = error
        # Getting as far again after starting over is no progress.
        failures = 0 if part.size > furthest else failures + 1
        furthest = max(furthest, part.size)
        if failures >= attempts:
            kept = f"; {part.size:,} bytes are kept and the next call goes on there"
            raise MissingDataError(
                f"{url} cannot be fetched: {why}{kept if part.size else ''}; check the network"
            )
        log.info("%s: %s; trying again", url, why)
        time.sleep(pause * 2 ** max(failures - 1, 0))


@dataclass(frozen=True)
class _Part:
    """The bytes so far and what the server called their version."""

    path: Path
    tag_path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def tag(self) -> str | None:
        try:
            return self.tag_path.read_text("utf-8") or None
        except (OSError, UnicodeDecodeError):
            return None

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.tag_path.unlink(missing_ok=True)


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise urllib.error.URLError(f"refused a redirect from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _transfer(
    url: str, part: _Part, size: int | None, timeout: float, progress: Progress | None
) -> int | None:
    """One connection: append what comes; the total the server names, or None."""
    start = part.size
    if start and start == size:
        return size
    headers = {"User-Agent": f"retrievekit/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.tag:
            headers["If-Range"] = part.tag
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(_NoDowngrade)
    with opener.open(request, timeout=timeout) as answer:
        total = _total(answer, start)
        if answer.status != 206 or _range_start(answer) != start:
            if answer.status == 206:
                raise http.client.HTTPException("the server sent another range than asked for")
            start = 0
        limit = size if size is not None else MAX_BYTES
        if size is not None and total is not None and total != size:
            part.drop()
            raise DataError(
                f"{url}: the server offers {total:,} bytes, but it should be {size:,}; the file "
                "has changed at its source"
            )
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        # A weak tag does not promise equal bytes and may not be used to resume.
        part.tag_path.write_text("" if tag.startswith("W/") else tag, "utf-8")
        with part.path.open("ab" if start else "wb") as out:
            there = start
            while block := answer.read(_STEP):
                there += len(block)
                if there > limit:
                    break
                out.write(block)
                if progress is not None:
                    progress(there, total if total is not None else size)
            out.flush()
            os.fsync(out.fileno())
    if there > limit:
        part.drop()
        if size is not None:
            raise DataError(f"{url}: more than the {size:,} bytes it should have")
        raise LimitError(f"{url}: more than {MAX_BYTES:,} bytes")
    return total if total is not None else size


def _total(answer: Any, start: int) -> int | None:
    found = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("Content-Range") or "")
    if answer.status == 206:
        return int(found[1]) if found else None
    length = answer.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _range_start(answer: Any) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
    return int(found[1]) if found else None


def _placed(
    url: str, path: Path, part: _Part, size: int | None, md5: str | None, sha256: str | None
) -> Fetched:
    there = part.size
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    if part.path.is_file():
        with part.path.open("rb") as stream:
            while block := stream.read(2**20):
                for digest in digests.values():
                    digest.update(block)
    wrong = None
    if size is not None and there != size:
        wrong = f"it has {there:,} bytes, but should have {size:,}"
    for name, expected in (("md5", md5), ("sha256", sha256)):
        found = digests[name].hexdigest()
        if wrong is None and expected is not None and found != expected.lower():
            wrong = f"its {name} is {found}, but should be {expected.lower()}"
    if wrong is not None:
        part.drop()
        raise DataError(f"{url}: {wrong}; the file was damaged on the way or changed at its source")
    part.path.replace(path)
    part.tag_path.unlink(missing_ok=True)
    return Fetched(path, there, digests["sha256"].hexdigest())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file beside its place and rename it there when it is complete.

    Args:
        path: The file to make or replace.

    Yields:
        The file to write to; it is removed when the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    os.close(handle)
    fresh = Path(name)
    try:
        yield fresh
        with fresh.open("rb+") as written:
            os.fsync(written.fileno())
        fresh.chmod(0o666 & ~_umask())
        files = Files()
        files.rename(fresh, path)
        files.sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_of(path: Path) -> str:
    """SHA-256 of a file.

    Args:
        path: The file.

    Returns:
        The digest in hexadecimal.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
