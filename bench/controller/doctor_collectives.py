"""Which differentiable collectives are broken on the sequence-parallel groups of an interpreter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from bench.controller.config import CONF
from bench.record import Record
from bench.trial import CommName

SCENARIO = "collectives"
OPTIONS: dict[str, Any] = {
    "only": ["*/sp/contiguous/float32"],
    "skip": ["*root_by=group*"],
    "patience_s": 2.0,
}
"""Every collective with every argument, on the groups that matter here, in the plainest form. A
function that takes no rank in the group as its root, as most do not, is not broken for that.
"""


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
    """Broken ones of `cases`, those alike in one line, in the order of the cases.

    How a result was awaited is named where it matters: `dim=1,awaited=method`.
    """
    tried: dict[tuple[str, str], set[str]] = {}
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for case in cases:
        collective, variant, awaited = case["collective"], case["variant"], case.get("awaited", "")
        tried.setdefault((collective, variant), set()).add(awaited)
        if _faults(case):
            alike = groups.setdefault((collective, _words(_faults(case))), {})
            alike.setdefault(variant, []).append(awaited)
    found = []
    for (collective, fault), variants in groups.items():
        labels = [
            label
            for variant, awaited in variants.items()
            for label in _labels(variant, awaited, tried[collective, variant])
        ]
        found.append(Line(collective, tuple(filter(None, labels)), fault))
    return found


def _labels(variant: str, awaited: list[str], tried: set[str]) -> list[str]:
    """`dim=1`, or `dim=1,awaited=method` and so on where not all that were tried are alike."""
    if set(awaited) == tried:
        return [variant]
    return [",".join(filter(None, (variant, f"awaited={one}"))) for one in awaited]


def _faults(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in case["outcomes"] if one["status"] != "ok"]


def _words(faults: Iterable[dict[str, Any]]) -> str:
    """`ValueError in backward on rank 2; hang on rank 3`."""
    ranks: dict[str, list[int]] = {}
    for one in faults:
        what = one["status"]
        if what == "error" and one.get("type"):
            what = f"{one['type']} in {one.get('phase', 'an unknown phase')}"
        ranks.setdefault(what, []).extend(one["ranks"])
    return "; ".join(
        f"{what} on rank{'s' if len(on) > 1 else ''} {', '.join(map(str, sorted(on)))}"
        for what, on in ranks.items()
    )
