"""Every text encoded once: what an encoder gave is kept in shards until the commit.

A shard is looked up by a digest of all that its arrays depend on: the encoder's identity and
numerics, the role, and the texts in their order. What stands in an index then follows from the
stream of documents alone, whether the work was interrupted or not: a shard begins and ends at the
same document each time, and so do the batches inside it, whose companions change the last bits of
a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from retrievekit.cuts import Cuts, report_cuts
from retrievekit.protocols import EncoderCard
from retrievekit.stage import fingerprint_of
from retrievekit.store.shards import Shard, ShardFolder

SHARD = 4096
"""Documents that are encoded in one call and kept as one shard.

Batches are sorted by length within a shard. On abstracts of 256 tokens at most, padding then costs
0.6 % in batches of 32 and 2.4 % in batches of 128 (with 1,024 documents 2.4 % and 9.3 %); a larger
shard would save little, and an interruption loses one shard at most.
"""

Arrays = Mapping[str, NDArray[Any]]


class Once:
    """Arrays that an encoder gives for texts, each computed once.

    Args:
        card: Who the encoder is.
        shards: Where arrays are kept; None to keep none.
        role: What the texts are: ``document`` or ``query``.
    """

    def __init__(
        self, card: EncoderCard, shards: ShardFolder | None, role: str = "document"
    ) -> None:
        plain = card.to_dict()
        # The name is where the encoder lies, not what it is.
        maker = {"identity": plain["identity"], "numerics": plain["numerics"], "role": role}
        self._maker = fingerprint_of(maker)
        self._shards = shards

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
            kept = Shard(arrays, {"cuts": told})
            if self._shards is not None:
                self._shards.put(key, kept)
        for cut in kept.notes["cuts"]:
            report_cuts(*cut)
        return kept.arrays

    def _key(self, texts: Sequence[str]) -> str:
        digest = hashlib.sha256(self._maker.encode())
        for text in texts:
            raw = text.encode("utf-8")
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
        return digest.hexdigest()
