"""What counts as progress, with a server that only pretends to have ranks.

The "ranks" are real processes, whose CPU time is measured; that they are on a GPU is pretended.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.controller import host as host_module
from bench.controller.host import Host
from bench.record import Status
from bench.trial import CommSpec, Limits, Trial
from tests.conftest import configure
from tests.controller.test_abort import TIMED_OUT_2_7
from tests.controller.test_leftovers import PARENT
from tests.controller.test_outcome import exited, finished, raised, relayed

SPINS = [sys.executable, "-c", "while True: pass"]
SLEEPS = [sys.executable, "-c", "import sys; sys.stdin.read()"]
COMPILES = [sys.executable, "-c", PARENT]
SIGABRT = 6


class PretendedServer:
    """Answers a host as the server does; the only rank of every trial is `pid`, in `phase`."""

    def __init__(self, scratch: Path, pid: int, phase: str = "setup") -> None:
        self.scratch, self._pid, self._phase = scratch, pid, phase
        self._lines: list[dict[str, Any]] = []
        self.versions = {"torch": "2.13.0", "deepspeed": "0.18.2", "python": "3.11"}
        self.versions["python_path"] = sys.executable
        self.warnings: list[str] = []
        self.interpreter = SimpleNamespace(spec=configure().environment, extensions=scratch)
        self.after_launch: list[tuple[float, dict[str, Any]]] = []
        """Lines of the trial, and how many seconds after its launch each comes."""
        self.writes = ""
        self.at_launch: Callable[[], None] = lambda: None
        self.beats_every_s = float("inf")
        self._launched = 0.0

    def send(self, op: str, **request: Any) -> None:
        if op == "reference":
            self._lines = [finished(0), exited(0, exit_code=0)]
        elif op == "run":
            self._launched = time.monotonic()
            self.at_launch()
            Path(request["log"]).write_text(self.writes)
            self._lines = [{"op": "forked", "pids": [self._pid], "store_port": 0, "threads": 1}]

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        if self._lines:
            return relayed(self._lines.pop(0))
        due = self._launched + self.after_launch[0][0] if self.after_launch else float("inf")
        time.sleep(max(0.0, min(timeout_s, due - time.monotonic())))
        return relayed(self.after_launch.pop(0)[1]) if time.monotonic() >= due else None

    def ask(self, request: str, answer: str, others: list[Any], timeout_s: float) -> dict[str, Any]:
        count = int((time.monotonic() - self._launched) // self.beats_every_s)
        beat = {"rank": 0, "count": count, "step": None, "phase": self._phase}
        return {"progress": {"beats": [beat]}, "stacks": {"stacks": {}}}.get(request, {})

    def code_of(self, configuration: object) -> dict[str, str]:
        """No code is of interest."""
        return {}

    def reference_code(self, configuration: object) -> str:
        """The same."""
        return "code"

    def learn(self, modules: list[str]) -> list[str]:
        """Nothing is preloaded."""
        return []


def run(server: PretendedServer, results: Path, comm: str = "nccl", **limits: float) -> Any:
    one = configure(
        comm=CommSpec(name=comm),
        world=1,
        sp=1,
        gradient_check="off",
        limits=Limits(**{"hang_s": 1.2, "timeout_s": 2.6, **limits}),
    )
    return Host(server).run(Trial(configuration=one, round=0), results, "trial")  # type: ignore[arg-type]


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process that does what the parameter says."""
    pipe = subprocess.PIPE
    with subprocess.Popen(request.param, stdin=pipe, stdout=pipe) as one:
        if request.param is COMPILES:
            assert one.stdout is not None
            one.stdout.readline()
        yield one.pid
        assert one.stdin is not None
        one.stdin.close()
        if request.param is not COMPILES:
            one.kill()


@pytest.mark.parametrize(
    ("process", "comm", "phase", "status"),
    [
        pytest.param(SPINS, "gloo", "setup", Status.TIMEOUT, id="a rank on CPU computes"),
        pytest.param(SLEEPS, "gloo", "setup", Status.HANG, id="a rank on CPU waits"),
        pytest.param(SPINS, "nccl", "setup", Status.HANG, id="a rank on GPU spins in set-up"),
        pytest.param(SPINS, "nccl", "gradient", Status.HANG, id="in the gradient check"),
        pytest.param(SPINS, "nccl", "breakdown", Status.TIMEOUT, id="it works on the CPU"),
        pytest.param(COMPILES, "nccl", "setup", Status.TIMEOUT, id="its compiler works"),
    ],
    indirect=["process"],
)
def test_what_is_progress(
    process: int, comm: str, phase: str, status: Status, tmp_path: Path
) -> None:
    record = run(PretendedServer(tmp_path, process, phase), tmp_path, comm)
    assert record.status is status, record.reason


