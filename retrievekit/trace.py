"""What happened to a batch on its way: one `Step` per stage, outside equality and fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


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
    """

    name: str
    fingerprint: str
    seconds: float
    n_queries: int
    n_hits: int
    dropped: int = 0

    def __repr__(self) -> str:
        """Name, time and counts on one line, so that a printed trace can be read."""
        counts = f"{self.n_queries} queries"
        if self.n_hits or self.dropped:
            counts += f", {self.n_hits} hits"
        if self.dropped:
            counts += f" ({self.dropped} dropped)"
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
                )
            else:
                out.append(step)
    return tuple(out)
