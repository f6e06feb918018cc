"""``retrievekit info``: what an index is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from retrievekit.cli.console import emit, emit_json, examples

EXAMPLES = examples("info docs.index", "info docs.index --json")


def info(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what an index holds and how it was built."""
    from retrievekit.cli.sources import updatable

    live = updatable(index)
    manifest = live.manifest
    facts: dict[str, Any] = {
        "path": index,
        "kind": live.kind,
        "documents": len(live),
        "deleted": sum(dead.deleted for dead in manifest.tombstones.values()),
        "segments": len(manifest.segments),
        "bytes": live.n_bytes,
        "generation": manifest.generation,
        "text stored": manifest.text_stored,
        "encoder": None if manifest.encoder is None else manifest.encoder["name"],
        "settings": dict(manifest.settings),
        "statistics": dict(manifest.statistics),
        "fingerprint": live.fingerprint,
    }
    if as_json:
        emit_json(facts)
        return
    for name, value in facts.items():
        shown = f"{value:,}" if type(value) is int else str(value)
        emit(f"{name:<12} {shown}")
