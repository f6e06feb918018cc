"""``retrievekit compact``: merge an index's segments into one."""

from __future__ import annotations

from typing import Annotated

import typer

from retrievekit.cli.console import counted, emit, emit_json, examples

EXAMPLES = examples("compact docs.index")


def compact(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Say what was done as JSON.")] = False,
) -> None:
    """Merge all segments into one and leave deleted documents behind; no answer changes."""
    from retrievekit.bench.table import size
    from retrievekit.cli.sources import updatable

    live = updatable(index)
    with live.writer() as writer:
        writer.compact()
    after = live.reopen()
    if as_json:
        emit_json(
            {
                "path": index,
                "segments_before": len(live.segments),
                "bytes_before": live.n_bytes,
                "bytes": after.n_bytes,
            }
        )
        return
    if after.manifest.segments == live.manifest.segments:
        emit(f"{index}: one segment without deletions already; there was nothing to merge")
        return
    emit(
        f"{index}: {counted(len(live.segments), 'segment')} merged into one, "
        f"{size(live.n_bytes)} before, {size(after.n_bytes)} now"
    )
