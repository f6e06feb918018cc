"""How a broken law is told."""

from __future__ import annotations

from typing import Any, NoReturn


def broken(law: str, who: Any, what: str) -> NoReturn:
    """Say which law is broken, by whom and how.

    Args:
        law: The law, in a few words.
        who: What breaks it.
        what: How, and where.

    Raises:
        AssertionError: Always.
    """
    raise AssertionError(f"{law}: {who!r}: {what}")
