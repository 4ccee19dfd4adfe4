"""Does this torch run with this DeepSpeed? One short training for each ZeRO stage.

The environment comes first: does it resolve, install and import? Then each stage of
`options.zero` (0 to 3 unless given) trains in fresh processes, all else as the configuration
says: conf/scenario/compat.yaml asks for two steps. `details` of the record:

    stages   a dictionary for each stage that was tried, in order:
             zero, status, duration_s, reason (one line, None when ok), verdict and scale of the
             gradient (None where it was not compared), traceback of what most ranks raised,
             log, and the fields of `failure`
    failure  of the first thing that failed, None when nothing did: zero (None where the
             environment failed), phase (`resolve`, `install`, `import`, `setup`, `forward`, …),
             exception (name of its class), message
    versions what conf/environment or the command line asked for, torch and deepspeed

The record's status is `ok`, or that of the first stage that is not.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any, Optional

from bench.controller.drivers import Launch, Note
from bench.record import RankError, Record, Status
from bench.trial import Configuration, Trial

ALL_STAGES = (0, 1, 2, 3)


def run(trial: Trial, launch: Launch, note: Note) -> Record:
    """Try every stage, unless the environment itself fails: that would repeat the same."""
    started = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    try:
        stages = stages_of(trial.configuration)
    except ValueError as error:
        return Record.of(trial, Status.ERROR, started, 0.0, reason=str(error))
    tried: list[Record] = []
    for zero in stages:
        note(f"ZeRO {zero}")
        tried.append(launch(_training(trial, zero)))
        if tried[-1].status is Status.ENVIRONMENT:
            break
    return _record(trial, started, tried)


def stages_of(configuration: Configuration) -> tuple[int, ...]:
    """The ZeRO stages to try, in order; ValueError when `options.zero` is no list of stages."""
    asked = configuration.options.get("zero", list(ALL_STAGES))
    stages = asked if isinstance(asked, list) else [asked]
    if not stages or any(type(one) is not int or one not in ALL_STAGES for one in stages):
        raise ValueError(
            f"options.zero={asked}: must be ZeRO stages; allowed: a list such as [0,1,2,3]"
        )
    return tuple(dict.fromkeys(stages))


def launched(c: Configuration) -> Configuration:
    """The same configuration, as a training."""
    return c.model_copy(update={"scenario": "train", "options": {}})


def _training(trial: Trial, zero: int) -> Trial:
    """The same configuration, as a training at one stage."""
    configuration = launched(trial.configuration).model_copy(update={"zero": zero})
    return trial.model_copy(update={"configuration": configuration})


def _record(trial: Trial, started: str, tried: list[Record]) -> Record:
    stages = [_stage(one) for one in tried if one.status is not Status.ENVIRONMENT]
    bad = next((one for one in tried if one.status is not Status.OK), None)
    failure = None if bad is None else _failure(bad)
    spec = trial.configuration.environment
    details = {
        "stages": stages,
        "failure": failure,
        "versions": {"torch": spec.torch, "deepspeed": spec.deepspeed},
        "headline": headline(stages),
    }
    fields: dict[str, Any] = {"details": details}
    fields["worker"] = next((one.worker for one in tried if one.worker is not None), None)
    if bad is not None:
        place = "" if bad.status is Status.ENVIRONMENT else f"ZeRO {bad.config.zero}: "
        fields.update(reason=f"{place}{bad.reason}", errors=bad.errors, ranks=bad.ranks)
        fields["log"] = bad.log
    status = Status.OK if bad is None else bad.status
    return Record.of(trial, status, started, sum(one.duration_s for one in tried), **fields)


def headline(stages: list[dict[str, Any]]) -> str:
    """`ZeRO 0 1 2 3 run`: the stages that do."""
    ran = [str(one["zero"]) for one in stages if one["status"] == Status.OK.value]
    return f"ZeRO {' '.join(ran)} run" if ran else "no ZeRO stage ran"


def _stage(record: Record) -> dict[str, Any]:
    gradient, error = record.gradient, _commonest(record.errors)
    found = {
        "zero": record.config.zero,
        "status": record.status.value,
        "duration_s": record.duration_s,
        "reason": record.reason,
        "verdict": gradient.verdict if gradient is not None else None,
        "scale": gradient.scale_label if gradient is not None else None,
        "traceback": error.traceback if error is not None else None,
        "log": record.log,
    }
    nothing = {"phase": None, "exception": None, "message": None}
    return {**nothing, **(_failure(record) if record.status is not Status.OK else {}), **found}


def _failure(record: Record) -> dict[str, Any]:
    """Where and how a launch failed."""
    of_environment = record.status is Status.ENVIRONMENT
    zero = None if of_environment else record.config.zero
    gone = next((one for one in record.ranks if one.outcome in ("killed", "exited")), None)
    error = _commonest(record.errors)
    if gone is not None or error is None:  # who is gone comes before what its peers raised
        stuck = gone or next((one for one in record.ranks if one.outcome == "interrupted"), None)
        phase = stuck.phase if stuck is not None else "versions" if of_environment else None
        failure = {"phase": phase, "exception": None, "message": record.reason}
    else:
        phase = "import" if _while_importing(error) else error.phase
        failure = {"phase": phase, **_exception(error)}
    return {"zero": zero, **failure}


def _commonest(errors: list[RankError]) -> Optional[RankError]:
    """What most ranks raised; of several as frequent, the first rank's."""
    counts = Counter((error.type, error.phase) for error in errors)
    return max(errors, key=lambda error: counts[error.type, error.phase], default=None)


def _while_importing(error: RankError) -> bool:
    """Whether a rank raised in its set-up because a module could not be imported.

    What the server cannot import beyond torch and DeepSpeed themselves (DeepSpeed's Ulysses
    layer, say) is imported, and fails, in the ranks. Code of a module runs when it is imported.
    """
    kind = error.type.rpartition(".")[2]
    importing = kind in ("ImportError", "ModuleNotFoundError") or ", in <module>" in error.traceback
    return error.phase == "setup" and importing


def _exception(error: RankError) -> dict[str, Any]:
    """Name and text of an exception.

    An import that failed stands in the last line of the traceback that the server sent. Of an
    environment that cannot be made, uv's own words say more than spbench's.
    """
    name: Optional[str] = error.type.rpartition(".")[2]
    message = error.message
    lines = error.traceback.strip().splitlines()
    if error.type == "ServerBroken" and lines:
        kind, colon, text = lines[-1].partition(": ")
        name, message = kind.rpartition(".")[2], text if colon else kind
    elif name == "EnvironmentProblem":
        name = None
        message = "\n".join(line.strip().removeprefix("uv: ") for line in lines) or message
    return {"exception": name, "message": message}
