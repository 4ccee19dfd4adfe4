"""Gradient error against the exact reference, and what it says.

With the gradient g as the optimizer would consume it unclipped, and the reference r, in float64:

    relative_error = |g - r| / |r|        cosine = <g, r> / (|g| |r|)
    scale = <g, r> / <r, r>               residual = |g - scale r| / (|scale| |r|)

`scale` is the least-squares factor; what it leaves over is the residual, which tells a wrong
direction from a wrong scale. Parameters are judged one by one as well as all together, so
that a small one cannot hide behind a large one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, Literal, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from bench.record import GradientError, OtherReference
from bench.scales import (
    DIRECTION_FLOOR,
    DIRECTION_MARGIN,
    PARAMETER_SCALE_MARGIN,
    SCALE_FLOOR,
    SCALE_MARGIN,
    scale_label,
)
from bench.specs import ReferenceName

__all__ = [
    "DIRECTION_FLOOR",
    "DIRECTION_MARGIN",
    "SCALE_FLOOR",
    "SCALE_MARGIN",
    "Comparison",
    "Noise",
    "Other",
    "combine",
    "compare",
    "judge",
    "scale_label",
]


CHUNK = 1 << 22
"""Elements that are compared at once."""


@dataclass(frozen=True)
class Comparison:
    """One gradient beside its reference, as sums of squares that add up over parameters."""

    gg: float
    """<g, g>"""
    rr: float
    gr: float
    error2: float
    """|g - r|²"""
    residual2: float
    """|g - scale r|², with this comparison's own scale."""
    finite: bool

    @property
    def scale(self) -> Optional[float]:
        """<g, r> / <r, r>; None without a reference or with a non-finite element."""
        return self.gr / self.rr if self.finite and self.rr else None

    @property
    def relative_error(self) -> Optional[float]:
        """|g - r| / |r|; 0 where both are zero, None where the reference alone is."""
        if not self.finite or (not self.rr and self.gg):
            return None
        return math.sqrt(self.error2 / self.rr) if self.rr else 0.0

    @property
    def residual(self) -> Optional[float]:
        """|g - scale r| / (|scale| |r|)."""
        if not self.scale:
            return None
        return math.sqrt(self.residual2 / self.rr) / abs(self.scale)

    @property
    def cosine(self) -> Optional[float]:
        """<g, r> / (|g| |r|)."""
        if not self.scale or not self.gg:
            return None
        return self.gr / math.sqrt(self.gg * self.rr)


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
        """Deviation of the scale that counts as rounding: from 1, or of one parameter from all."""
        if name is None:
            return max(SCALE_FLOOR, SCALE_MARGIN * self.overall)
        noise = max(self.overall, self.parameters[name])
        return max(SCALE_FLOOR, PARAMETER_SCALE_MARGIN * noise)


class Other(NamedTuple):
    """The reference by the other definition (`Configuration.reference`)."""

    reference: ReferenceName
    gradient: Mapping[str, np.ndarray]
    loss: float
    distance: float
    """Of the reference from this one, relative to this one."""


def compare(
    gradient: np.ndarray, reference: np.ndarray, divisor: float = 1.0, chunk: int = CHUNK
) -> Comparison:
    """Compare `gradient / divisor` with an array of its shape, in float64.

    `chunk` elements are float64 at a time, in two passes: the embedding of an 8B model has 4 GB
    in float64, and every rank compares it.
    """
    flat = gradient.reshape(-1), reference.reshape(-1)

    def parts() -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        for start in range(0, flat[0].size, chunk):
            g, r = (one[start : start + chunk].astype(np.float64) for one in flat)
            yield g / divisor if divisor != 1.0 else g, r

    sums = np.zeros(4)
    with np.errstate(invalid="ignore"):  # what is not finite is told below
        for g, r in parts():
            difference = g - r
            sums += (g @ g, r @ r, g @ r, difference @ difference)
    gg, rr, gr, error2 = map(float, sums)
    if not math.isfinite(gg):
        return Comparison(math.nan, rr, math.nan, math.nan, math.nan, finite=False)
    scale = gr / rr if rr else 0.0
    lefts = (g - scale * r for g, r in parts())
    residual2 = float(sum(left @ left for left in lefts)) if rr else error2
    return Comparison(gg, rr, gr, error2, residual2, finite=True)


