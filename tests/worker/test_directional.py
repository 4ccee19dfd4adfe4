"""The scale of a gradient without a reference gradient: arithmetic, and real ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from bench.record import Record, Status
from bench.worker.metrics.directional import (
    Incomplete,
    Probe,
    Three,
    blindness,
    judge,
    loss_noise,
    overall,
)
from tests.conftest import RunTrial, configure

COMPLETE = Incomplete([], [], [])
SQUARES = (1.0, 2.0, 4.0)


def probe(ratio: float, curve: float = 0.0, gg: float = 1.0, miss: float = 0.0) -> Probe:
    """Steps of 1, √2 and 2 along a loss whose ratio is `ratio + curve · step²`."""
    predicted = Three(*map(math.sqrt, SQUARES))
    seen = [(ratio + curve * h2) * p for h2, p in zip(SQUARES, predicted)]
    seen[1] += miss * predicted.middle
    return Probe("layer 0", gg, predicted, Three(*seen))


def test_the_ratio_is_where_the_line_meets_a_step_of_zero() -> None:
    assert probe(0.5, curve=0.01).ratio == pytest.approx(0.5)
    # a miss of 0.035 of the middle one moves the intercept by 62/70 of that: 0.031
    assert probe(0.5, miss=0.035).ratio == pytest.approx(0.531)


def test_noise_is_how_far_the_lines_are_missed() -> None:
    assert loss_noise([probe(0.5, curve=0.01)]) == pytest.approx(0.0, abs=1e-12)
    # misses of 0.06 and 0.08: their mean square is 0.005, over 35/36
    noisy = [probe(1.0, miss=0.06), probe(1.0, miss=0.08)]
    assert loss_noise(noisy) == pytest.approx(math.sqrt(0.005 * 36 / 35))


def test_blocks_weigh_by_their_share_of_the_gradient() -> None:
    ratio, error = overall([probe(1.0, gg=3.0), probe(0.5, gg=1.0)])
    assert ratio == pytest.approx(0.875)
    assert error == pytest.approx(0.0, abs=1e-12)


def test_curvature_is_part_of_the_error() -> None:
    # the ratio rises by 0.1 per step²: 404/70 · 0.1² / 1 = 0.0577
    assert probe(1.0, curve=0.1).error(0.0) == pytest.approx(0.0577, abs=1e-4)
    assert not probe(1.0, curve=0.1).straight
    assert probe(1.0, curve=0.01).straight


@pytest.mark.parametrize(
    ("ratios", "verdict", "label"),
    [
        pytest.param([1.0, 1.0], "match", "×1", id="right"),
        pytest.param([0.5, 0.5], "scaled", "×2", id="twice"),
        pytest.param([2.0, 2.0], "scaled", "×1/2", id="half"),
        pytest.param([1 / 1.01, 1 / 1.01], "scaled", "×1.01", id="one-per-cent"),
        pytest.param([1.0, 0.99], "wrong", "×1.005", id="blocks-disagree"),
        pytest.param([-1.0, -1.0], "wrong", "?", id="loss-rises"),
    ],
)
def test_verdicts(ratios: list[float], verdict: str, label: str) -> None:
    found = judge([probe(ratio) for ratio in ratios], COMPLETE, 0.002, 2, rank=0)
    assert (found.mode, found.verdict, found.scale_label) == ("directional", verdict, label)


@pytest.mark.parametrize(
    ("lacking", "verdict"),
    [
        pytest.param(Incomplete(["a", "b"], [], []), "none", id="no-gradient"),
        pytest.param(Incomplete([], ["a"], []), "wrong", id="zero"),
        pytest.param(Incomplete([], [], ["a"]), "wrong", id="nan"),
    ],
)
def test_a_gradient_that_lacks_parts_is_no_match(lacking: Incomplete, verdict: str) -> None:
    found = judge([], lacking, 0.002, 2, rank=0)
    assert (found.verdict, found.scale, found.worst_parameter) == (verdict, None, "a")


def test_what_drowns_in_noise_is_not_compared() -> None:
    assert blindness([probe(1.0)]) is None
    assert blindness([probe(-1.0)]) is None  # a finding
    assert "rounding hides the change" in str(blindness([probe(1.0, miss=0.3)]))
    gone = Probe("embedding", 1.0, Three(0.0, 0.1, 0.2), Three(0.0, 0.1, 0.2))
    assert "rounds the step of the embedding away" in str(blindness([gone]))


def test_a_rank_whose_gradient_points_against_rank_0s_is_wrong_and_not_rounding() -> None:
    against = Probe("layer 0", 1.0, Three(-0.1, -0.15, -0.2), Three(0.1, 0.15, 0.2))
    assert blindness([against, probe(1.0)]) is None
    assert judge([against, probe(1.0, gg=99.0)], COMPLETE, 0.002, 2, rank=1).verdict == "wrong"


def test_a_direction_along_the_loss_but_against_the_gradient_is_wrong() -> None:
    """The ratio of both blocks is 1, though the first moves against this rank's gradient."""
    against = Probe("layer 0", 1.0, Three(-1.0, -1.5, -2.0), Three(-1.0, -1.5, -2.0))
    assert judge([against, probe(1.0, gg=99.0)], COMPLETE, 0.002, 2, rank=1).verdict == "wrong"


