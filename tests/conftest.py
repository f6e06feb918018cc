"""What every test shares: places of caches and test data, the profiles of the property tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Set on import, since kernels look for their cache when their module is imported, before any
# fixture runs. Kept between runs, so that kernels are not compiled each time; never the user's own.
os.environ["RETRIEVEKIT_CACHE"] = str(ROOT / ".pytest_cache" / "retrievekit")
os.environ["HF_HOME"] = str(ROOT / ".pytest_cache" / "huggingface")
for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "NO_COLOR"):
    os.environ[switch] = "1"
for switch in ("FORCE_COLOR", "GITHUB_ACTIONS"):  # would colour the output of the command line
    os.environ.pop(switch, None)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The suite is the same on every run; `make campaign` searches on with a seed of its own, which is
# printed. Machines differ in speed, so a slow case is no failure.
settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "campaign",
    deadline=None,
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of published collections and reference runs; skips visibly without it."""
    named = os.environ.get("RETRIEVEKIT_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"no test data: {folder} is not a folder; set RETRIEVEKIT_TEST_DATA to the one with "
            "beir/, runs/ and trec_eval/"
        )
    return folder


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the seed of a random run, so that it can be repeated."""
    seed = config.getoption("--hypothesis-seed", default=None)
    return [] if seed is None else [f"repeat with: --hypothesis-seed={seed}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
