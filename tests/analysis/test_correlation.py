"""The correlation of neighbouring rounds against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.correlation import correlation_of, effective
from analysis.statistics import NO_DIFFERENCE, interval_of_mean, ratio_of

RISING = [0.01 * i for i in range(10)]
"""Deviations -4.5, -3.5, … 4.5 hundredths: squares sum to 82.5, neighbours' products to 57.75."""


def test_a_slope_is_a_correlation() -> None:
    found = correlation_of(dict(enumerate(RISING)))
    assert found is not None
    assert (found.value, found.neighbours) == (pytest.approx(57.75 / 82.5), 9)  # 0.7
    assert found.significant and found.p_value < 0.01


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([*range(5), *range(6, 11)], id="a-round-is-missing"),
        pytest.param([(h, r) for h in ("a", "b") for r in range(5)], id="two-hosts"),
        pytest.param(
            [("b", "x", r) for r in range(5)] + [("c", "x", r) for r in range(5)], id="sets"
        ),
    ],
)
def test_only_rounds_that_follow_one_another_are_neighbours(samples: list[object]) -> None:
    found = correlation_of(dict(zip(samples, RISING, strict=True)))
    assert found is not None
    # Without the product of the middle two, -0.5 * 0.5; 8 products stand for 9.
    assert found.value == pytest.approx((57.75 + 0.25) * 9 / 8 / 82.5)
    assert found.neighbours == 8


def test_the_order_is_that_of_the_rounds() -> None:
    backwards = dict(reversed(list(enumerate(RISING))))
    assert correlation_of(backwards) == correlation_of(dict(enumerate(RISING)))


@pytest.mark.parametrize(
    "logs",
    [
        pytest.param(dict(enumerate(RISING[:9])), id="nine-rounds"),
        pytest.param({2 * i: log for i, log in enumerate(RISING)}, id="no-neighbours"),
        pytest.param(dict.fromkeys(range(10), 0.1), id="no-scatter"),
        pytest.param(
            {r: math.log(1.1 * s / s) for r, s in enumerate(RISING, 1) if s}, id="rounding"
        ),
    ],
)
def test_no_correlation_without_enough(logs: dict[int, float]) -> None:
    assert correlation_of(logs) is None


def test_effective_rounds() -> None:
    assert effective(30, 0.5) == pytest.approx(10)  # (1 - 0.5) / (1 + 0.5) = 1/3
    assert effective(30, -0.5) == 30


def test_a_correlation_widens_the_interval() -> None:
    # sqrt(10 / n') with n' = 10 * 0.3 / 1.7: 2.3805 times as wide, about the mean 0.045.
    ratio, inner = ratio_of(RISING), interval_of_mean(RISING)
    assert ratio.interval is not None and ratio.dependent
    assert ratio.effective == pytest.approx(10 * 0.3 / 1.7)
    assert math.log(ratio.interval.high) - 0.045 == pytest.approx(
        2.3805 * (inner.high - 0.045), 1e-4
    )
    assert 0.045 - math.log(ratio.interval.low) == pytest.approx(2.3805 * (0.045 - inner.low), 1e-4)
    # As if independent: 0.045 - 2.2622 * 0.0303 / sqrt(10) = 0.023, so faster; widened it is not.
    assert inner.low > 0.02 and ratio.verdict == NO_DIFFERENCE


def test_a_negative_correlation_never_narrows() -> None:
    swinging = [0.01, -0.01] * 10
    ratio, inner = ratio_of(swinging), interval_of_mean(swinging)
    assert ratio.correlation is not None and ratio.interval is not None
    assert ratio.correlation.value == pytest.approx(-19 / 20)
    assert (ratio.dependent, ratio.effective) == (False, 20)
    assert math.log(ratio.interval.high) == pytest.approx(inner.high)


def test_dependent_rounds_need_more_of_them() -> None:
    shuffled = [RISING[i] for i in (4, 9, 2, 7, 0, 5, 8, 1, 6, 3)]
    alone, together = ratio_of(shuffled), ratio_of(RISING)
    assert alone.needed is not None and together.needed is not None
    assert not alone.dependent and alone.deviation == pytest.approx(together.deviation)
    # 1.7 / 0.3 = 5.7 times as many, less what Student's quantile shrinks by.
    assert 4.4 * alone.needed < together.needed < 5.7 * alone.needed


def test_the_test_sees_what_it_says_where_there_is_nothing() -> None:
    rng = np.random.default_rng(7)
    found = [correlation_of(dict(enumerate(rng.normal(size=12)))) for _ in range(600)]
    share = sum(one is not None and one.significant for one in found) / 600
    assert 0.025 <= share <= 0.08  # 5 %, give or take 2.5 standard errors
