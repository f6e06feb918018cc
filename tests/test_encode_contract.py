"""`check_encoder` passes sound encoders and names the law that each broken one breaks."""

from __future__ import annotations

import numpy as np
import pytest

from retrievekit.protocols import Encoder, EncoderCard
from retrievekit.testing import ToyEncoder, check_encoder, toy_corpus

TOY = toy_corpus()


def test_toy_encoder_keeps_the_laws():
    for similarity in ("dot", "cosine", "euclidean"):
        check_encoder(ToyEncoder(32, similarity=similarity), atol=0.0)
    check_encoder(ToyEncoder(), TOY.corpus.contents()[:10])
    assert isinstance(ToyEncoder(), Encoder)


def test_toy_encoder_finds_the_toy_answers():
    """Brute force over the toy collection: most first hits are judged relevant."""
    encoder = ToyEncoder()
    scores = (
        encoder.encode_query(TOY.queries.texts) @ encoder.encode_document(TOY.corpus.contents()).T
    )
    grades = TOY.qrels.to_dict()
    best = [TOY.corpus.ids[int(row)] for row in scores.argmax(axis=1)]
    hits = sum(doc in grades[query] for query, doc in zip(TOY.queries.ids, best, strict=True))
    assert hits >= 15


def test_toy_collection_is_whole():
    assert len(TOY.corpus) == 100
    assert len(TOY.queries) == 20
    known = set(TOY.corpus.ids)
    for query, grades in TOY.qrels.to_dict().items():
        assert query in TOY.queries.ids
        assert set(grades) <= known
        assert set(grades.values()) <= {1, 2}
    assert {d.metadata["topic"] for d in TOY.corpus} == {i.split("-")[0] for i in known}


def test_toy_card_leads_back():
    encoder = ToyEncoder(24, similarity="dot")
    again = ToyEncoder.from_card(EncoderCard.from_dict(encoder.card.to_dict()))
    assert again.card.fingerprint == encoder.card.fingerprint
    assert again.encode_query(["a b"]).tolist() == encoder.encode_query(["a b"]).tolist()
    assert encoder.card.fingerprint != ToyEncoder(24).card.fingerprint


class Lacking:
    dim = 4
    similarity = "dot"


class WrongDim(ToyEncoder):
    dim = 0


class WrongSimilarity(ToyEncoder):
    similarity = "cos_sim"


class NoCard(ToyEncoder):
    card = "x"


class CardWithoutJson(ToyEncoder):
    card = EncoderCard("x", {"weights": b"bytes"})


class Forgetful(EncoderCard):
    def to_dict(self):
        return {**super().to_dict(), "identity": {}}


class CardThatForgets(ToyEncoder):
    card = Forgetful("x", {"prompts": "a"})


class CardWithTuple(ToyEncoder):
    """A tuple comes back from JSON as a list, which means the same."""

    card = EncoderCard("x", {"prompts": ("a", "b")})


class CardWithoutName(ToyEncoder):
    card = EncoderCard("", {"a": 1})


class RestlessCard(ToyEncoder):
    calls = 0

    @property
    def card(self):
        type(self).calls += 1
        return EncoderCard("x", {"calls": self.calls})


class Doubles(ToyEncoder):
    def encode_query(self, texts):
        return super().encode_query(texts).astype(np.float64)


class Lists(ToyEncoder):
    def encode_query(self, texts):
        return super().encode_query(texts).tolist()


class ForgetsEmpty(ToyEncoder):
    """What many libraries give for no texts."""

    def encode_document(self, texts):
        return super().encode_document(texts) if len(texts) else np.zeros(0, np.float32)


class OneShort(ToyEncoder):
    def encode_document(self, texts):
        return super().encode_document(texts)[: max(0, len(texts) - 1)]


class NanForEmpty(ToyEncoder):
    def encode_document(self, texts):
        out = super().encode_document(texts)
        with np.errstate(invalid="ignore"):
            return out / np.linalg.norm(out, axis=1, keepdims=True)


class Companions(ToyEncoder):
    def encode_document(self, texts):
        out = super().encode_document(texts)
        return out - out.mean(axis=0, keepdims=True) if len(texts) else out


class Sorted(ToyEncoder):
    """Sorts by length and forgets to restore the order."""

    def encode_document(self, texts):
        return super().encode_document(sorted(texts, key=len))


class Position(ToyEncoder):
    """A text alone is right, and so is the first of a batch."""

    def encode_query(self, texts):
        out = super().encode_query(texts)
        out[1:, 0] += 0.5
        return out


class Restless(ToyEncoder):
    calls = 0

    def encode_document(self, texts):
        type(self).calls += 1
        return super().encode_document(texts) + np.float32(self.calls)


class Buffer(ToyEncoder):
    """Hands out its own buffer, which the next call fills."""

    memory = np.zeros((100, 256), np.float32)

    def encode_document(self, texts):
        out = self.memory[: len(texts)]
        out[:] = super().encode_document(texts)
        return out


class Constant(ToyEncoder):
    def encode_query(self, texts):
        return np.ones((len(texts), self.dim), np.float32)


class Edits(ToyEncoder):
    def encode_query(self, texts):
        if isinstance(texts, list):
            texts[:] = [text.strip() for text in texts]
        return super().encode_query(texts)


class ListsOnly(ToyEncoder):
    """Takes any other sequence for one text."""

    def encode_query(self, texts):
        return super().encode_query(texts if isinstance(texts, list) else ["?"] * len(texts))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Lacking, "members: .* it lacks card, encode_query, encode_document"),
        (WrongDim, "dim: .* 0 is no positive integer"),
        (WrongSimilarity, "similarity: .* 'cos_sim' is none of"),
        (NoCard, "card: .* is no EncoderCard"),
        (CardWithoutJson, "card: .* cannot be written as JSON"),
        (CardThatForgets, "card: .* JSON changes it"),
        (CardWithoutName, "card: .* a name to load the encoder by"),
        (RestlessCard, "card: .* fingerprint changed"),
        (Doubles, "dtype: .* encode_query gave float64"),
        (Lists, "array: .* encode_query gave a list"),
        (ForgetsEmpty, r"shape: .* encode_document gave \(0,\) for 0 texts, not \(0, 256\)"),
        (OneShort, "shape: .* encode_document"),
        (NanForEmpty, "finite: .* encode_document gave NaN or infinity for ''"),
        (Companions, r"independent of companions \(alone\): .* encode_document"),
        (Sorted, r"independent of companions \(alone\)"),
        (Position, r"independent of companions .* encode_query"),
        (Restless, "same answer again: .* encode_document"),
        (Buffer, "result kept|same answer again"),
        (Constant, "tells texts apart: .* encode_query"),
        (Edits, "inputs unchanged: .* encode_query"),
        (ListsOnly, "any sequence of texts: .* encode_query"),
    ],
)
def test_each_broken_law_is_named(broken, law):
    with pytest.raises(AssertionError, match=law):
        check_encoder(broken())


def test_a_card_may_hold_tuples():
    check_encoder(CardWithTuple())


def test_tolerance_is_relative_to_large_components():
    class Large(ToyEncoder):
        """Large components, and an error of one part in a million."""

        def encode_document(self, texts):
            return super().encode_document(texts) * np.float32(1000 + 0.001 * (len(texts) % 2))

    check_encoder(Large(), atol=1e-4)
    with pytest.raises(AssertionError, match="independent of companions"):
        check_encoder(Large(), atol=1e-9)
