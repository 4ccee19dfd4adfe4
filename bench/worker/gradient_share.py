"""The part of a parameter's gradient that lies on this rank, without gathering the rest.

DeepSpeed says so in public for ZeRO 3 alone (`safe_get_local_grad`). For ZeRO 1 and 2 this reads
what `safe_get_full_grad` itself reads before it gathers: `_hp_mapping`, the same from 0.9 to 0.19.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch.distributed as dist
from deepspeed.utils import safe_get_local_grad
from torch import Tensor, nn


class Share(NamedTuple):
    """Some consecutive elements of a parameter's gradient."""

    start: int
    """Index of the first within the whole parameter."""
    values: Tensor
    """[count], on the device where they lie."""


def size_of(parameter: nn.Parameter) -> int:
    """Elements of the whole parameter; ZeRO 3 leaves an empty tensor in its place."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def held(parameter: nn.Parameter) -> Optional[Share]:
    """What this rank holds between backward and step: all of it, a part, or None.

    None also where this DeepSpeed keeps it in a way that is not known here. Gradients for 16 bit
    are still multiplied by the loss scale.
    """
    accumulated = getattr(parameter, "_hp_grad", None)
    if accumulated is not None:
        # of BF16_Optimizer: reduced and whole, while `.grad` is the rank's own
        return Share(0, accumulated.detach().flatten())
    if parameter.grad is not None:
        return Share(0, parameter.grad.detach().flatten())
    try:
        if hasattr(parameter, "ds_id"):
            return _of_zero_3(parameter)
        if getattr(parameter, "_hp_mapping", None) is not None:
            return _of_zero_1_or_2(parameter)
    except (AttributeError, ValueError):  # another layout, or no gradient for this parameter
        return None
    return None


def _of_zero_3(parameter: nn.Parameter) -> Optional[Share]:
    """Ranks hold equal parts in order; the last ones may be padding in part or altogether."""
    gradient = safe_get_local_grad(parameter)
    if gradient is None:
        return None
    start = dist.get_rank(group=parameter._z3_optimizer.dp_process_group) * gradient.numel()
    inside = min(gradient.numel(), size_of(parameter) - start)
    return Share(start, gradient.detach().flatten()[:inside]) if inside > 0 else None


def _of_zero_1_or_2(parameter: nn.Parameter) -> Optional[Share]:
    mapping, where = parameter._hp_mapping, parameter._hp_mapping.lp_fragment_address
    fragment = mapping.get_lp_grad_fragment(parameter._index_in_param_group).detach().flatten()
    if fragment.numel() != where.numel:
        return None
    return Share(where.start, fragment)
