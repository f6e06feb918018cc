"""Docstrings say what the signatures say: parameters, raised errors, shapes and dtypes.

Read from the syntax tree, so nothing is imported. The rules, for what is public:

- it has a docstring (an override may leave that to the method it overrides);
- an ``Args:`` section names exactly the parameters, in their order;
- an error class raised in the body itself stands under ``Raises:``;
- where annotations speak of arrays or tensors, a shape such as ``(n, d)`` and the dtype are said.

A class documents its constructor; a property needs one sentence; commands of the command line raise
what their framework wants, so ``Raises:`` is not asked of them.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "retrievekit"

Function = ast.FunctionDef | ast.AsyncFunctionDef

ARRAY = re.compile(r"\b(?:NDArray|ndarray|Tensor)\b")
# (n,) (n, d) (nq + 1,) (..., 3), but not words in brackets.
LENGTH = r"(?:\.\.\.|\w+(?: ?[-+*/] ?\w+)*)"
SHAPE = re.compile(rf"\({LENGTH},(?: ?{LENGTH},)*(?: ?{LENGTH})?\)")
DTYPES = "bool|u?int(?:8|16|32|64)|b?float(?:16|32|64)|complex(?:64|128)|bytes_|str_|generic"
DTYPE_IN_CODE = re.compile(rf"\b(?:np|numpy|torch)\.({DTYPES})\b")
DTYPE_IN_TEXT = re.compile(
    rf"\b(?:{DTYPES}|dtypes?|integers?|booleans?|floating|same type)\b", re.IGNORECASE
)
SECTION = re.compile(r"^(\w[\w ]*):\s*$")
# Where the code says "this cannot happen" or "a subclass does this": no part of the contract.
UNPROMISED = {"AssertionError", "NotImplementedError"}


@dataclass
class Class:
    """A class of the package, with what its methods may inherit."""

    node: ast.ClassDef
    bases: list[str]
    methods: dict[str, Function] = field(default_factory=dict)


def last_name(node: ast.expr) -> str:
    """The last part of a name, through calls and subscripts; empty for anything else."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def decorators(node: Function | ast.ClassDef) -> set[str]:
    return {last_name(d) for d in node.decorator_list}


def is_property(node: Function) -> bool:
    return bool(decorators(node) & {"property", "cached_property", "setter", "deleter"})