@pytest.mark.parametrize("misses", [[0.01], [0.01, -0.01]], ids=["scale", "blocks"])
def test_what_its_own_error_explains_is_no_objection(misses: list[float]) -> None:
    """Off by 62/70 · 1 % = 0.89 %, beyond the margin of 0.2 %.

    With a noise of 0.01 / sqrt(35/36) the error is sqrt(73/70) times that, 1.04 %, and four of
    them are allowed.
    """
    found = judge([probe(1.0, miss=miss) for miss in misses], COMPLETE, 0.002, 2, rank=0)
    assert found.verdict == "match"


def directional(run_trial: RunTrial, environment: str = "torch-2.13", **fields: Any) -> Record:
    record = run_trial(configure(environment, gradient_check="directional", **fields))
    assert record.status is Status.OK, record.reason
    assert record.gradient_mode == "directional"
    return record


@pytest.mark.environment
@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"zero": 0, "loss": "all_gather"}, 2.0),
        ({"zero": 1, "loss": "all_gather", "sp": 4}, 4.0),
        ({"zero": 2, "loss": "weighted_all_reduce"}, 1.0),
        ({"zero": 3, "loss": "all_gather"}, 1.0),
        ({"zero": 3, "loss": "weighted_all_reduce"}, 0.5),
        ({"zero": 1, "loss": "weighted_all_reduce", "environment": "torch-2.2"}, 1.0),
        ({"zero": 3, "loss": "weighted_all_reduce", "dtype": "bfloat16", "seq_len": 256}, 0.5),
    ],
    ids=str,
)
def test_the_scale_is_what_the_exact_reference_says(
    run_trial: RunTrial, fields: dict[str, Any], scale: float
) -> None:
    found = directional(run_trial, **fields).gradient
    assert found is not None and found.scale is not None and found.scale_error is not None
    assert found.verdict == ("match" if scale == 1.0 else "scaled")
    assert found.scale == pytest.approx(scale, rel=0.01)
    assert {block.name for block in found.blocks} == {
        "embedding",
        "layer 0",
        "layer 1",
        "norm and head",
    }


@pytest.mark.environment
def test_a_wrong_direction_shows_in_blocks_that_disagree(run_trial: RunTrial) -> None:
    found = directional(run_trial, loss="local_mean").gradient
    assert found is not None and found.verdict == "wrong"


@pytest.mark.environment
@pytest.mark.parametrize(("zero", "dtype"), [(1, "float32"), (3, "bfloat16")])
def test_the_weights_are_put_back_bit_by_bit(run_trial: RunTrial, zero: int, dtype: str) -> None:
    fields: dict[str, Any] = {"zero": zero, "dtype": dtype, "steps": 2, "learning_rate": 1e-2}
    checked = directional(run_trial, **fields)
    plain = run_trial(configure(gradient_check="off", **fields))
    assert [s.losses for s in checked.samples] == [s.losses for s in plain.samples]
    assert len(set(checked.samples[0].losses)) == 3  # and the steps did change them


@pytest.mark.environment
@pytest.mark.parametrize(
    ("fault", "kind"), [("nan", "nonfinite"), ("zero", "zero"), ("none", "missing")]
)
def test_a_fault_of_one_rank_alone_is_told_by_all(
    run_inside: Callable[..., Any], fault: str, kind: str
) -> None:
    told = run_inside("torch-2.13", "lacking.py", fault)
    assert [one["verdict"] for one in told] == ["wrong", "wrong"]
    assert [one[kind] for one in told] == [["head.weight"]] * 2
    assert [one["ranks_agree"] for one in told] == [False, True]


@pytest.mark.environment
def test_a_step_that_rounding_takes_away_is_made_longer(run_inside: Callable[..., Any]) -> None:
    """0.02 in bfloat16 moves by steps of 2^-13 = 1.2e-4: from 6e-5 on, of which 1e-5 is a sixth."""
    told = run_inside("torch-2.13", "lengthened.py")
    assert told["float32"]["times"] == 1.0
    assert told["bfloat16, far"]["times"] == 1.0
    assert told["bfloat16, near"]["times"] == 8.0
    assert all(one["restored"] for one in told.values())
    assert all(one["reached"] >= 0.5 for one in told.values())
