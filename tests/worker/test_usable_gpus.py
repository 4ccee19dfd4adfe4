"""A rank that finds no GPU says so; the GPUs here are pretended."""

from __future__ import annotations

from typing import Any, Callable

import pytest


@pytest.mark.environment
@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
def test_no_gpu_is_said_and_not_divided_by(
    environment: str, run_inside: Callable[..., Any]
) -> None:
    found = run_inside(environment, "usable_gpus.py")
    here, none, three = found["said"]
    assert three == "takes GPU 1"  # rank 4 of 3 GPUs
    assert none.startswith(f"torch {found['torch']} can use no GPU here (it counts none); install")
    if here.startswith("takes"):
        pytest.skip("this machine has a GPU that torch can use")
    assert here.startswith(f"torch {found['torch']} can use no GPU here (")
    assert "NVIDIA" in here or "not compiled with CUDA" in here
