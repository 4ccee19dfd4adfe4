"""The scale of a gradient, seen in how the reference's loss changes along it.

A block of parameters is moved by a displacement Δ, a step along the gradient g that was found,
forth and back. To first order the loss changes by <r, Δ>, where r is the true gradient, so

    ratio(Δ) = (L(w + Δ) - L(w - Δ)) / <g, 2 Δ>  =  <r, Δ> / <g, Δ>  =  1 / scale   for g = scale r

whatever direction rounding gave Δ, as long as it is the displacement that was really made. Central
differences leave an error in |Δ|². So a block is moved by three steps, h, √2 h and 2 h, through
whose ratios a straight line in h² is laid: where it meets 0 is the ratio, and by how much the three
points miss it is the noise of the loss. Where g is not along r the ratio of a block is
<g, r> / |g|², below 1 / scale by cos², so that blocks disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Literal, NamedTuple, Optional, Sequence, Tuple

from bench.record import BlockScale, GradientError
from bench.worker.metrics.gradient import scale_label

MARGINS = {"float32": 0.002, "tf32": 0.01, "bfloat16": 0.03}
"""By precision of the products: a deviation of the scale from 1, or of a block's from the whole's,
that is never an objection. The gradient's own rounding is in it, which the errors do not know."""
ERRORS = 4.0
"""Estimated errors that a deviation must exceed to be an objection."""
BLIND = 0.2
"""Relative error from which on ×1 and ×sp could be mistaken for one another: nothing is said."""


FACTORS = (1.0, math.sqrt(2.0), 2.0)
"""The three steps, as multiples of the first."""
STRAIGHT = 0.05
"""By how much the ratios of the shortest and the longest step may differ, before shorter ones
are tried."""

# Least squares with weights 1, 2, 4 (noise falls as the step grows) through ratios at h² = 1, 2, 4
_INTERCEPT = (52 / 70, 62 / 70, -44 / 70)
_INTERCEPT_VARIANCE = 73 / 70
# the middle ratio less the line through the others: 1/2 + 4/9 + 1/36 of the shortest's variance
_MISS_VARIANCE = 35 / 36
# an error d h⁴ moves the intercept by (52 + 4·62 - 16·44)/70 d
_FOURTH_ORDER = 404 / 70


class Three(NamedTuple):
    """A number for each of the three steps."""

    short: float
    middle: float
    long: float


@dataclass(frozen=True)
class Probe:
    """One block of parameters, moved by the three steps."""

    name: str
    gg: float
    """<g, g> of the block."""
    predicted: Three
    """<g, displacement from - to +>."""
    observed: Three
    """Loss at + less loss at -."""

    @property
    def ratios(self) -> Three:
        """Observed over predicted."""
        return Three(*(seen / due for seen, due in zip(self.observed, self.predicted)))

    @property
    def ratio(self) -> float:
        """1 / scale: the ratio at a step of 0."""
        return sum(weight * ratio for weight, ratio in zip(_INTERCEPT, self.ratios))

    @property
    def straight(self) -> bool:
        """Whether the steps are short enough for the loss to be nearly a straight line."""
        return abs(self.ratios.long - self.ratios.short) <= STRAIGHT * abs(self.ratio)

    @property
    def miss(self) -> float:
        """By how much the middle step misses the line through the others [loss]."""
        short, middle, long = self.ratios
        return (middle - (2.0 * short + long) / 3.0) * self.predicted.short

    def error(self, noise: float) -> float:
        """Of `ratio`, when the loss has `noise`: its share, and that of the next order in h."""
        slope = (self.ratios.long - self.ratios.short) / 3.0
        curved = _FOURTH_ORDER * slope**2 / abs(self.ratio) if self.ratio else math.inf
        return math.hypot(math.sqrt(_INTERCEPT_VARIANCE) * noise / self.predicted.short, curved)


def loss_noise(probes: Sequence[Probe]) -> float:
    """Standard deviation of a difference of two losses: how far all blocks' lines are missed."""
    return math.sqrt(math.fsum(one.miss**2 for one in probes) / len(probes) / _MISS_VARIANCE)


@dataclass(frozen=True)
class Incomplete:
    """What a gradient lacks, by parameter."""

    missing: List[str]
    zero: List[str]
    nonfinite: List[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.zero or self.nonfinite)


