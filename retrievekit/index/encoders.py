"""The encoder of an index: found by its card, and held to it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol, TypeVar

from retrievekit import registry
from retrievekit.errors import EncoderMismatchError
from retrievekit.protocols import EncoderCard

log = logging.getLogger(__name__)


class HasCard(Protocol):
    """An encoder of any kind."""

    @property
    def card(self) -> EncoderCard:
        """Who it is."""
        ...


E = TypeVar("E", bound=HasCard)


def encoder_of_card(card: EncoderCard, default: str) -> Any:
    """The encoder that a card names, not yet held to it.

    Args:
        card: The card of an index.
        default: The class of encoders whose card names none.

    Returns:
        The encoder.

    Raises:
        UnknownNameError: The name leads nowhere.
    """
    if card.name in registry.names("encoder"):
        return registry.resolve("encoder", card.name)()
    # The class that the card names knows how to read the rest of it.
    return registry.resolve("encoder-class", card.identity.get("class", default))(card)


def matching(encoder: E, card: EncoderCard | None, path: Path) -> E:
    """The encoder, if it is the one that an index was built with.

    Args:
        encoder: The encoder.
        card: The index's card; None where the index knows no encoder.
        path: The index, for messages.

    Returns:
        The same encoder.

    Raises:
        EncoderMismatchError: It is another one, or the index knows none.
    """
    if card is None:
        raise EncoderMismatchError(
            f"{path}: built without an encoder, so nobody can tell whether {encoder.card.name!r} "
            "fits; name it when the index is built"
        )
    differences = card.differences(encoder.card)
    if differences:
        raise EncoderMismatchError(
            f"{path}: built with the encoder {card.name!r}, asked with {encoder.card.name!r}; they "
            f"differ in {'; '.join(differences)} (index against given). Vectors of different "
            "encoders cannot be compared: use the index's own encoder, or build the index again"
        )
    for name, value in card.numerics.items():
        if encoder.card.numerics.get(name) != value:
            log.warning(
                "%s: built with %s=%r, queries are encoded with %r; scores may differ slightly",
                path, name, value, encoder.card.numerics.get(name),
            )  # fmt: skip
    return encoder
