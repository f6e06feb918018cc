"""The embedded collection: what is harvested, that harvesting leaves no trace, and the judgements.

The oracle for the documents is plain attribute access: every id, looked up by name, must lead to an
object whose own docstring is the document.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import platform
import pydoc
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievekit.data import stdlib
from retrievekit.data.stdlib.harvest import denial, module_names
from retrievekit.errors import DuplicateIdError, ParseError

FOLDER = Path(stdlib.__file__).parent

# Runs in a fresh interpreter. Harvests with an audit hook that refuses what a harvest has no
# business doing, and writes to the file named first what it found and what it changed.
CHILD = """
import decimal, gc, json, locale, os, random, signal, sys, threading, warnings

refused = []
watching = False

def watch(event, args):
    if not watching:
        return
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    names = ("socket.", "subprocess.", "webbrowser.", "tempfile.", "shutil.", "urllib.", "ftplib.",
             "smtplib.", "sqlite3.connect", "os.system", "os.exec", "os.fork", "os.posix_spawn",
             "os.mkdir", "os.remove", "os.rename", "os.chdir", "os.putenv", "os.kill",
             "_thread.start_new_thread", "builtins.input", "time.sleep")
    if writes or event.startswith(names):
        refused.append([event, repr(args)])
        raise RuntimeError("refused: " + event)

def state():
    return {
        "threads": threading.active_count(),
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "signals": {str(s): repr(signal.getsignal(s)) for s in signal.valid_signals()},
        "locale": locale.setlocale(locale.LC_ALL),
        "filters": repr(warnings.filters),
        "showwarning": id(warnings.showwarning),
        "hooks": [id(sys.excepthook), id(sys.displayhook), id(sys.stdout), id(sys.stderr)],
        "path": list(sys.path),
        "finders": [repr(sys.meta_path), repr(sys.path_hooks)],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled()],
        "trace": repr([sys.gettrace(), sys.getprofile()]),
        "random": repr(random.getstate()),
        "decimal": repr(decimal.getcontext()),
    }

sys.path.insert(0, FOLDER)
import harvest
sys.addaudithook(watch)
before = state()
watching = True
found = harvest.harvest()
watching = False
after = state()
with open(sys.argv[1], "w") as file:
    json.dump({
        "documents": [[d.id, d.title, d.text, d.kind, d.module] for d in found],
        "failed": dict(found.failed),
        "refused": refused,
        "changed": {k: [before[k], after[k]] for k in before if before[k] != after[k]},
        "modules": sorted(sys.modules),
    }, file)
"""


def run_child(
    where: Path, *options: str, seed: int = 0, code: str = CHILD
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-B", *options, "-c", f"FOLDER = {str(FOLDER)!r}\n{code}", where],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        cwd=where.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """What a fresh interpreter harvests, with every warning an error."""
    where = tmp_path_factory.mktemp("harvest") / "found.json"
    done = run_child(where, "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return json.loads(where.read_text(encoding="utf-8"))


@functools.cache
def harvested() -> stdlib.Harvest:
    return stdlib.harvest()


@functools.cache
def ids() -> frozenset[str]:
    return frozenset(doc.id for doc in harvested())


# ---------------------------------------------------------------- harvesting leaves no trace


def test_nothing_is_opened_started_or_written(fresh):
    assert fresh["refused"] == []


def test_the_watch_can_fail(tmp_path):
    where = tmp_path / "found.json"
    meddling = CHILD.replace(
        "found = harvest.harvest()",
        """
import socket
try:
    socket.socket()
except RuntimeError:
    pass
