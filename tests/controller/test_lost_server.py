"""A server that is killed or stopped costs at most the trial in flight."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench.controller import host as host_module
from bench.controller import hosts as hosts_module
from bench.controller import server_process, vital_signs
from bench.controller.host import Host
from bench.controller.hosts import RESTART_PAUSES_S, Hosts
from bench.controller.vital_signs import LOOK_S, STOPPED_LOOKS, VitalSigns
from bench.record import Record, Status
from bench.trial import Trial
from tests.conftest import ROOT, RunTrial, configure
from tests.controller import fake_server

KILL, STOP, REAL_TIME = int(signal.SIGKILL), int(signal.SIGSTOP), 40
TRIAL = configure(gradient_check="off")

Run = Callable[..., list[Record]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run some trials with servers that do as was planned; gives their records."""
    monkeypatch.setattr(hosts_module, "RESTART_PAUSES_S", [0.01] * 3)
    monkeypatch.setattr(vital_signs, "LOOK_S", 0.02)
    monkeypatch.setattr(server_process, "LOOK_S", 0.02)

    def trials(count: int, *plan: str) -> list[Record]:
        made = fake_server.interpreter(tmp_path / "fake", *plan)
        with Hosts(lambda spec: made) as hosts:
            records = [
                hosts.run(Trial(configuration=TRIAL, round=index), tmp_path / "results")
                for index in range(count)
            ]
        assert not any(map(psutil.pid_exists, fake_server.starts(tmp_path / "fake")))
        return records

    return trials


def lost(what: str) -> str:
    return f"the server of environment '{TRIAL.environment.name}' {what}"


@pytest.mark.parametrize("number", [KILL, STOP])
def test_a_server_that_is_lost_three_times_while_it_starts_costs_nothing(
    run: Run, tmp_path: Path, number: int
) -> None:
    [record] = run(1, *[f"start {number}"] * 3)
    assert record.status is Status.OK, record.reason
    assert len(fake_server.starts(tmp_path / "fake")) == 4


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (KILL, "ended by SIGKILL"),
        (REAL_TIME, "ended by signal 40"),
        (STOP, "was stopped (SIGSTOP)"),
    ],
)
def test_servers_that_are_always_lost_are_no_fault_of_the_environment(
    run: Run, tmp_path: Path, number: int, what: str
) -> None:
    """Each trial tries anew: none gets a record that nobody tried."""
    records = run(3, *[f"start {number}"] * 8)
    assert [record.status for record in records] == [Status.CRASH, Status.CRASH, Status.OK]
    assert records[0].reason == lost(f"{what} while it started, 4 times in a row")
    assert len(fake_server.starts(tmp_path / "fake")) == 9


def test_a_server_that_leaves_while_it_starts_is_the_environments_fault(
    run: Run, tmp_path: Path
) -> None:
    """Nobody ended it: it would leave again."""
    records = run(2, "start exit")
    assert [record.status for record in records] == [Status.ENVIRONMENT] * 2
    assert str(records[0].reason).startswith(lost("ended by exit code 3 while it started; see "))
    assert len(fake_server.starts(tmp_path / "fake")) == 1


@pytest.mark.parametrize("moment", ["code", "reference", "run", "kill"])
@pytest.mark.parametrize(
    ("number", "what"), [(KILL, "ended by SIGKILL"), (STOP, "was stopped (SIGSTOP)")]
)
def test_a_server_that_is_lost_later_costs_the_trial_in_flight_alone(
    run: Run, tmp_path: Path, moment: str, number: int, what: str
) -> None:
    records = run(3, f"{moment} {number}")
    assert [record.status for record in records] == [Status.CRASH, Status.OK, Status.OK]
    assert records[0].reason == lost(what)
    assert len(fake_server.starts(tmp_path / "fake")) == 2


