"""The gradient before and after DeepSpeed's clipping, proven by what SGD does to the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.record import Record, Status
from tests.conftest import RunTrial, configure

pytestmark = pytest.mark.environment

RATE = 2.0**10
"""A power of two, so that the product with the gradient is exact."""
CLIPPED = 0.5


def sgd(clipping: float) -> dict[str, Any]:
    return {
        "gradient_clipping": clipping,
        "zero_allow_untested_optimizer": True,
        "optimizer": {"type": "SGD", "params": {"lr": RATE}},
    }


@pytest.mark.parametrize(
    "environment", [pytest.param("torch-2.2", marks=pytest.mark.slow), "torch-2.13"]
)
def test_the_weights_move_by_what_is_said_to_be_consumed(
    run_inside: Callable[..., Any], environment: str
) -> None:
    jobs = {
        f"{dtype} ZeRO {zero} {clipping}": configure(
            environment, dtype=dtype, zero=zero, deepspeed=sgd(clipping), loss="local", world=2
        ).model_dump(mode="json")
        for dtype, zero, clipping in (
            ("float32", 0, CLIPPED),
            ("float32", 1, CLIPPED),
            ("float32", 2, CLIPPED),
            ("float32", 3, CLIPPED),
            ("float32", 1, 0.0),
            ("bfloat16", 0, CLIPPED),
            ("bfloat16", 2, CLIPPED),
        )
    }
    found = run_inside(environment, "clipped.py", json.dumps(jobs))
    for name, ranks in found.items():
        assert ranks[0]["norm"] == ranks[1]["norm"] > 2 * CLIPPED, name
        for one in ranks:
            assert one["norm"] == pytest.approx(one["whole"], rel=1e-5), name
            clips = not name.endswith(" 0.0")
            assert one["threshold"] == (CLIPPED if clips else 0.0)
            # what DeepSpeed's code says it does, in each of its optimizers
            expected = CLIPPED / (one["whole"] + 1e-6) if clips else 1.0
            assert one["factor"] == pytest.approx(expected, rel=1e-4), name
            assert one["moved"] == pytest.approx(one["factor"], rel=1e-3), name
            assert one["norm_after"] == pytest.approx(one["norm"] * expected, rel=1e-4), name


def clipping_of(run_trial: RunTrial, **fields: Any) -> Record:
    record = run_trial(configure(**fields))
    assert record.status is Status.OK, record.reason
    assert record.clipping is not None and record.clipping.factor is not None
    return record


def test_the_verdict_is_of_the_gradient_before_clipping(run_trial: RunTrial) -> None:
    """Clipped to half of 1, a gradient twice too large is consumed like the right one."""
    options = {"gradient_clipping": CLIPPED}
    right = clipping_of(run_trial, zero=1, loss="weighted_all_reduce", deepspeed=options)
    double = clipping_of(run_trial, zero=1, loss="functional_all_reduce", deepspeed=options)
    assert right.gradient is not None and double.gradient is not None
    assert (right.gradient.verdict, double.gradient.scale_label) == ("match", "×2")
    assert right.clipping is not None and double.clipping is not None
    assert right.clipping.norm is not None and double.clipping.norm is not None
    assert double.clipping.norm == pytest.approx(2 * right.clipping.norm, rel=1e-4)
    for found in (right.clipping, double.clipping):
        assert found.threshold == CLIPPED
        assert found.norm_after == pytest.approx(CLIPPED, rel=1e-4)


@pytest.mark.parametrize("zero", [0, 3])
def test_without_clipping_the_factor_is_1(run_trial: RunTrial, zero: int) -> None:
    """The norm is known in every mode, also where nothing is compared."""
    options = {"gradient_clipping": 0}
    record = clipping_of(run_trial, zero=zero, gradient_check="off", deepspeed=options)
    assert record.clipping is not None
    assert record.clipping.threshold == 0
    assert record.clipping.factor == pytest.approx(1, rel=1e-6)
    assert record.clipping.norm is not None and record.clipping.norm > CLIPPED
