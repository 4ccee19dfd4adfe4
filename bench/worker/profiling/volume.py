"""Calls, bytes and bandwidth of collectives, and Ulysses's beside what `bench.theory` demands."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from bench.theory import ulysses_bytes_per_step
from bench.trial import DTYPE_BYTES, Configuration
from bench.worker.profiling.breakdown import Call

ULYSSES_CALLS = 4
"""All-to-alls of a layer's forward: q, k, v and the output."""
PASSES = ("forward", "recompute", "backward")

# name -> (numerator's bytes as a multiple of what a rank hands in, over n ranks) of nccl-tests'
# bus bandwidth, doc/PERFORMANCE.md
_BUS = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: float(n - 1),
    "all_gather_into_tensor": lambda n: float(n - 1),
    "reduce_scatter": lambda n: (n - 1) / n,
    "reduce_scatter_tensor": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "all_to_all_single": lambda n: (n - 1) / n,
}


class Known(NamedTuple):
    """A collective call with what was found out about it."""

    call: Call
    category: str
    """What it served."""
    all_in: int
    """When the last rank had entered it [ns]."""
    backward_of: str
    """The backward node that made it; empty outside of backward."""

    @property
    def transfer_ns(self) -> int:
        """From the last rank's entry to the end."""
        return max(0, self.call.left - self.all_in)

    @property
    def pass_(self) -> str:
        """The pass of a step that an all-to-all of Ulysses belongs to.

        In backward, what the all-to-all's own node makes is backward's; the others run because
        activations are computed again.
        """
        if self.call.phase != "backward":
            return "forward"
        return "backward" if "AllToAllBackward" in self.backward_of else "recompute"


def table(calls: Sequence[Known], steps: int) -> List[Dict[str, Any]]:
    """A row for each purpose, phase, collective and size of group: calls and bytes per step.

    `bytes` are handed in by the rank; bandwidths [bytes/s] are those of nccl-tests, and missing
    where nothing was measured that took time.
    """
    groups: Dict[Tuple[str, str, str, int], List[Known]] = {}
    for known in calls:
        call = known.call
        key = (known.category, call.phase, call.name, len(call.ranks))
        groups.setdefault(key, []).append(known)
    rows = []
    for (category, phase, name, ranks), same in groups.items():
        size = sum(known.call.size for known in same)
        transfer_s = sum(known.transfer_ns for known in same) * 1e-9
        waiting_s = sum(max(0, one.all_in - one.call.entered) for one in same) * 1e-9
        bus = _BUS.get(name, lambda n: 1.0)(ranks)
        rows.append(
            {
                "category": category,
                "phase": phase,
                "collective": name,
                "group": ranks,
                "calls": len(same) / steps,
                "bytes": size / steps,
                "transfer_s": transfer_s / steps,
                "waiting_s": waiting_s / steps,
                "algorithm_bandwidth": size / transfer_s if transfer_s else None,
                "bus_bandwidth": size / transfer_s * bus if transfer_s else None,
            }
        )
    return rows


def against_theory(
    calls: Sequence[Known], configuration: Configuration, steps: int
) -> List[Dict[str, Any]]:
    """Ulysses's all-to-alls of one rank: counted calls and sent bytes per step, and theory's.

    A row for each pass. `agrees` wants all of them equal, to the byte. A rank keeps 1/sp of
    what it hands in: the rest is sent.
    """
    c = configuration
    expected = ulysses_bytes_per_step(c.model, c.sp, c.micro_batch, c.seq_len, DTYPE_BYTES[c.dtype])
    rows = []
    for name in PASSES:
        mine = [k.call for k in calls if k.category == "all_to_all" and k.pass_ == name]
        sent = sum(call.size * (len(call.ranks) - 1) // len(call.ranks) for call in mine)
        happens = name != "recompute" or c.model.activation_checkpointing
        should = ULYSSES_CALLS * c.model.layers if happens else 0
        theory = getattr(expected, name)
        rows.append(
            {
                "pass": name,
                "calls": len(mine) / steps,
                "expected_calls": should,
                "bytes": sent / steps,
                "expected_bytes": theory,
                "agrees": len(mine) == should * steps and sent == theory * steps,
            }
        )
    return rows
