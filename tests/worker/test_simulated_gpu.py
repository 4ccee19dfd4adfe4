"""What is asked of a GPU and when, on a simulated one: no GPU is needed, and none was.

`tests/inside/simulated_gpu.py` replaces functions of `torch.cuda` by fakes.
"""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.environment


@pytest.fixture(scope="module")
def found(run_inside: Any) -> Any:
    """What the simulation printed."""
    return run_inside("torch-2.13", "simulated_gpu.py")


def test_memory_is_given_back_before_the_warm_up_not_before_the_measured_steps(found: Any) -> None:
    # steps of 1 s: 3 s after the one that is checked
    seen = found["short steps"]
    warm_up = ["step 0", "empty cache", "step 1", "step 2", "step 3"]
    assert seen["done"] == [*warm_up, "reset peak", "step 4", "step 5", "read"]
    assert (len(seen["samples"]["warmup_s"]), len(seen["samples"]["step_s"])) == (4, 2)
    assert seen["samples"]["losses"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_two_steps_at_least_where_one_takes_longer_than_the_warm_up(found: Any) -> None:
    warm_up = ["step 0", "empty cache", "step 1", "step 2"]
    assert found["long steps"]["done"] == [*warm_up, "reset peak", "step 3", "step 4", "read"]


def test_audits_and_ranks_that_share_a_gpu_warm_up_as_configured(found: Any) -> None:
    warm_up = ["step 0", "empty cache", "step 1"]
    assert found["audit"]["done"] == [*warm_up, "reset peak", "step 2", "read"]
    assert found["shared"]["done"] == [*warm_up, "reset peak", "step 2", "step 3", "read"]


def test_the_driver_counts_what_the_allocator_does_not(found: Any) -> None:
    # the driver: 10 of 100 free; the allocator: 55 reserved, 60 at its peak
    assert found["short steps"]["memory"] == {
        "rank": 0,
        "peak_bytes": 40,
        "peak_reserved_bytes": 60,
        "baseline_bytes": 0,
        "device_used_bytes": 90,
        "outside_allocator_bytes": 35,
    }
    shared = found["shared"]["memory"]
    assert (shared["device_used_bytes"], shared["outside_allocator_bytes"]) == (90, None)


def test_a_call_on_a_gpu_is_timed_in_a_batch_between_two_events(found: Any) -> None:
    """A call takes 50 µs; on its own it also takes 3 to launch and 400 to wait for."""
    seen = found["batches"]
    assert seen["alone"] == pytest.approx(453e-6)
    assert seen["batch"] == pytest.approx(50e-6)
    assert seen["enqueued"] == 21  # 20, and one before that is not timed
    assert seen["machine"] == pytest.approx(50e-6)
    assert seen["timing"]["seconds"] == pytest.approx(50e-6)
    assert seen["timing"]["algorithm_bandwidth"] == pytest.approx(1000 / 50e-6)
    assert seen["timing_calls"] == 3 + 2 + 10 * 21


def test_calls_that_take_long_are_few(found: Any) -> None:
    """0.4 s each: 20 in a row would be 8 s without a sign of life, and 80 s over 10 batches.

    Each batch has one call before it that is not timed.
    """
    seen = found["batches"]
    assert seen["slow machine"] == [pytest.approx(0.4), 1 + 2 + 5 * (1 + 2)]
    assert seen["slow timing"] == [pytest.approx(0.4), 3 + 2 + 10 * (1 + 1)]


def test_a_gpus_links_are_measured_up_to_a_gibibyte(found: Any) -> None:
    assert found["messages"] == {"cpu": [4096, 2**24], "cuda": [4096, 2**30]}


def test_snapshots_name_python_alone_and_are_kept_when_memory_runs_out(found: Any) -> None:
    file = "trial.memory-3.pickle"
    assert found["snapshots"] == [
        {"max_entries": 100_000, "stacks": "python"},
        "steps",
        f"logs/{file}",
        {"memory_snapshot": file, "why": "on demand"},
        f"logs/{file}",
        {"memory_snapshot": file, "why": "out of memory"},
        "raised",
    ]
