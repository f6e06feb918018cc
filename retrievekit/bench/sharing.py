"""Running what several systems have in common once, while charging each of them its full time.

Stages with equal fingerprints give equal answers, so the runs of ``bm25`` and ``minilm`` serve
``rrf(bm25, minilm)`` as well. `Shared` stands in for such a stage: it answers from a `Memo` that
lives as long as one data set is worked on, and the memo adds up the seconds that an answer cost
when it was computed, so that a system's time is that of its own full execution.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from retrievekit.errors import FingerprintError
from retrievekit.queries import Queries
from retrievekit.stage import A, B, Stage, Then


@dataclass
class Memo:
    """Answers of shared stages, and what they cost.

    Args:
        answers: Answer and seconds by fingerprint of the stage and content hash of the queries.
        charged: Seconds that answers handed out again had cost when they were computed.
    """

    answers: dict[tuple[str, str], tuple[Any, float]] = field(default_factory=dict)
    charged: float = 0.0


@dataclass(frozen=True)
class Shared(Stage[A, B]):
    """A stage that answers equal queries once; equal to the stage inside in every other respect.

    Args:
        inner: The stage.
        memo: Where answers are kept.
    """

    inner: Stage[A, B]
    memo: Memo = field(kw_only=True, repr=False, metadata={"knob": True})

    def __post_init__(self) -> None:
        """Take the ends from the stage inside."""
        object.__setattr__(self, "takes", self.inner.takes)
        object.__setattr__(self, "gives", self.inner.gives)

    def __call__(self, batch: A, /) -> B:
        """Answer from the memo, or run the stage and keep its answer."""
        if not isinstance(batch, Queries):
            return self.inner(batch)
        key = (self.inner.fingerprint, batch.content_hash)
        if key in self.memo.answers:
            out, seconds = self.memo.answers[key]
            self.memo.charged += seconds
            return out  # type: ignore[no-any-return]
        before, start = self.memo.charged, time.perf_counter()
        answer = self.inner(batch)
        seconds = time.perf_counter() - start + self.memo.charged - before
        self.memo.answers[key] = (answer, seconds)
        return answer

    def apply(self, batch: A) -> B:
        """Answer; what calling does."""
        return self(batch)

    def identity(self) -> dict[str, Any]:
        """That of the stage inside, which wrappers around this one may ask for."""
        return self.inner.identity()

    @cached_property
    def fingerprint(self) -> str:
        """That of the stage inside."""
        return self.inner.fingerprint

    @property
    def children(self) -> tuple[Stage[Any, Any], ...]:
        """The stage inside."""
        return (self.inner,)

    def __repr__(self) -> str:
        """That of the stage inside."""
        return repr(self.inner)

    @property
    def name(self) -> str:
        """That of the stage inside."""
        return self.inner.name


def share(systems: Iterable[Stage[Any, Any]], memo: Memo) -> list[Stage[Any, Any]]:
    """Let systems share what they have in common.

    Args:
        systems: The systems.
        memo: Where answers are kept.

    Returns:
        Systems of the same answers; every stage from queries that comes in two places (also as the
        beginning of a pipeline) is computed once per batch.
    """
    listed = list(systems)
    counts = Counter(key for system in listed for key in _keys(system))
    common = {key for key, count in counts.items() if count > 1}
    return [_rebuilt(system, common, memo) for system in listed]


def _key(stage: Stage[Any, Any]) -> str | None:
    """The fingerprint of a stage whose answers may be kept, or None."""
    if stage.takes is not Queries or not stage.deterministic:
        return None
    try:
        return stage.fingerprint
    except FingerprintError:
        return None


def _beginnings(stage: Then[Any, Any]) -> list[Stage[Any, Any]]:
    """Its first stage, its first two, and so on to the whole."""
    parts = stage.stages
    return [parts[0], *(Then(parts[:n]) for n in range(2, len(parts))), stage]


def _keys(stage: Stage[Any, Any]) -> list[str]:
    if isinstance(stage, Then):
        found = [_key(part) for part in _beginnings(stage)[1:]]
    else:
        found = [_key(stage)]
    inner = [key for child in stage.children for key in _keys(child)]
    return [key for key in found if key is not None] + inner


def _rebuilt(stage: Stage[Any, Any], common: set[str], memo: Memo) -> Stage[Any, Any]:
    if isinstance(stage, Then):
        joined = _rebuilt(stage.stages[0], common, memo)
        for part, beginning in zip(stage.stages[1:], _beginnings(stage)[1:], strict=True):
            left = joined.stages if isinstance(joined, Then) else (joined,)
            right = _rebuilt(part, common, memo)
            joined = Then((*left, right), queries_at_a_time=stage.queries_at_a_time)
            if _key(beginning) in common:
                joined = Shared(joined, memo=memo)
        return joined
    key = _key(stage)
    inside = _with_inner(stage, common, memo)
    return Shared(inside, memo=memo) if key in common else inside


def _with_inner(stage: Stage[Any, Any], common: set[str], memo: Memo) -> Stage[Any, Any]:
    """The stage over rebuilt children, where they are fields of a dataclass; else as it is."""
    if not dataclasses.is_dataclass(stage):
        return stage
    changed = {}
    for item in dataclasses.fields(stage):
        value = getattr(stage, item.name)
        new: Any = value
        if isinstance(value, Stage):
            new = _rebuilt(value, common, memo)
        elif isinstance(value, tuple) and any(isinstance(part, Stage) for part in value):
            new = tuple(
                _rebuilt(part, common, memo) if isinstance(part, Stage) else part for part in value
            )
        if new is not value and item.init:
            changed[item.name] = new
    return dataclasses.replace(stage, **changed) if changed else stage
