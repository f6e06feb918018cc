"""Every text encoded once: what is interrupted resumes, and ends as if nothing had happened."""

from __future__ import annotations

import json
import logging
import mmap
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from retrievekit.cli.app import app
from retrievekit.cli.console import rate
from retrievekit.corpus import Corpus, Document
from retrievekit.cuts import report_cuts
from retrievekit.errors import EncoderContractError, IndexExistsError, NonFiniteError
from retrievekit.headway import following, report_headway
from retrievekit.index import dense, documents
from retrievekit.index.dense import DenseIndex
from retrievekit.index.documents import document_chunks
from retrievekit.index.once import MIXED, Once
from retrievekit.protocols import EncoderCard, Similarity
from retrievekit.store.commit import vacuum
from retrievekit.store.files import Files
from retrievekit.store.shards import FOLDER, Shard, ShardFolder
from retrievekit.store.verify import verify
from retrievekit.testing import FaultFS, SimulatedCrash
from retrievekit.testing.crew import Crew, Say
from retrievekit.testing.toys import ToyEncoder

SHARD = 10
DOCUMENTS = [Document(f"d{n}", f"word{n} cat {'dog ' * (n % 7)}".strip()) for n in range(95)]
SHARDS = 10
"""Of 95 documents, ten at a time."""


class Counting(ToyEncoder):
    """A toy that writes down which text begins each call, and may be slow, fail or cut."""

    def __init__(
        self,
        log: Path | None = None,
        *,
        slow: float = 0,
        stop_at: int | None = None,
        why: BaseException | None = None,
        cut: bool = False,
        numerics: str = "float32",
        **identity: Any,
    ) -> None:
        super().__init__(16)
        self.log, self.slow, self.stop_at, self.why, self.cut = log, slow, stop_at, why, cut
        self.numerics, self.identity = numerics, identity
        self.calls: list[str] = []

    @property
    def card(self) -> EncoderCard:
        card = super().card
        return EncoderCard("toy", {**card.identity, **self.identity}, {"dtype": self.numerics})

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(texts[0] if texts else "")
        if self.log is not None:
            with open(self.log, "ab", buffering=0) as file:
                file.write(f"{os.getpid()} {texts[0]}\n".encode())
        for _ in range(5):
            time.sleep(self.slow / 5)
        if len(self.calls) == self.stop_at and self.why is not None:
            raise self.why
        if self.cut:
            report_cuts(
                "toy", "document", 5, sum(len(text.split()) > 5 for text in texts), len(texts)
            )
        return super().encode_document(texts)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "SHARD", SHARD)


@pytest.fixture
def whole(tmp_path: Path) -> str:
    """The manifest hash of a build that nothing interrupted."""
    return DenseIndex.build(DOCUMENTS, Counting(), tmp_path / "whole").manifest_hash


def interrupted(path: Path, at: int, **knobs: Any) -> Counting:
    """A build that stops in its n-th call of the encoder."""
    encoder = Counting(stop_at=at, why=KeyboardInterrupt(), **knobs)
    with pytest.raises(KeyboardInterrupt):
        DenseIndex.build(DOCUMENTS, encoder, path)
    return encoder


# Kills --------------------------------------------------------------------------------------------


def keep_encoding(say: Say, shared: mmap.mmap, case: Any, *, path: str, log: str) -> None:
    """What a worker does until it is killed, or has built the index."""
    dense.SHARD = SHARD
    encoder = Counting(Path(log), slow=0.02)
    say("ready")
    DenseIndex.build(DOCUMENTS, encoder, path)
    say("done")


def sessions(log: Path) -> list[list[str]]:
    """The shards that each process began, in order."""
    found: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        process, _, text = line.partition(" ")
        found.setdefault(process, []).append(text)
    return list(found.values())


