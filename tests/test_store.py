"""The store: what is written comes back, damage is seen first, commits are whole or absent."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from retrievekit.corpus import Corpus, Document
from retrievekit.errors import (
    CorruptIndexError,
    DataError,
    DuplicateIdError,
    FormatVersionError,
    IndexExistsError,
    LockedError,
    StoreError,
)
from retrievekit.index import writer as writer_module
from retrievekit.index.bm25 import BM25Index
from retrievekit.index.documents import DocumentWriter, document_hash
from retrievekit.index.opening import open_index
from retrievekit.store import manifest, segment
from retrievekit.store import verify as verify_module
from retrievekit.store.commit import Transaction
from retrievekit.store.files import BLOCK, READ_WHOLE, Files, Lock, Writer, crc32c, map_file
from retrievekit.store.manifest import CURRENT, Manifest, current_bytes, read_manifest
from retrievekit.store.segment import CheckedArray, SegmentReader, SegmentWriter
from retrievekit.store.verify import verify

DOCUMENTS = [
    Document("d1", "cats purr and sleep", "Cats", {"year": 2020, "lang": "en"}),
    Document("d2", "dogs bark at cats", "", {"year": 2021}),
    Document("d3", "", "Nothing"),
    Document("é4", "Vögel singen 🐦", "Vögel", {"lang": "de"}),
]


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    BM25Index.build(DOCUMENTS, tmp_path / "x.index")
    return tmp_path / "x.index"


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_a_writer_records_what_another_library_computes(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    writer = Writer(tmp_path / "file")
    for start in range(0, size, 300_001):
        writer.write(data[start : start + 300_001])
    record = writer.close()
    assert (tmp_path / "file").read_bytes() == data
    assert record.size == size
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    blocks = [google_crc32c.value(data[i : i + BLOCK]) for i in range(0, size, BLOCK)]
    assert list(record.blocks) == blocks


def test_what_is_stored_comes_back(index: Path) -> None:
    opened = open_index(index)
    assert list(opened.ids) == ["d1", "d2", "d3", "é4"]
    assert opened.corpus is not None
    assert list(opened.corpus) == DOCUMENTS
    assert opened.corpus["é4"] == DOCUMENTS[3]
    assert opened.corpus.contents(np.array([3, 0])) == [
        "Vögel Vögel singen 🐦",
        "Cats cats purr and sleep",
    ]
    assert opened.corpus.content_hash == Corpus.from_documents(DOCUMENTS).content_hash


def test_text_can_be_left_out(tmp_path: Path) -> None:
    opened = BM25Index.build(DOCUMENTS, tmp_path / "x", store_text=False)
    assert opened.corpus is None
    hits = opened.searcher(k=3).search("cats")
    assert hits.doc_ids == ["d1", "d2"]
    assert hits[0].text is None


def test_the_corpus_hash_does_not_depend_on_order(tmp_path: Path) -> None:
    forward = BM25Index.build(DOCUMENTS, tmp_path / "a")
    backward = BM25Index.build(DOCUMENTS[::-1], tmp_path / "b")
    assert forward.fingerprint == backward.fingerprint
    changed = [*DOCUMENTS[:3], Document("é4", "Vögel singen", "Vögel", {"lang": "de"})]
    assert BM25Index.build(changed, tmp_path / "c").fingerprint != forward.fingerprint
    total = sum(document_hash(d.doc_id, d.title, d.text, dict(d.metadata)) for d in DOCUMENTS)
    assert int(forward.manifest.corpus_hash, 16) == total % 2**256
    stored = [row.tobytes() for row in forward.segments[0]["hashes"].all()]
    assert sum(int.from_bytes(share, "little") for share in stored) == total


def test_fields_cannot_run_into_each_other() -> None:
    assert document_hash("a", "bc", "", {}) != document_hash("ab", "c", "", {})


def test_same_corpus_and_settings_give_the_same_manifest(tmp_path: Path) -> None:
    one = BM25Index.build(DOCUMENTS, tmp_path / "a")
    two = BM25Index.build(Corpus.from_documents(DOCUMENTS), tmp_path / "b", block_postings=3)
    assert one.manifest_hash == two.manifest_hash


def test_every_flipped_bit_of_current_is_seen(index: Path) -> None:
    path = index / CURRENT
    good = path.read_bytes()
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(StoreError):
            open_index(index)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(StoreError):
            open_index(index)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\n\n",
        b"retrievekit-index x\na b\n",
        b"retrievekit-index 1\n",
        b"retrievekit-index 1\nab\n",
        b"retrievekit-index 1\n. " + b"0" * 64 + b"\n",
        b"retrievekit-index 1\n../manifest-000001.json " + b"0" * 64 + b"\n",
        b"retrievekit-index 1\n\0 ab\n",
        b"retrievekit-index 2\nwhat comes\nlater\n",
    ],
)
def test_what_is_no_current_is_refused_whatever_its_checksum(index: Path, body: bytes) -> None:
    (index / CURRENT).write_bytes(body + f"crc32c {crc32c(body):08x}\n".encode())
    with pytest.raises(StoreError, match="upgrade" if b" 2" in body else "not an|names no"):
        open_index(index)
    assert len(BM25Index.build(DOCUMENTS, index, overwrite=True)) == len(DOCUMENTS)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"{}", b'{"format":"1"}', b'{"format":1,"kind":"bm25"}', b"[" * 99_999],
)
def test_what_is_no_manifest_is_refused_whatever_its_digest(index: Path, content: bytes) -> None:
    name = next(index.glob("manifest-*.json")).name
    (index / name).write_bytes(content)
    (index / CURRENT).write_bytes(current_bytes(name, content))
    with pytest.raises(CorruptIndexError, match="not a manifest"):
        open_index(index)


def test_every_block_needs_its_checksum(index: Path) -> None:
    live, _ = read_manifest(index)
    content = json.loads(live.to_bytes())
    content["segments"][0]["arrays"]["values"]["crc32c"] = []
    with pytest.raises(CorruptIndexError, match="0 block checksums"):
        Manifest.from_bytes(json.dumps(content).encode(), index)


def test_flipped_bits_of_the_manifest_are_seen(index: Path) -> None:
    path = next(index.glob("manifest-*.json"))
    good = path.read_bytes()
    for bit in random.Random(1).sample(range(len(good) * 8), 200):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(CorruptIndexError, match="manifest"):
            open_index(index)


def use_everything(index: Path) -> object:
    """Open an index and read everything it holds; what comes out shows any wrong byte."""
    opened = BM25Index.open(index)
    assert opened.corpus is not None
    documents = list(opened.corpus)
    hits = [opened.searcher(k=4).search(text) for text in ("cats", "dogs bark", "vögel nothing")]
    parts = opened.searcher(k=4).explain("cats purr", "d1")
    arrays = [array.all().tobytes() for array in opened.segments[0].arrays.values()]
    return documents, hits, parts, arrays


def test_damage_is_seen_before_an_answer_uses_it(index: Path) -> None:
    expected = use_everything(index)
    rng = random.Random(2)
    for path in files_of(index):
        good = path.read_bytes()
        flips = [rng.randrange(len(good) * 8) for _ in range(8)] if good else []
        for bit in flips:
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bad)
            with pytest.raises(StoreError):
                use_everything(index)
            if "segments" in path.parts:
                report = verify(index)
                assert not report.ok
                assert [f.name.split("/")[-1] for f in report.files if not f.ok] == [path.name]
        for length in {0, len(good) // 2, len(good) - 1} - {len(good), -1}:
            path.write_bytes(good[:length])
            with pytest.raises(StoreError):
                use_everything(index)
        path.write_bytes(good + b"\0")
        if path.name != CURRENT:
            with pytest.raises(StoreError):
                use_everything(index)
        path.write_bytes(good)
    assert use_everything(index) == expected
    assert verify(index, deep=True).ok


def test_only_touched_blocks_are_read(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "s", Files())
    writer.put("numbers", np.arange(BLOCK, dtype=np.int32))  # four blocks
    record = writer.finish(0, {})
    path = tmp_path / "s" / "numbers"
    bad = bytearray(path.read_bytes())
    bad[-1] ^= 1
    path.write_bytes(bad)
    array = SegmentReader(tmp_path / "s", record)["numbers"]
    assert array.slice(0, 10).tolist() == list(range(10))
    with pytest.raises(CorruptIndexError, match="block 3"):
        array.slice(BLOCK - 1, BLOCK)


def test_a_file_cut_short_after_it_was_mapped_is_told(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "s", Files())
    writer.put("numbers", np.arange(BLOCK, dtype=np.int32))
    writer.native("cache", bytes(BLOCK))
    record = writer.finish(0, {})
    reader = SegmentReader(tmp_path / "s", record)
    assert reader["numbers"].slice(0, 10).tolist() == list(range(10))
    os.truncate(tmp_path / "s" / "numbers", 4096)
    os.truncate(tmp_path / "s" / "cache", 4096)
    # Touching what is gone would end this process.
    with pytest.raises(CorruptIndexError, match="4096 bytes instead of 4194304"):
        reader["numbers"].slice(BLOCK - 1, BLOCK)
    with pytest.raises(CorruptIndexError, match="4096 bytes instead of 1048576"):
        reader.native("cache")


def test_small_files_are_held_whole(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "s", Files())
    writer.put("numbers", np.arange(READ_WHOLE, dtype=np.uint8))
    record = writer.finish(0, {})
    array = SegmentReader(tmp_path / "s", record)["numbers"]
    os.truncate(tmp_path / "s" / "numbers", 0)
    assert array.all().tolist() == [number % 256 for number in range(READ_WHOLE)]


FEW_DESCRIPTORS = """
import resource, sys
from retrievekit.index.bm25 import BM25Index
from retrievekit.corpus import Document

