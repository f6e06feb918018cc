"""What happened to a batch on its way: one `Step` per stage, outside equality and fingerprints.

A stage that counts more than hits (prompts, answers that had to be repaired) says so with `count`;
its step tells the sums, and so does `counting` to whoever wants them without a run.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

_counter: contextvars.ContextVar[Counter[str] | None] = contextvars.ContextVar(
    "counter", default=None
)


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Collect what is counted in this thread while this lasts.

    Yields:
        The counts by name. When it ends they are added to those of whoever counts around it.
    """
    outer, own = _counter.get(), Counter[str]()
    token = _counter.set(own)
    try:
        yield own
    finally:
        _counter.reset(token)
        if outer is not None:
            outer.update(own)


def count(name: str, number: int = 1) -> None:
    """Add to what is counted, if anybody counts; otherwise nothing happens.

    Args:
        name: What was counted, in the plural.
        number: How many; 0 is not told.
    """
    counter = _counter.get()
    if counter is not None and number:
        counter[name] += number


@dataclass(frozen=True, repr=False)
class Step:
    """One stage's work on a batch.

    Args:
        name: The stage, as its `repr` shows it.
        fingerprint: The stage's fingerprint, or an empty string where it has none.
        seconds: Wall time.
        n_queries: Queries that came out.
        n_hits: Hits that came out; 0 when queries came out.
        dropped: Hits that the stage removed on purpose.
        counts: Whatever else the stage counted: names with numbers, sorted by name.
    """

    name: str
    fingerprint: str
    seconds: float
    n_queries: int
    n_hits: int
    dropped: int = 0
    counts: tuple[tuple[str, int], ...] = ()

    def __repr__(self) -> str:
        """Name, time and counts on one line, so that a printed trace can be read."""
        counts = f"{self.n_queries} queries"
        if self.n_hits or self.dropped:
            counts += f", {self.n_hits} hits"
        if self.dropped:
            counts += f" ({self.dropped} dropped)"
        counts += "".join(f", {number} {name}" for name, number in self.counts)
        return f"<{self.name}: {1000 * self.seconds:.1f} ms, {counts}>"


def merged(traces: Sequence[tuple[Step, ...]]) -> tuple[Step, ...]:
    """Add up the traces of parts of one batch, step by step.

    Args:
        traces: Traces of the same stages over different queries.

    Returns:
        One trace with times and counts added; steps that not all parts share are kept in order.
    """
    out: list[Step] = list(traces[0]) if traces else []
    for trace in traces[1:]:
        for place, step in enumerate(trace):
            if place < len(out) and out[place].name == step.name:
                old = out[place]
                out[place] = replace(
                    old,
                    seconds=old.seconds + step.seconds,
                    n_queries=old.n_queries + step.n_queries,
                    n_hits=old.n_hits + step.n_hits,
                    dropped=old.dropped + step.dropped,
                    counts=tuple(
                        sorted((Counter(dict(old.counts)) + Counter(dict(step.counts))).items())
                    ),
                )
            else:
                out.append(step)
    return tuple(out)
