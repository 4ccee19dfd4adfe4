"""The order of trials, resume, and sweeps side by side."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.controller import run as run_module
from bench.controller.environments import EnvironmentProblem
from bench.controller.ledger import Ledger
from bench.controller.order import interleave
from bench.record import Record, Status
from bench.record_files import read_records
from bench.trial import CommSpec, Configuration, EnvironmentSpec, ModelSpec, Trial
from tests import factories
from tests.controller.fake_hosts import FakeHosts, run_sweep
from tests.controller.test_ledger import held

ROOT = Path(__file__).parents[2]
ENVIRONMENT = EnvironmentSpec(name="a", torch="1", deepspeed="1")
MODEL = ModelSpec(name="m", layers=1, hidden=16, heads=4, kv_heads=4, ffn=8, vocab=8)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)


def configuration(seed: int, **fields: object) -> Configuration:
    comm = CommSpec(name="gloo")
    return Configuration(environment=ENVIRONMENT, model=MODEL, comm=comm, seed=seed, **fields)


def records(folder: Path) -> list[dict[str, object]]:
    return [raw.content for raw in read_records(folder)]


def test_every_round_visits_every_configuration_once() -> None:
    configurations = [configuration(seed) for seed in range(8)]
    trials = list(interleave(configurations, rounds=3, seed=0))
    assert [trial.round for trial in trials] == [0] * 8 + [1] * 8 + [2] * 8
    orders = [[t.configuration.seed for t in trials[i : i + 8]] for i in (0, 8, 16)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_follows_from_the_seed() -> None:
    configurations = [configuration(seed) for seed in range(8)]
    first, again, other = (list(interleave(configurations, 2, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_what_is_likely_to_be_compared_runs_close_in_time() -> None:
    configurations = [
        configuration(0, seq_len=seq_len, zero=zero, loss=loss)
        for loss in ("all_gather", "local", "weighted_all_reduce")
        for zero in (1, 3)
        for seq_len in (512, 1024)
    ]
    trials = list(interleave(configurations, rounds=20, seed=0))
    rounds = [[t.configuration for t in trials[i : i + 12]] for i in range(0, 240, 12)]
    for order in rounds:
        assert [len({one.seq_len for one in order[i : i + 6]}) for i in (0, 6)] == [1, 1]
        assert all(len({one.zero for one in order[i : i + 3]}) == 1 for i in (0, 3, 6, 9))
    assert {(order[0].seq_len, order[0].zero) for order in rounds} == {
        (512, 1),
        (512, 3),
        (1024, 1),
        (1024, 3),
    }
    assert {order[0].loss for order in rounds} == {"all_gather", "local", "weighted_all_reduce"}


def test_what_cannot_run_comes_once_and_first() -> None:
    odd = configuration(0, seq_len=511)
    trials = list(interleave([configuration(1), odd], rounds=2, seed=0))
    assert [(trial.configuration.seq_len, trial.round) for trial in trials] == [
        (511, 0),
        (512, 0),
        (512, 1),
    ]


def test_unsupported_points_leave_one_record_with_the_reason(tmp_path: Path) -> None:
    run, hosts, output = run_sweep(
        f"results={tmp_path}", "experiment=single", "seq_len=511,512", "rounds=2"
    )
    assert [trial.configuration.seq_len for trial in hosts.trials] == [512, 512]
    [refused] = [one for one in records(tmp_path) if one["status"] == "unsupported"]
    assert refused["reason"] == "seq_len=511 is not divisible by sp=2"
    assert (refused["round"], refused["experiment"]) == (0, "single")
    assert run.summary is not None
    assert (run.summary.planned, run.summary.not_ok, run.summary.complete) == (3, 1, True)
    assert "unsupported seq_len=511 is not divisible by sp=2" in output


def test_the_record_carries_experiment_and_machine(tmp_path: Path) -> None:
    run_sweep(f"results={tmp_path}", "experiment=single", "rounds=1")
    [record] = records(tmp_path)
    assert record["experiment"] == "single"
    assert record["machine"]["cores"] == os.cpu_count()  # type: ignore[index]


def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    overrides = (f"results={tmp_path}", "experiment=single", "sp=2,4")
    run_sweep(*overrides, "rounds=2")
    run, hosts, output = run_sweep(*overrides, "rounds=3")
    assert [trial.round for trial in hosts.trials] == [2, 2]
    assert run.summary is not None
    assert run.summary.resumed == 4
    assert "4 of 6 trials have a record already" in output
    _, hosts, _ = run_sweep(*overrides, "rounds=3")
    assert hosts.trials == []


def test_a_truncated_record_is_run_again(tmp_path: Path) -> None:
    overrides = (f"results={tmp_path}", "experiment=single", "rounds=1")
    run_sweep(*overrides)
    [path] = tmp_path.glob("records-*")
    path.write_bytes(path.read_bytes()[:-20])
    _, hosts, _ = run_sweep(*overrides)
    assert len(hosts.trials) == 1
    assert [record["status"] for record in records(tmp_path)] == ["ok"]


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_sweep_names_damaged_lines_and_runs_their_trials(damaged: int, tmp_path: Path) -> None:
    overrides = (f"results={tmp_path}", "experiment=single", "sp=2,4", "rounds=1")
    _, _, output = run_sweep(*overrides)
    assert "not counted" not in output
    [path] = tmp_path.glob("records-*")
    path.write_bytes(path.read_bytes().replace(b'"status"', b'"statsu"', damaged))
    _, hosts, output = run_sweep(*overrides)
    first = f"{path.name}, line 1: not a record: status is missing"
    said = {
        1: f"not counted: {tmp_path}/{first}; its trial runs again",
        2: f"not counted: 2 lines of {tmp_path}, the first is {first}; their trials run again",
    }
    assert said[damaged] in output
    assert len(hosts.trials) == damaged


def failing(trial: Trial, record: Record) -> Record:
    status = Status.ERROR if trial.configuration.sp == 4 else Status.OK
    return record.model_copy(update={"status": status})


def test_a_fault_of_spbench_itself_is_the_record_of_one_trial(tmp_path: Path) -> None:
    def outcome(trial: Trial, record: Record) -> Record:
        if trial.round == 0:
            raise KeyError("a fault \udcff of ours")
        return record if trial.round == 1 else None  # type: ignore[return-value]

    overrides = ("experiment=single", f"results={tmp_path}", "rounds=3")
    run_sweep(*overrides, hosts=FakeHosts(outcome))
    kept = sorted(records(tmp_path), key=lambda one: str(one["round"]))
    assert [one["status"] for one in kept] == ["error", "ok", "error"]
    assert kept[0]["reason"] == "spbench itself failed: KeyError: 'a fault \\udcff of ours'"
    assert (
        kept[2]["reason"] == "spbench itself failed: TypeError: scenario=train gave no record: None"
    )
    assert [one["phase"] for one in kept[0]["errors"]] == ["controller"]  # type: ignore[attr-defined]


def test_a_record_with_a_name_that_is_no_text_is_written(tmp_path: Path) -> None:
    def outcome(_: Trial, record: Record) -> Record:
        return record.model_copy(update={"log": "logs/\udcff.log"})

    run_sweep("experiment=single", f"results={tmp_path}", "rounds=1", hosts=FakeHosts(outcome))
    [kept] = records(tmp_path)
    assert (kept["status"], kept["log"]) == ("ok", "logs/\\xff.log")


def test_retry_runs_a_failed_trial_once_more(tmp_path: Path) -> None:
    overrides = (f"results={tmp_path}", "experiment=single", "sp=2,4", "rounds=1")
    run, _, _ = run_sweep(*overrides, hosts=FakeHosts(failing))
    assert run.summary is not None
    assert run.summary.not_ok == 1
    _, hosts, _ = run_sweep(*overrides, hosts=FakeHosts(failing))
    assert hosts.trials == []
    _, hosts, _ = run_sweep(*overrides, "retry=error,timeout", hosts=FakeHosts(failing))
    assert [(trial.configuration.sp, trial.attempt) for trial in hosts.trials] == [(4, 1)]
    _, hosts, _ = run_sweep(*overrides, "retry=timeout", hosts=FakeHosts(failing))
    assert hosts.trials == []
    run, hosts, _ = run_sweep(*overrides, "retry=error")
    assert [trial.attempt for trial in hosts.trials] == [2]
    assert run.summary is not None
    assert run.summary.not_ok == 0


def test_environments_are_provided_before_the_first_trial(tmp_path: Path) -> None:
    asked: list[str] = []

    def provide(spec: EnvironmentSpec, report: object) -> str:
        asked.append(spec.name)
        return spec.name

    _, hosts, _ = run_sweep(f"results={tmp_path}", "rounds=1", provide=provide)
    assert sorted(asked) == ["torch-2.13", "torch-2.2"]
    spec = hosts.trials[0].configuration.environment
    assert hosts.interpreter_of(spec) == spec.name
    asked.clear()
    run_sweep(f"results={tmp_path}", "rounds=1", provide=provide)
    assert asked == []


def test_a_broken_environment_ends_the_sweep_before_it_starts(tmp_path: Path) -> None:
    def provide(spec: EnvironmentSpec, report: object) -> str:
        if spec.name == "torch-2.13":
            raise EnvironmentProblem("no disk")
        return spec.name

    hosts = FakeHosts()
    folder = tmp_path / "results"
    with pytest.raises(EnvironmentProblem, match="no disk"):
        run_sweep(f"results={folder}", hosts=hosts, provide=provide)
    assert hosts.trials == []
    assert not folder.exists()


def test_ctrl_c_leaves_complete_records_and_closes_the_hosts(tmp_path: Path) -> None:
    def interrupted(trial: Trial, record: Record) -> Record:
        if trial.round == 1:
            raise KeyboardInterrupt
        return record

    hosts = FakeHosts(interrupted)
    overrides = (f"results={tmp_path}", "experiment=single", "rounds=3")
    with pytest.raises(KeyboardInterrupt):
        run_sweep(*overrides, hosts=hosts)
    assert hosts.closed == 1
    assert [record["round"] for record in records(tmp_path)] == [0]
    _, hosts, _ = run_sweep(*overrides)
    assert [trial.round for trial in hosts.trials] == [1, 2]


def test_sigterm_is_an_interrupt(tmp_path: Path) -> None:
    def terminated(trial: Trial, record: Record) -> Record:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return record

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(f"results={tmp_path}", "experiment=single", hosts=FakeHosts(terminated))
    assert signal.getsignal(signal.SIGTERM) == before
    assert records(tmp_path) == []


def sweep_process(log: Path, *overrides: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own; a trial takes 50 ms and is noted in `log`."""
    command = [sys.executable, "-m", "tests.controller.fake_hosts", str(log), *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]


