"""`EndpointEncoder`: an OpenAI-compatible ``/v1/embeddings`` service as an encoder.

The key is read from an environment variable when it is needed, and stands in no card, message or
log. Answers are put into order by their ``index``, and their number and size are checked.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import logging
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.batches import check_role, check_texts
from retrievekit.encode.conventions import ROLES, Role
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EndpointError,
    LimitError,
    MissingDataError,
    NonFiniteError,
)
from retrievekit.protocols import EncoderCard, Similarity, similarity_named

log = logging.getLogger(__name__)

ANSWER_LIMIT = 1 << 28
"""Bytes of one answer that are read."""

RETRIED = (408, 429, 500, 502, 503, 504)
"""The states of HTTP after which the same request may succeed."""

LONGEST_WAIT = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


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
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(f"url starts with https:// or http://; got {parts.scheme or url!r}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise DataError(
                f"the url of {parts.hostname} holds a user, a password or a query, which would be "
                "written into every index; name an environment variable with key_variable"
            )
        if key_variable and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise DataError(f"a key is not sent to {parts.hostname} unencrypted; use https")
        if encoding not in ("float", "base64"):
            raise DataError(f"no encoding {encoding!r}; known: float, base64")
        if batch_size < 1 or retries < 0 or timeout <= 0 or (dimensions or 1) < 1:
            raise DataError(
                f"batch_size and dimensions are at least 1, retries 0, timeout above 0; got "
                f"{batch_size}, {dimensions}, {retries} and {timeout}"
            )
        strangers = set(prompts or ()) - set(ROLES)
        if strangers:
            raise DataError(f"prompts are for 'query' and 'document'; got {sorted(strangers)}")
        self.model = model
        self.url = url.rstrip("/")
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
        """Components of each vector; asks the service once."""
        return len(self._asked(["dimension"])[0])

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
                        f"{self.url}, model {self.model!r}"
                    )
                out[row] = vector
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
        answer = self._post(json.dumps(body).encode())
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

    def _post(self, body: bytes) -> bytes:
        key = self._key()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url}/embeddings", data=body, headers=headers, method="POST"
        )
        for attempt in range(self.retries + 1):
            wait = min(self.backoff * 2**attempt, LONGEST_WAIT) * random.uniform(0.8, 1.2)
            try:
                with _OPENER.open(request, timeout=self.timeout) as reply:
                    answer: bytes = reply.read(ANSWER_LIMIT + 1)
                    missing = reply.length
                if missing and len(answer) <= ANSWER_LIMIT:
                    # Python tells of a connection that ended early only when all is read at once.
                    raise http.client.IncompleteRead(b"", missing)
                if len(answer) > ANSWER_LIMIT:
                    raise LimitError(f"{self.url}: an answer of more than {ANSWER_LIMIT:,} bytes")
                return answer
            except urllib.error.HTTPError as why:
                with why:
                    said = why.read(500).decode("utf-8", "replace")
                problem = f"HTTP {why.code}: {said}"
                if why.code not in RETRIED:
                    raise EndpointError(self._told(problem, key)) from None
                wait = _asked_wait(why.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException) as why:
                problem = f"{type(why).__name__}: {why}"
            if attempt < self.retries:
                log.info("%s; asked again in %.1f s", self._told(problem, key), wait)
                time.sleep(wait)
        raise EndpointError(f"{self._told(problem, key)}; asked {self.retries + 1} times")

    def _key(self) -> str:
        if self.key_variable is None:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise MissingDataError(
                f"the environment variable {self.key_variable} is empty; it should hold the key of "
                f"{self.url}"
            )
        return key

    def _told(self, problem: str, key: str) -> str:
        # Some services repeat the key they were given.
        problem = problem.replace(key, "***") if key else problem
        return f"{self.url}, model {self.model!r}: {problem}"


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
    if host not in _LOOPBACK or card.numerics.get("key_variable"):
        raise DataError(
            f"the index names the service {card.numerics.get('url')} as its encoder; no index "
            "decides where queries and keys are sent. If you trust it, open the index with "
            f"EndpointEncoder({card.name!r}, url=..., key_variable=...)"
        )
    return EndpointEncoder.from_card(card)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would carry texts and the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _asked_wait(said: str | None, otherwise: float) -> float:
    """The seconds that a service asks to wait, within reason; it may also name a date."""
    try:
        return min(max(float(said or ""), 0.0), LONGEST_WAIT)
    except ValueError:
        return otherwise


def _vector(written: Any) -> NDArray[np.float32]:
    """A vector as it travels: a list of numbers, or base64 of little-endian float32."""
    if isinstance(written, str):
        return np.frombuffer(base64.b64decode(written, validate=True), "<f4").astype(np.float32)
    vector = np.array(written)
    if vector.ndim != 1 or vector.dtype.kind not in "iuf" or not len(vector):
        raise ValueError("an embedding is a list of numbers")
    return vector.astype(np.float32)
