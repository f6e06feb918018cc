"""``retrievekit add``: put more documents into an index."""

from __future__ import annotations

from typing import Annotated

import typer

from retrievekit.cli.console import Progress, counted, emit, emit_json, examples
from retrievekit.cli.options import (
    Duplicates,
    Errors,
    MemoryBudget,
    Metadata,
    NumberIds,
    OnDuplicate,
    OnErrors,
    OtherFields,
    Resume,
    bytes_of,
)

EXAMPLES = examples(
    "add docs.index more.jsonl",
    "add docs.index changed.jsonl --upsert",
    "add docs.index many.jsonl --memory-budget 2GiB",
)


def add(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    source: Annotated[
        str, typer.Argument(help="Documents, as for retrievekit index.", show_default=False)
    ],
    upsert: Annotated[
        bool, typer.Option("--upsert", help="Replace documents whose ids are there already.")
    ] = False,
    number_ids: NumberIds = False,
    errors: OnErrors = Errors.strict,
    on_duplicate: OnDuplicate = Duplicates.error,
    metadata: OtherFields = Metadata.columns,
    memory_budget: MemoryBudget = None,
    resume: Resume = True,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was done as JSON.")] = False,
) -> None:
    """Add documents to an index, all of them or none; one of passages cuts them as before."""
    budget = bytes_of(memory_budget)
    from retrievekit.cli.sources import documents_of, updatable

    with Progress(unit="documents") as progress:

        def told(done: int, total: int | None) -> None:
            progress(f"adding {source}", done, total)

        live = updatable(index)
        documents = documents_of(
            source,
            number_ids=number_ids,
            errors=errors,
            on_duplicate=on_duplicate,
            metadata=metadata,
        )
        with live.writer(memory_budget=budget, resume=resume) as writer:
            written = (writer.upsert if upsert else writer.add)(documents, progress=told)
    after = len(live.reopen())
    if as_json:
        emit_json({"path": index, "written": written, "documents": after})
        return
    kept = "document" if live.window is None else "passage"
    emit(f"{index}: {counted(written, kept)} written, {after:,} in the index now")
