"""The search for the longest sequence, with launches whose outcome is known beforehand."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest

from bench.controller.drivers import capacity
from bench.controller.outcome import Flight
from bench.record import RankMemory, Record, Status
from bench.trial import Trial
from tests.controller.test_outcome import raised, take
from tests.controller.test_progress import error, record, trial

LIMIT = 2**30


class Machine:
    """Trains what has at most `fits` tokens; ends `odd` lengths with `odd_status`."""

    def __init__(self, fits: int, odd: int = 0, odd_status: Status = Status.ERROR) -> None:
        self._fits, self._odd, self._odd_status = fits, odd, odd_status
        self.tried: list[int] = []
        self.seen: list[Trial] = []

    def launch(self, one: Trial) -> Record:
        seq_len = one.configuration.seq_len
        self.seen.append(one)
        self.tried.append(seq_len)
        if seq_len == self._odd:
            return record(one, self._odd_status, reason="it went wrong", errors=[error(1)])
        if seq_len > self._fits:
            return record(one, Status.OOM, reason="no memory left")
        memory = [RankMemory(rank=r, peak_bytes=seq_len + r, baseline_bytes=0) for r in range(2)]
        return record(one, memory=memory)


def search(machine: Machine, **fields: Any) -> tuple[Record, list[str]]:
    values = {"seq_len": 1024, "sp": 4, "memory_limit": LIMIT, "options": {"resolution": 512}}
    noted: list[str] = []
    one = trial(scenario="capacity", **{**values, **fields})
    return capacity.run(one, machine.launch, noted.append), noted


def test_doubling_then_bisection() -> None:
    machine = Machine(fits=5000)
    made, noted = search(machine)
    assert machine.tried == [1024, 2048, 4096, 8192, 6144, 5120, 4608]
    assert made.status is Status.OK
    assert (made.details["longest"], made.details["shortest_failed"]) == (4608, 5120)
    assert [one["status"] for one in made.details["attempts"]] == [
        *("ok", "ok", "ok", "oom", "oom", "oom", "ok")
    ]
    assert made.details["attempts"][2]["peak_bytes"] == 4097  # the fuller rank
    assert made.details["attempts"][3]["peak_bytes"] is None
    assert made.memory[0].peak_bytes == 4608
    assert noted[0] == "the longest sequence is from 0 tokens on"
    assert noted[-1] == "4,608 tokens ok; the longest sequence is between 4,608 and 5,120 tokens"
    assert made.details["headline"].startswith("longest 4,608 tokens, predicted ")


def test_attempts_are_short_trials_of_train() -> None:
    machine = Machine(fits=1024)
    search(machine)
    first = machine.seen[0].configuration
    assert (first.scenario, first.warmup_steps, first.steps) == ("train", 1, 1)
    assert (first.gradient_check, first.options, first.memory_limit) == ("off", {}, LIMIT)


def test_below_the_first_length() -> None:
    machine = Machine(fits=600)
    made, _ = search(machine, seq_len=4096)
    assert machine.tried == [4096, 2048, 1024, 512]
    assert (made.details["longest"], made.details["shortest_failed"]) == (512, 1024)


def test_nothing_fits() -> None:
    made, _ = search(Machine(fits=100), seq_len=1024)
    assert made.status is Status.OOM
    assert made.reason == "not even 512 tokens fit; no memory left"
    assert [one["seq_len"] for one in made.details["attempts"]] == [1024, 512]


def test_the_search_ends_at_the_most() -> None:
    made, _ = search(Machine(fits=10**9), options={"resolution": 512, "most": 3000})
    assert [one["seq_len"] for one in made.details["attempts"]] == [1024, 2048, 2560]
    assert made.details["shortest_failed"] is None
    assert "2,560 tokens or more" in made.details["headline"]


def test_lengths_are_multiples_of_sp() -> None:
    machine = Machine(fits=50)
    made, _ = search(machine, options={"resolution": 10}, seq_len=25)
    assert machine.tried == [24, 48, 96, 72, 60]
    assert made.details["longest"] == 48


@pytest.mark.parametrize("status", [Status.ERROR, Status.HANG, Status.TIMEOUT, Status.CRASH])
def test_another_end_ends_the_search_and_loses_nothing(status: Status) -> None:
    made, _ = search(Machine(fits=10**6, odd=4096, odd_status=status))
    assert made.status is status
    assert made.reason == "at 4096 tokens: it went wrong"
    assert [one.rank for one in made.errors] == [1]
    assert [one["seq_len"] for one in made.details["attempts"]] == [1024, 2048, 4096]
    assert made.details["longest"] == 2048
    assert made.memory[0].peak_bytes == 2048


def test_a_card_on_which_nccl_or_cublas_found_no_memory_does_not_end_the_search() -> None:
    """The statuses are those that the ranks' own words lead to."""
    full = cycle(
        [
            "Last error:\nFailed to CUDA calloc async 608 bytes",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ]
    )

    class Card(Machine):
        def launch(self, one: Trial) -> Record:
            made = super().launch(one)
            if made.status is not Status.OOM:
                return made
            flight = Flight(1)
            take(flight, raised(0, message=next(full)))
            return record(one, **flight.fields())

    made, _ = search(Card(fits=5000))
    assert made.status is Status.OK
    assert (made.details["longest"], made.details["shortest_failed"]) == (4608, 5120)


def test_without_a_limit_nothing_is_predicted() -> None:
    made, _ = search(Machine(fits=1024), memory_limit=None)
    assert made.details["predicted"] is None
