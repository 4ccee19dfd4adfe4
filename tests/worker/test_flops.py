"""Operations that theory counts, beside those that torch counts while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.theory import (
    causal_share,
    hardware_flops_per_step,
    model_flops_per_step,
    model_flops_per_token,
    recomputed_attention_flops_per_token,
)
from bench.trial import ModelSpec
from tests.conftest import TINY

pytestmark = pytest.mark.environment
TOKENS = 96


def hardware_without_mask(model: ModelSpec) -> float:
    """Theory's FLOPs of a step with all of the scores, as the counted attention computes them."""
    causal = hardware_flops_per_step(model, 1, 1, TOKENS)
    forward_and_backward = model_flops_per_token(model, TOKENS, causal=False)
    attention = TOKENS * (forward_and_backward - model_flops_per_token(model, TOKENS))
    again = TOKENS * recomputed_attention_flops_per_token(model, TOKENS)
    return causal + attention + again * (1 / causal_share(TOKENS) - 1)


@pytest.mark.parametrize("environment", ["torch-2.2", "torch-2.13"])
def test_every_operation_is_counted_once_more_where_it_runs_again(
    run_inside: Callable[..., Any], environment: str
) -> None:
    checkpointed = {"activation_checkpointing": True}
    choices: list[dict[str, Any]] = [{}, checkpointed, {"loss_tiles": 3}]
    choices.append({**checkpointed, "loss_tiles": 4, "layers": 3})
    models = [TINY.model_copy(update=fields) for fields in choices]
    texts = [model.model_dump_json() for model in models]
    counted = run_inside(environment, "flops.py", str(TOKENS), *texts)
    assert counted == [round(hardware_without_mask(model)) for model in models]
    for model, fields in zip(models, choices, strict=True):
        plain = model_flops_per_step(model, 1, 1, TOKENS)
        assert (hardware_flops_per_step(model, 1, 1, TOKENS) > plain) == bool(fields)
