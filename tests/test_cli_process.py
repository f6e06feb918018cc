"""The command line as a process: exit codes, pure stdout, what a cold start loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retrievekit.index.bm25 import BM25Index
from retrievekit.testing import toy_corpus

ROOT = Path(__file__).resolve().parent.parent
MAIN = "from retrievekit.cli import main\nmain()"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = BM25Index.build(toy_corpus().corpus, tmp_path_factory.mktemp("process") / "toy.index")
    built.searcher().search("compile the kernels before the processes start")
    return built.path


def process(
    *arguments: str | Path, code: str = MAIN, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_stdout_holds_json_and_nothing_else(index: Path) -> None:
    process("search", index, "a cat purrs")  # on a new machine, the one that tells of compiling
    done = process("search", index, "a cat purrs", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["hits"][0]["doc_id"] == "cats-1"
    assert done.stderr == b""


def test_exit_codes(index: Path) -> None:
    failed = process("search", index.parent / "nothing.index", "cat", "--json")
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.startswith(b"error: no index at")
    assert failed.stderr.count(b"\n") == 1
    wrong = process("search", "--nope")
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert b"No such option" in wrong.stderr


PROBE = """
import atexit, sys
atexit.register(lambda: sys.stderr.write(" ".join({m.split(".")[0] for m in sys.modules})))
"""


def test_a_cold_search_loads_little(index: Path) -> None:
    done = process("search", index, "a cat purrs", "--json", code=PROBE + MAIN)
    assert done.returncode == 0
    loaded = set(done.stderr.decode().split())
    assert "numba" in loaded  # the probe sees what is loaded
    heavy = "torch transformers sentence_transformers datasets ir_measures rich"
    assert loaded & set(heavy.split()) == set()


def test_help_and_version_load_less() -> None:
    for arguments in (["--version"], ["bench", "--help"]):
        done = process(*arguments, code=PROBE + MAIN)
        assert done.returncode == 0
        loaded = set(done.stderr.decode().split())
        assert "typer" in loaded
        assert loaded & {"numpy", "pyarrow", "numba", "rich", "yaml"} == set()


def test_interrupted_quietly(index: Path) -> None:
    code = f"""
import os, signal, time
import retrievekit.cli.sources as sources
# Whoever runs the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
def opened(path):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
sources.opened = opened
{MAIN}"""
    done = process("search", index, "cat", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no pipes that break")
def test_a_reader_that_goes_away(index: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-c", MAIN, "search", str(index), "a cat purrs", "--json"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stderr is not None
    started.stdout.close()
    with started.stderr:
        errors = started.stderr.read()
    assert (started.wait(timeout=120), errors) == (141, b"")


def test_terminals_without_unicode(index: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(
        '{"_id": "é1", "text": "caf\u00e9 \u4e2d au lait"}\n', "utf-8"
    )
    place = tmp_path / "i"
    assert process("index", tmp_path / "docs.jsonl", "-o", place).returncode == 0
    plain = process("search", place, "lait", PYTHONIOENCODING="ascii")
    assert plain.returncode == 0
    assert rb"caf\xe9 \u4e2d au lait" in plain.stdout
    found = json.loads(process("search", place, "lait", "--json", PYTHONIOENCODING="ascii").stdout)
    assert found["hits"][0]["doc_id"] == "é1"
    assert found["hits"][0]["text"] == "café 中 au lait"


def test_the_hub_does_not_tell_of_every_retry() -> None:
    code = """
import logging
from retrievekit.cli.console import configure
configure()
from huggingface_hub import hf_hub_download
print(logging.getLogger("huggingface_hub").getEffectiveLevel() >= logging.ERROR)"""
    assert process(code=code).stdout == b"True\n"
    assert process(code=code, HF_HUB_VERBOSITY="debug").stdout == b"False\n"


def test_a_query_of_broken_bytes(index: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "search", str(index), b"caf\xe9"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: ")
