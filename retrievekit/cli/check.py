"""``retrievekit check``: what is wrong with a collection, before hours are spent on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrievekit.cli.console import Progress, clean, counted, emit, emit_json, examples

if TYPE_CHECKING:
    from retrievekit.doctor.report import Report

EXAMPLES = examples(
    "check beir/scifact --encoder minilm",
    "check beir/scifact --encoder naver/splade-v3",
    "check docs/",
    "check corpus.jsonl --queries queries.jsonl --qrels qrels.tsv --json",
)


def check(
    corpus: Annotated[
        str,
        typer.Argument(
            help="A data set's name, a BEIR folder, a JSONL, TSV, CSV or Parquet file, or a folder "
            "of text files.",
            show_default=False,
        ),
    ],
    queries: Annotated[
        Path | None,
        typer.Option(help="Queries, JSONL or TSV; by default those of the data set or folder."),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(help="Judgements, TREC or BEIR; by default those of the data set or folder."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Try this encoder, dense or learned sparse, on a sample: minilm, a model folder "
            "or a hub name."
        ),
    ] = None,
    sparse: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER",
            help="The same for a sparse encoder that neither its name nor its folder tells from "
            "a dense one.",
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="Documents that the encoder is tried on.")
    ] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Look for what is wrong with documents, queries and judgements, and try an encoder.

    Nothing is changed. The exit code is 1 when there are errors.
    """
    from retrievekit.cli.sources import looks_like_a_file
    from retrievekit.doctor.examine import collection_of, examine

    if encoder is not None and sparse is not None:
        raise typer.BadParameter("give either --encoder or --sparse, not both")
    looks_like_a_file(corpus)
    with Progress() as progress:
        collection = collection_of(corpus, queries, qrels, progress)
        made = None
        if encoder is not None:
            from retrievekit.bench.encoders import make_any_encoder

            made = make_any_encoder(encoder)
        elif sparse is not None:
            from retrievekit.bench.encoders import make_sparse_encoder

            made = make_sparse_encoder(sparse)
        report = examine(collection, made, sample=sample, progress=progress)
    if as_json:
        emit_json(report.to_dict())
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    for line in _facts(report):
        emit(line)
    if report.findings:
        from rich.console import Console
        from rich.table import Table

        table = Table(show_edge=False, pad_edge=False, show_lines=True)
        table.add_column("")
        table.add_column("what was found", ratio=3)
        table.add_column("what to do", ratio=2)
        for finding in report.findings:
            what = clean(finding.what)
            if finding.examples:
                more = ", ..." if finding.count > len(finding.examples) else ""
                what += f":\n{', '.join(clean(e) for e in finding.examples)}{more}"
            table.add_row(finding.severity, what, finding.advice)
        emit("")
        Console(file=sys.stdout, markup=False, emoji=False, highlight=False).print(table)
        emit("")
    told = [
        counted(n, word)
        for word, n in (
            ("error", report.count("error")),
            ("warning", report.count("warning")),
            ("note", report.count("note")),
        )
        if n
    ]
    emit(f"{', '.join(told)}" if told else "nothing to complain of")


def _facts(report: Report) -> list[str]:
    from retrievekit.bench.table import size

    facts = report.facts
    parts = [counted(facts["documents"], "document")]
    for name, singular in (("queries", "query"), ("judgements", "judgement")):
        if facts[name] is not None:
            parts.append(counted(facts[name], singular))
    lines = [f"{report.source}: {', '.join(parts)}"]
    if words := facts["words_per_document"]:
        lines.append(
            f"words per document: median {words['median']:,}, 95 % have at most {words['95%']:,}, "
            f"longest {words['longest']:,}; {size(facts['text_bytes'])} of text"
        )
    if probe := facts.get("probe"):
        lines += _probe_lines(probe)
    return lines


def _probe_lines(probe: dict[str, Any]) -> list[str]:
    from retrievekit.bench.table import size

    about = [f"{probe['similarity']}"]
    if "dim" in probe:
        about.insert(0, f"{probe['dim']:,} components")
    else:
        asked = probe["weights_per_query"]
        of_queries = "" if asked is None else f", {asked:,.0f} a query"
        about.insert(0, f"{probe['weights_per_text']:,.0f} weights a document{of_queries}")
    about += _lengths(probe["max_length"])
    about += [str(value) for value in probe["numerics"].values() if value]
    return [
        f"{clean(str(probe['encoder']))}: {', '.join(about)}",
        f"expected to index: {duration(probe['seconds'])} at {probe['texts_per_second']:,.1f} "
        f"documents a second (a probe of {probe['probed']:,} here and now), "
        f"{size(probe['vector_bytes'])} of {'vectors' if 'dim' in probe else 'postings'} and "
        f"{size(probe['text_bytes'])} of text",
    ]


def _lengths(limit: Any) -> list[str]:
    """What is read of a text: one length, or one for each role."""
    roles = limit if isinstance(limit, dict) else {"": limit}
    parts = [f"{length:,} tokens {f'of a {role}' if role else ''}".strip()
             for role, length in roles.items() if length]  # fmt: skip
    return [f"reads {' and '.join(parts)}"] if parts else []


def duration(seconds: float) -> str:
    """A time as people say it.

    Args:
        seconds: Seconds.

    Returns:
        Such as ``8 s``, ``12 min``, ``3 h 20 min``, ``2 days 5 h``.
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} days {hours % 24} h"
