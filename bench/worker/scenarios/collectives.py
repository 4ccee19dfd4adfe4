"""Every differentiable collective, value and gradient, beside the analytic answer.

Ranks note the beginning and the end of each case as rows, so that a case which takes its
process along is known; `bench.controller.drivers.collectives` then runs the rest in fresh ranks
and puts the rows together. With `options.timing` this is followed by bandwidth and latency.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Dict, List

from bench.worker.collectives import catalogue, timing
from bench.worker.collectives.catalogue import MODULES, Case
from bench.worker.collectives.running import PATIENCE_S, partitions_of, run_cases
from bench.worker.rank import Rank


def run(rank: Rank) -> Dict[str, Any]:
    """Run the cases on the world and on the sequence-parallel groups; findings are in the rows."""
    c = rank.configuration
    partitions = partitions_of(c.world, c.sp)
    # the emulation of NCCL reaches this one module; the others would show gloo under its name
    modules = ("nn",) if c.comm.emulated else tuple(MODULES)
    wanted = _chosen(catalogue.cases(tuple(partitions), modules), c.options)
    if rank.index == 0:
        rank.row(event="plan", cases=len(wanted))
        for status, names in (
            ("absent", catalogue.absent(modules)),
            ("unknown signature", catalogue.unknown(modules)),
        ):
            for name in names:
                rank.row(event="listed", collective=name, status=status)

    def note(**fields: Any) -> None:
        rank.enter(fields["collective"][:20])
        rank.row(**fields)

    run_cases(
        partitions,
        rank.device,
        note,
        cases=wanted,
        patience_s=float(c.options.get("patience_s", PATIENCE_S)),
    )
    if c.options.get("timing"):
        groups = partitions.get("sp", partitions["world"])
        for row in timing.measure(c, groups, rank.device):
            rank.enter("timing")
            rank.row(event="timing", **row)
    return {}


def _chosen(cases: List[Case], options: Dict[str, Any]) -> List[Case]:
    """Those that `options.only` names and `options.skip` does not; both are lists of patterns."""
    only, skip = _patterns(options.get("only", ["*"])), _patterns(options.get("skip", []))
    exact = {pattern for pattern in skip if "*" not in pattern}
    globs = [pattern for pattern in skip if "*" in pattern]
    return [
        case
        for case in cases
        if any(fnmatchcase(case.name, pattern) for pattern in only)
        and case.name not in exact
        and not any(fnmatchcase(case.name, pattern) for pattern in globs)
    ]


def _patterns(value: Any) -> List[str]:
    return [value] if isinstance(value, str) else list(value)
