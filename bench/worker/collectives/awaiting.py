"""The three ways to await the result of a functional collective, which may differ in autograd.

What such a function returns is a wrapper that waits when it is first used. A version's autograd
may be that of the wrapper and not of the tensor in it, or the other way round.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from torch import Tensor


def awaited(result: Any, how: str) -> List[Tensor]:
    """What a functional collective returned, one tensor or several, awaited as `how` says."""
    results = result if isinstance(result, (list, tuple)) else [result]
    return [_WAYS[how](one) for one in results]


def _direct(y: Any) -> Tensor:
    used: Tensor = y + 0  # the next operation of a model; hands the upstream gradient on as it is
    return used


def _wait_tensor(y: Any) -> Tensor:
    import torch.distributed._functional_collectives as functional

    waited: Tensor = functional.wait_tensor(y)
    return waited


def _method(y: Any) -> Tensor:
    waited: Tensor = y.wait() if hasattr(y, "wait") else y  # along other dimensions it has waited
    return waited


_WAYS: Dict[str, Callable[[Any], Tensor]] = {
    "direct": _direct,
    "wait_tensor": _wait_tensor,
    "method": _method,
}
AWAITED = tuple(_WAYS)
"""Not at all before the next operation uses y; by `wait_tensor(y)`; by `y.wait()`."""
