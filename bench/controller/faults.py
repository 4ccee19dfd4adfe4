"""What is wrong with what a rank handed over, where no record can hold it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.controller import deaths
from bench.plain import Unwritable, plain, shown
from bench.record import RankError

TYPE, PHASE = "UnusableReport", "report"
"""Of the errors that a record has for faults, in place of an exception's."""


class Fault(NamedTuple):
    """A sentence on what `rank` handed over: `the scenario returned None, which is no mapping`."""

    rank: int
    text: str

    @property
    def error(self) -> RankError:
        """The fault among the errors of a record."""
        return RankError(rank=self.rank, type=TYPE, message=self.text, traceback="", phase=PHASE)


def mapping_in(line: str | bytes) -> dict[str, Any]:
    """The mapping that a rank wrote as JSON; ValueError that says why it is none."""
    try:
        found = plain(json.loads(line))
    except Unwritable as error:
        raise ValueError(f"cannot be recorded: {error}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"is no JSON: {shown(line)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"is no mapping: {shown(found)}")
    return found


def reason(faults: Sequence[Fault]) -> str:
    """`ranks 0, 1: the scenario returned …`: the first fault, and how many others there are."""
    first = faults[0].text
    alike = {fault.rank for fault in faults if fault.text == first}
    others = len({fault.text for fault in faults} - {first})
    more = f" (and {others} more)" if others else ""
    return f"{deaths.ranks(alike)}: {first}{more}"
