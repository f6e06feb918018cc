"""``retrievekit rerank`` by models behind a chat service, and by local models of both kinds."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrievekit.data.dataset import Dataset
from retrievekit.errors import DataError, UnknownNameError
from retrievekit.index.bm25 import BM25Index
from retrievekit.language.causal import CausalModel
from retrievekit.language.endpoint import ChatEndpoint
from retrievekit.language.functions import FunctionModel
from retrievekit.language.seq2seq import Seq2SeqModel
from retrievekit.rerank.asking import first, prp, rankgpt, setwise
from retrievekit.rerank.judges import qwen3_reranker
from retrievekit.run import Run
from retrievekit.testing import toy_corpus
from retrievekit.trace import counting
from tests.test_cli_verbs import call
from tests.tiny_chats import chatter_of, t5_of, t5_tokenizer, tokenizer_for_chats
from tests.tiny_decoders import one_thread  # noqa: F401

TOY = toy_corpus()


class Backwards(http.server.BaseHTTPRequestHandler):
    """Puts passages into the reverse order, inclines to the last letter, and says yes."""

    seen: list[dict[str, Any]]

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        words = "\n".join(one["content"] for one in body["messages"] if one["role"] == "user")
        n = len(re.findall(r"^\[[0-9A-Z]+\] |^Passage [A-Z]: ", words, re.MULTILINE))
        said = " > ".join(f"[{i}]" for i in range(n, 0, -1))
        choice: dict[str, Any] = {"message": {"content": said}, "finish_reason": "stop"}
        if body.get("logprobs"):
            letters = [chr(65 + i) for i in range(n)] + ["yes"]
            top = [{"token": one, "logprob": -9.0 + i} for i, one in enumerate(letters[:9])]
            choice["logprobs"] = {"content": [{**top[-1], "top_logprobs": top}]}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        raw = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    seen: list[dict[str, Any]] = []
    handler = type("Own", (Backwards,), {"seen": seen})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    Dataset("toy", TOY.corpus, TOY.queries, TOY.qrels).write(root / "toy")
    BM25Index.build(TOY.corpus).searcher(k=4)(TOY.queries).write(root / "bm25.run")
    return root


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("rankgpt", []),
        ("rankzephyr", []),
        ("first", ["--option", "continues=true"]),
        ("setwise", []),
        ("prp", ["--option", "pairs=all"]),
        ("debate", []),
        ("qwen3_reranker", ["--option", "continues=true"]),
        ("prorank", []),
        ("erank", ["--option", "reading=integer"]),
    ],
)
def test_a_service_reranks(
    root: Path, tmp_path: Path, service: Any, method: str, more: list[str]
) -> None:
    url, seen = service
    out = tmp_path / "out.run"
    common = ["rerank", root / "bm25.run", "--data", root / "toy", "--method", method]
    common += ["--model", "gpt-x", "--option", f"url={url}", "--option", "price_in=1000", *more]
    done = call(*common, "-o", out, "--json")
    assert done.code == 0, done.err
    before, after = Run.read(root / "bm25.run", TOY.queries), Run.read(out, TOY.queries)
    assert [sorted(hits.doc_ids) for hits in after] == [sorted(hits.doc_ids) for hits in before]
    if method in ("rankgpt", "rankzephyr", "first"):
        assert [hits.doc_ids for hits in after] == [hits.doc_ids[::-1] for hits in before]
    counts = done.json["counts"]
    assert counts["requests"] == len(seen) > 0
    assert counts["tokens of prompts"] == 100 * len(seen)
    assert counts["tokens of answers"] == 10 * len(seen)
    assert done.json["cost"] == pytest.approx(0.1 * len(seen))
    assert {body["model"] for body in seen} == {"gpt-x"}
    shown = call(*common, "-o", out, "--overwrite")
    assert f"{len(seen) // 2:,} requests" in shown.out
    assert "cost " in shown.out


def test_a_cap_ends_it(root: Path, tmp_path: Path, service: Any) -> None:
    url, seen = service
    out = tmp_path / "out.run"
    failed = call("rerank", root / "bm25.run", "--data", root / "toy", "--method", "prp",
                  "--model", "gpt-x", "--option", f"url={url}", "--option", "cap_requests=2",
                  "-o", out)  # fmt: skip
    assert failed.code == 1
    assert "the cap of 2 requests is reached; 2 requests" in failed.err
    assert len(seen) == 2
    assert not out.exists()


def test_services_that_continue_nothing_are_told_of(
    root: Path, tmp_path: Path, service: Any
) -> None:
    url, seen = service
    failed = call("rerank", root / "bm25.run", "--data", root / "toy", "--method", "first",
                  "--model", "gpt-x", "--option", f"url={url}", "-o", tmp_path / "x")  # fmt: skip
    assert failed.code == 1
    assert "continues=True" in failed.err
    assert not seen


def test_the_kind_of_a_model_is_looked_up(tmp_path: Path) -> None:
    for name, model, tokenizer in (
        ("t5", t5_of(), t5_tokenizer()),
        ("llama", chatter_of("llama"), tokenizer_for_chats()),
    ):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    docs = ["cats purr", "dogs bark", "bread"]
    for method, more in ((setwise, {"begun": "["}), (prp, {"reads": "words"}), (rankgpt, {})):
        made: Any = method(tmp_path / "t5", device="cpu", tokens_at_once=99, **more)
        assert isinstance(made.model, Seq2SeqModel)
        assert made.model.tokens_at_once == 99
        assert sorted(hit.text for hit in made.rank("cat", docs)) == sorted(docs)
        assert isinstance(method(tmp_path / "llama").model, CausalModel)
    assert isinstance(rankgpt(tmp_path / "nothing").model, CausalModel)


def test_settings_go_where_they_belong() -> None:
    made: Any = setwise("x", url="http://localhost:1", seed=3, temperature=0.5, rivals=4)
    assert isinstance(made.model, ChatEndpoint)
    assert (made.seed, made.model.seed) == (3, None)  # the reranker's own
    assert (made.model.temperature, made.rivals) == (0.5, 4)
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        setwise("x", url="http://localhost:1", temprature=1)
    with pytest.raises(DataError, match="cap_cost is a setting of models behind a service"):
        rankgpt("x", cap_cost=1)
    with pytest.raises(DataError, match="leave out device"):
        first("x", url="http://localhost:1", device="cpu")
    with pytest.raises(DataError, match="leave out dtype"):
        first("x", url="http://localhost:1", dtype="bfloat16")
    model = FunctionModel(generate=lambda chats, max_new_tokens: [""] * len(chats))
    assert rankgpt(model).model is model
    assert qwen3_reranker(model).model is model
    with pytest.raises(DataError, match="open already"):
        rankgpt(model, device="cpu")


def test_threads_tell_the_trace(service: Any) -> None:
    url, seen = service
    model = ChatEndpoint("x", url=url)
    with counting() as counts:
        rankgpt(model, window=2, step=1).rank("q", ["a", "b", "c"])
    assert counts["requests"] == counts["answers"] == len(seen) == 2
