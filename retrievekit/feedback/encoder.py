"""`FeedbackEncoder`: vectors of queries that are read together with their passages.

What such an encoder was made for stands beside its weights, in ``feedback.json``: the encoder of
the passages, how a query and its passages are joined, and how many passages it was trained with.
Checkpoints of others have no such file: they are read as the index's own encoder is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.backends.hardware import found_device
from retrievekit.encode.batches import Dtype, Lengths, by_parts, check_settings, in_batches
from retrievekit.encode.folders import find_folder
from retrievekit.encode.minilm import NAME as MINILM
from retrievekit.encode.minilm import minilm_folder
from retrievekit.errors import DataError, EncoderMismatchError, ParseError
from retrievekit.feedback.layouts import Joined, Layout
from retrievekit.feedback.readers import FeedbackReader, family_of, reader_of
from retrievekit.protocols import EncoderCard
from retrievekit.stage import canonical, fingerprint_of

FILE = "feedback.json"
_FORMAT = 1


@dataclass(frozen=True)
class Made:
    """What a feedback encoder was made for.

    Args:
        passages: The card of the encoder of the passages.
        layout: How a query and its passages are joined.
        docs: The fewest and the most passages that it was trained with.
    """

    passages: EncoderCard
    layout: Layout
    docs: tuple[int, int]

    def write(self, folder: Path) -> None:
        """Write it beside the weights.

        Args:
            folder: The model's folder.
        """
        content = {
            "format": _FORMAT,
            "passages": self.passages.to_dict(),
            "layout": self.layout.to_dict(),
            "docs": list(self.docs),
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Made | None:
        """Read it.

        Args:
            folder: The model's folder.

        Returns:
            What the file says; None where there is no such file.

        Raises:
            ParseError: It is damaged, or of a newer format.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_bytes())
            if content["format"] != _FORMAT:
                raise ParseError(file, None, f"of the format {content['format']!r}, not {_FORMAT}")
            low, high = (int(number) for number in content["docs"])
            card = EncoderCard.from_dict(content["passages"])
            return cls(card, Layout(**content["layout"]), (low, high))
        except (ValueError, KeyError, TypeError) as why:
            if isinstance(why, ParseError):
                raise
            raise ParseError(file, None, f"says not what the model was made for ({why!r})") from why


@dataclass(frozen=True)
class Read:
    """Vectors of queries, and what was left out.

    Args:
        vectors: float32 ``(n, dim)``; zeros for queries that were not read.
        unread: Rows of queries that are longer than the model reads, int64 ``(m,)``.
        cut: Passages of which something was left out, wholly lost ones included.
        passages: Passages in all.
    """

    vectors: NDArray[np.float32]
    unread: NDArray[np.int64]
    cut: int
    passages: int


