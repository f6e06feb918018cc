"""``retrievekit delete``: take documents out of an index."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from retrievekit.cli.console import counted, emit, emit_json, examples

EXAMPLES = examples(
    "delete docs.index d17 d18",
    "delete docs.index - --ignore-missing < ids.txt",
    "delete docs.index --where 'year < 2015'",
)


def delete(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids of documents, or - for one a line on standard input.", show_default=False
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Delete what satisfies a condition on metadata.", show_default=False),
    ] = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="Pass over ids that are not in the index.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was done as JSON.")] = False,
) -> None:
    """Delete documents by id or by condition, all of them or none."""
    from retrievekit.cli.sources import updatable

    if not ids and where is None:
        raise typer.BadParameter("name ids to delete, or a condition with --where")
    if ids == ["-"]:
        ids = [line for line in sys.stdin.read().split("\n") if line]
    live = updatable(index)
    with live.writer() as writer:
        deleted = writer.delete(
            ids or (), where=where, missing="ignore" if ignore_missing else "error"
        )
    after = len(live.reopen())
    if as_json:
        emit_json({"path": index, "deleted": deleted, "documents": after})
        return
    kept = "document" if live.window is None else "passage"
    emit(f"{index}: {counted(deleted, kept)} deleted, {after:,} in the index now")
