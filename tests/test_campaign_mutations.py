"""Damaged files: every one is noticed before an answer that differs can come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retrievekit.store.segment import CheckedArray
from retrievekit.testing import mutation_campaign

Tell = Callable[[object], None]


def test_mutations(case_name: str, tmp_path: Path, campaign_seed: int) -> None:
    report = mutation_campaign(case_name, tmp_path, mutations=100, seed=campaign_seed)
    assert {"CURRENT", "lock", "manifest", "deleted", "ids.bytes", "text.bytes"} <= set(
        report.damaged
    )


@pytest.mark.campaign
def test_many_mutations(
    case_name: str, tmp_path: Path, campaign_seed: int, tell: Tell, request: pytest.FixtureRequest
) -> None:
    wanted = request.config.getoption("--mutations")
    tell(mutation_campaign(case_name, tmp_path, mutations=wanted, seed=campaign_seed))


def test_a_reader_that_does_not_check_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckedArray, "_verify", lambda self, block: None)
    with pytest.raises(AssertionError, match=r"bm25, mutation \d+ of seed 5: .*(answered|raised)"):
        mutation_campaign("bm25", tmp_path, mutations=200, seed=5)
