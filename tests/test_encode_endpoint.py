"""`EndpointEncoder` against an embedding service on the loopback that can misbehave."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from retrievekit import services
from retrievekit.corpus import Corpus
from retrievekit.encode.endpoint import EndpointEncoder
from retrievekit.errors import (
    DataError,
    EncoderContractError,
    EndpointError,
    LimitError,
    MissingDataError,
    NonFiniteError,
)
from retrievekit.headway import following
from retrievekit.index.dense import DenseIndex
from retrievekit.protocols import EncoderCard
from retrievekit.queries import Queries
from retrievekit.testing import ToyEncoder, check_encoder

TOY = ToyEncoder(32)
KEY = "sk-secret-0123456789"
TEXTS = ["a cat purrs", "dogs bark", "a moon", "cats", "the dog"]


class Service:
    """What the server did and shall do next."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.paths: list[str] = []
        self.failures: list = []  # states, states with headers, or functions of the handler
        self.change = lambda answer: answer


class Handler(http.server.BaseHTTPRequestHandler):
    service: Service

    def log_message(self, *_):
        pass

    def do_POST(self):
        service = self.service
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service.requests.append(body)
        service.headers.append(dict(self.headers))
        service.paths.append(self.path)
        if service.failures:
            failure = service.failures.pop(0)
            if callable(failure):
                failure(self)
                return
            state, headers = failure if isinstance(failure, tuple) else (failure, {})
            self.answer(state, {"error": f"no: {self.headers['Authorization']}"}, headers)
            return
        data = []
        for place, vector in enumerate(TOY.encode_query(body["input"])):
            vector = vector[: body.get("dimensions", len(vector))]
            written = vector.tolist()
            if body["encoding_format"] == "base64":
                written = base64.b64encode(vector.astype("<f4").tobytes()).decode()
            data.append({"object": "embedding", "index": place, "embedding": written})
        # Services may answer in any order.
        self.answer(200, service.change({"object": "list", "data": data[::-1]}))

    def answer(self, state, content, headers=()):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(state)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def service(monkeypatch) -> Iterator[Service]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Service()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Own", (Handler,), {"service": made})
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def encoder(service: Service, **settings) -> EndpointEncoder:
    given = {"batch_size": 2, "backoff": 0.001, "timeout": 10.0, "retries": 3}
    return EndpointEncoder("toy-1", url=service.url, **{**given, **settings})


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_and_order(service, encoding):
    one = encoder(service, encoding=encoding)
    np.testing.assert_allclose(one.encode_document(TEXTS), TOY.encode_document(TEXTS), atol=1e-6)
    assert one.dim == 32
    assert set(service.paths) == {"/v1/embeddings"}
    asked = [request["input"] for request in service.requests]
    assert asked == [["dimension"], TEXTS[:2], TEXTS[2:4], TEXTS[4:]]
    assert {request["encoding_format"] for request in service.requests} == {encoding}
    assert all(request["model"] == "toy-1" for request in service.requests)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_it_keeps_the_protocol(service, encoding):
    check_encoder(encoder(service, encoding=encoding, batch_size=4), atol=1e-6)


def test_no_texts_and_empty_texts(service):
    one = encoder(service)
    assert one.encode_query([]).shape == (0, 32)
    one.encode_query(["", "x"])
    assert service.requests[-1]["input"] == [" ", "x"]


def test_prompts_and_dimensions(service):
    one = encoder(service, prompts={"query": "cat "}, dimensions=12)
    vectors = one.encode_query(["x"])
    np.testing.assert_allclose(vectors, TOY.encode_query(["cat x"])[:, :12], atol=1e-6)
    assert service.requests[-1]["dimensions"] == 12
    one.encode_document(["x"])
    assert service.requests[-1]["input"] == ["x"]
    assert "dimensions" not in encoder(service).card.numerics
    cards = [one.card, encoder(service).card, encoder(service, version="2").card]
    assert len({card.fingerprint for card in cards}) == 3


@pytest.mark.parametrize("state", [408, 429, 500, 502, 503, 504])
def test_failures_are_repeated(service, state, caplog):
    one = encoder(service)
    assert one.dim == 32
    service.failures += [state, state]
    with caplog.at_level(logging.INFO):
        np.testing.assert_allclose(one.encode_query(["cat"]), TOY.encode_query(["cat"]), atol=1e-6)
    assert len(service.requests) == 4
    assert sum(f"HTTP {state}" in record.getMessage() for record in caplog.records) == 2


