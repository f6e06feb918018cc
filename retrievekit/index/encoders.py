"""The encoder of an index: found by its card, and held to it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from retrievekit import registry
from retrievekit.errors import EncoderMismatchError, NonFiniteError
from retrievekit.ids import Ids
from retrievekit.protocols import EncoderCard

log = logging.getLogger(__name__)


class HasCard(Protocol):
    """An encoder of any kind."""

    @property
    def card(self) -> EncoderCard:
        """Who it is."""
        ...


E = TypeVar("E", bound=HasCard)


def encoder_of_card(
    card: EncoderCard, default: str, kept: Mapping[str, NDArray[Any]] | None = None
) -> Any:
    """The encoder that a card names, not yet held to it.

    Args:
        card: The card of an index.
        default: The class of encoders whose card names none.
        kept: Arrays of any shape ``(...,)`` and dtype that the index keeps of its encoder.

    Returns:
        The encoder.

    Raises:
        UnknownNameError: The name leads nowhere.
    """
    if card.name in registry.names("encoder"):
        return registry.resolve("encoder", card.name)()
    # The class that the card names knows how to read the rest of it.
    made = registry.resolve("encoder-class", card.identity.get("class", default))
    return made(card, kept) if kept else made(card)


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


@contextlib.contextmanager
def naming(ids: Ids | Sequence[str]) -> Iterator[None]:
    """Give the error of an encoder that met NaN or infinity the id of the document at fault.

    Args:
        ids: The ids of the documents that are encoded.

    Raises:
        NonFiniteError: With the id, where the encoder told the row.
    """
    try:
        yield
    except NonFiniteError as why:
        if why.row is None:
            raise
        raise NonFiniteError(f"document {ids[why.row]!r}: {why}", why.row) from why
