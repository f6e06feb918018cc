"""Which queries are rewritten, and which are left as they are.

A switch decides by a query's words alone, as all stages do: equal queries fare alike, whatever
their ids and companions, so that answers may be kept by content.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from retrievekit.errors import DataError, FingerprintError
from retrievekit.queries import Queries
from retrievekit.stage import fingerprint_of


@runtime_checkable
class Switch(Protocol):
    """Says of a query whether it is rewritten."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what its answers depend on."""
        ...

    def __call__(self, text: str) -> bool:
        """Decide.

        Args:
            text: The query's words.

        Returns:
            Whether it is rewritten.
        """
        ...


@dataclass(frozen=True)
class ByWords:
    """Rewrites queries of a few words: short ones, say, since long ones tell enough.

    Args:
        least: Words that a query has at least.
        most: Words that it has at most; None sets no end.

    Raises:
        DataError: No query could have so many words.
    """

    least: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        """Check both."""
        for value in (self.least, 0 if self.most is None else self.most):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise DataError(f"numbers of words are whole and at least 0; got {value!r}")
        if self.most is not None and self.most < self.least:
            raise DataError(f"at least {self.least} and at most {self.most} words: no query fits")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both numbers."""
        return fingerprint_of({"class": "by-words", "least": self.least, "most": self.most})

    def __call__(self, text: str) -> bool:
        """Whether a query has as many words."""
        n = len(text.split())
        return n >= self.least and (self.most is None or n <= self.most)


@dataclass(frozen=True)
class AllBut:
    """Rewrites all queries but some.

    Args:
        texts: The words of those that are left as they are.
    """

    texts: frozenset[str]

    @classmethod
    def of(cls, queries: Queries, off: Collection[str] | Mapping[str, bool]) -> AllBut:
        """The switch of some queries' ids, or of a column.

        Args:
            queries: The queries.
            off: Ids of those that are left as they are; or whether each is rewritten, by id, where
                those that are not named are.

        Returns:
            The switch.

        Raises:
            DataError: `off` is one string, or two queries of the same words are told apart.
            UnknownNameError: An id is not there.
        """
        if isinstance(off, str):
            raise DataError(f"off is a list of query ids, or a mapping; got {off!r}")
        left = {i for i, on in off.items() if not on} if isinstance(off, Mapping) else set(off)
        rows = {queries.ids.row(query_id) for query_id in off}
        words = queries.rewritten_texts
        texts = frozenset(words[queries.ids.row(query_id)] for query_id in left)
        for row in rows:
            if words[row] in texts and queries.ids[row] not in left:
                raise DataError(
                    f"query {queries.ids[row]!r} is to be rewritten, but another one of the same "
                    "words is not; equal queries fare alike"
                )
        return cls(texts)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the words."""
        return fingerprint_of({"class": "all-but", "texts": sorted(self.texts)})

    def __call__(self, text: str) -> bool:
        """Whether a query is none of them."""
        return text not in self.texts


@dataclass(frozen=True)
class ByRule:
    """Rewrites the queries that a function says.

    Args:
        rule: Says of a query's words whether it is rewritten.
        version: Stands for the function in fingerprints; change it whenever it decides otherwise.

    Raises:
        FingerprintError: There is no version.
    """

    rule: Callable[[str], bool]
    version: str

    def __post_init__(self) -> None:
        """Check that there is a version."""
        if not self.version:
            raise FingerprintError("a rule needs a version, which stands for its function")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the version."""
        return fingerprint_of({"class": "by-rule", "version": self.version})

    def __call__(self, text: str) -> bool:
        """What the function says."""
        return bool(self.rule(text))
