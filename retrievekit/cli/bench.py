"""``retrievekit bench``: systems by data sets as a table."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from retrievekit.cli.console import Progress, emit, emit_json, examples, note

EXAMPLES = examples(
    "bench beir/scifact --system bm25 --system minilm --system 'rrf(bm25, minilm)' --baseline bm25",
    "bench stdlib --system bm25 --system 'mine=bm25(k1=1.2, b=0.75)' -m nDCG@10 --output results",
    "bench --config bench.yaml",
)


class Form(StrEnum):
    """How the table is printed."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def bench(
    data: Annotated[
        list[str] | None,
        typer.Argument(help="Data sets: names or BEIR folders.", show_default=False),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--system",
            help="An expression such as bm25 or rrf(bm25, minilm), or NAME=EXPRESSION; may be "
            "repeated.",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option("-m", "--measure", help="A measure, such as nDCG@10; may be repeated."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The system that the others are compared with.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A folder for the table, runs and per-query values."),
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Hits per query. [1000]")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A YAML file with systems, data and the rest; options win over it."),
    ] = None,
    indexes: Annotated[
        Path | None, typer.Option(help="Where indexes are kept; below the cache by default.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="How the table is printed.", case_sensitive=False)
    ] = Form.text,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Measure systems on data sets and print a table with significance, times and sizes."""
    if config is None and not data:
        raise typer.BadParameter("name a data set, such as beir/scifact, or a --config file")
    if config is None and not system:
        raise typer.BadParameter("name a --system, such as bm25, or a --config file")

    from retrievekit.bench.runner import benchmark
    from retrievekit.bench.systems import IndexShelf
    from retrievekit.cli.sources import looks_like_a_file
    from retrievekit.config import BenchConfig, check_names, read_config

    if config is None:
        settings = BenchConfig(named_systems(system or []), tuple(data or []))
    else:
        settings = read_config(config)
    systems = named_systems(system) if system else settings.systems
    # Before anything is read or built, which can take hours.
    for expression in systems.values():
        check_names(expression, IndexShelf(None))
    for name in data or settings.data:
        looks_like_a_file(name)
    out = output if output is not None else settings.output
    with Progress() as progress:
        table = benchmark(
            systems,
            data or settings.data,
            measures=measure or settings.measures,
            baseline=baseline if baseline is not None else settings.baseline,
            output=out,
            depth=depth if depth is not None else settings.depth,
            progress=progress,
            indexes=indexes,
        )
    chosen = Form.json if as_json else form
    if chosen is Form.json:
        emit_json(table.to_dict())
    elif chosen is Form.markdown:
        emit(table.to_markdown().rstrip("\n"))
    elif chosen is Form.csv:
        emit(table.to_csv().rstrip("\n"))
    else:
        emit(str(table))
    if out is not None:
        note(f"written to {out}: table.md, table.json, runs/, queries/")
    for cell in table.failures:
        note(f"error: {cell.system} failed on {cell.dataset}: {cell.error}")
    if table.failures:
        raise typer.Exit(1)


def named_systems(texts: list[str]) -> dict[str, str]:
    """Systems by name, from ``EXPRESSION`` or ``NAME=EXPRESSION``.

    Args:
        texts: What was given.

    Returns:
        Expressions by name.
    """
    named: dict[str, str] = {}
    for text in texts:
        name, sign, expression = text.partition("=")
        # An "=" inside brackets belongs to a setting, not to the system's name.
        if not sign or "(" in name:
            name = expression = text
        name = name.strip()
        if not name:
            raise typer.BadParameter(f"a system needs a name before '=': {text!r}")
        if name in named:
            raise typer.BadParameter(f"the system {name!r} is given twice")
        named[name] = expression.strip()
    return named
