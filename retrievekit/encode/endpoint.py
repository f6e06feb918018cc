"""`EndpointEncoder`: an OpenAI-compatible ``/v1/embeddings`` service as an encoder.

The key is read from an environment variable when it is needed, and stands in no card, message or
log. Answers are put into order by their ``index``, and their number and size are checked.
"""

from __future__ import annotations

import base64
import binascii
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.batches import check_prompts, check_role, check_texts
from retrievekit.encode.conventions import ROLES, Role
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.headway import report_headway
from retrievekit.protocols import EncoderCard, Similarity, similarity_named
from retrievekit.services import LOOPBACK, Service


class EndpointEncoder:
    """Vectors from an embedding service with OpenAI's interface.

    A service that fails (states 408, 429 and 5xx, broken or slow connections) is asked again, after
    twice as long each time or as long as it says itself. What such a service computes may change
    behind its name; the card says so (``deterministic: false``).

    Args:
        model: The model's name, as the service knows it.
        url: Where the service is, such as ``https://api.example.org/v1``.
        key_variable: The environment variable that holds the API key; by default none is sent.
        similarity: How vectors are compared: ``dot``, ``cosine`` or ``euclidean``.
        dimensions: Components that the service is asked to cut vectors to; by default its own.
        prompts: What is put before texts: ``{"query": ..., "document": ...}``.
        encoding: How vectors travel: ``float`` or ``base64``.
        batch_size: Texts per request.
        timeout: Seconds that a connection may stay silent.
        retries: How often a failed request is repeated.
        backoff: Seconds before the first repetition.
        empty: What is sent in the place of a text without characters, which services refuse.
        version: Which version of the model this is, where its name does not say.

    Raises:
        DataError: A parameter is none of these, a URL that holds a password or a query, or a key
            that would travel unencrypted.
    """

    def __init__(
        self,
        model: str,
        *,
        url: str,
        key_variable: str | None = None,
        similarity: str = "cosine",
        dimensions: int | None = None,
        prompts: Mapping[Role, str] | None = None,
        encoding: Literal["float", "base64"] = "float",
        batch_size: int = 64,
        timeout: float = 60.0,
        retries: int = 6,
        backoff: float = 0.5,
        empty: str = " ",
        version: str = "",
    ) -> None:
        url = url.rstrip("/")
        Service(url, key_variable, timeout, retries, backoff)
        if encoding not in ("float", "base64"):
            raise DataError(f"no encoding {encoding!r}; known: float, base64")
        if batch_size < 1 or (dimensions or 1) < 1:
            raise DataError(
                f"batch_size and dimensions are at least 1; got {batch_size} and {dimensions}"
            )
        check_prompts(prompts)
        self.model = model
        self.url = url
        self.key_variable = key_variable
        self.dimensions = dimensions
        self.prompts: dict[Role, str] = {role: (prompts or {}).get(role, "") for role in ROLES}
        self.encoding = encoding
        self.batch_size = batch_size
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self.empty = empty
        self.version = version
        self._similarity = similarity_named(similarity)

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"EndpointEncoder({self.model!r}, url={self.url!r})"

    @classmethod
    def from_card(cls, card: EncoderCard) -> EndpointEncoder:
        """The encoder that a card describes.

        Args:
            card: A card that an `EndpointEncoder` gave.

        Returns:
            The encoder; it asks the same service, with the key of the same variable. For a card
            that a stranger may have written, `reopened` is careful.
        """
        own, how = card.identity, card.numerics
        return cls(
            own["model"],
            url=how["url"],
            key_variable=how["key_variable"],
            similarity=own["similarity"],
            dimensions=own["dimensions"],
            prompts=own["prompts"],
            encoding=how["encoding"],
            empty=own["empty"],
            version=own["version"],
        )

    @property
    def card(self) -> EncoderCard:
        """Who the encoder is; asks the service for the size of its vectors once."""
        identity = {
            "class": "endpoint",
            "model": self.model,
            "version": self.version,
            "dimensions": self.dimensions,
            "prompts": dict(self.prompts),
            "empty": self.empty,
            "similarity": self.similarity,
            "dim": self.dim,
        }
        numerics = {
            "backend": "endpoint",
            "dtype": "float32",
            "deterministic": False,
            "url": self.url,
            "key_variable": self.key_variable,
            "encoding": self.encoding,
        }
        return EncoderCard(self.model, identity, numerics)

    @cached_property
    def dim(self) -> int:
        """Components of each vector; asks the service once.

        Raises:
            EncoderContractError: The service gives another number than was asked for.
        """
        found = len(self._asked(["dimension"])[0])
        if self.dimensions not in (None, found):
            raise EncoderContractError(
                f"{self.url}, model {self.model!r}: asked for vectors of {self.dimensions} "
                f"components, it gives {found}; it does not cut vectors. Leave out dimensions, and "
                f"cut them here: TruncatedEncoder(encoder, {self.dimensions})"
            )
        return found

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return self._similarity

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self._encoded(texts, "query")

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents.

        Args:
            texts: The texts, possibly empty ones, possibly none.

        Returns:
            float32 ``(n, dim)``.
        """
        return self._encoded(texts, "document")

    def _encoded(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        check_role(role)
        check_texts(texts, role)
        out = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), self.batch_size):
            some = texts[start : start + self.batch_size]
            vectors = self._asked([self.prompts[role] + text or self.empty for text in some])
            for row, vector in enumerate(vectors, start):
                if len(vector) != self.dim:
                    raise EncoderContractError(
                        f"{self.url}: the vector of {role} {row} has {len(vector)} components, "
                        f"earlier ones {self.dim}"
                    )
                if not np.isfinite(vector).all():
                    raise NonFiniteError(
                        f"the vector of {role} {row} ({texts[row][:60]!r}) holds NaN or infinity; "
                        f"{self.url}, model {self.model!r}",
                        row,
                    )
                out[row] = vector
            report_headway(start + len(vectors))
        return out

    def _asked(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """One request: the vectors of some texts, in their order."""
        body: dict[str, Any] = {
            "model": self.model,
            "input": texts,
            "encoding_format": self.encoding,
        }
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        service = Service(self.url, self.key_variable, self.timeout, self.retries, self.backoff)
        answer = service.post("/embeddings", json.dumps(body).encode(), self.model)
        try:
            entries = json.loads(answer)["data"]
            places = [entry["index"] for entry in entries]
            vectors = [_vector(entry["embedding"]) for entry in entries]
        except (ValueError, KeyError, TypeError, binascii.Error) as why:
            raise EncoderContractError(
                f"{self.url}: not an answer of an embedding service ({type(why).__name__}: {why})"
            ) from why
        if sorted(map(repr, places)) != sorted(map(repr, range(len(texts)))):
            raise EncoderContractError(
                f"{self.url}: {len(texts)} texts were sent, vectors came for {places[:10]}"
            )
        ordered: list[NDArray[np.float32]] = [vectors[0]] * len(texts)
        for place, vector in zip(places, vectors, strict=True):
            ordered[place] = vector
        return ordered


def reopened(card: EncoderCard) -> EndpointEncoder:
    """The encoder of a card that stands in an index, which anybody may have written.

    Args:
        card: The card.

    Returns:
        The encoder, where its service is on this machine and takes no key.

    Raises:
        DataError: An index would decide where this machine's queries, and a key of its
            environment, are sent.
    """
    host = urllib.parse.urlsplit(str(card.numerics.get("url"))).hostname
    if host not in LOOPBACK or card.numerics.get("key_variable"):
        raise DataError(
            f"the index names the service {card.numerics.get('url')} as its encoder; no index "
            "decides where queries and keys are sent. If you trust it, open the index with "
            f"EndpointEncoder({card.name!r}, url=..., key_variable=...)"
        )
    return EndpointEncoder.from_card(card)


def _vector(written: Any) -> NDArray[np.float32]:
    """A vector as it travels: a list of numbers, or base64 of little-endian float32."""
    if isinstance(written, str):
        return np.frombuffer(base64.b64decode(written, validate=True), "<f4").astype(np.float32)
    vector = np.array(written)
    if vector.ndim != 1 or vector.dtype.kind not in "iuf" or not len(vector):
        raise ValueError("an embedding is a list of numbers")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused where it is used
        return vector.astype(np.float32)
