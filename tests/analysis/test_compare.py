"""Comparisons of synthetic records whose ratios are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from analysis.compare import compare, comparisons
from analysis.comparison import Comparison, Point
from analysis.pooling import Counted
from analysis.reading import AnalysisError
from bench.record import RankMemory
from bench.trial import CommSpec
from tests.analysis.sides import (
    BETWEEN,
    DRIFT,
    OLD_ALL_GATHER,
    UPGRADE,
    WORKAROUND,
    broken,
    frame_of,
    question,
    timed,
)
from tests.factories import worker


def point_of(comparison: Comparison, **axes: object) -> Point:
    [found] = [p for p in comparison.points if axes.items() <= p.axes.items()]
    return found


@pytest.fixture
def upgrade(tmp_path: Path) -> Comparison:
    return compare(question(tmp_path), WORKAROUND, UPGRADE)


def test_one_point_for_each_combination_of_the_other_axes(upgrade: Comparison) -> None:
    assert upgrade.axes == ("seq_len",)
    assert [dict(point.axes) for point in upgrade.points] == [{"seq_len": 512}, {"seq_len": 2048}]
    assert [point.verdict for point in upgrade.points] == ["faster", "no difference seen"]
    assert (upgrade.smallest, upgrade.baseline) == (0.02, WORKAROUND)


def test_speeds_ratio_and_phases(upgrade: Comparison) -> None:
    point = point_of(upgrade, seq_len=512)
    # dp 2 * 512 tokens; the median drift is 1.
    assert point.baseline.tokens_per_s is not None
    assert point.candidate.tokens_per_s is not None
    assert point.baseline.tokens_per_s.value == pytest.approx(1024)
    assert point.candidate.tokens_per_s.value == pytest.approx(2048)
    assert point.ratio.value == pytest.approx(2.0)
    assert point.ratio.interval is not None
    assert (point.ratio.interval.low, point.ratio.rounds) == (pytest.approx(2.0), 3)
    # Half a second less a step; forward, aggregate, backward, optimizer are 40, 10, 30, 20 %.
    assert point.phases_s == pytest.approx(
        {"forward": -0.2, "aggregate": -0.05, "backward": -0.15, "optimizer": -0.1, "step": -0.5}
    )


def test_total_is_version_times_aggregation(upgrade: Comparison) -> None:
    parts = point_of(upgrade, seq_len=512).decomposition
    assert parts is not None
    assert (parts.first.axis, parts.first.before, parts.first.after) == (
        "environment",
        "torch-2.2",
        "torch-2.13",
    )
    assert dict(parts.first.held) == {"loss": "weighted_all_reduce"}
    assert (parts.second.axis, dict(parts.second.held)) == ("loss", {"environment": "torch-2.13"})
    assert parts.total.value == pytest.approx(2.0)
    assert parts.first.ratio.value == pytest.approx(1.0 / 0.8)
    assert parts.second.ratio.value == pytest.approx(0.8 / 0.5)


def test_over_all_points_the_geometric_mean(upgrade: Comparison) -> None:
    # 2 and 1 times as fast: sqrt(2).
    assert upgrade.overall.value == pytest.approx(math.sqrt(2))
    assert upgrade.overall.rounds == 3
    assert upgrade.decomposition is not None
    assert upgrade.decomposition.total.value == pytest.approx(math.sqrt(2))
    assert upgrade.decomposition.first.ratio.value == pytest.approx(math.sqrt(1.25))


def test_gradients_and_memory_of_both_sides(tmp_path: Path) -> None:
    def memory(peak: int) -> list[RankMemory]:
        return [RankMemory(rank=r, peak_bytes=peak + r, baseline_bytes=0) for r in range(4)]

    frame = frame_of(
        tmp_path,
        [
            *timed(WORKAROUND, 1.0, memory=memory(997)),
            *timed(UPGRADE, 1.0, memory=memory(1497), gradient=None),
        ],
    )
    [point] = compare(frame, WORKAROUND, UPGRADE).points
    assert point.memory_ratio == pytest.approx(1500 / 1000)
    assert (point.baseline.gradient_verdict, point.baseline.gradient_scale) == ("match", 1.0)
    assert (point.candidate.gradient_verdict, point.candidate.gradient_scale) == ("", None)


def test_a_side_that_failed_is_shown_as_that(tmp_path: Path) -> None:
    comparison = compare(question(tmp_path), OLD_ALL_GATHER, UPGRADE)
    for point in comparison.points:
        assert point.verdict == "no number"
        assert (point.ratio.value, point.ratio.rounds) == (None, 0)
        assert dict(point.baseline.statuses) == {"error": 3}
        assert point.baseline.failure == "IndexError in backward, ranks 2,3"
        assert (point.phases_s, point.memory_ratio, point.decomposition) == ({}, None, None)
        assert point.candidate.has_number
    assert comparison.overall.value is None


def test_a_point_of_one_side_only_is_kept(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0, seq_len=512), *timed(UPGRADE, 1.0, seq_len=2048)]
    comparison = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE)
    short, long = comparison.points
    assert (short.candidate.config_hash, dict(short.candidate.statuses)) == (None, {})
    assert (long.baseline.config_hash, short.verdict, long.verdict) == (
        None,
        "no number",
        "no number",
    )


def test_only_rounds_that_both_have_are_compared(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, [*timed(WORKAROUND, 1.0, 5), *timed(UPGRADE, 0.5, 2)])
    [point] = compare(frame, WORKAROUND, UPGRADE).points
    assert (point.verdict, point.ratio.rounds) == ("too few rounds", 2)
    assert point.ratio.value == pytest.approx(2.0)
    assert point.ratio.interval is None


def test_shared_gpus_allow_no_verdict(tmp_path: Path) -> None:
    shared = CommSpec(name="nccl", oversubscribe=True)
    records = [*timed(WORKAROUND, 1.0, comm=shared), *timed(UPGRADE, 0.5, comm=shared)]
    comparison = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE)
    [point] = comparison.points
    assert (point.verdict, point.ratio.value) == ("times not valid", pytest.approx(2.0))
    assert comparison.overall.value is None  # no figure that hides it


def test_the_other_way_where_the_first_has_no_numbers(tmp_path: Path) -> None:
    records = [
        *timed(WORKAROUND, 1.0),
        *broken(BETWEEN),
        *timed(OLD_ALL_GATHER, 0.8),
        *timed(UPGRADE, 0.4),
    ]
    parts = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE).decomposition
    assert parts is not None
    assert (parts.first.axis, dict(parts.first.held)) == ("loss", {"environment": "torch-2.2"})
    assert parts.first.ratio.value == pytest.approx(1.25)
    assert (parts.second.axis, parts.second.ratio.value) == ("environment", pytest.approx(2.0))


def test_decomposition_counts_the_rounds_that_all_three_have(tmp_path: Path) -> None:
    # Round 0 is missing in between, round 4 in the candidate. In round 0 the candidate is
    # 4 times as fast, elsewhere 2 times.
    between = timed(BETWEEN, 0.8, 5)[1:]
    candidate = timed(UPGRADE, 0.5, 4)
    candidate[0] = timed(UPGRADE, 0.25, 1)[0]
    frame = frame_of(tmp_path, [*timed(WORKAROUND, 1.0, 5), *between, *candidate])
    [point] = compare(frame, WORKAROUND, UPGRADE).points
    assert point.ratio.value == pytest.approx((4 * 2 * 2 * 2) ** 0.25)
    assert point.decomposition is not None
    assert point.decomposition.total.rounds == 3
    assert point.decomposition.total.value == pytest.approx(2.0)


def test_over_all_points_every_round_counts(tmp_path: Path) -> None:
    # 2,048 tokens: as fast, and in the round that 512 tokens lack 4 times as fast.
    records = []
    for seq_len, rates in ((512, (2.0, 2.0, 2.0)), (2048, (1.0, 1.0, 1.0, 4.0))):
        for r, rate in enumerate(rates):
            records.append(timed(WORKAROUND, 1.0, 4, seq_len=seq_len)[r])
            records.append(timed(UPGRADE, 1.0 / rate, 4, seq_len=seq_len)[r])
    comparison = compare(frame_of(tmp_path, records), WORKAROUND, UPGRADE)
    assert comparison.overall.value == pytest.approx(math.sqrt(2 * 4**0.25))
    assert comparison.overall.rounds == 4
    assert comparison.counted == Counted(2, 3, 4, 0)


def test_the_version_is_the_first_effect_however_the_sides_are_written(tmp_path: Path) -> None:
    every = (WORKAROUND, BETWEEN, OLD_ALL_GATHER, UPGRADE)
    frame = frame_of(tmp_path, [record for side in every for record in timed(side, 1.0)])
    sides = [dict(reversed(side.items())) for side in (WORKAROUND, UPGRADE)]
    parts = compare(frame, *sides).decomposition
    assert parts is not None
    assert (parts.first.axis, parts.second.axis) == ("environment", "loss")


def test_one_axis_has_no_decomposition(tmp_path: Path) -> None:
    comparison = compare(question(tmp_path), BETWEEN, UPGRADE)
    assert comparison.decomposition is None
    assert comparison.points[0].ratio.value == pytest.approx(0.8 / 0.5)


def test_what_follows_from_an_axis_is_no_other_point(tmp_path: Path) -> None:
    records = [*timed(UPGRADE, 1.0, sp=2), *timed(UPGRADE, 1.0, sp=4)]
    comparison = compare(frame_of(tmp_path, records), {"sp": "2"}, {"sp": "4"})
    [point] = comparison.points  # dp is 2 and 1
    assert point.ratio.value == pytest.approx(0.5)  # half the tokens in the same time


def test_a_selector_must_leave_one_configuration_a_point(tmp_path: Path) -> None:
    frame = question(tmp_path)
    with pytest.raises(AnalysisError) as error:
        compare(frame, {"environment": "torch-2.2"}, UPGRADE)
    assert str(error.value) == (
        "baseline: several configurations at one point; add loss=…, "
        "one of all_gather, weighted_all_reduce"
    )
    with pytest.raises(AnalysisError, match="same configurations"):
        compare(frame, UPGRADE, UPGRADE)


def test_users_write_both_sides_or_none(tmp_path: Path) -> None:
    frame = question(tmp_path)
    [chosen] = comparisons(frame, "environment=torch-2.2 loss=weighted_all_reduce", _text(UPGRADE))
    natural = comparisons(frame)
    assert natural[0] == chosen
    with pytest.raises(AnalysisError, match="--baseline without --candidate"):
        comparisons(frame, baseline="loss=all_gather")
    with pytest.raises(AnalysisError, match="--candidate without --baseline"):
        comparisons(frame, candidate="loss=all_gather")


def test_a_folder_of_one_configuration_has_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="nothing to compare"):
        comparisons(frame_of(tmp_path, timed(UPGRADE, 1.0)))


def test_drift_is_in_the_figures_but_not_in_the_ratio(upgrade: Comparison) -> None:
    figure = upgrade.points[0].baseline.tokens_per_s
    assert figure is not None
    assert figure.interval.high == pytest.approx(1024 / min(DRIFT))
    assert figure.interval.low == pytest.approx(1024 / max(DRIFT))


def _text(selector: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in selector.items())


def test_modules_imported_in_trials_of_a_side_are_said(tmp_path: Path) -> None:
    """Others in the folder are no matter."""
    imported = worker().model_copy(update={"late_imports": ["torch.a", "torch.b"]})
    records = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0), *timed(BETWEEN, 1.0, worker=imported)]
    assert compare(frame_of(tmp_path / "between", records), WORKAROUND, UPGRADE).cautions == ()
    records += timed(UPGRADE, 1.0, rounds=1, seq_len=2048, worker=imported)
    records += timed(WORKAROUND, 1.0, rounds=1, seq_len=2048)
    [said] = compare(frame_of(tmp_path / "side", records), WORKAROUND, UPGRADE).cautions
    assert said.startswith("in 1 of 8 trials ranks imported modules (up to 2): peak memory counts")
