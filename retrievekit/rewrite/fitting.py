"""Prompts about documents, cut where they are longer than a model reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from retrievekit.language.chat import Chat, LanguageModel, Measuring
from retrievekit.rewrite.drawing import too_long
from retrievekit.rewrite.prompts import DOCUMENT, asked
from retrievekit.trace import count

log = logging.getLogger(__name__)


def fitted(
    model: LanguageModel,
    prompt: str,
    documents: Sequence[str],
    max_words: int | None,
    max_new_tokens: int,
) -> list[Chat]:
    """A prompt about each document, with its beginning only where all of it would be too much.

    Args:
        model: The model.
        prompt: What it is asked, with ``{document}`` in it.
        documents: The documents.
        max_words: Words of a document that are read; None reads all.
        max_new_tokens: Tokens that are to follow.

    Returns:
        The prompts. Documents that were cut are counted and told; one that does not fit with a
        single word stays too long.
    """
    shown = [first_words(text, max_words) for text in documents]
    chats = [asked(prompt, DOCUMENT, text) for text in shown]
    for place in sorted(too_long(model, chats, max_new_tokens)):
        assert isinstance(model, Measuring)
        # The most words that fit; with a single one, the model has the say.
        fits, over = 1, len(shown[place].split())
        while over - fits > 1:
            words = (fits + over) // 2
            shorter = asked(prompt, DOCUMENT, first_words(documents[place], words))
            if too_long(model, [shorter], max_new_tokens):
                over = words
            else:
                fits = words
        shown[place] = first_words(documents[place], fits)
        chats[place] = asked(prompt, DOCUMENT, shown[place])
    cut = sum(a != b for a, b in zip(shown, documents, strict=True))
    count("cut documents", cut)
    if cut:
        log.warning(
            "%r reads %d of %d documents only in part; max_words=%s",
            model, cut, len(documents), max_words,
        )  # fmt: skip
    return chats


def first_words(text: str, words: int | None) -> str:
    """The beginning of a text.

    Args:
        text: The text.
        words: Words that stay; None keeps all.

    Returns:
        The text itself where it has no more words.
    """
    if words is None:
        return text
    parts = text.split(maxsplit=words)
    return text if len(parts) <= words else " ".join(parts[:words])
