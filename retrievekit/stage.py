"""`Stage`: the four arrows between `Queries` and `Run`, composed by ``>>``.

A stage is a frozen value: its parameters are dataclass fields, models load on first use, and
calling it runs it at once. Its fingerprint is a hash over class, version, parameters and children;
equal fingerprints mean equal answers. Fields made with `knob` (device, batch size, progress) do not
change answers and stay outside.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

import numpy as np

from retrievekit.errors import CompositionError, FingerprintError, FormError
from retrievekit.queries import Queries
from retrievekit.run import Hits, Run, concat, concat_queries
from retrievekit.trace import Step, counting

A = TypeVar("A", Queries, Run)
B = TypeVar("B", Queries, Run)
C = TypeVar("C", Queries, Run)


def knob(default: Any) -> Any:
    """A dataclass field that does not change answers and stays outside the fingerprint.

    Args:
        default: The field's default value.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"knob": True}, kw_only=True, repr=False)


def canonical(value: Any, where: str) -> Any:
    """A parameter as plain JSON, or an error.

    Args:
        value: None, bool, int, finite float, str, enum-free containers of those, or anything with a
            string `fingerprint`.
        where: How the error names the parameter.

    Returns:
        The JSON value.

    Raises:
        FingerprintError: The value's content cannot be written down.
    """
    fingerprint = getattr(value, "fingerprint", None)
    if isinstance(fingerprint, str):
        return {"fingerprint": fingerprint}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)) and np.isfinite(value):
        return float(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (list, tuple)):
        return [canonical(item, where) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: canonical(item, where) for key, item in value.items()}
    raise FingerprintError(
        f"{where} is {value!r} ({type(value).__name__}), whose content cannot be written down; "
        "use plain values, or give the object a string attribute 'fingerprint'"
    )


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON (sorted keys, no blanks), as hexadecimal."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class Stage(ABC, Generic[A, B]):
    """One arrow: takes a batch of `Queries` or a `Run`, gives one of the two.

    Subclasses are frozen dataclasses, set `takes` and `gives`, and write `apply`.

    Attributes:
        takes: The noun that goes in.
        gives: The noun that comes out.
        version: Bumped by hand whenever the same parameters would give other answers.
        pointwise: Whether a hit's score depends on its query and document alone.
        deterministic: Whether the same batch gives the same answer again.
    """

    takes: type[A]
    gives: type[B]
    version: ClassVar[str] = "1"
    pointwise: ClassVar[bool] = False
    deterministic: bool = True

    @abstractmethod
    def apply(self, batch: A) -> B:
        """Do the work on a batch of the right type.

        Args:
            batch: What goes in.

        Returns:
            What comes out, its trace being that of `batch`; `__call__` adds this stage's own step.
        """

    def __call__(self, batch: A, /) -> B:
        """Run the stage on a batch, note the time in the trace, and return the answer.

        Raises:
            FormError: The batch is not of the type that this stage takes.
        """
        self.check_takes(batch)
        start = time.perf_counter()
        with counting() as counts:
            out = self.apply(batch)
        return self._noted(batch, out, time.perf_counter() - start, counts)

    def check_takes(self, batch: Any) -> None:
        """Raise unless the batch is what this stage takes.

        Args:
            batch: What was given.

        Raises:
            FormError: It is of another type.
        """
        if not isinstance(batch, self.takes):
            raise FormError(
                f"{self!r} takes {self.takes.__name__}, but was given {_described(batch)}"
            )

    def _noted(
        self, batch: A, out: B, seconds: float, counts: Mapping[str, int] | None = None
    ) -> B:
        n_hits = out.n_hits if isinstance(out, Run) else 0
        # Feedback gives queries: it looks at hits and drops none.
        before = batch.n_hits if isinstance(batch, Run) and isinstance(out, Run) else n_hits
        name = type(self).__name__ if not self.name else self.name
        step = Step(
            name,
            self._traced,
            seconds,
            len(out),
            n_hits,
            dropped=max(0, before - n_hits),
            counts=tuple(sorted((counts or {}).items())),
        )
        # A function that builds its answer from parts of the batch need not think of the trace.
        told: tuple[Step, ...] = out.trace
        if told[: len(batch.trace)] != batch.trace:
            told = batch.trace
        return dataclasses.replace(out, trace=(*told, step))

    @property
    def name(self) -> str:
        """What the trace and tables call the stage."""
        return ""

    @cached_property
    def _traced(self) -> str:
        try:
            return self.fingerprint
        except FingerprintError:
            return ""

    def identity(self) -> dict[str, Any]:
        """What the fingerprint is a hash of: class, version and parameters as plain JSON.

        Raises:
            FingerprintError: A parameter has no stable content, or the class is no dataclass.
        """
        if not dataclasses.is_dataclass(self):
            raise FingerprintError(
                f"{type(self).__name__} is no dataclass: override identity() to say what its "
                "answers depend on"
            )
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        parameters = {
            field.name: canonical(getattr(self, field.name), f"{kind}.{field.name}")
            for field in dataclasses.fields(self)
            if not field.metadata.get("knob")
        }
        return {"class": kind, "version": self.version, "parameters": parameters}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over `identity`: equal fingerprint, equal answers."""
        return fingerprint_of(self.identity())

    @property
    def children(self) -> tuple[Stage[Any, Any], ...]:
        """The stages inside this one."""
        return ()

    def __rshift__(self, after: Stage[B, C]) -> Stage[A, C]:
        """This stage followed by another.

        Raises:
            CompositionError: What this stage gives is not what the next one takes.
        """
        if not isinstance(after, Stage):
            return NotImplemented
        if after.takes is not self.gives:
            raise CompositionError(
                f"cannot compose {self!r} >> {after!r}: the left gives {self.gives.__name__}, "
                f"the right takes {after.takes.__name__}"
                + _composition_hint(self.gives, after.takes)
            )
        left: tuple[Stage[Any, Any], ...] = self.stages if isinstance(self, Then) else (self,)
        right: tuple[Stage[Any, Any], ...] = after.stages if isinstance(after, Then) else (after,)
        return cast("Stage[A, C]", Then((*left, *right)))

    def search(self: Stage[Queries, Run], text: str) -> Hits:
        """The ranking for one query text.

        Args:
            text: The query.

        Returns:
            The hits, best first, with their words where the stage knows its corpus.

        Raises:
            FormError: The stage does not lead from `Queries` to a `Run`.
        """
        if self.takes is not Queries or self.gives is not Run:
            raise FormError(f"{self!r} does not lead from queries to a run, so it cannot search")
        run = self(Queries.from_texts({"1": text}))
        return run.hits(0, self.corpus)

    @property
    def corpus(self) -> Any:
        """Where the words of the documents are, or None when the stage does not know."""
        for child in reversed(self.children):
            if child.corpus is not None:
                return child.corpus
        return None

    def explain(self: Stage[Queries, Run], text: str, doc_id: str) -> list[dict[str, Any]]:
        """Score and rank of one document after each step of the pipeline for one query.

        Args:
            text: The query.
            doc_id: The document.

        Returns:
            One mapping per step that gives a run: ``step``, ``rank``, ``score`` (both None where
            the document is not among the hits), and ``parts`` where the stage can tell more; and
            one for each feedback between them, whose ``parts`` say what moved the query.
        """
        out: list[dict[str, Any]] = []
        batch: Any = Queries.from_texts({"1": text})
        for stage in self.stages if isinstance(self, Then) else (self,):
            parts = stage.explain_parts(batch, doc_id)
            batch = stage(batch)
            if not isinstance(batch, Run):
                if parts:
                    out.append({"step": repr(stage), "rank": None, "score": None, "parts": parts})
                continue
            row = batch.docs.find(doc_id)
            place = np.flatnonzero(batch.rows == row)
            found = len(place) > 0
            out.append(
                {
                    "step": repr(stage),
                    "rank": int(place[0]) + 1 if found else None,
                    "score": float(batch.scores[place[0]]) if found else None,
                    "parts": parts,
                }
            )
        return out

    def explain_parts(self, batch: A, doc_id: str) -> Mapping[str, float]:
        """What a document's score is made of, such as terms; empty where the stage cannot tell.

        Args:
            batch: A batch of one query.
            doc_id: The document.

        Returns:
            Named parts of the score.
        """
        return {}


def _described(batch: Any) -> str:
    return repr(batch) if isinstance(batch, (Queries, Run)) else type(batch).__name__


def _composition_hint(gives: type, takes: type) -> str:
    if gives is Run and takes is Queries:
        return "; put a feedback stage (such as rm3 or rocchio) between two searches"
    return "; put a searcher before it"


QUERIES_AT_A_TIME = 1024
"""Queries that go through a whole pipeline at a time, so that memory is bounded."""


@dataclass(frozen=True)
class Then(Stage[A, C]):
    """Stages one after another; what ``>>`` builds.

    Large batches pass through all stages in parts of `queries_at_a_time` queries, which is legal
    since no answer depends on a query's companions, and bounds the memory of what stands between
    stages.

    Args:
        stages: At least two stages whose ends meet.
        queries_at_a_time: Queries per part.
    """

    stages: tuple[Stage[Any, Any], ...]
    queries_at_a_time: int = knob(QUERIES_AT_A_TIME)

    def __post_init__(self) -> None:
        """Take the ends from the first and last stage."""
        object.__setattr__(self, "takes", self.stages[0].takes)
        object.__setattr__(self, "gives", self.stages[-1].gives)
        object.__setattr__(self, "deterministic", all(s.deterministic for s in self.stages))

    def __call__(self, batch: A, /) -> C:
        """Run all stages; each notes its own step.

        Raises:
            FormError: The batch is not of the type that the first stage takes.
        """
        self.check_takes(batch)
        return self.apply(batch)

    def apply(self, batch: A) -> C:
        """Run all stages on parts of the batch and join the answers."""
        before: tuple[Step, ...] = batch.trace
        # What happened before is told once, not once per part.
        batch = dataclasses.replace(batch, trace=())
        parts: list[Any] = []
        for part in batch.batches(self.queries_at_a_time) if len(batch) else [batch]:
            state: Any = part
            for stage in self.stages:
                state = stage(state)
            parts.append(state)
        joined: Any = concat(parts) if self.gives is Run else concat_queries(parts)
        return cast(C, dataclasses.replace(joined, trace=(*before, *joined.trace)))

    @property
    def children(self) -> tuple[Stage[Any, Any], ...]:
        """The stages in order."""
        return self.stages

    def __repr__(self) -> str:
        """The stages joined by ``>>``."""
        return " >> ".join(repr(stage) for stage in self.stages)


@dataclass(frozen=True)
class FunctionStage(Stage[A, B]):
    """A plain function as a stage; what `stage` builds.

    Args:
        function: Takes one noun, gives the other (or the same).
        label: Its name in traces and the fingerprint.
        label_version: Its version in the fingerprint.
        takes_: The noun that goes in.
        gives_: The noun that comes out.
        deterministic: Whether the same batch gives the same answer again.
    """

    function: Callable[[A], B] = dataclasses.field(repr=False, metadata={"knob": True})
    label: str
    label_version: str
    takes_: type[A] = dataclasses.field(repr=False, metadata={"knob": True})
    gives_: type[B] = dataclasses.field(repr=False, metadata={"knob": True})
    deterministic: bool = dataclasses.field(default=True, repr=False, metadata={"knob": True})

    def __post_init__(self) -> None:
        """Set the ends."""
        object.__setattr__(self, "takes", self.takes_)
        object.__setattr__(self, "gives", self.gives_)

    def apply(self, batch: A) -> B:
        """Call the function.

        Raises:
            FormError: It returned something else than it promised.
        """
        out = self.function(batch)
        if not isinstance(out, self.gives_):
            raise FormError(
                f"{self!r} promised {self.gives_.__name__}, but returned {type(out).__name__}"
            )
        return out

    def __repr__(self) -> str:
        """The function's name."""
        return self.label

    @property
    def name(self) -> str:
        """The function's name."""
        return self.label


