"""What verbs that read and write runs share: options, queries and documents, the last line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit import registry
from retrievekit.cli.console import Progress, counted, emit, emit_json

QueriesFile = Annotated[
    Path | None,
    typer.Option("--queries", help="Queries: JSONL, TSV, CSV or Parquet.", show_default=False),
]
Tag = Annotated[str, typer.Option("--tag", help="The run's name in its last column.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Say what was written as JSON.")]
Words = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        help="Where the documents' words are: an index folder, a file, a folder or a data set.",
        show_default=False,
    ),
]
Collection = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A data set (name or folder) whose own parts are used where no others are named.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="A setting of the method, such as max_length=256 or layers=[10,13]; repeatable.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Such as cpu or cuda:1.", show_default=False)
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="What the model computes in.", show_default="float32"),
]


def check_given(what: str, option: str, value: object, data: str | None) -> None:
    """Refuse a call that names neither a part nor a data set that has it.

    Args:
        what: The part.
        option: The option that names it.
        value: What the option says.
        data: The data set.
    """
    if value is None and data is None:
        raise typer.BadParameter(f"give the {what}: {option}, or --data NAME for its own")


def queries_of(file: Path | None, dataset: Any) -> Any:
    """The queries of a file, else of the data set.

    Args:
        file: The file, or None.
        dataset: The data set, or None where there is a file.

    Returns:
        The queries.
    """
    from retrievekit.data.records import read_queries

    return dataset.queries if file is None else read_queries(file)


def words_of(corpus: str | None, dataset: Any) -> Any:
    """The documents that a text names, else the data set's.

    Args:
        corpus: An index folder, a file, a folder, the name of a data set, or None.
        dataset: The data set, or None where there is a text.

    Returns:
        A corpus, or an index.
    """
    from retrievekit.cli.sources import documents_of, is_index, opened

    if corpus is None:
        return dataset.corpus
    if is_index(corpus):
        return opened(corpus)
    return documents_of(
        corpus, number_ids=False, errors="strict", on_duplicate="error", metadata="drop"
    )


def settings_of(texts: list[str] | None) -> dict[str, Any]:
    """A method's settings, from ``NAME=VALUE``.

    Args:
        texts: What was given; a value is JSON where it reads as such, else the text itself.

    Returns:
        Values by name.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"--option is NAME=VALUE, such as task=qa; got {text!r}")
        if name in found:
            raise typer.BadParameter(f"--option {name} is given twice")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def method_named(text: str) -> str:
    """The registered name of a reranker.

    Args:
        text: The name; a hyphen may stand for an underscore.

    Returns:
        The name.

    Raises:
        UnknownNameError: No such reranker; the message lists near ones.
    """
    name = text if text in registry.names("rerank") else text.replace("-", "_")
    registry.target("rerank", name)
    return name


def reranker_of(method: str, model: str, settings: dict[str, Any]) -> Any:
    """A reranker by its registered name.

    Args:
        method: The name.
        model: What it reads with.
        settings: Its settings; those that are None are left to the method.

    Returns:
        The stage.
    """
    from retrievekit.config import misfit

    make = registry.resolve("rerank", method)
    given = {key: value for key, value in settings.items() if value is not None}
    problem = misfit(make, [model], given)
    if problem is not None:
        raise typer.BadParameter(f"{method}: {problem}")
    return make(model, **given)


def followed(stage: Any, batch: Any, label: str, progress: Progress) -> Any:
    """Apply a stage to all queries at once, and show how far it is.

    Args:
        stage: The stage.
        batch: Queries or a run.
        label: What is being done.
        progress: Where it is shown.

    Returns:
        What the stage gives.
    """
    from retrievekit.headway import following

    with following(lambda done: progress(label, done, len(batch))):
        found = stage(batch)
    progress(label, len(batch), len(batch))
    return found


def write_run(found: Any, output: Path, stage: Any, tag: str, as_json: bool) -> None:
    """Write a run, and say so; also what was counted on the way, and what it cost.

    Args:
        found: The run.
        output: The file.
        stage: What found it.
        tag: The run's name in its last column.
        as_json: Whether it is said as JSON.
    """
    found.write(output, tag=tag)
    counts: Counter[str] = Counter()
    for step in found.trace:
        counts.update(dict(step.counts))
    cost = getattr(getattr(getattr(stage, "model", None), "spent", None), "cost", 0.0)
    if as_json:
        told = {"path": str(output), "queries": len(found), "hits": found.n_hits}
        emit_json({**told, "system": repr(stage), "counts": dict(counts), "cost": cost})
        return
    emit(f"{output}: {counted(len(found), 'query')}, {counted(found.n_hits, 'hit')}")
    parts = [f"{number:,} {name}" for name, number in sorted(counts.items())]
    if cost:
        parts.append(f"cost {cost:,.4f}")
    if parts:
        emit(f"  {', '.join(parts)}")
