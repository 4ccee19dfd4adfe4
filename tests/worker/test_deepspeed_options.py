"""Options that DeepSpeed never asks for are refused, in real trials."""

from __future__ import annotations

from typing import Any

import pytest

from bench.record import Status
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(
            {"zero_optimisation": {"reduce_scatter": False}},
            "deepspeed.zero_optimisation: DeepSpeed 0.18.2 does not look at this option, so it "
            "would change nothing; did you mean 'zero_optimization'?",
            id="top level",
        ),
        pytest.param(
            {"zero_optimization": {"reduce_scater": False}}, "reduce_scater", id="below it"
        ),
    ],
)
def test_a_misspelt_option_is_an_error(
    run_trial: RunTrial, options: dict[str, Any], said: str
) -> None:
    record = run_trial(configure(deepspeed=options))
    assert record.status is Status.ERROR
    assert [(e.rank, e.phase) for e in record.errors] == [(rank, "setup") for rank in range(4)]
    assert said in record.errors[0].message


def test_options_that_deepspeed_reads_pass(run_trial: RunTrial) -> None:
    options = {
        "gradient_clipping": 0.5,
        "prescale_gradients": True,
        "gradient_predivide_factor": 2.0,
        "communication_data_type": "fp32",
        "seq_parallel_communication_data_type": "fp32",
        "wall_clock_breakdown": False,
        "flops_profiler": {"enabled": False},
        "activation_checkpointing": {"cpu_checkpointing": False},
        "data_types": {"grad_accum_dtype": "fp32"},
        "csv_monitor": {"enabled": False},
    }
    record = run_trial(configure(deepspeed=options, loss="local"))
    assert record.status is Status.OK, record.reason


def test_reduce_scatter_decides_over_the_factor_at_stage_3(run_trial: RunTrial) -> None:
    """What DeepSpeed 0.18.2 was measured to do; a change here is news, not noise."""
    without = {"zero_optimization": {"reduce_scatter": False}}
    labels = []
    for deepspeed in ({}, without):
        record = run_trial(configure(zero=3, loss="local", deepspeed=deepspeed))
        assert record.gradient is not None, record.reason
        labels.append(record.gradient.scale_label)
    assert labels == ["×1/2", "×1"]
