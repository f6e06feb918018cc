"""Writers killed by SIGKILL: no damage, no acknowledged commit lost, no half of one, no litter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retrievekit import registry
from retrievekit.testing import kill_campaign, killed_update_campaign

Tell = Callable[[object], None]


def test_kills(case_name: str, tmp_path: Path, campaign_seed: int) -> None:
    report = kill_campaign(case_name, tmp_path, kills=10, seed=campaign_seed)
    assert dict(report.kills) == dict.fromkeys(["build", "add", "upsert", "delete", "compact"], 2)


@pytest.mark.campaign
def test_many_kills(
    case_name: str, tmp_path: Path, campaign_seed: int, tell: Tell, request: pytest.FixtureRequest
) -> None:
    kills = request.config.getoption("--kills")
    report = kill_campaign(case_name, tmp_path, kills=kills, seed=campaign_seed)
    tell(report)
    assert report.kills.total() == kills
    if kills >= 200:
        # Kills fell into every part of an update, between the first byte and the last.
        parts = {phase.split()[-1] for phases in report.phases.values() for phase in phases}
        assert {"segment", "tombstones", "manifest", "CURRENT"} <= parts


def test_the_disk_after_killed_updates(case_name: str, tmp_path: Path, campaign_seed: int) -> None:
    killed_update_campaign(case_name, tmp_path, kills=4, seed=campaign_seed)


@pytest.mark.campaign
def test_the_disk_after_a_hundred_killed_updates(
    case_name: str, tmp_path: Path, campaign_seed: int, tell: Tell
) -> None:
    most, growth = killed_update_campaign(case_name, tmp_path, kills=100, seed=campaign_seed)
    assert most > 0
    tell(
        f"{case_name}: 100 killed updates left up to {most} bytes; {growth:.3f} x a clean build "
        f"after a vacuum (seed {campaign_seed})"
    )


PLANTED = """
import sys, time
from retrievekit.store.files import Files
from retrievekit.testing.indexes import BM25 as CASE

def replace(self, path, data):
    self.remove(path)
    path.write_bytes(data[:20])
    time.sleep(0.03)
    path.write_bytes(data)

if "pytest" not in sys.modules:  # in workers only
    Files.replace = replace
"""


def test_a_store_that_writes_in_place_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "writes_in_place.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    cases = registry._ENTRIES["index-case"]
    monkeypatch.setitem(cases, "in place", "writes_in_place:CASE")
    with pytest.raises(AssertionError, match=r"in place, build, kill \d+ of seed 5: .*CURRENT"):
        kill_campaign("in place", tmp_path / "work", kills=100, seed=5)
