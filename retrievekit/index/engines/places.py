"""Where an index is searched: on the processor, or on a GPU that gives the same answer."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from retrievekit.errors import DataError, DeviceError
from retrievekit.index.engines.approximate import ApproximateSearch
from retrievekit.index.engines.device import DeviceSearch
from retrievekit.index.engines.faiss import FaissEngine
from retrievekit.index.engines.flat import FlatSearch
from retrievekit.index.engines.gpu import GpuEngine, unfit

if TYPE_CHECKING:
    from retrievekit.index.dense import DenseIndex
    from retrievekit.protocols import Engine

PROCESSOR = ("cpu",)
"""Names of devices that stand for the processor, whose own way of searching is used there."""

_NAMED = re.compile(r"auto|cpu|cuda(:\d+)?")


def check_device(device: str | None) -> None:
    """Raise when something is no name of a device; whether there is one is found out later.

    Args:
        device: The name, or None.

    Raises:
        DataError: It is no such name.
    """
    if device is not None and not (isinstance(device, str) and _NAMED.fullmatch(device)):
        raise DataError(
            f"device is {device!r}; an index is searched on 'cpu', 'cuda', one of several such as "
            "'cuda:1', or 'auto': a GPU where there is one"
        )


def settled_device(device: str | None) -> str | None:
    """The device that a name stands for on this machine.

    Args:
        device: The name, or None.

    Returns:
        Such as ``cuda:0``; None for the processor.

    Raises:
        DataError: It is no name of a device.
        DeviceError: There is no such device.
    """
    check_device(device)
    if device is None or device in PROCESSOR:
        return None
    if not device.startswith(("cuda", "auto")):
        return device
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto" and not there:
        return None
    number = int(device[5:]) if ":" in device else torch.cuda.current_device() if there else 0
    if number >= there:
        raise DeviceError(
            f"there is no device {device!r}: torch {torch.__version__} finds {there} CUDA devices; "
            "device='auto' takes one where there is one, and answers are the same without"
        )
    return f"cuda:{number}"


class Places:
    """The searches of one index, by device; each is made once, and holds its own copies.

    Args:
        index: The index.
    """

    def __init__(self, index: DenseIndex) -> None:
        self._index = index
        self._flat: dict[str | None, FlatSearch] = {}
        self._approximate: dict[str | None, ApproximateSearch] = {}
        self._reasons: dict[str, str] = {}
        self._making = threading.Lock()

    def flat(self, device: str | None) -> FlatSearch:
        """Exact search.

        Args:
            device: A device's name, or None.

        Returns:
            The search.

        Raises:
            DeviceError: There is no such device.
        """
        place = settled_device(device)
        with self._making:
            return self._flat_at(place)

    def approximate(self, engine: Engine, device: str | None) -> ApproximateSearch:
        """Search through the index's engine.

        Args:
            engine: The engine.
            device: A device's name, or None.

        Returns:
            The search.

        Raises:
            DeviceError: There is no such device, or the engine has no form for it.
        """
        place = settled_device(device)
        if place is not None:
            if place not in self._reasons:
                self._reasons[place] = _reason(engine, place)
            reason = self._reasons[place]
            if reason and device != "auto":
                raise DeviceError(f"{reason}; leave device out, or say 'auto'")
            place = None if reason else place
        with self._making:
            if place not in self._approximate:
                if place is not None and isinstance(engine, FaissEngine):
                    engine = GpuEngine(engine, place)
                flat = self._flat_at(place)
                self._approximate[place] = ApproximateSearch(self._index, engine, flat)
            return self._approximate[place]

    def _flat_at(self, place: str | None) -> FlatSearch:
        if place not in self._flat:
            made = FlatSearch(self._index) if place is None else DeviceSearch(self._index, place)
            self._flat[place] = made
        return self._flat[place]


def _reason(engine: Engine, place: str) -> str:
    """Why an engine cannot be searched on a device; empty when it can."""
    if isinstance(engine, FaissEngine):
        return unfit(engine, place)
    return f"the engine {engine.name!r} is searched on the processor only"
