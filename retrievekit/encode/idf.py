"""Inference-free queries: a weight per token out of a table, no model.

Geng et al., "Competitive Search Relevance for Inference-Free Learned Sparse Retrievers" (arXiv
2411.04403): a query weighs ``w_q(t) = idf(t)`` for each of its tokens, once however often it comes,
so that ``s(q, d) = sum of idf(t) * w_d(t) over the tokens t of q``. The idf is Lucene's::

    idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))

which is what the published tables hold (their largest value, 15.5895, is that of a token in one of
MS MARCO's 8,841,823 passages; tokens in none have 1). Special tokens weigh nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.corpus import Corpus
from retrievekit.encode.batches import check_texts, for_counting
from retrievekit.encode.weighing import TermEncoder
from retrievekit.errors import DataError, ParseError, UnknownNameError
from retrievekit.protocols import EncoderCard, Progress
from retrievekit.vectors import SparseVectors, check_finite, read_only

UNSEEN = 1.0
"""The weight of a token that no document holds, as in the published tables."""

_AT_A_TIME = 1024

_TABLE = "idf"


@dataclass(frozen=True, eq=False)
class IdfTable:
    """A weight for each token of one tokenizer.

    Args:
        tokens: The tokens by column.
        weights: float32 ``(V,)``, none below 0.

    Raises:
        DataError: They differ in number, or a weight is below 0.
        NonFiniteError: A weight is NaN or infinite.
    """

    tokens: tuple[str, ...]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check the weights, and freeze."""
        weights = np.ascontiguousarray(self.weights, np.float32)
        if weights.shape != (len(self.tokens),):
            raise DataError(f"{len(self.tokens)} tokens, but weights of shape {weights.shape}")
        check_finite(weights, "token")
        if (weights < 0).any():
            bad = int(np.flatnonzero(weights < 0)[0])
            raise DataError(f"token {self.tokens[bad]!r} weighs {weights[bad]}, below 0")
        object.__setattr__(self, "weights", read_only(weights))

    @classmethod
    def computed(
        cls, source: Corpus | Iterable[str], tokenizer: Any, *, progress: Progress | None = None
    ) -> IdfTable:
        """The table of a corpus; its texts are read once and are not cut.

        Args:
            source: A corpus (title and text joined by one blank), or any iterable of texts.
            tokenizer: A tokenizer of transformers.
            progress: Called with the number of texts done.

        Returns:
            The table; special tokens weigh 0, tokens in no text 1.

        Raises:
            DataError: One string, or a text that is no string or no valid Unicode.
        """
        if isinstance(source, str):
            raise DataError("an idf table is counted over texts; got one string")
        counts, tokenizer = np.zeros(len(tokenizer), np.int64), for_counting(tokenizer)
        texts = _texts(source) if isinstance(source, Corpus) else source
        part: list[str] = []
        documents = 0

        def count() -> None:
            check_texts(part, "document")
            ids = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
            for row in ids:
                counts[list(set(row))] += 1
            part.clear()
            if progress is not None:
                progress(documents, None)

        for text in texts:
            part.append(text)
            documents += 1
            if len(part) == _AT_A_TIME:
                count()
        if part:
            count()
        weights = np.log1p((documents - counts + 0.5) / (counts + 0.5))
        weights[counts == 0] = UNSEEN
        weights[list(tokenizer.all_special_ids)] = 0
        names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        return cls(tuple(names), weights.astype(np.float32))

    @classmethod
    def read(cls, path: str | Path, tokenizer: Any) -> IdfTable:
        """Read a table of JSON, ``{token: weight}``, such as the ``idf.json`` of a model.

        Args:
            path: The file.
            tokenizer: The tokenizer it was made for.

        Returns:
            The table; special tokens, and tokens that the file lacks, weigh 0.

        Raises:
            ParseError: It is no such file, or names a token that the tokenizer does not know.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_bytes(), object_pairs_hook=_once)
        except ValueError as why:
            raise ParseError(path, None, f"not JSON: {why}") from why
        numbers = isinstance(content, Mapping) and all(
            isinstance(weight, int | float) and not isinstance(weight, bool)
            for weight in content.values()
        )
        if not numbers:
            raise ParseError(path, None, "not an object of a number by token")
        names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        columns = {name: column for column, name in enumerate(names)}
        strangers = [token for token in content if token not in columns]
        if strangers:
            raise ParseError(
                path, None, f"{len(strangers)} tokens are not the tokenizer's, such as "
                f"{strangers[:3]}; a table belongs to one tokenizer"
            )  # fmt: skip
        weights = np.zeros(len(names), np.float64)
        for token, weight in content.items():
            # An integer may be beyond what a float can be.
            if not abs(weight) <= float(np.finfo(np.float32).max):
                raise ParseError(path, None, f"{token!r} weighs {weight!r:.40}, no finite float32")
            weights[columns[token]] = weight
        weights[list(tokenizer.all_special_ids)] = 0
        return cls(tuple(names), weights.astype(np.float32))

    def write(self, path: str | Path) -> None:
        """Write the table as JSON, ``{token: weight}``.

        Args:
            path: The file; one that is there is replaced.
        """
        weights = map(float, self.weights)
        text = json.dumps(dict(zip(self.tokens, weights, strict=True)), ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over tokens and weights."""
        digest = hashlib.sha256(json.dumps(self.tokens).encode("utf-8"))
        digest.update(self.weights.astype("<f4").tobytes())
        return digest.hexdigest()


