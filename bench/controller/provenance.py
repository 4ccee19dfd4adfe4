"""What the controller sees of the machine, and whether it was quiet during a trial.

The kernel's counters (`/proc`, `/sys`) are read before and after a trial; the GPUs also while it
is in its steps (`bench.controller.gpu_states`). Nothing runs beside the ranks.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from bench import __version__
from bench.controller import gpu_states, gpus
from bench.identity import machine_class_of
from bench.record import MachineProvenance

STEAL_LIMIT = 0.02
"""Share of CPU time taken by the hypervisor beyond which a trial counts as disturbed [0..1]."""
FOREIGN_CORES_LIMIT = 0.25
"""Cores kept busy by other processes beyond which a trial counts as disturbed, at least."""
FOREIGN_SHARE_LIMIT = 0.02
"""The same as a share of all cores [0..1], for machines with many: what `STEAL_LIMIT` allows."""
SHORTEST_WINDOW_S = 0.1
"""The kernel counts CPU time in ticks of 10 ms: over a shorter time it says nothing."""

_ROOT = Path(__file__).resolve().parents[2]
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


Hardware = tuple[str, int, tuple[str, ...]]


@dataclass(frozen=True)
class _Snapshot:
    """Counters at one moment, all in seconds since some fixed past."""

    wall_s: float
    busy_s: float
    """User and system time of all processes. Interrupts are left out: those that ranks cause
    by talking to one another are not booked to the ranks."""
    steal_s: float
    total_s: float
    own_s: float
    """Of this process and its descendants, those included that have ended and were reaped."""
    load: float

    @classmethod
    def take(cls) -> _Snapshot:
        cpu = psutil.cpu_times()
        steal: float = getattr(cpu, "steal", 0.0)
        idle = cpu.idle + getattr(cpu, "iowait", 0.0)
        interrupts = getattr(cpu, "irq", 0.0) + getattr(cpu, "softirq", 0.0)
        busy = cpu.user + getattr(cpu, "nice", 0.0) + cpu.system  # user includes guests
        return cls(
            wall_s=time.monotonic(),
            busy_s=busy,
            steal_s=steal,
            total_s=busy + idle + interrupts + steal,
            own_s=sum(_cpu_seconds(pid) for pid in _family()),
            load=os.getloadavg()[0],
        )


class MachineWatch:
    """Watches the machine over one trial: `begin()`, the trial, `finish()`."""

    def __init__(self) -> None:
        self._before: _Snapshot | None = None
        self._gpu_strangers: list[str] = []
        self._gpus = gpu_states.GpuWatch()

    def begin(self) -> None:
        """Read the counters before a trial, while none of its ranks exists.

        Called once more, it begins anew: a trial that waited for its GPUs starts after that.
        """
        self._gpu_strangers = _gpu_strangers()
        self._gpus.begin()
        self._before = _Snapshot.take()

    def in_steps(self) -> None:
        """Called again and again while ranks are in their steps: reads the GPUs."""
        self._gpus.sample()

    def finish(self) -> tuple[MachineProvenance, list[str]]:
        """The machine as it was since `begin()`, and why it was not quiet (empty: it was)."""
        if self._before is None:
            raise RuntimeError("MachineWatch.finish() needs a begin() before it")
        before, after = self._before, _Snapshot.take()
        strangers = list(dict.fromkeys(self._gpu_strangers + _gpu_strangers()))
        steal, foreign_cores = disturbance(before, after)
        states = self._gpus.finish()
        commit, dirty = _commit()
        machine = MachineProvenance(
            hostname=platform.node(),
            os=_os_name(),
            cpu=_cpu_model(),
            cores=os.cpu_count() or 1,
            governor=_governor(),
            memory_bytes=psutil.virtual_memory().total,
            gpus=gpus.visible_gpus(),
            load_before=before.load,
            load_after=after.load,
            steal=steal,
            foreign_cores=foreign_cores,
            foreign_gpu_processes=strangers,
            gpu_states=states,
            transport=gpus.transport(),
            spbench=__version__,
            commit=commit,
            dirty=dirty,
        )
        reasons = noise(steal, foreign_cores, strangers, machine.cores)
        return machine, [*reasons, *gpu_states.noise(states, strangers)]


def hardware_of(machine: Mapping[str, Any]) -> Hardware:
    """Model and number of the CPUs and GPUs that a record's `machine` names."""
    return machine["cpu"], machine["cores"], tuple(machine["gpus"])


def hardware_here() -> Hardware:
    """The same of this machine."""
    return hardware_of(_this_machine())


def machine_class() -> str:
    """The class of this machine, as the identity of a record measured here has it."""
    worker = {"driver": gpus.driver_version()}
    return machine_class_of({"machine": _this_machine(), "worker": worker})


def _this_machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "gpus": gpus.visible_gpus(),
        "transport": gpus.transport(),
    }


def disturbance(before: _Snapshot, after: _Snapshot) -> tuple[float, float]:
    """Steal [share of CPU time, 0..1] and foreign cores [cores busy on average] between two."""
    wall_s = after.wall_s - before.wall_s
    total_s = after.total_s - before.total_s
    if wall_s < SHORTEST_WINDOW_S or total_s <= 0:
        return 0.0, 0.0
    foreign_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(0.0, (after.steal_s - before.steal_s) / total_s), max(0.0, foreign_s / wall_s)


def foreign_cores_limit(cores: int) -> float:
    """Cores that others may keep busy on a machine of `cores` before a trial is disturbed."""
    return max(FOREIGN_CORES_LIMIT, FOREIGN_SHARE_LIMIT * cores)


def noise(
    steal: float, foreign_cores: float, foreign_gpu_processes: list[str], cores: int
) -> list[str]:
    """Why the machine was not quiet, for people; empty when it was."""
    reasons = []
    if steal > STEAL_LIMIT:
        reasons.append(f"steal {steal:.1%} of CPU time".replace("%", " %"))
    if foreign_cores > foreign_cores_limit(cores):
        reasons.append(f"other processes kept {foreign_cores:.1f} cores busy")
    if foreign_gpu_processes:
        reasons.append(f"other processes on the GPUs: {', '.join(foreign_gpu_processes)}")
    return reasons


def _gpu_strangers() -> list[str]:
    """Processes other than ours that compute on a visible GPU, as `name (pid)`."""
    return gpus.strangers(_family()) if gpus.visible_gpus() else []


def _family() -> list[int]:
    """Pids of this process and its descendants."""
    if not Path("/proc/thread-self/children").exists():  # an option of the kernel
        own = psutil.Process()
        return [own.pid, *(child.pid for child in own.children(recursive=True))]
    family = [os.getpid()]
    for pid in family:  # grows while it is walked
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                family += map(int, children.read_text().split())
            except OSError:  # the thread has ended
                continue
    return family


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and of its reaped descendants; 0 when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0.0
    # proc(5): utime, stime, cutime, cstime are fields 14 to 17; the name (2) may hold anything
    return sum(map(int, stat.rpartition(b")")[2].split()[11:15])) * _TICK_S


def _governor() -> str | None:
    try:
        return _GOVERNOR.read_text().strip()
    except OSError:
        return None


@lru_cache(maxsize=1)
def _os_name() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, Linux {platform.release()}" if platform.system() == "Linux" else name


@lru_cache(maxsize=1)
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


@lru_cache(maxsize=1)
def _commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that spbench runs from, and whether it had uncommitted changes."""
    if not (_ROOT / ".git").exists():  # installed, perhaps inside somebody else's repository
        return None, None
    try:
        commit = _git("rev-parse", "--verify", "HEAD")
        return commit, bool(_git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(_ROOT), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
