"""Downloads from a server on the loopback: whole, resumed, cut off, changed, wrong, forbidden."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from retrievekit.data import download as module
from retrievekit.data.download import Fetched, download, offline, replacing, sha256_of
from retrievekit.errors import DataError, LimitError, MissingDataError

BODY = bytes(range(256)) * 5000
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """A file server that misbehaves as told."""

    body: bytes = BODY
    etag: str = '"v1"'
    ranges: bool = True
    length: bool = True
    cut: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    redirect: str | None = None
    shift: int = 0
    seen: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        told: Server = self.server.told  # type: ignore[attr-defined]
        told.seen.append(dict(self.headers))
        if told.redirect:
            target, told.redirect = told.redirect, None
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        if told.status:
            self.send_response(told.status.pop(0))
            self.end_headers()
            return
        start, body = 0, told.body
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", told.etag) == told.etag
        if wanted and told.ranges and same:
            start = int(wanted[1])
            if start >= len(body):
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206)
            end = f"{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", f"bytes {start + told.shift}-{end}")
        else:
            self.send_response(200)
        if told.etag:
            self.send_header("ETag", told.etag)
        if told.length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start:]
        self.wfile.write(part[: told.cut.pop(0)] if told.cut else part)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients hang up here on purpose."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(switch, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "_STEP", 1000)
    told = Server()
    with Quiet(("127.0.0.1", 0), Handler) as running:
        running.told = told  # type: ignore[attr-defined]
        told.url = f"http://127.0.0.1:{running.server_port}/file.zip"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        running.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_whole_file(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = tmp_path / "new" / "f.zip"
    found = download(
        server.url,
        path,
        size=len(BODY),
        md5=MD5.upper(),
        sha256=SHA,
        progress=lambda *t: told.append(t),
    )
    assert found == Fetched(path, len(BODY), SHA)
    assert path.read_bytes() == BODY
    assert names(path.parent) == ["f.zip"]
    assert told[-1] == (len(BODY), len(BODY))
    assert [there for there, _ in told] == sorted(there for there, _ in told)
    assert "Range" not in server.seen[0]


def test_empty_file(server: Server, tmp_path: Path) -> None:
    server.body = b""
    assert download(server.url, tmp_path / "f", size=0).size == 0
    assert (tmp_path / "f").read_bytes() == b""


def test_file_of_unknown_length(server: Server, tmp_path: Path) -> None:
    server.length = False
    assert download(server.url, tmp_path / "f", md5=MD5).sha256 == SHA


def test_cut_off_connections_are_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000, 10, 400_000]
    download(server.url, tmp_path / "f", size=len(BODY), sha256=SHA, pause=0)
    assert (tmp_path / "f").read_bytes() == BODY
    ranges = [seen.get("Range") for seen in server.seen]
    assert ranges == [None, "bytes=300000-", "bytes=300010-", "bytes=700010-"]
    assert [seen.get("If-Range") for seen in server.seen[1:]] == ['"v1"'] * 3


def test_next_call_resumes(server: Server, tmp_path: Path) -> None:
    server.cut = [500_000, 0, 0]
    with pytest.raises(MissingDataError, match="500,000 bytes are kept and the next call goes on"):
        download(server.url, tmp_path / "f", size=len(BODY), attempts=2, pause=0)
    assert names(tmp_path) == ["f.part", "f.part.tag"]
    server.seen.clear()
    download(server.url, tmp_path / "f", size=len(BODY), md5=MD5, pause=0)
    assert [seen.get("Range") for seen in server.seen] == ["bytes=500000-"]
    assert names(tmp_path) == ["f"]


def test_complete_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(BODY)
    download(server.url, tmp_path / "f", size=len(BODY), md5=MD5)
    assert server.seen == []


def test_changed_file_is_fetched_afresh(server: Server, tmp_path: Path) -> None:
    server.cut = [500_000, 0]
    with pytest.raises(MissingDataError):
        download(server.url, tmp_path / "f", attempts=1, pause=0)
    server.cut = []
    server.body, server.etag = BODY[::-1], '"v2"'
    download(server.url, tmp_path / "f", pause=0)
    assert (tmp_path / "f").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("left", [b"x" * 500_000, b"x" * len(BODY)])
def test_leftover_of_something_else_is_fetched_afresh(
    server: Server, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "f.part").write_bytes(left)
    download(server.url, tmp_path / "f", size=len(BODY), md5=MD5, pause=0)
    assert (tmp_path / "f").read_bytes() == BODY


def test_leftover_that_is_too_long(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(BODY + b"x")
    download(server.url, tmp_path / "f", pause=0)
    assert (tmp_path / "f").read_bytes() == BODY


def test_weak_tag_is_not_used_to_resume(server: Server, tmp_path: Path) -> None:
    server.etag, server.cut = 'W/"v1"', [1000]
    download(server.url, tmp_path / "f", md5=MD5, pause=0)
    assert "If-Range" not in server.seen[1]


def test_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [500_000]
    download(server.url, tmp_path / "f", md5=MD5, pause=0)
    assert (tmp_path / "f").read_bytes() == BODY


def test_server_that_sends_another_range(server: Server, tmp_path: Path) -> None:
    server.cut, server.shift = [500_000], 7
    with pytest.raises(MissingDataError, match="another range than asked for"):
        download(server.url, tmp_path / "f", attempts=2, pause=0)


def test_wrong_size_offered(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"offers 1,280,000 bytes, but it should be 5; the file has"
    ):
        download(server.url, tmp_path / "f", size=5)
    assert names(tmp_path) == []


@pytest.mark.parametrize("off", [-1, 1])
def test_wrong_size_received(server: Server, tmp_path: Path, off: int) -> None:
    server.length = False
    message = "more than the" if off < 0 else "cannot be fetched"
    error = DataError if off < 0 else MissingDataError
    with pytest.raises(error, match=message):
        download(server.url, tmp_path / "f", size=len(BODY) + off, attempts=2, pause=0)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_wrong_checksum(server: Server, tmp_path: Path, kind: str) -> None:
    right = {"md5": MD5, "sha256": SHA}[kind]
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(DataError, match=f"its {kind} is {right}, but should be {wrong}"):
        download(server.url, tmp_path / "f", **{kind: wrong})
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_endless_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    with pytest.raises(LimitError, match="more than 10,000 bytes"):
        download(server.url, tmp_path / "f")
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_file_that_is_not_there(server: Server, tmp_path: Path, status: int) -> None:
    server.status = [status]
    with pytest.raises(MissingDataError, match=f"is not there: the server answers {status}"):
        download(server.url, tmp_path / "f")
    assert len(server.seen) == 1, "asking again would not help"


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = [503, 500, 429]
    download(server.url, tmp_path / "f", md5=MD5, pause=0)
    assert len(server.seen) == 4


def test_nobody_answers(server: Server, tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9/file"
    with pytest.raises(MissingDataError, match=r"cannot be fetched: .*; check the network"):
        download(closed, tmp_path / "f", attempts=2, pause=0)


def test_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.redirect = "/elsewhere"
    download(server.url, tmp_path / "f", md5=MD5)
    server.redirect = "file:///etc/hostname"
    with pytest.raises(MissingDataError):
        download(server.url, tmp_path / "g", attempts=1)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y", "/etc/hostname"])
def test_other_schemes(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="only http and https"):
        download(url, tmp_path / "f")


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_forbidden_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    assert not offline()
    monkeypatch.setenv(switch, "1")
    assert offline()
    with pytest.raises(MissingDataError, match="HF_HUB_OFFLINE is set"):
        download(server.url, tmp_path / "f")
    assert server.seen == []
    monkeypatch.setenv(switch, "0")
    assert not offline()


def test_full_disk_is_not_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        download(server.url, tmp_path / "f")
    assert len(server.seen) == 1


def test_sha256_of(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BODY)
    assert sha256_of(tmp_path / "f") == SHA


def test_replacing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "f"
    with replacing(path) as fresh:
        fresh.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(IsADirectoryError), replacing(path) as fresh:
        fresh.write_bytes(tmp_path.read_bytes())
    assert path.read_text() == "one"
    assert names(path.parent) == ["f"]
