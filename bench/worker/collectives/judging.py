"""What a rank got beside what it should have got."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
"""Largest error, relative to the largest value expected, that rounding explains."""


def compared(
    got: Sequence[Optional[torch.Tensor]], expected: Sequence[Optional[np.ndarray]], dtype: str
) -> Optional[Dict[str, Any]]:
    """What is wrong with the tensors `got`; None where nothing is.

    A missing tensor counts as zeros, as autograd takes it. `relative_error` is the largest
    difference over the largest value expected; None where shapes differ or a NaN is among `got`.
    `scale` is the factor between both, where there is one.
    """
    pairs = [(_array(one, e), e) for one, e in zip(got, expected) if e is not None]
    if len(got) != len(expected):
        return {"problem": f"{len(got)} tensors instead of {len(expected)}"}
    for one, e in pairs:
        if one.shape != e.shape:
            return {"problem": f"shape {list(one.shape)} instead of {list(e.shape)}"}
    if not pairs:
        return None
    found = np.concatenate([one.ravel() for one, _ in pairs])
    right = np.concatenate([e.ravel() for _, e in pairs])
    if not np.isfinite(found).all():
        return {"problem": "not finite"}
    largest = float(np.abs(right).max()) or 1.0
    error = float(np.abs(found - right).max()) / largest
    if error <= TOLERANCE[dtype]:
        return None
    return {"relative_error": error, "scale": _scale(found, right, TOLERANCE[dtype])}


def _array(tensor: Optional[torch.Tensor], like: np.ndarray) -> np.ndarray:
    if tensor is None:
        return np.zeros_like(like)
    return tensor.detach().to("cpu", torch.float64).numpy()


def _scale(found: np.ndarray, right: np.ndarray, tolerance: float) -> Optional[float]:
    """c where `found` is c times `right`; None where it is not."""
    square = float(right @ right)
    if not square:
        return None
    scale = float(found @ right) / square
    off = float(np.abs(found - scale * right).max())
    return scale if off <= tolerance * float(np.abs(found).max()) else None


def without_gradient(value: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """The status where autograd knows of no way from the inputs to the outputs, also on a rank
    whose right gradient is 0.
    """
    if value is None:
        return {"status": "no gradient"}
    return {"status": "wrong value and no gradient", "value": value}


def verdict(value: Optional[Dict[str, Any]], gradient: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """The status of a case on a rank, with the numbers behind it."""
    wrong: List[str] = []
    found: Dict[str, Any] = {}
    for name, comparison in (("value", value), ("gradient", gradient)):
        if comparison is not None:
            wrong.append(name)
            found[name] = comparison
    return {"status": f"wrong {' and '.join(wrong)}" if wrong else "ok", **found}