def sections(doc: str) -> dict[str, str]:
    """The Google-style sections of a docstring, by title, each dedented."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in doc.splitlines():
        if match := SECTION.match(line):
            title = match[1]
            found[title] = []
        elif line and not line[0].isspace():
            title = ""
        elif title:
            found[title].append(line)
    return {name: textwrap.dedent("\n".join(lines)).strip("\n") for name, lines in found.items()}


def entries(section: str) -> list[str]:
    """The names that entries begin with: ``a, b: ...`` gives two, ``*rest: ...`` gives rest."""
    names: list[str] = []
    for line in section.splitlines():
        if match := re.match(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", line):
            names += [name.strip("* ") for name in match[1].split(",")]
    return names


def parameters(node: Function, method: bool) -> list[str]:
    """Names of the parameters that a caller sees."""
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    if method and "staticmethod" not in decorators(node):
        positional = positional[1:]
    found = [a.arg for a in positional]
    if args.vararg:
        found.append(args.vararg.arg)
    found += [a.arg for a in args.kwonlyargs]
    if args.kwarg:
        found.append(args.kwarg.arg)
    return [name for name in found if not name.startswith("_")]


def own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes of a body but those of functions and classes defined within it."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def raised(node: Function) -> set[str]:
    """Names of the error classes that the body itself raises, also by a class method of theirs."""
    found = set()
    for child in own_nodes(node.body):
        if not isinstance(child, ast.Raise) or child.exc is None:
            continue
        target = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
        while True:
            name = last_name(target)
            if name[:1].isupper():
                found.add(name)
                break
            if not isinstance(target, ast.Attribute):
                break  # a variable: an error caught or made elsewhere
            target = target.value
    return found - UNPROMISED


class Checker:
    """Checks the docstrings of all modules below a folder."""

    def __init__(self, package: Path) -> None:
        self.trees = {
            path.relative_to(package.parent): ast.parse(path.read_bytes())
            for path in sorted(package.rglob("*.py"))
        }
        self.classes: dict[str, Class] = {}
        self.aliases: dict[str, str] = {}
        for tree in self.trees.values():
            for node in tree.body:
                self._learn(node)

    def _learn(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ClassDef):
            known = Class(node, [last_name(base) for base in node.bases])
            known.methods = {n.name: n for n in node.body if isinstance(n, Function)}
            self.classes[node.name] = known
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            text = ast.unparse(node.value)
            if isinstance(node.targets[0], ast.Name) and re.match(
                r"\w*\.?\w*(NDArray|Tensor)\b", text
            ):
                self.aliases[node.targets[0].id] = text
        elif (
            isinstance(node, ast.AnnAssign)
            and node.value
            and last_name(node.annotation) == "TypeAlias"
        ):
            self.aliases[ast.unparse(node.target)] = ast.unparse(node.value)

    def faults(self) -> Iterator[str]:
        """Every fault, with its place."""
        for path, tree in self.trees.items():
            if any(part.startswith("_") and part != "__init__.py" for part in path.parts):
                continue
            commands = "cli" in path.parts
            for node in tree.body:
                if isinstance(node, Function) and not node.name.startswith("_"):
                    for fault in self.function(node, None, commands):
                        yield f"{path}:{node.lineno}: {node.name} {fault}"
                elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    for line, name, fault in self.of_class(node, commands):
                        yield f"{path}:{line}: {name} {fault}"

    def of_class(self, node: ast.ClassDef, commands: bool) -> Iterator[tuple[int, str, str]]:
        doc = ast.get_docstring(node)
        if doc is None:
            yield node.lineno, node.name, "has no docstring"
            doc = ""
        init = self.classes[node.name].methods.get("__init__")
        own = ast.get_docstring(init) if init else None
        documented = sections(own or "").get("Args") or sections(doc).get("Args")
        expected = parameters(init, method=True) if init else self.fields(node)
        if documented is not None and expected is not None:
            for fault in compare(documented, expected):
                yield node.lineno, node.name, fault
        if init and not commands:
            for fault in unannounced(init, f"{doc}\n\n{own or ''}"):
                yield node.lineno, node.name, fault
        for method in node.body:
            if isinstance(method, Function) and not method.name.startswith("_"):
                for fault in self.function(method, node.name, commands):
                    yield method.lineno, f"{node.name}.{method.name}", fault

    def fields(self, node: ast.ClassDef) -> list[str] | None:
        """What a dataclass or named tuple is made from; None for other classes."""
        bases = [last_name(base) for base in node.bases]
        if "dataclass" not in decorators(node) and "NamedTuple" not in bases:
            return None
        found: list[str] = []
        for base in bases:
            if base in self.classes:
                found += self.fields(self.classes[base].node) or []
        for item in node.body:
            if not isinstance(item, ast.AnnAssign) or last_name(item.annotation) == "ClassVar":
                continue
            if item.value is not None and re.search(r"\binit=False\b", ast.unparse(item.value)):
                continue
            name = ast.unparse(item.target)
            if not name.startswith("_") and name not in found:
                found.append(name)
        return found

    def overrides(self, name: str, of: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a base class within the package documents the method."""
        for base in self.classes[of].bases:
            if base not in self.classes or base in seen:
                continue
            theirs = self.classes[base].methods.get(name)
            if theirs is not None and ast.get_docstring(theirs):
                return True
            if self.overrides(name, base, seen | {of}):
                return True
        return False

    def function(self, node: Function, of: str | None, commands: bool) -> Iterator[str]:
        if "overload" in decorators(node) or decorators(node) & {"setter", "deleter"}:
            return
        doc = ast.get_docstring(node)
        if doc is None:
            inherits = "override" in decorators(node) or (of and self.overrides(node.name, of))
            if not inherits:
                yield "has no docstring"
            return
        documented = sections(doc).get("Args")
        if documented is not None:
            yield from compare(documented, parameters(node, of is not None))
        if is_property(node) or commands:
            return
        yield from unannounced(node, doc)
        yield from self.shapeless(node, doc)

    def shapeless(self, node: Function, doc: str) -> Iterator[str]:
        args = node.args
        given = [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]
        notes = [a.annotation for a in given if a is not None and not a.arg.startswith("_")]
        text = " ".join(ast.unparse(note) for note in [*notes, node.returns] if note is not None)
        text = re.sub(r"\w+", lambda word: self.aliases.get(word[0], word[0]), text)
        if not ARRAY.search(text):
            return
        if not SHAPE.search(doc):
            yield "speaks of arrays but says no shape such as (n, d)"
        concrete = set(DTYPE_IN_CODE.findall(text)) - {"generic"}
        missing = sorted(name for name in concrete if not re.search(rf"\b{name.strip('_')}\b", doc))
        if missing:
            yield f"does not say the dtype of its signature: {', '.join(missing)}"
        elif not concrete and not DTYPE_IN_TEXT.search(doc):
            yield "speaks of arrays but says no dtype"


