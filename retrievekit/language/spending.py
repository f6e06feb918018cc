"""What questions to a service cost, counted, with caps that are kept before anything is spent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from retrievekit.errors import DataError, LimitError
from retrievekit.trace import count

_COUNTED = {
    "kept": "answers from the cache",
    "estimated": "answers of unknown length",
    "cut_off": "answers cut off",
    "floored": "answers not listed",
}
"""What `Spent` counts besides requests and tokens, as a trace calls it."""


@dataclass(frozen=True)
class Spent:
    """What has been asked and paid for so far.

    Args:
        requests: Requests sent, repeated ones included.
        tokens_in: Tokens of prompts, as the service counts them.
        tokens_out: Tokens of answers, as the service counts them.
        cost: What they cost at the prices given.
        kept: Answers that were found in the cache and cost nothing.
        estimated: Answers whose tokens the service did not tell; the most they can be is counted.
        cut_off: Answers that ended because they were as long as was allowed.
        floored: Answers whose token was not among those that the service listed.
    """

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    kept: int = 0
    estimated: int = 0
    cut_off: int = 0
    floored: int = 0


@dataclass
class Bill:
    """Counts, and refuses what would pass a cap; safe to share between threads.

    A request is let through only if the most it can cost fits under the caps beside what is under
    way. So a cap is never passed, but for requests that fail on their way back, of whose tokens
    nobody tells.

    Args:
        price_in: Price of a million tokens of prompts.
        price_out: Price of a million tokens of answers.
        cap_requests: Requests at most, repeated ones included; None is no cap.
        cap_tokens: Tokens at most, prompts and answers together; None is no cap.
        cap_cost: Cost at most, in the unit of the prices; None is no cap.

    Raises:
        DataError: A number below 0, or a cap on a cost without prices.
    """

    price_in: float = 0.0
    price_out: float = 0.0
    cap_requests: int | None = None
    cap_tokens: int | None = None
    cap_cost: float | None = None
    spent: Spent = field(default_factory=Spent, init=False)
    _pending: dict[int, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)
    _settled: threading.Condition = field(
        default_factory=threading.Condition, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Check prices and caps."""
        given = (
            self.price_in, self.price_out, self.cap_requests, self.cap_tokens, self.cap_cost
        )  # fmt: skip
        if not all(value is None or value >= 0 for value in given):
            raise DataError(f"prices and caps are at least 0; got {given}")
        if self.cap_cost is not None and not (self.price_in or self.price_out):
            raise DataError("cap_cost needs price_in and price_out, per million tokens")

    def note(self, **more: int) -> None:
        """Add to the counts of `Spent`, and to those of the trace.

        Args:
            more: By name what is added.
        """
        with self._settled:
            self.spent = replace(
                self.spent, **{name: getattr(self.spent, name) + n for name, n in more.items()}
            )
            for name, n in more.items():
                count(_COUNTED[name], n)

    def attempt(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            LimitError: It would pass the cap on requests.
        """
        with self._settled:
            cap = self.cap_requests
            if cap is not None and self.spent.requests >= cap:
                raise LimitError(f"the cap of {cap} requests is reached; {self._sum()}")
            self.spent = replace(self.spent, requests=self.spent.requests + 1)
            count("requests")

    @contextmanager
    def reserved(self, number: int, tokens_in: int, tokens_out: int) -> Iterator[None]:
        """Hold back the most that a request can cost while it is under way.

        Args:
            number: The request, by a number of its own.
            tokens_in: Tokens of its prompt at most.
            tokens_out: Tokens of its answer at most.

        Raises:
            LimitError: It could pass a cap; nothing was sent.
        """
        with self._settled:
            # What is under way may turn out cheaper than it could have been.
            while (problem := self._too_much(tokens_in, tokens_out)) and self._pending:
                self._settled.wait()
            if problem:
                raise LimitError(f"{problem}; {self._sum()}")
            self._pending[number] = tokens_in, tokens_out
        try:
            yield
        finally:
            with self._settled:
                del self._pending[number]
                self._settled.notify_all()

    def pay(self, tokens_in: int, tokens_out: int) -> None:
        """Count the tokens of a request that was answered.

        Args:
            tokens_in: Tokens of its prompt.
            tokens_out: Tokens of its answer.
        """
        with self._settled:
            self.spent = replace(
                self.spent,
                tokens_in=self.spent.tokens_in + tokens_in,
                tokens_out=self.spent.tokens_out + tokens_out,
                cost=self.spent.cost + self._price(tokens_in, tokens_out),
            )
            count("tokens of prompts", tokens_in)
            count("tokens of answers", tokens_out)

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def _too_much(self, tokens_in: int, tokens_out: int) -> str:
        """Why a request is too much beside what is spent and under way, or nothing."""
        n_in = tokens_in + sum(pair[0] for pair in self._pending.values())
        n_out = tokens_out + sum(pair[1] for pair in self._pending.values())
        spent = self.spent
        total = spent.tokens_in + spent.tokens_out + n_in + n_out
        if self.cap_tokens is not None and total > self.cap_tokens:
            return f"the next request could pass the cap of {self.cap_tokens} tokens"
        if self.cap_cost is not None and spent.cost + self._price(n_in, n_out) > self.cap_cost:
            return f"the next request could pass the cap of {self.cap_cost} on the cost"
        return ""

    def _sum(self) -> str:
        spent = self.spent
        return (
            f"{spent.requests} requests, {spent.tokens_in} + {spent.tokens_out} tokens and "
            f"{spent.cost:.4f} spent so far"
        )
