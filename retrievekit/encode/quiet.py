"""Silence while models are read, and an error where one is not whole."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrievekit.errors import DataError

# Whose report names the weights that a checkpoint lacks.
_REPORTER = "transformers.modeling_utils"
_MISSING = re.compile(r"^(\S+)\s*\|\s*(?:\x1b\[[0-9;]*m)*MISSING", re.MULTILINE)
# A layer after the first state, which no encoder here reads; many checkpoints lack it.
_UNUSED = re.compile(r"(^|\.)pooler\.")


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """No progress bar of transformers while weights are read: it takes less than a second."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def read_whole(path: Path) -> Iterator[None]:
    """No bars and no reports while transformers reads a model, which must have all its weights.

    A weight that the checkpoint lacks starts at random, and transformers says so in a report only.

    Args:
        path: The model's folder.

    Raises:
        DataError: Weights are missing.
    """
    reports: list[str] = []

    def kept(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "LOAD REPORT" in text and str(path) in text:
            reports.append(text)
            return False
        return record.levelno >= heard

    reporter = logging.getLogger(_REPORTER)
    level, heard = reporter.level, reporter.getEffectiveLevel()
    reporter.addFilter(kept)
    if heard > logging.WARNING:
        # However few of its messages are heard: the report is for us.
        reporter.setLevel(logging.WARNING)
    try:
        with without_bars():
            yield
    finally:
        reporter.setLevel(level)
        reporter.removeFilter(kept)
    missing = [key for text in reports for key in _MISSING.findall(text) if not _UNUSED.search(key)]
    if missing:
        raise DataError(
            f"{path}: weights are missing, such as {', '.join(missing[:3])}; they would start at "
            "random. Is this a checkpoint of another architecture, or a part of one?"
        )
