"""Every example is run: the doctests of the library and the code blocks of the README, in order.

A block that cannot run here (it downloads, or needs a GPU) says so in a comment directly above it:
``<!-- not run: reason -->``.
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "retrievekit"
README = ROOT / "README.md"

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MAIN = "import sys; from retrievekit.cli import main; sys.exit(main())"


# Docstrings ---------------------------------------------------------------------------------------


def modules_with_examples() -> list[str]:
    """Dotted names of the modules in which a prompt stands."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text("utf-8"):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retrievekit.errors import MissingExtraError

    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    result = doctest.testmod(module, optionflags=FLAGS)
    assert result.attempted, "prompts, but none that doctest sees"
    assert result.failed == 0, capsys.readouterr().out


# README -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line of its first line, its text, and why it is not run."""

    language: str
    line: int
    text: str
    not_run: str | None = None


FENCE = re.compile(
    r"^(?:<!-- *not run: *(?P<why>[^\n]*?) *-->\n)?^(?P<fence>`{3,})(?P<language>[\w-]*)[^\n`]*\n"
    r"(?P<text>.*?)^(?P=fence) *$",
    re.M | re.S,
)


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a Markdown text, in order."""
    return [
        Block(
            language=found["language"],
            line=markdown.count("\n", 0, found.start("text")) + 1,
            text=found["text"],
            not_run=found["why"],
        )
        for found in FENCE.finditer(markdown)
    ]


def commands(block: Block) -> list[list[str]]:
    """The calls of the command line in a shell block, as argument lists without the program's name.

    Empty when the block is about something else, such as installing. Lines without a prompt are
    output where any line has one.
    """
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    calls = [shlex.split(line, comments=True) for line in prompted or lines]
    calls = [call for call in calls if call]
    if not calls or calls[0][0] != "retrievekit":
        return []
    for call in calls:
        if call[0] != "retrievekit":
            raise ValueError(f"README.md:{block.line}: {call[0]} among retrievekit's own commands")
    return [call[1:] for call in calls]


def runnable() -> list[Block]:
    found = blocks(README.read_text("utf-8")) if README.exists() else []
    return [
        block
        for block in found
        if block.language == "python"
        or (block.language in {"shell", "console", "sh", "bash"} and commands(block))
    ]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the names of somebody who types the README from top to bottom."""
    return tmp_path_factory.mktemp("readme"), {"__name__": "__main__"}


@pytest.mark.skipif(not README.exists(), reason="no README.md yet")
@pytest.mark.parametrize("block", runnable(), ids=lambda block: f"line{block.line}")
def test_readme(
    block: Block, reader: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = reader
    if block.not_run is not None:
        assert block.not_run, f"README.md:{block.line}: say why the block is not run"
        pytest.skip(block.not_run)
    monkeypatch.chdir(folder)
    if block.language == "python":
        # Blank lines in front, so that a traceback names the README's own line.
        source = "\n" * (block.line - 1) + block.text
        exec(compile(source, str(README), "exec", dont_inherit=True), names)
        return
    for call in commands(block):
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *call],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"retrievekit {shlex.join(call)}\n{done.stdout}\n{done.stderr}"


# The tools above ----------------------------------------------------------------------------------

SAMPLE = """\
# Title

```python
x = 1
```

<!-- not run: needs a GPU -->
```python
y = 2
```

```
plain
```

````markdown
```python
inner = 3
```
````

```console
$ retrievekit index stdlib \\
    -o "my index"   # a comment
indexing
$ retrievekit search "my index" "sort a list"
```

```shell
make demo
```
"""


def test_blocks_are_found() -> None:
    found = blocks(SAMPLE)
    assert [(b.language, b.line) for b in found] == [
        ("python", 4),
        ("python", 9),
        ("", 13),
        ("markdown", 17),
        ("console", 23),
        ("shell", 30),
    ]
    assert found[0].text == "x = 1\n"
    assert [b.not_run for b in found] == [None, "needs a GPU", None, None, None, None]


def test_commands_are_read_as_a_shell_would() -> None:
    *_, console, shell = blocks(SAMPLE)
    assert commands(console) == [
        ["index", "stdlib", "-o", "my index"],
        ["search", "my index", "sort a list"],
    ]
    assert commands(shell) == []
    assert commands(
        Block("shell", 1, "retrievekit datasets\n\n# then\nretrievekit eval a b\n")
    ) == [
        ["datasets"],
        ["eval", "a", "b"],
    ]
    with pytest.raises(ValueError, match="curl"):
        commands(Block("shell", 1, "retrievekit datasets\ncurl x\n"))
