"""``retrievekit index``: build an index of documents."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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
    "index beir/scifact -o scifact.index",
    "index beir/scifact --encoder minilm -o scifact-dense.index",
    "index beir/scifact --encoder minilm --engine HNSW32 -o scifact-hnsw.index",
    "index beir/scifact --encoder minilm --engine IVF256,PQ48x4fs -o scifact-pq.index",
    "index beir/scifact --sparse naver/splade-v3 -o scifact-splade.index",
    "index papers.jsonl --passages 150/75 --encoder minilm -o papers.index",
    "index docs/ -o docs.index --overwrite --memory-budget 2GiB",
)


class Backend(StrEnum):
    """What computes an encoder's layers."""

    torch = "torch"
    openvino = "openvino"
    onnx = "onnx"
    auto = "auto"


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
        typer.Option(
            help="Index vectors of this encoder: minilm, a model folder or a hub name. A model of "
            "a known family is loaded as that family wants it."
        ),
    ] = None,
    sparse: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER",
            help="Index term weights of this sparse encoder (SPLADE and the like): a model folder "
            "or a hub name.",
        ),
    ] = None,
    lucene: Annotated[
        bool,
        typer.Option("--lucene", help="Build Anserini's own index of words; needs extra lucene."),
    ] = False,
    vectors: Annotated[
        Path | None,
        typer.Option(
            help="Index these vectors, .npy, .safetensors or .parquet, in the order of the "
            "documents; --encoder then encodes queries alone."
        ),
    ] = None,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="SOURCE holds term weights, JSON lines or .npz; --sparse then encodes queries "
            "alone.",
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="How vectors are searched: flat, exactly; binary or int8, a first pass over signs "
            "or bytes, its best scored again; or a FAISS factory string, such as HNSW32 (a graph) "
            "or IVF1024,PQ96x4fs (lists of short codes)."
        ),
    ] = "flat",
    storage: Annotated[
        str, typer.Option(help="How vectors are stored: float32, float16, or int8, rounded once.")
    ] = "float32",
    dim: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the first components of vectors (Matryoshka models)."),
    ] = None,
    backend: Annotated[
        Backend,
        typer.Option(
            help="What computes the encoder: torch, openvino, onnx, or auto, the fastest one "
            "here whose vectors are those of torch in float32."
        ),
    ] = Backend.torch,
    url: Annotated[
        str | None,
        typer.Option(
            help="Ask a service with OpenAI's interface, such as https://host/v1, for the vectors "
            "of the model that --encoder names."
        ),
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable with the key for --url."),
    ] = None,
    similarity: Annotated[
        str | None, typer.Option(help="Of --vectors without --encoder: dot, cosine or euclidean.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Ids of --vectors or of an .npz of --weights, one a line.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Terms of an .npz of --weights, one a line or JSON.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="What --sparse is, where its folder does not say: unicoil, tildev2, ..."),
    ] = None,
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
    number_ids: NumberIds = False,
    errors: OnErrors = Errors.strict,
    on_duplicate: OnDuplicate = Duplicates.error,
    metadata: OtherFields = Metadata.columns,
    memory_budget: MemoryBudget = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
    resume: Resume = True,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was built as JSON.")] = False,
) -> None:
    """Build an index of documents: for words, vectors of an encoder, or learned term weights."""
    kinds = {
        "--bm25": bm25,
        "--encoder": encoder is not None or vectors is not None,
        "--sparse": sparse is not None or weights,
        "--lucene": lucene,
    }
    asked = [kind for kind, there in kinds.items() if there]
    if len(asked) > 1:
        raise typer.BadParameter(f"give either {' or '.join(asked)}, not both")
    kind = asked[0] if asked else "--bm25"
    _refuse_strangers(
        kind,
        {
            "--preset": preset != "anserini",
            "--k1": k1 is not None,
            "--b": b is not None,
            "--engine": engine != "flat",
            "--storage": storage != "float32",
            "--dim": dim is not None,
            "--backend": backend is not Backend.torch,
            "--url": url is not None,
            "--key-variable": key_variable is not None,
            "--similarity": similarity is not None,
            "--no-resume": not resume,
            "--method": method is not None,
            "--memory-budget": memory_budget is not None,
            "--ids": ids is not None,
            "--vocabulary": vocabulary is not None,
        },
    )
    if not resume and (vectors is not None or weights):
        raise typer.BadParameter("--no-resume is for what is encoded, and nothing is encoded here")
    if ids is not None and vectors is None and not weights:
        raise typer.BadParameter("--ids go with --vectors or --weights")
    if vocabulary is not None and not weights:
        raise typer.BadParameter("--vocabulary goes with --weights")
    if (vectors is not None or weights) and passages is not None:
        raise typer.BadParameter("--passages needs words to be encoded; leave out --vectors")
    cut = None if passages is None else window_of(passages)

    from retrievekit.bench.table import size
    from retrievekit.cli.sources import documents_of, is_index
    from retrievekit.errors import DataError, IndexExistsError

    start = time.perf_counter()
    with Progress(unit="documents") as progress:

        def told(done: int, total: int | None) -> None:
            progress(f"indexing {source}", done, total)

        told(0, None)
        settings: dict[str, Any] = {"overwrite": overwrite, "progress": told}
        if kind != "--lucene":
            settings["memory_budget"] = bytes_of(memory_budget)
        documents: Any = None
        if not weights:
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
            if kind == "--encoder":
                from retrievekit.bench.systems import make_encoder

                made = None
                if encoder is not None:
                    made = make_encoder(encoder, backend.value, dim, url, key_variable)
                settings |= {"engine": engine, "storage": storage}
                if vectors is None:
                    built = _of_vectors(indexed, made, output, resume=resume, **settings)
                else:
                    settings |= {"encoder": made, "similarity": similarity}
                    built = _of_given_vectors(indexed, vectors, ids, output, **settings)
            elif kind == "--sparse":
                from retrievekit.bench.encoders import make_sparse_encoder

                made = None if sparse is None else make_sparse_encoder(sparse, method)
                if weights:
                    settings |= {"encoder": made, "ids": ids, "vocabulary": vocabulary}
                    built = _of_given_weights(source, output, **settings)
                else:
                    built = _of_weights(indexed, made, output, resume=resume, **settings)
            else:
                settings |= {"preset": preset, "k1": k1, "b": b}
                built = _of_words(indexed, output, lucene, **settings)
        except IndexExistsError as why:
            if overwrite or not is_index(str(output)):
                raise
            raise IndexExistsError(
                f"{output}: an index is there already; --overwrite replaces it"
            ) from why
    seconds = time.perf_counter() - start
    n_documents = len(built) if documents is None else len(documents)
    if as_json:
        emit_json(
            {
                "path": str(output),
                "kind": built.kind,
                "documents": n_documents,
                "passages": None if cut is None else len(built),
                "bytes": built.n_bytes,
                "seconds": round(seconds, 3),
                "fingerprint": built.fingerprint,
            }
        )
        return
    what = counted(n_documents, "document")
    if cut is not None:
        what = f"{counted(len(built), 'passage')} of {what}"
    emit(f"{output}: {built.kind}, {what}, {size(built.n_bytes)}, {seconds:.1f} s")