def test_a_kill_costs_one_shard_at_most(tmp_path: Path, whole: str, campaign_seed: int) -> None:
    rng = random.Random(f"encode {campaign_seed}")
    work = "tests.test_encode_resume:keep_encoding"
    kills, builds, resumed = 0, 0, 0
    with Crew("dense") as crew:
        while kills < 20:
            builds += 1
            path, log = tmp_path / f"x{builds}", tmp_path / f"log{builds}"
            given = {"path": str(path), "log": str(log)}
            log.touch()
            while not (path / "CURRENT").exists():
                # The whole of it takes more than SHARDS * 0.02 s.
                after = rng.uniform(0, SHARDS * 0.012) if kills < 20 else None
                (heard,) = crew.run([(work, given)], kill_after=after)
                assert heard.signal in (0, 9)
                kills += heard.signal == 9
            vacuum(path)  # a kill may have come between the commit and the clearing away
            index = DenseIndex.open(path, Counting())
            assert index.manifest_hash == whole, f"seed {campaign_seed}, after {kills} kills"
            assert verify(path, deep=True).ok
            assert not (path / FOLDER).exists()
            begun = sessions(log)
            resumed += len(begun) - 1
            for number, mine in enumerate(begun):
                assert len(set(mine)) == len(mine)
                later = {text for other in begun[number + 1 :] for text in other}
                # All but the one that was being encoded are never encoded again.
                assert not later & set(mine[:-1]), f"seed {campaign_seed}"
    assert kills == 20
    assert resumed >= 5, "the kills did not fall into encoding"


# Crashes at every step ----------------------------------------------------------------------------

FEW = DOCUMENTS[:25]
FEW_SHARDS = 3


def build(path: Path, encoder: Counting) -> DenseIndex:
    return DenseIndex.build(FEW, encoder, path)


def add(path: Path, encoder: Counting) -> DenseIndex:
    with DenseIndex.open(path, encoder).writer() as writer:
        writer.upsert(DOCUMENTS[5:30])
    return DenseIndex.open(path, encoder)


@pytest.mark.parametrize("lost", [None, "drop", "zero"])
@pytest.mark.parametrize("work", [build, add])
def test_a_crash_at_any_step_costs_one_shard_at_most(
    work: Callable[[Path, Counting], DenseIndex], lost: Any, tmp_path: Path
) -> None:
    if work is add:
        DenseIndex.build(DOCUMENTS[:8], Counting(), tmp_path / "before")
        shutil.copytree(tmp_path / "before", tmp_path / "after")
    with FaultFS() as system:
        expected = work(tmp_path / "after", Counting()).manifest_hash
    steps = len(system.steps)
    assert any(what == "rename" and name.endswith(".shard") for what, name in system.steps)
    for number in range(1, steps + 1):
        path = tmp_path / f"at-{number}"
        if work is add:
            shutil.copytree(tmp_path / "before", path)
        system = FaultFS(crash_at=number, lost=lost or "drop")
        first, second = Counting(), Counting()
        with pytest.raises(SimulatedCrash), system:
            work(path, first)
        if lost is not None:
            system.power_loss()
        done = (path / "CURRENT").exists() and DenseIndex.open(path, second).manifest_hash
        if done != expected:
            assert work(path, second).manifest_hash == expected, system.steps[-1]
        assert not set(first.calls[:-1]) & set(second.calls), system.steps[-1]
        assert len(set(first.calls + second.calls)) == FEW_SHARDS
        if done != expected:
            assert not (path / FOLDER).exists()
        vacuum(path)
        assert not (path / FOLDER).exists()
        shutil.rmtree(path)


# What is used again, and what is not --------------------------------------------------------------


@pytest.mark.parametrize(
    "why", [KeyboardInterrupt(), SystemExit(1), OSError("gone"), EncoderContractError("no")]
)
def test_what_was_finished_is_used(why: BaseException, tmp_path: Path, whole: str) -> None:
    first, second = Counting(stop_at=4, why=why), Counting()
    with pytest.raises(type(why)):
        DenseIndex.build(DOCUMENTS, first, tmp_path / "x")
    index = DenseIndex.build(iter(DOCUMENTS), second, tmp_path / "x")
    assert index.manifest_hash == whole
    assert len(second.calls) == SHARDS - 3
    assert not (tmp_path / "x" / FOLDER).exists()


