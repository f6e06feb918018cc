"""Several devices that work as one: a copy of the model on each, batches side by side.

Batches are made as for one device, and each passes whole through one copy, so that where it ran
does not change its companions: equal devices give the vectors that one of them alone would give.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from retrievekit.errors import DataError

if TYPE_CHECKING:
    from torch import nn

Device: TypeAlias = str | Sequence[str] | None
"""A device such as ``cpu`` or ``cuda:1``, several of them, or None for the best there is."""

T = TypeVar("T")
R = TypeVar("R")
M = TypeVar("M", bound="nn.Module")


def devices_of(device: Device) -> tuple[str | None, ...]:
    """The devices that a setting names.

    Args:
        device: The setting.

    Returns:
        At least one; None stands for the best there is.

    Raises:
        DataError: An empty list, or a name that is no string.
    """
    if device is None or isinstance(device, str):
        return (device,)
    names = tuple(device)
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"device is a name such as 'cuda:1', or a list of names; got {device!r}")
    return names


def run_settings(batch_size: int, devices: Sequence[str | None]) -> dict[str, Any]:
    """What the last bits of a torch model's numbers hang on besides model and texts.

    Args:
        batch_size: Texts that pass through the model together.
        devices: Where it computes; None stands for the best there is.

    Returns:
        Plain JSON; equal devices count as one.
    """
    import torch

    from retrievekit.encode.backends.hardware import best_device

    kinds = sorted({best_device(device).partition(":")[0] for device in devices})
    threads = torch.get_num_threads() if kinds == ["cpu"] else None
    return {"batch_size": batch_size, "device": "+".join(kinds), "threads": threads}


class Copies(Generic[M]):
    """One model on several devices; who runs a batch borrows a copy that is free.

    Args:
        model: The model, on the first device already.
        devices: All devices, one copy each.
        shared: Whether the model of a single device may be used by several threads at a time.
    """

    def __init__(self, model: M, devices: Sequence[str | None], *, shared: bool = True) -> None:
        self._model = model
        self._lent = len(devices) > 1 or not shared
        self._free: queue.SimpleQueue[M] = queue.SimpleQueue()
        self._free.put(model)
        for device in devices[1:]:
            self._free.put(copy.deepcopy(model).to(device))

    @contextlib.contextmanager
    def one(self) -> Iterator[M]:
        """A copy that nobody else uses meanwhile, unless there is one only, and that is shared."""
        if not self._lent:
            yield self._model
            return
        model = self._free.get()
        try:
            yield model
        finally:
            self._free.put(model)


def side_by_side(run: Callable[[T], R], items: Iterable[T], lanes: int) -> Iterator[R]:
    """Run something for each item, several at a time.

    Args:
        run: What is run; safe in threads.
        items: The items.
        lanes: How many at a time; with one of them no thread is started.

    Yields:
        The results in the order of the items; an error comes where its result would.
    """
    if lanes == 1:
        yield from map(run, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(lanes, thread_name_prefix="device") as pool:
        try:
            for item in items:
                # A context of its own: it may be entered by one thread only.
                waiting.append(pool.submit(contextvars.copy_context().run, run, item))
                # One more each is waiting, so that no device stands idle between two batches.
                if len(waiting) == 2 * lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
