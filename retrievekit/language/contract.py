"""Asking a model that anybody may have written, and holding what it gives to the protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrievekit.errors import EncoderContractError
from retrievekit.language.chat import Chat, LanguageModel


def spoken(model: LanguageModel, chats: Sequence[Chat], max_new_tokens: int) -> list[str]:
    """Let a model continue chats.

    Args:
        model: The model.
        chats: The chats.
        max_new_tokens: Tokens of each answer at most.

    Returns:
        What it says to each.

    Raises:
        EncoderContractError: It gave another number of answers, or something else than words.
    """
    said = model.generate(chats, max_new_tokens=max_new_tokens)
    if len(said) != len(chats) or not all(isinstance(text, str) for text in said):
        raise EncoderContractError(
            f"{model!r} was to continue {len(chats)} chats, but gave {len(said)} answers, such as "
            f"{said[:1]!r}; a model gives one string per chat"
        )
    return said


def weighed(
    model: LanguageModel, chats: Sequence[Chat], answers: Sequence[str]
) -> NDArray[np.float64]:
    """Ask a model how much it inclines to each of a few answers.

    Args:
        model: The model.
        chats: The chats.
        answers: What it may say.

    Returns:
        float64 ``(chats, answers)``, as it gave them: possibly not finite.

    Raises:
        EncoderContractError: It gave another shape.
    """
    found = np.asarray(model.logits(chats, answers), np.float64)
    if found.shape != (len(chats), len(answers)):
        raise EncoderContractError(
            f"{model!r} was asked for logits of shape {(len(chats), len(answers))}, but gave "
            f"{found.shape}"
        )
    return found