@pytest.mark.parametrize(
    ("number", "what"), [(KILL, "ended by SIGKILL"), (STOP, "was stopped (SIGSTOP)")]
)
def test_a_maker_of_the_reference_that_is_lost_costs_one_trial(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    """What it should have made is needed by all."""
    monkeypatch.setattr(host_module, "POLL_S", 0.02)
    records = run(2, f"made {number}")
    assert [record.status for record in records] == [Status.CRASH, Status.OK]
    assert records[0].reason == f"the initial weights could not be made: its process {what}"
    assert len(fake_server.starts(tmp_path / "fake")) == 1


@pytest.mark.parametrize("number", [KILL, STOP])
def test_a_server_that_is_lost_between_two_trials_costs_none(tmp_path: Path, number: int) -> None:
    made = fake_server.interpreter(tmp_path / "fake")
    with Hosts(lambda spec: made) as hosts:
        for index in range(2):
            trial = Trial(configuration=TRIAL, round=index)
            record = hosts.run(trial, tmp_path / "results")
            assert record.status is Status.OK, record.reason
            os.kill(fake_server.starts(tmp_path / "fake")[-1], number)
            time.sleep(0.1)


@pytest.fixture
def process() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """A process that runs a program."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", program]))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_what_is_busy_or_waits_is_not_stopped(
    process: Callable[[str], subprocess.Popen[bytes]],
    program: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vital_signs, "LOOK_S", 0.0)
    one = process(program)
    signs = VitalSigns(one)
    assert not any(signs.has_stopped() for _ in range(10 * STOPPED_LOOKS))
    assert signs.is_running()
    one.send_signal(signal.SIGSTOP)
    while signs.is_running():
        time.sleep(0.01)
    looks = [signs.has_stopped() for _ in range(STOPPED_LOOKS)]
    assert looks == [False] * (STOPPED_LOOKS - 1) + [True]
    assert not VitalSigns(one).has_stopped()  # as after a batch system went on with both


def test_how_long_it_takes() -> None:
    assert (LOOK_S + host_module.POLL_S) * (STOPPED_LOOKS + 1) < 15
    assert len(RESTART_PAUSES_S) == 3 and sorted(RESTART_PAUSES_S) == list(RESTART_PAUSES_S)


SWEEP = """
import sys
from pathlib import Path
from bench import cli
from bench.controller import environments
from tests.controller import fake_server
made = fake_server.interpreter(Path(sys.argv.pop(1)), *sys.argv.pop(1).split(","))
environments.provide = lambda spec, report: made
cli.main()
"""


@pytest.mark.parametrize(
    ("plan", "signals"),
    [
        pytest.param(f"start {KILL},start {KILL}", [signal.SIGTERM], id="pause, terminated"),
        pytest.param(f"start {KILL},start {KILL}", [signal.SIGINT] * 2, id="pause, Ctrl-C twice"),
        pytest.param(f"start {STOP}", [signal.SIGHUP], id="start, terminal gone"),
        pytest.param(f"run {STOP}", [signal.SIGTERM, signal.SIGINT], id="trial, both"),
    ],
)
def test_a_signal_to_the_controller_leaves_no_process(
    tmp_path: Path, plan: str, signals: list[signal.Signals]
) -> None:
    fake, results = tmp_path / "fake", tmp_path / "results"
    arguments = ["sweep", "+experiment=single", "environment=torch-2.13", "gradient_check=off"]
    sweep = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(fake), plan, *arguments, f"results={results}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sweep.stdout is not None
    if "," in plan:
        while "another starts in" not in sweep.stdout.readline():
            assert sweep.poll() is None
    else:
        while not any(map(stopped, fake_server.starts(fake))):
            assert sweep.poll() is None
            time.sleep(0.02)
    for one in signals:
        sweep.send_signal(one)
    _, said = sweep.communicate(timeout=60)
    assert sweep.returncode in (130, -signals[-1]), said  # the last may come after all is done
    assert said == "interrupted; records are complete, the same command resumes\n"
    assert not any(map(psutil.pid_exists, fake_server.starts(fake)))
    assert list(results.glob("records-*")) == []


def stopped(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_STOPPED


@pytest.mark.environment
def test_real_ranks_end_with_a_stopped_server_and_the_next_trial_runs(
    hosts: Hosts, run_trial: RunTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vital_signs, "LOOK_S", 0.1)
    monkeypatch.setattr(server_process, "LOOK_S", 0.1)
    fine = configure(scenario="drill")
    assert run_trial(fine).status is Status.OK
    server = psutil.Process(
        next(
            host._server._process.pid
            for (spec, device, shm), host in hosts._hosts.items()
            if (spec, device, shm) == (fine.environment, fine.comm.device, False)
        )
    )
    family: list[psutil.Process] = []

    def stop(*_: object, **__: object) -> bool:
        family[:] = family or [server, *server.children(recursive=True)]
        server.suspend()
        return True

    with monkeypatch.context() as during:
        during.setattr(Host, "_progressed", stop)
        record = run_trial(configure(scenario="drill", options={"fault": "hang"}))
    assert record.status is Status.CRASH
    assert str(record.reason).endswith("was stopped (SIGSTOP)")
    assert len(family) == 1 + fine.world
    assert not any(one.is_running() for one in family)
    assert run_trial(fine).status is Status.OK
