"""The validity benchmark's own arithmetic, on records whose slowdowns are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.record import Record
from benchmarks.validity import PLAIN, ROUNDS, check, outcomes, scatter, table
from tests.analysis.sides import frame_of, timed

A = {"environment": "a"}
LOOPS = (0.03, 0.05, 0.10)


JITTER = 0.004
"""Of every other round: without any, an interval would have no width to hold the truth in."""


def jittery(step_s: float, **fields: Any) -> list[Record]:
    """A in all rounds, in turn a little faster and a little slower than `step_s`."""
    slow = timed(A, step_s * (1 + JITTER), 2 * ROUNDS, **fields)
    fast = timed(A, step_s * (1 - JITTER), 2 * ROUNDS, **fields)
    return [pair[r % 2] for r, pair in enumerate(zip(slow, fast, strict=True))]


def pool(folder: Path, extra: float = 0.0) -> pd.DataFrame:
    """Two comparisons' worth of rounds with steps of 1 s, or longer by the loop and `extra`."""
    records = jittery(1.0)
    for name in PLAIN[1:]:
        records += timed({"environment": name}, 1.0, 2 * ROUNDS)
    for loop in LOOPS:
        step_s = 1.0 + loop + extra
        records += jittery(step_s, options={"busy_s": loop})
    return frame_of(folder, records)


def test_known_slowdowns_are_told_from_none(tmp_path: Path) -> None:
    found = pd.DataFrame(outcomes(pool(tmp_path), blocks=2))
    assert len(found) == (2 * 4 + 1) * (6 + 3 * 4)  # blocks, numbers of rounds; pairs
    assert set(found[found.slowdown == 0].verdict) == {"no difference seen"}
    assert set(found[found.slowdown > 0].verdict) == {"slower"}
    assert set(found["rounds"]) == {3, 5, 8, 10, 20}


def test_the_truth_is_the_loop_over_the_step(tmp_path: Path) -> None:
    exact = pd.DataFrame(outcomes(pool(tmp_path / "exact"), blocks=1))
    assert exact.covers.all()
    same = exact[exact.slowdown == 0].groupby("rounds").half_width.max()
    assert 0.02 > same[3] > same[5] > same[8] > same[10]
    off = pd.DataFrame(outcomes(pool(tmp_path / "off", extra=0.2), blocks=1))
    assert not off[off.slowdown > 0].covers.any()


@pytest.mark.parametrize(("extra", "code", "missed"), [(0.0, 0, 0), (-0.2, 1, 3)])
def test_targets(
    tmp_path: Path,
    extra: float,
    code: int,
    missed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = pd.DataFrame(outcomes(pool(tmp_path, extra), blocks=2))
    table(found)
    with pytest.raises(SystemExit) as ended:
        check(found)
    shown = capsys.readouterr().out
    assert ended.value.code == code
    assert shown.count(": missed") == missed
    assert "A/A: no difference seen: 100 %" in shown


def test_scatter_of_one_round(tmp_path: Path) -> None:
    # "a" is in turn 0.4 % off to either side of the three others, which are all alike: its
    # ratios have a standard deviation of 0.4 % (n = 20: times sqrt(20/19)), half of all pairs
    expected = JITTER * (20 / 19) ** 0.5 * 0.5**0.5
    assert scatter(pool(tmp_path)) == pytest.approx(expected, rel=1e-3)
