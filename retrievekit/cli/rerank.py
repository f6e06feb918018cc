"""``retrievekit rerank``: reorder a run by a model that reads queries and documents together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit import registry
from retrievekit.cli.console import Progress, clean, counted, emit, examples
from retrievekit.cli.runs import (
    AsJson,
    Collection,
    Device,
    Dtype,
    Overwrite,
    QueriesFile,
    Settings,
    Tag,
    Words,
    check_given,
    followed,
    method_named,
    queries_of,
    reranker_of,
    settings_of,
    words_of,
    write_run,
)

EXAMPLES = examples(
    "rerank bm25.run --corpus scifact.index --queries queries.jsonl --model FOLDER -o icr.run",
    "rerank bm25.run --data beir/scifact --method cross_encoder --model FOLDER -o ce.run",
    "rerank bm25.run --data beir/scifact --model FOLDER --heads heads.json -o icr.run",
    "rerank bm25.run --data beir/scifact --model FOLDER --option task=qa -o icr.run",
    "rerank bm25.run --data beir/scifact --model FOLDER --explain q1 --page q1.html",
)


def rerank(
    run: Annotated[Path, typer.Argument(help="The run file to rerank.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            help="The model: a folder, or the hub's name for it. Nothing in a folder is run; "
            "weights must be safetensors.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The run file to write, gzipped if it ends in .gz.",
            show_default=False,
        ),
    ] = None,
    corpus: Words = None,
    queries: QueriesFile = None,
    data: Collection = None,
    method: Annotated[
        str, typer.Option(help=f"How to rerank: {', '.join(registry.names('rerank'))}.")
    ] = "attention",
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Hits reranked per query.")] = 100,
    rest: Annotated[
        str, typer.Option(help="Hits below: keep them behind, in their order, or cut them.")
    ] = "keep",
    heads: Annotated[
        Path | None,
        typer.Option(
            help="A file of the heads that count (attention); retrievekit heads finds them.",
            show_default=False,
        ),
    ] = None,
    option: Settings = None,
    device: Device = None,
    dtype: Dtype = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="QUERY",
            help="Instead of reranking, show which words of its first hits this query (its id) "
            "looked at.",
            show_default=False,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write the explanation to this HTML file.", show_default=False),
    ] = None,
    tag: Tag = "retrievekit",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Reorder the first hits of a run by a model that reads queries and documents together."""
    if (output is None) == (explain is None):
        raise typer.BadParameter("name the file to write: -o FILE; or a query: --explain QUERY")
    if page is not None and explain is None:
        raise typer.BadParameter("--page belongs to --explain")
    check_given("documents", "--corpus INDEX", corpus, data)
    check_given("queries", "--queries FILE", queries, data)
    settings = settings_of(option)
    settings.update(k=k, rest=rest, device=device, dtype=dtype)
    if heads is not None:
        settings["heads"] = str(heads)

    from retrievekit.cli.sources import free_file
    from retrievekit.data.dataset import load_dataset
    from retrievekit.run import Run

    for path in (output, page):
        if path is not None:
            free_file(path, overwrite)
    method = method_named(method)
    with Progress() as progress:
        dataset = None if data is None else load_dataset(data)
        first = Run.read(run, queries_of(queries, dataset))
        settings["documents"] = words_of(corpus, dataset)
        stage = reranker_of(method, model, settings)
        if explain is not None:
            _explain(stage, first, explain, page)
            return
        assert output is not None
        found = followed(stage, first, f"reranking by {method}", progress)
    write_run(found, output, stage, tag, as_json)


def _explain(stage: Any, first: Any, query_id: str, page: Path | None) -> None:
    """Show which words the query looked at."""
    from retrievekit.rerank.attributions import to_html

    if not hasattr(stage, "explained"):
        raise typer.BadParameter(f"{stage!r} cannot tell which words it looked at")
    names, found = stage.explained(first, query_id)
    if page is not None:
        title = first.queries.text(first.queries.ids.row(query_id)) or query_id
        page.write_text(to_html(title, found, names), encoding="utf-8")
        emit(f"{page}: {counted(len(found), 'document')}")
        return
    best = sorted(zip(names, found, strict=True), key=lambda item: -item[1].score)
    for name, one in best:
        emit(f"{clean(name)}\n{one.to_text()}")
