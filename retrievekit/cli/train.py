"""``retrievekit train``: models from judged queries, one verb per kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retrievekit.cli.console import Progress, clean, counted, emit, emit_json, examples, note
from retrievekit.cli.runs import AsJson, Overwrite

EXAMPLES = examples(
    "train reranker recipe.yaml -o reranker",
    "train reranker recipe.yaml -o reranker --set loss=lambda --set seed=1",
    "train negatives recipe.yaml -o examples.jsonl",
    "train prf recipe.yaml -o feedback-encoder",
)

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Train models from judged queries, by recipes.",
)

Recipe = Annotated[
    Path,
    typer.Argument(
        help="The recipe: a YAML file with at least model, data, and steps or epochs.",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting that stands above the recipe's, such as seed=1; repeatable.",
        show_default=False,
    ),
]


@app.command(
    "reranker",
    epilog=examples(
        "train reranker recipe.yaml -o reranker",
        "train reranker recipe.yaml -o reranker --set steps=500 --set loss=listnet",
    ),
)
def reranker(
    recipe: Recipe,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The model folder to make.",
            show_default="the recipe's name, here",
        ),
    ] = None,
    change: Changes = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where a training was stopped.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a cross-encoder, or go on where it was stopped: call it again with the same recipe.

    The result is for rerank --method cross-encoder --model FOLDER.
    """
    from retrievekit.train.recipes import read_recipe
    from retrievekit.train.reranker import train_reranker

    asked = read_recipe(recipe, _changes(change))
    folder = Path(recipe.stem) if output is None else output
    with Progress(unit="steps") as progress:

        def told(done: Any) -> None:
            progress("training", done.step, done.total)
            if done.evaluated:
                best = " (the best)" if done.figure == done.best else ""
                speed = done.pairs / done.seconds if done.seconds else 0.0
                left = (done.total - done.step) * done.seconds / max(1, done.steps)
                note(
                    f"step {done.step:,} of {done.total:,}: loss {done.loss:.4f}, "
                    f"{asked.dev} nDCG@10 {done.figure:.4f}{best}, {speed:,.0f} pairs/s, "
                    f"{left / 60:.0f} min of steps left"
                )

        made = train_reranker(
            asked, folder, first=_first(asked, progress), told=told, restart=restart
        )
    if as_json:
        told_of = {"steps": made.steps, "best_step": made.best_step, "seconds": made.seconds}
        figures = {"first_stage_nDCG@10": made.first, "nDCG@10": made.figure}
        emit_json({"path": str(made.path), **told_of, asked.dev: figures})
        return
    emit(
        f"{made.path}: {asked.dev} nDCG@10 {made.figure:.4f} by the weights of step "
        f"{made.best_step:,}, that of {clean(asked.first)} is {made.first:.4f}"
    )


