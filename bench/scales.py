"""What counts as rounding between two gradients, and words for their factor."""

from __future__ import annotations

from fractions import Fraction
from typing import Optional

DIRECTION_MARGIN = 10.0
"""Multiples of the dtype's own noise that count as rounding: another order of summation over
ranks, layers and versions costs a small multiple of what one process costs."""
DIRECTION_FLOOR = 1e-5
SCALE_FLOOR = 1e-3
"""Deviation of the scale from 1 that counts as rounding, at least; noise is nearly orthogonal
to the gradient and moves the scale far less than the direction."""


def scale_label(scale: Optional[float], tolerance: float = SCALE_FLOOR) -> str:
    """`×2`, `×1/2`, or the number where no small whole ratio is within `tolerance` of it."""
    if scale is None:
        return "?"
    for n in range(1, 65):
        for value in (Fraction(n), Fraction(1, n)):
            if abs(scale / float(value) - 1.0) <= tolerance:
                return f"×{value}"
    return f"×{scale:.4g}"
