"""Reads what a rank reported: the controller's border, behind which every part has its type.

A scenario may return, and a rank's process may write, anything at all. What a record can hold is
kept; of the rest there is a fault, which makes the trial an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Optional

from pydantic import Field, TypeAdapter, ValidationError

from bench import record_check
from bench.controller.faults import Fault, mapping_in
from bench.plain import shown
from bench.record import (
    Clipping,
    CollectiveCount,
    GradientError,
    Part,
    RankError,
    RankMemory,
    RankSamples,
)

MOST_STEP_S = 1e9
"""Longer steps are no measurements, and their sums no numbers."""
_MOST_FAULTS, _MOST_CHARACTERS = 20, 1000
"""Of the sentences in which a rank says itself what is wrong with its report."""

_PARTS: dict[str, TypeAdapter[Any]] = {
    "samples": TypeAdapter(Optional[RankSamples]),
    "memory": TypeAdapter(Optional[RankMemory]),
    "gradient": TypeAdapter(Optional[GradientError]),
    "gradient_reason": TypeAdapter(Optional[str]),
    "clipping": TypeAdapter(Optional[Clipping]),
    "sketch": TypeAdapter(Optional[str]),
    "sketch_version": TypeAdapter(Optional[int]),
    "collectives": TypeAdapter(Optional[list[CollectiveCount]]),
    "details": TypeAdapter(Optional[dict[str, Any]]),
    "first_loss": TypeAdapter(
        Optional[Annotated[list[Optional[float]], Field(min_length=2, max_length=2)]]
    ),
}
"""What a scenario may return; None stands for nothing."""
_NOTED: dict[str, TypeAdapter[Any]] = {
    "device": TypeAdapter(Optional[str]),
    "warnings": TypeAdapter(list[str]),
    "late_imports": TypeAdapter(list[str]),
}
"""What a rank notes beside its result."""
_OBSERVED: dict[str, TypeAdapter[Any]] = {
    "variables": TypeAdapter(dict[str, str]),
    "sdpa_kernel": TypeAdapter(Optional[str]),
    "mesh_setup": TypeAdapter(Optional[str]),
    "shared_gpu": TypeAdapter(bool),
}
"""What it saw of its surroundings (`bench.worker.rank.Rank.observed`)."""


@dataclass(frozen=True)
class RankReport:
    """A report as far as a record can hold it."""

    error: Optional[RankError] = None
    """What the rank raised; None: it finished."""
    result: dict[str, Any] = field(default_factory=dict)
    """What its scenario returned: see `_PARTS`; a part that is not there is None."""
    noted: dict[str, Any] = field(default_factory=dict)
    observed: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the rank came to its end."""
        return self.error is None


def read(rank: int, text: str) -> tuple[Optional[RankReport], list[Fault]]:
    """What process `rank` reported in the line `text`; no report where the line is none.

    Never raises: what is wrong is in the faults.
    """
    try:
        message = _message(rank, text)
    except ValueError as error:
        return None, [Fault(rank, str(error))]
    wrong: list[str] = _texts(message.get("faults"))
    noted = _taken(message, _NOTED, "the rank noted", wrong)
    seen = _mapping("observed", message.get("observed", {}), wrong)
    observed = _taken(seen, _OBSERVED, "the rank observed", wrong)
    if message["outcome"] == "raised":
        raised = _error(rank, _mapping("error", message.get("error"), wrong))
        report = RankReport(raised, noted=noted, observed=observed)
    else:
        result = _result(rank, _mapping("result", message.get("result"), wrong), wrong)
        report = RankReport(result=result, noted=noted, observed=observed)
    return report, [Fault(rank, one) for one in wrong]


def _message(rank: int, text: str) -> dict[str, Any]:
    """The report in `text`; ValueError that says why there is none."""
    try:
        message = mapping_in(text)
    except ValueError as error:
        raise ValueError(f"it reported a line that {error}") from None
    named, outcome = message.get("rank"), message.get("outcome")
    if named != rank or isinstance(named, bool):
        raise ValueError(f"it reported as rank {shown(named)}")
    if outcome not in ("finished", "raised"):
        raise ValueError(f"it reported the outcome {shown(outcome)}")
    return message


def _result(rank: int, given: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
    unknown = sorted(given.keys() - _PARTS.keys())
    if unknown:
        names = ", ".join(map(shown, unknown[:3])) + (", …" if len(unknown) > 3 else "")
        wrong.append(f"the scenario returned {names}; a record takes {', '.join(_PARTS)}")
    result = _taken(given, _PARTS, "the scenario returned", wrong)
    for name, part in list(result.items()):
        why = _why_unsound(rank, name, part)
        if why is not None:
            wrong.append(f"the scenario returned {name} that no record can hold: {why}")
            del result[name]
    return result


def _taken(
    given: dict[str, Any], adapters: dict[str, TypeAdapter[Any]], whose: str, wrong: list[str]
) -> dict[str, Any]:
    """Those parts of `given` that have their type; the others go into `wrong`."""
    taken = {}
    for name, adapter in adapters.items():
        if name not in given:
            continue
        try:
            taken[name] = adapter.validate_python(given[name], strict=True)
        except ValidationError as error:
            wrong.append(f"{whose} {name} that no record can hold: {_first(error)}")
    return taken


def _why_unsound(rank: int, name: str, part: Any) -> Optional[str]:
    """Why readers could not use a part although it has its type; None where they can."""
    if part is None:
        return None
    if name in ("samples", "memory", "collectives"):
        ranks = [one.rank for one in (part if isinstance(part, list) else [part])]
        other = next((one for one in ranks if one != rank), rank)
        if other != rank:
            return f"it is of rank {other}"
    if isinstance(part, Part) and (why := record_check.refusal(name, part.model_dump())):
        return why
    if name == "samples":
        return _unsound_times(part)
    headline = part.get("headline") if name == "details" else None
    if headline is not None and not isinstance(headline, str):
        return f"headline: {shown(headline)} is no text"
    return None


def _unsound_times(samples: RankSamples) -> Optional[str]:
    steps = len(samples.step_s)
    for name, times in samples.phases_s.items():
        if len(times) != steps:
            return f"phases_s.{name}: {len(times)} times for {steps} steps"
    longest = max([*samples.warmup_s, *samples.step_s], default=0.0)
    return f"a time of {longest:g} s" if longest >= MOST_STEP_S else None


def _error(rank: int, given: dict[str, Any]) -> RankError:
    """What a rank raised, as far as it says so."""
    texts = {
        name: given[name] if isinstance(given.get(name), str) else f"({name} not told)"
        for name in ("type", "message", "traceback", "phase")
    }
    numbers = {
        name: given[name] if type(given.get(name)) is int else None
        for name in ("step", "device_free_bytes")
    }
    return RankError(rank=rank, **texts, **numbers)


def _mapping(name: str, value: Any, wrong: list[str]) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    wrong.append(f"it reported {name} that is no mapping: {shown(value)}")
    return {}


def _texts(value: Any) -> list[str]:
    return (
        [str(one)[:_MOST_CHARACTERS] for one in value[:_MOST_FAULTS]]
        if isinstance(value, list)
        else []
    )


def _first(error: ValidationError) -> str:
    """The first thing that is wrong: where, why, and what was given."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    said = f"{first['msg']}, not {shown(first['input'])}"
    return f"{place}: {said}" if place else said
