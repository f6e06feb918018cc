"""What all verbs share: data to stdout, messages and progress to stderr, errors in a few lines."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any, Self, TextIO

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

READER_GONE = 141
"""Exit code when whoever reads stdout went away, as `head` does."""

_PATIENCE = 1.0
"""Seconds before progress is shown."""

_RATE_OVER = 60.0
"""Seconds whose mean is the rate: batches of long texts come first and seldom."""


def examples(*lines: str) -> str:
    """The end of a verb's help: examples, one per line.

    Args:
        lines: Commands without ``retrievekit`` in front.

    Returns:
        The text; its first character keeps the help from joining the lines.
    """
    return "\b\nExamples:\n" + "\n".join(f"  retrievekit {line}" for line in lines)


# Data ---------------------------------------------------------------------------------------------


def emit(text: str) -> None:
    """Write text and a line end to stdout.

    Args:
        text: The text.
    """
    sys.stdout.write(text + "\n")


def emit_json(value: Any) -> None:
    """Write a value to stdout as JSON.

    Args:
        value: Plain JSON.
    """
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    emit(json.dumps(value, indent=2, ensure_ascii=plain, allow_nan=False))


def clean(text: str) -> str:
    """A text from outside on one line, without characters that steer a terminal.

    Args:
        text: The text.

    Returns:
        The text with blanks in their place.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def counted(n: int, what: str) -> str:
    """A number and what it counts, such as ``1 query``, ``1,200 queries``.

    Args:
        n: How many.
        what: The singular.

    Returns:
        The text.
    """
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{n:,} {what if n == 1 else plural}"


# Messages -----------------------------------------------------------------------------------------


def note(text: str) -> None:
    """Write a message to stderr.

    Args:
        text: The message.
    """
    sys.stderr.write(text + "\n")


def report(why: BaseException) -> None:
    """Write an error to stderr: its message alone, or its traceback too.

    The traceback is shown when ``RETRIEVEKIT_TRACEBACK`` is set and is not 0.

    Args:
        why: The error.
    """
    if os.environ.get("RETRIEVEKIT_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(why, file=sys.stderr)
    text = str(why)
    if isinstance(why, OSError) and why.strerror and why.filename is not None:
        text = f"{why.filename}: {why.strerror}"
    note(f"error: {text or type(why).__name__}")


def drop_stdout() -> None:
    """Let what is still to be written to stdout vanish, since nobody reads it."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        return


class _Stderr(logging.Handler):
    """Writes log records to whatever stderr is when they come."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        note(mark + self.format(record))


def configure() -> None:
    """Show warnings of the library, and let no character fail on a terminal that lacks it."""
    # The hub's client tells of every retry; what came of them is in the error.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    log = logging.getLogger("retrievekit")
    if not any(isinstance(handler, _Stderr) for handler in log.handlers):
        log.addHandler(_Stderr())
        log.propagate = False
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


# Progress -----------------------------------------------------------------------------------------


def rate(speed: float, unit: str) -> str:
    """A speed in words, such as ``1,200 documents/s`` or ``0.5 documents/s``.

    Args:
        speed: Units per second.
        unit: The unit, or an empty string.

    Returns:
        The text.
    """
    number = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
    return f"{number} {unit}/s" if unit else f"{number}/s"


class Progress:
    """A line on stderr for what takes longer than a second; nothing when stderr is no terminal.

    It shows how much is done, at which rate, and, where the total is known, the time left.

    Args:
        stream: Where to show it; stderr by default.
        unit: What is counted, such as ``documents``.
    """

    def __init__(self, stream: TextIO | None = None, *, unit: str = "") -> None:
        self._stream = stream or sys.stderr
        self._unit = unit
        self._shows = self._stream.isatty()
        self._label = ""
        self._state: tuple[int, int | None] = (0, None)
        self._bar: Any = None
        self._task: Any = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """The progress itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Take the line away."""
        with self._lock:
            self._stop()

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Say how far something is.

        Args:
            label: What is being done.
            done: How much of it is.
            total: How much there is, or None when unknown.
        """
        if not self._shows:
            return
        with self._lock:
            if label != self._label:
                self._stop()
                self._label = label
                # A timer, so that the line also comes when the first step takes minutes.
                self._timer = threading.Timer(_PATIENCE, self._start, (label,))
                self._timer.daemon = True
                self._timer.start()
            self._state = (done, total)
            if self._bar is not None:
                self._bar.update(self._task, completed=done, total=total)

    def _stop(self) -> None:
        self._label = ""
        if self._timer is not None:
            self._timer.cancel()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start(self, label: str) -> None:
        from rich import progress as rich
        from rich.console import Console
        from rich.markup import escape
        from rich.text import Text

        unit = self._unit

        class Rate(rich.ProgressColumn):
            def render(self, task: rich.Task) -> Text:
                return Text("" if task.speed is None else rate(task.speed, unit))

        class Left(rich.TimeRemainingColumn):
            def render(self, task: rich.Task) -> Text:
                return Text("") if task.total is None else super().render(task).append(" left")

        with self._lock:
            if label != self._label:
                return
            self._bar = rich.Progress(
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                Rate(),
                rich.TimeElapsedColumn(),
                Left(),
                console=Console(file=self._stream),
                transient=True,
                speed_estimate_period=_RATE_OVER,
            )
            done, total = self._state
            self._task = self._bar.add_task(escape(label), completed=done, total=total)
            self._bar.start()