signal.signal(signal.SIGTERM, signal.SIG_IGN)
found = harvest.harvest()""",
    )
    assert run_child(where, code=meddling).returncode == 0
    seen = json.loads(where.read_text(encoding="utf-8"))
    assert [event for event, _ in seen["refused"]] == ["socket.__new__"]
    assert list(seen["changed"]) == ["signals"]


def test_the_interpreter_is_left_as_it_was(fresh):
    assert fresh["changed"] == {}


def test_warning_filters_are_as_before_in_this_process():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        stdlib.harvest()
        assert warnings.filters == before
    assert caught == []


def test_what_has_effects_is_never_imported(fresh):
    harmful = {"this", "antigravity", "idlelib", "tkinter", "turtle", "turtledemo", "curses"}
    # Not readline: in Python 3.13 pdb imports it by itself.
    harmful |= {"lib2to3", "distutils", "test", "multiprocessing.resource_sharer"}
    assert harmful & set(fresh["modules"]) == set()


# ---------------------------------------------------------------- determinism


def test_order_and_text_do_not_depend_on_hashing(fresh, tmp_path):
    where = tmp_path / "again.json"
    assert run_child(where, seed=4711).returncode == 0
    assert json.loads(where.read_text(encoding="utf-8"))["documents"] == fresh["documents"]


def test_what_else_is_imported_makes_no_difference(fresh, tmp_path):
    where = tmp_path / "again.json"
    busy = "import numpy, scipy.stats, unittest.mock, xml.dom.minidom, concurrent.futures.thread"
    assert run_child(where, code=f"{busy}\n{CHILD}").returncode == 0
    assert json.loads(where.read_text(encoding="utf-8"))["documents"] == fresh["documents"]


def test_patches_by_other_packages_are_no_documents(monkeypatch):
    def fill(text):
        """Somebody else's function."""

    before = ids()
    monkeypatch.setattr("textwrap.fill", fill)
    monkeypatch.setattr("textwrap.TextWrapper.fill", fill)
    lost = before - {doc.id for doc in stdlib.harvest()}
    assert lost == {"textwrap.fill", "textwrap.TextWrapper.fill"}


def test_ids_are_unique_and_sorted():
    names = [doc.id for doc in harvested()]
    assert names == sorted(set(names))
    assert len(names) == len(harvested()) > 4000


# ---------------------------------------------------------------- the documents are what they say


def test_every_id_leads_by_plain_lookup_to_its_text():
    wrong = []
    for doc in harvested():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            owner, _, name = doc.id.rpartition(".")
            obj = pydoc.locate(doc.id) or inspect.getattr_static(pydoc.locate(owner), name)
        own = inspect.cleandoc(obj.__doc__ or "").strip()
        if inspect.isclass(obj):
            constructor = inspect.cleandoc(vars(obj).get("__init__", obj).__doc__ or "").strip()
            good = doc.text in (own, constructor, f"{own}\n\n{constructor}")
        else:
            good = doc.text == own
        if not good or not doc.text:
            wrong.append(doc.id)
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("len", "function"),
        ("open", "function"),
        ("str", "class"),
        ("str.splitlines", "method"),
        ("str.maketrans", "method"),
        ("dict.fromkeys", "method"),
        ("BaseException.with_traceback", "method"),
        ("FileNotFoundError", "class"),
        ("os.path.join", "function"),
        ("pathlib.PurePath.suffix", "property"),
        ("pathlib.Path.mkdir", "method"),
        ("collections.abc.Mapping", "class"),
        ("concurrent.futures.ThreadPoolExecutor", "class"),
        ("asyncio.run", "function"),
        ("random.choice", "function"),
        ("secrets.choice", "function"),
        ("multiprocessing.Pool", "function"),
        ("typing.Optional", "class"),
        ("io.IOBase.readline", "method"),
        ("unittest.mock.patch", "function"),
        ("urllib.parse.urlencode", "function"),
        ("logging.handlers.RotatingFileHandler", "class"),
        ("xml.etree.ElementTree.iterparse", "function"),
        ("email.message.Message", "class"),
        ("importlib.metadata.version", "function"),
        ("tempfile", "module"),
        ("os.path", "module"),
    ],
)
def test_names_that_people_look_for(name, kind):
    assert {doc.id: doc.kind for doc in harvested()}.get(name) == kind


