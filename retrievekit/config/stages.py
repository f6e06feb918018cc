"""Expressions to stages: each name is looked up, each call made from the inside out.

Fusions, cuts, filters, rerankers and feedback come from the registry, retrievers from a `Shelf`,
which knows the corpus and builds or opens each index once. Whatever does not fit is pointed at in
the text, whoever found it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from retrievekit import registry
from retrievekit.config.expressions import (
    Argument,
    Call,
    Expression,
    Literal,
    Pipe,
    parse,
)
from retrievekit.errors import (
    DataError,
    ExpressionError,
    FingerprintError,
    FormError,
    UnknownNameError,
)
from retrievekit.literals import located
from retrievekit.where import condition_of

if TYPE_CHECKING:
    from retrievekit.queries import Queries
    from retrievekit.run import Run
    from retrievekit.stage import Stage

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

KINDS = ("fuse", "cut", "filter", "passages", "rerank", "feedback", "rewrite")
"""Kinds of names in the registry that an expression may use.

What is registered as ``rerank`` is called with ``documents=``, the words of the hits before it; as
``feedback`` with ``index=``, the index that those hits come from; and as ``rewrite`` with
``index=``, the index that is searched next; unless a searcher of another one stands among the
arguments.
"""

RERANKED = 100
"""Hits that a reranker reorders unless an expression says ``k=...``."""


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

    def documents(self, before: Stage[Any, Any] | None) -> Any:
        """The words of the documents that a stage's hits are, for a reranker behind it.

        Raises:
            ExpressionError: Nobody knows them.
        """
        ...

    def searched(self, before: Stage[Any, Any] | None) -> Any:
        """The index that a stage's hits come from, for feedback behind it.

        Raises:
            ExpressionError: There is none.
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
    registered = [name for kind in KINDS for name in registry.names(kind)]
    return sorted({*shelf.retriever_names(), *registered})


def _stage_of(
    node: Expression,
    text: str,
    shelf: Shelf,
    before: Stage[Any, Any] | None = None,
    after: Sequence[Expression] = (),
) -> Stage[Any, Any]:
    if isinstance(node, Pipe):
        joined = _stage_of(node.steps[0], text, shelf, before, node.steps[1:])
        for place, step in enumerate(node.steps[1:], 2):
            joined = joined >> _stage_of(step, text, shelf, joined, node.steps[place:])
        return joined
    if node.name in shelf.retriever_names():
        values = [_literal_only(value, node, text) for value in node.args]
        try:
            return shelf.retriever(node.name, values, dict(node.keywords))
        except ExpressionError as why:
            raise located(text, node.at, f"{node.name}: {why}") from why
    for kind in KINDS:
        if node.name in registry.names(kind):
            make = registry.resolve(kind, node.name)
            args = [
                _stage_of(value, text, shelf) if isinstance(value, (Call, Pipe)) else _plain(value)
                for value in node.args
            ]
            settings = {name: _plain(value) for name, value in node.keywords}
            if kind in ("rerank", "feedback"):
                _bring(kind, args, settings, node, text, shelf, before)
            elif kind == "rewrite":
                settings["index"] = _searched_next(args, node, text, shelf, after)
            made: Stage[Any, Any] = _made(make, args, settings, node, text)
            return made
    raise located(text, node.at, _unknown(node.name, shelf))


def _bring(
    kind: str,
    args: list[Any],
    settings: dict[str, Any],
    node: Call,
    text: str,
    shelf: Shelf,
    before: Stage[Any, Any] | None,
) -> None:
    """Add what a reranker or feedback works on: that of a stage among its arguments, or before."""
    from retrievekit.stage import Stage

    places = [place for place, value in enumerate(args) if isinstance(value, Stage)]
    if places:
        before = args.pop(places[0])
    name, find = ("documents", shelf.documents) if kind == "rerank" else ("index", shelf.searched)
    try:
        settings[name] = find(before)
    except ExpressionError as why:
        raise located(text, node.at, f"{node.name}: {why}") from why
    if kind == "rerank":
        settings.setdefault("k", RERANKED)


def _searched_next(
    args: list[Any], node: Call, text: str, shelf: Shelf, after: Sequence[Expression]
) -> Any:
    """The index that rewritten queries are for: a searcher's among the arguments, or the next."""
    from retrievekit.run import Run
    from retrievekit.stage import Stage, Then

    places = [place for place, value in enumerate(args) if isinstance(value, Stage)]
    if places:
        found = args.pop(places[0])
    else:
        rewriters = registry.names("rewrite")
        searches = [
            place
            for place, step in enumerate(after)
            if not (isinstance(step, Call) and step.name in rewriters)
        ]
        if not searches:
            raise located(
                text, node.at, f"{node.name}: put a searcher behind it, such as {node} >> bm25"
            )
        found = _stage_of(after[searches[0]], text, shelf, None, after[searches[0] + 1 :])
    if isinstance(found, Then):
        # Behind the search passages may become documents again, which are no index's.
        found = next((stage for stage in found.stages if stage.gives is Run), found)
    try:
        return shelf.searched(found)
    except ExpressionError as why:
        raise located(text, node.at, f"{node.name}: {why}") from why


def check_names(expression: str | Expression, shelf: Shelf) -> None:
    """Look every name of an expression up and read its conditions, without making anything.

    Args:
        expression: A text or a parsed expression.
        shelf: Knows the retrievers.

    Raises:
        ExpressionError: The text or a condition in it does not parse, or a name is unknown; the
            message points at it.
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
            _check_conditions(node, text)
            waiting = [*node.args, *waiting]


def _check_conditions(node: Call, text: str) -> None:
    """Read what stands as ``where=...``, or first in a stage named where."""
    given = [value for name, value in node.keywords if name == "where"]
    if node.name == "where":
        given += [value for value in node.args[:1] if not isinstance(value, (Call, Pipe))]
    for value in given:
        if isinstance(value, str):
            try:
                condition_of(value)
            except ExpressionError as why:
                raise located(text, node.at, f"{node.name}: {why}") from why


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
    problem = misfit(make, args, settings)
    if problem is not None:
        raise located(text, node.at, f"{node.name}: {problem}; it takes {_signature(make)}")
    try:
        return make(*args, **settings)
    except (DataError, ExpressionError, FingerprintError, FormError, UnknownNameError) as why:
        raise located(text, node.at, f"{node.name}: {why}") from why


def misfit(make: Any, args: Sequence[Any], settings: Mapping[str, Any]) -> str | None:
    """What keeps a function from being called so.

    Args:
        make: The function.
        args: Positional arguments.
        settings: Named ones.

    Returns:
        What is wrong; for a setting that it does not have the near ones. None where all fits.
    """
    signature = inspect.signature(make)
    try:
        signature.bind(*args, **settings)
    except TypeError as why:
        parameters = signature.parameters.values()
        known = [p.name for p in parameters if p.kind in _NAMED]
        strangers = [name for name in settings if name not in known]
        if not strangers or any(p.kind is p.VAR_KEYWORD for p in parameters):
            return str(why)
        near = difflib.get_close_matches(strangers[0], known, n=3, cutoff=0.5)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        return f"there is no setting {strangers[0]!r}{hint}"
    return None


def _signature(make: Any) -> str:
    shown = []
    for parameter in inspect.signature(make).parameters.values():
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            shown.append(f"{name}...")
        elif parameter.default is parameter.empty:
            shown.append(name)
        else:
            default = parameter.default
            shown.append(f"{name}={default!r}")
    return f"({', '.join(shown)})"
