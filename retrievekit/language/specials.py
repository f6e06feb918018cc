"""Tokens with a meaning of their own, which no document or query may bring into a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WIDESPREAD = (
    *(f"<|{name}|>" for name in ("im_start", "im_end", "endoftext", "eot_id", "eom_id")),
    *(f"<|{name}|>" for name in ("begin_of_text", "start_header_id", "end_header_id")),
    *(f"<|{name}|>" for name in ("system", "user", "assistant", "end", "start", "message")),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<s>", "</s>"),
)
"""Marks of turns of the common families, for services that do not tell their model's own."""


def special_texts(tokenizer: Any) -> list[str]:
    """The texts that a tokenizer reads as tokens with a meaning of their own, longest first.

    Args:
        tokenizer: The tokenizer.

    Returns:
        The texts.
    """
    found = {str(token) for token in tokenizer.all_special_tokens}
    found |= {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    return sorted((text for text in found if text), key=lambda text: (-len(text), text))


def disarmed(text: str, specials: Iterable[str]) -> str:
    """A text in which no special token is left: a blank parts each after its first character.

    A document that holds an end-of-turn mark could else close the user's turn and speak on as the
    model.

    Args:
        text: The text of a document or query.
        specials: The texts of special tokens.

    Returns:
        The text.
    """
    for special in specials:
        if special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text
