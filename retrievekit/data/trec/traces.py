"""A run's trace beside its file, as ``<file>.trace.json``.

It holds the run file's checksum, so that the trace of another file is never taken for this one's.
"""

from __future__ import annotations

import json
import logging
import zlib
from dataclasses import asdict
from pathlib import Path

from retrievekit.run import Run
from retrievekit.trace import Step

log = logging.getLogger(__name__)

_BLOCK = 2**20  # bytes


def trace_path(path: Path) -> Path:
    """Where the trace of a run file lies."""
    return path.with_name(f"{path.name}.trace.json")


def trace_of(run: Run, path: Path) -> bytes:
    """The trace of a run as it is written.

    Args:
        run: The run.
        path: Its file, written already.

    Returns:
        JSON.
    """
    told = {
        "format": 1,
        "run": path.name,
        "crc32": _checksum(path),
        "steps": [asdict(step) for step in run.trace],
    }
    return json.dumps(told, indent=1).encode("utf-8")


def read_trace(path: Path) -> tuple[Step, ...]:
    """The trace beside a run file; one that is damaged or of another file is left alone.

    Args:
        path: The run's file.

    Returns:
        The steps; none when there is no trace.
    """
    beside = trace_path(path)
    try:
        told = json.loads(beside.read_bytes())
        if told["crc32"] != _checksum(path):
            log.warning("%s tells of another file than %s and is ignored", beside, path)
            return ()
        return tuple(
            Step(
                name=str(step["name"]),
                fingerprint=str(step["fingerprint"]),
                seconds=float(step["seconds"]),
                n_queries=int(step["n_queries"]),
                n_hits=int(step["n_hits"]),
                dropped=int(step["dropped"]),
                # Traces of older versions have none.
                counts=tuple((str(name), int(n)) for name, n in step.get("counts", ())),
            )
            for step in told["steps"]
        )
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as why:
        log.warning("%s cannot be read (%s) and is ignored", beside, why)
        return ()


def _checksum(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