@pytest.mark.parametrize(
    "other",
    [
        lambda: Counting(revision=2),
        lambda: Counting(numerics="bfloat16"),
    ],
    ids=["identity", "numerics"],
)
def test_vectors_of_another_encoder_are_not_used(
    other: Callable[[], Counting], tmp_path: Path
) -> None:
    interrupted(tmp_path / "x", 4)
    encoder = other()
    index = DenseIndex.build(DOCUMENTS, encoder, tmp_path / "x")
    assert len(encoder.calls) == SHARDS
    assert index.manifest_hash == DenseIndex.build(DOCUMENTS, other(), tmp_path / "y").manifest_hash
    assert not (tmp_path / "x" / FOLDER).exists()


def test_changed_documents_are_encoded(tmp_path: Path) -> None:
    interrupted(tmp_path / "x", 4)
    changed = [*DOCUMENTS[:15], Document("d15", "another text"), *DOCUMENTS[16:]]
    encoder = Counting()
    index = DenseIndex.build(changed, encoder, tmp_path / "x")
    assert len(encoder.calls) == SHARDS - 2  # of three that are kept one is of other texts
    assert (
        index.manifest_hash == DenseIndex.build(changed, Counting(), tmp_path / "y").manifest_hash
    )


def test_without_resume_nothing_is_used(tmp_path: Path, whole: str) -> None:
    interrupted(tmp_path / "x", 4)
    encoder = Counting(stop_at=2, why=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        DenseIndex.build(DOCUMENTS, encoder, tmp_path / "x", resume=False)
    assert len(list((tmp_path / "x" / FOLDER).iterdir())) == 1  # its own
    again = Counting()
    assert DenseIndex.build(DOCUMENTS, again, tmp_path / "x").manifest_hash == whole
    assert len(again.calls) == SHARDS - 1


@pytest.mark.parametrize("verb", ["add", "upsert"])
def test_updates_resume(verb: str, tmp_path: Path) -> None:
    def update(path: Path, encoder: Counting, **knobs: Any) -> str:
        with DenseIndex.open(path, encoder).writer(**knobs) as writer:
            getattr(writer, verb)(DOCUMENTS[20:60])
            writer.upsert(DOCUMENTS[60:])
        return DenseIndex.open(path, encoder).manifest_hash

    for name in "xy":
        DenseIndex.build(DOCUMENTS[:20], Counting(), tmp_path / name)
    expected = update(tmp_path / "y", Counting())
    with pytest.raises(KeyboardInterrupt):
        update(tmp_path / "x", Counting(stop_at=6, why=KeyboardInterrupt()))
    before = DenseIndex.open(tmp_path / "x", Counting())
    assert len(before) == 20
    assert verify(tmp_path / "x").ok
    # A commit that encodes nothing leaves what it does not use.
    shutil.copytree(tmp_path / "x", tmp_path / "z")
    with DenseIndex.open(tmp_path / "z", Counting()).writer() as writer:
        writer.delete(["d0"])
    assert len(list((tmp_path / "z" / FOLDER).iterdir())) == 5
    assert vacuum(tmp_path / "z") == 1
    assert not (tmp_path / "z" / FOLDER).exists()
    encoder = Counting()
    assert update(tmp_path / "x", encoder) == expected
    assert len(encoder.calls) == 8 - 5
    assert not (tmp_path / "x" / FOLDER).exists()


def test_vectors_that_were_given_are_not_looked_up(tmp_path: Path) -> None:
    # The same texts twice with different vectors: texts alone do not tell them.
    texts = [Document(f"d{n}", "one text") for n in range(40)]
    vectors = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    vectors[25] = np.nan
    with pytest.raises(NonFiniteError, match="'d25'"):
        DenseIndex.from_vectors(texts, vectors, tmp_path / "x", similarity="dot")
    assert not (tmp_path / "x" / FOLDER).exists()
    vectors[25] = 1
    index = DenseIndex.from_vectors(texts, vectors, tmp_path / "x", similarity="dot")
    assert np.array_equal(index.vectors, vectors)


def test_no_documents(tmp_path: Path) -> None:
    assert len(DenseIndex.build([], Counting(), tmp_path / "x")) == 0
    with DenseIndex.open(tmp_path / "x", Counting()).writer() as writer:
        writer.add([])
    assert not (tmp_path / "x" / FOLDER).exists()


def test_an_index_in_memory_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardFolder, "put", lambda *given: pytest.fail("nobody would find it"))
    assert len(DenseIndex.build(DOCUMENTS, Counting())) == 95


