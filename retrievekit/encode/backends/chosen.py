"""``backend="auto"``: a short probe, whose answer is kept for the model and the machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrievekit.encode.backends.choices import Choice, candidates, choose, installed, probe
from retrievekit.encode.backends.hardware import has_bfloat16, machine
from retrievekit.encode.backends.kept import key_of, recall, remember
from retrievekit.encode.batches import Dtype

log = logging.getLogger(__name__)


def chosen(
    name: str,
    settings: Mapping[str, Any],
    device: str,
    dtype: Dtype | None,
    trial: Callable[[Choice], Callable[[], NDArray[np.float32]] | None],
) -> Choice:
    """The backend for a model on this machine: the one that was kept, else what a probe finds.

    Args:
        name: The model's name, for the log.
        settings: Plain JSON on which the answer depends: the model's content, lengths, batches.
        device: The device that computes.
        dtype: The only dtype to try; None for all.
        trial: Loads a candidate and gives what encodes the probe's texts, float32 ``(n, dim)``;
            None where the candidate cannot be had.

    Returns:
        The choice.
    """
    runtimes = installed()
    key = key_of(
        {**settings, "dtype": dtype, "machine": machine(device), "backends": list(runtimes)}
    )
    known = recall(key)
    if known is not None:
        return known
    tried = candidates(device, bfloat16=has_bfloat16(device), runtimes=runtimes, dtype=dtype)
    found = probe(tried, trial, time.perf_counter)
    best = choose(found)
    log.info("%s: %s computes, chosen of: %s", name, best, "; ".join(map(str, found)))
    remember(key, best, [one.to_dict() for one in found])
    return best
