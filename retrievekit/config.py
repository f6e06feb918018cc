"""Pipelines as text: one small grammar for the command line, YAML and Python.

::

    pipeline := step (">>" step)*
    step     := NAME [ "(" [argument ("," argument)* [","]] ")" ] | "(" pipeline ")"
    argument := pipeline | literal | NAME "=" literal
    literal  := NUMBER | STRING | "true" | "false" | "null" | "[" [literal ("," literal)*] "]"
    NAME     := letter or "_", then letters, digits, "_"; "-" and "." between those

Examples: ``rrf(bm25, minilm)``, ``bm25(k1=1.2, b=0.75) >> top(100)``,
``weighted(bm25, minilm, weights=[0.3, 0.7], missing="min")``.

A text is parsed into frozen `Call` and `Pipe` values that print back as text; nothing is ever run
as code. `resolve` turns them into stages: fusions and cuts come from the registry, retrievers from
a `Shelf`, which knows the corpus and builds or opens each index once.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from retrievekit import registry
from retrievekit.errors import (
    DataError,
    ExpressionError,
    FingerprintError,
    MissingDataError,
    ParseError,
    UnknownNameError,
)
from retrievekit.literals import ESCAPES, located, unescaped

if TYPE_CHECKING:
    from retrievekit.queries import Queries
    from retrievekit.run import Run
    from retrievekit.stage import Stage

Literal = None | bool | int | float | str | tuple["Literal", ...]
"""A plain value in an expression; lists are tuples, so that they stay frozen."""

DEEPEST = 50
"""Brackets within brackets that the parser follows."""


@dataclass(frozen=True)
class Call:
    """A name with its arguments; a name alone has none.

    Args:
        name: The name.
        args: Positional arguments: pipelines and literals.
        keywords: Keyword arguments in their order.
        at: Where the name stands in the text it was parsed from, from 0; outside equality.
    """

    name: str
    args: tuple[Argument, ...] = ()
    keywords: tuple[tuple[str, Literal], ...] = ()
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        """The text that parses to this value."""
        inside = [written(value) for value in self.args]
        inside += [f"{name}={written(value)}" for name, value in self.keywords]
        return f"{self.name}({', '.join(inside)})" if inside else self.name


@dataclass(frozen=True)
class Pipe:
    """Calls one after another.

    Args:
        steps: At least two calls.
    """

    steps: tuple[Call, ...]

    def __str__(self) -> str:
        """The text that parses to this value."""
        return " >> ".join(str(step) for step in self.steps)

    @property
    def at(self) -> int:
        """Where the first step stands in the text it was parsed from, from 0."""
        return self.steps[0].at


Expression = Call | Pipe
Argument = Call | Pipe | Literal

_WORDS: dict[str, Literal] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
}


def written(value: Argument) -> str:
    """A literal or expression as the text that parses to it.

    Args:
        value: The value.

    Returns:
        Its text.

    Raises:
        ExpressionError: The value is no literal of the grammar.
    """
    if isinstance(value, (Call, Pipe)):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf")):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(_escaped(character) for character in value) + '"'
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(written(item) for item in value) + "]"
    raise ExpressionError(f"{value!r} ({type(value).__name__}) cannot be written in an expression")


def _escaped(character: str) -> str:
    for letter, meant in ESCAPES.items():
        if character == meant and meant not in "'`":
            return "\\" + letter
    return character if character.isprintable() else f"\\U{ord(character):08x}"


# Parsing ------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""
      (?P<blank>\s+)
    | (?P<name>[^\W\d]\w*(?:[-.]+\w+)*)
    | (?P<number>-?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<sign>>>|[(),=\[\]])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "a string without its end" if text[at] in "'\"" else f"{text[at]!r} here"
            hint = "; pipelines are joined by '>>'" if text[at] in "|>+" else ""
            raise located(text, at, f"cannot read {what}{hint}")
        kind = str(match.lastgroup)
        if kind != "blank":
            yield _Token(kind, match[0], at)
        at = match.end()
    yield _Token("end", "", len(text))


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.place = 0
        self.depth = 0

    @property
    def now(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        token = self.now
        self.place += token.kind != "end"
        return token

    def sees(self, sign: str, ahead: int = 0) -> bool:
        token = self.tokens[min(self.place + ahead, len(self.tokens) - 1)]
        return token.kind == "sign" and token.text == sign

    def expect(self, sign: str, inside: str) -> None:
        if not self.sees(sign):
            raise located(
                self.text, self.now.at, f"expected {sign!r} {inside}, but found {self.now.shown}"
            )
        self.take()

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise located(self.text, self.now.at, f"brackets are nested more than {DEEPEST} deep")

    def whole(self) -> Expression:
        found = self.pipeline()
        if self.now.kind != "end":
            raise located(
                self.text, self.now.at, f"expected '>>' or the end, but found {self.now.shown}"
            )
        return found

    def pipeline(self) -> Expression:
        steps: list[Call] = []
        while True:
            step = self.step()
            steps += step.steps if isinstance(step, Pipe) else [step]
            if not self.sees(">>"):
                return steps[0] if len(steps) == 1 else Pipe(tuple(steps))
            self.take()

    def step(self) -> Expression:
        if self.sees("("):
            self.deeper()
            self.take()
            inner = self.pipeline()
            self.expect(")", "after the pipeline in brackets")
            self.depth -= 1
            return inner
        token = self.now
        if token.kind != "name":
            raise located(
                self.text, token.at, f"expected a name such as bm25, but found {token.shown}"
            )
        if token.text in _WORDS:
            raise located(
                self.text, token.at, f"{token.text} is a value, but a stage is needed here"
            )
        self.take()
        if not self.sees("("):
            return Call(token.text, at=token.at)
        self.deeper()
        self.take()
        args: list[Argument] = []
        keywords: dict[str, Literal] = {}
        while not self.sees(")"):
            self.argument(args, keywords)
            if not self.sees(")"):
                self.expect(",", f"or ')' in the brackets of {token.text}")
        self.take()
        self.depth -= 1
        return Call(token.text, tuple(args), tuple(keywords.items()), token.at)

    def argument(self, args: list[Argument], keywords: dict[str, Literal]) -> None:
        token = self.now
        if token.kind == "name" and self.sees("=", ahead=1):
            if not token.text.isidentifier():
                raise located(
                    self.text, token.at, f"{token.text!r} cannot be the name of a setting"
                )
            if token.text in keywords:
                raise located(self.text, token.at, f"{token.text} is given twice")
            self.take()
            self.take()
            keywords[token.text] = self.literal(f"the value of {token.text}")
            return
        if keywords:
            last = list(keywords)[-1]
            raise located(
                self.text,
                token.at,
                f"after {last}=... only settings of the form name=value may follow",
            )
        stage_like = token.kind == "name" and token.text not in _WORDS
        if stage_like or self.sees("("):
            args.append(self.pipeline())
        else:
            args.append(self.literal("a stage or a value"))

    def literal(self, wanted: str) -> Literal:
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "string":
            return unescaped(self.text, token.at, token.text)
        if token.kind == "name" and token.text in _WORDS:
            return _WORDS[token.text]
        if token.kind == "sign" and token.text == "[":
            self.deeper()
            items: list[Literal] = []
            while not self.sees("]"):
                items.append(self.literal("a value"))
                if not self.sees("]"):
                    self.expect(",", "or ']' in the list")
            self.take()
            self.depth -= 1
            return tuple(items)
        hint = f"; put it in quotes: {token.text!r}" if token.kind == "name" else ""
        raise located(self.text, token.at, f"expected {wanted}, but found {token.shown}{hint}")

    def number(self, token: _Token) -> int | float:
        if len(token.text) > 400:
            raise located(self.text, token.at, "a number of more than 400 characters")
        if re.fullmatch(r"-?[0-9]+", token.text):
            return int(token.text)
        value = float(token.text)
        if abs(value) == float("inf"):
            raise located(self.text, token.at, f"{token.text} is too large for a number")
        return value


def parse(text: str) -> Expression:
    """Read an expression.

    Args:
        text: The expression.

    Returns:
        A `Call` or a `Pipe`; ``parse(str(e)) == e``.

    Raises:
        ExpressionError: The text does not follow the grammar; the message points at the place.

    >>> print(parse("rrf( bm25,minilm , k=60 )>>top( 100 )"))
    rrf(bm25, minilm, k=60) >> top(100)
    """
    if not text.strip():
        raise ExpressionError(
            'an empty expression; write one such as "bm25" or "rrf(bm25, minilm)"'
        )
    return _Parser(text).whole()


# Resolving ----------------------------------------------------------------------------------------


class Shelf(Protocol):
    """What knows the corpus: builds or opens each index once and gives its searcher."""

    def retriever_names(self) -> Sequence[str]:
        """The names that `retriever` takes."""
        ...

    def retriever(
        self, name: str, args: Sequence[Literal], keywords: Mapping[str, Literal]
    ) -> Stage[Queries, Run]:
        """The searcher of a name and its settings.

        Raises:
            ExpressionError: The settings do not fit.
        """
        ...


def resolve(expression: str | Expression, shelf: Shelf) -> Stage[Any, Any]:
    """Turn an expression into a stage.

    Args:
        expression: A text or a parsed expression.
        shelf: Gives the retrievers.

    Returns:
        The stage; equal sub-expressions share their indexes.

    Raises:
        ExpressionError: The text does not parse, a name is unknown (near ones are named), or an
            argument does not fit; the message points at the place.
        CompositionError: Two stages joined by ``>>`` whose ends do not meet.
    """
    text = expression if isinstance(expression, str) else str(expression)
    return _stage_of(parse(text), text, shelf)


def known_names(shelf: Shelf) -> list[str]:
    """All names an expression may use, sorted.

    Args:
        shelf: Gives the retrievers.

    Returns:
        The names.
    """
    return sorted({*shelf.retriever_names(), *registry.names("fuse"), *registry.names("cut")})


def _stage_of(node: Expression, text: str, shelf: Shelf) -> Stage[Any, Any]:
    if isinstance(node, Pipe):
        stages = [_stage_of(step, text, shelf) for step in node.steps]
        joined: Stage[Any, Any] = stages[0]
        for stage in stages[1:]:
            joined = joined >> stage
        return joined
    if node.name in shelf.retriever_names():
        values = [_literal_only(value, node, text) for value in node.args]
        try:
            return shelf.retriever(node.name, values, dict(node.keywords))
        except ExpressionError as why:
            raise located(text, node.at, f"{node.name}: {why}") from why
    for kind in ("fuse", "cut"):
        if node.name in registry.names(kind):
            make = registry.resolve(kind, node.name)
            args = [
                _stage_of(value, text, shelf) if isinstance(value, (Call, Pipe)) else _plain(value)
                for value in node.args
            ]
            settings = {name: _plain(value) for name, value in node.keywords}
            made: Stage[Any, Any] = _made(make, args, settings, node, text)
            return made
    raise located(text, node.at, _unknown(node.name, shelf))


def check_names(expression: str | Expression, shelf: Shelf) -> None:
    """Look every name of an expression up, without making anything.

    Args:
        expression: A text or a parsed expression.
        shelf: Knows the retrievers.

    Raises:
        ExpressionError: The text does not parse, or a name is unknown; the message points at it.
    """
    text = expression if isinstance(expression, str) else str(expression)
    known = set(known_names(shelf))
    waiting: list[Argument] = [parse(text)]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, Pipe):
            waiting = [*node.steps, *waiting]
        elif isinstance(node, Call):
            if node.name not in known:
                raise located(text, node.at, _unknown(node.name, shelf))
            waiting = [*node.args, *waiting]


def _unknown(name: str, shelf: Shelf) -> str:
    if Path(name).is_dir():
        return f"no stage named {name!r}; the index in that folder is index('{name}')"
    names = known_names(shelf)
    problem = UnknownNameError.among("stage", name, names)
    hint = "" if "known:" in str(problem) else f" known: {', '.join(names)}."
    return f"{problem}{hint}"


def _literal_only(value: Argument, node: Call, text: str) -> Literal:
    if isinstance(value, (Call, Pipe)):
        raise located(
            text,
            value.at,
            f"{node.name} takes settings, not stages; for the text {str(value)!r} use quotes",
        )
    return value


def _plain(value: Literal) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _made(make: Any, args: list[Any], settings: dict[str, Any], node: Call, text: str) -> Any:
    try:
        inspect.signature(make).bind(*args, **settings)
    except TypeError as why:
        raise located(text, node.at, f"{node.name}: {why}; it takes {_signature(make)}") from why
    try:
        return make(*args, **settings)
    except (DataError, FingerprintError, UnknownNameError) as why:
        raise located(text, node.at, f"{node.name}: {why}") from why


def _signature(make: Any) -> str:
    shown = []
    for parameter in inspect.signature(make).parameters.values():
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            shown.append(f"{name}...")
        elif parameter.default is parameter.empty:
            shown.append(name)
        else:
            default = parameter.default
            shown.append(f"{name}={default!r}")
    return f"({', '.join(shown)})"


# YAML ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BenchConfig:
    """A benchmark as a file describes it; the fields are those of `retrievekit.benchmark`.

    Args:
        systems: Expressions by the name that the table shows.
        data: Data sets by name or folder.
        measures: Measures by name.
        baseline: The system that the others are compared with, or None.
        output: The folder for run files and the table, or None.
        depth: Hits per query.
    """

    systems: Mapping[str, str]
    data: tuple[str, ...]
    measures: tuple[str, ...] = ("nDCG@10", "R@100", "RR@10")
    baseline: str | None = None
    output: str | None = None
    depth: int = 1000

    def to_yaml(self) -> str:
        """The YAML text that `read_config` reads back."""
        import yaml

        plain: dict[str, Any] = dataclasses.asdict(self)
        plain["systems"] = dict(self.systems)
        plain["data"], plain["measures"] = list(self.data), list(self.measures)
        kept = {name: value for name, value in plain.items() if value is not None}
        text: str = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
        return text


def read_config(path: str | Path) -> BenchConfig:
    """Read a benchmark description from YAML.

    Args:
        path: The file: ``systems`` (a mapping of names to expressions, or a list of expressions),
            ``data``, and optionally ``measures``, ``baseline``, ``output``, ``depth``.

    Returns:
        The description; its expressions parse.

    Raises:
        MissingDataError: No such file.
        ParseError: It is no YAML, a key is unknown, missing or given twice, or a value has the
            wrong type; names the line.
        ExpressionError: An expression does not parse.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as why:
        raise MissingDataError(f"no such file: {path}") from why
    except UnicodeDecodeError as why:
        raise ParseError(path, None, f"not UTF-8 at byte {why.start}; save it as UTF-8") from why
    lines = _checked_keys(text, path)
    return _config_of(lines, path)


