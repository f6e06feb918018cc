"""``retrievekit eval``: measure a run against judgements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit.cli.console import emit, emit_json, examples, note

EXAMPLES = examples(
    "eval bm25.run qrels/test.tsv",
    'eval bm25.run beir/scifact -m nDCG@10 -m "AP(rel=2)" --per-query',
    "eval bm25.run qrels/test.tsv -m nDCG@10 --compat anserini --json",
)


def evaluation(
    run: Annotated[Path, typer.Argument(help="A TREC run file.", show_default=False)],
    qrels: Annotated[
        str,
        typer.Argument(help="Judgements, TREC or BEIR; or a data set's name.", show_default=False),
    ],
    measure: Annotated[
        list[str] | None,
        typer.Option("-m", "--measure", help="A measure, such as nDCG@10; may be repeated."),
    ] = None,
    per_query: Annotated[
        bool, typer.Option("--per-query", help="Print the values of each query too.")
    ] = False,
    compat: Annotated[
        str, typer.Option(help="Whose rules to follow: trec, anserini, beir or mteb.")
    ] = "trec",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a run file against judgements, by the rules of trec_eval."""
    from retrievekit.evaluate.compute import evaluate
    from retrievekit.evaluate.measures import parse_measures
    from retrievekit.qrels import Qrels
    from retrievekit.run import Run

    wanted = parse_measures(measure or ["nDCG@10", "R@100", "RR@10"])
    if Path(qrels).is_file():
        judged = Qrels.read(qrels)
    else:
        from retrievekit.data.dataset import load_dataset

        judged = load_dataset(qrels).qrels
    rules: Any = compat
    found = evaluate(Run.read(run), judged, wanted, compat=rules)
    if found.n_missing:
        note(
            f"{found.n_missing} of {found.n_judged_queries} judged queries have no hits: they "
            + ("count 0" if compat in ("trec", "anserini") else "count 0 or are left out")
        )
    if found.n_unjudged_queries:
        note(f"{found.n_unjudged_queries} queries of the run are not judged and are left out")
    if as_json:
        plain = found.to_dict()
        if not per_query:
            del plain["per_query"]
        emit_json(plain)
        return
    # The columns of trec_eval: measure, query or "all", value.
    names = [str(one) for one in found.measures]
    width = max(len(name) for name in names)
    if per_query:
        values = {name: found.per_query(name) for name in names}
        for query_id in found.query_ids:
            for name in names:
                emit(f"{name:<{width}}\t{query_id}\t{values[name][query_id]:.4f}")
    for name in names:
        emit(f"{name:<{width}}\tall\t{found.mean[name]:.4f}")
