"""Medians, percentiles and intervals against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics import Interval, figure_of_rounds, median, median_interval, percentile


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([4.0, 1.0], 2.5), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 2.5)],
)
def test_median(values, expected):
    assert median(values) == percentile(values, 50) == expected


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 10), (100, 50), (25, 20), (90, 46), (37.5, 25)]
)
def test_percentile_interpolates_between_ranks(percent, expected):
    # Position (5-1)*p/100 from 0: 90 % is 3.6, so 40 + 0.6*10.
    assert percentile([50, 10, 30, 20, 40], percent) == pytest.approx(expected)


@pytest.mark.parametrize("percent", [-1, 100.5])
def test_percentile_refuses_other_shares(percent):
    with pytest.raises(ValueError, match="0..100"):
        percentile([1.0], percent)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
@pytest.mark.parametrize("function", [median, median_interval, figure_of_rounds])
def test_no_figure_without_finite_values(function, values):
    with pytest.raises(ValueError, match="no values|not finite"):
        function(values)


@pytest.mark.parametrize(
    ("n", "low", "high", "level"),
    [
        pytest.param(1, 1, 1, 0.0, id="one-says-nothing"),
        pytest.param(2, 1, 2, 0.5, id="two"),
        pytest.param(3, 1, 3, 0.75, id="three"),
        pytest.param(5, 1, 5, 1 - 2 / 32, id="five-is-short-of-95"),
        pytest.param(6, 1, 6, 1 - 2 / 64, id="six-attains-95"),
        # (1 + 8)/256 * 2 = 0.0703 would be too much for 8, (1 + 9)/512 * 2 = 0.0391 is not for 9.
        pytest.param(8, 1, 8, 1 - 2 / 256, id="eight"),
        pytest.param(9, 2, 8, 1 - 20 / 512, id="nine-drops-the-extremes"),
        # The tabulated interval for 20: 6th to 15th, 95.86 %.
        pytest.param(20, 6, 15, 1 - 2 * 21700 / 2**20, id="twenty"),
    ],
)
def test_interval_of_the_median(n, low, high, level):
    values = list(range(1, n + 1))
    random.Random(0).shuffle(values)
    assert median_interval(values) == Interval(low, high, pytest.approx(level))


def test_a_lower_confidence_takes_fewer_values():
    # 1 - 2*(1 + 5)/32 = 0.625.
    assert median_interval([1, 2, 3, 4, 5], confidence=0.6) == Interval(2, 4, 0.625)


def test_interval_covers_the_median_as_often_as_it_says():
    draw = random.Random(1)
    covered = 0
    for _ in range(4000):
        interval = median_interval([draw.lognormvariate(0, 1) for _ in range(9)])
        covered += interval.low <= 1.0 <= interval.high
    assert covered / 4000 == pytest.approx(1 - 20 / 512, abs=0.012)  # four standard errors


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_interval_holds_the_figure(values):
    figure = figure_of_rounds(values)
    assert figure.rounds == len(values)
    assert figure.interval.low <= figure.value <= figure.interval.high
    assert (figure.interval.level >= 0.95) == (len(values) >= 6)
