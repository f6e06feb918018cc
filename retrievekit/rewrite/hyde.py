"""HyDE: a query's vector moved among those of documents that a model makes up for it.

Gao et al., "Precise Zero-Shot Dense Retrieval without Relevance Labels" (ACL 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError
from retrievekit.index.dense import DenseIndex
from retrievekit.index.encoding import checked_vectors, normalised
from retrievekit.language.chat import Chat
from retrievekit.protocols import Encoder
from retrievekit.queries import Form, Queries
from retrievekit.rewrite.base import GenerativeRewriter, check_whole
from retrievekit.rewrite.prompts import PASSAGE, QUERY, asked, check_prompt
from retrievekit.vectors import DenseVectors

PART = 256
"""Queries whose documents are encoded at a time."""


@dataclass(frozen=True, repr=False)
class HyDE(GenerativeRewriter):
    """Searches with the mean of the vectors of the query and of made-up documents.

    ``v = (e_q(q) + sum of e_d(g_i)) / (n + 1)`` over the n documents that were written, where e_q
    and e_d are how the encoder reads queries and documents. Under the cosine similarity each vector
    is of length 1 before the mean, as an index has them. Sums are float64.

    Published with eight documents of at most 512 tokens at temperature 0.7.

    Args:
        model: Writes; its temperature is above 0 where several documents are asked for.
        max_new_tokens: Tokens of a document at most.
        switch: Which queries are rewritten; None rewrites all.
        cache: A file that keeps what was written, by model, prompt and settings.
        encoder: The encoder of the index that is searched, or that index itself; given second.
        documents: Documents of each query, at least 1.
        prompt: What the model is asked, with ``{query}`` in it.

    Raises:
        DataError: A setting is none of these.
    """

    encoder: Encoder | DenseIndex = field(metadata={"knob": True}, repr=False)
    max_new_tokens: int = field(default=512, kw_only=True)
    documents: int = field(default=8, kw_only=True)
    prompt: str = field(default=PASSAGE, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings; nothing is loaded."""
        check_whole("documents", self.documents)
        super().__post_init__()
        check_prompt(self.prompt, QUERY)
        if not isinstance(self.encoder, DenseIndex) and not hasattr(self.encoder, "encode_query"):
            raise DataError(
                f"HyDE searches with dense vectors: give it a dense encoder or index, not "
                f"{self.encoder!r}; for an index of terms there is Query2Doc"
            )

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return "hyde"

    def identity(self) -> dict[str, Any]:
        """Class, version and parameters; the encoder by its card, whichever index it is from."""
        return {**super().identity(), "encoder": self.encoder.card.fingerprint}

    @property
    def draws(self) -> int:
        """Texts that are drawn for each prompt."""
        return self.documents

    def chats(self, text: str) -> list[Chat]:
        """The prompt of one query."""
        return [asked(self.prompt, QUERY, text)]

    def form(self, batch: Queries, written: Sequence[tuple[str, ...]]) -> Form:
        """The mean vectors, `DenseVectors` of ``(nq, dim)``."""
        words = batch.rewritten_texts
        parts = [
            self._means(words[start : start + PART], written[start : start + PART])
            for start in range(0, len(words), PART)
        ]
        whole = np.concatenate(parts) if parts else np.empty((0, self.encoder.dim), np.float32)
        return DenseVectors(whole, self.encoder.card.fingerprint)

    def _means(
        self, words: Sequence[str], written: Sequence[tuple[str, ...]]
    ) -> NDArray[np.float32]:
        sums = self._vectors(words, "query").astype(np.float64)
        texts = [text for own in written for text in own]
        counts = np.array([len(own) for own in written], np.int64)
        if texts:
            owners = np.repeat(np.arange(len(words)), counts)
            np.add.at(sums, owners, self._vectors(texts, "document"))
        means: NDArray[np.float32] = (sums / (counts + 1)[:, None]).astype(np.float32)
        return means

    def _vectors(self, texts: Sequence[str], side: str) -> NDArray[np.float32]:
        encoder = self.encoder
        if isinstance(encoder, DenseIndex):
            encoder = encoder.encoder
        encode = encoder.encode_query if side == "query" else encoder.encode_document
        names = [repr(text[:40]) for text in texts]
        vectors = checked_vectors(encode(list(texts)), len(texts), encoder, side, names)
        return normalised(vectors) if self.encoder.similarity == "cosine" else vectors

    def explain_parts(self, batch: Queries, doc_id: str) -> Mapping[str, float]:
        """The documents that were written, each with its share in the mean."""
        texts = self.explained(batch).texts
        return {text: texts.count(text) / (len(texts) + 1) for text in dict.fromkeys(texts)}
