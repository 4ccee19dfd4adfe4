"""Gradient error against the exact reference, and what it says.

With the gradient g that the optimizer would consume and the reference r, both in float64:

    relative_error = |g - r| / |r|        cosine = <g, r> / (|g| |r|)
    scale = <g, r> / <r, r>               residual = |g - scale r| / (|scale| |r|)

`scale` is the least-squares factor; what it leaves over is the residual, which tells a wrong
direction from a wrong scale. Parameters are judged one by one as well as all together, so
that a small one cannot hide behind a large one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Dict, List, Literal, Mapping, Optional

import numpy as np

from bench.record import GradientError

DIRECTION_MARGIN = 10.0
"""Multiples of the dtype's own noise that count as rounding: another order of summation over
ranks, layers and versions costs a small multiple of what one process costs."""
DIRECTION_FLOOR = 1e-5
SCALE_FLOOR = 1e-3
"""Deviation of the scale from 1 that counts as rounding, at least; noise is nearly orthogonal
to the gradient and moves the scale far less than the direction."""


@dataclass(frozen=True)
class Comparison:
    """The four figures for one pair of vectors; None where a zero norm leaves one undefined."""

    scale: Optional[float]
    relative_error: Optional[float]
    residual: Optional[float]
    cosine: Optional[float]


@dataclass(frozen=True)
class Noise:
    """`relative_error` of one process in the trial's dtype, overall and per parameter."""

    overall: float
    parameters: Mapping[str, float]

    def direction_tolerance(self, name: Optional[str] = None) -> float:
        """Residual that counts as rounding, for one parameter or overall."""
        noise = self.overall if name is None else max(self.overall, self.parameters[name])
        return max(DIRECTION_FLOOR, DIRECTION_MARGIN * noise)

    def scale_tolerance(self, name: Optional[str] = None) -> float:
        """Deviation of the scale from its neighbour that counts as rounding."""
        noise = self.overall if name is None else max(self.overall, self.parameters[name])
        return max(SCALE_FLOOR, noise if name is not None else noise / 2)


def compare(gradient: np.ndarray, reference: np.ndarray) -> Comparison:
    """The four figures of one gradient; non-finite elements make all of them None."""
    g, r = np.asarray(gradient, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
    if not np.isfinite(g).all():
        return Comparison(None, None, None, None)
    gg, rr, gr = float(g @ g), float(r @ r), float(g @ r)
    if rr == 0.0 and gg == 0.0:
        return Comparison(None, 0.0, None, None)
    if rr == 0.0:
        return Comparison(None, None, None, None)
    scale = gr / rr
    relative_error = float(np.linalg.norm(g - r)) / math.sqrt(rr)
    if gg == 0.0 or scale == 0.0:
        return Comparison(scale, relative_error, None, None)
    residual = float(np.linalg.norm(g - scale * r)) / (abs(scale) * math.sqrt(rr))
    return Comparison(scale, relative_error, residual, gr / math.sqrt(gg * rr))


def scale_label(scale: Optional[float], tolerance: float = SCALE_FLOOR) -> str:
    """`×2`, `×1/2`, or the number where no small whole ratio is within `tolerance` of it."""
    if scale is None:
        return "?"
    for n in range(1, 65):
        for value in (Fraction(n), Fraction(1, n)):
            if abs(scale / float(value) - 1.0) <= tolerance:
                return f"×{value}"
    return f"×{scale:.4g}"


def judge(
    gradient: Mapping[str, Optional[np.ndarray]],
    reference: Mapping[str, np.ndarray],
    noise: Noise,
    *,
    reference_loss: float,
    rank: int = 0,
) -> GradientError:
    """Compare a whole gradient, by parameter name, with the reference; arrays of equal shapes.

    `match` needs every parameter to be right in direction and scale; `scaled` needs one scale,
    other than 1, common to all of them; `none` says that there is no gradient at all.
    """
    missing = [name for name in reference if gradient.get(name) is None]
    present = {n: g for n in reference if (g := gradient.get(n)) is not None}
    nonfinite = [n for n, g in present.items() if not np.isfinite(g).all()]
    zero = [n for n, g in present.items() if not g.any() and reference[n].any()]
    filled = [present.get(n, np.zeros_like(r)).ravel() for n, r in reference.items()]
    whole = compare(np.concatenate(filled), np.concatenate([r.ravel() for r in reference.values()]))
    single = {name: compare(g, reference[name]) for name, g in present.items()}
    if len(missing) == len(reference) or len(missing) + len(zero) == len(reference):
        verdict = "none"
    elif missing or nonfinite or zero:
        verdict = "wrong"
    else:
        verdict = _verdict(whole, single, reference, noise)
    worst = _worst(single, nonfinite)
    return GradientError(
        verdict=verdict,
        scale=whole.scale,
        scale_label=scale_label(whole.scale, noise.scale_tolerance()),
        relative_error=whole.relative_error,
        residual=whole.residual,
        cosine=whole.cosine,
        worst_parameter=worst,
        worst_relative_error=single[worst].relative_error if worst else None,
        noise_floor=noise.overall,
        tolerance=noise.direction_tolerance(),
        parameters=len(reference),
        missing=missing,
        zero=zero,
        nonfinite=nonfinite,
        rank=rank,
        ranks_agree=True,
        reference_loss=reference_loss,
        loss=None,
    )


def _verdict(
    whole: Comparison,
    single: Mapping[str, Comparison],
    reference: Mapping[str, np.ndarray],
    noise: Noise,
) -> Literal["match", "scaled", "wrong"]:
    """`match`, `scaled` or `wrong` for a gradient that is complete and finite."""
    if not _right_direction(whole, noise.direction_tolerance()):
        return "wrong"
    assert whole.scale is not None
    for name, one in single.items():
        if not reference[name].any():
            if one.relative_error != 0.0:
                return "wrong"
            continue
        if not _right_direction(one, noise.direction_tolerance(name)):
            return "wrong"
        assert one.scale is not None
        if abs(one.scale / whole.scale - 1.0) > noise.scale_tolerance(name):
            return "wrong"
    return "match" if abs(whole.scale - 1.0) <= noise.scale_tolerance() else "scaled"


def _right_direction(comparison: Comparison, tolerance: float) -> bool:
    c = comparison
    return (
        c.residual is not None and c.residual <= tolerance and c.scale is not None and c.scale > 0
    )


def _worst(single: Mapping[str, Comparison], nonfinite: List[str]) -> Optional[str]:
    """The parameter furthest from the reference; a non-finite one is further than any other."""
    if nonfinite:
        return nonfinite[0]
    errors: Dict[str, float] = {n: c.relative_error or 0.0 for n, c in single.items()}
    return max(errors, key=lambda name: errors[name]) if errors else None
