"""What sections read of a record's `details`, by scenario, and what these must be for that.

`bench.record_check` decides what counts as a record, and passes `details` whatever they hold: a
scenario of the user's own may return anything. A section asks more of the records that it reads;
those that do not fit are left out of it, and named.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.columns import Content
from analysis.frame import placed_records, rows_with_records
from bench.record import Status
from bench.shapes import (
    FLAG,
    NUMBER,
    TEXT,
    Check,
    Misshapen,
    Shape,
    absent,
    by_name,
    count,
    mapping,
    nullable,
    number,
    one_of,
    sequence,
)

_COUNT = count()
_BYTES = count(high=2**63)
_STAGE = count(high=4)
_POSITIVE = number(0)
_MAYBE_TEXT = absent(nullable(TEXT))
_MAYBE_COUNT = absent(nullable(_COUNT))
_MAYBE_NUMBER = absent(nullable(NUMBER))

_COMPONENTS = mapping(
    dict.fromkeys(
        ("weights", "gradients", "optimizer", "buffers", "activations", "logits"), _POSITIVE
    )
)
_CAPACITY = mapping(
    {
        **dict.fromkeys(("longest", "shortest_failed", "resolution", "predicted"), _MAYBE_COUNT),
        "attempts": absent(
            sequence(
                mapping(
                    {
                        "seq_len": _COUNT,
                        "peak_bytes": nullable(_BYTES),
                        "predicted": mapping({"moment": TEXT, "components": _COMPONENTS}),
                    }
                )
            )
        ),
    }
)

_WRONG = absent(nullable(mapping({"scale": _MAYBE_NUMBER})))
_OUTCOME = mapping(
    {
        "ranks": sequence(_COUNT),
        "status": TEXT,
        "type": absent(TEXT),
        "value": _WRONG,
        "gradient": _WRONG,
    }
)
_COLLECTIVES = mapping(
    {
        "cases": absent(
            sequence(
                mapping(
                    {
                        **dict.fromkeys(("collective", "variant", "group"), TEXT),
                        **dict.fromkeys(("layout", "dtype"), TEXT),
                        "awaited": _MAYBE_TEXT,
                        "outcomes": sequence(_OUTCOME),
                    }
                )
            )
        ),
        "listed": absent(sequence(mapping({"collective": TEXT, "status": TEXT}))),
        "timing": absent(
            sequence(
                mapping(
                    {
                        **dict.fromkeys(("collective", "dtype"), TEXT),
                        **dict.fromkeys(("ranks", "seq_len", "bytes", "count"), _COUNT),
                        "direction": one_of("forward", "backward"),
                        "seconds": absent(nullable(_POSITIVE)),
                        **dict.fromkeys(("algorithm_bandwidth", "bus_bandwidth"), _MAYBE_NUMBER),
                        "wrong": _MAYBE_COUNT,
                        "error": _MAYBE_TEXT,
                    }
                )
            )
        ),
    }
)

_ENDED = {**dict.fromkeys(("phase", "exception", "message"), nullable(TEXT)), "reason": _MAYBE_TEXT}
_COMPAT = mapping(
    {
        "stages": absent(
            sequence(
                mapping(
                    {
                        **_ENDED,
                        "zero": _STAGE,
                        "status": one_of(*(status.value for status in Status)),
                        "verdict": nullable(one_of("match", "scaled", "wrong", "none")),
                        "scale": nullable(TEXT),
                    }
                )
            )
        ),
        "failure": absent(
            nullable(mapping({**_ENDED, "zero": nullable(_STAGE), "status": _MAYBE_TEXT}))
        ),
    }
)

_PROFILED = mapping(
    {
        "adds_up": FLAG,
        "bytes_agree": nullable(FLAG),
        "trace": absent(nullable(TEXT)),
        "breakdown": sequence(
            mapping(
                {
                    "rank": _COUNT,
                    "seconds": by_name(_POSITIVE),
                    **dict.fromkeys(("sum_s", "step_s", "measured_step_s"), _POSITIVE),
                    "off_by": NUMBER,
                }
            )
        ),
        "overlap": sequence(
            mapping({"rank": _COUNT, "transfer_s": _POSITIVE, "hidden_s": _POSITIVE})
        ),
        "collectives": sequence(
            mapping(
                {
                    **dict.fromkeys(("category", "phase", "collective"), TEXT),
                    **dict.fromkeys(("rank", "group"), _COUNT),
                    **dict.fromkeys(("calls", "bytes", "transfer_s", "waiting_s"), _POSITIVE),
                    **dict.fromkeys(("algorithm_bandwidth", "bus_bandwidth"), nullable(NUMBER)),
                }
            )
        ),
        "ulysses": sequence(
            mapping(
                {
                    "rank": _COUNT,
                    "pass": TEXT,
                    **dict.fromkeys(("calls", "expected_calls"), _POSITIVE),
                    **dict.fromkeys(("bytes", "expected_bytes"), _POSITIVE),
                    "agrees": FLAG,
                }
            )
        ),
    }
)


class Fitting(NamedTuple):
    """A frame's rows whose records a section can read, and the others' names."""

    frame: pd.DataFrame
    misfits: list[str]
    """`records-host.jsonl, line 3: details.stages is text, not a list`."""


def rows_with_details(
    folder: Path | str, frame: pd.DataFrame, scenario: str
) -> Iterator[tuple[dict[str, Any], Content]]:
    """`analysis.frame.rows_with_records` of a scenario; details that do not fit are left out."""
    for row, record in rows_with_records(folder, frame[frame.scenario == scenario]):
        if misfit(record) is None:
            yield row, record


def fitting(folder: Path | str, frame: pd.DataFrame) -> Fitting:
    """The rows of `frame` whose records' details fit their scenario, and what the others lack."""
    fit, misfits = [], []
    for one in placed_records(folder, frame):
        why = misfit(one.record)
        if why is None:
            fit.append(one.position)
        else:
            misfits.append(f"{one.place}: {why}")
    return Fitting(frame.iloc[sorted(fit)], misfits) if misfits else Fitting(frame, [])


