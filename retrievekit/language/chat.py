"""What is said to a language model, and the two things that are asked of one.

Methods are written against two functions: one that continues chats (`GenerateFn`), and one that
tells how much a model inclines to each of a few answers (`LogitsFn`). A `LanguageModel` has both;
`functions.FunctionModel` makes one of plain functions.

A chat that ends with a message of the assistant is continued: the model goes on behind its last
character. Any other chat is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat.

    Args:
        role: Who speaks: ``system``, ``user`` or ``assistant``.
        content: What is said.

    Raises:
        DataError: Another role, or a content that is no string.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        """Check both."""
        if self.role not in get_args(Role):
            raise DataError(f"a message's role is system, user or assistant, not {self.role!r}")
        if not isinstance(self.content, str):
            raise DataError(f"a message's content is a string, not {self.content!r}")


Chat: TypeAlias = tuple[Message, ...]
"""Messages in their order, at least one."""


class GenerateFn(Protocol):
    """Continues chats."""

    def __call__(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """Let the model speak.

        Args:
            chats: The chats, possibly none.
            max_new_tokens: Tokens of each answer at most.

        Returns:
            For each chat what the model says, without what ends its turn.
        """


class LogitsFn(Protocol):
    """Tells how much a model inclines to each of a few answers."""

    def __call__(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.floating]:
        """Look at the next token.

        Args:
            chats: The chats, possibly none.
            answers: What the model may say, each a single token.

        Returns:
            Logits, or log-probabilities, of each answer's token, floating ``(chats, answers)``.
            They differ from each other by a constant per chat, which no softmax sees.
        """


@runtime_checkable
class LanguageModel(Protocol):
    """A model that can do both.

    It also has a string ``fingerprint``, a SHA-256 over what its answers depend on, or stages that
    use it have none; and ``deterministic = False`` if it may answer otherwise the next time. (Both
    are no members here, since asking for them may mean to read a model's weights.)
    """

    def generate(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """Continue chats; see `GenerateFn`."""

    def logits(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.floating]:
        """Weigh answers; see `LogitsFn`; floating ``(chats, answers)``."""


@runtime_checkable
class Measuring(Protocol):
    """A model that knows how long a prompt is, so that documents can be cut to fit."""

    @property
    def limit(self) -> int | None:
        """Tokens of a prompt at most, or None when the model does not tell."""

    def lengths(self, chats: Sequence[Chat]) -> list[int]:
        """How many tokens each chat is as a prompt.

        Args:
            chats: The chats.

        Returns:
            The number for each.
        """

    def beginning(self, text: str, tokens: int) -> str:
        """The beginning of a text.

        Args:
            text: The text.
            tokens: How many of its tokens stay.

        Returns:
            The text itself where it has no more tokens.
        """

    def pieces(self, answer: str, begun: str = "") -> int:
        """How many tokens an answer is.

        Args:
            answer: What the model may say.
            begun: What it has said before, which may matter.

        Returns:
            Their number.
        """
