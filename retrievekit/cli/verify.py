"""``retrievekit verify``: compare an index with the checksums in its manifest."""

from __future__ import annotations

from typing import Annotated

import typer

from retrievekit.cli.console import counted, emit, emit_json, examples, note

EXAMPLES = examples("verify scifact.index", "verify scifact.index --deep --json")


def verification(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    deep: Annotated[
        bool, typer.Option("--deep", help="Compute the SHA-256 of every file too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare every file of an index with the checksums written down when it was built."""
    from retrievekit.bench.table import size
    from retrievekit.cli.sources import missing_index
    from retrievekit.store.verify import verify

    missing_index(index)
    report = verify(index, deep=deep)
    damaged = [file for file in report.files if not file.ok]
    if as_json:
        emit_json(
            {
                "path": index,
                "ok": report.ok,
                "deep": report.deep,
                "files": [
                    {"name": f.name, "bytes": f.size, "ok": f.ok, "problem": f.problem}
                    for f in report.files
                ],
            }
        )
    elif report.ok:
        total = size(sum(file.size for file in report.files))
        emit(f"{index}: all {counted(len(report.files), 'file')} as written ({total})")
    if damaged:
        for file in damaged:
            note(f"error: {index}/{file.name}: {file.problem}")
        note(f"{counted(len(damaged), 'damaged file')}; build the index again with --overwrite")
        raise typer.Exit(1)