@pytest.mark.parametrize(
    "name",
    [
        "IOError",  # OSError
        "socket.error",  # OSError
        "io.open",  # open
        "posixpath.join",  # os.path.join
        "asyncio.runners.run",  # asyncio.run
        "random.Random.choice",  # random.choice
        "ValueError.with_traceback",  # inherited
        "object.__init__",  # dunder
        "json.decoder.JSONDecoder",  # json.JSONDecoder
        "typing.namedtuple",  # somebody else's
        "subprocess.threading",
        "this",
    ],
)
def test_names_that_belong_elsewhere(name):
    assert name not in ids()


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("len", "len(obj)"),
        ("tempfile", "tempfile"),
        ("os.path.join", "os.path.join(a, *p): os path join"),
        ("str.removeprefix", "str.removeprefix(prefix): str removeprefix"),
        (
            "concurrent.futures.Executor.submit",
            "concurrent.futures.Executor.submit(fn, *args, **kwargs): "
            "concurrent futures Executor submit",
        ),
        ("http.HTTPStatus", "HTTP Status"),
        ("textwrap.TextWrapper.fill", "Text Wrapper fill"),
        ("hashlib.sha256", "hashlib sha256"),
        ("bisect.bisect_left", "bisect bisect left"),
    ],
)
def test_titles_spell_names_apart(name, title):
    assert {doc.id: doc.title for doc in harvested()}[name].endswith(title)


def test_no_title_or_text_holds_an_address():
    assert [doc.id for doc in harvested() if " at 0x" in doc.title] == []


def test_a_module_that_does_not_import_is_reported(monkeypatch):
    before = ids()
    monkeypatch.setitem(sys.modules, "textwrap", None)
    found = stdlib.harvest()
    assert found.failed["textwrap"].startswith("ModuleNotFoundError")
    lost = before - {doc.id for doc in found}
    assert lost
    assert {name.partition(".")[0] for name in lost} == {"textwrap"}


def test_without_docstrings_it_refuses(tmp_path):
    code = "import sys; sys.path.insert(0, FOLDER)\nimport harvest\nharvest.harvest()"
    done = run_child(tmp_path / "unused", "-OO", code=code)
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "-OO" in done.stderr


# ---------------------------------------------------------------- the deny list


@pytest.mark.parametrize(
    ("name", "denied"),
    [
        ("this", True),
        ("antigravity", True),
        ("idlelib.editor", True),
        ("tkinter.ttk", True),
        ("test.support", True),
        ("unittest.test.test_case", True),
        ("_io", True),
        ("xml.etree.__main__", True),
        ("asyncio", False),
        ("asyncio.events", True),
        ("asynciox", False),
        ("encodings", False),
        ("encodings.mbcs", True),
        ("json.decoder", True),
        ("json.tool", False),
        ("unittest.mock", False),
        ("collections.abc", False),
    ],
)
def test_denial(name, denied):
    assert (denial(name) is not None) == denied


def test_nothing_denied_is_listed_or_harvested():
    assert [name for name in module_names() if denial(name) is not None] == []
    assert {doc.module for doc in harvested()} <= {*module_names(), "builtins"}
    assert all(reason for reason in stdlib.DENIED.values())


# ---------------------------------------------------------------- questions


def test_questions():
    questions = stdlib.queries()
    assert len(questions) >= 165
    assert len(set(questions.values())) == len(questions)
    assert all(text == text.strip() and len(text.split()) >= 2 for text in questions.values())


def test_no_question_contains_its_answer():
    grades = stdlib.judgements(ids()).present
    leaks = [
        (text, doc)
        for query, text in stdlib.queries().items()
        for doc, grade in grades[query].items()
        if grade == 3 and "." in doc and doc.lower() in text.lower()
    ]
    assert leaks == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", 1),
        ('{"_id": "a", "text": "b"}\n[]', 2),
        ('{"_id": "a"}', 1),
        ('{"_id": 1, "text": "b"}', 1),
        ('{"_id": "", "text": "b"}', 1),
        ('{"_id": "a", "text": " "}', 1),
    ],
)
def test_broken_questions_name_the_line(text, line):
    with pytest.raises(ParseError, match=rf"queries\.jsonl:{line}: "):
        stdlib._parse_queries(text)


