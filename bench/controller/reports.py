"""What the reports of a trial's ranks come to: one gradient, one line about what they raised."""

from __future__ import annotations

from typing import Any

from bench.controller import abort, deaths
from bench.failure_text import useful_line
from bench.record import NOT_STARTED, GradientError, RankError

FULL_BYTES = 256 * 2**20
"""Free memory of a GPU below which a library that could not start is taken to have found no room:
handle, workspace and kernels of cuBLAS take up to as much."""

_SEVERITY = {"match": 0, "scaled": 1, "wrong": 2, "none": 3}


def worst_gradient(errors: list[dict[str, Any]]) -> GradientError | None:
    """The rank furthest from the reference speaks for all; `ranks_agree` says whether it may."""
    if not errors:
        return None
    parsed = [GradientError.model_validate(error) for error in errors]
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
            "loss": sum(losses) / len(losses) if losses else None,
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
