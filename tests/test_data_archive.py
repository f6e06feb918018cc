"""Unpacking: hostile archives of every kind are refused, and nothing is left behind."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.data.archive import extract
from retrievekit.errors import DataError, LimitError

FILES = {"set/corpus.jsonl": b"one\n", "set/qrels/test.tsv": b"two\n" * 1000, "set/é.txt": b""}


def zipped(path: Path, *members: tuple[str, bytes] | tuple[str, bytes, int]) -> Path:
    """A zip archive; a third part of a member is its Unix mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content, *mode in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            out.writestr(info, content)
    return path


def refused(
    tmp_path: Path, archive: Path, message: str, error: type[DataError] = DataError
) -> None:
    """Check that the archive is refused and that it left nothing."""
    outside = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        extract(archive, tmp_path / "out")
    assert str(archive) in str(caught.value)
    assert sorted(p for p in tmp_path.rglob("*")) == outside


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", *FILES.items())
    found = extract(archive, tmp_path / "deep" / "out")
    assert [p.as_posix() for p in found] == list(FILES)
    assert {p.as_posix(): (tmp_path / "deep" / "out" / p).read_bytes() for p in found} == FILES
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["out"]


def test_folders_and_dots_in_names(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "a", ("./", b"", stat.S_IFDIR), ("a/", b"", stat.S_IFDIR), ("./a//b", b"x")
    )
    assert [p.as_posix() for p in extract(archive, tmp_path / "out")] == ["a/b"]


def test_archive_without_members(tmp_path: Path) -> None:
    assert extract(zipped(tmp_path / "a.zip"), tmp_path / "out") == []
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil", r"would land outside the folder \('\.\.'\)"),
        ("set/../../evil", "would land outside the folder"),
        ("/evil", "has an absolute path"),
        ("C:/evil", "has a backslash, colon or NUL"),
        ("..\\evil", "has a backslash, colon or NUL"),
    ],
)
def test_paths_that_lead_outside(tmp_path: Path, name: str, message: str) -> None:
    refused(tmp_path, zipped(tmp_path / "a", ("fine", b"x"), (name, b"x")), message)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "'a' comes twice"),
        (["a/b", "A/B"], "'A/B' comes twice"),
        (["\u00e9", "e\u0301"], "comes twice"),
        (["a", "a/b"], "lies below a member that is a file"),
        (["a/b", "a"], "'a' comes twice"),
        (["./a", "a"], "'a' comes twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_duplicate_members(tmp_path: Path, names: list[str], message: str) -> None:
    refused(tmp_path, zipped(tmp_path / "a", *((n, b"x") for n in names)), message)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (stat.S_IFLNK | 0o777, "is a symbolic link"),
        (stat.S_IFCHR | 0o666, "is a device"),
        (stat.S_IFBLK | 0o666, "is a device"),
        (stat.S_IFIFO | 0o666, "is a pipe"),
        (stat.S_IFSOCK | 0o666, "is a special file"),
    ],
)
def test_special_files_in_zip(tmp_path: Path, mode: int, message: str) -> None:
    refused(tmp_path, zipped(tmp_path / "a", ("l", b"/etc/passwd", mode)), f"'l' {message}")


def test_encrypted_member(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", ("x", b"secret"))
    raw = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset] |= 1
    archive.write_bytes(raw)
    refused(tmp_path, archive, "'x' is encrypted")


def test_destination_that_is_there(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", *FILES.items())
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is there already"):
        extract(archive, tmp_path / "out")


# --- caps --------------------------------------------------------------------------------------

ZEROS = bytes(8 * 2**20)


def test_decompression_bomb(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", ("zeros", ZEROS))
    refused(tmp_path, archive, r"more than 200 to 1, as in a decompression bomb", LimitError)
    assert extract(archive, tmp_path / "out", max_ratio=1e6)


def test_bomb_of_overlapping_members(tmp_path: Path) -> None:
    # Twenty names for one compressed body: each is below the ratio, together they are not.
    archive = tmp_path / "a.zip"
    body = bytes(range(256)) * 400 + bytes(400_000)
    zipped(archive, ("m00", body))
    raw = archive.read_bytes()
    central = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    entry = raw[central:end]
    entries = b"".join(entry.replace(b"m00", b"m%02d" % n) for n in range(20))
    tail = bytearray(raw[end:])
    struct.pack_into("<HH", tail, 8, 20, 20)
    struct.pack_into("<I", tail, 12, len(entries))
    archive.write_bytes(raw[:central] + entries + bytes(tail))
    assert len(zipfile.ZipFile(archive).infolist()) == 20
    with pytest.raises(DataError):  # the local name differs, or the ratio of the whole
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ratio_is_that_of_all_members_together(tmp_path: Path) -> None:
    members = [(f"m{n}", bytes(2**18)) for n in range(40)]
    refused(tmp_path, zipped(tmp_path / "a", *members), "more than 200 to 1", LimitError)


def test_header_that_lies_about_its_size(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", ("x", b"0123456789" * 1000))
    raw = archive.read_bytes()
    small = struct.pack("<I", 5)
    big = struct.pack("<I", 10_000)
    assert raw.count(big) == 2
    archive.write_bytes(raw.replace(big, small))
    refused(tmp_path, archive, "or damaged")


def test_cap_on_bytes(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", ("x", b"x" * 600), ("y", b"y" * 600))
    with pytest.raises(LimitError, match="more than 1,000 bytes come out of it"):
        extract(archive, tmp_path / "out", max_bytes=1000)
    assert not (tmp_path / "out").exists()
    assert len(extract(archive, tmp_path / "out", max_bytes=1200)) == 2


def test_cap_on_members(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", *((f"{n}", b"") for n in range(4)))
    with pytest.raises(LimitError, match="more than 3 members"):
        extract(archive, tmp_path / "out", max_members=3)
    assert not (tmp_path / "out").exists()
    assert len(extract(archive, tmp_path / "out", max_members=4)) == 4


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"PK", b"hello" * 200, b"\x1f\x8b", b"BZh9", b"\0" * 100])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path, tmp_path / "a", "not a zip archive that can be read, or damaged")


def test_cut_off(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", *((f"m{n}", str(n**300).encode()) for n in range(40)))
    whole = archive.read_bytes()
    for part in (0.2, 0.5, 0.8):
        archive.write_bytes(whole[: int(len(whole) * part)])
        refused(tmp_path, archive, "or damaged")


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_flipped_byte_gives_files_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    archive = zipped(folder / "a", *FILES.items())
    raw = bytearray(archive.read_bytes())
    raw[place % len(raw)] ^= flip
    archive.write_bytes(raw)
    try:
        extract(archive, folder / "out")
        expected = ["a", "out"]
    except DataError:
        expected = ["a"]
    assert sorted(p.name for p in folder.iterdir()) == expected
