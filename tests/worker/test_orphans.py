"""What a rank leaves behind ends with its trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from bench.worker import orphans

FAMILY = """
import os, sys, time
from bench.worker import orphans

orphans.adopt()
kept = os.fork()
if kept == 0:
    time.sleep(60)
child = os.fork()
if child == 0:                      # a rank, which starts something in a session of its own
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        print("left", os.getpid(), flush=True)
        time.sleep(60)
    os._exit(0)
os.waitpid(child, 0)
sys.stdin.readline()
orphans.end(known={kept})
print("ended", sorted(orphans._children(os.getpid())) == [kept], flush=True)
os.kill(kept, 9)
"""


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_session_that_outlived_its_parent_is_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        left = int(server.stdout.readline().split()[1])
        try:
            assert alive(left)
            server.stdin.write("now\n")
            server.stdin.flush()
            assert server.stdout.readline().split() == ["ended", "True"]
            give_up = time.monotonic() + 5
            while alive(left) and time.monotonic() < give_up:
                time.sleep(0.01)
            assert not alive(left)
        finally:
            if alive(left):
                os.killpg(left, signal.SIGKILL)


def test_children_are_told_from_others() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in set(orphans._children(os.getpid()))
        assert child.pid not in set(orphans._children(1))
        child.kill()
