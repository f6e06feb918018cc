"""``retrievekit rerank``: reorder a run by a model that reads queries and documents together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit.cli.console import Progress, clean, counted, emit, emit_json, examples

EXAMPLES = examples(
    "rerank bm25.run --corpus scifact.index --queries queries.jsonl --model FOLDER -o icr.run",
    "rerank bm25.run --data beir/scifact --model FOLDER --heads heads.json -o icr.run",
    "rerank bm25.run --data beir/scifact --model FOLDER --set task=qa --set window=20 -o icr.run",
    "rerank bm25.run --data beir/scifact --model FOLDER --explain q1 --page q1.html",
)

_AT_ONCE = 256


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
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Where the documents' words are: an index folder, a file, a folder or a data set.",
            show_default=False,
        ),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Queries: JSONL, TSV, CSV or Parquet.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set (name or folder) whose documents and queries are used where --corpus "
            "or --queries name no others.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="How to rerank.")] = "attention",
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Hits reranked per query.")] = 100,
    rest: Annotated[
        str, typer.Option(help="Hits below: keep them behind, in their order, or cut them.")
    ] = "keep",
    heads: Annotated[
        Path | None,
        typer.Option(help="A file of the heads that count (attention).", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the method, such as task=qa or layers=[10,13]; repeatable.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:1.", show_default=False)
    ] = None,
    dtype: Annotated[str, typer.Option(help="What the model computes in.")] = "float32",
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
    tag: Annotated[str, typer.Option(help="The run's name in its last column.")] = "retrievekit",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was written as JSON.")] = False,
) -> None:
    """Reorder the first hits of a run by a model that reads queries and documents together."""
    if (output is None) == (explain is None):
        raise typer.BadParameter("name the file to write: -o FILE; or a query: --explain QUERY")
    if page is not None and explain is None:
        raise typer.BadParameter("--page belongs to --explain")
    if corpus is None and data is None:
        raise typer.BadParameter("give the documents: --corpus INDEX, or --data NAME")
    if queries is None and data is None:
        raise typer.BadParameter("give the queries: --queries FILE, or --data NAME")

    from retrievekit import registry
    from retrievekit.cli.sources import documents_of, free_file, is_index, opened
    from retrievekit.data.dataset import load_dataset
    from retrievekit.data.records import read_queries
    from retrievekit.headway import following
    from retrievekit.run import Run, concat

    for path in (output, page):
        if path is not None:
            free_file(path, overwrite)
    more: dict[str, Any] = dict(_setting(text) for text in settings or ())
    if heads is not None:
        more["heads"] = str(heads)
    make = registry.resolve("rerank", method)
    with Progress() as progress:
        dataset = None if data is None else load_dataset(data)
        asked = read_queries(queries) if queries is not None else dataset and dataset.queries
        first = Run.read(run, asked or None)
        documents: Any
        if corpus is None:
            assert dataset is not None
            documents = dataset.corpus
        elif is_index(corpus):
            documents = opened(corpus)
        else:
            plain: Any = {"errors": "strict", "on_duplicate": "error", "metadata": "drop"}
            documents = documents_of(corpus, number_ids=False, **plain)
        try:
            stage = make(model, documents, k=k, rest=rest, device=device, dtype=dtype, **more)
        except TypeError as why:
            raise typer.BadParameter(f"{method}: {why}") from why
        if explain is not None:
            _explain(stage, first, explain, page)
            return
        assert output is not None
        parts: list[Run] = []
        done = 0
        for part in first.batches(_AT_ONCE) if len(first) else [first]:
            base = done

            def told(n: int, base: int = base) -> None:
                progress(f"reranking by {method}", base + n, len(first))

            with following(told):
                parts.append(stage(part))
            done += len(part)
            progress(f"reranking by {method}", done, len(first))
    found = concat(parts)
    found.write(output, tag=tag)
    if as_json:
        emit_json(
            {
                "path": str(output),
                "queries": len(found),
                "hits": found.n_hits,
                "system": repr(stage),
            }
        )
        return
    emit(f"{output}: {counted(len(found), 'query')}, {counted(found.n_hits, 'hit')}")


def _setting(text: str) -> tuple[str, Any]:
    """One ``name=value``; the value is JSON where it reads as such, else the text itself."""
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"--set {text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


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
