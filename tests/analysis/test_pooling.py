"""Several points as one ratio, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtrit

from analysis.pooling import Counted, counted, pooled
from analysis.statistics import TOO_FEW, ratio_of


def test_points_with_the_same_rounds_give_the_means_round_by_round() -> None:
    points = [{0: 0.1, 1: 0.2, 2: 0.6}, {0: 0.3, 1: 0.2, 2: 0.1}]
    found, by_hand = pooled(points, 0.02), ratio_of([0.2, 0.2, 0.35])
    assert found.interval is not None and by_hand.interval is not None
    assert (found.value, found.rounds) == (pytest.approx(math.exp(0.25)), 3)
    assert found.interval.low == pytest.approx(by_hand.interval.low)
    assert found.interval.high == pytest.approx(by_hand.interval.high)


def test_points_with_other_rounds_count_with_all_of_them() -> None:
    # Means 0.2 and 0.5, so 0.35. Weights 1/8 and 1/6 of deviations -0.1 -0.1 0.1 0.1 and
    # -0.1 0 0.1: u = -0.7/24, -0.3/24, 0.7/24, 0.3/24; the squares sum to 1.16 / 576 = 0.0020139.
    # Variances 0.04/3 and 0.01, together 0.06/5, which gives worths a = 0.012/64, b = 0.012/36.
    # The trace of the covariance is 3a + 2b, c = (4a + 3b) / (3a + 2b) = 1.423729, the degrees of
    # freedom (3a + 2b)^2 / (3a^2 + 2b^2 + 4ab) = 2.61533 (what both share has a trace of 2). With
    # their own variances, a = 0.04/192 and b = 0.01/36, it would be 1.411765 and 2.70094.
    points = [dict(enumerate([0.1, 0.1, 0.3, 0.3])), dict(enumerate([0.4, 0.5, 0.6]))]
    found = pooled(points, 0.02)
    assert found.interval is not None
    assert (found.value, found.rounds) == (pytest.approx(math.exp(0.35)), 4)
    reach = float(stdtrit(2.61533, 0.975)) * math.sqrt(1.423729 * 0.0020139)
    assert math.log(found.interval.high) == pytest.approx(0.35 + reach, rel=1e-4)
    assert math.log(found.interval.low) == pytest.approx(0.35 - reach, rel=1e-4)
    assert counted(points) == Counted(2, 3, 4, 0)


def test_one_short_point_does_not_cost_the_others_their_rounds() -> None:
    rng = np.random.default_rng(1)
    long = [dict(enumerate(rng.normal(0, 0.05, 10))) for _ in range(15)]
    short = {r: 0.1 * r for r in range(3)}
    found, before = pooled([*long, short], 0.02), pooled([_first(one, 3) for one in long], 0.02)
    assert found.interval is not None and before.interval is not None
    assert (found.rounds, counted([*long, short])) == (10, Counted(16, 3, 10, 0))
    mean = sum(math.fsum(one.values()) / 10 for one in long) + 0.1
    assert found.value == pytest.approx(math.exp(mean / 16))
    width, width_before = (i.high - i.low for i in (found.interval, before.interval))
    assert width < 0.6 * width_before


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_point_that_cannot_tell_is_left_out_and_counted(rounds: int) -> None:
    long = [dict(enumerate([0.1, 0.2, 0.3])), dict(enumerate([0.2, 0.3, 0.4]))]
    points = [*long, _first(long[0], rounds), {}]
    assert pooled(points, 0.02) == pooled(long, 0.02)
    assert counted(points) == Counted(2, 3, 3, 1)


def test_too_few_rounds_everywhere_have_a_value_but_no_verdict() -> None:
    points = [{0: 0.1, 1: 0.3}, {5: 0.4}]
    found = pooled(points, 0.02)
    assert (found.value, found.interval, found.verdict) == (
        pytest.approx(math.exp(0.3)),
        None,
        TOO_FEW,
    )
    assert (found.rounds, counted(points)) == (2, Counted(2, 1, 2, 0))


def test_nothing_is_nothing() -> None:
    assert (pooled([{}], 0.02).value, counted([])) == (None, Counted(0, 0, 0, 0))


def test_no_scatter_is_no_width() -> None:
    points = [dict.fromkeys(range(4), 0.1), dict.fromkeys(range(3), 0.3)]
    found = pooled(points, 0.02)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((math.exp(0.2),) * 2)


def _first(logs: dict[int, float], rounds: int) -> dict[int, float]:
    return {r: log for r, log in logs.items() if r < rounds}
