"""What it means for a trial that ranks ended without a result: the first to end tells."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.controller import abort
from bench.record import Status


class Death(NamedTuple):
    """How a rank's process ended, as `waitpid` told."""

    rank: int
    signal: int | None
    exit_code: int | None

    @property
    def manner(self) -> str:
        """`SIGKILL` or `exit code 3`."""
        if self.signal is None:
            return f"exit code {self.exit_code}"
        try:
            return signal.Signals(self.signal).name
        except ValueError:  # a real-time signal
            return f"signal {self.signal}"


def judge(dead: Sequence[Death], output: str, kernel_killed: bool) -> tuple[Status, str]:
    """Status and reason of a trial whose ranks `dead` ended, in that order, without a result.

    `output` is what the ranks wrote, `kernel_killed` whether the kernel's out-of-memory killer
    struck meanwhile.
    """
    first, *rest = dead
    if first.signal == signal.SIGKILL and kernel_killed:
        killed = [death.rank for death in dead if death.signal == signal.SIGKILL]
        return Status.OOM, f"the kernel's out-of-memory killer ended {ranks(killed)}"
    ended = f"{ranks([first.rank])} ended by {first.manner} without a result{_then(rest)}"
    told = abort.meaning(output) if first.signal == signal.SIGABRT else None
    return (Status.CRASH, ended) if told is None else (told[0], f"{told[1]}; {ended}")


def followed(dead: Sequence[Death], output: str) -> bool:
    """Whether ranks only aborted because NCCL told them that a peer was gone."""
    return all_aborted(dead) and abort.says_peer_lost(output)


def all_aborted(dead: Iterable[Death]) -> bool:
    """Whether every one of `dead` ended by SIGABRT."""
    return all(death.signal == signal.SIGABRT for death in dead)


def ranks(numbers: Iterable[int]) -> str:
    """`rank 3`, or `ranks 0, 1` in ascending order."""
    ordered = sorted(numbers)
    return f"rank{'s' if len(ordered) > 1 else ''} {', '.join(map(str, ordered))}"


def oom_kills() -> int:
    """How often the kernel's out-of-memory killer struck on this machine since it started."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def _then(rest: Sequence[Death]) -> str:
    if not rest:
        return ""
    by_manner: dict[str, list[int]] = {}
    for death in rest:
        by_manner.setdefault(death.manner, []).append(death.rank)
    return f" (then {', '.join(f'{ranks(who)} by {how}' for how, who in by_manner.items())})"
