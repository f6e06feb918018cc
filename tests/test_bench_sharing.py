"""Systems that share stages answer as they would alone, and are charged as if they had."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from retrievekit.bench.sharing import Memo, Shared, share
from retrievekit.fuse import rrf, top
from retrievekit.queries import Queries
from retrievekit.run import Run
from retrievekit.stage import Stage, Then, stage
from retrievekit.testing import asserting, toy_corpus

TOY = toy_corpus()
QUERIES = TOY.queries


@dataclass(frozen=True)
class Arm(Stage[Queries, Run]):
    """Ranks documents by a fixed rule and counts how often it was asked."""

    step: int
    seconds: float = 0.0
    fixed: bool = True
    calls: list[int] = field(default_factory=list, metadata={"knob": True}, compare=False)
    takes = Queries
    gives = Run

    def __post_init__(self) -> None:
        object.__setattr__(self, "deterministic", self.fixed)

    def apply(self, batch: Queries) -> Run:
        self.calls.append(len(batch))
        time.sleep(self.seconds)
        n, docs = len(batch), TOY.corpus.ids
        first = np.array([int(i[1:]) for i in batch.ids], np.int64)
        rows = ((np.arange(20) * self.step + first[:, None]) % 100).ravel()
        offsets = np.arange(n + 1) * 20
        return Run.from_arrays(batch, docs, offsets, rows, np.tile(np.arange(20.0), n))


@dataclass(frozen=True)
class Repeat(Stage[Run, Queries]):
    """A feedback stage: asks the same again, from a run."""

    takes = Run
    gives = Queries

    def apply(self, batch: Run) -> Queries:
        return batch.queries


def systems(seconds: float = 0.0) -> tuple[list[Arm], list[Stage[Queries, Run]]]:
    # Arms of one fingerprint are different objects, as expressions make them.
    arms = [Arm(3, seconds), Arm(7, seconds), Arm(3, seconds), Arm(7, seconds), Arm(3, seconds)]
    made: list[Any] = [
        arms[0],
        arms[1],
        rrf(arms[2], arms[3]),
        rrf(arms[2], arms[3]) >> top(5),
        arms[4] >> top(5),
        arms[4] >> Repeat() >> arms[1],
    ]
    return arms, made


def test_answers_and_fingerprints_stay() -> None:
    _, plain = systems()
    shared = share(plain, Memo())
    for one, other in zip(plain, shared, strict=True):
        assert other(QUERIES) == one(QUERIES)
        assert other.fingerprint == one.fingerprint
        assert repr(other) == repr(one)


def test_each_arm_runs_once() -> None:
    arms, plain = systems()
    for system in share(plain, Memo()):
        system(QUERIES)
    calls = [len(arm.calls) for arm in arms]
    assert sum(calls) == 2  # one run for step 3, one for step 7
    assert all(calls.count(n) for n in (0, 1))


def test_beginnings_of_pipelines_are_shared() -> None:
    arm = Arm(3)
    plain = [arm >> top(10) >> top(5), arm >> top(10) >> top(2), arm >> top(7)]
    shared = share(plain, Memo())
    assert isinstance(shared[0], Then)
    assert isinstance(shared[0].stages[0], Shared)
    assert repr(shared[0].stages[0]) == repr(arm >> top(10))
    assert [system(QUERIES) for system in shared] == [system(QUERIES) for system in plain]
    assert len(arm.calls) == 1 + 3


def test_other_queries_are_other_answers() -> None:
    shared, twin = share([Arm(3), Arm(3)], Memo())
    half = QUERIES.take(np.arange(3))
    assert len(shared(QUERIES)) == len(QUERIES)
    assert shared(half) == Arm(3)(half)
    assert len(twin(QUERIES)) == len(QUERIES)


def test_each_is_charged_its_full_time() -> None:
    memo = Memo()
    _, plain = systems(seconds=0.05)
    costs = []
    for system in share(plain, memo):
        before, start = memo.charged, time.perf_counter()
        system(QUERIES)
        costs.append(time.perf_counter() - start + memo.charged - before)
    # One arm sleeps 0.05 s; whoever has two arms is charged for two, run now or earlier.
    for cost, arms in zip(costs, (1, 1, 2, 2, 1, 2), strict=True):
        assert cost >= 0.05 * arms
    assert memo.charged >= 0.05 * (2 + 2 + 1 + 2)


def test_random_stages_are_not_shared() -> None:
    arm = Arm(3, fixed=False)
    for system in share([arm, arm, rrf(arm, arm)], Memo()):
        system(QUERIES)
    assert len(arm.calls) == 4


def test_stages_without_fingerprint_are_not_shared() -> None:
    @dataclass(frozen=True)
    class Opaque(Stage[Queries, Run]):
        thing: object
        takes = Queries
        gives = Run

        def apply(self, batch: Queries) -> Run:
            return Arm(3)(batch)

    opaque = Opaque(object())
    shared = share([opaque, opaque], Memo())
    assert shared == [opaque, opaque]


def test_stages_inside_fields_keep_their_other_parameters() -> None:
    arm = Arm(3)
    fused = rrf(arm, Arm(7), k=10, depth=4)
    _, shared = share([arm, fused], Memo())
    assert repr(shared) == repr(fused)
    assert shared(QUERIES) == fused(QUERIES)


def test_wrappers_and_functions() -> None:
    def doubled(batch: Run) -> Run:
        return Run(batch.queries, batch.docs, batch.offsets, batch.rows, 2 * batch.scores)

    arm = Arm(3)
    double = stage(doubled, takes=Run, gives=Run, version="1")
    plain = [arm, asserting(arm) >> double]
    shared = share(plain, Memo())
    assert [s(QUERIES) for s in shared] == [s(QUERIES) for s in plain]
    assert [s.fingerprint for s in shared] == [s.fingerprint for s in plain]
    assert shared[0].identity() == arm.identity()


@pytest.mark.parametrize("count", [0, 1])
def test_few_systems(count: int) -> None:
    plain = [Arm(3)][:count]
    assert share(plain, Memo()) == plain
    empty = QUERIES.take(np.zeros(0, np.int64))
    assert [len(system(empty)) for system in share([Arm(3)] * 2, Memo())] == [0, 0]
