"""The keys `matmul` and `sdpa`: what they set in torch, and real trials on CPU that say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.record import Status
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment

ENVIRONMENTS = pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])


@ENVIRONMENTS
def test_torch_is_told(run_inside: Callable[..., Any], environment: str) -> None:
    """Beside a variable of NGC's images, which a server drops, so that a rank never sees it."""
    found = run_inside(environment, "kernels.py", TORCH_ALLOW_TF32_CUBLAS_OVERRIDE="0")
    assert found["precision"] == {
        "highest": ["highest", False, False],
        "tf32": ["high", True, True],
    }
    none = "No viable backend for scaled_dot_product_attention"
    assert found["kernels"] == {
        "auto": [None, "flash", "ok"],
        "flash": [None, "flash", "ok"],
        "math": [None, "math", "ok"],
        "efficient": [None, "unknown", none],
        "cudnn": [None, "unknown", none],
    }


@ENVIRONMENTS
@pytest.mark.parametrize(
    ("sdpa", "kernel"), [("auto", "flash"), ("flash", "flash"), ("math", "math")]
)
def test_the_kernel_that_was_asked_for_is_recorded_and_right(
    run_trial: RunTrial, environment: str, sdpa: str, kernel: str
) -> None:
    record = run_trial(configure(environment, sdpa=sdpa))
    assert record.status is Status.OK, record.reason
    assert record.worker is not None
    assert record.worker.sdpa_kernel == kernel
    assert record.gradient is not None
    assert record.gradient.verdict == "match"


def test_ranks_on_cpu_say_their_variables(run_trial: RunTrial) -> None:
    record = run_trial(configure(scenario="drill", options={"fault": "raise"}))
    assert record.status is Status.ERROR  # there whatever happened
    assert record.worker is not None
    assert record.worker.variables["DS_ACCELERATOR"] == "cpu"
    assert record.worker.variables["CUDA_VISIBLE_DEVICES"] == ""
    assert all(
        name.startswith(("NCCL_", "TORCH_", "PYTORCH_", "CUDA_", "DS_"))
        for name in record.worker.variables
    )