def test_sweeps_side_by_side_share_the_work(tmp_path: Path) -> None:
    folder, log = tmp_path / "results", tmp_path / "log"
    overrides = (f"results={folder}", "rounds=2")
    sweeps = [sweep_process(log, *overrides) for _ in range(3)]
    for one in sweeps:
        output, _ = one.communicate(timeout=60)
        assert one.returncode == 0, output
    launched = Counter(log.read_text().split())
    assert len(launched) == 32
    assert set(launched.values()) == {1}
    written = Counter(record["trial_id"] for record in records(folder))
    assert written == launched


def test_what_another_sweep_recorded_meanwhile_is_not_run_again(tmp_path: Path) -> None:
    """While the first of two trials runs, another sweep records both."""
    plan = ("experiment=single", "environment=torch-2.13", "loss=local", "rounds=2")
    run_sweep(f"results={tmp_path / 'another'}", *plan)
    [theirs] = (tmp_path / "another").glob("records-*.jsonl")
    folder = tmp_path / "ours"

    def meanwhile(trial: Trial, record: Record) -> Record:
        (folder / "records-another-1.jsonl").write_bytes(theirs.read_bytes())
        return record

    _, hosts, _ = run_sweep(f"results={folder}", *plan, hosts=FakeHosts(meanwhile))
    assert len(hosts.trials) == 1


