"""``retrievekit heads``: find the attention heads of a model that retrieve."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit.cli.console import Progress, counted, emit, emit_json, examples
from retrievekit.cli.runs import (
    AsJson,
    Collection,
    Device,
    Dtype,
    Overwrite,
    QueriesFile,
    Settings,
    Words,
    check_given,
    queries_of,
    reranker_of,
    settings_of,
    words_of,
)

EXAMPLES = examples(
    "heads FOLDER --data beir/nfcorpus -o heads.json",
    "heads FOLDER --corpus docs.index --queries train.jsonl --qrels train.tsv -o heads.json",
    "heads FOLDER --data beir/nfcorpus --run bm25.run --method core -n 8 -o core.json",
)


class Method(StrEnum):
    """How a head's worth is told."""

    qrhead = "qrhead"
    core = "core"


_OURS: dict[Method, tuple[Any, int]] = {Method.qrhead: ("qr", 16), Method.core: ("core", 8)}
"""What the library calls a method, and the heads that its paper takes."""


def heads(
    model: Annotated[
        str,
        typer.Argument(
            help="The model: a folder, or the hub's name for it. Nothing in a folder is run; "
            "weights must be safetensors.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The file of heads to write.", show_default=False),
    ],
    corpus: Words = None,
    queries: QueriesFile = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgements of the queries.", show_default=False)
    ] = None,
    data: Collection = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="The hits that heads are tried on; by default those of a search: of the index "
            "that --corpus names, else by BM25.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="By the rankings that a head makes, or by relevant shares.")
    ] = Method.qrhead,
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, help="Heads to find.", show_default="16, core 8"),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=2, help="Hits of each query.")] = 50,
    most: Annotated[
        int, typer.Option("--examples", min=1, help="Queries that are tried, the first ones.")
    ] = 128,
    seed: Annotated[int, typer.Option(help="Of the order of documents.")] = 0,
    option: Settings = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find the attention heads of a model that retrieve, from judged queries, for rerank --heads.

    A query counts that has both a relevant hit and another one.
    """
    check_given("documents", "--corpus INDEX", corpus, data)
    check_given("queries", "--queries FILE", queries, data)
    check_given("judgements", "--qrels FILE", qrels, data)
    settings = {**settings_of(option), "device": device, "dtype": dtype}

    from retrievekit.cli.sources import free_file
    from retrievekit.corpus import Corpus
    from retrievekit.data.dataset import load_dataset
    from retrievekit.errors import DataError
    from retrievekit.headway import following
    from retrievekit.qrels import Qrels
    from retrievekit.rerank.heads import examples_of, find_heads
    from retrievekit.run import Run

    free_file(output, overwrite)
    with Progress(unit="queries") as progress:
        dataset: Any = None if data is None else load_dataset(data)
        asked = queries_of(queries, dataset)
        documents = words_of(corpus, dataset)
        words = documents if isinstance(documents, Corpus) else documents.corpus
        if words is None:
            raise DataError(f"{corpus} was built without words; name the documents themselves")
        judged = dataset.qrels if qrels is None else Qrels.read(qrels)
        first = _searched(documents, asked, k) if run is None else Run.read(run, asked)
        found = examples_of(first, judged, words, k=k)[:most]
        if not found:
            raise DataError(
                "no query has both a relevant hit and another one among its first "
                f"{k}; judge more, or look deeper: -k"
            )
        reranker = reranker_of("attention", model, settings)
        own, usual = _OURS[method]
        with following(lambda done: progress("trying heads", done, len(found))):
            best = find_heads(reranker, found, method=own, n=n or usual, seed=seed)
    best.write(output)
    if as_json:
        pairs = [list(pair) for pair in best.pairs]
        emit_json({"path": str(output), "examples": best.examples, "heads": pairs})
        return
    told = ", ".join(f"{layer}-{head}" for layer, head in best.pairs)
    emit(f"{output}: {counted(len(best.pairs), 'head')} from {best.examples} queries: {told}")


def _searched(documents: Any, queries: Any, k: int) -> Any:
    """The first hits of queries in an index, or by BM25 in documents."""
    from retrievekit.corpus import Corpus
    from retrievekit.index.bm25 import BM25Index

    index = BM25Index.build(documents) if isinstance(documents, Corpus) else documents
    return index.searcher(k=k)(queries)