def _checked_keys(text: str, path: Path) -> dict[str, tuple[Any, int]]:
    """The top-level values with their lines; a key that comes twice anywhere is an error."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as why:
        mark = getattr(why, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        raise ParseError(path, line, f"not YAML: {getattr(why, 'problem', None) or why}") from why
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise ParseError(path, 1, "a benchmark is a mapping with at least 'systems' and 'data'")
    found: dict[str, tuple[Any, int]] = {}
    for key, value in root.value:
        inner = value.value if isinstance(value, yaml.MappingNode) else []
        seen: set[str] = set()
        for name, _ in inner:
            if name.value in seen:
                raise ParseError(path, name.start_mark.line + 1, f"{name.value!r} is given twice")
            seen.add(name.value)
        line = key.start_mark.line + 1
        if key.value in found:
            raise ParseError(path, line, f"{key.value!r} is given twice")
        found[str(key.value)] = (values.get(key.value), line)
    return found


def _config_of(found: dict[str, tuple[Any, int]], path: Path) -> BenchConfig:
    known = [f.name for f in dataclasses.fields(BenchConfig)]
    for name, (_, line) in found.items():
        if name not in known:
            raise ParseError(path, line, str(UnknownNameError.among("setting", name, known)))
    for name in ("systems", "data"):
        if name not in found:
            raise ParseError(path, None, f"{name!r} is missing")

    def wrong(name: str, wanted: str) -> NoReturn:
        value, line = found[name]
        raise ParseError(path, line, f"{name!r} is {reprlib.repr(value)}, but must be {wanted}")

    def texts(name: str) -> tuple[str, ...]:
        value = found[name][0]
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not listed or not all(_is_text(v) for v in listed):
            wrong(name, "a text or a list of texts")
        return tuple(listed)

    systems = found["systems"][0]
    if isinstance(systems, list) and systems and all(_is_text(v) for v in systems):
        systems = {text: text for text in systems}
    if not isinstance(systems, dict) or not systems:
        wrong("systems", "a mapping of names to expressions, or a list of expressions")
    for name, text in systems.items():
        if not _is_text(name) or not _is_text(text):
            wrong("systems", f"a mapping of names to expressions; see {name!r}")
        try:
            parse(text)
        except ExpressionError as why:
            raise ExpressionError(f"{path}: system {name!r}: {why}") from why
    settings: dict[str, Any] = {"systems": dict(systems), "data": texts("data")}
    if "measures" in found:
        settings["measures"] = texts("measures")
    for name in ("baseline", "output"):
        value = found.get(name, (None, 0))[0]
        if value is not None and not _is_text(value):
            wrong(name, "a text")
        settings[name] = value
    if settings["baseline"] is not None and settings["baseline"] not in systems:
        wrong("baseline", f"one of the systems: {', '.join(systems)}")
    if "depth" in found:
        depth = found["depth"][0]
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
            wrong("depth", "a whole number of at least 1")
        settings["depth"] = depth
    return BenchConfig(**settings)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
