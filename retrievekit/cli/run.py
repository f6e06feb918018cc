"""``retrievekit run``: answer a whole set of queries and write a TREC run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit.cli.console import Progress, examples
from retrievekit.cli.options import Device, EngineOptions, engine_options
from retrievekit.cli.runs import (
    AsJson,
    Overwrite,
    QueriesFile,
    Tag,
    check_given,
    queries_of,
    write_run,
)

EXAMPLES = examples(
    "run scifact.index --queries queries.jsonl -o bm25.run",
    'run "rrf(bm25, minilm)" --data beir/scifact -o hybrid.run',
    """run "rrf(index('a.index'), index('b.index'))" --queries queries.tsv -o both.run""",
    "run scifact.index --queries queries.jsonl --candidates first.run -o second.run",
    "run ivf.index --queries queries.jsonl --option nprobe=64 -o ivf.run",
    """run "bm25 >> icr('model folder', k=20)" --data beir/scifact -o icr.run""",
)


def run(
    system: Annotated[
        str,
        typer.Argument(help="An index folder, or an expression of systems.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The run file, gzipped if it ends in .gz; how it was made goes beside it, into "
            "FILE.trace.json.",
            show_default=False,
        ),
    ],
    queries: QueriesFile = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set (name or folder) to search with an expression; its queries are used "
            "unless --queries names others, and its rule for a query's own document applies.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Hits per query.")] = 1000,
    where: Annotated[
        str | None,
        typer.Option(
            help="A condition on the metadata of an index, such as 'year >= 2020'.",
            show_default=False,
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="For each query the only documents that it may have, as a TREC run or as "
            "judgements; a query that the file lacks is an error.",
            show_default=False,
        ),
    ] = None,
    ignore_missing: Annotated[
        bool,
        typer.Option("--ignore-missing", help="Leave out candidates that the index does not hold."),
    ] = False,
    option: EngineOptions = None,
    device: Device = None,
    tag: Tag = "retrievekit",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Answer a set of queries with an index or an expression, and write a TREC run file."""
    if not system.strip():
        raise typer.BadParameter("name an index folder, or an expression such as bm25")
    check_given("queries", "--queries FILE", queries, data)
    options = engine_options(option)
    from retrievekit.bench.systems import IndexShelf, shelf_folder
    from retrievekit.cli.sources import (
        candidates_of,
        free_file,
        is_index,
        looks_like_a_file,
        meant_as_path,
        missing_index,
        opened,
        searcher_of,
    )
    from retrievekit.config import resolve
    from retrievekit.data.dataset import drop_own, load_dataset
    from retrievekit.errors import ExpressionError, UnknownNameError
    from retrievekit.queries import Queries
    from retrievekit.run import Run, concat

    free_file(output, overwrite)
    with Progress() as progress:
        if data is not None:
            looks_like_a_file(data)
        dataset = None if data is None else load_dataset(data)
        rule = "none" if dataset is None else dataset.properties.own_document
        asked = queries_of(queries, dataset)
        extra = 0 if rule == "none" else 1
        stage: Any
        if is_index(system) or Path(system).is_dir():
            sets = None if candidates is None else candidates_of(candidates, ignore_missing)
            index = opened(system)
            stage = searcher_of(
                index, k + extra, where=where, candidates=sets, options=options, device=device
            )
        elif where or candidates is not None or options or device:
            if meant_as_path(system):
                missing_index(system)
            raise typer.BadParameter(
                f"--where, --candidates, --option and --device need an index folder, and "
                f"{system!r} is none; in an expression they are settings: "
                "bm25(where='year > 2000')"
            )
        else:
            corpus = None if dataset is None else dataset.corpus
            folder = None if dataset is None else shelf_folder()
            shelf = IndexShelf(corpus, folder, depth=k, extra=extra, progress=progress)
            try:
                stage = resolve(system, shelf)
            except ExpressionError:
                if meant_as_path(system):
                    missing_index(system)
                raise
        if stage.takes is not Queries or stage.gives is not Run:
            raise typer.BadParameter(f"{system!r} does not lead from queries to a run")
        parts: list[Run] = []
        done = 0
        for part in asked.batches(256) if len(asked) else [asked]:
            try:
                parts.append(stage(part))
            except UnknownNameError as why:
                setting = "Candidates.of(..., missing='ignore')"
                told = str(why).replace(setting, "--ignore-missing")
                raise UnknownNameError(told) from why
            done += len(part)
            progress(f"searching with {system}", done, len(asked))
        found = drop_own(concat(parts), rule).top(k)
    write_run(found, output, stage, tag, as_json)
