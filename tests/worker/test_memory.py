"""Memory: the limit is enforced, and the peak is what theory counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.record import Record, Status
from bench.trial import ModelSpec
from tests.conftest import RunTrial, configure

WIDE = ModelSpec(name="wide", layers=2, hidden=256, heads=8, kv_heads=4, ffn=512, vocab=8192)
BUCKET = {"zero_optimization": {"reduce_bucket_size": 1_000_000}}
MIB = 2**20


def train(run_trial: RunTrial, **fields: Any) -> Record:
    values = {"model": WIDE, "world": 2, "deepspeed": BUCKET, "gradient_check": "off"}
    return run_trial(configure(**{**values, **fields}))


def test_the_limit_is_enforced_where_memory_is_needed(run_trial: RunTrial) -> None:
    """2048 tokens a rank: 192 MiB of logits alone."""
    assert train(run_trial, seq_len=1024, memory_limit=250 * MIB).status is Status.OK
    refused = train(run_trial, seq_len=4096, memory_limit=250 * MIB)
    assert refused.status is Status.OOM
    assert {error.phase for error in refused.errors} <= {"forward", "backward"}
    assert train(run_trial, seq_len=4096, memory_limit=1000 * MIB).status is Status.OK


def test_a_rank_at_its_limit_can_still_report(run_inside: Callable[..., Any]) -> None:
    """Its frames hold all that it has: what the report takes must come on top."""
    found = run_inside("torch-2.13", "at_the_limit.py")
    assert found == {"reached": True, "named": True}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"zero": 1}, id="zero1"),
        pytest.param({"zero": 3, "sp": 1, "seq_len": 2048}, id="zero3"),
        pytest.param({"model": WIDE.model_copy(update={"loss_tiles": 8})}, id="tiles"),
    ],
)
def test_the_peak_is_the_predicted_one(run_trial: RunTrial, fields: dict[str, Any]) -> None:
    record = train(
        run_trial, **{"seq_len": 4096, "memory_limit": 4096 * MIB, "warmup_steps": 2, **fields}
    )
    assert record.status is Status.OK
    predicted = record.details["memory"]
    assert sum(predicted["components"].values()) == predicted["predicted"]
    measured = max(rank.peak_bytes for rank in record.memory)
    assert measured == pytest.approx(predicted["predicted"], rel=0.15)


def test_capacity_finds_a_length_between(run_trial: RunTrial) -> None:
    record = train(
        run_trial,
        scenario="capacity",
        seq_len=1024,
        memory_limit=300 * MIB,
        options={"resolution": 512},
    )
    assert record.status is Status.OK
    longest, failed = record.details["longest"], record.details["shortest_failed"]
    assert failed - longest == 512
    assert record.details["predicted"] == pytest.approx(longest, abs=512)
    assert record.details["attempts"][0]["status"] == "ok"


def test_a_snapshot_needs_a_gpu(run_trial: RunTrial) -> None:
    record = train(run_trial, seq_len=64, options={"memory_snapshot": True})
    assert record.status is Status.ERROR
    assert "only the CUDA allocator keeps snapshots" in str(record.reason)


@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
def test_adams_temporaries_are_those_that_theory_counts(
    environment: str, run_inside: Callable[..., Any]
) -> None:
    """As lists: a root of all tensors. One by one: two temporaries of the largest, 400,000."""
    found = run_inside(environment, "adam.py")
    few = 100  # the steps' counters and scalars
    assert found == {
        "all": [pytest.approx(700_000, abs=few), pytest.approx(800_000, abs=few)],
        "flat": [pytest.approx(700_000, abs=few), pytest.approx(1_400_000, abs=few)],
    }