index = BM25Index.build([Document("first", "cats purr")], sys.argv[1])
with index.writer(merge="never") as writer:
    for number in range(99):
        writer.add([Document(f"d{number}", "cats bark at %d dogs" % number)])
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
opened = BM25Index.open(sys.argv[1])
assert len(opened.segments) == 100
assert len(opened.searcher(k=200).search("cats")) == 100
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 256))
try:
    BM25Index.open(sys.argv[1])
except OSError as why:
    print(why)
"""


def test_many_small_segments_need_few_descriptors(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path / "x")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "oo many open files" in done.stdout


def test_too_many_open_files_are_told(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr("retrievekit.store.files.open", full, raising=False)
    with pytest.raises(StoreError, match="compact the index") as caught:
        map_file(index / CURRENT)
    assert caught.value.errno == errno.EMFILE


def test_a_reader_keeps_its_files_when_they_are_removed(index: Path) -> None:
    opened = BM25Index.open(index)
    for path in files_of(index):
        path.unlink()
    assert opened.searcher(k=3).search("cats").doc_ids == ["d1", "d2"]


@pytest.mark.parametrize(
    ("module", "name"),
    [(manifest, "_parse_current"), (segment, "read_manifest")],
    ids=["before the manifest is read", "before the segments are opened"],
)
def test_opening_while_another_generation_is_committed(
    index: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    real = getattr(module, name)

    def overtaken(*given: object) -> object:
        found = real(*given)
        monkeypatch.setattr(module, name, real)
        BM25Index.build(DOCUMENTS[:1], index, overwrite=True)
        return found

    monkeypatch.setattr(module, name, overtaken)
    assert list(BM25Index.open(index).ids) == ["d1"]


def test_verify_lists_a_missing_file(index: Path) -> None:
    (index / "segments").rename(index / "elsewhere")
    report = verify(index)
    assert all("cannot be read" in file.problem for file in report.files)
    with pytest.raises(CorruptIndexError, match="missing"):
        open_index(index)


def test_a_missing_manifest_says_what_to_do(index: Path) -> None:
    next(index.glob("manifest-*.json")).unlink()
    for work in (verify, open_index):
        with pytest.raises(
            CorruptIndexError, match=r"missing; restore .* or build the index again"
        ):
            work(index)
    (index / CURRENT).unlink()
    with pytest.raises(FormatVersionError, match=r"build it again; .* restore it from a copy"):
        verify(index)


@pytest.mark.parametrize("threads", [1, 2, 9])
def test_threads_find_the_same(index: Path, threads: int) -> None:
    victim = max(index.glob("segments/*/*"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    assert verify(index, deep=True, threads=threads) == verify(index, deep=True)
    assert not verify(index).ok


def test_a_commit_during_verification_is_no_damage(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verify_module.files_of

    def overtaken(live: Manifest) -> object:
        monkeypatch.setattr(verify_module, "files_of", real)
        BM25Index.build(DOCUMENTS[:1], index, overwrite=True)
        return real(live)

    monkeypatch.setattr(verify_module, "files_of", overtaken)
    report = verify(index)
    assert report.ok
    assert report.manifest.documents == 1


def test_deep_verification_needs_the_digest(index: Path) -> None:
    manifest, _ = read_manifest(index)
    content = json.loads(manifest.to_bytes())
    content["segments"][0]["arrays"]["values"]["sha256"] = "0" * 64
    changed = Manifest.from_bytes(json.dumps(content).encode(), index)
    (index / manifest.file_name).write_bytes(changed.to_bytes())
    (index / CURRENT).write_bytes(current_bytes(manifest.file_name, changed.to_bytes()))
    assert verify(index).ok
    report = verify(index, deep=True)
    assert [f.problem for f in report.files if not f.ok] == ["SHA-256 does not fit"]


def test_not_an_index(tmp_path: Path) -> None:
    with pytest.raises(FormatVersionError, match="no such folder"):
        open_index(tmp_path / "nowhere")
    with pytest.raises(FormatVersionError, match="not an index"):
        open_index(tmp_path)
    with pytest.raises(FormatVersionError, match="not an index"):
        verify(tmp_path)


def test_a_newer_format_is_refused(index: Path) -> None:
    manifest, _ = read_manifest(index)
    newer = manifest.to_bytes().replace(b'"format":1', b'"format":2')
    (index / manifest.file_name).write_bytes(newer)
    (index / CURRENT).write_bytes(current_bytes(manifest.file_name, newer))
    with pytest.raises(FormatVersionError, match="upgrade"):
        open_index(index)


def test_an_index_is_not_overwritten_unasked(index: Path) -> None:
    with pytest.raises(IndexExistsError, match="overwrite"):
        BM25Index.build(DOCUMENTS[:1], index)
    old = BM25Index.open(index)
    new = BM25Index.build(DOCUMENTS[:1], index, overwrite=True)
    assert new.manifest.generation == old.manifest.generation + 1
    assert len(BM25Index.open(index)) == 1
    assert old.searcher(k=3).search("cats").doc_ids == ["d1", "d2"]
    assert len(list((index / "segments").iterdir())) == 1
    assert len(list(index.glob("manifest-*"))) == 1


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(IndexExistsError, match=r"letter\.txt"):
        BM25Index.build(DOCUMENTS, tmp_path, overwrite=True)
    assert (tmp_path / "letter.txt").read_text() == "dear"
    with pytest.raises(IndexExistsError, match="is a file"):
        BM25Index.build(DOCUMENTS, tmp_path / "letter.txt")


def test_other_people_s_segments_are_left_alone(tmp_path: Path, index: Path) -> None:
    (tmp_path / "video" / "segments").mkdir(parents=True)
    (tmp_path / "video" / "segments" / "0001.ts").write_text("film")
    with pytest.raises(IndexExistsError, match=r"segments/0001\.ts"):
        BM25Index.build(DOCUMENTS, tmp_path / "video", overwrite=True)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest-site.json").write_text("{}")
    with pytest.raises(IndexExistsError, match=r"manifest-site\.json"):
        BM25Index.build(DOCUMENTS, tmp_path / "web", overwrite=True)
    # Nor is what appears while a build is under way.
    with Transaction(index, overwrite=True) as work:
        (index / "segments" / "letter.txt").write_text("dear")
        live, _ = read_manifest(index)
        content = json.loads(live.to_bytes())
        work.prepare(
            lambda generation: Manifest.from_bytes(
                json.dumps({**content, "generation": generation}).encode(), index
            )
        )
        work.publish()
    assert (index / "segments" / "letter.txt").read_text() == "dear"


class Recorded(Files):
    """Remembers which folders were synced."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync_folder(self, folder: Path) -> None:
        self.synced.append(folder)
        super().sync_folder(folder)


