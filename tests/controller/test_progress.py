"""What a person reads while a sweep runs."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from bench.controller.precision import Widths
from bench.controller.progress import LiveDisplay, axes, describe, display, outcome
from bench.record import RankError, RankSamples, Record, Status
from bench.trial import CommSpec, Configuration, EnvironmentSpec, ModelSpec, Trial
from tests.factories import gradient

MODEL = ModelSpec(name="m", layers=1, hidden=16, heads=4, kv_heads=4, ffn=8, vocab=8)


def trial(round_: int = 0, attempt: int = 0, torch: str = "2.2.2", **fields: object) -> Trial:
    environment = EnvironmentSpec(name=f"torch-{torch}", torch=torch, deepspeed="1")
    values = {"environment": environment, "model": MODEL, "comm": CommSpec(name="gloo"), **fields}
    return Trial(configuration=Configuration(**values), round=round_, attempt=attempt)


def record(of: Trial, status: Status = Status.OK, **fields: object) -> Record:
    return Record.of(of, status, "2026-01-01T00:00:00+00:00", 1.23, **fields)


def error(rank: int, type_: str = "builtins.IndexError", phase: str = "backward") -> RankError:
    return RankError(rank=rank, type=type_, message="", traceback="", phase=phase)


def test_axes_are_what_differs_by_its_name() -> None:
    big = MODEL.model_copy(update={"name": "big", "layers": 9})
    trials = [trial(sp=2), trial(sp=4), trial(torch="2.3.1"), trial(model=big)]
    trials.append(trial(deepspeed={"zero_optimization": {"reduce_scatter": False}}))
    assert axes([one.configuration for one in trials]) == [
        "environment",
        "model",
        "sp",
        "deepspeed.zero_optimization.reduce_scatter",
    ]


def test_axes_within_one_model_are_its_fields() -> None:
    deep = MODEL.model_copy(update={"layers": 9})
    assert axes([trial().configuration, trial(model=deep).configuration]) == ["model.layers"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            record(trial(), Status.ERROR, errors=[error(2), error(3)]),
            "error IndexError in backward on ranks 2, 3 (1.2 s)",
            id="error",
        ),
        pytest.param(
            record(trial(), Status.ERROR, errors=[error(1), error(0, phase="step")]),
            "error IndexError in backward on rank 1 (1.2 s)",
            id="different errors",
        ),
        pytest.param(
            record(trial(), Status.CRASH, reason="rank 2 was killed by SIGKILL"),
            "crash rank 2 was killed by SIGKILL (1.2 s)",
            id="crash",
        ),
        # Steps take max(0.25, 0.5) = 0.5 and max(0.1, 0.2) = 0.2 and max(0.3, 0.4) = 0.4;
        # the median is 0.4 s. dp 2 * 512 tokens / 0.4 s = 2,560.
        pytest.param(
            record(
                trial(),
                samples=[
                    RankSamples(rank=r, warmup_s=[9], step_s=s, phases_s={}, losses=[])
                    for r, s in enumerate([[0.25, 0.2, 0.3], [0.5, 0.1, 0.4]])
                ],
            ),
            "ok 2,560 tokens/s (1.2 s)",
            id="ok",
        ),
        pytest.param(
            record(trial(), gradient=gradient(mode="proxy", verdict="scaled", scale_label="×2")),
            "✗ ×2: gradient scaled ×2 (2-layer proxy) (1.2 s)",
            id="proxy",
        ),
        pytest.param(
            record(trial(), gradient=gradient(verdict="wrong", scale_label="×0.7")),
            "✗ wrong: gradient wrong (1.2 s)",
            id="wrong",
        ),
        pytest.param(record(trial(), gradient=gradient()), "ok gradient match (1.2 s)", id="match"),
        pytest.param(
            record(trial(), gradient_mode="exact", gradient_reason="not compared: no memory"),
            "ok gradient not compared (1.2 s)",
            id="not compared",
        ),
    ],
)
def test_outcomes(found: Record, expected: str) -> None:
    assert outcome(found) == expected


def test_without_a_terminal_each_trial_is_a_line() -> None:
    text = io.StringIO()
    trials = [trial(sp=2), trial(sp=4), trial(sp=2, round_=1, attempt=1)]
    shown = display(
        Console(file=text, width=20), [one.configuration for one in trials], total=48, settled=11
    )
    with shown:
        shown.begin(trials[0])
        shown.done(trials[0], record(trials[0], Status.ERROR, errors=[error(2), error(3)]))
        shown.done(trials[1], None)
        shown.waiting(trials[2])
        shown.waiting(trials[2])
        shown.done(trials[2], record(trials[2]))
    assert text.getvalue().splitlines() == [
        "11 of 48 trials have a record already",
        "[12/48] torch-2.2.2 sp=2 r0: error IndexError in backward on ranks 2, 3 (1.2 s)",
        "[13/48] torch-2.2.2 sp=4 r0: done by another sweep",
        "waiting for another sweep: torch-2.2.2 sp=2 r1 attempt 2",
        "[14/48] torch-2.2.2 sp=2 r1 attempt 2: ok (1.2 s)",
    ]


def test_on_a_terminal_the_display_ends_with_counts_and_results() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None, _environ={})
    trials = [trial(sp=2), trial(sp=4)]
    shown = display(console, [one.configuration for one in trials], total=2, settled=0)
    assert isinstance(shown, LiveDisplay)
    with shown:
        for one, status in zip(trials, (Status.OK, Status.HANG), strict=True):
            shown.begin(one)
            shown.done(one, record(one, status, reason="no progress"))
    end = text.getvalue()
    for fragment in ("2/2", "ok 1", "hang 1", "sp=4 r0: hang no progress (1.2 s)", "finished"):
        assert fragment in end


def test_a_wrong_gradient_is_not_green_and_not_counted_as_ok() -> None:
    text = io.StringIO()
    console = Console(
        file=text, force_terminal=True, width=100, color_system="standard", _environ={}
    )
    trials = [trial(sp=2), trial(sp=4)]
    shown = display(console, [one.configuration for one in trials], total=2, settled=0)
    twice = gradient(verdict="scaled", scale=2.0, scale_label="×2")
    with shown:
        shown.done(trials[0], record(trials[0], gradient=twice))
        shown.done(trials[1], record(trials[1], gradient=gradient()))
    end = text.getvalue().split("\n")
    [wrong] = [line for line in end[-8:] if "sp=2 r0" in line]
    [right] = [line for line in end[-8:] if "sp=4 r0" in line]
    assert "\x1b[30;43m✗ ×2: gradient scaled ×2" in wrong  # black on yellow
    assert "\x1b[32mok gradient match" in right  # green
    assert "\x1b[32mok 1\x1b[0m  \x1b[30;43m✗ wrong gradient 1" in text.getvalue()


def test_rounds_and_attempts_are_described() -> None:
    assert describe(trial(round_=2), ["loss"]) == "torch-2.2.2 loss=all_gather r2"


def test_the_live_display_shows_the_interval_shrinking() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160, color_system=None, _environ={})
    trials = [trial(sp=2), trial(sp=4)]
    precise, wide = (one.configuration.hash for one in trials)
    shown = display(console, [one.configuration for one in trials], total=12, settled=12)
    with shown:
        for rounds, half in ((5, math.inf), (6, 0.091), (7, 0.083)):
            found = Widths(0.02, rounds, {precise: min(half, 0.01), wide: half})
            shown.precision(found, total=rounds + 8)
    end = text.getvalue()
    for fragment in (
        "±2 % wanted: 1 of 2 have it after 7 rounds, widest ±8.3 % (torch-2.2.2 sp=4)",
        "so far unknown → ±9.1 % → ±8.3 %",
        "12/15",
    ):
        assert fragment in end


def test_a_headline_stands_for_a_scenario_without_step_times() -> None:
    found = record(trial(), details={"headline": "8,192 tokens fit"})
    assert outcome(found) == "ok 8,192 tokens fit (1.2 s)"


def test_notes_of_a_long_trial_are_lines_of_a_log() -> None:
    text = io.StringIO()
    with display(Console(file=text), [trial().configuration], total=1, settled=0) as shown:
        shown.note(trial(), "4,096 fit, trying 8,192")
    assert text.getvalue() == "      torch-2.2.2 r0: 4,096 fit, trying 8,192\n"
