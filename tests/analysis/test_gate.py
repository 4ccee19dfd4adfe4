"""What speaks against a candidate."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.compare import compare
from analysis.gate import objections
from bench.record import Record
from bench.trial import CommSpec
from tests.analysis.sides import UPGRADE, WORKAROUND, broken, frame_of, timed

SHARED = CommSpec(name="nccl", oversubscribe=True)


@pytest.mark.parametrize(
    ("baseline", "candidate", "expected"),
    [
        pytest.param(timed(WORKAROUND, 1.0), timed(UPGRADE, 1.0), [], id="equal"),
        pytest.param(timed(WORKAROUND, 1.0), timed(UPGRADE, 0.5), [], id="faster"),
        pytest.param(timed(WORKAROUND, 1.0), timed(UPGRADE, 1.04), [], id="within"),
        pytest.param(
            timed(WORKAROUND, 1.0),
            timed(UPGRADE, 1.08),
            ["torch-2.13 with all_gather is slower by 8.0% (95 % interval 8.0% to 8.0%)"],
            id="slower",
        ),
        pytest.param(
            timed(WORKAROUND, 1.0),
            broken(UPGRADE),
            ["torch-2.13 with all_gather has no number (error 3)"],
            id="broken",
        ),
        pytest.param(
            timed(WORKAROUND, 1.0, 2),
            timed(UPGRADE, 1.0, 2),
            ["too few rounds for a verdict (2 in common)"],
            id="few",
        ),
        pytest.param(
            timed(WORKAROUND, 1.0, comm=SHARED),
            timed(UPGRADE, 1.0, comm=SHARED),
            ["ranks shared GPUs, so the times allow no verdict"],
            id="shared",
        ),
        pytest.param(
            broken(WORKAROUND),
            timed(UPGRADE, 1.0),
            ["the baseline has no number at any point"],
            id="nothing-to-be-slower-than",
        ),
    ],
)
def test_objections_at_five_percent(
    tmp_path: Path, baseline: list[Record], candidate: list[Record], expected: list[str]
) -> None:
    comparison = compare(frame_of(tmp_path, [*baseline, *candidate]), WORKAROUND, UPGRADE)
    assert objections(comparison, 0.05) == expected


def test_each_point_is_judged(tmp_path: Path) -> None:
    records = [
        record
        for seq_len, step_s in ((512, 1.0), (2048, 1.2))
        for record in (
            *timed(WORKAROUND, 1.0, seq_len=seq_len),
            *timed(UPGRADE, step_s, seq_len=seq_len),
        )
    ]
    records += [*broken(WORKAROUND, seq_len=64), *broken(UPGRADE, seq_len=64)]
    [line] = objections(compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE), 0.05)
    assert line.startswith("seq_len=2048: torch-2.13 with all_gather is slower by 20.0%")
