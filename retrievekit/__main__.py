"""``python -m retrievekit``: the command line without its console script."""

from retrievekit.cli import main

main()
