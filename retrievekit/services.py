"""Asking a service on the network: what encoders and language models behind a URL share.

A request is sent again after failures that may pass (states 408, 429 and 5xx, broken or slow
connections), after twice as long each time or as long as the service asks. The key is read from an
environment variable when it is needed, and stands in no message, log or attribute. Redirects are
errors, since they would carry texts and the key elsewhere.
"""

from __future__ import annotations

import http.client
import logging
import math
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from retrievekit.errors import DataError, EndpointError, LimitError, MissingDataError

log = logging.getLogger(__name__)

ANSWER_LIMIT = 1 << 28
"""Bytes of one answer that are read."""

RETRIED = (408, 429, 500, 502, 503, 504)
"""The states of HTTP after which the same request may succeed."""

LONGEST_WAIT = 60.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that are this machine."""


@dataclass(frozen=True)
class Service:
    """A service that takes JSON and gives JSON.

    Args:
        url: Where it is, such as ``https://api.example.org/v1``; without a slash at its end.
        key_variable: The environment variable that holds the API key; None sends none.
        timeout: Seconds that a connection may stay silent.
        retries: How often a failed request is repeated.
        backoff: Seconds before the first repetition.

    Raises:
        DataError: A URL that holds a password or a query, a key that would travel unencrypted, or a
            number out of range.
    """

    url: str
    key_variable: str | None = None
    timeout: float = 60.0
    retries: int = 6
    backoff: float = 0.5

    def __post_init__(self) -> None:
        """Check where texts and the key would go."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(
                f"url starts with https:// or http://; got {parts.scheme or self.url!r}"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise DataError(
                f"the url of {parts.hostname} holds a user, a password or a query, which would be "
                "written into every index; name an environment variable with key_variable"
            )
        if self.key_variable and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise DataError(f"a key is not sent to {parts.hostname} unencrypted; use https")
        if self.retries < 0 or self.timeout <= 0:
            raise DataError(
                f"retries are at least 0, timeout above 0; got {self.retries} and {self.timeout}"
            )

    def post(
        self,
        path: str,
        body: bytes,
        model: str,
        *,
        before: Callable[[], None] | None = None,
        fits: Callable[[bytes], bool] | None = None,
    ) -> bytes:
        """Send one request, again where it fails.

        Args:
            path: What is put behind the URL, such as ``/embeddings``.
            body: The JSON that is sent.
            model: Which model is asked, for messages.
            before: Called before each attempt; what it raises ends the matter.
            fits: Whether an answer can be used; one that cannot counts as a failure that may pass.

        Returns:
            The whole answer.

        Raises:
            EndpointError: The service refused, or failed every time.
            LimitError: The answer has more than `ANSWER_LIMIT` bytes.
            MissingDataError: The variable of the key is empty, or holds no key.
        """
        key = self._key()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method="POST")

        def told(problem: str) -> str:
            # Some services repeat the key they were given.
            problem = problem.replace(key, "***") if key else problem
            return f"{self.url}, model {model!r}: {problem}"

        for attempt in range(self.retries + 1):
            wait = min(self.backoff * 2**attempt, LONGEST_WAIT) * random.uniform(0.8, 1.2)
            if before is not None:
                before()
            try:
                with _OPENER.open(request, timeout=self.timeout) as reply:
                    answer: bytes = reply.read(ANSWER_LIMIT + 1)
                    missing = reply.length
                if len(answer) > ANSWER_LIMIT:
                    raise LimitError(f"{self.url}: an answer of more than {ANSWER_LIMIT:,} bytes")
                if missing:
                    # Python tells of a connection that ended early only when all is read at once.
                    problem = f"the answer ended {missing} bytes early"
                elif fits is None or fits(answer):
                    return answer
                else:
                    shown = answer[:200].decode(errors="replace")
                    problem = f"an answer that cannot be used: {shown}"
            except urllib.error.HTTPError as why:
                with why:
                    said = why.read(500).decode("utf-8", "replace")
                problem = f"HTTP {why.code}: {said}"
                if why.code not in RETRIED:
                    raise EndpointError(told(problem)) from None
                wait = _asked_wait(why.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException) as why:
                problem = f"{type(why).__name__}: {why}"
            if attempt < self.retries:
                log.info("%s; asked again in %.1f s", told(problem), wait)
                time.sleep(wait)
        raise EndpointError(f"{told(problem)}; asked {self.retries + 1} times")

    def _key(self) -> str:
        if self.key_variable is None:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise MissingDataError(
                f"the environment variable {self.key_variable} is empty; it should hold the key of "
                f"{self.url}"
            )
        if not key.isascii() or not key.isprintable():
            # The error of the HTTP library would show it.
            raise MissingDataError(
                f"the environment variable {self.key_variable} holds no key: it has line breaks or "
                "characters that no header of HTTP can hold"
            )
        return key


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would carry texts and the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _asked_wait(said: str | None, otherwise: float) -> float:
    """The seconds that a service asks to wait, within reason; it may also name a date."""
    try:
        asked = float(said or "")
    except ValueError:
        return otherwise
    return otherwise if math.isnan(asked) else min(max(asked, 0.0), LONGEST_WAIT)
