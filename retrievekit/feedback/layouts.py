"""How a query and its passages become one text, as lists of token ids.

Two layouts are known. With ``marked`` each text ends in the end mark, as in ANCE-PRF (Yu et al.,
CIKM 2021), here of RoBERTa; BERT's is the same with its own marks:

    <s> q </s> p1 </s> p2 </s>

and what is too long keeps its first ids and the final mark. With ``filled``, that of TCT-ColBERT
(Li et al., ECIR 2022), the mark stands between texts, and masks fill up what is left:

    [CLS] [Q] q [SEP] p1 [SEP] p2 [MASK] [MASK] ...

Later passages are lost first, the query never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from retrievekit.errors import DataError


@dataclass(frozen=True)
class Layout:
    """How much of a query's passages is read.

    LoL (Zhu et al., SIGIR 2022) reads 128 tokens of each passage, and begins none where fewer than
    10 positions are left: ``Layout(512, 128, 10)``.

    Args:
        max_length: Ids of the whole text, marks included.
        passage_length: Tokens of each passage, its mark left out; None for all.
        room: Positions that must be left for a passage to be begun.

    Raises:
        DataError: A number is out of range.
    """

    max_length: int = 512
    passage_length: int | None = None
    room: int = 0

    least: ClassVar[int] = 8
    """Ids that a text must be allowed."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        given = {"max_length": self.max_length, "room": self.room}
        if self.passage_length is not None:
            given["passage_length"] = self.passage_length
        bounds = {"max_length": self.least, "passage_length": 1, "room": 0}
        for name, value in given.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < bounds[name]:
                raise DataError(
                    f"{name} is {value!r}; give a whole number of at least {bounds[name]}"
                )

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Joined:
    """One text of a query and its passages.

    Args:
        ids: Its token ids.
        cut: Passages of which something was left out, wholly lost ones included.
    """

    ids: list[int]
    cut: int


def marked(
    query: Sequence[int], passages: Sequence[Sequence[int]], layout: Layout, mark: int
) -> Joined | None:
    """Join texts that each end in the end mark.

    Args:
        query: Ids of the query, begin and end marks included.
        passages: Ids of the passages, without any mark, the best first.
        layout: How much is read.
        mark: The end mark.

    Returns:
        The text; None where the query alone is longer than that.
    """
    if len(query) > layout.max_length:
        return None
    ids, cut = list(query), 0
    for passage in passages:
        if len(ids) > layout.max_length or layout.max_length - len(ids) < layout.room:
            cut += 1
            continue
        kept = passage[: layout.passage_length]
        ids += [*kept, mark]
        cut += len(kept) < len(passage) or len(ids) > layout.max_length
    if len(ids) > layout.max_length:
        ids = [*ids[: layout.max_length - 1], mark]
    return Joined(ids, cut)


def filled(
    query: Sequence[int],
    passages: Sequence[Sequence[int]],
    layout: Layout,
    mark: int,
    fill: int,
) -> Joined | None:
    """Join texts with a mark between them, and fill up what is left.

    Args:
        query: Ids of the query, begin mark and prefix included.
        passages: Ids of the passages, without any mark, the best first.
        layout: How much is read; texts of any number of passages have `max_length` ids.
        mark: What stands between texts.
        fill: What fills up.

    Returns:
        The text; None where the query alone is longer than that.
    """
    if len(query) > layout.max_length:
        return None
    ids, cut = list(query), 0
    for passage in passages:
        if len(ids) > layout.max_length or layout.max_length - len(ids) < layout.room:
            cut += 1
            continue
        kept = passage[: layout.passage_length]
        ids += [mark, *kept]
        cut += len(kept) < len(passage) or len(ids) > layout.max_length
    ids = ids[: layout.max_length]
    return Joined(ids + [fill] * (layout.max_length - len(ids)), cut)