@app.command(
    "prf",
    epilog=examples(
        "train prf recipe.yaml -o feedback-encoder",
        "train prf recipe.yaml -o lol --set method=lol --set docs=5",
    ),
)
def prf(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="The recipe: a YAML file with at least data, and steps or epochs.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The model folder to make.",
            show_default="the recipe's name, here",
        ),
    ] = None,
    change: Changes = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where a training was stopped.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a query encoder that reads a query's first passages: ANCE-PRF or LoL.

    Call it again with the same recipe to go on where it was stopped. The result is for expressions:
    minilm >> ance_prf('FOLDER') >> minilm.
    """
    from retrievekit.bench.systems import indexes_of
    from retrievekit.train.prf import train_prf
    from retrievekit.train.prf_recipes import read_feedback_recipe

    asked = read_feedback_recipe(recipe, _changes(change))
    folder = Path(recipe.stem) if output is None else output
    with Progress(unit="steps") as progress:

        def told(done: Any) -> None:
            progress("training", done.step, done.total)
            if done.evaluated:
                best = " (the best)" if done.figure == done.best else ""
                left = (done.total - done.step) * done.seconds / max(1, done.steps)
                note(
                    f"step {done.step:,} of {done.total:,}: loss {done.loss:.4f}, "
                    f"{asked.dev} nDCG@10 {done.figure:.4f}{best}, "
                    f"{left / 60:.0f} min of steps left"
                )

        stage = _retriever(asked, progress)
        indexes = indexes_of(stage)
        if len(indexes) != 1:
            raise typer.BadParameter(
                f"the retriever {asked.retriever!r} searches {len(indexes)} indexes; a feedback "
                "encoder is trained for one dense index"
            )
        made = train_prf(asked, folder, index=indexes[0], told=told, restart=restart)
    if as_json:
        told_of = {"steps": made.steps, "best_step": made.best_step, "passes": made.passes}
        figures = {
            "retriever_nDCG@10": made.retriever,
            "before_nDCG@10": made.before,
            "nDCG@10": made.figure,
        }
        emit_json({"path": str(made.path), **told_of, "seconds": made.seconds, asked.dev: figures})
        return
    emit(
        f"{made.path}: {asked.dev} nDCG@10 {made.figure:.4f} by the weights of step "
        f"{made.best_step:,}, that of {clean(asked.retriever)} is {made.retriever:.4f}"
    )


@app.command("negatives", epilog=examples("train negatives recipe.yaml -o examples.jsonl"))
def negatives(
    recipe: Recipe,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The JSONL file to write.", show_default=False)
    ],
    change: Changes = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write what a recipe would learn from: queries, relevant documents and hard negatives.

    Lines may be changed by hand; --set examples=FILE then learns from them.
    """
    from retrievekit.cli.sources import free_file
    from retrievekit.data.dataset import load_dataset
    from retrievekit.train.material import mined_by
    from retrievekit.train.mining import write_mined
    from retrievekit.train.recipes import read_recipe

    asked = read_recipe(recipe, _changes(change))
    free_file(output, overwrite)
    with Progress() as progress:
        dataset = load_dataset(asked.data, asked.train)
        mined = mined_by(asked, dataset, _first(asked, progress)(dataset.corpus))
    write_mined(mined, output)
    positives = sum(len(one.positives) for one in mined)
    found = sum(len(one.negatives) for one in mined)
    if as_json:
        counts = {"queries": len(mined), "positives": positives, "negatives": found}
        emit_json({"path": str(output), **counts})
        return
    emit(
        f"{output}: {counted(len(mined), 'query')}, {counted(positives, 'relevant document')}, "
        f"{counted(found, 'negative')}"
    )


def _changes(texts: list[str] | None) -> dict[str, Any]:
    """Settings from ``NAME=VALUE``, the values as YAML reads them."""
    import yaml

    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"--set is NAME=VALUE, such as seed=1; got {text!r}")
        if name in found:
            raise typer.BadParameter(f"--set {name} is given twice")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as why:
            raise typer.BadParameter(f"--set {text}: the value is no YAML") from why
    return found


def _first(recipe: Any, progress: Progress) -> Any:
    """What makes the recipe's first stage of a corpus."""
    from retrievekit.bench.systems import IndexShelf, shelf_folder
    from retrievekit.config import resolve

    def made(corpus: Any) -> Any:
        # One hit more, for a query's own document.
        shelf = IndexShelf(corpus, shelf_folder(), depth=recipe.depth + 1, progress=progress)
        return resolve(recipe.first, shelf)

    return made


def _retriever(recipe: Any, progress: Progress) -> Any:
    """The retriever of a feedback encoder's recipe, over the data set's documents."""
    from retrievekit.bench.systems import IndexShelf, shelf_folder
    from retrievekit.config import resolve
    from retrievekit.data.dataset import load_dataset

    corpus = load_dataset(recipe.data, recipe.train).corpus
    shelf = IndexShelf(corpus, shelf_folder(), depth=recipe.depth + 1, progress=progress)
    return resolve(recipe.retriever, shelf)
