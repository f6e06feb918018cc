"""Data sets by name: what is known of them, and where they lie.

Names are those of ir_datasets (``beir/scifact/test``, ``beir/arguana``); ``scifact``,
``BeIR/scifact`` and ``cqadupstack-android`` are understood too. A data set is looked for in the
folders of ``RETRIEVEKIT_DATA`` (several are parted as in ``PATH``), then in the cache,
``<cache>/datasets``; `retrievekit.data.fetch` gets what is in neither. What is known of a data set
stands in ``datasets.yaml`` beside this file; a local folder says the same things of itself in a
``dataset.yaml``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from retrievekit.data.beir import is_beir_folder
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.locations import cache_dir

ARCHIVES = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
"""Where BEIR's official archives are."""

OwnDocument = Literal["none", "equal", "before-underscore"]
"""The rule from a query's id to the id of the document that is the query's own."""

Where = Literal["built in", "local", "cached", "fetchable", "must be placed"]

_BEIR_LICENCE = "CC-BY-SA-4.0 by BEIR's card; the source's own terms apply"


@dataclass(frozen=True)
class SplitCounts:
    """What a split should hold.

    Args:
        queries: Judged queries, or None where no figure is published.
        judgements: Judgements, or None.
    """

    queries: int | None = None
    judgements: int | None = None


@dataclass(frozen=True)
class DatasetProperties:
    """What is known of a data set, once for everybody who uses it.

    Args:
        title: Its name for people.
        licence: Under which terms it may be used, in SPDX's words where there are some.
        sources: Where it comes from.
        fields: The fields that make up a document, joined by one blank.
        documents: How many documents it should have, or None.
        splits: What each split should hold.
        default_split: The split taken when none is named.
        own_document: Which document is a query's own and must not be returned for it: ``"none"``,
            ``"equal"`` (the document of the same id) or ``"before-underscore"`` (the document whose
            id is the part of the query's before its first underscore).
        checksums: SHA-256 of files of the folder, by their path in it.

    Raises:
        DataError: `own_document` is no such rule.
    """

    title: str = ""
    licence: str = ""
    sources: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("title", "text")
    documents: int | None = None
    splits: Mapping[str, SplitCounts] = field(default_factory=dict)
    default_split: str = "test"
    own_document: OwnDocument = "none"
    checksums: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the rule."""
        check_rule(self.own_document)

    def own_documents(self, query_ids: Iterable[str]) -> list[str | None]:
        """The ids of the documents that are the queries' own.

        Args:
            query_ids: Ids of queries.

        Returns:
            One id per query, None where there is none; that such a document exists is not said.
        """
        return own_documents(query_ids, self.own_document)


def check_rule(rule: str) -> None:
    """Raise when a rule for own documents is none of the known ones.

    Args:
        rule: The rule's name.

    Raises:
        DataError: It is unknown.
    """
    if rule not in ("none", "equal", "before-underscore"):
        raise DataError(
            f"own_document is {rule!r}; known are 'none', 'equal' and 'before-underscore'"
        )


def own_documents(query_ids: Iterable[str], rule: OwnDocument) -> list[str | None]:
    """The ids of the documents that are the queries' own.

    Args:
        query_ids: Ids of queries.
        rule: ``"none"``, ``"equal"`` or ``"before-underscore"``.

    Returns:
        One id per query, None where there is none.
    """
    check_rule(rule)
    if rule == "none":
        return [None for _ in query_ids]
    if rule == "equal":
        return list(query_ids)
    parted = (query_id.partition("_") for query_id in query_ids)
    return [before if bar and before else None for before, bar, _ in parted]


_PROPERTY_KEYS = {
    "title": str,
    "licence": str,
    "sources": list,
    "fields": list,
    "documents": int,
    "splits": dict,
    "default_split": str,
    "own_document": str,
    "checksums": dict,
}


def properties_of(record: Any, where: str) -> DatasetProperties:
    """Properties from what a YAML file says.

    Args:
        record: The parsed file.
        where: How messages call it.

    Returns:
        The properties.

    Raises:
        DataError: A key is unknown or a value is of the wrong type; the message names it.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: a mapping of property names to values is expected")
    for key, value in record.items():
        if key not in _PROPERTY_KEYS:
            why = UnknownNameError.among("property", str(key), _PROPERTY_KEYS)
            raise DataError(f"{where}: {why}")
        kind = _PROPERTY_KEYS[key]
        if not isinstance(value, kind) or (kind is int and not _is_count(value)):
            raise DataError(f"{where}: {key} is {value!r}, but should be a {kind.__name__}")
    found = dict(record)
    for key in ("sources", "fields"):
        if key in found:
            if not all(isinstance(item, str) for item in found[key]):
                raise DataError(
                    f"{where}: {key} is {found[key]!r}, but should be a list of strings"
                )
            found[key] = tuple(found[key])
    if "splits" in found:
        found["splits"] = {
            name: _counts(name, counts, where) for name, counts in found["splits"].items()
        }
    for name, digest in found.get("checksums", {}).items():
        if not isinstance(digest, str) or len(digest) != 64:
            raise DataError(
                f"{where}: the checksum of {name} is {digest!r}, but should be a SHA-256"
            )
    try:
        return DatasetProperties(**found)
    except DataError as why:
        raise DataError(f"{where}: {why}") from why


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _counts(name: str, counts: Any, where: str) -> SplitCounts:
    if not isinstance(counts, dict) or not isinstance(name, str):
        raise DataError(f"{where}: split {name!r} should be a mapping with queries and judgements")
    for key, value in counts.items():
        if key not in ("queries", "judgements"):
            why = UnknownNameError.among("count", str(key), ("queries", "judgements"))
            raise DataError(f"{where}: split {name!r}: {why}")
        if not _is_count(value):
            raise DataError(f"{where}: split {name!r}: {key} is {value!r}, but should be a count")
    return SplitCounts(**counts)


