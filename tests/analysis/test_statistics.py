"""Percentiles, paired ratios, intervals and verdicts against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics import (
    FEWEST,
    Interval,
    Ratio,
    interval_of_mean,
    paired_logs,
    percentile,
    ratio_of,
    rounds_needed,
    verdict,
)
from benchmarks.coverage import covered

T3, T4, T5 = 4.302653, 3.182446, 2.776445
"""Student's 97.5 % quantile for 3, 4 and 5 values, from a table."""


def test_only_common_rounds_are_paired():
    logs = paired_logs({0: 1.0, 1: 2.0, 3: 4.0}, {1: 4.0, 2: 9.0, 3: 1.0})
    assert logs == {1: pytest.approx(math.log(2)), 3: pytest.approx(math.log(0.25))}


def test_the_ratio_is_the_geometric_mean():
    # 2 and 8 times as fast: sqrt(2 * 8) = 4, where the arithmetic mean says 5.
    ratio = ratio_of([math.log(2), math.log(8)])
    assert ratio == Ratio(pytest.approx(4.0), None, 2, "too few rounds", None)


def test_what_a_round_shares_cancels():
    drift = [1.0, 3.0, 0.2]
    baseline = dict(enumerate(drift))
    candidate = {r: 1.1 * speed for r, speed in baseline.items()}
    ratio = ratio_of(list(paired_logs(baseline, candidate).values()))
    assert ratio.interval == Interval(pytest.approx(1.1), pytest.approx(1.1), 0.95)
    assert (ratio.value, ratio.verdict, ratio.needed) == (pytest.approx(1.1), "faster", 3)


def test_no_round_in_common_is_no_ratio():
    assert ratio_of([]) == Ratio(None, None, 0, "too few rounds", None)


def test_three_rounds_have_students_interval():
    # Mean 0.1, deviation 0.01; resampled means stay within 0.09 … 0.11, Student's reach further.
    reach = T3 * 0.01 / math.sqrt(3)
    interval = interval_of_mean([0.11, 0.09, 0.10])
    assert interval.low == pytest.approx(0.1 - reach, rel=1e-6)
    assert interval.high == pytest.approx(0.1 + reach, rel=1e-6)


def test_a_skewed_sample_has_a_skewed_interval():
    # One of ten: the sum of a resample is binomial(10, 0.1), which is at most 3 in 98.72 % and
    # at most 4 in 99.84 %. The expanded percentile, Phi(2.2622 * sqrt(10 / 9)) = 99.14 %, is 4.
    interval = interval_of_mean([0.0] * 9 + [1.0])
    assert interval.high == pytest.approx(0.4)
    reach = 2.262157 * math.sqrt(0.1) / math.sqrt(10)  # further down than any resample
    assert interval.low == pytest.approx(0.1 - reach, rel=1e-6)


def test_percentiles_are_expanded():
    # Three of nine: binomial(9, 1/3) is at most 6 in 99.17 %. Phi(2.3060) = 98.94 % would be 6,
    # the expanded Phi(2.3060 * sqrt(9 / 8)) = 99.28 % is 7; Student's reach ends at 0.7177.
    assert interval_of_mean([0.0] * 6 + [1.0] * 3).high == pytest.approx(7 / 9)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_the_interval_holds_the_mean_and_does_not_depend_on_the_order(values):
    interval = interval_of_mean(values)
    assert interval.low <= math.fsum(values) / len(values) + 1e-12
    assert interval.high >= math.fsum(values) / len(values) - 1e-12
    assert interval_of_mean(values) == interval


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_no_interval_without_finite_values(values):
    with pytest.raises(ValueError):
        interval_of_mean(values)


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        pytest.param(1.05, 1.01, 1.09, "faster", id="certain-and-large-enough"),
        pytest.param(0.95, 0.91, 0.99, "slower", id="the-same-downwards"),
        pytest.param(1.05, 0.99, 1.11, "no difference seen", id="may-be-none"),
        pytest.param(0.95, 0.90, 1.00, "no difference seen", id="touches-one"),
        pytest.param(1.01, 1.005, 1.015, "no difference seen", id="certain-but-too-small"),
        pytest.param(0.99, 0.985, 0.995, "no difference seen", id="too-small-downwards"),
        pytest.param(1.02, 1.001, 1.04, "faster", id="just-large-enough"),
        pytest.param(1 / 1.02, 0.96, 0.999, "slower", id="just-large-enough-downwards"),
        pytest.param(0.981, 0.96, 0.999, "no difference seen", id="just-too-small-downwards"),
    ],
)
def test_verdicts_at_two_percent(value, low, high, expected):
    assert verdict(value, Interval(low, high, 0.95), 0.02) == expected


def test_another_smallest_difference_is_another_verdict():
    assert verdict(1.05, Interval(1.01, 1.09, 0.95), 0.06) == "no difference seen"
    assert ratio_of([math.log(1.05)] * 3, 0.06).verdict == "no difference seen"
    assert ratio_of([math.log(1.05)] * 3, 0.04).verdict == "faster"
    with pytest.raises(ValueError, match="smallest=0"):
        ratio_of([0.0] * 3, 0)


def test_fewer_than_three_rounds_are_never_a_verdict():
    assert [ratio_of([5.0] * n).verdict for n in range(FEWEST + 1)] == [
        *["too few rounds"] * 3,
        "faster",
    ]


def test_rounds_needed():
    # Deviation 0.02 / sqrt(2). 4 rounds reach to 3.1824 * 0.014142 / 2 = 0.0225, 5 rounds to
    # 2.7764 * 0.014142 / sqrt(5) = 0.01756; ln 1.02 = 0.0198 lies between.
    assert T4 * 0.0141421 / 2 > math.log(1.02) > T5 * 0.0141421 / math.sqrt(5)
    assert rounds_needed([0.0, 0.02], 0.02) == 5
    assert rounds_needed([0.0, 0.02], 0.5) == FEWEST
    # Many: (1.96 * 0.14142 / 0.0198)^2 = 195.96, and Student's 1.972 makes it 199.
    assert 197 <= rounds_needed([0.0, 0.2], 0.02) <= 200


@pytest.mark.parametrize(("logs", "precision"), [([0.1], 0.02), ([0.1, 0.2], 0.0)])
def test_rounds_needed_of_nothing(logs, precision):
    with pytest.raises(ValueError, match="say nothing"):
        rounds_needed(logs, precision)


@pytest.mark.parametrize("rounds", [3, 8])
def test_intervals_cover_what_they_say(rounds):
    coverage, quiet = covered(rounds, 1500, outliers=0.0)
    assert 93 <= coverage <= 97
    assert quiet >= 93


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
