"""What speaks against a candidate: each gate catches what it is for, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.compare import compare
from analysis.gate import Gates, objections, objections_to
from bench.record import FirstLoss, RankMemory, Record, Status
from bench.trial import CommSpec
from tests.analysis.sides import TWICE, UPGRADE, WORKAROUND, broken, frame_of, timed
from tests.factories import failed, gradient, ok

SHARED = CommSpec(name="nccl", oversubscribe=True)
NAME = "torch-2.13 with all_gather"
EXACT = ", judged by the exact float64 reference (replica_mean)"


def lines(folder: Path, records: list[Record], **gates: Any) -> list[str]:
    comparison = compare(frame_of(folder, records), WORKAROUND, UPGRADE)
    return [one.line for one in objections(comparison, Gates(**gates))]


def memory(mebibytes: int) -> list[RankMemory]:
    return [RankMemory(rank=r, peak_bytes=mebibytes * 2**20, baseline_bytes=0) for r in range(4)]


@pytest.mark.parametrize(
    ("baseline", "candidate", "expected"),
    [
        pytest.param(timed(WORKAROUND, 1.0), timed(UPGRADE, 1.0), [], id="equal"),
        pytest.param(timed(WORKAROUND, 1.0), timed(UPGRADE, 0.5), [], id="faster"),
        pytest.param(timed(WORKAROUND, 1.0), timed(UPGRADE, 1.04), [], id="within"),
        pytest.param(
            timed(WORKAROUND, 1.0),
            timed(UPGRADE, 1.08),
            [f"{NAME} is slower by 8.0% (95 % interval 8.0% to 8.0%)"],
            id="slower",
        ),
        pytest.param(
            timed(WORKAROUND, 1.0),
            broken(UPGRADE),
            [f"{NAME} has no number (error 3)"],
            id="broken",
        ),
        pytest.param(
            timed(WORKAROUND, 1.0, 2),
            timed(UPGRADE, 1.0, 2),
            [f"{NAME} has too few rounds for a verdict (2 in common)"],
            id="few",
        ),
        pytest.param(
            timed(WORKAROUND, 1.0, comm=SHARED),
            timed(UPGRADE, 1.0, comm=SHARED),
            [f"{NAME} or the baseline shared GPUs, so the times allow no verdict"],
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
def test_slower_by_five_percent(
    tmp_path: Path, baseline: list[Record], candidate: list[Record], expected: list[str]
) -> None:
    assert lines(tmp_path, [*baseline, *candidate], slower=0.05) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, [], id="right"),
        pytest.param(
            {"gradient": TWICE}, [f"gradient that is ×2 in 3 of 3 trials{EXACT}"], id="×2"
        ),
        pytest.param(
            {"gradient": gradient(verdict="wrong", scale=0.7, scale_label="0.7")},
            [f"gradient that is wrong in 3 of 3 trials{EXACT}"],
            id="wrong",
        ),
        pytest.param(
            {"gradient": gradient(verdict="none", scale=None, scale_label="")},
            [f"gradient that is no gradient in 3 of 3 trials{EXACT}"],
            id="none",
        ),
        pytest.param(
            {"gradient": gradient(ranks_agree=False)},
            [f"gradient that is ranks differ in 3 of 3 trials{EXACT}"],
            id="ranks differ",
        ),
        pytest.param(
            {"gradient": gradient(mode="directional"), "gradient_mode": "directional"}
            | {"first_loss": FirstLoss(loss=5.0, reference=5.5, tolerance=0.1, agrees=False)},
            [
                "gradient that is first loss in 3 of 3 trials, judged by the loss along the "
                "gradient, directional (replica_mean)"
            ],
            id="first loss",
        ),
        pytest.param(
            {"gradient": None, "gradient_reason": "not compared: no memory for it"},
            ["gradient that was not compared in 3 of 3 trials (no memory for it)"],
            id="not compared",
        ),
        pytest.param(
            {"gradient": None},
            ["gradient that was not compared in 3 of 3 trials (nobody asked for it)"],
            id="not asked for",
        ),
    ],
)
@pytest.mark.parametrize("baseline", [gradient(), TWICE, None], ids=["right", "×2", "unknown"])
def test_a_wrong_gradient_is_refused_whatever_the_baseline_is(
    tmp_path: Path, baseline: Any, fields: dict[str, Any], expected: list[str]
) -> None:
    records = [*timed(WORKAROUND, 1.0, gradient=baseline), *timed(UPGRADE, 1.0, **fields)]
    assert lines(tmp_path, records, wrong=True) == [f"{NAME} has a {line}" for line in expected]


def test_one_round_that_is_wrong_or_unknown_is_enough(tmp_path: Path) -> None:
    candidate = timed(UPGRADE, 1.0)
    candidate[1] = candidate[1].model_copy(update={"gradient": TWICE})
    candidate[2] = candidate[2].model_copy(update={"gradient": None})
    records = [*timed(WORKAROUND, 1.0), *candidate]
    assert lines(tmp_path, records, wrong=True) == [
        f"{NAME} has a gradient that is ×2 in 1 of 3 trials{EXACT}",
        f"{NAME} has a gradient that was not compared in 1 of 3 trials (nobody asked for it)",
    ]


def test_unchecked_gradients_pass_only_where_that_is_allowed(tmp_path: Path) -> None:
    unknown = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0, gradient=None)]
    assert lines(tmp_path / "unknown", unknown, wrong=True, allow_unchecked=True) == []
    wrong = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0, gradient=TWICE)]
    assert len(lines(tmp_path / "wrong", wrong, wrong=True, allow_unchecked=True)) == 1
    failed_ = [*timed(WORKAROUND, 1.0), *broken(UPGRADE)]
    assert lines(tmp_path / "failed", failed_, wrong=True) == [
        f"{NAME} has a gradient that was not compared in 3 of 3 trials "
        "(IndexError in backward, ranks 2,3)"
    ]


@pytest.mark.parametrize(
    ("peak", "limit", "expected"),
    [
        (100, 0.05, []),
        (104, 0.05, []),
        (106, 0.05, [f"{NAME} needs 6.0% more memory (106.0 MiB instead of 100.0)"]),
        (106, 0.1, []),
        (50, 0.05, []),
    ],
)
def test_memory_beyond_the_limit(
    tmp_path: Path, peak: int, limit: float, expected: list[str]
) -> None:
    records = [
        *timed(WORKAROUND, 1.0, memory=memory(100)),
        *timed(UPGRADE, 1.0, memory=memory(peak)),
    ]
    assert lines(tmp_path, records, more_memory=limit) == expected


def test_memory_that_is_not_known_is_refused(tmp_path: Path) -> None:
    records = [*timed(WORKAROUND, 1.0, memory=memory(100)), *broken(UPGRADE)]
    assert lines(tmp_path / "one", records, more_memory=0.05) == [
        f"{NAME} has no peak memory (error 3)"
    ]
    records = [*timed(WORKAROUND, 1.0, memory=[]), *timed(UPGRADE, 1.0)]
    assert lines(tmp_path / "other", records, more_memory=0.05) == [
        "the baseline has no peak memory at any point"
    ]


def test_errors_and_points_that_were_not_run(tmp_path: Path) -> None:
    good = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0)]
    assert lines(tmp_path / "good", good, error=True) == []
    bad = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 1.0)[:2], broken(UPGRADE)[2]]
    assert lines(tmp_path / "bad", bad, error=True) == [
        f"{NAME} ended as error in 1 of 3 trials (IndexError in backward, ranks 2,3)"
    ]
    holes = [*good, *timed(WORKAROUND, 1.0, seq_len=2048)]
    assert lines(tmp_path / "holes", holes, error=True) == [f"seq_len=2048: {NAME} was not run"]
    assert lines(tmp_path / "holes", [], wrong=True) == [
        f"seq_len=2048: {NAME} was not run, so its gradient was not compared"
    ]


def test_a_gate_that_judged_nothing_does_not_pass(tmp_path: Path) -> None:
    refused = [
        failed(Status.UNSUPPORTED, round=r, **fields)
        for r in range(3)
        for fields in (
            {"environment": one.config.environment, "loss": one.config.loss}
            for one in timed(UPGRADE, 1.0, 1)
        )
    ]
    records = [*timed(WORKAROUND, 1.0), *refused]
    assert lines(tmp_path, records, wrong=True, error=True) == [
        f"no trial of {NAME} was run",
        f"no trial of {NAME} was run",
    ]


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
    [line] = lines(tmp_path, records, slower=0.05)
    assert line.startswith(f"seq_len=2048: {NAME} is slower by 20.0%")


def test_the_trials_of_a_sweep_are_judged_by_themselves(tmp_path: Path) -> None:
    records = [ok(), ok(loss="local", gradient=TWICE), failed(loss="local_mean")]
    frame = frame_of(tmp_path, records)
    gates = Gates(wrong=True, error=True)
    assert [(one.gate, one.line) for one in objections_to(frame, gates)] == [
        (
            "--fail-if-wrong",
            "environment=torch-2.13 loss=local zero=1: gradient that is ×2 in 1 of 1 trials"
            + EXACT,
        ),
        (
            "--fail-if-wrong",
            "environment=torch-2.13 loss=local_mean zero=1: gradient that was not compared in 1 "
            "of 1 trials (IndexError in backward, ranks 2,3)",
        ),
        (
            "--fail-on-error",
            "environment=torch-2.13 loss=local_mean zero=1: error in 1 of 1 trials "
            "(IndexError in backward, ranks 2,3)",
        ),
    ]


def test_trials_that_were_all_refused_do_not_pass(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, [failed(Status.UNSUPPORTED), failed(Status.UNSUPPORTED, sp=4)])
    found = objections_to(frame, Gates(wrong=True, error=True))
    assert [(one.gate, one.line) for one in found] == [
        ("--fail-if-wrong", "no trial was run"),
        ("--fail-on-error", "no trial was run"),
    ]