# What is told -------------------------------------------------------------------------------------


def test_nan_names_its_document_and_is_not_kept(tmp_path: Path, whole: str) -> None:
    class Broken(Counting):
        def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
            vectors = super().encode_document(texts)
            vectors[[text.startswith("word37 ") for text in texts]] = np.inf
            return vectors

    with pytest.raises(NonFiniteError, match="document 'd37'"):
        DenseIndex.build(DOCUMENTS, Broken(), tmp_path / "x")
    encoder = Counting()
    assert DenseIndex.build(DOCUMENTS, encoder, tmp_path / "x").manifest_hash == whole
    assert encoder.calls[0].startswith("word30 ")


def test_warnings_count_resumed_shards_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = [*DOCUMENTS[:90], Document("blank", " ")]
    caplog.set_level(logging.WARNING)
    DenseIndex.build(stream, Counting(cut=True), tmp_path / "whole")
    expected = caplog.messages.copy()
    cut = sum(len(document.text.split()) > 5 for document in stream)
    assert any(f"{cut} of 91 document texts" in line for line in expected)
    assert any("(blank" in line or "'blank'" in line for line in expected)
    for stop in (1, 5, 9, 10):
        caplog.clear()
        encoder = Counting(stop_at=stop, why=KeyboardInterrupt(), cut=True)
        with pytest.raises(KeyboardInterrupt):
            DenseIndex.build(stream, encoder, tmp_path / f"x{stop}")
        assert caplog.messages == []
        DenseIndex.build(stream, Counting(cut=True), tmp_path / f"x{stop}")
        assert caplog.messages == expected


def test_progress_moves_inside_a_shard(tmp_path: Path) -> None:
    class Telling(Counting):
        def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
            for done in range(5, len(texts) + 1, 5):
                report_headway(done)
            return super().encode_document(texts)

    told: list[tuple[int, int | None]] = []
    DenseIndex.build(
        DOCUMENTS,
        Telling(),
        tmp_path / "x",
        progress=lambda done, total: told.append((done, total)),
    )
    counts = [done for done, _ in told]
    assert counts == sorted(counts)
    assert set(counts) == set(range(5, 96, 5))
    assert {total for _, total in told} == {95}
    heard: list[int] = []
    with following(heard.append):
        report_headway(3)
    report_headway(4)
    assert heard == [3]


# Damage -------------------------------------------------------------------------------------------


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        yield f"bit of byte {place}", bytes(flipped)
    for size in range(0, len(data), 7):
        yield f"cut at {size}", data[:size]
    yield "longer", data + b"\0"
    yield "twice", data + data
    yield "zeros", bytes(len(data))


def test_any_damage_of_a_shard_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ShardFolder(tmp_path / FOLDER, Files())
    key, other = "ab" * 32, "cd" * 32
    arrays = {
        "vectors": np.arange(6, dtype=np.float32).reshape(3, 2),
        "offsets": np.array([0, 2], np.int64),
        "none": np.empty((0, 4), np.uint16),
    }
    assert folder.get(key) is None
    assert len(folder) == 0
    folder.put(key, Shard(arrays, {"cuts": [["m", "document", 5, 1, 2]]}))
    kept = folder.get(key)
    assert kept is not None
    assert kept.notes == {"cuts": [["m", "document", 5, 1, 2]]}
    assert list(kept.arrays) == list(arrays)
    for name, array in arrays.items():
        assert kept.arrays[name].dtype == array.dtype
        assert np.array_equal(kept.arrays[name], array)
    assert caplog.messages == []
    path = tmp_path / FOLDER / f"{key}.shard"
    data = path.read_bytes()
    for what, bad in damaged(data):
        caplog.clear()
        path.write_bytes(bad)
        assert folder.get(key) is None, what
        assert "it is computed again" in caplog.text, what
        assert not path.exists(), what
    # A whole shard under the name of another one.
    path.with_name(f"{other}.shard").write_bytes(data)
    assert folder.get(other) is None
    folder.put(key, Shard(arrays))
    (tmp_path / FOLDER / "notes.txt").write_text("mine")
    assert not folder.clear()
    assert path.exists()