@overload
def stage(
    function: Callable[[Queries], Queries],
    *,
    takes: type[Queries],
    gives: type[Queries],
    version: str,
    deterministic: bool = True,
) -> Stage[Queries, Queries]: ...
@overload
def stage(
    function: Callable[[Queries], Run],
    *,
    takes: type[Queries],
    gives: type[Run],
    version: str,
    deterministic: bool = True,
) -> Stage[Queries, Run]: ...
@overload
def stage(
    function: Callable[[Run], Queries],
    *,
    takes: type[Run],
    gives: type[Queries],
    version: str,
    deterministic: bool = True,
) -> Stage[Run, Queries]: ...
@overload
def stage(
    function: Callable[[Run], Run],
    *,
    takes: type[Run],
    gives: type[Run],
    version: str,
    deterministic: bool = True,
) -> Stage[Run, Run]: ...
def stage(
    function: Callable[[Any], Any],
    *,
    takes: type[Any],
    gives: type[Any],
    version: str,
    deterministic: bool = True,
) -> Stage[Any, Any]:
    """Wrap a plain function as a stage.

    Args:
        function: Takes `takes`, returns `gives`.
        takes: `Queries` or `Run`.
        gives: `Queries` or `Run`.
        version: Goes into the fingerprint with the function's qualified name; change it whenever
            the function would answer otherwise.
        deterministic: False for functions that sample or ask a remote service.

    Returns:
        The stage.

    Raises:
        FingerprintError: No version, or a function without a name of its own.
    """
    name = getattr(function, "__qualname__", "")
    if not version:
        raise FingerprintError("a wrapped function needs a version, such as version='1'")
    if not name or "<lambda>" in name:
        raise FingerprintError(
            "a wrapped function needs a name of its own; use def instead of lambda"
        )
    label = f"{function.__module__}.{name}"
    return FunctionStage(function, label, version, takes, gives, deterministic)
