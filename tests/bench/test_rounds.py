"""Medians, intervals and figures against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rounds import Interval, figure_of_rounds, median, median_interval, share, slowest


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([4.0, 1.0], 2.5), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 2.5)],
)
def test_median(values, expected):
    assert median(values) == expected


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


def test_half_width_is_the_larger_side_over_the_figure():
    # The median of 1 to 6, in hundredths above 100, is 103.5; the range reaches to 101 and 120.
    figure = figure_of_rounds([101.0, 102.0, 103.0, 104.0, 105.0, 120.0])
    assert figure.half_width == pytest.approx((120 - 103.5) / 103.5)
    assert figure_of_rounds([90.0, 102.0, 103.0, 104.0, 105.0, 106.0]).half_width == pytest.approx(
        (103.5 - 90) / 103.5
    )


def test_half_width_is_unknown_where_95_percent_are_out_of_reach():
    assert figure_of_rounds([1.0] * 5).half_width == math.inf
    assert figure_of_rounds([1.0] * 6).half_width == 0.0


def test_a_trial_takes_the_median_of_its_slowest_ranks():
    # The steps take max(1, 2) = 2, max(9, 3) = 9 and max(4, 5) = 5.
    assert slowest([[1.0, 9.0, 4.0], [2.0, 3.0, 5.0]]) == 5.0
    assert slowest([]) is None
    assert slowest([[], []]) is None
    with pytest.raises(ValueError, match="different numbers of steps"):
        slowest([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("text", "expected"), [("2%", 0.02), ("2.5 %", 0.025), ("0.02", 0.02), (" 99% ", 0.99)]
)
def test_shares_as_people_write_them(text, expected):
    assert share(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "%", "two", "0", "0%", "-1%", "1", "5", "100%", "nan"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError):
        share(text)