def test_damaged_shards_are_encoded_again(
    tmp_path: Path, whole: str, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tmp_path / "x", 6)
    shards = sorted((tmp_path / "x" / FOLDER).iterdir())
    assert len(shards) == 5
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[3].write_bytes(b"")
    encoder = Counting()
    assert DenseIndex.build(DOCUMENTS, encoder, tmp_path / "x").manifest_hash == whole
    assert len(encoder.calls) == SHARDS - 3
    assert sum("it is computed again" in line for line in caplog.messages) == 2


def test_a_strange_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x" / FOLDER).mkdir(parents=True)
    (tmp_path / "x" / FOLDER / "utf8.py").write_text("")
    with pytest.raises(IndexExistsError, match="utf8"):
        DenseIndex.build(DOCUMENTS, Counting(), tmp_path / "x")
    assert (tmp_path / "x" / FOLDER / "utf8.py").exists()


# The command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "calls"), [("--resume", SHARDS - 3), ("--no-resume", SHARDS)])
def test_the_command_line_resumes_unless_told(
    option: str, calls: int, tmp_path: Path, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"_id": d.doc_id, "text": d.text}) for d in DOCUMENTS]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines))
    interrupted(tmp_path / "x", 4)
    encoder = Counting()
    monkeypatch.setattr("retrievekit.bench.systems.make_encoder", lambda *name: encoder)
    source, path = str(tmp_path / "docs.jsonl"), str(tmp_path / "x")
    runner = CliRunner()
    done = runner.invoke(app, ["index", source, "--encoder", "toy", "-o", path, option])
    assert done.exit_code == 0, done.output
    assert len(encoder.calls) == calls
    assert DenseIndex.open(path, encoder).manifest_hash == whole
    refused = runner.invoke(app, ["index", source, "-o", f"{path}2", "--no-resume"])
    assert refused.exit_code == 2
    assert "--encoder" in refused.stderr


def test_rates_in_words() -> None:
    assert rate(1234.4, "documents") == "1,234 documents/s"
    assert rate(0.52, "documents") == "0.5 documents/s"
    assert rate(10.0, "") == "10/s"


# Parts --------------------------------------------------------------------------------------------


def test_parts_follow_from_the_documents_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "CHUNK_CHARACTERS", 60)
    rng = random.Random(5)
    for size in (1, 3, 8):
        stream = [
            Document(f"d{n}", "ü" * rng.choice([0, 5, 30, 59, 60, 200]), rng.choice(["", "t"]))
            for n in range(50)
        ]
        one, _ = document_chunks(iter(stream), size)
        other, total = document_chunks(Corpus.from_documents(stream), size)
        parts, others = [list(c.ids) for c in one], [list(c.ids) for c in other]
        assert parts == others
        assert total == 50
        assert [i for part in parts for i in part] == [d.doc_id for d in stream]
        assert max(map(len, parts)) <= size
        lengths = {d.doc_id: len(d.text) + len(d.title) for d in stream}
        for part in parts:  # a part ends with the document that fills it
            assert sum(lengths[i] for i in part[:-1]) < 60
    assert [list(c.ids) for c in document_chunks(Corpus.from_texts([]))[0]] == []


def test_a_memory_budget_does_not_change_shards(tmp_path: Path) -> None:
    interrupted(tmp_path / "x", 4)
    encoder = Counting()
    DenseIndex.build(DOCUMENTS, encoder, tmp_path / "x", memory_budget=1 << 30)
    assert len(encoder.calls) == SHARDS - 3


