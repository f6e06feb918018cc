"""``retrievekit vacuum``: remove what interrupted writers left behind."""

from __future__ import annotations

from typing import Annotated

import typer

from retrievekit.cli.console import counted, emit, emit_json, examples

EXAMPLES = examples("vacuum docs.index")


def clean(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Say what was done as JSON.")] = False,
) -> None:
    """Remove files of an index that its live generation does not use."""
    from pathlib import Path

    from retrievekit.cli.sources import missing_index
    from retrievekit.store.commit import vacuum

    missing_index(index)
    removed = vacuum(Path(index))
    if as_json:
        emit_json({"path": index, "removed": removed})
        return
    emit(f"{index}: {counted(removed, 'leftover')} removed")
