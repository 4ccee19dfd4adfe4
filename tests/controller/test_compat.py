"""The driver of `compat`: a launch for each ZeRO stage, and what its record says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.controller.drivers import find
from bench.controller.environments import EnvironmentProblem, key_of, provide
from bench.controller.hosts import Hosts
from bench.controller.interpreter import Interpreter
from bench.record import RankError, Record, Status
from bench.trial import EnvironmentSpec, Trial
from tests.conftest import RunTrial, configure
from tests.factories import configuration, error, failed, gradient, ok

ENVIRONMENT = EnvironmentSpec(name="pair", torch="2.2.2", deepspeed="0.18.6")


def compat(launch: Callable[[Trial], Record], **options: Any) -> Record:
    """The record of a trial whose launches `launch` answers."""
    c = configuration(scenario="compat", environment=ENVIRONMENT, options=options)
    driver = find("compat")
    assert driver is not None
    return driver(Trial(configuration=c, round=2), launch, lambda text: None)


def test_each_stage_is_a_training() -> None:
    launched: list[Trial] = []

    def launch(trial: Trial) -> Record:
        launched.append(trial)
        return ok(zero=trial.configuration.zero)

    noted: list[str] = []
    options = {"zero": [0, 2]}
    c = configuration(scenario="compat", environment=ENVIRONMENT, options=options, steps=7)
    driver = find("compat")
    assert driver is not None
    record = driver(Trial(configuration=c, round=2), launch, noted.append)
    inner = [one.configuration for one in launched]
    assert [(one.scenario, one.zero, one.steps, one.warmup_steps) for one in inner] == [
        ("train", 0, 7, 2),
        ("train", 2, 7, 2),
    ]
    assert {(one.environment, str(one.options), one.sp) for one in inner} == {
        (ENVIRONMENT, "{}", 2)
    }
    assert noted == ["ZeRO 0", "ZeRO 2"]
    assert (record.config, record.round) == (c, 2)


def test_a_stage_that_fails_does_not_end_the_others() -> None:
    def launch(trial: Trial) -> Record:
        zero = trial.configuration.zero
        if zero == 1:
            return failed(zero=1, reason="IndexError in backward on ranks 2, 3: tuple index")
        label = {"verdict": "scaled", "scale_label": "×1/2"} if zero == 3 else {}
        return ok(zero=zero, gradient=gradient(**label))

    record = compat(launch)
    stages = record.details["stages"]
    assert [(one["zero"], one["status"], one["scale"]) for one in stages] == [
        (0, "ok", "×1"),
        (1, "error", None),
        (2, "ok", "×1"),
        (3, "ok", "×1/2"),
    ]
    assert [one["verdict"] for one in stages] == ["match", None, "match", "scaled"]
    expected = {"phase": "backward", "exception": "IndexError", "message": error(2).message}
    assert record.details["failure"] == {"zero": 1, **expected}
    assert {key: stages[1][key] for key in expected} == expected
    assert [one["traceback"] for one in stages] == [None, error(2).traceback, None, None]
    assert record.details["headline"] == "ZeRO 0 2 3 run"
    assert record.status is Status.ERROR
    assert record.reason == "ZeRO 1: IndexError in backward on ranks 2, 3: tuple index"
    assert [one.rank for one in record.errors] == [2, 3]
    assert record.duration_s == 4 * 1.5


def test_all_stages_that_run_make_it_ok() -> None:
    record = compat(lambda trial: ok(zero=trial.configuration.zero))
    assert (record.status, record.reason) == (Status.OK, None)
    assert record.details["failure"] is None
    assert record.details["versions"] == {"torch": "2.2.2", "deepspeed": "0.18.6"}


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        pytest.param(
            RankError(
                rank=0,
                type="EnvironmentProblem",
                message="environment 'pair': no such version; change it",
                traceback="  uv: error: No solution found\n  uv:   cause: no version",
                phase="resolve",
            ),
            ("resolve", None, "error: No solution found\n  cause: no version"),
            id="resolve",
        ),
        pytest.param(
            RankError(
                rank=0,
                type="ServerBroken",
                message="importing torch and DeepSpeed failed",
                traceback="Traceback …\npackage.errors.NoSuchThing: no: such thing",
                phase="import",
            ),
            ("import", "NoSuchThing", "no: such thing"),
            id="import",
        ),
    ],
)
def test_an_environment_that_fails_is_tried_once(
    raised: RankError, expected: tuple[object, ...]
) -> None:
    launched: list[int] = []

    def launch(trial: Trial) -> Record:
        launched.append(trial.configuration.zero)
        return failed(Status.ENVIRONMENT, errors=[raised], reason="no environment", worker=None)

    record = compat(launch)
    assert launched == [0]
    assert record.status is Status.ENVIRONMENT
    assert record.reason == "no environment"
    failure = record.details["failure"]
    assert failure["zero"] is None
    assert (failure["phase"], failure["exception"], failure["message"]) == expected
    assert record.details["stages"] == []


def test_what_most_ranks_raised_is_the_failure() -> None:
    raised = [error(0, "builtins.RuntimeError", "forward"), error(1), error(2)]
    record = compat(lambda trial: failed(errors=raised), zero=0)
    assert record.details["failure"]["exception"] == "IndexError"


@pytest.mark.parametrize(
    ("kind", "traceback", "phase"),
    [
        ("AttributeError", '  File "layer.py", line 326, in <module>\nAttributeError: x', "import"),
        ("ImportError", '  File "train.py", line 1, in run\nImportError: x', "import"),
        ("AttributeError", '  File "engine.py", line 1, in __init__\nAttributeError: x', "setup"),
    ],
    ids=["code of a module", "an import", "other set-up"],
)
def test_what_a_rank_cannot_import_is_an_import(kind: str, traceback: str, phase: str) -> None:
    raised = RankError(
        rank=0, type=f"builtins.{kind}", message="x", traceback=traceback, phase="setup"
    )
    record = compat(lambda trial: failed(errors=[raised], zero=trial.configuration.zero))
    assert [one["phase"] for one in record.details["stages"]] == [phase] * 4
    assert record.details["failure"]["exception"] == kind
    assert record.details["failure"]["message"] == "x"


def test_a_hang_has_a_phase_and_no_exception() -> None:
    stuck = [{"rank": 0, "outcome": "interrupted", "phase": "backward"}]

    def launch(trial: Trial) -> Record:
        zero = trial.configuration.zero
        return failed(Status.HANG, ranks=stuck, reason="no progress for 60 s", zero=zero)

    record = compat(launch, zero=[3])
    assert record.status is Status.HANG
    assert record.details["failure"] == {
        "zero": 3,
        "phase": "backward",
        "exception": None,
        "message": "no progress for 60 s",
    }


@pytest.mark.parametrize("zero", [[], [4], ["1"], [True], "all", None, {"a": 1}], ids=str)
def test_what_is_no_stage_is_said(zero: object) -> None:
    record = compat(lambda trial: pytest.fail("launched"), zero=zero)
    assert record.status is Status.ERROR
    assert record.reason == (
        f"options.zero={zero}: must be ZeRO stages; allowed: a list such as [0,1,2,3]"
    )


def test_an_environment_that_cannot_be_made_is_a_record_and_asked_for_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def interpreter_of(spec: EnvironmentSpec) -> Interpreter:
        asked.append(spec.name)
        raise EnvironmentProblem(f"environment '{spec.name}': no such version\n  uv: x", "resolve")

    c = configure(scenario="compat").model_copy(update={"environment": ENVIRONMENT})
    with Hosts(interpreter_of) as hosts:
        records = [hosts.run(Trial(configuration=c, round=i), tmp_path) for i in range(2)]
    assert [record.status for record in records] == [Status.ENVIRONMENT] * 2
    assert records[0].reason == "environment 'pair': no such version"
    assert records[1].details["failure"]["phase"] == "resolve"
    assert asked == ["pair"]


@pytest.mark.environment
def test_real_stages_on_real_ranks(run_trial: RunTrial) -> None:
    record = run_trial(configure(scenario="compat", options={"zero": [0, 3]}))
    stages = record.details["stages"]
    assert [(one["zero"], one["status"]) for one in stages] == [(0, "ok"), (3, "ok")]
    assert all(one["verdict"] in ("match", "scaled") for one in stages)
    assert record.worker is not None
    assert record.worker.deepspeed == "0.18.2"


@pytest.mark.environment
def test_an_environment_that_is_left_has_no_server(results: Path) -> None:
    before = set(psutil.Process().children())
    trial = Trial(configuration=configure(scenario="drill"), round=0)
    with Hosts(provide) as hosts:
        assert hosts.run(trial, results).status is Status.OK
        hosts.leave("0123456789abcdef")
        assert len(set(psutil.Process().children()) - before) == 1
        hosts.leave(key_of(trial.configuration.environment))
        assert set(psutil.Process().children()) <= before
