"""Getting registered data sets that are not there yet.

First from BEIR's official archive, checked against its published size and MD5; where that server
cannot be reached, from the hub through `datasets`. The SHA-256 of what was fetched first is noted
beside the data (``<name>.observed.json``) and must be the same whenever it is fetched again.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrievekit.corpus import Document
from retrievekit.data.archive import extract
from retrievekit.data.beir import is_beir_folder, write_corpus, write_queries
from retrievekit.data.download import download, offline, replacing, sha256_of
from retrievekit.data.registry import Entry, cached_folder, locate, placing_instructions
from retrievekit.errors import DataError, LockedError, MissingDataError
from retrievekit.locations import cache_dir
from retrievekit.protocols import Progress
from retrievekit.queries import Queries
from retrievekit.store.files import Lock

log = logging.getLogger(__name__)


def obtain(entry: Entry, progress: Progress | None = None) -> Path:
    """The folder of a data set, fetched first when it is not there.

    Args:
        entry: The data set.
        progress: Told about the bytes of a download.

    Returns:
        Its folder.

    Raises:
        MissingDataError: It is not there and cannot be fetched: it is licensed elsewhere, the
            network is forbidden or nobody answers. The message says what to place where.
        DataError: What was fetched is not what it should be.
    """
    there = locate(entry)
    if there is not None:
        return there
    advice = placing_instructions(entry)
    if entry.placing:
        raise MissingDataError(
            f"{entry.name} cannot be fetched for you ({entry.properties.licence}). "
            f"{entry.placing}. {advice}"
        )
    if offline():
        source = f" Its archive is {entry.archive.url}." if entry.archive else ""
        raise MissingDataError(
            f"{entry.name} is not here, and HF_HUB_OFFLINE forbids to fetch it. {advice}{source}"
        )
    name = entry.archive.name if entry.archive else entry.short
    datasets = cache_dir() / "datasets"
    datasets.mkdir(parents=True, exist_ok=True)
    reasons = []
    with _alone(datasets / f".{name.replace('/', '-')}.lock"):
        there = locate(entry)  # another process may have fetched it meanwhile
        if there is not None:
            return there
        for fetched_from in (_from_archive, _from_hub):
            try:
                if fetched_from(entry, progress):
                    break
            except MissingDataError as why:
                reasons.append(str(why))
                if fetched_from is _from_archive and entry.hub is not None:
                    log.warning("%s: %s; trying the hub", entry.name, why)
        else:
            raise MissingDataError(
                f"{entry.name} cannot be fetched: {'; '.join(reasons)}. {advice}"
            )
    folder = cached_folder(entry)
    if not is_beir_folder(folder):
        raise DataError(f"{entry.name} was fetched, but {folder} holds no corpus; remove it")
    return folder


def _from_archive(entry: Entry, progress: Progress | None) -> bool:
    archive = entry.archive
    if archive is None:
        return False
    datasets = cache_dir() / "datasets"
    target = datasets / "beir" / archive.name
    notes = target.with_name(f"{archive.name}.observed.json")
    packed = datasets / f".{archive.name}.zip"
    log.info("%s: fetching %s (%s bytes)", entry.name, archive.url, f"{archive.size:,}")
    fetched = download(archive.url, packed, size=archive.size, md5=archive.md5, progress=progress)
    _check_observed(notes, {archive.url: fetched.sha256})
    with _workplace(target) as work:
        extract(packed, work / "unpacked")
        if not (work / "unpacked" / archive.name).is_dir():
            raise DataError(f"{archive.url}: there is no folder {archive.name} in it")
        (work / "unpacked" / archive.name).rename(target)
    packed.unlink()
    return True


def _from_hub(entry: Entry, progress: Progress | None) -> bool:
    if entry.hub is None:
        return False
    target = cached_folder(entry)
    notes = target.with_name(f"{target.name}.observed.json")
    log.info("%s: fetching the hub's %s", entry.name, entry.hub)
    try:
        corpus, queries, judged = _hub_parts(entry.hub, list(entry.properties.splits))
    except Exception as why:  # the client's own errors differ from version to version
        raise MissingDataError(f"the hub's {entry.hub}: {type(why).__name__}: {why}") from why
    with _workplace(target) as work:
        folder = work / target.name
        rows = ((row["_id"], row["text"], row["title"] or "") for row in corpus)
        write_corpus((Document(*row) for row in rows), folder / "corpus.jsonl")
        texts = {row["_id"]: row["text"] for row in queries}
        write_queries(Queries.from_texts(texts), folder / "queries.jsonl")
        (folder / "qrels").mkdir()
        for split, path in judged.items():
            shutil.copyfile(path, folder / "qrels" / f"{split}.tsv")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        prefix = f"hub:{entry.hub}/"
        _check_observed(
            notes, {f"{prefix}{path.relative_to(folder)}": sha256_of(path) for path in files}
        )
        folder.rename(target)
    return True


def _hub_parts(
    repository: str, splits: list[str]
) -> tuple[Iterable[Mapping[str, Any]], Iterable[Mapping[str, Any]], dict[str, Path]]:
    """Rows of corpus and queries, and the judgement files of the splits."""
    import datasets
    from huggingface_hub import hf_hub_download

    corpus = datasets.load_dataset(repository, "corpus", split="corpus")
    queries = datasets.load_dataset(repository, "queries", split="queries")
    judged = {}
    for split in splits:
        # The file itself: a typed reader would turn ids like 007 into numbers.
        name = "validation" if split == "dev" else split
        path = hf_hub_download(f"{repository}-qrels", f"{name}.tsv", repo_type="dataset")
        judged[split] = Path(path)
    return corpus, queries, judged


def _check_observed(notes: Path, observed: Mapping[str, str]) -> None:
    """Compare digests with those noted at the first fetch, and note new ones."""
    known: dict[str, str] = {}
    if notes.is_file():
        try:
            known = json.loads(notes.read_bytes())
        except ValueError as why:
            raise DataError(f"{notes}: not JSON ({why}); remove it to fetch anew") from why
    for source, digest in observed.items():
        if known.get(source, digest) != digest:
            raise DataError(
                f"{source}: its SHA-256 is {digest}, but was {known[source]} when it was first "
                f"fetched; if the change is meant, remove {notes}"
            )
    if not observed.keys() <= known.keys():
        with replacing(notes) as fresh:
            fresh.write_text(json.dumps({**known, **observed}, indent=1, sort_keys=True), "utf-8")


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A folder on the target's disk, removed at the end; the target must not be there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise DataError(f"{target} is there, but holds no corpus; move it away and try again")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        yield Path(work)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever has it."""
    lock = None
    while lock is None:
        try:
            lock = Lock(path)
        except LockedError:
            log.info("%s: waiting for another process that is fetching", path)
            time.sleep(0.5)
    with lock:
        yield
