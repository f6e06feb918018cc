"""`FunctionModel`: a language model made of plain functions, for tests and for other libraries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import DataError, EncoderContractError, FingerprintError
from retrievekit.language.chat import Chat, GenerateFn, LogitsFn
from retrievekit.stage import fingerprint_of


class FunctionModel:
    """A language model that calls functions, and checks what they give.

    Args:
        generate: Continues chats; without it the model cannot speak.
        logits: Weighs answers; without it the model cannot do so.
        name: What to call it.
        version: Stands for what the functions compute; without one there is no fingerprint.
        deterministic: Whether the functions answer the same the next time.

    Raises:
        DataError: There is neither function.
    """

    def __init__(
        self,
        generate: GenerateFn | None = None,
        logits: LogitsFn | None = None,
        *,
        name: str = "functions",
        version: str = "",
        deterministic: bool = True,
    ) -> None:
        if generate is None and logits is None:
            raise DataError("a model of functions needs generate= or logits=, or both")
        self._generate = generate
        self._logits = logits
        self.name = name
        self.version = version
        self.deterministic = deterministic

    def __repr__(self) -> str:
        """Its name."""
        return f"FunctionModel({self.name!r})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name and version.

        Raises:
            FingerprintError: There is no version.
        """
        if not self.version:
            raise FingerprintError(f"{self!r} needs a version, which stands for its functions")
        return fingerprint_of({"class": "functions", "name": self.name, "version": self.version})

    def generate(self, chats: Sequence[Chat], *, max_new_tokens: int) -> list[str]:
        """Continue chats.

        Args:
            chats: The chats, possibly none.
            max_new_tokens: Tokens of each answer at most.

        Returns:
            For each chat what the function says.

        Raises:
            DataError: There is no such function.
            EncoderContractError: It gave another number of texts, or no texts.
        """
        if self._generate is None:
            raise DataError(f"{self!r} cannot speak: give it generate=")
        found = self._generate(chats, max_new_tokens=max_new_tokens)
        if len(found) != len(chats) or not all(isinstance(text, str) for text in found):
            raise EncoderContractError(
                f"{self!r} was asked to continue {len(chats)} chats, but gave {found!r:.80}"
            )
        return list(found)

    def logits(self, chats: Sequence[Chat], answers: Sequence[str]) -> NDArray[np.floating]:
        """Weigh answers.

        Args:
            chats: The chats, possibly none.
            answers: What the model may say.

        Returns:
            Floating ``(chats, answers)``.

        Raises:
            DataError: There is no such function.
            EncoderContractError: It gave another shape.
        """
        if self._logits is None:
            raise DataError(f"{self!r} cannot weigh answers: give it logits=")
        found: NDArray[np.floating] = np.asarray(self._logits(chats, answers))
        if found.shape != (len(chats), len(answers)) or found.dtype.kind != "f":
            raise EncoderContractError(
                f"{self!r} was asked for floating logits {(len(chats), len(answers))}, but gave "
                f"{found.dtype} {found.shape}"
            )
        return found
