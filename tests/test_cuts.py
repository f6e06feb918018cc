"""Cut texts are told: at once, or once for many batches."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from retrievekit.corpus import Corpus
from retrievekit.cuts import Cuts, report_cuts
from retrievekit.index import dense
from retrievekit.index.dense import DenseIndex
from retrievekit.testing import ToyEncoder


class Cutting(ToyEncoder):
    """Reads five characters."""

    def encode_document(self, texts):
        report_cuts("m", "document", 5, sum(len(text) > 5 for text in texts), len(texts))
        return super().encode_document([text[:5] for text in texts])


def test_a_build_tells_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "SHARD", 3)
    corpus = Corpus.from_texts(["short", "much too long"] * 4)
    with caplog.at_level(logging.WARNING):
        index = DenseIndex.build(corpus, Cutting())
    assert len(index) == 8
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "m: 4 of 8 document texts were longer than 5 tokens and were "
    ]


def test_outside_at_once_and_never_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    report_cuts("m", "query", 5, 1, 2)
    report_cuts("m", "query", 5, 0, 2)
    Cuts().tell()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "1 of 2 query texts" in caplog.text


def test_a_build_that_fails_stops_collecting(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Cutting):
        def encode_document(self, texts):
            super().encode_document(texts)
            return np.zeros((0, 0), np.float32)

    with pytest.raises(ValueError):
        DenseIndex.build(Corpus.from_texts(["much too long"]), Broken())
    caplog.clear()
    report_cuts("m", "query", 5, 1, 1)
    assert "1 of 1" in caplog.text
