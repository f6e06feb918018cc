"""``retrievekit eval``: measure a run against judgements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrievekit.cli.console import counted, emit, emit_json, examples, note
from retrievekit.errors import DataError, DuplicateIdError, ParseError

if TYPE_CHECKING:
    from retrievekit.data.registry import OwnDocument

EXAMPLES = examples(
    "eval bm25.run qrels/test.tsv",
    'eval bm25.run beir/scifact -m nDCG@10 -m "AP(rel=2)" --per-query',
    "eval bm25.run qrels/test.tsv -m nDCG@10 --compat anserini --json",
)


class Compat(StrEnum):
    """Whose rules are followed."""

    trec = "trec"
    anserini = "anserini"
    beir = "beir"
    mteb = "mteb"


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
    compat: Annotated[Compat, typer.Option(help="Whose rules to follow.")] = Compat.trec,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a run file against judgements, by the rules of trec_eval."""
    from retrievekit.cli.sources import looks_like_a_file, n_fields
    from retrievekit.evaluate.compute import evaluate
    from retrievekit.evaluate.measures import parse_measures
    from retrievekit.qrels import Qrels
    from retrievekit.run import Run

    wanted = parse_measures(measure or ["nDCG@10", "R@100", "RR@10"])
    rule: OwnDocument = "none"
    if Path(qrels).is_file():
        try:
            with _without_settings():
                judged = Qrels.read(qrels)
        except ParseError as why:
            if n_fields(Path(qrels)) == 6 and n_fields(run) in (3, 4):
                raise ParseError(
                    why.path, why.line, f"looks like a run; first the run: eval {qrels} {run}"
                ) from why
            raise
    else:
        looks_like_a_file(qrels)
        from retrievekit.data.dataset import load_dataset

        dataset = load_dataset(qrels)
        with _without_settings():
            judged = dataset.qrels
        rule = dataset.properties.own_document
    with _without_settings():
        measured = Run.read(run)
    if not measured.n_hits:
        raise DataError(
            f"{run}: the run has no hits; is it the right file, and did the search that wrote it "
            "finish and find anything?"
        )
    if rule != "none":
        from retrievekit.data.dataset import drop_own

        n_hits = measured.n_hits
        measured = drop_own(measured, rule)
        note(
            f"{qrels} leaves out the query's own document (rule {rule!r}): "
            f"{counted(n_hits - measured.n_hits, 'hit')} dropped"
        )
    rules: Any = str(compat)
    found = evaluate(measured, judged, wanted, compat=rules)
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


@contextmanager
def _without_settings() -> Iterator[None]:
    """Leave out of messages what only Python's readers can be told."""
    try:
        yield
    except ParseError as why:
        problem = why.problem.partition(", or read with errors=")[0]
        raise ParseError(why.path, why.line, problem) from why
    except DuplicateIdError as why:
        raise DuplicateIdError(str(why).partition(", or read with errors=")[0]) from why
