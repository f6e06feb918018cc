"""What all encoders of texts share: checks of texts, batches of similar length, counts of cuts."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrievekit.cuts import report_cuts
from retrievekit.encode.conventions import ROLES, Role
from retrievekit.encode.devices import side_by_side
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.headway import report_headway
from retrievekit.protocols import Progress

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES = ("float32", "bfloat16", "float16")

TOKENIZED_AT_A_TIME = 1024
"""Texts that a tokenizer is given together: their tokens are counted before any is encoded."""


@dataclass(frozen=True)
class EncodingStats:
    """What happened to the texts of one call.

    Args:
        texts: Texts given.
        tokens: Tokens of all texts before cutting, special tokens and prompt included; 0 where the
            model's tokenizer does not tell.
        cut: Texts longer than the limit, of which the rest was left out.
        limit: Tokens that fit, or None where the model has no limit.
    """

    texts: int
    tokens: int
    cut: int
    limit: int | None


@dataclass(frozen=True)
class Encoded:
    """Vectors and what happened to their texts.

    Args:
        vectors: float32 ``(n, dim)``.
        stats: Counts.
    """

    vectors: NDArray[np.float32]
    stats: EncodingStats


@dataclass(frozen=True)
class Lengths:
    """How long texts are.

    Args:
        sizes: The length of each text.
        tokens: Whether lengths are in tokens; otherwise they are in characters, and nobody knows
            what is cut.
        limit: Tokens that fit, or None.
    """

    sizes: Sequence[int]
    tokens: bool
    limit: int | None

    def stats(self) -> EncodingStats:
        """Counts of texts, tokens and cuts."""
        cut = 0
        if self.tokens and self.limit is not None:
            cut = sum(size > self.limit for size in self.sizes)
        return EncodingStats(
            len(self.sizes), sum(self.sizes) if self.tokens else 0, cut, self.limit
        )


@dataclass(frozen=True)
class Batching:
    """How the texts of one call pass through a model.

    Args:
        lengths: How long they are.
        run: Gives the vectors, float32 ``(m, dim)``, of the texts in some rows, int64 ``(m,)``.
        dtype: In which the model computes.
        lanes: Batches that are run at a time; for more than one `run` is called in threads.
    """

    lengths: Lengths
    run: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    dtype: str = "float32"
    lanes: int = 1


class BatchEncoder(ABC):
    """What encoders share that pass texts through a model of their own in batches."""

    name: str
    """What the model is called, in messages."""

    batch_size: int
    """Texts that pass through the model together."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Components of each vector; loads the model."""

    @abstractmethod
    def _batching(self, texts: Sequence[str], role: Role) -> Batching:
        """How these texts, checked already, pass through the model; loads it."""

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self.encode(texts, "query").vectors

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self.encode(texts, "document").vectors

    def encode(
        self, texts: Sequence[str], role: Role, *, progress: Progress | None = None
    ) -> Encoded:
        """Vectors of texts in one of the two roles, and how many texts were cut.

        Args:
            texts: The texts, possibly empty ones, possibly none.
            role: ``query`` or ``document``.
            progress: Called with the number of texts done after each batch.

        Returns:
            Vectors float32 ``(n, dim)`` in the order of the texts, and counts.

        Raises:
            DataError: A text is no string or no valid Unicode, or the role is unknown.
            NonFiniteError: The model gave NaN or infinity; names the text.
            EncoderContractError: The model gave vectors of another size than it says.
        """
        check_role(role)
        check_texts(texts, role)
        how = self._batching(texts, role)
        return in_batches(
            texts,
            role,
            how.lengths,
            how.run,
            name=self.name,
            dim=self.dim,
            batch_size=self.batch_size,
            dtype=how.dtype,
            lanes=how.lanes,
            progress=progress,
        )


