"""What rounds leave possible, in words."""

from __future__ import annotations

import math

import pytest

from analysis.precision_words import dependence, difference, hidden, independence
from analysis.statistics import ratio_of

T3 = 4.302653
"""Student's 97.5 % quantile for 3 values."""


def three(reach: float) -> list[float]:
    """Logarithms of 3 rounds around 0 whose interval reaches to e^`reach`."""
    deviation = reach * math.sqrt(3) / T3
    return [-deviation, 0.0, deviation]


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        # The deviation is ln 2.5 * sqrt(3) / 4.3027 = 0.3689: 2 % takes 1,337 rounds, 5 % 224,
        # 10 % 61, 20 % (ln 1.2 = 0.1823) 19: 2.1009 * 0.3689 / sqrt(19) = 0.178.
        pytest.param(
            2.5,
            "differences up to 2.5 × cannot be ruled out with 3 rounds; "
            "about 19 rounds would show 20 %",
            id="a-factor",
        ),
        # The deviation is 0.3 * sqrt(3) / 4.3027 = 0.1208: 10 % takes 9 rounds,
        # 2.306 * 0.1208 / 3 = 0.0929 < 0.0953; 5 % takes 26, 2.0595 * 0.1208 / sqrt(26) = ln 1.05.
        pytest.param(
            math.exp(0.3),
            "differences up to 35 % cannot be ruled out with 3 rounds; "
            "about 26 rounds would show 5 %",
            id="per-cent",
        ),
        pytest.param(1.01, "differences of more than 1 % are ruled out", id="within-the-smallest"),
        # Hopeless: even 50 % would take 500 rounds.
        pytest.param(
            1e5, "differences up to 100,000 × cannot be ruled out with 3 rounds", id="no-advice"
        ),
    ],
)
def test_what_is_hidden(factor: float, expected: str) -> None:
    assert hidden([ratio_of(three(math.log(factor)))], 0.02) == expected


def test_the_worst_point_counts_and_rounds_are_a_range() -> None:
    noisy, quiet = ratio_of(three(math.log(3))), ratio_of([0.0, 0.001] * 3)
    assert hidden([quiet, noisy], 0.02).startswith(
        "differences up to 3.0 × cannot be ruled out with 3 to 6 rounds"
    )


def test_more_rounds_than_there_are_or_none() -> None:
    # 30 rounds of ± 1 %, but about 1.045: what is hidden is the difference itself.
    ratio = ratio_of([0.044, 0.046] * 15, smallest=0.06)
    assert hidden([ratio], 0.02) == "differences up to 4.6 % cannot be ruled out with 30 rounds"


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1.0, "0 %"), (1.051, "5.1 %"), (1.52, "52 %"), (2.5, "2.5 ×"), (12.3, "12 ×")],
)
def test_differences(factor: float, words: str) -> None:
    assert difference(factor) == words


def test_dependence_is_said() -> None:
    rising = ratio_of([0.01 * i for i in range(10)])
    steeper = ratio_of([0.01 * i for i in range(20)])
    apart = ratio_of([0.01, -0.01] * 5)
    assert dependence([rising, apart]) == (
        "; rounds are not independent: neighbours correlate by 0.70, so 10 rounds count as 1.8"
    )
    assert dependence([rising, steeper]).endswith("by 0.70 to 0.85, so they count as fewer")
    assert dependence([apart]) == ""
    assert list(independence([rising, apart, ratio_of([0.1])])) == [
        "neighbouring rounds correlate by -0.90, not significantly, and count as independent "
        "(known at 1 of 3 points)."
    ]
    assert not list(independence([rising]))
