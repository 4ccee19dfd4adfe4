"""The line in which a process of a trial reports: whatever a scenario did, there is one.

A part that no record can hold becomes a sentence in `faults`, which makes the trial an error; the
other parts stay.
"""

from __future__ import annotations

import json
import os
import traceback
from typing import Any, Callable, Dict, List, Mapping

from bench.lines import MOST_REPORT_BYTES
from bench.plain import Unwritable, plain, plain_text, shown

_MOST_MESSAGE, _MOST_TRACEBACK, _MOST_NAME = 4000, 20000, 500
"""Characters of an exception that a record carries."""


def finished(rank: int, result: Any, **seen: Any) -> bytes:
    """The report of a process whose work returned `result`; `seen` is what else it tells."""
    faults: List[str] = []
    if isinstance(result, dict):
        kept = _kept(result, "the scenario returned", faults)
    else:
        kept = {}
        faults.append(f"the scenario returned {shown(result)}, which is no mapping")
    return _line(rank, seen, faults, outcome="finished", result=kept)


def raised(rank: int, exception: BaseException, where: Mapping[str, Any], **seen: Any) -> bytes:
    """The report of a process whose work raised; never raises itself.

    `where` holds the other fields of a `bench.record.RankError`.
    """
    try:
        faults: List[str] = []
        error = {"rank": rank, **_kept(where, "the rank noted", faults), **describe(exception)}
        return _line(rank, seen, faults, outcome="raised", error=error)
    except BaseException:  # noqa: BLE001 (a report is due whatever happens)
        return _encoded({"rank": rank, "outcome": "raised", "error": describe(exception)})


def describe(exception: BaseException) -> Dict[str, str]:
    """Type, message and traceback, cut to a length that a record can carry; never raises."""
    kind = type(exception)
    return {
        "type": _text(lambda: _name(kind))[:_MOST_NAME],
        "message": _text(lambda: str(exception))[:_MOST_MESSAGE],
        "traceback": _text(lambda: _traceback(exception))[-_MOST_TRACEBACK:],
    }


def send(fd: int, line: bytes) -> None:
    """Write a whole line into the pipe `fd`."""
    view = memoryview(line)
    while view:
        view = view[os.write(fd, view) :]


def _name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _traceback(exception: BaseException) -> str:
    kind = type(exception)
    return "".join(traceback.format_exception(kind, exception, exception.__traceback__))


def _text(make: Callable[[], str]) -> str:
    """What `make` returns; where it fails, as a `__str__` may, what it failed with."""
    try:
        return plain_text(make())
    except BaseException as failure:  # noqa: BLE001 (somebody else's `__str__`)
        return f"(no text: {type(failure).__name__})"


def _line(rank: int, seen: Mapping[str, Any], faults: List[str], **said: Any) -> bytes:
    message = {**_kept(seen, "the rank noted", faults), **said, "rank": rank, "faults": faults}
    line = _encoded(message)
    if len(line) <= MOST_REPORT_BYTES:
        return line
    fault = f"its report has {len(line):,} bytes; at most {MOST_REPORT_BYTES:,} are taken"
    if "result" in said:
        return _encoded({"rank": rank, "outcome": "finished", "result": {}, "faults": [fault]})
    return _encoded({"rank": rank, **said, "faults": [fault]})


def _kept(parts: Mapping[Any, Any], whose: str, faults: List[str]) -> Dict[str, Any]:
    """Those of `parts` that a record can hold; the others are named in `faults`."""
    kept: Dict[str, Any] = {}
    for name, part in dict(parts).items():
        try:
            kept.update(plain({name: part}))
        except Unwritable as error:
            label = plain_text(name)[:_MOST_NAME] if isinstance(name, str) else shown(name)
            faults.append(f"{whose} {label} that no record can hold: {error}")
    return kept


def _encoded(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
