"""`CallableEncoder`: functions as an encoder, and what of them is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retrievekit import registry
from retrievekit.corpus import Corpus
from retrievekit.encode.functions import CallableEncoder
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EncoderMismatchError,
    NonFiniteError,
    UnknownNameError,
)
from retrievekit.index.dense import DenseIndex
from retrievekit.protocols import EncoderCard
from retrievekit.queries import Queries
from retrievekit.testing import ToyEncoder, check_encoder

TOY = ToyEncoder(32)


def encoder(**settings) -> CallableEncoder:
    given = {"dim": 32, "similarity": "cosine", "name": "bags", "version": "1"}
    return CallableEncoder(TOY.encode_query, **{**given, **settings})


def test_it_keeps_the_protocol():
    check_encoder(encoder(), atol=0.0)


def test_roles_and_conversion():
    both = CallableEncoder(
        lambda texts: [[len(text), 0] for text in texts],
        lambda texts: np.array([[0, len(text)] for text in texts], np.float64),
        dim=2, similarity="ip", name="lengths", version="2",
    )  # fmt: skip
    assert both.encode_query(["a", "bcd"]).tolist() == [[1, 0], [3, 0]]
    assert both.encode_document(("a", "bcd")).tolist() == [[0, 1], [0, 3]]
    assert both.encode_query(["a"]).dtype == np.float32
    assert both.similarity == "dot"


def test_no_texts_call_nobody():
    def never(texts):
        raise AssertionError

    silent = CallableEncoder(never, dim=3, similarity="dot", name="never", version="1")
    assert silent.encode_query([]).shape == (0, 3)


def test_result_is_kept_when_the_function_reuses_its_buffer():
    memory = np.zeros((9, 1), np.float32)

    def fill(texts):
        memory[: len(texts), 0] = [len(text) for text in texts]
        return memory[: len(texts)]

    reused = CallableEncoder(fill, dim=1, similarity="dot", name="buffer", version="1")
    first = reused.encode_query(["abc"])
    reused.encode_query(["z"])
    assert first.tolist() == [[3]]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ([[1.0, 2.0]], r"shape \(1, 2\) and dtype float64 for 2 query texts; expected \(2, 2\)"),
        ([[1.0], [2.0]], r"shape \(2, 1\)"),
        ([["a", "b"], ["c", "d"]], "dtype <U1"),
        ([[True, False], [True, True]], "dtype bool"),
        (None, r"shape \(\) and dtype object"),
        ([[1.0], [1.0, 2.0]], "what is no array of NumPy"),
    ],
)
def test_other_shapes_are_refused(out, message):
    broken = CallableEncoder(lambda texts: out, dim=2, similarity="dot", name="x", version="1")
    with pytest.raises(EncoderContractError, match=message):
        broken.encode_query(["a", "b"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": ""}, "has a name and a version"),
        ({"version": ""}, "has a name and a version"),
        ({"dim": 0}, "whole number of at least 1"),
        ({"dim": "32"}, "whole number of at least 1; got '32'"),
        ({"similarity": "manhattan"}, "no similarity named"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(DataError, match=message):
        encoder(**settings)


def test_tensors_that_numpy_does_not_take():
    import torch

    for tensor in (torch.ones(1, 2, requires_grad=True), torch.ones(1, 2, dtype=torch.bfloat16)):
        broken = CallableEncoder(
            lambda texts, out=tensor: out, dim=2, similarity="dot", name="t", version="1"
        )
        with pytest.raises(EncoderContractError, match=r"tensor\.detach\(\)\.float\(\)"):
            broken.encode_query(["a"])


def test_what_overflows_is_infinite_without_a_warning():
    huge = CallableEncoder(
        lambda texts: [[1e300]] * len(texts), dim=1, similarity="dot", name="huge", version="1"
    )
    assert np.isinf(huge.encode_query(["a"])).all()
    with pytest.raises(NonFiniteError, match="document '1'"):
        DenseIndex.build(Corpus.from_texts(["a"]), huge)


def test_texts_are_checked():
    with pytest.raises(DataError, match="one string"):
        encoder().encode_query("cat")
    with pytest.raises(DataError, match="document 0 is 3"):
        encoder().encode_document([3])


def test_name_and_version_stand_for_the_function():
    cards = [encoder(), encoder(version="2"), encoder(name="sacks"), encoder(similarity="dot")]
    assert len({one.card.fingerprint for one in cards}) == 4
    assert encoder().card.fingerprint == encoder().card.fingerprint
    assert EncoderCard.from_dict(json.loads(json.dumps(encoder().card.to_dict()))) is not None


def test_index_is_opened_with_its_functions(tmp_path):
    corpus = Corpus.from_texts({"a": "a cat purrs", "b": "dogs bark"})
    DenseIndex.build(corpus, encoder(), tmp_path / "index")
    queries = Queries.from_texts({"q": "which cats purr"})
    with pytest.raises(UnknownNameError, match=r"'bags' is a function.* DenseIndex\.open\(path, e"):
        DenseIndex.open(tmp_path / "index").search(queries, 1)
    run = DenseIndex.open(tmp_path / "index", encoder()).search(queries, 1)
    assert run["q"].doc_ids == ["a"]
    with pytest.raises(EncoderMismatchError, match="version: '1' against '2'"):
        DenseIndex.open(tmp_path / "index", encoder(version="2"))


def test_registered_name_is_found(tmp_path, monkeypatch):
    names = {**registry._ENTRIES["encoder"], "bags": f"{__name__}:encoder"}
    monkeypatch.setitem(registry._ENTRIES, "encoder", names)
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").ModuleType("x"))
    module = __import__("sys").modules[__name__]
    module.encoder = encoder
    DenseIndex.build(Corpus.from_texts({"a": "cat"}), encoder(), tmp_path / "index")
    assert isinstance(DenseIndex.open(tmp_path / "index").encoder, CallableEncoder)


def test_unknown_class_of_encoder(tmp_path):
    class Stranger(ToyEncoder):
        card = EncoderCard("stranger", {"class": "quantum", "dim": 256, "similarity": "cosine"})

    DenseIndex.build(Corpus.from_texts({"a": "cat"}), Stranger(), tmp_path / "index")
    with pytest.raises(UnknownNameError, match="no encoder-class named 'quantum'"):
        _ = DenseIndex.open(tmp_path / "index").encoder
