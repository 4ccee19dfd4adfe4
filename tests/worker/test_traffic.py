"""Bytes for gradients and weights that theory expects, beside those that real ranks hand over."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.columns import state_traffic_bytes
from bench.record import Record, Status
from bench.theory import state_bytes, total_parameters
from tests.conftest import TINY, RunTrial, configure

pytestmark = pytest.mark.environment

WORLD = 4
PADDING = 2 * WORLD * 4
"""DeepSpeed pads what it gathers to a multiple of twice the ranks [bytes of float32 elements]."""


def counted(record: Record) -> float:
    assert record.status is Status.OK, record.reason
    found = state_traffic_bytes([one.model_dump() for one in record.collectives], WORLD)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("environment", "dtype", "sp"),
    [
        ("torch-2.2", "bfloat16", 2),
        ("torch-2.13", "bfloat16", 2),
        ("torch-2.13", "float32", 1),
        pytest.param("torch-2.2", "float32", 1, marks=pytest.mark.slow),
        pytest.param("torch-2.13", "bfloat16", 1, marks=pytest.mark.slow),
        pytest.param("torch-2.13", "float32", 2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_the_first_step_sends_what_theory_says(
    run_trial: RunTrial, environment: str, dtype: str, sp: int, zero: int
) -> None:
    fields: dict[str, Any] = {"dtype": dtype, "zero": zero, "sp": sp, "loss": "local"}
    record = run_trial(configure(environment, gradient_check="off", **fields))
    n, e = total_parameters(TINY), 2 if dtype == "bfloat16" else 4
    # all of its parameters are below DeepSpeed's threshold, so that ZeRO 3 never frees them
    theory = state_bytes(n, zero, WORLD, e, sp, first_step=True, persistent=n).total
    assert counted(record) == pytest.approx(theory, abs=PADDING * (WORLD - 1))


@pytest.mark.parametrize(
    ("environment", "threshold"),
    [
        ("torch-2.2", 0),
        ("torch-2.13", 0),
        pytest.param("torch-2.13", 100_000, marks=pytest.mark.slow, id="kept"),
    ],
)
def test_a_later_step_of_zero_3_gathers_every_weight_once(
    run_trial: RunTrial, environment: str, threshold: int
) -> None:
    """The first step gathers twice, as it does not know yet what it will use again."""
    options = {"zero_optimization": {"stage3_param_persistence_threshold": threshold}}
    record = run_trial(
        configure(
            environment,
            scenario="profile",
            zero=3,
            loss="local",
            deepspeed=options,
            gradient_check="off",
            warmup_steps=2,
            options={"profiled_steps": 1},
        )
    )
    assert record.status is Status.OK, record.reason
    rows = [row for row in record.details["collectives"] if row["rank"] == 0]
    in_theory = state_bytes(total_parameters(TINY), 3, WORLD, 4, sp=2)
    gathered = [row["bytes"] for row in rows if row["category"] == "parameter_gathering"]
    assert sum(gathered) * (WORLD - 1) == pytest.approx(in_theory.gathered, rel=1e-3)
    reduced = [row["bytes"] for row in rows if row["category"] == "gradient_reduction"]
    assert sum(reduced) * (WORLD - 1) / WORLD == pytest.approx(in_theory.reduced, rel=1e-3)
