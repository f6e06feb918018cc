"""`cached`: a stage whose answers are kept on disk, query by query.

An answer is found again by the fingerprint of the stage and the content of what went in: the
query's form, not its id, and for stages that take a `Run` also its hits. A pointwise stage (a
cross-encoder, say) is kept hit by hit, so that a deeper or other list asks the model only about
documents that it has not seen with that query. A document is known by its id and words where the
stage knows its corpus, otherwise by its id and the hash of all ids of the run.

An entry is one file: a line with a SHA-256, then arrays in the safetensors format. It is written
beside its place and renamed, so that processes may share a folder; an entry that does not hash to
its own sum, or is not the one looked for, is told to the log, computed again and replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrievekit.errors import DataError, FingerprintError, StoreError
from retrievekit.ids import Ids
from retrievekit.queries import Form, Queries
from retrievekit.run import Run, concat_queries
from retrievekit.stage import A, B, Stage
from retrievekit.vectors import DenseVectors, SparseVectors, WeightedTerms

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
_MAGIC = b"retrievekit cache 1 "
_DIGEST = 32
_COLUMN = "column:"
_FORM = "form:"


def cached(
    stage: Stage[A, B], folder: str | Path, *, allow_nondeterministic: bool = False
) -> Stage[A, B]:
    """A stage whose answers are kept in a folder and not computed twice.

    The answers, and the fingerprint, are those of the stage itself.

    Args:
        stage: The stage.
        folder: Where answers are kept; made when missing, and shared by any number of stages and
            processes.
        allow_nondeterministic: Keep the first answer of a stage that samples or asks a remote
            service, too.

    Returns:
        The stage with its cache; ``.info()`` counts hits and misses.

    Raises:
        FingerprintError: The stage has no fingerprint, or is not deterministic and that is not
            allowed.
    """
    return Cached(stage, Path(folder), allow_nondeterministic)


@dataclass(frozen=True)
class CacheInfo:
    """What a cache did since it was made.

    Args:
        hits: Answers taken from the folder: one per query, or per hit where the stage is pointwise.
        misses: Answers computed.
        damaged: Entries found damaged, which were computed again.
    """

    hits: int = 0
    misses: int = 0
    damaged: int = 0


class _Counts:
    """Counters that stages share between threads."""

    def __init__(self) -> None:
        self.info = CacheInfo()
        self._lock = threading.Lock()

    def add(self, hits: int = 0, misses: int = 0, damaged: int = 0) -> None:
        with self._lock:
            old = self.info
            self.info = CacheInfo(old.hits + hits, old.misses + misses, old.damaged + damaged)


@dataclass(frozen=True)
class Cached(Stage[A, B]):
    """A stage with its answers on disk; what `cached` builds.

    Args:
        stage: The stage inside.
        folder: Where answers are kept.
        allow_nondeterministic: Whether `stage` may be one that answers otherwise each time.

    Raises:
        FingerprintError: The stage has no fingerprint, or is not deterministic and that is not
            allowed.
    """

    stage: Stage[A, B]
    folder: Path
    allow_nondeterministic: bool = False
    _counts: _Counts = field(default_factory=_Counts, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take the ends of the stage inside, and check that its answers may be kept."""
        object.__setattr__(self, "takes", self.stage.takes)
        object.__setattr__(self, "gives", self.stage.gives)
        object.__setattr__(self, "deterministic", self.stage.deterministic)
        object.__setattr__(self, "pointwise", self.stage.pointwise)
        if not self.stage.deterministic and not self.allow_nondeterministic:
            raise FingerprintError(
                f"{self.stage!r} does not give the same answer twice; to keep its first answer, "
                "say cached(..., allow_nondeterministic=True)"
            )
        if not self.stage.fingerprint:
            raise FingerprintError(f"{self.stage!r} has no fingerprint to keep its answers by")

    def identity(self) -> dict[str, Any]:
        """That of the stage inside: a cache changes no answer."""
        return self.stage.identity()

    @property
    def children(self) -> tuple[Stage[Any, Any], ...]:
        """The stage inside."""
        return (self.stage,)

    @property
    def name(self) -> str:
        """What the trace calls it; the steps of the stage inside are not told one by one."""
        return f"cached {self.stage.name or type(self.stage).__name__}"

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"cached({self.stage!r}, {str(self.folder)!r})"

    def explain_parts(self, batch: A, doc_id: str) -> Mapping[str, float]:
        """What the stage inside tells."""
        return self.stage.explain_parts(batch, doc_id)

    def info(self) -> CacheInfo:
        """Hits, misses and damaged entries since this object was made."""
        return self._counts.info

    def apply(self, batch: A) -> B:
        """Answer from the folder, and compute and keep what is not there."""
        # Columns that came in may have changed since they were kept; then the whole row counts.
        by_hit = self.pointwise and self.gives is Run and isinstance(batch, Run)
        given: Any = batch
        out: Any
        if by_hit and not given.columns:
            out = self._by_hit(given)
        else:
            out = self._by_query(given)
        return cast(B, out)

    # Query by query

    def _by_query(self, batch: Queries | Run) -> Queries | Run:
        keys = [_query_key(batch, row) for row in range(len(batch))]
        found = [self._read(key) for key in keys]
        missing = np.array([row for row, entry in enumerate(found) if entry is None], np.int64)
        self._counts.add(hits=len(keys) - len(missing), misses=len(missing))
        if not len(missing) and keys:
            return _answer_of(
                batch, [entry for entry in found if entry is not None], self.gives is Run
            )
        fresh: Queries | Run = self._computed(batch.take(missing))
        for place, row in enumerate(missing.tolist()):
            found[row] = self._keep(keys[row], batch, row, fresh, place)
        entries = [entry for entry in found if entry is not None]
        if len(missing) == len(keys):
            return fresh
        if len(entries) < len(keys):  # an answer that cannot be put together again
            return cast("Queries | Run", self._computed(batch))
        return _answer_of(batch, entries, self.gives is Run)

    def _keep(
        self, key: str, batch: Queries | Run, row: int, out: Queries | Run, place: int
    ) -> Arrays | None:
        """Write the answer to one query; None when it could not be put together again."""
        entry = _entry_of(batch, row, out, place)
        again = _answered(_queries_of(batch).take(np.array([row])), [entry])
        if again.content(0) != _queries_of(out).content(place):
            log.warning(
                "%r: its answers are not kept, since its queries forget the ones they came from "
                "(see Queries.rewritten)",
                self.stage,
            )
            return None
        self._write(key, entry)
        return entry

    def _computed(self, batch: Any) -> Any:
        """The stage's own answer, without the steps it noted: the cache is one step."""
        return replace(cast(Any, self.stage(batch)), trace=batch.trace)

    # Hit by hit

    def _by_hit(self, batch: Run) -> Run:
        if not batch.n_hits:
            return cast(Run, self._computed(batch))
        digests = self._documents(batch)
        keys = [_pointwise_key(batch.queries, row) for row in range(len(batch))]
        hits = [range(a, b) for a, b in itertools.pairwise(batch.offsets.tolist())]
        entries: list[Arrays] = [
            (self._read(key) or {}) if own else {} for key, own in zip(keys, hits, strict=True)
        ]
        places = [_places(entry) for entry in entries]
        asked = np.array(
            [digests[hit] not in places[row] for row, own in enumerate(hits) for hit in own]
        )
        self._counts.add(hits=int((~asked).sum()), misses=int(asked.sum()))
        if asked.any():
            part = batch.keep(asked)
            fresh = self._computed(part)
            self._check_answers(part, fresh)
            for row, own in enumerate(hits):
                documents = [digests[hit] for hit in own if asked[hit]]
                if documents:
                    new = _hit_entry(part, fresh, row, documents)
                    entries[row] = _joined(entries[row], new)
                    places[row] = _places(entries[row])
                    self._write(keys[row], entries[row])
        picked = [
            {name: values[[places[row][digests[hit]] for hit in own]] for name, values in e.items()}
            for row, (e, own) in enumerate(zip(entries, hits, strict=True))
            if own
        ]
        whole = {name: np.concatenate([part[name] for part in picked]) for name in picked[0]}
        kept = whole["kept"]
        shorter = batch.keep(kept)
        columns = {
            name.removeprefix(_COLUMN): values[kept]
            for name, values in whole.items()
            if name.startswith(_COLUMN)
        }
        return Run.from_arrays(
            batch.queries,
            batch.docs,
            shorter.offsets,
            shorter.rows,
            whole["scores"][kept],
            columns,
            batch.trace,
        )

    def _documents(self, batch: Run) -> list[bytes]:
        """What each hit's document is known by."""
        rows, back = np.unique(batch.rows, return_inverse=True)
        ids = batch.docs.strings(rows)
        corpus = self.stage.corpus
        if corpus is None:
            where = batch.docs.content_hash
            words = [json.dumps([doc_id, where]) for doc_id in ids]
        else:
            words = []
            for doc_id, place in zip(ids, corpus.ids.rows(ids).tolist(), strict=True):
                content: Any = None
                if place >= 0:
                    document = corpus.document(place)
                    content = [document.title, document.text, dict(document.metadata)]
                words.append(json.dumps([doc_id, content], sort_keys=True, default=repr))
        digests = [hashlib.sha256(text.encode("utf-8")).digest() for text in words]
        return [digests[place] for place in back.tolist()]

    def _check_answers(self, part: Run, fresh: Run) -> None:
        """A pointwise stage may drop hits, but give none that it was not asked about."""
        asked = set(zip(_query_of(part), part.docs.strings(part.rows), strict=True))
        for row, doc_id in zip(_query_of(fresh), fresh.docs.strings(fresh.rows), strict=True):
            if (row, doc_id) not in asked:
                raise DataError(
                    f"{self.stage!r} says that it is pointwise, but for query "
                    f"{part.queries.ids[row]!r} it gave {doc_id!r}, which it was not asked about"
                )

    # Files

    def _path(self, key: str) -> Path:
        own = hashlib.sha256(f"{self.stage.fingerprint}\0{key}".encode()).hexdigest()
        return self.folder / self.stage.fingerprint[:16] / own[:2] / f"{own}.entry"

    def _read(self, key: str) -> Arrays | None:
        path = self._path(key)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as why:
            raise StoreError(f"{path}: this cache entry could not be read: {why}") from why
        arrays = _unpacked(data, f"{self.stage.fingerprint}\0{key}")
        if arrays is None:
            log.warning("%s: this cache entry is damaged; it is computed again", path)
            self._counts.add(damaged=1)
        return arrays

    def _write(self, key: str, arrays: Arrays) -> None:
        path = self._path(key)
        data = _packed(arrays, f"{self.stage.fingerprint}\0{key}")
        fresh = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(data)
            fresh.replace(path)
        except OSError as why:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise StoreError(
                f"{path}: the answer could not be kept: {why}; give cached() a folder that can be "
                "written"
            ) from why


