"""Models are built where they stay; nothing of what they compute changes by that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import configure

pytestmark = pytest.mark.environment


@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
def test_a_model_built_in_its_own_dtype_is_the_same_bit_for_bit(
    run_inside: Callable[..., Any], environment: str
) -> None:
    """DeepSpeed casts a module to bfloat16 before it makes the float32 masters, at every stage."""
    one = configure(world=1, sp=1, attention="local", seq_len=32, gradient_check="off")
    found = run_inside(environment, "building.py", one.model_dump_json())
    assert found["parameters"] == 2 * 9 + 3
    assert found["compared"] == 2 * 21 + 1  # masters, gradients and the loss
    assert found["differ"] == {
        f"zero {zero}, {dtype}": [] for zero in range(4) for dtype in ("float32", "bfloat16")
    }
    assert found["built"] == ["meta torch.bfloat16"]
    assert found["beats"] == 21
