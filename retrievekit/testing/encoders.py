"""Laws of encoders: `check_encoder`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from retrievekit.protocols import Encoder, EncoderCard
from retrievekit.testing.laws import broken

_TEXTS = (
    "a short text",
    "Retrieval finds the documents that answer a question, even where they use other words.",
    "one",
    "",
    "words " * 60 + "and a long text that ends otherwise than it began",
    "naïve café 東京 Ωmega 🙂",
    "a short text",
    "  blanks\tand\nlines  ",
)


def check_encoder(
    encoder: Encoder, texts: Sequence[str] | None = None, *, atol: float = 1e-4
) -> None:
    """Hold an encoder to the protocol that indexes rely on.

    The members of `Encoder`; float32 vectors of shape ``(n, dim)``, finite, also for an empty text
    and for no texts; a vector that depends on its text alone, not on its companions or their order;
    the same answer again; different texts told apart; a result that the next call does not
    overwrite; a card that survives JSON and names a similarity, and whose fingerprint stays.

    Args:
        encoder: The encoder. It may encode queries and documents differently.
        texts: At least three texts to encode, not all equal; by default a mixture of short, long,
            empty and foreign ones.
        atol: By how much a component may differ between batches, as a share of the largest
            component of the row (or absolutely, where that is below 1).

    Raises:
        AssertionError: A law is broken; the message names it.
    """
    given: list[str] = list(_TEXTS if texts is None else texts)
    if not isinstance(encoder, Encoder):
        missing = [name for name in _MEMBERS if not hasattr(encoder, name)]
        broken("members", encoder, f"it lacks {', '.join(missing)}")
    if not isinstance(encoder.dim, int) or encoder.dim < 1:
        broken("dim", encoder, f"{encoder.dim!r} is no positive integer")
    if encoder.similarity not in _SIMILARITIES:
        broken("similarity", encoder, f"{encoder.similarity!r} is none of {_SIMILARITIES}")
    card = _check_card(encoder)
    for name, encode in (
        ("encode_query", encoder.encode_query),
        ("encode_document", encoder.encode_document),
    ):
        _check_encode(encoder, name, encode, given, atol)
    if _check_card(encoder) != card:
        broken("card", encoder, "its fingerprint changed while texts were encoded")


_MEMBERS = ("card", "dim", "similarity", "encode_query", "encode_document")
_SIMILARITIES = ("dot", "cosine", "euclidean")


def _check_card(encoder: Encoder) -> str:
    card = encoder.card
    if not isinstance(card, EncoderCard):
        broken("card", encoder, f"{card!r} is no EncoderCard")
    if not isinstance(card.name, str) or not card.name or not card.identity:
        broken("card", encoder, "a card has a name to load the encoder by, and an identity")
    try:
        again = EncoderCard.from_dict(json.loads(json.dumps(card.to_dict(), allow_nan=False)))
    except (TypeError, ValueError) as why:
        raise AssertionError(f"card: {encoder!r}: it cannot be written as JSON: {why}") from why
    if again.fingerprint != card.fingerprint or again.differences(card):
        broken("card", encoder, f"JSON changes it: {again.differences(card)}")
    return card.fingerprint


def _check_encode(
    encoder: Encoder,
    name: str,
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
    texts: list[str],
    atol: float,
) -> None:
    def encoded(some: Sequence[str]) -> NDArray[np.float32]:
        kept = list(some)
        out = encode(some)
        if list(some) != kept:
            broken("inputs unchanged", encoder, f"{name} changed the list of texts")
        if not isinstance(out, np.ndarray):
            broken("array", encoder, f"{name} gave a {type(out).__name__}, not a NumPy array")
        if out.shape != (len(kept), encoder.dim):
            wanted = (len(kept), encoder.dim)
            broken("shape", encoder, f"{name} gave {out.shape} for {len(kept)} texts, not {wanted}")
        if out.dtype != np.float32:
            broken("dtype", encoder, f"{name} gave {out.dtype}, not float32")
        bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if len(bad):
            broken("finite", encoder, f"{name} gave NaN or infinity for {kept[bad[0]][:60]!r}")
        return out

    def same(law: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        scale = np.maximum(1.0, np.abs(expected).max(axis=1, initial=0.0))
        far = np.abs(found - expected).max(axis=1, initial=0.0) / scale
        if (far > atol).any():
            row = int(far.argmax())
            broken(law, encoder, f"{name}: the vector of text {row} differs by {far[row]}")

    encoded([])
    whole = encoded(texts)
    kept = whole.copy()
    same("same answer again", encoded(texts), whole)
    encoded([text + " and more" for text in texts])
    if not np.array_equal(whole, kept):
        broken("result kept", encoder, f"{name}: a later call overwrote an earlier result")
    same("independent of companions (alone)", np.concatenate([encoded([t]) for t in texts]), whole)
    same("independent of companions (other order)", encoded(texts[::-1])[::-1], whole)
    same("any sequence of texts", encoded(tuple(texts)), whole)
    if len(set(texts)) > 1 and np.ptp(whole, axis=0).max() <= atol:
        broken("tells texts apart", encoder, f"{name} gave all {len(texts)} texts one vector")
