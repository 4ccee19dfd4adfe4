"""What is said about the machine: the arithmetic by hand, the counters against real processes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.controller import gpus, provenance
from bench.controller.provenance import MachineWatch, disturbance, foreign_cores_limit, noise
from bench.identity import machine_class_of
from tests.controller.fake_nvml import FakeNvml, OldNvml, driver

# Burns one second of CPU time (not of wall time), so that a busy machine changes nothing.
BURN = "import time\nwhile time.process_time() < 1.0: pass"


def snapshot(wall: float, busy: float, steal: float, total: float, own: float):
    return provenance._Snapshot(wall, busy, steal, total, own, load=0.0)


def test_foreign_cores_and_steal_by_hand() -> None:
    before = snapshot(wall=100.0, busy=50.0, steal=1.0, total=400.0, own=20.0)
    after = snapshot(wall=110.0, busy=65.0, steal=1.8, total=440.0, own=30.0)
    steal, foreign = disturbance(before, after)
    assert steal == pytest.approx(0.02)  # 0.8 s of the 40 s of CPU time
    assert foreign == pytest.approx(0.5)  # (15 s busy - 10 s ours) / 10 s


def test_never_negative_and_silent_about_a_moment() -> None:
    before = snapshot(wall=0.0, busy=0.0, steal=0.0, total=0.0, own=0.0)
    assert disturbance(before, snapshot(1.0, 0.9, 0.0, 2.0, 1.0)) == (0.0, 0.0)
    assert disturbance(before, snapshot(0.05, 0.1, 0.1, 0.1, 0.0)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("steal", "foreign", "gpu", "reasons"),
    [
        (0.02, 0.25, [], []),
        (0.031, 0.0, [], ["steal 3.1 % of CPU time"]),
        (0.0, 0.61, [], ["other processes kept 0.6 cores busy"]),
        (0.0, 0.0, ["python (7)"], ["other processes on the GPUs: python (7)"]),
    ],
    ids=["quiet", "steal", "cpu", "gpu"],
)
def test_reasons(steal: float, foreign: float, gpu: list[str], reasons: list[str]) -> None:
    assert noise(steal, foreign, gpu, cores=2) == reasons


@pytest.mark.parametrize(
    ("cores", "limit"),
    [(1, 0.25), (2, 0.25), (12, 0.25), (16, 0.32), (128, 2.56)],  # 2 % of the cores
)
def test_many_cores_may_have_more_of_them_busy(cores: int, limit: float) -> None:
    assert foreign_cores_limit(cores) == pytest.approx(limit)
    assert noise(0.0, limit - 0.01, [], cores) == []
    assert len(noise(0.0, limit + 0.01, [], cores)) == 1


def own_seconds() -> float:
    return provenance._Snapshot.take().own_s


def test_cpu_time_of_children_and_reaped_grandchildren_is_ours() -> None:
    before = own_seconds()
    subprocess.run(["sh", "-c", f"'{sys.executable}' -c '{BURN}'; true"], check=True)
    assert own_seconds() - before >= 0.95  # ticks of 10 ms


def test_cpu_time_of_a_living_grandchild_is_ours() -> None:
    before = own_seconds()
    burn = f"{BURN}\nprint('burnt', flush=True)\ninput()"
    with subprocess.Popen(
        ["sh", "-c", f"'{sys.executable}' -c \"{burn}\"; true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "burnt\n"
        assert own_seconds() - before >= 0.95  # ticks of 10 ms
        process.communicate("\n")


def test_a_foreign_process_is_seen(tmp_path: Path) -> None:
    # Its parent ends at once, so that it belongs to nobody's family but init's.
    pid = tmp_path / "pid"
    burn = "import os, sys\nopen(sys.argv[1], 'w').write(f'{os.getpid()}.')\nwhile True: pass"
    command = shlex.join(["setsid", sys.executable, "-c", burn, str(pid)])
    subprocess.run(["sh", "-c", f"{command} >/dev/null 2>&1 &"])
    while not pid.exists() or not pid.read_text().endswith("."):
        time.sleep(0.01)
    watch = MachineWatch()
    watch.begin()
    time.sleep(1.5)
    machine, reasons = watch.finish()
    os.kill(int(pid.read_text().rstrip(".")), signal.SIGKILL)
    assert machine.foreign_cores > foreign_cores_limit(machine.cores)
    assert any(reason.startswith("other processes kept") for reason in reasons)


def test_the_machine_is_described() -> None:
    watch = MachineWatch()
    watch.begin()
    machine, _ = watch.finish()
    assert machine.hostname == os.uname().nodename
    assert machine.cores == os.cpu_count()
    assert machine.memory_bytes > 100_000_000
    assert machine.cpu
    assert 0 <= machine.steal <= 1


def test_costs_less_than_five_milliseconds() -> None:
    watch = MachineWatch()
    watch.begin()
    watch.finish()  # what is read once is read
    costs = []
    for _ in range(20):
        start = time.process_time()
        watch.begin()
        watch.finish()
        costs.append(time.process_time() - start)
    assert sorted(costs)[10] < 0.005


def test_finish_needs_a_beginning() -> None:
    with pytest.raises(RuntimeError, match=r"begin\(\)"):
        MachineWatch().finish()


def test_a_checkout_tells_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    provenance._commit.cache_clear()
    assert provenance._commit() == (None, None)  # no repository
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    provenance._commit.cache_clear()
    assert provenance._commit() == (git("rev-parse", "HEAD"), False)
    (tmp_path / "new").touch()
    assert provenance._commit() == (git("rev-parse", "HEAD"), False)  # asked once
    provenance._commit.cache_clear()
    assert provenance._commit() == (git("rev-parse", "HEAD"), True)
    provenance._commit.cache_clear()


class Linked(FakeNvml):
    """Three GPUs, of which only the named pairs have NVLink."""

    def __init__(self, *pairs: tuple[int, int]) -> None:
        super().__init__()
        self.uuids = ["GPU-a", "GPU-b", "GPU-c"]
        self.pids = [[], [], []]
        self._pairs = pairs

    def nvmlDeviceGetP2PStatus(self, one: int, other: int, kind: int) -> int:
        assert kind == 2  # NVLink
        return 0 if (one, other) in self._pairs else 5


@pytest.mark.parametrize(
    ("pairs", "transport"),
    [
        ([(0, 1), (0, 2), (1, 2)], "NVLink"),
        ([], "PCIe"),
        ([(0, 1)], "NVLink and PCIe"),
    ],
)
def test_transport_is_what_every_pair_of_gpus_has(
    monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[int, int]], transport: str
) -> None:
    with driver(monkeypatch, Linked(*pairs)):
        assert gpus.transport() == transport
        found = provenance.machine_class()
    for part in ("1 x gpu0, 1 x gpu1, 1 x gpu2", "driver 550.54.15", transport):
        assert part in found


def test_one_gpu_and_an_old_driver_have_no_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    with driver(monkeypatch, Linked((0, 1))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        assert gpus.transport() is None
    with driver(monkeypatch, OldNvml()):
        assert gpus.transport() is None


def test_the_class_of_this_machine_is_that_of_its_records() -> None:
    watch = MachineWatch()
    watch.begin()
    machine, _ = watch.finish()
    content = {"machine": machine.model_dump(), "worker": {"driver": gpus.driver_version()}}
    assert machine_class_of(content) == provenance.machine_class()
