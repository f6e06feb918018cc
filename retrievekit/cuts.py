"""Texts that did not fit into a model and were cut: counted, and told once.

An encoder reports each batch with `report_cuts`. Who drives many batches (an index build) collects
the reports and tells the sum; nobody's cut goes untold.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass
class Cuts:
    """Texts that did not fit into a model and were cut; told once, at level WARNING.

    Args:
        by_limit: Texts cut, of texts in all, by what they were and where they were cut.
    """

    by_limit: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)

    def add(self, model: str, what: str, limit: int, cut: int, texts: int) -> None:
        """Take note of one batch.

        Args:
            model: The model's name.
            what: What the texts are: "query" or "document".
            limit: Tokens that fit.
            cut: Texts that were longer.
            texts: Texts in the batch.
        """
        before = self.by_limit.get((model, what, limit), (0, 0))
        self.by_limit[model, what, limit] = (before[0] + cut, before[1] + texts)

    def collected(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts, cut texts are added here instead of being told batch by batch."""
        return _collecting(self)

    def tell(self) -> None:
        """Log what was cut, where anything was."""
        for (model, what, limit), (cut, texts) in self.by_limit.items():
            if cut:
                log.warning(
                    "%s: %d of %d %s texts were longer than %d tokens and were cut there; the rest "
                    "of their words is not in the vectors",
                    model,
                    cut,
                    texts,
                    what,
                    limit,
                )


_collector: contextvars.ContextVar[Cuts | None] = contextvars.ContextVar("cuts", default=None)


@contextlib.contextmanager
def _collecting(cuts: Cuts) -> Iterator[None]:
    token = _collector.set(cuts)
    try:
        yield
    finally:
        _collector.reset(token)


def report_cuts(model: str, what: str, limit: int, cut: int, texts: int) -> None:
    """Tell that texts were cut: to whoever collects, otherwise to the log at once.

    Args:
        model: The model's name.
        what: What the texts are: "query" or "document".
        limit: Tokens that fit.
        cut: Texts that were longer.
        texts: Texts in all.
    """
    collector = _collector.get()
    cuts = Cuts() if collector is None else collector
    cuts.add(model, what, limit, cut, texts)
    if collector is None:
        cuts.tell()
