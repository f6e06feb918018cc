"""`ChatEndpoint`: a model behind an OpenAI-compatible ``/chat/completions`` service.

Requests run side by side, a few at a time, and answers are put where their chats stand, in whatever
order they come. What is spent is counted; caps hold before anything is sent (`spending`). The key
is read from an environment variable when it is needed, and stands in no attribute, message, cache
or log.
"""

from __future__ import annotations

import contextvars
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, EndpointError
from retrievekit.language.answers import AnswerCache
from retrievekit.language.chat import Chat
from retrievekit.language.specials import WIDESPREAD, disarmed
from retrievekit.language.spending import Bill, Spent
from retrievekit.services import Service
from retrievekit.stage import canonical, fingerprint_of

FLOOR = 1.0
"""How far below the least listed token an answer is put that is not listed."""

_FRAME = 16
"""Tokens around a message at most, of the service's own chat template."""


@dataclass(frozen=True)
class _Answer:
    """What one request brought.

    Args:
        text: What the model said.
        cut_off: Whether it was as long as was allowed.
        listed: Tokens that it might have begun with, with their log-probabilities.
    """

    text: str
    cut_off: bool
    listed: tuple[tuple[str, float], ...]


class ChatEndpoint:
    """A language model by the name that a service knows it by.

    A service that fails (states 408, 429 and 5xx, broken or slow connections, answers that are no
    JSON) is asked again, after twice as long each time or as long as it says itself. What such a
    service computes may change behind its name, so it is never called deterministic.

    Args:
        model: The model's name, as the service knows it.
        url: Where the service is, such as ``https://api.example.org/v1``.
        key_variable: The environment variable that holds the API key; by default none is sent.
        temperature: How far answers may stray from the likeliest.
        seed: Sent along where given; draws of one chat given several times count up from it.
        top_logprobs: Tokens that are listed where answers are weighed; services allow 20 or fewer.
        continues: Whether the service continues a last message of the assistant, as vLLM does.
        options: Further fields of each request.
        length_name: What the service calls the limit of an answer; some models want
            ``max_completion_tokens``.
        concurrency: Requests under way at a time.
        timeout: Seconds that a connection may stay silent.
        retries: How often a failed request is repeated.
        backoff: Seconds before the first repetition.
        price_in: Price of a million tokens of prompts.
        price_out: Price of a million tokens of answers.
        cap_requests: Requests at most over the endpoint's life, repeated ones included.
        cap_tokens: Tokens at most, prompts and answers together.
        cap_cost: Cost at most, in the unit of the prices.
        cache: A file that keeps answers by what was asked, so that nothing is paid for twice.
        version: Which version of the model this is, where its name does not say.

    Raises:
        DataError: A parameter is none of these, a URL that holds a password or a query, or a key
            that would travel unencrypted.
    """

    deterministic = False

    def __init__(
        self,
        model: str,
        *,
        url: str,
        key_variable: str | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        top_logprobs: int = 20,
        continues: bool = False,
        options: Mapping[str, Any] | None = None,
        length_name: str = "max_tokens",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 6,
        backoff: float = 0.5,
        price_in: float = 0.0,
        price_out: float = 0.0,
        cap_requests: int | None = None,
        cap_tokens: int | None = None,
        cap_cost: float | None = None,
        cache: str | Path | None = None,
        version: str = "",
    ) -> None:
        if concurrency < 1 or top_logprobs < 1 or not temperature >= 0:
            raise DataError(
                "concurrency and top_logprobs are at least 1, temperature 0; got "
                f"{concurrency}, {top_logprobs} and {temperature}"
            )
        taken = {"model", "messages", "temperature", "seed", "logprobs", length_name, "stream", "n"}
        if taken & set(options or ()):
            raise DataError(f"options cannot set {sorted(taken & set(options or ()))}")
        self.model = model
        self.service = Service(url.rstrip("/"), key_variable, timeout, retries, backoff)
        self.temperature = temperature
        self.seed = seed
        self.top_logprobs = top_logprobs
        self.continues = continues
        self.options = dict(options or {})
        self.length_name = length_name
        self.concurrency = concurrency
        self.bill = Bill(price_in, price_out, cap_requests, cap_tokens, cap_cost)
        self.cache = None if cache is None else AnswerCache(cache)
        self.version = version
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        """The call that builds it."""
        return f"ChatEndpoint({self.model!r}, url={self.service.url!r})"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    @property
    def spent(self) -> Spent:
        """What has been asked and paid for so far."""
        return self.bill.spent

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over service, model and settings; what stands behind the name may change."""
        identity = {
            "class": "chat-endpoint",
            "model": self.model,
            "url": self.service.url,
            "version": self.version,
            "temperature": self.temperature,
            "seed": self.seed,
            "top_logprobs": self.top_logprobs,
            "continues": self.continues,
            "options": canonical(self.options, "options"),
        }
        return fingerprint_of(identity)

    def generate(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """Continue chats.

        Args:
            chats: The chats, possibly none.
            max_new_tokens: Tokens of each answer at most.

        Returns:
            For each chat what the model says. One that used up its tokens before it said anything
            gives an empty text; `spent` counts those that were cut off.

        Raises:
            DataError: A chat has no message, or ends with a message of the assistant though the
                service continues none.
            EndpointError: The service refused, or failed every time.
            LimitError: A cap would be passed.
        """
        return [one.text for one in self._asked(chats, max_new_tokens, {})]

    def logits(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.float64]:
        """The log-probability of each answer as the first token.

        Args:
            chats: The chats, possibly none.
            answers: What the model may say, each a single token, written as the service writes it.

        Returns:
            float64 ``(chats, answers)``. An answer that is not among the listed tokens gets the
            least log-probability listed, less `FLOOR`; `spent` counts these.

        Raises:
            DataError: A chat has no message, or ends with a message of the assistant though the
                service continues none; or two answers are the same.
            EndpointError: The service refused, failed every time, or lists no tokens.
            LimitError: A cap would be passed.
        """
        if len(set(answers)) != len(answers):
            raise DataError(f"answers differ from each other; got {list(answers)}")
        more = {"logprobs": True, "top_logprobs": self.top_logprobs}
        out = np.empty((len(chats), len(answers)), np.float64)
        missing = 0
        for row, found in enumerate(self._asked(chats, 1, more)):
            if not found.listed:
                raise EndpointError(
                    f"{self.service.url}, model {self.model!r}: no log-probabilities came; ask "
                    "for whole answers instead, or use a service that tells them"
                )
            listed = dict(reversed(found.listed))
            floor = min(value for _, value in found.listed) - FLOOR
            out[row] = [listed.get(answer, floor) for answer in answers]
            missing += sum(answer not in listed for answer in answers)
        self.bill.note(floored=missing)
        return out

    def _asked(
        self, chats: Sequence[Chat], max_new_tokens: int, more: Mapping[str, Any]
    ) -> list[_Answer]:
        """The answers to all chats, equal requests sent once."""
        if max_new_tokens < 1:
            raise DataError(f"max_new_tokens is at least 1, not {max_new_tokens}")
        bodies: dict[str, int] = {}
        before: dict[str, int] = {}
        wanted = []
        for chat in chats:
            body = self._body(chat, max_new_tokens, more)
            if self.temperature:
                # A chat given several times is asked for several draws.
                plain = json.dumps(body)
                copy = before[plain] = before.get(plain, -1) + 1
                body["seed"] = (self.seed or 0) + copy
            wanted.append(bodies.setdefault(json.dumps(body, sort_keys=True), len(bodies)))
        if not bodies:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(bodies))) as pool:
            # With the context of this thread, so that the trace hears what is counted.
            futures = [
                pool.submit(contextvars.copy_context().run, self._one, body, max_new_tokens)
                for body in bodies
            ]
            done, open_ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in open_:
                future.cancel()
            for future in futures:
                if future in done:
                    future.result()
        found = [future.result() for future in futures]
        return [found[number] for number in wanted]

    def _body(self, chat: Chat, max_new_tokens: int, more: Mapping[str, Any]) -> dict[str, Any]:
        if not chat:
            raise DataError("a chat of no message cannot be answered")
        body: dict[str, Any] = {
            **self.options,
            "model": self.model,
            "messages": [
                {
                    "role": one.role,
                    "content": one.content
                    if one.role == "assistant"
                    else disarmed(one.content, WIDESPREAD),
                }
                for one in chat
            ],
            "temperature": self.temperature,
            self.length_name: max_new_tokens,
            **more,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if chat[-1].role == "assistant":
            if not self.continues:
                raise DataError(
                    f"{self!r}: the chat ends with words of the assistant, which services continue "
                    "only by an extension; say continues=True if this one does"
                )
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def _one(self, body: str, max_new_tokens: int) -> _Answer:
        """The answer to one request, from the cache or the service."""
        key = hashlib.sha256(
            json.dumps([self.service.url, self.version, body]).encode()
        ).hexdigest()
        kept = None if self.cache is None else self.cache.get(key)
        if kept is not None:
            self.bill.note(kept=1)
            return self._read(kept.encode())
        # No token is less than a byte, so this is the most that the prompt can be.
        messages = json.loads(body)["messages"]
        most = sum(len(one["content"].encode()) + _FRAME for one in messages) + _FRAME
        with self.bill.reserved(next(self._numbers), most, max_new_tokens):
            raw = self.service.post(
                "/chat/completions",
                body.encode(),
                self.model,
                before=self.bill.attempt,
                fits=_is_json,
            )
            self._pay(raw, most, max_new_tokens)
        found = self._read(raw)
        if self.cache is not None:
            self.cache.put(key, raw.decode("utf-8", "replace"))
        return found

    def _pay(self, raw: bytes, most_in: int, most_out: int) -> None:
        told = json.loads(raw)
        usage = told.get("usage") if isinstance(told, dict) else None
        counts = usage if isinstance(usage, dict) else {}
        n_in, n_out = counts.get("prompt_tokens"), counts.get("completion_tokens")
        if isinstance(n_in, int) and isinstance(n_out, int) and min(n_in, n_out) >= 0:
            self.bill.pay(n_in, n_out)
        else:
            self.bill.pay(most_in, most_out)
            self.bill.note(estimated=1)

    def _read(self, raw: bytes) -> _Answer:
        """An answer as it travels."""
        try:
            choice = json.loads(raw)["choices"][0]
            cut_off = choice.get("finish_reason") == "length"
            text = choice["message"].get("content")
            if text is None and cut_off:
                text = ""
            if not isinstance(text, str):
                raise TypeError(f"its content is {text!r}")
            content = (choice.get("logprobs") or {}).get("content") or []
            listed = tuple(
                (str(one["token"]), float(one["logprob"]))
                for one in (content[0].get("top_logprobs") if content else [])
            )
            if not all(value <= 1e-3 for _, value in listed):
                raise ValueError("a log-probability is above 0, or none at all")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as why:
            raise EndpointError(
                f"{self.service.url}, model {self.model!r}: not an answer of a chat service "
                f"({type(why).__name__}: {why})"
            ) from why
        if cut_off and not listed:
            self.bill.note(cut_off=1)
        return _Answer(text, cut_off, listed)


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True
