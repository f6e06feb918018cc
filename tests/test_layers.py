"""The order of the layers: imports point down only, and folders of one row never import each other.

Every import statement counts, also those inside functions and under ``TYPE_CHECKING``: a dependency
that is loaded late is still a dependency.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "retrievekit"


@dataclass(frozen=True)
class Row:
    """Units (modules or folders directly under the package) of one height.

    A unit may import every row below its own. Units of an open row may import each other as well.
    """

    name: str
    units: frozenset[str]
    open: bool = False


def row(name: str, units: str, *, open: bool = False) -> Row:
    return Row(name, frozenset(units.split()), open)


# From the bottom up. `_version` and `locations` lie under the kernels, whose cache they name.
LAYERS = (
    row("foundation", "_version locations"),
    row("L0", "kernels"),
    row(
        "L1",
        "ids corpus queries run qrels vectors arrow cuts literals stage trace protocols"
        " where registry errors dataset splitting headway"
        " candidates services",
        open=True,
    ),
    row("L2a", "store analysis evaluate"),
    row("L2b", "encode index data"),
    row("L2c", "language"),
    row("L3", "rewrite feedback filter rerank fuse passages cache compress"),
    row("L4", "train"),
    row("L5", "config testing doctor"),
    row("L5b", "bench"),
    row("L6", "cli"),
    row("L6b", "__main__"),
)


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module but the package's ``__init__``, which exports lazily."""
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package.parent).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if len(parts) > 1:
            yield ".".join(parts), path


def imported(
    tree: ast.Module, name: str, units: Collection[str]
) -> Iterator[tuple[int, str | None, str]]:
    """Line, unit and text of every import from the package; no unit when it goes by the top."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == name:
                    unit = parts[1] if len(parts) > 1 else None
                    yield node.lineno, unit, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, None, f"from {'.' * node.level}{node.module or ''} import ..."
                continue
            parts = (node.module or "").split(".")
            if parts[0] != name:
                continue
            for alias in node.names:
                text = f"from {node.module} import {alias.name}"
                if len(parts) > 1:
                    yield node.lineno, parts[1], text
                else:
                    yield node.lineno, alias.name if alias.name in units else None, text


def violations(package: Path, layers: tuple[Row, ...]) -> list[str]:
    """What breaks the order, one line each."""
    height = {unit: h for h, layer in enumerate(layers) for unit in layer.units}
    found = []
    for module, path in modules(package):
        own = module.split(".")[1]
        if own not in height:
            found.append(f"{module}: {own!r} has no layer; place it in the table")
            continue
        here = height[own]
        for line, unit, text in imported(ast.parse(path.read_bytes()), package.name, height):
            where = f"{module}:{line}: `{text}`"
            if unit is None:
                found.append(f"{where} hides its layer; name the module it is defined in")
            elif unit not in height:
                found.append(f"{where}: {unit!r} has no layer; place it in the table")
            elif height[unit] > here:
                found.append(
                    f"{where} points up from {layers[here].name} to {layers[height[unit]].name}"
                )
            elif height[unit] == here and unit != own and not layers[here].open:
                found.append(f"{where} goes sideways within {layers[here].name}")
    return found


def test_each_unit_has_one_layer() -> None:
    units = [unit for layer in LAYERS for unit in layer.units]
    assert len(units) == len(set(units))


def test_imports_point_down() -> None:
    assert list(modules(PACKAGE)), "found no module at all"
    found = violations(PACKAGE, LAYERS)
    assert not found, "\n" + "\n".join(found)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A sound package of four layers, to plant faults in."""
    package = tmp_path / "toy"
    sound = {
        "__init__.py": "from toy.cli import main",
        "ids.py": "import os",
        "run.py": "from toy import ids\nfrom toy.ids import Ids",
        "store/__init__.py": "",
        "store/files.py": "import toy.ids\nfrom toy.store import names",
        "store/names.py": "",
        "llm/__init__.py": "",
        "cli/__init__.py": "def main():\n    from toy.store.files import File",
    }
    for name, text in sound.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


TOY = (row("low", "ids run", open=True), row("middle", "store llm"), row("top", "cli"))


def test_sound_package_passes(planted: Path) -> None:
    assert violations(planted, TOY) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("ids.py", "from toy.store import files", "points up from low to middle"),
        ("ids.py", "import toy.cli", "points up from low to top"),
        ("ids.py", "def f():\n    from toy.cli import main", "points up"),
        ("ids.py", "if TYPE_CHECKING:\n    import toy.store.files as f", "points up"),
        ("ids.py", "from toy import store", "points up"),
        ("store/files.py", "from toy.llm import chat", "goes sideways within middle"),
        ("store/files.py", "from toy import File", "hides its layer"),
        ("store/files.py", "import toy", "hides its layer"),
        ("store/files.py", "from . import names", "hides its layer"),
        ("store/files.py", "from toy.misc import x", "'misc' has no layer; place it in the table"),
        ("misc.py", "", "'misc' has no layer; place it in the table"),
    ],
)
def test_planted_fault_is_found(planted: Path, file: str, text: str, complaint: str) -> None:
    (planted / file).write_text(text)
    (found,) = violations(planted, TOY)
    assert complaint in found
