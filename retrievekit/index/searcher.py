"""`Searcher`: an index as a stage from `Queries` to a `Run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrievekit.candidates import Candidates
from retrievekit.errors import DataError
from retrievekit.index.results import check_k
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage, knob
from retrievekit.where import Condition

if TYPE_CHECKING:
    from retrievekit.index.base import Index


@dataclass(frozen=True)
class Searcher(Stage[Queries, Run]):
    """Searches one index.

    Args:
        index: The index.
        k: Hits per query, at least 1.
        where: A condition on metadata that hits must satisfy, or None.
        candidates: For each query the only documents that it may have as hits, or None.
        threads: Threads to use; all cores by default.
        device: Where to search, for the kinds of index that can do so elsewhere than on the
            processor; by default where the index says.

    Raises:
        DataError: k is no whole number of at least 1, or the index knows no devices.
    """

    index: Index
    k: int = 1000
    where: Condition | None = None
    candidates: Candidates | None = None
    threads: int | None = knob(None)
    device: str | None = knob(None)

    takes = Queries
    gives = Run

    def __post_init__(self) -> None:
        """Check k, and that a device is asked only of who knows of such."""
        check_k(self.k)
        if self.device is not None and not self.index.on_devices:
            raise DataError(
                f"an index of kind {self.index.kind!r} is searched on the processor; leave out "
                f"device={self.device!r}"
            )

    def apply(self, batch: Queries) -> Run:
        """Search for each query."""
        elsewhere = {} if self.device is None else {"device": self.device}
        return self.index.search(
            batch,
            self.k,
            where=self.where,
            candidates=self.candidates,
            threads=self.threads,
            **elsewhere,
        )

    @property
    def corpus(self) -> Any:
        """The index's words, or None when they were not stored."""
        return self.index.corpus

    def explain_parts(self, batch: Queries, doc_id: str) -> Mapping[str, float]:
        """What the index says of the document's score; nothing of a document that it lacks."""
        # An index of passages is asked about documents where a later stage gives those.
        return self.index.explain(batch, doc_id) if doc_id in self.index.ids else {}

    def __repr__(self) -> str:
        """Index kind, k, condition and counts of candidates."""
        condition = "" if self.where is None else f", where={str(self.where)!r}"
        chosen = "" if self.candidates is None else f", candidates={self.candidates!r}"
        return f"{self.index.kind}(k={self.k}{condition}{chosen})"

    @property
    def name(self) -> str:
        """Index kind, k, condition and counts of candidates."""
        return repr(self)