def compare(documented: str, expected: list[str]) -> Iterator[str]:
    named = entries(documented)
    if named != expected:
        yield f"documents Args {named}, but takes {expected}"


def unannounced(node: Function, doc: str) -> Iterator[str]:
    said = sections(doc).get("Raises", "")
    for name in sorted(raised(node)):
        if not re.search(rf"\b{name}\b", said):
            yield f"raises {name}, but not in its Raises section"


def test_docstrings_say_what_the_signatures_say() -> None:
    checker = Checker(PACKAGE)
    assert checker.trees
    found = list(checker.faults())
    assert not found, f"{len(found)} faults\n" + "\n".join(found)


# The checker itself -------------------------------------------------------------------------------


def check(tmp_path: Path, source: str, name: str = "mod.py") -> list[str]:
    """Faults of one module, without their places."""
    path = tmp_path / "toy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), "utf-8")
    return [fault.split(": ", 1)[1] for fault in Checker(tmp_path / "toy").faults()]


SOUND = '''
from abc import abstractmethod

Rows = NDArray[np.int32]

def rank(scores: NDArray[np.float32], k: int, *rest: int, deep: bool = False, _x: int = 0) -> Rows:
    """Rank the rows.

    Args:
        scores: Of shape (n, d), float32.
        k: How many,
            and a continued line: with a colon.
        *rest: More.
        deep: Whether.

    Returns:
        int32 rows of shape (k,).

    Raises:
        ValueError: If k is negative.
        UnknownNameError, TypeError: Otherwise.
    """
    def inner(a):
        raise KeyError(a)
    if k < 0:
        raise ValueError("k")
    try:
        pass
    except OSError as why:
        raise why
    raise errors.UnknownNameError.among("x", "y", [])

def short(scores: NDArray[np.float32]) -> float:
    """Sum float32 scores of shape (n,)."""

def _private(x): ...

class Base:
    """A base.

    Args:
        a, b: Two things.

    Raises:
        ValueError: When a is wrong.
    """

    def __init__(self, a: int, b: int) -> None:
        raise ValueError(a)

    @abstractmethod
    def encode(self, texts: list[str]) -> None:
        """Encode.

        Args:
            texts: The texts.
        """
        raise NotImplementedError

    @property
    def size(self) -> NDArray[np.int64]:
        """How large."""
        raise TypeError

    @classmethod
    def make(cls, path: str) -> None:
        """Make one.

        Args:
            path: Where.
        """

    @staticmethod
    def parse(text: str) -> None:
        """Parse.

        Args:
            text: What.
        """

class Middle(Base):
    """Between."""

class Derived(Middle):
    """An heir."""

    def encode(self, texts: list[str]) -> None:
        pass

class Foreign(Elsewhere):
    """An heir of somebody else."""

    @override
    def encode(self, texts: list[str]) -> None:
        pass

@dataclass(frozen=True)
class Point:
    """A point.

    Args:
        x: One.
        y: Other.
    """

    x: int
    kind: ClassVar[str] = "p"
    y: int = 0
    cache: dict = field(init=False)
'''


