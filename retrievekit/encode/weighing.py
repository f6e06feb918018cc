"""From texts to term weights: what all sparse encoders of this package share.

Texts pass through a model in batches of similar length; what comes out is checked, and the texts
that were cut are counted and told.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.cuts import report_cuts
from retrievekit.encode.batches import (
    EncodingStats,
    Lengths,
    by_parts,
    check_role,
    check_room,
    check_texts,
    for_counting,
)
from retrievekit.encode.conventions import ROLES, Role
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.headway import report_headway
from retrievekit.protocols import EncoderCard, Progress
from retrievekit.vectors import SparseVectors


@dataclass(frozen=True)
class EncodedTerms:
    """Term weights and what happened to their texts.

    Args:
        vectors: The weights, float32 ``(n, V)`` in CSR form.
        stats: Counts.
    """

    vectors: SparseVectors
    stats: EncodingStats


class TermEncoder(ABC):
    """Base of sparse encoders: a subclass says how one batch becomes a dense array of weights.

    Args:
        name: What the model is loaded by.
        batch_size: Texts that pass through the model together.
        active: By role how many weights of a text are kept, the largest ones.

    Raises:
        DataError: A number is below 1, or a role is unknown.
    """

    def __init__(self, name: str, batch_size: int, active: Mapping[Role, int] | None) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is at least 1; got {batch_size}")
        for role, most in (active or {}).items():
            whole = isinstance(most, (int, np.integer)) and not isinstance(most, bool)
            if role not in ROLES or not whole or most < 1:
                raise DataError(
                    "active says how many weights of a 'query' or 'document' are kept, at least "
                    f"1; got {role!r}: {most!r}"
                )
        self.name = name
        self.batch_size = batch_size
        self.active: dict[Role, int] = {role: int(most) for role, most in (active or {}).items()}
        self._copying = threading.Lock()
        self._copies: dict[Role, Any] = {}

    @property
    @abstractmethod
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Columns of the vocabulary; loads the model."""

    @abstractmethod
    def tokenizer(self, role: Role) -> Any:
        """The tokenizer of a role, or None where the model's own does not tell its tokens.

        Args:
            role: ``query`` or ``document``.

        Returns:
            A tokenizer of transformers.
        """

    def counting(self, role: Role) -> Any:
        """A copy of a role's tokenizer that cuts nothing, safe beside a model that cuts.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The copy, or None where there is no tokenizer.
        """
        with self._copying:
            if role not in self._copies:
                own = self.tokenizer(role)
                self._copies[role] = None if own is None else for_counting(own)
            return self._copies[role]

    @abstractmethod
    def limit(self, role: Role) -> int | None:
        """Tokens of a text that are read, special tokens included; None without a limit.

        Args:
            role: ``query`` or ``document``.

        Returns:
            The number.
        """

    @abstractmethod
    def _run(self, texts: list[str], role: Role) -> NDArray[np.float32]:
        """The weights of one batch, float32 ``(n, V)``."""

    def _prompt(self, role: Role) -> str:
        """What is put before texts."""
        return ""

    def _specials(self, role: Role) -> bool:
        """Whether special tokens are put around texts."""
        return True

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The name of each column; loads the model.

        Raises:
            EncoderContractError: Two columns have one name.
        """
        tokenizer = self.tokenizer("document")
        found = [] if tokenizer is None else tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        names: list[str | None] = list(found)[: self.size]
        names += [None] * (self.size - len(names))
        # Models pad their vocabulary to a round number, and some have no words for columns at all.
        out = tuple(f"[column-{i}]" if name is None else name for i, name in enumerate(names))
        if len(set(out)) < len(out):
            twice = next(name for i, name in enumerate(out) if name in out[:i])
            raise EncoderContractError(f"{self.name}: two columns are named {twice!r}")
        return out

    def encode_query(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of queries.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            The weights, float32, one row per text.
        """
        return self.encode(texts, "query").vectors

    def encode_document(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of documents.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            The weights, float32, one row per text.
        """
        return self.encode(texts, "document").vectors

    def encode(
        self, texts: Sequence[str], role: Role, *, progress: Progress | None = None
    ) -> EncodedTerms:
        """Term weights of texts in one of the two roles, and how many texts were cut.

        Args:
            texts: The texts, possibly empty ones, possibly none.
            role: ``query`` or ``document``.
            progress: Called with the number of texts done after each batch.

        Returns:
            Weights in the order of the texts, and counts.

        Raises:
            DataError: A text is no string or no valid Unicode, or the role is unknown; or
                `max_length` leaves no room for a text.
            NonFiniteError: The model gave NaN or infinity; names the text.
            EncoderContractError: The model gave another number of weights than its vocabulary has.
        """
        check_role(role)
        check_texts(texts, role)
        size, lengths = self.size, self._lengths(texts, role)
        # The longest first, so that too large a batch fails at once and not at the end.
        order = np.argsort(-np.asarray(lengths.sizes, np.int64), kind="stable")
        parts: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]] = []
        for start in range(0, len(texts), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self._run([texts[row] for row in rows], role)
            if batch.shape != (len(rows), size):
                raise EncoderContractError(
                    f"{self.name}: {len(rows)} texts gave an array of shape {batch.shape}, not "
                    f"({len(rows)}, {size})"
                )
            bad = np.flatnonzero(~np.isfinite(batch).all(axis=1))
            if len(bad):
                row = int(rows[bad[0]])
                raise NonFiniteError(
                    f"the weights of {role} {row} ({texts[row][:60]!r}) hold NaN or infinity; "
                    f"{self.name}: its weights may be damaged, or its dtype too narrow",
                    row,
                )
            places, columns, values = largest(batch, self.active.get(role))
            parts.append((rows[places], columns, values))
            done = min(start + self.batch_size, len(texts))
            report_headway(done)
            if progress is not None:
                progress(done, len(texts))
        stats = lengths.stats()
        if lengths.tokens and stats.limit is not None:
            # Also where nothing was cut: these texts count among all.
            report_cuts(self.name, role, stats.limit, stats.cut, stats.texts)
        fingerprint = self.card.fingerprint
        return EncodedTerms(joined(parts, len(texts), size, fingerprint), stats)

    def _lengths(self, texts: Sequence[str], role: Role) -> Lengths:
        """How long texts are, prompt and special tokens counted."""
        tokenizer, prompt, limit = self.counting(role), self._prompt(role), self.limit(role)
        if tokenizer is None:
            return Lengths([len(text) for text in texts], tokens=False, limit=limit)

        def counted(part: Sequence[str]) -> list[int]:
            ids = tokenizer(
                [prompt + text for text in part],
                truncation=False,
                padding=False,
                return_attention_mask=False,
                add_special_tokens=self._specials(role),
                verbose=False,
            )["input_ids"]
            return [len(row) for row in ids]

        check_room(self.name, role, limit, counted([""])[0])
        sizes = [size for part in by_parts(texts) for size in counted(part)]
        return Lengths(sizes, tokens=True, limit=limit)


def largest(
    batch: NDArray[np.float32], most: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The weights of a dense array that are not 0, or the largest of each row.

    Args:
        batch: float32 ``(n, V)``.
        most: How many are kept per row; all by default. Of equal ones the first columns are kept.

    Returns:
        Rows int64 ``(nnz,)``, columns int32 ``(nnz,)`` and values float32 ``(nnz,)``, by row and
        column.
    """
    kept = batch != 0
    if most is not None and most < batch.shape[1]:
        order = np.argsort(-batch, axis=1, kind="stable")[:, most:]
        np.put_along_axis(kept, order, False, axis=1)
    rows, columns = np.nonzero(kept)
    return rows, columns.astype(np.int32), batch[rows, columns]


def joined(
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]],
    n: int,
    size: int,
    encoder: str | None,
) -> SparseVectors:
    """Batches of weights as one matrix.

    Args:
        parts: Rows int64 ``(nnz,)``, columns int32 ``(nnz,)`` and values float32 ``(nnz,)``; what
            belongs to one row lies together, by column.
        n: Rows in all.
        size: Columns in all.
        encoder: Fingerprint of the encoder.

    Returns:
        The weights.
    """
    rows = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
    columns = np.concatenate([np.zeros(0, np.int32), *(part[1] for part in parts)])
    values = np.concatenate([np.zeros(0, np.float32), *(part[2] for part in parts)])
    order = np.argsort(rows, kind="stable")
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=offsets[1:])
    return SparseVectors(offsets, columns[order], values[order], size, encoder)
