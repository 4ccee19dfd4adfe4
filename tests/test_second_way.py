"""What spbench says of a gradient, beside what one step of SGD did to the weights.

The second way is `tests/standalone/gradient_by_step.py`: another model, another reference, another
place to look, and no code of spbench.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.record import Record
from tests.conftest import ROOT, RunTrial, configure

SCRIPT = ROOT / "tests" / "standalone" / "gradient_by_step.py"


def cell_of(record: Record) -> str:
    """As the script writes it."""
    if record.gradient is None:
        return record.errors[0].type.rpartition(".")[2]
    if record.gradient.verdict == "wrong" or record.gradient.scale is None:
        return "wrong"
    return f"x{record.gradient.scale:.4g}"


@pytest.mark.slow
@pytest.mark.environment
@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
@pytest.mark.parametrize("sp", [2, 4])
def test_one_step_of_sgd_moves_the_weights_by_the_gradient_that_spbench_saw(
    environment: str, sp: int, run_inside: Callable[..., Any], run_trial: RunTrial
) -> None:
    found = run_inside(environment, f"../standalone/{SCRIPT.name}", str(sp))
    cells = found["cells"]
    assert len(cells) == (16 if sp == 4 else 12)
    for place, cell in cells.items():
        loss, zero = place.split()
        trial = configure(environment, loss=loss, zero=int(zero), sp=sp, gradient_check="exact")
        assert cell_of(run_trial(trial)) == cell, place
