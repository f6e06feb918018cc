"""The program: its verbs, and what happens when one of them fails."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from retrievekit import _version
from retrievekit.cli import (
    add,
    bench,
    check,
    compact,
    compress,
    datasets,
    delete,
    expand,
    heads,
    index,
    info,
    rerank,
    run,
    search,
    train,
    vacuum,
    verify,
)
from retrievekit.cli import eval as evaluation
from retrievekit.cli.console import INTERRUPTED, READER_GONE, configure, drop_stdout, report
from retrievekit.errors import RetrieveKitError


class Verbs(TyperGroup):
    """The group of all verbs; turns errors into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Args:
            ctx: Its context.

        Returns:
            What the verb returned.
        """
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            drop_stdout()
            raise typer.Exit(READER_GONE) from None
        except (RetrieveKitError, OSError) as why:
            report(why)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: quick, the same on every terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each verb shows an example: retrievekit VERB --help",
)


def _version_asked(asked: bool) -> None:
    if asked:
        typer.echo(f"retrievekit {_version.__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version_asked, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Index text, search it by words, vectors or both, and measure what is best."""
    configure()


app.command("index", short_help="Build an index of documents.", epilog=index.EXAMPLES)(index.index)
app.command("add", short_help="Put more documents into an index.", epilog=add.EXAMPLES)(add.add)
app.command("delete", short_help="Take documents out of an index.", epilog=delete.EXAMPLES)(
    delete.delete
)
app.command("search", short_help="Ask an index one query.", epilog=search.EXAMPLES)(search.search)
app.command("run", short_help="Answer many queries; write a TREC run.", epilog=run.EXAMPLES)(
    run.run
)
app.command("rerank", short_help="Reorder a run by a model.", epilog=rerank.EXAMPLES)(rerank.rerank)
app.command("expand", short_help="Put written queries behind documents.", epilog=expand.EXAMPLES)(
    expand.expand
)
app.command("heads", short_help="Find a model's heads that retrieve.", epilog=heads.EXAMPLES)(
    heads.heads
)
app.command("eval", short_help="Measure a run against judgements.", epilog=evaluation.EXAMPLES)(
    evaluation.evaluation
)
app.command("bench", short_help="Systems by data sets as a table.", epilog=bench.EXAMPLES)(
    bench.bench
)
app.command("check", short_help="What is wrong with a collection.", epilog=check.EXAMPLES)(
    check.check
)
app.add_typer(
    datasets.app,
    name="datasets",
    short_help="List, show and fetch data sets.",
    epilog=datasets.EXAMPLES,
)
app.add_typer(
    train.app,
    name="train",
    short_help="Train a model from judged queries.",
    epilog=train.EXAMPLES,
)
app.command("verify", short_help="Check an index for damage.", epilog=verify.EXAMPLES)(
    verify.verification
)
app.command("info", short_help="What an index holds.", epilog=info.EXAMPLES)(info.info)
app.command("compact", short_help="Merge an index's segments.", epilog=compact.EXAMPLES)(
    compact.compact
)
app.command("compress", short_help="A smaller index beside an index.", epilog=compress.EXAMPLES)(
    compress.compress
)
app.command("vacuum", short_help="Remove leftovers of an index.", epilog=vacuum.EXAMPLES)(
    vacuum.clean
)