@pytest.mark.parametrize("process", [SPINS], indirect=True)
def test_beats_are_progress(process: int, tmp_path: Path) -> None:
    server = PretendedServer(tmp_path, process)
    server.beats_every_s = 0.3
    assert run(server, tmp_path).status is Status.TIMEOUT


@pytest.mark.parametrize("process", [SLEEPS], indirect=True)
def test_the_watchdogs_words_are_read_from_the_log(process: int, tmp_path: Path) -> None:
    server = PretendedServer(tmp_path, process)
    server.writes, server.after_launch = TIMED_OUT_2_7, [(0.1, exited(0, SIGABRT))]
    record = run(server, tmp_path)
    assert record.status is Status.HANG
    assert record.first_ended == 0
    assert str(record.reason).startswith("NCCL's watchdog reported a collective that timed out")


@pytest.mark.parametrize("process", [SLEEPS], indirect=True)
@pytest.mark.parametrize(("comm", "stays"), [("nccl", False), ("gloo", True)])
def test_what_nccl_left_in_shared_memory_is_removed(
    process: int, comm: str, stays: bool, tmp_path: Path
) -> None:
    left = Path(f"/dev/shm/nccl-{process}")
    server = PretendedServer(tmp_path, process)
    server.after_launch = [(0.1, exited(0, signal=9))]
    server.at_launch = left.touch
    try:
        assert run(server, tmp_path, comm).status is Status.CRASH
        assert left.exists() is stays
    finally:
        left.unlink(missing_ok=True)


@pytest.mark.parametrize("process", [SLEEPS], indirect=True)
def test_what_the_user_says_of_a_hang_wins_and_is_recorded(process: int, tmp_path: Path) -> None:
    server = PretendedServer(tmp_path, process)
    server.after_launch = [(0.1, finished(0)), (0.1, exited(0, exit_code=0))]
    assert run(server, tmp_path, hang_s=7.0).hang_s == 7.0


@pytest.mark.parametrize("process", [SLEEPS], indirect=True)
def test_who_only_lost_a_peer_gives_the_others_time_to_say_why(
    process: int, tmp_path: Path
) -> None:
    """The rank that failed says so 1.5 s later, three times as late as others get."""
    server = PretendedServer(tmp_path, process)
    lost, full = "Connection closed by peer", "CUDA out of memory"
    server.after_launch = [(0.1, raised(0, message=lost)), (1.6, raised(1, message=full))]
    one = configure(comm=CommSpec(name="nccl"), world=3, sp=1, gradient_check="off")
    record = Host(server).run(  # type: ignore[arg-type]
        Trial(configuration=one, round=0), tmp_path, "trial"
    )
    assert record.status is Status.OOM


@pytest.mark.parametrize("process", [SLEEPS], indirect=True)
def test_a_rank_that_dies_with_its_results_told_costs_no_measurement(
    process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 has reported and crashes on its way out, so that rank 0 waits for it in vain."""
    monkeypatch.setattr(host_module, "PARTING_S", 0.3)
    server = PretendedServer(tmp_path, process)
    server.after_launch = [(0.1, finished(0)), (0.1, finished(1)), (0.1, exited(1, signal=11))]
    one = configure(
        comm=CommSpec(name="nccl"),
        world=2,
        sp=1,
        gradient_check="off",
        limits=Limits(hang_s=1.2, timeout_s=5.0),
    )
    record = Host(server).run(  # type: ignore[arg-type]
        Trial(configuration=one, round=0), tmp_path, "trial"
    )
    assert record.status is Status.OK, record.reason
    assert [(rank.outcome, rank.signal) for rank in record.ranks] == [
        ("finished", None),
        ("finished", 11),
    ]
    assert record.worker is not None
    assert record.worker.warnings == ["spbench: rank 1 had its results, then ended by SIGSEGV"]
