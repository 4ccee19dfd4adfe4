"""Environments on the fly: made when first asked for, the least recently used removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.controller import build, environments, pool
from bench.controller import run as run_module
from bench.controller.environments import EnvironmentProblem
from bench.controller.pool import Pool
from bench.record import Record, Status
from bench.record_files import read_records
from bench.trial import EnvironmentSpec, Trial
from tests.controller.fake_hosts import FakeHosts, run_sweep

ROOT = Path(__file__).resolve().parents[2]
USER = """
import sys
from bench.controller import environments
from bench.trial import EnvironmentSpec
environments.provide(EnvironmentSpec(name="x", torch="1.0", deepspeed=sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no GPU."""
    monkeypatch.setenv("SPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)
    return tmp_path / "cache"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real uv and real folders, but six (11 kB) in place of torch and DeepSpeed."""
    monkeypatch.setattr(build, "requirements", lambda spec: [f"six==1.{spec.deepspeed}.0"])
    monkeypatch.setattr(build, "require_disk", lambda spec, folder: None)


def spec(deepspeed: str) -> EnvironmentSpec:
    """An environment with six 1.<deepspeed>.0."""
    return EnvironmentSpec(name=f"six-{deepspeed}", torch="1.0", deepspeed=deepspeed)


def on_disk() -> list[str]:
    return sorted(str(one.spec.deepspeed) for one in environments.installed())


@pytest.mark.usefixtures("tiny")
def test_the_least_recently_used_goes_first_and_is_left_before() -> None:
    said: list[str] = []
    left: list[tuple[str, list[str]]] = []
    made = Pool(2, environments.provide, said.append)
    made.leave = lambda key: left.append((key, on_disk()))
    made.interpreter(spec("14"))
    made.interpreter(spec("15"))
    made.interpreter(spec("14"))  # used again: 15 is now the older one
    assert (left, on_disk()) == ([], ["14", "15"])

    python = made.interpreter(spec("16")).python

    assert on_disk() == ["14", "16"]
    assert left == [(environments.key_of(spec("15")), ["14", "15"])]  # still there when it was left
    assert "environment 'six-15': removed, env.keep=2" in said
    shown = subprocess.run(
        [python, "-c", "import six; print(six.__version__)"], capture_output=True
    )
    assert shown.stdout == b"1.16.0\n"


@pytest.mark.usefixtures("tiny")
def test_named_ones_and_those_that_were_there_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "known_specs", lambda conf: {"mine": spec("14")})
    environments.provide(spec("15"))  # as an earlier sweep without env.keep left it
    made = Pool(1, environments.provide, lambda line: None)
    for one in ("14", "15", "16", "17"):
        made.interpreter(spec(one))
    assert on_disk() == ["14", "15", "17"]


@pytest.mark.usefixtures("tiny")
def test_what_another_process_uses_stays() -> None:
    said: list[str] = []
    made = Pool(1, environments.provide, said.append)
    made.interpreter(spec("14"))
    program = USER.replace(
        "environments.provide(",
        "from bench.controller import build\n"
        "build.requirements = lambda spec: [f'six==1.{spec.deepspeed}.0']\n"
        "environments.provide(",
    )
    user = subprocess.Popen(
        [sys.executable, "-c", program, "14"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "ready\n"
    try:
        made.interpreter(spec("15"))
        assert on_disk() == ["14", "15"]
        assert any("in use by another process" in line for line in said)
    finally:
        user.kill()
        user.communicate()
    made.interpreter(spec("16"))
    assert on_disk() == ["16"]


class Failing(FakeHosts):
    """Asks for the interpreter of each trial, as `Hosts` does, and records what that raises."""

    def leave(self, key: str) -> None:
        raise AssertionError("nothing was made, so nothing is removed")

    def run(self, trial: Trial, folder: Path, note: object) -> Record:
        try:
            self.interpreter_of(trial.configuration.environment)
        except EnvironmentProblem:
            self.trials.append(trial)
            return Record.of(trial, Status.ENVIRONMENT, "2026-01-01T00:00:00+00:00", 0.1)
        return super().run(trial, folder, note)  # type: ignore[arg-type]


PAIRS = ("experiment=single", "environment.torch=1.0,1.1", "environment.deepspeed=0.1,0.2")


def test_with_keep_environments_are_made_on_the_way(tmp_path: Path) -> None:
    order: list[str] = []

    def provide(asked: EnvironmentSpec, report: object) -> str:
        order.append(f"make {asked.torch} {asked.deepspeed}")
        if asked.deepspeed == "0.2":
            raise EnvironmentProblem("no such version", "resolve")
        return asked.name

    hosts = Failing(lambda trial, record: order.append("run") or record)  # type: ignore[func-returns-value]
    run, _, _ = run_sweep(
        f"results={tmp_path}", *PAIRS, "env.keep=2", "rounds=1", hosts=hosts, provide=provide
    )
    found = {
        (raw.content["config"]["environment"]["torch"],
         raw.content["config"]["environment"]["deepspeed"]): raw.content["status"]
        for raw in read_records(tmp_path)
    }  # fmt: skip
    assert found == {
        ("1.0", "0.1"): "ok",
        ("1.0", "0.2"): "environment",
        ("1.1", "0.1"): "ok",
        ("1.1", "0.2"): "environment",
    }
    assert order.index("run") < len(order) - 2  # not all were made before the first trial
    assert run.summary is not None
    assert run.summary.complete


def test_without_keep_the_first_problem_ends_the_sweep(tmp_path: Path) -> None:
    def provide(asked: EnvironmentSpec, report: object) -> str:
        raise EnvironmentProblem("no such version", "resolve")

    with pytest.raises(EnvironmentProblem):
        run_sweep(f"results={tmp_path / 'new'}", *PAIRS, provide=provide)
    assert not (tmp_path / "new").exists()


def test_with_keep_all_rounds_of_an_environment_come_together(tmp_path: Path) -> None:
    _, hosts, _ = run_sweep(f"results={tmp_path}", *PAIRS, "env.keep=1", "rounds=3", "sp=2,4")
    names = [trial.configuration.environment.name for trial in hosts.trials]
    assert len(names) == 24
    changes = sum(a != b for a, b in zip(names, names[1:], strict=False))
    assert changes == 3
    assert {trial.round for trial in hosts.trials[:6]} == {0, 1, 2}
