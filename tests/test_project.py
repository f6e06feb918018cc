"""The habits of the project as tests: no code that runs data, one version, one word per chore."""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "retrievekit"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SOURCES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN_MODULES = {
    "cloudpickle": "runs what it reads",
    "dill": "runs what it reads",
    "joblib": "pickles",
    "marshal": "runs what it reads",
    "pickle": "runs what it reads",
    "shelve": "pickles",
}
FORBIDDEN_CALLS = {
    "eval": "runs what it reads",
    "exec": "runs what it reads",
    "os.system": "goes through a shell",
    "print": "belongs to the command line's consoles; use logging",
    "torch.load": "unpickles; use safetensors",
    "yaml.full_load": "builds objects; use yaml.safe_load",
    "yaml.load": "builds objects; use yaml.safe_load",
    "yaml.unsafe_load": "builds objects; use yaml.safe_load",
}
FORBIDDEN_SWITCHES = {
    "allow_pickle": "runs what it reads",
    "shell": "goes through a shell",
    "trust_remote_code": "runs what it downloads",
}
VAGUE_NAMES = {"common", "helpers", "misc", "util", "utils"}

# Spelt in pieces: this file is no open end itself, and is searched like every other.
MARKERS = ("TO" + "DO", "FIX" + "ME", "X" * 3)
OPEN_ENDS = re.compile(rf"\b(?:{'|'.join(MARKERS)})\b")
MACHINE_PATHS = re.compile(r"(?<![\w.}~])/(?:work|tmp|home|root|Users|opt)/|\b[C-Z]:\\\w")


def dotted(node: ast.expr) -> str | None:
    """The dotted name that an expression spells, or None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return None if left is None else f"{left}.{node.attr}"
    return None


def is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def faults(source: str) -> Iterator[str]:
    """What a module of the library must not do, one line each."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if why := FORBIDDEN_MODULES.get(name) or FORBIDDEN_CALLS.get(name):
                yield f"{line}: imports {name}, which {why}"
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in FORBIDDEN_CALLS:
                yield f"{line}: {called} {FORBIDDEN_CALLS[called]}"
            for keyword in node.keywords:
                if keyword.arg in FORBIDDEN_SWITCHES and is_true(keyword.value):
                    yield f"{line}: {keyword.arg}=True {FORBIDDEN_SWITCHES[keyword.arg]}"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                switch = key.value if isinstance(key, ast.Constant) else None
                if switch in FORBIDDEN_SWITCHES and is_true(value):
                    yield f"{line}: {switch}: True {FORBIDDEN_SWITCHES[switch]}"


# Reads old checkpoints when told to, with a torch that unpickles nothing but tensors.
TENSORS_ONLY = 'torch.load(file, map_location="cpu", weights_only=True)'
UNPICKLES = PACKAGE / "encode" / "tower.py"