def test_a_repeated_question_id_is_refused():
    with pytest.raises(DuplicateIdError, match=r"queries\.jsonl:2: id 'a'"):
        stdlib._parse_queries('{"_id": "a", "text": "b"}\n{"_id": "a", "text": "c"}\n')


def test_no_questions():
    assert stdlib._parse_queries("") == {}


# ---------------------------------------------------------------- judgements


def test_every_question_has_a_best_answer_here():
    grades = stdlib.judgements(ids()).present
    assert set(grades) == set(stdlib.queries())
    assert [query for query, docs in grades.items() if max(docs.values()) < 3] == []
    several = [sum(grade > 0 for grade in docs.values()) > 1 for docs in grades.values()]
    assert sum(several) > 0.9 * len(several)


def test_grades_of_known_answers():
    questions = {text: query for query, text in stdlib.queries().items()}
    grades = stdlib.judgements(ids()).present
    for text, answer in {
        "sort a list without changing it": "sorted",
        "make a temporary directory that cleans up after itself": "tempfile.TemporaryDirectory",
        "fast appends and pops from both ends": "collections.deque",
    }.items():
        assert grades[questions[text]][answer] == 3


def test_absent_documents_are_told_apart():
    here = stdlib.judgements(ids())
    assert set(here.absent_ids()).isdisjoint(ids())
    relevant = {doc for docs in here.present.values() for doc, grade in docs.items() if grade}
    assert len(here.absent_ids()) < 0.05 * len(relevant), here.absent_ids()
    assert here.python_version == platform.python_version() == harvested().python_version


def test_no_documents_no_judgements():
    nothing = stdlib.judgements([])
    assert nothing.present == {}
    assert set(nothing.absent) == set(stdlib.queries())


@given(st.sets(st.deferred(lambda: st.sampled_from(sorted(ids()))), max_size=50))
def test_present_and_absent_are_a_partition(some):
    whole = stdlib.judgements(ids())
    part = stdlib.judgements(some)
    for query in stdlib.queries():
        present, absent = part.present.get(query, {}), part.absent.get(query, {})
        assert present.keys() <= some
        assert absent.keys().isdisjoint(some)
        assert {**present, **absent} == {**whole.present[query], **whole.absent.get(query, {})}


def test_the_file_is_sorted():
    lines = (FOLDER / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]
    pairs = [tuple(line.split("\t")[:2]) for line in lines]
    assert pairs == sorted(set(pairs))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("query-id\tcorpus-id\tgrade\nq1\tlen\t3\n", 1),
        ("q1\tlen\t3\n", 1),
        ("query-id\tcorpus-id\tscore\nq1\tlen\t-1\n", 2),
        ("query-id\tcorpus-id\tscore\nq1\tlen\t4\n", 2),
        ("query-id\tcorpus-id\tscore\nq1\tlen\t3\nq1\tlen\n", 3),
        ("query-id\tcorpus-id\tscore\nq1 len 3\n", 2),
        ("query-id\tcorpus-id\tscore\n\tlen\t3\n", 2),
        ("query-id\tcorpus-id\tscore\nq1\tlen\t3\textra\n", 2),
    ],
)
def test_broken_judgements_name_the_line(text, line):
    with pytest.raises(ParseError, match=rf"qrels\.tsv:{line}: "):
        stdlib._parse_qrels(text)


def test_a_repeated_judgement_is_refused():
    with pytest.raises(DuplicateIdError, match=r"qrels\.tsv:3: 'len'"):
        stdlib._parse_qrels("query-id\tcorpus-id\tscore\nq1\tlen\t3\nq1\tlen\t2\n")


def test_a_header_alone_is_no_judgement():
    assert stdlib._parse_qrels("query-id\tcorpus-id\tscore\n") == {}
