"""Random faults over one sweep of real ranks: is a trial lost, or does one fail for nothing?

Ranks, their server and the controller are killed, stopped and terminated from outside, at random
moments, also while a server starts. A controller that ends is started again by the same command. At
the end every planned trial must have one record, only trials during which something was done to
them may have failed, and nothing of the sweep may be left: no process, no scratch folder, no
shared memory, no lock.

    python -m benchmarks.faults [FAULTS] [--seed SEED]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import psutil

from bench.controller.server_process import ROOT
from bench.record_files import read_records
from benchmarks.leftovers import Leftovers
from benchmarks.report import Targets

FAULTS = 50
TRIALS_PER_FAULT = 4
"""Planned; a fault comes after up to two trials, some run meanwhile, and none may lack them."""
CONFIGURATIONS = 2
SWEEP = (
    "sweep",
    "+experiment=single",
    "environment=torch-2.13",
    "loss=local",
    "world=2",
    "sp=1,2",
    "seq_len=64",
    "warmup_steps=1",
    "steps=1",
    "limits.hang_s=5",
    "report=false",
)
PATIENCE_S = 120.0
"""How long the sweep gets to come to where a fault may hit it."""
ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "terminate": signal.SIGTERM}
SLACK_S = 1.0
"""Between a fault and what its trial's record says of its times."""


class Fault(NamedTuple):
    """What was done to whom."""

    at: float
    """Seconds since the epoch."""
    target: str
    action: str


class Sweep:
    """The sweep under attack: its controller, started again by the same command as it ends."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.results = folder / "results"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._output = folder / "output"
        self._command = [sys.executable, "-m", "bench.cli", *SWEEP, f"rounds={rounds}"]
        self._command.append(f"results={self.results}")
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start the controller."""
        self.starts += 1
        with self._output.open("ab") as output:
            self.controller = subprocess.Popen(
                self._command,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.scratch)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def tend(self) -> bool:
        """Start the controller again if it was ended; False when it has come to its end."""
        code = self.controller.poll()
        if code is None:
            return True
        if code == 0:
            return False
        if code not in (-signal.SIGKILL, -signal.SIGTERM, 130):
            raise SystemExit(f"the sweep ended with exit code {code}:\n{self.said()}")
        self.start()
        return True

    def said(self) -> str:
        """The last that the sweep printed."""
        return self._output.read_text()[-3000:]

    def records(self) -> list[dict[str, Any]]:
        """All records so far."""
        if not self.results.exists():
            return []
        return [raw.content for raw in read_records(self.results)]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Who could be hit now."""
        try:
            controller = psutil.Process(self.controller.pid)
            servers = controller.children()
            below = [rank for server in servers for rank in server.children()]
            ranks = [one for one in below if one.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return {"controller": [], "server": [], "rank": []}
        return {"controller": [controller], "server": servers, "rank": ranks}


class Attack:
    """Chooses faults and moments by a seed, and lets them happen."""

    def __init__(self, sweep: Sweep, seed: int) -> None:
        self._sweep = sweep
        self._random = random.Random(seed)
        self.faults: list[Fault] = []
        self._in_a_row = False

    def next(self) -> bool:
        """One more fault; False when the sweep ended before."""
        target = self._random.choice(["rank", "server", "controller"])
        action = self._random.choice(list(ACTIONS))
        if self._in_a_row:  # while the next server, or controller, starts
            target = self._random.choice(["server", "controller"])
            delay_s, records = self._random.uniform(0.0, 5.0), 0
        else:
            delay_s, records = self._random.uniform(0.0, 1.0), self._random.randint(0, 2)
        goal = len(self._sweep.records()) + records
        if not self._wait(lambda: len(self._sweep.records()) >= goal):
            return False
        time.sleep(delay_s)
        if not self._wait(lambda: bool(self._sweep.processes()[target])):
            return False
        if not self._hit(target, action):
            return self.next()
        self._in_a_row = target != "rank" and self._random.random() < 0.5
        return True

    def _hit(self, target: str, action: str) -> bool:
        found = self._sweep.processes()[target]
        if not found:
            return False
        victim = self._random.choice(found)
        done = len(self._sweep.records())
        try:
            age_s = time.time() - victim.create_time()
            victim.send_signal(ACTIONS[action])
        except psutil.NoSuchProcess:
            return False
        self.faults.append(Fault(time.time(), target, action))
        number = len(self.faults)
        print(f"{number:3}: {action} {target}, {age_s:.1f} s old, after {done} records", flush=True)
        if (target, action) == ("controller", "stop"):
            time.sleep(self._random.uniform(0.5, 3.0))
            victim.resume()
        return True

    def _wait(self, until: Any) -> bool:
        """Wait for a moment; False when the sweep ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            if not self._sweep.tend():
                return False
            if time.monotonic() > deadline:
                raise SystemExit(f"the sweep makes no progress:\n{self._sweep.said()}")
            time.sleep(0.02)
        return True


