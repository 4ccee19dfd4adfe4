"""Real profiles: the breakdown adds up, the bytes are theory's, the trace holds every rank."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.record import Record, Status
from tests.conftest import TINY, RunTrial, configure

pytestmark = pytest.mark.environment


def profiled(run_trial: RunTrial, environment: str = "torch-2.13", **fields: Any) -> Record:
    """A trial of one profiled step unless `fields` say otherwise; it must end well."""
    values: dict[str, Any] = {
        "scenario": "profile",
        "gradient_check": "off",
        "options": {"profiled_steps": 1},
    }
    record = run_trial(configure(environment, **{**values, **fields}))
    assert record.status is Status.OK, record.reason
    return record


def undisturbed(run_trial: RunTrial, environment: str = "torch-2.13", **fields: Any) -> Record:
    """The same, again where the scheduler stopped ranks between two clocks.

    The parts are the trace's, the step is by the rank's own clock. Of ranks that share cores one is
    now and then stopped between the two, for more than 2 % of a step of milliseconds.
    """
    for _ in range(4):
        record = profiled(run_trial, environment, **fields)
        if record.details["adds_up"]:
            return record
    return profiled(run_trial, environment, **fields)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("kv_heads", [8, 2], ids=["mha", "gqa"])
@pytest.mark.parametrize("sp", [2, 4])
def test_bytes_are_those_of_theory_and_parts_those_of_the_step(
    run_trial: RunTrial, sp: int, kv_heads: int, checkpointing: bool
) -> None:
    model = TINY.model_copy(
        update={"kv_heads": kv_heads, "activation_checkpointing": checkpointing}
    )
    details = undisturbed(run_trial, model=model, sp=sp, world=sp).details
    # by hand: 64 tokens / sp, heads of 8 float32, q and output of 8 heads, k and v of
    # max(kv_heads, sp) heads, 2 layers; 1/sp of it stays
    sent = 2 * 4 * (64 // sp) * 8 * (2 * 8 + 2 * max(kv_heads, sp)) * (sp - 1) // sp
    for rank in range(sp):
        rows = [row for row in details["ulysses"] if row["rank"] == rank]
        assert {row["pass"]: (row["calls"], row["bytes"]) for row in rows} == {
            "forward": (8, sent),
            "recompute": (8, sent) if checkpointing else (0, 0),
            "backward": (8, sent),
        }
    assert details["bytes_agree"] is True
    assert details["adds_up"] is True
    for part in details["breakdown"]:
        assert sum(part["seconds"].values()) == pytest.approx(part["step_s"], rel=0.02)
        assert min(part["seconds"].values()) >= 0
        assert part["seconds"]["idle"] == 0
        for category in ("attention", "matrix", "all_to_all", "optimizer", "rest"):
            assert part["seconds"][category] > 0


@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
def test_the_profiled_steps_enter_nothing_else(run_trial: RunTrial, environment: str) -> None:
    record = undisturbed(run_trial, environment, world=2, steps=3, options={"profiled_steps": 2})
    assert [len(samples.step_s) for samples in record.samples] == [3, 3]
    assert [len(samples.losses) for samples in record.samples] == [4, 4]
    assert record.details["profiled_steps"] == 2
    assert record.details["adds_up"] is True
    assert record.details["bytes_agree"] is True
    for part, samples in zip(record.details["breakdown"], record.samples, strict=True):
        assert part["measured_step_s"] == sorted(samples.step_s)[1]


def test_the_trace_shows_every_rank_on_one_clock(run_trial: RunTrial, results: Path) -> None:
    record = profiled(run_trial, world=2)
    path = results / record.details["trace"]
    assert path.name == f"{record.trial_id}.json.gz"
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {
        "rank 0 (shard 0, replica 0)",
        "rank 1 (shard 1, replica 0)",
    }
    named = {(e["pid"], e["name"]) for e in events if e["ph"] == "X"}
    for region in ("step", "forward", "backward", "attention", "all_to_all", "mlp"):
        assert {(rank, f"spbench/{region}") for rank in (0, 1)} <= named
    ends = [
        [e["ts"] + e["dur"] for e in events if e["pid"] == rank and "/0 all_to_all" in e["name"]]
        for rank in (0, 1)
    ]
    starts = [
        [e["ts"] for e in events if e["pid"] == rank and "/0 all_to_all" in e["name"]]
        for rank in (0, 1)
    ]
    # an all-to-all of two ends on neither rank before both have begun
    assert min(ends[0][0], ends[1][0]) >= max(starts[0][0], starts[1][0])


def test_the_others_wait_for_a_straggler_as_long_as_it_is_late(run_trial: RunTrial) -> None:
    options = {"profiled_steps": 1, "straggler_s": 1.5}
    details = profiled(run_trial, world=2, zero=1, options=options).details
    waits, late = (part["seconds"] for part in details["breakdown"])
    assert 1.2 < waits["waiting"] < 2.5
    assert late["waiting"] < 0.6
    assert late["rest"] + late["optimizer"] > 1.5
    moved = [row["transfer_s"] for row in details["overlap"]]
    assert max(moved) < 0.6  # what the straggler costs is no transfer
    [gather] = [
        row
        for row in details["collectives"]
        if row["rank"] == 0 and row["category"] == "optimizer" and row["phase"] == "optimizer"
    ]
    assert gather["waiting_s"] > 1.2


def test_gradients_are_reduced_and_parameters_gathered(run_trial: RunTrial) -> None:
    rows = profiled(run_trial, zero=1, world=2).details["collectives"]
    found = {(r["category"], r["phase"]) for r in rows if r["rank"] == 0}
    assert ("gradient_reduction", "backward") in found
    assert ("parameter_gathering", "optimizer") in found
    assert ("loss_aggregation", "aggregate") in found


def test_the_loss_aggregations_backward_is_its_own(run_trial: RunTrial) -> None:
    record = profiled(run_trial, loss="all_gather", world=2)
    rows = [r for r in record.details["collectives"] if r["rank"] == 0]
    assert {r["phase"] for r in rows if r["category"] == "loss_aggregation"} == {
        "aggregate",
        "backward",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"profile_steps": 2},
            "options.profile_steps: unknown to scenario profile; "
            "allowed: profiled_steps, straggler_s",
        ),
        ({"profiled_steps": 0}, "options.profiled_steps=0: must be a whole number from 1 on"),
        ({"straggler_s": -1}, "options.straggler_s=-1: must be a number of seconds from 0 on"),
    ],
)
def test_bad_options_are_refused(
    run_trial: RunTrial, options: dict[str, Any], message: str
) -> None:
    record = run_trial(configure(scenario="profile", options=options))
    assert record.status is Status.ERROR
    assert record.errors[0].message == message


def test_nodes_are_told_by_thread_and_number(run_inside: Callable[..., Any]) -> None:
    """With checkpointing and backward on a thread of its own, numbers alone mistake nodes."""
    found = run_inside("torch-2.13", "recomputing_thread.py")
    assert found["same_number"] > 20
    in_attention = {"TanhBackward0", "SoftmaxBackward0", "MmBackward0", "PermuteBackward0"}
    assert in_attention < set(dict(found["nodes"]))
    assert len(found["nodes"]) == 4 * 7 + 4  # AccumulateGrad, and sum, mul and add around
    for name, label in found["nodes"]:
        assert label == ("attention" if name in in_attention else "rest"), name