def misfit(record: Content) -> str | None:
    """Why a section cannot read a record's details; None where it can, or none reads them."""
    check = _CHECKS.get(record["config"]["scenario"])
    try:
        if check is not None:
            check(record["details"])
    except Misshapen as error:
        return str(error.inside("details"))
    return None


def _checked(shape: Shape, details: Content) -> None:
    assert shape.check is not None
    shape.check(details)


def _check_collectives(details: Content) -> None:
    _checked(_COLLECTIVES, details)
    for place, case in enumerate(details.get("cases", [])):
        if any(one["status"] == "error" and "type" not in one for one in case["outcomes"]):
            raise Misshapen(f"cases[{place}].outcomes", "has an error without its type")


def _check_profile(details: Content) -> None:
    """A trial that did not come to its profile has none of it."""
    if not details.get("breakdown"):
        return
    _checked(_PROFILED, details)
    ranks = [one["seconds"] for one in details["breakdown"]]
    if any(one.keys() != ranks[0].keys() for one in ranks):
        raise Misshapen("breakdown", "has not the same categories on all ranks")
    if not sum(sum(one.values()) for one in ranks):
        raise Misshapen("breakdown", "has no time in any category")
    if not details["overlap"]:
        raise Misshapen("overlap", "is empty")
    if details["bytes_agree"] and all(row["pass"] != "forward" for row in details["ulysses"]):
        raise Misshapen("ulysses", "has no forward pass")


_CHECKS: dict[str, Check] = {
    "capacity": partial(_checked, _CAPACITY),
    "collectives": _check_collectives,
    "compat": partial(_checked, _COMPAT),
    "profile": _check_profile,
}
"""By scenario; a section of another scenario checks for itself what it reads."""
