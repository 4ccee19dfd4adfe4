"""What counts as rounding between a gradient and its reference, and words for their factor.

Both tolerances are multiples of what the dtype costs one process in that very trial (its noise
floor, |g - r| / |r|), measured over real trials: see `results/README.md`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Optional

DIRECTION_MARGIN = 3.0
"""Multiples of the noise floor in which a direction counts as right: another order of summation
over ranks, layers and versions costs a small multiple of what one process costs."""
DIRECTION_FLOOR = 1e-5
"""Residual that counts as rounding whatever the noise floor."""
SCALE_MARGIN = 0.5
"""Multiples of the noise floor by which the scale of the whole gradient may be off; noise is nearly
orthogonal to it and moves the scale far less than the direction."""
PARAMETER_SCALE_MARGIN = 1.0
"""The same for one parameter beside the whole: a norm has few elements, and so no such luck."""
SCALE_FLOOR = 1e-5
"""Deviation of the scale from 1 that counts as rounding whatever the noise floor."""
_DIGITS = (4, 6, 8)


def scale_label(scale: Optional[float], tolerance: float = SCALE_FLOOR) -> str:
    """`×2`, `×1/2`, or the number where no small whole ratio is within `tolerance` of it.

    The number has so many digits that it does not read as such a ratio.
    """
    if scale is None:
        return "?"
    if _ratio(scale, tolerance) is not None:
        return f"×{_ratio(scale, tolerance)}"
    texts = [f"{scale:.{digits}g}" for digits in _DIGITS]
    return "×" + next((text for text in texts if _ratio(float(text), 0.0) is None), texts[-1])


def _ratio(scale: float, tolerance: float) -> Optional[Fraction]:
    """n or 1/n, n up to 64, within `tolerance` of `scale`; None where there is none."""
    for n in range(1, 65):
        for value in (Fraction(n), Fraction(1, n)):
            if abs(scale / float(value) - 1.0) <= tolerance:
                return value
    return None