def overall(probes: Sequence[Probe]) -> Tuple[float, float]:
    """Ratio along the whole gradient and its error: blocks weigh by <g, g>."""
    gg, noise = math.fsum(one.gg for one in probes), loss_noise(probes)
    ratio = math.fsum(one.gg * one.ratio for one in probes) / gg
    error = math.sqrt(math.fsum((one.gg * one.error(noise)) ** 2 for one in probes)) / gg
    return ratio, error


def blindness(probes: Sequence[Probe]) -> Optional[str]:
    """Why the probes cannot tell ×1 from ×sp; None when they can."""
    for one in probes:
        if 0.0 in one.predicted:
            return f"not compared: the model's dtype rounds the step of the {one.name} away"
    if any(map(_against, probes)):
        return None  # a finding
    ratio, error = overall(probes)
    if error <= BLIND * abs(ratio):
        return None
    return (
        f"not compared: the loss changes by {ratio:.3g} ± {error:.2g} of what the gradient "
        "predicts, too uncertain to tell a scale: rounding hides the change"
    )


def judge(
    probes: Sequence[Probe], lacking: Incomplete, margin: float, parameters: int, rank: int
) -> GradientError:
    """`match`, `scaled`, `wrong` or `none`; `scale` is that of the whole gradient.

    `match` needs a scale of 1 and blocks that agree; `wrong` are blocks that disagree, a loss that
    does not fall along the gradient, a gradient that points against rank 0's, along which all
    move, and a gradient that lacks parts (`probes` is empty then).
    """
    if lacking:
        empty = len(lacking.missing) + len(lacking.zero) == parameters
        return _error("none" if empty else "wrong", lacking, parameters, rank)
    (ratio, error), noise = overall(probes), loss_noise(probes)
    if ratio <= 0 or any(map(_against, probes)):
        return _error("wrong", lacking, parameters, rank)
    scale, scale_error = 1.0 / ratio, error / ratio**2
    tolerance = max(margin, ERRORS * scale_error / scale)
    apart = [(abs(_deviation(one, ratio)), one) for one in probes]
    worst = max(apart, key=lambda item: item[0])[1]
    verdict: Literal["match", "scaled", "wrong"]
    if any(far > max(margin, _blur(one.error(noise), error) / ratio) for far, one in apart):
        verdict = "wrong"
    else:
        verdict = "match" if abs(scale - 1.0) <= tolerance else "scaled"
    return _error(
        verdict,
        lacking,
        parameters,
        rank,
        scale=scale,
        scale_error=scale_error,
        tolerance=tolerance,
        worst=worst.name,
        blocks=[_block(one, noise) for one in probes],
    )


def _against(one: Probe) -> bool:
    """Whether the displacement, along rank 0's gradient but for rounding, is against this one.

    No element of it is rounded beyond its start, so that rank 0's own is never against it.
    """
    return min(one.predicted) < 0.0


def _deviation(one: Probe, ratio: float) -> float:
    return one.ratio / ratio - 1.0


def _blur(block_error: float, error: float) -> float:
    return ERRORS * math.hypot(block_error, error)


def _block(one: Probe, noise: float) -> BlockScale:
    inverse = 1.0 / one.ratio if one.ratio else None
    error = None if inverse is None else one.error(noise) * inverse**2
    return BlockScale(name=one.name, scale=inverse, scale_error=error)


def _error(
    verdict: Literal["match", "scaled", "wrong", "none"],
    lacking: Incomplete,
    parameters: int,
    rank: int,
    *,
    scale: Optional[float] = None,
    scale_error: Optional[float] = None,
    tolerance: Optional[float] = None,
    worst: Optional[str] = None,
    blocks: Sequence[BlockScale] = (),
) -> GradientError:
    return GradientError(
        mode="directional",
        verdict=verdict,
        scale=scale,
        scale_error=scale_error,
        scale_label=scale_label(scale, tolerance or 0.0),
        relative_error=None,
        residual=None,
        cosine=None,
        worst_parameter=worst
        or next(iter(lacking.nonfinite + lacking.missing + lacking.zero), None),
        worst_relative_error=None,
        noise_floor=None,
        tolerance=tolerance,
        parameters=parameters,
        missing=lacking.missing,
        zero=lacking.zero,
        nonfinite=lacking.nonfinite,
        rank=rank,
        ranks_agree=True,
        reference_loss=None,
        loss=None,
        blocks=list(blocks),
    )
