"""How many documents a segment may hold so that building it stays within a budget of memory."""

from __future__ import annotations

from retrievekit.errors import DataError

HELD_BESIDES = 704 << 20
"""Bytes of a memory budget that go to the interpreter, its libraries and one block of postings.

Measured: 144 MiB before anything is built, and 520 MiB more while a full block is sorted.
"""

HELD_PER_BYTE = 2
"""Bytes of memory that one byte of documents needs until its segment is written, at most."""

LEFT_AT_LEAST = 64 << 20
"""Bytes that a memory budget must leave for documents."""


def segment_limit(memory_budget: int | None) -> int | None:
    """Bytes of documents per segment.

    Args:
        memory_budget: Bytes of memory that this process may use; None for no limit.

    Returns:
        The bytes, or None.

    Raises:
        DataError: The budget is too small to work with.
    """
    if memory_budget is None:
        return None
    least = HELD_BESIDES + LEFT_AT_LEAST
    if memory_budget < least:
        raise DataError(
            f"a memory budget of {memory_budget:,} bytes is too small; the interpreter and its "
            f"libraries need most of {least:,}"
        )
    return (memory_budget - HELD_BESIDES) // HELD_PER_BYTE
