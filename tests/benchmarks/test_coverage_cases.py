"""The simulations behind `benchmarks.coverage`, large enough to tell a right interval."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage_cases import (
    FEW,
    NOISE,
    Points,
    alike_ratios,
    alike_sides,
    autoregression,
    lag_one,
    one_sided,
    overall,
)


def test_noise_is_as_correlated_as_asked() -> None:
    rows = autoregression(np.random.default_rng(0), 0.5, (4000, 20))
    assert lag_one(rows) == pytest.approx(0.5, abs=0.02)
    assert rows.var(axis=0) == pytest.approx(np.ones(20), abs=0.12)


@pytest.mark.parametrize("rounds", [5, 10])
def test_pairing_breaks_the_correlation_of_sides(rounds: int) -> None:
    tally = alike_sides(0.5, rounds, 600)
    assert tally.side == pytest.approx(0.5, abs=0.05)
    assert abs(tally.ratio) < 0.15
    assert tally.holds >= 93


def test_correlated_ratios_are_covered_better_by_the_guard() -> None:
    tally = alike_ratios(0.5, 30, 400)
    assert tally.ratio == pytest.approx(0.5, abs=0.05)
    # Student's interval, sqrt(3) too short, holds the truth in 2 Phi(2.05 / sqrt(3)) - 1 = 76 %.
    assert tally.plain == pytest.approx(76, abs=6)
    assert tally.holds >= tally.plain + 10
    assert tally.widened > 70


def test_outliers_of_one_side_move_the_mean() -> None:
    every, alone = one_sided(30, 300)
    assert every > 85 and every > alone


@pytest.mark.parametrize("shared", [0.0, NOISE])
def test_points_with_unequal_rounds_are_covered(shared: float) -> None:
    holds, wide, common = overall(Points("", FEW, [NOISE] * 16, shared), 400)
    assert holds >= 92
    assert wide < 0.6 * common