def combine(parts: Iterable[Comparison]) -> Comparison:
    """The comparison of all parameters together.

    With the common scale s, |g - s r|² of a parameter is |g - s_i r|² + (s_i - s)² |r|² with its
    own scale s_i, since what the least squares leave over is orthogonal to r (Pythagoras).
    """
    parts = list(parts)
    gg, rr, gr = (math.fsum(getattr(p, name) for p in parts) for name in ("gg", "rr", "gr"))
    error2 = math.fsum(p.error2 for p in parts)
    finite = all(p.finite for p in parts)
    common = gr / rr if finite and rr else 0.0
    apart = math.fsum(((p.scale or 0.0) - common) ** 2 * p.rr for p in parts)
    residual2 = math.fsum(p.residual2 for p in parts) + apart
    return Comparison(gg, rr, gr, error2, residual2, finite)


def judge(
    gradient: Iterable[Tuple[str, Optional[np.ndarray]]],
    reference: Mapping[str, np.ndarray],
    noise: Noise,
    *,
    reference_loss: float,
    rank: int = 0,
    divisor: float = 1.0,
    other: Optional[Other] = None,
) -> GradientError:
    """Compare a whole gradient with the reference, one parameter in memory at a time.

    `gradient` gives name and value, too large by `divisor`; None stands for no gradient, and so
    does a name that never comes. `match` needs every parameter to be right in direction and
    scale; `scaled` needs one scale, other than 1, common to all of them; `none` says that there is
    no gradient at all. With `other` it is judged beside that reference, too.
    """
    single: Dict[str, Comparison] = {}
    beside: Dict[str, Comparison] = {}
    for name, value in gradient:
        if value is None:
            continue
        single[name] = compare(value, reference[name], divisor)
        if other is not None:
            beside[name] = compare(value, other.gradient[name], divisor)
    found = _Judged.of(single, reference, noise)
    whole, worst = found.whole, _worst(single, found.nonfinite)
    return GradientError(
        verdict=found.verdict,
        scale=whole.scale,
        scale_label=scale_label(whole.scale, noise.scale_tolerance()),
        relative_error=whole.relative_error,
        residual=whole.residual,
        cosine=whole.cosine,
        worst_parameter=worst,
        worst_relative_error=single[worst].relative_error if worst else None,
        noise_floor=noise.overall,
        tolerance=noise.direction_tolerance(),
        scale_tolerance=noise.scale_tolerance(),
        parameters=len(reference),
        missing=found.missing,
        zero=found.zero,
        nonfinite=found.nonfinite,
        rank=rank,
        ranks_agree=True,
        reference_loss=reference_loss,
        loss=None,
        other=None if other is None else _beside(beside, other, noise),
    )


@dataclass(frozen=True)
class _Judged:
    """What all parameters of a gradient say together."""

    verdict: Literal["match", "scaled", "wrong", "none"]
    whole: Comparison
    missing: List[str]
    zero: List[str]
    nonfinite: List[str]

    @classmethod
    def of(
        cls, single: Mapping[str, Comparison], reference: Mapping[str, np.ndarray], noise: Noise
    ) -> _Judged:
        missing = [name for name in reference if name not in single]
        nonfinite = [name for name, c in single.items() if not c.finite]
        zero = [name for name, c in single.items() if c.finite and not c.gg and c.rr]
        absent = [compare(np.zeros_like(reference[name]), reference[name]) for name in missing]
        whole = combine([*single.values(), *absent])
        verdict: Literal["match", "scaled", "wrong", "none"]
        if len(missing) + len(zero) == len(reference):
            verdict = "none"
        elif missing or nonfinite or zero:
            verdict = "wrong"
        else:
            verdict = _verdict(whole, single, noise)
        return cls(verdict, whole, missing, zero, nonfinite)


def _beside(single: Mapping[str, Comparison], other: Other, noise: Noise) -> OtherReference:
    found = _Judged.of(single, other.gradient, noise)
    whole = found.whole
    return OtherReference(
        reference=other.reference,
        verdict=found.verdict,
        scale=whole.scale,
        scale_label=scale_label(whole.scale, noise.scale_tolerance()),
        relative_error=whole.relative_error,
        residual=whole.residual,
        reference_loss=other.loss,
        distance=other.distance,
    )


def _verdict(
    whole: Comparison,
    single: Mapping[str, Comparison],
    noise: Noise,
) -> Literal["match", "scaled", "wrong"]:
    """`match`, `scaled` or `wrong` for a gradient that is complete and finite."""
    if not _right_direction(whole, noise.direction_tolerance()):
        return "wrong"
    assert whole.scale is not None
    for name, one in single.items():
        if not one.rr:  # the loss does not reach it: any gradient here is wrong
            if one.gg:
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
