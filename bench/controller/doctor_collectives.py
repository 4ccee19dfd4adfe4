"""Which differentiable collectives are broken on the sequence-parallel groups of an interpreter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from bench.controller.config import CONF
from bench.record import Record
from bench.trial import CommName

SCENARIO = "collectives"
OPTIONS: dict[str, Any] = {"only": ["*/sp/contiguous/float32"], "patience_s": 2.0}
"""Every collective with every argument, on the groups that matter here, in the plainest form."""


@dataclass(frozen=True)
class Survey:
    """What was found on one communication."""

    comm: CommName
    cases: list[dict[str, Any]]
    """As in the record's `details["cases"]`."""
    missing: Optional[str]
    """Why cases are left that nobody tried; None when all were."""

    @classmethod
    def of(cls, comm: CommName, record: Record) -> Survey:
        """What `record` says."""
        return cls(comm, record.details.get("cases", []), record.reason)

    @property
    def broken(self) -> list[dict[str, Any]]:
        """The cases in which some rank's value or gradient is not the analytic one."""
        return [case for case in self.cases if _faults(case)]


@dataclass(frozen=True)
class Line:
    """Variants of one collective that are broken in the same way."""

    collective: str
    variants: tuple[str, ...]
    fault: str


def available() -> bool:
    """Whether this spbench has the scenario."""
    return (CONF / "scenario" / f"{SCENARIO}.yaml").exists()


def lines(cases: Iterable[dict[str, Any]]) -> list[Line]:
    """Broken cases, those alike in one line, in the order of the cases."""
    groups: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        faults = "; ".join(dict.fromkeys(_words(one) for one in _faults(case)))
        groups.setdefault((case["collective"], faults), []).append(case["variant"])
    return [
        Line(name, tuple(filter(None, variants)), fault)
        for (name, fault), variants in groups.items()
    ]


def _faults(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in case["outcomes"] if one["status"] != "ok"]


def _words(outcome: dict[str, Any]) -> str:
    """`ValueError in backward on rank 2`."""
    what = outcome["status"]
    if what == "error" and outcome.get("type"):
        what = f"{outcome['type']} in {outcome.get('phase', 'an unknown phase')}"
    ranks = outcome["ranks"]
    return f"{what} on rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
