"""What a comparison of two sides found: plain values, made by `analysis.compare.compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.gradients import Gradients
from analysis.pooling import Counted
from analysis.sketches import SketchComparison
from analysis.statistics import Figure, Ratio

Selector = Mapping[str, str]
"""Values of some axes, as text: which configurations are a side of a comparison."""

NO_NUMBER = "no number"
"""Verdict where a side has no time: its statuses say why."""
NOT_PAIRED = "not paired"
"""Verdict where more differs than what is compared: the point's `apart` says what."""
NOT_VALID = "times not valid"
"""Verdict where ranks shared a GPU."""


@dataclass(frozen=True)
class Pair:
    """Two sides worth comparing."""

    baseline: Selector
    candidate: Selector


@dataclass(frozen=True)
class Side:
    """One side at one point: what the rounds of one configuration left."""

    config_hash: str | None
    """None: the folder has no such configuration."""
    statuses: Mapping[str, int]
    """Trials by status, the most frequent first."""
    failure: str
    """What failed, in a few words; empty where nothing did."""
    tokens_per_s: Figure | None
    """Median over rounds [tokens/s]; None where no round has a time."""
    step_s: Figure | None
    """Median over rounds [s]."""
    peak_memory_bytes: float | None
    """Maximum over rounds and ranks [bytes]."""
    gradient_verdict: str
    """`match`, `scaled`, `wrong`, `none`; several where rounds differ; empty: not compared."""
    gradient_scale: float | None
    """Median over rounds of the factor between gradient and reference."""
    gradient_scale_label: str
    """`×1`, `×2`, `×1/2` or the number; empty: not compared."""
    gradient_mode: str
    """What it was compared with: `exact`, `proxy`, …; empty: not compared, or not said."""
    gradient_reason: str
    """Why it was not compared; empty where it was, or nobody asked."""
    noisy: int
    """Trials that ran while the machine was not quiet."""
    emulated: bool
    timings_valid: bool
    gradient_other: str = ""
    """`token_mean: 2.9 % off`: beside the other reference; empty where it says the same."""
    gradients: Gradients = field(default_factory=Gradients)
    """How many trials have a right gradient, a wrong one, and one that was not compared."""

    @property
    def has_number(self) -> bool:
        """Whether some round has a time."""
        return self.tokens_per_s is not None


@dataclass(frozen=True)
class Effect:
    """One factor of a decomposition: a single axis changes, the other is held."""

    axis: str
    """`environment` or `loss`, say."""
    before: str
    after: str
    held: Mapping[str, str]
    """The other axis of the two, at its value."""
    ratio: Ratio


@dataclass(frozen=True)
class Decomposition:
    """total = first effect × second effect, over the rounds that all configurations share."""

    total: Ratio
    first: Effect
    second: Effect
    counted: Counted
    """The points and rounds that it is made of: of one point, that point's."""


@dataclass(frozen=True)
class Point:
    """One row of a comparison: both sides at the same values of all other axes."""

    axes: Mapping[str, Any]
    """The axes that the sides share here and that vary between the points (`seq_len`, `sp`, …);
    `variant`, in words, where a configuration has several results."""
    baseline: Side
    candidate: Side
    ratio: Ratio
    """Candidate's tokens/s over baseline's, paired by round: above 1, the candidate is faster."""
    verdict: str
    """`faster`, `slower`, `no difference seen`, `too few rounds`, or `NO_NUMBER`,
    `NOT_PAIRED`, `NOT_VALID`."""
    phases_s: Mapping[str, float]
    """Candidate's time minus baseline's, by phase and for the `step`: median over the common
    rounds [s]; empty where there are none."""
    memory_ratio: float | None
    """Candidate's peak over baseline's."""
    decomposition: Decomposition | None
    """None unless exactly two axes differ between the sides, the configurations between
    them have times, and their rounds are enough to tell an effect."""
    sketch: SketchComparison | None = None
    """Candidate's gradient beside baseline's; None unless both left a sketch."""
    paired_tokens_per_s: tuple[float, float] | None = None
    """Baseline's and candidate's geometric mean over the rounds that both have [tokens/s]: the
    ratio is the second over the first. None without a common round."""
    apart: str = ""
    """Why the two are no pair (other code, versions, machines); empty: they are."""


@dataclass(frozen=True)
class Comparison:
    """A candidate against a baseline, point by point."""

    baseline: Selector
    candidate: Selector
    smallest: float
    """Smallest relative difference that matters (0.02: 2 %)."""
    axes: tuple[str, ...]
    """The keys of every point's `axes`, in the order of `analysis.columns.AXES`."""
    points: tuple[Point, ...]
    """Sorted by their axes; a point that only one side has is among them."""
    overall: Ratio
    """Geometric mean over the points that have a ratio: `analysis.pooling.pooled`."""
    counted: Counted
    """The points and rounds that `overall` is made of."""
    decomposition: Decomposition | None
    """The same for the decomposition, over the points that have one."""
    left_out: int = 0
    """Points whose pairs are of other code, versions or machines than those of `overall`."""
    cautions: tuple[str, ...] = ()
    """What must be said beside all numbers."""
    skipped: tuple[str, ...] = ()
    """Lines of the records that could not be read, by file and number."""
