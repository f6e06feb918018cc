"""`EngineSearcher`: a searcher with an engine's own options, which change answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from retrievekit.index.searcher import Searcher
from retrievekit.queries import Queries
from retrievekit.run import Run

if TYPE_CHECKING:
    from retrievekit.index.dense import DenseIndex


@dataclass(frozen=True)
class EngineSearcher(Searcher):
    """Searches a dense index through an engine other than ``flat``.

    Args:
        index: The index.
        k: As in `Searcher`.
        where: As in `Searcher`.
        candidates: As in `Searcher`.
        threads: As in `Searcher`.
        device: As in `Searcher`.
        engine_options: Every option that the engine has.
    """

    engine_options: Mapping[str, int] = field(default_factory=dict)

    def apply(self, batch: Queries) -> Run:
        """Search for each query."""
        return cast("DenseIndex", self.index).search(
            batch,
            self.k,
            where=self.where,
            candidates=self.candidates,
            threads=self.threads,
            engine_options=self.engine_options,
            device=self.device,
        )

    def __repr__(self) -> str:
        """The engine and its options beside what every searcher says."""
        told = "".join(f", {name}={value}" for name, value in sorted(self.engine_options.items()))
        engine = cast("DenseIndex", self.index).engine
        return f"{super().__repr__()[:-1]}, engine={engine!r}{told})"
