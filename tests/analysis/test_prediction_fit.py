"""Fits find the efficiencies that made the times, and say when they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.frame import load
from analysis.prediction.checks import UNKNOWN, every_way, held_out, objections, ways
from analysis.prediction.errors import fitted_errors, published_errors
from analysis.prediction.fit import Fit, Point, Residual, fit, points_of
from analysis.prediction.splits import Setting
from analysis.reading import AnalysisError
from bench.record import CollectiveCount
from bench.theory import Cluster, Efficiencies, Link
from bench.trial import CommSpec, ModelSpec
from tests.factories import TINY, failed, ok, write

MODEL = ModelSpec(name="m", layers=2, hidden=128, heads=8, kv_heads=4, ffn=256, vocab=256)
CLUSTER = Cluster("c", 4, 50e9, 4e9, 1e13, intra=Link(1e9, 1e-5), inter=Link(1e9, 1e-5))
TRUTH = Fit(
    CLUSTER,
    Efficiencies(matmul=0.5, attention=0.25, all_to_all=0.1),
    step_overhead_s={1: 0.01, 3: 0.04},
    not_fitted=(),
    residuals=(),
)
OVERHEAD = TRUTH.step_overhead_s


def made(
    sps: tuple[int, ...] = (1, 2, 4), lengths: tuple[int, ...] = (512, 1024, 2048, 4096)
) -> list[Point]:
    """Points whose times are exactly those of `TRUTH`."""
    points = [
        Point(f"sp={sp} zero={zero} {length}", MODEL, "float32", 4, sp, zero, 1, length, 1.0)
        for sp in sps
        for zero in (1, 3)
        for length in lengths
    ]
    return [replace(point, step_s=TRUTH.predict(point)) for point in points]


def test_a_fit_recovers_what_made_the_times() -> None:
    found = fit(made(), CLUSTER)
    assert found.shares.matmul == pytest.approx(0.5, rel=1e-3)
    assert found.shares.attention == pytest.approx(0.25, rel=1e-3)
    assert found.shares.all_to_all == pytest.approx(0.1, rel=1e-3)
    assert found.step_overhead_s == pytest.approx({1: 0.01, 3: 0.04}, rel=1e-3)
    assert found.error < 1e-4 and len(found.residuals) == 24


def test_no_efficiency_exceeds_1() -> None:
    slow = replace(CLUSTER, peak_flops=5e9)  # slower than what was recorded
    found = fit(made(), slow)
    assert found.shares.matmul == pytest.approx(1.0)
    assert found.error > 0.1


def test_the_overhead_is_that_of_the_stage_or_of_the_nearest_one() -> None:
    assert TRUTH.efficiencies(3).step_overhead_s == 0.04
    assert TRUTH.efficiencies(0).step_overhead_s == 0.01
    assert TRUTH.efficiencies(2).step_overhead_s == 0.01


def test_layers_of_different_number_tell_the_overhead_of_a_layer() -> None:
    deeper = MODEL.model_copy(update={"layers": 6})
    truth = replace(TRUTH, shares=replace(TRUTH.shares, layer_overhead_s=0.005))
    points = [replace(p, model=m) for p in made() for m in (MODEL, deeper)]
    points = [replace(point, step_s=truth.predict(point)) for point in points]
    assert fit(points, CLUSTER).shares.layer_overhead_s == pytest.approx(0.005, rel=1e-3)


def test_without_all_to_alls_nothing_is_said_of_them() -> None:
    found = fit(made(sps=(1,)), CLUSTER)
    assert found.not_fitted == ("all_to_all",) and found.shares.all_to_all == 1.0


def test_too_few_points() -> None:
    with pytest.raises(AnalysisError, match="2 configurations .* too few to fit 5 unknowns"):
        fit(made(sps=(2,), lengths=(512,)), CLUSTER)


def test_residuals_are_relative_to_what_was_recorded() -> None:
    assert Residual(replace(made()[0], step_s=2.0), 2.5).relative == 0.25


def test_points_are_medians_of_trials_that_trained_and_have_a_valid_time(tmp_path: Path) -> None:
    shared = CommSpec(name="nccl", oversubscribe=True)
    write(
        tmp_path,
        *(ok(round=index, step_s=seconds) for index, seconds in enumerate((0.2, 0.4, 0.9))),
        failed(round=0, seq_len=1024),
        ok(step_s=9.0, scenario="drill"),
        ok(step_s=9.0, comm=shared),
    )
    [point] = points_of(load(tmp_path))
    assert point.step_s == pytest.approx(0.4)
    assert point.spread_s == pytest.approx(0.5)  # 0.2, 0.4 and 0.9
    assert (point.world, point.sp, point.zero, point.seq_len) == (4, 2, 1, 512)
    assert point.model == TINY and point.split == "sp=2 dp=2"


def test_what_is_left_out_plays_no_part() -> None:
    points = made()
    spoilt = [replace(p, step_s=100.0) if p.seq_len == 4096 else p for p in points]
    _, predictions = held_out(spoilt, CLUSTER, lambda point: point.seq_len == 4096)
    truths = [point.step_s for point in points if point.seq_len == 4096]
    assert [one.predicted_s for one in predictions] == pytest.approx(truths, rel=1e-3)


def test_ways_leave_out_the_longest_sequences_and_each_split() -> None:
    points = made()
    out = {name: sum(map(chosen, points)) for name, chosen in ways(points).items()}
    assert out == {"4,096 tokens": 6, "sp=1 dp=4": 8, "sp=2 dp=2": 8, "sp=4 dp=1": 8}


def test_every_way_passes_over_what_leaves_too_little() -> None:
    assert list(every_way(made(sps=(2,)), UNKNOWN)) == ["4,096 tokens"]
    assert every_way([], UNKNOWN) == {}


def test_own_records_above_the_peak_are_objected_to() -> None:
    points = made()
    assert objections(points, CLUSTER) == []
    found = objections([replace(p, step_s=p.step_s / 20) for p in points], CLUSTER)
    assert found and all("above the peak of 50.0 GFLOP/s" in text for text in found)


def test_a_marginal_rate_needs_the_same_configuration() -> None:
    """Two configurations of unequal overhead are no series."""
    slow, fast = [
        Point(f"{name} seq_len={n}", MODEL, "float32", 4, 2, 1, 1, n, seconds)
        for name, n, seconds in (("a", 512, 2.0), ("b", 4096, 2.01))
    ]
    assert objections([slow, fast], CLUSTER) == []
    same = replace(fast, label="a seq_len=4096")
    assert objections([slow, same], CLUSTER) == []  # a round each: nobody knows how they scatter
    known = [replace(one, spread_s=0.01) for one in (slow, same)]
    assert len(objections(known, CLUSTER)) == 1
    assert objections([replace(one, spread_s=1.0) for one in known], CLUSTER) == []


def test_counted_traffic_replaces_theorys(tmp_path: Path) -> None:
    """1,000,000 bytes all-reduced by 4 ranks: 1.5 million sent; not under ZeRO 3."""
    reduced = CollectiveCount(
        rank=0, phase="backward", collective="all_reduce", calls=1, bytes=1_000_000
    )
    write(tmp_path, *(ok(zero=zero, collectives=[reduced]) for zero in (1, 3)))
    one, three = sorted(points_of(load(tmp_path)), key=lambda point: point.zero)
    assert (one.sent_bytes, three.sent_bytes) == (1_500_000, None)
    slow = replace(CLUSTER, intra=Link(1e5, 0.0))
    times = [replace(TRUTH, cluster=slow).predict(p) for p in (one, replace(one, sent_bytes=0.0))]
    assert times[0] - times[1] == pytest.approx(15)


def test_errors_of_a_fit_are_its_own_where_it_interpolates() -> None:
    points = [replace(p, step_s=p.step_s * (1.3 if p.seq_len == 512 else 1)) for p in made()]
    found = fit(points, CLUSTER)
    near = Setting(MODEL, CLUSTER, found.shares, gpus=4, seq_len=4096)
    own = fitted_errors(found, points, near)
    assert own.short == own.long and own.long.apart > 1.2
    assert own.long.source.endswith("recorded trials, left out of the fit")
    for further in (replace(near, seq_len=16_384), replace(near, gpus=8)):
        wide = fitted_errors(found, points, further)
        assert wide.long.most >= published_errors().long.most > own.long.most
        assert wide.short.most >= published_errors().short.most