def test_library_runs_nothing_that_it_reads() -> None:
    assert SOURCES
    texts = {path: path.read_text("utf-8") for path in SOURCES}
    assert texts[UNPICKLES].count(TENSORS_ONLY) == 1
    texts[UNPICKLES] = texts[UNPICKLES].replace(TENSORS_ONLY, "None")
    found = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path, text in texts.items()
        for fault in faults(text)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import dill",
        "eval('1')",
        "exec(text)",
        "print('x')",
        "torch.load(path)",
        "from torch import load",
        "yaml.load(text, Loader=Safe)",
        "from yaml import unsafe_load",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "options = {'trust_remote_code': True}",
        "subprocess.run(line, shell=True)",
        "os.system('ls')",
    ],
)
def test_planted_fault_is_found(source: str) -> None:
    assert len(list(faults(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "console.print('x')",
        "yaml.safe_load(text)",
        "from_pretrained(name, trust_remote_code=False)",
        "np.load(path, allow_pickle=False)",
        "{'shell': 1, **more}",
        "safetensors.torch.load_file(path)",
    ],
)
def test_sound_code_passes(source: str) -> None:
    assert list(faults(source)) == []


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file that belongs to the project."""
    paths = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "CITATION.cff", *ROOT.glob("*.md")]
    for folder in (".ci", "retrievekit", "tests", "benchmarks", "notebooks"):
        paths += [
            p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts
        ]
    for path in sorted(paths):
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # binary, or a file that tests what is not UTF-8


@pytest.mark.parametrize("pattern", [OPEN_ENDS, MACHINE_PATHS], ids=["open ends", "machine paths"])
def test_no_traces_of_the_workshop(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path, text in texts()
        # Questions and judgements speak for themselves, and this file's own paths are examples.
        if path.suffix != ".jsonl"
        if pattern is OPEN_ENDS or path != Path(__file__).resolve()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("marker", MARKERS)
def test_open_ends_are_recognised(marker: str) -> None:
    assert OPEN_ENDS.search(f"x  # {marker}: later")
    assert not OPEN_ENDS.search(f"x{marker}x")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /home/ann/data", True),
        ('Path("/tmp/x")', True),
        (r"C:\data", True),
        ("https://example.org/work/x", False),
        ("path/to/home/x", False),
        ("~/.cache/retrievekit", False),
    ],
)
def test_machine_paths_are_recognised(text: str, found: bool) -> None:
    assert bool(MACHINE_PATHS.search(text)) is found


def test_modules_say_what_they_hold() -> None:
    parts = {part for path in SOURCES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not parts & VAGUE_NAMES


def version() -> str:
    """The version, read without importing the package."""
    text = (PACKAGE / "_version.py").read_text("utf-8")
    (value,) = re.findall(r'^__version__ = "([^"]+)"$', text, re.M)
    return str(value)


def test_one_version() -> None:
    entries = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert entries[0] == version()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == version()
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "retrievekit._version.__version__"
    }


def test_torch_is_spelled_so() -> None:
    # Any other range that admits a release above 2.13.0 takes gigabytes of CUDA packages on Linux.
    assert "torch>=2.6,<2.14" in PROJECT["project"]["dependencies"]


def test_words_are_the_same_everywhere() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    words = set(re.findall(r"^([a-z]+):.*## ", makefile, re.M)) - {"help"}
    assert {"demo", "test", "check", "bench", "campaign"} <= words
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    assert set(phony.split()) - {"help"} == words
    explained = re.findall(r"`make ([a-z]+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert set(explained) == words
    for name in ("README.md", ".ci/run"):
        path = ROOT / name
        if path.exists():
            spoken = re.findall(r"\bmake ([a-z]+)\b(?= *(?:`|#|$))", path.read_text("utf-8"), re.M)
            assert set(spoken) <= words, name


def named_extras() -> Iterator[tuple[str, str]]:
    """Place and name of each extra that the library tells its user to install."""
    for path in SOURCES:
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or dotted(node.func) is None:
                continue
            if str(dotted(node.func)).split(".")[-1] != "MissingExtraError":
                continue
            given = node.args[:1] + [k.value for k in node.keywords if k.arg == "extra"]
            for value in given:
                if isinstance(value, ast.Constant):
                    yield f"{path.name}:{node.lineno}", str(value.value)
    for path, text in texts():
        for group in re.findall(r"retrievekit\[([a-z, ]+)\]", text):
            for name in group.split(","):
                yield path.name, name.strip()


def test_named_extras_exist() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    named = list(named_extras())
    assert named
    assert [
        f"{where}: {name}" for where, name in named if name not in extras and name != "extra"
    ] == []


def test_data_files_are_shipped() -> None:
    shipped = [
        f"{package.replace('.', '/')}/{pattern}"
        for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
    ]
    files = [
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]
    assert "retrievekit/py.typed" in files
    assert [f for f in files if not any(fnmatch.fnmatch(f, s) for s in shipped)] == []


def test_folders_are_packages() -> None:
    # The build takes only folders with an __init__.py.
    folders = {path.parent for path in SOURCES}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


def test_continuous_integration_needs_no_terminal() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "exec </dev/null" in script.read_text("utf-8")


def test_what_is_imported_is_declared() -> None:
    # Not merely brought along by something else, which may stop bringing it.
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(spec for extra in extras for spec in extra)]
    declared = {re.split(r"[^\w.-]", spec)[0].lower().replace("_", "-") for spec in wanted}
    installed = metadata.packages_distributions()
    imported: dict[str, Path] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported[node.module.split(".")[0]] = path
    assert {"numpy", "huggingface_hub", "yaml"} <= set(imported)
    for name, path in imported.items():
        if name not in {*sys.stdlib_module_names, "retrievekit"}:
            brings = {d.lower().replace("_", "-") for d in installed.get(name, [name])}
            assert brings & declared, f"{path} imports {name}, which pyproject.toml does not name"
