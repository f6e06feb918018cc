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
    "index papers.jsonl --passages 150/75 --encoder minilm -o papers.index",
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


class Backend(StrEnum):
    """What computes an encoder's layers."""

    torch = "torch"
    openvino = "openvino"
    onnx = "onnx"
    auto = "auto"


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
    engine: Annotated[
        str,
        typer.Option(help="How vectors are searched: flat, exactly; or a FAISS factory string."),
    ] = "flat",
    backend: Annotated[
        Backend,
        typer.Option(
            help="What computes the encoder: torch, openvino, onnx, or auto, the fastest one "
            "here whose vectors are those of torch in float32."
        ),
    ] = Backend.torch,
    preset: Annotated[
        str, typer.Option(help="BM25's k1 and b: anserini, lucene or msmarco.")
    ] = "anserini",
    k1: Annotated[float | None, typer.Option(help="BM25's k1, instead of the preset's.")] = None,
    b: Annotated[float | None, typer.Option(help="BM25's b, instead of the preset's.")] = None,
    passages: Annotated[
        str | None,
        typer.Option(
            help="Cut documents into passages of so many words, WORDS or WORDS/STRIDE, such as 100 "
            "or 150/75. aggregate() in a pipeline brings them back to documents.",
            metavar="WORDS/STRIDE",
        ),
    ] = None,
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
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Use vectors that an interrupted run left, or remove them and encode anew.",
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was built as JSON.")] = False,
) -> None:
    """Build an index of documents, for words (BM25) or for vectors of an encoder."""
    if bm25 and encoder is not None:
        raise typer.BadParameter("give either --bm25 or --encoder, not both")
    if encoder is not None and (k1 is not None or b is not None or preset != "anserini"):
        raise typer.BadParameter("--preset, --k1 and --b are BM25's; leave them out with --encoder")
    if encoder is None and not resume:
        raise typer.BadParameter("--no-resume is for vectors; name an --encoder too")
    if encoder is None and engine != "flat":
        raise typer.BadParameter("--engine is for vectors; name an --encoder too")
    if encoder is None and backend is not Backend.torch:
        raise typer.BadParameter("--backend is for vectors; name an --encoder too")

    cut = None if passages is None else window_of(passages)

    from retrievekit.bench.table import size
    from retrievekit.cli.sources import documents_of, is_index
    from retrievekit.errors import DataError, IndexExistsError

    bm25_settings = {"preset": preset, "k1": k1, "b": b}
    start = time.perf_counter()
    with Progress(unit="documents") as progress:

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
        indexed: Any = documents
        if cut is not None:
            from retrievekit.splitting import split_documents

            # One by one: the passages of a large collection need not fit into memory.
            indexed = split_documents(documents, words=cut[0], stride=cut[1])
        try:
            if encoder is not None:
                settings["resume"] = resume
            built = _built(indexed, output, encoder, backend, engine, bm25_settings, settings)
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
                "documents": len(documents),
                "passages": None if cut is None else len(built),
                "bytes": built.n_bytes,
                "seconds": round(seconds, 3),
                "fingerprint": built.fingerprint,
            }
        )
        return
    what = counted(len(documents), "document")
    if cut is not None:
        what = f"{counted(len(built), 'passage')} of {what}"
    emit(f"{output}: {built.kind}, {what}, {size(built.n_bytes)}, {seconds:.1f} s")


def window_of(text: str) -> tuple[int, int]:
    """Words and stride of passages, from ``WORDS`` or ``WORDS/STRIDE``.

    Args:
        text: What was given.

    Returns:
        Words of a passage, and words from one's beginning to the next one's.
    """
    words, slash, stride = text.partition("/")
    if not (words.isdecimal() and (stride.isdecimal() or not slash)):
        raise typer.BadParameter(f"--passages is WORDS or WORDS/STRIDE, such as 150/75; got {text}")
    window = int(words), int(stride) if slash else int(words)
    if not 1 <= window[1] <= window[0]:
        raise typer.BadParameter(
            f"--passages {text}: give at least one word, and a stride of 1 to as many words"
        )
    return window


def _built(
    documents: Any,
    output: Path,
    encoder: str | None,
    backend: Backend,
    engine: str,
    bm25_settings: dict[str, Any],
    settings: dict[str, Any],
) -> Any:
    if encoder is None:
        from retrievekit.index.bm25 import BM25Index

        return BM25Index.build(documents, output, **bm25_settings, **settings)
    from retrievekit.bench.systems import make_encoder
    from retrievekit.index.dense import DenseIndex

    made = make_encoder(encoder, backend.value)
    return DenseIndex.build(documents, made, output, engine=engine, **settings)
