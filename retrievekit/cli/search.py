"""``retrievekit search``: ask an index one query."""

from __future__ import annotations

import shutil
import textwrap
from typing import Annotated

import typer

from retrievekit.cli.console import clean, counted, emit, emit_json, examples
from retrievekit.cli.options import Device, EngineOptions, engine_options

EXAMPLES = examples(
    'search scifact.index "0-dimensional biomaterials"',
    'search scifact.index "0-dimensional biomaterials" -k 3 --json',
    'search hnsw.index "0-dimensional biomaterials" --option efSearch=256',
)

_LINES = 3
"""Lines of each document that are shown."""


def search(
    index: Annotated[str, typer.Argument(help="The index folder.", show_default=False)],
    query: Annotated[str, typer.Argument(help="The query.", show_default=False)],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Hits to show.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help="A condition on metadata, such as 'year >= 2020 and lang = \"en\"'."),
    ] = None,
    option: EngineOptions = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON.")] = False,
) -> None:
    """Search an index and show the best documents with their words."""
    options = engine_options(option)
    from retrievekit.cli.sources import opened, searcher_of

    found = opened(index)
    hits = searcher_of(found, k, where=where, options=options, device=device).search(query)
    if as_json:
        emit_json(
            {
                "query": query,
                "hits": [
                    {"rank": h.rank, "doc_id": h.doc_id, "score": h.score, "text": h.text}
                    for h in hits
                ],
            }
        )
        return
    if not hits:
        emit(f"nothing found among {counted(len(found), 'document')}")
        return
    width = max(40, min(shutil.get_terminal_size().columns, 120))
    for hit in hits:
        emit(f"{hit.rank:>3}  {hit.score:<9.4f}  {clean(hit.doc_id)}")
        words = clean((hit.text or "")[: 2 * width * _LINES])
        for line in textwrap.wrap(
            words, width - 5, max_lines=_LINES, placeholder=" …", break_on_hyphens=False
        ):
            emit(f"     {line}")
