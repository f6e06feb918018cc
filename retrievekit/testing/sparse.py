"""A sparse encoder without a model, and the case of the index kind that it feeds."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from retrievekit.corpus import Corpus, Document
from retrievekit.index.base import Index
from retrievekit.index.sparse import SparseIndex
from retrievekit.protocols import EncoderCard
from retrievekit.testing.indexes import IndexCase
from retrievekit.vectors import SparseVectors


class ToySparseEncoder:
    """Hashed words as term weights: no model, no torch, the same everywhere.

    A lower-case word belongs to one of `size` columns that its BLAKE2b hash picks, and weighs up to
    1.5 there, which the hash decides too. In a document it weighs log(1 + times) as much; in a
    query it counts once.

    Args:
        size: Columns of the vocabulary, at least 1.
    """

    def __init__(self, size: int = 512) -> None:
        self.size = size

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"ToySparseEncoder({self.size})"

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is."""
        identity = {"class": "toy-sparse", "model": "toy-sparse", "version": 1, "size": self.size}
        return EncoderCard("toy-sparse", identity, {"dtype": "float32", "backend": "numpy"})

    @property
    def tokens(self) -> list[str]:
        """The name of each column."""
        return [f"t{column}" for column in range(self.size)]

    def encode_query(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of queries, float32, one row per text."""
        return self._vectors(texts, once=True)

    def encode_document(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of documents, float32, one row per text."""
        return self._vectors(texts, once=False)

    def _vectors(self, texts: Sequence[str], *, once: bool) -> SparseVectors:
        offsets, columns, values = [0], [], []
        for text in texts:
            row: dict[int, float] = {}
            for word, times in Counter(re.findall(r"\w+", text.lower())).items():
                digest = hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest()
                column = int.from_bytes(digest[:4], "little") % self.size
                weight = 0.5 + int.from_bytes(digest[4:], "little") / 2**32
                # The larger one, where two words share a column.
                weight *= 1.0 if once else float(np.log1p(times))
                row[column] = max(row.get(column, 0.0), weight)
            columns += sorted(row)
            values += [row[column] for column in sorted(row)]
            offsets.append(len(columns))
        return SparseVectors(
            np.array(offsets, np.int64),
            np.array(columns, np.int32),
            np.array(values, np.float32),
            self.size,
            self.card.fingerprint,
        )


_TOY = ToySparseEncoder()


def _build(
    source: Corpus | Iterable[Document], path: Path | None = None, *, overwrite: bool = False
) -> Index:
    return SparseIndex.build(source, _TOY, path, overwrite=overwrite)


SPARSE = IndexCase("sparse", _build, lambda path: SparseIndex.open(path, _TOY))
