"""``retrievekit index``: build an index of documents."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit.cli.console import Progress, counted, emit, emit_json, examples

EXAMPLES = examples(
    "index beir/scifact -o scifact.index",
    "index beir/scifact --encoder minilm -o scifact-dense.index",
    "index docs/ -o docs.index --overwrite",
)


class Errors(StrEnum):
    """What happens to characters that are not valid."""

    strict = "strict"
    repair = "replace"  # under another name than the string's own method


class Duplicates(StrEnum):
    """What happens when one id has two contents."""

    error = "error"
    first = "first"
    last = "last"


class Metadata(StrEnum):
    """What becomes of the fields beside title and text."""

    columns = "columns"
    json = "json"
    drop = "drop"


def index(
    source: Annotated[
        str,
        typer.Argument(
            help="A data set's name, a BEIR folder, a JSONL, TSV, CSV or Parquet file, or a folder "
            "of text files.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The index folder to make.", show_default=False)
    ],
    bm25: Annotated[
        bool, typer.Option("--bm25", help="Index words for BM25 (the default).")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(help="Index vectors of this encoder: minilm, a model folder or a hub name."),
    ] = None,
    engine: Annotated[str, typer.Option(help="How vectors are searched.")] = "flat",
    preset: Annotated[
        str, typer.Option(help="BM25's k1 and b: anserini, lucene or msmarco.")
    ] = "anserini",
    k1: Annotated[float | None, typer.Option(help="BM25's k1, instead of the preset's.")] = None,
    b: Annotated[float | None, typer.Option(help="BM25's b, instead of the preset's.")] = None,
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was built as JSON.")] = False,
) -> None:
    """Build an index of documents, for words (BM25) or for vectors of an encoder."""
    if bm25 and encoder is not None:
        raise typer.BadParameter("give either --bm25 or --encoder, not both")
    if encoder is not None and (k1 is not None or b is not None or preset != "anserini"):
        raise typer.BadParameter("--preset, --k1 and --b are BM25's; leave them out with --encoder")
    if encoder is None and engine != "flat":
        raise typer.BadParameter("--engine is for vectors; name an --encoder too")

    from retrievekit.bench.table import size
    from retrievekit.cli.sources import documents_of, is_index
    from retrievekit.errors import DataError, IndexExistsError

    bm25_settings = {"preset": preset, "k1": k1, "b": b}
    start = time.perf_counter()
    with Progress() as progress:

        def told(done: int, total: int | None) -> None:
            progress(f"indexing {source}", done, total)

        told(0, None)
        settings: dict[str, Any] = {"overwrite": overwrite, "progress": told}
        documents = documents_of(
            source,
            number_ids=number_ids,
            errors=errors,
            on_duplicate=on_duplicate,
            metadata=metadata,
        )
        if not len(documents):
            raise DataError(f"{source}: no document is in it, so there is nothing to index")
        try:
            built = _built(documents, output, encoder, engine, bm25_settings, settings)
        except IndexExistsError as why:
            if overwrite or not is_index(str(output)):
                raise
            raise IndexExistsError(
                f"{output}: an index is there already; --overwrite replaces it"
            ) from why
    seconds = time.perf_counter() - start
    if as_json:
        emit_json(
            {
                "path": str(output),
                "kind": built.kind,
                "documents": len(built),
                "bytes": built.n_bytes,
                "seconds": round(seconds, 3),
                "fingerprint": built.fingerprint,
            }
        )
        return
    emit(
        f"{output}: {built.kind}, {counted(len(built), 'document')}, {size(built.n_bytes)}, "
        f"{seconds:.1f} s"
    )


def _built(
    documents: Any,
    output: Path,
    encoder: str | None,
    engine: str,
    bm25_settings: dict[str, Any],
    settings: dict[str, Any],
) -> Any:
    if encoder is None:
        from retrievekit.index.bm25 import BM25Index

        return BM25Index.build(documents, output, **bm25_settings, **settings)
    from retrievekit.bench.systems import make_encoder
    from retrievekit.index.dense import DenseIndex

    return DenseIndex.build(documents, make_encoder(encoder), output, engine=engine, **settings)
