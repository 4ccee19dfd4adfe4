"""How DeepSpeed is told of sequence parallelism, and what each way does to the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.record import Record
from bench.trial import EnvironmentSpec
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment

OLD = EnvironmentSpec(
    name="deepspeed-0.16.9", torch="2.4.1", deepspeed="0.16.9", python_version=">=3.10"
)
"""The last DeepSpeed without an mpu of its own: what the README's overrides make."""


def label(record: Record) -> str:
    """`×2`; `ranks differ` where ranks of one sequence would train apart."""
    assert record.gradient is not None, record.reason
    if not record.gradient.ranks_agree:
        return "ranks differ"
    return record.gradient.scale_label


def test_what_is_lacking_is_seen_and_told(run_inside: Callable[..., Any]) -> None:
    everything, alone, without_its_mpu, nothing, version = run_inside(
        "torch-2.13", "mesh_setups.py"
    )
    assert everything.pop("auto") == "parallel_state_sp"
    assert all(name == asked for asked, name in everything.items())
    assert alone == "no_mpu"
    assert without_its_mpu["auto"] == "megatron"
    assert without_its_mpu["parallel_state_sp"] == (
        f"mesh_setup=parallel_state_sp: DeepSpeed {version} has no "
        "deepspeed.runtime.sequence_parallel.parallel_state_sp; take "
        "mesh_setup=megatron, megatron_mpu, mesh_param, no_mpu, or another DeepSpeed"
    )
    assert nothing["no_mpu"] == "no_mpu"
    for asked, what in (
        ("auto", "groups._get_sequence_data_parallel_group"),
        ("megatron_mpu", "groups._get_sequence_data_parallel_group"),
        ("mesh_param", "deepspeed.initialize(mesh_param=…)"),
    ):
        assert nothing[asked].endswith("; take mesh_setup=no_mpu, or another DeepSpeed")
        assert what in nothing[asked]


@pytest.mark.parametrize(
    ("setup", "zero", "loss", "gradient"),
    [
        # told as in DeepSpeed 0.16.9: the same as the mpu that later versions bring
        ("megatron", 3, "all_gather", "×1"),
        ("megatron", 3, "local", "×1/2"),
        ("megatron", 1, "all_gather", "×2"),
        # each rank of a sequence keeps the gradient of its own shard
        ("mesh_param", 1, "local", "ranks differ"),
        # an average over all four ranks, where two replicas of two ranks share the work
        ("no_mpu", 1, "all_gather", "×1"),
        ("no_mpu", 1, "local", "×1/2"),
    ],
)
def test_the_gradient_depends_on_how_deepspeed_is_told(
    run_trial: RunTrial, setup: str, zero: int, loss: str, gradient: str
) -> None:
    record = run_trial(configure(mesh_setup=setup, zero=zero, loss=loss))
    assert record.worker is not None
    assert record.worker.mesh_setup == setup
    assert label(record) == gradient


def test_at_zero_3_parameters_are_spread_over_the_ranks_that_reduce(
    run_trial: RunTrial,
) -> None:
    """Without `zero.Init` over all ranks the engine takes the mpu's data-parallel group."""
    alone = run_trial(configure(mesh_setup="megatron_mpu", zero=3))
    assert alone.gradient is not None, alone.reason
    assert alone.gradient.verdict == "wrong"


def test_auto_is_named_in_the_record(run_trial: RunTrial) -> None:
    told = [run_trial(configure(sp=sp)).worker for sp in (1, 2)]
    assert [one and one.mesh_setup for one in told] == ["no_mpu", "parallel_state_sp"]


@pytest.mark.slow  # an environment of its own: 5 GB
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("loss", "gradient"), [("all_gather", "×1"), ("local", "×1/2")])
def test_before_0_17_zero_3_is_as_later(run_trial: RunTrial, loss: str, gradient: str) -> None:
    record = run_trial(configure(loss=loss, zero=3).model_copy(update={"environment": OLD}))
    assert record.worker is not None, record.reason
    assert record.worker.mesh_setup == "megatron"
    assert label(record) == gradient
