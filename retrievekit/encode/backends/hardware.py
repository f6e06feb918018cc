"""What this machine computes with, as far as the choice of a backend depends on it."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path

from retrievekit.errors import DataError

CPUINFO = Path("/proc/cpuinfo")

# Intel's matrix tiles and vector instructions, and Arm's, by the names the kernel gives them.
BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


@dataclass(frozen=True)
class Processor:
    """A processor.

    Args:
        name: What it calls itself, where it says.
        flags: The instruction sets it has, by the kernel's names; empty where nobody tells.
    """

    name: str
    flags: frozenset[str]

    @property
    def bfloat16(self) -> bool:
        """Whether it multiplies matrices of bfloat16 itself; others emulate that, slowly."""
        return bool(self.flags & BFLOAT16)


@functools.cache
def processor() -> Processor:
    """The processor of this machine."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpuinfo(text)


def parse_cpuinfo(text: str) -> Processor:
    """The first processor that a Linux ``/proc/cpuinfo`` describes.

    Args:
        text: Its content; empty on other systems.

    Returns:
        The processor.
    """
    first: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            first.setdefault(key.strip().lower(), value.strip())
    flags = first.get("flags") or first.get("features") or ""
    return Processor(first.get("model name") or platform.processor(), frozenset(flags.split()))


def best_device(asked: str | None) -> str:
    """The device that is asked for, or the best there is.

    Args:
        asked: Such as ``cpu`` or ``cuda:1``, or None.

    Returns:
        Its name.
    """
    if asked is not None:
        return asked
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def found_device(asked: str | None) -> str:
    """The device that is asked for, or the best there is, tried on a tensor of nothing.

    Args:
        asked: Such as ``cpu`` or ``cuda:1``, or None.

    Returns:
        Its name.

    Raises:
        DataError: This machine, or this torch, has no such device.
    """
    import torch

    name = best_device(asked)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as why:
        known = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
        known += ["mps"] if torch.backends.mps.is_available() else []
        said = str(why).strip().partition("\n")[0]
        raise DataError(f"no device {name!r} here ({said}); there is {', '.join(known)}") from why
    return name


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself.

    Args:
        device: Its name.

    Returns:
        Whether it does.
    """
    if device.startswith("cuda"):
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and processor().bfloat16


def machine(device: str) -> dict[str, str | int]:
    """What of this machine decides which backend is the fastest.

    Args:
        device: The device that computes.

    Returns:
        Names and counts, for a key.
    """
    import torch

    own = processor()
    found: dict[str, str | int] = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": own.name,
        "bfloat16": own.bfloat16,
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found