def failed_for_nothing(records: list[dict[str, Any]], faults: list[Fault]) -> list[str]:
    """Trials that are not ok though nothing was done to them, with what their records say.

    A fault explains one trial: that during which it came.
    """
    unexplained, left = [], list(faults)
    for record in records:
        if record["status"] == "ok":
            continue
        began = datetime.fromisoformat(record["started"]).replace(tzinfo=timezone.utc).timestamp()
        ended = began + record["duration_s"]
        fault = next((f for f in left if began - SLACK_S <= f.at <= ended + SLACK_S), None)
        if fault is None:
            unexplained.append(f"{record['trial_id']}: {record['status']}: {record['reason']}")
        else:
            left.remove(fault)
    return unexplained


def main() -> NoReturn:
    """Let the faults happen, then count what was lost and what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="?", type=int, default=FAULTS)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rounds = TRIALS_PER_FAULT * (chosen.faults + 2) // CONFIGURATIONS
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spbench-faults-") as name:
        sweep = Sweep(Path(name), rounds)
        left = Leftovers(sweep.results, sweep.scratch)
        attack = Attack(sweep, chosen.seed)
        try:
            while len(attack.faults) < chosen.faults and attack.next():
                left.look(sweep.controller.pid)
            while sweep.tend():
                left.look(sweep.controller.pid)
                time.sleep(0.5)
        finally:
            sweep.controller.kill()
            sweep.controller.wait()
        finish(sweep, attack.faults, left, chosen.faults, rounds, time.monotonic() - began)


def finish(
    sweep: Sweep, faults: list[Fault], left: Leftovers, asked: int, rounds: int, wall_s: float
) -> NoReturn:
    """Print what came of it, and the targets."""
    records = sweep.records()
    statuses = [record["status"] for record in records]
    counts = ", ".join(f"{statuses.count(one)} {one}" for one in sorted(set(statuses)))
    print(f"\n{len(records)} records: {counts}; {sweep.starts} controllers; {wall_s:.0f} s")
    for reason in sorted({str(record["reason"]) for record in records if record["reason"]}):
        print(f"  {reason}")
    keys = {(record["config_hash"], record["round"]) for record in records}
    nothing = failed_for_nothing(records, faults)
    targets = Targets()
    targets.check("faults", len(faults), ">=", asked)
    targets.check("lost trials", CONFIGURATIONS * rounds - len(keys), "<=", 0)
    targets.check("trials recorded twice", len(records) - len(keys), "<=", 0)
    targets.check("trials that failed though nothing was done to them", len(nothing), "<=", 0)
    found = left.found()
    for kind, names in found.items():
        targets.check(f"{kind} left", len(names), "<=", 0)
    for line in [*nothing, *(f"{kind}: {name}" for kind, all_ in found.items() for name in all_)]:
        print(f"! {line}")
    targets.finish()


if __name__ == "__main__":
    main()