def test_waits_double_and_obey_the_service(service, monkeypatch):
    waits = []
    monkeypatch.setattr(services.time, "sleep", waits.append)
    monkeypatch.setattr(services.random, "uniform", lambda a, b: 1.0)
    one = encoder(service, backoff=1.0, retries=8)
    date = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    service.failures += [
        500,
        500,
        (429, {"Retry-After": "7"}),
        (429, date),
        (429, {"Retry-After": "999"}),
    ]
    assert one.dim == 32
    assert waits == [1, 2, 7, 8, services.LONGEST_WAIT]


def test_repetitions_end(service):
    service.failures += [503] * 9
    with pytest.raises(EndpointError, match=r"HTTP 503.*asked 4 times"):
        _ = encoder(service).dim
    assert len(service.requests) == 4


@pytest.mark.parametrize("state", [400, 401, 403, 404, 422])
def test_refusals_are_not_repeated(service, state):
    service.failures += [state]
    with pytest.raises(EndpointError, match=f"model 'toy-1': HTTP {state}"):
        _ = encoder(service).dim
    assert len(service.requests) == 1


def test_broken_and_slow_connections_are_repeated(service):
    def hang_up(handler):
        handler.close_connection = True

    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.close_connection = True

    released = threading.Event()
    service.failures += [hang_up, half, lambda handler: released.wait(5)]
    one = encoder(service, timeout=0.3)
    assert one.dim == 32
    released.set()
    assert len(service.requests) == 4


def test_nobody_there():
    with pytest.raises(EndpointError, match="asked 2 times"):
        _ = EndpointEncoder("x", url="http://127.0.0.1:9", retries=1, backoff=0.001).dim


# The key ----------------------------------------------------------------------------------------


