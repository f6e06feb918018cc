"""``retrievekit expand``: put the queries behind documents that a model writes for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrievekit.cli.console import Progress, emit, emit_json, examples
from retrievekit.cli.runs import (
    AsJson,
    Device,
    Dtype,
    Overwrite,
    Settings,
    method_named,
    reranker_of,
    settings_of,
)

EXAMPLES = examples(
    "expand corpus.jsonl -o expanded.jsonl --model FOLDER --queries 40",
    "expand beir/scifact -o expanded.jsonl --model FOLDER --option seed=7 --option top_k=20",
    "expand corpus.jsonl -o expanded.jsonl --model FOLDER --keep 0.3 --scorer FOLDER",
    "expand corpus.jsonl -o expanded.jsonl --model NAME --option url=http://localhost:8000/v1",
)


def expand(
    corpus: Annotated[
        str,
        typer.Argument(
            help="A data set's name, a BEIR folder, a JSONL, TSV, CSV or Parquet file, or a folder "
            "of text files.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The JSONL file to write, gzipped if it ends in .gz.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="What writes: a folder, or the hub's name for it; with --option url=... the name "
            "that a service knows. Nothing in a folder is run; weights must be safetensors.",
            show_default=False,
        ),
    ],
    queries: Annotated[int, typer.Option(min=1, help="Queries of each document.")] = 5,
    keep: Annotated[
        float | None,
        typer.Option(
            help="The share of all queries that stays, those that --scorer scores best, such as "
            "0.3 (doc2query--).",
            show_default=False,
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="What scores queries against their documents: a reranker's folder or hub name.",
            show_default=False,
        ),
    ] = None,
    scorer_method: Annotated[
        str, typer.Option(help="How it scores, by a reranker's name.")
    ] = "cross_encoder",
    parts: Annotated[
        Path | None,
        typer.Option(
            help="A folder that keeps what was written, also when all is done. By default one "
            "beside the output, from which an interrupted call goes on; it is removed at the end.",
            show_default=False,
        ),
    ] = None,
    option: Settings = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write documents with the queries that they answer behind their texts (doc2query).

    A call that was interrupted goes on where it was when it is given again.
    """
    if (keep is None) != (scorer is None):
        raise typer.BadParameter("--keep SHARE and --scorer MODEL belong together")
    settings = settings_of(option)
    for name in ("queries", "keep", "scorer", "folder"):
        if name in settings:
            raise typer.BadParameter(f"{name} has an option of its own (see --help)")

    import dataclasses

    from retrievekit.cli.sources import documents_of, free_file
    from retrievekit.rewrite.named import doc2query
    from retrievekit.rewrite.parts import PartFolder
    from retrievekit.store.files import files_in_use

    free_file(output, overwrite)
    folder = output.with_name(f"{output.name}.parts") if parts is None else parts
    settings |= {"queries": queries, "keep": keep, "folder": folder}
    if scorer is not None:
        given = {"device": device, "dtype": dtype}
        settings["scorer"] = reranker_of(method_named(scorer_method), scorer, given)
    stage = doc2query(model, device=device, dtype=dtype or "float32", **settings)
    with Progress(unit="documents") as progress:
        documents = documents_of(
            corpus, number_ids=False, errors="strict", on_duplicate="error", metadata="columns"
        )
        found = stage.write(
            documents,
            output,
            progress=lambda done, total: progress("writing queries", done, total),
        )
    if parts is None and not found.failed:
        PartFolder(folder, files_in_use()).clear()
    if as_json:
        emit_json({"path": str(output), **dataclasses.asdict(found)})
    else:
        emit(f"{output}: {found}")
