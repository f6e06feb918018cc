"""The command line: ``retrievekit index | search | run | eval | bench | datasets | verify``.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130
interrupted, 141 the reader of stdout went away. One file per verb; modules that take long to load
are imported inside the verbs.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    from retrievekit.cli.app import app

    app(prog_name="retrievekit")