def test_key_is_sent_and_stands_nowhere(service, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    one = encoder(service, key_variable="MY_KEY")
    service.failures += [429]
    with caplog.at_level(logging.DEBUG):
        one.encode_query(["cat"])
    assert all(h["Authorization"] == f"Bearer {KEY}" for h in service.headers)
    assert KEY not in caplog.text
    assert "***" in caplog.text  # the service repeated it
    assert KEY not in json.dumps(one.card.to_dict())
    assert one.card.numerics["key_variable"] == "MY_KEY"
    assert KEY not in repr(one) + str(vars(one))
    service.failures += [401]
    with pytest.raises(EndpointError) as caught:
        one.encode_query(["cat"])
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_key_is_sent_unasked(service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    encoder(service).encode_query(["cat"])
    assert all("Authorization" not in headers for headers in service.headers)


def test_missing_key(service, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(MissingDataError, match="variable MY_KEY is empty"):
        _ = encoder(service, key_variable="MY_KEY").dim
    assert not service.requests


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-\u0142\u00f3d\u017a", "sk\x00"])
def test_key_that_no_header_holds_is_not_shown(service, monkeypatch, key):
    # os.environ takes no NUL, but whoever replaces it may give one.
    monkeypatch.setattr(services.os, "environ", {"MY_KEY": key})
    with pytest.raises(MissingDataError, match="variable MY_KEY holds no key") as caught:
        _ = encoder(service, key_variable="MY_KEY").dim
    assert key[:2] not in str(caught.value).replace("MY_KEY", "")
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert not service.requests


@pytest.mark.parametrize(
    ("url", "more", "message"),
    [
        ("ftp://x/v1", {}, "starts with https"),
        ("x.org/v1", {}, "starts with https"),
        ("https://user:secret@x.org/v1", {}, "holds a user, a password or a query"),
        ("https://x.org/v1?key=secret", {}, "holds a user, a password or a query"),
        ("http://x.org/v1", {"key_variable": "K"}, "not sent to x.org unencrypted"),
        ("https://x.org", {"encoding": "int8"}, "no encoding 'int8'"),
        ("https://x.org", {"batch_size": 0}, "at least 1"),
        ("https://x.org", {"similarity": "maxsim"}, "no similarity"),
        ("https://x.org", {"prompts": {"passage": "x"}}, r"got \['passage'\]"),
    ],
)
def test_settings_are_checked_at_once(url, more, message):
    with pytest.raises(DataError, match=message) as caught:
        EndpointEncoder("x", url=url, **more)
    assert "secret" not in str(caught.value)


def test_redirects_are_not_followed(service, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    for state in (301, 302, 303, 307, 308):
        service.failures += [(state, {"Location": f"{service.url}/elsewhere"})]
        with pytest.raises(EndpointError, match=f"HTTP {state}"):
            _ = encoder(service, key_variable="MY_KEY").dim
    assert service.paths == ["/v1/embeddings"] * 5


# Answers ----------------------------------------------------------------------------------------


def other(**entry):
    def change(answer):
        answer["data"][0].update(entry)
        return answer

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: [], "not an answer of an embedding service"),
        (lambda answer: {"data": None}, "not an answer of an embedding service"),
        (lambda answer: b"<html>", "not an answer of an embedding service"),
        (lambda answer: {"data": answer["data"][1:]}, "2 texts were sent, vectors came for"),
        (lambda answer: {"data": answer["data"] * 2}, "2 texts were sent, vectors came for"),
        (other(index=0), r"vectors came for \[0, 0\]"),
        (other(index="1"), r"vectors came for \['1', 0\]"),
        (other(index=True), r"vectors came for \[True, 0\]"),
        (other(embedding=[1.0] * 31), "query 1 has 31 components, earlier ones 32"),
        (other(embedding=[]), "a list of numbers"),
        (other(embedding=["a"]), "a list of numbers"),
        (other(embedding=None), "a list of numbers"),
        (other(embedding="!!!!"), "not an answer"),
        (other(embedding="AAAA"), "not an answer"),
    ],
)
def test_answers_are_checked(service, change, message):
    one = encoder(service)
    assert one.dim == 32
    service.change = change
    with pytest.raises(EncoderContractError, match=message):
        one.encode_query(["a", "b"])


def test_numbers_that_are_none(service):
    one = encoder(service)
    assert one.dim == 32
    service.change = other(embedding=[float("nan")] * 32)
    with pytest.raises(NonFiniteError, match="vector of document 1"):
        one.encode_document(["a", "b"])


def test_numbers_too_large_for_float32(service, recwarn):
    one = encoder(service)
    assert one.dim == 32
    service.change = other(embedding=[1e300] * 32)
    with pytest.raises(NonFiniteError, match="vector of document 1"):
        one.encode_document(["a", "b"])
    assert not recwarn.list


def test_service_that_does_not_cut_vectors(service):
    service.change = other(embedding=[1.0] * 32)
    with pytest.raises(
        EncoderContractError, match="asked for vectors of 8 components, it gives 32"
    ):
        _ = encoder(service, dimensions=8).dim


def test_headway_is_told_after_each_request(service):
    one = encoder(service)
    assert one.dim == 32
    told: list[int] = []
    with following(told.append):
        one.encode_document(TEXTS)
    assert told == [2, 4, 5]


def test_endless_answers(service, monkeypatch):
    monkeypatch.setattr(services, "ANSWER_LIMIT", 100)
    with pytest.raises(LimitError, match="more than 100 bytes"):
        _ = encoder(service).dim


# Indexes ----------------------------------------------------------------------------------------


def test_index_finds_its_service(service, tmp_path):
    corpus = Corpus.from_texts({f"d{n}": text for n, text in enumerate(TEXTS)})
    one = encoder(service, prompts={"query": "a "}, version="7")
    assert one.card.numerics["deterministic"] is False
    card = EncoderCard.from_dict(json.loads(json.dumps(one.card.to_dict())))
    assert EndpointEncoder.from_card(card).card == one.card
    DenseIndex.build(corpus, one, tmp_path / "index")
    index = DenseIndex.open(tmp_path / "index")
    assert index.search(Queries.from_texts({"q": "moon"}), 1)["q"].doc_ids == ["d2"]
    assert isinstance(index.encoder, EndpointEncoder)


@pytest.mark.parametrize("key", [None, "HOME"])
def test_index_does_not_decide_where_queries_and_keys_go(service, tmp_path, key, monkeypatch):
    """An index from elsewhere may name any host and any variable."""
    one = encoder(service, key_variable=key)
    monkeypatch.setenv("HOME", "/secret")
    assert one.dim == 32
    if key is None:
        one.url = "https://elsewhere.example/v1"
    DenseIndex.from_vectors(
        Corpus.from_texts({"a": "x"}), np.ones((1, 32), np.float32), tmp_path / "index", encoder=one
    )
    before = len(service.requests)
    with pytest.raises(DataError, match=r"no index decides where queries and keys are sent"):
        _ = DenseIndex.open(tmp_path / "index").encoder
    assert len(service.requests) == before
