"""Who waits for an environment is told for whom, and since when."""

from __future__ import annotations

import fcntl
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Union

import pytest

from bench.controller import build, environments, hosts, locks, this_machine
from bench.controller.config import CONF
from bench.trial import EnvironmentSpec
from tests.conftest import ROOT

SPEC = EnvironmentSpec(name="wanted", torch="1.0", deepspeed="1.0")

HOLDS = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
BUILDS = """
import sys, pathlib
from bench.controller import locks
with locks.held(pathlib.Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""
WANTS = """
import sys
from bench.controller import environments
from bench.trial import EnvironmentSpec
spec = EnvironmentSpec(name="wanted", torch="1.0", deepspeed="1.0")
environments.provide(spec, lambda line: print(line, flush=True))
"""
SPBENCH = """
from bench import cli
cli.main()
"""

SILENCE_S = 30.0
"""After which a process that says nothing is ended, whose line is then empty."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ready environment, without packages, in a cache of the test's own."""
    monkeypatch.setenv("SPBENCH_CACHE", str(tmp_path))
    place = tmp_path / "environments" / environments.key_of(SPEC)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to("/bin/sh")
    (place / build.SPEC_FILE).write_text("{}")
    return place


@pytest.fixture
def start() -> Iterator[Start]:
    """Run a program until the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: Union[Path, str]) -> subprocess.Popen[str]:
        one = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(one)
        return one

    yield run
    for one in started:
        one.kill()
        one.communicate()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    limit = threading.Timer(SILENCE_S, process.kill)
    limit.start()
    line = process.stdout.readline().rstrip()
    limit.cancel()
    return line


@pytest.mark.parametrize("program", [HOLDS, BUILDS], ids=["any lock", "ours"])
def test_who_builds_it(start: Start, place: Path, program: str) -> None:
    (place / build.SPEC_FILE).unlink()  # it is not ready
    lock = Path(f"{place}.lock")
    lock.touch()
    os.utime(lock, (0, 0))  # of an earlier build
    before = time.time()
    holder = start(program, lock)
    assert says(holder) == "held"
    found = re.fullmatch(
        rf"spbench: waiting for environment wanted, held by process {holder.pid} since (\S+)",
        says(start(WANTS)),
    )
    assert found is not None
    since = time.strptime(time.strftime("%F ") + found[1], "%Y-%m-%d %H:%M:%S")
    if time.mktime(since) <= time.time() + 60:  # else it was before midnight
        # the kernel's times of processes and the clock differ by a second
        assert before - 3 <= time.mktime(since) <= time.time() + 3


def test_who_removes_it(start: Start, place: Path) -> None:
    holder = start(HOLDS, place)
    assert says(holder) == "held"
    waits = start(WANTS)
    line = f"spbench: waiting for environment wanted, held by process {holder.pid} since "
    assert says(waits).startswith(line)
    holder.communicate()  # it goes without having removed anything
    assert waits.wait(timeout=30) == 0


def test_a_verb_without_a_display_of_its_own_tells_it_too(start: Start, place: Path) -> None:
    named = environments.known_specs(CONF)[this_machine.ENVIRONMENT]
    wanted = place.rename(place.with_name(environments.key_of(named)))
    holder = start(HOLDS, wanted)
    assert says(holder) == "held"
    line = f"spbench: waiting for environment {named.name}, held by process {holder.pid} since "
    assert says(start(SPBENCH, "predict", "--cluster", "this-machine")).startswith(line)


def test_so_does_a_trial_that_nobody_displays(capsys: pytest.CaptureFixture[str]) -> None:
    default = inspect.signature(hosts.Hosts.run).parameters["note"].default
    default("waiting for GPU-1, held by process 2")
    assert capsys.readouterr().err == "spbench: waiting for GPU-1, held by process 2\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_waiting_ends_with_a_signal(start: Start, place: Path, number: int) -> None:
    assert says(start(HOLDS, place)) == "held"
    waits = start(WANTS)
    assert "waiting for environment" in says(waits)
    waits.send_signal(number)
    assert waits.wait(timeout=30) == -number


def test_it_is_told_within_two_seconds_and_again(
    start: Start, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locks.SILENT_S < 2 and locks.AGAIN_S == 60
    monkeypatch.setattr(locks, "SILENT_S", 0.2)
    monkeypatch.setattr(locks, "AGAIN_S", 0.2)
    holder = start(HOLDS, place)
    assert says(holder) == "held"
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            holder.communicate()

    file = os.open(place, os.O_RDONLY)
    locks.wait_for(file, fcntl.LOCK_SH, tell)
    os.close(file)
    assert len(told) == 2 and told[0] == told[1]


def test_a_lock_that_nobody_has_is_taken_without_a_word(place: Path) -> None:
    told: list[str] = []
    lock = Path(f"{place}.lock")
    with locks.held(lock, told.append) as mine:
        assert mine
        with locks.held(lock, None) as second:
            assert not second
    with locks.held(lock, None) as free:
        assert free
    assert told == []
