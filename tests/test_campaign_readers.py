"""Readers at work while a writer commits: each read is of one whole generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retrievekit import registry
from retrievekit.testing import reading_campaign

Tell = Callable[[object], None]


def test_reads_during_commits(case_name: str, tmp_path: Path) -> None:
    report = reading_campaign(case_name, tmp_path, commits=20, reads=100)
    assert report.generations > 3
    assert set(report.reads) == {"opening", "reopening", "holding"}


@pytest.mark.campaign
def test_a_thousand_reads_during_two_hundred_commits(
    case_name: str, tmp_path: Path, tell: Tell
) -> None:
    report = reading_campaign(case_name, tmp_path, commits=200, reads=1000)
    assert report.generations > 50
    tell(report)


PLANTED = """
import sys
from retrievekit.store.files import Files
from retrievekit.testing.indexes import BM25 as CASE

def replace(self, path, data):
    path.unlink(missing_ok=True)
    path.write_bytes(data[:20])
    path.write_bytes(data)

if "pytest" not in sys.modules:  # in workers only
    Files.replace = replace
"""


def test_a_store_that_writes_in_place_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "replaces_in_place.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry._ENTRIES["index-case"], "in place", "replaces_in_place:CASE")
    with pytest.raises(AssertionError, match="a worker failed"):
        reading_campaign("in place", tmp_path / "work", commits=300, reads=1000)
