"""Two gradients beside each other, by their sketches alone (`bench.worker.checking.sketch`).

A sketch S is linear, and |S x|² estimates |x|² without bias; with B buckets its variance is at
most 2 |x|⁴ / B (Alon, Matias, Szegedy, STOC 1996; Thorup, Zhang, SODA 2004). With candidate g and
baseline r:

    scale = <S g, S r> / |S r|²            residual = |S (g - scale r)| / (|scale| |r|)

The error of the residual is relative to the residual itself (some 1 % with 4,096 buckets, less
over several parameters), since it is the difference that is sketched: a small one is seen as well
as a large one. What two sketches cannot tell is which of the gradients is right, or where in a
parameter they differ. Errors here are two standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.scales import DIRECTION_FLOOR, scale_label

MATCH, SCALED, DIFFERS, NONE, UNKNOWN = "match", "scaled", "differs", "none", "not comparable"

ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-9}
"""Unit roundoff: half the distance from 1 to the next number."""
NOISE_ROUNDOFFS = 8.0
"""Relative error of a gradient that its dtype alone costs, in roundoffs: there is no reference to
measure it by."""
DIRECTION_MARGIN = 10.0
"""Multiples of that estimate that count as rounding: wider than where noise was measured."""
SCALE_FLOOR = 1e-3
"""Deviation of the scale that counts as rounding, at least, for the same reason."""


@dataclass(frozen=True)
class Sketch:
    """The content of a file; the lists follow `names`."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    """Elements of each parameter."""
    sums: tuple[np.ndarray, ...]
    """[min(size, buckets)] of each parameter, float64."""
    squares: tuple[float, ...]
    """Exact squared norms."""
    spread: float
    """Relative distance of the furthest rank from the mean, where ranks hold whole gradients."""
    missing: tuple[bool, ...]
    version: int
    buckets: int
    reference_key: str
    """Identity of weights and data."""
    precision: str
    """Key of `ROUNDOFF`."""


@dataclass(frozen=True)
class Estimate:
    """One comparison of sums; None where it has no meaning."""

    scale: float | None
    scale_error: float | None
    residual: float | None
    residual_error: float | None
    relative_error: float | None
    """|g - r| / |r|."""


@dataclass(frozen=True)
class SketchComparison:
    """What the sketches of two gradients say about candidate and baseline."""

    verdict: str
    """`match`, `scaled` (one factor), `differs`, `none` (a side has no gradient), or `not
    comparable`."""
    reason: str
    """Why they differ or cannot be compared; else empty."""
    scale: float | None = None
    """Factor from the baseline's gradient to the candidate's."""
    scale_error: float | None = None
    scale_label: str = "?"
    residual: float | None = None
    """What is left when the scale is taken out, relative to the scaled baseline."""
    residual_error: float | None = None
    relative_error: float | None = None
    tolerance: float | None = None
    """Residual up to which the direction counts as the same."""
    worst_parameter: str | None = None
    """The one with the largest residual of its own, or that cannot be compared."""
    worst_residual: float | None = None


def compare_sketches(candidate: Sketch, baseline: Sketch) -> SketchComparison:
    """What the sketches say; `not comparable` with a reason where they are of different things."""
    reason = _incomparable(candidate, baseline)
    if reason:
        return SketchComparison(UNKNOWN, reason)
    unequal = _unequal(candidate, baseline)
    if unequal is not None:
        return unequal
    tolerance, single = tolerance_of(candidate, baseline), by_parameter(candidate, baseline)
    whole = _estimate(candidate, baseline, range(len(baseline.names)))
    reason = _objection(whole, single, tolerance)
    slack = _scale_tolerance(tolerance) + (whole.scale_error or 0.0)
    matches = whole.scale is not None and abs(whole.scale - 1.0) <= slack
    worst = max(single, key=lambda name: single[name].residual or 0.0)
    return SketchComparison(
        verdict=DIFFERS if reason else MATCH if matches else SCALED,
        reason=reason,
        scale=whole.scale,
        scale_error=whole.scale_error,
        scale_label=scale_label(whole.scale, slack),
        residual=whole.residual,
        residual_error=whole.residual_error,
        relative_error=whole.relative_error,
        tolerance=tolerance,
        worst_parameter=worst,
        worst_residual=single[worst].residual,
    )


def by_parameter(candidate: Sketch, baseline: Sketch) -> dict[str, Estimate]:
    """Each parameter on its own; the two must be of one model, complete and finite."""
    return {
        name: _estimate(candidate, baseline, [index]) for index, name in enumerate(baseline.names)
    }


def tolerance_of(candidate: Sketch, baseline: Sketch) -> float:
    """Residual that counts as rounding, by the coarser precision of the two."""
    noise = NOISE_ROUNDOFFS * max(ROUNDOFF[one.precision] for one in (candidate, baseline))
    return max(DIRECTION_FLOOR, DIRECTION_MARGIN * noise)


def _scale_tolerance(tolerance: float) -> float:
    return max(SCALE_FLOOR, tolerance / DIRECTION_MARGIN / 2)


def _estimate(candidate: Sketch, baseline: Sketch, chosen: Iterable[int]) -> Estimate:
    """The parameters with indices `chosen`, together."""
    chosen = list(chosen)
    pairs = [(candidate.sums[index], baseline.sums[index]) for index in chosen]
    # a parameter that has a sum for each element is not estimated but known
    variances = [
        1.0 / len(r) if baseline.sizes[index] > len(r) else 0.0
        for index, (_, r) in zip(chosen, pairs, strict=True)
    ]
    exact = math.fsum(baseline.squares[index] for index in chosen)
    products = [(float(g @ r), float(r @ r)) for g, r in pairs]
    rr = math.fsum(square for _, square in products)
    if not rr:
        same = not any(g.any() for g, _ in pairs)
        return Estimate(None, None, None, None, 0.0 if same else None)
    scale = math.fsum(product for product, _ in products) / rr
    lefts = [g - scale * r for g, r in pairs]
    squares = [float(left @ left) for left in lefts]
    crosses = [float(left @ r) for left, (_, r) in zip(lefts, pairs, strict=True)]
    terms = list(zip(variances, squares, crosses, products, strict=True))
    scale_variance = math.fsum(v * (e * r + x * x) for v, e, x, (_, r) in terms) / rr**2
    left2 = math.fsum(squares)
    left2_error = math.sqrt(math.fsum(2 * v * e * e for v, e, _, _ in terms))
    error2 = math.fsum(float((g - r) @ (g - r)) for g, r in pairs)
    residual = math.sqrt(left2 / exact) / abs(scale) if scale else None
    # relative: half of that of what is under the root, and that of the scale, independent of it
    share = math.hypot(
        left2_error / left2 / 2 if left2 else 0.0,
        math.sqrt(scale_variance) / scale if scale else 0.0,
    )
    return Estimate(
        scale=scale,
        scale_error=2 * math.sqrt(scale_variance),
        residual=residual,
        residual_error=None if residual is None else 2 * share * residual,
        relative_error=math.sqrt(error2 / exact),
    )


def _incomparable(candidate: Sketch, baseline: Sketch) -> str:
    """Why nothing can be said; empty where something can."""
    versions = {(one.version, one.buckets) for one in (candidate, baseline)}
    if len(versions) > 1:
        return (
            f"the sketches are of different kinds (hash version {candidate.version} with "
            f"{candidate.buckets} buckets, and {baseline.version} with {baseline.buckets}); run "
            "both with one version of spbench"
        )
    if (candidate.names, candidate.sizes) != (baseline.names, baseline.sizes):
        return "the sketches are of different models"
    if candidate.reference_key != baseline.reference_key:
        return "the sketches are of different initial weights or data, so gradients must differ"
    return ""


def _unequal(candidate: Sketch, baseline: Sketch) -> SketchComparison | None:
    """The comparison where a gradient is absent, incomplete, not finite or not one; else None."""
    sides = {"candidate": candidate, "baseline": baseline}
    for name, side in sides.items():
        if not any(side.squares) or all(side.missing):
            return SketchComparison(NONE, f"the {name} has no gradient at all")
    for name, side in sides.items():
        for index, parameter in enumerate(side.names):
            if not math.isfinite(side.squares[index]):
                reason = f"{parameter} is not finite in the {name}"
                return SketchComparison(DIFFERS, reason, worst_parameter=parameter)
    for index, parameter in enumerate(baseline.names):
        gone = [n for n, side in sides.items() if side.missing[index] or not side.squares[index]]
        if len(gone) == 1:
            reason = f"{parameter} has no gradient in the {gone[0]}"
            return SketchComparison(DIFFERS, reason, worst_parameter=parameter)
    tolerance = tolerance_of(candidate, baseline)
    for name, side in sides.items():
        if not side.spread <= tolerance:
            return SketchComparison(
                DIFFERS, f"the ranks of the {name} hold different gradients", tolerance=tolerance
            )
    return None


def _objection(whole: Estimate, single: Mapping[str, Estimate], tolerance: float) -> str:
    """Why these are not one gradient times a factor; empty where they are."""
    known = {name: one for name, one in single.items() if one.scale is not None}
    turned = [name for name, one in known.items() if not _same_direction(one, tolerance)]
    if turned or whole.scale is None:
        return f"another direction{_in(turned, len(known))}"
    others = []
    for name, one in known.items():
        assert one.scale is not None and one.scale_error is not None
        slack = _scale_tolerance(tolerance) + one.scale_error / abs(one.scale)
        if abs(one.scale / whole.scale - 1.0) > slack:
            others.append(name)
    if others:
        return f"another factor{_in(others, len(known))}"
    return "" if _same_direction(whole, tolerance) else "another direction"


def _in(names: list[str], known: int) -> str:
    """` in a and 3 more`; empty where it is all of the parameters."""
    if len(names) == known:
        return ""
    return f" in {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _same_direction(one: Estimate, tolerance: float) -> bool:
    """Whether the residual is rounding, allowing for its own error."""
    if one.scale is None or one.residual is None or one.residual_error is None:
        return False
    return one.scale > 0 and one.residual <= tolerance + one.residual_error
