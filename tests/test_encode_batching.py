"""Streams of texts: order, batches, bounded memory, progress, and what broken encoders do."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.encode.batching import Cuts, encode_stream, length_order, report_cuts
from retrievekit.errors import DataError, EncoderContractError, NonFiniteError
from retrievekit.testing import ToyEncoder

TOY = ToyEncoder(16)


@given(
    st.lists(st.text(alphabet="ab ", max_size=12), max_size=30),
    st.integers(1, 7),
    st.integers(1, 9),
)
def test_stream_equals_encoding_at_once(texts, batch_size, shard):
    seen: list[list[str]] = []

    def encode(batch):
        seen.append(list(batch))
        return TOY.encode_document(batch)

    shards = list(encode_stream(encode, iter(texts), batch_size=batch_size, shard=shard))
    assert [len(part) for part in shards] == [
        min(shard, len(texts) - start) for start in range(0, len(texts), shard)
    ]
    whole = np.concatenate([np.zeros((0, 16), np.float32), *shards])
    assert whole.dtype == np.float32
    assert whole.tolist() == TOY.encode_document(texts).tolist()
    assert all(len(batch) <= batch_size for batch in seen)
    assert all([len(t) for t in b] == sorted((len(t) for t in b), reverse=True) for b in seen)
    assert sorted(t for batch in seen for t in batch) == sorted(texts)


def test_stream_is_read_as_it_is_needed():
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "text"

    stream = encode_stream(TOY.encode_document, endless(), batch_size=4, shard=10)
    next(stream)
    next(stream)
    assert taken == 20


def test_nothing_gives_nothing():
    assert list(encode_stream(TOY.encode_document, [])) == []


def test_progress_counts_texts():
    calls: list[tuple[int, int | None]] = []

    def note(done: int, total: int | None) -> None:
        calls.append((done, total))

    texts = ["x"] * 5
    list(encode_stream(TOY.encode_document, texts, batch_size=2, shard=3, progress=note))
    assert calls == [(2, 5), (3, 5), (5, 5)]
    calls.clear()
    list(encode_stream(TOY.encode_document, iter(texts), batch_size=5, progress=note))
    assert calls == [(5, None)]


def test_length_order_is_stable():
    assert length_order([1, 3, 2, 3]).tolist() == [1, 3, 2, 0]
    assert length_order([]).tolist() == []


@pytest.mark.parametrize(
    "broken",
    [
        lambda texts: np.zeros((len(texts) + 1, 4), np.float32),
        lambda texts: np.zeros(len(texts), np.float32),
        lambda texts: np.zeros((len(texts), len(texts[0])), np.float32),
    ],
)
def test_wrong_shapes_are_named(broken):
    with pytest.raises(EncoderContractError, match=r"not \(2, (dim|4|3)\)|not \(1, "):
        list(encode_stream(broken, ["abc", "ab", "a"], batch_size=2))


def test_bad_vector_names_the_place_in_the_stream():
    def broken(texts):
        out = TOY.encode_document(texts)
        out[[t == "bad" for t in texts], 3] = np.inf
        return out

    texts = ["long text", "a", "b", "c", "bad", "d"]
    with pytest.raises(NonFiniteError, match="text 4 of the stream"):
        list(encode_stream(broken, texts, batch_size=2, shard=3))


def test_sizes_are_checked():
    for settings in ({"batch_size": 0}, {"shard": 0}):
        with pytest.raises(DataError, match="at least 1"):
            list(encode_stream(TOY.encode_document, ["a"], **settings))


def test_cut_texts_are_told_once_per_stream(caplog: pytest.LogCaptureFixture):
    def encode(texts):
        report_cuts("m", "document", 5, sum(len(t) > 5 for t in texts), len(texts))
        return TOY.encode_document(texts)

    with caplog.at_level(logging.WARNING):
        list(encode_stream(encode, ["short", "much too long"] * 4, batch_size=1, shard=3))
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "m: 4 of 8 document texts were longer than 5 tokens and were "
    ]
    caplog.clear()
    # Outside a stream at once, and nothing where nothing was cut.
    report_cuts("m", "query", 5, 1, 2)
    report_cuts("m", "query", 5, 0, 2)
    cuts = Cuts()
    cuts.tell()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "1 of 2 query texts" in caplog.text
