"""Options that several verbs share: one definition, one wording, one meaning."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


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


# How documents are read.

NumberIds = Annotated[
    bool, typer.Option("--number-ids", help="Take ids that are numbers as their digits.")
]
OnErrors = Annotated[
    Errors,
    typer.Option("--errors", help="Characters that are not valid: refuse, or replace by U+FFFD."),
]
OnDuplicate = Annotated[
    Duplicates,
    typer.Option("--on-duplicate", help="One id with two contents: refuse, or keep the one."),
]
OtherFields = Annotated[
    Metadata,
    typer.Option("--metadata", help="Other fields: as typed columns, as JSON text, or not kept."),
]

# How an index is written.

MemoryBudget = Annotated[
    str | None,
    typer.Option(
        "--memory-budget",
        metavar="SIZE",
        help="Memory that may be used, such as 2GiB or 800MB; what would need more becomes several "
        "segments, and no answer changes.",
        show_default=False,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Use vectors that an interrupted run left, or remove them and encode anew.",
    ),
]

# How an index is searched.

EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=NUMBER",
        help="An option of the index's engine: nprobe=64 (lists read), efSearch=128 (an HNSW "
        "graph), refine=20 (candidates per hit scored exactly); may be repeated.",
        show_default=False,
    ),
]

Device = Annotated[
    str | None,
    typer.Option(
        help="Where vectors are searched: cuda, cuda:1, auto (a GPU where there is one) or cpu; "
        "exact search answers the same everywhere.",
        show_default=False,
    ),
]


def bytes_of(size: str | None) -> int | None:
    """The bytes that a size means.

    Args:
        size: Such as ``2GiB``, ``800 MB``, ``1.5g`` or ``4000000000``; None for no size.

    Returns:
        The bytes, or None.
    """
    if size is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([kmgt]?i?)b?", size.strip().lower())
    units = _UNITS | _BINARY_UNITS
    if found is None or found[2] not in units:
        raise typer.BadParameter(
            f"--memory-budget is a size such as 2GiB, 800MB or 4000000000; got {size!r}"
        )
    return int(float(found[1]) * units[found[2]])


def engine_options(texts: list[str] | None) -> dict[str, int]:
    """An engine's options, from ``NAME=NUMBER``.

    Args:
        texts: What was given.

    Returns:
        Numbers by name.
    """
    options: dict[str, int] = {}
    for text in texts or ():
        name, sign, number = (part.strip() for part in text.partition("="))
        if not sign or not name.isidentifier() or re.fullmatch("[0-9]{1,9}", number) is None:
            raise typer.BadParameter(f"--option is NAME=NUMBER, such as nprobe=64; got {text!r}")
        if name in options:
            raise typer.BadParameter(f"--option {name} is given twice")
        options[name] = int(number)
    return options
