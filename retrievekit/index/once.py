"""Every text encoded once: what an encoder gave is kept in shards until the commit.

A shard is looked up by a digest of all that its arrays depend on: the encoder's identity and
numerics, the role, and the texts in their order. What stands in an index then follows from the
stream of documents alone, whether the work was interrupted or not: a shard begins and ends at the
same document each time, and so do the batches inside it, whose companions change the last bits of
a vector.

Those last bits also hang on how many texts a batch has, on the device and on threads. They are no
part of the key: who goes on with smaller batches, since memory ran out, keeps what was encoded. It
is said in one line, and stands among the segment's details; with the settings of the first run the
vectors are those of a run that nothing interrupted, byte for byte.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from retrievekit.cuts import Cuts, report_cuts
from retrievekit.index.encoders import HasCard
from retrievekit.stage import fingerprint_of
from retrievekit.store.segment import SegmentReader, SegmentWriter
from retrievekit.store.shards import Shard, ShardFolder

log = logging.getLogger(__name__)

SHARD = 4096
"""Documents that are encoded in one call and kept as one shard.

Batches are sorted by length within a shard. On abstracts of 256 tokens at most, padding then costs
0.6 % in batches of 32 and 2.4 % in batches of 128 (with 1,024 documents 2.4 % and 9.3 %); a larger
shard would save little, and an interruption loses one shard at most.
"""

MIXED = "encoded with"
"""Among a segment's details: settings of several runs, whose vectors may differ in last bits."""

Arrays = Mapping[str, NDArray[Any]]


class Once:
    """Arrays that an encoder gives for texts, each computed once.

    Args:
        encoder: The encoder; what its `run_settings` say, where it has them, is kept with each
            shard.
        shards: Where arrays are kept; None to keep none.
        role: What the texts are: ``document`` or ``query``.
        details: Where it is noted that shards of other settings were used.
    """

    def __init__(
        self,
        encoder: HasCard,
        shards: ShardFolder | None,
        role: str = "document",
        *,
        details: dict[str, Any] | None = None,
    ) -> None:
        plain = encoder.card.to_dict()
        # The name is where the encoder lies, not what it is.
        maker = {"identity": plain["identity"], "numerics": plain["numerics"], "role": role}
        self._maker = fingerprint_of(maker)
        self._name = encoder.card.name
        self._shards = shards
        self._settings = {} if shards is None else dict(getattr(encoder, "run_settings", {}))
        self._details = {} if details is None else details

    def arrays(self, texts: Sequence[str], compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of some texts: those kept, or else computed now and kept.

        Texts that are cut meanwhile are reported here either way.

        Args:
            texts: The texts, which go into the key.
            compute: Gives the arrays; what it refuses is not kept.

        Returns:
            The arrays by name, of any shape and dtype, read-only where they were kept.
        """
        key = self._key(texts)
        kept = None if self._shards is None else self._shards.get(key)
        if kept is None:
            cuts = Cuts()
            with cuts.collected():
                arrays = compute()
            told = [[*what, *counts] for what, counts in cuts.by_limit.items()]
            kept = Shard(arrays, {"cuts": told, "settings": self._settings})
            if self._shards is not None:
                self._shards.put(key, kept)
        self._compare(kept.notes.get("settings", self._settings))
        for cut in kept.notes["cuts"]:
            report_cuts(*cut)
        return kept.arrays

    def _compare(self, others: Mapping[str, Any]) -> None:
        """Note, and say once, that a shard was computed with other settings."""
        if others == self._settings:
            return
        mixed = self._details.setdefault(MIXED, [self._settings])
        if len(mixed) == 1:
            differ = ", ".join(
                f"{name} {others.get(name)} then and {self._settings.get(name)} now"
                for name in sorted({*others, *self._settings})
                if others.get(name) != self._settings.get(name)
            )
            log.warning(
                "%s: what an interrupted run encoded is used (%s), so that last bits may differ "
                "from a run of one piece; to encode all again, do not resume",
                self._name, differ,
            )  # fmt: skip
        if others not in mixed:
            mixed.append(dict(others))

    def _key(self, texts: Sequence[str]) -> str:
        digest = hashlib.sha256(self._maker.encode())
        for text in texts:
            raw = text.encode("utf-8")
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
        return digest.hexdigest()


def inherit_runs(segment: SegmentWriter, source: SegmentReader) -> None:
    """Note in a segment whose documents are copied that several runs encoded some of them.

    Args:
        segment: The segment.
        source: One that documents are copied from.
    """
    mixed = segment.details.get(MIXED, [])
    more = [run for run in source.record.details.get(MIXED, []) if run not in mixed]
    if more:
        segment.details[MIXED] = [*mixed, *more]
