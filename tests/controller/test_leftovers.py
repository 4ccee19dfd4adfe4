"""What ranks start and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.controller.leftovers import cpu_seconds, remove_build_locks

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.readline()
child.kill()
"""


def test_a_process_whose_child_computes_is_not_idle() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdout.readline()
        before, give_up = cpu_seconds(parent.pid), time.monotonic() + 30
        while cpu_seconds(parent.pid) < before + 0.3 and time.monotonic() < give_up:
            time.sleep(0.05)
        assert cpu_seconds(parent.pid) >= before + 0.3
        parent.stdin.close()
    assert cpu_seconds(parent.pid) == 0.0


def test_only_locks_of_this_trial_are_removed(tmp_path: Path) -> None:
    ours, older = tmp_path / "fused_adam" / "lock", tmp_path / "other" / "lock"
    for lock in (ours, older):
        lock.parent.mkdir()
        lock.touch()
    os.utime(older, (1000, 1000))
    os.utime(ours, (3000, 3000))
    (ours.parent / "build.ninja").touch()
    remove_build_locks(tmp_path, since=2000)
    assert not ours.exists()
    assert older.exists()
    assert (ours.parent / "build.ninja").exists()


def test_what_a_process_started_counts_without_itself() -> None:
    spin = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as process:
        give_up = time.monotonic() + 30
        while cpu_seconds(process.pid) < 0.3 and time.monotonic() < give_up:
            time.sleep(0.05)
        assert cpu_seconds(process.pid) >= 0.3
        assert cpu_seconds(process.pid, of_itself=False) == 0.0
        process.kill()
