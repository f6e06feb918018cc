"""Several devices with the answer of one: the same batches, whichever copy each passes through."""

from __future__ import annotations

import contextvars
import threading
import time

import numpy as np
import pytest
import torch

from retrievekit.cuts import Cuts
from retrievekit.encode.batches import Lengths, in_batches
from retrievekit.encode.devices import Copies, devices_of, run_settings, side_by_side
from retrievekit.encode.sentence import SentenceEncoder
from retrievekit.errors import DataError, NonFiniteError


def test_devices_are_one_or_several() -> None:
    assert devices_of(None) == (None,)
    assert devices_of("cuda:1") == ("cuda:1",)
    assert devices_of(["cuda:0", "cuda:1"]) == ("cuda:0", "cuda:1")
    for wrong in ([], [None], ["cpu", 1]):
        with pytest.raises(DataError, match="list of names"):
            devices_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_results_come_in_order_however_long_each_takes(lanes: int) -> None:
    busy, most = 0, 0
    lock = threading.Lock()
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("caller's")

    def run(item: int) -> tuple[int, str]:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.004 * (item % 4))
        with lock:
            busy -= 1
        return item, name.get()

    found = list(side_by_side(run, range(20), lanes))
    assert found == [(item, "caller's") for item in range(20)]
    assert most == lanes
    assert list(side_by_side(run, [], lanes)) == []


def test_an_error_stops_the_rest() -> None:
    begun = []

    def run(item: int) -> int:
        begun.append(item)
        time.sleep(0.005)
        if item == 3:
            raise ZeroDivisionError
        return item

    results = side_by_side(run, range(100), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert max(begun) < 10
    before = threading.active_count()
    for _ in side_by_side(run, range(50, 90), 2):
        break  # whoever asks no more leaves no thread behind
    assert threading.active_count() <= before


def test_nan_is_told_of_its_text_on_any_lane() -> None:
    def run(rows: np.ndarray) -> np.ndarray:
        return np.where(rows == 7, np.nan, rows)[:, None].astype(np.float32)

    lengths = Lengths([n % 5 for n in range(20)], False, None)
    with pytest.raises(NonFiniteError, match=r"document 7 \('t7'\)"):
        in_batches(
            [f"t{n}" for n in range(20)], "document", lengths, run,
            name="m", dim=1, batch_size=3, lanes=2,
        )  # fmt: skip


def test_progress_counts_texts_on_any_lane() -> None:
    lengths = Lengths([n % 5 for n in range(20)], False, None)
    told = {}
    for lanes in (1, 3):
        heard: list[tuple[int, int | None]] = []
        found = in_batches(
            [""] * 20, "document", lengths, lambda rows: rows[:, None].astype(np.float32),
            name="m", dim=1, batch_size=3, lanes=lanes,
            progress=lambda done, total, heard=heard: heard.append((done, total)),
        )  # fmt: skip
        assert found.vectors[:, 0].tolist() == list(range(20))
        told[lanes] = heard
    assert told[1] == told[3] == [(min(3 * n, 20), 20) for n in range(1, 8)]


def test_copies_are_lent_to_one_at_a_time() -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    alone = Copies(model, ["cpu"])
    with alone.one() as first, alone.one() as second:  # one device is shared, as ever
        assert first is second is model
    pair = Copies(model, ["cpu", "cpu"])
    with pair.one() as first, pair.one() as second:
        assert first is not second
        assert torch.equal(first.weight, second.weight)
        assert first.weight.data_ptr() != second.weight.data_ptr()
    with pair.one() as third:
        assert third in (first, second)


def test_a_model_that_is_not_shared_is_lent_to_one_at_a_time() -> None:
    import torch

    alone = Copies(torch.nn.Linear(2, 2), ["cpu"], shared=False)
    waiting: list[int] = []

    def borrow() -> None:
        with alone.one():
            waiting.append(1)

    thread = threading.Thread(target=borrow)
    with alone.one():
        thread.start()
        thread.join(0.05)
        assert not waiting
    thread.join()
    assert waiting


@pytest.mark.parametrize("device", ["gpu", "cuda:77", ["cpu", "cuda:77"], "CPU:x"])
def test_devices_that_are_not_there_say_which_are(device: str | list[str]) -> None:
    with pytest.raises(DataError, match=r"no device '(gpu|cuda:77|CPU:x)' here \(.*there is cpu"):
        _ = SentenceEncoder("minilm", device=device).dim


def test_texts_without_cuts_count_among_all(caplog: pytest.LogCaptureFixture) -> None:
    cuts = Cuts()
    with cuts.collected():
        for sizes in ([9, 3], [1, 2, 3]):
            in_batches(
                ["t"] * len(sizes), "document", Lengths(sizes, True, 5),
                lambda rows: rows[:, None].astype(np.float32), name="m", dim=1, batch_size=2,
            )  # fmt: skip
    assert cuts.by_limit == {("m", "document", 5): (1, 5)}
    in_batches(
        ["t"], "document", Lengths([1], True, 5), lambda rows: np.zeros((1, 1), np.float32),
        name="m", dim=1, batch_size=2,
    )  # fmt: skip
    assert not caplog.records


def test_two_devices_give_the_bits_of_one() -> None:
    texts = [f"the cat number {n} " + "purrs " * (n % 9) for n in range(30)] + ["", ""]
    one = SentenceEncoder("minilm", device="cpu", batch_size=4)
    two = SentenceEncoder("minilm", device=["cpu", "cpu"], batch_size=4)
    assert np.array_equal(one.encode_document(texts), two.encode_document(texts))
    assert np.array_equal(one.encode_query(texts[:3]), two.encode_query(texts[:3]))
    assert two.encode_document([]).shape == (0, two.dim)
    assert one.card == two.card
    with pytest.raises(DataError, match="list of names"):
        SentenceEncoder("minilm", device=[])


def test_what_last_bits_hang_on() -> None:
    threads = torch.get_num_threads()
    assert run_settings(8, ["cpu"]) == {"batch_size": 8, "device": "cpu", "threads": threads}
    assert run_settings(8, ["cpu", "cpu"]) == run_settings(8, ["cpu"])
    several = run_settings(8, ["cuda:0", "cuda:1"])
    assert several == {"batch_size": 8, "device": "cuda", "threads": None}
