"""`Crew`: one warm process that forks workers by the hundred, kills them, and hears what they said.

A fresh interpreter needs half a second to import what an index needs; a fork needs milliseconds.
The process that forks is not the test's own, which may hold threads, and what it imports and
compiles once all workers have.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from retrievekit import registry
from retrievekit.testing.histories import Update, updates
from retrievekit.testing.indexes import PROBES, IndexCase, index_case

Say: TypeAlias = Callable[[str], None]
"""Tells the crew a line, at once."""

MARK = 64
"""Bytes at the start of the shared memory for a worker's own words on where it is."""


@dataclass(frozen=True)
class Heard:
    """What came of a worker.

    Args:
        lines: What it said, each with the seconds since it said it was ready.
        mark: What it last wrote to the shared memory.
        signal: The signal that ended it, or 0.
    """

    lines: tuple[tuple[float, str], ...]
    mark: str
    signal: int

    def count(self, line: str) -> int:
        """How often it said something.

        Args:
            line: What.

        Returns:
            The times.
        """
        return sum(said == line for _, said in self.lines)


class Crew:
    """A warm process that forks workers; used as a context manager.

    Workers are functions ``work(say, shared, case, **given)`` named as ``module:function``; they
    say ``ready`` when the clock for a kill shall start.

    Args:
        case: Name of the index case that the workers are about.
    """

    def __init__(self, case: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # OpenMP's threads do not survive a fork: FAISS would wait for them for ever.
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from retrievekit.testing.crew import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._ask({"name": case, "target": registry.target("index-case", case)})

    def run(
        self, workers: Sequence[tuple[str, Mapping[str, Any]]], *, kill_after: float | None = None
    ) -> list[Heard]:
        """Fork workers that run at once, and wait for them.

        Args:
            workers: Function and plain JSON arguments of each.
            kill_after: Seconds after all are ready when they are killed by SIGKILL; None to wait
                until they end.

        Returns:
            What came of each.

        Raises:
            AssertionError: A worker failed, or the crew itself died.
        """
        order = {"workers": [[work, dict(given)] for work, given in workers], "kill": kill_after}
        out = []
        for lines, mark, ended in self._ask(order):
            failed = [said for _, said in lines if said.startswith("failed: ")]
            if failed:
                raise AssertionError(f"a worker {failed[0]}")
            out.append(Heard(tuple((at, said) for at, said in lines), mark, ended))
        return out

    def _ask(self, order: Mapping[str, Any]) -> Any:
        streams = self._process.stdin, self._process.stdout
        if streams[0] is None or streams[1] is None:
            raise AssertionError("the crew has no pipes")
        streams[0].write(json.dumps(order) + "\n")
        streams[0].flush()
        line = streams[1].readline()
        if not line:
            raise AssertionError(f"the crew died with {self._process.wait()}; see its errors above")
        return json.loads(line)

    def __enter__(self) -> Crew:
        """The crew itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Send the process home."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve() -> None:
    """What the warm process does: read an order, fork, listen, answer, until its input ends."""
    first = json.loads(sys.stdin.readline())
    registry.register("index-case", first["name"], first["target"])
    case = index_case(first["name"])
    _warm_up(case)
    _answer("warm")
    for line in sys.stdin:
        order = json.loads(line)
        _answer(_shift(case, order["workers"], order["kill"]))


def _answer(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _warm_up(case: IndexCase) -> None:
    """Import, compile and start all that an update and a search need."""
    with tempfile.TemporaryDirectory(prefix="retrievekit-") as folder:
        path = Path(folder) / "x"
        first = Update(1, build=("a", "b"))
        first.carry_out(case, path)
        for verb in ("mixed", "compact"):
            update, _ = next(updates(verb, first.applied({}), 0))
            update.carry_out(case, path)
            case.open(path).searcher(k=1, threads=1)(PROBES)


def _shift(case: IndexCase, workers: list[Any], kill_after: float | None) -> list[Any]:
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    pids, pipes = [], []
    for work, given in workers:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _work(writing, shared, case, work, given)
        os.close(writing)
        pids.append(pid)
        pipes.append(reading)
    try:
        heard = _listen(pids, pipes, kill_after)
    except BaseException:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        raise
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    mark = shared[:MARK].rstrip(b"\0").decode()
    return [(lines, mark, max(-code, 0)) for lines, code in zip(heard, ended, strict=True)]


def _work(pipe: int, shared: mmap.mmap, case: IndexCase, work: str, given: dict[str, Any]) -> None:
    """The life of a worker; it never returns."""
    code = 1
    try:
        module, _, name = work.partition(":")
        function = getattr(importlib.import_module(module), name)
        function(lambda line: os.write(pipe, f"{line}\n".encode()), shared, case, **given)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the crew must hear of it
        text = "failed: " + traceback.format_exc().replace("\n", "\r")
        os.write(pipe, f"{text}\n".encode())
    finally:
        os._exit(code)


def _listen(
    pids: list[int], pipes: list[int], kill_after: float | None
) -> list[list[tuple[float, str]]]:
    """Hear workers until their pipes close; kill them when their time has come."""
    heard: list[list[tuple[float, str]]] = [[] for _ in pipes]
    rests = [b""] * len(pipes)
    start = deadline = None
    with selectors.DefaultSelector() as selector:
        for place, pipe in enumerate(pipes):
            selector.register(pipe, selectors.EVENT_READ, place)
        while selector.get_map():
            now = time.perf_counter()
            if deadline is not None and now >= deadline:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                deadline = None
            for key, _ in selector.select(None if deadline is None else deadline - now):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    continue
                *lines, rests[key.data] = (rests[key.data] + data).split(b"\n")
                at = 0.0 if start is None else time.perf_counter() - start
                heard[key.data] += [(at, line.decode()) for line in lines]
                if any(line.startswith(b"failed: ") for line in lines):
                    deadline = start = now  # nobody shall wait for one that is gone
            if start is None and all(any(s == "ready" for _, s in part) for part in heard):
                start = time.perf_counter()
                deadline = None if kill_after is None else start + kill_after
    return heard
