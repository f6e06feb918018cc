"""How far a long call has come, told from inside it: batches of texts to whoever waits for them.

An encoder is asked for thousands of vectors in one call, so that batches can be of similar length.
It says with `report_headway` how many are done; who made the call may listen by `following`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator

_listener: contextvars.ContextVar[Callable[[int], None] | None] = contextvars.ContextVar(
    "headway", default=None
)


@contextlib.contextmanager
def following(told: Callable[[int], None]) -> Iterator[None]:
    """Listen to calls of this thread while this lasts.

    Args:
        told: Called with how much of the call is done.
    """
    token = _listener.set(told)
    try:
        yield
    finally:
        _listener.reset(token)


def report_headway(done: int) -> None:
    """Say how far this call is, to whoever listens; otherwise nothing happens.

    Args:
        done: How much of it is done.
    """
    told = _listener.get()
    if told is not None:
        told(done)


@contextlib.contextmanager
def counted_as(whole: int, parts: int) -> Iterator[None]:
    """While this lasts, what is said in parts is told as its share of the whole.

    Args:
        whole: How much there is in the listener's units, such as queries.
        parts: How much there is in those of the calls within, such as pairs; at least 1.
    """
    told = _listener.get()
    if told is None:
        yield
        return
    with following(lambda done: told(done * whole // parts)):
        yield
