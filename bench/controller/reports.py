"""What the reports of a trial's ranks come to: one gradient, one line about what they raised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional

from bench.controller import abort, deaths
from bench.controller.faults import Fault
from bench.controller.rank_report import RankReport
from bench.failure_text import useful_line
from bench.record import NOT_STARTED, GradientError, RankError, RankSamples

FULL_BYTES = 256 * 2**20
"""Free memory of a GPU below which a library that could not start is taken to have found no room:
handle, workspace and kernels of cuBLAS take up to as much."""

_SEVERITY = {"match": 0, "scaled": 1, "wrong": 2, "none": 3}


class Reports:
    """What the ranks of a trial reported, each once."""

    def __init__(self, world: int) -> None:
        self._world = world
        self._by_rank: dict[int, RankReport] = {}

    def take(self, rank: int, report: RankReport) -> Optional[Fault]:
        """Keep what `rank` reported, unless it did before: that is a fault."""
        if rank in self._by_rank:
            return Fault(rank, "it reported a second time")
        self._by_rank[rank] = report
        return None

    def get(self, rank: int) -> Optional[RankReport]:
        """The report of `rank`; None: not yet, or none that could be read."""
        return self._by_rank.get(rank)

    def ranks(self) -> set[int]:
        """Those that reported."""
        return set(self._by_rank)

    def errors(self) -> list[RankError]:
        """What ranks raised, in rank order."""
        return [one.error for one in self._ordered() if one.error is not None]

    def parts(self, name: str) -> list[Any]:
        """The part `name` of the results of the ranks that returned it, in rank order."""
        found = [one.result.get(name) for one in self._ordered()]
        return [part for part in found if part is not None]

    def part(self, name: str) -> Any:
        """The part `name` of what rank 0 returned; None where it did not."""
        first = self._by_rank.get(0, RankReport())
        return first.result.get(name)

    def first_losses(self) -> list[list[float]]:
        """Mean loss and number of labels that each rank's first forward pass gave, in rank order.

        Empty unless every rank told it.
        """
        told = self.parts("first_loss")
        if len(told) < self._world:
            return []
        return [[math.nan if one is None else one for one in pair] for pair in told]

    def observed(self, name: str) -> Any:
        """What the first rank that reported saw (`bench.worker.rank.Rank.observed`)."""
        return next((one.observed.get(name) for one in self._ordered()), None)

    def late_imports(self) -> list[str]:
        """Modules that ranks imported themselves, of those that can be imported by name."""
        names = {name for one in self._ordered() for name in one.noted.get("late_imports", [])}
        return sorted(name for name in names if all(map(str.isidentifier, name.split("."))))

    def warnings(self) -> list[str]:
        """What libraries warned of, in rank order."""
        return [text for one in self._ordered() for text in one.noted.get("warnings", [])]

    def devices(self) -> list[str]:
        """Each rank's device."""
        told = [one.noted.get("device") for one in self._ordered()]
        return [device for device in told if device is not None]

    def _ordered(self) -> list[RankReport]:
        return [report for _, report in sorted(self._by_rank.items())]


def uneven(samples: Sequence[RankSamples]) -> Optional[Fault]:
    """What is wrong with samples that ranks returned of different numbers of steps."""
    first = samples[0] if samples else None
    for one in samples:
        if first is not None and len(one.step_s) != len(first.step_s):
            return Fault(
                one.rank,
                f"the scenario returned samples of {len(one.step_s)} steps, "
                f"and of {len(first.step_s)} on rank {first.rank}",
            )
    return None


def worst_gradient(parsed: Sequence[GradientError]) -> GradientError | None:
    """The rank furthest from the reference speaks for all; `ranks_agree` says whether it may."""
    if not parsed:
        return None
    worst = max(parsed, key=lambda e: (_SEVERITY[e.verdict], e.relative_error or 0.0))
    scales = [e.scale for e in parsed if e.scale is not None]
    slack = worst.tolerance if worst.scale_tolerance is None else worst.scale_tolerance
    close = len(scales) == len(parsed) and max(scales) - min(scales) <= (slack or 0.0)
    losses = [e.loss for e in parsed if e.loss is not None]
    return worst.model_copy(
        update={
            "ranks_agree": close
            and len({e.verdict for e in parsed}) == 1
            and all(e.ranks_agree for e in parsed),
            "loss": sum(losses) / len(losses) if len(losses) == len(parsed) else None,
        }
    )


def failure_line(errors: list[RankError]) -> str:
    """The most common error: `IndexError in backward on ranks 2, 3: tuple index out of range`."""
    groups: dict[tuple[str, str], list[RankError]] = {}
    for error in errors:
        groups.setdefault((error.type, error.phase), []).append(error)
    (kind, phase), same = max(groups.items(), key=lambda item: len(item[1]))
    said = useful_line(same[0].message, same[0].traceback)
    where = deaths.ranks([error.rank for error in same])
    return f"{kind} in {phase} on {where}" + (f": {said}" if said else "")


def is_out_of_memory(error: RankError) -> bool:
    """Whether an exception says that memory ran out, on CPU or GPU."""
    if error.type.rpartition(".")[2] in ("OutOfMemoryError", "MemoryError"):
        return True
    free = error.device_free_bytes
    full = NOT_STARTED in error.message and free is not None and free < FULL_BYTES
    return full or abort.says_out_of_memory(error.message)


def failed_by_itself(error: RankError) -> bool:
    """Whether an exception says more than that a peer was lost."""
    return is_out_of_memory(error) or not abort.says_peer_lost(error.message)
