"""`spbench selfcheck` from outside: rows on a real interpreter, JSON, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.controller.environments import provide
from tests.conftest import ROOT, spec


def selfcheck(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", "selfcheck", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("--rows", "frok"), "--rows frok: unknown row; allowed: fork, one_rank"),
        (("--rows", ""), "--rows : unknown row; allowed: fork, one_rank"),
        (("--python", "/nowhere/python"), "--python /nowhere/python: no such file"),
        (("--python", sys.executable), f"--python {sys.executable} has no torch"),
    ],
    ids=str,
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], fragment: str
) -> None:
    done = selfcheck(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("spbench: ") and fragment in line


def test_rows_are_listed_without_an_interpreter() -> None:
    done = selfcheck("--list")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names[:2] == ["fork", "one_rank"] and names[-1] == "judge"
    assert "(GPU)" in next(line for line in done.stdout.splitlines() if "real_size" in line)


def test_selfcheck_and_doctor_name_each_other() -> None:
    def help_of(command: str) -> str:
        done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        return " ".join(done.output.split())

    assert "spbench doctor" in help_of("selfcheck") and "--self-test" in help_of("selfcheck")
    assert "spbench selfcheck" in help_of("doctor")


@pytest.mark.environment
def test_rows_run_on_cpu_and_say_what_was_seen() -> None:
    python = str(provide(spec("torch-2.13")).python)
    done = selfcheck("--python", python, "--rows", "fork,real_size")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{python} on CPU: rows that need a GPU are not run"
    assert lines[1].startswith("✓ fork") and "expected: the device works" in lines[1]
    assert lines[2].strip() == "seen: a tensor on cpu; one thread in the server"
    assert lines[3].startswith("– real_size")
    assert lines[-1] == "1 of 2 rows passed, 1 not judged here"


@pytest.mark.environment
def test_json_names_device_and_rows() -> None:
    python = str(provide(spec("torch-2.13")).python)
    found = json.loads(selfcheck("--python", python, "--rows", "fork", "--json").stdout)
    [row] = found.pop("rows")
    assert found == {"python": python, "device": "CPU", "missed": 0}
    assert (row["name"], row["passed"]) == ("fork", True)


ON_CPU = (
    "fork",
    "one_rank",
    "four_ranks",
    "tf32",
    "no_nvcc",
    "reference",
    "modes",
    "profile",
    "drills",
    "full_card",
    "capacity",
    "judge",
)
"""Rows that are judged without a GPU."""
ON_OLD_TORCH = ("four_ranks", "reference", "modes")
"""Those that a version of torch could change."""


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("environment", "rows"),
    [("torch-2.2", ON_OLD_TORCH), ("torch-2.13", ON_CPU)],
    ids=["torch-2.2", "torch-2.13"],
)
def test_rows_pass_on_cpu(environment: str, rows: tuple[str, ...]) -> None:
    python = str(provide(spec(environment)).python)
    some = () if rows == ON_CPU else ("--rows", ",".join(rows))
    done = selfcheck("--python", python, "--json", *some)
    found = json.loads(done.stdout)
    missed = {row["name"]: row["seen"] for row in found["rows"] if row["passed"] is False}
    assert (done.returncode, missed) == (0, {})
    assert [row["name"] for row in found["rows"] if row["passed"]] == list(rows)