_OF_VECTORS = "is for vectors; name an --encoder too"
_OF_WORDS = "and its like are BM25's; leave them out"
"""What is said of options that mean nothing for what is built."""

_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "--preset": (("--bm25", "--lucene"), _OF_WORDS),
    "--k1": (("--bm25", "--lucene"), _OF_WORDS),
    "--b": (("--bm25", "--lucene"), _OF_WORDS),
    "--engine": (("--encoder",), _OF_VECTORS),
    "--storage": (("--encoder",), _OF_VECTORS),
    "--dim": (("--encoder",), _OF_VECTORS),
    "--backend": (("--encoder",), _OF_VECTORS),
    "--url": (("--encoder",), _OF_VECTORS),
    "--key-variable": (("--encoder",), _OF_VECTORS),
    "--similarity": (("--encoder",), "is for --vectors"),
    "--no-resume": (("--encoder", "--sparse"), _OF_VECTORS),
    "--method": (("--sparse",), "says what a sparse encoder is; name it with --sparse"),
    "--memory-budget": (("--bm25", "--encoder", "--sparse"), "is not for Lucene"),
    "--ids": (("--encoder", "--sparse"), "go with --vectors or --weights"),
    "--vocabulary": (("--sparse",), "goes with --weights"),
}
"""By option the kinds of index that it is for, and what to do about it elsewhere."""


def _refuse_strangers(kind: str, given: dict[str, bool]) -> None:
    for option, there in given.items():
        kinds, advice = _OPTIONS[option]
        if there and kind not in kinds:
            raise typer.BadParameter(f"{option} {advice}")


def window_of(text: str) -> tuple[int, int]:
    """Words and stride of passages, from ``WORDS`` or ``WORDS/STRIDE``.

    Args:
        text: What was given.

    Returns:
        Words of a passage, and words from one's beginning to the next one's.
    """
    from retrievekit.bench.settings import window_of as window
    from retrievekit.errors import DataError

    try:
        return window(text)
    except DataError as why:
        raise typer.BadParameter(f"--passages: {why}") from why


def _of_words(documents: Any, output: Path, lucene: bool, **settings: Any) -> Any:
    if lucene:
        from retrievekit.index.lucene import LuceneIndex

        return LuceneIndex.build(documents, output, **settings)
    from retrievekit.index.bm25 import BM25Index

    return BM25Index.build(documents, output, **settings)


def _of_vectors(documents: Any, encoder: Any, output: Path, **settings: Any) -> Any:
    from retrievekit.index.dense import DenseIndex

    return DenseIndex.build(documents, encoder, output, **settings)


def _of_given_vectors(
    documents: Any, file: Path, ids: Path | None, output: Path, **settings: Any
) -> Any:
    from retrievekit.encode.precomputed import PrecomputedVectors
    from retrievekit.index.dense import DenseIndex

    vectors = PrecomputedVectors.open(file, ids=ids)
    return DenseIndex.from_vectors(documents, vectors, output, **settings)


def _of_weights(documents: Any, encoder: Any, output: Path, **settings: Any) -> Any:
    from retrievekit.index.sparse import SparseIndex

    return SparseIndex.build(documents, encoder, output, **settings)


def _of_given_weights(source: str, output: Path, **settings: Any) -> Any:
    from retrievekit.index.sparse import SparseIndex

    return SparseIndex.from_weights(source, output, **settings)
