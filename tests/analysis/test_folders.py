"""Two folders side by side."""

from __future__ import annotations

from pathlib import Path

from analysis.folders import beside
from tests.analysis.sides import frame_of
from tests.factories import ok


def test_rounds_pair_by_their_order_and_axes_by_their_names(tmp_path: Path) -> None:
    before = frame_of(tmp_path / "a", [ok(round=r) for r in (0, 1)])
    now = frame_of(tmp_path / "b", [ok(round=r, deepspeed={"x": 1}) for r in (4, 7)])
    left, right = beside(before, now)
    assert left["round"].tolist() == right["round"].tolist() == [0, 1]
    assert list(left.columns) == list(right.columns)
    assert left["deepspeed.x"].isna().all() and right["deepspeed.x"].eq(1).all()
