"""``retrievekit verify``: compare an index with the checksums in its manifest, and repair it."""

from __future__ import annotations

from typing import Annotated

import typer

from retrievekit.cli.console import counted, emit, emit_json, examples, note

EXAMPLES = examples(
    "verify scifact.index",
    "verify scifact.index --deep --json",
    "verify scifact.index --repair",
)


def verification(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    deep: Annotated[
        bool, typer.Option("--deep", help="Compute the SHA-256 of every file too.")
    ] = False,
    mend: Annotated[
        bool,
        typer.Option(
            "--repair", help="Verify deeply, and compute damaged files again if possible."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare every file of an index with the checksums written down when it was built."""
    from retrievekit.bench.table import size
    from retrievekit.cli.sources import missing_index
    from retrievekit.index.repair import RepairedFile, repair
    from retrievekit.store.verify import verify

    missing_index(index)
    report = repair(index) if mend else verify(index, deep=deep)
    damaged = [file for file in report.files if not file.ok]
    repaired = [f for f in report.files if isinstance(f, RepairedFile) and f.state == "repaired"]
    if as_json:
        emit_json(
            {
                "path": index,
                "ok": report.ok,
                "deep": deep or mend,
                "files": [
                    {
                        "name": f.name,
                        "bytes": f.size,
                        "ok": f.ok,
                        "repaired": f in repaired,
                        "problem": f.problem,
                    }
                    for f in report.files
                ],
                "leftovers": list(report.leftovers),
            }
        )
    elif report.ok:
        total = size(sum(file.size for file in report.files))
        emit(f"{index}: all {counted(len(report.files), 'file')} as written ({total})")
    for done in repaired:
        note(f"repaired: {index}/{done.name} ({done.problem})")
    for name in report.leftovers:
        note(f"not part of the index: {index}/{name}")
    if report.leftovers:
        note("`retrievekit vacuum` removes what interrupted writers left")
    if damaged:
        for file in damaged:
            note(f"error: {index}/{file.name}: {file.problem}")
        what = counted(len(damaged), "damaged file")
        if mend:
            note(f"{what} left; restore from a copy, or build the index again with --overwrite")
        else:
            note(
                f"{what}; --repair computes again what follows from intact files, otherwise "
                "restore from a copy, or build the index again with --overwrite"
            )
        raise typer.Exit(1)
