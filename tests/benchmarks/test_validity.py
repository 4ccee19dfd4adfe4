"""The validity benchmark's own arithmetic, on records whose slowdowns are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.record import Record
from benchmarks.validity import (
    NAMES,
    SLOWDOWNS,
    Block,
    Size,
    by_distance,
    check,
    outcomes,
    scatter,
    table,
    true_ratio,
)
from tests.analysis.sides import frame_of, timed

ROUNDS = Size().rounds
JITTER = 0.001
"""Of every other round: without any, an interval would have no width to hold the truth in."""
TIMES = {(NAMES[0], False): 1, (NAMES[1], False): 0, (NAMES[0], True): -1, (NAMES[1], True): 2}
"""How often each has it, with and without the loop: no two alike, or their ratio had none."""


def block(folder: Path, slowdown: float, extra: float) -> Block:
    """Steps of 1 s, or longer by the loop and `extra`; all with their jitter."""
    records: list[Record] = []
    for (name, slow), times in TIMES.items():
        step_s = 1.0 + slow * (slowdown + extra)
        jitter = times * JITTER
        options = {"busy_s": slowdown} if slow else {}
        up, down = (
            timed({"environment": name}, step_s * math.exp(sign * jitter), ROUNDS, options=options)
            for sign in (1, -1)
        )
        records += [pair[r % 2] for r, pair in enumerate(zip(up, down, strict=True))]
    return Block(slowdown, slowdown, frame_of(folder, records))


def blocks(folder: Path, *extra: float) -> list[Block]:
    """Three of each slowdown, with `extra` in the first, second and third."""
    return [
        block(folder / f"{n}-{slowdown}", slowdown, more)
        for n, more in enumerate(extra or (0.0, 0.0, 0.0))
        for slowdown in SLOWDOWNS
    ]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The outcomes of blocks whose slowdowns are those that were asked for."""
    return pd.DataFrame(outcomes(blocks(tmp_path_factory.mktemp("exact"))))


def test_known_slowdowns_are_told_from_none(exact: pd.DataFrame) -> None:
    found = exact
    assert len(found) == (9 * 4 + 3) * (2 + 4)  # blocks, numbers of rounds; pairs
    assert set(found[found.slowdown == 0].verdict) == {"no difference seen"}
    assert set(found[found.slowdown >= 0.05].verdict) == {"slower"}
    assert found.groupby("rounds").size().to_dict() == {3: 54, 5: 54, 8: 54, 10: 54, 20: 18}


def test_the_truth_comes_from_the_other_blocks(tmp_path: Path, exact: pd.DataFrame) -> None:
    assert exact.covers.all()
    assert exact.covers_loop.all()
    same = exact[exact.slowdown == 0].groupby("rounds").half_width.max()
    assert 0.02 > same[3] > same[5] > same[8] > same[10] > same[20]
    # one block in three is off: its own truth is theirs, and theirs lies halfway to it
    off = pd.DataFrame(outcomes(blocks(tmp_path, 0.2, 0.0, 0.0)))
    off = off[(off.slowdown > 0) & (off["rounds"] == ROUNDS)]
    assert not off.covers.any()
    assert off.covers_loop.mean() == pytest.approx(2 / 3)


def test_the_true_ratio_is_that_of_geometric_means(tmp_path: Path) -> None:
    # steps of 1.05 and 1.25 beside 1: the inverse of sqrt(1.05 * 1.25) = 1.14564
    made = [block(tmp_path / "a", 0.05, 0.0), block(tmp_path / "b", 0.05, 0.2)]
    assert true_ratio(made) == pytest.approx(1 / 1.14564, rel=1e-5)


@pytest.mark.parametrize(
    ("extra", "missed"), [((), 0), ((-0.2, -0.2, -0.2), 2), ((-0.2, 0.0, 0.0), 3)]
)
def test_targets(
    tmp_path: Path,
    exact: pd.DataFrame,
    extra: tuple[float, ...],
    missed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = pd.DataFrame(outcomes(blocks(tmp_path, *extra))) if extra else exact
    table(found)
    with pytest.raises(SystemExit) as ended:
        check(found[found.rounds == ROUNDS])
    shown = capsys.readouterr().out
    assert ended.value.code == int(missed > 0)
    assert shown.count(": missed") == missed
    assert "A/A: no difference seen: 100 %" in shown


def test_scatter_of_one_round(tmp_path: Path) -> None:
    # logarithms in turn ±1 jitter without the loop and ±3 with it: mean square 5; n = 10
    expected = JITTER * (5 * 10 / 9) ** 0.5
    assert scatter(blocks(tmp_path)) == pytest.approx(expected, rel=1e-6)


def test_scatter_by_distance_in_time(tmp_path: Path) -> None:
    made = block(tmp_path, 0.05, 0.0)
    slow = made.frame["options.busy_s"].notna()
    # in every round: A, slow A, A under its other name, slow A under its other name
    first = made.frame.environment == NAMES[0]
    position = pd.Series(np.select([~slow & first, slow & first, ~slow], [0, 1, 2], 3))
    timed_frame = made.frame.assign(started=10 * made.frame["round"] + position)
    found = by_distance([replace(made, frame=timed_frame)])
    assert found == {2: pytest.approx(JITTER * 5**0.5, rel=1e-6)}
    near = timed_frame.assign(started=10 * made.frame["round"] + position.replace({1: 2, 2: 1}))
    assert by_distance([replace(made, frame=near)]) == {1: pytest.approx(JITTER * 5**0.5, rel=1e-6)}