def _queries_of(batch: Queries | Run) -> Queries:
    return batch if isinstance(batch, Queries) else batch.queries


def _query_key(batch: Queries | Run, row: int) -> str:
    digest = hashlib.sha256()
    if isinstance(batch, Queries):
        digest.update(b"queries\0" + batch.content(row))
        return digest.hexdigest()
    digest.update(b"run\0" + hashlib.sha256(batch.queries.content(row)).digest())
    part = slice(int(batch.offsets[row]), int(batch.offsets[row + 1]))
    for doc_id in batch.docs.strings(batch.rows[part]):
        digest.update(hashlib.sha256(doc_id.encode("utf-8")).digest())
    digest.update(batch.scores[part].tobytes())
    for name in sorted(batch.columns):
        values = _plain(name, batch.columns[name][part])
        digest.update(f"\0{name}\0{values.dtype}\0".encode() + values.tobytes())
    return digest.hexdigest()


def _pointwise_key(queries: Queries, row: int) -> str:
    return hashlib.sha256(b"hits\0" + queries.content(row)).hexdigest()


def _plain(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """A column as it can be written down."""
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise DataError(
            f"the column {name!r} has dtype {values.dtype}; a cache keeps numbers and booleans only"
        )
    return np.ascontiguousarray(values)


def _query_of(run: Run) -> list[int]:
    """The query row of each hit."""
    rows: list[int] = np.repeat(np.arange(len(run)), np.diff(run.offsets)).tolist()
    return rows


# What a pointwise stage said of one query's hits, as arrays of one length: documents, kept, scores


def _hit_entry(part: Run, fresh: Run, row: int, documents: Sequence[bytes]) -> Arrays:
    """The answers to the hits of one query, in the order of the hits; zeros for those dropped."""
    own = slice(int(fresh.offsets[row]), int(fresh.offsets[row + 1]))
    place_of = {
        doc_id: n for n, doc_id in enumerate(fresh.docs.strings(fresh.rows[own]), own.start)
    }
    ids = part.docs.strings(part.rows[int(part.offsets[row]) : int(part.offsets[row + 1])])
    kept = np.array([doc_id in place_of for doc_id in ids])
    places = np.array([place_of[doc_id] for doc_id in ids if doc_id in place_of], np.int64)
    raw = np.frombuffer(b"".join(documents), np.uint8).reshape(-1, _DIGEST)
    entry: Arrays = {"documents": raw, "kept": kept}
    answers = {"scores": fresh.scores}
    answers.update({f"{_COLUMN}{n}": _plain(n, values) for n, values in fresh.columns.items()})
    for name, values in answers.items():
        entry[name] = np.zeros(len(ids), values.dtype)
        entry[name][kept] = values[places]
    return entry


def _joined(old: Arrays, new: Arrays) -> Arrays:
    if not old:
        return new
    if set(old) != set(new):
        raise DataError(
            f"a stage gave the columns {sorted(set(new))} now and {sorted(set(old))} before, under "
            "one fingerprint; change its version, or empty the cache's folder"
        )
    return {name: np.concatenate([old[name], new[name]]) for name in new}


def _places(entry: Arrays) -> dict[bytes, int]:
    """Where each document stands in an entry."""
    if not entry:
        return {}
    data = entry["documents"].tobytes()
    return {data[i : i + _DIGEST]: i // _DIGEST for i in range(0, len(data), _DIGEST)}


# One query's answer as arrays


def _entry_of(batch: Queries | Run, row: int, out: Queries | Run, place: int) -> Arrays:
    """The answer to one query: hits where there are any, and the query's form where it changed."""
    before, after = _queries_of(batch), _queries_of(out)
    arrays: Arrays = {}
    if after.content(place) != before.content(row):
        arrays.update(_form_arrays(after, place))
    if isinstance(out, Run):
        part = slice(int(out.offsets[place]), int(out.offsets[place + 1]))
        ids = [doc_id.encode("utf-8") for doc_id in out.docs.strings(out.rows[part])]
        arrays["ids"] = _bytes(b"".join(ids))
        arrays["lengths"] = np.array([len(i) for i in ids], np.int32)
        arrays["scores"] = out.scores[part]
        for name, values in out.columns.items():
            arrays[f"{_COLUMN}{name}"] = _plain(name, values[part])
    return arrays


def _form_arrays(queries: Queries, row: int) -> Arrays:
    form = queries.form
    if form is None:
        return {f"{_FORM}none": np.zeros(0, np.uint8)}
    if isinstance(form, DenseVectors):
        return {f"{_FORM}dense": form.array[row], f"{_FORM}encoder": _text(form.encoder)}
    if isinstance(form, SparseVectors):
        part = slice(int(form.offsets[row]), int(form.offsets[row + 1]))
        return {
            f"{_FORM}columns": form.columns[part],
            f"{_FORM}values": form.values[part],
            f"{_FORM}size": np.array([form.size], np.int64),
            f"{_FORM}encoder": _text(form.encoder),
        }
    if isinstance(form, WeightedTerms):
        weights = form.row(row)
        terms = [term.encode("utf-8") for term in weights]
        return {
            f"{_FORM}terms": _bytes(b"".join(terms)),
            f"{_FORM}lengths": np.array([len(term) for term in terms], np.int32),
            f"{_FORM}weights": np.array(list(weights.values()), np.float32),
        }
    return {f"{_FORM}text": _text(form[row].as_py())}


def _form_from(arrays: Arrays) -> Form:
    if f"{_FORM}dense" in arrays:
        return DenseVectors(arrays[f"{_FORM}dense"][None, :], _from_text(arrays[f"{_FORM}encoder"]))
    if f"{_FORM}columns" in arrays:
        columns, values = arrays[f"{_FORM}columns"], arrays[f"{_FORM}values"]
        size = int(arrays[f"{_FORM}size"][0])
        offsets = np.array([0, len(columns)], np.int64)
        return SparseVectors(offsets, columns, values, size, _from_text(arrays[f"{_FORM}encoder"]))
    if f"{_FORM}terms" in arrays:
        terms = _split(arrays[f"{_FORM}terms"], arrays[f"{_FORM}lengths"])
        row = dict(zip(terms, arrays[f"{_FORM}weights"].tolist(), strict=True))
        return WeightedTerms.from_dicts([row])
    if f"{_FORM}text" in arrays:
        return pa.array([_from_text(arrays[f"{_FORM}text"])], type=pa.large_string())
    return None


def _answered(before: Queries, entries: Sequence[Arrays]) -> Queries:
    """The queries as the stage left them."""
    changed = [any(name.startswith(_FORM) for name in entry) for entry in entries]
    if not any(changed):
        return before
    forms = []
    for row, entry in enumerate(entries):
        own = before.take(np.array([row]))
        forms.append(own.rewritten(_form_from(entry)) if changed[row] else own)
    return before.rewritten(concat_queries(forms).form)


def _answer_of(batch: Queries | Run, entries: Sequence[Arrays], hits: bool) -> Queries | Run:
    """The answers to all queries, put together."""
    queries = _answered(_queries_of(batch), entries)
    if not hits:
        return Queries(queries.ids, queries.form, queries.origin, batch.trace)
    ids = [_split(entry["ids"], entry["lengths"]) for entry in entries]
    docs = Ids.from_strings(dict.fromkeys(i for part in ids for i in part), what="document id")
    offsets = np.zeros(len(entries) + 1, np.int64)
    np.cumsum([len(part) for part in ids], out=offsets[1:])
    names = set.intersection(
        *({name for name in entry if name.startswith(_COLUMN)} for entry in entries)
    )
    return Run(
        queries,
        docs,
        offsets,
        docs.rows(i for part in ids for i in part),
        np.concatenate([entry["scores"] for entry in entries]),
        {n.removeprefix(_COLUMN): np.concatenate([e[n] for e in entries]) for n in sorted(names)},
        batch.trace,
    )


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _text(value: str | None) -> NDArray[np.uint8]:
    """A text or None, told apart by the first byte."""
    return _bytes(b"" if value is None else b"=" + value.encode("utf-8"))


def _from_text(data: NDArray[np.uint8]) -> str | None:
    raw = data.tobytes()
    return raw[1:].decode("utf-8") if raw else None


def _split(data: NDArray[np.uint8], lengths: NDArray[np.int32]) -> list[str]:
    raw = data.tobytes()
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return [raw[a:b].decode("utf-8") for a, b in zip(starts, ends, strict=False)]


def _packed(arrays: Arrays, key: str) -> bytes:
    from safetensors.numpy import save

    payload = save({**{n: np.ascontiguousarray(a) for n, a in arrays.items()}, "key": _text(key)})
    return _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def _unpacked(data: bytes, key: str) -> Arrays | None:
    """The arrays of an entry, or None when it is damaged or is another one."""
    from safetensors.numpy import load

    head, payload = data[: len(_MAGIC) + 65], data[len(_MAGIC) + 65 :]
    if head != _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n":
        return None
    arrays: Arrays = load(payload)
    if _from_text(arrays.pop("key")) != key:
        return None
    return arrays
