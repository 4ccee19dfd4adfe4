"""The arithmetic of the independence benchmark, by hand and on series that are made to offend."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.independence import (
    FILE,
    correlation,
    coverage,
    excess_scatter,
    lag_1,
    order_bias,
    pairs,
)
from benchmarks.validity import NAMES
from tests.analysis.sides import frame_of, timed


def table(ratios: np.ndarray, apart: int = 1) -> pd.DataFrame:
    """Series of ratios, one row each, as if every one were a block."""
    blocks, rounds = ratios.shape
    block, round_ = np.divmod(np.arange(blocks * rounds), rounds)
    columns = {"block": block, "round": round_, "loop": 0.0, "ratio": ratios.ravel()}
    return pd.DataFrame({**columns, "apart": apart})


def test_lag_1_by_hand() -> None:
    # about the mean 2.5: -1.5 -0.5 0.5 1.5; products 0.75 -0.25 0.75; squares 5
    assert lag_1([1, 2, 3, 4]) == pytest.approx(1.25 / 5)


def test_the_pairs_of_a_block(tmp_path: Path) -> None:
    records = [*timed({"environment": NAMES[0]}, 1.0, 2), *timed({"environment": NAMES[1]}, 0.5, 2)]
    for number, record in enumerate(records):
        records[number] = record.model_copy(
            update={"started": f"2026-01-01T00:00:{59 - number:02}.000+00:00"}
        )
    slow = timed({"environment": NAMES[0]}, 2.0, 1, options={"busy_s": 1.0})
    slow += timed({"environment": NAMES[1]}, 2.0, 1, options={"busy_s": 1.0})
    found = pairs(7, frame_of(tmp_path, [*records, *slow]))
    bare = found[found.loop == 0]
    assert bare.ratio.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)
    assert (bare.apart < 0).all()  # the second began before the first
    assert set(found.block) == {7} and found[found.loop == 1].ratio.tolist() == [0.0]


def test_independent_rounds_offend_in_nothing() -> None:
    drawn = table(np.random.default_rng(0).normal(0, 0.03, (400, 10)))
    mean, error = correlation(drawn, "ratio")
    assert abs(mean) < 4 * error
    mean, error = order_bias(drawn)
    assert abs(mean) < 4 * error
    seen, due = excess_scatter(drawn)
    assert due == pytest.approx(9 / 7) and abs(seen - due) < 0.4
    for window in (3, 5, 10):
        count, students, ours = coverage(drawn, window)
        assert count == 400 * (10 // window)
        error = math.sqrt(0.95 * 0.05 / count)
        assert abs(students / count - 0.95) < 4 * error and ours >= students


def test_each_offence_is_seen() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.03, (400, 10))
    drift = np.zeros_like(noise)
    for place in range(1, 10):
        drift[:, place] = 0.5 * drift[:, place - 1] + noise[:, place]
    assert correlation(table(drift), "ratio").mean > 0.2
    assert order_bias(table(noise + 0.02)).mean == pytest.approx(2, abs=0.3)
    assert order_bias(table(noise + 0.02, apart=-1)).mean == pytest.approx(-2, abs=0.3)
    for_a_while = table(noise + rng.normal(0, 0.03, (400, 1)))
    seen, due = excess_scatter(for_a_while)
    assert seen > 3 * due
    count, students, _ = coverage(for_a_while, 10)
    assert students / count < 0.6


def test_the_committed_pairs_are_what_the_documents_quote() -> None:
    assert len(pd.read_csv(FILE)) >= 100
