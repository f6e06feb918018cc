"""``retrievekit add``: put more documents into an index."""

from __future__ import annotations

from typing import Annotated

import typer

from retrievekit.cli.console import Progress, counted, emit, emit_json, examples
from retrievekit.cli.index import Duplicates, Errors, Metadata

EXAMPLES = examples("add docs.index more.jsonl", "add docs.index changed.jsonl --upsert")


def add(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    source: Annotated[
        str, typer.Argument(help="Documents, as for retrievekit index.", show_default=False)
    ],
    upsert: Annotated[
        bool, typer.Option("--upsert", help="Replace documents whose ids are there already.")
    ] = False,
    number_ids: Annotated[
        bool, typer.Option("--number-ids", help="Take ids that are numbers as their digits.")
    ] = False,
    errors: Annotated[
        Errors,
        typer.Option(help="Characters that are not valid: refuse, or replace by U+FFFD."),
    ] = Errors.strict,
    on_duplicate: Annotated[
        Duplicates, typer.Option(help="One id with two contents: refuse, or keep the one.")
    ] = Duplicates.error,
    metadata: Annotated[
        Metadata, typer.Option(help="Other fields: as typed columns, as JSON text, or not kept.")
    ] = Metadata.columns,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Use vectors that an interrupted run left, or remove them and encode anew.",
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was done as JSON.")] = False,
) -> None:
    """Add documents to an index, all of them or none."""
    from retrievekit.cli.sources import documents_of, opened

    with Progress(unit="documents") as progress:

        def told(done: int, total: int | None) -> None:
            progress(f"adding {source}", done, total)

        live = opened(index)
        documents = documents_of(
            source,
            number_ids=number_ids,
            errors=errors,
            on_duplicate=on_duplicate,
            metadata=metadata,
        )
        with live.writer(resume=resume) as writer:
            written = (writer.upsert if upsert else writer.add)(documents, progress=told)
    after = len(live.reopen())
    if as_json:
        emit_json({"path": index, "written": written, "documents": after})
        return
    emit(f"{index}: {counted(written, 'document')} written, {after:,} in the index now")
