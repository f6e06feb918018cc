"""What every test shares: places of caches and test data, the profiles of the property tests."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much the campaigns try; the suite's short forms keep their own, smaller numbers."""
    group = parser.getgroup("campaigns", "how much the campaigns try, for each index kind")
    for name, number, what in (
        ("--kills", 200, "writers killed by SIGKILL"),
        ("--mutations", 10_000, "files damaged"),
        ("--schedules", 2_000, "histories cut off by a loss of power"),
        ("--campaign-seed", 0, "seed of the campaigns' random numbers"),
    ):
        group.addoption(name, type=int, default=number, help=f"{what} (default: {number})")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for an `index_case` or a `case_name` for every registered index kind."""
    wanted = {"index_case", "case_name"} & set(metafunc.fixturenames)
    if not wanted:
        return
    from retrievekit.testing import index_cases

    (argument,) = wanted
    values = []
    for name, case in index_cases().items():
        skip = pytest.mark.skipif(bool(case.missing), reason=f"{name} needs {case.missing}")
        given = case if argument == "index_case" else name
        values.append(pytest.param(given, id=name, marks=[skip]))
    metafunc.parametrize(argument, values)


@pytest.fixture
def campaign_seed(request: pytest.FixtureRequest) -> int:
    """The seed of random campaigns, which also stands in their messages."""
    seed: int = request.config.getoption("--campaign-seed")
    return seed


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """Shows a campaign's report at the end of the run."""
    return lambda report: record_property("campaign", str(report))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the reports of campaigns that passed."""
    told = [
        str(text)
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, text in report.user_properties
        if name == "campaign"
    ]
    if told and terminalreporter.config.getoption("-m") != "not campaign":
        terminalreporter.section("campaigns")
        for text in told:
            terminalreporter.line(text)


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
    """Name the seeds of a random run, so that it can be repeated."""
    names = ("--hypothesis-seed", "--campaign-seed")
    seeds = [(name, config.getoption(name, default=None)) for name in names]
    given = [f"{name}={seed}" for name, seed in seeds if seed]
    return [f"repeat with: {' '.join(given)}"] if given else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
