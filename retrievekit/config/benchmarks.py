"""A benchmark as a YAML file describes it: systems by name, data sets, measures.

Only the safe loader reads it; each fault names the file and the line.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from retrievekit.config.expressions import parse
from retrievekit.errors import (
    ExpressionError,
    MissingDataError,
    ParseError,
    UnknownNameError,
)


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
