"""TREC run and qrels files, and BEIR's tab-separated qrels, read and written in columns.

A run file has six fields separated by blanks: query, ``Q0``, document, rank, score, tag. The rank
column is ignored and hits are ordered by score, as trec_eval does it. A qrels file has four
fields separated by blanks (query, iteration, document, grade) or, as BEIR writes them, three
separated by single tabs (query, document, grade) with or without a header. Empty lines are
skipped, and so are lines that begin with ``#``, but for tab-separated files, where a line of tabs
alone is a row with empty ids. Names that end in ``.gz`` are gzipped; what comes out of them is
capped in its ratio to what went in.

Reading is strict: the first line that cannot be right ends it with an error that names file and
line. ``errors="lenient"`` leaves such lines out, logs how many, and `scan_run` and `scan_qrels`
return the counts. Scores are kept as float32 and written with as many digits as bring the same
float32 back.

Files are written whole or not at all. A run's trace lies beside it as ``<file>.trace.json``.
"""

from __future__ import annotations

from retrievekit.data.trec.lines import LONGEST_LINE
from retrievekit.data.trec.reading import read_qrels, read_run, scan_qrels, scan_run
from retrievekit.data.trec.report import Errors, LineReport
from retrievekit.data.trec.writing import write_qrels, write_run

__all__ = [
    "LONGEST_LINE",
    "Errors",
    "LineReport",
    "read_qrels",
    "read_run",
    "scan_qrels",
    "scan_run",
    "write_qrels",
    "write_run",
]
