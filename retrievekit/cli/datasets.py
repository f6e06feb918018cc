"""``retrievekit datasets``: what data sets there are, and fetching them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit.cli.console import Progress, emit, emit_json, examples

EXAMPLES = examples(
    "datasets",
    "datasets show scifact",
    "datasets fetch beir/scifact",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The data set's name.", show_default=False)]

app = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    help="List the data sets that are known by name, show one, or fetch one.",
)


@app.callback()
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the data sets unless a verb says otherwise."""
    if context.invoked_subcommand is None:
        listing(as_json)


@app.command("list", epilog=examples("datasets list", "datasets list --json"))
def listing(as_json: AsJson = False) -> None:
    """List all data sets with their sizes and where they are to be had."""
    from retrievekit.data.registry import list_datasets

    found = list_datasets()
    if as_json:
        emit_json([_plain(info) for info in found])
        return
    rows = [("name", "documents", "queries", "where")]
    for info in found:
        counts = [_NOTHING if n is None else f"{n:,}" for n in (info.documents, info.queries)]
        rows.append((info.name, counts[0], counts[1], info.where))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    for name, documents, queries, where in rows:
        emit(f"{name:<{widths[0]}}  {documents:>{widths[1]}}  {queries:>{widths[2]}}  {where}")


@app.command("show", epilog=examples("datasets show scifact"))
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what is known of a data set: splits, counts, terms, where it lies or how to get it."""
    from retrievekit.data.registry import find, list_datasets, placing_instructions

    entry, split = find(name)
    (info,) = [info for info in list_datasets() if info.name == entry.name]
    known = entry.properties
    plain = _plain(info)
    plain["splits"] = {
        each: {"queries": counts.queries, "judgements": counts.judgements}
        for each, counts in known.splits.items()
    }
    plain |= {
        "default_split": known.default_split,
        "own_document": known.own_document,
        "fields": list(known.fields),
        "sources": list(known.sources),
        "archive": None if entry.archive is None else entry.archive.url,
    }
    if as_json:
        emit_json(plain)
        return
    emit(f"{entry.full_name(split)}: {known.title}")
    for label, value in plain.items():
        if label in ("name", "title", "splits") or value in (None, [], ""):
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        emit(f"  {label.replace('_', ' ')}: {shown}")
    for each, counts in plain["splits"].items():
        numbers = [f"{n:,} {what}" for what, n in counts.items() if n is not None]
        emit(f"  split {each}: {', '.join(numbers) or 'no published counts'}")
    if info.path is None and info.where != "built in":
        if entry.placing:
            emit(f"  {entry.placing}.")
        emit(f"  {placing_instructions(entry)}")


@app.command("fetch", epilog=examples("datasets fetch beir/scifact"))
def fetch(name: Name, as_json: AsJson = False) -> None:
    """Fetch a data set into the cache, unless it is there; checks size and checksum."""
    from retrievekit.data.fetch import obtain
    from retrievekit.data.registry import find

    entry, _ = find(name)
    place: Path | None = None
    if entry.name != "stdlib":
        with Progress() as progress:

            def told(done: int, total: int | None) -> None:
                progress(f"fetching {entry.name} (bytes)", done, total)

            place = obtain(entry, told)
    if as_json:
        emit_json({"name": entry.name, "path": None if place is None else str(place)})
    elif place is None:
        emit(f"{entry.name}: built in, nothing to fetch")
    else:
        emit(f"{entry.name}: {place}")


_NOTHING = "-"


def _plain(info: Any) -> dict[str, Any]:
    return {
        "name": info.name,
        "title": info.title,
        "documents": info.documents,
        "queries": info.queries,
        "splits": list(info.splits),
        "licence": info.licence,
        "where": info.where,
        "path": None if info.path is None else str(info.path),
    }