def read_properties(path: Path) -> DatasetProperties:
    """Properties from a ``dataset.yaml``.

    Args:
        path: The file.

    Returns:
        The properties.

    Raises:
        DataError: It is no YAML, uses aliases (which can grow without bound), or says something
            unknown or one thing twice.
    """
    raw = path.read_bytes()
    if len(raw) > 2**20:
        raise DataError(f"{path}: larger than 1 MiB, which no description of a data set is")
    try:
        depth = 0
        for event in yaml.parse(raw, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise DataError(f"{path}: YAML aliases (*name) are not read; write the values out")
            if depth > 10:
                raise DataError(f"{path}: nested more deeply than any description of a data set")
        _check_keys(yaml.compose(raw, yaml.SafeLoader), path)
        record = yaml.safe_load(raw)
    except (yaml.YAMLError, RecursionError, ValueError) as why:
        if isinstance(why, DataError):
            raise
        raise DataError(f"{path}: not YAML that can be read ({why})") from why
    return properties_of({} if record is None else record, str(path))


def _check_keys(node: yaml.Node | None, path: Path) -> None:
    """Raise when a mapping names a key twice, of which YAML keeps the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise DataError(f"{path}:{line}: {key.value!r} is given twice; keep one")
            seen.add(str(key.value))
            _check_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, path)


@dataclass(frozen=True)
class Archive:
    """BEIR's official archive of a data set.

    Args:
        name: Its name without ``.zip``, which is also the folder inside.
        size: Its published bytes.
        md5: Its published MD5.
    """

    name: str
    size: int
    md5: str

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{ARCHIVES}/{self.name}.zip"


@dataclass(frozen=True)
class Entry:
    """A data set that is known by name.

    Args:
        name: Its canonical name without a split, also its folder below ``datasets``.
        properties: What is known of it.
        archive: Its official archive, or None.
        hub: Its repository on the hub, or None.
        placing: How to get what nobody may fetch for you; empty for all others.
        aliases: Further names.
    """

    name: str
    properties: DatasetProperties
    archive: Archive | None = None
    hub: str | None = None
    placing: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """The name without ``beir/``."""
        return self.name.removeprefix("beir/")

    def full_name(self, split: str) -> str:
        """The name with its split, which a data set of one split goes without.

        Args:
            split: The split.

        Returns:
            Such as ``beir/scifact/test`` or ``beir/arguana``.
        """
        alone = list(self.properties.splits) == [split]
        return self.name if alone else f"{self.name}/{split}"


@dataclass(frozen=True)
class DatasetInfo:
    """A line of the list of data sets.

    Args:
        name: The canonical name.
        title: The name for people.
        documents: How many documents it has, or None where that is not published.
        queries: Judged queries of the default split, or None.
        splits: Its splits.
        licence: Its terms.
        where: Whether it is built in, local, cached, fetchable or must be placed.
        path: Its folder, where there is one.
    """

    name: str
    title: str
    documents: int | None
    queries: int | None
    splits: tuple[str, ...]
    licence: str
    where: Where
    path: Path | None


@cache
def entries() -> Mapping[str, Entry]:
    """All registered data sets by canonical name."""
    text = resources.files("retrievekit.data").joinpath("datasets.yaml").read_text("utf-8")
    found = {}
    for name, record in yaml.safe_load(text).items():
        archive = record.pop("archive", None)
        more = {
            "archive": None if archive is None else Archive(**archive),
            "hub": record.pop("hub", None),
            "placing": record.pop("placing", ""),
            "aliases": tuple(record.pop("aliases", ())),
        }
        if name.startswith("beir/"):
            record.setdefault("licence", _BEIR_LICENCE)
        found[name] = Entry(name, properties_of(record, f"datasets.yaml: {name}"), **more)
    return found


@cache
def _names() -> Mapping[str, tuple[str, str | None]]:
    """Every spelling, in lower case, with the entry and the split it stands for."""
    found: dict[str, tuple[str, str | None]] = {}
    for entry in entries().values():
        spellings = {entry.name, entry.short, *entry.aliases}
        spellings |= {name.replace("cqadupstack/", "cqadupstack-") for name in spellings}
        for spelling in spellings:
            found[spelling.lower()] = (entry.name, None)
            for split in entry.properties.splits:
                found[f"{spelling}/{split}".lower()] = (entry.name, split)
    return found


def is_registered(name: str) -> bool:
    """Whether a data set is known by this name.

    Args:
        name: Any spelling, with or without a split.

    Returns:
        True when `find` finds it.
    """
    return name.lower().strip("/") in _names()


def find(name: str) -> tuple[Entry, str]:
    """The data set and split that a name stands for.

    Args:
        name: Any spelling, with or without a split.

    Returns:
        The entry and the split (its default when the name has none).

    Raises:
        UnknownNameError: No data set has this name.
    """
    key = name.lower().strip("/")
    if key not in _names():
        if key in ("cqadupstack", "beir/cqadupstack"):
            forums = [n for n in entries() if n.startswith("beir/cqadupstack/")]
            raise UnknownNameError(f"{name} is twelve data sets: {', '.join(forums)}")
        raise UnknownNameError.among(
            "data set",
            name,
            _names(),
            "A folder in the BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv) is given by "
            "its path.",
        )
    known, split = _names()[key]
    entry = entries()[known]
    return entry, split or entry.properties.default_split


def data_folders() -> list[Path]:
    """The folders of ``RETRIEVEKIT_DATA``."""
    given = os.environ.get("RETRIEVEKIT_DATA", "")
    return [Path(part).expanduser() for part in given.split(os.pathsep) if part]


def cached_folder(entry: Entry) -> Path:
    """Where a data set lies in the cache once it was fetched or placed there.

    Args:
        entry: The data set.

    Returns:
        Its folder, which need not exist.
    """
    return cache_dir() / "datasets" / entry.name


def locate(entry: Entry) -> Path | None:
    """The folder of a data set that is there already.

    Args:
        entry: The data set.

    Returns:
        Its folder, or None.
    """
    for root in data_folders():
        for folder in (root / entry.name, root / entry.short, root / "beir" / entry.short):
            if is_beir_folder(folder):
                return folder
    folder = cached_folder(entry)
    return folder if is_beir_folder(folder) else None


def list_datasets() -> list[DatasetInfo]:
    """All registered data sets, with where each is to be had; nothing is fetched."""
    found = []
    for entry in entries().values():
        known = entry.properties
        path = locate(entry)
        where: Where = "fetchable" if entry.archive or entry.hub else "must be placed"
        if entry.name == "stdlib":
            where = "built in"
        elif path is not None:
            where = "cached" if path == cached_folder(entry) else "local"
        counts = known.splits.get(known.default_split, SplitCounts())
        found.append(
            DatasetInfo(
                entry.name,
                known.title,
                known.documents,
                counts.queries,
                tuple(known.splits),
                known.licence,
                where,
                path,
            )
        )
    return found


def placing_instructions(entry: Entry) -> str:
    """What to place where, so that a data set is found without being fetched.

    Args:
        entry: The data set.

    Returns:
        Some sentences.
    """
    splits = ", ".join(f"qrels/{split}.tsv" for split in entry.properties.splits)
    return (
        f"Place corpus.jsonl, queries.jsonl and {splits} (the BEIR layout) in "
        f"{cached_folder(entry)}, or in <folder>/{entry.name} with RETRIEVEKIT_DATA=<folder>; or "
        "give any folder of this layout by its path."
    )