def test_names_of_new_folders_are_made_durable(tmp_path: Path) -> None:
    files = Recorded()
    with Transaction(tmp_path / "new" / "x", files=files):
        pass
    # Without these a loss of power may take the whole index folder, commit and all.
    assert files.synced == [tmp_path, tmp_path / "new", tmp_path / "new" / "x"]


def test_another_writer_may_commit_between_looking_and_locking(tmp_path: Path) -> None:
    class Overtaken(Files):
        def lock(self, folder: Path) -> Lock:
            BM25Index.build(DOCUMENTS, folder)
            return super().lock(folder)

    with pytest.raises(IndexExistsError, match="overwrite"):
        Transaction(tmp_path / "x", files=Overtaken())
    with Lock(tmp_path / "x" / "lock"):
        assert len(BM25Index.open(tmp_path / "x")) == len(DOCUMENTS)


def test_a_commit_stands_although_old_files_cannot_be_removed(
    index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Files.remove

    def stubborn(self: Files, path: Path) -> None:
        if path.name == "000001-00":
            raise PermissionError(13, "not yours", str(path))
        real(self, path)

    monkeypatch.setattr(Files, "remove", stubborn)
    assert len(BM25Index.build(DOCUMENTS[:1], index, overwrite=True)) == 1
    assert "old files could not be removed" in caplog.text
    monkeypatch.undo()
    BM25Index.build(DOCUMENTS, index, overwrite=True)
    assert len(list((index / "segments").iterdir())) == 1


def test_a_build_that_cannot_start_gives_the_lock_back(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(writer_module, "DocumentWriter", full)
    with pytest.raises(OSError, match="disk is full") as caught:
        BM25Index.build(DOCUMENTS, index, overwrite=True)
    monkeypatch.undo()
    assert len(BM25Index.build(DOCUMENTS, index, overwrite=True)) == len(DOCUMENTS)
    assert caught.value.__traceback__ is not None  # which keeps the failed build's frames alive


@pytest.mark.parametrize("values", [(2**60 + 1, 0.5), (["x"], 1)])
def test_metadata_that_no_type_holds_is_refused(tmp_path: Path, values: tuple[Any, Any]) -> None:
    writer = SegmentWriter(tmp_path / "s", Files())
    documents = DocumentWriter(writer, store_text=True)
    for doc_id, value in zip("ab", values, strict=True):
        documents.add(Corpus.from_documents([Document(doc_id, "x", "", {"n": value})]))
    with pytest.raises(DataError, match="do not fit each other"):
        documents.finish()
    writer.abort()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_while_spilling_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tempfile.mkdtemp

    def full(**given: object) -> str:
        folder = real(**given)
        (Path(folder) / "block-00000").symlink_to("/dev/full")
        return folder

    monkeypatch.setattr("tempfile.mkdtemp", full)
    texts = (Document(str(n), f"cat{n}") for n in range(3000))
    with pytest.raises(StoreError, match="the disk is full"):
        BM25Index.build(texts, tmp_path / "x")


def test_a_failing_source_leaves_the_old_index(index: Path) -> None:
    def broken() -> object:
        yield DOCUMENTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        BM25Index.build(broken(), index, overwrite=True)  # type: ignore[arg-type]
    assert len(BM25Index.open(index)) == len(DOCUMENTS)
    with pytest.raises(DuplicateIdError, match="d1"):
        BM25Index.build([DOCUMENTS[0], DOCUMENTS[0]], index, overwrite=True)
    assert len(BM25Index.open(index)) == len(DOCUMENTS)
    # The next build also clears away what the failed ones left.
    BM25Index.build(DOCUMENTS, index, overwrite=True)
    assert len(list((index / "segments").iterdir())) == 1


def test_an_interrupted_first_build_can_be_repeated(tmp_path: Path) -> None:
    def broken() -> object:
        yield DOCUMENTS[0]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        BM25Index.build(broken(), tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(FormatVersionError, match="interrupted"):
        BM25Index.open(tmp_path / "x")
    assert len(BM25Index.build(DOCUMENTS, tmp_path / "x")) == len(DOCUMENTS)


def test_a_damaged_index_can_be_replaced(index: Path) -> None:
    (index / CURRENT).write_bytes(b"rubbish")
    assert len(BM25Index.build(DOCUMENTS, index, overwrite=True)) == len(DOCUMENTS)
    assert BM25Index.open(index).manifest.generation == 2


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        Transaction(tmp_path / "x"),
        pytest.raises(LockedError, match="this process has an update"),
    ):
        Transaction(tmp_path / "x")
    Transaction(tmp_path / "x").__exit__(None, None, None)


def test_a_lock_that_was_given_back_is_free_although_a_child_inherited_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    assert lock._fd is not None
    inherited = os.dup(lock._fd)  # what a fork gives the child: the same open file
    try:
        lock.release()
        with Lock(tmp_path / "lock"):
            pass
    finally:
        os.close(inherited)


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from retrievekit.store.files import Lock\n"
        "Lock(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "lock")], check=False)
    assert done.returncode == -9
    with Lock(tmp_path / "lock"):
        pass


def test_an_index_without_a_path_goes_with_its_object() -> None:
    opened = BM25Index.build(DOCUMENTS)
    folder = opened.path
    assert folder.is_dir()
    del opened
    gc.collect()
    assert not folder.exists()


def test_a_failed_build_without_a_path_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DuplicateIdError):
        BM25Index.build([DOCUMENTS[0], DOCUMENTS[0]])
    assert list(tmp_path.iterdir()) == []


def test_shapes_are_compared_with_sizes(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "s", Files())
    writer.put("numbers", np.arange(6, dtype=np.int32).reshape(3, 2))
    record = writer.finish(0, {}).arrays["numbers"]
    array = CheckedArray(tmp_path / "s" / "numbers", record)
    assert array.all().tolist() == [[0, 1], [2, 3], [4, 5]]
    wrong = type(record)(record.dtype, (3, 3), record.file)
    with pytest.raises(CorruptIndexError, match="need 36 bytes"):
        CheckedArray(tmp_path / "s" / "numbers", wrong)
