"""Fixtures that reach real environments: real torch, real DeepSpeed, real processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from bench.controller.environments import known_specs, provide
from bench.controller.hosts import Hosts
from bench.record import Record
from bench.trial import CommSpec, Configuration, EnvironmentSpec, ModelSpec, Trial

settings.register_profile("any machine", deadline=None)  # slow and shared ones, too
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parents[1]
TINY = ModelSpec(name="tiny", layers=2, hidden=64, heads=8, kv_heads=4, ffn=96, vocab=64)
EMULATED = CommSpec(name="nccl_over_gloo")

Configure = Callable[..., Configuration]
RunTrial = Callable[[Configuration], Record]


def spec(name: str) -> EnvironmentSpec:
    """One of the environments that spbench ships."""
    return known_specs(ROOT / "conf")[name]


def configure(environment: str = "torch-2.13", **fields: Any) -> Configuration:
    """A small configuration; `fields` replace what it says."""
    defaults: dict[str, Any] = {
        "environment": spec(environment),
        "model": TINY,
        "comm": EMULATED,
        "loss": "local",
        "seq_len": 64,
        "steps": 1,
        "warmup_steps": 1,
    }
    return Configuration(**{**defaults, **fields})


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder for logs."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    """Warm servers, shared by all tests of the session."""
    with Hosts(provide) as shared:
        yield shared


@pytest.fixture
def run_trial(hosts: Hosts, results: Path) -> RunTrial:
    """Run one real trial."""
    return lambda configuration: hosts.run(Trial(configuration=configuration, round=0), results)


@pytest.fixture(scope="session")
def run_inside() -> Callable[..., Any]:
    """Run a script of `tests/inside` in an environment; gives the JSON that it printed.

    Keywords are environment variables.
    """

    def run(environment: str, script: str, *arguments: str, **variables: str) -> Any:
        interpreter = provide(spec(environment))
        usual = {"PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(
            [interpreter.python, str(ROOT / "tests" / "inside" / script), *arguments],
            env={**os.environ, **usual, **variables},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
