"""``retrievekit compress``: a smaller or faster index beside an index, and what it costs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrievekit.cli.console import Progress, counted, emit, emit_json, examples

if TYPE_CHECKING:
    from retrievekit.compress.figures import Comparison

EXAMPLES = examples(
    "compress docs.index --method binary",
    "compress docs.index --method matryoshka:128 -o small.index",
    "compress docs.index --method int8 --queries queries.jsonl --qrels qrels.tsv",
    "compress docs.index --method IVF256,PQ48x4fs --json",
)


def compress(
    index: Annotated[
        str, typer.Argument(help="The folder of an index of vectors.", show_default=False)
    ],
    method: Annotated[
        str,
        typer.Option(
            help="fp16 or int8: vectors of half or a fourth of the bytes; binary or "
            "int8-rescored: a first pass over signs or bytes, the best scored again from vectors "
            "as they are; matryoshka:N: the first N components; or a FAISS factory string.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The new index's folder; by default beside the index, named after the method.",
            show_default=False,
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Queries to compare with; by default some of the documents themselves."),
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgements of the queries, TREC or BEIR.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Build a smaller or faster index from an index's stored vectors, keep both, and compare them.

    Nothing is encoded again but the queries.
    """
    if qrels is not None and queries is None:
        raise typer.BadParameter("--qrels are judgements of queries; give --queries too")
    from retrievekit.cli.sources import is_index, opened
    from retrievekit.compress.build import compress as build
    from retrievekit.compress.figures import compared
    from retrievekit.data.records import read_queries
    from retrievekit.errors import DataError, IndexExistsError
    from retrievekit.index.dense import DenseIndex
    from retrievekit.qrels import Qrels

    original = opened(index)
    if not isinstance(original, DenseIndex):
        raise DataError(
            f"{index}: an index of kind {original.kind!r}; only those of vectors are compressed"
        )
    asked = None if queries is None else read_queries(queries)
    judged = None if qrels is None else Qrels.read(qrels)
    place = beside(Path(index), method) if output is None else output
    with Progress() as progress:
        progress(f"compressing {index}", 0, None)
        try:
            made = build(original, method, place, overwrite=overwrite)
        except IndexExistsError as why:
            if overwrite or not is_index(str(place)):
                raise
            raise IndexExistsError(
                f"{place}: an index is there already; --overwrite replaces it"
            ) from why
        progress("comparing", 0, None)
        figures = compared(original, made, asked, judged) if len(original) else None
    if as_json:
        told = None if figures is None else figures.to_dict()
        emit_json({"path": str(place), "method": method, "figures": told})
        return
    emit(f"{place}: {counted(len(made), 'document')}, {method}")
    if figures is not None:
        _show(figures, method)


def beside(index: Path, method: str) -> Path:
    """Where the new index goes when nobody says.

    Args:
        index: The index.
        method: The method.

    Returns:
        Such as ``docs.binary.index`` for ``docs.index``.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", method).strip("-") or "compressed"
    folder = Path(index.resolve() if index.name in ("", ".", "..") else index)
    return folder.with_name(f"{folder.stem}.{name}{folder.suffix or '.index'}")


def _show(figures: Comparison, method: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from retrievekit.bench.table import size

    before, after = figures.original, figures.compressed
    table = Table(show_edge=False, pad_edge=False)
    for column in ("", "original", method):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("overlap@10", "1.000", f"{after.overlap:.3f}")
    if before.ndcg is not None and after.ndcg is not None:
        loss = f"{after.ndcg:.4f} ({after.ndcg - before.ndcg:+.4f})"
        table.add_row("nDCG@10", f"{before.ndcg:.4f}", loss)
    for name, one, other in (
        ("searched first", before.scanned_bytes, after.scanned_bytes),
        ("vectors stored", before.vector_bytes, after.vector_bytes),
        ("all files", before.index_bytes, after.index_bytes),
    ):
        table.add_row(name, size(one), size(other))
    for name, mine, others in (
        ("ms per query, in a batch", before.ms_per_query, after.ms_per_query),
        ("ms per query, alone", before.ms_alone, after.ms_alone),
    ):
        table.add_row(name, f"{mine:.3g}", f"{others:.3g}")
    emit("")
    Console(file=sys.stdout, markup=False, emoji=False, highlight=False).print(table)
    emit("")
    if figures.own:
        own = counted(figures.n_queries, "document")
        emit(f"asked with the vectors of {own} of its own; --queries asks yours")
    else:
        emit(f"asked {counted(figures.n_queries, 'query')}")