def in_batches(
    texts: Sequence[str],
    role: Role,
    lengths: Lengths,
    run: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    *,
    name: str,
    dim: int,
    batch_size: int,
    dtype: str = "float32",
    lanes: int = 1,
    progress: Progress | None = None,
) -> Encoded:
    """Encode texts in batches of similar length, the longest first, and check what comes out.

    Args:
        texts: The texts; messages show their beginning.
        role: ``query`` or ``document``.
        lengths: How long they are.
        run: Gives the vectors, float32 ``(m, dim)``, of the texts in some rows, int64 ``(m,)``.
        name: The model's name, for messages.
        dim: Components of each vector.
        batch_size: Texts that pass through the model together.
        dtype: In which the model computes, for the hint when a vector is not finite.
        lanes: Batches that are run at a time; for more than one `run` is called in threads.
        progress: Called with the number of texts done after each batch.

    Returns:
        Vectors in the order of the texts, and counts.

    Raises:
        NonFiniteError: The model gave NaN or infinity; names the text.
        EncoderContractError: The model gave vectors of another size.
    """
    vectors = np.empty((len(texts), dim), np.float32)
    # The longest first, so that too large a batch fails at once and not at the end.
    order = np.argsort(-np.asarray(lengths.sizes, np.int64), kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    done = 0
    for rows, batch in zip(batches, side_by_side(run, batches, lanes), strict=True):
        if batch.shape != (len(rows), dim):
            raise EncoderContractError(
                f"{name}: {len(rows)} texts gave an array of shape {batch.shape}, not "
                f"({len(rows)}, {dim})"
            )
        bad = np.flatnonzero(~np.isfinite(batch).all(axis=1))
        if len(bad):
            row = int(rows[bad[0]])
            hint = "its weights may be damaged"
            if dtype != "float32":
                hint = f"{dtype} may be too narrow, try dtype='float32'"
            raise NonFiniteError(
                f"the vector of {role} {row} ({texts[row][:60]!r}) holds NaN or infinity; "
                f"{name}: {hint}",
                row,
            )
        vectors[rows] = batch
        done += len(rows)
        report_headway(done)
        if progress is not None:
            progress(done, len(texts))
    stats = lengths.stats()
    if lengths.tokens and stats.limit is not None:
        # Also where nothing was cut: these texts count among all.
        report_cuts(name, role, stats.limit, stats.cut, stats.texts)
    return Encoded(vectors, stats)


def by_parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in parts that a tokenizer takes at a time.

    Args:
        texts: The texts.

    Yields:
        At most `TOKENIZED_AT_A_TIME` texts, one part after the other.
    """
    for start in range(0, len(texts), TOKENIZED_AT_A_TIME):
        yield texts[start : start + TOKENIZED_AT_A_TIME]


def for_counting(tokenizer: Any) -> Any:
    """A copy of a tokenizer that counts all of a text's tokens.

    A model sets its own to cut texts; one that is set to and fro between threads would cut here and
    not there.

    Args:
        tokenizer: A tokenizer of transformers.

    Returns:
        The copy, set already, so that several threads may count with it.
    """
    found = copy.deepcopy(tokenizer)
    found(["a"], truncation=False, padding=False, verbose=False)
    return found


def check_room(name: str, role: Role, limit: int | None, taken: int) -> None:
    """Refuse a length that leaves no room for a single token of a text.

    Args:
        name: The model, for messages.
        role: ``query`` or ``document``.
        limit: Tokens of a text that are read, special tokens and prompt included; None for all.
        taken: How many of them special tokens and the prompt take.

    Raises:
        DataError: None is left: all texts would have one vector.
    """
    if limit is not None and limit <= taken:
        raise DataError(
            f"{name}: {limit} tokens of a {role} are read, and special tokens and prompt alone are "
            f"{taken}, so that all texts would be one; give a max_length of at least {taken + 1}"
        )


def check_settings(dtype: str, batch_size: int) -> None:
    """Refuse what no model computes with.

    Args:
        dtype: The dtype's name.
        batch_size: Texts per batch.

    Raises:
        DataError: No such dtype, or no texts per batch.
    """
    if dtype not in DTYPES:
        raise DataError(f"no dtype {dtype!r} for models; known: {', '.join(DTYPES)}")
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise DataError(f"batch_size is a whole number of at least 1; got {batch_size!r}")


def by_role(value: int | Mapping[Role, int | None] | None, what: str) -> dict[Role, int | None]:
    """A length for each role, from one for both or from a mapping.

    Args:
        value: One length, a mapping from roles, or None.
        what: How the message calls it.

    Returns:
        A length or None for each role.

    Raises:
        DataError: Not a whole number of at least 1, or a stranger among the roles.
    """
    given = value if isinstance(value, Mapping) else dict.fromkeys(ROLES, value)
    strangers = set(given) - set(ROLES)
    if strangers:
        raise DataError(f"{what} is for 'query' and 'document'; got {sorted(map(str, strangers))}")
    for length in given.values():
        whole = isinstance(length, int | np.integer) and not isinstance(length, bool)
        if length is not None and (not whole or length < 1):
            raise DataError(f"{what} is a whole number of at least 1; got {length!r}")
    # As plain Python, since it is written down.
    return {role: None if (n := given.get(role)) is None else int(n) for role in ROLES}


def check_prompts(prompts: Mapping[Role, str] | None) -> None:
    """Refuse prompts that are no strings, or of other roles.

    Args:
        prompts: What stands before texts, by role; or None.

    Raises:
        DataError: A stranger among the roles, or a prompt that is no string.
    """
    strangers = set(prompts or ()) - set(ROLES)
    if strangers:
        raise DataError(f"prompts are for 'query' and 'document'; got {sorted(strangers)}")
    for role, prompt in (prompts or {}).items():
        if not isinstance(prompt, str):
            raise DataError(f"the prompt for {role} is {prompt!r}, not a string; '' for none")


def check_role(role: Any) -> None:
    """Refuse what is neither ``query`` nor ``document``.

    Args:
        role: The role.

    Raises:
        DataError: It is neither.
    """
    if role not in ROLES:
        raise DataError(f"no role {role!r}; known: {', '.join(ROLES)}")


def check_texts(texts: Sequence[str], role: Role) -> None:
    """Refuse texts that are no list of valid strings.

    Args:
        texts: The texts.
        role: What messages call one.

    Raises:
        DataError: One string or an iterator, or a text that is no string or no valid Unicode.
    """
    if isinstance(texts, str):
        raise DataError("texts is one string; give a list of strings")
    if not hasattr(texts, "__len__"):
        raise DataError(f"texts is a {type(texts).__name__}; give a list of strings")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{role} {row} is {text!r} ({type(text).__name__}), not a string")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as why:
            raise DataError(
                f"{role} {row} holds a lone surrogate at character {why.start}; it is not valid "
                "Unicode"
            ) from why