def test_a_claim_that_is_let_go_without_a_record_settles_nothing(tmp_path: Path) -> None:
    """Another sweep takes the second trial while the first runs, and dies half a second later."""
    plan = ("experiment=single", "environment=torch-2.13", "loss=local", "rounds=2")
    with contextlib.ExitStack() as stack:

        def taken(trial: Trial, record: Record) -> Record:
            if trial.round == 0:
                second = trial.model_copy(update={"round": 1})
                let_go = stack.enter_context(held(tmp_path, second))
                threading.Timer(0.5, let_go).start()
            return record

        run, hosts, _ = run_sweep(f"results={tmp_path}", *plan, hosts=FakeHosts(taken))
    assert [trial.round for trial in hosts.trials] == [0, 1]
    assert run.summary is not None and run.summary.complete


def test_the_trial_of_a_killed_sweep_is_run_by_another(tmp_path: Path) -> None:
    folder, log = tmp_path / "results", tmp_path / "log"
    overrides = (f"results={folder}", "rounds=8")
    first = sweep_process(log, *overrides)
    deadline = time.monotonic() + 30
    while not (log.exists() and len(log.read_text().split()) > 5):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = sweep_process(log, *overrides)
    first.kill()
    first.communicate()
    output, _ = second.communicate(timeout=90)
    assert second.returncode == 0, output
    keys = Counter((record["config_hash"], record["round"]) for record in records(folder))
    assert len(keys) == 16 * 8
    assert set(keys.values()) == {1}


def test_the_ledger_reads_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "records-other-1.jsonl"
    ledger = Ledger(tmp_path)

    def line(round_: int, attempt: int = 0, status: str = "ok") -> str:
        ranks = [factories.samples(0, [0.5, 0.25, 0.75]), factories.samples(1, [0.5, 1.0, 0.5])]
        record = factories.ok(round=round_, attempt=attempt, samples=ranks)
        content = {**json.loads(record.model_dump_json()), "status": status}
        return json.dumps({**content, "config_hash": "ab"}) + "\n"

    def found(round_: int) -> object:
        entry = ledger.find(("ab", round_))
        return entry and entry[:3]

    path.write_text(line(0) + line(1)[:-5])
    ledger.refresh()
    assert found(0) == (Status.OK, 0, 0.75)  # the median of 0.5, 1.0 and 0.75
    assert found(1) is None  # still being written
    path.write_text("x" * len(line(0)) + line(1) + "no record\n" + line(0, 1, "error"))
    ledger.refresh()
    assert found(1) == (Status.OK, 0, 0.75)
    assert found(0) == (Status.ERROR, 1, None)
    with path.open("a") as more:
        more.write(line(0, 0, "oom"))  # a duplicate of an older attempt
    ledger.refresh()
    assert found(0) == (Status.ERROR, 1, None)