class Batched(Counting):
    """A toy whose last bits hang on its batches."""

    def __init__(self, batch_size: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.run_settings = {"batch_size": batch_size, "device": "cpu"}

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        step = np.float32(1e-7 * self.run_settings["batch_size"])
        return super().encode_document(texts) + step


def test_smaller_batches_keep_what_was_encoded_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = DenseIndex.build(DOCUMENTS, Batched(8), tmp_path / "whole")
    for name in "xyz":
        with pytest.raises(KeyboardInterrupt):
            DenseIndex.build(
                DOCUMENTS, Batched(8, stop_at=4, why=KeyboardInterrupt()), tmp_path / name
            )
    # With the settings of before: byte for byte, and nothing to say.
    same = DenseIndex.build(DOCUMENTS, Batched(8), tmp_path / "x")
    assert same.manifest_hash == whole.manifest_hash
    assert MIXED not in same.segments[0].record.details
    assert not caplog.records
    # With others: the shards are kept, which is said once and noted, through merges too.
    smaller = Batched(4)
    mixed = DenseIndex.build(DOCUMENTS, smaller, tmp_path / "y")
    assert len(smaller.calls) == SHARDS - 3
    (told,) = caplog.messages
    assert "batch_size 8 then and 4 now" in told
    assert "last bits may differ" in told
    noted = [{"batch_size": 4, "device": "cpu"}, {"batch_size": 8, "device": "cpu"}]
    assert mixed.segments[0].record.details[MIXED] == noted
    assert mixed.fingerprint == whole.fingerprint
    assert (mixed.vectors[:30] == whole.vectors[:30]).all()
    assert (mixed.vectors[30:] != whole.vectors[30:]).any()
    with mixed.writer() as writer:
        writer.delete(["d1"])
        writer.compact()
    assert mixed.reopen().segments[0].record.details[MIXED] == noted
    # All again, where that is asked for.
    again = DenseIndex.build(DOCUMENTS, Batched(4), tmp_path / "z", resume=False)
    assert (
        again.manifest_hash
        == DenseIndex.build(DOCUMENTS, Batched(4), tmp_path / "fresh").manifest_hash
    )


def test_arrays_of_any_kind_are_computed_once(tmp_path: Path) -> None:
    # As a sparse index would: several arrays for a list of texts.
    maker = SimpleNamespace(card=EncoderCard("s", {"model": "s"}, {"dtype": "float32"}))
    calls = []

    def compute() -> dict[str, NDArray[Any]]:
        calls.append(1)
        return {"offsets": np.array([0, 1, 1]), "values": np.array([2.5], np.float32)}

    folder = ShardFolder(tmp_path / FOLDER, Files())
    for _ in range(2):
        arrays = Once(maker, folder).arrays(["a", "b"], compute)
        assert arrays["values"].tolist() == [2.5]
    assert len(calls) == 1
    for texts, role in ((["ab", ""], "document"), (["b", "a"], "document"), (["a", "b"], "query")):
        Once(maker, folder, role).arrays(texts, compute)
    assert len(calls) == 4
    assert len(folder) == 4


SIMILARITIES: list[Similarity] = ["dot", "cosine"]


def test_vectors_are_kept_as_the_encoder_gave_them(tmp_path: Path) -> None:
    # Normalising is the index's part, so both similarities take the same shards.
    class Plain(Counting):
        similarity: Similarity = "dot"  # type: ignore[assignment]

        def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return 3 * super().encode_document(texts)

    found = {}
    for similarity in SIMILARITIES:
        encoder = Plain(stop_at=4, why=KeyboardInterrupt())
        encoder.similarity = similarity
        path = tmp_path / similarity
        with pytest.raises(KeyboardInterrupt):
            DenseIndex.build(DOCUMENTS, encoder, path)
        found[similarity] = DenseIndex.build(DOCUMENTS, encoder, path).vectors
    assert np.allclose(np.linalg.norm(found["dot"], axis=1), 3)
    assert np.allclose(np.linalg.norm(found["cosine"], axis=1), 1)