class InferenceFreeEncoder:
    """Documents by a sparse encoder, queries by a table.

    Args:
        documents: Encodes documents; its tokenizer reads queries too.
        table: The weights of queries' tokens.
    """

    def __init__(self, documents: TermEncoder, table: IdfTable) -> None:
        self.documents = documents
        self.table = table

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"InferenceFreeEncoder({self.documents!r}, ...)"

    @classmethod
    def from_corpus(
        cls,
        documents: TermEncoder,
        corpus: Corpus | Iterable[str],
        *,
        progress: Progress | None = None,
    ) -> InferenceFreeEncoder:
        """The encoder with the table of a corpus.

        Args:
            documents: Encodes documents; its tokenizer reads queries too.
            corpus: The corpus, or any iterable of texts, read once.
            progress: Called with the number of texts done.

        Returns:
            The encoder.

        Raises:
            DataError: The encoder has no tokenizer of transformers, or a text is none.
        """
        table = IdfTable.computed(corpus, _tokenizer(documents), progress=progress)
        return cls(documents, table)

    @classmethod
    def from_card(
        cls, card: EncoderCard, kept: Mapping[str, NDArray[Any]] | None = None
    ) -> InferenceFreeEncoder:
        """The encoder that a card and the table kept beside it describe.

        Args:
            card: A card that an `InferenceFreeEncoder` gave.
            kept: What `kept` of it was; float32 ``(V,)`` by name.

        Returns:
            The encoder.

        Raises:
            UnknownNameError: The table was not kept; says how to bring the encoder.
        """
        made_by = card.identity.get("documents")
        if not kept or made_by is None:
            raise UnknownNameError(
                f"the queries of {card.name!r} are weighed by a table of its own, which this index "
                "does not hold: open the index with its encoder, SparseIndex.open(path, encoder)"
            )
        own = {key: value for key, value in card.identity.items()
               if key not in ("queries", "documents")}  # fmt: skip
        described = EncoderCard(card.name, {**own, "class": made_by}, card.numerics)
        documents = registry.resolve("encoder-class", made_by)(described)
        weights = kept[_TABLE]
        return cls(documents, IdfTable(tuple(documents.tokens[: len(weights)]), weights))

    @property
    def kept(self) -> Mapping[str, NDArray[np.float32]]:
        """What an index keeps so that the card leads here again: the table, float32 ``(V,)``."""
        return {_TABLE: self.table.weights}

    @property
    def run_settings(self) -> Mapping[str, Any]:
        """Those of the documents' encoder."""
        found: Mapping[str, Any] = getattr(self.documents, "run_settings", {})
        return found

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is; loads the model."""
        card = self.documents.card
        identity = {
            **card.identity,
            "class": "idf",
            "documents": card.identity.get("class"),
            "queries": self.table.content_hash,
        }
        return EncoderCard(card.name, identity, card.numerics)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The name of each column; loads the model."""
        return self.documents.tokens

    def encode_query(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of queries: the table's weight for each token that is there.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            The weights, float32, one row per text.

        Raises:
            DataError: The table belongs to another tokenizer, or the encoder has none of
                transformers.
        """
        if self.table.tokens != self.tokens[: len(self.table.tokens)]:
            raise DataError(
                f"the table's tokens are not those of {self.documents.name}; compute it with the "
                "encoder's own tokenizer"
            )
        check_texts(texts, "query")
        tokenizer = _tokenizer(self.documents)
        offsets, columns = [0], []
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            found = sorted({column for column in ids if self.table.weights[column] > 0})
            columns += found
            offsets.append(len(columns))
        taken = np.array(columns, np.int32)
        return SparseVectors(
            np.array(offsets, np.int64), taken, self.table.weights[taken], len(self.tokens),
            self.card.fingerprint,
        )  # fmt: skip

    def encode_document(self, texts: Sequence[str]) -> SparseVectors:
        """Term weights of documents.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            The weights, float32, one row per text.
        """
        out = self.documents.encode_document(texts)
        return SparseVectors(out.offsets, out.columns, out.values, out.size, self.card.fingerprint)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no name comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice!r} comes twice")
    return found


def _tokenizer(documents: TermEncoder) -> Any:
    found = documents.counting("document")
    if found is None:
        raise DataError(
            f"{documents.name}: has no tokenizer of transformers, by whose tokens a table weighs"
        )
    return found


def _texts(corpus: Corpus) -> Iterable[str]:
    for part in corpus.chunks():
        yield from part.contents()