def test_sound_module_passes(tmp_path: Path) -> None:
    assert check(tmp_path, SOUND) == []


def test_private_modules_are_left_alone(tmp_path: Path) -> None:
    assert check(tmp_path, "def f(): ...", "_inner.py") == []
    assert check(tmp_path, "def f(): ...", "__init__.py") == ["f has no docstring"]


def test_commands_need_no_raises_but_true_args(tmp_path: Path) -> None:
    source = '''
    @app.command()
    def index(path: str) -> None:
        """Index.

        Args:
            paths: Wrong.
        """
        raise Exit(2)
    '''
    (found,) = check(tmp_path, source, "cli/index.py")
    assert found == "index documents Args ['paths'], but takes ['path']"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('    """Sum float32 scores of shape (n,)."""', "    pass", "short has no docstring"),
        ('    """Between."""', "    pass", "Middle has no docstring"),
        ("        deep: Whether.\n", "", "but takes ['scores', 'k', 'rest', 'deep']"),
        ("        k: How many", "        n: How many", "rank documents Args ['scores', 'n',"),
        ("k: int, *rest", "*rest", "but takes ['scores', 'rest', 'deep']"),
        (
            "scores: NDArray[np.float32], k: int,",
            "k: int, scores: NDArray[np.float32],",
            "but takes ['k', 'scores', 'rest', 'deep']",
        ),
        ("        ValueError: If k is negative.\n", "", "rank raises ValueError"),
        ("UnknownNameError, TypeError: ", "TypeError: ", "rank raises UnknownNameError"),
        ("        ValueError: When a is wrong.", "        OSError: No.", "Base raises ValueError"),
        ("a, b: Two things.", "a: One thing.", "Base documents Args ['a'], but takes ['a', 'b']"),
        ("of shape (n,)", "as given", "short speaks of arrays but says no shape"),
        ("Sum float32 scores", "Sum float64 scores", "signature: float32"),
        ("        int32 rows of shape", "        Rows of shape", "signature: int32"),
        ("NDArray[np.float32]) -> float", "NDArray[Any]) -> float32", ""),
        ("            path: Where.", "            where: Where.", "Base.make documents Args"),
        ("            text: What.", "            self: What.", "Base.parse documents Args"),
        ("class Derived(Middle)", "class Derived(Other)", "Derived.encode has no docstring"),
        ("    @override\n", "", "Foreign.encode has no docstring"),
        ("        y: Other.\n", "", "Point documents Args ['x'], but takes ['x', 'y']"),
    ],
)
def test_planted_fault_is_found(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert SOUND.count(old) == 1, "the fault would be planted elsewhere"
    found = check(tmp_path, SOUND.replace(old, new))
    if complaint:
        (fault,) = found
        assert complaint in fault
    else:
        assert found == []


@pytest.mark.parametrize(
    ("doc", "fault"),
    [
        ("Score (n, d) vectors of dtype float32 or float64.", None),
        ("Score (n, d) vectors.", "f speaks of arrays but says no dtype"),
        (
            "Score float32 vectors (see above).",
            "f speaks of arrays but says no shape such as (n, d)",
        ),
    ],
)
def test_generic_arrays_need_shape_and_dtype(tmp_path: Path, doc: str, fault: str | None) -> None:
    source = f'def f(x: torch.Tensor) -> None:\n    """{doc}"""\n'
    assert check(tmp_path, source) == ([] if fault is None else [fault])


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("(n,)", True),
        ("(n, d)", True),
        ("(nq + 1,)", True),
        ("(2 * k, d, 3)", True),
        ("(..., d)", True),
        ("(n)", False),
        ("(see the paper)", False),
        ("(as above, or below)", False),
        ("offsets", False),
    ],
)
def test_shapes_are_recognised(text: str, shape: bool) -> None:
    assert bool(SHAPE.search(f"An array {text} of it.")) is shape