class FeedbackEncoder:
    """A query encoder that reads a query and its first passages as one text.

    The constructor only keeps what it is told; the model is loaded on first use. In float32 the
    vector of a query depends on its companions in a batch by rounding only, at most 1e-5.

    Args:
        name: A model folder, a hub id, or ``minilm``.
        passages: The card of the encoder of the passages, such as ``index.card``; by default, and
            in any case, what the folder's ``feedback.json`` says.
        layout: How a query and its passages are joined; by default as the folder says, else 512
            ids, or as many as the model reads.
        device: Such as ``cpu`` or ``cuda:1``; by default the best there is.
        batch_size: Texts that pass through the model together.
        revision: A branch, tag or commit of a hub model.
        dtype: ``float32``, ``bfloat16`` or ``float16``, in which the model computes.
        allow_pickle: Whether weights may come from ``pytorch_model.bin`` where there are no
            safetensors, as in the checkpoints of ANCE-PRF's authors.

    Raises:
        DataError: A parameter is none of these, or there is no reader for such encoders.
    """

    def __init__(
        self,
        name: str | Path,
        passages: EncoderCard | None = None,
        *,
        layout: Layout | None = None,
        device: str | None = None,
        batch_size: int = 32,
        revision: str | None = None,
        dtype: Dtype = "float32",
        allow_pickle: bool = False,
    ) -> None:
        check_settings(dtype, batch_size)
        if passages is not None:
            family_of(passages)
        self.name = str(name)
        self.device = device
        self.batch_size = batch_size
        self.revision = revision
        self.dtype = dtype
        self.allow_pickle = allow_pickle
        self._passages = passages
        self._layout = layout
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"FeedbackEncoder({self.name!r})"

    @cached_property
    def folder(self) -> Path:
        """Where the model lies."""
        if self.name == MINILM:
            return minilm_folder().path
        return find_folder(self.name, self.revision, allow_pickle=self.allow_pickle).path

    @cached_property
    def made(self) -> Made | None:
        """What the folder says that it was made for; None where it does not."""
        return Made.read(self.folder)

    @cached_property
    def passages(self) -> EncoderCard:
        """The card of the encoder of the passages.

        Raises:
            EncoderMismatchError: The folder names another one than was given.
            DataError: Neither the folder nor the call names one.
        """
        given, made = self._passages, self.made
        if made is None:
            if given is None:
                raise DataError(
                    f"{self.name}: no {FILE} says which encoder made the passages' vectors; give "
                    f"its card: FeedbackEncoder({self.name!r}, index.card)"
                )
            return given
        if given is not None and given.fingerprint != made.passages.fingerprint:
            raise EncoderMismatchError(
                f"{self.name}: trained for passages of the encoder {made.passages.name!r}, asked "
                f"for those of {given.name!r}; they differ in "
                f"{'; '.join(made.passages.differences(given))} (trained against asked). Search "
                "an index of the encoder that it was trained for"
            )
        return made.passages

    @property
    def reader(self) -> FeedbackReader:
        """What reads texts, loaded on first use."""
        # A cached_property without a lock would load twice in two threads.
        with self._loading:
            return self._reader

    @cached_property
    def _reader(self) -> FeedbackReader:
        found = reader_of(
            self.name,
            self.passages,
            {
                "device": None if self.device is None else found_device(self.device),
                "revision": self.revision,
                "dtype": self.dtype,
                "allow_pickle": self.allow_pickle,
            },
        )
        expected = self.passages.identity.get("dim")
        if expected is not None and found.dim != expected:
            raise EncoderMismatchError(
                f"{self.name}: its vectors have {found.dim} components, those of "
                f"{self.passages.name!r} have {expected}"
            )
        return found

    @cached_property
    def layout(self) -> Layout:
        """How a query and its passages are joined; loads the model.

        Raises:
            DataError: It is longer than the model reads.
        """
        limit = self.reader.limit
        asked = self._layout or (self.made.layout if self.made else None)
        if asked is None:
            return Layout(min(Layout.max_length, limit))
        if asked.max_length > limit:
            raise DataError(
                f"{self.name}: max_length is {asked.max_length}, but the model reads {limit} tokens"
            )
        return asked

    @property
    def dim(self) -> int:
        """Components of each vector; loads the model."""
        return self.reader.dim

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the model, the encoder of the passages and the layout; loads the model."""
        identity: Mapping[str, Any] = {
            "model": self.reader.card.fingerprint,
            "passages": self.passages.fingerprint,
            "layout": self.layout.to_dict(),
        }
        return fingerprint_of(canonical(identity, "a feedback encoder"))

    def joined(
        self, queries: Sequence[str], passages: Sequence[Sequence[str]]
    ) -> list[Joined | None]:
        """The texts that the model reads; loads it.

        Args:
            queries: Words of queries.
            passages: Words of the passages of each, the best first.

        Returns:
            For each query its text; None where the query alone is too long.
        """
        reader, prefix = self.reader, self.reader.prefix()
        asked = _pieces(reader, [prefix + query for query in queries])
        # Passages come for several queries: each is read once.
        places = {text: row for row, text in enumerate(dict.fromkeys(
            text for texts in passages for text in texts
        ))}  # fmt: skip
        read = _pieces(reader, list(places))
        return [
            reader.join(query, [read[places[text]] for text in texts], self.layout)
            for query, texts in zip(asked, passages, strict=True)
        ]

    def encode(self, queries: Sequence[str], passages: Sequence[Sequence[str]]) -> Read:
        """Vectors of queries with their passages.

        Args:
            queries: Words of queries.
            passages: Words of the passages of each, the best first; possibly none.

        Returns:
            Vectors and counts.

        Raises:
            NonFiniteError: The model gave NaN or infinity; names the query.
        """
        texts = self.joined(queries, passages)
        rows = np.array([row for row, text in enumerate(texts) if text is not None], np.int64)
        known = [text for text in texts if text is not None]
        vectors = np.zeros((len(texts), self.dim), np.float32)
        vectors[rows] = in_batches(
            [queries[row] for row in rows],
            "query",
            Lengths([len(text.ids) for text in known], True, None),
            runner(self.reader, [text.ids for text in known]),
            name=self.name,
            dim=self.dim,
            batch_size=self.batch_size,
            dtype=self.dtype,
        ).vectors
        unread = np.setdiff1d(np.arange(len(texts)), rows)
        cut, number = sum(text.cut for text in known), sum(map(len, passages))
        return Read(vectors, unread, cut, number)


def runner(
    reader: FeedbackReader, texts: Sequence[Sequence[int]], *, narrow: bool = False
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """What passes some of the texts through a model, without a gradient.

    Args:
        reader: The model.
        texts: Ids of texts.
        narrow: Whether it computes in bfloat16 by autocast.

    Returns:
        A function from rows, int64 ``(m,)``, to vectors, float32 ``(m, dim)``.
    """

    def run(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            ids, mask = reader.padded([texts[row] for row in rows])
            return np.asarray(reader.vectors(ids, mask, narrow=narrow).cpu().numpy(), np.float32)

    return run


def _pieces(reader: FeedbackReader, texts: Sequence[str]) -> list[list[int]]:
    return [ids for part in by_parts(texts) for ids in reader.pieces(part)]
